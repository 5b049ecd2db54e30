//! Profile `okta`: the rules of Okta's event hooks. Its wire form is not here yet.

use std::borrow::Cow;

use super::standard::{RETRY_AFTER, WAITS};
use super::{Profile, Wire};
use crate::retry::{GoneRule, RetryClass, RetryPolicy};

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

pub(super) struct Okta;

impl Profile for Okta {
    fn name(&self) -> &'static str {
        "okta"
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn wire(&self) -> Option<&dyn Wire> {
        None
    }
}
