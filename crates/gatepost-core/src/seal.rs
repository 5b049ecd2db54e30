//! Secrets at rest: envelope encryption (P7).
//!
//! A random *data key* encrypts every secret; the *master key* (never stored with the data) only
//! wraps the data key, so that changing the master key rewraps 32 bytes and no row. The cipher is
//! AES-256-GCM-SIV (RFC 8452), which stays safe should a nonce ever repeat. The associated data
//! names the row, so that a sealed value copied to another row does not open.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::Entropy;

/// First byte of everything sealed: lets a later scheme live beside this one.
const VERSION: u8 = 1;

/// What can go wrong when opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not base64 of 32 bytes.
    #[error("a master key is the base64 text of 32 bytes")]
    BadKey,
    /// More than the cipher takes at once.
    #[error("too long to seal")]
    TooLong,
    /// Wrong key, wrong row, or damaged.
    #[error("the sealed value does not open with this key")]
    DoesNotOpen,
}

/// A 256-bit key that seals and opens.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// A new random key.
    pub fn generate(entropy: &(impl Entropy + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(&mut *bytes);
        Key(bytes)
    }

    /// From base64 of 32 bytes, as in `GATEPOST_MASTER_KEY`.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| SealError::BadKey)?);
        let array: [u8; 32] = bytes.as_slice().try_into().map_err(|_| SealError::BadKey)?;
        Ok(Key(Zeroizing::new(array)))
    }

    /// Base64 of the key, for the file it is kept in.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// A public name for the key: tells keys apart without telling the key.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut input = Zeroizing::new(b"gatepost key fingerprint v1".to_vec());
        input.extend_from_slice(&*self.0);
        let hash = digest(&SHA256, &input);
        let mut out = [0; 16];
        out.copy_from_slice(&hash.as_ref()[..16]);
        out
    }

    /// A key for another purpose, derived from this one. `purpose` tells purposes apart.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &*self.0);
        let tag = aws_lc_rs::hmac::sign(&key, purpose.as_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Encrypts `plain` for the row named by `context`.
    ///
    /// # Errors
    /// [`SealError::TooLong`] for plaintext of many gigabytes.
    pub fn seal(&self, plain: &[u8], context: &[u8], entropy: &(impl Entropy + ?Sized)) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut out = Vec::with_capacity(1 + NONCE_LEN + plain.len() + 16);
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let tag = self
            .cipher()?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut out[1 + NONCE_LEN..],
            )
            .map_err(|_| SealError::TooLong)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Decrypts what [`Key::seal`] made for the same `context`.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(SealError::DoesNotOpen)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::DoesNotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::DoesNotOpen)?;
        let mut body = Zeroizing::new(body.to_vec());
        let len = self
            .cipher()?
            .open_in_place(nonce, Aad::from(context), &mut body)
            .map_err(|_| SealError::DoesNotOpen)?
            .len();
        body.truncate(len);
        Ok(body)
    }

    fn cipher(&self) -> Result<LessSafeKey, SealError> {
        let key = UnboundKey::new(&AES_256_GCM_SIV, &*self.0).map_err(|_| SealError::BadKey)?;
        Ok(LessSafeKey::new(key))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(std::sync::atomic::AtomicU8);
    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    #[test]
    fn p7_sealed_values_open_only_with_their_key_and_row() {
        let entropy = Counting(1.into());
        let (key, other) = (Key::generate(&entropy), Key::generate(&entropy));
        let sealed = key.seal(b"whsec_very_secret", b"wh_1", &entropy).unwrap();
        assert!(!sealed.windows(4).any(|w| w == b"very"));
        assert_eq!(&**key.open(&sealed, b"wh_1").unwrap(), b"whsec_very_secret");
        assert_eq!(key.open(&sealed, b"wh_2"), Err(SealError::DoesNotOpen));
        assert_eq!(other.open(&sealed, b"wh_1"), Err(SealError::DoesNotOpen));
        let mut damaged = sealed.clone();
        damaged[20] ^= 1;
        assert_eq!(key.open(&damaged, b"wh_1"), Err(SealError::DoesNotOpen));
        for cut in 0..sealed.len() {
            assert!(key.open(&sealed[..cut], b"wh_1").is_err());
        }
    }

    #[test]
    fn keys_have_a_text_form_and_a_fingerprint() {
        let key = Key::generate(&Counting(7.into()));
        let back = Key::from_base64(&key.to_base64()).unwrap();
        assert_eq!(key.fingerprint(), back.fingerprint());
        assert_ne!(key.derive("a"), key.derive("b"));
        for bad in ["", "AAAA", "not base64!"] {
            assert_eq!(Key::from_base64(bad).unwrap_err(), SealError::BadKey);
        }
        assert_eq!(format!("{key:?}"), "***");
    }
}
