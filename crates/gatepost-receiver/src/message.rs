//! What a verified request says: a message, and the events in it.

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The type of the signed question whether somebody is there (verification by `post`).
pub(crate) const PING: &str = "gatepost.ping";

/// A verified delivery.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message {
    /// The sender's id of this delivery or event: the same for every attempt. Of `standard` and
    /// `cloudevents` it is `webhook-id`; else the delivery's, or, where the system has none, the event's
    /// id from a header, or a hash of the body.
    pub id: String,
    /// Whether the signature covers [`Message::id`]. It does not where a system has its ids only in
    /// headers (FerrisKey, Cryptr), nor where nothing is signed (Okta).
    pub id_is_signed: bool,
    /// The events, in order: one, or those of a batch; none in the connection check of a system that
    /// has an empty one.
    pub events: Vec<Event>,
    /// Whether several events may come in one request of this form, and these did.
    pub is_batch: bool,
    /// When this attempt was signed, where the scheme says so.
    pub signed_at: Option<SystemTime>,
    /// Which of the keys fitted, in the order given: after a rotation, whether the old one is still used.
    pub key: usize,
    /// Gatepost's id of the delivery, from a header (not signed).
    pub delivery_id: Option<String>,
    /// Which attempt this is, from 1, from a header (not signed).
    pub attempt: Option<u32>,
    /// The event's position in its tenant's feed, from a header (not signed).
    pub position: Option<u64>,
    /// Whether it says that it is a test: nothing has happened. From a header (not signed), so a test
    /// for which nothing is done is safe, and one that would open something is not.
    pub test: bool,
}

impl Message {
    /// Whether it only asks if somebody is there who knows the secret: acknowledge it, do nothing else.
    pub fn is_ping(&self) -> bool {
        self.events.iter().all(|event| event.kind == PING || event.is_probe)
    }
}

/// What an event is about.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Subject {
    /// What kind of thing, where it is told.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Its id.
    pub id: String,
}

/// One event.
#[derive(Clone)]
#[non_exhaustive]
pub struct Event {
    /// Its id: the same in every attempt.
    pub id: String,
    /// Its type, in the words of its system: `user.created`, `dir_sync.user.provision.success`,
    /// `user.lifecycle.create`, `postCreateUser`. Empty in the form `raw`, which tells none.
    pub kind: String,
    /// When it happened, as written: RFC 3339, where its system says it.
    pub timestamp: Option<String>,
    /// What it is about.
    pub subject: Option<Subject>,
    /// Where it comes from (`cloudevents`, `okta`).
    pub source: Option<String>,
    pub(crate) is_probe: bool,
    pub(crate) whole: Box<str>,
    pub(crate) data: Option<Range<usize>>,
}

impl Event {
    /// By what one event is known from others: its id, of `cloudevents` with its source.
    pub fn key(&self) -> String {
        match &self.source {
            Some(source) => format!("{source} {}", self.id),
            None => self.id.clone(),
        }
    }

    /// The data as they came, byte for byte; `None` where a webhook sends none (`payload: thin`). Of
    /// `okta` the LogEvent itself.
    pub fn data_text(&self) -> Option<&str> {
        self.data.clone().and_then(|range| self.whole.get(range))
    }

    /// The data, read as a type of one's own; no data are read as `null`.
    ///
    /// # Errors
    /// When they are not of that type.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.data_text().unwrap_or("null"))
    }

    /// The event with all its members, as it came.
    pub fn whole_text(&self) -> &str {
        &self.whole
    }

    /// The event with all its members, read as a type of one's own.
    ///
    /// # Errors
    /// When it is not of that type.
    pub fn whole<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.whole)
    }

    /// From the text of an event, and the part of it that is its data.
    pub(crate) fn of(id: String, kind: String, whole: &RawValue, data: Option<&RawValue>) -> Event {
        let text = whole.get();
        // A part of the text knows where it lies by its address.
        let range = data.and_then(|data| {
            let start = (data.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            let range = start..start + data.get().len();
            text.get(range.clone()).is_some().then_some(range)
        });
        Event {
            id,
            kind,
            timestamp: None,
            subject: None,
            source: None,
            is_probe: false,
            whole: text.into(),
            data: range,
        }
    }
}

/// Without the data, which are about people.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("timestamp", &self.timestamp)
            .field("bytes", &self.whole.len())
            .finish_non_exhaustive()
    }
}
