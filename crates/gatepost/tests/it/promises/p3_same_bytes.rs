//! P3: a body is rendered once; every retry sends the same bytes under a fresh signature.

use gatepost_testkit::{Received, Script};
use serde_json::json;

use crate::harness::{Server, receiver, text, verifies, verify};

/// Data that any reading and writing again would change.
const ODD: [&str; 12] = [
    r#"{ "b" : 1 ,  "a":[ 1,2 ,3 ]  }"#,
    "{\"z\":1,\n\t\"a\":2,\r\n\"m\":3}",
    r#"{"n":1.0,"e":1e400,"m":-0.0,"x":1E+2,"y":0.10}"#,
    r#"{"big":123456789012345678901234567890,"neg":-9223372036854775809}"#,
    r#"{"s":"\u00e9\u0041\/\ud83d\ude00é😀"}"#,
    r#"{"a":1,"a":2,"a":{"b":1,"b":1}}"#,
    r#""just text""#,
    "12345678901234567890.00",
    "[ ]",
    "true",
    "null",
    r#"{"":{"":""}}"#,
];

fn sent_data(request: &Received) -> String {
    let body = String::from_utf8(request.body.to_vec()).unwrap();
    let start = body.find("\"data\":").unwrap() + "\"data\":".len();
    body[start..body.len() - 1].to_owned()
}

#[test]
fn p3_data_arrive_as_the_bytes_they_came_as() {
    let server = Server::start();
    server.create_tenant("acme");
    let (inbox, cloud) = (receiver(), receiver());
    server.webhook("acme", &inbox.url("/"), json!({}));
    server.webhook("acme", &cloud.url("/"), json!({"profile": "cloudevents"}));
    for (n, data) in ODD.iter().enumerate() {
        let body = format!("{{ \"type\" : \"user.created\",\"id\":\"e:{n}\", \"data\":{data} }}");
        server.publish_event("acme", body);
    }
    let batch: Vec<String> = ODD.iter().map(|d| format!("{{\"type\":\"a.b\",\"data\":{d}}}")).collect();
    let batch = format!("{{\"events\":[{}]}}", batch.join(","));
    server.post("/v1/tenants/acme/events/batch", batch).expect(202);
    server.wait_settled("acme");
    for receiver in [&inbox, &cloud] {
        let arrived = receiver.received();
        assert_eq!(arrived.len(), 2 * ODD.len());
        for (n, data) in ODD.iter().enumerate() {
            let id = format!("e:{n}");
            let mine = arrived.iter().find(|r| r.header("gatepost-event-id") == Some(id.as_str())).unwrap();
            let body = String::from_utf8_lossy(&mine.body);
            assert!(body.contains(&format!("\"data\":{data}")), "{data} arrived as {body}");
        }
        for data in ODD {
            let found =
                arrived.iter().filter(|r| String::from_utf8_lossy(&r.body).contains(&format!("\"data\":{data}")));
            assert!(found.count() >= 2, "{data} of the batch");
        }
    }
    // Whoever asks sees them so, too.
    for (n, data) in ODD.iter().enumerate() {
        let view = server.get(&format!("/v1/tenants/acme/events/e:{n}")).expect(200).text();
        assert!(view.contains(&format!("\"data\":{data}")), "{data} is shown as {view}");
    }
}

#[test]
fn p3_retries_send_the_same_bytes_with_a_fresh_signature() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::status(500));
    let hook = server.create_webhook(
        "acme",
        &inbox.url("/in"),
        json!({
            "headers": {"X-Own": "value"},
            "retry": {"waits": vec![1.1; 32], "jitter": 0},
        }),
    );
    let secret = text(&hook, "secret");
    let data = ODD[4];
    let event = server.publish_event("acme", format!(r#"{{"type":"user.created","data":{data}}}"#));
    inbox.wait_for_blocking(2);
    // Across a restart as well.
    server.kill9();
    server.restart();
    let before = inbox.count();
    inbox.wait_for_blocking(before + 1);
    inbox.script(Script::status(200));
    let view = server.wait_event("acme", &text(&event, "id"), "delivered");

    let arrived = inbox.received();
    let mut signatures = Vec::new();
    let mut last = 0;
    for request in &arrived {
        verify(&secret, request);
        assert_eq!(request.body, arrived[0].body);
        assert_eq!(request.header("webhook-id"), event["id"].as_str());
        assert_eq!(request.header("x-own"), Some("value"));
        let timestamp: i64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
        assert!(timestamp >= last, "timestamps go back: {arrived:?}");
        last = timestamp;
        signatures.push((timestamp, request.header("webhook-signature").unwrap().to_owned()));
    }
    assert_eq!(sent_data(&arrived[0]), data);
    // More than a second lies between attempts: each has its own timestamp, so its own signature.
    signatures.dedup();
    assert!(signatures.len() >= 3, "{signatures:?}");
    let shown = view["attempt_list"].as_array().unwrap();
    assert!(shown.iter().all(|a| a["request"]["body"] == shown[0]["request"]["body"]));
    assert_eq!(shown[0]["request"]["body"].as_str().unwrap().as_bytes(), &arrived[0].body[..]);

    // A signature is over these bytes and no others.
    let mut forged = arrived[0].clone();
    forged.body = forged.body.iter().map(|b| if *b == b'1' { b'2' } else { *b }).collect::<Vec<u8>>().into();
    let mut renamed = arrived[0].clone();
    renamed.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("webhook-id"));
    renamed.headers.push(("webhook-id".into(), "evt_other".into()));
    assert!(verifies(&secret, &renamed).is_err());
    if forged.body != arrived[0].body {
        assert!(verifies(&secret, &forged).is_err());
    }
}

#[test]
fn p3_after_a_rotation_the_body_stays_and_the_signatures_are_todays() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::status(500));
    let hook = server.create_webhook("acme", &inbox.url("/"), json!({"retry": {"waits": vec![0.1; 32], "jitter": 0}}));
    let (id, first) = (text(&hook, "id"), text(&hook, "secret"));
    let event = server.publish("acme", "user.created", json!({"n": 1.5}));
    inbox.wait_for_blocking(1);
    let rotate = format!("/v1/tenants/acme/webhooks/{id}/rotate-secret");

    // With an overlap both sign.
    let second = text(&server.post(&rotate, json!({})).expect(200).json(), "secret");
    let before = inbox.count();
    let both = inbox.wait_for_blocking(before + 2).pop().unwrap();
    verify(&first, &both);
    verify(&second, &both);
    assert_eq!(both.header("webhook-signature").unwrap().split(' ').count(), 2);

    // Without one, the old secret has signed for the last time.
    let third = text(&server.post(&rotate, json!({"overlap_seconds": 0})).expect(200).json(), "secret");
    inbox.script(Script::status(200));
    server.wait_event("acme", &event, "delivered");
    let last = inbox.received().pop().unwrap();
    verify(&third, &last);
    assert!(verifies(&second, &last).is_err() && verifies(&first, &last).is_err());

    let arrived = inbox.received();
    assert!(arrived.iter().all(|r| r.body == arrived[0].body));
}

#[test]
fn p3_what_is_owed_is_rendered_as_registered_when_it_was_accepted() {
    let server = Server::start();
    server.create_tenant("acme");
    let (old, new) = (receiver(), receiver());
    old.script(Script::status(500));
    let id = server.webhook(
        "acme",
        &old.url("/"),
        json!({
            "headers": {"X-Version": "1"},
            "retry": {"waits": vec![0.1; 32], "jitter": 0},
        }),
    );
    let event = server.publish("acme", "user.created", json!({"n": 1}));
    let first = old.wait_for_blocking(1).remove(0);
    // Url and headers are always today's; the body is that of the first attempt.
    let patch = json!({"url": new.url("/"), "headers": {"X-Version": "2"}});
    server.patch(&format!("/v1/tenants/acme/webhooks/{id}"), patch).expect(200);
    let second = new.wait_for_blocking(1).remove(0);
    assert_eq!((second.header("x-version"), first.header("x-version")), (Some("2"), Some("1")));
    assert_eq!(second.body, first.body);
    server.wait_event("acme", &event, "delivered");
}

#[test]
fn p3_an_imported_secret_and_ours_verify_with_the_library_receivers_use() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let imported = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let hook = server.create_webhook("acme", &inbox.url("/"), json!({"secret": imported}));
    assert_eq!(hook["secret"], imported);
    server.publish("acme", "user.created", json!({}));
    let request = inbox.wait_for_blocking(1).remove(0);
    verify(imported, &request);
    assert!(verifies("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=", &request).is_err());
    let envelope = request.json();
    let members: Vec<&String> = envelope.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 4, "id, type, timestamp, data and nothing else: {envelope}");
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let position = |m: &str| body.find(&format!("\"{m}\":")).unwrap();
    assert!(
        position("id") < position("type")
            && position("type") < position("timestamp")
            && position("timestamp") < position("data")
    );
}
