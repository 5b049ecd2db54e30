//! Chance that repeats.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The seed's choices, one after the other.
pub(crate) struct Dice(StdRng);

impl Dice {
    /// The `stream`th sequence of `seed`: what one part of the world draws does not shift another's.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Dice(StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(stream)))
    }

    /// 0 up to `n`, without `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0.random_range(0..n)
    }

    /// A position in something of this length, which is not zero.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.0.random_range(0..len)
    }

    /// Once in `n`.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub(crate) fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.index(list.len())].clone()
    }
}
