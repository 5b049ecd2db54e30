//! What tests of formats and schemes need.

use bytes::Bytes;

use super::{Frame, SignFacts, SigningPlan};
use crate::event::{Event, Subject, Urgency};
use crate::secret::Secret;
use crate::tenant::Environment;
use crate::webhook::{SigningEntry, SigningKey, WebhookConfig};
use crate::{DeliveryId, DeliverySeq, EventSeq, TenantId, TenantKey, Timestamp, WebhookId};

/// A webhook that chose nothing but its profile.
pub(crate) fn config(profile: &str) -> WebhookConfig {
    let form = serde_json::json!({
        "name": "w", "url": "https://hooks.example/in", "events": ["*"], "profile": profile, "enabled": true,
    });
    serde_json::from_value(form).unwrap()
}

/// An event of tenant `acme`.
pub(crate) fn event(id: &str, subject: Option<Subject>, data: &'static [u8]) -> Event {
    Event {
        seq: EventSeq(7),
        tenant: TenantKey(1),
        id: id.parse().unwrap(),
        event_type: "user.created".parse().unwrap(),
        timestamp: "2026-11-22T10:00:00.5Z".parse().unwrap(),
        accepted_at: Timestamp::from_secs(1),
        subject,
        urgency: Urgency::Normal,
        attributes: None,
        data: Bytes::from_static(data),
        registry_version: 1,
        trace: None,
    }
}

/// Calls `with` with the frame of delivery 9 to a webhook of tenant `acme`.
pub(crate) fn framed<T>(with: impl FnOnce(&Frame<'_>) -> T) -> T {
    let tenant_id: TenantId = "acme".parse().unwrap();
    let created_at = Timestamp::from_secs(1_700_000_000);
    with(&Frame {
        tenant_id: &tenant_id,
        environment: Environment::Production,
        webhook_id: WebhookId::from_bytes([7; 16]),
        delivery: DeliveryId::new(created_at, DeliverySeq(9)),
        created_at,
        public_url: "https://gatepost.example",
    })
}

/// Keys by text, with the second they expire.
pub(crate) fn keys(texts: &[(&str, Option<i64>)]) -> Vec<SigningKey> {
    texts
        .iter()
        .map(|(text, expires)| SigningKey {
            text: Secret::new(*text),
            created_at: Timestamp::EPOCH,
            expires_at: expires.map(Timestamp::from_secs),
        })
        .collect()
}

/// What `schemes` send for message `evt_1` at second `at`; `header` is the choice of the first.
pub(crate) fn sign(
    schemes: &[&str],
    header: Option<&str>,
    keys: &[SigningKey],
    at: i64,
    body: &[u8],
) -> Vec<(String, String)> {
    let entries: Vec<_> = schemes
        .iter()
        .enumerate()
        .map(|(i, scheme)| SigningEntry {
            scheme: (*scheme).to_owned(),
            header: header.filter(|_| i == 0).map(str::to_owned),
        })
        .collect();
    let plan = SigningPlan::new(super::DEFAULT, Some(&entries)).unwrap();
    let signers = plan.signers(keys, &serde_json::Map::new()).unwrap();
    let sent = framed(|frame| {
        signers.sign(&SignFacts {
            message_id: "evt_1",
            event_type: &"user.created".parse().unwrap(),
            now: Timestamp::from_secs(at),
            attempt: 1,
            resent: false,
            body,
            url: "https://hooks.example/in",
            frame,
        })
    });
    let sent: Vec<_> = sent.into_iter().map(|h| (h.name.into_owned(), h.value)).collect();
    assert_eq!(sent.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), plan.header_names());
    sent
}
