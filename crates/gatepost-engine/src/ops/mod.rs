//! Operations: what Gatepost does, called by API, CLI and tests alike. One file per kind of thing.

mod deliveries;
mod erasure;
mod event_types;
mod events;
pub(crate) mod filter_turns;
mod jobs;
mod keys;
mod preview;
mod replay;
mod reveal;
mod tenant_types;
mod tenants;
mod testing;
mod validate;
mod verify;
mod webhooks;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::auth::EndpointAuth;
use gatepost_core::delivery::{AttemptRecord, Request};
use gatepost_core::event::{Event, EventType, Subject, Urgency};
use gatepost_core::matching::MatchReason;
use gatepost_core::retry::RetryOverride;
use gatepost_core::secret::{MASK, Secret};
use gatepost_core::tenant::{Environment, HookSwitch, TenantSettings};
use gatepost_core::trace::TraceContext;
use gatepost_core::webhook::{Batch, Ordering, Payload, SigningEntry, Verification, Webhook};
use gatepost_core::{EventId, KeyId, TenantId, Timestamp, WebhookId};
use gatepost_store::{DeliveryDetail, DeliveryRow, ReplayOf, Scope};
use serde_json::{Map, Value};

pub use erasure::ToldInput;
pub use event_types::check_schema;
pub(crate) use events::facts_of;
pub use events::unpublishable;
pub use preview::WebhookPreview;
pub use replay::ReplayInput;
pub use tenant_types::TenantTypeView;
pub use tenants::{QuotasInput, RetentionInput, check_net};
pub use verify::{VerifyResult, VerifyStep};

use crate::views::HealthView;

/// A tenant to put. `None` keeps what is there.
#[derive(Clone, Debug, Default)]
pub struct TenantInput {
    /// `Some(None)` clears it.
    pub name: Option<Option<String>>,
    /// Production or sandbox.
    pub environment: Option<Environment>,
    /// Settings; absent members keep.
    pub settings: Option<SettingsInput>,
}

/// A tenant's settings to change; `None` keeps.
#[derive(Clone, Debug, Default)]
pub struct SettingsInput {
    /// Whether webhooks must be verified.
    pub require_verification: Option<bool>,
    /// Whether only declared types may be published.
    pub strict_types: Option<bool>,
    /// Whether events of built-in types must fit the schemas that come with Gatepost.
    pub enforce_builtin_schemas: Option<bool>,
    /// How long things are kept, by member.
    pub retention: RetentionInput,
    /// The switch for blocking hooks.
    pub hooks: Option<HookSwitch>,
    /// How much there may be, by member.
    pub quotas: QuotasInput,
    /// CIDRs opened to this tenant alone.
    pub allow_nets: Option<Vec<String>>,
}

impl SettingsInput {
    /// `present` with what this input sets.
    pub fn over(self, present: &TenantSettings) -> TenantSettings {
        TenantSettings {
            require_verification: self.require_verification.unwrap_or(present.require_verification),
            strict_types: self.strict_types.unwrap_or(present.strict_types),
            enforce_builtin_schemas: self.enforce_builtin_schemas.unwrap_or(present.enforce_builtin_schemas),
            retention: self.retention.over(present.retention),
            hooks: self.hooks.unwrap_or(present.hooks),
            quotas: self.quotas.over(present.quotas),
            allow_nets: self.allow_nets.unwrap_or_else(|| present.allow_nets.clone()),
        }
    }
}

/// A webhook as a caller describes it, whole: for a change, the API merges the patch into what is
/// there first (RFC 7396). A member that could not be read is `None` here and an error there.
#[derive(Clone, Debug, Default)]
pub struct WebhookInput {
    /// Required.
    pub name: Option<String>,
    /// More words.
    pub description: Option<String>,
    /// Required.
    pub url: Option<String>,
    /// Required.
    pub events: Option<Vec<String>>,
    /// CEL.
    pub filter: Option<String>,
    /// Default `standard`; only at creation.
    pub profile: Option<String>,
    /// Names and values; the value `***` keeps the present one.
    pub headers: Vec<(String, String)>,
    /// Overrides the profile's format.
    pub format: Option<String>,
    /// Overrides the profile's signing.
    pub signing: Option<Vec<SigningEntry>>,
    /// What of `data` is sent.
    pub payload: Option<Payload>,
    /// The profile's own options.
    pub options: Map<String, Value>,
    /// How Gatepost proves itself besides the signature.
    pub auth: Option<AuthInput>,
    /// Events wait for each other.
    pub batch: Option<Batch>,
    /// Overrides the profile's way of verification.
    pub verification: Option<Verification>,
    /// Paths by event type.
    pub paths: BTreeMap<String, String>,
    /// Default: none.
    pub ordering: Option<Ordering>,
    /// Requests per second.
    pub rate_limit_per_s: Option<u32>,
    /// Members of another system's API, kept for its answers. `None` keeps what is there.
    pub foreign: Option<Map<String, Value>>,
    /// Differences from the profile's policy.
    pub retry: Option<RetryOverride>,
    /// Milliseconds.
    pub timeout_ms: Option<u32>,
    /// Requests at once.
    pub max_in_flight: Option<u32>,
    /// Import; only at creation.
    pub secret: Option<Secret>,
    /// Default true.
    pub enabled: Option<bool>,
    /// Default false.
    pub paused: Option<bool>,
}

/// How Gatepost is to prove itself to an endpoint.
#[derive(Clone, Debug)]
pub struct AuthInput {
    /// What is not secret.
    pub auth: EndpointAuth,
    /// The secret member; `***` keeps the present one of the same type.
    pub secret: Option<Secret>,
}

impl WebhookView {
    /// Whether no verification is outstanding.
    pub fn verified(&self) -> bool {
        !self.verification.required || self.webhook.config.verified_at.is_some()
    }
}

impl WebhookInput {
    /// A webhook as it is: what another API that can express only some members changes, and puts back.
    pub fn of(webhook: &Webhook) -> Self {
        let config = webhook.config.clone();
        WebhookInput {
            name: Some(config.name),
            description: config.description,
            url: Some(config.url),
            events: Some(config.events),
            filter: config.filter,
            profile: None,
            headers: config.header_names.into_iter().map(|name| (name, MASK.to_owned())).collect(),
            format: config.format,
            signing: config.signing,
            payload: config.payload,
            options: config.options,
            auth: config.auth.map(|auth| AuthInput { auth, secret: Some(Secret::new(MASK)) }),
            batch: config.batch,
            verification: config.verification,
            paths: config.paths,
            ordering: Some(config.ordering),
            rate_limit_per_s: config.rate_limit_per_s,
            foreign: None,
            retry: config.retry,
            timeout_ms: config.timeout_ms,
            max_in_flight: config.max_in_flight,
            secret: None,
            enabled: Some(config.enabled),
            paused: Some(config.paused),
        }
    }
}

/// How a webhook's endpoint is verified, defaults applied.
#[derive(Clone, Copy, Debug)]
pub struct VerificationView {
    /// How.
    pub mode: &'static str,
    /// Whether nothing is sent before it has succeeded, by the webhook's, the profile's or the tenant's
    /// word.
    pub required: bool,
}

/// A webhook to show.
#[derive(Clone, Debug)]
pub struct WebhookView {
    /// As kept. Its sealed secrets stay sealed; header values are `***` by contract.
    pub webhook: Arc<Webhook>,
    /// How its endpoint is verified.
    pub verification: VerificationView,
    /// The public half (`whpk_…`) of its key pair, if it signs with one.
    pub public_key: Option<String>,
    /// Things worth a second look, such as subscriptions to types nobody declared.
    pub warnings: Vec<String>,
    /// How its endpoint fares.
    pub health: HealthView,
}

/// An event to publish, parsed.
#[derive(Clone, Debug)]
pub struct PublishInput {
    /// The caller's id.
    pub id: Option<EventId>,
    /// The id to use instead when `id` is taken by an event of another CloudEvents source.
    pub fallback: Option<CloudEventIdentity>,
    /// What happened.
    pub event_type: EventType,
    /// When; default: now.
    pub timestamp: Option<Timestamp>,
    /// About whom.
    pub subject: Option<Subject>,
    /// One JSON value, byte for byte. An exact allocation: it is kept as it is.
    pub data: Bytes,
    /// A JSON object, byte for byte.
    pub attributes: Option<Bytes>,
    /// Default: the catalogue's.
    pub urgency: Option<Urgency>,
    /// Where in the publisher's trace this happens. No part of what makes two events the same.
    pub trace: Option<TraceContext>,
}

/// What identifies a CloudEvent beside its id.
#[derive(Clone, Debug)]
pub struct CloudEventIdentity {
    /// Its source.
    pub source: String,
    /// The id made of source and id.
    pub id: EventId,
}

/// An event published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The event as accepted (now, or the first time).
    pub event: Arc<Event>,
    /// How many deliveries it has.
    pub deliveries: u32,
    /// Whether it had been accepted before.
    pub duplicate: bool,
}

impl From<&gatepost_store::Accepted> for Published {
    fn from(accepted: &gatepost_store::Accepted) -> Self {
        Published {
            event: Arc::clone(&accepted.event),
            deliveries: accepted.delivery_count,
            duplicate: accepted.duplicate,
        }
    }
}

/// An event with its consequences.
#[derive(Clone, Debug)]
pub struct EventDetail {
    /// The event.
    pub event: Event,
    /// Its deliveries, oldest first, at most 1,000.
    pub deliveries: Vec<DeliveryRow>,
    /// Whether there are more deliveries.
    pub deliveries_truncated: bool,
    /// Why each webhook did or did not match, as of acceptance, at most 1,000.
    pub matching: Vec<Matching>,
    /// Whether there were more webhooks, or explaining more would have cost too much.
    pub matching_truncated: bool,
}

/// Why a webhook did or did not match.
#[derive(Clone, Debug)]
pub struct Matching {
    /// Which.
    pub webhook_id: WebhookId,
    /// Why.
    pub reason: MatchReason,
}

/// A delivery with everything known about it.
#[derive(Clone, Debug)]
pub struct DeliveryView {
    /// As kept.
    pub detail: DeliveryDetail,
    /// What each attempt sent, in the order of `detail.attempts`.
    pub requests: Vec<Request>,
    /// Where it comes from, if a replay made it.
    pub replay_of: Option<ReplayOf>,
    /// The body that was, or would be, sent. `None`: its webhook's profile is no longer known.
    pub body: Option<Bytes>,
}

/// A test to make.
#[derive(Clone, Debug, Default)]
pub struct TestInput {
    /// Default: the first catalogue type that matches.
    pub event_type: Option<EventType>,
    /// Default: the catalogue's example.
    pub data: Option<Bytes>,
}

/// What a test came to.
#[derive(Clone, Debug)]
pub struct TestResult {
    /// The attempt (trigger `test`).
    pub attempt: AttemptRecord,
    /// What was sent.
    pub request: Request,
    /// The body that was sent.
    pub body: Bytes,
}

/// A key to make.
#[derive(Clone, Debug)]
pub struct KeyInput {
    /// A name for people, 1 to 200 characters.
    pub name: String,
    /// At least one.
    pub scopes: Vec<Scope>,
    /// The only tenant it may touch.
    pub tenant: Option<TenantId>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// Who is calling.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key's id; `None` for the installation's admin key.
    pub key: Option<KeyId>,
    /// What it may do, as granted.
    pub scopes: Vec<Scope>,
    /// The only tenant it may touch.
    pub tenant: Option<TenantId>,
    /// Of a callback token: when it was made. It opens no tenant made later under the same id.
    pub issued_at: Option<Timestamp>,
}

impl Caller {
    /// Whether the caller may do what needs `scope`: scopes are exact, but `admin` has all and
    /// `manage` includes `read` (SETTLED).
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes
            .iter()
            .any(|have| *have == scope || *have == Scope::Admin || (*have == Scope::Manage && scope == Scope::Read))
    }

    /// Whether the caller may touch `tenant` at all.
    pub fn sees(&self, tenant: &TenantId) -> bool {
        self.tenant.as_ref().is_none_or(|own| own == tenant)
    }
}
