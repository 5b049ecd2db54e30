//! Budgets in the chain, and that there is always an answer.

use proptest::prelude::*;

use serde_json::Value as Json;

use super::*;

#[test]
fn p9_four_hanging_fail_open_hooks_still_allow_within_the_budget() {
    let hooks = (1..=4).map(|n| hook(n, "preCreateUser", |c| c.timeout_ms = 10_000)).collect();
    let mut chain = Chain::new(setup("preCreateUser", hooks), invocation("preCreateUser", user()));
    let decision = run(&mut chain, |call, began| failed(call, began, FailureClass::Timeout));
    assert_eq!((decision.decision, decision.cause), (Verdict::Allow, Cause::PolicyOnFailure));
    assert!(decision.took_us <= 2_995_000, "{}", decision.took_us);
    assert_eq!(decision.budget_ms, 3_000);
    let classes: Vec<_> = decision.hooks.iter().filter_map(|row| row.failure).map(FailureClass::as_str).collect();
    assert_eq!(classes, ["timeout", "budget", "budget", "budget"]);
}

#[test]
fn p9_a_slow_fail_open_hook_leaves_the_required_ones_their_reserve() {
    let hooks = vec![
        hook(1, "preCreateUser", |c| c.timeout_ms = 30_000),
        hook(2, "validateUser", |c| (c.timeout_ms, c.min_timeout_ms) = (1_000, 400)),
        hook(3, "validateUser", |c| (c.timeout_ms, c.min_timeout_ms) = (1_000, 200)),
    ];
    let mut limits = Vec::new();
    let mut chain = Chain::new(setup("createUser", hooks), invocation("createUser", user()));
    let decision = run(&mut chain, |call, began| {
        limits.push(call.limit);
        if call.hook.config.name == "1" {
            failed(call, began, FailureClass::Timeout)
        } else {
            answered(call, began, 200, "{}")
        }
    });
    // Those asked at once need only as long as the longest of them.
    assert_eq!(limits, [ms(2_595), ms(400), ms(400)]);
    assert_eq!((decision.decision, decision.cause), (Verdict::Allow, Cause::PolicyOnFailure));
}

#[test]
fn the_time_receivers_took_is_not_ours() {
    let hooks =
        vec![hook(1, "preCreateUser", |_| {}), hook(2, "validateUser", |_| {}), hook(3, "validateUser", |_| {})];
    let mut chain = Chain::new(setup("createUser", hooks), invocation("createUser", user()));
    let spans = [(1, 11), (12, 32), (13, 22)];
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls = chain.ready(Duration::ZERO);
        for call in &calls {
            let n: usize = call.hook.config.name.parse().unwrap();
            let (from, to) = spans[n - 1];
            let report = Report { started: ms(from), ended: ms(to), ..answered(call, ms(from), 200, "{}") };
            chain.settle(call.slot, report, NOW);
        }
    }
    assert_eq!(calls.len(), 2);
    let decision = chain.finish(ms(33));
    // 10 ms, then 20 ms in which the 9 ms of the other lie.
    assert_eq!((decision.took_us, decision.gatepost_us), (33_000, 3_000));
}

#[test]
fn p9_a_decision_can_be_had_at_any_moment() {
    let hooks = vec![hook(1, "preCreateUser", |_| {}), hook(2, "validateUser", |_| {})];
    let mut chain = Chain::new(setup("createUser", hooks.clone()), invocation("createUser", user()));
    assert_eq!(chain.ready(Duration::ZERO).len(), 1);
    let decision = chain.finish(ms(3_000));
    assert_eq!((decision.decision, decision.cause), (Verdict::Deny, Cause::BudgetExhausted));
    let classes: Vec<_> = decision.hooks.iter().filter_map(|row| row.failure).map(FailureClass::as_str).collect();
    assert_eq!(classes, ["timeout", "budget"]);
    // The caller has gone: nobody is to blame, nobody else is asked.
    let mut chain = Chain::new(setup("createUser", hooks), invocation("createUser", user()));
    assert_eq!(chain.ready(Duration::ZERO).len(), 1);
    chain.abandon(ms(1));
    let decision = chain.finish(ms(1));
    assert_eq!((results(&decision), decision.degraded.len()), (vec![("1", HookResult::Cancelled)], 0));
    // But asked it was.
    assert_eq!((decision.cause, decision.hooks[0].attempts, decision.hooks[0].took_us), (Cause::Receiver, 1, 1_000));
}

#[test]
fn static_answers_when_nobody_can_be_asked() {
    for (name, verdict, value) in [
        ("preCreateUser", Verdict::Allow, Value::Null),
        ("validateUser", Verdict::Deny, Value::Null),
        ("policyMap", Verdict::Allow, json!("d")),
        ("runDeprovision", Verdict::Allow, json!(false)),
    ] {
        let question = json!({"object": {"user": {}}, "default": {"mappedValue": "d"}});
        let decision = Decision::without_asking("inv_1", builtin(name).unwrap(), Some(&invocation(name, question)));
        assert_eq!((decision.decision, decision.value, decision.cause), (verdict, value, Cause::Gatepost), "{name}");
        let unknown = Decision::without_asking("inv_1", builtin(name).unwrap(), None);
        assert_eq!(unknown.decision, verdict, "{name}");
    }
    // What stands when nobody decides, as a chain without hooks has it.
    let question = json!({"object": {"user": {"mobile": "123"}}, "context": {"cymmetrifield": "mobile"}});
    let asked = invocation("policyMap", question);
    assert_eq!(Decision::without_asking("i", builtin("policyMap").unwrap(), Some(&asked)).value, json!("123"));
    let question = json!({"object": {"user": {"mobile": "123"}}, "attributes": [
        {"targetAttribute": "a", "default": "one"}, {"targetAttribute": "b", "cymmetrifield": "mobile"}]});
    let asked = invocation("provision", question);
    let decision = Decision::without_asking("i", builtin("preProvision").unwrap(), Some(&asked));
    assert_eq!(decision.values, Some(vec![json!("one"), json!("123")]));
    let mut soft = PointDef::clone(builtin("validateUser").unwrap());
    soft.on_failure = Some(Policy::AskDefault);
    for (default, verdict) in [("deny", Verdict::Deny), ("allow", Verdict::Allow)] {
        let asked = invocation("validateUser", json!({"object": {"user": {}}, "default": {"decision": default}}));
        assert_eq!(Decision::without_asking("i", &soft, Some(&asked)).decision, verdict);
    }
}

#[test]
fn the_wire_has_every_documented_member() {
    let decision = decide("validateUser", vec![hook(1, "validateUser", |_| {})], user(), &[("1", DENY)]);
    let wire: serde_json::Value = serde_json::from_slice(&decision.to_wire(&Lifted::default())).unwrap();
    for member in [
        "id",
        "point",
        "decision",
        "cause",
        "object",
        "patch",
        "value",
        "messages",
        "warnings",
        "degraded",
        "hooks",
        "budget_ms",
        "took_us",
        "gatepost_us",
    ] {
        assert!(wire.get(member).is_some(), "{member}");
    }
    let row = &wire["hooks"][0];
    assert_eq!(
        (&row["phase"], &row["result"], &row["status"], &row["conn"], &row["attempts"], &row["took_us"]),
        (&Json::from("validate"), &"deny".into(), &200.into(), &"reused".into(), &1.into(), &1_000.into())
    );
    assert_eq!(
        wire["messages"][0],
        json!({"severity":"error","code":"No","text":"No","hook":row["id"],"platform_code":"UTILSRVC.SCRIPT_CUSTOM_ERROR-NO"})
    );
    assert_eq!(
        serde_json::from_slice::<Decision>(&decision.to_wire(&Lifted::default())).unwrap().messages,
        decision.messages
    );
}

const POINTS: [&str; 9] = [
    "preCreateUser",
    "validateUser",
    "policyMap",
    "runDeprovision",
    "preProvision",
    "changePassword",
    "test",
    "createUser",
    "provision",
];

/// A few hooks on the phases of `name`, each with random settings.
fn hooks(name: &str, settings: &[(u32, u32, u8, bool)]) -> Vec<Arc<PlannedHook>> {
    let phases = operation(name).map_or_else(|| vec![name.to_owned()], |operation| operation.phases.clone());
    let one = |(i, (timeout, least, policy, flag)): (usize, &(u32, u32, u8, bool))| {
        hook(i as u8 + 1, &phases[i % phases.len()], |c| {
            (c.timeout_ms, c.min_timeout_ms) = (*timeout, (*least).min(*timeout));
            let policy = [Policy::Deny, Policy::Continue, Policy::AskDefault][usize::from(*policy % 3)].clone();
            c.on_failure = Some(OnFailure::always(policy));
            (c.stop_on_deny, c.status_deny) = (*flag, *flag);
            if *flag {
                c.may_change = Some(vec!["/user".parse().unwrap()]);
            }
        })
    };
    settings.iter().enumerate().map(one).collect()
}

proptest! {
    #[test]
    fn p9_whatever_receivers_do_there_is_an_answer_within_the_budget(
        name in proptest::sample::select(&POINTS[..]),
        settings in proptest::collection::vec((100u32..30_000, 1u32..2_000, any::<u8>(), any::<bool>()), 0..6),
        behaviour in proptest::collection::vec((0u8..8, 0u32..1_000), 1..8),
        caller in proptest::option::of(1u64..5_000),
    ) {
        let mut setup = setup(name, hooks(name, &settings));
        setup.budget = Budget::new(caller.map(ms), ms(3_000));
        let deadline = setup.budget.deadline();
        let body = match name {
            "provision" => json!({"object":{"user":{"login":"s"}},"attributes":[{"targetAttribute":"a"},{"targetAttribute":"b"}]}),
            _ => json!({"object":{"user":{"login":"s"}}}),
        };
        let mut chain = Chain::new(setup, invocation(name, body));
        let mut turn = 0;
        let decision = run(&mut chain, |call, began| {
            let (what, part) = behaviour[turn % behaviour.len()];
            turn += 1;
            let mut report = match what {
                0 => return failed(call, began, FailureClass::Timeout),
                1 => failed(call, began, FailureClass::Reset),
                2 => answered(call, began, 200, DENY),
                3 => answered(call, began, 200, r#"{"response":{"data":{"city":"x"},"mappedValue":"v"}}"#),
                4 => answered(call, began, 200, r#"{"response":{"data":true}}"#),
                5 => answered(call, began, 200, "<html>"),
                6 => answered(call, began, 409, ""),
                _ => answered(call, began, 200, "{}"),
            };
            report.ended = began + call.limit.mul_f64(f64::from(part) / 1_000.0);
            report
        });
        prop_assert!(Duration::from_micros(decision.took_us) <= deadline);
        prop_assert!(decision.gatepost_us <= decision.took_us);
        prop_assert_eq!(decision.decision == Verdict::Deny, !decision.messages.is_empty());
        // The same JSON for everybody, and nothing of it is lost on the way to the record and back.
        let wire = serde_json::to_string(&decision).unwrap();
        prop_assert_eq!(json!(serde_json::from_str::<Decision>(&wire).unwrap()), json!(decision));
    }

    #[test]
    fn a_value_or_gate_is_allowed_unless_refused(
        gate in any::<bool>(),
        answers in proptest::collection::vec(0u8..4, 1..4),
    ) {
        let name = if gate { "runDeprovision" } else { "policyMap" };
        let hooks = (0..answers.len()).map(|n| hook(n as u8 + 1, name, |_| {})).collect();
        let mut chain = Chain::new(setup(name, hooks), invocation(name, json!({"object":{"user":{}}})));
        let decision = run(&mut chain, |call, began| {
            let n: usize = call.hook.config.name.parse().unwrap();
            match answers[n - 1] {
                0 => failed(call, began, FailureClass::Connect),
                1 => answered(call, began, 200, r#"{"response":{"data":true,"mappedValue":"v"}}"#),
                2 => answered(call, began, 200, r#"{"response":{"data":false}}"#),
                _ => answered(call, began, 200, "[]"),
            }
        });
        prop_assert_eq!(decision.decision, Verdict::Allow);
        if gate {
            prop_assert_eq!(decision.value, json!(answers.iter().all(|a| *a == 1)));
        }
    }
}
