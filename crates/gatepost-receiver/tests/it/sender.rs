//! A sender: Gatepost's own rendering and signing, without a server.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gatepost_core::event::{Event, Subject, Urgency};
use gatepost_core::profiles::{Frame, SignFacts, SigningPlan, Wire};
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Environment;
use gatepost_core::webhook::{SigningKey, WebhookConfig};
use gatepost_core::{DeliveryId, DeliverySeq, EventSeq, TenantId, TenantKey, Timestamp, WebhookId};
use serde_json::{Value, json};

pub(crate) const AT: i64 = 1_700_000_000;
pub(crate) const URL: &str = "https://hooks.example/in";

pub(crate) type Headers = Vec<(String, String)>;

/// A request as it arrives.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Sent {
    pub(crate) fn without(mut self, name: &str) -> Sent {
        self.headers.retain(|(own, _)| own != name);
        self
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Sent {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Seconds after the sending.
pub(crate) fn after(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(AT + seconds).unwrap())
}

pub(crate) fn event(id: &str, data: &'static str) -> Event {
    Event {
        seq: EventSeq(7),
        tenant: TenantKey(1),
        id: id.parse().unwrap(),
        event_type: "user.created".parse().unwrap(),
        timestamp: "2026-11-22T10:00:00.5Z".parse().unwrap(),
        accepted_at: Timestamp::from_secs(1),
        subject: Some(Subject { kind: Some("user".into()), id: "u_1".into() }),
        urgency: Urgency::Normal,
        attributes: None,
        data: Bytes::from_static(data.as_bytes()),
        registry_version: 1,
        trace: None,
    }
}

pub(crate) fn config(profile: &str, overrides: Value) -> WebhookConfig {
    let mut form = json!({"name": "w", "url": URL, "events": ["*"], "profile": profile, "enabled": true});
    for (name, value) in overrides.as_object().unwrap() {
        form[name] = value.clone();
    }
    serde_json::from_value(form).unwrap()
}

fn framed<T>(with: impl FnOnce(&Frame<'_>) -> T) -> T {
    let tenant_id: TenantId = "acme".parse().unwrap();
    let created_at = Timestamp::from_secs(AT);
    with(&Frame {
        tenant_id: &tenant_id,
        environment: Environment::Production,
        webhook_id: WebhookId::from_bytes([7; 16]),
        delivery: delivery(),
        created_at,
        public_url: "https://gatepost.example",
    })
}

pub(crate) fn delivery() -> DeliveryId {
    DeliveryId::new(Timestamp::from_secs(AT), DeliverySeq(9))
}

/// What goes out for these events (several: as a batch), signed with these secrets at [`AT`].
pub(crate) fn send(config: &WebhookConfig, secrets: &[&str], events: Vec<Event>) -> Sent {
    let events: Vec<_> = events.into_iter().map(Arc::new).collect();
    let wire = Wire::of(config).unwrap();
    let batch = events.len() > 1;
    let body = framed(|frame| match batch {
        false => wire.body(&events[0], frame),
        true => wire.batch(&events, frame).unwrap(),
    });
    let message_id = if batch { delivery().to_string() } else { events[0].id.to_string() };
    let mut sent = sign(config, secrets, &message_id, &body);
    if !batch {
        sent = sent.with("gatepost-event-id", &message_id);
    }
    sent.with("gatepost-delivery-id", &delivery().to_string()).with("gatepost-attempt", "1")
}

/// A body, signed.
pub(crate) fn sign(config: &WebhookConfig, secrets: &[&str], message_id: &str, body: &[u8]) -> Sent {
    let key = |text: &&str| SigningKey { text: Secret::new(*text), created_at: Timestamp::EPOCH, expires_at: None };
    let keys: Vec<_> = secrets.iter().map(key).collect();
    let signers = SigningPlan::of(config).unwrap().signers(&keys, &config.options).unwrap();
    let signed = framed(|frame| {
        signers.sign(&SignFacts {
            message_id,
            event_type: &"user.created".parse().unwrap(),
            now: Timestamp::from_secs(AT),
            attempt: 1,
            resent: false,
            body,
            url: URL,
            frame,
        })
    });
    let headers = signed.into_iter().map(|header| (header.name.into_owned(), header.value)).collect();
    Sent { headers, body: body.to_vec() }
}
