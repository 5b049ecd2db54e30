use std::sync::Arc;

use serde_json::{Value, json};
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
        (200, "\u{feff}{\"verification\":\"n0nce\"}", true),
        (201, r#"{"verification":"n0nce"}"#, false),
        (200, r#"{"verification":"other"}"#, false),
        (200, r#"{"Verification":"n0nce"}"#, false),
        (200, "n0nce", false),
        (200, "", false),
        (500, "", false),
    ] {
        let verdict =
            challenge.judge(&facts, &Answer { status, headers: &[], body: body.as_bytes(), unreadable: None });
        assert_eq!(verdict.is_ok(), good, "{status} {body}: {verdict:?}");
        assert!(!format!("{verdict:?}").contains("n0nce"), "the challenge is not repeated");
    }
    // What is not whole, or compressed, is not read, and told as that.
    let body = br#"{"verification":"n0nce"}"#;
    let answer = Answer { status: 200, headers: &[], body, unreadable: Some("the answer broke off") };
    assert!(challenge.judge(&facts, &answer).unwrap_err().starts_with("the answer broke off; wanted is"));
}

#[test]
fn a_member_no_value_holds_passes_by_its_bytes_and_spoils_nothing() {
    let wire = Wire::of(&config(NAME)).unwrap();
    let odd = [r#""Ana \ud83d""#, "1e400", "123456789012345678901234567890", "1.00"];
    for odd in odd {
        let data = format!(
            r#"{{"actor":{{"id":"00uA","displayName":{odd}}},"severity":"WARN","note":{odd},"kept":[1],"debugContext":{{"debugData":{{"n":{odd}}},"m":{odd}}}}}"#
        );
        let mut event = event("e1", None, b"");
        event.data = data.into();
        let sent = framed(|frame| wire.body(&event, frame));
        let sent = std::str::from_utf8(&sent).unwrap();
        for part in [
            format!(r#""actor":{{"id":"00uA","displayName":{odd}}}"#),
            r#""severity":"WARN""#.to_owned(),
            format!(r#""debugContext":{{"m":{odd},"debugData":{{"kept":[1],"n":{odd},"note":{odd}}}}}"#),
        ] {
            assert!(sent.contains(&part), "{part}: {sent}");
        }
    }
}

#[test]
fn filters_judge_the_log_event_that_is_sent() {
    use crate::WebhookKey;
    use crate::filter::FilterBudget;
    use crate::matching::{MatchFacts, MatchReason, RegistryBuilder, explain};
    use crate::webhook::WebhookConfig;

    let subject = Subject { kind: Some("user".into()), id: "00u1".into() };
    let event_type: crate::event::EventType = "user.lifecycle.suspend".parse().unwrap();
    let cases = [
        ("event.target.?[id eq '00u1'].size() > 0", "{}", true),
        ("event.target.?[type eq 'User'].size() == 1", r#"{"n":1e400}"#, true),
        ("event.outcome.result eq 'SUCCESS'", "null", true),
        ("event.outcome.result eq 'FAILURE'", r#"{"outcome":{"result":"FAILURE"}}"#, true),
        ("event.actor.id eq 'gatepost'", "{}", true),
        ("event.actor.id eq '00uA'", r#"{"actor":{"id":"00uA","displayName":"Ana \ud83d"}}"#, true),
        ("event.debugData.changedAttributes eq 'login'", r#"{"changedAttributes":"login"}"#, true),
        ("event.target.?[id eq '00u2'].size() > 0", "{}", false),
    ];
    for (source, data, wanted) in cases {
        let config = |filter: &str| -> WebhookConfig {
            let form = json!({"name": "w", "url": "https://hooks.example/in", "events": ["*"], "profile": NAME,
                              "enabled": true, "verification": {"mode": "none", "required": false}, "filter": filter});
            serde_json::from_value(form).unwrap()
        };
        let facts =
            MatchFacts { event_type: &event_type, subject: Some(&subject), data: data.as_bytes(), attributes: None };
        let asked = config(&el::compile(source).unwrap());
        // The published object stays visible beside it.
        let beside = config("!has(data.n) || data.n == 7");
        let mut registry = RegistryBuilder::new(1, false);
        registry.add(WebhookKey(1), 1, &asked).unwrap();
        registry.add(WebhookKey(2), 1, &beside).unwrap();
        let registry = registry.build();
        let found = registry.matching(&facts, &mut FilterBudget::of_publish()).unwrap();
        let found: Vec<_> = found.iter().map(|found| found.webhook.0).collect();
        assert_eq!(found, if wanted { vec![1, 2] } else { vec![2] }, "{source} {data}");
        let shared = crate::filter::Facts::new(&facts);
        let reason = explain(Some(&asked), false, &shared, &mut FilterBudget::of_explanation()).unwrap();
        assert_eq!(reason == MatchReason::Matched, wanted, "{source} {data}: {reason:?}");
    }
}
