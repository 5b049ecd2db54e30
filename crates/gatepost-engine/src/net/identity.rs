//! Client certificates: who we are, for a receiver that asks.

use std::fmt;
use std::sync::Arc;

use gatepost_core::hashing::sha256;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// Tells identities apart without telling the key.
pub(super) type Fingerprint = [u8; 32];

/// Certificates of a chain, and bytes of either PEM text.
const CHAIN_MAX: usize = 10;
const PEM_MAX: usize = 64 * 1024;

/// What is wrong with a certificate or a key. The texts never repeat what was given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadIdentity {
    /// The certificate chain cannot be used.
    #[error("the certificate {0}")]
    Certificate(&'static str),
    /// The private key cannot be used.
    #[error("the private key {0}")]
    PrivateKey(&'static str),
}

/// A certificate chain with its private key, ready to be shown. Cheap to clone.
#[derive(Clone)]
pub struct ClientIdentity {
    key: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl ClientIdentity {
    /// Reads a chain (the client's own certificate first) and the private key of its first
    /// certificate (PKCS #8, PKCS #1 or SEC 1), both PEM.
    ///
    /// # Errors
    /// Says which of the two is wrong, and how. A certificate that has expired is none: the receiver
    /// judges it at every connection.
    pub fn from_pem(certificate: &str, private_key: &str) -> Result<Self, BadIdentity> {
        let chain = read_chain(certificate)?;
        let key = read_key(private_key)?;
        let provider = aws_lc_rs::default_provider();
        let signer = provider.key_provider.load_private_key(key).map_err(|_| {
            BadIdentity::PrivateKey("is of a kind that is not supported (RSA, ECDSA P-256 to P-521, Ed25519 are)")
        })?;
        let mut shown = Vec::new();
        for certificate in &chain {
            shown.extend_from_slice(&sha256(certificate));
        }
        let certified = CertifiedKey::new(chain, signer);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(BadIdentity::PrivateKey("is not that of the (first) certificate"));
            }
            Err(_) => return Err(BadIdentity::Certificate("is not an X.509 certificate")),
        }
        // The certificate holds the public key, so it names the private one too.
        Ok(ClientIdentity { key: Arc::new(certified), fingerprint: sha256(&shown) })
    }

    pub(super) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.key)))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn read_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, BadIdentity> {
    if pem.len() > PEM_MAX {
        return Err(BadIdentity::Certificate("is longer than 64 KiB"));
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(CHAIN_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| BadIdentity::Certificate("is not well-formed PEM"))?;
    match chain.len() {
        0 => Err(BadIdentity::Certificate("must be PEM with a block BEGIN CERTIFICATE")),
        1..=CHAIN_MAX => Ok(chain),
        _ => Err(BadIdentity::Certificate("chain must have at most 10 certificates")),
    }
}

fn read_key(pem: &str) -> Result<PrivateKeyDer<'static>, BadIdentity> {
    if pem.len() > PEM_MAX {
        return Err(BadIdentity::PrivateKey("is longer than 64 KiB"));
    }
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(BadIdentity::PrivateKey(
            "is encrypted with a passphrase: give it unencrypted, it is stored sealed",
        ));
    }
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| BadIdentity::PrivateKey("must be PEM with a block BEGIN PRIVATE KEY"))
}

#[cfg(test)]
mod tests {
    use gatepost_testkit::TestCa;

    use super::*;

    #[test]
    fn a_chain_and_its_key_are_judged_together() {
        let ca = TestCa::new();
        let (one, two) = (ca.client("one"), ca.client("two"));
        let first = ClientIdentity::from_pem(&one.certificate, &one.private_key).unwrap();
        let same = ClientIdentity::from_pem(&one.certificate, &one.private_key).unwrap();
        let second = ClientIdentity::from_pem(&two.certificate, &two.private_key).unwrap();
        assert_eq!(first.fingerprint(), same.fingerprint());
        assert_ne!(first.fingerprint(), second.fingerprint());
        assert_eq!(format!("{first:?}"), "***");
        let with_chain = format!("{}{}", one.certificate, ca.pem());
        assert!(ClientIdentity::from_pem(&with_chain, &one.private_key).is_ok());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let chain = one.certificate.repeat(CHAIN_MAX + 1);
        let cases: [(&str, &str, bool); 9] = [
            (&one.certificate, &two.private_key, false),
            (&one.certificate, "", false),
            (&one.certificate, &one.certificate, false),
            (&one.certificate, locked, false),
            ("", &one.private_key, true),
            ("hello", &one.private_key, true),
            (&one.private_key, &one.private_key, true),
            (broken, &one.private_key, true),
            (&chain, &one.private_key, true),
        ];
        for (certificate, key, of_certificate) in cases {
            let error = ClientIdentity::from_pem(certificate, key).unwrap_err();
            assert_eq!(
                matches!(error, BadIdentity::Certificate(_)),
                of_certificate,
                "{certificate:?} {key:?}: {error}"
            );
        }
    }
}
