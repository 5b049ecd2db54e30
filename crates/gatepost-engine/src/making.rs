//! Making the deliveries of events that go to very many webhooks, after they were accepted.
//!
//! The store commits such an event with whom it goes to, and makes its deliveries in small steps that
//! share commits with everybody else's requests: no publish waits for another one's thousands of rows
//! (P5). Each step's deliveries are handed to the lane like those of any publish. Whoever asks for
//! something that only made deliveries can tell (a list, an event's deliveries, a replay, an erasure)
//! has those made first that were owed when it was asked, as far as a bounded number goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gatepost_core::TenantKey;
use gatepost_store::{Made, StoreError, Turn};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::deliver::Command;
use crate::engine::Engine;

/// Rows of one step while others write, about (one part), and otherwise: the writer's time for them is
/// about a third of a millisecond and two thirds of one.
const ROWS_BUSY: usize = 1;
const ROWS_QUIET: usize = 128;
/// Steps made at most for whoever asks for what must be made first: some 64,000 deliveries.
const ASKED: usize = 512;
/// How often it is looked whether something is left, without being told.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long it rests after the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Whether something is left to be made, as far as is known here: never no where something is.
pub(crate) struct Making {
    /// How often it was noted that something may be, and up to which of these all was found made.
    noted: AtomicU64,
    done: AtomicU64,
    notify: Notify,
    /// One step at a time, whoever asks: a tenant's questions make no group of steps.
    turn: tokio::sync::Mutex<()>,
}

impl Default for Making {
    /// Something may be left from before the start.
    fn default() -> Self {
        Making {
            noted: AtomicU64::new(1),
            done: AtomicU64::new(0),
            notify: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl Making {
    /// Something may be left to be made.
    pub(crate) fn note(&self) {
        self.noted.fetch_add(1, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// Whether something may be left.
    pub(crate) fn any(&self) -> bool {
        self.noted.load(Ordering::Acquire) != self.done.load(Ordering::Acquire)
    }

    /// Notes it at the end of a publish of which nobody hears what became of it.
    pub(crate) fn unless_heard(&self) -> Unheard<'_> {
        Unheard(Some(self))
    }
}

/// See [`Making::unless_heard`].
#[must_use = "a publish that is not awaited is taken for heard of"]
pub(crate) struct Unheard<'a>(Option<&'a Making>);

impl Unheard<'_> {
    /// The answer is there.
    pub(crate) fn heard(mut self) {
        self.0 = None;
    }
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(making) = self.0 {
            making.note();
        }
    }
}

impl Engine {
    /// Makes some deliveries, and hands them to the lane.
    ///
    /// # Errors
    /// The store's. The step can be tried again.
    pub(crate) async fn make_some(&self, turn: Turn, rows: usize) -> Result<Made, StoreError> {
        let inner = &self.inner;
        let _one = inner.making.turn.lock().await;
        let noted = inner.making.noted.load(Ordering::Acquire);
        let doubt = inner.inbox.unless_resolved(Command::LookForOwed);
        let mut made = inner.store.make(turn, rows).await?;
        doubt.resolved();
        if !made.more {
            inner.making.done.fetch_max(noted, Ordering::AcqRel);
        }
        if let Some(tenant) = made.tenant {
            for seq in &made.seqs {
                inner.streams.changed(tenant, *seq);
            }
        }
        let (dues, wakes) = (std::mem::take(&mut made.dues), std::mem::take(&mut made.wakes));
        if !dues.is_empty() {
            inner.inbox.send(Command::Offer(dues));
        }
        if !wakes.is_empty() {
            inner.inbox.send(Command::Wake(wakes));
        }
        Ok(made)
    }

    /// Has everything made that a tenant is owed at this moment. `false`: it was too much, and some is
    /// left.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn all_made(&self, tenant: TenantKey) -> Result<bool, StoreError> {
        if !self.inner.making.any() {
            return Ok(true);
        }
        let Some(last) = self.inner.store.last_unmade(tenant).await? else { return Ok(true) };
        for _ in 0..ASKED {
            let made = self.make_some(Turn::Of(tenant), ROWS_QUIET).await?;
            if made.left_from.is_none_or(|left| left > last) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes what is left, tenant by tenant, until the server stops.
    pub(crate) async fn keep_making(self) {
        let (mut last, mut written, mut rows) = (None, 0, ROWS_BUSY);
        while !self.draining() {
            if !self.inner.making.any() {
                tokio::select! {
                    () = self.inner.making.notify.notified() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => self.inner.making.note(),
                }
                continue;
            }
            let began = Instant::now();
            match self.make_some(Turn::After(last), rows).await {
                Ok(made) => {
                    last = made.tenant;
                    if !made.more && made.tenant.is_some() {
                        // Deleted webhooks may wait for it.
                        self.inner.sweep.notify_one();
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "deliveries wait to be made: the store failed");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
            let requests = self.inner.store.stats().await.unwrap_or_default().requests;
            // One of them was the step.
            let busy = requests > written + 1;
            (rows, written) = (if busy { ROWS_BUSY } else { ROWS_QUIET }, requests);
            if busy {
                // Half of the time at most is taken from whoever else writes.
                tokio::time::sleep(began.elapsed()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_while_a_step_runs_is_looked_for_again() {
        let making = Making::default();
        assert!(making.any(), "something may be left from before the start");
        let noted = making.noted.load(Ordering::Acquire);
        making.note();
        making.done.fetch_max(noted, Ordering::AcqRel);
        assert!(making.any());
        making.done.fetch_max(making.noted.load(Ordering::Acquire), Ordering::AcqRel);
        assert!(!making.any());
        making.unless_heard().heard();
        assert!(!making.any());
        drop(making.unless_heard());
        assert!(making.any());
    }
}
