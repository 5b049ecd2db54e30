//! Tenants: put, show, list, delete.

use serde_json::{Value, json};

use super::{Findings, column, members};
use crate::harness::{Server, receiver, text};

const SHOWN: [&str; 6] = ["created_at", "environment", "id", "name", "settings", "updated_at"];

#[test]
fn put_creates_then_changes_and_absent_members_keep() {
    let server = Server::start();
    let path = "/v1/tenants/acme";
    server.get(path).expect_problem(404, "tenant_not_found");
    let created = server.put(path, json!({})).expect(201).json();
    assert_eq!(members(&created), SHOWN);
    assert_eq!(
        (created["id"].as_str(), &created["name"], created["environment"].as_str()),
        (Some("acme"), &Value::Null, Some("production"))
    );
    assert_eq!(created["settings"]["allow_nets"], json!([]));
    assert!(text(&created, "created_at").ends_with('Z'));

    let steps = [
        (json!({"name": "Acme"}), json!(["Acme", "production", []])),
        (json!({"environment": "sandbox"}), json!(["Acme", "sandbox", []])),
        (json!({"settings": {"allow_nets": ["10.0.0.0/8"]}}), json!(["Acme", "sandbox", ["10.0.0.0/8"]])),
        (json!({}), json!(["Acme", "sandbox", ["10.0.0.0/8"]])),
        (json!({"settings": {}}), json!(["Acme", "sandbox", ["10.0.0.0/8"]])),
        (json!({"name": "Ünï 😀"}), json!(["Ünï 😀", "sandbox", ["10.0.0.0/8"]])),
        (json!({"settings": {"allow_nets": []}, "environment": "production"}), json!(["Ünï 😀", "production", []])),
    ];
    for (body, wanted) in steps {
        let answered = server.put(path, body.clone()).expect(200).json();
        let of = |t: &Value| json!([t["name"], t["environment"], t["settings"]["allow_nets"]]);
        assert_eq!(of(&answered), wanted, "{body}");
        assert_eq!(server.get(path).expect(200).json(), answered, "{body}");
        assert_eq!(answered["created_at"], created["created_at"]);
    }
}

#[test]
fn a_deleted_tenant_is_gone_with_everything_and_comes_back_empty() {
    let server = Server::start();
    let to = receiver();
    server.create_tenant("acme");
    let webhook = server.webhook("acme", &to.url("/"), json!({}));
    let event = server.publish("acme", "user.created", json!({"n": 1}));
    server.wait_event("acme", &event, "delivered");
    server.publish_event("acme", json!({"type": "a", "id": "mine", "data": 1}));
    to.wait_for_blocking(2);

    server.delete("/v1/tenants/acme").expect(204);
    assert!(server.delete("/v1/tenants/acme").expect_problem(404, "tenant_not_found").text().contains("acme"));
    for path in
        ["", "/webhooks", "/events", "/deliveries", &format!("/webhooks/{webhook}"), &format!("/events/{event}")]
    {
        server.get(&format!("/v1/tenants/acme{path}")).expect_problem(404, "tenant_not_found");
    }
    server.post("/v1/tenants/acme/events", json!({"type": "a"})).expect_problem(404, "tenant_not_found");
    let left = server.get("/v1/tenants").expect(200).json();
    assert_eq!(left["data"], json!([]));

    server.put("/v1/tenants/acme", json!({})).expect(201);
    for list in ["webhooks", "events", "deliveries"] {
        let page = server.get(&format!("/v1/tenants/acme/{list}")).expect(200).json();
        assert_eq!(page, json!({"data": [], "next_cursor": null}), "{list}");
    }
    server.get(&format!("/v1/tenants/acme/webhooks/{webhook}")).expect_problem(404, "webhook_not_found");
    server.get(&format!("/v1/tenants/acme/events/{event}")).expect_problem(404, "event_not_found");
    // Its ids are free again, and its old webhook hears nothing.
    let again = server.publish_event("acme", json!({"type": "a", "id": "mine", "data": 2}));
    assert_eq!((again["duplicate"].clone(), again["deliveries"].clone()), (json!(false), json!(0)));
    let feed = server.get("/v1/tenants/acme/events?order=asc").expect(200).json();
    assert_eq!(column(feed["data"].as_array().expect("rows"), "id"), ["mine"]);
    assert_eq!(to.count(), 2);
}

#[test]
fn deleting_a_tenant_ends_what_waits_for_delivery() {
    let server = Server::start();
    let to = receiver();
    let gate = gatepost_testkit::Gate::new();
    to.script(gatepost_testkit::Script::status(204).behind(&gate));
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    server.webhook("acme", &to.url("/acme"), json!({"max_in_flight": 1}));
    server.webhook("other", &to.url("/other"), json!({}));
    for n in 0..20 {
        server.publish("acme", "user.created", json!(n));
    }
    to.wait_for_blocking(1);
    server.delete("/v1/tenants/acme").expect(204);
    gate.open();
    let event = server.publish("other", "user.created", json!({}));
    server.wait_event("other", &event, "delivered");
    let to_acme = to.received().iter().filter(|r| r.path == "/acme").count();
    assert!(to_acme <= 1, "{to_acme} requests for a tenant that is gone");
}

#[test]
fn tenants_are_listed_newest_first() {
    let server = Server::start();
    let names: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
    for name in &names {
        server.create_tenant(name);
    }
    server.put("/v1/tenants/t3", json!({"name": "changed"})).expect(200);
    let mut findings = Findings::default();
    let mut newest_first = names;
    newest_first.reverse();
    for limit in [1, 2, 7, 250] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("/v1/tenants?limit={limit}{cursor}")).expect(200).json();
            let rows = page["data"].as_array().expect("rows").clone();
            findings.check(rows.len() <= limit, "a page is no longer than asked for");
            findings.check(rows.iter().all(|row| members(row) == SHOWN), "rows have the members of the single view");
            seen.extend(column(&rows, "id"));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        findings.check(seen == newest_first, format!("limit {limit}: {seen:?}"));
    }
    findings.none();
}
