//! Cryptr's API of webhooks, `/api/v2`, below `/compat/cryptr`.

mod fields;

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use gatepost_core::catalogue;
use gatepost_core::event::EventType;
use gatepost_core::pattern::PatternSet;
use gatepost_core::profiles::cryptr::NAME;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::{TenantId, Timestamp};
use gatepost_engine::ops::{TestInput, TestResult, WebhookView};
use gatepost_engine::store::Scope;
use gatepost_engine::{Engine, FieldError};
use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};

use self::fields::Fields;
use super::{Told, all, change, create, find, native_id, own_tenant, shaped};
use crate::body::Content;
use crate::problem::{ErrorCode, Problem};
use crate::state::{Anyone, Api, Call, Names};
use crate::v1::json as answer;

/// The path templates, for metrics and logs.
pub(super) const PATHS: [&str; 5] = [
    "/compat/cryptr/api/v2/oauth/token",
    "/compat/cryptr/api/v2/webhooks",
    "/compat/cryptr/api/v2/webhooks/{webhook}",
    "/compat/cryptr/api/v2/webhooks/{webhook}/test",
    "/compat/cryptr/api/v2/webhooks/{webhook}/rotate",
];

pub(super) fn routes() -> Router<Api> {
    let [token_path, webhooks, webhook, test_path, rotate_path] = PATHS;
    Router::new()
        .route(token_path, post(token))
        .route(webhooks, get(list).post(register))
        .route(webhook, get(show).put(update).delete(remove))
        .route(test_path, post(test))
        .route(rotate_path, post(rotate))
        .layer(axum::middleware::from_fn(async |request, next| shaped(request, next, words).await))
}

const READS: &[Content] = &[Content::Form, Content::Json];
/// Rows of a page when nothing is said, and at most.
const PER_PAGE: usize = 10;
const PER_PAGE_MAX: usize = 250;

/// A problem in Cryptr's words: the structured of its three forms, always.
fn words(told: Told) -> (StatusCode, Value) {
    let kind = match (told.status, told.code.as_str()) {
        (401, _) => "unauthorized",
        (403, _) => "forbidden",
        (404, _) => "not_found",
        (422, _) => "validation_error",
        (_, code) => code,
    };
    let field = |pointer: &str| match pointer.strip_prefix("/events") {
        Some(rest) => format!("event_codes{}", rest.strip_prefix('/').map(|i| format!("[{i}]")).unwrap_or_default()),
        None if pointer == "/url" => "target_url".to_owned(),
        None => pointer.trim_start_matches('/').to_owned(),
    };
    let wrong: Vec<_> = told.errors.iter().map(|e| format!("{} {}", field(&e.pointer), e.message)).collect();
    let message = if wrong.is_empty() { told.detail } else { wrong.join("; ") };
    let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, json!({"error": {"type": kind, "message": message, "doc_urls": []}}))
}

/// A Gatepost key as a client credential: `client_id` is its id, `client_secret` the key itself, and the
/// token is the key.
async fn token(State(api): State<Api>, anyone: Anyone) -> Result<Response, Problem> {
    let received = anyone.body(READS).await?;
    let fields = Fields::read(received.content, &received.bytes, &received.parts.uri)?;
    let refused =
        || Problem::new(ErrorCode::Unauthorized, "no key has this client_id, client_secret and tenant_domain");
    if fields.text("grant_type").is_some_and(|kind| kind != "client_credentials") {
        return Err(wrong("/grant_type", "must be client_credentials"));
    }
    let secret = fields.text("client_secret").ok_or_else(|| wrong("/client_secret", "is required"))?;
    let id = fields.text("client_id").ok_or_else(|| wrong("/client_id", "is required"))?;
    let caller = api.engine().authenticate(secret).map_err(|why| refused().marked(why))?;
    let tenant = caller.tenant.as_ref().map(TenantId::as_str);
    let same_tenant = fields.text("tenant_domain").is_none_or(|domain| Some(domain) == tenant);
    if caller.key.map(|key| key.to_string()).as_deref() != Some(id) || tenant.is_none() || !same_tenant {
        return Err(refused());
    }
    answer(StatusCode::OK, &json!({"access_token": secret, "token_type": "Bearer"}))
}

async fn register(call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let received = call.body(READS).await?;
    let fields = Fields::read(received.content, &received.bytes, &received.parts.uri)?;
    let mut errors = Vec::new();
    for (field, pointer) in [("name", "/name"), ("target_url", "/url")] {
        if fields.text(field).is_none_or(str::is_empty) {
            errors.push(FieldError::new(pointer, "is required"));
        }
    }
    let codes = fields.list("event_codes").unwrap_or_default();
    check_codes(&codes, &mut errors);
    refuse(errors)?;
    let members = json!({
        "profile": NAME, "name": fields.text("name"), "url": fields.text("target_url"), "events": codes,
    });
    let (view, secret) = create(received.engine(), &tenant, members, Map::new()).await?;
    answer(StatusCode::CREATED, &shown(&tenant, &view, secret.as_ref()))
}

async fn list(call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Read).await?;
    let (per_page, current) = page_of(&call.parts.uri)?;
    let engine = call.engine().clone();
    drop(call);
    let found = all(&engine, &tenant, NAME).await?;
    let total = found.len();
    let pages = total.div_ceil(per_page);
    let from = (current - 1).saturating_mul(per_page);
    let data: Vec<_> = found.iter().skip(from).take(per_page).map(|view| shown(&tenant, view, None)).collect();
    let list = json!({
        "__type__": "List",
        "data": data,
        "pagination": {
            "current_page": current,
            "next_page": (current < pages).then(|| current + 1),
            "per_page": per_page,
            "prev_page": (current > 1).then(|| (current - 1).min(pages.max(1))),
            "total_pages": pages,
        },
        "total": total,
    });
    answer(StatusCode::OK, &list)
}

async fn show(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Read).await?;
    let engine = call.engine().clone();
    drop(call);
    let view = find(&engine, &tenant, NAME, &id).await?;
    answer(StatusCode::OK, &shown(&tenant, &view, None))
}

/// Partial: what is not given stays. A list that is given is the whole new list.
async fn update(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let received = call.body(READS).await?;
    let fields = Fields::read(received.content, &received.bytes, &received.parts.uri)?;
    let present = find(received.engine(), &tenant, NAME, &id).await?;
    let mut errors = Vec::new();
    let mut patch = Map::new();
    for (field, member) in [("name", "name"), ("target_url", "url")] {
        if let Some(text) = fields.text(field) {
            patch.insert(member.to_owned(), text.into());
        }
    }
    if let Some(codes) = fields.list("event_codes") {
        check_codes(&codes, &mut errors);
        patch.insert("events".to_owned(), codes.into());
    }
    refuse(errors)?;
    let view = if patch.is_empty() {
        present
    } else {
        let kept = |view: &WebhookView| view.webhook.config.foreign.clone();
        change(received.engine(), &tenant, present, &patch.into(), kept).await?
    };
    let secret = secret_of(received.engine(), &tenant, &view).await?;
    answer(StatusCode::OK, &shown(&tenant, &view, secret.as_ref()))
}

async fn remove(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let engine = call.engine().clone();
    drop(call);
    let view = find(&engine, &tenant, NAME, &id).await?;
    let deleted = engine.delete_webhook(&tenant, view.webhook.id).await;
    deleted.map_err(|error| Problem::of(error, tenant.id.as_str(), &id))?;
    answer(StatusCode::OK, &json!({"deleted": true, "resource": shown(&tenant, &view, None)}))
}

/// Sends the false event of a code the webhook listens to: through the real delivery path, once.
async fn test(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let received = call.body(READS).await?;
    let fields = Fields::read(received.content, &received.bytes, &received.parts.uri)?;
    let view = find(received.engine(), &tenant, NAME, &id).await?;
    let code = code_to_test(fields.text("event_code"), &view.webhook.config.events)?;
    let input = TestInput { event_type: Some(code.clone()), data: None };
    let result = received.engine().test_webhook(&tenant, view.webhook.id, input).await;
    let result = result.map_err(|error| Problem::of(error, tenant.id.as_str(), &id))?;
    answer(StatusCode::OK, &test_shown(&code, &result))
}

/// A new key; the old one signs beside it (as `v0`) for a day.
async fn rotate(Names(id): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = own_tenant(&call, Scope::Manage).await?;
    let received = call.body(READS).await?;
    let engine = received.engine();
    let view = find(engine, &tenant, NAME, &id).await?;
    let fail = |error| Problem::of(error, tenant.id.as_str(), &id);
    let secret = engine.rotate_secret(&tenant, view.webhook.id, None, None).await.map_err(fail)?;
    let view = find(engine, &tenant, NAME, &id).await?;
    answer(StatusCode::OK, &shown(&tenant, &view, Some(&secret)))
}

/// The webhook as Cryptr shows it. Members come out in alphabetical order, as there.
fn shown(tenant: &Tenant, view: &WebhookView, key: Option<&Secret>) -> Value {
    let (webhook, config) = (&view.webhook, &view.webhook.config);
    let mut shown = json!({
        "__type__": "Webhook",
        "__environment__": tenant.environment.as_str(),
        "id": native_id(view),
        "name": config.name,
        "target_url": config.url,
        "event_codes": config.events,
        "active": config.enabled,
        "inserted_at": without_zone(webhook.created_at),
        "updated_at": without_zone(webhook.updated_at),
    });
    if let Some(key) = key {
        shown["signature_key"] = key.expose().into();
    }
    shown
}

/// Whole seconds, no zone.
fn without_zone(at: Timestamp) -> String {
    Timestamp::from_secs(at.as_secs()).to_string().trim_end_matches('Z').to_owned()
}

async fn secret_of(engine: &Engine, tenant: &Tenant, view: &WebhookView) -> Result<Option<Secret>, Problem> {
    let secret = engine.present_secret(tenant, view.webhook.id).await;
    secret.map_err(|error| Problem::of(error, tenant.id.as_str(), &native_id(view)))
}

fn test_shown(code: &EventType, result: &TestResult) -> Value {
    let attempt = &result.attempt;
    let delivery = result.request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("gatepost-delivery-id"));
    json!({
        "delivered": attempt.error.is_none() && attempt.status.is_some_and(|status| (200..300).contains(&status)),
        "status": attempt.status,
        "duration_ms": attempt.timings.total_us / 1_000,
        "error": attempt.error,
        "event_code": code.as_str(),
        "delivery_id": delivery.map(|(_, value)| value),
    })
}

/// Of each family the code its document lists first: what a test without a code is of.
const DOCUMENTED_FIRST: [&str; 2] = ["dir_sync.user.provision.success", "sso_saml.user.login.success"];

/// The code to test with: one the webhook listens to, or the test would prove nothing.
fn code_to_test(given: Option<&str>, events: &[String]) -> Result<EventType, Problem> {
    let listens = PatternSet::parse(events).ok();
    let listens = |code: &EventType| listens.as_ref().is_some_and(|patterns| patterns.matches(code));
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        let first = DOCUMENTED_FIRST.iter().find_map(|code| code.parse().ok().filter(&listens));
        let first =
            first.or_else(|| catalogue::of_system(NAME).map(|known| known.name.clone()).find(|name| listens(name)));
        let concrete = || events.iter().find_map(|code| code.parse::<EventType>().ok());
        return first.or_else(concrete).ok_or_else(|| wrong("/event_code", "is required: no code is known"));
    };
    let code: EventType = given.parse().map_err(|_| wrong("/event_code", "is no event code"))?;
    if !listens(&code) {
        return Err(wrong("/event_code", "is not among the webhook's event_codes"));
    }
    if catalogue::find(&code).is_none() {
        return Err(wrong("/event_code", "is unknown: there is no false event for it"));
    }
    Ok(code)
}

/// Codes of the families Cryptr has are taken, known or not: its public list is not whole.
fn check_codes(codes: &[String], errors: &mut Vec<FieldError>) {
    if codes.is_empty() {
        errors.push(FieldError::new("/events", "must have at least one event code"));
    }
    let families: BTreeSet<&str> =
        catalogue::of_system(NAME).filter_map(|known| known.name.as_str().split('.').next()).collect();
    for (i, code) in codes.iter().enumerate() {
        let family = code.split('.').next().unwrap_or_default();
        let known = code == "all" || families.contains(family);
        if !known {
            errors.push(FieldError::new(format!("/events/{i}"), "is of no family there is"));
        }
    }
}

/// `per_page` and `current_page`.
fn page_of(uri: &Uri) -> Result<(usize, usize), Problem> {
    let mut page = (PER_PAGE, 1);
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let place = match &*name {
            "per_page" => &mut page.0,
            "current_page" => &mut page.1,
            _ => continue,
        };
        match value.parse() {
            Ok(number) if number >= 1 => *place = number,
            _ => return Err(wrong(&format!("/{name}"), "must be a whole number from 1")),
        }
    }
    page.0 = page.0.min(PER_PAGE_MAX);
    Ok(page)
}

fn wrong(pointer: &str, message: &str) -> Problem {
    Problem::invalid(ErrorCode::ValidationFailed, vec![FieldError::new(pointer, message)], 0)
}

fn refuse(errors: Vec<FieldError>) -> Result<(), Problem> {
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(ErrorCode::ValidationFailed, errors, 0)) }
}
