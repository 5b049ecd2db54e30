//! Behaviours 34 to 40, 44 and 45: what keeps hooks from doing harm.

use std::sync::atomic::{AtomicBool, Ordering};

use gatepost_testkit::Script;
use serde_json::{Value, json};

use super::{Stage, TENANT, allow, body, deny, native, question, user, verdict};
use crate::harness::{Options, text, wait_until};

#[test]
fn b34_p9_no_hook_can_stop_anybody_from_managing_gatepost() {
    let stage = Stage::new();
    let points = stage.server.all("/v1/tenants/acme/points");
    let mut hooks = Vec::new();
    for (i, point) in points.iter().filter(|point| point["kind"] != "event").enumerate() {
        let (name, point) = (format!("h{i}"), text(point, "name"));
        let members = json!({"on_failure": "deny"});
        hooks.push(stage.hook(&name, &point, members, Script::Hang));
    }
    assert!(hooks.len() >= 9);
    let server = &stage.server;
    server.put("/v1/tenants/acme", json!({"name": "Acme"})).expect(200);
    let key = server.create_key(&["manage"], Some(TENANT));
    let mut manager = server.client_with(&key);
    manager.get("/v1/tenants/acme/hooks").expect(200);
    let webhook = server.create_webhook(TENANT, &stage.receiver.url("/w"), json!({}));
    server.delete(&format!("/v1/tenants/acme/webhooks/{}", text(&webhook, "id"))).expect(204);
    for hook in &hooks {
        manager.patch(&format!("/v1/tenants/acme/hooks/{hook}"), json!({"enabled": false})).expect(200);
    }
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "no_hooks"));
    for hook in &hooks {
        manager.delete(&format!("/v1/tenants/acme/hooks/{hook}")).expect(204);
    }
    let probes = stage.receiver.received().iter().filter(|r| r.path.starts_with("/h")).count();
    assert_eq!(probes, hooks.len(), "nothing of it asked a hook: each got its first test alone");
}

#[test]
fn b35_every_kill_switch_holds_from_the_next_invocation_on_and_leaves_a_trace() {
    let mut stage = Stage::new();
    let hook = stage.hook("v", "validateUser", json!({}), deny("No"));
    let refused = ("deny", "receiver");
    assert_eq!(verdict(&stage.ask("validateUser", question())), refused);
    let point = "/v1/tenants/acme/points/validateUser";
    let rows: [(&str, &str, Value, Value, &str); 3] = [
        (
            "PATCH",
            &format!("/v1/tenants/acme/hooks/{hook}"),
            json!({"enabled": false}),
            json!({"enabled": true}),
            "no_hooks",
        ),
        ("PUT", point, json!({"enabled": false}), json!({"enabled": true}), "hooks_disabled"),
        (
            "PUT",
            "/v1/tenants/acme",
            json!({"settings": {"hooks": "bypass"}}),
            json!({"settings": {"hooks": "enabled"}}),
            "hooks_disabled",
        ),
    ];
    for (method, path, off, on, cause) in rows {
        stage.server.send(method, path, &[], off).expect(200);
        let decision = stage.ask("validateUser", question());
        assert_eq!(verdict(&decision), ("allow", cause), "{path}");
        assert_eq!(stage.record(&decision)["cause"], cause);
        stage.server.send(method, path, &[], on).expect(200);
        assert_eq!(verdict(&stage.ask("validateUser", question())), refused, "{path}");
    }
    let file = stage.server.data_dir().join("hooks.bypass");
    std::fs::write(&file, "").unwrap();
    wait_until("the file to be seen", || {
        (verdict(&stage.ask("validateUser", question())) == ("allow", "hooks_disabled")).then_some(())
    });
    std::fs::remove_file(&file).unwrap();
    wait_until("its end to be seen", || (verdict(&stage.ask("validateUser", question())) == refused).then_some(()));
    let said = stage.server.said();
    for line in ["a hook is switched", "a point is switched", "blocking hooks of a tenant are switched"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    stage.server.restart_with(Options::default().env("GATEPOST_HOOKS", "bypass"));
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "hooks_disabled"));
    stage.server.restart_with(Options::default());
    assert_eq!(verdict(&stage.ask("validateUser", question())), refused);
}

#[test]
fn b36_hooks_on_trial_change_nothing_and_tell_what_they_would_have_done() {
    let stage = Stage::new();
    stage.receiver.script_path("/t", deny("No"));
    let made = stage.register(&stage.receiver.url("/t"), "validateUser", json!({"mode": "observe"}));
    let hook = text(&made, "id");
    let decision = stage.ask("validateUser", question());
    assert_eq!(verdict(&decision), ("allow", "no_hooks"));
    assert_eq!(decision["hooks"][0]["result"], "observing");
    assert_eq!(stage.trials(&decision, 1)[0]["would"], "deny");
    let slow = super::later(deny("No"), 600);
    stage.receiver.script_path("/t", slow);
    let decision = stage.ask("validateUser", question());
    assert!(decision["took_us"].as_u64().unwrap() < 500_000, "nobody waits for it: {decision:#}");
    stage.trials(&decision, 1);
    stage.receiver.script_path("/t", Script::status(500));
    stage.trials(&stage.ask("validateUser", question()), 1);
    let counters = wait_until("counters", || {
        let counters = stage.show(&hook)["counters"].clone();
        (counters["observed"] == 3).then_some(counters)
    });
    assert_eq!(
        (&counters["would_deny"], &counters["would_fail"], &counters["asked"]),
        (&json!(3), &json!(1), &json!(0))
    );
    stage.receiver.script_path("/t", native(|_| json!({"decision": "allow"})));
    assert_eq!(stage.trials(&stage.ask("validateUser", question()), 1)[0]["would"], "allow");
}

#[test]
fn b37_a_hook_is_enforced_only_after_its_receiver_passed() {
    let stage = Stage::new();
    stage.receiver.script_path("/v", Script::status(500));
    let url = stage.receiver.url("/v");
    let refused = stage.try_register(&url, "validateUser", json!({})).expect_problem(409, "hook_unverified");
    assert!(refused.text().contains("status_5xx"), "{refused:?}");
    assert_eq!(stage.server.all("/v1/tenants/acme/hooks"), Vec::<Value>::new(), "nothing changed");
    let made = stage.register(&url, "validateUser", json!({"mode": "observe"}));
    let hook = text(&made, "id");
    assert_eq!((&made["verified"], &made["last_test"]), (&json!(false), &Value::Null));
    stage.patch(&hook, json!({"mode": "enforce", "name": "renamed"})).expect_problem(409, "hook_unverified");
    let shown = stage.show(&hook);
    assert_eq!((&shown["mode"], &shown["name"]), (&json!("observe"), &json!("test")));
    let try_it =
        |stage: &Stage| stage.server.post(&format!("/v1/tenants/acme/hooks/{hook}/try"), ()).expect(200).json();
    let tried = try_it(&stage);
    assert_eq!(
        (&tried["passed"], &tried["verified"], &tried["test"]["failure"]),
        (&json!(false), &json!(false), &json!("status_5xx"))
    );
    stage.receiver.script_path("/v", body("{}"));
    let tried = try_it(&stage);
    assert_eq!((&tried["passed"], &tried["verified"]), (&json!(true), &json!(true)));
    assert_eq!(tried["request"]["headers"]["gatepost-point"], "test");
    assert_eq!(stage.show(&hook)["last_test"]["passed"], true);
    stage.patch(&hook, json!({"mode": "enforce"})).expect(200);
    // Another address, or another secret, is to be tested first.
    stage.receiver.script_path("/w", Script::status(404));
    stage.patch(&hook, json!({"url": stage.receiver.url("/w")})).expect_problem(409, "hook_unverified");
    assert_eq!(stage.show(&hook)["url"], stage.receiver.url("/v"));
    stage.patch(&hook, json!({"mode": "observe", "url": stage.receiver.url("/w")})).expect(200);
    assert_eq!(stage.show(&hook)["verified"], false);
    stage.patch(&hook, json!({"url": stage.receiver.url("/v")})).expect(200);
    try_it(&stage);
    stage.patch(&hook, json!({"secret": "whsec_aW1wb3J0ZWQgc2VjcmV0IG9mIHRoaXJ0eSBieXRlcyE="})).expect(200);
    assert_eq!(stage.show(&hook)["verified"], false);
    // Whatever else changes, what was tested stays tested.
    try_it(&stage);
    stage.patch(&hook, json!({"order": 5, "timeout_ms": 500})).expect(200);
    assert_eq!(stage.show(&hook)["verified"], true);
}

/// A receiver that knows one answer only, and that one no: it is there, and may be enforced.
#[test]
fn b37_a_refusal_is_an_answer_to_the_probe_too() {
    let stage = Stage::new();
    for (profile, path, answer) in [
        ("gatepost", "/no", deny("Never")),
        ("cymmetri", "/c/test", body(r#"{"response":{"error":true,"message":"Never"}}"#)),
    ] {
        stage.receiver.script_path(path, answer.clone());
        stage.receiver.script_path("/c/validateUser", answer);
        let url = stage.receiver.url(path.trim_end_matches("/test"));
        let made = stage.register(&url, "validateUser", json!({ "profile": profile }));
        assert_eq!((&made["verified"], &made["mode"]), (&json!(true), &json!("enforce")));
        let decision = stage.ask("validateUser", question());
        assert_eq!(decision["decision"], "deny");
        assert_eq!(decision["messages"][0]["code"], "Never", "{decision:#}");
        stage.server.delete(&format!("/v1/tenants/acme/hooks/{}", text(&made, "id"))).expect(204);
    }
}

#[test]
fn b38_a_dry_run_asks_the_harmless_alone_and_decides_nothing() {
    let stage = Stage::new();
    stage.hook("harmless", "validateUser", json!({"side_effects": "none"}), deny("No"));
    stage.hook("harmful", "validateUser", json!({}), deny("No"));
    let mut dry = question();
    dry["dry_run"] = json!(true);
    let decision = stage.ask("validateUser", dry.clone());
    assert_eq!((verdict(&decision), &decision["dry_run"]), (("deny", "receiver"), &json!(true)));
    let results: Vec<_> =
        decision["hooks"].as_array().unwrap().iter().map(|row| row["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["deny", "skipped_side_effects"]);
    assert_eq!(stage.asked_at("/harmless")[1].json()["dry_run"], true);
    assert_eq!(stage.asked_at("/harmful").len(), 1, "the probe alone");
    let record = stage.record(&decision);
    assert_eq!((&record["dry_run"], &record["outcome"]["state"]), (&json!(true), &json!("none")));
    let path = format!("/v1/tenants/acme/invocations/{}/outcome", text(&decision, "id"));
    stage.server.post(&path, json!({"committed": true})).expect_problem(409, "outcome_conflict");
    let counters = stage.server.all("/v1/tenants/acme/hooks");
    assert!(counters.iter().all(|hook| hook["counters"]["asked"] == 0), "{counters:?}");
}

#[test]
fn b39_a_hook_that_is_off_can_be_tried_with_a_kept_question() {
    let stage = Stage::new();
    let hook = stage.hook("v", "validateUser", json!({}), Script::status(500));
    let mut secretive = question();
    secretive["object"]["user"]["securityQuestion"] = json!({"pet": "Rex the unforgettable"});
    let failed = stage.ask("validateUser", secretive);
    let record = stage.record(&failed);
    assert_eq!(record["question"]["object"]["user"], user(), "kept because it failed, without what is secret");
    stage.patch(&hook, json!({"enabled": false, "mode": "off"})).expect(200);
    stage.receiver.script_path(
        "/v",
        native(|question| match question["type"].as_str() {
            Some("hook.test") => json!({}),
            _ => json!({"decision": "deny", "messages": [{"code": "Tried"}]}),
        }),
    );
    let path = format!("/v1/tenants/acme/hooks/{hook}/try");
    let tried = stage.server.post(&path, json!({"invocation_id": failed["id"]})).expect(200).json();
    assert_eq!(
        (&tried["passed"], tried["asked"]["decision"]["messages"][0]["code"].as_str()),
        (&json!(true), Some("Tried"))
    );
    let asked: Value = serde_json::from_str(tried["asked"]["request"]["body"].as_str().unwrap()).unwrap();
    assert_eq!((&asked["dry_run"], &asked["object"]["user"]), (&json!(true), &user()));
    assert!(
        tried["asked"]["request"]["signed"].as_str().unwrap().ends_with(
            &asked["type"]
                .as_str()
                .map_or(String::new(), |_| tried["asked"]["request"]["body"].as_str().unwrap().to_owned())
        )
    );
    let sampled = stage.server.post(&path, json!({"sample": true})).expect(200).json();
    assert_eq!(sampled["asked"]["decision"]["decision"], "deny");
    let pasted = json!({"invocation": {"object": {"user": {"login": "x"}}, "bogus": 1}});
    assert_eq!(
        stage.server.post(&path, pasted).expect_problem(422, "validation_failed").pointers(),
        ["/invocation/bogus"]
    );
    let wrong = json!({"sample": 1, "invocation_id": "x", "more": true});
    let reply = stage.server.post(&path, wrong).expect_problem(422, "validation_failed");
    assert_eq!(reply.pointers(), ["/invocation_id", "/more", "/sample"]);
    assert_eq!(stage.record(&failed)["id"], failed["id"], "nothing was recorded as real");
    assert_eq!(stage.server.all("/v1/tenants/acme/invocations").len(), 1);
}

#[test]
fn b40_a_circle_of_hooks_is_broken_and_calling_back_does_not_block() {
    let stage = Stage::new();
    let (addr, key) = (stage.server.addr(), crate::harness::ADMIN_KEY.to_owned());
    let callback = native(move |question| {
        if question["type"] == "hook.test" {
            return json!({});
        }
        // The receiver asks the platform, which asks Gatepost again, with the hop it came with.
        let key = key.clone();
        let asking = std::thread::spawn(move || {
            let path = "/v1/tenants/acme/points/preCreateUser/invoke";
            crate::harness::Client::new(addr, &key).send("POST", path, &[("gatepost-hop", "1")], super::question())
        });
        let reply = asking.join().expect("it answers");
        json!({"decision": if reply.status == 200 { "allow" } else { "deny" }})
    });
    stage.hook("v", "validateUser", json!({"timeout_ms": 3000}), callback);
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "receiver"));
    assert_eq!(stage.asked_at("/v")[1].header("gatepost-hop"), Some("1"));
    let ask = |hop: &str| stage.ask_with("points/preCreateUser", &[("gatepost-hop", hop)], question());
    ask("3").expect(200);
    ask("4").expect_problem(400, "hook_loop");
    ask("many").expect_problem(400, "invalid_header");
}

#[test]
fn b44_each_invocation_uses_one_snapshot_while_hooks_change() {
    let stage = Stage::new();
    let hook = stage.hook("v", "validateUser", json!({}), deny("No"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = stage.server.client();
            let mut on = false;
            while !done.load(Ordering::Relaxed) {
                client.patch(&format!("/v1/tenants/acme/hooks/{hook}"), json!({"enabled": on})).expect(200);
                on = !on;
            }
        });
        let askers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = stage.server.client();
                    for _ in 0..100 {
                        let decision =
                            client.post("/v1/tenants/acme/points/validateUser/invoke", question()).expect(200).json();
                        let asked = decision["hooks"].as_array().unwrap().len();
                        let expected = if asked == 1 { ("deny", "receiver") } else { ("allow", "no_hooks") };
                        assert_eq!(verdict(&decision), expected, "{decision:#}");
                    }
                })
            })
            .collect();
        for asker in askers {
            asker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn b45_p5_nothing_of_a_tenants_hooks_is_visible_to_another() {
    let stage = Stage::new();
    let hook = stage.hook("v", "validateUser", json!({}), allow());
    let invocation = text(&stage.ask("validateUser", question()), "id");
    stage.server.create_tenant("other");
    let key = stage.server.create_key(&["manage", "invoke"], Some("other"));
    let mut other = stage.server.client_with(&key);
    for path in [format!("hooks/{hook}"), format!("invocations/{invocation}")] {
        let foreign = other.get(&format!("/v1/tenants/other/{path}"));
        assert_eq!(foreign.status, 404, "{path}");
        let id = path.rsplit('/').next().unwrap();
        let none = id.replace(|c: char| c.is_ascii_digit(), "0");
        let missing = other.get(&format!("/v1/tenants/other/{}", path.replace(id, &none)));
        assert_eq!(foreign.text().replace(id, ""), missing.text().replace(&none, ""), "{path}");
        assert_eq!(other.get(&format!("/v1/tenants/acme/{path}")).status, 404);
    }
    other.post(&format!("/v1/tenants/other/hooks/{hook}/try"), ()).expect_problem(404, "hook_not_found");
    let outcome = format!("/v1/tenants/other/invocations/{invocation}/outcome");
    other.post(&outcome, json!({"committed": true})).expect_problem(404, "invocation_not_found");
    let decision = other.post("/v1/tenants/other/points/validateUser/invoke", question()).expect(200).json();
    assert_eq!(verdict(&decision), ("allow", "no_hooks"));
    other.post("/v1/tenants/acme/points/validateUser/invoke", question()).expect_problem(404, "tenant_not_found");
    assert_eq!(other.all("/v1/tenants/other/hooks"), Vec::<Value>::new());
}
