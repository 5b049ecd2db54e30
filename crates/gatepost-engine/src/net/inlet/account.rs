//! What a connection, whoever reads from it and whoever sends on it know of each other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::fault::Fault;

/// See the module.
#[derive(Default, Debug)]
pub(in crate::net) struct Account {
    requests: AtomicU32,
    /// Bytes a body may have that answers one request.
    body: AtomicU64,
    /// Requests under way at the same time.
    at_once: AtomicU32,
    spoiled: AtomicBool,
    fault: OnceLock<Fault>,
}

impl Account {
    /// A request begins, beside others of which there are now `at_once` with it, and may be answered
    /// with so many bytes of a body.
    pub(in crate::net) fn begin(&self, at_once: usize, body: usize) {
        self.at_once.store(u32::try_from(at_once).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.body.store(u64::try_from(body).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Release);
    }

    /// How many requests have begun.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Acquire)
    }

    /// How many were under way when the last one began, and how large a body it may be answered with.
    pub(super) fn last(&self) -> (u64, u64) {
        (self.at_once.load(Ordering::Relaxed).into(), self.body.load(Ordering::Relaxed))
    }

    /// The connection is of no use after this answer.
    pub(super) fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }

    pub(in crate::net) fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Relaxed)
    }

    /// The connection ends for what came.
    pub(super) fn condemn(&self, fault: Fault) -> std::io::Error {
        self.spoil();
        self.fault.get_or_init(|| fault);
        fault.into()
    }

    /// Why it ended, if for what came.
    pub(in crate::net) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }
}
