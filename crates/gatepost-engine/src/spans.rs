//! Spans: what publishing and delivering look like in a distributed trace.
//!
//! Trace and span ids are told from an event's numbers ([`crate::deliver::trace`]), so a delivery of next
//! week is a child of the publish of today without anything being kept for it; and the headers receivers
//! get are the same whether or not anybody records. Nobody listening costs one load per event and attempt.

use std::sync::{Arc, OnceLock};

use gatepost_core::delivery::{AttemptRecord, Outcome, Trigger};
use gatepost_core::event::Event;
use gatepost_core::trace::TraceContext;
use gatepost_core::{DeliveryId, TenantId, Timestamp, WebhookId};

use crate::deliver::trace;

/// Who records spans. Called on hot paths: it must neither wait nor fail.
pub trait SpanSink: Send + Sync {
    /// A span that has ended.
    fn record(&self, span: Span);
}

/// The role of a span (OpenTelemetry's span kind).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Something was accepted that others do later.
    Producer,
    /// A request was made.
    Client,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// What was done.
    pub name: &'static str,
    /// Its role.
    pub role: Role,
    /// Its trace and its own id.
    pub context: TraceContext,
    /// The span it is part of.
    pub parent: Option<[u8; 8]>,
    /// Whether that is another process's.
    pub parent_is_remote: bool,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What it was about. Never a secret, never a body.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, in a word.
    pub failed: Option<&'static str>,
}

static SINK: OnceLock<Arc<dyn SpanSink>> = OnceLock::new();

/// Has `sink` hear of every span of this process from now on, as the log's subscriber does of every line.
/// Whether it was the first to ask; there is only one.
pub fn install(sink: Arc<dyn SpanSink>) -> bool {
    SINK.set(sink).is_ok()
}

/// An event was accepted; the clock is asked only if somebody listens.
pub(crate) fn published(event: &Event, deliveries: u32, now: impl FnOnce() -> Timestamp) {
    let Some(sink) = SINK.get() else { return };
    let context = trace::of_publish(event);
    if !context.sampled {
        return;
    }
    sink.record(Span {
        name: "publish",
        role: Role::Producer,
        context,
        parent: event.trace.map(|publisher| publisher.span_id),
        parent_is_remote: true,
        start: event.accepted_at,
        end: now(),
        attributes: vec![
            ("gatepost.event.id", Attribute::Text(event.id.to_string())),
            ("gatepost.event.type", Attribute::Text(event.event_type.to_string())),
            ("gatepost.deliveries", Attribute::Number(i64::from(deliveries))),
        ],
        failed: None,
    });
}

/// What an attempt was about.
pub(crate) struct Attempted<'a> {
    pub(crate) event: &'a Event,
    pub(crate) delivery: DeliveryId,
    pub(crate) webhook: WebhookId,
    pub(crate) tenant: &'a TenantId,
    pub(crate) record: &'a AttemptRecord,
}

/// An attempt was made.
pub(crate) fn attempted(attempt: &Attempted<'_>) {
    let Some(sink) = SINK.get() else { return };
    let (event, record) = (attempt.event, attempt.record);
    let context = trace::of_attempt(event, attempt.delivery, record.number);
    if !context.sampled {
        return;
    }
    let mut attributes = vec![
        ("gatepost.tenant", Attribute::Text(attempt.tenant.to_string())),
        ("gatepost.event.id", Attribute::Text(event.id.to_string())),
        ("gatepost.event.type", Attribute::Text(event.event_type.to_string())),
        ("gatepost.delivery.id", Attribute::Text(attempt.delivery.to_string())),
        ("gatepost.webhook.id", Attribute::Text(attempt.webhook.to_string())),
        ("gatepost.attempt", Attribute::Number(i64::from(record.number))),
        ("gatepost.outcome", Attribute::Text(record.outcome.as_str().to_owned())),
        ("http.request.method", Attribute::Text("POST".to_owned())),
    ];
    attributes.extend(record.status.map(|status| ("http.response.status_code", Attribute::Number(i64::from(status)))));
    sink.record(Span {
        name: "deliver",
        role: Role::Client,
        context,
        // A test was never published.
        parent: (record.trigger != Trigger::Test).then(|| trace::of_publish(event).span_id),
        parent_is_remote: false,
        start: record.started_at,
        end: record.started_at.saturating_add(std::time::Duration::from_micros(u64::from(record.timings.total_us))),
        attributes,
        failed: (record.outcome != Outcome::Ok).then(|| record.outcome.as_str()),
    });
}
