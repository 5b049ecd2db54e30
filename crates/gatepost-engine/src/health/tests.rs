//! Sustained failure over days and restarts, on one store, with time that is moved.

use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use gatepost_core::delivery::{Outcome, Response, Timings};
use gatepost_core::retry::RetryOverride;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::{Clock as _, WebhookId};
use gatepost_store::{EventQuery, PageRequest, SqliteStore, Store as _};
use gatepost_testkit::{ManualClock, SeededEntropy};

use crate::deliver::Lane;
use crate::engine::{Engine, EngineParts, Limits};
use crate::net::{EgressPolicy, Exchange, OutgoingRequest};
use crate::ops::{PublishInput, TenantInput, TestInput, WebhookInput};
use crate::transport::Transport;
use crate::views::HealthState;

const HOUR: Duration = Duration::from_secs(3_600);

/// A receiver that answers at once, always the same.
struct Receiver {
    clock: Arc<ManualClock>,
    status: AtomicU16,
    requests: AtomicU64,
    types: Mutex<Vec<String>>,
}

impl Transport for Receiver {
    fn send<'a>(&'a self, request: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
        self.types.lock().unwrap().push(body["type"].as_str().unwrap_or_default().to_owned());
        let status = self.status.load(Ordering::Relaxed);
        let outcome = Outcome::of_status(status);
        let exchange = Exchange {
            started_at: self.clock.now(),
            outcome,
            status: Some(status),
            error: (outcome != Outcome::Ok).then(|| format!("the endpoint answered {status}")),
            timings: Timings { total_us: 1, ..Timings::default() },
            response: Some(Response::default()),
            local_fault: false,
            unusable: false,
            resend: Default::default(),
        };
        Box::pin(std::future::ready(exchange))
    }
}

struct World {
    clock: Arc<ManualClock>,
    store: Arc<SqliteStore>,
    receiver: Arc<Receiver>,
    engine: Engine,
    lane: Lane,
    effects: tokio::sync::mpsc::UnboundedReceiver<crate::deliver::Effect>,
}

fn done<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("nothing is waited for but the store, which is inline")
}

fn begin(
    store: &Arc<SqliteStore>,
    clock: &Arc<ManualClock>,
    receiver: &Arc<Receiver>,
) -> (Engine, Lane, tokio::sync::mpsc::UnboundedReceiver<crate::deliver::Effect>) {
    let parts = EngineParts {
        store: Arc::clone(store) as _,
        clock: Arc::clone(clock) as _,
        entropy: Arc::new(SeededEntropy::new(clock.now().as_secs() as u64)),
        transport: Arc::clone(receiver) as _,
        policy: Arc::new(EgressPolicy::new(Vec::new())),
        master_key: Key::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
        admin_key: Secret::new("gp_admin".to_owned()),
        public_url: "http://127.0.0.1:8080".to_owned(),
        limits: Limits::default(),
    };
    done(Engine::assemble(parts)).unwrap_or_else(|error| panic!("{error}"))
}

impl World {
    fn new() -> World {
        let clock = Arc::new(ManualClock::default());
        let store = Arc::new(SqliteStore::open_inline().unwrap());
        let receiver = Arc::new(Receiver {
            clock: Arc::clone(&clock),
            status: AtomicU16::new(500),
            requests: AtomicU64::new(0),
            types: Mutex::default(),
        });
        let (engine, lane, effects) = begin(&store, &clock, &receiver);
        World { clock, store, receiver, engine, lane, effects }
    }

    /// The process ends without a word and starts again.
    fn restart(&mut self) {
        (self.engine, self.lane, self.effects) = begin(&self.store, &self.clock, &self.receiver);
        self.pump();
    }

    /// Everything that can be done now.
    fn pump(&mut self) {
        for _ in 0..20 {
            self.lane.turn(self.clock.now());
            self.lane.take_in_ready();
            while let Ok(effect) = self.effects.try_recv() {
                done(self.engine.take_effect(effect));
            }
            done(self.engine.note_health()).unwrap();
            done(self.engine.tell_noted()).unwrap();
        }
    }

    fn tenant(&self) -> Tenant {
        done(self.engine.put_tenant("acme".parse().unwrap(), TenantInput::default())).unwrap().0
    }

    fn hook(&self, events: &[&str]) -> WebhookId {
        let input = WebhookInput {
            name: Some("hook".into()),
            url: Some("https://hook.example/in".into()),
            events: Some(events.iter().map(|e| (*e).to_owned()).collect()),
            retry: Some(RetryOverride { waits: Some(Vec::new()), ..RetryOverride::default() }),
            ..WebhookInput::default()
        };
        done(self.engine.create_webhook(&self.tenant(), input)).unwrap().0.webhook.id
    }

    fn publish(&mut self) {
        let input = PublishInput {
            id: None,
            fallback: None,
            event_type: "user.created".parse().unwrap(),
            timestamp: None,
            subject: None,
            data: Bytes::from_static(b"{}"),
            attributes: None,
            urgency: None,
            trace: None,
        };
        done(self.engine.publish(&"acme".parse().unwrap(), vec![input], false)).unwrap();
        self.pump();
    }

    fn state(&self, id: WebhookId) -> (HealthState, bool) {
        let view = done(self.engine.webhook(&self.tenant(), id)).unwrap();
        (view.health.state, view.webhook.config.enabled)
    }

    /// How often an own event was published.
    fn told(&self, name: &str) -> usize {
        let query = EventQuery {
            event_type: Some(name.parse().unwrap()),
            ..EventQuery::of(self.tenant().key, PageRequest { limit: 250, after: None })
        };
        done(self.store.events(query)).unwrap().rows.len()
    }
}

#[test]
fn sustained_failure_disables_after_five_days_whatever_restarts_in_between() {
    let mut world = World::new();
    let id = world.hook(&["*"]);
    world.pump();
    for hour in 0..120 {
        if hour % 5 == 0 {
            world.publish();
            // Every one of them in a process of its own.
            world.restart();
        }
        assert_eq!(world.state(id), (HealthState::Failing, true), "hour {hour}");
        world.clock.advance(HOUR);
    }
    assert_eq!(world.told("gatepost.webhook.disabled"), 0);
    world.publish();
    assert_eq!(world.state(id), (HealthState::Disabled, false));
    assert_eq!(world.told("gatepost.webhook.disabled"), 1);
    let requests = world.receiver.requests.load(Ordering::Relaxed);
    assert_eq!(requests, 25);
    world.restart();
    world.publish();
    assert_eq!(world.receiver.requests.load(Ordering::Relaxed), requests, "a disabled webhook is not matched");
    assert_eq!(world.told("gatepost.webhook.disabled"), 1, "told once");

    // Enabled again, it is judged afresh.
    let present = done(world.engine.webhook(&world.tenant(), id)).unwrap().webhook;
    let mut input = WebhookInput::of(&present);
    input.enabled = Some(true);
    done(world.engine.update_webhook(&world.tenant(), id, present.revision, input)).unwrap();
    assert_eq!(world.state(id), (HealthState::Ok, true));
    world.publish();
    assert_eq!(world.state(id), (HealthState::Failing, true));
    world.receiver.status.store(204, Ordering::Relaxed);
    world.publish();
    assert_eq!(world.state(id), (HealthState::Ok, true));
    assert_eq!(world.told("gatepost.webhook.recovered"), 1);
}

#[test]
fn one_success_in_five_days_keeps_a_webhook() {
    let mut world = World::new();
    let id = world.hook(&["*"]);
    for hour in 0..240_u64 {
        let status = if hour == 100 { 200 } else { 500 };
        world.receiver.status.store(status, Ordering::Relaxed);
        if hour % 4 == 0 {
            world.publish();
        }
        world.clock.advance(HOUR);
        // 219: the last before five days of failures since hour 100 have passed.
        assert!(hour > 219 || world.state(id).1, "hour {hour}");
    }
    assert_eq!(world.state(id), (HealthState::Disabled, false));
}

#[test]
fn tests_touch_no_health() {
    let mut world = World::new();
    let id = world.hook(&["*"]);
    for _ in 0..5 {
        done(world.engine.test_webhook(&world.tenant(), id, TestInput::default())).unwrap();
        world.pump();
    }
    let health = done(world.engine.webhook(&world.tenant(), id)).unwrap().health;
    assert_eq!((health.state, health.failure_24h, health.last_error), (HealthState::Ok, 0, None));
}

#[test]
fn own_events_tell_nothing_about_their_own_failing() {
    let mut world = World::new();
    let id = world.hook(&["gatepost.*"]);
    world.pump();
    // It hears of its own creation and does not take it, and nothing comes of that but its health.
    assert_eq!(*world.receiver.types.lock().unwrap(), ["gatepost.webhook.created"]);
    assert_eq!(world.state(id), (HealthState::Failing, true));
    assert_eq!(world.told("gatepost.delivery.exhausted"), 0);
    world.receiver.status.store(200, Ordering::Relaxed);
    let present = done(world.engine.webhook(&world.tenant(), id)).unwrap().webhook;
    let input = WebhookInput::of(&present);
    done(world.engine.update_webhook(&world.tenant(), id, present.revision, input)).unwrap();
    world.pump();
    assert_eq!(world.state(id), (HealthState::Ok, true));
    assert_eq!(world.told("gatepost.webhook.recovered"), 0, "only own events had failed");
}

#[test]
fn a_410_disables_even_if_the_process_dies_right_after_it() {
    let mut world = World::new();
    let id = world.hook(&["*"]);
    world.receiver.status.store(410, Ordering::Relaxed);
    world.publish_without_effects();
    world.restart();
    assert_eq!(world.state(id), (HealthState::Disabled, false));
    assert_eq!(world.told("gatepost.webhook.disabled"), 1);
}

impl World {
    /// Delivers until the outcome is on disk, and goes no further.
    fn publish_without_effects(&mut self) {
        let input = PublishInput {
            id: None,
            fallback: None,
            event_type: "user.created".parse().unwrap(),
            timestamp: None,
            subject: None,
            data: Bytes::from_static(b"{}"),
            attributes: None,
            urgency: None,
            trace: None,
        };
        done(self.engine.publish(&"acme".parse().unwrap(), vec![input], false)).unwrap();
        for _ in 0..10 {
            self.lane.turn(self.clock.now());
            self.lane.take_in_ready();
        }
    }
}
