//! `auth` of a webhook: how Gatepost proves itself to an endpoint, and how its secrets stay secret.

use gatepost_testkit::{ClosedPort, Receiver, Script, TestCa, TokenServer};
use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Options, Server, receiver, text, wait_until, webhook_body};

const SECRET: &str = "endpoint-secret-nobody-may-see-4471";
const OTHER: &str = "another-endpoint-secret-9920";

/// Every type with the name of its secret member.
fn every(token_url: &str, ca: &TestCa) -> Vec<(Value, &'static str)> {
    let client = ca.client("gatepost");
    vec![
        (json!({"type": "bearer", "token": SECRET}), "token"),
        (json!({"type": "basic", "username": "gatepost", "password": SECRET}), "password"),
        (json!({"type": "header", "name": "X-Api-Key", "value": SECRET}), "value"),
        (
            json!({"type": "oauth2", "token_url": token_url, "client_id": "gatepost", "client_secret": SECRET,
                   "scope": "hooks read", "audience": "https://hooks.example/"}),
            "client_secret",
        ),
        (json!({"type": "mtls", "certificate": client.certificate, "private_key": client.private_key}), "private_key"),
    ]
}

fn trusting(ca: &TestCa) -> (Server, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    (Server::with(Options::default().env("GATEPOST_EXTRA_CA", file.path().display())), file)
}

fn oauth2(server: &TokenServer) -> Value {
    json!({"type": "oauth2", "token_url": server.url(), "client_id": "gatepost", "client_secret": SECRET})
}

fn first_attempt(server: &Server, event: &str, state: &str) -> Value {
    server.wait_event("acme", event, state)["attempt_list"][0].clone()
}

#[test]
fn each_proof_arrives_with_deliveries_and_tests() {
    let ca = TestCa::new();
    let (server, _file) = trusting(&ca);
    server.create_tenant("acme");
    let tokens = TokenServer::start_on_thread();
    for (auth, _) in every(&tokens.url(), &ca) {
        let kind = text(&auth, "type");
        let inbox = match kind.as_str() {
            "mtls" => Receiver::builder().mtls(&ca, false).start_on_thread(),
            _ => receiver(),
        };
        let hook = server.webhook("acme", &inbox.url("/in"), json!({"auth": auth, "events": [format!("user.{kind}")]}));
        let event = server.publish("acme", &format!("user.{kind}"), json!({}));
        let attempt = first_attempt(&server, &event, "delivered");
        server
            .post(&format!("/v1/tenants/acme/webhooks/{hook}/test"), json!({"data": {}, "event_type": "user.x"}))
            .expect(200);
        let (name, value) = match kind.as_str() {
            "bearer" => ("authorization", format!("Bearer {SECRET}")),
            "basic" => {
                ("authorization", "Basic Z2F0ZXBvc3Q6ZW5kcG9pbnQtc2VjcmV0LW5vYm9keS1tYXktc2VlLTQ0NzE=".to_owned())
            }
            "header" => ("x-api-key", SECRET.to_owned()),
            "oauth2" => ("authorization", "Bearer token-1".to_owned()),
            _ => continue,
        };
        let received = inbox.wait_for_blocking(2);
        assert!(received.iter().all(|r| r.header(name) == Some(&value)), "{kind}: {received:?}");
        assert!(received.iter().all(|r| r.header("webhook-signature").is_some()), "{kind}: signed all the same");
        let headers = attempt["request"]["headers"].to_string();
        assert!(headers.contains(name) && headers.contains("***") && !headers.contains(&value), "{kind}: {headers}");
    }
    // One token for the delivery and the test.
    assert_eq!(tokens.issued(), 1);
    assert_eq!(
        tokens.received()[0].body,
        "grant_type=client_credentials&scope=hooks+read&audience=https%3A%2F%2Fhooks.example%2F"
    );
    let metrics = server.get("/metrics").expect(200).text();
    assert!(metrics.contains("gatepost_oauth_token_fetches_total{outcome=\"ok\"} 1"), "{metrics}");
}

#[test]
fn p7_secret_members_are_written_and_never_read() {
    let ca = TestCa::new();
    let mut server = Server::with(Options::default().env("GATEPOST_LOG", "trace"));
    server.create_tenant("acme");
    let tokens = TokenServer::start_on_thread();
    // A token endpoint and a receiver that repeat what they were sent.
    tokens.receiver().next([Script::with(|request| {
        Script::status(400)
            .body(format!("{{\"error\":\"x\",\"error_description\":\"{:?}\"}}", request.header("authorization")))
    })]);
    let inbox = receiver();
    let mut secrets = vec![SECRET.to_owned(), "token-1".to_owned()];
    let mut seen = Vec::new();
    for (auth, member) in every(&tokens.url(), &ca) {
        if member == "private_key" {
            secrets.push(text(&auth, member).lines().nth(1).unwrap().to_owned());
        }
        let body = webhook_body(&inbox.url("/in"), json!({"auth": auth, "retry": {"waits": [0.05]}}));
        let made = server.post("/v1/tenants/acme/webhooks", body).expect(201);
        let id = text(&made.json(), "id");
        let mut shown = auth.clone();
        shown[member] = json!("***");
        assert_eq!(made.json()["auth"], shown, "shown with its secret masked");
        let path = format!("/v1/tenants/acme/webhooks/{id}");
        assert_eq!(server.get(&path).expect(200).json()["auth"], shown);
        // Echoing the mask keeps the secret; changing another member keeps it too.
        seen.push(server.patch(&path, json!({"auth": shown, "description": "again"})).expect(200).body);
        seen.push(made.body);
        seen.push(server.get(&path).body);
    }
    let event = server.publish("acme", "user.created", json!({}));
    server.wait_settled("acme");
    for row in server.deliveries_of("acme", &event) {
        seen.push(server.get(&format!("/v1/tenants/acme/deliveries/{}", text(&row, "id"))).body);
    }
    let answered =
        |name: &str| inbox.received().iter().filter(|r| r.header(name).is_some_and(|v| v.contains(SECRET))).count();
    assert_eq!((answered("authorization"), answered("x-api-key")), (1, 1), "the kept secrets are still sent");
    for path in ["/v1/tenants/acme/webhooks", "/v1/tenants/acme/deliveries", "/v1/tenants/acme/events", "/metrics"] {
        seen.push(server.get(path).expect(200).body);
    }
    server.kill9();
    for entry in std::fs::read_dir(server.data_dir()).unwrap() {
        seen.push(std::fs::read(entry.unwrap().path()).unwrap().into());
    }
    let said = server.said();
    assert!(said.contains("TRACE") || said.contains("DEBUG"), "the logs say too little to be a proof");
    seen.push(said.into_bytes().into());
    for secret in &secrets {
        for place in &seen {
            let found = place.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {}", String::from_utf8_lossy(&place[..place.len().min(400)]));
        }
    }
}

#[test]
fn a_changed_or_removed_proof_counts_from_the_answer_on() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let hook = server.webhook("acme", &inbox.url("/in"), json!({"auth": {"type": "bearer", "token": SECRET}}));
    let path = format!("/v1/tenants/acme/webhooks/{hook}");
    let proof = |number: usize| {
        server.publish("acme", "user.created", json!({}));
        let last = inbox.wait_for_blocking(number).pop().unwrap();
        ["authorization", "x-key"].map(|name| last.header(name).map(str::to_owned))
    };
    assert_eq!(proof(1), [Some(format!("Bearer {SECRET}")), None]);
    server.patch(&path, json!({"auth": {"token": OTHER}})).expect(200);
    assert_eq!(proof(2), [Some(format!("Bearer {OTHER}")), None]);
    let header = json!({"type": "header", "name": "X-Key", "value": SECRET, "token": null});
    server.patch(&path, json!({"auth": header})).expect(200);
    assert_eq!(proof(3), [None, Some(SECRET.to_owned())]);
    // The mask of another type keeps nothing: there is nothing to keep.
    let reply = server.patch(&path, json!({"auth": {"type": "bearer", "token": "***", "name": null, "value": null}}));
    reply.expect_problem(422, "validation_failed");
    let cleared = server.patch(&path, json!({"auth": null})).expect(200).json();
    assert_eq!((cleared["auth"].is_null(), proof(4)), (true, [None, None]));
}

#[test]
fn bad_auth_is_refused_at_write_with_its_pointer() {
    let server = Server::start();
    server.create_tenant("acme");
    let (one, two) = (TestCa::new().client("one"), TestCa::new().client("two"));
    let inbox = receiver();
    let token_url = TokenServer::start_on_thread().url();
    let mut findings = Findings::default();
    let cases: [(Value, &[&str]); 19] = [
        (json!({}), &["/auth/type"]),
        (json!({"type": "digest"}), &["/auth/type"]),
        (json!({"type": "bearer"}), &["/auth/token"]),
        (json!({"type": "bearer", "token": ""}), &["/auth/token"]),
        (json!({"type": "bearer", "token": "a b"}), &["/auth/token"]),
        (json!({"type": "bearer", "token": 7}), &["/auth/token"]),
        (json!({"type": "bearer", "token": "***"}), &["/auth/token"]),
        (json!({"type": "bearer", "token": "t", "username": "u"}), &["/auth/username"]),
        (json!({"type": "basic", "username": "a:b", "password": "p"}), &["/auth/username"]),
        (json!({"type": "basic", "username": "a"}), &["/auth/password"]),
        (json!({"type": "header", "name": "Content-Length", "value": "1"}), &["/auth/name"]),
        (json!({"type": "header", "name": "webhook-id", "value": "1"}), &["/auth/name"]),
        (json!({"type": "header", "name": "X-A", "value": "a\nb"}), &["/auth/value"]),
        (
            json!({"type": "oauth2", "token_url": "https://10.0.0.1/t", "client_id": "c", "client_secret": "s"}),
            &["/auth/token_url"],
        ),
        (json!({"type": "oauth2", "token_url": token_url, "client_id": "c"}), &["/auth/client_secret"]),
        (
            json!({"type": "oauth2", "token_url": token_url, "client_id": "c", "client_secret": "s", "scope": "a  b"}),
            &["/auth/scope"],
        ),
        (json!({"type": "mtls", "certificate": "hello", "private_key": one.private_key}), &["/auth/certificate"]),
        (json!({"type": "mtls", "certificate": one.certificate, "private_key": "hello"}), &["/auth/private_key"]),
        (
            json!({"type": "mtls", "certificate": one.certificate, "private_key": two.private_key}),
            &["/auth/private_key"],
        ),
    ];
    for (auth, pointers) in cases {
        let what = auth.to_string();
        let reply = server.post("/v1/tenants/acme/webhooks", webhook_body(&inbox.url("/"), json!({"auth": auth})));
        findings.problem(what, &reply, 422, "validation_failed", pointers);
        for key in [&one.private_key, &two.private_key] {
            let part = key.lines().nth(1).unwrap();
            findings.check(!reply.text().contains(part), "an answer repeats a key");
        }
    }
    findings.none();
}

#[test]
fn p8_a_token_endpoint_outside_the_policy_is_not_called() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let (inbox, tokens) = (receiver(), TokenServer::start_on_thread());
    let retry = json!({"waits": []});
    server.webhook("acme", &inbox.url("/in"), json!({"auth": oauth2(&tokens), "retry": retry}));
    // Registered while its network was open.
    let closed = Options::default().env("GATEPOST_ALLOW_NETS", "10.255.0.0/16");
    server.restart_with(closed);
    let only_inbox = json!({"settings": {"allow_nets": ["10.254.0.0/16"]}});
    server.put("/v1/tenants/acme", only_inbox).expect(200);
    let event = server.publish("acme", "user.created", json!({}));
    let attempt = first_attempt(&server, &event, "failed");
    assert_eq!(attempt["outcome"], "blocked_address");
    assert!(text(&attempt, "error").contains(&format!("token endpoint {}", tokens.url())), "{attempt}");
    assert_eq!((inbox.connections(), tokens.receiver().connections()), (0, 0));
}

#[test]
fn a_failing_token_endpoint_is_a_failed_attempt_and_is_tried_again() {
    let server = Server::start();
    server.create_tenant("acme");
    let (inbox, tokens) = (receiver(), TokenServer::start_on_thread());
    tokens.receiver().next([Script::status(503).body(SECRET)]);
    server.webhook("acme", &inbox.url("/in"), json!({"auth": oauth2(&tokens), "retry": {"waits": [0.1]}}));
    let event = server.publish("acme", "user.created", json!({}));
    let view = server.wait_event("acme", &event, "delivered");
    let attempt = &view["attempt_list"][0];
    assert_eq!(
        (view["attempts"].as_u64(), &attempt["status"], &attempt["outcome"]),
        (Some(2), &Value::Null, &json!("connect"))
    );
    let error = text(attempt, "error");
    assert_eq!(error, format!("no token from the token endpoint {}: it answered 503", tokens.url()));
    // Nobody there at all.
    let closed = ClosedPort::new();
    let mut auth = oauth2(&tokens);
    auth["token_url"] = json!(format!("http://{}/token", closed.addr()));
    let other = receiver();
    let hook = server.webhook("acme", &other.url("/in"), json!({"auth": auth, "retry": {"waits": []}}));
    let test = server.post(&format!("/v1/tenants/acme/webhooks/{hook}/test"), json!({})).expect(200).json();
    assert_eq!((&test["delivered"], other.count()), (&json!(false), 0), "{test}");
    assert!(text(&test, "error").contains("token endpoint"), "{test}");
}

#[test]
fn a_refused_token_is_replaced_once_within_the_attempt() {
    let server = Server::start();
    server.create_tenant("acme");
    let (inbox, tokens) = (receiver(), TokenServer::start_on_thread());
    inbox.next([Script::status(401)]);
    server.webhook("acme", &inbox.url("/in"), json!({"auth": oauth2(&tokens), "retry": {"waits": []}}));
    let event = server.publish("acme", "user.created", json!({}));
    let view = server.wait_event("acme", &event, "delivered");
    assert_eq!((view["attempts"].as_u64(), tokens.issued()), (Some(1), 2));
    let received = inbox.received();
    let of = |name: &str| received.iter().map(|r| r.header(name).map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(of("authorization"), [Some("Bearer token-1".to_owned()), Some("Bearer token-2".to_owned())]);
    let ids = of("webhook-id");
    assert_eq!((&ids[0], received[0].body.as_ref()), (&ids[1], received[1].body.as_ref()), "the same attempt");
}

#[test]
fn p5_a_silent_token_endpoint_holds_up_nobody_else() {
    let server = Server::start();
    for tenant in ["acme", "beta"] {
        server.create_tenant(tenant);
    }
    let (inbox, other, tokens) = (receiver(), receiver(), TokenServer::start_on_thread());
    tokens.receiver().script(Script::Hang);
    server.webhook("acme", &inbox.url("/in"), json!({"auth": oauth2(&tokens), "timeout_ms": 60_000}));
    server.webhook("beta", &other.url("/in"), json!({}));
    for _ in 0..50 {
        server.publish("acme", "user.created", json!({}));
        server.publish("beta", "user.created", json!({}));
    }
    other.wait_for_blocking(50);
    assert_eq!(inbox.count(), 0);
    wait_until("one shared fetch", || (tokens.received().len() == 1).then_some(()));
}
