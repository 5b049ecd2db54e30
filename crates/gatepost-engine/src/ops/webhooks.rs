//! Webhooks: register, change, delete, rotate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatepost_core::health::Health;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::profiles::{self, BadRotation, SigningPlan};
use gatepost_core::secret::{MASK, Secret};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig, WebhookSecrets, bounds};
use gatepost_core::{WebhookId, standing};
use gatepost_store::{NewWebhook, Page, PageRequest, RegistryChange, UpdateOutcome, WebhookUpdate};

use super::validate::auth_secret;
use super::{VerificationView, WebhookInput, WebhookView};
use crate::deliver::{Command, Doubt};
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, FieldError, Kind, Result};
use crate::views;

impl Engine {
    /// Registers a webhook. Once this returns, every event accepted later is matched against it (P4).
    /// The secret is answered here and nowhere else (P7); there is none where nothing is signed.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every bad member.
    pub async fn create_webhook(&self, tenant: &Tenant, input: WebhookInput) -> Result<(WebhookView, Option<Secret>)> {
        let errors = self.validate_webhook(tenant, &input, None);
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let now = self.now();
        let profile = profiles::profile_or_default(input.profile.as_deref().unwrap_or(profiles::DEFAULT));
        let id = profile.new_webhook_id(self.origin_time(), &self.inner.entropy);
        let import = input.secret.clone();
        let mut secrets = WebhookSecrets {
            signing: Vec::new(),
            headers: input.headers.iter().map(|(n, v)| (n.clone(), Secret::new(v.clone()))).collect(),
            auth: input.auth.as_ref().and_then(|auth| auth.secret.clone()),
        };
        let config = config_of(input, None);
        let plan = plan_of(&config)?;
        if import.is_some() {
            let rotated = plan.rotate(&mut secrets.signing, import, (now, Duration::ZERO), &self.inner.entropy);
            rotated.map_err(|problem| invalid("/secret", problem.to_string()))?;
        }
        plan.complete(&mut secrets.signing, now, &self.inner.entropy);
        let secret = plan.told(&secrets.signing).cloned();
        let new = NewWebhook {
            tenant: tenant.key,
            id,
            sealed_secrets: self.inner.vault.seal(id, &secrets)?,
            must_verify: standing::must_verify(&config),
            config,
            now,
        };
        let _turn = self.room_for_webhook(tenant).await?;
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.id.clone()));
        let _news = self.inner.own_events.in_any_case();
        let change = self.inner.store.create_webhook(new).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let view = self.changed(tenant, change, false, doubt).await?;
        Ok((view, secret))
    }

    /// A webhook.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant has no such webhook.
    pub async fn webhook(&self, tenant: &Tenant, id: WebhookId) -> Result<WebhookView> {
        let webhook = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
        self.view(tenant, Arc::new(webhook)).await
    }

    /// A tenant's webhooks, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn webhooks(&self, tenant: &Tenant, page: PageRequest) -> Result<Page<WebhookView>> {
        let page = self.inner.store.webhooks(tenant.key, page).await?;
        let keys: Vec<_> = page.rows.iter().map(|webhook| webhook.key).collect();
        let health = self.inner.store.health_of(&keys).await?;
        let rows = page.rows.into_iter().map(|webhook| {
            let kept = health.get(&webhook.key);
            self.view_with(tenant, Arc::new(webhook), kept, false)
        });
        Ok(Page { rows: rows.collect(), next: page.next })
    }

    /// Replaces a webhook, if it is still at `expected_revision`.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::Conflict`] when somebody else changed it first.
    pub async fn update_webhook(
        &self,
        tenant: &Tenant,
        id: WebhookId,
        expected_revision: u32,
        input: WebhookInput,
    ) -> Result<WebhookView> {
        let present = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
        if present.revision != expected_revision {
            // Judged against another form than it was made from, it could look wrong without being so.
            return Err(concurrent_change());
        }
        let errors = self.validate_webhook(tenant, &input, Some(&present));
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let mut secrets = self.inner.vault.open_secrets(id, &present.sealed_secrets)?;
        let headers = merge_headers(&secrets.headers, &input.headers);
        let auth = input.auth.as_ref().and_then(|auth| auth_secret(auth, secrets.auth.as_ref()));
        let mut config = config_of(input, Some(&present.config));
        // Another endpoint, or another way to it, has proved nothing yet.
        let same_place = config.url == present.config.url && config.auth == present.config.auth;
        if !same_place || headers != secrets.headers || auth != secrets.auth {
            config.verified_at = None;
        }
        (secrets.headers, secrets.auth) = (headers, auth);
        if config.signing != present.config.signing {
            plan_of(&config)?.complete(&mut secrets.signing, self.now(), &self.inner.entropy);
        }
        self.replace(tenant, &present, config, &secrets, Some(OwnEvent::WebhookUpdated)).await
    }

    /// Writes a webhook's new form down, if it is still as `present`, and makes it known; `told_as` is the
    /// own event that tells of it.
    pub(super) async fn replace(
        &self,
        tenant: &Tenant,
        present: &Webhook,
        config: WebhookConfig,
        secrets: &WebhookSecrets,
        told_as: Option<OwnEvent>,
    ) -> Result<WebhookView> {
        let require_all = tenant.settings.require_verification;
        let reopened = standing::sends(&config, require_all) && !standing::sends(&present.config, require_all);
        let update = WebhookUpdate {
            tenant: tenant.key,
            id: present.id,
            expected_revision: present.revision,
            sealed_secrets: self.inner.vault.seal(present.id, secrets)?,
            // Whoever changes it takes over from Gatepost's own judgement.
            disabled_reason: if config.enabled { None } else { present.disabled_reason.clone() },
            must_verify: standing::must_verify(&config),
            told_as,
            config,
            now: self.now(),
        };
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.id.clone()));
        let _news = self.inner.own_events.in_any_case();
        let outcome = self.inner.store.update_webhook(update).await?;
        match outcome {
            UpdateOutcome::Updated(change) => self.changed(tenant, *change, reopened, doubt).await,
            UpdateOutcome::Stale => Err(concurrent_change()),
            UpdateOutcome::NotFound => Err(Error::NotFound(Kind::Webhook)),
        }
    }

    /// Pauses a webhook or lets it go on, whatever else is changed meanwhile. One that is so already stays
    /// as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it keeps being changed.
    pub async fn set_paused(&self, tenant: &Tenant, id: WebhookId, paused: bool) -> Result<WebhookView> {
        for _ in 0..CHANGE_AGAIN {
            let present = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
            if present.config.paused == paused {
                return self.view(tenant, Arc::new(present)).await;
            }
            let secrets = self.inner.vault.open_secrets(id, &present.sealed_secrets)?;
            let config = WebhookConfig { paused, ..present.config.clone() };
            match self.replace(tenant, &present, config, &secrets, Some(OwnEvent::WebhookUpdated)).await {
                Err(Error::Conflict { code: ConflictCode::ConcurrentChange, .. }) => {}
                done => return done,
            }
        }
        Err(concurrent_change())
    }

    /// Deletes a webhook. Its waiting deliveries become `cancelled/webhook_deleted`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant has no such webhook.
    pub async fn delete_webhook(&self, tenant: &Tenant, id: WebhookId) -> Result<()> {
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.id.clone()));
        let _news = self.inner.own_events.in_any_case();
        let change = self.inner.store.delete_webhook(tenant.key, id, self.now()).await?;
        let change = change.ok_or(Error::NotFound(Kind::Webhook))?;
        self.inner.sweep.notify_one();
        self.changed(tenant, change, false, doubt).await?;
        Ok(())
    }

    /// Whether a secret can be imported into a webhook; an error is one of the member `secret`.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`].
    pub async fn check_import(&self, tenant: &Tenant, id: WebhookId, import: &Secret) -> Result<()> {
        let present = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
        plan_of(&present.config)?.check_secret(import).map_err(|problem| invalid("/secret", problem))
    }

    /// Gives a webhook a new secret. Both sign until the overlap has passed, where its schemes can carry
    /// two signatures; else the old one ends at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an import or an overlap outside the bounds; [`Error::NotFound`].
    pub async fn rotate_secret(
        &self,
        tenant: &Tenant,
        id: WebhookId,
        overlap_seconds: Option<u32>,
        import: Option<Secret>,
    ) -> Result<Secret> {
        let overlap = overlap_seconds.unwrap_or(bounds::OVERLAP_SECONDS_DEFAULT);
        if overlap > bounds::OVERLAP_SECONDS_MAX {
            let problem = format!("must be 0 to {} (seven days)", bounds::OVERLAP_SECONDS_MAX);
            return Err(invalid("/overlap_seconds", problem));
        }
        let overlap = Duration::from_secs(u64::from(overlap));
        // A change by somebody else in between is no conflict here: rotation touches nothing of it.
        for _ in 0..CHANGE_AGAIN {
            let present = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
            let mut secrets = self.inner.vault.open_secrets(id, &present.sealed_secrets)?;
            let when = (self.now(), overlap);
            let rotated =
                plan_of(&present.config)?.rotate(&mut secrets.signing, import.clone(), when, &self.inner.entropy);
            let secret = rotated.map_err(|problem| match problem {
                BadRotation::Import(problem) => invalid("/secret", problem),
                BadRotation::NoKey => invalid("", problem.to_string()),
            })?;
            let config = present.config.clone();
            match self.replace(tenant, &present, config, &secrets, Some(OwnEvent::SecretRotated)).await {
                Ok(_) => return Ok(secret),
                Err(Error::Conflict { code: ConflictCode::ConcurrentChange, .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Err(Error::Conflict {
            code: ConflictCode::ConcurrentChange,
            message: "the webhook keeps being changed: try again".into(),
        })
    }

    /// Makes a committed change known: to publishers before the caller hears of it (P4), and to the lane.
    /// Should the first fail, or nobody wait for it, `doubt` sees to the second.
    async fn changed(
        &self,
        tenant: &Tenant,
        change: RegistryChange,
        reopened: bool,
        doubt: Doubt<'_>,
    ) -> Result<WebhookView> {
        if let Some(state) = self.inner.tenants.cached(&tenant.id) {
            state.apply(&*self.inner.store, &change).await?;
        }
        let webhook = Arc::new(change.webhook);
        self.inner.inbox.send(Command::WebhookChanged { webhook: Arc::clone(&webhook), reopened });
        doubt.resolved();
        // The change is made: it is no failure when only the health cannot be read.
        let health = self.inner.store.health_of(&[webhook.key]).await.unwrap_or_default();
        let kept = health.get(&webhook.key);
        Ok(self.view_with(tenant, webhook, kept, true))
    }

    pub(super) async fn view(&self, tenant: &Tenant, webhook: Arc<Webhook>) -> Result<WebhookView> {
        let health = self.inner.store.health_of(&[webhook.key]).await?;
        let kept = health.get(&webhook.key);
        Ok(self.view_with(tenant, webhook, kept, true))
    }

    fn view_with(&self, tenant: &Tenant, webhook: Arc<Webhook>, kept: Option<&Health>, suggests: bool) -> WebhookView {
        let verifying = profiles::verifying(&webhook.config, tenant.settings.require_verification);
        WebhookView {
            warnings: self.warnings(webhook.tenant, &webhook.config, suggests),
            verification: VerificationView { mode: verifying.mode.name(), required: verifying.required },
            health: views::health(&webhook, kept, self.now()),
            public_key: self.public_key(&webhook),
            webhook,
        }
    }

    /// The public half of a webhook's key pair. Secrets are opened for it only where there is one.
    fn public_key(&self, webhook: &Webhook) -> Option<String> {
        let plan = SigningPlan::of(&webhook.config).ok().filter(SigningPlan::has_public_key)?;
        let secrets = self.inner.vault.open_secrets(webhook.id, &webhook.sealed_secrets).ok()?;
        plan.public_key(&secrets.signing)
    }
}

pub(super) fn concurrent_change() -> Error {
    Error::Conflict {
        code: ConflictCode::ConcurrentChange,
        message: "the webhook was changed at the same time: read it and try again".into(),
    }
}

/// How often a change that touches only its own members is tried against others'.
pub(super) const CHANGE_AGAIN: usize = 8;

/// The signing of a registration that was judged before: its names are known.
pub(super) fn plan_of(config: &WebhookConfig) -> Result<SigningPlan> {
    SigningPlan::of(config).map_err(|problem| invalid("/signing", problem.to_string()))
}

fn invalid(pointer: &str, problem: String) -> Error {
    Error::Invalid(vec![FieldError::new(pointer, problem)])
}

/// `***` keeps the present value of a header (names compare without case).
pub(super) fn merge_headers(
    present: &BTreeMap<String, Secret>,
    input: &[(String, String)],
) -> BTreeMap<String, Secret> {
    input
        .iter()
        .map(|(name, value)| {
            let kept = present.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
            let value = match kept {
                Some(kept) if value == MASK => kept,
                _ => Secret::new(value.clone()),
            };
            (name.clone(), value)
        })
        .collect()
}

/// What is registered, by what is asked for. Of the webhook's `present` form stays what nobody writes.
pub(super) fn config_of(input: WebhookInput, present: Option<&WebhookConfig>) -> WebhookConfig {
    let profile = present.map(|present| present.profile.clone()).or(input.profile);
    WebhookConfig {
        name: input.name.unwrap_or_default(),
        description: input.description,
        url: input.url.unwrap_or_default(),
        events: input.events.unwrap_or_default(),
        filter: input.filter,
        profile: profile.unwrap_or_else(|| profiles::DEFAULT.to_owned()),
        header_names: input.headers.into_iter().map(|(name, _)| name).collect(),
        format: input.format,
        signing: input.signing,
        payload: input.payload,
        options: input.options,
        auth: input.auth.map(|auth| auth.auth),
        batch: input.batch,
        verification: input.verification,
        verified_at: present.and_then(|present| present.verified_at),
        paths: input.paths,
        ordering: input.ordering.unwrap_or_default(),
        rate_limit_per_s: input.rate_limit_per_s,
        foreign: input.foreign.or_else(|| present.map(|present| present.foreign.clone())).unwrap_or_default(),
        retry: input.retry,
        timeout_ms: input.timeout_ms,
        max_in_flight: input.max_in_flight,
        enabled: input.enabled.unwrap_or(true),
        paused: input.paused.unwrap_or(false),
    }
}
