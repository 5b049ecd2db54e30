//! The time that waits are measured by, from one process to the next.
//!
//! In one process it is [`Waits`]: a clock that is set does not touch it. What is stored is of this time, so
//! the next process has to go on from it. For that it is noted by how much it leads the clock, and when the
//! clock was last looked at: a clock that shows an earlier time at the start was set back meanwhile, at
//! least by that much. Where it is not known how long the machine was off, waits are rather over early:
//! a clock that was set forward, before or while nobody ran, makes due what it says is due.

use std::sync::Arc;
use std::time::Duration;

use gatepost_core::{Clock, Timestamp, Waits};
use gatepost_store::{Store, StoreError};

use crate::engine::Engine;

/// The named value of the installation with the note.
pub(crate) const NOTE: &str = "clock";
/// How often it is looked whether the clock was set, besides by whoever waits for something.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the time is noted although nothing happened to it.
const NOTE_EVERY: Duration = Duration::from_secs(600);

/// What is noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Note {
    /// By how many microseconds the time of waits leads the clock.
    lead: i64,
    /// What the clock showed.
    seen: Timestamp,
}

impl Note {
    pub(crate) fn of(waits: &Waits) -> Note {
        let (lead, now) = (waits.lead(), waits.now());
        Note { lead, seen: now.shifted(lead.saturating_neg()) }
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.lead.to_le_bytes());
        bytes[8..].copy_from_slice(&self.seen.as_micros().to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Note> {
        let (lead, seen) = bytes.split_first_chunk::<8>()?;
        let seen = i64::from_le_bytes(seen.try_into().ok()?);
        Some(Note { lead: i64::from_le_bytes(*lead), seen: Timestamp::from_micros(seen) })
    }

    /// By how much the time of waits leads a clock that shows `now` after a start.
    fn lead_at(self, now: Timestamp) -> i64 {
        let back = self.seen.as_micros().saturating_sub(now.as_micros()).max(0);
        // Behind the clock nobody begins: what would be late by that is early rather.
        self.lead.saturating_add(back).max(0)
    }
}

/// The time that waits are measured by in this process; the store goes by it from now on.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn begin(store: &dyn Store, clock: Arc<dyn Clock>) -> Result<Arc<Waits>, StoreError> {
    let note = store.meta(NOTE).await?.and_then(|bytes| Note::from_bytes(&bytes));
    let lead = note.map_or(0, |note| note.lead_at(clock.now()));
    let waits = Arc::new(Waits::new(clock, lead));
    store.wait_by(Arc::clone(&waits));
    Ok(waits)
}

impl Engine {
    /// The present moment, as waits are measured.
    pub(crate) fn waiting(&self) -> Timestamp {
        self.inner.waits.now()
    }

    /// Notes how the time of waits and the clock stand.
    pub(crate) async fn note_time(&self) -> Result<(), StoreError> {
        self.inner.store.set_meta(NOTE, &Note::of(&self.inner.waits).to_bytes()).await
    }

    /// Notes it at once, when the clock was set, and every now and then.
    pub(crate) async fn keep_time(self) {
        let (mut lead, mut noted_at) = (None, self.waiting());
        loop {
            let (now_leads, now) = (self.inner.waits.lead(), self.waiting());
            if lead != Some(now_leads) || now.since(noted_at) >= NOTE_EVERY {
                if lead.is_some_and(|lead| lead != now_leads) {
                    tracing::warn!(
                        lead_s = now_leads / 1_000_000,
                        "the clock was set: waits go on as if it had not been"
                    );
                }
                match self.note_time().await {
                    Ok(()) => (lead, noted_at) = (Some(now_leads), now),
                    Err(error) => tracing::debug!(%error, "the time is noted later"),
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use gatepost_store::SqliteStore;
    use gatepost_testkit::ManualClock;

    use super::*;

    const DAY: i64 = 86_400_000_000;

    /// The next process, after the clock was set by `off` while none ran, and how its time compares.
    async fn over_a_restart(while_on: i64, off: i64) -> i64 {
        let store = SqliteStore::open_inline().unwrap();
        let clock = Arc::new(ManualClock::default());
        let waits = begin(&store, clock.clone()).await.unwrap();
        clock.step(while_on);
        let before = waits.now();
        store.set_meta(NOTE, &Note::of(&waits).to_bytes()).await.unwrap();
        clock.step(off);
        begin(&store, clock).await.unwrap().now().as_micros() - before.as_micros()
    }

    #[tokio::test]
    async fn what_is_due_is_late_for_no_clock_that_was_set() {
        for (while_on, off, expected) in [
            (0, 0, 0),
            // Set back while it ran, and while it did not.
            (-DAY, 0, 0),
            (0, -DAY, 0),
            (-DAY, -DAY, 0),
            // A clock that had jumped ahead is put right: before the stop, or after it.
            (DAY, -DAY, 0),
            // Forward: what the clock says is due is due.
            (0, DAY, DAY),
            (DAY, 0, DAY),
            (-DAY, DAY, DAY),
        ] {
            let found = over_a_restart(while_on, off).await;
            assert_eq!(found, expected, "{while_on} and {off}");
        }
    }
}
