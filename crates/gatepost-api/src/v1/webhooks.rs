//! A tenant's webhooks.

use axum::response::Response;
use gatepost_core::WebhookId;
use gatepost_core::tenant::Tenant;
use gatepost_engine::ops::{WebhookInput, WebhookView};
use gatepost_engine::store::Scope;
use gatepost_engine::{ConflictCode, Error, FieldError, Kind};
use http::StatusCode;

use super::{created, json, no_content};
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Call, Names, Received, fail, id};
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, ShowSecret, ShowTest, ShowWebhook};
use crate::wire::webhook::{merge_webhook, writable};
use crate::wire::{Errors, Reader, schema, webhook_schema};

/// How often a change is merged anew because somebody else's came first.
const MERGE_AGAIN: usize = 5;

/// Register a webhook
///
/// The answer is the only time `secret` is shown. Every event accepted after it is matched against
/// the webhook. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks", operation_id = "createWebhook", tag = "webhooks",
    params(schema::TenantPath),
    request_body = webhook_schema::WebhookInput,
    responses((status = 201, description = "Registered", body = ShowWebhook, headers(("location" = String))))
)]
pub(crate) async fn create(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let input = received.read(&mut errors, |reader| reader.webhook())?;
    if !errors.is_empty() {
        // What could not be read is told together with what could and is wrong.
        errors.extend(received.engine().validate_webhook(&tenant, &input, None));
        errors.check()?;
    }
    let (view, secret) = received.engine().create_webhook(&tenant, input).await.map_err(fail(&name, &name))?;
    let location = format!("/v1/tenants/{name}/webhooks/{}", view.webhook.id);
    created(&location, &ShowWebhook::new(&view, secret.as_ref().map(|secret| secret.expose())))
}

/// List webhooks
///
/// Newest first. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/webhooks", operation_id = "listWebhooks", tag = "webhooks",
    params(schema::TenantPath, schema::PageParams),
    responses((status = 200, description = "A page of webhooks", body = ListPage<ShowWebhook>))
)]
pub(crate) async fn list(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor"], &mut errors);
    let page = params.page(List::Webhooks, tenant.key.0, &mut errors);
    errors.check()?;
    let page = call.engine().webhooks(&tenant, page).await.map_err(fail(&name, ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::Webhooks, tenant.key.0, position));
    let data = page.rows.iter().map(|view| ShowWebhook::new(view, None)).collect();
    json(StatusCode::OK, &ListPage { data, next_cursor })
}

/// Show a webhook
///
/// Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/webhooks/{webhook}", operation_id = "getWebhook", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    responses((status = 200, description = "The webhook", body = ShowWebhook))
)]
pub(crate) async fn get(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    call.no_query()?;
    let id = id(Kind::Webhook, &webhook)?;
    let view = call.engine().webhook(&tenant, id).await.map_err(fail(&name, &webhook))?;
    json(StatusCode::OK, &ShowWebhook::new(&view, None))
}

/// Change a webhook
///
/// A merge patch (RFC 7396): absent members keep, `null` clears, a header value of `***` keeps.
/// `profile` and `secret` are fixed at creation. Scope `manage`.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}/webhooks/{webhook}", operation_id = "updateWebhook", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    request_body(
        content = webhook_schema::WebhookPatch, content_type = "application/merge-patch+json",
        description = "A merge patch (RFC 7396); `application/json` is read the same way",
    ),
    responses(
        (status = 200, description = "Changed", body = ShowWebhook),
        (status = 409, description = "`concurrent_change`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn patch(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Webhook, &webhook)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::MergePatch, Content::Json]).await?;
    let patch = received.read(&mut errors, |reader| reader.webhook_patch())?;
    let mut attempts = 1;
    loop {
        let present = received.engine().webhook(&tenant, id).await.map_err(fail(&name, &webhook))?;
        let outcome = match &patch {
            Some(patch) => change(&received, &tenant, id, &present, patch, &mut errors).await,
            None => None,
        };
        match outcome {
            Some(Ok(view)) => return json(StatusCode::OK, &ShowWebhook::new(&view, None)),
            Some(Err(Error::Conflict { code: ConflictCode::ConcurrentChange, .. })) if attempts < MERGE_AGAIN => {
                attempts += 1;
            }
            Some(Err(error)) => return Err(Problem::of(error, &name, &webhook)),
            None => {
                errors.check()?;
                // Nothing to do and nothing wrong cannot both be.
                return Err(Problem::internal());
            }
        }
    }
}

/// Merges a patch into a webhook and puts the result in its place. `None`: it is not valid, and
/// everything wrong with it is noted.
async fn change(
    received: &Received,
    tenant: &Tenant,
    id: WebhookId,
    present: &WebhookView,
    patch: &serde_json::Value,
    errors: &mut Errors,
) -> Option<gatepost_engine::Result<WebhookView>> {
    let mut merged = writable(&present.webhook);
    // A change of `required` alone keeps the mode as it is answered, which may be the profile's own.
    if let (Some(serde_json::Value::Object(_)), None) = (patch.get("verification"), merged.get("verification")) {
        merged["verification"] = serde_json::json!({ "mode": present.verification.mode });
    }
    merge_webhook(&mut merged, patch);
    let (input, found) = reread(&merged);
    errors.extend(found);
    if !errors.is_empty() {
        errors.extend(received.engine().validate_webhook(tenant, &input, Some(&present.webhook)));
        return None;
    }
    Some(received.engine().update_webhook(tenant, id, present.webhook.revision, input).await)
}

/// Reads a merged webhook by the rules of creation. Its pointers are those of the patch: merging
/// moves nothing.
fn reread(merged: &serde_json::Value) -> (WebhookInput, Vec<FieldError>) {
    let text = merged.to_string();
    let mut errors = Errors::default();
    let input = Reader::new(text.as_bytes(), &mut errors).and_then(|mut reader| reader.webhook());
    // Text made from a value is well-formed.
    let mut input = input.unwrap_or_default();
    // Fixed at creation: an attempt to change them is told by the patch's own reading.
    input.profile = None;
    input.secret = None;
    (input, errors.into_list())
}

/// Delete a webhook
///
/// What waits for it becomes `cancelled/webhook_deleted`. Scope `manage`.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/webhooks/{webhook}", operation_id = "deleteWebhook", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    responses((status = 204, description = "Deleted"))
)]
pub(crate) async fn delete(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    call.no_query()?;
    let id = id(Kind::Webhook, &webhook)?;
    call.engine().delete_webhook(&tenant, id).await.map_err(fail(&name, &webhook))?;
    Ok(no_content())
}

/// Test a webhook
///
/// One real, signed request, marked as a test by a header only; works on disabled webhooks too.
/// Without `event_type` the first catalogue type that matches, without `data` its example.
/// Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks/{webhook}/test", operation_id = "testWebhook", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    request_body(content = schema::TestInput, description = "May be empty"),
    responses((status = 200, description = "What it came to, good or bad", body = ShowTest))
)]
pub(crate) async fn test(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Webhook, &webhook)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let input = received.read(&mut errors, |reader| reader.test())?;
    errors.check()?;
    let result = received.engine().test_webhook(&tenant, id, input).await.map_err(fail(&name, &webhook))?;
    json(StatusCode::OK, &ShowTest::from(&result))
}

/// Pause a webhook
///
/// Events are matched as ever, and what is owed to it is kept for it: `held/paused`. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks/{webhook}/pause", operation_id = "pauseWebhook", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    responses(
        (status = 200, description = "Paused, now or before", body = ShowWebhook),
        (status = 409, description = "`concurrent_change`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn pause(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    set_paused(call, &name, &webhook, true).await
}

/// Resume a webhook
///
/// What was kept for it goes on, oldest first. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks/{webhook}/resume", operation_id = "resumeWebhook", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    responses(
        (status = 200, description = "Not paused, now or before", body = ShowWebhook),
        (status = 409, description = "`concurrent_change`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn resume(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    set_paused(call, &name, &webhook, false).await
}

async fn set_paused(call: Call, name: &str, webhook: &str, paused: bool) -> Result<Response, Problem> {
    let tenant = call.tenant(name, Scope::Manage).await?;
    let id = id(Kind::Webhook, webhook)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    received.read(&mut errors, |reader| reader.nothing())?;
    errors.check()?;
    let view = received.engine().set_paused(&tenant, id, paused).await.map_err(fail(name, webhook))?;
    json(StatusCode::OK, &ShowWebhook::new(&view, None))
}

/// Rotate a webhook's secret
///
/// Both secrets sign until the overlap has passed, where the webhook's schemes can carry two signatures;
/// else the old one ends at once. The answer is the only time the new one is shown.
/// Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks/{webhook}/rotate-secret", operation_id = "rotateWebhookSecret", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    request_body(content = schema::RotateInput, description = "May be empty"),
    responses(
        (status = 200, description = "Rotated", body = ShowSecret),
        (status = 409, description = "`concurrent_change`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn rotate(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Webhook, &webhook)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let (overlap, import) = received.read(&mut errors, |reader| reader.rotation())?;
    if !errors.is_empty()
        && let Some(import) = &import
        && let Err(Error::Invalid(found)) = received.engine().check_import(&tenant, id, import).await
    {
        // What could not be read is told together with what could and is wrong.
        errors.extend(found);
    }
    errors.check()?;
    let rotated = received.engine().rotate_secret(&tenant, id, overlap, import).await;
    let secret = rotated.map_err(fail(&name, &webhook))?;
    json(StatusCode::OK, &ShowSecret { secret: secret.expose() })
}
