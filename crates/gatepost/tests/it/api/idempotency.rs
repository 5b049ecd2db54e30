//! `Idempotency-Key` on every POST.

use std::collections::HashSet;
use std::sync::Barrier;

use gatepost_testkit::{Gate, Script};
use serde_json::{Value, json};

use super::{Findings, filled, members, routes};
use crate::harness::{Client, Payload, Reply, Server, receiver, text};

/// A POST under a key.
fn keyed(server: &Server, path: &str, key: &str, body: impl Into<Payload>) -> Reply {
    server.send("POST", path, &[("idempotency-key", key)], body)
}

fn replayed(reply: &Reply) -> bool {
    reply.header("idempotency-replayed") == Some("true")
}

#[test]
fn every_post_route_looks_at_the_key() {
    let server = Server::start();
    server.create_tenant("acme");
    let long = "k".repeat(256);
    let mut findings = Findings::default();
    let posts: Vec<String> =
        routes(&server).into_iter().filter(|(method, _)| method == "POST").map(|(_, path)| path).collect();
    assert!(posts.len() >= 8, "{posts:?}");
    for path in posts.iter().filter(|path| path.starts_with("/v1/") && !path.ends_with("/invoke")) {
        // Whatever else is wrong: that the key is none is told by whoever looks at it.
        let reply = keyed(&server, &filled(path, "acme"), &long, json!({}));
        findings.problem(path, &reply, 422, "validation_failed", &["@idempotency-key"]);
    }
    findings.none();
}

/// Every POST that changes something, in an order in which each succeeds.
fn requests(server: &Server) -> Vec<(&'static str, String, Value, u16)> {
    let to = receiver();
    to.script(Script::status(500));
    let webhook =
        server.webhook("acme", &to.url("/"), json!({"retry": {"waits": [600], "jitter": 0}, "events": ["order.*"]}));
    let event = server.publish("acme", "order.placed", json!({"n": 1}));
    let delivery = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &delivery, "one attempt", |view| view["attempts"] == 1);
    let at = |rest: &str| format!("/v1/tenants/acme/{rest}");
    let new = json!({"name": "w", "url": to.url("/new"), "events": ["other.*"]});
    vec![
        ("webhooks", at("webhooks"), new, 201),
        ("keys", "/v1/keys".into(), json!({"name": "k", "scopes": ["read"]}), 201),
        ("events", at("events"), json!({"type": "user.created", "data": {"a": 1.0}}), 202),
        ("batch", at("events/batch"), json!({"events": [{"type": "a.b"}, {"type": "a.c"}]}), 202),
        ("test", at(&format!("webhooks/{webhook}/test")), json!({"event_type": "x.y", "data": 1}), 200),
        ("rotate", at(&format!("webhooks/{webhook}/rotate-secret")), json!({}), 200),
        ("retry", at(&format!("deliveries/{delivery}/retry")), json!({}), 202),
        ("cancel", at(&format!("deliveries/{delivery}/cancel")), json!({}), 200),
    ]
}

#[test]
fn the_same_again_is_answered_again_and_does_nothing() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    for (what, path, body, status) in requests(&server) {
        let first = keyed(&server, &path, "key 1", body.clone()).expect(status);
        findings.check(!replayed(&first), format_args!("{what}: the first is no replay"));
        let counts = || {
            // Gatepost's own events come when they come.
            let own = |row: &Value| row["type"].as_str().is_some_and(|name| name.starts_with("gatepost."));
            let count = |list| server.all(list).iter().filter(|row| !own(row)).count();
            ["/v1/tenants/acme/webhooks", "/v1/tenants/acme/events", "/v1/keys"].map(count)
        };
        let before = counts();
        let again = keyed(&server, &path, "key 1", body.clone());
        findings.check(again.status == status && replayed(&again), format_args!("{what}: {again:?}"));
        findings.check(counts() == before, format_args!("{what}: made something again"));
        for header in ["content-type", "location"] {
            findings.check(again.header(header) == first.header(header), format_args!("{what}: {header}"));
        }
        // P7: the same, but for what is shown once.
        let (first, again) = (first.json(), again.json());
        findings.check(members(&first) == members(&again), format_args!("{what}: {again}"));
        for member in members(&first) {
            let wanted = if matches!(member, "secret" | "key") { &Value::Null } else { &first[member] };
            findings.check(again[member] == *wanted, format_args!("{what}: {member} is {}", again[member]));
        }
        let other = keyed(&server, &path, "key 1", json!({"name": "another body"}));
        findings.problem(what, &other, 409, "idempotency_key_conflict", &[]);
    }
    findings.none();
}

#[test]
fn p7_no_secret_is_kept_with_an_answer() {
    let server = Server::start();
    server.create_tenant("acme");
    let path = "/v1/tenants/acme/webhooks";
    let body = json!({"name": "w", "url": "http://127.0.0.1:9/", "events": ["*"]});
    let secret = text(&keyed(&server, path, "my-idempotency-key", body).expect(201).json(), "secret");
    let key =
        text(&keyed(&server, "/v1/keys", "my-idempotency-key", json!({"name": "k", "scopes": ["read"]})).json(), "key");
    for entry in std::fs::read_dir(server.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        for hidden in [&secret, &key, "my-idempotency-key"] {
            let found = bytes.windows(hidden.len()).any(|part| part == hidden.as_bytes());
            assert!(!found, "{hidden} stands in {}", path.display());
        }
    }
}

#[test]
fn a_key_is_one_for_its_tenant_path_and_request_only() {
    let server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    let event = json!({"type": "user.created"});
    let first = keyed(&server, "/v1/tenants/acme/events", "k", event.clone()).expect(202).json();
    for (path, key) in
        [("/v1/tenants/acme/events", "K"), ("/v1/tenants/acme/events", "k "), ("/v1/tenants/other/events", "k")]
    {
        let reply = keyed(&server, path, key, event.clone()).expect(202);
        assert_eq!(replayed(&reply), key == "k ", "{path} {key:?}");
        assert_eq!(reply.json()["id"] == first["id"], key == "k ", "{path} {key:?}");
    }
    keyed(&server, "/v1/tenants/acme/events/batch", "k", json!({"events": [event]})).expect(202);
    // Of a binary CloudEvent the headers are part of what is sent.
    let binary = |id: &str| {
        let headers = [
            ("idempotency-key", "ce"),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/s"),
            ("ce-type", "user.created"),
        ];
        server.send("POST", "/v1/tenants/acme/events", &headers, json!({"a": 1}))
    };
    let one = binary("1").expect(202);
    assert_eq!(binary("1").expect(202).json(), one.json());
    binary("2").expect_problem(409, "idempotency_key_conflict");
    // A tenant made anew begins anew.
    server.delete("/v1/tenants/acme").expect(204);
    server.create_tenant("acme");
    let anew = keyed(&server, "/v1/tenants/acme/events", "k", json!({"type": "user.created"})).expect(202);
    assert!(!replayed(&anew));
}

#[test]
fn only_what_went_well_is_kept() {
    let server = Server::start();
    server.create_tenant("acme");
    let path = "/v1/tenants/acme/webhooks";
    let good = json!({"name": "w", "url": "http://127.0.0.1:9/", "events": ["*"]});
    keyed(&server, path, "k", json!({"name": "w"})).expect_problem(422, "validation_failed");
    keyed(&server, path, "k", "{").expect_problem(400, "malformed_json");
    let made = keyed(&server, path, "k", good).expect(201);
    assert!(!replayed(&made));
    assert_eq!(server.all(path).len(), 1);
    // The same for events, whose answers are kept another way.
    let events = "/v1/tenants/acme/events";
    server.publish_event("acme", json!({"type": "a", "id": "x", "data": 1}));
    keyed(&server, events, "k", json!({"type": "a", "id": "x", "data": 2})).expect_problem(409, "event_id_conflict");
    let made = keyed(&server, events, "k", json!({"type": "a", "id": "y", "data": 2})).expect(202);
    assert!(!replayed(&made));
}

#[test]
fn keys_are_judged() {
    let server = Server::start();
    server.create_tenant("acme");
    let path = "/v1/tenants/acme/events";
    let mut findings = Findings::default();
    let long = "k".repeat(256);
    for bad in [long.as_str(), "a\tb", "caf\u{e9}"] {
        let reply = keyed(&server, path, bad, json!({"type": "a"}));
        findings.problem(bad, &reply, 422, "validation_failed", &["@idempotency-key"]);
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let reply = server.send("POST", path, &twice, json!({"type": "a"}));
    findings.problem("twice", &reply, 422, "validation_failed", &["@idempotency-key"]);
    for good in ["k".repeat(255).as_str(), "~ !\"#{}", "8e03978e-40d5-43e8-bc93-6894a57f9324"] {
        findings.status(good, &keyed(&server, path, good, json!({"type": "a"})), 202);
    }
    // Elsewhere the header means nothing.
    findings.status("PUT", &server.send("PUT", "/v1/tenants/acme", &[("idempotency-key", &long)], json!({})), 200);
    findings.none();
}

#[test]
fn p5_who_may_not_do_it_is_not_told_what_was_answered() {
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    let body = json!({"name": "w", "url": "http://127.0.0.1:9/", "events": ["*"]});
    let path = "/v1/tenants/acme/webhooks";
    keyed(&server, path, "k", body.clone()).expect(201);
    let key = |scopes: Value, tenant: &str| {
        let key = server.post("/v1/keys", json!({"name": "k", "scopes": scopes, "tenant": tenant})).expect(201);
        text(&key.json(), "key")
    };
    let try_with = |key: &str| {
        let mut client = server.client_with(key);
        client.send("POST", path, &[("idempotency-key", "k")], body.clone())
    };
    try_with(&key(json!(["read"]), "acme")).expect_problem(403, "forbidden");
    try_with(&key(json!(["admin"]), "other")).expect_problem(404, "tenant_not_found");
    try_with("gp_wrong").expect_problem(401, "unauthorized");
    // Another key that may is answered the same.
    assert!(replayed(&try_with(&key(json!(["manage"]), "acme")).expect(201)));
}

/// Sends the same at once from many connections.
fn at_once(server: &Server, path: &str, body: &Value) -> Vec<Reply> {
    let clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    let start = Barrier::new(clients.len());
    std::thread::scope(|scope| {
        let sent: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    client.send("POST", path, &[("idempotency-key", "twins")], body.clone())
                })
            })
            .collect();
        sent.into_iter().map(|one| one.join().expect("an answer")).collect()
    })
}

#[test]
fn twins_wait_for_the_first_and_get_its_answer() {
    let server = Server::start();
    server.create_tenant("acme");
    let webhook = json!({"name": "w", "url": "http://127.0.0.1:9/", "events": ["*"]});
    for (path, body, status, list) in [
        ("/v1/tenants/acme/events", json!({"type": "user.created"}), 202, "/v1/tenants/acme/events"),
        ("/v1/tenants/acme/webhooks", webhook, 201, "/v1/tenants/acme/webhooks"),
        ("/v1/keys", json!({"name": "k", "scopes": ["read"]}), 201, "/v1/keys"),
    ] {
        let replies = at_once(&server, path, &body);
        assert!(replies.iter().all(|reply| reply.status == status), "{path}: {replies:?}");
        let ids: HashSet<String> = replies.iter().map(|reply| text(&reply.json(), "id")).collect();
        assert_eq!((ids.len(), server.all(list).len()), (1, 1), "{path}");
        assert_eq!(replies.iter().filter(|reply| !replayed(reply)).count(), 1, "{path}");
    }
}

#[test]
fn a_twin_waits_while_the_first_is_worked_on() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let gate = Gate::new();
    to.script(Script::status(204).behind(&gate));
    let webhook = server.webhook("acme", &to.url("/"), json!({}));
    let path = format!("/v1/tenants/acme/webhooks/{webhook}/test");
    let (one, two) = std::thread::scope(|scope| {
        let send = |mut client: Client| {
            let path = &path;
            scope.spawn(move || {
                client.send("POST", path, &[("idempotency-key", "t")], json!({"data": 1, "event_type": "a"}))
            })
        };
        let one = send(server.client());
        to.wait_for_blocking(1);
        let two = send(server.client());
        // Another request under the key need not wait to be refused.
        keyed(&server, &path, "t", json!({"data": 2})).expect_problem(409, "idempotency_key_conflict");
        gate.open();
        (one.join().expect("an answer").expect(200), two.join().expect("an answer").expect(200))
    });
    assert_eq!(to.count(), 1, "one request to the receiver");
    assert!(!replayed(&one) && replayed(&two));
    assert_eq!(one.json(), two.json());
}

#[test]
fn answers_outlive_a_restart() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let before: Vec<_> = requests(&server)
        .into_iter()
        .map(|(what, path, body, status)| {
            let reply = keyed(&server, &path, "k", body.clone()).expect(status);
            (what, path, body, reply.json())
        })
        .collect();
    server.terminate();
    server.restart();
    for (what, path, body, first) in before {
        let again = keyed(&server, &path, "k", body);
        assert!(replayed(&again), "{what}: {again:?}");
        for member in members(&first).into_iter().filter(|member| !matches!(*member, "secret" | "key")) {
            assert_eq!(again.json()[member], first[member], "{what}: {member}");
        }
    }
    let metrics = server.get("/metrics").expect(200).text();
    assert!(metrics.contains("gatepost_idempotent_replays_total 8"), "{metrics}");
}
