//! A webhook ready to be sent to: parsed, unsealed, computed once.

use std::sync::Arc;
use std::time::Duration;

use gatepost_core::profiles::{self, Wire};
use gatepost_core::retry::RetryPolicy;
use gatepost_core::signing::Signer;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, bounds};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::scheduler::Terms;
use crate::net::Target;
use crate::vault::Vault;

/// How to send to one webhook. Url, headers and secrets are always today's; the body is not.
pub(crate) struct Route {
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) policy: RetryPolicy,
    pub(crate) timeout: Duration,
    pub(crate) allow_nets: Vec<IpNet>,
    pub(crate) call: Result<Calling, String>,
}

/// The parts that can fail to be built; then every attempt says why.
pub(crate) struct Calling {
    pub(crate) target: Target,
    pub(crate) wire: &'static dyn Wire,
    pub(crate) signer: Signer,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Route {
    /// Builds the route. What cannot be built is no error here: a webhook that became unusable
    /// (say, by a restored store) must show in its attempts, not stop the lane.
    pub(crate) fn build(vault: &Vault, webhook: Arc<Webhook>, tenant: Arc<Tenant>) -> Self {
        let config = &webhook.config;
        let profile = profiles::profile_or_default(&config.profile);
        let policy = profile.retry().with(config.retry.as_ref(), config.timeout_ms);
        Route {
            call: calling(vault, &webhook),
            timeout: Duration::from_millis(u64::from(policy.timeout_ms)),
            policy,
            allow_nets: crate::transport::parse_nets(&tenant.settings.allow_nets),
            tenant,
            webhook,
        }
    }

    /// What the scheduler must know.
    pub(crate) fn terms(&self) -> Terms {
        let config = &self.webhook.config;
        Terms {
            open: config.enabled && self.webhook.deleted_at.is_none(),
            max_in_flight: config.max_in_flight.unwrap_or(bounds::MAX_IN_FLIGHT_DEFAULT),
            paused_until: self.webhook.paused_until,
        }
    }
}

fn calling(vault: &Vault, webhook: &Webhook) -> Result<Calling, String> {
    let target = Target::parse(&webhook.config.url).map_err(|e| format!("the url cannot be called: {e}"))?;
    let wire = crate::render::wire(&webhook.config.profile)
        .ok_or_else(|| format!("this server does not know the profile {:?}", webhook.config.profile))?;
    let secrets = vault
        .open_secrets(webhook.id, &webhook.sealed_secrets)
        .map_err(|_| "the webhook's secrets do not open with this server's key".to_owned())?;
    let signer = Signer::new(&secrets.signing).map_err(|e| format!("the secret cannot sign: {e}"))?;
    let mut headers = Vec::with_capacity(secrets.headers.len());
    for (name, value) in &secrets.headers {
        let bad = |_| format!("the header {name:?} cannot be sent");
        let header_name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(e.to_string()))?;
        let mut header_value = HeaderValue::from_str(value.expose()).map_err(|e| bad(e.to_string()))?;
        header_value.set_sensitive(true);
        headers.push((header_name, header_value));
    }
    Ok(Calling { target, wire, signer, headers })
}
