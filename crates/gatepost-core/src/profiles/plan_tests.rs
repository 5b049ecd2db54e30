use std::sync::atomic::{AtomicU8, Ordering};

use super::super::testing::keys;
use super::*;

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const TEXT: &str = "a text of 24 bytes or so";

#[derive(Default)]
struct Counting(AtomicU8);
impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
    }
}

fn plan(schemes: &[&str]) -> SigningPlan {
    let entries: Vec<_> =
        schemes.iter().map(|scheme| SigningEntry { scheme: (*scheme).to_owned(), header: None }).collect();
    SigningPlan::new("standard", Some(&entries)).unwrap()
}

fn texts(keys: &[SigningKey]) -> Vec<&str> {
    keys.iter().map(|key| key.text.expose()).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

#[test]
fn the_secret_told_has_the_form_of_the_schemes() {
    let cases: [(&[&str], Option<&str>, bool); 8] = [
        (&["standard"], Some("whsec_"), false),
        (&["timestamped"], Some(""), false),
        (&["github"], Some(""), false),
        (&["github", "standard"], Some("whsec_"), false),
        (&["standard", "standard-ed25519"], Some("whsec_"), true),
        (&["standard-ed25519"], Some("whsk_"), true),
        (&["standard-ed25519", "timestamped"], Some(""), true),
        (&["none"], None, false),
    ];
    for (schemes, prefix, pair) in cases {
        let plan = plan(schemes);
        let mut keys = Vec::new();
        plan.complete(&mut keys, at(1), &Counting::default());
        let told = plan.told(&keys).map(|secret| secret.expose().to_owned());
        match (prefix, &told) {
            (Some(""), Some(text)) => {
                assert!(text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()), "{schemes:?} {text}");
            }
            (Some(prefix), Some(text)) => assert!(text.starts_with(prefix), "{schemes:?} {text}"),
            (prefix, told) => assert_eq!((prefix.is_some(), told.is_some()), (false, false), "{schemes:?}"),
        }
        assert_eq!(plan.public_key(&keys).is_some_and(|key| key.starts_with("whpk_")), pair, "{schemes:?}");
        assert_eq!(plan.has_public_key(), pair);
        assert_eq!(plan.takes_key(), prefix.is_some());
        plan.signers(&keys, &Map::new()).unwrap();
        // There is nothing left to do.
        let before = keys.clone();
        plan.complete(&mut keys, at(2), &Counting::default());
        assert_eq!(keys, before);
    }
}

#[test]
fn imports_are_judged_by_the_strictest_scheme() {
    let long = "x".repeat(1_025);
    let cases: [(&[&str], &str, bool); 16] = [
        (&["standard"], WHSEC, true),
        (&["standard"], TEXT, false),
        (&["standard"], PAIR, false),
        (&["timestamped"], TEXT, true),
        (&["timestamped"], &TEXT[1..], false),
        (&["timestamped"], &long, false),
        (&["timestamped"], WHSEC, true),
        (&["timestamped"], PAIR, false),
        (&["timestamped", "standard"], TEXT, false),
        (&["standard-ed25519"], PAIR, true),
        (&["standard-ed25519"], PUBLIC, false),
        (&["standard-ed25519"], WHSEC, false),
        (&["standard-ed25519"], "whsk_AAAA", false),
        (&["standard", "standard-ed25519"], WHSEC, true),
        (&["standard", "standard-ed25519"], PAIR, true),
        (&["none"], TEXT, false),
    ];
    for (schemes, text, good) in cases {
        let judged = plan(schemes).check_secret(&Secret::new(text));
        assert_eq!(judged.is_ok(), good, "{schemes:?} {text}: {judged:?}");
        assert!(judged.is_ok() || text.is_empty() || !judged.unwrap_err().contains(text), "P7");
    }
}

#[test]
fn both_keys_sign_for_the_overlap_where_a_scheme_can_carry_both() {
    let when = (at(100), Duration::from_secs(50));
    for (schemes, overlaps) in [
        (&["standard"][..], true),
        (&["timestamped"], true),
        (&["github"], false),
        (&["github", "timestamped"], true),
        (&["standard-ed25519"], true),
    ] {
        let plan = plan(schemes);
        let entropy = Counting::default();
        let mut keys = Vec::new();
        plan.complete(&mut keys, at(1), &entropy);
        let old = plan.told(&keys).unwrap().clone();
        let new = plan.rotate(&mut keys, None, when, &entropy).unwrap();
        assert_ne!(new, old);
        assert_eq!(plan.told(&keys), Some(&new));
        let kept: Vec<_> = keys.iter().map(|key| (key.text.clone(), key.expires_at)).collect();
        let mut expected = vec![(new, None)];
        expected.extend(overlaps.then(|| (old, Some(at(150)))));
        assert_eq!(kept, expected, "{schemes:?}");
        // Without an overlap the old one ends at once.
        plan.rotate(&mut keys, None, (at(101), Duration::ZERO), &entropy).unwrap();
        assert_eq!(keys.len(), 1, "{schemes:?}");
    }
}

#[test]
fn a_rotation_renews_every_kind_and_an_import_the_one_it_is_of() {
    let plan = plan(&["standard", "standard-ed25519"]);
    let entropy = Counting::default();
    let when = (at(100), Duration::from_secs(50));
    let mut present = keys(&[(WHSEC, None), (PAIR, None)]);
    let told = plan.rotate(&mut present, None, when, &entropy).unwrap();
    assert!(told.expose().starts_with("whsec_"));
    let kinds: Vec<_> = texts(&present).iter().map(|text| text[..5].to_owned()).collect();
    assert_eq!(kinds, ["whsec", "whsk_", "whsec", "whsk_"]);
    assert_ne!(plan.public_key(&present).as_deref(), Some(PUBLIC));

    let mut present = keys(&[(WHSEC, None)]);
    plan.complete(&mut present, at(1), &entropy);
    let told = plan.rotate(&mut present, Some(Secret::new(PAIR)), when, &entropy).unwrap();
    assert_eq!(told.expose(), PAIR);
    assert_eq!(plan.public_key(&present).as_deref(), Some(PUBLIC));
    assert_eq!(plan.told(&present).map(Secret::expose), Some(WHSEC));
    assert_eq!(present.iter().filter(|key| key.expires_at.is_none()).count(), 2);
}

#[test]
fn a_rotation_is_refused_where_nothing_takes_a_key() {
    let when = (at(1), Duration::ZERO);
    let none = plan(&["none"]).rotate(&mut Vec::new(), None, when, &Counting::default());
    assert_eq!(none, Err(BadRotation::NoKey));
    let import = Some(Secret::new(TEXT));
    let refused = plan(&["standard"]).rotate(&mut Vec::new(), import, when, &Counting::default());
    assert!(matches!(refused, Err(BadRotation::Import(message)) if !message.contains(TEXT)));
}

#[test]
fn old_keys_are_bounded_and_importing_the_same_again_keeps_one() {
    let plan = plan(&["standard"]);
    let entropy = Counting::default();
    let mut present = Vec::new();
    for i in 0..10 {
        plan.rotate(&mut present, None, (at(i), Duration::from_secs(1_000)), &entropy).unwrap();
    }
    assert_eq!(present.len(), 1 + OLD_KEYS_MAX);
    let created: Vec<_> = present.iter().map(|key| key.created_at).collect();
    assert_eq!(created, [9, 8, 7, 6, 5].map(at));
    let again = Some(present[0].text.clone());
    plan.rotate(&mut present, again, (at(11), Duration::from_secs(1_000)), &entropy).unwrap();
    assert_eq!(present.len(), 1 + OLD_KEYS_MAX);
    assert_eq!(present[0].created_at, at(11));
}

#[test]
fn changed_schemes_keep_the_secret_that_suits_them() {
    let entropy = Counting::default();
    let mut present = keys(&[(WHSEC, None), (WHSEC, Some(500))]);
    // A text scheme takes the text as it is; nothing is renewed.
    let timestamped = plan(&["timestamped"]);
    assert_eq!(timestamped.suits(&present), Ok(()));
    timestamped.complete(&mut present, at(1), &entropy);
    assert_eq!(texts(&present), [WHSEC, WHSEC]);
    let mut text = keys(&[(TEXT, None)]);
    assert!(plan(&["standard"]).suits(&text).is_err());
    // A key pair comes with its scheme and goes with it.
    let both = plan(&["timestamped", "standard-ed25519"]);
    both.complete(&mut text, at(1), &entropy);
    assert!(both.public_key(&text).is_some());
    timestamped.complete(&mut text, at(1), &entropy);
    assert_eq!(texts(&text), [TEXT]);
    // Where nothing signs, nothing is kept; what comes after is new.
    plan(&["none"]).complete(&mut text, at(1), &entropy);
    assert_eq!(text, []);
    assert_eq!(plan(&["standard"]).suits(&text), Ok(()));
}

#[test]
fn headers_of_several_schemes() {
    assert_eq!(
        plan(&["standard", "github", "standard-ed25519", "timestamped"]).header_names(),
        ["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256", "gatepost-signature"]
    );
    let mut config = super::super::testing::config("standard");
    config.verification = serde_json::from_str(r#"{"mode":"options"}"#).unwrap();
    let names = SigningPlan::of(&config).unwrap().header_names();
    assert_eq!(names.last().map(|name| &**name), Some("webhook-request-origin"));
}
