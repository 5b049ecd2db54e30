use serde_json::{Value, json};

use super::super::testing::{event, framed, keys, sign};
use super::super::{Item, RenderFacts};
use super::*;
use crate::catalogue::CRYPTR_SAMPLE_EVENT;
use crate::clock::Entropy;
use crate::tenant::Environment;

/// The key, the time, the body and the result of the behaviour specification (A7).
const KEY: &str = "G8DXTIOobwGxhkFf2X5VidlQhJ8hoVAONc3Ezi21KEZKe2mikvF1-YMx2pQ3RKIsKmHOWWVv5ZTWahxxQuKM72vCMvz84jBeAhfYQsjMqLGA3Tg9nlgBUfa3BOEaUNZH";
const BODY: &[u8] = br#"{"__type__":"Event","code":"dir_sync.user.provision.success"}"#;
const TAG: &str = "daaaf943d088b60e0e3fd355c4d152cb2d577937ece40841eac15f5ab9c5465b";

fn body(event: &crate::event::Event, environment: Environment) -> Bytes {
    framed(|frame| {
        let frame = super::super::Frame { environment, ..*frame };
        let item = Item { event, data: Some(event.data.clone()) };
        Cryptr.body(&RenderFacts { item: &item, frame: &frame, options: &serde_json::Map::new() })
    })
}

#[test]
fn the_golden_vector() {
    let sent = sign(&["cryptr"], None, &keys(&[(KEY, None)]), 1_676_905_124, BODY);
    assert_eq!(sent, [("cryptr-signature".to_owned(), format!("t=1676905124,v1=sha256.{TAG}"))]);
}

#[test]
fn the_previous_key_signs_as_v0_and_only_during_a_rotation() {
    let at = 1_676_905_124;
    let new = "a".repeat(128);
    let value = |keys: &[crate::webhook::SigningKey]| sign(&["cryptr"], None, keys, at, BODY)[0].1.clone();
    let rotating = value(&keys(&[(&new, None), (KEY, Some(at + 1))]));
    let parts: Vec<_> = rotating.split(',').collect();
    assert_eq!((parts.len(), parts[0], parts[2]), (3, "t=1676905124", format!("v0=sha256.{TAG}").as_str()));
    assert_eq!(value(&keys(&[(&new, None), (KEY, Some(at))])).split(',').count(), 2, "its time is over");
    // Keys older than the previous one have no place in the header.
    assert_eq!(value(&keys(&[(&new, None), (KEY, Some(at + 1)), ("c", Some(at + 1))])), rotating);
}

#[test]
fn a_new_key_has_the_form_of_a_signature_key() {
    struct Ramp;
    impl Entropy for Ramp {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.iter_mut().zip(0..).for_each(|(byte, value)| *byte = value);
        }
    }
    let key = scheme::Cryptr.generate(&Ramp);
    let text = key.expose();
    assert!(text.len() == 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{text}");
}

#[test]
fn the_sample_of_the_document_comes_out_as_it_is() {
    let sample: Value = serde_json::from_str(CRYPTR_SAMPLE_EVENT).unwrap();
    let mut event = event("e1", None, b"{}");
    event.event_type = sample["code"].as_str().unwrap().parse().unwrap();
    event.timestamp = sample["issued_at"].as_str().unwrap().parse().unwrap();
    event.data = sample["data"].to_string().into();
    let attributes = json!({"domain": "3-belges", "params": sample["params"], "errors": sample["errors"]});
    event.attributes = Some(attributes.to_string().into());
    let mut expected = sample.clone();
    expected["webhook_id"] = framed(|frame| Cryptr.native_id(frame.webhook_id)).into();
    let environment = sample["__environment__"].as_str().unwrap().parse().unwrap();
    let sent = body(&event, environment);
    assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), expected);
    // The members stand in the sample's order.
    let text = std::str::from_utf8(&sent).unwrap();
    let at = |member: &str| text.rfind(&format!("\"{member}\":")).unwrap();
    assert!(text.starts_with("{\"__domain__\":\"3-belges\",\"__environment__\":"));
    assert!(at("params") < at("issued_at") && at("issued_at") < at("webhook_id"));
    assert_eq!(expected.as_object().unwrap().len(), 9);
}

#[test]
fn p3_what_the_publisher_gave_goes_out_byte_for_byte() {
    let mut e = event("e1", None, b"{ \"b\":1.00, \"a\" : 2e400 }");
    e.attributes = Some(r#"{"params":{"x" : 1.0},"errors":[ null ],"domain":"d\u00e9"}"#.into());
    let sent = body(&e, Environment::Sandbox);
    let text = std::str::from_utf8(&sent).unwrap();
    for part in [
        r#""__domain__":"d\u00e9","__environment__":"sandbox","__type__":"Event","code":"user.created""#,
        r#""data":{ "b":1.00, "a" : 2e400 },"errors":[ null ],"params":{"x" : 1.0}"#,
        r#""issued_at":"2026-11-22T10:00:00.500000Z""#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn without_attributes_there_is_a_default_for_each() {
    let sent: Value = serde_json::from_slice(&body(&event("e1", None, b"null"), Environment::Production)).unwrap();
    let webhook_id = sent["webhook_id"].clone();
    assert_eq!(
        sent,
        json!({"__domain__": "acme", "__environment__": "production", "__type__": "Event", "code": "user.created",
               "data": null, "errors": null, "params": {}, "issued_at": "2026-11-22T10:00:00.500000Z",
               "webhook_id": webhook_id})
    );
    // A domain that is no text is no domain.
    let mut odd = event("e1", None, b"{}");
    odd.attributes = Some(r#"{"domain":7}"#.into());
    let sent: Value = serde_json::from_slice(&body(&odd, Environment::Production)).unwrap();
    assert_eq!(sent["__domain__"], "acme");
}

#[test]
fn ids_are_ksuids_that_tell_their_second() {
    struct Sevens;
    impl Entropy for Sevens {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }
    // The two real ids of the specification, and when their objects were made.
    for (text, made) in [
        ("webhook_2jhL3MOOQFRuouWlYhmea6yBEwC", "2024-07-24T15:16:01Z"),
        ("webhook_2QauvX3scYnpadurUTdjrd59QrE", "2023-06-01T07:24:03Z"),
    ] {
        let ksuid: [u8; 20] = from_base62(text.strip_prefix(ID_PREFIX).unwrap()).unwrap();
        let second = i64::from(u32::from_be_bytes([ksuid[0], ksuid[1], ksuid[2], ksuid[3]])) + KSUID_EPOCH;
        assert_eq!(Timestamp::from_secs(second).to_string(), made);
        assert_eq!(Cryptr.parse_native_id(text), None, "well-formed, but none of ours");
    }
    let id = Cryptr.new_webhook_id("2024-07-24T15:16:01.9Z".parse().unwrap(), &Sevens);
    let text = Cryptr.native_id(id);
    assert!(text.len() == 8 + 27 && text.starts_with("webhook_2jhL3"), "{text}");
    assert_eq!(Cryptr.parse_native_id(&text), Some(id));
    for bad in [
        "",
        "webhook_",
        &text[..34],
        &format!("{text}0"),
        &text.replace("webhook_", "wh_"),
        "webhook_2jhL3MOOQFRuouWlYhmea6yBE-C",
    ] {
        assert_eq!(Cryptr.parse_native_id(bad), None, "{bad}");
    }
}
