//! P5, P9 and P10 against receivers that send without end: what each of them sends costs its own attempts
//! and questions, and a healthy tenant gets all of its own meanwhile.

use gatepost_testkit::{Receiver, Script, TestCa};
use serde_json::{Value, json};

use crate::harness::{Options, Server, receiver, text};

/// Whoever waits for a flood to end by itself waits for longer than any test does.
const FOREVER_MS: u64 = 60_000;

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (u32::try_from(payload.len()).unwrap() << 8 | u32::from(kind)).to_be_bytes().to_vec();
    frame.push(if kind == 1 { 4 } else { 0 });
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Interim heads of a kilobyte, each of which stands for a thousand headers (HPACK's table has them).
fn heavy_hints() -> Vec<u8> {
    let block = [b"\x08\x03103".as_slice(), &[0x90; 1_000]].concat();
    frame(1, 1, &block)
}

/// Floods, each with the outcome of an attempt and of a question.
fn floods(ca: &TestCa) -> Vec<(&'static str, Receiver, &'static str, &'static str)> {
    let plain = |first: &'static str, again: &'static str| {
        Receiver::builder().script(Script::Flood(first.into(), again.into())).start_on_thread()
    };
    let h2 = |frames: Vec<u8>| Receiver::builder().h2_flood(ca, frames).start_on_thread();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    vec![
        ("100 Continue", plain("", "HTTP/1.1 100 Continue\r\n\r\n"), "protocol", "bad_answer"),
        ("103 Early Hints", plain("", "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n"), "protocol", "bad_answer"),
        ("header lines", plain("HTTP/1.1 200 OK\r\n", "a : b\r\n"), "protocol", "bad_answer"),
        ("empty lines", plain("", "\r\n"), "protocol", "bad_answer"),
        // More around the body than a body: what is beyond an answer's measure comes at a pace.
        ("chunks", plain(chunked, "1\r\nx\r\n"), "ok", "timeout"),
        ("PING", h2(frame(6, 0, &[0; 8])), "protocol", "bad_answer"),
        ("SETTINGS", h2(frame(4, 0, &[0, 3, 0, 0, 0, 100])), "protocol", "bad_answer"),
        ("WINDOW_UPDATE", h2(frame(8, 0, &[0, 0, 0, 1])), "protocol", "bad_answer"),
        ("HEADERS", h2(heavy_hints()), "protocol", "bad_answer"),
    ]
}

fn server_trusting(ca: &TestCa) -> (Server, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    let options = Options::default().env("GATEPOST_EXTRA_CA", file.path().display());
    (Server::with(options), file)
}

/// The most memory the server ever had, in MiB.
fn most(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

#[test]
fn p5_p10_a_flood_costs_its_own_attempts_alone() {
    let ca = TestCa::new();
    let floods = floods(&ca);
    let (server, _ca_file) = server_trusting(&ca);
    server.create_tenant("evil");
    server.create_tenant("good");
    let retry = json!({"waits": []});
    for (name, flood, ..) in &floods {
        let body = json!({"name": name, "timeout_ms": FOREVER_MS, "retry": retry});
        server.webhook("evil", &flood.url("/"), body);
    }
    let good = receiver();
    server.webhook("good", &good.url("/"), json!({}));
    for n in 0..40 {
        server.publish("evil", "user.created", json!({"n": n}));
        server.publish("good", "user.created", json!({"n": n}));
    }
    good.wait_for_blocking(40);
    // Not one of the floods is waited for until its time is over.
    server.wait_settled("evil");
    server.wait_settled("good");
    assert_eq!(good.count(), 40);
    let hooks = server.all("/v1/tenants/evil/webhooks");
    let mut wrong = Vec::new();
    for (name, _, outcome, _) in &floods {
        let hook = hooks.iter().find(|hook| hook["name"] == *name).unwrap();
        for row in server.all(&format!("/v1/tenants/evil/deliveries?webhook_id={}", text(hook, "id"))).iter().take(5) {
            let view = server.delivery("evil", &text(row, "id"));
            if view["attempt_list"][0]["outcome"] != *outcome {
                wrong.push(format!("{name} should be {outcome}: {:#}", view["attempt_list"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What a head of a kilobyte stands for is not piled up: it was more than a gigabyte.
    assert!(most(&server) < 600, "{} MiB", most(&server));
}

#[test]
fn p5_p9_floods_at_hooks_spoil_no_question() {
    let ca = TestCa::new();
    let floods = floods(&ca);
    let (server, _ca_file) = server_trusting(&ca);
    let ask = |tenant: &str| {
        let question = json!({"object": {"user": {"login": "ada"}}});
        server.post(&format!("/v1/tenants/{tenant}/points/validateUser/invoke"), question).expect(200).json()
    };
    let hook = |tenant: &str, url: &str, mode: &str| {
        let body = json!({"name": "h", "point": "validateUser", "url": url, "timeout_ms": 3_000});
        let made = server.post(&format!("/v1/tenants/{tenant}/hooks"), body).expect(201).json();
        let path = format!("/v1/tenants/{tenant}/hooks/{}", text(&made, "id"));
        if mode == "enforce" {
            server.patch(&path, json!({"mode": "enforce"})).expect(200);
        }
        text(&made, "id")
    };
    server.create_tenant("good");
    let good = receiver();
    good.script(Script::with(|request| {
        let id = request.json()["id"].clone();
        Script::status(200).body(json!({"id": id, "decision": "allow"}).to_string())
    }));
    hook("good", &good.url("/"), "enforce");
    // Every flood at once, each at hooks on trial of a tenant of its own.
    for (number, (_, flood, ..)) in floods.iter().enumerate() {
        let tenant = format!("evil{number}");
        server.create_tenant(&tenant);
        for _ in 0..4 {
            hook(&tenant, &flood.url("/"), "observe");
        }
    }
    let before = good.count();
    let mut allowed = 0;
    for _ in 0..20 {
        for number in 0..floods.len() {
            ask(&format!("evil{number}"));
        }
        let decision = ask("good");
        allowed += usize::from(decision["decision"] == "allow" && decision["cause"] == "receiver");
    }
    assert_eq!((allowed, good.count() - before), (20, 20));
    // One that is asked in earnest has a failure of its own kind, and not a server's error.
    for (number, (name, _, _, failure)) in floods.iter().enumerate() {
        let tenant = format!("evil{number}");
        let hook = text(&server.all(&format!("/v1/tenants/{tenant}/hooks"))[0], "id");
        let tried = server.post(&format!("/v1/tenants/{tenant}/hooks/{hook}/try"), json!({})).expect(200).json();
        assert!(tried.to_string().contains(&format!("\"{failure}\"")), "{name}: {tried:#}");
    }
}

#[test]
fn p5_attempts_end_when_nobody_is_left_to_make_them_for() {
    let server = Server::start();
    let hang = || Receiver::builder().script(Script::Hang).start_on_thread();
    let (of_webhook, of_tenant, kept) = (hang(), hang(), hang());
    server.create_tenant("acme");
    server.create_tenant("other");
    let forever = json!({"timeout_ms": FOREVER_MS, "retry": {"waits": []}});
    let webhook = server.webhook("acme", &of_webhook.url("/"), forever.clone());
    server.webhook("acme", &kept.url("/"), forever.clone());
    server.webhook("other", &of_tenant.url("/"), forever);
    let event = server.publish("acme", "user.created", json!({}));
    server.publish("other", "user.created", json!({}));
    for receiver in [&of_webhook, &of_tenant, &kept] {
        receiver.wait_for_blocking(1);
    }
    server.delete(&format!("/v1/tenants/acme/webhooks/{webhook}")).expect(204);
    of_webhook.wait_closed_blocking();
    server.delete("/v1/tenants/other").expect(204);
    of_tenant.wait_closed_blocking();
    assert_eq!(kept.open_connections(), 1, "another webhook's attempt goes on");
    // The attempt was made, and is told.
    let row = server.deliveries_of("acme", &event).into_iter().find(|row| row["webhook_id"] == json!(webhook)).unwrap();
    let view: Value =
        server.wait_delivery_where("acme", &text(&row, "id"), "its attempt is told", |view| view["attempts"] == 1);
    assert_eq!((&view["state"], &view["reason"]), (&json!("cancelled"), &json!("webhook_deleted")), "{view:#}");
    assert_eq!(view["attempt_list"][0]["outcome"], "reset", "{view:#}");
}
