//! HS256 tokens (RFC 7515, RFC 7519), as narrow as they can be: one algorithm, made and never
//! chosen.

use aws_lc_rs::hmac;
use serde_json::Value;

use crate::hashing::base64url;

/// A compact token over `claims`.
pub fn hs256(key: &hmac::Key, claims: &Value) -> String {
    let mut token = base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
    token.push('.');
    token.push_str(&base64url(claims.to_string().as_bytes()));
    let tag = hmac::sign(key, token.as_bytes());
    token.push('.');
    token.push_str(&base64url(tag.as_ref()));
    token
}

/// The claims of a token made with `key`; `None` for anything else, other algorithms included.
/// Times and audience are the caller's to judge.
pub fn verify_hs256(key: &hmac::Key, token: &str) -> Option<Value> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (signed, tag) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    if header.get("alg").and_then(Value::as_str) != Some("HS256") {
        return None;
    }
    hmac::verify(key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}
