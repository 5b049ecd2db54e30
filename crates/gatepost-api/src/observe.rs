//! Around every request: its name, its bounds, its log line, its metrics, and no panic past here.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use gatepost_core::KeyId;
use gatepost_engine::HttpLabel;
use http::header::{CACHE_CONTROL, HOST, LOCATION, RETRY_AFTER, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use tokio::time::Instant;

use crate::app::App;
use crate::idempotency;
use crate::problem::{ErrorCode, Problem};
use crate::strangers::WrongKey;

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
pub(crate) async fn observe(app: App, route: &'static str, peer: Option<IpAddr>, mut request: Request) -> Response {
    let started = Instant::now();
    let request_id = app.api().request_ids().of(request.headers());
    let method = request.method().clone();
    let change = (!is_routine(&method, route)).then(|| Change::of(route, &mut request));
    let refused = peer.and_then(|_| refuse_framing(&request)).or_else(|| refuse(&request));
    let mut response = match refused {
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
    if let Some(peer) = peer.filter(|_| response.extensions().get::<WrongKey>().is_some()) {
        response = wrong_key(&app, peer, response, &request_id);
    }
    let elapsed = started.elapsed();
    let label = HttpLabel { method: method_label(&method), route, status: response.status().as_u16() };
    app.api().engine().metrics().http_request(&label, elapsed.as_secs_f64());
    let line =
        Line { method: method.as_str(), route, status: response.status(), elapsed, request_id: shown(&request_id) };
    match &change {
        Some(change) => change.log(&line, response.headers()),
        None => log_routine(&line),
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether only who has a key is answered well on a route.
pub(crate) fn asks_for_a_key(route: &str) -> bool {
    route.starts_with('/') && !matches!(route, "/healthz" | "/readyz" | "/metrics" | "/openapi.json" | "/docs")
}

/// The answer to a key that nobody has: as it is, or 429 where too many came from there.
fn wrong_key(app: &App, peer: IpAddr, response: Response, request_id: &HeaderValue) -> Response {
    let verdict = app.api().strangers().wrong_key(peer);
    app.api().engine().metrics().wrong_key(verdict.wait_s.is_some());
    if verdict.tell {
        let outcome = if verdict.wait_s.is_some() { "refused" } else { "unauthorized" };
        tracing::info!(addr = %peer, outcome, request_id = shown(request_id), "a wrong key");
    }
    let Some(wait_s) = verdict.wait_s else { return response };
    let detail = "too many wrong keys came from this address in the last minute: wait, and check the key";
    let problem = Problem::new(ErrorCode::TooManyRequests, detail);
    problem.with(RETRY_AFTER, HeaderValue::from(wait_s)).into_response()
}

/// Whether what a route shows may be large: neither what is about the server itself, nor a stream, whose
/// pieces have room of their own.
fn may_be_large(route: &str) -> bool {
    asks_for_a_key(route) && !route.ends_with("/stream")
}

/// The answer to a request that only reads, made and held within bounds.
async fn with_room(app: &App, request: Request) -> Response {
    match app.api().answers().make(request.headers()).await {
        Ok(making) => making.made(app.route(request).await),
        Err(problem) => problem.into_response(),
    }
}

/// A request that came over a connection and does not say, or says twice, whom it asks (RFC 9112 section 3.2),
/// or whose body is coded in a way we do not undo (section 6.1).
fn refuse_framing(request: &Request) -> Option<Problem> {
    let coding = request.headers().get(TRANSFER_ENCODING);
    if coding.is_some_and(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        let detail = "of transfer codings only chunked is understood: send it alone";
        return Some(Problem::new(ErrorCode::TransferCodingUnknown, detail));
    }
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (Some(_), None) => return None,
        (None, _) => "the request has no Host header: HTTP/1.1 asks for one",
        (Some(_), Some(_)) => "the request has several Host headers: send one",
    };
    Some(Problem::new(ErrorCode::MalformedRequest, detail))
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

/// What the log says of every request.
struct Line<'a> {
    method: &'a str,
    route: &'static str,
    status: StatusCode,
    elapsed: Duration,
    request_id: &'a str,
}

impl Line<'_> {
    fn duration_us(&self) -> u64 {
        u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Reads and publishes: they come in streams.
fn is_routine(method: &Method, route: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        || route.ends_with("/events")
        || route.ends_with("/events/batch")
        || route.ends_with("/events/cloudevents")
        || route.ends_with("/invoke")
}

/// One line at `debug`; at `info` if it failed.
fn log_routine(line: &Line<'_>) {
    let Line { method, route, status, request_id, .. } = *line;
    let (status_code, duration_us) = (status.as_u16(), line.duration_us());
    if status.is_server_error() {
        tracing::info!(method, route, status = status_code, duration_us, request_id, "request");
    } else {
        tracing::debug!(method, route, status = status_code, duration_us, request_id, "request");
    }
}

/// Who made a change, to be filled in where the caller becomes known.
#[derive(Clone, Default)]
pub(crate) struct Author(Arc<OnceLock<Option<KeyId>>>);

impl Author {
    /// The caller's key; `None`: the installation's admin key.
    pub(crate) fn is(&self, key: Option<KeyId>) {
        let _ = self.0.set(key);
    }
}

/// A call that may change something: who, whose, and what.
struct Change {
    author: Author,
    tenant: Option<String>,
    object: Option<String>,
}

impl Change {
    fn of(route: &'static str, request: &mut Request) -> Self {
        let author = Author::default();
        request.extensions_mut().insert(author.clone());
        let (mut tenant, mut object) = (None, None);
        let segments = request.uri().path().split('/');
        for (template, given) in route.split('/').zip(segments) {
            match template {
                "{tenant}" | "{realm}" => tenant = told(given),
                // Whoever is erased is not to be named by the log either.
                "{subject}" => {}
                "{key}" => object = told(given).filter(|given| given.starts_with("key_")),
                _ if template.starts_with('{') => object = told(given),
                _ => {}
            }
        }
        Change { author, tenant, object }
    }

    /// One line at `info`.
    fn log(&self, line: &Line<'_>, headers: &HeaderMap) {
        let Line { method, route, status, request_id, .. } = *line;
        let (status, duration_us) = (status.as_u16(), line.duration_us());
        // What is made has its id in the answer.
        let made = || headers.get(LOCATION)?.to_str().ok()?.rsplit('/').next().and_then(told);
        let object = self.object.clone().or_else(made);
        let key = self.author.0.get().map(|key| key.as_ref().map_or_else(|| "admin".to_owned(), KeyId::to_string));
        let (tenant, object, key) = (self.tenant.as_deref(), object.as_deref(), key.as_deref());
        tracing::info!(method, route, status, tenant, object, key, duration_us, request_id, "request");
    }
}

/// An id or a name out of a path, if it is one to repeat.
fn told(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    ((1..=128).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
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
