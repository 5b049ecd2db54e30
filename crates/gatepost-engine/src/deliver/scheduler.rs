//! Which delivery goes next: a state machine without I/O.
//!
//! The store is the truth; this is a bounded window over it (P10). Per webhook and urgency there is
//! a list of *heads*, the earliest due deliveries, and one number, `next_due`: the earliest moment at
//! which the store may hold something that is not here. When that moment has come and the list runs
//! low, the lane reads more ([`Scheduler::wanted_refills`]).
//!
//! Invariants, each checked by the simulation:
//! - a pending delivery of this node is in `known` (a head, under way, or waiting for its record to
//!   be durable), or the class's `next_due` is not later than its due time;
//! - a delivery is in `known` at most once, so it is under way at most once;
//! - nothing sleeps while holding a slot.

#[cfg(test)]
pub(crate) mod audit;
mod limits;
mod rate;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, VecDeque};

use gatepost_core::event::Urgency;
use gatepost_core::{DeliverySeq, TenantKey, Timestamp, WebhookKey};
use gatepost_store::{Due, DuePage, DueQuery, Owed, Wake};

use super::NumberMap;
use super::queue::{Class, Queue, Refill};
pub(crate) use super::queue::{Feedback, Terms};
pub(super) use limits::ASSURED_HEADS;
pub use limits::Limits;
pub(crate) use limits::READ_AGAIN_AFTER;
use limits::{ASSURED_HEAD_BYTES, MAX_READS};
pub(super) use rate::Bucket;
use rate::Resting;
use turns::Turns;

/// See the module.
pub(crate) struct Scheduler {
    limits: Limits,
    queues: NumberMap<WebhookKey, Queue>,
    turns: Turns,
    timers: BTreeSet<(Timestamp, WebhookKey)>,
    resting: Resting,
    rate_waits: u64,
    /// Webhooks whose terms are not known yet.
    strangers: Vec<WebhookKey>,
    /// The highest number that webhooks forgotten since had read from the store.
    read_up_to: DeliverySeq,
    /// Classes that run low, first come first served: a webhook's turn to be read comes, however many
    /// others are hungry.
    hungry: VecDeque<(WebhookKey, usize)>,
    /// Of those the ones whose next delivery is large, while there is no room for it.
    large: VecDeque<(WebhookKey, usize)>,
    heads: usize,
    head_bytes: usize,
    in_flight: usize,
    /// Requests under way to endpoints known not to answer.
    silent_in_flight: usize,
    /// What the requests under way hold in memory, and what their outcomes hold until they are durable.
    flight_bytes: usize,
    unsettled: usize,
    unsettled_bytes: usize,
    /// Reads under way, and the heads they may bring.
    reading: usize,
    promised: usize,
    #[cfg(test)]
    audit: audit::Audit,
}

fn earlier(a: Option<Timestamp>, b: Timestamp) -> Option<Timestamp> {
    Some(a.map_or(b, |a| a.min(b)))
}

fn weight(due: &Due) -> usize {
    due.events.data_len() + due.body.as_ref().map_or(0, |b| b.len()) + 512
}

/// Whether it is more than what is assured to a class.
fn is_large(due: &Due) -> bool {
    weight(due) > ASSURED_HEAD_BYTES
}

/// Leaves what large rows there is no `room` for, and all after them, to a later page. Whether there were any.
fn leave_large(page: &mut DuePage, room: usize) -> bool {
    let mut sum = 0;
    let fits = |due: &Due| {
        let before = sum;
        sum += weight(due);
        before < room || !is_large(due)
    };
    let Some(cut) = page.rows.iter().map(fits).position(|fits| !fits) else { return false };
    page.rows.truncate(cut);
    page.more = true;
    true
}

/// What a request holds: the event, the body as sent (about as long, where it is yet to be rendered),
/// and what belongs to it. Events that several deliveries share are counted for each.
fn flight_weight(due: &Due) -> usize {
    let data = due.events.data_len();
    data + due.body.as_ref().map_or(data, |body| body.len()) + 2_048
}

impl Class {
    /// Past the limit on bytes a class may have a few small heads, or one of any size.
    fn may_have(&self, due: &Due) -> bool {
        self.heads.is_empty() || self.heads.values().map(weight).sum::<usize>() + weight(due) <= ASSURED_HEAD_BYTES
    }
}

impl Scheduler {
    /// An empty one.
    pub(crate) fn new(limits: Limits) -> Self {
        Scheduler {
            limits,
            queues: NumberMap::default(),
            turns: Turns::default(),
            timers: BTreeSet::new(),
            resting: Resting::default(),
            rate_waits: 0,
            strangers: Vec::new(),
            read_up_to: DeliverySeq(i64::MIN),
            hungry: VecDeque::new(),
            large: VecDeque::new(),
            heads: 0,
            head_bytes: 0,
            in_flight: 0,
            silent_in_flight: 0,
            flight_bytes: 0,
            unsettled: 0,
            unsettled_bytes: 0,
            reading: 0,
            promised: 0,
            #[cfg(test)]
            audit: audit::Audit::default(),
        }
    }

    /// Rows being read are as good as held.
    fn is_full(&self) -> bool {
        self.heads + self.promised >= self.limits.heads || self.head_bytes >= self.limits.head_bytes
    }

    /// There are so many large heads already that no webhook gets another: however many of them there
    /// are, they wait for each other (P10). Small ones go on.
    fn is_packed(&self) -> bool {
        self.head_bytes / Limits::HEADS_AT_WORST >= self.limits.head_bytes
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries held in memory ahead of their attempt.
    pub(crate) fn heads(&self) -> usize {
        self.heads
    }

    /// Webhooks with something to do.
    pub(crate) fn webhooks(&self) -> usize {
        self.queues.len()
    }

    /// Webhooks met since the last call whose [`Terms`] the lane must find out.
    pub(crate) fn take_strangers(&mut self) -> Vec<WebhookKey> {
        std::mem::take(&mut self.strangers)
    }

    /// A webhook is owed something that only the store knows.
    pub(crate) fn owed(&mut self, owed: &Owed, now: Timestamp) {
        for (rank, due) in owed.earliest.iter().enumerate() {
            if let Some(due) = due {
                self.stored(owed.tenant, owed.webhook, rank, *due, now);
            }
        }
    }

    /// A delivery in the store, due then, is not in memory.
    pub(crate) fn stored(&mut self, tenant: TenantKey, key: WebhookKey, rank: usize, due: Timestamp, now: Timestamp) {
        let queue = Self::queue(&mut self.queues, &mut self.strangers, self.read_up_to, tenant, key);
        if queue.terms.is_some_and(|t| !t.open) {
            // Whoever opens it looks at everything.
            return self.tidy(key);
        }
        let class = &mut queue.classes[rank];
        class.next_due = earlier(class.next_due, due);
        if class.cursor.is_some_and(|(at, _)| due <= at) {
            class.cursor = None;
        }
        if let Some(refill) = &mut class.refill {
            refill.missed = earlier(refill.missed, due);
        }
        if due > now {
            self.arm(key, due);
        } else {
            self.feed(key, rank);
        }
    }

    /// A delivery just committed (or reopened) by this node.
    pub(crate) fn offer(&mut self, due: Due, now: Timestamp) {
        let (key, tenant, rank) = (due.webhook, due.tenant, due.urgency.rank());
        let full = self.is_full();
        let packed = self.is_packed() && is_large(&due);
        let queue = Self::queue(&mut self.queues, &mut self.strangers, self.read_up_to, tenant, key);
        let window = if full { ASSURED_HEADS } else { queue.window(self.limits.window) };
        // What may not be sent to yet must not fill the window.
        let rests = queue.terms.is_some_and(|t| !t.takes(now));
        let class = &mut queue.classes[rank];
        if queue.known.contains_key(&due.seq) {
            // An older copy is here. As a head it gives way; under way, its settlement will be
            // superseded and the store is read again then.
            if Self::drop_head(class, due.seq, &mut self.heads, &mut self.head_bytes) {
                queue.known.remove(&due.seq);
            }
            return self.stored(tenant, key, rank, due.due, now);
        }
        if due.seq <= queue.read_up_to {
            return self.stored(tenant, key, rank, due.due, now);
        }
        let overtakes = class.next_due.is_some_and(|next| next <= due.due);
        let crowded = class.heads.len() >= window || full && !class.may_have(&due);
        class.large = is_large(&due);
        if rests || overtakes || due.due > now || crowded || packed {
            return self.stored(tenant, key, rank, due.due, now);
        }
        self.heads += 1;
        self.head_bytes += weight(&due);
        queue.known.insert(due.seq, 0);
        class.heads.insert((due.due, due.seq), due);
        self.make_ready(key, rank, now);
    }

    /// The webhook's terms, found out or changed. Closing gives its heads back to the store; opening
    /// looks for everything the store has (`reopened`, or known to have been closed).
    pub(crate) fn set_terms(
        &mut self,
        tenant: TenantKey,
        key: WebhookKey,
        terms: Terms,
        reopened: bool,
        now: Timestamp,
    ) {
        let queue = match self.queues.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if terms.open && reopened => {
                entry.insert(Queue { read_up_to: self.read_up_to, ..Queue::new(tenant) })
            }
            Entry::Vacant(_) => return,
        };
        let was = queue.terms.replace(terms);
        self.set_rate(key, terms.rate_limit_per_s, now);
        if !terms.open {
            self.give_back(key, true);
            return self.tidy(key);
        }
        if reopened || was.is_some_and(|t| !t.open) {
            for rank in 0..3 {
                self.stored(tenant, key, rank, Timestamp::EPOCH, now);
            }
        }
        let paused = terms.paused_until.filter(|until| *until > now);
        if let Some(until) = paused
            && was.and_then(|t| t.paused_until) != paused
        {
            self.pause(key, until);
        }
        self.wake(key, now);
    }

    /// Nothing is sent to the webhook before `until`; then one probe goes first.
    pub(crate) fn pause(&mut self, key: WebhookKey, until: Timestamp) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.probing = true;
        if let Some(terms) = &mut queue.terms {
            terms.paused_until = terms.paused_until.max(Some(until));
        }
        self.arm(key, until);
        // A paused webhook must not fill the window.
        self.give_back(key, false);
    }

    /// Forgets heads, so that they are read again when their time comes.
    fn give_back(&mut self, key: WebhookKey, forget: bool) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        for class in &mut queue.classes {
            let heads = std::mem::take(&mut class.heads);
            for ((due, seq), head) in heads {
                self.heads -= 1;
                self.head_bytes -= weight(&head);
                queue.known.remove(&seq);
                class.next_due = earlier(class.next_due, due);
            }
            class.cursor = None;
            if let Some(refill) = &mut class.refill {
                refill.void = true;
            }
            if forget {
                class.next_due = None;
            }
        }
    }

    /// A delivery is no longer owed: do not start it.
    ///
    /// This may be heard after the delivery was reopened again, so what is dropped for it is looked
    /// for in the store once more.
    pub(crate) fn cancel(&mut self, key: WebhookKey, seq: DeliverySeq, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        let tenant = queue.tenant;
        for rank in 0..3 {
            let Some(queue) = self.queues.get_mut(&key) else { return };
            let class = &mut queue.classes[rank];
            let mut doubt = false;
            if Self::drop_head(class, seq, &mut self.heads, &mut self.head_bytes) {
                queue.known.remove(&seq);
                doubt = true;
            }
            // A read under way may still have seen it as pending.
            if let Some(refill) = &mut class.refill {
                refill.settled.insert(seq);
                doubt = true;
            }
            if doubt {
                self.stored(tenant, key, rank, Timestamp::EPOCH, now);
            }
        }
        self.tidy(key);
    }

    /// A delivery is not as memory has it: it is forgotten, unless it is under way, and looked for in
    /// the store.
    pub(crate) fn woken(&mut self, wake: &Wake, now: Timestamp) {
        self.cancel(wake.webhook, wake.seq, now);
        let at = |rank: usize| match wake.at {
            Some((urgency, due)) => (urgency.rank() == rank).then_some(due),
            None => Some(Timestamp::EPOCH),
        };
        for (rank, due) in (0..Urgency::ALL.len()).filter_map(|rank| Some((rank, at(rank)?))) {
            self.stored(wake.tenant, wake.webhook, rank, due, now);
        }
    }

    fn drop_head(class: &mut Class, seq: DeliverySeq, heads: &mut usize, bytes: &mut usize) -> bool {
        let Some(position) = class.heads.keys().find(|(_, s)| *s == seq).copied() else { return false };
        if let Some(head) = class.heads.remove(&position) {
            *heads -= 1;
            *bytes -= weight(&head);
        }
        true
    }

    /// An attempt ended; what is `kept` of it, in bytes, waits to be recorded. The delivery stays known
    /// until [`Scheduler::settled`].
    pub(crate) fn ended(
        &mut self,
        tenant: TenantKey,
        key: WebhookKey,
        seq: DeliverySeq,
        feedback: Feedback,
        kept: usize,
        now: Timestamp,
    ) {
        self.in_flight -= 1;
        self.unsettled += 1;
        let mut speaks = false;
        if let Some(queue) = self.queues.get_mut(&key) {
            if let Some(bytes) = queue.known.get_mut(&seq) {
                self.flight_bytes = self.flight_bytes.saturating_sub(*bytes);
                *bytes += kept;
                self.unsettled_bytes += *bytes;
            }
            let before = queue.silent_in_flight();
            speaks = queue.is_silent();
            queue.in_flight -= 1;
            queue.learn(feedback, now);
            speaks &= !queue.is_silent();
            self.silent_in_flight = self.silent_in_flight - before + queue.silent_in_flight();
            self.wake(key, now);
        }
        self.turns.ended(tenant, speaks);
    }

    /// The record of an attempt is durable. `again`: when the store says the delivery is next due.
    pub(crate) fn settled(
        &mut self,
        tenant: TenantKey,
        key: WebhookKey,
        urgency: Urgency,
        seq: DeliverySeq,
        again: Option<Timestamp>,
        now: Timestamp,
    ) {
        self.unsettled = self.unsettled.saturating_sub(1);
        let rank = urgency.rank();
        if let Some(queue) = self.queues.get_mut(&key) {
            let bytes = queue.known.remove(&seq).unwrap_or(0);
            self.unsettled_bytes = self.unsettled_bytes.saturating_sub(bytes);
            if let Some(refill) = &mut queue.classes[rank].refill {
                refill.settled.insert(seq);
            }
        }
        if let Some(due) = again {
            self.stored(tenant, key, rank, due, now);
        }
        self.tidy(key);
    }

    /// Time passed: pauses end, stored deliveries fall due.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.resting.forget_full(now);
        while let Some((at, key)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            queue.armed = None;
            self.wake(key, now);
        }
    }

    /// Sets the webhook's timer, unless it goes off earlier anyway: one timer a webhook, however
    /// many deliveries wait (P10).
    fn arm(&mut self, key: WebhookKey, at: Timestamp) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if queue.armed.is_none_or(|armed| at < armed) {
            if let Some(later) = queue.armed.replace(at) {
                self.timers.remove(&(later, key));
            }
            self.timers.insert((at, key));
        }
    }

    /// When [`Scheduler::advance`] has something to do next.
    pub(crate) fn next_wake(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Looks at a webhook again: refills it needs, turns it may take, its next timer.
    fn wake(&mut self, key: WebhookKey, now: Timestamp) {
        let Some(queue) = self.queues.get(&key) else { return };
        let mut next = queue.terms.and_then(|t| t.paused_until).filter(|until| *until > now);
        let mut hungry = [false; 3];
        for (rank, class) in queue.classes.iter().enumerate() {
            match class.next_due {
                Some(due) if due <= now => hungry[rank] = true,
                Some(due) => next = earlier(next, due),
                None => {}
            }
        }
        if let Some(at) = next {
            self.arm(key, at);
        }
        for (rank, hungry) in hungry.into_iter().enumerate() {
            if hungry {
                self.feed(key, rank);
            }
            self.make_ready(key, rank, now);
        }
    }

    /// Puts a class in line for a read.
    fn feed(&mut self, key: WebhookKey, rank: usize) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if !std::mem::replace(&mut queue.classes[rank].hungry, true) {
            self.hungry.push_back((key, rank));
        }
    }

    fn make_ready(&mut self, key: WebhookKey, rank: usize, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if queue.classes[rank].queued || queue.classes[rank].heads.is_empty() {
            return;
        }
        if !queue.may_send(rank, now) {
            // What cannot go now makes room for large ones that can.
            if !self.large.is_empty() && queue.classes[rank].heads.values().any(is_large) {
                self.give_back(key, false);
            }
            return self.arm_for_rate(key, now);
        }
        queue.classes[rank].queued = true;
        let tenant = queue.tenant;
        self.turns.ready(tenant, key, rank);
    }

    /// Reads to start now: classes that run low and have something due in the store.
    pub(crate) fn wanted_refills(&mut self, now: Timestamp) -> Vec<DueQuery> {
        if !self.is_packed() {
            let next = self.large.len().min(MAX_READS);
            self.hungry.extend(self.large.drain(..next));
        }
        if self.hungry.is_empty() {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        while self.reading < MAX_READS
            && let Some((key, rank)) = self.hungry.pop_front()
        {
            let (full, packed) = (self.is_full(), self.is_packed());
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            if packed && queue.classes[rank].large {
                self.large.push_back((key, rank));
                continue;
            }
            queue.classes[rank].hungry = false;
            let sendable = queue.terms.is_some_and(|t| t.takes(now));
            let window = queue.window(self.limits.window);
            let low = if full { ASSURED_HEADS / 2 } else { window / 4 };
            let limit = if full { ASSURED_HEADS } else { window };
            let known = queue.known.len();
            let class = &mut queue.classes[rank];
            let due = class.next_due.is_some_and(|next| next <= now);
            if !due || !sendable || class.refill.is_some() {
                // Paused and closed webhooks are looked at again when that ends, a read under way
                // when it is done.
                self.tidy(key);
                continue;
            }
            if class.heads.len() > low || full && class.heads.values().any(is_large) {
                continue;
            }
            class.refill = Some(Refill::default());
            // Known deliveries are pending in the store too and come back with the page.
            let limit = limit + if class.cursor.is_none() { known } else { 0 };
            self.promised += limit;
            self.reading += 1;
            wanted.push(DueQuery {
                webhook: key,
                urgency: Urgency::ALL[rank],
                now,
                after: class.cursor,
                limit,
                max_bytes: if full { ASSURED_HEAD_BYTES } else { self.limits.head_bytes / 16 },
            });
        }
        wanted
    }

    /// The answer to a refill; `None`: it could not be read, try again at `retry_at`.
    pub(crate) fn refilled(&mut self, query: &DueQuery, page: Option<DuePage>, retry_at: Timestamp, now: Timestamp) {
        let rank = query.urgency.rank();
        self.reading = self.reading.saturating_sub(1);
        self.promised = self.promised.saturating_sub(query.limit);
        let Some(queue) = self.queues.get_mut(&query.webhook) else { return };
        let tenant = queue.tenant;
        let open = queue.terms.is_some_and(|t| t.open);
        let window = queue.window(self.limits.window);
        let class = &mut queue.classes[rank];
        let Some(refill) = class.refill.take() else { return };
        let Some(mut page) = page else {
            // Still due, so the wake at `retry_at` asks again.
            self.arm(query.webhook, retry_at);
            return;
        };
        if refill.void {
            if open {
                self.stored(tenant, query.webhook, rank, query.now, now);
            }
            return self.tidy(query.webhook);
        }
        let room = (Limits::HEADS_AT_WORST * self.limits.head_bytes).saturating_sub(self.head_bytes);
        class.large = leave_large(&mut page, room) || page.more && page.rows.last().is_some_and(is_large);
        class.next_due = if page.more { Some(query.now) } else { page.next_due };
        if let Some(missed) = refill.missed {
            class.next_due = earlier(class.next_due, missed);
        }
        if let Some(last) = page.rows.last() {
            class.cursor = Some((last.due, last.seq));
        }
        for due in page.rows {
            queue.read_up_to = queue.read_up_to.max(due.seq);
            if refill.settled.contains(&due.seq) {
                continue;
            }
            let held = queue.known.contains_key(&due.seq);
            #[cfg(test)]
            let held = held && !self.audit.planted.claims_twice;
            if held {
                continue;
            }
            queue.known.insert(due.seq, 0);
            self.heads += 1;
            self.head_bytes += weight(&due);
            class.heads.insert((due.due, due.seq), due);
        }
        if let (Some(missed), Some((at, _))) = (refill.missed, class.cursor)
            && missed <= at
        {
            class.cursor = None;
        }
        if let Some(next) = class.next_due {
            if next > now {
                self.arm(query.webhook, next);
            } else if class.heads.len() <= window / 4 {
                self.feed(query.webhook, rank);
            }
        }
        self.make_ready(query.webhook, rank, now);
        self.tidy(query.webhook);
    }

    /// Forgets a webhook with nothing left to do.
    fn tidy(&mut self, key: WebhookKey) {
        if !self.queues.get(&key).is_some_and(Queue::is_idle) {
            return;
        }
        let Some(queue) = self.queues.remove(&key) else { return };
        self.read_up_to = self.read_up_to.max(queue.read_up_to);
        if let Some(armed) = queue.armed {
            self.timers.remove(&(armed, key));
        }
        if let Some(bucket) = queue.rate {
            self.resting.keep(key, bucket);
        }
    }

    /// Whether the webhook has anything to do.
    pub(crate) fn has(&self, key: WebhookKey) -> bool {
        self.queues.contains_key(&key)
    }

    /// The webhook is gone for good.
    pub(crate) fn remove(&mut self, key: WebhookKey) {
        if let Some(queue) = self.queues.get_mut(&key) {
            if let Some(terms) = &mut queue.terms {
                terms.open = false;
            }
            self.give_back(key, true);
            self.tidy(key);
        }
    }

    fn queue<'q>(
        queues: &'q mut NumberMap<WebhookKey, Queue>,
        strangers: &mut Vec<WebhookKey>,
        read_up_to: DeliverySeq,
        tenant: TenantKey,
        key: WebhookKey,
    ) -> &'q mut Queue {
        queues.entry(key).or_insert_with(|| {
            strangers.push(key);
            Queue { read_up_to, ..Queue::new(tenant) }
        })
    }
}
