//! The catalogue of event types: the server's, and each tenant's own over it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use gatepost_core::event::EventType;
use gatepost_core::tenant::Tenant;
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

/// List event types
///
/// By name: those declared and those merely seen in a publish (`declared: false`). With `tenant` as that
/// tenant has them: its own declarations stand over the server's, and each has when the tenant last
/// published it. A key bound to a tenant sees its tenant's. Scope `read`.
#[utoipa::path(
    get, path = "/v1/event-types", operation_id = "listEventTypes", tag = "event types",
    params(schema::PageParams, schema::CatalogueParams),
    responses((status = 200, description = "A page of event types", body = ListPage<ShowEventType>))
)]
pub(crate) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor", "tenant"], &mut errors);
    let tenant = whose(&call, &params, Scope::Read).await?;
    if tenant.is_none() {
        call.needs(Scope::Read)?;
    }
    let owner = tenant.as_ref().map_or(0, |tenant| tenant.key.0);
    let limit = params.limit(&mut errors);
    let after = params.cursor(List::EventTypes, owner, &mut errors);
    errors.check()?;
    let after = after.map(|name| String::from_utf8_lossy(&name).into_owned());
    // One more than asked for tells whether there is more.
    let cursor = |last: &EventType| encode(List::EventTypes, owner, last.as_str().as_bytes());
    let Some(tenant) = tenant else {
        let mut views = api.engine().event_types(after.as_deref(), limit + 1).await.map_err(fail("", ""))?;
        let more = views.len() > limit;
        views.truncate(limit);
        let next_cursor = views.last().filter(|_| more).map(|view| cursor(&view.name));
        return json(StatusCode::OK, &ListPage { data: views.iter().map(ShowEventType::from).collect(), next_cursor });
    };
    let seen = api.engine().tenant_event_types(&tenant, after.as_deref(), limit + 1).await;
    let mut seen = seen.map_err(fail(tenant.id.as_str(), ""))?;
    let more = seen.len() > limit;
    seen.truncate(limit);
    let next_cursor = seen.last().filter(|_| more).map(|one| cursor(&one.view.name));
    let data = seen.iter().map(|one| ShowEventType::of(&tenant.id, one)).collect();
    json(StatusCode::OK, &ListPage { data, next_cursor })
}

/// The tenant a call is about: the one it names, else the one its key is bound to.
//
// Not an `async fn`: a body cannot be shared between threads, so the future must not hold `call`.
fn whose(
    call: &Call,
    params: &Params,
    scope: Scope,
) -> impl Future<Output = Result<Option<Arc<Tenant>>, Problem>> + Send + use<> {
    let named = params.get("tenant").map(str::to_owned);
    let name = named.or_else(|| call.caller.tenant.as_ref().map(ToString::to_string));
    let id = name.as_ref().map(|name| call.tenant_id(name, scope));
    let engine = call.engine().clone();
    async move {
        match (name, id) {
            (Some(name), Some(id)) => Ok(Some(engine.tenant(&id?).await.map_err(fail(&name, &name))?)),
            _ => Ok(None),
        }
    }
}

/// Show an event type
///
/// With `tenant` as that tenant has it; a key bound to a tenant sees its tenant's. Scope `read`.
#[utoipa::path(
    get, path = "/v1/event-types/{name}", operation_id = "getEventType", tag = "event types",
    params(schema::EventTypePath, schema::CatalogueParams),
    responses((status = 200, description = "The event type", body = ShowEventType))
)]
pub(crate) async fn get(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["tenant"], &mut errors);
    let tenant = whose(&call, &params, Scope::Read).await?;
    if tenant.is_none() {
        call.needs(Scope::Read)?;
    }
    errors.check()?;
    let Some(tenant) = tenant else {
        let view = call.engine().event_type(&name).await.map_err(fail("", &name))?;
        return json(StatusCode::OK, &ShowEventType::from(&view));
    };
    let seen = call.engine().tenant_event_type(&tenant, &name).await.map_err(fail(tenant.id.as_str(), &name))?;
    json(StatusCode::OK, &ShowEventType::of(&tenant.id, &seen))
}

/// Declare an event type
///
/// Replaces an earlier declaration whole. Without `tenant` in the server's catalogue: scope `admin`, with a
/// key bound to no tenant. With `tenant` as that tenant's own, which stands over the server's for this
/// tenant and is seen by no other: scope `manage`.
#[utoipa::path(
    put, path = "/v1/event-types/{name}", operation_id = "putEventType", tag = "event types",
    params(schema::EventTypePath, schema::CatalogueParams),
    request_body(content = schema::EventTypeInput, description = "May be empty"),
    responses(
        (status = 200, description = "Replaced", body = ShowEventType),
        (status = 201, description = "Declared", body = ShowEventType, headers(("location" = String))),
    )
)]
pub(crate) async fn put(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["tenant"], &mut errors);
    let tenant = owner(&call, &params).await?;
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
    let path = format!("/v1/event-types/{name}");
    let Some(tenant) = tenant else {
        let put = received.engine().put_event_type(stand_in, definition).await;
        let (view, was_created) = put.map_err(fail("", &name))?;
        return put_answer(&path, was_created, &ShowEventType::from(&view));
    };
    let put = received.engine().put_tenant_event_type(&tenant, stand_in, definition).await;
    let (seen, was_created) = put.map_err(fail(tenant.id.as_str(), &name))?;
    let path = format!("{path}?tenant={}", tenant.id);
    put_answer(&path, was_created, &ShowEventType::of(&tenant.id, &seen))
}

/// Whose declaration is changed: a tenant's own when one is named, else the server's.
fn owner(call: &Call, params: &Params) -> impl Future<Output = Result<Option<Arc<Tenant>>, Problem>> + Send + use<> {
    let named = params.get("tenant").is_some();
    let allowed = if named { Ok(()) } else { call.needs_installation() };
    let whose = whose(call, params, Scope::Manage);
    async move {
        allowed?;
        if named { whose.await } else { Ok(None) }
    }
}

fn put_answer(path: &str, was_created: Created, shown: &ShowEventType<'_>) -> Result<Response, Problem> {
    match was_created {
        Created::Yes => created(path, shown),
        Created::No => json(StatusCode::OK, shown),
    }
}

/// Take a declaration away
///
/// A built-in type is then again as it came with the server; with `tenant` the server's shows again. Scope
/// `admin`, with a key bound to no tenant; with `tenant` scope `manage`.
#[utoipa::path(
    delete, path = "/v1/event-types/{name}", operation_id = "deleteEventType", tag = "event types",
    params(schema::EventTypePath, schema::CatalogueParams),
    responses((status = 204, description = "Deleted"))
)]
pub(crate) async fn delete(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["tenant"], &mut errors);
    let tenant = owner(&call, &params).await?;
    errors.check()?;
    match tenant {
        Some(tenant) => {
            let deleted = call.engine().delete_tenant_event_type(&tenant, &name).await;
            deleted.map_err(fail(tenant.id.as_str(), &name))?;
        }
        None => call.engine().delete_event_type(&name).await.map_err(fail("", &name))?,
    }
    Ok(no_content())
}
