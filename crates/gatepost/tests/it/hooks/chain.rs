//! Behaviours 6 to 8: several hooks at one point.

use serde_json::{Value, json};

use super::{Stage, allow, deny, native, question, verdict};

fn names(decision: &Value) -> Vec<String> {
    decision["hooks"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn b06_mutators_chain_in_a_stable_order_across_restarts() {
    let mut stage = Stage::new();
    let append = |letter: &'static str| {
        native(move |question| {
            let so_far = question["object"]["user"]["department"].as_str().unwrap_or_default().to_owned();
            json!({"decision": "allow", "object": {"user": {"department": format!("{so_far}{letter}")}}})
        })
    };
    stage.hook("c", "preCreateUser", json!({"order": 3}), append("c"));
    stage.hook("a", "preCreateUser", json!({"order": 1}), append("a"));
    stage.hook("b1", "preCreateUser", json!({"order": 2}), append("b"));
    stage.hook("b2", "preCreateUser", json!({"order": 2}), append("B"));
    let decision = stage.ask("preCreateUser", question());
    assert_eq!(decision["object"]["user"]["department"], "R&DabBc");
    assert_eq!(names(&decision), ["a", "b1", "b2", "c"]);
    stage.server.kill9();
    stage.server.restart();
    assert_eq!(names(&stage.ask("preCreateUser", question())), ["a", "b1", "b2", "c"]);
    let point = stage.server.get("/v1/tenants/acme/points/preCreateUser").expect(200).json();
    assert_eq!(point["hooks"].as_array().unwrap().len(), 4);
}

#[test]
fn b07_a_new_order_holds_from_the_next_invocation_on() {
    let stage = Stage::new();
    let first = stage.hook("first", "validateUser", json!({"order": 1}), allow());
    stage.hook("second", "validateUser", json!({"order": 2}), allow());
    assert_eq!(names(&stage.ask("validateUser", question())), ["first", "second"]);
    stage.patch(&first, json!({"order": 9})).expect(200);
    assert_eq!(names(&stage.ask("validateUser", question())), ["second", "first"]);
}

#[test]
fn b08_validators_see_the_final_object_and_every_denial_is_told() {
    let stage = Stage::new();
    stage.hook(
        "m",
        "preCreateUser",
        json!({}),
        native(|_| json!({"decision": "allow", "object": {"user": {"department": "IT"}}})),
    );
    stage.hook("one", "validateUser", json!({"order": 1}), deny("One"));
    stage.hook("two", "validateUser", json!({"order": 2}), allow());
    stage.hook("three", "validateUser", json!({"order": 3}), deny("Three"));
    for _ in 0..5 {
        let decision = stage.operate("createUser", question());
        assert_eq!((verdict(&decision), decision["point"].as_str()), (("deny", "receiver"), Some("createUser")));
        let codes: Vec<_> = decision["messages"].as_array().unwrap().iter().map(|m| m["code"].clone()).collect();
        assert_eq!(codes, [json!("One"), json!("Three")]);
    }
    assert_eq!(stage.asked_at("/three")[1].json()["object"]["user"]["department"], "IT");
}

#[test]
fn b05_an_operation_ends_at_the_phase_that_refuses() {
    let stage = Stage::new();
    stage.hook("m", "preUpdateUser", json!({}), deny("Frozen"));
    stage.hook("v", "validateUpdateUser", json!({}), allow());
    let decision = stage.operate("updateUser", question());
    assert_eq!(verdict(&decision), ("deny", "receiver"));
    assert_eq!(names(&decision), ["m"], "the second phase was not reached");
    assert_eq!(stage.asked_at("/v").len(), 1, "the probe alone");
}
