//! Schemes `standard` (`v1`) and `standard-ed25519` (`v1a`) of Standard Webhooks 1.0. They share their
//! three headers: a webhook with both sends one list with the items of both.

use serde_json::{Map, Value};

use super::super::facts::SignFacts;
use super::super::scheme::{KeyForm, Scheme, SchemeHeader, SignedHeaders, Signer};
use crate::signing::{self, BadSecret};
use crate::webhook::SigningKey;

/// `v1`, HMAC-SHA256.
pub(crate) struct Symmetric;

/// `v1a`, Ed25519.
pub(crate) struct Ed25519;

impl Scheme for Symmetric {
    fn name(&self) -> &'static str {
        "standard"
    }

    fn key(&self) -> KeyForm {
        KeyForm::Standard
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn headers(&self, _: Option<&str>) -> Vec<SchemeHeader> {
        headers()
    }

    fn signer(
        &self,
        keys: &[&SigningKey],
        _: Option<&str>,
        _: &Map<String, Value>,
    ) -> Result<Box<dyn Signer>, BadSecret> {
        Ok(Box::new(StandardSigner(signing::Signer::new(keys.iter().copied())?)))
    }
}

impl Scheme for Ed25519 {
    fn name(&self) -> &'static str {
        "standard-ed25519"
    }

    fn key(&self) -> KeyForm {
        KeyForm::Ed25519
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn headers(&self, _: Option<&str>) -> Vec<SchemeHeader> {
        headers()
    }

    fn signer(
        &self,
        keys: &[&SigningKey],
        _: Option<&str>,
        _: &Map<String, Value>,
    ) -> Result<Box<dyn Signer>, BadSecret> {
        Ok(Box::new(StandardSigner(signing::Signer::new(keys.iter().copied())?)))
    }
}

fn headers() -> Vec<SchemeHeader> {
    [signing::ID_HEADER, signing::TIMESTAMP_HEADER, signing::SIGNATURE_HEADER].map(SchemeHeader::shared).to_vec()
}

struct StandardSigner(signing::Signer);

impl Signer for StandardSigner {
    fn sign(&self, facts: &SignFacts<'_>, headers: &mut SignedHeaders) {
        let seconds = facts.now.as_secs();
        headers.put(signing::ID_HEADER, facts.message_id.to_owned());
        headers.put(signing::TIMESTAMP_HEADER, seconds.to_string());
        headers.join(signing::SIGNATURE_HEADER, self.0.sign(facts.message_id, seconds, facts.body, facts.now));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{keys, sign};
    use crate::Timestamp;
    use crate::signing::{TOLERANCE, verify};

    const SYMMETRIC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    const AT: i64 = 1_614_265_330;

    #[test]
    fn an_attempt_carries_the_three_headers_and_a_second_library_verifies_them() {
        let sent = sign(&["standard"], None, &keys(&[(SYMMETRIC, None)]), AT, b"{}");
        let names: Vec<_> = sent.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["webhook-id", "webhook-timestamp", "webhook-signature"]);
        assert_eq!((&*sent[0].1, &*sent[1].1), ("evt_1", "1614265330"));
        let theirs = standardwebhooks::Webhook::new(SYMMETRIC).unwrap();
        assert_eq!(sent[2].1, theirs.sign("evt_1", AT, b"{}").unwrap());
    }

    #[test]
    fn both_schemes_side_by_side_are_one_list_each_with_its_own_key() {
        let keys = keys(&[(SYMMETRIC, None), (PAIR, None)]);
        let sent = sign(&["standard", "standard-ed25519"], None, &keys, AT, b"{}");
        assert_eq!(sent.len(), 3);
        let items: Vec<_> = sent[2].1.split(' ').collect();
        assert!(items.len() == 2 && items[0].starts_with("v1,") && items[1].starts_with("v1a,"), "{items:?}");
        let header = |name: &str| sent.iter().find(|(n, _)| n == name).map(|(_, value)| &**value);
        for key in [SYMMETRIC, PUBLIC] {
            assert_eq!(verify(&[key], header, b"{}", Timestamp::from_secs(AT), TOLERANCE), Ok(0), "{key}");
        }
        let alone = sign(&["standard-ed25519"], None, &keys, AT, b"{}");
        assert_eq!(alone[2].1, items[1]);
    }
}
