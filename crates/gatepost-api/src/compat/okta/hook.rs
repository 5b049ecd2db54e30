//! An event hook as Okta writes and shows it.

use gatepost_core::Timestamp;
use gatepost_core::auth::EndpointAuth;
use gatepost_core::catalogue;
use gatepost_core::profiles::okta::{API_PATH, NAME, el};
use gatepost_core::secret::MASK;
use gatepost_core::webhook::WebhookConfig;
use gatepost_engine::FieldError;
use gatepost_engine::ops::WebhookView;
use serde_json::{Map, Value, json};

use super::super::native_id;
use crate::problem::{ErrorCode, Problem};

/// Kept for the answers of this API alone: who made the hook, and its filter as it was written.
pub(super) const CREATED_BY: &str = "createdBy";
const FILTER: &str = "eventFilterMap";

/// What a POST or a PUT says.
pub(super) struct Hook {
    name: Option<String>,
    description: Option<String>,
    items: Vec<String>,
    /// The expressions as written, and what they compile to; `None`: no filter.
    filter: Option<(Value, String)>,
    uri: Option<String>,
    headers: Vec<(String, String)>,
    /// Name and value of the secret header.
    auth: Option<(String, Option<String>)>,
}

/// Reads members of one object, noting what is wrong.
struct Members<'e> {
    at: &'static str,
    map: Map<String, Value>,
    errors: &'e mut Vec<FieldError>,
}

impl Members<'_> {
    fn wrong(&mut self, name: &str, message: &str) {
        self.errors.push(FieldError::new(format!("{}/{name}", self.at), message));
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.wrong(name, "must be a text");
                None
            }
        }
    }

    fn constant(&mut self, name: &str, value: &str) {
        match self.map.remove(name) {
            None | Some(Value::Null) => self.wrong(name, "is required"),
            Some(Value::String(text)) if text == value => {}
            Some(_) => self.wrong(name, &format!("must be {value}")),
        }
    }

    fn list(&mut self, name: &str) -> Vec<Value> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.wrong(name, "must be a list");
                Vec::new()
            }
        }
    }

    fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => {
                self.wrong(name, "must be an object");
                None
            }
        }
    }
}

impl Hook {
    /// Reads a hook. Members it shows and nobody can set are passed over: clients send them back.
    /// `present` is the hook that is replaced: event types it has already are taken, known or not.
    pub(super) fn read(body: Map<String, Value>, present: Option<&WebhookView>) -> Result<Hook, Problem> {
        let mut errors = Vec::new();
        let mut top = Members { at: "", map: body, errors: &mut errors };
        let (name, description) = (top.text("name"), top.text("description"));
        if name.as_ref().is_none_or(String::is_empty) {
            top.wrong("name", "is required");
        }
        let (events, channel) = (top.object("events"), top.object("channel"));
        if events.is_none() {
            top.wrong("events", "is required");
        }
        if channel.is_none() {
            top.wrong("channel", "is required");
        }
        let known: &[String] = present.map_or(&[], |view| &view.webhook.config.events);
        let (items, filter) = events.map(|map| read_events(map, known, &mut errors)).unwrap_or_default();
        let (uri, headers, auth) = channel.map(|map| read_channel(map, &mut errors)).unwrap_or_default();
        if !errors.is_empty() {
            return Err(Problem::invalid(ErrorCode::ValidationFailed, errors, 0));
        }
        Ok(Hook { name, description, items, filter, uri, headers, auth })
    }

    /// The members as `/v1` has them; a merge patch where a hook is replaced.
    pub(super) fn members(&self, present: Option<&WebhookView>) -> Map<String, Value> {
        let config = present.map(|view| &view.webhook.config);
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
        put("name", self.name.clone().into());
        put("description", self.description.clone().into());
        put("url", self.uri.clone().into());
        put("events", self.items.clone().into());
        // A filter of another API's is none this one could have sent back.
        let foreign_filter = config.is_some_and(|config| config.filter.is_some() && written_filter(config).is_none());
        match &self.filter {
            Some((_, cel)) => put("filter", cel.clone().into()),
            None if foreign_filter => {}
            None => put("filter", Value::Null),
        }
        let named = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut headers: Map<_, _> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        for name in config.map_or(&[][..], |config| &config.header_names).iter().filter(|name| !named(name)) {
            headers.insert(name.clone(), Value::Null);
        }
        put("headers", headers.into());
        let other_auth = config.is_some_and(|config| {
            config.auth.as_ref().is_some_and(|auth| !matches!(auth, EndpointAuth::Header { .. }))
        });
        match &self.auth {
            Some((name, value)) => {
                let value = value.clone().unwrap_or_else(|| MASK.to_owned());
                put("auth", json!({"type": "header", "name": name, "value": value}));
            }
            None if other_auth => {}
            None => put("auth", Value::Null),
        }
        members
    }

    /// What only this API has words for.
    pub(super) fn foreign(&self, present: &Map<String, Value>) -> Map<String, Value> {
        let mut foreign = present.clone();
        match &self.filter {
            Some((written, _)) => drop(foreign.insert(FILTER.into(), written.clone())),
            None => drop(foreign.remove(FILTER)),
        }
        foreign
    }
}

fn read_events(
    map: Map<String, Value>,
    known: &[String],
    errors: &mut Vec<FieldError>,
) -> (Vec<String>, Option<(Value, String)>) {
    let mut events = Members { at: "/events", map, errors };
    events.constant("type", "EVENT_TYPE");
    let mut items: Vec<String> = Vec::new();
    for item in events.list("items") {
        match item {
            Value::String(name) if is_eligible(&name) || known.contains(&name) => {
                if !items.contains(&name) {
                    items.push(name);
                }
            }
            Value::String(name) => {
                let shown: String = name.chars().take(128).collect();
                events.wrong("items", &format!("{shown:?} is no event type hooks can have"));
            }
            _ => events.wrong("items", "must hold texts"),
        }
    }
    if items.is_empty() {
        events.wrong("items", "must have at least one event type");
    }
    let filter = events.object("filter").and_then(|map| read_filter(map, &items, errors));
    (items, filter)
}

fn is_eligible(name: &str) -> bool {
    catalogue::of_system(NAME).any(|known| known.name.as_str() == name)
}

fn read_filter(map: Map<String, Value>, items: &[String], errors: &mut Vec<FieldError>) -> Option<(Value, String)> {
    let mut filter = Members { at: "/events/filter", map, errors };
    // Read-only there, and sent back by clients.
    if filter.text("type").is_some_and(|kind| kind != "EXPRESSION_LANGUAGE") {
        filter.wrong("type", "must be EXPRESSION_LANGUAGE");
    }
    let entries = filter.list(FILTER);
    let mut conditions: Vec<(String, String)> = Vec::new();
    for entry in &entries {
        let event = entry.get("event").and_then(Value::as_str).unwrap_or_default();
        let expression = entry.pointer("/condition/expression").and_then(Value::as_str);
        if !items.iter().any(|item| item == event) {
            filter.wrong(FILTER, "event must be one of events.items");
            continue;
        }
        match expression.map(el::compile) {
            Some(Ok(cel)) => conditions.push((event.to_owned(), cel)),
            Some(Err(error)) => filter.wrong(FILTER, &format!("the expression of {event} is no filter: {error}")),
            None => filter.wrong(FILTER, "condition.expression is required"),
        }
    }
    (!conditions.is_empty()).then(|| (Value::Array(entries), el::join(&conditions)))
}

type Channel = (Option<String>, Vec<(String, String)>, Option<(String, Option<String>)>);

fn read_channel(map: Map<String, Value>, errors: &mut Vec<FieldError>) -> Channel {
    let mut channel = Members { at: "/channel", map, errors };
    channel.constant("type", "HTTP");
    channel.constant("version", "1.0.0");
    let Some(config) = channel.object("config") else {
        channel.wrong("config", "is required");
        return Channel::default();
    };
    let mut config = Members { at: "/channel/config", map: config, errors };
    let uri = config.text("uri");
    if uri.as_ref().is_none_or(String::is_empty) {
        config.wrong("uri", "is required");
    }
    let mut headers = Vec::new();
    for header in config.list("headers") {
        let member = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        match (member("key"), member("value")) {
            (Some(key), Some(value)) => headers.push((key, value)),
            _ => config.wrong("headers", "must hold objects with key and value"),
        }
    }
    let scheme = config.object("authScheme");
    let auth = scheme.and_then(|map| {
        let mut scheme = Members { at: "/channel/config/authScheme", map, errors };
        if scheme.text("type").is_some_and(|kind| !kind.eq_ignore_ascii_case("HEADER")) {
            scheme.wrong("type", "must be HEADER");
        }
        let (key, value) = (scheme.text("key").filter(|key| !key.is_empty()), scheme.text("value"));
        if key.is_none() {
            scheme.wrong("key", "is required");
        }
        key.map(|key| (key, value))
    });
    (uri, headers, auth)
}

/// The filter as it was written, if it is still the one.
fn written_filter(config: &WebhookConfig) -> Option<&Value> {
    let written = config.foreign.get(FILTER)?;
    let condition = |entry: &Value| {
        let event = entry.get("event")?.as_str()?.to_owned();
        Some((event, el::compile(entry.pointer("/condition/expression")?.as_str()?).ok()?))
    };
    let conditions: Option<Vec<_>> = written.as_array()?.iter().map(condition).collect();
    (config.filter.as_deref() == Some(el::join(&conditions?).as_str())).then_some(written)
}

/// The hook as Okta shows it.
pub(super) fn shown(view: &WebhookView, public_url: &str) -> Value {
    let (webhook, config) = (&view.webhook, &view.webhook.config);
    let href = format!("{public_url}{API_PATH}/{}", native_id(view));
    let filter = written_filter(config).map(|map| json!({"type": "EXPRESSION_LANGUAGE", FILTER: map}));
    let headers: Vec<_> = config.header_names.iter().map(|name| json!({"key": name, "value": MASK})).collect();
    let auth = match &config.auth {
        Some(EndpointAuth::Header { name }) => json!({"type": "HEADER", "key": name}),
        _ => Value::Null,
    };
    let switch = if config.enabled { "deactivate" } else { "activate" };
    let link = |rest: &str, allow: &[&str]| json!({"href": format!("{href}{rest}"), "hints": {"allow": allow}});
    json!({
        "id": native_id(view),
        "name": config.name,
        "description": config.description,
        "status": if config.enabled { "ACTIVE" } else { "INACTIVE" },
        "verificationStatus": if is_verified(view) { "VERIFIED" } else { "UNVERIFIED" },
        "created": millis(webhook.created_at),
        "createdBy": config.foreign.get(CREATED_BY),
        "lastUpdated": millis(webhook.updated_at),
        "events": {"type": "EVENT_TYPE", "items": config.events, "filter": filter},
        "channel": {
            "type": "HTTP",
            "version": "1.0.0",
            "config": {"uri": config.url, "method": "POST", "headers": headers, "authScheme": auth},
        },
        "_links": {
            "self": link("", &["GET", "PUT", "DELETE"]),
            "verify": link("/lifecycle/verify", &["POST"]),
            switch: link(&format!("/lifecycle/{switch}"), &["POST"]),
        },
    })
}

fn is_verified(view: &WebhookView) -> bool {
    view.webhook.config.verified_at.is_some() || view.verified()
}

/// Milliseconds, always three digits.
pub(super) fn millis(at: Timestamp) -> String {
    let text = Timestamp::from_secs(at.as_secs()).to_string();
    format!("{}.{:03}Z", text.trim_end_matches('Z'), at.as_millis().rem_euclid(1_000))
}

/// A member as Okta names it, of a pointer of ours or of Okta's own.
pub(super) fn field(pointer: &str) -> String {
    let pointer = pointer.trim_start_matches('/');
    let (head, rest) = pointer.split_once('/').unwrap_or((pointer, ""));
    match (head, rest) {
        ("url", _) => "channel.config.uri".into(),
        ("headers", "") => "channel.config.headers".into(),
        ("headers", name) => format!("channel.config.headers.{name}"),
        ("auth", _) => "channel.config.authScheme".into(),
        ("filter", _) => "events.filter".into(),
        ("", _) => "eventHook".into(),
        _ => pointer.replace('/', "."),
    }
}
