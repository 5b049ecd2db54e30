//! CloudEvents to publish: structured, batched, binary.

use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Reply, Server, text};

const EVENTS: &str = "/v1/tenants/acme/events";

fn structured(server: &Server, event: &Value) -> Reply {
    server.send("POST", EVENTS, &[("content-type", "application/cloudevents+json; charset=utf-8")], event.clone())
}

fn minimal() -> Value {
    json!({"specversion": "1.0", "id": "c1", "source": "https://idp.example/t/1", "type": "user.created"})
}

#[test]
fn a_structured_event_is_an_event_like_any_other() {
    let server = Server::start();
    server.create_tenant("acme");
    server.webhook("acme", "http://127.0.0.1:9/x", json!({}));
    let event = r#"{"specversion":"1.0","id":"c1","source":"https://idp.example/t/1","type":"user.created",
        "time":"2026-01-02T04:04:05+01:00","subject":"u1","datacontenttype":"application/json","region":"eu","count":3,
        "flag":true,"data":{ "n":1.00, "n":2 }}"#;
    let reply = server.send("POST", EVENTS, &[("content-type", "application/cloudevents+json")], event).expect(202);
    assert_eq!(
        reply.json(),
        json!({"id": "c1", "type": "user.created", "timestamp": "2026-01-02T03:04:05.000000Z", "deliveries": 1, "duplicate": false})
    );
    let view = server.event("acme", "c1");
    assert_eq!(view["subject"]["id"], "u1");
    assert!(view["subject"].get("type").is_none_or(Value::is_null));
    assert_eq!(view["attributes"]["source"], "https://idp.example/t/1");
    assert_eq!(
        (&view["attributes"]["region"], &view["attributes"]["count"], &view["attributes"]["flag"]),
        (&json!("eu"), &json!(3), &json!(true))
    );
    assert!(server.get(&format!("{EVENTS}/c1")).text().contains(r#""data":{ "n":1.00, "n":2 }"#));

    // The least there can be.
    let mut least = minimal();
    least["id"] = json!("c2");
    let answer = structured(&server, &least).expect(202).json();
    let view = server.event("acme", &text(&answer, "id"));
    assert_eq!((&view["data"], &view["subject"]), (&Value::Null, &Value::Null));

    // JSON in base64 is JSON.
    let mut packed = minimal();
    packed["id"] = json!("c3");
    packed["data_base64"] = json!("eyJhIjoxfQ==");
    structured(&server, &packed).expect(202);
    assert_eq!(server.event("acme", "c3")["data"], json!({"a": 1}));
}

#[test]
fn a_binary_event_is_in_the_headers_percent_decoded() {
    let server = Server::start();
    server.create_tenant("acme");
    let send = |headers: &[(&str, &str)], body: &str| server.send("POST", EVENTS, headers, body);
    let reply = send(
        &[
            ("ce-specversion", "1.0"),
            ("ce-id", "b1"),
            ("ce-source", "/s"),
            ("ce-type", "user.created"),
            ("ce-time", "2026-01-02T03:04:05Z"),
            ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("ce-region", "e%25u"),
            ("CE-Quoted", "\"a%20b\""),
            ("content-type", "application/json"),
        ],
        r#"{ "n":1 }"#,
    );
    assert_eq!(reply.expect(202).json()["id"], "b1");
    let view = server.event("acme", "b1");
    assert_eq!(view["subject"]["id"], "Euro € 😀");
    assert_eq!(
        (&view["attributes"]["region"], &view["attributes"]["quoted"], &view["attributes"]["source"]),
        (&json!("e%u"), &json!("a b"), &json!("/s"))
    );
    assert_eq!(
        (&view["type"], &view["timestamp"], &view["data"]),
        (&json!("user.created"), &json!("2026-01-02T03:04:05.000000Z"), &json!({"n": 1}))
    );
    assert!(server.get(&format!("{EVENTS}/b1")).text().contains(r#""data":{ "n":1 }"#));

    let least = [("ce-specversion", "1.0"), ("ce-id", "b2"), ("ce-source", "/s"), ("ce-type", "a")];
    send(&least, "").expect(202);
    assert_eq!(server.event("acme", "b2")["data"], Value::Null);
    let json_kinds = ["application/json; charset=utf-8", "application/vnd.acme+json", "text/json"];
    for (n, kind) in json_kinds.into_iter().enumerate() {
        let id = format!("k{n}");
        send(
            &[("ce-specversion", "1.0"), ("ce-id", &id), ("ce-source", "/s"), ("ce-type", "a"), ("content-type", kind)],
            "[1]",
        )
        .expect(202);
    }

    let mut findings = Findings::default();
    let base = |more: &[(&'static str, &'static str)]| {
        let mut headers = vec![
            ("ce-specversion", "1.0"),
            ("ce-id", "x1"),
            ("ce-source", "/s"),
            ("ce-type", "a"),
            ("content-type", "application/json"),
        ];
        for (name, value) in more {
            headers.retain(|(n, _)| n != name);
            headers.push((name, value));
        }
        headers
    };
    let mut case = |more: &[(&'static str, &'static str)], body: &str, pointers: &[&str]| {
        findings.problem(format!("{more:?} {body}"), &send(&base(more), body), 422, "validation_failed", pointers);
    };
    case(&[("content-type", "text/plain")], "hello", &["/content-type"]);
    case(&[("content-type", "application/octet-stream")], "{}", &["/content-type"]);
    case(&[("ce-subject", "%C0%A0")], "{}", &["/ce-subject"]);
    case(&[("ce-specversion", "0.3")], "{}", &["/ce-specversion"]);
    case(
        &[("ce-type", "a b"), ("ce-time", "noon"), ("ce-id", ""), ("ce-source", "")],
        "{}",
        &["/ce-type", "/ce-time", "/ce-id", "/ce-source"],
    );
    findings.problem("no JSON", &send(&base(&[]), "{"), 400, "malformed_json", &[]);
    findings.check(server.get(&format!("{EVENTS}/x1")).status == 404, "nothing of these is kept");
    findings.none();
}

#[test]
fn a_batch_of_cloudevents_is_answered_like_a_batch() {
    let server = Server::start();
    server.create_tenant("acme");
    let send = |events: Value| {
        server.send("POST", EVENTS, &[("content-type", "application/cloudevents-batch+json; charset=utf-8")], events)
    };
    let with = |id: &str, more: Value| {
        let mut event = minimal();
        event["id"] = json!(id);
        for (name, value) in more.as_object().expect("members") {
            event[name] = value.clone();
        }
        event
    };
    let answer = send(json!([
        with("m1", json!({"data": 1})),
        with("m2", json!({"type": "group.created"})),
        with("m1", json!({"data": 1}))
    ]))
    .expect(202)
    .json();
    let rows: Vec<Value> = answer["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| json!([e["id"], e["type"], e["duplicate"]]))
        .collect();
    assert_eq!(
        rows,
        [
            json!(["m1", "user.created", false]),
            json!(["m2", "group.created", false]),
            json!(["m1", "user.created", true])
        ]
    );

    let mut findings = Findings::default();
    let reply = send(json!([with("m3", json!({})), {"specversion": "1.0"}, with("m4", json!({"type": "a b"})), 7]));
    findings.problem(
        "wrong ones",
        &reply,
        422,
        "validation_failed",
        &["/events/1/id", "/events/1/source", "/events/1/type", "/events/2/type", "/events/3"],
    );
    findings.problem("no array", &send(minimal()), 422, "validation_failed", &[""]);
    let reply = server.send(
        "POST",
        EVENTS,
        &[("content-type", "application/cloudevents-batch+json")],
        "[{\"specversion\":\"1.0\",\n\"id\":}]",
    );
    findings.problem("no JSON", &reply, 400, "malformed_json", &[]);
    findings.check(reply.json()["line"] == 2, format!("line 2: {reply:?}"));
    let reply = send(json!([with("m5", json!({})), with("m1", json!({"data": 2}))]));
    findings.problem("a conflict", &reply, 409, "event_id_conflict", &[]);
    for id in ["m3", "m4", "m5"] {
        findings.check(server.get(&format!("{EVENTS}/{id}")).status == 404, format!("{id}: all or nothing"));
    }
    findings.none();
}

#[test]
fn identity_is_source_and_id_together() {
    let server = Server::start();
    server.create_tenant("acme");
    let event = |source: &str, id: &str, data: u32| json!({"specversion": "1.0", "id": id, "source": source, "type": "a", "data": data});
    let publish = |source: &str, id: &str, data: u32| structured(&server, &event(source, id, data));
    let answered = |reply: Reply| {
        let answer = reply.expect(202).json();
        (text(&answer, "id"), answer["duplicate"] == true)
    };

    // An id that fits and is free is the event's id.
    assert_eq!(answered(publish("/one", "x1", 1)), ("x1".to_owned(), false));
    assert_eq!(answered(publish("/one", "x1", 1)), ("x1".to_owned(), true));
    publish("/one", "x1", 2).expect_problem(409, "event_id_conflict");

    // Of another source it gets one made of source and id, and keeps it.
    let (theirs, duplicate) = answered(publish("/two", "x1", 1));
    assert!(theirs.starts_with("ce_") && !duplicate, "{theirs}");
    assert_eq!(answered(publish("/two", "x1", 1)), (theirs.clone(), true));
    publish("/two", "x1", 2).expect_problem(409, "event_id_conflict");
    let (third, _) = answered(publish("/three", "x1", 1));
    assert!(third.starts_with("ce_") && third != theirs);

    // The first still has its own.
    assert_eq!(answered(publish("/one", "x1", 1)), ("x1".to_owned(), true));

    // Ids outside the grammar.
    for bad in ["a.b", "with space", "é", &"x".repeat(200)] {
        let (id, duplicate) = answered(publish("/one", bad, 1));
        assert!(id.starts_with("ce_") && !duplicate, "{bad}: {id}");
        assert_eq!(answered(publish("/one", bad, 1)), (id.clone(), true), "{bad}");
        assert_ne!(answered(publish("/two", bad, 1)).0, id, "{bad}");
        publish("/one", bad, 2).expect_problem(409, "event_id_conflict");
    }

    // Taken by an event that is no CloudEvent at all.
    server.publish_event("acme", json!({"type": "a", "id": "plain", "data": 1}));
    let (id, duplicate) = answered(publish("/one", "plain", 1));
    assert!(id.starts_with("ce_") && !duplicate, "{id}");
    assert_eq!(answered(publish("/one", "plain", 1)), (id, true));

    // Structured, binary and batched are one space of ids.
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "x1"),
        ("ce-source", "/one"),
        ("ce-type", "a"),
        ("content-type", "application/json"),
    ];
    assert_eq!(answered(server.send("POST", EVENTS, &binary, "1")), ("x1".to_owned(), true));
}

#[test]
fn structured_events_that_are_wrong_are_told_all_at_once() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    let mut case = |event: Value, pointers: &[&str]| {
        findings.problem(&event, &structured(&server, &event), 422, "validation_failed", pointers);
    };
    let with = |member: &str, value: Value| {
        let mut event = minimal();
        event[member] = value;
        event
    };
    case(json!({}), &["/specversion", "/id", "/source", "/type"]);
    case(json!([]), &[""]);
    case(
        json!({"specversion": "0.3", "id": "", "source": "", "type": "a..b", "time": "noon"}),
        &["/specversion", "/id", "/source", "/type", "/time"],
    );
    case(
        json!({"specversion": 1.0, "id": 1, "source": {}, "type": null}),
        &["/specversion", "/id", "/source", "/type"],
    );
    case(with("Upper", json!("x")), &["/Upper"]);
    case(with("nested", json!({"a": 1})), &["/nested"]);
    case(with("datacontenttype", json!("text/plain")), &["/datacontenttype"]);
    case(with("data_base64", json!("bm90IGpzb24=")), &["/data_base64"]);
    case(with("data_base64", json!("***")), &["/data_base64"]);
    let mut both = with("data", json!(1));
    both["data_base64"] = json!("MQ==");
    case(both, &["/data_base64"]);
    let twice = r#"{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"a"}"#;
    let reply = server.send("POST", EVENTS, &[("content-type", "application/cloudevents+json")], twice);
    findings.problem("named twice", &reply, 400, "malformed_json", &[]);
    findings.check(server.all(EVENTS).is_empty(), "nothing is kept");
    findings.none();
}

#[test]
fn cloudevents_have_an_address_of_their_own_where_json_is_one() {
    let server = Server::start();
    server.create_tenant("acme");
    let path = "/v1/tenants/acme/events/cloudevents";
    let event = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "user.created", "data": 1});
    for (id, kind) in [("c1", "application/json"), ("c2", "application/cloudevents+json")] {
        let answer = server.send("POST", path, &[("content-type", kind)], event(id)).expect(202).json();
        assert_eq!((&answer["id"], &answer["duplicate"]), (&json!(id), &json!(false)), "{kind}");
    }
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let answer = server.send("POST", path, &batch, json!([event("c3"), event("c1")])).expect(202).json();
    assert_eq!((&answer["events"][0]["id"], &answer["events"][1]["duplicate"]), (&json!("c3"), &json!(true)));
    let binary = [("ce-specversion", "1.0"), ("ce-id", "c4"), ("ce-source", "/s"), ("ce-type", "user.created")];
    let answer = server.send("POST", path, &binary, json!({"n": 1})).expect(202).json();
    assert_eq!(answer["id"], "c4");
    server.post(path, json!({"type": "user.created"})).expect_problem(422, "validation_failed");
}
