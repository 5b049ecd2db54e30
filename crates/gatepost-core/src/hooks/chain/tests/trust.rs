//! Whether an answer is believed, and who hears what.

use super::*;
use crate::hooks::codec::KeyScheme;
use crate::hooks::invocation::Form;

#[test]
fn a_swapped_answer_is_refused() {
    let native = |n| hook(n, "validateUser", |c| c.profile = "gatepost".into());
    let decision = decide(
        "validateUser",
        vec![native(1)],
        user(),
        &[("1", r#"{"id":"inv_00000000000000000000000000","decision":"allow"}"#)],
    );
    assert_eq!((decision.decision, decision.cause), (Verdict::Deny, Cause::InvalidAnswer));
    assert_eq!(decision.degraded[0].failure, FailureClass::IdMismatch);
}

#[test]
fn answers_that_must_be_signed() {
    let strict = || {
        hook(1, "validateUser", |c| {
            (c.profile, c.require_signed_answer, c.status_deny) = ("gatepost".into(), true, true);
        })
    };
    let mut verdicts = Vec::new();
    for case in ["none", "good", "other body", "status", "unsigned status", "server error"] {
        let mut chain = Chain::new(setup("validateUser", vec![strict()]), invocation("validateUser", user()));
        let decision = run(&mut chain, |call, began| {
            let asked: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
            let id = asked["id"].as_str().unwrap();
            let body = json!({"id":id,"decision":"allow"}).to_string();
            let (status, body) = match case {
                "status" | "unsigned status" => (409, String::new()),
                "server error" => (500, String::new()),
                _ => (200, body),
            };
            let mut report = answered(call, began, status, &body);
            let Outcome::Answered(answer) = &mut report.outcome else { return report };
            let signed = if case == "other body" { "{}" } else { &body };
            if !["none", "unsigned status", "server error"].contains(&case) {
                answer.signature = Some(call.hook.keys.sign(&call.message_id, NOW.as_secs(), signed.as_bytes(), NOW));
            }
            report
        });
        let failure = decision.hooks[0].failure.map(FailureClass::as_str);
        verdicts.push((case, decision.cause.as_str(), failure));
    }
    assert_eq!(
        verdicts,
        [
            ("none", "invalid_answer", Some("bad_signature")),
            ("good", "receiver", None),
            ("other body", "invalid_answer", Some("bad_signature")),
            ("status", "receiver", None),
            ("unsigned status", "invalid_answer", Some("bad_signature")),
            ("server error", "policy_on_failure", Some("status_5xx")),
        ]
    );
    assert_eq!(strict().codec.key_scheme(), KeyScheme::Standard);
}

#[test]
fn what_the_breaker_is_told() {
    let rows = [
        ("{}", Some(BreakerEvent::Answered)),
        (DENY, Some(BreakerEvent::Answered)),
        ("503", Some(BreakerEvent::Failed)),
        ("timeout", Some(BreakerEvent::Failed)),
        ("<html>", Some(BreakerEvent::Failed)),
        ("circuit_open", None),
        ("budget", None),
        ("blocked_address", None),
    ];
    for (answer, event) in rows {
        let mut chain = Chain::new(
            setup("validateUser", vec![hook(1, "validateUser", |_| {})]),
            invocation("validateUser", user()),
        );
        let calls = chain.ready(Duration::ZERO);
        let report = scripted(&calls[0], Duration::ZERO, &[("1", answer)]);
        assert_eq!(chain.settle(calls[0].slot, report, NOW).breaker, event, "{answer}");
    }
    // A receiver that was hardly given any time is not to blame for its silence.
    let mut setup = setup("validateUser", vec![hook(1, "validateUser", |_| {})]);
    setup.budget = Budget::new(Some(ms(50)), ms(3_000));
    let mut chain = Chain::new(setup, invocation("validateUser", user()));
    let calls = chain.ready(Duration::ZERO);
    let report = failed(&calls[0], Duration::ZERO, FailureClass::Timeout);
    assert_eq!(chain.settle(calls[0].slot, report, NOW).breaker, None);
}

#[test]
fn p7_secrets_reach_only_those_granted_and_never_the_decision() {
    let body =
        json!({"request":{"user":{"login":"s","securityQuestion":{"pet":"Rex the dog"}},"passwordText":"Welcome@123"}});
    let hooks = vec![
        hook(1, "changePassword", |c| c.receives_secrets = true),
        hook(2, "changePassword", |_| {}),
        hook(3, "changePassword", |c| {
            (c.receives_secrets, c.secret_mode) = (true, crate::hooks::hook::SecretMode::Omit);
        }),
    ];
    let mut chain = Chain::new(setup("changePassword", hooks), invocation("changePassword", body.clone()));
    let decision = run(&mut chain, |call, began| {
        let sent = String::from_utf8_lossy(&call.body).into_owned();
        let shown = sent.contains("Welcome@123") && sent.contains("Rex the dog");
        let hidden =
            !sent.contains("Welcome@123") && !sent.contains("securityQuestion") && !sent.contains("passwordText");
        assert!(if call.hook.config.name == "1" { shown } else { hidden }, "{}", call.hook.config.name);
        assert!(!format!("{:?}", call.hook).contains("Welcome"));
        answered(call, began, if call.hook.config.name == "2" { 500 } else { 204 }, "")
    });
    assert_eq!((decision.decision, decision.cause), (Verdict::Allow, Cause::PolicyOnFailure));
    let stored = serde_json::to_string(&decision).unwrap() + &format!("{decision:?}{chain:?}");
    assert!(!stored.contains("Welcome@123") && !stored.contains("Rex the dog"));
    // The platform gets its own object back whole; the password is not part of it.
    let wire: serde_json::Value = serde_json::from_slice(&decision.to_wire(chain.secrets())).unwrap();
    assert_eq!(wire["object"]["user"], body["request"]["user"]);
    assert!(!wire.to_string().contains("Welcome@123"));
}

#[test]
fn p7_a_receiver_that_repeats_the_password_is_masked_and_flagged() {
    let body = json!({"object":{"user":{}},"secrets":{"passwordText":"Welcome@123"}});
    let mut chain =
        Chain::new(setup("validateUser", vec![hook(1, "validateUser", |_| {})]), invocation("validateUser", body));
    let calls = chain.ready(Duration::ZERO);
    let answer = r#"{"response":{"error":true,"message":"weak: Welcome@123"}}"#;
    assert!(chain.settle(calls[0].slot, answered(&calls[0], ms(0), 200, answer), NOW).repeats_secret);
    let decision = chain.finish(ms(1));
    assert_eq!(decision.messages[0].code, "weak: ***");
}

#[test]
fn the_cymmetri_replies() {
    let reply = |name: &str, hooks, body, answers: &[(&str, &str)]| {
        let mut chain = Chain::new(setup(name, hooks), invocation(name, body));
        let decision = run(&mut chain, |call, began| scripted(call, began, answers));
        serde_json::from_slice::<Value>(
            &decision.render(Form::of_accept(Some("text/html, application/vnd.cymmetri+json;q=0.9")), chain.secrets()),
        )
        .unwrap()
    };
    let one = |name: &str| vec![hook(1, name, |_| {})];
    let whole = json!({"request":{"user":{"login":"s","securityQuestion":{"pet":"Rex"}}}});
    let data = json!({"response":{"data":{"login":"s","securityQuestion":{"pet":"Rex"},"city":"x"}}});
    let change = r#"{"response":{"data":{"city":"x"}}}"#;
    assert_eq!(reply("preCreateUser", one("preCreateUser"), whole.clone(), &[("1", change)]), data);
    let same = json!({"response":{"data":whole["request"]["user"]}});
    assert_eq!(reply("validateUser", one("validateUser"), whole.clone(), &[("1", "{}")]), same);
    let no = json!({"response":{"error":true,"message":"No"}});
    assert_eq!(reply("validateUser", one("validateUser"), whole.clone(), &[("1", DENY)]), no);
    let map = json!({"request":{"defaultValue":"d","user":{}}});
    assert_eq!(reply("policyMap", one("policyMap"), map, &[]), json!({"response":{"mappedValue":"d"}}));
    let yes = r#"{"response":{"data":true}}"#;
    assert_eq!(
        reply("runDeprovision", one("runDeprovision"), whole.clone(), &[("1", yes)]),
        json!({"response":{"data":true}})
    );
    assert_eq!(reply("preProvision", one("preProvision"), whole, &[]), json!({"response":{}}));
    let failed = reply("validateUser", one("validateUser"), user(), &[("1", "timeout")]);
    assert_eq!(failed, json!({"response":{"error":true,"message":"gatepost_timeout"}}));
}

#[test]
fn probes_pass_or_say_why() {
    let plain = hook(1, "validateUser", |_| {});
    let strict = hook(2, "validateUser", |c| (c.profile, c.require_signed_answer) = ("gatepost".into(), true));
    let id = InvocationId::new(NOW, &Byte(5));
    let tenant: TenantId = "acme".parse().unwrap();
    let answer = |status, body: &'static str| RawAnswer {
        status,
        body: Bytes::from_static(body.as_bytes()),
        sent_at: NOW,
        ..RawAnswer::default()
    };
    let probe = plain.probe(id, &tenant, NOW);
    assert_eq!((probe.endpoint.as_str(), &probe.body[..]), ("https://r.example.com/hook/test", b"{}".as_slice()));
    let judge = |answer: &RawAnswer| plain.judge_probe(&probe, answer, NOW).map_err(|failure| failure.class);
    assert_eq!(judge(&answer(200, r#"{"response":{}}"#)), Ok(None));
    assert!(judge(&answer(200, "{}")).unwrap().is_some());
    assert_eq!(judge(&answer(404, "")), Err(FailureClass::Status4xx));
    assert_eq!(judge(&answer(302, "")), Err(FailureClass::Redirect));
    assert_eq!(judge(&answer(200, "hello")), Err(FailureClass::BadJson));
    // Where answers must be signed, so must the probe's: better found out now than in force.
    let probe = strict.probe(id, &tenant, NOW);
    let mut signed = answer(200, "{}");
    assert_eq!(strict.judge_probe(&probe, &signed, NOW).unwrap_err().class, FailureClass::BadSignature);
    signed.signature = Some(strict.keys.sign(&id.to_string(), NOW.as_secs(), b"{}", NOW));
    assert_eq!(strict.judge_probe(&probe, &signed, NOW), Ok(None));
    let attempt = Attempt {
        message_id: &probe.message_id,
        tenant: &tenant,
        issuer: "https://gatepost.example.com",
        body: &probe.body,
        number: 1,
        resent: false,
        left: ms(500),
        hop: 0,
        now: NOW,
        probe: true,
    };
    let headers = strict.headers_for(&attempt);
    assert!(headers.iter().any(|(name, value)| name == "gatepost-point" && value.expose() == "test"));
}
