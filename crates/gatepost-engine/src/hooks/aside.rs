//! Costly steps of a decision: large answers and large questions are worked on beside the lane, in their
//! tenant's turn (P5). The lane only passes them on.

use std::time::Duration;

use gatepost_core::TenantKey;
use gatepost_core::hooks::chain::{Call, Chain, Outcome, Report, Settled};
use gatepost_core::hooks::failure::{Failure, FailureClass};
use gatepost_core::hooks::observe::Trial;
use tokio::time::{Instant, timeout_at};

use super::Hooks;
use super::drive::Drive;
use crate::engine::Engine;
use crate::ops::filter_turns::Turn;

/// Bytes of an answer that are worked on in a millisecond, at the least.
const BYTES_PER_MS: usize = 16 << 10;
/// How long the work of a trial waits for its turn: nobody waits for it.
const TRIAL_PATIENCE: Duration = Duration::from_secs(30);

/// Runs `work` on a thread where it holds nobody else up; the turn ends with it.
async fn beside<T: Send + 'static>(turn: Option<Turn>, work: impl FnOnce() -> T + Send + 'static) -> T {
    let working = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    match working.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and whoever waits here with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

impl Hooks {
    /// Runs `work` in the tenant's turn. Gives it back when that does not come until then.
    async fn aside<T, F>(&self, tenant: TenantKey, until: Instant, work: F) -> Result<T, F>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match timeout_at(until, self.turns.take(tenant)).await {
            Ok(turn) => Ok(beside(Some(turn), work).await),
            Err(_) => Err(work),
        }
    }

    /// Runs `work` here if it costs little, else aside; without a turn in time beside the lane all the same.
    pub(super) async fn conclude<T, F>(&self, drive: &Drive, work: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if !drive.chain().is_costly_to_finish() {
            return work();
        }
        match self.aside(drive.snapshot.tenant.key, drive.until(), work).await {
            Ok(done) => done,
            Err(work) => beside(None, work).await,
        }
    }
}

impl Drive {
    /// Something to be done with the chain, wherever it is done.
    fn with_chain<T, W: FnOnce(&mut Chain, Duration) -> T>(&self, work: W) -> impl FnOnce() -> T + use<T, W> {
        let (chain, began) = (std::sync::Arc::clone(&self.chain), self.began);
        move || work(&mut super::drive::lock(&chain), began.elapsed())
    }
}

impl Engine {
    /// The calls to be made now.
    pub(super) async fn ready(&self, drive: &Drive) -> Vec<Call> {
        let go_on = drive.with_chain(Chain::ready);
        if !drive.chain().is_costly_to_go_on() {
            return go_on();
        }
        match self.inner.hooks.aside(drive.snapshot.tenant.key, drive.until(), go_on).await {
            Ok(calls) => calls,
            // There is no time left for anybody.
            Err(_) => drive.chain().ready(Duration::MAX),
        }
    }

    /// Takes a call's result.
    pub(super) async fn settle(&self, drive: &Drive, slot: usize, report: Report) -> Settled {
        let now = self.now();
        if !drive.chain().is_costly_to_settle(slot, &report) {
            return drive.chain().settle(slot, report, now);
        }
        let bytes = match &report.outcome {
            Outcome::Answered(answer) => answer.body.len(),
            Outcome::Failed(_) => 0,
        };
        let needs = Duration::from_millis((bytes / BYTES_PER_MS) as u64);
        let failed = |class, why: &str| Report { outcome: Outcome::Failed(Failure::new(class, why)), ..report.clone() };
        if drive.chain().remaining(drive.began.elapsed()) < needs {
            let late = failed(FailureClass::Timeout, "its answer came too late to be worked on");
            return drive.chain().settle(slot, late, now);
        }
        let unheard = failed(FailureClass::Budget, "there was no time left to work on its answer");
        let settle = drive.with_chain(move |chain, _| chain.settle(slot, report, now));
        match self.inner.hooks.aside(drive.snapshot.tenant.key, drive.until(), settle).await {
            Ok(settled) => settled,
            Err(_) => drive.chain().settle(slot, unheard, now),
        }
    }

    /// The hooks on trial, with the calls to be made.
    pub(super) async fn trials(&self, drive: &Drive) -> Vec<(Trial, Call)> {
        if !drive.chain().has_observers() {
            return Vec::new();
        }
        let begin = drive.with_chain(|chain, _| {
            let begun = |mut trial: Trial| Some((trial.call()?, trial));
            let begun = chain.observers().into_iter().filter_map(begun);
            begun.map(|(call, trial)| (trial, call)).collect::<Vec<_>>()
        });
        if !drive.chain().is_costly_to_finish() {
            return begin();
        }
        let until = Instant::now() + TRIAL_PATIENCE;
        self.inner.hooks.aside(drive.snapshot.tenant.key, until, begin).await.unwrap_or_default()
    }

    /// What a trial came to; `None`: its turn did not come.
    pub(super) async fn judge_trial(
        &self,
        tenant: TenantKey,
        trial: Trial,
        slot: usize,
        report: Report,
    ) -> Option<gatepost_core::hooks::observe::Observed> {
        let now = self.now();
        if !trial.is_costly(slot, &report) {
            return Some(trial.judge(slot, report, now));
        }
        let until = Instant::now() + TRIAL_PATIENCE;
        self.inner.hooks.aside(tenant, until, move || trial.judge(slot, report, now)).await.ok()
    }
}
