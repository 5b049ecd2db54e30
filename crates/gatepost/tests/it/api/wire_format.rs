//! What receivers get: bodies, headers, signatures.

use gatepost_testkit::{Received, Script};
use serde_json::{Value, json};

use super::members;
use crate::harness::{Server, receiver, text, verify};

/// A server with one webhook of a profile; what a receiver gets for an event.
struct Setup {
    server: Server,
    to: gatepost_testkit::Receiver,
    webhook: Value,
}

impl Setup {
    fn new(overrides: Value) -> Setup {
        let server = Server::start();
        server.create_tenant("acme");
        let to = receiver();
        let webhook = server.create_webhook("acme", &to.url("/in?tenant=acme"), overrides);
        Setup { server, to, webhook }
    }

    /// Publishes and gives what arrived, its signature verified by the library receivers use.
    fn send(&self, event: impl Into<crate::harness::Payload>) -> (Value, Received) {
        let before = self.to.count();
        let answer = self.server.publish_event("acme", event);
        let request = self.to.wait_for_blocking(before + 1)[before].clone();
        verify(&text(&self.webhook, "secret"), &request);
        (answer, request)
    }
}

#[test]
fn the_standard_body_has_its_members_in_order_and_nothing_else() {
    let setup = Setup::new(json!({}));
    let event = r#"{"data":{ "b":1.00,"a":[] },"type":"user.created","attributes":{"region":"eu"},"urgency":"urgent",
        "subject":{"id":"u\"1","type":"user"},"id":"e:1","timestamp":"2026-01-02T04:04:05.500+01:00"}"#;
    let (_, request) = setup.send(event);
    let wanted = concat!(
        r#"{"id":"e:1","type":"user.created","timestamp":"2026-01-02T03:04:05.5Z","subject":{"type":"user","id":"u\"1"},"#,
        r#""data":{ "b":1.00,"a":[] }}"#
    );
    assert_eq!(String::from_utf8_lossy(&request.body), wanted);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/in?tenant=acme"));

    // Without a subject there is no member `subject`.
    let (answer, request) = setup.send(json!({"type": "user.created"}));
    let wanted = format!(
        r#"{{"id":"{}","type":"user.created","timestamp":"{}","data":null}}"#,
        text(&answer, "id"),
        text(&answer, "timestamp")
    );
    assert_eq!(String::from_utf8_lossy(&request.body), wanted);
    // A subject without a type has none.
    let (_, request) = setup.send(json!({"type": "user.created", "subject": {"id": "7"}}));
    assert_eq!(request.json()["subject"], json!({"id": "7"}));
}

#[test]
fn every_request_has_the_promised_headers() {
    let setup = Setup::new(
        json!({"headers": {"X-Api-Key": "s3cr3t", "Authorization": "Bearer t"}, "retry": {"waits": [0, 0], "jitter": 0}}),
    );
    setup.to.next([Script::status(500), Script::status(500)]);
    let answer = setup.server.publish_event("acme", json!({"type": "user.created", "data": {}}));
    let id = text(&answer, "id");
    let delivery = setup.server.wait_event("acme", &id, "delivered");
    let received = setup.to.received();
    assert_eq!(received.len(), 3);
    let mut parents = Vec::new();
    for (n, request) in received.iter().enumerate() {
        verify(&text(&setup.webhook, "secret"), request);
        let header = |name: &str| {
            let found: Vec<_> = request.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).collect();
            assert_eq!(found.len(), 1, "{name} once: {:?}", request.headers);
            found[0].1.clone()
        };
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("content-length"), request.body.len().to_string());
        assert_eq!(header("host"), setup.to.addr().to_string());
        assert_eq!(header("user-agent"), format!("Gatepost/{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(header("webhook-id"), id);
        assert_eq!(header("gatepost-event-id"), id);
        assert_eq!(header("gatepost-delivery-id"), text(&delivery, "id"));
        assert_eq!(header("gatepost-attempt"), (n + 1).to_string());
        assert_eq!(header("x-api-key"), "s3cr3t");
        assert_eq!(header("authorization"), "Bearer t");
        assert_eq!(request.header("gatepost-test"), None);
        assert!(header("webhook-timestamp").parse::<u64>().is_ok());
        assert!(header("webhook-signature").starts_with("v1,"));
        let parent = header("traceparent");
        let parts: Vec<&str> = parent.split('-').collect();
        let hex = |text: &str, len: usize| {
            text.len() == len
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                && text.bytes().any(|b| b != b'0')
        };
        assert!(
            parts.len() == 4 && parts[0] == "00" && hex(parts[1], 32) && hex(parts[2], 16) && parts[3].len() == 2,
            "{parent}"
        );
        assert_eq!(request.body, received[0].body, "p3: the same bytes");
        parents.push((parts[1].to_owned(), parts[2].to_owned()));
    }
    assert!(parents.iter().all(|(trace, _)| *trace == parents[0].0), "one trace");
    assert!(parents[0].1 != parents[1].1 && parents[1].1 != parents[2].1, "a span per attempt");
}

#[test]
fn the_message_id_is_the_events_for_every_webhook() {
    let setup = Setup::new(json!({}));
    let other = setup.server.create_webhook("acme", &setup.to.url("/other"), json!({}));
    setup.server.publish_event("acme", json!({"type": "a", "id": "shared"}));
    let received = setup.to.wait_for_blocking(2);
    let of = |path: &str| received.iter().find(|r| r.path.starts_with(path)).expect("both").clone();
    let (one, two) = (of("/in"), of("/other"));
    assert_eq!((one.header("webhook-id"), two.header("webhook-id")), (Some("shared"), Some("shared")));
    assert_ne!(one.header("gatepost-delivery-id"), two.header("gatepost-delivery-id"));
    verify(&text(&setup.webhook, "secret"), &one);
    verify(&text(&other, "secret"), &two);
    assert!(crate::harness::verifies(&text(&other, "secret"), &one).is_err(), "secrets are a webhook's own");
}

#[test]
fn cloudevents_are_structured_and_complete() {
    let setup = Setup::new(json!({"profile": "cloudevents"}));
    let event = r#"{"type":"user.created","id":"e1","timestamp":"2026-01-02T03:04:05Z","subject":{"type":"user","id":"u1"},
        "data":{ "b":1.00, "a":[] },"attributes":{"region":"eu","Bad-Name":"x"}}"#;
    let (_, request) = setup.send(event);
    let media_type = request.header("content-type").expect("a content type").to_owned();
    assert_eq!(media_type.split(';').next().map(str::trim), Some("application/cloudevents+json"), "{media_type}");
    assert_eq!(request.header("webhook-id"), Some("e1"));
    assert!(
        request.headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("ce-")),
        "structured, not binary"
    );
    let body = request.json();
    assert_eq!(
        (&body["specversion"], &body["id"], &body["type"]),
        (&json!("1.0"), &json!("e1"), &json!("user.created"))
    );
    assert_eq!((&body["time"], &body["subject"]), (&json!("2026-01-02T03:04:05Z"), &json!("u1")));
    assert!(body["source"].as_str().is_some_and(|s| !s.is_empty() && !s.contains(' ')), "{body}");
    assert!(body.get("datacontenttype").is_none_or(|t| t == "application/json"));
    assert!(body.get("data_base64").is_none());
    assert_eq!(body["region"], "eu");
    assert!(
        String::from_utf8_lossy(&request.body).contains(r#""data":{ "b":1.00, "a":[] }"#),
        "p3: data byte for byte"
    );
    for name in members(&body) {
        assert!(name.len() <= 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{name}");
        assert!(name == "data" || !body[name].is_object(), "{name}");
    }

    // Without a subject, and as it came in as a CloudEvent itself.
    let (_, request) = setup.send(json!({"type": "a", "id": "e2"}));
    assert!(request.json().get("subject").is_none());
    let incoming = json!({"specversion": "1.0", "id": "e3", "source": "https://idp.example/t/1", "type": "a", "subject": "s", "ext": "x", "data": [1]});
    let answer = setup.server.send(
        "POST",
        "/v1/tenants/acme/events",
        &[("content-type", "application/cloudevents+json")],
        incoming.clone(),
    );
    answer.expect(202);
    let body = setup.to.wait_for_blocking(3)[2].json();
    for (name, value) in incoming.as_object().expect("members") {
        assert_eq!(body[name], *value, "{name} goes round");
    }
}

#[test]
fn ids_with_every_character_of_the_grammar_are_signed_and_sent() {
    let setup = Setup::new(json!({}));
    let id = "Az09_:@~+=/-";
    let (answer, request) = setup.send(json!({"type": "a", "id": id}));
    assert_eq!(answer["id"], id);
    assert_eq!((request.header("webhook-id"), request.header("gatepost-event-id")), (Some(id), Some(id)));
    assert_eq!(request.json()["id"], id);
    let large = "x".repeat(1_000_000);
    let (_, request) = setup.send(json!({"type": "a", "data": large}));
    assert_eq!(request.json()["data"].as_str().map(str::len), Some(1_000_000));
}
