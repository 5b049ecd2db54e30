//! API keys: made, shown once, bound, ended.

use serde_json::{Value, json};

use super::{column, members};
use crate::harness::{Server, text, wait_until};

#[test]
fn a_key_is_shown_once_and_works_at_once() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let body =
        json!({"name": "ci", "scopes": ["publish", "read"], "tenant": "acme", "expires_at": "2101-01-01T00:00:00Z"});
    let created = server.post("/v1/keys", body).expect(201).json();
    let (id, key) = (text(&created, "id"), text(&created, "key"));
    assert!(id.starts_with("key_") && key.len() >= 24, "{id}");
    assert_eq!(
        (&created["name"], &created["tenant"], &created["expires_at"]),
        (&json!("ci"), &json!("acme"), &json!("2101-01-01T00:00:00.000000Z"))
    );
    let mut scopes = column_of(&created["scopes"]);
    scopes.sort();
    assert_eq!(scopes, ["publish", "read"]);

    let list = server.get("/v1/keys").expect(200);
    assert!(!list.text().contains(&key), "shown once");
    let row = list.json()["data"]
        .as_array()
        .expect("rows")
        .iter()
        .find(|row| row["id"] == id)
        .cloned()
        .expect("it is listed");
    for member in ["name", "tenant", "expires_at", "scopes", "created_at"] {
        assert_eq!(row[member], created[member], "{member}");
    }
    assert!(!members(&row).contains(&"hash") && row.get("key").is_none_or(Value::is_null));

    let mut client = server.client_with(&key);
    client.post("/v1/tenants/acme/events", json!({"type": "a"})).expect(202);
    client.get("/v1/tenants/acme/events").expect(200);
    client.post("/v1/tenants/acme/webhooks", json!({})).expect_problem(403, "forbidden");

    // It outlives a restart; deleted it stops at once, for good.
    server.kill9();
    server.restart();
    let mut client = server.client_with(&key);
    client.get("/v1/tenants/acme/events").expect(200);
    server.delete(&format!("/v1/keys/{id}")).expect(204);
    client.get("/v1/tenants/acme/events").expect_problem(401, "unauthorized");
    client.post("/v1/tenants/acme/events", json!({"type": "a"})).expect_problem(401, "unauthorized");
    server.delete(&format!("/v1/keys/{id}")).expect_problem(404, "key_not_found");
    server.delete("/v1/keys/nonsense").expect_problem(404, "key_not_found");
    server.kill9();
    server.restart();
    server.client_with(&key).get("/v1/tenants/acme/events").expect_problem(401, "unauthorized");
}

fn column_of(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|v| v.as_str().expect("texts").to_owned()).collect()
}

#[test]
fn defaults_are_no_tenant_and_no_end() {
    let server = Server::start();
    let created = server.post("/v1/keys", json!({"name": "k", "scopes": ["read"]})).expect(201).json();
    assert_eq!((&created["tenant"], &created["expires_at"]), (&Value::Null, &Value::Null));
    for name in ["acme", "other"] {
        server.create_tenant(name);
        server.client_with(&text(&created, "key")).get(&format!("/v1/tenants/{name}")).expect(200);
    }
}

#[test]
fn a_key_ends_when_it_expires() {
    let server = Server::start();
    server.create_tenant("acme");
    // The server's own clock tells the time: what it stamps is now.
    let now = text(&server.publish_event("acme", json!({"type": "a"})), "timestamp");
    server
        .post("/v1/keys", json!({"name": "k", "scopes": ["read"], "expires_at": now}))
        .expect_problem(422, "validation_failed");
    let soon: gatepost_core::Timestamp = now.parse().expect("RFC 3339");
    let soon = soon.saturating_add(std::time::Duration::from_secs(2));
    let created = server
        .post("/v1/keys", json!({"name": "k", "scopes": ["read"], "expires_at": soon.to_string()}))
        .expect(201)
        .json();
    let mut client = server.client_with(&text(&created, "key"));
    let first = client.get("/v1/tenants/acme").status;
    let at = text(&server.publish_event("acme", json!({"type": "a"})), "timestamp");
    assert!(first == 200 || at.parse().is_ok_and(|at: gatepost_core::Timestamp| at >= soon), "{first} at {at}");
    let refused = wait_until("the key to expire", || Some(client.get("/v1/tenants/acme")).filter(|r| r.status != 200));
    refused.expect_problem(401, "unauthorized");
    let at = text(&server.publish_event("acme", json!({"type": "a"})), "timestamp");
    assert!(at.parse().is_ok_and(|at: gatepost_core::Timestamp| at >= soon), "not before its time: {at}");
}

#[test]
fn keys_are_listed_newest_first() {
    let server = Server::start();
    let mut ids: Vec<String> = Vec::new();
    for n in 0..6 {
        let created = server.post("/v1/keys", json!({"name": format!("k{n}"), "scopes": ["read"]})).expect(201).json();
        ids.insert(0, text(&created, "id"));
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/v1/keys?limit=2{cursor}")).expect(200).json();
        seen.extend(column(page["data"].as_array().expect("rows"), "id"));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen[..6], ids);
}

#[test]
fn a_bound_key_can_make_no_other_keys() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut bound = server.client_with(&server.create_key(&["admin", "manage"], Some("acme")));
    bound.get("/v1/tenants/acme").expect(200);
    let reply = bound.post("/v1/keys", json!({"name": "k", "scopes": ["admin"]}));
    assert!(matches!(reply.status, 403 | 404), "{reply:?}");
    let reply = bound.put("/v1/tenants/new", json!({}));
    assert!(matches!(reply.status, 403 | 404), "{reply:?}");
    let mut plain = server.client_with(&server.create_key(&["manage", "publish", "read", "invoke"], None));
    for reply in [
        plain.post("/v1/keys", json!({"name": "k", "scopes": ["admin"]})),
        plain.get("/v1/keys"),
        plain.get("/v1/tenants"),
        plain.put("/v1/tenants/new", json!({})),
        plain.delete("/v1/tenants/acme"),
        plain.put("/v1/event-types/a.b", json!({})),
    ] {
        reply.expect_problem(403, "forbidden");
    }
}
