//! What a connection, whoever reads from it and whoever sends on it know of each other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::fault::Fault;

/// See the module.
#[derive(Default, Debug)]
pub(in crate::net) struct Account {
    requests: AtomicU32,
    /// The request that some of an answer has come to, on HTTP/1.1.
    heard: AtomicU32,
    /// Answers that began to come, and that came, on HTTP/2.
    began: AtomicU32,
    came: AtomicU32,
    /// Bytes a body may have that answers one request.
    body: AtomicU64,
    /// Bytes of the bodies that were sent, of all requests.
    sent: AtomicU64,
    /// Requests under way at the same time.
    at_once: AtomicU32,
    spoiled: AtomicBool,
    fault: OnceLock<Fault>,
}

impl Account {
    /// A request with so many bytes in its body begins, beside others of which there are now `at_once` with
    /// it, and may be answered with so many.
    pub(in crate::net) fn begin(&self, at_once: usize, sent: usize, body: usize) {
        self.sent.fetch_add(u64::try_from(sent).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.at_once.store(u32::try_from(at_once).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.body.store(u64::try_from(body).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Release);
    }

    /// How many requests have begun.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Acquire)
    }

    /// Bytes of all bodies sent, or to be sent, in requests that have begun.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Some of an answer to the last request has come.
    pub(super) fn hear(&self) {
        self.heard.store(self.requests.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether some of an answer to the last request has come, where there is one request at a time.
    pub(in crate::net) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) == self.requests.load(Ordering::Relaxed)
    }

    /// One more stream is being answered.
    pub(super) fn answer_begins(&self) {
        self.began.fetch_add(1, Ordering::Relaxed);
    }

    /// The head of an answer is whole. To be said once of each.
    pub(in crate::net) fn answer_came(&self) {
        self.came.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether an answer came, and none has merely begun, where there are many requests at a time: nobody
    /// tells which of them a stream is, so an answer that began may be anybody's.
    pub(in crate::net) fn has_served(&self) -> bool {
        let came = self.came.load(Ordering::Relaxed);
        came > 0 && came == self.began.load(Ordering::Relaxed)
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
