//! Behaviours 25 to 27, 31 to 33: who is asked, and who answered.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gatepost_testkit::{Received, Script};
use serde_json::{Value, json};

use super::{Stage, allow, body, question, verdict};
use crate::harness::{Options, Server, text, verifies, verify};

const IMPORTED: &str = "whsec_aW1wb3J0ZWQgc2VjcmV0IG9mIHRoaXJ0eSBieXRlcyE=";

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
    sign(&Key::new(HMAC_SHA256, key), message).as_ref().to_vec()
}

#[test]
fn b25_requests_are_signed_and_old_secrets_sign_until_they_end() {
    let stage = Stage::new();
    let made = stage.hook_at("/v", "validateUser", json!({}), allow());
    let (hook, first) = (text(&made, "id"), text(&made, "secret"));
    assert!(first.starts_with("whsec_"));
    stage.ask("validateUser", question());
    let asked = &stage.asked_at("/v")[1];
    verify(&first, asked);
    assert_eq!(asked.header("gatepost-point"), Some("validateUser"));
    assert_eq!(asked.header("webhook-id").unwrap().split(':').nth(1), Some(hook.as_str()));
    let second = stage.server.post(&format!("/v1/tenants/acme/hooks/{hook}/rotate-secret"), ()).expect(200).json();
    let second = text(&second, "secret");
    stage.ask("validateUser", question());
    let asked = &stage.asked_at("/v")[2];
    verify(&first, asked);
    verify(&second, asked);
    let body = json!({"overlap_seconds": 0, "secret": IMPORTED});
    stage.server.post(&format!("/v1/tenants/acme/hooks/{hook}/rotate-secret"), body).expect(200);
    stage.ask("validateUser", question());
    let asked = &stage.asked_at("/v")[3];
    verify(IMPORTED, asked);
    assert!(verifies(&second, asked).is_err() && verifies(&first, asked).is_err());
    assert_eq!(stage.show(&hook)["verified"], false, "until it is tested with the new secret");
}

fn sign(secret: &str, id: &str, timestamp: &str, body: &str) -> String {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
    format!("v1,{}", STANDARD.encode(hmac(&key, format!("{id}.{timestamp}.{body}").as_bytes())))
}

/// Allows, with a signature that `alter` may spoil.
fn signed(alter: impl Fn(&Received, &mut String, &mut String) + Send + Sync + 'static) -> Script {
    Script::with(move |request| {
        let id = request.json()["id"].as_str().unwrap_or_default().to_owned();
        let timestamp = request.header("webhook-timestamp").unwrap_or_default().to_owned();
        let mut answer = json!({"id": id, "decision": "allow"}).to_string();
        let mut signature = sign(IMPORTED, &id, &timestamp, &answer);
        alter(request, &mut signature, &mut answer);
        let script = Script::status(200).body(answer);
        if signature.is_empty() { script } else { script.header("gatepost-answer-signature", signature) }
    })
}

#[test]
fn b26_answers_must_be_signed_where_they_must() {
    let stage = Stage::new();
    stage.receiver.script_path("/v", signed(|_, _, _| {}));
    let members = json!({"require_signed_answer": true, "secret": IMPORTED});
    stage.register(&stage.receiver.url("/v"), "validateUser", members.clone());
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "receiver"));
    let rows: [(&str, Script); 4] = [
        ("missing", signed(|_, signature, _| signature.clear())),
        ("wrong", signed(|_, signature, _| *signature = signature.replace("v1,", "v1,AAAA"))),
        ("of another body", signed(|_, _, answer| *answer = answer.replace("allow\"", "allow\" "))),
        (
            "for another id",
            signed(|request, signature, answer| {
                *signature = sign(IMPORTED, "inv_other", request.header("webhook-timestamp").unwrap(), answer);
            }),
        ),
    ];
    for (what, script) in rows {
        stage.receiver.script_path("/v", script);
        let decision = stage.ask("validateUser", question());
        assert_eq!(
            (verdict(&decision), decision["hooks"][0]["failure"].as_str()),
            (("deny", "invalid_answer"), Some("bad_signature")),
            "{what}"
        );
    }
    // A receiver that does not sign its test is never enforced.
    stage.receiver.script_path("/w", body("{}"));
    stage.try_register(&stage.receiver.url("/w"), "validateUser", members).expect_problem(409, "hook_unverified");
}

#[test]
fn b27_the_answer_to_another_question_is_refused() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), allow());
    let first = text(&stage.ask("validateUser", question()), "id");
    let swapped = json!({"id": first, "decision": "allow"}).to_string();
    stage.receiver.script_path("/v", body(&swapped));
    let decision = stage.ask("validateUser", question());
    assert_eq!(decision["hooks"][0]["failure"], "id_mismatch");
}

#[test]
fn b31_secrets_go_over_https_alone() {
    let stage = Stage::new();
    let members = json!({"receives_secrets": true, "mode": "observe"});
    let reply = stage.try_register(&stage.receiver.url("/v"), "changePassword", members);
    assert_eq!(reply.expect_problem(422, "validation_failed").pointers(), ["/url"]);
}

#[test]
fn b32_p8_no_hook_reaches_an_address_that_is_not_allowed() {
    let server = Server::with(Options::default().without("GATEPOST_ALLOW_NETS"));
    server.create_tenant("acme");
    let inside = crate::harness::receiver();
    for url in [
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "http://example.com/",
    ] {
        let hook = json!({"name": "x", "point": "validateUser", "url": url});
        assert_eq!(
            server.post("/v1/tenants/acme/hooks", hook).expect_problem(422, "validation_failed").pointers(),
            ["/url"],
            "{url}"
        );
    }
    // What was registered while it was allowed is judged again when it is called.
    let mut stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), allow());
    stage.server.restart_with(Options::default().without("GATEPOST_ALLOW_NETS"));
    let before = stage.receiver.connections();
    let decision = stage.ask("validateUser", question());
    assert_eq!(
        (verdict(&decision), decision["hooks"][0]["failure"].as_str()),
        (("deny", "policy_on_failure"), Some("blocked_address"))
    );
    assert_eq!((stage.receiver.connections(), inside.connections()), (before, 0));
}

fn claims(token: &str) -> (Value, bool, String) {
    let parts: Vec<&str> = token.split('.').collect();
    let decoded = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    (serde_json::from_slice(&decoded).unwrap(), parts.len() == 3, format!("{}.{}", parts[0], parts[1]))
}

#[test]
fn b33_the_token_of_the_cymmetri_dialect_is_narrow() {
    let stage = Stage::new();
    let secret = "a secret of more than 24 bytes";
    let members = json!({"profile": "cymmetri", "secret": secret});
    stage.hook_at("/base", "validateUser", members, body("{}"));
    stage.ask("validateUser", question());
    let asked = &stage.asked_at("/base/validateUser")[0];
    let token = asked.header("authorization").unwrap().trim_start_matches("Bearer ").to_owned();
    let (claims, whole, signed) = claims(&token);
    assert!(whole);
    let expected = URL_SAFE_NO_PAD.encode(hmac(secret.as_bytes(), signed.as_bytes()));
    assert_eq!(token.rsplit('.').next(), Some(expected.as_str()));
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &asked.body);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(claims["request_body_sha256"], hex);
    assert_eq!(
        (&claims["sub"], &claims["tenantId"], &claims["point"]),
        (&json!("acme"), &json!("acme"), &json!("validateUser"))
    );
    assert_eq!(
        (claims["aud"].as_str(), claims["iss"].as_str()),
        (Some(stage.receiver.url("/base/validateUser").as_str()), Some(stage.server.url().as_str()))
    );
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((1..=300).contains(&life));
    assert!(claims.get("roles").is_none() && claims.get("scope").is_none(), "{claims:#}");
    // It opens nothing here.
    let reply =
        stage.server.send("GET", "/v1/tenants/acme/hooks", &[("authorization", &format!("Bearer {token}"))], ());
    assert_eq!(reply.status, 401);
    assert_eq!(asked.json(), json!({"request": {"user": super::user()}}));
}
