//! Accepting events.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::DeliveryState;
use gatepost_core::trace::TraceContext;
use gatepost_core::{EventId, TenantKey};

use super::{about, at, event, named, page, publish, tenant, try_publish, webhook};
use crate::{EventQuery, NewEvent, Publish, PublishOutcome, Store};

/// How many events a tenant has.
async fn count(store: &dyn Store, tenant: TenantKey) -> usize {
    let query = EventQuery::of(tenant, page(250, None));
    store.events(query).await.expect("events").rows.len()
}

/// See the name.
pub async fn accepted_events_are_there_with_their_deliveries(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let (one, two) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    let new = about("u1", event("user.created", &[&one, &two]));
    let accepted = publish(&*store, acme, at(10), vec![new.clone()]).await.remove(0);
    assert_eq!((accepted.delivery_count, accepted.duplicate, accepted.deliveries.len()), (2, false, 2));
    assert_eq!(accepted.event.id, EventId::numbered(at(10), accepted.event.seq));
    assert_eq!((accepted.event.accepted_at, accepted.event.timestamp), (at(10), at(-5)));
    assert_eq!((&accepted.event.subject, accepted.event.registry_version), (&new.subject, 2));

    let read = store.event(acme, &accepted.event.id).await.unwrap().unwrap();
    assert_eq!(read, *accepted.event);
    for (made, hook) in accepted.deliveries.iter().zip([&one, &two]) {
        assert_eq!((made.webhook, made.revision, made.due), (hook.key, hook.revision, at(10)));
        let detail = store.delivery(acme, made.seq).await.unwrap().unwrap();
        assert_eq!((detail.row.state, detail.row.reason), (DeliveryState::Pending, None));
        assert_eq!((detail.row.next_attempt_at, detail.row.id()), (Some(at(10)), made.id()));
        assert_eq!((detail.row.webhook, detail.row.webhook_id), (hook.key, hook.id));
        assert_eq!((detail.row.event_ids.as_slice(), &detail.row.subject), (&[read.id.clone()][..], &new.subject));
        assert_eq!((**detail.events.first()).clone(), read);
        assert_eq!((detail.attempts.len(), detail.body, detail.revision), (0, None, hook.revision));
    }
}

/// See the name.
pub async fn p4_a_publish_matched_against_an_older_registry_is_refused(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let attempt = |registry_version| {
        store.publish(Publish { tenant: acme, registry_version, now: at(1), events: vec![event("a.b", &[])] })
    };
    assert!(matches!(attempt(0).await.unwrap(), PublishOutcome::Accepted(_)));
    webhook(&*store, acme, 1).await;
    assert!(matches!(attempt(0).await.unwrap(), PublishOutcome::StaleRegistry(1)));
    assert_eq!(count(&*store, acme).await, 1);
    assert!(matches!(attempt(1).await.unwrap(), PublishOutcome::Accepted(_)));
    store.delete_webhook(acme, super::webhook_id(1), at(2)).await.unwrap().unwrap();
    assert!(matches!(attempt(1).await.unwrap(), PublishOutcome::StaleRegistry(2)));
    let nobody = Publish { tenant: TenantKey(987), registry_version: 0, now: at(1), events: vec![event("a.b", &[])] };
    assert!(matches!(store.publish(nobody).await.unwrap(), PublishOutcome::NoTenant));
}

/// See the name.
pub async fn p6_an_event_that_matches_nothing_is_kept(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let accepted = publish(&*store, acme, at(1), vec![event("user.created", &[])]).await;
    assert_eq!((accepted[0].delivery_count, accepted[0].deliveries.len()), (0, 0));
    assert!(store.event(acme, &accepted[0].event.id).await.unwrap().is_some());
    assert!(store.deliveries_of(acme, accepted[0].event.seq, 10).await.unwrap().is_empty());
}

/// See the name.
pub async fn the_same_event_again_is_a_duplicate_and_adds_nothing(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let new = named("order-1", 1, event("user.created", &[&hook]));
    let first = publish(&*store, acme, at(10), vec![new.clone()]).await.remove(0);
    let again = publish(&*store, acme, at(20), vec![new]).await.remove(0);
    assert!(again.duplicate && again.deliveries.is_empty());
    assert_eq!((again.event, again.delivery_count), (first.event.clone(), 1));
    assert_eq!(count(&*store, acme).await, 1);
    assert_eq!(store.deliveries_of(acme, first.event.seq, 10).await.unwrap().len(), 1);
}

/// See the name.
pub async fn another_event_under_a_taken_id_refuses_the_whole_call(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    publish(&*store, acme, at(1), vec![named("order-1", 1, event("a.b", &[]))]).await;
    let events = vec![
        named("order-2", 1, event("a.b", &[])),
        NewEvent { undeclared: true, ..event("never.seen", &[]) },
        named("order-1", 2, event("a.b", &[])),
    ];
    let outcome = try_publish(&*store, acme, at(2), events).await;
    assert!(matches!(outcome, PublishOutcome::Conflict { index: 2 }), "{outcome:?}");
    assert_eq!(count(&*store, acme).await, 1);
    assert_eq!(store.event_type("never.seen").await.unwrap(), None);
}

/// See the name.
pub async fn a_timestamp_counts_only_where_both_give_one(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    // Not given means the moment of acceptance.
    let new = |id: &str, timestamp| NewEvent { timestamp, ..named(id, 1, event("a.b", &[])) };
    publish(&*store, acme, at(10), vec![new("given", at(5)), new("omitted", at(10))]).await;
    for (id, now, timestamp, same) in [
        ("given", at(20), at(5), true),
        ("given", at(20), at(6), false),
        ("given", at(20), at(20), true),
        ("omitted", at(20), at(20), true),
        ("omitted", at(20), at(10), true),
        ("omitted", at(20), at(6), true),
    ] {
        match try_publish(&*store, acme, now, vec![new(id, timestamp)]).await {
            PublishOutcome::Accepted(accepted) => assert!(same && accepted[0].duplicate, "{id} {timestamp}"),
            other => assert!(!same, "{id} {timestamp}: {other:?}"),
        }
    }
    let within = vec![new("x", at(5)), new("x", at(30)), new("x", at(6))];
    let outcome = try_publish(&*store, acme, at(30), within).await;
    assert!(matches!(outcome, PublishOutcome::Conflict { index: 2 }), "{outcome:?}");
    assert_eq!(count(&*store, acme).await, 2);
}

/// See the name.
pub async fn an_id_repeated_within_one_call_is_judged_the_same(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let new = |fingerprint| named("x", fingerprint, event("a.b", &[&hook]));
    let accepted = publish(&*store, acme, at(1), vec![new(1), event("c.d", &[]), new(1)]).await;
    assert_eq!(accepted.iter().map(|a| a.duplicate).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!((&accepted[2].event, accepted[2].delivery_count), (&accepted[0].event, 1));
    assert!(accepted[2].deliveries.is_empty());
    let outcome =
        try_publish(&*store, acme, at(2), vec![named("y", 1, event("a.b", &[])), named("y", 2, event("a.b", &[]))])
            .await;
    assert!(matches!(outcome, PublishOutcome::Conflict { index: 1 }), "{outcome:?}");
    assert_eq!(count(&*store, acme).await, 2);
}

/// See the name.
pub async fn an_id_of_our_own_making_is_taken_too(store: Arc<dyn Store>) {
    let (acme, other) = (tenant(&*store, "acme").await.key, tenant(&*store, "other").await.key);
    let first = publish(&*store, acme, at(1), vec![event("a.b", &[])]).await.remove(0);
    let id = first.event.id.as_str();
    let again = publish(&*store, acme, at(2), vec![named(id, 7, event("a.b", &[]))]).await.remove(0);
    assert!(again.duplicate);
    assert_eq!(again.event, first.event);
    let outcome = try_publish(&*store, acme, at(2), vec![named(id, 8, event("a.b", &[]))]).await;
    assert!(matches!(outcome, PublishOutcome::Conflict { index: 0 }), "{outcome:?}");
    // Elsewhere the text is as free as any other; so is one with our number and another time.
    assert!(!publish(&*store, other, at(2), vec![named(id, 8, event("a.b", &[]))]).await[0].duplicate);
    let near = EventId::numbered(at(3), first.event.seq);
    assert!(!publish(&*store, acme, at(2), vec![named(near.as_str(), 8, event("a.b", &[]))]).await[0].duplicate);
    assert_eq!(store.event(acme, &first.event.id).await.unwrap().unwrap(), *first.event);
    assert_eq!(store.event(acme, &near).await.unwrap().unwrap().id, near);
}

/// See the name.
pub async fn ids_are_taken_per_tenant(store: Arc<dyn Store>) {
    let (acme, other) = (tenant(&*store, "acme").await.key, tenant(&*store, "other").await.key);
    let one = publish(&*store, acme, at(1), vec![named("x", 1, event("a.b", &[]))]).await.remove(0);
    let two = publish(&*store, other, at(1), vec![named("x", 2, event("a.b", &[]))]).await.remove(0);
    assert_eq!(store.event(acme, &one.event.id).await.unwrap().unwrap().seq, one.event.seq);
    assert_eq!(store.event(other, &one.event.id).await.unwrap().unwrap().seq, two.event.seq);
    let mine = publish(&*store, acme, at(1), vec![event("a.b", &[])]).await.remove(0);
    assert_eq!(store.event(other, &mine.event.id).await.unwrap(), None);
}

/// See the name.
pub async fn payloads_are_kept_byte_for_byte(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let large = Bytes::from(vec![b'x'; 300_000]);
    for data in [&b"{ \"a\" : 1.0e2 , \"\\u00e9\":\"\xc3\xa9\" }"[..], b"null", b"\"\"", &large] {
        let new = NewEvent {
            data: Bytes::copy_from_slice(data),
            attributes: Some(Bytes::from_static(b"{\"k\" :  [ ]}")),
            trace: trace(data.len()),
            ..event("a.b", &[])
        };
        let accepted = publish(&*store, acme, at(1), vec![new]).await.remove(0);
        let read = store.event(acme, &accepted.event.id).await.unwrap().unwrap();
        assert_eq!(&*read.data, data);
        assert_eq!(read.attributes.as_deref(), Some(&b"{\"k\" :  [ ]}"[..]));
        assert_eq!((read.trace, accepted.event.trace), (trace(data.len()), trace(data.len())));
    }
}

/// A publisher's trace, of some events.
fn trace(n: usize) -> Option<TraceContext> {
    n.is_multiple_of(2).then_some(TraceContext { trace_id: [7; 16], span_id: [n as u8; 8], sampled: n > 4 })
}

/// See the name.
pub async fn numbers_grow_and_an_events_own_deliveries_follow_each_other(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let (one, two) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    let (mut last_event, mut last_delivery) = (0, 0);
    for round in 0..3 {
        let events = vec![event("a.b", &[&one, &two]), event("c.d", &[]), event("e.f", &[&two])];
        for accepted in publish(&*store, acme, at(round), events).await {
            assert!(accepted.event.seq.0 > last_event);
            last_event = accepted.event.seq.0;
            for made in &accepted.deliveries {
                assert!(made.seq.0 > last_delivery);
                last_delivery = made.seq.0;
            }
            let listed = store.deliveries_of(acme, accepted.event.seq, 10).await.unwrap();
            let (listed, made): (Vec<_>, Vec<_>) =
                (listed.iter().map(|d| d.seq).collect(), accepted.deliveries.iter().map(|d| d.seq).collect());
            assert_eq!(listed, made);
        }
    }
}

/// See the name.
pub async fn undeclared_types_are_listed_as_seen(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let new = NewEvent { undeclared: true, ..event("odd.one", &[]) };
    publish(&*store, acme, at(10), vec![new.clone(), event("declared.one", &[])]).await;
    publish(&*store, acme, at(20), vec![new]).await;
    let seen = store.event_type("odd.one").await.unwrap().unwrap();
    assert_eq!((seen.definition, seen.created_at), (None, at(10)));
    assert_eq!(store.event_types(None, 10).await.unwrap().len(), 1);
}
