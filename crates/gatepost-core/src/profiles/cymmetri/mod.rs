//! Profile `cymmetri`: Cymmetri's notify hooks. One base URL, a path per event, and a token for the one
//! request it comes with. (Its blocking hooks are [`crate::hooks`]' dialect of the same name.)

mod options;
mod scheme;

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::format::Format;
use super::scheme::Scheme;
use super::standard::{EVERYTHING, RETRY_AFTER, WAITS, concat};
use super::verification::Answer;
use super::{DefaultVerification, Folder, Probe, Profile, RenderFacts};
use crate::event::EventType;
use crate::retry::{GoneRule, RetryPolicy};

/// As `standard`, with a shorter timeout.
const RETRY: RetryPolicy = RetryPolicy {
    waits: Cow::Borrowed(&WAITS),
    exact_waits: 0,
    jitter: 0.1,
    retry_on: Cow::Borrowed(EVERYTHING),
    gone: GoneRule::Disable,
    retry_after: RETRY_AFTER,
    timeout_ms: 10_000,
};

pub(super) const FOLDER: Folder =
    Folder { profile: Some(&Cymmetri), formats: &[&Cymmetri], schemes: &[&scheme::Cymmetri], ..Folder::EMPTY };

const NAME: &str = "cymmetri";
/// The family its types are in; a type's path is what follows.
const FAMILY: &str = "cymmetri.";
/// The type of the connection check, whose body has no `request`.
const TEST: &str = "cymmetri.test";

struct Cymmetri;

impl Profile for Cymmetri {
    fn name(&self) -> &'static str {
        NAME
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn format(&self) -> Option<&'static dyn Format> {
        Some(&Cymmetri)
    }

    fn schemes(&self) -> &'static [&'static dyn Scheme] {
        &[&scheme::Cymmetri]
    }

    fn verification(&self) -> DefaultVerification {
        DefaultVerification { mode: "post", required: false }
    }

    fn by_path(&self) -> bool {
        true
    }

    fn default_path<'t>(&self, event_type: &'t EventType) -> Option<&'t str> {
        event_type.as_str().strip_prefix(FAMILY).filter(|path| !path.contains('.'))
    }

    /// "Save & test".
    fn probe(&self) -> Option<Probe> {
        Some(Probe { path: "/test", body: b"{}", judge })
    }

    fn callback_minutes(&self, options: &Map<String, Value>) -> Option<u32> {
        options::callback_minutes(options)
    }

    fn check_options(&self, options: &Map<String, Value>) -> Vec<(String, String)> {
        options::check(options)
    }
}

/// The document shows `{"response":{}}`; nothing at all, or nothing in it, is a yes too.
fn judge(answer: &Answer<'_>) -> Result<(), String> {
    answer.ok()?;
    let wanted = "wanted is {\"response\":{}}";
    let Some(body) = answer.json().map_err(|why| format!("{why}; {wanted}"))? else { return Ok(()) };
    let Value::Object(members) = body else { return Err(format!("the answer is no object; {wanted}")) };
    match members.get("response") {
        None if members.is_empty() => Ok(()),
        Some(Value::Object(_)) => Ok(()),
        _ => Err(format!("the answer has no object response; {wanted}")),
    }
}

impl Format for Cymmetri {
    fn name(&self) -> &'static str {
        NAME
    }

    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        if facts.item.event.event_type.as_str() == TEST {
            return Bytes::from_static(b"{}");
        }
        let data = facts.item.data.as_deref().unwrap_or(b"null");
        concat(&[b"{\"request\":", data, b"}"])
    }
}

#[cfg(test)]
mod tests;
