//! How much: the raw ceiling, and what of it the server makes use of.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::Run;
use super::ledger::Ledger;
use super::load::{Form, Load, Pace};
use super::measure::median;
use super::report::Bar;
use super::sink::Sink;
use super::stage::{Cast, Round, Stage};

/// Requests at once for the ceiling and 1:1.
const PUBLISHERS: usize = 64;
/// Requests of one measurement of the ceiling.
const CEILING_REQUESTS: usize = 60_000;
/// The most requests a second a closed loop is given room for.
const MOST_PER_SECOND: f64 = 150_000.0;

/// One measurement of what the machine can do without us.
pub(super) struct Ceiling {
    per_second: f64,
    /// Microseconds of CPU per request.
    client: f64,
    sink: f64,
}

/// What the figures of a throughput scenario are called and measured by.
struct Wanted {
    scenario: &'static str,
    cast: Cast,
    form: Form,
    connections: usize,
    rate_bar: Option<Bar>,
    cpu_bar: Option<Bar>,
}

impl Run {
    /// A plain client posting the same bodies to the same kind of receiver, nothing in between.
    pub(super) async fn ceiling(&mut self) -> Result<()> {
        let sink = Sink::start(1, self.watch)?;
        let ledger = Arc::new(Ledger::new(CEILING_REQUESTS, 1));
        sink.watch(&ledger);
        let before = sink.cpu();
        let load = Load {
            addr: sink.addrs()[0],
            paths: vec!["/hook".into()],
            key: None,
            form: Form::Raw,
            pace: Pace::Closed(Duration::from_secs(20)),
            connections: PUBLISHERS,
            ledger: ledger.clone(),
        };
        let applied = load.apply(self.watch).await?;
        let each = |cpu: Option<f64>| cpu.map_or(f64::NAN, |cpu| cpu * 1e6 / applied.answered as f64);
        self.ceilings.push(Ceiling {
            per_second: applied.answered as f64 / applied.seconds(),
            client: each(applied.cpu),
            sink: each(sink.cpu().zip(before).map(|(after, before)| after - before)),
        });
        Ok(())
    }

    /// Writes down all ceilings of the run.
    pub(super) fn report_ceilings(&mut self) {
        let of = |value: fn(&Ceiling) -> f64| self.ceilings.iter().map(value).collect::<Vec<_>>();
        let (rates, client, sink) = (of(|c| c.per_second), of(|c| c.client), of(|c| c.sink));
        self.report.add("raw", "C: requests/s, 64 connections", "/s", &rates, None);
        self.report.add("raw", "CPU of the client per request", "µs", &client, None);
        self.report.add("raw", "CPU of the receiver per request", "µs", &sink, None);
    }

    /// C and the client's CPU, from the ceilings measured since there were `from` of them.
    fn around(&self, from: usize) -> (f64, f64) {
        let near = &self.ceilings[from..];
        let rates: Vec<f64> = near.iter().map(|c| c.per_second).collect();
        let client: Vec<f64> = near.iter().map(|c| c.client).collect();
        (median(&rates), median(&client))
    }

    /// One event a request, one webhook each.
    pub(super) async fn one_to_one(&mut self) -> Result<()> {
        self.closed(&Wanted {
            scenario: "one-to-one",
            cast: Cast { tenants: 10, webhooks: 1, receivers: 10 },
            form: Form::Event { urgency: None },
            connections: PUBLISHERS,
            rate_bar: Bar::above(0.12, 0.22),
            cpu_bar: Bar::below(10.0, 6.0),
        })
        .await
    }

    /// One event, ten webhooks.
    pub(super) async fn fan_out(&mut self) -> Result<()> {
        self.closed(&Wanted {
            scenario: "fan-out",
            cast: Cast { tenants: 1, webhooks: 10, receivers: 10 },
            form: Form::Event { urgency: None },
            connections: 16,
            rate_bar: Bar::above(0.30, 0.50),
            cpu_bar: Bar::below(5.0, 3.0),
        })
        .await
    }

    /// A hundred events a request, one webhook each.
    pub(super) async fn batch(&mut self) -> Result<()> {
        self.closed(&Wanted {
            scenario: "batch",
            cast: Cast { tenants: 10, webhooks: 1, receivers: 10 },
            form: Form::Batch { size: 100, urgency: None },
            connections: 8,
            rate_bar: Bar::above(0.5, 1.5),
            cpu_bar: None,
        })
        .await
    }

    async fn closed(&mut self, wanted: &Wanted) -> Result<()> {
        let scenario = wanted.scenario;
        let first = self.ceilings.len();
        let stage = Stage::set(&self.program, self.dir.as_ref(), wanted.cast, self.watch).await?;
        let fan = wanted.cast.webhooks;
        let room = (MOST_PER_SECOND * self.length.as_secs_f64()) as usize / fan;
        let capacity = self.count.map_or(room, |count| count.min(room));
        let mut rounds = Vec::new();
        for round in 1..=self.rounds {
            self.ceiling().await?;
            self.say(format_args!("{scenario}: round {round} of {}", self.rounds));
            let pace = Pace::Closed(self.length);
            rounds.push(stage.play(wanted.form, pace, wanted.connections, capacity).await?);
            stage.sink.forget();
        }
        self.ceiling().await?;
        let (ceiling, client) = self.around(first);
        let of = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
        let ratio = |samples: &[f64], by: f64| samples.iter().map(|sample| sample / by).collect::<Vec<_>>();
        let (accepted, delivered) = (of(Round::accepted_per_second), of(Round::delivered_per_second));
        let cpu = of(Round::cpu_per_delivery);
        let report = &mut self.report;
        if scenario == "batch" {
            report.add(scenario, "accepted/s ÷ C", "", &ratio(&accepted, ceiling), wanted.rate_bar);
            report.add(scenario, "deliveries/s ÷ C", "", &ratio(&delivered, ceiling), None);
        } else {
            report.add(scenario, "deliveries/s ÷ C", "", &ratio(&delivered, ceiling), wanted.rate_bar);
        }
        report.add(scenario, "accepted", "/s", &accepted, None);
        report.add(scenario, "deliveries", "/s", &delivered, None);
        report.add(scenario, "server CPU per delivery ÷ raw client's", "", &ratio(&cpu, client), wanted.cpu_bar);
        report.add(scenario, "server CPU per delivery", "µs", &cpu, None);
        let flushes = of(|round| round.spent.commits / round.spent.accepted);
        let flush_bar = if scenario == "one-to-one" { Bar::below(0.25, 0.1) } else { None };
        report.add(scenario, "flushes per accepted event", "", &flushes, flush_bar);
        report.add(scenario, "duplicates", "", &of(|round| round.balance.duplicates as f64), None);
        report.add(scenario, "deliveries on a reused connection", "%", &of(Round::reused), None);
        let waits = |percent: f64| -> Vec<f64> {
            let each = rounds.iter().map(|round| {
                super::measure::millis(super::measure::percentile(&mut round.applied.waits.clone(), percent))
            });
            each.collect()
        };
        report.add(scenario, "publish answered, p50", "ms", &waits(50.0), None);
        report.add(scenario, "publish answered, p99", "ms", &waits(99.0), None);
        for round in &rounds {
            round.check(scenario, report);
            report.threads(scenario, &round.spent.threads);
        }
        stage.check(scenario, report);
        Ok(())
    }

    /// An accepted backlog, delivered.
    pub(super) async fn drain(&mut self) -> Result<()> {
        const SCENARIO: &str = "drain";
        let first = self.ceilings.len();
        let cast = Cast { tenants: 10, webhooks: 1, receivers: 10 };
        let stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
        let (mut rates, mut cpus, mut piled, mut duplicates, mut bytes) = (vec![], vec![], vec![], vec![], vec![]);
        for round in 1..=self.rounds {
            self.ceiling().await?;
            self.say(format_args!("{SCENARIO}: round {round} of {}, {} events", self.rounds, self.backlog));
            // Nobody answers while the backlog is made; then it waits, disabled, in the store alone.
            stage.sink.hold();
            let ledger = stage.ledger(self.backlog);
            let applied = stage.pile_up(0..cast.tenants, None, &ledger).await?;
            piled.push(ledger.accepted() as f64 / applied.seconds());
            stage.enable(false).await?;
            stage.sink.release();
            stage.quiet().await?;
            let (early, before) = (ledger.distinct(), stage.read().await?);
            let began = self.watch.nanos();
            stage.enable(true).await?;
            stage.arrive(&ledger).await;
            stage.quiet().await?;
            let spent = stage.read().await?.since(&before);
            let drained = (ledger.distinct() - early) as f64;
            rates.push(drained / (ledger.last_arrival().saturating_sub(began) as f64 / 1e9));
            cpus.push(spent.cpu * 1e6 / drained);
            let balance = ledger.balance();
            duplicates.push(balance.duplicates as f64);
            bytes.push(stage.folder.bytes() as f64 / (1 << 20) as f64);
            super::stage::check(SCENARIO, &applied, &balance, &mut self.report);
            self.report.threads(SCENARIO, &spent.threads);
            stage.sink.forget();
        }
        self.ceiling().await?;
        let (ceiling, client) = self.around(first);
        let ratios: Vec<f64> = rates.iter().map(|rate| rate / ceiling).collect();
        let cpu_ratios: Vec<f64> = cpus.iter().map(|cpu| cpu / client).collect();
        let report = &mut self.report;
        report.add(SCENARIO, "deliveries/s ÷ C", "", &ratios, Bar::above(0.40, 0.75));
        report.add(SCENARIO, "deliveries", "/s", &rates, None);
        report.add(SCENARIO, "server CPU per delivery ÷ raw client's", "", &cpu_ratios, None);
        report.add(SCENARIO, "server CPU per delivery", "µs", &cpus, None);
        report.add(SCENARIO, "accepted while making the backlog", "/s", &piled, None);
        report.add(SCENARIO, "duplicates", "", &duplicates, None);
        report.add(SCENARIO, "size of the store after each round", "MiB", &bytes, None);
        stage.check(SCENARIO, report);
        Ok(())
    }
}
