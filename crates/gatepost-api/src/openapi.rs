//! The OpenAPI 3.1 document: collected from the handlers, completed with what is true of all of
//! them, and with what Gatepost itself sends (`webhooks`).

use std::sync::LazyLock;

use gatepost_engine::HttpLabel;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::health;
use crate::problem::{ErrorCode, PROBLEM_JSON};
use crate::state::Api;
use crate::v1::{
    deliveries, event_types, events, hooks, invocations, jobs, keys, points, setup, stream, subjects, tenants, verify,
    webhooks,
};
use crate::wire::schema;

/// The scheme of `Authorization`.
const KEY: &str = "key";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Gatepost",
        description = "The webhook server for identity platforms: publish events, register webhooks, see what happened. Every error is problem+json with a `code` of a closed list; all of them are in docs/errors.md of the sources.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "tenants", description = "Whose webhooks these are"),
        (name = "webhooks", description = "Where, which events, how"),
        (name = "events", description = "What happened"),
        (name = "deliveries", description = "What is owed and what was tried"),
        (name = "hooks", description = "Questions whose answer decides"),
        (name = "event types", description = "The catalogue"),
        (name = "setup", description = "A tenant's whole setup, written down and judged"),
        (name = "jobs", description = "What takes longer than a request"),
        (name = "subjects", description = "One person: erasure and proof"),
        (name = "keys", description = "API credentials"),
        (name = "operations", description = "For operators' tools"),
    ),
    components(schemas(schema::Problem, schema::Subject)),
)]
struct Base;

/// Every answer that is described, as metrics count it, and the one nobody wants to see.
pub(crate) fn answers() -> Vec<HttpLabel> {
    let document: serde_json::Value = serde_json::from_str(document()).unwrap_or_default();
    let mut labels = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        let route = crate::observe::template(path);
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let method = match method.as_str() {
                "get" => "GET",
                "post" => "POST",
                "put" => "PUT",
                "patch" => "PATCH",
                "delete" => "DELETE",
                _ => continue,
            };
            let statuses = operation["responses"].as_object().into_iter().flatten();
            let good =
                statuses.filter_map(|(status, _)| status.parse().ok()).filter(|status| (200..300).contains(status));
            labels.extend(good.chain([500]).map(|status| HttpLabel { method, route, status }));
        }
    }
    labels
}

/// Every route with its description.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    let mut base = Base::openapi();
    base.security = Some(vec![SecurityRequirement::new(KEY, Vec::<String>::new())]);
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key. Scopes: admin, manage, publish, invoke, read."))
        .build();
    base.components.get_or_insert_default().add_security_scheme(KEY, SecurityScheme::Http(scheme));
    OpenApiRouter::with_openapi(base)
        .routes(routes!(tenants::list))
        .routes(routes!(tenants::get, tenants::put, tenants::delete))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::get, webhooks::patch, webhooks::delete))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::pause))
        .routes(routes!(webhooks::resume))
        .routes(routes!(verify::verify))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(jobs::replay))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::get))
        .routes(routes!(jobs::cancel))
        .routes(routes!(subjects::erase))
        .routes(routes!(subjects::told))
        .routes(routes!(events::list, events::publish))
        .routes(routes!(events::publish_batch))
        .routes(routes!(events::publish_cloudevents))
        .routes(routes!(events::get))
        .routes(routes!(stream::follow))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::get))
        .routes(routes!(deliveries::retry))
        .routes(routes!(deliveries::cancel))
        .routes(routes!(event_types::list))
        .routes(routes!(event_types::get, event_types::put, event_types::delete))
        .routes(routes!(setup::list))
        .routes(routes!(setup::plan))
        .routes(routes!(hooks::list, hooks::create))
        .routes(routes!(hooks::get, hooks::patch, hooks::delete))
        .routes(routes!(hooks::try_it))
        .routes(routes!(hooks::rotate))
        .routes(routes!(points::list))
        .routes(routes!(points::get, points::put, points::delete))
        .routes(routes!(invocations::point))
        .routes(routes!(invocations::operation))
        .routes(routes!(invocations::list))
        .routes(routes!(invocations::get))
        .routes(routes!(invocations::outcome))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::delete))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi))
        .routes(routes!(crate::reference::docs))
}

/// The document as served and as committed in `docs/`.
pub(crate) fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        // Plain data: serialising it does not fail.
        let mut document = serde_json::to_value(routes().into_openapi()).unwrap_or_default();
        complete(&mut document);
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    });
    &DOCUMENT
}

/// Adds what is true of every operation, and what we send.
fn complete(document: &mut Value) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    for (path, item) in paths.iter_mut() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            add_headers(path, method, operation);
            add_problems(path, method, operation);
            if let Some(body) = operation.get_mut("requestBody").filter(|body| body["description"] == "May be empty") {
                body["required"] = false.into();
            }
        }
    }
    name_profiles(document);
    document["webhooks"] = sent();
    move_examples_up(document);
    drop_unused(document);
    document["servers"] = json!([{ "url": "/", "description": "The server this document is from" }]);
}

/// An example of a list belongs to the list, not to its items.
fn move_examples_up(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let examples = members.get_mut("items").and_then(Value::as_object_mut).and_then(|items| {
                let lists = items.get("examples")?.as_array()?.iter().all(Value::is_array);
                if lists { items.remove("examples") } else { None }
            });
            if let Some(examples) = examples {
                members.insert("examples".to_owned(), examples);
            }
            members.values_mut().for_each(move_examples_up);
        }
        Value::Array(items) => items.iter_mut().for_each(move_examples_up),
        _ => {}
    }
}

/// Leaves out schemas that nothing refers to: those that are written out where they are used.
fn drop_unused(document: &mut Value) {
    let text = document.to_string();
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    schemas.retain(|name, _| text.contains(&format!("\"#/components/schemas/{name}\"")));
}

/// A header of requests.
fn request_header(name: &str, kind: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "header", "required": false, "description": description, "schema": { "type": kind },
    })
}

/// Headers a caller may send that are not the operation's own.
fn add_headers(path: &str, method: &str, operation: &mut Value) {
    let mut headers = Vec::new();
    if method == "post" && path.starts_with("/v1/") {
        headers.push(request_header(
            "Idempotency-Key",
            "string",
            "1 to 255 characters: the same request under the same key is done once, and answered again for 24 hours",
        ));
    }
    if path.ends_with("/invoke") {
        let description = "Milliseconds within which the answer is wanted; bounded by the point's own budget";
        headers.push(request_header("gatepost-timeout-ms", "integer", description));
    }
    if path.ends_with("/stream") {
        let description = "The id of the last message seen: what came after it is sent";
        headers.push(request_header("Last-Event-ID", "string", description));
    }
    if headers.is_empty() {
        return;
    }
    match operation.get_mut("parameters").and_then(Value::as_array_mut) {
        Some(parameters) => parameters.extend(headers),
        None => operation["parameters"] = headers.into(),
    }
}

/// The profiles and formats this server has, where one is named.
fn name_profiles(document: &mut Value) {
    let profiles: Vec<Value> = gatepost_core::profiles::all().map(|profile| profile.name().into()).collect();
    let formats: Vec<Value> = gatepost_core::profiles::formats().map(|format| format.name().into()).collect();
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    for name in ["Webhook", "WebhookInput", "WebhookPatch"] {
        let Some(properties) = schemas.get_mut(name).and_then(|schema| schema.get_mut("properties")) else { continue };
        for (member, words) in [("profile", &profiles), ("format", &formats)] {
            let Some(schema) = properties.get_mut(member) else { continue };
            let nullable = schema["type"].as_array().is_some_and(|types| types.contains(&"null".into()));
            let null = nullable.then_some(Value::Null);
            schema["enum"] = words.iter().cloned().chain(null).collect();
        }
    }
}

fn add_problems(path: &str, method: &str, operation: &mut Value) {
    let has_body = operation.get("requestBody").is_some() || path.ends_with("/retry") || path.ends_with("/cancel");
    let mut statuses: Vec<u16> = vec![400, 414, 431, 500, 501];
    if path.starts_with("/v1/") {
        statuses.extend([401, 403, 422, 429, 503]);
        if path.contains('{') || path.ends_with("/event-types") {
            statuses.push(404);
        }
        if method == "post" {
            // At least `idempotency_key_conflict`.
            statuses.push(409);
        }
        if has_body {
            statuses.extend([408, 413, 415]);
        }
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for status in statuses {
        responses.entry(status.to_string()).or_insert_with(|| problem(status, path));
    }
}

/// Whether a problem can be an operation's, as far as its path tells: not to find what the path does not
/// name, or too large a batch where no events are published, is none of it.
fn concerns(code: ErrorCode, path: &str) -> bool {
    let code = code.as_str();
    if path.starts_with("/v1/event-types") && code == "tenant_not_found" {
        // `?tenant=`
        return true;
    }
    if let Some(kind) = code.strip_suffix("_not_found") {
        let name = if kind == "event_type" { "name" } else { kind };
        return kind == "route" || path.contains(&format!("{{{name}}}"));
    }
    !code.starts_with("batch_") || path.contains("/events")
}

/// The description of a problem: the codes it can have.
fn problem(status: u16, path: &str) -> Value {
    let codes: Vec<_> = ErrorCode::ALL
        .iter()
        .filter(|code| code.status().as_u16() == status && concerns(**code, path))
        .map(|code| format!("`{}`", code.as_str()))
        .collect();
    let mut problem = json!({
        "description": codes.join(", "),
        "content": { PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    if matches!(status, 429 | 503) {
        problem["headers"] = json!({
            "Retry-After": { "description": "Seconds after which to try again", "schema": { "type": "integer" } },
        });
    }
    problem
}

/// What receivers get.
fn sent() -> Value {
    json!({
        "standard": sent_with(
            "receiveStandard",
            "A delivery of profile `standard`",
            "Standard Webhooks 1.0: the signature covers `webhook-id.webhook-timestamp.body`. Retries send the same \
             bytes under the same `webhook-id`, signed anew.",
            signed_headers(),
            "application/json",
            json!({
                "type": "object",
                "required": ["id", "type", "timestamp", "data"],
                "properties": {
                    "id": { "type": "string", "description": "The event's id, the same for every webhook and retry" },
                    "type": { "type": "string" },
                    "timestamp": { "type": "string", "format": "date-time" },
                    "subject": { "$ref": "#/components/schemas/Subject" },
                    "data": { "description": "As published, byte for byte" },
                },
            }),
        ),
        "cloudevents": sent_with(
            "receiveCloudEvent",
            "A delivery of profile `cloudevents`",
            "CloudEvents 1.0 in structured mode, signed like `standard`.",
            signed_headers(),
            "application/cloudevents+json",
            json!({ "$ref": "#/components/schemas/CloudEvent" }),
        ),
    })
}

fn sent_with(
    operation: &str,
    summary: &str,
    description: &str,
    headers: Value,
    content_type: &str,
    body: Value,
) -> Value {
    let mut content = Map::new();
    content.insert(content_type.to_owned(), json!({ "schema": body }));
    json!({
        "post": {
            "operationId": operation,
            "tags": ["deliveries"],
            "summary": summary,
            "description": description,
            "security": [],
            "parameters": headers,
            "requestBody": { "required": true, "content": content },
            "responses": {
                "2XX": { "description": "Delivered" },
                "410": { "description": "Gone: by default the webhook is disabled" },
                "429": { "description": "Later: Retry-After is heard" },
                "503": { "description": "Later: Retry-After is heard" },
                "default": { "description": "Not delivered: retried by the webhook's policy" },
            },
        }
    })
}

fn signed_headers() -> Value {
    let header = |name: &str, required: bool, description: &str| {
        json!({
            "name": name, "in": "header", "required": required, "description": description,
            "schema": { "type": "string" },
        })
    };
    json!([
        header("webhook-id", true, "The event's id, the same on every retry: what to deduplicate by"),
        header("webhook-timestamp", true, "Seconds since the Unix epoch, of this attempt"),
        header("webhook-signature", true, "`v1,<base64>`, one per valid secret, separated by spaces"),
        header("gatepost-event-id", true, "The event's id"),
        header("gatepost-delivery-id", true, "The delivery's id"),
        header("gatepost-attempt", true, "1, 2, …"),
        header("gatepost-test", false, "`true` on tests; absent otherwise"),
        header("user-agent", true, "`Gatepost/<version>`"),
        header("traceparent", true, "W3C Trace Context"),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn parsed() -> Value {
        serde_json::from_str(document()).unwrap()
    }

    fn refs(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.insert(target.clone());
                }
                members.values().for_each(|value| refs(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| refs(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_committed_document_is_the_real_one() {
        crate::tests::support::same_or_update("openapi.json", document());
    }

    #[test]
    fn no_reference_dangles() {
        let document = parsed();
        let mut targets = BTreeSet::new();
        refs(&document, &mut targets);
        assert!(!targets.is_empty());
        for target in targets {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
    }

    #[test]
    fn every_route_is_described_and_has_a_metrics_label() {
        let document = parsed();
        let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let labels: BTreeSet<_> = crate::observe::ROUTES.into_iter().collect();
        assert_eq!(described, labels);
    }

    #[test]
    fn schemas_have_names_of_their_own() {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for (file, text) in crate::tests::support::sources(&folder) {
            for part in text.split("ToSchema)]\n").skip(1) {
                let head: String = part.lines().take_while(|line| !line.ends_with('{')).collect();
                let line = part.lines().find(|line| line.ends_with('{')).unwrap_or_default();
                let given = head.split_once("as = ").map(|(_, rest)| rest);
                let plain = line.split_once("struct ").or(line.split_once("enum ")).map(|(_, rest)| rest);
                let name = given.or(plain).unwrap_or_default();
                let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
                let place = format!("{}: {line}", file.display());
                if let Some(other) = names.insert(name.clone(), place.clone()) {
                    panic!("two schemas are called {name}: {place} and {other}");
                }
            }
        }
        assert!(names.contains_key("Webhook") && names.contains_key("ServerHealth"), "{names:?}");
    }

    #[test]
    fn every_operation_reads_alone() {
        let document = parsed();
        let mut ids = BTreeSet::new();
        let items =
            document["paths"].as_object().unwrap().values().chain(document["webhooks"].as_object().unwrap().values());
        for operation in items.flat_map(|item| item.as_object().unwrap().values()) {
            let id = operation["operationId"].as_str().unwrap();
            // A verb and what it is done to.
            assert!(id.chars().any(char::is_uppercase), "{id}");
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{id}");
            let bodies = operation["requestBody"]["content"].as_object().map_or(0, Map::len);
            assert!(bodies <= 1 || id == "publishEvents", "generators stumble over several kinds of bodies: {id}");
        }
    }

    #[test]
    fn what_we_send_is_described() {
        let document = parsed();
        assert_eq!(document["openapi"], "3.1.0");
        let standard = &document["webhooks"]["standard"]["post"];
        let names: Vec<_> =
            standard["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"webhook-signature") && names.contains(&"gatepost-attempt"));
        assert!(document["webhooks"]["cloudevents"].is_object());
    }

    #[test]
    fn schemas_have_the_members_the_readers_read() {
        use crate::wire::{admin, event, webhook, webhook_members};
        let document = parsed();
        let members = |schema: &str| -> BTreeSet<String> {
            let schema = &document["components"]["schemas"][schema];
            assert_eq!(schema["additionalProperties"], false, "{schema}");
            schema["properties"].as_object().unwrap().keys().cloned().collect()
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(members("EventInput"), set(&event::EVENT));
        assert_eq!(members("Subject"), set(&event::SUBJECT));
        assert_eq!(members("BatchInput"), set(&event::BATCH));
        assert_eq!(members("WebhookInput"), set(&webhook::WEBHOOK));
        let mut patch = set(&webhook::WEBHOOK);
        patch.remove("profile");
        patch.remove("secret");
        assert_eq!(members("WebhookPatch"), patch);
        assert_eq!(members("SigningEntry"), set(&webhook_members::SIGNING));
        assert_eq!(members("Payload"), set(&webhook_members::PAYLOAD));
        assert_eq!(members("Batch"), set(&webhook_members::BATCH));
        assert_eq!(members("Verification"), set(&webhook_members::VERIFICATION));
        assert_eq!(members("VerificationPatch"), set(&webhook_members::VERIFICATION));
        assert_eq!(members("AuthPatch"), set(&webhook_members::AUTH));
        assert_eq!(members("Retry"), set(&webhook::RETRY));
        assert_eq!(members("RetryAfter"), set(&webhook::RETRY_AFTER));
        assert_eq!(members("TestInput"), set(&webhook::TEST));
        assert_eq!(members("RotateInput"), set(&webhook::ROTATE));
        assert_eq!(members("ReplayInput"), set(&crate::wire::jobs::REPLAY));
        assert_eq!(members("TenantInput"), set(&admin::TENANT));
        assert_eq!(members("TenantSettingsInput"), set(&admin::SETTINGS));
        assert_eq!(members("RetentionInput"), set(&admin::RETENTION));
        assert_eq!(members("QuotasInput"), set(&admin::QUOTAS));
        assert_eq!(members("KeyInput"), set(&admin::KEY));
        assert_eq!(members("EventTypeInput"), set(&admin::EVENT_TYPE));
    }
}
