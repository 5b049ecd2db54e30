//! The chain on the lane: questions out, answers in, until it is decided or time is up. A question that
//! finds its receiver's places taken waits for one, within the budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gatepost_core::TenantId;
use gatepost_core::echo::Known;
use gatepost_core::hooks::budget::Budget;
use gatepost_core::hooks::chain::{Call, Chain, Outcome, Report};
use gatepost_core::hooks::failure::FailureClass;
use gatepost_core::secret::Secret;
use gatepost_core::trace::TraceContext;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::call::trace_below;
use super::places::Place;
use super::record::Seen;
use super::snapshot::{Asked, TenantHooks};
use crate::engine::Engine;

/// Of the time that is kept back for writing the answer, what a call's last word may take.
pub(super) const GRACE: Duration = Duration::from_millis(2);

/// A question being decided.
pub(super) struct Drive {
    pub(super) snapshot: Arc<TenantHooks>,
    pub(super) chain: Arc<Mutex<Chain>>,
    pub(super) budget: Budget,
    pub(super) began: Instant,
    pub(super) trace: Option<TraceContext>,
    /// Says that nobody waits for the answer any more.
    pub(super) gone: CancellationToken,
}

/// Plain data: whoever panicked with it, its decision can still be made.
pub(super) fn lock(chain: &Mutex<Chain>) -> MutexGuard<'_, Chain> {
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drive {
    /// The chain, for a moment: it may be worked on elsewhere, in turns.
    pub(super) fn chain(&self) -> MutexGuard<'_, Chain> {
        lock(&self.chain)
    }

    /// When the decision has to be made.
    pub(super) fn until(&self) -> Instant {
        self.began + self.budget.deadline() + GRACE
    }
}

/// How driving it ended.
pub(super) enum Ended {
    /// The decision can be made.
    Decided(Seen),
    /// Nobody was asked: too many of the tenant's questions wait for its receivers.
    Saturated,
}

/// What a call under way comes to.
enum Step {
    /// A place to put it, or none in time.
    Placed(Call, Arc<Asked>, Option<Place>),
    /// Its result, and whether our own means failed.
    Done(usize, Arc<Asked>, Report, bool),
}

/// Calls of one invocation: put, or waiting for a place.
#[derive(Default)]
struct UnderWay {
    steps: FuturesUnordered<BoxFuture<'static, Step>>,
    put: usize,
    waiting: Vec<usize>,
}

impl Engine {
    /// Drives the chain to its decision. Ends within the budget, whatever receivers do (P9).
    pub(super) async fn drive(&self, drive: &Drive, admission: &mut Admission) -> Ended {
        let mut under_way = UnderWay::default();
        // A moment after the last call's own limit, so that its timeout is told as the receiver's.
        let deadline = tokio::time::sleep_until(drive.until());
        tokio::pin!(deadline);
        let (mut repeats_secret, mut abandoned) = (false, false);
        let mut repeated = Vec::new();
        loop {
            for call in self.ready(drive).await {
                self.begin(drive, &mut under_way, call);
            }
            if drive.chain().is_done() {
                break;
            }
            if under_way.put > 0 {
                admission.come_back();
            } else if !under_way.waiting.is_empty() && !admission.step_aside() {
                if drive.chain().asked_nobody() {
                    return Ended::Saturated;
                }
                // Those asked before count: what cannot be asked any more has failed.
                let waiting = std::mem::take(&mut under_way).waiting;
                waiting.into_iter().for_each(|slot| self.settle_unasked(drive, slot, FailureClass::Budget));
            }
            if under_way.steps.is_empty() {
                // What was settled without asking may have made room for more.
                continue;
            }
            tokio::select! {
                biased;
                Some(step) = under_way.steps.next() => match step {
                    Step::Placed(call, asked, place) => {
                        under_way.waiting.retain(|slot| *slot != call.slot);
                        self.placed(drive, &mut under_way, call, asked, place);
                    }
                    Step::Done(slot, asked, report, local_fault) => {
                        under_way.put -= 1;
                        let settled = self.settle(drive, slot, report).await;
                        repeats_secret |= settled.repeats_secret;
                        if settled.repeats_own {
                            repeated.extend(self.repeated(&asked));
                        }
                        if let Some(event) = settled.breaker.filter(|_| !local_fault) {
                            self.note_breaker(&drive.snapshot.tenant.id, &asked, event);
                        }
                        if settled.cut {
                            under_way = UnderWay::default();
                        }
                    }
                },
                () = drive.gone.cancelled() => {
                    drive.chain().abandon(drive.began.elapsed());
                    abandoned = true;
                }
                () = &mut deadline => break,
            }
        }
        // Whoever was still being waited for is not any more.
        drop(under_way);
        Ended::Decided(Seen { repeats_secret, repeated, abandoned })
    }

    /// What a receiver that repeats its secrets may have repeated.
    fn repeated(&self, asked: &Asked) -> [Known; 2] {
        let auth = asked.route.as_ref().ok().and_then(|route| route.auth.as_ref());
        let tokens = self.inner.hooks.door.tokens_of(auth);
        [asked.planned.known.clone(), Known::of_values(tokens.iter().map(Secret::expose))]
    }

    /// Puts a call, or has it wait for a place.
    fn begin(&self, drive: &Drive, under_way: &mut UnderWay, call: Call) {
        let Some(asked) = drive.snapshot.asked.get(&call.hook.id).cloned() else {
            return self.settle_unasked(drive, call.slot, FailureClass::Connect);
        };
        if !self.admits(&asked) {
            return self.settle_unasked(drive, call.slot, FailureClass::CircuitOpen);
        }
        let places = asked.state.places(self.inner.hooks.monotonic().as_secs());
        if let Some(place) = places.try_take() {
            return self.put_at(drive, under_way, call, asked, place);
        }
        drive.chain().queue(call.slot, drive.began.elapsed());
        under_way.waiting.push(call.slot);
        let waiting = tokio::time::timeout(call.patience, places.take());
        under_way.steps.push(Box::pin(async move {
            let place = waiting.await.ok().flatten();
            Step::Placed(call, asked, place)
        }));
    }

    /// A call has waited for its place: things may have changed meanwhile.
    fn placed(&self, drive: &Drive, under_way: &mut UnderWay, call: Call, asked: Arc<Asked>, place: Option<Place>) {
        let slot = call.slot;
        if !self.admits(&asked) {
            return self.settle_unasked(drive, slot, FailureClass::CircuitOpen);
        }
        let waited = drive.chain().waited(slot, drive.began.elapsed());
        match place.and_then(|place| Some((place, call.after(waited)?))) {
            Some((place, call)) => {
                drive.chain().unqueue(slot, drive.began.elapsed());
                self.put_at(drive, under_way, call, asked, place);
            }
            None => self.settle_unasked(drive, slot, FailureClass::Budget),
        }
    }

    fn put_at(&self, drive: &Drive, under_way: &mut UnderWay, call: Call, asked: Arc<Asked>, place: Place) {
        let (engine, began) = (self.clone(), drive.began);
        let trace = trace_below(drive.trace, &*self.inner.entropy);
        under_way.put += 1;
        under_way.steps.push(Box::pin(async move {
            let clock = &*engine.inner.clock;
            let (report, local_fault) = engine.inner.hooks.put_call(&asked, &call, clock, trace, began).await;
            drop(place);
            Step::Done(call.slot, asked, report, local_fault)
        }));
    }

    fn settle_unasked(&self, drive: &Drive, slot: usize, class: FailureClass) {
        let now = drive.began.elapsed();
        let outcome = Outcome::Failed(class.into());
        let report = Report { outcome, started: now, ended: now, conn: None, attempts: 0 };
        drive.chain().settle(slot, report, self.now());
    }

    /// Asks the hooks on trial, after the answer. Their answers are kept and change nothing.
    pub(super) async fn begin_trials(&self, drive: &Drive, id: gatepost_core::InvocationId) {
        for (trial, call) in self.trials(drive).await {
            let snapshot = &drive.snapshot;
            let Some(asked) = snapshot.asked.get(&trial.hook().id).cloned() else { continue };
            let Some(place) = self.trial_place() else {
                self.inner.metrics.hooks.trial("left_out");
                continue;
            };
            let tenant: TenantId = snapshot.tenant.id.clone();
            let trace = trace_below(drive.trace, &*self.inner.entropy);
            let (engine, key) = (self.clone(), snapshot.tenant.key);
            self.inner.hooks.on_lane(async move {
                let slot = call.slot;
                let report = engine.ask_on_trial(&asked, &call, trace).await;
                if let Some(observed) = engine.judge_trial(key, trial, slot, report).await {
                    if let Some(event) = observed.breaker.filter(|_| observed.row.attempts > 0) {
                        engine.note_breaker(&tenant, &asked, event);
                    }
                    engine.keep_trial(key, id, &asked, observed);
                } else {
                    engine.inner.metrics.hooks.trial("left_out");
                }
                drop(place);
            });
        }
    }

    async fn ask_on_trial(&self, asked: &Arc<Asked>, call: &Call, trace: TraceContext) -> Report {
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
        // Nobody waits for a trial, and it waits for nobody.
        let Some(_place) = asked.state.places(self.inner.hooks.monotonic().as_secs()).try_take() else {
            return unasked(FailureClass::Budget);
        };
        self.inner.hooks.put_call(asked, call, &*self.inner.clock, trace, Instant::now()).await.0
    }
}
