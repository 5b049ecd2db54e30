//! Counting what quotas bound.

use std::sync::Arc;

use gatepost_core::delivery::{DeliveryState, Reason};

use super::{at, change, event, publish, settlement, tenant, webhook};
use crate::{Next, Store};

/// See the name.
pub async fn webhooks_and_waiting_deliveries_are_counted(store: Arc<dyn Store>) {
    let (acme, beta) = (tenant(&*store, "acme").await.key, tenant(&*store, "beta").await.key);
    assert_eq!((store.webhook_count(acme).await.unwrap(), store.pending_count(acme, 10).await.unwrap()), (0, 0));
    let (one, two) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    let other = webhook(&*store, beta, 3).await;
    assert_eq!((store.webhook_count(acme).await.unwrap(), store.webhook_count(beta).await.unwrap()), (2, 1));

    let made = publish(&*store, acme, at(10), vec![event("user.created", &[&one, &two]), event("a.b", &[&one])]).await;
    publish(&*store, beta, at(10), vec![event("user.created", &[&other])]).await;
    assert_eq!(store.pending_count(acme, 100).await.unwrap(), 3);
    assert_eq!(store.pending_count(acme, 2).await.unwrap(), 2, "no further than asked");
    assert_eq!(store.pending_count(beta, 100).await.unwrap(), 1);

    // One that waits for its retry is still owed; one that has ended is not.
    let dues: Vec<_> = made.iter().flat_map(|accepted| &accepted.deliveries).collect();
    store.settle(vec![settlement(dues[0], at(20), 500, Next::Retry(at(60)))]).await.unwrap();
    assert_eq!(store.pending_count(acme, 100).await.unwrap(), 3);
    store.settle(vec![settlement(dues[1], at(20), 200, Next::Delivered)]).await.unwrap();
    let failed = Next::End(DeliveryState::Failed, Reason::Rejected);
    store.settle(vec![settlement(dues[2], at(20), 400, failed)]).await.unwrap();
    assert_eq!(store.pending_count(acme, 100).await.unwrap(), 1);

    // What is held waits too; what waited for a deleted webhook does not.
    change(&*store, &one, at(30), |config| config.enabled = false).await;
    assert_eq!(store.pending_count(acme, 100).await.unwrap(), 1);
    store.delete_webhook(acme, one.id, at(40)).await.unwrap();
    assert_eq!((store.webhook_count(acme).await.unwrap(), store.pending_count(acme, 100).await.unwrap()), (1, 0));
}
