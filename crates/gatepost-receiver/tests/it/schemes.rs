//! Every scheme, by one table: what is right is taken, and what is wrong is named.

use std::time::Duration;

use gatepost_receiver::{BadSecret, BuildError, Builder, Error, Format, Receiver, Scheme};
use serde_json::{Value, json};

use crate::sender::{AT, Sent, URL, after, config, event, send, sign};

const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OLD_WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const OTHER_PUBLIC: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const TEXT: &str = "a-shared-secret-of-some-length";
const OLD_TEXT: &str = "an-older-secret-of-some-length";

/// One scheme: how it is sent, how it is received, and what of its headers decides.
struct Row {
    name: &'static str,
    profile: &'static str,
    overrides: Value,
    receiver: fn() -> Builder,
    /// What signs, what the receiver is to be given; and those of another webhook.
    keys: (&'static str, &'static str, &'static str),
    decides: &'static [&'static str],
    /// Seconds either way; `None`: it tells no time.
    times: Option<(i64, i64)>,
    covers_body: bool,
}

fn timestamped() -> Builder {
    Receiver::standard().signing(Scheme::Timestamped(None))
}

fn own_timestamped() -> Builder {
    Receiver::standard().signing(Scheme::Timestamped(Some("X-Shop-Signature".into())))
}

fn github() -> Builder {
    Receiver::standard().signing(Scheme::GitHub(None))
}

fn okta() -> Builder {
    Receiver::okta("Authorization")
}

const STANDARD: &[&str] = &["webhook-id", "webhook-timestamp", "webhook-signature"];

fn table() -> Vec<Row> {
    let row = |name, profile, signing: &str, receiver, keys, decides| Row {
        name,
        profile,
        overrides: match signing {
            "" => json!({}),
            "own" => json!({"signing": [{"scheme": "timestamped", "header": "X-Shop-Signature"}]}),
            scheme => json!({"signing": [{"scheme": scheme}]}),
        },
        receiver,
        keys,
        decides,
        times: Some((300, 300)),
        covers_body: true,
    };
    let (whsec, text) = ((WHSEC, WHSEC, OLD_WHSEC), (TEXT, TEXT, OLD_TEXT));
    const FERRISKEY: &[&str] = &["x-ferriskey-signature", "x-ferriskey-timestamp", "x-ferriskey-delivery-id"];
    vec![
        row("v1", "standard", "", Receiver::standard, whsec, STANDARD),
        row("v1a", "standard", "standard-ed25519", Receiver::standard, (PAIR, PUBLIC, OTHER_PUBLIC), STANDARD),
        row("cloudevents", "cloudevents", "", Receiver::cloudevents, whsec, STANDARD),
        row("cryptr", "cryptr", "", Receiver::cryptr, text, &["cryptr-signature"]),
        row("ferriskey", "ferriskey", "", Receiver::ferriskey, text, FERRISKEY),
        row("timestamped", "standard", "timestamped", timestamped, text, &["gatepost-signature"]),
        row("named", "standard", "own", own_timestamped, text, &["x-shop-signature"]),
        Row { times: None, ..row("github", "standard", "github", github, text, &["x-hub-signature-256"]) },
        // A token lives for a minute, and clocks may differ by another.
        Row { times: Some((120, 60)), ..row("jwt", "cymmetri", "", Receiver::cymmetri, text, &["authorization"]) },
        Row { times: None, covers_body: false, ..row("okta", "okta", "", okta, text, &["authorization"]) },
    ]
}

impl Row {
    fn sent(&self) -> Sent {
        let sent = send(&config(self.profile, self.overrides.clone()), &[self.keys.0], vec![event("evt_1", DATA)]);
        // Okta's header is the webhook's auth, which is no scheme's.
        if self.name == "okta" { sent.with("authorization", self.keys.0) } else { sent }
    }

    fn receiver(&self, secrets: &[&str]) -> Receiver {
        secrets.iter().fold((self.receiver)(), |builder, secret| builder.secret(*secret)).build().unwrap()
    }
}

const DATA: &str = "{ \"b\":1.00, \"a\" : \"\\u00e9\" }";

#[test]
fn what_is_right_is_taken() {
    for row in table() {
        let (sent, right, wrong) = (row.sent(), row.keys.1, row.keys.2);
        for (secrets, key) in [(&[right][..], 0), (&[wrong, right], 1), (&[right, wrong], 0)] {
            let message = row.receiver(secrets).receive_at(&sent.headers, &sent.body, after(1));
            let message = message.unwrap_or_else(|e| panic!("{}: {e}", row.name));
            assert_eq!((message.key, message.events.len()), (key, 1), "{}", row.name);
            assert_eq!(message.signed_at, row.times.map(|_| after(0)), "{}", row.name);
        }
        // Header names come in any case.
        let shouted: Vec<_> = sent.headers.iter().map(|(n, v)| (n.to_uppercase(), v.clone())).collect();
        row.receiver(&[right]).receive_at(&shouted, &sent.body, after(1)).unwrap();
    }
}

#[test]
fn a_wrong_secret_fits_nothing() {
    for row in table() {
        let sent = row.sent();
        let seen = row.receiver(&[row.keys.2]).receive_at(&sent.headers, &sent.body, after(1));
        assert_eq!(seen.unwrap_err(), Error::NoMatch, "{}", row.name);
    }
}

#[test]
fn every_byte_of_the_body_counts() {
    for row in table().iter().filter(|row| row.covers_body) {
        let (sent, receiver) = (row.sent(), row.receiver(&[row.keys.1]));
        let wanted = if row.name == "jwt" { Error::OtherBody } else { Error::NoMatch };
        for at in 0..sent.body.len() {
            let mut body = sent.body.clone();
            body[at] ^= 1;
            assert_eq!(receiver.verify_at(&sent.headers, &body, after(1)), Err(wanted.clone()), "{} {at}", row.name);
        }
        // The same JSON, written anew: other bytes.
        let parsed: Value = serde_json::from_slice(&sent.body).unwrap();
        let anew = serde_json::to_vec(&parsed).unwrap();
        assert_ne!(anew, sent.body);
        for body in [anew, [&sent.body[..], b"\n"].concat(), Vec::new()] {
            assert_eq!(receiver.verify_at(&sent.headers, &body, after(1)), Err(wanted.clone()), "{}", row.name);
        }
    }
}

#[test]
fn what_is_stale_or_not_yet_is_refused() {
    for row in table() {
        let (sent, receiver) = (row.sent(), row.receiver(&[row.keys.1]));
        let at = |seconds| receiver.verify_at(&sent.headers, &sent.body, after(seconds)).map(|_| ());
        let Some((late, early)) = row.times else {
            assert_eq!(at(1_000_000), Ok(()), "{}", row.name);
            continue;
        };
        assert_eq!((at(late), at(-early)), (Ok(()), Ok(())), "{}", row.name);
        let life = if row.name == "jwt" { 60 } else { 0 };
        assert_eq!(at(late + 1), Err(Error::TooOld { by_s: (late + 1 - life).unsigned_abs() }), "{}", row.name);
        assert_eq!(at(-early - 1), Err(Error::TooNew { by_s: early.unsigned_abs() + 1 }), "{}", row.name);
        let strict = (row.receiver)().secret(row.keys.1).tolerance(Duration::from_secs(5)).build().unwrap();
        let at = |seconds| strict.verify_at(&sent.headers, &sent.body, after(seconds)).is_ok();
        assert_eq!((at(life + 5), at(life + 6), at(-5), at(-6)), (true, false, true, false), "{}", row.name);
    }
}

#[test]
fn headers_that_decide_are_there_once_and_well_formed() {
    for row in table() {
        let (sent, receiver) = (row.sent(), row.receiver(&[row.keys.1]));
        let judge = |sent: Sent| receiver.receive_at(&sent.headers, &sent.body, after(1)).map(|_| ());
        for name in row.decides {
            let missing = judge(sent.clone().without(name));
            assert_eq!(missing, Err(Error::MissingHeader((*name).to_owned())), "{} {name}", row.name);
            // Even with the same value: which one a proxy, or the next library, goes by is not known.
            let value = sent.headers.iter().find(|(own, _)| own == name).unwrap().1.clone();
            let twice = judge(sent.clone().with(&name.to_uppercase(), &value));
            assert_eq!(twice, Err(Error::DuplicateHeader((*name).to_owned())), "{} {name}", row.name);
            for value in ["", "x", "=", ",", "t=", "v1,", "Bearer a.b.c", "sha256=00", "\u{e9}", "+1700000000", "-1"] {
                let other = judge(sent.clone().without(name).with(name, value));
                // An id is not judged but signed.
                let fits = row.name == "ferriskey" && *name == "x-ferriskey-delivery-id";
                assert_eq!(other.is_ok(), fits, "{} {name}: {value:?}", row.name);
            }
        }
        // Those that decide nothing may come as they like.
        let noisy = sent.clone().with("gatepost-attempt", "x").with("Gatepost-Event-Id", "y").with("x-y", "z");
        assert_eq!(judge(noisy), Ok(()), "{}", row.name);
        let errors = [judge(sent.clone().without(row.decides[0])), judge(Sent { body: b"{}".to_vec(), ..sent })];
        for error in errors.into_iter().filter_map(Result::err) {
            let text = format!("{error} {error:?}");
            assert!(!text.contains(row.keys.0) && !text.contains(row.keys.1), "{text}");
        }
    }
}

#[test]
fn while_a_rotation_overlaps_both_receivers_believe() {
    for (profile, overrides, receiver, keys) in [
        ("standard", json!({}), Receiver::standard as fn() -> Builder, [WHSEC, OLD_WHSEC]),
        ("cryptr", json!({}), Receiver::cryptr, [TEXT, OLD_TEXT]),
        ("standard", json!({"signing": [{"scheme": "timestamped"}]}), timestamped, [TEXT, OLD_TEXT]),
    ] {
        let sent = send(&config(profile, overrides), &keys, vec![event("evt_1", "{}")]);
        for key in keys {
            let receiver = receiver().secret(key).build().unwrap();
            receiver.receive_at(&sent.headers, &sent.body, after(1)).unwrap();
        }
    }
}

#[test]
fn the_standardwebhooks_library_agrees() {
    let sent = send(&config("standard", json!({})), &[WHSEC], vec![event("evt_1", DATA)]);
    let theirs = standardwebhooks::Webhook::new(WHSEC).unwrap();
    let mut headers = gatepost_receiver::http::HeaderMap::new();
    for (name, value) in &sent.headers {
        let name: gatepost_receiver::http::HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    assert_eq!(headers["webhook-signature"], theirs.sign("evt_1", AT, &sent.body).unwrap());
    let receiver = Receiver::standard().secret(WHSEC).build().unwrap();
    receiver.receive_at(&headers, &sent.body, after(1)).unwrap();
    // And what it signs.
    let theirs = theirs.sign("msg_1", AT, &sent.body).unwrap();
    let headers = [("webhook-id", "msg_1"), ("webhook-timestamp", &*AT.to_string()), ("webhook-signature", &theirs)];
    assert_eq!(receiver.verify_at(&headers, &sent.body, after(0)).unwrap().id.as_deref(), Some("msg_1"));
}

#[test]
fn published_vectors() {
    let text = |builder: Builder| builder.secret("It's a Secret to Everybody").build().unwrap();
    let mac = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let headers = [("X-Hub-Signature-256", mac)];
    text(github()).verify_at(&headers, b"Hello, World!", after(0)).unwrap();
    let stripe = timestamped().secret("whsec_test").build().unwrap();
    let mac = "t=1700000000,v1=38877139021993b830af32feea6e18a8da83eb2f6e49ee50bd9e4cf4ca4d3789,v0=x";
    stripe.verify_at(&[("gatepost-signature", mac)], br#"{"a":1}"#, after(0)).unwrap();
}

#[test]
fn public_keys_go_by_their_names() {
    let both = json!({"signing": [{"scheme": "standard"}, {"scheme": "standard-ed25519"}]});
    let pair = json!({"signing": [{"scheme": "standard-ed25519"}]});
    let sent = send(&config("standard", pair), &[PAIR], vec![event("evt_1", "{}")]);
    let judge = |builder: Builder, sent: &Sent| {
        builder.build().unwrap().verify_at(&sent.headers, &sent.body, after(1)).map(|proof| proof.key)
    };
    let named = |id: &str| sent.clone().with("Gatepost-Key-Id", id);
    let two = || Receiver::standard().public_key("k1", OTHER_PUBLIC).public_key("k2", PUBLIC);
    assert_eq!(judge(two(), &sent), Ok(1), "without a name any may fit");
    assert_eq!(judge(two(), &named("k2")), Ok(1));
    assert_eq!(judge(two(), &named("k1")), Err(Error::NoMatch), "the key named is not the one that signed");
    assert_eq!(judge(two(), &named("k3")), Err(Error::UnknownKey("k3".into())));
    assert_eq!(
        judge(two(), &named("k2").with("gatepost-key-id", "k1")),
        Err(Error::DuplicateHeader("gatepost-key-id".into()))
    );
    // A key without a name may be any.
    assert_eq!(judge(Receiver::standard().secret(PUBLIC), &named("k3")), Ok(0));
    // A shared secret does not care for it.
    let sent = send(&config("standard", both), &[WHSEC, PAIR], vec![event("evt_1", "{}")]);
    assert_eq!(judge(Receiver::standard().secret(WHSEC).public_key("k1", PUBLIC), &sent), Ok(0));
    assert_eq!(judge(Receiver::standard().secret(WHSEC), &sent.clone().with("gatepost-key-id", "k9")), Ok(0));
    // Who has public keys only believes no shared signature, and the other way round.
    let alone = send(&config("standard", json!({})), &[WHSEC], vec![event("evt_1", "{}")]);
    assert_eq!(judge(two(), &alone), Err(Error::NoKnownSignature("v1a")));
    let pair = json!({"signing": [{"scheme": "standard-ed25519"}]});
    let pair = send(&config("standard", pair), &[PAIR], vec![event("evt_1", "{}")]);
    assert_eq!(judge(Receiver::standard().secret(WHSEC), &pair), Err(Error::NoKnownSignature("v1")));
}

#[test]
fn a_key_set_is_read() {
    let jwk = |kid: &str, x: &str| json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig"});
    let x = "1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4";
    let rsa = json!({"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"});
    let set = json!({"keys": [rsa, jwk("old", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"), jwk("new", x)]});
    let receiver = Receiver::standard().key_set(set.to_string()).build().unwrap();
    let pair = json!({"signing": [{"scheme": "standard-ed25519"}]});
    let sent = send(&config("standard", pair), &[PAIR], vec![event("evt_1", "{}")]).with("gatepost-key-id", "new");
    assert_eq!(receiver.receive_at(&sent.headers, &sent.body, after(1)).unwrap().key, 1);
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"keys":[]}"#,
        &json!({"keys": [rsa]}).to_string(),
        &json!({"keys": [jwk("a", "AAAA")]}).to_string(),
    ] {
        let built = Receiver::standard().key_set(bad).build();
        assert!(matches!(built, Err(BuildError::KeySet(_))), "{bad}: {built:?}");
    }
}

#[test]
fn tokens() {
    let sent = sign(&config("cymmetri", json!({})), &[TEXT], "evt_1", b"{\"request\":{}}");
    let judge = |builder: Builder, sent: &Sent| {
        builder.secret(TEXT).build().unwrap().verify_at(&sent.headers, &sent.body, after(1)).map(|_| ())
    };
    assert_eq!(judge(Receiver::cymmetri().audience(URL), &sent), Ok(()));
    assert_eq!(judge(Receiver::cymmetri().audience("https://hooks.example/other"), &sent), Err(Error::OtherAudience));
    // What a token says of its algorithm is compared and never followed.
    let token = sent.headers[0].1.strip_prefix("Bearer ").unwrap();
    let (_, rest) = token.split_once('.').unwrap();
    for head in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJSUzI1NiJ9", "e30", "WyJIUzI1NiJd", ""] {
        let forged = sent.clone().without("authorization").with("authorization", &format!("Bearer {head}.{rest}"));
        assert!(judge(Receiver::cymmetri(), &forged).is_err(), "{head}");
    }
    let unsigned = token.rsplit_once('.').unwrap().0;
    for value in [format!("Bearer {unsigned}."), format!("Basic {token}"), token.to_owned(), "Bearer".to_owned()] {
        let other = sent.clone().without("authorization").with("authorization", &value);
        assert!(judge(Receiver::cymmetri(), &other).is_err(), "{value}");
    }
    let lower = sent.clone().without("authorization").with("authorization", &format!("bearer {token}"));
    assert_eq!(judge(Receiver::cymmetri(), &lower), Ok(()));
}

#[test]
fn receivers_that_could_verify_nothing_are_not_made() {
    let bad = |number, problem| BuildError::Secret { number, problem };
    for (builder, wanted) in [
        (Receiver::standard(), BuildError::NoSecret),
        (Receiver::cryptr(), BuildError::NoSecret),
        (Receiver::standard().secret(""), bad(1, BadSecret::Empty)),
        (Receiver::standard().secret(WHSEC).secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), bad(2, BadSecret::Prefix)),
        (Receiver::standard().secret("whsec_%"), bad(1, BadSecret::Base64)),
        (
            Receiver::standard().secret("whsec_AAAA"),
            bad(1, BadSecret::Length { wanted: "a key of 24 to 64", length: 3 }),
        ),
        (Receiver::standard().secret(PAIR), bad(1, BadSecret::Private)),
        (Receiver::cryptr().secret("a secret\n"), bad(1, BadSecret::TrailingBlank)),
        (Receiver::okta("a b").secret(TEXT), BuildError::HeaderName("a b".into())),
        (Receiver::cryptr().secret(TEXT).public_key("k", PUBLIC), BuildError::NotForScheme { option: "a public key" }),
        (Receiver::standard().secret(WHSEC).audience(URL), BuildError::NotForScheme { option: "audience" }),
        (github().secret(TEXT).tolerance(Duration::ZERO), BuildError::NotForScheme { option: "tolerance" }),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error, wanted);
        assert!(!error.to_string().contains(TEXT));
    }
}

#[test]
fn what_costs_is_bounded() {
    let sent = send(&config("standard", json!({})), &[WHSEC], vec![event("evt_1", "{}")]);
    let judge = |builder: Builder, sent: &Sent| {
        builder.secret(WHSEC).build().unwrap().receive_at(&sent.headers, &sent.body, after(1)).map(|_| ())
    };
    let limit = sent.body.len();
    assert_eq!(judge(Receiver::standard().body_max(limit), &sent), Ok(()));
    assert_eq!(judge(Receiver::standard().body_max(limit - 1), &sent), Err(Error::TooLarge { limit: limit - 1 }));
    // Fifteen signatures before the one that fits are looked at, sixteen are not.
    let own = sent.headers.iter().find(|(name, _)| name == "webhook-signature").unwrap().1.clone();
    for (before, fits) in [(15, true), (16, false)] {
        let list = format!("{}{own}", "v1,AAAA ".repeat(before));
        let long = sent.clone().without("webhook-signature").with("webhook-signature", &list);
        assert_eq!(judge(Receiver::standard(), &long).is_ok(), fits, "{before}");
    }
    let huge = Sent { headers: vec![("authorization".into(), format!("Bearer {}", "a.".repeat(8_192)))], body: vec![] };
    let receiver = Receiver::cymmetri().secret(TEXT).build().unwrap();
    assert!(receiver.verify_at(&huge.headers, b"", after(0)).is_err());
}

#[test]
fn a_form_can_be_signed_in_any_way() {
    for (format, reads) in [
        ("cryptr", Format::Cryptr),
        ("ferriskey", Format::FerrisKey),
        ("raw", Format::Raw),
        ("cymmetri", Format::Cymmetri),
    ] {
        let sent = send(&config("standard", json!({"format": format})), &[WHSEC], vec![event("evt_1", "{\"a\":1}")]);
        let receiver = Receiver::standard().format(reads).secret(WHSEC).build().unwrap();
        let message = receiver.receive_at(&sent.headers, &sent.body, after(1)).unwrap();
        assert_eq!((&*message.id, message.id_is_signed, &*message.events[0].id), ("evt_1", true, "evt_1"), "{format}");
        assert_eq!(message.events[0].data_text(), Some("{\"a\":1}"), "{format}");
    }
}
