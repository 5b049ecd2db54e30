//! What receivers do, and what it comes to. Bounded in time and memory (P5, P10).

use std::time::Duration;

use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Received, Receiver, Script};
use tokio::time::Instant;

use super::*;

const SHORT: Duration = Duration::from_millis(200);
/// What a receiver may get rid of before it notices that nobody reads: socket buffers, ours and
/// the system's.
const BUFFERS: u64 = 10_000_000;

async fn against(script: Script, timeout: Duration) -> (Exchange, Receiver) {
    let receiver = Receiver::builder().script(script).start();
    let exchange = world().post_within(&receiver.url("/hook?x=1"), timeout).await;
    (exchange, receiver)
}

#[tokio::test]
async fn a_good_exchange_is_told_in_full() {
    let script = Script::status(201).header("X-Answer", "yes").body("created");
    let (exchange, receiver) = against(script, PATIENT).await;
    assert_eq!((exchange.outcome, exchange.status, exchange.error), (Outcome::Ok, Some(201), None));
    assert_eq!(exchange.started_at.to_string(), "2026-01-01T00:00:00Z");
    let response = exchange.response.expect("an answer");
    assert_eq!((&response.body[..], response.truncated), (&b"created"[..], false));
    assert!(response.headers.contains(&("x-answer".to_owned(), "yes".to_owned())));
    let t = exchange.timings;
    assert_eq!((t.dns_us, t.tls_us), (None, None));
    assert!(t.connect_us.is_some() && t.first_byte_us.is_some());
    assert!(t.total_us >= t.connect_us.unwrap_or(0) + t.first_byte_us.unwrap_or(0));

    let got = &receiver.received()[0];
    assert_eq!((got.method.as_str(), got.path.as_str(), &got.body[..]), ("POST", "/hook?x=1", &b"{\"a\":1}"[..]));
    let names: Vec<_> = got.headers.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(
        names,
        ["host", "content-type", "webhook-id", "user-agent", "accept", "accept-encoding", "content-length"]
    );
    assert_eq!(got.header("user-agent"), Some("Gatepost/test"));
}

#[tokio::test]
async fn header_names_in_title_case_on_request() {
    let receiver = Receiver::start();
    let target = Target::parse(&receiver.url("/")).expect("a URL");
    let exchange = world().client.send(OutgoingRequest { title_case: true, ..request(&target) }).await;
    assert_eq!(exchange.outcome, Outcome::Ok);
    let names: Vec<_> = receiver.received()[0].headers.iter().map(|(n, _)| n.clone()).collect();
    let expected = ["Host", "Content-Type", "Webhook-Id", "User-Agent", "Accept", "Accept-Encoding", "Content-Length"];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn empty_bodies_are_announced_where_a_body_is_expected() {
    let receiver = Receiver::start();
    let target = Target::parse(&receiver.url("/")).expect("a URL");
    let world = world();
    for method in [Method::POST, Method::GET] {
        let sent = OutgoingRequest { method, body: Bytes::new(), ..request(&target) };
        assert_eq!(world.client.send(sent).await.outcome, Outcome::Ok);
    }
    let lengths: Vec<_> = receiver.received().iter().map(|r| r.header("content-length").map(str::to_owned)).collect();
    assert_eq!(lengths, [Some("0".to_owned()), None]);
}

#[tokio::test]
async fn every_other_status_is_an_answer() {
    let receiver = Receiver::start();
    let world = world();
    for status in [200, 204, 299, 300, 304, 400, 404, 410, 418, 429, 500, 503, 599, 999] {
        receiver.script(Script::status(status).header("retry-after", "7"));
        let exchange = world.post(&receiver.url("/")).await;
        let ok = (200..300).contains(&status);
        assert_eq!(exchange.outcome, if ok { Outcome::Ok } else { Outcome::HttpStatus }, "{status}");
        assert_eq!(exchange.status, Some(status));
        assert_eq!(exchange.error.is_none(), ok);
        let headers = exchange.response.expect("an answer").headers;
        assert!(headers.contains(&("retry-after".to_owned(), "7".to_owned())));
    }
    receiver.script(Script::status(503));
    let exchange = world.post(&receiver.url("/")).await;
    assert_eq!(error(&exchange), "the receiver answered 503 Service Unavailable");
}

#[tokio::test]
async fn p5_silence_times_out() {
    let (exchange, receiver) = against(Script::Hang, SHORT).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Timeout, None));
    assert_eq!(error(&exchange), "no answer within 200 ms");
    assert!(exchange.response.is_none() && !exchange.local_fault);
    assert!(exchange.timings.total_us >= 200_000);
    receiver.wait_closed().await;
}

#[tokio::test]
async fn p5_one_byte_at_a_time_times_out() {
    let (exchange, receiver) = against(Script::Drip(Duration::from_millis(20)), SHORT).await;
    assert_eq!(exchange.outcome, Outcome::Timeout);
    receiver.wait_closed().await;
}

#[tokio::test]
async fn closing_without_an_answer_is_a_reset() {
    let partial = Script::Raw("HTTP/1.1 200 OK\r\ncontent-le".into());
    for script in [Script::Reset, Script::Close] {
        let (exchange, receiver) = against(script.clone(), PATIENT).await;
        assert_eq!(exchange.outcome, Outcome::Reset, "{script:?}: {}", error(&exchange));
        assert_eq!(error(&exchange), "the receiver closed the connection without answering");
        assert_eq!(receiver.count(), 1, "it is not sent twice: who knows what the receiver did with it");
    }
    // Half a head counts as no answer.
    let (exchange, mut receiver) = against(partial, SHORT).await;
    assert_eq!(exchange.outcome, Outcome::Timeout);
    receiver.stop().await;
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error() {
    let cases = [
        Script::Garbage,
        Script::Raw("HTTP/1.1 2x0 OK\r\n\r\n".into()),
        Script::Raw("HTTP/3.7 200 OK\r\n\r\n".into()),
        Script::Raw("HTTP/1.1 200 OK\r\ncontent-length 2\r\n\r\n".into()),
        Script::Raw("HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n".into()),
        Script::Raw("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx".into()),
        Script::Raw("SSH-2.0-OpenSSH_9.6\r\n".into()),
        Script::Raw("<html>hello</html>\r\n\r\n".into()),
        Script::Raw("\u{0}\u{0}\u{6}\u{4}\u{0}\u{0}\u{0}\u{0}\u{0}".into()),
    ];
    for script in cases {
        let (exchange, _receiver) = against(script.clone(), PATIENT).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::Protocol, None), "{script:?}: {}", error(&exchange));
        assert!(!error(&exchange).is_empty());
    }
}

#[tokio::test]
async fn p10_ten_megabytes_of_headers_are_not_read() {
    let (exchange, receiver) = against(Script::HugeHeaders(10_000_000), PATIENT).await;
    assert_eq!(exchange.outcome, Outcome::Protocol, "{}", error(&exchange));
    assert!(error(&exchange).contains("headers"), "{}", error(&exchange));
    receiver.wait_closed().await;
    assert!(receiver.bytes_sent() < BUFFERS, "{}", receiver.bytes_sent());
}

#[tokio::test]
async fn many_headers_are_kept_in_part() {
    let (exchange, _receiver) = against(Script::HugeHeaders(40_000), PATIENT).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)));
    let headers = exchange.response.expect("an answer").headers;
    let kept: usize = headers.iter().map(|(n, v)| n.len() + v.len()).sum();
    assert!((15_000..=16 * 1024).contains(&kept), "{kept}");
}

#[tokio::test]
async fn p10_an_endless_body_is_cut_and_the_status_stands() {
    let (exchange, receiver) = against(Script::EndlessBody, PATIENT).await;
    assert_eq!((exchange.outcome, exchange.status, exchange.error), (Outcome::Ok, Some(200), None));
    let response = exchange.response.expect("an answer");
    assert_eq!((response.body.len(), response.truncated), (16 * 1024, true));
    receiver.wait_closed().await;
    assert!(receiver.bytes_sent() < BUFFERS, "{}", receiver.bytes_sent());
}

#[tokio::test]
async fn bodies_at_the_bounds() {
    const K: usize = 1024;
    let receiver = Receiver::start();
    let world = world();
    // (sent, kept, truncated, whether the connection can be used again)
    let cases =
        [(0, 0, false), (1, 1, false), (16 * K, 16 * K, false), (16 * K + 1, 16 * K, true), (64 * K, 16 * K, true)];
    for (sent, kept, truncated) in cases {
        receiver.script(Script::status(200).body(vec![b'x'; sent]));
        let response = world.post(&receiver.url("/")).await.response.expect("an answer");
        assert_eq!((response.body.len(), response.truncated), (kept, truncated), "{sent}");
    }
    assert_eq!(receiver.connections(), 1, "what was read whole leaves the connection usable");
    receiver.script(Script::status(200).body(vec![b'x'; 400 * K]));
    let response = world.post(&receiver.url("/")).await.response.expect("an answer");
    assert_eq!((response.body.len(), response.truncated), (16 * K, true));
    receiver.wait_closed().await;
}

#[tokio::test]
async fn p5_a_body_that_never_ends_costs_no_more_than_the_timeout() {
    for script in [Script::StallBody, Script::DripBody(Duration::from_millis(20))] {
        let began = Instant::now();
        let (exchange, receiver) = against(script.clone(), Duration::from_millis(300)).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)), "{script:?}");
        let response = exchange.response.expect("an answer");
        assert!(response.truncated && !response.body.is_empty(), "{script:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{script:?}: {:?}", began.elapsed());
        receiver.wait_closed().await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_the_status() {
    let (exchange, _receiver) = against(Script::CutBody, PATIENT).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)));
    let response = exchange.response.expect("an answer");
    assert_eq!((&response.body[..], response.truncated), (&b"beginning "[..], true));

    let (exchange, _receiver) =
        against(Script::Raw("HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n".into()), PATIENT)
            .await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::HttpStatus, Some(500)));
    let response = exchange.response.expect("an answer");
    assert_eq!((&response.body[..], response.truncated), (&b"abc"[..], true));
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let raw = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok";
    let (exchange, _receiver) = against(Script::Raw(raw.into()), PATIENT).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(202)));
    assert_eq!(&exchange.response.expect("an answer").body[..], b"ok");
    // Interim answers alone are none.
    let (exchange, _receiver) = against(Script::Raw("HTTP/1.1 100 Continue\r\n\r\n".into()), SHORT).await;
    assert_eq!(exchange.outcome, Outcome::Timeout);
}

#[tokio::test]
async fn switching_protocols_is_no_success_and_ends_the_connection() {
    let raw = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let (exchange, receiver) = against(Script::Raw(raw.into()), PATIENT).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::HttpStatus, Some(101)));
    receiver.wait_closed().await;
}

#[tokio::test]
async fn an_old_server_is_understood() {
    let (exchange, receiver) =
        against(Script::Raw("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".into()), PATIENT).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)));
    receiver.wait_closed().await;
}

#[tokio::test]
async fn the_slow_and_the_dead_delay_nobody_else() {
    let bad = Receiver::builder().script(Script::Hang).start();
    let good = Receiver::start();
    let world = world();
    let (bad_url, good_url) = (bad.url("/"), good.url("/"));
    let hanging = (0..50).map(|_| world.post_within(&bad_url, PATIENT));
    let hanging = futures_util::future::join_all(hanging);
    let healthy = async {
        bad.wait_for(50).await;
        for _ in 0..50 {
            assert_eq!(world.post(&good_url).await.outcome, Outcome::Ok);
        }
    };
    tokio::select! {
        _ = hanging => panic!("they hang"),
        () = healthy => {}
    }
    // Giving up on a request gives up its connection.
    bad.wait_closed().await;
}

#[tokio::test]
async fn the_answer_may_depend_on_the_request() {
    let receiver = Receiver::builder()
        .script(Script::with(|r: &Received| Script::status(if r.path == "/yes" { 200 } else { 404 })))
        .start();
    let world = world();
    assert_eq!(world.post(&receiver.url("/yes")).await.status, Some(200));
    assert_eq!(world.post(&receiver.url("/no")).await.status, Some(404));
}
