//! Blocking hooks: questions whose answer decides (DESIGN 3.3). The rules are
//! [`gatepost_core::hooks`]; the waiting is here.
//!
//! What holds:
//! - **Always an answer (P9).** Between question and decision nothing is asked of the store or of a
//!   resolver on a warm path: hooks and points are in memory ([`snapshot`]), routes are prepared,
//!   connections are kept. Whatever receivers do, the decision is made within the budget.
//! - **An own lane (P5).** Receivers are called on a thread and over connections of their own: bulk
//!   deliveries do not delay an invocation, nor invocations a delivery.
//! - **Costly work elsewhere (P5).** Large questions and answers are worked on beside the lane, in their
//!   tenant's turn ([`aside`]).
//! - **Waiting is bounded.** Who finds a receiver's places taken waits within its budget, counted apart
//!   from questions under way and per tenant ([`admission`]); more than that are told at once.
//! - **Out of reach.** Nothing but an invocation asks a hook: managing Gatepost never does.
//! - **Secrets (P7)** are in memory for the time of one invocation. Records, caches and logs hold
//!   decisions, which have none.
//!
//! An invocation goes through [`ask`] (read, admit, wait), [`drive`] (the chain on the lane) and
//! [`call`] (one receiver); after its answer through [`record`] and [`observe`].

mod admission;
mod aside;
mod ask;
mod breaker;
mod call;
mod drive;
mod kept;
mod lane;
mod manage;
mod metrics;
mod observe;
mod outcome;
mod places;
mod points;
mod preview;
mod probe;
mod record;
mod repeat;
mod snapshot;
#[cfg(test)]
mod tests;
mod view;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gatepost_core::Clock;
use gatepost_core::hooks::hook::limits;
use tokio::time::Instant;

pub use ask::{Ask, AskError, AskTarget, Told};
pub(crate) use lane::{HookLane, Recording};
pub use manage::HookSecret;
pub(crate) use metrics::HookMetrics;
pub use outcome::OutcomeView;
pub use preview::HookPreview;
pub use probe::{Shown, TriedAsking, TryInput, TryResult};
pub use view::{HookView, InvocationView, PointView};

use crate::endpoint_auth::EndpointAuth;
use crate::engine::Limits;
use crate::metrics::Metrics;
use crate::ops::filter_turns::FilterTurns;
use crate::transport::Transport;

/// Places for invocations under way at once, all tenants together, and as many again for those that wait
/// for a receiver (P10). An ordinary question takes one, one that holds more takes as many as it weighs.
/// More are told 429.
const ADMITTED: usize = 4_096;
/// The same of one tenant, so that none can shut the others out (P5).
const ADMITTED_OF_TENANT: usize = 1_024;
/// Trials under way at once; more are left out.
const TRIALS: usize = 1_024;

/// Everything about hooks that an engine holds.
pub(crate) struct Hooks {
    /// The server's kill switch.
    bypass: AtomicBool,
    snapshots: snapshot::Snapshots,
    /// The lane's own way out: its connections live on its runtime.
    door: EndpointAuth,
    lane: OnceLock<tokio::runtime::Handle>,
    recorder: record::Recorder,
    repeats: repeat::Repeats,
    held: admission::Held,
    /// Whose costly answers are worked on.
    turns: Arc<FilterTurns>,
    trials: AtomicUsize,
    /// Breakers' times are counted from here.
    began: Instant,
    /// Connections are wanted at once.
    warm_now: tokio::sync::Notify,
    /// Bytes a place stands for.
    place_bytes: usize,
}

impl Hooks {
    /// With nothing known and nothing started.
    pub(crate) fn new(
        transport: &Arc<dyn Transport>,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
        bounds: &Limits,
    ) -> Self {
        // One byte more than an answer may have, to tell that there was more.
        let own = transport.for_hooks(limits::ANSWER_MAX + 1).unwrap_or_else(|| Arc::clone(transport));
        Hooks {
            bypass: AtomicBool::new(false),
            snapshots: snapshot::Snapshots::default(),
            door: EndpointAuth::new(own, Arc::clone(clock), Arc::clone(metrics)),
            lane: OnceLock::new(),
            recorder: record::Recorder::new(Arc::clone(metrics), bounds.hook_record_bytes),
            repeats: repeat::Repeats::new(bounds.hook_known_bytes),
            held: admission::Held::default(),
            turns: Arc::default(),
            trials: AtomicUsize::new(0),
            began: Instant::now(),
            warm_now: tokio::sync::Notify::new(),
            place_bytes: (bounds.hook_question_bytes / (2 * ADMITTED)).max(1),
        }
    }

    /// The time breakers count in.
    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }

    /// Runs something on the lane, or, in an engine that was only assembled, here.
    fn on_lane<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self.lane.get() {
            Some(lane) => lane.spawn(work),
            None => tokio::spawn(work),
        }
    }
}

impl crate::engine::Engine {
    /// The server's kill switch: with `true` nobody is asked, and every invocation allows, with cause
    /// `hooks_disabled`. Holds for the next invocation.
    pub fn bypass_hooks(&self, bypass: bool) {
        let before = self.inner.hooks.bypass.swap(bypass, Ordering::AcqRel);
        if before != bypass {
            let switch = if bypass { "bypass" } else { "on" };
            tracing::warn!(switch, "blocking hooks of the whole server are switched");
        }
    }
}
