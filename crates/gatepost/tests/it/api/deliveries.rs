//! Deliveries: rows, attempts, what failures come to, retry and cancel.

use gatepost_testkit::{ClosedPort, Gate, Script};
use serde_json::{Value, json};

use super::{Findings, column, members};
use crate::harness::{Server, receiver, text, wait_until};

const ROW: [&str; 11] = [
    "attempts",
    "created_at",
    "event_ids",
    "event_type",
    "id",
    "next_attempt_at",
    "reason",
    "state",
    "subject",
    "updated_at",
    "webhook_id",
];

fn retry(server: &Server, delivery: &str) -> crate::harness::Reply {
    server.post(&format!("/v1/tenants/acme/deliveries/{delivery}/retry"), ())
}

fn cancel(server: &Server, delivery: &str) -> crate::harness::Reply {
    server.post(&format!("/v1/tenants/acme/deliveries/{delivery}/cancel"), ())
}

#[test]
fn a_row_has_exactly_its_members_and_the_view_its_attempts() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.next([Script::status(503).header("x-a", "1").body("busy")]);
    to.script(Script::status(200).header("content-type", "text/plain").body("fine"));
    let webhook = server.webhook(
        "acme",
        &to.url("/in?x=1"),
        json!({"headers": {"X-Api-Key": "s3cr3t"}, "retry": {"waits": [0], "jitter": 0}}),
    );
    let answer = server.publish_event(
        "acme",
        json!({"type": "user.created", "subject": {"type": "user", "id": "u1"}, "data": {"n": 1}}),
    );
    let event = text(&answer, "id");
    let view = server.wait_event("acme", &event, "delivered");

    let row = server.deliveries_of("acme", &event).pop().expect("one");
    assert_eq!(members(&row), ROW);
    assert_eq!(row["webhook_id"], webhook);
    assert_eq!((&row["event_ids"], &row["event_type"]), (&json!([event]), &json!("user.created")));
    assert_eq!(row["subject"], json!({"type": "user", "id": "u1"}));
    assert_eq!(
        (&row["state"], &row["reason"], &row["attempts"], &row["next_attempt_at"]),
        (&json!("delivered"), &Value::Null, &json!(2), &Value::Null)
    );
    let id = text(&row, "id");
    assert!(id.starts_with("dlv_"), "{id}");
    for time in ["created_at", "updated_at"] {
        assert!(text(&row, time).ends_with('Z'));
    }
    let mut with_attempts = ROW.to_vec();
    with_attempts.push("attempt_list");
    with_attempts.sort_unstable();
    assert_eq!(members(&view), with_attempts);
    for member in ROW {
        assert_eq!(view[member], row[member], "{member}");
    }

    let attempts = view["attempt_list"].as_array().expect("a list");
    assert_eq!(attempts.len(), 2);
    let received = to.received();
    for (n, attempt) in attempts.iter().enumerate() {
        for member in
            ["started_at", "duration_ms", "outcome", "status", "error", "request", "response", "timings", "trigger"]
        {
            assert!(members(attempt).contains(&member), "{member} in {attempt}");
        }
        assert_eq!(attempt["trigger"], "scheduled");
        assert!(attempt["duration_ms"].is_u64() && text(attempt, "started_at").ends_with('Z'));
        assert_eq!(members(&attempt["timings"]), ["connect", "dns", "first_byte", "tls", "total"]);
        assert!(attempt["timings"]["total"].is_u64(), "whole milliseconds");
        assert!(attempt["timings"]["tls"].is_null(), "there was no TLS");
        let request = &attempt["request"];
        assert_eq!(members(request), ["body", "headers", "url"]);
        assert_eq!(request["url"], to.url("/in?x=1"));
        assert_eq!(request["body"].as_str().map(str::as_bytes), Some(&received[n].body[..]));
        for header in [
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "gatepost-attempt",
            "gatepost-delivery-id",
            "gatepost-event-id",
            "traceparent",
            "user-agent",
            "content-type",
        ] {
            assert_eq!(request["headers"][header].as_str(), received[n].header(header), "{header}");
        }
        let names = members(&request["headers"]).join(" ").to_ascii_lowercase();
        assert!(names.contains("x-api-key") && !attempt.to_string().contains("s3cr3t"), "{attempt}");
    }
    assert_eq!((&attempts[0]["outcome"], &attempts[0]["status"]), (&json!("http_status"), &json!(503)));
    assert_eq!(attempts[0]["response"]["body"], "busy");
    assert_eq!(attempts[0]["response"]["headers"]["x-a"], "1");
    assert_eq!(
        (&attempts[1]["outcome"], &attempts[1]["status"], &attempts[1]["error"]),
        (&json!("ok"), &json!(200), &Value::Null)
    );
    assert_eq!(members(&attempts[1]["response"]), ["body", "headers", "truncated"]);
    assert_eq!(
        (&attempts[1]["response"]["body"], &attempts[1]["response"]["truncated"]),
        (&json!("fine"), &json!(false))
    );
    assert!(text(&attempts[0], "started_at") <= text(&attempts[1], "started_at"), "oldest first");
    server.get("/v1/tenants/acme/deliveries/dlv_00000000000000000000000000").expect_problem(404, "delivery_not_found");
}

#[test]
fn answers_that_are_not_text_are_kept_in_base64_and_long_ones_cut() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    server.webhook("acme", &to.url("/"), json!({}));
    let attempt = |script: Script| {
        to.script(script);
        let event = server.publish("acme", "user.created", json!({}));
        server.wait_event("acme", &event, "delivered")["attempt_list"][0].clone()
    };
    let binary = attempt(Script::status(200).body(vec![0xff, 0x00, 0x80]));
    assert_eq!(binary["response"]["body_base64"], "/wCA");
    assert!(binary["response"].get("body").is_none_or(Value::is_null));
    let unicode = attempt(Script::status(200).body("ü😀"));
    assert_eq!(unicode["response"]["body"], "ü😀");
    let empty = attempt(Script::status(204));
    assert_eq!((&empty["response"]["body"], &empty["response"]["truncated"]), (&json!(""), &json!(false)));
    // Cut within a character it is still text, or shown as bytes; never an error.
    let long = attempt(Script::status(200).body("ü".repeat(200_000)));
    assert_eq!(long["response"]["truncated"], true);
    assert_eq!(long["outcome"], "ok");
    let kept = long["response"]["body"].as_str().or(long["response"]["body_base64"].as_str()).map_or(0, str::len);
    assert!((1..=64 * 1024).contains(&kept), "{kept}");
    let once_arrived = attempt(Script::CutBody);
    assert_eq!(once_arrived["outcome"], "ok", "once a status line has arrived it is the answer");
}

#[test]
fn failures_have_their_outcome_state_and_reason() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let closed = ClosedPort::new();
    let mut findings = Findings::default();
    let all = json!(["timeout", "transport", "3xx", "4xx", "5xx"]);
    let cases = [
        ("500", Script::status(500), "http_status", json!(500), all.clone(), "exhausted"),
        ("404", Script::status(404), "http_status", json!(404), all.clone(), "exhausted"),
        ("302", Script::redirect("/elsewhere"), "http_status", json!(302), all.clone(), "exhausted"),
        ("a single status", Script::status(418), "http_status", json!(418), json!([418]), "exhausted"),
        ("500 not listed", Script::status(500), "http_status", json!(500), json!(["4xx"]), "rejected"),
        ("302 not listed", Script::redirect("/elsewhere"), "http_status", json!(302), json!(["5xx"]), "rejected"),
        ("400 not listed", Script::status(400), "http_status", json!(400), json!([]), "rejected"),
        ("hangs", Script::Hang, "timeout", Value::Null, all.clone(), "exhausted"),
        ("hangs, not listed", Script::Hang, "timeout", Value::Null, json!(["transport"]), "no_answer"),
        ("resets", Script::Reset, "reset", Value::Null, all.clone(), "exhausted"),
        ("closes", Script::Close, "reset", Value::Null, all.clone(), "exhausted"),
        ("closes, not listed", Script::Close, "reset", Value::Null, json!(["timeout", "5xx"]), "no_answer"),
        ("no HTTP", Script::Garbage, "protocol", Value::Null, all.clone(), "exhausted"),
    ];
    for (n, (what, script, outcome, status, retry_on, reason)) in cases.into_iter().enumerate() {
        let path = format!("/{n}");
        to.script_path(&path, script);
        let event_type = format!("case.n{n}");
        server.webhook(
            "acme",
            &to.url(&path),
            json!({"events": [event_type], "timeout_ms": 200, "retry": {"waits": [], "retry_on": retry_on}}),
        );
        let event = server.publish("acme", &event_type, json!({}));
        let view = server.wait_event("acme", &event, "failed");
        let attempt = &view["attempt_list"][0];
        let found = json!([view["reason"], view["attempts"], attempt["outcome"], attempt["status"]]);
        findings.check(found == json!([reason, 1, outcome, status]), format!("{what}: {found} in {view:#}"));
        findings.check(view["next_attempt_at"].is_null(), format!("{what}: nothing follows"));
        findings.check(
            status.is_null() == attempt["error"].is_string() || !status.is_null(),
            format!("{what}: an error is told"),
        );
        findings.check(to.received().iter().filter(|r| r.path == path).count() == 1, format!("{what}: one request"));
    }
    for (what, url, outcome) in [
        ("nobody listens", format!("http://{}/", closed.addr()), "connect"),
        ("no such name", "http://no-such-name.invalid/".to_owned(), "dns"),
        ("no TLS there", to.url("/tls").replace("http:", "https:"), "tls"),
    ] {
        server.webhook(
            "acme",
            &url,
            json!({"events": [format!("silent.{outcome}")], "timeout_ms": 5000, "retry": {"waits": []}}),
        );
        let event = server.publish("acme", &format!("silent.{outcome}"), json!({}));
        let view = server.wait_event("acme", &event, "failed");
        let attempt = &view["attempt_list"][0];
        let found = json!([view["reason"], attempt["outcome"], attempt["status"], attempt["response"]]);
        findings.check(found == json!(["exhausted", outcome, null, null]), format!("{what}: {found}, {attempt:#}"));
    }
    findings.check(to.received().iter().all(|r| r.path != "/elsewhere"), "a redirect is never followed");
    findings.none();
}

#[test]
fn gone_disables_the_webhook_unless_told_otherwise() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::status(410));
    let mut findings = Findings::default();
    for (n, (gone, state, reason, enabled)) in [
        (Value::Null, "failed", "gone", false),
        (json!("disable"), "failed", "gone", false),
        (json!("final"), "failed", "gone", true),
        (json!("cancel"), "cancelled", "gone", true),
    ]
    .into_iter()
    .enumerate()
    {
        let event_type = format!("gone.n{n}");
        let retry = if gone.is_null() { Value::Null } else { json!({"gone": gone}) };
        let webhook = server.webhook("acme", &to.url("/"), json!({"events": [event_type], "retry": retry}));
        let event = server.publish("acme", &event_type, json!({}));
        let view = server.wait_event("acme", &event, state);
        findings.check(view["reason"] == reason, format!("gone: {gone}: {view:#}"));
        let path = format!("/v1/tenants/acme/webhooks/{webhook}");
        if enabled {
            findings.check(server.get(&path).json()["enabled"] == true, format!("gone: {gone}: still enabled"));
        } else {
            wait_until("the webhook to be disabled", || (server.get(&path).json()["enabled"] == false).then_some(()));
            let next = server.event("acme", &server.publish("acme", &event_type, json!({})));
            findings.check(
                super::reason(&next, &webhook).as_deref() == Some("disabled"),
                format!("gone: {gone}: {next:#}"),
            );
        }
    }
    findings.none();
}

#[test]
fn a_retry_by_hand_reopens_a_delivery_in_any_state() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::status(400));
    server.webhook("acme", &to.url("/"), json!({"retry": {"waits": [], "retry_on": []}}));
    let event = server.publish("acme", "user.created", json!({"n": 1}));
    let id = text(&server.wait_event("acme", &event, "failed"), "id");

    // A failed one.
    to.script(Script::status(204));
    let row = retry(&server, &id).expect(202).json();
    assert_eq!(members(&row), ROW);
    assert_eq!((&row["id"], &row["reason"]), (&json!(id), &Value::Null));
    let view = server.wait_delivery("acme", &id, "delivered");
    assert_eq!(view["attempts"], 2);
    assert_eq!(column(view["attempt_list"].as_array().expect("a list"), "trigger"), ["scheduled", "manual"]);
    let received = to.received();
    assert_eq!(received[0].body, received[1].body, "p3: the same bytes");
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_eq!(received[1].header("gatepost-attempt"), Some("2"));

    // A delivered one, twice: two attempts more.
    for attempts in [3, 4] {
        retry(&server, &id).expect(202);
        let view = server
            .wait_delivery_where("acme", &id, "one more", |v| v["attempts"] == attempts && v["state"] == "delivered");
        assert_eq!(view["attempt_list"][attempts - 1]["trigger"], "manual");
    }

    // A new budget: with two waits, three attempts again.
    let webhook = text(&server.delivery("acme", &id), "webhook_id");
    let path = format!("/v1/tenants/acme/webhooks/{webhook}");
    server.patch(&path, json!({"retry": {"waits": [0, 0], "jitter": 0, "retry_on": ["4xx"]}})).expect(200);
    to.script(Script::status(400));
    retry(&server, &id).expect(202);
    let view = server.wait_delivery("acme", &id, "failed");
    assert_eq!((&view["attempts"], &view["reason"]), (&json!(7), &json!("exhausted")));

    // A cancelled one.
    server.patch(&path, json!({"retry": {"waits": [86400]}})).expect(200);
    retry(&server, &id).expect(202);
    server.wait_delivery_where("acme", &id, "an attempt", |v| v["attempts"] == 8);
    cancel(&server, &id).expect(200);
    to.script(Script::status(204));
    retry(&server, &id).expect(202);
    server.wait_delivery_where("acme", &id, "delivery", |v| v["attempts"] == 9 && v["state"] == "delivered");

    // A pending one: now instead of tomorrow.
    to.next([Script::status(400)]);
    let event = server.publish("acme", "user.created", json!({}));
    let pending = server.delivery_of("acme", &event);
    let view = server.wait_delivery_where("acme", &pending, "an attempt", |v| v["attempts"] == 1);
    assert!(view["state"] == "pending" && view["next_attempt_at"].is_string(), "{view}");
    retry(&server, &pending).expect(202);
    assert_eq!(server.wait_delivery("acme", &pending, "delivered")["attempts"], 2);
}

#[test]
fn a_disabled_webhook_holds_what_waits_and_refuses_retries() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::status(500));
    let webhook = server.webhook("acme", &to.url("/"), json!({"retry": {"waits": [0, 86400]}}));
    let path = format!("/v1/tenants/acme/webhooks/{webhook}");
    let event = server.publish("acme", "user.created", json!({}));
    let id = server.delivery_of("acme", &event);
    let before = server.wait_delivery_where("acme", &id, "two attempts", |v| v["attempts"] == 2);
    server.patch(&path, json!({"enabled": false})).expect(200);
    let held = server.delivery("acme", &id);
    assert_eq!((&held["state"], &held["reason"]), (&json!("held"), &json!("webhook_disabled")));
    retry(&server, &id).expect_problem(409, "webhook_disabled");
    assert_eq!(server.publish_event("acme", json!({"type": "user.created"}))["deliveries"], 0);

    // Enabled it resumes where it was: at its old time, with its attempts counted.
    server.patch(&path, json!({"enabled": true})).expect(200);
    let after = server.delivery("acme", &id);
    assert_eq!((&after["state"], &after["reason"], &after["attempts"]), (&json!("pending"), &Value::Null, &json!(2)));
    assert_eq!(after["next_attempt_at"], before["next_attempt_at"]);
    to.script(Script::status(204));
    retry(&server, &id).expect(202);
    assert_eq!(server.wait_delivery("acme", &id, "delivered")["attempts"], 3);

    // What failed for good is refused too while disabled; a held one can be cancelled.
    server.patch(&path, json!({"enabled": false})).expect(200);
    retry(&server, &id).expect_problem(409, "webhook_disabled");
    server.patch(&path, json!({"enabled": true, "retry": {"waits": [86400]}})).expect(200);
    to.script(Script::status(500));
    let event = server.publish("acme", "user.created", json!({}));
    let id = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &id, "an attempt", |v| v["attempts"] == 1);
    server.patch(&path, json!({"enabled": false})).expect(200);
    let row = cancel(&server, &id).expect(200).json();
    assert_eq!((&row["state"], &row["reason"]), (&json!("cancelled"), &json!("by_user")));
}

#[test]
fn a_paused_webhook_is_matched_and_what_it_is_owed_waits_for_it() {
    for members in [json!({}), json!({"ordering": "webhook"}), json!({"batch": {"max_wait_ms": 0}})] {
        let mut server = Server::start();
        server.create_tenant("acme");
        let (to, told) = (receiver(), receiver());
        let webhook = server.webhook("acme", &to.url("/"), members);
        server.webhook("acme", &told.url("/"), json!({"events": ["gatepost.webhook.updated"]}));
        let path = format!("/v1/tenants/acme/webhooks/{webhook}");
        let pause = |server: &Server, what: &str| server.post(&format!("{path}/{what}"), ()).expect(200).json();
        let paused = pause(&server, "pause");
        assert_eq!((&paused["paused"], &paused["enabled"]), (&json!(true), &json!(true)));
        assert_eq!(pause(&server, "pause")["updated_at"], paused["updated_at"], "it was paused already");
        assert_eq!(told.wait_for_blocking(1)[0].json()["data"]["paused"], json!(true));

        let events: Vec<String> = (0..3)
            .map(|n| {
                let kind = if n == 1 { "user.updated" } else { "user.created" };
                let event = server.publish_event("acme", json!({"type": kind, "data": n}));
                assert_eq!(event["deliveries"], 1, "matched as ever");
                text(&event, "id")
            })
            .collect();
        let held = |server: &Server, more: &str| -> Vec<Value> {
            let list = server.get(&format!("/v1/tenants/acme/deliveries?state=held&webhook_id={webhook}{more}"));
            list.expect(200).json()["data"].as_array().expect("a list").clone()
        };
        let rows = held(&server, "");
        assert!(!rows.is_empty());
        for row in &rows {
            assert_eq!((&row["reason"], &row["next_attempt_at"]), (&json!("paused"), &Value::Null), "{row}");
        }
        let updated = held(&server, "&event_type=user.updated");
        assert_eq!((updated.len(), &updated[0]["event_ids"]), (1, &json!([events[1]])));
        assert!(held(&server, "&event_type=user.deleted").is_empty());
        // By hand it is reopened, and waits all the same; so does what was owed before the server died.
        assert_eq!(retry(&server, &text(&rows[0], "id")).expect(202).json()["reason"], "paused");
        server.kill9();
        server.restart();
        assert_eq!(held(&server, "").len(), rows.len());
        assert_eq!(to.count(), 0);

        let resumed = server.patch(&path, json!({"paused": false})).expect(200).json();
        assert_eq!(resumed["paused"], json!(false));
        for event in &events {
            server.wait_event("acme", event, "delivered");
        }
        assert!(held(&server, "").is_empty());
    }
}

#[test]
fn a_paused_webhook_that_is_deleted_hears_of_it() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let webhook = server.webhook("acme", &to.url("/"), json!({"events": ["gatepost.webhook.deleted"], "paused": true}));
    server.delete(&format!("/v1/tenants/acme/webhooks/{webhook}")).expect(204);
    assert_eq!(to.wait_for_blocking(1)[0].json()["data"]["id"], webhook);
}

#[test]
fn a_cancelled_delivery_stays_cancelled() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::status(500));
    server.webhook("acme", &to.url("/"), json!({"retry": {"waits": [86400]}}));
    let event = server.publish("acme", "user.created", json!({}));
    let id = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &id, "an attempt", |v| v["attempts"] == 1);
    let row = cancel(&server, &id).expect(200).json();
    assert_eq!(members(&row), ROW);
    assert_eq!(
        (&row["state"], &row["reason"], &row["next_attempt_at"], &row["attempts"]),
        (&json!("cancelled"), &json!("by_user"), &Value::Null, &json!(1))
    );
    cancel(&server, &id).expect_problem(409, "delivery_terminal");

    to.script(Script::status(204));
    for (script, state) in [(Script::status(204), "delivered"), (Script::status(410), "failed")] {
        to.script(script);
        let event = server.publish("acme", "user.created", json!({}));
        let view = server.wait_event("acme", &event, state);
        cancel(&server, &text(&view, "id")).expect_problem(409, "delivery_terminal");
    }
    assert_eq!(server.delivery("acme", &id)["state"], "cancelled");
}

#[test]
fn cancelling_wins_over_an_attempt_under_way() {
    for answer in [204, 500, 410] {
        let server = Server::start();
        server.create_tenant("acme");
        let to = receiver();
        let gate = Gate::new();
        to.next([Script::status(answer).behind(&gate)]);
        let webhook = server.webhook("acme", &to.url("/"), json!({"max_in_flight": 1, "retry": {"waits": [0]}}));
        let event = server.publish("acme", "user.created", json!({}));
        let id = server.delivery_of("acme", &event);
        to.wait_for_blocking(1);
        let row = cancel(&server, &id).expect(200).json();
        assert_eq!((&row["state"], &row["reason"]), (&json!("cancelled"), &json!("by_user")), "{answer}");
        gate.open();
        // The next one can only go out once the first attempt is over.
        let next = server.publish("acme", "user.created", json!({}));
        if answer != 410 {
            server.wait_event("acme", &next, "delivered");
        }
        let view = server.delivery("acme", &id);
        assert_eq!((&view["state"], &view["reason"]), (&json!("cancelled"), &json!("by_user")), "{answer}: {view:#}");
        if answer != 410 {
            assert_eq!(to.count(), 2, "{answer}: no retry of what is cancelled");
            assert_eq!(server.get(&format!("/v1/tenants/acme/webhooks/{webhook}")).json()["enabled"], true);
        }
    }
}
