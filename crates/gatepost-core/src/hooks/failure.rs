//! What can go wrong with a hook, and what is then applied.
//!
//! One enum names every class: in the decision, as a metric's label and in the record. A receiver
//! that says no is not in it: a refusal is an answer.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::decision::Cause;
use super::points::PointKind;

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $text:literal;)*) => {
        /// A class of failure.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FailureClass {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl FailureClass {
            /// Every class, in the order they can happen.
            pub const ALL: &'static [FailureClass] = &[$(FailureClass::$name),*];

            /// Its name in decision, metric and record.
            pub fn as_str(self) -> &'static str {
                match self { $(FailureClass::$name => $word),* }
            }

            /// What happened, for people.
            pub fn text(self) -> &'static str {
                match self { $(FailureClass::$name => $text),* }
            }
        }
    };
}

classes! {
    /// The condition could not be judged; the hook was not called.
    ConditionError = "condition_error", "the hook's condition could not be evaluated, so it was not asked";
    /// The breaker is open; the hook was not called.
    CircuitOpen = "circuit_open", "the receiver has been failing, so it was not asked";
    /// No time, or no slot; the hook was not called.
    Budget = "budget", "there was no time or no free slot left to ask the receiver";
    /// The name could not be resolved.
    Dns = "dns", "the receiver's name could not be resolved";
    /// The address is outside the egress policy.
    BlockedAddress = "blocked_address", "the receiver's address is not one we may connect to";
    /// No connection.
    Connect = "connect", "no connection to the receiver could be made";
    /// No TLS session.
    Tls = "tls", "no TLS session with the receiver could be made";
    /// No whole answer in time.
    Timeout = "timeout", "the receiver did not answer in time";
    /// The connection broke before the answer was there.
    Reset = "reset", "the receiver closed the connection without an answer";
    /// 3xx: redirects are never followed.
    Redirect = "redirect", "the receiver answered with a redirect, which is never followed";
    /// 429.
    Status429 = "status_429", "the receiver answered that it is asked too often";
    /// Another 4xx.
    Status4xx = "status_4xx", "the receiver answered with a client error status";
    /// 5xx, or no status of HTTP.
    Status5xx = "status_5xx", "the receiver answered with a server error status";
    /// A status line came, and the rest makes no answer.
    BadAnswer = "bad_answer", "the receiver's answer is not one of HTTP beyond its status line";
    /// More than 256 KiB.
    TooLarge = "too_large", "the receiver's answer is too large";
    /// An encoding nobody asked for.
    ContentType = "content_type", "the receiver's answer is encoded in a way that was not asked for";
    /// Not signed as it must be.
    BadSignature = "bad_signature", "the receiver's answer is not signed as it must be";
    /// Not JSON.
    BadJson = "bad_json", "the receiver's answer is not JSON";
    /// JSON, but no answer to this question.
    BadShape = "bad_shape", "the receiver's answer is not an answer to this question";
    /// The answer to another question.
    IdMismatch = "id_mismatch", "the receiver's answer does not carry this invocation's id";
    /// A change where none is allowed.
    NotAllowedChange = "not_allowed_change", "the receiver's answer changes what it may not change";
    /// The changed object breaks its schema.
    Schema = "schema", "the object as the receiver changed it does not fit its schema";
}

impl FailureClass {
    /// What a decision that rests on this failure names as its cause (SETTLED, Blocking hooks).
    pub fn cause(self) -> Cause {
        use FailureClass::*;
        match self {
            BadJson | BadShape | TooLarge | ContentType | BadSignature | IdMismatch | Schema | NotAllowedChange => {
                Cause::InvalidAnswer
            }
            CircuitOpen => Cause::CircuitOpen,
            Budget => Cause::BudgetExhausted,
            _ => Cause::PolicyOnFailure,
        }
    }

    /// Whether it says something about the receiver, and so counts for its breaker.
    pub fn counts_for_breaker(self) -> bool {
        use FailureClass::*;
        !matches!(self, ConditionError | CircuitOpen | Budget | BlockedAddress)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: its class, and what is known beyond it. The detail never repeats an answer's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Its class.
    pub class: FailureClass,
    /// More, such as the pointer of a forbidden change.
    pub detail: Option<String>,
}

impl Failure {
    /// With a detail.
    pub fn new(class: FailureClass, detail: impl Into<String>) -> Self {
        Failure { class, detail: Some(detail.into()) }
    }
}

impl From<FailureClass> for Failure {
    fn from(class: FailureClass) -> Self {
        Failure { class, detail: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class.text())?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

/// What is applied when a hook fails.
#[derive(Clone, PartialEq, Debug)]
pub enum Policy {
    /// The invocation is refused.
    Deny,
    /// As if the hook were not there.
    Continue,
    /// What the caller gave as `default` stands: `mappedValue` (or `value`) of a value point, `value`
    /// of a gate, `decision` elsewhere.
    AskDefault,
    /// The hook is taken to have answered this value (value and gate points).
    Value(Value),
}

impl Policy {
    /// The word used in `degraded[].applied`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Policy::Deny => "deny",
            Policy::Continue => "continue",
            Policy::AskDefault => "ask_default",
            Policy::Value(_) => "value",
        }
    }

    /// Why it makes no sense on a point of `kind`; `None` when it does.
    pub fn misfit(&self, kind: PointKind) -> Option<&'static str> {
        match (self, kind) {
            (Policy::Value(Value::Bool(_)), PointKind::Gate) => None,
            (Policy::Value(_), PointKind::Gate) => Some("the value of a gate must be true or false"),
            (Policy::Value(Value::Object(_) | Value::Array(_)), PointKind::Value) => {
                Some("the value must be a text, a number, true, false or null")
            }
            (Policy::Value(_), PointKind::Value) => None,
            (Policy::Value(_), _) => Some("a value can only stand on points of kind value or gate"),
            _ => None,
        }
    }

    fn read(value: &Value) -> Result<Self, &'static str> {
        match value {
            Value::String(word) => match word.as_str() {
                "deny" => Ok(Policy::Deny),
                "continue" => Ok(Policy::Continue),
                "ask_default" => Ok(Policy::AskDefault),
                _ => Err("must be \"deny\", \"continue\", \"ask_default\" or {\"value\": …}"),
            },
            Value::Object(members) if members.len() == 1 => members
                .get("value")
                .map(|value| Policy::Value(value.clone()))
                .ok_or("must be \"deny\", \"continue\", \"ask_default\" or {\"value\": …}"),
            _ => Err("must be \"deny\", \"continue\", \"ask_default\" or {\"value\": …}"),
        }
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Policy::Value(value) => BTreeMap::from([("value", value)]).serialize(s),
            word => s.serialize_str(word.as_str()),
        }
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Policy::read(&Value::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A hook's `on_failure`: one policy, or one per class.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct OnFailure {
    /// For every class that is not named; `None` leaves it to the point.
    pub default: Option<Policy>,
    /// For single classes.
    pub by_class: BTreeMap<FailureClass, Policy>,
}

impl OnFailure {
    /// The same for every class.
    pub fn always(policy: Policy) -> Self {
        OnFailure { default: Some(policy), by_class: BTreeMap::new() }
    }

    /// What this says about a class; `None` leaves it to the point.
    pub fn policy(&self, class: FailureClass) -> Option<&Policy> {
        self.by_class.get(&class).or(self.default.as_ref())
    }

    /// Reads it from JSON.
    ///
    /// # Errors
    /// Every wrong place, relative to the member.
    pub fn read(value: &Value) -> Result<Self, Vec<(String, String)>> {
        let members = match value {
            Value::Object(members) if !(members.len() == 1 && members.contains_key("value")) => members,
            simple => {
                return Policy::read(simple).map(OnFailure::always).map_err(|e| vec![(String::new(), e.to_owned())]);
            }
        };
        let (mut out, mut errors) = (OnFailure::default(), Vec::new());
        for (name, value) in members {
            let class = FailureClass::ALL.iter().find(|class| class.as_str() == name);
            match (name.as_str(), class, Policy::read(value)) {
                (_, _, Err(e)) => errors.push((format!("/{name}"), e.to_owned())),
                ("default", _, Ok(policy)) => out.default = Some(policy),
                (_, Some(class), Ok(policy)) => drop(out.by_class.insert(*class, policy)),
                (_, None, Ok(_)) => errors.push((format!("/{name}"), "is no class of failure".to_owned())),
            }
        }
        if errors.is_empty() { Ok(out) } else { Err(errors) }
    }

    /// Everything that makes no sense on a point of `kind`, relative to the member.
    pub fn misfits(&self, kind: PointKind) -> Vec<(String, String)> {
        let named = self.by_class.iter().map(|(class, policy)| (format!("/{class}"), policy));
        let default = self
            .default
            .iter()
            .map(|policy| (if self.by_class.is_empty() { String::new() } else { "/default".to_owned() }, policy));
        default.chain(named).filter_map(|(at, policy)| Some((at, policy.misfit(kind)?.to_owned()))).collect()
    }
}

impl Serialize for OnFailure {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.default {
            Some(policy) if self.by_class.is_empty() => policy.serialize(s),
            default => {
                let named = self.by_class.iter().map(|(class, policy)| (class.as_str(), policy));
                s.collect_map(default.iter().map(|policy| ("default", policy)).chain(named))
            }
        }
    }
}

impl<'de> Deserialize<'de> for OnFailure {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        OnFailure::read(&Value::deserialize(d)?).map_err(|errors| {
            let text: Vec<_> = errors.into_iter().map(|(at, message)| format!("{at} {message}")).collect();
            serde::de::Error::custom(text.join("; "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_class_has_one_name_a_text_and_a_cause() {
        let mut names: Vec<_> = FailureClass::ALL.iter().map(|class| class.as_str()).collect();
        for class in FailureClass::ALL {
            assert_eq!(json!(class), json!(class.as_str()));
            assert!(!class.text().is_empty());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 22);
        for (class, cause) in [
            ("bad_json", "invalid_answer"),
            ("bad_shape", "invalid_answer"),
            ("too_large", "invalid_answer"),
            ("content_type", "invalid_answer"),
            ("bad_signature", "invalid_answer"),
            ("id_mismatch", "invalid_answer"),
            ("schema", "invalid_answer"),
            ("not_allowed_change", "invalid_answer"),
            ("circuit_open", "circuit_open"),
            ("budget", "budget_exhausted"),
            ("timeout", "policy_on_failure"),
            ("status_5xx", "policy_on_failure"),
            ("bad_answer", "policy_on_failure"),
            ("condition_error", "policy_on_failure"),
            ("redirect", "policy_on_failure"),
        ] {
            let class: FailureClass = serde_json::from_value(json!(class)).unwrap();
            assert_eq!(json!(class.cause()), json!(cause));
        }
    }

    #[test]
    fn on_failure_by_class() {
        let map: OnFailure =
            serde_json::from_value(json!({"default":"deny","timeout":"continue","status_4xx":{"value":7}})).unwrap();
        assert_eq!(map.policy(FailureClass::Timeout), Some(&Policy::Continue));
        assert_eq!(map.policy(FailureClass::Status4xx), Some(&Policy::Value(json!(7))));
        assert_eq!(map.policy(FailureClass::Dns), Some(&Policy::Deny));
        assert_eq!(json!(map), json!({"default":"deny","timeout":"continue","status_4xx":{"value":7}}));
        for simple in [json!("deny"), json!("continue"), json!("ask_default"), json!({"value": false})] {
            let read: OnFailure = serde_json::from_value(simple.clone()).unwrap();
            assert_eq!(json!(read), simple);
            assert_eq!(read.policy(FailureClass::Tls), read.default.as_ref());
        }
        let wrong = OnFailure::read(&json!({"default":"maybe","tmeout":"deny","dns":1})).unwrap_err();
        let places: Vec<_> = wrong.iter().map(|(at, _)| at.as_str()).collect();
        assert_eq!(places, ["/default", "/dns", "/tmeout"]);
        assert!(OnFailure::read(&json!("maybe")).is_err());
        let partial = OnFailure::read(&json!({"timeout":"continue"})).unwrap();
        assert_eq!(partial.policy(FailureClass::Dns), None);
    }

    #[test]
    fn policies_fit_their_kind() {
        let value = |v: Value| Policy::Value(v);
        assert!(value(json!(true)).misfit(PointKind::Gate).is_none());
        assert!(value(json!("yes")).misfit(PointKind::Gate).is_some());
        assert!(value(json!("x")).misfit(PointKind::Value).is_none());
        assert!(value(json!({})).misfit(PointKind::Value).is_some());
        assert!(value(json!("x")).misfit(PointKind::Validate).is_some());
        assert!(Policy::Deny.misfit(PointKind::Gate).is_none());
        let map = OnFailure::read(&json!({"default":"deny","timeout":{"value":1}})).unwrap();
        assert_eq!(map.misfits(PointKind::Validate)[0].0, "/timeout");
    }
}
