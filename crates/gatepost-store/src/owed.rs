//! What a delivery carries, and how the store says that one has become due.

use std::sync::Arc;

use gatepost_core::event::{Event, Urgency};
use gatepost_core::{DeliverySeq, TenantKey, Timestamp, WebhookKey};

/// What a delivery carries.
#[derive(Clone, PartialEq, Debug)]
pub enum DeliveryEvents {
    /// One event.
    One(Arc<Event>),
    /// A batch, in order; never empty, though it may be of one.
    Batch(Arc<[Arc<Event>]>),
}

impl DeliveryEvents {
    /// A batch of these; `None` of none.
    pub fn batch(events: Vec<Arc<Event>>) -> Option<Self> {
        if events.is_empty() { None } else { Some(DeliveryEvents::Batch(events.into())) }
    }

    /// The event, if it is not a batch.
    pub fn single(&self) -> Option<&Arc<Event>> {
        match self {
            DeliveryEvents::One(event) => Some(event),
            DeliveryEvents::Batch(_) => None,
        }
    }

    /// All of them, in order.
    pub fn all(&self) -> &[Arc<Event>] {
        match self {
            DeliveryEvents::One(event) => std::slice::from_ref(event),
            DeliveryEvents::Batch(events) => events,
        }
    }

    /// The first of them.
    pub fn first(&self) -> &Arc<Event> {
        // A batch is never empty.
        &self.all()[0]
    }

    /// Whether all of them are Gatepost's own.
    pub fn are_own(&self) -> bool {
        self.all().iter().all(|event| event.event_type.is_own())
    }

    /// Bytes of their data.
    pub fn data_len(&self) -> usize {
        match self {
            DeliveryEvents::One(event) => event.data.len(),
            DeliveryEvents::Batch(events) => events.iter().map(|event| event.data.len()).sum(),
        }
    }
}

/// Something changed about a delivery beside the one a call was about: whatever memory holds of it is
/// out of date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wake {
    /// Whose.
    pub tenant: TenantKey,
    /// To whom.
    pub webhook: WebhookKey,
    /// Which delivery.
    pub seq: DeliverySeq,
    /// Under which urgency it is to be found with [`crate::Store::due`], and from when on. `None`: it
    /// is not known; look under each, at once.
    pub at: Option<(Urgency, Timestamp)>,
}
