//! Hooks on trial: asked beside the decision, compared, never counted.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::breaker::BreakerEvent;
use super::chain::{Call, Chain, Outcome, Report};
use super::decision::HookRow;
use super::json::Value;
use super::plan::PlannedHook;
use crate::Timestamp;

/// What a hook on trial would have done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Deny,
    /// Let it pass, changed.
    Change,
    /// Give a value, or a yes or no.
    Value,
    /// Fail; its policy would have refused.
    FailClosed,
    /// Fail; its policy would have let it pass.
    FailOpen,
}

/// A hook's trial on one invocation.
#[derive(Clone, PartialEq, Debug)]
pub struct Observed {
    /// What it would have done.
    pub would: Would,
    /// Its row, as it would have stood in the decision.
    pub row: HookRow,
    /// What its breaker is told.
    pub breaker: Option<BreakerEvent>,
}

impl Observed {
    /// Whether the invocation would have been refused for it.
    pub fn would_deny(&self) -> bool {
        matches!(self.would, Would::Deny | Would::FailClosed)
    }
}

impl Chain {
    /// The hooks on trial, for calls after (or beside) the decision. Their answers go to
    /// [`Trial::judge`]; they share nothing with the invocation's own calls, its budget included.
    pub fn observers(&self) -> Vec<Trial> {
        self.trials().into_iter().map(|(chain, hook)| Trial { chain, hook }).collect()
    }
}

/// One hook on trial: a chain of its own, in which it counts.
pub struct Trial {
    chain: Chain,
    hook: Arc<PlannedHook>,
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trial({})", self.hook.id)
    }
}

impl Trial {
    /// Whose trial it is.
    pub fn hook(&self) -> &Arc<PlannedHook> {
        &self.hook
    }

    /// The call to be made; `None` when the hook is passed over (condition, dry run), or has been
    /// asked. For a value it is the first attribute that is asked.
    pub fn call(&mut self) -> Option<Call> {
        self.chain.ready(Duration::ZERO).into_iter().next()
    }

    /// Whether [`Trial::judge`] is work for another thread than one that everybody waits for.
    pub fn is_costly(&self, slot: usize, report: &Report) -> bool {
        self.chain.is_costly_to_settle(slot, report) || self.chain.is_costly_to_finish()
    }

    /// What the hook would have done.
    pub fn judge(mut self, slot: usize, report: Report, now: Timestamp) -> Observed {
        let ended = report.ended;
        let failed = matches!(report.outcome, Outcome::Failed(_));
        let settled = self.chain.settle(slot, report, now);
        let changed = !failed && self.chain.has_changed();
        let decision = self.chain.finish(ended);
        let row = decision.hooks.into_iter().next();
        let denied = decision.decision == super::decision::Verdict::Deny;
        let failure = row.as_ref().is_some_and(|row| row.failure.is_some());
        let would = match (failure, denied) {
            (true, true) => Would::FailClosed,
            (true, false) => Would::FailOpen,
            (false, true) => Would::Deny,
            (false, false) if changed => Would::Change,
            (false, false) if decision.value != Value::Null => Would::Value,
            (false, false) => Would::Allow,
        };
        let row = row.unwrap_or_else(|| super::chain::blank_row(&self.hook));
        Observed { would, row, breaker: settled.breaker }
    }
}
