//! Around every request: its name, its bounds, its log line, its metrics, and no panic past here.

use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use gatepost_engine::HttpLabel;
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::app::App;
use crate::idempotency;
use crate::problem::{ErrorCode, Problem};

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
    /// What all of them begin with.
    start: [u8; START],
    count: AtomicU64,
}

/// `req_` and sixteen digits.
const START: usize = 20;
/// Digits of a count; more where that is larger.
const COUNT_DIGITS: usize = 8;

impl RequestIds {
    /// Names that no other process is likely to give.
    pub(crate) fn new(start: u64) -> Self {
        let mut text = *b"req_0000000000000000";
        text[START - 16..].copy_from_slice(&hex(start));
        RequestIds { start: text, count: AtomicU64::new(0) }
    }

    fn next(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let spare = (count.leading_zeros() as usize / 4).min(16 - COUNT_DIGITS);
        let mut text = [0; START + 16];
        text[..START].copy_from_slice(&self.start);
        text[START..][..16 - spare].copy_from_slice(&hex(count)[spare..]);
        // Hexadecimal digits are a header value.
        HeaderValue::from_bytes(&text[..START + 16 - spare]).unwrap_or(HeaderValue::from_static("req"))
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

/// Sixteen hexadecimal digits.
fn hex(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (place, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 15];
    }
    text
}

/// The answer of `app` to a request for `route`, with all that is around it.
pub(crate) async fn observe(app: App, route: &'static str, request: Request) -> Response {
    let started = Instant::now();
    let request_id = app.api().request_ids().of(request.headers());
    let method = request.method().clone();
    let mut response = match refuse(&request) {
        Some(problem) => problem.into_response(),
        None => {
            let answering = AssertUnwindSafe(async {
                match method.is_safe() && may_be_large(route) {
                    // In an allocation of its own: publishing is not to carry the room it needs.
                    true => Box::pin(with_room(&app, request)).await,
                    false => idempotency::around(&app, route, request).await,
                }
            });
            answering.catch_unwind().await.unwrap_or_else(|_| {
                // The panic hook has printed where it was.
                tracing::error!(request_id = %shown(&request_id), "a request panicked");
                Problem::internal().into_response()
            })
        }
    };
    let elapsed = started.elapsed();
    let label = HttpLabel { method: method_label(&method), route, status: response.status().as_u16() };
    app.api().engine().metrics().http_request(&label, elapsed.as_secs_f64());
    log(&method, route, response.status(), elapsed, shown(&request_id));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether what a route shows may be large: neither what is about the server itself, nor a stream, whose
/// pieces have room of their own.
fn may_be_large(route: &str) -> bool {
    route.starts_with('/')
        && !route.ends_with("/stream")
        && !matches!(route, "/healthz" | "/readyz" | "/metrics" | "/openapi.json" | "/docs")
}

/// The answer to a request that only reads, made and held within bounds.
async fn with_room(app: &App, request: Request) -> Response {
    match app.api().answers().make(request.headers()).await {
        Ok(making) => making.made(app.route(request).await),
        Err(problem) => problem.into_response(),
    }
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
pub(crate) const ROUTES: [&str; 46] = [
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
    "/v1/tenants/{tenant}/events/cloudevents",
    "/v1/tenants/{tenant}/events/{event}",
    "/v1/tenants/{tenant}/deliveries",
    "/v1/tenants/{tenant}/deliveries/{delivery}",
    "/v1/tenants/{tenant}/deliveries/{delivery}/retry",
    "/v1/tenants/{tenant}/deliveries/{delivery}/cancel",
    "/v1/tenants/{tenant}/webhooks",
    "/v1/tenants/{tenant}/webhooks/{webhook}",
    "/v1/tenants/{tenant}/webhooks/{webhook}/test",
    "/v1/tenants/{tenant}/webhooks/{webhook}/verify",
    "/v1/tenants/{tenant}/webhooks/{webhook}/pause",
    "/v1/tenants/{tenant}/webhooks/{webhook}/resume",
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

/// The template of the route a path stands for. It is what logs and metrics have, never the path: that
/// bounds the metrics' labels and keeps ids out of them.
pub(crate) fn template(path: &str) -> &'static str {
    static TEMPLATES: LazyLock<matchit::Router<&'static str>> = LazyLock::new(|| {
        let mut templates = matchit::Router::new();
        for template in ROUTES.into_iter().chain(crate::compat::paths()) {
            // Routes the router serves do not contradict each other; a test looks.
            if let Err(error) = templates.insert(template, template) {
                tracing::error!(%error, route = template, "a route has no name");
            }
        }
        templates
    });
    TEMPLATES.at(path).map_or("unmatched", |found| *found.value)
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
        || route.ends_with("/events/cloudevents")
        || route.ends_with("/invoke");
    let status_code = status.as_u16();
    if routine && !status.is_server_error() {
        tracing::debug!(method, route, status = status_code, duration_us, request_id, "request");
    } else {
        tracing::info!(method, route, status = status_code, duration_us, request_id, "request");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_own_template_as_its_name() {
        for route in ROUTES.into_iter().chain(crate::compat::paths()) {
            assert_eq!(template(route), route);
        }
        assert_eq!(template("/v1/tenants/acme/events"), "/v1/tenants/{tenant}/events");
        assert_eq!(template("/v1/tenants/acme/events/"), "unmatched");
    }

    #[test]
    fn request_ids_are_hexadecimal_whatever_they_count() {
        let ids = RequestIds::new(0xab);
        for (count, wanted) in [(0, "00000000"), (0x1234_5678, "12345678"), (0x1_0000_0000, "100000000")] {
            ids.count.store(count, Ordering::Relaxed);
            assert_eq!(ids.next(), format!("req_00000000000000ab{wanted}").as_str());
        }
    }
}
