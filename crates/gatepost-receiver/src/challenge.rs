//! Requests that ask whether an endpoint wants deliveries.

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::error::Error;
use crate::headers::{Headers, may, need};
use crate::reply::Reply;

const OKTA: &str = "x-okta-verification-challenge";
const REQUEST_ORIGIN: &str = "webhook-request-origin";
const REQUEST_RATE: &str = "webhook-request-rate";
/// Bytes of a challenge that is repeated.
const CHALLENGE_MAX: usize = 1_024;

/// Who may send, and how often. Without a host, nobody is told that he may.
#[derive(Clone, Default)]
pub(crate) struct Origins {
    pub(crate) hosts: Vec<String>,
    pub(crate) per_minute: Option<u32>,
}

/// Okta's: the header's value comes back in JSON.
pub(crate) fn okta(headers: &dyn Headers) -> Result<Reply, Error> {
    let value = may(headers, OKTA)?.ok_or(Error::NoChallenge)?;
    if value.is_empty() || value.len() > CHALLENGE_MAX {
        return Err(Error::malformed(OKTA, "a text of 1 to 1024 bytes"));
    }
    Ok(Reply::json(StatusCode::OK, &serde_json::json!({ "verification": value })))
}

/// The handshake of "HTTP 1.1 Web Hooks for Event Delivery" (CloudEvents): consent is in the headers.
pub(crate) fn options(headers: &dyn Headers, origins: &Origins) -> Result<Reply, Error> {
    let Some(origin) = may(headers, REQUEST_ORIGIN)? else { return Err(Error::NoChallenge) };
    if !origins.hosts.iter().any(|host| host.eq_ignore_ascii_case(origin)) {
        return Err(Error::OriginNotAllowed);
    }
    let mut allowed = HeaderMap::new();
    let origin = HeaderValue::try_from(origin).map_err(|_| Error::malformed(REQUEST_ORIGIN, "a host's name"))?;
    allowed.insert("webhook-allowed-origin", origin);
    let rate = match (may(headers, REQUEST_RATE)?, origins.per_minute) {
        (None, None) => HeaderValue::from_static("*"),
        (None, Some(most)) => most.into(),
        (Some(_), most) => {
            let asked = need(headers, REQUEST_RATE)?.parse::<u32>().ok().filter(|rate| *rate > 0);
            let asked = asked.ok_or_else(|| Error::malformed(REQUEST_RATE, "a whole number above 0"))?;
            most.map_or(asked, |most| most.min(asked)).into()
        }
    };
    allowed.insert("webhook-allowed-rate", rate);
    allowed.insert(http::header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    Ok(Reply { status: StatusCode::OK, headers: allowed, body: Vec::new() })
}
