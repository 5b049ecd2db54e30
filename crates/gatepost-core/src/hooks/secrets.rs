//! Secrets of an invocation: apart from everything else from the moment it is read (P7).
//!
//! What the point names as secret (`passwordText`, `user.securityQuestion`) is *lifted* out of
//! `object`, `old_object` and `context` while the invocation is read. Conditions, diffs, records
//! and debug output then cannot see it, because it is not there. Two writers put it back: the body
//! for a hook that was granted secrets, and the answer to the platform it came from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use zeroize::{Zeroize, Zeroizing};

use super::json::{Pointer, Value};
use crate::secret::MASK;

/// A JSON value that must never be printed, logged or serialised by accident; wiped on drop.
#[derive(Clone, PartialEq)]
pub struct SecretJson(Value);

impl SecretJson {
    /// Wraps a value.
    pub fn new(value: Value) -> Self {
        SecretJson(value)
    }

    /// The value itself. The only way to it, so that every use can be found.
    pub fn expose(&self) -> &Value {
        &self.0
    }
}

impl Drop for SecretJson {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for SecretJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Overwrites every text in a value.
pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Raw(raw) => raw.wipe(),
        Value::Object(members) => {
            for (name, member) in members.unnamed_mut() {
                name.wipe();
                wipe(member);
            }
            for (mut name, mut member) in std::mem::take(members) {
                name.zeroize();
                wipe(&mut member);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Secret members that were taken out of one document, with their places.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Lifted(Vec<(Pointer, SecretJson)>);

impl Lifted {
    /// Takes the members at `pointers` out of `document`.
    pub fn lift(document: &mut Value, pointers: &[Pointer]) -> Self {
        let out = |pointer: &Pointer| Some((pointer.clone(), SecretJson(pointer.remove(document)?)));
        Lifted(pointers.iter().filter_map(out).collect())
    }

    /// Puts them back where their surroundings are still there.
    pub(super) fn restore(&self, document: &mut Value) {
        for (pointer, secret) in &self.0 {
            if let Err(mut homeless) = pointer.insert(document, secret.0.clone()) {
                wipe(&mut homeless);
            }
        }
    }

    /// What was at `pointer`.
    pub fn get(&self, pointer: &Pointer) -> Option<&SecretJson> {
        self.0.iter().find(|(at, _)| at == pointer).map(|(_, secret)| secret)
    }

    /// Sets what is to be at `pointer`; `None` removes it.
    pub(super) fn set(&mut self, pointer: &Pointer, secret: Option<SecretJson>) {
        self.0.retain(|(at, _)| at != pointer);
        self.0.extend(secret.map(|secret| (pointer.clone(), secret)));
    }

    /// Places and secrets.
    pub fn iter(&self) -> impl Iterator<Item = (&Pointer, &SecretJson)> {
        self.0.iter().map(|(pointer, secret)| (pointer, secret))
    }

    /// Whether nothing was lifted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Everything secret of one invocation.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Secrets {
    /// `secrets` as given, by name (`passwordText`).
    pub named: BTreeMap<String, SecretJson>,
    /// What was in `object`.
    pub object: Lifted,
    /// What was in `old_object`.
    pub old_object: Lifted,
    /// What was in `context`.
    pub context: Lifted,
}

/// Shorter texts are not looked for: they occur by chance in everything.
const SHORTEST: usize = 4;

impl Secrets {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.object.is_empty() && self.old_object.is_empty() && self.context.is_empty()
    }

    fn each_text(&self, visit: &mut dyn FnMut(&str)) {
        fn walk(value: &Value, visit: &mut dyn FnMut(&str)) {
            match value {
                Value::String(text) if text.len() >= SHORTEST => visit(text),
                Value::Raw(raw) if raw.as_written().len() >= SHORTEST + 2 => visit(unquoted(raw.as_written())),
                Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
                Value::Object(members) => {
                    members.values().for_each(|member| walk(member, visit));
                    members.unnamed().iter().for_each(|(_, member)| walk(member, visit));
                }
                _ => {}
            }
        }
        self.named.values().for_each(|secret| walk(secret.expose(), visit));
        for lifted in [&self.object, &self.old_object, &self.context] {
            lifted.iter().for_each(|(_, secret)| walk(secret.expose(), visit));
        }
    }

    /// The text with every secret text (of four bytes or more) in it masked, as it is and as JSON
    /// writes it: a receiver may repeat the password in its refusal, and refusals are kept.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = Cow::Borrowed(text);
        self.each_text(&mut |secret| {
            let quoted = Zeroizing::new(Value::from(secret).to_string());
            for form in [secret, unquoted(&quoted)] {
                if out.contains(form) {
                    out = Cow::Owned(out.replace(form, MASK));
                }
            }
        });
        out
    }

    /// Whether a receiver's answer repeats a secret, plainly or as JSON writes it; then the answer
    /// must not be kept.
    pub fn occur_in(&self, bytes: &[u8]) -> bool {
        let mut found = false;
        self.each_text(&mut |secret| {
            let quoted = Zeroizing::new(Value::from(secret).to_string());
            let inner = unquoted(&quoted);
            found = found || contains(bytes, secret.as_bytes()) || contains(bytes, inner.as_bytes());
        });
        found
    }
}

/// A JSON text without its own quotes: a secret may begin or end with one.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// JSON on its way to the wire. When `secret`, the bytes are written once into an exact allocation
/// (growing would leave copies behind) that is wiped when the last holder lets go.
pub(super) fn to_wire(value: &impl Serialize, secret: bool) -> Bytes {
    if !secret {
        return serde_json::to_vec(value).map(Bytes::from).unwrap_or_default();
    }
    let mut length = Counter(0);
    // Writing maps with text keys into memory cannot fail.
    let _ = serde_json::to_writer(&mut length, value);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    let _ = serde_json::to_writer(&mut *bytes, value);
    Bytes::from_owner(bytes)
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::json::json;

    fn at(text: &str) -> Pointer {
        text.parse().unwrap()
    }

    #[test]
    fn p7_lifted_secrets_are_not_in_the_document_and_come_back() {
        let whole = json!({"user":{"login":"a","securityQuestion":{"pet":"Rex the dog"}}});
        let mut document = whole.clone();
        let lifted = Lifted::lift(&mut document, &[at("/user/securityQuestion"), at("/passwordText")]);
        assert_eq!(document, json!({"user":{"login":"a"}}));
        assert_eq!(format!("{lifted:?}"), r#"Lifted([("/user/securityQuestion", ***)])"#);
        lifted.restore(&mut document);
        assert_eq!(document, whole);
        let mut gone = json!({});
        lifted.restore(&mut gone);
        assert_eq!(gone, json!({}));
    }

    #[test]
    fn p7_a_repeated_secret_is_masked_and_found() {
        let mut secrets = Secrets::default();
        secrets.named.insert("passwordText".into(), SecretJson::new(json!("Wel\"come@123")));
        secrets.object = Lifted::lift(&mut json!({"q":{"pet":"Rex the dog"}}), &[at("/q")]);
        assert_eq!(secrets.mask("Rex the dog is no Wel\"come@123"), "*** is no ***");
        assert_eq!(secrets.mask("weak"), "weak");
        assert_eq!(secrets.mask(r#"{"p":"Wel\"come@123"}"#), r#"{"p":"***"}"#);
        assert!(secrets.occur_in(br#"{"why":"Wel\"come@123 is weak"}"#));
        assert!(secrets.occur_in(b"Wel\"come@123"));
        assert!(!secrets.occur_in(b"Welcome@123"));
        // Too short to be told from chance.
        secrets.named.insert("pin".into(), SecretJson::new(json!("12")));
        assert_eq!(secrets.mask("12 monkeys"), "12 monkeys");
    }

    #[test]
    fn secret_bytes_are_the_same_bytes() {
        let value = json!({"a":"ä\n","b":[1,2.5,null]});
        assert_eq!(to_wire(&value, true), to_wire(&value, false));
    }
}
