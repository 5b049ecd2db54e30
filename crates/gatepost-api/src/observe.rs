//! Around every request: its name, its bounds, its log line, its metrics, and no panic past here.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use gatepost_engine::HttpLabel;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::problem::{ErrorCode, Problem};
use crate::state::Api;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of all header names and values.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// Bytes of path and query.
const URI_MAX: usize = 8 << 10;

/// Names for requests that came without one.
pub(crate) struct RequestIds {
    start: u64,
    count: AtomicU64,
}

impl RequestIds {
    /// Names that no other process is likely to give.
    pub(crate) fn new(start: u64) -> Self {
        RequestIds { start, count: AtomicU64::new(0) }
    }

    fn next(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let text = format!("req_{:016x}{count:08x}", self.start);
        // Hexadecimal digits are a header value.
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("req"))
    }

    /// The name a request came with, if it is harmless to repeat and log; else a new one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b);
        match headers.get(REQUEST_ID) {
            Some(given) if (1..=128).contains(&given.len()) && given.as_bytes().iter().all(plain) => given.clone(),
            _ => self.next(),
        }
    }
}

/// The one layer around all routes.
pub(crate) async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = api.request_ids().of(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match refuse(&request) {
        Some(problem) => problem.into_response(),
        None => run(&method, request, next).await.unwrap_or_else(|| {
            // The panic hook has printed where it was.
            tracing::error!(request_id = %shown(&request_id), "a request panicked");
            Problem::internal().into_response()
        }),
    };
    // The template, never the path: it bounds the metrics' labels and keeps ids out of them.
    let route = route.as_ref().map_or("unmatched", |path| template(path.as_str()));
    let elapsed = started.elapsed();
    let label = HttpLabel { method: method_label(&method), route, status: response.status().as_u16() };
    api.engine().metrics().http_request(&label, elapsed.as_secs_f64());
    log(&method, route, response.status(), elapsed, shown(&request_id));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

/// The handler's answer; none if it panicked.
///
/// What may change something runs to its end whoever listens: a caller that hangs up between the
/// commit and what follows it in memory must not leave the two apart.
///
/// An invocation changes nothing here, and is dropped with its caller: then its receivers are too.
async fn run(method: &Method, request: Request, next: Next) -> Option<Response> {
    let invokes = request.extensions().get::<MatchedPath>().is_some_and(|path| path.as_str().ends_with("/invoke"));
    if method.is_safe() || invokes {
        return AssertUnwindSafe(next.run(request)).catch_unwind().await.ok();
    }
    tokio::spawn(next.run(request)).await.ok()
}

/// Heads that are too large. (Far larger ones do not get past the connection.)
fn refuse(request: &Request) -> Option<Problem> {
    if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > URI_MAX) {
        return Some(Problem::new(ErrorCode::UriTooLong, format!("path and query are over {URI_MAX} bytes")));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        let detail = format!("the headers are over {HEADER_BYTES_MAX} bytes, or more than {HEADERS_MAX}");
        return Some(Problem::new(ErrorCode::HeaderFieldsTooLarge, detail));
    }
    None
}

/// Methods anybody can make up must not become labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Every route's template: labels live forever.
pub(crate) const ROUTES: [&str; 43] = [
    "/v1/tenants/{tenant}/points/{point}/invoke",
    "/v1/tenants/{tenant}/operations/{operation}/invoke",
    "/v1/tenants/{tenant}/hooks",
    "/v1/tenants/{tenant}/hooks/{hook}",
    "/v1/tenants/{tenant}/hooks/{hook}/try",
    "/v1/tenants/{tenant}/hooks/{hook}/rotate-secret",
    "/v1/tenants/{tenant}/points",
    "/v1/tenants/{tenant}/points/{point}",
    "/v1/tenants/{tenant}/invocations",
    "/v1/tenants/{tenant}/invocations/{invocation}",
    "/v1/tenants/{tenant}/invocations/{invocation}/outcome",
    "/v1/tenants/{tenant}/stream",
    "/v1/tenants/{tenant}/events",
    "/v1/tenants/{tenant}/events/batch",
    "/v1/tenants/{tenant}/events/{event}",
    "/v1/tenants/{tenant}/deliveries",
    "/v1/tenants/{tenant}/deliveries/{delivery}",
    "/v1/tenants/{tenant}/deliveries/{delivery}/retry",
    "/v1/tenants/{tenant}/deliveries/{delivery}/cancel",
    "/v1/tenants/{tenant}/webhooks",
    "/v1/tenants/{tenant}/webhooks/{webhook}",
    "/v1/tenants/{tenant}/webhooks/{webhook}/test",
    "/v1/tenants/{tenant}/webhooks/{webhook}/verify",
    "/v1/tenants/{tenant}/webhooks/{webhook}/rotate-secret",
    "/v1/tenants/{tenant}/webhooks/{webhook}/replay",
    "/v1/tenants/{tenant}/jobs",
    "/v1/tenants/{tenant}/jobs/{job}",
    "/v1/tenants/{tenant}/jobs/{job}/cancel",
    "/v1/tenants/{tenant}/subjects/{subject}",
    "/v1/tenants/{tenant}/subjects/{subject}/deliveries",
    "/v1/tenants/{tenant}",
    "/v1/tenants",
    "/v1/event-types",
    "/v1/event-types/{name}",
    "/v1/tenants/{tenant}/setup/{kind}",
    "/v1/tenants/{tenant}/setup/plan",
    "/v1/keys",
    "/v1/keys/{key}",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
];

fn template(path: &str) -> &'static str {
    ROUTES.into_iter().chain(crate::compat::paths()).find(|route| *route == path).unwrap_or("unmatched")
}

fn shown(request_id: &HeaderValue) -> &str {
    request_id.to_str().unwrap_or_default()
}

/// One line a request: changes and failures at `info`, the stream of reads and publishes at `debug`.
fn log(method: &Method, route: &str, status: StatusCode, elapsed: Duration, request_id: &str) {
    let method = method.as_str();
    let duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let routine = matches!(method, "GET" | "HEAD")
        || route.ends_with("/events")
        || route.ends_with("/events/batch")
        || route.ends_with("/invoke");
    let status_code = status.as_u16();
    if routine && !status.is_server_error() {
        tracing::debug!(method, route, status = status_code, duration_us, request_id, "request");
    } else {
        tracing::info!(method, route, status = status_code, duration_us, request_id, "request");
    }
}
