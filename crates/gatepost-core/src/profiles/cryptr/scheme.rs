//! Scheme `cryptr`: `cryptr-signature: t=<seconds>,v1=sha256.<hex>[,v0=sha256.<hex>]`, over `{t}.{body}`
//! with the key's text as printed. `v0` is the previous key's, while a rotation overlaps; receivers
//! written from the document read by position, so the order never changes.

use serde_json::{Map, Value};

use super::super::facts::SignFacts;
use super::super::scheme::{KeyForm, Scheme, SchemeHeader, SignedHeaders, Signer};
use crate::hashing::base64url;
use crate::secret::Secret;
use crate::signing::{BadSecret, TextKey};
use crate::webhook::SigningKey;
use crate::{Entropy, Timestamp};

const HEADER: &str = "cryptr-signature";
/// A `signature_key`: 128 characters of URL-safe base64.
const KEY_LEN: usize = 96;

pub(super) struct Cryptr;

impl Scheme for Cryptr {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn key(&self) -> KeyForm {
        KeyForm::Text
    }

    fn generate(&self, entropy: &dyn Entropy) -> Secret {
        let mut key = zeroize::Zeroizing::new([0; KEY_LEN]);
        entropy.fill(&mut *key);
        Secret::new(base64url(&*key))
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn headers(&self, _: Option<&str>) -> Vec<SchemeHeader> {
        vec![SchemeHeader::own(HEADER)]
    }

    fn signer(
        &self,
        keys: &[&SigningKey],
        _: Option<&str>,
        _: &Map<String, Value>,
    ) -> Result<Box<dyn Signer>, BadSecret> {
        let key = |key: &&SigningKey| TextKey::new(key.text.expose());
        let present = keys.first().map(key).ok_or(BadSecret::Empty)?;
        Ok(Box::new(CryptrSigner { present, previous: keys.get(1).map(|k| (key(k), k.expires_at)) }))
    }
}

struct CryptrSigner {
    present: TextKey,
    previous: Option<(TextKey, Option<Timestamp>)>,
}

impl Signer for CryptrSigner {
    fn sign(&self, facts: &SignFacts<'_>, headers: &mut SignedHeaders) {
        let t = facts.now.as_secs().to_string();
        let tag = |key: &TextKey| key.hex(&[t.as_bytes(), b".", facts.body]);
        let mut value = format!("t={t},v1=sha256.{}", tag(&self.present));
        if let Some((key, expires_at)) = &self.previous
            && expires_at.is_none_or(|at| at > facts.now)
        {
            value.push_str(",v0=sha256.");
            value.push_str(&tag(key));
        }
        headers.put(HEADER, value);
    }
}
