//! A webhook ready to be sent to: parsed, unsealed, computed once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatepost_core::echo::Known;
use gatepost_core::event::EventType;
use gatepost_core::profiles::{self, Address, Signers, SigningPlan, Wire};
use gatepost_core::retry::RetryPolicy;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Ordering, Webhook, WebhookConfig, WebhookSecrets, bounds};
use gatepost_store::{Store, StoreError};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use tokio::sync::Mutex;

use super::scheduler::Terms;
use super::sender::signed_names;
use crate::endpoint_auth::Prepared;
use crate::net::Target;
use crate::own_events::is_open;
use crate::vault::Vault;

/// Older revisions whose wire form is kept at hand: what waits is rarely spread over more.
const OLDER_KEPT: usize = 16;

/// How one revision's bodies look, or why nobody can tell.
pub(crate) type Form = Result<Arc<Wire>, String>;

/// How to send to one webhook. Url, headers and secrets are always today's; the body is not.
pub(crate) struct Route {
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) policy: RetryPolicy,
    pub(crate) timeout: Duration,
    /// Whether the endpoint is called over HTTP/1.1 only.
    pub(crate) http1: bool,
    pub(crate) allow_nets: Vec<IpNet>,
    /// Whether sustained failure disables the webhook.
    pub(crate) auto_disable: bool,
    pub(crate) call: Result<Calling, String>,
    /// How bodies look, by today's configuration.
    form: Form,
    /// How they looked by older ones, as far as somebody asked.
    older: Mutex<BTreeMap<u32, Form>>,
}

/// The parts that can fail to be built; then every attempt says why.
pub(crate) struct Calling {
    pub(crate) target: Target,
    /// Whether each event type has a path below it.
    by_path: bool,
    pub(crate) signers: Signers,
    /// The names of the headers those make, in order.
    pub(crate) signed_names: Vec<HeaderName>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) auth: Option<Prepared>,
    /// What the endpoint may repeat of the webhook's secrets.
    pub(crate) known: Known,
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
            form: form_of(config),
            older: Mutex::default(),
            timeout: Duration::from_millis(u64::from(policy.timeout_ms)),
            http1: profiles::http1_only(config),
            policy,
            auto_disable: profile.auto_disable(),
            allow_nets: crate::transport::parse_nets(&tenant.settings.allow_nets),
            tenant,
            webhook,
        }
    }

    /// How the bodies of deliveries made under `revision` look. The store is asked once per older
    /// revision: whoever asks at the same time waits for that answer.
    ///
    /// # Errors
    /// When the store fails; nothing is known then.
    pub(crate) async fn form_at(&self, store: &dyn Store, revision: u32) -> Result<Form, StoreError> {
        if revision == self.webhook.revision {
            return Ok(self.form.clone());
        }
        let mut older = self.older.lock().await;
        if let Some(form) = older.get(&revision) {
            return Ok(form.clone());
        }
        let configs = store.webhook_configs(self.webhook.key, &[revision]).await?;
        let form = match configs.get(&revision) {
            Some(config) => form_of(config),
            None => Err(format!("revision {revision} of the webhook is not kept")),
        };
        if older.len() >= OLDER_KEPT {
            older.pop_first();
        }
        older.insert(revision, form.clone());
        Ok(form)
    }

    /// What the scheduler must know.
    pub(crate) fn terms(&self) -> Terms {
        let config = &self.webhook.config;
        Terms {
            open: is_open(&self.webhook, &self.tenant),
            max_in_flight: in_flight(config),
            paused_until: self.webhook.paused_until,
            rate_limit_per_s: config.rate_limit_per_s,
        }
    }
}

impl Calling {
    /// Where an event of this type goes; `path`: below the url instead.
    ///
    /// # Errors
    /// Why it goes nowhere, for the attempt.
    pub(crate) fn target(
        &self,
        webhook: &Webhook,
        event_type: &EventType,
        path: Option<&str>,
    ) -> Result<Target, String> {
        let path = match path {
            Some(path) => path,
            None if !self.by_path => return Ok(self.target.clone()),
            None => match profiles::address(&webhook.config, event_type) {
                Address::Path(path) => path,
                Address::Url => return Ok(self.target.clone()),
                Address::Nowhere => return Err(format!("the webhook has no path for events of type {event_type}")),
            },
        };
        let url = profiles::below(&webhook.config.url, path);
        Target::parse(&url).map_err(|e| format!("the url with its path cannot be called: {e}"))
    }
}

/// Requests at once. Under strict order there is never more than one, even while one that was
/// cancelled or reopened by hand is still under way.
fn in_flight(config: &WebhookConfig) -> u32 {
    match config.ordering {
        Ordering::Webhook => 1,
        Ordering::None | Ordering::Subject => config.max_in_flight.unwrap_or(bounds::MAX_IN_FLIGHT_DEFAULT),
    }
}

fn form_of(config: &WebhookConfig) -> Form {
    Wire::of(config).map(Arc::new).map_err(|e| e.to_string())
}

fn calling(vault: &Vault, webhook: &Webhook) -> Result<Calling, String> {
    let target = Target::parse(&webhook.config.url).map_err(|e| format!("the url cannot be called: {e}"))?;
    let plan = SigningPlan::of(&webhook.config).map_err(|e| e.to_string())?;
    let secrets = vault
        .open_secrets(webhook.id, &webhook.sealed_secrets)
        .map_err(|_| "the webhook's secrets do not open with this server's key".to_owned())?;
    let signers = plan
        .signers(&secrets.signing, &webhook.config.options)
        .map_err(|e| format!("the secret cannot sign: it {e}"))?;
    let signers = signers.calling_back(|| vault.callback_key());
    let mut headers = Vec::with_capacity(secrets.headers.len());
    for (name, value) in &secrets.headers {
        let bad = |_| format!("the header {name:?} cannot be sent");
        let header_name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(e.to_string()))?;
        let mut header_value = HeaderValue::from_str(value.expose()).map_err(|e| bad(e.to_string()))?;
        header_value.set_sensitive(true);
        headers.push((header_name, header_value));
    }
    let known = known_of(&webhook.config, &secrets);
    let auth = match (&webhook.config.auth, &secrets.auth) {
        (None, _) => None,
        (Some(auth), Some(secret)) => Some(Prepared::new(webhook.tenant, auth, secret)?),
        (Some(_), None) => return Err("the secret of the webhook's auth is not kept".to_owned()),
    };
    let signed_names = signed_names(&plan)?;
    let by_path = profiles::profile(&webhook.config.profile).is_some_and(|profile| profile.by_path());
    Ok(Calling { target, by_path, signers, signed_names, headers, auth, known })
}

/// What a webhook's endpoint knows of its secrets.
pub(crate) fn known_of(config: &WebhookConfig, secrets: &WebhookSecrets) -> Known {
    Known::of(&secrets.signing, secrets.headers.values(), config.auth.as_ref().zip(secrets.auth.as_ref()))
}
