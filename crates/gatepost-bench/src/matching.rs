//! Whether matching stays flat: very many webhooks in one tenant, and very many tenants.
//!
//! A tenant's webhooks ask for an exact type, for everything below a prefix, or for an exact type with a
//! filter, a third each. Whatever their number, an event finds one of each kind. One server has all
//! tenants, so that every figure has its counterpart beside it, taken in turn.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Run;
use super::ledger::Ledger;
use super::load::{Applied, Form, Pace};
use super::measure::{millis, percentile, resident};
use super::report::Bar;
use super::stage::{self, Cast, Stage};

const SCENARIO: &str = "matching";
/// Webhooks an event finds, one of each kind.
const KINDS: usize = 3;
/// The tenant with few webhooks, the one with many, and the first of many tenants.
const FEW: usize = 0;
const MANY: usize = 1;
const OTHERS: usize = 2;
/// Webhooks of the first.
const A_FEW: usize = 9;
/// Events a second: so few that each is answered before the next is due.
const RATE: u32 = 200;
/// The least time for a percentile of them to mean something.
const LENGTH: Duration = Duration::from_secs(3);
/// Connections of the load.
const CONNECTIONS: usize = 16;
/// Registrations under way at once.
const AT_ONCE: usize = 16;
/// Changes that are timed in a round.
const CHANGES: usize = 100;
/// Without a commit for so long, the server has nothing more to do.
const SILENCE: Duration = Duration::from_millis(500);
const MIB: f64 = (1 << 20) as f64;

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Webhooks of one tenant.
    pub(super) webhooks: usize,
    /// Tenants with one webhook each.
    pub(super) tenants: usize,
}

/// The same measured here and there, by round.
#[derive(Default)]
struct Pair {
    few: Vec<f64>,
    many: Vec<f64>,
}

impl Pair {
    fn ratios(&self) -> Vec<f64> {
        self.many.iter().zip(&self.few).map(|(many, few)| many / few).collect()
    }
}

/// One open loop.
struct Played {
    p50: f64,
    p99: f64,
    max: f64,
    cpu_us: f64,
}

impl Run {
    /// Publishing and changing beside few and very many webhooks and tenants.
    pub(super) async fn matching(&mut self) -> Result<()> {
        let plan = self.matching;
        let cast = Cast { tenants: OTHERS, webhooks: 0, receivers: KINDS };
        let mut stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
        let few = register(&stage, FEW, A_FEW).await?.0;
        self.say(format_args!("{SCENARIO}: {} webhooks in one tenant", plan.webhooks));
        let (many, took) = register(&stage, MANY, plan.webhooks).await?;
        let each = [took.as_secs_f64() * 1e3 / many.len() as f64];
        self.report.add(SCENARIO, format!("{AT_ONCE} at once: registering a webhook"), "ms", &each, None);
        self.say(format_args!("{SCENARIO}: {} tenants", plan.tenants));
        let took = found(&stage, plan.tenants).await?;
        let each = [took.as_secs_f64() * 1e3 / plan.tenants as f64];
        self.report.add(SCENARIO, format!("{AT_ONCE} at once: making a tenant with a webhook"), "ms", &each, None);
        idle(&stage).await?;
        self.first_use(&mut stage, plan).await?;
        let mut both = Pairs::default();
        for round in 1..=self.rounds {
            self.say(format_args!("{SCENARIO}: round {round} of {}", self.rounds));
            self.round(&stage, [&few, &many], &mut both).await?;
        }
        both.report(&mut self.report, plan);
        stage.check(SCENARIO, &mut self.report);
        Ok(())
    }

    async fn round(&mut self, stage: &Stage, paths: [&[String]; 2], both: &mut Pairs) -> Result<()> {
        for (tenant, paths) in [FEW, MANY].into_iter().zip(paths) {
            let played = self.publish(stage, tenant..tenant + 1, KINDS).await?;
            put(&mut both.p50, tenant, played.p50);
            put(&mut both.p99, tenant, played.p99);
            put(&mut both.cpu, tenant, played.cpu_us);
            let mut changed = change(stage, paths).await?;
            put(&mut both.changed_p50, tenant, millis(percentile(&mut changed, 50.0)));
            put(&mut both.changed_p99, tenant, millis(percentile(&mut changed, 99.0)));
            let (played, changed) =
                tokio::join!(self.publish(stage, tenant..tenant + 1, KINDS), keep_changing(stage, paths));
            changed?;
            put(&mut both.beside, tenant, played?.p99);
        }
        let all = self.matching.tenants;
        for (number, tenants) in [OTHERS..OTHERS + 1, OTHERS..OTHERS + all].into_iter().enumerate() {
            let played = self.publish(stage, tenants, 1).await?;
            put(&mut both.tenants_p99, number, played.p99);
            put(&mut both.tenants_cpu, number, played.cpu_us);
        }
        Ok(())
    }

    /// What a tenant costs that was not used since the start, and everybody else meanwhile.
    async fn first_use(&mut self, stage: &mut Stage, plan: Plan) -> Result<()> {
        stage.restart(&self.program).await?;
        let ready = stage.server.ready_after.as_secs_f64() * 1e3;
        self.publish(stage, FEW..FEW + 1, KINDS).await?;
        let before = resident(stage.server.pid()).context("the server's memory cannot be read")?.0;
        let (beside, took) = {
            let stage = &*stage;
            let beside = self.publish(stage, FEW..FEW + 1, KINDS);
            let first = async {
                tokio::time::sleep(LENGTH / 3).await;
                let began = Instant::now();
                nothing(stage, MANY).await?;
                anyhow::Ok(began.elapsed())
            };
            let (beside, took) = tokio::join!(beside, first);
            (beside?, took?)
        };
        let after = resident(stage.server.pid()).context("the server's memory cannot be read")?.0;
        let used: Vec<usize> = (OTHERS..OTHERS + plan.tenants).collect();
        let stage = &*stage;
        stream::iter(used).map(|tenant| nothing(stage, tenant)).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let tenants = resident(stage.server.pid()).context("the server's memory cannot be read")?.0;
        let grown = |from: u64, to: u64, by: usize| (to as f64 - from as f64) / by as f64;
        let (report, webhooks) = (&mut self.report, plan.webhooks);
        let name = |what: &str| format!("{webhooks} webhooks: {what}");
        report.add(SCENARIO, name("start to ready"), "ms", &[ready], None);
        report.add(SCENARIO, name("the first event after it, answered in"), "ms", &[took.as_secs_f64() * 1e3], None);
        report.add(SCENARIO, name("another tenant's slowest answer meanwhile"), "ms", &[beside.max], None);
        report.add(SCENARIO, name("memory of one"), "bytes", &[grown(before, after, webhooks)], None);
        let name = |what: &str| format!("{} tenants in use: {what}", plan.tenants);
        report.add(SCENARIO, name("memory of one"), "bytes", &[grown(after, tenants, plan.tenants)], None);
        report.add(SCENARIO, name("resident, with the webhooks"), "MiB", &[tenants as f64 / MIB], None);
        Ok(())
    }

    /// An open loop on some tenants, each of whose events goes to so many webhooks.
    async fn publish(&mut self, stage: &Stage, tenants: std::ops::Range<usize>, copies: usize) -> Result<Played> {
        let length = self.length.max(LENGTH);
        let count = (f64::from(RATE) * length.as_secs_f64()) as usize;
        let ledger = Arc::new(Ledger::new(count, copies));
        stage.sink.watch(&ledger);
        let before = stage.read().await?;
        let form = Form::Event { urgency: None };
        let load = stage.load(tenants, form, Pace::Open(RATE, length), CONNECTIONS, &ledger)?;
        let Applied { mut waits, .. } = {
            let applied = load.apply(self.watch).await?;
            stage.arrive(&ledger).await;
            stage::check(SCENARIO, &applied, &ledger.balance(), &mut self.report);
            applied
        };
        stage.quiet().await?;
        let spent = stage.read().await?.since(&before);
        stage.sink.forget();
        Ok(Played {
            p50: millis(percentile(&mut waits, 50.0)),
            p99: millis(percentile(&mut waits, 99.0)),
            max: millis(percentile(&mut waits, 100.0)),
            cpu_us: spent.cpu * 1e6 / count as f64,
        })
    }
}

/// Everything that is measured on both sides.
#[derive(Default)]
struct Pairs {
    p50: Pair,
    p99: Pair,
    cpu: Pair,
    changed_p50: Pair,
    changed_p99: Pair,
    beside: Pair,
    tenants_p99: Pair,
    tenants_cpu: Pair,
}

fn put(pair: &mut Pair, side: usize, value: f64) {
    if side == FEW { pair.few.push(value) } else { pair.many.push(value) }
}

impl Pairs {
    fn report(&self, report: &mut super::report::Report, plan: Plan) {
        let flat = Bar::below(1.2, 1.05);
        let figures = [
            ("publish p50", "ms", &self.p50, None),
            ("publish p99", "ms", &self.p99, flat),
            ("server CPU per event", "µs", &self.cpu, flat),
            ("changing a webhook, p50", "ms", &self.changed_p50, flat),
            ("changing a webhook, p99", "ms", &self.changed_p99, None),
            ("publish p99 while webhooks change", "ms", &self.beside, None),
        ];
        for (what, unit, pair, bar) in figures {
            let many = plan.webhooks;
            report.add(SCENARIO, format!("{what}: {many} webhooks ÷ {A_FEW}"), "", &pair.ratios(), bar);
            report.add(SCENARIO, format!("{what}: {A_FEW} webhooks"), unit, &pair.few, None);
            report.add(SCENARIO, format!("{what}: {many} webhooks"), unit, &pair.many, None);
        }
        for (what, unit, pair) in
            [("publish p99", "ms", &self.tenants_p99), ("server CPU per event", "µs", &self.tenants_cpu)]
        {
            let many = plan.tenants;
            report.add(SCENARIO, format!("{what}: {many} tenants ÷ 1"), "", &pair.ratios(), flat);
            report.add(SCENARIO, format!("{what}: 1 tenant"), unit, &pair.few, None);
            report.add(SCENARIO, format!("{what}: {many} tenants in turn"), unit, &pair.many, None);
        }
    }
}

fn webhook(stage: &Stage, number: usize) -> Value {
    // The first of each kind asks for what the load publishes, the others for what nobody does.
    let (kind, found) = (number % KINDS, number < KINDS);
    let (events, filter) = match (kind, found) {
        (0, true) => ("bench.event".to_owned(), None),
        (0, false) => (format!("family{number}.created"), None),
        (1, true) => ("bench.*".to_owned(), None),
        (1, false) => (format!("family{number}.*"), None),
        (_, true) => ("bench.event".to_owned(), Some("data.user == 'u-1'")),
        (_, false) => (format!("family{number}.deleted"), Some("data.user == 'u-1'")),
    };
    json!({
        "name": format!("webhook {number}"),
        "url": format!("http://{}/hook", stage.sink.addrs()[kind]),
        "events": [events],
        "filter": filter,
    })
}

/// Registers webhooks of a tenant; their paths, and how long it took.
async fn register(stage: &Stage, tenant: usize, webhooks: usize) -> Result<(Vec<String>, Duration)> {
    let path = &format!("/v1/tenants/bench-{tenant}/webhooks");
    let began = Instant::now();
    let one = |number: usize| async move {
        let made = stage.server.call(Method::POST, path, Some(&webhook(stage, number))).await?;
        let id = made["id"].as_str().context("the new webhook has no id")?;
        anyhow::Ok(format!("{path}/{id}"))
    };
    let made: Vec<_> = (0..webhooks).collect();
    let paths = stream::iter(made).map(one).buffered(AT_ONCE).try_collect().await?;
    Ok((paths, began.elapsed()))
}

/// Makes tenants with a webhook each; how long it took.
async fn found(stage: &Stage, tenants: usize) -> Result<Duration> {
    let began = Instant::now();
    let one = |tenant: usize| async move {
        let path = format!("/v1/tenants/bench-{tenant}");
        stage.server.call(Method::PUT, &path, Some(&json!({}))).await?;
        stage.server.call(Method::POST, &format!("{path}/webhooks"), Some(&webhook(stage, 0))).await?;
        anyhow::Ok(())
    };
    let made: Vec<_> = (OTHERS..OTHERS + tenants).collect();
    stream::iter(made).map(one).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(began.elapsed())
}

/// Waits until the server has told everybody of all that was registered.
async fn idle(stage: &Stage) -> Result<()> {
    loop {
        let before = stage.read().await?;
        tokio::time::sleep(SILENCE).await;
        // Reading the counters takes no commit; the server's own upkeep takes one now and then.
        if stage.read().await?.since(&before).commits < 2.0 {
            return Ok(());
        }
    }
}

/// Publishes an event that goes nowhere.
async fn nothing(stage: &Stage, tenant: usize) -> Result<()> {
    let path = format!("/v1/tenants/bench-{tenant}/events");
    stage.server.call(Method::POST, &path, Some(&json!({ "type": "nobody.asks", "data": 1 }))).await?;
    Ok(())
}

/// Changes webhooks that no event finds, one after the other; nanoseconds of each.
async fn change(stage: &Stage, paths: &[String]) -> Result<Vec<u64>> {
    let mut took = Vec::with_capacity(CHANGES);
    for number in 0..CHANGES {
        let path = &paths[KINDS + number * 7_919 % (paths.len() - KINDS)];
        let began = Instant::now();
        stage.server.call(Method::PATCH, path, Some(&json!({ "description": format!("change {number}") }))).await?;
        took.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(took)
}

/// The same, evenly over the time of an open loop.
async fn keep_changing(stage: &Stage, paths: &[String]) -> Result<()> {
    let until = Instant::now() + LENGTH;
    for number in 0.. {
        let path = &paths[KINDS + number * 7_919 % (paths.len() - KINDS)];
        let change = json!({ "description": format!("beside {number}") });
        stage.server.call(Method::PATCH, path, Some(&change)).await?;
        if Instant::now() > until {
            break;
        }
        tokio::time::sleep(LENGTH / CHANGES as u32).await;
    }
    Ok(())
}
