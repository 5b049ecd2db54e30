//! Deliveries and attempts: what is owed, what was tried, what came back.

use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Where a delivery stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Owed; due at its `next_attempt_at`.
    Pending,
    /// Owed, but its webhook takes nothing at present.
    Held,
    /// A receiver said yes.
    Delivered,
    /// Given up.
    Failed,
    /// No longer owed.
    Cancelled,
}

impl DeliveryState {
    /// Every state, in the order stored (0, 1, ...). `Held` is never stored: a pending delivery of a
    /// webhook that takes nothing *is* held.
    pub const ALL: [DeliveryState; 5] = [
        DeliveryState::Pending,
        DeliveryState::Held,
        DeliveryState::Delivered,
        DeliveryState::Failed,
        DeliveryState::Cancelled,
    ];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Pending => "pending",
            DeliveryState::Held => "held",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Failed => "failed",
            DeliveryState::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will be tried by itself.
    pub fn is_terminal(self) -> bool {
        !matches!(self, DeliveryState::Pending | DeliveryState::Held)
    }
}

impl FromStr for DeliveryState {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == s).ok_or(())
    }
}

/// Why a delivery is terminal or held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The schedule ran out.
    Exhausted,
    /// Silence, and the policy does not retry silence.
    NoAnswer,
    /// A status or a target the policy does not retry.
    Rejected,
    /// 410.
    Gone,
    /// Its webhook was deleted.
    WebhookDeleted,
    /// Its tenant was deleted.
    TenantDeleted,
    /// Cancelled by hand.
    ByUser,
    /// Older than retention while held.
    Expired,
    /// Held: the webhook is disabled.
    WebhookDisabled,
    /// Held: the webhook must be verified and is not.
    Unverified,
    /// Held: the webhook is paused.
    Paused,
}

impl Reason {
    /// Every reason, in the order stored (0, 1, ...).
    pub const ALL: [Reason; 11] = [
        Reason::Exhausted,
        Reason::NoAnswer,
        Reason::Rejected,
        Reason::Gone,
        Reason::WebhookDeleted,
        Reason::TenantDeleted,
        Reason::ByUser,
        Reason::Expired,
        Reason::WebhookDisabled,
        Reason::Unverified,
        Reason::Paused,
    ];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Exhausted => "exhausted",
            Reason::NoAnswer => "no_answer",
            Reason::Rejected => "rejected",
            Reason::Gone => "gone",
            Reason::WebhookDeleted => "webhook_deleted",
            Reason::TenantDeleted => "tenant_deleted",
            Reason::ByUser => "by_user",
            Reason::Expired => "expired",
            Reason::WebhookDisabled => "webhook_disabled",
            Reason::Unverified => "unverified",
            Reason::Paused => "paused",
        }
    }
}

/// What one HTTP request came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 2xx.
    Ok,
    /// Any other status.
    HttpStatus,
    /// No whole status line and headers in time.
    Timeout,
    /// No TCP connection.
    Connect,
    /// The name did not resolve.
    Dns,
    /// The TLS handshake failed.
    Tls,
    /// The address is outside the egress policy.
    BlockedAddress,
    /// The connection was closed without an answer.
    Reset,
    /// What came was not HTTP.
    Protocol,
    /// The URL cannot be called.
    InvalidUrl,
}

impl Outcome {
    /// The word used in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::HttpStatus => "http_status",
            Outcome::Timeout => "timeout",
            Outcome::Connect => "connect",
            Outcome::Dns => "dns",
            Outcome::Tls => "tls",
            Outcome::BlockedAddress => "blocked_address",
            Outcome::Reset => "reset",
            Outcome::Protocol => "protocol",
            Outcome::InvalidUrl => "invalid_url",
        }
    }

    /// Every outcome.
    pub const ALL: [Outcome; 10] = [
        Outcome::Ok,
        Outcome::HttpStatus,
        Outcome::Timeout,
        Outcome::Connect,
        Outcome::Dns,
        Outcome::Tls,
        Outcome::BlockedAddress,
        Outcome::Reset,
        Outcome::Protocol,
        Outcome::InvalidUrl,
    ];

    /// The outcome of a whole answer with `status`.
    pub fn of_status(status: u16) -> Outcome {
        if (200..300).contains(&status) { Outcome::Ok } else { Outcome::HttpStatus }
    }
}

/// What set an attempt off.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The schedule.
    #[default]
    Scheduled,
    /// A person.
    Manual,
    /// A test; never stored with a delivery.
    Test,
}

impl Trigger {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Scheduled => "scheduled",
            Trigger::Manual => "manual",
            Trigger::Test => "test",
        }
    }
}

/// How long each phase of an attempt took, in microseconds; `None` for a phase that did not take
/// place (a reused connection has no `dns`, `connect` or `tls`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Name resolution.
    pub dns_us: Option<u32>,
    /// TCP connect.
    pub connect_us: Option<u32>,
    /// TLS handshake.
    pub tls_us: Option<u32>,
    /// From the first byte written to the answer's head.
    pub first_byte_us: Option<u32>,
    /// Everything, the answer's body included.
    pub total_us: u32,
}

/// What came back: the head, and the body as far as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Response {
    /// Header names and values as received, at most 16 KiB in all.
    pub headers: Vec<(String, String)>,
    /// At most 16 KiB of the body.
    pub body: Bytes,
    /// Whether the body was longer than what is kept, or broke off.
    pub truncated: bool,
}

impl Response {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Why the body cannot be taken for what was answered, where at most `kept` bytes of it are kept: it
    /// is not whole, or it is compressed. Whoever reads a body asks this first.
    pub fn unreadable(&self, kept: usize) -> Option<String> {
        if self.truncated {
            let too_large = self.body.len() >= kept;
            let cut = format!("the answer is too large: at most {} KiB of it are read", kept / 1024);
            return Some(if too_large { cut } else { "the answer broke off before its end".to_owned() });
        }
        compression(self.header("content-encoding"), &self.body).map(compressed)
    }
}

/// How a body is compressed, by its `content-encoding` or, where that says nothing, by its first bytes.
pub fn compression<'a>(encoding: Option<&'a str>, body: &[u8]) -> Option<&'a str> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    match encoding.map(str::trim).filter(|encoding| !encoding.is_empty()) {
        Some(named) if !named.eq_ignore_ascii_case("identity") => Some(named),
        _ => body.starts_with(&GZIP).then_some("gzip"),
    }
}

/// Names a compressed answer, with the remedy. Of the receiver's own word for it only what looks like one
/// is repeated.
pub fn compressed(how: &str) -> String {
    let plain = how.len() <= 40 && how.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_., ".contains(&b));
    let how = if plain { how } else { "unknown coding" };
    format!("the answer is compressed ({how}), though accept-encoding asks for identity: send it as it is")
}

/// What went out that cannot be told from elsewhere. Everything else about a request (url, ids,
/// names of headers) follows from the event, the delivery and the webhook's revision; keeping it
/// again for each attempt would triple what a delivery costs on disk (ADR 0001).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// The webhook's revision at the attempt: its url and the names of its own headers.
    pub revision: u32,
    /// The values of the headers that carry id, time and signature, in the profile's order. Empty
    /// when the request was never made.
    pub signed: Vec<SentValue>,
}

/// A header value as kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SentValue {
    /// The event's id.
    EventId,
    /// The second the attempt started, since the Unix epoch.
    StartedAt,
    /// This.
    Text(String),
    /// The delivery's id.
    DeliveryId,
}

/// A request to show. The body is the delivery's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// The URL as called.
    pub url: String,
    /// Header names and values as sent; the value of a tenant's own header is `***`.
    pub headers: Vec<(String, String)>,
}

/// One HTTP request for a delivery: a fact, kept in the store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Which attempt of the delivery, from 1, over all budgets.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// What set it off.
    pub trigger: Trigger,
    /// What it came to.
    pub outcome: Outcome,
    /// The HTTP status, if one arrived.
    pub status: Option<u16>,
    /// One line for a person, when it failed. Never holds a secret or an inner address.
    pub error: Option<String>,
    /// How long it took.
    pub timings: Timings,
    /// What went out.
    pub sent: Sent,
    /// What came back, if anything did.
    pub response: Option<Response>,
    /// Whether the request went out a second time: the connection it went out on first had been kept, and
    /// was cut before anything of an answer came. Last, for records made before there was this member.
    pub resent: bool,
}

impl AttemptRecord {
    /// When it ended: what the schedule's waits run from.
    pub fn ended_at(&self) -> Timestamp {
        self.started_at.saturating_add(std::time::Duration::from_micros(u64::from(self.timings.total_us)))
    }
}
