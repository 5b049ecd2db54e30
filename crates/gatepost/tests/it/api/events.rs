//! Publishing: one, many, by lines; ids, timestamps, bytes.

use serde_json::{Value, json};

use super::{Findings, column, encoded, members};
use crate::harness::{Server, receiver, text};

const EVENTS: &str = "/v1/tenants/acme/events";
const BATCH: &str = "/v1/tenants/acme/events/batch";

#[test]
fn publishing_answers_what_was_accepted_and_the_view_shows_it() {
    let server = Server::start();
    server.create_tenant("acme");
    server.webhook("acme", "http://127.0.0.1:9/x", json!({}));
    server.webhook("acme", "http://127.0.0.1:9/x", json!({"events": ["user.*"]}));
    server.webhook("acme", "http://127.0.0.1:9/x", json!({"events": ["group.*"]}));
    let event = json!({"type": "user.created", "id": "my:id/1", "timestamp": "2026-01-02T03:04:05.500000Z",
        "subject": {"type": "user", "id": "u1"}, "data": {"a": 1}, "attributes": {"region": "eu", "n": [1]}, "urgency": "urgent"});
    let answer = server.publish_event("acme", event.clone());
    assert_eq!(
        answer,
        json!({"id": "my:id/1", "type": "user.created", "timestamp": "2026-01-02T03:04:05.500000Z", "deliveries": 2, "duplicate": false})
    );

    let view = server.event("acme", "my%3Aid%2F1");
    for member in ["id", "type", "timestamp", "subject", "data", "attributes", "urgency"] {
        assert_eq!(view[member], event[member], "{member}");
    }
    assert_eq!(view["deliveries"].as_array().map(Vec::len), Some(2));
    assert_eq!(view["matching"].as_array().map(Vec::len), Some(3));
    assert_eq!(server.event("acme", "my:id%2f1")["id"], "my:id/1", "however its path is spelt");

    // Without anything but a type.
    let answer = server.publish_event("acme", json!({"type": "plain"}));
    let id = text(&answer, "id");
    let suffix = id.strip_prefix("evt_").expect("our own ids begin with evt_");
    assert!((20..=40).contains(&suffix.len()) && suffix.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    assert!(text(&answer, "timestamp").ends_with('Z'));
    let view = server.event("acme", &id);
    assert_eq!(
        (&view["data"], &view["subject"], view["urgency"].as_str()),
        (&Value::Null, &Value::Null, Some("normal"))
    );
    assert_eq!(view["timestamp"], answer["timestamp"]);
    assert_eq!(answer["deliveries"], 1);
}

#[test]
fn data_is_kept_byte_for_byte() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    server.webhook("acme", &to.url("/"), json!({}));
    let spellings = [
        r#"{ "b" : 1.00,"a":[ ] , "b": 2e400, "\u0061":"\u00e9\/é😀" }"#,
        "null",
        "true",
        "-0.0",
        "1e+05",
        "\"\"",
        "[]",
        "{}",
        "\" \\u0000 \"",
        "123456789012345678901234567890",
        "[1,\n\t2]",
    ];
    for (n, data) in spellings.into_iter().enumerate() {
        let id = text(&server.publish_event("acme", format!(r#"{{"data": {data} ,"type":"user.created"}}"#)), "id");
        let delivery = server.wait_event("acme", &id, "delivered");
        let body = to.received()[n].body.clone();
        assert!(String::from_utf8_lossy(&body).ends_with(&format!(r#","data":{data}}}"#)), "{data}: {body:?}");
        assert_eq!(delivery["attempt_list"][0]["request"]["body"].as_str().map(str::as_bytes), Some(&body[..]));
        let view = server.get(&format!("{EVENTS}/{id}")).expect(200).text();
        assert!(view.contains(&format!(r#""data":{data}"#)), "{data}: {view}");
    }
    // Absent is null.
    server.publish_event("acme", json!({"type": "user.created"}));
    let last = to.wait_for_blocking(spellings.len() + 1).pop().expect("one more");
    assert!(last.body.ends_with(br#","data":null}"#), "{last:?}");
}

#[test]
fn the_same_id_again_is_a_duplicate_and_other_content_a_conflict() {
    let mut server = Server::start();
    let to = receiver();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
        server.webhook(tenant, &to.url("/"), json!({}));
    }
    let base = json!({"type": "a.b", "id": "e-1", "subject": {"id": "u1"}, "data": {"n": 1}, "attributes": {"x": 1}, "urgency": "bulk"});
    let first = server.publish_event("acme", base.clone());
    assert_eq!((&first["duplicate"], &first["deliveries"]), (&json!(false), &json!(1)));
    let again = server.publish_event("acme", base.clone());
    assert_eq!(again["duplicate"], true);
    for member in ["id", "type", "timestamp", "deliveries"] {
        assert_eq!(again[member], first[member], "{member}");
    }

    let mut findings = Findings::default();
    for (member, value) in [
        ("type", json!("a.c")),
        ("data", json!({"n": 2})),
        ("data", json!(null)),
        ("subject", json!({"id": "u2"})),
        ("subject", json!({"id": "u1", "type": "user"})),
        ("subject", Value::Null),
        ("attributes", json!({"x": 2})),
        ("attributes", Value::Null),
        ("urgency", json!("urgent")),
    ] {
        let mut changed = base.clone();
        changed[member] = value;
        findings.problem(&changed, &server.post(EVENTS, changed.clone()), 409, "event_id_conflict", &[]);
    }
    // The same data in other bytes is another body.
    let respelled =
        r#"{"type":"a.b","id":"e-1","subject":{"id":"u1"},"data":{ "n":1},"attributes":{"x":1},"urgency":"bulk"}"#;
    findings.problem("other bytes", &server.post(EVENTS, respelled), 409, "event_id_conflict", &[]);
    // The order of the members does not matter.
    let reordered =
        r#"{"urgency":"bulk","data":{"n":1},"attributes":{"x":1},"id":"e-1","subject":{"id":"u1"},"type":"a.b"}"#;
    findings.check(server.publish_event("acme", reordered)["duplicate"] == true, "other order of members");
    findings.none();

    // Another tenant has ids of its own.
    let theirs = server.publish_event("other", json!({"type": "z", "id": "e-1", "data": 7}));
    assert_eq!((&theirs["duplicate"], &theirs["deliveries"]), (&json!(false), &json!(1)));

    // All of this outlives a restart, and a crash.
    server.terminate();
    server.restart();
    assert_eq!(server.publish_event("acme", base.clone())["duplicate"], true);
    server.kill9();
    server.restart();
    assert_eq!(server.publish_event("acme", base)["duplicate"], true);
    server.post(EVENTS, json!({"type": "a.b", "id": "e-1"})).expect_problem(409, "event_id_conflict");
    server.wait_settled("acme");
    server.wait_settled("other");
    assert_eq!(to.count(), 2, "a duplicate is delivered to nobody");
    assert_eq!(server.all(&format!("{EVENTS}?type=a.b")).len(), 1);
}

#[test]
fn a_timestamp_counts_for_identity_only_where_it_is_given() {
    let server = Server::start();
    server.create_tenant("acme");
    let publish = |id: &str, timestamp: Option<&str>| {
        let mut event = json!({"type": "a", "id": id});
        if let Some(timestamp) = timestamp {
            event["timestamp"] = json!(timestamp);
        }
        let reply = server.post(EVENTS, event);
        (reply.status, reply.json()["duplicate"].clone())
    };
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    assert_eq!(publish("given", Some(early)), (202, json!(false)));
    assert_eq!(publish("given", Some(early)), (202, json!(true)));
    assert_eq!(publish("given", Some("2026-01-01T01:00:00+01:00")), (202, json!(true)), "the same moment");
    assert_eq!(publish("given", Some(late)).0, 409);
    assert_eq!(publish("given", None), (202, json!(true)), "an omitted timestamp does not count");
    assert_eq!(publish("omitted", None), (202, json!(false)));
    assert_eq!(publish("omitted", None), (202, json!(true)));
    // What was answered may be sent back.
    let kept = text(&server.event("acme", "omitted"), "timestamp");
    assert_eq!(publish("omitted", Some(&kept)), (202, json!(true)));
}

#[test]
fn timestamps_are_answered_in_utc_with_six_digits() {
    let server = Server::start();
    server.create_tenant("acme");
    for (given, answered) in [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
        ("2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05.000000Z"),
        ("2026-01-02T03:04:05.25Z", "2026-01-02T03:04:05.250000Z"),
        ("2026-01-02T03:04:05.1234567890123Z", "2026-01-02T03:04:05.123456Z"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59.000000Z"),
    ] {
        let answer = server.publish_event("acme", json!({"type": "a", "timestamp": given}));
        assert_eq!(answer["timestamp"], answered);
        assert_eq!(server.event("acme", &text(&answer, "id"))["timestamp"], answered);
    }
}

#[test]
fn urgency_comes_from_the_event_else_from_the_catalogue() {
    let server = Server::start();
    server.create_tenant("acme");
    let urgency = |event: Value| {
        let id = text(&server.publish_event("acme", event), "id");
        text(&server.event("acme", &id), "urgency")
    };
    assert_eq!(urgency(json!({"type": "user.deleted"})), "urgent");
    assert_eq!(urgency(json!({"type": "user.deleted", "urgency": "bulk"})), "bulk");
    assert_eq!(urgency(json!({"type": "nobody.knows"})), "normal");
    server.put("/v1/event-types/my.import", json!({"urgency": "bulk"})).expect(201);
    assert_eq!(urgency(json!({"type": "my.import"})), "bulk");
}

#[test]
fn a_batch_is_answered_in_order_and_is_all_or_nothing() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    server.webhook("acme", &to.url("/"), json!({"events": ["user.*"]}));
    let answer = server.post(
        BATCH,
        json!({"events": [
            {"type": "user.created", "id": "b1", "data": 1},
            {"type": "group.created", "id": "b2", "data": 2},
            {"type": "user.deleted", "data": 3},
            {"type": "user.created", "id": "b1", "data": 1},
        ]}),
    );
    let events = answer.expect(202).json()["events"].as_array().expect("a list").clone();
    let rows: Vec<Value> = events.iter().map(|e| json!([e["type"], e["deliveries"], e["duplicate"]])).collect();
    assert_eq!(
        rows,
        [
            json!(["user.created", 1, false]),
            json!(["group.created", 0, false]),
            json!(["user.deleted", 1, false]),
            json!(["user.created", 1, true])
        ]
    );
    assert_eq!(
        (events[0]["id"].as_str(), events[1]["id"].as_str(), events[3]["id"].as_str()),
        (Some("b1"), Some("b2"), Some("b1"))
    );
    for event in &events {
        assert_eq!(members(event), ["deliveries", "duplicate", "id", "timestamp", "type"]);
    }
    to.wait_for_blocking(2);

    // All again: all duplicates. One in conflict: nothing of it.
    let again = server.post(
        BATCH,
        json!({"events": [{"type": "group.created", "id": "b2", "data": 2}, {"type": "new", "id": "b9"}]}),
    );
    let again = again.expect(202).json();
    assert_eq!((&again["events"][0]["duplicate"], &again["events"][1]["duplicate"]), (&json!(true), &json!(false)));
    let before = server.all(EVENTS).len();
    for events in [
        json!([{"type": "x", "id": "n1"}, {"type": "other", "id": "b1"}]),
        json!([{"type": "x", "id": "n1"}, {"type": "y", "id": "n2"}, {"type": "x", "id": "n1", "data": 5}]),
    ] {
        server.post(BATCH, json!({"events": events})).expect_problem(409, "event_id_conflict");
    }
    server
        .post(BATCH, json!({"events": [{"type": "x", "id": "n1"}, {"type": "gatepost.x"}]}))
        .expect_problem(422, "validation_failed");
    assert_eq!(server.all(EVENTS).len(), before);
    server.get(&format!("{EVENTS}/n1")).expect_problem(404, "event_not_found");
    assert_eq!(to.count(), 2);
}

#[test]
fn ndjson_is_one_event_a_line() {
    let server = Server::start();
    server.create_tenant("acme");
    let send = |body: &str| server.send("POST", BATCH, &[("content-type", "application/x-ndjson")], body);
    let answer =
        send("{\"type\":\"a\",\"id\":\"1\"}\n\r\n  {\"type\":\"b\",\"data\":{ \"n\":1}}  \r\n{\"type\":\"c\"}")
            .expect(202)
            .json();
    assert_eq!(column(answer["events"].as_array().expect("a list"), "type"), ["a", "b", "c"]);
    let view = server.get(&format!("{EVENTS}/{}", text(&answer["events"][1], "id"))).expect(200).text();
    assert!(view.contains(r#""data":{ "n":1}"#), "{view}");
    assert_eq!(send("{\"type\":\"a\",\"id\":\"1\"}").expect(202).json()["events"][0]["duplicate"], true);
}

#[test]
fn points_and_our_own_types_cannot_be_published() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    for event_type in ["gatepost.webhook.created", "gatepost.ping", "gatepost.x", "cymmetri.changePassword"] {
        findings.problem(
            event_type,
            &server.post(EVENTS, json!({"type": event_type})),
            422,
            "validation_failed",
            &["/type"],
        );
        let batch = json!({"events": [{"type": "a"}, {"type": event_type}]});
        findings.problem(event_type, &server.post(BATCH, batch), 422, "validation_failed", &["/events/1/type"]);
        let cloud = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": event_type});
        let reply = server.send("POST", EVENTS, &[("content-type", "application/cloudevents+json")], cloud);
        findings.problem(event_type, &reply, 422, "validation_failed", &["/type"]);
    }
    findings.check(server.all(EVENTS).is_empty(), "nothing was kept");
    findings.none();
}

#[test]
fn eight_publishers_of_one_id_make_one_event() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    server.webhook("acme", &to.url("/"), json!({}));
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let publish = |_| {
            let mut client = server.client();
            scope.spawn(move || {
                let publish = |n: usize| {
                    client.post(EVENTS, json!({"type": "a", "id": format!("same-{n}"), "data": n})).expect(202).json()
                };
                (0..20).map(publish).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..8).map(publish).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    for n in 0..20 {
        let id = format!("same-{n}");
        let firsts = answers.iter().filter(|a| a["id"] == id && a["duplicate"] == false).count();
        assert_eq!(firsts, 1, "{id}");
        let delivery = server.delivery_of("acme", &encoded(&id));
        server.wait_delivery("acme", &delivery, "delivered");
    }
    assert_eq!(to.count(), 20);
}
