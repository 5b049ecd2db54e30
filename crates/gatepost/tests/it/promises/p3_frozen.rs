//! P3: a body is rendered from the registration an event was accepted under, whatever the webhook has
//! become since; url, auth and secrets are today's.

use gatepost_testkit::{Gate, Received, Script};
use serde_json::{Value, json};

use crate::harness::{Server, receiver, text, verify};

const HOOKS: &str = "/v1/tenants/acme/webhooks";

/// Every member that decides how a body looks, as something else.
fn otherwise() -> Value {
    json!({"format": "cloudevents", "payload": null})
}

fn content_type(request: &Received) -> &str {
    request.header("content-type").unwrap()
}

#[test]
fn p3_a_body_keeps_its_form_when_the_webhook_is_changed_between_attempts() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let (inbox, moved) = (receiver(), receiver());
    inbox.script(Script::status(500));
    moved.script(Script::status(500));
    let hook = server.create_webhook(
        "acme",
        &inbox.url("/"),
        json!({"payload": {"exclude": ["/secret"]}, "retry": {"waits": vec![0.05; 32], "jitter": 0}}),
    );
    let path = format!("{HOOKS}/{}", text(&hook, "id"));
    let event = server.publish("acme", "user.created", json!({"id": 7, "secret": "s"}));
    let first = inbox.wait_for_blocking(1).remove(0);
    assert_eq!(first.json()["data"], json!({"id": 7}));

    let mut patch = otherwise();
    patch["url"] = json!(moved.url("/"));
    patch["signing"] = json!([{"scheme": "standard"}, {"scheme": "github"}]);
    server.patch(&path, patch).expect(200);
    moved.wait_for_blocking(1);
    // Across a restart as well.
    server.kill9();
    server.restart();
    let before = moved.count();
    moved.wait_for_blocking(before + 1);
    moved.script(Script::status(200));
    let view = server.wait_event("acme", &event, "delivered");
    for request in moved.received() {
        assert_eq!((&request.body, content_type(&request)), (&first.body, "application/json"));
        // Where it goes and how it is signed are today's.
        assert!(request.header("x-hub-signature-256").is_some());
        verify(&text(&hook, "secret"), &request);
    }
    for attempt in view["attempt_list"].as_array().unwrap() {
        let request = &attempt["request"];
        assert_eq!(request["body"].as_str().unwrap().as_bytes(), &first.body[..]);
        assert_eq!(request["headers"]["content-type"], "application/json");
    }
    // What was accepted after the change looks like the change.
    let after = server.publish("acme", "user.created", json!({"id": 8, "secret": "s"}));
    server.wait_event("acme", &after, "delivered");
    let request = moved.received().pop().unwrap();
    assert_eq!(content_type(&request), "application/cloudevents+json; charset=utf-8");
    assert_eq!(request.json()["data"], json!({"id": 8, "secret": "s"}));
}

#[test]
fn p3_a_body_not_sent_yet_has_the_form_of_its_acceptance() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let gate = Gate::new();
    inbox.script(Script::status(200).behind(&gate));
    let hook =
        server.create_webhook("acme", &inbox.url("/"), json!({"max_in_flight": 1, "payload": {"include": ["/n"]}}));
    let path = format!("{HOOKS}/{}", text(&hook, "id"));
    let held = server.publish("acme", "a", json!({"n": 0, "m": 0}));
    inbox.wait_for_blocking(1);
    // These wait behind it, each under a registration of its own.
    let mut waiting = Vec::new();
    for (n, patch) in
        [otherwise(), json!({"format": "raw"}), json!({"format": null, "payload": {"mode": "thin"}})].iter().enumerate()
    {
        waiting.push(server.publish("acme", "a", json!({"n": n + 1, "m": n + 1})));
        server.patch(&path, patch.clone()).expect(200);
    }
    waiting.push(server.publish("acme", "a", json!({"n": 4, "m": 4})));
    gate.open();
    for event in waiting.iter().chain([&held]) {
        server.wait_event("acme", event, "delivered");
    }
    let arrived = inbox.received();
    let of = |event: &str| arrived.iter().find(|r| r.header("gatepost-event-id") == Some(event)).unwrap();
    let bodies: Vec<Value> = waiting.iter().map(|event| of(event).json()).collect();
    assert_eq!(bodies[0]["data"], json!({"n": 1}));
    assert_eq!((&bodies[1]["specversion"], &bodies[1]["data"]), (&json!("1.0"), &json!({"n": 2, "m": 2})));
    assert_eq!(bodies[2], json!({"n": 3, "m": 3}));
    assert_eq!((&bodies[3]["type"], bodies[3].get("data")), (&json!("a"), None));
    for event in &waiting {
        let view = server.wait_event("acme", event, "delivered");
        let shown = &view["attempt_list"][0]["request"];
        assert_eq!(shown["body"].as_str().unwrap().as_bytes(), &of(event).body[..]);
        assert_eq!(shown["headers"]["content-type"].as_str(), of(event).header("content-type"));
    }
}
