//! Webhooks: register, show, list, change by merge patch, delete.

use gatepost_testkit::{Gate, Script};
use serde_json::{Value, json};

use super::{Findings, column, members};
use crate::harness::{Server, receiver, text, webhook_body};

/// What every answer about a webhook has.
const SHOWN: [&str; 17] = [
    "created_at",
    "description",
    "enabled",
    "events",
    "filter",
    "headers",
    "id",
    "last_test",
    "max_in_flight",
    "name",
    "profile",
    "retry",
    "timeout_ms",
    "updated_at",
    "url",
    "verified",
    "warnings",
];

fn hook(server: &Server, id: &str) -> Value {
    server.get(&format!("/v1/tenants/acme/webhooks/{id}")).expect(200).json()
}

#[test]
fn registering_answers_every_member_and_the_secret_once() {
    let server = Server::start();
    server.create_tenant("acme");
    let body = json!({"name": "n", "url": "https://example.com/in", "events": ["user.created"]});
    let reply = server.post("/v1/tenants/acme/webhooks", body).expect(201);
    let created = reply.json();
    let id = text(&created, "id");
    let mut with_secret = SHOWN.to_vec();
    with_secret.push("secret");
    with_secret.sort_unstable();
    for member in &with_secret {
        assert!(members(&created).contains(member), "{member} in {created}");
    }
    let prefix_and_suffix = id.split_once('_').expect("an id has a prefix");
    assert!(prefix_and_suffix.0 == "wh" && (20..=40).contains(&prefix_and_suffix.1.len()), "{id}");
    assert!(prefix_and_suffix.1.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    let secret = text(&created, "secret");
    assert!(secret.starts_with("whsec_") && standardwebhooks::Webhook::new(&secret).is_ok(), "{secret}");
    let of = |member: &str| created[member].clone();
    assert_eq!(of("name"), "n");
    assert_eq!(of("url"), "https://example.com/in");
    assert_eq!(of("events"), json!(["user.created"]));
    assert_eq!((of("description"), of("filter"), of("last_test")), (Value::Null, Value::Null, Value::Null));
    assert_eq!((of("profile"), of("enabled"), of("verified")), (json!("standard"), json!(true), json!(true)));
    assert_eq!((of("headers"), of("warnings")), (json!({}), json!([])));
    assert!(text(&created, "created_at").ends_with('Z') && created["updated_at"] == created["created_at"]);

    // Afterwards the secret is nowhere.
    let shown = hook(&server, &id);
    assert_eq!(members(&shown).into_iter().filter(|m| SHOWN.contains(m)).count(), SHOWN.len());
    let patched = server.patch(&format!("/v1/tenants/acme/webhooks/{id}"), json!({"name": "m"})).expect(200);
    let list = server.get("/v1/tenants/acme/webhooks").expect(200);
    for (what, answer) in [("GET", shown.to_string()), ("PATCH", patched.text()), ("list", list.text())] {
        assert!(!answer.contains(&secret) && !answer.contains("whsec_"), "{what}: {answer}");
    }
    assert!(shown.get("secret").is_none_or(|s| s.is_null() || s == "***"));
}

#[test]
fn every_member_is_kept_and_answered() {
    let server = Server::start();
    server.create_tenant("acme");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let retry = json!({"waits": [0.5, 10], "jitter": 0.25, "retry_on": ["timeout", "transport", "3xx", "4xx", "5xx"],
        "gone": "cancel", "retry_after": {"statuses": [429], "cap_s": 60}});
    let body = json!({"name": "n", "description": "d", "url": "https://example.com/in?a=1", "events": ["user.*", "all", "a.b"],
        "filter": "data.n > 1", "profile": "cloudevents", "headers": {"X-Api-Key": "s3cr3t", "x-b": "2"}, "retry": retry,
        "timeout_ms": 1234, "max_in_flight": 7, "secret": secret, "enabled": false});
    let created = server.post("/v1/tenants/acme/webhooks", body.clone()).expect(201).json();
    assert_eq!(created["secret"], secret, "an imported secret is the secret");
    for answer in [&created, &hook(&server, &text(&created, "id"))] {
        for member in
            ["name", "description", "url", "events", "filter", "profile", "timeout_ms", "max_in_flight", "enabled"]
        {
            assert_eq!(answer[member], body[member], "{member}");
        }
        assert_eq!(answer["headers"], json!({"X-Api-Key": "***", "x-b": "***"}));
        let shown = &answer["retry"];
        assert_eq!(
            (&shown["jitter"], &shown["gone"], &shown["retry_on"]),
            (&retry["jitter"], &retry["gone"], &retry["retry_on"])
        );
        assert_eq!(shown["retry_after"], retry["retry_after"]);
        let waits: Vec<f64> = shown["waits"].as_array().expect("waits").iter().filter_map(Value::as_f64).collect();
        assert_eq!(waits, [0.5, 10.0]);
        assert!(!answer.to_string().contains("s3cr3t"));
    }
}

#[test]
fn subscriptions_to_types_nobody_declared_are_warned_of() {
    let server = Server::start();
    server.create_tenant("acme");
    let warnings = |events: Value| {
        let id = server.webhook("acme", "https://example.com/", json!({"events": events}));
        hook(&server, &id)["warnings"].as_array().expect("a list").clone()
    };
    assert_eq!(warnings(json!(["user.created", "user.*", "all"])), [json!(null); 0]);
    let unknown = warnings(json!(["user.creatd", "user.created", "my.own.type"]));
    assert_eq!(unknown.len(), 2, "{unknown:?}");
    assert!(
        unknown[0].as_str().is_some_and(|w| w.contains("user.creatd"))
            && unknown[1].as_str().is_some_and(|w| w.contains("my.own.type"))
    );
    server.put("/v1/event-types/my.own.type", json!({})).expect(201);
    assert_eq!(warnings(json!(["my.own.type"])), [json!(null); 0]);
}

#[test]
fn a_patch_keeps_what_is_absent_clears_null_and_sets_values() {
    let server = Server::start();
    server.create_tenant("acme");
    let plain = hook(&server, &server.webhook("acme", "https://example.com/", json!({"name": "n"})));
    let full = json!({"name": "n", "description": "d", "filter": "data.n > 1", "headers": {"X-A": "1", "X-B": "2"},
        "retry": {"waits": [1, 2], "jitter": 0.5, "retry_after": {"statuses": [503], "cap_s": 9}}, "timeout_ms": 500,
        "max_in_flight": 3, "enabled": false});
    let mut findings = Findings::default();
    // What is there, the patch, and what is to be there then.
    let cases = [
        (json!({"name": "m"}), "name", json!("m")),
        (json!({"description": "e"}), "description", json!("e")),
        (json!({"description": null}), "description", plain["description"].clone()),
        (json!({"url": "https://example.com/b"}), "url", json!("https://example.com/b")),
        (json!({"events": ["a.*", "b"]}), "events", json!(["a.*", "b"])),
        (json!({"filter": "true"}), "filter", json!("true")),
        (json!({"filter": null}), "filter", plain["filter"].clone()),
        (json!({"headers": {"X-C": "3"}}), "headers", json!({"X-A": "***", "X-B": "***", "X-C": "***"})),
        (json!({"headers": {"X-A": null}}), "headers", json!({"X-B": "***"})),
        (json!({"headers": {"X-A": "***"}}), "headers", json!({"X-A": "***", "X-B": "***"})),
        (json!({"headers": {}}), "headers", json!({"X-A": "***", "X-B": "***"})),
        (json!({"headers": {"X-Z": null}}), "headers", json!({"X-A": "***", "X-B": "***"})),
        (json!({"headers": null}), "headers", plain["headers"].clone()),
        (json!({"retry": null}), "retry", plain["retry"].clone()),
        (json!({"timeout_ms": 700}), "timeout_ms", json!(700)),
        (json!({"timeout_ms": null}), "timeout_ms", plain["timeout_ms"].clone()),
        (json!({"max_in_flight": 5}), "max_in_flight", json!(5)),
        (json!({"max_in_flight": null}), "max_in_flight", plain["max_in_flight"].clone()),
        (json!({"enabled": true}), "enabled", json!(true)),
        (json!({"enabled": null}), "enabled", plain["enabled"].clone()),
        (json!({}), "name", json!("n")),
    ];
    for (patch, member, wanted) in cases {
        let id = server.webhook("acme", "https://example.com/", full.clone());
        let before = hook(&server, &id);
        let answered = server.patch(&format!("/v1/tenants/acme/webhooks/{id}"), patch.clone()).expect(200).json();
        findings.check(answered[member] == wanted, format!("{patch}: {} instead of {wanted}", answered[member]));
        findings.check(hook(&server, &id) == answered, format!("{patch}: what is answered is what is kept"));
        for other in SHOWN.into_iter().filter(|m| *m != member && !["updated_at", "warnings"].contains(m)) {
            findings
                .check(answered[other] == before[other], format!("{patch}: {other} changed to {}", answered[other]));
        }
    }
    // Within `retry`, by member, at every depth.
    for (patch, wanted) in [
        (json!({"jitter": 0.1}), json!([[1.0, 2.0], 0.1, [503], 9])),
        (json!({"jitter": null}), json!([[1.0, 2.0], null, [503], 9])),
        (json!({"waits": [7]}), json!([[7.0], 0.5, [503], 9])),
        (json!({"waits": []}), json!([[], 0.5, [503], 9])),
        (json!({"waits": null}), json!([null, 0.5, [503], 9])),
        (json!({"retry_after": {"cap_s": 5}}), json!([[1.0, 2.0], 0.5, [503], 5])),
        (json!({"retry_after": {"cap_s": null}}), json!([[1.0, 2.0], 0.5, [503], null])),
        (json!({"retry_after": null}), json!([[1.0, 2.0], 0.5, null, null])),
    ] {
        let id = server.webhook("acme", "https://example.com/", full.clone());
        let answered =
            server.patch(&format!("/v1/tenants/acme/webhooks/{id}"), json!({"retry": patch})).expect(200).json();
        let retry = &answered["retry"];
        let waits: Value =
            retry["waits"].as_array().map_or(Value::Null, |w| w.iter().filter_map(Value::as_f64).collect());
        let found = json!([waits, retry["jitter"], retry["retry_after"]["statuses"], retry["retry_after"]["cap_s"]]);
        findings.check(found == wanted, format!("retry {patch}: {found} instead of {wanted}"));
    }
    findings.none();
}

#[test]
fn a_refused_patch_changes_nothing() {
    let server = Server::start();
    server.create_tenant("acme");
    let id = server.webhook("acme", "https://example.com/", json!({"headers": {"X-A": "1"}}));
    let path = format!("/v1/tenants/acme/webhooks/{id}");
    let before = hook(&server, &id);
    let mut findings = Findings::default();
    for (patch, pointers) in [
        (json!({"name": "changed", "profile": "standard"}), vec!["/profile"]),
        (json!({"name": "changed", "profile": "cloudevents"}), vec!["/profile"]),
        (json!({"name": "changed", "profile": null}), vec!["/profile"]),
        (json!({"name": "changed", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}), vec!["/secret"]),
        (json!({"name": null, "url": null, "events": null}), vec!["/name", "/url", "/events"]),
        (json!({"name": "changed", "headers": {"X-New": "***"}}), vec!["/headers/X-New"]),
        (json!({"name": "changed", "verified": true, "id": id, "warnings": []}), vec!["/verified", "/id", "/warnings"]),
        (json!({"name": "changed", "timeout_ms": 1, "filter": "nope ("}), vec!["/timeout_ms", "/filter"]),
    ] {
        let reply = server.patch(&path, patch.clone());
        findings.problem(&patch, &reply, 422, "validation_failed", &pointers);
        findings.check(hook(&server, &id) == before, format!("{patch}: nothing is changed"));
    }
    findings.none();
}

#[test]
fn an_echoed_mask_keeps_the_value() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let id = server.webhook("acme", &to.url("/"), json!({"headers": {"X-Api-Key": "s3cr3t", "X-Other": "o"}}));
    let path = format!("/v1/tenants/acme/webhooks/{id}");
    let shown = hook(&server, &id)["headers"].clone();
    assert_eq!(shown, json!({"X-Api-Key": "***", "X-Other": "***"}));
    server.patch(&path, json!({"secret": "***"})).expect(200);
    let sent = |n: usize| {
        let event = server.publish("acme", "user.created", json!({}));
        server.wait_event("acme", &event, "delivered");
        let request = to.received()[n].clone();
        ["x-api-key", "x-other", "x-third"].map(|name| request.header(name).map(str::to_owned))
    };
    assert_eq!(sent(0), [Some("s3cr3t".to_owned()), Some("o".to_owned()), None]);
    server.patch(&path, json!({"headers": shown, "name": "again"})).expect(200);
    assert_eq!(sent(1), [Some("s3cr3t".to_owned()), Some("o".to_owned()), None]);
    server.patch(&path, json!({"headers": {"X-Api-Key": "***", "X-Other": "p", "X-Third": "3"}})).expect(200);
    assert_eq!(sent(2), [Some("s3cr3t".to_owned()), Some("p".to_owned()), Some("3".to_owned())]);
    server.patch(&path, json!({"headers": {"X-Other": null}})).expect(200);
    assert_eq!(sent(3), [Some("s3cr3t".to_owned()), None, Some("3".to_owned())]);
}

#[test]
fn what_a_patch_changes_counts_for_the_next_event() {
    let server = Server::start();
    server.create_tenant("acme");
    let (old, new) = (receiver(), receiver());
    let id = server.webhook("acme", &old.url("/"), json!({"events": ["a.*"]}));
    let path = format!("/v1/tenants/acme/webhooks/{id}");
    let publish = |event_type: &str| {
        server.publish_event("acme", json!({"type": event_type, "data": {"n": 2}}))["deliveries"].clone()
    };
    assert_eq!((publish("a.x"), publish("b.x")), (json!(1), json!(0)));
    server.patch(&path, json!({"events": ["b.*"]})).expect(200);
    assert_eq!((publish("a.x"), publish("b.x")), (json!(0), json!(1)));
    server.patch(&path, json!({"filter": "data.n > 2"})).expect(200);
    assert_eq!(publish("b.x"), 0);
    server.patch(&path, json!({"filter": null, "enabled": false})).expect(200);
    assert_eq!(publish("b.x"), 0);
    server.patch(&path, json!({"enabled": true, "url": new.url("/")})).expect(200);
    assert_eq!(publish("b.x"), 1);
    new.wait_for_blocking(1);
    assert_eq!(old.count(), 2);
}

#[test]
fn a_deleted_webhook_is_gone_and_what_waits_for_it_is_cancelled() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let gate = Gate::new();
    to.script(Script::status(204).behind(&gate));
    let id = server.webhook("acme", &to.url("/"), json!({"max_in_flight": 1}));
    let events: Vec<String> = (0..5).map(|n| server.publish("acme", "user.created", json!(n))).collect();
    let deliveries: Vec<String> = events.iter().map(|event| server.delivery_of("acme", event)).collect();
    to.wait_for_blocking(1);
    let path = format!("/v1/tenants/acme/webhooks/{id}");
    server.delete(&path).expect(204);
    for reply in [
        server.get(&path),
        server.patch(&path, json!({"name": "x"})),
        server.delete(&path),
        server.post(&format!("{path}/test"), json!({})),
        server.post(&format!("{path}/rotate-secret"), json!({})),
    ] {
        reply.expect_problem(404, "webhook_not_found");
    }
    assert_eq!(server.get("/v1/tenants/acme/webhooks").expect(200).json()["data"], json!([]));
    for delivery in &deliveries[1..] {
        let row = server.delivery("acme", delivery);
        assert_eq!(
            (&row["state"], &row["reason"], &row["next_attempt_at"]),
            (&json!("cancelled"), &json!("webhook_deleted"), &Value::Null),
            "{row}"
        );
    }
    gate.open();
    server.post(&format!("/v1/tenants/acme/deliveries/{}/retry", deliveries[1]), json!({})).expect(409);
    assert_eq!(server.publish_event("acme", json!({"type": "a"}))["deliveries"], 0);
    assert_eq!(to.count(), 1);
}

#[test]
fn webhooks_are_listed_newest_first_each_once() {
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    server.webhook("other", "https://example.com/", json!({}));
    let mut ids: Vec<String> =
        (0..9).map(|n| server.webhook("acme", "https://example.com/", json!({"name": format!("w{n}")}))).collect();
    server.patch(&format!("/v1/tenants/acme/webhooks/{}", ids[2]), json!({"name": "changed"})).expect(200);
    server.delete(&format!("/v1/tenants/acme/webhooks/{}", ids[5])).expect(204);
    ids.remove(5);
    ids.reverse();
    for limit in [1, 3, 8, 250] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("/v1/tenants/acme/webhooks?limit={limit}{cursor}")).expect(200).json();
            seen.extend(column(page["data"].as_array().expect("rows"), "id"));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, ids, "limit {limit}");
    }
}

#[test]
fn two_changes_at_once_both_count() {
    let server = Server::start();
    server.create_tenant("acme");
    let body = webhook_body("https://example.com/", json!({"name": "n"}));
    let id = text(&server.post("/v1/tenants/acme/webhooks", body).expect(201).json(), "id");
    let path = format!("/v1/tenants/acme/webhooks/{id}");
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (mut client, path) = (server.client(), path.clone());
            scope.spawn(move || {
                for round in 0..10 {
                    let mut patch = json!({"headers": {}});
                    patch["headers"][format!("X-{n}-{round}")] = json!("v");
                    // Under contention a change may be refused, but never lost.
                    while client.patch(&path, patch.clone()).status == 409 {}
                    let mut undo = json!({"headers": {}});
                    if round < 9 {
                        undo["headers"][format!("X-{n}-{round}")] = Value::Null;
                        while client.patch(&path, undo.clone()).status == 409 {}
                    }
                }
            });
        }
    });
    let headers = hook(&server, &id)["headers"].clone();
    assert_eq!(headers, json!({"X-0-9": "***", "X-1-9": "***", "X-2-9": "***", "X-3-9": "***"}));
}
