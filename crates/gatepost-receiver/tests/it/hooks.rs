//! Questions and answers, asked and judged by the code that asks and judges.

use gatepost_core::hooks::codec::{self, Envelope, Expected, HookKeys, Received};
use gatepost_core::hooks::json;
use gatepost_core::hooks::points::builtin;
use gatepost_core::secret::Secret;
use gatepost_core::webhook::SigningKey;
use gatepost_core::{TenantId, Timestamp};
use gatepost_receiver::hook::{Answer, AnswerError, HookReceiver, Note, Patch, Question};
use gatepost_receiver::{BadSecret, BuildError, Error, Reply};
use serde_json::{Map, Value, json};

use crate::sender::{AT, Sent, after};

const ID: &str = "inv_1";
const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const TEXT: &str = "a-shared-secret-of-some-length";

fn secret(dialect: &str) -> &'static str {
    if dialect == "gatepost" { WHSEC } else { TEXT }
}

fn keys(dialect: &str) -> HookKeys {
    let key = SigningKey { text: Secret::new(secret(dialect)), created_at: Timestamp::EPOCH, expires_at: None };
    HookKeys::new(codec::codec(dialect).unwrap().key_scheme(), &[key]).unwrap()
}

/// A question as it goes out.
fn asked(dialect: &str, point: &str, object: Value, sending: (u32, bool)) -> Sent {
    let codec = codec::codec(dialect).unwrap();
    let tenant: TenantId = "acme".parse().unwrap();
    let context = json::Map::from_iter([("targetAttribute".to_owned(), "mail".into())]);
    let body = codec.request_body(&codec::Question {
        id: ID,
        point: builtin(point).unwrap(),
        time: Timestamp::from_secs(AT),
        tenant: &tenant,
        subject: &json!({"type": "user", "id": "u_1"}).into(),
        actor: &json::Value::Null,
        object: &object.into(),
        old_object: &json::Value::Null,
        context: &context,
        default: &json!({"mappedValue": "none"}).into(),
        dry_run: true,
        secrets: None,
    });
    let mut headers = Vec::new();
    codec.sign(
        &Envelope {
            message_id: "inv_1:hook_2",
            sending,
            point,
            tenant: &tenant,
            endpoint: "https://hooks.example/ask",
            issuer: "https://gatepost.example",
            keys: &keys(dialect),
            body: &body,
            now: Timestamp::from_secs(AT),
        },
        &mut headers,
    );
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Sent { headers, body: body.to_vec() }.with("gatepost-timeout-ms", "794").with("gatepost-hop", "1")
}

fn receiver(dialect: &str) -> HookReceiver {
    let builder = if dialect == "gatepost" { HookReceiver::gatepost() } else { HookReceiver::cymmetri() };
    builder.secret(secret(dialect)).build().unwrap()
}

fn question(dialect: &str, point: &str, object: Value) -> Question {
    let sent = asked(dialect, point, object, (1, false));
    receiver(dialect).question_at(&sent.headers, &sent.body, after(1)).unwrap()
}

/// What Gatepost understands, in one line.
fn heard(dialect: &str, point: &str, reply: &Reply) -> String {
    let expected = Expected { id: ID, point: builtin(point).unwrap(), status_deny: false };
    let received = Received { status: reply.status.as_u16(), encoding: None, body: &reply.body };
    let answer = match codec::read_answer(codec::codec(dialect).unwrap(), &expected, &received) {
        Ok(answer) => answer,
        Err(failure) => return format!("failure {}", failure.class),
    };
    let signature = reply.headers["gatepost-answer-signature"].to_str().unwrap();
    let now = Timestamp::from_secs(AT + 1);
    let sent = Timestamp::from_secs(AT);
    keys(dialect).verify_answer(Some(signature), None, &[ID, "inv_1:hook_2"], sent, &reply.body, now).unwrap();
    let notes: Vec<_> = answer.messages.iter().map(|note| note.code.as_str()).collect();
    let mut said = if answer.denies { "deny".to_owned() } else { "allow".to_owned() };
    if let Some(proposal) = answer.proposal {
        said += &format!(" {}={}", proposal.at, proposal.value);
    }
    if let Some(patch) = answer.patch {
        said += &format!(" {} operations", patch.len());
    }
    if !answer.value.is_null() {
        said += &format!(" value={}", answer.value);
    }
    if !notes.is_empty() {
        said += &format!(" {}", notes.join(","));
    }
    said
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

#[test]
fn a_question_is_read() {
    let user = json!({"user": {"login": "ada"}});
    let native = question("gatepost", "validateUser", user.clone());
    assert_eq!((&*native.id, &*native.message_id, &*native.point), (ID, "inv_1:hook_2", "validateUser"));
    assert_eq!((&native.object, native.dry_run, native.tenant.as_deref()), (&user, true, Some("acme")));
    assert_eq!((&native.subject["id"], &native.context["targetAttribute"]), (&json!("u_1"), &json!("mail")));
    assert_eq!((native.timeout.unwrap().as_millis(), native.hop.as_deref()), (794, Some("1")));
    assert_eq!(native.time.as_deref(), Some("2023-11-14T22:13:20Z"));
    let cymmetri = question("cymmetri", "policyMap", user.clone());
    assert_eq!((&*cymmetri.id, &*cymmetri.point, cymmetri.tenant.as_deref()), (ID, "policyMap", Some("acme")));
    assert_eq!(
        (&cymmetri.object["user"]["login"], &cymmetri.default),
        (&json!("ada"), &json!({"mappedValue": "none"}))
    );
    for question in [native, cymmetri] {
        assert!(!question.is_test() && !format!("{question:?}").contains("ada"), "Debug shows no object");
    }
}

#[test]
fn a_retry_is_the_same_question() {
    for dialect in ["gatepost", "cymmetri"] {
        let read = |sending| {
            let sent = asked(dialect, "validateUser", json!({"user": {}}), sending);
            let question = receiver(dialect).question_at(&sent.headers, &sent.body, after(1)).unwrap();
            let reply = question.reply(Answer::allow()).unwrap();
            assert_eq!(heard(dialect, "validateUser", &reply), "allow", "signed for this sending");
            (question.id, question.message_id)
        };
        assert_eq!(read((1, false)), read((2, false)), "{dialect}");
        assert_eq!(read((1, false)), read((2, true)), "{dialect}");
        let other = question(dialect, "validateUser", json!({"user": {"login": "b"}}));
        if dialect == "cymmetri" {
            assert_ne!(other.message_id, read((1, false)).1, "another attribute of the same invocation");
        }
    }
}

#[test]
fn every_answer_is_understood() {
    let taken = || Note::new("taken").text("Somebody has it.").path("/user/mobile");
    let city = || object(json!({"user": {"city": "Pune"}}));
    for (dialect, point, answer, wanted) in [
        ("gatepost", "validateUser", Answer::allow(), "allow"),
        ("gatepost", "validateUser", Answer::allow().note("weak"), "allow weak"),
        ("gatepost", "validateUser", Answer::deny(taken()).note("also"), "deny taken,also"),
        ("gatepost", "preCreateUser", Answer::object(city()), r#"allow ={"user":{"city":"Pune"}}"#),
        ("gatepost", "validateUser", Answer::object(city()), r#"allow ={"user":{"city":"Pune"}}"#),
        (
            "gatepost",
            "preUpdateUser",
            Answer::patch(
                Patch::new()
                    .test("/user/a", 1)
                    .replace("/user/a", 2)
                    .add("/user/b", "x")
                    .remove("/user/c")
                    .relocate("/user/d", "/user/e")
                    .copy("/user/e", "/user/f"),
            ),
            "allow 6 operations",
        ),
        ("gatepost", "policyMap", Answer::value("x"), r#"allow value="x""#),
        ("gatepost", "policyMap", Answer::value(json!([1])), "allow value=[1]"),
        ("gatepost", "policyMap", Answer::allow(), "allow"),
        ("gatepost", "runDeprovision", Answer::gate(true), "allow value=true"),
        ("gatepost", "runDeprovision", Answer::gate(false), "allow value=false"),
        ("gatepost", "runDeprovision", Answer::deny("hold"), "deny hold"),
        ("gatepost", "preProvision", Answer::deny("frozen"), "deny frozen"),
        ("gatepost", "changePassword", Answer::allow(), "allow"),
        ("cymmetri", "validateUser", Answer::allow(), "allow"),
        ("cymmetri", "validateUser", Answer::deny("MobileAlreadyExist"), "deny MobileAlreadyExist"),
        ("cymmetri", "preCreateUser", Answer::object(city()), r#"allow /user={"city":"Pune"}"#),
        ("cymmetri", "policyMap", Answer::value("x"), r#"allow value="x""#),
        ("cymmetri", "policyMap", Answer::value(7.5), r#"allow value="7.5""#),
        ("cymmetri", "policyMap", Answer::value(true), r#"allow value="true""#),
        ("cymmetri", "policyMap", Answer::allow(), "allow"),
        ("cymmetri", "runDeprovision", Answer::gate(true), "allow value=true"),
        ("cymmetri", "preProvision", Answer::deny("frozen"), "deny frozen"),
        ("cymmetri", "changePassword", Answer::allow(), "allow"),
    ] {
        let reply = question(dialect, point, json!({"user": {"login": "ada"}})).reply(answer.clone());
        let reply = reply.unwrap_or_else(|error| panic!("{dialect} {point} {answer:?}: {error}"));
        assert_eq!(heard(dialect, point, &reply), wanted, "{dialect} {point} {answer:?}");
    }
}

#[test]
fn what_gatepost_would_take_for_a_failure_is_not_said() {
    let none = || object(json!({}));
    for (dialect, point, answer) in [
        ("gatepost", "runDeprovision", Answer::allow()),
        ("gatepost", "runDeprovision", Answer::value("true")),
        ("gatepost", "validateUser", Answer::value(true)),
        ("gatepost", "validateUser", Answer::patch(Patch::new())),
        ("gatepost", "preCreateUser", Answer::value(1)),
        ("gatepost", "policyMap", Answer::object(none())),
        ("gatepost", "preProvision", Answer::object(none())),
        ("gatepost", "changePassword", Answer::deny("x")),
        ("cymmetri", "runDeprovision", Answer::allow()),
        ("cymmetri", "preCreateUser", Answer::patch(Patch::new())),
        ("cymmetri", "policyMap", Answer::value(json!({}))),
        ("cymmetri", "validateUser", Answer::allow().note("weak")),
    ] {
        let reply = question(dialect, point, json!({"user": {}})).reply(answer.clone());
        assert!(reply.is_err(), "{dialect} {point} {answer:?}");
    }
    let told = question("gatepost", "runDeprovision", json!({})).reply(Answer::allow()).unwrap_err();
    assert_eq!(told.to_string(), "runDeprovision takes true, false or deny");
    assert!(matches!(told, AnswerError::NotHere { .. }));
}

#[test]
fn a_test_is_passed_whatever_is_answered() {
    for dialect in ["gatepost", "cymmetri"] {
        let codec = codec::codec(dialect).unwrap();
        let tenant: TenantId = "acme".parse().unwrap();
        let body = codec.probe_body("inv_1", &tenant, Timestamp::from_secs(AT));
        let mut headers = Vec::new();
        let envelope = Envelope {
            message_id: "inv_1:hook_2",
            sending: (1, false),
            point: "test",
            tenant: &tenant,
            endpoint: "https://hooks.example/test",
            issuer: "https://gatepost.example",
            keys: &keys(dialect),
            body: &body,
            now: Timestamp::from_secs(AT),
        };
        codec.sign(&envelope, &mut headers);
        let question = receiver(dialect).question_at(&headers, &body, after(1)).unwrap();
        assert!(question.is_test(), "{dialect}");
        for answer in [Answer::allow(), Answer::deny("x"), Answer::value(1)] {
            let reply = question.reply(answer).unwrap();
            assert_eq!(codec.read_probe(&reply.body), Ok(None), "{dialect}");
            let signature = reply.headers["gatepost-answer-signature"].to_str().unwrap();
            let (sent, now) = (Timestamp::from_secs(AT), Timestamp::from_secs(AT + 1));
            keys(dialect).verify_answer(Some(signature), None, &["inv_1"], sent, &reply.body, now).unwrap();
        }
    }
}

#[test]
fn what_is_not_verified_is_no_question() {
    for dialect in ["gatepost", "cymmetri"] {
        let sent = asked(dialect, "validateUser", json!({"user": {}}), (1, false));
        let judge = |sent: &Sent, at| receiver(dialect).question_at(&sent.headers, &sent.body, after(at)).map(|_| ());
        assert_eq!(judge(&sent, 1), Ok(()));
        let mut tampered = sent.clone();
        tampered.body[3] ^= 1;
        assert!(judge(&tampered, 1).is_err());
        assert!(matches!(judge(&sent, 1_000), Err(Error::TooOld { .. })));
        assert!(matches!(judge(&sent, -1_000), Err(Error::TooNew { .. })));
        let other = match dialect {
            "gatepost" => HookReceiver::gatepost().secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            _ => HookReceiver::cymmetri().secret("another-shared-secret-of-ours"),
        };
        let other = other.build().unwrap().question_at(&sent.headers, &sent.body, after(1));
        assert_eq!(other.unwrap_err(), Error::NoMatch);
    }
    // The old secret signs the answer to what it verified.
    let both = HookReceiver::gatepost().secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").secret(WHSEC).build().unwrap();
    let sent = asked("gatepost", "validateUser", json!({"user": {}}), (1, false));
    let reply = both.question_at(&sent.headers, &sent.body, after(1)).unwrap().reply(Answer::allow()).unwrap();
    assert_eq!(heard("gatepost", "validateUser", &reply), "allow");
    let plain = HookReceiver::gatepost().secret(WHSEC).sign_answers(false).build().unwrap();
    let reply = plain.question_at(&sent.headers, &sent.body, after(1)).unwrap().reply(Answer::allow()).unwrap();
    assert!(!reply.headers.contains_key("gatepost-answer-signature"));
    let public = HookReceiver::gatepost().secret("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
    assert_eq!(public.build().unwrap_err(), BuildError::Secret { number: 1, problem: BadSecret::Prefix });
    assert_eq!(HookReceiver::cymmetri().build().unwrap_err(), BuildError::NoSecret);
}
