//! Hooks on trial: what they would have done, kept beside the record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gatepost_core::hooks::observe::{Observed, Would};
use gatepost_core::{InvocationId, TenantKey};
use gatepost_store::hooks::{HookCounters, NewTrial, Trial};

use super::TRIALS;
use super::record::was_sent;
use super::snapshot::Asked;
use crate::engine::Engine;

/// A place for a trial under way; given back when dropped.
pub(super) struct TrialPlace(Engine);

impl Drop for TrialPlace {
    fn drop(&mut self) {
        self.0.inner.hooks.trials.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The word a trial is kept under.
pub(super) fn word(would: Would) -> &'static str {
    match would {
        Would::Allow => "allow",
        Would::Deny => "deny",
        Would::Change => "change",
        Would::Value => "value",
        Would::FailClosed => "fail_closed",
        Would::FailOpen => "fail_open",
    }
}

impl Engine {
    pub(super) fn trial_place(&self) -> Option<TrialPlace> {
        let place = TrialPlace(self.clone());
        (self.inner.hooks.trials.fetch_add(1, Ordering::AcqRel) < TRIALS).then_some(place)
    }

    pub(super) fn keep_trial(&self, tenant: TenantKey, id: InvocationId, asked: &Arc<Asked>, observed: Observed) {
        let failed = matches!(observed.would, Would::FailClosed | Would::FailOpen);
        let sent = was_sent(&observed.row);
        let counts = HookCounters {
            observed: u64::from(sent),
            would_deny: u64::from(observed.would_deny()),
            would_change: u64::from(observed.would == Would::Change),
            would_fail: u64::from(failed && sent),
            ..HookCounters::default()
        };
        self.inner.metrics.hooks.trial(word(observed.would));
        if let Some(class) = observed.row.failure {
            self.inner.metrics.hooks.failure(class);
        }
        let trial = Trial { would: word(observed.would).to_owned(), row: observed.row };
        self.inner.hooks.recorder.trial(tenant, NewTrial { invocation: id, hook: asked.planned.id, trial }, counts);
    }
}
