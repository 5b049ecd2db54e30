//! Cymmetri's dialect: `{"request":{…}}` out, `{"response":{…}}` (or an echo, or nothing) back.
//!
//! Its document contradicts itself, so every form it shows is read, on every kind of point: the
//! table is in the tests, one row per form.

use bytes::Bytes;
use serde_json::json;

use super::{
    Answer, AnswerMessage, CODE_MAX, Codec, Envelope, Expected, KeyScheme, Question, bad_shape, cut, is_blank, join,
    jwt, object,
};
use crate::hashing::sha256;
use crate::hooks::change::Proposal;
use crate::hooks::failure::Failure;
use crate::hooks::json::{Map, Pointer, Value};
use crate::hooks::points::{PointDef, PointKind};
use crate::hooks::secrets::{to_wire, wipe};
use crate::{TenantId, Timestamp};

/// Cymmetri's dialect.
pub(super) struct Cymmetri;

/// How long a token is valid: the product's default, one minute.
const TOKEN_SECONDS: i64 = 60;
/// What the platform puts before a refusal's code (its published error list).
const PLATFORM_PREFIX: &str = "UTILSRVC.SCRIPT_CUSTOM_ERROR-";
const PROBE_PATH: &str = "/test";

impl Codec for Cymmetri {
    fn name(&self) -> &'static str {
        "cymmetri"
    }

    fn key_scheme(&self) -> KeyScheme {
        KeyScheme::Text
    }

    fn sets_authorization(&self) -> bool {
        true
    }

    /// The base and the point's path; a url that ends in that path already, in any case, is called as it
    /// stands (the document's own curl writes `/policymap`).
    fn endpoint(&self, url: &str, path: Option<&str>, point: &PointDef) -> String {
        match path {
            Some("") => url.to_owned(),
            Some(path) => join(url, path),
            None if base(url, point).is_some() => url.to_owned(),
            None => join(url, &point.receiver_path()),
        }
    }

    fn probe_endpoint(&self, url: &str, _path: Option<&str>, point: &PointDef) -> String {
        base(url, point).map_or_else(|| join(url, PROBE_PATH), |base| join(&base, PROBE_PATH))
    }

    fn request_body(&self, question: &Question<'_>) -> Bytes {
        if question.point.kind == PointKind::Probe {
            return Bytes::from_static(b"{}");
        }
        let mut object = question.object.clone();
        let mut context = Value::Object(question.context.clone());
        let mut password = None;
        if let Some(secrets) = &question.secrets {
            secrets.object.restore(&mut object);
            secrets.context.restore(&mut context);
            password = secrets.named.get("passwordText").map(|secret| secret.expose().clone());
        }
        let mut request = Map::new();
        for part in [context, object] {
            if let Value::Object(members) = part {
                request.absorb(members);
            }
        }
        if let Some(value) = question.default.get("mappedValue").filter(|value| !value.is_null()) {
            request.insert("defaultValue".into(), value.clone());
        }
        if let Some(password) = password {
            request.insert("passwordText".into(), password);
        }
        let body = Map::from_iter([("request".to_owned(), Value::Object(request))]);
        let (mut body, secret) = (Value::Object(body), question.secrets.is_some());
        let bytes = to_wire(&body, secret);
        if secret {
            wipe(&mut body);
        }
        bytes
    }

    fn probe_body(&self, _id: &str, _tenant: &TenantId, _time: Timestamp) -> Bytes {
        Bytes::from_static(b"{}")
    }

    /// A token for this one body at this one address. It carries no role and opens no API: the
    /// document's habit of handing receivers an administrator's session is not copied.
    fn sign(&self, envelope: &Envelope<'_>, headers: &mut Vec<(&'static str, String)>) {
        let Some(key) = envelope.keys.token_key() else { return };
        let issued = envelope.now.as_secs();
        let hash = sha256(envelope.body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let id = envelope.message_id;
        // A token serves once.
        let token_id = match envelope.sending {
            (1, false) => id.to_owned(),
            (number, false) => format!("{id}:{number}"),
            (number, true) => format!("{id}:{number}:again"),
        };
        let claims = json!({
            "iss": envelope.issuer,
            "aud": envelope.endpoint,
            "sub": envelope.tenant.as_str(),
            "tenantId": envelope.tenant.as_str(),
            "point": envelope.point,
            "jti": token_id,
            "iat": issued,
            "exp": issued + TOKEN_SECONDS,
            "request_body_sha256": hash,
        });
        headers.push(("authorization", format!("Bearer {}", jwt::hs256(key, &claims))));
    }

    fn read_body(&self, expected: &Expected<'_>, body: &[u8]) -> Result<Answer, Failure> {
        let response = if is_blank(body) { Map::new() } else { response(object(body)?, expected.point)? };
        let said = Said::read(response, expected.point)?;
        if said.refuses {
            return Ok(refusal(said.message));
        }
        match expected.point.kind {
            PointKind::Gate => match said.data {
                Some(value @ Value::Bool(_)) => Ok(Answer { value, ..Answer::default() }),
                _ => Err(bad_shape("response.data must be true or false")),
            },
            PointKind::Value => Ok(Answer { value: mapped(said.mapped)?, ..Answer::default() }),
            PointKind::Mutate | PointKind::Validate => match said.data {
                None | Some(Value::Null) => Ok(Answer { proposal: said.echo, ..Answer::default() }),
                Some(data @ Value::Object(_)) => Ok(Answer {
                    proposal: Some(Proposal { at: user_at(expected.point), value: data }),
                    ..Answer::default()
                }),
                Some(_) => Err(bad_shape("response.data must be the user, an object")),
            },
            PointKind::NotifySecret | PointKind::Event | PointKind::Probe => Ok(Answer::allow()),
        }
    }

    fn read_probe(&self, body: &[u8]) -> Result<Option<&'static str>, Failure> {
        if is_blank(body) {
            return Ok(Some("the answer was empty; the document shows {\"response\":{}}"));
        }
        let members = object(body)?;
        match members.get("response") {
            Some(Value::Object(response)) if response.get("error") == Some(&Value::Bool(true)) => {
                // Its document wants an object and no more; a refusal is an answer too.
                Ok(Some("the probe was refused: this receiver may refuse whatever it is asked"))
            }
            Some(Value::Object(_)) => Ok(None),
            None if members.is_empty() => Ok(Some("the answer was {}; the document shows {\"response\":{}}")),
            _ => Err(bad_shape("response must be an object")),
        }
    }
}

/// The address without the point's own path, if it ends in that, whatever its case; its query stays.
fn base(url: &str, point: &PointDef) -> Option<String> {
    let path = point.receiver_path();
    let (address, query) = url.find('?').map_or((url, ""), |at| url.split_at(at));
    let trimmed = address.trim_end_matches('/');
    let at = trimmed.len().checked_sub(path.len())?;
    let (base, tail) = (trimmed.get(..at)?, trimmed.get(at..)?);
    let ends = tail.eq_ignore_ascii_case(&path) && base.contains("://") && !base.ends_with('/');
    ends.then(|| format!("{base}{query}"))
}

/// The part of the object a bare `data` speaks about.
fn user_at(point: &PointDef) -> Pointer {
    match point.object_members.as_slice() {
        [only] => Pointer::root().child(only),
        _ => Pointer::root(),
    }
}

/// What the answer is about: `response`; else an echo of the question; else the body itself, when
/// it has a member an answer can have.
fn response(mut body: Map, point: &PointDef) -> Result<Map, Failure> {
    match body.remove("response") {
        Some(Value::Object(response)) => return Ok(response),
        Some(Value::Null) => return Ok(Map::new()),
        Some(_) => return Err(bad_shape("response must be an object")),
        None => {}
    }
    let known = |name: &str| ["error", "message", "data", "mappedValue", "request"].contains(&name);
    let echoes = |name: &String| point.kind.takes_objects() && point.object_members.contains(name);
    // Something else was said, and guessing what a gatekeeper meant is not safe.
    if !body.is_empty() && !body.keys().any(|name| known(name) || echoes(name)) {
        return Err(bad_shape("neither response nor the question's own members"));
    }
    Ok(body)
}

/// The documented members of an answer.
struct Said {
    refuses: bool,
    message: Option<Value>,
    data: Option<Value>,
    mapped: Option<Value>,
    echo: Option<Proposal>,
}

impl Said {
    fn read(mut response: Map, point: &PointDef) -> Result<Self, Failure> {
        let refuses = match response.remove("error") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(refuses)) => refuses,
            Some(_) => return Err(bad_shape("error must be true or false")),
        };
        let mut echoed = match response.remove("request") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(request)) => request,
            Some(_) if refuses => Map::new(),
            Some(_) => return Err(bad_shape("request must be an object")),
        };
        let mut object = Map::new();
        for name in &point.object_members {
            if let Some(value) = echoed.remove(name).or_else(|| response.remove(name)) {
                if !value.is_object() && !refuses {
                    return Err(bad_shape("an echoed member must be an object"));
                }
                object.insert(name.clone(), value);
            }
        }
        let at = user_at(point);
        let echo = match at.get(&Value::Object(object.clone())) {
            _ if object.is_empty() => None,
            Some(value) => Some(Proposal { at: at.clone(), value: value.clone() }),
            None => Some(Proposal { at: Pointer::root(), value: Value::Object(object) }),
        };
        let mut take = |name: &str| response.remove(name).filter(|value| !value.is_null());
        Ok(Said { refuses, message: take("message"), data: take("data"), mapped: take("mappedValue"), echo })
    }
}

/// `message` is a code, which the platform puts into words.
fn refusal(message: Option<Value>) -> Answer {
    let told = match message {
        Some(Value::String(text)) if !text.trim().is_empty() => Some(cut(text.trim(), CODE_MAX)),
        Some(number) => number.number_text(),
        None => None,
    };
    let code = told.clone().unwrap_or_else(|| "UNKNOWN".into());
    let platform_code = Some(format!("{PLATFORM_PREFIX}{}", code.to_uppercase()));
    Answer {
        denies: true,
        messages: vec![AnswerMessage { code, text: told, path: None, platform_code }],
        ..Answer::default()
    }
}

/// A value is a text; a truth value is its JSON text, and a number as the receiver wrote it: `7.50`, or more
/// digits than a float holds, is an attribute's value and must not be rounded on its way. Missing is none.
fn mapped(value: Option<Value>) -> Result<Value, Failure> {
    match value {
        None => Ok(Value::Null),
        Some(Value::Bool(plain)) => Ok(Value::String(plain.to_string())),
        Some(text @ Value::String(_)) => Ok(text),
        Some(Value::Raw(raw)) if !raw.is_number() => Ok(Value::Raw(raw)),
        Some(other) => match other.number_text() {
            Some(number) => Ok(Value::String(number)),
            None => Err(bad_shape("response.mappedValue must be a text")),
        },
    }
}
