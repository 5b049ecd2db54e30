//! The chain, driven by receivers that are functions.

use std::collections::VecDeque;

use super::*;
use crate::Entropy;
use crate::HookId;
use crate::hooks::decision::{Decision, Verdict};
use crate::hooks::failure::OnFailure;
use crate::hooks::hook::{HookConfig, HookSecrets};
use crate::hooks::invocation::{Target, from_value};
use crate::hooks::json::json;
use crate::hooks::plan::sort;
use crate::hooks::points::{builtin, operation};
use crate::webhook::SigningKey;

mod operations;
mod time;
mod trust;

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Byte(u8);
impl Entropy for Byte {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

/// A hook in force; its name is its number, and its age too.
pub(super) fn hook(n: u8, point: &str, set: impl FnOnce(&mut HookConfig)) -> Arc<PlannedHook> {
    hook_at(n, builtin(point).unwrap(), set)
}

pub(super) fn hook_at(n: u8, point: &Arc<PointDef>, set: impl FnOnce(&mut HookConfig)) -> Arc<PlannedHook> {
    let mut config = HookConfig::new(n.to_string(), &point.name, "https://r.example.com/hook");
    (config.mode, config.profile) = (Mode::Enforce, "cymmetri".into());
    set(&mut config);
    assert_eq!(config.validate(Some(point)), []);
    let text = if config.profile == "cymmetri" { "a shared text of 24 bytes or more" } else { WHSEC };
    let signing = vec![SigningKey { text: Secret::new(text), created_at: NOW, expires_at: None }];
    let id = HookId::new(NOW, &Byte(n));
    let secrets = HookSecrets { signing, ..HookSecrets::default() };
    Arc::new(PlannedHook::new(id, Timestamp::from_secs(i64::from(n)), config, Arc::clone(point), secrets).unwrap())
}

pub(super) fn setup(name: &str, mut hooks: Vec<Arc<PlannedHook>>) -> Setup {
    sort(&mut hooks);
    let phases = operation(name).map_or_else(|| vec![name.to_owned()], |operation| operation.phases.clone());
    let point_of = |phase: &String| builtin(phase).cloned().unwrap_or_else(|| Arc::clone(&hooks[0].point));
    let stage = |phase: &String| Stage {
        point: point_of(phase),
        hooks: hooks.iter().filter(|hook| hook.point.name == *phase).cloned().collect(),
        enabled: true,
    };
    Setup {
        id: InvocationId::new(NOW, &Byte(9)),
        tenant: "acme".parse().unwrap(),
        time: NOW,
        name: name.to_owned(),
        stages: phases.iter().map(stage).collect(),
        budget: Budget::new(None, ms(3_000)),
        bypass: false,
        issuer: "https://gatepost.example.com".into(),
        hop: 0,
    }
}

pub(super) fn invocation(name: &str, body: Value) -> Invocation {
    match operation(name) {
        Some(operation) => from_value(body, Target::Operation(operation)).unwrap(),
        None => match builtin(name) {
            Some(point) => from_value(body, Target::Point(point)).unwrap(),
            None => from_value(body, Target::Point(&PointDef::new(name, PointKind::Mutate))).unwrap(),
        },
    }
}

pub(super) fn user() -> Value {
    json!({"request":{"user":{"login":"s","country":"India","assignedGroups":[]}}})
}

/// An answer after one millisecond.
pub(super) fn answered(call: &Call, began: Duration, status: u16, body: &str) -> Report {
    let answer =
        RawAnswer { status, body: Bytes::copy_from_slice(body.as_bytes()), sent_at: NOW, ..RawAnswer::default() };
    let ended = began + ms(1).min(call.limit);
    Report { outcome: Outcome::Answered(answer), started: began, ended, conn: Some(Conn::Reused), attempts: 1 }
}

/// A failure after all the time there was.
pub(super) fn failed(call: &Call, began: Duration, class: FailureClass) -> Report {
    let ended = began + call.limit;
    Report { outcome: Outcome::Failed(class.into()), started: began, ended, conn: None, attempts: 1 }
}

/// Runs a chain with receivers that are functions of the call; calls put together begin together
/// and are settled in the order they end.
pub(super) fn run(chain: &mut Chain, mut receiver: impl FnMut(&Call, Duration) -> Report) -> Decision {
    let mut now = Duration::ZERO;
    let mut flying: VecDeque<(usize, Report)> = VecDeque::new();
    loop {
        for call in chain.ready(now) {
            let report = receiver(&call, now);
            assert!(report.ended <= now + call.limit);
            flying.push_back((call.slot, report));
        }
        flying.make_contiguous().sort_by_key(|(_, report)| report.ended);
        let Some((slot, report)) = flying.pop_front() else { break };
        now = now.max(report.ended);
        if chain.settle(slot, report, NOW).cut {
            flying.clear();
        }
    }
    assert!(chain.is_done());
    chain.finish(now)
}

/// The invocation `body` of `name`, with each hook (by name) answering its text: a JSON answer, a
/// status, or the name of a failure.
pub(super) fn decide(name: &str, hooks: Vec<Arc<PlannedHook>>, body: Value, answers: &[(&str, &str)]) -> Decision {
    let mut chain = Chain::new(setup(name, hooks), invocation(name, body));
    run(&mut chain, |call, began| scripted(call, began, answers))
}

pub(super) fn scripted(call: &Call, began: Duration, answers: &[(&str, &str)]) -> Report {
    let name = call.hook.config.name.as_str();
    let text = answers.iter().find(|(who, _)| *who == name).map_or("{}", |(_, text)| text);
    if let Ok(status) = text.parse::<u16>() {
        return answered(call, began, status, "");
    }
    match FailureClass::ALL.iter().find(|class| class.as_str() == text) {
        Some(class) => failed(call, began, *class),
        None => answered(call, began, 200, text),
    }
}

pub(super) fn results(decision: &Decision) -> Vec<(&str, HookResult)> {
    decision.hooks.iter().map(|row| (row.name.as_str(), row.result)).collect()
}

pub(super) const DENY: &str = r#"{"response":{"error":true,"message":"No"}}"#;

#[test]
fn mutators_chain_in_order_of_order_age_and_id() {
    let hooks = vec![
        hook(3, "preCreateUser", |c| c.order = 50),
        hook(2, "preCreateUser", |_| {}),
        hook(1, "preCreateUser", |_| {}),
        hook(4, "preCreateUser", |c| c.order = -1),
    ];
    let mut seen = Vec::new();
    let mut chain = Chain::new(setup("preCreateUser", hooks), invocation("preCreateUser", user()));
    let decision = run(&mut chain, |call, began| {
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        let before = body["request"]["user"]["by"].as_str().unwrap_or("").to_owned();
        let by = before + &call.hook.config.name;
        seen.push(by.clone());
        answered(call, began, 200, &json!({"response":{"data":{"by":by}}}).to_string())
    });
    // Each sees what all before it left.
    assert_eq!(seen, ["4", "43", "431", "4312"]);
    assert_eq!(decision.object["user"]["by"], "4312");
    assert_eq!(json!(decision.patch), json!([{"op":"add","path":"/user/by","value":"4312"}]));
    assert_eq!((decision.decision, decision.cause), (Verdict::Allow, Cause::Receiver));
}

#[test]
fn all_denials_are_told_in_order_and_validators_see_the_final_object() {
    let hooks = vec![
        hook(1, "validateUser", |_| {}),
        hook(2, "validateUser", |_| {}),
        hook(3, "validateUser", |c| c.may_change = Some(vec!["/user/city".parse().unwrap()])),
        hook(4, "validateUser", |_| {}),
    ];
    let mut chain = Chain::new(setup("validateUser", hooks), invocation("validateUser", user()));
    let decision = run(&mut chain, |call, began| {
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        match call.hook.config.name.as_str() {
            // The one that may change something goes first.
            "3" => answered(call, began, 200, r#"{"response":{"data":{"city":"Delhi"}}}"#),
            name => {
                assert_eq!(body["request"]["user"]["city"], "Delhi");
                let mut report = answered(call, began, 200, if name == "4" { "{}" } else { DENY });
                // The first answers last.
                report.ended += if name == "1" { ms(20) } else { ms(0) };
                report
            }
        }
    });
    assert_eq!(decision.decision, Verdict::Deny);
    assert_eq!(decision.cause, Cause::Receiver);
    let ids: Vec<_> = decision.messages.iter().map(|m| m.hook).collect();
    assert_eq!(ids, [decision.hooks[1].id, decision.hooks[2].id]);
    assert_eq!(
        results(&decision),
        [("3", HookResult::Allow), ("1", HookResult::Deny), ("2", HookResult::Deny), ("4", HookResult::Allow)]
    );
}

#[test]
fn validators_that_may_not_change_are_asked_at_once() {
    let hooks = (1..=5).map(|n| hook(n, "validateUser", |_| {})).collect();
    let mut chain = Chain::new(setup("validateUser", hooks), invocation("validateUser", user()));
    assert_eq!(chain.ready(Duration::ZERO).len(), 5);
    assert!(chain.ready(Duration::ZERO).is_empty() && !chain.is_done());
}

#[test]
fn stop_on_deny_cuts_the_others_short() {
    let hooks = vec![hook(1, "validateUser", |c| c.stop_on_deny = true), hook(2, "validateUser", |_| {})];
    let mut chain = Chain::new(setup("validateUser", hooks), invocation("validateUser", user()));
    let calls = chain.ready(Duration::ZERO);
    let settled = chain.settle(calls[0].slot, answered(&calls[0], ms(0), 200, DENY), NOW);
    assert!(settled.cut && chain.is_done());
    // A late answer is not wanted.
    let late = chain.settle(calls[1].slot, answered(&calls[1], ms(0), 200, DENY), NOW);
    assert_eq!(late, Settled::default());
    let decision = chain.finish(ms(2));
    assert_eq!(results(&decision), [("1", HookResult::Deny), ("2", HookResult::Cancelled)]);
    assert_eq!((decision.messages.len(), decision.cause), (1, Cause::Receiver));
}

#[test]
fn a_mutators_refusal_ends_it() {
    let hooks = vec![hook(1, "preCreateUser", |_| {}), hook(2, "preCreateUser", |_| {})];
    let decision = decide("preCreateUser", hooks, user(), &[("1", DENY)]);
    assert_eq!((decision.decision, results(&decision)), (Verdict::Deny, vec![("1", HookResult::Deny)]));
    let message = &decision.messages[0];
    assert_eq!(
        (message.code.as_str(), message.platform_code.as_deref()),
        ("No", Some("UTILSRVC.SCRIPT_CUSTOM_ERROR-NO"))
    );
}

#[test]
fn a_forbidden_change_refuses_the_whole_answer_and_is_named() {
    for (answer, place) in [
        (r#"{"response":{"data":{"city":"x","login":"root"}}}"#, "/user/login"),
        (r#"{"response":{"data":{"assignedGroups":["admins"],"city":"x"}}}"#, "/user/assignedGroups"),
    ] {
        let decision = decide("preCreateUser", vec![hook(1, "preCreateUser", |_| {})], user(), &[("1", answer)]);
        // The policy of a mutator is to go on; nothing of the answer is kept.
        assert_eq!((decision.decision, decision.cause), (Verdict::Allow, Cause::InvalidAnswer));
        assert_eq!(decision.object, user()["request"]);
        assert_eq!(decision.hooks[0].detail.as_deref(), Some(place));
        assert_eq!(
            json!(decision.degraded),
            json!([{"hook":decision.hooks[0].id,"failure":"not_allowed_change","applied":"continue"}])
        );
    }
    // A validator's policy is to refuse.
    let decision = decide(
        "validateUser",
        vec![hook(1, "validateUser", |_| {})],
        user(),
        &[("1", r#"{"response":{"data":{"city":"x"}}}"#)],
    );
    assert_eq!((decision.decision, decision.cause), (Verdict::Deny, Cause::InvalidAnswer));
    assert_eq!(decision.messages[0].code, "gatepost_not_allowed_change");
    assert_eq!(decision.degraded[0].applied, "deny");
}

#[test]
fn an_unchanged_answer_is_unchanged_however_it_is_written() {
    let body = json!({"request":{"user":{"n":1,"login":"s","deep":{"a":[1,2.0]}}}});
    let answer = "{ \"response\" : {\"data\": {\"deep\":{\"a\":[1.0,2]},\n\"login\":\"s\",\"n\":1.0}}}";
    let decision = decide("preCreateUser", vec![hook(1, "preCreateUser", |_| {})], body.clone(), &[("1", answer)]);
    assert_eq!(results(&decision), [("1", HookResult::Unchanged)]);
    assert_eq!((decision.patch.len(), decision.object), (0, body["request"].clone()));
}

#[test]
fn a_value_is_the_first_that_is_given() {
    let map =
        json!({"request":{"targetAttribute":"m","cymmetrifield":"email","defaultValue":"d","user":{"email":"a@x"}}});
    let value = |text: &str| format!(r#"{{"response":{{"mappedValue":{text}}}}}"#);
    let rows: [(&str, &str, Value, Cause); 9] = [
        (&value("null"), &value("\"b\""), json!("b"), Cause::Receiver),
        (&value("\"\""), &value("\"b\""), json!(""), Cause::Receiver),
        ("{}", "{}", json!("d"), Cause::Receiver),
        // A failure is the default, unless the hook says to ask on.
        ("timeout", &value("\"b\""), json!("d"), Cause::PolicyOnFailure),
        ("circuit_open", &value("\"b\""), json!("d"), Cause::CircuitOpen),
        ("<html>", &value("\"b\""), json!("d"), Cause::InvalidAnswer),
        ("500", &value("\"b\""), json!("d"), Cause::PolicyOnFailure),
        (&value("\"a\""), "timeout", json!("a"), Cause::Receiver),
        ("{}", "timeout", json!("d"), Cause::PolicyOnFailure),
    ];
    for (first, second, expected, cause) in rows {
        let hooks = vec![hook(1, "policyMap", |_| {}), hook(2, "policyMap", |_| {})];
        let decision = decide("policyMap", hooks, map.clone(), &[("1", first), ("2", second)]);
        assert_eq!((decision.decision, decision.value, decision.cause), (Verdict::Allow, expected, cause), "{first}");
    }
    let asks_on = |policy| hook(1, "policyMap", move |c| c.on_failure = Some(OnFailure::always(policy)));
    let hooks = vec![asks_on(Policy::Continue), hook(2, "policyMap", |_| {})];
    let decision = decide("policyMap", hooks, map.clone(), &[("1", "timeout"), ("2", &value("\"b\""))]);
    assert_eq!((decision.value, decision.cause, decision.degraded.len()), (json!("b"), Cause::Receiver, 1));
    let decision = decide("policyMap", vec![asks_on(Policy::Value("v".into()))], map.clone(), &[("1", "dns")]);
    assert_eq!((decision.value, decision.cause), (json!("v"), Cause::PolicyOnFailure));
    let decision = decide("policyMap", vec![asks_on(Policy::Deny)], map.clone(), &[("1", "dns")]);
    assert_eq!((decision.decision, decision.value), (Verdict::Deny, Value::Null));
    let decision = decide("policyMap", vec![hook(1, "policyMap", |_| {})], map.clone(), &[("1", DENY)]);
    assert_eq!((decision.decision, decision.value, decision.cause), (Verdict::Deny, Value::Null, Cause::Receiver));
    // Nobody is asked: the default, and where it is empty the user's own field.
    let nobody = decide("policyMap", vec![], map.clone(), &[]);
    assert_eq!((nobody.value, nobody.cause), (json!("d"), Cause::NoHooks));
    let mut empty = map;
    empty["request"]["defaultValue"] = json!("");
    assert_eq!(decide("policyMap", vec![], empty, &[]).value, json!("a@x"));
}

#[test]
fn a_gate_opens_only_for_yes() {
    let (yes, no) = (r#"{"response":{"data":true}}"#, r#"{"response":{"data":false}}"#);
    let rows: [(&[&str], bool, Cause); 8] = [
        (&[yes, yes], true, Cause::Receiver),
        (&[yes, no], false, Cause::Receiver),
        (&[yes, "timeout"], false, Cause::PolicyOnFailure),
        (&[no, "timeout"], false, Cause::Receiver),
        (&["{}"], false, Cause::InvalidAnswer),
        (&["204"], false, Cause::InvalidAnswer),
        (&["503"], false, Cause::PolicyOnFailure),
        (&[], false, Cause::NoHooks),
    ];
    for (answers, open, cause) in rows {
        let names = ["1", "2"];
        let hooks = (1..=answers.len()).map(|n| hook(n as u8, "runDeprovision", |_| {})).collect();
        let script: Vec<_> = names.iter().copied().zip(answers.iter().copied()).collect();
        let decision = decide("runDeprovision", hooks, user(), &script);
        assert_eq!((decision.value, decision.cause), (json!(open), cause), "{answers:?}");
        assert_eq!(decision.decision, Verdict::Allow);
    }
    let soft = |policy| vec![hook(1, "runDeprovision", move |c| c.on_failure = Some(OnFailure::always(policy)))];
    let asked = json!({"object":{"user":{}},"default":{"value":true}});
    for (policy, open) in [(Policy::AskDefault, true), (Policy::Continue, true), (Policy::Value(true.into()), true)] {
        assert_eq!(decide("runDeprovision", soft(policy), asked.clone(), &[("1", "timeout")]).value, json!(open));
    }
    let refused = decide("runDeprovision", soft(Policy::Deny), asked, &[("1", "timeout")]);
    assert_eq!((refused.decision, refused.value), (Verdict::Deny, json!(false)));
}

#[test]
fn each_class_of_failure_has_its_policy_and_its_cause_everywhere() {
    for class in FailureClass::ALL {
        for (policy, verdict) in [(Policy::Deny, Verdict::Deny), (Policy::Continue, Verdict::Allow)] {
            let other = if policy == Policy::Deny { "continue" } else { "deny" };
            let map = json!({"default": other, class.as_str(): policy.as_str()});
            let one = hook(1, "validateUser", |c| c.on_failure = Some(serde_json::from_value(map.readable()).unwrap()));
            let decision = decide("validateUser", vec![one], user(), &[("1", class.as_str())]);
            assert_eq!((decision.decision, decision.cause), (verdict, class.cause()), "{class}");
            assert_eq!(decision.hooks[0].failure, Some(*class));
            assert_eq!(
                (decision.degraded[0].failure, decision.degraded[0].applied.as_str()),
                (*class, policy.as_str())
            );
        }
    }
}

#[test]
fn a_receivers_refusal_outranks_every_failure() {
    let hooks = vec![hook(1, "validateUser", |_| {}), hook(2, "validateUser", |_| {})];
    let decision = decide("validateUser", hooks, user(), &[("1", "timeout"), ("2", DENY)]);
    assert_eq!((decision.cause, decision.messages.len(), decision.degraded.len()), (Cause::Receiver, 2, 1));
    // Of two failures, the one that refuses is the cause, not the one that was passed over.
    let open = hook(1, "validateUser", |c| c.on_failure = Some(OnFailure::always(Policy::Continue)));
    let decision =
        decide("validateUser", vec![open, hook(2, "validateUser", |_| {})], user(), &[("1", "timeout"), ("2", "[]")]);
    assert_eq!((decision.decision, decision.cause), (Verdict::Deny, Cause::InvalidAnswer));
}

#[test]
fn ask_default_may_refuse_elsewhere() {
    let asks = || vec![hook(1, "validateUser", |c| c.on_failure = Some(OnFailure::always(Policy::AskDefault)))];
    for (default, verdict) in [(json!({"decision":"deny"}), Verdict::Deny), (json!({}), Verdict::Allow)] {
        let decision = decide("validateUser", asks(), json!({"object":{"user":{}},"default":default}), &[("1", "dns")]);
        assert_eq!((decision.decision, decision.degraded[0].applied.as_str()), (verdict, "ask_default"));
    }
}

#[test]
fn who_is_not_asked() {
    let never = json!({"pointer":"/user/country","eq":"Nepal"});
    let conditional = || hook(1, "validateUser", |c| c.conditions = Some(never.readable()));
    let off = hook(2, "validateUser", |c| c.mode = Mode::Off);
    let disabled = hook(3, "validateUser", |c| c.enabled = false);
    let decision = decide("validateUser", vec![conditional(), off, disabled], user(), &[]);
    assert_eq!((decision.decision, decision.cause), (Verdict::Allow, Cause::NoHooks));
    assert_eq!(results(&decision), [("1", HookResult::SkippedCondition)]);
    // What cannot be judged is a failure, and nobody is called.
    let unclear = hook(1, "validateUser", |c| {
        c.conditions = Some(serde_json::json!({"pointer":"/user/assignedGroups","prefix":"a"}))
    });
    let decision = decide("validateUser", vec![unclear], user(), &[]);
    assert_eq!((decision.decision, decision.hooks[0].failure), (Verdict::Deny, Some(FailureClass::ConditionError)));
    assert_eq!(decision.hooks[0].attempts, 0);
    // Kill switches.
    for (bypass, enabled) in [(true, true), (false, false)] {
        let mut setup = setup("validateUser", vec![hook(1, "validateUser", |_| {})]);
        (setup.bypass, setup.stages[0].enabled) = (bypass, enabled);
        let mut chain = Chain::new(setup, invocation("validateUser", user()));
        assert!(chain.ready(Duration::ZERO).is_empty() && chain.is_done());
        let decision = chain.finish(Duration::ZERO);
        assert_eq!(
            (decision.decision, decision.cause, decision.hooks.len()),
            (Verdict::Allow, Cause::HooksDisabled, 0)
        );
    }
}

#[test]
fn dry_runs_ask_only_those_without_side_effects() {
    use crate::hooks::hook::SideEffects;
    let hooks = vec![
        hook(1, "validateUser", |_| {}),
        hook(2, "validateUser", |c| c.side_effects = SideEffects::None),
        hook(3, "validateUser", |c| {
            c.side_effects = SideEffects::NoneOnDryRun;
            c.profile = "gatepost".into();
        }),
    ];
    let mut chain = Chain::new(
        setup("validateUser", hooks),
        invocation("validateUser", json!({"object":{"user":{}},"dry_run":true})),
    );
    let decision = run(&mut chain, |call, began| {
        let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        if call.hook.config.name == "3" {
            assert_eq!(body["dry_run"], true);
            return answered(call, began, 200, &json!({"id":body["id"],"decision":"allow"}).to_string());
        }
        answered(call, began, 200, "{}")
    });
    assert_eq!(
        results(&decision),
        [("1", HookResult::SkippedSideEffects), ("2", HookResult::Allow), ("3", HookResult::Allow)]
    );
    assert!(decision.dry_run);
    assert_eq!(serde_json::from_slice::<Value>(&decision.to_wire(chain.secrets())).unwrap()["dry_run"], true);
}

#[test]
fn hooks_on_trial_change_nothing() {
    use crate::hooks::observe::Would;
    let trial = |n, set: fn(&mut HookConfig)| {
        hook(n, "validateUser", move |c| {
            c.mode = Mode::Observe;
            set(c);
        })
    };
    let never = |c: &mut HookConfig| c.conditions = Some(serde_json::json!({"pointer":"/user/country","eq":"Nepal"}));
    let open = |c: &mut HookConfig| c.on_failure = Some(OnFailure::always(Policy::Continue));
    let change = |c: &mut HookConfig| c.may_change = Some(vec!["/user".parse().unwrap()]);
    let hooks = vec![
        hook(1, "validateUser", |_| {}),
        trial(2, |_| {}),
        trial(3, |_| {}),
        trial(4, open),
        trial(5, never),
        trial(6, change),
        trial(7, |_| {}),
    ];
    let mut chain = Chain::new(setup("validateUser", hooks), invocation("validateUser", user()));
    let decision = run(&mut chain, |call, began| {
        assert_eq!(call.hook.config.name, "1");
        answered(call, began, 200, "{}")
    });
    assert_eq!((decision.decision, decision.cause), (Verdict::Allow, Cause::Receiver));
    let beside = decision.hooks[1..].iter().all(|row| row.result == HookResult::Observing && row.mode == Mode::Observe);
    assert!(beside && decision.hooks.len() == 7);
    let answers =
        [("2", DENY), ("3", "timeout"), ("4", "timeout"), ("6", r#"{"response":{"data":{"city":"x"}}}"#), ("7", "{}")];
    let mut seen = Vec::new();
    for mut trial in chain.observers() {
        let Some(call) = trial.call() else { continue };
        let name = call.hook.config.name.clone();
        let report = scripted(&call, Duration::ZERO, &answers);
        let observed = trial.judge(call.slot, report, NOW);
        seen.push((name, observed.would, observed.would_deny()));
    }
    let expected = [
        ("2", Would::Deny, true),
        ("3", Would::FailClosed, true),
        ("4", Would::FailOpen, false),
        ("6", Would::Change, false),
        ("7", Would::Allow, false),
    ];
    assert_eq!(seen, expected.map(|(name, would, deny)| (name.to_owned(), would, deny)));
}

#[test]
fn headers_of_an_attempt() {
    let mut setup = setup("validateUser", vec![hook(1, "validateUser", |c| c.profile = "gatepost".into())]);
    setup.hop = 2;
    setup.budget = Budget::new(Some(ms(50)), ms(3_000));
    let mut chain = Chain::new(setup, invocation("validateUser", user()));
    let call = chain.ready(ms(1)).remove(0);
    let headers = call.headers((2, false), Duration::from_micros(43_900), NOW);
    let get = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.expose().to_owned());
    // Cut, not rounded: and never above what the caller gave.
    assert_eq!(call.limit, ms(44));
    assert_eq!(get("gatepost-timeout-ms").as_deref(), Some("43"));
    assert_eq!(get("gatepost-attempt").as_deref(), Some("2"));
    assert_eq!(get("gatepost-hop").as_deref(), Some("3"));
    assert_eq!(get("gatepost-point").as_deref(), Some("validateUser"));
    assert_eq!(get("webhook-id"), Some(call.message_id.clone()));
    assert_eq!(
        get("webhook-id"),
        call.headers((1, false), ms(1), NOW)
            .iter()
            .find(|(n, _)| n == "webhook-id")
            .map(|(_, v)| v.expose().to_owned())
    );
}

#[test]
fn a_tenants_own_point() {
    let mut own = PointDef::new("beforeBadge", PointKind::Mutate);
    own.object_members = vec!["badge".into()];
    own.secret_pointers = vec!["/badge/pin".parse().unwrap()];
    let own = Arc::new(own);
    let asked = hook_at(1, &own, |c| c.may_change = Some(vec!["/badge".parse().unwrap()]));
    let body = json!({"request":{"badge":{"colour":"red","pin":"123456"},"door":7}});
    let invocation = from_value(body, Target::Point(&own)).unwrap();
    let mut chain = Chain::new(setup("beforeBadge", vec![asked]), invocation);
    let decision = run(&mut chain, |call, began| {
        assert_eq!(call.hook.endpoint, "https://r.example.com/hook/beforeBadge");
        assert_eq!(
            serde_json::from_slice::<Value>(&call.body).unwrap(),
            json!({"request":{"badge":{"colour":"red"},"door":7}})
        );
        answered(call, began, 200, r#"{"response":{"data":{"colour":"blue"}}}"#)
    });
    assert_eq!(decision.object, json!({"badge":{"colour":"blue"}}));
    let wire: serde_json::Value = serde_json::from_slice(&decision.to_wire(chain.secrets())).unwrap();
    assert_eq!(wire["object"]["badge"], json!({"colour":"blue","pin":"123456"}));
}
