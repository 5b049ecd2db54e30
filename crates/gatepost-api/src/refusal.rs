//! What the HTTP library refuses by itself, in our own form.
//!
//! A head that cannot be read never becomes a request: the library answers it, with a status and nothing
//! else. Every error of ours is `application/problem+json`, so that answer is put in its place on the way out.

use axum::body::Bytes;
use http::StatusCode;

use crate::problem::{ErrorCode, PROBLEM_JSON, Problem};

/// The longest answer the library gives by itself.
const LIBRARY_MAX: usize = 256;

/// What to write instead of `written`, if that is an answer of the library's own: ours name the request.
pub(crate) fn instead_of(written: &[u8], odd_coding: bool) -> Option<Bytes> {
    if written.len() > LIBRARY_MAX || !written.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?.to_ascii_lowercase();
    if head.contains("x-request-id") || !head.contains("content-length: 0\r\n") || !head.ends_with("\r\n\r\n") {
        return None;
    }
    let status: u16 = head.get(9..12)?.parse().ok()?;
    let problem = match status {
        400 if odd_coding => Problem::new(
            ErrorCode::TransferCodingUnknown,
            "of transfer codings only chunked is understood: send it alone",
        ),
        414 => Problem::new(ErrorCode::UriTooLong, "the request's first line is too long"),
        431 => Problem::new(ErrorCode::HeaderFieldsTooLarge, "the request has too many headers, or too large ones"),
        _ => Problem::new(ErrorCode::MalformedRequest, "the head of the request cannot be read as HTTP/1.1 (RFC 9112)"),
    };
    let body = problem.to_bytes();
    let status = problem.status();
    let reason = status.canonical_reason().unwrap_or("Bad Request");
    let mut text = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        body.len()
    )
    .into_bytes();
    text.extend_from_slice(&body);
    debug_assert!(status != StatusCode::OK);
    Some(text.into())
}

/// Whether a piece of a head names a transfer coding that is not `chunked` alone.
pub(crate) fn has_odd_coding(piece: &[u8]) -> bool {
    const NAME: &[u8] = b"transfer-encoding:";
    let mut rest = piece;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        rest = &rest[end + 1..];
        if rest.len() > NAME.len() && matches!(rest[0], b't' | b'T') && rest[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let value = &rest[NAME.len()..];
            let value = &value[..value.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(value.len())];
            return !value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_librarys_answers_become_problems_and_ours_stay() {
        let theirs = |status: &str| {
            format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: Tue, 01 Dec 2026 12:00:00 GMT\r\n\r\n"
            )
        };
        for (given, odd, status, code) in [
            ("400 Bad Request", false, "400", "malformed_request"),
            ("400 Bad Request", true, "501", "transfer_coding_unknown"),
            ("431 Request Header Fields Too Large", false, "431", "header_fields_too_large"),
            ("414 URI Too Long", false, "414", "uri_too_long"),
        ] {
            let text = instead_of(theirs(given).as_bytes(), odd).expect(given);
            let text = String::from_utf8(text.to_vec()).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.contains(code), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
        }
        let ours = "HTTP/1.1 404 Not Found\r\nx-request-id: r\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(instead_of(ours.as_bytes(), false), None);
        assert_eq!(instead_of(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false), None);
        assert_eq!(instead_of(b"\xff\xfe", false), None);
    }

    #[test]
    fn codings_that_are_not_understood() {
        for (head, odd) in [
            ("POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: gzip\r\n\r\n", true),
            ("POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", true),
            ("POST / HTTP/1.1\r\ntransfer-encoding:  Chunked \r\n\r\n", false),
            ("POST / HTTP/1.1\r\nhost: a\r\n\r\n", false),
            ("POST / HTTP/1.1\r\ntransfer-encoding", false),
        ] {
            assert_eq!(has_odd_coding(head.as_bytes()), odd, "{head}");
        }
    }
}
