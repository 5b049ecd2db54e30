//! The native dialect: Standard Webhooks headers, `{id, type, …}` out, `{id, decision, …}` back.

use bytes::Bytes;
use serde_json::json;

use super::{
    Answer, AnswerMessage, CODE_MAX, Codec, Envelope, Expected, KeyScheme, MESSAGES_MAX, Question, TEXT_MAX, bad_shape,
    cut, is_blank, join, object,
};
use crate::hooks::change::Proposal;
use crate::hooks::failure::{Failure, FailureClass};
use crate::hooks::json::{Map, Pointer, Value};
use crate::hooks::json_patch;
use crate::hooks::points::{PointDef, PointKind};
use crate::hooks::secrets::{to_wire, wipe};
use crate::{TenantId, Timestamp, signing};

/// The native dialect.
pub(super) struct Gatepost;

impl Codec for Gatepost {
    fn name(&self) -> &'static str {
        "gatepost"
    }

    fn key_scheme(&self) -> KeyScheme {
        KeyScheme::Standard
    }

    fn sets_authorization(&self) -> bool {
        false
    }

    fn endpoint(&self, url: &str, path: Option<&str>, _point: &PointDef) -> String {
        path.filter(|path| !path.is_empty()).map_or_else(|| url.to_owned(), |path| join(url, path))
    }

    fn probe_endpoint(&self, url: &str, path: Option<&str>, point: &PointDef) -> String {
        self.endpoint(url, path, point)
    }

    fn request_body(&self, question: &Question<'_>) -> Bytes {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
        put("id", question.id.into());
        put("type", format!("hook.{}", question.point.name).into());
        put("time", question.time.to_string().into());
        put("tenant", question.tenant.as_str().into());
        put("dry_run", question.dry_run.into());
        let (mut object, mut old) = (question.object.clone(), question.old_object.clone());
        let mut context = Value::Object(question.context.clone());
        if let Some(secrets) = &question.secrets {
            secrets.object.restore(&mut object);
            secrets.old_object.restore(&mut old);
            secrets.context.restore(&mut context);
            if !secrets.named.is_empty() {
                let named = secrets.named.iter().map(|(name, secret)| (name.clone(), secret.expose().clone()));
                put("secrets", Value::Object(named.collect()));
            }
        }
        put("object", object);
        put("context", context);
        for (name, value) in [
            ("subject", question.subject),
            ("actor", question.actor),
            ("old_object", &old),
            ("default", question.default),
        ] {
            let empty = value.as_object().is_some_and(Map::holds_nothing);
            // Every platform's default is empty unless it gives one.
            let said = name != "default" || !empty;
            if said && !value.is_null() {
                put(name, value.clone());
            }
        }
        let (mut body, secret) = (Value::Object(body), question.secrets.is_some());
        let bytes = to_wire(&body, secret);
        if secret {
            wipe(&mut body);
            wipe(&mut old);
        }
        bytes
    }

    fn probe_body(&self, id: &str, tenant: &TenantId, time: Timestamp) -> Bytes {
        let body = json!({"id": id, "type": "hook.test", "time": time.to_string(), "tenant": tenant.as_str()});
        to_wire(&body, false)
    }

    fn sign(&self, envelope: &Envelope<'_>, headers: &mut Vec<(&'static str, String)>) {
        let at = envelope.now.as_secs();
        headers.push((signing::ID_HEADER, envelope.message_id.to_owned()));
        headers.push((signing::TIMESTAMP_HEADER, at.to_string()));
        let signature = envelope.keys.sign(envelope.message_id, at, envelope.body, envelope.now);
        headers.push((signing::SIGNATURE_HEADER, signature));
    }

    fn read_body(&self, expected: &Expected<'_>, body: &[u8]) -> Result<Answer, Failure> {
        if is_blank(body) {
            return match expected.point.kind {
                PointKind::Probe => Ok(Answer::allow()),
                _ => Err(bad_shape("empty: this question needs an answer with its id")),
            };
        }
        let mut members = object(body)?;
        match members.get("id").and_then(Value::as_str) {
            Some(id) if id == expected.id => {}
            _ if expected.point.kind == PointKind::Probe => {}
            Some(_) => return Err(Failure::new(FailureClass::IdMismatch, "id is another invocation's")),
            None => return Err(Failure::new(FailureClass::IdMismatch, "id is missing")),
        }
        let mut answer = Answer { messages: messages(&members)?, ..Answer::default() };
        let value = members.remove("value").unwrap_or_default();
        let proposed = members.remove("object").unwrap_or_default();
        let patch = members.remove("patch").filter(|patch| !patch.is_null());
        if patch.is_some() && !proposed.is_null() {
            return Err(bad_shape("object and patch: give one of them"));
        }
        if patch.is_some() && expected.point.kind != PointKind::Mutate {
            return Err(bad_shape("patch is only taken at points of kind mutate"));
        }
        answer.patch = patch.map(json_patch::read).transpose().map_err(bad_shape)?;
        answer.denies = match members.get("decision") {
            Some(Value::String(word)) if word == "deny" => true,
            Some(Value::String(word)) if word == "allow" => false,
            Some(Value::Null) | None if answer.patch.is_some() => false,
            Some(Value::Null) | None => !says_enough(expected.point.kind, &proposed)?,
            Some(_) => return Err(bad_shape("decision must be \"allow\" or \"deny\"")),
        };
        if answer.denies {
            if answer.messages.is_empty() {
                answer.messages.push(AnswerMessage { code: "denied".into(), ..AnswerMessage::default() });
            }
            return Ok(answer);
        }
        match proposed {
            Value::Null => {}
            Value::Object(_) => answer.proposal = Some(Proposal { at: Pointer::root(), value: proposed }),
            _ => return Err(bad_shape("object must be an object")),
        }
        if expected.point.kind == PointKind::Gate && !value.is_boolean() {
            return Err(bad_shape("value must be true or false"));
        }
        answer.value = value;
        Ok(answer)
    }

    fn read_probe(&self, body: &[u8]) -> Result<Option<&'static str>, Failure> {
        if is_blank(body) {
            return Ok(None);
        }
        match object(body)?.get("decision").and_then(Value::as_str) {
            // A refusal is an answer: the receiver is there and knows its secret.
            Some("deny") => Ok(Some("the probe was refused: this receiver may refuse whatever it is asked")),
            _ => Ok(None),
        }
    }
}

/// Without `decision`, what else is said must be an answer by itself.
fn says_enough(kind: PointKind, proposed: &Value) -> Result<bool, Failure> {
    let enough = match kind {
        PointKind::Value | PointKind::Gate | PointKind::Probe => true,
        PointKind::Mutate => proposed.is_object(),
        _ => false,
    };
    if enough { Ok(true) } else { Err(bad_shape("decision is missing")) }
}

fn messages(members: &Map) -> Result<Vec<AnswerMessage>, Failure> {
    let items = match members.get("messages") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(bad_shape("messages must be a list")),
    };
    let read = |item: &Value| match item {
        Value::String(text) => {
            Ok(AnswerMessage { code: "denied".into(), text: Some(cut(text, TEXT_MAX)), ..AnswerMessage::default() })
        }
        Value::Object(message) => {
            let text = |name: &str, most| match message.get(name).filter(|said| !said.is_odd()) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(cut(text, most))),
                Some(_) => Err(bad_shape(format!("messages[].{name} must be a text"))),
            };
            Ok(AnswerMessage {
                code: text("code", CODE_MAX)?.unwrap_or_else(|| "denied".into()),
                text: text("text", TEXT_MAX)?,
                path: text("path", TEXT_MAX)?,
                platform_code: None,
            })
        }
        _ => Err(bad_shape("messages must hold objects")),
    };
    items.iter().filter(|item| !item.is_odd()).take(MESSAGES_MAX).map(read).collect()
}
