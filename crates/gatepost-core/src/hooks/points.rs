//! Points: the named places where a platform asks before it acts.
//!
//! The built-in ones are data (`hooks/points.json`); a tenant may define more of each kind.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FieldError;
use super::change::MayChange;
use super::failure::Policy;
use super::json::Pointer;
use crate::schema::Schema;

/// What a point asks for, and so how its answers are read and joined.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointKind {
    /// Receivers change the object, one after another.
    Mutate,
    /// Receivers allow or deny, all at once.
    Validate,
    /// Receivers give a value; the first that has one wins.
    Value,
    /// Receivers say yes or no; any no is no.
    Gate,
    /// Receivers are told something secret; their answer is not read.
    NotifySecret,
    /// Nobody is asked: told afterwards, by webhooks.
    Event,
    /// Whether the receiver is there.
    Probe,
}

impl PointKind {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            PointKind::Mutate => "mutate",
            PointKind::Validate => "validate",
            PointKind::Value => "value",
            PointKind::Gate => "gate",
            PointKind::NotifySecret => "notify_secret",
            PointKind::Event => "event",
            PointKind::Probe => "probe",
        }
    }

    /// Every kind.
    pub const ALL: [PointKind; 7] = [
        PointKind::Mutate,
        PointKind::Validate,
        PointKind::Value,
        PointKind::Gate,
        PointKind::NotifySecret,
        PointKind::Event,
        PointKind::Probe,
    ];

    /// What a failure means on a point of this kind that does not say.
    pub fn default_policy(self) -> Policy {
        match self {
            PointKind::Validate | PointKind::Probe => Policy::Deny,
            PointKind::Value => Policy::AskDefault,
            PointKind::Gate => Policy::Value(Value::Bool(false)),
            PointKind::Mutate | PointKind::NotifySecret | PointKind::Event => Policy::Continue,
        }
    }

    /// Whether an answer's object can mean anything here.
    pub fn takes_objects(self) -> bool {
        matches!(self, PointKind::Mutate | PointKind::Validate)
    }
}

/// A point.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointDef {
    /// Its name, as in the path of an invocation.
    pub name: String,
    /// What it asks for.
    pub kind: PointKind,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What a failure of a hook means that does not say so itself; `None` leaves it to the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Policy>,
    /// Milliseconds an invocation may take in all.
    #[serde(default = "default_max_total_ms")]
    pub max_total_ms: u32,
    /// Members that are secret, relative to `object`, `old_object` and `context`.
    #[serde(default = "default_secret_pointers")]
    pub secret_pointers: Vec<Pointer>,
    /// Members of a Cymmetri `request` that are the object; the others are context.
    #[serde(default = "default_object_members")]
    pub object_members: Vec<String>,
    /// The path of this point at a Cymmetri receiver, without a slash; `None`: the point's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether its hooks are asked one after another although the kind would ask them at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serial: bool,
    /// Whether any 2xx is an allow, whatever its body (the documented answer is "NA").
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub acknowledges: bool,
    /// The event type to subscribe a webhook to instead, on points of kind event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// A JSON Schema the object must still fit after a receiver changed it; its secret members are
    /// not there when it is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// An invocation to try with.
    #[serde(default)]
    pub sample: Value,
    /// Whether it is part of Gatepost.
    #[serde(skip)]
    pub builtin: bool,
}

/// Total budget of a point that does not say, in milliseconds (SETTLED, Blocking hooks).
pub const MAX_TOTAL_MS_DEFAULT: u32 = 3_000;
/// What `max_total_ms` may be.
pub const MAX_TOTAL_MS: std::ops::RangeInclusive<u32> = 10..=30_000;

fn default_max_total_ms() -> u32 {
    MAX_TOTAL_MS_DEFAULT
}

fn default_secret_pointers() -> Vec<Pointer> {
    CATALOGUE.secret_pointers.clone()
}

fn default_object_members() -> Vec<String> {
    vec!["user".to_owned()]
}

impl PointDef {
    /// A tenant's own point of `kind`, with every default.
    pub fn new(name: impl Into<String>, kind: PointKind) -> Self {
        PointDef {
            name: name.into(),
            kind,
            description: String::new(),
            on_failure: None,
            max_total_ms: MAX_TOTAL_MS_DEFAULT,
            secret_pointers: default_secret_pointers(),
            object_members: default_object_members(),
            path: None,
            serial: false,
            acknowledges: false,
            event: None,
            schema: None,
            sample: Value::Object(serde_json::Map::new()),
            builtin: false,
        }
    }

    /// Everything wrong with a tenant's own point.
    pub fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut bad = |pointer: &str, message: String| errors.push(FieldError { pointer: pointer.into(), message });
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=64).contains(&self.name.len())
            || !self.name.bytes().all(plain)
            || !self.name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        {
            bad("/name", "must be 1 to 64 characters of A-Z a-z 0-9 _ - and begin with a letter".into());
        } else if builtin(&self.name).is_some() || operation(&self.name).is_some() {
            bad("/name", "is the name of a built-in point or operation; choose another".into());
        }
        if !MAX_TOTAL_MS.contains(&self.max_total_ms) {
            let (from, to) = (MAX_TOTAL_MS.start(), MAX_TOTAL_MS.end());
            bad("/max_total_ms", format!("must be {from} to {to}"));
        }
        if let Some(message) = self.on_failure.as_ref().and_then(|policy| policy.misfit(self.kind)) {
            bad("/on_failure", message.into());
        }
        if self.path.as_ref().is_some_and(|path| path.is_empty() || path.contains(['?', '#', ' '])) {
            bad("/path", "must be a path without query, fragment or spaces".into());
        }
        if let Some(Err(message)) = self.schema.as_ref().map(|schema| Schema::check(&schema.to_string())) {
            bad("/schema", message);
        }
        for (i, name) in self.object_members.iter().enumerate().filter(|(_, name)| name.is_empty()) {
            bad(&format!("/object_members/{i}"), format!("must be a member's name, not {name:?}"));
        }
        for (i, pointer) in self.secret_pointers.iter().enumerate() {
            if *pointer == Pointer::root() {
                bad(&format!("/secret_pointers/{i}"), "must name a member, not the whole object".into());
            }
        }
        errors
    }

    /// What a failure means here when a hook does not say.
    pub fn policy(&self) -> Policy {
        self.on_failure.clone().unwrap_or_else(|| self.kind.default_policy())
    }

    /// What a hook here may change when it does not say (SETTLED, Blocking hooks).
    pub fn default_may_change(&self) -> MayChange {
        if self.kind == PointKind::Mutate { MayChange::user_without_powers() } else { MayChange::nothing() }
    }

    /// The path of this point at a Cymmetri receiver, with its slash.
    pub fn receiver_path(&self) -> String {
        format!("/{}", self.path.as_deref().unwrap_or(&self.name).trim_start_matches('/'))
    }

    /// The longest an invocation may take.
    pub fn max_total(&self) -> Duration {
        Duration::from_millis(u64::from(self.max_total_ms))
    }

    /// Whether hooks may be registered here; else why not.
    ///
    /// # Errors
    /// Tells what to do instead.
    pub fn takes_hooks(&self) -> Result<(), String> {
        if self.kind != PointKind::Event {
            return Ok(());
        }
        Err(match &self.event {
            Some(event) => format!("is an event, told after the fact: subscribe a webhook to {event:?} instead"),
            None => "is an event, told after the fact: subscribe a webhook instead".to_owned(),
        })
    }

    /// Whether an answer decides anything here beyond having come.
    pub fn reads_answers(&self) -> bool {
        !matches!(self.kind, PointKind::NotifySecret | PointKind::Probe | PointKind::Event)
    }
}

/// How a tenant or operator has set a point (`PUT …/points/{point}`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PointSettings {
    /// The point's kill switch.
    pub enabled: bool,
    /// Overrides [`PointDef::max_total_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_total_ms: Option<u32>,
    /// When the record of an invocation is on disk.
    pub audit: Audit,
    /// Of which invocations question and final object are kept, without their secret members.
    pub capture: Capture,
    /// Members that are never stored, relative to `object`, `old_object` and `context`, beside the secret ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<Pointer>,
}

impl Default for PointSettings {
    fn default() -> Self {
        PointSettings {
            enabled: true,
            max_total_ms: None,
            audit: Audit::Relaxed,
            capture: Capture::Failures,
            redact: Vec::new(),
        }
    }
}

/// When the record of an invocation is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audit {
    /// Within a tenth of a second after the answer; a crash loses at most that.
    #[default]
    Relaxed,
    /// Before the answer, which waits for the disk.
    Strict,
}

impl Audit {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Audit::Relaxed => "relaxed",
            Audit::Strict => "strict",
        }
    }
}

/// Of which invocations question and final object are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// None.
    Off,
    /// Those in which a hook failed.
    #[default]
    Failures,
    /// Those, and one in a hundred of the others.
    Sampled,
    /// All.
    All,
}

impl Capture {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Capture::Off => "off",
            Capture::Failures => "failures",
            Capture::Sampled => "sampled",
            Capture::All => "all",
        }
    }
}

impl PointSettings {
    /// Everything wrong with it.
    pub fn validate(&self) -> Vec<FieldError> {
        let wrong = self.max_total_ms.is_some_and(|ms| !MAX_TOTAL_MS.contains(&ms));
        let (from, to) = (MAX_TOTAL_MS.start(), MAX_TOTAL_MS.end());
        let error = FieldError { pointer: "/max_total_ms".into(), message: format!("must be {from} to {to}") };
        if wrong { vec![error] } else { Vec::new() }
    }
}

/// A few points asked in one round trip.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Its points, in order; the first that refuses ends it.
    pub phases: Vec<String>,
    /// The event its commit raises.
    pub post_event: String,
}

impl Operation {
    /// Whether it asks for the values of many attributes.
    pub fn takes_attributes(&self) -> bool {
        self.phases.iter().any(|name| builtin(name).is_some_and(|point| point.kind == PointKind::Value))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    max_total_ms: u32,
    secret_pointers: Vec<Pointer>,
    points: Vec<Value>,
    operations: Vec<Operation>,
}

/// Read before the points, whose defaults it gives.
static CATALOGUE: LazyLock<Head> = LazyLock::new(|| {
    let head: Head = serde_json::from_str(include_str!("../../hooks/points.json"))
        .expect("the catalogue is part of the program, and a test reads it");
    assert_eq!(head.max_total_ms, MAX_TOTAL_MS_DEFAULT, "one default, in the catalogue and in the code");
    head
});

struct Points {
    all: Vec<Arc<PointDef>>,
    by_name: HashMap<String, usize>,
}

static POINTS: LazyLock<Points> = LazyLock::new(|| {
    let read = |value: &Value| {
        let point: PointDef =
            serde_json::from_value(value.clone()).expect("the catalogue is part of the program, and a test reads it");
        Arc::new(PointDef { builtin: true, ..point })
    };
    let all: Vec<_> = CATALOGUE.points.iter().map(read).collect();
    let by_name = all.iter().enumerate().map(|(i, point)| (point.name.clone(), i)).collect();
    Points { all, by_name }
});

/// Every built-in point.
pub fn builtins() -> &'static [Arc<PointDef>] {
    &POINTS.all
}

/// The built-in point with this name.
pub fn builtin(name: &str) -> Option<&'static Arc<PointDef>> {
    POINTS.by_name.get(name).map(|i| &POINTS.all[*i])
}

/// Every operation.
pub fn operations() -> &'static [Operation] {
    &CATALOGUE.operations
}

/// The operation with this name.
pub fn operation(name: &str) -> Option<&'static Operation> {
    CATALOGUE.operations.iter().find(|operation| operation.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_catalogue_is_as_specified() {
        let rows: Vec<_> = builtins().iter().map(|p| (p.name.as_str(), p.kind.as_str(), json!(p.policy()))).collect();
        assert_eq!(
            rows,
            [
                ("preCreateUser", "mutate", json!("continue")),
                ("preUpdateUser", "mutate", json!("continue")),
                ("validateUser", "validate", json!("deny")),
                ("validateUpdateUser", "validate", json!("deny")),
                ("policyMap", "value", json!("ask_default")),
                ("runDeprovision", "gate", json!({"value": false})),
                ("preProvision", "validate", json!("continue")),
                ("changePassword", "notify_secret", json!("continue")),
                ("test", "probe", json!("deny")),
                ("postCreateUser", "event", json!("continue")),
                ("postUpdateUser", "event", json!("continue")),
                ("postProvision", "event", json!("continue")),
            ]
        );
        for point in builtins() {
            assert_eq!(point.max_total_ms, 3_000);
            assert_eq!(point.receiver_path(), format!("/{}", point.name));
            assert!(point.secret_pointers.contains(&"/user/securityQuestion".parse().unwrap()));
            assert!(point.secret_pointers.contains(&"/passwordText".parse().unwrap()));
            assert_eq!(point.takes_hooks().is_err(), point.name.starts_with("post"), "{}", point.name);
        }
        for operation in operations() {
            assert!(operation.phases.iter().all(|name| builtin(name).is_some()));
            assert_eq!(operation.takes_attributes(), operation.name == "provision");
        }
    }

    #[test]
    fn tenants_define_points_of_each_kind() {
        for kind in PointKind::ALL {
            let point = PointDef::new("beforeBadge", kind);
            assert_eq!(point.validate(), []);
            assert_eq!(point.default_may_change().is_nothing(), kind != PointKind::Mutate);
        }
        let mut wrong = PointDef::new("preCreateUser", PointKind::Gate);
        wrong.max_total_ms = 40_000;
        wrong.on_failure = Some(Policy::Value(json!("yes")));
        wrong.secret_pointers = vec![Pointer::root()];
        let pointers: Vec<_> = wrong.validate().into_iter().map(|e| e.pointer).collect();
        assert_eq!(pointers, ["/name", "/max_total_ms", "/on_failure", "/secret_pointers/0"]);
        for name in ["", "1x", "a b", "createUser", &"x".repeat(65)] {
            assert_eq!(PointDef::new(name, PointKind::Gate).validate().len(), 1, "{name}");
        }
        let settings = PointSettings { enabled: false, max_total_ms: Some(5), ..PointSettings::default() };
        assert_eq!(settings.validate().len(), 1);
    }
}
