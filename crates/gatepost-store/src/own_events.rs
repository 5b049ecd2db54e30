//! Gatepost's own events: noted in the transaction of the change they tell of, published by the
//! engine afterwards. What is noted is published exactly once: publishing takes the note away.

use async_trait::async_trait;
use bytes::Bytes;
use gatepost_core::delivery::Reason;
use gatepost_core::event::Subject;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::{DeliverySeq, EventId, TenantKey, Timestamp, WebhookKey};

use crate::{Publish, PublishOutcome, Result};

/// An own event to be noted outside of the store's own changes.
#[derive(Clone, PartialEq, Debug)]
pub struct NewOwnEvent {
    /// Whose.
    pub tenant: TenantKey,
    /// What.
    pub event: OwnEvent,
    /// The event's id, if the same may be noted twice (after a crash): it is published once.
    pub id: Option<EventId>,
    /// About whom or what.
    pub subject: Option<Subject>,
    /// One JSON value: the object it speaks of.
    pub data: Bytes,
    /// When it happened.
    pub at: Timestamp,
}

/// What a noted event speaks of.
#[derive(Clone, PartialEq, Debug)]
pub enum About {
    /// A webhook, as it was at a revision.
    Webhook {
        /// Which.
        key: WebhookKey,
        /// Its form.
        revision: u32,
        /// Why Gatepost disabled it, of an event that tells of that.
        disabled_reason: Option<String>,
    },
    /// A delivery at its end.
    Delivery {
        /// Which.
        seq: DeliverySeq,
        /// Why it failed.
        reason: Reason,
    },
    /// This.
    Given {
        /// The event's id, if it has one already.
        id: Option<EventId>,
        /// About whom or what.
        subject: Option<Subject>,
        /// The data.
        data: Bytes,
    },
}

/// A noted event, to be published.
#[derive(Clone, PartialEq, Debug)]
pub struct Noted {
    /// Its number; grows in commit order.
    pub number: i64,
    /// Whose.
    pub tenant: TenantKey,
    /// What.
    pub event: OwnEvent,
    /// When it happened.
    pub at: Timestamp,
    /// What it speaks of.
    pub about: About,
}

/// What the store does about own events.
#[async_trait]
pub trait OwnEventStore: Send + Sync {
    /// Notes an own event. One of a tenant that is gone is forgotten.
    async fn note_own(&self, event: NewOwnEvent) -> Result<()>;

    /// Noted events with a number above `after`, ascending, at most `limit`.
    async fn noted(&self, after: i64, limit: usize) -> Result<Vec<Noted>>;

    /// Publishes a noted event (`publish` holds just that one) and takes the note away, in one
    /// transaction. `None`: there is no such note (any more), and nothing was published.
    ///
    /// `farewell`: a deleted webhook among those matched. Its delivery of this event is owed, and is
    /// made, although the webhook is deleted.
    ///
    /// The note stays when the registry moved on ([`PublishOutcome::StaleRegistry`]), and goes with every
    /// other answer.
    async fn publish_noted(
        &self,
        number: i64,
        publish: Publish,
        farewell: Option<WebhookKey>,
    ) -> Result<Option<PublishOutcome>>;

    /// Takes a note away unpublished: what it speaks of is gone.
    async fn forget_noted(&self, number: i64) -> Result<()>;
}
