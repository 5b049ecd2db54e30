use proptest::prelude::*;

use super::*;

const SW1: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SW2: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const SW8: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const SW8_PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const BODY: &[u8] = b"{\"test\": 2432232314}";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const AT: i64 = 1_614_265_330;

fn key(text: &str, expires_at: Option<Timestamp>) -> SigningKey {
    SigningKey { text: Secret::new(text), created_at: Timestamp::EPOCH, expires_at }
}

fn sign(texts: &[&str], id: &str, at: i64, body: &[u8]) -> String {
    let keys: Vec<_> = texts.iter().map(|text| key(text, None)).collect();
    Signer::new(&keys).unwrap().sign(id, at, body, Timestamp::from_secs(at))
}

struct Counting(std::sync::atomic::AtomicU8);
impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
}

#[test]
fn published_vectors() {
    assert_eq!(sign(&[SW1], ID, AT, BODY), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    assert_eq!(
        sign(
            &[SW2],
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            br#"{"email":"test@example.com","username":"test_user"}"#
        ),
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
    );
    assert_eq!(
        sign(&[SW8], ID, AT, BODY),
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
    );
    assert_eq!(public_key(SW8).unwrap().as_deref(), Some(SW8_PUBLIC));
    assert_eq!(public_key(SW1), Ok(None));
}

#[test]
fn several_keys_sign_side_by_side_with_single_spaces() {
    let both = sign(&[SW1, SW8], ID, AT, BODY);
    let items: Vec<_> = both.split(' ').collect();
    assert_eq!(items, [sign(&[SW1], ID, AT, BODY), sign(&[SW8], ID, AT, BODY)]);
}

#[test]
fn an_older_key_signs_until_it_expires_and_after_the_present_one() {
    let expiry = Timestamp::from_secs(AT + 60);
    let signer = Signer::new(&[key(SW2, None), key(SW1, Some(expiry))]).unwrap();
    let (new, old) = (sign(&[SW2], ID, AT, BODY), sign(&[SW1], ID, AT, BODY));
    let at = |now| signer.sign(ID, AT, BODY, now);
    assert_eq!(at(Timestamp::from_micros(expiry.as_micros() - 1)), format!("{new} {old}"));
    assert_eq!(at(expiry), new);
}

#[test]
fn secrets_that_must_be_refused() {
    let long = format!("whsec_{}", STANDARD.encode([7; 65]));
    let short = format!("whsec_{}", STANDARD.encode([7; 23]));
    let truncated = format!("whsk_{}", STANDARD.encode([7; 32]));
    let mut mixed = STANDARD.decode(&SW8[5..]).unwrap();
    mixed[40] ^= 1;
    let mixed = format!("whsk_{}", STANDARD.encode(mixed));
    let cases = [
        ("", BadSecret::Prefix),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", BadSecret::Prefix),
        ("whsec_", BadSecret::Empty),
        ("whsec_%", BadSecret::Base64),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", BadSecret::Base64),
        (" whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", BadSecret::Prefix),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", BadSecret::Base64),
        ("v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", BadSecret::Version),
        (SW8_PUBLIC, BadSecret::Public),
        (&short, BadSecret::Length(23)),
        (&long, BadSecret::Length(65)),
        ("whsk_", BadSecret::Empty),
        (&truncated, BadSecret::PrivateLength(32)),
        (&mixed, BadSecret::Mismatch),
    ];
    for (text, error) in cases {
        assert_eq!(check_secret(text), Err(error), "{text}");
        // P7: an error goes into an answer; the secret must not.
        assert!(text.len() < 10 || !error.to_string().contains(text));
    }
    for bytes in [24, 64] {
        assert_eq!(check_secret(&format!("whsec_{}", STANDARD.encode(vec![7; bytes]))), Ok(()));
    }
}

#[test]
fn a_text_copied_with_the_end_of_its_line_is_no_secret() {
    let text = "G8DXTIOobwGxhkFf2X5VidlQhJ8hoVAO";
    assert_eq!(check_text(text), Ok(()));
    for end in ["\n", "\r\n", " ", "\t", "\u{a0}"] {
        assert_eq!(check_text(&format!("{text}{end}")), Err(BadSecret::TrailingBlank), "{end:?}");
    }
    assert_eq!(check_text(&format!(" {text}")), Ok(()));
}

#[test]
fn made_secrets_are_accepted_and_differ() {
    let entropy = Counting(1.into());
    let (one, two) = (generate_secret(&entropy), generate_secret(&entropy));
    assert_ne!(one, two);
    check_secret(one.expose()).unwrap();
    let pair = generate_ed25519(&entropy).unwrap();
    assert!(public_key(pair.expose()).unwrap().unwrap().starts_with("whpk_"));
}

fn headers<'a>(id: &'a str, timestamp: &'a str, signature: &'a str) -> impl Fn(&str) -> Option<&'a str> {
    move |name| match name {
        ID_HEADER => Some(id),
        TIMESTAMP_HEADER => Some(timestamp),
        SIGNATURE_HEADER => Some(signature),
        _ => None,
    }
}

#[test]
fn verifying_names_what_is_wrong() {
    let good = sign(&[SW1], ID, AT, BODY);
    let now = Timestamp::from_secs(AT);
    let judge = |secrets: &[&str], timestamp: &str, signature: &str, body: &[u8], now| {
        verify(secrets, headers(ID, timestamp, signature), body, now, TOLERANCE)
    };
    let text = AT.to_string();
    assert_eq!(judge(&[SW1], &text, &good, BODY, now), Ok(0));
    assert_eq!(judge(&[SW2, SW1], &text, &good, BODY, now), Ok(1));
    assert_eq!(judge(&[SW1], &text, &format!("v1a,AAAA v2,x  {good}"), BODY, now), Ok(0));
    assert_eq!(judge(&[SW2], &text, &good, BODY, now), Err(VerifyError::NoMatch));
    assert_eq!(judge(&[SW1], &text, &good, b"{}", now), Err(VerifyError::NoMatch));
    assert_eq!(judge(&[SW8], &text, &good, BODY, now), Err(VerifyError::NoKnownVersion("v1a")));
    assert_eq!(judge(&[SW1], &text, "", BODY, now), Err(VerifyError::NoKnownVersion("v1")));
    assert_eq!(judge(&[SW1], "soon", &good, BODY, now), Err(VerifyError::BadTimestamp));
    let later = |s| Timestamp::from_secs(AT + s);
    assert_eq!(judge(&[SW1], &text, &good, BODY, later(300)), Ok(0));
    assert_eq!(judge(&[SW1], &text, &good, BODY, later(301)), Err(VerifyError::TooOld(301)));
    assert_eq!(judge(&[SW1], &text, &good, BODY, later(-301)), Err(VerifyError::TooNew(301)));
    assert_eq!(judge(&["nothing"], &text, &good, BODY, now), Err(VerifyError::BadSecret(BadSecret::Prefix)));
    let missing = |name: &str| if name == ID_HEADER { Some(ID) } else { None };
    assert_eq!(verify(&[SW1], missing, BODY, now, TOLERANCE), Err(VerifyError::MissingHeader(TIMESTAMP_HEADER)));
    // The public half is enough for Ed25519.
    let signed = sign(&[SW8], ID, AT, BODY);
    assert_eq!(judge(&[SW8_PUBLIC], &text, &signed, BODY, now), Ok(0));
}

proptest! {
    #[test]
    fn the_standardwebhooks_crate_agrees(
        secret in proptest::collection::vec(any::<u8>(), 24..=64),
        id in "[A-Za-z0-9_:@~+=/-]{1,40}",
        at in 0i64..4_000_000_000,
        body in ".{0,200}",
    ) {
        let text = format!("whsec_{}", STANDARD.encode(&secret));
        let theirs = standardwebhooks::Webhook::new(&text).unwrap().sign(&id, at, body.as_bytes()).unwrap();
        let ours = sign(&[&text], &id, at, body.as_bytes());
        prop_assert_eq!(&ours, &theirs);
        let now = Timestamp::from_secs(at);
        let stamp = at.to_string();
        prop_assert_eq!(verify(&[&text], headers(&id, &stamp, &ours), body.as_bytes(), now, TOLERANCE), Ok(0));
    }

    #[test]
    fn any_header_text_is_verified_without_panic(signature in ".{0,80}", stamp in ".{0,24}", secret in ".{0,40}") {
        let now = Timestamp::from_secs(AT);
        let _ = verify(&[SW1, SW8], headers(ID, &stamp, &signature), BODY, now, TOLERANCE);
        let _ = check_secret(&secret);
    }
}
