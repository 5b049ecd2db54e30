//! Who was promised what, and what arrived: the truth a measured run is checked against.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::measure::Stopwatch;

/// The id of one event of one run, as published and as it comes back in `webhook-id`.
pub(super) const ID_BYTES: usize = 18;

/// Tells runs of one process apart.
static RUNS: AtomicU32 = AtomicU32::new(1);

/// The events of one run, by number.
pub(super) struct Ledger {
    run: u32,
    /// Receivers each event goes to.
    copies: usize,
    accepted: Vec<AtomicBool>,
    /// When each copy first arrived; 0: not yet.
    first: Vec<AtomicU64>,
    accepted_count: AtomicU64,
    distinct: AtomicU64,
    duplicates: AtomicU64,
    last: AtomicU64,
}

/// What a ledger says at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Balance {
    /// Events answered with 202.
    pub(super) accepted: u64,
    /// Copies that arrived, each counted once.
    pub(super) distinct: u64,
    /// Arrivals of copies that had arrived before.
    pub(super) duplicates: u64,
    /// Copies of accepted events that did not arrive.
    pub(super) missing: u64,
}

impl Ledger {
    /// For at most `capacity` events, each of which goes to `copies` receivers. With one copy it does
    /// not matter to which.
    pub(super) fn new(capacity: usize, copies: usize) -> Self {
        Ledger {
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            copies,
            accepted: std::iter::repeat_with(AtomicBool::default).take(capacity).collect(),
            first: std::iter::repeat_with(AtomicU64::default).take(capacity * copies).collect(),
            accepted_count: AtomicU64::new(0),
            distinct: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// How many events it has room for.
    pub(super) fn capacity(&self) -> usize {
        self.accepted.len()
    }

    /// Writes the id of event `number` to the beginning of `out`.
    pub(super) fn write_id(&self, number: usize, out: &mut [u8]) {
        let text = format!("b{:08x}-{number:08}", self.run);
        out[..ID_BYTES].copy_from_slice(&text.as_bytes()[..ID_BYTES]);
    }

    /// The run and number an id names.
    pub(super) fn read_id(id: &[u8]) -> Option<(u32, usize)> {
        let text = std::str::from_utf8(id).ok()?;
        let (run, number) = text.strip_prefix('b')?.split_once('-')?;
        Some((u32::from_str_radix(run, 16).ok()?, number.parse().ok()?))
    }

    /// Whether `run` is this one.
    pub(super) fn is(&self, run: u32) -> bool {
        self.run == run
    }

    /// The events from `number` on were accepted.
    pub(super) fn accept(&self, number: usize, count: usize) {
        for accepted in &self.accepted[number..number + count] {
            accepted.store(true, Ordering::Relaxed);
        }
        self.accepted_count.fetch_add(count as u64, Ordering::Release);
    }

    /// Event `number` arrived at `receiver`. Answers whether there is such an event.
    pub(super) fn arrived(&self, number: usize, receiver: usize, watch: Stopwatch) -> bool {
        if number >= self.capacity() {
            return false;
        }
        let copy = if self.copies == 1 { number } else { number * self.copies + receiver % self.copies };
        let now = watch.nanos();
        if self.first[copy].compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.last.store(now, Ordering::Relaxed);
            self.distinct.fetch_add(1, Ordering::Release);
        } else {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Whether event `number` was accepted.
    pub(super) fn is_accepted(&self, number: usize) -> bool {
        self.accepted[number].load(Ordering::Relaxed)
    }

    /// When event `number` first arrived anywhere.
    pub(super) fn arrival(&self, number: usize) -> Option<u64> {
        let copies = &self.first[number * self.copies..(number + 1) * self.copies];
        copies.iter().map(|first| first.load(Ordering::Relaxed)).filter(|at| *at > 0).min()
    }

    /// When the last new copy arrived.
    pub(super) fn last_arrival(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Copies that arrived so far.
    pub(super) fn distinct(&self) -> u64 {
        self.distinct.load(Ordering::Acquire)
    }

    /// Events accepted so far.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted_count.load(Ordering::Acquire)
    }

    /// Whether every accepted event arrived everywhere.
    pub(super) fn is_complete(&self) -> bool {
        self.distinct() >= self.accepted() * self.copies as u64 && self.missing() == 0
    }

    fn missing(&self) -> u64 {
        let accepted = self.accepted.iter().enumerate().filter(|(_, accepted)| accepted.load(Ordering::Relaxed));
        let missing = accepted.map(|(number, _)| {
            let copies = &self.first[number * self.copies..(number + 1) * self.copies];
            copies.iter().filter(|first| first.load(Ordering::Relaxed) == 0).count()
        });
        missing.sum::<usize>() as u64
    }

    /// The account.
    pub(super) fn balance(&self) -> Balance {
        Balance {
            accepted: self.accepted(),
            distinct: self.distinct(),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            missing: self.missing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_run_and_number() {
        let ledger = Ledger::new(10, 1);
        let mut id = [0; ID_BYTES + 2];
        ledger.write_id(7, &mut id);
        let (run, number) = Ledger::read_id(&id[..ID_BYTES]).unwrap();
        assert!(ledger.is(run));
        assert!(!Ledger::new(1, 1).is(run));
        assert_eq!(number, 7);
        for foreign in ["", "evt_1", "b-", "bxyz-1", "b1-x"] {
            assert_eq!(Ledger::read_id(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn p2_what_is_missing_and_what_came_twice_is_seen() {
        let watch = Stopwatch::start();
        let ledger = Ledger::new(4, 2);
        ledger.accept(0, 3);
        for (number, receiver) in [(0, 0), (0, 1), (1, 0), (1, 0), (3, 0)] {
            assert!(ledger.arrived(number, receiver, watch));
        }
        assert!(!ledger.arrived(4, 0, watch));
        assert_eq!(ledger.balance(), Balance { accepted: 3, distinct: 4, duplicates: 1, missing: 3 });
        assert!(!ledger.is_complete());
        // Enough copies in number are not enough: one of them is of an event nobody promised.
        ledger.arrived(1, 1, watch);
        ledger.arrived(3, 1, watch);
        assert!(!ledger.is_complete());
        ledger.arrived(2, 0, watch);
        ledger.arrived(2, 1, watch);
        assert!(ledger.is_complete());
        assert_eq!(ledger.balance().missing, 0);
        assert!(ledger.arrival(2).is_some_and(|at| at <= ledger.last_arrival()));
    }
}
