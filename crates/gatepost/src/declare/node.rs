//! Values that know where they stand in their file, from TOML and from JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

/// How deep values may nest: what the API takes.
const DEPTH_MAX: usize = 100;

/// A value and the byte of the file it begins at.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub at: usize,
    /// The value.
    pub value: Value,
}

/// A JSON value. Numbers stay the text they are.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`.
    Null,
    /// A Boolean.
    Bool(bool),
    /// A number, as JSON writes it.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// An object, in the order of the file.
    Object(Vec<Member>),
}

/// A member of an object.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where its name begins.
    pub at: usize,
    /// Its value.
    pub node: Node,
}

/// What is wrong with a file, and at which byte of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// Where.
    pub at: usize,
    /// What.
    pub message: String,
}

impl Wrong {
    /// At byte `at`.
    pub fn new(at: usize, message: impl Into<String>) -> Self {
        Wrong { at, message: message.into() }
    }
}

/// Line and column (in characters), from 1, of a byte of a text.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let begin = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let line = 1 + before.iter().filter(|b| **b == b'\n').count();
    // A character is the bytes that do not continue one.
    (line, 1 + before[begin..].iter().filter(|b| (**b & 0xc0) != 0x80).count())
}

impl Node {
    /// A value that stands nowhere.
    pub fn of(value: Value) -> Node {
        Node { at: 0, value }
    }

    /// A text that stands nowhere.
    pub fn text(text: impl Into<String>) -> Node {
        Node::of(Value::Text(text.into()))
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_toml(text: &str) -> Result<Node, Wrong> {
        let table = DeTable::parse(text)
            .map_err(|error| Wrong::new(error.span().map_or(0, |span| span.start), error.message()))?;
        toml_table(table.get_ref(), 0, 0)
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// The first thing that is wrong; a member that is named twice is.
    pub fn from_json(text: &str) -> Result<Node, Wrong> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| {
            let line_start =
                text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
            let told = error.to_string();
            let message = told.rsplit_once(" at line ").map_or(told.as_str(), |(message, _)| message).to_owned();
            Wrong::new(line_start + error.column().saturating_sub(1), message)
        })?;
        json_value(text, raw, 0)
    }

    /// The member `name` of an object.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.members().iter().find(|member| member.name == name).map(|member| &member.node)
    }

    /// The members of an object; of anything else none.
    pub fn members(&self) -> &[Member] {
        match &self.value {
            Value::Object(members) => members,
            _ => &[],
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Takes a member out of an object.
    pub fn take(&mut self, name: &str) -> Option<Member> {
        let Value::Object(members) = &mut self.value else { return None };
        let index = members.iter().position(|member| member.name == name)?;
        Some(members.remove(index))
    }

    /// Sets a member of an object; what is none becomes one.
    pub fn set(&mut self, name: &str, node: Node) {
        if !matches!(self.value, Value::Object(_)) {
            self.value = Value::Object(Vec::new());
        }
        if let Value::Object(members) = &mut self.value {
            match members.iter_mut().find(|member| member.name == name) {
                Some(member) => member.node = node,
                None => members.push(Member { name: name.to_owned(), at: node.at, node }),
            }
        }
    }

    /// What a JSON pointer (RFC 6901) names.
    pub fn at_pointer(&self, pointer: &str) -> Option<&Node> {
        let mut node = self;
        for part in parts(pointer) {
            node = node.child(&part)?;
        }
        Some(node)
    }

    /// Where in the file the value a pointer names stands (its name, where it has one), or else what is
    /// nearest around it.
    pub fn place_of(&self, pointer: &str) -> usize {
        let (mut node, mut at) = (self, self.at);
        for part in parts(pointer) {
            if let Some(member) = node.members().iter().find(|member| member.name == *part) {
                (node, at) = (&member.node, member.at);
            } else if let Some(item) = node.child(&part) {
                (node, at) = (item, item.at);
            } else {
                break;
            }
        }
        at
    }

    fn child(&self, part: &str) -> Option<&Node> {
        match &self.value {
            Value::List(items) => items.get(part.parse::<usize>().ok()?),
            _ => self.get(part),
        }
    }

    /// As JSON text.
    pub fn to_json(&self) -> String {
        // Texts and numbers: cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Equality of values: the order of an object's members does not count, nor how a number is written.
impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => a == b || a.parse::<f64>().ok() == b.parse::<f64>().ok(),
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|member| other.get(&member.name) == Some(&member.node))
            }
            _ => false,
        }
    }
}

impl Serialize for Node {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            // As it was written: a number of any length.
            Value::Number(text) => match RawValue::from_string(text.clone()) {
                Ok(raw) => raw.serialize(serializer),
                Err(_) => serializer.serialize_unit(),
            },
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Object(members) => serializer.collect_map(members.iter().map(|member| (&member.name, &member.node))),
        }
    }
}

/// The parts of a JSON pointer, unescaped.
fn parts(pointer: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pointer.split('/').skip(1).map(|part| match part.contains('~') {
        true => Cow::Owned(part.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(part),
    })
}

fn deep(at: usize, depth: usize) -> Result<(), Wrong> {
    if depth > DEPTH_MAX { Err(Wrong::new(at, "is nested too deep")) } else { Ok(()) }
}

fn toml_table(table: &DeTable<'_>, at: usize, depth: usize) -> Result<Node, Wrong> {
    deep(at, depth)?;
    let mut members = Vec::with_capacity(table.len());
    for (key, value) in table.iter() {
        let node = toml_value(value.get_ref(), value.span().start, depth + 1)?;
        members.push(Member { name: key.get_ref().clone().into_owned(), at: key.span().start, node });
    }
    // The parser sorts them by name; people wrote them in another order.
    members.sort_by_key(|member| member.at);
    Ok(Node { at, value: Value::Object(members) })
}

fn toml_value(value: &DeValue<'_>, at: usize, depth: usize) -> Result<Node, Wrong> {
    deep(at, depth)?;
    let value = match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Integer(number) => {
            let digits: String = number.as_str().chars().filter(|c| *c != '_' && *c != '+').collect();
            let number = i64::from_str_radix(&digits, number.radix());
            Value::Number(number.map_err(|_| Wrong::new(at, "is no whole number of 64 bits"))?.to_string())
        }
        DeValue::Float(number) => {
            let digits: String = number.as_str().chars().filter(|c| *c != '_').collect();
            let number = digits.parse().ok().and_then(serde_json::Number::from_f64);
            Value::Number(number.ok_or_else(|| Wrong::new(at, "is a number JSON does not have"))?.to_string())
        }
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| toml_value(item.get_ref(), item.span().start, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => return toml_table(table, at, depth),
    };
    Ok(Node { at, value })
}

fn json_value(text: &str, raw: &RawValue, depth: usize) -> Result<Node, Wrong> {
    let json = raw.get();
    // A slice of `text`: the parser borrows.
    let at = (json.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    deep(at, depth)?;
    let odd = |error: serde_json::Error| Wrong::new(at, error.to_string());
    let mut reader = serde_json::Deserializer::from_str(json);
    let value = match json.as_bytes().first() {
        Some(b'{') => {
            let mut members: Vec<Member> = Vec::new();
            for (name, raw) in reader.deserialize_map(Pairs).map_err(odd)? {
                let node = json_value(text, raw, depth + 1)?;
                if members.iter().any(|member| member.name == name) {
                    return Err(Wrong::new(node.at, format!("the member {name:?} is named twice")));
                }
                members.push(Member { name: name.into_owned(), at: node.at, node });
            }
            Value::Object(members)
        }
        Some(b'[') => {
            let items = reader.deserialize_seq(Items).map_err(odd)?;
            Value::List(items.into_iter().map(|raw| json_value(text, raw, depth + 1)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Value::Text(serde_json::from_str(json).map_err(odd)?),
        Some(b'n') => Value::Null,
        Some(b't' | b'f') => Value::Bool(json == "true"),
        _ => Value::Number(json.to_owned()),
    };
    Ok(Node { at, value })
}

/// A member's name: borrowed where it has no escape.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            pairs.push((name, map.next_value()?));
        }
        Ok(pairs)
    }
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "\
tenant = \"acme\"

[[webhooks]]
name = \"é orders\"
events = [\"order.*\", \"x\"]
retry = { waits = [0.5, 0x10], jitter = 0 }
enabled = true
[webhooks.headers]
\"x/y\" = { env = \"X\" }
";

    #[test]
    fn toml_and_json_say_the_same_and_know_where() {
        let toml = Node::from_toml(TOML).unwrap();
        let json = Node::from_json(
            r#"{"tenant":"acme","webhooks":[{"enabled":true,"name":"é orders","events":["order.*","x"],
               "retry":{"waits":[0.50,16],"jitter":0.0},"headers":{"x/y":{"env":"X"}}}]}"#,
        )
        .unwrap();
        assert_eq!(toml, json);
        let place = |pointer: &str| line_and_column(TOML, toml.place_of(pointer));
        assert_eq!(place("/webhooks/0/name"), (4, 1));
        assert_eq!(place("/webhooks/0/events/1"), (5, 22));
        assert_eq!(place("/webhooks/0/retry/waits/0"), (6, 20));
        assert_eq!(place("/webhooks/0/headers/x~1y"), (9, 1));
        // What is missing is missed where it should be.
        assert_eq!(place("/webhooks/0/url"), place("/webhooks/0"));
        assert_eq!(place("/nothing"), (1, 1));
        assert_eq!(line_and_column("é é", 3), (1, 3));
    }

    #[test]
    fn numbers_stay_as_they_are_in_json() {
        let text = r#"{"a":123456789012345678901234567890,"b":[1.50,1e3],"c":null,"d":"\u00e9"}"#;
        assert_eq!(Node::from_json(text).unwrap().to_json(), text.replace("\\u00e9", "é"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let told = |wrong: Result<Node, Wrong>, text: &str| {
            let wrong = wrong.unwrap_err();
            (line_and_column(text, wrong.at).0, wrong.message)
        };
        for (text, line) in [("{\"a\":1,\n\"a\":2}", 2), ("{\n\"a\" 1}", 2), ("[1,\n]", 2), ("", 1)] {
            assert_eq!(told(Node::from_json(text), text).0, line, "{text}");
        }
        for (text, line) in [("a = 1\na = 2", 2), ("a = \n", 1), ("a = 1\nb = inf", 2), ("x", 1)] {
            assert_eq!(told(Node::from_toml(text), text).0, line, "{text}");
        }
        let deep = "[".repeat(120) + &"]".repeat(120);
        assert!(Node::from_json(&deep).unwrap_err().message.contains("deep"));
    }

    proptest::proptest! {
        #[test]
        fn any_json_is_read_as_it_is(a in "\\PC{0,12}", n in proptest::num::f64::NORMAL, b: bool) {
            let value = serde_json::json!({ a.clone(): [n, b, null, {a.clone(): {}}], "k~/": [] });
            let text = value.to_string();
            let node = Node::from_json(&text).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&node.to_json()).unwrap(), value);
            proptest::prop_assert!(node.at_pointer("/k~0~1").is_some());
        }
    }
}
