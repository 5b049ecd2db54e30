//! Why a handshake failed, in one line that says what to do about it.
//!
//! The library's own texts are its variants' names; none of them is repeated.

use rustls::{CertificateError, Error};

/// One line about a failed handshake that helps the receiver's owner.
pub(in crate::net) fn explain(error: &Error) -> String {
    use Error as E;
    let what = match error {
        E::InvalidCertificate(bad) => certificate(bad),
        E::AlertReceived(alert) => return explain_alert(&format!("{alert:?}")),
        E::InvalidMessage(_) => {
            "the receiver does not speak TLS on this port: check the port, or use http:// if allowed"
        }
        E::PeerIncompatible(_) => {
            "no TLS version or cipher in common: the receiver must take TLS 1.2 or newer with forward secrecy"
        }
        E::NoCertificatesPresented => "the receiver showed no certificate: give its server one for this host name",
        E::PeerMisbehaved(_)
        | E::InappropriateMessage { .. }
        | E::InappropriateHandshakeMessage { .. }
        | E::DecryptError
        | E::PeerSentOversizedRecord => {
            "the receiver broke the TLS protocol: update its TLS library, or look at what stands before it"
        }
        E::NoApplicationProtocol => "the receiver speaks neither HTTP/1.1 nor HTTP/2 over it: let it offer one of them",
        E::UnsupportedNameType => "no certificate can be made out to such a host name: use a DNS name or an address",
        E::InvalidCertRevocationList(_) => "a list of revoked certificates cannot be read: renew that list",
        E::InvalidEncryptedClientHello(_) => "the receiver wants an encrypted greeting: let it take a plain one",
        E::EncryptError
        | E::FailedToGetCurrentTime
        | E::FailedToGetRandomBytes
        | E::HandshakeNotComplete
        | E::BadMaxFragmentSize
        | E::InconsistentKeys(_) => "this server's own TLS failed: tell whoever runs it",
        _ => "the two sides did not agree: look into the receiver's log of TLS errors",
    };
    format!("TLS handshake failed: {what}")
}

/// The same for an alert, by its name in the library: of an error on an HTTP/2 connection nothing else is left.
pub(in crate::net) fn explain_alert(alert: &str) -> String {
    let why = match alert {
        "CertificateRequired" | "NoCertificate" => "it wants a client certificate (auth of type mtls)",
        "BadCertificate" | "CertificateUnknown" | "UnsupportedCertificate" => {
            "it does not take our client certificate: check the one in auth"
        }
        "CertificateExpired" => "our client certificate has expired: renew the one in auth",
        "CertificateRevoked" => "our client certificate has been revoked: renew the one in auth",
        "UnknownCA" => "it does not know who signed our client certificate: it must trust that authority",
        "AccessDenied" => "it gives this client no access: check its rules, or the client certificate in auth",
        "HandshakeFailure" | "InsufficientSecurity" => {
            "it has no cipher in common with us, or wants a client certificate (auth of type mtls)"
        }
        "ProtocolVersion" => "it speaks no TLS version of ours: it must take TLS 1.2 or newer",
        "UnrecognisedName" => "it does not know this host name: check the url, or its server's configuration",
        "NoApplicationProtocol" => "it speaks neither HTTP/1.1 nor HTTP/2 on this port: let it offer one of them",
        "InternalError" => "it has an error of its own: look into its log",
        "CloseNotify" | "UserCanceled" => "it ended the connection: look into its log",
        _ => "it says that we broke the protocol: look into its log of TLS errors",
    };
    format!("TLS handshake failed: the receiver refused it: {why}")
}

fn certificate(bad: &CertificateError) -> &'static str {
    use CertificateError as C;
    match bad {
        C::Expired | C::ExpiredContext { .. } => "its certificate has expired: renew it",
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "its certificate is not valid yet: check its dates and the clocks of both sides"
        }
        C::Revoked => "its certificate has been revoked: replace it",
        C::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "its certificate is for no host name at all: make one with subjectAltName (a common name does not count)"
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            "its certificate is for another host name: add this one to its subjectAltName, or call it by its own"
        }
        C::UnknownIssuer => {
            "its certificate is signed by an unknown authority (self-signed, an incomplete chain, or a private CA): \
             send the whole chain, or have the certificate or its authority put into GATEPOST_EXTRA_CA"
        }
        C::BadSignature => "its certificate has a bad signature: install it anew with the chain it was issued with",
        C::BadEncoding => "its certificate cannot be read: have it issued anew",
        C::UnhandledCriticalExtension => {
            "its certificate has a critical extension that is not understood: have it issued without"
        }
        // The platform verifier hides an unfit purpose behind an error of its own.
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "its certificate is not meant for servers: it needs the extended key usage serverAuth"
        }
        C::UnknownRevocationStatus => {
            "whether its certificate was revoked is not known: make its authority's list reachable"
        }
        C::ExpiredRevocationList | C::ExpiredRevocationListContext { .. } => {
            "the list of its authority's revoked certificates has expired: have it renewed"
        }
        C::InvalidOcspResponse => "the OCSP answer it staples cannot be used: renew it, or staple none",
        C::ApplicationVerificationFailure => "its certificate was refused by this system: ask whoever runs this server",
        C::UnsupportedSignatureAlgorithmContext { .. } | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            UNSUPPORTED_SIGNATURE
        }
        C::Other(why) => other(why.0.as_ref()),
        _ => "its certificate is not acceptable: have it issued anew for this host name",
    }
}

const UNSUPPORTED_SIGNATURE: &str = "its certificate is signed in a way that is not supported: use RSA of 2048 bits or more, ECDSA or Ed25519 with SHA-2";

/// What the library has no words of its own for.
fn other(why: &(dyn std::error::Error + Send + Sync + 'static)) -> &'static str {
    use webpki::Error as W;
    let Some(why) = why.downcast_ref::<W>() else {
        return "its certificate is not acceptable: it must be meant for servers, and for this host name";
    };
    match why {
        W::CaUsedAsEndEntity => {
            "its certificate is that of an authority (CA:TRUE): have that very certificate put into GATEPOST_EXTRA_CA, \
             or use one with CA:FALSE"
        }
        W::EndEntityUsedAsCa => "its certificate is signed by one that is no authority: use an authority's (CA:TRUE)",
        W::CertDistrusted => "its certificate is distrusted everywhere: replace it",
        W::UnsupportedCertVersion => {
            "its certificate is of an old version of X.509: make one of version 3 with subjectAltName"
        }
        W::NameConstraintViolation | W::PathLenConstraintViolated => {
            "its certificate goes beyond what its authority may sign: have it issued by another"
        }
        W::MaximumPathDepthExceeded
        | W::MaximumPathBuildCallsExceeded
        | W::MaximumSignatureChecksExceeded
        | W::MaximumNameConstraintComparisonsExceeded => {
            "the chain of its certificate is too long: send only what leads to the authority"
        }
        W::SignatureAlgorithmMismatch => UNSUPPORTED_SIGNATURE,
        W::EmptyEkuExtension => "its certificate is meant for nothing: it needs the extended key usage serverAuth",
        _ => "its certificate is malformed: have it issued anew",
    }
}

#[cfg(test)]
mod tests;
