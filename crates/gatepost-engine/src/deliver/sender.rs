//! One attempt: render, sign, send, and say what it came to.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{AttemptRecord, Outcome, Request, Sent, SentValue, Timings, Trigger};
use gatepost_core::event::Event;
use gatepost_core::profiles::{RenderFacts, SignFacts, Wire};
use gatepost_core::secret::MASK;
use gatepost_core::webhook::WebhookConfig;
use gatepost_core::{Clock, DeliveryId, Entropy, Timestamp};
use gatepost_store::Due;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue};

use super::route::Route;
use crate::net::OutgoingRequest;
use crate::transport::Transport;

const EVENT_ID: HeaderName = HeaderName::from_static("gatepost-event-id");
const DELIVERY_ID: HeaderName = HeaderName::from_static("gatepost-delivery-id");
const ATTEMPT: HeaderName = HeaderName::from_static("gatepost-attempt");
const TEST: HeaderName = HeaderName::from_static("gatepost-test");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What every attempt needs.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// An attempt made.
pub(crate) struct Made {
    pub(crate) record: AttemptRecord,
    pub(crate) body: Bytes,
    /// The receiver's `retry-after`, as sent.
    pub(crate) retry_after: Option<String>,
    /// Nothing was learned about the receiver: our own resources failed (DESIGN 4.1).
    pub(crate) local_fault: bool,
}

/// Makes one attempt for `due` over `route`.
pub(crate) async fn attempt(sender: &Sender, route: &Route, due: &Due, trigger: Trigger) -> Made {
    let started_at = sender.clock.now();
    let number = due.attempts + 1;
    let calling = match &route.call {
        Ok(calling) => calling,
        Err(why) => return unsendable(route, due, trigger, started_at, why),
    };
    let body = match &due.body {
        Some(body) => body.clone(),
        None => calling.wire.body(&RenderFacts { event: &due.event, tenant_id: &route.tenant.id }),
    };
    let mut signed = Vec::with_capacity(3);
    let facts = SignFacts { message_id: due.event.id.as_str(), now: started_at, body: &body };
    calling.wire.sign(&calling.signer, &facts, &mut signed);
    let values = signed.iter().map(|(_, value)| kept(value, &due.event, started_at)).collect();
    let mut headers = ours(calling.wire, signed, &due.event, due.id(), number, trigger);
    headers.extend(calling.headers.iter().cloned());
    let exchange = sender
        .transport
        .send(OutgoingRequest {
            target: &calling.target,
            method: http::Method::POST,
            headers,
            // Some receivers of the HTTP/1.1 days compare header names by case (DESIGN 8).
            title_case: true,
            body: body.clone(),
            timeout: route.timeout,
            allow_nets: &route.allow_nets,
        })
        .await;
    let retry_after = exchange.response.as_ref().and_then(|response| {
        response.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("retry-after")).map(|(_, v)| v.clone())
    });
    Made {
        record: AttemptRecord {
            number,
            started_at,
            trigger,
            outcome: exchange.outcome,
            status: exchange.status,
            error: exchange.error,
            timings: exchange.timings,
            sent: Sent { revision: route.webhook.revision, signed: values },
            response: exchange.response,
        },
        body,
        retry_after,
        local_fault: exchange.local_fault,
    }
}

fn unsendable(route: &Route, due: &Due, trigger: Trigger, started_at: Timestamp, why: &str) -> Made {
    let record = AttemptRecord {
        number: due.attempts + 1,
        started_at,
        trigger,
        outcome: Outcome::InvalidUrl,
        status: None,
        error: Some(why.to_owned()),
        timings: Timings::default(),
        sent: Sent { revision: route.webhook.revision, signed: Vec::new() },
        response: None,
    };
    let body = crate::render::body(&route.webhook.config.profile, &due.event, &route.tenant.id);
    Made { record, body: due.body.clone().or(body).unwrap_or_default(), retry_after: None, local_fault: false }
}

/// The request of an attempt as it was, told from what is kept: `config` is the webhook's at the
/// attempt's revision. A tenant's own header values are masked (P7).
pub(crate) fn request_of(
    config: &WebhookConfig,
    event: &Event,
    delivery: DeliveryId,
    attempt: &AttemptRecord,
) -> Request {
    let url = config.url.clone();
    let Some(wire) = crate::render::wire(&config.profile).filter(|_| !attempt.sent.signed.is_empty()) else {
        return Request { url, headers: Vec::new() };
    };
    let values = attempt.sent.signed.iter().map(|value| match value {
        SentValue::EventId => event.id.to_string(),
        SentValue::StartedAt => attempt.started_at.as_secs().to_string(),
        SentValue::Text(text) => text.clone(),
    });
    let signed = wire.signed_headers().iter().copied().zip(values).collect();
    let headers = ours(wire, signed, event, delivery, attempt.number, attempt.trigger);
    let ours =
        headers.into_iter().map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or(MASK).to_owned()));
    let own = config.header_names.iter().map(|name| (name.to_ascii_lowercase(), MASK.to_owned()));
    Request { url, headers: ours.chain(own).collect() }
}

fn kept(value: &str, event: &Event, started_at: Timestamp) -> SentValue {
    if value == event.id.as_str() {
        SentValue::EventId
    } else if value.parse() == Ok(started_at.as_secs()) {
        SentValue::StartedAt
    } else {
        SentValue::Text(value.to_owned())
    }
}

type Headers = Vec<(HeaderName, HeaderValue)>;

/// Every header but the tenant's own, in the order sent.
fn ours(
    wire: &dyn Wire,
    signed: Vec<(&'static str, String)>,
    event: &Event,
    delivery: DeliveryId,
    number: u32,
    trigger: Trigger,
) -> Headers {
    let mut headers = Vec::with_capacity(16);
    headers.push((CONTENT_TYPE, HeaderValue::from_static(wire.content_type())));
    headers.push((USER_AGENT, HeaderValue::from_static(crate::engine::USER_AGENT)));
    headers.extend(signed.into_iter().map(|(name, value)| (HeaderName::from_static(name), ascii(value))));
    headers.push((EVENT_ID, ascii(event.id.as_str().to_owned())));
    headers.push((DELIVERY_ID, ascii(delivery.to_string())));
    headers.push((ATTEMPT, HeaderValue::from(number)));
    if trigger == Trigger::Test {
        headers.push((TEST, HeaderValue::from_static("true")));
    }
    headers.push((TRACEPARENT, traceparent(event, delivery, number)));
    headers
}

/// Ids and signatures are ASCII by their grammars; should one ever not be, an empty header is
/// visibly wrong at the receiver, where a panic would stop the lane for everybody.
fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The W3C trace context of an attempt (version 00, sampled): one trace per event, one span per
/// attempt. Told from their numbers rather than drawn, so that it need not be kept to be shown.
fn traceparent(event: &Event, delivery: DeliveryId, number: u32) -> HeaderValue {
    let accepted = event.accepted_at.as_micros() as u64;
    let high = mix(accepted);
    let low = mix(accepted ^ mix(event.seq.0 as u64));
    let span = mix(mix(delivery.seq().0 as u64) ^ low ^ u64::from(number));
    // All-zero ids are invalid.
    ascii(format!("00-{high:016x}{:016x}-{:016x}-01", low | 1, span | 1))
}

/// SplitMix64's finaliser: spreads consecutive numbers over all values.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
