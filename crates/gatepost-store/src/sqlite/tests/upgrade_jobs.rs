//! V5 on a database with data of V1, and what is particular to retention on a database in use.

use std::sync::Arc;

use gatepost_core::EventSeq;
use gatepost_core::tenant::{Retention, TenantSettings};
use rusqlite::Connection;

use crate::conformance::{at, event, publish, settlement, tenant, webhook};
use crate::sqlite::schema::{Place, open_writer};
use crate::sqlite::{Options, replay};
use crate::{JobStore, Next, PutTenant, RetentionCursor, SqliteStore, Store};

const DAY: i64 = 86_400;

fn at_v1() -> Connection {
    let conn = open_writer(&Place::Memory, 1_000).unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V1__first.sql")).unwrap();
    conn
}

#[test]
fn what_v1_held_is_no_replay_after_v5() {
    let conn = at_v1();
    conn.execute_batch("INSERT INTO delivery_links(event_seq, delivery_seq) VALUES (1, 7)").unwrap();
    for sql in [
        include_str!("../../../migrations/sqlite/V3__order_and_batches.sql"),
        include_str!("../../../migrations/sqlite/V5__jobs.sql"),
    ] {
        conn.execute_batch(sql).unwrap();
    }
    let link: (Option<i64>, Option<i64>) =
        conn.query_row("SELECT replay_of, job FROM delivery_links", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(link, (None, None));
    assert_eq!(replay::replay_of(&conn, gatepost_core::DeliverySeq(7)).unwrap(), None);
    for table in ["jobs", "job_items", "retention_marks"] {
        let rows: i64 = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

/// Retention works in requests of its own beside the publishers', and takes nothing that is new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_goes_on_while_events_are_published() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path(), Options::default()).unwrap());
    let acme = tenant(&*store, "acme").await.key;
    let settings =
        TenantSettings { retention: Retention { events_days: 1, ..Retention::default() }, ..TenantSettings::default() };
    let id = "acme".parse().unwrap();
    let put = PutTenant { id, name: None, environment: None, settings: Some(settings), now: at(0) };
    store.put_tenant(put).await.unwrap();
    let hook = webhook(&*store, acme, 1).await;
    let mut old = Vec::new();
    for _ in 0..20 {
        let events = (0..100).map(|_| event("a.b", &[&hook])).collect();
        for accepted in publish(&*store, acme, at(1), events).await {
            let done = settlement(&accepted.deliveries[0], at(2), 200, Next::Delivered);
            store.settle(vec![done]).await.unwrap();
            old.push(accepted.event.id.clone());
        }
    }
    let publisher = {
        let (store, hook) = (Arc::clone(&store), hook.clone());
        tokio::spawn(async move {
            let mut made = Vec::new();
            for n in 0..300 {
                let accepted = publish(&*store, acme, at(9 * DAY + n), vec![event("a.b", &[&hook])]).await;
                made.push(accepted[0].event.clone());
            }
            made
        })
    };
    let (mut cursor, mut removed, mut steps) = (RetentionCursor::START, 0, 0);
    let mut last = EventSeq(0);
    loop {
        let step = store.retain(at(9 * DAY), cursor, 50).await.unwrap();
        assert!(step.events <= 50, "{step:?}");
        removed += step.events;
        steps += 1;
        let Some(next) = step.next else { break };
        assert!(next.tenant > acme || next.event > last || next.event == EventSeq(i64::MAX), "it goes forward");
        last = next.event;
        cursor = next;
    }
    assert_eq!(removed, 2_000);
    assert!(steps > 40, "{steps}");
    for made in publisher.await.unwrap() {
        assert!(store.event(acme, &made.id).await.unwrap().is_some());
    }
    for id in &old {
        assert!(store.event(acme, id).await.unwrap().is_none());
    }
}
