//! What a blocking hook costs the platform: the same receiver asked directly and through Gatepost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use serde_json::json;

use super::Run;
use super::answerer::Answerer;
use super::ledger::Ledger;
use super::load::{Applied, Form, Load, Pace};
use super::measure::{median, millis, percentile};
use super::report::Bar;
use super::stage::{Cast, Stage};

const SCENARIO: &str = "hooks";
/// Calls a second.
const RATES: [u32; 3] = [50, 500, 2_000];
/// Hooks asked by one call, each on a tenant of its own.
const HOOKS: [usize; 2] = [1, 3];
/// Connections of the platform.
const CONNECTIONS: usize = 32;
/// The least number of calls for the outermost percentile to mean something.
const CALLS: u32 = 200;
/// Bulk deliveries a second beside, so many a request.
const BULK_PER_SECOND: u32 = 2_000;
const BULK_SIZE: usize = 20;
const BULK_TENANT: usize = HOOKS.len();

/// p50, p99 and p99.9 in milliseconds.
type Percentiles = [f64; 3];

fn percentiles(applied: &Applied) -> Percentiles {
    [50.0, 99.0, 99.9].map(|percent| millis(percentile(&mut applied.waits.clone(), percent)))
}

impl Run {
    /// Added latency at several rates, with one hook and with three, idle and beside bulk delivery.
    pub(super) async fn hooks(&mut self) -> Result<()> {
        let answerer = Answerer::start()?;
        let cast = Cast { tenants: BULK_TENANT + 1, webhooks: 1, receivers: 1 };
        let stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
        for (tenant, hooks) in HOOKS.into_iter().enumerate() {
            for number in 0..hooks {
                self.register(&stage, tenant, number, &answerer).await?;
            }
        }
        for busy in [false, true] {
            for per_second in RATES {
                for (tenant, hooks) in HOOKS.into_iter().enumerate() {
                    self.compare(&stage, &answerer, (tenant, hooks), per_second, busy).await?;
                }
            }
        }
        stage.check(SCENARIO, &mut self.report);
        Ok(())
    }

    async fn register(&self, stage: &Stage, tenant: usize, number: usize, answerer: &Answerer) -> Result<()> {
        let hook = json!({
            "name": format!("hook {number}"), "point": "validateUser", "mode": "enforce",
            "url": format!("http://{}/hook", answerer.addr()), "timeout_ms": 2_000,
        });
        stage.server.call(Method::POST, &format!("/v1/tenants/bench-{tenant}/hooks"), Some(&hook)).await?;
        Ok(())
    }

    /// One cell of the table: rounds of both, one after the other.
    async fn compare(
        &mut self,
        stage: &Stage,
        answerer: &Answerer,
        (tenant, hooks): (usize, usize),
        per_second: u32,
        busy: bool,
    ) -> Result<()> {
        let beside = if busy { "beside bulk delivery" } else { "idle" };
        let length = self.length.max(Duration::from_secs_f64(f64::from(CALLS) / f64::from(per_second)));
        let (mut direct, mut through) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            self.say(format_args!(
                "{SCENARIO}: {per_second}/s, {hooks} asked, {beside}, round {round} of {}",
                self.rounds
            ));
            let bulk = if busy { Some(self.bulk(stage, length)?) } else { None };
            direct.push(percentiles(&self.ask(stage, answerer, None, per_second, length).await?));
            let before = answerer.asked();
            let applied = self.ask(stage, answerer, Some(tenant), per_second, length).await?;
            let (asked, wanted) = (answerer.asked() - before, applied.answered * hooks as u64);
            if asked < wanted {
                let what = format_args!("only {asked} of {wanted} questions reached the receiver");
                self.report.problem(SCENARIO, what);
            }
            through.push(percentiles(&applied));
            if let Some((applying, ledger)) = bulk {
                let applied = applying.await??;
                ensure!(applied.answered > 0, "nothing was delivered beside");
                stage.arrive(&ledger).await;
            }
        }
        for (place, name) in ["p50", "p99", "p99.9"].into_iter().enumerate() {
            let added: Vec<f64> = through.iter().zip(&direct).map(|(ours, raw)| ours[place] - raw[place]).collect();
            let bar = match (place, per_second, busy, hooks) {
                (0, 500, false, 1) => Bar::below(0.4, 0.3),
                (1, 500, false, 1) => Bar::below(2.0, 1.0),
                _ => None,
            };
            let what = format!("{per_second}/s, {hooks} asked, {beside}: {name} added");
            self.report.add(SCENARIO, what, "ms", &added, bar);
        }
        let raw: Vec<f64> = direct.iter().map(|raw| raw[0]).collect();
        self.say(format_args!("  asked directly: p50 {:.3} ms", median(&raw)));
        Ok(())
    }

    /// Questions to the receiver itself (no tenant), or to the hooks of a tenant.
    async fn ask(
        &self,
        stage: &Stage,
        answerer: &Answerer,
        tenant: Option<usize>,
        per_second: u32,
        length: Duration,
    ) -> Result<Applied> {
        let calls = (f64::from(per_second) * length.as_secs_f64()) as usize;
        let (addr, path, key) = match tenant {
            None => (answerer.addr(), "/hook".to_owned(), None),
            Some(tenant) => {
                let path = format!("/v1/tenants/bench-{tenant}/points/validateUser/invoke");
                (stage.server.addr(), path, Some(stage.server.authorization()))
            }
        };
        let load = Load {
            addr,
            paths: vec![path],
            key,
            form: Form::Question { direct: tenant.is_none() },
            pace: Pace::Open(per_second, length),
            connections: CONNECTIONS,
            ledger: Arc::new(Ledger::new(calls, 1)),
        };
        let applied = load.apply(self.watch).await?;
        ensure!(applied.failed == 0, "a question failed: {}", applied.failure.as_deref().unwrap_or("unknown"));
        Ok(applied)
    }

    /// Bulk deliveries for the time of one comparison.
    fn bulk(&self, stage: &Stage, length: Duration) -> Result<(tokio::task::JoinHandle<Result<Applied>>, Arc<Ledger>)> {
        let length = length * 2 + Duration::from_millis(200);
        let requests = BULK_PER_SECOND / BULK_SIZE as u32;
        let ledger = stage.ledger((f64::from(BULK_PER_SECOND) * length.as_secs_f64()) as usize);
        let form = Form::Batch { size: BULK_SIZE, urgency: Some("bulk") };
        let load = stage.load(BULK_TENANT..BULK_TENANT + 1, form, Pace::Open(requests, length), 4, &ledger)?;
        Ok((tokio::spawn(load.apply(self.watch)), ledger))
    }
}
