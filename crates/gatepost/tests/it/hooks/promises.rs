//! P9: always an answer. P5: bulk deliveries and hooks do not get into each other's way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gatepost_testkit::{Blackhole, Script};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Stage, TENANT, allow, body, deny, millis, question, verdict};
use crate::harness::{Options, receiver, wait_until};

#[test]
fn p9_whatever_receivers_do_the_answer_comes_within_the_budget() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({"timeout_ms": 30000}), allow());
    for script in [
        Script::Hang,
        Script::Drip(millis(50)),
        Script::DripBody(millis(50)),
        Script::StallBody,
        Script::EndlessBody,
        Script::Reset,
        Script::Close,
        Script::Garbage,
        Script::HugeHeaders(200_000),
        Script::CutBody,
    ] {
        let name = format!("{script:?}");
        stage.receiver.script_path("/v", script);
        let began = Instant::now();
        let reply = stage.ask_with("points/validateUser", &[("gatepost-timeout-ms", "400")], question());
        let decision = reply.expect(200).json();
        assert!(began.elapsed() < millis(1_400), "{name}: {:?}", began.elapsed());
        // To the millisecond it is shown where time is ours: here others may have the cores for a moment.
        assert!(decision["took_us"].as_u64().unwrap() < 1_000_000, "{name}: {decision:#}");
        assert_eq!(decision["decision"], "deny", "{name}");
        stage.receiver.script_path("/v", allow());
        let fine = stage.ask("validateUser", question());
        assert_eq!(verdict(&fine), ("allow", "receiver"), "after {name}");
    }
}

#[tokio::test]
async fn p9_a_receiver_that_accepts_no_connection_costs_no_more_than_its_time() {
    let hole = Blackhole::at(std::net::Ipv4Addr::LOCALHOST);
    tokio::task::spawn_blocking(move || blackholed(&hole)).await.unwrap();
}

fn blackholed(hole: &Blackhole) {
    let stage = Stage::new();
    let hook = stage.hook("v", "validateUser", json!({"timeout_ms": 300}), allow());
    stage.patch(&hook, json!({"mode": "observe", "url": format!("http://{}/", hole.addr())})).expect(200);
    let began = Instant::now();
    let decision = stage.ask("validateUser", question());
    assert!(began.elapsed() < millis(1_000));
    assert_eq!(stage.trials(&decision, 1)[0]["result"]["failure"], "timeout");
}

#[test]
fn p9_a_store_that_is_gone_stops_no_invocation() {
    // What is to fail below must fail as a call does, not end the process by a signal.
    let stage = Stage::with(Options::default().under(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]));
    stage.hook("v", "validateUser", json!({}), deny("No"));
    let before = stage.ask("validateUser", question());
    assert_eq!(verdict(&before), ("deny", "receiver"));
    // A point whose own policy lets pass, and one without hooks: both must have their records written.
    stage.hook("m", "preCreateUser", json!({}), deny("Taken"));
    for point in ["preCreateUser", "policyMap"] {
        stage.server.put(&format!("/v1/tenants/acme/points/{point}"), json!({"audit": "strict"})).expect(200);
    }
    // From here on no file may grow: nothing can be written any more.
    let pid = stage.server.pid().to_string();
    let limit = std::process::Command::new("prlimit").args(["--fsize=0", "--pid", &pid]).status();
    assert!(limit.expect("the program prlimit").success());
    wait_until("the store to fail", || (stage.server.get("/readyz").status == 503).then_some(()));
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(verdict(&stage.ask("validateUser", question())), ("deny", "receiver"));
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    // What could not be written down is told all the same: a no stays a no, a default stands.
    let told = |point: &str, more: Value| {
        let mut asked = question();
        asked["default"] = more;
        let reply = stage.ask_with(&format!("points/{point}"), &[], asked);
        reply.expect_problem(503, "store_unavailable").json()
    };
    let refused = told("preCreateUser", json!({}));
    assert_eq!((verdict(&refused), &refused["messages"][0]["code"]), (("deny", "gatepost"), &json!("Taken")));
    assert!(refused.get("object").is_none(), "{refused:#}");
    let value = told("policyMap", json!({"mappedValue": "theirs"}));
    assert_eq!((verdict(&value), &value["value"]), (("allow", "gatepost"), &json!("theirs")));
    // Changes say so, and change nothing.
    let refused = stage.server.put("/v1/tenants/acme/points/validateUser", json!({"enabled": false}));
    refused.expect_problem(503, "store_unavailable");
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("deny", "receiver"));
}

#[test]
fn p9_a_restarted_server_knows_its_hooks_before_anybody_asks() {
    let mut stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), deny("No"));
    stage.server.kill9();
    stage.server.restart();
    let decision = stage.ask("validateUser", question());
    assert_eq!(verdict(&decision), ("deny", "receiver"));
    // Connections to enforced hooks are ready: soon none has to be made for a question.
    wait_until("a kept connection", || {
        (stage.ask("validateUser", question())["hooks"][0]["conn"] == "reused").then_some(())
    });
}

#[test]
fn p9_the_servers_switch_asks_nobody() {
    let stage = Stage::with(Options::default().env("GATEPOST_HOOKS", "bypass"));
    let hook = stage.hook("v", "validateUser", json!({}), Script::Hang);
    let decision = stage.ask("validateUser", question());
    assert_eq!((verdict(&decision), decision["hooks"].as_array().unwrap().len()), (("allow", "hooks_disabled"), 0));
    assert_eq!(stage.asked_at("/v").len(), 1, "its test alone: {hook} can still be managed");
    let gate = stage.ask("runDeprovision", question());
    assert_eq!((verdict(&gate), &gate["value"]), (("allow", "hooks_disabled"), &json!(false)));
}

#[test]
fn p5_a_backlog_of_deliveries_does_not_hold_up_hooks_nor_hooks_deliveries() {
    let stage = Stage::new();
    let (slow, quick) = (receiver(), receiver());
    slow.script(Script::Hang);
    stage.server.webhook(TENANT, &slow.url("/"), json!({"events": ["bulk.row"], "timeout_ms": 60000}));
    let events: Vec<Value> =
        (0..1_000).map(|n| json!({"type": "bulk.row", "data": {"n": n}, "urgency": "bulk"})).collect();
    for _ in 0..3 {
        stage.server.post("/v1/tenants/acme/events/batch", json!({"events": events.clone()})).expect(202);
    }
    slow.wait_for_blocking(1);
    stage.hook("v", "validateUser", json!({}), allow());
    let mut took: Vec<u64> = (0..100)
        .map(|_| {
            let decision = stage.ask("validateUser", question());
            assert_eq!(verdict(&decision), ("allow", "receiver"));
            decision["took_us"].as_u64().unwrap()
        })
        .collect();
    took.sort_unstable();
    assert!(took[50] < 250_000, "half of them are quick: {} us", took[50]);
    // Hooks that hang hold up no delivery.
    stage.server.create_tenant("other");
    stage.server.webhook("other", &quick.url("/"), json!({}));
    stage.receiver.script_path("/v", Script::Hang);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let mut client = stage.server.client();
            scope.spawn(move || client.post("/v1/tenants/acme/points/validateUser/invoke", question()).expect(200));
        }
        let began = Instant::now();
        let event = stage.server.publish("other", "user.created", json!({}));
        stage.server.wait_event("other", &event, "delivered");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}

#[test]
fn p5_costly_answers_to_one_tenant_leave_every_question_of_another_its_time() {
    let stage = Stage::new();
    let members: Vec<String> = (0..24_000).map(|n| format!("\"m{n}\":1")).collect();
    let members = members.join(",");
    let costly = Script::with(move |request| {
        let id = request.json()["id"].clone();
        body(&format!("{{\"id\":{id},\"decision\":\"allow\",\"object\":{{\"user\":{{{members}}}}}}}"))
    });
    stage.hook("costly", "preCreateUser", json!({"timeout_ms": 2000}), costly);
    stage.server.create_tenant("other");
    stage.receiver.script_path("/quick", body("{}"));
    let quick = json!({"name": "q", "point": "validateUser", "url": stage.receiver.url("/quick"), "mode": "enforce"});
    stage.server.post("/v1/tenants/other/hooks", quick).expect(201);
    stage.receiver.script_path("/quick", allow());
    let (done, worked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..60 {
            let mut client = stage.server.client();
            let (done, worked) = (&done, &worked);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    client.post("/v1/tenants/acme/points/preCreateUser/invoke", question()).expect(200);
                    worked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut client = stage.server.client();
        let in_time = (0..100).filter(|_| {
            let (path, time) = ("/v1/tenants/other/points/validateUser/invoke", [("gatepost-timeout-ms", "1000")]);
            let decision = client.send("POST", path, &time, question()).expect(200).json();
            verdict(&decision) == ("allow", "receiver")
        });
        let in_time = in_time.count();
        done.store(true, Ordering::SeqCst);
        assert_eq!(in_time, 100, "of the other tenant's questions");
    });
    assert!(worked.into_inner() > 0);
}
