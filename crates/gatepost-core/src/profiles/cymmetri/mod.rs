//! Profile `cymmetri`: the rules of Cymmetri's notify hooks. Its wire form is not here yet.

use std::borrow::Cow;

use super::standard::{EVERYTHING, RETRY_AFTER, WAITS};
use super::{Profile, Wire};
use crate::retry::{GoneRule, RetryPolicy};

/// As `standard`, with Cymmetri's shorter timeout.
const RETRY: RetryPolicy = RetryPolicy {
    waits: Cow::Borrowed(&WAITS),
    exact_waits: 0,
    jitter: 0.1,
    retry_on: Cow::Borrowed(EVERYTHING),
    gone: GoneRule::Disable,
    retry_after: RETRY_AFTER,
    timeout_ms: 10_000,
};

pub(super) struct Cymmetri;

impl Profile for Cymmetri {
    fn name(&self) -> &'static str {
        "cymmetri"
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn wire(&self) -> Option<&dyn Wire> {
        None
    }
}
