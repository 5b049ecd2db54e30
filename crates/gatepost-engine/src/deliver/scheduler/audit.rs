//! What tests see of the scheduler: every pick, judged by looking at everything instead of by the
//! scheduler's own bookkeeping; and the bookkeeping itself. Also two bugs to plant, to show that the
//! simulation finds them.

use std::collections::HashSet;

use super::Scheduler;
use crate::deliver::queue::{Class, Queue};
use gatepost_core::event::Urgency;
use gatepost_core::{DeliverySeq, TenantKey, Timestamp, WebhookKey};
use gatepost_store::Due;

/// Bugs on demand.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Planted {
    /// A delivery that is here already is taken from a read once more.
    pub(crate) claims_twice: bool,
    /// A tenant that never waits its turn.
    pub(crate) favourite: Option<TenantKey>,
}

/// One pick.
#[derive(Clone, Debug)]
pub(crate) struct Pick {
    pub(crate) tenant: TenantKey,
    /// Something more urgent of the same tenant could have gone instead.
    pub(crate) overlooked: bool,
    /// Other tenants that could have gone as well, ascending.
    pub(crate) waiting: Vec<TenantKey>,
}

#[derive(Default)]
pub(super) struct Audit {
    pub(super) planted: Planted,
    picks: Vec<Pick>,
}

impl Scheduler {
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.audit.planted = planted;
    }

    /// The picks since the last call.
    pub(crate) fn take_picks(&mut self) -> Vec<Pick> {
        std::mem::take(&mut self.audit.picks)
    }

    pub(super) fn note_pick(&mut self, due: &Due, now: Timestamp) {
        let could_go = |queue: &Queue, below: usize| {
            let waits = |(rank, class): (usize, &Class)| !class.heads.is_empty() && queue.may_send(rank, now);
            (!queue.is_silent() || self.may_try_silent()) && queue.classes[..below].iter().enumerate().any(waits)
        };
        let rank = due.urgency.rank();
        let overlooked = self.queues.values().any(|q| q.tenant == due.tenant && could_go(q, rank));
        let mut waiting: Vec<_> = self
            .queues
            .values()
            .filter(|q| q.tenant != due.tenant && could_go(q, 3) && self.may_start(self.slots_of(q.tenant)))
            .map(|q| q.tenant)
            .collect();
        waiting.sort_unstable();
        waiting.dedup();
        self.audit.picks.push(Pick { tenant: due.tenant, overlooked, waiting });
    }

    pub(super) fn plant_favourite(&mut self) {
        if let Some(favourite) = self.audit.planted.favourite
            && let Some(position) = self.turns.ring.iter().position(|tenant| *tenant == favourite)
        {
            self.turns.ring.remove(position);
            self.turns.ring.push_front(favourite);
        }
    }

    fn slots_of(&self, tenant: TenantKey) -> usize {
        self.turns.tenants.get(&tenant).map_or(0, |turn| turn.in_flight)
    }

    /// Requests that there may be under way at most: each tenant may have one beyond what they share.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.limits.slots * 3 / 2 + self.turns.tenants.len()
    }

    /// Deliveries in memory that others wait for, and how urgent each is taken to be.
    pub(crate) fn ordered_heads(&self) -> Vec<(TenantKey, DeliverySeq, Urgency)> {
        let heads = self.queues.values().flat_map(|q| &q.classes).flat_map(|c| c.heads.values());
        heads.filter(|due| due.ordered).map(|due| (due.tenant, due.seq, due.urgency)).collect()
    }

    /// Rows that reads under way may still bring.
    pub(crate) fn promised(&self) -> usize {
        self.promised
    }

    /// What is wrong with the bookkeeping; empty when nothing is.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.audit.planted.claims_twice {
            // Known to be wrong: it shall be found by what it does, not by what it breaks in here.
            return found;
        }
        let mut must = |holds: bool, text: &str| {
            if !holds {
                found.push(text.to_owned());
            }
        };
        let heads = |q: &Queue| q.classes.iter().map(|c| c.heads.len()).sum::<usize>();
        let all = || self.queues.values();
        let weighed: usize = all().flat_map(|q| &q.classes).flat_map(|c| c.heads.values()).map(super::weight).sum();
        must(self.heads == all().map(heads).sum::<usize>(), "heads are miscounted");
        must(self.head_bytes == weighed, "bytes of heads are miscounted");
        must(self.in_flight == all().map(|q| q.in_flight as usize).sum::<usize>(), "requests are miscounted");
        let turns = self.turns.tenants.values().map(|t| t.in_flight).sum::<usize>();
        must(self.in_flight == turns, "requests of tenants are miscounted");
        let silent = all().map(Queue::silent_in_flight).sum::<usize>();
        must(self.silent_in_flight == silent, "requests to silent endpoints are miscounted");
        let held = all().flat_map(|q| q.known.values()).sum::<usize>();
        must(self.flight_bytes + self.unsettled_bytes == held, "bytes under way are miscounted");
        must(self.in_flight > 0 || self.flight_bytes == 0, "bytes are under way and no request is");
        must(self.unsettled > 0 || self.unsettled_bytes == 0, "bytes are unsettled and no outcome is");
        let reading = all().flat_map(|q| &q.classes).filter(|c| c.refill.is_some()).count();
        must(self.reading == reading, "reads are miscounted");
        must(self.reading > 0 || self.promised == 0, "rows are promised that nobody reads");
        must(self.timers.len() == all().filter(|q| q.armed.is_some()).count(), "timers are not one a webhook");
        for (key, queue) in &self.queues {
            let distinct: HashSet<_> = queue.classes.iter().flat_map(|c| c.heads.keys()).map(|(_, seq)| *seq).collect();
            must(distinct.len() == heads(queue), "a delivery is a head twice");
            must(distinct.iter().all(|seq| queue.known.contains_key(seq)), "a head is not known");
            must(queue.known.len() >= distinct.len() + queue.in_flight as usize, "a request's delivery is not known");
            must(queue.armed.is_none_or(|at| self.timers.contains(&(at, *key))), "a timer is lost");
            for (rank, class) in queue.classes.iter().enumerate() {
                let listed =
                    self.turns.tenants.get(&queue.tenant).map_or(0, |turn| {
                        turn.ready[rank].iter().chain(&turn.hushed[rank]).filter(|k| *k == key).count()
                    });
                must(listed == usize::from(class.queued), "a webhook stands in line not exactly when it says so");
                must(class.hungry == self.hungry.contains(&(*key, rank)), "a hungry class is not in line");
            }
        }
        for (tenant, turn) in &self.turns.tenants {
            let listed = self.turns.ring.iter().filter(|in_ring| *in_ring == tenant).count();
            must(listed == usize::from(turn.in_ring), "a tenant is in the ring not exactly when it says so");
            let hushed = self.turns.hushed.iter().filter(|hushed| *hushed == tenant).count();
            must(hushed == usize::from(turn.in_hushed), "a tenant is hushed not exactly when it says so");
            let has_hushed = turn.hushed.iter().any(|keys| !keys.is_empty());
            must(!has_hushed || turn.in_hushed, "a hushed webhook waits where nobody looks");
            let parked = turn.parked.is_some_and(|place| place.0 == turn.in_flight);
            must(parked == turn.parked.is_some(), "a tenant is parked with a wrong count");
            must(turn.parked.is_none_or(|place| self.turns.parked.contains(&place)), "a parked tenant is lost");
            must(!turn.waits() || (turn.in_ring != parked), "a tenant waits neither in the ring nor parked");
        }
        let parked = self.turns.tenants.values().filter(|turn| turn.parked.is_some()).count();
        must(self.turns.parked.len() == parked, "parked tenants are miscounted");
        found
    }

    /// Deliveries and webhooks that could go at `now` but are in no line: they would wait for good.
    pub(crate) fn forgotten(&self, now: Timestamp) -> Vec<WebhookKey> {
        let mut forgotten: Vec<_> = self
            .queues
            .iter()
            .filter(|(_, q)| {
                let idle = |(rank, c): (usize, &Class)| !c.heads.is_empty() && !c.queued && q.may_send(rank, now);
                q.classes.iter().enumerate().any(idle)
            })
            .map(|(key, _)| *key)
            .collect();
        forgotten.sort_unstable();
        forgotten
    }
}
