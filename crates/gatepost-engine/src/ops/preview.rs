//! What a change would come to, without making it: so that a setup can be judged whole before any of it
//! is applied, secrets included, which nobody can read back to compare.

use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::event::EventType;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig, WebhookSecrets};

use super::validate::{auth_secret, moved_elsewhere, pointer_part};
use super::webhooks::{config_of, merge_headers, plan_of};
use super::{AuthInput, WebhookInput};
use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};
use crate::schemas::has_room;

/// What a webhook would be.
#[derive(Clone, Debug)]
pub struct WebhookPreview {
    /// What would be registered.
    pub config: WebhookConfig,
    /// Pointers to the secrets that would be new or others than now, or go elsewhere: those are not kept.
    pub secrets: Vec<String>,
}

impl Engine {
    /// What `input`, a webhook whole, would make: of nothing, or of `present`. Its `profile` may be that of
    /// the present one, its `secret` any: applying brings another secret in by a rotation.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every bad member; the secrets cannot be opened.
    pub fn preview_webhook(
        &self,
        tenant: &Tenant,
        mut input: WebhookInput,
        present: Option<&Webhook>,
    ) -> Result<WebhookPreview> {
        let import = if present.is_some() { input.secret.take() } else { None };
        let mut errors = Vec::new();
        if let Some(present) = present {
            let (asked, is) = (input.profile.take(), present.config.profile.as_str());
            if asked.as_deref().is_some_and(|asked| asked != is) {
                let message = format!("is fixed at creation, and that of this webhook is {is:?}: give it another name");
                errors.push(FieldError::new("/profile", message));
            }
            // Switched off by Gatepost itself, it is not switched on again by silence.
            input.enabled = input.enabled.or(Some(present.config.enabled));
            input.paused = input.paused.or(Some(present.config.paused));
        }
        errors.extend(self.validate_webhook(tenant, &input, present));
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let known = match present {
            Some(present) => self.inner.vault.open_secrets(present.id, &present.sealed_secrets)?,
            None => WebhookSecrets::default(),
        };
        let mut secrets = others(&input, &known);
        if let Some(present) = present {
            let headers = input.headers.iter().map(|(name, _)| name.as_str());
            let again =
                moved_elsewhere(&input, &present.config).needed(headers, input.auth.as_ref().map(|auth| &auth.auth));
            let again: Vec<_> = again.filter(|pointer| !secrets.contains(pointer)).collect();
            secrets.extend(again);
        }
        let given = input.secret.is_some();
        let config = config_of(input, present.map(|present| &present.config));
        if let Some(import) = &import {
            let plan = plan_of(&config)?;
            if let Err(problem) = plan.check_secret(import) {
                return Err(Error::Invalid(vec![FieldError::new("/secret", problem)]));
            }
            if !known.signing.iter().any(|key| key.expires_at.is_none() && key.text == *import) {
                secrets.push("/secret".to_owned());
            }
        }
        secrets.extend(given.then(|| "/secret".to_owned()));
        Ok(WebhookPreview { config, secrets })
    }

    /// Whether a tenant could declare an event type so.
    ///
    /// # Errors
    /// [`Error::Invalid`] as declaring it would.
    pub async fn preview_event_type(
        &self,
        tenant: &Tenant,
        name: &EventType,
        definition: &EventTypeDefinition,
    ) -> Result<()> {
        self.check_definition(tenant.key, name, definition).await?;
        has_room(&self.types_loaded(tenant.key).await?.own, name, definition)
    }
}

/// Pointers to the headers and the part of `auth` whose values are not those of `known`.
fn others(input: &WebhookInput, known: &WebhookSecrets) -> Vec<String> {
    let mut pointers = Vec::new();
    for (name, value) in merge_headers(&known.headers, &input.headers) {
        let same = known.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case(&name) && *v == value);
        if !same {
            pointers.push(format!("/headers/{}", pointer_part(&name)));
        }
    }
    if let Some(AuthInput { auth, .. }) = &input.auth {
        let secret: Option<Secret> = input.auth.as_ref().and_then(|auth| auth_secret(auth, known.auth.as_ref()));
        if secret.is_some() && secret != known.auth {
            pointers.push(format!("/auth/{}", auth.secret_member()));
        }
    }
    pointers
}
