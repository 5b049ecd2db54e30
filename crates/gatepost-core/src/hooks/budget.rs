//! Time: one budget per invocation, divided so that nobody is starved and nothing outlives it.
//!
//! `budget = min(caller's, point's, 30 s)`; 5 ms of it stay back for writing the answer. A hook gets
//! `min(its timeout, what remains − what later required hooks need at least)`, so a slow hook that
//! may fail cannot take the time of one that must be heard.

use std::time::Duration;

/// No invocation takes longer, whatever caller and point say.
pub const HARD_CAP: Duration = Duration::from_secs(30);
/// What is kept back to write the answer in time.
pub const SAFETY: Duration = Duration::from_millis(5);
/// Less than this is not worth a connection's while.
pub const LEAST: Duration = Duration::from_millis(1);
/// The caller's header, and ours to the receiver: whole milliseconds from now.
pub const TIMEOUT_HEADER: &str = "gatepost-timeout-ms";
/// The loop guard's header: how many invocations led to this one.
pub const HOP_HEADER: &str = "gatepost-hop";
/// An invocation that arrives with more hops is refused.
pub const HOPS_MAX: u32 = 3;

/// Why a header's value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// `gatepost-timeout-ms`.
    #[error("gatepost-timeout-ms must be a whole number of milliseconds above zero")]
    Timeout,
    /// `gatepost-hop` is no number.
    #[error("gatepost-hop must be a whole number")]
    Hop,
    /// `gatepost-hop` is too high: hooks call each other in a circle.
    #[error("gatepost-hop is above 3: a receiver calls the platform, which asks Gatepost again")]
    Loop,
}

/// Reads the caller's `gatepost-timeout-ms`. A number too large for us is simply a long time.
///
/// # Errors
/// Zero, negative, or no whole number.
pub fn read_timeout(text: &str) -> Result<Duration, BadHeader> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadHeader::Timeout);
    }
    match text.parse::<u64>() {
        Ok(0) => Err(BadHeader::Timeout),
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(_) => Ok(HARD_CAP),
    }
}

/// Reads the caller's `gatepost-hop`; absent is 0.
///
/// # Errors
/// No number, or above [`HOPS_MAX`].
pub fn read_hop(text: Option<&str>) -> Result<u32, BadHeader> {
    let Some(text) = text else { return Ok(0) };
    let hop: u32 = text.trim().parse().map_err(|_| BadHeader::Hop)?;
    if hop > HOPS_MAX { Err(BadHeader::Loop) } else { Ok(hop) }
}

/// The time of one invocation. Everything is counted from the moment it began, on a monotonic
/// clock: `elapsed` below is that time so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    total: Duration,
}

/// What one hook asks of the budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Its `timeout_ms`.
    pub timeout: Duration,
    /// Its `min_timeout_ms`.
    pub least: Duration,
    /// Whether its silence refuses the invocation.
    pub required: bool,
}

impl Wish {
    /// What one call gets of `most`. `None`: not worth calling.
    pub fn within(self, most: Duration) -> Option<Duration> {
        let slice = most.min(self.timeout);
        (slice >= LEAST).then_some(slice)
    }
}

impl Budget {
    /// From the caller's wish, if any, and the point's limit.
    pub fn new(caller: Option<Duration>, max_total: Duration) -> Self {
        Budget { total: caller.unwrap_or(max_total).min(max_total).min(HARD_CAP) }
    }

    /// The whole of it, as told in `budget_ms`.
    pub fn total(self) -> Duration {
        self.total
    }

    /// When the last receiver must have answered.
    pub fn deadline(self) -> Duration {
        self.total.saturating_sub(SAFETY)
    }

    /// What is left for receivers.
    pub fn remaining(self, elapsed: Duration) -> Duration {
        self.deadline().saturating_sub(elapsed)
    }

    /// How long one hook may take, given what hooks after it need at least. `None`: not worth
    /// calling; that is a failure of class `budget`.
    ///
    /// When there is not enough for everybody, required hooks share what there is in proportion to
    /// their least, and the others are left out.
    pub fn share(self, elapsed: Duration, wish: Wish, reserve: Duration) -> Option<Duration> {
        wish.within(self.most(elapsed, wish, reserve))
    }

    /// How long one hook may take with waiting for a place to ask it: its share, whatever its timeout.
    pub fn most(self, elapsed: Duration, wish: Wish, reserve: Duration) -> Duration {
        let remaining = self.remaining(elapsed);
        let free = remaining.saturating_sub(reserve);
        if wish.required && free < wish.least {
            let needed = wish.least.saturating_add(reserve);
            let part = if needed.is_zero() { 1.0 } else { wish.least.as_secs_f64() / needed.as_secs_f64() };
            free.max(remaining.mul_f64(part.clamp(0.0, 1.0))).min(remaining)
        } else {
            free
        }
    }
}

/// What later hooks need at least: hooks asked one after another add up, hooks asked at once need
/// only as long as the longest of them. Only required ones count.
pub fn reserve(later: impl IntoIterator<Item = (Vec<Wish>, Concurrency)>) -> Duration {
    later.into_iter().fold(Duration::ZERO, |sum, (wishes, concurrency)| {
        let least = wishes.iter().filter(|wish| wish.required).map(|wish| wish.least);
        let need = match concurrency {
            Concurrency::Serial => least.fold(Duration::ZERO, Duration::saturating_add),
            Concurrency::Parallel => least.max().unwrap_or_default(),
        };
        sum.saturating_add(need)
    })
}

/// Whether a group of hooks is asked one after another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Concurrency {
    /// One after another.
    Serial,
    /// All at once.
    Parallel,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn wish(timeout: u64, least: u64, required: bool) -> Wish {
        Wish { timeout: ms(timeout), least: ms(least), required }
    }

    #[test]
    fn the_callers_header() {
        for (text, result) in [
            ("1500", Ok(ms(1500))),
            (" 50 ", Ok(ms(50))),
            ("99999999999999999999999999", Ok(HARD_CAP)),
            ("0", Err(BadHeader::Timeout)),
            ("-5", Err(BadHeader::Timeout)),
            ("+5", Err(BadHeader::Timeout)),
            ("1.5", Err(BadHeader::Timeout)),
            ("", Err(BadHeader::Timeout)),
            ("soon", Err(BadHeader::Timeout)),
        ] {
            assert_eq!(read_timeout(text), result, "{text}");
        }
        assert_eq!(read_hop(None), Ok(0));
        assert_eq!(read_hop(Some("3")), Ok(3));
        assert_eq!(read_hop(Some("4")), Err(BadHeader::Loop));
        assert_eq!(read_hop(Some("x")), Err(BadHeader::Hop));
    }

    #[test]
    fn the_smallest_of_caller_point_and_cap() {
        for (caller, point, total) in [
            (None, 3_000, 3_000),
            (Some(1_500), 3_000, 1_500),
            (Some(60_000), 3_000, 3_000),
            (Some(60_000), 60_000, 30_000),
            (Some(1), 3_000, 1),
        ] {
            assert_eq!(Budget::new(caller.map(ms), ms(point)).total(), ms(total));
        }
    }

    #[test]
    fn a_slow_fail_open_hook_leaves_the_required_one_its_reserve() {
        let budget = Budget::new(Some(ms(1_000)), ms(3_000));
        let slow = budget.share(Duration::ZERO, wish(30_000, 100, false), ms(400)).unwrap();
        assert_eq!(slow, ms(595));
        let required = budget.share(slow, wish(1_000, 400, true), Duration::ZERO).unwrap();
        assert_eq!(required, ms(400));
    }

    #[test]
    fn when_it_is_not_enough_required_hooks_share_and_others_wait() {
        let budget = Budget::new(Some(ms(105)), ms(3_000));
        assert_eq!(budget.share(Duration::ZERO, wish(1_000, 100, false), ms(100)), None);
        assert_eq!(budget.share(Duration::ZERO, wish(1_000, 100, true), ms(100)), Some(ms(50)));
        assert_eq!(budget.share(ms(101), wish(1_000, 100, true), Duration::ZERO), None);
    }

    #[test]
    fn serial_reserves_add_up_and_parallel_ones_do_not() {
        let group = || vec![wish(1, 100, true), wish(1, 300, true), wish(1, 5_000, false)];
        assert_eq!(reserve([(group(), Concurrency::Serial)]), ms(400));
        assert_eq!(reserve([(group(), Concurrency::Parallel)]), ms(300));
        assert_eq!(reserve([(group(), Concurrency::Serial), (group(), Concurrency::Parallel)]), ms(700));
    }

    proptest! {
        #[test]
        fn p9_no_share_is_above_what_the_caller_gave(
            caller in proptest::option::of(0u64..40_000),
            point in 0u64..40_000,
            hooks in proptest::collection::vec((1u64..40_000, 0u64..2_000, any::<bool>(), 0u64..1_500), 0..12),
        ) {
            let budget = Budget::new(caller.map(ms), ms(point));
            let mut elapsed = Duration::ZERO;
            for (i, (timeout, least, required, _)) in hooks.iter().enumerate() {
                let later = hooks[i + 1..].iter().map(|(t, l, r, _)| wish(*t, *l, *r)).collect();
                let reserve = reserve([(later, Concurrency::Serial)]);
                if let Some(share) = budget.share(elapsed, wish(*timeout, *least, *required), reserve) {
                    prop_assert!(share >= LEAST && share <= ms(*timeout));
                    elapsed += share;
                }
                // The worst receivers there are: each takes all it is given.
                prop_assert!(elapsed <= budget.deadline());
            }
            prop_assert!(budget.total() <= HARD_CAP && budget.total() <= ms(point));
            if let Some(caller) = caller {
                prop_assert!(elapsed <= ms(caller));
            }
        }

        #[test]
        fn a_required_hook_is_left_out_only_when_time_is_up(
            total in 6u64..30_000, earlier in 1u64..40_000, least in 1u64..2_000,
        ) {
            let budget = Budget::new(Some(ms(total)), ms(30_000));
            let slow = budget.share(Duration::ZERO, wish(earlier, 100, false), ms(least)).unwrap_or_default();
            prop_assert!(budget.share(slow, wish(30_000, least, true), Duration::ZERO).is_some());
        }
    }
}
