//! Replays, and jobs: what was asked for and takes longer than a request.

use axum::response::Response;
use gatepost_engine::Kind;
use gatepost_engine::store::{Job, Scope};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};

use super::json;
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Call, Names, fail, id};
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, ShowJob, ShowJobId, ShowReplayCount};
use crate::wire::{Errors, schema};

/// 202: it is a job now.
pub(super) fn accepted(tenant: &str, job: &Job) -> Result<Response, Problem> {
    let mut response = json(StatusCode::ACCEPTED, &ShowJobId { job_id: job.id })?;
    // Ids are ASCII without control characters.
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/tenants/{tenant}/jobs/{}", job.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Replay to a webhook
///
/// Delivers events accepted from `since` on (and before `until`, default now) again, or after all:
/// `failed` what failed, or was cancelled by a 410, and was not delivered since; `missed` what matches
/// the webhook now and has no delivery to it; `all` everything that matches now. Each becomes a new
/// delivery with a fresh budget, rendered by the webhook as it is now, under the same event id. The work
/// is a job. With `dry_run` it is only counted. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks/{webhook}/replay", operation_id = "replayWebhook", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    request_body = schema::ReplayInput,
    responses(
        (status = 200, description = "With `dry_run`: how many events it would be", body = ShowReplayCount),
        (status = 202, description = "Begun", body = ShowJobId, headers(("location" = String))),
        (status = 409, description = "`webhook_disabled`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn replay(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Webhook, &webhook)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let input = received.read(&mut errors, |reader| reader.replay())?;
    if !errors.is_empty() {
        // A webhook that is not there is nothing to replay to, whatever was asked for.
        received.engine().webhook(&tenant, id).await.map_err(fail(&name, &webhook))?;
        errors.check()?;
    }
    // Without errors there is something.
    let (input, dry_run) = input.ok_or_else(Problem::internal)?;
    if dry_run {
        let count = received.engine().count_replay(&tenant, id, input).await.map_err(fail(&name, &webhook))?;
        return json(StatusCode::OK, &ShowReplayCount { count });
    }
    let job = received.engine().replay(&tenant, id, input).await.map_err(fail(&name, &webhook))?;
    accepted(&name, &job)
}

/// List jobs
///
/// Newest first. Jobs that have ended are kept as long as events. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/jobs", operation_id = "listJobs", tag = "jobs",
    params(schema::TenantPath, schema::PageParams),
    responses((status = 200, description = "A page of jobs", body = ListPage<ShowJob>))
)]
pub(crate) async fn list(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor"], &mut errors);
    let page = params.page(List::Jobs, tenant.key.0, &mut errors);
    errors.check()?;
    let page = call.engine().jobs(&tenant, page).await.map_err(fail(&name, ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::Jobs, tenant.key.0, position));
    json(StatusCode::OK, &ListPage { data: page.rows.iter().map(ShowJob::from).collect(), next_cursor })
}

/// Show a job
///
/// `done` of `total` events are done. While the work is being counted `total` still grows; once `done`
/// is above 0 it is final. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/jobs/{job}", operation_id = "getJob", tag = "jobs",
    params(schema::TenantPath, schema::JobPath),
    responses((status = 200, description = "The job", body = ShowJob))
)]
pub(crate) async fn get(Names((name, job)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    call.no_query()?;
    let id = id(Kind::Job, &job)?;
    let job = call.engine().job(&tenant, id).await.map_err(fail(&name, &job))?;
    json(StatusCode::OK, &ShowJob::from(&job))
}

/// Cancel a job
///
/// It is `failed` with the error `cancelled` then. What it has done stays done. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/jobs/{job}/cancel", operation_id = "cancelJob", tag = "jobs",
    params(schema::TenantPath, schema::JobPath),
    responses(
        (status = 200, description = "Cancelled", body = ShowJob),
        (status = 409, description = "`job_final`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(Names((name, job)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Job, &job)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    received.read(&mut errors, |reader| reader.nothing())?;
    errors.check()?;
    let job = received.engine().cancel_job(&tenant, id).await.map_err(fail(&name, &job))?;
    json(StatusCode::OK, &ShowJob::from(&job))
}
