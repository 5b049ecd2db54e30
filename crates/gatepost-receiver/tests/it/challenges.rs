//! Requests that ask whether an endpoint wants deliveries, judged by the code that asks.

use gatepost_core::profiles::{self, Answer, Ask, AskFacts};
use gatepost_receiver::http::Method;
use gatepost_receiver::{Builder, Error, Receiver, Reply};

const TEXT: &str = "a-shared-secret-of-some-length";
const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn facts(rate: Option<u32>) -> AskFacts<'static> {
    AskFacts { public_url: "https://gatepost.example:8443", nonce: "aB3\"x", rate_limit_per_s: rate }
}

/// Asks as Gatepost does, and lets it judge the answer.
fn ask(mode: &str, rate: Option<u32>, builder: Builder, extra: &[(&str, &str)]) -> Result<Result<(), String>, Error> {
    let mode = profiles::mode(mode).unwrap();
    let Ask::Challenge(challenge) = mode.ask(&facts(rate)) else { panic!("a challenge") };
    let mut headers: Vec<_> = challenge.headers.into_iter().map(|(n, v)| (n.to_uppercase(), v)).collect();
    headers.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let method: Method = challenge.method.parse().unwrap();
    let reply: Reply = builder.build().unwrap().challenge(&method, &headers)?;
    let headers: Vec<_> = reply.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    Ok(mode.judge(
        &facts(rate),
        &Answer { status: reply.status.as_u16(), headers: &headers, body: &reply.body, unreadable: None },
    ))
}

#[test]
fn oktas_challenge_comes_back_to_who_knows_the_secret() {
    let okta = || Receiver::okta("Authorization").secret(TEXT);
    assert_eq!(ask("okta", None, okta(), &[("authorization", TEXT)]), Ok(Ok(())));
    assert_eq!(ask("okta", None, okta(), &[("authorization", "x")]), Err(Error::NoMatch));
    assert_eq!(ask("okta", None, okta(), &[]), Err(Error::MissingHeader("authorization".into())));
    // Where requests are signed a challenge is not: there is nothing to keep to oneself in it.
    assert_eq!(ask("okta", None, Receiver::standard().secret(WHSEC), &[]), Ok(Ok(())));
    let twice = [("x-okta-verification-challenge", "a"), ("authorization", TEXT)];
    assert_eq!(ask("okta", None, okta(), &twice), Err(Error::DuplicateHeader("x-okta-verification-challenge".into())));
}

#[test]
fn the_handshake_of_cloudevents() {
    let with = |host: &str| Receiver::cloudevents().secret(WHSEC).allow_origin(host);
    for (rate, builder, wanted) in [
        (None, with("gatepost.example"), Ok(true)),
        (Some(2), with("GATEPOST.example"), Ok(true)),
        (Some(2), with("gatepost.example").allow_rate(120), Ok(true)),
        // Fewer than asked for is said, and Gatepost refuses itself.
        (Some(2), with("gatepost.example").allow_rate(119), Ok(false)),
        (None, with("gatepost.example").allow_rate(1), Ok(true)),
        (None, with("evil.example"), Err(Error::OriginNotAllowed)),
        (None, Receiver::cloudevents().secret(WHSEC), Err(Error::OriginNotAllowed)),
    ] {
        assert_eq!(ask("options", rate, builder, &[]).map(|verdict| verdict.is_ok()), wanted, "{rate:?}");
    }
}

#[test]
fn anything_else_is_no_challenge() {
    let receiver = Receiver::cloudevents().secret(WHSEC).allow_origin("a.example").build().unwrap();
    let none: [(&str, &str); 0] = [];
    for method in [Method::GET, Method::OPTIONS, Method::POST, Method::DELETE] {
        assert_eq!(receiver.challenge(&method, &none), Err(Error::NoChallenge), "{method}");
    }
    let rate = [("webhook-request-origin", "a.example"), ("webhook-request-rate", "0")];
    assert!(matches!(receiver.challenge(&Method::OPTIONS, &rate), Err(Error::MalformedHeader { .. })));
    let long = [("x-okta-verification-challenge", "x".repeat(1_025))];
    assert!(matches!(receiver.challenge(&Method::GET, &long), Err(Error::MalformedHeader { .. })));
}
