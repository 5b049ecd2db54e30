//! The members of a webhook that are objects and lists of their own: what is sent, how it is signed,
//! and how Gatepost proves itself. Shapes are judged here, meanings by the engine.

use std::collections::BTreeMap;

use gatepost_core::auth::EndpointAuth;
use gatepost_core::secret::Secret;
use gatepost_core::webhook::{Batch, Ordering, Payload, PayloadMode, SigningEntry, Verification};
use gatepost_engine::ops::AuthInput;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::object::Fields;
use super::{At, Read, Reader};

/// Members of an entry of `signing`.
pub(crate) const SIGNING: [&str; 2] = ["scheme", "header"];
/// Members of `payload`.
pub(crate) const PAYLOAD: [&str; 3] = ["mode", "include", "exclude"];
/// Members of `batch`.
pub(crate) const BATCH: [&str; 3] = ["max_events", "max_wait_ms", "max_bytes"];
/// Members of `verification` that can be written.
pub(crate) const VERIFICATION: [&str; 2] = ["mode", "required"];
/// Members of `auth`, of all its types.
pub(crate) const AUTH: [&str; 13] = [
    "type",
    "token",
    "username",
    "password",
    "name",
    "value",
    "token_url",
    "client_id",
    "client_secret",
    "scope",
    "audience",
    "certificate",
    "private_key",
];

const MODES: [(&str, PayloadMode); 2] = [("full", PayloadMode::Full), ("thin", PayloadMode::Thin)];
const ORDERINGS: [(&str, Ordering); 3] =
    [("none", Ordering::None), ("subject", Ordering::Subject), ("webhook", Ordering::Webhook)];

/// The types of `auth`, each with the members it has; those in the second list may be left out.
const AUTH_TYPES: [(&str, &[&str], &[&str]); 5] = [
    ("bearer", &["token"], &[]),
    ("basic", &["username", "password"], &[]),
    ("header", &["name", "value"], &[]),
    ("oauth2", &["token_url", "client_id", "client_secret"], &["scope", "audience"]),
    ("mtls", &["certificate", "private_key"], &[]),
];

impl<'a> Reader<'a, '_> {
    /// Which schemes sign.
    pub(super) fn signing(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<Vec<SigningEntry>>> {
        let Some(list) = self.items(raw.get(), at, super::webhook::LIST_MAX)? else { return Ok(None) };
        let before = self.errors.len();
        let mut entries = Vec::new();
        for (index, item) in list.items.into_iter().enumerate() {
            let at = at.item(index);
            let Some(fields) = self.open(item.get(), at, &SIGNING)? else { continue };
            let scheme = fields.required("scheme", at, self);
            let scheme = scheme.and_then(|raw| self.string(raw, at.member("scheme"))).map(String::from);
            let header = fields.optional("header");
            let header = header.and_then(|raw| self.string(raw, at.member("header"))).map(String::from);
            entries.extend(scheme.map(|scheme| SigningEntry { scheme, header }));
        }
        Ok((self.errors.len() == before).then_some(entries))
    }

    /// What of `data` is sent.
    pub(super) fn payload(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<Payload>> {
        let Some(fields) = self.open(raw.get(), at, &PAYLOAD)? else { return Ok(None) };
        let mode = fields.optional("mode").and_then(|raw| self.word(raw, at.member("mode"), &MODES));
        let mut pointers = |name: &'static str| match fields.optional(name) {
            Some(raw) => self.list(raw, at.member(name), |reader, raw, at| reader.string(raw, at).map(String::from)),
            None => Ok(None),
        };
        let (include, exclude) = (pointers("include")?, pointers("exclude")?);
        Ok(Some(Payload { mode: mode.unwrap_or_default(), include, exclude }))
    }

    /// When events wait for each other. What is not given is the default.
    pub(super) fn batching(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<Batch>> {
        let Some(fields) = self.open(raw.get(), at, &BATCH)? else { return Ok(None) };
        let mut number = |name: &'static str, default: u32| match fields.optional(name) {
            // The bounds are the engine's.
            Some(raw) => self.integer(raw, at.member(name), 0..=u32::MAX).unwrap_or(default),
            None => default,
        };
        let default = Batch::default();
        Ok(Some(Batch {
            max_events: number("max_events", default.max_events),
            max_wait_ms: number("max_wait_ms", default.max_wait_ms),
            max_bytes: number("max_bytes", default.max_bytes),
        }))
    }

    /// How the endpoint proves itself.
    pub(super) fn verification(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<Verification>> {
        let Some(fields) = self.open(raw.get(), at, &VERIFICATION)? else { return Ok(None) };
        let mode = fields.required("mode", at, self);
        let mode = mode.and_then(|raw| self.string(raw, at.member("mode"))).map(String::from);
        let required = fields.optional("required").and_then(|raw| self.boolean(raw, at.member("required")));
        Ok(mode.map(|mode| Verification { mode, required }))
    }

    /// Names and texts. In a patch a value may be null (it removes the member).
    pub(super) fn paths(&mut self, raw: &'a RawValue, at: At<'_>, patch: bool) -> Read<BTreeMap<String, String>> {
        let members = self.open_any(raw.get(), at)?.unwrap_or_default();
        let mut paths = BTreeMap::new();
        for (name, value) in members {
            if patch && value.get() == "null" {
                continue;
            }
            if let Some(path) = self.string(value, at.member(&name)) {
                paths.insert(name.into_owned(), path.into_owned());
            }
        }
        Ok(paths)
    }

    /// Any members, each said once.
    pub(super) fn options(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Map<String, Value>> {
        let Some(raw) = self.json_object(raw, at)? else { return Ok(Map::new()) };
        match serde_json::from_str(raw.get()) {
            Ok(options) => Ok(options),
            // It is known to be an object: what is left is half a surrogate pair in a text.
            Err(error) => {
                let malformed = self.malformed(raw.get(), &error);
                Err(malformed)
            }
        }
    }

    /// The word for an order.
    pub(super) fn ordering(&mut self, raw: &'a RawValue, at: At<'_>) -> Option<Ordering> {
        self.word(raw, at, &ORDERINGS)
    }

    /// How Gatepost proves itself.
    pub(super) fn auth(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<AuthInput>> {
        let Some(fields) = self.open(raw.get(), at, &AUTH)? else { return Ok(None) };
        let before = self.errors.len();
        let words = AUTH_TYPES.map(|auth| (auth.0, auth));
        let Some(kind) = fields.required("type", at, self) else { return Ok(None) };
        let Some((name, required, optional)) = self.word(kind, at.member("type"), &words) else { return Ok(None) };
        for member in AUTH.iter().filter(|member| **member != "type") {
            if !required.contains(member) && !optional.contains(member) && fields.optional(member).is_some() {
                let allowed = [required, optional].concat().join(", ");
                self.errors.push(at.member(member), format!("is no member of type {name}; it has {allowed}"));
            }
        }
        let texts: BTreeMap<&str, String> = [required, optional]
            .concat()
            .into_iter()
            .filter_map(|member| Some((member, self.auth_text(&fields, at, member, required.contains(&member))?)))
            .collect();
        Ok(auth_of(name, texts).filter(|_| self.errors.len() == before))
    }

    fn auth_text<const N: usize>(
        &mut self,
        fields: &Fields<'a, N>,
        at: At<'_>,
        member: &str,
        required: bool,
    ) -> Option<String> {
        let raw = if required { fields.required(member, at, self) } else { fields.optional(member) };
        raw.and_then(|raw| self.string(raw, at.member(member))).map(String::from)
    }

    /// Judges the members of a patch that are objects, as far as merging would hide what is wrong: names
    /// that are none, and values of no use at any place.
    pub(super) fn nested_patch<const N: usize>(&mut self, fields: &Fields<'a, N>, at: At<'_>) -> Read<()> {
        if let Some(raw) = fields.optional("signing") {
            self.signing(raw, at.member("signing"))?;
        }
        if let Some(raw) = fields.optional("payload") {
            self.payload(raw, at.member("payload"))?;
        }
        if let Some(raw) = fields.optional("batch") {
            self.batching(raw, at.member("batch"))?;
        }
        if let Some(raw) = fields.optional("verification") {
            self.open(raw.get(), at.member("verification"), &VERIFICATION)?;
        }
        if let Some(raw) = fields.optional("auth") {
            self.open(raw.get(), at.member("auth"), &AUTH)?;
        }
        if let Some(raw) = fields.optional("paths") {
            self.paths(raw, at.member("paths"), true)?;
        }
        if let Some(raw) = fields.optional("options") {
            self.json_object(raw, at.member("options"))?;
        }
        Ok(())
    }
}

/// An auth of this type from its texts; `None` when one is missing.
fn auth_of(name: &str, mut texts: BTreeMap<&str, String>) -> Option<AuthInput> {
    let mut take = |member: &str| texts.remove(member);
    let (auth, secret) = match name {
        "bearer" => (EndpointAuth::Bearer, take("token")?),
        "basic" => (EndpointAuth::Basic { username: take("username")? }, take("password")?),
        "header" => (EndpointAuth::Header { name: take("name")? }, take("value")?),
        "oauth2" => {
            let (token_url, client_id) = (take("token_url")?, take("client_id")?);
            let (scope, audience) = (take("scope"), take("audience"));
            (EndpointAuth::Oauth2 { token_url, client_id, scope, audience }, take("client_secret")?)
        }
        "mtls" => (EndpointAuth::Mtls { certificate: take("certificate")? }, take("private_key")?),
        _ => return None,
    };
    Some(AuthInput { auth, secret: Some(Secret::new(secret)) })
}

/// Before a patch of another `type` of auth is merged: nothing of the present one stays.
pub(super) fn replace_auth(target: &mut Value, patch: &Value) {
    let kind = |value: &Value| value.get("auth").and_then(|auth| auth.get("type")).cloned();
    let patched = kind(patch);
    if patched.is_some()
        && patched != kind(target)
        && let Some(members) = target.as_object_mut()
    {
        members.remove("auth");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Errors;
    use super::*;

    fn read(text: &str) -> (Option<AuthInput>, Vec<String>) {
        let mut errors = Errors::default();
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let mut reader = Reader::new(text.as_bytes(), &mut errors).unwrap();
        let auth = reader.auth(raw, At::Root.member("auth")).unwrap();
        (auth, errors.into_list().into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn every_type_of_auth_with_its_own_members_and_no_others() {
        let good = [
            (json!({"type": "bearer", "token": "t"}), EndpointAuth::Bearer, "t"),
            (
                json!({"type": "basic", "username": "u", "password": "p"}),
                EndpointAuth::Basic { username: "u".into() },
                "p",
            ),
            (json!({"type": "header", "name": "N", "value": "v"}), EndpointAuth::Header { name: "N".into() }, "v"),
            (
                json!({"type": "oauth2", "token_url": "https://t", "client_id": "c", "client_secret": "s", "scope": "x"}),
                EndpointAuth::Oauth2 {
                    token_url: "https://t".into(),
                    client_id: "c".into(),
                    scope: Some("x".into()),
                    audience: None,
                },
                "s",
            ),
            (
                json!({"type": "mtls", "certificate": "C", "private_key": "K"}),
                EndpointAuth::Mtls { certificate: "C".into() },
                "K",
            ),
        ];
        for (value, auth, secret) in good {
            let (found, errors) = read(&value.to_string());
            assert_eq!(errors, Vec::<String>::new(), "{value}");
            let found = found.unwrap();
            assert_eq!((found.auth, found.secret.unwrap().expose()), (auth, secret));
        }
        let bad: [(Value, &[&str]); 6] = [
            (json!({}), &["/auth/type"]),
            (json!({"type": "digest"}), &["/auth/type"]),
            (json!({"type": "bearer"}), &["/auth/token"]),
            (
                json!({"type": "basic", "username": 7, "token": "t"}),
                &["/auth/token", "/auth/username", "/auth/password"],
            ),
            (json!({"type": "bearer", "token": null, "extra": 1}), &["/auth/extra", "/auth/token"]),
            (json!("bearer"), &["/auth"]),
        ];
        for (value, pointers) in bad {
            let (found, errors) = read(&value.to_string());
            assert!(found.is_none(), "{value}");
            assert_eq!(errors, pointers, "{value}");
        }
    }

    #[test]
    fn a_patch_of_another_type_leaves_nothing_of_the_present_auth() {
        let present = json!({"auth": {"type": "bearer", "token": "***"}});
        let merged = |patch: Value| {
            let mut target = present.clone();
            replace_auth(&mut target, &patch);
            target
        };
        assert_eq!(merged(json!({"auth": {"type": "basic", "username": "u"}})), json!({}));
        assert_eq!(merged(json!({"auth": {"type": "bearer", "token": "t"}})), present);
        assert_eq!(merged(json!({"auth": {"token": "t"}})), present);
        assert_eq!(merged(json!({"auth": null})), present);
        assert_eq!(merged(json!({"name": "n"})), present);
    }
}
