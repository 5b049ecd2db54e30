//! Whether a hook's call is made a second time: at most once, and only where it cannot double an
//! effect.

use std::time::Duration;

use super::failure::FailureClass;

/// What is known about a call that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed {
    /// How.
    pub class: FailureClass,
    /// Whether it went over a connection that had been kept idle.
    pub reused_connection: bool,
    /// Whether any byte of the request was written.
    pub request_written: bool,
    /// Whether any byte of an answer was read.
    pub answer_begun: bool,
    /// The status, when one came.
    pub status: Option<u16>,
    /// `Retry-After`, when the answer had one we could read.
    pub retry_after: Option<Duration>,
}

/// Less than this is not divided: neither part would be worth a try.
const DIVISIBLE: Duration = Duration::from_millis(20);

/// How long the first try of a call may take, of `limit` for all of it. A hook that may be asked again
/// when it is silent has its silence noticed while there is time for that.
pub fn first_try(limit: Duration, idempotent: bool) -> Duration {
    if idempotent && limit >= DIVISIBLE { limit / 2 } else { limit }
}

/// After how long to try once more; `None` when the failure stands. `left` is the smaller of what
/// remains of the hook's timeout and of the invocation's budget.
///
/// The cases: nothing was written; a kept connection turned out dead before it answered; 429 or 503
/// with a `Retry-After` that fits; a hook that declares itself idempotent and was silent.
pub fn once_more(attempt: u32, failed: &Failed, idempotent: bool, left: Duration) -> Option<Duration> {
    use FailureClass::*;
    if attempt > 1 {
        return None;
    }
    let wait = match failed.class {
        Status429 | Status5xx if matches!(failed.status, Some(429 | 503)) => failed.retry_after?,
        // Whether it had begun to answer or not.
        Timeout if idempotent => Duration::ZERO,
        _ if failed.answer_begun => return None,
        Connect if !failed.request_written => Duration::ZERO,
        Reset if failed.reused_connection || !failed.request_written => Duration::ZERO,
        Reset if idempotent => Duration::ZERO,
        _ => return None,
    };
    (wait.saturating_add(super::budget::LEAST) <= left).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_allowed_cases_are_tried_again() {
        let base = Failed {
            class: FailureClass::Reset,
            reused_connection: false,
            request_written: true,
            answer_begun: false,
            status: None,
            retry_after: None,
        };
        let with = |class| Failed { class, ..base };
        let status = |class, status, after: Option<u64>| Failed {
            status: Some(status),
            answer_begun: true,
            retry_after: after.map(Duration::from_millis),
            ..with(class)
        };
        let (zero, half) = (Some(Duration::ZERO), Some(Duration::from_millis(500)));
        let rows = [
            (Failed { request_written: false, ..with(FailureClass::Connect) }, false, zero),
            (base, false, None),
            (base, true, zero),
            (Failed { reused_connection: true, ..base }, false, zero),
            (Failed { reused_connection: true, answer_begun: true, ..base }, false, None),
            (with(FailureClass::Timeout), false, None),
            (with(FailureClass::Timeout), true, zero),
            (Failed { answer_begun: true, ..with(FailureClass::Timeout) }, true, zero),
            (Failed { answer_begun: true, ..with(FailureClass::Timeout) }, false, None),
            (status(FailureClass::Status429, 429, Some(500)), false, half),
            (status(FailureClass::Status429, 429, None), false, None),
            (status(FailureClass::Status5xx, 503, Some(500)), false, half),
            (status(FailureClass::Status5xx, 503, Some(5_000)), false, None),
            (status(FailureClass::Status5xx, 500, Some(500)), true, None),
            (status(FailureClass::Status4xx, 400, Some(500)), true, None),
            (with(FailureClass::BadJson), true, None),
            (with(FailureClass::BadAnswer), true, None),
            (with(FailureClass::Dns), true, None),
        ];
        for (failed, idempotent, expected) in rows {
            assert_eq!(once_more(1, &failed, idempotent, Duration::from_secs(1)), expected, "{failed:?} {idempotent}");
            assert_eq!(once_more(2, &failed, idempotent, Duration::from_secs(1)), None);
        }
        assert_eq!(once_more(1, &rows[0].0, false, Duration::ZERO), None);
        let second = Duration::from_secs(1);
        assert_eq!((first_try(second, true), first_try(second, false)), (second / 2, second));
        assert_eq!(first_try(DIVISIBLE / 2, true), DIVISIBLE / 2);
    }
}
