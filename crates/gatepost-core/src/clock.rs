//! Time and randomness, as parameters.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::Timestamp;

/// Tells the time. The only way any Gatepost crate learns what time it is.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;

    /// A time that goes on evenly, whoever sets the clock: only differences of it say something.
    fn steady(&self) -> Timestamp {
        self.now()
    }
}

/// By how much clock and steady time may differ before the clock is taken to have been set, in
/// microseconds. Less is a correction in small steps, which may as well be followed.
const STEP: i64 = 1_000_000;

/// The time that waits are measured by: the clock's, until somebody sets it. Then it goes on as before, and
/// [leads](Waits::lead) the clock by as much as that was set back.
///
/// What is due is said in this time, in memory and in the store; what happened, and what others are told,
/// in the clock's.
pub struct Waits {
    clock: Arc<dyn Clock>,
    /// What to add to the clock's steady time, in microseconds.
    ahead: i64,
    lead: AtomicI64,
}

impl Waits {
    /// Of a clock that the waits of an earlier process led by `lead` microseconds.
    pub fn new(clock: Arc<dyn Clock>, lead: i64) -> Self {
        let ahead = clock.now().shifted(lead).as_micros().saturating_sub(clock.steady().as_micros());
        Waits { clock, ahead, lead: AtomicI64::new(lead) }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.read().0
    }

    /// By how many microseconds this time is ahead of the clock's (behind it, if negative).
    pub fn lead(&self) -> i64 {
        self.read().1
    }

    /// The moment at which the clock showed `wall`, not long ago. If the clock was set meanwhile: now.
    pub fn at(&self, wall: Timestamp) -> Timestamp {
        let (now, lead) = self.read();
        wall.shifted(lead).min(now)
    }

    /// What the clock will show at a moment of this time, unless it is set.
    pub fn shown(&self, at: Timestamp) -> Timestamp {
        at.shifted(self.lead().saturating_neg())
    }

    fn read(&self) -> (Timestamp, i64) {
        let lead = self.lead.load(Ordering::Relaxed);
        match self.against(lead) {
            Ok(now) => (now, lead),
            // Whoever was not running between the two readings reads again.
            Err(_) => self.against(lead).map_or_else(
                |(steady, lead)| {
                    self.lead.store(lead, Ordering::Relaxed);
                    (steady, lead)
                },
                |now| (now, lead),
            ),
        }
    }

    /// The present moment by the clock, or steady time and the lead that it has if the clock was set.
    fn against(&self, lead: i64) -> Result<Timestamp, (Timestamp, i64)> {
        let wall = self.clock.now();
        let steady = self.clock.steady().shifted(self.ahead);
        let now = wall.shifted(lead);
        if now.as_micros().abs_diff(steady.as_micros()) < STEP.unsigned_abs() {
            Ok(now)
        } else {
            Err((steady, steady.as_micros().saturating_sub(wall.as_micros())))
        }
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits").field("now", &self.now()).field("lead", &self.lead()).finish()
    }
}

/// Gives random bytes. The only source of ids, keys and jitter.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes` with random data fit for keys.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number, uniform over all values.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random number in `0.0..1.0`.
    fn unit(&self) -> f64 {
        // 53 bits: what a double holds exactly.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl<T: Entropy + ?Sized> Entropy for std::sync::Arc<T> {
    fn fill(&self, bytes: &mut [u8]) {
        (**self).fill(bytes);
    }
}

impl<T: Clock + ?Sized> Clock for std::sync::Arc<T> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn steady(&self) -> Timestamp {
        (**self).steady()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Hands {
        wall: AtomicI64,
        steady: AtomicI64,
    }

    impl Hands {
        fn pass(&self, micros: i64) {
            self.wall.fetch_add(micros, Ordering::Relaxed);
            self.steady.fetch_add(micros, Ordering::Relaxed);
        }
    }

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.wall.load(Ordering::Relaxed))
        }

        fn steady(&self) -> Timestamp {
            Timestamp::from_micros(self.steady.load(Ordering::Relaxed))
        }
    }

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn waits_go_on_when_the_clock_is_set() {
        for step in [-DAY, DAY, -2_000_000, 2_000_000] {
            let hands = Arc::new(Hands { wall: AtomicI64::new(10 * DAY), ..Hands::default() });
            let waits = Waits::new(hands.clone(), 0);
            let began = waits.now();
            assert_eq!((began, waits.lead()), (hands.now(), 0));
            hands.pass(5);
            let published = hands.now();
            hands.wall.fetch_add(step, Ordering::Relaxed);
            hands.pass(3);
            assert_eq!(waits.now(), began.shifted(8), "{step}");
            assert_eq!(waits.lead(), -step);
            assert_eq!(waits.at(hands.now()), waits.now());
            // What the clock showed before is never taken for later than now.
            assert!(waits.at(published) <= waits.now());
            assert_eq!(waits.shown(waits.now().shifted(60)), hands.now().shifted(60));
            // The next process goes on from there.
            let next = Waits::new(hands.clone(), waits.lead());
            assert_eq!(next.now(), waits.now());
            // And back again.
            hands.wall.fetch_add(-step, Ordering::Relaxed);
            assert_eq!((waits.now(), waits.lead()), (began.shifted(8), 0));
        }
    }

    #[test]
    fn a_clock_that_is_corrected_a_little_is_followed() {
        let hands = Arc::new(Hands { wall: AtomicI64::new(DAY), ..Hands::default() });
        let waits = Waits::new(hands.clone(), 0);
        for _ in 0..100 {
            hands.wall.fetch_add(-9_000, Ordering::Relaxed);
            assert_eq!((waits.now(), waits.lead()), (hands.now(), 0));
        }
    }
}
