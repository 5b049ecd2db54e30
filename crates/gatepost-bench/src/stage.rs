//! A server with tenants, webhooks and receivers: what every scenario plays on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::ledger::{Balance, Ledger};
use super::load::{Applied, Form, Load, Pace};
use super::measure::{Stopwatch, cpu_by_thread, process_cpu};
use super::process::{Folder, Program, ServerProcess};
use super::report::Report;
use super::sink::Sink;

/// How often counters are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Without any arrival for so long, nothing more is expected.
const SILENCE: Duration = Duration::from_secs(30);
/// Events in one request, and requests at once, when a backlog is built.
const BACKLOG_BATCH: usize = 500;
const BACKLOG_CONNECTIONS: usize = 4;
/// How long building a backlog may take.
const BACKLOG_TIME: Duration = Duration::from_secs(600);
/// The most a webhook may be given: held receivers answer late on purpose.
const TIMEOUT_MS: u32 = 60_000;

/// Who receives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast {
    /// Tenants, each with the same number of webhooks.
    pub(super) tenants: usize,
    /// Webhooks of each, all subscribed to everything.
    pub(super) webhooks: usize,
    /// Receivers, which the webhooks take in turn.
    pub(super) receivers: usize,
}

/// See the module.
pub(super) struct Stage {
    pub(super) server: ServerProcess,
    pub(super) sink: Sink,
    pub(super) folder: Folder,
    watch: Stopwatch,
    cast: Cast,
    /// Paths of the webhooks in the API.
    webhooks: Vec<String>,
}

/// The server's counters and CPU at one moment.
pub(super) struct Reading {
    cpu: Option<f64>,
    threads: BTreeMap<String, f64>,
    commits: f64,
    accepted: f64,
    ended: f64,
}

/// What the server spent between two readings.
#[derive(Debug)]
pub(super) struct Spent {
    /// CPU seconds.
    pub(super) cpu: f64,
    /// The same by name of thread.
    pub(super) threads: BTreeMap<String, f64>,
    /// Commits, each with one flush.
    pub(super) commits: f64,
    /// Events accepted.
    pub(super) accepted: f64,
}

impl Stage {
    /// Starts everything afresh.
    pub(super) async fn set(
        program: &Program,
        dir: Option<&std::path::PathBuf>,
        cast: Cast,
        watch: Stopwatch,
    ) -> Result<Stage> {
        let folder = Folder::new(dir)?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = ServerProcess::start(program, folder.path(), any).await?;
        let sink = Sink::start(cast.receivers, watch)?;
        let mut stage = Stage { server, sink, folder, watch, cast, webhooks: Vec::new() };
        for tenant in 0..cast.tenants {
            stage.server.call(Method::PUT, &format!("/v1/tenants/bench-{tenant}"), Some(&json!({}))).await?;
            for webhook in 0..cast.webhooks {
                let receiver = (tenant * cast.webhooks + webhook) % cast.receivers;
                let body = json!({
                    "name": format!("receiver {receiver}"),
                    "url": format!("http://{}/hook", stage.sink.addrs()[receiver]),
                    "events": ["*"],
                    "timeout_ms": TIMEOUT_MS,
                });
                let path = format!("/v1/tenants/bench-{tenant}/webhooks");
                let made = stage.server.call(Method::POST, &path, Some(&body)).await?;
                let id = made["id"].as_str().context("the new webhook has no id")?;
                stage.webhooks.push(format!("{path}/{id}"));
            }
        }
        Ok(stage)
    }

    /// A ledger the receivers count in.
    pub(super) fn ledger(&self, capacity: usize) -> Arc<Ledger> {
        let ledger = Arc::new(Ledger::new(capacity, self.cast.webhooks));
        self.sink.watch(&ledger);
        ledger
    }

    /// Load on the server's API, for the tenants given.
    pub(super) fn load(
        &self,
        tenants: std::ops::Range<usize>,
        form: Form,
        pace: Pace,
        connections: usize,
        ledger: &Arc<Ledger>,
    ) -> Result<Load> {
        let end = if matches!(form, Form::Batch { .. }) { "events/batch" } else { "events" };
        Ok(Load {
            addr: self.server.addr(),
            paths: tenants.map(|tenant| format!("/v1/tenants/bench-{tenant}/{end}")).collect(),
            key: Some(self.server.authorization()),
            form,
            pace,
            connections,
            ledger: ledger.clone(),
        })
    }

    /// Applies a load to all tenants and waits until all of it arrived and is recorded.
    pub(super) async fn play(&self, form: Form, pace: Pace, connections: usize, capacity: usize) -> Result<Round> {
        let ledger = self.ledger(capacity);
        let (before, connections_before) = (self.read().await?, self.sink.connections());
        let load = self.load(0..self.cast.tenants, form, pace, connections, &ledger)?;
        let applied = load.apply(self.watch).await?;
        self.arrive(&ledger).await;
        self.record(&before, &ledger).await?;
        let spent = self.read().await?.since(&before);
        let connections = self.sink.connections() - connections_before;
        Ok(Round { applied, balance: ledger.balance(), last_arrival: ledger.last_arrival(), connections, spent })
    }

    /// Publishes `ledger.capacity()` events as fast as it goes, in batches.
    pub(super) async fn pile_up(
        &self,
        tenants: std::ops::Range<usize>,
        urgency: Option<&'static str>,
        ledger: &Arc<Ledger>,
    ) -> Result<Applied> {
        let size = BACKLOG_BATCH.min(ledger.capacity());
        let form = Form::Batch { size, urgency };
        let load = self.load(tenants, form, Pace::Closed(BACKLOG_TIME), BACKLOG_CONNECTIONS, ledger)?;
        load.apply(self.watch).await
    }

    /// Waits until every accepted event arrived, or nothing comes any more. Answers whether they did.
    pub(super) async fn arrive(&self, ledger: &Ledger) -> bool {
        let (mut seen, mut since) = (ledger.distinct(), Instant::now());
        while !ledger.is_complete() {
            tokio::time::sleep(LOOK).await;
            let now = ledger.distinct();
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > SILENCE {
                return false;
            }
        }
        true
    }

    /// Waits until the outcomes of what arrived are recorded too: that work belongs to the delivery.
    async fn record(&self, before: &Reading, ledger: &Ledger) -> Result<()> {
        let until = Instant::now() + SILENCE;
        while self.read().await?.ended - before.ended < ledger.balance().distinct as f64 && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until no request of the server's is under way.
    pub(super) async fn quiet(&self) -> Result<()> {
        let until = Instant::now() + SILENCE;
        while self.server.metrics().await?.sum("gatepost_attempts_in_flight") > 0.0 && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Enables or disables every webhook.
    pub(super) async fn enable(&self, enabled: bool) -> Result<()> {
        for webhook in &self.webhooks {
            self.server.call(Method::PATCH, webhook, Some(&json!({ "enabled": enabled }))).await?;
        }
        Ok(())
    }

    /// Reads the server's counters.
    pub(super) async fn read(&self) -> Result<Reading> {
        let counts = self.server.metrics().await?;
        Ok(Reading {
            cpu: process_cpu(self.server.pid()),
            threads: cpu_by_thread(self.server.pid()),
            commits: counts.sum("gatepost_store_commits_total"),
            accepted: counts.sum("gatepost_events_accepted_total"),
            ended: counts.sum("gatepost_deliveries_ended_total"),
        })
    }

    /// Kills the server and starts it again on the same folder and address. Answers when the start
    /// began.
    pub(super) async fn restart(&mut self, program: &Program) -> Result<u64> {
        self.server.kill()?;
        let began = self.watch.nanos();
        self.server = ServerProcess::start(program, self.folder.path(), self.server.addr()).await?;
        Ok(began)
    }

    /// Notes what must not have happened.
    pub(super) fn check(&self, scenario: &str, report: &mut Report) {
        if self.server.errors() > 0 {
            report.problem(scenario, format_args!("{} errors in the server's log", self.server.errors()));
        }
        if self.sink.strays() > 0 {
            report.problem(scenario, format_args!("{} requests nobody expected", self.sink.strays()));
        }
    }
}

impl Reading {
    /// What was spent since an earlier reading.
    pub(super) fn since(&self, before: &Reading) -> Spent {
        let threads = self.threads.iter().map(|(name, cpu)| {
            let spent = cpu - before.threads.get(name).copied().unwrap_or(0.0);
            (name.clone(), spent.max(0.0))
        });
        Spent {
            cpu: self.cpu.zip(before.cpu).map_or(f64::NAN, |(after, before)| after - before),
            threads: threads.collect(),
            commits: self.commits - before.commits,
            accepted: self.accepted - before.accepted,
        }
    }
}

/// One load, played to the end.
pub(super) struct Round {
    pub(super) applied: Applied,
    pub(super) balance: Balance,
    pub(super) last_arrival: u64,
    /// Connections the server opened.
    pub(super) connections: u64,
    pub(super) spent: Spent,
}

impl Round {
    /// Deliveries a second, from the first request to the last arrival.
    pub(super) fn delivered_per_second(&self) -> f64 {
        self.balance.distinct as f64 / (self.last_arrival.saturating_sub(self.applied.began) as f64 / 1e9)
    }

    /// Events accepted a second, from the first request to the last answer.
    pub(super) fn accepted_per_second(&self) -> f64 {
        self.balance.accepted as f64 / self.applied.seconds()
    }

    /// Percent of the deliveries that did not need a new connection.
    pub(super) fn reused(&self) -> f64 {
        (1.0 - self.connections as f64 / self.balance.distinct as f64) * 100.0
    }

    /// Microseconds of the server's CPU for each delivery.
    pub(super) fn cpu_per_delivery(&self) -> f64 {
        self.spent.cpu * 1e6 / self.balance.distinct as f64
    }

    /// Notes what must not have happened.
    pub(super) fn check(&self, scenario: &str, report: &mut Report) {
        check(scenario, &self.applied, &self.balance, report);
    }
}

/// Notes what must not have happened to a load.
pub(super) fn check(scenario: &str, applied: &Applied, balance: &Balance, report: &mut Report) {
    if applied.failed > 0 {
        let why = applied.failure.as_deref().unwrap_or("unknown");
        report.problem(scenario, format_args!("{} requests failed ({why})", applied.failed));
    }
    if balance.missing > 0 {
        report.problem(scenario, format_args!("{} accepted events did not arrive", balance.missing));
    }
}
