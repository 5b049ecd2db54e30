//! The scheduler alone: small worlds by hand, and large ones by chance against a store that is a map.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_core::event::Event;
use gatepost_core::{EventId, EventSeq};
use gatepost_store::DeliveryEvents;
use proptest::prelude::*;

use super::*;
use crate::deliver::{Command, Inbox};

const SMALL: Limits = Limits {
    slots: 3,
    extra_slots: 4_096,
    window: 4,
    heads: 10,
    head_bytes: 1 << 20,
    flight_bytes: 8 << 10,
    unsettled: 5,
};
pub(super) const ROOMY: Limits = Limits {
    slots: 64,
    extra_slots: 4_096,
    window: 64,
    heads: 1_000,
    head_bytes: 1 << 20,
    flight_bytes: 1 << 20,
    unsettled: 100,
};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + seconds)
}

pub(super) fn due(seq: i64, webhook: i64, urgency: Urgency, at: Timestamp) -> Due {
    let event = Event {
        seq: EventSeq(seq),
        tenant: tenant_of(webhook),
        id: EventId::numbered(at, EventSeq(seq)),
        event_type: "user.created".parse().unwrap(),
        timestamp: at,
        accepted_at: at,
        subject: None,
        urgency,
        attributes: None,
        data: Bytes::from_static(b"{}"),
        registry_version: 1,
        trace: None,
    };
    Due {
        seq: DeliverySeq(seq),
        created_at: at,
        tenant: tenant_of(webhook),
        webhook: WebhookKey(webhook),
        revision: 1,
        events: DeliveryEvents::One(Arc::new(event)),
        due: at,
        urgency,
        attempts: 0,
        budget_start: 0,
        manual: false,
        generation: 0,
        ordered: false,
        body: None,
    }
}

/// Webhooks 10 to 19 are tenant 1's, 20 to 29 tenant 2's, and so on.
pub(super) fn tenant_of(webhook: i64) -> TenantKey {
    TenantKey(webhook / 10)
}

pub(super) fn open() -> Terms {
    Terms { open: true, max_in_flight: 32, paused_until: None, rate_limit_per_s: None }
}

/// Tells the terms of every webhook met.
pub(super) fn introduce(scheduler: &mut Scheduler, terms: Terms, now: Timestamp) {
    for key in scheduler.take_strangers() {
        scheduler.set_terms(tenant_of(key.0), key, terms, false, now);
    }
}

pub(super) fn picks(scheduler: &mut Scheduler, now: Timestamp) -> Vec<i64> {
    std::iter::from_fn(|| scheduler.pick(now)).map(|due| due.seq.0).collect()
}

pub(super) fn finish(scheduler: &mut Scheduler, webhook: i64, seq: i64, feedback: Feedback, now: Timestamp) {
    let (tenant, key) = (tenant_of(webhook), WebhookKey(webhook));
    scheduler.ended(tenant, key, DeliverySeq(seq), feedback, 0, now);
    scheduler.settled(tenant, key, Urgency::Normal, DeliverySeq(seq), None, now);
}

#[test]
fn urgent_goes_before_normal_before_bulk_whatever_came_first() {
    let mut scheduler = Scheduler::new(ROOMY);
    for (seq, webhook, urgency) in [
        (1, 10, Urgency::Bulk),
        (2, 11, Urgency::Normal),
        (3, 10, Urgency::Urgent),
        (4, 12, Urgency::Urgent),
        (5, 10, Urgency::Normal),
    ] {
        scheduler.offer(due(seq, webhook, urgency, at(0)), at(0));
    }
    assert_eq!(picks(&mut scheduler, at(0)), Vec::<i64>::new(), "nothing goes before the terms are known");
    introduce(&mut scheduler, open(), at(0));
    // Webhooks in turn within an urgency.
    assert_eq!(picks(&mut scheduler, at(0)), [3, 4, 5, 2, 1]);
}

#[test]
fn p5_tenants_go_in_turn_whatever_they_have_waiting() {
    let mut scheduler = Scheduler::new(ROOMY);
    for seq in 0..6 {
        scheduler.offer(due(seq, 10, Urgency::Urgent, at(0)), at(0));
    }
    scheduler.offer(due(100, 20, Urgency::Bulk, at(0)), at(0));
    scheduler.offer(due(101, 20, Urgency::Bulk, at(0)), at(0));
    scheduler.offer(due(200, 30, Urgency::Normal, at(0)), at(0));
    introduce(&mut scheduler, open(), at(0));
    assert_eq!(picks(&mut scheduler, at(0)), [0, 100, 200, 1, 101, 2, 3, 4, 5]);
}

#[test]
fn after_a_pause_one_probe_goes_first() {
    let mut scheduler = Scheduler::new(ROOMY);
    for seq in 0..4 {
        scheduler.stored(tenant_of(10), WebhookKey(10), 1, at(0), at(0));
        scheduler.offer(due(seq, 10, Urgency::Normal, at(0)), at(0));
    }
    introduce(&mut scheduler, open(), at(0));
    scheduler.pause(WebhookKey(10), at(60));
    assert_eq!(scheduler.heads(), 0, "a paused webhook holds no heads");
    scheduler.offer(due(4, 10, Urgency::Bulk, at(1)), at(1));
    assert_eq!(scheduler.heads(), 0, "and gets none");
    assert!(scheduler.wanted_refills(at(59)).is_empty(), "nor is it read for");
    assert_eq!(scheduler.next_wake(), Some(at(60)));

    scheduler.advance(at(60));
    let queries = scheduler.wanted_refills(at(60));
    assert_eq!(queries.len(), 2, "the pause is over");
    let rows = (0..4).map(|seq| due(seq, 10, Urgency::Normal, at(0))).collect();
    let query = queries.iter().find(|query| query.urgency == Urgency::Normal).expect("one of two");
    scheduler.refilled(query, Some(DuePage { rows, more: false, next_due: None }), at(61), at(60));
    assert_eq!(picks(&mut scheduler, at(60)), [0]);
    finish(&mut scheduler, 10, 0, Feedback::Silent, at(61));
    assert_eq!(picks(&mut scheduler, at(61)), [1], "silence is no answer: still one at a time");
    finish(&mut scheduler, 10, 1, Feedback::Answered, at(62));
    assert_eq!(picks(&mut scheduler, at(62)), [2, 3]);
}

#[test]
fn p5_an_endpoint_that_is_silent_keeps_few_slots() {
    let mut scheduler = Scheduler::new(ROOMY);
    for seq in 0..40 {
        scheduler.offer(due(seq, 10, Urgency::Normal, at(0)), at(0));
    }
    introduce(&mut scheduler, open(), at(0));
    let first = picks(&mut scheduler, at(0));
    assert_eq!(first.len(), 8, "nothing is known about it yet");
    for seq in &first {
        finish(&mut scheduler, 10, *seq, Feedback::Silent, at(1));
    }
    let second = picks(&mut scheduler, at(1));
    assert_eq!(second.len(), 1, "after that much silence one, to see whether it is back");
    finish(&mut scheduler, 10, second[0], Feedback::Answered, at(2));
    let third = picks(&mut scheduler, at(2));
    assert_eq!(third.len(), 2, "each answer earns one more");
    finish(&mut scheduler, 10, third[0], Feedback::Silent, at(3));
    assert_eq!(picks(&mut scheduler, at(3)).len(), 0, "and silence costs half");
}

/// `tenants` of them, four webhooks each with 20 deliveries, all started as far as they may be.
fn hanging(tenants: i64, limits: Limits) -> (Scheduler, Vec<(i64, i64)>) {
    let mut scheduler = Scheduler::new(limits);
    let mut seq = 0;
    let mut webhook_of = HashMap::new();
    for webhook in (1..=tenants).flat_map(|tenant| (0..4).map(move |n| tenant * 10 + n)) {
        for _ in 0..20 {
            seq += 1;
            webhook_of.insert(seq, webhook);
            scheduler.offer(due(seq, webhook, Urgency::Normal, at(0)), at(0));
        }
    }
    introduce(&mut scheduler, open(), at(0));
    let started = picks(&mut scheduler, at(0)).into_iter().map(|seq| (webhook_of[&seq], seq)).collect();
    (scheduler, started)
}

/// A tenant that was not there yet publishes: its delivery is the next to go.
fn newcomer_goes_at_once(scheduler: &mut Scheduler, webhook: i64, seq: i64, now: Timestamp) {
    scheduler.offer(due(seq, webhook, Urgency::Normal, now), now);
    introduce(scheduler, open(), now);
    assert_eq!(scheduler.pick(now).map(|due| due.seq.0), Some(seq), "{} under way", scheduler.in_flight());
}

#[test]
fn p5_two_hundred_tenants_whose_receivers_hang_keep_nobody_waiting() {
    let limits = Limits::default();
    let (mut scheduler, mut under_way) = hanging(200, limits);
    assert!(scheduler.in_flight() <= limits.slots * 3 / 2 && scheduler.in_flight() >= limits.slots / 2);
    newcomer_goes_at_once(&mut scheduler, 90_000, 1_000_000, at(1));
    // They fall silent, again and again.
    for round in 0..4 {
        for (webhook, seq) in std::mem::take(&mut under_way) {
            finish(&mut scheduler, webhook, seq, Feedback::Silent, at(15 * (round + 1)));
        }
        while let Some(due) = scheduler.pick(at(15 * (round + 1))) {
            under_way.push((due.webhook.0, due.seq.0));
        }
        assert!(!under_way.is_empty(), "they are tried all the same");
        newcomer_goes_at_once(&mut scheduler, 90_010 + round * 10, 1_000_001 + round, at(15 * (round + 1)));
        assert_eq!(scheduler.faults(), Vec::<String>::new());
    }
    assert!(scheduler.silent_in_flight > 0 && scheduler.silent_in_flight <= limits.slots / 2, "half of the slots");
}

#[test]
fn p5_silent_endpoints_beyond_their_half_of_the_slots_have_their_turn_later() {
    let (mut scheduler, mut under_way) = hanging(40, Limits { heads: 10_000, head_bytes: 8 << 20, ..ROOMY });
    let mut tried = under_way.len();
    for round in 1..200 {
        for (webhook, seq) in std::mem::take(&mut under_way) {
            finish(&mut scheduler, webhook, seq, Feedback::Silent, at(round));
        }
        while let Some(due) = scheduler.pick(at(round)) {
            under_way.push((due.webhook.0, due.seq.0));
        }
        tried += under_way.len();
        assert_eq!(scheduler.faults(), Vec::<String>::new());
    }
    assert_eq!(tried, 40 * 4 * 20, "everything is tried in the end");
    assert_eq!(scheduler.webhooks(), 0);
}

#[test]
fn p5_a_full_endpoint_has_room_for_what_is_more_urgent_than_bulk() {
    // An endpoint nothing is known about may have eight.
    for (max_in_flight, bulk) in [(32, 7), (8, 7), (7, 7), (1, 1)] {
        let mut scheduler = Scheduler::new(ROOMY);
        for seq in 1..=20 {
            scheduler.offer(due(seq, 10, Urgency::Bulk, at(0)), at(0));
        }
        introduce(&mut scheduler, Terms { max_in_flight, ..open() }, at(0));
        assert_eq!(picks(&mut scheduler, at(0)).len(), bulk, "of {max_in_flight}");
        scheduler.offer(due(100, 10, Urgency::Normal, at(1)), at(1));
        scheduler.offer(due(101, 10, Urgency::Urgent, at(1)), at(1));
        let room = bulk < max_in_flight as usize;
        assert_eq!(picks(&mut scheduler, at(1)), if room { vec![101] } else { vec![] }, "of {max_in_flight}");
        assert_eq!(scheduler.faults(), Vec::<String>::new());
        // It is one more request at most, not one more for each urgency.
        finish(&mut scheduler, 10, 1, Feedback::Nothing, at(2));
        assert_eq!(picks(&mut scheduler, at(2)), [if room { 100 } else { 101 }], "of {max_in_flight}");
    }
}

#[test]
fn p10_large_heads_are_bounded_however_many_webhooks_have_one() {
    const LARGE: usize = 100 << 10;
    const WEBHOOKS: i64 = 40;
    let limits = Limits { head_bytes: 2 * LARGE, flight_bytes: 6 * LARGE, ..ROOMY };
    let most = Limits::HEADS_AT_WORST * limits.head_bytes + LARGE + 1_024;
    let large = |seq: i64| {
        let mut due = due(seq, 10 * (1 + seq % WEBHOOKS), Urgency::Normal, at(0));
        let mut event = Event::clone(due.events.first());
        event.data = Bytes::from(vec![b'x'; LARGE]);
        due.events = DeliveryEvents::One(Arc::new(event));
        due
    };
    let mut scheduler = Scheduler::new(limits);
    let mut owed: BTreeMap<i64, Due> = (1..=4 * WEBHOOKS).map(|seq| (seq, large(seq))).collect();
    for due in owed.values() {
        scheduler.offer(due.clone(), at(0));
        introduce(&mut scheduler, open(), at(0));
        assert!(scheduler.head_bytes <= most, "{} of {most}", scheduler.head_bytes);
    }
    let mut round = 0;
    while !owed.is_empty() {
        round += 1;
        assert!(round < 1_000, "{} never go out", owed.len());
        let mut under_way = Vec::new();
        while let Some(due) = scheduler.pick(at(round)) {
            under_way.push(due);
        }
        // All are asked before anybody hears: what they bring together is what counts.
        let queries = scheduler.wanted_refills(at(round));
        for query in &queries {
            let after = |due: &&Due| query.after.is_none_or(|after| (due.due, due.seq) > after);
            let of_it = || owed.values().filter(|due| due.webhook == query.webhook).filter(after);
            // However small the page, one row is on it.
            let page = DuePage { rows: of_it().take(1).cloned().collect(), more: of_it().count() > 1, next_due: None };
            scheduler.refilled(query, Some(page), at(round), at(round));
            assert!(scheduler.head_bytes <= most, "{} of {most}", scheduler.head_bytes);
        }
        for due in under_way {
            finish(&mut scheduler, due.webhook.0, due.seq.0, Feedback::Answered, at(round));
            owed.remove(&due.seq.0);
        }
        assert_eq!(scheduler.faults(), Vec::<String>::new());
    }
    assert_eq!(scheduler.webhooks(), 0);
}

#[test]
fn p10_requests_under_way_are_bounded_by_what_they_hold() {
    let limits = Limits { flight_bytes: 20 << 10, ..ROOMY };
    let (mut scheduler, started) = hanging(4, limits);
    assert_eq!(started.len(), 10, "two KiB each and a little");
    newcomer_goes_at_once(&mut scheduler, 9_000, 1_000_000, at(1));
    scheduler.offer(due(1_000_001, 9_000, Urgency::Normal, at(1)), at(1));
    assert_eq!(picks(&mut scheduler, at(1)), Vec::<i64>::new(), "the second waits like everybody's");
    // What is recorded slowly counts as well, and once it is all there is, for everybody.
    for (webhook, seq) in &started {
        let (tenant, key) = (tenant_of(*webhook), WebhookKey(*webhook));
        scheduler.ended(tenant, key, DeliverySeq(*seq), Feedback::Answered, 0, at(2));
    }
    assert_eq!(picks(&mut scheduler, at(2)), Vec::<i64>::new());
    for (webhook, seq) in &started {
        let (tenant, key) = (tenant_of(*webhook), WebhookKey(*webhook));
        scheduler.settled(tenant, key, Urgency::Normal, DeliverySeq(*seq), None, at(3));
    }
    assert_eq!(picks(&mut scheduler, at(3)).len(), 9);
    assert_eq!(scheduler.faults(), Vec::<String>::new());
}

#[test]
fn p10_heads_past_the_limit_on_bytes_are_small_or_single() {
    let mut scheduler = Scheduler::new(Limits { head_bytes: 1, ..ROOMY });
    let large = |seq| {
        let mut due = due(seq, 10, Urgency::Normal, at(0));
        due.body = Some(Bytes::from(vec![b'x'; ASSURED_HEAD_BYTES]));
        due
    };
    scheduler.offer(large(1), at(0));
    scheduler.offer(large(2), at(0));
    assert_eq!(scheduler.heads(), 1, "the other waits in the store");
}

#[test]
fn p10_offers_that_wait_for_the_lane_are_bounded_by_bytes() {
    let inbox = Inbox::default();
    for seq in 0..40 {
        let mut due = due(seq, 10, Urgency::Normal, at(seq));
        due.body = Some(Bytes::from(vec![b'x'; 1 << 20]));
        inbox.send(Command::Offer(vec![due]));
    }
    let said = inbox.take();
    assert_eq!(said.commands.len(), 31, "31 MiB and a little");
    assert_eq!(said.stored[&(WebhookKey(10), 1)], (tenant_of(10), at(31)), "the store has the others");
}

#[test]
fn a_cancellation_that_is_heard_late_does_not_lose_what_was_reopened_meanwhile() {
    let mut scheduler = Scheduler::new(ROOMY);
    scheduler.offer(due(1, 10, Urgency::Normal, at(0)), at(0));
    introduce(&mut scheduler, open(), at(0));
    scheduler.cancel(WebhookKey(10), DeliverySeq(1), at(1));
    assert_eq!(picks(&mut scheduler, at(1)), Vec::<i64>::new());
    assert_eq!(scheduler.wanted_refills(at(1)).len(), 1, "the store knows whether it is owed");
}

#[test]
fn p2_what_was_read_sent_and_settled_is_not_sent_again_when_its_hand_over_comes_late() {
    let mut scheduler = Scheduler::new(ROOMY);
    scheduler.stored(tenant_of(10), WebhookKey(10), Urgency::Normal.rank(), at(0), at(0));
    introduce(&mut scheduler, open(), at(0));
    let query = scheduler.wanted_refills(at(0)).pop().expect("something is due");
    let page = DuePage { rows: vec![due(7, 10, Urgency::Normal, at(0))], more: false, next_due: None };
    scheduler.refilled(&query, Some(page), at(1), at(0));
    assert_eq!(picks(&mut scheduler, at(0)), [7]);
    finish(&mut scheduler, 10, 7, Feedback::Answered, at(0));
    // Its publisher was slow; the webhook may be forgotten by now.
    scheduler.offer(due(7, 10, Urgency::Normal, at(0)), at(0));
    introduce(&mut scheduler, open(), at(0));
    assert_eq!(picks(&mut scheduler, at(0)), Vec::<i64>::new(), "only the store knows whether it is owed");
    assert_eq!(scheduler.wanted_refills(at(0)).len(), 1);
    scheduler.offer(due(8, 10, Urgency::Normal, at(0)), at(0));
    assert_eq!(scheduler.heads(), 0, "what the store is asked for comes from there");
}

#[test]
fn p10_a_webhook_has_one_timer_however_often_it_is_put_off() {
    let mut scheduler = Scheduler::new(ROOMY);
    for (round, seq) in (0..500).zip(1_000..) {
        scheduler.stored(tenant_of(10), WebhookKey(10), 1, at(100_000 - round), at(0));
        scheduler.stored(tenant_of(10), WebhookKey(10), 0, at(50_000 + seq), at(0));
    }
    assert_eq!(scheduler.timers.len(), 1);
    assert_eq!(scheduler.next_wake(), Some(at(51_000)));
}

#[test]
fn p10_reads_under_way_are_few_and_what_they_may_bring_is_counted() {
    let mut scheduler = Scheduler::new(Limits { heads: 100, window: 10, ..ROOMY });
    for webhook in 10..200 {
        scheduler.stored(tenant_of(webhook), WebhookKey(webhook), 1, at(0), at(0));
    }
    introduce(&mut scheduler, open(), at(0));
    let first = scheduler.wanted_refills(at(0));
    assert_eq!(first.len(), MAX_READS);
    assert!(scheduler.wanted_refills(at(0)).is_empty(), "sixteen at once is all");
    assert!(first.iter().map(|q| q.limit).sum::<usize>() <= 100 + 6 * ASSURED_HEADS, "{first:?}");
    let page = DuePage { rows: Vec::new(), more: false, next_due: None };
    for query in &first {
        scheduler.refilled(query, Some(page.clone()), at(1), at(0));
    }
    let second = scheduler.wanted_refills(at(0));
    assert_eq!(second.len(), MAX_READS);
    assert!(second.iter().all(|q| first.iter().all(|f| f.webhook != q.webhook)), "everybody's turn comes");
}

#[test]
fn a_delivery_whose_record_was_superseded_is_read_again_although_it_was_due_long_ago() {
    let mut scheduler = Scheduler::new(ROOMY);
    let (tenant, key) = (tenant_of(10), WebhookKey(10));
    scheduler.stored(tenant, key, 1, at(0), at(10));
    introduce(&mut scheduler, open(), at(10));
    let query = scheduler.wanted_refills(at(10)).pop().expect("it is due");
    let rows = vec![due(1, 10, Urgency::Normal, at(0)), due(2, 10, Urgency::Normal, at(5))];
    scheduler.refilled(&query, Some(DuePage { rows, more: false, next_due: None }), at(11), at(10));
    assert_eq!(picks(&mut scheduler, at(10)), [1, 2]);
    scheduler.ended(tenant, key, DeliverySeq(1), Feedback::Answered, 0, at(10));
    scheduler.settled(tenant, key, Urgency::Normal, DeliverySeq(1), Some(Timestamp::EPOCH), at(10));
    let query = scheduler.wanted_refills(at(10)).pop().expect("the store knows more");
    assert_eq!(query.after, None, "from the beginning");
}

/// A store that is a map.
#[derive(Default)]
struct Shelf {
    deliveries: BTreeMap<i64, Kept>,
}

#[derive(Clone, Copy)]
struct Kept {
    webhook: i64,
    urgency: Urgency,
    due: Timestamp,
    pending: bool,
}

impl Shelf {
    fn page(&self, query: &DueQuery) -> DuePage {
        let mut waiting: Vec<_> = self
            .deliveries
            .iter()
            .filter(|(_, d)| d.pending && WebhookKey(d.webhook) == query.webhook && d.urgency == query.urgency)
            .map(|(seq, d)| (d.due, *seq))
            .collect();
        waiting.sort_unstable();
        let next_due = waiting.iter().map(|(at, _)| *at).find(|at| *at > query.now);
        let after = query.after.map(|(at, seq)| (at, seq.0));
        waiting.retain(|place| place.0 <= query.now && after.is_none_or(|after| *place > after));
        let more = waiting.len() > query.limit;
        waiting.truncate(query.limit);
        let rows = waiting.into_iter().map(|(at, seq)| due(seq, query.webhook.0, query.urgency, at)).collect();
        DuePage { rows, more, next_due }
    }
}

struct World {
    scheduler: Scheduler,
    limits: Limits,
    shelf: Shelf,
    now: Timestamp,
    terms: BTreeMap<i64, Terms>,
    under_way: BTreeMap<i64, Due>,
    /// Made, its record not durable yet.
    unsettled: Vec<Due>,
    reads: Vec<(DueQuery, DuePage)>,
    next: i64,
}

const WEBHOOKS: [i64; 6] = [10, 11, 20, 21, 30, 31];

impl World {
    fn new(limits: Limits) -> Self {
        World {
            scheduler: Scheduler::new(limits),
            limits,
            shelf: Shelf::default(),
            now: at(0),
            terms: WEBHOOKS
                .iter()
                .map(|w| {
                    // One of them may begin so many a second only.
                    let rate_limit_per_s = (*w == 21).then_some(4);
                    (*w, Terms { max_in_flight: 2, rate_limit_per_s, ..open() })
                })
                .collect(),
            under_way: BTreeMap::new(),
            unsettled: Vec::new(),
            reads: Vec::new(),
            next: 1,
        }
    }

    fn step(&mut self, (what, a, b): (u8, u8, u8)) {
        let webhook = WEBHOOKS[usize::from(a) % WEBHOOKS.len()];
        let (tenant, key) = (tenant_of(webhook), WebhookKey(webhook));
        let urgency = Urgency::ALL[usize::from(b) % 3];
        match what % 16 {
            0..=4 => {
                let at = self.now;
                for _ in 0..1 + b % 4 {
                    let seq = self.next;
                    self.next += 1;
                    self.shelf.deliveries.insert(seq, Kept { webhook, urgency, due: at, pending: true });
                    if b % 7 == 0 {
                        self.scheduler.stored(tenant, key, urgency.rank(), at, self.now);
                    } else {
                        self.scheduler.offer(due(seq, webhook, urgency, at), self.now);
                    }
                }
            }
            5..=6 => self.turn(),
            7..=8 => self.answer_read(b % 5 != 0),
            9..=10 => self.end_one(b),
            11 => self.settle_one(b),
            12 => self.now = self.now.saturating_add(Duration::from_millis(200 * u64::from(b))),
            13 => {
                let until = self.now.saturating_add(Duration::from_secs(u64::from(b % 20)));
                let terms = self.terms.get_mut(&webhook).expect("one of ours");
                terms.paused_until = terms.paused_until.max(Some(until));
                self.scheduler.pause(key, until);
            }
            14 => {
                let terms = self.terms.get_mut(&webhook).expect("one of ours");
                let reopened = !terms.open;
                terms.open = !terms.open;
                self.scheduler.set_terms(tenant, key, *terms, reopened, self.now);
            }
            _ => {
                let seq = i64::from(b) % self.next.max(1);
                if let Some(kept) = self.shelf.deliveries.get_mut(&seq) {
                    kept.pending = false;
                    self.scheduler.cancel(WebhookKey(kept.webhook), DeliverySeq(seq), self.now);
                }
            }
        }
        self.check();
    }

    fn turn(&mut self) {
        self.scheduler.advance(self.now);
        for key in self.scheduler.take_strangers() {
            self.scheduler.set_terms(tenant_of(key.0), key, self.terms[&key.0], false, self.now);
        }
        for query in self.scheduler.wanted_refills(self.now) {
            let takes = self.terms[&query.webhook.0].open;
            let empty = DuePage { rows: Vec::new(), more: false, next_due: None };
            let page = if takes { self.shelf.page(&query) } else { empty };
            self.reads.push((query, page));
        }
        while let Some(due) = self.scheduler.pick(self.now) {
            let terms = self.terms[&due.webhook.0];
            let kept = self.shelf.deliveries[&due.seq.0];
            assert!(
                terms.open && terms.paused_until.is_none_or(|until| until <= self.now),
                "to a closed or paused one"
            );
            assert!(kept.pending, "delivery {} is owed no more", due.seq.0);
            assert!(kept.due <= self.now, "delivery {} is not due", due.seq.0);
            let twice = self.unsettled.iter().any(|u| u.seq == due.seq);
            assert!(!twice && self.under_way.insert(due.seq.0, due).is_none(), "one delivery twice");
        }
        assert!(self.scheduler.forgotten(self.now).is_empty(), "somebody is in no line");
        for pick in self.scheduler.take_picks() {
            assert!(!pick.overlooked, "something more urgent could have gone: {pick:?}");
        }
    }

    fn answer_read(&mut self, well: bool) {
        if !self.reads.is_empty() {
            let (query, page) = self.reads.remove(0);
            let again = self.now.saturating_add(READ_AGAIN_AFTER);
            self.scheduler.refilled(&query, well.then_some(page), again, self.now);
        }
    }

    fn end_one(&mut self, by: u8) {
        let Some(seq) = self.under_way.keys().nth(usize::from(by) % self.under_way.len().max(1)).copied() else {
            return;
        };
        let due = self.under_way.remove(&seq).expect("just seen");
        let feedback = [Feedback::Answered, Feedback::Silent, Feedback::AnsweredSlowly, Feedback::Nothing];
        let kept = usize::from(by) * 4;
        self.scheduler.ended(due.tenant, due.webhook, due.seq, feedback[usize::from(by) % 4], kept, self.now);
        self.unsettled.push(due);
    }

    fn settle_one(&mut self, by: u8) {
        if self.unsettled.is_empty() {
            return;
        }
        let due = self.unsettled.remove(usize::from(by) % self.unsettled.len());
        let kept = self.shelf.deliveries.get_mut(&due.seq.0).expect("never removed");
        let again = match by % 3 {
            _ if !kept.pending => Some(Timestamp::EPOCH),
            0 => {
                kept.due = self.now.saturating_add(Duration::from_secs(u64::from(by)));
                Some(kept.due)
            }
            // The record went elsewhere; the delivery is as it was.
            1 if by.is_multiple_of(2) => Some(Timestamp::EPOCH),
            _ => {
                kept.pending = false;
                None
            }
        };
        self.scheduler.settled(due.tenant, due.webhook, due.urgency, due.seq, again, self.now);
    }

    fn check(&self) {
        assert_eq!(self.scheduler.faults(), Vec::<String>::new());
        let allowed =
            self.limits.heads + self.limits.window + self.limits.slots * 2 + WEBHOOKS.len() * 3 * (ASSURED_HEADS + 1);
        assert!(self.scheduler.heads() <= allowed, "{} heads", self.scheduler.heads());
        assert!(self.scheduler.timers.len() <= WEBHOOKS.len());
        assert!(self.scheduler.in_flight() <= self.scheduler.most_in_flight());
        for webhook in WEBHOOKS {
            let count = self.under_way.values().filter(|due| due.webhook.0 == webhook).count();
            assert!(count <= 2, "{count} at once to {webhook}");
        }
    }

    /// Everything is well from now on: everything owed must go out.
    fn run_out(&mut self) {
        for webhook in WEBHOOKS {
            let terms = self.terms.get_mut(&webhook).expect("one of ours");
            let reopened = !terms.open;
            terms.open = true;
            self.scheduler.set_terms(tenant_of(webhook), WebhookKey(webhook), *terms, reopened, self.now);
        }
        for _ in 0..5_000 {
            self.turn();
            // What is settled too: it may be what the next pick waits for.
            let busy = !(self.reads.is_empty() && self.under_way.is_empty() && self.unsettled.is_empty());
            while !self.reads.is_empty() {
                self.answer_read(true);
            }
            while !self.under_way.is_empty() {
                self.end_one(0);
            }
            while !self.unsettled.is_empty() {
                self.settle_one(5);
            }
            self.check();
            if !busy {
                match self.scheduler.next_wake() {
                    Some(next) => self.now = self.now.max(next),
                    None => break,
                }
            }
        }
        let left: Vec<_> = self.shelf.deliveries.iter().filter(|(_, d)| d.pending).map(|(seq, _)| *seq).collect();
        assert!(left.is_empty(), "{left:?} never went out");
        assert_eq!(self.scheduler.webhooks(), 0, "what has nothing to do is forgotten");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p5_however_many_hang_a_newcomer_goes_at_once(tenants in 1..300_i64, slots in 1..600_usize) {
        let (mut scheduler, _) = hanging(tenants, Limits { slots, ..Limits::default() });
        newcomer_goes_at_once(&mut scheduler, 90_000, 1_000_000, at(0));
    }
}

#[test]
fn what_waits_for_the_store_goes_once_the_store_has_kept_up() {
    let mut world = World::new(SMALL);
    let steps = [(0, 4, 3), (5, 0, 0), (9, 0, 214), (5, 0, 0), (9, 0, 164), (9, 0, 131)];
    steps.into_iter().for_each(|step| world.step(step));
    assert!(world.scheduler.is_behind(), "what is not durable yet holds all that it may, to the byte");
    world.run_out();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p2_p10_everything_owed_goes_out_once_at_a_time_and_within_bounds(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..160),
        small in any::<bool>(),
    ) {
        let mut world = World::new(if small { SMALL } else { ROOMY });
        for step in steps {
            world.step(step);
        }
        world.run_out();
    }
}
