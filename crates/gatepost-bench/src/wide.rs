//! Another tenant's publishes beside one to very many webhooks: accepting that takes one request, but it
//! must not take everybody else's time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::Run;
use super::latency::CONNECTIONS;
use super::ledger::{ID_BYTES, Ledger};
use super::load::{Form, Pace};
use super::measure::{millis, percentile};
use super::report::Bar;
use super::stage::{Cast, Stage};

const SCENARIO: &str = "wide";
/// The tenant that is measured, and the one with many webhooks.
const QUIET: usize = 0;
const WIDE: usize = 1;
/// Its webhooks.
const WEBHOOKS: usize = 20_000;
/// Registrations under way at once.
const AT_ONCE: usize = 16;
/// Events a second of the other.
const RATE: u32 = 200;
/// The least time for a percentile of them to mean something.
const LENGTH: Duration = Duration::from_secs(3);
/// How often it is looked whether all have arrived, and without any for so long nothing more is expected.
const LOOK: Duration = Duration::from_millis(5);
const SILENCE: Duration = Duration::from_secs(30);

/// Waits of one tenant's publishes, in milliseconds.
struct Waits {
    p50: f64,
    p99: f64,
    max: f64,
}

/// How one event to all of the webhooks fared.
struct Sent {
    answered: Duration,
    arrived: Duration,
}

impl Run {
    /// A tenant's publishes alone, and beside another one's to [`WEBHOOKS`].
    pub(super) async fn wide(&mut self) -> Result<()> {
        let cast = Cast { tenants: 2, webhooks: 1, receivers: 2 };
        let stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
        self.say(format_args!("{SCENARIO}: {WEBHOOKS} webhooks in one tenant"));
        register(&stage).await?;
        let (mut alone, mut beside, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            self.say(format_args!("{SCENARIO}: round {round} of {}", self.rounds));
            alone.push(self.quiet_tenant(&stage).await?);
            let (waits, one) = tokio::join!(self.quiet_tenant(&stage), async {
                tokio::time::sleep(LENGTH / 3).await;
                publish(&stage).await
            });
            beside.push(waits?);
            sent.push(one?);
            stage.quiet().await?;
            stage.sink.forget();
        }
        let of = |from: &[Waits], value: fn(&Waits) -> f64| from.iter().map(value).collect::<Vec<_>>();
        let ratios: Vec<f64> = beside.iter().zip(&alone).map(|(with, without)| with.p99 / without.p99).collect();
        let ms = |of: fn(&Sent) -> Duration| sent.iter().map(|one| of(one).as_secs_f64() * 1e3).collect::<Vec<_>>();
        let report = &mut self.report;
        report.add(SCENARIO, "another's publish p99 beside it ÷ alone", "", &ratios, Bar::below(2.0, 1.2));
        for (when, waits) in [("alone", &alone), ("beside it", &beside)] {
            report.add(SCENARIO, format!("another's publish p50 {when}"), "ms", &of(waits, |w| w.p50), None);
            report.add(SCENARIO, format!("another's publish p99 {when}"), "ms", &of(waits, |w| w.p99), None);
            report.add(SCENARIO, format!("another's slowest publish {when}"), "ms", &of(waits, |w| w.max), None);
        }
        report.add(SCENARIO, format!("the event to {WEBHOOKS}, answered in"), "ms", &ms(|one| one.answered), None);
        report.add(SCENARIO, "all of its deliveries made in", "ms", &ms(|one| one.arrived), None);
        stage.check(SCENARIO, report);
        Ok(())
    }

    /// An open loop of the tenant that is measured.
    async fn quiet_tenant(&self, stage: &Stage) -> Result<Waits> {
        let length = self.length.max(LENGTH);
        let ledger = Arc::new(Ledger::new((f64::from(RATE) * length.as_secs_f64()) as usize, 1));
        stage.sink.watch(&ledger);
        let form = Form::Event { urgency: None };
        let load = stage.load(QUIET..QUIET + 1, form, Pace::Open(RATE, length), CONNECTIONS, &ledger)?;
        let applied = load.apply(self.watch).await?;
        anyhow::ensure!(applied.failed == 0, "{} publishes failed: {:?}", applied.failed, applied.failure);
        stage.arrive(&ledger).await;
        anyhow::ensure!(ledger.balance().missing == 0, "{} events did not arrive", ledger.balance().missing);
        let mut waits = applied.waits;
        Ok(Waits {
            p50: millis(percentile(&mut waits, 50.0)),
            p99: millis(percentile(&mut waits, 99.0)),
            max: millis(percentile(&mut waits, 100.0)),
        })
    }
}

/// Registers what is missing of the webhooks, all at one receiver.
async fn register(stage: &Stage) -> Result<()> {
    let path = &format!("/v1/tenants/bench-{WIDE}/webhooks");
    let url = &format!("http://{}/hook", stage.sink.addrs()[1]);
    let one = |number: usize| async move {
        let webhook = json!({ "name": format!("webhook {number}"), "url": url, "events": ["*"] });
        stage.server.call(Method::POST, path, Some(&webhook)).await.map(drop)
    };
    let made: Vec<_> = (1..WEBHOOKS).collect();
    stream::iter(made).map(one).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    // Connections and routes are not what is measured.
    publish(stage).await?;
    stage.quiet().await?;
    stage.sink.forget();
    Ok(())
}

/// Publishes one event to all of the webhooks, and waits until it has arrived everywhere.
async fn publish(stage: &Stage) -> Result<Sent> {
    let ledger = Arc::new(Ledger::new(1, 1));
    stage.sink.watch(&ledger);
    let mut id = [0; ID_BYTES];
    ledger.write_id(0, &mut id);
    let event = json!({ "type": "bench.event", "id": String::from_utf8_lossy(&id), "data": { "user": "u-1" } });
    let path = format!("/v1/tenants/bench-{WIDE}/events");
    let began = Instant::now();
    let answer = stage.server.call(Method::POST, &path, Some(&event)).await?;
    let answered = began.elapsed();
    ledger.accept(0, 1);
    let expected = answer["deliveries"].as_u64().context("the answer has no deliveries")?;
    anyhow::ensure!(expected == WEBHOOKS as u64, "the event goes to {expected} webhooks");
    // They are one receiver: of all but the first arrival the ledger thinks that it knows it.
    let arrived = || ledger.distinct() + ledger.balance().duplicates;
    let (mut seen, mut since) = (0, Instant::now());
    while arrived() < expected {
        anyhow::ensure!(since.elapsed() < SILENCE, "{} of {expected} deliveries did not arrive", expected - seen);
        tokio::time::sleep(LOOK).await;
        if arrived() != seen {
            (seen, since) = (arrived(), Instant::now());
        }
    }
    Ok(Sent { answered, arrived: began.elapsed() })
}
