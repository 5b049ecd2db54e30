//! The routes, over a real engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use bytes::Bytes;
use gatepost_engine::store::fault::Fault;
use gatepost_engine::store::{FaultStore, SqliteStore};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::requests::{ADMIN, Server};

const GOOD_WEBHOOK: &str = r#"{"name":"w","url":"https://hooks.example.com/x","events":["user.*"]}"#;

/// Every path and method of the OpenAPI document, ids filled in.
fn operations() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&crate::openapi_json()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            operations.push((method.to_ascii_uppercase(), path.clone()));
        }
    }
    operations
}

fn fill(path: &str, tenant: &str) -> String {
    path.replace("{tenant}", tenant)
        .replace("{webhook}", "wh_00000000000000000000000000")
        .replace("{event}", "evt_00000000000000000000000000")
        .replace("{delivery}", "dlv_00000000000000000000000000")
        .replace("{key}", "key_00000000000000000000000000")
        .replace("{hook}", "hook_00000000000000000000000000")
        .replace("{invocation}", "inv_00000000000000000000000000")
        .replace("{point}", "validateUser")
        .replace("{operation}", "createUser")
        .replace("{name}", "user.created")
}

#[tokio::test]
async fn every_route_needs_a_valid_key() {
    let server = Server::start().await;
    let mut guarded = 0;
    for (method, path) in operations() {
        let path = fill(&path, "acme");
        let open = !path.starts_with("/v1/");
        for header in [None, Some("Bearer wrong"), Some("Basic Z3A6eA=="), Some("Bearer "), Some(ADMIN)] {
            let mut request = Request::builder().method(method.as_str()).uri(&path);
            if let Some(value) = header {
                request = request.header("authorization", value);
            }
            let got = server.send(request.body(Body::empty()).unwrap()).await;
            if open {
                assert_eq!(got.status, 200, "{method} {path}");
            } else {
                assert_eq!(got.status, 401, "{method} {path}");
                assert_eq!(got.code(), "unauthorized");
                assert!(got.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{got:?}");
                guarded += 1;
            }
        }
    }
    assert!(guarded > 100, "{guarded}");
}

#[tokio::test]
async fn p5_a_foreign_tenant_looks_like_none_on_every_route_whatever_the_scopes() {
    let server = Server::start().await;
    server.tenant("own").await;
    server.tenant("foreign").await;
    let webhook = server.webhook("foreign").await;
    for scopes in [r#"["read"]"#, r#"["publish"]"#, r#"["manage","publish","read"]"#, r#"["admin"]"#] {
        let key = server.key(scopes, Some("own")).await;
        for (method, path) in operations().into_iter().filter(|(_, path)| path.contains("{tenant}")) {
            let real = fill(&path.replace("{webhook}", &webhook), "foreign");
            let none = fill(&path.replace("{webhook}", &webhook), "missing");
            let real = server.call(&key, &method, &real, "{").await;
            let none = server.call(&key, &method, &none, "{").await;
            assert_eq!(real.status, 404, "{scopes} {method} {path} {real:?}");
            assert_eq!(real.code(), "tenant_not_found");
            assert_eq!(real.text.replace("foreign", "missing"), none.text);
        }
    }
}

#[tokio::test]
async fn scopes_are_exact_but_admin_and_manage() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let cases: [(&str, &str, &str, &str, &[&str]); 12] = [
        ("GET", "/v1/tenants/acme", "", "read", &["read", "manage", "admin"]),
        ("GET", "/v1/tenants/acme/webhooks", "", "read", &["read", "manage", "admin"]),
        ("GET", "/v1/tenants/acme/events", "", "read", &["read", "manage", "admin"]),
        ("GET", "/v1/tenants/acme/deliveries", "", "read", &["read", "manage", "admin"]),
        ("GET", "/v1/event-types", "", "read", &["read", "manage", "admin"]),
        ("POST", "/v1/tenants/acme/events", r#"{"type":"a"}"#, "publish", &["publish", "admin"]),
        ("POST", "/v1/tenants/acme/events/batch", r#"{"events":[{"type":"a"}]}"#, "publish", &["publish", "admin"]),
        ("POST", "/v1/tenants/acme/webhooks", GOOD_WEBHOOK, "manage", &["manage", "admin"]),
        ("GET", "/v1/tenants", "", "admin", &["admin"]),
        ("GET", "/v1/keys", "", "admin", &["admin"]),
        ("PUT", "/v1/tenants/acme", "", "admin", &["admin"]),
        ("PUT", "/v1/event-types/a.b", "{}", "admin", &["admin"]),
    ];
    for scope in ["admin", "manage", "publish", "invoke", "read"] {
        let key = server.key(&format!("[\"{scope}\"]"), None).await;
        for (method, path, body, needed, enough) in cases {
            let got = server.call(&key, method, path, body).await;
            if enough.contains(&scope) {
                assert!(got.status.is_success(), "{scope} {method} {path} {got:?}");
            } else {
                assert_eq!((got.status.as_u16(), got.code().as_str()), (403, "forbidden"), "{scope} {method} {path}");
                let challenge = got.headers["www-authenticate"].to_str().unwrap();
                assert!(challenge.contains(&format!("scope=\"{needed}\"")), "{challenge}");
            }
        }
    }
    // Bound to a tenant, not even `admin` reaches the installation.
    let bound = server.key(r#"["admin"]"#, Some("acme")).await;
    for (method, path) in [
        ("GET", "/v1/tenants"),
        ("GET", "/v1/keys"),
        ("PUT", "/v1/tenants/acme"),
        ("DELETE", "/v1/tenants/acme"),
        ("PUT", "/v1/event-types/a.b"),
    ] {
        assert_eq!(server.call(&bound, method, path, "").await.code(), "forbidden", "{method} {path}");
    }
    let make = server.call(&bound, "POST", "/v1/keys", r#"{"name":"x","scopes":["admin"]}"#).await;
    assert_eq!(make.code(), "forbidden");
    assert_eq!(server.call(&bound, "GET", "/v1/tenants/acme", "").await.status, 200);
}

#[tokio::test]
async fn unknown_routes_methods_and_sizes_are_problems() {
    let server = Server::start().await;
    server.tenant("acme").await;
    for path in
        ["/", "/v1", "/v2/tenants", "/v1/tenants/acme/streams", "/v1/tenants/acme/hoax", "/v1/tenants/acme/sources"]
    {
        assert_eq!(server.admin("GET", path, "").await.code(), "not_found", "{path}");
    }
    for path in ["/v1/tenants/acme/webhooks/wh_1/none", "/v1/tenants/acme/none"] {
        assert_eq!(server.admin("POST", path, "").await.code(), "not_found", "{path}");
    }
    let got = server.admin("PATCH", "/v1/tenants/acme", "{}").await;
    assert_eq!(got.code(), "method_not_allowed");
    let allow: Vec<_> = got.headers["allow"].to_str().unwrap().split(',').collect();
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        assert!(allow.contains(&method), "{allow:?}");
    }
    let detail = got.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("PATCH") && detail.contains("PUT") && detail.contains("DELETE"), "{detail}");
    let slips =
        [("/v1/v1/tenants", "without /v1"), ("/v1/tenants/acme/", "slash"), ("/tenants/acme", "begin with /v1")];
    for (path, remedy) in slips {
        let told = server.admin("GET", path, "").await;
        assert!(told.text.contains(remedy), "{path}: {}", told.text);
    }
    let long = format!("/v1/tenants/acme/events?subject={}", "a".repeat(9_000));
    assert_eq!(server.admin("GET", &long, "").await.code(), "uri_too_long");
    let request = Request::builder().uri("/healthz").header("x-big", "a".repeat(40_000)).body(Body::empty()).unwrap();
    assert_eq!(server.send(request).await.code(), "header_fields_too_large");
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let got = server.admin("HEAD", "/v1/tenants/acme", "").await;
    assert_eq!((got.status, got.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(server.admin("HEAD", "/v1/tenants/none", "").await.status, 404);
}

#[tokio::test]
async fn bodies_too_large_or_of_another_kind_are_refused() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let events = "/v1/tenants/acme/events";
    let big = format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(server.admin("POST", events, &big).await.code(), "payload_too_large");
    let batch = format!(r#"{{"events":[{big}]}}"#);
    assert_eq!(server.admin("POST", &format!("{events}/batch"), &batch).await.code(), "payload_too_large");
    let (two, large) = (r#"{"type":"a"}"#, format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(800_000)));
    let batch = format!(r#"{{"events":[{two},{large},{large}]}}"#);
    assert_eq!(server.admin("POST", &format!("{events}/batch"), &batch).await.status, 202);
    let request = Request::post(events)
        .header("authorization", format!("Bearer {ADMIN}"))
        .body(Body::from_stream(futures_util::stream::iter(
            (0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 50_000])),
        )))
        .unwrap();
    assert_eq!(server.send(request).await.code(), "payload_too_large");
    for kind in
        ["application/x-www-form-urlencoded", "text/plain", "application/x-ndjson", "application/json; charset=utf-16"]
    {
        let got = server.typed(ADMIN, "POST", events, kind, r#"{"type":"a"}"#).await;
        assert_eq!((got.status.as_u16(), got.code().as_str()), (415, "unsupported_media_type"), "{kind}");
    }
    let request = Request::post(events)
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("content-encoding", "gzip")
        .body(Body::from("x"))
        .unwrap();
    assert_eq!(server.send(request).await.code(), "unsupported_media_type");
    let request = Request::post(events)
        .header("authorization", format!("bearer  {ADMIN}"))
        .body(Body::from(r#"{"type":"a"}"#))
        .unwrap();
    assert_eq!(server.send(request).await.status, 202, "no content type means JSON");
}

#[tokio::test]
async fn p5_announced_bodies_that_never_come_hold_up_nobody() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let idler = server.key(r#"["publish"]"#, Some("acme")).await;
    let mut idle: Vec<_> = (0..64)
        .map(|_| {
            let request = Request::builder()
                .method("POST")
                .uri("/v1/tenants/acme/events/batch")
                .header("authorization", format!("Bearer {idler}"))
                .header("content-length", 16 << 20)
                .body(Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>()))
                .unwrap();
            Box::pin(server.send(request))
        })
        .collect();
    for request in &mut idle {
        assert!(futures_util::poll!(request).is_pending());
    }
    // Of the same key, even.
    let got = server.call(&idler, "POST", "/v1/tenants/acme/events", r#"{"type":"a"}"#).await;
    assert_eq!(got.status, 202, "{got:?}");
}

#[tokio::test]
async fn bad_queries_have_all_their_pointers() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let cases: [(&str, &str, &[&str]); 14] = [
        ("events?limit=0", "validation_failed", &["?limit"]),
        ("events?limit=251", "validation_failed", &["?limit"]),
        ("events?limit=ten", "validation_failed", &["?limit"]),
        ("events?limit=+5", "validation_failed", &["?limit"]),
        ("events?limit=", "validation_failed", &["?limit"]),
        ("events?cursor=garbage", "invalid_cursor", &["?cursor"]),
        ("events?cursor=garbage&limit=0", "validation_failed", &["?limit", "?cursor"]),
        ("events?colour=red&order=up", "validation_failed", &["?colour", "?order"]),
        ("events?type=a..b&after=x&before=1", "validation_failed", &["?type", "?after", "?before"]),
        ("events?subject=&subject_type=", "validation_failed", &["?subject", "?subject_type"]),
        ("events?limit=1&limit=2", "validation_failed", &["?limit"]),
        (
            "deliveries?state=lost&webhook_id=7&event_id=a.b",
            "validation_failed",
            &["?webhook_id", "?event_id", "?state"],
        ),
        ("deliveries?since=x&until=y&type=a", "validation_failed", &["?type", "?since", "?until"]),
        ("webhooks?limit=-1", "validation_failed", &["?limit"]),
    ];
    for (path, code, pointers) in cases {
        let got = server.admin("GET", &format!("/v1/tenants/acme/{path}"), "").await;
        assert_eq!(got.status, 422, "{path} {got:?}");
        assert_eq!(got.code(), code, "{path}");
        assert_eq!(got.pointers(), pointers, "{path}");
    }
    for (method, path) in operations().into_iter().filter(|(_, path)| path.starts_with("/v1/")) {
        let path = fill(&path, "acme");
        let got = server.admin(&method, &format!("{path}?nonsense=1"), "").await;
        // What a path names may be missing, a body that is required too; no query is silently taken.
        assert!(matches!(got.status.as_u16(), 400 | 404 | 422), "{method} {path} {got:?}");
    }
    // A cursor of another list, and of another tenant.
    for n in 0..3 {
        server.admin("POST", "/v1/tenants/acme/events", &format!(r#"{{"type":"a","id":"e{n}"}}"#)).await;
    }
    server.tenant("other").await;
    let page = server.admin("GET", "/v1/tenants/acme/events?limit=1", "").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    for path in ["acme/deliveries", "acme/webhooks", "other/events"] {
        let got = server.admin("GET", &format!("/v1/tenants/{path}?cursor={cursor}"), "").await;
        assert_eq!(got.code(), "invalid_cursor", "{path}");
    }
    let feed = server.admin("GET", &format!("/v1/tenants/acme/events?order=asc&cursor={cursor}"), "").await;
    assert_eq!(feed.code(), "invalid_cursor");
}

#[tokio::test]
async fn tenants_come_and_go() {
    let server = Server::start().await;
    let made = server.admin("PUT", "/v1/tenants/acme", r#"{"name":"Acme","environment":"sandbox"}"#).await;
    assert_eq!((made.status.as_u16(), made.headers["location"].to_str().unwrap()), (201, "/v1/tenants/acme"));
    let kept = server.admin("PUT", "/v1/tenants/acme", "").await;
    assert_eq!(kept.status, 200);
    assert_eq!(kept.json()["name"], "Acme");
    assert_eq!(kept.json()["environment"], "sandbox");
    let cleared =
        server.admin("PUT", "/v1/tenants/acme", r#"{"name":null,"settings":{"allow_nets":["10.0.0.0/8"]}}"#).await;
    assert_eq!(cleared.json()["name"], Value::Null);
    assert_eq!(cleared.json()["settings"]["allow_nets"], json!(["10.0.0.0/8"]));
    let bad = server.admin("PUT", "/v1/tenants/acme", r#"{"settings":{"allow_nets":["10.0.0.0/8","nowhere"]}}"#).await;
    assert_eq!(bad.pointers(), ["/settings/allow_nets/1"]);
    let bad = server.admin("PUT", "/v1/tenants/ACME", r#"{"nme":1}"#).await;
    assert_eq!((bad.status.as_u16(), bad.pointers()), (422, vec!["/nme".to_owned(), "{tenant}".to_owned()]));
    assert_eq!(server.admin("GET", "/v1/tenants/ACME", "").await.code(), "tenant_not_found");
    assert_eq!(server.admin("GET", "/v1/tenants", "").await.json()["data"][0]["id"], "acme");
    assert_eq!(server.admin("DELETE", "/v1/tenants/acme", "").await.status, 204);
    assert_eq!(server.admin("DELETE", "/v1/tenants/acme", "").await.code(), "tenant_not_found");
    assert_eq!(server.admin("POST", "/v1/tenants/acme/events", r#"{"type":"a"}"#).await.code(), "tenant_not_found");
}

#[tokio::test]
async fn keys_are_shown_once_and_stop_at_once() {
    let server = Server::start().await;
    let early = server.admin("POST", "/v1/keys", r#"{"name":"k","scopes":["read"],"tenant":"later"}"#).await;
    assert_eq!((early.status.as_u16(), early.pointers()), (422, vec!["/tenant".to_owned()]));
    server.tenant("later").await;
    let made = server.admin("POST", "/v1/keys", r#"{"name":"k","scopes":["read"],"tenant":"later"}"#).await;
    assert_eq!(made.status, 201);
    let (id, key) = (made.json()["id"].as_str().unwrap().to_owned(), made.json()["key"].as_str().unwrap().to_owned());
    let list = server.admin("GET", "/v1/keys", "").await;
    assert!(!list.text.contains(&key) && list.json()["data"][0].get("key").is_none());
    assert_eq!(server.call(&key, "GET", "/v1/tenants/later", "").await.status, 200);
    assert_eq!(server.admin("DELETE", &format!("/v1/keys/{id}"), "").await.status, 204);
    assert_eq!(server.call(&key, "GET", "/v1/tenants/later", "").await.code(), "unauthorized");
    assert_eq!(server.admin("DELETE", &format!("/v1/keys/{id}"), "").await.code(), "key_not_found");
    let past =
        server.admin("POST", "/v1/keys", r#"{"name":"k","scopes":["read"],"expires_at":"2020-01-01T00:00:00Z"}"#).await;
    assert_eq!(past.pointers(), ["/expires_at"]);
    let far = r#"{"name":"far","scopes":["read"],"expires_at":"9999-12-31T23:59:59Z"}"#;
    assert_eq!(server.admin("POST", "/v1/keys", far).await.status, 201, "later than anything is a time");
}

#[tokio::test]
async fn webhooks_are_registered_with_all_errors_at_once() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let path = "/v1/tenants/acme/webhooks";
    let made = server.admin("POST", path, GOOD_WEBHOOK).await;
    assert_eq!(made.status, 201, "{made:?}");
    let webhook = made.json();
    let location = format!("{path}/{}", webhook["id"].as_str().unwrap());
    assert_eq!(made.headers["location"].to_str().unwrap(), location);
    assert!(webhook["secret"].as_str().unwrap().starts_with("whsec_"));
    let shown = server.admin("GET", &location, "").await;
    assert!(!shown.text.contains("whsec_"));
    let mut expected = webhook.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(shown.json(), expected);
    let members: Vec<_> = expected.as_object().unwrap().keys().cloned().collect();
    let mut wanted = vec![
        "id",
        "name",
        "description",
        "url",
        "events",
        "filter",
        "profile",
        "format",
        "signing",
        "payload",
        "options",
        "headers",
        "auth",
        "retry",
        "timeout_ms",
        "batch",
        "paths",
        "ordering",
        "rate_limit_per_s",
        "max_in_flight",
        "enabled",
        "paused",
        "verified",
        "verification",
        "health",
        "public_key",
        "warnings",
        "last_test",
        "created_at",
        "updated_at",
    ];
    wanted.sort_unstable();
    assert_eq!(members, wanted);

    let body =
        r#"{"url":"ftp://x","events":["us*",1],"filter":"(","timeout_ms":"soon","headers":{"host":"x"},"extra":1}"#;
    let bad = server.admin("POST", path, body).await;
    let mut pointers = bad.pointers();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/events/1", "/extra", "/filter", "/headers/host", "/name", "/timeout_ms", "/url"]);
    assert_eq!(server.admin("POST", path, "{}").await.pointers(), ["/name", "/url", "/events"]);
    assert_eq!(server.admin("GET", &format!("{path}/wh_nonsense"), "").await.code(), "webhook_not_found");
}

#[tokio::test]
async fn patches_keep_clear_and_set() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let path = "/v1/tenants/acme/webhooks";
    let body = r#"{"name":"w","description":"d","url":"https://hooks.example.com/x","events":["user.*"],"filter":"true",
        "headers":{"X-A":"1","X-B":"2"},"retry":{"waits":[1,2],"jitter":0.5},"timeout_ms":1000,"max_in_flight":3}"#;
    let made = server.admin("POST", path, body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let one = format!("{path}/{}", made.json()["id"].as_str().unwrap());
    let patch = async |body: &str| server.typed(ADMIN, "PATCH", &one, "application/merge-patch+json", body).await;

    let got = patch(r#"{"name":"new","description":null,"headers":{"X-A":"***","X-B":null,"X-C":"3"},"retry":{"jitter":null,"waits":[9]}}"#).await;
    assert_eq!(got.status, 200, "{got:?}");
    let webhook = got.json();
    assert_eq!(webhook["name"], "new");
    assert_eq!(webhook["description"], Value::Null);
    assert_eq!(webhook["headers"], json!({"X-A": "***", "X-C": "***"}));
    assert_eq!(webhook["retry"], json!({"waits": [9.0]}));
    // Header names are the same in any case.
    let renamed = patch(r#"{"headers":{"x-a":"4","x-c":null}}"#).await;
    assert_eq!(renamed.json()["headers"], json!({"x-a": "***"}), "{renamed:?}");
    assert_eq!(
        (&webhook["timeout_ms"], &webhook["max_in_flight"], &webhook["filter"]),
        (&json!(1000), &json!(3), &json!("true"))
    );

    let cleared =
        patch(r#"{"filter":null,"headers":null,"retry":null,"timeout_ms":null,"max_in_flight":null,"enabled":null}"#)
            .await
            .json();
    assert_eq!((&cleared["filter"], &cleared["headers"], &cleared["retry"]), (&Value::Null, &json!({}), &Value::Null));
    assert_eq!((&cleared["timeout_ms"], &cleared["enabled"]), (&Value::Null, &json!(true)));

    assert_eq!(server.admin("PATCH", &one, r#"{"enabled":false}"#).await.json()["enabled"], false);
    assert_eq!(patch("{}").await.status, 200);
    assert_eq!(patch(r#"{"secret":"***"}"#).await.status, 200, "an echoed mask keeps the secret");
    for (mode, required) in [("none", false), ("post", true), ("post", false)] {
        let asked = json!({"verification": {"mode": mode}}).to_string();
        assert_eq!(patch(&asked).await.status, 200);
        let got = patch(&json!({"verification": {"required": required}}).to_string()).await;
        assert_eq!(got.status, 200, "{got:?}");
        let kept = &got.json()["verification"];
        assert_eq!((&kept["mode"], &kept["required"]), (&json!(mode), &json!(required)), "the mode is kept");
    }
    assert_eq!(patch(r#"{"verification":null}"#).await.status, 200);
    let own = patch(r#"{"verification":{"required":false}}"#).await;
    assert_eq!(own.status, 200, "the mode is the profile's own: {own:?}");
    let bad = patch(r#"{"profile":"cloudevents","secret":"whsec_x","id":"wh_1","name":null,"url":"nowhere","events":[2],"headers":{"X-Z":"***"}}"#).await;
    let mut pointers = bad.pointers();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/events/0", "/headers/X-Z", "/id", "/name", "/profile", "/secret", "/url"]);
    assert_eq!(patch(r#"{"name":"a","name":"b"}"#).await.code(), "malformed_json");
    let missing = server.admin("PATCH", &format!("{path}/wh_00000000000000000000000000"), r#"{"name":"x"}"#).await;
    assert_eq!(missing.code(), "webhook_not_found");
    assert_eq!(server.admin("DELETE", &one, "").await.status, 204);
    assert_eq!(server.admin("DELETE", &one, "").await.code(), "webhook_not_found");
}

#[tokio::test]
async fn concurrent_patches_are_all_merged() {
    let server = Arc::new(Server::start().await);
    server.tenant("acme").await;
    let id = server.webhook("acme").await;
    let path = format!("/v1/tenants/acme/webhooks/{id}");
    let patches = [r#"{"name":"n"}"#, r#"{"description":"d"}"#, r#"{"timeout_ms":500}"#, r#"{"headers":{"X-A":"1"}}"#];
    let results = futures_util::future::join_all(patches.map(|patch| server.admin("PATCH", &path, patch))).await;
    assert!(results.iter().all(|got| got.status == 200), "{results:?}");
    let webhook = server.admin("GET", &path, "").await.json();
    assert_eq!((&webhook["name"], &webhook["description"]), (&json!("n"), &json!("d")));
    assert_eq!((&webhook["timeout_ms"], &webhook["headers"]), (&json!(500), &json!({"X-A": "***"})));
}

#[tokio::test]
async fn tests_and_rotations_answer_what_is_promised() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let id = server.webhook("acme").await;
    let path = format!("/v1/tenants/acme/webhooks/{id}");
    let got = server.admin("POST", &format!("{path}/test"), r#"{"event_type":"user.created","data":{"a":1}}"#).await;
    assert_eq!(got.status, 200, "{got:?}");
    let test = got.json();
    let members: Vec<_> = test.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["delivered", "duration_ms", "error", "request", "response", "status"]);
    assert_eq!((&test["delivered"], &test["status"], &test["duration_ms"]), (&json!(true), &json!(200), &json!(2)));
    assert!(test["request"]["body"].as_str().unwrap().contains("user.created"), "{test}");
    assert_eq!(test["response"]["body_base64"], "/w==");
    assert_eq!(server.admin("GET", &path, "").await.json()["last_test"]["delivered"], true);

    let old = server.admin("POST", &format!("{path}/rotate-secret"), "").await.json();
    let new = server.admin("POST", &format!("{path}/rotate-secret"), r#"{"overlap_seconds":0}"#).await.json();
    assert!(old["secret"].as_str().unwrap().starts_with("whsec_") && old != new);
    let bad =
        server.admin("POST", &format!("{path}/rotate-secret"), r#"{"overlap_seconds":-1,"secret":"short"}"#).await;
    assert!(bad.pointers().contains(&"/overlap_seconds".to_owned()), "{bad:?}");
}

#[tokio::test]
async fn the_catalogue_is_paged_by_name() {
    let server = Server::start().await;
    assert_eq!(server.admin("GET", "/v1/event-types/zz.unknown", "").await.code(), "event_type_not_found");
    let put = server
        .admin("PUT", "/v1/event-types/zz.mine", r#"{"description":"d","example":{"b":1,"a":[1.0]},"urgency":"bulk"}"#)
        .await;
    assert_eq!(put.status, 201, "{put:?}");
    assert!(put.text.contains(r#""example":{"b":1,"a":[1.0]}"#));
    assert_eq!(put.json()["family"], "zz");
    assert_eq!(server.admin("PUT", "/v1/event-types/zz.mine", "").await.status, 200);
    assert_eq!(server.admin("PUT", "/v1/event-types/a..b", r#"{"x":1}"#).await.pointers(), ["{name}", "/x"]);
    assert_eq!(server.admin("PUT", "/v1/event-types/gatepost.x", "").await.pointers(), ["{name}"]);
    server.tenant("acme").await;
    server.admin("POST", "/v1/tenants/acme/events", r#"{"type":"zz.seen"}"#).await;
    let (mut names, mut query) = (Vec::new(), String::from("limit=7"));
    loop {
        let page = server.admin("GET", &format!("/v1/event-types?{query}"), "").await.json();
        names.extend(page["data"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("limit=7&cursor={cursor}");
    }
    assert!(names.is_sorted() && names.ends_with(&["zz.mine".into(), "zz.seen".into()]), "{names:?}");
    assert_eq!(server.admin("GET", "/v1/event-types/zz.seen", "").await.json()["declared"], false);
    assert_eq!(server.admin("DELETE", "/v1/event-types/zz.mine", "").await.status, 204);
    assert_eq!(server.admin("DELETE", "/v1/event-types/zz.mine", "").await.code(), "event_type_not_found");
}

#[tokio::test]
async fn operators_routes_need_no_key() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let get = async |path: &str| server.send(Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(get("/healthz").await.json(), json!({"status": "ok"}));
    assert_eq!(get("/readyz").await.json(), json!({"status": "ok"}));
    let metrics = get("/metrics").await;
    assert!(metrics.text.ends_with("# EOF\n") && !metrics.text.contains("acme"));
    assert!(metrics.text.contains(r#"route="/v1/tenants/{tenant}""#), "{}", metrics.text);
    assert_eq!(get("/openapi.json").await.text, crate::openapi_json());
}

#[tokio::test]
async fn a_store_that_fails_is_a_503_and_not_ready() {
    let failing = Arc::new(AtomicBool::new(false));
    let plan = Arc::clone(&failing);
    let inner = Arc::new(SqliteStore::open_inline().unwrap());
    let store = FaultStore::new(inner, move |_| if plan.load(Ordering::SeqCst) { Fault::Before } else { Fault::None });
    let server = Server::over(Arc::new(store)).await;
    server.tenant("acme").await;
    server.webhook("acme").await;
    failing.store(true, Ordering::SeqCst);
    for (method, path, body) in [
        ("POST", "/v1/tenants/acme/events", r#"{"type":"a"}"#),
        ("POST", "/v1/tenants/acme/webhooks", GOOD_WEBHOOK),
        ("GET", "/v1/tenants/acme/events", ""),
        ("PUT", "/v1/tenants/acme", ""),
    ] {
        let got = server.admin(method, path, body).await;
        assert_eq!((got.status.as_u16(), got.code().as_str()), (503, "store_unavailable"), "{method} {path}");
        assert_eq!(got.headers["retry-after"], "1");
    }
    let ready = server.send(Request::get("/readyz").body(Body::empty()).unwrap()).await;
    assert_eq!((ready.status.as_u16(), ready.json()), (503, json!({"status": "store_unavailable"})));
    assert_eq!(server.send(Request::get("/healthz").body(Body::empty()).unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing() {
    let server = Server::start().await;
    async fn boom() -> &'static str {
        panic!("the secret of the inside")
    }
    let routes = axum::Router::new().route("/boom", axum::routing::get(boom));
    let server = Server { app: server.with(routes), ..server };
    let got = server.send(Request::get("/boom").header("x-request-id", "mine-1").body(Body::empty()).unwrap()).await;
    assert_eq!((got.status.as_u16(), got.code().as_str()), (500, "internal"));
    assert!(!got.text.contains("secret"));
    assert_eq!(got.headers["x-request-id"], "mine-1");
}
