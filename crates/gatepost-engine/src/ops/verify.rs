//! Verification: asking an endpoint whether it wants what it gets (SETTLED, Webhooks).

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{Outcome, Request, Response};
use gatepost_core::echo::Known;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::profiles::{self, Answer, Ask, AskFacts, Challenge, VerificationMode};
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig, WebhookSecrets};
use gatepost_core::{Entropy as _, Timestamp, WebhookId};
use http::header::USER_AGENT;
use http::{HeaderName, HeaderValue, Method};

use super::webhooks::{CHANGE_AGAIN, concurrent_change};
use crate::deliver::Route;
use crate::endpoint_auth::Prepared;
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, Kind, Result};
use crate::net::{Exchange, Headers, KEPT_BODY, OutgoingRequest, Tries};
use crate::render;

/// What a verification came to.
#[derive(Clone, Debug)]
pub struct VerifyResult {
    /// Whether the endpoint proved that it wants what it gets.
    pub verified: bool,
    /// Why not.
    pub error: Option<String>,
    /// What was sent and answered, in order.
    pub transcript: Vec<VerifyStep>,
}

/// One request of a verification.
#[derive(Clone, Debug)]
pub struct VerifyStep {
    /// When it began.
    pub started_at: Timestamp,
    /// Its method.
    pub method: String,
    /// What was sent. The values of the tenant's own headers and of the auth are `***`.
    pub request: Request,
    /// Its body.
    pub body: Bytes,
    /// What it came to.
    pub outcome: Outcome,
    /// The HTTP status, if one arrived.
    pub status: Option<u16>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// How long it took.
    pub duration_us: u32,
    /// What came back, if anything did.
    pub response: Option<Response>,
}

/// Bits of a nonce: no endpoint can guess it.
const NONCE_BYTES: usize = 16;

impl Engine {
    /// Asks a webhook's endpoint, enabled or not, to prove itself as its registration says (a signed
    /// `gatepost.ping` where it says nothing), and keeps the answer: once this returns with `verified`,
    /// every event accepted later is matched against it (P4).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when the endpoint was registered anew while it was asked.
    pub async fn verify_webhook(&self, tenant: &Tenant, id: WebhookId) -> Result<VerifyResult> {
        let asked = self.inner.store.webhook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Webhook))?;
        let asked = Arc::new(asked);
        let mode = profiles::verifying(&asked.config, tenant.settings.require_verification).mode;
        let nonce = self.nonce();
        let facts = AskFacts {
            public_url: &self.inner.public_url,
            nonce: &nonce,
            rate_limit_per_s: asked.config.rate_limit_per_s,
        };
        let (transcript, verdict) = match mode.ask(&facts) {
            Ask::Challenge(challenge) => self.challenge(tenant, &asked, mode, &facts, &challenge).await,
            Ask::Ping | Ask::Nothing => self.ping(tenant, &asked).await?,
        };
        self.inner.metrics.verification(verdict.is_ok());
        match &verdict {
            Ok(()) => self.verified(tenant, &asked).await?,
            Err(error) => self.inner.store.record_verification(asked.key, Some(error.clone())).await?,
        }
        Ok(VerifyResult { verified: verdict.is_ok(), error: verdict.err(), transcript })
    }

    fn nonce(&self) -> String {
        let mut random = [0; NONCE_BYTES];
        self.inner.entropy.fill(&mut random);
        random.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A signed event, or the profile's probe.
    async fn ping(
        &self,
        tenant: &Tenant,
        webhook: &Arc<Webhook>,
    ) -> Result<(Vec<VerifyStep>, std::result::Result<(), String>)> {
        let probe = profiles::profile_or_default(&webhook.config.profile).probe();
        let made = self.try_once(tenant, webhook, self.ping_event(tenant)?, probe.as_ref()).await;
        let attempt = made.attempt;
        let step = VerifyStep {
            started_at: attempt.started_at,
            method: Method::POST.to_string(),
            request: made.request,
            body: made.body,
            outcome: attempt.outcome,
            status: attempt.status,
            error: attempt.error,
            duration_us: attempt.timings.total_us,
            response: attempt.response,
        };
        let verdict = judged(&step, |answer| match &probe {
            Some(probe) => (probe.judge)(answer),
            None => answer.ok(),
        });
        Ok((vec![step], verdict))
    }

    /// A request of the mode's own, again at once where it may be.
    async fn challenge(
        &self,
        tenant: &Tenant,
        webhook: &Arc<Webhook>,
        mode: &dyn VerificationMode,
        facts: &AskFacts<'_>,
        challenge: &Challenge,
    ) -> (Vec<VerifyStep>, std::result::Result<(), String>) {
        let route = Route::build(&self.inner.vault, Arc::clone(webhook), Arc::new(tenant.clone()));
        let mut transcript = Vec::new();
        loop {
            let mut step = self.ask_once(&route, challenge).await;
            let verdict = judged(&step, |answer| mode.judge(facts, answer));
            // Judged as it came, kept and shown without what it repeats.
            let verdict = self.mask_step(&route, &mut step, verdict);
            let unheard = step.status.is_none_or(|status| status >= 500) && step.outcome != Outcome::BlockedAddress;
            transcript.push(step);
            if verdict.is_ok() || !unheard || transcript.len() > challenge.retries as usize {
                return (transcript, verdict);
            }
        }
    }

    fn mask_step(
        &self,
        route: &Route,
        step: &mut VerifyStep,
        verdict: std::result::Result<(), String>,
    ) -> std::result::Result<(), String> {
        let Ok(calling) = &route.call else { return verdict };
        let tokens = self.inner.endpoint_auth.tokens_of(calling.auth.as_ref());
        let made = Known::of_values(tokens.iter().map(Secret::expose));
        let shown = |text: String| made.text(&calling.known.text(&text)).into_owned();
        for known in [&calling.known, &made] {
            step.response.iter_mut().for_each(|response| known.response(response));
        }
        step.error = step.error.take().map(shown);
        verdict.map_err(shown)
    }

    async fn ask_once(&self, route: &Route, challenge: &Challenge) -> VerifyStep {
        let config = &route.webhook.config;
        let sent = challenge.headers.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let user_agent = (USER_AGENT.as_str().to_owned(), crate::engine::USER_AGENT.to_owned());
        let shown = render::with_own(std::iter::once(user_agent).chain(sent).collect(), config);
        let request = Request { url: config.url.clone(), headers: shown };
        let exchange = match self.send_challenge(route, challenge).await {
            Ok(exchange) => exchange,
            Err(why) => Exchange {
                started_at: self.now(),
                outcome: Outcome::InvalidUrl,
                status: None,
                error: Some(why),
                timings: Default::default(),
                response: None,
                local_fault: false,
                unusable: false,
                resend: Default::default(),
            },
        };
        VerifyStep {
            started_at: exchange.started_at,
            method: challenge.method.to_owned(),
            request,
            body: challenge.body.clone(),
            outcome: exchange.outcome,
            status: exchange.status,
            error: exchange.error,
            duration_us: exchange.timings.total_us,
            response: exchange.response,
        }
    }

    async fn send_challenge(&self, route: &Route, challenge: &Challenge) -> std::result::Result<Exchange, String> {
        let calling = route.call.as_ref().map_err(Clone::clone)?;
        let webhook = &route.webhook;
        let secrets = self
            .inner
            .vault
            .open_secrets(webhook.id, &webhook.sealed_secrets)
            .map_err(|_| "the webhook's secrets do not open with this server's key".to_owned())?;
        let auth = match (&webhook.config.auth, &secrets.auth) {
            (Some(auth), Some(secret)) => Some(Prepared::new(webhook.tenant, auth, secret)?),
            _ => None,
        };
        let unsendable = |_| "the challenge cannot be written as a header".to_owned();
        let method = Method::from_bytes(challenge.method.as_bytes()).map_err(|e| unsendable(e.to_string()))?;
        let mut headers = Headers::from([(USER_AGENT, HeaderValue::from_static(crate::engine::USER_AGENT))]);
        for (name, value) in &challenge.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| unsendable(e.to_string()))?;
            headers.push(name, HeaderValue::from_str(value).map_err(|e| unsendable(e.to_string()))?);
        }
        headers.extend(calling.headers.iter().cloned());
        let mut tries = Tries::within(route.timeout);
        loop {
            let request = OutgoingRequest {
                target: &calling.target,
                method: method.clone(),
                headers: headers.clone(),
                title_case: true,
                body: challenge.body.clone(),
                timeout: tries.left(),
                allow_nets: &route.allow_nets,
                identity: None,
                http1: route.http1,
                fresh: tries.again(),
            };
            let exchange = self.inner.endpoint_auth.send(auth.as_ref(), request).await;
            if let Some(exchange) = tries.judge(exchange) {
                return Ok(exchange);
            }
        }
    }

    /// Writes a yes down, if the endpoint is still registered as it was asked.
    async fn verified(&self, tenant: &Tenant, asked: &Webhook) -> Result<()> {
        let proof = self.inner.vault.open_secrets(asked.id, &asked.sealed_secrets)?;
        for _ in 0..CHANGE_AGAIN {
            let present = self.inner.store.webhook(tenant.key, asked.id).await?;
            let present = present.ok_or(Error::NotFound(Kind::Webhook))?;
            let secrets = self.inner.vault.open_secrets(present.id, &present.sealed_secrets)?;
            if !same_endpoint((&asked.config, &proof), (&present.config, &secrets)) {
                break;
            }
            let told_as = present.config.verified_at.is_none().then_some(OwnEvent::WebhookVerified);
            let config = WebhookConfig { verified_at: Some(self.now()), ..present.config.clone() };
            match self.replace(tenant, &present, config, &secrets, told_as).await {
                Ok(_) => return Ok(self.inner.store.record_verification(asked.key, None).await?),
                Err(Error::Conflict { code: ConflictCode::ConcurrentChange, .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Err(concurrent_change())
    }
}

/// Whether two registrations have the same url, auth and headers: what a verification is about.
pub(crate) fn same_endpoint(one: (&WebhookConfig, &WebhookSecrets), other: (&WebhookConfig, &WebhookSecrets)) -> bool {
    one.0.url == other.0.url
        && one.0.auth == other.0.auth
        && one.1.auth == other.1.auth
        && one.1.headers == other.1.headers
}

/// What a step proves. What did not even become an answer is its own explanation.
fn judged(
    step: &VerifyStep,
    judge: impl FnOnce(&Answer<'_>) -> std::result::Result<(), String>,
) -> std::result::Result<(), String> {
    let (Some(status), Some(response)) = (step.status, &step.response) else {
        return Err(step.error.clone().unwrap_or_else(|| format!("no answer: {}", step.outcome.as_str())));
    };
    let unreadable = response.unreadable(KEPT_BODY);
    judge(&Answer { status, headers: &response.headers, body: &response.body, unreadable: unreadable.as_deref() })
}
