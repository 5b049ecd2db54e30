//! Keys: shared secrets in the two forms there are, and sets of public keys.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::error::{BadSecret, BuildError};
use crate::json::object;

const SHARED: &str = "whsec_";
const PUBLIC: &str = "whpk_";
const PRIVATE: &str = "whsk_";
/// Bytes of an Ed25519 public key.
const PUBLIC_BYTES: usize = 32;

/// A shared secret.
pub(crate) struct Shared(Box<hmac::Key>);

impl Shared {
    /// From `whsec_…`.
    fn standard(text: &str) -> Result<Self, BadSecret> {
        let key = decode(text.strip_prefix(SHARED).ok_or(BadSecret::Prefix)?)?;
        if !(24..=64).contains(&key.len()) {
            return Err(BadSecret::Length { wanted: "a key of 24 to 64", length: key.len() });
        }
        Ok(Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key))))
    }

    /// From a text, whose UTF-8 bytes are the key.
    pub(crate) fn text(text: &str) -> Result<Self, BadSecret> {
        check_text(text)?;
        Ok(Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))))
    }

    /// The tag over the parts, one after the other.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        context.sign()
    }

    /// Whether a tag, in bytes, is the one over the parts.
    pub(crate) fn fits(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        same(self.tag(parts).as_ref(), tag)
    }
}

/// Whether two byte strings are the same, in a time that does not tell where they differ.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// A value that proves by being known. Compared by hashes, so that not even its length shows.
pub(crate) struct Fixed([u8; 32]);

impl Fixed {
    pub(crate) fn new(text: &str) -> Result<Self, BadSecret> {
        check_text(text)?;
        Ok(Fixed(sha256(text.as_bytes())))
    }

    pub(crate) fn is(&self, value: &str) -> bool {
        same(&self.0, &sha256(value.as_bytes()))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // SHA-256's digest has 32 bytes.
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 32 bytes that 64 hexadecimal digits mean.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (bytes, mut out) = (text.as_bytes(), [0; 32]);
    if bytes.len() != 64 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

fn check_text(text: &str) -> Result<(), BadSecret> {
    match text {
        "" => Err(BadSecret::Empty),
        _ if text.ends_with(char::is_whitespace) => Err(BadSecret::TrailingBlank),
        _ => Ok(()),
    }
}

fn decode(text: &str) -> Result<Vec<u8>, BadSecret> {
    if text.is_empty() { Err(BadSecret::Empty) } else { STANDARD.decode(text).map_err(|_| BadSecret::Base64) }
}

/// A public key, with its name where it has one.
pub(crate) struct Public {
    pub(crate) id: Option<String>,
    key: Vec<u8>,
}

impl Public {
    pub(crate) fn new(id: Option<&str>, text: &str) -> Result<Self, BadSecret> {
        if text.starts_with(PRIVATE) {
            return Err(BadSecret::Private);
        }
        let key = decode(text.strip_prefix(PUBLIC).ok_or(BadSecret::Prefix)?)?;
        if key.len() != PUBLIC_BYTES {
            return Err(BadSecret::Length { wanted: "an Ed25519 public key of 32", length: key.len() });
        }
        Ok(Public { id: id.map(str::to_owned), key })
    }

    pub(crate) fn fits(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(message, signature).is_ok()
    }
}

/// A key of the scheme `standard`.
pub(crate) enum Key {
    Shared(Shared),
    Public(Public),
}

impl Key {
    pub(crate) fn parse(text: &str) -> Result<Self, BadSecret> {
        match text {
            "" => Err(BadSecret::Empty),
            _ if text.starts_with(SHARED) => Shared::standard(text).map(Key::Shared),
            _ => Public::new(None, text).map(Key::Public),
        }
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    kid: Option<String>,
}

/// The Ed25519 keys of a JSON Web Key Set (RFC 7517, RFC 8037); keys of other kinds are passed over.
pub(crate) fn key_set(json: &[u8]) -> Result<Vec<Public>, BuildError> {
    let bad = |problem: &str| BuildError::KeySet(problem.to_owned());
    let set: KeySet = object(json).map_err(|_| bad("it is not {\"keys\": […]}"))?;
    let mut found = Vec::new();
    for jwk in set.keys {
        if jwk.kty != "OKP" || jwk.crv.as_deref() != Some("Ed25519") {
            continue;
        }
        let key = jwk.x.and_then(|x| URL_SAFE_NO_PAD.decode(x).ok()).filter(|key| key.len() == PUBLIC_BYTES);
        found.push(Public { id: jwk.kid, key: key.ok_or_else(|| bad("the x of an Ed25519 key is not 32 bytes"))? });
    }
    if found.is_empty() { Err(bad("it has no Ed25519 key")) } else { Ok(found) }
}
