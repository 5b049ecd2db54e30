//! What is published.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much an event hurries; without one, the catalogue's word for its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Before anything else of the tenant.
    Urgent,
    /// As usual.
    Normal,
    /// After everything else.
    Bulk,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Subject {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    id: String,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Event {
    #[serde(rename = "type")]
    event_type: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Subject>,
    data: Value,
    #[serde(skip_serializing_if = "Map::is_empty")]
    attributes: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    urgency: Option<Urgency>,
}

impl Event {
    /// An event of this type, with an id of its own: publishing the same `Event` twice is publishing it
    /// once.
    pub fn new(event_type: impl Into<String>, data: impl Into<Value>) -> Self {
        Event {
            event_type: event_type.into(),
            id: fresh_id(),
            timestamp: None,
            subject: None,
            data: data.into(),
            attributes: Map::new(),
            urgency: None,
        }
    }

    /// Takes an id of the caller's, such as the number of the row in its outbox: then even a restarted
    /// platform can publish it again without making a second one. `[A-Za-z0-9_:@~+=/-]{1,128}`.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// The id it will be published under.
    pub fn event_id(&self) -> &str {
        &self.id
    }

    /// When it happened (RFC 3339); else the moment of acceptance.
    #[must_use]
    pub fn timestamp(mut self, timestamp: impl Into<String>) -> Self {
        self.timestamp = Some(timestamp.into());
        self
    }

    /// Whom it is about.
    #[must_use]
    pub fn subject(mut self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        self.subject = Some(Subject { kind: Some(kind.into()), id: id.into() });
        self
    }

    /// One attribute beside the data, such as the domain it happened in.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// How much it hurries.
    #[must_use]
    pub fn urgency(mut self, urgency: Urgency) -> Self {
        self.urgency = Some(urgency);
        self
    }
}

/// An event Gatepost has on disk.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Published {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it happened (RFC 3339).
    pub timestamp: String,
    /// How many webhooks it goes to.
    pub deliveries: u32,
    /// It had been accepted before.
    pub duplicate: bool,
}

/// 130 random bits in Gatepost's alphabet of ids.
pub(crate) fn fresh_id() -> String {
    use rand::RngExt as _;
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    #[expect(clippy::disallowed_methods, reason = "a program of its own: there is no Entropy to take")]
    let mut rng = rand::rng();
    let mut id = String::with_capacity(30);
    id.push_str("cli_");
    for _ in 0..26 {
        id.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_written_as_gatepost_reads_it() {
        let event = Event::new("user.created", json!({"a": 1}))
            .id("row-7")
            .timestamp("2026-11-22T10:00:00Z")
            .subject("user", "u1")
            .attribute("domain", "d")
            .urgency(Urgency::Urgent);
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({"type": "user.created", "id": "row-7", "timestamp": "2026-11-22T10:00:00Z",
                   "subject": {"type": "user", "id": "u1"}, "data": {"a": 1}, "attributes": {"domain": "d"},
                   "urgency": "urgent"})
        );
        let plain = serde_json::to_value(Event::new("a.b", Value::Null).id("x")).unwrap();
        assert_eq!(plain, json!({"type": "a.b", "id": "x", "data": null}));
    }

    #[test]
    fn ids_are_their_own() {
        let (a, b) = (fresh_id(), fresh_id());
        assert_ne!(a, b);
        assert!(a.len() == 30 && a.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'), "{a}");
    }
}
