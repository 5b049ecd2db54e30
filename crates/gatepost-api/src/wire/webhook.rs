//! Webhooks to create, change, test and rotate. Kinds and shapes are judged here, meanings (URL
//! rules, patterns, filters, bounds) by the engine.

use gatepost_core::auth::EndpointAuth;
use gatepost_core::event::EventType;
use gatepost_core::retry::{GoneRule, RetryAfterOverride, RetryClass, RetryOverride};
use gatepost_core::secret::{MASK, Secret};
use gatepost_core::webhook::{Webhook, WebhookConfig, bounds};
use gatepost_engine::ops::{TestInput, WebhookInput};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::value::{kind_of, own_bytes, too_deep};
use super::webhook_members::replace_auth;
use super::{At, Read, Reader};

/// Members of a webhook that can be written.
pub(crate) const WEBHOOK: [&str; 23] = [
    "name",
    "description",
    "url",
    "events",
    "filter",
    "profile",
    "format",
    "signing",
    "payload",
    "options",
    "headers",
    "auth",
    "retry",
    "timeout_ms",
    "batch",
    "verification",
    "paths",
    "ordering",
    "rate_limit_per_s",
    "max_in_flight",
    "secret",
    "enabled",
    "paused",
];
/// Members of a retry override.
pub(crate) const RETRY: [&str; 5] = ["waits", "jitter", "retry_on", "gone", "retry_after"];
/// Members of `retry.retry_after`.
pub(crate) const RETRY_AFTER: [&str; 2] = ["statuses", "cap_s"];
/// Members of a test.
pub(crate) const TEST: [&str; 2] = ["event_type", "data"];
/// Members of a rotation.
pub(crate) const ROTATE: [&str; 2] = ["overlap_seconds", "secret"];

/// Members of a webhook that can only be set when it is made, and what to do instead.
const FIXED: [(&str, &str); 2] = [
    ("profile", "is fixed at creation; make a new webhook for another profile"),
    ("secret", "is fixed at creation; import another with rotate-secret"),
];

/// Items read of any list of a webhook; the engine's own bounds are lower.
pub(super) const LIST_MAX: usize = 1_000;

const GONE: [(&str, GoneRule); 3] =
    [("cancel", GoneRule::Cancel), ("disable", GoneRule::Disable), ("final", GoneRule::Final)];

impl<'a> Reader<'a, '_> {
    /// A whole webhook, as for creation. Members that cannot be read are `None`, and noted. Missing
    /// members are the engine's to miss.
    pub(crate) fn webhook(&mut self) -> Read<WebhookInput> {
        let at = At::Root;
        let Some(fields) = self.open(self.document(), at, &WEBHOOK)? else { return Ok(WebhookInput::default()) };
        let text = |reader: &mut Self, name| {
            fields.optional(name).and_then(|raw| reader.string(raw, at.member(name))).map(String::from)
        };
        // Reads a member with the reader of its kind.
        macro_rules! member {
            ($name:literal, $read:ident $(, $more:expr)*) => {
                match fields.optional($name) {
                    Some(raw) => self.$read(raw, at.member($name) $(, $more)*)?,
                    None => Default::default(),
                }
            };
        }
        Ok(WebhookInput {
            name: text(self, "name"),
            description: text(self, "description"),
            url: text(self, "url"),
            events: match fields.optional("events") {
                Some(raw) => {
                    self.list(raw, at.member("events"), |reader, raw, at| reader.string(raw, at).map(String::from))?
                }
                None => None,
            },
            filter: text(self, "filter"),
            profile: text(self, "profile"),
            format: text(self, "format"),
            signing: member!("signing", signing),
            payload: member!("payload", payload),
            options: member!("options", options),
            headers: member!("headers", headers, false),
            auth: member!("auth", auth),
            retry: member!("retry", retry),
            timeout_ms: fields
                .optional("timeout_ms")
                .and_then(|raw| self.integer(raw, at.member("timeout_ms"), bounds::TIMEOUT_MS)),
            batch: member!("batch", batching),
            verification: member!("verification", verification),
            paths: member!("paths", paths, false),
            ordering: fields.optional("ordering").and_then(|raw| self.ordering(raw, at.member("ordering"))),
            rate_limit_per_s: fields
                .optional("rate_limit_per_s")
                .and_then(|raw| self.integer(raw, at.member("rate_limit_per_s"), bounds::RATE_LIMIT_PER_S)),
            foreign: None,
            max_in_flight: fields
                .optional("max_in_flight")
                .and_then(|raw| self.integer(raw, at.member("max_in_flight"), bounds::MAX_IN_FLIGHT)),
            secret: text(self, "secret").map(Secret::new),
            enabled: fields.optional("enabled").and_then(|raw| self.boolean(raw, at.member("enabled"))),
            paused: fields.optional("paused").and_then(|raw| self.boolean(raw, at.member("paused"))),
        })
    }

    /// Judges a merge patch (RFC 7396) by itself: its members must be ones that can be changed, at
    /// every level, and of the right kind or null. Answers it as a value to merge.
    pub(crate) fn webhook_patch(&mut self) -> Read<Option<Value>> {
        let at = At::Root;
        let Some(fields) = self.open(self.document(), at, &WEBHOOK)? else { return Ok(None) };
        for (name, remedy) in FIXED {
            // An echoed mask keeps the value, as it does for every other secret.
            let echoed = |raw: &RawValue| name == "secret" && raw.get().trim_matches('"') == MASK;
            if fields.given(name).is_some_and(|raw| !echoed(raw)) {
                self.errors.push(at.member(name), remedy);
            }
        }
        for name in ["name", "url", "events"] {
            if fields.given(name).is_some_and(|raw| raw.get() == "null") {
                self.errors.push(at.member(name), "is required and must not be null");
            }
        }
        if let Some(raw) = fields.optional("headers") {
            self.headers(raw, at.member("headers"), true)?;
        }
        if let Some(raw) = fields.optional("retry") {
            self.retry(raw, at.member("retry"))?;
        }
        self.nested_patch(&fields, at)?;
        // What is left to judge (kinds of texts, numbers, lists) is judged in the merged whole.
        if too_deep(self.document()) {
            self.errors.push(at, "is nested too deep");
            return Ok(None);
        }
        match serde_json::from_str(self.document()) {
            Ok(patch) => Ok(Some(patch)),
            // Its syntax is known to be right: what is left is half a surrogate pair in a text.
            Err(error) => {
                let malformed = self.malformed(self.document(), &error);
                Err(malformed)
            }
        }
    }

    /// A list of at most [`LIST_MAX`] items; `None` if any is wrong.
    pub(super) fn list<T>(
        &mut self,
        raw: &'a RawValue,
        at: At<'_>,
        mut read: impl FnMut(&mut Self, &'a RawValue, At<'_>) -> Option<T>,
    ) -> Read<Option<Vec<T>>> {
        let Some(list) = self.items(raw.get(), at, LIST_MAX)? else { return Ok(None) };
        if list.count > LIST_MAX {
            self.errors.push(at, format!("must have at most {LIST_MAX} items"));
            return Ok(None);
        }
        let before = self.errors.len();
        let values: Vec<T> =
            list.items.into_iter().enumerate().filter_map(|(index, item)| read(self, item, at.item(index))).collect();
        Ok((self.errors.len() == before).then_some(values))
    }

    /// Names and values. In a patch a value may be null (it removes the header).
    fn headers(&mut self, raw: &'a RawValue, at: At<'_>, patch: bool) -> Read<Vec<(String, String)>> {
        let members = self.open_any(raw.get(), at)?.unwrap_or_default();
        let mut headers = Vec::new();
        for (name, value) in members {
            if patch && value.get() == "null" {
                continue;
            }
            if let Some(value) = self.string(value, at.member(&name)) {
                headers.push((name.into_owned(), value.into_owned()));
            }
        }
        Ok(headers)
    }

    fn retry(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<RetryOverride>> {
        let Some(fields) = self.open(raw.get(), at, &RETRY)? else { return Ok(None) };
        let waits = match fields.optional("waits") {
            Some(raw) => self.list(raw, at.member("waits"), |reader, raw, at| reader.number(raw, at))?,
            None => None,
        };
        let retry_on = match fields.optional("retry_on") {
            Some(raw) => self.list(raw, at.member("retry_on"), Self::retry_class)?,
            None => None,
        };
        let retry_after = match fields.optional("retry_after") {
            Some(raw) => self.retry_after(raw, at.member("retry_after"))?,
            None => None,
        };
        Ok(Some(RetryOverride {
            waits,
            jitter: fields.optional("jitter").and_then(|raw| self.number(raw, at.member("jitter"))),
            retry_on,
            gone: fields.optional("gone").and_then(|raw| self.word(raw, at.member("gone"), &GONE)),
            retry_after,
        }))
    }

    fn retry_after(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<RetryAfterOverride>> {
        let Some(fields) = self.open(raw.get(), at, &RETRY_AFTER)? else { return Ok(None) };
        let statuses = match fields.optional("statuses") {
            Some(raw) => self.list(raw, at.member("statuses"), |reader, raw, at| {
                reader.integer(raw, at, 300..=599).and_then(|status| u16::try_from(status).ok())
            })?,
            None => None,
        };
        let cap_s = fields.optional("cap_s").and_then(|raw| self.integer(raw, at.member("cap_s"), 1..=u32::MAX));
        Ok(Some(RetryAfterOverride { statuses, cap_s }))
    }

    /// A class as a text, a single status as a number or a text.
    fn retry_class(&mut self, raw: &'a RawValue, at: At<'_>) -> Option<RetryClass> {
        if kind_of(raw.get()) == "a number" {
            let class = raw.get().parse().ok().and_then(|status| RetryClass::status(status).ok());
            if class.is_none() {
                self.errors.push(at, gatepost_core::retry::BadRetryClass.to_string());
            }
            return class;
        }
        self.parsed(raw, at)
    }

    /// What to test with. An empty body is an empty object.
    pub(crate) fn test(&mut self) -> Read<TestInput> {
        let at = At::Root;
        let Some(text) = self.given_document() else { return Ok(TestInput::default()) };
        let Some(fields) = self.open(text, at, &TEST)? else { return Ok(TestInput::default()) };
        let event_type: Option<EventType> =
            fields.optional("event_type").and_then(|raw| self.parsed(raw, at.member("event_type")));
        // Here null is a value: the event's data may be null.
        let data = fields.given("data").and_then(|raw| self.json(raw, at.member("data"))).map(own_bytes);
        Ok(TestInput { event_type, data })
    }

    /// How long the old secret goes on, and the new one if it is imported.
    pub(crate) fn rotation(&mut self) -> Read<(Option<u32>, Option<Secret>)> {
        let at = At::Root;
        let Some(text) = self.given_document() else { return Ok((None, None)) };
        let Some(fields) = self.open(text, at, &ROTATE)? else { return Ok((None, None)) };
        let overlap = fields
            .optional("overlap_seconds")
            .and_then(|raw| self.integer(raw, at.member("overlap_seconds"), 0..=bounds::OVERLAP_SECONDS_MAX));
        let secret = fields.optional("secret").and_then(|raw| self.string(raw, at.member("secret")));
        Ok((overlap, secret.map(|text| Secret::new(text.into_owned()))))
    }

    /// Nothing but an empty body or an empty object.
    pub(crate) fn nothing(&mut self) -> Read<()> {
        if let Some(text) = self.given_document() {
            self.open(text, At::Root, &[])?;
        }
        Ok(())
    }

    /// The document, unless there is none.
    pub(crate) fn given_document(&self) -> Option<&'a str> {
        let document = self.document();
        (!document.trim_ascii().is_empty()).then_some(document)
    }
}

/// What can be changed of a webhook, as it would be written now: what a patch is merged into.
pub(crate) fn writable(webhook: &Webhook) -> Value {
    writable_config(&webhook.config)
}

/// As [`writable`], by what is registered alone.
pub(crate) fn writable_config(config: &WebhookConfig) -> Value {
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| {
        // As in a patch, null is absence.
        if !value.is_null() {
            object.insert(name.to_owned(), value);
        }
    };
    set("name", config.name.clone().into());
    set("description", config.description.clone().into());
    set("url", config.url.clone().into());
    set("events", config.events.clone().into());
    set("filter", config.filter.clone().into());
    let masked = config.header_names.iter().map(|name| (name.clone(), MASK.into())).collect();
    set("headers", Value::Object(masked));
    // Numbers, words and lists of them: cannot fail.
    set("retry", serde_json::to_value(&config.retry).unwrap_or_default());
    set("timeout_ms", config.timeout_ms.into());
    set("max_in_flight", config.max_in_flight.into());
    set("format", config.format.clone().into());
    set("options", Value::Object(config.options.clone()));
    set("rate_limit_per_s", config.rate_limit_per_s.into());
    set("ordering", config.ordering.as_str().into());
    // Texts, numbers and lists of them: cannot fail.
    set("signing", serde_json::to_value(&config.signing).unwrap_or_default());
    set("payload", serde_json::to_value(&config.payload).unwrap_or_default());
    set("batch", serde_json::to_value(config.batch).unwrap_or_default());
    set("verification", serde_json::to_value(&config.verification).unwrap_or_default());
    set("paths", serde_json::to_value(&config.paths).unwrap_or_default());
    set("auth", config.auth.as_ref().map(masked_auth).unwrap_or_default());
    set("enabled", config.enabled.into());
    set("paused", config.paused.into());
    Value::Object(object)
}

/// An auth as it is answered, and as a patch is merged into it.
pub(crate) fn masked_auth(auth: &EndpointAuth) -> Value {
    // Texts: cannot fail.
    let mut value = serde_json::to_value(auth).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        members.insert(auth.secret_member().to_owned(), MASK.into());
    }
    value
}

/// Merges a patch into a [`writable`] webhook. Header names are the same in any case, so a header the
/// patch names takes the patch's spelling before it is merged.
pub(crate) fn merge_webhook(target: &mut Value, patch: &Value) {
    if let (Some(Value::Object(present)), Some(Value::Object(patched))) =
        (target.get_mut("headers"), patch.get("headers"))
    {
        for name in patched.keys() {
            let known = present.keys().find(|known| known.eq_ignore_ascii_case(name)).cloned();
            if let Some(known) = known.filter(|known| known != name && !patched.contains_key(known))
                && let Some(value) = present.remove(&known)
            {
                present.insert(name.clone(), value);
            }
        }
    }
    replace_auth(target, patch);
    merge(target, patch);
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn headers_are_merged_in_any_case() {
        let present = json!({"name": "w", "headers": {"X-A": "***", "X-B": "***"}});
        let cases = [
            (json!({"x-a": null}), json!({"X-B": "***"})),
            (json!({"x-a": "3"}), json!({"x-a": "3", "X-B": "***"})),
            (json!({"x-A": "***"}), json!({"x-A": "***", "X-B": "***"})),
            (json!({"x-c": "1"}), json!({"X-A": "***", "X-B": "***", "x-c": "1"})),
            // To rename one by hand, as was needed before, still works.
            (json!({"X-A": null, "x-a": "3"}), json!({"x-a": "3", "X-B": "***"})),
            (json!({"x-a": "3", "X-A": null}), json!({"x-a": "3", "X-B": "***"})),
        ];
        for (headers, result) in cases {
            let mut target = present.clone();
            merge_webhook(&mut target, &json!({"headers": headers}));
            assert_eq!(target, json!({"name": "w", "headers": result}), "{headers}");
        }
        let mut target = present;
        merge_webhook(&mut target, &json!({"headers": null}));
        assert_eq!(target, json!({"name": "w"}));
    }

    #[test]
    fn merging_follows_the_examples_of_rfc_7396() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (mut target, patch, result) in cases {
            merge(&mut target, &patch);
            assert_eq!(target, result, "{patch}");
        }
    }
}
