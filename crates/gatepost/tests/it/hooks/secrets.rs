//! Behaviours 28 and 29 (P7): passwords and security questions are in clear nowhere but in the
//! request of a receiver that was granted them, and in the caller's own answer.

use std::path::Path;

use gatepost_testkit::{Script, TestCa};
use serde_json::{Value, json};

use super::{Stage, body, by_turns, native, question, verdict};
use crate::harness::{Options, text, wait_until};

const PASSWORD: &str = "Wel\"come@123-that-nobody-may-see";
const PET: &str = "Rex-the-unforgettable-8841";

fn with_secrets() -> Value {
    let mut question = question();
    question["object"]["user"]["securityQuestion"] = json!({"pet": PET});
    question["secrets"] = json!({"passwordText": PASSWORD});
    question
}

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

/// Store, log files, output and metrics.
fn everything(stage: &Stage) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![
        ("the server's output".to_owned(), stage.server.said().into_bytes()),
        ("its metrics".to_owned(), stage.server.get("/metrics").text().into_bytes()),
        ("its records".to_owned(), json!(stage.server.all("/v1/tenants/acme/invocations")).to_string().into_bytes()),
        ("its hooks".to_owned(), json!(stage.server.all("/v1/tenants/acme/hooks")).to_string().into_bytes()),
    ];
    files(stage.server.folder(), &mut all);
    all
}

#[track_caller]
fn nowhere(stage: &Stage) {
    let quoted = serde_json::to_string(PASSWORD).unwrap();
    let (password, pet) = (PASSWORD.to_uppercase(), PET.to_uppercase());
    let needles = [PASSWORD, quoted.trim_matches('"'), PET, &password, &pet];
    for (place, content) in everything(stage) {
        for needle in needles {
            let found = content.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} is in {place}");
        }
    }
}

#[test]
fn b28_p7_passwords_are_in_clear_nowhere() {
    let (mut stage, _ca) = Stage::secure(Options::default().env("GATEPOST_LOG", "trace"));
    for point in ["changePassword", "preCreateUser", "validateUser"] {
        let capture = json!({"capture": "all"});
        stage.server.put(&format!("/v1/tenants/acme/points/{point}"), capture).expect(200);
    }
    let granted = || json!({"receives_secrets": true, "may_change": ["/user"]});
    stage.hook("granted", "changePassword", granted(), body("{}"));
    stage.hook("plain", "changePassword", json!({}), body("{}"));
    stage.hook("omit", "changePassword", json!({"receives_secrets": true, "secret_mode": "omit"}), body("{}"));
    let decision = stage.ask("changePassword", with_secrets());
    assert_eq!(verdict(&decision), ("allow", "receiver"));
    let got = stage.asked_at("/granted")[1].json();
    assert_eq!(
        (&got["secrets"]["passwordText"], &got["object"]["user"]["securityQuestion"]["pet"]),
        (&json!(PASSWORD), &json!(PET))
    );
    for path in ["/plain", "/omit"] {
        let got = String::from_utf8_lossy(&stage.asked_at(path)[1].body).into_owned();
        assert!(!got.contains("Wel") && !got.contains(PET), "{path}: {got}");
    }
    // Receivers that repeat what they were told, in refusals, changes, nonsense and statuses.
    stage.hook(
        "mutator",
        "preCreateUser",
        granted(),
        native(|_| json!({"decision": "allow", "object": {"user": {"department": PASSWORD}}})),
    );
    let decision = stage.ask("preCreateUser", with_secrets());
    assert_eq!(decision["object"]["user"]["securityQuestion"]["pet"], PET, "the caller's own comes back to it");
    stage.hook(
        "validator",
        "validateUser",
        granted(),
        native(|_| json!({"decision": "deny", "messages": [{"code": PASSWORD, "text": PET}]})),
    );
    let decision = stage.ask("validateUser", with_secrets());
    assert_eq!(verdict(&decision), ("deny", "receiver"));
    assert!(!decision["messages"].to_string().contains("Wel"), "{decision:#}");
    for script in [body(PASSWORD), Script::status(500).body(PASSWORD), Script::Reset, Script::CutBody] {
        stage.receiver.script_path("/validator", script);
        stage.ask("validateUser", with_secrets());
    }
    // However it is written: escaped it is the same password.
    let escaped: String = PASSWORD.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    stage.receiver.script_path(
        "/mutator",
        Script::with(move |request| {
            let id = request.json()["id"].clone();
            let user = format!("{{\"department\":\"{escaped}\"}}");
            body(&format!("{{\"id\":{id},\"decision\":\"allow\",\"object\":{{\"user\":{user}}}}}"))
        }),
    );
    let decision =
        stage.ask_with("points/preCreateUser", &[("idempotency-key", "e")], with_secrets()).expect(200).json();
    assert_eq!(decision["object"]["user"]["department"], PASSWORD, "it was allowed to change it");
    // The caller's mistakes are told without what it sent.
    let wrong = json!({"secrets": PASSWORD, "object": {"user": {}}, "unknown": {"passwordText": PASSWORD}});
    let refused = stage.ask_with("points/changePassword", &[], wrong).expect_problem(422, "validation_failed");
    assert!(!refused.text().contains("Wel"), "{refused:?}");
    // Under a key it is remembered that it was asked, not what.
    let keyed = [("idempotency-key", "k")];
    stage.ask_with("points/changePassword", &keyed, with_secrets()).expect(200);
    stage.ask_with("points/changePassword", &keyed, with_secrets()).expect(200);
    let cymmetri =
        json!({"request": {"user": {"login": "ada", "securityQuestion": {"pet": PET}}, "passwordText": PASSWORD}});
    stage.ask("changePassword", cymmetri.clone());
    let hook = text(&stage.server.all("/v1/tenants/acme/hooks?point=changePassword")[2], "id");
    let tried =
        stage.server.post(&format!("/v1/tenants/acme/hooks/{hook}/try"), json!({"invocation": cymmetri})).expect(200);
    assert!(!tried.text().contains("Wel") && !tried.text().contains(PET), "{tried:?}");
    nowhere(&stage);
    stage.server.terminate();
    stage.server.restart();
    nowhere(&stage);
}

#[test]
fn b29_hooks_without_the_grant_get_no_security_question() {
    let (stage, _ca) = Stage::secure(Options::default());
    stage.hook("v", "validateUser", json!({}), body("{}"));
    let mut question = with_secrets();
    question["old_object"] = json!({"user": {"login": "ada", "securityQuestion": {"pet": PET}}});
    stage.ask("validateUser", question);
    let got = stage.asked_at("/v")[1].json();
    assert!(
        got["object"]["user"].get("securityQuestion").is_none()
            && got["old_object"]["user"].get("securityQuestion").is_none()
    );
    assert!(got.get("secrets").is_none());
}

#[test]
fn b28_p7_a_notification_that_failed_is_tried_again_from_an_encrypted_copy() {
    let (mut stage, _ca) = Stage::secure(Options::default());
    let members = json!({"receives_secrets": true, "secret_retry": "encrypted"});
    let made = stage.hook_at("/n", "changePassword", members, Script::status(503));
    let decision = stage.ask("changePassword", with_secrets());
    assert_eq!(
        (verdict(&decision), decision["degraded"][0]["failure"].as_str()),
        (("allow", "policy_on_failure"), Some("status_5xx"))
    );
    let first = stage.asked_at("/n")[1].clone();
    wait_until("the copy to be kept", || {
        let mut kept = Vec::new();
        files(&stage.server.data_dir(), &mut kept);
        (kept.iter().map(|(_, content)| content.len()).sum::<usize>() > 0).then_some(())
    });
    wait_until("another try", || (stage.asked_at("/n").len() >= 3).then_some(()));
    // It survives a restart, and passes in the end.
    stage.server.terminate();
    stage.receiver.script_path("/n", by_turns(vec![Script::status(200)]));
    stage.server.restart();
    let before = stage.asked_at("/n").len();
    let last = wait_until("the last try", || stage.asked_at("/n").get(before).cloned());
    assert_eq!(last.json()["secrets"]["passwordText"], PASSWORD);
    assert_eq!(last.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(last.body, first.body);
    nowhere(&stage);
    drop(made);
}

#[test]
fn b31_a_receiver_whose_certificate_is_not_trusted_gets_nothing() {
    let (stage, _ca) = Stage::secure(Options::default());
    let stranger = TestCa::new();
    let other = gatepost_testkit::Receiver::builder().tls(&stranger, gatepost_testkit::Cert::Good).start_on_thread();
    let refused = stage.try_register(&other.url("/"), "changePassword", json!({"receives_secrets": true}));
    let refused = refused.expect_problem(409, "hook_unverified");
    assert!(refused.text().contains("tls"), "{refused:?}");
    assert_eq!(other.count(), 0);
}

#[test]
fn p7_what_a_point_redacts_is_asked_about_and_never_stored() {
    let mut stage = Stage::new();
    let events = crate::harness::receiver();
    stage.server.webhook(super::TENANT, &events.url("/"), json!({"events": ["cymmetri.*", "gatepost.hook.*"]}));
    for point in ["preCreateUser", "validateUser"] {
        let members = json!({"redact": ["/user/password", "/user/phones/0"], "capture": "all"});
        let point = stage.server.put(&format!("/v1/tenants/acme/points/{point}"), members).expect(200).json();
        assert_eq!(point["redact"], json!(["/user/password", "/user/phones/0"]));
    }
    let clear = "correct-horse-7719";
    let other = "battery-staple-7719";
    let changed =
        native(move |_| json!({"decision": "allow", "object": {"user": {"password": other, "department": "X"}}}));
    stage.hook("m", "preCreateUser", json!({}), changed);
    let mut asked = question();
    asked["object"]["user"]["password"] = json!(clear);
    asked["object"]["user"]["phones"] = json!([clear, "2"]);
    asked["old_object"] = json!({"user": {"password": clear}});
    let decision = stage.operate("createUser", asked);
    assert_eq!(stage.asked_at("/m")[1].json()["object"]["user"]["password"], clear, "the receiver is asked about it");
    assert_eq!(decision["object"]["user"]["password"], other, "the platform gets it");
    let record = stage.record(&decision);
    assert_eq!(record["question"]["object"]["user"]["phones"], json!([null, "2"]), "{record:#}");
    assert_eq!((&record["object"]["user"]["department"], &record["request_sha256"]), (&json!("X"), &Value::Null));
    let ops = json!([{"op": "replace", "path": "/user/department", "value": "X"},
        {"op": "replace", "path": "/user/password", "value": "***"}]);
    assert_eq!(record["patch"], ops);
    let id = text(&decision, "id");
    let told = json!({"committed": true, "object": {"user": {"login": "ada", "password": clear}}});
    stage.server.post(&format!("/v1/tenants/acme/invocations/{id}/outcome"), told).expect(200);
    events.wait_for_blocking(2);
    stage.server.wait_settled(super::TENANT);
    for request in events.received() {
        assert!(!String::from_utf8_lossy(&request.body).contains("e-7719"), "{request:?}");
    }
    stage.server.terminate();
    let mut kept = Vec::new();
    files(stage.server.folder(), &mut kept);
    for (place, content) in kept {
        assert!(!content.windows(6).any(|window| window == b"e-7719"), "it is in {place}");
    }
}
