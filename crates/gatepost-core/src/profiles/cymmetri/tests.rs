use aws_lc_rs::hmac;
use serde_json::json;

use super::super::testing::{config, event, framed, keys};
use super::super::{Address, SignFacts, SigningPlan, Wire, address, url_of};
use super::*;
use crate::Timestamp;
use crate::hashing::{hex, sha256};
use crate::hooks::codec::jwt;

fn body(event_type: &str, data: &'static [u8]) -> Bytes {
    let mut event = event("e1", None, data);
    event.event_type = event_type.parse().unwrap();
    framed(|frame| Wire::of(&config(NAME)).unwrap().body(&event, frame))
}

#[test]
fn a_request_holds_the_data_as_given() {
    assert_eq!(
        body("cymmetri.postCreateUser", b"{ \"user\":{\"n\":1.0} }"),
        &b"{\"request\":{ \"user\":{\"n\":1.0} }}"[..]
    );
    assert_eq!(body("cymmetri.test", b"{\"x\":1}"), &b"{}"[..]);
}

#[test]
fn every_type_has_its_own_path() {
    let mut webhook = config(NAME);
    webhook.url = "https://a.example/hooks/".into();
    webhook.paths.insert("cymmetri.policyMap".into(), "/policymap".into());
    webhook.paths.insert("user.created".into(), "people/new".into());
    for (event_type, url) in [
        ("cymmetri.preCreateUser", Some("https://a.example/hooks/preCreateUser")),
        ("cymmetri.postProvision", Some("https://a.example/hooks/postProvision")),
        ("cymmetri.policyMap", Some("https://a.example/hooks/policymap")),
        ("user.created", Some("https://a.example/hooks/people/new")),
        ("user.deleted", None),
        ("cymmetri.deep.name", None),
        ("cymmetrix.test", None),
    ] {
        let event_type = event_type.parse().unwrap();
        assert_eq!(url_of(&webhook, &event_type).as_deref(), url, "{event_type}");
        assert_eq!(address(&webhook, &event_type) == Address::Nowhere, url.is_none());
    }
}

fn token(options: &Value, event_type: &str, body: &[u8]) -> String {
    let mut webhook = config(NAME);
    webhook.options = options.as_object().cloned().unwrap();
    let plan = SigningPlan::of(&webhook).unwrap();
    let signers = plan.signers(&keys(&[("a-shared-secret-of-some-length", None)]), &webhook.options).unwrap();
    let sent = framed(|frame| {
        signers.sign(&SignFacts {
            message_id: "e1",
            event_type: &event_type.parse().unwrap(),
            now: Timestamp::from_secs(1_700_000_000),
            attempt: 2,
            resent: false,
            body,
            url: "https://a.example/hooks/postCreateUser",
            frame,
        })
    });
    let header = sent.into_iter().next().unwrap();
    assert_eq!((&*header.name, header.secret), ("authorization", true));
    header.value.strip_prefix("Bearer ").unwrap().to_owned()
}

#[test]
fn the_token_is_for_one_request_and_opens_nothing() {
    let body = b"{\"request\":{}}";
    let token = token(&json!({}), "cymmetri.postCreateUser", body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a-shared-secret-of-some-length");
    let claims = jwt::verify_hs256(&key, &token).unwrap();
    let delivery = framed(|frame| frame.delivery.to_string());
    assert_eq!(
        claims,
        json!({"iss": "https://gatepost.example", "aud": "https://a.example/hooks/postCreateUser", "sub": "acme",
               "tenantId": "acme", "point": "postCreateUser", "jti": format!("{delivery}:2"), "iat": 1_700_000_000,
               "exp": 1_700_000_060, "request_body_sha256": hex(&sha256(body))})
    );
    let other = hmac::Key::new(hmac::HMAC_SHA256, b"another-secret-of-some-length");
    assert_eq!(jwt::verify_hs256(&other, &token), None);
}

#[test]
fn its_life_is_an_option() {
    let token = token(&json!({"token_expiry_minutes": 100}), "user.created", b"{}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a-shared-secret-of-some-length");
    let claims = jwt::verify_hs256(&key, &token).unwrap();
    assert_eq!((claims["exp"].as_i64().unwrap() - 1_700_000_000, &claims["point"]), (6_000, &json!("user.created")));
}

#[test]
fn options() {
    for (options, pointers) in [
        (json!({}), &[][..]),
        (json!({"token_expiry_minutes": 1, "callback": null}), &[]),
        (json!({"token_expiry_minutes": 0}), &["/token_expiry_minutes"]),
        (json!({"token_expiry_minutes": "1"}), &["/token_expiry_minutes"]),
        (json!({"callback": {"scopes": ["read"], "ttl_minutes": 5}}), &[]),
        (json!({"callback": {"scopes": ["read", "manage"], "ttl_minutes": 5}}), &["/callback/scopes"]),
        (json!({"callback": {"scopes": []}}), &["/callback/scopes"]),
        (
            json!({"callback": {"scopes": ["read"], "ttl_minutes": 1441, "x": 1}}),
            &["/callback/x", "/callback/ttl_minutes"],
        ),
        (json!({"callback": true, "roles": []}), &["/roles", "/callback"]),
    ] {
        let errors = Cymmetri.check_options(options.as_object().unwrap());
        assert_eq!(errors.iter().map(|(pointer, _)| pointer.as_str()).collect::<Vec<_>>(), pointers, "{options}");
    }
}

#[test]
fn save_and_test() {
    let probe = Cymmetri.probe().unwrap();
    assert_eq!((probe.path, probe.body), ("/test", &b"{}"[..]));
    for (status, body, good) in [
        (200, r#"{"response":{}}"#, true),
        (200, r#"{"response":{"ok":1}}"#, true),
        (200, "{}", true),
        (204, "", true),
        (200, "\u{feff}{\"response\":{}}", true),
        (200, "\u{feff}\r\n", true),
        (200, r#"{"response":null}"#, false),
        (200, r#"{"response":{"error":true,"message":"NO"}}"#, true),
        (200, r#"{"other":1}"#, false),
        (200, "[]", false),
        (200, "<html>", false),
        (404, r#"{"response":{}}"#, false),
    ] {
        let verdict = (probe.judge)(&Answer { status, headers: &[], body: body.as_bytes(), unreadable: None });
        assert_eq!(verdict.is_ok(), good, "{status} {body}: {verdict:?}");
    }
}
