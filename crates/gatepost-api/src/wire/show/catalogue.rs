//! The catalogue, and what a stream of changes tells of attempts, as they are answered.

use std::collections::BTreeMap;

use gatepost_core::event::EventType;
use gatepost_core::{AttemptId, DeliveryId, TenantId, Timestamp, WebhookId};
use gatepost_engine::ops::TenantTypeView;
use gatepost_engine::{AttemptMade, EventTypeView};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::attempt::{ShowTimings, millis};
use crate::wire::schema;

/// An event type of the catalogue.
#[derive(Serialize, ToSchema)]
#[schema(as = EventType)]
pub(crate) struct ShowEventType<'a> {
    #[schema(value_type = String)]
    name: &'a EventType,
    family: &'a str,
    description: &'a str,
    #[schema(value_type = Value)]
    example: Option<&'a RawValue>,
    /// Of a type that several systems have, the examples of those whose data look otherwise, by system.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    examples: Option<&'a BTreeMap<String, Box<RawValue>>>,
    #[schema(value_type = Value)]
    schema: Option<&'a RawValue>,
    #[schema(value_type = schema::Urgency)]
    urgency: &'static str,
    deprecated: bool,
    /// False: nobody declared it, it was only seen in a publish.
    declared: bool,
    /// Whether it came with the server.
    builtin: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
    /// With `?tenant=`: the tenant, if the declaration is its own; null: it is the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    tenant: Option<Option<&'a TenantId>>,
    /// With `?tenant=`: when the tenant last published it; null: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    last_published: Option<Option<Timestamp>>,
}

impl<'a> From<&'a EventTypeView> for ShowEventType<'a> {
    fn from(view: &'a EventTypeView) -> Self {
        let definition = view.definition.as_deref();
        ShowEventType {
            name: &view.name,
            family: definition.map_or(view.name.family(), |d| &d.family),
            description: definition.map_or("", |d| &d.description),
            example: definition.and_then(|d| d.example.as_deref()),
            examples: definition.map(|d| &d.examples).filter(|examples| !examples.is_empty()),
            schema: definition.and_then(|d| d.schema.as_deref()),
            urgency: definition.map(|d| d.urgency).unwrap_or_default().as_str(),
            deprecated: definition.is_some_and(|d| d.deprecated),
            declared: definition.is_some(),
            builtin: view.builtin,
            created_at: view.created_at,
            updated_at: view.updated_at,
            tenant: None,
            last_published: None,
        }
    }
}

impl<'a> ShowEventType<'a> {
    /// A type as `tenant` has it.
    pub(crate) fn of(tenant: &'a TenantId, seen: &'a TenantTypeView) -> Self {
        ShowEventType {
            tenant: Some(seen.own.then_some(tenant)),
            last_published: Some(seen.last_published),
            ..ShowEventType::from(&seen.view)
        }
    }
}

/// An attempt, as a stream of changes tells of it: what was sent and answered is in the delivery's single
/// view.
#[derive(Serialize, ToSchema)]
#[schema(as = AttemptMade)]
pub(crate) struct ShowAttemptMade<'a> {
    id: String,
    #[schema(value_type = String)]
    delivery_id: DeliveryId,
    #[schema(value_type = String)]
    webhook_id: WebhookId,
    /// Which attempt of the delivery, from 1.
    number: u32,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    duration_ms: u32,
    #[schema(value_type = schema::Outcome)]
    outcome: &'static str,
    status: Option<u16>,
    error: Option<&'a str>,
    #[schema(value_type = schema::Trigger)]
    trigger: &'static str,
    timings: ShowTimings,
    /// Whether the request went out a second time within the attempt.
    resent: bool,
}

impl<'a> From<&'a AttemptMade> for ShowAttemptMade<'a> {
    fn from(made: &'a AttemptMade) -> Self {
        ShowAttemptMade {
            id: AttemptId::new(made.delivery, made.number).to_string(),
            delivery_id: made.delivery,
            webhook_id: made.webhook_id,
            number: made.number,
            started_at: made.started_at,
            duration_ms: millis(made.timings.total_us),
            outcome: made.outcome.as_str(),
            status: made.status,
            error: made.error.as_deref(),
            trigger: made.trigger.as_str(),
            timings: ShowTimings::from(&made.timings),
            resent: made.resent,
        }
    }
}
