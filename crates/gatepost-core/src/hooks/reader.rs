//! Reading JSON objects strictly: every wrong member is reported, with its pointer, at once.

use super::FieldError;
use super::json::{Map, Value};

/// The members of one object, taken out one by one; what is left at the end is unknown.
pub(super) struct Reader<'e> {
    members: Map,
    at: String,
    errors: &'e mut Vec<FieldError>,
}

impl<'e> Reader<'e> {
    /// Over the members of the object at `at`.
    pub(super) fn new(members: impl Into<Map>, at: impl Into<String>, errors: &'e mut Vec<FieldError>) -> Self {
        Reader { members: members.into(), at: at.into(), errors }
    }

    /// Where a member is.
    pub(super) fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.at, name.replace('~', "~0").replace('/', "~1"))
    }

    /// Reports a member.
    pub(super) fn bad(&mut self, name: &str, message: impl Into<String>) {
        let pointer = self.pointer(name);
        self.errors.push(FieldError { pointer, message: message.into() });
    }

    /// Reports something below a member.
    pub(super) fn bad_below(&mut self, name: &str, below: &str, message: impl Into<String>) {
        let pointer = self.pointer(name) + below;
        self.errors.push(FieldError { pointer, message: message.into() });
    }

    /// The list everything is reported to.
    pub(super) fn errors(&mut self) -> &mut Vec<FieldError> {
        self.errors
    }

    /// A member; `null` is absence.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    fn typed<T>(&mut self, name: &str, what: &str, read: impl FnOnce(Value) -> Option<T>) -> Option<T> {
        let value = self.take(name)?;
        let read = read(value);
        if read.is_none() {
            self.bad(name, format!("must be {what}"));
        }
        read
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.typed(name, "a text", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// A text that must be there.
    pub(super) fn need_text(&mut self, name: &str) -> String {
        if self.members.get(name).is_none_or(Value::is_null) {
            self.members.remove(name);
            self.bad(name, "is required");
            return String::new();
        }
        self.text(name).unwrap_or_default()
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        self.typed(name, "true or false", |value| value.as_bool()).unwrap_or(default)
    }

    /// A whole number within a range.
    pub(super) fn number(&mut self, name: &str, range: std::ops::RangeInclusive<i64>, default: i64) -> i64 {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        self.typed(name, &what, |value| value.as_i64().filter(|n| range.contains(n))).unwrap_or(default)
    }

    /// An object.
    pub(super) fn object(&mut self, name: &str) -> Option<Map> {
        self.typed(name, "an object", |value| match value {
            Value::Object(members) => Some(members),
            _ => None,
        })
    }

    /// A list.
    pub(super) fn list(&mut self, name: &str) -> Option<Vec<Value>> {
        self.typed(name, "a list", |value| match value {
            Value::Array(items) => Some(items),
            _ => None,
        })
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)], default: T) -> T {
        let names: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let what = format!("one of {}", names.join(", "));
        self.typed(name, &what, |value| {
            let text = value.as_str()?;
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
        .unwrap_or(default)
    }

    /// The members nobody took.
    pub(super) fn rest(&mut self) -> Map {
        std::mem::take(&mut self.members)
    }

    /// Reports every member nobody took.
    pub(super) fn finish(mut self) {
        for (name, mut value) in std::mem::take(self.members.unnamed_mut()) {
            super::secrets::wipe(&mut value);
            self.bad(name.as_written().trim_matches('"'), "is not a known member");
        }
        for (name, mut value) in std::mem::take(&mut self.members) {
            super::secrets::wipe(&mut value);
            self.bad(&name, "is not a known member");
        }
    }
}
