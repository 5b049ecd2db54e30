//! One person: forgetting what is kept about them, and proving who was told.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use gatepost_core::tenant::Tenant;
use gatepost_core::{DeliverySeq, EventSeq};
use gatepost_engine::Engine;
use gatepost_engine::ops::ToldInput;
use gatepost_engine::store::{Scope, ToldPage};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};

use super::jobs::accepted;
use super::json;
use crate::problem::{ErrorCode, Problem};
use crate::state::{Call, Names, fail};
use crate::wire::cursor::{self, List};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, ShowTold, csv_header, csv_row};
use crate::wire::{Errors, schema};

/// Rows read at once for a file.
const CSV_PAGE: usize = 250;

/// Erase a person
///
/// Removes the data and attributes of every event accepted so far whose subject has this id, the bodies
/// sent for them and what was answered, from the files too. What was not sent yet never will be
/// (`cancelled/by_user`). The bare record stays: ids, types, times, states and statuses; the subject's id
/// is replaced by a keyed hash, by which `GET …/subjects/{subject}/deliveries` still finds it. The work is
/// a job. Scope `manage`.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/subjects/{subject}", operation_id = "eraseSubject", tag = "subjects",
    params(schema::TenantPath, schema::SubjectPath, schema::SubjectTypeParams),
    responses((status = 202, description = "Begun", body = crate::wire::show::ShowJobId, headers(("location" = String))))
)]
pub(crate) async fn erase(Names((name, subject)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["subject_type"], &mut errors);
    let subject_type = params.text("subject_type", &mut errors);
    check_id(&subject, &mut errors);
    errors.check()?;
    let job = call.engine().erase_subject(&tenant, subject, subject_type).await.map_err(fail(&name, &name))?;
    accepted(&name, &job)
}

/// Prove who was told about a person
///
/// One row per delivery and event whose subject has this id, newest event first: to whom, when, and with
/// what answer. `format=csv` answers all rows as a file. Works after an erasure too. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/subjects/{subject}/deliveries", operation_id = "listSubjectDeliveries", tag = "subjects",
    params(schema::TenantPath, schema::SubjectPath, schema::PageParams, schema::ToldParams),
    responses((
        status = 200, description = "A page of rows, or all of them as a file",
        content((ListPage<ShowTold> = "application/json"), (String = "text/csv")),
    ))
)]
pub(crate) async fn told(Names((name, subject)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor", "subject_type", "format"], &mut errors);
    let file = params.word("format", &[("json", false), ("csv", true)], &mut errors).unwrap_or(false);
    let after = params.cursor(List::Told, tenant.key.0, &mut errors).and_then(|bytes| {
        let position = position(&bytes);
        if position.is_none() {
            errors.push_as(ErrorCode::InvalidCursor, "?cursor", "is not a cursor of this list");
        }
        position
    });
    let limit = params.limit(&mut errors);
    let subject_type = params.text("subject_type", &mut errors);
    check_id(&subject, &mut errors);
    errors.check()?;
    let engine = call.engine().clone();
    if file {
        let input = ToldInput { subject, subject_type, limit: CSV_PAGE, after };
        return csv(engine, tenant, input, &name).await;
    }
    let input = ToldInput { subject, subject_type, limit, after };
    let page = engine.told(&tenant, input).await.map_err(fail(&name, ""))?;
    let next_cursor = page.next.map(|next| cursor::encode(List::Told, tenant.key.0, &bytes_of(next)));
    json(StatusCode::OK, &ListPage { data: page.rows.iter().map(ShowTold::from).collect(), next_cursor })
}

/// The id in the path, by the rules of an event's subject.
fn check_id(subject: &str, errors: &mut Errors) {
    if !(1..=256).contains(&subject.chars().count()) {
        errors.push("{subject}", "must have 1 to 256 characters");
    }
}

fn bytes_of((event, delivery): (EventSeq, DeliverySeq)) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&event.0.to_be_bytes());
    bytes[8..].copy_from_slice(&delivery.0.to_be_bytes());
    bytes
}

fn position(bytes: &[u8]) -> Option<(EventSeq, DeliverySeq)> {
    let (event, delivery) = bytes.split_at_checked(8)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
    Some((EventSeq(number(event)?), DeliverySeq(number(delivery)?)))
}

/// What a file is written from.
struct Rows {
    engine: Engine,
    tenant: Arc<Tenant>,
    input: ToldInput,
    page: Option<ToldPage>,
    head: bool,
}

/// All rows as a file, read page by page while it is sent.
async fn csv(engine: Engine, tenant: Arc<Tenant>, input: ToldInput, name: &str) -> Result<Response, Problem> {
    // The first page is read before anything is answered, so that a failure is answered as one.
    let page = engine.told(&tenant, input.clone()).await.map_err(fail(name, ""))?;
    let rows = Rows { engine, tenant, input, page: Some(page), head: true };
    let chunks = stream::try_unfold(rows, |mut rows| async move {
        let Some(page) = rows.page.take() else { return Ok::<_, gatepost_engine::Error>(None) };
        let mut text = if std::mem::take(&mut rows.head) { csv_header() } else { String::new() };
        for told in &page.rows {
            csv_row(&mut text, told);
        }
        if page.next.is_some() {
            rows.input.after = page.next;
            rows.page = Some(rows.engine.told(&rows.tenant, rows.input.clone()).await?);
        }
        Ok(Some((Bytes::from(text), rows)))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"deliveries.csv\""));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_their_bytes_and_nothing_else() {
        let at = (EventSeq(7), DeliverySeq(i64::MAX));
        assert_eq!(position(&bytes_of(at)), Some(at));
        for bad in [&[][..], &[1; 8], &[1; 15], &[1; 17]] {
            assert_eq!(position(bad), None);
        }
    }
}
