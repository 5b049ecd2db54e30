//! Lines of the log that would come in floods.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Milliseconds between two lines.
const APART: u64 = 1_000;

/// Faults of our own that last (no descriptors left, no resolver): everything that is tried meanwhile fails
/// alike, many times a second, and one line in a second says it for all.
pub static LOCAL_FAULTS: Seldom = Seldom::new();

/// Lets one in a second through.
#[derive(Debug)]
pub struct Seldom {
    began: OnceLock<Instant>,
    /// When the next one may be said, in milliseconds since `began`.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    /// The first one is let through.
    pub const fn new() -> Self {
        Seldom { began: OnceLock::new(), next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether to say it now: then how often it was not said since the last time.
    pub fn turn(&self) -> Option<u64> {
        let elapsed = self.began.get_or_init(Instant::now).elapsed().as_millis();
        let now = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let mine = now >= next
            && self
                .next
                .compare_exchange(next, now.saturating_add(APART), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Seldom::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_a_second_is_said_and_the_others_are_counted() {
        let seldom = Seldom::new();
        assert_eq!(seldom.turn(), Some(0));
        for _ in 0..3 {
            tokio::time::advance(Duration::from_millis(300)).await;
            assert_eq!(seldom.turn(), None);
        }
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!((seldom.turn(), seldom.turn()), (Some(3), None));
    }
}
