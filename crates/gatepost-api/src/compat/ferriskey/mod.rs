//! FerrisKey's API of webhooks, below `/compat/ferriskey`. A realm is a tenant.

mod deliveries;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use gatepost_core::TenantId;
use gatepost_core::catalogue;
use gatepost_core::profiles::ferriskey::{NAME, WebhookFacts, webhook_object};
use gatepost_core::secret::MASK;
use gatepost_core::tenant::Tenant;
use gatepost_engine::FieldError;
use gatepost_engine::ops::WebhookView;
use gatepost_engine::store::Scope;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Told, all, change, create, find, json_body, shaped};
use crate::body::Content;
use crate::problem::{ErrorCode, Problem};
use crate::state::{Api, Call, Names};
use crate::v1::json as answer;

/// The path templates, for metrics and logs.
pub(super) const PATHS: [&str; 6] = [
    "/compat/ferriskey/realms/{tenant}/webhooks",
    "/compat/ferriskey/realms/{tenant}/webhooks/{webhook}",
    "/compat/ferriskey/realms/{tenant}/webhooks/{webhook}/secret/rotate",
    "/compat/ferriskey/realms/{tenant}/webhooks/{webhook}/deliveries",
    "/compat/ferriskey/realms/{tenant}/webhooks/{webhook}/deliveries/{delivery}",
    "/compat/ferriskey/realms/{tenant}/webhooks/{webhook}/deliveries/{delivery}/retry",
];

pub(super) fn routes() -> Router<Api> {
    let [webhooks, webhook, rotate_path, deliveries, delivery, retry] = PATHS;
    Router::new()
        .route(webhooks, get(list).post(register))
        .route(webhook, get(show).put(replace).delete(remove))
        .route(rotate_path, post(rotate))
        .route(deliveries, get(deliveries::list))
        .route(delivery, get(deliveries::show))
        .route(retry, post(deliveries::retry))
        .layer(axum::middleware::from_fn(async |request, next| shaped(request, next, words).await))
}

/// FerrisKey allows a webhook that is subscribed to nothing; Gatepost's have at least one pattern. This
/// one matches nothing: nobody can publish it, and Gatepost never does.
const NOTHING: &str = "gatepost.none";
/// Kept for a webhook without a name: what Gatepost calls it instead.
const UNNAMED: &str = "unnamed";

/// A problem in FerrisKey's words.
fn words(told: Told) -> (StatusCode, Value) {
    let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if told.status == 422 {
        // What is wrong about an address or a header is no matter of form there.
        let resource = |pointer: &str| pointer == "/url" || pointer.starts_with("/headers");
        if let Some(wrong) = told.errors.iter().find(|wrong| resource(&wrong.pointer)) {
            let field = wrong.pointer.trim_start_matches('/').replace("url", "endpoint");
            return said(StatusCode::BAD_REQUEST, &format!("Invalid resource: {field} {}", wrong.message));
        }
        let field = |pointer: &str| match pointer.trim_start_matches('/') {
            "events" => "subscribers".to_owned(),
            other => other.replace('/', "."),
        };
        let errors: Vec<_> =
            told.errors.iter().map(|wrong| json!({"message": wrong.message, "field": field(&wrong.pointer)})).collect();
        return (status, json!({ "errors": errors }));
    }
    let message = match told.code.as_str() {
        "malformed_json" => format!("Unexpected payload: {}", told.detail),
        _ => told.detail,
    };
    said(status, &message)
}

fn said(status: StatusCode, message: &str) -> (StatusCode, Value) {
    let code = match status.as_u16() {
        401 => "E_UNAUTHORIZED",
        403 => "E_FORBIDDEN",
        404 => "E_NOT_FOUND",
        409 => "E_CONFLICT",
        429 => "E_TOO_MANY_REQUESTS",
        503 => "E_SERVICE_UNAVAILABLE",
        400..=499 => "E_BAD_REQUEST",
        _ => "E_INTERNAL_SERVER_ERROR",
    };
    (status, json!({"code": code, "status": status.as_u16(), "message": message}))
}

/// The realm a path names. One that is not there, and one that is not the key's, are 401 alike.
fn realm(call: &Call, name: &str, scope: Scope) -> impl Future<Output = Result<Arc<Tenant>, Problem>> + Send + use<> {
    let id = name.parse::<TenantId>().ok().filter(|id| call.caller.sees(id));
    let (needs, engine) = (call.needs(scope), call.engine().clone());
    let refused = || Problem::new(ErrorCode::Unauthorized, "the realm is unknown, or not this key's");
    async move {
        let id = id.ok_or_else(refused)?;
        let tenant = engine.tenant(&id).await.map_err(|error| match error {
            gatepost_engine::Error::NotFound(_) => refused(),
            other => Problem::of(other, id.as_str(), id.as_str()),
        });
        let tenant = tenant?;
        needs.map(|()| tenant)
    }
}

async fn list(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Read).await?;
    let engine = call.engine().clone();
    drop(call);
    let found = all(&engine, &tenant, NAME).await?;
    let data: Vec<_> = found.iter().map(shown).collect();
    answer(StatusCode::OK, &json!({ "data": data }))
}

/// Bare, and `null` for a webhook that is not there.
async fn show(Names((name, id)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Read).await?;
    let engine = call.engine().clone();
    drop(call);
    match find(&engine, &tenant, NAME, &id).await {
        Ok(view) => answer(StatusCode::OK, &shown(&view)),
        Err(problem) if problem.is_not_found() => answer(StatusCode::OK, &Value::Null),
        Err(problem) => Err(problem),
    }
}

async fn register(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Manage).await?;
    let received = call.body(&[Content::Json]).await?;
    let input = Input::read(&received.bytes)?;
    let headers: Map<_, _> = input.headers.clone().unwrap_or_default();
    let mut members = input.members();
    members.insert("profile".into(), NAME.into());
    members.insert("headers".into(), headers.into());
    members.retain(|_, value| !value.is_null());
    let (view, _) = create(received.engine(), &tenant, members.into(), input.foreign()).await?;
    answer(StatusCode::OK, &json!({ "data": shown(&view) }))
}

/// Whole: what is not given is cleared. Headers alone are kept when they are absent: nobody has seen
/// their values to give them back.
async fn replace(Names((name, id)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Manage).await?;
    let received = call.body(&[Content::Json]).await?;
    let input = Input::read(&received.bytes)?;
    let present = find(received.engine(), &tenant, NAME, &id).await?;
    let mut patch = input.members();
    if let Some(headers) = &input.headers {
        let named = |known: &String| headers.keys().any(|name| name.eq_ignore_ascii_case(known));
        let gone = present.webhook.config.header_names.iter().filter(|known| !named(known));
        let mut headers = headers.clone();
        headers.extend(gone.map(|name| (name.clone(), Value::Null)));
        patch.insert("headers".into(), headers.into());
    }
    let foreign = |_: &WebhookView| input.foreign();
    let view = change(received.engine(), &tenant, present, &patch.into(), foreign).await?;
    answer(StatusCode::OK, &json!({ "data": shown(&view) }))
}

async fn remove(Names((name, id)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Manage).await?;
    let engine = call.engine().clone();
    drop(call);
    let view = find(&engine, &tenant, NAME, &id).await?;
    let deleted = engine.delete_webhook(&tenant, view.webhook.id).await;
    deleted.map_err(|error| Problem::of(error, tenant.id.as_str(), &id))?;
    answer(StatusCode::OK, &json!({"message": "", "realm_name": name}))
}

/// The only answer that holds the secret. The old one dies at once.
async fn rotate(Names((name, id)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Manage).await?;
    let received = call.body(&[Content::Json]).await?;
    let engine = received.engine();
    let view = find(engine, &tenant, NAME, &id).await?;
    let secret = engine.rotate_secret(&tenant, view.webhook.id, Some(0), None).await;
    let secret = secret.map_err(|error| Problem::of(error, tenant.id.as_str(), &id))?;
    answer(StatusCode::OK, &json!({ "secret": secret.expose() }))
}

/// What a POST or a PUT says.
struct Input {
    name: Option<String>,
    description: Option<String>,
    endpoint: String,
    headers: Option<Map<String, Value>>,
    subscribers: Vec<String>,
}

impl Input {
    /// Members FerrisKey does not know are passed over, as it does.
    fn read(bytes: &[u8]) -> Result<Input, Problem> {
        let mut members = json_body(bytes)?;
        let unexpected = |what: &str| Problem::new(ErrorCode::MalformedJson, what.to_owned());
        let mut text = |name: &str| match members.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(unexpected(&format!("{name} must be a text"))),
        };
        let (name, description) = (text("name")?, text("description")?);
        let endpoint = match text("endpoint")? {
            Some(endpoint) => Some(endpoint),
            None => text("url")?,
        };
        let headers = match members.remove("headers") {
            None | Some(Value::Null) => None,
            Some(Value::Object(headers)) => Some(headers),
            Some(_) => return Err(unexpected("headers must be an object of texts")),
        };
        if headers.iter().flatten().any(|(_, value)| !value.is_string()) {
            return Err(unexpected("headers must be an object of texts"));
        }
        let subscribers = match members.remove("subscribers") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => triggers(items).map_err(|what| unexpected(&what))?,
            Some(_) => return Err(unexpected("subscribers must be a list of triggers")),
        };
        let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else {
            let missing = FieldError::new("/endpoint", "endpoint is required");
            return Err(Problem::invalid(ErrorCode::ValidationFailed, vec![missing], 0));
        };
        Ok(Input { name, description, endpoint, headers, subscribers })
    }

    /// The members as `/v1` has them.
    fn members(&self) -> Map<String, Value> {
        let events = if self.subscribers.is_empty() { vec![NOTHING.to_owned()] } else { self.subscribers.clone() };
        let mut members = Map::new();
        members.insert("name".into(), self.name().into());
        members.insert("description".into(), self.description.clone().into());
        members.insert("url".into(), self.endpoint.clone().into());
        members.insert("events".into(), events.into());
        members
    }

    /// A name is optional there and required here: without one it is called by its host.
    fn name(&self) -> String {
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty()) {
            return name.clone();
        }
        let host = self.endpoint.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        host.filter(|host| !host.is_empty()).unwrap_or_else(|| "webhook".into())
    }

    fn foreign(&self) -> Map<String, Value> {
        let mut foreign = Map::new();
        if self.name.as_ref().is_none_or(String::is_empty) {
            foreign.insert(UNNAMED.into(), self.name().into());
        }
        foreign
    }
}

/// Triggers are names of FerrisKey's list; one named twice is named.
fn triggers(items: Vec<Value>) -> Result<Vec<String>, String> {
    let mut triggers: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        let Value::String(name) = item else { return Err("subscribers must be a list of triggers".into()) };
        if !catalogue::of_system(NAME).any(|known| known.name.as_str() == name) {
            let shown: String = name.chars().take(128).collect();
            return Err(format!("unknown trigger {shown:?}"));
        }
        if !triggers.contains(&name) {
            triggers.push(name);
        }
    }
    Ok(triggers)
}

/// The webhook as FerrisKey shows it, with the names of its headers: typed clients of its first release
/// need the member.
fn shown(view: &WebhookView) -> Value {
    let (webhook, config) = (&view.webhook, &view.webhook.config);
    // Named since through another API, it has a name.
    let unnamed = config.foreign.get(UNNAMED).and_then(Value::as_str) == Some(config.name.as_str());
    let facts = WebhookFacts {
        id: webhook.id,
        endpoint: &config.url,
        name: Some(config.name.as_str()).filter(|_| !unnamed),
        description: config.description.as_deref(),
        triggers: config.events.iter().map(String::as_str).filter(|event| *event != NOTHING).collect(),
        triggered_at: None,
        updated_at: webhook.updated_at,
        created_at: webhook.created_at,
    };
    let mut shown = webhook_object(&facts);
    shown["headers"] = config.header_names.iter().map(|name| (name.clone(), MASK.into())).collect::<Map<_, _>>().into();
    shown
}
