//! The APIs of other systems, so that their clients work against Gatepost with another base address.
//!
//! A system is one folder here and one line in [`routes`]. It reads and shows in that system's words
//! and calls the operations `/v1` calls: what is made through one is visible through the other. A
//! handler answers a [`Problem`] like any other; [`shaped`] turns it into the system's own error.

mod cryptr;
mod ferriskey;
mod okta;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use gatepost_core::WebhookId;
use gatepost_core::profiles::{self, Profile};
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_engine::ops::{WebhookInput, WebhookView};
use gatepost_engine::store::{PageRequest, Scope};
use gatepost_engine::{ConflictCode, Engine, Error, Kind};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::problem::{ErrorCode, PROBLEM_JSON, Problem};
use crate::state::{Api, Call};
use crate::wire::webhook::{merge_webhook, writable};
use crate::wire::{BOM, Errors, HAS_BOM, Reader};

/// Every system's API, each below its own base address.
pub(crate) fn routes() -> Router<Api> {
    Router::new().merge(cryptr::routes()).merge(ferriskey::routes()).merge(okta::routes())
}

/// The path templates of [`routes`], for metrics and logs.
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    cryptr::PATHS.into_iter().chain(ferriskey::PATHS).chain(okta::PATHS)
}

/// How often a change is merged anew because somebody else's came first.
const MERGE_AGAIN: usize = 5;
/// Bytes of a problem of ours.
const PROBLEM_MAX: usize = 1 << 20;

/// The caller's own tenant: in these APIs no path names it. A key that is bound to none opens none.
//
// Not an `async fn`: see `Call::tenant`.
pub(crate) fn own_tenant(
    call: &Call,
    scope: Scope,
) -> impl Future<Output = Result<Arc<Tenant>, Problem>> + Send + use<> {
    let (needs, bound) = (call.needs(scope), bound_tenant(call));
    async move {
        let tenant = bound.await?;
        needs?;
        Ok(tenant)
    }
}

/// As [`own_tenant`], whatever the key's scopes.
pub(crate) fn bound_tenant(call: &Call) -> impl Future<Output = Result<Arc<Tenant>, Problem>> + Send + use<> {
    let (id, engine) = (call.caller.tenant.clone(), call.engine().clone());
    async move {
        let Some(id) = id else {
            let detail = "this API needs a key bound to a tenant: gatepost keys create --tenant <tenant>";
            return Err(Problem::new(ErrorCode::Forbidden, detail));
        };
        engine.tenant(&id).await.map_err(|error| Problem::of(error, id.as_str(), id.as_str()))
    }
}

/// A problem as the middleware reads it back.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Told {
    /// The HTTP status.
    pub(crate) status: u16,
    /// One of our codes.
    pub(crate) code: String,
    /// What is wrong.
    pub(crate) detail: String,
    /// Every wrong member.
    pub(crate) errors: Vec<Wrong>,
}

/// One wrong member.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wrong {
    /// A JSON pointer, into the webhook as `/v1` has it.
    pub(crate) pointer: String,
    /// Why.
    pub(crate) message: String,
}

/// Runs the rest and puts every problem of ours into the words of a system: the status and the body to
/// answer. Headers (`retry-after`, `www-authenticate`, `allow`) stay.
pub(crate) async fn shaped(request: Request, next: Next, words: fn(Told) -> (StatusCode, Value)) -> Response {
    let answer = next.run(request).await;
    if answer.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != PROBLEM_JSON) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let bytes = http_body_util::Limited::new(body, PROBLEM_MAX).collect().await.map(|body| body.to_bytes());
    let told: Told = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let (status, body) = words(Told { status: parts.status.as_u16(), ..told });
    parts.status = status;
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(parts, Body::from(body.to_string()))
}

/// The webhook a native id names, of a tenant and a profile: others are none of this API's.
pub(crate) async fn find(engine: &Engine, tenant: &Tenant, profile: &str, id: &str) -> Result<WebhookView, Problem> {
    let missing = || Problem::missing(Kind::Webhook, id);
    let webhook = parse(profile, id).ok_or_else(missing)?;
    let view = engine.webhook(tenant, webhook).await.map_err(|error| Problem::of(error, tenant.id.as_str(), id))?;
    if view.webhook.config.profile == profile { Ok(view) } else { Err(missing()) }
}

fn parse(profile: &str, id: &str) -> Option<WebhookId> {
    of_name(profile).and_then(|profile| profile.parse_native_id(id))
}

/// A webhook's id as its system writes it.
pub(crate) fn native_id(view: &WebhookView) -> String {
    let id = view.webhook.id;
    of_name(&view.webhook.config.profile).map_or_else(|| id.to_string(), |profile| profile.native_id(id))
}

fn of_name(profile: &str) -> Option<&'static dyn Profile> {
    profiles::profile(profile)
}

/// All webhooks of a tenant that have this profile, newest first.
pub(crate) async fn all(engine: &Engine, tenant: &Tenant, profile: &str) -> Result<Vec<WebhookView>, Problem> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = engine.webhooks(tenant, PageRequest { limit: 250, after }).await;
        let page = page.map_err(|error| Problem::of(error, tenant.id.as_str(), ""))?;
        found.extend(page.rows.into_iter().filter(|view| view.webhook.config.profile == profile));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Registers a webhook from its members as `/v1` has them; `foreign` is what only this API has words for.
pub(crate) async fn create(
    engine: &Engine,
    tenant: &Tenant,
    members: Value,
    foreign: Map<String, Value>,
) -> Result<(WebhookView, Option<Secret>), Problem> {
    let mut errors = Errors::default();
    let mut input = read(&members, &mut errors);
    input.foreign = Some(foreign);
    if !errors.is_empty() {
        errors.extend(engine.validate_webhook(tenant, &input, None));
        errors.check()?;
    }
    engine.create_webhook(tenant, input).await.map_err(|error| Problem::of(error, tenant.id.as_str(), ""))
}

/// Changes a webhook by a merge patch of its members as `/v1` has them, keeping everything else.
pub(crate) async fn change(
    engine: &Engine,
    tenant: &Tenant,
    present: WebhookView,
    patch: &Value,
    foreign: impl Fn(&WebhookView) -> Map<String, Value>,
) -> Result<WebhookView, Problem> {
    let mut present = present;
    let mut attempts = 1;
    loop {
        let mut merged = writable(&present.webhook);
        merge_webhook(&mut merged, patch);
        let mut errors = Errors::default();
        let mut input = read(&merged, &mut errors);
        (input.profile, input.secret) = (None, None);
        input.foreign = Some(foreign(&present));
        if !errors.is_empty() {
            errors.extend(engine.validate_webhook(tenant, &input, Some(&present.webhook)));
            errors.check()?;
        }
        let (id, revision) = (present.webhook.id, present.webhook.revision);
        match engine.update_webhook(tenant, id, revision, input).await {
            Ok(view) => return Ok(view),
            Err(Error::Conflict { code: ConflictCode::ConcurrentChange, .. }) if attempts < MERGE_AGAIN => {
                attempts += 1;
                let again = engine.webhook(tenant, id).await;
                present = again.map_err(|error| Problem::of(error, tenant.id.as_str(), &id.to_string()))?;
            }
            Err(error) => return Err(Problem::of(error, tenant.id.as_str(), &id.to_string())),
        }
    }
}

fn read(members: &Value, errors: &mut Errors) -> WebhookInput {
    let text = members.to_string();
    // Text made from a value is well-formed.
    Reader::new(text.as_bytes(), errors).and_then(|mut reader| reader.webhook()).unwrap_or_default()
}

/// A JSON body, of any members: other systems' clients send what their systems know.
pub(crate) fn json_body(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let malformed = |message: &str, line, column| Problem::malformed(message, line, column);
    if bytes.starts_with(BOM) {
        return Err(malformed(HAS_BOM, 1, 1));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(malformed("the body is no JSON object", 1, 1)),
        Err(error) => {
            let text = error.to_string();
            let message = text.split(" at line ").next().unwrap_or_default();
            Err(malformed(message, error.line(), error.column()))
        }
    }
}
