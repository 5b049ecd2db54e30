//! What hooks, points and invocations look like, for the OpenAPI document. The readers in the core
//! (`hooks/hook/read.rs`, `hooks/point_write.rs`, `hooks/invocation.rs`, `hooks/outcome.rs`) are what
//! decides; a test compares their member lists with these.
#![expect(dead_code, reason = "these types describe JSON to the OpenAPI document and are never built")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// What a blocking hook is asked, how, and what its answers mean.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct HookInput {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// A built-in point or one of the tenant's own; `GET …/points` lists them.
    #[schema(examples("validateUser"))]
    point: String,
    /// The receiver: the whole address (`gatepost`) or the base the point's path is put to (`cymmetri`).
    #[schema(min_length = 1, max_length = 2048)]
    url: String,
    /// The dialect: `gatepost` (default) or `cymmetri`. Fixed at creation.
    profile: Option<String>,
    /// Overrides the dialect's path; empty: the url as it is.
    path: Option<String>,
    /// Lower is asked first; default 100.
    order: Option<i32>,
    /// `off`, `observe` (default) or `enforce`. Enforcing tests the receiver first.
    mode: Option<String>,
    /// `"deny"`, `"continue"`, `"ask_default"`, `{"value": …}`, or a map of those by class of failure with
    /// `default`. Default: the point's.
    on_failure: Option<Value>,
    /// JSON pointers into `object` that answers may change. Default: on points that mutate `["/user"]`
    /// without logins, groups, applications and security questions; nothing elsewhere.
    may_change: Option<Vec<String>>,
    /// Default 1000.
    #[schema(minimum = 100, maximum = 30000)]
    timeout_ms: Option<u32>,
    /// Kept for this hook when hooks before it are slow; default 100.
    #[schema(minimum = 1, maximum = 30000)]
    min_timeout_ms: Option<u32>,
    /// Calls to it under way at once; default 64. Others wait for a place within their budget.
    #[schema(minimum = 1, maximum = 1024)]
    max_in_flight: Option<u32>,
    /// `auto` (default): HTTP/2 where the receiver offers it; `1.1`: HTTP/1.1 only.
    http: Option<String>,
    /// `merge` (default) or `replace`.
    replace_mode: Option<String>,
    /// Whether passwords and the like are sent to it, over https only.
    receives_secrets: Option<bool>,
    /// `plain` (default) or `omit`.
    secret_mode: Option<String>,
    /// `none` (default) or `encrypted`: a failed secret notification is tried again for 15 minutes.
    secret_retry: Option<String>,
    /// `some` (default), `none` or `none_on_dry_run`.
    side_effects: Option<String>,
    /// Whether asking twice is as asking once.
    idempotent: Option<bool>,
    /// Whether 403, 409 and 422 are refusals.
    status_deny: Option<bool>,
    /// Whether its refusal cuts other validators short.
    stop_on_deny: Option<bool>,
    /// When it is asked: `all`, `any`, `not`, or a `pointer` with `eq`, `in`, `prefix`, `exists`, `changed`.
    conditions: Option<Value>,
    /// Whether answers must be signed (`gatepost-answer-signature`).
    require_signed_answer: Option<bool>,
    /// Values are answered as `***`, which keeps the present one when sent back.
    headers: Option<BTreeMap<String, String>>,
    /// How Gatepost proves itself besides the signature.
    auth: Option<Value>,
    /// Import a signing secret.
    #[schema(write_only)]
    secret: Option<String>,
    /// The hook's kill switch; default true.
    enabled: Option<bool>,
}

/// What to change of a hook: a merge patch of the members of a new one (`profile` is fixed).
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct HookPatch {
    #[serde(flatten)]
    members: BTreeMap<String, Value>,
}

/// A blocking hook: the members it was registered with, and these.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Hook {
    id: String,
    #[serde(flatten)]
    members: HookInput,
    /// Whether its receiver passed the test with the present address and secret.
    verified: bool,
    #[schema(format = DateTime)]
    verified_at: Option<String>,
    /// `closed`: calls pass; `open` and `half_open`: its receiver keeps failing and is not asked.
    circuit: String,
    /// What is allowed, and will hurt.
    warnings: Vec<HookWarning>,
    last_test: Option<HookTest>,
    counters: HookCounters,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    /// Only in the answer of its creation.
    #[schema(required = false)]
    secret: Option<String>,
}

/// One piece of advice.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct HookWarning {
    code: String,
    pointer: String,
    message: String,
}

/// What a probe came to.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct HookTest {
    #[schema(format = DateTime)]
    at: String,
    passed: bool,
    status: Option<u16>,
    duration_ms: u64,
    failure: Option<String>,
    error: Option<String>,
    warning: Option<String>,
}

/// What came of a hook so far.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct HookCounters {
    asked: u64,
    denied: u64,
    changed: u64,
    failed: u64,
    observed: u64,
    would_deny: u64,
    would_change: u64,
    would_fail: u64,
}

/// What to try a hook with besides the probe: one of these.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct TryInput {
    /// The point's sample.
    sample: Option<bool>,
    /// An invocation.
    invocation: Option<Value>,
    /// A question that was asked before, as far as it is kept.
    invocation_id: Option<String>,
}

/// What a try came to.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct TryResult {
    passed: bool,
    /// Whether the hook counts as verified now.
    verified: bool,
    test: HookTest,
    request: Value,
    response: Option<Value>,
    /// The question, when one was asked: `decision`, `request`, `response`.
    asked: Option<Value>,
}

/// A named place where a platform asks before it acts.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Point {
    name: String,
    /// `mutate`, `validate`, `value`, `gate`, `notify_secret`, `event` or `probe`.
    kind: String,
    description: String,
    builtin: bool,
    enabled: bool,
    max_total_ms: u32,
    audit: String,
    capture: String,
    /// Members that are never stored.
    redact: Vec<String>,
    on_failure: Value,
    secret_pointers: Vec<String>,
    object_members: Vec<String>,
    path: String,
    serial: bool,
    acknowledges: bool,
    event: Option<String>,
    schema: Option<Value>,
    sample: Value,
    /// Its hooks, in the order they are asked.
    hooks: Vec<String>,
}

/// A point to set, or, where there is no built-in one of this name, to define.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct PointInput {
    /// The point's kill switch; default true.
    enabled: Option<bool>,
    /// Milliseconds an invocation may take in all; default 3000.
    #[schema(minimum = 10, maximum = 30000)]
    max_total_ms: Option<u32>,
    /// `relaxed` (default): records are on disk within a tenth of a second; `strict`: before the answer.
    audit: Option<String>,
    /// Of which invocations question and object are kept: `off`, `failures` (default), `sampled`, `all`.
    capture: Option<String>,
    /// JSON pointers into `object`, `old_object` and `context` to members that are never stored, beside the
    /// secret ones.
    redact: Option<Vec<String>>,
    /// Of a point of one's own: required at first, fixed afterwards.
    kind: Option<String>,
    #[schema(max_length = 2000)]
    description: Option<String>,
    on_failure: Option<Value>,
    secret_pointers: Option<Vec<String>>,
    object_members: Option<Vec<String>>,
    path: Option<String>,
    serial: Option<bool>,
    acknowledges: Option<bool>,
    /// A JSON Schema the object must still fit after a receiver changed it.
    schema: Option<Value>,
    /// An invocation to try with.
    sample: Option<Value>,
}

/// A question. The exact Cymmetri form `{"request":{…}}` is read too.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct InvocationInput {
    /// Whom it is about: `{type?, id}`.
    subject: Option<Value>,
    /// Who acts.
    actor: Option<Value>,
    /// What answers may change.
    object: Option<Value>,
    /// The object before the platform's change.
    old_object: Option<Value>,
    /// What answers may not change.
    context: Option<Value>,
    /// What stands if nobody decides: `mappedValue`, `value` or `decision`.
    default: Option<Value>,
    /// Sent to hooks that were granted them, and kept nowhere.
    secrets: Option<Value>,
    /// Of the operation `provision`: `{targetAttribute, cymmetrifield?, default?, …}` each.
    attributes: Option<Vec<Value>>,
    /// Ask only receivers without side effects, decide nothing.
    dry_run: Option<bool>,
    /// Tell which members each hook changed.
    explain: Option<bool>,
}

/// The answer. Always one: 200 for a denial too.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Decision {
    id: String,
    point: String,
    /// `allow` or `deny`.
    decision: String,
    /// `receiver`, `policy_on_failure`, `circuit_open`, `no_hooks`, `hooks_disabled`, `invalid_answer`,
    /// `budget_exhausted`, `gatepost`.
    cause: String,
    object: Value,
    /// What differs from the object that came in (RFC 6902).
    patch: Vec<Value>,
    /// What a value or gate point came to.
    value: Value,
    /// The attributes' values, in order (`provision`).
    #[schema(required = false)]
    values: Option<Vec<Value>>,
    /// Every denial: `{severity, code, text?, path?, hook, platform_code?}`.
    messages: Vec<Value>,
    warnings: Vec<Value>,
    /// Every failure that a policy answered: `{hook, failure, applied, attribute?}`.
    degraded: Vec<Value>,
    /// Every hook that was looked at: `{id, name, phase, mode, result, status?, took_us, conn?, attempts, failure?, detail?}`.
    hooks: Vec<Value>,
    budget_ms: u64,
    took_us: u64,
    /// How long a question waited for a place at its receiver.
    waited_us: u64,
    /// How much of that was Gatepost's own.
    gatepost_us: u64,
    #[schema(required = false)]
    dry_run: Option<bool>,
}

/// What the platform did.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct OutcomeInput {
    committed: bool,
    reason: Option<String>,
    /// The object as committed; default: the decision's.
    object: Option<Value>,
    #[serde(rename = "isSuccess")]
    is_success: Option<bool>,
    uid: Option<String>,
}

/// What is known about what the platform did.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = InvocationOutcome)]
pub(crate) struct Outcome {
    /// `none` (nothing is expected), `awaited`, `unknown` (a minute went by), `committed`, `aborted`.
    state: String,
    reason: Option<String>,
    #[serde(rename = "isSuccess")]
    is_success: Option<bool>,
    uid: Option<String>,
    #[schema(format = DateTime)]
    at: Option<String>,
}

/// An outcome that was taken.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct OutcomeTaken {
    id: String,
    point: String,
    outcome: Outcome,
}

/// An invocation as recorded: without anything secret.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Invocation {
    id: String,
    point: String,
    decision: String,
    cause: String,
    #[schema(format = DateTime)]
    created_at: String,
    subject: Option<Value>,
    actor: Option<Value>,
    key: Option<String>,
    trace_id: Option<String>,
    hop: u32,
    dry_run: bool,
    /// The caller went away before the answer.
    abandoned: bool,
    patch: Vec<Value>,
    value: Value,
    values: Option<Vec<Value>>,
    messages: Vec<Value>,
    warnings: Vec<Value>,
    degraded: Vec<Value>,
    hooks: Vec<Value>,
    /// What hooks on trial would have done: `{hook, would, result}`.
    trials: Vec<Value>,
    outcome: Outcome,
    budget_ms: u64,
    took_us: u64,
    waited_us: u64,
    gatepost_us: u64,
    /// In hex; null when the request held a secret.
    request_sha256: Option<String>,
    object_sha256: Option<String>,
    /// The question and the final object while they are kept (single view only).
    #[schema(required = false)]
    question: Option<Value>,
    #[schema(required = false)]
    object: Option<Value>,
}

/// Which hooks.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HookParams {
    /// Of this point.
    #[param(required = false, nullable = false)]
    point: Option<String>,
    /// Rows wanted; default 50.
    #[param(minimum = 1, maximum = 250, required = false, nullable = false)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false, nullable = false)]
    cursor: Option<String>,
}

/// Which invocations.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InvocationParams {
    /// Of this point or operation.
    #[param(required = false, nullable = false)]
    point: Option<String>,
    /// About this subject (its id).
    #[param(required = false, nullable = false)]
    subject: Option<String>,
    /// `allow` or `deny`.
    #[param(required = false, nullable = false)]
    decision: Option<String>,
    /// With this cause.
    #[param(required = false, nullable = false)]
    cause: Option<String>,
    /// Asked at or after.
    #[param(required = false, nullable = false)]
    since: Option<String>,
    /// Asked before.
    #[param(required = false, nullable = false)]
    until: Option<String>,
    /// Rows wanted; default 50.
    #[param(minimum = 1, maximum = 250, required = false, nullable = false)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false, nullable = false)]
    cursor: Option<String>,
}
