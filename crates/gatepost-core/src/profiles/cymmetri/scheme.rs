//! Scheme `cymmetri`: `Authorization: Bearer` and a token (RFC 7519, HS256) for this one body at this one
//! address. It carries no role and opens no API: the document's habit of handing receivers an
//! administrator's session is not copied.

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

use super::super::facts::SignFacts;
use super::super::scheme::{KeyForm, Scheme, SchemeHeader, SignedHeaders, Signer};
use super::options::expiry_minutes;
use crate::hashing::{hex, sha256};
use crate::hooks::codec::jwt;
use crate::signing::BadSecret;
use crate::webhook::SigningKey;

const HEADER: &str = "authorization";

pub(super) struct Cymmetri;

impl Scheme for Cymmetri {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn key(&self) -> KeyForm {
        KeyForm::Text
    }

    fn headers(&self, _: Option<&str>) -> Vec<SchemeHeader> {
        vec![SchemeHeader::own(HEADER)]
    }

    fn signer(
        &self,
        keys: &[&SigningKey],
        _: Option<&str>,
        options: &Map<String, Value>,
    ) -> Result<Box<dyn Signer>, BadSecret> {
        let key = keys.first().ok_or(BadSecret::Empty)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.text.expose().as_bytes());
        Ok(Box::new(CymmetriSigner { key, valid_s: 60 * expiry_minutes(options) }))
    }
}

struct CymmetriSigner {
    key: hmac::Key,
    valid_s: i64,
}

impl Signer for CymmetriSigner {
    fn sign(&self, facts: &SignFacts<'_>, headers: &mut SignedHeaders) {
        let (tenant, issued) = (facts.frame.tenant_id.as_str(), facts.now.as_secs());
        // A token serves once.
        let again = if facts.resent { ":again" } else { "" };
        let claims = json!({
            "iss": facts.frame.public_url,
            "aud": facts.url,
            "sub": tenant,
            "tenantId": tenant,
            "point": point(facts.event_type.as_str()),
            "jti": format!("{}:{}{again}", facts.frame.delivery, facts.attempt),
            "iat": issued,
            "exp": issued + self.valid_s,
            "request_body_sha256": hex(&sha256(facts.body)),
        });
        headers.put_secret(HEADER, format!("Bearer {}", jwt::hs256(&self.key, &claims)));
    }
}

/// The hook's name there; the connection check is one.
fn point(name: &str) -> &str {
    match name.strip_prefix(super::FAMILY) {
        Some(point) => point,
        None if name == "gatepost.ping" => "test",
        None => name,
    }
}
