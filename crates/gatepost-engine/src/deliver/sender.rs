//! One attempt: render, sign, send, and say what it came to.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{AttemptRecord, Outcome, Sent, SentValue, Timings, Trigger};
use gatepost_core::profiles::{SignFacts, SignedHeader, SigningPlan, Wire};
use gatepost_core::secret::{MASK, Secret};
use gatepost_core::{Clock, DeliveryId, Entropy, Timestamp};
use gatepost_store::{DeliveryEvents, Due, Store};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue};

use super::route::{Form, Route};
use crate::endpoint_auth::EndpointAuth;
use crate::net::{Headers, OutgoingRequest, Resend, Target, Tries};
use crate::{render, spans};

const EVENT_ID: HeaderName = HeaderName::from_static("gatepost-event-id");
const DELIVERY_ID: HeaderName = HeaderName::from_static("gatepost-delivery-id");
const ATTEMPT: HeaderName = HeaderName::from_static("gatepost-attempt");
const TEST: HeaderName = HeaderName::from_static("gatepost-test");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// About how many headers of ours a request has.
const OUR_HEADERS: usize = 10;

/// What every attempt needs.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) endpoint_auth: Arc<EndpointAuth>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// Where this server is reached.
    pub(crate) public_url: Arc<str>,
}

/// What to send.
pub(crate) struct Order<'a> {
    /// What is owed.
    pub(crate) due: &'a Due,
    /// What set it off.
    pub(crate) trigger: Trigger,
    /// A path below the url instead of the event's own.
    pub(crate) path: Option<&'a str>,
}

/// An attempt made.
pub(crate) struct Made {
    pub(crate) record: Arc<AttemptRecord>,
    /// The body as sent; `None`: nobody can tell how it looks.
    pub(crate) body: Option<Bytes>,
    /// The receiver's `retry-after`, as sent.
    pub(crate) retry_after: Option<String>,
    /// Nothing was learned about the receiver: our own resources failed (DESIGN 4.1).
    pub(crate) local_fault: bool,
}

/// Makes one attempt over `route`.
pub(crate) async fn attempt(sender: &Sender, store: &dyn Store, route: &Route, order: &Order<'_>) -> Made {
    let started_at = sender.clock.now();
    let made = match route.form_at(store, order.due.revision).await {
        Ok(form) => attempt_as(sender, route, form, order, started_at).await,
        Err(error) => {
            let why = format!("how the body looks could not be read: {error}");
            Made { local_fault: true, ..unsendable(route, order, None, started_at, &why) }
        }
    };
    spans::attempted(&spans::Attempted {
        event: order.due.events.first(),
        delivery: order.due.id(),
        webhook: route.webhook.id,
        tenant: &route.tenant.id,
        record: &made.record,
    });
    made
}

async fn attempt_as(sender: &Sender, route: &Route, form: Form, order: &Order<'_>, started_at: Timestamp) -> Made {
    let due = order.due;
    let wire = match &form {
        Ok(wire) => &**wire,
        Err(why) => return unsendable(route, order, due.body.clone(), started_at, why),
    };
    let frame = render::frame(&route.tenant, route.webhook.id, (due.id(), due.created_at), &sender.public_url);
    let Some(body) = due.body.clone().or_else(|| render::body(wire, &due.events, &frame)) else {
        return unsendable(route, order, None, started_at, "the webhook's format takes no batches");
    };
    let first = due.events.first();
    let made = match &route.call {
        Ok(calling) => calling.target(&route.webhook, &first.event_type, order.path).map(|target| (calling, target)),
        Err(why) => Err(why.clone()),
    };
    let (calling, target) = match made {
        Ok(made) => made,
        Err(why) => return unsendable(route, order, Some(body), started_at, &why),
    };
    let number = due.attempts + 1;
    let batch_id = due.events.single().is_none().then(|| due.id().to_string());
    let mut tokens = Vec::new();
    let mut tries = Tries::within(route.timeout);
    let (mut exchange, values) = loop {
        // A second try is signed anew: a token serves once, and a time goes by.
        let now = if tries.again() { sender.clock.now() } else { started_at };
        let signed = calling.signers.sign(&SignFacts {
            message_id: batch_id.as_deref().unwrap_or(first.id.as_str()),
            event_type: &first.event_type,
            now,
            attempt: number,
            resent: tries.again(),
            body: &body,
            url: target.url(),
            frame: &frame,
        });
        let values = signed.iter().map(|header| kept(header, due, batch_id.as_deref(), started_at)).collect();
        tokens.extend(signed.iter().filter(|header| header.secret).map(|header| Secret::new(header.value.clone())));
        let names = calling.signed_names.iter().cloned();
        let signed = names.zip(signed.into_iter().map(|header| header.value));
        let mut headers = Headers::with_capacity(OUR_HEADERS + calling.headers.len());
        our_headers(wire, signed, &due.events, due.id(), (number, order.trigger), |name, value| {
            headers.push(name, value);
        });
        headers.extend(calling.headers.iter().cloned());
        let request = request(route, &target, headers, body.clone(), &tries);
        let exchange = sender.endpoint_auth.send(calling.auth.as_ref(), request).await;
        if let Some(exchange) = tries.judge(exchange) {
            break (exchange, values);
        }
    };
    let retry_after = exchange.response.as_ref().and_then(|answer| answer.header("retry-after").map(str::to_owned));
    sender.endpoint_auth.mask(&mut exchange, calling.auth.as_ref(), &calling.known, &tokens);
    Made {
        record: Arc::new(AttemptRecord {
            number,
            started_at,
            trigger: order.trigger,
            outcome: exchange.outcome,
            status: exchange.status,
            error: exchange.error,
            timings: exchange.timings,
            sent: Sent { revision: route.webhook.revision, signed: values },
            response: exchange.response,
            resent: exchange.resend == Resend::Done,
        }),
        body: Some(body),
        retry_after,
        local_fault: exchange.local_fault,
    }
}

fn request<'a>(
    route: &'a Route,
    target: &'a Target,
    headers: Headers,
    body: Bytes,
    tries: &Tries,
) -> OutgoingRequest<'a> {
    OutgoingRequest {
        target,
        method: http::Method::POST,
        headers,
        // Some receivers of the HTTP/1.1 days compare header names by case (DESIGN 8).
        title_case: true,
        body,
        timeout: tries.left(),
        allow_nets: &route.allow_nets,
        identity: None,
        http1: route.http1,
        fresh: tries.again(),
    }
}

fn unsendable(route: &Route, order: &Order<'_>, body: Option<Bytes>, started_at: Timestamp, why: &str) -> Made {
    let record = AttemptRecord {
        number: order.due.attempts + 1,
        started_at,
        trigger: order.trigger,
        outcome: Outcome::InvalidUrl,
        status: None,
        error: Some(why.to_owned()),
        timings: Timings::default(),
        sent: Sent { revision: route.webhook.revision, signed: Vec::new() },
        response: None,
        resent: false,
    };
    Made { record: Arc::new(record), body, retry_after: None, local_fault: false }
}

/// An attempt that nobody waits for any more: its webhook or its tenant was deleted. What became of the
/// request nobody knows.
pub(crate) fn cut_short(sender: &Sender, route: &Route, order: &Order<'_>, started_at: Timestamp) -> Made {
    let why = "the attempt ended because its webhook was deleted";
    let made = unsendable(route, order, None, started_at, why);
    let took = sender.clock.now().since(started_at).as_micros();
    let timings = Timings { total_us: u32::try_from(took).unwrap_or(u32::MAX), ..Timings::default() };
    let record = AttemptRecord { outcome: Outcome::Reset, timings, ..AttemptRecord::clone(&made.record) };
    Made { record: Arc::new(record), ..made }
}

/// What is kept of a header that carries id, time or signature.
fn kept(header: &SignedHeader, due: &Due, batch_id: Option<&str>, started_at: Timestamp) -> SentValue {
    let value = &header.value;
    if header.secret {
        SentValue::Text(MASK.to_owned())
    } else if value == due.events.first().id.as_str() {
        SentValue::EventId
    } else if batch_id.is_some_and(|id| value == id) {
        SentValue::DeliveryId
    } else if value.parse() == Ok(started_at.as_secs()) {
        SentValue::StartedAt
    } else {
        SentValue::Text(value.clone())
    }
}

/// Every header but the tenant's own, in the order sent.
pub(crate) fn our_headers(
    wire: &Wire,
    signed: impl Iterator<Item = (HeaderName, String)>,
    events: &DeliveryEvents,
    delivery: DeliveryId,
    (number, trigger): (u32, Trigger),
    mut put: impl FnMut(HeaderName, HeaderValue),
) {
    put(CONTENT_TYPE, HeaderValue::from_static(render::content_type(wire, events)));
    if let Some(accept) = wire.accept() {
        put(ACCEPT, HeaderValue::from_static(accept));
    }
    put(USER_AGENT, HeaderValue::from_static(crate::engine::USER_AGENT));
    for (name, value) in signed {
        put(name, ascii(value));
    }
    if let Some(event) = events.single() {
        put(EVENT_ID, ascii(event.id.as_str().to_owned()));
    }
    put(DELIVERY_ID, ascii(delivery.to_string()));
    put(ATTEMPT, HeaderValue::from(number));
    if trigger == Trigger::Test {
        put(TEST, HeaderValue::from_static("true"));
    }
    put(TRACEPARENT, ascii(super::trace::of_attempt(events.first(), delivery, number).to_string()));
}

/// The names of the headers a plan signs with, in order. They are lower-case literals of ours, or were
/// judged when the webhook was registered.
pub(crate) fn signed_names(plan: &SigningPlan) -> Result<Vec<HeaderName>, String> {
    let name = |name: Cow<'static, str>| match name {
        Cow::Borrowed(name) => Ok(HeaderName::from_static(name)),
        Cow::Owned(name) => HeaderName::try_from(name).map_err(|e| format!("a header cannot be sent: {e}")),
    };
    plan.header_names().into_iter().map(name).collect()
}

/// Ids and signatures are ASCII by their grammars; should one ever not be, an empty header is
/// visibly wrong at the receiver, where a panic would stop the lane for everybody.
fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
