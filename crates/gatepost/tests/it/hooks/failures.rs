//! Behaviours 17 to 24: each failure is told apart, breakers, retries, limits.

use gatepost_testkit::{ClosedPort, Gate, Script};
use serde_json::{Value, json};

use super::{Stage, allow, body, by_turns, deny, held, later, native, question, user, verdict};
use crate::harness::{text, wait_until};

#[test]
fn b17_every_class_has_its_policy_and_is_told_alike_everywhere() {
    let stage = Stage::new();
    let policy = json!({"default": "deny", "timeout": "continue", "status_4xx": "continue", "bad_json": "continue"});
    let members = json!({"on_failure": policy, "timeout_ms": 300});
    stage.hook("v", "validateUser", members, allow());
    let rows = [
        (Script::Hang, "timeout", "allow", "policy_on_failure", "continue"),
        (Script::status(404), "status_4xx", "allow", "policy_on_failure", "continue"),
        (Script::status(429), "status_429", "deny", "policy_on_failure", "deny"),
        (Script::status(500), "status_5xx", "deny", "policy_on_failure", "deny"),
        (Script::redirect("http://127.0.0.1/"), "redirect", "deny", "policy_on_failure", "deny"),
        (Script::Reset, "reset", "deny", "policy_on_failure", "deny"),
        (body("{"), "bad_json", "allow", "invalid_answer", "continue"),
        (body("[]"), "bad_shape", "deny", "invalid_answer", "deny"),
    ];
    for (script, class, decision, cause, applied) in rows {
        stage.receiver.script_path("/v", script);
        let found = stage.ask("validateUser", question());
        assert_eq!(verdict(&found), (decision, cause), "{class}: {found:#}");
        assert_eq!(
            (&found["degraded"][0]["failure"], &found["degraded"][0]["applied"]),
            (&json!(class), &json!(applied))
        );
        assert_eq!(found["hooks"][0]["failure"], class);
        let record = stage.record(&found);
        assert_eq!((&record["hooks"][0]["failure"], &record["cause"]), (&json!(class), &json!(cause)));
        let metrics = stage.server.get("/metrics").text();
        assert!(metrics.contains(&format!("gatepost_hook_failures_total{{class=\"{class}\"}} ")), "{class}\n{metrics}");
        // A good answer in between keeps the breaker shut.
        stage.receiver.script_path("/v", allow());
        assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "receiver"));
    }
}

#[test]
fn b17_connections_that_cannot_be_made_are_told_apart() {
    let stage = Stage::new();
    let hook = stage.hook("v", "validateUser", json!({}), allow());
    let closed = ClosedPort::new();
    // Moved while it is on trial: an enforced one would be tested first.
    stage.patch(&hook, json!({"mode": "observe", "url": format!("http://{}/", closed.addr())})).expect(200);
    let decision = stage.ask("validateUser", question());
    assert_eq!(verdict(&decision), ("allow", "no_hooks"));
    let trials = stage.trials(&decision, 1);
    assert_eq!((&trials[0]["would"], &trials[0]["result"]["failure"]), (&json!("fail_closed"), &json!("connect")));
    stage.patch(&hook, json!({"url": "https://no-such-name.invalid/"})).expect(200);
    let trials = stage.trials(&stage.ask("validateUser", question()), 1);
    assert_eq!(trials[0]["result"]["failure"], "dns", "{trials:?}");
}

#[test]
fn b18_a_breaker_opens_answers_at_once_and_is_closed_by_probes_alone() {
    let stage = Stage::new();
    let events = crate::harness::receiver();
    stage.server.webhook(super::TENANT, &events.url("/"), json!({"events": ["gatepost.hook.*"]}));
    let hook = stage.hook("v", "validateUser", json!({}), deny("No"));
    for _ in 0..8 {
        assert_eq!(verdict(&stage.ask("validateUser", question())), ("deny", "receiver"), "a refusal is an answer");
    }
    stage.receiver.script_path("/v", Script::status(500));
    for _ in 0..5 {
        assert_eq!(verdict(&stage.ask("validateUser", question())), ("deny", "policy_on_failure"));
    }
    let before = stage.asked_at("/v").len();
    let decision = stage.ask("validateUser", question());
    assert_eq!(
        (verdict(&decision), decision["hooks"][0]["failure"].as_str()),
        (("deny", "circuit_open"), Some("circuit_open"))
    );
    assert_eq!(decision["hooks"][0]["attempts"], 0);
    assert_eq!(stage.asked_at("/v").len(), before, "nobody was asked");
    assert_eq!(stage.show(&hook)["circuit"], "open");
    // The first probe fails, the second passes.
    stage.receiver.script_path("/v", by_turns(vec![Script::status(500), body("{}")]));
    let probes = wait_until("probes", || {
        let probes: Vec<Value> = stage.asked_at("/v")[before..].iter().map(|request| request.json()).collect();
        (probes.len() >= 2).then_some(probes)
    });
    assert!(probes.iter().all(|probe| probe["type"] == "hook.test"), "{probes:?}");
    wait_until("the breaker to close", || (stage.show(&hook)["circuit"] == "closed").then_some(()));
    stage.receiver.script_path("/v", allow());
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "receiver"));
    let told = events.wait_for_blocking(2);
    let types: Vec<_> = told.iter().map(|event| event.json()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types, ["gatepost.hook.circuit_opened", "gatepost.hook.circuit_closed"]);
    assert_eq!(told[0].json()["data"]["id"], json!(hook));
}

#[test]
fn b18_a_gate_whose_failure_means_no_is_asked_every_time() {
    let stage = Stage::new();
    stage.hook("g", "runDeprovision", json!({}), Script::status(500));
    for _ in 0..7 {
        assert_eq!(verdict(&stage.ask("runDeprovision", question())), ("allow", "policy_on_failure"));
    }
    assert_eq!(stage.asked_at("/g").len(), 8, "the probe and each question");
}

#[test]
fn b19_redirects_are_never_followed() {
    let stage = Stage::new();
    let other = crate::harness::receiver();
    stage.hook("v", "validateUser", json!({"on_failure": "continue"}), allow());
    for status in [301, 302, 307, 308] {
        stage.receiver.script_path("/v", Script::status(status).header("location", other.url("/elsewhere")));
        let decision = stage.ask("validateUser", question());
        assert_eq!(
            (decision["hooks"][0]["failure"].as_str(), decision["hooks"][0]["status"].as_u64()),
            (Some("redirect"), Some(status.into()))
        );
    }
    assert_eq!(other.count(), 0);
}

#[test]
fn b20_what_parses_is_read_whatever_its_content_type() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), allow());
    for content_type in ["text/html", "text/json", "application/octet-stream", ""] {
        let script = Script::with(move |request| {
            let id = request.json()["id"].clone();
            let answer = Script::status(200).body(json!({"id": id, "decision": "allow"}).to_string());
            if content_type.is_empty() { answer } else { answer.header("content-type", content_type) }
        });
        stage.receiver.script_path("/v", script);
        assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "receiver"), "{content_type}");
    }
}

#[test]
fn b21_a_call_is_repeated_only_where_nothing_can_be_doubled() {
    let stage = Stage::new();
    let hook = stage.hook("v", "validateUser", json!({"timeout_ms": 2500}), allow());
    let asked_with = |stage: &Stage, script: Script| {
        let before = stage.asked_at("/v").len();
        stage.receiver.script_path("/v", script);
        let decision = stage.ask("validateUser", question());
        let requests = stage.asked_at("/v").split_off(before);
        (decision, requests)
    };
    let (decision, requests) =
        asked_with(&stage, by_turns(vec![Script::status(503).header("retry-after", "1"), allow()]));
    assert_eq!((verdict(&decision), requests.len()), (("allow", "receiver"), 2), "503 with a wait that fits");
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    let attempts: Vec<_> = requests.iter().map(|request| request.header("gatepost-attempt").unwrap()).collect();
    assert_eq!((attempts, &decision["hooks"][0]["attempts"]), (vec!["1", "2"], &json!(2)));
    for (script, why) in [
        (by_turns(vec![Script::status(503), allow()]), "503 without a wait"),
        (by_turns(vec![Script::status(429).header("retry-after", "20"), allow()]), "a wait that does not fit"),
        (by_turns(vec![Script::status(500).header("retry-after", "1"), allow()]), "500"),
        (by_turns(vec![Script::status(400), allow()]), "400"),
    ] {
        let (decision, requests) = asked_with(&stage, script);
        assert_eq!((decision["decision"].as_str(), requests.len()), (Some("deny"), 1), "{why}");
    }
    stage.patch(&hook, json!({"timeout_ms": 300})).expect(200);
    let (decision, requests) = asked_with(&stage, by_turns(vec![Script::Hang, allow()]));
    assert_eq!((decision["hooks"][0]["failure"].as_str(), requests.len()), (Some("timeout"), 1));
}

#[test]
fn b22_a_caller_that_hangs_up_takes_its_questions_along() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({"timeout_ms": 20000}), Script::Hang);
    stage.server.put("/v1/tenants/acme/points/validateUser", json!({"max_total_ms": 25000})).expect(200);
    let before = stage.receiver.open_connections();
    let request = question().to_string();
    let head = format!(
        "POST /v1/tenants/acme/points/validateUser/invoke HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        crate::harness::ADMIN_KEY,
        request.len()
    );
    let stream = connect(&stage);
    std::io::Write::write_all(&mut &stream, format!("{head}{request}").as_bytes()).unwrap();
    stage.receiver.wait_for_blocking(2);
    drop(stream);
    // Long before the hook's own time is up the connection is given up, and the record says why.
    wait_until("the call to be dropped", || (stage.receiver.open_connections() <= before).then_some(()));
    let record = wait_until("the record", || {
        let rows = stage.server.all("/v1/tenants/acme/invocations");
        rows.into_iter().find(|row| row["abandoned"] == true)
    });
    let row = &record["hooks"][0];
    assert_eq!(
        (&row["result"], &row["attempts"], &record["cause"]),
        (&json!("cancelled"), &json!(1), &json!("receiver"))
    );
    assert!(row["took_us"].as_u64().unwrap() > 0, "it says that the hook was asked: {record:#}");
    assert!(record["took_us"].as_u64().unwrap() < 15_000_000);
}

#[expect(clippy::disallowed_methods, reason = "the client of the server under test, not the product")]
fn connect(stage: &Stage) -> std::net::TcpStream {
    std::net::TcpStream::connect(stage.server.addr()).expect("the server listens")
}

#[test]
fn b23_questions_wait_for_a_place_within_their_budget() {
    let stage = Stage::new();
    let gate = Gate::new();
    let hook = stage.hook("v", "validateUser", json!({"timeout_ms": 20000, "max_in_flight": 2}), held(allow(), &gate));
    stage.server.put("/v1/tenants/acme/points/validateUser", json!({"max_total_ms": 20000})).expect(200);
    assert_eq!(stage.show(&hook)["max_in_flight"], 2);
    std::thread::scope(|scope| {
        let ask = || {
            let mut client = stage.server.client();
            scope.spawn(move || {
                client.post("/v1/tenants/acme/points/validateUser/invoke", question()).expect(200).json()
            })
        };
        let first: Vec<_> = (0..2).map(|_| ask()).collect();
        stage.receiver.wait_for_blocking(3);
        let short = [("gatepost-timeout-ms", "200")];
        let decision = stage.ask_with("points/validateUser", &short, question()).expect(200).json();
        assert_eq!(
            (verdict(&decision), decision["hooks"][0]["failure"].as_str()),
            (("deny", "budget_exhausted"), Some("budget"))
        );
        assert!(decision["waited_us"].as_u64().unwrap() > 100_000, "{decision:#}");
        assert_eq!(stage.record(&decision)["waited_us"], decision["waited_us"]);
        // Another tenant is not concerned.
        stage.server.create_tenant("other");
        let other = stage.server.post("/v1/tenants/other/points/validateUser/invoke", question()).expect(200).json();
        assert_eq!(verdict(&other), ("allow", "no_hooks"));
        let later: Vec<_> = (0..6).map(|_| ask()).collect();
        gate.open();
        for caller in first.into_iter().chain(later) {
            assert_eq!(verdict(&caller.join().unwrap()), ("allow", "receiver"));
        }
    });
}

#[test]
fn three_hundred_questions_at_once_are_all_answered_by_a_receiver_that_takes_its_time() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({"timeout_ms": 20000}), later(allow(), 50));
    stage.server.put("/v1/tenants/acme/points/validateUser", json!({"max_total_ms": 30000})).expect(200);
    std::thread::scope(|scope| {
        let ask = || {
            let mut client = stage.server.client();
            scope.spawn(move || {
                client.post("/v1/tenants/acme/points/validateUser/invoke", question()).expect(200).json()
            })
        };
        let callers: Vec<_> = (0..300).map(|_| ask()).collect();
        for caller in callers {
            assert_eq!(verdict(&caller.join().unwrap()), ("allow", "receiver"));
        }
    });
    assert_eq!(stage.asked_at("/v").len(), 301);
}

#[test]
fn a_provision_of_a_hundred_attributes_is_answered_by_one_willing_hook() {
    let stage = Stage::new();
    let mapped = native(|question| json!({"value": format!("{}!", text(&question["context"], "targetAttribute"))}));
    stage.hook("m", "policyMap", json!({"timeout_ms": 20000}), later(mapped, 20));
    stage.server.put("/v1/tenants/acme/points/policyMap", json!({"max_total_ms": 30000})).expect(200);
    let attributes: Vec<_> = (0..100).map(|n| json!({"targetAttribute": format!("a{n}"), "default": "none"})).collect();
    let decision = stage.operate("provision", json!({"object": {"user": user()}, "attributes": attributes}));
    let expected: Vec<_> = (0..100).map(|n| json!(format!("a{n}!"))).collect();
    assert_eq!((verdict(&decision), &decision["values"]), (("allow", "receiver"), &json!(expected)));
    assert_eq!((&decision["degraded"], stage.asked_at("/m").len()), (&json!([]), 101));
    // What there is no time for is told, value by value.
    stage.server.put("/v1/tenants/acme/points/policyMap", json!({"max_total_ms": 300})).expect(200);
    let hook = text(&stage.server.all("/v1/tenants/acme/hooks")[0], "id");
    stage.patch(&hook, json!({"max_in_flight": 1, "timeout_ms": 200})).expect(200);
    stage.server.put("/v1/tenants/acme/points/preProvision", json!({"max_total_ms": 300})).expect(200);
    let decision = stage.operate("provision", json!({"object": {"user": user()}, "attributes": attributes}));
    let values = decision["values"].as_array().unwrap();
    let degraded = decision["degraded"].as_array().unwrap();
    assert!(!degraded.is_empty());
    for row in degraded {
        let n: usize = row["attribute"].as_str().unwrap()[1..].parse().unwrap();
        assert_eq!(values[n], "none", "{row}");
    }
    let had = values.iter().filter(|value| **value != "none").count();
    assert_eq!(had + degraded.len(), 100);
}

#[test]
fn b24_nobody_to_ask_is_an_answer_at_once() {
    let stage = Stage::new();
    let decision = stage.ask("validateUser", question());
    assert_eq!((verdict(&decision), decision["hooks"].as_array().unwrap().len()), (("allow", "no_hooks"), 0));
    let hook = stage.hook("v", "validateUser", json!({}), deny("No"));
    stage.patch(&hook, json!({"enabled": false})).expect(200);
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "no_hooks"));
    let picky = json!({"enabled": true, "conditions": {"pointer": "/user/country", "eq": "Nepal"}});
    stage.patch(&hook, picky).expect(200);
    let decision = stage.ask("validateUser", question());
    assert_eq!(verdict(&decision), ("allow", "no_hooks"));
    assert_eq!(decision["hooks"][0]["result"], "skipped_condition");
    assert!(decision["gatepost_us"].as_u64().unwrap() < 50_000);
}
