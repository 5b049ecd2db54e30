//! Events: one thing that happened.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::trace::TraceContext;
use crate::{EventId, EventSeq, TenantKey, Timestamp};

/// A dotted name: `[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*`, at most 128 characters, last segment not
/// `all` (that word belongs to subscriptions).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Arc<str>);

/// Why a text is not an [`EventType`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEventType {
    /// Empty, too long, or with characters outside the grammar.
    #[error("must be dot-separated segments of A-Z a-z 0-9 _ -, at most 128 characters in all")]
    Grammar,
    /// Ends in `all`.
    #[error("an event type must not end in \"all\": that word means every type in a subscription")]
    All,
}

impl EventType {
    /// The family Gatepost's own events belong to.
    pub const OWN_FAMILY: &'static str = "gatepost";

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, to be shared.
    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// As [`EventType::shared`], to be replaced by the same text.
    pub(crate) fn share(&mut self, same: &Arc<str>) {
        debug_assert_eq!(self.0, *same);
        self.0 = Arc::clone(same);
    }

    /// The dot-separated parts, first to last; never empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The first segment.
    pub fn family(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }

    /// Whether this is one of Gatepost's own (`gatepost.…`), which callers may not publish.
    pub fn is_own(&self) -> bool {
        self.0.strip_prefix(Self::OWN_FAMILY).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// Whether `segment` may stand between two dots of an event type.
pub(crate) fn is_segment(segment: &str) -> bool {
    is_plain(segment.as_bytes())
}

fn is_plain(segment: &[u8]) -> bool {
    !segment.is_empty() && segment.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

impl FromStr for EventType {
    type Err = BadEventType;

    fn from_str(s: &str) -> Result<Self, BadEventType> {
        if s.len() > 128 || !s.as_bytes().split(|b| *b == b'.').all(is_plain) {
            return Err(BadEventType::Grammar);
        }
        if s == "all" || s.ends_with(".all") {
            return Err(BadEventType::All);
        }
        Ok(EventType(s.into()))
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How much a delivery hurries. A waiting urgent one goes before any waiting normal or bulk one of
/// the same tenant (DESIGN 4.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Sessions revoked, users deactivated, credentials changed.
    Urgent,
    /// Everything else.
    #[default]
    Normal,
    /// Imports and other mass changes.
    Bulk,
}

impl Urgency {
    /// Most urgent first.
    pub const ALL: [Urgency; 3] = [Urgency::Urgent, Urgency::Normal, Urgency::Bulk];

    /// 0, 1, 2: a position in [`Urgency::ALL`], and the number stored.
    pub fn rank(self) -> usize {
        self as usize
    }

    /// The urgency with this rank.
    pub fn from_rank(rank: usize) -> Option<Urgency> {
        Self::ALL.get(rank).copied()
    }

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Urgency::Urgent => "urgent",
            Urgency::Normal => "normal",
            Urgency::Bulk => "bulk",
        }
    }
}

impl FromStr for Urgency {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|u| u.as_str() == s).ok_or(())
    }
}

/// Who or what an event is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of thing, such as `user`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its id in the publisher's system. 1 to 256 characters.
    pub id: String,
}

/// An event as accepted: facts that never change, shared by all its deliveries.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// The store's number; grows in commit order.
    pub seq: EventSeq,
    /// Whose event.
    pub tenant: TenantKey,
    /// The caller's id, or ours.
    pub id: EventId,
    /// What happened.
    pub event_type: EventType,
    /// When it happened, by the publisher's word (else when we accepted it).
    pub timestamp: Timestamp,
    /// When we accepted it.
    pub accepted_at: Timestamp,
    /// About whom.
    pub subject: Option<Subject>,
    /// How much it hurries.
    pub urgency: Urgency,
    /// A JSON object as given, byte for byte; absent when the caller gave none.
    pub attributes: Option<Bytes>,
    /// One JSON value as given, byte for byte (`null` when the caller gave none).
    pub data: Bytes,
    /// The tenant's registry version the event was matched against.
    pub registry_version: u64,
    /// Where in the publisher's trace it was published, if the publisher said.
    pub trace: Option<TraceContext>,
}
