//! The lane's rests while much waits to be written down; see [`Budget`].

use std::time::Duration;

use tokio::time::Instant;

use super::budget::Budget;

/// After so much work the lane rests, for so long (the timer makes it up to a millisecond more): about a
/// third more is accepted by it, and up to a tenth less delivered meanwhile (docs/performance.md).
const WORK: Duration = Duration::from_millis(3);
const REST: Duration = Duration::from_millis(1);

/// Since when the lane has been at work.
pub(super) struct Shift(Instant);

impl Shift {
    /// It begins now.
    pub(super) fn begin() -> Self {
        Shift(Instant::now())
    }

    /// The lane had nothing to do since then, until now: a wait as long as a rest is one.
    pub(super) fn waited(&mut self, since: Instant) {
        if since.elapsed() >= REST {
            *self = Shift::begin();
        }
    }

    /// Rests, if it is time and anybody gains by it.
    pub(super) async fn rest(&mut self, budget: &Budget) {
        if budget.much_to_write() && self.0.elapsed() >= WORK {
            tokio::time::sleep(REST).await;
            *self = Shift::begin();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// How long it rests now.
    async fn rested(shift: &mut Shift, budget: &Budget) -> Duration {
        let began = Instant::now();
        shift.rest(budget).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_follows_work_while_much_waits_to_be_written() {
        let budget = Budget::default();
        let mut shift = Shift::begin();
        advance(WORK).await;
        assert_eq!(rested(&mut shift, &budget).await, Duration::ZERO, "nobody would gain by it");
        let _much = budget.writing(1_000);
        let rest = rested(&mut shift, &budget).await;
        assert!((REST..REST * 3).contains(&rest), "{rest:?}");
        assert_eq!(rested(&mut shift, &budget).await, Duration::ZERO, "it has just rested");
        advance(WORK - REST).await;
        assert_eq!(rested(&mut shift, &budget).await, Duration::ZERO, "not yet");
        advance(REST).await;
        assert!(rested(&mut shift, &budget).await >= REST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_had_to_wait_needs_no_rest() {
        let budget = Budget::default();
        let _much = budget.writing(1_000);
        let mut shift = Shift::begin();
        let idle = Instant::now();
        advance(WORK).await;
        shift.waited(idle);
        assert_eq!(rested(&mut shift, &budget).await, Duration::ZERO);
        advance(WORK).await;
        shift.waited(Instant::now());
        assert!(rested(&mut shift, &budget).await >= REST, "that was no wait");
    }
}
