//! Hooks, points and invocations, as they are answered.

use gatepost_core::hooks::breaker::BreakerState;
use gatepost_core::hooks::decision::{Decision, Degraded, HookRow, Message};
use gatepost_core::hooks::json;
use gatepost_core::hooks::lint::Warning;
use gatepost_core::hooks::outcome::UNKNOWN_AFTER;
use gatepost_core::{HookId, InvocationId, Timestamp};
use gatepost_engine::hooks::{HookView, InvocationView, PointView, Shown, TryResult};
use gatepost_engine::store::hooks::{HookCounters, HookTest, OutcomeState};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A hook.
#[derive(Serialize)]
pub(crate) struct ShowHook<'a> {
    id: HookId,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
    verified: bool,
    verified_at: Option<Timestamp>,
    circuit: BreakerState,
    warnings: &'a [Warning],
    last_test: Option<&'a HookTest>,
    counters: HookCounters,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
}

impl<'a> ShowHook<'a> {
    /// With its secret, if this is the one time it is shown.
    pub(crate) fn new(view: &'a HookView, secret: Option<&'a str>) -> Self {
        let hook = &view.hook;
        ShowHook {
            id: hook.id,
            members: &view.members,
            verified: hook.verified_at.is_some(),
            verified_at: hook.verified_at,
            circuit: view.circuit,
            warnings: &view.warnings,
            last_test: hook.last_test.as_ref(),
            counters: hook.counters,
            created_at: hook.created_at,
            updated_at: hook.updated_at,
            secret,
        }
    }
}

/// What a try came to.
#[derive(Serialize)]
pub(crate) struct ShowTry<'a> {
    passed: bool,
    verified: bool,
    test: &'a HookTest,
    request: Value,
    response: Value,
    asked: Option<ShowTried<'a>>,
}

#[derive(Serialize)]
struct ShowTried<'a> {
    decision: &'a Decision,
    request: Value,
    response: Value,
}

/// What a try came to.
pub(crate) fn show_try(result: &TryResult) -> ShowTry<'_> {
    let (request, response) = exchange(&result.exchange);
    let asked = result.asked.as_ref().map(|asked| {
        let (request, response) = exchange(&asked.exchange);
        ShowTried { decision: &asked.decision, request, response }
    });
    ShowTry {
        passed: result.test.passed,
        verified: result.hook.hook.verified_at.is_some(),
        test: &result.test,
        request,
        response,
        asked,
    }
}

fn exchange(shown: &Shown) -> (Value, Value) {
    let headers = |headers: &[(String, String)]| -> Value {
        headers.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect::<Map<_, _>>().into()
    };
    let request = json!({
        "url": shown.url, "headers": headers(&shown.headers), "body": shown.body, "signed": shown.signed,
    });
    let response = shown.response.as_ref().map(|response| {
        json!({
            "headers": headers(&response.headers),
            "body": String::from_utf8_lossy(&response.body),
            "truncated": response.truncated,
        })
    });
    (request, response.unwrap_or_default())
}

/// A point.
pub(crate) fn show_point(view: &PointView) -> Value {
    let (point, settings) = (&view.point, &view.settings);
    json!({
        "name": point.name,
        "kind": point.kind,
        "description": point.description,
        "builtin": point.builtin,
        "enabled": settings.enabled,
        "max_total_ms": settings.max_total_ms.unwrap_or(point.max_total_ms),
        "audit": settings.audit,
        "capture": settings.capture,
        "redact": settings.redact,
        "on_failure": point.policy(),
        "secret_pointers": point.secret_pointers,
        "object_members": point.object_members,
        "path": point.receiver_path(),
        "serial": point.serial,
        "acknowledges": point.acknowledges,
        "event": point.event,
        "schema": point.schema,
        "sample": point.sample,
        "hooks": view.hooks,
    })
}

/// An invocation.
#[derive(Serialize)]
pub(crate) struct ShowInvocation<'a> {
    id: InvocationId,
    point: &'a str,
    decision: gatepost_core::hooks::decision::Verdict,
    cause: gatepost_core::hooks::decision::Cause,
    created_at: Timestamp,
    subject: &'a json::Value,
    actor: &'a json::Value,
    key: Option<&'a str>,
    trace_id: Option<&'a str>,
    hop: u32,
    dry_run: bool,
    abandoned: bool,
    patch: &'a [gatepost_core::hooks::change::PatchOp],
    value: &'a json::Value,
    values: Option<&'a [json::Value]>,
    messages: &'a [Message],
    warnings: &'a [Message],
    degraded: &'a [Degraded],
    hooks: &'a [HookRow],
    trials: Vec<Value>,
    outcome: Value,
    budget_ms: u64,
    took_us: u64,
    waited_us: u64,
    gatepost_us: u64,
    request_sha256: Option<&'a str>,
    object_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a json::Value>,
}

impl<'a> From<&'a InvocationView> for ShowInvocation<'a> {
    fn from(view: &'a InvocationView) -> Self {
        let kept = &view.invocation;
        let record = &kept.record;
        let decision: &Decision = &record.decision;
        let body = kept.body.as_ref();
        let trial = |(hook, trial): &(HookId, gatepost_engine::store::hooks::Trial)| json!({"hook": hook, "would": trial.would, "result": trial.row});
        ShowInvocation {
            id: kept.id,
            point: &decision.point,
            decision: decision.decision,
            cause: decision.cause,
            created_at: kept.at,
            subject: &record.subject,
            actor: &record.actor,
            key: record.key.as_deref(),
            trace_id: record.trace_id.as_deref(),
            hop: record.hop,
            dry_run: decision.dry_run,
            abandoned: record.abandoned,
            patch: &decision.patch,
            value: &decision.value,
            values: decision.values.as_deref(),
            messages: &decision.messages,
            warnings: &decision.warnings,
            degraded: &decision.degraded,
            hooks: &decision.hooks,
            trials: kept.trials.iter().map(trial).collect(),
            outcome: show_outcome(view),
            budget_ms: decision.budget_ms,
            took_us: decision.took_us,
            waited_us: decision.waited_us,
            gatepost_us: decision.gatepost_us,
            request_sha256: record.request_sha256.as_deref(),
            object_sha256: record.object_sha256.as_deref(),
            question: body.map(|body| &body.question),
            object: body.map(|body| &body.object),
        }
    }
}

/// What is known about what the platform did.
fn show_outcome(view: &InvocationView) -> Value {
    let kept = &view.invocation;
    let state = match (kept.outcome_state, &kept.outcome) {
        (_, Some((outcome, _))) if outcome.committed => "committed",
        (_, Some(_)) => "aborted",
        (OutcomeState::None, None) => "none",
        (OutcomeState::Awaited, None) if view.now.since(kept.at) < UNKNOWN_AFTER => "awaited",
        _ => "unknown",
    };
    let told = kept.outcome.as_ref();
    json!({
        "state": state,
        "reason": told.and_then(|(outcome, _)| outcome.reason.as_deref()),
        "isSuccess": told.and_then(|(outcome, _)| outcome.is_success),
        "uid": told.and_then(|(outcome, _)| outcome.uid.as_deref()),
        "at": told.map(|(_, at)| at),
    })
}

/// An outcome that was taken: the same whenever it is told.
pub(crate) fn show_outcome_taken(view: &InvocationView) -> Value {
    json!({
        "id": view.invocation.id,
        "point": view.invocation.record.decision.point,
        "outcome": show_outcome(view),
    })
}
