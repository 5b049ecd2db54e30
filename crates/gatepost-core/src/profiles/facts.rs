//! What a request is made of: facts frozen when its events were accepted, so that the same facts
//! always make the same bytes (P3).

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::event::{Event, EventType};
use crate::tenant::Environment;
use crate::{DeliveryId, TenantId, Timestamp, WebhookId};

/// What is known of a delivery whatever it carries.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Whose.
    pub tenant_id: &'a TenantId,
    /// Which of the tenant's worlds.
    pub environment: Environment,
    /// To whom.
    pub webhook_id: WebhookId,
    /// Which delivery: the same for all its attempts.
    pub delivery: DeliveryId,
    /// When the delivery was made.
    pub created_at: Timestamp,
    /// Where this server is reached; no `/` at its end.
    pub public_url: &'a str,
}

/// An event, and what of its `data` the receiver sees.
#[derive(Clone, Debug)]
pub struct Item<'a> {
    /// What happened. Its `data` is what was published: formats send [`Item::data`].
    pub event: &'a Event,
    /// One JSON value after the webhook's `payload` rules; `None`: no `data` at all (`thin`).
    pub data: Option<Bytes>,
}

/// What the body of a single event is made of.
#[derive(Clone, Copy, Debug)]
pub struct RenderFacts<'a> {
    /// What happened.
    pub item: &'a Item<'a>,
    /// The rest.
    pub frame: &'a Frame<'a>,
    /// The webhook's `options`, as checked by its profile.
    pub options: &'a Map<String, Value>,
}

/// What the body of a batch is made of.
#[derive(Clone, Copy, Debug)]
pub struct BatchFacts<'a> {
    /// What happened, in order; at least one.
    pub items: &'a [Item<'a>],
    /// The rest. The batch's id is the delivery's.
    pub frame: &'a Frame<'a>,
    /// The webhook's `options`, as checked by its profile.
    pub options: &'a Map<String, Value>,
}

/// What the signature headers of one attempt are made of.
#[derive(Clone, Copy, Debug)]
pub struct SignFacts<'a> {
    /// The id a receiver tells duplicates by: the event's, or that of the delivery of a batch.
    pub message_id: &'a str,
    /// The type of the (first) event.
    pub event_type: &'a EventType,
    /// The attempt's time.
    pub now: Timestamp,
    /// Which attempt of the delivery, from 1.
    pub attempt: u32,
    /// Whether it is sent a second time within the attempt.
    pub resent: bool,
    /// The body, exactly as sent.
    pub body: &'a [u8],
    /// The URL, exactly as called.
    pub url: &'a str,
    /// The rest.
    pub frame: &'a Frame<'a>,
}
