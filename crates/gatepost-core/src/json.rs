//! Texts that are known to be JSON, looked at without being turned into values.
//!
//! What was published is kept and sent byte for byte (P3), and it may hold what no value type of ours
//! can: half of a surrogate pair (`"\ud83d"`), a number no double holds (`1e400`). Such a member passes
//! where bytes pass; where a value is needed it is left out ([`readable`]), and never takes the others
//! with it (P6).

use std::borrow::Cow;
use std::collections::BTreeMap;

/// How deep a text may be nested to be copied: what is accepted goes no deeper than 128.
const DEPTH_MAX: usize = 256;

/// JSON as others send it: some writers put a byte order mark before it, which RFC 8259 (8.1) lets readers
/// skip.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

/// The members of an object, by name; the later of two with the same name counts, as everywhere.
pub(crate) type Members<'t> = BTreeMap<Cow<'t, str>, Member<'t>>;

/// A member of an object, as it is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member<'t> {
    /// Its name, with the quotes.
    pub(crate) name: &'t [u8],
    /// Its value.
    pub(crate) value: &'t [u8],
}

/// The members of a text that is an object; `None` when it is none. A name that is no text (half of a
/// surrogate pair) stands under what is written between its quotes.
pub(crate) fn members(text: &[u8]) -> Option<Members<'_>> {
    let mut scanner = Scanner::new(text);
    let mut members = Members::new();
    if !scanner.eat(b'{') {
        return None;
    }
    while scanner.peek()? != b'}' {
        if !members.is_empty() && !scanner.eat(b',') {
            return None;
        }
        let name = scanner.string()?;
        scanner.space();
        if !scanner.eat(b':') {
            return None;
        }
        let value = scanner.value()?;
        scanner.space();
        let key = text_of(name).unwrap_or_else(|| String::from_utf8_lossy(&name[1..name.len() - 1]));
        members.insert(key, Member { name, value });
    }
    Some(members)
}

/// The member `name` of an object, where it is a text.
pub fn text_member(text: &[u8], name: &str) -> Option<String> {
    let value = members(text)?.get(name)?.value;
    if value.first() == Some(&b'"') { text_of(value).map(Cow::into_owned) } else { None }
}

/// The same JSON without what values cannot hold: members of objects are left out, items of lists become
/// null, and so does the whole. Nothing is copied where there is nothing of the kind. `None`: no JSON.
pub fn readable(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    // What is read whole needs no second look; `IgnoredAny` would pass over the numbers.
    if serde_json::from_slice::<Held>(text).is_ok() {
        return Some(text.into());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut scanner = Scanner::new(text);
    if !scanner.copy(&mut out, 0)? {
        out.extend_from_slice(b"null");
    }
    Some(out.into())
}

/// Reads a value as [`serde_json::Value`] would, and keeps nothing.
struct Held;

impl<'de> serde::Deserialize<'de> for Held {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> serde::de::Visitor<'de> for Any {
            type Value = Held;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Held, E> {
                Ok(Held)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Held, E> {
                Ok(Held)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Held, E> {
                Ok(Held)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Held, E> {
                Ok(Held)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Held, E> {
                Ok(Held)
            }
            fn visit_str<E>(self, _: &str) -> Result<Held, E> {
                Ok(Held)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Held, A::Error> {
                while items.next_element::<Held>()?.is_some() {}
                Ok(Held)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Held, A::Error> {
                while members.next_entry::<Held, Held>()?.is_some() {}
                Ok(Held)
            }
        }
        d.deserialize_any(Any)
    }
}

/// The text between two quotes; `None`: it is none (half of a surrogate pair).
pub(crate) fn text_of(quoted: &[u8]) -> Option<Cow<'_, str>> {
    if quoted.contains(&b'\\') {
        return serde_json::from_slice::<String>(quoted).ok().map(Cow::Owned);
    }
    std::str::from_utf8(quoted.get(1..quoted.len().checked_sub(1)?)?).ok().map(Cow::Borrowed)
}

/// Walks a text that is known to be JSON. Answers `None` should it not be.
pub(crate) struct Scanner<'t> {
    pub(crate) text: &'t [u8],
    pub(crate) at: usize,
}

impl<'t> Scanner<'t> {
    /// At the first byte that is not white space.
    pub(crate) fn new(text: &'t [u8]) -> Self {
        let mut scanner = Scanner { text, at: 0 };
        scanner.space();
        scanner
    }

    /// The next byte.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Passes over white space.
    pub(crate) fn space(&mut self) {
        while self.text.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Passes over `byte`, and the white space after it, if it is next.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.text.get(self.at) == Some(&byte);
        if found {
            self.at += 1;
            self.space();
        }
        found
    }

    /// Passes over a string and answers it with its quotes.
    pub(crate) fn string(&mut self) -> Option<&'t [u8]> {
        let start = self.at;
        if self.text.get(start) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        loop {
            match self.text.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(start..self.at)
    }

    /// Passes over a value and answers it. Nesting is counted, not followed.
    pub(crate) fn value(&mut self) -> Option<&'t [u8]> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.text.get(self.at)? {
                b'"' => drop(self.string()?),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => self.at += 1,
                b',' | b':' => return None,
                _ => self.word(),
            }
            if depth == 0 {
                return self.text.get(start..self.at);
            }
        }
    }

    /// Passes over a number or a literal.
    fn word(&mut self) {
        let word = |b: &&u8| !matches!(b, b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.text[self.at..].iter().take_while(word).count();
    }

    /// Copies a value and passes over it and the white space after it; `false`, and nothing copied: no
    /// value type holds it.
    fn copy(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<bool> {
        if depth > DEPTH_MAX {
            return None;
        }
        let start = self.at;
        let held = match self.peek()? {
            b'{' => return self.copy_object(out, depth),
            b'[' => return self.copy_list(out, depth),
            b'"' => text_of(self.string()?).is_some(),
            first => {
                self.word();
                let word = std::str::from_utf8(&self.text[start..self.at]).ok()?;
                // Literals are no numbers.
                first.is_ascii_lowercase() || word.parse::<f64>().ok()?.is_finite()
            }
        };
        if held {
            out.extend_from_slice(&self.text[start..self.at]);
        }
        self.space();
        Some(held)
    }

    fn copy_list(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<bool> {
        self.eat(b'[');
        out.push(b'[');
        let mut first = true;
        while self.peek()? != b']' {
            if !std::mem::take(&mut first) {
                self.eat(b',').then_some(())?;
                out.push(b',');
            }
            if !self.copy(out, depth + 1)? {
                out.extend_from_slice(b"null");
            }
        }
        self.eat(b']');
        out.push(b']');
        Some(true)
    }

    fn copy_object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<bool> {
        self.eat(b'{');
        out.push(b'{');
        let (mut first, mut written) = (true, false);
        while self.peek()? != b'}' {
            if !std::mem::take(&mut first) {
                self.eat(b',').then_some(())?;
            }
            let before = out.len();
            if written {
                out.push(b',');
            }
            let name = self.string()?;
            out.extend_from_slice(name);
            out.push(b':');
            self.space();
            self.eat(b':').then_some(())?;
            if self.copy(out, depth + 1)? && text_of(name).is_some() {
                written = true;
            } else {
                out.truncate(before);
            }
        }
        self.eat(b'}');
        out.push(b'}');
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn what_no_value_holds_is_left_out_and_nothing_else() {
        let cases = [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#" {"a" : "x\ud83d", "b" : [1, "\udc00", 2]} "#, r#"{"b":[1,null,2]}"#),
            (r#"{"a":{"b":1e400,"c":-1e400,"d":1e308}}"#, r#"{"a":{"d":1e308}}"#),
            (r#"{"\ud83d":1,"b":2}"#, r#"{"b":2}"#),
            (r#"{"a":"\ud83d\ude00","b":1e999}"#, r#"{"a":"\ud83d\ude00"}"#),
            (r#"[1e400]"#, "[null]"),
            (r#""\ud83d""#, "null"),
            ("1e400", "null"),
            (r#"{"n":1e400}"#, "{}"),
            (r#"{"a":true,"b":null,"c":false,"n":1e400}"#, r#"{"a":true,"b":null,"c":false}"#),
        ];
        for (text, expected) in cases {
            let found = readable(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&found), expected, "{text}");
            serde_json::from_slice::<Value>(&found).unwrap();
        }
        let long = format!("{{\"n\":{}}}", "9".repeat(400));
        assert_eq!(readable(long.as_bytes()).unwrap().as_ref(), b"{}");
        for none in ["", "{", "[1,", "{\"a\"}", "\"x"] {
            assert_eq!(readable(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn members_are_as_they_are_written() {
        let text = br#" { "a" : 1.00 , "b\u0031":[ 1 ] , "\ud83d":{} , "a":2 } "#;
        let found = members(text).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|(key, member)| {
                (key.as_ref(), std::str::from_utf8(member.name).unwrap(), std::str::from_utf8(member.value).unwrap())
            })
            .collect();
        assert_eq!(shown, [("\\ud83d", r#""\ud83d""#, "{}"), ("a", r#""a""#, "2"), ("b1", r#""b\u0031""#, "[ 1 ]")]);
        assert_eq!(members(b"{}").unwrap().len(), 0);
        for none in ["", "[]", "null", "{", "{\"a\"", "{\"a\":"] {
            assert_eq!(members(none.as_bytes()), None, "{none}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(|n| json!(n)),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn one_odd_member_never_spoils_the_others(value in any_json(), odd in prop_oneof![Just("1e400"), Just("\"\\ud83d\"")]) {
            let text = format!("{{\"kept\":{value},\"odd\":{odd}}}");
            let found: Value = serde_json::from_slice(&readable(text.as_bytes()).unwrap()).unwrap();
            prop_assert_eq!(found, json!({"kept": value}));
        }

        #[test]
        fn any_bytes_are_walked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{}:,\"\\\\a-u0-9e. ]{0,40}") {
            for text in [&bytes[..], text.as_bytes()] {
                let _ = members(text);
                let _ = readable(text);
            }
        }
    }
}
