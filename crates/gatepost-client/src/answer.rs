//! What comes back from a question.

use serde::Deserialize;
use serde_json::Value;

use crate::error::Unanswered;
use crate::question::Question;

/// Whether the platform may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// What stands for a point while Gatepost cannot be asked.
#[derive(Clone, PartialEq, Debug)]
pub enum Fallback {
    /// Go on with the object as it is.
    Allow,
    /// Refuse, with a code for software and a text for people.
    Deny {
        /// For software.
        code: String,
        /// For people.
        text: String,
    },
    /// Go on with this value.
    Value(Value),
    /// Go on with what the question says stands if nobody decides
    /// ([`Question::default_value`]): its `mappedValue` where it is an object that has one.
    Default,
}

impl Fallback {
    /// A refusal.
    pub fn deny(code: impl Into<String>, text: impl Into<String>) -> Self {
        Fallback::Deny { code: code.into(), text: text.into() }
    }

    /// What stands for a point nobody named one for: a sign-up is never stopped by accident, a value is
    /// the question's default, and nobody is deprovisioned by accident either.
    pub(crate) fn of_point(point: &str) -> Self {
        match point {
            "policyMap" => Fallback::Default,
            "runDeprovision" => Fallback::Value(Value::Bool(false)),
            _ => Fallback::Allow,
        }
    }
}

/// Who decided.
#[derive(Clone, PartialEq, Debug)]
pub enum Source {
    /// Gatepost.
    Gatepost,
    /// The local fallback, because of this.
    Fallback(Unanswered),
}

/// One message of a decision.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message {
    /// `error`, `warning` or `info`.
    pub severity: String,
    /// For software.
    pub code: Option<String>,
    /// For people.
    pub text: Option<String>,
    /// Which part of the object, as a JSON pointer.
    pub path: Option<String>,
    /// The hook that says so.
    pub hook: Option<String>,
}

/// A decision: Gatepost's, or the local fallback.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Whether the platform may go on.
    pub verdict: Verdict,
    /// Why, in one of Gatepost's words (`receiver`, `policy_on_failure`, `no_hooks`, …); `fallback` where
    /// Gatepost was not heard.
    pub cause: String,
    /// The invocation, for [`Tenant::outcome`](crate::Tenant::outcome); none from a fallback.
    pub id: Option<String>,
    /// The object as hooks changed it; `None`: nothing was changed.
    pub object: Option<Value>,
    /// The value of a value or gate point.
    pub value: Option<Value>,
    /// The values of operation `provision`, in the order asked.
    pub values: Option<Vec<Value>>,
    /// Every reason given.
    pub messages: Vec<Message>,
    /// Who decided.
    pub source: Source,
    /// Gatepost's whole answer, for what has no member here; `null` from a fallback.
    pub raw: Value,
}

/// The members read from Gatepost's answer.
#[derive(Deserialize)]
struct Wire {
    decision: Verdict,
    #[serde(default)]
    cause: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    object: Option<Value>,
    #[serde(default)]
    value: Option<Value>,
    #[serde(default)]
    values: Option<Vec<Value>>,
    #[serde(default)]
    messages: Vec<Message>,
}

impl Answer {
    /// Whether the platform may go on.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// Whether this is the local fallback.
    pub fn is_fallback(&self) -> bool {
        matches!(self.source, Source::Fallback(_))
    }

    /// The first text for people.
    pub fn first_message(&self) -> Option<&str> {
        self.messages.iter().find_map(|message| message.text.as_deref())
    }

    /// Reads Gatepost's decision; `None` if this is none.
    pub(crate) fn read(body: &[u8]) -> Option<Answer> {
        let raw: Value = serde_json::from_slice(body).ok()?;
        let wire = Wire::deserialize(&raw).ok()?;
        Some(Answer {
            verdict: wire.decision,
            cause: wire.cause,
            id: wire.id,
            object: wire.object,
            value: wire.value,
            values: wire.values,
            messages: wire.messages,
            source: Source::Gatepost,
            raw,
        })
    }

    /// What stands instead.
    pub(crate) fn fallback(fallback: &Fallback, question: &Question, why: Unanswered) -> Answer {
        let mut answer = Answer {
            verdict: Verdict::Allow,
            cause: "fallback".into(),
            id: None,
            object: None,
            value: None,
            values: None,
            messages: Vec::new(),
            source: Source::Fallback(why),
            raw: Value::Null,
        };
        match fallback {
            Fallback::Allow => {}
            Fallback::Deny { code, text } => {
                answer.verdict = Verdict::Deny;
                answer.messages.push(Message {
                    severity: "error".into(),
                    code: Some(code.clone()),
                    text: Some(text.clone()),
                    ..Message::default()
                });
            }
            Fallback::Value(value) => answer.value = Some(value.clone()),
            Fallback::Default => {
                answer.value =
                    question.default_of().map(|default| default.get("mappedValue").unwrap_or(default).clone());
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fallbacks_as_a_table() {
        let question = Question::new().default_value(json!({"mappedValue": "d"}));
        let plain = Question::new().default_value(json!(7));
        let deny = Fallback::deny("C", "t");
        for (fallback, question, verdict, value) in [
            (&Fallback::Allow, &question, Verdict::Allow, None),
            (&deny, &question, Verdict::Deny, None),
            (&Fallback::Value(json!(false)), &question, Verdict::Allow, Some(json!(false))),
            (&Fallback::Default, &question, Verdict::Allow, Some(json!("d"))),
            (&Fallback::Default, &plain, Verdict::Allow, Some(json!(7))),
            (&Fallback::Default, &Question::new(), Verdict::Allow, None),
        ] {
            let answer = Answer::fallback(fallback, question, Unanswered::Late);
            assert_eq!((answer.verdict, &answer.value), (verdict, &value), "{fallback:?}");
            assert!(answer.is_fallback() && answer.id.is_none() && answer.cause == "fallback");
        }
        assert_eq!(Answer::fallback(&deny, &question, Unanswered::Late).first_message(), Some("t"));
    }

    #[test]
    fn nothing_stops_or_deprovisions_anybody_by_accident() {
        for (point, fallback) in [
            ("validateUser", Fallback::Allow),
            ("preCreateUser", Fallback::Allow),
            ("createUser", Fallback::Allow),
            ("policyMap", Fallback::Default),
            ("runDeprovision", Fallback::Value(json!(false))),
            ("anything-else", Fallback::Allow),
        ] {
            assert_eq!(Fallback::of_point(point), fallback, "{point}");
        }
    }

    #[test]
    fn a_decision_is_read() {
        let body = br#"{"id":"inv_1","point":"validateUser","decision":"deny","cause":"receiver",
            "messages":[{"severity":"error","code":"E","text":"no","path":"/user","hook":"hook_1"}],"new_member":1}"#;
        let answer = Answer::read(body).unwrap();
        assert_eq!(
            (answer.verdict, answer.cause.as_str(), answer.id.as_deref()),
            (Verdict::Deny, "receiver", Some("inv_1"))
        );
        assert_eq!((answer.first_message(), &answer.source), (Some("no"), &Source::Gatepost));
        assert_eq!(answer.raw["new_member"], 1);
        for other in ["", "{}", "[]", r#"{"decision":"maybe"}"#, r#"{"title":"Not found","status":404}"#] {
            assert_eq!(Answer::read(other.as_bytes()), None, "{other}");
        }
    }
}
