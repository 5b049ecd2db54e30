//! P5: a slow, dead or hostile receiver delays nobody else; another tenant's id looks like one that
//! does not exist.

use std::time::Duration;

use gatepost_testkit::{Blackhole, Cert, ClosedPort, Receiver, Script, TestCa};
use serde_json::{Value, json};

use crate::harness::{Options, Reply, Server, receiver, text};

const SECOND: Duration = Duration::from_secs(1);

/// Receivers that misbehave in every way there is, each with the outcome of an attempt that may take
/// half a second.
struct Hostile {
    receivers: Vec<(&'static str, Receiver)>,
    urls: Vec<(&'static str, String, &'static str)>,
    _closed: ClosedPort,
    _blackhole: Blackhole,
    _runtime: tokio::runtime::Runtime,
}

impl Hostile {
    fn start(ca: &TestCa) -> Hostile {
        let scripts = [
            ("hang", Script::Hang, "timeout"),
            ("one byte a second", Script::Drip(SECOND), "timeout"),
            // Once a status line has arrived it is the answer, whatever the body then does.
            ("body without end", Script::EndlessBody, "ok"),
            ("body of one byte a second", Script::DripBody(SECOND), "ok"),
            ("body that stalls", Script::StallBody, "ok"),
            ("body that is cut", Script::CutBody, "ok"),
            ("10 MB of headers", Script::HugeHeaders(10_000_000), "protocol"),
            ("reset", Script::Reset, "reset"),
            ("closed", Script::Close, "reset"),
            ("not HTTP", Script::Garbage, "protocol"),
        ];
        let mut receivers = Vec::new();
        let mut urls = Vec::new();
        for (name, script, outcome) in scripts {
            let receiver = Receiver::builder().script(script).start_on_thread();
            urls.push((name, receiver.url("/"), outcome));
            receivers.push((name, receiver));
        }
        for (name, cert) in [("expired certificate", Cert::Expired), ("another's certificate", Cert::WrongName)] {
            let receiver = Receiver::builder().tls_as(ca, cert, &["127.0.0.1"], false).start_on_thread();
            urls.push((name, receiver.url("/"), "tls"));
            receivers.push((name, receiver));
        }
        let plain = receiver();
        urls.push(("TLS where there is none", plain.url("/").replace("http://", "https://"), "tls"));
        receivers.push(("TLS where there is none", plain));
        // Both reserve their port with sockets that want a runtime around them.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entered = runtime.enter();
        let (closed, blackhole) = (ClosedPort::new(), Blackhole::at([127, 0, 0, 1].into()));
        drop(entered);
        urls.push(("closed port", format!("http://{}/", closed.addr()), "connect"));
        urls.push(("connecting takes forever", format!("http://{}/", blackhole.addr()), "timeout"));
        Hostile { receivers, urls, _closed: closed, _blackhole: blackhole, _runtime: runtime }
    }

    fn receiver(&self, name: &str) -> &Receiver {
        &self.receivers.iter().find(|(n, _)| *n == name).expect("one of them").1
    }
}

fn server_trusting(ca: &TestCa) -> (Server, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    (Server::with(Options::default().env("GATEPOST_EXTRA_CA", file.path().display())), file)
}

#[test]
fn p5_hostile_receivers_delay_nobody() {
    let ca = TestCa::new();
    let hostile = Hostile::start(&ca);
    let (server, _ca_file) = server_trusting(&ca);
    server.create_tenant("acme");
    server.create_tenant("other");
    let (same, other) = (receiver(), receiver());
    for (name, url, _) in &hostile.urls {
        // A minute to answer in: whoever waits for one of these waits for the end of this test.
        server.webhook("acme", url, json!({"name": name, "timeout_ms": 60_000}));
    }
    server.webhook("acme", &same.url("/"), json!({"name": "healthy"}));
    server.webhook("other", &other.url("/"), json!({"name": "healthy"}));
    for n in 0..200 {
        server.publish("acme", "user.created", json!({"n": n}));
        server.publish("other", "user.created", json!({"n": n}));
    }
    same.wait_for_blocking(200);
    other.wait_for_blocking(200);
    // They arrived while the hostile ones were still being waited for: requests that hang have not
    // been answered, and every one of their deliveries is owed still.
    for name in ["hang", "one byte a second"] {
        assert!(hostile.receiver(name).count() > 0, "{name} was not even called");
    }
    let hooks = server.all("/v1/tenants/acme/webhooks");
    for name in ["hang", "one byte a second", "connecting takes forever"] {
        let hook = hooks.iter().find(|h| h["name"] == name).unwrap();
        let rows = server.all(&format!("/v1/tenants/acme/deliveries?webhook_id={}", text(hook, "id")));
        assert_eq!(rows.len(), 200);
        assert!(
            rows.iter().all(|row| row["state"] == "pending" && row["attempts"] == 0),
            "{name}: an attempt has ended"
        );
    }
    // Nor does the API wait, nor a tenant that comes now.
    server.create_tenant("third");
    let third = receiver();
    server.webhook("third", &third.url("/"), json!({}));
    server.publish("third", "user.created", json!({}));
    third.wait_for_blocking(1);
}

#[test]
fn p5_every_misbehaviour_has_its_outcome() {
    let ca = TestCa::new();
    let hostile = Hostile::start(&ca);
    let (server, _ca_file) = server_trusting(&ca);
    server.create_tenant("acme");
    for (name, url, _) in &hostile.urls {
        server.webhook("acme", url, json!({"name": name, "timeout_ms": 500, "retry": {"waits": []}}));
    }
    let event = server.publish("acme", "user.created", json!({}));
    server.wait_settled("acme");
    let hooks = server.all("/v1/tenants/acme/webhooks");
    let mut wrong = Vec::new();
    for row in server.deliveries_of("acme", &event) {
        let hook = hooks.iter().find(|h| h["id"] == row["webhook_id"]).unwrap();
        let (name, _, outcome) = hostile.urls.iter().find(|(name, _, _)| hook["name"] == *name).unwrap();
        let view = server.delivery("acme", &text(&row, "id"));
        let attempt = &view["attempt_list"][0];
        let ended = if *outcome == "ok" { ("delivered", Value::Null) } else { ("failed", json!("exhausted")) };
        let as_expected = attempt["outcome"] == *outcome
            && view["state"] == ended.0
            && view["reason"] == ended.1
            && view["attempts"] == 1
            && (*outcome == "ok") == (attempt["status"] == 200)
            && (*outcome == "ok") == attempt["error"].is_null();
        if !as_expected {
            wrong.push(format!("{name} should be {outcome}: {view:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A body each operation takes, so that what is answered is about the id alone.
fn body_for(operation: &str) -> Option<Value> {
    match operation {
        "putTenant" | "updateWebhook" | "testWebhook" | "rotateHookSecret" | "rotateWebhookSecret" => Some(json!({})),
        "createWebhook" => Some(json!({"name": "n", "url": "https://example.com/", "events": ["*"]})),
        "publishEvent" => Some(json!({"type": "a.b"})),
        "publishCloudEvent" => Some(json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b"})),
        "publishEvents" => Some(json!({"events": [{"type": "a.b"}]})),
        "replayWebhook" => Some(json!({"since": "2026-01-01T00:00:00Z", "scope": "failed"})),
        "tellInvocationOutcome" => Some(json!({"committed": false})),
        "invokePoint" | "invokeOperation" | "updateHook" => Some(json!({})),
        "createHook" => Some(json!({"name": "h", "point": "validateUser", "url": "https://example.com/"})),
        _ => None,
    }
}

/// An answer without what is each answer's own.
fn comparable(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<(String, String)> = reply
        .headers
        .iter()
        .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (reply.status, headers, reply.text())
}

#[test]
fn p5_another_tenants_ids_look_like_none_at_all() {
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("zeta");
    let inbox = receiver();
    let webhook = server.webhook("acme", &inbox.url("/"), json!({}));
    let event = server.publish("acme", "user.created", json!({}));
    let delivery = text(&server.wait_event("acme", &event, "delivered"), "id");
    let asked = json!({"name": "h", "point": "validateUser", "url": inbox.url("/hook")});
    let hook = text(&server.post("/v1/tenants/acme/hooks", asked).expect(201).json(), "id");
    let question = json!({"object": {"user": {}}});
    let decision = server.post("/v1/tenants/acme/points/preUpdateUser/invoke", question).expect(200).json();
    let replay = format!("/v1/tenants/acme/webhooks/{webhook}/replay");
    let since = json!({"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "scope": "failed"});
    let job = text(&server.post(&replay, since).expect(202).json(), "job_id");
    let ids: Vec<(&str, String)> = vec![
        ("{webhook}", webhook.clone()),
        ("{event}", event.clone()),
        ("{delivery}", delivery.clone()),
        ("{hook}", hook),
        ("{invocation}", text(&decision, "id")),
        ("{job}", job),
    ];
    // Names that mean the same in every tenant.
    let names =
        [("{point}", "validateUser"), ("{operation}", "createUser"), ("{subject}", "u1"), ("{kind}", "webhooks")];
    let key = server.create_key(&["manage", "publish", "invoke", "read"], Some("zeta"));
    let mut bound = server.client_with(&key);
    let mut admin = server.client();
    // Ids of the same kind and length that nobody has.
    let nobodys = |id: &str| {
        let (kind, rest) = id.split_once('_').unwrap();
        let other: String = rest.chars().rev().collect();
        assert_ne!(rest, other);
        format!("{kind}_{other}")
    };

    let openapi = server.get("/openapi.json").expect(200).json();
    let mut compared = 0;
    for (path, item) in openapi["paths"].as_object().unwrap() {
        if !path.starts_with("/v1/tenants/{tenant}") {
            continue;
        }
        for (method, operation) in item.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters") {
            let method = method.to_uppercase();
            let name = operation["operationId"].as_str().unwrap();
            let send = |client: &mut crate::harness::Client, path: &str| match body_for(name) {
                Some(body) => client.send(&method, path, &[], body),
                None => client.send(&method, path, &[], ()),
            };
            let fill = |tenant: &str, id_of: &dyn Fn(&str) -> String| {
                let mut filled = path.replace("{tenant}", tenant);
                for (parameter, id) in &ids {
                    filled = filled.replace(parameter, &id_of(id));
                }
                for (parameter, name) in names {
                    filled = filled.replace(parameter, name);
                }
                assert!(!filled.contains('{'), "teach this test the parameters of {path}");
                filled
            };
            let theirs = |id: &str| id.to_owned();
            // A foreign tenant and one that does not exist, to a key that is bound.
            let foreign = send(&mut bound, &fill("acme", &theirs));
            let missing = send(&mut bound, &fill("none", &theirs));
            assert_eq!(foreign.status, 404, "{method} {path}: {foreign:?}");
            let (status, headers, text) = comparable(&missing);
            assert_eq!(comparable(&foreign), (status, headers, text.replace("none", "acme")), "{method} {path}");
            compared += 1;
            // A foreign thing and one that does not exist, in a tenant of one's own.
            if !ids.iter().any(|(parameter, _)| path.contains(parameter)) {
                continue;
            }
            for client in [&mut bound, &mut admin] {
                let foreign = send(client, &fill("zeta", &theirs));
                let missing = send(client, &fill("zeta", &nobodys));
                assert_eq!(foreign.status, 404, "{method} {path}: {foreign:?}");
                let (status, headers, mut text) = comparable(&missing);
                for (_, id) in &ids {
                    text = text.replace(&nobodys(id), id);
                }
                assert_eq!(comparable(&foreign), (status, headers, text), "{method} {path}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 30, "only {compared} pairs compared");
    // Filters by a foreign id find as much as filters by none.
    for filter in [format!("webhook_id={webhook}"), format!("event_id={event}")] {
        let page = bound.get(&format!("/v1/tenants/zeta/deliveries?{filter}")).expect(200).json();
        assert_eq!(page["data"], json!([]));
    }
    // None of it did anything.
    assert_eq!(server.all("/v1/tenants/acme/webhooks").len(), 1);
    assert_eq!(server.all("/v1/tenants/acme/hooks").len(), 1);
    assert_eq!(server.delivery("acme", &delivery)["attempts"], 1);
    assert_eq!(inbox.count(), 1);
}

#[test]
fn p5_the_same_event_id_in_two_tenants_is_two_events() {
    let server = Server::start();
    let inbox = receiver();
    for tenant in ["acme", "zeta"] {
        server.create_tenant(tenant);
        server.webhook(tenant, &inbox.url(&format!("/{tenant}")), json!({}));
        let answer =
            server.publish_event(tenant, json!({"id": "same", "type": "user.created", "data": {"of": tenant}}));
        assert_eq!((&answer["duplicate"], &answer["deliveries"]), (&json!(false), &json!(1)));
    }
    let mut paths: Vec<(String, Value)> =
        inbox.wait_for_blocking(2).iter().map(|r| (r.path.clone(), r.json()["data"]["of"].clone())).collect();
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(paths, [("/acme".to_owned(), json!("acme")), ("/zeta".to_owned(), json!("zeta"))]);
}
