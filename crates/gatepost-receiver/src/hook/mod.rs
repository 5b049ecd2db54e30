//! Blocking hooks: a question comes, and is answered at once.

mod answer;

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use answer::{Answer, AnswerError, Note, Patch};

use crate::error::{BadSecret, BuildError, Error};
use crate::headers::{Headers, hint};
use crate::json::object;
use crate::key::{Key, Shared, hex, sha256};
use crate::receiver::{Builder, Receiver, Scheme};
use crate::scheme::Proven;

/// The form of questions and answers: a hook's `profile`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Dialect {
    /// Gatepost's own.
    Gatepost,
    /// `{"request": …}` and `{"response": …}`.
    Cymmetri,
}

/// Verifies the questions of a hook, and answers them. Cheap to clone.
///
/// ```
/// use gatepost_receiver::hook::{Answer, HookReceiver, Note};
/// # use gatepost_receiver::http::HeaderMap;
///
/// # fn answer(headers: HeaderMap, body: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// let hook = HookReceiver::gatepost().secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").build()?;
///
/// let question = hook.question(&headers, body)?;
/// let answer = match question.object["user"]["mobile"].as_str() {
///     Some("123") => Answer::deny(Note::new("taken").text("This number is another user's.").path("/user/mobile")),
///     _ => Answer::allow(),
/// };
/// let reply = question.reply(answer)?; // status, headers (the signature among them), body
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HookReceiver {
    receiver: Receiver,
    dialect: Dialect,
    signing: Option<std::sync::Arc<Vec<AnswerKey>>>,
}

pub(crate) struct AnswerKey(Shared);

impl std::fmt::Debug for AnswerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerKey(***)")
    }
}

impl HookReceiver {
    /// For a hook of profile `gatepost`; secrets are `whsec_…`.
    pub fn gatepost() -> HookBuilder {
        HookBuilder::new(Dialect::Gatepost, Receiver::standard())
    }

    /// For a hook of profile `cymmetri`; the secret is a text.
    pub fn cymmetri() -> HookBuilder {
        HookBuilder::new(Dialect::Cymmetri, Receiver::cymmetri())
    }

    /// Verifies a question and reads it, by the system's clock.
    ///
    /// # Errors
    /// Names the first thing that is wrong: size, headers, time, signature, form.
    pub fn question(&self, headers: &impl Headers, body: &[u8]) -> Result<Question, Error> {
        self.question_at(headers, body, self.receiver.now())
    }

    /// Verifies a question and reads it.
    ///
    /// # Errors
    /// Names the first thing that is wrong: size, headers, time, signature, form.
    pub fn question_at(&self, headers: &impl Headers, body: &[u8], now: SystemTime) -> Result<Question, Error> {
        let proven = self.receiver.prove(headers, body, now)?;
        let mut question = match self.dialect {
            Dialect::Gatepost => gatepost(body)?,
            Dialect::Cymmetri => cymmetri(body, &proven)?,
        };
        question.timeout = hint(headers, "gatepost-timeout-ms").and_then(|t| t.parse().ok()).map(Duration::from_millis);
        question.attempt = hint(headers, "gatepost-attempt").and_then(|text| text.parse().ok());
        question.hop = hint(headers, "gatepost-hop").map(str::to_owned);
        self.receipt(question, proven)
    }

    /// Bytes of a body that are taken.
    pub fn body_max(&self) -> usize {
        self.receiver.body_max()
    }

    /// What is needed to answer.
    fn receipt(&self, mut question: Question, proven: Proven) -> Result<Question, Error> {
        // Both schemes carry an id and a time.
        let (id, at) = match (proven.id, proven.signed_at) {
            (Some((id, _)), Some(at)) => (id, at),
            _ => return Err(Error::NoMatch),
        };
        if self.dialect == Dialect::Gatepost {
            question.message_id = id;
        }
        question.receipt.dialect = self.dialect;
        question.receipt.signed_at = at;
        question.receipt.keys.clone_from(&self.signing);
        question.receipt.key = proven.key;
        Ok(question)
    }
}

/// Makes a [`HookReceiver`].
#[derive(Clone)]
#[must_use]
pub struct HookBuilder {
    dialect: Dialect,
    builder: Builder,
    secrets: Vec<String>,
    sign_answers: bool,
}

impl HookBuilder {
    fn new(dialect: Dialect, builder: Builder) -> HookBuilder {
        HookBuilder { dialect, builder, secrets: Vec::new(), sign_answers: true }
    }

    /// One more secret; any that fits is enough.
    pub fn secret(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        self.secrets.push(text.clone());
        self.builder = self.builder.secret(text);
        self
    }

    /// Whether answers are signed (`gatepost-answer-signature`); default: yes. A hook with
    /// `require_signed_answer` believes no others.
    pub fn sign_answers(mut self, sign: bool) -> Self {
        self.sign_answers = sign;
        self
    }

    /// The address a token must be for: the URL that is called, exactly (`cymmetri` only).
    pub fn audience(mut self, url: impl Into<String>) -> Self {
        self.builder = self.builder.audience(url);
        self
    }

    /// How far clocks may differ, either way; default [`TOLERANCE`](crate::TOLERANCE).
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.builder = self.builder.tolerance(tolerance);
        self
    }

    /// Bytes of a body that are taken; default [`BODY_MAX`](crate::BODY_MAX).
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.builder = self.builder.body_max(bytes);
        self
    }

    /// Another clock than the system's, for tests.
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.builder = self.builder.clock(clock);
        self
    }

    /// The receiver.
    ///
    /// # Errors
    /// A secret is none, or there is none.
    pub fn build(self) -> Result<HookReceiver, BuildError> {
        let dialect = self.dialect;
        let key = |(number, text): (usize, &String)| {
            let key = match dialect {
                Dialect::Cymmetri => Shared::text(text),
                Dialect::Gatepost => match Key::parse(text) {
                    Ok(Key::Shared(key)) => Ok(key),
                    // Answers are signed with it: a public key is not enough.
                    Ok(Key::Public(_)) => Err(BadSecret::Prefix),
                    Err(problem) => Err(problem),
                },
            };
            key.map(AnswerKey).map_err(|problem| BuildError::Secret { number: number + 1, problem })
        };
        let keys = self.secrets.iter().enumerate().map(key).collect::<Result<Vec<_>, _>>()?;
        let signing = self.sign_answers.then(|| keys.into());
        let scheme = match dialect {
            Dialect::Gatepost => Scheme::Standard,
            Dialect::Cymmetri => Scheme::Cymmetri,
        };
        Ok(HookReceiver { receiver: self.builder.signing(scheme).build()?, dialect, signing })
    }
}

/// A verified question.
#[derive(Clone)]
#[non_exhaustive]
pub struct Question {
    /// The invocation: several hooks, and several attributes, may be asked in one.
    pub id: String,
    /// This question: a retry has the same, and must be answered alike.
    pub message_id: String,
    /// Where the platform asks: `validateUser`; `test` when it only asks whether somebody is there.
    pub point: String,
    /// Whose it is, where it is told.
    pub tenant: Option<String>,
    /// When it was asked (`gatepost`): RFC 3339.
    pub time: Option<String>,
    /// Whether nothing will come of it: have no side effects.
    pub dry_run: bool,
    /// What answers may change. Of `cymmetri`: all of `request`, without password and default.
    pub object: Value,
    /// The object before an update, or null.
    pub old_object: Value,
    /// What answers may not change (`gatepost`).
    pub context: Value,
    /// Whom it is about (`gatepost`), or null.
    pub subject: Value,
    /// Who acts (`gatepost`), or null.
    pub actor: Value,
    /// What stands if nobody decides, or null; of `cymmetri` `{"mappedValue": …}`.
    pub default: Value,
    /// Secret members this hook was granted: `passwordText`.
    pub secrets: Map<String, Value>,
    /// How long the answer is waited for, from a header (not signed).
    pub timeout: Option<Duration>,
    /// 1, or 2 for the one retry, from a header (not signed).
    pub attempt: Option<u32>,
    /// Pass it on as `gatepost-hop` if you call the platform while answering.
    pub hop: Option<String>,
    pub(crate) receipt: Receipt,
}

/// What an answer has to fit.
#[derive(Clone)]
pub(crate) struct Receipt {
    pub(crate) dialect: Dialect,
    pub(crate) signed_at: i64,
    pub(crate) key: usize,
    pub(crate) keys: Option<std::sync::Arc<Vec<AnswerKey>>>,
}

impl Question {
    /// Whether it only asks if somebody is there who knows the secret. Whatever is then replied passes.
    pub fn is_test(&self) -> bool {
        self.point == TEST
    }

    fn about(id: String, point: String) -> Question {
        let receipt = Receipt { dialect: Dialect::Gatepost, signed_at: 0, key: 0, keys: None };
        Question {
            message_id: id.clone(),
            id,
            point,
            tenant: None,
            time: None,
            dry_run: false,
            object: Value::Null,
            old_object: Value::Null,
            context: Value::Null,
            subject: Value::Null,
            actor: Value::Null,
            default: Value::Null,
            secrets: Map::new(),
            timeout: None,
            attempt: None,
            hop: None,
            receipt,
        }
    }
}

/// Without what it is about: objects are people, and there may be passwords.
impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").field("id", &self.id).field("point", &self.point).finish_non_exhaustive()
    }
}

const TEST: &str = "test";

fn gatepost(body: &[u8]) -> Result<Question, Error> {
    #[derive(Deserialize)]
    struct Body {
        id: String,
        #[serde(rename = "type")]
        kind: String,
        tenant: Option<String>,
        time: Option<String>,
        #[serde(default)]
        dry_run: bool,
        #[serde(default)]
        object: Value,
        #[serde(default)]
        old_object: Value,
        #[serde(default)]
        context: Value,
        #[serde(default)]
        subject: Value,
        #[serde(default)]
        actor: Value,
        #[serde(default)]
        default: Value,
        #[serde(default)]
        secrets: Map<String, Value>,
    }
    let form = "hook";
    let body: Body = object(body).map_err(|problem| Error::body(form, "", &problem))?;
    let Some(point) = body.kind.strip_prefix("hook.") else {
        let problem = "the type is not hook. and a point: this is an event, not a question".to_owned();
        return Err(Error::Body { form, at: "/type".to_owned(), problem });
    };
    Ok(Question {
        tenant: body.tenant,
        time: body.time,
        dry_run: body.dry_run,
        object: body.object,
        old_object: body.old_object,
        context: body.context,
        subject: body.subject,
        actor: body.actor,
        default: body.default,
        secrets: body.secrets,
        ..Question::about(body.id, point.to_owned())
    })
}

fn cymmetri(raw: &[u8], proven: &Proven) -> Result<Question, Error> {
    #[derive(Deserialize)]
    struct Body {
        request: Option<Map<String, Value>>,
    }
    let body: Body = object(raw).map_err(|problem| Error::body("cymmetri", "", &problem))?;
    let claims = proven.claims.as_ref();
    let point = match body.request {
        None => TEST.to_owned(),
        Some(_) => claims.and_then(|claims| claims.point.clone()).ok_or(Error::Claim("point"))?,
    };
    // A token serves one sending, and its id counts them after invocation and hook: a question asked
    // again is known by its body.
    let mut parts = claims.map_or("", |claims| &claims.id).split(':');
    let (id, hook) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut question = Question::about(id.to_owned(), point);
    question.message_id = format!("{id}:{hook}:{}", hex(&sha256(raw)[..8]));
    question.tenant = claims.and_then(|claims| claims.tenant.clone());
    if let Some(mut request) = body.request {
        if let Some(value) = request.remove("defaultValue") {
            question.default = json!({ "mappedValue": value });
        }
        if let Some(password) = request.remove("passwordText") {
            question.secrets.insert("passwordText".to_owned(), password);
        }
        question.object = Value::Object(request);
    }
    Ok(question)
}

impl AnswerKey {
    pub(crate) fn sign(&self, id: &str, at: i64, body: &[u8]) -> String {
        use base64::Engine as _;
        let at = at.to_string();
        let tag = self.0.tag(&[id.as_bytes(), b".", at.as_bytes(), b".", body]);
        format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(tag))
    }
}
