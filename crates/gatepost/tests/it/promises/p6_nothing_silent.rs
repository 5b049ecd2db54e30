//! P6: what matches nothing is visible; each delivery ends in exactly one named state; a caller is
//! told instead of anything being dropped.

use std::time::{Duration, UNIX_EPOCH};

use gatepost_testkit::{ClosedPort, Gate, Received, Script};
use serde_json::{Value, json};

use crate::harness::{Server, receiver, text, wait_until};

#[test]
fn p6_an_event_nobody_wants_is_kept_and_says_why() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let hooks = [
        ("no_pattern", json!({"events": ["group.*"]})),
        ("filter_false", json!({"filter": "data.plan == \"gold\""})),
        ("filter_error", json!({"filter": "data.nowhere.to_be.found == 1"})),
        ("disabled", json!({"enabled": false})),
    ];
    let hooks: Vec<(String, &str)> =
        hooks.into_iter().map(|(reason, over)| (server.webhook("acme", &inbox.url("/"), over), reason)).collect();
    let answer = server.publish_event("acme", json!({"type": "user.created", "data": {"plan": "lead"}}));
    assert_eq!(answer["deliveries"], 0);
    let later = server.webhook("acme", &inbox.url("/"), json!({}));
    let id = text(&answer, "id");
    let view = server.event("acme", &id);
    assert_eq!(view["deliveries"], json!([]));
    let trace = view["matching"].as_array().unwrap();
    let reason_of =
        |id: &str| trace.iter().find(|row| row["webhook_id"] == id).map(|row| (&row["matched"], &row["reason"]));
    for (hook, reason) in &hooks {
        assert_eq!(reason_of(hook), Some((&json!(false), &json!(reason))));
    }
    assert_eq!(reason_of(&later), Some((&json!(false), &json!("created_later"))));
    assert_eq!(server.all("/v1/tenants/acme/events?type=user.created")[0]["id"], id);
    assert_eq!(server.all("/v1/tenants/acme/events?order=asc&type=user.created")[0]["id"], id);
    // And one that is wanted says so.
    let wanted = server.publish("acme", "group.created", json!({"plan": "gold", "nowhere": {"to_be": {"found": 1}}}));
    let view = server.event("acme", &wanted);
    let matched = view["matching"].as_array().unwrap().iter().filter(|row| row["matched"] == true).count();
    assert_eq!(matched, 4, "{view:#}");
    assert_eq!(view["deliveries"].as_array().unwrap().len(), 4);
}

/// An answer, what the webhook says about retrying, and how the delivery ends.
struct Case {
    name: &'static str,
    answer: Script,
    retry: Value,
    state: &'static str,
    reason: Value,
    attempts: u32,
    enabled: bool,
}

#[test]
fn p6_each_answer_ends_in_its_named_state() {
    let fast = json!({"waits": [0.05], "jitter": 0});
    let with = |members: Value| {
        let mut retry = fast.clone();
        retry.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        retry
    };
    let status = Script::status;
    let case = |name, answer, retry, state, reason: &str, attempts| Case {
        name,
        answer,
        retry,
        state,
        reason: if reason.is_empty() { Value::Null } else { json!(reason) },
        attempts,
        enabled: true,
    };
    let cases = [
        case("200", status(200), fast.clone(), "delivered", "", 1),
        case("204", status(204), fast.clone(), "delivered", "", 1),
        case("299", status(299), fast.clone(), "delivered", "", 1),
        case("302", Script::redirect("http://127.0.0.1:1/"), fast.clone(), "failed", "exhausted", 2),
        case("400", status(400), fast.clone(), "failed", "exhausted", 2),
        case("500", status(500), fast.clone(), "failed", "exhausted", 2),
        case("reset", Script::Reset, fast.clone(), "failed", "exhausted", 2),
        case("one attempt", status(500), json!({"waits": []}), "failed", "exhausted", 1),
        case(
            "400 is final",
            status(400),
            with(json!({"retry_on": ["5xx", "timeout", "transport"]})),
            "failed",
            "rejected",
            1,
        ),
        case("302 is final", Script::redirect("/x"), with(json!({"retry_on": ["5xx"]})), "failed", "rejected", 1),
        case("500 is final", status(500), with(json!({"retry_on": ["4xx"]})), "failed", "rejected", 1),
        case("429 alone is retried", status(429), with(json!({"retry_on": [429]})), "failed", "exhausted", 2),
        case("silence is final", Script::Reset, with(json!({"retry_on": ["5xx"]})), "failed", "no_answer", 1),
        case("a timeout is final", Script::Hang, with(json!({"retry_on": ["transport"]})), "failed", "no_answer", 1),
        case("a timeout is retried", Script::Hang, with(json!({"retry_on": ["timeout"]})), "failed", "exhausted", 2),
        case("410, final", status(410), with(json!({"gone": "final"})), "failed", "gone", 1),
        case("410, cancel", status(410), with(json!({"gone": "cancel"})), "cancelled", "gone", 1),
        Case { enabled: false, ..case("410", status(410), fast.clone(), "failed", "gone", 1) },
    ];
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let mut hooks = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        inbox.script_path(&format!("/{n}"), case.answer.clone());
        let over = json!({"name": case.name, "retry": case.retry, "timeout_ms": 300});
        hooks.push(server.webhook("acme", &inbox.url(&format!("/{n}")), over));
    }
    let event = server.publish("acme", "user.created", json!({}));
    server.wait_settled("acme");
    let rows = server.deliveries_of("acme", &event);
    let mut wrong = Vec::new();
    for (n, (case, hook)) in cases.iter().zip(&hooks).enumerate() {
        let row = rows.iter().find(|row| row["webhook_id"] == *hook).unwrap();
        let asked = inbox.received().iter().filter(|r| r.path == format!("/{n}")).count();
        let enabled = &server.get(&format!("/v1/tenants/acme/webhooks/{hook}")).expect(200).json()["enabled"];
        let is = (row["state"].clone(), row["reason"].clone(), row["attempts"].clone(), enabled.clone(), asked);
        // Within an attempt a request may be sent again on a fresh connection, and then that is told.
        let attempts = server.delivery("acme", &text(row, "id"))["attempt_list"].as_array().unwrap().clone();
        let asks = attempts.len() + attempts.iter().filter(|attempt| attempt["resent"] == true).count();
        let should = (json!(case.state), case.reason.clone(), json!(case.attempts), json!(case.enabled), asks);
        if is != should {
            wrong.push(format!("{}: {is:?} and not {should:?}", case.name));
        }
        if !row["next_attempt_at"].is_null() {
            wrong.push(format!("{}: has a next attempt", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A closed port is silence, too.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let closed = {
        let _entered = runtime.enter();
        ClosedPort::new()
    };
    server.create_tenant("closed");
    server.webhook("closed", &format!("http://{}/", closed.addr()), json!({"retry": {"retry_on": ["5xx"]}}));
    let event = server.publish("closed", "user.created", json!({}));
    assert_eq!(server.wait_event("closed", &event, "failed")["reason"], "no_answer");
}

#[test]
fn p6_cancelled_by_hand() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let gate = Gate::new();
    inbox.script(Script::status(200).behind(&gate));
    server.webhook("acme", &inbox.url("/"), json!({"timeout_ms": 60_000}));
    let event = server.publish("acme", "user.created", json!({}));
    inbox.wait_for_blocking(1);
    let delivery = server.delivery_of("acme", &event);
    let cancel = format!("/v1/tenants/acme/deliveries/{delivery}/cancel");
    let cancelled = server.post(&cancel, ()).expect(200).json();
    assert_eq!((&cancelled["state"], &cancelled["reason"]), (&json!("cancelled"), &json!("by_user")));
    // It wins over the outcome still under way.
    gate.open();
    let view = server.wait_delivery_where("acme", &delivery, "the attempt's record", |d| d["attempts"] == 1);
    assert_eq!((&view["state"], &view["reason"]), (&json!("cancelled"), &json!("by_user")));
    server.post(&cancel, ()).expect_problem(409, "delivery_terminal");
}

#[test]
fn p6_held_while_disabled_and_resumed_when_enabled() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::status(500));
    let hook = server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": vec![0.2; 32], "jitter": 0}}));
    let event = server.publish("acme", "user.created", json!({}));
    inbox.wait_for_blocking(1);
    let path = format!("/v1/tenants/acme/webhooks/{hook}");
    server.patch(&path, json!({"enabled": false})).expect(200);
    let delivery = server.delivery_of("acme", &event);
    let held = server.wait_delivery("acme", &delivery, "held");
    assert_eq!(held["reason"], "webhook_disabled");
    assert_eq!(server.all("/v1/tenants/acme/deliveries?state=held").len(), 1);
    assert_eq!(server.all("/v1/tenants/acme/deliveries?state=pending").len(), 0);
    // What happens meanwhile is not owed, and it says why.
    let missed = server.publish_event("acme", json!({"type": "user.created"}));
    assert_eq!(missed["deliveries"], 0);
    assert_eq!(server.event("acme", &text(&missed, "id"))["matching"][0]["reason"], "disabled");
    // A restart changes nothing about it.
    server.kill9();
    server.restart();
    let before = server.delivery("acme", &delivery);
    assert_eq!((&before["state"], &before["reason"]), (&json!("held"), &json!("webhook_disabled")));
    inbox.script(Script::status(200));
    server.patch(&path, json!({"enabled": true})).expect(200);
    let after = server.wait_delivery("acme", &delivery, "delivered");
    assert!(after["attempts"].as_u64() > before["attempts"].as_u64(), "attempts count on: {after:#}");
}

#[test]
fn p6_a_deleted_webhooks_deliveries_are_cancelled() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::status(500));
    let hook = server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": [3600]}, "max_in_flight": 1}));
    let events: Vec<String> = (0..5).map(|n| server.publish("acme", "user.created", json!({"n": n}))).collect();
    inbox.wait_for_blocking(5);
    server.delete(&format!("/v1/tenants/acme/webhooks/{hook}")).expect(204);
    for event in &events {
        let view = server.wait_event("acme", event, "cancelled");
        assert_eq!((&view["reason"], &view["webhook_id"]), (&json!("webhook_deleted"), &json!(hook)));
        assert_eq!(view["next_attempt_at"], json!(null));
    }
    server.get(&format!("/v1/tenants/acme/webhooks/{hook}")).expect_problem(404, "webhook_not_found");
    assert_eq!(server.all(&format!("/v1/tenants/acme/deliveries?webhook_id={hook}")).len(), 5);
}

/// When a request was signed, in seconds: the server's own clock.
fn signed_at(request: &Received) -> u64 {
    request.header("webhook-timestamp").unwrap().parse().unwrap()
}

#[test]
fn p6_retry_after_pauses_the_webhook_and_one_probe_goes_first() {
    for date in [false, true] {
        let server = Server::start();
        server.create_tenant("acme");
        let inbox = receiver();
        // The first request asks for a pause, in one of the two forms; the probe is held at a gate.
        let gate = Gate::new();
        let probe = Script::status(200).behind(&gate);
        inbox.script(Script::with(move |request| match request.number {
            1 if date => {
                let until = UNIX_EPOCH + Duration::from_secs(signed_at(request) + 3);
                Script::status(503).header("retry-after", httpdate::fmt_http_date(until))
            }
            1 => Script::status(503).header("retry-after", "2"),
            2 => probe.clone(),
            _ => Script::status(200),
        }));
        server.webhook("acme", &inbox.url("/"), json!({"timeout_ms": 60_000, "retry": {"waits": vec![0.01; 32]}}));
        let first = server.publish("acme", "user.created", json!({"n": 0}));
        let delivery = server.delivery_of("acme", &first);
        let asked = server.wait_delivery_where("acme", &delivery, "its first attempt", |d| d["attempts"] == 1);
        // First attempts of others wait as well.
        let events: Vec<String> = (1..=10).map(|n| server.publish("acme", "user.created", json!({"n": n}))).collect();
        let arrived = inbox.wait_for_blocking(2);
        let paused = signed_at(&arrived[1]) - signed_at(&arrived[0]);
        assert!(paused >= if date { 3 } else { 2 }, "paused for {paused} s only (date: {date}): {asked:#}");
        // While the probe is under way it is alone. Something that goes all the way round the server
        // meanwhile shows that nothing else was about to go.
        let other = receiver();
        server.create_tenant("other");
        server.webhook("other", &other.url("/"), json!({}));
        let round = server.publish("other", "user.created", json!({}));
        server.wait_event("other", &round, "delivered");
        assert_eq!(inbox.count(), 2, "something went beside the probe");
        gate.open();
        inbox.wait_for_blocking(12);
        server.wait_settled("acme");
        for event in events.iter().chain([&first]) {
            server.wait_event("acme", event, "delivered");
        }
    }
}

#[test]
fn p6_retry_after_is_shown_as_the_next_attempt() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let hook = server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": [60], "jitter": 0}}));
    // (answer, the least and the most seconds until the next attempt)
    let cases = [
        (Script::status(503).header("retry-after", "3600"), 3_600, 3_602),
        (Script::status(429).header("retry-after", "3600"), 3_600, 3_602),
        // Never shorter than the schedule; unreadable or past is as if it were not there.
        (Script::status(503).header("retry-after", "1"), 60, 62),
        (Script::status(503).header("retry-after", "soon"), 60, 62),
        (Script::status(503).header("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT"), 60, 62),
        (Script::status(503).header("retry-after", "999999999999"), 86_400, 86_402),
        // Not listened to on others.
        (Script::status(500).header("retry-after", "3600"), 60, 62),
    ];
    for (n, (answer, least, most)) in cases.into_iter().enumerate() {
        inbox.script(answer);
        let event = server.publish("acme", "user.created", json!({"n": n}));
        let delivery = server.delivery_of("acme", &event);
        let view = server.wait_delivery_where("acme", &delivery, "its attempt", |d| d["attempts"] == 1);
        let attempt = &view["attempt_list"][0];
        let seconds = seconds(&view["next_attempt_at"]) - seconds(&attempt["started_at"]);
        let took = attempt["duration_ms"].as_f64().unwrap() / 1e3;
        assert!(
            (f64::from(least)..f64::from(most) + took).contains(&(seconds + 0.002)),
            "case {n}: {seconds} s: {view:#}"
        );
        // The pause is the webhook's; another webhook starts without one.
        server.delete(&format!("/v1/tenants/acme/webhooks/{hook}"));
        for other in server.all("/v1/tenants/acme/webhooks") {
            server.delete(&format!("/v1/tenants/acme/webhooks/{}", text(&other, "id"))).expect(204);
        }
        server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": [60], "jitter": 0}}));
    }
}

/// Seconds since the epoch of an RFC 3339 time with `Z`.
fn seconds(time: &Value) -> f64 {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    let time: gatepost_core::Timestamp = text.parse().unwrap_or_else(|_| panic!("no time: {text}"));
    time.as_micros() as f64 / 1e6
}

#[test]
fn p6_a_deleted_tenant_is_gone_with_all_it_was_owed() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::status(500));
    server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": vec![0.05; 32]}}));
    server.publish("acme", "user.created", json!({}));
    inbox.wait_for_blocking(1);
    server.delete("/v1/tenants/acme").expect(204);
    server.get("/v1/tenants/acme").expect_problem(404, "tenant_not_found");
    server.post("/v1/tenants/acme/events", json!({"type": "user.created"})).expect_problem(404, "tenant_not_found");
    // It can be made anew and begins with nothing.
    wait_until("the name to be free", || {
        let made = server.put("/v1/tenants/acme", json!({}));
        (made.status == 201).then_some(())
    });
    assert!(server.all("/v1/tenants/acme/events").is_empty());
    assert!(server.all("/v1/tenants/acme/webhooks").is_empty());
    assert!(server.all("/v1/tenants/acme/deliveries").is_empty());
}
