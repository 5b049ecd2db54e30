//! What is answered. Field order is the order on the wire.

mod attempt;
mod catalogue;
mod hooks;
mod jobs;
mod verify;
mod webhook;

use gatepost_core::event::{Event, EventType, Subject};
use gatepost_core::matching::MatchReason;
use gatepost_core::tenant::{Tenant, TenantSettings};
use gatepost_core::{DeliveryId, EventId, JobId, KeyId, TenantId, Timestamp, WebhookId};
use gatepost_engine::ops::{DeliveryView, EventDetail, Published};
use gatepost_engine::store::{DeliveryRow, KeyRow};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::schema;
use crate::problem::Problem;
pub(crate) use attempt::{ShowAttempt, ShowLastTest, ShowRequest, ShowTest};
pub(crate) use catalogue::{ShowAttemptMade, ShowEventType};
pub(crate) use hooks::{ShowHook, ShowInvocation, show_outcome_taken, show_point, show_try};
pub(crate) use jobs::{ShowJob, ShowJobId, ShowReplayCount, ShowTold, csv_header, csv_row};
pub(crate) use verify::{ShowHealth, ShowVerified};
pub(crate) use webhook::ShowWebhook;

/// Bytes of one delivery's request bodies shown in all: every attempt sent the same bytes (P3), so
/// leaving out the later ones hides nothing.
const BODIES_MAX: usize = 8 << 20;

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListPage<T> {
    /// The rows.
    pub(crate) data: Vec<T>,
    /// Where the next page goes on; null at the end of the list.
    pub(crate) next_cursor: Option<String>,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct ShowTenant<'a> {
    #[schema(value_type = String)]
    id: &'a TenantId,
    name: Option<&'a str>,
    #[schema(value_type = schema::Environment)]
    environment: &'static str,
    #[schema(value_type = schema::TenantSettings)]
    settings: ShowSettings<'a>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

#[derive(Serialize)]
struct ShowSettings<'a> {
    require_verification: bool,
    strict_types: bool,
    enforce_builtin_schemas: bool,
    retention: schema::Retention,
    hooks: &'static str,
    quotas: schema::Quotas,
    allow_nets: &'a [String],
}

impl<'a> From<&'a TenantSettings> for ShowSettings<'a> {
    fn from(settings: &'a TenantSettings) -> Self {
        let TenantSettings {
            require_verification,
            strict_types,
            enforce_builtin_schemas,
            retention,
            hooks,
            quotas,
            allow_nets,
        } = settings;
        ShowSettings {
            require_verification: *require_verification,
            strict_types: *strict_types,
            enforce_builtin_schemas: *enforce_builtin_schemas,
            retention: schema::Retention { events_days: retention.events_days, attempts_days: retention.attempts_days },
            hooks: hooks.as_str(),
            quotas: schema::Quotas {
                webhooks: quotas.webhooks,
                events_per_s: quotas.events_per_s,
                pending: quotas.pending,
            },
            allow_nets,
        }
    }
}

/// A tenant as it would be written, with its id; settings that are as by default are left out.
pub(crate) fn written_tenant(tenant: &Tenant) -> serde_json::Map<String, serde_json::Value> {
    // Texts, numbers and lists of them: cannot fail.
    let members = |settings: &TenantSettings| match serde_json::to_value(ShowSettings::from(settings)) {
        Ok(serde_json::Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    let bare = members(&TenantSettings::default());
    let mut settings = members(&tenant.settings);
    settings.retain(|name, value| bare.get(name) != Some(value));
    let mut written = serde_json::Map::new();
    written.insert("id".to_owned(), tenant.id.as_str().into());
    if let Some(name) = &tenant.name {
        written.insert("name".to_owned(), name.as_str().into());
    }
    written.insert("environment".to_owned(), tenant.environment.as_str().into());
    if !settings.is_empty() {
        written.insert("settings".to_owned(), settings.into());
    }
    written
}

impl<'a> From<&'a Tenant> for ShowTenant<'a> {
    fn from(tenant: &'a Tenant) -> Self {
        ShowTenant {
            id: &tenant.id,
            name: tenant.name.as_deref(),
            environment: tenant.environment.as_str(),
            settings: ShowSettings::from(&tenant.settings),
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
        }
    }
}

/// An API key. The key itself is in the answer of its creation alone.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct ShowKey<'a> {
    #[schema(value_type = String)]
    id: KeyId,
    /// The key itself: only in the answer of its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    name: &'a str,
    #[schema(value_type = Vec<schema::Scope>)]
    scopes: Vec<&'static str>,
    /// The only tenant it may touch.
    #[schema(value_type = Option<String>)]
    tenant: Option<&'a TenantId>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl<'a> ShowKey<'a> {
    /// With the key itself, if this is the one time it is shown.
    pub(crate) fn new(row: &'a KeyRow, key: Option<&'a str>) -> Self {
        ShowKey {
            id: row.id,
            key,
            name: &row.name,
            scopes: row.scopes.iter().map(|scope| scope.as_str()).collect(),
            tenant: row.tenant.as_ref(),
            expires_at: row.expires_at,
            created_at: row.created_at,
        }
    }
}

/// An event accepted.
#[derive(Serialize, ToSchema)]
#[schema(as = Published)]
pub(crate) struct ShowPublished<'a> {
    #[schema(value_type = String)]
    id: &'a EventId,
    #[schema(value_type = String)]
    r#type: &'a EventType,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// How many deliveries it has.
    deliveries: u32,
    /// Whether it had been accepted before.
    duplicate: bool,
}

impl<'a> From<&'a Published> for ShowPublished<'a> {
    fn from(published: &'a Published) -> Self {
        ShowPublished {
            id: &published.event.id,
            r#type: &published.event.event_type,
            timestamp: published.event.timestamp,
            deliveries: published.deliveries,
            duplicate: published.duplicate,
        }
    }
}

/// Events accepted together.
#[derive(Serialize, ToSchema)]
#[schema(as = PublishedBatch)]
pub(crate) struct ShowBatch<'a> {
    /// In the order they were sent.
    pub(crate) events: Vec<ShowPublished<'a>>,
}

/// An event in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct ShowEvent<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    facts: EventFacts<'a>,
    /// How many deliveries it has.
    deliveries: u32,
}

impl<'a> ShowEvent<'a> {
    /// An event with its number of deliveries.
    pub(crate) fn new(event: &'a Event, deliveries: u32) -> Result<Self, Problem> {
        Ok(ShowEvent { facts: EventFacts::new(event)?, deliveries })
    }
}

/// An event with its consequences.
#[derive(Serialize, ToSchema)]
#[schema(as = EventDetail)]
pub(crate) struct ShowEventDetail<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    facts: EventFacts<'a>,
    /// Its deliveries, oldest first, at most 1,000.
    deliveries: Vec<ShowDelivery<'a>>,
    /// True when there are more deliveries than `deliveries` lists; `GET …/deliveries` lists them all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    deliveries_truncated: bool,
    /// Why each webhook did or did not match, as of acceptance, at most 1,000.
    matching: Vec<ShowMatching>,
    /// True when there are more webhooks than `matching` lists, or explaining more would cost too much.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    matching_truncated: bool,
}

impl<'a> ShowEventDetail<'a> {
    /// An event's single view.
    pub(crate) fn new(detail: &'a EventDetail) -> Result<Self, Problem> {
        Ok(ShowEventDetail {
            facts: EventFacts::new(&detail.event)?,
            deliveries: detail.deliveries.iter().map(ShowDelivery::from).collect(),
            deliveries_truncated: detail.deliveries_truncated,
            matching: detail
                .matching
                .iter()
                .map(|row| ShowMatching {
                    webhook_id: row.webhook_id,
                    matched: row.reason == MatchReason::Matched,
                    reason: row.reason.as_str(),
                })
                .collect(),
            matching_truncated: detail.matching_truncated,
        })
    }
}

/// What was published.
#[derive(Serialize, ToSchema)]
struct EventFacts<'a> {
    #[schema(value_type = String)]
    id: &'a EventId,
    #[schema(value_type = String)]
    r#type: &'a EventType,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    #[schema(value_type = Option<schema::Subject>)]
    subject: Option<&'a Subject>,
    #[schema(value_type = schema::Urgency)]
    urgency: &'static str,
    #[schema(value_type = Option<Object>)]
    attributes: Option<&'a RawValue>,
    /// As published, byte for byte.
    #[schema(value_type = Value)]
    data: &'a RawValue,
}

impl<'a> EventFacts<'a> {
    fn new(event: &'a Event) -> Result<Self, Problem> {
        Ok(EventFacts {
            id: &event.id,
            r#type: &event.event_type,
            timestamp: event.timestamp,
            accepted_at: event.accepted_at,
            subject: event.subject.as_ref(),
            urgency: event.urgency.as_str(),
            attributes: event.attributes.as_deref().map(raw).transpose()?,
            data: raw(&event.data)?,
        })
    }
}

/// Kept JSON, as it is. It was judged when it was accepted: if it is no JSON now, the store is damaged.
pub(crate) fn raw(bytes: &[u8]) -> Result<&RawValue, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        tracing::error!(%error, "kept JSON does not parse");
        Problem::internal()
    })
}

/// Why a webhook did or did not match.
#[derive(Serialize, ToSchema)]
#[schema(as = Matching)]
pub(crate) struct ShowMatching {
    #[schema(value_type = String)]
    webhook_id: WebhookId,
    matched: bool,
    #[schema(value_type = schema::MatchReason)]
    reason: &'static str,
}

/// A delivery.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct ShowDelivery<'a> {
    #[schema(value_type = String)]
    id: DeliveryId,
    #[schema(value_type = String)]
    webhook_id: WebhookId,
    #[schema(value_type = Vec<String>)]
    event_ids: &'a [EventId],
    #[schema(value_type = String)]
    event_type: &'a EventType,
    #[schema(value_type = Option<schema::Subject>)]
    subject: Option<&'a Subject>,
    #[schema(value_type = schema::DeliveryState)]
    state: &'static str,
    #[schema(value_type = Option<schema::DeliveryReason>)]
    reason: Option<&'static str>,
    /// How many attempts were made.
    attempts: u32,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl<'a> From<&'a DeliveryRow> for ShowDelivery<'a> {
    fn from(row: &'a DeliveryRow) -> Self {
        ShowDelivery {
            id: row.id(),
            webhook_id: row.webhook_id,
            event_ids: &row.event_ids,
            event_type: &row.event_type,
            subject: row.subject.as_ref(),
            state: row.state.as_str(),
            reason: row.reason.map(|reason| reason.as_str()),
            attempts: row.attempts,
            next_attempt_at: row.next_attempt_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A delivery with its attempts.
#[derive(Serialize, ToSchema)]
#[schema(as = DeliveryDetail)]
pub(crate) struct ShowDeliveryDetail<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    row: ShowDelivery<'a>,
    /// Of a replay: the delivery it repeats, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    replay_of: Option<DeliveryId>,
    /// Of a replay: the job that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    replay_job_id: Option<JobId>,
    /// Oldest first.
    attempt_list: Vec<ShowAttempt<'a>>,
}

impl<'a> From<&'a DeliveryView> for ShowDeliveryDetail<'a> {
    fn from(view: &'a DeliveryView) -> Self {
        let body = view.body.as_deref();
        let shown = match body.map_or(0, <[u8]>::len) {
            0 => usize::MAX,
            len => (BODIES_MAX / len).max(1),
        };
        let id = view.detail.row.id();
        let attempts = view.detail.attempts.iter().zip(&view.requests).enumerate();
        ShowDeliveryDetail {
            row: ShowDelivery::from(&view.detail.row),
            replay_of: view.replay_of.and_then(|replay| replay.delivery),
            replay_job_id: view.replay_of.and_then(|replay| replay.job),
            attempt_list: attempts
                .map(|(index, (attempt, request))| {
                    let request = ShowRequest::new(request, body.filter(|_| index < shown));
                    ShowAttempt::new(id, attempt, request)
                })
                .collect(),
        }
    }
}

/// A new secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Secret)]
pub(crate) struct ShowSecret<'a> {
    /// Shown this once: null where the answer is repeated under an Idempotency-Key.
    #[schema(value_type = Option<String>)]
    pub(crate) secret: &'a str,
}
