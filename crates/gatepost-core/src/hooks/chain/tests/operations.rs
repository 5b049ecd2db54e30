//! Several points in one round trip.

use super::*;

#[test]
fn phases_go_on_with_what_the_one_before_left_and_end_at_a_refusal() {
    let hooks =
        || vec![hook(1, "preCreateUser", |_| {}), hook(2, "validateUser", |_| {}), hook(3, "validateUser", |_| {})];
    let mut chain = Chain::new(setup("createUser", hooks()), invocation("createUser", user()));
    let decision = run(&mut chain, |call, began| {
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        if call.hook.config.name == "1" {
            return answered(call, began, 200, r#"{"response":{"data":{"country":"Nepal"}}}"#);
        }
        // Validators judge what is to be committed.
        assert_eq!(body["request"]["user"]["country"], "Nepal");
        answered(call, began, 200, "{}")
    });
    assert_eq!(
        (decision.point.as_str(), decision.decision, decision.cause),
        ("createUser", Verdict::Allow, Cause::Receiver)
    );
    assert_eq!(decision.object["user"]["country"], "Nepal");
    assert_eq!(decision.hooks.len(), 3);
    let decision = decide("createUser", hooks(), user(), &[("1", DENY)]);
    assert_eq!((decision.decision, results(&decision)), (Verdict::Deny, vec![("1", HookResult::Deny)]));
    // Within a phase everybody is heard.
    let decision = decide("createUser", hooks(), user(), &[("2", DENY), ("3", DENY)]);
    assert_eq!((decision.messages.len(), decision.hooks.len()), (2, 3));
}

fn attributes(n: usize) -> Value {
    let all: Vec<_> = (0..n)
        .map(|i| json!({"targetAttribute":format!("a{i}"),"cymmetrifield":"email","default":format!("d{i}")}))
        .collect();
    json!({"object":{"user":{"email":"a@x"}},"context":{"applicationId":"p"},"attributes":all})
}

#[test]
fn twenty_attributes_come_back_in_order() {
    let hooks = vec![hook(1, "policyMap", |_| {}), hook(2, "policyMap", |_| {}), hook(3, "preProvision", |_| {})];
    let mut chain = Chain::new(setup("provision", hooks), invocation("provision", attributes(20)));
    let mut ids = Vec::new();
    let decision = run(&mut chain, |call, began| {
        ids.push(call.message_id.clone());
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        let request = &body["request"];
        let Some(name) = request["targetAttribute"].as_str() else {
            assert_eq!(request["applicationId"], "p");
            return answered(call, began, 204, "");
        };
        let i: usize = name[1..].parse().unwrap();
        assert_eq!(request["defaultValue"], format!("d{i}"));
        let value = match (call.hook.config.name.as_str(), i % 3) {
            ("1", 0) => json!({"response":{"mappedValue":format!("one{i}")}}),
            ("2", 1) => json!({"response":{"mappedValue":i}}),
            _ => json!({}),
        };
        let mut report = answered(call, began, 200, &value.to_string());
        // The first attributes answer last.
        report.ended += ms(20 - i as u64);
        report
    });
    let expected: Vec<_> = (0..20)
        .map(|i| match i % 3 {
            0 => json!(format!("one{i}")),
            1 => json!(i.to_string()),
            _ => json!(format!("d{i}")),
        })
        .collect();
    assert_eq!(decision.values, Some(expected));
    assert_eq!((decision.decision, decision.value.clone()), (Verdict::Allow, Value::Null));
    // Seven attributes have a value from the first hook, thirteen go on to the second; then one more.
    assert_eq!(ids.len(), 7 + 2 * 13 + 1);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 34, "every question has an id of its own");
    let wire: serde_json::Value = serde_json::from_slice(&decision.to_wire(chain.secrets())).unwrap();
    assert_eq!(wire["values"].as_array().unwrap().len(), 20);
    assert_eq!(wire["hooks"][0]["attribute"], "a0");
}

#[test]
fn all_attributes_are_asked_at_once() {
    let mut chain =
        Chain::new(setup("provision", vec![hook(1, "policyMap", |_| {})]), invocation("provision", attributes(20)));
    assert_eq!(chain.ready(Duration::ZERO).len(), 20);
}

#[test]
fn a_failed_attribute_has_its_default_and_the_others_their_values() {
    let mut chain =
        Chain::new(setup("provision", vec![hook(1, "policyMap", |_| {})]), invocation("provision", attributes(3)));
    let decision = run(&mut chain, |call, began| {
        if call.message_id.ends_with(":1") {
            return failed(call, began, FailureClass::Timeout);
        }
        answered(call, began, 200, r#"{"response":{"mappedValue":"v"}}"#)
    });
    assert_eq!(decision.values, Some(vec![json!("v"), json!("d1"), json!("v")]));
    assert_eq!(decision.cause, Cause::PolicyOnFailure);
    assert_eq!(
        json!(decision.degraded),
        json!([{"hook":decision.hooks[0].id,"failure":"timeout","applied":"ask_default","attribute":"a1"}])
    );
}

#[test]
fn a_refused_attribute_ends_it_before_provisioning() {
    let hooks = vec![hook(1, "policyMap", |_| {}), hook(2, "preProvision", |_| {})];
    let decision = decide("provision", hooks, attributes(2), &[("1", DENY)]);
    assert_eq!(decision.decision, Verdict::Deny);
    assert!(decision.hooks.iter().all(|row| row.name == "1"));
}

#[test]
fn a_disabled_point_is_passed_over_and_the_other_asked() {
    let mut setup = setup("createUser", vec![hook(1, "preCreateUser", |_| {}), hook(2, "validateUser", |_| {})]);
    setup.stages[0].enabled = false;
    let mut chain = Chain::new(setup, invocation("createUser", user()));
    let decision = run(&mut chain, |call, began| answered(call, began, 200, "{}"));
    assert_eq!((decision.cause, results(&decision)), (Cause::Receiver, vec![("2", HookResult::Allow)]));
}

#[test]
fn an_operation_without_hooks_answers_at_once() {
    let decision = decide("provision", vec![], attributes(2), &[]);
    assert_eq!((decision.decision, decision.cause), (Verdict::Allow, Cause::NoHooks));
    assert_eq!(decision.values, Some(vec![json!("d0"), json!("d1")]));
}
