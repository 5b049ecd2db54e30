//! Verification: how an endpoint proves that it wants what it gets, and what that decides.

use gatepost_testkit::{Receiver, Script};
use serde_json::{Value, json};

use super::reason;
use crate::harness::{Options, Server, receiver, text, verify, wait_until};

fn path(hook: &str) -> String {
    format!("/v1/tenants/acme/webhooks/{hook}")
}

fn shown(server: &Server, hook: &str) -> Value {
    server.get(&path(hook)).expect(200).json()
}

/// Asks for a verification; its answer.
fn ask(server: &Server, hook: &str) -> Value {
    server.post(&format!("{}/verify", path(hook)), ()).expect(200).json()
}

/// Whether an event published now goes to the webhook, and what the trace says.
fn matched(server: &Server, hook: &str) -> (bool, String) {
    let event = server.publish("acme", "user.created", json!({}));
    let event = server.event("acme", &event);
    let why = reason(&event, hook).expect("the webhook is in the trace");
    (event["deliveries"].as_array().expect("a list").iter().any(|d| d["webhook_id"] == json!(hook)), why)
}

fn acme() -> Server {
    let server = Server::start();
    server.create_tenant("acme");
    server
}

fn requiring(server: &Server, to: &Receiver, mode: &str) -> Value {
    let body = json!({"verification": {"mode": mode, "required": true}, "headers": {"x-own": "hush"}});
    server.create_webhook("acme", &to.url("/in"), body)
}

#[test]
fn nothing_required_is_verified_and_creating_never_calls_out() {
    let server = acme();
    let receiver = receiver();
    let plain = server.create_webhook("acme", &receiver.url("/"), json!({}));
    assert_eq!(plain["verified"], true);
    assert_eq!(
        plain["verification"],
        json!({"mode": "none", "required": false, "verified_at": null, "last_error": null})
    );
    let asked = requiring(&server, &receiver, "post");
    assert_eq!((&asked["verified"], &asked["verification"]["required"]), (&json!(false), &json!(true)));
    server.patch(&path(&text(&asked, "id")), json!({"name": "changed"})).expect(200);
    assert_eq!(receiver.count(), 0);
}

#[test]
fn post_is_a_signed_ping_and_any_2xx_passes() {
    let server = acme();
    let receiver = receiver();
    let hook = requiring(&server, &receiver, "post");
    let id = text(&hook, "id");
    assert_eq!(matched(&server, &id), (false, "unverified".to_owned()));

    receiver.next([Script::status(404).body("who?")]);
    let answer = ask(&server, &id);
    assert_eq!(answer["verified"], false);
    let step = &answer["transcript"][0];
    assert_eq!((&step["method"], &step["status"]), (&json!("POST"), &json!(404)));
    assert_eq!(step["request"]["url"], receiver.url("/in"));
    assert_eq!(step["request"]["headers"]["x-own"], "***");
    assert_eq!(step["response"]["body"], "who?");
    assert!(!answer.to_string().contains("hush"), "{answer}");
    let now = shown(&server, &id);
    assert_eq!((&now["verified"], &now["verification"]["verified_at"]), (&json!(false), &Value::Null));
    assert!(text(&now["verification"], "last_error").contains("404"), "{now}");
    assert_eq!(matched(&server, &id).1, "unverified");

    receiver.next([Script::status(202)]);
    let answer = ask(&server, &id);
    assert_eq!((&answer["verified"], &answer["error"]), (&json!(true), &Value::Null));
    let ping = receiver.received().pop().expect("a ping");
    assert_eq!(text(&ping.json(), "type"), "gatepost.ping");
    assert_eq!(ping.header("x-own"), Some("hush"));
    verify(&text(&hook, "secret"), &ping);
    let now = shown(&server, &id);
    assert_eq!(now["verified"], true);
    assert!(now["verification"]["verified_at"].is_string() && now["verification"]["last_error"].is_null(), "{now}");
    assert_eq!(matched(&server, &id), (true, "matched".to_owned()));
    // Nothing of it is an event or a delivery of the tenant's.
    assert!(server.all("/v1/tenants/acme/events?type=gatepost.ping").is_empty());
    let verified = || server.all("/v1/tenants/acme/events?type=gatepost.webhook.verified");
    wait_until("the event", || (verified().len() == 1).then_some(()));
    ask(&server, &id);
    assert_eq!(verified().len(), 1, "it was verified already");
}

#[test]
fn options_is_the_handshake_of_cloudevents() {
    let server = acme();
    let receiver = receiver();
    let hook = requiring(&server, &receiver, "options");
    let id = text(&hook, "id");
    let host = server.addr().ip().to_string();
    for (script, verified) in [
        (Script::status(200), false),
        (Script::status(200).header("WebHook-Allowed-Origin", "elsewhere.example"), false),
        (Script::status(405).header("WebHook-Allowed-Origin", "*"), false),
        (Script::status(200).header("WebHook-Allowed-Origin", &host), true),
        (Script::status(204).header("webhook-allowed-origin", "*"), true),
    ] {
        receiver.next([script.clone()]);
        let answer = ask(&server, &id);
        assert_eq!(answer["verified"], verified, "{script:?} {answer:#}");
    }
    let asked = receiver.received().remove(0);
    assert_eq!((asked.method.as_str(), asked.header("webhook-request-origin")), ("OPTIONS", Some(host.as_str())));
    assert_eq!(asked.header("x-own"), Some("hush"));
    assert_eq!(shown(&server, &id)["verified"], true);
    assert_eq!(matched(&server, &id).1, "matched");
}

#[test]
fn a_change_of_url_or_headers_ends_a_verification_and_what_waits_is_held() {
    let server = acme();
    let (one, two) = (receiver(), receiver());
    one.script(Script::status(500));
    let body =
        json!({"verification": {"mode": "post", "required": true}, "retry": {"waits": [1, 1, 1, 1, 1, 1, 1, 1, 1]}});
    let hook = server.create_webhook("acme", &one.url("/"), body);
    let id = text(&hook, "id");
    one.next([Script::status(200)]);
    assert_eq!(ask(&server, &id)["verified"], true);
    let event = server.publish("acme", "user.created", json!({}));
    let delivery = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &delivery, "an attempt", |view| view["attempts"].as_u64() >= Some(1));

    server.patch(&path(&id), json!({"name": "still the same endpoint"})).expect(200);
    assert_eq!(shown(&server, &id)["verified"], true);
    server.patch(&path(&id), json!({"url": two.url("/")})).expect(200);
    assert_eq!(shown(&server, &id)["verified"], false);
    let held = server.wait_delivery("acme", &delivery, "held");
    assert_eq!((&held["reason"], &held["next_attempt_at"]), (&json!("unverified"), &Value::Null));
    assert_eq!(matched(&server, &id).1, "unverified");
    assert_eq!(two.count(), 0);
    assert_eq!(ask(&server, &id)["verified"], true);
    let done = server.wait_delivery("acme", &delivery, "delivered");
    assert_eq!(done["event_ids"], json!([event]));

    for change in [json!({"headers": {"x-new": "v"}}), json!({"auth": {"type": "bearer", "token": "a-long-token-1"}})] {
        assert_eq!(shown(&server, &id)["verified"], true);
        server.patch(&path(&id), change.clone()).expect(200);
        assert_eq!(shown(&server, &id)["verified"], false, "{change}");
        assert_eq!(ask(&server, &id)["verified"], true);
    }
    // What is echoed is no change.
    let echo = shown(&server, &id);
    server.patch(&path(&id), json!({"headers": echo["headers"], "auth": echo["auth"]})).expect(200);
    assert_eq!(shown(&server, &id)["verified"], true);
}

#[test]
fn p4_the_tenants_setting_counts_for_all_from_its_answer_on() {
    let mut server = acme();
    let receiver = receiver();
    let hook = server.webhook("acme", &receiver.url("/"), json!({"events": ["user.*"]}));
    let waiting = {
        receiver.script(Script::status(500));
        let body = json!({"retry": {"waits": [600]}, "events": ["group.*"]});
        let slow = server.webhook("acme", &receiver.url("/slow"), body);
        let event = server.publish("acme", "group.changed", json!({}));
        let delivery = server.delivery_of("acme", &event);
        server.wait_delivery_where("acme", &delivery, "an attempt", |view| view["attempts"] == 1);
        (slow, delivery)
    };
    receiver.script(Script::status(204));
    let set = |server: &Server, required: bool| {
        server.put("/v1/tenants/acme", json!({"settings": {"require_verification": required}})).expect(200);
    };
    let before = server.publish("acme", "user.created", json!({}));
    for _ in 0..3 {
        set(&server, true);
        assert_eq!(matched(&server, &hook), (false, "unverified".to_owned()));
        assert_eq!(shown(&server, &hook)["verified"], false);
        assert_eq!(server.delivery("acme", &waiting.1)["reason"], "unverified");
        set(&server, false);
        assert_eq!(matched(&server, &hook), (true, "matched".to_owned()));
        assert_eq!(server.delivery("acme", &waiting.1)["state"], "pending");
    }
    set(&server, true);
    // The trace tells it as it was then.
    assert_eq!(reason(&server.event("acme", &before), &hook).as_deref(), Some("matched"));
    server.kill9();
    server.restart();
    assert_eq!(matched(&server, &hook).1, "unverified");
    assert_eq!(ask(&server, &hook)["verified"], true);
    assert_eq!(matched(&server, &hook).1, "matched");
    assert_eq!(server.delivery("acme", &waiting.1)["reason"], "unverified", "the other one is not");
    // Lifting it lets go what was held, due or not yet.
    set(&server, false);
    assert_eq!(server.delivery("acme", &waiting.1)["state"], "pending");
}

#[test]
fn what_was_held_for_the_setting_goes_out_when_it_is_lifted() {
    let mut server = acme();
    let receiver = receiver();
    receiver.script(Script::status(503));
    let hook =
        server.webhook("acme", &receiver.url("/"), json!({"retry": {"waits": [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]}}));
    let event = server.publish("acme", "user.created", json!({}));
    let delivery = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &delivery, "an attempt", |view| view["attempts"].as_u64() >= Some(1));
    server.put("/v1/tenants/acme", json!({"settings": {"require_verification": true}})).expect(200);
    assert_eq!(server.delivery("acme", &delivery)["state"], "held");
    receiver.script(Script::status(200));
    // A lane that knows nothing of the webhook finds what is owed.
    server.kill9();
    server.restart();
    receiver.forget();
    server.put("/v1/tenants/acme", json!({"settings": {"require_verification": false}})).expect(200);
    server.wait_delivery("acme", &delivery, "delivered");
    assert_eq!(shown(&server, &hook)["verified"], true);
}

#[test]
fn a_test_works_on_disabled_and_unverified_webhooks_and_verifies_nothing() {
    let server = acme();
    let receiver = receiver();
    let hook = text(&requiring(&server, &receiver, "post"), "id");
    server.patch(&path(&hook), json!({"enabled": false})).expect(200);
    let tested = server.post(&format!("{}/test", path(&hook)), json!({})).expect(200).json();
    assert_eq!(tested["delivered"], true);
    let now = shown(&server, &hook);
    assert_eq!((&now["verified"], &now["enabled"]), (&json!(false), &json!(false)));
    // Verifying works on a disabled one too, and enables nothing.
    assert_eq!(ask(&server, &hook)["verified"], true);
    assert_eq!(shown(&server, &hook)["enabled"], false);
    assert_eq!(matched(&server, &hook).1, "disabled");
}

#[test]
fn p8_a_verification_reaches_no_address_outside_the_policy() {
    let mut server = acme();
    let receiver = receiver();
    for mode in ["post", "options"] {
        let body = json!({"verification": {"mode": mode, "required": true}});
        let hook = server.webhook("acme", "https://127.0.0.1.nip.invalid/x", body);
        let answer = ask(&server, &hook);
        assert_eq!(answer["verified"], false);
        assert!(answer["transcript"][0]["status"].is_null(), "{answer:#}");
    }
    // What was allowed when it was registered is judged again at every call.
    let hooks = ["post", "options"].map(|mode| text(&requiring(&server, &receiver, mode), "id"));
    server.restart_with(Options::default().env("GATEPOST_ALLOW_NETS", "10.9.8.0/24"));
    for hook in hooks {
        let answer = ask(&server, &hook);
        assert_eq!(answer["verified"], false);
        assert_eq!(answer["transcript"][0]["outcome"], "blocked_address", "{answer:#}");
        assert!(shown(&server, &hook)["verification"]["last_error"].is_string());
    }
    assert_eq!(receiver.count(), 0);
}

#[test]
fn verify_takes_no_members_and_knows_only_the_tenants_webhooks() {
    let server = acme();
    server.create_tenant("other");
    let foreign = server.webhook("other", "http://127.0.0.1:9/x", json!({}));
    let own = server.webhook("acme", "http://127.0.0.1:9/x", json!({}));
    server.post(&format!("{}/verify", path(&foreign)), ()).expect_problem(404, "webhook_not_found");
    let reply = server.post(&format!("{}/verify", path(&own)), json!({"mode": "post"}));
    assert_eq!(reply.expect_problem(422, "validation_failed").pointers(), ["/mode"]);
    let read = server.create_key(&["read"], Some("acme"));
    let mut reader = server.client_with(&read);
    reader.post(&format!("{}/verify", path(&own)), ()).expect_problem(403, "forbidden");
}
