//! Registering, changing, listing hooks; points; who may do what.

use serde_json::{Value, json};

use super::{Stage, TENANT, allow, body, native, question, user, verdict};
use crate::harness::text;

#[test]
fn hooks_are_registered_shown_changed_and_deleted() {
    let stage = Stage::new();
    let url = stage.receiver.url("/v");
    let made = stage.server.post("/v1/tenants/acme/hooks", json!({"name": "n", "point": "validateUser", "url": url}));
    let location = made.header("location").unwrap().to_owned();
    let made = made.expect(201).json();
    let hook = text(&made, "id");
    assert_eq!(location, format!("/v1/tenants/acme/hooks/{hook}"));
    let expected = json!({
        "name": "n", "point": "validateUser", "url": url, "profile": "gatepost", "path": null, "order": 100,
        "mode": "observe", "on_failure": "deny", "may_change": null, "timeout_ms": 1000,
        "min_timeout_ms": 100, "max_in_flight": 64, "replace_mode": "merge", "receives_secrets": false, "secret_mode": "plain",
        "secret_retry": "none", "side_effects": "some", "idempotent": false, "status_deny": false,
        "stop_on_deny": false, "conditions": null, "require_signed_answer": false, "headers": {}, "auth": null,
        "enabled": true, "verified": false, "verified_at": null, "circuit": "closed", "last_test": null,
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&made[member], value, "{member}");
    }
    assert_eq!(made["warnings"][0]["code"], "plain_http");
    let mut shown = stage.show(&hook);
    shown["secret"] = made["secret"].clone();
    assert_eq!(shown, made, "the secret is shown once");
    let patch = json!({"headers": {"x-own": "hush-hush"}, "auth": {"type": "bearer", "token": "t0k-en"}, "on_failure": {"timeout": "continue"}});
    let changed = stage.patch(&hook, patch).expect(200).json();
    assert_eq!(
        (&changed["headers"], &changed["auth"]),
        (&json!({"x-own": "***"}), &json!({"type": "bearer", "token": "***"}))
    );
    assert_eq!(changed["on_failure"], json!({"default": "deny", "timeout": "continue"}));
    let basic = json!({"type": "basic", "username": "u", "password": "p"});
    let changed = stage.patch(&hook, json!({"auth": basic, "headers": {"X-Own": "***"}})).expect(200).json();
    assert_eq!(
        changed["auth"],
        json!({"type": "basic", "username": "u", "password": "***"}),
        "another type is another auth"
    );
    assert_eq!(changed["headers"], json!({"X-Own": "***"}), "names compare without case");
    let other = json!({"auth": {"type": "bearer", "token": "***"}});
    assert_eq!(stage.patch(&hook, other).expect_problem(422, "validation_failed").pointers(), ["/auth/token"]);
    let bearer = json!({"auth": {"type": "bearer", "token": "t0k-en"}, "headers": {"x-own": "***"}});
    stage.patch(&hook, bearer).expect(200);
    for condition in
        [json!({"pointer": "/user/a", "eq": 1}), json!({"pointer": "/user/a", "exists": true}), Value::Null]
    {
        let changed = stage.patch(&hook, json!({"conditions": condition})).expect(200).json();
        assert_eq!(changed["conditions"], condition, "replaced whole");
    }
    stage.receiver.script_path("/v", body("{}"));
    stage.patch(&hook, json!({"mode": "enforce", "headers": {"x-own": "***"}})).expect(200);
    let probe = stage.asked_at("/v")[0].clone();
    assert_eq!((probe.header("x-own"), probe.header("authorization")), (Some("hush-hush"), Some("Bearer t0k-en")));
    let cleared =
        stage.patch(&hook, json!({"headers": {"x-own": null}, "auth": null, "on_failure": null})).expect(200).json();
    assert_eq!(
        (&cleared["headers"], &cleared["auth"], &cleared["on_failure"]),
        (&json!({}), &Value::Null, &json!("deny"))
    );
    assert_eq!(stage.server.all("/v1/tenants/acme/hooks?point=policyMap"), Vec::<Value>::new());
    stage.server.delete(&format!("/v1/tenants/acme/hooks/{hook}")).expect(204);
    stage.server.get(&format!("/v1/tenants/acme/hooks/{hook}")).expect_problem(404, "hook_not_found");
    stage.patch(&hook, json!({})).expect_problem(404, "hook_not_found");
}

#[test]
fn everything_wrong_with_a_hook_is_told_at_once() {
    let stage = Stage::new();
    let post = |body: Value| stage.server.post("/v1/tenants/acme/hooks", body);
    let wrong = json!({
        "name": 5, "point": "validateUser", "url": "ftp://x", "mode": "maybe", "timeout_ms": 5, "bogus": 1,
        "on_failure": {"timeout": "perhaps", "nonsense": "deny"}, "headers": {"webhook-id": "x", "bad name": "y", "x-kept": "***"},
        "conditions": {"pointer": "nope", "eq": 1}, "auth": {"type": "basic", "username": "a:b"}, "secret": "whsec_short",
    });
    let pointers = post(wrong).expect_problem(422, "validation_failed").pointers();
    for pointer in [
        "/name",
        "/url",
        "/mode",
        "/timeout_ms",
        "/bogus",
        "/on_failure/timeout",
        "/on_failure/nonsense",
        "/headers/webhook-id",
        "/headers/bad name",
        "/headers/x-kept",
        "/conditions/pointer",
        "/auth/password",
        "/secret",
    ] {
        assert!(pointers.iter().any(|found| found == pointer), "{pointer} is not in {pointers:?}");
    }
    assert_eq!(post(json!({})).expect_problem(422, "validation_failed").pointers(), ["/name", "/point", "/url"]);
    let malformed = stage
        .server
        .post("/v1/tenants/acme/hooks", "{\"name\":\"a\",\n\"name\":\"b\"}")
        .expect_problem(400, "malformed_json");
    assert_eq!(malformed.json()["line"], 2);
    let row = |members: Value| {
        let mut hook = json!({"name": "n", "point": "validateUser", "url": "https://r.example.com/"});
        hook.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        post(hook).expect_problem(422, "validation_failed").pointers()
    };
    for (members, pointer) in [
        (json!({"point": "postCreateUser"}), "/point"),
        (json!({"point": "noSuchPoint"}), "/point"),
        (json!({"profile": "nonsense"}), "/profile"),
        (json!({"point": "runDeprovision", "on_failure": {"value": "yes"}}), "/on_failure"),
        (json!({"profile": "cymmetri", "auth": {"type": "bearer", "token": "x"}}), "/auth"),
        (json!({"secret_retry": "encrypted"}), "/secret_retry"),
        (json!({"min_timeout_ms": 2000}), "/min_timeout_ms"),
    ] {
        assert_eq!(row(members.clone()), [pointer], "{members}");
    }
    let hook = text(
        &post(json!({"name": "n", "point": "validateUser", "url": "https://r.example.com/"})).expect(201).json(),
        "id",
    );
    let fixed = stage.patch(&hook, json!({"profile": "cymmetri", "id": "x"})).expect_problem(422, "validation_failed");
    assert_eq!(fixed.pointers(), ["/id", "/profile"]);
}

#[test]
fn points_are_listed_set_defined_and_removed() {
    let stage = Stage::new();
    let all = stage.server.all("/v1/tenants/acme/points");
    let names: Vec<_> = all.iter().map(|point| text(point, "name")).collect();
    assert_eq!(names[..3], ["preCreateUser", "preUpdateUser", "validateUser"]);
    assert_eq!(all.iter().filter(|point| point["builtin"] == true).count(), 12);
    let page = stage.server.get("/v1/tenants/acme/points?limit=5").expect(200).json();
    assert_eq!(page["data"].as_array().unwrap().len(), 5);
    let mut next = text(&page, "next_cursor");
    let mut seen = 5;
    while seen < 12 {
        let page = stage.server.get(&format!("/v1/tenants/acme/points?limit=5&cursor={next}")).expect(200).json();
        seen += page["data"].as_array().unwrap().len();
        next = page["next_cursor"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!((seen, next.as_str()), (12, ""));
    let set = stage
        .server
        .put("/v1/tenants/acme/points/policyMap", json!({"max_total_ms": 700, "enabled": false}))
        .expect(200)
        .json();
    assert_eq!((&set["max_total_ms"], &set["enabled"], &set["kind"]), (&json!(700), &json!(false), &json!("value")));
    let kept = stage.server.put("/v1/tenants/acme/points/policyMap", json!({"enabled": true})).expect(200).json();
    assert_eq!((&kept["max_total_ms"], &kept["enabled"]), (&json!(700), &json!(true)));
    stage.server.delete("/v1/tenants/acme/points/policyMap").expect(204);
    assert_eq!(stage.server.get("/v1/tenants/acme/points/policyMap").expect(200).json()["max_total_ms"], 3_000);
    let wrong = json!({"enabled": 1, "max_total_ms": 50000, "kind": "gate", "x": 1});
    let refused = stage.server.put("/v1/tenants/acme/points/policyMap", wrong).expect_problem(422, "validation_failed");
    assert_eq!(refused.pointers(), ["/enabled", "/kind", "/max_total_ms", "/x"]);

    let own = json!({"kind": "mutate", "schema": {"type": "object", "properties": {"badge": {"properties": {"level": {"maximum": 3}}}}}, "object_members": ["badge"]});
    let made = stage.server.put("/v1/tenants/acme/points/beforeBadge", own).expect(201);
    assert_eq!(made.header("location"), Some("/v1/tenants/acme/points/beforeBadge"));
    stage.server.put("/v1/tenants/acme/points/beforeBadge", json!({"enabled": true})).expect(200);
    let level = |n: u64| native(move |_| json!({"decision": "allow", "object": {"badge": {"level": n}}}));
    let hook = stage.hook("b", "beforeBadge", json!({"may_change": ["/badge"]}), level(3));
    let question = json!({"object": {"badge": {"level": 1}}});
    let decision = stage.ask("beforeBadge", question.clone());
    assert_eq!((verdict(&decision), &decision["object"]["badge"]["level"]), (("allow", "receiver"), &json!(3)));
    stage.receiver.script_path("/b", level(9));
    let decision = stage.ask("beforeBadge", question);
    assert_eq!(
        (verdict(&decision), decision["hooks"][0]["failure"].as_str()),
        (("allow", "invalid_answer"), Some("schema"))
    );
    assert_eq!(decision["object"]["badge"]["level"], 1);
    // Judging an answer has its bounds too.
    let costly = json!({"kind": "mutate", "schema": {"properties": {"badge": {"properties": {"text": {"pattern": "(a?){60}a{60}"}}}}}});
    stage.server.put("/v1/tenants/acme/points/beforeBadge", costly).expect(200);
    let long = native(|_| json!({"decision": "allow", "object": {"badge": {"text": "a".repeat(100_000)}}}));
    stage.receiver.script_path("/b", long);
    let decision = stage.ask("beforeBadge", json!({"object": {"badge": {"level": 1}}}));
    assert_eq!(decision["hooks"][0]["failure"].as_str(), Some("schema"));
    assert_eq!(decision["object"]["badge"], json!({"level": 1}));
    stage.server.delete("/v1/tenants/acme/points/beforeBadge").expect_problem(409, "point_in_use");
    stage.server.delete(&format!("/v1/tenants/acme/hooks/{hook}")).expect(204);
    stage.server.delete("/v1/tenants/acme/points/beforeBadge").expect(204);
    stage.server.get("/v1/tenants/acme/points/beforeBadge").expect_problem(404, "point_not_found");
    stage
        .server
        .put("/v1/tenants/acme/points/createUser", json!({"kind": "gate"}))
        .expect_problem(422, "validation_failed");
}

#[test]
fn questions_are_read_strictly_and_in_both_forms() {
    let stage = Stage::new();
    let ask = |point: &str, body: Value| stage.ask_with(&format!("points/{point}"), &[], body);
    ask("noSuchPoint", question()).expect_problem(404, "point_not_found");
    assert_eq!(ask("postCreateUser", question()).expect_problem(422, "validation_failed").pointers(), ["{point}"]);
    stage.ask_with("operations/deleteUser", &[], question()).expect_problem(404, "operation_not_found");
    let wrong = json!({"object": 5, "subject": {"type": "user"}, "dry_run": "yes", "more": 1});
    let refused = ask("validateUser", wrong).expect_problem(422, "validation_failed");
    assert_eq!(refused.pointers(), ["/dry_run", "/more", "/object", "/subject/id"]);
    assert_eq!(ask("preCreateUser", json!({})).expect_problem(422, "validation_failed").pointers(), ["/object"]);
    let path = "/v1/tenants/acme/points/validateUser/invoke";
    stage.server.post(path, "{\"a\":1,\"a\":2}").expect_problem(400, "malformed_json");
    stage.server.post(path, "not json").expect_problem(400, "malformed_json");
    stage
        .server
        .post("/v1/tenants/nobody/points/validateUser/invoke", question())
        .expect_problem(404, "tenant_not_found");
    stage
        .server
        .send("POST", path, &[("content-type", "text/plain")], "{}")
        .expect_problem(415, "unsupported_media_type");

    // The exact Cymmetri form, in and out.
    stage.hook(
        "m",
        "preCreateUser",
        json!({}),
        native(|_| json!({"decision": "allow", "object": {"user": {"department": "IT"}}})),
    );
    let accept = [("accept", "application/vnd.cymmetri+json")];
    let reply = stage.ask_with("points/preCreateUser", &accept, json!({"request": {"user": user()}})).expect(200);
    assert_eq!(reply.header("content-type"), Some("application/vnd.cymmetri+json"));
    let mut changed = user();
    changed["department"] = json!("IT");
    assert_eq!(reply.json(), json!({"response": {"data": changed}}));
    stage.hook("v", "validateUser", json!({}), super::deny("MobileAlreadyExist"));
    let reply = stage.ask_with("points/validateUser", &accept, json!({"request": {"user": user()}})).expect(200);
    assert_eq!(reply.json(), json!({"response": {"error": true, "message": "MobileAlreadyExist"}}));
    let gate = stage.ask_with("points/runDeprovision", &accept, json!({"request": {"user": user()}})).expect(200);
    assert_eq!(gate.json(), json!({"response": {"data": false}}));
}

#[test]
fn scopes_are_exact() {
    let stage = Stage::new();
    let hook = stage.hook("v", "validateUser", json!({}), allow());
    let invocation = text(&stage.ask("validateUser", question()), "id");
    let calls = [
        ("GET", "hooks".to_owned(), "read"),
        ("GET", "points".to_owned(), "read"),
        ("GET", "points/validateUser".to_owned(), "read"),
        ("GET", "invocations".to_owned(), "read"),
        ("GET", format!("invocations/{invocation}"), "read"),
        ("PUT", "points/validateUser".to_owned(), "manage"),
        ("PATCH", format!("hooks/{hook}"), "manage"),
        ("POST", format!("hooks/{hook}/try"), "manage"),
        ("POST", "points/validateUser/invoke".to_owned(), "invoke"),
        ("POST", "operations/createUser/invoke".to_owned(), "invoke"),
        ("POST", format!("invocations/{invocation}/outcome"), "invoke"),
    ];
    for scope in ["read", "manage", "invoke", "publish"] {
        let mut client = stage.server.client_with(&stage.server.create_key(&[scope], Some(TENANT)));
        for (method, path, needed) in &calls {
            let body = match path {
                path if path.ends_with("/invoke") => question(),
                path if path.ends_with("/outcome") => json!({"committed": true}),
                _ => json!({}),
            };
            let body = if *method == "GET" { crate::harness::Payload::default() } else { body.into() };
            let reply = client.send(method, &format!("/v1/tenants/acme/{path}"), &[], body);
            let may = scope == *needed || (scope == "manage" && *needed == "read");
            assert_eq!(reply.status, if may { 200 } else { 403 }, "{scope}: {method} {path}: {reply:?}");
        }
    }
}
