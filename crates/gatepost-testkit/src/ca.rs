//! Certificates, good and bad.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

/// What certificate a receiver shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cert {
    /// For its names, signed by the test CA.
    Good,
    /// For its names, but of years ago.
    Expired,
    /// For its names, but of years to come.
    NotYetValid,
    /// Valid, for another name.
    WrongName,
    /// Signed by itself.
    SelfSigned,
}

/// Who signed a certificate that a receiver's friends know by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signer {
    /// Itself, as the authority it is (CA:TRUE): what `openssl req -x509` makes.
    ItselfAsAuthority,
    /// Itself, and it is no authority.
    Itself,
    /// The test CA.
    Authority,
}

/// A client's certificate and private key, PEM.
#[derive(Clone, Debug)]
pub struct ClientCert {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub private_key: String,
}

/// A certificate authority made for one test.
pub struct TestCa {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for TestCa {
    fn default() -> Self {
        TestCa::new()
    }
}

impl TestCa {
    /// A new authority with a key of its own.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Gatepost test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = new_key();
        let certificate = params.self_signed(&key).expect("the parameters are sound");
        TestCa { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Its certificate in PEM: the content of `GATEPOST_EXTRA_CA`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a client called `name`, good for nothing else.
    pub fn client(&self, name: &str) -> ClientCert {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are sound");
        ClientCert { certificate: certificate.pem(), private_key: key.serialize_pem() }
    }

    /// As [`TestCa::server_config`] with a good certificate, for a server that takes only clients
    /// with a certificate of this authority.
    pub fn server_config_asking(&self, names: &[&str], h2: bool) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("it was just made");
        roots.add(own).expect("it is an authority");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("there is a root");
        self.server(Cert::Good, names, h2, Some(verifier))
    }

    /// The TLS configuration of a server that shows such a certificate for `names` (DNS names or
    /// addresses), offering HTTP/2 if `h2`.
    pub fn server_config(&self, cert: Cert, names: &[&str], h2: bool) -> Arc<ServerConfig> {
        self.server(cert, names, h2, None)
    }

    /// A certificate for `names` in PEM, and the TLS configuration of a server that shows it.
    pub fn known_by_itself(&self, signer: Signer, cert: Cert, names: &[&str]) -> (String, Arc<ServerConfig>) {
        let (pem, chain, key) = self.make(cert, signer, names);
        (pem, serve(chain, key, false, None))
    }

    /// What a plain `openssl req -x509` makes for an address, and a server that shows it. `None`: this
    /// machine has no openssl.
    pub fn made_by_openssl(address: &str) -> Option<(String, Arc<ServerConfig>)> {
        let made = std::process::Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "30",
            ])
            .args(["-subj", "/CN=hooks.test", "-addext", &format!("subjectAltName=IP:{address}")])
            .args(["-keyout", "-", "-out", "-"])
            .output()
            .ok()
            .filter(|made| made.status.success());
        let Some(made) = made else {
            eprintln!("no openssl here: its own certificate is left out");
            return None;
        };
        let certificate = CertificateDer::from_pem_slice(&made.stdout).expect("openssl writes PEM");
        let key = PrivateKeyDer::from_pem_slice(&made.stdout).expect("openssl writes PEM");
        let text = String::from_utf8(made.stdout).expect("PEM is ASCII");
        let at = text.find("-----BEGIN CERTIFICATE").expect("a certificate");
        Some((text[at..].to_owned(), serve(certificate, key, false, None)))
    }

    fn server(
        &self,
        cert: Cert,
        names: &[&str],
        h2: bool,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Arc<ServerConfig> {
        let signer = if cert == Cert::SelfSigned { Signer::Itself } else { Signer::Authority };
        let (_, chain, key) = self.make(cert, signer, names);
        serve(chain, key, h2, clients)
    }

    fn make(
        &self,
        cert: Cert,
        signer: Signer,
        names: &[&str],
    ) -> (String, CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names: Vec<String> = match cert {
            Cert::WrongName => vec!["somebody.else.test".to_owned()],
            _ => names.iter().map(|n| (*n).to_owned()).collect(),
        };
        let mut params = CertificateParams::new(names).expect("the names are DNS names or addresses");
        (params.not_before, params.not_after) = match cert {
            Cert::Expired => (date_time_ymd(2010, 1, 1), date_time_ymd(2011, 1, 1)),
            Cert::NotYetValid => (date_time_ymd(4000, 1, 1), date_time_ymd(4001, 1, 1)),
            _ => (date_time_ymd(2020, 1, 1), date_time_ymd(4000, 1, 1)),
        };
        if signer == Signer::ItselfAsAuthority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = new_key();
        let certificate = match signer {
            Signer::Authority => params.signed_by(&key, &self.issuer),
            Signer::Itself | Signer::ItselfAsAuthority => params.self_signed(&key),
        }
        .expect("the parameters are sound");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (certificate.pem(), CertificateDer::from(certificate), key)
    }
}

fn serve(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    h2: bool,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Arc<ServerConfig> {
    let versions = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions");
    let mut config = match clients {
        Some(verifier) => versions.with_client_cert_verifier(verifier),
        None => versions.with_no_client_auth(),
    }
    .with_single_cert(vec![certificate], key)
    .expect("the key is the certificate's");
    let h2 = h2.then(|| b"h2".to_vec());
    config.alpn_protocols = h2.into_iter().chain([b"http/1.1".to_vec()]).collect();
    Arc::new(config)
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system gives randomness")
}
