//! FerrisKey's API of webhooks, below `/compat/ferriskey`. A realm is a tenant.

mod deliveries;
mod list;
mod policy;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use gatepost_core::catalogue;
use gatepost_core::profiles::ferriskey::{NAME, WebhookFacts, webhook_object};
use gatepost_core::secret::MASK;
use gatepost_core::tenant::Tenant;
use gatepost_core::{TenantId, Timestamp};
use gatepost_engine::FieldError;
use gatepost_engine::ops::WebhookView;
use gatepost_engine::store::Scope;
use http::StatusCode;
use serde_json::{Map, Value, json};

use self::policy::Policy;
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
/// Kept of a webhook that has one: its retry policy as it was given.
const RETRY_POLICY: &str = "retry_policy";

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
        let errors: Vec<_> = told
            .errors
            .iter()
            .map(|wrong| json!({"message": wrong.message, "field": field(&wrong.pointer), "code": "invalid"}))
            .collect();
        return (status, json!({ "errors": errors }));
    }
    match told.code.as_str() {
        "malformed_json" if told.detail.starts_with(list::BAD_QUERY) => reasoned(status, &told.detail, "invalid_query"),
        "malformed_json" if told.detail.starts_with(policy::BAD_POLICY) => {
            reasoned(status, &told.detail, "invalid_webhook_retry_policy")
        }
        "malformed_json" => reasoned(status, &format!("Unexpected payload: {}", told.detail), "unexpected_payload"),
        _ => said(status, &told.detail),
    }
}

/// With the reason its status has by itself.
fn said(status: StatusCode, message: &str) -> (StatusCode, Value) {
    let reason = code_of(status).trim_start_matches("E_").to_lowercase();
    reasoned(status, message, &reason)
}

fn reasoned(status: StatusCode, message: &str, reason: &str) -> (StatusCode, Value) {
    let body = json!({"code": code_of(status), "status": status.as_u16(), "reason": reason, "message": message});
    (status, body)
}

fn code_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "E_UNAUTHORIZED",
        403 => "E_FORBIDDEN",
        404 => "E_NOT_FOUND",
        409 => "E_CONFLICT",
        429 => "E_TOO_MANY_REQUESTS",
        503 => "E_SERVICE_UNAVAILABLE",
        400..=499 => "E_BAD_REQUEST",
        _ => "E_INTERNAL_SERVER_ERROR",
    }
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
    let (paging, filters) = list::read(&call.parts.uri)?;
    let asked = Asked::read(&paging, filters)?;
    let engine = call.engine().clone();
    drop(call);
    let mut rows = Vec::new();
    for view in all(&engine, &tenant, NAME).await?.into_iter().filter(|view| asked.wants(view)) {
        // One question each: asked of all only where the list depends on it.
        let triggered =
            if asked.by_triggered() { deliveries::triggered_at(&engine, &tenant, &view).await? } else { None };
        if asked.triggered.is_none_or(|wanted| wanted == triggered.is_some()) {
            rows.push((view, triggered));
        }
    }
    asked.sort(&mut rows);
    let (rows, metadata) = paging.page_of(rows);
    let mut data = Vec::new();
    for (view, triggered) in rows {
        let triggered = match triggered {
            None => deliveries::triggered_at(&engine, &tenant, &view).await?,
            known => known,
        };
        data.push(shown(&view, triggered));
    }
    answer(StatusCode::OK, &json!({"data": data, "metadata": metadata}))
}

/// What a list of webhooks asks for.
#[derive(Default)]
struct Asked {
    search: Option<String>,
    name: Option<String>,
    endpoint: Option<String>,
    triggered: Option<bool>,
    has_subscribers: Option<bool>,
    secure_endpoint: Option<bool>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    order_by: Column,
    ascending: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Column {
    Name,
    Endpoint,
    TriggeredAt,
    #[default]
    CreatedAt,
    UpdatedAt,
}

impl Asked {
    fn read(paging: &list::Paging, filters: Vec<(String, String)>) -> Result<Asked, Problem> {
        let order_by = match paging.order_by.as_deref() {
            Some("name") => Column::Name,
            Some("endpoint") => Column::Endpoint,
            Some("triggered_at") => Column::TriggeredAt,
            None | Some("created_at") => Column::CreatedAt,
            Some("updated_at") => Column::UpdatedAt,
            Some(_) => return Err(list::bad("order_by", "is no column to sort by")),
        };
        let mut asked = Asked { order_by, ascending: paging.ascending, ..Asked::default() };
        for (name, value) in filters {
            match name.as_str() {
                "search" => asked.search = Some(value),
                "name" => asked.name = Some(value),
                "endpoint" => asked.endpoint = Some(value),
                "triggered" => asked.triggered = Some(list::flag(&name, &value)?),
                "has_subscribers" => asked.has_subscribers = Some(list::flag(&name, &value)?),
                "secure_endpoint" => asked.secure_endpoint = Some(list::flag(&name, &value)?),
                "created_from" => asked.from = Some(list::moment(&name, &value)?),
                "created_to" => asked.to = Some(list::moment(&name, &value)?),
                _ => return Err(list::bad(&name, "is unknown")),
            }
        }
        Ok(asked)
    }

    fn by_triggered(&self) -> bool {
        self.triggered.is_some() || self.order_by == Column::TriggeredAt
    }

    fn wants(&self, view: &WebhookView) -> bool {
        let (webhook, config) = (&view.webhook, &view.webhook.config);
        let (name, has) = (name_of(view), |part: &String| list::contains(&config.url, part));
        let named = |part: &String| name.is_some_and(|name| list::contains(name, part));
        let subscribed = config.events.iter().any(|event| event != NOTHING);
        self.search.as_ref().is_none_or(|part| named(part) || has(part))
            && self.name.as_ref().is_none_or(named)
            && self.endpoint.as_ref().is_none_or(has)
            && self.has_subscribers.is_none_or(|wanted| wanted == subscribed)
            && self.secure_endpoint.is_none_or(|wanted| wanted == config.url.starts_with("https://"))
            && self.from.is_none_or(|from| webhook.created_at >= from)
            && self.to.is_none_or(|to| webhook.created_at < to)
    }

    /// What has no value comes last, and first in the other direction.
    fn sort(&self, rows: &mut [(WebhookView, Option<Timestamp>)]) {
        // Rows come newest first, and sorting keeps the order of equals.
        rows.reverse();
        match self.order_by {
            Column::Name => {
                rows.sort_by_cached_key(|(view, _)| (name_of(view).is_none(), name_of(view).map(str::to_owned)))
            }
            Column::Endpoint => rows.sort_by(|(a, _), (b, _)| a.webhook.config.url.cmp(&b.webhook.config.url)),
            Column::TriggeredAt => rows.sort_by_key(|(_, triggered)| (triggered.is_none(), *triggered)),
            Column::CreatedAt => rows.sort_by_key(|(view, _)| view.webhook.created_at),
            Column::UpdatedAt => rows.sort_by_key(|(view, _)| view.webhook.updated_at),
        }
        if !self.ascending {
            rows.reverse();
        }
    }
}

/// Its name, unless that is only what Gatepost calls it.
fn name_of(view: &WebhookView) -> Option<&str> {
    let config = &view.webhook.config;
    // Named since through another API, it has a name.
    let unnamed = config.foreign.get(UNNAMED).and_then(Value::as_str) == Some(config.name.as_str());
    Some(config.name.as_str()).filter(|_| !unnamed)
}

/// Its retry policy, unless another schedule was set through another API since.
fn policy_of(view: &WebhookView) -> Policy {
    let config = &view.webhook.config;
    let kept = config.foreign.get(RETRY_POLICY).and_then(Value::as_object);
    let kept = kept.and_then(|members| Policy::read(members).ok()).unwrap_or_default();
    // Numbers and lists of them: cannot fail.
    let present = serde_json::to_value(&config.retry).unwrap_or_default();
    if kept.retry() == present { kept } else { Policy::default() }
}

/// Bare, and `null` for a webhook that is not there.
async fn show(Names((name, id)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = realm(&call, &name, Scope::Read).await?;
    let engine = call.engine().clone();
    drop(call);
    match find(&engine, &tenant, NAME, &id).await {
        Ok(view) => {
            let mut shown = shown(&view, deliveries::triggered_at(&engine, &tenant, &view).await?);
            if let Some(effective) = policy_of(&view).shown_effective() {
                shown["effective_retry_policy"] = effective;
            }
            answer(StatusCode::OK, &shown)
        }
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
    if let Some(policy) = input.policy {
        members.insert("retry".into(), policy.retry());
    }
    members.retain(|_, value| !value.is_null());
    let (view, _) = create(received.engine(), &tenant, members.into(), input.foreign(&Map::new())).await?;
    answer(StatusCode::OK, &json!({ "data": shown(&view, None) }))
}

/// Whole: what is not given is cleared. Headers are kept when they are absent: nobody has seen their
/// values to give them back; and a retry policy, which an empty one clears.
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
    if let Some(policy) = input.policy {
        patch.insert("retry".into(), policy.retry());
    }
    let foreign = |view: &WebhookView| input.foreign(&view.webhook.config.foreign);
    let engine = received.engine();
    let view = change(engine, &tenant, present, &patch.into(), foreign).await?;
    let triggered = deliveries::triggered_at(engine, &tenant, &view).await?;
    answer(StatusCode::OK, &json!({ "data": shown(&view, triggered) }))
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
    policy: Option<Policy>,
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
        let policy = match members.remove(RETRY_POLICY) {
            None | Some(Value::Null) => None,
            Some(Value::Object(members)) => Some(Policy::read(&members)?),
            Some(_) => return Err(unexpected("retry_policy must be an object")),
        };
        let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else {
            let missing = FieldError::new("/endpoint", "endpoint is required");
            return Err(Problem::invalid(ErrorCode::ValidationFailed, vec![missing], 0));
        };
        Ok(Input { name, description, endpoint, headers, subscribers, policy })
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

    /// What only this API has words for, with what is kept of before.
    fn foreign(&self, before: &Map<String, Value>) -> Map<String, Value> {
        let mut foreign = Map::new();
        let policy = match self.policy {
            Some(policy) if policy.is_empty() => None,
            Some(policy) => Some(policy.shown()),
            None => before.get(RETRY_POLICY).cloned(),
        };
        foreign.extend(policy.map(|policy| (RETRY_POLICY.to_owned(), policy)));
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
fn shown(view: &WebhookView, triggered_at: Option<Timestamp>) -> Value {
    let (webhook, config) = (&view.webhook, &view.webhook.config);
    let facts = WebhookFacts {
        id: webhook.id,
        endpoint: &config.url,
        name: name_of(view),
        description: config.description.as_deref(),
        triggers: config.events.iter().map(String::as_str).filter(|event| *event != NOTHING).collect(),
        triggered_at,
        updated_at: webhook.updated_at,
        created_at: webhook.created_at,
    };
    let mut shown = webhook_object(&facts);
    shown[RETRY_POLICY] = policy_of(view).shown();
    shown["headers"] = config.header_names.iter().map(|name| (name.clone(), MASK.into())).collect::<Map<_, _>>().into();
    shown
}
