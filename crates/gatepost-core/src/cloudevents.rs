//! CloudEvents 1.0 coming in: structured, batched and binary (HTTP protocol binding 1.0.2).
//!
//! A request becomes neutral [`IncomingEvent`]s. `data` stays the bytes that came; only
//! `data_base64` is decoded, and what it holds must be JSON too.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::EventType;
use crate::{EventId, Timestamp};

/// How a request carries CloudEvents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// One event as a JSON object.
    Structured,
    /// Several as a JSON array.
    Batched,
    /// One, in `ce-…` headers and the body.
    Binary,
}

/// The mode of a request, by its content type and whether it has a `ce-specversion` header; `None`
/// when it carries no CloudEvents we read.
pub fn mode(content_type: Option<&str>, has_specversion: bool) -> Option<Mode> {
    match content_type.map(media_type).as_deref() {
        Some("application/cloudevents+json" | "application/cloudevents") => Some(Mode::Structured),
        Some("application/cloudevents-batch+json" | "application/cloudevents-batch") => Some(Mode::Batched),
        _ if has_specversion => Some(Mode::Binary),
        _ => None,
    }
}

/// The media type without parameters, in lower case.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(media_type: &str) -> bool {
    media_type.ends_with("/json") || media_type.ends_with("+json")
}

/// One event as it came, its members checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncomingEvent {
    /// The sender's `id`, unique within `source` only.
    pub id: String,
    /// The sender's `source`.
    pub source: String,
    /// `type`.
    pub event_type: EventType,
    /// `time`.
    pub timestamp: Option<Timestamp>,
    /// `subject`, which becomes the subject's id.
    pub subject: Option<String>,
    /// `source`, `dataschema` and the extensions, as a JSON object.
    pub attributes: Bytes,
    /// One JSON value, byte for byte; `null` when there was none.
    pub data: Bytes,
}

impl IncomingEvent {
    /// The sender's id, when it can be an event's id here as it is.
    pub fn own_id(&self) -> Option<EventId> {
        self.id.parse().ok()
    }

    /// The id this event gets when the sender's does not fit our grammar or is taken by an event of
    /// another source.
    pub fn derived_id(&self) -> EventId {
        derived_id(&self.source, &self.id)
    }
}

/// `ce_` and a hash of source and id: the same pair always gives the same id.
pub fn derived_id(source: &str, id: &str) -> EventId {
    // The length keeps ("a", "bc") and ("ab", "c") apart.
    let input = [&(source.len() as u64).to_be_bytes(), source.as_bytes(), id.as_bytes()].concat();
    let hash = digest(&SHA256, &input);
    let hex: String = hash.as_ref().iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    format!("ce_{hex}").parse().expect("hexadecimal digits and _ are in the grammar of event ids")
}

/// The event id for a sender's source and id: the id itself when it fits the grammar and `is_free`,
/// else derived.
pub fn event_id(source: &str, id: &str, is_free: impl FnOnce(&EventId) -> bool) -> EventId {
    match id.parse::<EventId>() {
        Ok(own) if is_free(&own) => own,
        _ => derived_id(source, id),
    }
}

/// One thing wrong with a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// A JSON pointer into the body; for binary mode `/ce-name`, after the header.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or with a member twice.
    #[error("{message} (line {line}, column {column})")]
    Malformed {
        /// What the parser says.
        message: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// More events than are taken at once.
    #[error("at most {0} events can be sent at once")]
    TooMany(usize),
    /// JSON, but not CloudEvents as we take them: everything that is wrong.
    #[error("{} of the members cannot be accepted", .0.len())]
    Invalid(Vec<FieldError>),
}

impl DecodeError {
    fn malformed(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        // The position is told apart from the text.
        let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        DecodeError::Malformed { message, line: error.line(), column: error.column() }
    }
}

/// Decodes one structured event.
///
/// # Errors
/// [`DecodeError::Malformed`] or [`DecodeError::Invalid`].
pub fn structured(body: &Bytes) -> Result<IncomingEvent, DecodeError> {
    let raw: &RawValue = serde_json::from_slice(body).map_err(|e| DecodeError::malformed(&e))?;
    let mut errors = Vec::new();
    let event = from_json(raw, "", body, &mut errors)?;
    finish(event, errors)
}

/// Decodes a batch of at most `max` events.
///
/// # Errors
/// Any [`DecodeError`]; errors of all events together.
pub fn batched(body: &Bytes, max: usize) -> Result<Vec<IncomingEvent>, DecodeError> {
    let raw: &RawValue = serde_json::from_slice(body).map_err(|e| DecodeError::malformed(&e))?;
    if !raw.get().trim_start().starts_with('[') {
        return Err(DecodeError::Invalid(vec![FieldError {
            pointer: String::new(),
            message: "must be a JSON array of CloudEvents".into(),
        }]));
    }
    let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(|e| DecodeError::malformed(&e))?;
    if items.len() > max {
        return Err(DecodeError::TooMany(max));
    }
    let (mut events, mut errors) = (Vec::with_capacity(items.len()), Vec::new());
    for (i, item) in items.into_iter().enumerate() {
        events.push(from_json(item, &format!("/{i}"), body, &mut errors)?);
    }
    finish(events.into_iter().collect::<Option<Vec<_>>>(), errors)
}

/// Decodes one binary event. `headers` are names in any case and values, at least the `ce-…` ones.
///
/// # Errors
/// [`DecodeError::Malformed`] or [`DecodeError::Invalid`].
pub fn binary<'h>(
    headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    content_type: Option<&str>,
    body: &Bytes,
) -> Result<IncomingEvent, DecodeError> {
    let mut draft = Draft::default();
    let mut errors = Vec::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let Some(attribute) = name.strip_prefix("ce-") else { continue };
        let pointer = format!("/{name}");
        match decode_header(value) {
            Ok(text) => draft.text(attribute, text, &pointer, &mut errors),
            Err(message) => errors.push(FieldError { pointer, message: message.into() }),
        }
    }
    let media_type = content_type.map(media_type);
    if body.iter().all(u8::is_ascii_whitespace) {
        draft.data = Some(Bytes::from_static(b"null"));
    } else if media_type.as_deref().is_some_and(|m| !is_json(m)) {
        errors.push(FieldError { pointer: "/content-type".into(), message: NOT_JSON.into() });
    } else {
        let raw: &RawValue = serde_json::from_slice(body).map_err(|e| DecodeError::malformed(&e))?;
        draft.data = Some(body.slice_ref(raw.get().as_bytes()));
    }
    let event = draft.finish("/ce-", &mut errors);
    finish(event, errors)
}

const NOT_JSON: &str = "only JSON data is taken (application/json, or a type that ends in +json)";

fn finish<T>(value: Option<T>, errors: Vec<FieldError>) -> Result<T, DecodeError> {
    match value {
        Some(value) if errors.is_empty() => Ok(value),
        _ => Err(DecodeError::Invalid(errors)),
    }
}

/// An object's members in order, a member twice refused.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("duplicate member {name:?}")));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(InOrder)
    }
}

/// `None` when something is wrong with it, which is then among `errors`.
fn from_json(
    raw: &RawValue,
    at: &str,
    body: &Bytes,
    errors: &mut Vec<FieldError>,
) -> Result<Option<IncomingEvent>, DecodeError> {
    if !raw.get().starts_with('{') {
        errors.push(FieldError { pointer: at.into(), message: "must be a CloudEvent: a JSON object".into() });
        return Ok(None);
    }
    let Members(members) = serde_json::from_str(raw.get()).map_err(|e| {
        // The position is counted from where this event begins in the body.
        let start = raw.get().as_ptr() as usize - body.as_ptr() as usize;
        let before = &body[..start];
        let lines = before.iter().filter(|b| **b == b'\n').count();
        let column = before.iter().rev().take_while(|b| **b != b'\n').count();
        match DecodeError::malformed(&e) {
            DecodeError::Malformed { message, line, column: own } => DecodeError::Malformed {
                message,
                line: line + lines,
                column: if line == 1 { own + column } else { own },
            },
            other => other,
        }
    })?;
    let mut draft = Draft::default();
    for (name, value) in members {
        let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        draft.json(&name, value, &pointer, body, errors);
    }
    Ok(draft.finish(&format!("{at}/"), errors))
}

/// An event under construction.
#[derive(Default)]
struct Draft {
    names: Vec<String>,
    bad: Vec<String>,
    id: Option<String>,
    source: Option<String>,
    event_type: Option<EventType>,
    timestamp: Option<Timestamp>,
    subject: Option<String>,
    /// Members of the attributes object: name, and value as JSON text.
    attributes: Vec<(String, String)>,
    data: Option<Bytes>,
}

impl Draft {
    /// Takes one member of a structured event.
    fn json(&mut self, name: &str, value: &RawValue, pointer: &str, body: &Bytes, errors: &mut Vec<FieldError>) {
        let mut bad = |draft: &mut Self, message: &str| {
            draft.bad.push(name.to_owned());
            errors.push(FieldError { pointer: pointer.to_owned(), message: message.to_owned() });
        };
        let text = value.get();
        match name {
            "data" if self.data.is_some() => bad(self, "cannot stand beside data_base64"),
            "data" => self.data = Some(body.slice_ref(text.as_bytes())),
            // A null attribute is an absent one (JSON format 1.0, 2.2); null data is data.
            _ if text == "null" => {}
            "data_base64" if self.data.is_some() => bad(self, "cannot stand beside data"),
            "data_base64" => match serde_json::from_str::<String>(text).map(|t| STANDARD.decode(t)) {
                Ok(Ok(bytes)) => match serde_json::from_slice::<&RawValue>(&bytes) {
                    Ok(raw) => self.data = Some(Bytes::copy_from_slice(raw.get().as_bytes())),
                    Err(_) => bad(self, "must hold JSON: only JSON data is taken"),
                },
                _ => bad(self, "must be base64"),
            },
            _ if text.starts_with('"') => match serde_json::from_str::<String>(text) {
                Ok(value) => self.text(name, value, pointer, errors),
                // A lone surrogate, for one: a JSON string that is no text.
                Err(_) => bad(self, "must be text"),
            },
            _ if KNOWN.contains(&name) => bad(self, "must be text"),
            _ if !is_name(name) => bad(self, BAD_NAME),
            _ if text == "true" || text == "false" || text.parse::<i32>().is_ok() => {
                self.attributes.push((name.to_owned(), text.to_owned()));
            }
            _ => bad(self, "must be text, true, false or a 32-bit integer"),
        }
    }

    /// Takes one attribute whose value is text.
    fn text(&mut self, name: &str, value: String, pointer: &str, errors: &mut Vec<FieldError>) {
        let repeated = self.names.iter().any(|known| known == name);
        self.names.push(name.to_owned());
        let problem = if repeated { Some("is there twice".to_owned()) } else { self.take(name, value).err() };
        if let Some(message) = problem {
            self.bad.push(name.to_owned());
            errors.push(FieldError { pointer: pointer.to_owned(), message });
        }
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        let not_empty = |value: String| {
            if value.is_empty() { Err("must not be empty".to_owned()) } else { Ok(value) }
        };
        match name {
            "specversion" if value == "1.0" => {}
            "specversion" => return Err("must be \"1.0\"".into()),
            "id" => self.id = Some(not_empty(value)?),
            "source" => self.source = Some(not_empty(value)?),
            "type" => self.event_type = Some(value.parse().map_err(|e| format!("{e}"))?),
            "time" => self.timestamp = Some(value.parse().map_err(|e| format!("{e}"))?),
            "subject" if value.chars().count() > 256 => return Err("must be at most 256 characters".into()),
            "subject" => self.subject = Some(not_empty(value)?),
            "datacontenttype" if is_json(&media_type(&value)) => {}
            "datacontenttype" => return Err(NOT_JSON.into()),
            "data" | "data_base64" => return Err("is not an attribute".into()),
            _ if !is_name(name) => return Err(BAD_NAME.into()),
            _ => self.attributes.push((name.to_owned(), serde_json::Value::from(value).to_string())),
        }
        Ok(())
    }

    /// The event, unless something it needs is missing or bad.
    fn finish(mut self, at: &str, errors: &mut Vec<FieldError>) -> Option<IncomingEvent> {
        for name in ["specversion", "id", "source", "type"] {
            let there = self.names.iter().chain(&self.bad).any(|known| known == name);
            if !there {
                errors.push(FieldError { pointer: format!("{at}{name}"), message: "is required".into() });
            }
        }
        let (id, source, event_type) = (self.id?, self.source?, self.event_type?);
        self.attributes.insert(0, ("source".into(), serde_json::Value::from(source.as_str()).to_string()));
        let members: Vec<_> = self.attributes.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Some(IncomingEvent {
            id,
            source,
            event_type,
            timestamp: self.timestamp,
            subject: self.subject,
            attributes: format!("{{{}}}", members.join(",")).into(),
            data: self.data.unwrap_or(Bytes::from_static(b"null")),
        })
    }
}

/// Attributes with a meaning of their own, all of them text.
const KNOWN: [&str; 8] = ["specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema"];
const BAD_NAME: &str = "is not a CloudEvents attribute: their names are a-z and 0-9 only";

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Decodes a header's value (HTTP binding 3.1.3.2): quotes off, one round of percent-decoding,
/// UTF-8.
fn decode_header(value: &[u8]) -> Result<String, &'static str> {
    let unquoted = unquote(value.trim_ascii());
    let mut bytes = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| (b as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("has a % without two hexadecimal digits");
        };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 once percent-decoded")
}

/// A quoted string's content, backslashes resolved; anything else as it is.
fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        out.push(if byte == b'\\' { rest.next().unwrap_or(byte) } else { byte });
    }
    out
}

#[cfg(test)]
mod tests;
