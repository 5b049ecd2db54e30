//! Webhooks: register, change, delete, rotate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatepost_core::secret::{MASK, Secret};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{SigningKey, Webhook, WebhookConfig, WebhookSecrets, bounds};
use gatepost_core::{WebhookId, profiles, signing};
use gatepost_store::{NewWebhook, Page, PageRequest, RegistryChange, UpdateOutcome, WebhookUpdate};

use super::{WebhookInput, WebhookView};
use crate::deliver::{Command, Doubt};
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, FieldError, Kind, Result};

impl Engine {
    /// Registers a webhook. Once this returns, every event accepted later is matched against it (P4).
    /// The secret is answered here and nowhere else (P7).
    ///
    /// # Errors
    /// [`Error::Invalid`] with every bad member.
    pub async fn create_webhook(&self, tenant: &Tenant, input: WebhookInput) -> Result<(WebhookView, Secret)> {
        let errors = self.validate_webhook(tenant, &input, None);
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let now = self.now();
        let id = WebhookId::new(now, &self.inner.entropy);
        let secret = input.secret.clone().unwrap_or_else(|| signing::generate_secret(&self.inner.entropy));
        let secrets = WebhookSecrets {
            signing: vec![SigningKey { text: secret.clone(), created_at: now, expires_at: None }],
            headers: input.headers.iter().map(|(n, v)| (n.clone(), Secret::new(v.clone()))).collect(),
            auth: None,
        };
        let new = NewWebhook {
            tenant: tenant.key,
            id,
            sealed_secrets: self.inner.vault.seal(id, &secrets)?,
            config: config_of(input, profiles::DEFAULT),
            now,
        };
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.id.clone()));
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
        Ok(self.view(webhook))
    }

    /// A tenant's webhooks, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn webhooks(&self, tenant: &Tenant, page: PageRequest) -> Result<Page<WebhookView>> {
        let page = self.inner.store.webhooks(tenant.key, page).await?;
        Ok(Page { rows: page.rows.into_iter().map(|w| self.view(w)).collect(), next: page.next })
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
        secrets.headers = merge_headers(&secrets.headers, &input.headers);
        let config = config_of(input, &present.config.profile);
        self.replace(tenant, &present, expected_revision, config, &secrets).await
    }

    /// Writes a webhook's new form down and makes it known.
    async fn replace(
        &self,
        tenant: &Tenant,
        present: &Webhook,
        expected_revision: u32,
        config: WebhookConfig,
        secrets: &WebhookSecrets,
    ) -> Result<WebhookView> {
        let reopened = config.enabled && !present.config.enabled;
        let update = WebhookUpdate {
            tenant: tenant.key,
            id: present.id,
            expected_revision,
            sealed_secrets: self.inner.vault.seal(present.id, secrets)?,
            // Whoever changes it takes over from Gatepost's own judgement.
            disabled_reason: if config.enabled { None } else { present.disabled_reason.clone() },
            config,
            now: self.now(),
        };
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.id.clone()));
        let outcome = self.inner.store.update_webhook(update).await?;
        match outcome {
            UpdateOutcome::Updated(change) => self.changed(tenant, *change, reopened, doubt).await,
            UpdateOutcome::Stale => Err(concurrent_change()),
            UpdateOutcome::NotFound => Err(Error::NotFound(Kind::Webhook)),
        }
    }

    /// Deletes a webhook. Its waiting deliveries become `cancelled/webhook_deleted`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant has no such webhook.
    pub async fn delete_webhook(&self, tenant: &Tenant, id: WebhookId) -> Result<()> {
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.id.clone()));
        let change = self.inner.store.delete_webhook(tenant.key, id, self.now()).await?;
        let change = change.ok_or(Error::NotFound(Kind::Webhook))?;
        self.inner.sweep.notify_one();
        self.changed(tenant, change, false, doubt).await?;
        Ok(())
    }

    /// Gives a webhook a new secret. Both sign until the overlap has passed.
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
        let mut errors = Vec::new();
        if overlap > bounds::OVERLAP_SECONDS_MAX {
            errors.push(FieldError::new(
                "/overlap_seconds",
                format!("must be 0 to {} (seven days)", bounds::OVERLAP_SECONDS_MAX),
            ));
        }
        if let Some(Err(problem)) = import.as_ref().map(super::validate::check_secret) {
            errors.push(FieldError::new("/secret", problem));
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let secret = import.unwrap_or_else(|| signing::generate_secret(&self.inner.entropy));
        // A change by somebody else in between is no conflict here: rotation touches nothing of it.
        for _ in 0..ROTATE_AGAIN {
            let present = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
            let mut secrets = self.inner.vault.open_secrets(id, &present.sealed_secrets)?;
            rotate(&mut secrets, &secret, self.now(), Duration::from_secs(u64::from(overlap)));
            match self.replace(tenant, &present, present.revision, present.config.clone(), &secrets).await {
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

    /// Disables a webhook on Gatepost's own judgement (`gone`) of the URL that `webhook` has: one that
    /// was moved elsewhere since is not judged by its old place.
    pub(crate) async fn disable_webhook(&self, webhook: &Webhook, tenant: &Tenant, reason: &str) -> Result<()> {
        for _ in 0..ROTATE_AGAIN {
            let Some(present) = self.inner.store.webhook(webhook.tenant, webhook.id).await? else { return Ok(()) };
            if !present.config.enabled || present.config.url != webhook.config.url {
                return Ok(());
            }
            let mut config = present.config.clone();
            config.enabled = false;
            let update = WebhookUpdate {
                tenant: present.tenant,
                id: present.id,
                expected_revision: present.revision,
                sealed_secrets: present.sealed_secrets.clone(),
                disabled_reason: Some(reason.to_owned()),
                config,
                now: self.now(),
            };
            let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.id.clone()));
            let outcome = self.inner.store.update_webhook(update).await?;
            match outcome {
                UpdateOutcome::Updated(change) => {
                    tracing::warn!(tenant = %tenant.id, webhook = %webhook.id, reason, "webhook disabled");
                    self.changed(tenant, *change, false, doubt).await?;
                    return Ok(());
                }
                UpdateOutcome::NotFound => return Ok(()),
                UpdateOutcome::Stale => {}
            }
        }
        Ok(())
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
        Ok(self.view_of(webhook))
    }

    fn view(&self, webhook: Webhook) -> WebhookView {
        self.view_of(Arc::new(webhook))
    }

    fn view_of(&self, webhook: Arc<Webhook>) -> WebhookView {
        let warnings = self.warnings(&webhook.config);
        WebhookView { webhook, warnings }
    }
}

fn concurrent_change() -> Error {
    Error::Conflict {
        code: ConflictCode::ConcurrentChange,
        message: "the webhook was changed at the same time: read it and try again".into(),
    }
}

/// How often a change that touches only its own members is tried against others'.
const ROTATE_AGAIN: usize = 8;
/// Older keys that still sign: each costs a signature per attempt and room in the header.
const OLD_KEYS_MAX: usize = 4;

fn rotate(secrets: &mut WebhookSecrets, secret: &Secret, now: gatepost_core::Timestamp, overlap: Duration) {
    let until = now.saturating_add(overlap);
    for key in &mut secrets.signing {
        key.expires_at = Some(key.expires_at.map_or(until, |at| at.min(until)));
    }
    secrets.signing.retain(|key| key.expires_at.is_some_and(|at| at > now) && key.text != *secret);
    secrets.signing.insert(0, SigningKey { text: secret.clone(), created_at: now, expires_at: None });
    secrets.signing.truncate(1 + OLD_KEYS_MAX);
}

/// `***` keeps the present value of a header (names compare without case).
fn merge_headers(present: &BTreeMap<String, Secret>, input: &[(String, String)]) -> BTreeMap<String, Secret> {
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

fn config_of(input: WebhookInput, profile: &str) -> WebhookConfig {
    WebhookConfig {
        name: input.name.unwrap_or_default(),
        description: input.description,
        url: input.url.unwrap_or_default(),
        events: input.events.unwrap_or_default(),
        filter: input.filter,
        profile: input.profile.unwrap_or_else(|| profile.to_owned()),
        header_names: input.headers.into_iter().map(|(name, _)| name).collect(),
        format: None,
        signing: None,
        payload: None,
        options: Default::default(),
        auth: None,
        batch: None,
        verification: None,
        verified_at: None,
        paths: Default::default(),
        ordering: Default::default(),
        rate_limit_per_s: None,
        foreign: Default::default(),
        retry: input.retry,
        timeout_ms: input.timeout_ms,
        max_in_flight: input.max_in_flight,
        enabled: input.enabled.unwrap_or(true),
    }
}
