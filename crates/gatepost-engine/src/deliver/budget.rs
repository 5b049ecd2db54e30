//! What acceptance and delivery share on one machine (DESIGN 8): publishers wait, and are refused in the
//! end, before deliveries starve.
//!
//! Two piles tell that publishers outrun deliveries: what was accepted and the lane has not even looked
//! at, and what it did and could not record yet. While one of them is high, publishing waits for the
//! lane to work it off. A long backlog in the store is no reason to wait: that is what a queue is for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Deliveries the lane has not looked at: above this publishers wait.
const UNSEEN: usize = 8_192;

/// See the module. Two loads where there is nothing to wait for.
#[derive(Default)]
pub(crate) struct Budget {
    unseen: AtomicUsize,
    unrecorded: AtomicBool,
    eased: Notify,
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
}
