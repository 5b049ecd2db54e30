//! Event types: declared, replaced, seen, listed.

use serde_json::{Value, json};

use super::{Findings, column, members};
use crate::harness::{Server, text};

const TYPES: &str = "/v1/event-types";

#[test]
fn a_type_is_declared_shown_replaced_and_taken_away() {
    let server = Server::start();
    let path = format!("{TYPES}/my.type");
    server.get(&path).expect_problem(404, "event_type_not_found");
    let full = json!({"family": "mine", "description": "d", "example": {"a": [1, null]}, "schema": {"type": "object"}, "urgency": "urgent", "deprecated": true});
    let created = server.put(&path, full.clone()).expect(201).json();
    for (member, value) in full.as_object().expect("members") {
        assert_eq!(created[member], *value, "{member}");
    }
    assert_eq!((&created["name"], &created["declared"]), (&json!("my.type"), &json!(true)));
    assert_eq!(server.get(&path).expect(200).json(), created);

    let replaced = server.put(&path, json!({"description": "e"})).expect(200).json();
    assert_eq!(replaced["description"], "e");
    assert_eq!(server.get(&path).expect(200).json(), replaced);
    server.delete(&path).expect(204);
    server.get(&path).expect_problem(404, "event_type_not_found");
    server.delete(&path).expect_problem(404, "event_type_not_found");

    // Nothing is needed; the family is the first segment.
    let least = server.put(&path, ()).expect(201).json();
    assert_eq!(
        (&least["family"], &least["urgency"], &least["deprecated"]),
        (&json!("my"), &json!("normal"), &json!(false))
    );
    assert_eq!((&least["example"], &least["schema"]), (&Value::Null, &Value::Null));
}

#[test]
fn declarations_outlive_a_restart() {
    let mut server = Server::start();
    server.put(&format!("{TYPES}/my.type"), json!({"description": "d", "urgency": "bulk"})).expect(201);
    server.put(&format!("{TYPES}/user.created"), json!({"description": "ours"})).expect(200);
    server.create_tenant("acme");
    server.publish("acme", "seen.once", json!({}));
    server.kill9();
    server.restart();
    let declared = server.get(&format!("{TYPES}/my.type")).expect(200).json();
    assert_eq!((&declared["description"], &declared["urgency"]), (&json!("d"), &json!("bulk")));
    assert_eq!(server.get(&format!("{TYPES}/user.created")).expect(200).json()["description"], "ours");
    assert_eq!(server.get(&format!("{TYPES}/seen.once")).expect(200).json()["declared"], false);
}

#[test]
fn names_and_members_are_judged() {
    let server = Server::start();
    let mut findings = Findings::default();
    let long = "x".repeat(129);
    for bad in [
        "a..b",
        ".a",
        "a.",
        "a%20b",
        "user.all",
        "all",
        "*",
        "user.*",
        "%C3%A9",
        "gatepost.x",
        "gatepost.webhook.created",
        &long,
    ] {
        findings.problem(bad, &server.put(&format!("{TYPES}/{bad}"), json!({})), 422, "validation_failed", &["{name}"]);
    }
    for bad in ["a..b", "no.such", "%C3%A9", &long] {
        findings.problem(bad, &server.get(&format!("{TYPES}/{bad}")), 404, "event_type_not_found", &[]);
        findings.problem(bad, &server.delete(&format!("{TYPES}/{bad}")), 404, "event_type_not_found", &[]);
    }
    let reply = server.put(&format!("{TYPES}/a"), json!({"name": "b", "declared": true}));
    findings.problem("members that are answered only", &reply, 422, "validation_failed", &["/name", "/declared"]);
    findings.none();
}

#[test]
fn types_nobody_declared_appear_once_published() {
    let server = Server::start();
    server.create_tenant("acme");
    server.publish("acme", "brand.new", json!({}));
    server
        .post("/v1/tenants/acme/events/batch", json!({"events": [{"type": "also.new"}, {"type": "also.new"}]}))
        .expect(202);
    for name in ["brand.new", "also.new"] {
        let seen = server.get(&format!("{TYPES}/{name}")).expect(200).json();
        assert_eq!((&seen["declared"], &seen["name"]), (&json!(false), &json!(name)));
    }
    let names = column(&server.all(TYPES), "name");
    assert_eq!(names.iter().filter(|name| *name == "brand.new" || *name == "also.new").count(), 2);
    // Declaring it makes it a declared one; taking that away, a seen or an unknown one again.
    server.put(&format!("{TYPES}/brand.new"), json!({"description": "now"})).expect(201);
    assert_eq!(server.get(&format!("{TYPES}/brand.new")).json()["declared"], true);
    assert_eq!(server.event("acme", &server.publish("acme", "brand.new", json!({})))["type"], "brand.new");
}

#[test]
fn the_four_systems_types_come_with_the_server() {
    let server = Server::start();
    let all = server.all(TYPES);
    let names = column(&all, "name");
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len(), "each once");
    for row in &all {
        assert_eq!(row["declared"], true);
        for member in ["name", "family", "description", "example", "schema", "urgency", "deprecated"] {
            assert!(members(row).contains(&member), "{member} in {row}");
        }
        assert!(["urgent", "normal", "bulk"].contains(&text(row, "urgency").as_str()));
        assert_eq!(server.get(&format!("{TYPES}/{}", text(row, "name"))).expect(200).json(), *row);
    }
    // Some of each system.
    for name in [
        "user.created",
        "dir_sync.user.created",
        "cymmetri.preCreateUser",
        "cymmetri.postUpdateUser",
        "gatepost.webhook.created",
    ] {
        if name != "dir_sync.user.created" {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
    }
    assert!(
        names.iter().any(|n| n.starts_with("dir_sync.")) && names.iter().any(|n| n.starts_with("sso_saml.")),
        "Cryptr's families"
    );
    assert!(names.len() > 100, "{}", names.len());

    // A built-in one that was replaced comes back when that is taken away.
    let path = format!("{TYPES}/user.created");
    let shipped = server.get(&path).expect(200).json();
    server.put(&path, json!({"description": "ours"})).expect(200);
    server.delete(&path).expect(204);
    assert_eq!(server.get(&path).expect(200).json(), shipped);
}

#[test]
fn pages_of_types_leave_nothing_out() {
    let server = Server::start();
    server.create_tenant("acme");
    for n in 0..5 {
        server.publish("acme", &format!("zzz.seen{n}"), json!({}));
        server.publish("acme", &format!("aaa.seen{n}"), json!({}));
        server.put(&format!("{TYPES}/mmm.declared{n}"), json!({})).expect(201);
    }
    let all = column(&server.all(TYPES), "name");
    for limit in [1, 10, 33, 249] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("{TYPES}?limit={limit}{cursor}")).expect(200).json();
            seen.extend(column(page["data"].as_array().expect("rows"), "name"));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, all, "limit {limit}");
    }
}

#[test]
fn schemas_of_built_in_types_are_shown_and_enforced_where_a_tenant_asks() {
    let server = Server::start();
    server.create_tenant("acme");
    let shown = |name: &str| server.get(&format!("{TYPES}/{name}")).expect(200).json();
    assert_eq!(shown("user.session.start")["schema"]["properties"]["severity"]["enum"][0], "DEBUG");
    assert_eq!(shown("cymmetri.postProvision")["schema"]["required"], json!(["user", "applicationId", "isSuccess"]));
    let created = shown("user.created");
    assert_eq!(created["examples"]["ferriskey"]["username"], "ada");
    assert!(created["example"]["user"].is_object() && shown("client.created").get("examples").is_none());
    // They describe; nobody is held to them unasked.
    let odd = json!({"type": "user.session.start", "data": {"severity": 5}});
    let publish = |event: Value| server.post("/v1/tenants/acme/events", event);
    publish(odd.clone()).expect(202);
    server.put("/v1/tenants/acme", json!({"settings": {"enforce_builtin_schemas": true}})).expect(200);
    assert_eq!(publish(odd.clone()).expect_problem(422, "validation_failed").pointers(), ["/data/severity"]);
    for system in ["example", "ferriskey"] {
        let data = if system == "example" { &created["example"] } else { &created["examples"][system] };
        publish(json!({"type": "user.created", "data": data})).expect(202);
    }
    publish(json!({"type": "user.created", "data": {"login": "a"}})).expect_problem(422, "validation_failed");
    // A schema that was put counts always, and stands over the built-in one.
    server.put(&format!("{TYPES}/user.session.start?tenant=acme"), json!({"schema": {"required": ["n"]}})).expect(201);
    publish(odd).expect_problem(422, "validation_failed");
    publish(json!({"type": "user.session.start", "data": {"severity": 5, "n": 1}})).expect(202);
    // A test shows what the webhook's system would send.
    let inbox = crate::harness::receiver();
    for (profile, member) in [("ferriskey", "/data/username"), ("standard", "/data/user/id")] {
        let hook = server.webhook("acme", &inbox.url("/"), json!({"profile": profile}));
        let path = format!("/v1/tenants/acme/webhooks/{hook}/test");
        server.post(&path, json!({"event_type": "user.created"})).expect(200);
        let body = inbox.received().last().expect("a test").json();
        assert!(body.pointer(member).is_some(), "{profile}: {body}");
    }
}
