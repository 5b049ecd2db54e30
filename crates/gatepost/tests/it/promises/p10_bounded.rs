//! P10: memory does not grow with backlog, history, payload or answer size; every list is paged;
//! every loop stops on shutdown.

use std::collections::HashSet;

use gatepost_testkit::{Gate, Script};
use serde_json::{Value, json};

use crate::harness::{Options, Server, receiver, signal, text, wait_until};

/// Memory in use, in bytes.
fn resident(server: &Server) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
}

/// Publishes `batches` of 1,000 events of `size` bytes of data.
fn publish_batches(server: &Server, batches: usize, size: usize) {
    let event = format!("{{\"type\":\"user.updated\",\"data\":\"{}\"}}\n", "x".repeat(size - 2));
    let body = bytes::Bytes::from(event.repeat(1_000));
    let headers = [("content-type", "application/x-ndjson")];
    for _ in 0..batches {
        server.send("POST", "/v1/tenants/acme/events/batch", &headers, body.clone()).expect(202);
    }
}

#[test]
fn p10_memory_does_not_grow_with_the_backlog() {
    let server = Server::start();
    server.create_tenant("acme");
    let silent = receiver();
    silent.script(Script::Hang);
    server.webhook("acme", &silent.url("/"), json!({"timeout_ms": 60_000}));
    const SIZE: usize = 8 << 10;
    // Caches and buffers fill up to their bounds first.
    publish_batches(&server, 9, SIZE);
    let before = resident(&server);
    publish_batches(&server, 10, SIZE);
    let grown = resident(&server) - before;
    let payload = (10 * 1_000 * SIZE) as i64;
    assert!(grown < payload / 4, "{payload} bytes of backlog made memory grow by {grown}, from {before}");
}

#[test]
fn p10_answers_are_kept_up_to_16_kib_and_read_little_further() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let ten_mb = bytes::Bytes::from(vec![b'a'; 10_000_000]);
    inbox.script(Script::status(200).body(ten_mb.clone()));
    server.webhook("acme", &inbox.url("/"), json!({}));
    let warm = server.publish("acme", "user.created", json!({}));
    let view = server.wait_event("acme", &warm, "delivered");
    let response = &view["attempt_list"][0]["response"];
    assert_eq!(response["body"].as_str().unwrap().len(), 16 << 10);
    assert_eq!(response["truncated"], true);
    let before = resident(&server);
    for n in 0..40 {
        server.publish("acme", "user.created", json!({"n": n}));
    }
    server.wait_settled("acme");
    let grown = resident(&server) - before;
    assert!(grown < 40 << 20, "40 answers of 10 MB made memory grow by {grown}");
    // Nothing is read for its own sake: a little, and what was on its way.
    let read = inbox.bytes_sent() / 41;
    assert!(read < 8_000_000, "{read} bytes of each answer were read");
    // A short one is kept whole, bytes that are no text as base64.
    inbox.script(Script::status(200).body("fine"));
    let short = server.publish("acme", "user.created", json!({}));
    let view = server.wait_event("acme", &short, "delivered");
    assert_eq!(view["attempt_list"][0]["response"]["body"], "fine");
    assert_eq!(view["attempt_list"][0]["response"]["truncated"], false);
    inbox.script(Script::status(200).body(&b"\xff\x00\xfe"[..]));
    let binary = server.publish("acme", "user.created", json!({}));
    let view = server.wait_event("acme", &binary, "delivered");
    assert_eq!(view["attempt_list"][0]["response"]["body_base64"], "/wD+");
}

#[test]
fn p10_a_stop_finishes_and_records_what_is_under_way() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let gate = Gate::new();
    inbox.script(Script::status(200).behind(&gate));
    server.webhook("acme", &inbox.url("/"), json!({"timeout_ms": 60_000, "max_in_flight": 4}));
    let events: Vec<String> = (0..10).map(|n| server.publish("acme", "user.created", json!({"n": n}))).collect();
    let under_way: HashSet<String> =
        inbox.wait_for_blocking(4).iter().map(|r| r.header("webhook-id").unwrap().to_owned()).collect();
    signal(server.pid(), "TERM");
    server.wait_for_line("that it is stopping", |line| line.contains("stopping"));
    gate.open();
    assert_eq!(server.wait_exit().code(), Some(0));
    let before = inbox.count();
    assert!(before >= 4, "an attempt that was under way was dropped");
    server.restart();
    server.wait_settled("acme");
    // What was under way was recorded: it is not sent again. The rest goes out now.
    assert_eq!(inbox.count(), 10, "{before} of them before the restart");
    for event in &events {
        let view = server.wait_event("acme", event, "delivered");
        assert_eq!(view["attempts"], 1, "{} {view:#}", under_way.contains(event));
    }
}

#[test]
fn p10_a_stop_with_nothing_to_do_is_immediate_and_clean() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::status(500));
    // Waits of an hour, timers and idle connections hold nobody up.
    server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": [3600]}}));
    let event = server.publish("acme", "user.created", json!({}));
    let delivery = server.delivery_of("acme", &event);
    server.wait_delivery_where("acme", &delivery, "its attempt", |d| d["attempts"] == 1);
    assert_eq!(server.terminate().code(), Some(0));
    server.restart();
    let view = server.delivery("acme", &delivery);
    assert_eq!((&view["state"], &view["attempts"]), (&json!("pending"), &json!(1)));
    server.signal("INT");
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(!server.said().contains("panicked"), "{}", server.said());
}

#[test]
fn p10_every_list_is_paged() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    for n in 0..60 {
        server.webhook(
            "acme",
            &inbox.url(&format!("/{n}")),
            json!({"events": if n == 0 { json!(["*"]) } else { json!(["other.type"]) }}),
        );
        server.put(&format!("/v1/tenants/t-{n}"), json!({})).expect(201);
        server.create_key(&["read"], None);
        server.put(&format!("/v1/event-types/own.type{n}"), json!({})).expect(201);
        server.publish("acme", "user.created", json!({"n": n}));
    }
    for list in [
        "/v1/tenants",
        "/v1/keys",
        "/v1/event-types",
        "/v1/tenants/acme/webhooks",
        "/v1/tenants/acme/events",
        "/v1/tenants/acme/deliveries",
    ] {
        let page = |query: &str| server.get(&format!("{list}{query}"));
        let length = |page: &Value| page["data"].as_array().unwrap().len();
        let first = page("").expect(200).json();
        assert_eq!(length(&first), 50, "{list}: the default");
        assert!(first["next_cursor"].is_string(), "{list}");
        for bad in ["?limit=0", "?limit=251", "?limit=-1", "?limit=x", "?limit="] {
            let reply = page(bad).expect(422);
            assert_eq!(reply.pointers(), ["?limit"], "{list}{bad}");
        }
        page("?cursor=nonsense").expect_problem(422, "invalid_cursor");
        // Page by page it is the same as at once, without gap or repeat.
        let id = |row: &Value| row.get("id").or_else(|| row.get("name")).unwrap().as_str().unwrap().to_owned();
        let all: Vec<String> = server.all(list).iter().map(id).collect();
        assert!(all.len() >= 60, "{list}: {}", all.len());
        let mut paged: Vec<String> = Vec::new();
        let mut query = "?limit=7".to_owned();
        loop {
            let next = page(&query).expect(200).json();
            assert!(length(&next) <= 7);
            paged.extend(next["data"].as_array().unwrap().iter().map(id));
            let Some(cursor) = next["next_cursor"].as_str() else { break };
            query = format!("?limit=7&cursor={cursor}");
        }
        assert_eq!(paged, all, "{list}");
    }
    // A cursor of one list means nothing to another, nor to another tenant.
    let cursor = text(&server.get("/v1/tenants/acme/events?limit=1").expect(200).json(), "next_cursor");
    server.get(&format!("/v1/tenants/acme/deliveries?cursor={cursor}")).expect_problem(422, "invalid_cursor");
    server.get(&format!("/v1/tenants/t-1/events?cursor={cursor}")).expect_problem(422, "invalid_cursor");
}

#[test]
fn p10_pages_do_not_shift_when_rows_arrive_and_the_feed_ends_nowhere() {
    let server = Server::start();
    server.create_tenant("acme");
    let ids =
        |page: &Value| -> Vec<String> { page["data"].as_array().unwrap().iter().map(|e| text(e, "id")).collect() };
    let publish = |count: usize| -> Vec<String> {
        (0..count).map(|n| server.publish("acme", "user.created", json!({"n": n}))).collect()
    };
    let old = publish(10);
    let first = server.get("/v1/tenants/acme/events?limit=4").expect(200).json();
    let new = publish(5);
    let mut seen = ids(&first);
    seen.extend(
        server
            .all(
                &format!("/v1/tenants/acme/events?limit=4&cursor={}", text(&first, "next_cursor"))
                    .replace("limit=4&", ""),
            )
            .iter()
            .map(|e| text(e, "id")),
    );
    let newest_first: Vec<String> = old.iter().rev().cloned().collect();
    assert_eq!(seen, newest_first);
    // The feed: from the oldest on, an empty page and the same cursor at the end, then what is new.
    let mut fed = Vec::new();
    let mut path = "/v1/tenants/acme/events?order=asc&limit=4".to_owned();
    loop {
        let page = server.get(&path).expect(200).json();
        let cursor = text(&page, "next_cursor");
        let here = format!("/v1/tenants/acme/events?order=asc&limit=4&cursor={cursor}");
        if ids(&page).is_empty() {
            assert_eq!(here, path, "the end has another cursor");
            break;
        }
        fed.extend(ids(&page));
        path = here;
    }
    assert_eq!(fed, [old, new].concat());
    let later = publish(3);
    assert_eq!(ids(&server.get(&path).expect(200).json()), later);
}

#[test]
fn p10_with_no_descriptors_left_the_log_has_one_line_a_second() {
    // The shell's limit is the hard one too: the server cannot raise it.
    let few = Options::default().under(&["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""]);
    let server = Server::with(few);
    server.create_tenant("acme");
    let silent = receiver();
    silent.script(Script::Hang);
    for n in 0..40 {
        let url = silent.url(&format!("/{n}"));
        server.create_webhook("acme", &url, json!({"name": format!("w{n}"), "timeout_ms": 60_000}));
    }
    server.publish_event("acme", json!({"type": "user.created"}));
    // Nobody of these says anything; the last ones are not even accepted.
    let connections: Vec<_> = (0..80)
        .map(|_| std::net::TcpStream::connect_timeout(&server.addr(), std::time::Duration::from_secs(10)))
        .collect();
    let said = |server: &Server| {
        let lines = server.said();
        let told = |line: &Value| line["left_out"].is_u64();
        let at = |line: Value| text(&line, "timestamp").parse::<gatepost_core::Timestamp>().expect("a time");
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(told).map(at).collect::<Vec<_>>()
    };
    let lines = wait_until("four lines", || Some(said(&server)).filter(|lines| lines.len() >= 4));
    drop(connections);
    for pair in lines.windows(2) {
        let apart = pair[1].since(pair[0]);
        assert!(apart.as_millis() >= 950, "two lines {apart:?} apart: {lines:?}");
    }
}
