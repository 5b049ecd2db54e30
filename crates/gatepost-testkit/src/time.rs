//! Time and chance under a test's control.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gatepost_core::{Clock, Entropy, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    /// What it shows.
    shown: AtomicI64,
    /// By how much it was set, in all.
    stepped: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        ManualClock { shown: AtomicI64::new(now.as_micros()), stepped: AtomicI64::new(0) }
    }

    /// Moves it forward, and tells the new time.
    pub fn advance(&self, by: Duration) -> Timestamp {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let before = self.shown.fetch_add(micros, Ordering::SeqCst);
        Timestamp::from_micros(before.saturating_add(micros))
    }

    /// Lets it show another time, backwards too, as if time itself had gone there.
    pub fn set(&self, now: Timestamp) {
        self.shown.store(now.as_micros(), Ordering::SeqCst);
    }

    /// Somebody sets the clock, by so many microseconds: steady time does not notice.
    pub fn step(&self, micros: i64) {
        self.shown.fetch_add(micros, Ordering::SeqCst);
        self.stepped.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// 2026-01-01T00:00:00Z.
    fn default() -> Self {
        ManualClock::at(Timestamp::from_secs(1_767_225_600))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.shown.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Timestamp {
        self.now().shifted(-self.stepped.load(Ordering::SeqCst))
    }
}

/// Random bytes that are the same for the same seed.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<StdRng>);

impl SeededEntropy {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        SeededEntropy(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_only_when_moved() {
        let clock = ManualClock::default();
        let begin = clock.now();
        assert_eq!(begin.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(clock.advance(Duration::from_millis(1500)).since(begin), Duration::from_millis(1500));
        assert_eq!(clock.now().since(begin), Duration::from_millis(1500));
        clock.set(Timestamp::EPOCH);
        assert_eq!(clock.now(), Timestamp::EPOCH);
    }

    #[test]
    fn a_seed_fixes_the_sequence() {
        let draw = |seed| {
            let entropy = SeededEntropy::new(seed);
            (entropy.next_u64(), entropy.next_u64())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(7).0, draw(7).1);
    }
}
