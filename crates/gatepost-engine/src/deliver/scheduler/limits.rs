//! How much there may be of everything.

use std::time::Duration;

/// How much the scheduler may hold and start.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests under way at once, over all tenants.
    pub slots: usize,
    /// Heads per webhook and urgency.
    pub window: usize,
    /// Heads in all.
    pub heads: usize,
    /// Payload bytes of all heads.
    pub head_bytes: usize,
    /// Outcomes whose record is not durable yet: past this nothing new is started.
    pub unsettled: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { slots: 1_024, window: 256, heads: 32_768, head_bytes: 96 << 20, unsettled: 8_192 }
    }
}

/// Heads a webhook may always have, whatever the others hold: a full window elsewhere must not
/// stop it (P5).
pub(super) const ASSURED_HEADS: usize = 4;
/// Requests a tenant may always have under way, even when the slots are taken.
pub(super) const ASSURED_SLOTS: usize = 16;

/// Reads started at once: the store's readers are few.
pub(super) const MAX_READS: usize = 16;

/// Tenants looked at for one pick: keeps a pick cheap when very many wait and none may go.
pub(super) const MAX_TURNS: usize = 64;

/// How long the lane waits before it reads again after the store failed.
pub(crate) const READ_AGAIN_AFTER: Duration = Duration::from_millis(250);
