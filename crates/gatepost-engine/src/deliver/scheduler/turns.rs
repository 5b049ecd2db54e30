//! Whose turn it is: tenants in turn, urgency first within a tenant.
//!
//! A tenant with something to send is in exactly one of two places: in the `ring`, where its turn
//! comes, or `parked`, because it has as many requests under way as it may. A parked tenant costs
//! nothing until it may go again, however many of them there are (P5). Webhooks that are known not
//! to answer are `hushed` while those have all the slots they may have together.

use std::collections::{BTreeSet, VecDeque};

use gatepost_core::{TenantKey, Timestamp, WebhookKey};
use gatepost_store::Due;

use super::super::NumberMap;
use super::limits::{ASSURED_SLOTS, Limits};
use super::{Scheduler, flight_weight, weight};

/// Fewest requests under way first, then who waits longest.
type Place = (usize, u64, TenantKey);

#[derive(Default)]
pub(super) struct Turn {
    pub(super) ready: [VecDeque<WebhookKey>; 3],
    pub(super) hushed: [VecDeque<WebhookKey>; 3],
    pub(super) in_flight: usize,
    pub(super) in_ring: bool,
    pub(super) in_hushed: bool,
    pub(super) parked: Option<Place>,
}

impl Turn {
    pub(super) fn waits(&self) -> bool {
        self.ready.iter().any(|ready| !ready.is_empty())
    }

    fn has_hushed(&self) -> bool {
        self.hushed.iter().any(|hushed| !hushed.is_empty())
    }

    /// The hushed webhooks go before the others: they have waited.
    fn unhush(&mut self) {
        for (hushed, ready) in self.hushed.iter_mut().zip(&mut self.ready) {
            hushed.append(ready);
            std::mem::swap(hushed, ready);
        }
    }
}

/// The tenants with something under way or waiting.
#[derive(Default)]
pub(super) struct Turns {
    pub(super) tenants: NumberMap<TenantKey, Turn>,
    pub(super) ring: VecDeque<TenantKey>,
    pub(super) parked: BTreeSet<Place>,
    pub(super) hushed: VecDeque<TenantKey>,
    tickets: u64,
}

impl Turns {
    /// A webhook has something that may be sent.
    pub(super) fn ready(&mut self, tenant: TenantKey, key: WebhookKey, rank: usize) {
        self.tenants.entry(tenant).or_default().ready[rank].push_back(key);
        self.settle_in(tenant);
    }

    /// One of the tenant's requests ended. `speaks`: its endpoint is no longer a silent one.
    pub(super) fn ended(&mut self, tenant: TenantKey, speaks: bool) {
        let Some(turn) = self.tenants.get_mut(&tenant) else { return };
        turn.in_flight = turn.in_flight.saturating_sub(1);
        if speaks {
            turn.unhush();
        }
        if let Some(place) = turn.parked.take() {
            self.parked.remove(&place);
        }
        self.settle_in(tenant);
    }

    /// Puts a tenant where it belongs, unless it is there.
    fn settle_in(&mut self, tenant: TenantKey) {
        let Some(turn) = self.tenants.get_mut(&tenant) else { return };
        if turn.has_hushed() && !turn.in_hushed {
            turn.in_hushed = true;
            self.hushed.push_back(tenant);
        }
        if turn.in_ring || turn.parked.is_some() {
            return;
        }
        if turn.waits() {
            turn.in_ring = true;
            self.ring.push_back(tenant);
        } else if turn.in_flight == 0 && !turn.in_hushed {
            self.tenants.remove(&tenant);
        }
    }

    fn park(&mut self, tenant: TenantKey) {
        let Some(turn) = self.tenants.get_mut(&tenant) else { return };
        self.tickets += 1;
        let place = (turn.in_flight, self.tickets, tenant);
        turn.parked = Some(place);
        self.parked.insert(place);
    }

    fn unpark(&mut self, place: Place) {
        self.parked.remove(&place);
        if let Some(turn) = self.tenants.get_mut(&place.2) {
            turn.parked = None;
        }
        self.settle_in(place.2);
    }

    /// Lets the tenant try its hushed webhooks whose turn it is; whether there was one.
    fn unhush_next(&mut self) -> bool {
        let Some(tenant) = self.hushed.pop_front() else { return false };
        if let Some(turn) = self.tenants.get_mut(&tenant) {
            turn.in_hushed = false;
            turn.unhush();
        }
        self.settle_in(tenant);
        true
    }
}

impl Scheduler {
    /// Requests assured to each tenant: half of the slots, divided.
    pub(super) fn share(&self) -> usize {
        (self.limits.slots / (2 * self.turns.tenants.len().max(1))).clamp(1, ASSURED_SLOTS)
    }

    /// Whether a tenant with that many requests under way may start another. Who has fewer may
    /// whenever who has more may.
    ///
    /// A tenant may occupy as many slots as it leaves free, so that no number of slow receivers of
    /// one tenant takes the slots of another; always its share; and with nothing under way always one.
    pub(super) fn may_start(&self, has: usize) -> bool {
        let Scheduler { limits, in_flight, .. } = self;
        let bytes = self.flight_bytes + self.unsettled_bytes;
        if has == 0 {
            return *in_flight < limits.slots + limits.extra_slots
                && bytes / Limits::FLIGHT_AT_WORST < limits.flight_bytes;
        }
        let free = limits.slots.saturating_sub(*in_flight);
        *in_flight < limits.slots * 3 / 2 && bytes < limits.flight_bytes && has < free.max(self.share())
    }

    /// Whether a request to an endpoint that is known not to answer may be started: together they
    /// get half of the slots.
    pub(super) fn may_try_silent(&self) -> bool {
        self.silent_in_flight < (self.limits.slots / 2).max(1)
    }

    /// The store is three quarters of the way to being [behind](Scheduler::is_behind): what is accepted
    /// now would only make it so.
    pub(crate) fn falls_behind(&self) -> bool {
        self.unsettled * 4 >= self.limits.unsettled * 3 || self.unsettled_bytes * 4 >= self.limits.flight_bytes * 3
    }

    /// The store does not keep up: nothing is started until it does.
    pub(super) fn is_behind(&self) -> bool {
        self.unsettled >= self.limits.unsettled || self.unsettled_bytes >= self.limits.flight_bytes
    }

    /// The next delivery to start, if there is one that may be: urgency first within a tenant,
    /// tenants in turn. `None` means that none may, until something ends, settles or is offered.
    pub(crate) fn pick(&mut self, now: Timestamp) -> Option<Due> {
        if self.is_behind() {
            return None;
        }
        loop {
            // One of each at a time: what it takes may be what the next would need.
            let mut woken = false;
            if let Some(place) = self.turns.parked.first().copied()
                && self.may_start(place.0)
            {
                self.turns.unpark(place);
                woken = true;
            }
            woken |= self.may_try_silent() && self.turns.unhush_next();
            if let Some(due) = self.pick_from_ring(now) {
                #[cfg(test)]
                self.note_pick(&due, now);
                return Some(due);
            }
            if !woken {
                return None;
            }
        }
    }

    fn pick_from_ring(&mut self, now: Timestamp) -> Option<Due> {
        #[cfg(test)]
        self.plant_favourite();
        // Ends: who does not go leaves the ring.
        while let Some(tenant) = self.turns.ring.pop_front() {
            let Some(turn) = self.turns.tenants.get_mut(&tenant) else { continue };
            turn.in_ring = false;
            let has = turn.in_flight;
            if !self.may_start(has) {
                self.turns.park(tenant);
                continue;
            }
            let picked = self.pick_from(tenant, now);
            self.turns.settle_in(tenant);
            if picked.is_some() {
                return picked;
            }
        }
        None
    }

    fn pick_from(&mut self, tenant: TenantKey, now: Timestamp) -> Option<Due> {
        let may_try_silent = self.may_try_silent();
        if may_try_silent {
            self.turns.tenants.get_mut(&tenant)?.unhush();
        }
        for rank in 0..3 {
            while let Some(key) = self.turns.tenants.get_mut(&tenant)?.ready[rank].pop_front() {
                let Some(queue) = self.queues.get_mut(&key) else { continue };
                if queue.may_send(rank, now) && queue.is_silent() && !may_try_silent {
                    self.turns.tenants.get_mut(&tenant)?.hushed[rank].push_back(key);
                    continue;
                }
                queue.classes[rank].queued = false;
                if !queue.may_send(rank, now) {
                    if !queue.classes[rank].heads.is_empty() {
                        self.arm_for_rate(key, now);
                    }
                    self.tidy(key);
                    continue;
                }
                let class = &mut queue.classes[rank];
                let Some((_, due)) = class.heads.pop_first() else {
                    self.tidy(key);
                    continue;
                };
                let few = class.heads.len();
                let stored = class.next_due.is_some_and(|next| next <= now);
                let low = stored && few <= queue.window(self.limits.window) / 4;
                if let Some(bucket) = &mut queue.rate {
                    bucket.take(now);
                }
                self.silent_in_flight += usize::from(queue.is_silent());
                queue.in_flight += 1;
                queue.known.insert(due.seq, flight_weight(&due));
                self.heads -= 1;
                self.head_bytes -= weight(&due);
                self.in_flight += 1;
                self.flight_bytes += flight_weight(&due);
                self.turns.tenants.get_mut(&tenant)?.in_flight += 1;
                if low {
                    self.feed(key, rank);
                }
                self.make_ready(key, rank, now);
                return Some(due);
            }
        }
        None
    }
}
