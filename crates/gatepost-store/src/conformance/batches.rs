//! Batches: events that go out together.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::DeliveryState;
use gatepost_core::event::Urgency;
use gatepost_core::webhook::{Batch, Ordering, Webhook};
use gatepost_core::{DeliverySeq, EventId};

use super::ordering::{all_due, end};
use super::{about, at, change, event, named, page, publish, settlement, tenant, webhook};
use crate::{Accepted, CancelOutcome, DeliveryQuery, Due, NewEvent, Next, RetryOutcome, Settled, Store};

const BATCH: Batch = Batch { max_events: 4, max_wait_ms: 10_000, max_bytes: 1_024 };

async fn batching(store: &dyn Store, hook: &Webhook, batch: Option<Batch>) -> Webhook {
    change(store, hook, at(1), |config| config.batch = batch).await;
    store.webhook(hook.tenant, hook.id).await.unwrap().unwrap()
}

async fn set_up(store: &dyn Store, batch: Batch) -> Webhook {
    let acme = tenant(store, "acme").await.key;
    let hook = webhook(store, acme, 1).await;
    batching(store, &hook, Some(batch)).await
}

async fn one(store: &dyn Store, hook: &Webhook, seconds: i64) -> Accepted {
    publish(store, hook.tenant, at(seconds), vec![event("user.changed", &[hook])]).await.remove(0)
}

async fn sized(store: &dyn Store, hook: &Webhook, seconds: i64, bytes: usize) -> Accepted {
    let new = NewEvent { data: Bytes::from(vec![b'1'; bytes]), ..event("user.changed", &[hook]) };
    publish(store, hook.tenant, at(seconds), vec![new]).await.remove(0)
}

fn ids(list: &[&Accepted]) -> Vec<EventId> {
    list.iter().map(|accepted| accepted.event.id.clone()).collect()
}

fn ids_of(due: &Due) -> Vec<EventId> {
    due.events.all().iter().map(|event| event.id.clone()).collect()
}

/// See the name.
pub async fn events_join_the_open_batch_until_its_age_has_come(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let first = one(&*store, &hook, 10).await;
    let opened = first.wakes[0];
    assert_eq!((opened.webhook, opened.at), (hook.key, Some((Urgency::Normal, at(20)))));
    let (second, third) = (one(&*store, &hook, 12).await, one(&*store, &hook, 19).await);
    assert!(first.deliveries.is_empty() && second.deliveries.is_empty() && second.wakes.is_empty());
    assert_eq!([first.delivery_count, second.delivery_count, third.delivery_count], [1; 3]);
    assert!(all_due(&*store, hook.key, 19).await.is_empty(), "its age has not come");

    for accepted in [&first, &second, &third] {
        let rows = store.deliveries_of(hook.tenant, accepted.event.seq, 10).await.unwrap();
        assert_eq!(rows.len(), 1, "one delivery, whoever asks");
        assert_eq!((rows[0].seq, rows[0].batch, rows[0].event_type.as_str()), (opened.seq, true, "batch"));
        assert_eq!((&rows[0].subject, rows[0].next_attempt_at), (&None, Some(at(20))));
        assert_eq!(rows[0].event_ids, ids(&[&first, &second, &third]));
    }
    let due = all_due(&*store, hook.key, 20).await.remove(0);
    assert_eq!((due.seq, due.created_at, due.due, due.revision), (opened.seq, at(10), at(20), hook.revision));
    assert_eq!((ids_of(&due), due.events.single()), (ids(&[&first, &second, &third]), None));

    // Handed out, it takes nothing more, whatever the publisher's clock says.
    let late = one(&*store, &hook, 15).await;
    assert_ne!(late.wakes[0].seq, opened.seq);
    assert_eq!(ids_of(&all_due(&*store, hook.key, 20).await[0]), ids(&[&first, &second, &third]));
    end(&*store, &hook, opened.seq, 21, Next::Delivered).await;
    let detail = store.delivery(hook.tenant, opened.seq).await.unwrap().unwrap();
    assert_eq!((detail.row.state, detail.events), (DeliveryState::Delivered, due.events));
    let next = all_due(&*store, hook.key, 99).await;
    assert_eq!((next.len(), ids_of(&next[0])), (1, ids(&[&late])));
}

/// See the name.
pub async fn a_batch_is_closed_by_number(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let many = vec![event("user.changed", &[&hook]); 9];
    let accepted = publish(&*store, hook.tenant, at(10), many).await;
    let closed = all_due(&*store, hook.key, 10).await;
    let in_order: Vec<EventId> = accepted.iter().map(|accepted| accepted.event.id.clone()).collect();
    assert_eq!(closed.iter().map(ids_of).collect::<Vec<_>>(), [&in_order[..4], &in_order[4..8]]);
    let wakes: Vec<_> = accepted[3].wakes.iter().map(|wake| (wake.seq, wake.at)).collect();
    assert_eq!(wakes, [(closed[0].seq, Some((Urgency::Normal, at(10))))]);
    assert_eq!(ids_of(&all_due(&*store, hook.key, 20).await[2]), in_order[8..]);
}

/// See the name.
pub async fn a_batch_is_closed_by_its_bytes(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let small = sized(&*store, &hook, 10, 1_000).await;
    let over = sized(&*store, &hook, 11, 25).await;
    let closed = all_due(&*store, hook.key, 11).await;
    assert_eq!(closed.iter().map(ids_of).collect::<Vec<_>>(), [ids(&[&small])], "it would have been too much");
    let full = sized(&*store, &hook, 12, 999).await;
    let closed = all_due(&*store, hook.key, 12).await;
    assert_eq!((closed.len(), ids_of(&closed[1])), (2, ids(&[&over, &full])), "full to the byte");
    let huge = sized(&*store, &hook, 13, 5_000).await;
    assert_eq!(ids_of(&all_due(&*store, hook.key, 13).await[2]), ids(&[&huge]), "too large for any: alone");
}

/// See the name.
pub async fn an_urgent_event_closes_its_batch_at_once(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let new = |urgency| NewEvent { urgency, ..event("user.changed", &[&hook]) };
    let events = vec![new(Urgency::Bulk), new(Urgency::Normal)];
    let accepted = publish(&*store, hook.tenant, at(10), events).await;
    let raised: Vec<_> = accepted[1].wakes.iter().map(|wake| wake.at).collect();
    assert_eq!(raised, [Some((Urgency::Normal, at(20)))], "as urgent as its most urgent event");
    let urgent = publish(&*store, hook.tenant, at(11), vec![new(Urgency::Urgent)]).await.remove(0);
    let closed = all_due(&*store, hook.key, 11).await;
    assert_eq!((closed[0].urgency, closed[0].due), (Urgency::Urgent, at(11)));
    assert_eq!(ids_of(&closed[0]), ids(&[&accepted[0], &accepted[1], &urgent]));
    assert_eq!(urgent.wakes.last().unwrap().at, Some((Urgency::Urgent, at(11))));
}

/// See the name.
pub async fn a_batch_without_a_wait_goes_at_once(store: Arc<dyn Store>) {
    let hook = set_up(&*store, Batch { max_wait_ms: 0, ..BATCH }).await;
    for seconds in 10..12 {
        one(&*store, &hook, seconds).await;
    }
    let closed = all_due(&*store, hook.key, 11).await;
    assert_eq!(closed.iter().map(|due| due.events.all().len()).collect::<Vec<_>>(), [1, 1]);
    assert!(closed.iter().all(|due| due.events.single().is_none()), "a batch of one is a batch");
}

/// See the name.
pub async fn a_batch_is_of_one_revision(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let before = one(&*store, &hook, 10).await;
    let changed = batching(&*store, &hook, Some(Batch { max_events: 2, ..BATCH })).await;
    assert!(all_due(&*store, hook.key, 11).await.is_empty(), "a change of the webhook alone closes nothing");
    let after = one(&*store, &changed, 12).await;
    let closed = all_due(&*store, hook.key, 12).await;
    assert_eq!((closed.len(), ids_of(&closed[0]), closed[0].revision), (1, ids(&[&before]), hook.revision));
    let plain = batching(&*store, &hook, None).await;
    let single = one(&*store, &plain, 13).await;
    assert_eq!(single.deliveries.len(), 1, "no batches any more");
    let closed = all_due(&*store, hook.key, 22).await;
    assert_eq!(closed.len(), 3);
    let last = closed.iter().find(|due| ids_of(due) == ids(&[&after])).expect("closed by its age");
    assert_eq!((last.due, last.revision), (at(22), changed.revision));
}

/// See the name.
pub async fn batches_of_an_ordered_webhook_go_one_after_the_other(store: Arc<dyn Store>) {
    let hook = set_up(&*store, Batch { max_events: 2, ..BATCH }).await;
    change(&*store, &hook, at(2), |config| config.ordering = Ordering::Webhook).await;
    let hook = store.webhook(hook.tenant, hook.id).await.unwrap().unwrap();
    let accepted = publish(&*store, hook.tenant, at(10), vec![event("user.changed", &[&hook]); 5]).await;
    let first = all_due(&*store, hook.key, 11).await;
    assert_eq!((first.len(), ids_of(&first[0])), (1, ids(&[&accepted[0], &accepted[1]])));
    end(&*store, &hook, first[0].seq, 11, Next::Retry(at(50))).await;
    assert!(all_due(&*store, hook.key, 49).await.is_empty(), "the others wait, full or old as they may be");
    end(&*store, &hook, first[0].seq, 50, Next::Delivered).await;
    let second = all_due(&*store, hook.key, 51).await;
    assert_eq!((second.len(), ids_of(&second[0])), (1, ids(&[&accepted[2], &accepted[3]])));
    let wakes = end(&*store, &hook, second[0].seq, 51, Next::Delivered).await;
    assert_eq!(wakes[0].at, Some((Urgency::Normal, at(20))), "the third is open still: due when its age has come");
    let joined = one(&*store, &hook, 12).await;
    let third = all_due(&*store, hook.key, 52).await;
    assert_eq!((third.len(), ids_of(&third[0])), (1, ids(&[&accepted[4], &joined])));
    end(&*store, &hook, third[0].seq, 52, Next::Delivered).await;
    assert!(store.owed(None, 10).await.unwrap().is_empty());
}

/// See the name.
pub async fn a_batch_is_found_by_each_of_its_events(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let plain = webhook(&*store, hook.tenant, 2).await;
    let new = |id: &str| about(id, event("user.changed", &[&hook, &plain]));
    let accepted = publish(&*store, hook.tenant, at(10), vec![new("anna"), new("bert"), new("anna")]).await;
    assert!(accepted.iter().all(|a| a.delivery_count == 2 && a.deliveries.len() == 1), "{accepted:?}");
    let batch = accepted[0].wakes[0].seq;
    let base = DeliveryQuery::of(hook.tenant, page(50, None));
    for accepted in &accepted {
        let own = accepted.deliveries[0].seq;
        let mut expected = vec![batch, own];
        expected.sort_unstable_by_key(|seq| std::cmp::Reverse(*seq));
        let query = DeliveryQuery { event: Some(accepted.event.id.clone()), ..base.clone() };
        let found = store.deliveries(query).await.unwrap();
        assert_eq!(found.rows.iter().map(|row| row.seq).collect::<Vec<_>>(), expected);
        let listed = store.deliveries_of(hook.tenant, accepted.event.seq, 10).await.unwrap();
        assert_eq!(listed.iter().rev().map(|row| row.seq).collect::<Vec<_>>(), expected);
    }
    for (subject, kind, expected) in [("anna", None, 3), ("bert", Some("user"), 2), ("bert", Some("group"), 0)] {
        let mut query = DeliveryQuery {
            subject: Some(subject.to_owned()),
            subject_type: kind.map(str::to_owned),
            page: page(1, None),
            ..base.clone()
        };
        let mut seen: Vec<DeliverySeq> = Vec::new();
        loop {
            let page = store.deliveries(query.clone()).await.unwrap();
            seen.extend(page.rows.iter().map(|row| row.seq));
            match page.next {
                Some(next) => query.page.after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen.len(), expected, "{subject} {kind:?}: {seen:?}");
        assert!(seen.is_sorted_by(|a, b| a > b) && (expected == 0 || seen.contains(&batch)), "{seen:?}");
    }
}

/// See the name.
pub async fn p3_a_retry_of_a_batch_keeps_its_events(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let (first, second) = (one(&*store, &hook, 10).await, one(&*store, &hook, 11).await);
    let batch = first.wakes[0].seq;
    let due = all_due(&*store, hook.key, 20).await.remove(0);
    let body = Bytes::from_static(b"as sent");
    let mut failed = settlement(&due, at(20), 500, Next::Retry(at(30)));
    failed.freeze = Some(body.clone());
    assert_eq!(store.settle(vec![failed]).await.unwrap().results, [Settled::Recorded]);
    one(&*store, &hook, 21).await;
    let again = all_due(&*store, hook.key, 30).await.into_iter().find(|due| due.seq == batch).unwrap();
    assert_eq!((ids_of(&again), again.body, again.attempts), (ids(&[&first, &second]), Some(body.clone()), 1));
    let RetryOutcome::Reopened(reopened, _) = store.retry(hook.tenant, batch, at(31)).await.unwrap() else {
        panic!("not reopened")
    };
    assert_eq!((ids_of(&reopened), reopened.body), (ids(&[&first, &second]), Some(body)));
}

/// See the name.
pub async fn an_open_batch_can_be_sent_or_cancelled_by_hand(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let first = one(&*store, &hook, 10).await;
    let RetryOutcome::Reopened(due, _) = store.retry(hook.tenant, first.wakes[0].seq, at(11)).await.unwrap() else {
        panic!("not reopened")
    };
    assert_eq!(due.due, at(11));
    let second = one(&*store, &hook, 12).await;
    assert_ne!(second.wakes[0].seq, due.seq, "it was closed");
    let cancelled = store.cancel(hook.tenant, second.wakes[0].seq, at(13)).await.unwrap();
    assert!(matches!(cancelled, CancelOutcome::Cancelled(..)), "{cancelled:?}");
    let third = one(&*store, &hook, 14).await;
    let all = all_due(&*store, hook.key, 99).await;
    assert_eq!(all.iter().map(ids_of).collect::<Vec<_>>(), [ids(&[&first]), ids(&[&third])]);
}

/// See the name.
pub async fn a_duplicate_joins_no_batch(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let new = || named("e1", 1, event("user.changed", &[&hook]));
    let first = publish(&*store, hook.tenant, at(10), vec![new(), new()]).await;
    assert!(first[1].duplicate && first[1].delivery_count == 1);
    let again = publish(&*store, hook.tenant, at(11), vec![new()]).await;
    assert!(again[0].duplicate && again[0].wakes.is_empty());
    assert_eq!(all_due(&*store, hook.key, 20).await[0].events.all().len(), 1);
}

/// See the name.
pub async fn a_page_of_batches_is_bounded_in_bytes(store: Arc<dyn Store>) {
    let hook = set_up(&*store, Batch { max_events: 2, max_bytes: 4_194_304, ..BATCH }).await;
    for _ in 0..3 {
        sized(&*store, &hook, 10, 1_000).await;
        sized(&*store, &hook, 10, 1_000).await;
    }
    let query = crate::DueQuery {
        webhook: hook.key,
        urgency: Urgency::Normal,
        now: at(10),
        after: None,
        limit: 100,
        max_bytes: 3_000,
    };
    let page = store.due(query).await.unwrap();
    assert_eq!((page.rows.len(), page.more), (2, true), "two thousand, and then too many");
}

/// See the name.
pub async fn deleted_webhooks_and_tenants_leave_no_batch(store: Arc<dyn Store>) {
    let hook = set_up(&*store, BATCH).await;
    let opened = one(&*store, &hook, 10).await;
    store.delete_webhook(hook.tenant, hook.id, at(11)).await.unwrap().unwrap();
    while store.sweep(at(12), 1).await.unwrap().more {}
    let row = store.delivery(hook.tenant, opened.wakes[0].seq).await.unwrap().unwrap().row;
    assert_eq!(row.state, DeliveryState::Cancelled);
    let other = webhook(&*store, hook.tenant, 2).await;
    let other = batching(&*store, &other, Some(BATCH)).await;
    one(&*store, &other, 13).await;
    store.delete_tenant(&"acme".parse().unwrap(), at(14)).await.unwrap().unwrap();
    while store.sweep(at(15), 1).await.unwrap().more {}
    assert!(store.owed(None, 10).await.unwrap().is_empty());
}
