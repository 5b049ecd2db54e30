//! Profile `ferriskey`: the rules of FerrisKey's webhooks. Its wire form is not here yet.

use std::borrow::Cow;

use super::standard::{RETRY_AFTER, WAITS};
use super::{Profile, Wire};
use crate::retry::{GoneRule, RetryClass, RetryPolicy};

/// A fast phase without jitter (0.5, 1, 2, 4 s), then the standard list.
const RETRY: RetryPolicy = RetryPolicy {
    waits: Cow::Borrowed(&[
        0.5, 1.0, 2.0, 4.0, WAITS[0], WAITS[1], WAITS[2], WAITS[3], WAITS[4], WAITS[5], WAITS[6], WAITS[7], WAITS[8],
    ]),
    exact_waits: 4,
    jitter: 0.1,
    retry_on: Cow::Borrowed(&[
        RetryClass::Timeout,
        RetryClass::Transport,
        RetryClass::Status(408),
        RetryClass::Status(429),
        RetryClass::S5xx,
    ]),
    gone: GoneRule::Final,
    retry_after: RETRY_AFTER,
    timeout_ms: 10_000,
};

pub(super) struct FerrisKey;

impl Profile for FerrisKey {
    fn name(&self) -> &'static str {
        "ferriskey"
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn wire(&self) -> Option<&dyn Wire> {
        None
    }
}
