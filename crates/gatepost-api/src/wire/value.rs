//! Single values. Each reader notes what is wrong and answers `None`; none of them can fail.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use bytes::Bytes;
use gatepost_core::Timestamp;
use gatepost_core::time::Limit;
use serde_json::value::RawValue;

use super::{At, Read, Reader};

/// How deep free-form JSON may be nested: what every JSON library in reach of a receiver reads.
pub(crate) const DEPTH_MAX: usize = 128;

/// The word for what a JSON text is, by its first character.
pub(crate) fn kind_of(text: &str) -> &'static str {
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a Boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Whether a JSON text (known to be one) is nested deeper than [`DEPTH_MAX`].
pub(crate) fn too_deep(text: &str) -> bool {
    // Few brackets in all (in strings too) cannot nest deep: the common case, at memory speed. (One bit
    // tells the two apart. Counting in bytes lets many be compared at once.)
    let opening = |part: &[u8]| part.iter().map(|b| u8::from(b | 0x20 == b'{')).sum::<u8>();
    if text.as_bytes().chunks(255).map(|part| usize::from(opening(part))).sum::<usize>() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The first member, at any depth of a JSON text (known to be one), that its object names twice, and
/// the text from its second naming on.
fn member_named_twice(text: &str) -> Option<(Cow<'_, str>, &str)> {
    // One set of names per open object, nothing per open array: no recursion, whatever the depth.
    let mut open: Vec<Option<HashSet<Cow<'_, str>>>> = Vec::new();
    let (bytes, mut at, mut name_next) = (text.as_bytes(), 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' => open.push(Some(HashSet::new())),
            b'[' => open.push(None),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let end = end_of_string(bytes, at);
                if name_next && let Some(Some(names)) = open.last_mut() {
                    let name = name_in(text, at, end);
                    if !names.insert(name.clone()) {
                        return Some((name, &text[at + 1..]));
                    }
                }
                at = end;
            }
            _ => {}
        }
        name_next = match byte {
            b'{' => true,
            b',' => matches!(open.last(), Some(Some(_))),
            byte => name_next && byte.is_ascii_whitespace(),
        };
        at += 1;
    }
    None
}

/// Where the string that begins at `start` has its closing quote.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// The name between two quotes. Half a surrogate pair is no text; it is compared as it is written.
fn name_in(text: &str, start: usize, end: usize) -> Cow<'_, str> {
    let inner = &text[start + 1..end.min(text.len())];
    match inner.contains('\\').then(|| serde_json::from_str::<String>(&text[start..=end])) {
        Some(Ok(name)) => Cow::Owned(name),
        _ => Cow::Borrowed(inner),
    }
}

impl<'a> Reader<'a, '_> {
    fn wrong_kind(&mut self, raw: &RawValue, at: At<'_>, wanted: &str) {
        self.errors.push(at, format!("must be {wanted}, not {}", kind_of(raw.get())));
    }

    /// A string; borrowed from the body when it has no escapes.
    pub(crate) fn string(&mut self, raw: &'a RawValue, at: At<'_>) -> Option<Cow<'a, str>> {
        let text = raw.get();
        let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            self.wrong_kind(raw, at, "a string");
            return None;
        };
        if !inner.as_bytes().contains(&b'\\') {
            return Some(Cow::Borrowed(inner));
        }
        match serde_json::from_str::<String>(text) {
            Ok(text) => Some(Cow::Owned(text)),
            Err(_) => {
                self.errors.push(at, "has half of a surrogate pair, which is no character");
                None
            }
        }
    }

    /// A string of a bounded number of characters.
    pub(crate) fn text(&mut self, raw: &'a RawValue, at: At<'_>, chars: RangeInclusive<usize>) -> Option<String> {
        let text = self.string(raw, at)?;
        if chars.contains(&text.chars().count()) {
            return Some(text.into_owned());
        }
        self.errors.push(at, format!("must have {} to {} characters", chars.start(), chars.end()));
        None
    }

    /// A string with a grammar, whose error says what it must be.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, raw: &'a RawValue, at: At<'_>) -> Option<T> {
        let text = self.string(raw, at)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.push(at, error.to_string());
                None
            }
        }
    }

    /// A time that something is compared with: one too far away for us is the last one there is.
    pub(crate) fn time_limit(&mut self, raw: &'a RawValue, at: At<'_>) -> Option<Timestamp> {
        self.parsed::<Limit>(raw, at).map(|limit| limit.0)
    }

    /// One of a list of words.
    pub(crate) fn word<T: Copy>(&mut self, raw: &'a RawValue, at: At<'_>, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(raw, at)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let list: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.errors.push(at, format!("must be one of {}", list.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A whole number within bounds.
    pub(crate) fn integer(&mut self, raw: &RawValue, at: At<'_>, range: RangeInclusive<u32>) -> Option<u32> {
        if kind_of(raw.get()) != "a number" {
            self.wrong_kind(raw, at, "a whole number");
            return None;
        }
        match raw.get().parse::<u32>() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.errors.push(at, format!("must be a whole number, {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// A number that a double holds.
    pub(crate) fn number(&mut self, raw: &RawValue, at: At<'_>) -> Option<f64> {
        if kind_of(raw.get()) != "a number" {
            self.wrong_kind(raw, at, "a number");
            return None;
        }
        match raw.get().parse::<f64>() {
            Ok(number) if number.is_finite() => Some(number),
            _ => {
                self.errors.push(at, "is too large a number");
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, raw: &RawValue, at: At<'_>) -> Option<bool> {
        match raw.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.wrong_kind(raw, at, "true or false");
                None
            }
        }
    }

    /// Any JSON value, kept as it is written, if it is not nested too deep.
    pub(crate) fn json(&mut self, raw: &'a RawValue, at: At<'_>) -> Option<&'a RawValue> {
        if too_deep(raw.get()) {
            self.errors.push(at, format!("is nested deeper than {DEPTH_MAX} levels"));
            return None;
        }
        Some(raw)
    }

    /// Any JSON object that says nothing twice, kept as it is written, if it is not nested too deep.
    pub(crate) fn json_object(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<&'a RawValue>> {
        if !raw.get().starts_with('{') {
            self.wrong_kind(raw, at, "an object");
            return Ok(None);
        }
        match member_named_twice(raw.get()) {
            Some((name, near)) => Err(self.named_twice(&name, near)),
            None => Ok(self.json(raw, at)),
        }
    }
}

/// The bytes of a value in an allocation of their own: they are kept, and must not keep the
/// connection's read buffer alive.
pub(crate) fn own_bytes(raw: &RawValue) -> Bytes {
    match raw.get() {
        "null" => Bytes::from_static(b"null"),
        text => Bytes::copy_from_slice(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn members_named_twice_are_found_at_any_depth() {
        let cases = [
            (r#"{"x":1,"x":2}"#, Some(("x", r#"x":2}"#))),
            (r#"{"a":{"x":1,"y":[{"x":{}},{ "x" :1,"\u0078":2}]}}"#, Some(("x", r#"\u0078":2}]}}"#))),
            (r#"{"a":[],"b":{"a":1},"c":["a","a",{"a":"a"}],"d":"a"}"#, None),
            (r#"{"a":"\"a\":","b\\":"{\"b\\\\\":1","c":",\"a\":"}"#, None),
            (r#"{"\ud800":1,"\ud801":2}"#, None),
            ("{}", None),
        ];
        for (text, wanted) in cases {
            serde_json::from_str::<&RawValue>(text).unwrap();
            let found = member_named_twice(text);
            assert_eq!(found.as_ref().map(|(name, near)| (&**name, *near)), wanted, "{text}");
        }
        assert!(member_named_twice(&nested(100_000)).is_none());
    }

    #[test]
    fn depth_counts_structure_not_strings() {
        assert!(!too_deep(&nested(DEPTH_MAX)));
        assert!(too_deep(&nested(DEPTH_MAX + 1)));
        assert!(!too_deep(&format!("[\"{}\\\"{}\"]", "[".repeat(500), "{".repeat(500))));
        assert!(!too_deep(&format!("[{}]", vec!["[]"; 500].join(","))));
        assert!(too_deep(&format!("[\"\\\\\",{}]", nested(DEPTH_MAX))));
    }
}
