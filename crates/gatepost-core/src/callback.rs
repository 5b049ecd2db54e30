//! Callback tokens: a short-lived credential a receiver may call Gatepost back with, where a webhook
//! asks for one (SETTLED, Overrides). Nothing of it is stored: it says what it opens, and is signed.
//!
//! It opens reading of its own tenant and nothing more. It is made with a key of its own, so that no
//! webhook's secret can make one.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::hashing::base64url;
use crate::{TenantId, Timestamp};

/// The header that carries one.
pub const HEADER: &str = "gatepost-callback-token";
/// What every one begins with.
pub const PREFIX: &str = "gpc_";

/// Makes and opens callback tokens.
#[derive(Clone)]
pub struct CallbackKey(hmac::Key);

/// What a token opens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Callback {
    /// Whose data may be read.
    #[serde(rename = "t")]
    pub tenant: TenantId,
    /// When it was made.
    #[serde(rename = "i")]
    pub issued_at: Timestamp,
    /// When it ends.
    #[serde(rename = "e")]
    pub expires_at: Timestamp,
}

impl CallbackKey {
    /// From 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        CallbackKey(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The text of a token.
    pub fn token(&self, callback: &Callback) -> String {
        // Two texts and an id: they always serialise.
        let claims = base64url(&serde_json::to_vec(callback).unwrap_or_default());
        let tag = base64url(hmac::sign(&self.0, claims.as_bytes()).as_ref());
        format!("{PREFIX}{claims}.{tag}")
    }

    /// What a token opens at `now`; `None`: nothing.
    pub fn open(&self, token: &str, now: Timestamp) -> Option<Callback> {
        let (claims, tag) = token.strip_prefix(PREFIX)?.split_once('.')?;
        hmac::verify(&self.0, claims.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        let callback: Callback = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (callback.expires_at > now).then_some(callback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_a_token_opens_what_it_says_until_it_ends() {
        let key = CallbackKey::new(&[7; 32]);
        let at = Timestamp::from_secs;
        let callback = Callback { tenant: "acme".parse().unwrap(), issued_at: at(100), expires_at: at(160) };
        let token = key.token(&callback);
        assert_eq!(key.open(&token, at(159)), Some(callback.clone()));
        assert_eq!(key.open(&token, at(160)), None, "it has ended");
        assert_eq!(CallbackKey::new(&[8; 32]).open(&token, at(100)), None, "another key's");
        let forged = key.token(&Callback { tenant: "other".parse().unwrap(), ..callback });
        let (mine, theirs) = (token.split_once('.').unwrap(), forged.split_once('.').unwrap());
        assert_eq!(key.open(&format!("{}.{}", theirs.0, mine.1), at(100)), None);
        for bad in ["", "gpc_", "gpc_.", "gp_x", "gpc_e30.e30", &token[..token.len() - 1]] {
            assert_eq!(key.open(bad, at(100)), None, "{bad}");
        }
    }
}
