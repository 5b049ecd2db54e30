//! Attempts and tests, as they are answered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_core::delivery::{AttemptRecord, Outcome, Request, Response, Timings};
use gatepost_core::{AttemptId, DeliveryId, Timestamp};
use gatepost_engine::ops::TestResult;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::wire::schema;

/// The last test of a webhook.
#[derive(Serialize, ToSchema)]
#[schema(as = LastTest)]
pub(crate) struct ShowLastTest<'a> {
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    delivered: bool,
    #[schema(value_type = schema::Outcome)]
    outcome: &'static str,
    status: Option<u16>,
    duration_ms: u32,
    error: Option<&'a str>,
}

impl<'a> From<&'a AttemptRecord> for ShowLastTest<'a> {
    fn from(attempt: &'a AttemptRecord) -> Self {
        ShowLastTest {
            started_at: attempt.started_at,
            delivered: attempt.outcome == Outcome::Ok,
            outcome: attempt.outcome.as_str(),
            status: attempt.status,
            duration_ms: millis(attempt.timings.total_us),
            error: attempt.error.as_deref(),
        }
    }
}

/// What a test came to.
#[derive(Serialize, ToSchema)]
#[schema(as = TestResult)]
pub(crate) struct ShowTest<'a> {
    /// Whether a receiver said yes.
    delivered: bool,
    status: Option<u16>,
    duration_ms: u32,
    request: ShowRequest<'a>,
    response: Option<ShowResponse<'a>>,
    error: Option<&'a str>,
}

impl<'a> From<&'a TestResult> for ShowTest<'a> {
    fn from(test: &'a TestResult) -> Self {
        let attempt = &test.attempt;
        ShowTest {
            delivered: attempt.outcome == Outcome::Ok,
            status: attempt.status,
            duration_ms: millis(attempt.timings.total_us),
            request: ShowRequest::new(&test.request, Some(&test.body)),
            response: attempt.response.as_ref().map(ShowResponse::from),
            error: attempt.error.as_deref(),
        }
    }
}

/// One HTTP request for a delivery.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct ShowAttempt<'a> {
    id: String,
    /// Which attempt of the delivery, from 1.
    number: u32,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    duration_ms: u32,
    #[schema(value_type = schema::Outcome)]
    outcome: &'static str,
    status: Option<u16>,
    error: Option<&'a str>,
    #[schema(value_type = schema::Trigger)]
    trigger: &'static str,
    request: ShowRequest<'a>,
    response: Option<ShowResponse<'a>>,
    timings: ShowTimings,
    /// Whether the request went out a second time within the attempt: on the connection kept from before,
    /// which was cut before anything of an answer came, nobody can tell whether it arrived.
    resent: bool,
}

impl<'a> ShowAttempt<'a> {
    pub(super) fn new(delivery: DeliveryId, attempt: &'a AttemptRecord, request: ShowRequest<'a>) -> Self {
        ShowAttempt {
            id: AttemptId::new(delivery, attempt.number).to_string(),
            number: attempt.number,
            started_at: attempt.started_at,
            duration_ms: millis(attempt.timings.total_us),
            outcome: attempt.outcome.as_str(),
            status: attempt.status,
            error: attempt.error.as_deref(),
            trigger: attempt.trigger.as_str(),
            request,
            response: attempt.response.as_ref().map(ShowResponse::from),
            timings: ShowTimings::from(&attempt.timings),
            resent: attempt.resent,
        }
    }
}

/// What went out. Values of the tenant's own headers are `***`.
#[derive(Serialize, ToSchema)]
#[schema(as = SentRequest)]
pub(crate) struct ShowRequest<'a> {
    url: &'a str,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    headers: Headers<'a>,
    #[serde(flatten)]
    #[schema(inline)]
    body: ShowBody<'a>,
}

impl<'a> ShowRequest<'a> {
    pub(super) fn new(request: &'a Request, body: Option<&'a [u8]>) -> Self {
        ShowRequest { url: &request.url, headers: Headers(&request.headers), body: ShowBody::new(body) }
    }
}

/// What came back.
#[derive(Serialize, ToSchema)]
#[schema(as = ReceivedResponse)]
pub(crate) struct ShowResponse<'a> {
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    headers: Headers<'a>,
    #[serde(flatten)]
    #[schema(inline)]
    body: ShowBody<'a>,
    /// Whether the body was longer than what is kept, or broke off.
    truncated: bool,
}

impl<'a> From<&'a Response> for ShowResponse<'a> {
    fn from(response: &'a Response) -> Self {
        ShowResponse {
            headers: Headers(&response.headers),
            body: ShowBody::new(Some(&response.body)),
            truncated: response.truncated,
        }
    }
}

/// A body: text, or base64 when it is not UTF-8.
#[derive(Serialize, ToSchema)]
struct ShowBody<'a> {
    /// The body as text; null when it is not known, or not text (then `body_base64` has it).
    body: Option<&'a str>,
    /// The body when it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl<'a> ShowBody<'a> {
    fn new(bytes: Option<&'a [u8]>) -> Self {
        match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
            None => ShowBody { body: None, body_base64: None },
            Some(Ok(text)) => ShowBody { body: Some(text), body_base64: None },
            Some(Err(bytes)) => ShowBody { body: None, body_base64: Some(STANDARD.encode(bytes)) },
        }
    }
}

/// Headers as an object; values of a name that came more than once are joined by a comma.
struct Headers<'a>(&'a [(String, String)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, value)) in self.0.iter().enumerate() {
            let same = |other: &&(String, String)| other.0.eq_ignore_ascii_case(name);
            if self.0[..index].iter().any(|earlier| same(&earlier)) {
                continue;
            }
            let mut later = self.0[index + 1..].iter().filter(same).peekable();
            if later.peek().is_none() {
                map.serialize_entry(name, value)?;
            } else {
                let joined = later.fold(value.clone(), |joined, (_, value)| joined + ", " + value);
                map.serialize_entry(name, &joined)?;
            }
        }
        map.end()
    }
}

/// How long each phase took, in whole milliseconds; null for a phase that did not take place.
#[derive(Serialize, ToSchema)]
#[schema(as = Timings)]
pub(crate) struct ShowTimings {
    dns: Option<u32>,
    connect: Option<u32>,
    tls: Option<u32>,
    first_byte: Option<u32>,
    total: u32,
}

impl From<&Timings> for ShowTimings {
    fn from(timings: &Timings) -> Self {
        ShowTimings {
            dns: timings.dns_us.map(millis),
            connect: timings.connect_us.map(millis),
            tls: timings.tls_us.map(millis),
            first_byte: timings.first_byte_us.map(millis),
            total: millis(timings.total_us),
        }
    }
}

/// Microseconds, rounded to milliseconds.
pub(super) fn millis(micros: u32) -> u32 {
    micros.saturating_add(500) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_headers_are_joined_once() {
        let headers = [("Vary", "a"), ("X", "1"), ("vary", "b")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(serde_json::to_string(&Headers(&headers)).unwrap(), r#"{"Vary":"a, b","X":"1"}"#);
    }

    #[test]
    fn bodies_are_text_or_base64() {
        let text = serde_json::to_string(&ShowBody::new(Some(b"a\"b"))).unwrap();
        assert_eq!(text, r#"{"body":"a\"b"}"#);
        let bytes = serde_json::to_string(&ShowBody::new(Some(&[0xff, 0]))).unwrap();
        assert_eq!(bytes, r#"{"body":null,"body_base64":"/wA="}"#);
    }

    #[test]
    fn durations_are_rounded() {
        assert_eq!([0, 499, 500, 1_499, 1_500].map(millis), [0, 0, 1, 1, 2]);
    }
}
