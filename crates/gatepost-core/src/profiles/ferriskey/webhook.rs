//! A webhook as FerrisKey shows it: in its own events, and in its API.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Timestamp, WebhookId};

/// What FerrisKey says about a webhook.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Which.
    pub id: WebhookId,
    /// Where it goes.
    pub endpoint: &'a str,
    /// A name for people; there it may be missing.
    pub name: Option<&'a str>,
    /// More words for people.
    pub description: Option<&'a str>,
    /// What it is subscribed to.
    pub triggers: Vec<&'a str>,
    /// When something was last sent to it.
    pub triggered_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The webhook, without headers and secret.
pub fn object(facts: &Facts<'_>) -> Value {
    let uuid = Uuid::from_bytes(facts.id.to_bytes());
    let id = uuid.to_string();
    let subscribers: Vec<_> = facts
        .triggers
        .iter()
        // FerrisKey's subscribers are rows with ids; these are always the same for the same two.
        .map(|name| json!({"id": Uuid::new_v5(&uuid, name.as_bytes()).to_string(), "name": name, "webhook_id": id}))
        .collect();
    json!({
        "id": id,
        "endpoint": facts.endpoint,
        "name": facts.name,
        "description": facts.description,
        "subscribers": subscribers,
        "triggered_at": facts.triggered_at,
        "updated_at": facts.updated_at,
        "created_at": facts.created_at,
    })
}

/// The data of one of Gatepost's own events about a webhook, in FerrisKey's shape. `None`: it is not a
/// webhook as Gatepost shows it, and goes out as it is.
pub(super) fn of_own_event(data: &[u8]) -> Option<Vec<u8>> {
    let shown: Value = serde_json::from_slice(data).ok()?;
    let text = |name: &str| shown.get(name).and_then(Value::as_str);
    let id: WebhookId = text("id")?.parse().ok()?;
    let triggers = shown.get("events")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let facts = Facts {
        id,
        endpoint: text("url")?,
        name: text("name").filter(|name| !name.is_empty()),
        description: text("description"),
        triggers,
        triggered_at: None,
        updated_at: text("updated_at")?.parse().ok()?,
        created_at: text("created_at")?.parse().ok()?,
    };
    serde_json::to_vec(&object(&facts)).ok()
}
