//! A tenant's settings: read, kept by member, shown whole, judged.

use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Server, text};

fn defaults() -> Value {
    json!({
        "require_verification": false,
        "strict_types": false,
        "enforce_builtin_schemas": false,
        "retention": {"events_days": 30, "attempts_days": 30},
        "hooks": "enabled",
        "quotas": {"webhooks": null, "events_per_s": null, "pending": null},
        "allow_nets": [],
    })
}

/// `change` merged into `value`, member by member.
fn merged(mut value: Value, change: &Value) -> Value {
    for (name, change) in change.as_object().expect("an object") {
        value[name] = if change.is_object() { merged(value[name].take(), change) } else { change.clone() };
    }
    value
}

#[test]
fn settings_are_shown_whole_and_kept_by_member() {
    let mut server = Server::start();
    let path = "/v1/tenants/acme";
    let mut wanted = defaults();
    assert_eq!(server.put(path, json!({})).expect(201).json()["settings"], wanted);
    for change in [
        json!({"strict_types": true}),
        json!({"enforce_builtin_schemas": true}),
        json!({"retention": {"events_days": 7}}),
        json!({"retention": {"attempts_days": 3650}}),
        json!({"hooks": "bypass", "quotas": {"webhooks": 3}}),
        json!({"quotas": {"events_per_s": 50, "pending": 1000}, "require_verification": true}),
        json!({"quotas": {"webhooks": null}, "retention": {}}),
        json!({"retention": {"events_days": 1}, "strict_types": false, "allow_nets": ["10.0.0.0/8"]}),
        json!({}),
    ] {
        wanted = merged(wanted, &change);
        let put = server.put(path, json!({"settings": change})).expect(200).json();
        assert_eq!(put["settings"], wanted, "{change}");
        assert_eq!(server.get(path).expect(200).json()["settings"], wanted, "{change}");
    }
    server.put(path, json!({"name": "n"})).expect(200);
    server.kill9();
    server.restart();
    assert_eq!(server.get(path).expect(200).json()["settings"], wanted);
    assert_eq!(server.all("/v1/tenants")[0]["settings"], wanted);
    // Null lifts every quota; elsewhere it is as good as absent.
    let nulls = json!({"quotas": null, "retention": null, "hooks": null, "strict_types": null, "allow_nets": null});
    wanted["quotas"] = defaults()["quotas"].clone();
    assert_eq!(server.put(path, json!({"settings": nulls})).expect(200).json()["settings"], wanted);
}

#[test]
fn settings_are_judged_all_at_once() {
    let server = Server::start();
    let mut findings = Findings::default();
    let cases: [(Value, &[&str]); 12] = [
        (json!({"strict_types": "yes"}), &["/settings/strict_types"]),
        (json!({"enforce_builtin_schemas": 1}), &["/settings/enforce_builtin_schemas"]),
        (json!({"require_verification": 1}), &["/settings/require_verification"]),
        (json!({"retention": 30}), &["/settings/retention"]),
        (json!({"retention": {"events_days": 0}}), &["/settings/retention/events_days"]),
        (json!({"retention": {"attempts_days": 3651}}), &["/settings/retention/attempts_days"]),
        (
            json!({"retention": {"events_days": 1.5, "days": 1}}),
            &["/settings/retention/days", "/settings/retention/events_days"],
        ),
        (json!({"hooks": "off"}), &["/settings/hooks"]),
        (json!({"quotas": []}), &["/settings/quotas"]),
        (
            json!({"quotas": {"webhooks": -1, "pending": 0, "events_per_s": 0}}),
            &["/settings/quotas/webhooks", "/settings/quotas/pending", "/settings/quotas/events_per_s"],
        ),
        (json!({"quotas": {"events": 1}}), &["/settings/quotas/events"]),
        (
            json!({"strict": true, "hooks": 1, "allow_nets": ["x"]}),
            &["/settings/strict", "/settings/hooks", "/settings/allow_nets/0"],
        ),
    ];
    for (settings, pointers) in cases {
        let reply = server.put("/v1/tenants/acme", json!({"settings": settings}));
        findings.problem(&settings, &reply, 422, "validation_failed", pointers);
    }
    findings.none();
    server.get("/v1/tenants/acme").expect_problem(404, "tenant_not_found");
}

#[test]
fn settings_are_an_administrators() {
    let server = Server::start();
    server.create_tenant("acme");
    for (scopes, tenant) in [(json!(["manage", "read"]), Value::Null), (json!(["admin"]), json!("acme"))] {
        let key = server.post("/v1/keys", json!({"name": "k", "scopes": scopes, "tenant": tenant})).expect(201);
        let mut client = server.client_with(&text(&key.json(), "key"));
        for settings in [json!({"allow_nets": []}), json!({"quotas": {"webhooks": 5}}), json!({"hooks": "bypass"})] {
            let reply = client.put("/v1/tenants/acme", json!({"settings": settings}));
            reply.expect_problem(403, "forbidden");
        }
        assert_eq!(client.get("/v1/tenants/acme").expect(200).json()["settings"], defaults());
    }
}
