//! Objects and arrays, read one level at a time: the values below stay the text they are.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::value::kind_of;
use super::{At, Malformed, Read, Reader};

/// Unknown members remembered, to find one that is named twice; errors beyond are not listed.
const UNKNOWN_MAX: usize = 1_000;

/// The members of an object that may have only these.
pub(crate) struct Fields<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<&'a RawValue>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    /// The member as written, `null` included.
    pub(crate) fn given(&self, name: &str) -> Option<&'a RawValue> {
        let index = self.names.iter().position(|known| *known == name);
        debug_assert!(index.is_some(), "{name} is not among the members this object may have");
        self.values[index?]
    }

    /// The member; `null` is as good as absent.
    pub(crate) fn optional(&self, name: &str) -> Option<&'a RawValue> {
        self.given(name).filter(|raw| raw.get() != "null")
    }

    /// The member; absent and `null` are errors.
    pub(crate) fn required(&self, name: &str, at: At<'_>, reader: &mut Reader<'a, '_>) -> Option<&'a RawValue> {
        let value = self.optional(name);
        if value.is_none() {
            let message = if self.given(name).is_some() { "is required and must not be null" } else { "is required" };
            reader.errors.push(at.member(name), message);
        }
        value
    }
}

/// An object with any members, in order.
pub(crate) type AnyMembers<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// What one pass over an object found.
struct Found<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<&'a RawValue>; N],
    unknown: HashSet<Cow<'a, str>>,
    /// Unknown members in order, to report them so.
    unknown_order: Vec<Cow<'a, str>>,
    /// The first member named twice: its name, and a slice of the text at (or just after) the second.
    twice: Option<(String, &'a str)>,
}

impl<'a, const N: usize> Found<'a, N> {
    fn take(&mut self, key: Cow<'a, str>, value: &'a RawValue) {
        let again = match self.names.iter().position(|known| *known == key) {
            Some(index) => self.values[index].replace(value).is_some(),
            None if self.unknown.len() >= UNKNOWN_MAX => self.unknown.contains(&key),
            None => {
                let again = !self.unknown.insert(key.clone());
                if !again {
                    self.unknown_order.push(key.clone());
                }
                again
            }
        };
        if again && self.twice.is_none() {
            let near = match key {
                Cow::Borrowed(text) => text,
                Cow::Owned(_) => value.get(),
            };
            self.twice = Some((key.into_owned(), near));
        }
    }
}

struct Collect<'r, 'a, const N: usize>(&'r mut Found<'a, N>);

impl<'a, const N: usize> DeserializeSeed<'a> for Collect<'_, 'a, N> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a, const N: usize> Visitor<'a> for Collect<'_, 'a, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value()?;
            self.0.take(key, value);
        }
        Ok(())
    }
}

/// Keeps every member.
struct CollectAny<'r, 'a>(&'r mut AnyMembers<'a>);

impl<'a> Visitor<'a> for CollectAny<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            self.0.push((key, map.next_value()?));
        }
        Ok(())
    }
}

/// Keeps the first items and counts all.
struct CollectItems<'r, 'a> {
    items: &'r mut Vec<&'a RawValue>,
    max: usize,
}

impl<'a> Visitor<'a> for CollectItems<'_, 'a> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while count < self.max {
            match seq.next_element()? {
                Some(item) => self.items.push(item),
                None => return Ok(count),
            }
            count += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

/// The first items of an array, and how many it has.
pub(crate) struct Items<'a> {
    /// At most as many as were asked for.
    pub(crate) items: Vec<&'a RawValue>,
    /// All.
    pub(crate) count: usize,
}

impl<'a> Reader<'a, '_> {
    /// Opens an object whose members are `names`. `text` is the document or a value of it. Members
    /// with other names are errors; a value that is no object is one, and answers `None`.
    pub(crate) fn open<const N: usize>(
        &mut self,
        text: &'a str,
        at: At<'_>,
        names: &'static [&'static str; N],
    ) -> Read<Option<Fields<'a, N>>> {
        let mut found =
            Found { names, values: [None; N], unknown: HashSet::new(), unknown_order: Vec::new(), twice: None };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let outcome = Collect(&mut found).deserialize(&mut deserializer).and_then(|()| deserializer.end());
        if let Err(error) = outcome {
            self.judge(text, at, "an object", &error)?;
            return Ok(None);
        }
        if let Some((name, near)) = found.twice {
            return Err(self.named_twice(&name, near));
        }
        for name in &found.unknown_order {
            self.errors.push(at.member(name), unknown_member(names));
        }
        Ok(Some(Fields { names, values: found.values }))
    }

    /// Opens an object whose members have any names, each at most once.
    pub(crate) fn open_any(&mut self, text: &'a str, at: At<'_>) -> Read<Option<AnyMembers<'a>>> {
        let mut members = Vec::new();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let outcome = deserializer.deserialize_map(CollectAny(&mut members)).and_then(|()| deserializer.end());
        if let Err(error) = outcome {
            self.judge(text, at, "an object", &error)?;
            return Ok(None);
        }
        let mut seen = HashSet::new();
        for (key, value) in &members {
            if !seen.insert(key.as_ref()) {
                let near = match key {
                    Cow::Borrowed(text) => text,
                    Cow::Owned(_) => value.get(),
                };
                return Err(self.named_twice(key, near));
            }
        }
        Ok(Some(members))
    }

    /// Opens an array, keeping at most `max` items.
    pub(crate) fn items(&mut self, text: &'a str, at: At<'_>, max: usize) -> Read<Option<Items<'a>>> {
        let mut items = Vec::new();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let visitor = CollectItems { items: &mut items, max };
        let outcome = deserializer.deserialize_seq(visitor).and_then(|count| deserializer.end().map(|()| count));
        match outcome {
            Ok(count) => Ok(Some(Items { items, count })),
            Err(error) => {
                self.judge(text, at, "an array", &error)?;
                Ok(None)
            }
        }
    }

    /// Not JSON at all, or only not what was wanted? The first ends the reading.
    fn judge(&mut self, text: &'a str, at: At<'_>, wanted: &str, error: &serde_json::Error) -> Read<()> {
        if let Err(syntax) = serde_json::from_str::<&RawValue>(text) {
            return Err(self.malformed(text, &syntax));
        }
        if !error.is_data() {
            // A name with half a surrogate pair: grammatical, but no text.
            return Err(self.malformed(text, error));
        }
        self.errors.push(at, format!("must be {wanted}, not {}", kind_of(text)));
        Ok(())
    }

    /// The member `name` is named again at `near`: its second name without the quote, or its value.
    pub(crate) fn named_twice(&self, name: &str, near: &str) -> Malformed {
        let shown: String = name.chars().take(64).collect();
        let offset = self.offset_of(near);
        let quote =
            usize::from(!near.is_empty() && self.document().as_bytes().get(offset.wrapping_sub(1)) == Some(&b'"'));
        Malformed::new(offset - quote, format!("the member \"{shown}\" is named twice"))
    }
}

/// What to say of a member that is none of `names`.
fn unknown_member(names: &[&str]) -> String {
    if names.is_empty() {
        "unknown member; this request has none".into()
    } else {
        format!("unknown member; allowed: {}", names.join(", "))
    }
}
