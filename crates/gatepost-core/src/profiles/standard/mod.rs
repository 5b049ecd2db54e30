//! Profile `standard`: plain JSON, signed as Standard Webhooks 1.0.

mod scheme;

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::format::{BatchFormat, Format};
use super::scheme::Scheme;
use super::{BatchFacts, Folder, Item, Profile, RenderFacts};
use crate::retry::{GoneRule, RETRY_AFTER_CAP_S, RetryAfterRule, RetryClass, RetryPolicy};
pub(super) use scheme::{Ed25519, Symmetric};

pub(super) const FOLDER: Folder = Folder {
    profile: Some(&Standard),
    formats: &[&Standard],
    schemes: &[&Symmetric, &Ed25519],
    reserved: &["webhook-", "svix-"],
    ..Folder::EMPTY
};

/// 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: the schedule Standard Webhooks advises.
pub(super) const WAITS: [f64; 9] = [5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0];

/// Everything that is not a yes is tried again.
pub(super) const EVERYTHING: &[RetryClass] =
    &[RetryClass::Timeout, RetryClass::Transport, RetryClass::S3xx, RetryClass::S4xx, RetryClass::S5xx];

/// Retry-After is heard on 429 and 503 and only ever makes a wait longer.
pub(super) const RETRY_AFTER: RetryAfterRule =
    RetryAfterRule { statuses: Cow::Borrowed(&[429, 503]), cap_s: RETRY_AFTER_CAP_S, replaces: false };

/// The policy of `standard`.
pub(super) const RETRY: RetryPolicy = RetryPolicy {
    waits: Cow::Borrowed(&WAITS),
    exact_waits: 0,
    jitter: 0.1,
    retry_on: Cow::Borrowed(EVERYTHING),
    gone: GoneRule::Disable,
    retry_after: RETRY_AFTER,
    timeout_ms: 15_000,
};

pub(super) struct Standard;

impl Profile for Standard {
    fn name(&self) -> &'static str {
        "standard"
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn format(&self) -> Option<&'static dyn Format> {
        Some(&Standard)
    }

    fn schemes(&self) -> &'static [&'static dyn Scheme] {
        &[&Symmetric]
    }
}

impl Format for Standard {
    fn name(&self) -> &'static str {
        "standard"
    }

    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        let text = Text::of(facts.item);
        concat(&text.parts(facts.item))
    }

    fn batch(&self) -> Option<&dyn BatchFormat> {
        Some(self)
    }

    fn cuts_payload(&self) -> bool {
        true
    }
}

impl BatchFormat for Standard {
    fn body(&self, facts: &BatchFacts<'_>) -> Bytes {
        let (id, timestamp) = (facts.frame.delivery.to_string(), facts.frame.created_at.to_string());
        let texts: Vec<_> = facts.items.iter().map(Text::of).collect();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(6 + 12 * texts.len());
        parts.extend([b"{\"id\":\"", id.as_bytes(), b"\",\"type\":\"batch\",\"timestamp\":\""]);
        parts.extend([timestamp.as_bytes(), b"\",\"events\":["]);
        for (i, (text, item)) in texts.iter().zip(facts.items).enumerate() {
            parts.push(if i == 0 { b"" } else { b"," });
            parts.extend(text.parts(item));
        }
        parts.push(b"]}");
        concat(&parts)
    }
}

/// The texts an event's JSON needs that the event does not have ready.
struct Text {
    timestamp: String,
    subject: String,
}

impl Text {
    fn of(item: &Item<'_>) -> Text {
        Text { timestamp: item.event.timestamp.to_string(), subject: subject_json(item.event.subject.as_ref()) }
    }

    /// The JSON of an event, in pieces. Ids, types and times hold nothing JSON would escape: their
    /// grammars see to that.
    fn parts<'a>(&'a self, item: &'a Item<'_>) -> [&'a [u8]; 11] {
        let (label, data): (&[u8], &[u8]) = match &item.data {
            Some(data) => (b",\"data\":", data),
            None => (b"", b""),
        };
        [
            b"{\"id\":\"",
            item.event.id.as_str().as_bytes(),
            b"\",\"type\":\"",
            item.event.event_type.as_str().as_bytes(),
            b"\",\"timestamp\":\"",
            self.timestamp.as_bytes(),
            b"\"",
            self.subject.as_bytes(),
            label,
            data,
            b"}",
        ]
    }
}

/// `,"subject":{…}`, or nothing.
fn subject_json(subject: Option<&crate::event::Subject>) -> String {
    let Some(subject) = subject else { return String::new() };
    // Two strings always serialise.
    let object = serde_json::to_string(subject).unwrap_or_default();
    format!(",\"subject\":{object}")
}

/// The parts, in one exact allocation.
pub(super) fn concat(parts: &[&[u8]]) -> Bytes {
    let mut out = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.put_slice(part);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Wire;
    use super::super::testing::{config, event, framed};
    use super::*;
    use crate::event::{Event, Subject};

    fn wire(payload: &str) -> Wire {
        let mut config = config("standard");
        config.payload = serde_json::from_str(payload).unwrap();
        Wire::of(&config).unwrap()
    }

    fn body(event: &Event) -> Bytes {
        framed(|frame| wire("null").body(event, frame))
    }

    #[test]
    fn p3_the_body_has_the_promised_members_and_the_data_bytes_as_given() {
        let raw = b"{ \"b\":1.00, \"a\":\"\\u00e9\", \"b\" : 2e400 }";
        let subject = Subject { kind: Some("user".into()), id: "u\"1\n".into() };
        let with = body(&event("evt:1/a", Some(subject), raw));
        assert_eq!(
            with,
            [
                br#"{"id":"evt:1/a","type":"user.created","timestamp":"2026-11-22T10:00:00.5Z","#.as_slice(),
                br#""subject":{"type":"user","id":"u\"1\n"},"data":"#,
                raw,
                b"}"
            ]
            .concat()
        );
        let bare = Subject { kind: None, id: "7".into() };
        assert!(body(&event("e", Some(bare), b"null")).ends_with(b",\"subject\":{\"id\":\"7\"},\"data\":null}"));
        let without = body(&event("evt:1/a", None, b"[]"));
        assert_eq!(
            &without[..],
            br#"{"id":"evt:1/a","type":"user.created","timestamp":"2026-11-22T10:00:00.5Z","data":[]}"#
        );
        serde_json::from_slice::<serde_json::Value>(&without).unwrap();
    }

    #[test]
    fn a_thin_body_has_no_data_and_a_cut_one_only_what_is_left() {
        let subject = Subject { kind: None, id: "7".into() };
        let event = event("e", Some(subject), br#"{"id":7,"mail":"a@b"}"#);
        let head = r#"{"id":"e","type":"user.created","timestamp":"2026-11-22T10:00:00.5Z","subject":{"id":"7"}"#;
        let of = |payload| framed(|frame| wire(payload).body(&event, frame));
        assert_eq!(of(r#"{"mode":"thin"}"#), format!("{head}}}"));
        assert_eq!(of(r#"{"exclude":["/mail"]}"#), format!("{head},\"data\":{{\"id\":7}}}}"));
        assert_eq!(of(r#"{"include":["/mail"]}"#), format!("{head},\"data\":{{\"mail\":\"a@b\"}}}}"));
    }

    #[test]
    fn a_batch_has_the_delivery_s_id_and_each_event_as_if_alone() {
        let events = [Arc::new(event("a", None, b"{\"x\":1}")), Arc::new(event("b", None, b"null"))];
        for payload in ["null", r#"{"mode":"thin"}"#, r#"{"exclude":["/x"]}"#] {
            let wire = wire(payload);
            let (batch, alone, id) = framed(|frame| {
                let alone = events.iter().map(|e| wire.body(e, frame)).collect::<Vec<_>>();
                (wire.batch(&events, frame).unwrap(), alone, frame.delivery)
            });
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(
                text(&batch),
                format!(
                    r#"{{"id":"{id}","type":"batch","timestamp":"2023-11-14T22:13:20Z","events":[{},{}]}}"#,
                    text(&alone[0]),
                    text(&alone[1])
                )
            );
            serde_json::from_slice::<serde_json::Value>(&batch).unwrap();
        }
    }
}
