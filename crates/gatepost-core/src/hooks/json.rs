//! JSON as blocking hooks need it: read strictly, pointed into, compared by meaning.

use std::collections::btree_map::Entry;
use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};

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

/// Reads one JSON value. A member twice is malformed: two readers would disagree about what was
/// said. Nesting is bounded by the parser (128).
///
/// # Errors
/// Where and why it is not JSON.
pub fn parse_strict(bytes: &[u8]) -> Result<Value, Malformed> {
    if bytes.starts_with("\u{feff}".as_bytes()) {
        return Err(Malformed { message: HAS_BOM.to_owned(), line: 1, column: 1 });
    }
    serde_json::from_slice::<Strict>(bytes).map(|Strict(value)| value).map_err(|e| {
        let text = e.to_string();
        // serde_json appends the place, which travels in its own members here.
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before).to_owned();
        Malformed { message, line: e.line(), column: e.column() }
    })
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Strict, E> {
                Ok(Strict(Value::Bool(v)))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Strict, E> {
                Ok(Strict(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Strict, E> {
                Ok(Strict(Number::from_f64(v).map_or(Value::Null, Value::Number)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Strict, E> {
                Ok(Strict(Value::String(v.to_owned())))
            }
            fn visit_string<E>(self, v: String) -> Result<Strict, E> {
                Ok(Strict(Value::String(v)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
                let mut items = Vec::new();
                while let Some(Strict(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Strict(Value::Array(items)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut members = std::collections::BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    match members.entry(name) {
                        Entry::Occupied(twice) => {
                            return Err(A::Error::custom(format!("duplicate member {:?}", twice.key())));
                        }
                        Entry::Vacant(free) => {
                            let Strict(value) = map.next_value()?;
                            free.insert(value);
                        }
                    }
                }
                Ok(Strict(Value::Object(members.into_iter().collect::<Map<_, _>>())))
            }
        }
        d.deserialize_any(Any)
    }
}

/// Bytes a value holds in memory, about: many times its text, when that is made of little things.
pub fn held_by(value: &Value) -> usize {
    /// What a member holds beside its name and value.
    const MEMBER: usize = 32;
    let inside = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(held_by).sum(),
        Value::Object(members) => members.iter().map(|(name, value)| MEMBER + name.len() + held_by(value)).sum(),
    };
    size_of::<Value>() + inside
}

/// Whether two values mean the same: the order of members and the spelling of numbers (`1`, `1.0`)
/// do not count, the order of items does.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    let whole = |n: &Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a.as_f64() == b.as_f64(),
        // Compared as integers: as doubles, 2^53 and 2^53 + 1 would be one number.
        (Some(whole), None) => b.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < 1e18 && f as i128 == whole),
        (None, Some(_)) => same_number(b, a),
    }
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
    use proptest::prelude::*;
    use serde_json::json;

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
