//! Own events: noted with the change they tell of, published once.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::Subject;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::webhook::Webhook;
use gatepost_core::{TenantKey, WebhookKey};

use super::{at, attempt, change, due, event, one_delivery, publish, settlement, tenant, webhook};
use crate::{About, NewOwnEvent, Next, Noted, Publish, PublishOutcome, RetryOutcome, Settled, Settlement, Store};

pub(super) async fn noted(store: &dyn Store) -> Vec<Noted> {
    store.noted(0, 1_000).await.unwrap()
}

async fn names(store: &dyn Store) -> Vec<&'static str> {
    noted(store).await.iter().map(|one| one.event.as_str()).collect()
}

async fn forget_all(store: &dyn Store) {
    for one in noted(store).await {
        store.forget_noted(one.number).await.unwrap();
    }
}

async fn publish_note(
    store: &dyn Store,
    tenant: TenantKey,
    number: i64,
    matches: &[&Webhook],
    farewell: Option<WebhookKey>,
) -> Option<PublishOutcome> {
    let registry_version = store.registry(tenant).await.unwrap().map_or(0, |registry| registry.version);
    let events = vec![event("gatepost.webhook.updated", matches)];
    store.publish_noted(number, Publish { tenant, registry_version, now: at(50), events }, farewell).await.unwrap()
}

/// See the name.
pub async fn every_change_of_webhooks_is_noted_with_its_revision(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    change(&*store, &hook, at(2), |config| config.name = "two".into()).await;
    store.delete_webhook(acme, hook.id, at(3)).await.unwrap().unwrap();
    let about = |revision| About::Webhook { key: hook.key, revision, disabled_reason: None };
    let told: Vec<_> = noted(&*store).await.into_iter().map(|one| (one.event, one.at, one.about)).collect();
    // The deletion tells of the webhook as it last was.
    assert_eq!(
        told,
        [
            (OwnEvent::WebhookCreated, at(0), about(1)),
            (OwnEvent::WebhookUpdated, at(2), about(2)),
            (OwnEvent::WebhookDeleted, at(3), about(2)),
        ]
    );
    let numbers: Vec<_> = noted(&*store).await.iter().map(|one| one.number).collect();
    assert_eq!(store.noted(numbers[0], 1).await.unwrap()[0].number, numbers[1]);
}

/// See the name.
pub async fn a_note_is_published_once(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let number = noted(&*store).await[0].number;
    let stale = Publish { tenant: acme, registry_version: 99, now: at(5), events: vec![event("gatepost.x", &[])] };
    let outcome = store.publish_noted(number, stale, None).await.unwrap();
    assert!(matches!(outcome, Some(PublishOutcome::StaleRegistry(1))), "{outcome:?}");
    assert_eq!(noted(&*store).await.len(), 1, "the note stays");
    let Some(PublishOutcome::Accepted(accepted)) = publish_note(&*store, acme, number, &[&hook], None).await else {
        panic!("not accepted")
    };
    assert_eq!(accepted[0].deliveries.len(), 1);
    assert!(noted(&*store).await.is_empty());
    assert!(publish_note(&*store, acme, number, &[&hook], None).await.is_none(), "its answer was lost");
    assert_eq!(due(&*store, hook.key, at(60)).await.len(), 1);
}

/// See the name.
pub async fn what_is_given_is_kept_as_it_is_and_told_once_under_its_id(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let subject = Subject { kind: Some("hook".into()), id: "h1".into() };
    let new = NewOwnEvent {
        tenant: acme,
        event: OwnEvent::HookCircuitOpened,
        id: Some("gp_1".parse().unwrap()),
        subject: Some(subject.clone()),
        data: Bytes::from_static(b"{\"a\": 1}"),
        at: at(4),
    };
    store.note_own(new.clone()).await.unwrap();
    store.note_own(NewOwnEvent { id: None, subject: None, ..new.clone() }).await.unwrap();
    store.note_own(NewOwnEvent { tenant: TenantKey(99), ..new.clone() }).await.unwrap();
    let all = noted(&*store).await;
    assert_eq!(all.len(), 2, "nothing is noted of a tenant that is not there");
    let about = About::Given { id: new.id.clone(), subject: Some(subject), data: new.data.clone() };
    assert_eq!((all[0].event, all[0].at, &all[0].about), (OwnEvent::HookCircuitOpened, at(4), &about));
    assert_eq!(all[1].about, About::Given { id: None, subject: None, data: new.data });
    store.forget_noted(all[0].number).await.unwrap();
    assert_eq!(noted(&*store).await.len(), 1);
}

/// See the name.
pub async fn giving_a_delivery_up_is_noted_once(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    forget_all(&*store).await;
    let first = one_delivery(&*store, &hook).await;
    let failed = settlement(&first, at(11), 500, Next::Retry(at(20)));
    store.settle(vec![failed]).await.unwrap();
    assert!(noted(&*store).await.is_empty(), "it is not given up yet");
    let again = due(&*store, hook.key, at(20)).await.remove(0);
    let end = settlement(&again, at(21), 500, Next::End(DeliveryState::Failed, Reason::Exhausted));
    store.settle(vec![end.clone()]).await.unwrap();
    store.settle(vec![end]).await.unwrap();
    let told = noted(&*store).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].about, About::Delivery { seq: first.seq, reason: Reason::Exhausted });
    // What is no failure, and what must not be told.
    let cancelled = one_delivery(&*store, &hook).await;
    let end = Next::End(DeliveryState::Cancelled, Reason::Gone);
    store.settle(vec![settlement(&cancelled, at(30), 410, end)]).await.unwrap();
    let own = one_delivery(&*store, &hook).await;
    let end = Next::End(DeliveryState::Failed, Reason::Exhausted);
    store.settle(vec![Settlement { tell: false, ..settlement(&own, at(30), 500, end) }]).await.unwrap();
    assert_eq!(names(&*store).await, ["gatepost.delivery.exhausted"]);
}

/// See the name.
pub async fn an_answer_that_disables_does_so_with_its_outcome(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    forget_all(&*store).await;
    let one = one_delivery(&*store, &hook).await;
    let end = Next::End(DeliveryState::Failed, Reason::Gone);
    let gone = Settlement { disable: Some("gone"), ..settlement(&one, at(11), 410, end) };
    let gone = Settlement { attempt: with_revision((*gone.attempt).clone(), hook.revision).into(), ..gone };
    let version = store.registry(acme).await.unwrap().unwrap().version;
    store.settle(vec![gone.clone()]).await.unwrap();
    store.settle(vec![gone]).await.unwrap();
    let now = store.webhook(acme, hook.id).await.unwrap().unwrap();
    assert_eq!((now.config.enabled, now.disabled_reason.as_deref()), (false, Some("gone")));
    assert_eq!(now.revision, hook.revision + 1);
    assert_eq!(store.registry(acme).await.unwrap().unwrap().version, version + 1, "matching must hear of it (P4)");
    assert_eq!(names(&*store).await, ["gatepost.delivery.exhausted", "gatepost.webhook.disabled"]);
    let about = About::Webhook { key: hook.key, revision: now.revision, disabled_reason: Some("gone".into()) };
    assert_eq!(noted(&*store).await[1].about, about);
}

fn with_revision(
    mut attempt: gatepost_core::delivery::AttemptRecord,
    revision: u32,
) -> gatepost_core::delivery::AttemptRecord {
    attempt.sent.revision = revision;
    attempt
}

/// See the name.
pub async fn a_webhook_that_moved_is_not_disabled_for_its_old_place(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let one = one_delivery(&*store, &hook).await;
    change(&*store, &hook, at(11), |config| config.url = "https://elsewhere.example/".into()).await;
    let end = Next::End(DeliveryState::Failed, Reason::Gone);
    let gone = Settlement { disable: Some("gone"), ..settlement(&one, at(12), 410, end) };
    let gone = Settlement { attempt: with_revision(attempt(1, at(12), 410), hook.revision).into(), ..gone };
    store.settle(vec![gone]).await.unwrap();
    assert!(store.webhook(acme, hook.id).await.unwrap().unwrap().config.enabled);
}

/// See the name.
pub async fn a_deleted_webhook_is_owed_its_farewell_and_nothing_else(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let before = one_delivery(&*store, &hook).await;
    forget_all(&*store).await;
    store.delete_webhook(acme, hook.id, at(20)).await.unwrap().unwrap();
    let number = noted(&*store).await[0].number;
    let Some(PublishOutcome::Accepted(accepted)) = publish_note(&*store, acme, number, &[&hook], Some(hook.key)).await
    else {
        panic!("not accepted")
    };
    let farewell = accepted[0].deliveries[0].clone();
    let deleted = store.webhook_by_key(hook.key).await.unwrap().unwrap();
    assert_eq!((deleted.farewell, deleted.deleted_at), (Some(farewell.seq), Some(at(20))));
    let seqs = |list: Vec<crate::Due>| list.into_iter().map(|due| due.seq).collect::<Vec<_>>();
    assert_eq!(seqs(due(&*store, hook.key, at(60)).await), [farewell.seq], "the other is cancelled");
    let owed = store.owed(None, 10).await.unwrap();
    assert_eq!(owed.len(), 1);
    assert_eq!(owed[0].earliest[1], Some(at(50)));
    while store.sweep(at(60), 1).await.unwrap().more {}
    let state = async |seq| {
        let row = store.delivery(acme, seq).await.unwrap().unwrap().row;
        (row.state, row.reason)
    };
    assert_eq!(state(before.seq).await, (DeliveryState::Cancelled, Some(Reason::WebhookDeleted)));
    assert_eq!(state(farewell.seq).await, (DeliveryState::Pending, None));
    // It is tried, fails, and is tried again like any other.
    let failed = settlement(&farewell, at(61), 500, Next::Retry(at(70)));
    assert_eq!(store.settle(vec![failed]).await.unwrap().results, [Settled::Recorded]);
    assert!(due(&*store, hook.key, at(69)).await.is_empty());
    let again = due(&*store, hook.key, at(70)).await.remove(0);
    assert_eq!((again.seq, again.attempts), (farewell.seq, 1));
    let reopened = store.retry(acme, again.seq, at(72)).await.unwrap();
    assert!(matches!(reopened, RetryOutcome::WebhookDeleted), "{reopened:?}");
    store.settle(vec![settlement(&again, at(73), 200, Next::Delivered)]).await.unwrap();
    assert_eq!(state(farewell.seq).await, (DeliveryState::Delivered, None));
    assert!(store.owed(None, 10).await.unwrap().is_empty());
}

/// See the name.
pub async fn a_deleted_tenants_notes_go_with_it(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let hook = webhook(&*store, acme.key, 1).await;
    publish(&*store, acme.key, at(1), vec![event("a.b", &[&hook])]).await;
    store.delete_tenant(&acme.id, at(2)).await.unwrap().unwrap();
    while store.sweep(at(3), 1).await.unwrap().more {}
    assert!(noted(&*store).await.is_empty());
}
