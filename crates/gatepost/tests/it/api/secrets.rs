//! The test button and the rotation of secrets.

use gatepost_testkit::{ClosedPort, Received, Script};
use serde_json::{Value, json};

use super::members;
use crate::harness::{Server, receiver, text, verifies, verify};

fn signatures(request: &Received) -> Vec<String> {
    request.header("webhook-signature").expect("a signature").split(' ').map(str::to_owned).collect()
}

#[test]
fn a_test_is_one_real_signed_request_and_nothing_else() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::status(201).header("x-answer", "yes").body("thanks"));
    let created = server.create_webhook(
        "acme",
        &to.url("/in"),
        json!({"events": ["user.*"], "headers": {"X-Api-Key": "s3cr3t"}, "enabled": false}),
    );
    let (id, secret) = (text(&created, "id"), text(&created, "secret"));
    let path = format!("/v1/tenants/acme/webhooks/{id}");

    let result = server.post(&format!("{path}/test"), ()).expect(200).json();
    for member in ["delivered", "status", "duration_ms", "request", "response", "error"] {
        assert!(members(&result).contains(&member), "{member} in {result}");
    }
    assert_eq!((&result["delivered"], &result["status"], &result["error"]), (&json!(true), &json!(201), &Value::Null));
    assert!(result["duration_ms"].is_u64());
    assert_eq!(result["request"]["url"], to.url("/in"));
    assert_eq!(result["response"]["body"], "thanks");
    assert_eq!(result["response"]["headers"]["x-answer"], "yes");
    assert_eq!(result["response"]["truncated"], false);

    let received = to.received();
    assert_eq!(received.len(), 1);
    let request = &received[0];
    verify(&secret, request);
    assert_eq!(request.header("gatepost-test"), Some("true"));
    assert_eq!(request.header("gatepost-attempt"), Some("1"));
    assert_eq!(request.header("x-api-key"), Some("s3cr3t"));
    assert_eq!(result["request"]["body"].as_str().map(str::as_bytes), Some(&request.body[..]));
    // The first type of the catalogue, with its example.
    let body = request.json();
    let event_type = text(&body, "type");
    assert!(event_type.starts_with("user."), "{event_type}");
    let declared = server.get(&format!("/v1/event-types/{event_type}")).expect(200).json();
    assert_eq!(body["data"], declared["example"]);
    assert!(!result.to_string().contains("s3cr3t"), "the tenant's header values are masked");
    assert_eq!(result["request"]["headers"]["webhook-id"].as_str(), request.header("webhook-id"));

    // Nothing is stored but `last_test`.
    let mut events = server.all("/v1/tenants/acme/events");
    events.retain(|event| !text(event, "type").starts_with("gatepost."));
    assert_eq!((events, server.all("/v1/tenants/acme/deliveries")), (vec![], vec![]));
    let shown = server.get(&path).expect(200).json();
    assert_eq!(shown["enabled"], false);
    assert_eq!(
        (&shown["last_test"]["delivered"], &shown["last_test"]["status"]),
        (&json!(true), &json!(201)),
        "{shown}"
    );

    // Type and data of one's own.
    let own = r#"{"event_type":"my.type","data":{"b":1.00,"a":[]}}"#;
    server.post(&format!("{path}/test"), own).expect(200);
    let request = to.received()[1].clone();
    verify(&secret, &request);
    assert!(String::from_utf8_lossy(&request.body).ends_with(r#""data":{"b":1.00,"a":[]}}"#), "{request:?}");
    assert_eq!(text(&request.json(), "type"), "my.type");
    let named = server.post(&format!("{path}/test"), json!({"event_type": "group.created"})).expect(200).json();
    assert_eq!(named["delivered"], true);
    assert_eq!(text(&to.received()[2].json(), "type"), "group.created");
    assert_eq!(to.count(), 3);
}

#[test]
fn a_test_that_fails_says_why_and_is_not_repeated() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::status(503).header("retry-after", "0").body("no"));
    let id = server.webhook("acme", &to.url("/"), json!({"retry": {"waits": [0, 0]}}));
    let path = format!("/v1/tenants/acme/webhooks/{id}");
    let result = server.post(&format!("{path}/test"), json!({})).expect(200).json();
    assert_eq!(
        (&result["delivered"], &result["status"], &result["response"]["body"]),
        (&json!(false), &json!(503), &json!("no"))
    );
    assert_eq!(server.get(&path).expect(200).json()["last_test"]["status"], 503);

    // A failed test holds nothing up, and a real event has no mark of a test.
    to.script(Script::status(204));
    let event = server.publish("acme", "user.created", json!({}));
    server.wait_event("acme", &event, "delivered");
    let received = to.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[1].header("gatepost-test"), None);

    // 410 to a test disables nothing.
    to.script(Script::status(410));
    server.post(&format!("{path}/test"), json!({})).expect(200);
    assert_eq!(server.get(&path).expect(200).json()["enabled"], true);

    let nobody = ClosedPort::new();
    server.patch(&path, json!({"url": format!("http://{}/", nobody.addr())})).expect(200);
    let result = server.post(&format!("{path}/test"), json!({})).expect(200).json();
    assert_eq!(
        (&result["delivered"], &result["status"], &result["response"]),
        (&json!(false), &Value::Null, &Value::Null)
    );
    assert!(result["error"].as_str().is_some_and(|e| !e.is_empty()), "{result}");
}

#[test]
fn a_webhook_for_no_known_type_can_be_tested() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let created = server.create_webhook("acme", &to.url("/"), json!({"events": ["nobody.declared.this"]}));
    let result =
        server.post(&format!("/v1/tenants/acme/webhooks/{}/test", text(&created, "id")), ()).expect(200).json();
    assert_eq!(result["delivered"], true, "{result}");
    verify(&text(&created, "secret"), &to.received()[0]);
}

#[test]
fn both_secrets_sign_during_the_overlap_and_only_the_new_one_after_none() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let created = server.create_webhook("acme", &to.url("/"), json!({}));
    let path = format!("/v1/tenants/acme/webhooks/{}/rotate-secret", text(&created, "id"));
    let first = text(&created, "secret");
    let next = |n: usize| {
        let event = server.publish("acme", "user.created", json!(n));
        server.wait_event("acme", &event, "delivered");
        to.received()[n].clone()
    };
    let request = next(0);
    verify(&first, &request);
    assert_eq!(signatures(&request).len(), 1);

    // The default overlap is a day.
    let answer = server.post(&path, ()).expect(200).json();
    let second = text(&answer, "secret");
    assert!(second.starts_with("whsec_") && second != first);
    let request = next(1);
    verify(&first, &request);
    verify(&second, &request);
    assert_eq!(signatures(&request).len(), 2);
    assert!(signatures(&request).iter().all(|s| s.starts_with("v1,")), "single spaces, one comma each: {request:?}");

    // A third while two sign: all that are within their overlap.
    let third = text(&server.post(&path, json!({"overlap_seconds": 3600})).expect(200).json(), "secret");
    let request = next(2);
    for secret in [&first, &second, &third] {
        verify(secret, &request);
    }

    // No overlap: the new one alone, at once.
    let fourth = text(&server.post(&path, json!({"overlap_seconds": 0})).expect(200).json(), "secret");
    let request = next(3);
    verify(&fourth, &request);
    assert_eq!(signatures(&request).len(), 1);
    for secret in [&first, &second, &third] {
        assert!(verifies(secret, &request).is_err());
    }

    // An import is the secret from then on.
    let imported = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let answer = server.post(&path, json!({"secret": imported, "overlap_seconds": 60})).expect(200).json();
    assert_eq!(answer["secret"], imported);
    let request = next(4);
    verify(imported, &request);
    verify(&fourth, &request);
}

#[test]
fn many_rotations_do_not_make_the_header_grow_without_end() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let created = server.create_webhook("acme", &to.url("/"), json!({}));
    let path = format!("/v1/tenants/acme/webhooks/{}/rotate-secret", text(&created, "id"));
    let mut last = String::new();
    for _ in 0..20 {
        last = text(&server.post(&path, json!({"overlap_seconds": 86_400})).expect(200).json(), "secret");
    }
    server.publish("acme", "user.created", json!({}));
    let request = to.wait_for_blocking(1)[0].clone();
    verify(&last, &request);
    assert!(signatures(&request).len() <= 11, "{}", signatures(&request).len());
}

#[test]
fn an_overlap_ends_by_itself() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let created = server.create_webhook("acme", &to.url("/"), json!({}));
    let path = format!("/v1/tenants/acme/webhooks/{}", text(&created, "id"));
    let second = text(
        &server.post(&format!("{path}/rotate-secret"), json!({"overlap_seconds": 1})).expect(200).json(),
        "secret",
    );
    crate::harness::wait_until("the old secret to end", || {
        server.post(&format!("{path}/test"), ()).expect(200);
        let request = to.received().pop()?;
        verify(&second, &request);
        (signatures(&request).len() == 1).then(|| assert!(verifies(&text(&created, "secret"), &request).is_err()))
    });
}
