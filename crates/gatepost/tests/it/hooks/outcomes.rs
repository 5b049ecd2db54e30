//! Behaviours 41 and 43: what the platform did, and what follows.

use gatepost_testkit::Receiver;
use serde_json::{Value, json};

use super::{Stage, TENANT, deny, native, question, verdict};
use crate::harness::{receiver, text, wait_until};

fn told(receiver: &Receiver) -> Vec<(String, Value)> {
    let requests = receiver.received().into_iter().map(|request| request.json());
    requests.map(|event| (text(&event, "type"), event["data"].clone())).collect()
}

fn outcome(stage: &Stage, decision: &Value, body: Value) -> crate::harness::Reply {
    let id = text(decision, "id");
    stage.server.post(&format!("/v1/tenants/acme/invocations/{id}/outcome"), body)
}

#[test]
fn b41_a_committed_operation_raises_its_event_once() {
    let mut stage = Stage::new();
    let events = receiver();
    stage.server.webhook(TENANT, &events.url("/"), json!({"events": ["cymmetri.*", "gatepost.hook.*"]}));
    stage.hook(
        "m",
        "preCreateUser",
        json!({}),
        native(|_| json!({"decision": "allow", "object": {"user": {"department": "IT"}}})),
    );
    let decision = stage.operate("createUser", question());
    assert_eq!(verdict(&decision), ("allow", "receiver"));
    assert_eq!(stage.record(&decision)["outcome"]["state"], "awaited");
    let committed = json!({"committed": true, "isSuccess": true, "uid": "u-77"});
    // A restart in between changes nothing.
    stage.server.kill9();
    stage.server.restart();
    let taken = outcome(&stage, &decision, committed.clone()).expect(200);
    let found = events.wait_for_blocking(2);
    assert_eq!(found.len(), 2);
    let told_of = told(&events);
    let (_, data) = told_of.iter().find(|(name, _)| name == "cymmetri.postCreateUser").unwrap();
    assert_eq!((&data["user"]["department"], &data["user"]["login"]), (&json!("IT"), &json!("ada")));
    assert_eq!((&data["isSuccess"], &data["uid"]), (&json!(true), &json!("u-77")));
    let (_, own) = told_of.iter().find(|(name, _)| name == "gatepost.hook.invocation.committed").unwrap();
    assert_eq!((&own["id"], &own["point"]), (&decision["id"], &json!("createUser")));
    // The same again is the same answer, and nothing more is told.
    let again = outcome(&stage, &decision, committed).expect(200);
    assert_eq!(again.json()["outcome"], taken.json()["outcome"]);
    outcome(&stage, &decision, json!({"committed": false})).expect_problem(409, "outcome_conflict");
    stage.server.kill9();
    stage.server.restart();
    assert_eq!(stage.record(&decision)["outcome"]["state"], "committed");
    stage.server.wait_settled(TENANT);
    assert_eq!(events.count(), 2);
    let named = stage.server.all("/v1/tenants/acme/events?type=cymmetri.postCreateUser");
    assert_eq!(named.len(), 1);
    assert_eq!(named[0]["subject"]["id"], "u1");
}

#[test]
fn p6_what_happened_is_told_whatever_schemas_and_quotas_say() {
    let stage = Stage::new();
    let events = receiver();
    stage.server.webhook(TENANT, &events.url("/"), json!({"events": ["cymmetri.*", "gatepost.hook.*"]}));
    let put = |name: &str| {
        let path = format!("/v1/event-types/{name}?tenant={TENANT}");
        stage.server.put(&path, json!({"schema": {"required": ["what nothing has"]}})).expect(201);
    };
    put("cymmetri.postCreateUser");
    put("a.b");
    let settings = json!({"strict_types": true, "enforce_builtin_schemas": true,
        "quotas": {"events_per_s": 1}});
    stage.server.put(&format!("/v1/tenants/{TENANT}"), json!({"settings": settings})).expect(200);
    // Whoever publishes it is held to the schema.
    let own = json!({"type": "cymmetri.postCreateUser", "data": {}});
    stage.server.post("/v1/tenants/acme/events", own).expect_problem(422, "validation_failed");
    let decision = stage.operate("createUser", question());
    // The quota is used up.
    stage.server.post("/v1/tenants/acme/events", json!({"type": "user.updated"}));
    stage.server.post("/v1/tenants/acme/events", json!({"type": "user.created"}));
    outcome(&stage, &decision, json!({"committed": true, "uid": "u-1"})).expect(200);
    events.wait_for_blocking(2);
    stage.server.wait_settled(TENANT);
    let mut told: Vec<_> = told(&events).into_iter().map(|(name, _)| name).collect();
    told.sort();
    assert_eq!(told, ["cymmetri.postCreateUser", "gatepost.hook.invocation.committed"]);
}

#[test]
fn b41_an_aborted_operation_tells_that_and_no_more() {
    let stage = Stage::new();
    let events = receiver();
    stage.server.webhook(TENANT, &events.url("/"), json!({"events": ["*", "gatepost.hook.*"]}));
    let decision = stage.operate("updateUser", question());
    outcome(&stage, &decision, json!({"committed": false, "reason": "database said no"})).expect(200);
    events.wait_for_blocking(1);
    stage.server.wait_settled(TENANT);
    let told = told(&events);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (told[0].0.as_str(), &told[0].1["outcome"]["reason"]),
        ("gatepost.hook.invocation.aborted", &json!("database said no"))
    );
    // A single point's outcome raises only that event; a provision's carries its context.
    let single = stage.ask("validateUser", question());
    outcome(&stage, &single, json!({"committed": true})).expect(200);
    let question = json!({"attributes": [{"targetAttribute": "email", "default": "a@b"}], "context": {"applicationId": "app1"}, "object": {"user": {"login": "ada"}}});
    let provision = stage.operate("provision", question);
    outcome(&stage, &provision, json!({"committed": true, "isSuccess": false, "uid": "x1"})).expect(200);
    events.wait_for_blocking(4);
    stage.server.wait_settled(TENANT);
    let rows = stage.server.all("/v1/tenants/acme/events");
    let mut types: Vec<_> =
        rows.iter().map(|event| text(event, "type")).filter(|name| !name.contains("webhook")).collect();
    types.sort();
    assert_eq!(
        types,
        [
            "cymmetri.postProvision",
            "gatepost.hook.invocation.aborted",
            "gatepost.hook.invocation.committed",
            "gatepost.hook.invocation.committed"
        ]
    );
    let provisioned =
        events.received().iter().map(|r| r.json()).find(|e| e["type"] == "cymmetri.postProvision").unwrap();
    let data = &provisioned["data"];
    assert_eq!(
        (&data["applicationId"], &data["isSuccess"], &data["uid"]),
        (&json!("app1"), &json!(false), &json!("x1"))
    );
}

#[test]
fn b41_outcomes_are_read_strictly_and_of_refusals_none_is_expected() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), deny("No"));
    let refused = stage.ask("validateUser", question());
    assert_eq!(stage.record(&refused)["outcome"]["state"], "none");
    let wrong = json!({"committed": "yes", "object": [], "uid": 1, "more": 1});
    assert_eq!(
        outcome(&stage, &refused, wrong).expect_problem(422, "validation_failed").pointers(),
        ["/committed", "/more", "/object", "/uid"]
    );
    let none = "/v1/tenants/acme/invocations/inv_00000000000000000000000000/outcome";
    stage.server.post(none, json!({"committed": true})).expect_problem(404, "invocation_not_found");
    outcome(&stage, &refused, json!({"committed": false})).expect(200);
}

#[test]
fn b41_the_told_object_is_what_the_event_carries_without_what_is_secret() {
    let stage = Stage::new();
    let events = receiver();
    stage.server.webhook(TENANT, &events.url("/"), json!({"events": ["cymmetri.postUpdateUser"]}));
    let decision = stage.operate("updateUser", question());
    let object = json!({"user": {"login": "grace", "securityQuestion": {"pet": "Rex the unforgettable"}}});
    outcome(&stage, &decision, json!({"committed": true, "object": object})).expect(200);
    events.wait_for_blocking(1);
    assert_eq!(told(&events)[0].1["user"], json!({"login": "grace"}));
}

#[test]
fn b41_an_operation_committed_against_a_no_tells_what_it_would_have_come_to() {
    let stage = Stage::new();
    let events = receiver();
    stage.server.webhook(TENANT, &events.url("/"), json!({"events": ["cymmetri.postCreateUser"]}));
    stage.hook("v", "validateUser", json!({}), deny("No"));
    let mut asked = question();
    asked["object"]["user"]["securityQuestion"] = json!({"pet": "Rex the unforgettable"});
    let decision = stage.operate("createUser", asked);
    assert_eq!(verdict(&decision), ("deny", "receiver"));
    outcome(&stage, &decision, json!({"committed": true})).expect(200);
    events.wait_for_blocking(1);
    assert_eq!(told(&events)[0].1, json!({"user": super::user()}), "and nothing secret");
}

#[test]
fn b43_a_kill_tears_no_record_and_strict_ones_are_there() {
    let mut stage = Stage::new();
    stage.server.put("/v1/tenants/acme/points/validateUser", json!({"audit": "strict"})).expect(200);
    let mut answered = Vec::new();
    for _ in 0..20 {
        answered.push(text(&stage.ask("validateUser", question()), "id"));
    }
    stage.server.kill9();
    stage.server.restart();
    for id in &answered {
        let record = stage.server.get(&format!("/v1/tenants/acme/invocations/{id}")).expect(200).json();
        assert_eq!((&record["id"], &record["decision"]), (&json!(id), &json!("allow")));
    }
    // Relaxed ones are there a moment later.
    let relaxed = stage.ask("preCreateUser", question());
    wait_until("the record", || {
        let rows = stage.server.all("/v1/tenants/acme/invocations");
        rows.iter().any(|row| row["id"] == relaxed["id"]).then_some(())
    });
    stage.server.kill9();
    stage.server.restart();
    assert_eq!(stage.record(&relaxed)["point"], "preCreateUser");
}

#[test]
fn invocations_are_listed_filtered_and_paged() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), deny("No"));
    for point in ["validateUser", "preCreateUser", "validateUser"] {
        stage.ask(point, question());
    }
    let mut other = question();
    other["subject"]["id"] = json!("u2");
    stage.ask("preUpdateUser", other);
    let list = |query: &str| stage.server.all(&format!("/v1/tenants/acme/invocations{query}"));
    assert_eq!(list("").len(), 4);
    let points: Vec<_> = list("").iter().map(|row| text(row, "point")).collect();
    assert_eq!(points, ["preUpdateUser", "validateUser", "preCreateUser", "validateUser"]);
    for (query, count) in [
        ("?point=validateUser", 2),
        ("?decision=deny", 2),
        ("?decision=allow&cause=no_hooks", 2),
        ("?subject=u2", 1),
        ("?since=2099-01-01T00:00:00Z", 0),
        ("?until=2099-01-01T00:00:00Z", 4),
    ] {
        assert_eq!(list(query).len(), count, "{query}");
    }
    let page = stage.server.get("/v1/tenants/acme/invocations?limit=3").expect(200).json();
    assert_eq!(page["data"].as_array().unwrap().len(), 3);
    let next = format!("/v1/tenants/acme/invocations?limit=3&cursor={}", text(&page, "next_cursor"));
    assert_eq!(stage.server.get(&next).expect(200).json()["data"].as_array().unwrap().len(), 1);
    let wrong = stage.server.get("/v1/tenants/acme/invocations?decision=maybe&cause=x&bogus=1&limit=0");
    assert_eq!(wrong.expect_problem(422, "validation_failed").pointers(), ["?bogus", "?cause", "?decision", "?limit"]);
}
