//! What requests look like, for the OpenAPI document. The readers beside this file are what decides;
//! a test compares their member lists with these.
#![expect(dead_code, reason = "these types describe JSON to the OpenAPI document and are never built")]

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Array, Object, OneOf, Schema, SchemaType, Type};
use utoipa::{IntoParams, ToSchema};

/// An error (RFC 9457).
#[derive(ToSchema)]
pub(crate) struct Problem {
    /// A stable URI: `https://gatepost.dev/problems/` and the code.
    r#type: String,
    title: String,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    detail: String,
    /// One of the closed list in `docs/errors.md`.
    code: String,
    /// Of `malformed_json`: the line, from 1.
    #[schema(required = false, nullable = false)]
    line: Option<u32>,
    /// Of `malformed_json`: the column in characters, from 1.
    #[schema(required = false, nullable = false)]
    column: Option<u32>,
    /// Every wrong member at once.
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

/// One wrong member.
#[derive(ToSchema)]
pub(crate) struct FieldError {
    /// A JSON pointer (RFC 6901) into the body; `?name` a query parameter; `{name}` a part of the path.
    pointer: String,
    message: String,
}

/// Which of a tenant's two worlds.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Environment {
    Production,
    Sandbox,
}

/// How much an event hurries.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Urgency {
    Urgent,
    Normal,
    Bulk,
}

/// What a key may do. `admin` has all; `manage` includes `read`.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    Admin,
    Manage,
    Publish,
    Invoke,
    Read,
}

/// Where a delivery stands.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryState {
    Pending,
    Held,
    Delivered,
    Failed,
    Cancelled,
}

/// Why a delivery is terminal or held.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryReason {
    Exhausted,
    NoAnswer,
    Rejected,
    Gone,
    WebhookDeleted,
    TenantDeleted,
    ByUser,
    Expired,
    WebhookDisabled,
    Unverified,
    Paused,
}

/// What one HTTP request came to.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Ok,
    HttpStatus,
    Timeout,
    Connect,
    Dns,
    Tls,
    BlockedAddress,
    Reset,
    Protocol,
    InvalidUrl,
}

/// What set an attempt off.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trigger {
    Scheduled,
    Manual,
    Test,
}

/// Why a webhook did or did not match an event.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MatchReason {
    Matched,
    NoPattern,
    FilterFalse,
    FilterError,
    Disabled,
    Unverified,
    NoPath,
    CreatedLater,
}

/// Order of an event list.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventOrder {
    Asc,
    Desc,
}

/// Who or what an event is about.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    /// What kind of thing, such as `user`.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256)]
    r#type: Option<String>,
    /// Its id in the publisher's system.
    #[schema(min_length = 1, max_length = 256)]
    id: String,
}

/// An event to publish.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventInput {
    /// A dotted name. The last segment is not `all`, the first not `gatepost`.
    #[schema(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length = 128, examples("user.created"))]
    r#type: String,
    /// The caller's id, unique per tenant; the same id with the same content is a duplicate.
    #[schema(pattern = r"^[A-Za-z0-9_:@~+=/-]{1,128}$")]
    id: Option<String>,
    /// When it happened; default: now.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    subject: Option<Subject>,
    /// Any JSON, kept and delivered byte for byte; absent is null. At most 128 levels deep.
    #[serde(default)]
    #[schema(value_type = Value, required = false)]
    data: serde_json::Value,
    /// A free object beside the data.
    #[schema(value_type = Option<Object>)]
    attributes: Option<serde_json::Value>,
    /// Default: the catalogue's.
    urgency: Option<Urgency>,
}

/// Events to publish, all or none.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchInput {
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<EventInput>,
}

/// A CloudEvent 1.0 in structured mode. Extensions are members of their own.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct CloudEvent {
    #[schema(pattern = "^1\\.0$")]
    specversion: String,
    #[schema(min_length = 1)]
    id: String,
    #[schema(min_length = 1)]
    source: String,
    #[schema(min_length = 1)]
    r#type: String,
    #[schema(required = false, nullable = false)]
    subject: Option<String>,
    #[schema(format = DateTime, required = false, nullable = false)]
    time: Option<String>,
    #[schema(required = false, nullable = false)]
    datacontenttype: Option<String>,
    #[serde(default)]
    #[schema(value_type = Value, required = false)]
    data: serde_json::Value,
}

/// What differs from the profile's retry policy, by member.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// Seconds between attempts, fractions allowed; empty: one attempt. Each at most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 32)]
    waits: Option<Vec<f64>>,
    /// Fraction by which a wait may vary either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1)]
    jitter: Option<f64>,
    /// `timeout`, `transport`, `3xx`, `4xx`, `5xx` or single statuses; what is not listed is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = retry_on)]
    retry_on: Option<Vec<serde_json::Value>>,
    /// What 410 means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<Gone>,
    /// When Retry-After is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<RetryAfter>,
}

fn retry_on() -> Schema {
    let class = Object::builder()
        .schema_type(Type::String)
        .pattern(Some("^(timeout|transport|3xx|4xx|5xx|[345][0-9]{2})$"))
        .description(Some("A class of failures, or one status"));
    let status = Object::builder().schema_type(Type::Integer).minimum(Some(300)).maximum(Some(599));
    let items = OneOf::builder().item(class).item(status);
    let list = Array::builder().items(items);
    let types = SchemaType::from_iter([Type::Array, Type::Null]);
    let list = list.schema_type(types).description(Some(
        "What is retried: timeout, transport, 3xx, 4xx, 5xx or single statuses; what is not listed is final",
    ));
    Schema::from(list.build())
}

/// What 410 means.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gone {
    Cancel,
    Disable,
    Final,
}

/// When Retry-After is heard.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryAfter {
    /// On which statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statuses: Option<Vec<u16>>,
    /// The longest wait it may ask for, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    cap_s: Option<u32>,
}

/// What to test a webhook with.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestInput {
    /// Default: the first catalogue type that matches.
    #[schema(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length = 128)]
    event_type: Option<String>,
    /// Default: the catalogue's example.
    #[serde(default)]
    #[schema(value_type = Value, required = false)]
    data: serde_json::Value,
}

/// How to rotate a secret.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateInput {
    /// How long the old secret signs beside the new one; default 86400.
    #[schema(minimum = 0, maximum = 604800)]
    overlap_seconds: Option<u32>,
    /// A secret to import; default: a new one.
    secret: Option<String>,
}

/// A tenant to put.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantInput {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Default at creation: `production`.
    environment: Option<Environment>,
    settings: Option<TenantSettingsInput>,
}

/// Settings to change; absent members keep.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantSettingsInput {
    /// No webhook is matched before its endpoint is verified.
    #[schema(required = false, nullable = false)]
    require_verification: Option<bool>,
    /// Only declared event types may be published.
    #[schema(required = false, nullable = false)]
    strict_types: Option<bool>,
    /// Events of built-in types must fit the schemas that come with Gatepost.
    #[schema(required = false, nullable = false)]
    enforce_builtin_schemas: Option<bool>,
    #[schema(required = false, nullable = false)]
    retention: Option<RetentionInput>,
    /// The switch for blocking hooks.
    #[schema(required = false, nullable = false)]
    hooks: Option<HookSwitch>,
    /// Null lifts every bound.
    quotas: Option<QuotasInput>,
    /// CIDRs opened to this tenant alone.
    #[schema(max_items = 100, examples(json!(["10.20.0.0/16"])))]
    allow_nets: Option<Vec<String>>,
}

/// How long things are kept; absent members keep.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionInput {
    /// Days events (and with them their deliveries) are kept; default 30.
    #[schema(minimum = 1, maximum = 3650, required = false, nullable = false)]
    events_days: Option<u32>,
    /// Days the attempts and bodies of finished deliveries are kept; default 30.
    #[schema(minimum = 1, maximum = 3650, required = false, nullable = false)]
    attempts_days: Option<u32>,
}

/// How much a tenant may have; absent members keep, null lifts the bound.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotasInput {
    /// Webhooks.
    #[schema(minimum = 0)]
    webhooks: Option<u32>,
    /// Events accepted per second.
    #[schema(minimum = 1)]
    events_per_s: Option<u32>,
    /// Deliveries waiting.
    #[schema(minimum = 1, maximum = 4294967295_u64)]
    pending: Option<u64>,
}

/// The switch for a tenant's blocking hooks. `bypass`: every invocation allows.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HookSwitch {
    Enabled,
    Bypass,
}

/// How long things are kept, in days.
#[derive(Serialize, ToSchema)]
pub(crate) struct Retention {
    pub(crate) events_days: u32,
    pub(crate) attempts_days: u32,
}

/// How much a tenant may have; null: no bound but the machine's.
#[derive(Serialize, ToSchema)]
pub(crate) struct Quotas {
    pub(crate) webhooks: Option<u32>,
    pub(crate) events_per_s: Option<u32>,
    pub(crate) pending: Option<u64>,
}

/// A tenant's settings.
#[derive(Serialize, ToSchema)]
pub(crate) struct TenantSettings {
    /// No webhook is matched before its endpoint is verified.
    require_verification: bool,
    /// Only declared event types may be published.
    strict_types: bool,
    /// Events of built-in types must fit the schemas that come with Gatepost.
    enforce_builtin_schemas: bool,
    retention: Retention,
    hooks: HookSwitch,
    quotas: Quotas,
    /// CIDRs opened to this tenant alone.
    allow_nets: Vec<String>,
}

/// A key to make.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyInput {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(min_items = 1, max_items = 5)]
    scopes: Vec<Scope>,
    /// The only tenant it may touch; it need not exist yet.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,63}$")]
    tenant: Option<String>,
    /// When it stops working; default: never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// What to declare about an event type.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventTypeInput {
    /// Default: the first segment of the name.
    #[schema(min_length = 1, max_length = 128)]
    family: Option<String>,
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// An example of `data`.
    #[serde(default)]
    #[schema(value_type = Value, required = false)]
    example: serde_json::Value,
    /// A JSON Schema of `data`: an object, or a Boolean.
    schema: Option<serde_json::Value>,
    /// Default `normal`.
    urgency: Option<Urgency>,
    /// Default false.
    deprecated: Option<bool>,
}

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// Rows wanted; default 50.
    #[param(minimum = 1, maximum = 250, required = false, nullable = false)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false, nullable = false)]
    cursor: Option<String>,
}

/// Which events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// `asc`: the feed.
    #[param(inline, required = false, nullable = false)]
    order: Option<EventOrder>,
    /// Exact type.
    #[param(required = false, nullable = false)]
    r#type: Option<String>,
    /// Subject id.
    #[param(required = false, nullable = false, min_length = 1, max_length = 256)]
    subject: Option<String>,
    /// Subject type.
    #[param(required = false, nullable = false, min_length = 1, max_length = 256)]
    subject_type: Option<String>,
    /// Happened after this time (the event's `timestamp`).
    #[param(format = DateTime, required = false, nullable = false)]
    after: Option<String>,
    /// Happened before this time (the event's `timestamp`).
    #[param(format = DateTime, required = false, nullable = false)]
    before: Option<String>,
}

/// Whose event types.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CatalogueParams {
    /// As this tenant has them. Default: the tenant the key is bound to, if it is.
    #[param(required = false, nullable = false, pattern = "^[a-z0-9][a-z0-9._-]{0,63}$")]
    tenant: Option<String>,
}

/// What to follow.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParams {
    /// Some of `event`, `delivery`, `attempt`, separated by commas; default: all.
    #[param(required = false, nullable = false)]
    types: Option<String>,
    /// The deliveries and attempts of this webhook alone.
    #[param(required = false, nullable = false)]
    webhook_id: Option<String>,
    /// Go on after this id; the header `Last-Event-ID` stands over it.
    #[param(required = false, nullable = false)]
    last_event_id: Option<String>,
}

/// Which deliveries.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveryParams {
    /// To this webhook, deleted ones too.
    #[param(required = false, nullable = false)]
    webhook_id: Option<String>,
    /// Of this event.
    #[param(required = false, nullable = false)]
    event_id: Option<String>,
    /// Of an event of this type; a batch: with one of this type in it.
    #[param(required = false, nullable = false)]
    event_type: Option<String>,
    /// About the subject with this id.
    #[param(required = false, nullable = false, min_length = 1, max_length = 256)]
    subject: Option<String>,
    /// About subjects of this type.
    #[param(required = false, nullable = false, min_length = 1, max_length = 256)]
    subject_type: Option<String>,
    #[param(inline, required = false, nullable = false)]
    state: Option<DeliveryState>,
    /// Made at or after this time.
    #[param(format = DateTime, required = false, nullable = false)]
    since: Option<String>,
    /// Made before this time.
    #[param(format = DateTime, required = false, nullable = false)]
    until: Option<String>,
}

macro_rules! path_params {
    ($($(#[$doc:meta])* $name:ident { $field:ident: $pattern:literal })*) => {$(
        $(#[$doc])*
        #[derive(Deserialize, IntoParams)]
        #[into_params(parameter_in = Path)]
        pub(crate) struct $name {
            $(#[$doc])*
            #[param(pattern = $pattern)]
            $field: String,
        }
    )*};
}

path_params! {
    /// The tenant's id, chosen by the caller of PUT.
    TenantPath { tenant: "^[a-z0-9][a-z0-9._-]{0,63}$" }
    /// The webhook's id.
    WebhookPath { webhook: "^wh_[0-9a-z]{26}$" }
    /// The event's id, percent-encoded where it has a slash.
    EventPath { event: "^[A-Za-z0-9_:@~+=/-]{1,128}$" }
    /// The delivery's id.
    DeliveryPath { delivery: "^dlv_[0-9a-z]{26}$" }
    /// The hook's id.
    HookPath { hook: "^hook_[0-9a-z]{26}$" }
    /// The point's name.
    PointPath { point: "^[A-Za-z][A-Za-z0-9_-]{0,63}$" }
    /// The operation's name: `createUser`, `updateUser` or `provision`.
    OperationPath { operation: "^[A-Za-z]+$" }
    /// The invocation's id.
    InvocationPath { invocation: "^inv_[0-9a-z]{26}$" }
    /// The key's id.
    KeyPath { key: "^key_[0-9a-z]{26}$" }
    /// The event type's name.
    EventTypePath { name: r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$" }
}

/// What to replay.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayInput {
    /// Events accepted at or after this.
    #[schema(format = DateTime)]
    since: String,
    /// Events accepted before this; default: now.
    #[schema(format = DateTime)]
    until: Option<String>,
    scope: ReplayScope,
    /// Only count: the answer is 200 and how many events it would be; nothing is made.
    #[schema(default = false)]
    dry_run: Option<bool>,
}

/// What of a window is replayed.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayScope {
    Failed,
    Missed,
    All,
}

/// What a job does.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobKind {
    Replay,
    Erase,
}

/// Where a job stands.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    Queued,
    Running,
    Done,
    Failed,
}

/// A job in the path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct JobPath {
    /// The job's id.
    job: String,
}

/// A person in the path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct SubjectPath {
    /// The subject's id, percent-encoded.
    #[param(min_length = 1, max_length = 256)]
    subject: String,
}

/// Which type of subject.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SubjectTypeParams {
    /// Only events that name it as a subject of this type.
    #[param(required = false, nullable = false)]
    subject_type: Option<String>,
}

/// Which rows of proof, and how.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ToldParams {
    /// Only events that name it as a subject of this type.
    #[param(required = false, nullable = false)]
    subject_type: Option<String>,
    /// `csv`: all rows as a file.
    #[param(inline, required = false, nullable = false)]
    format: Option<ToldFormat>,
}

/// How proof is answered.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToldFormat {
    Json,
    Csv,
}
