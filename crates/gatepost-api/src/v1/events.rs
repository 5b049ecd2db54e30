//! Publishing, and what was published.

use axum::response::Response;
use gatepost_core::TenantId;
use gatepost_core::tenant::Tenant;
use gatepost_core::trace::TraceContext;
use gatepost_engine::ops::{PublishInput, Published};
use gatepost_engine::store::{EventQuery, Order, Scope};
use gatepost_engine::{Kind, PublishOnce};
use http::{HeaderMap, HeaderName, StatusCode};

use super::json;
use crate::body::Content;
use crate::idempotency::{Ticket, answer_of_publish};
use crate::problem::{Problem, quota_headers};
use crate::state::{Call, Names, Received, fail, id};
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, ShowBatch, ShowEvent, ShowEventDetail, ShowPublished};
use crate::wire::{Errors, cloudevents, schema};

/// Publish an event
///
/// `202` means the event and its deliveries are on disk. The same `id` with the same content is
/// answered again (`duplicate: true`), with another content refused (409). CloudEvents are read here too, by
/// their content type or the header `ce-specversion`, as at `events/cloudevents`. Scope `publish`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/events", operation_id = "publishEvent", tag = "events",
    params(schema::TenantPath),
    request_body = schema::EventInput,
    responses(
        (status = 202, description = "Accepted and on disk", body = ShowPublished),
        (status = 409, description = "`event_id_conflict`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn publish(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    publish_one(&name, call, Content::Json).await
}

/// Publish CloudEvents
///
/// CloudEvents 1.0 over HTTP: one in structured mode, a batch of them
/// (`application/cloudevents-batch+json`, at most 1,000, answered like `events/batch`), or one in binary mode
/// (its attributes in `ce-` headers, its data as the body). Scope `publish`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/events/cloudevents", operation_id = "publishCloudEvent", tag = "events",
    params(schema::TenantPath),
    request_body(
        content = schema::CloudEvent, content_type = "application/cloudevents+json",
        description = "One event in structured mode; batches and binary mode are read too",
    ),
    responses(
        (status = 202, description = "Accepted and on disk; of a batch `{\"events\": […]}`", body = ShowPublished),
        (status = 409, description = "`event_id_conflict`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn publish_cloudevents(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    publish_one(&name, call, Content::CloudEvent).await
}

/// Publishes what a body holds; `json`: what one that is JSON, and says no more, is.
async fn publish_one(name: &str, call: Call, json: Content) -> Result<Response, Problem> {
    // Before the body is looked at: what is wrong with it is nobody's business where there is no tenant.
    let tenant = call.tenant(name, Scope::Publish).await?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    if cloudevents::is_binary(&call.parts.headers) {
        Content::plain(&call.parts.headers)?;
        let limit = call.engine().limits().max_body_bytes;
        let received = call.body_up_to(Ok(Content::CloudEvent), None, limit).await?;
        let (headers, body) = (&received.parts.headers, &received.bytes);
        let input = received.read(&mut errors, |reader| reader.cloudevent_binary(headers, body))?;
        errors.check()?;
        return answer(&received, &tenant, input.into_iter().collect(), false).await;
    }
    let most = call.engine().limits().max_body_bytes;
    let received = call.body(&[Content::Json, Content::CloudEvent, Content::CloudEvents]).await?;
    let content = if received.content == Content::Json { json } else { received.content };
    let inputs: Vec<PublishInput> = match content {
        Content::CloudEvents => received.read(&mut errors, |reader| reader.cloudevents(&received.bytes, most))?,
        Content::CloudEvent => {
            received.read(&mut errors, |reader| reader.cloudevent(&received.bytes))?.into_iter().collect()
        }
        _ => received.read(&mut errors, |reader| reader.single_event())?.into_iter().collect(),
    };
    errors.check()?;
    let batch = content == Content::CloudEvents;
    answer(&received, &tenant, inputs, batch).await
}

/// Publish many events
///
/// All or none, at most 1,000, as `{"events": […]}` or NDJSON (one event a line). Scope `publish`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/events/batch", operation_id = "publishEvents", tag = "events",
    params(schema::TenantPath),
    request_body(content(
        (schema::BatchInput = "application/json"),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 202, description = "All accepted and on disk", body = ShowBatch),
        (status = 409, description = "`event_id_conflict`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn publish_batch(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    // Before the body is looked at: what is wrong with it is nobody's business where there is no tenant.
    let tenant = call.tenant(&name, Scope::Publish).await?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let content = Content::of(&call.parts.headers, &[Content::Json, Content::Ndjson]);
    let (most, limit) = (call.engine().limits().max_body_bytes, call.engine().limits().max_batch_bytes);
    let received = call.body_up_to(content, Some(Content::Json), limit).await?;
    let inputs = received.read(&mut errors, |reader| match received.content {
        Content::Ndjson => reader.ndjson(most),
        _ => reader.batch(most),
    })?;
    errors.check()?;
    answer(&received, &tenant, inputs, true).await
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The publisher's trace: deliveries continue it.
fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

/// Publishes what was read without error.
async fn answer(
    received: &Received,
    tenant: &Tenant,
    mut inputs: Vec<PublishInput>,
    batch: bool,
) -> Result<Response, Problem> {
    if let Some(trace) = trace_of(&received.parts.headers) {
        inputs.iter_mut().for_each(|input| input.trace = Some(trace));
    }
    let published = publish_once(received, &tenant.id, inputs, batch).await?;
    let mut response = shown(&published, batch)?;
    if tenant.settings.quotas.events_per_s.is_some()
        && let Some(state) = received.engine().event_quota(&tenant.id).await
    {
        response.headers_mut().extend(quota_headers(&state));
    }
    Ok(response)
}

/// Publishes, under the idempotency key if there is one: then the answer is recorded with the events.
async fn publish_once(
    received: &Received,
    tenant: &TenantId,
    inputs: Vec<PublishInput>,
    batch: bool,
) -> Result<Vec<Published>, Problem> {
    let name = tenant.as_str();
    let ticket = received.parts.extensions.get::<Ticket>();
    let Some((ticket, turn)) = ticket.and_then(|ticket| Some((ticket, ticket.take_turn()?))) else {
        return received.engine().publish(tenant, inputs, batch).await.map_err(fail(name, name));
    };
    let answer = answer_of_publish(move |accepted| {
        let published: Vec<Published> = accepted.iter().map(Published::from).collect();
        shown(&published, batch)
    });
    // In an allocation of its own, as all that only a key needs.
    let outcome = Box::pin(received.engine().publish_once(tenant, inputs, batch, &turn, answer)).await;
    match outcome {
        Ok(PublishOnce::Known(found)) => {
            ticket.found(found)?;
            Err(Problem::internal())
        }
        Ok(PublishOnce::Published(published)) => {
            ticket.give_back(turn);
            Ok(published)
        }
        Err(error) => {
            ticket.give_back(turn);
            Err(Problem::of(error, name, name))
        }
    }
}

/// What publishing answers.
fn shown(published: &[Published], batch: bool) -> Result<Response, Problem> {
    if batch {
        return json(StatusCode::ACCEPTED, &ShowBatch { events: published.iter().map(ShowPublished::from).collect() });
    }
    // One event in, one out.
    json(StatusCode::ACCEPTED, &ShowPublished::from(published.first().ok_or_else(Problem::internal)?))
}

/// List events
///
/// Newest first; with `order=asc` a feed that can be polled forever without gap or repeat: it begins
/// at the oldest kept event and its `next_cursor` is never null. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/events", operation_id = "listEvents", tag = "events",
    params(schema::TenantPath, schema::PageParams, schema::EventParams),
    responses((status = 200, description = "A page of events", body = ListPage<ShowEvent>))
)]
pub(crate) async fn list(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let allowed = ["limit", "cursor", "order", "type", "subject", "subject_type", "after", "before"];
    let params = Params::open(&call.parts.uri, &allowed, &mut errors);
    let orders = [("asc", Order::Ascending), ("desc", Order::Descending)];
    let order = params.word("order", &orders, &mut errors).unwrap_or_default();
    let kind = match order {
        Order::Ascending => List::Feed,
        Order::Descending => List::Events,
    };
    let query = EventQuery {
        event_type: params.parsed("type", &mut errors),
        subject: params.text("subject", &mut errors),
        subject_type: params.text("subject_type", &mut errors),
        after: params.time("after", &mut errors),
        before: params.time("before", &mut errors),
        order,
        ..EventQuery::of(tenant.key, params.page(kind, tenant.key.0, &mut errors))
    };
    errors.check()?;
    let page = call.engine().events(query).await.map_err(fail(&name, ""))?;
    let data =
        page.rows.iter().map(|(event, deliveries)| ShowEvent::new(event, *deliveries)).collect::<Result<_, _>>()?;
    let next_cursor = page.next.map(|position| encode_number(kind, tenant.key.0, position));
    json(StatusCode::OK, &ListPage { data, next_cursor })
}

/// Show an event
///
/// With its deliveries and, per webhook, why it did or did not match. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/events/{event}", operation_id = "getEvent", tag = "events",
    params(schema::TenantPath, schema::EventPath),
    responses((status = 200, description = "The event", body = ShowEventDetail))
)]
pub(crate) async fn get(Names((name, event)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    call.no_query()?;
    let id = id(Kind::Event, &event)?;
    let detail = call.engine().event(&tenant, &id).await.map_err(fail(&name, &event))?;
    json(StatusCode::OK, &ShowEventDetail::new(&detail)?)
}
