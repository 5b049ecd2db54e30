//! Profile `cryptr`: the rules of Cryptr's webhooks. Its wire form is not here yet.

use std::borrow::Cow;

use super::{Profile, Wire};
use crate::retry::{GoneRule, RETRY_AFTER_CAP_S, RetryAfterRule, RetryClass, RetryPolicy};

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

pub(super) struct Cryptr;

impl Profile for Cryptr {
    fn name(&self) -> &'static str {
        "cryptr"
    }

    fn retry(&self) -> &RetryPolicy {
        &RETRY
    }

    fn wire(&self) -> Option<&dyn Wire> {
        None
    }

    fn auto_disable(&self) -> bool {
        false
    }
}
