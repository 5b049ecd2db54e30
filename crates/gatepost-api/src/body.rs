//! Reading bodies: of a known kind, of bounded size, in bounded time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::problem::{ErrorCode, Problem};
use crate::state::Api;

/// Bodies in memory at once, all requests together (P10).
pub(crate) const ALLOWANCE_KIB: usize = 256 << 10;
/// How long a request waits for room before it is told to come back.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// A body must come at this rate on average, in bytes a second, after a grace of [`BODY_GRACE`].
const BODY_RATE: u64 = 16 << 10;
const BODY_GRACE: Duration = Duration::from_secs(20);
/// How much of a body that is too large is read and thrown away, so that the answer is heard: a
/// connection closed under a sender's hands loses it.
const DRAIN_MAX: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What a body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// `application/json`, or not said.
    Json,
    /// `application/merge-patch+json`.
    MergePatch,
    /// `application/x-ndjson`.
    Ndjson,
    /// `application/cloudevents+json`.
    CloudEvent,
    /// `application/cloudevents-batch+json`.
    CloudEvents,
}

impl Content {
    const ALL: [Content; 5] =
        [Content::Json, Content::MergePatch, Content::Ndjson, Content::CloudEvent, Content::CloudEvents];

    /// The media type.
    fn name(self) -> &'static str {
        match self {
            Content::Json => "application/json",
            Content::MergePatch => "application/merge-patch+json",
            Content::Ndjson => "application/x-ndjson",
            Content::CloudEvent => "application/cloudevents+json",
            Content::CloudEvents => "application/cloudevents-batch+json",
        }
    }

    /// Whether bodies of this kind hold many events.
    pub(crate) fn is_batch(self) -> bool {
        matches!(self, Content::Ndjson | Content::CloudEvents)
    }

    /// Refuses bodies that are compressed.
    pub(crate) fn plain(headers: &HeaderMap) -> Result<(), Problem> {
        match headers.get(CONTENT_ENCODING) {
            Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
                let detail = "bodies with a content encoding are not read; send it plain";
                Err(Problem::new(ErrorCode::UnsupportedMediaType, detail))
            }
            _ => Ok(()),
        }
    }

    /// What the headers say the body is; it must be one of `accepted`. Not said means JSON.
    pub(crate) fn of(headers: &HeaderMap, accepted: &[Content]) -> Result<Content, Problem> {
        Content::plain(headers)?;
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Content::Json) };
        let unsupported = || {
            let names: Vec<_> = accepted.iter().map(|content| content.name()).collect();
            let mut detail = format!("this call reads {}", names.join(", "));
            if value.as_bytes().starts_with(b"application/x-www-form-urlencoded") {
                detail.push_str(
                    "; some clients call every body a form unless told otherwise: say it is application/json",
                );
            }
            Problem::new(ErrorCode::UnsupportedMediaType, detail)
        };
        let mut parts = value.to_str().map_err(|_| unsupported())?.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let utf8 =
            |value: &str| ["utf-8", "utf8"].iter().any(|name| value.trim_matches('"').eq_ignore_ascii_case(name));
        let charset = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
        if charset.is_some_and(|(_, value)| !utf8(value.trim())) {
            return Err(Problem::new(ErrorCode::UnsupportedMediaType, "only UTF-8 is read"));
        }
        Content::ALL
            .into_iter()
            .find(|content| content.name().eq_ignore_ascii_case(media_type))
            .filter(|content| accepted.contains(content))
            .ok_or_else(unsupported)
    }
}

/// Reads a body of at most `limit` bytes, once there is room for it.
pub(crate) async fn read(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        // Whoever waits for a 100 has not sent the body and need not.
        if !headers.contains_key(EXPECT) {
            drain(body).await;
        }
        return Err(too_large(limit));
    }
    let most = announced.unwrap_or(limit);
    let room = room(api, most).await?;
    let time = BODY_GRACE + Duration::from_secs(most as u64 / BODY_RATE);
    match tokio::time::timeout(time, collect(body, announced.unwrap_or(0), limit)).await {
        Ok(Ok(bytes)) => Ok((bytes, room)),
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(Problem::new(ErrorCode::RequestTimeout, "the body did not arrive in time")),
    }
}

/// A share of the allowance for a body of `bytes`.
async fn room(api: &Api, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
    let kib = u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX).min(ALLOWANCE_KIB as u32);
    let waiting = Arc::clone(api.bodies()).acquire_many_owned(kib);
    if let Ok(Ok(permit)) = tokio::time::timeout(ROOM_WAIT, waiting).await {
        return Ok(permit);
    }
    let policy = format!("\"bodies\";q={};qu=\"content-bytes\";w=1", ALLOWANCE_KIB << 10);
    let mut problem = Problem::new(ErrorCode::TooManyRequests, "too many large requests at once; try again")
        .with(RETRY_AFTER, HeaderValue::from_static("1"))
        .with(HeaderName::from_static("ratelimit"), HeaderValue::from_static("\"bodies\";r=0;t=1"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        problem = problem.with(HeaderName::from_static("ratelimit-policy"), policy);
    }
    Err(problem)
}

/// All of the body. One that came in one piece is not copied.
async fn collect(mut body: Body, expected: usize, limit: usize) -> Result<Bytes, Problem> {
    let mut first: Option<Bytes> = None;
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            Problem::new(ErrorCode::BodyUnreadable, "the body broke off before its end")
        })?;
        // Trailers say nothing to us.
        let Ok(data) = frame.into_data() else { continue };
        let so_far = rest.as_ref().map_or(first.as_ref().map_or(0, Bytes::len), BytesMut::len);
        if so_far + data.len() > limit {
            drain(body).await;
            return Err(too_large(limit));
        }
        match (&mut rest, first.take()) {
            (Some(all), _) => all.extend_from_slice(&data),
            (None, None) => first = Some(data),
            (None, Some(start)) => {
                let mut all = BytesMut::with_capacity(expected.max(start.len() + data.len()));
                all.extend_from_slice(&start);
                all.extend_from_slice(&data);
                rest = Some(all);
            }
        }
    }
    Ok(rest.map(BytesMut::freeze).or(first).unwrap_or_default())
}

/// Throws away what is left of a body, within reason.
async fn drain(mut body: Body) {
    let draining = async {
        let mut left = DRAIN_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Too slow or not, the answer is the same.
    let _ = tokio::time::timeout(DRAIN_TIME, draining).await;
}

fn too_large(limit: usize) -> Problem {
    Problem::new(ErrorCode::PayloadTooLarge, format!("the body is over {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_as_media_types() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            Content::of(&headers, &[Content::Json, Content::Ndjson]).ok()
        };
        assert_eq!(of("application/json"), Some(Content::Json));
        assert_eq!(of("Application/JSON ; Charset=\"UTF-8\""), Some(Content::Json));
        assert_eq!(of("application/x-ndjson"), Some(Content::Ndjson));
        for bad in
            ["application/json; charset=latin1", "text/json", "application/jsonx", "", "application/cloudevents+json"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(Content::of(&HeaderMap::new(), &[Content::Json]).ok(), Some(Content::Json));
    }
}
