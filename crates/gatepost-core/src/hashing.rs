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

/// SHA-256 of what comes piece by piece.
#[derive(Clone)]
pub struct Sha256(aws_lc_rs::digest::Context);

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Sha256(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }

    /// Of what there was, and `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash.
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Sha256::new()
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Base64 with the URL-safe alphabet and no padding (RFC 4648 section 5).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The first 16 bytes of HMAC-SHA256 over `parts`. An absent part differs from an empty one, and no
/// two lists of parts run together to the same input.
pub fn keyed_hash(key: &[u8; 32], parts: &[Option<&[u8]>]) -> [u8; 16] {
    HashKey::new(key).hash(parts)
}

/// A key of [`keyed_hash`], made ready once: that alone is two blocks of SHA-256.
#[derive(Clone)]
pub struct HashKey(hmac::Key);

impl HashKey {
    /// `key`, ready.
    pub fn new(key: &[u8; 32]) -> Self {
        HashKey(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// See [`keyed_hash`].
    pub fn hash(&self, parts: &[Option<&[u8]>]) -> [u8; 16] {
        let mut input = Gathered { context: hmac::Context::with_key(&self.0), small: [0; 128], len: 0 };
        for part in parts {
            match part {
                None => input.push(&[0]),
                Some(bytes) => {
                    input.push(&[1]);
                    input.push(&(bytes.len() as u64).to_be_bytes());
                    input.push(bytes);
                }
            }
        }
        let mut out = [0; 16];
        out.copy_from_slice(&input.finish().as_ref()[..16]);
        out
    }
}

/// What is hashed, small pieces put together first: each call of the hash has its price.
struct Gathered {
    context: hmac::Context,
    small: [u8; 128],
    len: usize,
}

impl Gathered {
    fn push(&mut self, bytes: &[u8]) {
        if bytes.len() > self.small.len() - self.len {
            self.flush();
        }
        match self.small.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.context.update(bytes),
        }
    }

    fn flush(&mut self) {
        self.context.update(&self.small[..self.len]);
        self.len = 0;
    }

    fn finish(mut self) -> hmac::Tag {
        self.flush();
        self.context.sign()
    }
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
    fn pieces_of_any_size_are_hashed_as_one_text() {
        let key = [7; 32];
        let long = [5; 300];
        for sizes in [[0, 1, 127], [118, 1, 0], [119, 9, 300], [120, 300, 2], [300, 119, 1]] {
            let parts = sizes.map(|size| Some(&long[..size]));
            let mut plain = Vec::new();
            for size in sizes {
                plain.push(1);
                plain.extend_from_slice(&(size as u64).to_be_bytes());
                plain.extend_from_slice(&long[..size]);
            }
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &plain);
            assert_eq!(keyed_hash(&key, &parts), tag.as_ref()[..16], "{sizes:?}");
        }
    }

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(base64url(&sha256(b"")), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    }
}
