//! What other systems' APIs show besides: links, and the one secret that may be read back.

use gatepost_core::WebhookId;
use gatepost_core::profiles::SigningPlan;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;

use crate::engine::Engine;
use crate::error::{Error, Kind, Result};

impl Engine {
    /// Where this server is reached, as links name it; no `/` at its end.
    pub fn public_url(&self) -> &str {
        &self.inner.public_url
    }

    /// A webhook's present shared secret, for the one API whose document shows it again with every change
    /// (SETTLED, the exceptions of P7). `/v1` never asks for it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant has no such webhook.
    pub async fn present_secret(&self, tenant: &Tenant, id: WebhookId) -> Result<Option<Secret>> {
        let webhook = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
        let secrets = self.inner.vault.open_secrets(id, &webhook.sealed_secrets)?;
        let plan = SigningPlan::of(&webhook.config).ok();
        Ok(plan.and_then(|plan| plan.told(&secrets.signing).cloned()))
    }
}
