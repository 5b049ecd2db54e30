//! Webhooks as Gatepost's own events speak of them: what the API shows, without headers and secrets.

use std::collections::BTreeMap;

use bytes::Bytes;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::{EventType, Subject};
use gatepost_core::health::Health;
use gatepost_core::retry::RetryOverride;
use gatepost_core::secret::MASK;
use gatepost_core::webhook::{Batch, Payload, SigningEntry, Webhook};
use gatepost_core::{DeliveryId, EventId, Timestamp, WebhookId, profiles, standing};
use gatepost_store::DeliveryRow;
use serde::Serialize;
use serde_json::{Map, Value};

/// How an endpoint fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealthState {
    /// Nothing is wrong.
    Ok,
    /// Nothing but failures came lately.
    Failing,
    /// Gatepost disabled the webhook.
    Disabled,
}

impl HealthState {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthState::Ok => "ok",
            HealthState::Failing => "failing",
            HealthState::Disabled => "disabled",
        }
    }
}

/// A webhook's health, to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthView {
    /// How it fares.
    pub state: HealthState,
    /// Since when.
    pub since: Timestamp,
    /// Attempts that succeeded within a day.
    pub success_24h: u64,
    /// Attempts that failed within a day.
    pub failure_24h: u64,
    /// Why the last attempt that failed did.
    pub last_error: Option<String>,
}

/// The health of a webhook from what is kept of it.
pub(crate) fn health(webhook: &Webhook, kept: Option<&Health>, now: Timestamp) -> HealthView {
    let (success_24h, failure_24h) = kept.map_or((0, 0), |health| health.last_day(now));
    let state = if !webhook.config.enabled && webhook.disabled_reason.is_some() {
        HealthState::Disabled
    } else if kept.is_some_and(Health::is_failing) {
        HealthState::Failing
    } else {
        HealthState::Ok
    };
    HealthView {
        state,
        since: kept.and_then(Health::since).unwrap_or(webhook.created_at),
        success_24h,
        failure_24h,
        last_error: kept.and_then(Health::last_error).map(str::to_owned),
    }
}

/// The health as JSON.
#[derive(Serialize)]
struct HealthObject<'a> {
    state: &'static str,
    since: Timestamp,
    success_24h: u64,
    failure_24h: u64,
    last_error: Option<&'a str>,
}

#[derive(Serialize)]
struct VerificationObject<'a> {
    mode: &'static str,
    required: bool,
    verified_at: Option<Timestamp>,
    last_error: Option<&'a str>,
}

/// A webhook as JSON: members and their order are the API's. What is not set is null, as there.
#[derive(Serialize)]
struct WebhookObject<'a> {
    id: WebhookId,
    name: &'a str,
    description: Option<&'a str>,
    url: &'a str,
    events: &'a [String],
    filter: Option<&'a str>,
    profile: &'a str,
    format: Option<&'a str>,
    signing: Option<&'a [SigningEntry]>,
    payload: Option<&'a Payload>,
    options: &'a Map<String, Value>,
    auth: Option<Value>,
    retry: Option<&'a RetryOverride>,
    timeout_ms: Option<u32>,
    batch: Option<Batch>,
    paths: &'a BTreeMap<String, String>,
    ordering: &'static str,
    rate_limit_per_s: Option<u32>,
    max_in_flight: Option<u32>,
    enabled: bool,
    paused: bool,
    verified: bool,
    verification: VerificationObject<'a>,
    health: HealthObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<&'a str>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A webhook as an own event's data; `disabled_reason`: why Gatepost disabled it, where that is told.
pub(crate) fn webhook_object(
    webhook: &Webhook,
    require_all: bool,
    health: &HealthView,
    disabled_reason: Option<&str>,
) -> Bytes {
    let config = &webhook.config;
    let verifying = profiles::verifying(config, require_all);
    json_bytes(&WebhookObject {
        id: webhook.id,
        name: &config.name,
        description: config.description.as_deref(),
        url: &config.url,
        events: &config.events,
        filter: config.filter.as_deref(),
        profile: &config.profile,
        format: config.format.as_deref(),
        signing: config.signing.as_deref(),
        payload: config.payload.as_ref(),
        options: &config.options,
        auth: auth_object(webhook),
        retry: config.retry.as_ref(),
        timeout_ms: config.timeout_ms,
        batch: config.batch,
        paths: &config.paths,
        ordering: config.ordering.as_str(),
        rate_limit_per_s: config.rate_limit_per_s,
        max_in_flight: config.max_in_flight,
        enabled: config.enabled,
        paused: config.paused,
        verified: !standing::is_unverified(config, require_all),
        verification: VerificationObject {
            mode: verifying.mode.name(),
            required: verifying.required,
            verified_at: config.verified_at,
            last_error: webhook.verification_error.as_deref(),
        },
        health: HealthObject {
            state: health.state.as_str(),
            since: health.since,
            success_24h: health.success_24h,
            failure_24h: health.failure_24h,
            last_error: health.last_error.as_deref(),
        },
        disabled_reason,
        created_at: webhook.created_at,
        updated_at: webhook.updated_at,
    })
}

fn auth_object(webhook: &Webhook) -> Option<Value> {
    let auth = webhook.config.auth.as_ref()?;
    let mut value = serde_json::to_value(auth).ok()?;
    if let Value::Object(members) = &mut value {
        members.insert(auth.secret_member().to_owned(), MASK.into());
    }
    Some(value)
}

/// A delivery as JSON, as the API lists it.
#[derive(Serialize)]
struct DeliveryObject<'a> {
    id: DeliveryId,
    webhook_id: WebhookId,
    event_ids: &'a [EventId],
    event_type: &'a EventType,
    subject: Option<&'a Subject>,
    state: &'static str,
    reason: &'static str,
    attempts: u32,
    next_attempt_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A delivery that was given up, as an own event's data. As it ended: somebody may have reopened it since.
pub(crate) fn delivery_object(row: &DeliveryRow, reason: Reason) -> Bytes {
    json_bytes(&DeliveryObject {
        id: row.id(),
        webhook_id: row.webhook_id,
        event_ids: &row.event_ids,
        event_type: &row.event_type,
        subject: row.subject.as_ref(),
        state: DeliveryState::Failed.as_str(),
        reason: reason.as_str(),
        attempts: row.attempts,
        next_attempt_at: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

fn json_bytes(object: &impl Serialize) -> Bytes {
    // Nothing in these has keys that are no texts, the one thing that could not be written.
    Bytes::from(serde_json::to_vec(object).unwrap_or_else(|_| b"null".to_vec()))
}
