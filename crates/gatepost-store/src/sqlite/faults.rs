//! Failures on demand, for tests of what happens when a commit does not.

use std::sync::atomic::{AtomicU32, Ordering};

/// What shall fail.
#[derive(Default)]
pub(super) struct Faults {
    commits: AtomicU32,
    max_pages: AtomicU32,
}

impl Faults {
    /// The next `count` commits that write anything fail.
    pub(super) fn fail_commits(&self, count: u32) {
        self.commits.store(count, Ordering::SeqCst);
    }

    /// Whether this commit shall fail; counts it.
    pub(super) fn take_commit_failure(&self) -> bool {
        self.commits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    /// Remembers the limit for connections opened later; `None` lifts it.
    pub(super) fn limit_pages(&self, pages: Option<u32>) {
        self.max_pages.store(pages.unwrap_or(0), Ordering::SeqCst);
    }

    /// The limit, if there is one.
    pub(super) fn page_limit(&self) -> Option<u32> {
        Some(self.max_pages.load(Ordering::SeqCst)).filter(|pages| *pages > 0)
    }
}
