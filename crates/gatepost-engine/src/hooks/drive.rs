//! The chain on the lane: questions out, answers in, until it is decided or time is up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gatepost_core::TenantId;
use gatepost_core::hooks::budget::Budget;
use gatepost_core::hooks::chain::{Call, Chain, Outcome, Report};
use gatepost_core::hooks::decision::Decision;
use gatepost_core::hooks::failure::FailureClass;
use gatepost_core::trace::TraceContext;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::trace_below;
use super::snapshot::{Asked, TenantHooks};
use crate::engine::Engine;

/// Of the time that is kept back for writing the answer, what a call's last word may take.
const GRACE: Duration = Duration::from_millis(2);

/// A question being decided.
pub(super) struct Drive {
    pub(super) snapshot: Arc<TenantHooks>,
    pub(super) chain: Chain,
    pub(super) budget: Budget,
    pub(super) began: Instant,
    pub(super) trace: Option<TraceContext>,
    /// Says that nobody waits for the answer any more.
    pub(super) gone: CancellationToken,
}

/// How it ended.
pub(super) struct Decided {
    pub(super) decision: Decision,
    /// A receiver repeated a secret: what it led to must not be kept.
    pub(super) repeats_secret: bool,
    /// The caller went away before.
    pub(super) abandoned: bool,
}

/// A call's result: its slot, what came of it, and whether our own means failed.
type Done = (usize, Arc<Asked>, Report, bool);

impl Engine {
    /// Drives the chain to its decision. Ends within the budget, whatever receivers do (P9).
    pub(super) async fn drive(&self, drive: &mut Drive) -> Decided {
        let mut under_way: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        // A moment after the last call's own limit, so that its timeout is told as the receiver's.
        let deadline = tokio::time::sleep_until(drive.began + drive.budget.deadline() + GRACE);
        tokio::pin!(deadline);
        let (mut repeats_secret, mut abandoned) = (false, false);
        loop {
            for call in drive.chain.ready(drive.began.elapsed()) {
                match self.begin(drive, call) {
                    Ok(calling) => under_way.push(calling),
                    Err((slot, class)) => self.settle_unasked(drive, slot, class),
                }
            }
            if drive.chain.is_done() {
                break;
            }
            if under_way.is_empty() {
                // What was settled without asking may have made room for more.
                continue;
            }
            tokio::select! {
                biased;
                Some((slot, asked, report, local_fault)) = under_way.next() => {
                    let settled = drive.chain.settle(slot, report, self.now());
                    repeats_secret |= settled.repeats_secret;
                    if let Some(event) = settled.breaker.filter(|_| !local_fault) {
                        self.note_breaker(&drive.snapshot.tenant.id, &asked, event);
                    }
                    if settled.cut {
                        under_way.clear();
                    }
                }
                () = drive.gone.cancelled() => {
                    drive.chain.abandon();
                    abandoned = true;
                }
                () = &mut deadline => break,
            }
        }
        // Whoever was still being waited for is not any more.
        drop(under_way);
        let decision = drive.chain.finish(drive.began.elapsed());
        Decided { decision, repeats_secret, abandoned }
    }

    fn begin(&self, drive: &Drive, call: Call) -> Result<BoxFuture<'static, Done>, (usize, FailureClass)> {
        let slot = call.slot;
        let asked = drive.snapshot.asked.get(&call.hook.id).ok_or((slot, FailureClass::Connect))?;
        if !self.admits(asked) {
            return Err((slot, FailureClass::CircuitOpen));
        }
        let now_s = self.inner.hooks.monotonic().as_secs();
        let place = asked.state.slot(now_s).ok_or((slot, FailureClass::Budget))?;
        let (engine, asked, began) = (self.clone(), Arc::clone(asked), drive.began);
        let trace = trace_below(drive.trace, &*self.inner.entropy);
        Ok(Box::pin(async move {
            let clock = &*engine.inner.clock;
            let (report, local_fault) = engine.inner.hooks.put_call(&asked, &call, clock, trace, began).await;
            drop(place);
            (call.slot, asked, report, local_fault)
        }))
    }

    fn settle_unasked(&self, drive: &mut Drive, slot: usize, class: FailureClass) {
        let now = drive.began.elapsed();
        let outcome = Outcome::Failed(class.into());
        let report = Report { outcome, started: now, ended: now, conn: None, attempts: 0 };
        drive.chain.settle(slot, report, self.now());
    }

    /// Asks the hooks on trial, after the answer. Their answers are kept and change nothing.
    pub(super) fn begin_trials(
        &self,
        snapshot: &Arc<TenantHooks>,
        chain: &Chain,
        trace: Option<TraceContext>,
        id: gatepost_core::InvocationId,
    ) {
        for mut trial in chain.observers() {
            let Some(asked) = snapshot.asked.get(&trial.hook().id).cloned() else { continue };
            let Some(place) = self.trial_place() else {
                self.inner.metrics.hooks.trial("left_out");
                continue;
            };
            let Some(call) = trial.call() else { continue };
            let tenant: TenantId = snapshot.tenant.id.clone();
            let (engine, key, trace) = (self.clone(), snapshot.tenant.key, trace_below(trace, &*self.inner.entropy));
            self.inner.hooks.on_lane(async move {
                let slot = call.slot;
                let report = engine.ask_on_trial(&tenant, &asked, &call, trace).await;
                let observed = trial.judge(slot, report, engine.now());
                if let Some(event) = observed.breaker.filter(|_| observed.row.attempts > 0) {
                    engine.note_breaker(&tenant, &asked, event);
                }
                engine.keep_trial(key, id, &asked, observed);
                drop(place);
            });
        }
    }

    async fn ask_on_trial(&self, _tenant: &TenantId, asked: &Arc<Asked>, call: &Call, trace: TraceContext) -> Report {
        let unasked = |class: FailureClass| Report {
            outcome: Outcome::Failed(class.into()),
            started: Duration::ZERO,
            ended: Duration::ZERO,
            conn: None,
            attempts: 0,
        };
        if !self.admits(asked) {
            return unasked(FailureClass::CircuitOpen);
        }
        let Some(_place) = asked.state.slot(self.inner.hooks.monotonic().as_secs()) else {
            return unasked(FailureClass::Budget);
        };
        self.inner.hooks.put_call(asked, call, &*self.inner.clock, trace, Instant::now()).await.0
    }
}
