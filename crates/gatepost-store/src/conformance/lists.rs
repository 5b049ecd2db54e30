//! Pages of events and deliveries.

use std::sync::Arc;

use gatepost_core::delivery::DeliveryState;
use gatepost_core::event::Subject;
use gatepost_core::{EventId, TenantKey};

use super::{about, at, event, page, publish, settlement, tenant, webhook, webhook_id};
use crate::{DeliveryQuery, EventQuery, NewEvent, Next, Order, Store};

fn events(tenant: TenantKey) -> EventQuery {
    EventQuery::of(tenant, page(100, None))
}

fn deliveries(tenant: TenantKey) -> DeliveryQuery {
    DeliveryQuery::of(tenant, page(100, None))
}

/// All rows of an event list, by pages of `limit`; how many pages.
async fn all_events(store: &dyn Store, query: &EventQuery, limit: usize) -> (Vec<i64>, usize) {
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let answer = store.events(EventQuery { page: page(limit, after), ..query.clone() }).await.unwrap();
        assert!(answer.rows.len() <= limit);
        found.extend(answer.rows.iter().map(|(event, _)| event.seq.0));
        pages += 1;
        assert!(pages < 10_000, "the list does not end");
        match answer.next {
            Some(next) => after = Some(next),
            None => return (found, pages),
        }
    }
}

/// All rows of a delivery list, by pages of `limit`; how many pages.
async fn all_deliveries(store: &dyn Store, query: &DeliveryQuery, limit: usize) -> (Vec<i64>, usize) {
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let answer = store.deliveries(DeliveryQuery { page: page(limit, after), ..query.clone() }).await.unwrap();
        assert!(answer.rows.len() <= limit);
        found.extend(answer.rows.iter().map(|row| row.seq.0));
        pages += 1;
        assert!(pages < 10_000, "the list does not end");
        match answer.next {
            Some(next) => after = Some(next),
            None => return (found, pages),
        }
    }
}

/// See the name.
pub async fn events_are_listed_newest_first_and_filtered(store: Arc<dyn Store>) {
    let (acme, other) = (tenant(&*store, "acme").await.key, tenant(&*store, "other").await.key);
    let hook = webhook(&*store, acme, 1).await;
    let group = NewEvent { subject: Some(Subject { kind: None, id: "u1".into() }), ..event("group.created", &[]) };
    let new = vec![
        about("u1", event("user.created", &[&hook])),
        about("u2", event("user.created", &[])),
        group,
        event("user.created", &[]),
    ];
    let made: Vec<i64> = publish(&*store, acme, at(10), new).await.iter().map(|a| a.event.seq.0).collect();
    publish(&*store, other, at(10), vec![about("u1", event("user.created", &[]))]).await;

    let answer = store.events(events(acme)).await.unwrap();
    assert_eq!(
        answer.rows.iter().map(|(event, _)| event.seq.0).collect::<Vec<_>>(),
        [made[3], made[2], made[1], made[0]]
    );
    assert_eq!(answer.rows.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [0, 0, 0, 1]);
    let cases = [
        (EventQuery { event_type: Some("user.created".parse().unwrap()), ..events(acme) }, vec![3, 1, 0]),
        (EventQuery { subject: Some("u1".into()), ..events(acme) }, vec![2, 0]),
        (EventQuery { subject_type: Some("user".into()), ..events(acme) }, vec![1, 0]),
        (EventQuery { subject: Some("u1".into()), subject_type: Some("user".into()), ..events(acme) }, vec![0]),
        (EventQuery { event_type: Some("nothing".parse().unwrap()), ..events(acme) }, vec![]),
    ];
    for (query, expected) in cases {
        let expected: Vec<i64> = expected.into_iter().map(|index: usize| made[index]).collect();
        for limit in [1, 2, 100] {
            assert_eq!(all_events(&*store, &query, limit).await.0, expected, "{query:?}");
        }
    }
}

/// See the name.
pub async fn events_are_found_by_time(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let mut made = Vec::new();
    // By when they happened, whenever they were accepted: publishers send late, and import old ones.
    for seconds in [100, 300, 299, 500, 700, 900] {
        let new = NewEvent { timestamp: at(seconds), ..event("a.b", &[]) };
        made.push(publish(&*store, acme, at(2_000 - seconds), vec![new]).await[0].event.seq.0);
    }
    let cases = [
        (Some(299), None, vec![5, 4, 3, 1]),
        (None, Some(300), vec![2, 0]),
        (Some(100), Some(700), vec![3, 2, 1]),
        (Some(900), None, vec![]),
        (None, Some(100), vec![]),
        (None, Some(100_000), vec![5, 4, 3, 2, 1, 0]),
    ];
    for (after, before, expected) in cases {
        let query = EventQuery { after: after.map(at), before: before.map(at), ..events(acme) };
        let expected: Vec<i64> = expected.into_iter().map(|index: usize| made[index]).collect();
        assert_eq!(all_events(&*store, &query, 2).await.0, expected, "{query:?}");
    }
}

/// See the name.
pub async fn the_feed_has_no_gap_and_no_repeat_and_no_end(store: Arc<dyn Store>) {
    let (acme, other) = (tenant(&*store, "acme").await.key, tenant(&*store, "other").await.key);
    let feed = |after| EventQuery { order: Order::Ascending, page: page(3, after), ..events(acme) };
    let rare = |after| EventQuery { event_type: Some("rare".parse().unwrap()), ..feed(after) };
    let empty = store.events(feed(None)).await.unwrap();
    assert_eq!((empty.rows.len(), empty.next), (0, Some(0)));
    let (mut cursor, mut rare_cursor) = (empty.next, None);
    let (mut made, mut found, mut rares) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..6 {
        for index in 0..round {
            let kind = if index == 4 { "rare" } else { "a.b" };
            made.push(publish(&*store, acme, at(round), vec![event(kind, &[])]).await[0].event.seq.0);
            publish(&*store, other, at(round), vec![event("a.b", &[])]).await;
        }
        for _ in 0..3 {
            let answer = store.events(feed(cursor)).await.unwrap();
            found.extend(answer.rows.iter().map(|(event, _)| event.seq.0));
            cursor = answer.next;
            assert!(cursor.is_some());
            let answer = store.events(rare(rare_cursor)).await.unwrap();
            rares.extend(answer.rows.iter().map(|(event, _)| event.seq.0));
            rare_cursor = answer.next;
        }
        assert_eq!(found, made);
        let end = store.events(feed(cursor)).await.unwrap();
        assert_eq!((end.rows.len(), end.next), (0, cursor));
    }
    // A filtered feed moves on over what it does not show.
    assert_eq!((rares, rare_cursor), (vec![made[14]], made.last().copied()));
    let from_start = store.events(feed(None)).await.unwrap();
    assert_eq!(from_start.rows.iter().map(|(event, _)| event.seq.0).collect::<Vec<_>>(), made[..3]);
}

/// Publishes 2,500 events to the tenant's webhook, one of them of type `rare` about `somebody`.
async fn many(store: &dyn Store, acme: TenantKey) -> i64 {
    let (hook, other) = (webhook(store, acme, 1).await, webhook(store, acme, 2).await);
    let rare = publish(store, acme, at(1), vec![about("somebody", event("rare", &[&other]))]).await.remove(0);
    let sent = settlement(&rare.deliveries[0], at(1), 200, Next::Delivered);
    store.settle(vec![sent]).await.unwrap();
    for round in 0..5 {
        let new = (0..500).map(|_| event("a.b", &[&hook])).collect();
        publish(store, acme, at(100 * round), new).await;
    }
    rare.event.seq.0
}

/// See the name.
pub async fn a_rare_match_is_found_over_short_pages(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let rare = many(&*store, acme).await;
    let query = EventQuery { event_type: Some("rare".parse().unwrap()), ..events(acme) };
    let first = store.events(query.clone()).await.unwrap();
    assert!(first.rows.is_empty() && first.next.is_some(), "a page reads a bounded number of rows");
    assert_eq!(all_events(&*store, &query, 100).await.0, [rare]);
    let (all, _) = all_events(&*store, &events(acme), 250).await;
    assert_eq!(all.len(), 2_501);
    assert!(all.is_sorted_by(|a, b| a > b));
    // Where a page ends for having read enough, nothing is left out or shown twice.
    let common = EventQuery { event_type: Some("a.b".parse().unwrap()), ..events(acme) };
    assert_eq!(all_events(&*store, &common, 5_000).await.0, all[..2_500]);
    // Ascending, the same rows are there, the other way round.
    let (mut forward, mut after) = (Vec::new(), None);
    while forward.len() < all.len() {
        let ask = EventQuery { order: Order::Ascending, page: page(250, after), ..events(acme) };
        let answer = store.events(ask).await.unwrap();
        assert!(!answer.rows.is_empty());
        forward.extend(answer.rows.iter().map(|(event, _)| event.seq.0));
        after = answer.next;
    }
    assert!(forward.iter().eq(all.iter().rev()));
    let (mut forward, mut after) = (Vec::new(), None);
    for _ in 0..3 {
        let ask = EventQuery { order: Order::Ascending, page: page(5_000, after), ..common.clone() };
        let answer = store.events(ask).await.unwrap();
        forward.extend(answer.rows.iter().map(|(event, _)| event.seq.0));
        after = answer.next;
    }
    assert!(forward.iter().eq(all[..2_500].iter().rev()));
}

/// See the name.
pub async fn a_page_of_large_events_is_short(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    for _ in 0..12 {
        publish(&*store, acme, at(1), vec![NewEvent { data: vec![b'1'; 1 << 20].into(), ..event("a.b", &[]) }]).await;
    }
    let first = store.events(events(acme)).await.unwrap();
    assert!((1..12).contains(&first.rows.len()) && first.next.is_some());
    assert_eq!(all_events(&*store, &events(acme), 100).await.0.len(), 12);
}

/// See the name.
pub async fn deliveries_are_listed_newest_first_and_filtered(store: Arc<dyn Store>) {
    let (acme, foreign) = (tenant(&*store, "acme").await.key, tenant(&*store, "foreign").await.key);
    let (one, two) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    let other = webhook(&*store, foreign, 3).await;
    let new = vec![about("u1", event("a.b", &[&one, &two])), event("a.b", &[&two]), about("u1", event("a.b", &[&one]))];
    let accepted = publish(&*store, acme, at(10), new).await;
    let made: Vec<_> = accepted.iter().flat_map(|a| a.deliveries.clone()).collect();
    publish(&*store, foreign, at(10), vec![about("u1", event("a.b", &[&other]))]).await;
    store.settle(vec![settlement(&made[0], at(11), 200, Next::Delivered)]).await.unwrap();
    store.cancel(acme, made[3].seq, at(12)).await.unwrap();
    super::change(&*store, &two, at(13), |config| config.enabled = false).await;

    let cases = [
        (deliveries(acme), vec![3, 2, 1, 0]),
        (DeliveryQuery { webhook: Some(one.id), ..deliveries(acme) }, vec![3, 0]),
        (DeliveryQuery { webhook: Some(other.id), ..deliveries(acme) }, vec![]),
        (DeliveryQuery { webhook: Some(webhook_id(99)), ..deliveries(acme) }, vec![]),
        (DeliveryQuery { event: Some(accepted[0].event.id.clone()), ..deliveries(acme) }, vec![1, 0]),
        (DeliveryQuery { event: Some("nobody".parse::<EventId>().unwrap()), ..deliveries(acme) }, vec![]),
        (DeliveryQuery { subject: Some("u1".into()), ..deliveries(acme) }, vec![3, 1, 0]),
        (DeliveryQuery { subject: Some("u1".into()), webhook: Some(one.id), ..deliveries(acme) }, vec![3, 0]),
        (DeliveryQuery { subject_type: Some("user".into()), ..deliveries(acme) }, vec![3, 1, 0]),
        (DeliveryQuery { event_type: Some("a.b".parse().unwrap()), ..deliveries(acme) }, vec![3, 2, 1, 0]),
        (DeliveryQuery { event_type: Some("a.c".parse().unwrap()), ..deliveries(acme) }, vec![]),
        (DeliveryQuery { subject_type: Some("group".into()), ..deliveries(acme) }, vec![]),
        (DeliveryQuery { state: Some(DeliveryState::Held), ..deliveries(acme) }, vec![2, 1]),
        (DeliveryQuery { state: Some(DeliveryState::Pending), ..deliveries(acme) }, vec![]),
        (DeliveryQuery { state: Some(DeliveryState::Delivered), ..deliveries(acme) }, vec![0]),
        (DeliveryQuery { state: Some(DeliveryState::Cancelled), ..deliveries(acme) }, vec![3]),
    ];
    for (query, expected) in cases {
        let expected: Vec<i64> = expected.into_iter().map(|index: usize| made[index].seq.0).collect();
        for limit in [1, 2, 100] {
            assert_eq!(all_deliveries(&*store, &query, limit).await.0, expected, "{query:?}");
        }
    }
    // A deleted webhook's history stays.
    store.delete_webhook(acme, two.id, at(20)).await.unwrap().unwrap();
    let query = DeliveryQuery { webhook: Some(two.id), state: Some(DeliveryState::Cancelled), ..deliveries(acme) };
    assert_eq!(all_deliveries(&*store, &query, 1).await.0, [made[2].seq.0, made[1].seq.0]);
}

/// See the name.
pub async fn deliveries_are_found_by_time(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let mut made = Vec::new();
    for seconds in [100, 300, 299, 500, 700] {
        let new = about("u1", event("a.b", &[&hook]));
        made.push(publish(&*store, acme, at(seconds), vec![new]).await[0].deliveries[0].seq.0);
    }
    let cases = [
        (Some(300), None, vec![4, 3, 1]),
        (None, Some(300), vec![2, 0]),
        (Some(100), Some(500), vec![2, 1, 0]),
        (Some(701), None, vec![]),
        (None, Some(100), vec![]),
    ];
    for (since, until, expected) in cases {
        for subject in [None, Some("u1".to_owned())] {
            let query = DeliveryQuery { since: since.map(at), until: until.map(at), subject, ..deliveries(acme) };
            let expected: Vec<i64> = expected.iter().map(|index: &usize| made[*index]).collect();
            assert_eq!(all_deliveries(&*store, &query, 2).await.0, expected, "{query:?}");
        }
    }
}

/// See the name.
pub async fn a_rare_delivery_is_found_over_short_pages(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    many(&*store, acme).await;
    let rare = DeliveryQuery { state: Some(DeliveryState::Delivered), ..deliveries(acme) };
    let first = store.deliveries(rare.clone()).await.unwrap();
    assert!(first.rows.is_empty() && first.next.is_some(), "a page reads a bounded number of rows");
    assert_eq!(all_deliveries(&*store, &rare, 100).await.0.len(), 1);
    let by_webhook = DeliveryQuery { webhook: Some(webhook_id(2)), ..deliveries(acme) };
    assert_eq!(all_deliveries(&*store, &by_webhook, 100).await.0.len(), 1);
    // By subject it is found at once.
    let by_subject = DeliveryQuery { subject: Some("somebody".into()), ..deliveries(acme) };
    assert_eq!(store.deliveries(by_subject).await.unwrap().rows.len(), 1);
    let (all, _) = all_deliveries(&*store, &deliveries(acme), 250).await;
    assert_eq!(all.len(), 2_501);
    assert!(all.is_sorted_by(|a, b| a > b));
    let common = DeliveryQuery { webhook: Some(webhook_id(1)), ..deliveries(acme) };
    assert_eq!(all_deliveries(&*store, &common, 5_000).await.0, all[..2_500]);
}

/// See the name.
pub async fn a_list_of_nothing_is_empty(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let times = EventQuery { after: Some(at(1)), before: Some(at(2)), ..events(acme) };
    for query in [events(acme), times] {
        let answer = store.events(query).await.unwrap();
        assert_eq!((answer.rows.len(), answer.next), (0, None));
    }
    let times = DeliveryQuery { since: Some(at(1)), until: Some(at(2)), ..deliveries(acme) };
    for query in [deliveries(acme), times] {
        let answer = store.deliveries(query).await.unwrap();
        assert_eq!((answer.rows.len(), answer.next), (0, None));
    }
}
