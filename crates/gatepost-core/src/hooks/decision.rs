//! The answer to an invocation.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::change::PatchOp;
use super::failure::FailureClass;
use super::invocation::{Form, Invocation, value_or_field};
use super::json::{Map, Pointer, Value};
use super::points::{PointDef, PointKind};
use super::secrets::{Lifted, to_wire, wipe};
use crate::HookId;

/// May the platform go on? There is no third state: it must always be able to act.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// What a decision rests on: tells the two kinds of no, and of yes, apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Receivers said so.
    Receiver,
    /// A hook failed, and its policy was applied.
    PolicyOnFailure,
    /// A hook's breaker is open, and its policy was applied.
    CircuitOpen,
    /// Nobody was to be asked.
    NoHooks,
    /// A kill switch.
    HooksDisabled,
    /// An answer could not be read or was refused, and the hook's policy was applied.
    InvalidAnswer,
    /// There was no time or slot left, and the hook's policy was applied.
    BudgetExhausted,
    /// Gatepost itself could not ask; static defaults.
    Gatepost,
}

impl Cause {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Receiver => "receiver",
            Cause::PolicyOnFailure => "policy_on_failure",
            Cause::CircuitOpen => "circuit_open",
            Cause::NoHooks => "no_hooks",
            Cause::HooksDisabled => "hooks_disabled",
            Cause::InvalidAnswer => "invalid_answer",
            Cause::BudgetExhausted => "budget_exhausted",
            Cause::Gatepost => "gatepost",
        }
    }
}

/// How serious a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is why the answer is no.
    Error,
    /// It came with a yes.
    Warning,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// How serious it is.
    pub severity: Severity,
    /// For software: the receiver's own, or `gatepost_<class of failure>`.
    pub code: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Which member it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whose it is.
    pub hook: HookId,
    /// The platform's own code for it (Cymmetri).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_code: Option<String>,
}

/// A failure that a policy answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Degraded {
    /// Whose.
    pub hook: HookId,
    /// What went wrong.
    pub failure: FailureClass,
    /// What was applied: `deny`, `continue`, `ask_default` or `value`.
    pub applied: String,
    /// Of which attribute (`provision`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
}

/// How a call's connection was come by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conn {
    /// Made for it.
    Cold,
    /// One that was kept.
    Reused,
}

/// What came of one hook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookResult {
    /// It changed the object.
    Changed,
    /// It left the object as it was.
    Unchanged,
    /// It allows.
    Allow,
    /// It refuses.
    Deny,
    /// It gave a value.
    Value,
    /// It gave none.
    NoValue,
    /// It says yes.
    Yes,
    /// It says no.
    No,
    /// It was told.
    Acknowledged,
    /// See `failure`.
    Failed,
    /// Its condition did not hold.
    SkippedCondition,
    /// A dry run, and calling it has side effects.
    SkippedSideEffects,
    /// Cut short by another's refusal, or by the caller.
    Cancelled,
    /// Asked beside the decision.
    Observing,
}

/// One hook's part in a decision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HookRow {
    /// Which.
    pub id: HookId,
    /// Its name.
    pub name: String,
    /// The phase it was asked in: its point's kind.
    pub phase: PointKind,
    /// `enforce`, or `observe`.
    pub mode: super::hook::Mode,
    /// What came of it.
    pub result: HookResult,
    /// The status it answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// How the connection was come by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conn: Option<Conn>,
    /// Requests made.
    pub attempts: u32,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureClass>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Of which attribute (`provision`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// What it changed, when the caller asked to have it explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Vec<Pointer>>,
}

/// The answer. Holds no secret, so it may be stored, cached and printed; [`Decision::to_wire`] puts
/// the object's secret members back for the platform they came from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// The invocation's id.
    pub id: String,
    /// The point's or operation's name.
    pub point: String,
    /// Yes or no.
    pub decision: Verdict,
    /// What it rests on.
    pub cause: Cause,
    /// The object as it came out of the chain.
    pub object: Value,
    /// What differs from the object that came in (RFC 6902), secret members apart.
    pub patch: Vec<PatchOp>,
    /// What a value or gate point came to; null elsewhere.
    pub value: Value,
    /// The attributes' values, in order (`provision`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Value>>,
    /// Every denial.
    pub messages: Vec<Message>,
    /// What was said beside a yes.
    pub warnings: Vec<Message>,
    /// Every failure that a policy answered.
    pub degraded: Vec<Degraded>,
    /// Every hook that was looked at, in order.
    pub hooks: Vec<HookRow>,
    /// The whole budget, in milliseconds.
    pub budget_ms: u64,
    /// How long all of it took, in microseconds.
    pub took_us: u64,
    /// How long a question waited for a place to be asked (`max_in_flight`).
    #[serde(default)]
    pub waited_us: u64,
    /// How much of that was ours: neither a receiver nor a place was being waited for.
    pub gatepost_us: u64,
    /// Whether it was a dry run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What the Cymmetri reply is made of.
    #[serde(skip)]
    pub(super) reply: Reply,
}

/// Which Cymmetri reply a decision has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Reply {
    /// `{"response":{}}`.
    #[default]
    Nothing,
    /// `data` is this part of the object.
    Object(Pointer),
    /// `mappedValue`.
    Value,
    /// `data` is true or false.
    Gate,
    /// `mappedValues`, in order.
    Values,
}

impl Reply {
    /// For one point.
    pub(super) fn of_point(point: &PointDef) -> Self {
        match point.kind {
            PointKind::Value => Reply::Value,
            PointKind::Gate => Reply::Gate,
            PointKind::Mutate | PointKind::Validate if !point.acknowledges => {
                Reply::Object(match point.object_members.as_slice() {
                    [only] => Pointer::root().child(only),
                    _ => Pointer::root(),
                })
            }
            _ => Reply::Nothing,
        }
    }
}

impl Decision {
    /// What is answered when Gatepost itself cannot ask: the point's static policy, and what the
    /// question, if it is known, says stands when nobody decides. `allow` only where a failure would
    /// not refuse.
    pub fn without_asking(id: &str, point: &PointDef, question: Option<&Invocation>) -> Self {
        use super::failure::Policy;
        let policy = point.policy();
        let refuses = match &policy {
            Policy::Deny => true,
            Policy::AskDefault => {
                !matches!(point.kind, PointKind::Gate | PointKind::Value)
                    && question.is_some_and(Invocation::default_denies)
            }
            Policy::Continue | Policy::Value(_) => false,
        };
        let value = match (point.kind, &policy) {
            (PointKind::Gate | PointKind::Value, Policy::Value(value)) => value.clone().into(),
            (PointKind::Value, Policy::Deny) => Value::Null,
            (PointKind::Value, _) => question.map_or(Value::Null, |question| {
                let context = question.context.as_object().cloned().unwrap_or_default();
                value_or_field(question.default_value(), &context, &question.object)
            }),
            (PointKind::Gate, Policy::AskDefault) => {
                Value::Bool(question.and_then(Invocation::default_gate).unwrap_or(false))
            }
            (PointKind::Gate, _) => Value::Bool(false),
            _ => Value::Null,
        };
        let values = question.filter(|question| !question.attributes.is_empty()).map(|question| {
            let whole = question.context.as_object().cloned().unwrap_or_default();
            let of_attribute = |attribute: &super::invocation::Attribute| {
                let mut context = whole.clone();
                context.absorb(attribute.context.clone());
                value_or_field(attribute.default.clone(), &context, &question.object)
            };
            question.attributes.iter().map(of_attribute).collect()
        });
        Decision {
            id: id.to_owned(),
            point: point.name.clone(),
            decision: if refuses { Verdict::Deny } else { Verdict::Allow },
            cause: Cause::Gatepost,
            object: Value::Null,
            patch: Vec::new(),
            value,
            values,
            messages: Vec::new(),
            warnings: Vec::new(),
            degraded: Vec::new(),
            hooks: Vec::new(),
            budget_ms: 0,
            took_us: 0,
            waited_us: 0,
            gatepost_us: 0,
            dry_run: false,
            reply: Reply::of_point(point),
        }
    }

    /// The answer in the form asked for.
    pub fn render(&self, form: Form, secrets: &Lifted) -> Bytes {
        match form {
            Form::Native => self.to_wire(secrets),
            Form::Cymmetri => self.to_cymmetri(secrets),
        }
    }

    /// The JSON for the caller, with the object's secret members put back.
    pub fn to_wire(&self, secrets: &Lifted) -> Bytes {
        if secrets.is_empty() {
            return to_wire(self, false);
        }
        let mut whole = self.clone();
        secrets.restore(&mut whole.object);
        let bytes = to_wire(&whole, true);
        wipe(&mut whole.object);
        bytes
    }

    /// The reply a platform written for Cymmetri's document expects.
    pub fn to_cymmetri(&self, secrets: &Lifted) -> Bytes {
        let mut object = self.object.clone();
        secrets.restore(&mut object);
        let mut response = Map::new();
        if self.decision == Verdict::Deny {
            let code = self.messages.first().map_or("UNKNOWN", |message| message.code.as_str());
            response.insert("error".into(), true.into());
            response.insert("message".into(), code.into());
        } else {
            match &self.reply {
                Reply::Nothing => {}
                Reply::Object(at) => drop(at.get(&object).map(|data| response.insert("data".into(), data.clone()))),
                Reply::Value if self.value.is_null() => {}
                Reply::Value => drop(response.insert("mappedValue".into(), self.value.clone())),
                Reply::Gate => drop(response.insert("data".into(), Value::Bool(self.value == Value::Bool(true)))),
                Reply::Values => {
                    drop(response.insert("mappedValues".into(), self.values.iter().flatten().cloned().collect()))
                }
            }
        }
        let mut body = Value::Object(Map::from_iter([("response".to_owned(), Value::Object(response))]));
        let bytes = to_wire(&body, !secrets.is_empty());
        wipe(&mut object);
        wipe(&mut body);
        bytes
    }
}
