//! Behaviour 42: the same question asked again.

use gatepost_testkit::Gate;
use serde_json::json;

use super::{Stage, allow, deny, held, question, verdict};

const KEY: (&str, &str) = ("idempotency-key", "sign-up 17");

#[test]
fn b42_the_same_question_under_a_key_is_asked_once() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), deny("No"));
    let first = stage.ask_with("points/validateUser", &[KEY], question()).expect(200).json();
    assert_eq!(verdict(&first), ("deny", "receiver"));
    stage.receiver.script_path("/v", allow());
    let again = stage.ask_with("points/validateUser", &[KEY], question()).expect(200).json();
    assert_eq!(again, first);
    let mut other = question();
    other["object"]["user"]["login"] = json!("bob");
    let refused = stage.ask_with("points/validateUser", &[KEY], other.clone());
    refused.expect_problem(409, "idempotency_key_conflict");
    let fresh = stage.ask_with("points/validateUser", &[("idempotency-key", "18")], other).expect(200).json();
    assert_eq!(verdict(&fresh), ("allow", "receiver"));
    // Another point is another scope.
    let elsewhere = stage.ask_with("points/preCreateUser", &[KEY], question()).expect(200).json();
    assert_eq!(verdict(&elsewhere), ("allow", "no_hooks"));
    assert_eq!(stage.asked_at("/v").len(), 3, "the probe and two questions");
}

#[test]
fn b42_twins_of_a_question_under_way_get_its_decision() {
    let stage = Stage::new();
    let gate = Gate::new();
    stage.hook("v", "validateUser", json!({"timeout_ms": 20000}), held(allow(), &gate));
    stage.server.put("/v1/tenants/acme/points/validateUser", json!({"max_total_ms": 20000})).expect(200);
    std::thread::scope(|scope| {
        let ask = || {
            let mut client = stage.server.client();
            scope.spawn(move || {
                client
                    .send("POST", "/v1/tenants/acme/points/validateUser/invoke", &[KEY], question())
                    .expect(200)
                    .json()
            })
        };
        let first = ask();
        stage.receiver.wait_for_blocking(2);
        let twins: Vec<_> = (0..4).map(|_| ask()).collect();
        // Whether they have arrived or not, they get the one decision.
        gate.open();
        let decision = first.join().unwrap();
        for twin in twins {
            assert_eq!(twin.join().unwrap(), decision);
        }
    });
    assert_eq!(stage.asked_at("/v").len(), 2, "the probe and one question");
}
