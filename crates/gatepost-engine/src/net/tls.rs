//! Whom we trust, and how TLS is spoken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use self::listed::Listed;
use super::identity::{ClientIdentity, Fingerprint};
use super::sessions::Sessions;

mod explain;
mod listed;

pub(super) use explain::{explain, explain_alert};

/// Servers whose sessions are kept for resumption, which saves both sides half of a handshake's work.
/// With usual tickets and certificates each holds about 5 KiB.
const RESUMED_SERVERS: usize = 8_192;
/// The same per identity: few receivers ask for one.
const RESUMED_SERVERS_OF_ONE: usize = 8;
/// Configurations of identities kept ready.
const IDENTITIES: usize = 512;

/// Which versions of HTTP a receiver may choose from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Offer {
    /// HTTP/2 and HTTP/1.1.
    Both,
    /// HTTP/1.1 alone.
    Http1,
}

/// One configuration for everybody, and one for each identity: a session of one is never resumed as
/// another.
pub(super) struct TlsConfigs {
    anonymous: Arc<ClientConfig>,
    anonymous_http1: Arc<ClientConfig>,
    known: Mutex<HashMap<(Fingerprint, Offer), Arc<ClientConfig>>>,
}

fn offering_http1(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

impl TlsConfigs {
    /// From the configuration of [`client_config`].
    pub(super) fn new(anonymous: Arc<ClientConfig>) -> Self {
        let anonymous_http1 = Arc::new(offering_http1(&anonymous));
        TlsConfigs { anonymous, anonymous_http1, known: Mutex::default() }
    }

    /// How TLS is spoken under this identity.
    pub(super) fn of(&self, identity: Option<&ClientIdentity>, offer: Offer) -> Arc<ClientConfig> {
        let anonymous = match offer {
            Offer::Both => &self.anonymous,
            Offer::Http1 => &self.anonymous_http1,
        };
        let Some(identity) = identity else { return Arc::clone(anonymous) };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&(*identity.fingerprint(), offer)) {
            return Arc::clone(config);
        }
        if known.len() >= IDENTITIES {
            // Whoever is still in use is made again: a copy and an empty list of sessions.
            known.clear();
        }
        let mut config = ClientConfig::clone(anonymous);
        config.client_auth_cert_resolver = identity.resolver();
        config.resumption = Resumption::store(Arc::new(Sessions::of(RESUMED_SERVERS_OF_ONE)));
        let config = Arc::new(config);
        known.insert((*identity.fingerprint(), offer), Arc::clone(&config));
        config
    }
}

/// Why outgoing TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The extra CA file is not what it should be.
    #[error("the extra CA file is not PEM with at least one certificate: {0}")]
    BadExtraCa(String),
    /// The TLS library refused its configuration.
    #[error("TLS could not be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Reads the certificates of `GATEPOST_EXTRA_CA`.
fn read_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| TlsSetupError::BadExtraCa(e.to_string()))?;
    if certificates.is_empty() {
        return Err(TlsSetupError::BadExtraCa("it holds no CERTIFICATE".to_owned()));
    }
    for (at, certificate) in certificates.iter().enumerate() {
        if webpki::anchor_from_trusted_cert(certificate).is_err() {
            let number = at + 1;
            return Err(TlsSetupError::BadExtraCa(format!("its certificate number {number} is not one of X.509")));
        }
    }
    Ok(certificates)
}

/// The one TLS configuration of a client: the system's roots (the bundled ones where the system has
/// none, as in an empty container) and the extra CA, TLS 1.2 and 1.3, HTTP/2 preferred.
pub(super) fn client_config(extra_ca_pem: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let extra = extra_ca_pem.map(read_pem).transpose()?.unwrap_or_default();
    let mut verifier = verifier(&provider, extra.clone())?;
    if !extra.is_empty() {
        verifier = Arc::new(Listed::new(extra, verifier));
    }
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::store(Arc::new(Sessions::of(RESUMED_SERVERS)));
    Ok(Arc::new(config))
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    extra: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
    // Asked without the extra CA first: with one, a system without roots goes unnoticed and no
    // public receiver can be reached.
    match Verifier::new(provider.clone()) {
        Ok(system) if extra.is_empty() => Ok(Arc::new(system)),
        Ok(_) => Ok(Arc::new(Verifier::new_with_extra_roots(extra, provider.clone())?)),
        Err(error) => {
            tracing::info!(%error, "the system has no CA certificates; using the bundled ones");
            bundled(provider, extra)
        }
    }
}

fn bundled(
    provider: &Arc<CryptoProvider>,
    extra: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in extra {
        roots.add(certificate)?;
    }
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    Ok(verifier)
}

#[cfg(test)]
mod tests {
    use gatepost_testkit::TestCa;

    use super::*;

    #[test]
    fn an_extra_ca_must_be_pem_with_a_certificate() {
        assert!(client_config(Some(TestCa::new().pem().as_bytes())).is_ok());
        let cases = [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ];
        for pem in cases {
            let result = client_config(Some(pem.as_bytes()));
            assert!(matches!(result, Err(TlsSetupError::BadExtraCa(_))), "{pem:?}");
        }
    }

    #[test]
    fn the_bundled_roots_stand_in_for_missing_ones() {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let extra = read_pem(TestCa::new().pem().as_bytes()).expect("pem");
        assert!(bundled(&provider, extra).is_ok());
    }
}
