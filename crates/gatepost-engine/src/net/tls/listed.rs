//! Certificates that are themselves in `GATEPOST_EXTRA_CA`: trusted for their names, whoever signed them.
//!
//! What `openssl req -x509` makes is its own authority, and the library takes no authority for a server's
//! certificate. Who put that very certificate into the file said whom it stands for; its dates, its names
//! and that the server holds its key are checked as ever.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

/// Trusts what is listed, and asks `others` about the rest.
#[derive(Debug)]
pub(super) struct Listed {
    listed: HashSet<CertificateDer<'static>>,
    others: Arc<dyn ServerCertVerifier>,
}

impl Listed {
    pub(super) fn new(
        listed: impl IntoIterator<Item = CertificateDer<'static>>,
        others: Arc<dyn ServerCertVerifier>,
    ) -> Self {
        Listed { listed: listed.into_iter().collect(), others }
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.listed.contains(end_entity) {
            return self.others.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        }
        by_itself(end_entity, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.others.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }
}

/// What a certificate says by itself: its dates, and that it may be a server's. Asked without one
/// authority, the library judges exactly that before it finds that nobody signed it, or that it is an
/// authority itself.
fn by_itself(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    use webpki::Error as W;
    let bad = |error: CertificateError| Err(Error::InvalidCertificate(error));
    let parsed = match EndEntityCert::try_from(certificate) {
        Ok(parsed) => parsed,
        Err(error) => return bad(CertificateError::Other(OtherError(Arc::new(error)))),
    };
    match parsed.verify_for_usage(&[], &[], &[], now, KeyUsage::server_auth(), None, None) {
        Ok(_) | Err(W::UnknownIssuer | W::CaUsedAsEndEntity) => Ok(()),
        Err(W::CertExpired { time, not_after }) => bad(CertificateError::ExpiredContext { time, not_after }),
        Err(W::CertNotValidYet { time, not_before }) => bad(CertificateError::NotValidYetContext { time, not_before }),
        Err(W::InvalidCertValidity) => bad(CertificateError::Expired),
        Err(W::RequiredEkuNotFoundContext(_) | W::EmptyEkuExtension) => bad(CertificateError::InvalidPurpose),
        Err(error) => bad(CertificateError::Other(OtherError(Arc::new(error)))),
    }
}
