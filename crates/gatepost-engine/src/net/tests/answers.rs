//! Answers with odd heads, on real connections: which count, and what is told of the others.

use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Receiver, Script};

use super::*;

fn raw(lines: &str) -> Script {
    Script::Raw(format!("HTTP/1.1 200 OK\r\n{lines}\r\nok").into())
}

#[tokio::test]
async fn a_line_nobody_needs_costs_no_answer_and_ends_the_connection() {
    let receiver = Receiver::start();
    let world = world();
    let cases = [
        ("Set-Cookie: a=b\u{1}c\r\nContent-Length: 2\r\n", ("set-cookie", None)),
        ("a : b\r\nContent-Length: 2\r\n", ("a", None)),
        ("no colon here\r\nContent-Length: 2\r\n", ("no colon here", None)),
        ("x-long: one\r\n  two\r\nContent-Length: 2\r\n", ("x-long", Some("one two"))),
    ];
    for (number, (lines, (name, value))) in cases.into_iter().enumerate() {
        receiver.script(raw(lines));
        let exchange = world.post(&receiver.url("/")).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)), "{lines:?}: {}", error(&exchange));
        let response = exchange.response.expect("an answer");
        assert_eq!((&response.body[..], response.truncated), (&b"ok"[..], false), "{lines:?}");
        let found = response.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(found, value, "{lines:?}");
        assert_eq!((receiver.connections(), world.client.idle()), (number + 1, 0), "{lines:?}");
    }
    assert_eq!(receiver.count(), 4, "each was sent once");
    receiver.script(raw("Content-Length: 2\r\n"));
    for _ in 0..2 {
        assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::Ok);
    }
    assert_eq!(receiver.connections(), 5, "a good one is used again");
}

#[tokio::test]
async fn what_is_wrong_with_an_answer_is_told() {
    let many = "x: y\r\n".repeat(101);
    let cases = [
        ("content-length: many\r\n", "its Content-Length line is malformed"),
        ("content-length : 2\r\n", "its Content-Length line is malformed"),
        ("content-length:\r\n 2\r\n", "its Content-Length line goes over several lines"),
        ("content-length: 2\r\ncontent-length: 3\r\n", "its Content-Length lines contradict"),
        ("content-length: 2\r\ntransfer-encoding: chunked\r\n", "both Content-Length and Transfer-Encoding"),
        ("transfer-encoding: \u{1}chunked\r\n", "its Transfer-Encoding line is malformed"),
        ("a: b\0c\r\ncontent-length: 2\r\n", "NUL"),
        (&many, "more than 100 header lines"),
    ];
    for (lines, told) in cases {
        let receiver = Receiver::builder().script(raw(lines)).start();
        let exchange = world().post(&receiver.url("/")).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::Protocol, None), "{lines:?}");
        assert!(error(&exchange).contains(told), "{lines:?}: {}", error(&exchange));
        assert!(!error(&exchange).contains("too large"), "{}", error(&exchange));
        receiver.wait_closed().await;
    }
}

/// Each of these tries to have its second answer taken for that of the next request.
#[tokio::test]
async fn an_answer_never_serves_two_requests() {
    const STRAY: &str = "HTTP/1.1 299 Stray\r\ncontent-length: 0\r\n\r\n";
    let length = STRAY.len();
    let tries = [
        "content-length: 0\r\n\r\n".to_owned(),
        "content-length: 0\r\na\u{1}: b\r\n\r\n".to_owned(),
        format!("a: b\rcontent-length: {length}\r\ncontent-length: 0\r\n\r\n"),
        format!("a: b\r\n content-length: {length}\r\ncontent-length: 0\r\n\r\n"),
        format!("content-length : {length}\r\ncontent-length: 0\r\n\r\n"),
        format!("content-length: 0\r\ncontent-length: {length}\r\n\r\n"),
        format!("transfer-encoding\u{b}: chunked\r\ncontent-length: {length}\r\n\r\n0\r\n\r\n"),
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n".to_owned(),
        "content-length: 0\r\n\r\n\r\n".to_owned(),
    ];
    for answer in tries {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}{STRAY}");
        let receiver = Receiver::builder().script(Script::Raw(answer.clone().into())).start();
        let world = world();
        for _ in 0..4 {
            let exchange = world.post(&receiver.url("/")).await;
            assert_ne!(exchange.status, Some(299), "{answer:?}");
        }
        let seen: Vec<usize> = receiver.received().iter().map(|request| request.connection).collect();
        assert_eq!(seen, [1, 2, 3, 4], "{answer:?}: none of these connections is used again");
    }
    // What is mended may be read otherwise by others: the stray one may come when the next request does.
    for lines in [
        "content-length: 0\r\na\u{1}: b\r\n".to_owned(),
        format!("a: b\rcontent-length: {length}\r\ncontent-length: 0\r\n"),
        format!("a: b\r\n content-length: {length}\r\ncontent-length: 0\r\n"),
    ] {
        let first = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let receiver = Receiver::builder().script(Script::Raw(STRAY.into())).start();
        let world = world();
        receiver.next([Script::Raw(first.clone().into())]);
        for _ in 0..2 {
            world.post(&receiver.url("/")).await;
        }
        let seen: Vec<usize> = receiver.received().iter().map(|request| request.connection).collect();
        assert_eq!(seen, [1, 2], "{first:?}: this connection is not used again");
    }
}

#[tokio::test]
async fn an_answer_in_crumbs_is_the_same_answer() {
    let (exchange, _receiver) = {
        let receiver = Receiver::builder().script(Script::Drip(Duration::from_millis(1))).start();
        (world().post(&receiver.url("/")).await, receiver)
    };
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Ok, Some(200)));
    assert_eq!(&exchange.response.expect("an answer").body[..], b"ok");
}
