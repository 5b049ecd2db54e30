//! What `listen` answers: a status, a challenge's answer, or a hook's decision in its dialect.

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use gatepost_core::hooks::codec::{ANSWER_SIGNATURE_HEADER, HookKeys};
use gatepost_core::hooks::points::{self, PointKind};
use gatepost_core::signing;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::receiver::{Received, Reply};

/// How long `--mode slow` waits where nothing else is said: longer than any hook's default timeout.
pub(crate) const SLOW: Duration = Duration::from_secs(5);
/// The code of a refusal, and what a changed object says.
const CODE: &str = "DENIED_BY_LISTEN";
const CHANGED: &str = "changed by gatepost listen";

/// How a blocking hook is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// Yes; value points get their default, gates true
    Allow,
    /// No, with a code and a text; gates false
    Deny,
    /// Yes, with a changed object or value
    Mutate,
    /// As allow, but too late
    Slow,
    /// JSON that ends in the middle
    Badjson,
    /// Yes, with the object exactly as it came
    Echo,
}

/// The answer to a challenge, whatever else this receiver was told: of an endpoint that is being
/// verified (a GET with the challenge in a header; the handshake of CloudEvents' HTTP WebHook).
pub(crate) fn challenge(received: &Received) -> Option<Reply> {
    if received.method == Method::GET {
        let challenge = received.header("x-okta-verification-challenge")?;
        return Some(json_reply(&json!({ "verification": challenge })));
    }
    if received.method == Method::OPTIONS {
        let origin = received.header("webhook-request-origin")?;
        let mut reply = Reply::status(StatusCode::OK);
        let mut say = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                reply.headers.push((HeaderName::from_static(name), value));
            }
        };
        say("webhook-allowed-origin", origin);
        say("webhook-allowed-rate", received.header("webhook-request-rate").unwrap_or("*"));
        say("allow", "POST");
        return Some(reply);
    }
    None
}

/// The answer of a hook, if `received` is a question to one.
pub(crate) fn decision(mode: Mode, received: &Received, keys: Option<&HookKeys>) -> Option<Reply> {
    let question: Value = serde_json::from_slice(&received.body).ok()?;
    let point = question.get("type").and_then(Value::as_str).and_then(|kind| kind.strip_prefix("hook."));
    // Modes speak of questions. A probe asks whether the receiver is there, and it is: else no hook
    // could be enforced against a receiver that is to misbehave.
    let probe = point.map_or(question.get("request").is_none(), |point| kind_of(point) == Some(PointKind::Probe));
    let mode = if probe { Mode::Allow } else { mode };
    let (answer, id) = match point {
        Some(point) => (native(mode, point, &question), question.get("id").and_then(Value::as_str)),
        // A dialect that puts the point into the path, and asks `{}` as a probe.
        None => (enveloped(mode, &received.path, question.get("request"))?, None),
    };
    let mut reply = json_reply(&answer);
    if mode == Mode::Badjson {
        reply.body.truncate(reply.body.len() / 2);
    }
    if mode == Mode::Slow {
        reply.delay = SLOW;
    }
    if let (Some(keys), Some(id)) = (keys, id) {
        sign(&mut reply, keys, id, received);
    }
    Some(reply)
}

/// `{id, decision, …}`.
fn native(mode: Mode, point: &str, question: &Value) -> Value {
    let mut answer = Map::new();
    answer.insert("id".into(), question.get("id").cloned().unwrap_or_default());
    let denies = mode == Mode::Deny;
    answer.insert("decision".into(), if denies { "deny" } else { "allow" }.into());
    if denies {
        answer.insert("messages".into(), json!([{ "code": CODE, "text": "gatepost listen was told to refuse" }]));
    }
    let object = question.get("object").cloned().unwrap_or_default();
    match kind_of(point) {
        Some(PointKind::Gate) => {
            // A gate's no is its value.
            answer.insert("decision".into(), "allow".into());
            answer.remove("messages");
            answer.insert("value".into(), (!denies).into());
        }
        Some(PointKind::Value) => {
            let default = question.get("default").cloned().unwrap_or_default();
            let default = default.get("mappedValue").cloned().unwrap_or(default);
            answer.insert("value".into(), if mode == Mode::Mutate { CHANGED.into() } else { default });
        }
        _ if denies || !object.is_object() => {}
        _ if mode == Mode::Mutate => drop(answer.insert("object".into(), changed(object))),
        _ if mode == Mode::Echo => drop(answer.insert("object".into(), object)),
        _ => {}
    }
    answer.into()
}

/// `{"response": {…}}`; `None` for what is no question.
fn enveloped(mode: Mode, path: &str, request: Option<&Value>) -> Option<Value> {
    let path = path.split('?').next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let kind = points::builtins()
        .iter()
        .find(|point| point.receiver_path().trim_start_matches('/').eq_ignore_ascii_case(name))
        .map(|point| point.kind);
    let Some(request) = request else {
        return (kind == Some(PointKind::Probe)).then(|| json!({ "response": {} }));
    };
    let user = request.get("user").cloned().unwrap_or_default();
    let denies = mode == Mode::Deny;
    Some(match kind {
        Some(PointKind::Gate) => json!({ "response": { "data": !denies } }),
        _ if denies => json!({ "response": { "error": true, "message": CODE } }),
        Some(PointKind::Value) => {
            let default = request.get("defaultValue").cloned().unwrap_or_default();
            json!({ "response": { "mappedValue": if mode == Mode::Mutate { CHANGED.into() } else { default } } })
        }
        _ if mode == Mode::Mutate && user.is_object() => json!({ "response": { "data": described(user) } }),
        _ if mode == Mode::Echo && user.is_object() => json!({ "response": { "data": user } }),
        _ => json!({ "response": {} }),
    })
}

fn kind_of(point: &str) -> Option<PointKind> {
    points::builtin(point).map(|point| point.kind)
}

/// The object with its user (or, without one, itself) described anew.
fn changed(mut object: Value) -> Value {
    match object.get_mut("user") {
        Some(user @ Value::Object(_)) => {
            *user = described(user.take());
            object
        }
        _ => described(object),
    }
}

fn described(mut object: Value) -> Value {
    if let Value::Object(members) = &mut object {
        members.insert("description".into(), CHANGED.into());
    }
    object
}

fn json_reply(answer: &Value) -> Reply {
    let mut reply = Reply::status(StatusCode::OK);
    reply.headers.push((http::header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    reply.body = Bytes::from(answer.to_string());
    reply
}

/// Proves that the answer is this receiver's, to hooks that ask for it.
fn sign(reply: &mut Reply, keys: &HookKeys, id: &str, received: &Received) {
    let asked_at = received.header(signing::TIMESTAMP_HEADER).and_then(|at| at.parse().ok());
    let at = asked_at.unwrap_or_else(|| received.at.as_secs());
    let signature = keys.sign(id, at, &reply.body, received.at);
    if let Ok(value) = HeaderValue::from_str(&signature) {
        reply.headers.push((HeaderName::from_static(ANSWER_SIGNATURE_HEADER), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatepost_core::Timestamp;
    use gatepost_core::hooks::codec::KeyScheme;
    use gatepost_core::secret::Secret;
    use gatepost_core::webhook::SigningKey;

    fn asked(path: &str, body: &Value) -> Received {
        Received {
            at: Timestamp::from_secs(1_000),
            method: Method::POST,
            path: path.to_owned(),
            headers: Default::default(),
            body: body.to_string().into(),
            answered: StatusCode::OK,
        }
    }

    fn said(mode: Mode, path: &str, body: &Value) -> Value {
        let reply = decision(mode, &asked(path, body), None).unwrap();
        serde_json::from_slice(&reply.body).unwrap()
    }

    #[test]
    fn decisions_in_the_native_dialect() {
        let ask = |point: &str| {
            json!({"id": "inv_1", "type": format!("hook.{point}"), "object": {"user": {"login": "ada"}},
                   "default": {"mappedValue": "d"}})
        };
        let allow = json!({"id": "inv_1", "decision": "allow"});
        let refusal = json!([{"code": CODE, "text": "gatepost listen was told to refuse"}]);
        let with = |name: &str, value: Value| {
            let mut answer = allow.clone();
            answer[name] = value;
            answer
        };
        for (mode, point, answer) in [
            (Mode::Allow, "validateUser", allow.clone()),
            (Mode::Deny, "validateUser", json!({"id": "inv_1", "decision": "deny", "messages": refusal})),
            (Mode::Mutate, "preCreateUser", with("object", json!({"user": {"login": "ada", "description": CHANGED}}))),
            (Mode::Echo, "preCreateUser", with("object", json!({"user": {"login": "ada"}}))),
            (Mode::Slow, "validateUser", allow.clone()),
            (Mode::Allow, "policyMap", with("value", json!("d"))),
            (Mode::Mutate, "policyMap", with("value", json!(CHANGED))),
            (Mode::Allow, "runDeprovision", with("value", json!(true))),
            (Mode::Deny, "runDeprovision", with("value", json!(false))),
            (Mode::Allow, "somethingOfTheTenants", allow.clone()),
        ] {
            assert_eq!(said(mode, "/hook", &ask(point)), answer, "{mode:?} {point}");
        }
    }

    #[test]
    fn decisions_in_the_enveloped_dialect() {
        let ask = json!({"request": {"user": {"login": "ada"}, "defaultValue": "d"}});
        for (mode, path, answer) in [
            (Mode::Allow, "/base/validateUser", json!({})),
            (Mode::Deny, "/base/validateUser", json!({"error": true, "message": CODE})),
            (Mode::Mutate, "/preCreateUser?x=1", json!({"data": {"login": "ada", "description": CHANGED}})),
            (Mode::Echo, "/preCreateUser", json!({"data": {"login": "ada"}})),
            (Mode::Allow, "/policyMap", json!({"mappedValue": "d"})),
            (Mode::Mutate, "/policyMap", json!({"mappedValue": CHANGED})),
            (Mode::Allow, "/runDeprovision", json!({"data": true})),
            (Mode::Deny, "/runDeprovision", json!({"data": false})),
        ] {
            assert_eq!(said(mode, path, &ask), json!({"response": answer}), "{mode:?} {path}");
        }
        assert_eq!(said(Mode::Deny, "/base/test", &json!({})), json!({"response": {}}), "a probe is no question");
        assert!(decision(Mode::Allow, &asked("/hook", &json!({"type": "user.created"})), None).is_none());
    }

    #[test]
    fn bad_json_is_bad_and_slow_is_slow() {
        let ask = asked("/hook", &json!({"id": "i", "type": "hook.validateUser"}));
        let bad = decision(Mode::Badjson, &ask, None).unwrap();
        assert!(serde_json::from_slice::<Value>(&bad.body).is_err() && !bad.body.is_empty());
        assert_eq!(decision(Mode::Slow, &ask, None).unwrap().delay, SLOW);
        for mode in [Mode::Deny, Mode::Slow, Mode::Badjson] {
            for (path, probe, answer) in [
                ("/hook", json!({"id": "i", "type": "hook.test"}), json!({"id": "i", "decision": "allow"})),
                ("/hook/test", json!({}), json!({"response": {}})),
            ] {
                let reply = decision(mode, &asked(path, &probe), None).unwrap();
                assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap(), answer, "{mode:?}");
                assert_eq!(reply.delay, Duration::ZERO, "a receiver that misbehaves is there all the same");
            }
        }
    }

    #[test]
    fn an_answer_is_signed_as_hooks_ask_for_it() {
        let text = Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned());
        let key = SigningKey { text, created_at: Timestamp::EPOCH, expires_at: None };
        let keys = HookKeys::new(KeyScheme::Standard, &[key]).unwrap();
        let mut ask = asked("/hook", &json!({"id": "inv_1", "type": "hook.validateUser"}));
        ask.headers.insert(signing::TIMESTAMP_HEADER, HeaderValue::from_static("990"));
        let reply = decision(Mode::Allow, &ask, Some(&keys)).unwrap();
        let signature =
            reply.headers.iter().find(|(name, _)| name == ANSWER_SIGNATURE_HEADER).unwrap().1.to_str().unwrap();
        let verified =
            keys.verify_answer(Some(signature), None, &["inv_1"], Timestamp::from_secs(990), &reply.body, ask.at);
        assert_eq!(verified, Ok(()));
    }

    #[test]
    fn challenges_are_answered() {
        let mut get = asked("/hook", &json!(null));
        get.method = Method::GET;
        assert!(challenge(&get).is_none());
        get.headers.insert("x-okta-verification-challenge", HeaderValue::from_static("abc"));
        assert_eq!(challenge(&get).unwrap().body, r#"{"verification":"abc"}"#);
        let mut options = asked("/hook", &json!(null));
        options.method = Method::OPTIONS;
        options.headers.insert("webhook-request-origin", HeaderValue::from_static("events.example"));
        let reply = challenge(&options).unwrap();
        assert!(reply.headers.iter().any(|(n, v)| n == "webhook-allowed-origin" && v == "events.example"));
    }
}
