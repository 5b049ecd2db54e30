//! How Gatepost proves itself to an endpoint besides the signature (SETTLED, Endpoint auth): for
//! webhooks and blocking hooks alike.
//!
//! Whoever sends to an endpoint [prepares](Prepared::new) its auth once, from the registration and
//! its secret, and hands every request to [`EndpointAuth::send`] instead of the transport: that adds
//! the header or the client certificate, and sees to OAuth 2.0 tokens.
//!
//! Rules:
//! - a token is fetched through the same door as everything else (P8), with the tenant's networks;
//! - it lives in memory only, belongs to one tenant, and is shared by whatever of that tenant asks the
//!   same endpoint as the same client for the same scope; requests at once share one fetch;
//! - it is fetched anew beside the requests shortly before it expires, and once when the endpoint
//!   answers 401 with it: then the same attempt is repeated once;
//! - a secret goes where it was given for: a change that would send a kept one elsewhere is refused
//!   ([`Moved`]);
//! - no token is a failed attempt like any other, told as data: nothing was sent, `status` is none,
//!   `error` names the token endpoint and never a secret (P7).

mod check;
mod moved;
mod oauth;
mod tokens;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_core::auth::EndpointAuth as Registered;
use gatepost_core::delivery::Response;
use gatepost_core::echo::Known;
use gatepost_core::secret::Secret;
use gatepost_core::{Clock, TenantKey};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use tokio::time::Instant;

pub(crate) use self::check::check;
pub(crate) use self::moved::{Moved, Places};
use self::oauth::Grant;
use self::tokens::{Token, Tokens};
use crate::metrics::Metrics;
use crate::net::{ClientIdentity, Exchange, OutgoingRequest, Target};
use crate::transport::Transport;

/// A repeated attempt gets at least this long, or is not made.
const REPEAT_AT_LEAST: Duration = Duration::from_millis(20);

/// One registration's auth, ready to be used: parsed, its secret in it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Prepared(Arc<Kind>);

enum Kind {
    Header(HeaderName, HeaderValue),
    Token(Arc<Grant>),
    Identity(ClientIdentity),
}

impl Prepared {
    /// Prepares the auth of something of `tenant`'s; `secret` is the registration's one secret member.
    ///
    /// # Errors
    /// Why it cannot be used, in a sentence for the tenant, without the secret.
    pub(crate) fn new(tenant: TenantKey, auth: &Registered, secret: &Secret) -> Result<Self, String> {
        let kind = match auth {
            Registered::Bearer => Kind::Header(AUTHORIZATION, bearer(secret.expose()).ok_or(UNSENDABLE)?),
            Registered::Basic { username } => {
                Kind::Header(AUTHORIZATION, basic(username, secret.expose()).ok_or(UNSENDABLE)?)
            }
            Registered::Header { name } => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| UNSENDABLE)?;
                Kind::Header(name, sensitive(secret.expose()).ok_or(UNSENDABLE)?)
            }
            Registered::Oauth2 { token_url, client_id, scope, audience } => {
                let (scope, audience) = (scope.clone(), audience.clone());
                Kind::Token(Arc::new(Grant::new(tenant, token_url, client_id, secret.clone(), scope, audience)?))
            }
            Registered::Mtls { certificate } => {
                Kind::Identity(ClientIdentity::from_pem(certificate, secret.expose()).map_err(|e| e.to_string())?)
            }
        };
        Ok(Prepared(Arc::new(kind)))
    }
}

const UNSENDABLE: &str = "the endpoint auth cannot be written as a header";

/// The header that carries the proof, for showing a request: its value is always `***`.
pub(crate) fn header_name(auth: &Registered) -> Option<String> {
    match auth {
        Registered::Bearer | Registered::Basic { .. } | Registered::Oauth2 { .. } => Some("authorization".to_owned()),
        Registered::Header { name } => Some(name.to_ascii_lowercase()),
        Registered::Mtls { .. } => None,
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

/// RFC 7617, with its charset UTF-8.
fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

/// The engine's one door for requests that may need a proof.
pub(crate) struct EndpointAuth {
    transport: Arc<dyn Transport>,
    tokens: Arc<Tokens>,
}

impl EndpointAuth {
    /// Sends through `transport`, with no tokens yet.
    pub(crate) fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        EndpointAuth { tokens: Arc::new(Tokens::new(Arc::clone(&transport), clock, metrics)), transport }
    }

    /// Sends `request` with what `auth` asks for. All of it (a token, the request, its repetition with
    /// a new token after a 401) happens within `request.timeout`, and is one exchange. `allow_nets` of
    /// the request hold for the token endpoint too.
    pub(crate) async fn send(&self, auth: Option<&Prepared>, mut request: OutgoingRequest<'_>) -> Exchange {
        match auth.map(|auth| &*auth.0) {
            None => self.transport.send(request).await,
            Some(Kind::Header(name, value)) => {
                request.headers.push(name.clone(), value.clone());
                self.transport.send(request).await
            }
            Some(Kind::Identity(identity)) => {
                let request = OutgoingRequest { identity: Some(identity), ..request };
                self.transport.send(request).await
            }
            Some(Kind::Token(grant)) => self.send_with_token(grant, request).await,
        }
    }

    /// Masks what an endpoint repeated of what it was sent, in everything of an exchange that is kept or
    /// shown: `known` of the registration, `tokens` made for this request, and the tokens of `auth`.
    pub(crate) fn mask(&self, exchange: &mut Exchange, auth: Option<&Prepared>, known: &Known, tokens: &[Secret]) {
        let Exchange { response, error, .. } = exchange;
        let silent = |response: &Response| response.body.is_empty() && response.headers.is_empty();
        if error.is_none() && response.as_ref().is_none_or(silent) {
            return;
        }
        let granted = self.tokens_of(auth);
        let made = Known::of_values(granted.iter().chain(tokens).map(Secret::expose));
        for known in [known, &made] {
            if known.is_empty() {
                continue;
            }
            response.iter_mut().for_each(|response| known.response(response));
            if let Some(Cow::Owned(masked)) = error.as_deref().map(|error| known.text(error)) {
                *error = Some(masked);
            }
        }
    }

    /// The tokens in use for an auth, as they are sent.
    pub(crate) fn tokens_of(&self, auth: Option<&Prepared>) -> Vec<Secret> {
        match auth.map(|auth| &*auth.0) {
            Some(Kind::Token(grant)) => self.tokens.in_use(grant),
            _ => Vec::new(),
        }
    }

    /// Keeps connections ready for requests with this auth; those that show a certificate are made when
    /// they are needed.
    pub(crate) async fn warm(
        &self,
        auth: Option<&Prepared>,
        target: &Target,
        nets: &[IpNet],
        http1: bool,
        wanted: usize,
    ) {
        if !auth.is_some_and(|auth| matches!(&*auth.0, Kind::Identity(_))) {
            self.transport.warm(target, nets, http1, wanted).await;
        }
    }

    async fn send_with_token(&self, grant: &Arc<Grant>, request: OutgoingRequest<'_>) -> Exchange {
        let started_at = self.tokens.shown();
        let began = Instant::now();
        let deadline = began + request.timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut exchange = match self.tokens.token(grant, request.allow_nets, left()).await {
            Ok(token) => {
                let first = self.transport.send(with_token(&request, &token, left())).await;
                self.once_more(grant, &request, token, first, deadline).await
            }
            Err(none) => none.exchange(started_at),
        };
        exchange.started_at = started_at;
        exchange.timings.total_us = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        exchange
    }

    /// A 401 is answered with another token, once, if there is one and time for it.
    async fn once_more(
        &self,
        grant: &Arc<Grant>,
        request: &OutgoingRequest<'_>,
        token: Arc<Token>,
        first: Exchange,
        deadline: Instant,
    ) -> Exchange {
        if first.status != Some(401) {
            if first.status.is_some() {
                self.tokens.accepted(grant);
            }
            return first;
        }
        let left = || deadline.saturating_duration_since(Instant::now());
        // Should there be no other token, the endpoint's own answer says more than that.
        let Some(Ok(other)) = self.tokens.replace(grant, &token, request.allow_nets, left()).await else {
            return first;
        };
        if left() < REPEAT_AT_LEAST {
            return first;
        }
        let second = self.transport.send(with_token(request, &other, left())).await;
        match second.status {
            Some(401) => self.tokens.refused(grant),
            Some(_) => self.tokens.accepted(grant),
            None => {}
        }
        second
    }
}

fn with_token<'a>(request: &OutgoingRequest<'a>, token: &Token, timeout: Duration) -> OutgoingRequest<'a> {
    let mut headers = request.headers.clone();
    headers.push(AUTHORIZATION, token.header().clone());
    OutgoingRequest {
        target: request.target,
        method: request.method.clone(),
        headers,
        title_case: request.title_case,
        body: request.body.clone(),
        timeout,
        allow_nets: request.allow_nets,
        identity: None,
        http1: request.http1,
        fresh: request.fresh,
    }
}
