//! What the server may hold in memory: every bound that counts bytes, derived here from one setting.
//!
//! The setting is divided into [`SHARES`], and each part of the server gets its bounds out of its own
//! share: what one part holds never takes another's room. What is held is counted by what it weighs at
//! worst, not on average, so that an ordinary server stays far below.
//!
//! To bound something new: take its share from [`SLACK`] (the sum is checked when this compiles), derive
//! its limit in [`Memory::plan`], add its line to `docs/operations.md` (a test holds the two together).

use std::ops::RangeInclusive;

use gatepost_engine::{LaneLimits, Limits};
use gatepost_store::sqlite::Options;

/// What can be set.
pub const MIB: RangeInclusive<u32> = 128..=1 << 20;
/// What is set when nobody sets anything.
const DEFAULT_MIB: u32 = 1_024;

/// The program itself, its threads and what it keeps with nothing to do.
pub const PROGRAM_MIB: u32 = 48;

/// A part of what is left beside the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Percent.
    pub percent: usize,
    /// What it is for, as the documentation says it.
    pub what: &'static str,
}

const fn share(percent: usize, what: &'static str) -> Share {
    Share { percent, what }
}

const CACHES: Share = share(4, "pages of the database");
const BODIES: Share = share(18, "bodies of API requests and the events made of them");
const ANSWERS: Share = share(8, "answers of the API");
const INCOMING: Share = share(12, "connections to the API");
const OUTGOING: Share = share(15, "connections to receivers");
const WAITING: Share = share(6, "deliveries ahead of their attempt");
const FLIGHT: Share = share(10, "attempts under way or not recorded yet");
const ROUTES: Share = share(5, "webhooks ready to be sent to");
const STREAMS: Share = share(3, "streams of changes");
const HOOKS: Share = share(6, "blocking hooks: questions, records, known decisions");
const TENANTS: Share = share(7, "tenants used of late, with their webhooks");
const TYPES: Share = share(3, "event types that tenants declared, and compiled schemas");
const SLACK: Share = share(3, "the allocator and what is too small to be counted");

/// Every share.
pub const SHARES: [Share; 13] =
    [CACHES, BODIES, ANSWERS, INCOMING, OUTGOING, WAITING, FLIGHT, ROUTES, STREAMS, HOOKS, TENANTS, TYPES, SLACK];

const _: () = {
    let (mut sum, mut at) = (0, 0);
    while at < SHARES.len() {
        sum += SHARES[at].percent;
        at += 1;
    }
    assert!(sum == 100, "the shares are all there is");
};

const KIB: usize = 1 << 10;
const ONE_MIB: usize = 1 << 20;

/// Readers of the store.
const READERS: usize = 3;
/// Copies of a body there are at worst: as it came, and the events made of it.
const BODY_COPIES: usize = 2;
/// Answers being made at once, each as large as they get and as rows besides.
const ANSWERS_AT_ONCE: usize = 4;
/// What a connection to the API holds: its buffers and its task, and a part of a long head, which one in
/// twelve may have.
const INCOMING_BYTES: usize = 28 * KIB;
/// What a connection to a receiver holds, TLS included: kept for the next request, and in use.
const IDLE_BYTES: usize = 12 * KIB;
const IN_USE_BYTES: usize = 16 * KIB;
/// Requests under way for each slot at worst: a tenant with nothing under way gets one beyond the slots.
const REQUESTS_PER_SLOT: usize = 5;
/// What a delivery ahead of its attempt holds beside its payload, about.
const HEAD_BYTES: usize = KIB;
/// What an outcome holds that is not recorded yet, at least.
const OUTCOME_BYTES: usize = 4 * KIB;
/// What is kept ready of one webhook: its url, headers, keys, and its tenant's settings.
const ROUTE_BYTES: usize = 4 * KIB;

/// The setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    mib: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { mib: DEFAULT_MIB }
    }
}

/// What follows from the setting.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The store's part.
    pub store: Options,
    /// The engine's and the API's part.
    pub limits: Limits,
    /// Connections to receivers kept for the next request.
    pub idle_connections: usize,
}

impl Memory {
    /// So many MiB; `None`: fewer or more than can be set.
    pub fn of_mib(mib: u32) -> Option<Self> {
        MIB.contains(&mib).then_some(Memory { mib })
    }

    /// The setting.
    pub fn mib(self) -> u32 {
        self.mib
    }

    /// Bytes of a share.
    pub fn bytes(self, share: Share) -> usize {
        // Bounded by MIB: a usize holds it.
        (self.mib - PROGRAM_MIB) as usize * ONE_MIB / 100 * share.percent
    }

    /// Bytes of bodies in memory at once.
    fn body_bytes(self) -> usize {
        self.bytes(BODIES) / BODY_COPIES
    }

    /// The largest body there can be room for: a little is left for others beside it.
    pub fn max_body_bytes(self) -> usize {
        self.body_bytes() / 5 * 4
    }

    /// Everything derived, for API bodies of at most `max_body_bytes`.
    pub fn plan(self, max_body_bytes: usize) -> Plan {
        let defaults = Limits::default();
        let caches = self.bytes(CACHES);
        let store = Options {
            // What waits there are requests whose bodies have room, and outcomes that are counted as
            // such: it is bounded besides, so that what waits is not older than it must be.
            queue_bytes: self.body_bytes(),
            readers: READERS,
            // Not more, however much there is: after some page splits SQLite's next commit looks
            // through all of it.
            writer_cache_kib: kib(caches / 2, 8 * ONE_MIB),
            reader_cache_kib: kib(caches / 2 / READERS, 64 * ONE_MIB),
            // As rows, and as the text they become.
            page_bytes: (self.bytes(ANSWERS) / ANSWERS_AT_ONCE / 2).min(Options::default().page_bytes),
            ..Options::default()
        };
        let connections = self.bytes(OUTGOING) / (IDLE_BYTES + IN_USE_BYTES);
        let waiting = self.bytes(WAITING);
        let (head_bytes, offer_bytes) = (waiting / 3, waiting / 3);
        let flight = self.bytes(FLIGHT);
        let most = LaneLimits::default();
        let heads = (head_bytes / HEAD_BYTES).min(most.heads);
        let flight_bytes = flight / LaneLimits::FLIGHT_AT_WORST;
        let lane = LaneLimits {
            slots: (connections / REQUESTS_PER_SLOT).clamp(8, most.slots),
            extra_slots: (connections / REQUESTS_PER_SLOT * (REQUESTS_PER_SLOT - 1)).min(most.extra_slots),
            window: (heads / 32).min(most.window),
            heads,
            head_bytes,
            flight_bytes,
            unsettled: (flight_bytes / OUTCOME_BYTES).min(most.unsettled),
        };
        let streams = self.bytes(STREAMS);
        let hooks = self.bytes(HOOKS);
        let limits = Limits {
            max_body_bytes,
            max_batch_bytes: defaults.max_batch_bytes.min(self.max_body_bytes()).max(max_body_bytes),
            lane,
            body_bytes: self.body_bytes(),
            answer_bytes: self.bytes(ANSWERS),
            answers_at_once: ANSWERS_AT_ONCE,
            connections: (self.bytes(INCOMING) / INCOMING_BYTES).min(defaults.connections),
            offers: (offer_bytes / HEAD_BYTES).min(defaults.offers),
            offer_bytes,
            routes: (self.bytes(ROUTES) / ROUTE_BYTES).min(defaults.routes),
            tenant_bytes: self.bytes(TENANTS),
            type_bytes: self.bytes(TYPES) / 3,
            schema_bytes: self.bytes(TYPES) / 3 * 2,
            stream_ring_bytes: streams / 2,
            stream_fact_bytes: streams / 4,
            stream_chunk_bytes: streams / 4,
            hook_question_bytes: hooks / 10 * 7,
            hook_record_bytes: hooks / 20 * 3,
            hook_known_bytes: hooks / 20 * 3,
        };
        Plan { store, limits, idle_connections: connections }
    }
}

/// Bytes as whole KiB, at most `most` bytes.
fn kib(bytes: usize, most: usize) -> u32 {
    // At most `most`, which fits.
    (bytes.min(most) / KIB) as u32
}

#[cfg(test)]
mod tests;
