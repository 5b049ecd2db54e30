//! Okta's API of event hooks, `/api/v1/eventHooks`, below `/compat/okta`.

mod hook;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use gatepost_core::profiles::okta::NAME;
use gatepost_core::tenant::Tenant;
use gatepost_core::{Entropy, KeyId};
use gatepost_engine::ops::WebhookView;
use gatepost_engine::store::Scope;
use gatepost_engine::{Engine, FieldError, SystemEntropy};
use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use self::hook::Hook;
use super::{Told, all, bound_tenant, change, create, find, json_body, own_tenant, shaped};
use crate::body::Content;
use crate::problem::{ErrorCode, Problem};
use crate::state::{Api, Call, Names};
use crate::v1::{json as answer, no_content};

/// The path templates, for metrics and logs.
pub(super) const PATHS: [&str; 6] = [
    "/compat/okta/api/v1/eventHooks",
    "/compat/okta/api/v1/eventHooks/{webhook}",
    "/compat/okta/api/v1/eventHooks/{webhook}/lifecycle/activate",
    "/compat/okta/api/v1/eventHooks/{webhook}/lifecycle/deactivate",
    "/compat/okta/api/v1/eventHooks/{webhook}/lifecycle/verify",
    "/compat/okta/api/v1/users/me",
];

/// Whom the key stands for.
const ME_PATH: &str = PATHS[5];

pub(super) fn routes() -> Router<Api> {
    let [hooks, hook, activate_path, deactivate_path, verify_path, me_path] = PATHS;
    Router::new()
        .route(hooks, get(list).post(register))
        .route(hook, get(show).put(replace).delete(remove))
        .route(activate_path, post(activate))
        .route(deactivate_path, post(deactivate))
        .route(verify_path, post(verify))
        .route(me_path, get(me))
        .layer(axum::middleware::from_fn(async |request, next| shaped(ssws(request), next, words).await))
}

/// `Authorization: SSWS <key>` is Okta's spelling of a bearer; its SDK for Python leaves the blank out.
fn ssws(mut request: Request) -> Request {
    let value = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let split = value.and_then(|value| value.trim_start().split_at_checked(SSWS.len()));
    let key = split.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SSWS)).map(|(_, key)| key.trim());
    if let Some(Ok(bearer)) = key.map(|key| HeaderValue::from_str(&format!("Bearer {key}"))) {
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    request
}

const SSWS: &str = "SSWS";

/// A problem in Okta's words.
fn words(told: Told) -> (StatusCode, Value) {
    let status = match told.status {
        // What is well-formed and wrong is 400 there.
        409 | 422 => StatusCode::BAD_REQUEST,
        status => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let (code, summary) = match (told.status, told.code.as_str()) {
        (_, "malformed_json" | "body_unreadable") => {
            ("E0000003", format!("The request body was not well-formed: {}", told.detail))
        }
        (401, _) => ("E0000011", "Invalid token provided".to_owned()),
        (403, _) => ("E0000006", "You do not have permission to perform the requested action".to_owned()),
        (404, _) => ("E0000007", format!("Not found: Resource not found: {} (EventHook)", told.detail)),
        (405, _) => ("E0000022", "The endpoint does not support the provided HTTP method".to_owned()),
        (429, _) => ("E0000047", "API call exceeded rate limit due to too many requests.".to_owned()),
        (500.., _) => ("E0000009", "Internal Server Error".to_owned()),
        _ => ("E0000001", "Api validation failed: eventHook".to_owned()),
    };
    let causes: Vec<_> = if told.errors.is_empty() && code == "E0000001" {
        vec![json!({"errorSummary": told.detail})]
    } else {
        let cause = |at: &str, message: &str| format!("{}: {message}", hook::field(at));
        told.errors.iter().map(|wrong| json!({"errorSummary": cause(&wrong.pointer, &wrong.message)})).collect()
    };
    let id = format!("oae{:017x}", SystemEntropy.next_u64());
    let body =
        json!({"errorCode": code, "errorSummary": summary, "errorLink": code, "errorId": id, "errorCauses": causes});
    (status, body)
}

/// E0000001 with one cause.
fn invalid(cause: impl Into<String>) -> Problem {
    Problem::invalid(ErrorCode::ValidationFailed, vec![FieldError::new("", cause)], 0)
}

/// Whom the key stands for: what clients ask to see whether their credentials are right. There is no person
/// behind a key; it answers for itself, whatever its scopes.
async fn me(call: Call) -> Result<Response, Problem> {
    let tenant = bound_tenant(&call).await?;
    let id = call.caller.key.map_or_else(|| "admin".to_owned(), |key: KeyId| key.to_string());
    let login = format!("{id}@{}", tenant.id);
    let since = hook::millis(tenant.created_at);
    let href = format!("{}{ME_PATH}", call.engine().public_url());
    let me = json!({
        "id": id,
        "status": "ACTIVE",
        "created": since,
        "activated": since,
        "statusChanged": null,
        "lastLogin": null,
        "lastUpdated": since,
        "passwordChanged": null,
        "type": {"id": "api_key"},
        "profile": {
            "firstName": "Gatepost", "lastName": "API key", "login": login, "email": login,
            "mobilePhone": null, "secondEmail": null,
        },
        "credentials": {"provider": {"type": "OKTA", "name": "OKTA"}},
        "_links": {"self": {"href": href}},
    });
    answer(StatusCode::OK, &me)
}

async fn list(call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Read).await?;
    let engine = call.engine().clone();
    drop(call);
    let found = all(&engine, &tenant, NAME).await?;
    let shown: Vec<_> = found.iter().map(|view| hook::shown(view, engine.public_url())).collect();
    answer(StatusCode::OK, &shown)
}

async fn show(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Read).await?;
    let engine = call.engine().clone();
    drop(call);
    let view = find(&engine, &tenant, NAME, &id).await?;
    answer(StatusCode::OK, &hook::shown(&view, engine.public_url()))
}

/// Made ACTIVE and UNVERIFIED: nothing is sent before it is verified.
async fn register(call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let author = call.caller.key.map(|key: KeyId| key.to_string());
    let received = call.body(&[Content::Json]).await?;
    let hook = Hook::read(json_body(&received.bytes)?, None)?;
    let mut members = hook.members(None);
    members.insert("profile".into(), NAME.into());
    members.retain(|_, value| !value.is_null());
    let mut foreign = hook.foreign(&Map::new());
    foreign.insert(hook::CREATED_BY.into(), author.unwrap_or_else(|| "admin".into()).into());
    let (view, _) = create(received.engine(), &tenant, members.into(), foreign).await?;
    answer(StatusCode::OK, &hook::shown(&view, received.engine().public_url()))
}

/// Whole, but for the secret value nobody could give back, and for what this API has no words for.
async fn replace(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let received = call.body(&[Content::Json]).await?;
    let engine = received.engine();
    let present = find(engine, &tenant, NAME, &id).await?;
    let hook = Hook::read(json_body(&received.bytes)?, Some(&present))?;
    let patch = hook.members(Some(&present));
    let foreign = |view: &WebhookView| hook.foreign(&view.webhook.config.foreign);
    let view = change(engine, &tenant, present, &patch.into(), foreign).await?;
    answer(StatusCode::OK, &hook::shown(&view, engine.public_url()))
}

async fn remove(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let engine = call.engine().clone();
    drop(call);
    let view = find(&engine, &tenant, NAME, &id).await?;
    if view.webhook.config.enabled {
        return Err(invalid("an ACTIVE event hook cannot be deleted: deactivate it first"));
    }
    let deleted = engine.delete_webhook(&tenant, view.webhook.id).await;
    deleted.map_err(|error| Problem::of(error, tenant.id.as_str(), &id))?;
    Ok(no_content())
}

async fn activate(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    switch(id, call, true).await
}

async fn deactivate(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    switch(id, call, false).await
}

async fn switch(id: String, call: Call, on: bool) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let received = call.body(&[Content::Json]).await?;
    let engine = received.engine();
    let present = find(engine, &tenant, NAME, &id).await?;
    let view = set_enabled(engine, &tenant, present, on).await?;
    answer(StatusCode::OK, &hook::shown(&view, engine.public_url()))
}

async fn set_enabled(engine: &Engine, tenant: &Tenant, present: WebhookView, on: bool) -> Result<WebhookView, Problem> {
    if present.webhook.config.enabled == on {
        return Ok(present);
    }
    let kept = |view: &WebhookView| view.webhook.config.foreign.clone();
    change(engine, tenant, present, &json!({ "enabled": on }), kept).await
}

/// The one-time challenge. What failed is told, with its cause.
async fn verify(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let received = call.body(&[Content::Json]).await?;
    let engine = received.engine();
    let present = find(engine, &tenant, NAME, &id).await?;
    let fail = |error| Problem::of(error, tenant.id.as_str(), &id);
    let result = engine.verify_webhook(&tenant, present.webhook.id).await.map_err(fail)?;
    let view = find(engine, &tenant, NAME, &id).await?;
    if !result.verified {
        return Err(invalid(result.error.unwrap_or_else(|| "the endpoint did not answer the challenge".into())));
    }
    answer(StatusCode::OK, &hook::shown(&view, engine.public_url()))
}
