//! The real clock and the real randomness: the one place where either is read.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use gatepost_core::{Clock, Entropy, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
        let now = SystemTime::now();
        let micros = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
        Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn steady(&self) -> Timestamp {
        static BEGAN: OnceLock<(Instant, Timestamp)> = OnceLock::new();
        let (instant, shown) = BEGAN.get_or_init(|| (Instant::now(), self.now()));
        shown.saturating_add(instant.elapsed())
    }
}

/// A cryptographic generator per thread, seeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

thread_local! {
    static GENERATOR: RefCell<StdRng> = RefCell::new(seeded());
}

fn seeded() -> StdRng {
    #[expect(clippy::disallowed_methods, reason = "the one place that seeds randomness")]
    let seeder = &mut rand::rng();
    StdRng::from_rng(seeder)
}

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        GENERATOR.with_borrow_mut(|rng| rng.fill_bytes(bytes));
    }
}
