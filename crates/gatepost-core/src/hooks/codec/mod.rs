//! Dialects: how a question is written for a receiver, and how its answer is read.
//!
//! A dialect is one file here and one line in [`all`]. It says what an answer *means*; what may be
//! done with it (changes, policies, order) is not its business.

use bytes::Bytes;

use super::change::Proposal;
use super::failure::{Failure, FailureClass};
use super::hook::limits;
use super::json::{Map, Value, parse_strict};
use super::json_patch::Operation;
use super::points::PointDef;
use super::secrets::Lifted;
use crate::delivery::{compressed, compression};
use crate::secret::Secret;
use crate::{Entropy, TenantId, Timestamp, json};

mod cymmetri;
mod gatepost;
pub mod jwt;
mod keys;

pub use keys::{ANSWER_SIGNATURE_HEADER, ANSWER_TIMESTAMP_HEADER, BadKeys, HookKeys, KeyScheme};

/// Header that carries the attempt: 1, or 2 for the one retry.
pub const ATTEMPT_HEADER: &str = "gatepost-attempt";
/// Header that carries the point's name.
pub const POINT_HEADER: &str = "gatepost-point";

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The invocation's id.
    pub id: &'a str,
    /// The point.
    pub point: &'a PointDef,
    /// When it was asked.
    pub time: Timestamp,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// `{type?, id}`, or null.
    pub subject: &'a Value,
    /// Who acts, or null.
    pub actor: &'a Value,
    /// The object as it stands, without its secret members.
    pub object: &'a Value,
    /// The object before, or null.
    pub old_object: &'a Value,
    /// The context.
    pub context: &'a Map,
    /// The caller's default.
    pub default: &'a Value,
    /// Whether it is a dry run.
    pub dry_run: bool,
    /// The secrets, when this receiver is shown them.
    pub secrets: Option<SecretFacts<'a>>,
}

/// Secrets of a question, for a receiver that is shown them.
#[derive(Clone, Copy, Debug)]
pub struct SecretFacts<'a> {
    /// By name.
    pub named: &'a std::collections::BTreeMap<String, super::secrets::SecretJson>,
    /// What belongs into `object`.
    pub object: &'a Lifted,
    /// What belongs into `old_object`.
    pub old_object: &'a Lifted,
    /// What belongs into `context`.
    pub context: &'a Lifted,
}

/// What the headers of one attempt are made of.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Invocation and hook: the same for every attempt.
    pub message_id: &'a str,
    /// Which attempt, and whether it is sent a second time within that.
    pub sending: (u32, bool),
    /// The point's name.
    pub point: &'a str,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// The address called.
    pub endpoint: &'a str,
    /// Who we are: the server's public address.
    pub issuer: &'a str,
    /// The hook's keys.
    pub keys: &'a HookKeys,
    /// The body, exactly as sent.
    pub body: &'a [u8],
    /// The attempt's time.
    pub now: Timestamp,
}

/// An answer as it came.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The status.
    pub status: u16,
    /// `content-encoding`, when there is one.
    pub encoding: Option<&'a str>,
    /// The body; may be cut at one byte over [`limits::ANSWER_MAX`].
    pub body: &'a [u8],
}

/// What a dialect has to know to read an answer.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The invocation's id.
    pub id: &'a str,
    /// The point.
    pub point: &'a PointDef,
    /// Whether 403, 409 and 422 are refusals.
    pub status_deny: bool,
}

/// One message of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnswerMessage {
    /// For software.
    pub code: String,
    /// For people.
    pub text: Option<String>,
    /// Which member it is about.
    pub path: Option<String>,
    /// The platform's own code for it (Cymmetri).
    pub platform_code: Option<String>,
}

/// What a receiver said.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    /// Whether it refuses.
    pub denies: bool,
    /// Why, or what else it has to say.
    pub messages: Vec<AnswerMessage>,
    /// The object it proposes.
    pub proposal: Option<Proposal>,
    /// The changes it proposes instead.
    pub patch: Option<Vec<Operation>>,
    /// The value it gives; null is none.
    pub value: Value,
}

impl Answer {
    /// A plain yes.
    pub fn allow() -> Self {
        Answer::default()
    }
}

/// A dialect.
pub trait Codec: Send + Sync {
    /// Its name, as in a hook's `profile`.
    fn name(&self) -> &'static str;

    /// How a secret is turned into a key.
    fn key_scheme(&self) -> KeyScheme;

    /// Whether it sets the header `authorization` itself.
    fn sets_authorization(&self) -> bool;

    /// The address called for a point.
    fn endpoint(&self, url: &str, path: Option<&str>, point: &PointDef) -> String;

    /// The address a probe calls.
    fn probe_endpoint(&self, url: &str, path: Option<&str>, point: &PointDef) -> String;

    /// The body. The same question gives the same bytes.
    fn request_body(&self, question: &Question<'_>) -> Bytes;

    /// The body of a probe (`test`).
    fn probe_body(&self, id: &str, tenant: &TenantId, time: Timestamp) -> Bytes;

    /// Appends the dialect's own headers for one attempt.
    fn sign(&self, envelope: &Envelope<'_>, headers: &mut Vec<(&'static str, String)>);

    /// Reads the body of an answer with a 2xx status, or of a refusal by status.
    ///
    /// # Errors
    /// When it is no answer.
    fn read_body(&self, expected: &Expected<'_>, body: &[u8]) -> Result<Answer, Failure>;

    /// Reads a probe's answer (2xx); a text is a warning.
    ///
    /// # Errors
    /// When the probe did not pass.
    fn read_probe(&self, body: &[u8]) -> Result<Option<&'static str>, Failure>;
}

/// Every dialect, in the order they are listed to people.
pub fn all() -> &'static [&'static dyn Codec] {
    &[&gatepost::Gatepost, &cymmetri::Cymmetri]
}

/// The dialect with this name.
pub fn codec(name: &str) -> Option<&'static dyn Codec> {
    all().iter().copied().find(|codec| codec.name() == name)
}

/// A new secret for a hook of this dialect.
pub fn generate_secret(codec: &dyn Codec, entropy: &(impl Entropy + ?Sized)) -> Secret {
    codec.key_scheme().generate(entropy)
}

/// Statuses that are refusals when a hook says `status_deny`.
pub const DENY_STATUSES: [u16; 3] = [403, 409, 422];

/// Reads an answer whose signature, where one is needed, was checked before.
///
/// # Errors
/// The class of failure it is instead.
pub fn read_answer(codec: &dyn Codec, expected: &Expected<'_>, received: &Received<'_>) -> Result<Answer, Failure> {
    if expected.status_deny && DENY_STATUSES.contains(&received.status) {
        return Ok(status_refusal(codec, expected, received));
    }
    judge_status(received.status)?;
    // What an answer says does not matter where none is read.
    if !expected.point.reads_answers() && expected.point.kind != super::points::PointKind::Probe {
        return Ok(Answer::allow());
    }
    readable(received)?;
    if expected.point.acknowledges && !speaks(received.body) {
        return Ok(Answer::allow());
    }
    codec.read_body(expected, json::without_bom(received.body))
}

/// What a status means where it is no refusal.
///
/// # Errors
/// Everything but 2xx.
pub fn judge_status(status: u16) -> Result<(), Failure> {
    let class = match status {
        200..=299 => return Ok(()),
        300..=399 => FailureClass::Redirect,
        429 => FailureClass::Status429,
        400..=499 => FailureClass::Status4xx,
        _ => FailureClass::Status5xx,
    };
    Err(Failure::new(class, format!("status {status}")))
}

/// Whether a body can be read at all.
///
/// # Errors
/// Too large, or encoded.
pub fn readable(received: &Received<'_>) -> Result<(), Failure> {
    if received.body.len() > limits::ANSWER_MAX {
        return Err(Failure::new(FailureClass::TooLarge, format!("more than {} bytes", limits::ANSWER_MAX)));
    }
    match compression(received.encoding, received.body) {
        None => Ok(()),
        Some(how) => Err(Failure::new(FailureClass::ContentType, compressed(how))),
    }
}

/// Whether a body tries to be an answer, where none is asked for.
fn speaks(body: &[u8]) -> bool {
    let Ok(Value::Object(members)) = parse_strict(json::without_bom(body)) else { return false };
    ["response", "error", "decision", "request"].iter().any(|name| members.contains_key(*name))
}

fn is_blank(body: &[u8]) -> bool {
    body.iter().all(u8::is_ascii_whitespace)
}

/// A refusal by status: its body may say why, in the dialect's form or in none.
fn status_refusal(codec: &dyn Codec, expected: &Expected<'_>, received: &Received<'_>) -> Answer {
    let told = readable(received).ok().and_then(|()| codec.read_body(expected, json::without_bom(received.body)).ok());
    let messages = told.filter(|answer| answer.denies).map(|answer| answer.messages).unwrap_or_default();
    let plain = AnswerMessage { code: format!("status_{}", received.status), ..AnswerMessage::default() };
    Answer { denies: true, messages: if messages.is_empty() { vec![plain] } else { messages }, ..Answer::default() }
}

/// Messages of one answer.
const MESSAGES_MAX: usize = 100;
/// Characters of a code.
const CODE_MAX: usize = 200;
/// Characters of a text.
const TEXT_MAX: usize = 2_000;

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn bad_shape(detail: impl Into<String>) -> Failure {
    Failure::new(FailureClass::BadShape, detail)
}

/// The body as a JSON object.
fn object(body: &[u8]) -> Result<Map, Failure> {
    match parse_strict(body) {
        // The parser's own words may repeat a member's name, which is the receiver's text.
        Err(e) => Err(Failure::new(FailureClass::BadJson, format!("line {}, column {}", e.line, e.column))),
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(bad_shape("not an object")),
    }
}

/// An address with a path put behind its own, before its query.
fn join(url: &str, path: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let mut out = base.trim_end_matches('/').to_owned();
    if !path.is_empty() {
        out.push('/');
        out.push_str(path.trim_start_matches('/'));
    }
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    out
}

#[cfg(test)]
mod tests;
