//! What acceptance and delivery share on one machine (DESIGN 8): publishers wait, and are refused in the
//! end, before deliveries starve.
//!
//! Two piles tell that publishers outrun deliveries: what was accepted and the lane has not even looked
//! at, and what it did and could not record yet. While one of them is high, publishing waits for the
//! lane to work it off. A long backlog in the store is no reason to wait: that is what a queue is for.
//!
//! The other way round the lane takes short rests while much waits to be written down. It would keep a
//! core busy all the time, and the writer would share what is left with everybody else; what is accepted
//! is safe and can wait a moment, its publisher cannot.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Deliveries the lane has not looked at: above this publishers wait.
const UNSEEN: usize = 8_192;
/// Events that wait to be written down: above this the lane takes rests. A few hundred publishers of single
/// events stay below: resting would only delay their deliveries.
const UNWRITTEN: usize = 256;

/// See the module. A few loads where there is nothing to wait for.
#[derive(Default)]
pub(crate) struct Budget {
    unseen: AtomicUsize,
    unrecorded: AtomicBool,
    /// Events handed to the store and not written down yet, by callers that still wait.
    unwritten: AtomicUsize,
    eased: Notify,
}

/// Events being written down, as long as it lives.
#[must_use]
pub(crate) struct Writing<'a> {
    budget: &'a Budget,
    events: usize,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.budget.unwritten.fetch_sub(self.events, Ordering::Relaxed);
    }
}

impl Budget {
    /// So many deliveries wait for the lane to look at them.
    pub(super) fn unseen(&self, deliveries: usize) {
        let before = self.unseen.swap(deliveries, Ordering::Relaxed);
        if before > UNSEEN && deliveries <= UNSEEN {
            self.eased.notify_waiters();
        }
    }

    /// Whether much of what was done is not recorded yet.
    pub(super) fn unrecorded(&self, much: bool) {
        if self.unrecorded.swap(much, Ordering::Relaxed) && !much {
            self.eased.notify_waiters();
        }
    }

    /// So many events are being written down, as long as the answer lives.
    pub(crate) fn writing(&self, events: usize) -> Writing<'_> {
        self.unwritten.fetch_add(events, Ordering::Relaxed);
        Writing { budget: self, events }
    }

    /// Whether so much waits to be written down that the lane should take rests.
    pub(super) fn much_to_write(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) > UNWRITTEN
    }

    fn is_tight(&self) -> bool {
        self.unseen.load(Ordering::Relaxed) > UNSEEN || self.unrecorded.load(Ordering::Relaxed)
    }

    /// Whether something may be accepted now, without [waiting](Budget::wait).
    pub(crate) fn is_free(&self) -> bool {
        !self.is_tight()
    }

    /// Waits until something may be accepted, at most for `patience`. Whether it may.
    pub(crate) async fn wait(&self, patience: Duration) -> bool {
        let easing = async {
            loop {
                let eased = self.eased.notified();
                if !self.is_tight() {
                    return;
                }
                eased.await;
            }
        };
        tokio::time::timeout(patience, easing).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn publishers_wait_for_either_pile_and_not_for_ever() {
        let budget = Budget::default();
        assert!(budget.is_free() && budget.wait(PATIENCE).await);
        budget.unseen(UNSEEN);
        assert!(budget.is_free());
        budget.unseen(UNSEEN + 1);
        assert!(!budget.is_free() && !budget.wait(PATIENCE).await, "nobody waits for ever");
        let mut waiting = Box::pin(budget.wait(PATIENCE));
        assert!((&mut waiting).now_or_never().is_none());
        budget.unrecorded(true);
        budget.unseen(0);
        assert!((&mut waiting).now_or_never().is_none(), "one pile is still high");
        budget.unrecorded(false);
        assert_eq!(waiting.now_or_never(), Some(true));
    }

    #[test]
    fn large_writes_and_many_at_once_are_much_to_write() {
        let budget = Budget::default();
        let large = budget.writing(UNWRITTEN);
        assert!(!budget.much_to_write());
        let one_more = budget.writing(1);
        assert!(budget.much_to_write() && budget.is_free());
        drop(large);
        assert!(!budget.much_to_write());
        drop(one_more);
        assert_eq!(budget.unwritten.into_inner(), 0);
    }
}
