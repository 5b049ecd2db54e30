//! What a receiver gets: payload rules, formats and signing schemes, through a real receiver that checks
//! signatures by the schemes' documents and not by our code.

use std::collections::BTreeMap;

use aws_lc_rs::{hmac, signature};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_testkit::{Received, Receiver, Script};
use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Server, receiver, text, verify};

const HOOKS: &str = "/v1/tenants/acme/webhooks";

struct Setup {
    server: Server,
    to: Receiver,
}

impl Setup {
    fn new() -> Setup {
        let server = Server::start();
        server.create_tenant("acme");
        Setup { server, to: receiver() }
    }

    fn hook(&self, overrides: Value) -> Value {
        self.server.create_webhook("acme", &self.to.url("/in"), overrides)
    }

    /// Publishes, and gives the request that came of it.
    #[track_caller]
    fn send(&self, event: impl Into<crate::harness::Payload>) -> Received {
        let id = text(&self.server.publish_event("acme", event), "id");
        self.server.wait_event("acme", &id, "delivered");
        self.to.received().pop().expect("it was delivered")
    }

    fn patch(&self, hook: &Value, patch: Value) -> Value {
        self.server.patch(&format!("{HOOKS}/{}", text(hook, "id")), patch).expect(200).json()
    }

    fn rotate(&self, hook: &Value, input: Value) -> String {
        let path = format!("{HOOKS}/{}/rotate-secret", text(hook, "id"));
        text(&self.server.post(&path, input).expect(200).json(), "secret")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// HMAC-SHA256 with a text as the key.
fn mac(key: &str, parts: &[&[u8]]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hex(hmac::sign(&key, &parts.concat()).as_ref())
}

#[track_caller]
fn header<'r>(request: &'r Received, name: &str) -> &'r str {
    request.header(name).unwrap_or_else(|| panic!("no {name} in {:?}", request.headers))
}

/// The items `v1=…` of `t=…,v1=…[,v1=…]`, whose time is about now.
fn timestamped(request: &Received, name: &str) -> (String, Vec<String>) {
    let items: Vec<_> = header(request, name).split(',').collect();
    let t = items[0].strip_prefix("t=").expect("t= is first").to_owned();
    assert!(t.parse::<u64>().is_ok());
    (t, items[1..].iter().map(|item| item.strip_prefix("v1=").expect("v1=").to_owned()).collect())
}

/// Whether an item `v1a,…` verifies by this public key.
fn ed25519(request: &Received, public_key: &str) -> bool {
    let key = STANDARD.decode(public_key.strip_prefix("whpk_").unwrap()).unwrap();
    let key = signature::UnparsedPublicKey::new(&signature::ED25519, key);
    let (id, t) = (header(request, "webhook-id"), header(request, "webhook-timestamp"));
    let signed = [id.as_bytes(), b".", t.as_bytes(), b".", &request.body].concat();
    let items = header(request, "webhook-signature").split(' ');
    items.filter_map(|item| item.strip_prefix("v1a,")).any(|text| {
        let tag = STANDARD.decode(text).unwrap();
        key.verify(&signed, &tag).is_ok()
    })
}

const EVENT: &str = r#"{"id":"e:1","type":"user.created","timestamp":"2026-01-02T03:04:05Z","subject":{"id":"7"},
    "data":{ "user":{"id":1.00,"email":"a@b","roles":["x","y" ]}, "n":1e400 }}"#;

#[test]
fn payload_rules_decide_what_is_sent() {
    let head = r#"{"id":"e:1","type":"user.created","timestamp":"2026-01-02T03:04:05Z","subject":{"id":"7"}"#;
    let whole = r#"{ "user":{"id":1.00,"email":"a@b","roles":["x","y" ]}, "n":1e400 }"#;
    let cases = [
        (json!(null), Some(whole)),
        (json!({}), Some(whole)),
        (json!({"mode": "full", "exclude": []}), Some(whole)),
        (json!({"mode": "thin"}), None),
        (json!({"mode": "thin", "include": ["/n"]}), None),
        (json!({"include": ["/user/id"]}), Some(r#"{"user":{"id":1.00}}"#)),
        (
            json!({"include": ["/user"], "exclude": ["/user/email", "/user/roles/0"]}),
            Some(r#"{"user":{"id":1.00,"roles":["y"]}}"#),
        ),
        (json!({"exclude": ["/user/email"]}), Some(r#"{"user":{"id":1.00,"roles":["x","y" ]},"n":1e400}"#)),
        (json!({"exclude": ["/nobody", "/user/id/x"]}), Some(whole)),
        (json!({"include": ["/nobody"]}), Some("{}")),
    ];
    let mut findings = Findings::default();
    for (payload, data) in cases {
        let setup = Setup::new();
        let hook = setup.hook(json!({"payload": payload}));
        let request = setup.send(EVENT);
        verify(&text(&hook, "secret"), &request);
        let wanted = data.map_or(format!("{head}}}"), |data| format!("{head},\"data\":{data}}}"));
        let got = String::from_utf8_lossy(&request.body).into_owned();
        findings.check(got == wanted, format!("{payload}: {got}"));
        findings.check(header(&request, "content-type") == "application/json", format!("{payload}: content type"));
    }
    findings.none();
}

#[test]
fn the_raw_format_is_the_data_alone() {
    let setup = Setup::new();
    let hook = setup.hook(json!({"format": "raw"}));
    for data in [r#"{ "b" : 1.00,"a":[ ] }"#, "null", r#""text""#, "[1,2]"] {
        let request = setup.send(format!(r#"{{"type":"a.b","data":{data}}}"#));
        assert_eq!(String::from_utf8_lossy(&request.body), data);
        assert_eq!(header(&request, "content-type"), "application/json");
        verify(&text(&hook, "secret"), &request);
    }
    setup.patch(&hook, json!({"payload": {"include": ["/b"]}}));
    let request = setup.send(r#"{"type":"a.b","data":{ "b" : 1.00,"a":[ ] }}"#);
    assert_eq!(&request.body[..], br#"{"b" : 1.00}"#);
}

#[test]
fn a_format_may_differ_from_the_profile_s() {
    let setup = Setup::new();
    let hook = setup.hook(json!({"format": "cloudevents"}));
    let request = setup.send(json!({"type": "user.created", "data": {"n": 1}}));
    assert_eq!(header(&request, "content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!(request.json()["specversion"], "1.0");
    verify(&text(&hook, "secret"), &request);
    // And back, with null.
    setup.patch(&hook, json!({"format": null}));
    assert_eq!(setup.send(json!({"type": "a"})).json()["type"], "a");
}

#[test]
fn timestamped_and_github_sign_with_the_text_as_it_is_printed() {
    let setup = Setup::new();
    let imported = "It's a Secret to Everybody";
    for (secret, shape) in [(None, "64 hex digits"), (Some(imported), "the import")] {
        for name in [None, Some("X-Shop-Signature")] {
            let mut hook = json!({"signing": [{"scheme": "timestamped", "header": name}]});
            if let Some(secret) = secret {
                hook["secret"] = json!(secret);
            }
            let hook = setup.hook(hook);
            let key = text(&hook, "secret");
            assert!(secret.map_or(key.len() == 64, |secret| key == secret), "{shape}: {key}");
            let request = setup.send(json!({"type": "a", "data": {"n": 1}}));
            let (t, macs) = timestamped(&request, name.unwrap_or("gatepost-signature"));
            assert_eq!(macs, [mac(&key, &[t.as_bytes(), b".", &request.body])]);
            assert!(request.header("webhook-signature").is_none() && request.header("webhook-id").is_none());
            setup.server.delete(&format!("{HOOKS}/{}", text(&hook, "id"))).expect(204);
        }
    }
    let hook = setup.hook(json!({"signing": [{"scheme": "github"}], "secret": imported}));
    let request = setup.send(json!({"type": "a"}));
    assert_eq!(header(&request, "x-hub-signature-256"), format!("sha256={}", mac(imported, &[&request.body])));
    // The default header belongs to this scheme: the tenant may not set it.
    let path = format!("{HOOKS}/{}", text(&hook, "id"));
    let reply = setup.server.patch(&path, json!({"headers": {"X-Hub-Signature-256": "x"}}));
    assert_eq!(reply.expect_problem(422, "validation_failed").pointers(), ["/headers/X-Hub-Signature-256"]);
}

#[test]
fn ed25519_signs_beside_the_shared_secret_or_alone() {
    let setup = Setup::new();
    let both = setup.hook(json!({"signing": [{"scheme": "standard"}, {"scheme": "standard-ed25519"}]}));
    let (secret, public_key) = (text(&both, "secret"), text(&both, "public_key"));
    let request = setup.send(json!({"type": "a", "data": [1]}));
    verify(&secret, &request);
    assert!(ed25519(&request, &public_key));
    let versions: Vec<_> =
        header(&request, "webhook-signature").split(' ').map(|item| item.split(',').next().unwrap()).collect();
    assert_eq!(versions, ["v1", "v1a"]);
    let mut forged = request.clone();
    forged.body = b"{}".as_slice().into();
    assert!(!ed25519(&forged, &public_key));
    // It is shown whenever the webhook is.
    let path = format!("{HOOKS}/{}", text(&both, "id"));
    assert_eq!(text(&setup.server.get(&path).expect(200).json(), "public_key"), public_key);
    setup.server.delete(&path).expect(204);

    let alone = setup.hook(json!({"signing": [{"scheme": "standard-ed25519"}]}));
    let public_key = text(&alone, "public_key");
    let request = setup.send(json!({"type": "a"}));
    assert!(ed25519(&request, &public_key) && !header(&request, "webhook-signature").contains("v1,"));
    // Without the scheme there is none, and with it again another.
    let plain = setup.patch(&alone, json!({"signing": null}));
    assert_eq!(plain["public_key"], Value::Null);
    let again = setup.patch(&alone, json!({"signing": [{"scheme": "standard-ed25519"}]}));
    assert_ne!(text(&again, "public_key"), public_key);
    assert!(ed25519(&setup.send(json!({"type": "a"})), &text(&again, "public_key")));
}

#[test]
fn several_schemes_sign_one_request_with_the_one_secret() {
    let setup = Setup::new();
    let hook = setup.hook(json!({"signing": [
        {"scheme": "standard"}, {"scheme": "github"}, {"scheme": "timestamped"}, {"scheme": "standard-ed25519"},
    ]}));
    let key = text(&hook, "secret");
    assert!(key.starts_with("whsec_"), "the strictest scheme decides");
    let request = setup.send(json!({"type": "a", "data": {"x": "é"}}));
    verify(&key, &request);
    assert_eq!(header(&request, "x-hub-signature-256"), format!("sha256={}", mac(&key, &[&request.body])));
    let (t, macs) = timestamped(&request, "gatepost-signature");
    assert_eq!(macs, [mac(&key, &[t.as_bytes(), b".", &request.body])]);
    assert_eq!(header(&request, "webhook-timestamp"), t);
    assert!(ed25519(&request, &text(&hook, "public_key")));
}

#[test]
fn what_is_shown_of_an_attempt_is_what_arrived() {
    for signing in [
        json!(null),
        json!([{"scheme": "timestamped", "header": "X-Shop-Signature"}, {"scheme": "github"}]),
        json!([{"scheme": "none"}]),
    ] {
        let setup = Setup::new();
        setup.to.next([Script::status(500)]);
        let hook = setup.hook(json!({
            "signing": signing,
            "auth": {"type": "header", "name": "X-Auth", "value": "very-secret-value"},
            "headers": {"X-Own": "another-secret"},
            "payload": {"exclude": ["/b"]},
            "retry": {"waits": [0], "jitter": 0},
        }));
        let id = text(&setup.server.publish_event("acme", json!({"type": "a", "data": {"a": 1, "b": 2}})), "id");
        let view = setup.server.wait_event("acme", &id, "delivered");
        // What changed since does not change what was.
        setup.patch(
            &hook,
            json!({"signing": [{"scheme": "github"}], "format": "cloudevents", "payload": null,
            "headers": {"X-Own": null, "X-New": "n"}}),
        );
        let later = setup.server.delivery("acme", &text(&view, "id"));
        assert_eq!(later["attempt_list"], view["attempt_list"]);
        let arrived = setup.to.received();
        for (attempt, request) in view["attempt_list"].as_array().unwrap().iter().zip(&arrived) {
            assert_eq!(attempt["request"]["body"].as_str().unwrap().as_bytes(), &request.body[..]);
            let shown: BTreeMap<String, String> = attempt["request"]["headers"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap().to_owned()))
                .collect();
            for (name, value) in &request.headers {
                let name = name.to_lowercase();
                let wanted = if ["x-own", "x-auth"].contains(&&*name) { "***" } else { value };
                if !["host", "content-length", "connection"].contains(&&*name) {
                    assert_eq!(shown.get(&name).map(String::as_str), Some(wanted), "{name}");
                }
            }
            assert!(shown.keys().all(|name| request.header(name).is_some()), "{shown:?}");
        }
    }
}

#[test]
fn what_answers_may_look_like_is_said_and_accept_is_the_tenants() {
    let setup = Setup::new();
    setup.hook(json!({"events": ["plain"]}));
    setup.hook(json!({"events": ["own"], "headers": {"Accept": "application/vnd.acme+json"}}));
    for (kind, sent, shown) in [("plain", "*/*", "*/*"), ("own", "application/vnd.acme+json", "***")] {
        let id = text(&setup.server.publish_event("acme", json!({"type": kind, "data": {}})), "id");
        let view = setup.server.wait_event("acme", &id, "delivered");
        let request = setup.to.received().pop().unwrap();
        let accepts: Vec<_> = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("accept")).collect();
        assert_eq!((accepts.len(), &*accepts[0].1), (1, sent));
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        let headers = &view["attempt_list"][0]["request"]["headers"];
        assert_eq!((&headers["accept"], &headers["accept-encoding"]), (&json!(shown), &json!("identity")));
    }
}

#[test]
fn unsigned_requests_need_another_proof() {
    let setup = Setup::new();
    let auth = json!({"type": "bearer", "token": "a-token-of-ours"});
    let hook = setup.hook(json!({"signing": [{"scheme": "none"}], "auth": auth}));
    assert_eq!(hook.get("secret"), None);
    let request = setup.send(json!({"type": "a"}));
    assert_eq!(header(&request, "authorization"), "Bearer a-token-of-ours");
    assert!(request.headers.iter().all(|(name, _)| !name.to_lowercase().contains("signature")));
    // There is no secret to rotate; with a scheme again there is a new one.
    let rotate = format!("{HOOKS}/{}/rotate-secret", text(&hook, "id"));
    setup.server.post(&rotate, json!({})).expect_problem(422, "validation_failed");
    setup.patch(&hook, json!({"signing": null}));
    let secret = setup.rotate(&hook, json!({"overlap_seconds": 0}));
    verify(&secret, &setup.send(json!({"type": "a"})));
    // Taking the proof away from an unsigned webhook is refused.
    let path = format!("{HOOKS}/{}", text(&hook, "id"));
    setup.patch(&hook, json!({"signing": [{"scheme": "none"}]}));
    let reply = setup.server.patch(&path, json!({"auth": null}));
    assert_eq!(reply.expect_problem(422, "validation_failed").pointers(), ["/signing/0/scheme"]);
}

#[test]
fn rotation_overlaps_where_the_scheme_can_carry_two() {
    let setup = Setup::new();
    let hook = setup.hook(json!({"signing": [{"scheme": "timestamped"}, {"scheme": "github"}]}));
    let old = text(&hook, "secret");
    let new = setup.rotate(&hook, json!({}));
    assert_ne!(new, old);
    let request = setup.send(json!({"type": "a"}));
    let (t, macs) = timestamped(&request, "gatepost-signature");
    let both = [&new, &old].map(|key| mac(key, &[t.as_bytes(), b".", &request.body]));
    assert_eq!(macs, both);
    // One signature fits there: the old secret ended at once.
    assert_eq!(header(&request, "x-hub-signature-256"), format!("sha256={}", mac(&new, &[&request.body])));
    let imported = setup.rotate(&hook, json!({"secret": "twenty-four bytes at least", "overlap_seconds": 0}));
    assert_eq!(imported, "twenty-four bytes at least");
    let request = setup.send(json!({"type": "a"}));
    let (t, macs) = timestamped(&request, "gatepost-signature");
    assert_eq!(macs, [mac(&imported, &[t.as_bytes(), b".", &request.body])]);
    setup.server.delete(&format!("{HOOKS}/{}", text(&hook, "id"))).expect(204);

    // Both kinds of key are renewed, and all four sign.
    let hook = setup.hook(json!({"signing": [{"scheme": "standard"}, {"scheme": "standard-ed25519"}]}));
    let (old, old_public) = (text(&hook, "secret"), text(&hook, "public_key"));
    let new = setup.rotate(&hook, json!({}));
    let path = format!("{HOOKS}/{}", text(&hook, "id"));
    let new_public = text(&setup.server.get(&path).expect(200).json(), "public_key");
    assert_ne!(new_public, old_public);
    let request = setup.send(json!({"type": "a"}));
    verify(&old, &request);
    verify(&new, &request);
    assert!(ed25519(&request, &old_public) && ed25519(&request, &new_public));
}

#[test]
fn secrets_have_the_form_their_schemes_take() {
    let server = Server::start();
    server.create_tenant("acme");
    let url = "http://127.0.0.1:9/x";
    let standard = json!([{"scheme": "standard"}]);
    let text_form = json!([{"scheme": "timestamped"}]);
    let pair = json!([{"scheme": "standard-ed25519"}]);
    let whsec = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let whsk = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    let whpk = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    let cases = [
        (&standard, whsec, true),
        (&standard, "a plain text of more than 24 bytes", false),
        (&standard, whsk, false),
        (&text_form, "a plain text of more than 24 bytes", true),
        (&text_form, "twenty-three bytes only", false),
        (&text_form, whsec, true),
        (&text_form, whsk, false),
        (&pair, whsk, true),
        (&pair, whpk, false),
        (&pair, whsec, false),
    ];
    let mut findings = Findings::default();
    for (signing, secret, good) in cases {
        let body = crate::harness::webhook_body(url, json!({"signing": signing, "secret": secret}));
        let reply = server.post(HOOKS, body);
        let what = format!("{signing} {secret}");
        if good {
            findings.status(&what, &reply, 201);
            findings.check(reply.status != 201 || reply.json()["secret"] == secret, &what);
        } else {
            findings.problem(&what, &reply, 422, "validation_failed", &["/secret"]);
            findings.check(!reply.text().contains(secret), format!("{what} is repeated"));
        }
    }
    // Other schemes that the present secret does not suit are refused, until one is brought that does.
    let made = server.create_webhook("acme", url, json!({"signing": text_form}));
    let path = format!("{HOOKS}/{}", text(&made, "id"));
    let reply = server.patch(&path, json!({"signing": standard}));
    findings.problem("to standard", &reply, 422, "validation_failed", &["/signing"]);
    server.post(&format!("{path}/rotate-secret"), json!({"secret": whsec, "overlap_seconds": 60})).expect(200);
    findings.status("to standard, with whsec_", &server.patch(&path, json!({"signing": standard})), 200);
    findings.status("and back", &server.patch(&path, json!({"signing": text_form})), 200);
    // Everything wrong with a rotation at once.
    let bad = json!({"secret": "short", "overlap_seconds": 604_801});
    let reply = server.post(&format!("{path}/rotate-secret"), bad);
    findings.problem("rotation", &reply, 422, "validation_failed", &["/overlap_seconds", "/secret"]);
    findings.none();
}
