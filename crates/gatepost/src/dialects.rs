//! How a receiver of people's checks what came, whoever's dialect it is in: by the headers it has.

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gatepost_core::hashing::{hex, sha256};
use gatepost_core::hooks::codec::jwt;
use gatepost_core::signing::{self, TOLERANCE, TextKey};
use serde_json::Value;

use crate::receiver::Received;

/// Whether a request was made by somebody who has `secret`: by its signature, its token, or, where
/// nothing is signed, by a header that is the secret itself.
///
/// # Errors
/// Says, for a person, what does not fit.
pub(crate) fn verify(received: &Received, secret: &str) -> Result<(), String> {
    let header = |name: &str| received.header(name);
    if header(signing::SIGNATURE_HEADER).is_some() {
        let verified = signing::verify(&[secret], |name| received.header(name), &received.body, received.at, TOLERANCE);
        return verified.map(|_| ()).map_err(|error| error.to_string());
    }
    if let Some(value) = header("cryptr-signature").or_else(|| header("gatepost-signature")) {
        return items(received, secret, value);
    }
    if let (Some(signature), Some(time)) = (header("x-ferriskey-signature"), header("x-ferriskey-timestamp")) {
        fresh(received, time)?;
        return same(&TextKey::new(secret).hex(&[time.as_bytes(), b".", &received.body]), signature);
    }
    if let Some(signature) = header("x-hub-signature-256") {
        let signature = signature.strip_prefix("sha256=").ok_or("the signature does not begin with sha256=")?;
        return same(&TextKey::new(secret).hex(&[&received.body]), signature);
    }
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if let Some(token) = bearer.filter(|token| token.split('.').count() == 3) {
        return token_of(received, secret, token);
    }
    let is_it = |value: &http::HeaderValue| {
        constant_time::verify_slices_are_equal(value.as_bytes(), secret.as_bytes()).is_ok()
            || value.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")) == Some(secret)
    };
    if received.headers.values().any(is_it) {
        return Ok(());
    }
    Err("it is not signed in any way this receiver knows, and no header is the secret".into())
}

/// Whether the secret can verify anything, as far as its form tells.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn check_secret(secret: &str) -> Result<(), String> {
    if !secret.starts_with("whsec_") && !secret.starts_with("whpk_") {
        return if secret.is_empty() { Err("is empty".into()) } else { Ok(()) };
    }
    match signing::verify(&[secret], |_| None, b"", gatepost_core::Timestamp::EPOCH, TOLERANCE) {
        Err(signing::VerifyError::BadSecret(reason)) => Err(reason.to_string()),
        _ => Ok(()),
    }
}

/// `t=…,v1=…[,v1=…][,v0=…]`, each value with or without `sha256.` before it.
fn items(received: &Received, secret: &str, value: &str) -> Result<(), String> {
    let items: Vec<_> = value.split(',').filter_map(|item| item.split_once('=')).collect();
    let time = items.iter().find(|(name, _)| *name == "t").map(|(_, time)| *time).ok_or("the signature has no t")?;
    fresh(received, time)?;
    let ours = TextKey::new(secret).hex(&[time.as_bytes(), b".", &received.body]);
    let theirs = items.iter().filter(|(name, _)| matches!(*name, "v1" | "v0")).map(|(_, tag)| *tag);
    let fits = |tag: &str| same(&ours, tag.strip_prefix("sha256.").unwrap_or(tag)).is_ok();
    if theirs.into_iter().any(fits) { Ok(()) } else { Err(NO_MATCH.into()) }
}

const NO_MATCH: &str = "no signature fits: another secret, or the body was changed on the way";

fn same(ours: &str, theirs: &str) -> Result<(), String> {
    let fits = constant_time::verify_slices_are_equal(ours.as_bytes(), theirs.as_bytes()).is_ok();
    if fits { Ok(()) } else { Err(NO_MATCH.into()) }
}

fn fresh(received: &Received, time: &str) -> Result<(), String> {
    let time: i64 = time.parse().map_err(|_| "the signature's time is no number")?;
    let away = received.at.as_secs().abs_diff(time);
    if away <= TOLERANCE.as_secs() { Ok(()) } else { Err(format!("the signature is {away} s away from now")) }
}

/// A bearer token for this very body.
fn token_of(received: &Received, secret: &str, token: &str) -> Result<(), String> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let claims = jwt::verify_hs256(&key, token).ok_or("the token is not signed with this secret")?;
    if claims.get("exp").and_then(Value::as_i64).is_none_or(|end| end <= received.at.as_secs()) {
        return Err("the token has expired".into());
    }
    let hash = claims.get("request_body_sha256").and_then(Value::as_str).ok_or("the token names no body")?;
    let digest = sha256(&received.body);
    if hash == hex(&digest) || hash == URL_SAFE_NO_PAD.encode(digest) {
        return Ok(());
    }
    Err("the token is for another body".into())
}

/// The event's type, wherever a dialect puts it.
pub(crate) fn event_type(received: &Received) -> Option<String> {
    let body: Value = serde_json::from_slice(&received.body).ok()?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let first = |pointer: &str| text(body.pointer(pointer));
    text(body.get("type"))
        .or_else(|| first("/data/events/0/eventType"))
        .or_else(|| text(body.get("code")))
        .or_else(|| text(body.get("event")))
        .or_else(|| first("/0/type"))
        // The dialect that puts it into the path.
        .or_else(|| {
            let path = received.path.split('?').next().unwrap_or_default();
            let asked = body.get("request").is_some() || body.as_object().is_some_and(serde_json::Map::is_empty);
            asked.then(|| path.rsplit('/').next().unwrap_or_default().to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use gatepost_core::Timestamp;
    use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
    use serde_json::json;

    const SECRET: &str = "a-secret-of-some-thirty-characters";

    fn received(path: &str, headers: &[(&str, &str)], body: &str) -> Received {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        Received {
            at: Timestamp::from_secs(1_700_000_000),
            method: Method::POST,
            path: path.to_owned(),
            headers: map,
            body: Bytes::from(body.to_owned()),
            answered: StatusCode::OK,
        }
    }

    #[test]
    fn every_dialect_is_verified_by_its_headers() {
        let body = "{\"a\":1}";
        let t = "1700000000";
        let timed = TextKey::new(SECRET).hex(&[t.as_bytes(), b".", body.as_bytes()]);
        let plain = TextKey::new(SECRET).hex(&[body.as_bytes()]);
        let claims = json!({"exp": 1_700_000_060, "request_body_sha256": hex(&sha256(body.as_bytes()))});
        let token = jwt::hs256(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &claims);
        let cases: [(&str, String); 7] = [
            ("cryptr-signature", format!("t={t},v1=sha256.{timed}")),
            ("cryptr-signature", format!("t={t},v1=sha256.00,v0={timed}")),
            ("gatepost-signature", format!("t={t},v1={timed}")),
            ("x-hub-signature-256", format!("sha256={plain}")),
            ("authorization", format!("Bearer {token}")),
            ("authorization", SECRET.to_owned()),
            ("x-api-key", SECRET.to_owned()),
        ];
        for (name, value) in &cases {
            assert_eq!(verify(&received("/", &[(name, value)], body), SECRET), Ok(()), "{name}: {value}");
            assert!(verify(&received("/", &[(name, value)], body), "another-secret").is_err(), "{name}: {value}");
            let changed = verify(&received("/", &[(name, value)], "{}"), SECRET);
            assert_eq!(changed.is_ok(), *value == SECRET, "{name}: {value}");
        }
        let ferriskey = [("x-ferriskey-signature", &*timed), ("x-ferriskey-timestamp", t)];
        assert_eq!(verify(&received("/", &ferriskey, body), SECRET), Ok(()));
        assert!(verify(&received("/", &[], body), SECRET).is_err());
        let stale = format!("t=1600000000,v1={timed}");
        assert!(verify(&received("/", &[("cryptr-signature", &stale)], body), SECRET).is_err());
    }

    #[test]
    fn types_wherever_they_are() {
        for (path, body, event_type) in [
            ("/", json!({"type": "user.created"}), Some("user.created")),
            (
                "/",
                json!({"code": "dir_sync.user.update.success", "__type__": "Event"}),
                Some("dir_sync.user.update.success"),
            ),
            ("/", json!({"event": "client.created"}), Some("client.created")),
            (
                "/",
                json!({"eventType": "com.okta.event_hook", "data": {"events": [{"eventType": "user.session.start"}]}}),
                Some("user.session.start"),
            ),
            ("/h/postCreateUser?x=1", json!({"request": {}}), Some("postCreateUser")),
            ("/h/test", json!({}), Some("test")),
            ("/", json!([{"type": "a.b"}]), Some("a.b")),
            ("/", json!({"other": 1}), None),
        ] {
            let found = super::event_type(&received(path, &[], &body.to_string()));
            assert_eq!(found.as_deref(), event_type, "{body}");
        }
    }

    #[test]
    fn secrets_that_can_verify_nothing_are_told_at_once() {
        for (secret, good) in
            [("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", true), ("whsec_!", false), ("any-text", true), ("", false)]
        {
            assert_eq!(check_secret(secret).is_ok(), good, "{secret}");
        }
    }
}
