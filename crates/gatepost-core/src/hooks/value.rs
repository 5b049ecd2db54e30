//! JSON as it travels through a question: what is read is written again as it was.
//!
//! [`serde_json::Value`] rounds a number of more digits than a double has, respells others, and holds
//! neither `1e400` nor half of a surrogate pair (`"\ud83d"`). Here such a member stays as it is written
//! ([`Value::Raw`]), and never takes the others with it (P6). Where something must be known of it, it is
//! absent, in a list null: [`Value::readable`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;
use zeroize::Zeroize;

use super::json::parse_strict;

/// One JSON value.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number that is written as it was read.
    Number(Number),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// An object.
    Object(Map),
    /// Any other number, or a text that is none.
    Raw(Raw),
}

/// A number or a text as it is written.
#[derive(Clone, PartialEq, Debug)]
pub struct Raw(String);

impl Raw {
    /// Of a number, or of a text with its quotes.
    pub(super) fn new(written: &str) -> Self {
        Raw(written.to_owned())
    }

    /// As it is written.
    pub fn as_written(&self) -> &str {
        &self.0
    }

    /// Whether it is a number.
    pub fn is_number(&self) -> bool {
        !self.0.starts_with('"')
    }

    /// The nearest double of a number; none of one that is out of range, or of a text.
    pub fn as_f64(&self) -> Option<f64> {
        if self.is_number() { self.0.parse().ok().filter(|n: &f64| n.is_finite()) } else { None }
    }

    pub(super) fn wipe(&mut self) {
        self.0.zeroize();
    }
}

/// The members of an object, in the order of their names. A name that is no text (half of a surrogate
/// pair) can be neither asked for nor changed: its member goes where its object goes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Map {
    members: BTreeMap<String, Value>,
    unnamed: Vec<(Raw, Value)>,
}

impl Map {
    /// None.
    pub fn new() -> Self {
        Map::default()
    }

    /// Those whose names are no texts.
    pub(super) fn unnamed(&self) -> &[(Raw, Value)] {
        &self.unnamed
    }

    /// The same, to be changed.
    pub(super) fn unnamed_mut(&mut self) -> &mut Vec<(Raw, Value)> {
        &mut self.unnamed
    }

    /// Whether there is nothing in it; [`BTreeMap::is_empty`] is about those with a name.
    pub fn holds_nothing(&self) -> bool {
        self.members.is_empty() && self.unnamed.is_empty()
    }

    /// Takes another's members over its own.
    pub fn absorb(&mut self, other: Map) {
        self.members.extend(other.members);
        self.unnamed.retain(|(name, _)| other.unnamed.iter().all(|(new, _)| new != name));
        self.unnamed.extend(other.unnamed);
    }
}

impl Deref for Map {
    type Target = BTreeMap<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.members
    }
}

impl DerefMut for Map {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.members
    }
}

impl FromIterator<(String, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Self {
        Map { members: members.into_iter().collect(), unnamed: Vec::new() }
    }
}

impl IntoIterator for Map {
    type Item = (String, Value);
    type IntoIter = std::collections::btree_map::IntoIter<String, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.members.into_iter()
    }
}

impl<'m> IntoIterator for &'m Map {
    type Item = (&'m String, &'m Value);
    type IntoIter = std::collections::btree_map::Iter<'m, String, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.members.iter()
    }
}

impl Value {
    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Whether it is `true` or `false`.
    pub fn is_boolean(&self) -> bool {
        matches!(self, Value::Bool(_))
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        matches!(self, Value::Object(_))
    }

    /// Whether no value type holds it: a text that is none, a number out of range.
    pub fn is_odd(&self) -> bool {
        matches!(self, Value::Raw(raw) if raw.as_f64().is_none())
    }

    /// Whether something inside is odd, or it is so itself, or has a name that is no text.
    pub fn holds_odd(&self) -> bool {
        match self {
            Value::Raw(_) => self.is_odd(),
            Value::Array(items) => items.iter().any(Value::holds_odd),
            Value::Object(members) => !members.unnamed.is_empty() || members.values().any(Value::holds_odd),
            _ => false,
        }
    }

    /// `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(it) = self { Some(*it) } else { None }
    }

    /// A whole number of 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        if let Value::Number(it) = self { it.as_i64() } else { None }
    }

    /// The nearest double of a number; none of one that is out of range.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Number(it) => it.as_f64(),
            Value::Raw(raw) => raw.as_f64(),
            _ => None,
        }
    }

    /// Whether it is a whole number of 64 bits.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Value::Number(it) if !it.is_f64())
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(it) = self { Some(it) } else { None }
    }

    /// An object.
    pub fn as_object(&self) -> Option<&Map> {
        if let Value::Object(it) = self { Some(it) } else { None }
    }

    /// A number's text.
    pub fn number_text(&self) -> Option<String> {
        match self {
            Value::Number(number) => Some(number.to_string()),
            Value::Raw(raw) if raw.is_number() => Some(raw.0.clone()),
            _ => None,
        }
    }

    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.as_object()?.get(name)
    }

    /// A member of an object, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        if let Value::Object(members) = self { members.get_mut(name) } else { None }
    }

    /// As other code reads it: numbers become the nearest that can be held, what cannot be is left out of
    /// objects and null elsewhere.
    pub fn readable(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(it) => (*it).into(),
            Value::Number(it) => serde_json::Value::Number(it.clone()),
            Value::String(it) => it.as_str().into(),
            Value::Raw(raw) => raw.as_f64().into(),
            Value::Array(items) => items.iter().map(Value::readable).collect(),
            Value::Object(members) => serde_json::Value::Object(
                members
                    .iter()
                    .filter(|(_, value)| !value.is_odd())
                    .map(|(name, value)| (name.clone(), value.readable()))
                    .collect(),
            ),
        }
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        use fmt::Write as _;
        match self {
            Value::Null => out.write_str("null"),
            Value::Bool(it) => write!(out, "{it}"),
            Value::Number(it) => write!(out, "{it}"),
            Value::String(it) => out.write_str(&quoted(it)?),
            Value::Raw(raw) => out.write_str(&raw.0),
            Value::Array(items) => {
                out.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    out.write_str(if i == 0 { "" } else { "," })?;
                    item.write(out)?;
                }
                out.write_char(']')
            }
            Value::Object(members) => {
                out.write_char('{')?;
                let named = members.iter().map(|(name, value)| Ok((quoted(name)?, value)));
                let unnamed = members.unnamed.iter().map(|(name, value)| Ok((name.0.clone(), value)));
                for (i, member) in named.chain(unnamed).enumerate() {
                    let (name, value) = member?;
                    write!(out, "{}{name}:", if i == 0 { "" } else { "," })?;
                    value.write(out)?;
                }
                out.write_char('}')
            }
        }
    }
}

fn quoted(text: &str) -> Result<String, fmt::Error> {
    serde_json::to_string(text).map_err(|_| fmt::Error)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out)?;
        f.write_str(&out)
    }
}

/// Into `serde_json`'s writers, as it was read. Not into its values: use [`Value::readable`] for that.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => s.serialize_unit(),
            Value::Bool(it) => s.serialize_bool(*it),
            Value::Number(it) => it.serialize(s),
            Value::String(it) => s.serialize_str(it),
            Value::Array(items) => s.collect_seq(items),
            Value::Object(members) => members.serialize(s),
            Value::Raw(raw) => as_written(&raw.0, s),
        }
    }
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if !self.unnamed.is_empty() {
            // A map's keys are texts.
            let mut out = String::new();
            let written = Value::Object(self.clone()).write(&mut out);
            let done = written.map_err(S::Error::custom).and_then(|()| as_written(&out, s));
            out.zeroize();
            return done;
        }
        let mut map = s.serialize_map(Some(self.len()))?;
        for (name, value) in self {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn as_written<S: Serializer>(text: &str, s: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(text).map_err(S::Error::custom)?.serialize(s)
}

/// Out of `serde_json`'s readers and values (not where serde itself keeps what it reads: below
/// `flatten`, `untagged` and `tag`).
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let written = Box::<RawValue>::deserialize(d)?;
        parse_strict(written.get().as_bytes()).map_err(serde::de::Error::custom)
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(it) => Value::Bool(it),
            serde_json::Value::Number(it) => Value::Number(it),
            serde_json::Value::String(it) => Value::String(it),
            serde_json::Value::Array(items) => Value::Array(items.into_iter().map(Value::from).collect()),
            serde_json::Value::Object(members) => Value::Object(members.into()),
        }
    }
}

impl From<serde_json::Map<String, serde_json::Value>> for Map {
    fn from(members: serde_json::Map<String, serde_json::Value>) -> Self {
        members.into_iter().map(|(name, value)| (name, value.into())).collect()
    }
}

impl From<bool> for Value {
    fn from(it: bool) -> Self {
        Value::Bool(it)
    }
}

impl From<&str> for Value {
    fn from(it: &str) -> Self {
        Value::String(it.to_owned())
    }
}

impl From<String> for Value {
    fn from(it: String) -> Self {
        Value::String(it)
    }
}

impl From<Map> for Value {
    fn from(it: Map) -> Self {
        Value::Object(it)
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Self {
        Value::Array(items.into_iter().collect())
    }
}

/// `serde_json::json!` as one of ours, for tests.
#[cfg(test)]
macro_rules! json {
    ($($json:tt)+) => {
        $crate::hooks::json::Value::from(serde_json::json!($($json)+))
    };
}
#[cfg(test)]
pub(crate) use json;

/// Bytes a value holds in memory, about: many times its text, when that is made of little things.
pub fn held_by(value: &Value) -> usize {
    /// What a member holds beside its name and value.
    const MEMBER: usize = 32;
    let inside = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) | Value::Raw(Raw(text)) => text.len(),
        Value::Array(items) => items.iter().map(held_by).sum(),
        Value::Object(members) => {
            let unnamed = members.unnamed.iter().map(|(name, value)| (&name.0, value));
            let each = members.iter().chain(unnamed);
            each.map(|(name, value)| MEMBER + name.len() + held_by(value)).sum()
        }
    };
    size_of::<Value>() + inside
}

/// Whether two values mean the same: the order of members and the spelling of numbers (`1`, `1.0`, `10e-1`)
/// and texts do not count, the order of items does. Numbers are compared as the decimals they are.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if (a.is_i64() && b.is_i64()) || (a.is_u64() && b.is_u64()) => a == b,
        (Value::Number(_) | Value::Raw(_), Value::Number(_) | Value::Raw(_)) => same_as_written(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
                && same_unnamed(&a.unnamed, &b.unnamed)
        }
        _ => a == b,
    }
}

fn same_as_written(a: &Value, b: &Value) -> bool {
    match (a.number_text(), b.number_text()) {
        (Some(a), Some(b)) => same_number(&a, &b),
        (None, None) => match (a, b) {
            (Value::Raw(a), Value::Raw(b)) => same_text(a, b),
            _ => false,
        },
        _ => false,
    }
}

/// They are in the order of what their names are made of.
fn same_unnamed(a: &[(Raw, Value)], b: &[(Raw, Value)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_text(&a.0, &b.0) && same(&a.1, &b.1))
}

fn same_text(a: &Raw, b: &Raw) -> bool {
    units(a).eq(&units(b))
}

/// What a text is made of, half pairs too, whatever its spelling.
pub(super) fn units(text: &Raw) -> Vec<u16> {
    let inner = text.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&text.0);
    let (mut out, mut chars) = (Vec::with_capacity(inner.len()), inner.chars());
    while let Some(c) = chars.next() {
        let plain = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let hex: String = chars.by_ref().take(4).collect();
                    out.extend(u16::from_str_radix(&hex, 16));
                    continue;
                }
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => break,
            },
            plain => plain,
        };
        out.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    out
}

/// Whether two texts are the same decimal. The work is that of reading them, whatever the exponents.
fn same_number(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (Decimal::of(a), Decimal::of(b)) {
        (Some(a), Some(b)) => a == b,
        // Exponents of forty digits and more are not reckoned with.
        _ => false,
    }
}

/// `0.digits · 10^place`, without zeros before and behind the digits.
#[derive(PartialEq)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    place: i128,
}

impl Decimal {
    fn of(text: &str) -> Option<Decimal> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(part.bytes()).collect();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        digits.truncate(digits.len() - digits.iter().rev().take_while(|digit| **digit == b'0').count());
        if digits.is_empty() {
            return Some(Decimal { negative: false, digits, place: 0 });
        }
        let shift = i128::try_from(whole.len()).ok()? - i128::try_from(zeros).ok()?;
        let place = exponent.parse::<i128>().ok()?.checked_add(shift)?;
        Some(Decimal { negative, digits, place })
    }
}

#[cfg(test)]
#[path = "value_testing.rs"]
mod testing;
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Value {
        parse_strict(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_read_is_written_as_it_was() {
        for text in [
            "12345678901234567890123",
            "-12345678901234567890123",
            "18446744073709551615",
            "18446744073709551616",
            "-0",
            "0.10",
            "1e0",
            "1E+5",
            "1.0",
            "0.1234567890123456789",
            "1e400",
            "-1e-400",
            r#""\ud83d""#,
            r#""a\udc00b\n""#,
            r#"{"a":[1e400,{"b":"\ud83d"}],"c":1.00}"#,
            r#"{"a":1,"\ud83d":{"b":1.00}}"#,
            r#"{"\ud83d":null,"\uD83E":1}"#,
        ] {
            let value = read(text);
            assert_eq!(value.to_string(), text);
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(serde_json::from_str::<Value>(text).unwrap(), value);
            assert!(held_by(&value) >= size_of::<Value>());
        }
        // Texts are what they mean, where they mean something.
        assert_eq!(read(r#""\u0061\ud83d\ude00""#), Value::from("a😀"));
    }

    #[test]
    fn numbers_are_compared_as_the_decimals_they_are() {
        let rows = [
            ("1", "1.0", true),
            ("1", "1e0", true),
            ("1", "10e-1", true),
            ("0.1", "0.10", true),
            ("-0", "0", true),
            ("-0.0e7", "0", true),
            ("100", "1E+2", true),
            ("0.001e3", "1", true),
            ("-1", "1", false),
            ("12345678901234567890123", "12345678901234567890124", false),
            ("12345678901234567890123", "1.2345678901234567890123e22", true),
            ("9007199254740993", "9007199254740992.0", false),
            ("0.1", "0.1000000000000000055511151231257827", false),
            ("1e400", "10e399", true),
            ("1e400", "1e401", false),
            ("1e999999999", "10e999999998", true),
            ("1e999999999", "1e-999999999", false),
            ("1e99999999999999999999999999999999999999999999", "1e99999999999999999999999999999999999999999999", true),
            ("1e99999999999999999999999999999999999999999999", "1", false),
            ("1", "\"1\"", false),
            (r#""\ud83d""#, r#""\uD83D""#, true),
            (r#""é\/\n\ud83d""#, r#""\u00e9/\u000a\ud83d""#, true),
            (r#""\ud83d""#, r#""\ud83e""#, false),
            (r#""\ud83d""#, "1e400", false),
            (r#"{"\ud83d":1,"\ud83e":2}"#, r#"{"\ud83e":2.0,"\uD83D":1}"#, true),
            (r#"{"\ud83d":1}"#, r#"{"\ud83d":2}"#, false),
            (r#"{"\ud83d":1}"#, "{}", false),
        ];
        for (a, b, equal) in rows {
            let (x, y) = (read(a), read(b));
            assert_eq!((same(&x, &y), same(&y, &x)), (equal, equal), "{a} {b}");
        }
    }

    #[test]
    fn p6_one_odd_member_never_spoils_the_others() {
        let value = read(
            r#"{"a":"\ud83d","b":[1,"\ud83d",1e400],"c":1.00,"d":{"\ud83d":1,"e":true},"n":18446744073709551616}"#,
        );
        let readable = serde_json::json!({"b":[1,null,null],"c":1.0,"d":{"e":true},"n":18_446_744_073_709_551_616.0});
        assert_eq!(value.readable(), readable);
    }

    #[test]
    fn a_member_twice_is_malformed_whatever_its_name() {
        for text in [r#"{"\ud83d":1,"\uD83D":2}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(parse_strict(text.as_bytes()).unwrap_err().message.starts_with("duplicate member"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_number_is_written_as_it_was(text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,12})?") {
            let value = read(&text);
            prop_assert_eq!(value.to_string(), text.as_str());
            prop_assert!(same(&value, &value.clone()));
        }

        #[test]
        fn a_number_is_the_same_at_any_scale(digits in 1u64.., shift in 0usize..40) {
            let plain = read(&digits.to_string());
            let moved = read(&format!("{digits}{}e-{shift}", "0".repeat(shift)));
            prop_assert!(same(&plain, &moved));
            let next = read(&format!("{digits}{}1e-{}", "0".repeat(shift), shift + 1));
            prop_assert!(!same(&plain, &next));
        }

        #[test]
        fn what_is_read_is_what_serde_json_reads(text in "[\\[\\]{}:,\"\\\\a-u0-9eE.+ -]{0,40}") {
            match (parse_strict(text.as_bytes()), serde_json::from_str::<serde_json::Value>(&text)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours.readable(), theirs),
                (Err(_), Ok(_)) => prop_assert!(parse_strict(text.as_bytes()).unwrap_err().message.starts_with("duplicate")),
                (Ok(ours), Err(_)) => prop_assert!(ours.holds_odd()),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
