//! P10 once more: what the server holds is bounded by a setting, whoever fills it.

use std::io::{Read, Write};
use std::net::TcpStream;

use gatepost_testkit::Script;
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Options, Server, raw, receiver};

const SMALLEST_MIB: u64 = 128;

/// A server with the least memory it can be given.
fn small() -> Server {
    Server::with(Options::default().arg("--memory-mib").arg(SMALLEST_MIB.to_string()))
}

/// The most memory the server ever had, in MiB.
fn most(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

#[expect(clippy::disallowed_methods, reason = "a test is a client of its own server")]
fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.addr()).unwrap()
}

/// Sends a request on a connection of its own and leaves the answer unread.
fn ask(server: &Server, request: &str) -> TcpStream {
    let mut stream = connect(server);
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn event(size: usize) -> Value {
    json!({"type": "user.updated", "data": "x".repeat(size)})
}

#[test]
fn p10_the_setting_reaches_the_server() {
    // What a batch may have follows from it: 16 MiB with the default, less where there is no room.
    let line = format!("{}\n", event(100_000));
    let body = bytes::Bytes::from(line.repeat(80));
    let publish = |server: &Server| {
        server.create_tenant("acme");
        server.send("POST", "/v1/tenants/acme/events/batch", &[("content-type", "application/x-ndjson")], body.clone())
    };
    publish(&small()).expect_problem(413, "payload_too_large");
    publish(&Server::with(Options::default().env("GATEPOST_MEMORY_MIB", 512))).expect(202);
    publish(&Server::start()).expect(202);
    let refused = Server::try_with(Options::default().env("GATEPOST_MEMORY_MIB", 64));
    let (status, said) = refused.err().expect("64 MiB are not enough");
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("memory_mib") && said.contains("from 128 to 1048576"), "{said}");
}

#[test]
fn p10_answers_nobody_reads_are_bounded() {
    let server = small();
    server.create_tenant("acme");
    for _ in 0..30 {
        server.publish_event("acme", event(200_000));
    }
    let other = server.create_key(&["read"], None);
    // Each would be six megabytes, with as much again for its rows.
    let request = format!(
        "GET /v1/tenants/acme/events?limit=100 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n"
    );
    let mut unread: Vec<TcpStream> = (0..60).map(|_| ask(&server, &request)).collect();
    let mut answered = 0;
    for stream in &mut unread {
        // It was made, or refused: no more of it is read.
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        answered += usize::from(&start == b"HTTP/1.1 200");
        assert!(matches!(&start, b"HTTP/1.1 200" | b"HTTP/1.1 429"), "{}", String::from_utf8_lossy(&start));
    }
    assert!(answered >= 3, "{answered}");
    // Somebody else reads all the same, a page at a time.
    let pages = server.client_with(&other).all("/v1/tenants/acme/events");
    assert_eq!(pages.len(), 30);
    assert!(most(&server) <= SMALLEST_MIB, "{} MiB", most(&server));
}

#[test]
fn p10_heads_that_never_end_are_bounded() {
    let server = small();
    let long = format!("GET / HTTP/1.1\r\n{}", format!("x-pad: {}\r\n", "x".repeat(1_000)).repeat(50));
    let open: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = connect(&server);
            // The server may cut it off while it is being written.
            let _ = stream.write_all(long.as_bytes());
            stream
        })
        .collect();
    // An ordinary request is answered all the same, a long head with its reason.
    server.get("/v1/tenants").expect(200);
    let answer = raw(server.addr(), format!("{long}\r\n").as_bytes());
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(most(&server) < 96, "{} MiB with {} of them", most(&server), open.len());
}

#[test]
fn p10_large_events_for_receivers_that_hang_are_bounded() {
    let server = small();
    let silent = receiver();
    silent.script(Script::Hang);
    for tenant in 0..12 {
        server.create_tenant(&format!("t-{tenant}"));
        for _ in 0..2 {
            server.webhook(&format!("t-{tenant}"), &silent.url("/"), json!({"timeout_ms": 60_000}));
        }
    }
    for n in 0..120 {
        server.publish_event(&format!("t-{}", n % 12), event(1_000_000));
    }
    assert!(most(&server) <= SMALLEST_MIB, "{} MiB", most(&server));
}
