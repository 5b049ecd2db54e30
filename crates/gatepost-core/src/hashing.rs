//! Hashes, in the forms Gatepost keeps them.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Base64 with the URL-safe alphabet and no padding (RFC 4648 section 5).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The first 16 bytes of HMAC-SHA256 over `parts`. An absent part differs from an empty one, and no
/// two lists of parts run together to the same input.
pub fn keyed_hash(key: &[u8; 32], parts: &[Option<&[u8]>]) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        match part {
            None => context.update(&[0]),
            Some(bytes) => {
                context.update(&[1]);
                context.update(&(bytes.len() as u64).to_be_bytes());
                context.update(bytes);
            }
        }
    }
    let mut out = [0; 16];
    out.copy_from_slice(&context.sign().as_ref()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let key = [7; 32];
        let hash = |parts: &[Option<&[u8]>]| keyed_hash(&key, parts);
        assert_eq!(hash(&[Some(b"ab"), None]), hash(&[Some(b"ab"), None]));
        assert_ne!(hash(&[Some(b"ab"), Some(b"c")]), hash(&[Some(b"a"), Some(b"bc")]));
        assert_ne!(hash(&[None]), hash(&[Some(b"")]));
        assert_ne!(hash(&[Some(b"a")]), keyed_hash(&[8; 32], &[Some(b"a")]));
    }

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(base64url(&sha256(b"")), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    }
}
