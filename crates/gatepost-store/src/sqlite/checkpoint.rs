//! Keeping the write-ahead log short without stalling commits.
//!
//! SQLite's own automatic checkpoint runs inside a commit and makes it wait for the copying and for
//! a flush of the database file. Here the copying is done by a thread of its own beside the writer
//! (`PASSIVE` waits for nobody); the writer then copies the little that came in meanwhile, which
//! lets its next commit start the log from the beginning. Readers in old snapshots can prevent that;
//! past a hard bound the writer insists (`RESTART`), for a moment.
//!
//! A copy that ends before the log's end is not flushed: the one that reaches the end flushes for all. So
//! once a flush has failed ([`super::flush`]) nothing is copied any more, and nobody lets go of the log.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::flush::Flushes;

/// Sizes of the log, in pages of 4 KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// At which it is copied.
    pub(super) soft: u32,
    /// At which the writer insists on starting it anew.
    pub(super) hard: u32,
}

impl Default for Sizes {
    /// 4 MiB and 64 MiB (ADR 0001).
    fn default() -> Self {
        Sizes { soft: 1_024, hard: 16_384 }
    }
}

/// How long the writer may wait for readers when it insists.
const INSIST: Duration = Duration::from_millis(250);

/// What writer and checkpointer know of the log.
pub(super) struct Wal {
    sizes: Sizes,
    pages: AtomicU32,
    next_copy: AtomicU32,
    next_insist: AtomicU32,
    /// The thread has copied; the writer should copy the rest.
    tail: AtomicBool,
    /// The log is to be emptied, and how often it was.
    empty: AtomicBool,
    emptied: AtomicU64,
    state: Mutex<Asked>,
    wake: Condvar,
    pub(super) flushes: Flushes,
    #[cfg(any(test, feature = "testing"))]
    pub(super) faults: super::faults::Faults,
}

#[derive(Default)]
struct Asked {
    copy: bool,
    closed: bool,
}

impl Wal {
    pub(super) fn new(sizes: Sizes) -> Self {
        Wal {
            sizes,
            pages: AtomicU32::new(0),
            next_copy: AtomicU32::new(sizes.soft),
            next_insist: AtomicU32::new(sizes.hard),
            tail: AtomicBool::new(false),
            empty: AtomicBool::new(false),
            emptied: AtomicU64::new(0),
            state: Mutex::new(Asked::default()),
            wake: Condvar::new(),
            flushes: Flushes::default(),
            #[cfg(any(test, feature = "testing"))]
            faults: super::faults::Faults::default(),
        }
    }

    /// A commit left the log with this many pages.
    pub(super) fn grown_to(&self, pages: u32) {
        if pages < self.pages.swap(pages, Ordering::Relaxed) {
            // It began anew.
            self.next_copy.store(self.sizes.soft, Ordering::Relaxed);
            self.next_insist.store(self.sizes.hard, Ordering::Relaxed);
        }
    }

    /// Pages in the log.
    #[cfg(test)]
    pub(super) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Asks for the log to be copied whole and cut to nothing after the next commit: what was
    /// overwritten in the database must not be left in its log (erasure).
    pub(super) fn empty(&self) {
        self.empty.store(true, Ordering::Relaxed);
    }

    /// How often it was emptied on request.
    pub(super) fn emptied(&self) -> u64 {
        self.emptied.load(Ordering::Relaxed)
    }

    /// The writer's part, between two groups.
    pub(super) fn after_commit(&self, conn: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if self.tail.swap(false, Ordering::Relaxed) {
            self.checkpoint(conn, "PASSIVE");
        }
        if self.empty.swap(false, Ordering::Relaxed) && self.waiting(conn, "TRUNCATE") {
            self.emptied.fetch_add(1, Ordering::Relaxed);
        }
        if pages >= self.next_insist.load(Ordering::Relaxed) {
            self.next_insist.store(pages.saturating_add(self.sizes.hard / 4), Ordering::Relaxed);
            self.waiting(conn, "RESTART");
        } else if pages >= self.next_copy.load(Ordering::Relaxed) {
            self.next_copy.store(pages.saturating_add(self.sizes.soft / 2), Ordering::Relaxed);
            self.state.lock().unwrap_or_else(PoisonError::into_inner).copy = true;
            self.wake.notify_one();
        }
    }

    /// The thread's part: copies when asked, until closed.
    pub(super) fn serve(&self, conn: &Connection) {
        loop {
            let mut asked = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            while !asked.copy && !asked.closed {
                asked = self.wake.wait(asked).unwrap_or_else(PoisonError::into_inner);
            }
            if asked.closed {
                return;
            }
            asked.copy = false;
            drop(asked);
            self.checkpoint(conn, "PASSIVE");
            self.tail.store(true, Ordering::Relaxed);
        }
    }

    /// Ends [`Wal::serve`].
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.wake.notify_all();
    }

    /// The end of the store, on the last connection there is: all of the log is copied, and goes with the
    /// connection. After a failed flush both stay as they are.
    pub(super) fn finish(&self, conn: &Connection) {
        self.waiting(conn, "TRUNCATE");
        if self.flushes.failed().is_some() {
            // Cannot fail: it sets a flag in memory. Otherwise closing would copy and remove the log.
            let _ = super::schema::keep_log_on_close(conn);
        }
    }

    /// Failing is no harm: the log stays as it is and the next try comes, unless it was a flush that failed.
    /// Whether nobody stood in the way.
    fn checkpoint(&self, conn: &Connection, mode: &str) -> bool {
        if self.flushes.failed().is_some() {
            return false;
        }
        let done = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0));
        if let Err(error) = &done {
            tracing::warn!(%error, mode, "the write-ahead log could not be copied");
            self.flushes.look(error);
        }
        matches!(done, Ok(0))
    }

    /// Copies the log, waiting a moment for readers.
    fn waiting(&self, conn: &Connection, mode: &str) -> bool {
        let waits = |limit| conn.busy_timeout(limit).is_ok();
        if !waits(INSIST) {
            return false;
        }
        let done = self.checkpoint(conn, mode);
        waits(super::schema::BUSY);
        done
    }
}
