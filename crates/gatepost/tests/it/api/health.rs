//! Health: how an endpoint fares, and when Gatepost gives it up.

use gatepost_testkit::Script;
use serde_json::{Value, json};

use super::{column, members};
use crate::harness::{Server, receiver, text, wait_until};

fn path(hook: &str) -> String {
    format!("/v1/tenants/acme/webhooks/{hook}")
}

fn shown(server: &Server, hook: &str) -> Value {
    server.get(&path(hook)).expect(200).json()
}

/// Waits until the health is as wanted, and gives it.
#[track_caller]
fn wait_health(server: &Server, hook: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_until(format!("health: {what}"), || {
        let health = shown(server, hook)["health"].clone();
        wanted(&health).then_some(health)
    })
}

fn told(server: &Server, name: &str) -> Vec<Value> {
    server.all(&format!("/v1/tenants/acme/events?type={name}"))
}

fn acme() -> Server {
    let server = Server::start();
    server.create_tenant("acme");
    server
}

#[test]
fn failing_and_recovered_are_seen_and_the_recovery_is_told_once() {
    let mut server = acme();
    let receiver = receiver();
    let hook = server.create_webhook("acme", &receiver.url("/"), json!({"retry": {"waits": []}}));
    let id = text(&hook, "id");
    let health = &hook["health"];
    assert_eq!(members(health), ["failure_24h", "last_error", "since", "state", "success_24h"]);
    assert_eq!(
        (&health["state"], &health["since"], &health["success_24h"], &health["failure_24h"], &health["last_error"]),
        (&json!("ok"), &hook["created_at"], &json!(0), &json!(0), &Value::Null)
    );
    server.publish("acme", "user.created", json!({}));
    wait_health(&server, &id, "a success", |health| health["success_24h"] == 1);

    receiver.script(Script::status(500));
    for _ in 0..3 {
        server.publish("acme", "user.created", json!({}));
    }
    let failing = wait_health(&server, &id, "three failures", |health| health["failure_24h"] == 3);
    assert_eq!(failing["state"], "failing");
    assert!(text(&failing, "last_error").contains("500"), "{failing}");
    assert_eq!(shown(&server, &id)["enabled"], true);

    // It survives a crash, and a list shows the same.
    server.kill9();
    server.restart();
    assert_eq!(shown(&server, &id)["health"], failing);
    assert_eq!(server.all("/v1/tenants/acme/webhooks")[0]["health"], failing);
    assert!(server.get("/metrics").text().contains("gatepost_webhooks_failing 1"));

    assert!(told(&server, "gatepost.webhook.recovered").is_empty());
    receiver.script(Script::status(204));
    for _ in 0..3 {
        server.publish("acme", "user.created", json!({}));
    }
    let well = wait_health(&server, &id, "well again", |health| health["success_24h"] == 4);
    assert_eq!((&well["state"], &well["failure_24h"]), (&json!("ok"), &json!(3)));
    assert_ne!(well["since"], failing["since"]);
    let recovered = wait_until("the event", || told(&server, "gatepost.webhook.recovered").pop());
    assert_eq!(recovered["data"]["id"], json!(id));
    server.publish("acme", "user.created", json!({}));
    wait_health(&server, &id, "one more", |health| health["success_24h"] == 5);
    assert_eq!(told(&server, "gatepost.webhook.recovered").len(), 1);
    assert!(server.get("/metrics").text().contains("gatepost_webhooks_failing 0"));
}

#[test]
fn a_single_failure_that_is_tried_again_is_no_failing() {
    let server = acme();
    let receiver = receiver();
    let hook = server.webhook("acme", &receiver.url("/"), json!({"retry": {"waits": [600]}}));
    receiver.next([Script::status(500)]);
    server.publish("acme", "user.created", json!({}));
    let health = wait_health(&server, &hook, "a failure", |health| health["failure_24h"] == 1);
    assert_eq!(health["state"], "ok");
}

#[test]
fn tests_and_verifications_touch_no_health() {
    let server = acme();
    let receiver = receiver();
    receiver.script(Script::status(500));
    let hook = server.webhook("acme", &receiver.url("/"), json!({}));
    for _ in 0..3 {
        server.post(&format!("{}/test", path(&hook)), json!({})).expect(200);
        server.post(&format!("{}/verify", path(&hook)), ()).expect(200);
    }
    receiver.script(Script::status(200));
    server.publish("acme", "user.created", json!({}));
    let health = wait_health(&server, &hook, "a success", |health| health["success_24h"] == 1);
    assert_eq!(
        (&health["state"], &health["failure_24h"], &health["last_error"]),
        (&json!("ok"), &json!(0), &Value::Null)
    );
}

#[test]
fn p6_a_410_disables_with_a_word_and_survives_a_crash() {
    let mut server = acme();
    let (receiver, tenant) = (receiver(), receiver());
    server.webhook("acme", &tenant.url("/"), json!({"events": ["gatepost.webhook.*"]}));
    let hook = server.webhook("acme", &receiver.url("/"), json!({}));
    receiver.script(Script::status(410));
    let event = server.publish("acme", "user.created", json!({}));
    let gone = server.wait_event("acme", &event, "failed");
    assert_eq!(gone["reason"], "gone");
    // The outcome and the disabling are one: there is no moment at which only one of them is there.
    server.kill9();
    let now = {
        server.restart();
        shown(&server, &hook)
    };
    assert_eq!((&now["enabled"], &now["health"]["state"]), (&json!(false), &json!("disabled")));
    let disabled = wait_until("the event", || told(&server, "gatepost.webhook.disabled").pop());
    assert_eq!(disabled["data"]["id"], json!(hook));
    assert_eq!(disabled["data"]["disabled_reason"], "gone");
    assert_eq!(disabled["data"]["health"]["state"], "disabled");
    server.publish("acme", "user.created", json!({}));
    server.wait_settled("acme");
    assert_eq!(receiver.count(), 1, "a disabled webhook is not matched");
    assert_eq!(told(&server, "gatepost.webhook.disabled").len(), 1, "told once");
    let heard = tenant.received();
    assert!(heard.iter().any(|r| r.json()["type"] == "gatepost.webhook.disabled"));
    assert!(server.get("/metrics").text().contains("gatepost_webhooks_disabled 1"));

    // Its owner enables it again, and it starts afresh.
    receiver.script(Script::status(204));
    server.patch(&path(&hook), json!({"enabled": true})).expect(200);
    let now = shown(&server, &hook);
    assert_eq!((&now["health"]["state"], &now["health"]["last_error"]), (&json!("ok"), &Value::Null));
    let event = server.publish("acme", "user.created", json!({}));
    server.wait_event("acme", &event, "delivered");
    assert!(told(&server, "gatepost.webhook.recovered").is_empty());
}

#[test]
fn a_webhook_its_owner_disabled_is_not_ill() {
    let server = acme();
    let hook = server.webhook("acme", "http://127.0.0.1:9/x", json!({"enabled": false}));
    assert_eq!(shown(&server, &hook)["health"]["state"], "ok");
    let all = server.all("/v1/tenants/acme/events");
    assert!(!column(&all, "type").iter().any(|name| name == "gatepost.webhook.disabled"));
}

#[test]
fn a_new_url_is_judged_afresh() {
    let server = acme();
    let receiver = receiver();
    receiver.script_path("/old", Script::status(500));
    let hook = server.webhook("acme", &receiver.url("/old"), json!({"retry": {"waits": []}}));
    for _ in 0..3 {
        server.publish("acme", "user.created", json!({}));
    }
    wait_health(&server, &hook, "failing", |health| health["failure_24h"] == 3);
    server.patch(&path(&hook), json!({"url": receiver.url("/new")})).expect(200);
    let health = shown(&server, &hook)["health"].clone();
    assert_eq!((&health["state"], &health["last_error"]), (&json!("ok"), &Value::Null));
}
