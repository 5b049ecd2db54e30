//! False events: what Cryptr sends to a webhook under test. `data` are the catalogue's examples; here is what
//! the envelope carries besides. `params` is what the directory's provider had sent, in SCIM's own names:
//! for a changed user it is the document's sample. A failure says why, and has no resource yet.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::catalogue::CRYPTR_SAMPLE_EVENT;
use crate::event::EventType;

static SAMPLE_PARAMS: LazyLock<Value> = LazyLock::new(|| {
    // The sample is part of the program, and a test reads it.
    serde_json::from_str::<Value>(CRYPTR_SAMPLE_EVENT)
        .ok()
        .and_then(|mut event| Some(event.get_mut("params")?.take()))
        .unwrap_or_default()
});

/// The attributes of a false event; `None`: the code is of no family Cryptr has.
pub(super) fn attributes(code: &EventType) -> Option<Bytes> {
    let (family, rest) = code.as_str().split_once('.')?;
    let (change, result) = rest.rsplit_once('.')?;
    let params = match (family, change) {
        ("dir_sync", "user.update") => SAMPLE_PARAMS.clone(),
        ("dir_sync", "user.provision") => json!({
            "userName": "april@example.com", "active": true, "displayName": "April O'neil",
            "name": {"familyName": "O'neil", "givenName": "April"},
            "emails": [{"primary": true, "type": "work", "value": "april@example.com"}],
        }),
        ("dir_sync", "user.deprovision") => json!({"active": false}),
        ("dir_sync", "group.users_added" | "group.users_removed") => json!({
            "displayName": "Turtles",
            "members": [{"display": "april@example.com", "value": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}],
        }),
        ("dir_sync", "group.update") => json!({"displayName": "Ninjas"}),
        ("dir_sync", change) if change.starts_with("group.") => json!({"displayName": "Turtles", "members": []}),
        ("sso_saml", _) => json!({"email": "april@example.com"}),
        _ => return None,
    };
    let errors = match (result, family, change) {
        ("fail", "sso_saml", _) => json!([{"field": null, "message": "audience mismatch"}]),
        ("fail", _, change) if change.starts_with("group.") => {
            json!([{"field": "displayName", "message": "has already been taken"}])
        }
        ("fail", ..) => json!([{"field": "userName", "message": "has already been taken"}]),
        _ => Value::Null,
    };
    Some(Bytes::from(json!({"params": params, "errors": errors}).to_string()))
}
