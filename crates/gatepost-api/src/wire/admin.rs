//! Tenants, keys and event types to write.

use std::sync::Arc;

use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::event::EventType;
use gatepost_core::tenant::{Environment, HookSwitch};
use gatepost_engine::ops::{
    KeyInput, QuotasInput, RetentionInput, SettingsInput, TenantInput, check_net, check_schema,
};
use gatepost_engine::store::Scope;
use serde_json::value::RawValue;

use super::event::URGENCIES;
use super::{At, Read, Reader};

/// Members of a tenant that can be written.
pub(crate) const TENANT: [&str; 3] = ["name", "environment", "settings"];
/// Members of a tenant's settings.
pub(crate) const SETTINGS: [&str; 7] =
    ["require_verification", "strict_types", "enforce_builtin_schemas", "retention", "hooks", "quotas", "allow_nets"];
/// Members of a tenant's retention.
pub(crate) const RETENTION: [&str; 2] = ["events_days", "attempts_days"];
/// Members of a tenant's quotas.
pub(crate) const QUOTAS: [&str; 3] = ["webhooks", "events_per_s", "pending"];
/// Members of a key that can be written.
pub(crate) const KEY: [&str; 4] = ["name", "scopes", "tenant", "expires_at"];
/// Members of an event type that can be written.
pub(crate) const EVENT_TYPE: [&str; 6] = ["family", "description", "example", "schema", "urgency", "deprecated"];

const ENVIRONMENTS: [(&str, Environment); 2] =
    [("production", Environment::Production), ("sandbox", Environment::Sandbox)];
const HOOK_SWITCHES: [(&str, HookSwitch); 2] = [("enabled", HookSwitch::Enabled), ("bypass", HookSwitch::Bypass)];
const SCOPES: [(&str, Scope); 5] = [
    ("admin", Scope::Admin),
    ("manage", Scope::Manage),
    ("publish", Scope::Publish),
    ("invoke", Scope::Invoke),
    ("read", Scope::Read),
];

/// Networks one tenant may open.
const NETS_MAX: usize = 100;
/// Days anything is kept at most.
const DAYS_MAX: u32 = 3_650;

impl<'a> Reader<'a, '_> {
    /// A tenant to put. An empty body is an empty object: absent members keep.
    pub(crate) fn tenant(&mut self) -> Read<TenantInput> {
        let at = At::Root;
        let Some(text) = self.given_document() else { return Ok(TenantInput::default()) };
        let Some(fields) = self.open(text, at, &TENANT)? else { return Ok(TenantInput::default()) };
        let name = fields.given("name").map(|raw| match raw.get() {
            "null" => None,
            _ => self.text(raw, at.member("name"), 1..=200),
        });
        let environment =
            fields.optional("environment").and_then(|raw| self.word(raw, at.member("environment"), &ENVIRONMENTS));
        let settings = match fields.optional("settings") {
            Some(raw) => self.settings(raw, at.member("settings"))?,
            None => None,
        };
        Ok(TenantInput { name, environment, settings })
    }

    fn settings(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<SettingsInput>> {
        let Some(fields) = self.open(raw.get(), at, &SETTINGS)? else { return Ok(None) };
        let require_verification = fields
            .optional("require_verification")
            .and_then(|raw| self.boolean(raw, at.member("require_verification")));
        let strict_types = fields.optional("strict_types").and_then(|raw| self.boolean(raw, at.member("strict_types")));
        let enforce_builtin_schemas = fields
            .optional("enforce_builtin_schemas")
            .and_then(|raw| self.boolean(raw, at.member("enforce_builtin_schemas")));
        let retention = match fields.optional("retention") {
            Some(raw) => self.retention(raw, at.member("retention"))?,
            None => RetentionInput::default(),
        };
        let hooks = fields.optional("hooks").and_then(|raw| self.word(raw, at.member("hooks"), &HOOK_SWITCHES));
        let quotas = match fields.given("quotas") {
            Some(raw) if raw.get() == "null" => QuotasInput::NONE,
            Some(raw) => self.quotas(raw, at.member("quotas"))?,
            None => QuotasInput::default(),
        };
        let allow_nets = match fields.optional("allow_nets") {
            Some(raw) => self.nets(raw, at.member("allow_nets"))?,
            None => None,
        };
        Ok(Some(SettingsInput {
            require_verification,
            strict_types,
            enforce_builtin_schemas,
            retention,
            hooks,
            quotas,
            allow_nets,
        }))
    }

    fn retention(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<RetentionInput> {
        let Some(fields) = self.open(raw.get(), at, &RETENTION)? else { return Ok(RetentionInput::default()) };
        let mut days =
            |name: &str| fields.optional(name).and_then(|raw| self.integer(raw, at.member(name), 1..=DAYS_MAX));
        Ok(RetentionInput { events_days: days("events_days"), attempts_days: days("attempts_days") })
    }

    /// `null` lifts a bound; an absent member keeps it.
    fn quotas(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<QuotasInput> {
        let Some(fields) = self.open(raw.get(), at, &QUOTAS)? else { return Ok(QuotasInput::default()) };
        let mut bound = |name: &str, least: u32| match fields.given(name)? {
            raw if raw.get() == "null" => Some(None),
            raw => self.integer(raw, at.member(name), least..=u32::MAX).map(Some),
        };
        Ok(QuotasInput {
            webhooks: bound("webhooks", 0),
            events_per_s: bound("events_per_s", 1),
            pending: bound("pending", 1).map(|bound| bound.map(u64::from)),
        })
    }

    fn nets(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<Vec<String>>> {
        let Some(list) = self.items(raw.get(), at, NETS_MAX)? else { return Ok(None) };
        if list.count > NETS_MAX {
            self.errors.push(at, format!("must have at most {NETS_MAX} items"));
            return Ok(None);
        }
        let mut nets = Vec::with_capacity(list.items.len());
        for (index, item) in list.items.into_iter().enumerate() {
            let Some(net) = self.string(item, at.item(index)) else { continue };
            match check_net(&net) {
                Ok(()) => nets.push(net.into_owned()),
                Err(message) => self.errors.push(at.item(index), message),
            }
        }
        Ok(Some(nets))
    }

    /// A key to make. What cannot be read is noted, and empty.
    pub(crate) fn key(&mut self) -> Read<KeyInput> {
        let at = At::Root;
        let nothing = KeyInput { name: String::new(), scopes: Vec::new(), tenant: None, expires_at: None };
        let Some(fields) = self.open(self.document(), at, &KEY)? else { return Ok(nothing) };
        let name = fields.required("name", at, self).and_then(|raw| self.text(raw, at.member("name"), 1..=200));
        let scopes = match fields.required("scopes", at, self) {
            Some(raw) => self.scopes(raw, at.member("scopes"))?,
            None => None,
        };
        let tenant = fields.optional("tenant").and_then(|raw| self.parsed(raw, at.member("tenant")));
        let expires_at = fields.optional("expires_at").and_then(|raw| self.time_limit(raw, at.member("expires_at")));
        Ok(KeyInput { name: name.unwrap_or_default(), scopes: scopes.unwrap_or_default(), tenant, expires_at })
    }

    fn scopes(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<Vec<Scope>>> {
        let Some(list) = self.items(raw.get(), at, SCOPES.len())? else { return Ok(None) };
        if !(1..=SCOPES.len()).contains(&list.count) {
            self.errors.push(at, format!("must have 1 to {} scopes", SCOPES.len()));
            return Ok(None);
        }
        let mut scopes = Vec::new();
        for (index, item) in list.items.into_iter().enumerate() {
            match self.word(item, at.item(index), &SCOPES) {
                Some(scope) if scopes.contains(&scope) => self.errors.push(at.item(index), "is listed twice"),
                scope => scopes.extend(scope),
            }
        }
        Ok(Some(scopes))
    }

    /// What is declared about the event type `name`. An empty body is an empty object.
    pub(crate) fn event_type(&mut self, name: &EventType) -> Read<EventTypeDefinition> {
        let at = At::Root;
        let mut definition = EventTypeDefinition {
            family: name.family().to_owned(),
            description: String::new(),
            example: None,
            examples: Default::default(),
            schema: None,
            urgency: Default::default(),
            deprecated: false,
        };
        let Some(text) = self.given_document() else { return Ok(definition) };
        let Some(fields) = self.open(text, at, &EVENT_TYPE)? else { return Ok(definition) };
        if let Some(raw) = fields.optional("family")
            && let Some(family) = self.text(raw, at.member("family"), 1..=128)
        {
            definition.family = family;
        }
        if let Some(raw) = fields.optional("description")
            && let Some(description) = self.text(raw, at.member("description"), 0..=2_000)
        {
            definition.description = description;
        }
        definition.example =
            fields.optional("example").and_then(|raw| self.json(raw, at.member("example"))).map(ToOwned::to_owned);
        definition.schema = match fields.optional("schema") {
            Some(raw) => self.schema(raw, at.member("schema"))?.map(|raw| Arc::from(raw.to_owned())),
            None => None,
        };
        if let Some(raw) = fields.optional("urgency") {
            definition.urgency = self.word(raw, at.member("urgency"), &URGENCIES).unwrap_or_default();
        }
        if let Some(raw) = fields.optional("deprecated") {
            definition.deprecated = self.boolean(raw, at.member("deprecated")).unwrap_or_default();
        }
        Ok(definition)
    }

    /// A JSON Schema is an object or a Boolean.
    fn schema(&mut self, raw: &'a RawValue, at: At<'_>) -> Read<Option<&'a RawValue>> {
        let shape = if matches!(raw.get(), "true" | "false") { Some(raw) } else { self.json_object(raw, at)? };
        match shape.map(|raw| check_schema(raw.get())) {
            Some(Err(problem)) => {
                self.errors.push(at, problem);
                Ok(None)
            }
            _ => Ok(shape),
        }
    }
}
