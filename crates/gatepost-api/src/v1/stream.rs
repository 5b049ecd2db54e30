//! What happens to a tenant, as it happens: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use gatepost_engine::store::Scope;
use gatepost_engine::{Change, StreamFilter, StreamKind, Streamed, Subscription};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Serialize;

use crate::problem::{ErrorCode, Problem};
use crate::state::{Call, Names};
use crate::wire::query::Params;
use crate::wire::show::{ShowAttemptMade, ShowDelivery, ShowEvent};
use crate::wire::{Errors, schema};

/// The media type of server-sent events.
const EVENT_STREAM: &str = "text/event-stream";
/// Where a client that reconnects says how far it came.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// After so long without a change a comment is sent, so that nobody in between takes the connection for
/// dead, and a listener that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The first thing sent: a comment, and how soon to reconnect.
const HELLO: &str = ": gatepost\nretry: 1000\n\n";

/// Follow what happens
///
/// Server-sent events named `event`, `delivery` and `attempt`, with data as in the lists, from now on.
/// `Last-Event-ID` (or `last_event_id`) goes on from there without gap; where that is not possible any more
/// (the server was restarted, or too much happened) one `reset` comes first: read the lists anew. The
/// stream ends when the server stops, the tenant is deleted or the key is taken away. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/stream", operation_id = "followStream", tag = "events",
    params(schema::TenantPath, schema::StreamParams),
    responses(
        (status = 200, description = "Events until the connection ends", body = String, content_type = "text/event-stream"),
        (status = 429, description = "`too_many_requests`: too many listen already", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn follow(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["types", "webhook_id", "last_event_id"], &mut errors);
    let filter = StreamFilter {
        kinds: kinds(params.text("types", &mut errors).as_deref(), &mut errors),
        webhook: params.parsed("webhook_id", &mut errors),
    };
    let in_query = params.text("last_event_id", &mut errors);
    errors.check()?;
    // The header is what a browser sends by itself when it reconnects to the same URL.
    let in_header = call.parts.headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default().to_owned());
    let after = in_header.or(in_query).filter(|id| !id.is_empty()).map(|id| id.parse());
    let subscription = call.engine().subscribe(&tenant, &call.caller, filter, after).ok_or_else(|| {
        Problem::new(ErrorCode::TooManyRequests, "too many streams are being followed already; try again later")
            .with(RETRY_AFTER, HeaderValue::from_static("5"))
    })?;
    let api = call.api().clone();
    let hello = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(HELLO.as_bytes())) });
    let changes = stream::unfold((subscription, api), |(mut subscription, api)| async move {
        let chunk = next_chunk(&mut subscription).await?;
        // Without room the stream ends, and is gone on with from the last id.
        let chunk = api.answers().chunk(chunk).await?;
        Some((Ok(chunk), (subscription, api)))
    });
    let mut response = Response::new(Body::from_stream(stream::StreamExt::chain(hello, changes)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Proxies that collect answers before they pass them on are told not to.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// A list of kinds, separated by commas.
fn kinds(text: Option<&str>, errors: &mut Errors) -> Vec<StreamKind> {
    let mut kinds = Vec::new();
    for word in text.into_iter().flat_map(|text| text.split(',')) {
        match StreamKind::ALL.into_iter().find(|kind| kind.as_str() == word) {
            Some(kind) => kinds.push(kind),
            None => {
                errors.push("?types", "must be some of event, delivery, attempt, separated by commas");
                break;
            }
        }
    }
    kinds
}

/// What comes next on the wire; none at the end.
async fn next_chunk(subscription: &mut Subscription) -> Option<Bytes> {
    match tokio::time::timeout(HEARTBEAT, subscription.next()).await {
        Ok(heard) => Some(written(&heard?)),
        Err(_) if subscription.may_listen() => Some(Bytes::from_static(b": \n\n")),
        Err(_) => None,
    }
}

fn written(heard: &[Streamed]) -> Bytes {
    let mut text = String::new();
    for streamed in heard {
        match streamed {
            Streamed::Reset(position) => {
                let data = r#"{"message":"changes were missed: read the lists anew"}"#;
                push(&mut text, &position.to_string(), "reset", data);
            }
            Streamed::Change(position, change) => match data_of(change) {
                Some(data) => push(&mut text, &position.to_string(), change.kind().as_str(), &data),
                // Damage, which the log has: the others go on.
                None => continue,
            },
        }
    }
    Bytes::from(text)
}

fn data_of(change: &Change) -> Option<String> {
    fn json(value: &impl Serialize) -> Option<String> {
        serde_json::to_string(value).inspect_err(|error| tracing::error!(%error, "a change does not serialise")).ok()
    }
    match change {
        Change::Event { event, deliveries } => json(&ShowEvent::new(event, *deliveries).ok()?),
        Change::Delivery(row) => json(&ShowDelivery::from(&**row)),
        Change::Attempt(attempt) => json(&ShowAttemptMade::from(&**attempt)),
    }
}

/// One event on the wire. Data as published may have line ends in them; each line is a line of its own,
/// and the reader puts a line feed between them, which JSON reads the same.
fn push(text: &mut String, id: &str, name: &str, data: &str) {
    text.push_str("id: ");
    text.push_str(id);
    text.push_str("\nevent: ");
    text.push_str(name);
    for line in data.split(['\n', '\r']) {
        text.push_str("\ndata: ");
        text.push_str(line);
    }
    text.push_str("\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_several_lines_stay_one_event() {
        let mut text = String::new();
        push(&mut text, "17", "event", "{\n \"a\":\r\n1}");
        assert_eq!(text, "id: 17\nevent: event\ndata: {\ndata:  \"a\":\ndata: \ndata: 1}\n\n");
    }

    #[test]
    fn kinds_are_words_with_commas() {
        let of = |text| {
            let mut errors = Errors::default();
            let kinds = kinds(text, &mut errors);
            (kinds.len(), errors.len())
        };
        assert_eq!([of(None), of(Some("event")), of(Some("attempt,event"))], [(0, 0), (1, 0), (2, 0)]);
        assert_eq!([of(Some("event,")), of(Some("events")), of(Some("Event"))].map(|(_, errors)| errors), [1, 1, 1]);
    }
}
