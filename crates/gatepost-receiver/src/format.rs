//! How bodies look, and what in them is an event.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::json::object;
use crate::message::{Event, Subject};

/// How a webhook's bodies look: its `format`, which its profile presets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `{id, type, timestamp, subject, data}`, or a batch of them.
    Standard,
    /// CloudEvents 1.0, structured or batched JSON.
    CloudEvents,
    /// Cryptr's nine members.
    Cryptr,
    /// `{event, timestamp, resource_id, data}`.
    FerrisKey,
    /// Okta's envelope with one or more LogEvents.
    Okta,
    /// `{"request": …}`.
    Cymmetri,
    /// The data alone.
    Raw,
}

/// What a body says.
pub(crate) struct Read {
    /// The id the body gives the whole of it.
    pub(crate) id: Option<String>,
    pub(crate) events: Vec<Event>,
    pub(crate) is_batch: bool,
    /// Whether the events' ids are those of the body (else they are the message's).
    pub(crate) own_ids: bool,
}

impl Read {
    /// One event that has an id of its own.
    fn one(event: Event) -> Read {
        Read { id: Some(event.id.clone()), events: vec![event], is_batch: false, own_ids: true }
    }

    /// One event that is known by the message's id.
    fn nameless(event: Event) -> Read {
        Read { id: None, events: vec![event], is_batch: false, own_ids: false }
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Standard => "standard",
            Format::CloudEvents => "cloudevents",
            Format::Cryptr => "cryptr",
            Format::FerrisKey => "ferriskey",
            Format::Okta => "okta",
            Format::Cymmetri => "cymmetri",
            Format::Raw => "raw",
        }
    }

    /// Takes a body apart.
    pub(crate) fn read(self, body: &[u8]) -> Result<Read, Error> {
        let whole: &RawValue = serde_json::from_slice(body).map_err(|problem| self.bad("", &problem))?;
        match self {
            Format::Standard => self.standard(whole),
            Format::CloudEvents => self.cloudevents(whole),
            Format::Cryptr => self.cryptr(whole),
            Format::FerrisKey => self.ferriskey(whole),
            Format::Okta => self.okta(whole),
            Format::Cymmetri => self.cymmetri(whole),
            Format::Raw => Ok(Read::nameless(Event::of(String::new(), String::new(), whole, Some(whole)))),
        }
    }

    fn bad(self, at: &str, problem: &serde_json::Error) -> Error {
        Error::body(self.name(), at, problem)
    }

    fn parse<'a, T: Deserialize<'a>>(self, at: &str, text: &'a RawValue) -> Result<T, Error> {
        object(text.get().as_bytes()).map_err(|problem| self.bad(at, &problem))
    }

    fn items(
        self,
        at: &str,
        items: &[&RawValue],
        read: impl Fn(&str, &RawValue) -> Result<Event, Error>,
    ) -> Result<Vec<Event>, Error> {
        items.iter().enumerate().map(|(number, item)| read(&format!("{at}/{number}"), item)).collect()
    }

    fn standard(self, whole: &RawValue) -> Result<Read, Error> {
        /// A type may be called `batch`, too: what makes one is its list.
        #[derive(Deserialize)]
        struct Batch<'a> {
            id: String,
            #[serde(rename = "type")]
            kind: String,
            #[serde(borrow)]
            events: Vec<&'a RawValue>,
        }
        let batch = object::<Batch<'_>>(whole.get().as_bytes()).ok().filter(|batch| batch.kind == "batch");
        let Some(batch) = batch else { return Ok(Read::one(self.standard_item("", whole)?)) };
        let events = self.items("/events", &batch.events, |at, item| self.standard_item(at, item))?;
        Ok(Read { id: Some(batch.id), events, is_batch: true, own_ids: true })
    }

    fn standard_item(self, at: &str, whole: &RawValue) -> Result<Event, Error> {
        #[derive(Deserialize)]
        struct Item<'a> {
            id: String,
            #[serde(rename = "type")]
            kind: String,
            timestamp: String,
            subject: Option<Subject>,
            #[serde(default, borrow, deserialize_with = "present")]
            data: Option<&'a RawValue>,
        }
        let item: Item<'_> = self.parse(at, whole)?;
        let event = Event::of(item.id, item.kind, whole, item.data);
        Ok(Event { timestamp: Some(item.timestamp), subject: item.subject, ..event })
    }

    fn cloudevents(self, whole: &RawValue) -> Result<Read, Error> {
        // By the body, which is signed, and not by the content type, which is not.
        if !whole.get().starts_with('[') {
            return Ok(Read::one(self.cloudevent("", whole)?));
        }
        let items: Vec<&RawValue> = serde_json::from_str(whole.get()).map_err(|problem| self.bad("", &problem))?;
        let events = self.items("", &items, |at, item| self.cloudevent(at, item))?;
        Ok(Read { id: None, events, is_batch: true, own_ids: true })
    }

    fn cloudevent(self, at: &str, whole: &RawValue) -> Result<Event, Error> {
        #[derive(Deserialize)]
        struct Item<'a> {
            specversion: String,
            id: String,
            source: String,
            #[serde(rename = "type")]
            kind: String,
            time: Option<String>,
            subject: Option<String>,
            #[serde(default, borrow, deserialize_with = "present")]
            data: Option<&'a RawValue>,
        }
        let item: Item<'_> = self.parse(at, whole)?;
        if item.specversion != "1.0" {
            let problem = "the specversion is not 1.0".to_owned();
            return Err(Error::Body { form: self.name(), at: format!("{at}/specversion"), problem });
        }
        let event = Event::of(item.id, item.kind, whole, item.data);
        let subject = item.subject.map(|id| Subject { kind: None, id });
        Ok(Event { timestamp: item.time, subject, source: Some(item.source), ..event })
    }

    fn cryptr(self, whole: &RawValue) -> Result<Read, Error> {
        #[derive(Deserialize)]
        struct Item<'a> {
            code: String,
            issued_at: Option<String>,
            #[serde(default, borrow, deserialize_with = "present")]
            data: Option<&'a RawValue>,
        }
        let item: Item<'_> = self.parse("", whole)?;
        let event = Event::of(String::new(), item.code, whole, item.data);
        Ok(Read::nameless(Event { timestamp: item.issued_at, ..event }))
    }

    fn ferriskey(self, whole: &RawValue) -> Result<Read, Error> {
        #[derive(Deserialize)]
        struct Item<'a> {
            event: String,
            timestamp: String,
            resource_id: String,
            #[serde(default, borrow, deserialize_with = "present")]
            data: Option<&'a RawValue>,
        }
        let item: Item<'_> = self.parse("", whole)?;
        let event = Event::of(String::new(), item.event, whole, item.data);
        let subject = Some(Subject { kind: None, id: item.resource_id });
        Ok(Read::nameless(Event { timestamp: Some(item.timestamp), subject, ..event }))
    }

    fn okta(self, whole: &RawValue) -> Result<Read, Error> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(rename = "eventId")]
            id: String,
            source: Option<String>,
            #[serde(borrow)]
            data: Data<'a>,
        }
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow)]
            events: Vec<&'a RawValue>,
        }
        let envelope: Envelope<'_> = self.parse("", whole)?;
        let mut events = self.items("/data/events", &envelope.data.events, |at, item| self.log_event(at, item))?;
        for event in &mut events {
            event.source.clone_from(&envelope.source);
        }
        let is_batch = events.len() != 1;
        Ok(Read { id: Some(envelope.id), events, is_batch, own_ids: true })
    }

    fn log_event(self, at: &str, whole: &RawValue) -> Result<Event, Error> {
        #[derive(Deserialize)]
        struct Item<'a> {
            uuid: String,
            #[serde(rename = "eventType")]
            kind: String,
            // What a publisher gave passes as it is, whatever it is.
            #[serde(default, borrow, deserialize_with = "present")]
            published: Option<&'a RawValue>,
            #[serde(default, borrow, deserialize_with = "present")]
            target: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Target {
            id: String,
            #[serde(default, rename = "type")]
            kind: Option<String>,
        }
        let item: Item<'_> = self.parse(at, whole)?;
        let targets: Vec<Target> = item.target.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let timestamp = item.published.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let subject = targets.into_iter().next().map(|target| Subject { kind: target.kind, id: target.id });
        Ok(Event { timestamp, subject, ..Event::of(item.uuid, item.kind, whole, Some(whole)) })
    }

    fn cymmetri(self, whole: &RawValue) -> Result<Read, Error> {
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(default, borrow, deserialize_with = "present")]
            request: Option<&'a RawValue>,
        }
        let item: Item<'_> = self.parse("", whole)?;
        // Its connection check has an empty body. What it is called, the token says.
        let is_probe = item.request.is_none();
        let event = Event::of(String::new(), String::new(), whole, item.request);
        Ok(Read::nameless(Event { is_probe, ..event }))
    }
}

/// A member that is there, also when it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
