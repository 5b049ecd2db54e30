//! What lists and retention cost does not grow with what there is: counted in the database's own steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::tenant::{Retention, TenantSettings};
use gatepost_core::webhook::Webhook;
use gatepost_core::{EventId, TenantKey, Timestamp};
use tempfile::TempDir;

use crate::conformance::{about, at, event, page, publish, settlement, tenant, webhook};
use crate::sqlite::error::DbResult;
use crate::sqlite::folder::DATABASE;
use crate::sqlite::schema::open_reader;
use crate::sqlite::{Options, lists, proof, retention};
use crate::{
    DeliveryQuery, EventQuery, JobStore as _, LOOKED_AT, NewEvent, Next, Order, PageRequest, PutTenant,
    RetentionCursor, SqliteStore, Store as _, ToldQuery,
};

/// More than a page looks at.
const SMALL: usize = LOOKED_AT + 500;
const LARGE: usize = 5 * SMALL;
/// Of what there is little, there is as much in either.
const FEW: usize = 10;
/// Steps are counted in units of so many.
const UNIT: i32 = 10;

struct Scale {
    store: SqliteStore,
    folder: TempDir,
    tenant: TenantKey,
    busy: Webhook,
    quiet: Webhook,
    /// An event in the middle.
    middle: EventId,
    /// The highest number of an event.
    last: i64,
}

impl Scale {
    async fn new(events: usize) -> Scale {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
        let acme = tenant(&store, "acme").await.key;
        let (busy, quiet) = (webhook(&store, acme, 1).await, webhook(&store, acme, 2).await);
        let (mut middle, mut last) = (None, 0);
        for number in 0..events / 50 {
            let new: Vec<NewEvent> = (0..50)
                .map(|n| match (number * 50 + n) % (events / FEW) {
                    1 => about("few", event("a.b", &[&busy])),
                    2 => about("common", event("rare", &[&busy])),
                    3 => about("common", event("a.b", &[&quiet])),
                    _ => about("common", event("a.b", &[&busy])),
                })
                .collect();
            // The past grows, not the rate.
            let then = at(number as i64 * 1_000);
            let mut settlements = Vec::new();
            for (n, accepted) in publish(&store, acme, then, new).await.into_iter().enumerate() {
                let due = &accepted.deliveries[0];
                let failed = (number * 50 + n) % (events / FEW) == 4;
                let next = Next::End(DeliveryState::Failed, Reason::Rejected);
                settlements.push(if failed {
                    settlement(due, then, 400, next)
                } else {
                    settlement(due, then, 200, Next::Delivered)
                });
                last = accepted.event.seq.0;
                if number == events / 100 {
                    middle = Some(accepted.event.id.clone());
                }
            }
            store.settle(settlements).await.unwrap();
        }
        Scale { store, folder, tenant: acme, busy, quiet, middle: middle.unwrap(), last }
    }

    /// The database's steps for a piece of reading.
    fn steps<T>(&self, what: &str, read: impl FnOnce(&rusqlite::Connection) -> DbResult<T>) -> u64 {
        let mut conn = open_reader(&self.folder.path().join(DATABASE), 8_192).unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&steps);
        let counting = move || {
            count.fetch_add(UNIT as u64, Ordering::Relaxed);
            false
        };
        conn.progress_handler(UNIT, Some(counting)).unwrap();
        let read = read(&conn);
        assert!(read.is_ok(), "{what}: {:?}", read.err());
        steps.load(Ordering::Relaxed)
    }

    fn events(&self) -> Vec<(String, EventQuery)> {
        let all = EventQuery::of(self.tenant, page(50, None));
        let typed = |name: &str| EventQuery { event_type: Some(name.parse().unwrap()), ..all.clone() };
        let subject = |id: &str| EventQuery { subject: Some(id.into()), ..all.clone() };
        let cases = [
            ("all", all.clone()),
            ("deep", EventQuery { page: page(50, Some(self.last / 2)), ..all.clone() }),
            ("feed", EventQuery { order: Order::Ascending, ..all.clone() }),
            ("feed at its end", EventQuery { order: Order::Ascending, page: page(50, Some(self.last)), ..all.clone() }),
            ("common type", typed("a.b")),
            ("rare type", typed("rare")),
            ("no such type", typed("nothing")),
            ("common subject", subject("common")),
            ("few", subject("few")),
            ("nobody", subject("nobody")),
            ("subject without the type", EventQuery { subject: Some("common".into()), ..typed("nothing") }),
            ("no such subject type", EventQuery { subject_type: Some("x".into()), ..all.clone() }),
            ("in time", EventQuery { after: Some(at(2_000)), before: Some(at(5_000)), ..all.clone() }),
        ];
        cases.map(|(name, query)| (format!("events, {name}"), query)).into()
    }

    fn deliveries(&self) -> Vec<(String, DeliveryQuery)> {
        let all = DeliveryQuery::of(self.tenant, page(50, None));
        let state = |state| DeliveryQuery { state: Some(state), ..all.clone() };
        let subject = |id: &str| DeliveryQuery { subject: Some(id.into()), ..all.clone() };
        let cases = [
            ("all", all.clone()),
            ("deep", DeliveryQuery { page: page(50, Some(self.last / 2)), ..all.clone() }),
            ("busy", DeliveryQuery { webhook: Some(self.busy.id), ..all.clone() }),
            ("quiet", DeliveryQuery { webhook: Some(self.quiet.id), ..all.clone() }),
            ("of an event", DeliveryQuery { event: Some(self.middle.clone()), ..all.clone() }),
            ("common subject", subject("common")),
            ("few", subject("few")),
            ("nobody", subject("nobody")),
            (
                "common subject, failed",
                DeliveryQuery { subject: Some("common".into()), ..state(DeliveryState::Failed) },
            ),
            ("delivered", state(DeliveryState::Delivered)),
            ("failed", state(DeliveryState::Failed)),
            ("held", state(DeliveryState::Held)),
            ("no such subject type", DeliveryQuery { subject_type: Some("x".into()), ..all.clone() }),
            ("in time", DeliveryQuery { since: Some(at(2_000)), until: Some(at(5_000)), ..all.clone() }),
        ];
        cases.map(|(name, query)| (format!("deliveries, {name}"), query)).into()
    }

    fn told(&self) -> Vec<(String, ToldQuery)> {
        let about = |subject: &str| ToldQuery {
            tenant: self.tenant,
            subject: subject.into(),
            alias: "erased:nobody".into(),
            subject_type: None,
            limit: 50,
            after: None,
        };
        ["common", "few", "nobody"].map(|subject| (format!("told about {subject}"), about(subject))).into()
    }

    /// What each list costs, by name.
    fn costs(&self) -> Vec<(String, u64)> {
        let mut costs = Vec::new();
        for (name, query) in self.events() {
            let steps = self.steps(&name, |conn| lists::events(conn, &query, 1 << 20));
            costs.push((name, steps));
        }
        for (name, query) in self.deliveries() {
            let steps = self.steps(&name, |conn| lists::deliveries(conn, &query));
            costs.push((name, steps));
        }
        for (name, query) in self.told() {
            let steps = self.steps(&name, |conn| proof::told(conn, &query));
            costs.push((name, steps));
        }
        costs
    }
}

#[tokio::test]
async fn p10_no_list_costs_more_for_what_else_there_is() {
    let (small, large) = (Scale::new(SMALL).await, Scale::new(LARGE).await);
    let mut most = 0;
    for ((name, small), (_, large)) in small.costs().into_iter().zip(large.costs()) {
        assert!(large <= small + small / 5 + 400, "{name}: {small} steps, and {large} with five times as much");
        most = most.max(large);
    }
    // So many instructions for each row looked at.
    assert!((1_000..100 * LOOKED_AT as u64).contains(&most), "{most}");
}

async fn keep_days(scale: &Scale, days: u32) {
    let retention = Retention { events_days: days, attempts_days: days };
    let settings = Some(TenantSettings { retention, ..TenantSettings::default() });
    let put = PutTenant { id: "acme".parse().unwrap(), name: None, environment: None, settings, now: at(1) };
    scale.store.put_tenant(put).await.unwrap();
}

#[tokio::test]
async fn p10_a_step_of_retention_costs_the_same_however_much_is_old() {
    let later: Timestamp = at(100 * 86_400);
    let mut costs = Vec::new();
    for scale in [Scale::new(SMALL).await, Scale::new(LARGE).await] {
        keep_days(&scale, 1).await;
        costs.push(scale.steps("plan", |conn| retention::plan(conn, later, RetentionCursor::START, 100)));
        let step = scale.store.retain(later, RetentionCursor::START, 100).await.unwrap();
        // An event and its delivery are two rows.
        assert_eq!(step.events, 50);
        let left = scale
            .store
            .events(EventQuery { page: PageRequest { limit: 1, after: None }, ..scale.events()[0].1.clone() });
        assert_eq!(left.await.unwrap().rows.len(), 1);
    }
    assert!(costs[1] <= costs[0] + costs[0] / 5, "{costs:?}");
}
