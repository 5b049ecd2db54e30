//! Lists under concurrent inserts: every row exactly once.

use proptest::prelude::*;

use crate::conformance::{at, event, page, publish, tenant, webhook};
use crate::{DeliveryQuery, EventQuery, NewEvent, Order, SqliteStore, Store};

#[derive(Clone, Debug)]
enum Step {
    /// So many events, of which every `n`-th is rare.
    Publish(usize, usize),
    /// A page of every list, of so many rows.
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish = (1_usize..6, 1_usize..4).prop_map(|(count, rare)| Step::Publish(count, rare));
    let read = (1_usize..5).prop_map(Step::Read);
    proptest::collection::vec(prop_oneof![publish, read], 1..40)
}

/// A list read page by page while others write.
#[derive(Default)]
struct Reading {
    found: Vec<i64>,
    cursor: Option<i64>,
    /// Rows that were there when its first page was read.
    there: Option<Vec<i64>>,
    ended: bool,
}

impl Reading {
    fn took(&mut self, rows: Vec<i64>, next: Option<i64>) {
        self.found.extend(rows);
        self.ended = next.is_none();
        self.cursor = next;
    }
}

async fn history(steps: Vec<Step>) {
    let store = SqliteStore::open_inline().unwrap();
    let acme = tenant(&store, "acme").await.key;
    let other = tenant(&store, "other").await.key;
    let hook = webhook(&store, acme, 1).await;
    let (mut events, mut rares, mut deliveries) = (Vec::new(), Vec::new(), Vec::new());
    let (mut feed, mut rare_feed, mut list, mut rare_list, mut made) =
        (Reading::default(), Reading::default(), Reading::default(), Reading::default(), Reading::default());
    let query = |order, rare: bool, limit, cursor| EventQuery {
        event_type: rare.then(|| "rare".parse().unwrap()),
        order,
        ..EventQuery::of(acme, page(limit, cursor))
    };
    let drain = (0..200).map(|_| Step::Read(7));
    for step in steps.into_iter().chain(drain) {
        match step {
            Step::Publish(count, nth) => {
                let new: Vec<NewEvent> =
                    (0..count).map(|index| event(if index % nth == 0 { "rare" } else { "a.b" }, &[&hook])).collect();
                for (index, accepted) in publish(&store, acme, at(1), new).await.into_iter().enumerate() {
                    events.push(accepted.event.seq.0);
                    if index % nth == 0 {
                        rares.push(accepted.event.seq.0);
                    }
                    deliveries.push(accepted.deliveries[0].seq.0);
                }
                publish(&store, other, at(1), vec![event("rare", &[])]).await;
            }
            Step::Read(limit) => {
                for (reading, rare) in [(&mut feed, false), (&mut rare_feed, true)] {
                    let answer = store.events(query(Order::Ascending, rare, limit, reading.cursor)).await.unwrap();
                    assert!(answer.next.is_some() && answer.rows.len() <= limit);
                    reading.took(answer.rows.iter().map(|(event, _)| event.seq.0).collect(), answer.next);
                }
                for (reading, rare) in [(&mut list, false), (&mut rare_list, true)] {
                    if reading.ended {
                        continue;
                    }
                    reading.there.get_or_insert_with(|| if rare { rares.clone() } else { events.clone() });
                    let answer = store.events(query(Order::Descending, rare, limit, reading.cursor)).await.unwrap();
                    reading.took(answer.rows.iter().map(|(event, _)| event.seq.0).collect(), answer.next);
                }
                if !made.ended {
                    made.there.get_or_insert_with(|| deliveries.clone());
                    let ask =
                        DeliveryQuery { webhook: Some(hook.id), ..DeliveryQuery::of(acme, page(limit, made.cursor)) };
                    let answer = store.deliveries(ask).await.unwrap();
                    made.took(answer.rows.iter().map(|row| row.seq.0).collect(), answer.next);
                }
            }
        }
    }
    assert_eq!((feed.found, rare_feed.found), (events, rares));
    for reading in [list, rare_list, made] {
        let mut there = reading.there.unwrap();
        there.reverse();
        assert!(reading.ended);
        assert_eq!(reading.found, there);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_is_listed_exactly_once_while_others_write(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(history(steps));
    }
}
