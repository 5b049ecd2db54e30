//! One HTTP call, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use crate::error::{BuildError, Problem};

/// Bytes of an answer that are read: a decision has at most 256 KiB of object besides its records.
const ANSWER_MAX: usize = 4 << 20;
/// How long a connection is kept for the next call.
const IDLE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_types, reason = "a platform's own program: the server's egress rules are not its rules")]
type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Connections to one Gatepost, and the key.
pub(crate) struct Transport {
    http: Http,
    base: String,
    authorization: HeaderValue,
}

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    /// Seconds the server asks to wait, if it does.
    pub(crate) retry_after: Option<u64>,
}

impl Reply {
    /// What the server says is wrong; made up from the status if it does not say.
    pub(crate) fn problem(&self) -> Box<Problem> {
        let mut problem: Problem = serde_json::from_slice(&self.body).unwrap_or_default();
        problem.status = self.status;
        if problem.title.is_empty() && problem.detail.is_empty() {
            problem.title = "no reason was given".into();
        }
        Box::new(problem)
    }
}

/// No answer came, and why.
#[derive(Debug)]
pub(crate) struct NoReply(pub(crate) String);

impl Transport {
    pub(crate) fn new(url: &str, key: &str, extra_ca: Option<&[u8]>) -> Result<Self, BuildError> {
        let bad_url = || BuildError::Url(url.to_owned());
        let parsed: http::Uri = url.trim_end_matches('/').parse().map_err(|_| bad_url())?;
        let has_host = parsed.host().is_some_and(|host| !host.is_empty());
        if !has_host || !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.query().is_some() {
            return Err(bad_url());
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| BuildError::Key)?;
        authorization.set_sensitive(true);
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(extra_ca)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        #[expect(clippy::disallowed_types, reason = "see `Http`")]
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Transport { http, base: url.trim_end_matches('/').to_owned(), authorization })
    }

    /// Posts JSON and reads the whole answer. Waits as long as it takes: the caller's deadline is around it.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, String)],
    ) -> Result<Reply, NoReply> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| NoReply(e.to_string()))?;
        let answer = self.http.request(request).await.map_err(|e| NoReply(chain(&e)))?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|e| NoReply(e.to_string()))?.to_bytes();
        Ok(Reply { status, body, retry_after })
    }
}

/// The system's roots and the extra CA.
fn tls(extra_ca: Option<&[u8]>) -> Result<rustls::ClientConfig, BuildError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = match extra_ca {
        Some(pem) => {
            let extra: Vec<_> = CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|e| BuildError::Ca(e.to_string()))?;
            if extra.is_empty() {
                return Err(BuildError::Ca("it holds no CERTIFICATE".into()));
            }
            Verifier::new_with_extra_roots(extra, Arc::clone(&provider))?
        }
        None => Verifier::new(Arc::clone(&provider))?,
    };
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// An error with its causes: "client error (Connect): tcp connect error: …".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
