//! A point, read from a request body: a built-in one is set, a tenant's own is defined and set.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::FieldError;
use super::failure::OnFailure;
use super::json::Pointer;
use super::points::{Audit, Capture, MAX_TOTAL_MS, PointDef, PointKind, PointSettings};
use super::reader::Reader;

/// What a body of `PUT …/points/{point}` says.
#[derive(Clone, PartialEq, Debug)]
pub struct PointWrite {
    /// What the point is; `None`: a built-in one.
    pub definition: Option<PointDef>,
    /// How it is set.
    pub settings: PointSettings,
}

const AUDIT: [(&str, Audit); 2] = [("relaxed", Audit::Relaxed), ("strict", Audit::Strict)];
const CAPTURE: [(&str, Capture); 4] =
    [("off", Capture::Off), ("failures", Capture::Failures), ("sampled", Capture::Sampled), ("all", Capture::All)];
/// Members of a list in a definition.
const LIST_MAX: usize = 100;
/// Characters of a description.
const DESCRIPTION_MAX: usize = 2_000;

/// Members that set a point.
pub const SETTINGS: [&str; 5] = ["enabled", "max_total_ms", "audit", "capture", "redact"];
/// Members that define a tenant's own point.
pub const DEFINITION: [&str; 10] = [
    "kind",
    "description",
    "on_failure",
    "secret_pointers",
    "object_members",
    "path",
    "serial",
    "acknowledges",
    "schema",
    "sample",
];

/// Reads what sets (and, of a tenant's own point, defines) the point called `name`. Absent members
/// keep what is there; `null` takes a member back to its default.
///
/// # Errors
/// Every wrong or unknown member.
pub fn read(
    name: &str,
    members: Map<String, Value>,
    builtin: Option<&Arc<PointDef>>,
    present: Option<&PointWrite>,
) -> Result<PointWrite, Vec<FieldError>> {
    let mut errors = Vec::new();
    let given = Given(members.iter().map(|(name, value)| (name.clone(), value.is_null())).collect());
    let mut r = Reader::new(members, "", &mut errors);
    let settings = read_settings(&mut r, &given, present.map(|p| &p.settings));
    let definition = if builtin.is_none() {
        Some(read_definition(name, &mut r, &given, present.and_then(|p| p.definition.as_ref())))
    } else {
        for name in DEFINITION {
            if r.take(name).is_some() {
                r.bad(name, "belongs to the built-in point and cannot be changed; define a point of your own");
            }
        }
        None
    };
    r.finish();
    if let Some(definition) = &definition {
        let told: Vec<String> = errors.iter().map(|e| e.pointer.clone()).collect();
        let judged = definition.validate().into_iter().map(|e| match e.pointer.as_str() {
            "/name" => FieldError { pointer: "{point}".into(), ..e },
            _ => e,
        });
        errors.extend(judged.filter(|e| !told.iter().any(|t| t.starts_with(&e.pointer))));
    }
    if errors.is_empty() { Ok(PointWrite { definition, settings }) } else { Err(errors) }
}

/// The members that make a point what it is, for `PUT …/points/{point}`, with its name; what is as by default
/// is left out.
pub fn written(name: &str, point: &PointWrite) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("name".to_owned(), name.into());
    if let Some(definition) = &point.definition {
        let bare = object(&PointDef::new(name, definition.kind));
        members.insert("kind".to_owned(), definition.kind.as_str().into());
        for (member, value) in object(definition) {
            if DEFINITION.contains(&member.as_str()) && bare.get(&member) != Some(&value) {
                members.insert(member, value);
            }
        }
    }
    let bare = object(&PointSettings::default());
    members.extend(object(&point.settings).into_iter().filter(|(name, value)| bare.get(name) != Some(value)));
    members
}

/// What is made of texts, numbers and lists of them: cannot fail.
fn object(value: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// Which members were given, and whether as `null`.
struct Given(Vec<(String, bool)>);

impl Given {
    /// What is kept of a member that was not given.
    fn kept<T>(&self, name: &str, present: Option<T>, default: T) -> T {
        let given = self.0.iter().any(|(given, _)| given == name);
        if given { default } else { present.unwrap_or(default) }
    }
}

fn read_settings(r: &mut Reader<'_>, given: &Given, present: Option<&PointSettings>) -> PointSettings {
    let start = PointSettings::default();
    let enabled = given.kept("enabled", present.map(|p| p.enabled), start.enabled);
    let audit = given.kept("audit", present.map(|p| p.audit), start.audit);
    let capture = given.kept("capture", present.map(|p| p.capture), start.capture);
    let redact = given.kept("redact", present.map(|p| p.redact.clone()), Vec::new());
    let member = |text: &str| text.parse::<Pointer>().ok().filter(|pointer| *pointer != Pointer::root());
    let redact = texts(r, "redact", member, "a JSON pointer to a member").unwrap_or(redact);
    let max_total_ms = given.kept("max_total_ms", present.map(|p| p.max_total_ms), None);
    PointSettings {
        enabled: r.flag("enabled", enabled),
        max_total_ms: read_max_total(r).or(max_total_ms),
        audit: r.word("audit", &AUDIT, audit),
        capture: r.word("capture", &CAPTURE, capture),
        redact,
    }
}

fn read_max_total(r: &mut Reader<'_>) -> Option<u32> {
    let range = i64::from(*MAX_TOTAL_MS.start())..=i64::from(*MAX_TOTAL_MS.end());
    // 0 is outside the range, so it says that none was given.
    u32::try_from(r.number("max_total_ms", range, 0)).ok().filter(|ms| *ms > 0)
}

fn read_definition(name: &str, r: &mut Reader<'_>, given: &Given, present: Option<&PointDef>) -> PointDef {
    let kinds = PointKind::ALL.map(|kind| (kind.as_str(), kind));
    let kind = match (r.take("kind"), present) {
        (None, Some(present)) => present.kind,
        (None, None) => {
            r.bad("kind", "is required: there is no built-in point of this name, so this defines one");
            PointKind::Validate
        }
        (Some(value), _) => {
            let found = value.as_str().and_then(|text| kinds.iter().find(|(word, _)| *word == text));
            match found {
                Some((_, kind)) => {
                    if present.is_some_and(|present| present.kind != *kind) {
                        r.bad("kind", "is fixed: hooks were registered for it; define another point");
                    }
                    *kind
                }
                None => {
                    let words: Vec<_> = kinds.iter().map(|(word, _)| *word).collect();
                    r.bad("kind", format!("must be one of {}", words.join(", ")));
                    PointKind::Validate
                }
            }
        }
    };
    let start = PointDef::new(name, kind);
    let keep = |of: &dyn Fn(&PointDef) -> bool| present.map(of);
    let mut point = PointDef {
        serial: given.kept("serial", keep(&|p| p.serial), start.serial),
        acknowledges: given.kept("acknowledges", keep(&|p| p.acknowledges), start.acknowledges),
        description: given.kept("description", present.map(|p| p.description.clone()), start.description.clone()),
        on_failure: given.kept("on_failure", present.map(|p| p.on_failure.clone()), None),
        secret_pointers: given.kept(
            "secret_pointers",
            present.map(|p| p.secret_pointers.clone()),
            start.secret_pointers.clone(),
        ),
        object_members: given.kept(
            "object_members",
            present.map(|p| p.object_members.clone()),
            start.object_members.clone(),
        ),
        path: given.kept("path", present.map(|p| p.path.clone()), None),
        schema: given.kept("schema", present.map(|p| p.schema.clone()), None),
        sample: given.kept("sample", present.map(|p| p.sample.clone()), start.sample.clone()),
        ..start
    };
    point.serial = r.flag("serial", point.serial);
    point.acknowledges = r.flag("acknowledges", point.acknowledges);
    if let Some(text) = r.text("description") {
        if text.chars().count() > DESCRIPTION_MAX {
            r.bad("description", format!("must have at most {DESCRIPTION_MAX} characters"));
        }
        point.description = text;
    }
    if let Some(value) = r.take("on_failure") {
        match OnFailure::read(&value.readable()) {
            Ok(OnFailure { default: Some(policy), by_class }) if by_class.is_empty() => {
                point.on_failure = Some(policy);
            }
            _ => r.bad("on_failure", "must be \"deny\", \"continue\", \"ask_default\" or {\"value\": …}"),
        }
    }
    if let Some(path) = r.text("path") {
        point.path = Some(path);
    }
    if let Some(schema) = r.take("schema") {
        point.schema = Some(schema.readable());
    }
    if let Some(sample) = r.object("sample") {
        point.sample = super::json::Value::Object(sample).readable();
    }
    if let Some(pointers) = texts(r, "secret_pointers", |text| text.parse::<Pointer>().ok(), "a JSON pointer") {
        point.secret_pointers = pointers;
    }
    if let Some(names) = texts(r, "object_members", |text| Some(text.to_owned()), "a member's name") {
        point.object_members = names;
    }
    point
}

fn texts<T>(r: &mut Reader<'_>, name: &str, read: impl Fn(&str) -> Option<T>, what: &str) -> Option<Vec<T>> {
    let items = r.list(name)?;
    if items.len() > LIST_MAX {
        r.bad(name, format!("must have at most {LIST_MAX} items"));
        return None;
    }
    let mut out = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        match item.as_str().and_then(&read) {
            Some(value) => out.push(value),
            None => r.bad_below(name, &format!("/{i}"), format!("must be {what}")),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::failure::Policy;
    use crate::hooks::points::builtin;
    use serde_json::json;

    fn put(name: &str, body: Value, present: Option<&PointWrite>) -> Result<PointWrite, Vec<String>> {
        let Value::Object(members) = body else { panic!("an object") };
        let read = read(name, members, builtin(name), present);
        read.map_err(|errors| errors.into_iter().map(|e| e.pointer).collect())
    }

    #[test]
    fn a_built_in_point_is_set_member_by_member() {
        let first = put("validateUser", json!({"enabled": false, "max_total_ms": 500}), None).unwrap();
        assert_eq!(first.definition, None);
        assert_eq!((first.settings.enabled, first.settings.max_total_ms), (false, Some(500)));
        let second = put("validateUser", json!({"audit": "strict"}), Some(&first)).unwrap().settings;
        assert_eq!((second.enabled, second.max_total_ms, second.audit), (false, Some(500), Audit::Strict));
        let cleared = put("validateUser", json!({"max_total_ms": null, "enabled": true}), Some(&first)).unwrap();
        assert_eq!(cleared.settings, PointSettings::default());
        let redacted = put("validateUser", json!({"redact": ["/user/password"]}), Some(&first)).unwrap();
        let kept = PointWrite { definition: None, settings: redacted.settings.clone() };
        assert_eq!(put("validateUser", json!({}), Some(&kept)).unwrap().settings, redacted.settings);
        assert_eq!(put("validateUser", json!({"redact": null}), Some(&kept)).unwrap().settings, first.settings);
        let wrong =
            json!({"enabled": "no", "max_total_ms": 5, "kind": "gate", "audit": "x", "bogus": 1, "redact": ["", 7]});
        assert_eq!(
            put("validateUser", wrong, None).unwrap_err(),
            ["/redact/0", "/redact/1", "/enabled", "/max_total_ms", "/audit", "/kind", "/bogus"]
        );
    }

    #[test]
    fn a_tenants_own_point_is_defined_and_keeps_what_is_not_said() {
        let body = json!({"kind": "gate", "on_failure": {"value": true}, "path": "badge", "secret_pointers": ["/pin"]});
        let first = put("beforeBadge", body, None).unwrap();
        let point = first.definition.as_ref().unwrap();
        assert_eq!((point.kind, point.policy()), (PointKind::Gate, Policy::Value(json!(true))));
        let second = put("beforeBadge", json!({"enabled": false, "path": null}), Some(&first)).unwrap();
        let point = second.definition.unwrap();
        assert_eq!((point.path, point.secret_pointers.len(), second.settings.enabled), (None, 1, false));
        let mut again = written("beforeBadge", &first);
        assert_eq!(again.remove("name"), Some(json!("beforeBadge")));
        assert_eq!(put("beforeBadge", Value::Object(again), None).unwrap(), first);
        let bare = put("beforeBadge", json!({"kind": "gate"}), None).unwrap();
        assert_eq!(Value::Object(written("beforeBadge", &bare)), json!({"name": "beforeBadge", "kind": "gate"}));
        assert_eq!(put("beforeBadge", json!({"kind": "value"}), Some(&first)).unwrap_err(), ["/kind"]);
        assert_eq!(put("beforeBadge", json!({}), None).unwrap_err(), ["/kind"]);
        let wrong =
            json!({"kind": "gate", "on_failure": {"value": "x"}, "schema": {"type": "strin"}, "object_members": [1]});
        assert_eq!(put("1x", wrong, None).unwrap_err(), ["/object_members/0", "{point}", "/on_failure", "/schema"]);
    }
}
