//! What a stream of changes shows of deliveries.

use std::sync::Arc;

use gatepost_core::{DeliverySeq, EventSeq};

use super::{at, event, publish, tenant, webhook};
use crate::{DeliveryRow, Store};

/// See the name.
pub async fn deliveries_are_read_by_event_and_by_number(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let other = tenant(&*store, "other").await.key;
    let hooks = [webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await];
    let new = vec![event("a", &[&hooks[0], &hooks[1]]), event("b", &[]), event("c", &[&hooks[1]])];
    let accepted = publish(&*store, acme, at(1), new).await;
    let events: Vec<EventSeq> = accepted.iter().map(|one| one.event.seq).collect();
    let listed = store.deliveries_of(acme, events[0], 10).await.unwrap();
    let numbers = |rows: &[DeliveryRow]| rows.iter().map(|row| row.seq).collect::<Vec<_>>();

    let rows = store.delivery_rows(acme, &events, &[], 10).await.unwrap();
    assert_eq!(rows.of_events.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0, 1]);
    assert_eq!((&rows.of_events[0], rows.deliveries.len()), (&listed, 0));
    assert_eq!(store.delivery_rows(acme, &events, &[], 1).await.unwrap().of_events[0], listed[..1]);

    let asked = [listed[1].seq, DeliverySeq(999), listed[0].seq];
    let rows = store.delivery_rows(acme, &[], &asked, 10).await.unwrap();
    assert_eq!(numbers(&rows.deliveries), [listed[1].seq, listed[0].seq]);
    // Another tenant's are none.
    let rows = store.delivery_rows(other, &events, &asked, 10).await.unwrap();
    assert!(rows.of_events.iter().all(Vec::is_empty) && rows.deliveries.is_empty());
}
