//! Standard Webhooks 1.0: `v1` (HMAC-SHA256) and `v1a` (Ed25519) over `{id}.{timestamp}.{body}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Given, Proven, SIGNATURES_MAX};
use crate::error::Error;
use crate::headers::{may, need, seconds};
use crate::key::Key;

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";
/// Names the public key that signed.
const KEY_ID: &str = "gatepost-key-id";
/// Characters of a key's name that are repeated.
const NAME_MAX: usize = 200;

pub(crate) struct Standard {
    pub(crate) keys: Vec<Key>,
}

impl Standard {
    pub(crate) fn verify(&self, given: &Given<'_>) -> Result<Proven, Error> {
        let id = need(given.headers, ID)?;
        let timestamp = need(given.headers, TIMESTAMP)?;
        let list = need(given.headers, SIGNATURE)?;
        let wanted = may(given.headers, KEY_ID)?;
        let signed_at = seconds(TIMESTAMP, timestamp)?;
        given.near(signed_at)?;
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", given.body];
        let found = Signatures::read(list)?;
        let key = self.fitting(&found, &parts, wanted)?;
        Ok(Proven { id: Some((id.to_owned(), true)), signed_at: Some(signed_at), key, claims: None, covers_body: true })
    }

    fn fitting(&self, found: &Signatures, parts: &[&[u8]], wanted: Option<&str>) -> Result<usize, Error> {
        // Ed25519 reads its message twice: there the parts have to be joined.
        let joined = (!found.public.is_empty()).then(|| parts.concat());
        let (mut judged, mut unknown) = (false, wanted.is_some() && !found.public.is_empty());
        for (number, key) in self.keys.iter().enumerate() {
            let fits = match key {
                Key::Shared(_) if found.shared.is_empty() => continue,
                Key::Shared(key) => {
                    let own = key.tag(parts);
                    found.shared.iter().any(|theirs| crate::key::same(own.as_ref(), theirs))
                }
                // A key without a name may be any.
                Key::Public(key) if key.id.is_some() && wanted.is_some() && key.id.as_deref() != wanted => continue,
                Key::Public(key) => {
                    let Some(message) = &joined else { continue };
                    unknown = false;
                    found.public.iter().any(|theirs| key.fits(message, theirs))
                }
            };
            if fits {
                return Ok(number);
            }
            judged = true;
        }
        let has = |public: bool| self.keys.iter().any(|key| matches!(key, Key::Public(_)) == public);
        match wanted {
            Some(name) if unknown && has(true) => Err(Error::UnknownKey(name.chars().take(NAME_MAX).collect())),
            _ if judged => Err(Error::NoMatch),
            _ => Err(Error::NoKnownSignature(match (has(false), has(true)) {
                (true, true) => "v1 or v1a",
                (false, true) => "v1a",
                _ => "v1",
            })),
        }
    }
}

/// The signatures of the versions we know.
#[derive(Default)]
struct Signatures {
    shared: Vec<Vec<u8>>,
    public: Vec<Vec<u8>>,
}

impl Signatures {
    fn read(list: &str) -> Result<Signatures, Error> {
        let mut found = Signatures::default();
        for (number, item) in list.split(' ').filter(|item| !item.is_empty()).enumerate() {
            if number == SIGNATURES_MAX {
                return Err(Error::malformed(SIGNATURE, "a list of at most 16 signatures"));
            }
            let Some((version, text)) = item.split_once(',') else { continue };
            let into = match version {
                "v1" => &mut found.shared,
                "v1a" => &mut found.public,
                _ => continue,
            };
            if let Ok(signature) = STANDARD.decode(text) {
                into.push(signature);
            }
        }
        Ok(found)
    }
}
