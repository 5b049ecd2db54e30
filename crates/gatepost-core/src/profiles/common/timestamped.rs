//! Scheme `timestamped`: `t=<Unix seconds>,v1=<hex>`, the form Stripe made common. What is signed is
//! `{t}.{body}`; while a rotation overlaps there is one `v1` item per key, the present one's first.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::super::facts::SignFacts;
use super::super::scheme::{KeyForm, Scheme, SchemeHeader, SignedHeaders, Signer};
use crate::Timestamp;
use crate::signing::{BadSecret, TextKey};
use crate::webhook::SigningKey;

const HEADER: &str = "gatepost-signature";

pub(super) struct Timestamped;

impl Scheme for Timestamped {
    fn name(&self) -> &'static str {
        "timestamped"
    }

    fn key(&self) -> KeyForm {
        KeyForm::Text
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn takes_header(&self) -> bool {
        true
    }

    fn headers(&self, header: Option<&str>) -> Vec<SchemeHeader> {
        vec![SchemeHeader::own(name(header))]
    }

    fn signer(
        &self,
        keys: &[&SigningKey],
        header: Option<&str>,
        _: &Map<String, Value>,
    ) -> Result<Box<dyn Signer>, BadSecret> {
        let keys = keys.iter().map(|key| (TextKey::new(key.text.expose()), key.expires_at)).collect();
        Ok(Box::new(TimestampedSigner { keys, header: name(header) }))
    }
}

fn name(header: Option<&str>) -> Cow<'static, str> {
    header.map_or(Cow::Borrowed(HEADER), |name| Cow::Owned(name.to_owned()))
}

struct TimestampedSigner {
    keys: Vec<(TextKey, Option<Timestamp>)>,
    header: Cow<'static, str>,
}

impl Signer for TimestampedSigner {
    fn sign(&self, facts: &SignFacts<'_>, headers: &mut SignedHeaders) {
        let t = facts.now.as_secs().to_string();
        let mut value = String::with_capacity(16 + 68 * self.keys.len());
        value.push_str("t=");
        value.push_str(&t);
        for (key, expires_at) in &self.keys {
            if expires_at.is_none_or(|at| at > facts.now) {
                // Writing to a text cannot fail.
                let _ = write!(value, ",v1={}", key.hex(&[t.as_bytes(), b".", facts.body]));
            }
        }
        headers.put(self.header.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{keys, sign};

    #[test]
    fn the_published_vector() {
        let body = br#"{"a":1}"#;
        let mac = "38877139021993b830af32feea6e18a8da83eb2f6e49ee50bd9e4cf4ca4d3789";
        let key = crate::signing::TextKey::new("whsec_test");
        assert_eq!(key.hex(&[b"1700000000", b".", body]), mac);
    }

    #[test]
    fn one_header_with_an_item_per_key_that_still_signs() {
        let (new, old) = ("a-new-secret-of-some-length", "an-old-secret-of-some-length");
        let at = 1_700_000_000;
        let one = sign(&["timestamped"], None, &keys(&[(new, None)]), at, b"{}");
        assert_eq!(one[0].0, "gatepost-signature");
        let both = sign(&["timestamped"], None, &keys(&[(new, None), (old, Some(at + 1))]), at, b"{}");
        let old_alone = sign(&["timestamped"], None, &keys(&[(old, None)]), at, b"{}");
        let items: Vec<_> = both[0].1.split(',').collect();
        assert_eq!(items[..2].join(","), one[0].1);
        assert_eq!(items[2], old_alone[0].1.split(',').nth(1).unwrap());
        let expired = sign(&["timestamped"], None, &keys(&[(new, None), (old, Some(at))]), at, b"{}");
        assert_eq!(expired, one);
        let named = sign(&["timestamped"], Some("X-Shop-Signature"), &keys(&[(new, None)]), at, b"{}");
        assert_eq!(named, [("x-shop-signature".to_owned(), one[0].1.clone())]);
    }
}
