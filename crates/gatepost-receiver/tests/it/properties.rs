//! Whatever strangers send: no panic, no yes.

use gatepost_receiver::hook::HookReceiver;
use gatepost_receiver::http::Method;
use gatepost_receiver::{Builder, Headers as _, Receiver, Scheme};
use proptest::prelude::*;
use serde_json::json;

use crate::sender::{after, config, event, send};

const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const TEXT: &str = "a-shared-secret-of-some-length";

const NAMES: [&str; 14] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "gatepost-key-id",
    "gatepost-signature",
    "cryptr-signature",
    "x-ferriskey-signature",
    "x-ferriskey-timestamp",
    "x-ferriskey-delivery-id",
    "x-hub-signature-256",
    "authorization",
    "x-okta-verification-challenge",
    "webhook-request-origin",
    "webhook-request-rate",
];

fn receivers() -> Vec<Receiver> {
    let text = |builder: Builder| builder.secret(TEXT).build().unwrap();
    vec![
        Receiver::standard().secret(WHSEC).public_key("k", PUBLIC).build().unwrap(),
        text(Receiver::cryptr()),
        text(Receiver::ferriskey()),
        text(Receiver::cymmetri()),
        text(Receiver::okta("authorization")),
        text(Receiver::standard().signing(Scheme::Timestamped(None))),
        text(Receiver::standard().signing(Scheme::GitHub(None))),
    ]
}

/// Pieces such headers are made of, and any other bytes.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("v1,".to_owned()),
        Just("v1a,".to_owned()),
        Just("t=1700000000".to_owned()),
        Just("1700000000".to_owned()),
        Just(",v1=".to_owned()),
        Just("sha256=".to_owned()),
        Just("sha256.".to_owned()),
        Just("Bearer ".to_owned()),
        Just("eyJhbGciOiJIUzI1NiJ9".to_owned()),
        Just(".".to_owned()),
        Just("k".to_owned()),
        "[0-9a-f]{64}",
        "[A-Za-z0-9+/]{43}=",
        ".{0,8}",
    ];
    prop_oneof![
        3 => proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn no_headers_of_a_stranger_are_believed(
        headers in proptest::collection::vec((proptest::sample::select(&NAMES[..]), value()), 0..12),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        for receiver in receivers() {
            prop_assert!(receiver.receive_at(&headers, &body, after(0)).is_err());
            for method in [Method::GET, Method::OPTIONS] {
                let _ = receiver.challenge(&method, &headers);
            }
        }
        let hook = HookReceiver::gatepost().secret(WHSEC).build().unwrap();
        prop_assert!(hook.question_at(&headers, &body, after(0)).is_err());
        let hook = HookReceiver::cymmetri().secret(TEXT).build().unwrap();
        prop_assert!(hook.question_at(&headers, &body, after(0)).is_err());
    }

    #[test]
    fn a_signed_header_bears_no_change(at in 0usize..200, flip in 1u8..128) {
        let standard = send(&config("standard", json!({})), &[WHSEC], vec![event("evt_1", "{}")]);
        let cryptr = send(&config("cryptr", json!({})), &[TEXT], vec![event("evt_1", "{}")]);
        for (sent, name, receiver) in [
            (&standard, "webhook-id", &receivers()[0]),
            (&standard, "webhook-timestamp", &receivers()[0]),
            (&cryptr, "cryptr-signature", &receivers()[1]),
        ] {
            let mut headers: Vec<_> = sent.headers.iter().map(|(n, v)| (n.clone(), v.clone().into_bytes())).collect();
            let value = &mut headers.iter_mut().find(|(own, _)| own == name).unwrap().1;
            let at = at % value.len();
            let before = value[at];
            value[at] ^= flip;
            // Hexadecimal digits mean the same in either case, and blanks around a value nothing.
            prop_assume!(!before.eq_ignore_ascii_case(&value[at]));
            prop_assert!(receiver.verify_at(&headers, &sent.body, after(0)).is_err(), "{name}");
        }
    }

    #[test]
    fn any_body_that_is_signed_is_read_or_named(body in "[\\[\\]{}\",:a-z0-9 \\\\]{0,60}") {
        use gatepost_receiver::Format::*;
        let sent = crate::sender::sign(&config("standard", json!({})), &[WHSEC], "evt_1", body.as_bytes());
        for format in [Standard, CloudEvents, Cryptr, FerrisKey, Okta, Cymmetri, Raw] {
            let receiver = Receiver::standard().format(format).secret(WHSEC).build().unwrap();
            let _ = receiver.receive_at(&sent.headers, &sent.body, after(0)).map_err(|error| error.status());
        }
    }

    #[test]
    fn names_are_found_in_any_case(name in "[a-z][a-z-]{0,20}", upper in any::<u32>(), value in ".{0,10}") {
        let shouted: String = name.chars().enumerate()
            .map(|(i, c)| if upper >> (i % 32) & 1 == 1 { c.to_ascii_uppercase() } else { c }).collect();
        let one = [(shouted.clone(), value.clone())];
        prop_assert_eq!(one.find(&name), gatepost_receiver::Found::One(value.as_bytes()));
        let two = [(shouted, value.clone()), (name.clone(), value)];
        prop_assert_eq!(two.find(&name), gatepost_receiver::Found::Several);
    }
}
