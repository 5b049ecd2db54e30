//! What to answer, whatever the HTTP library.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

/// An answer: give its parts to the HTTP library at hand, or take it as an [`http::Response`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte: it may be signed.
    pub body: Vec<u8>,
}

impl Reply {
    /// Received: 204.
    pub fn accepted() -> Reply {
        Reply { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: Vec::new() }
    }

    /// Not now: 503. The delivery comes again.
    pub fn try_again() -> Reply {
        Reply { status: StatusCode::SERVICE_UNAVAILABLE, ..Reply::accepted() }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Reply { status, headers, body: body.to_string().into_bytes() }
    }
}

impl From<Reply> for http::Response<Vec<u8>> {
    fn from(reply: Reply) -> Self {
        let mut response = http::Response::new(reply.body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        response
    }
}
