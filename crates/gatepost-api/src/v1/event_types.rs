//! The server's catalogue of event types.

use axum::extract::State;
use axum::response::Response;
use gatepost_core::event::EventType;
use gatepost_engine::EventTypeView;
use gatepost_engine::store::{Created, Scope};
use http::StatusCode;

use super::{created, json, no_content};
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Api, Call, Names, fail};
use crate::wire::Errors;
use crate::wire::cursor::{List, encode};
use crate::wire::query::Params;
use crate::wire::schema;
use crate::wire::show::{ListPage, ShowEventType};

fn show(view: &EventTypeView) -> ShowEventType<'_> {
    let definition = view.definition.as_deref();
    ShowEventType {
        name: &view.name,
        family: definition.map_or(view.name.family(), |d| &d.family),
        description: definition.map_or("", |d| &d.description),
        example: definition.and_then(|d| d.example.as_deref()),
        schema: definition.and_then(|d| d.schema.as_deref()),
        urgency: definition.map(|d| d.urgency).unwrap_or_default().as_str(),
        deprecated: definition.is_some_and(|d| d.deprecated),
        declared: definition.is_some(),
        builtin: view.builtin,
        created_at: view.created_at,
        updated_at: view.updated_at,
    }
}

/// List event types
///
/// By name: those declared and those merely seen in a publish (`declared: false`). Scope `read`.
#[utoipa::path(
    get, path = "/v1/event-types", operation_id = "listEventTypes", tag = "event types",
    params(schema::PageParams),
    responses((status = 200, description = "A page of event types", body = ListPage<ShowEventType>))
)]
pub(crate) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.needs(Scope::Read)?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor"], &mut errors);
    let limit = params.limit(&mut errors);
    let after = params.cursor(List::EventTypes, 0, &mut errors);
    errors.check()?;
    let after = after.map(|name| String::from_utf8_lossy(&name).into_owned());
    // One more than asked for tells whether there is more.
    let mut views = api.engine().event_types(after.as_deref(), limit + 1).await.map_err(fail("", ""))?;
    let more = views.len() > limit;
    views.truncate(limit);
    let last = views.last().filter(|_| more);
    let next_cursor = last.map(|view| encode(List::EventTypes, 0, view.name.as_str().as_bytes()));
    json(StatusCode::OK, &ListPage { data: views.iter().map(show).collect(), next_cursor })
}

/// Show an event type
///
/// Scope `read`.
#[utoipa::path(
    get, path = "/v1/event-types/{name}", operation_id = "getEventType", tag = "event types",
    params(schema::EventTypePath),
    responses((status = 200, description = "The event type", body = ShowEventType))
)]
pub(crate) async fn get(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    call.needs(Scope::Read)?;
    call.no_query()?;
    let view = call.engine().event_type(&name).await.map_err(fail("", &name))?;
    json(StatusCode::OK, &show(&view))
}

/// Declare an event type
///
/// Replaces an earlier declaration whole. Scope `admin`, with a key bound to no tenant.
#[utoipa::path(
    put, path = "/v1/event-types/{name}", operation_id = "putEventType", tag = "event types",
    params(schema::EventTypePath),
    request_body(content = schema::EventTypeInput, description = "May be empty"),
    responses(
        (status = 200, description = "Replaced", body = ShowEventType),
        (status = 201, description = "Declared", body = ShowEventType, headers(("location" = String))),
    )
)]
pub(crate) async fn put(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    call.needs_installation()?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let event_type = match name.parse::<EventType>() {
        Ok(event_type) if event_type.is_own() => {
            errors.push("{name}", "the gatepost family is Gatepost's own and cannot be declared");
            Some(event_type)
        }
        Ok(event_type) => Some(event_type),
        Err(error) => {
            errors.push("{name}", error.to_string());
            None
        }
    };
    let received = call.body(&[Content::Json]).await?;
    // The body's errors are told too, whatever is wrong with the name.
    let stand_in = event_type.clone().map_or_else(|| "x".parse(), Ok).map_err(|_| Problem::internal())?;
    let definition = received.read(&mut errors, |reader| reader.event_type(&stand_in))?;
    errors.check()?;
    let (view, was_created) = received.engine().put_event_type(stand_in, definition).await.map_err(fail("", &name))?;
    match was_created {
        Created::Yes => created(&format!("/v1/event-types/{name}"), &show(&view)),
        Created::No => json(StatusCode::OK, &show(&view)),
    }
}

/// Take a declaration away
///
/// A built-in type is then again as it came with the server. Scope `admin`, with a key bound to no
/// tenant.
#[utoipa::path(
    delete, path = "/v1/event-types/{name}", operation_id = "deleteEventType", tag = "event types",
    params(schema::EventTypePath),
    responses((status = 204, description = "Deleted"))
)]
pub(crate) async fn delete(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    call.needs_installation()?;
    call.no_query()?;
    call.engine().delete_event_type(&name).await.map_err(fail("", &name))?;
    Ok(no_content())
}
