//! Queues and batches against a model: whatever publishers, receivers and people do, in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::Urgency;
use gatepost_core::webhook::{Batch, Ordering, Webhook};
use gatepost_core::{DeliverySeq, EventId, Timestamp};
use proptest::prelude::*;

use crate::conformance::{about, at, change, event, publish, settlement, tenant, webhook};
use crate::{CancelOutcome, Due, DueQuery, NewEvent, Next, RetryOutcome, SqliteStore, Store};

/// One delivery as the model knows it.
#[derive(Clone, Debug)]
struct Known {
    queue: String,
    urgency: Urgency,
    ended: bool,
}

#[derive(Default)]
struct Model {
    deliveries: BTreeMap<DeliverySeq, Known>,
    /// Numbers of each queue, in the order they must go.
    queues: BTreeMap<String, Vec<DeliverySeq>>,
    /// What each batch was, the first time it was handed out.
    frozen: BTreeMap<DeliverySeq, Vec<EventId>>,
    accepted: Vec<EventId>,
}

impl Model {
    fn join(&mut self, seq: DeliverySeq) {
        let queue = self.deliveries[&seq].queue.clone();
        self.queues.entry(queue).or_default().push(seq);
    }

    fn leave(&mut self, seq: DeliverySeq) {
        if let Some(known) = self.deliveries.get(&seq)
            && let Some(queue) = self.queues.get_mut(&known.queue)
        {
            queue.retain(|other| *other != seq);
        }
    }

    /// What may be tried, and how urgent it is.
    fn firsts(&self) -> BTreeMap<DeliverySeq, Urgency> {
        let urgency = |queue: &Vec<DeliverySeq>| queue.iter().map(|seq| self.deliveries[seq].urgency).min();
        self.queues.values().filter_map(|queue| Some((*queue.first()?, urgency(queue)?))).collect()
    }
}

struct World {
    store: Arc<SqliteStore>,
    hook: Webhook,
    model: Model,
    now: i64,
}

impl World {
    async fn new(ordering: Ordering, batch: Option<Batch>) -> Self {
        let store = Arc::new(SqliteStore::open_inline().unwrap());
        let acme = tenant(&*store, "acme").await.key;
        let hook = webhook(&*store, acme, 1).await;
        change(&*store, &hook, at(1), |config| (config.ordering, config.batch) = (ordering, batch)).await;
        let hook = store.webhook(acme, hook.id).await.unwrap().unwrap();
        World { store, hook, model: Model::default(), now: 10 }
    }

    fn time(&self) -> Timestamp {
        at(self.now)
    }

    /// Everything that is due, each once, under the urgency it was found by.
    async fn due(&self) -> Vec<Due> {
        let mut list = Vec::new();
        for urgency in Urgency::ALL {
            let mut after = None;
            loop {
                let query =
                    DueQuery { webhook: self.hook.key, urgency, now: self.time(), after, limit: 2, max_bytes: 1 << 20 };
                let page = self.store.due(query).await.unwrap();
                after = page.rows.last().map(|due| (due.due, due.seq));
                list.extend(page.rows);
                if !page.more {
                    break;
                }
            }
        }
        list
    }

    async fn publish(&mut self, subject: u8, urgency: u8) {
        let subjects = ["", "anna", "bert"];
        let (subject, urgency) = (subjects[usize::from(subject) % 3], Urgency::ALL[usize::from(urgency) % 3]);
        let new = NewEvent { urgency, ..event("user.changed", &[&self.hook]) };
        let new = if subject.is_empty() { new } else { about(subject, new) };
        let accepted = publish(&*self.store, self.hook.tenant, self.time(), vec![new]).await.remove(0);
        self.model.accepted.push(accepted.event.id.clone());
        let rows = self.store.deliveries_of(self.hook.tenant, accepted.event.seq, 10).await.unwrap();
        assert_eq!(rows.len(), 1, "an event is owed once");
        let seq = rows[0].seq;
        if let Some(known) = self.model.deliveries.get_mut(&seq) {
            assert!(self.hook.config.batch.is_some() && !known.ended, "it joined what is over");
            known.urgency = known.urgency.min(urgency);
            return;
        }
        let queue = match self.hook.config.ordering {
            Ordering::Webhook => "all".to_owned(),
            Ordering::Subject if !subject.is_empty() => subject.to_owned(),
            _ => format!("{seq:?} alone"),
        };
        self.model.deliveries.insert(seq, Known { queue, urgency, ended: false });
        self.model.join(seq);
    }

    async fn settle(&mut self, which: u8, how: u8) {
        let due = self.due().await;
        if due.is_empty() {
            return;
        }
        let due = &due[usize::from(which) % due.len()];
        let next = match how % 4 {
            0 | 1 => Next::Delivered,
            2 => Next::Retry(at(self.now + i64::from(how % 16))),
            _ => Next::End(DeliveryState::Failed, Reason::Exhausted),
        };
        let ended = !matches!(next, Next::Retry(_));
        self.store.settle(vec![settlement(due, self.time(), 200, next)]).await.unwrap();
        if ended {
            self.model.leave(due.seq);
            self.model.deliveries.get_mut(&due.seq).unwrap().ended = true;
        }
    }

    fn some(&self, which: u8) -> Option<DeliverySeq> {
        let all: Vec<_> = self.model.deliveries.keys().copied().collect();
        if all.is_empty() { None } else { Some(all[usize::from(which) % all.len()]) }
    }

    async fn step(&mut self, (what, a, b): (u8, u8, u8)) {
        match what % 10 {
            0..=3 => self.publish(a, b).await,
            4..=5 => self.settle(a, b).await,
            6 => {
                if let Some(seq) = self.some(a) {
                    let outcome = self.store.retry(self.hook.tenant, seq, self.time()).await.unwrap();
                    assert!(matches!(outcome, RetryOutcome::Reopened(..)));
                    self.model.leave(seq);
                    self.model.deliveries.get_mut(&seq).unwrap().ended = false;
                    self.model.join(seq);
                }
            }
            7 => {
                if let Some(seq) = self.some(a)
                    && let CancelOutcome::Cancelled(..) =
                        self.store.cancel(self.hook.tenant, seq, self.time()).await.unwrap()
                {
                    self.model.leave(seq);
                    self.model.deliveries.get_mut(&seq).unwrap().ended = true;
                }
            }
            _ => self.now += i64::from(a % 20),
        }
        self.check().await;
    }

    async fn check(&mut self) {
        let firsts = self.model.firsts();
        let due = self.due().await;
        let numbers: BTreeSet<_> = due.iter().map(|due| due.seq).collect();
        assert_eq!(numbers.len(), due.len(), "handed out twice");
        for due in &due {
            assert_eq!(firsts.get(&due.seq), Some(&due.urgency), "not the first of its queue, or not as urgent");
            let ids: Vec<_> = due.events.all().iter().map(|event| event.id.clone()).collect();
            assert_eq!(due.events.single().is_none(), self.hook.config.batch.is_some());
            let frozen = self.model.frozen.entry(due.seq).or_insert_with(|| ids.clone());
            assert_eq!(*frozen, ids, "the events of a batch changed after it was handed out");
        }
        for seq in self.model.deliveries.keys() {
            let row = self.store.delivery(self.hook.tenant, *seq).await.unwrap().unwrap().row;
            let first = firsts.contains_key(seq);
            assert_eq!(row.next_attempt_at.is_some(), first, "only the first of a queue has a time: {row:?}");
        }
    }

    /// Receivers say yes to everything: each queue must come to its end, in its order.
    async fn run_out(mut self) {
        for _ in 0..10_000 {
            let due = self.due().await;
            if due.is_empty() && self.model.queues.values().all(Vec::is_empty) {
                break;
            }
            for due in due {
                self.store.settle(vec![settlement(&due, self.time(), 200, Next::Delivered)]).await.unwrap();
                assert_eq!(self.model.queues[&self.model.deliveries[&due.seq].queue].first(), Some(&due.seq));
                self.model.leave(due.seq);
            }
            self.now += 20;
        }
        assert!(self.model.queues.values().all(Vec::is_empty), "{:?} never went", self.model.queues);
        // Each event in exactly one delivery, in the order of acceptance within it.
        let mut seen = Vec::new();
        for seq in self.model.deliveries.keys() {
            let row = self.store.delivery(self.hook.tenant, *seq).await.unwrap().unwrap().row;
            let positions: Vec<_> =
                row.event_ids.iter().map(|id| self.model.accepted.iter().position(|a| a == id)).collect();
            assert!(positions.is_sorted(), "{positions:?}");
            seen.extend(row.event_ids);
        }
        assert_eq!(seen.len(), self.model.accepted.len());
        assert_eq!(seen.iter().collect::<BTreeSet<_>>(), self.model.accepted.iter().collect());
        assert!(self.store.owed(None, 10).await.unwrap().is_empty());
    }
}

fn history(ordering: Ordering, batch: Option<Batch>, steps: Vec<(u8, u8, u8)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(ordering, batch).await;
        for step in steps {
            world.step(step).await;
        }
        world.run_out().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_the_first_of_each_queue_is_handed_out_as_urgent_as_the_queue(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..60),
        mode in 0..2,
    ) {
        let ordering = [Ordering::Subject, Ordering::Webhook][mode as usize];
        history(ordering, None, steps);
    }

    #[test]
    fn p3_every_event_is_in_one_batch_that_does_not_change(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..60),
        ordered in any::<bool>(),
        max_events in 1..5_u32,
    ) {
        let ordering = if ordered { Ordering::Webhook } else { Ordering::None };
        let batch = Batch { max_events, max_wait_ms: 15_000, max_bytes: 1_024 };
        history(ordering, Some(batch), steps);
    }
}
