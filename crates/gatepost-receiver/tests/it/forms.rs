//! What is in a body: single events, batches, and what is not what it has to be.

use gatepost_receiver::{Builder, Error, Event, Format, Message, Receiver, Scheme, Subject};
use serde_json::{Value, json};

use crate::sender::{after, config, delivery, event, send, sign};

const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const TEXT: &str = "a-shared-secret-of-some-length";
const DATA: &str = "{ \"big\":12345678901234567890123, \"half\":\"\\ud800\", \"a\":1, \"a\":2 }";

/// What a profile's receiver makes of what the profile sends.
fn received(profile: &str, overrides: Value, ids: &[&str], data: &'static str) -> Message {
    let (builder, secret): (Builder, _) = match profile {
        "standard" => (Receiver::standard(), WHSEC),
        "cloudevents" => (Receiver::cloudevents(), WHSEC),
        "cryptr" => (Receiver::cryptr(), TEXT),
        "ferriskey" => (Receiver::ferriskey(), TEXT),
        "cymmetri" => (Receiver::cymmetri(), TEXT),
        _ => (Receiver::okta("x-key"), TEXT),
    };
    let events = ids.iter().map(|id| event(id, data)).collect();
    let mut sent = send(&config(profile, overrides), &[secret], events);
    if profile == "okta" {
        sent = sent.with("x-key", TEXT);
    }
    builder.secret(secret).build().unwrap().receive_at(&sent.headers, &sent.body, after(1)).unwrap()
}

#[test]
fn one_event_of_every_profile() {
    let short = delivery().to_string();
    // (profile, message, event, type, time, subject, what its source begins with)
    for (profile, id, own, kind, time, subject, source) in [
        ("standard", "evt_1", "evt_1", "user.created", "2026-11-22T10:00:00.5Z", "u_1", None),
        (
            "cloudevents",
            "evt_1",
            "evt_1",
            "user.created",
            "2026-11-22T10:00:00.5Z",
            "u_1",
            Some("urn:gatepost:tenant:"),
        ),
        ("cryptr", "evt_1", "evt_1", "user.created", "2026-11-22T10:00:00.500000Z", "", None),
        ("ferriskey", "", "", "user.created", "2026-11-22T10:00:00.500000Z", "(a UUID)", None),
        ("cymmetri", &*short, &*short, "user.created", "", "", None),
        ("okta", "", "", "user.created", "2026-11-22T10:00:00.500Z", "u_1", Some("https://gatepost.example")),
    ] {
        let message = received(profile, json!({}), &["evt_1"], DATA);
        let [event] = message.events.as_slice() else { panic!("{profile}: {message:?}") };
        if !id.is_empty() {
            assert_eq!((&*message.id, &*event.id), (id, own), "{profile}");
        }
        assert_eq!((&*event.kind, event.timestamp.as_deref().unwrap_or_default()), (kind, time), "{profile}");
        assert_eq!(event.source.is_some(), source.is_some(), "{profile}");
        assert!(event.source.as_deref().unwrap_or_default().starts_with(source.unwrap_or_default()), "{profile}");
        match subject {
            "(a UUID)" => assert_eq!(event.subject.as_ref().unwrap().id.len(), 36),
            "" => assert_eq!(event.subject, None, "{profile}"),
            id => assert_eq!(event.subject.as_ref().unwrap().id, id, "{profile}"),
        }
        if profile != "okta" {
            assert_eq!(event.data_text(), Some(DATA), "{profile}: by its bytes");
        }
        assert_eq!((message.is_batch, message.attempt, message.test), (false, Some(1), false), "{profile}");
        assert_eq!(message.delivery_id.as_deref(), Some(&*short), "{profile}");
        // The signature covers the id where the system signs one.
        assert_eq!(message.id_is_signed, !["cryptr", "ferriskey", "okta"].contains(&profile), "{profile}");
        assert!(!format!("{message:?}").contains("12345678901234567890123"), "Debug shows no data");
        assert!(!message.is_ping());
    }
    let ferriskey = received("ferriskey", json!({}), &["evt_1"], DATA);
    assert_eq!((ferriskey.id.len(), &ferriskey.id), (36, &ferriskey.events[0].id));
    let okta = received("okta", json!({}), &["evt_1"], "{\"displayMessage\":\"hi\"}");
    assert_eq!((okta.id.len(), okta.events[0].id.len()), (36, 36));
    assert_ne!(okta.id, okta.events[0].id, "the delivery's and the event's");
    #[derive(serde::Deserialize)]
    struct LogEvent {
        #[serde(rename = "displayMessage")]
        message: String,
    }
    assert_eq!(okta.events[0].data::<LogEvent>().unwrap().message, "hi");
}

#[test]
fn batches_come_apart() {
    for (profile, id) in
        [("standard", Some(delivery().to_string())), ("cloudevents", Some(delivery().to_string())), ("okta", None)]
    {
        let alone: Vec<_> = ["a", "b", "c"].map(|id| received(profile, json!({}), &[id], DATA).events.remove(0)).into();
        let batch = received(profile, json!({}), &["a", "b", "c"], DATA);
        assert!(batch.is_batch, "{profile}");
        if let Some(id) = id {
            assert_eq!(batch.id, id, "{profile}");
        }
        let seen = |event: &Event| {
            (event.key(), event.kind.clone(), event.whole_text().to_owned(), event.data_text().map(str::to_owned))
        };
        assert_eq!(
            batch.events.iter().map(seen).collect::<Vec<_>>(),
            alone.iter().map(seen).collect::<Vec<_>>(),
            "{profile}: each as if alone"
        );
    }
}

#[test]
fn a_type_called_batch_is_no_batch() {
    let mut one = event("evt_1", "{\"events\":[]}");
    one.event_type = "batch".parse().unwrap();
    let sent = send(&config("standard", json!({})), &[WHSEC], vec![one]);
    let receiver = Receiver::standard().secret(WHSEC).build().unwrap();
    let message = receiver.receive_at(&sent.headers, &sent.body, after(1)).unwrap();
    assert_eq!((message.is_batch, &*message.events[0].kind, message.events.len()), (false, "batch", 1));
}

#[test]
fn no_data_and_null_are_two_things() {
    let thin = received("standard", json!({"payload": {"mode": "thin"}}), &["evt_1"], "{\"a\":1}");
    assert_eq!(thin.events[0].data_text(), None);
    assert_eq!(thin.events[0].data::<Option<Value>>().unwrap(), None);
    let null = received("standard", json!({}), &["evt_1"], "null");
    assert_eq!(null.events[0].data_text(), Some("null"));
    for profile in ["cloudevents", "cryptr", "ferriskey", "cymmetri"] {
        assert_eq!(received(profile, json!({}), &["evt_1"], "null").events[0].data_text(), Some("null"), "{profile}");
    }
}

#[test]
fn an_event_reads_as_a_type_of_ones_own() {
    #[derive(serde::Deserialize, PartialEq, Debug)]
    struct User {
        login: String,
    }
    let message = received("cryptr", json!({}), &["evt_1"], "{\"login\":\"ada\"}");
    assert_eq!(message.events[0].data::<User>().unwrap(), User { login: "ada".into() });
    assert!(message.events[0].data::<Vec<u8>>().is_err());
    let whole: Value = message.events[0].whole().unwrap();
    assert_eq!((&whole["__type__"], &whole["errors"]), (&json!("Event"), &Value::Null));
}

#[test]
fn questions_whether_somebody_is_there() {
    let mut ping = event("evt_1", "{}");
    ping.event_type = "gatepost.ping".parse().unwrap();
    let sent = send(&config("standard", json!({})), &[WHSEC], vec![ping]).with("gatepost-test", "true");
    let message = Receiver::standard().secret(WHSEC).build().unwrap();
    let message = message.receive_at(&sent.headers, &sent.body, after(1)).unwrap();
    assert!(message.is_ping() && message.test);
    let sent = sign(&config("cymmetri", json!({})), &[TEXT], "evt_1", b"{}");
    let receiver = Receiver::cymmetri().secret(TEXT).build().unwrap();
    assert!(receiver.receive_at(&sent.headers, &sent.body, after(1)).unwrap().is_ping());
}

#[test]
fn hints_are_hints() {
    let sent = send(&config("standard", json!({})), &[WHSEC], vec![event("evt_1", "{}")]);
    let receiver = Receiver::standard().secret(WHSEC).build().unwrap();
    let with = |value: &str| {
        let sent = sent.clone().with("gatepost-position", value).with("gatepost-test", value);
        let message = receiver.receive_at(&sent.headers, &sent.body, after(1)).unwrap();
        (message.position, message.test)
    };
    assert_eq!(with("17"), (Some(17), false));
    for value in ["", "x", "-1", "99999999999999999999999", "1.5"] {
        assert_eq!(with(value), (None, false), "{value}");
    }
    // Without any header that tells, an event is known by its body.
    let sent = send(&config("cryptr", json!({})), &[TEXT], vec![event("evt_1", "{}")]);
    let sent = sent.without("gatepost-event-id").without("gatepost-delivery-id");
    let message = Receiver::cryptr().secret(TEXT).build().unwrap();
    let message = message.receive_at(&sent.headers, &sent.body, after(1)).unwrap();
    assert!(message.id.starts_with("sha256:") && message.id_is_signed);
}

#[test]
fn what_is_signed_but_not_of_the_form_is_named_by_its_place() {
    let item = r#"{"id":"a","type":"t","timestamp":"x"}"#;
    let batch = format!(r#"{{"id":"d","type":"batch","timestamp":"x","events":[{item},{{"id":"b"}}]}}"#);
    for (format, body, at) in [
        (Format::Standard, "", ""),
        (Format::Standard, "hello", ""),
        (Format::Standard, "[]", ""),
        // A list of the members' values is no event.
        (Format::Standard, r#"["a","t","x",null,null]"#, ""),
        (Format::Standard, r#"["d","batch",[]]"#, ""),
        (Format::Standard, r#"{"id":"a","type":"t"}"#, ""),
        (Format::Standard, r#"{"id":"a","id":"b","type":"t","timestamp":"x"}"#, ""),
        (Format::Standard, &batch, "/events/1"),
        (Format::CloudEvents, r#"{"specversion":"0.3","id":"a","source":"s","type":"t"}"#, "/specversion"),
        (Format::CloudEvents, r#"[{"specversion":"1.0","id":"a","source":"s","type":"t"},7]"#, "/1"),
        (Format::CloudEvents, r#"[{"specversion":"0.3","id":"a","source":"s","type":"t"}]"#, "/0/specversion"),
        (Format::Cryptr, r#"{"data":1}"#, ""),
        (Format::FerrisKey, r#"{"event":"e","timestamp":"t"}"#, ""),
        (Format::Okta, r#"{"eventId":"a","data":{"events":[{}]}}"#, "/data/events/0"),
        (Format::Okta, r#"{"eventId":"a","data":{}}"#, ""),
        (Format::Cymmetri, "[]", ""),
        (Format::Raw, "{", ""),
    ] {
        let sent = sign(&config("standard", json!({})), &[WHSEC], "evt_1", body.as_bytes());
        let receiver = Receiver::standard().format(format).secret(WHSEC).build().unwrap();
        match receiver.receive_at(&sent.headers, &sent.body, after(1)) {
            Err(Error::Body { at: seen, .. }) => assert_eq!(seen, at, "{format:?} {body}"),
            other => panic!("{format:?} {body}: {other:?}"),
        }
        // And nothing is read that is not signed.
        let wrong = receiver.receive_at(&sent.headers, b"{{{", after(1));
        assert_eq!(wrong.unwrap_err(), Error::NoMatch);
    }
}

#[test]
fn a_log_event_passes_whatever_its_publisher_gave() {
    let body = r#"{"eventId":"d","source":"s","data":{"events":[
        {"uuid":"u","eventType":"t","published":7,"target":"x"},
        {"uuid":"v","eventType":"t","published":"p","target":[{"id":"i","type":"User"}]}]}}"#;
    let sent = sign(&config("standard", json!({"signing": [{"scheme": "github"}]})), &[TEXT], "", body.as_bytes());
    let receiver = Receiver::okta("x").signing(Scheme::GitHub(None)).secret(TEXT).build().unwrap();
    let message = receiver.receive_at(&sent.headers, &sent.body, after(1)).unwrap();
    assert_eq!((&*message.id, message.id_is_signed, message.is_batch), ("d", true, true));
    let [one, two] = message.events.as_slice() else { panic!() };
    assert_eq!((&one.timestamp, &one.subject), (&None, &None));
    assert_eq!(two.timestamp.as_deref(), Some("p"));
    assert_eq!(two.subject, Some(Subject { kind: Some("User".into()), id: "i".into() }));
}
