//! Errors as callers see them: `application/problem+json` (RFC 9457), every one with a code of one
//! closed list.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gatepost_engine::store::StoreError;
use gatepost_engine::{BadKey, ConflictCode, Error, FieldError, Kind, Quota, QuotaRefusal, QuotaState};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::strangers::WrongKey;

/// What the `type` member of a problem begins with; the code follows.
pub(crate) const TYPE_BASE: &str = "https://gatepost.dev/problems/";

/// The media type of every error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! error_codes {
    ($($variant:ident = $code:literal, $status:ident, $title:literal, $description:literal;)*) => {
        /// Every `code` an error can have. `docs/errors.md` is made from this list.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ErrorCode {
            $(#[doc = $description] $variant,)*
        }

        impl ErrorCode {
            /// Every code, by status.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The word in the member `code`.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $code,)* }
            }

            /// The HTTP status it always comes with.
            pub fn status(self) -> StatusCode {
                match self { $(ErrorCode::$variant => StatusCode::$status,)* }
            }

            /// The member `title`.
            pub fn title(self) -> &'static str {
                match self { $(ErrorCode::$variant => $title,)* }
            }

            /// When it is answered and what to do, for the documentation.
            pub fn description(self) -> &'static str {
                match self { $(ErrorCode::$variant => $description,)* }
            }
        }
    };
}

error_codes! {
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON",
        "The body is not UTF-8, not JSON, has something after its JSON value, or names a member twice where members have a meaning. `line` and `column` say where. Nothing was looked at beyond the syntax.";
    BodyUnreadable = "body_unreadable", BAD_REQUEST, "The body broke off",
        "The connection ended, or the transfer coding was wrong, before the whole body had arrived.";
    MalformedRequest = "malformed_request", BAD_REQUEST, "The request is not HTTP",
        "The head of the request cannot be read as HTTP/1.1, or has no `Host` header or several. The connection may be closed after the answer.";
    TransferCodingUnknown = "transfer_coding_unknown", NOT_IMPLEMENTED, "The transfer coding is not understood",
        "`Transfer-Encoding` names something else than `chunked` alone. Send the body with `content-length`, or chunked.";
    Unauthorized = "unauthorized", UNAUTHORIZED, "No valid API key",
        "The request has no `Authorization: Bearer <key>`, or the key is unknown, deleted or expired.";
    Forbidden = "forbidden", FORBIDDEN, "The key may not do this",
        "The key is valid but lacks the scope this call needs; `detail` and `WWW-Authenticate` name it.";
    InvalidHeader = "invalid_header", BAD_REQUEST, "A header is not valid",
        "A request header has a meaning here and a value that makes none: `gatepost-timeout-ms` is whole milliseconds above zero, `gatepost-hop` a whole number.";
    HookLoop = "hook_loop", BAD_REQUEST, "Hooks call each other in a circle",
        "The invocation came with a `gatepost-hop` above 3: a hook's receiver calls the platform, which asks Gatepost again. Nobody was asked.";
    NotFound = "not_found", NOT_FOUND, "No such route",
        "There is no such path in this version of the API.";
    TenantNotFound = "tenant_not_found", NOT_FOUND, "No such tenant",
        "There is no tenant with this id, or the key is bound to another one: the two look the same.";
    WebhookNotFound = "webhook_not_found", NOT_FOUND, "No such webhook",
        "The tenant has no webhook with this id.";
    EventNotFound = "event_not_found", NOT_FOUND, "No such event",
        "The tenant has no event with this id.";
    DeliveryNotFound = "delivery_not_found", NOT_FOUND, "No such delivery",
        "The tenant has no delivery with this id.";
    EventTypeNotFound = "event_type_not_found", NOT_FOUND, "No such event type",
        "The catalogue has no event type with this name.";
    KeyNotFound = "key_not_found", NOT_FOUND, "No such key",
        "There is no API key with this id.";
    HookNotFound = "hook_not_found", NOT_FOUND, "No such hook",
        "The tenant has no blocking hook with this id.";
    PointNotFound = "point_not_found", NOT_FOUND, "No such point",
        "There is no built-in point of this name, and the tenant has defined none. `GET …/points` lists them.";
    OperationNotFound = "operation_not_found", NOT_FOUND, "No such operation",
        "There is no operation of this name: there are `createUser`, `updateUser` and `provision`.";
    InvocationNotFound = "invocation_not_found", NOT_FOUND, "No such invocation",
        "The tenant has no invocation with this id, or its record is not kept any more.";
    JobNotFound = "job_not_found", NOT_FOUND, "No such job",
        "The tenant has no job with this id. Jobs that have ended are kept as long as events.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed",
        "The path exists but not with this method; the header `Allow` lists those it has.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The body came too slowly",
        "The body did not arrive in time. Send it again.";
    EventIdConflict = "event_id_conflict", CONFLICT, "The event id is taken",
        "An event with this id and another content was accepted before, or stands earlier in the same batch. Nothing of the request was accepted.";
    WebhookDisabled = "webhook_disabled", CONFLICT, "The webhook is disabled",
        "The delivery cannot be retried while its webhook is disabled. Enable the webhook first.";
    WebhookDeleted = "webhook_deleted", CONFLICT, "The webhook is deleted",
        "The delivery cannot be retried: its webhook is gone.";
    DeliveryTerminal = "delivery_terminal", CONFLICT, "The delivery has ended",
        "The delivery cannot be cancelled: it is delivered, failed or cancelled already.";
    DeliveryPending = "delivery_pending", CONFLICT, "The delivery is under way",
        "Answered by the FerrisKey API only: there a delivery is sent again only after it has ended.";
    EventErased = "event_erased", CONFLICT, "What was to be sent is erased",
        "The delivery cannot be retried: what it would send was erased (`DELETE …/subjects/{id}`). The bare record is all there is.";
    JobFinal = "job_final", CONFLICT, "The job has ended",
        "The job cannot be cancelled: it is done or failed already.";
    ConcurrentChange = "concurrent_change", CONFLICT, "Changed at the same time",
        "Others kept changing the same thing while this change was being made. Read it again and repeat the change.";
    HookUnverified = "hook_unverified", CONFLICT, "The hook's receiver did not pass its test",
        "A hook is enforced only after its receiver passed the test with the present address and secret; `detail` says why it did not. Nothing was changed.";
    PointInUse = "point_in_use", CONFLICT, "Hooks are registered at the point",
        "The point cannot be removed while hooks are registered at it. Delete them, or disable the point.";
    OutcomeConflict = "outcome_conflict", CONFLICT, "The outcome cannot be taken",
        "Another outcome was told of this invocation before, it was a dry run, it is more than a day old, or nothing is kept of its object and `object` is missing; `detail` says which.";
    CursorExpired = "cursor_expired", GONE, "The feed has moved on",
        "Events after this cursor were removed by the tenant's retention before they were read. Begin without a cursor at the oldest kept event, and reconcile by other means what is missing.";
    IdempotencyKeyConflict = "idempotency_key_conflict", CONFLICT, "The Idempotency-Key is taken",
        "Another request to the same path was made under this `Idempotency-Key` in the last 24 hours (for invocations of hooks: in the last minute). Nothing was done.";
    IdempotencyInProgress = "idempotency_in_progress", CONFLICT, "The first request is under way",
        "The first request under this `Idempotency-Key` is still being worked on after half a minute. Ask again after `Retry-After` for its answer.";
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "The body is over this route's limit: 16 MiB for batches and 1 MiB elsewhere, unless the server is configured otherwise.";
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The URI is too long",
        "Path and query together are over 8 KiB.";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Content type not supported",
        "The body's content type, charset or content encoding is not one this route reads; `detail` lists those it does.";
    ValidationFailed = "validation_failed", UNPROCESSABLE_ENTITY, "Members are not valid",
        "The request is well-formed but wrong. `errors` has every wrong member at once.";
    SchemaTooCostly = "schema_too_costly", UNPROCESSABLE_ENTITY, "The data cost too much to check",
        "Holding the data against the schema of its event type takes more work than one event, or one request, may. Nothing was accepted. Send smaller or flatter data or fewer events at once, or make the schema simpler.";
    InvalidCursor = "invalid_cursor", UNPROCESSABLE_ENTITY, "The cursor is not valid",
        "The cursor is damaged or belongs to another list. Use `next_cursor` as it was answered, or begin without one.";
    BatchTooLarge = "batch_too_large", UNPROCESSABLE_ENTITY, "Too many events in one batch",
        "A batch has at most 1,000 events. Nothing was accepted.";
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS, "Too much at once",
        "The bodies of the requests being worked on fill the server's allowance, or more is published than the server can deliver beside it. Nothing was accepted. Try again after `Retry-After`.";
    HooksSaturated = "hooks_saturated", TOO_MANY_REQUESTS, "Too many invocations at once",
        "The server has as many invocations under way as it takes. Nobody was asked; decide by your own default, or try again after `Retry-After`.";
    QuotaExceeded = "quota_exceeded", TOO_MANY_REQUESTS, "A quota is used up",
        "One of the tenant's quotas (`settings.quotas`) is used up; `detail` and `RateLimit-Policy` name it. Nothing of the request happened. Try again after `Retry-After`; a request that is larger than the quota by itself never succeeds.";
    HeaderFieldsTooLarge = "header_fields_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large",
        "The request's headers are over 32 KiB together, or more than 100.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error",
        "Something is wrong with the server, not with the request. The log has it under the answer's `x-request-id`.";
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, "The store is unavailable",
        "The store cannot be reached, is full or is closing. Nothing was accepted; try again after `Retry-After`.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Overloaded",
        "More requests are waiting than the server holds. Nothing was accepted; try again after `Retry-After`.";
}

impl ErrorCode {
    /// The code for a missing thing of this kind.
    pub(crate) fn not_found(kind: Kind) -> ErrorCode {
        match kind {
            Kind::Tenant => ErrorCode::TenantNotFound,
            Kind::Webhook => ErrorCode::WebhookNotFound,
            Kind::Event => ErrorCode::EventNotFound,
            Kind::Delivery => ErrorCode::DeliveryNotFound,
            Kind::EventType => ErrorCode::EventTypeNotFound,
            Kind::Key => ErrorCode::KeyNotFound,
            Kind::Job => ErrorCode::JobNotFound,
            Kind::Hook => ErrorCode::HookNotFound,
            Kind::Point => ErrorCode::PointNotFound,
            Kind::Operation => ErrorCode::OperationNotFound,
            Kind::Invocation => ErrorCode::InvocationNotFound,
        }
    }
}

/// The text of `docs/errors.md`.
pub fn errors_markdown() -> String {
    let mut text = String::from(
        "# Errors\n\n\
         Every error of every route is `application/problem+json` (RFC 9457):\n\n\
         ```json\n\
         {\"type\":\"https://gatepost.dev/problems/validation_failed\",\"title\":\"Members are not valid\",\"status\":422,\n\
         \x20\"detail\":\"2 members are not valid\",\"code\":\"validation_failed\",\n\
         \x20\"errors\":[{\"pointer\":\"/type\",\"message\":\"is required\"},{\"pointer\":\"?limit\",\"message\":\"must be 1 to 250\"}]}\n\
         ```\n\n\
         Branch on `code`, never on the texts. `errors` lists **all** wrong members at once (the first 1,000 if there\n\
         are more). A `pointer` that begins with `/` is a JSON pointer (RFC 6901) into the body, the empty one the body\n\
         itself; `?name` is a query parameter, `{name}` a part of the path, `@name` a header, `/ce-name` a header of a binary CloudEvent.\n\
         For NDJSON and batches pointers are `/events/{index}/…`, counted from 0. `malformed_json` has `line` and\n\
         `column` (from 1) instead. Every answer has an `x-request-id`, by which the server's log can be searched.\n\n\
         The list is closed: a code not in it is never answered. It is made from the source; a test keeps it true.\n\n\
         | code | status | when |\n|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        text.push_str(&format!("| `{}` | {} | {} |\n", code.as_str(), code.status().as_u16(), code.description()));
    }
    text
}

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: ErrorCode,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    position: Option<(usize, usize)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// It is about a key that nobody has and nobody had.
    wrong_key: bool,
    /// Members besides those of every problem (RFC 9457 section 3.2).
    members: gatepost_core::hooks::json::Map,
}

/// The wire form.
#[derive(Serialize)]
struct Body9457<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<WireFieldError<'a>>,
    #[serde(flatten)]
    members: &'a gatepost_core::hooks::json::Map,
}

#[derive(Serialize)]
struct WireFieldError<'a> {
    pointer: &'a str,
    message: &'a str,
}

impl Problem {
    /// A problem with a text for people.
    pub(crate) fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Problem(Box::new(Inner {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            position: None,
            wrong_key: false,
            headers: Vec::new(),
            members: gatepost_core::hooks::json::Map::new(),
        }))
    }

    /// There is no `kind` called `id`, or it is another tenant's.
    pub(crate) fn missing(kind: Kind, id: &str) -> Self {
        // What is repeated is bounded: an id is at most 128 characters, anything longer is none.
        let shown: String = id.chars().take(128).collect();
        Problem::new(ErrorCode::not_found(kind), format!("there is no {} \"{shown}\"", kind.as_str()))
    }

    /// Malformed at `line` and `column`, both from 1.
    pub(crate) fn malformed(message: &str, line: usize, column: usize) -> Self {
        let mut problem = Problem::new(ErrorCode::MalformedJson, format!("{message} at line {line} column {column}"));
        problem.0.position = Some((line, column));
        problem
    }

    /// Wrong members.
    pub(crate) fn invalid(code: ErrorCode, errors: Vec<FieldError>, more: usize) -> Self {
        let detail = match (errors.len(), more) {
            (1, 0) => format!("{}: {}", shown_pointer(&errors[0].pointer), errors[0].message),
            (n, 0) => format!("{n} members are not valid"),
            (n, more) => format!("{} members are not valid; the first {n} are listed", n + more),
        };
        let mut problem = Problem::new(code, detail);
        problem.0.errors = errors;
        problem
    }

    /// 401, with the challenge RFC 6750 asks for.
    pub(crate) fn unauthorized(key_given: bool) -> Self {
        if key_given {
            Problem::new(ErrorCode::Unauthorized, "the API key is unknown, deleted or expired")
                .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"gatepost\", error=\"invalid_token\""))
        } else {
            Problem::new(ErrorCode::Unauthorized, "send an API key as Authorization: Bearer <key>")
                .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"gatepost\""))
        }
    }

    /// 401 for credentials that are not of a form that is read.
    pub(crate) fn unauthorized_as(detail: &'static str) -> Self {
        Problem::new(ErrorCode::Unauthorized, detail)
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"gatepost\""))
    }

    /// 401 for a key that does not open anything: the caller's, or a stranger's guess.
    pub(crate) fn wrong_key(why: BadKey) -> Self {
        Problem::unauthorized(true).marked(why)
    }

    /// Marked as about a key that nobody has, if it is.
    pub(crate) fn marked(mut self, why: BadKey) -> Self {
        self.0.wrong_key = why == BadKey::Unknown;
        self
    }

    /// With members besides those of every problem.
    pub(crate) fn with_members(mut self, members: gatepost_core::hooks::json::Map) -> Self {
        self.0.members = members;
        self
    }

    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.code.status()
    }

    /// Its body.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Nothing in the form can fail to serialise: texts, numbers and lists of them.
        serde_json::to_vec(&self.wire()).unwrap_or_default()
    }

    /// With a header.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// What an operation answered, with the names the request used: `tenant` from the path, `item`
    /// whatever else the path named.
    pub(crate) fn of(error: Error, tenant: &str, item: &str) -> Self {
        match error {
            Error::NotFound(Kind::Tenant) => Problem::missing(Kind::Tenant, tenant),
            Error::NotFound(kind) => Problem::missing(kind, item),
            Error::Invalid(errors) => Problem::invalid(ErrorCode::ValidationFailed, errors, 0),
            Error::SchemaTooCostly(errors) => Problem::invalid(ErrorCode::SchemaTooCostly, errors, 0),
            Error::Conflict { code, message } => Problem::new(conflict_code(code), message),
            Error::Quota(refusal) => quota_refused(&refusal),
            Error::Busy => Problem::new(ErrorCode::TooManyRequests, "deliveries do not keep up with what is published")
                .with(RETRY_AFTER, HeaderValue::from_static("1")),
            Error::Store(error) => Problem::from(error),
            Error::Sealed => {
                tracing::error!("a sealed value does not open with this server's key");
                Problem::internal()
            }
        }
    }

    /// 500, with nothing of the inside in it.
    pub(crate) fn internal() -> Self {
        Problem::new(ErrorCode::Internal, "the server failed; its log has the reason under this x-request-id")
    }

    /// Whether something is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.0.code.status() == StatusCode::NOT_FOUND
    }

    /// As it will be written.
    #[cfg(test)]
    pub(crate) fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self.wire()).unwrap()
    }

    fn wire(&self) -> Body9457<'_> {
        let Inner { code, detail, errors, position, members, .. } = &*self.0;
        Body9457 {
            r#type: format!("{TYPE_BASE}{}", code.as_str()),
            title: code.title(),
            status: code.status().as_u16(),
            detail,
            code: code.as_str(),
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            errors: errors
                .iter()
                .map(|error| WireFieldError { pointer: &error.pointer, message: &error.message })
                .collect(),
            members,
        }
    }
}

/// 429, with what is left of the quota and when to try again.
fn quota_refused(refusal: &QuotaRefusal) -> Problem {
    let problem = Problem::new(ErrorCode::QuotaExceeded, refusal.message.clone())
        .with(RETRY_AFTER, HeaderValue::from(refusal.retry_after_s));
    quota_headers(&refusal.state).into_iter().fold(problem, |problem, (name, value)| problem.with(name, value))
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): what is allowed, and what
/// is left of it.
pub(crate) fn quota_headers(state: &QuotaState) -> [(HeaderName, HeaderValue); 2] {
    let name = state.quota.as_str();
    let window = if state.quota == Quota::EventsPerS { ";w=1" } else { "" };
    let reset = state.reset_s.map(|seconds| format!(";t={seconds}")).unwrap_or_default();
    let policy = format!("\"{name}\";q={}{window}", state.limit);
    let left = format!("\"{name}\";r={}{reset}", state.left);
    // Names and numbers are visible ASCII.
    let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    [(HeaderName::from_static("ratelimit-policy"), value(policy)), (HeaderName::from_static("ratelimit"), value(left))]
}

/// The empty pointer is the whole body; a text for people must name it.
fn shown_pointer(pointer: &str) -> &str {
    if pointer.is_empty() { "the body" } else { pointer }
}

fn conflict_code(code: ConflictCode) -> ErrorCode {
    match code {
        ConflictCode::EventIdConflict => ErrorCode::EventIdConflict,
        ConflictCode::WebhookDisabled => ErrorCode::WebhookDisabled,
        ConflictCode::WebhookDeleted => ErrorCode::WebhookDeleted,
        ConflictCode::DeliveryTerminal => ErrorCode::DeliveryTerminal,
        ConflictCode::EventErased => ErrorCode::EventErased,
        ConflictCode::JobFinal => ErrorCode::JobFinal,
        ConflictCode::CursorExpired => ErrorCode::CursorExpired,
        ConflictCode::ConcurrentChange => ErrorCode::ConcurrentChange,
        ConflictCode::HookUnverified => ErrorCode::HookUnverified,
        ConflictCode::PointInUse => ErrorCode::PointInUse,
        ConflictCode::OutcomeConflict => ErrorCode::OutcomeConflict,
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let soon = HeaderValue::from_static("1");
        match error {
            StoreError::Unavailable(reason) => {
                tracing::warn!(%reason, "the store is unavailable");
                Problem::new(ErrorCode::StoreUnavailable, "the store is unavailable; try again later")
                    .with(RETRY_AFTER, soon)
            }
            StoreError::Closed => {
                Problem::new(ErrorCode::StoreUnavailable, "the server is stopping; try again").with(RETRY_AFTER, soon)
            }
            StoreError::Overloaded => {
                Problem::new(ErrorCode::Overloaded, "too many requests are waiting; try again later")
                    .with(RETRY_AFTER, soon)
            }
            StoreError::Corrupt(reason) => {
                tracing::error!(%reason, "the store is damaged");
                Problem::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_bytes()));
        *response.status_mut() = self.0.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        for (name, value) in self.0.headers {
            headers.append(name, value);
        }
        if self.0.wrong_key {
            response.extensions_mut().insert(WrongKey);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_words() {
        let mut words: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        words.sort_unstable();
        let count = words.len();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn foreign_and_missing_differ_in_the_id_alone() {
        let one = serde_json::to_string(&Problem::missing(Kind::Tenant, "acme").wire()).unwrap();
        let two = serde_json::to_string(&Problem::missing(Kind::Tenant, "ghost").wire()).unwrap();
        assert_eq!(one.replace("acme", "ghost"), two);
    }

    #[test]
    fn the_documented_list_is_the_real_one() {
        crate::tests::support::same_or_update("errors.md", &errors_markdown());
    }
}
