//! Every answer the tests see is held against `docs/openapi.json`: what is described is what is answered.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::Reply;

/// The document, with its schemas as they stand under `components`.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../../docs/openapi.json")).expect("docs/openapi.json is JSON")
});

/// Validators by operation and status; made when they are first needed.
static KNOWN: LazyLock<Mutex<HashMap<String, Option<Arc<Validator>>>>> = LazyLock::new(Mutex::default);

/// Panics when an answer of `/v1` (or of the routes beside it) is not what the document says of it.
#[track_caller]
pub(super) fn check(method: &str, path: &str, sent: Option<&str>, reply: &Reply) {
    let path = path.split('?').next().unwrap_or_default();
    let Some(template) = template(path) else { return };
    let item = &DOCUMENT["paths"][template];
    let operation = &item[method.to_ascii_lowercase()];
    // A method the route does not have is answered with a problem by whatever route.
    if operation.is_null() {
        return;
    }
    // Of a body of another kind than the one described only the description's words tell.
    let bodies = operation["requestBody"]["content"].as_object();
    if bodies.zip(sent).is_some_and(|(bodies, sent)| !bodies.contains_key(sent)) {
        return;
    }
    let kind = reply.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let status = reply.status.to_string();
    let described = &operation["responses"][&status];
    assert!(!described.is_null(), "{method} {template} may answer {status}, docs/openapi.json does not say: {reply:?}");
    // A form of its own was asked for by `accept`.
    let other = kind.contains("/vnd.") || !kind.ends_with("json");
    if reply.body.is_empty() || other || method == "HEAD" {
        return;
    }
    let Some(validator) = validator(method, template, &status, kind, described) else { return };
    // What no value holds passes by its bytes: for the description it is not there.
    let Some(readable) = gatepost_core::json::readable(&reply.body) else { panic!("not JSON: {reply:?}") };
    let value: Value = serde_json::from_slice(&readable).expect("readable");
    let wrong: Vec<_> = validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).take(5).collect();
    assert!(wrong.is_empty(), "{method} {template} {status} is not as described:\n{}\n{value:#}", wrong.join("\n"));
}

/// The path of the document a request's path stands for: the one with the fewest placeholders.
fn template(path: &str) -> Option<&'static str> {
    let given: Vec<&str> = path.split('/').collect();
    let templates = DOCUMENT["paths"].as_object()?.keys();
    let fits = templates.filter(|template| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == given.len()
            && parts
                .iter()
                .zip(&given)
                .all(|(part, given)| part == given || (part.starts_with('{') && !given.is_empty()))
    });
    fits.min_by_key(|template| template.matches('{').count()).map(String::as_str)
}

fn validator(method: &str, template: &str, status: &str, kind: &str, described: &Value) -> Option<Arc<Validator>> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let schema = described["content"][kind].get("schema");
        assert!(schema.is_some(), "{method} {template} {status} has no {kind} in docs/openapi.json");
        let root = json!({ "allOf": [schema], "components": DOCUMENT["components"] });
        Some(Arc::new(jsonschema::draft202012::new(&root).expect("a schema")))
    };
    known.entry(format!("{method} {template} {status} {kind}")).or_insert_with(make).clone()
}
