//! Profile `okta`: event hooks as Okta sends them. Requests carry no signature: the receiver knows us by
//! the static header of the webhook's `auth`.

pub mod el;
mod log_event;
mod verification;

use std::borrow::Cow;

use bytes::Bytes;

use super::foreign::{base62, fixed, from_base62, uuid_of_delivery};
use super::format::{BatchFormat, FilterData, Format};
use super::standard::{RETRY_AFTER, WAITS, concat};
use super::{BatchFacts, DefaultVerification, Folder, Frame, Item, Profile, RenderFacts};
use crate::retry::{GoneRule, RetryClass, RetryPolicy};
use crate::{Entropy, Timestamp, WebhookId};

/// One retry at once, then the standard list.
const RETRY: RetryPolicy = RetryPolicy {
    waits: Cow::Borrowed(&[
        0.0, WAITS[0], WAITS[1], WAITS[2], WAITS[3], WAITS[4], WAITS[5], WAITS[6], WAITS[7], WAITS[8],
    ]),
    exact_waits: 1,
    jitter: 0.1,
    retry_on: Cow::Borrowed(&[RetryClass::Timeout, RetryClass::Transport, RetryClass::Status(429), RetryClass::S5xx]),
    gone: GoneRule::Final,
    retry_after: RETRY_AFTER,
    timeout_ms: 3_000,
};

pub(super) const FOLDER: Folder = Folder {
    profile: Some(&Okta),
    formats: &[&Okta],
    modes: &[&verification::HeaderChallenge],
    reserved: &["x-okta-"],
    ..Folder::EMPTY
};

/// The profile's name.
pub const NAME: &str = "okta";

/// Where its API is, below the server's own address: what stands for an org's.
pub const API_PATH: &str = "/compat/okta/api/v1/eventHooks";

const ID_PREFIX: &str = "who";
/// Characters of an id after its prefix.
const ID_LEN: usize = 17;
/// Bytes of an id: 6 of milliseconds, 6 of chance. 17 digits in base 62 hold no more than 12 whole bytes.
const ID_BYTES: usize = 12;

struct Okta;

impl Profile for Okta {
    fn name(&self) -> &'static str {
        NAME
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn format(&self) -> Option<&'static dyn Format> {
        Some(&Okta)
    }

    fn verification(&self) -> DefaultVerification {
        DefaultVerification { mode: verification::NAME, required: true }
    }

    fn new_webhook_id(&self, at: Timestamp, entropy: &dyn Entropy) -> WebhookId {
        let mut bytes = WebhookId::new(at, entropy).to_bytes();
        bytes[6..10].fill(0);
        WebhookId::from_bytes(bytes)
    }

    fn native_id(&self, id: WebhookId) -> String {
        let bytes = id.to_bytes();
        let mut short = [0; ID_BYTES];
        short[..6].copy_from_slice(&bytes[..6]);
        short[6..].copy_from_slice(&bytes[10..]);
        format!("{ID_PREFIX}{}", base62(&short, ID_LEN))
    }

    fn parse_native_id(&self, text: &str) -> Option<WebhookId> {
        let short = text.strip_prefix(ID_PREFIX).filter(|rest| rest.len() == ID_LEN)?;
        let short: [u8; ID_BYTES] = from_base62(short)?;
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&short[..6]);
        bytes[10..].copy_from_slice(&short[6..]);
        Some(WebhookId::from_bytes(bytes))
    }
}

impl Format for Okta {
    fn name(&self) -> &'static str {
        NAME
    }

    fn accept(&self) -> Option<&'static str> {
        Some("application/json")
    }

    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        envelope(std::slice::from_ref(facts.item), facts.frame)
    }

    fn batch(&self) -> Option<&dyn BatchFormat> {
        Some(self)
    }

    fn filter_data(&self) -> Option<FilterData> {
        Some(log_event::filter_data)
    }
}

impl BatchFormat for Okta {
    fn body(&self, facts: &BatchFacts<'_>) -> Bytes {
        envelope(facts.items, facts.frame)
    }
}

/// One envelope, whether for one event or for many: `eventId` is the delivery's, and so the same for
/// every attempt.
fn envelope(items: &[Item<'_>], frame: &Frame<'_>) -> Bytes {
    let source = format!("{}{API_PATH}/{}", frame.public_url, Okta.native_id(frame.webhook_id));
    let mut events = vec![b'['];
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            events.push(b',');
        }
        events.extend_from_slice(&log_event::of(item, frame));
    }
    events.push(b']');
    let mut out = Vec::with_capacity(512 + events.len());
    out.push(b'{');
    let mut put = |name: &str, value: &str| {
        // A text always serialises.
        log_event::push(&mut out, name, serde_json::to_string(value).unwrap_or_default().as_bytes());
    };
    put("eventType", "com.okta.event_hook");
    put("eventTypeVersion", "1.0");
    put("cloudEventsVersion", "0.1");
    put("source", &source);
    put("eventId", &uuid_of_delivery(frame.delivery).to_string());
    put("eventTime", &fixed(frame.created_at, 3));
    put("contentType", "application/json");
    log_event::push(&mut out, "data", &concat(&[b"{\"events\":", &events, b"}"]));
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests;
