use proptest::prelude::*;

use super::*;

fn ok(text: &'static str) -> IncomingEvent {
    structured(&Bytes::from_static(text.as_bytes())).unwrap()
}

/// Pointers of everything wrong with a structured event.
fn bad(text: &str) -> Vec<String> {
    match structured(&Bytes::copy_from_slice(text.as_bytes())) {
        Err(DecodeError::Invalid(errors)) => errors.into_iter().map(|e| e.pointer).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

/// A structured event with more members.
fn with(members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a.b"{members}}}"#)
}

#[test]
fn modes_by_content_type_and_header() {
    let cases = [
        (Some("application/cloudevents+json"), false, Some(Mode::Structured)),
        (Some("Application/CloudEvents+JSON; charset=utf-8"), true, Some(Mode::Structured)),
        (Some("application/cloudevents-batch+json"), false, Some(Mode::Batched)),
        (Some("application/json"), true, Some(Mode::Binary)),
        (None, true, Some(Mode::Binary)),
        (Some("application/json"), false, None),
        (Some("application/cloudevents+avro"), false, None),
    ];
    for (content_type, header, expected) in cases {
        assert_eq!(mode(content_type, header), expected, "{content_type:?}");
    }
}

#[test]
fn p3_a_structured_event_keeps_its_data_bytes() {
    let event = ok(
        r#" {"type":"user.created","data": { "b":1.00, "a" : "\u00e9", "b":2e999 } ,"specversion":"1.0","id":"A-1",
            "source":"https://idp.example/t/1","time":"2026-01-02T03:04:05+01:00","subject":"u1","traceparent":"00-a",
            "datacontenttype":"application/vnd.x+json; charset=utf-8","dataschema":"https://s/1","retries":3,"flag":true,
            "gone":null} "#,
    );
    assert_eq!(&event.data[..], br#"{ "b":1.00, "a" : "\u00e9", "b":2e999 }"#);
    assert_eq!(
        (&*event.id, &*event.source, event.event_type.as_str()),
        ("A-1", "https://idp.example/t/1", "user.created")
    );
    assert_eq!(event.timestamp.unwrap().to_string(), "2026-01-02T02:04:05Z");
    assert_eq!(event.subject.as_deref(), Some("u1"));
    assert_eq!(
        std::str::from_utf8(&event.attributes).unwrap(),
        r#"{"source":"https://idp.example/t/1","traceparent":"00-a","dataschema":"https://s/1","retries":3,"flag":true}"#
    );
}

#[test]
fn data_may_be_absent_null_or_base64_of_json() {
    assert_eq!(structured(&with("").into()).unwrap().data, "null");
    assert_eq!(structured(&with(r#","data":null"#).into()).unwrap().data, "null");
    assert_eq!(structured(&with(r#","data_base64":null"#).into()).unwrap().data, "null");
    // base64 of {"a": 1}
    assert_eq!(structured(&with(r#","data_base64":"eyJhIjogMX0=""#).into()).unwrap().data, r#"{"a": 1}"#);
}

#[test]
fn everything_wrong_is_told_at_once() {
    assert_eq!(bad("{}"), ["/specversion", "/id", "/source", "/type"]);
    assert_eq!(bad("[]"), [""]);
    assert_eq!(bad("\"x\""), [""]);
    assert_eq!(
        bad(r#"{"specversion":"0.3","id":"","source":7,"type":"a..b","time":"now","subject":"","Up":"x","obj":{}}"#),
        ["/specversion", "/id", "/source", "/type", "/time", "/subject", "/Up", "/obj"]
    );
    let cases = [
        (r#","datacontenttype":"text/plain""#, "/datacontenttype"),
        (r#","datacontenttype":"application/xml","data":"<a/>""#, "/datacontenttype"),
        (r#","data":1,"data_base64":"MQ==""#, "/data_base64"),
        (r#","data_base64":"MQ==","data":1"#, "/data"),
        (r#","data_base64":"%%%""#, "/data_base64"),
        (r#","data_base64":7"#, "/data_base64"),
        (r#","data_base64":"/w==""#, "/data_base64"),
        (r#","half":1.5"#, "/half"),
        (r#","big":3000000000"#, "/big"),
        (r#","a/b~c":"x""#, "/a~1b~0c"),
        (r#","under_score":"x""#, "/under_score"),
        (r#","text":"\ud800""#, "/text"),
        (r#","time":7"#, "/time"),
    ];
    for (members, pointer) in cases {
        assert_eq!(bad(&with(members)), [pointer], "{members}");
    }
    assert_eq!(bad(&with(&format!(r#","subject":"{}""#, "x".repeat(257)))), ["/subject"]);
    assert_eq!(bad(r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.all"}"#), ["/type"]);
}

#[test]
fn what_is_no_json_or_has_a_member_twice_is_told_with_its_place() {
    let place = |text: &str| match structured(&Bytes::copy_from_slice(text.as_bytes())) {
        Err(DecodeError::Malformed { message, line, column }) => (message, line, column),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(place("{\n \"a\": }").1, 2);
    let (message, line, _) = place("\n\n{\"id\":\"1\",\n\"id\":\"2\"}");
    assert_eq!((message.as_str(), line), ("duplicate member \"id\"", 4));
    assert!(place("{\"a\":1} x").0.contains("trailing"));
    place("\u{0}");
    assert!(matches!(structured(&Bytes::from_static(b"{\"a\":\"\xff\"}")), Err(DecodeError::Malformed { .. })));
    let batch = Bytes::from_static(b"[\n{\"specversion\":\"1.0\"},\n  {\"id\":\"1\",\"id\":\"2\"}]");
    match batched(&batch, 10) {
        Err(DecodeError::Malformed { line: 3, column, .. }) => assert!(column > 12),
        other => panic!("{other:?}"),
    }
}

#[test]
fn batches_point_into_the_array() {
    let two = format!("[{},{}]", with(r#","data":{"n":1}"#), with(r#","data":{"n":2}"#));
    let events = batched(&two.clone().into(), 2).unwrap();
    assert_eq!(events[1].data, r#"{"n":2}"#);
    assert_eq!(batched(&two.into(), 1), Err(DecodeError::TooMany(1)));
    assert_eq!(batched(&Bytes::from_static(b" [ ] "), 1), Ok(vec![]));
    let mixed = format!("[{},7,{}]", with(""), with(r#","time":"x""#));
    match batched(&mixed.into(), 10) {
        Err(DecodeError::Invalid(errors)) => {
            let pointers: Vec<_> = errors.iter().map(|e| &*e.pointer).collect();
            assert_eq!(pointers, ["/1", "/2/time"]);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(batched(&with("").into(), 10), Err(DecodeError::Invalid(_))));
}

const HEADERS: [(&str, &[u8]); 4] =
    [("ce-specversion", b"1.0"), ("CE-Id", b"7"), ("ce-source", b"/s"), ("ce-type", b"a.b")];

fn binary_with(
    more: &[(&'static str, &'static [u8])],
    content_type: Option<&str>,
    body: &'static str,
) -> Result<IncomingEvent, DecodeError> {
    let headers = HEADERS.iter().chain(more).copied().chain([("x-other", b"1".as_slice())]);
    binary(headers, content_type, &Bytes::from_static(body.as_bytes()))
}

#[test]
fn binary_events_come_from_headers_and_body() {
    let event = binary_with(
        &[
            ("ce-subject", b"Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("ce-time", b"2026-01-02T03:04:05Z"),
            ("ce-traceparent", b"\"quoted \\\"x\\\" %41\""),
        ],
        Some("application/json; charset=utf-8"),
        "  { \"n\" : 1.0 }\n",
    )
    .unwrap();
    assert_eq!(event.data, "{ \"n\" : 1.0 }");
    assert_eq!(event.subject.as_deref(), Some("Euro \u{20ac} \u{1f600}"));
    assert_eq!(event.id, "7");
    assert_eq!(event.attributes, r#"{"source":"/s","traceparent":"quoted \"x\" A"}"#);
    assert_eq!(binary_with(&[], None, "").unwrap().data, "null");
    // One round of decoding only.
    assert_eq!(binary_with(&[("ce-subject", b"%2541")], None, "").unwrap().subject.as_deref(), Some("%41"));
}

#[test]
fn bad_binary_events_name_the_header() {
    type Case = (&'static [(&'static str, &'static [u8])], Option<&'static str>, &'static str, &'static str);
    let cases: [Case; 7] = [
        (&[("ce-subject", b"%C0%A0")], None, "", "/ce-subject"),
        (&[("ce-subject", b"%4")], None, "", "/ce-subject"),
        (&[("ce-subject", b"\xff")], None, "", "/ce-subject"),
        (&[("ce-id", b"8")], None, "", "/ce-id"),
        (&[("ce-time", b"soon")], None, "", "/ce-time"),
        (&[("ce-a_b", b"x")], None, "", "/ce-a_b"),
        (&[], Some("text/plain"), "hello", "/content-type"),
    ];
    for (more, content_type, body, pointer) in cases {
        match binary_with(more, content_type, body) {
            Err(DecodeError::Invalid(errors)) => {
                assert_eq!(errors.iter().map(|e| &*e.pointer).collect::<Vec<_>>(), [pointer]);
            }
            other => panic!("{pointer}: {other:?}"),
        }
    }
    assert!(matches!(binary_with(&[], Some("application/json"), "{"), Err(DecodeError::Malformed { .. })));
    match binary([("ce-specversion", b"1.0".as_slice())], None, &Bytes::new()) {
        Err(DecodeError::Invalid(errors)) => assert_eq!(errors.len(), 3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ids_are_kept_where_they_can_be() {
    assert_eq!(event_id("/s", "A-1", |_| true).as_str(), "A-1");
    let derived = event_id("/s", "A-1", |_| false);
    assert!(derived.as_str().starts_with("ce_") && derived.as_str().len() == 43);
    assert_eq!(event_id("/s", "has.dot", |_| true), derived_id("/s", "has.dot"));
    assert_ne!(derived_id("a", "bc"), derived_id("ab", "c"));
    assert_eq!(derived_id("a", "bc"), derived_id("a", "bc"));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,60}") {
        let body = Bytes::from(body);
        let _ = structured(&body);
        let _ = batched(&body, 3);
        let _ = binary([("ce-id", &body[..]), ("ce-é", text.as_bytes())], Some(&text), &body);
        let _ = structured(&Bytes::from(format!("{{\"{}\":{text}}}", "id")));
    }

    #[test]
    fn what_we_send_comes_back_as_it_was(data in "(\\{ \"a\" :[1-9][0-9]{0,5}\\.50 \\}|null|\\[1 ,2\\])", subject in proptest::option::of("[ -~é€]{1,20}")) {
        use crate::event::{Event, Subject, Urgency};
        let event = Event {
            seq: crate::EventSeq(1),
            tenant: crate::TenantKey(1),
            id: "evt_1".parse().unwrap(),
            event_type: "user.created".parse().unwrap(),
            timestamp: Timestamp::from_millis(1_700_000_000_123),
            accepted_at: Timestamp::EPOCH,
            subject: subject.clone().map(|id| Subject { kind: None, id }),
            urgency: Urgency::Normal,
            attributes: Some(Bytes::from_static(br#"{"region":"eu","n":3}"#)),
            data: Bytes::from(data.clone()),
            registry_version: 0,
            trace: None,
        };
        let wire = crate::profiles::Wire::of(&crate::profiles::testing::config("cloudevents")).unwrap();
        let body = crate::profiles::testing::framed(|frame| wire.body(&event, frame));
        let back = structured(&body).unwrap();
        prop_assert_eq!(&back.data, data.as_bytes());
        prop_assert_eq!(&back.subject, &subject);
        prop_assert_eq!(back.own_id(), Some(event.id));
        prop_assert_eq!(back.timestamp, Some(event.timestamp));
        prop_assert_eq!(back.attributes, r#"{"source":"urn:gatepost:tenant:acme","n":3,"region":"eu"}"#);
    }
}
