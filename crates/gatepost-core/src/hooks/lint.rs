//! Advice at registration: what is allowed, and will hurt.

use serde::Serialize;
use serde_json::json;

use super::condition::{Condition, ConditionFacts};
use super::failure::FailureClass;
use super::hook::{HookConfig, Mode};
use super::invocation::{Target, from_value};
use super::json::Value;
use super::points::PointDef;

/// One piece of advice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Warning {
    /// For software.
    pub code: &'static str,
    /// The member it is about.
    pub pointer: &'static str,
    /// For people.
    pub message: String,
}

/// What will hurt about `hook` at `point`. `siblings` are the tenant's other hooks there, in the
/// order they are asked, with `hook` itself at `place`.
pub fn lint(hook: &HookConfig, point: &PointDef, siblings: &[&HookConfig], place: usize) -> Vec<Warning> {
    let mut out = Vec::new();
    let mut warn = |code, pointer, message: String| out.push(Warning { code, pointer, message });
    if !hook.is_https() {
        warn("plain_http", "/url", "questions and answers travel unencrypted; use https://".into());
    }
    if hook.required(point) && hook.timeout_ms > 3_000 {
        warn(
            "slow_deny",
            "/timeout_ms",
            "a failure refuses, and it takes more than 3 s to notice one; people will wait that long to be refused"
                .into(),
        );
    }
    if !point.kind.takes_objects() && hook.may_change.as_ref().is_some_and(|places| !places.is_empty()) {
        warn("no_effect", "/may_change", format!("answers change nothing on a point of kind {}", point.kind.as_str()));
    }
    if hook.stop_on_deny && (point.kind != super::points::PointKind::Validate || point.serial) {
        warn("no_effect", "/stop_on_deny", "only validators asked at once can be cut short".into());
    }
    let counted: Vec<_> = siblings
        .iter()
        .enumerate()
        .filter(|(i, sibling)| *i == place || (sibling.enabled && sibling.mode == Mode::Enforce))
        .collect();
    let one_by_one = |h: &HookConfig| {
        use super::points::PointKind::*;
        matches!(point.kind, Mutate | Value) || point.serial || !h.effective_may_change(point).is_nothing()
    };
    let total: u64 = counted.iter().filter(|(_, h)| one_by_one(h)).map(|(_, h)| u64::from(h.timeout_ms)).sum();
    if total > u64::from(point.max_total_ms) && one_by_one(hook) {
        let budget = point.max_total_ms;
        warn(
            "over_budget",
            "/timeout_ms",
            format!("the hooks asked one after another may take {total} ms together, the point allows {budget} ms"),
        );
    }
    let slow = counted.iter().find(|(i, h)| {
        *i < place && one_by_one(h) && !h.required(point) && h.timeout_ms.saturating_add(100) >= point.max_total_ms
    });
    if hook.required(point)
        && let Some((_, slow)) = slow
    {
        warn(
            "required_after_slow",
            "/order",
            format!(
                "the hook {:?} goes first, may fail and may take the whole budget; only min_timeout_ms is kept for this one",
                slow.name
            ),
        );
    }
    if never_matches_sample(hook, point) {
        warn(
            "never_matches",
            "/conditions",
            "the point's sample does not meet the conditions; the hook may never be asked".into(),
        );
    }
    if hook.policy(FailureClass::ConditionError, point) == super::failure::Policy::Continue && hook.conditions.is_some()
    {
        warn("condition_open", "/on_failure", "a condition that cannot be judged lets the hook be passed over".into());
    }
    out
}

fn never_matches_sample(hook: &HookConfig, point: &PointDef) -> bool {
    let Some(Ok(condition)) = hook.conditions.as_ref().map(Condition::compile) else { return false };
    let empty = point.sample.as_object().is_none_or(serde_json::Map::is_empty);
    let Ok(sample) = from_value(point.sample.clone().into(), Target::Point(point)) else { return false };
    let facts = ConditionFacts {
        subject: &json!({"type":"user","id":"sample"}).into(),
        actor: &Value::Null,
        object: &sample.object,
        old_object: &Value::Null,
        context: &sample.context,
    };
    !empty && condition.holds(&facts) == Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::failure::{OnFailure, Policy};
    use crate::hooks::points::builtin;

    fn hook(point: &str) -> HookConfig {
        HookConfig { mode: Mode::Enforce, ..HookConfig::new("h", point, "https://r.example.com/") }
    }

    fn codes(hook: &HookConfig, siblings: &[&HookConfig], place: usize) -> Vec<&'static str> {
        lint(hook, builtin(&hook.point).unwrap(), siblings, place).into_iter().map(|w| w.code).collect()
    }

    #[test]
    fn each_piece_of_advice() {
        let good = hook("validateUser");
        assert_eq!(codes(&good, &[&good], 0), Vec::<&str>::new());
        let plain = HookConfig { url: "http://r.example.com/".into(), ..hook("validateUser") };
        assert_eq!(codes(&plain, &[&plain], 0), ["plain_http"]);
        let slow = HookConfig { timeout_ms: 3_001, ..hook("validateUser") };
        assert_eq!(codes(&slow, &[&slow], 0), ["slow_deny"]);
        let idle = HookConfig {
            may_change: Some(vec!["/user".parse().unwrap()]),
            stop_on_deny: true,
            ..hook("runDeprovision")
        };
        assert_eq!(codes(&idle, &[&idle], 0)[..2], ["no_effect", "no_effect"]);
        let first = HookConfig { timeout_ms: 2_950, ..hook("preCreateUser") };
        let second = HookConfig { on_failure: Some(OnFailure::always(Policy::Deny)), ..hook("preCreateUser") };
        assert_eq!(codes(&second, &[&first, &second], 1), ["over_budget", "required_after_slow"]);
        let off = HookConfig { enabled: false, ..first };
        assert_eq!(codes(&second, &[&off, &second], 1), Vec::<&str>::new());
        let picky =
            HookConfig { conditions: Some(json!({"pointer":"/user/country","eq":"Nepal"})), ..hook("validateUser") };
        assert_eq!(codes(&picky, &[&picky], 0), ["never_matches"]);
        let open =
            HookConfig { conditions: Some(json!({"pointer":"/user/country","eq":"India"})), ..hook("preCreateUser") };
        assert_eq!(codes(&open, &[&open], 0), ["condition_open"]);
    }
}
