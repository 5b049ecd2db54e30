//! Acknowledgement and retry: what an answer means, and when the next attempt is due (DESIGN 4.1).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Timestamp;
use crate::delivery::{DeliveryState, Outcome, Reason};

/// A group of failures, or one status, that a policy retries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RetryClass {
    /// No whole status line and headers in time.
    Timeout,
    /// No answer for any other reason: name, connection, TLS, reset, not HTTP.
    Transport,
    /// Any 3xx.
    S3xx,
    /// Any 4xx.
    S4xx,
    /// Any 5xx.
    S5xx,
    /// One status, 300 to 599.
    Status(u16),
}

/// Why a text is not a [`RetryClass`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be \"timeout\", \"transport\", \"3xx\", \"4xx\", \"5xx\" or a status from 300 to 599")]
pub struct BadRetryClass;

impl RetryClass {
    /// The class of one status, 300 to 599.
    pub fn status(status: u64) -> Result<Self, BadRetryClass> {
        match u16::try_from(status) {
            Ok(code @ 300..=599) => Ok(RetryClass::Status(code)),
            _ => Err(BadRetryClass),
        }
    }
}

impl fmt::Display for RetryClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RetryClass::Timeout => "timeout",
            RetryClass::Transport => "transport",
            RetryClass::S3xx => "3xx",
            RetryClass::S4xx => "4xx",
            RetryClass::S5xx => "5xx",
            RetryClass::Status(code) => return write!(f, "{code}"),
        })
    }
}

impl FromStr for RetryClass {
    type Err = BadRetryClass;

    fn from_str(s: &str) -> Result<Self, BadRetryClass> {
        match s {
            "timeout" => Ok(RetryClass::Timeout),
            "transport" => Ok(RetryClass::Transport),
            "3xx" => Ok(RetryClass::S3xx),
            "4xx" => Ok(RetryClass::S4xx),
            "5xx" => Ok(RetryClass::S5xx),
            // Exactly three digits: "+429" and "0429" are not statuses.
            _ if s.len() == 3 && s.bytes().all(|b| b.is_ascii_digit()) => {
                RetryClass::status(s.parse().map_err(|_| BadRetryClass)?)
            }
            _ => Err(BadRetryClass),
        }
    }
}

impl Serialize for RetryClass {
    /// Classes as texts, single statuses as numbers.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            RetryClass::Status(code) => s.serialize_u16(*code),
            class => s.collect_str(class),
        }
    }
}

impl<'de> Deserialize<'de> for RetryClass {
    /// Reads texts, and single statuses as numbers or texts.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = RetryClass;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"timeout\", \"transport\", \"3xx\", \"4xx\", \"5xx\" or a status")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RetryClass, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, status: u64) -> Result<RetryClass, E> {
                RetryClass::status(status).map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// What 410 means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneRule {
    /// Cancel this delivery only.
    Cancel,
    /// Fail this delivery and disable the webhook.
    Disable,
    /// Fail this delivery.
    Final,
}

/// What a webhook changes about its profile's Retry-After rule, by member.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RetryAfterOverride {
    /// On which statuses Retry-After is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Vec<u16>>,
    /// The longest wait it may ask for, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_s: Option<u32>,
}

/// What a webhook changes about its profile's retry policy, by member (SETTLED, Webhooks).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RetryOverride {
    /// Seconds between attempts; empty means one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Vec<f64>>,
    /// Fraction of a wait by which it may vary either way, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// What is retried; what is not listed is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<Vec<RetryClass>>,
    /// What 410 means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<GoneRule>,
    /// When Retry-After is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfterOverride>,
}

/// Most waits a policy may have.
pub const WAITS_MAX: usize = 32;
/// The longest wait, in seconds: 30 days.
pub const WAIT_MAX_S: f64 = 30.0 * 86_400.0;
/// The longest wait a Retry-After may ask for, in seconds: 24 hours.
pub const RETRY_AFTER_CAP_S: u32 = 86_400;

impl RetryOverride {
    /// What is wrong with the members, as (JSON pointer within `retry`, message); empty when all
    /// are within bounds.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if let Some(waits) = &self.waits {
            if waits.len() > WAITS_MAX {
                found.push(("/waits".into(), format!("at most {WAITS_MAX} waits")));
            }
            for (i, wait) in waits.iter().enumerate() {
                if !(0.0..=WAIT_MAX_S).contains(wait) {
                    let message = format!("must be 0 to {WAIT_MAX_S} seconds (30 days)");
                    found.push((format!("/waits/{i}"), message));
                }
            }
        }
        if self.jitter.is_some_and(|jitter| !(0.0..=1.0).contains(&jitter)) {
            found.push(("/jitter".into(), "must be 0 to 1".into()));
        }
        if let Some(rule) = &self.retry_after {
            for (i, status) in rule.statuses.iter().flatten().enumerate() {
                if !(300..=599).contains(status) {
                    found.push((format!("/retry_after/statuses/{i}"), "must be a status from 300 to 599".into()));
                }
            }
            if rule.cap_s.is_some_and(|cap| !(1..=RETRY_AFTER_CAP_S).contains(&cap)) {
                let message = format!("must be 1 to {RETRY_AFTER_CAP_S} seconds (24 hours)");
                found.push(("/retry_after/cap_s".into(), message));
            }
        }
        found
    }
}

/// When a receiver's Retry-After is heard (RFC 9110, 10.2.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetryAfterRule {
    /// On which statuses.
    pub statuses: Cow<'static, [u16]>,
    /// The longest wait it may ask for, in seconds.
    pub cap_s: u32,
    /// Whether it takes the place of the schedule's wait (Cryptr) instead of only making it longer.
    pub replaces: bool,
}

/// How failures are answered: data, one value per profile (DESIGN 4.1).
#[derive(Clone, PartialEq, Debug)]
pub struct RetryPolicy {
    /// Seconds from the end of one attempt to the start of the next. A budget has one attempt more
    /// than there are waits.
    pub waits: Cow<'static, [f64]>,
    /// How many of the first waits are kept exactly: a fast phase has no jitter.
    pub exact_waits: usize,
    /// Fraction of a wait by which it may vary either way, 0 to 1.
    pub jitter: f64,
    /// What is retried; what is not listed is final.
    pub retry_on: Cow<'static, [RetryClass]>,
    /// What 410 means, whatever `retry_on` lists.
    pub gone: GoneRule,
    /// When Retry-After is heard.
    pub retry_after: RetryAfterRule,
    /// How long an attempt may take until its status line and headers are there, in milliseconds.
    pub timeout_ms: u32,
}

/// What an attempt came to, as far as the rules look at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttemptFacts<'a> {
    /// What it came to.
    pub outcome: Outcome,
    /// The HTTP status, if a status line arrived.
    pub status: Option<u16>,
    /// The value of the Retry-After header, if there was one.
    pub retry_after: Option<&'a str>,
    /// When the attempt ended: what waits run from.
    pub ended_at: Timestamp,
}

/// What follows from an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The receiver said yes.
    Delivered,
    /// Try again.
    Retry {
        /// When the next attempt is due.
        at: Timestamp,
        /// Until when nothing goes to the whole webhook, when a Retry-After was heard.
        pause_until: Option<Timestamp>,
    },
    /// No more attempts in this budget.
    End {
        /// The delivery's terminal state.
        state: DeliveryState,
        /// Why.
        reason: Reason,
        /// Whether the webhook is disabled as well (410 under [`GoneRule::Disable`]).
        disable_webhook: bool,
        /// Until when nothing goes to the whole webhook, when a Retry-After was heard.
        pause_until: Option<Timestamp>,
    },
}

impl RetryPolicy {
    /// This policy with a webhook's overrides. Own `waits` have no fast phase; an own `jitter` goes
    /// for every wait.
    pub fn with(&self, over: Option<&RetryOverride>, timeout_ms: Option<u32>) -> RetryPolicy {
        let mut policy = self.clone();
        if let Some(ms) = timeout_ms {
            policy.timeout_ms = ms;
        }
        let Some(over) = over else { return policy };
        if let Some(waits) = &over.waits {
            policy.waits = Cow::Owned(waits.clone());
            policy.exact_waits = 0;
        }
        if let Some(jitter) = over.jitter {
            policy.jitter = jitter;
            policy.exact_waits = 0;
        }
        if let Some(classes) = &over.retry_on {
            policy.retry_on = Cow::Owned(classes.clone());
        }
        if let Some(gone) = over.gone {
            policy.gone = gone;
        }
        if let Some(rule) = &over.retry_after {
            if let Some(statuses) = &rule.statuses {
                policy.retry_after.statuses = Cow::Owned(statuses.clone());
            }
            if let Some(cap) = rule.cap_s {
                policy.retry_after.cap_s = cap;
            }
        }
        policy
    }

    /// How many attempts a budget has.
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.waits.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The wait after attempt `attempt_in_budget` (from 1), jitter applied; `None` when there is
    /// no further attempt. `unit` is a random number in `0.0..1.0`.
    fn wait_after(&self, attempt_in_budget: u32, unit: f64) -> Option<Duration> {
        let index = usize::try_from(attempt_in_budget).ok()?.saturating_sub(1);
        let base = self.waits.get(index)?.clamp(0.0, WAIT_MAX_S);
        let jitter = if index < self.exact_waits { 0.0 } else { self.jitter.clamp(0.0, 1.0) };
        let seconds = base * (1.0 + jitter * (2.0 * unit.clamp(0.0, 1.0) - 1.0));
        // A NaN from outside (clamp keeps it) must not stop the schedule.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(1)))
    }

    fn retries(&self, failure: Failure) -> bool {
        self.retry_on.iter().any(|class| match (class, failure) {
            (RetryClass::Timeout, Failure::Timeout) | (RetryClass::Transport, Failure::Transport) => true,
            (RetryClass::S3xx, Failure::Status(code)) => code / 100 == 3,
            (RetryClass::S4xx, Failure::Status(code)) => code / 100 == 4,
            // A status of 600 or more is to be taken for a 5xx (RFC 9110, 15).
            (RetryClass::S5xx, Failure::Status(code)) => code / 100 >= 5,
            (RetryClass::Status(one), Failure::Status(code)) => *one == code,
            _ => false,
        })
    }

    /// Until when the receiver asked to be left alone, if this policy listens.
    fn heard_retry_after(&self, what: &AttemptFacts<'_>) -> Option<Timestamp> {
        let status = what.status?;
        if !self.retry_after.statuses.contains(&status) {
            return None;
        }
        let asked = parse_retry_after(what.retry_after?, what.ended_at)?;
        let cap = Duration::from_secs(u64::from(self.retry_after.cap_s.clamp(1, RETRY_AFTER_CAP_S)));
        Some(what.ended_at.saturating_add(asked.min(cap)))
    }
}

/// A failure, as `retry_on` tells them apart.
#[derive(Clone, Copy)]
enum Failure {
    Timeout,
    Transport,
    Status(u16),
    /// The target may not or cannot be called: no policy retries it.
    Target,
}

impl Failure {
    fn of(what: &AttemptFacts<'_>) -> Failure {
        match what.outcome {
            Outcome::Timeout => Failure::Timeout,
            Outcome::BlockedAddress | Outcome::InvalidUrl => Failure::Target,
            Outcome::Connect | Outcome::Dns | Outcome::Tls | Outcome::Reset | Outcome::Protocol => Failure::Transport,
            Outcome::Ok | Outcome::HttpStatus => match what.status {
                Some(code) if code >= 200 => Failure::Status(code),
                // An interim status as the last word (or none at all) answers nothing.
                _ => Failure::Transport,
            },
        }
    }
}

/// The whole table of DESIGN 4.1: what follows from attempt number `attempt_in_budget` (from 1).
///
/// Total: every outcome, status and header value has exactly one verdict. `unit` is a random number
/// in `0.0..1.0`, for jitter.
pub fn judge(policy: &RetryPolicy, attempt_in_budget: u32, what: &AttemptFacts<'_>, unit: f64) -> Verdict {
    if what.outcome == Outcome::Ok {
        return Verdict::Delivered;
    }
    let pause_until = policy.heard_retry_after(what);
    let end = |state, reason, disable_webhook| Verdict::End { state, reason, disable_webhook, pause_until };
    let failure = Failure::of(what);
    if matches!(failure, Failure::Status(410)) {
        return match policy.gone {
            GoneRule::Cancel => end(DeliveryState::Cancelled, Reason::Gone, false),
            GoneRule::Disable => end(DeliveryState::Failed, Reason::Gone, true),
            GoneRule::Final => end(DeliveryState::Failed, Reason::Gone, false),
        };
    }
    if !policy.retries(failure) {
        let reason = match failure {
            Failure::Timeout | Failure::Transport => Reason::NoAnswer,
            Failure::Status(_) | Failure::Target => Reason::Rejected,
        };
        return end(DeliveryState::Failed, reason, false);
    }
    let Some(wait) = policy.wait_after(attempt_in_budget, unit) else {
        return end(DeliveryState::Failed, Reason::Exhausted, false);
    };
    let scheduled = what.ended_at.saturating_add(wait);
    let at = match pause_until {
        Some(asked) if policy.retry_after.replaces => asked,
        Some(asked) => asked.max(scheduled),
        None => scheduled,
    };
    Verdict::Retry { at, pause_until }
}

/// Reads a Retry-After value of either form, relative to `ended_at`. Zero becomes one second; a
/// moment not after `ended_at`, and anything else, is `None`.
pub fn parse_retry_after(text: &str, ended_at: Timestamp) -> Option<Duration> {
    let text = text.trim_matches([' ', '\t']);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number holds is still a number: a very long wait.
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds.clamp(1, u64::from(u32::MAX))));
    }
    // The library answers in the standard library's time; no clock is read here.
    let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let until = Timestamp::EPOCH.saturating_add(since_epoch);
    (until > ended_at).then(|| until.since(ended_at))
}

#[cfg(test)]
mod tests;
