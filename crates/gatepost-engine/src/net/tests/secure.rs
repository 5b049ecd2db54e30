//! TLS and HTTP/2.

use std::time::Duration;

use futures_util::future::join_all;
use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Cert, Gate, Receiver, Script, Signer, TestCa};

use super::*;

fn trusting(ca: &TestCa) -> World {
    let names = ScriptedResolver::new().name("hooks.test", &["127.0.0.1"]);
    World::allowing(&["127.0.0.1/32"], names, Some(ca.pem()))
}

#[tokio::test]
async fn an_extra_ca_is_trusted() {
    let ca = TestCa::new();
    let receiver = Receiver::builder().tls(&ca, Cert::Good).start();
    let world = trusting(&ca);
    for n in 0..3 {
        let exchange = world.post(&receiver.url("/")).await;
        assert_eq!(exchange.outcome, Outcome::Ok, "{}", error(&exchange));
        assert_eq!(exchange.timings.tls_us.is_some(), n == 0);
    }
    assert_eq!((receiver.count(), receiver.connections()), (3, 1));
    let by_address = world.post(&format!("https://{}/", receiver.addr())).await;
    assert_eq!(by_address.outcome, Outcome::Ok, "a certificate may name an address: {}", error(&by_address));
}

#[tokio::test]
async fn the_name_is_verified_not_the_address() {
    let ca = TestCa::new();
    let receiver = Receiver::builder().tls_as(&ca, Cert::Good, &["hooks.test"], false).start();
    let world = trusting(&ca);
    assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::Ok);
    assert_eq!(receiver.received()[0].header("host"), Some(format!("hooks.test:{}", receiver.addr().port()).as_str()));
    let by_address = world.post(&format!("https://{}/", receiver.addr())).await;
    assert_eq!(by_address.outcome, Outcome::Tls);
}

#[tokio::test]
async fn bad_certificates_are_refused_with_the_reason() {
    let ca = TestCa::new();
    let world = trusting(&ca);
    let cases = [
        (Cert::Expired, "has expired"),
        (Cert::NotYetValid, "not valid yet"),
        (Cert::WrongName, "another host name"),
        (Cert::SelfSigned, "unknown authority"),
    ];
    for (cert, reason) in cases {
        let receiver = Receiver::builder().tls(&ca, cert).start();
        let exchange = world.post(&receiver.url("/")).await;
        assert_eq!((exchange.outcome, exchange.local_fault), (Outcome::Tls, false), "{cert:?}");
        assert!(error(&exchange).contains(reason), "{cert:?}: {}", error(&exchange));
        assert_eq!(receiver.count(), 0, "nothing was sent");
    }
    let receiver = Receiver::builder().tls(&ca, Cert::Good).start();
    let stranger = World::allowing(&["127.0.0.1/32"], ScriptedResolver::new(), None);
    let exchange = stranger.post(&receiver.url("/")).await;
    assert_eq!(exchange.outcome, Outcome::Tls);
    assert!(error(&exchange).contains("unknown authority"), "{}", error(&exchange));
}

#[tokio::test]
async fn a_certificate_in_the_file_is_trusted_for_its_names_and_dates() {
    let ca = TestCa::new();
    let cases = [
        (Cert::Good, None),
        (Cert::Expired, Some("has expired")),
        (Cert::NotYetValid, Some("not valid yet")),
        (Cert::WrongName, Some("another host name")),
    ];
    for signer in [Signer::ItselfAsAuthority, Signer::Itself, Signer::Authority] {
        for (cert, refused) in cases {
            let (pem, config) = ca.known_by_itself(signer, cert, &["127.0.0.1", "hooks.test"]);
            let receiver = Receiver::builder().tls_config(config).start();
            let names = || ScriptedResolver::new().name("hooks.test", &["127.0.0.1"]);
            let world = World::allowing(&["127.0.0.1/32"], names(), Some(&pem));
            for host in ["127.0.0.1", "hooks.test"] {
                let exchange = world.post(&format!("https://{host}:{}/", receiver.addr().port())).await;
                let outcome = if refused.is_some() { Outcome::Tls } else { Outcome::Ok };
                assert_eq!(exchange.outcome, outcome, "{signer:?} {cert:?}: {}", error(&exchange));
                assert!(error(&exchange).contains(refused.unwrap_or_default()), "{}", error(&exchange));
            }
            // Another of the same make is not in the file.
            let other = ca.known_by_itself(signer, cert, &["127.0.0.1", "hooks.test"]).0;
            let world = World::allowing(&["127.0.0.1/32"], names(), Some(&other));
            assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::Tls, "{signer:?} {cert:?}");
        }
    }
    // Not in the file, the library's own reason for refusing it says what to do.
    let config = ca.known_by_itself(Signer::ItselfAsAuthority, Cert::Good, &["127.0.0.1"]).1;
    let receiver = Receiver::builder().tls_config(config).start();
    let exchange = trusting(&ca).post(&receiver.url("/")).await;
    assert!(error(&exchange).contains("that very certificate put into GATEPOST_EXTRA_CA"), "{}", error(&exchange));
}

#[tokio::test]
async fn tls_where_none_is_spoken_and_the_other_way_round() {
    let ca = TestCa::new();
    let world = trusting(&ca);
    let plain = Receiver::start();
    let exchange = world.post(&format!("https://{}/", plain.addr())).await;
    assert_eq!(exchange.outcome, Outcome::Tls);
    assert!(error(&exchange).contains("does not speak TLS"), "{}", error(&exchange));

    let secure = Receiver::builder().tls(&ca, Cert::Good).start();
    let exchange = world.post(&format!("http://{}/", secure.addr())).await;
    assert!(matches!(exchange.outcome, Outcome::Protocol | Outcome::Reset), "{:?}", exchange.outcome);
}

#[tokio::test]
async fn a_handshake_that_never_ends_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("https://{}/", listener.local_addr().expect("addr"));
    let exchange = world().post_within(&url, Duration::from_millis(150)).await;
    assert_eq!(exchange.outcome, Outcome::Timeout);
    assert!(error(&exchange).contains("TLS handshake"), "{}", error(&exchange));
}

#[tokio::test]
async fn a_peer_that_hangs_up_in_the_handshake() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("https://{}/", listener.local_addr().expect("addr"));
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let exchange = world().post(&url).await;
    assert_eq!(exchange.outcome, Outcome::Tls);
    assert!(error(&exchange).contains("closed the connection"), "{}", error(&exchange));
}

#[tokio::test]
async fn hostile_receivers_over_tls() {
    let ca = TestCa::new();
    let receiver = Receiver::builder().tls(&ca, Cert::Good).start();
    let world = trusting(&ca);
    let cases = [
        (Script::Reset, Outcome::Reset),
        (Script::Close, Outcome::Reset),
        (Script::Garbage, Outcome::Protocol),
        (Script::HugeHeaders(10_000_000), Outcome::Protocol),
        (Script::EndlessBody, Outcome::Ok),
        (Script::status(200).then_close(), Outcome::Ok),
        (Script::status(200), Outcome::Ok),
    ];
    for (script, outcome) in cases {
        receiver.script(script.clone());
        let exchange = world.post(&receiver.url("/")).await;
        assert_eq!(exchange.outcome, outcome, "{script:?}: {}", error(&exchange));
    }
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered() {
    let ca = TestCa::new();
    let receiver = Receiver::builder().h2(&ca).script(Script::status(200).header("x-a", "b").body("ok")).start();
    let world = trusting(&ca);
    let exchange = world.post(&receiver.url("/hook?x=1")).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)), "{}", error(&exchange));
    let response = exchange.response.expect("an answer");
    assert_eq!((&response.body[..], response.truncated), (&b"ok"[..], false));
    let got = &receiver.received()[0];
    assert_eq!((got.version, got.method.as_str(), got.path.as_str()), ("HTTP/2", "POST", "/hook?x=1"));
    assert_eq!((&got.body[..], got.header("webhook-id")), (&b"{\"a\":1}"[..], Some("evt_1")));
    assert_eq!(got.header("host"), None);
}

#[tokio::test]
async fn http2_requests_share_one_connection() {
    let ca = TestCa::new();
    let gate = Gate::new();
    let receiver = Receiver::builder().h2(&ca).start();
    let world = trusting(&ca);
    let url = receiver.url("/");
    assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
    receiver.script(Script::status(200).behind(&gate));
    let opener = async {
        receiver.wait_for(41).await;
        gate.open();
    };
    let (exchanges, ()) = tokio::join!(join_all((0..40).map(|_| world.post(&url))), opener);
    assert!(exchanges.iter().all(|e| e.outcome == Outcome::Ok && e.timings.tls_us.is_none()));
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn p5_an_http2_connection_that_let_a_request_hang_is_not_trusted_again() {
    let ca = TestCa::new();
    let receiver = Receiver::builder().h2(&ca).start();
    let world = trusting(&ca);
    receiver.next([Script::status(200), Script::Hang]);
    assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::Ok);
    let hung = world.post_within(&receiver.url("/"), Duration::from_millis(150)).await;
    assert_eq!((hung.outcome, error(&hung)), (Outcome::Timeout, "no answer within 150 ms"));
    let next = world.post(&receiver.url("/")).await;
    assert_eq!(next.outcome, Outcome::Ok);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn hostile_receivers_over_http2() {
    let ca = TestCa::new();
    let receiver = Receiver::builder().h2(&ca).start();
    let world = trusting(&ca);
    let cases = [
        (Script::Reset, Outcome::Reset, None),
        (Script::HugeHeaders(1_000_000), Outcome::Protocol, None),
        (Script::status(503), Outcome::HttpStatus, Some(503)),
        (Script::EndlessBody, Outcome::Ok, Some(200)),
        (Script::status(204), Outcome::Ok, Some(204)),
    ];
    for (script, outcome, status) in cases {
        receiver.script(script.clone());
        let exchange = world.post(&receiver.url("/")).await;
        assert_eq!((exchange.outcome, exchange.status), (outcome, status), "{script:?}: {}", error(&exchange));
    }
}

#[tokio::test]
async fn p5_a_stalled_http2_body_costs_no_more_than_the_timeout() {
    let ca = TestCa::new();
    let receiver = Receiver::builder().h2(&ca).script(Script::StallBody).start();
    let world = trusting(&ca);
    let exchange = world.post_within(&receiver.url("/"), Duration::from_millis(300)).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)));
    assert!(exchange.response.expect("an answer").truncated);
    // The stream is given up, not the connection.
    receiver.script(Script::status(200));
    assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::Ok);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_restarted_http2_receiver_is_found_again() {
    let ca = TestCa::new();
    let mut receiver = Receiver::builder().h2(&ca).start();
    let world = trusting(&ca);
    let url = receiver.url("/");
    assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
    let addr = receiver.addr();
    receiver.stop().await;
    let receiver = Receiver::builder().bind(addr).h2(&ca).start();
    assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
    assert_eq!(receiver.count(), 1);
}
