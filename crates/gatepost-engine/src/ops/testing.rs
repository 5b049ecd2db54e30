//! Tests: one real, signed attempt, now.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::catalogue;
use gatepost_core::delivery::Trigger;
use gatepost_core::event::{Event, EventType, Urgency};
use gatepost_core::pattern::PatternSet;
use gatepost_core::tenant::Tenant;
use gatepost_core::{DeliverySeq, EventId, EventSeq, Timestamp, WebhookId};
use gatepost_store::Due;

use super::{TestInput, TestResult};
use crate::deliver::{Route, attempt, request_of};
use crate::engine::Engine;
use crate::error::{Error, FieldError, Kind, Result};

/// What is sent when a test names no type and the catalogue has none that matches.
const PING: &str = "gatepost.ping";

impl Engine {
    /// Sends one signed request to a webhook, enabled or not, marked as a test by a header. Nothing is
    /// stored but the webhook's `last_test`, and health is untouched (SETTLED).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a type without an example when no data are given,
    /// and for a type no webhook ever gets.
    pub async fn test_webhook(&self, tenant: &Tenant, id: WebhookId, input: TestInput) -> Result<TestResult> {
        let webhook = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
        let event = Arc::new(self.test_event(tenant, &webhook.config.events, input)?);
        let webhook = Arc::new(webhook);
        let route = Route::build(&self.inner.vault, Arc::clone(&webhook), Arc::new(tenant.clone()));
        let due = Due {
            // No delivery is stored; the id still must not look like another test's.
            seq: DeliverySeq(event.seq.0),
            created_at: event.accepted_at,
            tenant: tenant.key,
            webhook: webhook.key,
            revision: webhook.revision,
            due: event.accepted_at,
            urgency: Urgency::Urgent,
            attempts: 0,
            budget_start: 0,
            manual: false,
            generation: 0,
            body: None,
            event,
        };
        let tools = self.inner.sender();
        let made = attempt(&tools, &route, &due, Trigger::Test).await;
        self.inner.store.record_test(webhook.key, made.record.clone()).await?;
        let request = request_of(&webhook.config, &due.event, due.id(), &made.record);
        Ok(TestResult { attempt: made.record, request, body: made.body })
    }

    pub(super) fn test_event(&self, tenant: &Tenant, patterns: &[String], input: TestInput) -> Result<Event> {
        let now = self.now();
        let event_type = match input.event_type {
            Some(event_type) if catalogue::is_point_only(&event_type) => {
                let message = "this type is only ever asked as a blocking point and reaches no webhook: \
                               test with a type that is published";
                return Err(Error::Invalid(vec![FieldError::new("/event_type", message)]));
            }
            Some(event_type) => event_type,
            None => self.first_match(patterns)?,
        };
        let example = self.example_of(&event_type).and_then(|d| d.example.as_ref().map(|e| e.get().to_owned()));
        let data = match (input.data, example) {
            (Some(data), _) => data,
            (None, Some(example)) => Bytes::from(example),
            (None, None) if event_type.as_str() == PING => Bytes::from_static(b"{}"),
            (None, None) => {
                let message = "the catalogue has no example of this type: give data, or declare the type with one";
                return Err(Error::Invalid(vec![FieldError::new("/event_type", message)]));
            }
        };
        Ok(test_event(tenant, event_type, data, now, self.inner.entropy.next_u64()))
    }

    /// The first type of the catalogue, by name, that the webhook subscribes to and can get.
    fn first_match(&self, patterns: &[String]) -> Result<EventType> {
        let set = PatternSet::parse(patterns).unwrap_or_default();
        let types = self.inner.catalogue.all();
        let has_example = |name: &&EventType| {
            types.get(*name).and_then(|v| v.definition.as_ref()).is_some_and(|d| d.example.is_some())
        };
        let found =
            types.keys().filter(|name| set.matches(name) && !catalogue::is_point_only(name)).find(has_example).cloned();
        match found {
            Some(event_type) => Ok(event_type),
            None => PING.parse().map_err(|_| Error::NotFound(Kind::EventType)),
        }
    }
}

fn test_event(tenant: &Tenant, event_type: EventType, data: Bytes, now: Timestamp, random: u64) -> Event {
    // A number no stored event has, so that a receiver never takes a test for a repeat.
    let seq = EventSeq((random >> 1) as i64);
    Event {
        seq,
        tenant: tenant.key,
        id: EventId::numbered(now, seq),
        event_type,
        timestamp: now,
        accepted_at: now,
        subject: None,
        urgency: Urgency::Urgent,
        attributes: None,
        data,
        registry_version: 0,
    }
}
