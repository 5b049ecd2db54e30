//! Formats: how events look in a body.

use bytes::Bytes;

use super::facts::{BatchFacts, RenderFacts};
use crate::matching::MatchFacts;

/// Makes what filters see as `data`: JSON, at most twice what was published and two KiB more.
pub type FilterData = fn(&MatchFacts<'_>) -> Vec<u8>;

/// One way to put events into a body. Stateless: the same facts always make the same bytes (P3).
pub trait Format: Send + Sync {
    /// Its name, as in a webhook's `format`.
    fn name(&self) -> &'static str;

    /// The value of `content-type` of a single event.
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// The value of `accept`, where the system sends one.
    fn accept(&self) -> Option<&'static str> {
        None
    }

    /// The body of a single event.
    fn body(&self, facts: &RenderFacts<'_>) -> Bytes;

    /// How several events go out as one body; `None`: they do not.
    fn batch(&self) -> Option<&dyn BatchFormat> {
        None
    }

    /// What filters see as `data` where that is not what was published, but what is sent.
    fn filter_data(&self) -> Option<FilterData> {
        None
    }

    /// Whether the webhook's `payload` rules are honoured: elsewhere the document of the system says
    /// what is sent.
    fn cuts_payload(&self) -> bool {
        false
    }

    /// Whether a body without `data` means anything.
    fn can_be_thin(&self) -> bool {
        self.cuts_payload()
    }
}

/// The half of a [`Format`] that takes batches.
pub trait BatchFormat: Send + Sync {
    /// The value of `content-type`.
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// The body of a batch.
    fn body(&self, facts: &BatchFacts<'_>) -> Bytes;
}
