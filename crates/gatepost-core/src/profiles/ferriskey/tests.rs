use serde_json::{Value, json};

use super::super::testing::{event, framed, keys, sign};
use super::super::{Item, RenderFacts};
use super::*;
use crate::event::{Event, Subject};

fn body(event: &Event, options: &Value) -> Bytes {
    let options = options.as_object().cloned().unwrap_or_default();
    framed(|frame| {
        let item = Item { event, data: Some(event.data.clone()) };
        FerrisKey.body(&RenderFacts { item: &item, frame, options: &options })
    })
}

fn shown(event: &Event, options: &Value) -> Value {
    serde_json::from_slice(&body(event, options)).unwrap()
}

#[test]
fn the_golden_vector() {
    let sent = sign(&["ferriskey"], None, &keys(&[("a-secret", None)]), 1_700_000_000, br#"{"event":"user.created"}"#);
    let id = framed(|frame| delivery_uuid(frame.delivery).to_string());
    let expected = [
        ("x-ferriskey-signature", "2f4dc2daabe94fe62ccc966f1649f0c78e521b4d54314bc0713a873e61cd3305"),
        ("x-ferriskey-timestamp", "1700000000"),
        ("x-ferriskey-delivery-id", &id),
    ];
    assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(parse_delivery_uuid(&id), Some(framed(|frame| frame.delivery)));
}

#[test]
fn only_the_present_key_signs() {
    let body = b"{}";
    let one = sign(&["ferriskey"], None, &keys(&[("new-secret", None)]), 1, body);
    assert_eq!(sign(&["ferriskey"], None, &keys(&[("new-secret", None), ("old-secret", Some(9))]), 1, body), one);
}

#[test]
fn four_members_in_order_with_the_data_as_given() {
    let id = "01992f00-7c4e-7aaa-8000-00000000abcd";
    let subject = Subject { kind: Some("user".into()), id: id.into() };
    let sent = body(&event("e1", Some(subject), b"{ \"b\":1.00 }"), &json!({}));
    assert_eq!(
        std::str::from_utf8(&sent).unwrap(),
        format!(
            r#"{{"event":"user.created","timestamp":"2026-11-22T10:00:00.500000Z","resource_id":"{id}","data":{{ "b":1.00 }}}}"#
        )
    );
}

#[test]
fn data_may_be_anything() {
    for data in [&b"null"[..], b"[1,2]", b"\"u\"", b"7"] {
        let mut event = event("e1", None, b"");
        event.data = data.into();
        assert_eq!(shown(&event, &json!({}))["data"], serde_json::from_slice::<Value>(data).unwrap());
    }
}

#[test]
fn resource_ids() {
    let subject = |id: &str| Some(Subject { kind: None, id: id.into() });
    let given = "01992f00-7c4e-7aaa-8000-00000000abcd";
    let of = |subject, options| shown(&event("e1", subject, b"null"), &options)["resource_id"].clone();
    assert_eq!(of(subject(given), json!({})), given);
    let made = of(subject("u1"), json!({}));
    assert_eq!(made, of(subject("u1"), json!({})));
    assert_ne!(made, of(subject("u2"), json!({})));
    assert_eq!(made.as_str().unwrap().as_bytes()[14], b'5', "a UUID of version 5: {made}");
    let tenant = of(None, json!({}));
    assert_eq!(of(subject(given), json!({LEGACY: true})), tenant);
    assert_eq!(of(subject(given), json!({LEGACY: false})), given);
}

#[test]
fn own_events_have_ferriskeys_names_and_shape() {
    let id = framed(|frame| frame.webhook_id);
    let uuid = FerrisKey.native_id(id);
    let data = json!({"id": id.to_string(), "name": "w", "description": null, "url": "https://a.example/in",
                      "events": ["user.created", "webhook.deleted"], "headers": {"x-key": "***"},
                      "created_at": "2026-11-22T10:00:00Z", "updated_at": "2026-11-22T11:00:00Z"});
    let mut own = event("e1", Some(Subject { kind: Some("webhook".into()), id: id.to_string() }), b"");
    own.event_type = OwnEvent::WebhookDeleted.event_type();
    own.data = data.to_string().into();
    let sent = shown(&own, &json!({}));
    assert_eq!((&sent["event"], &sent["resource_id"]), (&json!("webhook.deleted"), &json!(uuid)));
    let webhook = sent["data"].as_object().unwrap();
    let names: Vec<_> = webhook.keys().map(String::as_str).collect();
    let wanted = ["id", "endpoint", "name", "description", "subscribers", "triggered_at", "updated_at", "created_at"];
    assert!(names.len() == wanted.len() && wanted.iter().all(|name| names.contains(name)), "{names:?}");
    assert_eq!((&webhook["id"], &webhook["endpoint"]), (&json!(uuid), &json!("https://a.example/in")));
    let subscribers = webhook["subscribers"].as_array().unwrap();
    assert_eq!(subscribers[1]["name"], "webhook.deleted");
    assert_eq!(subscribers[0]["webhook_id"], json!(uuid));
    assert_ne!(subscribers[0]["id"], subscribers[1]["id"]);
    // An own event without a name there keeps its own.
    own.event_type = OwnEvent::WebhookRecovered.event_type();
    assert_eq!(shown(&own, &json!({}))["event"], "gatepost.webhook.recovered");
}

#[test]
fn webhook_ids_are_uuids_of_version_7() {
    struct Ones;
    impl Entropy for Ones {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }
    let at = Timestamp::from_secs(1_700_000_000);
    let id = FerrisKey.new_webhook_id(at, &Ones);
    let text = FerrisKey.native_id(id);
    assert_eq!(Uuid::try_parse(&text).unwrap().get_version_num(), 7, "{text}");
    assert_eq!(FerrisKey.parse_native_id(&text), Some(id));
    assert_eq!(FerrisKey.parse_native_id(&text.to_uppercase()), Some(id));
    for bad in ["", "wh_1", &text.replace('-', ""), &format!("{text}0")] {
        assert_eq!(FerrisKey.parse_native_id(bad), None, "{bad}");
    }
    let secret = scheme::FerrisKey.generate(&Ones);
    assert_eq!(secret.expose(), "f".repeat(64));
}

#[test]
fn options() {
    for (options, pointers) in [
        (json!({}), &[][..]),
        (json!({LEGACY: true}), &[]),
        (json!({LEGACY: "yes"}), &["/legacy_realm_resource_id"]),
        (json!({"other": 1}), &["/other"]),
    ] {
        let errors = FerrisKey.check_options(options.as_object().unwrap());
        assert_eq!(errors.iter().map(|(pointer, _)| pointer.as_str()).collect::<Vec<_>>(), pointers, "{options}");
    }
}
