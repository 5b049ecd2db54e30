//! Requests that are wrong: each is answered with its exact status, code and pointers, never a 500.

use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Server, webhook_body};

const TENANT: &str = "/v1/tenants/acme";
/// Nobody listens there: what is owed to it stays owed.
pub(super) const NOWHERE: &str = "http://127.0.0.1:9/x";

/// A server with a tenant, a webhook, and a delivery that waits for its next attempt.
pub(super) struct Setup {
    pub(super) server: Server,
    webhook: String,
    delivery: String,
}

impl Setup {
    pub(super) fn new() -> Setup {
        let server = Server::start();
        server.create_tenant("acme");
        let webhook = server.webhook("acme", NOWHERE, json!({"retry": {"waits": [86400, 86400]}}));
        let event = server.publish("acme", "user.created", json!({}));
        let delivery = server.delivery_of("acme", &event);
        Setup { server, webhook, delivery }
    }

    /// A path with the setup's ids in it.
    pub(super) fn path(&self, path: &str) -> String {
        path.replace("{w}", &self.webhook).replace("{d}", &self.delivery).replace("{t}", TENANT)
    }
}

/// Every route that reads a body, and whether it must have one.
pub(super) const BODIES: [(&str, &str, bool); 11] = [
    ("PUT", "{t}", false),
    ("POST", "{t}/webhooks", true),
    ("PATCH", "{t}/webhooks/{w}", true),
    ("POST", "{t}/webhooks/{w}/test", false),
    ("POST", "{t}/webhooks/{w}/rotate-secret", false),
    ("POST", "{t}/events", true),
    ("POST", "{t}/events/batch", true),
    ("PUT", "/v1/event-types/my.type", false),
    ("POST", "/v1/keys", true),
    ("POST", "{t}/deliveries/{d}/retry", false),
    ("POST", "{t}/deliveries/{d}/cancel", false),
];

#[test]
fn what_is_not_json_is_400_with_line_and_column_everywhere() {
    let setup = Setup::new();
    // Text, line, first and last column that point at the trouble.
    let texts: [(&[u8], u64, u64, u64); 15] = [
        (b"{", 1, 1, 2),
        (b"{\"a\":}", 1, 6, 7),
        (b"{\n  \"type\": nope\n}", 2, 11, 13),
        (b"{\n  \"name\": \"a\",\n  \"url\" \"b\"\n}", 3, 8, 10),
        (b"{} x", 1, 4, 4),
        (b"{}{}", 1, 3, 3),
        (b"[1,]", 1, 4, 4),
        (b"{'a':1}", 1, 2, 2),
        (b"{\"a\":01}", 1, 6, 8),
        (b"{\"a\":NaN}", 1, 6, 7),
        (b"{\"a\":\"\x01\"}", 1, 6, 8),
        (b"{\"name\":\"\xff\"}", 1, 10, 10),
        (b"\xef\xbb\xbf{}", 1, 1, 2),
        (b"{\n\"nope\":1,\n\"nope\":2}", 3, 1, 9),
        (b"{\"n\\u006fpe\":1,\"nope\":2}", 1, 16, 24),
    ];
    let mut findings = Findings::default();
    for (method, path, _) in BODIES {
        let path = setup.path(path);
        for (body, line, first, last) in texts {
            let what = format!("{method} {path} {}", String::from_utf8_lossy(body));
            let reply = setup.server.send(method, &path, &[], body.to_vec());
            findings.problem(&what, &reply, 400, "malformed_json", &[]);
            if reply.status == 400 {
                let problem = reply.json();
                let column = problem["column"].as_u64().unwrap_or_default();
                let right = problem["line"] == line && (first..=last).contains(&column);
                findings.check(right, format!("{what}: wanted line {line} column {first} to {last}: {problem}"));
            }
        }
    }
    findings.none();
}

#[test]
fn an_empty_body_is_malformed_where_one_is_needed_and_an_empty_object_elsewhere() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    for (method, path, needed) in BODIES {
        let path = setup.path(path);
        let reply = setup.server.send(method, &path, &[], ());
        if needed {
            findings.problem(format!("{method} {path}"), &reply, 400, "malformed_json", &[]);
        } else {
            findings.check((200..300).contains(&reply.status), format!("{method} {path}: {reply:?}"));
        }
    }
    findings.none();
}

#[test]
fn members_named_twice_are_malformed_but_inside_data() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let cases = [
        ("{t}/events", r#"{"type":"a","type":"a"}"#),
        ("{t}/events", r#"{"type":"a","data":1,"data":1}"#),
        ("{t}/events", r#"{"type":"a","subject":{"id":"1","id":"2"}}"#),
        ("{t}/events", r#"{"type":"a","attributes":{"x":1,"x":2}}"#),
        ("{t}/events", r#"{"type":"a","attributes":{"x":{"y":1,"y":2}}}"#),
        ("{t}/events/batch", r#"{"events":[{"type":"a"},{"type":"a","id":"1","id":"1"}]}"#),
        ("{t}/events/batch", r#"{"events":[],"events":[]}"#),
        ("{t}/webhooks", r#"{"name":"a","url":"https://a.example/","events":["*"],"headers":{"A":"1","A":"2"}}"#),
        (
            "{t}/webhooks",
            r#"{"name":"a","url":"https://a.example/","events":["*"],"retry":{"gone":"final","gone":"final"}}"#,
        ),
        ("/v1/keys", r#"{"name":"a","scopes":["read"],"name":"b"}"#),
    ];
    for (path, body) in cases {
        let reply = setup.server.post(&setup.path(path), body);
        findings.problem(format!("{path} {body}"), &reply, 400, "malformed_json", &[]);
    }
    let inside = r#"{"type":"a","data":{"x":1,"x":2,"y":{"z":1,"z":1}}}"#;
    findings.status(inside, &setup.server.post(&setup.path("{t}/events"), inside), 202);
    findings.none();
}

#[test]
fn every_wrong_member_is_told_at_once_with_its_pointer() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let mut case = |method: &str, path: &str, body: Value, pointers: &[&str]| {
        let reply = setup.server.send(method, &setup.path(path), &[], body.clone());
        findings.problem(format!("{method} {path} {body}"), &reply, 422, "validation_failed", pointers);
    };
    for (method, path, _) in BODIES {
        for body in [json!([]), json!("x"), json!(1), json!(true), json!(null)] {
            case(method, path, body, &[""]);
        }
        if method != "PATCH"
            && !path.ends_with("webhooks")
            && !path.ends_with("events")
            && !path.ends_with("batch")
            && !path.ends_with("keys")
        {
            case(method, path, json!({"nope": 1, "a/b~c": 2}), &["/nope", "/a~1b~0c"]);
        }
    }

    // What is missing.
    case("POST", "{t}/webhooks", json!({}), &["/name", "/url", "/events"]);
    case("POST", "{t}/webhooks", json!({"name": null, "url": null, "events": null}), &["/name", "/url", "/events"]);
    case("POST", "{t}/events", json!({}), &["/type"]);
    case("POST", "{t}/events", json!({"subject": {}}), &["/type", "/subject/id"]);
    case("POST", "{t}/events/batch", json!({}), &["/events"]);
    case(
        "POST",
        "{t}/events/batch",
        json!({"events": [{}, {"type": "a"}, {"id": 1}]}),
        &["/events/0/type", "/events/2/type", "/events/2/id"],
    );
    case("POST", "/v1/keys", json!({}), &["/name", "/scopes"]);

    // What is of the wrong kind or unknown, all of it.
    let all_wrong = json!({"name": 1, "description": [], "url": {}, "events": "user.*", "filter": 7, "profile": 3,
        "headers": [], "retry": "x", "timeout_ms": "1", "max_in_flight": 1.5, "secret": 1, "enabled": "yes", "nope": 0});
    case(
        "POST",
        "{t}/webhooks",
        all_wrong,
        &[
            "/name",
            "/description",
            "/url",
            "/events",
            "/filter",
            "/profile",
            "/headers",
            "/retry",
            "/timeout_ms",
            "/max_in_flight",
            "/secret",
            "/enabled",
            "/nope",
        ],
    );
    let meaning_wrong = json!({"name": "", "url": "ftp://h/", "events": ["us*", "user.created", "*.created"],
        "filter": "1 +", "profile": "no-such", "headers": {"Host": "x", "X-A": "a\r\nB: c"},
        "retry": {"waits": [-1, 5, 1e9], "jitter": 2}, "timeout_ms": 99, "max_in_flight": 0, "secret": "short"});
    case(
        "POST",
        "{t}/webhooks",
        meaning_wrong,
        &[
            "/name",
            "/url",
            "/events/0",
            "/events/2",
            "/filter",
            "/profile",
            "/headers/Host",
            "/headers/X-A",
            "/retry/waits/0",
            "/retry/waits/2",
            "/retry/jitter",
            "/timeout_ms",
            "/max_in_flight",
            "/secret",
        ],
    );
    let retry_wrong = json!({"waits": 1, "jitter": "a", "retry_on": ["5xx", "6xx", 99, true], "gone": "later",
        "retry_after": {"statuses": ["x"], "cap_s": "1", "nope": 1}, "nope": 1});
    case(
        "POST",
        "{t}/webhooks",
        webhook_body(NOWHERE, json!({"retry": retry_wrong})),
        &[
            "/retry/waits",
            "/retry/jitter",
            "/retry/retry_on/1",
            "/retry/retry_on/2",
            "/retry/retry_on/3",
            "/retry/gone",
            "/retry/retry_after/statuses/0",
            "/retry/retry_after/cap_s",
            "/retry/retry_after/nope",
            "/retry/nope",
        ],
    );
    case(
        "POST",
        "{t}/webhooks",
        webhook_body(NOWHERE, json!({"headers": {"A": 1, "B": null, "C": "fine"}, "events": [1, "all"]})),
        &["/headers/A", "/headers/B", "/events/0"],
    );
    case(
        "PATCH",
        "{t}/webhooks/{w}",
        json!({"name": 1, "url": null, "events": {}, "enabled": 3, "nope": 1, "profile": "standard", "secret": null}),
        &["/name", "/url", "/events", "/enabled", "/nope", "/profile", "/secret"],
    );
    case(
        "PATCH",
        "{t}/webhooks/{w}",
        json!({"retry": {"nope": 1}, "headers": {"X": 1}, "id": "wh_1"}),
        &["/retry/nope", "/headers/X", "/id"],
    );
    case(
        "PUT",
        "{t}",
        json!({"name": 1, "environment": "staging", "settings": {"allow_nets": "10.0.0.0/8", "nope": 1}, "nope": 1}),
        &["/name", "/environment", "/settings/allow_nets", "/settings/nope", "/nope"],
    );
    case(
        "PUT",
        "{t}",
        json!({"name": "", "settings": {"allow_nets": ["10.0.0.0/8", "ten", 7]}}),
        &["/name", "/settings/allow_nets/1", "/settings/allow_nets/2"],
    );
    case("POST", "{t}/webhooks/{w}/test", json!({"event_type": 1, "nope": 1}), &["/event_type", "/nope"]);
    case(
        "POST",
        "{t}/webhooks/{w}/rotate-secret",
        json!({"overlap_seconds": -1, "secret": 5, "nope": 1}),
        &["/overlap_seconds", "/secret", "/nope"],
    );
    case(
        "POST",
        "{t}/webhooks/{w}/rotate-secret",
        json!({"overlap_seconds": 1.5, "secret": "whsec_"}),
        &["/overlap_seconds", "/secret"],
    );
    case(
        "POST",
        "{t}/events",
        json!({"type": 1, "id": 2, "timestamp": 3, "subject": 4, "attributes": 5, "urgency": 6, "nope": 7}),
        &["/type", "/id", "/timestamp", "/subject", "/attributes", "/urgency", "/nope"],
    );
    case(
        "POST",
        "{t}/events",
        json!({"type": "a b", "id": "a.b", "timestamp": "yesterday", "subject": {"type": 1, "id": "", "nope": 2}, "attributes": [], "urgency": "asap"}),
        &["/type", "/id", "/timestamp", "/subject/type", "/subject/id", "/subject/nope", "/attributes", "/urgency"],
    );
    case("POST", "{t}/events/batch", json!({"events": {}, "nope": 1}), &["/events", "/nope"]);
    case(
        "POST",
        "{t}/events/batch",
        json!({"events": [1, {"type": "a"}, {"type": "b", "subject": {"id": "x", "y": 1}}]}),
        &["/events/0", "/events/2/subject/y"],
    );
    case(
        "PUT",
        "/v1/event-types/my.type",
        json!({"family": 1, "description": 2, "schema": 3, "urgency": "slow", "deprecated": "no", "nope": 1}),
        &["/family", "/description", "/schema", "/urgency", "/deprecated", "/nope"],
    );
    case(
        "POST",
        "/v1/keys",
        json!({"name": "", "scopes": ["read", "write"], "tenant": "No!", "expires_at": "soon", "nope": 1}),
        &["/name", "/scopes/1", "/tenant", "/expires_at", "/nope"],
    );
    case("POST", "/v1/keys", json!({"name": "k", "scopes": []}), &["/scopes"]);
    case(
        "POST",
        "/v1/keys",
        json!({"name": "k", "scopes": "read", "expires_at": "2001-01-01T00:00:00Z"}),
        &["/scopes", "/expires_at"],
    );
    findings.none();
}

#[test]
fn ndjson_is_told_by_line_and_index() {
    let setup = Setup::new();
    let mut findings = Findings::default();
    let path = setup.path("{t}/events/batch");
    let send = |body: &str| setup.server.send("POST", &path, &[("content-type", "application/x-ndjson")], body);
    let reply = send("{\"type\":\"a\"}\n{\"type\":\n{\"type\":\"a\"}\n");
    findings.problem("broken second line", &reply, 400, "malformed_json", &[]);
    findings
        .check(reply.json()["line"] == 2 || reply.json()["line"] == 3, format!("line 2 or where it ends: {reply:?}"));
    let reply = send("{\"type\":\"a\"}\n\n{\"type\":\"a b\",\"nope\":1}\n7");
    findings.problem(
        "wrong members",
        &reply,
        422,
        "validation_failed",
        &["/events/1/type", "/events/1/nope", "/events/2"],
    );
    let nothing = setup.server.get(&setup.path("{t}/events?type=a")).expect(200).json();
    findings.check(nothing["data"] == json!([]), "all or nothing");
    findings.none();
}
