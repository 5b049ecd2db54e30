//! What can go wrong, for people and for programs.

use serde::Deserialize;

/// Why a client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address is not `http://` or `https://` with a host.
    #[error("{0:?} is no address of a Gatepost server: give http:// or https:// with a host")]
    Url(String),
    /// The key cannot be sent.
    #[error("the key holds characters that cannot be sent in a header")]
    Key,
    /// An extra certificate authority could not be read.
    #[error("the extra CA is not PEM with a certificate: {0}")]
    Ca(String),
    /// TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// One wrong member.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wrong {
    /// Which: a JSON pointer into what was sent.
    pub pointer: String,
    /// Why.
    pub message: String,
}

/// Gatepost's no (RFC 9457).
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What kind, for programs: one of the list in `docs/errors.md`.
    pub code: String,
    /// What kind, in words.
    pub title: String,
    /// What is wrong this time.
    pub detail: String,
    /// Every wrong member.
    pub errors: Vec<Wrong>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, if self.detail.is_empty() { &self.title } else { &self.detail })
    }
}

/// Why an event is not known to be accepted.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Gatepost says no: trying again changes nothing.
    #[error("Gatepost refused the event: {0}")]
    Refused(Box<Problem>),
    /// Gatepost could not be reached, or had no room, until the time was over. It may have accepted the
    /// event all the same (its answer was lost): publish the same [`Event`](crate::Event) again later.
    #[error("Gatepost did not accept the event in time: {0}")]
    Unavailable(String),
}

/// Why Gatepost's decision is not known.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Unanswered {
    /// The deadline passed.
    #[error("no answer within the deadline")]
    Late,
    /// No connection, or it broke.
    #[error("not reached: {0}")]
    NotReached(String),
    /// Gatepost refuses the question itself (a wrong key, an unknown point, a bad member): worth an alarm.
    #[error("the question was refused: {0}")]
    Refused(Box<Problem>),
    /// Gatepost cannot decide just now.
    #[error("Gatepost cannot decide just now: {0}")]
    Unavailable(Box<Problem>),
    /// What came back is no decision.
    #[error("the answer is no decision (status {0})")]
    Unreadable(u16),
}
