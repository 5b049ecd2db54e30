//! What a backlog costs, and what a crash does.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::Run;
use super::load::{Form, Pace};
use super::measure::resident;
use super::report::Bar;
use super::stage::{Cast, Stage};

/// How long a server gets to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(2);
/// How long the load goes on before the server is killed.
const BEFORE_KILL: Duration = Duration::from_secs(2);
const PUBLISHERS: usize = 64;
const MIB: f64 = (1 << 20) as f64;

impl Run {
    /// Memory and the time to start with nothing, and with each number of pending events.
    pub(super) async fn memory(&mut self) -> Result<()> {
        const SCENARIO: &str = "memory";
        let cast = Cast { tenants: 10, webhooks: 1, receivers: 10 };
        for pending in self.pending.clone() {
            self.say(format_args!("{SCENARIO}: {pending} pending"));
            let mut stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
            let started = stage.server.ready_after.as_secs_f64() * 1e3;
            stage.sink.hold();
            let ledger = stage.ledger(pending);
            if pending > 0 {
                let applied = stage.pile_up(0..cast.tenants, None, &ledger).await?;
                if applied.failed > 0 {
                    self.report.problem(SCENARIO, format_args!("{} requests failed", applied.failed));
                }
            }
            tokio::time::sleep(REST).await;
            let filled = resident(stage.server.pid());
            stage.restart(&self.program).await?;
            let restarted = stage.server.ready_after.as_secs_f64() * 1e3;
            tokio::time::sleep(REST).await;
            let after = resident(stage.server.pid());
            stage.sink.release();
            let began = Instant::now();
            stage.arrive(&ledger).await;
            let drained = began.elapsed().as_secs_f64();
            let most = resident(stage.server.pid());
            let balance = ledger.balance();
            if balance.missing > 0 {
                self.report.problem(SCENARIO, format_args!("{} accepted events did not arrive", balance.missing));
            }
            stage.check(SCENARIO, &mut self.report);
            let (bar, start_bar) =
                if pending == 0 { (None, None) } else { (Bar::below(300.0, 150.0), Bar::below(5.0, 1.0)) };
            let mib = |bytes: Option<u64>| bytes.map_or(f64::NAN, |bytes| bytes as f64 / MIB);
            let report = &mut self.report;
            let name = |figure: &str| format!("{pending} pending: {figure}");
            report.add(SCENARIO, name("resident"), "MiB", &[mib(filled.map(|r| r.0))], bar);
            if pending == 0 {
                report.add(SCENARIO, name("start to ready, new folder"), "ms", &[started], None);
            }
            report.add(SCENARIO, name("kill -9, start to ready"), "s", &[restarted / 1e3], start_bar);
            report.add(SCENARIO, name("resident after the start"), "MiB", &[mib(after.map(|r| r.0))], bar);
            if pending > 0 {
                report.add(SCENARIO, name("most resident while publishing"), "MiB", &[mib(filled.map(|r| r.1))], bar);
                report.add(SCENARIO, name("most resident while draining"), "MiB", &[mib(most.map(|r| r.1))], bar);
                report.add(SCENARIO, name("drained in"), "s", &[drained], None);
            }
        }
        Ok(())
    }

    /// `kill -9` under load, and a restart.
    pub(super) async fn kill(&mut self) -> Result<()> {
        const SCENARIO: &str = "kill";
        let cast = Cast { tenants: 10, webhooks: 1, receivers: 10 };
        let (mut lost, mut ready, mut whole, mut duplicates, mut owed) = (vec![], vec![], vec![], vec![], vec![]);
        for round in 1..=self.rounds {
            self.say(format_args!("{SCENARIO}: round {round} of {}", self.rounds));
            let mut stage = Stage::set(&self.program, self.dir.as_ref(), cast, self.watch).await?;
            let ledger = stage.ledger(500_000);
            // Longer than it is let live: it ends because nobody answers any more.
            let pace = Pace::Closed(BEFORE_KILL * 10);
            let form = Form::Event { urgency: None };
            let load = stage.load(0..cast.tenants, form, pace, PUBLISHERS, &ledger)?;
            let applying = tokio::spawn(load.apply(self.watch));
            tokio::time::sleep(BEFORE_KILL).await;
            stage.server.kill()?;
            let applied = applying.await??;
            let before = ledger.balance();
            owed.push(before.missing as f64);
            let began = stage.restart(&self.program).await?;
            ready.push(stage.server.ready_after.as_secs_f64());
            let arrived = stage.arrive(&ledger).await;
            let balance = ledger.balance();
            lost.push(balance.missing as f64);
            let seconds = if before.missing == 0 {
                stage.server.ready_after.as_secs_f64()
            } else {
                ledger.last_arrival().saturating_sub(began) as f64 / 1e9
            };
            whole.push(if arrived { seconds } else { f64::INFINITY });
            // What comes twice comes soon.
            stage.quiet().await?;
            duplicates.push(ledger.balance().duplicates as f64);
            if balance.missing > 0 {
                self.report.problem(
                    SCENARIO,
                    format_args!("{} of {} accepted events were lost", balance.missing, balance.accepted),
                );
            }
            if applied.answered == 0 {
                self.report.problem(SCENARIO, "nothing was accepted before the kill");
            }
            stage.check(SCENARIO, &mut self.report);
        }
        let report = &mut self.report;
        report.add(SCENARIO, "accepted and lost", "", &lost, Bar::below(0.0, 0.0));
        report.add(SCENARIO, "restart until all accepted arrived", "s", &whole, Bar::below(5.0, 1.0));
        report.add(SCENARIO, "restart until ready", "s", &ready, None);
        report.add(SCENARIO, "accepted and not yet arrived at the kill", "", &owed, None);
        report.add(SCENARIO, "duplicates", "", &duplicates, None);
        Ok(())
    }
}
