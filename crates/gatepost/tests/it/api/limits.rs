//! Sizes, kinds and heads of requests: what is too large or of another kind is told so.

use serde_json::json;

use super::Findings;
use crate::harness::{Server, raw};

const MIB: usize = 1024 * 1024;

/// An event whose JSON has exactly this many bytes.
fn event_of(bytes: usize) -> String {
    let frame = r#"{"type":"a","data":""}"#.len();
    format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(bytes - frame))
}

/// A batch of events of just under 1 MiB each whose JSON has exactly this many bytes.
fn batch_of(bytes: usize) -> String {
    let frame = r#"{"events":[{"type":"a"}]}"#.len();
    format!("{{\"events\":[{}{{\"type\":\"a\"}}]}}", " ".repeat(bytes - frame))
}

#[test]
fn bodies_have_a_limit_and_413_says_so() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    let events = "/v1/tenants/acme/events";
    let batch = "/v1/tenants/acme/events/batch";
    findings.status("1 MiB", &server.post(events, event_of(MIB)), 202);
    findings.problem("1 MiB + 1", &server.post(events, event_of(MIB + 1)), 413, "payload_too_large", &[]);
    findings.status("16 MiB batch", &server.post(batch, batch_of(16 * MIB)), 202);
    findings.problem("16 MiB + 1 batch", &server.post(batch, batch_of(16 * MIB + 1)), 413, "payload_too_large", &[]);
    let large = [event_of(MIB / 2), event_of(MIB / 2), event_of(MIB / 2), event_of(MIB / 2)];
    let ndjson = server.send("POST", batch, &[("content-type", "application/x-ndjson")], large.join("\n"));
    findings.status("2 MiB of NDJSON", &ndjson, 202);
    let too_much = vec![b'\n'; 16 * MIB + 1];
    let ndjson = server.send("POST", batch, &[("content-type", "application/x-ndjson")], too_much);
    findings.problem("16 MiB + 1 of NDJSON", &ndjson, 413, "payload_too_large", &[]);
    let whitespace = || vec![b' '; MIB + 1];
    for (method, path) in [
        ("PUT", "/v1/tenants/acme"),
        ("POST", "/v1/tenants/acme/webhooks"),
        ("POST", "/v1/keys"),
        ("PUT", "/v1/event-types/my.type"),
    ] {
        findings.problem(path, &server.send(method, path, &[], whitespace()), 413, "payload_too_large", &[]);
    }
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "a")];
    findings.problem("binary", &server.send("POST", events, &binary, whitespace()), 413, "payload_too_large", &[]);
    findings.status("and after all that", &server.post(events, json!({"type": "a"})), 202);
    findings.none();
}

#[test]
fn a_chunked_body_has_the_same_limit() {
    let server = Server::start();
    server.create_tenant("acme");
    let head = format!(
        "POST /v1/tenants/acme/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        crate::harness::ADMIN_KEY
    );
    let mut request = head.clone().into_bytes();
    let chunk = vec![b' '; 64 * 1024];
    for _ in 0..17 {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(&chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = String::from_utf8_lossy(&raw(server.addr(), &request)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("payload_too_large"), "{answer}");

    let request = format!("{head}9\r\n{{\"type\":\"\r\n3\r\na\"}}\r\n0\r\n\r\n");
    let answer = String::from_utf8_lossy(&raw(server.addr(), request.as_bytes())).into_owned();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
}

#[test]
fn a_batch_has_at_most_a_thousand_events() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    let batch = "/v1/tenants/acme/events/batch";
    let json_of = |n: usize| json!({"events": vec![json!({"type": "a"}); n]});
    let lines_of = |n: usize| "{\"type\":\"a\"}\n".repeat(n);
    let cloud_of = |n: usize| {
        let events: Vec<_> =
            (0..n).map(|i| json!({"specversion": "1.0", "id": format!("c{i}"), "source": "/s", "type": "b"})).collect();
        serde_json::Value::Array(events)
    };
    let ndjson = [("content-type", "application/x-ndjson")];
    let cloud = [("content-type", "application/cloudevents-batch+json")];
    let events = "/v1/tenants/acme/events";
    findings.problem("1,001", &server.post(batch, json_of(1_001)), 422, "batch_too_large", &["/events"]);
    findings.problem(
        "1,001 lines",
        &server.send("POST", batch, &ndjson, lines_of(1_001)),
        422,
        "batch_too_large",
        &["/events"],
    );
    findings.problem(
        "1,001 CloudEvents",
        &server.send("POST", events, &cloud, cloud_of(1_001)),
        422,
        "batch_too_large",
        &["/events"],
    );
    let none = server.get(events).expect(200).json();
    findings.check(none["data"] == json!([]), "nothing of a batch that is too large is kept");
    for (what, reply) in [
        ("1,000", server.post(batch, json_of(1_000))),
        ("1,000 lines", server.send("POST", batch, &ndjson, lines_of(1_000))),
        ("1,000 CloudEvents", server.send("POST", events, &cloud, cloud_of(1_000))),
    ] {
        findings.status(what, &reply, 202);
        findings.check(
            reply.json()["events"].as_array().is_some_and(|e| e.len() == 1_000),
            format!("{what}: all are answered"),
        );
    }
    findings.none();
}

#[test]
fn other_kinds_of_bodies_are_415() {
    let server = Server::start();
    server.create_tenant("acme");
    let webhook = server.webhook("acme", "http://127.0.0.1:9/x", json!({}));
    let mut findings = Findings::default();
    let patch = format!("/v1/tenants/acme/webhooks/{webhook}");
    let routes = [
        ("PUT", "/v1/tenants/acme"),
        ("POST", "/v1/tenants/acme/webhooks"),
        ("PATCH", patch.as_str()),
        ("POST", "/v1/tenants/acme/events"),
        ("POST", "/v1/tenants/acme/events/batch"),
        ("PUT", "/v1/event-types/my.type"),
        ("POST", "/v1/keys"),
    ];
    let kinds: [&[(&str, &str)]; 8] = [
        &[("content-type", "text/plain")],
        &[("content-type", "application/xml")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/jsonp")],
        &[("content-type", "json")],
        &[("content-type", "application/json; charset=iso-8859-1")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        &[("content-type", "multipart/form-data; boundary=x")],
    ];
    for (method, path) in routes {
        for kind in kinds {
            let reply = server.send(method, path, kind, "{}");
            findings.problem(format!("{method} {path} {kind:?}"), &reply, 415, "unsupported_media_type", &[]);
        }
    }
    // An empty body is of no kind that could be refused.
    for (method, path) in routes {
        for kind in
            kinds.iter().filter(|kind| kind.len() == 1).chain(&[&[("content-type", "application/octet-stream")][..]])
        {
            let reply = server.send(method, path, kind, "");
            findings.check(reply.status != 415, format!("{method} {path} {kind:?}: {reply:?}"));
        }
    }
    for kind in ["application/octet-stream", "application/x-www-form-urlencoded"] {
        let path = format!("/v1/tenants/acme/webhooks/{webhook}/pause");
        server.send("POST", &path, &[("content-type", kind)], "").expect(200);
    }
    // Right kinds on the wrong route.
    for (path, kind) in [
        ("/v1/tenants/acme/webhooks", "application/x-ndjson"),
        ("/v1/tenants/acme/webhooks", "application/merge-patch+json"),
        ("/v1/tenants/acme/events", "application/x-ndjson"),
        ("/v1/tenants/acme/events", "application/merge-patch+json"),
        ("/v1/keys", "application/cloudevents+json"),
    ] {
        let reply = server.send("POST", path, &[("content-type", kind)], r#"{"type":"a"}"#);
        findings.problem(format!("{path} {kind}"), &reply, 415, "unsupported_media_type", &[]);
    }
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\""] {
        let reply = server.send("POST", "/v1/tenants/acme/events", &[("content-type", kind)], r#"{"type":"a"}"#);
        findings.status(kind, &reply, 202);
    }
    for kind in ["application/json", "application/merge-patch+json"] {
        let reply = server.send("PATCH", &patch, &[("content-type", kind)], r#"{"name":"b"}"#);
        findings.status(kind, &reply, 200);
    }
    findings.none();
}

#[test]
fn heads_that_are_too_large_are_answered() {
    let server = Server::start();
    let mut findings = Findings::default();
    let long = "a".repeat(10_000);
    findings.problem("a long path", &server.get(&format!("/v1/tenants/{long}")), 414, "uri_too_long", &[]);
    findings.problem("a long query", &server.get(&format!("/v1/tenants?cursor={long}")), 414, "uri_too_long", &[]);
    let large = "v".repeat(40_000);
    let reply = server.send("GET", "/v1/tenants", &[("x-a", &large)], ());
    findings.problem("40 kB of headers", &reply, 431, "header_fields_too_large", &[]);
    let names: Vec<String> = (0..150).map(|i| format!("x-{i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    findings.problem("150 headers", &server.send("GET", "/v1/tenants", &many, ()), 431, "header_fields_too_large", &[]);
    findings.status("and after all that", &server.get("/v1/tenants"), 200);
    findings.none();
}

#[test]
fn what_is_not_http_does_no_harm() {
    let server = Server::start();
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/tenants HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/tenants HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let answer = raw(server.addr(), bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    server.get("/healthz").expect(200);
}
