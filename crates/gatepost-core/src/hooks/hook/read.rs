//! A hook, read from a request body.

use std::collections::BTreeMap;

use serde_json::Map;

use super::{HookConfig, HookWrite, Mode, ReplaceMode, SecretMode, SecretRetry, SideEffects, limits};
use crate::auth::EndpointAuth;
use crate::hooks::FieldError;
use crate::hooks::failure::OnFailure;
use crate::hooks::json::{Pointer, Value};
use crate::hooks::reader::Reader;
use crate::http_versions::HttpVersions;
use crate::secret::{MASK, Secret};
use crate::webhook::bounds;

impl HookConfig {
    /// Reads a hook from the members of a request body, types only; [`HookConfig::validate`] judges
    /// the rest. A changed hook is read the same way, after the patch was merged into
    /// [`HookConfig::shown`].
    ///
    /// # Errors
    /// Every wrong or unknown member.
    pub fn read(members: Map<String, serde_json::Value>) -> Result<HookWrite, Vec<FieldError>> {
        let (write, errors) = HookConfig::read_all(members);
        if errors.is_empty() { Ok(write) } else { Err(errors) }
    }

    /// As [`HookConfig::read`], but what could be read is given together with everything wrong or
    /// unknown, so that the rest can be judged too. What could not be read has its default.
    pub fn read_all(members: Map<String, serde_json::Value>) -> (HookWrite, Vec<FieldError>) {
        let mut errors = Vec::new();
        let mut r = Reader::new(members, "", &mut errors);
        let mut config = HookConfig::new(r.need_text("name"), r.need_text("point"), r.need_text("url"));
        config.profile = r.text("profile").unwrap_or(config.profile);
        config.path = r.text("path");
        config.order = narrow(r.number("order", limits::ORDER, i64::from(config.order)));
        let modes = [("off", Mode::Off), ("observe", Mode::Observe), ("enforce", Mode::Enforce)];
        config.mode = r.word("mode", &modes, config.mode);
        config.on_failure = read_on_failure(&mut r);
        config.may_change = read_may_change(&mut r);
        config.timeout_ms = narrow(r.number("timeout_ms", limits::TIMEOUT_MS, i64::from(config.timeout_ms)));
        let least = i64::from(config.min_timeout_ms.min(config.timeout_ms));
        config.min_timeout_ms = narrow(r.number("min_timeout_ms", limits::MIN_TIMEOUT_MS, least));
        let places = r.number("max_in_flight", limits::IN_FLIGHT, i64::from(config.max_in_flight));
        config.max_in_flight = narrow(places);
        config.http = r.word("http", &HttpVersions::WORDS, config.http);
        let modes = [("merge", ReplaceMode::Merge), ("replace", ReplaceMode::Replace)];
        config.replace_mode = r.word("replace_mode", &modes, config.replace_mode);
        config.receives_secrets = r.flag("receives_secrets", false);
        let modes = [("plain", SecretMode::Plain), ("omit", SecretMode::Omit)];
        config.secret_mode = r.word("secret_mode", &modes, config.secret_mode);
        let modes = [("none", SecretRetry::None), ("encrypted", SecretRetry::Encrypted)];
        config.secret_retry = r.word("secret_retry", &modes, config.secret_retry);
        let effects =
            [("some", SideEffects::Some), ("none", SideEffects::None), ("none_on_dry_run", SideEffects::NoneOnDryRun)];
        config.side_effects = r.word("side_effects", &effects, config.side_effects);
        config.idempotent = r.flag("idempotent", false);
        config.status_deny = r.flag("status_deny", false);
        config.stop_on_deny = r.flag("stop_on_deny", false);
        config.conditions = r.take("conditions").map(|value| value.readable());
        config.require_signed_answer = r.flag("require_signed_answer", false);
        let headers = read_headers(&mut r, &mut config.header_names);
        let auth_secret = read_auth(&mut r, &mut config.auth);
        config.enabled = r.flag("enabled", true);
        let secret = r.text("secret").filter(|text| text != MASK).map(Secret::new);
        r.finish();
        (HookWrite { config, secret, headers, auth_secret }, errors)
    }
}

fn narrow<T: TryFrom<i64> + Default>(n: i64) -> T {
    // The range was checked where it was read.
    T::try_from(n).unwrap_or_default()
}

fn read_on_failure(r: &mut Reader<'_>) -> Option<OnFailure> {
    let value = r.take("on_failure")?;
    match OnFailure::read(&value.readable()) {
        Ok(on_failure) => Some(on_failure),
        Err(errors) => {
            errors.into_iter().for_each(|(below, message)| r.bad_below("on_failure", &below, message));
            None
        }
    }
}

fn read_may_change(r: &mut Reader<'_>) -> Option<Vec<Pointer>> {
    let items = r.list("may_change")?;
    let mut places = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        match item.as_str().map(str::parse) {
            Some(Ok(pointer)) => places.push(pointer),
            _ => r.bad_below(
                "may_change",
                &format!("/{i}"),
                "must be a JSON pointer into object, such as /user/department",
            ),
        }
    }
    Some(places)
}

fn read_headers(r: &mut Reader<'_>, names: &mut Vec<String>) -> BTreeMap<String, Secret> {
    let mut values = BTreeMap::new();
    for (name, value) in r.object("headers").unwrap_or_default() {
        let below = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        match value {
            // In a merged body, null takes a header away.
            Value::Null => continue,
            Value::String(text) if text == MASK => {}
            Value::String(text) => match bounds::bad_header_value(&text) {
                Some(problem) => r.bad_below("headers", &below, problem),
                None => drop(values.insert(name.clone(), Secret::new(text))),
            },
            _ => r.bad_below("headers", &below, "must be a text"),
        }
        names.push(name);
    }
    values
}

fn read_auth(r: &mut Reader<'_>, auth: &mut Option<EndpointAuth>) -> Option<Secret> {
    let members = r.object("auth")?;
    let at = r.pointer("auth");
    let mut inner = Reader::new(members, at, r.errors());
    let kind = inner.need_text("type");
    let read = match kind.as_str() {
        "bearer" => EndpointAuth::Bearer,
        "basic" => EndpointAuth::Basic { username: inner.need_text("username") },
        "header" => EndpointAuth::Header { name: inner.need_text("name") },
        "oauth2" => EndpointAuth::Oauth2 {
            token_url: inner.need_text("token_url"),
            client_id: inner.need_text("client_id"),
            scope: inner.text("scope"),
            audience: inner.text("audience"),
        },
        "mtls" => EndpointAuth::Mtls { certificate: inner.need_text("certificate") },
        other => {
            if !other.is_empty() {
                inner.bad("type", "must be one of bearer, basic, header, oauth2, mtls");
            }
            return None;
        }
    };
    let secret = inner.need_text(read.secret_member());
    inner.finish();
    *auth = Some(read);
    (secret != MASK && !secret.is_empty()).then(|| Secret::new(secret))
}
