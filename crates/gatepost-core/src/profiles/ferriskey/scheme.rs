//! Scheme `ferriskey`: `x-ferriskey-signature`, 64 hexadecimal digits over `{timestamp}.{body}` with the
//! secret's text; beside it the time and the delivery's id, which is the same for all its attempts. It
//! holds one signature only: a rotation ends the old secret at once, as it does there.

use serde_json::{Map, Value};

use super::super::facts::SignFacts;
use super::super::scheme::{KeyForm, Scheme, SchemeHeader, SignedHeaders, Signer};
use crate::Entropy;
use crate::hashing::hex;
use crate::secret::Secret;
use crate::signing::{BadSecret, TextKey};
use crate::webhook::SigningKey;

const SIGNATURE: &str = "x-ferriskey-signature";
const TIMESTAMP: &str = "x-ferriskey-timestamp";
const DELIVERY_ID: &str = "x-ferriskey-delivery-id";
/// A secret: 64 hexadecimal digits.
const KEY_LEN: usize = 32;

pub(super) struct FerrisKey;

impl Scheme for FerrisKey {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn key(&self) -> KeyForm {
        KeyForm::Text
    }

    fn generate(&self, entropy: &dyn Entropy) -> Secret {
        let mut key = zeroize::Zeroizing::new([0; KEY_LEN]);
        entropy.fill(&mut *key);
        Secret::new(hex(&*key))
    }

    fn headers(&self, _: Option<&str>) -> Vec<SchemeHeader> {
        [SIGNATURE, TIMESTAMP, DELIVERY_ID].map(SchemeHeader::own).to_vec()
    }

    fn signer(
        &self,
        keys: &[&SigningKey],
        _: Option<&str>,
        _: &Map<String, Value>,
    ) -> Result<Box<dyn Signer>, BadSecret> {
        let key = keys.first().ok_or(BadSecret::Empty)?;
        Ok(Box::new(FerrisKeySigner(TextKey::new(key.text.expose()))))
    }
}

struct FerrisKeySigner(TextKey);

impl Signer for FerrisKeySigner {
    fn sign(&self, facts: &SignFacts<'_>, headers: &mut SignedHeaders) {
        let timestamp = facts.now.as_secs().to_string();
        headers.put(SIGNATURE, self.0.hex(&[timestamp.as_bytes(), b".", facts.body]));
        headers.put(TIMESTAMP, timestamp);
        headers.put(DELIVERY_ID, super::delivery_uuid(facts.frame.delivery).to_string());
    }
}
