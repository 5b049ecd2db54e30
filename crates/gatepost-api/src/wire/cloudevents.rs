//! CloudEvents to publish. What one is, `gatepost_core::cloudevents` knows; here they become events
//! like any other, with errors like any other's.

use bytes::Bytes;
use gatepost_core::cloudevents::{self, DecodeError, IncomingEvent, Mode};
use gatepost_core::event::Subject;
use gatepost_engine::ops::{CloudEventIdentity, PublishInput};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};

use super::event::BATCH_MAX;
use super::value::{DEPTH_MAX, too_deep};
use super::{At, Errors, Malformed, Read, Reader};

/// The header every event in binary mode has.
const SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");

/// Whether a request carries one CloudEvent in its headers and body.
pub(crate) fn is_binary(headers: &HeaderMap) -> bool {
    headers.contains_key(SPECVERSION) && cloudevents::mode(content_type(headers), true) == Some(Mode::Binary)
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// What the engine is to publish for a CloudEvent.
fn input(event: IncomingEvent) -> PublishInput {
    let derived = event.derived_id();
    let (id, fallback) = match event.own_id() {
        Some(own) => (own, Some(CloudEventIdentity { source: event.source, id: derived })),
        None => (derived, None),
    };
    PublishInput {
        id: Some(id),
        fallback,
        event_type: event.event_type,
        timestamp: event.timestamp,
        subject: event.subject.map(|id| Subject { kind: None, id }),
        // Copied into an allocation of its own: it is kept, and the request's buffer must not be.
        data: Bytes::copy_from_slice(&event.data),
        attributes: Some(event.attributes),
        urgency: None,
        trace: None,
    }
}

impl<'a> Reader<'a, '_> {
    /// One event in structured mode.
    pub(crate) fn cloudevent(&mut self, body: &Bytes) -> Read<Option<PublishInput>> {
        let decoded = cloudevents::structured(body);
        self.decoded(self.document(), At::Root, decoded)
    }

    /// Events in batched mode. Their pointers are those of any batch: `/events/{index}/…`.
    pub(crate) fn cloudevents(&mut self, body: &Bytes, most: usize) -> Read<Vec<PublishInput>> {
        let Some(list) = self.items(self.document(), At::Root, BATCH_MAX)? else { return Ok(Vec::new()) };
        let at = At::Root.member("events");
        self.batch_size(list.count, at);
        let mut inputs = Vec::with_capacity(list.items.len());
        for (index, item) in list.items.into_iter().enumerate() {
            if !self.event_size(item.get(), at.item(index), most) {
                continue;
            }
            let decoded = cloudevents::structured(&body.slice_ref(item.get().as_bytes()));
            inputs.extend(self.decoded(item.get(), at.item(index), decoded)?);
        }
        Ok(inputs)
    }

    /// One event in binary mode: the body is its data.
    pub(crate) fn cloudevent_binary(&mut self, headers: &HeaderMap, body: &Bytes) -> Read<Option<PublishInput>> {
        let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let decoded = cloudevents::binary(pairs, content_type(headers), body);
        self.decoded(self.document(), At::Root, decoded)
    }

    /// Turns what the decoder says of `part`, which stands at `at`, into an event or errors.
    fn decoded(
        &mut self,
        part: &'a str,
        at: At<'_>,
        decoded: Result<IncomingEvent, DecodeError>,
    ) -> Read<Option<PublishInput>> {
        match decoded {
            Ok(event) if std::str::from_utf8(&event.data).is_ok_and(too_deep) => {
                self.errors.push(at.member("data"), format!("is nested deeper than {DEPTH_MAX} levels"));
                Ok(None)
            }
            Ok(event) => Ok(Some(input(event))),
            Err(DecodeError::Malformed { message, line, column }) => {
                let offset = self.offset_of(part) + offset_in(part, line, column);
                Err(Malformed::new(offset, message))
            }
            Err(DecodeError::Invalid(errors)) => {
                note(self.errors, at, errors);
                Ok(None)
            }
            Err(DecodeError::TooMany(_)) => {
                // Only the batch decoder says so, and batches are counted here.
                self.batch_size(BATCH_MAX + 1, at);
                Ok(None)
            }
        }
    }
}

fn note(errors: &mut Errors, at: At<'_>, found: Vec<cloudevents::FieldError>) {
    for error in found {
        errors.push(format_args!("{at}{}", error.pointer), error.message);
    }
}

/// The byte a line and column of `part` (both from 1) stand for.
fn offset_in(part: &str, line: usize, column: usize) -> usize {
    let start: usize = part.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (start + column.saturating_sub(1)).min(part.len())
}
