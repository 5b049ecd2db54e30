//! What removing old events does to those who publish.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::Run;
use super::latency::{Latency, latencies};
use super::past::{Came, Happened, Past};
use super::report::Bar;
use super::stage::{Cast, Stage};

const SCENARIO: &str = "retention";
/// Events published each second beside it.
const STEADY: u32 = 500;
/// The least time for a percentile of [`STEADY`] to mean something.
const STEADY_LENGTH: Duration = Duration::from_secs(5);
/// After a start, before anything is measured: connections are made, caches are filled.
const SETTLE: Duration = Duration::from_secs(1);
/// When the old events were accepted.
const OLD: (Duration, Duration) = (Duration::from_secs(20 * 86_400), Duration::from_secs(10 * 86_400));
/// Days events are kept: so many that none is old, and so few that all are.
const LONG: u32 = 3_650;
const SHORT: u32 = 1;
/// Longer than a step of the removal takes.
const STEP: Duration = Duration::from_millis(500);
/// Of the old events, so many are owed still to a receiver that does not answer.
const OWED: usize = 50;
/// How long the removal may take in all.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// How often it is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);

impl Run {
    /// An open loop of publishing without and with old events of the same tenant being removed, in turn;
    /// then until all are removed.
    pub(super) async fn retention(&mut self) -> Result<()> {
        let length = self.length.max(STEADY_LENGTH);
        // The second tenant has what is owed, and the receiver that does not answer.
        let cast = Cast { tenants: 2, webhooks: 1, receivers: 2 };
        let mut stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
        let owed = stage.ledger(OWED);
        stage.sink.hold();
        stage.sink.answer_after(0, Duration::ZERO);
        self.age(&mut stage, &owed).await?;
        let (mut without, mut with, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        let mut removed = 0.0;
        for round in 1..=self.rounds {
            self.say(format_args!("{SCENARIO}: round {round} of {}", self.rounds));
            removed += self.keep(&mut stage, LONG).await?;
            tokio::time::sleep(SETTLE).await;
            let (ledger, applied) = self.open(SCENARIO, &stage, 0, None, (STEADY, length)).await?;
            without.push(latencies(&ledger, &applied, STEADY, u64::MAX));

            removed += self.keep(&mut stage, SHORT).await?;
            tokio::time::sleep(SETTLE).await;
            let (before, began) = (removals(&stage).await?, Instant::now());
            let (ledger, applied) = self.open(SCENARIO, &stage, 0, None, (STEADY, length)).await?;
            with.push(latencies(&ledger, &applied, STEADY, u64::MAX));
            let after = removals(&stage).await?;
            rates.push((after - before) / began.elapsed().as_secs_f64());
            if removed + after >= self.rows.old as f64 {
                self.report.problem(SCENARIO, "everything was removed too soon to measure: more --rows");
            }
        }
        let (began, from) = (Instant::now(), removals(&stage).await?);
        while removed + removals(&stage).await? < self.rows.old as f64 && began.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
        }
        let rest = (removals(&stage).await? - from) / began.elapsed().as_secs_f64();
        let all = removed + removals(&stage).await?;
        if all != self.rows.old as f64 {
            self.report.problem(SCENARIO, format_args!("{all} events were removed, {} were old", self.rows.old));
        }
        self.still_owed(&stage).await?;
        self.told(&without, &with, &rates, rest);
        stage.check(SCENARIO, &mut self.report);
        Ok(())
    }

    fn told(&mut self, without: &[Latency], with: &[Latency], rates: &[f64], rest: f64) {
        let of = |from: &[Latency], value: fn(&Latency) -> f64| from.iter().map(value).collect::<Vec<_>>();
        let ratio = |value: fn(&Latency) -> f64| -> Vec<f64> {
            with.iter().zip(without).map(|(with, without)| value(with) / value(without)).collect()
        };
        let report = &mut self.report;
        report.add(
            SCENARIO,
            "publish answered, p99 beside it ÷ without",
            "",
            &ratio(|l| l.answered_p99),
            Bar::below(2.0, 1.2),
        );
        report.add(SCENARIO, "publish answered, p99 without", "ms", &of(without, |l| l.answered_p99), None);
        report.add(SCENARIO, "publish answered, p99 beside it", "ms", &of(with, |l| l.answered_p99), None);
        report.add(SCENARIO, "end to end p99 beside it ÷ without", "", &ratio(|l| l.p99), None);
        report.add(SCENARIO, "end to end p50 without", "ms", &of(without, |l| l.p50), None);
        report.add(SCENARIO, "end to end p50 beside it", "ms", &of(with, |l| l.p50), None);
        report.add(SCENARIO, "end to end p99 without", "ms", &of(without, |l| l.p99), None);
        report.add(SCENARIO, "end to end p99 beside it", "ms", &of(with, |l| l.p99), None);
        report.add(SCENARIO, "events removed beside publishing", "/s", rates, None);
        report.add(SCENARIO, "events removed with nothing else to do", "/s", &[rest], None);
    }

    /// Fills the store with old events of both tenants.
    async fn age(&self, stage: &mut Stage, owed: &super::ledger::Ledger) -> Result<()> {
        stage.server.kill()?;
        let past = Past::open(stage.folder.path()).await?;
        let (receiving, owing) = (past.owner("bench-0").await?, past.owner("bench-1").await?);
        let (all, began) = (self.rows.old + OWED, Instant::now());
        let each = |number: usize| {
            let mut happened = Happened {
                id: None,
                event_type: "bench.event",
                subject: Some(format!("user-{}", number % 10_000)),
                pad: 800,
                to: vec![("receiver 0", if number.is_multiple_of(20) { Came::Late } else { Came::Delivered })],
            };
            if number < OWED {
                let mut id = [0; super::ledger::ID_BYTES];
                owed.write_id(number, &mut id);
                happened.id = Some(String::from_utf8_lossy(&id).into_owned());
                happened.to = vec![("receiver 1", Came::Owed)];
            } else if number.is_multiple_of(2) {
                // Platforms give ids of their own, in no order.
                happened.id = Some(format!("{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            }
            (usize::from(number < OWED), happened)
        };
        past.happen(all, OLD, each, &[receiving, owing], |done| {
            self.say(format_args!("{SCENARIO}: {done} old events after {:.0} s", began.elapsed().as_secs_f64()));
        })
        .await?;
        past.close().await;
        stage.restart(&self.program).await?;
        Ok(())
    }

    /// Events are kept so many days from now on. A server looks at them when it starts, and then every hour.
    /// Answers how many the one before had removed.
    async fn keep(&self, stage: &mut Stage, days: u32) -> Result<f64> {
        let settings = json!({"settings": {"retention": {"events_days": days, "attempts_days": days}}});
        for tenant in 0..2 {
            stage.server.call(Method::PUT, &format!("/v1/tenants/bench-{tenant}"), Some(&settings)).await?;
        }
        // A step under way ends, and is counted.
        tokio::time::sleep(STEP).await;
        let removed = removals(stage).await?;
        stage.restart(&self.program).await?;
        Ok(removed)
    }

    /// What is owed stays, however old.
    async fn still_owed(&mut self, stage: &Stage) -> Result<()> {
        let path = "/v1/tenants/bench-1/deliveries?state=pending&limit=250";
        let list = stage.server.call(Method::GET, path, None).await?;
        let rows = list["data"].as_array().cloned().unwrap_or_default();
        ensure!(list["next_cursor"].is_null(), "the list of what is owed is longer than expected");
        if rows.len() != OWED {
            self.report.problem(SCENARIO, format_args!("{} old events are owed still, not {OWED}", rows.len()));
        }
        self.report.add(SCENARIO, "old events still owed, and kept", "", &[rows.len() as f64], None);
        Ok(())
    }
}

/// Old events this server has removed.
async fn removals(stage: &Stage) -> Result<f64> {
    Ok(stage.server.metrics().await?.of("gatepost_retention_removed_total", r#"what="events""#))
}
