//! JSON as blocking hooks need it: read strictly, pointed into, compared by meaning.

use std::fmt;
use std::str::FromStr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

#[cfg(test)]
pub(crate) use super::value::json;
use super::value::units;
pub use super::value::{Map, Raw, Value, held_by, same};
use crate::json::{Scanner, text_of};

/// Why bytes are not JSON we read. Repeats nothing of the text but a member's name (P7).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column})")]
pub struct Malformed {
    /// What the parser says.
    pub message: String,
    /// From 1; 0 when unknown.
    pub line: usize,
    /// From 1; 0 when unknown.
    pub column: usize,
}

/// Names a byte order mark to who sent it (RFC 8259, 8.1: no JSON text begins with one).
pub const HAS_BOM: &str = "a byte order mark (EF BB BF) stands before the JSON: leave it out";

/// How deep JSON may be nested, as `serde_json` has it.
const DEPTH_MAX: usize = 127;

/// Reads one JSON value. A member twice is malformed: two readers would disagree about what was
/// said. Nesting is bounded. What is read is kept as it is written: see [`Value`].
///
/// # Errors
/// Where and why it is not JSON.
pub fn parse_strict(bytes: &[u8]) -> Result<Value, Malformed> {
    if bytes.starts_with("\u{feff}".as_bytes()) {
        return Err(Malformed { message: HAS_BOM.to_owned(), line: 1, column: 1 });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|bad| malformed(bytes, bad.valid_up_to(), "invalid unicode code point".to_owned()))?;
    // Says what is wrong with the grammar; what is built from then on is known to be JSON.
    serde_json::from_str::<IgnoredAny>(text).map_err(|e| {
        let text = e.to_string();
        // serde_json appends the place, which travels in its own members here.
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before).to_owned();
        Malformed { message, line: e.line(), column: e.column() }
    })?;
    let mut scanner = Scanner::new(bytes);
    build(&mut scanner, 0).map_err(|message| malformed(bytes, scanner.at, message))
}

/// As [`parse_strict`], for what is no part of a question: settings hold nothing that cannot be read.
///
/// # Errors
/// Where and why it is not JSON.
pub fn parse_settings(bytes: &[u8]) -> Result<serde_json::Value, Malformed> {
    let value = parse_strict(bytes)?;
    match odd_inside(&value) {
        None => Ok(value.readable()),
        Some(written) => {
            let at = bytes.windows(written.len()).position(|part| part == written.as_bytes()).unwrap_or_default();
            let what =
                if written.starts_with('"') { "a text with half of a surrogate pair" } else { "number out of range" };
            Err(malformed(bytes, at, what.to_owned()))
        }
    }
}

fn odd_inside(value: &Value) -> Option<&str> {
    match value {
        Value::Raw(raw) if value.is_odd() => Some(raw.as_written()),
        Value::Array(items) => items.iter().find_map(odd_inside),
        Value::Object(members) => match members.unnamed().first() {
            Some((name, _)) => Some(name.as_written()),
            None => members.values().find_map(odd_inside),
        },
        _ => None,
    }
}

fn malformed(bytes: &[u8], at: usize, message: String) -> Malformed {
    let before = &bytes[..at.min(bytes.len())];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
    Malformed { message, line, column }
}

/// Builds the value that is next in a text known to be JSON, and passes over the white space after it.
fn build(scanner: &mut Scanner<'_>, depth: usize) -> Result<Value, String> {
    let ended = || "EOF while parsing a value".to_owned();
    let first = scanner.peek().ok_or_else(ended)?;
    if matches!(first, b'{' | b'[') && depth == DEPTH_MAX {
        return Err("recursion limit exceeded".to_owned());
    }
    let value = match first {
        b'{' => Value::Object(build_members(scanner, depth)?),
        b'[' => {
            scanner.eat(b'[');
            let mut items = Vec::new();
            while scanner.peek().ok_or_else(ended)? != b']' {
                items.push(build(scanner, depth + 1)?);
                scanner.eat(b',');
            }
            scanner.eat(b']');
            Value::Array(items)
        }
        b'"' => {
            let quoted = scanner.string().ok_or_else(ended)?;
            text_of(quoted).map_or_else(|| Value::Raw(raw(quoted)), |text| Value::String(text.into_owned()))
        }
        _ => match scanner.value().ok_or_else(ended)? {
            b"null" => Value::Null,
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            number => number_of(number),
        },
    };
    scanner.space();
    Ok(value)
}

fn build_members(scanner: &mut Scanner<'_>, depth: usize) -> Result<Map, String> {
    let ended = || "EOF while parsing an object".to_owned();
    let mut members = Map::new();
    scanner.eat(b'{');
    while scanner.peek().ok_or_else(ended)? != b'}' {
        let quoted = scanner.string().ok_or_else(ended)?;
        let name = text_of(quoted);
        let twice = name.as_ref().is_some_and(|name| members.contains_key(&**name));
        if twice {
            return Err(format!("duplicate member {:?}", name.unwrap_or_default()));
        }
        scanner.space();
        scanner.eat(b':');
        let value = build(scanner, depth + 1)?;
        scanner.eat(b',');
        match name {
            Some(name) => drop(members.insert(name.into_owned(), value)),
            None => members.unnamed_mut().push((raw(quoted), value)),
        }
    }
    scanner.eat(b'}');
    let unnamed = members.unnamed_mut();
    unnamed.sort_by_cached_key(|(name, _)| units(name));
    if unnamed.windows(2).any(|pair| units(&pair[0].0) == units(&pair[1].0)) {
        return Err("duplicate member".to_owned());
    }
    Ok(members)
}

fn raw(written: &[u8]) -> Raw {
    Raw::new(&String::from_utf8_lossy(written))
}

/// A number that is written again as it stands here, else its text.
fn number_of(written: &[u8]) -> Value {
    let plain = std::str::from_utf8(written).ok().and_then(|text| {
        let whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let number = match whole && text != "-0" {
            true => text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok()?,
            false => Number::from_f64(text.parse().ok()?).filter(|number| number.to_string() == text)?,
        };
        Some(Value::Number(number))
    });
    plain.unwrap_or_else(|| Value::Raw(raw(written)))
}

/// A JSON pointer (RFC 6901), taken apart. The empty one is the whole document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pointer(Vec<Box<str>>);

/// Why a text is not a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a JSON pointer (RFC 6901), such as /user/department")]
pub struct BadPointer;

impl Pointer {
    /// The whole document.
    pub fn root() -> Self {
        Pointer::default()
    }

    /// This place's member (or item) `name`.
    pub fn child(&self, name: &str) -> Self {
        let mut segments = self.0.clone();
        segments.push(name.into());
        Pointer(segments)
    }

    /// The names on the way, unescaped.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Whether `other` is this place or inside it: a prefix on segments, so `/user` does not cover
    /// `/username`.
    pub fn covers(&self, other: &Pointer) -> bool {
        other.0.len() >= self.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// The way from `outer` to this place, if it is inside it.
    pub fn below(&self, outer: &Pointer) -> Option<Pointer> {
        outer.covers(self).then(|| Pointer(self.0[outer.0.len()..].to_vec()))
    }

    /// What is there.
    pub fn get<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(document, |value, name| match value {
            Value::Object(members) => members.get(&**name),
            Value::Array(items) => index(name).and_then(|i| items.get(i)),
            _ => None,
        })
    }

    /// Takes a member of an object out; `None` when it is not there.
    pub fn remove(&self, document: &mut Value) -> Option<Value> {
        let (last, parent) = self.split()?;
        match parent.get_mut(document)? {
            Value::Object(members) => members.remove(last),
            _ => None,
        }
    }

    /// Puts a member into an object that is there; gives the value back when there is none.
    pub fn insert(&self, document: &mut Value, value: Value) -> Result<(), Value> {
        let Some((last, parent)) = self.split() else { return Err(value) };
        match parent.get_mut(document) {
            Some(Value::Object(members)) => {
                members.insert(last.to_owned(), value);
                Ok(())
            }
            _ => Err(value),
        }
    }

    /// The last name, and the place of what it is in; the whole document has neither.
    pub(super) fn split(&self) -> Option<(&str, Pointer)> {
        let (last, parent) = self.0.split_last()?;
        Some((last, Pointer(parent.to_vec())))
    }

    /// What is there, to be changed.
    pub(super) fn get_mut<'v>(&self, document: &'v mut Value) -> Option<&'v mut Value> {
        self.0.iter().try_fold(document, |value, name| match value {
            Value::Object(members) => members.get_mut(&**name),
            Value::Array(items) => index(name).and_then(|i| items.get_mut(i)),
            _ => None,
        })
    }
}

/// The number of a list's item.
pub(super) fn index(name: &str) -> Option<usize> {
    // RFC 6901 section 4: digits without a leading zero.
    let plain = name == "0" || (!name.starts_with('0') && name.bytes().all(|b| b.is_ascii_digit()));
    if plain { name.parse().ok() } else { None }
}

impl FromStr for Pointer {
    type Err = BadPointer;

    fn from_str(text: &str) -> Result<Self, BadPointer> {
        if text.is_empty() {
            return Ok(Pointer::root());
        }
        let rest = text.strip_prefix('/').ok_or(BadPointer)?;
        rest.split('/').map(unescaped).collect::<Result<_, _>>().map(Pointer)
    }
}

fn unescaped(segment: &str) -> Result<Box<str>, BadPointer> {
    let mut parts = segment.split('~');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (with, rest) = match part.as_bytes().first() {
            Some(b'0') => ('~', &part[1..]),
            Some(b'1') => ('/', &part[1..]),
            _ => return Err(BadPointer),
        };
        out.push(with);
        out.push_str(rest);
    }
    Ok(out.into())
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| write!(f, "/{}", segment.replace('~', "~0").replace('/', "~1")))
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::json::json;
    use proptest::prelude::*;

    #[test]
    fn a_member_twice_is_malformed_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"b":1,"b":2}}]"#] {
            let error = parse_strict(text.as_bytes()).unwrap_err();
            assert!(error.message.starts_with("duplicate member"), "{error}");
            assert_eq!(error.line, 1);
        }
        assert_eq!(parse_strict(br#"{"a":[1,-2,1.5,"x",true,null]}"#), Ok(json!({"a":[1,-2,1.5,"x",true,null]})));
    }

    #[test]
    fn hostile_bytes_are_errors_not_panics() {
        let deep = "[".repeat(100_000);
        for bytes in [b"".as_slice(), b"\xff", b"\xef\xbb\xbf{}", b"{}{}", b"{", deep.as_bytes(), b"\x1f\x8b\x08"] {
            assert!(parse_strict(bytes).is_err());
        }
    }

    #[test]
    fn sameness_is_of_meaning() {
        let cases = [
            (json!(1), json!(1.0), true),
            (json!(1), json!(1.5), false),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992.0), false),
            (json!({"a":1,"b":[1,2]}), json!({"b":[1.0,2],"a":1}), true),
            (json!([1, 2]), json!([2, 1]), false),
            (json!({"a":null}), json!({}), false),
            (json!("1"), json!(1), false),
        ];
        for (a, b, equal) in cases {
            assert_eq!((same(&a, &b), same(&b, &a)), (equal, equal), "{a} {b}");
        }
    }

    #[test]
    fn pointers_cover_whole_segments() {
        let at = |text: &str| text.parse::<Pointer>().unwrap();
        for (outer, inner, covers) in [
            ("/user", "/user", true),
            ("/user", "/user/login", true),
            ("/user", "/username", false),
            ("/user/login", "/user", false),
            ("", "/anything", true),
        ] {
            assert_eq!(at(outer).covers(&at(inner)), covers, "{outer} {inner}");
        }
        let mut document = json!({"a/b":{"m~n":[10, 20]}});
        assert_eq!(at("/a~1b/m~0n/1").get(&document), Some(&json!(20)));
        assert_eq!(at("/a~1b/m~0n/01").get(&document), None);
        assert_eq!(at("/a~1b/m~0n").remove(&mut document), Some(json!([10, 20])));
        assert_eq!(at("/nowhere/x").insert(&mut document, json!(1)), Err(json!(1)));
        for bad in ["user", "/a~2", "/a~"] {
            assert!(bad.parse::<Pointer>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn pointers_survive_text(segments in proptest::collection::vec(".{0,6}", 0..5)) {
            let pointer = segments.iter().fold(Pointer::root(), |at, name| at.child(name));
            prop_assert_eq!(pointer.to_string().parse::<Pointer>().unwrap(), pointer);
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in ".{0,20}") {
            let _ = parse_strict(&bytes);
            let _ = text.parse::<Pointer>();
        }
    }
}
