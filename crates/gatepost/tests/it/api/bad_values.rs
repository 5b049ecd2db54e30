//! Values that are wrong: event members, URLs, headers, odd texts, deep ones, queries.

use serde_json::{Value, json};

use super::Findings;
use super::bad_input::{BODIES, NOWHERE, Setup};
use crate::harness::{Payload, text, webhook_body};

#[test]
fn event_members_keep_their_grammars() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let long = "x".repeat(129);
    let path = setup.path("{t}/events");
    let mut case = |member: &str, value: Value, good: bool| {
        let mut event = json!({"type": "user.created"});
        event[member] = value;
        let reply = setup.server.post(&path, event.clone());
        if good {
            findings.status(&event, &reply, 202);
        } else {
            findings.problem(&event, &reply, 422, "validation_failed", &[&format!("/{member}")]);
        }
    };
    for bad in [
        "",
        "a b",
        "a..b",
        ".a",
        "a.",
        "a.all",
        "all",
        "user.*",
        "*",
        "é",
        "a/b",
        "a\n",
        &long,
        "gatepost.webhook.created",
        "gatepost",
        "gatepost.anything",
        "cymmetri.changePassword",
    ] {
        case("type", json!(bad), false);
    }
    for good in ["a", "A-b_9", "a.b.c.d.e.f", "gatepostx.y", "cymmetri.preCreateUser", "a.allx", "all.a", &long[..128]]
    {
        case("type", json!(good), true);
    }
    for bad in ["", "a.b", "a b", "é", "a\n", "a?b", "a#b", "a%b", &long] {
        case("id", json!(bad), false);
    }
    for (index, good) in ["a", "A:b@c~d+e=f/g-h_0", &long[..128]].into_iter().enumerate() {
        case("id", json!(good), true);
        case("id", json!(format!("{index}")), true);
    }
    for bad in [
        json!(""),
        json!("2026-01-01"),
        json!("2026-13-01T00:00:00Z"),
        json!("2026-01-01T00:00:00"),
        json!("9999-12-31T23:59:59Z"),
        json!("1767225600"),
        json!(1767225600),
    ] {
        case("timestamp", bad, false);
    }
    for good in
        ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456Z", "2026-01-01T02:00:00+02:00", "1999-12-31T23:59:59Z"]
    {
        case("timestamp", json!(good), true);
    }
    for urgency in ["urgent", "normal", "bulk"] {
        case("urgency", json!(urgency), true);
    }
    case("urgency", json!("URGENT"), false);
    findings.none();
}

#[test]
fn urls_are_read_strictly() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let path = setup.path("{t}/webhooks");
    let longest = |n: usize| format!("https://example.com/{}", "a".repeat(n - "https://example.com/".len()));
    let (fits, too_long) = (longest(2048), longest(2049));
    let bad = [
        "",
        "x",
        "/relative",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user:pw@example.com/",
        "https://user@example.com/",
        "https://exa mple.com/",
        "https://example.com/a b",
        "https://example.com/\r\nX: y",
        "https://example.com/\u{0}",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:x/",
        "https://[::1/",
        "https://[zz]/",
        "https://.../",
        " https://example.com/",
        "https://example.com/ ",
        "https:/example.com/",
        "https:\\\\example.com\\",
        "http://10.0.0.1/",
        "http://192.168.1.1:8080/",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://127.1/",
        &too_long,
    ];
    for url in bad {
        let reply = setup.server.post(&path, webhook_body(url, json!({})));
        findings.problem(format!("url {url:?}"), &reply, 422, "validation_failed", &["/url"]);
    }
    let good = [
        "https://example.com",
        "https://example.com/",
        "https://example.com:8443/a?b=c&d=%20",
        "HTTPS://EXAMPLE.com/A",
        "https://xn--bcher-kva.example/",
        "http://127.0.0.1:9/x",
        "http://localhost:9/x",
        "https://8.8.8.8/",
        &fits,
    ];
    for url in good {
        let reply = setup.server.post(&path, webhook_body(url, json!({})));
        findings.status(format!("url {url:?}"), &reply, 201);
    }
    findings.none();
}

#[test]
fn headers_cannot_be_injected_nor_reserved_ones_set() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let path = setup.path("{t}/webhooks");
    let long = "v".repeat(4097);
    let values = ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\u{0}b", "\u{7f}", "ü", "😀", &long];
    for value in values {
        let reply = setup.server.post(&path, webhook_body(NOWHERE, json!({"headers": {"X-A": value}})));
        findings.problem(format!("value {value:?}"), &reply, 422, "validation_failed", &["/headers/X-A"]);
    }
    let names = [
        "",
        " ",
        "X A",
        "X-A ",
        "X:A",
        "X\r\nEvil",
        "X\u{0}",
        "Ä",
        "X/A",
        "(x)",
        "Host",
        "host",
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Upgrade",
        "TE",
        "Trailer",
        "Proxy-Authorization",
        "Expect",
        "User-Agent",
        "Traceparent",
        "webhook-id",
        "Webhook-Timestamp",
        "WEBHOOK-SIGNATURE",
        "webhook-anything",
        "gatepost-event-id",
        "Gatepost-Test",
        "gatepost-anything",
        "ce-type",
        "CE-Id",
        "Signature",
        "Signature-Input",
        "Content-Digest",
    ];
    for name in names {
        let pointer = format!("/headers/{}", name.replace('/', "~1"));
        let reply = setup.server.post(&path, webhook_body(NOWHERE, json!({"headers": {name: "v"}})));
        findings.problem(format!("name {name:?}"), &reply, 422, "validation_failed", &[&pointer]);
        let reply = setup.server.patch(&setup.path("{t}/webhooks/{w}"), json!({"headers": {name: "v"}}));
        findings.problem(format!("patched name {name:?}"), &reply, 422, "validation_failed", &[&pointer]);
    }
    let many = |n: usize| Value::Object((0..n).map(|i| (format!("X-{i}"), json!("v"))).collect());
    let reply = setup.server.post(&path, webhook_body(NOWHERE, json!({"headers": many(33)})));
    findings.problem("33 headers", &reply, 422, "validation_failed", &["/headers"]);
    let reply = setup.server.post(&path, webhook_body(NOWHERE, json!({"headers": many(32)})));
    findings.status("32 headers", &reply, 201);
    for (name, value) in
        [("Authorization", "Bearer x"), ("X-Api-Key", "a b\tc"), ("x_underscore", ""), ("X-A", "!\"#$%&'()~")]
    {
        let reply = setup.server.post(&path, webhook_body(NOWHERE, json!({"headers": {name: value}})));
        findings.status(format!("{name}: {value}"), &reply, 201);
    }
    findings.none();
}

#[test]
fn odd_texts_are_never_an_internal_error() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let bodies: Vec<Payload> = vec![
        r#"{"type":"a","subject":{"id":"\ud800"}}"#.into(),
        r#"{"type":"\ud800"}"#.into(),
        r#"{"\ud800":1}"#.into(),
        r#"{"type":"a","id":"\u0000"}"#.into(),
        r#"{"type":"a","urgency":1e400}"#.into(),
        r#"{"name":"\ud800","url":"\ud800","events":["\ud800"],"filter":"\ud800","scopes":["\ud800"]}"#.into(),
        r#"{"timeout_ms":1e5,"max_in_flight":-0,"overlap_seconds":99999999999999999999}"#.into(),
        deep(10_000).into(),
        format!("{{\"nope\":{}}}", deep(10_000)).into(),
        format!("{{\"retry\":{},\"settings\":{0},\"subject\":{0},\"headers\":{0},\"example\":{0}}}", deep(10_000))
            .into(),
        format!("{{\"events\":[{}]}}", deep(10_000)).into(),
        "[".repeat(100_000).into(),
        "{\"a\":".repeat(100_000).into(),
        vec![0u8; 1000].into(),
        vec![0xffu8; 1000].into(),
    ];
    for (method, path, _) in BODIES {
        for body in &bodies {
            let start: String = String::from_utf8_lossy(&body.0).chars().take(60).collect();
            let reply = setup.server.send(method, &setup.path(path), &[], body.clone());
            let right =
                matches!(reply.status, 400 | 422) && reply.header("content-type") == Some("application/problem+json");
            findings.check(right, format!("{method} {path} {start}: {reply:?}"));
        }
    }
    findings.none();
}

#[test]
fn deep_data_is_taken_or_refused_with_its_pointer() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let event = |n: usize| format!("{{\"type\":\"a\",\"data\":{}{}}}", "[".repeat(n), "]".repeat(n));
    findings.status("64 levels", &setup.server.post(&setup.path("{t}/events"), event(64)), 202);
    let reply = setup.server.post(&setup.path("{t}/events"), event(100_000));
    findings.problem("100,000 levels", &reply, 422, "validation_failed", &["/data"]);
    let batch = format!("{{\"events\":[{},{}]}}", event(1), event(100_000));
    let reply = setup.server.post(&setup.path("{t}/events/batch"), batch);
    findings.problem("in a batch", &reply, 422, "validation_failed", &["/events/1/data"]);
    findings.none();
}

#[test]
fn queries_are_as_strict_as_bodies() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let lists = ["/v1/tenants", "{t}/webhooks", "{t}/events", "{t}/deliveries", "/v1/event-types", "/v1/keys"];
    for list in lists {
        let path = setup.path(list);
        for bad in [
            "limit=0",
            "limit=251",
            "limit=-1",
            "limit=abc",
            "limit=1.5",
            "limit=",
            "limit=99999999999999999999",
            "limit=%2B5",
        ] {
            findings.problem(
                format!("{path}?{bad}"),
                &setup.server.get(&format!("{path}?{bad}")),
                422,
                "validation_failed",
                &["?limit"],
            );
        }
        for bad in ["x", "AAAA", "%00", "9999999999", "eyJhIjoxfQ", "..%2F..", "%FF"] {
            let reply = setup.server.get(&format!("{path}?cursor={bad}"));
            findings.check(reply.status == 422, format!("{path}?cursor={bad}: {reply:?}"));
            if bad.is_ascii() && bad != "%FF" {
                findings.problem(format!("{path}?cursor={bad}"), &reply, 422, "invalid_cursor", &["?cursor"]);
            }
        }
        findings.problem(
            &path,
            &setup.server.get(&format!("{path}?nope=1&limit=0&more=2")),
            422,
            "validation_failed",
            &["?nope", "?limit", "?more"],
        );
        findings.problem(
            &path,
            &setup.server.get(&format!("{path}?limit=1&limit=2")),
            422,
            "validation_failed",
            &["?limit"],
        );
        for good in ["limit=1", "limit=250", ""] {
            findings.status(format!("{path}?{good}"), &setup.server.get(&format!("{path}?{good}")), 200);
        }
    }
    let wrong = [
        (
            "{t}/events",
            "order=up&after=yesterday&before=2026-01-01&type=a..b",
            vec!["?order", "?after", "?before", "?type"],
        ),
        ("{t}/events", "state=pending", vec!["?state"]),
        (
            "{t}/deliveries",
            "state=done&webhook_id=7&event_id=a.b&since=x&until=y",
            vec!["?state", "?webhook_id", "?event_id", "?since", "?until"],
        ),
        ("{t}/deliveries", "order=asc", vec!["?order"]),
        ("{t}/deliveries", "type=a", vec!["?type"]),
        ("{t}/webhooks", "enabled=true", vec!["?enabled"]),
    ];
    for (path, query, pointers) in wrong {
        let reply = setup.server.get(&format!("{}?{query}", setup.path(path)));
        findings.problem(format!("{path}?{query}"), &reply, 422, "validation_failed", &pointers);
    }
    // Routes that have no query refuse one; a change is not made.
    for (method, path, body) in [
        ("GET", "{t}", json!(null)),
        ("PUT", "{t}", json!({"name": "changed"})),
        ("DELETE", "{t}", json!(null)),
        ("GET", "{t}/webhooks/{w}", json!(null)),
        ("PATCH", "{t}/webhooks/{w}", json!({"name": "changed"})),
        ("DELETE", "{t}/webhooks/{w}", json!(null)),
        ("POST", "{t}/events", json!({"type": "a"})),
        ("GET", "{t}/deliveries/{d}", json!(null)),
        ("POST", "{t}/deliveries/{d}/cancel", json!({})),
        ("GET", "/v1/event-types/user.created", json!(null)),
    ] {
        let payload: Payload = if body.is_null() { ().into() } else { body.into() };
        let reply = setup.server.send(method, &format!("{}?nope=1", setup.path(path)), &[], payload);
        findings.problem(format!("{method} {path}?nope=1"), &reply, 422, "validation_failed", &["?nope"]);
    }
    let webhook = setup.server.get(&setup.path("{t}/webhooks/{w}")).expect(200).json();
    findings.check(text(&webhook, "name") == "test", "nothing was changed");
    findings.none();
}
