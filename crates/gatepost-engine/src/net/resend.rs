//! Requests that may have to go out a second time, within what counts as one.
//!
//! A receiver closes a connection it has kept for us at the very moment a request goes out on it, and
//! nobody can tell whether it was read. On a connection that had served before, and as long as not one
//! byte of an answer has come, that says nothing about the receiver: the request goes out again, at once
//! and once, on a connection of its own. The same where HTTP/2 says that a request was not looked at.
//!
//! Whoever signs must sign again, so the loop is the caller's:
//!
//! ```ignore
//! let mut tries = Tries::within(timeout);
//! let exchange = loop {
//!     let request = OutgoingRequest { fresh: tries.again(), timeout: tries.left(), .. };
//!     if let Some(exchange) = tries.judge(door.send(request).await) {
//!         break exchange;
//!     }
//! };
//! ```
//!
//! Requests that must reach their receiver at most once (a step of a registration at a provider) are sent
//! without it.

use std::error::Error as _;
use std::time::Duration;

use gatepost_core::Timestamp;
use gatepost_core::delivery::Timings;
use h2::Reason;
use tokio::time::Instant;

use super::client::Exchange;

/// Whether a request goes out a second time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resend {
    /// It does not.
    #[default]
    No,
    /// It may, at once and on a fresh connection: nothing was heard of it.
    Due,
    /// It did.
    Done,
}

/// The tries of one request: two at most, within its time.
#[derive(Debug)]
pub struct Tries {
    began: Instant,
    timeout: Duration,
    first: Option<(Timestamp, u32)>,
}

impl Tries {
    /// Of a request that is to be over within `timeout`.
    pub fn within(timeout: Duration) -> Self {
        Tries { began: Instant::now(), timeout, first: None }
    }

    /// Whether the next try is the second: it takes a connection of its own.
    pub fn again(&self) -> bool {
        self.first.is_some()
    }

    /// How long the next try may take.
    pub fn left(&self) -> Duration {
        if self.again() { self.timeout.saturating_sub(self.began.elapsed()) } else { self.timeout }
    }

    /// What came of a try: the outcome, or nothing yet.
    pub fn judge(&mut self, exchange: Exchange) -> Option<Exchange> {
        let Some((started_at, took)) = self.first else {
            let over = exchange.resend != Resend::Due || self.began.elapsed() >= self.timeout;
            if !over {
                self.first = Some((exchange.started_at, exchange.timings.total_us));
            }
            return over.then_some(exchange);
        };
        let timings = Timings { total_us: took.saturating_add(exchange.timings.total_us), ..exchange.timings };
        Some(Exchange { started_at, timings, resend: Resend::Done, ..exchange })
    }
}

/// How HTTP/2 says that a request was not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Untouched {
    /// It may go out again as it was.
    Refused,
    /// It may go out again over HTTP/1.1.
    OnlyHttp1,
    /// It was, or may have been: the receiver ended it, not the connection.
    No,
}

/// What HTTP/2 says of a request that failed like this; nothing when the connection just ended.
pub(super) fn untouched(error: &hyper::Error) -> Option<Untouched> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let Some(h2) = inner.downcast_ref::<h2::Error>() else {
            cause = inner.source();
            continue;
        };
        if !h2.is_remote() {
            return None;
        }
        return match h2.reason() {
            Some(Reason::HTTP_1_1_REQUIRED) => Some(Untouched::OnlyHttp1),
            Some(Reason::REFUSED_STREAM) if h2.is_reset() => Some(Untouched::Refused),
            // Only streams above the last one it tells of end with it (RFC 9113 section 6.8).
            _ if h2.is_go_away() => Some(Untouched::Refused),
            _ => Some(Untouched::No),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use gatepost_core::delivery::Outcome;

    use super::*;

    fn exchange(resend: Resend, at: i64) -> Exchange {
        Exchange {
            started_at: Timestamp::from_micros(at),
            outcome: Outcome::Reset,
            status: None,
            error: None,
            timings: Timings { total_us: 7, ..Timings::default() },
            response: None,
            local_fault: false,
            unusable: false,
            resend,
        }
    }

    #[tokio::test]
    async fn there_is_one_second_try_and_only_where_it_is_due() {
        let minute = Duration::from_secs(60);
        let mut tries = Tries::within(minute);
        assert_eq!((tries.again(), tries.left()), (false, minute));
        assert_eq!(tries.judge(exchange(Resend::No, 1)).map(|e| e.resend), Some(Resend::No));

        let mut tries = Tries::within(minute);
        assert!(tries.judge(exchange(Resend::Due, 1)).is_none());
        assert!(tries.again() && tries.left() <= minute);
        // Cut again: that is what it comes to, told as one.
        let over = tries.judge(exchange(Resend::Due, 2)).expect("it is over");
        assert_eq!((over.resend, over.started_at.as_micros(), over.timings.total_us), (Resend::Done, 1, 14));

        let mut tries = Tries::within(Duration::ZERO);
        assert!(tries.judge(exchange(Resend::Due, 1)).is_some(), "there is no time left");
    }
}
