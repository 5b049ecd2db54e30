use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::super::testing::{config, event, framed};
use super::super::verification::{Answer, Ask, AskFacts};
use super::super::{Wire, mode};
use super::*;
use crate::event::{Event, Subject};

fn body(event: &Event) -> Value {
    let wire = Wire::of(&config(NAME)).unwrap();
    framed(|frame| serde_json::from_slice(&wire.body(event, frame)).unwrap())
}

fn log_event(event: &Event) -> Value {
    body(event)["data"]["events"][0].clone()
}

#[test]
fn the_envelope() {
    let subject = Subject { kind: Some("user".into()), id: "00u1".into() };
    let mut sent = body(&event("e1", Some(subject), b"{}"));
    let events = sent["data"]["events"].take();
    assert_eq!(events.as_array().unwrap().len(), 1);
    let (id, delivery) = framed(|frame| (Okta.native_id(frame.webhook_id), frame.delivery));
    assert_eq!(
        sent,
        json!({"eventType": "com.okta.event_hook", "eventTypeVersion": "1.0", "cloudEventsVersion": "0.1",
               "source": format!("https://gatepost.example/compat/okta/api/v1/eventHooks/{id}"),
               "eventId": uuid_of_delivery(delivery).to_string(), "eventTime": "2023-11-14T22:13:20.000Z",
               "contentType": "application/json", "data": {"events": null}})
    );
}

#[test]
fn a_log_event_has_every_member_and_what_the_event_tells() {
    let subject = Subject { kind: Some("user".into()), id: "00u1".into() };
    let mut event = event("e1", Some(subject), br#"{"plan":"free","n":1}"#);
    event.event_type = "user.lifecycle.create".parse().unwrap();
    let shown = log_event(&event);
    let uuid = shown["uuid"].as_str().unwrap().to_owned();
    assert_eq!(Uuid::try_parse(&uuid).unwrap().get_version_num(), 5);
    assert_eq!(shown.as_object().unwrap().len(), 18);
    for (member, value) in [
        ("eventType", json!("user.lifecycle.create")),
        ("published", json!("2026-11-22T10:00:00.500Z")),
        ("version", json!("0")),
        ("severity", json!("INFO")),
        ("outcome", json!({"result": "SUCCESS", "reason": null})),
        ("debugContext", json!({"debugData": {"plan": "free", "n": 1}})),
        ("legacyEventType", json!(null)),
        ("client", json!(null)),
        ("request", json!(null)),
    ] {
        assert_eq!(shown[member], value, "{member}");
    }
    assert_eq!((&shown["target"][0]["id"], &shown["target"][0]["type"]), (&json!("00u1"), &json!("User")));
    assert!(shown["displayMessage"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(log_event(&event)["uuid"], uuid, "the same event has the same uuid");
    event.id = "e2".parse().unwrap();
    assert_ne!(log_event(&event)["uuid"], uuid);
}

#[test]
fn members_of_a_log_event_pass() {
    let given = json!({
        "uuid": "926143a2-0ae7-11ec-9621-0242ac130002", "eventType": "other", "published": "2021-01-01T00:00:00.000Z",
        "displayMessage": "Create user", "severity": "WARN", "version": "1",
        "actor": {"id": "00u2", "type": "User", "alternateId": "a@b", "displayName": "A"},
        "target": [{"id": "x"}, {"id": "y"}], "outcome": {"result": "FAILURE", "reason": "LOCKED"},
        "client": {"ipAddress": "1.2.3.4"}, "request": {"ipChain": []}, "transaction": {"type": "WEB", "id": "t"},
        "debugContext": {"debugData": {"requestId": "r"}, "more": 1}, "debugData": {"x": 1}, "extra": true,
    });
    let mut event = event("e1", None, b"");
    event.data = given.to_string().into();
    let shown = log_event(&event);
    for member in [
        "uuid",
        "published",
        "displayMessage",
        "severity",
        "version",
        "actor",
        "target",
        "outcome",
        "client",
        "request",
        "transaction",
    ] {
        assert_eq!(shown[member], given[member], "{member}");
    }
    assert_eq!(shown["eventType"], "user.created", "what it is, is the event's type");
    assert_eq!(
        shown["debugContext"],
        json!({"debugData": {"requestId": "r", "debugData": {"x": 1}, "extra": true}, "more": 1})
    );
    event.id = "11111111-2222-4333-8444-555555555555".parse().unwrap();
    assert_eq!(log_event(&event)["uuid"], "11111111-2222-4333-8444-555555555555");
}

#[test]
fn data_that_is_no_object_is_debug_data() {
    let shown = log_event(&event("e1", None, b"[1,2]"));
    assert_eq!(shown["debugContext"]["debugData"], json!({"data": [1, 2]}));
    assert_eq!(shown["target"], json!([]));
    assert_eq!(log_event(&event("e1", None, b"null"))["debugContext"]["debugData"], json!({}));
}

#[test]
fn a_batch_is_one_envelope() {
    let wire = Wire::of(&config(NAME)).unwrap();
    let events: Vec<_> = ["e1", "e2", "e3"].into_iter().map(|id| Arc::new(event(id, None, b"{}"))).collect();
    let sent: Value = framed(|frame| serde_json::from_slice(&wire.batch(&events, frame).unwrap()).unwrap());
    let list = sent["data"]["events"].as_array().unwrap();
    assert_eq!(list.len(), 3);
    assert!(list[0]["uuid"] != list[1]["uuid"] && list[1]["uuid"] != list[2]["uuid"]);
    assert_eq!(sent["eventId"], framed(|frame| uuid_of_delivery(frame.delivery).to_string()));
}

#[test]
fn ids_are_oktas() {
    struct Ones;
    impl Entropy for Ones {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }
    let id = Okta.new_webhook_id(Timestamp::from_secs(1_700_000_000), &Ones);
    let text = Okta.native_id(id);
    assert!(text.len() == 20 && text.starts_with("who"), "{text}");
    assert_eq!(Okta.parse_native_id(&text), Some(id));
    for bad in ["", "who", &text[..19], &format!("{text}0"), &text.replace("who", "wha"), "whozzzzzzzzzzzzzzzzz"] {
        assert_eq!(Okta.parse_native_id(bad), None, "{bad}");
    }
}

#[test]
fn the_header_challenge() {
    let challenge = mode("okta").unwrap();
    let facts = AskFacts { public_url: "https://g.example", nonce: "n0nce", rate_limit_per_s: None };
    let Ask::Challenge(asked) = challenge.ask(&facts) else { panic!() };
    assert_eq!((asked.method, asked.retries, asked.body.len()), ("GET", 1, 0));
    assert!(asked.headers.iter().any(|(name, value)| name == "x-okta-verification-challenge" && value == "n0nce"));
    for (status, body, good) in [
        (200, r#"{"verification":"n0nce"}"#, true),
        (200, r#"{"verification":"n0nce","more":1}"#, true),
        (201, r#"{"verification":"n0nce"}"#, false),
        (200, r#"{"verification":"other"}"#, false),
        (200, r#"{"Verification":"n0nce"}"#, false),
        (200, "n0nce", false),
        (200, "", false),
        (500, "", false),
    ] {
        let verdict = challenge.judge(&facts, &Answer { status, headers: &[], body: body.as_bytes() });
        assert_eq!(verdict.is_ok(), good, "{status} {body}: {verdict:?}");
        assert!(!format!("{verdict:?}").contains("n0nce"), "the challenge is not repeated");
    }
}
