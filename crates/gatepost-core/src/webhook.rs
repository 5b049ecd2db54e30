//! Webhooks: where, which events, how shaped, how signed, how retried.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::delivery::AttemptRecord;
use crate::retry::RetryOverride;
use crate::secret::Secret;
use crate::{TenantKey, Timestamp, WebhookId, WebhookKey};

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
}
