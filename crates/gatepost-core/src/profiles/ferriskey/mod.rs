//! Profile `ferriskey`: webhooks as FerrisKey sends them.

mod scheme;
mod webhook;

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::foreign::{delivery_of_uuid, fixed, hyphenated, tenant_uuid, uuid_of, uuid_of_delivery};
use super::format::Format;
use super::scheme::Scheme;
use super::standard::{RETRY_AFTER, WAITS, concat};
use super::{Folder, Profile, RenderFacts, unknown_options};
use crate::own_events::OwnEvent;
use crate::retry::{GoneRule, RetryClass, RetryPolicy};
use crate::{DeliveryId, Entropy, TenantId, Timestamp, WebhookId};

pub use webhook::{Facts as WebhookFacts, object as webhook_object};

/// A fast phase without jitter (0.5, 1, 2, 4 s), then the standard list.
const RETRY: RetryPolicy = RetryPolicy {
    waits: Cow::Borrowed(&[
        0.5, 1.0, 2.0, 4.0, WAITS[0], WAITS[1], WAITS[2], WAITS[3], WAITS[4], WAITS[5], WAITS[6], WAITS[7], WAITS[8],
    ]),
    exact_waits: 4,
    jitter: 0.1,
    retry_on: Cow::Borrowed(&[
        RetryClass::Timeout,
        RetryClass::Transport,
        RetryClass::Status(408),
        RetryClass::Status(429),
        RetryClass::S5xx,
    ]),
    gone: GoneRule::Final,
    retry_after: RETRY_AFTER,
    timeout_ms: 10_000,
};

pub(super) const FOLDER: Folder = Folder {
    profile: Some(&FerrisKey),
    formats: &[&FerrisKey],
    schemes: &[&scheme::FerrisKey],
    reserved: &["x-ferriskey-"],
    ..Folder::EMPTY
};

/// The profile's name.
pub const NAME: &str = "ferriskey";

/// `resource_id` is the realm's, whatever an event is about: as FerrisKey itself does it.
const LEGACY: &str = "legacy_realm_resource_id";

struct FerrisKey;

impl Profile for FerrisKey {
    fn name(&self) -> &'static str {
        NAME
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn format(&self) -> Option<&'static dyn Format> {
        Some(&FerrisKey)
    }

    fn schemes(&self) -> &'static [&'static dyn Scheme] {
        &[&scheme::FerrisKey]
    }

    fn check_options(&self, options: &Map<String, Value>) -> Vec<(String, String)> {
        let mut errors = unknown_options(options, &[LEGACY]);
        if options.get(LEGACY).is_some_and(|value| !value.is_boolean()) {
            errors.push((format!("/{LEGACY}"), "must be true or false".into()));
        }
        errors
    }

    /// FerrisKey's own three of its list (SETTLED, Events).
    fn own_name(&self, own: OwnEvent) -> Option<&'static str> {
        match own {
            OwnEvent::WebhookCreated => Some("webhook.created"),
            OwnEvent::WebhookUpdated => Some("webhook.updated"),
            OwnEvent::WebhookDeleted => Some("webhook.deleted"),
            _ => None,
        }
    }

    /// A UUID of version 7 has six bits that say so, where an id of ours has chance.
    fn new_webhook_id(&self, at: Timestamp, entropy: &dyn Entropy) -> WebhookId {
        let mut bytes = WebhookId::new(at, entropy).to_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x70;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        WebhookId::from_bytes(bytes)
    }

    fn native_id(&self, id: WebhookId) -> String {
        Uuid::from_bytes(id.to_bytes()).to_string()
    }

    fn parse_native_id(&self, text: &str) -> Option<WebhookId> {
        hyphenated(text).map(|uuid| WebhookId::from_bytes(uuid.into_bytes()))
    }
}

/// A delivery's id as FerrisKey writes ids: what `x-ferriskey-delivery-id` carries.
pub fn delivery_uuid(id: DeliveryId) -> Uuid {
    uuid_of_delivery(id)
}

/// The delivery a text of [`delivery_uuid`] means.
pub fn parse_delivery_uuid(text: &str) -> Option<DeliveryId> {
    delivery_of_uuid(hyphenated(text)?)
}

/// What an event is about, where FerrisKey has a UUID: the subject's id if it is one, else one made of
/// it; without a subject the tenant's.
pub fn resource_id(tenant: &TenantId, subject: Option<&str>) -> Uuid {
    subject.map_or_else(|| tenant_uuid(tenant), |id| uuid_of(tenant, id))
}

impl Format for FerrisKey {
    fn name(&self) -> &'static str {
        NAME
    }

    /// The four members, in FerrisKey's order.
    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        let (event, tenant) = (facts.item.event, facts.frame.tenant_id);
        let own = OwnEvent::named(event.event_type.as_str()).and_then(|own| self.own_name(own));
        let legacy = facts.options.get(LEGACY).and_then(Value::as_bool).unwrap_or(false);
        let subject = event.subject.as_ref().map(|subject| subject.id.as_str());
        // The webhook an own event is about is named by its id here; its subject is our spelling of it.
        let subject = match (own, subject.and_then(|id| id.parse::<WebhookId>().ok())) {
            (Some(_), Some(id)) => Some(Cow::Owned(self.native_id(id))),
            _ => subject.map(Cow::Borrowed),
        };
        let head = format!(
            "{{\"event\":\"{}\",\"timestamp\":\"{}\",\"resource_id\":\"{}\",\"data\":",
            own.unwrap_or(event.event_type.as_str()),
            fixed(event.timestamp, 6),
            resource_id(tenant, subject.as_deref().filter(|_| !legacy)),
        );
        let own_data = own.and_then(|_| webhook::of_own_event(&event.data));
        let data = own_data.as_deref().or(facts.item.data.as_deref()).unwrap_or(b"null");
        concat(&[head.as_bytes(), data, b"}"])
    }
}

#[cfg(test)]
mod tests;
