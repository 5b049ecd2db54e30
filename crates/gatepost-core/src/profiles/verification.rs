//! Verification: how an endpoint proves that it wants what it gets. Everything here is data and
//! pure functions; the engine makes the calls.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use crate::json;

/// What a webhook of a profile does unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DefaultVerification {
    /// The mode's name.
    pub mode: &'static str,
    /// Whether nothing is sent before it has succeeded.
    pub required: bool,
}

impl DefaultVerification {
    /// No verification.
    pub const NONE: DefaultVerification = DefaultVerification { mode: "none", required: false };
}

/// What a challenge is made of.
#[derive(Clone, Copy, Debug)]
pub struct AskFacts<'a> {
    /// Where this server is reached.
    pub public_url: &'a str,
    /// A fresh random text (ASCII letters and digits) no endpoint can guess.
    pub nonce: &'a str,
    /// How many requests per second will be sent at most, if there is a bound.
    pub rate_limit_per_s: Option<u32>,
}

/// What to send in order to verify.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Nothing: the mode is no verification.
    Nothing,
    /// A signed event of type `gatepost.ping`, or the profile's [`Probe`](super::Probe) if it has one.
    Ping,
    /// This request, with the webhook's own headers and auth besides, and no signature.
    Challenge(Challenge),
}

/// An unsigned request that only a willing endpoint answers as wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// `GET`, `OPTIONS`, …
    pub method: &'static str,
    /// Its headers: lower-case names, and values.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// Its body; empty: none.
    pub body: Bytes,
    /// How often it is made again at once when there is no answer or a 5xx.
    pub retries: u32,
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// Names as received, and values.
    pub headers: &'a [(String, String)],
    /// The body, as far as it was read.
    pub body: &'a [u8],
    /// Why the body cannot be taken for what the endpoint said: it is not whole, or compressed.
    pub unreadable: Option<&'a str>,
}

impl Answer<'_> {
    /// A header's value, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as JSON; a byte order mark before it is skipped. `None`: there is nothing but blanks.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn json(&self) -> Result<Option<Value>, String> {
        if let Some(why) = self.unreadable {
            return Err(why.to_owned());
        }
        let body = json::without_bom(self.body).trim_ascii();
        if body.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(body).map(Some).map_err(|_| "the answer is not JSON".to_owned())
    }

    /// Whether the status is a yes.
    ///
    /// # Errors
    /// Says what it is instead.
    pub fn ok(&self) -> Result<(), String> {
        match self.status {
            200..=299 => Ok(()),
            status => Err(format!("the endpoint answered {status}; wanted is 2xx")),
        }
    }
}

/// One way to verify.
pub trait VerificationMode: Send + Sync {
    /// Its name, as in `verification.mode`.
    fn name(&self) -> &'static str;

    /// What to send.
    fn ask(&self, facts: &AskFacts<'_>) -> Ask;

    /// Whether the answer to what [`VerificationMode::ask`] said for the same facts is a yes.
    ///
    /// # Errors
    /// Says, for the webhook's owner, what is missing.
    fn judge(&self, facts: &AskFacts<'_>, answer: &Answer<'_>) -> Result<(), String>;

    /// The header every delivery carries once the endpoint consented: lower-case name, and value.
    fn delivery_header(&self, public_url: &str) -> Option<(&'static str, String)> {
        let _ = public_url;
        None
    }
}

/// `none`: nobody asks.
pub(super) struct NoVerification;

impl VerificationMode for NoVerification {
    fn name(&self) -> &'static str {
        "none"
    }

    fn ask(&self, _: &AskFacts<'_>) -> Ask {
        Ask::Nothing
    }

    fn judge(&self, _: &AskFacts<'_>, _: &Answer<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// `post`: a signed request that is answered with a yes.
pub(super) struct Post;

impl VerificationMode for Post {
    fn name(&self) -> &'static str {
        "post"
    }

    fn ask(&self, _: &AskFacts<'_>) -> Ask {
        Ask::Ping
    }

    fn judge(&self, _: &AskFacts<'_>, answer: &Answer<'_>) -> Result<(), String> {
        answer.ok()
    }
}

/// `options`: the handshake of "HTTP 1.1 Web Hooks for Event Delivery" 1.0.2 (CloudEvents), section 4.
pub(super) struct Options;

const REQUEST_ORIGIN: &str = "webhook-request-origin";
const REQUEST_RATE: &str = "webhook-request-rate";
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
const ALLOWED_RATE: &str = "webhook-allowed-rate";

impl VerificationMode for Options {
    fn name(&self) -> &'static str {
        "options"
    }

    fn ask(&self, facts: &AskFacts<'_>) -> Ask {
        let mut headers = vec![(Cow::Borrowed(REQUEST_ORIGIN), origin(facts.public_url).to_owned())];
        if let Some(rate) = facts.rate_limit_per_s {
            headers.push((Cow::Borrowed(REQUEST_RATE), per_minute(rate).to_string()));
        }
        Ask::Challenge(Challenge { method: "OPTIONS", headers, body: Bytes::new(), retries: 0 })
    }

    /// The status alone is never consent (4.2).
    fn judge(&self, facts: &AskFacts<'_>, answer: &Answer<'_>) -> Result<(), String> {
        answer.ok()?;
        let asked = origin(facts.public_url);
        match answer.header(ALLOWED_ORIGIN) {
            None => return Err(format!("the answer has no {ALLOWED_ORIGIN}; wanted is {asked:?} or \"*\"")),
            Some(allowed) if allowed == "*" || allowed.eq_ignore_ascii_case(asked) => {}
            Some(_) => return Err(format!("{ALLOWED_ORIGIN} allows another origin; wanted is {asked:?} or \"*\"")),
        }
        let Some(rate) = facts.rate_limit_per_s else { return Ok(()) };
        match answer.header(ALLOWED_RATE) {
            Some("*") => Ok(()),
            Some(text) => match text.parse::<u64>() {
                Ok(allowed) if allowed >= per_minute(rate) => Ok(()),
                Ok(allowed) => Err(format!(
                    "{ALLOWED_RATE} allows {allowed} requests per minute: lower rate_limit_per_s to {} or less",
                    allowed / 60
                )),
                Err(_) => Err(format!("{ALLOWED_RATE} is neither a number nor \"*\"")),
            },
            None => Err(format!("the answer has no {ALLOWED_RATE}, though a rate was asked for")),
        }
    }

    fn delivery_header(&self, public_url: &str) -> Option<(&'static str, String)> {
        Some((REQUEST_ORIGIN, origin(public_url).to_owned()))
    }
}

fn per_minute(per_second: u32) -> u64 {
    u64::from(per_second) * 60
}

/// The host of a URL that is known to be one.
fn origin(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer<'a>(status: u16, headers: &'a [(String, String)]) -> Answer<'a> {
        Answer { status, headers, body: b"", unreadable: None }
    }

    #[test]
    fn the_options_handshake() {
        let facts = AskFacts { public_url: "https://hooks.example:8443/gp", nonce: "n", rate_limit_per_s: Some(2) };
        let Ask::Challenge(challenge) = Options.ask(&facts) else { panic!() };
        assert_eq!(challenge.method, "OPTIONS");
        let sent: Vec<_> = challenge.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(sent, [("webhook-request-origin", "hooks.example"), ("webhook-request-rate", "120")]);
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: [(u16, Headers<'_>, bool); 9] = [
            (200, &[("WebHook-Allowed-Origin", "hooks.example"), ("WebHook-Allowed-Rate", "120")], true),
            (204, &[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "*")], true),
            (200, &[("webhook-allowed-origin", " HOOKS.example "), ("webhook-allowed-rate", "500")], true),
            (200, &[], false),
            (200, &[("webhook-allowed-origin", "evil.example"), ("webhook-allowed-rate", "*")], false),
            (200, &[("webhook-allowed-origin", "*")], false),
            (200, &[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "60")], false),
            (200, &[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "many")], false),
            (405, &[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "*")], false),
        ];
        for (status, headers, good) in cases {
            let headers: Vec<_> = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            assert_eq!(Options.judge(&facts, &answer(status, &headers)).is_ok(), good, "{status} {headers:?}");
        }
        let unbounded = AskFacts { rate_limit_per_s: None, ..facts };
        let headers = [("webhook-allowed-origin".to_owned(), "*".to_owned())];
        assert_eq!(Options.judge(&unbounded, &answer(200, &headers)), Ok(()));
        let Ask::Challenge(challenge) = Options.ask(&unbounded) else { panic!() };
        assert_eq!(challenge.headers.len(), 1);
    }

    #[test]
    fn hosts_of_urls() {
        for (url, host) in [
            ("https://a.example", "a.example"),
            ("http://127.0.0.1:8080/x", "127.0.0.1"),
            ("http://[::1]:8080", "::1"),
            ("https://a.example/b:c", "a.example"),
        ] {
            assert_eq!(origin(url), host);
        }
    }

    #[test]
    fn a_ping_is_verified_by_any_yes() {
        let facts = AskFacts { public_url: "https://a.example", nonce: "n", rate_limit_per_s: None };
        assert_eq!(Post.ask(&facts), Ask::Ping);
        for (status, good) in [(200, true), (204, true), (299, true), (300, false), (404, false), (503, false)] {
            assert_eq!(Post.judge(&facts, &answer(status, &[])).is_ok(), good, "{status}");
        }
        assert_eq!(NoVerification.ask(&facts), Ask::Nothing);
    }
}
