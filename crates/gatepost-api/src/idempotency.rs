//! `Idempotency-Key` on every POST.
//!
//! [`around`] a route, a request that has the header is given a [`Ticket`]. Nothing happens with it until
//! the handler has found that the caller may do what it asks, and the body has been read: only then is it
//! looked whether the key was used before (so nobody learns of an answer who could not have caused it). If
//! it was, the handler is stopped and what was recorded is answered; else the handler goes on, and what it
//! answers is recorded, without secrets.
//!
//! Costs nothing where the header is absent.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use gatepost_engine::ops::Caller;
use gatepost_engine::store::{Accepted, MakeAnswer, RecordedAnswer};
use gatepost_engine::{Engine, Error, FieldError, Idempotent, KeyedRequest, Turn, repeatable};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::value::RawValue;

use crate::app::App;
use crate::body::Content;
use crate::observe;
use crate::problem::{ErrorCode, Problem};
use crate::wire::{At, Errors, Reader};

/// The header that names a request.
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Where the header is told of in `errors`.
const POINTER: &str = "@idempotency-key";
/// Characters of a key.
const KEY_MAX: usize = 255;
/// Members of an answer that are secrets: a recorded answer has null there (P7).
const SECRETS: [&str; 5] = ["secret", "key", "signature_key", "token", "access_token"];
/// Routes that publish: they record their answers themselves, with the events.
const PUBLISHING: [&str; 3] =
    ["/v1/tenants/{tenant}/events", "/v1/tenants/{tenant}/events/batch", "/v1/tenants/{tenant}/events/cloudevents"];

/// What a request under a key has become so far.
enum Stage {
    /// Its body has not been read.
    Fresh,
    /// It is run.
    Running(Turn),
    /// It was answered before.
    Answered(RecordedAnswer),
    /// It is over.
    Over,
}

/// A request that has the header.
#[derive(Clone)]
pub(crate) struct Ticket(Arc<Mutex<Stage>>);

impl Ticket {
    fn new() -> Self {
        Ticket(Arc::new(Mutex::new(Stage::Fresh)))
    }

    fn set(&self, stage: Stage) -> Stage {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), stage)
    }

    /// Looks whether the key was used before, now that the caller is known to be allowed and the body is
    /// there. An error ends the request: [`around`] knows what to answer instead, if it is not that.
    pub(crate) async fn present(
        &self,
        engine: &Engine,
        caller: &Caller,
        parts: &mut Parts,
        content: Content,
        body: &Bytes,
    ) -> Result<(), Problem> {
        // A tenant named in the path is there, and the caller's to see: the handler has looked.
        let named = match tenant_in(parts).await {
            Some(name) => name.parse().ok(),
            None => caller.tenant.clone(),
        };
        let key = key_of(&parts.headers)?;
        let tenant = match named {
            Some(id) => match engine.tenant(&id).await {
                Ok(tenant) => Some(tenant.key),
                // The handler is about to say so.
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(Problem::of(error, id.as_str(), "")),
            },
            None => None,
        };
        let events = binary_cloudevent(&parts.headers);
        let query = parts.uri.query().filter(|query| !query.is_empty());
        let kind = content.name();
        let route = observe::template(parts.uri.path());
        let keyed = KeyedRequest {
            tenant,
            method: parts.method.as_str(),
            path: parts.uri.path(),
            key,
            content: &[Some(kind.as_bytes()), query.map(str::as_bytes), events.as_deref(), Some(body)],
            publishes: PUBLISHING.contains(&route),
        };
        let found = engine.idempotent(&keyed).await.map_err(|error| Problem::of(error, "", ""))?;
        self.found(found)
    }

    /// Goes on, or ends the request.
    pub(crate) fn found(&self, found: Idempotent) -> Result<(), Problem> {
        match found {
            Idempotent::First(turn) => {
                self.set(Stage::Running(turn));
                Ok(())
            }
            Idempotent::Again(answer) => {
                self.set(Stage::Answered(answer));
                // Never seen: what was recorded is answered.
                Err(Problem::internal())
            }
            Idempotent::OtherRequest => Err(Problem::new(
                ErrorCode::IdempotencyKeyConflict,
                "this Idempotency-Key was used for another request to the same path in the last 24 hours: use a new \
                 one, or repeat the request as it was",
            )),
            Idempotent::StillRunning => Err(Problem::new(
                ErrorCode::IdempotencyInProgress,
                "the first request under this Idempotency-Key is still being worked on: ask again for its answer",
            )
            .with(RETRY_AFTER, HeaderValue::from_static("1"))),
        }
    }

    /// Takes the right to run the request, to give it [back](Self::give_back).
    pub(crate) fn take_turn(&self) -> Option<Turn> {
        match self.set(Stage::Over) {
            Stage::Running(turn) => Some(turn),
            other => {
                self.set(other);
                None
            }
        }
    }

    /// See [`take_turn`](Self::take_turn).
    pub(crate) fn give_back(&self, turn: Turn) {
        self.set(Stage::Running(turn));
    }
}

/// The one value of the header.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<&str, Problem> {
    let wrong = |message: String| {
        Err(Problem::invalid(ErrorCode::ValidationFailed, vec![FieldError::new(POINTER, message)], 0))
    };
    let mut values = headers.get_all(KEY).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return wrong("the header Idempotency-Key is given more than once".into());
    };
    match value.to_str() {
        Ok(key) if (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|b| (b' '..=b'~').contains(&b)) => Ok(key),
        _ => wrong(format!("the header Idempotency-Key must have 1 to {KEY_MAX} printable ASCII characters")),
    }
}

/// Of a binary CloudEvent the headers are part of the event.
fn binary_cloudevent(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("ce-"))
        .map(|(name, value)| [name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"].concat())
        .collect();
    lines.sort_unstable();
    (!lines.is_empty()).then(|| lines.concat())
}

/// The answer of the route `template`, under the request's key if it has one.
pub(crate) async fn around(app: &App, template: &str, request: Request) -> Response {
    let keyed = request.method() == Method::POST && request.headers().contains_key(KEY);
    // Invocations have their own, in memory and for a minute.
    if !keyed || template.ends_with("/invoke") {
        return app.route(request).await;
    }
    // In an allocation of its own: requests without a key are not to carry the room it needs.
    Box::pin(keyed_answer(app, request)).await
}

async fn keyed_answer(app: &App, mut request: Request) -> Response {
    let ticket = Ticket::new();
    request.extensions_mut().insert(ticket.clone());
    let response = repeatable(app.route(request)).await;
    match ticket.set(Stage::Over) {
        Stage::Fresh | Stage::Over => response,
        Stage::Answered(answer) => replayed(answer),
        Stage::Running(turn) => finished(turn, response).await,
    }
}

async fn tenant_in(parts: &mut Parts) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    params.iter().find(|(name, _)| matches!(*name, "tenant" | "realm")).map(|(_, value)| value.to_owned())
}

/// An answer given before.
fn replayed(answer: RecordedAnswer) -> Response {
    let Ok(status) = StatusCode::from_u16(answer.status) else { return Problem::internal().into_response() };
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = status;
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Records what was answered, if it counts.
async fn finished(turn: Turn, response: Response) -> Response {
    let status = response.status();
    if status.is_success() && !turn.recorded() {
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return Problem::internal().into_response() };
        let body = body.to_bytes();
        turn.answered(recorded(parts.status, &parts.headers, &body)).await;
        return Response::from_parts(parts, Body::from(body));
    }
    if status.is_client_error() {
        turn.refused().await;
    }
    // Of what failed on our side nobody knows whether it was done: run again, it comes to the same.
    response
}

/// What is kept of an answer.
fn recorded(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> RecordedAnswer {
    let kept = [CONTENT_TYPE, LOCATION].into_iter().filter_map(|name| {
        let value = headers.get(&name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    RecordedAnswer { status: status.as_u16(), headers: kept.collect(), body: without_secrets(body) }
}

/// The answer of a publish, as the store records it.
pub(crate) fn answer_of_publish(
    show: impl Fn(&[Accepted]) -> Result<Response, Problem> + Send + Sync + 'static,
) -> MakeAnswer {
    MakeAnswer::new(move |accepted| {
        use futures_util::FutureExt;
        let shown = show(accepted).unwrap_or_else(Problem::into_response);
        let (parts, body) = shown.into_parts();
        // A body that is all there needs no waiting for.
        let body = body.collect().now_or_never().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        recorded(parts.status, &parts.headers, &body)
    })
}

/// A JSON object with its secrets null, otherwise as it is.
fn without_secrets(body: &[u8]) -> Bytes {
    let mut errors = Errors::default();
    let members = Reader::new(body, &mut errors).and_then(|mut reader| {
        let document = reader.document();
        reader.open_any(document, At::Root)
    });
    let Ok(Some(members)) = members else { return Bytes::copy_from_slice(body) };
    if !members.iter().any(|(name, _)| SECRETS.contains(&name.as_ref())) {
        return Bytes::copy_from_slice(body);
    }
    let null = RawValue::NULL;
    let mut text = String::with_capacity(body.len());
    for (name, value) in &members {
        let value = if SECRETS.contains(&name.as_ref()) { null } else { *value };
        text.push(if text.is_empty() { '{' } else { ',' });
        // Texts serialise.
        text.push_str(&serde_json::to_string(name).unwrap_or_default());
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_secrets_are_null_and_the_rest_is_as_it_was() {
        let cases = [
            (
                r#"{"id":"wh_1","secret":"whsec_x","a":{"secret":1.0}}"#,
                r#"{"id":"wh_1","secret":null,"a":{"secret":1.0}}"#,
            ),
            (r#"{"key":"gp_x"}"#, r#"{"key":null}"#),
            (r#"{ "id" : 1.0 }"#, r#"{ "id" : 1.0 }"#),
            (r#"[{"secret":"x"}]"#, r#"[{"secret":"x"}]"#),
            ("", ""),
            ("{}", "{}"),
        ];
        for (body, wanted) in cases {
            assert_eq!(without_secrets(body.as_bytes()), wanted, "{body}");
        }
    }

    #[test]
    fn keys_are_printable_ascii_of_bounded_length() {
        let of = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(KEY, HeaderValue::from_bytes(value).unwrap());
            }
            key_of(&headers).map(str::to_owned).ok()
        };
        assert_eq!(of(&[b"a key: 1~"]).as_deref(), Some("a key: 1~"));
        assert_eq!(of(&[&[b'x'; 255]]).map(|key| key.len()), Some(255));
        for bad in [&[&b""[..]][..], &[&[b'x'; 256]], &[b"a\tb"], &["\u{e9}".as_bytes()], &[b"a", b"a"]] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn headers_of_a_binary_cloudevent_count_in_any_order() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
            binary_cloudevent(&HeaderMap::from_iter(headers))
        };
        assert_eq!(of(&[("accept", "x")]), None);
        let one = of(&[("ce-id", "1"), ("ce-type", "a"), ("accept", "x")]);
        assert_eq!(one, of(&[("ce-type", "a"), ("ce-id", "1")]));
        assert_ne!(one, of(&[("ce-type", "a"), ("ce-id", "2")]));
    }
}
