//! Hooks: registered, changed, rotated, removed. Managing them asks no hook anything but its own
//! receiver's probe: no hook can stand between anybody and this (P9).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatepost_core::hooks::hook::{HookConfig, HookSecrets, HookWrite, Mode};
use gatepost_core::hooks::lint::lint;
use gatepost_core::hooks::plan::PlannedHook;
use gatepost_core::hooks::points::{self, PointDef};
use gatepost_core::hooks::{change, codec};
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{SigningKey, bounds};
use gatepost_core::{HookId, Timestamp};
use gatepost_store::hooks::{HookTest, HookUpdate, HookUpdateOutcome, NewHook, StoredHook};
use gatepost_store::{Page, PageRequest};
use serde_json::{Map, Value};

use super::snapshot::TenantHooks;
use super::view::HookView;
use crate::endpoint_auth::{self, Moved, Places};
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, FieldError, Kind, Result};
use crate::net::Target;

/// How often a change is merged anew because somebody else's came first.
const MERGE_AGAIN: usize = 5;
/// Older keys that still sign.
const OLD_KEYS_MAX: usize = 4;
/// How long an old key signs beside a new one when nobody says otherwise, in seconds.
const OVERLAP_S: u32 = bounds::OVERLAP_SECONDS_DEFAULT;

/// A hook's signing secret, shown this once.
pub type HookSecret = Secret;

impl From<gatepost_core::hooks::FieldError> for FieldError {
    fn from(error: gatepost_core::hooks::FieldError) -> Self {
        FieldError::new(error.pointer, error.message)
    }
}

impl Engine {
    /// Registers a hook. One that is to be enforced is probed first.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every bad member; [`Error::Conflict`] when its receiver does not pass.
    pub async fn create_hook(&self, tenant: &Tenant, members: Map<String, Value>) -> Result<(HookView, HookSecret)> {
        let snapshot = self.tenant_hooks(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let (write, errors) = HookConfig::read_all(members);
        let errors = errors.into_iter().map(FieldError::from).collect();
        self.judge_hook(tenant, &snapshot, &write, None, errors)?;
        let now = self.now();
        let id = HookId::new(self.origin_time(), &self.inner.entropy);
        let dialect = codec::codec(&write.config.profile).ok_or(Error::Sealed)?;
        let secret = write.secret.clone().unwrap_or_else(|| codec::generate_secret(dialect, &*self.inner.entropy));
        let secrets = HookSecrets {
            signing: vec![SigningKey { text: secret.clone(), created_at: now, expires_at: None }],
            headers: write.headers,
            auth: write.auth_secret,
        };
        let config = write.config;
        let test = match config.mode {
            Mode::Enforce => Some(self.pass_first(tenant, &snapshot, id, &config, &secrets).await?),
            Mode::Off | Mode::Observe => None,
        };
        let sealed_secrets = self.inner.vault.seal_hook(id, &secrets)?;
        let change = self.changing_hooks(&tenant.id);
        let new = NewHook { tenant: tenant.key, id, config, sealed_secrets, test, now };
        let hook = self.inner.store.create_hook(new).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        change.known().await?;
        self.inner.hooks.warm_now.notify_one();
        Ok((self.hook_view(tenant, hook).await?, secret))
    }

    /// A hook.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn hook(&self, tenant: &Tenant, id: HookId) -> Result<HookView> {
        let hook = self.inner.store.hook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Hook))?;
        self.hook_view(tenant, hook).await
    }

    /// A tenant's hooks (of one point, if asked), newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn hooks(&self, tenant: &Tenant, point: Option<&str>, page: PageRequest) -> Result<Page<HookView>> {
        self.inner.hooks.recorder.flush().await;
        let page = self.inner.store.hooks(tenant.key, point, page).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for hook in page.rows {
            rows.push(self.hook_view(tenant, hook).await?);
        }
        Ok(Page { rows, next: page.next })
    }

    /// Changes a hook by a merge patch. One that is to be enforced from then on, or enforced elsewhere
    /// than before, is probed first; if it does not pass, nothing changes.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::Conflict`].
    pub async fn update_hook(&self, tenant: &Tenant, id: HookId, patch: &Map<String, Value>) -> Result<HookView> {
        for _ in 0..MERGE_AGAIN {
            let present = self.inner.store.hook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Hook))?;
            let (config, secrets, test) = self.merged(tenant, &present, patch).await?;
            let same = same_endpoint(&present.config, &config, patch);
            let passed = test.as_ref().filter(|test| test.passed).map(|test| test.at);
            let update = HookUpdate {
                tenant: tenant.key,
                id,
                expected_revision: present.revision,
                sealed_secrets: self.inner.vault.seal_hook(id, &secrets)?,
                verified_at: passed.or(present.verified_at.filter(|_| same)),
                config,
                test,
                now: self.now(),
            };
            note_switch(tenant, id, &present.config, &update.config);
            if let Some(hook) = self.replace_hook(tenant, update).await? {
                return self.hook_view(tenant, hook).await;
            }
        }
        Err(concurrent())
    }

    /// Writes a hook's new form down and makes it known. `None`: somebody else came first.
    async fn replace_hook(&self, tenant: &Tenant, update: HookUpdate) -> Result<Option<StoredHook>> {
        let change = self.changing_hooks(&tenant.id);
        match self.inner.store.update_hook(update).await? {
            HookUpdateOutcome::Updated(hook) => {
                change.known().await?;
                Ok(Some(*hook))
            }
            HookUpdateOutcome::Stale => {
                change.none();
                Ok(None)
            }
            HookUpdateOutcome::NotFound => {
                change.none();
                Err(Error::NotFound(Kind::Hook))
            }
        }
    }

    /// What a patch makes of a hook.
    async fn merged(
        &self,
        tenant: &Tenant,
        present: &StoredHook,
        patch: &Map<String, Value>,
    ) -> Result<(HookConfig, HookSecrets, Option<HookTest>)> {
        let snapshot = self.tenant_hooks(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let point = self.point_of(tenant, present).await?;
        let kept = self.inner.vault.open_hook(present.id, &present.sealed_secrets)?;
        let mut shown = present.config.shown(&point);
        if present.config.on_failure.is_none() {
            // What the point says is shown, and is not the hook's own for that.
            shown.remove("on_failure");
        }
        prepare(&mut shown, patch);
        let merged = change::merge(&Value::Object(shown).into(), &Value::Object(patch.clone()).into());
        let Value::Object(members) = merged.readable() else { return Err(Error::Sealed) };
        let (write, errors) = HookConfig::read_all(members);
        let errors = errors.into_iter().map(FieldError::from).collect();
        self.judge_hook(tenant, &snapshot, &write, Some((present, &kept)), errors)?;
        let now = self.now();
        let mut secrets = HookSecrets {
            headers: merge_headers(&kept.headers, &write),
            auth: match (&write.config.auth, write.auth_secret) {
                (None, _) => None,
                (Some(_), Some(given)) => Some(given),
                (Some(_), None) => kept.auth,
            },
            signing: kept.signing,
        };
        if let Some(secret) = &write.secret {
            rotate(&mut secrets, secret, now, Duration::from_secs(u64::from(OVERLAP_S)));
        }
        let moved = !same_endpoint(&present.config, &write.config, patch);
        let test = if write.config.mode == Mode::Enforce && (moved || patch.contains_key("mode")) {
            Some(self.pass_first(tenant, &snapshot, present.id, &write.config, &secrets).await?)
        } else {
            None
        };
        Ok((write.config, secrets, test))
    }

    /// Removes a hook.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_hook(&self, tenant: &Tenant, id: HookId) -> Result<()> {
        let change = self.changing_hooks(&tenant.id);
        if !self.inner.store.delete_hook(tenant.key, id).await? {
            change.none();
            return Err(Error::NotFound(Kind::Hook));
        }
        Ok(change.known().await?)
    }

    /// Gives a hook a new secret. Both sign until the overlap has passed; it counts as unverified until
    /// its receiver passes a test with the new one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an import or an overlap outside the bounds; [`Error::NotFound`].
    pub async fn rotate_hook_secret(
        &self,
        tenant: &Tenant,
        id: HookId,
        overlap_seconds: Option<u32>,
        import: Option<Secret>,
    ) -> Result<HookSecret> {
        let overlap = overlap_seconds.unwrap_or(OVERLAP_S);
        for _ in 0..MERGE_AGAIN {
            let present = self.inner.store.hook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Hook))?;
            let dialect = codec::codec(&present.config.profile).ok_or(Error::Sealed)?;
            let mut errors = Vec::new();
            if overlap > bounds::OVERLAP_SECONDS_MAX {
                let most = bounds::OVERLAP_SECONDS_MAX;
                errors.push(FieldError::new("/overlap_seconds", format!("must be 0 to {most} (seven days)")));
            }
            if let Some(Err(problem)) = import.as_ref().map(|secret| dialect.key_scheme().check(secret.expose())) {
                errors.push(FieldError::new("/secret", problem.to_string()));
            }
            if !errors.is_empty() {
                return Err(Error::Invalid(errors));
            }
            let made = || codec::generate_secret(dialect, &*self.inner.entropy);
            let secret = import.clone().unwrap_or_else(made);
            let mut secrets = self.inner.vault.open_hook(id, &present.sealed_secrets)?;
            rotate(&mut secrets, &secret, self.now(), Duration::from_secs(u64::from(overlap)));
            let update = HookUpdate {
                tenant: tenant.key,
                id,
                expected_revision: present.revision,
                sealed_secrets: self.inner.vault.seal_hook(id, &secrets)?,
                verified_at: None,
                config: present.config,
                test: None,
                now: self.now(),
            };
            if self.replace_hook(tenant, update).await?.is_some() {
                return Ok(secret);
            }
        }
        Err(concurrent())
    }

    /// Probes what is to be enforced.
    async fn pass_first(
        &self,
        tenant: &Tenant,
        snapshot: &TenantHooks,
        id: HookId,
        config: &HookConfig,
        secrets: &HookSecrets,
    ) -> Result<HookTest> {
        let point = snapshot.points.get(&config.point).ok_or(Error::NotFound(Kind::Point))?;
        let planned = PlannedHook::new(id, self.now(), config.clone(), Arc::clone(&point.def), secrets.clone());
        let planned = planned.map_err(|_| Error::Sealed)?;
        let nets = crate::transport::parse_nets(&tenant.settings.allow_nets).into();
        let route = self.route_of(tenant, &planned, &nets);
        let test = self.probe(&tenant.id, &planned, route.as_ref()).await.test;
        if test.passed {
            return Ok(test);
        }
        let (class, why) = (test.failure.unwrap_or_default(), test.error.unwrap_or_default());
        Err(Error::Conflict {
            code: ConflictCode::HookUnverified,
            message: format!(
                "the hook cannot be enforced: its receiver did not pass the test ({class}: {why}). Nothing was changed; \
                 register it with mode observe, make its test pass with POST …/try, then enforce it"
            ),
        })
    }

    /// Everything wrong with a hook, besides what reading it found.
    pub(super) fn judge_hook(
        &self,
        tenant: &Tenant,
        snapshot: &TenantHooks,
        write: &HookWrite,
        present: Option<(&StoredHook, &HookSecrets)>,
        mut errors: Vec<FieldError>,
    ) -> Result<()> {
        let config = &write.config;
        let read = errors.len();
        let mut judged = Vec::new();
        let point = snapshot.points.get(&config.point).map(|entry| &*entry.def);
        judged.extend(config.validate(point).into_iter().map(FieldError::from));
        let moved = present.is_none_or(|(hook, _)| hook.config.url != config.url);
        if moved && !judged.iter().any(|e| e.pointer == "/url") {
            self.check_hook_url(tenant, &config.url, "/url", &mut judged);
        }
        if present.is_some_and(|(hook, _)| hook.config.profile != config.profile) {
            judged.push(FieldError::new("/profile", "is fixed at creation: register a new hook instead"));
        }
        let dialect = codec::codec(&config.profile);
        if let (Some(secret), Some(dialect)) = (&write.secret, dialect)
            && let Err(problem) = dialect.key_scheme().check(secret.expose())
        {
            judged.push(FieldError::new("/secret", problem.to_string()));
        }
        for name in &config.header_names {
            let kept = present.is_some_and(|(_, kept)| kept.headers.keys().any(|n| n.eq_ignore_ascii_case(name)));
            if !kept && !write.headers.contains_key(name) {
                let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
                judged.push(FieldError::new(pointer, "the value *** keeps a present value, and there is none"));
            }
        }
        if let Some(auth) = &config.auth {
            let same_kind = |hook: &StoredHook| {
                let before = hook.config.auth.as_ref().map(std::mem::discriminant);
                before == Some(std::mem::discriminant(auth))
            };
            let kept = present.filter(|(hook, _)| same_kind(hook)).and_then(|(_, kept)| kept.auth.as_ref());
            let secret = write.auth_secret.as_ref().or(kept);
            let may_call = |url: &str| self.may_call(tenant, url);
            let found = endpoint_auth::check(auth, secret, may_call);
            judged.extend(found.into_iter().map(|e| FieldError::new(format!("/auth{}", e.pointer), e.message)));
        }
        if let Some((hook, _)) = present {
            // A value that is kept is not sent to another place (P7).
            let kept = config.header_names.iter().filter(|name| !write.headers.contains_key(*name));
            let auth = config.auth.as_ref().filter(|_| write.auth_secret.is_none());
            let mut refused = moved_elsewhere(hook, write).refuse(kept.map(String::as_str), auth);
            refused.retain(|error| judged.iter().all(|known| known.pointer != error.pointer));
            judged.extend(refused);
        }
        // Of a member that could not be read the later checks know only that it is not there.
        let told = |later: &FieldError, known: &[FieldError]| {
            known
                .iter()
                .any(|mine| mine.pointer == later.pointer || mine.pointer.starts_with(&format!("{}/", later.pointer)))
        };
        for error in judged {
            if !told(&error, &errors[..read]) && !errors.contains(&error) {
                errors.push(error);
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
    }

    fn may_call(&self, tenant: &Tenant, url: &str) -> std::result::Result<(), String> {
        let nets = crate::transport::parse_nets(&tenant.settings.allow_nets);
        let target = Target::parse(url).map_err(|e| e.to_string())?;
        self.inner.policy.check_at_write(&target, &nets).map_err(|e| e.to_string())
    }

    fn check_hook_url(&self, tenant: &Tenant, url: &str, pointer: &str, errors: &mut Vec<FieldError>) {
        if let Err(message) = self.may_call(tenant, url) {
            errors.push(FieldError::new(pointer, message));
        }
    }

    /// A hook's point, as the tenant has it.
    pub(super) async fn point_of(&self, tenant: &Tenant, hook: &StoredHook) -> Result<Arc<PointDef>> {
        let snapshot = self.tenant_hooks(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let found = snapshot.points.get(&hook.config.point).map(|entry| Arc::clone(&entry.def));
        found.or_else(|| points::builtin(&hook.config.point).cloned()).ok_or(Error::NotFound(Kind::Point))
    }

    pub(super) async fn hook_view(&self, tenant: &Tenant, hook: StoredHook) -> Result<HookView> {
        let snapshot = self.tenant_hooks(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let point = self.point_of(tenant, &hook).await?;
        let siblings: Vec<&HookConfig> = snapshot
            .points
            .get(&hook.config.point)
            .map(|entry| entry.hooks.iter().map(|sibling| &sibling.config).collect())
            .unwrap_or_default();
        let place = snapshot
            .points
            .get(&hook.config.point)
            .and_then(|entry| entry.hooks.iter().position(|sibling| sibling.id == hook.id));
        let warnings = match place {
            Some(place) => lint(&hook.config, &point, &siblings, place),
            None => lint(&hook.config, &point, &[&hook.config], 0),
        };
        let circuit = snapshot.asked.get(&hook.id).map(|asked| asked.state.circuit());
        let circuit = circuit.unwrap_or(gatepost_core::hooks::breaker::BreakerState::Closed);
        Ok(HookView { members: hook.config.shown(&point), hook, warnings, circuit })
    }
}

/// What a change would send elsewhere.
pub(super) fn moved_elsewhere(present: &StoredHook, write: &HookWrite) -> Moved {
    let (before, after) = (&present.config, &write.config);
    let before = Places { url: &before.url, auth: before.auth.as_ref() };
    Moved::between(before, Places { url: &after.url, auth: after.auth.as_ref() })
}

/// What a merge must not mix: an auth of another type, a condition (one expression, whatever its
/// members), and a header under another spelling of its name.
fn prepare(shown: &mut Map<String, Value>, patch: &Map<String, Value>) {
    let kind = |auth: Option<&Value>| auth.and_then(|auth| auth.get("type")).cloned();
    if let Some(given) = kind(patch.get("auth"))
        && kind(shown.get("auth")) != Some(given)
    {
        shown.remove("auth");
    }
    if patch.contains_key("conditions") {
        shown.remove("conditions");
    }
    if let (Some(Value::Object(present)), Some(Value::Object(given))) = (shown.get_mut("headers"), patch.get("headers"))
    {
        for name in given.keys().filter(|name| !present.contains_key(*name)).collect::<Vec<_>>() {
            let known = present.keys().find(|known| known.eq_ignore_ascii_case(name)).cloned();
            if let Some(value) = known.and_then(|known| present.remove(&known)) {
                present.insert(name.clone(), value);
            }
        }
    }
}

/// Only what a receiver is called by: a change of anything else says nothing new about it.
fn same_endpoint(before: &HookConfig, after: &HookConfig, patch: &Map<String, Value>) -> bool {
    let named = |member: &str| patch.get(member).is_some_and(|value| value != gatepost_core::secret::MASK);
    before.url == after.url
        && before.path == after.path
        && before.auth == after.auth
        && before.header_names == after.header_names
        && before.require_signed_answer == after.require_signed_answer
        && !named("secret")
        && !named("headers")
        && !named("auth")
}

/// Kill switches leave a line in the log (who did it is in the request's own line).
fn note_switch(tenant: &Tenant, hook: HookId, before: &HookConfig, after: &HookConfig) {
    if before.enabled != after.enabled || before.mode != after.mode {
        let (enabled, mode) = (after.enabled, format!("{:?}", after.mode).to_lowercase());
        tracing::info!(tenant = %tenant.id, %hook, enabled, mode, "a hook is switched");
    }
}

/// `***` keeps the present value of a header (names compare without case).
fn merge_headers(kept: &BTreeMap<String, Secret>, write: &HookWrite) -> BTreeMap<String, Secret> {
    let value = |name: &String| {
        let present = || kept.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        write.headers.get(name).cloned().or_else(present)
    };
    write.config.header_names.iter().filter_map(|name| Some((name.clone(), value(name)?))).collect()
}

fn rotate(secrets: &mut HookSecrets, secret: &Secret, now: Timestamp, overlap: Duration) {
    let until = now.saturating_add(overlap);
    for key in &mut secrets.signing {
        key.expires_at = Some(key.expires_at.map_or(until, |at| at.min(until)));
    }
    secrets.signing.retain(|key| key.expires_at.is_some_and(|at| at > now) && key.text != *secret);
    secrets.signing.insert(0, SigningKey { text: secret.clone(), created_at: now, expires_at: None });
    secrets.signing.truncate(1 + OLD_KEYS_MAX);
}

fn concurrent() -> Error {
    Error::Conflict {
        code: ConflictCode::ConcurrentChange,
        message: "the hook keeps being changed: read it and try again".into(),
    }
}
