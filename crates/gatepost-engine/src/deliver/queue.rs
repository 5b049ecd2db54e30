//! What the scheduler knows of one webhook.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use gatepost_core::event::Urgency;
use gatepost_core::{DeliverySeq, TenantKey, Timestamp};
use gatepost_store::Due;

use super::NumberMap;
use super::scheduler::{ASSURED_HEADS, Bucket};

/// Requests at once to an endpoint nothing is known about yet.
const FIRST_LIMIT: u32 = 8;
/// An endpoint that has earned no more than this is known not to answer: all of those together get
/// only part of the slots. More silence brings it down to one request, enough to notice its recovery.
const SILENT_LIMIT: u32 = 4;
/// Requests at once to an endpoint that answers, but slowly.
const SLOW_LIMIT: u32 = 16;
/// One in so many of an endpoint's requests at once is kept from bulk deliveries: what is urgent must not
/// wait until one of them has been answered.
const KEPT_FROM_BULK: u32 = 8;
/// An answer that took longer is slow.
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// What the lane learned about an endpoint from an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Feedback {
    /// It answered, whatever the status.
    Answered,
    /// It answered, but took longer than [`SLOW`].
    AnsweredSlowly,
    /// It did not.
    Silent,
    /// Nothing was learned (our own fault).
    Nothing,
}

/// The state of a webhook as the scheduler needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    /// Whether it takes anything.
    pub(crate) open: bool,
    /// Requests at once.
    pub(crate) max_in_flight: u32,
    /// Nothing before then.
    pub(crate) paused_until: Option<Timestamp>,
    /// Requests begun per second.
    pub(crate) rate_limit_per_s: Option<u32>,
}

impl Terms {
    /// Whether the webhook may be sent to.
    pub(super) fn takes(&self, now: Timestamp) -> bool {
        self.open && self.paused_until.is_none_or(|until| until <= now)
    }
}

/// What is known of one urgency of a webhook.
#[derive(Default)]
pub(super) struct Class {
    pub(super) heads: BTreeMap<(Timestamp, DeliverySeq), Due>,
    pub(super) next_due: Option<Timestamp>,
    pub(super) cursor: Option<(Timestamp, DeliverySeq)>,
    pub(super) refill: Option<Refill>,
    /// Whether the webhook stands in its tenant's list for this urgency.
    pub(super) queued: bool,
    /// Whether it stands in line for a read.
    pub(super) hungry: bool,
    /// What comes next is large: it is not read while large ones fill memory.
    pub(super) large: bool,
}

/// A read under way. What happens meanwhile is remembered, because the read may not have seen it.
#[derive(Default)]
pub(super) struct Refill {
    pub(super) settled: HashSet<DeliverySeq>,
    pub(super) missed: Option<Timestamp>,
    /// Set when the answer must not be used at all (the queue was reset meanwhile).
    pub(super) void: bool,
}

pub(super) struct Queue {
    pub(super) tenant: TenantKey,
    pub(super) terms: Option<Terms>,
    pub(super) classes: [Class; 3],
    /// Deliveries in memory, and the bytes each holds since it was started (0 for a head, which is
    /// counted elsewhere).
    pub(super) known: NumberMap<DeliverySeq, usize>,
    /// The highest number read from the store. What is offered below it may have been read, sent and
    /// settled already: whoever published it was slow to hand it over.
    pub(super) read_up_to: DeliverySeq,
    pub(super) in_flight: u32,
    /// Requests at once that its answers have earned so far; see [`Queue::learn`].
    pub(super) earned: u32,
    /// After a pause one request goes first; the others wait for its answer.
    pub(super) probing: bool,
    /// How often requests may begin; none: as often as they can.
    pub(super) rate: Option<Bucket>,
    /// The earliest timer set for this webhook.
    pub(super) armed: Option<Timestamp>,
}

impl Queue {
    pub(super) fn new(tenant: TenantKey) -> Self {
        Queue {
            tenant,
            terms: None,
            classes: Default::default(),
            known: NumberMap::default(),
            read_up_to: DeliverySeq(i64::MIN),
            in_flight: 0,
            earned: FIRST_LIMIT,
            probing: false,
            rate: None,
            armed: None,
        }
    }

    /// Requests at once, as far as those of this urgency may fill them.
    fn limit(&self, rank: usize) -> u32 {
        let Some(terms) = &self.terms else { return 0 };
        let limit = if self.probing { 1 } else { terms.max_in_flight.min(self.earned) };
        if rank == Urgency::Bulk.rank() { limit - limit / KEPT_FROM_BULK } else { limit }
    }

    /// Every quick answer earns one more request at once, silence costs half: an endpoint that is
    /// dead or hostile from the start never holds more than a few slots (P5).
    pub(super) fn learn(&mut self, feedback: Feedback, now: Timestamp) {
        match feedback {
            Feedback::Answered => self.earned = self.earned.saturating_add(1),
            Feedback::AnsweredSlowly => {
                self.earned = if self.earned > SLOW_LIMIT { SLOW_LIMIT } else { self.earned + 1 };
            }
            Feedback::Silent => self.earned = (self.earned / 2).max(1),
            Feedback::Nothing => return,
        }
        if let Some(terms) = &self.terms {
            self.earned = self.earned.min(terms.max_in_flight.max(FIRST_LIMIT));
            // Answers to requests from before the pause say nothing about its end.
            let paused = terms.paused_until.is_some_and(|until| until > now);
            if feedback != Feedback::Silent && !paused {
                self.probing = false;
            }
        }
    }

    /// Whether it is known not to answer.
    pub(super) fn is_silent(&self) -> bool {
        self.earned <= SILENT_LIMIT
    }

    /// Its part of the requests under way to silent endpoints.
    pub(super) fn silent_in_flight(&self) -> usize {
        if self.is_silent() { self.in_flight as usize } else { 0 }
    }

    /// Whether a request of this urgency may go to it now.
    pub(super) fn may_send(&self, rank: usize, now: Timestamp) -> bool {
        self.terms.is_some_and(|t| t.takes(now))
            && self.in_flight < self.limit(rank)
            && self.rate.as_ref().is_none_or(|bucket| bucket.has(now))
    }

    /// How many heads it may have of an urgency, where `window` is everybody's bound: one that may send
    /// only so often must not fill the window.
    pub(super) fn window(&self, window: usize) -> usize {
        self.rate.as_ref().map_or(window, |bucket| window.min((bucket.rate() as usize).max(ASSURED_HEADS)))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.known.is_empty()
            && self.in_flight == 0
            && self.classes.iter().all(|c| {
                // What stands in a line is forgotten when its turn comes, or it would stand there twice.
                c.heads.is_empty() && c.next_due.is_none() && c.refill.is_none() && !c.queued && !c.hungry
            })
    }
}
