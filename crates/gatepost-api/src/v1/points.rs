//! A tenant's blocking points.

use axum::response::Response;
use gatepost_engine::store::{Created, Scope};
use http::StatusCode;

use super::{created, json, no_content};
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Call, Names, fail};
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, show_point};
use crate::wire::{Errors, hook_schema, schema};

/// List points
///
/// The built-in ones, then the tenant's own by name. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/points", operation_id = "listPoints", tag = "hooks",
    params(schema::TenantPath, schema::PageParams),
    responses((status = 200, description = "A page of points", body = ListPage<hook_schema::Point>))
)]
pub(crate) async fn list(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor"], &mut errors);
    let page = params.page(List::Points, tenant.key.0, &mut errors);
    errors.check()?;
    let points = call.engine().points(&tenant).await.map_err(fail(&name, ""))?;
    // The list is short and in memory: a position in it is cursor enough.
    let from = page.after.and_then(|after| usize::try_from(after).ok()).unwrap_or(0).min(points.len());
    let to = from.saturating_add(page.limit).min(points.len());
    let position = i64::try_from(to).unwrap_or(i64::MAX);
    let next_cursor = (to < points.len()).then(|| encode_number(List::Points, tenant.key.0, position));
    let data = points[from..to].iter().map(show_point).collect();
    json(StatusCode::OK, &ListPage::<serde_json::Value> { data, next_cursor })
}

/// Show a point
///
/// Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/points/{point}", operation_id = "getPoint", tag = "hooks",
    params(schema::TenantPath, schema::PointPath),
    responses((status = 200, description = "The point", body = hook_schema::Point))
)]
pub(crate) async fn get(Names((name, point)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    call.no_query()?;
    let view = call.engine().point(&tenant, &point).await.map_err(fail(&name, &point))?;
    json(StatusCode::OK, &show_point(&view))
}

/// Set or define a point
///
/// A built-in point is set (`enabled` is its kill switch); any other name defines a point of the tenant's
/// own. Absent members keep, `null` takes a member back to its default. Holds for the next invocation.
/// Scope `manage`.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/points/{point}", operation_id = "putPoint", tag = "hooks",
    params(schema::TenantPath, schema::PointPath),
    request_body(content = hook_schema::PointInput, description = "May be empty"),
    responses(
        (status = 200, description = "Set", body = hook_schema::Point),
        (status = 201, description = "Defined", body = hook_schema::Point, headers(("location" = String))),
    )
)]
pub(crate) async fn put(Names((name, point)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    call.no_query()?;
    let received = call.body(&[Content::Json]).await?;
    let mut errors = Errors::default();
    let members = received.members(&mut errors)?;
    errors.check()?;
    let (view, made) = received.engine().put_point(&tenant, &point, members).await.map_err(fail(&name, &point))?;
    match made {
        Created::Yes => created(&format!("/v1/tenants/{name}/points/{point}"), &show_point(&view)),
        Created::No => json(StatusCode::OK, &show_point(&view)),
    }
}

/// Remove a point
///
/// One of the tenant's own, if no hook is registered at it; a built-in one is as shipped again.
/// Scope `manage`.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/points/{point}", operation_id = "deletePoint", tag = "hooks",
    params(schema::TenantPath, schema::PointPath),
    responses(
        (status = 204, description = "Removed"),
        (status = 409, description = "`point_in_use`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(Names((name, point)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    call.no_query()?;
    call.engine().delete_point(&tenant, &point).await.map_err(fail(&name, &point))?;
    Ok(no_content())
}
