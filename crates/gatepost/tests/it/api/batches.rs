//! Batches (`batch`): events that go out together.

use gatepost_testkit::{Received, Receiver, Script};
use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Server, receiver, text, verify, webhook_body};

/// A wait that no test lives to see the end of.
const LONG: u64 = 600_000;

fn set_up(to: &Receiver, batch: Value, more: Value) -> (Server, Value) {
    let server = Server::start();
    server.create_tenant("acme");
    let mut body = json!({"batch": batch, "retry": {"waits": vec![0.1; 32], "jitter": 0}});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let hook = server.create_webhook("acme", &to.url("/in"), body);
    (server, hook)
}

fn publish(server: &Server, count: usize) -> Vec<String> {
    let events: Vec<Value> = (0..count)
        .map(|n| json!({"type": "user.changed", "subject": {"id": format!("u{}", n % 2)}, "data": {"n": n}}))
        .collect();
    let answer = server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202).json();
    let list = answer["events"].as_array().expect("a list");
    assert!(list.iter().all(|event| event["deliveries"] == 1), "a batch counts as one: {answer}");
    list.iter().map(|event| text(event, "id")).collect()
}

fn ids_in(body: &Value) -> Vec<String> {
    body["events"].as_array().unwrap_or_else(|| panic!("no events: {body}")).iter().map(|e| text(e, "id")).collect()
}

fn delivery_id(request: &Received) -> &str {
    request.header("gatepost-delivery-id").expect("in every profile")
}

#[test]
fn a_full_batch_is_one_request_one_delivery_and_one_outcome() {
    let to = receiver();
    to.next([Script::status(503)]);
    let (server, hook) = set_up(&to, json!({"max_events": 3, "max_wait_ms": LONG}), json!({}));
    assert_eq!(hook["batch"], json!({"max_events": 3, "max_wait_ms": LONG, "max_bytes": 262_144}));
    let events = publish(&server, 3);
    let requests = to.wait_for_blocking(2);
    let secret = text(&hook, "secret");
    for (number, request) in requests.iter().enumerate() {
        let body = request.json();
        let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(members.len(), 4, "id, type, timestamp, events: {body}");
        assert_eq!((&body["type"], ids_in(&body)), (&json!("batch"), events.clone()));
        assert!(text(&body, "timestamp").ends_with('Z'));
        assert_eq!(body["id"], delivery_id(request));
        for (n, event) in body["events"].as_array().expect("a list").iter().enumerate() {
            assert_eq!((&event["type"], &event["data"]), (&json!("user.changed"), &json!({"n": n})));
            assert_eq!(event["subject"], json!({"id": format!("u{}", n % 2)}));
        }
        assert_eq!(request.header("webhook-id"), Some(delivery_id(request)), "of a batch: the delivery's");
        assert_eq!(request.header("gatepost-event-id"), None, "on single events only");
        assert_eq!(request.header("gatepost-attempt"), Some(&*(number + 1).to_string()));
        assert_eq!(request.body, requests[0].body, "the same bytes every time");
        verify(&secret, request);
    }
    let id = delivery_id(&requests[0]).to_owned();
    let view = server.wait_delivery("acme", &id, "delivered");
    assert_eq!((&view["event_ids"], &view["attempts"]), (&json!(events), &json!(2)));
    assert_eq!((&view["event_type"], &view["subject"]), (&json!("batch"), &Value::Null));
    for attempt in view["attempt_list"].as_array().expect("a list") {
        assert_eq!(attempt["request"]["body"].as_str().map(str::as_bytes), Some(&requests[0].body[..]));
        assert_eq!(attempt["request"]["headers"]["webhook-id"], *id);
        assert!(attempt["request"]["headers"]["gatepost-event-id"].is_null());
    }
    for event in &events {
        let rows = server.deliveries_of("acme", event);
        assert_eq!((rows.len(), &rows[0]["id"]), (1, &json!(id)), "found by each of its events");
        let shown = server.event("acme", event);
        assert_eq!(shown["deliveries"].as_array().map(Vec::len), Some(1));
        assert_eq!(shown["deliveries"][0]["id"], *id);
    }
    let about = server.all("/v1/tenants/acme/deliveries?subject=u1");
    assert_eq!(about.len(), 1, "and by the subject of any of them");
    assert!(server.all("/v1/tenants/acme/deliveries?subject=u9").is_empty());
    assert_eq!(to.count(), 2);
}

#[test]
fn a_batch_goes_when_its_age_has_come_or_its_bytes_are_full() {
    let to = receiver();
    let (server, _) = set_up(&to, json!({"max_wait_ms": 200}), json!({}));
    let events = publish(&server, 2);
    assert_eq!(ids_in(&to.wait_for_blocking(1)[0].json()), events);
    server.wait_settled("acme");

    let to = receiver();
    let (server, _) = set_up(&to, json!({"max_wait_ms": LONG, "max_bytes": 1_024}), json!({}));
    let publish = |size: usize| server.publish("acme", "user.changed", json!("x".repeat(size)));
    let (alone, with, full, huge) = (publish(600), publish(500), publish(520), publish(3_000));
    let mut batches: Vec<_> = to.wait_for_blocking(3).iter().map(|request| ids_in(&request.json())).collect();
    batches.sort_unstable();
    let mut expected = vec![vec![alone], vec![with, full], vec![huge]];
    expected.sort_unstable();
    assert_eq!(batches, expected, "closed before what would be too much, or when it is full");
}

#[test]
fn an_urgent_event_takes_its_batch_with_it_at_once() {
    let to = receiver();
    let (server, _) = set_up(&to, json!({"max_wait_ms": LONG}), json!({}));
    let mut events = publish(&server, 2);
    assert_eq!(to.count(), 0);
    let urgent = json!({"type": "user.changed", "urgency": "urgent", "data": 1});
    events.push(text(&server.publish_event("acme", urgent), "id"));
    assert_eq!(ids_in(&to.wait_for_blocking(1)[0].json()), events);
}

#[test]
fn a_cloudevents_batch_has_the_batch_content_type() {
    let to = receiver();
    let (server, _) = set_up(&to, json!({"max_events": 2, "max_wait_ms": LONG}), json!({"profile": "cloudevents"}));
    let events = publish(&server, 2);
    let request = to.wait_for_blocking(1).remove(0);
    let content_type = request.header("content-type").unwrap_or_default().to_owned();
    assert!(content_type.starts_with("application/cloudevents-batch+json"), "{content_type}");
    let body = request.json();
    let ids: Vec<_> = body.as_array().expect("a list").iter().map(|event| text(event, "id")).collect();
    assert_eq!(ids, events);
}

#[test]
fn ordered_batches_go_one_after_the_other() {
    let to = receiver();
    to.next([Script::status(503), Script::status(503)]);
    let (server, _) = set_up(&to, json!({"max_events": 2, "max_wait_ms": LONG}), json!({"ordering": "webhook"}));
    let events = publish(&server, 8);
    server.wait_settled("acme");
    let order: Vec<_> = to.received().iter().map(|request| ids_in(&request.json())).collect();
    let expected: Vec<_> = [0, 0, 0, 1, 2, 3].iter().map(|batch| events[2 * batch..2 * batch + 2].to_vec()).collect();
    assert_eq!(order, expected);
}

#[test]
fn a_change_of_the_webhook_begins_a_new_batch_and_null_ends_batching() {
    let to = receiver();
    let (server, hook) = set_up(&to, json!({"max_events": 3, "max_wait_ms": 1_000}), json!({}));
    let path = format!("/v1/tenants/acme/webhooks/{}", text(&hook, "id"));
    let mut before = publish(&server, 1);
    server.patch(&path, json!({"name": "another"})).expect(200);
    let after = publish(&server, 1);
    assert_eq!(ids_in(&to.wait_for_blocking(1)[0].json()), before, "one revision each");
    let shown = server.patch(&path, json!({"batch": null})).expect(200).json();
    assert_eq!(shown["batch"], Value::Null);
    before = publish(&server, 1);
    let requests = to.wait_for_blocking(3);
    let single = requests.iter().find(|r| r.header("gatepost-event-id").is_some()).expect("a single event");
    assert_eq!((text(&single.json(), "id"), &single.json()["data"]), (before.remove(0), &json!({"n": 0})));
    let last = requests.iter().filter(|r| r.header("gatepost-event-id").is_none()).nth(1).expect("the open batch");
    assert_eq!(ids_in(&last.json()), after, "closed by its age");
}

#[test]
fn a_disabled_webhooks_open_batch_is_held_and_goes_once_it_is_enabled() {
    let to = receiver();
    let (server, hook) = set_up(&to, json!({"max_wait_ms": 1_000}), json!({}));
    let path = format!("/v1/tenants/acme/webhooks/{}", text(&hook, "id"));
    let events = publish(&server, 2);
    server.patch(&path, json!({"enabled": false})).expect(200);
    let row = server.deliveries_of("acme", &events[1]).remove(0);
    assert_eq!((&row["state"], &row["reason"]), (&json!("held"), &json!("webhook_disabled")));
    server.patch(&path, json!({"enabled": true})).expect(200);
    assert_eq!(ids_in(&to.wait_for_blocking(1)[0].json()), events);

    let opened = publish(&server, 1);
    let id = text(&server.deliveries_of("acme", &opened[0])[0], "id");
    server.delete(&path).expect(204);
    let view = server.delivery("acme", &id);
    assert_eq!((&view["state"], &view["reason"]), (&json!("cancelled"), &json!("webhook_deleted")));
}

#[test]
fn a_retry_by_hand_sends_the_same_batch_again() {
    let to = receiver();
    let (server, _) = set_up(&to, json!({"max_events": 2, "max_wait_ms": LONG}), json!({}));
    publish(&server, 2);
    let first = to.wait_for_blocking(1).remove(0);
    let id = delivery_id(&first).to_owned();
    server.wait_delivery("acme", &id, "delivered");
    server.post(&format!("/v1/tenants/acme/deliveries/{id}/retry"), ()).expect(202);
    let again = to.wait_for_blocking(2).remove(1);
    assert_eq!((&again.body, again.header("gatepost-attempt")), (&first.body, Some("2")));
    assert_eq!(
        again.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("webhook-id")).map(|h| &*h.1),
        Some(&*id)
    );
}

#[test]
fn p1_an_open_batch_outlives_a_crash_and_is_closed_by_its_age() {
    let to = receiver();
    let (mut server, _) = set_up(&to, json!({"max_wait_ms": 3_000}), json!({}));
    let events = publish(&server, 3);
    server.kill9();
    assert_eq!(to.count(), 0, "killed while it was open");
    server.restart();
    assert_eq!(ids_in(&to.wait_for_blocking(1)[0].json()), events);
    server.wait_settled("acme");
}

#[test]
fn p3_a_batch_killed_between_its_attempts_goes_out_with_the_same_bytes() {
    let to = receiver();
    to.script(Script::status(503));
    let (mut server, _) = set_up(&to, json!({"max_events": 3, "max_wait_ms": LONG}), json!({}));
    let events = publish(&server, 3);
    to.wait_for_blocking(2);
    server.kill9();
    to.script(Script::status(200));
    server.restart();
    // More of the same webhook join another batch.
    publish(&server, 3);
    server.wait_settled("acme");
    let requests: Vec<_> = to.received().into_iter().filter(|r| ids_in(&r.json()) == events).collect();
    assert!(requests.len() >= 3);
    for request in &requests {
        assert_eq!((&request.body, delivery_id(request)), (&requests[0].body, delivery_id(&requests[0])));
    }
}

#[test]
fn what_is_no_batch_is_refused_with_its_pointer() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    for (body, pointer) in [
        (json!({"batch": {"max_events": 0}}), "/batch/max_events"),
        (json!({"batch": {"max_wait_ms": -1}}), "/batch/max_wait_ms"),
        (json!({"batch": {"max_bytes": "1"}}), "/batch/max_bytes"),
        (json!({"batch": {"max_age": 1}}), "/batch/max_age"),
        (json!({"batch": 5}), "/batch"),
        (json!({"batch": {}, "ordering": "subject"}), "/batch"),
        (json!({"batch": {}, "profile": "cryptr"}), "/batch"),
    ] {
        let reply = server.post("/v1/tenants/acme/webhooks", webhook_body("https://example.com/in", body.clone()));
        findings.problem(&body, &reply, 422, "validation_failed", &[pointer]);
    }
    findings.none();
    let hook = server.create_webhook("acme", "http://127.0.0.1:9/", json!({"batch": {}}));
    assert_eq!(hook["batch"], json!({"max_events": 100, "max_wait_ms": 1_000, "max_bytes": 262_144}), "the defaults");
}
