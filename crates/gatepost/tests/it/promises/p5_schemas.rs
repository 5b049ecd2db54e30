//! P5, P9, P10: a tenant's JSON Schemas cost what they may and no more, whatever they are and whatever is
//! published; and meanwhile everybody else is answered.

use std::sync::atomic::{AtomicBool, Ordering};

use gatepost_testkit::Script;
use serde_json::{Value, json};

use crate::harness::{Server, receiver, text};

fn own_type(tenant: &str, name: &str) -> String {
    format!("/v1/event-types/{name}?tenant={tenant}")
}

/// Two branches that each lead back to the whole.
fn twice_itself(how: &str) -> Value {
    json!({how: [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]})
}

/// `allOf` of the next level twice, so many levels.
fn doubled(levels: usize) -> Value {
    let next = |level: usize| json!({"$ref": format!("#/$defs/d{level}")});
    let levels = (0..levels).map(|level| (format!("d{level}"), json!({"allOf": [next(level + 1), next(level + 1)]})));
    let mut schema = json!({"$ref": "#/$defs/d0", "$defs": levels.collect::<serde_json::Map<_, _>>()});
    let last = schema["$defs"].as_object().unwrap().len();
    schema["$defs"][format!("d{last}")] = json!({});
    schema
}

/// So many members, each with a pattern that is large once compiled.
fn patterns(count: usize) -> Value {
    let members = (0..count).map(|i| (format!("p{i}"), json!({"pattern": format!(r"^(\p{{L}}|{i}){{1,60}}$")})));
    json!({"properties": members.collect::<serde_json::Map<_, _>>()})
}

fn nested(depth: usize) -> String {
    format!("{}0{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
}

#[test]
fn p5_schemas_that_are_too_costly_by_their_shape_are_refused_where_they_are_put() {
    let server = Server::start();
    server.create_tenant("evil");
    for (what, schema) in [
        ("doubled", doubled(27)),
        ("patterns", patterns(300)),
        ("one pattern", json!({"pattern": r"(\p{L}{100}){100}"})),
        ("long", json!({"description": "x".repeat(70_000)})),
        ("deep", (0..80).fold(json!(true), |inner, _| json!({"not": inner}))),
        ("in circles", json!({"allOf": [{"$ref": "#"}], "unevaluatedProperties": false})),
    ] {
        let put = |path: &str, body: Value| {
            let refused = server.put(path, body).expect_problem(422, "validation_failed");
            assert_eq!(refused.pointers(), ["/schema"], "{what}");
        };
        put(&own_type("evil", "a.b"), json!({"schema": schema}));
        put("/v1/event-types/a.b", json!({"schema": schema}));
        put("/v1/tenants/evil/points/own", json!({"kind": "mutate", "schema": schema}));
    }
    // Together, too: what a tenant declares is kept in memory.
    let large = json!({"schema": {"description": "x".repeat(60_000)}});
    let answers: Vec<_> = (0..20).map(|i| server.put(&own_type("evil", &format!("a.t{i}")), large.clone())).collect();
    let refused: Vec<_> = answers.into_iter().filter(|answer| answer.status != 201).collect();
    assert_eq!(refused.len(), 3);
    for answer in refused {
        assert_eq!(answer.expect_problem(422, "validation_failed").pointers(), ["/schema"]);
    }
    let pattern = json!({"kind": "mutate", "schema": {"pattern": r"^(\p{L}|-){1,10}$", "maxLength": 10}});
    let answers: Vec<_> =
        (0..20).map(|i| server.put(&format!("/v1/tenants/evil/points/own{i}"), pattern.clone()).status).collect();
    let taken = answers.iter().filter(|status| **status == 201).count();
    assert!((2..18).contains(&taken) && answers[taken..].iter().all(|status| *status == 422), "{answers:?}");
    // What others declare is theirs.
    server.create_tenant("good");
    server.put(&own_type("good", "a.b"), large).expect(201);
}

#[test]
fn p5_a_validation_beyond_its_work_is_told_and_nothing_is_accepted() {
    let server = Server::start();
    server.create_tenant("acme");
    server.put(&own_type("acme", "a.b"), json!({"schema": {"items": {"pattern": "(a?){60}a{60}"}}})).expect(201);
    let costly = json!({"type": "a.b", "data": vec!["a".repeat(60_000); 8]});
    let refused = server.post("/v1/tenants/acme/events", costly.clone()).expect_problem(422, "schema_too_costly");
    assert_eq!(refused.pointers(), ["/data"]);
    let batch = json!({"events": [{"type": "a.b", "data": ["b"]}, costly]});
    let refused = server.post("/v1/tenants/acme/events/batch", batch).expect_problem(422, "validation_failed");
    assert_eq!(refused.pointers(), ["/events/0/data/0"], "what was found out is told first");
    let batch = json!({"events": [{"type": "a.b", "data": []}, costly]});
    let refused = server.post("/v1/tenants/acme/events/batch", batch).expect_problem(422, "schema_too_costly");
    assert_eq!(refused.pointers(), ["/events/1/data"]);
    assert_eq!(server.all("/v1/tenants/acme/events"), Vec::<Value>::new());
    server.publish("acme", "a.b", json!(["a".repeat(70)]));
}

#[test]
fn p5_p9_p10_a_tenants_schemas_hold_up_nobody_else() {
    let server = Server::start();
    let inbox = receiver();
    inbox.script_path("/v", Script::status(200).body("{}"));
    server.create_tenant("evil");
    server.create_tenant("good");
    server.webhook("good", &inbox.url("/"), json!({"events": ["a.*"]}));
    server.put(&own_type("good", "a.b"), json!({"schema": {"type": "object", "required": ["n"]}})).expect(201);
    let hook = json!({"name": "h", "point": "validateUser", "url": inbox.url("/v"), "profile": "gatepost",
        "mode": "enforce", "timeout_ms": 2_000});
    let hook = server.post("/v1/tenants/good/hooks", hook).expect(201).json();
    let id = text(&hook, "id");
    inbox.script_path(
        "/v",
        Script::with(|request| {
            let question: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let answer = json!({"id": question["id"], "decision": "allow"});
            Script::status(200).header("content-type", "application/json").body(answer.to_string())
        }),
    );
    let schemas = [
        ("a.any", twice_itself("anyOf")),
        ("a.one", twice_itself("oneOf")),
        (
            "a.left",
            json!({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"properties": {"a": {"$ref": "#/$defs/n"}}}, {"patternProperties": {"^a": {"$ref": "#/$defs/n"}}}], "unevaluatedProperties": {"$ref": "#/$defs/n"}}}}),
        ),
        ("a.patterns", json!({"items": {"pattern": "(a?){60}a{60}"}})),
        ("a.unique", json!({"uniqueItems": true})),
    ];
    for (name, schema) in &schemas {
        server.put(&own_type("evil", name), json!({"schema": schema})).expect(201);
    }
    let data =
        [nested(40), nested(120), format!("[{}0]", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",".repeat(8_000))];
    let high_water = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let before = high_water();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attack = |turn: usize| {
            let mut client = server.client();
            let mut sent = 0;
            while !done.load(Ordering::Acquire) || sent < 20 {
                let (name, schema) = &schemas[(sent + turn) % schemas.len()];
                let event = format!(r#"{{"type":"{name}","data":{}}}"#, data[(sent / schemas.len()) % data.len()]);
                let answer = client.post("/v1/tenants/evil/events", event);
                assert!([202, 422].contains(&answer.status), "{name}: {}", answer.status);
                client
                    .put(&own_type("evil", name), json!({"schema": schema, "description": format!("{sent}")}))
                    .expect(200);
                let point = json!({"kind": "mutate", "schema": {"properties": {"x": schema, "n": {"const": sent}}}});
                let answer = client.put("/v1/tenants/evil/points/own", point);
                assert!([200, 201, 422].contains(&answer.status), "{}", answer.status);
                sent += 1;
            }
        };
        let attackers: Vec<_> = (0..3).map(|turn| scope.spawn(move || attack(turn))).collect();
        let mut client = server.client();
        let (mut published, mut decided) = (0, 0);
        for n in 0..100 {
            published += u32::from(
                client.post("/v1/tenants/good/events", json!({"type": "a.b", "data": {"n": n}})).status == 202,
            );
            let decision =
                client.post("/v1/tenants/good/points/validateUser/invoke", json!({"object": {"user": {"login": "a"}}}));
            let decision = decision.expect(200).json();
            // Answered by the receiver, within its time: not by a policy because time ran out.
            decided += u32::from((&decision["decision"], &decision["cause"]) == (&json!("allow"), &json!("receiver")));
        }
        done.store(true, Ordering::Release);
        attackers.into_iter().for_each(|attacker| attacker.join().expect("the attacks are answered"));
        assert_eq!((published, decided), (100, 100), "hook {id}");
    });
    server.wait_settled("good");
    let grown = high_water() - before;
    assert!(grown < 300, "memory grew by {grown} MiB, from {before}");
}
