//! Deliveries: what is owed, what was tried, and doing something about it.

use std::str::FromStr;

use std::sync::Arc;

use axum::response::Response;
use gatepost_core::DeliveryId;
use gatepost_core::delivery::DeliveryState;
use gatepost_core::tenant::Tenant;
use gatepost_engine::Kind;
use gatepost_engine::store::{DeliveryQuery, Scope};
use http::StatusCode;

use super::json;
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Call, Names, Received, fail, id};
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, ShowDelivery, ShowDeliveryDetail};
use crate::wire::{Errors, schema};

/// List deliveries
///
/// Newest first. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/deliveries", operation_id = "listDeliveries", tag = "deliveries",
    params(schema::TenantPath, schema::PageParams, schema::DeliveryParams),
    responses((status = 200, description = "A page of deliveries", body = ListPage<ShowDelivery>))
)]
pub(crate) async fn list(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let allowed = [
        "limit",
        "cursor",
        "webhook_id",
        "event_id",
        "event_type",
        "subject",
        "subject_type",
        "state",
        "since",
        "until",
    ];
    let params = Params::open(&call.parts.uri, &allowed, &mut errors);
    let states = DeliveryState::ALL.map(|state| (state.as_str(), state));
    let query = DeliveryQuery {
        webhook: params.parsed("webhook_id", &mut errors),
        event: params.parsed("event_id", &mut errors),
        event_type: params.parsed("event_type", &mut errors),
        subject: params.text("subject", &mut errors),
        subject_type: params.text("subject_type", &mut errors),
        state: params.word("state", &states, &mut errors),
        since: params.time("since", &mut errors),
        until: params.time("until", &mut errors),
        ..DeliveryQuery::of(tenant.key, params.page(List::Deliveries, tenant.key.0, &mut errors))
    };
    errors.check()?;
    let page = call.engine().deliveries(query).await.map_err(fail(&name, ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::Deliveries, tenant.key.0, position));
    json(StatusCode::OK, &ListPage { data: page.rows.iter().map(ShowDelivery::from).collect(), next_cursor })
}

/// Show a delivery
///
/// With its attempts. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/deliveries/{delivery}", operation_id = "getDelivery", tag = "deliveries",
    params(schema::TenantPath, schema::DeliveryPath),
    responses((status = 200, description = "The delivery", body = ShowDeliveryDetail))
)]
pub(crate) async fn get(Names((name, delivery)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    call.no_query()?;
    let id = id(Kind::Delivery, &delivery)?;
    let view = call.engine().delivery(&tenant, id).await.map_err(fail(&name, &delivery))?;
    json(StatusCode::OK, &ShowDeliveryDetail::from(&view))
}

/// Retry a delivery
///
/// In whatever state it is: reopened with a new budget, due at once. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/deliveries/{delivery}/retry", operation_id = "retryDelivery", tag = "deliveries",
    params(schema::TenantPath, schema::DeliveryPath),
    responses(
        (status = 202, description = "Reopened", body = ShowDelivery),
        (status = 409, description = "`webhook_disabled` or `webhook_deleted`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn retry(Names((name, delivery)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let (received, tenant, id) = of_delivery(call, &name, &delivery).await?;
    let row = received.engine().retry_delivery(&tenant, id).await.map_err(fail(&name, &delivery))?;
    json(StatusCode::ACCEPTED, &ShowDelivery::from(&row))
}

/// Cancel a delivery
///
/// Wins over an attempt under way. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/deliveries/{delivery}/cancel", operation_id = "cancelDelivery", tag = "deliveries",
    params(schema::TenantPath, schema::DeliveryPath),
    responses(
        (status = 200, description = "Cancelled", body = ShowDelivery),
        (status = 409, description = "`delivery_terminal`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(Names((name, delivery)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let (received, tenant, id) = of_delivery(call, &name, &delivery).await?;
    let row = received.engine().cancel_delivery(&tenant, id).await.map_err(fail(&name, &delivery))?;
    json(StatusCode::OK, &ShowDelivery::from(&row))
}

/// A call that does something to a delivery and has no members.
async fn of_delivery(call: Call, name: &str, delivery: &str) -> Result<(Received, Arc<Tenant>, DeliveryId), Problem> {
    let tenant = call.tenant(name, Scope::Manage).await?;
    let id = DeliveryId::from_str(delivery).map_err(|_| Problem::missing(Kind::Delivery, delivery))?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    received.read(&mut errors, |reader| reader.nothing())?;
    errors.check()?;
    Ok((received, tenant, id))
}
