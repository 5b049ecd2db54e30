//! What is sent, told from facts frozen at acceptance (P3): the webhook's configuration at the revision
//! a delivery was made under decides how its body looks, whatever the webhook has become since.

use bytes::Bytes;
use gatepost_core::delivery::{AttemptRecord, Outcome, Request, SentValue};
use gatepost_core::profiles::{self, Frame, SigningPlan, Wire};
use gatepost_core::secret::MASK;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::WebhookConfig;
use gatepost_core::{DeliveryId, Timestamp, WebhookId};
use gatepost_store::DeliveryEvents;
use http::header::ACCEPT;

use crate::deliver::{our_headers, signed_names};
use crate::endpoint_auth;
use crate::net::always_said;

/// The frame of a delivery.
pub(crate) fn frame<'a>(
    tenant: &'a Tenant,
    webhook_id: WebhookId,
    (delivery, created_at): (DeliveryId, Timestamp),
    public_url: &'a str,
) -> Frame<'a> {
    Frame { tenant_id: &tenant.id, environment: tenant.environment, webhook_id, delivery, created_at, public_url }
}

/// The body of a delivery. `None`: a batch in a format that takes none.
pub(crate) fn body(wire: &Wire, events: &DeliveryEvents, frame: &Frame<'_>) -> Option<Bytes> {
    match events {
        DeliveryEvents::One(event) => Some(wire.body(event, frame)),
        DeliveryEvents::Batch(events) => wire.batch(events, frame),
    }
}

/// The value of `content-type` of a delivery.
pub(crate) fn content_type(wire: &Wire, events: &DeliveryEvents) -> &'static str {
    match events {
        DeliveryEvents::One(_) => wire.content_type(),
        DeliveryEvents::Batch(_) => wire.batch_content_type(),
    }
}

/// What an attempt was an attempt at.
pub(crate) struct Attempted<'a> {
    /// The webhook's configuration at the attempt's revision: url, header names, schemes.
    pub(crate) config: &'a WebhookConfig,
    /// How the body looks, by the configuration at the delivery's revision; `None`: nobody knows any more.
    pub(crate) wire: Option<&'a Wire>,
    /// What was delivered.
    pub(crate) events: &'a DeliveryEvents,
    /// By which delivery.
    pub(crate) delivery: DeliveryId,
    /// The path of a probe below the webhook's url.
    pub(crate) path: Option<&'a str>,
}

/// The request of an attempt as it was, told from what is kept. A tenant's own header values, and
/// whatever opens something, are masked (P7).
pub(crate) fn request_of(attempted: &Attempted<'_>, attempt: &AttemptRecord) -> Request {
    let Attempted { config, wire, events, delivery, path } = attempted;
    let first = events.first();
    let url = match path {
        Some(path) => profiles::below(&config.url, path),
        None => profiles::url_of(config, &first.event_type).unwrap_or((&config.url).into()).into_owned(),
    };
    let never_made = attempt.outcome == Outcome::InvalidUrl && attempt.sent.signed.is_empty();
    let (Some(wire), Ok(plan), false) = (wire, SigningPlan::of(config), never_made) else {
        return Request { url, headers: Vec::new() };
    };
    let values = attempt.sent.signed.iter().map(|value| match value {
        SentValue::EventId => first.id.to_string(),
        SentValue::StartedAt => attempt.started_at.as_secs().to_string(),
        SentValue::Text(text) => text.clone(),
        SentValue::DeliveryId => delivery.to_string(),
    });
    let signed = signed_names(&plan).unwrap_or_default().into_iter().zip(values);
    let mut headers = Vec::new();
    our_headers(wire, signed, events, *delivery, (attempt.number, attempt.trigger), |name, value| {
        headers.push((name.as_str().to_owned(), value.to_str().unwrap_or(MASK).to_owned()));
    });
    Request { url, headers: with_own(headers, config) }
}

/// The headers of a request as they went out: `headers` are ours; a tenant's own stand masked behind them
/// (P7), in the place of an `accept` of ours; what the client says on every request is there too.
pub(crate) fn with_own(mut headers: Vec<(String, String)>, config: &WebhookConfig) -> Vec<(String, String)> {
    let own: Vec<String> = config.header_names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let auth = config.auth.as_ref().and_then(endpoint_auth::header_name);
    headers.retain(|(name, _)| name != ACCEPT.as_str() || !own.contains(name));
    for (name, value) in always_said() {
        let said = headers.iter().any(|(n, _)| n == name.as_str()) || own.iter().any(|n| n == name.as_str());
        if !said {
            headers.push((name.as_str().to_owned(), value.to_str().unwrap_or(MASK).to_owned()));
        }
    }
    headers.extend(own.into_iter().chain(auth).map(|name| (name, MASK.to_owned())));
    headers
}
