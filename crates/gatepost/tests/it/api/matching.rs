//! Why each webhook did or did not match: as of acceptance, whatever changes later.

use serde_json::{Value, json};

use super::{members, reason};
use crate::harness::{Server, text};

const NOWHERE: &str = "http://127.0.0.1:9/x";

#[test]
fn the_trace_tells_every_webhook_as_of_acceptance() {
    let mut server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    let hook = |server: &Server, overrides: Value| server.webhook("acme", NOWHERE, overrides);
    let foreign = server.webhook("other", NOWHERE, json!({}));
    let cases = [
        (hook(&server, json!({"events": ["user.*"]})), "matched"),
        (hook(&server, json!({"events": ["user.created"], "filter": "data.n == 1"})), "matched"),
        (hook(&server, json!({"events": ["group.*"]})), "no_pattern"),
        (hook(&server, json!({"events": ["group.*"], "filter": "data.missing"})), "no_pattern"),
        (hook(&server, json!({"filter": "data.n == 2"})), "filter_false"),
        (hook(&server, json!({"filter": "data.missing == 2"})), "filter_error"),
        (hook(&server, json!({"filter": "data.n"})), "filter_error"),
        (hook(&server, json!({"enabled": false})), "disabled"),
    ];
    let answer = server.publish_event("acme", json!({"type": "user.created", "data": {"n": 1}}));
    assert_eq!(answer["deliveries"], 2);
    let id = text(&answer, "id");
    let late = hook(&server, json!({}));

    let check = |server: &Server, when: &str| {
        let event = server.event("acme", &id);
        for (hook, wanted) in &cases {
            assert_eq!(reason(&event, hook).as_deref(), Some(*wanted), "{when}: {event:#}");
        }
        assert_eq!(reason(&event, &late).as_deref(), Some("created_later"), "{when}: {event:#}");
        assert_eq!(reason(&event, &foreign), None);
        let rows = event["matching"].as_array().expect("a list");
        assert_eq!(rows.len(), cases.len() + 1, "{when}");
        for row in rows {
            assert_eq!(members(row), ["matched", "reason", "webhook_id"]);
            assert_eq!(row["matched"] == true, row["reason"] == "matched", "{row}");
        }
        assert!(event.get("matching_truncated").is_none_or(|t| t == false));
        let delivered: Vec<_> =
            event["deliveries"].as_array().expect("a list").iter().map(|d| text(d, "webhook_id")).collect();
        assert_eq!(delivered.len(), 2, "{when}");
        assert!(delivered.contains(&cases[0].0) && delivered.contains(&cases[1].0), "{when}");
    };
    check(&server, "at once");

    let path = |hook: &str| format!("/v1/tenants/acme/webhooks/{hook}");
    server.patch(&path(&cases[0].0), json!({"events": ["group.*"]})).expect(200);
    server.patch(&path(&cases[2].0), json!({"events": ["user.*"]})).expect(200);
    server.patch(&path(&cases[4].0), json!({"filter": null})).expect(200);
    server.patch(&path(&cases[7].0), json!({"enabled": true})).expect(200);
    server.patch(&path(&cases[1].0), json!({"enabled": false})).expect(200);
    check(&server, "after changes");
    server.post(&format!("{}/rotate-secret", path(&cases[5].0)), json!({})).expect(200);
    check(&server, "after a rotation");
    server.kill9();
    server.restart();
    check(&server, "after a crash");

    // And the changes count for what comes after them.
    let event = server
        .event("acme", &text(&server.publish_event("acme", json!({"type": "user.created", "data": {"n": 1}})), "id"));
    for (n, wanted) in [(0, "no_pattern"), (1, "disabled"), (2, "matched"), (4, "matched"), (7, "matched")] {
        assert_eq!(reason(&event, &cases[n].0).as_deref(), Some(wanted), "{n}: {event:#}");
    }
    assert_eq!(reason(&event, &late).as_deref(), Some("matched"));
}

#[test]
fn p6_an_event_that_matches_nothing_is_kept_and_visible() {
    let server = Server::start();
    server.create_tenant("acme");
    let answer = server.publish_event("acme", json!({"type": "user.created", "data": 1}));
    assert_eq!(answer["deliveries"], 0);
    let id = text(&answer, "id");
    let event = server.event("acme", &id);
    assert_eq!((&event["deliveries"], &event["matching"]), (&json!([]), &json!([])));
    assert_eq!(server.all("/v1/tenants/acme/events").len(), 1);
    let hook = server.webhook("acme", NOWHERE, json!({"events": ["group.*"]}));
    assert_eq!(reason(&server.event("acme", &id), &hook).as_deref(), Some("created_later"));
}

#[test]
fn a_trace_has_at_most_a_thousand_rows_and_says_so() {
    let server = Server::start();
    server.create_tenant("acme");
    for _ in 0..1_001 {
        server.webhook("acme", NOWHERE, json!({"events": ["group.*"]}));
    }
    let event = server.event("acme", &server.publish("acme", "user.created", json!({})));
    assert_eq!(event["matching"].as_array().map(Vec::len), Some(1_000));
    assert_eq!(event["matching_truncated"], true);
}
