//! The measured server's API, for what is set up and looked at beside the measuring.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_core::delivery::Outcome;
use gatepost_core::secret::Secret;
use gatepost_engine::net::{Client, Headers, OutgoingRequest, SystemResolver, Target};
use gatepost_engine::{SystemClock, USER_AGENT};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer: more than any page of any list has.
const ANSWER_BYTES: usize = 64 << 20;

/// A server, and the key to it.
pub(super) struct Api {
    client: Client,
    addr: SocketAddr,
    authorization: HeaderValue,
}

/// Why a call did not give what was asked for.
#[derive(Debug)]
pub(super) enum CallError {
    /// There was no answer of use.
    NoAnswer(String),
    /// The server said no: how, and its words.
    Refused(u16, Bytes),
}

impl Api {
    /// # Errors
    /// The key cannot be sent, or there is no TLS to be had.
    pub(super) fn new(addr: SocketAddr, key: &Secret) -> anyhow::Result<Api> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.expose()))?;
        authorization.set_sensitive(true);
        let (clock, resolver) = (Arc::new(SystemClock), Arc::new(SystemResolver::new()));
        let client = Client::unrestricted(clock, resolver, HeaderValue::from_static(USER_AGENT), None)?;
        Ok(Api { client, addr, authorization })
    }

    /// The header that opens it.
    pub(super) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// What the server at `path` answers.
    ///
    /// # Errors
    /// There was no answer, or the server said no.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes, CallError> {
        let url = format!("http://{}{path}", self.addr);
        let target =
            Target::parse(&url).map_err(|error| CallError::NoAnswer(format!("{url} cannot be called: {error}")))?;
        let json = HeaderValue::from_static("application/json");
        let mut headers = Headers::from([(AUTHORIZATION, self.authorization.clone()), (ACCEPT, json.clone())]);
        if body.is_some() {
            headers.push(CONTENT_TYPE, json);
        }
        let request = OutgoingRequest {
            target: &target,
            method,
            headers,
            title_case: false,
            body: body.unwrap_or_default(),
            timeout: TIMEOUT,
            allow_nets: &[],
            identity: None,
            http1: false,
            fresh: false,
        };
        let exchange = self.client.send_reading(request, ANSWER_BYTES).await;
        match (exchange.outcome, exchange.status, exchange.response) {
            (Outcome::Ok, _, Some(response)) if !response.truncated => Ok(response.body),
            (Outcome::Ok, ..) => Err(CallError::NoAnswer("the answer broke off or is too long".into())),
            (_, Some(status), Some(response)) => Err(CallError::Refused(status, response.body)),
            (..) => Err(CallError::NoAnswer(exchange.error.unwrap_or_else(|| "no answer came".into()))),
        }
    }
}
