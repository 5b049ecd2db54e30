//! What is measured about hooks. Labels have few values: a tenant's own points are all `custom`.

use std::sync::Arc;

use gatepost_core::hooks::decision::{Cause, Decision, HookResult};
use gatepost_core::hooks::failure::FailureClass;
use gatepost_core::hooks::points;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::Engine;

/// Upper bounds of what Gatepost adds to an invocation, in seconds.
const ADDED: [f64; 12] = [0.000_1, 0.000_2, 0.000_4, 0.000_7, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];
/// Upper bounds of whole invocations, in seconds.
const WHOLE: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 30.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecisionLabel {
    point: &'static str,
    decision: &'static str,
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WordLabel {
    result: &'static str,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct HookMetrics {
    invocations: Family<DecisionLabel, Counter>,
    failures: Family<ClassLabel, Counter>,
    trials: Family<WordLabel, Counter>,
    circuits: Family<WordLabel, Counter>,
    outcomes: Family<WordLabel, Counter>,
    secrets: Family<WordLabel, Counter>,
    records_dropped: Counter,
    under_way: Gauge,
    waiting: Gauge,
    added: Histogram,
    whole: Histogram,
}

impl Default for HookMetrics {
    fn default() -> Self {
        HookMetrics {
            invocations: Family::default(),
            failures: Family::default(),
            trials: Family::default(),
            circuits: Family::default(),
            outcomes: Family::default(),
            secrets: Family::default(),
            records_dropped: Counter::default(),
            under_way: Gauge::default(),
            waiting: Gauge::default(),
            added: Histogram::new(ADDED),
            whole: Histogram::new(WHOLE),
        }
    }
}

impl HookMetrics {
    /// Makes them part of the server's.
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("hook_invocations", "Invocations answered, by point, decision and cause", self.invocations.clone());
        r.register("hook_failures", "Calls of hooks that failed, by class", self.failures.clone());
        r.register("hook_trials", "Hooks asked on trial, by what they would have done", self.trials.clone());
        r.register("hook_circuits", "Breakers that opened and closed", self.circuits.clone());
        r.register("hook_outcomes", "What platforms did after decisions", self.outcomes.clone());
        r.register("hook_kept_secrets", "Further tries of secret notifications", self.secrets.clone());
        r.register("hook_records_dropped", "Records of invocations that were lost", self.records_dropped.clone());
        r.register("hook_invocations_under_way", "Invocations under way", self.under_way.clone());
        let waiting = "Invocations that wait for a receiver's place, of those under way";
        r.register("hook_invocations_waiting", waiting, self.waiting.clone());
        let added = "What Gatepost added to the time receivers took";
        r.register_with_unit("hook_added", added, Unit::Seconds, self.added.clone());
        r.register_with_unit("hook_invocation", "How long invocations took", Unit::Seconds, self.whole.clone());
    }

    /// Everything that is counted is there from the start.
    pub(crate) fn begin(&self) {
        for class in FailureClass::ALL {
            drop(self.failures.get_or_create(&ClassLabel { class: class.as_str() }));
        }
        let words = |family: &Family<WordLabel, Counter>, words: &[&'static str]| {
            for result in words {
                drop(family.get_or_create(&WordLabel { result }));
            }
        };
        words(&self.trials, &["allow", "deny", "change", "value", "fail_closed", "fail_open", "left_out"]);
        words(&self.circuits, &["opened", "closed"]);
        words(&self.outcomes, &["committed", "aborted", "unknown"]);
        words(&self.secrets, &["delivered", "failed", "expired"]);
        // Of points, those that say why an alert is due: a failure, and nobody there.
        let points = points::builtins().iter().map(|point| point.name.as_str()).chain(["custom"]);
        for point in points {
            for cause in [Cause::Receiver, Cause::PolicyOnFailure, Cause::CircuitOpen, Cause::BudgetExhausted] {
                for decision in ["allow", "deny"] {
                    drop(self.invocations.get_or_create(&DecisionLabel { point, decision, cause: cause.as_str() }));
                }
            }
        }
    }

    pub(super) fn failure(&self, class: FailureClass) {
        self.failures.get_or_create(&ClassLabel { class: class.as_str() }).inc();
    }

    pub(super) fn trial(&self, result: &'static str) {
        self.trials.get_or_create(&WordLabel { result }).inc();
    }

    pub(super) fn circuit(&self, result: &'static str) {
        self.circuits.get_or_create(&WordLabel { result }).inc();
    }

    pub(super) fn outcome(&self, result: &'static str, count: u64) {
        self.outcomes.get_or_create(&WordLabel { result }).inc_by(count);
    }

    pub(super) fn secret(&self, result: &'static str) {
        self.secrets.get_or_create(&WordLabel { result }).inc();
    }

    pub(super) fn record_dropped(&self) {
        self.records_dropped.inc();
    }

    pub(super) fn records_dropped(&self, count: usize) {
        self.records_dropped.inc_by(count as u64);
    }

    pub(super) fn waiting(&self, change: i64) {
        self.waiting.inc_by(change);
    }

    pub(super) fn under_way(&self, change: i64) {
        self.under_way.inc_by(change);
    }
}

fn point_label(name: &str) -> &'static str {
    let operation = points::operations().iter().find(|operation| operation.name == name);
    let point = || points::builtin(name).map(|point| point.name.as_str());
    operation.map(|operation| operation.name.as_str()).or_else(point).unwrap_or("custom")
}

impl Engine {
    /// Counts a decision.
    pub(super) fn count_decision(&self, decision: &Arc<Decision>) {
        let metrics = &self.inner.metrics.hooks;
        let verdict = match decision.decision {
            gatepost_core::hooks::decision::Verdict::Allow => "allow",
            gatepost_core::hooks::decision::Verdict::Deny => "deny",
        };
        let label =
            DecisionLabel { point: point_label(&decision.point), decision: verdict, cause: decision.cause.as_str() };
        metrics.invocations.get_or_create(&label).inc();
        for row in decision.hooks.iter().filter(|row| row.result == HookResult::Failed) {
            row.failure.into_iter().for_each(|class| metrics.failure(class));
        }
        metrics.added.observe(decision.gatepost_us as f64 / 1e6);
        metrics.whole.observe(decision.took_us as f64 / 1e6);
    }
}
