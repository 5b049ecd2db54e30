//! A hook's keys: what we sign with, and what its answers are signed with.

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::Secret;
use crate::signing::{self, Signer};
use crate::webhook::SigningKey;
use crate::{Entropy, Timestamp};

/// Header of a signed answer: `v1,<base64>` items, separated by spaces.
pub const ANSWER_SIGNATURE_HEADER: &str = "gatepost-answer-signature";
/// Header of a signed answer that uses its own time (Unix seconds) instead of the question's.
pub const ANSWER_TIMESTAMP_HEADER: &str = "gatepost-answer-timestamp";

/// How a secret's text is turned into a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyScheme {
    /// Standard Webhooks: `whsec_` and base64.
    Standard,
    /// The text's own bytes.
    Text,
}

/// Why keys cannot be used. Never repeats them (P7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// Not of the Standard form.
    #[error(transparent)]
    Standard(#[from] signing::BadSecret),
    /// An asymmetric key where a shared one is needed.
    #[error("must be a shared secret (whsec_…): a receiver signs its answers with it too")]
    Asymmetric,
}

impl KeyScheme {
    /// Whether a text may become a hook's secret.
    ///
    /// # Errors
    /// Says what is wrong, without repeating the text.
    pub fn check(self, text: &str) -> Result<(), BadKeys> {
        match self {
            KeyScheme::Standard => {
                signing::check_secret(text)?;
                if text.starts_with("whsec_") { Ok(()) } else { Err(BadKeys::Asymmetric) }
            }
            KeyScheme::Text => Ok(signing::check_text(text)?),
        }
    }

    /// A new secret.
    pub fn generate(self, entropy: &(impl Entropy + ?Sized)) -> Secret {
        match self {
            KeyScheme::Standard => signing::generate_secret(entropy),
            KeyScheme::Text => {
                let mut bytes = zeroize::Zeroizing::new([0; 36]);
                entropy.fill(&mut *bytes);
                Secret::new(crate::hashing::base64url(bytes.as_slice()))
            }
        }
    }
}

/// A hook's keys, made once at load.
pub struct HookKeys(Inner);

enum Inner {
    Standard(Signer),
    Text(Vec<(hmac::Key, Option<Timestamp>)>),
}

impl std::fmt::Debug for HookKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookKeys(***)")
    }
}

impl HookKeys {
    /// From the hook's keys, the present one first.
    ///
    /// # Errors
    /// When one is no key of this scheme.
    pub fn new(scheme: KeyScheme, keys: &[SigningKey]) -> Result<Self, BadKeys> {
        Ok(HookKeys(match scheme {
            KeyScheme::Standard => Inner::Standard(Signer::new(keys)?),
            KeyScheme::Text => Inner::Text(
                keys.iter()
                    .map(|key| (hmac::Key::new(hmac::HMAC_SHA256, key.text.expose().as_bytes()), key.expires_at))
                    .collect(),
            ),
        }))
    }

    /// `v1,<base64>` for every key that is valid `now`, over `id.timestamp.body`.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8], now: Timestamp) -> String {
        match &self.0 {
            Inner::Standard(signer) => signer.sign(id, timestamp_s, body, now),
            Inner::Text(keys) => {
                let timestamp = timestamp_s.to_string();
                let valid = keys.iter().filter(|(_, until)| until.is_none_or(|until| until > now));
                let items: Vec<_> = valid
                    .map(|(key, _)| {
                        let mut context = hmac::Context::with_key(key);
                        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                            context.update(part);
                        }
                        format!("v1,{}", STANDARD.encode(context.sign()))
                    })
                    .collect();
                items.join(" ")
            }
        }
    }

    /// The present key, for tokens (scheme [`KeyScheme::Text`]).
    pub(super) fn token_key(&self) -> Option<&hmac::Key> {
        match &self.0 {
            Inner::Standard(_) => None,
            Inner::Text(keys) => keys.first().map(|(key, _)| key),
        }
    }

    /// Whether an answer is signed with one of the keys, over `id.timestamp.body`, where `id` is the
    /// invocation's or the message's, and `timestamp` the question's or the answer's own, which then
    /// must be within five minutes of ours.
    pub fn verify_answer(
        &self,
        signature: Option<&str>,
        own_time: Option<&str>,
        ids: &[&str],
        sent_at: Timestamp,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), &'static str> {
        let signature = signature.ok_or("the header gatepost-answer-signature is missing")?;
        let mut times = Vec::with_capacity(2);
        match own_time {
            None => times.push(sent_at.as_secs()),
            Some(text) => {
                let at: i64 = text.trim().parse().map_err(|_| "gatepost-answer-timestamp is no number")?;
                if now.as_secs().abs_diff(at) > ANSWER_TOLERANCE.as_secs() {
                    return Err("gatepost-answer-timestamp is more than five minutes away");
                }
                times.push(at);
            }
        }
        for id in ids {
            for time in &times {
                let ours = self.sign(id, *time, body, now);
                let fits = |theirs: &str| {
                    ours.split(' ').any(|own| {
                        !own.is_empty()
                            && constant_time::verify_slices_are_equal(own.as_bytes(), theirs.as_bytes()).is_ok()
                    })
                };
                if signature.split(' ').any(fits) {
                    return Ok(());
                }
            }
        }
        Err("no signature fits")
    }
}

const ANSWER_TOLERANCE: Duration = Duration::from_secs(300);
