//! Conditions: when a hook is asked at all. A small typed matcher, compiled at registration; it
//! cannot loop and costs microseconds.
//!
//! ```json
//! {"all": [{"pointer": "/user/country", "eq": "India"}, {"not": {"pointer": "/user/email", "exists": true}}]}
//! ```
//!
//! A pointer whose first name is `subject`, `actor`, `object`, `old_object` or `context` reads that
//! part of the invocation; any other is relative to `object`. Secret members are never seen. A clear
//! false skips the hook; what cannot be judged (a prefix of something that is no text) is a failure
//! of class `condition_error`, and the hook is not called. What no value type holds (half of a surrogate
//! pair, a number out of range) is absent, in a list null; whether it `changed` is told by how it is written.

use std::borrow::Cow;

use serde_json::Value as Setting;

use super::FieldError;
use super::json::{Pointer, Value, same};

/// How deep a condition may be nested.
const DEPTH_MAX: usize = 8;
/// How many tests and groups it may have.
const NODES_MAX: usize = 64;
/// How many values `in` may list.
const LIST_MAX: usize = 1_000;

/// What a condition is judged on.
#[derive(Clone, Copy, Debug)]
pub struct ConditionFacts<'a> {
    /// `subject`, as JSON.
    pub subject: &'a Value,
    /// `actor`.
    pub actor: &'a Value,
    /// The object as it stands.
    pub object: &'a Value,
    /// The object before the platform's change; null when the platform gave none.
    pub old_object: &'a Value,
    /// `context`.
    pub context: &'a Value,
}

/// What cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer} is no text, so it has no prefix")]
pub struct ConditionError {
    /// Where.
    pub pointer: Pointer,
}

/// A compiled condition.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition(Node);

#[derive(Clone, PartialEq, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Pointer, Test),
}

#[derive(Clone, PartialEq, Debug)]
enum Test {
    Eq(Value),
    In(Vec<Value>),
    Prefix(String),
    Exists(bool),
    Changed(bool),
}

impl Condition {
    /// Compiles a condition. A list is an `all`.
    ///
    /// # Errors
    /// Everything wrong, with pointers relative to the condition.
    pub fn compile(source: &Setting) -> Result<Self, Vec<FieldError>> {
        let mut compiler = Compiler { errors: Vec::new(), nodes: 0 };
        let node = match source {
            Setting::Array(items) => compiler.group(items, "", 1).map(Node::All),
            other => compiler.node(other, "", 0),
        };
        match node {
            Some(node) if compiler.errors.is_empty() => Ok(Condition(node)),
            _ => Err(compiler.errors),
        }
    }

    /// Whether the hook is to be asked.
    ///
    /// # Errors
    /// When it cannot be judged.
    pub fn holds(&self, facts: &ConditionFacts<'_>) -> Result<bool, ConditionError> {
        self.0.holds(facts)
    }
}

struct Compiler {
    errors: Vec<FieldError>,
    nodes: usize,
}

impl Compiler {
    fn bad(&mut self, pointer: impl Into<String>, message: impl Into<String>) -> Option<Node> {
        self.errors.push(FieldError { pointer: pointer.into(), message: message.into() });
        None
    }

    fn group(&mut self, items: &[Setting], at: &str, depth: usize) -> Option<Vec<Node>> {
        if items.is_empty() {
            self.bad(at, "must not be empty");
            return None;
        }
        // Every item is compiled, so that every error is told; one bad item spoils the group.
        let nodes: Vec<_> =
            items.iter().enumerate().map(|(i, item)| self.node(item, &format!("{at}/{i}"), depth)).collect();
        nodes.into_iter().collect()
    }

    fn node(&mut self, source: &Setting, at: &str, depth: usize) -> Option<Node> {
        self.nodes += 1;
        if self.nodes == NODES_MAX + 1 {
            self.bad(at, format!("is too much: at most {NODES_MAX} tests and groups"));
        }
        if self.nodes > NODES_MAX {
            return None;
        }
        if depth > DEPTH_MAX {
            return self.bad(at, format!("is nested too deep: at most {DEPTH_MAX} levels"));
        }
        let Setting::Object(members) = source else { return self.bad(at, "must be an object") };
        let only = if members.len() == 1 { members.iter().next() } else { None };
        match only {
            Some((name, Setting::Array(items))) if name == "all" || name == "any" => {
                let nodes = self.group(items, &format!("{at}/{name}"), depth + 1)?;
                Some(if name == "all" { Node::All(nodes) } else { Node::Any(nodes) })
            }
            Some((name, inner)) if name == "not" => {
                Some(Node::Not(Box::new(self.node(inner, &format!("{at}/not"), depth + 1)?)))
            }
            _ => self.test(members, at),
        }
    }

    fn test(&mut self, members: &serde_json::Map<String, Setting>, at: &str) -> Option<Node> {
        const USAGE: &str = "must be {\"all\": […]}, {\"any\": […]}, {\"not\": {…}}, or a pointer with one of eq, in, prefix, exists, changed";
        let pointer = match members.get("pointer").map(|value| value.as_str().map(str::parse::<Pointer>)) {
            None => return self.bad(at, USAGE),
            Some(Some(Ok(pointer))) => pointer,
            Some(_) => return self.bad(format!("{at}/pointer"), "must be a JSON pointer, such as /user/country"),
        };
        let mut tests = members.iter().filter(|(name, _)| *name != "pointer");
        let (Some((name, value)), None) = (tests.next(), tests.next()) else { return self.bad(at, USAGE) };
        let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        let test = match (name.as_str(), value) {
            ("eq", value) => Test::Eq(value.clone().into()),
            ("in", Setting::Array(values)) if (1..=LIST_MAX).contains(&values.len()) => {
                Test::In(values.iter().cloned().map(Value::from).collect())
            }
            ("in", _) => return self.bad(place, format!("must be a list of 1 to {LIST_MAX} values")),
            ("prefix", Setting::String(prefix)) => Test::Prefix(prefix.clone()),
            ("prefix", _) => return self.bad(place, "must be a text"),
            ("exists", Setting::Bool(wanted)) => Test::Exists(*wanted),
            ("changed", Setting::Bool(wanted)) => Test::Changed(*wanted),
            ("exists" | "changed", _) => return self.bad(place, "must be true or false"),
            _ => return self.bad(place, "is no test: use eq, in, prefix, exists or changed"),
        };
        Some(Node::Test(pointer, test))
    }
}

impl Node {
    fn holds(&self, facts: &ConditionFacts<'_>) -> Result<bool, ConditionError> {
        match self {
            // A clear answer stands whatever else could not be judged.
            Node::All(nodes) => joined(nodes, facts, false),
            Node::Any(nodes) => joined(nodes, facts, true),
            Node::Not(node) => node.holds(facts).map(|holds| !holds),
            Node::Test(pointer, test) => test.holds(pointer, facts),
        }
    }
}

fn joined(nodes: &[Node], facts: &ConditionFacts<'_>, decisive: bool) -> Result<bool, ConditionError> {
    let mut unclear = None;
    for node in nodes {
        match node.holds(facts) {
            Ok(holds) if holds == decisive => return Ok(decisive),
            Ok(_) => {}
            Err(e) => unclear = unclear.or(Some(e)),
        }
    }
    unclear.map_or(Ok(!decisive), Err)
}

impl Test {
    fn holds(&self, pointer: &Pointer, facts: &ConditionFacts<'_>) -> Result<bool, ConditionError> {
        let (document, inner) = part(pointer, facts);
        let found = seen(document, &inner);
        Ok(match self {
            Test::Eq(value) => found.is_some_and(|found| alike(&found, value)),
            Test::In(values) => found.is_some_and(|found| values.iter().any(|value| alike(&found, value))),
            Test::Prefix(prefix) => match found.as_deref() {
                None | Some(Value::Null) => false,
                Some(Value::String(text)) => text.starts_with(prefix.as_str()),
                Some(_) => return Err(ConditionError { pointer: pointer.clone() }),
            },
            Test::Exists(wanted) => found.is_some() == *wanted,
            Test::Changed(wanted) => {
                let changed = match (inner.get(facts.old_object), inner.get(facts.object)) {
                    (None, None) => false,
                    (Some(old), Some(new)) => !same(old, new),
                    _ => true,
                };
                changed == *wanted
            }
        })
    }
}

/// What is at a place, as far as values hold it.
fn seen<'a>(document: &'a Value, at: &Pointer) -> Option<Cow<'a, Value>> {
    let found = at.get(document)?;
    if !found.holds_odd() {
        return Some(Cow::Borrowed(found));
    }
    let in_list = || at.split().is_some_and(|(_, list)| matches!(list.get(document), Some(Value::Array(_))));
    (!found.is_odd() || in_list()).then(|| Cow::Owned(found.readable().into()))
}

/// Whether what is there is what a setting asks for. Settings hold numbers as doubles where they are not
/// whole ones of 64 bits, so that is how those that are no such ones either are compared.
fn alike(found: &Value, asked: &Value) -> bool {
    match (found, asked) {
        (_, Value::Number(asked)) if asked.is_f64() && !found.is_whole() => {
            found.as_f64().is_some_and(|found| Some(found) == asked.as_f64())
        }
        (Value::Array(found), Value::Array(asked)) => {
            found.len() == asked.len() && found.iter().zip(asked).all(|(found, asked)| alike(found, asked))
        }
        (Value::Object(found), Value::Object(asked)) => {
            found.len() == asked.len()
                && found.iter().all(|(name, found)| asked.get(name).is_some_and(|asked| alike(found, asked)))
        }
        _ => same(found, asked),
    }
}

fn part<'a>(pointer: &Pointer, facts: &ConditionFacts<'a>) -> (&'a Value, Pointer) {
    let document = match pointer.segments().next() {
        Some("subject") => facts.subject,
        Some("actor") => facts.actor,
        Some("object") => facts.object,
        Some("old_object") => facts.old_object,
        Some("context") => facts.context,
        _ => return (facts.object, pointer.clone()),
    };
    (document, pointer.segments().skip(1).fold(Pointer::root(), |at, name| at.child(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::json::json;
    use proptest::prelude::*;

    fn judge(condition: Value) -> Result<bool, ConditionError> {
        let facts = ConditionFacts {
            subject: &json!({"type":"user","id":"u1"}),
            actor: &json!({"type":"admin"}),
            object: &json!({"user":{"country":"India","age":40,"email":"a@x.org","tags":["a"]}}),
            old_object: &json!({"user":{"country":"Nepal","age":40.0}}),
            context: &json!({"action":"Application Create"}),
        };
        Condition::compile(&condition.readable()).unwrap().holds(&facts)
    }

    #[test]
    fn each_test() {
        let rows = [
            (json!({"pointer":"/user/country","eq":"India"}), true),
            (json!({"pointer":"/object/user/country","eq":"India"}), true),
            (json!({"pointer":"/user/age","eq":40.0}), true),
            (json!({"pointer":"/user/city","eq":null}), false),
            (json!({"pointer":"/user/country","in":["Nepal","India"]}), true),
            (json!({"pointer":"/context/action","prefix":"Application"}), true),
            (json!({"pointer":"/user/city","prefix":"D"}), false),
            (json!({"pointer":"/user/tags/0","eq":"a"}), true),
            (json!({"pointer":"/actor/type","exists":true}), true),
            (json!({"pointer":"/user/city","exists":false}), true),
            (json!({"pointer":"/user/country","changed":true}), true),
            (json!({"pointer":"/user/age","changed":true}), false),
            (json!({"pointer":"/user/email","changed":true}), true),
            (json!({"pointer":"/object/user/age","changed":false}), true),
            (json!({"not":{"pointer":"/subject/id","eq":"u1"}}), false),
            (json!([{"pointer":"/subject/id","eq":"u1"},{"pointer":"/user/age","eq":41}]), false),
            (json!({"any":[{"pointer":"/subject/id","eq":"u2"},{"all":[{"pointer":"/user/age","eq":40}]}]}), true),
        ];
        for (condition, holds) in rows {
            assert_eq!(judge(condition.clone()), Ok(holds), "{condition}");
        }
    }

    #[test]
    fn p6_what_no_value_holds_is_absent_and_spoils_nothing() {
        let read = |text: &str| crate::hooks::json::parse_strict(text.as_bytes()).unwrap();
        let object = read(
            r#"{"odd":"\ud83d","out":1e400,"list":["a","\ud83d"],"in":{"odd":1e400,"b":1},"long":12345678901234567890123,
                "near":9007199254740993,"plain":1.00,"\ud83d":1}"#,
        );
        let old = read(r#"{"odd":"\uD83D","out":1e401,"long":12345678901234567890124}"#);
        let facts = ConditionFacts {
            subject: &Value::Null,
            actor: &Value::Null,
            object: &object,
            old_object: &old,
            context: &Value::Null,
        };
        for (condition, holds) in [
            (json!({"pointer":"/odd","exists":true}), false),
            (json!({"pointer":"/odd","eq":"x"}), false),
            (json!({"pointer":"/odd","prefix":"x"}), false),
            (json!({"pointer":"/out","exists":false}), true),
            (json!({"pointer":"/list","eq":["a",null]}), true),
            (json!({"pointer":"/list/1","eq":null}), true),
            (json!({"pointer":"/in","eq":{"b":1}}), true),
            (json!({"pointer":"/plain","eq":1}), true),
            (json!({"pointer":"/long","eq":12_345_678_901_234_567_890_123.0}), true),
            (json!({"pointer":"/near","eq":9_007_199_254_740_992.0}), false),
            (json!({"pointer":"/odd","changed":true}), false),
            (json!({"pointer":"/out","changed":true}), true),
            (json!({"pointer":"/long","changed":true}), true),
        ] {
            assert_eq!(Condition::compile(&condition.readable()).unwrap().holds(&facts), Ok(holds), "{condition}");
        }
    }

    #[test]
    fn what_cannot_be_judged_is_an_error_unless_something_else_is_clear() {
        let unclear = json!({"pointer":"/user/age","prefix":"4"});
        assert!(judge(unclear.clone()).is_err());
        assert!(judge(json!({"not":unclear})).is_err());
        assert!(judge(json!([unclear, {"pointer":"/user/age","eq":40}])).is_err());
        assert_eq!(judge(json!([unclear, {"pointer":"/user/age","eq":41}])), Ok(false));
        assert_eq!(judge(json!({"any":[unclear, {"pointer":"/user/age","eq":40}]})), Ok(true));
    }

    #[test]
    fn everything_wrong_is_told() {
        let wrong = json!({"all":[
            {"pointer":"user","eq":1}, {"pointer":"/a","matches":"x"}, {"pointer":"/a","in":[]}, {"any":[]},
            {"pointer":"/a","exists":"yes"}, {"pointer":"/a"}, 7, {"not":{"pointer":"/a","prefix":1}},
        ]});
        let pointers: Vec<_> =
            Condition::compile(&wrong.readable()).unwrap_err().into_iter().map(|e| e.pointer).collect();
        assert_eq!(
            pointers,
            [
                "/all/0/pointer",
                "/all/1/matches",
                "/all/2/in",
                "/all/3/any",
                "/all/4/exists",
                "/all/5",
                "/all/6",
                "/all/7/not/prefix"
            ]
        );
        let deep = (0..20).fold(json!({"pointer":"/a","exists":true}), |inner, _| json!({"not":inner}));
        assert_eq!(Condition::compile(&deep.readable()).unwrap_err().len(), 1);
        let many: Vec<_> = (0..200).map(|_| json!({"pointer":"/a","exists":true})).collect();
        assert_eq!(Condition::compile(&json!({"all":many}).readable()).unwrap_err().len(), 1);
    }

    proptest! {
        #[test]
        fn any_json_compiles_or_is_refused(text in "[\\[\\]{}:,a-z\"0-9/]{0,40}") {
            if let Ok(value) = serde_json::from_str::<Setting>(&text) {
                let _ = Condition::compile(&value);
            }
        }
    }
}
