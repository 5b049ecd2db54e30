//! Profile `cryptr`: webhooks as Cryptr sends them.
//!
//! Its document leaves open how the signature is made and what `v0` is for: what is here (`t` and the
//! raw body, the key's text as it is printed, `v0` while a rotation overlaps) is Gatepost's definition.

mod fake;
mod scheme;

use std::borrow::Cow;

use bytes::Bytes;

use super::foreign::{base62, fixed, from_base62};
use super::format::Format;
use super::scheme::Scheme;
use super::standard::concat;
use super::{Folder, Profile, RenderFacts};
use crate::event::EventType;
use crate::json::members;
use crate::retry::{GoneRule, RETRY_AFTER_CAP_S, RetryAfterRule, RetryClass, RetryPolicy};
use crate::{Timestamp, WebhookId};

/// Cryptr's table is exact: 5, 10, 20, 60 and 120 minutes. Silence is final there.
const RETRY: RetryPolicy = RetryPolicy {
    waits: Cow::Borrowed(&[300.0, 600.0, 1_200.0, 3_600.0, 7_200.0]),
    exact_waits: 0,
    jitter: 0.0,
    retry_on: Cow::Borrowed(&[RetryClass::S3xx, RetryClass::S4xx, RetryClass::S5xx]),
    gone: GoneRule::Cancel,
    retry_after: RetryAfterRule { statuses: Cow::Borrowed(&[503]), cap_s: RETRY_AFTER_CAP_S, replaces: true },
    timeout_ms: 10_000,
};

pub(super) const FOLDER: Folder = Folder {
    profile: Some(&Cryptr),
    formats: &[&Cryptr],
    schemes: &[&scheme::Cryptr],
    reserved: &["cryptr-signature"],
    ..Folder::EMPTY
};

/// The profile's name.
pub const NAME: &str = "cryptr";

const ID_PREFIX: &str = "webhook_";
/// A KSUID's seconds begin here (2014-05-13T16:53:20Z).
const KSUID_EPOCH: i64 = 1_400_000_000;
/// Characters of a KSUID: 20 bytes in base 62.
const KSUID_LEN: usize = 27;

struct Cryptr;

impl Profile for Cryptr {
    fn name(&self) -> &'static str {
        NAME
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn format(&self) -> Option<&'static dyn Format> {
        Some(&Cryptr)
    }

    fn schemes(&self) -> &'static [&'static dyn Scheme] {
        &[&scheme::Cryptr]
    }

    fn auto_disable(&self) -> bool {
        false
    }

    fn example_attributes(&self, event_type: &EventType) -> Option<Bytes> {
        fake::attributes(event_type)
    }

    /// `webhook_` and a KSUID: the id's second, and its 16 bytes where chance would be.
    fn native_id(&self, id: WebhookId) -> String {
        let bytes = id.to_bytes();
        let mut ksuid = [0; 20];
        ksuid[..4].copy_from_slice(&ksuid_second(bytes).to_be_bytes());
        ksuid[4..].copy_from_slice(&bytes);
        format!("{ID_PREFIX}{}", base62(&ksuid, KSUID_LEN))
    }

    fn parse_native_id(&self, text: &str) -> Option<WebhookId> {
        let ksuid = text.strip_prefix(ID_PREFIX).filter(|ksuid| ksuid.len() == KSUID_LEN)?;
        let ksuid: [u8; 20] = from_base62(ksuid)?;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&ksuid[4..]);
        // One spelling per webhook.
        (ksuid[..4] == ksuid_second(bytes).to_be_bytes()).then(|| WebhookId::from_bytes(bytes))
    }
}

/// The second an id was made in, as KSUIDs count.
fn ksuid_second(id: [u8; 16]) -> u32 {
    let mut millis = [0; 8];
    millis[2..].copy_from_slice(&id[..6]);
    let second = i64::try_from(u64::from_be_bytes(millis)).map_or(0, |ms| Timestamp::from_millis(ms).as_secs());
    u32::try_from(second - KSUID_EPOCH).unwrap_or(0)
}

impl Format for Cryptr {
    fn name(&self) -> &'static str {
        NAME
    }

    /// The nine members, in the order of the document's sample.
    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        let (event, frame) = (facts.item.event, facts.frame);
        // A JSON object; read by member so that each goes out byte for byte.
        let attributes = event.attributes.as_deref().and_then(members).unwrap_or_default();
        let member = |name: &str| attributes.get(name).and_then(|member| std::str::from_utf8(member.value).ok());
        let tenant = json_text(frame.tenant_id.as_str());
        let domain = member("domain").filter(|raw| raw.starts_with('"')).unwrap_or(&tenant);
        let head = format!(
            "{{\"__domain__\":{domain},\"__environment__\":\"{}\",\"__type__\":\"Event\",\"code\":\"{}\",\"data\":",
            frame.environment.as_str(),
            event.event_type,
        );
        let tail = format!(
            ",\"errors\":{},\"params\":{},\"issued_at\":\"{}\",\"webhook_id\":\"{}\"}}",
            member("errors").unwrap_or("null"),
            member("params").unwrap_or("{}"),
            fixed(event.timestamp, 6),
            self.native_id(frame.webhook_id),
        );
        let data = facts.item.data.as_deref().unwrap_or(b"null");
        concat(&[head.as_bytes(), data, tail.as_bytes()])
    }
}

fn json_text(text: &str) -> String {
    // A text always serialises.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
