//! Profile `cloudevents`: CloudEvents 1.0, structured JSON, signed as Standard Webhooks.
//!
//! Structured and not binary, because the signature covers the body only: a `ce-type` header could
//! be changed on the way unseen.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::format::{BatchFormat, Format};
use super::scheme::Scheme;
use super::standard::{self, concat};
use super::{BatchFacts, Folder, Frame, Item, Profile, RenderFacts};
use crate::json::readable;
use crate::retry::RetryPolicy;

pub(super) const FOLDER: Folder =
    Folder { profile: Some(&CloudEvents), formats: &[&CloudEvents], reserved: &["ce-"], ..Folder::EMPTY };

struct CloudEvents;

impl Profile for CloudEvents {
    fn name(&self) -> &'static str {
        "cloudevents"
    }

    fn retry(&self) -> &RetryPolicy {
        &standard::RETRY
    }

    fn format(&self) -> Option<&'static dyn Format> {
        Some(&CloudEvents)
    }

    fn schemes(&self) -> &'static [&'static dyn Scheme] {
        &[&standard::Symmetric]
    }
}

impl Format for CloudEvents {
    fn name(&self) -> &'static str {
        "cloudevents"
    }

    fn content_type(&self) -> &'static str {
        "application/cloudevents+json; charset=utf-8"
    }

    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        let head = head(facts.item, facts.frame);
        concat(&[head.as_bytes(), data(facts.item), b"}"])
    }

    fn batch(&self) -> Option<&dyn BatchFormat> {
        Some(self)
    }
}

/// "JSON Batch Format" of the JSON event format 1.0.2, section 4.
impl BatchFormat for CloudEvents {
    fn content_type(&self) -> &'static str {
        "application/cloudevents-batch+json; charset=utf-8"
    }

    fn body(&self, facts: &BatchFacts<'_>) -> Bytes {
        let heads: Vec<_> = facts.items.iter().map(|item| head(item, facts.frame)).collect();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(2 + 4 * heads.len());
        parts.push(b"[");
        for (i, (head, item)) in heads.iter().zip(facts.items).enumerate() {
            parts.extend([if i == 0 { b"".as_slice() } else { b"," }, head.as_bytes(), data(item), b"}"]);
        }
        parts.push(b"]");
        concat(&parts)
    }
}

fn data<'a>(item: &'a Item<'_>) -> &'a [u8] {
    // The payload is never cut here: there always is some.
    item.data.as_deref().unwrap_or(b"null")
}

/// Everything up to the value of `data`.
fn head(item: &Item<'_>, frame: &Frame<'_>) -> String {
    let event = item.event;
    // An attribute no value holds could not go out: a text has no half characters, an integer 32 bits.
    let attributes: Map<String, Value> = event
        .attributes
        .as_deref()
        .and_then(readable)
        .and_then(|raw| serde_json::from_slice(&raw).ok())
        .unwrap_or_default();
    let source = match attributes.get("source") {
        Some(Value::String(source)) if is_uri_reference(source) => source.clone(),
        _ => format!("urn:gatepost:tenant:{}", frame.tenant_id),
    };
    let mut head = String::with_capacity(256);
    head.push_str("{\"specversion\":\"1.0\"");
    push_member(&mut head, "id", &event.id.as_str().into());
    push_member(&mut head, "source", &source.into());
    push_member(&mut head, "type", &event.event_type.as_str().into());
    push_member(&mut head, "time", &event.timestamp.to_string().into());
    if let Some(subject) = &event.subject {
        push_member(&mut head, "subject", &subject.id.as_str().into());
    }
    push_member(&mut head, "datacontenttype", &"application/json".into());
    for (name, value) in attributes.iter().filter(|(name, value)| is_extension(name, value)) {
        push_member(&mut head, name, value);
    }
    head.push_str(",\"data\":");
    head
}

fn push_member(out: &mut String, name: &str, value: &Value) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    // `Value` prints as compact JSON.
    out.push_str(&value.to_string());
}

/// Names CloudEvents gives a meaning of its own.
const RESERVED: [&str; 8] = ["specversion", "id", "source", "type", "time", "subject", "datacontenttype", "data"];

/// Whether an event's attribute can go out as a CloudEvents attribute (1.0, "Attribute Naming
/// Convention" and "Type System": integers have 32 bits).
fn is_extension(name: &str, value: &Value) -> bool {
    let name_fits = (1..=20).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && !RESERVED.contains(&name);
    name_fits
        && match value {
            Value::String(text) => !text.chars().any(char::is_control),
            Value::Bool(_) => true,
            Value::Number(number) => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            _ => false,
        }
}

/// Whether a text can stand as a URI-reference: not empty, and only characters RFC 3986 has.
fn is_uri_reference(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Wire;
    use super::super::testing::{config, event, framed};
    use super::*;
    use crate::event::{Event, Subject};

    fn with(attributes: Option<&'static str>, subject: Option<Subject>) -> Event {
        Event { attributes: attributes.map(Bytes::from), ..event("evt_1", subject, b"{ \"b\":1.00, \"a\" : [ ] }") }
    }

    fn body(attributes: Option<&'static str>, subject: Option<Subject>) -> String {
        let event = with(attributes, subject);
        let bytes = framed(|frame| Wire::of(&config("cloudevents")).unwrap().body(&event, frame));
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_batch_is_an_array_of_events_as_if_alone() {
        let subject = Subject { kind: None, id: "u".into() };
        let events = [Arc::new(with(None, None)), Arc::new(with(Some("{\"region\":\"eu\"}"), Some(subject.clone())))];
        let wire = Wire::of(&config("cloudevents")).unwrap();
        assert_eq!(wire.batch_content_type(), "application/cloudevents-batch+json; charset=utf-8");
        let batch = framed(|frame| wire.batch(&events, frame)).unwrap();
        let (one, two) = (body(None, None), body(Some("{\"region\":\"eu\"}"), Some(subject)));
        assert_eq!(batch, format!("[{one},{two}]"));
    }

    #[test]
    fn p3_the_data_bytes_go_out_as_given() {
        assert_eq!(
            body(None, Some(Subject { kind: Some("user".into()), id: "u\"1".into() })),
            concat!(
                r#"{"specversion":"1.0","id":"evt_1","source":"urn:gatepost:tenant:acme","type":"user.created","#,
                r#""time":"2026-11-22T10:00:00.5Z","subject":"u\"1","datacontenttype":"application/json","#,
                r#""data":{ "b":1.00, "a" : [ ] }}"#
            )
        );
    }

    #[test]
    fn attributes_that_can_be_extensions_go_out_and_others_do_not() {
        let text = body(
            Some(
                r#"{"source":"https://idp.example/t/1","region":"eu","retries":3,"flag":true,"big":3000000000,
                    "Upper":"x","with_underscore":"x","id":"evil","specversion":"0.3","data":"evil","obj":{},
                    "none":null,"half":1.5,"averyveryverylongname1":"x","ctl":"a\u0007","dataschema":"https://s/1"}"#,
            ),
            None,
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        let members: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            members,
            [
                "data",
                "dataschema",
                "datacontenttype",
                "flag",
                "id",
                "region",
                "retries",
                "source",
                "specversion",
                "time",
                "type"
            ]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
        );
        assert_eq!(value["source"], "https://idp.example/t/1");
        assert_eq!(value["id"], "evt_1");
        assert_eq!(text.matches("\"id\"").count(), 1);
    }

    #[test]
    fn a_source_that_is_no_uri_reference_is_not_used() {
        for bad in [r#"{"source":""}"#, r#"{"source":"a b"}"#, r#"{"source":7}"#, "[]", "{"] {
            assert!(body(Some(bad), None).contains("\"source\":\"urn:gatepost:tenant:acme\""), "{bad}");
        }
    }
}
