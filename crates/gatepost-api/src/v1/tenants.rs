//! Tenants.

use axum::extract::State;
use axum::response::Response;
use gatepost_core::TenantId;
use gatepost_engine::Kind;
use gatepost_engine::store::{Created, Scope};
use http::StatusCode;

use super::{created, json, no_content};
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Api, Call, Names, fail};
use crate::wire::Errors;
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::schema;
use crate::wire::show::{ListPage, ShowTenant};

/// List tenants
///
/// Newest first. Scope `admin`, with a key bound to no tenant.
#[utoipa::path(
    get, path = "/v1/tenants", operation_id = "listTenants", tag = "tenants",
    params(schema::PageParams),
    responses((status = 200, description = "A page of tenants", body = ListPage<ShowTenant>))
)]
pub(crate) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.needs_installation()?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor"], &mut errors);
    let page = params.page(List::Tenants, 0, &mut errors);
    errors.check()?;
    let page = api.engine().tenants(page).await.map_err(fail("", ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::Tenants, 0, position));
    json(StatusCode::OK, &ListPage { data: page.rows.iter().map(ShowTenant::from).collect(), next_cursor })
}

/// Create or change a tenant
///
/// Absent members keep what is there. Scope `admin`, with a key bound to no tenant.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}", operation_id = "putTenant", tag = "tenants",
    params(schema::TenantPath),
    request_body(content = schema::TenantInput, description = "May be empty"),
    responses(
        (status = 200, description = "Changed", body = ShowTenant),
        (status = 201, description = "Created", body = ShowTenant, headers(("location" = String))),
    )
)]
pub(crate) async fn put(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let id: Option<TenantId> = name.parse().ok();
    // A key of another tenant must not learn whether this one exists, nor that it could not.
    let own = call.caller.tenant.as_ref();
    if own.is_some() && own != id.as_ref() {
        return Err(Problem::missing(Kind::Tenant, &name));
    }
    call.needs_installation()?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let input = received.read(&mut errors, |reader| reader.tenant())?;
    if id.is_none() {
        errors.push("{tenant}", gatepost_core::BadTenantId.to_string());
    }
    errors.check()?;
    let Some(id) = id else { return Err(Problem::missing(Kind::Tenant, &name)) };
    let (tenant, was_created) = received.engine().put_tenant(id, input).await.map_err(fail(&name, &name))?;
    match was_created {
        Created::Yes => created(&format!("/v1/tenants/{name}"), &ShowTenant::from(&tenant)),
        Created::No => json(StatusCode::OK, &ShowTenant::from(&tenant)),
    }
}

/// Show a tenant
///
/// Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", operation_id = "getTenant", tag = "tenants",
    params(schema::TenantPath),
    responses((status = 200, description = "The tenant", body = ShowTenant))
)]
pub(crate) async fn get(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    call.no_query()?;
    json(StatusCode::OK, &ShowTenant::from(&*tenant))
}

/// Delete a tenant
///
/// Gone at once; what waits for delivery becomes `cancelled/tenant_deleted`, data are removed in the
/// background. Scope `admin`, with a key bound to no tenant.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", operation_id = "deleteTenant", tag = "tenants",
    params(schema::TenantPath),
    responses((status = 204, description = "Deleted"))
)]
pub(crate) async fn delete(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let id: TenantId = name.parse().map_err(|_| Problem::missing(Kind::Tenant, &name))?;
    if !call.caller.sees(&id) {
        return Err(Problem::missing(Kind::Tenant, &name));
    }
    call.needs_installation()?;
    call.no_query()?;
    call.engine().delete_tenant(&id).await.map_err(fail(&name, &name))?;
    Ok(no_content())
}
