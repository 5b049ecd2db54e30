//! Counting what a validation costs, while it runs.
//!
//! The unit is about a nanosecond of one core. Everything that takes time or memory is paid for before it
//! is done, so that running out ends a validation whatever the schema and whatever the data.

/// What validating one event may cost: some tens of milliseconds.
const EVENT: u64 = 50_000_000;
/// What validating everything of one publish may cost together (P5).
const PUBLISH: u64 = 20 * EVENT;
/// What is not worth another thread's time.
const QUICK: u64 = 500_000;
/// What judging one answer of a hook may cost: the caller waits.
const ANSWER: u64 = 10_000_000;

/// What validations may still cost.
#[derive(Clone, Debug)]
pub struct SchemaBudget {
    /// Together.
    left: u64,
    /// Each.
    each: u64,
}

/// A validation was ended: it cost more than it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("validating the data against the schema costs too much")]
pub struct TooCostly;

impl SchemaBudget {
    /// For everything one call publishes.
    pub fn of_publish() -> Self {
        SchemaBudget { left: PUBLISH, each: EVENT }
    }

    /// For what is tried at once, before it is done aside.
    pub fn quick() -> Self {
        SchemaBudget { left: QUICK, each: QUICK }
    }

    /// For one answer of a hook.
    pub fn of_answer() -> Self {
        SchemaBudget { left: ANSWER, each: ANSWER }
    }

    /// So much, in units of about a nanosecond.
    pub fn of(cost: u64) -> Self {
        SchemaBudget { left: cost, each: cost }
    }

    /// Runs one validation, and takes what it cost.
    pub(super) fn run<T>(&mut self, validate: impl FnOnce(&mut Work) -> T) -> T {
        let given = self.left.min(self.each);
        let mut work = Work { left: given };
        let done = validate(&mut work);
        self.left -= given - work.left;
        done
    }
}

/// What one validation may still cost.
#[derive(Debug)]
pub(super) struct Work {
    left: u64,
}

impl Work {
    /// So much.
    pub(super) fn of(cost: u64) -> Self {
        Work { left: cost }
    }

    /// Pays; what cannot be paid is not done, and nothing after it.
    pub(super) fn spend(&mut self, cost: u64) -> Result<(), TooCostly> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(TooCostly)
            }
        }
    }

    /// Pays for something done to so many bytes, members or the like.
    pub(super) fn spend_on(&mut self, count: usize, each: u64) -> Result<(), TooCostly> {
        self.spend((count as u64).saturating_mul(each))
    }
}
