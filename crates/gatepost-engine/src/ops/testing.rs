//! Tests: one real, signed attempt, now.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::catalogue;
use gatepost_core::delivery::Trigger;
use gatepost_core::event::{Event, EventType, Urgency};
use gatepost_core::pattern::PatternSet;
use gatepost_core::profiles::{self, Probe, Wire};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Webhook;
use gatepost_core::{DeliverySeq, EventId, EventSeq, Timestamp, WebhookId};
use gatepost_store::{DeliveryEvents, Due};

use super::{TestInput, TestResult};
use crate::deliver::{Order, Route, attempt};
use crate::engine::Engine;
use crate::error::{Error, FieldError, Kind, Result};
use crate::render::{self, Attempted};

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
        let webhook = Arc::new(webhook);
        let probe = profiles::profile(&webhook.config.profile).and_then(|profile| profile.probe());
        let result = match probe.filter(|_| input.event_type.is_none() && input.data.is_none()) {
            Some(probe) => {
                let event = test_event(tenant, ping()?, Bytes::from_static(probe.body), self.now(), self.random());
                self.try_once(tenant, &webhook, event, Some(&probe)).await
            }
            None => {
                let event = self.test_event(tenant, &webhook.config.profile, &webhook.config.events, input)?;
                self.try_once(tenant, &webhook, event, None).await
            }
        };
        self.inner.store.record_test(webhook.key, result.attempt.clone()).await?;
        Ok(result)
    }

    /// Sends one signed request marked as a test, of which nothing is stored: `event`, or in its place a
    /// `probe` as it is.
    pub(crate) async fn try_once(
        &self,
        tenant: &Tenant,
        webhook: &Arc<Webhook>,
        event: Event,
        probe: Option<&Probe>,
    ) -> TestResult {
        let route = Route::build(&self.inner.vault, Arc::clone(webhook), Arc::new(tenant.clone()));
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
            ordered: false,
            body: probe.map(|probe| Bytes::from_static(probe.body)),
            events: DeliveryEvents::One(Arc::new(event)),
        };
        let path = probe.map(|probe| probe.path);
        let order = Order { due: &due, trigger: Trigger::Test, path };
        let made = attempt(&self.inner.sender(), &*self.inner.store, &route, &order).await;
        let wire = Wire::of(&webhook.config).ok();
        let attempted =
            Attempted { config: &webhook.config, wire: wire.as_ref(), events: &due.events, delivery: due.id(), path };
        let request = render::request_of(&attempted, &made.record);
        TestResult { attempt: Arc::unwrap_or_clone(made.record), request, body: made.body.unwrap_or_default() }
    }

    /// An event of type `gatepost.ping`, of which nothing is stored.
    ///
    /// # Errors
    /// Never: the name is one.
    pub(crate) fn ping_event(&self, tenant: &Tenant) -> Result<Event> {
        Ok(test_event(tenant, ping()?, Bytes::from_static(b"{}"), self.now(), self.random()))
    }

    fn random(&self) -> u64 {
        self.inner.entropy.next_u64()
    }

    pub(super) fn test_event(
        &self,
        tenant: &Tenant,
        profile: &str,
        patterns: &[String],
        input: TestInput,
    ) -> Result<Event> {
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
        let example = self
            .types_of(tenant.key)
            .get(&event_type)
            .and_then(|view| view.definition.as_ref())
            // A profile has the name of the system whose form it is.
            .and_then(|d| d.example_for(profile).map(|e| e.get().to_owned()));
        let data = match (input.data, example) {
            (Some(data), _) => data,
            (None, Some(example)) => Bytes::from(example),
            (None, None) if event_type.as_str() == PING => Bytes::from_static(b"{}"),
            (None, None) => {
                let message = "the catalogue has no example of this type: give data, or declare the type with one";
                return Err(Error::Invalid(vec![FieldError::new("/event_type", message)]));
            }
        };
        let attributes = profiles::example_attributes(&event_type);
        Ok(Event { attributes, ..test_event(tenant, event_type, data, now, self.random()) })
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
            None => ping(),
        }
    }
}

fn ping() -> Result<EventType> {
    PING.parse().map_err(|_| Error::NotFound(Kind::EventType))
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
        trace: None,
    }
}
