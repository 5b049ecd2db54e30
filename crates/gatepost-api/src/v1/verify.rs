//! Verifying a webhook's endpoint.

use axum::response::Response;
use gatepost_engine::Kind;
use gatepost_engine::store::Scope;
use http::StatusCode;

use super::json;
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Call, Names, fail, id};
use crate::wire::query::Params;
use crate::wire::show::ShowVerified;
use crate::wire::{Errors, schema};

/// Verify a webhook
///
/// Asks the endpoint to prove that it wants what it gets, as `verification.mode` says: `post` (and `none`)
/// sends a signed `gatepost.ping` that must be answered with 2xx, `options` makes the handshake of CloudEvents'
/// HTTP webhooks, other modes belong to their profiles. Works on disabled webhooks too. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/webhooks/{webhook}/verify", operation_id = "verifyWebhook", tag = "webhooks",
    params(schema::TenantPath, schema::WebhookPath),
    responses(
        (status = 200, description = "What it came to, good or bad", body = ShowVerified),
        (status = 409, description = "`concurrent_change`: url, auth or headers were changed meanwhile",
            body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn verify(Names((name, webhook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Webhook, &webhook)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    received.read(&mut errors, |reader| reader.nothing())?;
    errors.check()?;
    let result = received.engine().verify_webhook(&tenant, id).await.map_err(fail(&name, &webhook))?;
    json(StatusCode::OK, &ShowVerified::from(&result))
}
