use std::collections::HashSet;
use std::sync::Arc;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    AlertDescription, CertRevocationListError, ContentType, EncryptedClientHelloError, ExtendedKeyPurpose,
    HandshakeType, InconsistentKeys, InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved,
};

use super::*;

/// Names of variants, and the marks of a printed structure, have no place in a text for people.
fn is_for_people(text: &str) {
    let one_word =
        |word: &str| word.chars().zip(word.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase());
    let known = ["subjectAltName", "serverAuth", "mTLS"];
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
        assert!(!one_word(word) || known.contains(&word), "{word} in {text}");
    }
    assert!(!text.contains(['{', '}', '[', ']', '"']), "{text}");
    let told = text.strip_prefix("TLS handshake failed: ").expect(text);
    assert!(told.contains(": ") || told.contains("(auth of type mtls)"), "no remedy: {text}");
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(error)))
}

/// Every variant there is.
fn certificate_errors() -> Vec<(CertificateError, &'static str)> {
    use CertificateError as C;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
    let name = ServerName::try_from("hooks.test").expect("a name");
    let elsewhere = C::NotValidForNameContext { expected: name.clone(), presented: vec!["DnsName(\"a.test\")".into()] };
    vec![
        (C::BadEncoding, "cannot be read"),
        (C::Expired, "has expired"),
        (C::ExpiredContext { time, not_after: time }, "has expired"),
        (C::NotValidYet, "not valid yet"),
        (C::NotValidYetContext { time, not_before: time }, "not valid yet"),
        (C::Revoked, "revoked: replace"),
        (C::UnhandledCriticalExtension, "critical extension"),
        (C::UnknownIssuer, "GATEPOST_EXTRA_CA"),
        (C::UnknownRevocationStatus, "not known"),
        (C::ExpiredRevocationList, "list of its authority"),
        (C::ExpiredRevocationListContext { time, next_update: time }, "list of its authority"),
        (C::BadSignature, "bad signature"),
        (
            C::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: vec![1], supported_algorithms: vec![] },
            "SHA-2",
        ),
        (
            C::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: vec![1],
                public_key_algorithm_id: vec![2],
            },
            "SHA-2",
        ),
        (C::NotValidForName, "another host name"),
        (elsewhere, "another host name"),
        (C::NotValidForNameContext { expected: name, presented: vec![] }, "common name does not count"),
        (C::InvalidPurpose, "serverAuth"),
        (C::InvalidPurposeContext { required: ExtendedKeyPurpose::ServerAuth, presented: vec![] }, "serverAuth"),
        (C::InvalidOcspResponse, "OCSP"),
        (C::ApplicationVerificationFailure, "refused by this system"),
        (other(webpki::Error::CaUsedAsEndEntity), "CA:TRUE"),
        (other(webpki::Error::EndEntityUsedAsCa), "no authority"),
        (other(webpki::Error::UnsupportedCertVersion), "version 3"),
        (other(webpki::Error::MaximumPathDepthExceeded), "too long"),
        (other(webpki::Error::NameConstraintViolation), "may sign"),
        (other(webpki::Error::SignatureAlgorithmMismatch), "SHA-2"),
        (other(webpki::Error::MalformedExtensions), "malformed"),
        (other(std::fmt::Error), "meant for servers"),
    ]
}

#[test]
fn every_certificate_error_has_a_line_with_a_remedy() {
    for (bad, words) in certificate_errors() {
        let text = explain(&Error::InvalidCertificate(bad.clone()));
        is_for_people(&text);
        assert!(text.contains(words), "{bad:?}: {text}");
    }
}

#[test]
fn every_other_error_has_a_line_with_a_remedy() {
    use Error as E;
    let errors = [
        E::InappropriateMessage { expect_types: vec![ContentType::Alert], got_type: ContentType::Handshake },
        E::InappropriateHandshakeMessage {
            expect_types: vec![HandshakeType::ServerHello],
            got_type: HandshakeType::Finished,
        },
        E::InvalidEncryptedClientHello(EncryptedClientHelloError::SniRequired),
        E::InvalidMessage(InvalidMessage::MissingData("ServerHello")),
        E::NoCertificatesPresented,
        E::UnsupportedNameType,
        E::DecryptError,
        E::EncryptError,
        E::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
        E::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare),
        E::InvalidCertRevocationList(CertRevocationListError::ParseError),
        E::General("SomeInternals { a: 1 }".to_owned()),
        E::FailedToGetCurrentTime,
        E::FailedToGetRandomBytes,
        E::HandshakeNotComplete,
        E::PeerSentOversizedRecord,
        E::NoApplicationProtocol,
        E::BadMaxFragmentSize,
        E::InconsistentKeys(InconsistentKeys::KeyMismatch),
        E::Other(OtherError(Arc::new(std::fmt::Error))),
    ];
    for error in errors {
        is_for_people(&explain(&error));
    }
}

#[test]
fn every_alert_has_a_line_with_a_remedy() {
    let told: HashSet<String> = (0..=u8::MAX)
        .map(|number| {
            let text = explain(&Error::AlertReceived(AlertDescription::from(number)));
            is_for_people(&text);
            text
        })
        .collect();
    assert!(told.len() > 10, "one text does not fit all");
    let wanted = explain(&Error::AlertReceived(AlertDescription::CertificateRequired));
    assert!(wanted.contains("auth of type mtls"), "{wanted}");
}
