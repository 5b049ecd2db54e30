//! The four systems on the wire: their APIs, and receivers written from their documents alone.

mod cryptr;
mod cymmetri;
mod ferriskey;
mod okta;

use aws_lc_rs::hmac;

/// HMAC-SHA256 in hexadecimal, the key a text: what the receivers here know of signing.
pub(crate) fn hmac_hex(key: &str, parts: &[&[u8]]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
