//! How one webhook's events look on the wire: its format and its payload rules, looked up and
//! compiled once.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::facts::{BatchFacts, Frame, Item, RenderFacts};
use super::format::Format;
use super::payload::{BadPointer, Cut};
use crate::event::Event;
use crate::webhook::WebhookConfig;

/// Why a webhook as kept cannot be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No such profile, or one that takes no webhooks.
    #[error("this server does not know the profile {0:?}")]
    Profile(String),
    /// No such format.
    #[error("this server does not know the format {0:?}")]
    Format(String),
    /// No such signing scheme.
    #[error("this server does not know the signing scheme {0:?}")]
    Scheme(String),
    /// A payload rule that cannot be read.
    #[error("a pointer of payload {0}")]
    Payload(#[from] BadPointer),
}

/// Renders bodies from the configuration of one revision of a webhook. The same events always make
/// the same bytes (P3).
pub struct Wire {
    format: &'static dyn Format,
    cut: Option<Cut>,
    options: Map<String, Value>,
}

impl Wire {
    /// The wire form of a webhook with this configuration.
    ///
    /// # Errors
    /// When it was registered with something this server does not have (any more).
    pub fn of(config: &WebhookConfig) -> Result<Wire, WireError> {
        let cut = match &config.payload {
            Some(payload) => Cut::compile(payload)?,
            None => None,
        };
        Ok(Wire { format: format_of(&config.profile, config.format.as_deref())?, cut, options: config.options.clone() })
    }

    /// The value of `content-type` of a single event.
    pub fn content_type(&self) -> &'static str {
        self.format.content_type()
    }

    /// The value of `content-type` of a batch.
    pub fn batch_content_type(&self) -> &'static str {
        self.format.batch().map_or_else(|| self.format.content_type(), |batch| batch.content_type())
    }

    /// The value of `accept`, if one is sent.
    pub fn accept(&self) -> Option<&'static str> {
        self.format.accept()
    }

    /// The body of a single event.
    pub fn body(&self, event: &Event, frame: &Frame<'_>) -> Bytes {
        self.format.body(&RenderFacts { item: &self.item(event), frame, options: &self.options })
    }

    /// The body of a batch, in the order of `events`; `None`: the format takes no batches.
    pub fn batch(&self, events: &[Arc<Event>], frame: &Frame<'_>) -> Option<Bytes> {
        let items: Vec<_> = events.iter().map(|event| self.item(event)).collect();
        let facts = BatchFacts { items: &items, frame, options: &self.options };
        self.format.batch().map(|batch| batch.body(&facts))
    }

    /// Whether it takes batches.
    pub fn takes_batches(&self) -> bool {
        self.format.batch().is_some()
    }

    fn item<'a>(&self, event: &'a Event) -> Item<'a> {
        let data = match &self.cut {
            Some(cut) => cut.apply(&event.data),
            None => Some(event.data.clone()),
        };
        Item { event, data }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire({})", self.format.name())
    }
}

/// The format of a webhook: its own choice, else its profile's.
///
/// # Errors
/// When this server has no such profile or format.
pub fn format_of(profile: &str, choice: Option<&str>) -> Result<&'static dyn Format, WireError> {
    match choice {
        Some(name) => super::format(name).ok_or_else(|| WireError::Format(name.to_owned())),
        None => super::profile(profile)
            .and_then(|profile| profile.format())
            .ok_or_else(|| WireError::Profile(profile.to_owned())),
    }
}
