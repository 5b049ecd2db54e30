//! The catalogue as one tenant has it: its own types, strict types, when each was last published.

use serde_json::{Value, json};

use super::{Findings, column, members};
use crate::harness::{Client, Server, receiver, run_against, text, wait_until};

const TYPES: &str = "/v1/event-types";

fn of(name: &str, tenant: &str) -> String {
    format!("{TYPES}/{name}?tenant={tenant}")
}

fn client(server: &Server, scopes: Value, tenant: &str) -> Client {
    let key = server.post("/v1/keys", json!({"name": "k", "scopes": scopes, "tenant": tenant})).expect(201);
    server.client_with(&text(&key.json(), "key"))
}

#[test]
fn a_tenants_own_type_stands_over_the_servers_for_it_alone() {
    let mut server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    let shipped = server.get(&format!("{TYPES}/user.created")).expect(200).json();
    let schema = json!({"type": "object", "required": ["seat"]});
    let own = json!({"description": "ours", "schema": schema, "urgency": "bulk", "deprecated": true});
    let reply = server.put(&of("user.created", "acme"), own.clone()).expect(201);
    assert_eq!(reply.header("location"), Some("/v1/event-types/user.created?tenant=acme"));
    let made = reply.json();
    for (member, value) in own.as_object().expect("members") {
        assert_eq!(made[member], *value, "{member}");
    }
    assert_eq!((&made["tenant"], &made["builtin"], &made["declared"]), (&json!("acme"), &json!(false), &json!(true)));
    assert_eq!(server.get(&of("user.created", "acme")).expect(200).json(), made);
    server.put(&of("seat.taken", "acme"), json!({"schema": schema})).expect(201);
    server.put(&of("seat.taken", "acme"), json!({"schema": schema, "description": "again"})).expect(200);

    let look = |server: &Server| {
        // The server's, and the other tenant's, are as they were.
        assert_eq!(server.get(&format!("{TYPES}/user.created")).expect(200).json(), shipped);
        let others = server.get(&of("user.created", "other")).expect(200).json();
        assert_eq!((&others["description"], &others["tenant"]), (&shipped["description"], &Value::Null));
        server.get(&of("seat.taken", "other")).expect_problem(404, "event_type_not_found");
        server.get(&format!("{TYPES}/seat.taken")).expect_problem(404, "event_type_not_found");
        let names = |path: &str| column(&server.all(path), "name");
        assert!(names(&format!("{TYPES}?tenant=acme")).contains(&"seat.taken".to_owned()));
        assert!(!names(&format!("{TYPES}?tenant=other")).contains(&"seat.taken".to_owned()));
        assert!(!names(TYPES).contains(&"seat.taken".to_owned()));
        // Its schema is enforced for this tenant, alone and in a batch, and its urgency counts.
        for name in ["user.created", "seat.taken"] {
            let bad = json!({"type": name, "data": {}});
            let reply = server.post("/v1/tenants/acme/events", bad.clone());
            assert_eq!(reply.expect_problem(422, "validation_failed").pointers(), ["/data"]);
            let batch = json!({"events": [{"type": "a"}, bad]});
            let reply = server.post("/v1/tenants/acme/events/batch", batch.clone());
            assert_eq!(reply.expect_problem(422, "validation_failed").pointers(), ["/events/1/data"]);
            server.post("/v1/tenants/other/events/batch", batch).expect(202);
        }
        let event = text(&server.publish_event("acme", json!({"type": "user.created", "data": {"seat": 1}})), "id");
        assert_eq!(server.event("acme", &event)["urgency"], "bulk");
    };
    look(&server);
    server.kill9();
    server.restart();
    // Before anything else of the tenant was asked for: what it declared counts from the first event on.
    let bad = json!({"type": "seat.taken", "data": {}});
    server.post("/v1/tenants/acme/events", bad).expect_problem(422, "validation_failed");

    server.delete(&of("user.created", "acme")).expect(204);
    server.delete(&of("user.created", "acme")).expect_problem(404, "event_type_not_found");
    server.delete(&of("user.created", "other")).expect_problem(404, "event_type_not_found");
    let again = server.get(&of("user.created", "acme")).expect(200).json();
    assert_eq!((&again["description"], &again["tenant"]), (&shipped["description"], &Value::Null));
    server.publish("acme", "user.created", json!({}));
    // A new tenant of the same id begins without.
    server.delete("/v1/tenants/acme").expect(204);
    server.create_tenant("acme");
    server.get(&of("seat.taken", "acme")).expect_problem(404, "event_type_not_found");
    server.publish("acme", "seat.taken", json!({}));
}

#[test]
fn strict_tenants_take_declared_types_only() {
    let server = Server::start();
    server.create_tenant("acme");
    server.publish("acme", "my.type", json!(1));
    server.put("/v1/tenants/acme", json!({"settings": {"strict_types": true}})).expect(200);
    let events = "/v1/tenants/acme/events";
    // Having been published before does not declare it.
    let reply = server.post(events, json!({"type": "my.type"})).expect_problem(422, "validation_failed");
    assert_eq!(reply.pointers(), ["/type"]);
    let message = text(&reply.json()["errors"][0], "message");
    assert!(message.contains("my.type") && message.contains("PUT /v1/event-types/my.type"), "{message}");
    let batch = json!({"events": [{"type": "user.created"}, {"type": "my.type"}, {"type": "no.such"}]});
    let reply = server.post(&format!("{events}/batch"), batch).expect_problem(422, "validation_failed");
    assert_eq!(reply.pointers(), ["/events/1/type", "/events/2/type"]);
    let cloud = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "my.type"});
    let headers = [("content-type", "application/cloudevents+json")];
    assert_eq!(
        server.send("POST", events, &headers, cloud).expect_problem(422, "validation_failed").pointers(),
        ["/type"]
    );

    server.publish("acme", "user.created", json!({}));
    server.put(&of("my.type", "acme"), json!({})).expect(201);
    server.publish("acme", "my.type", json!(2));
    server.put(&format!("{TYPES}/no.such"), json!({})).expect(201);
    server.publish("acme", "no.such", json!(2));
    server.delete(&of("my.type", "acme")).expect(204);
    server.post(events, json!({"type": "my.type"})).expect_problem(422, "validation_failed");
    server.put("/v1/tenants/acme", json!({"settings": {"strict_types": false}})).expect(200);
    server.publish("acme", "my.type", json!(3));
    assert_eq!(server.all(&format!("{events}?type=my.type")).len(), 3);
}

#[test]
fn when_a_type_was_last_published_is_known_at_once_and_after_a_crash() {
    let mut server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    let last = |server: &Server, name: &str, tenant: &str| {
        server.get(&of(name, tenant)).expect(200).json()["last_published"].clone()
    };
    assert_eq!(last(&server, "user.created", "acme"), Value::Null);
    server.publish("acme", "user.created", json!(1));
    let event = server.publish("acme", "user.created", json!(2));
    let seen = server.publish("acme", "my.type", json!(2));
    let at = |server: &Server, id: &str| server.event("acme", id)["accepted_at"].clone();
    assert_eq!(last(&server, "user.created", "acme"), at(&server, &event));
    assert_eq!(last(&server, "my.type", "acme"), at(&server, &seen));
    assert_eq!(last(&server, "user.created", "other"), Value::Null);
    // Its own time counts for the event, not for when it was published.
    let old = json!({"type": "user.deleted", "timestamp": "2020-01-01T00:00:00Z"});
    let old = text(&server.publish_event("acme", old), "id");
    assert_eq!(last(&server, "user.deleted", "acme"), at(&server, &old));

    // P1 has nothing to do with it, and yet nothing is lost: it is found in the events.
    server.kill9();
    server.restart();
    wait_until("the types to be found again", || (last(&server, "my.type", "acme") != Value::Null).then_some(()));
    assert_eq!(last(&server, "user.created", "acme"), at(&server, &event));
    let listed = server.all(&format!("{TYPES}?tenant=acme"));
    let row = listed.iter().find(|row| row["name"] == "my.type").expect("listed");
    assert_eq!((&row["last_published"], &row["declared"]), (&at(&server, &seen), &json!(false)));
    let duplicate = json!({"type": "user.updated", "id": "d"});
    let first = text(&server.publish_event("acme", duplicate.clone()), "id");
    server.publish_event("acme", duplicate);
    assert_eq!(last(&server, "user.updated", "acme"), at(&server, &first));
    server.terminate();
    server.restart();
    assert_eq!(last(&server, "user.updated", "acme"), at(&server, &first));
    // Without a tenant there is nothing to tell.
    let plain = server.get(&format!("{TYPES}/user.created")).expect(200).json();
    assert!(!members(&plain).contains(&"last_published") && !members(&plain).contains(&"tenant"));
}

#[test]
fn p5_what_one_tenant_declares_or_publishes_no_other_sees() {
    let server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    server.publish("acme", "secret.project", json!({}));
    server.put(&of("secret.plan", "acme"), json!({})).expect(201);
    let mut acme = client(&server, json!(["read"]), "acme");
    let mut other = client(&server, json!(["manage"]), "other");
    // A key bound to a tenant sees its tenant's, named or not.
    for query in ["", "?tenant=acme"] {
        let mine = acme.all(&format!("{TYPES}{query}"));
        assert!(mine.iter().filter(|row| text(row, "name").starts_with("secret.")).count() == 2, "{query}");
        assert_eq!(acme.get(&format!("{TYPES}/secret.project{query}")).expect(200).json()["declared"], false);
    }
    let names = column(&other.all(TYPES), "name");
    assert!(names.len() > 100 && !names.iter().any(|name| name.starts_with("secret.")), "{names:?}");
    let mut findings = Findings::default();
    for name in ["secret.project", "secret.plan"] {
        for path in [format!("{TYPES}/{name}"), of(name, "other")] {
            findings.problem(&path, &other.get(&path), 404, "event_type_not_found", &[]);
        }
        let path = of(name, "acme");
        findings.problem(&path, &other.get(&path), 404, "tenant_not_found", &[]);
        findings.problem(&path, &other.put(&path, json!({})), 404, "tenant_not_found", &[]);
        findings.problem(&path, &other.delete(&path), 404, "tenant_not_found", &[]);
    }
    findings.problem("list", &other.get(&format!("{TYPES}?tenant=acme")), 404, "tenant_not_found", &[]);
    findings.problem("no tenant", &server.get(&of("user.created", "none")), 404, "tenant_not_found", &[]);
    // Its own it may declare; the server's it may not, and read is not enough.
    findings.status("own", &other.put(&of("my.type", "other"), json!({})), 201);
    findings.status("own", &other.delete(&of("my.type", "other")), 204);
    findings.problem("server's", &other.put(&format!("{TYPES}/my.type"), json!({})), 403, "forbidden", &[]);
    findings.problem("server's", &other.delete(&format!("{TYPES}/my.type")), 403, "forbidden", &[]);
    findings.problem("read", &acme.put(&of("my.type", "acme"), json!({})), 403, "forbidden", &[]);
    findings.problem(
        "own family",
        &server.put(&of("gatepost.x", "acme"), json!({})),
        422,
        "validation_failed",
        &["{name}"],
    );
    findings.none();
}

#[test]
fn pages_of_a_tenants_types_leave_nothing_out() {
    let server = Server::start();
    server.create_tenant("acme");
    for n in 0..4 {
        server.publish("acme", &format!("zzz.seen{n}"), json!({}));
        server.publish("acme", &format!("aaa.seen{n}"), json!({}));
        server.put(&of(&format!("mmm.own{n}"), "acme"), json!({})).expect(201);
        server.publish("acme", &format!("mmm.own{n}"), json!({}));
    }
    let all = column(&server.all(&format!("{TYPES}?tenant=acme")), "name");
    assert_eq!(all.iter().filter(|name| name.starts_with("mmm.") || name.contains(".seen")).count(), 12, "{all:?}");
    for limit in [1, 10, 33, 249] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("{TYPES}?tenant=acme&limit={limit}{cursor}")).expect(200).json();
            seen.extend(column(page["data"].as_array().expect("rows"), "name"));
            let Some(next) = page["next_cursor"].as_str() else { break };
            // A cursor of this list is none of another.
            server.get(&format!("{TYPES}?cursor={next}")).expect_problem(422, "invalid_cursor");
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, all, "limit {limit}");
    }
}

#[test]
fn own_types_count_as_known_and_give_examples() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let warned = server.create_webhook("acme", &to.url("/"), json!({"events": ["seat.taken"]}));
    assert_eq!(warned["warnings"].as_array().map(Vec::len), Some(1), "{warned}");
    server.put(&of("seat.taken", "acme"), json!({"example": {"seat": 7}})).expect(201);
    let fine = server.create_webhook("acme", &to.url("/"), json!({"events": ["seat.taken"]}));
    assert_eq!(fine["warnings"], json!([]), "{fine}");
    let path = format!("/v1/tenants/acme/webhooks/{}/test", text(&fine, "id"));
    server.post(&path, json!({"event_type": "seat.taken"})).expect(200);
    assert_eq!(to.received()[0].json()["data"], json!({"seat": 7}));
}

#[test]
fn the_command_line_manages_a_tenants_types() {
    let server = Server::start();
    server.create_tenant("acme");
    let file = server.folder().join("type.json");
    std::fs::write(&file, r#"{"description":"A seat","example":{"seat":1}}"#).unwrap();
    let file = file.to_str().expect("a path");
    let gatepost = |args: &[&str]| run_against(&server, args).expect(0).stdout;
    let shown = gatepost(&["event-types", "put", "seat.taken", file, "--tenant", "acme"]);
    assert!(shown.contains("acme"), "{shown}");
    server.publish("acme", "seat.taken", json!({}));
    let list = gatepost(&["event-types", "list", "--tenant", "acme"]);
    assert!(list.contains("seat.taken"), "{list}");
    let json: Value =
        serde_json::from_str(&gatepost(&["event-types", "show", "seat.taken", "--tenant", "acme", "--json"])).unwrap();
    assert_eq!((&json["tenant"], json["last_published"].is_string()), (&json!("acme"), true));
    assert!(!gatepost(&["event-types", "list"]).contains("seat.taken"));
    // `trigger` publishes the tenant's example.
    gatepost(&["trigger", "seat.taken", "--tenant", "acme"]);
    assert_eq!(server.all("/v1/tenants/acme/events")[0]["data"], json!({"seat": 1}));
    gatepost(&["event-types", "delete", "seat.taken", "--tenant", "acme"]);
    assert_eq!(server.get(&of("seat.taken", "acme")).expect(200).json()["declared"], false);
}
