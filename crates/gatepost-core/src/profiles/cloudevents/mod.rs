//! Profile `cloudevents`: CloudEvents 1.0, structured JSON, signed as Standard Webhooks.
//!
//! Structured and not binary, because the signature covers the body only: a `ce-type` header could
//! be changed on the way unseen.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::standard::{self, concat, sign_standard};
use super::{Profile, RenderFacts, SignFacts, Wire};
use crate::retry::RetryPolicy;
use crate::signing::Signer;

pub(super) struct CloudEvents;

impl Profile for CloudEvents {
    fn name(&self) -> &'static str {
        "cloudevents"
    }

    fn retry(&self) -> &RetryPolicy {
        &standard::RETRY
    }

    fn wire(&self) -> Option<&dyn Wire> {
        Some(self)
    }
}

impl Wire for CloudEvents {
    fn content_type(&self) -> &'static str {
        "application/cloudevents+json; charset=utf-8"
    }

    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        let event = facts.event;
        let attributes: Map<String, Value> =
            event.attributes.as_deref().and_then(|raw| serde_json::from_slice(raw).ok()).unwrap_or_default();
        let source = match attributes.get("source") {
            Some(Value::String(source)) if is_uri_reference(source) => source.clone(),
            _ => format!("urn:gatepost:tenant:{}", facts.tenant_id),
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
        concat(&[head.as_bytes(), b",\"data\":", &event.data], b"}")
    }

    fn signed_headers(&self) -> &'static [&'static str] {
        &standard::STANDARD_HEADERS
    }

    fn sign(&self, signer: &Signer, facts: &SignFacts<'_>, headers: &mut Vec<(&'static str, String)>) {
        sign_standard(signer, facts, headers);
    }
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
    use super::*;
    use crate::event::{Event, Subject, Urgency};
    use crate::{EventSeq, TenantKey, Timestamp};

    fn body(attributes: Option<&'static str>, subject: Option<Subject>) -> String {
        let event = Event {
            seq: EventSeq(7),
            tenant: TenantKey(1),
            id: "evt_1".parse().unwrap(),
            event_type: "user.created".parse().unwrap(),
            timestamp: "2026-11-22T10:00:00Z".parse().unwrap(),
            accepted_at: Timestamp::from_secs(1),
            subject,
            urgency: Urgency::Normal,
            attributes: attributes.map(Bytes::from),
            data: Bytes::from_static(b"{ \"b\":1.00, \"a\" : [ ] }"),
            registry_version: 1,
        };
        let bytes = CloudEvents.body(&RenderFacts { event: &event, tenant_id: &"acme".parse().unwrap() });
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn p3_the_data_bytes_go_out_as_given() {
        assert_eq!(
            body(None, Some(Subject { kind: Some("user".into()), id: "u\"1".into() })),
            concat!(
                r#"{"specversion":"1.0","id":"evt_1","source":"urn:gatepost:tenant:acme","type":"user.created","#,
                r#""time":"2026-11-22T10:00:00Z","subject":"u\"1","datacontenttype":"application/json","#,
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
