//! Server-sent events: what happens, as it happens.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use gatepost_testkit::Script;
use serde_json::{Value, json};

use super::{Findings, column, members};
use crate::harness::{ADMIN_KEY, Options, Server, receiver, text, wait_until};

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    id: String,
    name: String,
    data: Value,
}

/// A stream being followed.
struct Follower {
    lines: BufReader<TcpStream>,
    status: u16,
    head: String,
}

/// Follows a tenant's stream. HTTP/1.0, so that the body is the plain lines until the connection ends.
fn follow(server: &Server, path: &str, key: &str, last_event_id: Option<&str>) -> Follower {
    #[expect(clippy::disallowed_methods, reason = "the client of the server under test, not the product")]
    let mut stream = TcpStream::connect(server.addr()).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("not zero");
    let resume = last_event_id.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
    let request = format!("GET {path} HTTP/1.0\r\nauthorization: Bearer {key}\r\n{resume}\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(lines.read_line(&mut head).expect("a head") > 0, "no head: {head}");
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut follower = Follower { lines, status, head };
    if status == 200 {
        // The first words: from here on nothing is missed.
        while follower.line().is_some_and(|line| !line.is_empty()) {}
    }
    follower
}

impl Follower {
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
        }
    }

    /// The next event; none when the stream has ended.
    fn next(&mut self) -> Option<Told> {
        let (mut id, mut name, mut data) = (String::new(), String::new(), Vec::new());
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", value)) => id = value.to_owned(),
                Some(("event", value)) => name = value.to_owned(),
                Some(("data", value)) => data.push(value.to_owned()),
                _ if line.is_empty() && !name.is_empty() => {
                    let data = serde_json::from_str(&data.join("\n")).expect("JSON");
                    return Some(Told { id, name, data });
                }
                // Comments, and nothing said.
                _ => {}
            }
        }
    }

    /// The next one with this name that is as wanted.
    #[track_caller]
    fn until(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Told {
        loop {
            let told = self.next().unwrap_or_else(|| panic!("the stream ended before {name}"));
            if told.name == name && wanted(&told.data) {
                return told;
            }
        }
    }
}

const STREAM: &str = "/v1/tenants/acme/stream";

#[test]
fn events_deliveries_and_attempts_are_told_as_the_lists_have_them() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let webhook = server.webhook("acme", &to.url("/"), json!({"retry": {"waits": [0.05], "jitter": 0}}));
    to.next([Script::status(500)]);
    let mut stream = follow(&server, STREAM, ADMIN_KEY, None);
    assert!(stream.head.contains("text/event-stream"), "{}", stream.head);
    let body = "{\"type\":\"user.created\",\"data\":{\n\"a\" : 1.0,\r\n\"b\":[]}}";
    let id = text(&server.publish_event("acme", body), "id");
    let mut told = Vec::new();
    while told.last().is_none_or(|last: &Told| last.data["state"] != "delivered") {
        told.push(stream.next().expect("more"));
    }
    let of = |name: &str| told.iter().filter(|one| one.name == name).map(|one| one.data.clone()).collect::<Vec<_>>();
    let mine = |event: &Value| event["type"] == "user.created";
    let events: Vec<Value> = server.all("/v1/tenants/acme/events").into_iter().filter(mine).collect();
    assert_eq!(of("event").into_iter().filter(mine).collect::<Vec<_>>(), events);
    let listed = server.deliveries_of("acme", &id);
    assert_eq!(of("delivery").last(), listed.first());
    let view = server.delivery("acme", &text(&listed[0], "id"));
    let attempts = of("attempt");
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    for (attempt, shown) in attempts.iter().zip(view["attempt_list"].as_array().expect("a list")) {
        assert_eq!((&attempt["delivery_id"], &attempt["webhook_id"]), (&listed[0]["id"], &json!(webhook)));
        for member in members(attempt).into_iter().filter(|member| !matches!(*member, "delivery_id" | "webhook_id")) {
            assert_eq!(attempt[member], shown[member], "{member}");
        }
    }
    assert_eq!(column(&attempts, "outcome"), ["http_status", "ok"]);
    assert_eq!(told[0].name, "event");
    assert!(told.windows(2).all(|pair| pair[0].id < pair[1].id), "{told:?}");
}

#[test]
fn what_people_do_to_deliveries_is_told() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::status(500));
    server.webhook("acme", &to.url("/"), json!({"retry": {"waits": [600], "jitter": 0}}));
    let mut stream = follow(&server, &format!("{STREAM}?types=delivery"), ADMIN_KEY, None);
    let event = server.publish("acme", "user.created", json!({}));
    let delivery = server.delivery_of("acme", &event);
    let path = format!("/v1/tenants/acme/deliveries/{delivery}");
    stream.until("delivery", |data| data["attempts"] == 1);
    server.post(&format!("{path}/cancel"), ()).expect(200);
    let told = stream.until("delivery", |data| data["state"] == "cancelled");
    assert_eq!((&told.data["id"], &told.data["reason"]), (&json!(delivery), &json!("by_user")));
    server.post(&format!("{path}/retry"), ()).expect(202);
    stream.until("delivery", |data| data["state"] == "pending" && data["attempts"] == 2);
}

#[test]
fn a_stream_goes_on_where_it_was_left_without_gap_or_repeat() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut first = follow(&server, &format!("{STREAM}?types=event"), ADMIN_KEY, None);
    let publish = |from: usize, count: usize| {
        for n in from..from + count {
            server.publish_event("acme", json!({"type": "a", "id": format!("n{n}")}));
        }
    };
    publish(0, 10);
    let mut seen: Vec<Told> = (0..4).map(|_| first.next().expect("more")).collect();
    drop(first);
    publish(10, 10);
    // By header, then by parameter; the header counts where both are given.
    let last = seen.last().expect("four").id.clone();
    let mut second = follow(&server, &format!("{STREAM}?types=event&last_event_id=0"), ADMIN_KEY, Some(&last));
    seen.extend((0..6).map(|_| second.next().expect("more")));
    drop(second);
    let last = seen.last().expect("ten").id.clone();
    let mut third = follow(&server, &format!("{STREAM}?types=event&last_event_id={last}"), ADMIN_KEY, None);
    publish(20, 5);
    seen.extend((0..15).map(|_| third.next().expect("more")));
    let ids: Vec<String> = seen.iter().map(|one| text(&one.data, "id")).collect();
    let wanted: Vec<String> = (0..25).map(|n| format!("n{n}")).collect();
    assert_eq!(ids, wanted);
    assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id));
    let metrics = server.get("/metrics").expect(200).text();
    assert!(
        metrics.contains("gatepost_stream_listeners 1") || metrics.contains("gatepost_stream_listeners 2"),
        "{metrics}"
    );
}

#[test]
fn an_id_too_old_gets_one_reset_and_then_what_happens() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let mut stream = follow(&server, STREAM, ADMIN_KEY, None);
    server.publish("acme", "a", json!(1));
    let last = stream.next().expect("an event").id;
    server.kill9();
    assert_eq!(stream.next(), None);
    server.restart();
    for id in [last.as_str(), "0", "nonsense", "99999999999999999999999999999999"] {
        let mut stream = follow(&server, &format!("{STREAM}?types=event"), ADMIN_KEY, Some(id));
        server.publish("acme", "a", json!(id));
        let (reset, event) = (stream.next().expect("a reset"), stream.next().expect("an event"));
        assert_eq!((reset.name.as_str(), event.name.as_str()), ("reset", "event"), "{id}");
        assert_eq!(event.data["data"], json!(id));
        // The reset has an id of its own, from which it goes on.
        let mut again = follow(&server, &format!("{STREAM}?types=event"), ADMIN_KEY, Some(&reset.id));
        assert_eq!(again.next(), Some(event), "{id}");
    }
}

#[test]
fn filters_choose_what_is_told() {
    let server = Server::start();
    server.create_tenant("acme");
    let (one, two) = (receiver(), receiver());
    let first = server.webhook("acme", &one.url("/"), json!({}));
    server.webhook("acme", &two.url("/"), json!({}));
    let mut mine = follow(&server, &format!("{STREAM}?webhook_id={first}"), ADMIN_KEY, None);
    let mut attempts = follow(&server, &format!("{STREAM}?types=attempt,event"), ADMIN_KEY, None);
    let event = server.publish("acme", "a", json!(1));
    let last = mine.until("delivery", |data| data["state"] == "delivered");
    assert_eq!(last.data["webhook_id"], first);
    // Gatepost tells of the new webhooks too, at its leisure.
    let told: Vec<Told> = std::iter::repeat_with(|| attempts.next().expect("more"))
        .filter(|told| told.name == "attempt" || told.data["id"] == json!(event))
        .take(3)
        .collect();
    let mut names: Vec<&str> = told.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["attempt", "attempt", "event"]);

    let mut findings = Findings::default();
    for (query, pointer) in [
        ("types=events", "?types"),
        ("types=", "?types"),
        ("webhook_id=wh_1", "?webhook_id"),
        ("limit=5", "?limit"),
        ("types=event&types=event", "?types"),
    ] {
        findings.problem(query, &server.get(&format!("{STREAM}?{query}")), 422, "validation_failed", &[pointer]);
    }
    findings.none();
}

#[test]
fn p5_a_stream_tells_of_its_tenant_alone() {
    let server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    let key = |scopes: Value, tenant: &str| {
        let made = server.post("/v1/keys", json!({"name": "k", "scopes": scopes, "tenant": tenant})).expect(201);
        (text(&made.json(), "id"), text(&made.json(), "key"))
    };
    let (_, own) = key(json!(["read"]), "acme");
    let mut stream = follow(&server, STREAM, &own, None);
    for n in 0..5 {
        server.publish_event("other", json!({"type": "secret.thing", "data": n}));
    }
    server.publish_event("acme", json!({"type": "mine"}));
    assert_eq!(stream.next().expect("an event").data["type"], "mine");
    assert_eq!(follow(&server, STREAM, &key(json!(["read"]), "other").1, None).status, 404);
    assert_eq!(follow(&server, STREAM, &key(json!(["publish"]), "acme").1, None).status, 403);
    assert_eq!(follow(&server, STREAM, "gp_wrong", None).status, 401);
    assert_eq!(follow(&server, "/v1/tenants/none/stream", ADMIN_KEY, None).status, 404);
}

#[test]
fn streams_end_with_the_key_the_tenant_and_the_server() {
    let mut server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    let made = server.post("/v1/keys", json!({"name": "k", "scopes": ["read"], "tenant": "acme"})).expect(201).json();
    let mut of_key = follow(&server, STREAM, &text(&made, "key"), None);
    let mut of_admin = follow(&server, STREAM, ADMIN_KEY, None);
    server.delete(&format!("/v1/keys/{}", text(&made, "id"))).expect(204);
    assert_eq!(of_key.next(), None);
    server.publish("acme", "a", json!({}));
    assert_eq!(of_admin.next().expect("an event").name, "event");
    let mut of_other = follow(&server, "/v1/tenants/other/stream", ADMIN_KEY, None);
    server.delete("/v1/tenants/acme").expect(204);
    assert_eq!(of_admin.next(), None);
    server.publish("other", "a", json!({}));
    assert_eq!(of_other.next().expect("an event").name, "event");
    server.signal("TERM");
    assert_eq!(of_other.next(), None);
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn p5_p10_a_listener_that_reads_nothing_holds_up_nobody() {
    let server = Server::with(Options::default());
    server.create_tenant("acme");
    let to = receiver();
    server.webhook("acme", &to.url("/"), json!({}));
    let mut idle = follow(&server, STREAM, ADMIN_KEY, None);
    // Far more than any buffer in between holds.
    let filler = "x".repeat(100_000);
    for n in 0..300 {
        server.publish("acme", "a", json!({"n": n, "filler": filler}));
    }
    server.wait_settled("acme");
    assert_eq!(to.count(), 300);
    // Once it reads on, it is told that it missed something, and then hears the present.
    idle.until("reset", |_| true);
    let event = server.publish("acme", "b", json!({}));
    idle.until("event", |data| data["id"] == json!(event));
    let resets = wait_until("the metric", || {
        let metrics = server.get("/metrics").expect(200).text();
        metrics.lines().find_map(|line| line.strip_prefix("gatepost_stream_resets_total ")?.parse::<u64>().ok())
    });
    assert!(resets >= 1);
}
