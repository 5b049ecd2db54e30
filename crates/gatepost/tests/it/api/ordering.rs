//! Ordering (DESIGN 4.3, 4.4): one after the other, per subject or per webhook.

use gatepost_testkit::{Gate, Received, Receiver, Script};
use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Server, receiver, text};

/// A server with a tenant and a webhook of this ordering; its id.
fn set_up(ordering: &str, to: &Receiver, more: Value) -> (Server, String) {
    let server = Server::start();
    server.create_tenant("acme");
    let mut body = json!({"ordering": ordering, "retry": {"waits": vec![0.1; 32], "jitter": 0}});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let hook = server.create_webhook("acme", &to.url("/in"), body);
    assert_eq!(hook["ordering"], ordering);
    let id = text(&hook, "id");
    (server, id)
}

fn about(server: &Server, subject: &str, urgency: &str, number: usize) -> String {
    let mut event = json!({"type": "user.changed", "urgency": urgency, "data": {"n": number}});
    if !subject.is_empty() {
        event["subject"] = json!({"type": "user", "id": subject});
    }
    text(&server.publish_event("acme", event), "id")
}

fn id(request: &Received) -> &str {
    request.header("webhook-id").expect("signed as standard")
}

/// What a receiver got about one subject's events, first attempts and retries, as positions in `events`.
fn positions(received: &[Received], events: &[String]) -> Vec<usize> {
    received.iter().filter_map(|request| events.iter().position(|event| event == id(request))).collect()
}

#[test]
fn a_failing_delivery_holds_back_its_own_subject_and_nobody_else() {
    let to = receiver();
    to.script(Script::with(|request| {
        let anna = request.json()["subject"]["id"] == "anna";
        Script::status(if anna { 503 } else { 200 })
    }));
    let (server, _) = set_up("subject", &to, json!({}));
    let anna: Vec<_> = (0..3).map(|n| about(&server, "anna", "normal", n)).collect();
    let bert: Vec<_> = (0..3).map(|n| about(&server, "bert", "normal", n)).collect();
    let nobody = about(&server, "", "normal", 0);
    for event in bert.iter().chain([&nobody]) {
        server.wait_event("acme", event, "delivered");
    }
    let first = server.delivery_of("acme", &anna[0]);
    server.wait_delivery_where("acme", &first, "three attempts", |view| view["attempts"].as_u64() >= Some(3));
    assert_eq!(positions(&to.received(), &bert), [0, 1, 2]);
    assert!(positions(&to.received(), &anna).iter().all(|position| *position == 0), "the others wait");
    let waiting = server.deliveries_of("acme", &anna[2]).remove(0);
    assert_eq!(
        (&waiting["state"], &waiting["next_attempt_at"], &waiting["attempts"]),
        (&json!("pending"), &Value::Null, &json!(0))
    );

    to.script(Script::status(204));
    for event in &anna {
        server.wait_event("acme", event, "delivered");
    }
    let order = positions(&to.received(), &anna);
    assert!(order.is_sorted() && order.ends_with(&[1, 2]), "{order:?}");
}

#[test]
fn under_webhook_everything_goes_strictly_one_after_the_other() {
    let to = receiver();
    let (server, _) = set_up("webhook", &to, json!({"max_in_flight": 32}));
    let gate = Gate::new();
    to.next([Script::status(503), Script::status(200).behind(&gate)]);
    let events: Vec<Value> =
        (0..20).map(|n| json!({"type": "user.changed", "subject": {"id": format!("u{n}")}, "data": n})).collect();
    let answer = server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202).json();
    let ids: Vec<String> = answer["events"].as_array().expect("a list").iter().map(|e| text(e, "id")).collect();
    to.wait_for_blocking(2);
    assert_eq!(positions(&to.received(), &ids), [0, 0], "the second attempt of the first, and nothing beside it");
    gate.open();
    server.wait_settled("acme");
    let mut expected = vec![0];
    expected.extend(0..20);
    assert_eq!(positions(&to.received(), &ids), expected);
}

#[test]
fn the_end_of_the_first_of_any_kind_lets_the_next_go() {
    let to = receiver();
    to.script(Script::with(|request| {
        Script::status(match request.json()["data"]["n"].as_u64() {
            Some(0) => 400,
            Some(1) => 503,
            _ => 200,
        })
    }));
    let retry = json!({"waits": vec![0.1; 32], "jitter": 0, "retry_on": ["5xx"]});
    let (server, _) = set_up("subject", &to, json!({"retry": retry}));
    let events: Vec<_> = (0..4).map(|n| about(&server, "anna", "normal", n)).collect();
    let rejected = server.wait_event("acme", &events[0], "failed");
    assert_eq!(rejected["reason"], "rejected");
    // The second fails for as long as it may: cancelling it lets the third go.
    let second = server.delivery_of("acme", &events[1]);
    server.wait_delivery_where("acme", &second, "an attempt", |view| view["attempts"].as_u64() >= Some(1));
    server.post(&format!("/v1/tenants/acme/deliveries/{second}/cancel"), ()).expect(200);
    for event in &events[2..] {
        server.wait_event("acme", event, "delivered");
    }
}

#[test]
fn a_retry_by_hand_goes_to_the_end_of_its_queue() {
    let to = receiver();
    let (server, _) = set_up("subject", &to, json!({}));
    let delivered = about(&server, "anna", "normal", 0);
    server.wait_event("acme", &delivered, "delivered");
    to.script(Script::status(503));
    let (first, second) = (about(&server, "anna", "normal", 1), about(&server, "anna", "normal", 2));
    let head = server.delivery_of("acme", &first);
    server.wait_delivery_where("acme", &head, "an attempt", |view| view["attempts"].as_u64() >= Some(1));
    let again = server.delivery_of("acme", &delivered);
    let row = server.post(&format!("/v1/tenants/acme/deliveries/{again}/retry"), ()).expect(202).json();
    assert_eq!((&row["state"], &row["next_attempt_at"]), (&json!("pending"), &Value::Null), "it waits its turn");
    let before = to.count();
    to.script(Script::status(200));
    server.wait_delivery_where("acme", &again, "the retry", |view| {
        view["attempts"].as_u64() == Some(2) && view["state"] == "delivered"
    });
    let order = positions(&to.received()[before..], &[first, second, delivered]);
    assert!(order.is_sorted() && order.ends_with(&[1, 2]), "{order:?}");
    assert_eq!(server.delivery("acme", &again)["attempt_list"][1]["trigger"], "manual");
}

#[test]
fn the_first_is_as_urgent_as_what_waits_behind_it() {
    let to = receiver();
    // One request at a time, so that what goes next is a choice.
    let (server, _) = set_up("subject", &to, json!({"max_in_flight": 1}));
    let gate = Gate::new();
    to.next([Script::status(200).behind(&gate)]);
    about(&server, "carl", "normal", 0);
    to.wait_for_blocking(1);
    let events: Vec<Value> = (0..300).map(|n| json!({"type": "user.changed", "data": n})).collect();
    server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202);
    let anna = [("bulk", 1), ("bulk", 2), ("urgent", 3)].map(|(urgency, n)| about(&server, "anna", urgency, n));
    gate.open();
    server.wait_settled("acme");
    let order: Vec<_> = to.received().iter().map(|request| id(request).to_owned()).collect();
    let at: Vec<_> = anna.iter().map(|event| order.iter().position(|id| id == event).expect("sent")).collect();
    assert!(at.is_sorted(), "ordering outranks urgency: {at:?}");
    assert!(at[2] < 150, "bulk ones that hold up an urgent one go before normal ones: {at:?}");
}

#[test]
fn a_queue_outlives_disabling_and_a_change_of_the_ordering() {
    let to = receiver();
    to.script(Script::status(503));
    let (server, hook) = set_up("subject", &to, json!({"retry": {"waits": vec![1; 32], "jitter": 0}}));
    let path = format!("/v1/tenants/acme/webhooks/{hook}");
    let events: Vec<_> = (0..3).map(|n| about(&server, "anna", "normal", n)).collect();
    to.wait_for_blocking(1);
    server.patch(&path, json!({"enabled": false})).expect(200);
    let first = server.delivery_of("acme", &events[0]);
    server.wait_delivery_where("acme", &first, "its record", |view| view["attempts"].as_u64() >= Some(1));
    for event in &events {
        let row = server.deliveries_of("acme", event).remove(0);
        assert_eq!((&row["state"], &row["reason"]), (&json!("held"), &json!("webhook_disabled")));
    }
    to.script(Script::status(204));
    let answer = server.patch(&path, json!({"enabled": true, "ordering": "none"})).expect(200).json();
    assert_eq!(answer["ordering"], "none");
    for event in &events {
        server.wait_event("acme", event, "delivered");
    }
    let order = positions(&to.received(), &events);
    assert!(order.is_sorted(), "what was accepted under an order keeps it: {order:?}");
}

#[test]
fn a_queue_outlives_a_crash() {
    let to = receiver();
    to.script(Script::status(503));
    let (mut server, _) = set_up("subject", &to, json!({}));
    let events: Vec<_> = (0..6).map(|n| about(&server, ["anna", "bert"][n % 2], "normal", n)).collect();
    to.wait_for_blocking(2);
    server.kill9();
    to.script(Script::status(204));
    server.restart();
    server.wait_settled("acme");
    for subject in 0..2 {
        let mine: Vec<_> = events.iter().skip(subject).step_by(2).cloned().collect();
        let order = positions(&to.received(), &mine);
        assert!(order.is_sorted() && order.ends_with(&[1, 2]), "{order:?}");
    }
}

#[test]
fn only_the_three_words_are_taken() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    for bad in [json!("subjects"), json!(1), json!({}), json!(true)] {
        let body = crate::harness::webhook_body("https://example.com/in", json!({"ordering": bad}));
        let reply = server.post("/v1/tenants/acme/webhooks", body);
        findings.problem(&bad, &reply, 422, "validation_failed", &["/ordering"]);
    }
    findings.none();
    let to = receiver();
    let hook = server.create_webhook("acme", &to.url("/"), json!({}));
    assert_eq!(hook["ordering"], "none", "the default is shown");
    let path = format!("/v1/tenants/acme/webhooks/{}", text(&hook, "id"));
    let shown = server.patch(&path, json!({"ordering": "webhook"})).expect(200).json();
    assert_eq!(shown["ordering"], "webhook");
    let shown = server.patch(&path, json!({"ordering": null})).expect(200).json();
    assert_eq!(shown["ordering"], "none", "null is the default");
}
