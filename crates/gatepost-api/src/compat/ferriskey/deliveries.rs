//! What was sent to a webhook, in FerrisKey's words.

use axum::response::Response;
use gatepost_core::catalogue;
use gatepost_core::delivery::{AttemptRecord, DeliveryState, Outcome, Reason};
use gatepost_core::profiles::ferriskey::{NAME, delivery_uuid, parse_delivery_uuid, resource_id};
use gatepost_core::tenant::Tenant;
use gatepost_core::{DeliveryId, Timestamp};
use gatepost_engine::ops::{DeliveryView, WebhookView};
use gatepost_engine::store::{DeliveryQuery, DeliveryRow, LOOKED_AT, PageRequest, Scope};
use gatepost_engine::{Engine, Kind};
use http::StatusCode;
use serde_json::{Value, json};

use super::super::{find, native_id};
use super::list::{self, Paging, bad, contains, moment};
use super::realm;
use crate::body::Content;
use crate::problem::{ErrorCode, Problem};
use crate::state::{Call, Names};
use crate::v1::json as answer;

/// Rows of one page of ours, of which lists here are made.
const ROWS: usize = 250;
/// Deliveries looked at for when a webhook was last sent to.
const NEWEST: usize = 50;
/// Deliveries looked at for one list, the newest ones: beyond, `total` counts no further. Other webhooks'
/// count as well, so that a list costs the same however much the realm has sent.
const SCANNED_MAX: usize = 10_000;

/// What a list asks for.
#[derive(Default)]
struct Asked {
    search: Option<String>,
    event: Option<String>,
    status: Option<String>,
    resource_id: Option<String>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    order_by: Order,
    ascending: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Order {
    Status,
    AttemptCount,
    #[default]
    CreatedAt,
    UpdatedAt,
}

impl Asked {
    fn read(paging: &Paging, filters: Vec<(String, String)>) -> Result<Asked, Problem> {
        let order_by = match paging.order_by.as_deref() {
            Some("status") => Order::Status,
            Some("attempt_count") => Order::AttemptCount,
            None | Some("created_at") => Order::CreatedAt,
            Some("updated_at" | "last_attempt_at") => Order::UpdatedAt,
            Some(_) => return Err(bad("order_by", "is no column to sort by")),
        };
        let mut asked = Asked { order_by, ascending: paging.ascending, ..Asked::default() };
        for (name, value) in filters {
            match name.as_str() {
                "search" => asked.search = Some(value),
                "event" if catalogue::of_system(NAME).any(|known| known.name.as_str() == value) => {
                    asked.event = Some(value);
                }
                "status" if STATUSES.contains(&value.as_str()) => asked.status = Some(value),
                "resource_id" if parse_delivery_uuid(&value.to_lowercase()).is_some() => {
                    asked.resource_id = Some(value.to_lowercase());
                }
                "created_from" => asked.from = Some(moment(&name, &value)?),
                "created_to" => asked.to = Some(moment(&name, &value)?),
                "event" => return Err(bad(&name, "is no trigger")),
                "status" => return Err(bad(&name, "must be one of pending, delivering, succeeded, failed")),
                "resource_id" => return Err(bad(&name, "must be a UUID")),
                _ => return Err(bad(&name, "is unknown")),
            }
        }
        Ok(asked)
    }

    fn wants(&self, tenant: &Tenant, row: &DeliveryRow) -> bool {
        let resource = || resource_of(tenant, row);
        self.event.as_ref().is_none_or(|event| row.event_type.as_str() == event)
            && self.status.as_ref().is_none_or(|status| status_of(row) == status)
            && self.resource_id.as_ref().is_none_or(|id| resource() == *id)
            && self.search.as_ref().is_none_or(|part| contains(&resource(), part))
    }

    fn sort(&self, rows: &mut [DeliveryRow]) {
        // Rows come newest first, and sorting keeps the order of equals.
        match self.order_by {
            Order::Status => rows.sort_by(|a, b| status_of(a).cmp(status_of(b))),
            Order::AttemptCount => rows.sort_by_key(|row| row.attempts),
            Order::CreatedAt => rows.sort_by_key(|row| (row.created_at, row.seq)),
            Order::UpdatedAt => rows.sort_by_key(|row| (row.updated_at, row.seq)),
        }
        if !self.ascending {
            rows.reverse();
        }
    }
}

pub(super) async fn list(Names((name, id)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Read).await?;
    let (paging, filters) = list::read(&call.parts.uri)?;
    let asked = Asked::read(&paging, filters)?;
    let engine = call.engine().clone();
    drop(call);
    let view = find(&engine, &tenant, NAME, &id).await?;
    let mut rows = rows(&engine, &tenant, &view, &asked).await?;
    asked.sort(&mut rows);
    let (rows, metadata) = paging.page_of(rows);
    let mut data = Vec::new();
    for row in rows {
        let detail = engine.delivery(&tenant, row.id()).await;
        let detail = detail.map_err(|error| Problem::of(error, &name, &id))?;
        data.push(shown(&tenant, &view, &detail));
    }
    answer(StatusCode::OK, &json!({"data": data, "metadata": metadata}))
}

/// When something was last sent to a webhook, as far as its newest deliveries tell.
pub(super) async fn triggered_at(
    engine: &Engine,
    tenant: &Tenant,
    view: &WebhookView,
) -> Result<Option<Timestamp>, Problem> {
    let query = DeliveryQuery {
        webhook: Some(view.webhook.id),
        ..DeliveryQuery::of(tenant.key, PageRequest { limit: NEWEST, after: None })
    };
    let page = engine.deliveries(query).await.map_err(|error| Problem::of(error, tenant.id.as_str(), ""))?;
    Ok(page.rows.iter().filter(|row| row.attempts > 0).map(|row| row.updated_at).max())
}

async fn rows(
    engine: &Engine,
    tenant: &Tenant,
    view: &WebhookView,
    asked: &Asked,
) -> Result<Vec<DeliveryRow>, Problem> {
    let mut rows = Vec::new();
    let (mut after, mut scanned) = (None, 0);
    loop {
        let query = DeliveryQuery {
            webhook: Some(view.webhook.id),
            since: asked.from,
            until: asked.to,
            ..DeliveryQuery::of(tenant.key, PageRequest { limit: ROWS, after })
        };
        let page = engine.deliveries(query).await.map_err(|error| Problem::of(error, tenant.id.as_str(), ""))?;
        // A page that is not full and has a successor is one for which that many were looked at.
        scanned += if page.rows.len() < ROWS { LOOKED_AT } else { ROWS };
        rows.extend(page.rows.into_iter().filter(|row| asked.wants(tenant, row)));
        match page.next {
            Some(next) if scanned < SCANNED_MAX => after = Some(next),
            _ => return Ok(rows),
        }
    }
}

pub(super) async fn show(
    Names((name, id, delivery)): Names<(String, String, String)>,
    call: Call,
) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Read).await?;
    let engine = call.engine().clone();
    drop(call);
    let view = find(&engine, &tenant, NAME, &id).await?;
    let detail = its(&engine, &tenant, &view, &delivery).await?;
    let mut shown = shown(&tenant, &view, &detail);
    let body = detail.body.as_deref().and_then(|body| serde_json::from_slice::<Value>(body).ok());
    shown["payload"] = body.unwrap_or_default();
    answer(StatusCode::OK, &json!({ "data": shown }))
}

pub(super) async fn retry(
    Names((name, id, delivery)): Names<(String, String, String)>,
    call: Call,
) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Manage).await?;
    let received = call.body(&[Content::Json]).await?;
    let engine = received.engine();
    let view = find(engine, &tenant, NAME, &id).await?;
    let detail = its(engine, &tenant, &view, &delivery).await?;
    if !detail.detail.row.state.is_terminal() {
        return Err(Problem::new(ErrorCode::DeliveryPending, "the delivery is still being made"));
    }
    let row = engine.retry_delivery(&tenant, detail.detail.row.id()).await;
    let row = row.map_err(|error| Problem::of(error, &name, &delivery))?;
    answer(StatusCode::ACCEPTED, &json!({"delivery_id": delivery_uuid(row.id()).to_string(), "requeued": true}))
}

/// A delivery of this webhook; another's is none.
async fn its(engine: &Engine, tenant: &Tenant, view: &WebhookView, text: &str) -> Result<DeliveryView, Problem> {
    let missing = || Problem::missing(Kind::Delivery, text);
    let id: DeliveryId = parse_delivery_uuid(text).ok_or_else(missing)?;
    let detail = engine.delivery(tenant, id).await;
    let detail = detail.map_err(|error| Problem::of(error, tenant.id.as_str(), text))?;
    if detail.detail.row.webhook_id == view.webhook.id { Ok(detail) } else { Err(missing()) }
}

const STATUSES: [&str; 4] = ["pending", "delivering", "succeeded", "failed"];

fn status_of(row: &DeliveryRow) -> &'static str {
    match row.state {
        DeliveryState::Pending | DeliveryState::Held => "pending",
        DeliveryState::Delivered => "succeeded",
        DeliveryState::Failed | DeliveryState::Cancelled => "failed",
    }
}

fn resource_of(tenant: &Tenant, row: &DeliveryRow) -> String {
    resource_id(&tenant.id, row.subject.as_ref().map(|subject| subject.id.as_str())).to_string()
}

fn shown(tenant: &Tenant, view: &WebhookView, detail: &DeliveryView) -> Value {
    let row = &detail.detail.row;
    let last = detail.detail.attempts.last();
    let failed = last.filter(|attempt| attempt.outcome != Outcome::Ok);
    json!({
        "id": delivery_uuid(row.id()).to_string(),
        "webhook_id": native_id(view),
        "event": row.event_type.as_str(),
        "resource_id": resource_of(tenant, row),
        "status": status_of(row),
        "attempt_count": row.attempts,
        "next_attempt_at": row.next_attempt_at,
        "last_attempt_at": last.map(|attempt| attempt.started_at),
        "last_status_code": last.and_then(|attempt| attempt.status),
        "last_error_code": failed.map(error_code).or_else(|| cancelled(row)),
        "last_error_detail": failed.and_then(|attempt| attempt.error.clone()),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    })
}

/// FerrisKey's word for a failure.
fn error_code(attempt: &AttemptRecord) -> String {
    match attempt.outcome {
        Outcome::Ok => String::new(),
        Outcome::HttpStatus => format!("http_{}", attempt.status.unwrap_or_default()),
        Outcome::Dns => "dns_resolution_failed".into(),
        Outcome::BlockedAddress => "no_usable_address".into(),
        Outcome::InvalidUrl => "malformed_endpoint".into(),
        Outcome::Timeout | Outcome::Connect | Outcome::Tls | Outcome::Reset | Outcome::Protocol => {
            "transport_error".into()
        }
    }
}

/// A delivery that ended without an answer to blame.
fn cancelled(row: &DeliveryRow) -> Option<String> {
    let reason: Option<Reason> = row.reason.filter(|_| row.state == DeliveryState::Cancelled);
    reason.map(|reason| reason.as_str().to_owned())
}
