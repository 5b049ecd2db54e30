//! Webhooks: where, which events, how shaped, how signed, how retried.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::auth::EndpointAuth;
use crate::delivery::AttemptRecord;
use crate::retry::RetryOverride;
use crate::secret::Secret;
use crate::{DeliverySeq, TenantKey, Timestamp, WebhookId, WebhookKey};

/// Bounds of a webhook's members (SETTLED, Webhooks).
pub mod bounds {
    /// Characters of `name`.
    pub const NAME: std::ops::RangeInclusive<usize> = 1..=200;
    /// Characters of `description`.
    pub const DESCRIPTION_MAX: usize = 2_000;
    /// Bytes of `url`.
    pub const URL_MAX: usize = 2_048;
    /// Patterns in `events`.
    pub const EVENTS: std::ops::RangeInclusive<usize> = 1..=500;
    /// Bytes of `filter`.
    pub const FILTER_MAX: usize = 4_096;
    /// Own headers.
    pub const HEADERS_MAX: usize = 32;
    /// Bytes of one header value.
    pub const HEADER_VALUE_MAX: usize = 4_096;

    /// What is wrong with the value of a header that is to be sent; one rule for webhooks and hooks.
    pub fn bad_header_value(value: &str) -> Option<&'static str> {
        if value.len() > HEADER_VALUE_MAX {
            Some("the value must have at most 4096 bytes")
        } else if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
            Some("the value may hold visible ASCII, spaces and tabs only")
        } else if value.trim_matches([' ', '\t']) != value {
            Some("the value must not begin or end with a space")
        } else {
            None
        }
    }
    /// `timeout_ms`.
    pub const TIMEOUT_MS: std::ops::RangeInclusive<u32> = 100..=60_000;
    /// `max_in_flight`.
    pub const MAX_IN_FLIGHT: std::ops::RangeInclusive<u32> = 1..=1_000;
    /// `max_in_flight` when not given.
    pub const MAX_IN_FLIGHT_DEFAULT: u32 = 32;
    /// `overlap_seconds` of a rotation: up to seven days.
    pub const OVERLAP_SECONDS_MAX: u32 = 7 * 86_400;
    /// `overlap_seconds` when not given.
    pub const OVERLAP_SECONDS_DEFAULT: u32 = 86_400;
    /// `rate_limit_per_s`.
    pub const RATE_LIMIT_PER_S: std::ops::RangeInclusive<u32> = 1..=10_000;
    /// Entries of `signing`.
    pub const SIGNING: std::ops::RangeInclusive<usize> = 1..=4;
    /// Pointers in `payload.include` and in `payload.exclude`.
    pub const POINTERS_MAX: usize = 100;
    /// Entries of `paths`.
    pub const PATHS_MAX: usize = 100;
    /// `batch.max_events`.
    pub const BATCH_EVENTS: std::ops::RangeInclusive<u32> = 1..=1_000;
    /// `batch.max_wait_ms`.
    pub const BATCH_WAIT_MS: std::ops::RangeInclusive<u32> = 0..=600_000;
    /// `batch.max_bytes`.
    pub const BATCH_BYTES: std::ops::RangeInclusive<u32> = 1_024..=4_194_304;
}

/// One of the schemes a webhook's requests are signed by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SigningEntry {
    /// The scheme's name, such as `standard` or `timestamped`.
    pub scheme: String,
    /// The header that carries the signature, where the scheme leaves that open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// How much of an event's `data` a receiver sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadMode {
    /// All of it, `include` and `exclude` apart.
    #[default]
    Full,
    /// None of it.
    Thin,
}

/// What of an event's `data` a receiver sees; applied before signing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Payload {
    /// Whether there is `data` at all.
    #[serde(default)]
    pub mode: PayloadMode,
    /// JSON pointers (RFC 6901) into `data`: nothing else is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    /// JSON pointers (RFC 6901) into `data`: never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<String>>,
}

/// When events wait for each other to go out as one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// A batch with so many events is closed.
    pub max_events: u32,
    /// A batch so many milliseconds old is closed.
    pub max_wait_ms: u32,
    /// A batch whose events' data weigh so much together is closed (before the event that would take it above).
    pub max_bytes: u32,
}

impl Default for Batch {
    /// SETTLED, Webhooks.
    fn default() -> Self {
        Batch { max_events: 100, max_wait_ms: 1_000, max_bytes: 262_144 }
    }
}

/// How an endpoint proves that it wants what it gets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verification {
    /// The mode's name: `none`, `post`, `options` or one a profile brings.
    pub mode: String,
    /// Whether nothing is sent before it has; `None`: as the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// In which order deliveries of one webhook go out (DESIGN 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// As they come.
    #[default]
    None,
    /// Those about one subject, one after the other.
    Subject,
    /// All of them, one after the other.
    Webhook,
}

impl Ordering {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Ordering::None => "none",
            Ordering::Subject => "subject",
            Ordering::Webhook => "webhook",
        }
    }

    /// Whether deliveries go out as they come.
    pub fn is_none(&self) -> bool {
        *self == Ordering::None
    }
}

/// What a tenant registered, secrets apart. Kept per revision, so that what happened under an older
/// one can be explained.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WebhookConfig {
    /// A name for people.
    pub name: String,
    /// More words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where deliveries go. Checked at write; judged again at every connect (P8).
    pub url: String,
    /// Event patterns, as given.
    pub events: Vec<String>,
    /// A CEL expression, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// The profile's name; fixed at creation.
    pub profile: String,
    /// Names of the tenant's own headers, as given (their values are sealed).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header_names: Vec<String>,
    /// Overrides the profile's format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Overrides the profile's signing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<Vec<SigningEntry>>,
    /// What of `data` is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// The profile's own options, as given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    /// How Gatepost proves itself besides the signature (secret parts are sealed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<EndpointAuth>,
    /// Events wait for each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Overrides the profile's way of verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// When the endpoint, as it is registered here, was verified. A state, kept here so that it is part
    /// of each revision: matching then and explaining later see the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Timestamp>,
    /// Paths by event type, of profiles that address by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, String>,
    /// In which order deliveries go out.
    #[serde(default, skip_serializing_if = "Ordering::is_none")]
    pub ordering: Ordering,
    /// Requests begun per second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_per_s: Option<u32>,
    /// Members another system's API brought that Gatepost has no word for, kept for that API's answers.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub foreign: Map<String, Value>,
    /// What differs from the profile's retry policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryOverride>,
    /// Overrides the profile's timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// How many requests may be under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Whether it takes anything.
    pub enabled: bool,
    /// Whether what it takes is kept for it instead of sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// One signing key of a webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SigningKey {
    /// The text as the tenant knows it (`whsec_…` for scheme `standard`).
    pub text: Secret,
    /// When it became the key.
    pub created_at: Timestamp,
    /// Until when it signs beside its successor; `None` for the present key.
    pub expires_at: Option<Timestamp>,
}

/// Everything secret about a webhook. Stored sealed, never serialised in clear.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WebhookSecrets {
    /// The present key first, then older ones that still sign.
    pub signing: Vec<SigningKey>,
    /// Values of the tenant's own headers, by name as given.
    pub headers: BTreeMap<String, Secret>,
    /// The secret part of the endpoint auth.
    pub auth: Option<Secret>,
}

/// A webhook as kept.
#[derive(Clone, PartialEq, Debug)]
pub struct Webhook {
    /// The store's number.
    pub key: WebhookKey,
    /// Whose.
    pub tenant: TenantKey,
    /// Its id.
    pub id: WebhookId,
    /// Grows by one with every change.
    pub revision: u32,
    /// What was registered.
    pub config: WebhookConfig,
    /// [`WebhookSecrets`], sealed under the data key.
    pub sealed_secrets: Vec<u8>,
    /// Why Gatepost (not a person) disabled it, such as `gone`.
    pub disabled_reason: Option<String>,
    /// Until when nothing is sent to it (a receiver's Retry-After).
    pub paused_until: Option<Timestamp>,
    /// The last test, if there was one.
    pub last_test: Option<AttemptRecord>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Set once it is deleted; kept for its history.
    pub deleted_at: Option<Timestamp>,
    /// Why the last verification failed, if it did.
    pub verification_error: Option<String>,
    /// The delivery that tells it of its own deletion: the one thing owed to a deleted webhook.
    pub farewell: Option<DeliverySeq>,
}
