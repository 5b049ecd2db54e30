//! How many connections are kept for later requests, and which go when there are too many.

use std::cell::Cell;

use rustix::process::{Resource, getrlimit};
use tokio::time::Instant;

/// Connections kept by a client that nobody told how many.
const UNTOLD: usize = 512;
/// Connections kept of one host: more than a webhook sends at once, unless it is told to.
const PER_HOST: usize = 64;
/// The part of the descriptors that kept connections may take: the others are for requests under way,
/// for callers of the API and for files. When they run out all the same, everything idle is closed.
const OF_DESCRIPTORS: u64 = 2;
/// The part that a second pool gets: it is for few hosts, those of blocking hooks.
const ASIDE: usize = 8;
/// The part that goes at once when there are too many. What it costs to find out which is shared by as
/// many requests that way.
const AT_ONCE: usize = 64;

/// How many connections are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    pub(super) per_host: usize,
    pub(super) total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { per_host: PER_HOST, total: UNTOLD }
    }
}

impl Limits {
    /// At most so many, and no more than this process has descriptors for.
    pub(super) fn keeping(self, idle: usize) -> Limits {
        Limits { total: within(idle, getrlimit(Resource::Nofile).current), ..self }
    }

    /// What a second pool beside one under these limits gets.
    pub(super) fn aside(self) -> Limits {
        Limits { total: (self.total / ASIDE).max(self.per_host.min(self.total)), ..self }
    }
}

/// `None`: there is no limit to the descriptors.
fn within(idle: usize, descriptors: Option<u64>) -> usize {
    let share = descriptors.map_or(usize::MAX, |all| usize::try_from(all / OF_DESCRIPTORS).unwrap_or(usize::MAX));
    idle.min(share)
}

/// Which of too many connections go: those idle for longest.
pub(super) struct Longest {
    until: Instant,
    left: Cell<usize>,
}

impl Longest {
    /// `since`: when each of those that may go became idle; `total`: how many there may be. `None`: there
    /// is nothing to choose from.
    pub(super) fn idle(mut since: Vec<Instant>, total: usize) -> Option<Longest> {
        let count = (total / AT_ONCE).clamp(1, since.len().max(1));
        if since.is_empty() {
            return None;
        }
        let (_, until, _) = since.select_nth_unstable(count - 1);
        Some(Longest { until: *until, left: Cell::new(count) })
    }

    /// Whether one goes that is idle since then. Asked once of each.
    pub(super) fn is(&self, since: Instant) -> bool {
        let goes = since <= self.until && self.left.get() > 0;
        if goes {
            self.left.update(|left| left - 1);
        }
        goes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn p10_kept_connections_leave_half_of_the_descriptors_to_others() {
        assert_eq!(within(5_000, Some(1_024)), 512);
        assert_eq!(within(5_000, Some(20_000)), 5_000);
        assert_eq!(within(5_000, None), 5_000);
        let all = Limits::default().keeping(usize::MAX);
        if let Some(descriptors) = getrlimit(Resource::Nofile).current {
            assert!(all.total as u64 * 2 <= descriptors, "{all:?} of {descriptors}");
        }
        assert_eq!(Limits::default().keeping(3).total, 3);
    }

    #[test]
    fn a_second_pool_gets_a_part() {
        let limits = |total| Limits { per_host: 64, total };
        for (total, aside) in [(5_000, 625), (100, 64), (10, 10), (0, 0)] {
            assert_eq!(limits(total).aside().total, aside, "{total}");
        }
    }

    #[tokio::test]
    async fn those_idle_for_longest_go_and_no_more_than_a_part() {
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        let longest = Longest::idle((0..64).rev().map(at).collect(), 256).expect("some");
        let gone: Vec<u64> = (0..64).filter(|second| longest.is(at(*second))).collect();
        assert_eq!(gone, [0, 1, 2, 3]);
        // All at the same moment, and very few: at least one goes, and not all.
        for (count, total, going) in [(64, 256, 4), (3, 3, 1), (1, 256, 1)] {
            let longest = Longest::idle(vec![began; count], total).expect("some");
            assert_eq!((0..count).filter(|_| longest.is(began)).count(), going, "{count} of {total}");
        }
        assert!(Longest::idle(Vec::new(), 64).is_none());
    }
}
