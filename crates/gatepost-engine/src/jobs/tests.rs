//! The workers, driven by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use gatepost_core::event::Subject;
use gatepost_core::tenant::Tenant;
use gatepost_core::{Clock as _, EventId, TenantId};
use gatepost_store::fault::Fault;
use gatepost_store::{
    DeliveryQuery, FaultStore, Job, JobState, NewJob, PageRequest, ReplayScope, SqliteStore, Stage, Store,
};
use gatepost_testkit::ManualClock;
use proptest::prelude::*;

use super::{Progress, Retention, Worker};
use crate::engine::Engine;
use crate::error::{ConflictCode, Error};
use crate::ops::tests::{engine_on, hook};
use crate::ops::{PublishInput, ReplayInput, SettingsInput, TenantInput, ToldInput, WebhookInput};

fn done<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("nothing is waited for but the store, which is inline")
}

fn id(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn tenant(engine: &Engine, name: &str) -> Tenant {
    done(engine.put_tenant(id(name), TenantInput::default())).unwrap().0
}

fn webhook(engine: &Engine, tenant: &Tenant, filter: Option<&str>) -> gatepost_core::WebhookId {
    let input = WebhookInput { filter: filter.map(str::to_owned), ..hook("https://x.example/in") };
    done(engine.create_webhook(tenant, input)).unwrap().0.webhook.id
}

fn publish(engine: &Engine, tenant: &str, subject: &str, n: usize) -> EventId {
    let input = PublishInput {
        id: None,
        fallback: None,
        event_type: "user.created".parse().unwrap(),
        timestamp: None,
        subject: Some(Subject { kind: None, id: subject.to_owned() }),
        data: Bytes::from(format!("{{\"n\":{n}}}")),
        attributes: None,
        urgency: None,
        trace: None,
    };
    done(engine.publish(&id(tenant), vec![input], false)).unwrap().remove(0).event.id.clone()
}

fn since_always(scope: ReplayScope) -> ReplayInput {
    ReplayInput { since: gatepost_core::Timestamp::EPOCH, until: None, scope }
}

/// Ticks until nothing is left to do; how many ticks.
fn work(engine: &Engine, clock: &ManualClock, worker: &mut Worker) -> usize {
    for ticks in 1..10_000 {
        match done(worker.tick(engine.now())) {
            Ok(Progress::Idle(None)) => return ticks,
            Ok(Progress::Idle(Some(at))) => clock.set(at),
            Ok(Progress::More) | Err(_) => {}
        }
    }
    panic!("the jobs do not end");
}

/// How many deliveries each event has.
fn deliveries(store: &dyn Store, tenant: &Tenant) -> BTreeMap<EventId, usize> {
    let mut counts = BTreeMap::new();
    let mut after = None;
    loop {
        let query = DeliveryQuery::of(tenant.key, PageRequest { limit: 250, after });
        let page = done(store.deliveries(query)).unwrap();
        for row in page.rows {
            *counts.entry(row.event_ids[0].clone()).or_insert(0) += 1;
        }
        after = page.next;
        if after.is_none() {
            return counts;
        }
    }
}

fn engine() -> (Engine, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (engine_on(Arc::new(SqliteStore::open_inline().unwrap()), Arc::clone(&clock)), clock)
}

/// A replay over a store that fails again and again, by a worker that is thrown away again and again.
fn replayed(missed: usize, matched: usize, scope: ReplayScope, seed: u64) -> Result<(), TestCaseError> {
    let inner: Arc<dyn Store> = Arc::new(SqliteStore::open_inline().unwrap());
    let faults = Arc::new(FaultStore::seeded(Arc::clone(&inner), seed, 150, 150));
    faults.set_healthy(true);
    let clock = Arc::new(ManualClock::default());
    let engine = engine_on(Arc::clone(&faults) as Arc<dyn Store>, Arc::clone(&clock));
    let acme = tenant(&engine, "acme");
    let early: Vec<EventId> = (0..missed).map(|n| publish(&engine, "acme", "u", n)).collect();
    clock.advance(Duration::from_secs(1));
    // Every other event matches.
    let hook = webhook(&engine, &acme, Some("data.n % 2 == 0"));
    let late: Vec<EventId> = (0..matched).map(|n| publish(&engine, "acme", "u", n)).collect();
    clock.advance(Duration::from_secs(1));
    let job = done(engine.replay(&acme, hook, since_always(scope))).unwrap();
    faults.set_healthy(false);
    for life in 0..200 {
        let mut worker = Worker::new(engine.clone());
        for _ in 0..1 + (seed + life) % 4 {
            // Whatever it answers, it may be the last thing this process does.
            let _ = done(worker.tick(engine.now()));
        }
    }
    faults.set_healthy(true);
    work(&engine, &clock, &mut Worker::new(engine.clone()));
    let job: Job = done(engine.job(&acme, job.id)).unwrap();
    let mut wanted: BTreeMap<EventId, usize> = BTreeMap::new();
    for (n, event) in early.iter().enumerate().filter(|(n, _)| n % 2 == 0 && scope != ReplayScope::Failed) {
        prop_assert!(n < missed);
        wanted.insert(event.clone(), 1);
    }
    for (_, event) in late.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        wanted.insert(event.clone(), if scope == ReplayScope::All { 2 } else { 1 });
    }
    prop_assert_eq!(deliveries(&*inner, &acme), wanted, "none twice, none lost");
    let (old, new) = (missed.div_ceil(2), matched.div_ceil(2));
    let count = match scope {
        ReplayScope::Failed => 0,
        ReplayScope::Missed => old,
        ReplayScope::All => old + new,
    };
    prop_assert_eq!((job.state, job.total, job.done), (JobState::Done, count as u64, count as u64));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn p2_a_replay_is_exact_whatever_fails(
        missed in 0_usize..40,
        matched in 0_usize..40,
        scope in prop::sample::select(&ReplayScope::ALL[..]),
        seed in any::<u64>(),
    ) {
        replayed(missed, matched, scope, seed)?;
    }
}

#[test]
fn p5_tenants_jobs_are_done_in_turn() {
    let (engine, _) = engine();
    let mut jobs = Vec::new();
    for name in ["one", "two"] {
        let tenant = tenant(&engine, name);
        for n in 0..1_000 {
            publish(&engine, name, "u", n);
        }
        let hook = webhook(&engine, &tenant, None);
        jobs.push((tenant.clone(), done(engine.replay(&tenant, hook, since_always(ReplayScope::Missed))).unwrap()));
    }
    let mut worker = Worker::new(engine.clone());
    for _ in 0..6 {
        assert_eq!(done(worker.tick(engine.now())).unwrap(), Progress::More);
    }
    for (tenant, job) in &jobs {
        let job = done(engine.job(tenant, job.id)).unwrap();
        assert!(job.state == JobState::Running && job.total >= 500, "{job:?}");
    }
}

#[test]
fn p5_a_replay_leaves_room_for_what_is_published_now_but_ends() {
    let (engine, clock) = engine();
    let acme = tenant(&engine, "acme");
    for n in 0..2_500 {
        publish(&engine, "acme", "u", n);
    }
    let hook = webhook(&engine, &acme, None);
    clock.advance(Duration::from_secs(1));
    let job = done(engine.replay(&acme, hook, since_always(ReplayScope::Missed))).unwrap();
    let mut worker = Worker::new(engine.clone());
    // Nobody delivers here: once a thousand wait, the replay does.
    let mut waited = None;
    for _ in 0..100 {
        if let Progress::Idle(until) = done(worker.tick(engine.now())).unwrap() {
            waited = until;
            break;
        }
    }
    let at = done(engine.job(&acme, job.id)).unwrap();
    assert_eq!((at.total, at.done, at.state), (2_500, 1_000, JobState::Running));
    let wait = waited.unwrap().since(engine.now());
    assert!(wait > Duration::ZERO && wait < Duration::from_secs(1), "{wait:?}");
    let begun = clock.now();
    work(&engine, &clock, &mut worker);
    let at = done(engine.job(&acme, job.id)).unwrap();
    assert_eq!((at.done, at.state), (2_500, JobState::Done));
    assert!(clock.now().since(begun) < Duration::from_secs(60), "a receiver that takes nothing keeps no job open");
}

#[test]
fn a_replay_needs_a_webhook_that_takes_something() {
    let (engine, clock) = engine();
    let acme = tenant(&engine, "acme");
    publish(&engine, "acme", "u", 1);
    let hook = webhook(&engine, &acme, None);
    let input = since_always(ReplayScope::All);
    let job = done(engine.replay(&acme, hook, input)).unwrap();
    let view = done(engine.webhook(&acme, hook)).unwrap();
    let off = WebhookInput { enabled: Some(false), ..self::hook("https://x.example/in") };
    done(engine.update_webhook(&acme, hook, view.webhook.revision, off)).unwrap();
    let refused = done(engine.replay(&acme, hook, input));
    assert!(matches!(refused, Err(Error::Conflict { code: ConflictCode::WebhookDisabled, .. })), "{refused:?}");
    work(&engine, &clock, &mut Worker::new(engine.clone()));
    let job = done(engine.job(&acme, job.id)).unwrap();
    assert_eq!((job.state, job.total), (JobState::Failed, 0));
    assert!(job.error.unwrap().contains("disabled"));
    let empty = ReplayInput { until: Some(gatepost_core::Timestamp::EPOCH), ..input };
    assert!(
        matches!(done(engine.replay(&acme, hook, empty)), Err(Error::Invalid(errors)) if errors[0].pointer == "/until")
    );
}

#[test]
fn an_erasure_ends_once_its_traces_are_cleared() {
    let inner: Arc<dyn Store> = Arc::new(SqliteStore::open_inline().unwrap());
    // The log cannot be cleared at first.
    let left = std::sync::atomic::AtomicU32::new(3);
    let faults = FaultStore::new(Arc::clone(&inner), move |call| {
        let fails = call.method == "clear_traces"
            && left
                .fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, |n| {
                    n.checked_sub(1)
                })
                .is_ok();
        if fails { Fault::Before } else { Fault::None }
    });
    let clock = Arc::new(ManualClock::default());
    let engine = engine_on(Arc::new(faults), Arc::clone(&clock));
    let acme = tenant(&engine, "acme");
    webhook(&engine, &acme, None);
    for n in 0..60 {
        publish(&engine, "acme", if n % 2 == 0 { "anna" } else { "bert" }, n);
    }
    let job = done(engine.erase_subject(&acme, "anna".into(), None)).unwrap();
    let mut worker = Worker::new(engine.clone());
    while done(engine.job(&acme, job.id)).unwrap().stage != Stage::Clearing {
        let _ = done(worker.tick(engine.now()));
    }
    assert_eq!(done(engine.job(&acme, job.id)).unwrap().state, JobState::Running);
    for _ in 0..3 {
        assert!(done(worker.tick(engine.now())).is_err());
    }
    work(&engine, &clock, &mut worker);
    let job = done(engine.job(&acme, job.id)).unwrap();
    assert_eq!((job.state, job.total, job.done), (JobState::Done, 30, 30));
    let told = |subject: &str| {
        let input = ToldInput { subject: subject.to_owned(), subject_type: None, limit: 250, after: None };
        done(engine.told(&acme, input)).unwrap().rows
    };
    assert_eq!(told("anna").len(), 30);
    assert!(told("anna").iter().all(|row| row.erased) && told("bert").iter().all(|row| !row.erased));
}

#[test]
fn retention_comes_by_every_hour() {
    let (engine, clock) = engine();
    let acme = tenant(&engine, "acme");
    let retention = crate::ops::RetentionInput { events_days: Some(2), ..Default::default() };
    let settings = SettingsInput { retention, ..SettingsInput::default() };
    done(engine.put_tenant(id("acme"), TenantInput { settings: Some(settings), ..TenantInput::default() })).unwrap();
    let events: Vec<EventId> = (0..500).map(|n| publish(&engine, "acme", "u", n)).collect();
    let mut retention = Retention::new(engine.clone());
    let next = done(retention.tick(engine.now())).unwrap();
    assert_eq!(next.since(engine.now()), Duration::from_secs(3_600));
    clock.advance(Duration::from_secs(2 * 86_400 + 60));
    publish(&engine, "acme", "u", 500);
    let mut steps = 0;
    loop {
        let next = done(retention.tick(engine.now())).unwrap();
        if next.since(engine.now()) >= Duration::from_secs(3_600) {
            break;
        }
        steps += 1;
        clock.set(next);
    }
    assert!(steps >= 3, "in small steps: {steps}");
    for event in &events {
        assert!(done(engine.event(&acme, event)).is_err());
    }
    let feed = |after| gatepost_store::EventQuery {
        order: gatepost_store::Order::Ascending,
        ..gatepost_store::EventQuery::of(acme.key, PageRequest { limit: 10, after })
    };
    let expired = done(engine.events(feed(Some(17))));
    assert!(matches!(expired, Err(Error::Conflict { code: ConflictCode::CursorExpired, .. })), "{expired:?}");
    let begun = done(engine.events(feed(None))).unwrap();
    assert_eq!(begun.rows.len(), 1, "from the oldest kept event on");
    assert!(done(engine.events(feed(begun.next))).unwrap().rows.is_empty());
    // One that had seen everything removed has missed nothing.
    let seen = begun.rows[0].0.seq.0 - 1;
    assert_eq!(done(engine.events(feed(Some(seen)))).unwrap().rows.len(), 1);
}

#[test]
fn a_deleted_tenants_jobs_are_not_done() {
    let (engine, _) = engine();
    let acme = tenant(&engine, "acme");
    let hook = webhook(&engine, &acme, None);
    done(engine.replay(&acme, hook, since_always(ReplayScope::All))).unwrap();
    done(engine.delete_tenant(&id("acme"))).unwrap();
    let mut worker = Worker::new(engine.clone());
    assert_eq!(done(worker.tick(engine.now())).unwrap(), Progress::Idle(None));
    let new = NewJob {
        tenant: acme.key,
        id: gatepost_core::JobId::from_bytes([1; 16]),
        task: gatepost_store::Task::Erase(gatepost_store::Erasure {
            subject: Some("anna".into()),
            subject_type: None,
            alias: "x".into(),
            within: None,
        }),
        now: engine.now(),
    };
    assert_eq!(done(engine.inner.store.create_job(new)).unwrap(), None);
}
