//! Heads by the table, and against the parser that reads them afterwards.

use bytes::Bytes;
use http::Request;
use http_body::Body as _;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::account::Account;
use super::answers::Answers;
use super::fault::{Fault, Framing};
use super::frames::Frames;
use super::head::{self, Head};

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// What is read in place of a head made of these lines; `None`: itself.
fn mended(lines: &str) -> Result<Option<String>, Fault> {
    let whole = format!("{OK}{lines}\r\n");
    match head::read(format!("{whole}body").as_bytes())? {
        Head::Whole { len, status, mended } => {
            assert_eq!((len, status), (whole.len(), 200), "{lines:?}");
            Ok(mended.map(|mended| String::from_utf8(mended).expect("text")))
        }
        other => panic!("{lines:?}: {other:?}"),
    }
}

#[test]
fn what_is_good_passes_as_it_is() {
    let long = "x: y\r\n".repeat(100);
    let cases = [
        "",
        "content-length: 2\r\n",
        "Content-Length:2\r\nCONTENT-LENGTH: 2 , 2\r\n",
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\ntransfer-encoding: Chunked\r\n",
        "transfer-encoding: gzip;level=9\r\n",
        "a:\r\nb: \t\r\nc: \u{e4}\u{f6}\tx\r\n",
        "x-content-length: many\r\n",
        "a: b\nc: d\r\n",
        &long,
    ];
    for lines in cases {
        assert_eq!(mended(lines), Ok(None), "{lines:?}");
    }
}

#[test]
fn lines_nobody_needs_are_left_out_or_joined() {
    let cases = [
        ("Set-Cookie: a=b\u{1}c\r\nContent-Length: 2\r\n", "Content-Length: 2\r\n"),
        ("a: 1\r\nb : 2\r\nc: 3\r\n", "a: 1\r\nc: 3\r\n"),
        ("a: 1\r\nno colon here\r\n", "a: 1\r\n"),
        (": no name\r\n", ""),
        ("a\u{7f}b: 1\r\n", ""),
        ("a b: 1\r\n", ""),
        ("x-content-length : 5\r\n", ""),
        // A bare CR ends no line; others may think it does.
        ("a: 1\rContent-Length: 5\r\nb: 2\r\n", "b: 2\r\n"),
        ("a: 1\r\r\nb: 2\r\n", "b: 2\r\n"),
        // Before the first line there is nothing to go on with.
        (" a: 1\r\nb: 2\r\n", "b: 2\r\n"),
        ("a: 1\r\n  two\r\n\tthree \r\nb: 2\r\n", "a: 1 two three\r\nb: 2\r\n"),
        ("a: 1\r\n \r\nb: 2\r\n", "a: 1\r\nb: 2\r\n"),
        ("a:\r\n 1\r\n", "a: 1\r\n"),
        // What is joined to a bad line goes with it, whatever it looks like.
        ("a : 1\r\n Content-Length: 5\r\n", ""),
        ("a: 1\r\n\u{1}\r\n \u{2}\r\n", "a: 1\r\n"),
    ];
    for (lines, left) in cases {
        assert_eq!(mended(lines), Ok(Some(format!("{OK}{left}\r\n"))), "{lines:?}");
    }
    // More than the parser reads, but not more than are left.
    let many = "a : b\r\n".repeat(200) + "c: d\r\n";
    assert_eq!(mended(&many), Ok(Some(format!("{OK}c: d\r\n\r\n"))));
}

#[test]
fn what_frames_the_body_is_strict() {
    use Framing::{Encoding, Length};
    let cases = [
        ("content-length: many\r\n", Fault::Malformed(Length)),
        ("content-length:\r\n", Fault::Malformed(Length)),
        ("content-length: +2\r\n", Fault::Malformed(Length)),
        ("content-length: 2,\r\n", Fault::Malformed(Length)),
        ("content-length: 18446744073709551616\r\n", Fault::Malformed(Length)),
        ("content-length: 2\u{1}\r\n", Fault::Malformed(Length)),
        ("content-length : 2\r\n", Fault::Malformed(Length)),
        (" content-length: 2\r\n", Fault::Malformed(Length)),
        ("content-\u{1}length: 2\r\n", Fault::Malformed(Length)),
        ("x content-length: 2\r\n", Fault::Malformed(Length)),
        ("Content-Length 2\r\n", Fault::Malformed(Length)),
        ("content-length: 2\r x\r\n", Fault::Malformed(Length)),
        ("content-length: 2\r\n 3\r\n", Fault::Folded(Length)),
        ("content-length:\r\n 2\r\n", Fault::Folded(Length)),
        ("content-length: 2\r\na: b\r\ncontent-length: 3\r\n", Fault::LengthsDiffer),
        ("content-length: 2, 3\r\n", Fault::LengthsDiffer),
        ("content-length: 2\r\ntransfer-encoding: chunked\r\n", Fault::LengthAndEncoding),
        ("transfer-encoding: identity\r\ncontent-length: 2\r\n", Fault::LengthAndEncoding),
        ("transfer-encoding: chunked\r\n , gzip\r\n", Fault::Folded(Encoding)),
        ("transfer-encoding: chunked, gzip\r\n", Fault::Malformed(Encoding)),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Fault::Malformed(Encoding)),
        ("transfer-encoding: chunked;x=1\r\n", Fault::Malformed(Encoding)),
        ("transfer-encoding: chun ked\r\n", Fault::Malformed(Encoding)),
        ("transfer-encoding: \u{b}chunked\r\n", Fault::Malformed(Encoding)),
        ("transfer-encoding\t: chunked\r\n", Fault::Malformed(Encoding)),
        ("transfer-encoding:\r\n", Fault::Malformed(Encoding)),
        ("a: b\0c\r\n", Fault::Nul),
        ("a: b\r\n c\0\r\n", Fault::Nul),
        ("a\0: b\r\n", Fault::Nul),
    ];
    for (lines, fault) in cases {
        assert_eq!(mended(lines), Err(fault), "{lines:?}");
    }
    assert_eq!(mended(&"x: y\r\n".repeat(101)), Err(Fault::ManyLines));
    let old = b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(head::read(old), Err(Fault::EncodingInOld));
    assert_eq!(head::read(b"HTTP/1.1 200 O\x01K\r\n\r\n"), Err(Fault::StatusLine));
    assert_eq!(head::read(b"HTTP/1.1 200 O\0K\r\n\r\n"), Err(Fault::Nul));
}

#[test]
fn what_is_no_answer_is_told_apart_from_half_of_one() {
    let whole = "\r\n\nHTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(head::read(&whole.as_bytes()[..end]), Ok(Head::Incomplete), "{end}");
    }
    assert!(matches!(head::read(whole.as_bytes()), Ok(Head::Whole { .. })));
    for foreign in ["SSH-2.0-", "HTTP/2 200\r\n", "HTTP/1.1 2x0", "HTTP/1.1 20", "HTTP/1.1 2000", "<html>", "\0"] {
        let is_foreign = foreign != "HTTP/1.1 20";
        assert_eq!(head::read(foreign.as_bytes()) == Ok(Head::Foreign), is_foreign, "{foreign}");
    }
}

/// What is parsed when `came` arrives in pieces of these sizes.
fn passed(came: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, bool), Fault> {
    let (account, mut answers) = (Account::default(), Answers::new());
    account.begin(1, 0, 0);
    let (mut parsed, mut rest) = (Vec::new(), came);
    for size in pieces.iter().copied().chain([came.len()]) {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        let as_it_is = answers.judge(piece, &account)?;
        parsed.extend_from_slice(&piece[..as_it_is]);
        while let Some(cleared) = answers.take(7) {
            parsed.extend_from_slice(&cleared);
        }
    }
    Ok((parsed, account.is_spoiled()))
}

#[test]
fn heads_before_the_answer_are_counted() {
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    let answer = format!("{OK}content-length: 2\r\n\r\nok");
    for pieces in [&[][..], &[1; 2_000], &[40, 3, 100]] {
        let good = hint.repeat(16) + &answer;
        assert_eq!(passed(good.as_bytes(), pieces), Ok((good.clone().into_bytes(), false)));
        let many = hint.repeat(17) + &answer;
        assert_eq!(passed(many.as_bytes(), pieces), Err(Fault::ManyInterim));
    }
    let large = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(33_000));
    assert_eq!(passed(large.repeat(2).as_bytes(), &[4_096; 100]), Err(Fault::LargeInterim));
    let huge = format!("{OK}a: {}", "x".repeat(70_000));
    assert_eq!(passed(huge.as_bytes(), &[4_096; 100]), Err(Fault::LargeHead));
    // Empty lines are a head that never comes.
    assert_eq!(passed("\r\n".repeat(40_000).as_bytes(), &[4_096; 100]), Err(Fault::LargeHead));
    // Nothing follows a change of protocol.
    let switched = format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{}", hint.repeat(20));
    assert_eq!(passed(switched.as_bytes(), &[]).map(|(parsed, _)| parsed.len()), Ok(switched.len()));
}

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (u32::try_from(payload.len()).expect("small") << 8 | u32::from(kind)).to_be_bytes().to_vec();
    frame.push(4);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn frames_are_counted_by_stream_and_connection() {
    let (head, ping, data) = (frame(1, 1, b"\x88"), frame(6, 0, &[0; 8]), frame(0, 1, b"x"));
    let judged = |frames: &[u8], piece: usize| {
        let (account, mut watch) = (Account::default(), Frames::new());
        account.begin(1, 0, 0);
        frames.chunks(piece).try_for_each(|piece| watch.judge(piece, &account))
    };
    for piece in [1, 8, 9, 10, 4_096] {
        assert_eq!(judged(&head.repeat(18), piece), Ok(()));
        assert_eq!(judged(&head.repeat(19), piece), Err(Fault::ManyInterim));
        assert_eq!(judged(&[frame(1, 0x8000_0001, b"\x88"), head.repeat(18)].concat(), piece), Err(Fault::ManyInterim));
        assert_eq!(judged(&data.repeat(5_000), piece), Ok(()));
        assert_eq!(judged(&ping.repeat(110), piece), Ok(()));
        for kind in 2..12 {
            assert_eq!(judged(&frame(kind, 1, &[0; 8]).repeat(111), piece), Err(Fault::Flood), "{kind}");
        }
        let streams: Vec<u8> = (0..100).flat_map(|stream| frame(1, stream * 2 + 1, b"\x88")).collect();
        assert_eq!(judged(&streams, piece), Err(Fault::Flood), "one was asked for");
    }
    // A thousand requests account for a thousand answers.
    let (account, mut watch) = (Account::default(), Frames::new());
    for request in 0..1_000 {
        account.begin(1, 0, 0);
        let stream = request * 2 + 1;
        let answer =
            [frame(8, 0, &[0; 4]), frame(1, stream, b"\x88"), frame(0, stream, b"x"), frame(8, stream, &[0; 4])];
        assert_eq!(watch.judge(&answer.concat(), &account), Ok(()), "{request}");
    }
}

#[test]
fn a_large_body_may_be_let_through_in_small_pieces() {
    let (account, mut watch) = (Account::default(), Frames::new());
    let update = frame(8, 1, &[0; 4]);
    // Ten requests at once, a mebibyte each, of which a receiver reads 4 KiB at a time.
    for _ in 0..10 {
        account.begin(10, 1 << 20, 0);
    }
    let updates = 10 * 2 * (1 << 20) / (4 << 10);
    assert_eq!(watch.judge(&update.repeat(updates), &account), Ok(()));
    // Then the next one, on the same connection.
    account.begin(1, 256 << 10, 0);
    assert_eq!(watch.judge(&update.repeat(128), &account), Ok(()));
    assert_eq!(watch.judge(&update.repeat(400), &account), Err(Fault::Flood), "nothing is left to let through");
}

/// Lines good and bad, many of which frame the body or look as if they did.
fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("content-length"),
        Just("Content-Length"),
        Just("transfer-encoding"),
        Just("a"),
        Just("content-length "),
        Just(" content-length"),
        Just("content-\u{1}length"),
        Just("transfer-encoding\t"),
        Just(" "),
        Just("\t"),
        Just(""),
    ];
    let colon = prop_oneof![9 => Just(":"), 1 => Just(""), 1 => Just(" :")];
    let value = prop_oneof![
        Just("2"),
        Just(" 2 "),
        Just("3"),
        Just("2,2"),
        Just("chunked"),
        Just("gzip, chunked"),
        Just("chunked, identity"),
        Just("a\rcontent-length: 9"),
        Just("\u{1}"),
        Just("x"),
        Just(""),
    ];
    let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r\r\n"), 1 => Just("\r\n ")];
    (name, colon, value, end).prop_map(|(name, colon, value, end)| format!("{name}{colon}{value}{end}"))
}

/// What hyper makes of an answer: its status, framing lines, and how long it takes the body to be.
type Parsed = (u16, usize, usize, Option<u64>);

/// Lets hyper read `answer`. `None`: it refuses.
fn parsed_by_hyper(answer: Vec<u8>) -> Option<Parsed> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let handshake = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(ours));
        let (mut sender, connection) = handshake.await.expect("nothing is said yet");
        let _driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let sending = sender.send_request(Request::post("/").body(Full::default()).expect("a request"));
        let receiving = async {
            let mut request = [0; 64];
            let _ = theirs.read(&mut request).await;
            theirs.write_all(&answer).await.expect("room");
            drop(theirs);
        };
        let (response, ()) = tokio::join!(sending, receiving);
        let response = response.ok()?;
        let lines = |name: &str| response.headers().get_all(name).iter().count();
        let exact = response.body().size_hint().exact();
        Some((response.status().as_u16(), lines("content-length"), lines("transfer-encoding"), exact))
    })
}

/// Whether a line of the head, as any reader might cut it, bears this name as any reader might see it.
fn may_be_read(head: &str, name: &str) -> bool {
    head.split(['\r', '\n']).skip(1).any(|line| {
        let seen = line.split(':').next().unwrap_or_default();
        let seen: String = seen.chars().filter(|c| c.is_ascii_graphic()).collect();
        seen.eq_ignore_ascii_case(name)
    })
}

proptest! {
    // Enough of them for two framing lines that do not go together.
    #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_judge_and_the_parser_agree(
        lines in prop::collection::vec(line(), 0..5),
        pieces in prop::collection::vec(1_usize..40, 0..12),
    ) {
        let head = format!("{OK}{}\r\n", lines.concat());
        let came = format!("{head}okHTTP/1.1 500 Stray\r\ncontent-length: 0\r\n\r\n");
        let whole = passed(came.as_bytes(), &[]);
        prop_assert_eq!(&passed(came.as_bytes(), &pieces), &whole, "however it arrives");
        let Ok((cleared, spoiled)) = whole else { return Ok(()) };
        prop_assert_eq!(spoiled, cleared != came.as_bytes(), "what was mended is not used again");
        let Ok(Head::Whole { len, status, .. }) = head::read(came.as_bytes()) else {
            return Err(TestCaseError::fail("no head"));
        };
        let Some((read, lengths, encodings, exact)) = parsed_by_hyper(cleared.clone()) else {
            return Err(TestCaseError::fail(format!("refused: {:?}", String::from_utf8_lossy(&cleared))));
        };
        prop_assert_eq!(read, status);
        prop_assert!(lengths == 0 || encodings == 0);
        prop_assert_eq!(exact.is_some(), lengths > 0, "a length that is told is the one that counts");
        // Nothing that might frame the body was lost on the way, unless the connection ends with it.
        let judged = &came[..len];
        for (name, found) in [("content-length", lengths), ("transfer-encoding", encodings)] {
            prop_assert!(found > 0 || spoiled || !may_be_read(judged, name), "{name} is not seen");
        }
    }
}
