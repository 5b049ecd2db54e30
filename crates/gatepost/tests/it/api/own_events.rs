//! Gatepost's own events: each once, to those who ask for them by name, never about their own failing.

use std::collections::BTreeMap;

use gatepost_testkit::{Received, Receiver, Script};
use serde_json::{Value, json};

use super::{column, members, reason};
use crate::harness::{Server, receiver, text, verify, wait_until};

/// The tenant's own events, oldest first.
fn told(server: &Server, tenant: &str) -> Vec<Value> {
    let mut all = server.all(&format!("/v1/tenants/{tenant}/events"));
    all.retain(|event| text(event, "type").starts_with("gatepost."));
    all.reverse();
    all
}

fn wait_told(server: &Server, tenant: &str, count: usize) -> Vec<Value> {
    wait_until(format!("{count} own events"), || {
        let all = told(server, tenant);
        assert!(all.len() <= count, "more than {count}: {:?}", column(&all, "type"));
        (all.len() == count).then_some(all)
    })
}

/// The types received, by how often.
fn types(received: &[Received]) -> BTreeMap<String, usize> {
    let mut types = BTreeMap::new();
    for request in received {
        *types.entry(text(&request.json(), "type")).or_default() += 1;
    }
    types
}

fn path(hook: &str) -> String {
    format!("/v1/tenants/acme/webhooks/{hook}")
}

#[test]
fn every_change_of_a_webhook_is_told_once_to_who_asks_by_name() {
    let server = Server::start();
    server.create_tenant("acme");
    let (family, webhooks, exact, all, named) = (receiver(), receiver(), receiver(), receiver(), receiver());
    let listen =
        |to: &Receiver, events: &[&str]| server.create_webhook("acme", &to.url("/"), json!({"events": events}));
    let first = listen(&family, &["gatepost.*"]);
    wait_told(&server, "acme", 1);
    listen(&webhooks, &["gatepost.webhook.all"]);
    listen(&exact, &["gatepost.secret.rotated", "gatepost.webhook.deleted"]);
    listen(&all, &["*"]);
    listen(&named, &["all"]);
    wait_told(&server, "acme", 5);

    let target = receiver();
    let hook =
        server.create_webhook("acme", &target.url("/"), json!({"events": ["user.*"], "headers": {"x-in": "hush"}}));
    let id = text(&hook, "id");
    server.patch(&path(&id), json!({"name": "renamed"})).expect(200);
    server.post(&format!("{}/rotate-secret", path(&id)), json!({})).expect(200);
    server.delete(&path(&id)).expect(204);
    let events = wait_told(&server, "acme", 9);
    let mine: Vec<_> = events.iter().filter(|event| event["data"]["id"] == hook["id"]).collect();
    assert_eq!(
        mine.iter().map(|event| text(event, "type")).collect::<Vec<_>>(),
        ["gatepost.webhook.created", "gatepost.webhook.updated", "gatepost.secret.rotated", "gatepost.webhook.deleted"]
    );
    assert_eq!(mine[0]["data"]["name"], hook["name"], "as it was then");
    assert_eq!(mine[1]["data"]["name"], "renamed");
    for event in &mine {
        assert_eq!(event["subject"], json!({"type": "webhook", "id": id}));
        let data = &event["data"];
        for secret in ["secret", "headers"] {
            assert!(data.get(secret).is_none(), "{data}");
        }
        assert!(!data.to_string().contains("hush") && !data.to_string().contains("whsec_"), "{data}");
    }

    // The family hears all from its own creation on; the others what they asked for; `*` and `all` nothing.
    let heard = family.wait_for_blocking(9);
    assert_eq!(heard[0].json()["data"]["id"], first["id"], "its own creation");
    verify(&text(&first, "secret"), &heard[0]);
    assert_eq!(types(&webhooks.wait_for_blocking(7)).get("gatepost.secret.rotated"), None);
    assert_eq!(
        types(&exact.wait_for_blocking(2)),
        BTreeMap::from([("gatepost.secret.rotated".to_owned(), 1), ("gatepost.webhook.deleted".to_owned(), 1)])
    );
    server.publish("acme", "user.created", json!({}));
    server.wait_settled("acme");
    for receiver in [&all, &named] {
        assert_eq!(types(&receiver.wait_for_blocking(1)), BTreeMap::from([("user.created".to_owned(), 1)]));
    }
    assert_eq!((family.count(), exact.count(), target.count()), (9, 2, 0));

    let event = server.event("acme", &text(mine[1], "id"));
    assert_eq!(reason(&event, &text(&first, "id")).as_deref(), Some("matched"));
}

#[test]
fn the_data_of_a_webhooks_event_are_the_webhook_as_it_is_shown() {
    let server = Server::start();
    server.create_tenant("acme");
    let body = json!({"filter": "type != ''", "retry": {"waits": [1]}, "description": "words", "timeout_ms": 900});
    let hook = server.create_webhook("acme", "http://127.0.0.1:9/x", body);
    let event = &wait_told(&server, "acme", 1)[0];
    let shown = server.get(&path(&text(&hook, "id"))).expect(200).json();
    let data = &event["data"];
    for member in members(data) {
        assert_eq!(data[member], shown[member], "{member}");
    }
    let not_told: Vec<_> = members(&shown).into_iter().filter(|member| data.get(member).is_none()).collect();
    assert_eq!(not_told, ["headers", "last_test", "public_key", "warnings"]);
    assert_eq!(event["timestamp"], shown["created_at"]);
}

#[test]
fn a_deleted_webhook_hears_of_its_own_deletion_and_of_nothing_else() {
    let server = Server::start();
    server.create_tenant("acme");
    let receiver = receiver();
    receiver.script(Script::status(500));
    let body = json!({"events": ["gatepost.webhook.deleted", "user.*"], "retry": {"waits": [0.2, 0.2, 600]}});
    let hook = server.webhook("acme", &receiver.url("/"), body);
    let event = server.publish("acme", "user.created", json!({}));
    let waiting = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &waiting, "three attempts", |view| view["attempts"] == 3);
    receiver.forget();
    server.delete(&path(&hook)).expect(204);
    server.get(&path(&hook)).expect_problem(404, "webhook_not_found");
    assert_eq!(server.delivery("acme", &waiting)["reason"], "webhook_deleted");

    // It fails at first and is tried again, like any other.
    let first = receiver.wait_for_blocking(1).remove(0);
    assert_eq!(text(&first.json(), "type"), "gatepost.webhook.deleted");
    assert_eq!(first.json()["data"]["id"], json!(hook));
    receiver.script(Script::status(204));
    let delivery = text(&server.all(&format!("/v1/tenants/acme/deliveries?webhook_id={hook}"))[0], "id");
    let done = server.wait_delivery("acme", &delivery, "delivered");
    assert_eq!(done["event_type"], "gatepost.webhook.deleted");
    assert!(done["attempt_list"][0]["request"]["url"].as_str().is_some_and(|url| url.starts_with(&receiver.url("/"))));
    assert!(receiver.received().iter().all(|r| text(&r.json(), "type") == "gatepost.webhook.deleted"));
    server.publish("acme", "user.created", json!({}));
    server.wait_settled("acme");
    assert_eq!(receiver.count(), done["attempts"].as_u64().unwrap_or_default() as usize);
}

#[test]
fn p2_the_farewell_of_a_deleted_webhook_survives_a_crash() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let receiver = receiver();
    receiver.script(Script::status(503));
    let body = json!({"events": ["gatepost.*"], "retry": {"waits": [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]}});
    let hook = server.webhook("acme", &receiver.url("/"), body);
    receiver.wait_for_blocking(1);
    server.delete(&path(&hook)).expect(204);
    server.kill9();
    receiver.script(Script::status(200));
    receiver.forget();
    server.restart();
    let heard = receiver.wait_for_blocking(1);
    assert_eq!(types(&heard), BTreeMap::from([("gatepost.webhook.deleted".to_owned(), heard.len())]));
    server.wait_settled("acme");
    let all = told(&server, "acme");
    assert_eq!(column(&all, "type"), ["gatepost.webhook.created", "gatepost.webhook.deleted"]);
}

#[test]
fn p6_giving_a_delivery_up_is_told_once_and_never_of_what_tells_it() {
    let server = Server::start();
    server.create_tenant("acme");
    let (good, bad, deaf) = (receiver(), receiver(), receiver());
    bad.script(Script::status(500));
    deaf.script(Script::status(500));
    let once = json!({"waits": []});
    server.webhook("acme", &good.url("/"), json!({"events": ["gatepost.delivery.exhausted"]}));
    // Hears of everything, its own failing included, and never takes it.
    server.webhook("acme", &deaf.url("/"), json!({"events": ["gatepost.*"], "retry": once}));
    let hook = server.webhook("acme", &bad.url("/"), json!({"events": ["user.*"], "retry": once}));
    let event = server
        .publish_event("acme", json!({"type": "user.created", "data": {}, "subject": {"type": "user", "id": "u1"}}));
    let delivery = server.delivery_of("acme", &text(&event, "id"));
    let ended = server.wait_delivery("acme", &delivery, "failed");
    let heard = good.wait_for_blocking(1).remove(0).json();
    assert_eq!(text(&heard, "type"), "gatepost.delivery.exhausted");
    // About the same person: what is known of one is found and erased together.
    assert_eq!(heard["subject"], json!({"type": "user", "id": "u1"}));
    let data = &heard["data"];
    assert_eq!(data["webhook_id"], json!(hook));
    for member in members(data) {
        assert_eq!(data[member], ended[member], "{member}");
    }
    server.wait_settled("acme");
    assert_eq!(good.count(), 1, "nothing is told of the failing of own events");
    assert_eq!(
        column(&told(&server, "acme"), "type").iter().filter(|t| *t == "gatepost.delivery.exhausted").count(),
        1
    );
    assert!(types(&deaf.received()).contains_key("gatepost.delivery.exhausted"));

    // A new budget, given up again, is another thing to tell.
    server.post(&format!("/v1/tenants/acme/deliveries/{delivery}/retry"), ()).expect(202);
    good.wait_for_blocking(2);
}

#[test]
fn own_events_are_in_the_feed_and_cannot_be_published() {
    let server = Server::start();
    server.create_tenant("acme");
    for event_type in ["gatepost.webhook.created", "gatepost.anything", "gatepost"] {
        let reply = server.post("/v1/tenants/acme/events", json!({"type": event_type, "data": {}}));
        assert_eq!(reply.expect_problem(422, "validation_failed").pointers(), ["/type"]);
    }
    let before = server.publish("acme", "user.created", json!({}));
    server.webhook("acme", "http://127.0.0.1:9/x", json!({}));
    let own = text(&wait_told(&server, "acme", 1)[0], "id");
    let after = server.publish("acme", "user.created", json!({}));
    let feed = server.get("/v1/tenants/acme/events?order=asc").expect(200).json();
    let ids = column(feed["data"].as_array().expect("a list"), "id");
    assert_eq!(ids, [before, own.clone(), after]);
    let by_type = server.all("/v1/tenants/acme/events?type=gatepost.webhook.created");
    assert_eq!(column(&by_type, "id"), [own]);
}

#[test]
fn p5_own_events_stay_with_their_tenant() {
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    let receiver = receiver();
    server.webhook("other", &receiver.url("/"), json!({"events": ["gatepost.*"]}));
    receiver.wait_for_blocking(1);
    server.webhook("acme", "http://127.0.0.1:9/x", json!({}));
    wait_told(&server, "acme", 1);
    assert_eq!(told(&server, "other").len(), 1);
    assert_eq!(receiver.count(), 1);
}

#[test]
fn p1_own_events_survive_a_crash_right_after_the_change_and_come_once() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let receiver = receiver();
    let listener = server.webhook("acme", &receiver.url("/"), json!({"events": ["gatepost.webhook.updated"]}));
    for round in 1..=8 {
        server.patch(&path(&listener), json!({"description": format!("round {round}")})).expect(200);
        server.kill9();
        server.restart();
    }
    let all = wait_told(&server, "acme", 9);
    let rounds: Vec<_> = all[1..].iter().map(|event| text(&event["data"], "description")).collect();
    assert_eq!(rounds, (1..=8).map(|n| format!("round {n}")).collect::<Vec<_>>());
    server.wait_settled("acme");
    let heard: std::collections::BTreeSet<_> = receiver.received().iter().map(|r| text(&r.json(), "id")).collect();
    assert_eq!(heard.len(), 8);
}
