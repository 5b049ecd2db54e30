//! Who may do what, on every route of the description: 401, 403, 404, 405.

use serde_json::json;

use super::{Findings, filled, routes};
use crate::harness::{Payload, Server, text};

/// The scope a route needs, from the design's words and not from the server's.
fn scope_of(method: &str, path: &str) -> Option<&'static str> {
    let scope = match (method, path) {
        (_, "/healthz" | "/readyz" | "/metrics" | "/openapi.json" | "/docs") => return None,
        (_, "/v1/keys" | "/v1/keys/{key}" | "/v1/tenants") => "admin",
        ("PUT" | "DELETE", "/v1/tenants/{tenant}" | "/v1/event-types/{name}") => "admin",
        ("GET", _) => "read",
        (
            "POST",
            "/v1/tenants/{tenant}/events"
            | "/v1/tenants/{tenant}/events/batch"
            | "/v1/tenants/{tenant}/events/cloudevents",
        ) => "publish",
        ("POST", path) if path.ends_with("/invoke") || path.ends_with("/outcome") => "invoke",
        _ => "manage",
    };
    Some(scope)
}

fn includes(key: &str, needed: &str) -> bool {
    key == needed || key == "admin" || (key == "manage" && needed == "read")
}

/// Routes that need a key.
fn guarded(server: &Server) -> Vec<(String, String, &'static str)> {
    let scoped = |(method, path): (String, String)| scope_of(&method, &path).map(|scope| (method, path, scope));
    routes(server).into_iter().filter_map(scoped).collect()
}

fn body_for(method: &str) -> Payload {
    if matches!(method, "GET" | "DELETE") { ().into() } else { json!({}).into() }
}

#[test]
fn without_a_valid_key_every_route_is_401() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let admin = format!("Bearer {}", crate::harness::ADMIN_KEY);
    let basic = format!("Basic {}", crate::harness::ADMIN_KEY);
    let ssws = format!("SSWS {}", crate::harness::ADMIN_KEY);
    let longer = format!("{admin}x");
    let mut findings = Findings::default();
    for (index, (method, path, _)) in guarded(&server).into_iter().enumerate() {
        // Two wrong keys a route: beyond a hundred a minute the address is told to wait.
        if index % 40 == 39 {
            server.restart();
        }
        let path = filled(&path, "acme");
        for value in
            ["", "Bearer", "Bearer ", "Bearer wrong", "Bearer ü", &longer, &basic, &ssws, crate::harness::ADMIN_KEY]
        {
            let reply = server.send(&method, &path, &[("authorization", value)], body_for(&method));
            let what = format!("{method} {path} with {value:?}");
            findings.problem(&what, &reply, 401, "unauthorized", &[]);
            findings.check(
                reply.header("www-authenticate").is_some_and(|v| v.starts_with("Bearer")),
                format!("{what}: a challenge"),
            );
        }
        let twice = [("authorization", admin.as_str()), ("authorization", "Bearer other")];
        findings.problem(
            format!("{method} {path} with two keys"),
            &server.send(&method, &path, &twice, body_for(&method)),
            401,
            "unauthorized",
            &[],
        );
    }
    let lower = format!("bearer {}", crate::harness::ADMIN_KEY);
    findings.status(
        "the scheme has no case",
        &server.send("GET", "/v1/tenants", &[("authorization", &lower)], ()),
        200,
    );
    findings.none();
}

#[test]
fn each_scope_opens_its_routes_and_no_others() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    for scope in ["admin", "manage", "publish", "invoke", "read"] {
        let mut unbound = server.client_with(&server.create_key(&[scope], None));
        let mut bound = server.client_with(&server.create_key(&[scope], Some("acme")));
        for (method, path, needed) in guarded(&server) {
            // An unknown parameter: whoever may call gets 422 (or 404) and changes nothing.
            let path = format!("{}?nope=1", filled(&path, "acme"));
            let reply = unbound.send(&method, &path, &[], body_for(&method));
            let what = format!("{scope}: {method} {path}");
            if includes(scope, needed) {
                findings.check(matches!(reply.status, 404 | 422), format!("{what}: {reply:?}"));
            } else {
                findings.problem(&what, &reply, 403, "forbidden", &[]);
            }
            if scope == "admin" && needed == "admin" {
                continue;
            }
            let reply = bound.send(&method, &path, &[], body_for(&method));
            if includes(scope, needed) {
                findings.check(matches!(reply.status, 404 | 422), format!("bound {what}: {reply:?}"));
            } else {
                findings.problem(format!("bound {what}"), &reply, 403, "forbidden", &[]);
            }
        }
    }
    findings.none();
}

#[test]
fn p5_a_key_of_one_tenant_finds_nothing_of_another() {
    let server = Server::start();
    for tenant in ["acme", "rival"] {
        server.create_tenant(tenant);
    }
    let scopes = ["manage", "publish", "invoke", "read"];
    let mut findings = Findings::default();
    for scopes in [&scopes[..], &["read"], &["invoke"], &["admin"]] {
        let mut client = server.client_with(&server.create_key(scopes, Some("acme")));
        for (method, template, _) in guarded(&server).into_iter().filter(|(_, path, _)| path.contains("{tenant}")) {
            // `rival` exists, `ghost` does not, `Not!` cannot.
            let [theirs, nobodys, impossible] = ["rival", "ghost", "Not!"].map(|tenant| {
                let reply = client.send(&method, &filled(&template, tenant), &[], body_for(&method));
                (reply.status, reply.text().replace(tenant, "TENANT"), reply)
            });
            let what = format!("{method} {template} with {scopes:?}");
            findings.problem(&what, &theirs.2, 404, "tenant_not_found", &[]);
            findings.check(
                (theirs.0, &theirs.1) == (nobodys.0, &nobodys.1),
                format!("{what}: {:?} and {:?}", theirs.2, nobodys.2),
            );
            findings.check(
                (theirs.0, &theirs.1) == (impossible.0, &impossible.1),
                format!("{what}: {:?} and {:?}", theirs.2, impossible.2),
            );
        }
    }
    server.get("/v1/tenants/rival").expect(200);
    server.get("/v1/tenants/ghost").expect_problem(404, "tenant_not_found");
    findings.none();
}

#[test]
fn p5_another_tenants_ids_are_like_ids_of_nothing() {
    let server = Server::start();
    for tenant in ["acme", "rival"] {
        server.create_tenant(tenant);
    }
    let webhook = server.webhook("rival", "http://127.0.0.1:9/x", json!({"retry": {"waits": [86400]}}));
    let event = server.publish("rival", "user.created", json!({}));
    let delivery = server.delivery_of("rival", &event);
    let mut client = server.client_with(&server.create_key(&["manage", "publish", "read"], Some("acme")));
    let mut findings = Findings::default();
    // The same id with another end: of the right form, of nothing.
    let other = |id: &str| {
        let (head, last) = id.split_at(id.len() - 1);
        format!("{head}{}", if last == "0" { "1" } else { "0" })
    };
    let cases = [
        ("{webhook}", webhook.clone(), "webhook_not_found"),
        ("{event}", event.clone(), "event_not_found"),
        ("{delivery}", delivery.clone(), "delivery_not_found"),
    ];
    for (method, template, _) in guarded(&server) {
        let Some((name, id, code)) = cases.iter().find(|(name, ..)| template.contains(name)) else { continue };
        let mut ask = |id: &str| {
            let path = template.replace("{tenant}", "acme").replace(name, id);
            let body: Payload = if method == "PATCH" { json!({"name": "mine"}).into() } else { body_for(&method) };
            let reply = client.send(&method, &path, &[], body);
            (reply.status, reply.text().replace(id, "ID"), reply)
        };
        let (theirs, nothings, nonsense) = (ask(id), ask(&other(id)), ask("nonsense"));
        findings.problem(format!("{method} {template}"), &theirs.2, 404, code, &[]);
        findings.check(
            (theirs.0, &theirs.1) == (nothings.0, &nothings.1),
            format!("{method} {template}: {theirs:?} and {nothings:?}"),
        );
        findings.check(
            (theirs.0, &theirs.1) == (nonsense.0, &nonsense.1),
            format!("{method} {template}: {theirs:?} and {nonsense:?}"),
        );
    }
    // And in filters they find nothing.
    for query in [
        format!("deliveries?webhook_id={webhook}"),
        format!("deliveries?event_id={event}"),
        "events".to_owned(),
        "webhooks".to_owned(),
    ] {
        let page = client.get(&format!("/v1/tenants/acme/{query}")).expect(200).json();
        findings.check(page["data"] == json!([]), format!("{query}: {page}"));
    }
    findings.check(
        text(&server.get(&format!("/v1/tenants/rival/webhooks/{webhook}")).expect(200).json(), "name") == "test",
        "it is unchanged",
    );
    findings.none();
}

#[test]
fn unknown_tenants_are_404_on_every_route() {
    let server = Server::start();
    let mut findings = Findings::default();
    for (method, template, _) in guarded(&server) {
        if !template.contains("{tenant}") || (method == "PUT" && template == "/v1/tenants/{tenant}") {
            continue;
        }
        let body: Payload = match (method.as_str(), template.rsplit('/').next().unwrap_or_default()) {
            ("POST", "events") => json!({"type": "a"}).into(),
            ("POST", "batch") => json!({"events": [{"type": "a"}]}).into(),
            ("POST", "webhooks") => crate::harness::webhook_body("https://example.com/", json!({})).into(),
            _ => body_for(&method),
        };
        for tenant in ["ghost", "UPPER", "-x", "a%20b", "%ff", "%00"] {
            let reply = server.send(&method, &filled(&template, tenant), &[], body.clone());
            let code = if tenant == "%ff" { "not_found" } else { "tenant_not_found" };
            findings.problem(format!("{method} {template} of {tenant}"), &reply, 404, code, &[]);
        }
    }
    for tenant in ["UPPER", "-x", "a%20b", ".x", "a%2Fb", &"x".repeat(65)] {
        let reply = server.put(&format!("/v1/tenants/{tenant}"), json!({}));
        findings.problem(format!("PUT {tenant}"), &reply, 422, "validation_failed", &["{tenant}"]);
    }
    for tenant in ["a", "0", "a.b_c-d", &"x".repeat(64)] {
        findings.status(tenant, &server.put(&format!("/v1/tenants/{tenant}"), json!({})), 201);
    }
    findings.none();
}

#[test]
fn unknown_routes_are_404_and_wrong_methods_405_with_allow() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/tenants",
        "/v1/nope",
        "/v1/tenants/acme/nope",
        "/v1/tenants/acme/",
        "/v1/tenants/acme/webhooks/",
        "/v1/tenants/acme/webhooks/x/y/z",
        "/V1/tenants",
        "/v1/tenants/acme/../acme",
        "/.env",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            findings.problem(format!("{method} {path}"), &server.send(method, path, &[], ()), 404, "not_found", &[]);
        }
    }
    let routes = routes(&server);
    let mut paths: Vec<&String> = routes.iter().map(|(_, path)| path).collect();
    paths.dedup();
    for path in paths {
        let has: Vec<&str> = routes.iter().filter(|(_, p)| p == path).map(|(method, _)| method.as_str()).collect();
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if has.contains(&method) {
                continue;
            }
            let reply = server.send(method, &filled(path, "acme"), &[], ());
            findings.problem(format!("{method} {path}"), &reply, 405, "method_not_allowed", &[]);
            let mut allowed: Vec<&str> = reply.header("allow").unwrap_or_default().split(',').map(str::trim).collect();
            allowed.retain(|method| *method != "HEAD");
            allowed.sort_unstable();
            let mut wanted = has.clone();
            wanted.sort_unstable();
            findings.check(allowed == wanted, format!("{method} {path}: Allow {allowed:?} instead of {wanted:?}"));
        }
    }
    findings.none();
}
