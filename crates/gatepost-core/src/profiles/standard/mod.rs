//! Profile `standard`: plain JSON, signed as Standard Webhooks 1.0.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Profile, RenderFacts, SignFacts, Wire};
use crate::retry::{GoneRule, RETRY_AFTER_CAP_S, RetryAfterRule, RetryClass, RetryPolicy};
use crate::signing::{self, Signer};

/// 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: the schedule Standard Webhooks advises.
pub(super) const WAITS: [f64; 9] = [5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0];

/// Everything that is not a yes is tried again.
pub(super) const EVERYTHING: &[RetryClass] =
    &[RetryClass::Timeout, RetryClass::Transport, RetryClass::S3xx, RetryClass::S4xx, RetryClass::S5xx];

/// Retry-After is heard on 429 and 503 and only ever makes a wait longer.
pub(super) const RETRY_AFTER: RetryAfterRule =
    RetryAfterRule { statuses: Cow::Borrowed(&[429, 503]), cap_s: RETRY_AFTER_CAP_S, replaces: false };

/// The policy of `standard`.
pub(super) const RETRY: RetryPolicy = RetryPolicy {
    waits: Cow::Borrowed(&WAITS),
    exact_waits: 0,
    jitter: 0.1,
    retry_on: Cow::Borrowed(EVERYTHING),
    gone: GoneRule::Disable,
    retry_after: RETRY_AFTER,
    timeout_ms: 15_000,
};

pub(super) struct Standard;

impl Profile for Standard {
    fn name(&self) -> &'static str {
        "standard"
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn wire(&self) -> Option<&dyn Wire> {
        Some(self)
    }
}

impl Wire for Standard {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        let event = facts.event;
        let timestamp = event.timestamp.to_string();
        let subject = subject_json(event.subject.as_ref());
        // Ids, types and times hold nothing JSON would escape: their grammars see to that.
        let mut parts: [&[u8]; 10] = [
            b"{\"id\":\"",
            event.id.as_str().as_bytes(),
            b"\",\"type\":\"",
            event.event_type.as_str().as_bytes(),
            b"\",\"timestamp\":\"",
            timestamp.as_bytes(),
            b"\"",
            b"",
            b",\"data\":",
            &event.data,
        ];
        parts[7] = subject.as_bytes();
        concat(&parts, b"}")
    }

    fn signed_headers(&self) -> &'static [&'static str] {
        &STANDARD_HEADERS
    }

    fn sign(&self, signer: &Signer, facts: &SignFacts<'_>, headers: &mut Vec<(&'static str, String)>) {
        sign_standard(signer, facts, headers);
    }
}

/// `,"subject":{…}`, or nothing.
fn subject_json(subject: Option<&crate::event::Subject>) -> String {
    let Some(subject) = subject else { return String::new() };
    // Two strings always serialise.
    let object = serde_json::to_string(subject).unwrap_or_default();
    format!(",\"subject\":{object}")
}

/// The parts and an end, in one exact allocation.
pub(super) fn concat(parts: &[&[u8]], end: &[u8]) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum::<usize>() + end.len();
    let mut out = BytesMut::with_capacity(len);
    for part in parts {
        out.put_slice(part);
    }
    out.put_slice(end);
    out.freeze()
}

/// The headers of Standard Webhooks.
pub(super) const STANDARD_HEADERS: [&str; 3] =
    [signing::ID_HEADER, signing::TIMESTAMP_HEADER, signing::SIGNATURE_HEADER];

/// The three headers of Standard Webhooks.
pub(super) fn sign_standard(signer: &Signer, facts: &SignFacts<'_>, headers: &mut Vec<(&'static str, String)>) {
    let seconds = facts.now.as_secs();
    headers.push((signing::ID_HEADER, facts.message_id.to_owned()));
    headers.push((signing::TIMESTAMP_HEADER, seconds.to_string()));
    headers.push((signing::SIGNATURE_HEADER, signer.sign(facts.message_id, seconds, facts.body, facts.now)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Subject, Urgency};
    use crate::secret::Secret;
    use crate::webhook::SigningKey;
    use crate::{EventSeq, TenantKey, Timestamp};

    fn event(subject: Option<Subject>, data: &'static [u8]) -> Event {
        Event {
            seq: EventSeq(7),
            tenant: TenantKey(1),
            id: "evt:1/a".parse().unwrap(),
            event_type: "user.created".parse().unwrap(),
            timestamp: "2026-11-22T10:00:00.5Z".parse().unwrap(),
            accepted_at: Timestamp::from_secs(1),
            subject,
            urgency: Urgency::Normal,
            attributes: None,
            data: Bytes::from_static(data),
            registry_version: 1,
        }
    }

    fn body(event: &Event) -> Bytes {
        Standard.body(&RenderFacts { event, tenant_id: &"acme".parse().unwrap() })
    }

    #[test]
    fn p3_the_body_has_the_promised_members_and_the_data_bytes_as_given() {
        let raw = b"{ \"b\":1.00, \"a\":\"\\u00e9\", \"b\" : 2e400 }";
        let subject = Subject { kind: Some("user".into()), id: "u\"1\n".into() };
        let with = body(&event(Some(subject), raw));
        assert_eq!(
            with,
            [
                br#"{"id":"evt:1/a","type":"user.created","timestamp":"2026-11-22T10:00:00.5Z","#.as_slice(),
                br#""subject":{"type":"user","id":"u\"1\n"},"data":"#,
                raw,
                b"}"
            ]
            .concat()
        );
        let bare = Subject { kind: None, id: "7".into() };
        assert!(body(&event(Some(bare), b"null")).ends_with(b",\"subject\":{\"id\":\"7\"},\"data\":null}"));
        let without = body(&event(None, b"[]"));
        assert_eq!(
            &without[..],
            br#"{"id":"evt:1/a","type":"user.created","timestamp":"2026-11-22T10:00:00.5Z","data":[]}"#
        );
        serde_json::from_slice::<serde_json::Value>(&without).unwrap();
    }

    #[test]
    fn an_attempt_carries_the_three_headers_and_a_second_library_verifies_them() {
        let text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let key = SigningKey { text: Secret::new(text), created_at: Timestamp::EPOCH, expires_at: None };
        let signer = Signer::new(&[key]).unwrap();
        let body = body(&event(None, b"{}"));
        let now = Timestamp::from_millis(1_614_265_330_999);
        let mut headers = Vec::new();
        Standard.sign(&signer, &SignFacts { message_id: "evt:1/a", now, body: &body }, &mut headers);
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["webhook-id", "webhook-timestamp", "webhook-signature"]);
        assert_eq!((&*headers[0].1, &*headers[1].1), ("evt:1/a", "1614265330"));
        let theirs = standardwebhooks::Webhook::new(text).unwrap();
        assert_eq!(headers[2].1, theirs.sign("evt:1/a", 1_614_265_330, &body).unwrap());
    }
}
