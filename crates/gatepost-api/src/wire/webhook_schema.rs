//! What a webhook looks like in requests and answers, for the OpenAPI document. The readers in
//! `webhook.rs` and `webhook_members.rs` are what decides; a test compares their member lists with these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schema::Retry;

/// A webhook to register.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookInput {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// https, or http where the server allows the address. Profiles that address by path take a base here.
    #[schema(
        min_length = 1,
        max_length = 2048,
        pattern = r"^https?://.+$",
        examples("https://hooks.example.com/gatepost")
    )]
    url: String,
    /// Patterns: `*` or `all`, `family.*` or `family.all`, or an exact type.
    #[schema(min_items = 1, max_items = 500, examples(json!(["user.*", "session.revoked"])))]
    events: Vec<String>,
    /// CEL over `type`, `subject`, `data`, `attributes`.
    #[schema(max_length = 4096, examples("data.role == \"admin\""))]
    filter: Option<String>,
    /// A preset of format, signing, addressing, verification and retry: `standard`, `cloudevents`,
    /// `cryptr`, `ferriskey`, `okta`, `cymmetri`. Fixed at creation; default `standard`.
    #[schema(examples("standard"))]
    profile: Option<String>,
    /// How events look in a body; default: the profile's. `raw`: the body is `data`.
    #[schema(examples("cloudevents", "raw"))]
    format: Option<String>,
    /// How requests are signed; default: the profile's.
    #[schema(min_items = 1, max_items = 4)]
    signing: Option<Vec<SigningEntry>>,
    payload: Option<Payload>,
    /// `http` (every profile): `auto` (default) or `1.1` for HTTP/1.1 only; and the profile's own options.
    #[schema(value_type = Option<Object>)]
    options: Option<serde_json::Value>,
    /// Sent with every request. Answered as `***`.
    headers: Option<BTreeMap<String, String>>,
    auth: Option<Auth>,
    retry: Option<Retry>,
    #[schema(minimum = 100, maximum = 60000)]
    timeout_ms: Option<u32>,
    batch: Option<Batch>,
    verification: Option<Verification>,
    /// Paths below the url by event type, of profiles that address by path.
    paths: Option<BTreeMap<String, String>>,
    ordering: Option<Ordering>,
    /// Requests begun per second, at most; default: no bound.
    #[schema(minimum = 1, maximum = 10000)]
    rate_limit_per_s: Option<u32>,
    /// Requests at once; default 32.
    #[schema(minimum = 1, maximum = 1000)]
    max_in_flight: Option<u32>,
    /// A secret to import: `whsec_…` of 24 to 64 bytes where a scheme of Standard Webhooks signs, else a
    /// text of 24 bytes or more; default: a new one. Fixed at creation.
    secret: Option<String>,
    /// Default true.
    enabled: Option<bool>,
    /// Matched as ever, and what it is owed kept for it (`held/paused`) until this is false; default false.
    paused: Option<bool>,
}

/// Changes to a webhook: a merge patch.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookPatch {
    #[schema(min_length = 1, max_length = 200, required = false, nullable = false)]
    name: Option<String>,
    #[schema(max_length = 2000)]
    description: Option<String>,
    #[schema(max_length = 2048, required = false, nullable = false)]
    url: Option<String>,
    #[schema(min_items = 1, max_items = 500, required = false, nullable = false)]
    events: Option<Vec<String>>,
    #[schema(max_length = 4096)]
    filter: Option<String>,
    format: Option<String>,
    #[schema(min_items = 1, max_items = 4)]
    signing: Option<Vec<SigningEntry>>,
    payload: Option<Payload>,
    /// By member.
    #[schema(value_type = Option<Object>)]
    options: Option<serde_json::Value>,
    /// By member: null removes a header, `***` keeps its value.
    headers: Option<BTreeMap<String, Option<String>>>,
    auth: Option<AuthPatch>,
    retry: Option<Retry>,
    #[schema(minimum = 100, maximum = 60000)]
    timeout_ms: Option<u32>,
    batch: Option<Batch>,
    verification: Option<VerificationPatch>,
    /// By member: null removes a path.
    paths: Option<BTreeMap<String, Option<String>>>,
    ordering: Option<Ordering>,
    #[schema(minimum = 1, maximum = 10000)]
    rate_limit_per_s: Option<u32>,
    #[schema(minimum = 1, maximum = 1000)]
    max_in_flight: Option<u32>,
    enabled: Option<bool>,
    paused: Option<bool>,
}

/// One way to sign.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SigningEntry {
    /// `standard`, `standard-ed25519`, `timestamped`, `github`, `cryptr`, `ferriskey`, `cymmetri`, or `none`
    /// (only with `auth`).
    #[schema(examples("standard", "timestamped"))]
    scheme: String,
    /// The header that carries the signature; of `timestamped` and `github` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    header: Option<String>,
}

/// What of an event's `data` is sent, of the formats `standard` and `raw`.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payload {
    /// `thin`: no `data` at all. Default `full`.
    mode: Option<PayloadMode>,
    /// JSON pointers into `data`: nothing else is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 100, examples(json!(["/user/id"])))]
    include: Option<Vec<String>>,
    /// JSON pointers into `data`: never sent, whatever is included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 100, examples(json!(["/user/email"])))]
    exclude: Option<Vec<String>>,
}

/// Whether there is `data`.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PayloadMode {
    Full,
    Thin,
}

/// How Gatepost proves itself besides the signature. Secrets are answered as `***`, and `***` keeps them.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Auth {
    Bearer {
        token: String,
    },
    Basic {
        username: String,
        password: String,
    },
    Header {
        name: String,
        value: String,
    },
    /// OAuth 2.0 client credentials.
    Oauth2 {
        token_url: String,
        client_id: String,
        client_secret: String,
        scope: Option<String>,
        audience: Option<String>,
    },
    /// A client certificate; both PEM.
    Mtls {
        certificate: String,
        private_key: String,
    },
}

/// A change of `auth`, by member. Another `type` replaces it whole.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthPatch {
    #[schema(examples("bearer"))]
    r#type: Option<String>,
    token: Option<String>,
    username: Option<String>,
    password: Option<String>,
    name: Option<String>,
    value: Option<String>,
    token_url: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    scope: Option<String>,
    audience: Option<String>,
    certificate: Option<String>,
    private_key: Option<String>,
}

/// Events wait for each other and go out as one request, of formats that take batches, and not with the
/// ordering `subject`.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// Default 100.
    #[schema(minimum = 1, maximum = 1000)]
    max_events: Option<u32>,
    /// Default 1000.
    #[schema(minimum = 0, maximum = 600000)]
    max_wait_ms: Option<u32>,
    /// Default 262144.
    #[schema(minimum = 1024, maximum = 4194304)]
    max_bytes: Option<u32>,
}

/// A batch as it is.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchShown)]
pub(crate) struct BatchShown {
    max_events: u32,
    max_wait_ms: u32,
    max_bytes: u32,
}

/// How the endpoint proves that it wants what it gets.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verification {
    /// `none`; `post`: a signed ping is answered with 2xx; `options`: the handshake of CloudEvents web hooks;
    /// `okta`: a challenge is echoed.
    #[schema(examples("post"))]
    mode: String,
    /// Whether nothing is sent before; default: as the profile says.
    required: Option<bool>,
}

/// A change of `verification`, by member.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerificationPatch {
    mode: Option<String>,
    required: Option<bool>,
}

/// In which order deliveries go out.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ordering {
    /// As they come.
    None,
    /// Those about one subject one after the other.
    Subject,
    /// All one after the other.
    Webhook,
}
