//! Behaviours 13 to 16: nothing outlives the budget, and it is shared out fairly.

use gatepost_testkit::Script;
use serde_json::json;
use tokio::time::Instant;

use super::{Stage, allow, millis, question, verdict};

#[test]
fn b13_p9_hanging_hooks_that_may_fail_leave_an_answer_within_the_budget() {
    let stage = Stage::new();
    for name in ["a", "b", "c", "d"] {
        stage.hook(name, "preCreateUser", json!({"timeout_ms": 30000}), Script::Hang);
    }
    let began = Instant::now();
    let reply = stage.ask_with("points/preCreateUser", &[("gatepost-timeout-ms", "600")], question());
    let decision = reply.expect(200).json();
    assert!(began.elapsed() < millis(1_500), "{:?}", began.elapsed());
    assert_eq!((verdict(&decision), &decision["budget_ms"]), (("allow", "policy_on_failure"), &json!(600)));
    // With what a busy machine takes to wake somebody.
    assert!(decision["took_us"].as_u64().unwrap() <= 700_000, "{decision:#}");
    assert_eq!(decision["degraded"].as_array().unwrap().len(), 4);
}

#[test]
fn b14_a_slow_hook_that_may_fail_leaves_a_required_one_its_reserve() {
    let stage = Stage::new();
    stage.hook("slow", "preCreateUser", json!({"timeout_ms": 30000, "order": 1}), Script::Hang);
    let required = json!({"order": 2, "on_failure": "deny", "min_timeout_ms": 400});
    stage.hook("required", "preCreateUser", required, allow());
    let reply = stage.ask_with("points/preCreateUser", &[("gatepost-timeout-ms", "1500")], question());
    let decision = reply.expect(200).json();
    assert_eq!(decision["hooks"][0]["failure"], "timeout");
    assert_eq!(
        (decision["decision"].as_str(), decision["hooks"][1]["result"].as_str()),
        (Some("allow"), Some("unchanged"))
    );
    let told: u64 = stage.asked_at("/required")[1].header("gatepost-timeout-ms").unwrap().parse().unwrap();
    assert!((300..=410).contains(&told), "{told}");
}

#[test]
fn b15_the_callers_time_is_honoured_and_nonsense_is_refused() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), Script::Hang);
    let began = Instant::now();
    let decision =
        stage.ask_with("points/validateUser", &[("gatepost-timeout-ms", "150")], question()).expect(200).json();
    assert!(began.elapsed() < millis(1_000));
    assert_eq!((verdict(&decision), &decision["budget_ms"]), (("deny", "policy_on_failure"), &json!(150)));
    let told: u64 = stage.asked_at("/v")[1].header("gatepost-timeout-ms").unwrap().parse().unwrap();
    assert!(told <= 145, "the receiver has no more than is left: {told}");
    for bad in ["0", "-5", "soon", "1.5", "+5"] {
        let reply = stage.ask_with("points/validateUser", &[("gatepost-timeout-ms", bad)], question());
        reply.expect_problem(400, "invalid_header");
    }
    stage.receiver.script_path("/v", allow());
    let huge = [("gatepost-timeout-ms", "99999999999999999999")];
    let decision = stage.ask_with("points/validateUser", &huge, question()).expect(200).json();
    assert_eq!(decision["budget_ms"], 3_000, "the point's own");
    stage.server.put("/v1/tenants/acme/points/validateUser", json!({"max_total_ms": 200})).expect(200);
    assert_eq!(stage.ask("validateUser", question())["budget_ms"], 200);
}

#[test]
fn b16_an_answer_that_drips_is_cut_at_the_deadline() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({"timeout_ms": 300}), Script::DripBody(millis(100)));
    for script in [Script::DripBody(millis(100)), Script::StallBody, Script::Drip(millis(100))] {
        let name = format!("{script:?}");
        stage.receiver.script_path("/v", script);
        let began = Instant::now();
        let decision = stage.ask("validateUser", question());
        assert!(began.elapsed() < millis(1_200), "{name}: {:?}", began.elapsed());
        assert_eq!(decision["hooks"][0]["failure"], "timeout", "{name}: {decision:#}");
    }
}
