//! P5 and P10 at the door: who has no key shuts nobody out who has one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Options, Server, raw, text};

#[expect(clippy::disallowed_methods, reason = "the client of the server under test, not the product")]
fn open(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("not zero");
    stream
}

/// How many of `count` connections of their own were answered as they should be.
fn answered(server: &Server, count: usize) -> (usize, usize) {
    let publish = |n: usize| {
        let reply = server.client().try_send("POST", "/v1/tenants/acme/events", &[], json!({"type": "a", "data": n}));
        usize::from(reply.is_ok_and(|reply| reply.status == 202))
    };
    let health =
        |_| usize::from(server.client_with("").try_send("GET", "/healthz", &[], ()).is_ok_and(|r| r.status == 200));
    ((0..count).map(publish).sum(), (0..count).map(health).sum())
}

#[test]
fn p5_connections_that_send_nothing_shut_nobody_out() {
    // With little memory there is room for few connections.
    let server = Server::with(Options::default().env("GATEPOST_MEMORY_MIB", 128));
    server.create_tenant("acme");
    let mut kept = server.client();
    kept.get("/v1/tenants/acme").expect(200);
    let room = 128 * 1024 * 12 / 100 / 64;
    let mut idle = Vec::new();
    for n in 0..room + 300 {
        let mut stream = open(server.addr());
        match n % 3 {
            0 => {}
            1 => stream.write_all(b"GET /healthz HT").expect("written"),
            _ => stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("written"),
        }
        idle.push(stream);
    }
    assert_eq!(answered(&server, 20), (20, 20));
    kept.get("/v1/tenants/acme").expect(200);
    // Those that waited longest were closed, and the others are not.
    let closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("not zero");
        let mut rest = [0; 4096];
        loop {
            match stream.read(&mut rest) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => {
                    break !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                }
            }
        }
    };
    let last = idle.len() - 1;
    assert!(closed(&mut idle[0]) && !closed(&mut idle[last]));
}

#[test]
fn p5_bodies_of_strangers_take_nothing_of_the_admins_room() {
    let server = Server::with(Options::default().env("GATEPOST_MEMORY_MIB", 128));
    server.create_tenant("acme");
    let head = "POST /compat/cryptr/api/v2/oauth/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 16384\r\n\r\n";
    let body = "x".repeat(16_000);
    let held: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = open(server.addr());
            // The server may have had enough of them by then.
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            stream
        })
        .collect();
    let large = json!({"type": "a", "data": "y".repeat(900_000)}).to_string();
    for _ in 0..10 {
        server.post("/v1/tenants/acme/events", large.as_str()).expect(202);
    }
    drop(held);
}

#[test]
fn p5_wrong_keys_are_limited_where_they_come_from_and_right_ones_are_not() {
    let server = Server::start();
    server.create_tenant("acme");
    let made = server.post("/v1/keys", json!({"name": "k", "scopes": ["read"], "tenant": "acme"})).expect(201).json();
    let (id, deleted) = (text(&made, "id"), text(&made, "key"));
    server.delete(&format!("/v1/keys/{id}")).expect(204);
    let right = server.create_key(&["read"], Some("acme"));
    let statuses = |key: &str, count: usize| -> Vec<u16> {
        let mut client = server.client_with(key);
        (0..count).map(|_| client.get("/v1/tenants/acme").status).collect()
    };
    let mut tried = statuses("gp_wrong", 110);
    tried.sort_unstable();
    assert_eq!(tried.iter().filter(|status| **status == 401).count(), 100, "{tried:?}");
    assert_eq!(tried.iter().filter(|status| **status == 429).count(), 10, "{tried:?}");
    let refused = server.client_with("gp_other").get("/v1/tenants/acme").expect_problem(429, "too_many_requests");
    assert!(
        refused.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok_and(|s| s <= 60)),
        "{refused:?}"
    );
    assert_eq!(statuses(&right, 3), [200; 3]);
    assert_eq!(statuses(&deleted, 3), [401; 3], "who had a key is no stranger");
    server.get("/v1/tenants/acme").expect(200);
    let line = server.wait_for_line("the log names the address", |line| line.contains("a wrong key"));
    assert!(line.contains("127.0.0.1") && !line.contains("gp_wrong"), "{line}");
    let metrics = server.get("/metrics").text();
    for series in
        ["gatepost_wrong_keys_total{outcome=\"unauthorized\"} 100", "gatepost_wrong_keys_total{outcome=\"refused\"} 11"]
    {
        assert!(metrics.contains(series), "{series}");
    }
}

#[test]
fn heads_that_are_no_requests_are_answered_as_every_error_is() {
    let server = Server::start();
    server.create_tenant("acme");
    for (head, status, code) in [
        ("GET /healthz HTTP/1.1\r\n\r\n", 400, "malformed_request"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "malformed_request"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nno colon here\r\n\r\n", 400, "malformed_request"),
        ("GET / healthz HTTP/1.1\r\nhost: a\r\n\r\n", 400, "malformed_request"),
        ("POST /v1/keys HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501, "transfer_coding_unknown"),
        (
            "POST /v1/keys HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            501,
            "transfer_coding_unknown",
        ),
    ] {
        let answer = raw(server.addr(), head.as_bytes());
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("application/problem+json"), "{answer}");
        let problem: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)));
    }
    assert!(raw(server.addr(), b"GET /healthz HTTP/1.0\r\n\r\n").starts_with(b"HTTP/1.0 200"));
}

#[test]
fn one_event_of_many_is_no_larger_than_one_alone() {
    let server = Server::with(Options::default().env("GATEPOST_MAX_BODY_BYTES", 10_000));
    server.create_tenant("acme");
    let large = json!({"type": "a", "data": "x".repeat(10_000)}).to_string();
    let small = json!({"type": "a"}).to_string();
    let cloud = json!([{"specversion": "1.0", "id": "1", "source": "/", "type": "a", "data": "x".repeat(10_000)}]);
    for (kind, path, body, at) in [
        ("application/x-ndjson", "batch", format!("{small}\n{large}\n"), "/events/1"),
        ("application/json", "batch", format!("{{\"events\":[{small},{large}]}}"), "/events/1"),
        ("application/cloudevents-batch+json", "cloudevents", cloud.to_string(), "/events/0"),
    ] {
        let path = format!("/v1/tenants/acme/events/{path}");
        let refused =
            server.send("POST", &path, &[("content-type", kind)], body).expect_problem(413, "payload_too_large");
        assert_eq!(refused.pointers(), [at], "{kind}");
        assert!(refused.text().contains("max_body_bytes"), "{refused:?}");
    }
    assert_eq!(server.all("/v1/tenants/acme/events"), Vec::<Value>::new());
}
