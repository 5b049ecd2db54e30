//! P2: every matched delivery is attempted until a named terminal state; a duplicate follows only an
//! attempt whose outcome we could not know, and carries the same ids.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gatepost_testkit::{Received, Receiver, Script};
use serde_json::json;

use crate::harness::{Server, receiver, signal, text};

fn ids(request: &Received) -> (String, String, String) {
    let header = |name: &str| request.header(name).unwrap_or_else(|| panic!("no {name}: {request:?}")).to_owned();
    (header("webhook-id"), header("gatepost-delivery-id"), header("gatepost-event-id"))
}

#[test]
fn p2_killed_while_the_receiver_is_down_it_arrives_after_the_restart() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let (addr, url) = (inbox.addr(), inbox.url("/in"));
    drop(inbox);
    server.webhook("acme", &url, json!({"retry": {"waits": vec![0.1; 32], "jitter": 0}}));
    let event = server.publish("acme", "user.created", json!({"n": 1}));
    let delivery = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &delivery, "an attempt", |d| d["attempts"].as_u64() >= Some(1));
    server.kill9();
    let inbox = Receiver::builder().bind(addr).start_on_thread();
    server.restart();
    let arrived = inbox.wait_for_blocking(1);
    assert_eq!(ids(&arrived[0]), (event.clone(), delivery.clone(), event));
    let view = server.wait_delivery("acme", &delivery, "delivered");
    assert_eq!(view["attempt_list"][0]["outcome"], "connect", "{view:#}");
}

#[test]
fn p2_killed_with_attempts_under_way_and_events_waiting_all_arrive() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::Hang);
    server.webhook("acme", &inbox.url("/"), json!({"max_in_flight": 2, "timeout_ms": 60_000}));
    let events: Vec<String> = (0..20).map(|n| server.publish("acme", "user.created", json!({"n": n}))).collect();
    let begun = inbox.wait_for_blocking(2);
    server.kill9();
    inbox.script(Script::status(200));
    server.restart();
    server.wait_settled("acme");
    let mut times: HashMap<String, Vec<Received>> = HashMap::new();
    for request in inbox.received() {
        times.entry(ids(&request).0).or_default().push(request);
    }
    for event in &events {
        let mine = &times[event];
        let had_begun = begun.iter().any(|r| ids(r).0 == *event);
        assert_eq!(mine.len(), 1 + usize::from(had_begun), "{event}");
        // Our own crash is not an answer and uses up no attempt.
        for request in mine {
            assert_eq!(ids(request), ids(&mine[0]));
            assert_eq!(request.header("gatepost-attempt"), Some("1"));
            assert_eq!(request.body, mine[0].body);
        }
        let view = server.wait_event("acme", event, "delivered");
        assert_eq!((&view["attempts"], &view["reason"]), (&json!(1), &json!(null)));
    }
}

#[test]
fn p2_killed_after_the_answer_and_before_its_record_there_is_at_most_one_duplicate() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    server.webhook("acme", &inbox.url("/"), json!({"max_in_flight": 8}));
    // The 30th request kills the server, and is answered 200 all the same: nobody is left to read it.
    let pid = server.pid();
    let killed = Arc::new(AtomicBool::new(false));
    let (once, number_30) = (Arc::clone(&killed), 30);
    inbox.script(Script::with(move |request| {
        if request.number >= number_30 && !once.swap(true, Ordering::SeqCst) {
            signal(pid, "KILL");
        }
        Script::status(200)
    }));
    let mut client = server.client();
    let mut accepted = Vec::new();
    for n in 0..60 {
        let event = json!({"type": "user.created", "data": {"n": n}});
        match client.try_send("POST", "/v1/tenants/acme/events", &[], event) {
            Ok(reply) => accepted.push(text(&reply.expect(202).json(), "id")),
            Err(_) => break,
        }
    }
    server.wait_exit();
    let before = inbox.received();
    assert!(killed.load(Ordering::SeqCst) && before.len() >= number_30);
    server.restart();
    server.wait_settled("acme");
    let mut times: HashMap<String, Vec<Received>> = HashMap::new();
    for request in inbox.received() {
        times.entry(ids(&request).0).or_default().push(request);
    }
    for event in &accepted {
        let mine = times.get(event).unwrap_or_else(|| panic!("{event} never arrived"));
        assert!(mine.len() <= 2, "{event} arrived {} times", mine.len());
        assert!(mine.iter().all(|r| ids(r) == ids(&mine[0]) && r.body == mine[0].body));
        server.wait_event("acme", event, "delivered");
    }
    // Duplicates are what had not been recorded, not everything.
    let doubled = times.values().filter(|t| t.len() == 2).count();
    assert!((1..=before.len()).contains(&doubled), "the last answer cannot have been recorded: {doubled}");
}

#[test]
fn p2_a_budget_ends_in_one_state_and_a_retry_by_hand_opens_a_new_one() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::status(500));
    let hook = server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": [0.05, 0.05], "jitter": 0}}));
    let event = server.publish("acme", "user.created", json!({}));
    let view = server.wait_event("acme", &event, "failed");
    assert_eq!((&view["reason"], &view["attempts"]), (&json!("exhausted"), &json!(3)));
    assert_eq!(view["next_attempt_at"], json!(null));
    let delivery = text(&view, "id");
    let retry = format!("/v1/tenants/acme/deliveries/{delivery}/retry");

    // A new budget has all its attempts again; the first of them is the manual one.
    let retried = server.post(&retry, ()).expect(202).json();
    assert_eq!(retried["id"], view["id"]);
    let view = server.wait_delivery_where("acme", &delivery, "the end of the second budget", |d| {
        d["state"] == "failed" && d["attempts"] == 6
    });
    let triggers: Vec<&str> =
        view["attempt_list"].as_array().unwrap().iter().map(|a| a["trigger"].as_str().unwrap()).collect();
    assert_eq!(triggers, ["scheduled", "scheduled", "scheduled", "manual", "scheduled", "scheduled"]);
    let numbers: Vec<u64> =
        view["attempt_list"].as_array().unwrap().iter().map(|a| a["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(inbox.count(), 6);

    // Delivered in the third budget; and a delivered one can be sent again.
    inbox.script(Script::status(200));
    for times in [7, 8] {
        server.post(&retry, ()).expect(202);
        let view = server.wait_delivery_where("acme", &delivery, "delivery", |d| {
            d["state"] == "delivered" && d["attempts"] == times
        });
        assert_eq!(view["reason"], json!(null));
    }
    let arrived = inbox.received();
    assert!(arrived.iter().all(|r| ids(r) == ids(&arrived[0]) && r.body == arrived[0].body));
    assert_eq!(arrived.last().unwrap().header("gatepost-attempt"), Some("8"));

    server.patch(&format!("/v1/tenants/acme/webhooks/{hook}"), json!({"enabled": false})).expect(200);
    server.post(&retry, ()).expect_problem(409, "webhook_disabled");
    server.delete(&format!("/v1/tenants/acme/webhooks/{hook}")).expect(204);
    server.post(&retry, ()).expect_problem(409, "webhook_deleted");
}

#[test]
fn p2_a_manual_retry_replaces_the_waiting_one() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.next([Script::status(500)]);
    inbox.script(Script::status(200));
    server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": [3600], "jitter": 0}}));
    let event = server.publish("acme", "user.created", json!({}));
    let delivery = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &delivery, "the first attempt", |d| d["attempts"] == 1);
    server.post(&format!("/v1/tenants/acme/deliveries/{delivery}/retry"), ()).expect(202);
    let view = server.wait_delivery("acme", &delivery, "delivered");
    assert_eq!((&view["attempts"], &view["next_attempt_at"]), (&json!(2), &json!(null)));
    assert_eq!(inbox.count(), 2);
}

#[test]
fn p2_an_outcome_recorded_before_a_crash_is_never_repeated() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    server.webhook("acme", &inbox.url("/"), json!({}));
    for n in 0..25 {
        server.publish("acme", "user.created", json!({"n": n}));
    }
    server.wait_settled("acme");
    server.kill9();
    server.restart();
    // One more goes the whole way: by then anything repeated would have been as well.
    let last = server.publish("acme", "user.created", json!({"n": "last"}));
    server.wait_event("acme", &last, "delivered");
    assert_eq!(inbox.count(), 26);
}
