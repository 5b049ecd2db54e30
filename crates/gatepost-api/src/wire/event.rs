//! Events to publish: one, a batch, NDJSON. The hot path: the body is scanned twice (syntax, then
//! members) and its `data` copied once.

use bytes::Bytes;
use gatepost_core::event::{Subject, Urgency};
use gatepost_engine::ops::{PublishInput, unpublishable};
use serde_json::value::RawValue;

use super::value::own_bytes;
use super::{At, Read, Reader};
use crate::problem::ErrorCode;

/// Events in one batch (SETTLED).
pub(crate) const BATCH_MAX: usize = 1_000;

/// Members of an event.
pub(crate) const EVENT: [&str; 7] = ["type", "id", "timestamp", "subject", "data", "attributes", "urgency"];
/// Members of a subject.
pub(crate) const SUBJECT: [&str; 2] = ["type", "id"];
/// Members of a batch.
pub(crate) const BATCH: [&str; 1] = ["events"];

/// Urgencies by word.
pub(crate) const URGENCIES: [(&str, Urgency); 3] =
    [("urgent", Urgency::Urgent), ("normal", Urgency::Normal), ("bulk", Urgency::Bulk)];

impl<'a> Reader<'a, '_> {
    /// The document as one event. `None`: what is wrong is noted.
    pub(crate) fn single_event(&mut self) -> Read<Option<PublishInput>> {
        if self.is_list() {
            let message = "must be one event; several are published at …/events/batch, as {\"events\":[…]}";
            self.errors.push(At::Root, message);
            return Ok(None);
        }
        self.event(self.document(), At::Root)
    }

    /// Whether the document is a list, well-formed or not.
    fn is_list(&self) -> bool {
        self.document().trim_ascii_start().starts_with('[')
            && serde_json::from_str::<&RawValue>(self.document()).is_ok()
    }

    /// One event. `None`: what is wrong is noted.
    pub(crate) fn event(&mut self, text: &'a str, at: At<'_>) -> Read<Option<PublishInput>> {
        let Some(fields) = self.open(text, at, &EVENT)? else { return Ok(None) };
        let before = self.errors.len();
        let event_type = match fields.required("type", at, self) {
            Some(raw) => self.parsed(raw, at.member("type")),
            None => None,
        };
        if let Some(message) = event_type.as_ref().and_then(unpublishable) {
            self.errors.push(at.member("type"), message);
        }
        let id = fields.optional("id").and_then(|raw| self.parsed(raw, at.member("id")));
        let timestamp = fields.optional("timestamp").and_then(|raw| self.parsed(raw, at.member("timestamp")));
        let subject = match fields.optional("subject") {
            Some(raw) => self.subject(raw, at.member("subject"))?,
            None => None,
        };
        let data = fields.optional("data").and_then(|raw| self.json(raw, at.member("data")));
        let attributes = match fields.optional("attributes") {
            Some(raw) => self.json_object(raw, at.member("attributes"))?,
            None => None,
        };
        let urgency = fields.optional("urgency").and_then(|raw| self.word(raw, at.member("urgency"), &URGENCIES));
        let (Some(event_type), true) = (event_type, self.errors.len() == before) else { return Ok(None) };
        Ok(Some(PublishInput {
            id,
            fallback: None,
            event_type,
            timestamp,
            subject,
            data: data.map_or(Bytes::from_static(b"null"), own_bytes),
            attributes: attributes.map(own_bytes),
            urgency,
            trace: None,
        }))
    }

    fn subject(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<Subject>> {
        if raw.get().starts_with('"') {
            self.errors.push(at, format!("must be an object, such as {{\"id\":{}}}", shortened(raw.get())));
            return Ok(None);
        }
        let Some(fields) = self.open(raw.get(), at, &SUBJECT)? else { return Ok(None) };
        let kind = fields.optional("type").and_then(|raw| self.text(raw, at.member("type"), 1..=256));
        let id = match fields.required("id", at, self) {
            Some(raw) => self.text(raw, at.member("id"), 1..=256),
            None => None,
        };
        Ok(id.map(|id| Subject { kind, id }))
    }

    /// `{"events": […]}`, each of at most so many bytes.
    pub(crate) fn batch(&mut self, most: usize) -> Read<Vec<PublishInput>> {
        if self.is_list() {
            self.errors.push(At::Root, "must be an object with the list in it: {\"events\":[…]}");
            return Ok(Vec::new());
        }
        let Some(fields) = self.open(self.document(), At::Root, &BATCH)? else { return Ok(Vec::new()) };
        match fields.required("events", At::Root, self) {
            Some(raw) => self.event_list(raw.get(), At::Root.member("events"), most),
            None => Ok(Vec::new()),
        }
    }

    fn event_list(&mut self, text: &'a str, at: At<'_>, most: usize) -> Read<Vec<PublishInput>> {
        let Some(list) = self.items(text, at, BATCH_MAX)? else { return Ok(Vec::new()) };
        self.batch_size(list.count, at);
        let mut events = Vec::with_capacity(list.items.len());
        for (index, item) in list.items.into_iter().enumerate() {
            if self.event_size(item.get(), at.item(index), most) {
                events.extend(self.event(item.get(), at.item(index))?);
            }
        }
        Ok(events)
    }

    /// Whether one event of many is no larger than one alone may be; noted if not.
    pub(crate) fn event_size(&mut self, text: &str, at: At<'_>, most: usize) -> bool {
        if text.len() > most {
            let message = format!("is over {most} bytes, the most one event may have (max_body_bytes)");
            self.errors.push_as(ErrorCode::PayloadTooLarge, at, message);
        }
        text.len() <= most
    }

    /// One event of at most so many bytes a line; empty lines are none.
    pub(crate) fn ndjson(&mut self, most: usize) -> Read<Vec<PublishInput>> {
        let at = At::Root.member("events");
        let count = lines_of(self.document()).count();

        let lines: Vec<&'a str> = lines_of(self.document()).take(BATCH_MAX).collect();
        self.batch_size(count, at);
        let mut events = Vec::with_capacity(lines.len());
        for (index, line) in lines.into_iter().enumerate() {
            if self.event_size(line, at.item(index), most) {
                events.extend(self.event(line, at.item(index))?);
            }
        }
        Ok(events)
    }

    /// Notes a batch with no or too many events.
    pub(crate) fn batch_size(&mut self, count: usize, at: At<'_>) {
        if count == 0 {
            self.errors.push(at, "must have at least one event");
        } else if count > BATCH_MAX {
            let message = format!("must have at most {BATCH_MAX} events, not {count}");
            self.errors.push_as(ErrorCode::BatchTooLarge, at, message);
        }
    }
}

/// A JSON text of at most so many characters, to repeat.
fn shortened(text: &str) -> &str {
    if text.len() <= 64 { text } else { "\"…\"" }
}

fn lines_of(document: &str) -> impl Iterator<Item = &str> {
    document.split('\n').filter(|line| !line.trim_ascii().is_empty())
}
