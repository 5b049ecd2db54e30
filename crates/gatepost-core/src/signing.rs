//! Standard Webhooks 1.0: secrets, signing and verifying, `v1` (HMAC-SHA256) and `v1a` (Ed25519).
//!
//! What is signed is `{webhook-id}.{webhook-timestamp}.{body}`; the header `webhook-signature` is a
//! list of `version,base64` items. We put **one** space between items and none around them:
//! published receivers fail on anything else, even when a later item would match.

use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::webhook::SigningKey;
use crate::{Entropy, Timestamp};

/// Header that carries the message's id: the same for every attempt.
pub const ID_HEADER: &str = "webhook-id";
/// Header that carries the attempt's time, in whole Unix seconds.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header that carries the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// How far a receiver's clock may be from ours, either way.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Bytes of a symmetric key (Standard Webhooks; SETTLED, Webhooks).
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of the text of a key of the other schemes: its UTF-8 bytes are the key (SETTLED, Webhooks).
pub const TEXT_BYTES: std::ops::RangeInclusive<usize> = 24..=1_024;
pub(crate) const SECRET_PREFIX: &str = "whsec_";
pub(crate) const PRIVATE_PREFIX: &str = "whsk_";
pub(crate) const PUBLIC_PREFIX: &str = "whpk_";
const SEED_LEN: usize = 32;

/// Why a text is not a signing secret. Never repeats the text (P7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// None of the known prefixes.
    #[error("must begin with whsec_ (or whsk_ for an Ed25519 private key)")]
    Prefix,
    /// A public key where something secret is wanted.
    #[error("is a public key (whpk_); a secret begins with whsec_ or whsk_")]
    Public,
    /// Nothing after the prefix.
    #[error("has no key after its prefix")]
    Empty,
    /// Not standard base64 with padding.
    #[error("is not standard base64 (A-Z a-z 0-9 + / with = padding) after its prefix")]
    Base64,
    /// A symmetric key that is too short or too long.
    #[error("must hold a key of 24 to 64 bytes, but holds {0}")]
    Length(usize),
    /// A text that is too short or too long to be a key.
    #[error("must have 24 to 1024 bytes (its UTF-8 bytes are the key), but has {0}")]
    TextLength(usize),
    /// A text copied together with the end of its line.
    #[error("ends in white space (its UTF-8 bytes are the key): leave it out")]
    TrailingBlank,
    /// The version that Standard Webhooks puts before a signature, or a name before a secret.
    #[error("begins with \"v1,\": leave it out, the secret begins with whsec_")]
    Version,
    /// An Ed25519 private key that is not seed and public key, 64 bytes together.
    #[error("must hold 64 bytes (Ed25519 seed and public key), but holds {0}")]
    PrivateLength(usize),
    /// An Ed25519 private key whose two halves do not belong together.
    #[error("holds a public key that does not belong to its seed")]
    Mismatch,
    /// An Ed25519 public key that is not 32 bytes.
    #[error("must hold an Ed25519 public key of 32 bytes, but holds {0}")]
    PublicLength(usize),
}

fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, BadSecret> {
    if text.is_empty() {
        return Err(BadSecret::Empty);
    }
    STANDARD.decode(text).map(Zeroizing::new).map_err(|_| BadSecret::Base64)
}

/// A key that signs, ready to use.
enum PrivateKey {
    Symmetric(Box<hmac::Key>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl PrivateKey {
    fn parse(text: &str) -> Result<Self, BadSecret> {
        if let Some(rest) = text.strip_prefix(SECRET_PREFIX) {
            let key = decode(rest)?;
            if !KEY_BYTES.contains(&key.len()) {
                return Err(BadSecret::Length(key.len()));
            }
            return Ok(PrivateKey::Symmetric(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key))));
        }
        if let Some(rest) = text.strip_prefix(PRIVATE_PREFIX) {
            let key = decode(rest)?;
            if key.len() != 2 * SEED_LEN {
                return Err(BadSecret::PrivateLength(key.len()));
            }
            let (seed, public) = key.split_at(SEED_LEN);
            let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| BadSecret::Mismatch)?;
            return Ok(PrivateKey::Ed25519(Box::new(pair)));
        }
        Err(match () {
            () if text.starts_with(PUBLIC_PREFIX) => BadSecret::Public,
            () if text.strip_prefix("v1,").is_some_and(|rest| rest.starts_with(SECRET_PREFIX)) => BadSecret::Version,
            () => BadSecret::Prefix,
        })
    }

    /// Appends `version,base64`.
    fn sign_into(&self, out: &mut String, id: &str, timestamp: &str, body: &[u8]) {
        match self {
            PrivateKey::Symmetric(key) => {
                out.push_str("v1,");
                STANDARD.encode_string(symmetric_tag(key, id, timestamp, body), out);
            }
            PrivateKey::Ed25519(pair) => {
                out.push_str("v1a,");
                // Ed25519 reads its message twice, so here the parts have to be joined.
                STANDARD.encode_string(pair.sign(&joined(id, timestamp, body)), out);
            }
        }
    }
}

fn symmetric_tag(key: &hmac::Key, id: &str, timestamp: &str, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    context.sign()
}

fn joined(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

/// Whether a text may become a webhook's secret (`whsec_…` or `whsk_…`).
///
/// # Errors
/// Says what is wrong, without repeating the text.
pub fn check_secret(text: &str) -> Result<(), BadSecret> {
    PrivateKey::parse(text).map(drop)
}

/// A new symmetric secret: `whsec_` and 32 random bytes.
pub fn generate_secret(entropy: &(impl Entropy + ?Sized)) -> Secret {
    let mut key = Zeroizing::new([0; 32]);
    entropy.fill(&mut *key);
    Secret::new(format!("{SECRET_PREFIX}{}", STANDARD.encode(key.as_slice())))
}

/// Whether a text may become the secret of a scheme that takes texts.
///
/// # Errors
/// Says what is wrong, without repeating the text.
pub fn check_text(text: &str) -> Result<(), BadSecret> {
    if text.ends_with(char::is_whitespace) {
        return Err(BadSecret::TrailingBlank);
    }
    if TEXT_BYTES.contains(&text.len()) { Ok(()) } else { Err(BadSecret::TextLength(text.len())) }
}

/// A new secret for a scheme that takes texts: 64 hex digits, from 32 random bytes.
pub fn generate_text(entropy: &(impl Entropy + ?Sized)) -> Secret {
    let mut key = Zeroizing::new([0; 32]);
    entropy.fill(&mut *key);
    Secret::new(hex(&*key))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// An HMAC-SHA256 key that is a text: its UTF-8 bytes, as printed.
pub struct TextKey(hmac::Key);

impl TextKey {
    /// The key this text is.
    pub fn new(text: &str) -> Self {
        TextKey(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    /// The tag over the parts, one after the other, in lower-case hex.
    pub fn hex(&self, parts: &[&[u8]]) -> String {
        hex(&self.tag(parts))
    }

    /// The tag over the parts, one after the other.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 32];
        // SHA-256's tag has 32 bytes.
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

/// A new Ed25519 secret: `whsk_`, then seed and public key.
///
/// # Errors
/// [`BadSecret::Mismatch`] when the cipher library refuses the seed, which it does for none.
pub fn generate_ed25519(entropy: &(impl Entropy + ?Sized)) -> Result<Secret, BadSecret> {
    let mut key = Zeroizing::new([0; 2 * SEED_LEN]);
    let (seed, public) = key.split_at_mut(SEED_LEN);
    entropy.fill(seed);
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| BadSecret::Mismatch)?;
    public.copy_from_slice(pair.public_key().as_ref());
    Ok(Secret::new(format!("{PRIVATE_PREFIX}{}", STANDARD.encode(key.as_slice()))))
}

/// The public half (`whpk_…`) of an Ed25519 secret; `None` for a symmetric one.
///
/// # Errors
/// When `text` is no secret.
pub fn public_key(text: &str) -> Result<Option<String>, BadSecret> {
    Ok(match PrivateKey::parse(text)? {
        PrivateKey::Symmetric(_) => None,
        PrivateKey::Ed25519(pair) => Some(format!("{PUBLIC_PREFIX}{}", STANDARD.encode(pair.public_key().as_ref()))),
    })
}

/// A webhook's keys, parsed once and used for every attempt.
pub struct Signer {
    keys: Vec<(PrivateKey, Option<Timestamp>)>,
}

impl Signer {
    /// From a webhook's keys, in the order their signatures are to appear: the present key first.
    ///
    /// # Errors
    /// When one of the texts is no secret.
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k SigningKey>) -> Result<Self, BadSecret> {
        let keys = keys
            .into_iter()
            .map(|key| Ok((PrivateKey::parse(key.text.expose())?, key.expires_at)))
            .collect::<Result<_, _>>()?;
        Ok(Signer { keys })
    }

    /// The value of `webhook-signature` for an attempt at `timestamp_s` (Unix seconds): one item
    /// per key that has not expired `now`.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8], now: Timestamp) -> String {
        // Most webhooks have one symmetric key: "v1," and 44 characters.
        let mut out = String::with_capacity(48 * self.keys.len());
        let timestamp = timestamp_s.to_string();
        for (key, expires_at) in &self.keys {
            if expires_at.is_some_and(|at| at <= now) {
                continue;
            }
            if !out.is_empty() {
                out.push(' ');
            }
            key.sign_into(&mut out, id, &timestamp, body);
        }
        out
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} keys)", self.keys.len())
    }
}

/// Why a message is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A needed header is not there.
    #[error("the header {0} is missing")]
    MissingHeader(&'static str),
    /// `webhook-timestamp` is not a whole number.
    #[error("webhook-timestamp is not a whole number of Unix seconds")]
    BadTimestamp,
    /// Too long ago: perhaps a replay, perhaps a clock.
    #[error("webhook-timestamp is {0} s in the past; compare the clocks")]
    TooOld(u64),
    /// In the future.
    #[error("webhook-timestamp is {0} s in the future; compare the clocks")]
    TooNew(u64),
    /// No item of a version this key can judge.
    #[error("webhook-signature has no item of version {0}")]
    NoKnownVersion(&'static str),
    /// Items there are, but none fits.
    #[error("no signature fits: another secret, or the body was changed on the way")]
    NoMatch,
    /// One of the secrets to verify with is none.
    #[error("the secret to verify with {0}")]
    BadSecret(#[from] BadSecret),
}

enum PublicHalf {
    Symmetric(Box<hmac::Key>),
    Ed25519(Vec<u8>),
}

impl PublicHalf {
    fn parse(text: &str) -> Result<Self, BadSecret> {
        if let Some(rest) = text.strip_prefix(PUBLIC_PREFIX) {
            let key = decode(rest)?;
            return if key.len() == SEED_LEN {
                Ok(PublicHalf::Ed25519(key.to_vec()))
            } else {
                Err(BadSecret::PublicLength(key.len()))
            };
        }
        Ok(match PrivateKey::parse(text)? {
            PrivateKey::Symmetric(key) => PublicHalf::Symmetric(key),
            PrivateKey::Ed25519(pair) => PublicHalf::Ed25519(pair.public_key().as_ref().to_vec()),
        })
    }

    fn version(&self) -> &'static str {
        match self {
            PublicHalf::Symmetric(_) => "v1",
            PublicHalf::Ed25519(_) => "v1a",
        }
    }

    fn fits(&self, signature: &[u8], id: &str, timestamp: &str, body: &[u8]) -> bool {
        match self {
            PublicHalf::Symmetric(key) => {
                let tag = symmetric_tag(key, id, timestamp, body);
                constant_time::verify_slices_are_equal(tag.as_ref(), signature).is_ok()
            }
            PublicHalf::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(&joined(id, timestamp, body), signature).is_ok()
            }
        }
    }
}

/// Verifies a received message against any of `secrets` (`whsec_…`, `whsk_…` or `whpk_…`).
/// `header` finds a header's value by its lower-case name. Returns which secret fitted.
///
/// # Errors
/// Names the first thing that is wrong, in the order secrets, headers, time, signature.
pub fn verify<'h>(
    secrets: &[&str],
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: Timestamp,
    tolerance: Duration,
) -> Result<usize, VerifyError> {
    let keys = secrets.iter().map(|text| PublicHalf::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let need = |name| header(name).ok_or(VerifyError::MissingHeader(name));
    let (id, timestamp, signatures) = (need(ID_HEADER)?, need(TIMESTAMP_HEADER)?, need(SIGNATURE_HEADER)?);
    let sent: i64 = timestamp.parse().map_err(|_| VerifyError::BadTimestamp)?;
    let age = i128::from(now.as_secs()) - i128::from(sent);
    let by = u64::try_from(age.unsigned_abs()).unwrap_or(u64::MAX);
    if by > tolerance.as_secs() {
        return Err(if age > 0 { VerifyError::TooOld(by) } else { VerifyError::TooNew(by) });
    }
    let mut judged = false;
    for item in signatures.split(' ') {
        let Some((version, text)) = item.split_once(',') else { continue };
        let Ok(signature) = STANDARD.decode(text) else { continue };
        for (i, key) in keys.iter().enumerate().filter(|(_, key)| key.version() == version) {
            judged = true;
            if key.fits(&signature, id, timestamp, body) {
                return Ok(i);
            }
        }
    }
    if judged {
        Err(VerifyError::NoMatch)
    } else {
        Err(VerifyError::NoKnownVersion(keys.first().map_or("v1", PublicHalf::version)))
    }
}

#[cfg(test)]
mod tests;
