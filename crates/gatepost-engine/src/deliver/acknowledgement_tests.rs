//! What each profile makes of each answer, and when it asks again: the tables of core's fixtures, row by
//! row, through the real lane and sender with time that is moved.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use gatepost_core::delivery::{Outcome, Response, Timings};
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Verification;
use gatepost_core::{Clock as _, Timestamp, WebhookId};
use gatepost_store::{DeliveryQuery, DeliveryRow, PageRequest, SqliteStore, Store as _};
use gatepost_testkit::{ManualClock, SeededEntropy};

use super::{Effect, Lane};
use crate::engine::{Engine, EngineParts, Limits};
use crate::net::{EgressPolicy, Exchange, OutgoingRequest};
use crate::ops::{PublishInput, TenantInput, WebhookInput};
use crate::transport::Transport;

const MATRIX: &str = include_str!("../../../gatepost-core/fixtures/acknowledgement.tsv");
const SCHEDULES: &str = include_str!("../../../gatepost-core/fixtures/schedules.tsv");
/// The tables' moment: 2023-11-14T22:13:20Z.
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// How a receiver answers, at once and always.
#[derive(Clone)]
struct Answer {
    outcome: Outcome,
    status: Option<u16>,
    retry_after: Option<String>,
}

impl Answer {
    /// Reads a table's cell.
    fn read(text: &str) -> Answer {
        let silent = |outcome| Answer { outcome, status: None, retry_after: None };
        match text {
            "timeout" => return silent(Outcome::Timeout),
            "connect" => return silent(Outcome::Connect),
            "dns" => return silent(Outcome::Dns),
            "tls" => return silent(Outcome::Tls),
            "reset" => return silent(Outcome::Reset),
            "protocol" => return silent(Outcome::Protocol),
            "blocked_address" => return silent(Outcome::BlockedAddress),
            "invalid_url" => return silent(Outcome::InvalidUrl),
            _ => {}
        }
        let (status, after) = text.split_once('+').map_or((text, None), |(status, after)| (status, Some(after)));
        let status = status.parse().unwrap();
        let retry_after = after.map(|after| after.trim_start_matches("date:").replace('_', " "));
        Answer { outcome: Outcome::of_status(status), status: Some(status), retry_after }
    }
}

struct Receiver {
    clock: Arc<ManualClock>,
    answer: Answer,
    asked: Mutex<Vec<Timestamp>>,
}

impl Transport for Receiver {
    fn send<'a>(&'a self, _: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        let now = self.clock.now();
        self.asked.lock().unwrap().push(now);
        let Answer { outcome, status, retry_after } = self.answer.clone();
        let headers = retry_after.into_iter().map(|value| ("retry-after".to_owned(), value)).collect();
        Box::pin(std::future::ready(Exchange {
            started_at: now,
            outcome,
            status,
            error: (outcome != Outcome::Ok).then(|| "as the table says".to_owned()),
            timings: Timings::default(),
            response: status.map(|_| Response { headers, ..Response::default() }),
            local_fault: false,
            unusable: false,
            resend: Default::default(),
        }))
    }
}

fn done<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("nothing is waited for but the store, which is inline")
}

/// One event for one webhook of a profile, whose receiver answers the same each time.
struct Stage {
    clock: Arc<ManualClock>,
    store: Arc<SqliteStore>,
    receiver: Arc<Receiver>,
    engine: Engine,
    lane: Lane,
    effects: tokio::sync::mpsc::UnboundedReceiver<Effect>,
    tenant: Tenant,
    webhook: WebhookId,
}

impl Stage {
    fn new(profile: &str, event_type: &str, answer: Answer) -> Stage {
        let clock = Arc::new(ManualClock::at(START));
        let store = Arc::new(SqliteStore::open_inline().unwrap());
        let receiver = Arc::new(Receiver { clock: Arc::clone(&clock), answer, asked: Mutex::default() });
        let parts = EngineParts {
            store: Arc::clone(&store) as _,
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(SeededEntropy::new(7)),
            transport: Arc::clone(&receiver) as _,
            policy: Arc::new(EgressPolicy::new(Vec::new())),
            master_key: Key::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
            admin_key: Secret::new("gp_admin".to_owned()),
            public_url: "http://127.0.0.1:8080".to_owned(),
            limits: Limits::default(),
        };
        let (engine, lane, effects) = done(Engine::assemble(parts)).unwrap_or_else(|error| panic!("{error}"));
        let tenant = done(engine.put_tenant("acme".parse().unwrap(), TenantInput::default())).unwrap().0;
        let input = WebhookInput {
            name: Some("hook".into()),
            url: Some("https://hook.example/in".into()),
            events: Some(vec![event_type.to_owned()]),
            profile: Some(profile.to_owned()),
            verification: Some(Verification { mode: "none".into(), required: Some(false) }),
            ..WebhookInput::default()
        };
        let webhook = done(engine.create_webhook(&tenant, input)).unwrap().0.webhook.id;
        let mut stage = Stage { clock, store, receiver, engine, lane, effects, tenant, webhook };
        let event = PublishInput {
            id: None,
            fallback: None,
            event_type: event_type.parse().unwrap(),
            timestamp: None,
            subject: None,
            data: Bytes::from_static(b"{}"),
            attributes: None,
            urgency: None,
            trace: None,
        };
        done(stage.engine.publish(&"acme".parse().unwrap(), vec![event], false)).unwrap();
        stage.pump();
        stage
    }

    /// Everything that can be done without time passing.
    fn pump(&mut self) {
        for _ in 0..10 {
            self.lane.turn(self.engine.waiting());
            self.lane.take_in_ready();
            while let Ok(effect) = self.effects.try_recv() {
                done(self.engine.take_effect(effect));
            }
        }
    }

    fn delivery(&self) -> DeliveryRow {
        let query = DeliveryQuery {
            webhook: Some(self.webhook),
            ..DeliveryQuery::of(self.tenant.key, PageRequest { limit: 10, after: None })
        };
        let mut rows = done(self.store.deliveries(query)).unwrap().rows;
        assert_eq!(rows.len(), 1);
        rows.remove(0)
    }

    fn asked(&self) -> Vec<Timestamp> {
        self.receiver.asked.lock().unwrap().clone()
    }
}

fn rows(table: &str) -> Vec<Vec<&str>> {
    let rows: Vec<Vec<_>> =
        table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    assert!(rows.len() > 5, "a table that was read");
    rows
}

/// `300`, `4.5..5.5` or `-`.
fn within(wait: Option<Duration>, cell: &str) -> bool {
    let Some(wait) = wait else { return cell == "-" };
    let (low, high) = cell.split_once("..").unwrap_or((cell, cell));
    let bounds = low.parse::<f64>().ok().zip(high.parse::<f64>().ok());
    bounds.is_some_and(|(low, high)| (low - 1e-6..=high + 1e-6).contains(&wait.as_secs_f64()))
}

#[test]
fn every_answer_means_what_its_profile_says() {
    for row in rows(MATRIX) {
        let [profile, event_type, answer, state, reason, wait, attempts, webhook] = row[..] else {
            panic!("a row of eight cells: {row:?}")
        };
        let stage = Stage::new(profile, event_type, Answer::read(answer));
        let delivery = stage.delivery();
        let seen = (delivery.state.as_str(), delivery.reason.map_or("-", |reason| reason.as_str()));
        assert_eq!(seen, (state, reason), "{profile} {answer}");
        let waits = delivery.next_attempt_at.map(|at| at.since(*stage.asked().last().unwrap()));
        assert!(within(waits, wait), "{profile} {answer}: waits {waits:?}, not {wait}");
        assert_eq!(delivery.attempts.to_string(), attempts, "{profile} {answer}");
        assert_eq!(stage.asked().len().to_string(), attempts, "{profile} {answer}");
        let enabled = done(stage.engine.webhook(&stage.tenant, stage.webhook)).unwrap().webhook.config.enabled;
        assert_eq!(if enabled { "on" } else { "off" }, webhook, "{profile} {answer}");
    }
}

#[test]
fn every_schedule_is_its_profiles_and_ends() {
    for row in rows(SCHEDULES) {
        let [profile, event_type, exact, attempts] = row[..] else { panic!("a row of four cells: {row:?}") };
        let mut stage = Stage::new(profile, event_type, Answer::read("500"));
        while let Some(due) = stage.delivery().next_attempt_at {
            let before = stage.asked().len();
            // Not a moment too early.
            stage.clock.set(Timestamp::from_micros(due.as_micros() - 1));
            stage.pump();
            assert_eq!(stage.asked().len(), before, "{profile}: early");
            stage.clock.set(due);
            stage.pump();
            assert!(stage.asked().len() > before, "{profile}: not sent when due");
        }
        let delivery = stage.delivery();
        let end = (delivery.state.as_str(), delivery.reason.map(|reason| reason.as_str()));
        assert_eq!(end, ("failed", Some("exhausted")), "{profile}");
        let asked: Vec<f64> = stage.asked().iter().map(|at| at.since(START).as_secs_f64()).collect();
        assert_eq!(asked.len().to_string(), attempts, "{profile}: {asked:?}");
        for (at, expected) in asked.iter().zip(exact.split(',')) {
            assert!((at - expected.parse::<f64>().unwrap()).abs() < 1e-6, "{profile}: {asked:?}, not {exact}");
        }
        // And never again.
        stage.clock.advance(Duration::from_secs(30 * 86_400));
        stage.pump();
        assert_eq!(stage.asked().len(), asked.len(), "{profile}");
    }
}

/// Retries and the pauses of `Retry-After`, with the clock set in the middle of each wait.
#[test]
fn a_clock_that_is_set_moves_no_wait() {
    const DAY: i64 = 86_400_000_000;
    for answer in ["500", "503+30"] {
        for step in [-DAY, DAY] {
            let mut stage = Stage::new("standard", "user.created", Answer::read(answer));
            for _ in 0..3 {
                let due = stage.delivery().next_attempt_at.unwrap();
                let wait = due.since(stage.clock.now());
                let before = stage.asked().len();
                stage.clock.advance(wait / 2);
                stage.clock.step(step);
                stage.pump();
                // What is shown is by the clock as it is now.
                let left = stage.delivery().next_attempt_at.unwrap().since(stage.clock.now());
                assert_eq!(left, wait - wait / 2, "{answer}, {step}");
                stage.clock.advance(left - Duration::from_micros(1));
                stage.pump();
                assert_eq!(stage.asked().len(), before, "{answer}, {step}: early");
                stage.clock.advance(Duration::from_micros(1));
                stage.pump();
                assert_eq!(stage.asked().len(), before + 1, "{answer}, {step}: not sent when due");
            }
        }
    }
}
