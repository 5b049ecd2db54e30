//! An event as a LogEvent of Okta's System Log.

use serde_json::{Map, Value, json};

use super::super::foreign::{fixed, hyphenated, uuid_of};
use super::super::{Frame, Item};
use crate::catalogue;
use crate::event::Event;

/// Every member a LogEvent has, in the order they are sent.
const MEMBERS: [&str; 18] = [
    "uuid",
    "published",
    "eventType",
    "version",
    "displayMessage",
    "severity",
    "legacyEventType",
    "actor",
    "client",
    "outcome",
    "target",
    "transaction",
    "debugContext",
    "authenticationContext",
    "securityContext",
    "request",
    "device",
    "insertionTimestamp",
];
/// The member of `debugContext` that is free.
const DEBUG_DATA: &str = "debugData";

/// Members of `data` that are a LogEvent's pass; the others go to `debugContext.debugData`; what is
/// missing is filled where the event tells it, and null elsewhere (SETTLED, Events).
pub(super) fn of(item: &Item<'_>, frame: &Frame<'_>) -> Value {
    let event = item.event;
    let data: Value = item.data.as_deref().and_then(|raw| serde_json::from_slice(raw).ok()).unwrap_or_default();
    let (mut given, mut debug) = (Map::new(), Map::new());
    match data {
        Value::Object(members) => {
            for (name, value) in members {
                let known = MEMBERS.contains(&name.as_str());
                if known { &mut given } else { &mut debug }.insert(name, value);
            }
        }
        Value::Null => {}
        other => drop(debug.insert("data".into(), other)),
    }
    let mut log_event = Map::new();
    for name in MEMBERS {
        let given = given.remove(name).filter(|value| !value.is_null());
        let value = match name {
            // What it is, and which one, is not the publisher's to say twice.
            "eventType" => event.event_type.as_str().into(),
            "uuid" => uuid(given, event, frame),
            "debugContext" => debug_context(given, std::mem::take(&mut debug)),
            _ => given.unwrap_or_else(|| filled(name, event)),
        };
        log_event.insert(name.to_owned(), value);
    }
    log_event.into()
}

/// The event's id if it is a UUID, else one that is always the same for it: receivers tell duplicates
/// by it. A UUID in the data is that of an event of Okta's own, passed on.
fn uuid(given: Option<Value>, event: &Event, frame: &Frame<'_>) -> Value {
    let theirs = given.as_ref().and_then(Value::as_str).and_then(hyphenated);
    let uuid = hyphenated(event.id.as_str()).or(theirs);
    uuid.unwrap_or_else(|| uuid_of(frame.tenant_id, event.id.as_str())).to_string().into()
}

/// What the event itself tells about a member.
fn filled(name: &str, event: &Event) -> Value {
    match name {
        "published" => fixed(event.timestamp, 3).into(),
        "version" => "0".into(),
        "displayMessage" => catalogue::find(&event.event_type)
            .map_or_else(|| event.event_type.as_str().into(), |known| known.definition.description.as_str().into()),
        "severity" => "INFO".into(),
        "actor" => json!({"id": "gatepost", "type": "SystemPrincipal", "alternateId": "system@gatepost",
                          "displayName": "Gatepost", "detailEntry": null}),
        "outcome" => json!({"result": "SUCCESS", "reason": null}),
        "target" => target(event),
        _ => Value::Null,
    }
}

/// Whom the event is about.
fn target(event: &Event) -> Value {
    let Some(subject) = &event.subject else { return json!([]) };
    let kind = subject.kind.as_deref().unwrap_or("User");
    let mut letters = kind.chars();
    let kind = letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect());
    json!([{"id": subject.id, "type": kind, "alternateId": subject.id, "displayName": subject.id, "detailEntry": null}])
}

/// The debug context given, with everything else the data holds.
fn debug_context(given: Option<Value>, others: Map<String, Value>) -> Value {
    let mut context = match given {
        Some(Value::Object(context)) => context,
        _ => Map::new(),
    };
    let mut data = match context.remove(DEBUG_DATA) {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    data.extend(others);
    context.insert(DEBUG_DATA.into(), data.into());
    context.into()
}
