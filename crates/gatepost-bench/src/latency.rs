//! How soon: open loops, counted from when an event was due.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::Run;
use super::ledger::Ledger;
use super::load::{Applied, Form, Load, Pace};
use super::measure::{flushes, millis, percentile};
use super::report::Bar;
use super::sink::Sink;
use super::stage::{self, Cast, Stage};

/// Connections of an open loop: more than are ever needed at once, unless the server stalls.
pub(super) const CONNECTIONS: usize = 64;
/// Events a slow receiver is owed, and how long it takes over each.
const SLOW_EVENTS: usize = 2_000;
const SLOW_ANSWER: Duration = Duration::from_secs(10);
/// Events a second in the two scenarios that compare.
const STEADY: u32 = 100;
/// The least time for a percentile of [`STEADY`] events to mean something.
const STEADY_LENGTH: Duration = Duration::from_secs(3);
/// How long a receiver takes over an answer when it is an ordinary one, somewhere else.
const ORDINARY: Duration = Duration::from_millis(20);
/// Flushes timed.
const FLUSHES: usize = 200;

/// End-to-end latencies of one open loop, in milliseconds.
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    /// 99 % of the answers to publishers were there by then.
    pub(super) answered_p99: f64,
}

/// Latencies of the events due before `until`.
pub(super) fn latencies(ledger: &Ledger, applied: &Applied, per_second: u32, until: u64) -> Latency {
    let due = |index: usize| Load::due(per_second, applied.began, index);
    let mut waits: Vec<u64> = (0..ledger.capacity())
        .take_while(|index| due(*index) < until)
        .filter_map(|index| Some(ledger.arrival(index)?.saturating_sub(due(index))))
        .collect();
    Latency {
        p50: millis(percentile(&mut waits, 50.0)),
        p99: millis(percentile(&mut waits, 99.0)),
        max: millis(percentile(&mut waits, 100.0)),
        answered_p99: millis(percentile(&mut applied.waits.clone(), 99.0)),
    }
}

/// What one flush of this disk takes at the median, in milliseconds.
fn flush_p50(stage: &Stage, growing: bool) -> Result<f64> {
    let mut took = flushes(stage.folder.path(), FLUSHES, growing)?;
    Ok(millis(percentile(&mut took, 50.0)))
}

fn capacity(per_second: u32, length: Duration) -> usize {
    (f64::from(per_second) * length.as_secs_f64()) as usize
}

impl Run {
    async fn raw_open(&self, per_second: u32, length: Duration) -> Result<Latency> {
        let sink = Sink::start(1, self.watch)?;
        let ledger = Arc::new(Ledger::new(capacity(per_second, length), 1));
        sink.watch(&ledger);
        let load = Load {
            addr: sink.addrs()[0],
            paths: vec!["/hook".into()],
            key: None,
            form: Form::Raw,
            pace: Pace::Open(per_second, length),
            connections: CONNECTIONS,
            ledger: ledger.clone(),
        };
        let applied = load.apply(self.watch).await?;
        Ok(latencies(&ledger, &applied, per_second, u64::MAX))
    }

    /// An open loop on one tenant of a stage, to its end.
    pub(super) async fn open(
        &mut self,
        scenario: &'static str,
        stage: &Stage,
        tenant: usize,
        urgency: Option<&'static str>,
        (per_second, length): (u32, Duration),
    ) -> Result<(Arc<Ledger>, Applied)> {
        let ledger = stage.ledger(capacity(per_second, length));
        let pace = Pace::Open(per_second, length);
        let load = stage.load(tenant..tenant + 1, Form::Event { urgency }, pace, CONNECTIONS, &ledger)?;
        let applied = load.apply(self.watch).await?;
        stage.arrive(&ledger).await;
        stage::check(scenario, &applied, &ledger.balance(), &mut self.report);
        Ok((ledger, applied))
    }

    /// 200 and 1,000 events a second, against the same without a server.
    pub(super) async fn latency(&mut self) -> Result<()> {
        const SCENARIO: &str = "latency";
        let cast = Cast { tenants: 1, webhooks: 1, receivers: 1 };
        let stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
        for per_second in [200, 1_000] {
            let (mut raw, mut ours, mut per_flush) = (Vec::new(), Vec::new(), Vec::new());
            for round in 1..=self.rounds {
                self.say(format_args!("{SCENARIO}: {per_second}/s, round {round} of {}", self.rounds));
                raw.push(self.raw_open(per_second, self.length).await?);
                let (ledger, applied) = self.open(SCENARIO, &stage, 0, None, (per_second, self.length)).await?;
                let latency = latencies(&ledger, &applied, per_second, u64::MAX);
                per_flush.push(latency.p50 / flush_p50(&stage, true)?);
                ours.push(latency);
            }
            let of = |from: &[Latency], value: fn(&Latency) -> f64| from.iter().map(value).collect::<Vec<_>>();
            let over: Vec<f64> = ours.iter().zip(&raw).map(|(ours, raw)| ours.p99 - raw.p99).collect();
            let (over_bar, flush_bar) =
                if per_second == 200 { (Bar::below(5.0, 1.5), None) } else { (None, Bar::below(10.0, 3.0)) };
            let report = &mut self.report;
            let name = |what: &str| format!("{per_second}/s: {what}");
            report.add(SCENARIO, name("p99 minus raw p99"), "ms", &over, over_bar);
            report.add(SCENARIO, name("p50 ÷ one flush"), "", &per_flush, flush_bar);
            report.add(SCENARIO, name("end to end p50"), "ms", &of(&ours, |l| l.p50), None);
            report.add(SCENARIO, name("end to end p99"), "ms", &of(&ours, |l| l.p99), None);
            report.add(SCENARIO, name("publish answered, p99"), "ms", &of(&ours, |l| l.answered_p99), None);
            report.add(SCENARIO, name("raw p50"), "ms", &of(&raw, |l| l.p50), None);
            report.add(SCENARIO, name("raw p99"), "ms", &of(&raw, |l| l.p99), None);
        }
        self.report.add("raw", "append 4 KiB and fdatasync, p50", "ms", &[flush_p50(&stage, true)?], None);
        self.report.add("raw", "overwrite 4 KiB and fdatasync, p50", "ms", &[flush_p50(&stage, false)?], None);
        stage.check(SCENARIO, &mut self.report);
        Ok(())
    }

    /// A healthy tenant beside one whose receiver is slow and owed a lot.
    pub(super) async fn noisy(&mut self) -> Result<()> {
        const SCENARIO: &str = "noisy";
        let length = self.length.max(STEADY_LENGTH);
        let cast = Cast { tenants: 2, webhooks: 1, receivers: 2 };
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            self.say(format_args!("{SCENARIO}: round {round} of {}", self.rounds));
            let stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
            let (ledger, applied) = self.open(SCENARIO, &stage, 1, None, (STEADY, length)).await?;
            alone.push(latencies(&ledger, &applied, STEADY, u64::MAX));
            stage.sink.answer_after(0, SLOW_ANSWER);
            let owed = stage.ledger(SLOW_EVENTS);
            let applied = stage.pile_up(0..1, None, &owed).await?;
            if applied.failed > 0 {
                self.report.problem(SCENARIO, "the slow receiver's events were not accepted");
            }
            let (ledger, applied) = self.open(SCENARIO, &stage, 1, None, (STEADY, length)).await?;
            beside.push(latencies(&ledger, &applied, STEADY, u64::MAX));
            stage.check(SCENARIO, &mut self.report);
        }
        let ratios: Vec<f64> = beside.iter().zip(&alone).map(|(with, without)| with.p99 / without.p99).collect();
        let of = |from: &[Latency], value: fn(&Latency) -> f64| from.iter().map(value).collect::<Vec<_>>();
        let report = &mut self.report;
        report.add(SCENARIO, "healthy p99 beside it ÷ alone", "", &ratios, Bar::below(3.0, 1.2));
        report.add(SCENARIO, "healthy p50 alone", "ms", &of(&alone, |l| l.p50), None);
        report.add(SCENARIO, "healthy p99 alone", "ms", &of(&alone, |l| l.p99), None);
        report.add(SCENARIO, "healthy p50 beside it", "ms", &of(&beside, |l| l.p50), None);
        report.add(SCENARIO, "healthy p99 beside it", "ms", &of(&beside, |l| l.p99), None);
        Ok(())
    }

    /// Urgent events of a tenant whose bulk backlog, to the same receiver, is being delivered: first
    /// while that takes its time over each answer, then as fast as the machine can.
    pub(super) async fn urgent(&mut self) -> Result<()> {
        const SCENARIO: &str = "urgent";
        const PHASES: [(&str, Duration); 2] =
            [("receiver takes 20 ms", ORDINARY), ("receiver takes no time", Duration::ZERO)];
        let length = self.length.max(STEADY_LENGTH);
        let cast = Cast { tenants: 1, webhooks: 1, receivers: 1 };
        let mut idle = Vec::new();
        let mut behind = [Vec::new(), Vec::new()];
        for round in 1..=self.rounds {
            self.say(format_args!("{SCENARIO}: round {round} of {}", self.rounds));
            let stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
            let (ledger, applied) = self.open(SCENARIO, &stage, 0, Some("urgent"), (STEADY, length)).await?;
            idle.push(latencies(&ledger, &applied, STEADY, u64::MAX));
            stage.sink.hold();
            let bulk = stage.ledger(self.backlog);
            let piled = stage.pile_up(0..1, Some("bulk"), &bulk).await?;
            for ((_, delay), behind) in PHASES.iter().zip(&mut behind) {
                stage.sink.answer_after(0, *delay);
                let (ledger, applied) = self.open(SCENARIO, &stage, 0, Some("urgent"), (STEADY, length)).await?;
                // Only while there was something to be behind of.
                let until = if bulk.is_complete() { bulk.last_arrival() } else { u64::MAX };
                behind.push(latencies(&ledger, &applied, STEADY, until));
            }
            stage.arrive(&bulk).await;
            stage::check(SCENARIO, &piled, &bulk.balance(), &mut self.report);
            stage.check(SCENARIO, &mut self.report);
        }
        let of = |from: &[Latency], value: fn(&Latency) -> f64| from.iter().map(value).collect::<Vec<_>>();
        let report = &mut self.report;
        report.add(SCENARIO, "p50 idle", "ms", &of(&idle, |l| l.p50), None);
        report.add(SCENARIO, "p99 idle", "ms", &of(&idle, |l| l.p99), None);
        for ((what, _), behind) in PHASES.iter().zip(&behind) {
            let ratios: Vec<f64> = behind.iter().zip(&idle).map(|(with, without)| with.p99 / without.p99).collect();
            let name = |figure: &str| format!("{what}: {figure}");
            report.add(SCENARIO, name("p99 behind bulk ÷ idle"), "", &ratios, Bar::below(5.0, 2.0));
            report.add(SCENARIO, name("p50 behind bulk"), "ms", &of(behind, |l| l.p50), None);
            report.add(SCENARIO, name("p99 behind bulk"), "ms", &of(behind, |l| l.p99), None);
            report.add(SCENARIO, name("max behind bulk"), "ms", &of(behind, |l| l.max), None);
        }
        Ok(())
    }
}
