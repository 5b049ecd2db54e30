//! How much there may be of everything.

use std::time::Duration;

/// How much the scheduler may hold and start.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests under way at once, over all tenants. A tenant may have its assured share beyond them
    /// (half as many in all), and a tenant with nothing under way one more: a thousand tenants whose
    /// receivers hang must not keep the next one waiting (P5).
    pub slots: usize,
    /// Requests beyond the slots that tenants with nothing under way may start, one each. Each costs a
    /// descriptor: this and the slots bound how many the lane has open for sending.
    pub extra_slots: usize,
    /// Heads per webhook and urgency.
    pub window: usize,
    /// Heads in all.
    pub heads: usize,
    /// Payload bytes of all heads. Past this a webhook gets a few small heads of an urgency, or one of
    /// any size; past twice this no large ones.
    pub head_bytes: usize,
    /// Bytes of the requests under way, and of outcomes whose record is not durable yet. Past this
    /// only tenants with nothing under way start something, and past four times this nobody; when the
    /// outcomes alone take it all, nobody does either.
    pub flight_bytes: usize,
    /// Outcomes whose record is not durable yet: past this nothing new is started.
    pub unsettled: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            slots: 1_024,
            extra_slots: 4_096,
            window: 256,
            heads: 32_768,
            head_bytes: 96 << 20,
            flight_bytes: 96 << 20,
            unsettled: 8_192,
        }
    }
}

/// Heads a webhook may always have, whatever the others hold: a full window elsewhere must not
/// stop it (P5).
pub(in crate::deliver) const ASSURED_HEADS: usize = 4;
/// Payload bytes those may have when the bytes of all heads are at their limit.
pub(super) const ASSURED_HEAD_BYTES: usize = 64 << 10;
/// The most requests that are assured to a tenant even when the slots are taken. Half of the slots are
/// divided among the tenants that have something to do, so with many of them it is less, down to one.
pub(super) const ASSURED_SLOTS: usize = 16;
impl Limits {
    /// How many times [`Limits::head_bytes`] there are at worst: past that webhooks get no large heads.
    pub const HEADS_AT_WORST: usize = 2;
    /// How many times [`Limits::flight_bytes`] there are at worst: so far tenants with nothing under way
    /// may go beyond.
    pub const FLIGHT_AT_WORST: usize = 4;
}

/// Reads started at once: the store's readers are few.
pub(super) const MAX_READS: usize = 16;

/// How long the lane waits before it reads again after the store failed.
pub(crate) const READ_AGAIN_AFTER: Duration = Duration::from_millis(250);
