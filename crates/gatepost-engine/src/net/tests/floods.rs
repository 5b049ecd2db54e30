//! Receivers that send without end: each costs its own request, within its share, and nobody else
//! anything (P5, P10).

use futures_util::future::join_all;
use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Receiver, Script, TestCa};

use super::*;

/// What a flood may get rid of: socket buffers, ours and the system's.
const BUFFERS: u64 = 10_000_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (u32::try_from(payload.len()).expect("small") << 8 | u32::from(kind)).to_be_bytes().to_vec();
    frame.push(flags);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `:status: 103`, as HPACK has it without a table.
fn hint() -> Vec<u8> {
    [b"\x08\x03".as_slice(), b"103"].concat()
}

fn h1_floods() -> Vec<(&'static str, Script, Outcome)> {
    let flood = |first: &'static str, again: &'static str| Script::Flood(first.into(), again.into());
    vec![
        ("1xx heads", flood("", "HTTP/1.1 100 Continue\r\n\r\n"), Outcome::Protocol),
        ("early hints", flood("", "HTTP/1.1 103 Early Hints\r\nlink: <a>; rel=preload\r\n\r\n"), Outcome::Protocol),
        ("empty lines", flood("", "\r\n"), Outcome::Protocol),
        ("a line without end", flood("HTTP/1.1 200 OK\r\na: ", "b"), Outcome::Protocol),
        ("bad lines", flood("HTTP/1.1 200 OK\r\n", "a : b\r\n"), Outcome::Protocol),
        ("a fold without end", flood("HTTP/1.1 200 OK\r\na: b\r\n", " c\r\n"), Outcome::Protocol),
        ("a body", flood("HTTP/1.1 200 OK\r\n\r\n", "body"), Outcome::Ok),
        ("chunks", flood("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n"), Outcome::Ok),
    ]
}

fn h2_floods() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let setting = [0, 3, 0, 0, 0, 100];
    vec![
        ("PING", frame(6, 0, 0, &[1; 8]), Outcome::Protocol),
        ("SETTINGS", frame(4, 0, 0, &setting), Outcome::Protocol),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 3, 1]), Outcome::Protocol),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1]), Outcome::Protocol),
        ("an unknown kind", frame(0xbe, 0, 0, b"x"), Outcome::Protocol),
        ("1xx HEADERS", frame(1, 4, 1, &hint()), Outcome::Protocol),
        ("CONTINUATION", [frame(1, 0, 1, &hint()), frame(9, 0, 1, b"").repeat(1_000)].concat(), Outcome::Protocol),
    ]
}

#[tokio::test]
async fn p10_a_flood_ends_its_own_attempt_and_no_more() {
    let good = Receiver::start_on_thread();
    let world = world();
    for (name, script, outcome) in h1_floods() {
        let bad = Receiver::builder().script(script).start_on_thread();
        let (bad_url, good_url) = (bad.url("/"), good.url("/"));
        // More of them at once than a runtime looks at in one go.
        let (floods, healthy) = tokio::join!(join_all((0..40).map(|_| world.post(&bad_url))), async {
            bad.wait_for(1).await;
            join_all((0..20).map(|_| world.post(&good_url))).await
        });
        for exchange in &floods {
            assert_eq!(exchange.outcome, outcome, "{name}: {}", error(exchange));
        }
        assert!(healthy.iter().all(|exchange| exchange.outcome == Outcome::Ok), "{name}");
        bad.wait_closed().await;
        assert!(bad.bytes_sent() < 40 * BUFFERS, "{name}: {}", bad.bytes_sent());
    }
}

#[tokio::test]
async fn p10_a_flood_of_frames_ends_its_connection() {
    let ca = TestCa::new();
    for (name, frames, outcome) in h2_floods() {
        let bad = Receiver::builder().h2_flood(&ca, frames).start_on_thread();
        let world = World::allowing(
            &["127.0.0.1/32", "::1/128"],
            ScriptedResolver::new().name("localhost", &["127.0.0.1"]),
            Some(ca.pem()),
        );
        let exchange = world.post(&bad.url("/")).await;
        assert_eq!((exchange.outcome, exchange.status), (outcome, None), "{name}: {}", error(&exchange));
        bad.wait_closed().await;
        assert!(bad.bytes_sent() < BUFFERS, "{name}: {}", bad.bytes_sent());
    }
}
