//! The time that what is due is said in.

use std::sync::{Arc, Mutex, PoisonError};

use gatepost_core::{Timestamp, Waits};

use crate::DeliveryRow;

/// The time in which due times are kept: the clock's own where nobody measures waits otherwise.
#[derive(Debug, Default)]
pub(super) struct WaitClock(Mutex<Option<Arc<Waits>>>);

impl WaitClock {
    pub(super) fn set(&self, waits: Arc<Waits>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waits);
    }

    fn with(&self, at: Timestamp, look: impl FnOnce(&Waits) -> Timestamp) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_deref().map_or(at, look)
    }

    /// When something is due that is due at once, at the moment `now` of the clock.
    pub(super) fn due(&self, now: Timestamp) -> Timestamp {
        self.with(now, |waits| waits.at(now))
    }

    /// A delivery as people see it: by the clock.
    pub(super) fn shown(&self, mut row: DeliveryRow) -> DeliveryRow {
        row.next_attempt_at = row.next_attempt_at.map(|at| self.with(at, |waits| waits.shown(at)));
        row
    }
}
