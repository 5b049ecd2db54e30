//! How often requests to a webhook begin: its `rate_limit_per_s`.
//!
//! A token bucket of integers. It holds a tenth of a second's worth (one token at least), so that no
//! window of a second sees more than a tenth above the limit, and a loop that looks only every now
//! and then still reaches it. A bucket not yet full outlives its webhook's queue: having nothing to
//! do for a moment resets no limit. After a restart it is full: what may go at once then is that
//! tenth of a second's worth.

use std::collections::HashMap;
use std::time::Duration;

use gatepost_core::{Timestamp, WebhookKey};

use super::Scheduler;

/// A request's worth. Tokens per second are then millionths per microsecond.
const ONE: u64 = 1_000_000;
/// How often buckets of idle webhooks are looked through for full ones, which say nothing.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(in crate::deliver) struct Bucket {
    /// Requests per second.
    rate: u32,
    /// In millionths, as of `at`.
    tokens: u64,
    at: Timestamp,
}

impl Bucket {
    pub(in crate::deliver) fn full(rate: u32, now: Timestamp) -> Self {
        let rate = rate.max(1);
        Bucket { rate, tokens: room(rate), at: now }
    }

    /// The same bucket under another limit.
    fn under(mut self, rate: u32, now: Timestamp) -> Self {
        self.fill(now);
        self.rate = rate.max(1);
        self.tokens = self.tokens.min(room(self.rate));
        self
    }

    pub(in crate::deliver) fn rate(&self) -> u32 {
        self.rate
    }

    fn tokens_at(&self, now: Timestamp) -> u64 {
        // Never longer than it takes to fill: a second at most, so this does not overflow.
        let elapsed = now.since(self.at).min(Duration::from_secs(1));
        let gained = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(u64::from(self.rate));
        self.tokens.saturating_add(gained).min(room(self.rate))
    }

    fn fill(&mut self, now: Timestamp) {
        self.tokens = self.tokens_at(now);
        self.at = self.at.max(now);
    }

    /// Whether a request may begin.
    pub(in crate::deliver) fn has(&self, now: Timestamp) -> bool {
        self.tokens_at(now) >= ONE
    }

    /// A request begins.
    pub(in crate::deliver) fn take(&mut self, now: Timestamp) {
        self.fill(now);
        self.tokens = self.tokens.saturating_sub(ONE);
    }

    /// When the next request may begin.
    pub(in crate::deliver) fn next(&self, now: Timestamp) -> Timestamp {
        let missing = ONE.saturating_sub(self.tokens_at(now));
        now.max(self.at).saturating_add(Duration::from_micros(missing.div_ceil(u64::from(self.rate))))
    }

    fn is_full(&self, now: Timestamp) -> bool {
        self.tokens_at(now) == room(self.rate)
    }
}

fn room(rate: u32) -> u64 {
    (u64::from(rate) * ONE / 10).max(ONE)
}

/// Buckets of webhooks that have nothing to do.
#[derive(Default)]
pub(super) struct Resting {
    buckets: HashMap<WebhookKey, Bucket>,
    looked_at: Option<Timestamp>,
}

impl Resting {
    /// The webhook has nothing more to do.
    pub(super) fn keep(&mut self, key: WebhookKey, bucket: Bucket) {
        self.buckets.insert(key, bucket);
    }

    /// Time passed: what is full again is as good as new.
    pub(super) fn forget_full(&mut self, now: Timestamp) {
        if self.buckets.is_empty() || self.looked_at.is_some_and(|at| now.since(at) < FORGET_EVERY && now >= at) {
            return;
        }
        self.looked_at = Some(now);
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }
}

impl Scheduler {
    /// The webhook's limit, found out or changed.
    pub(super) fn set_rate(&mut self, key: WebhookKey, rate: Option<u32>, now: Timestamp) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if rate == queue.rate.as_ref().map(Bucket::rate) {
            return;
        }
        let before = queue.rate.take().or_else(|| self.resting.buckets.remove(&key));
        queue.rate = rate.map(|rate| match before {
            Some(bucket) => bucket.under(rate, now),
            None => Bucket::full(rate, now),
        });
    }

    /// How often a webhook waited for its limit, since the last call.
    pub(crate) fn take_rate_waits(&mut self) -> u64 {
        std::mem::take(&mut self.rate_waits)
    }

    /// Sets the timer of a webhook that would send, had it not begun as many requests as it may.
    pub(super) fn arm_for_rate(&mut self, key: WebhookKey, now: Timestamp) {
        let Some(queue) = self.queues.get(&key) else { return };
        if let Some(bucket) = &queue.rate
            && !bucket.has(now)
        {
            let next = bucket.next(now);
            self.rate_waits += 1;
            self.arm(key, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use gatepost_core::event::Urgency;
    use gatepost_store::{DuePage, DueQuery};
    use proptest::prelude::*;

    use super::super::tests::{ROOMY, at, due, finish, introduce, open, picks, tenant_of};
    use super::super::{Feedback, Terms};
    use super::*;

    fn after(start: Timestamp, micros: u64) -> Timestamp {
        start.saturating_add(Duration::from_micros(micros))
    }

    #[test]
    fn a_bucket_gives_its_rate_and_a_tenth_at_once() {
        for (rate, at_once) in [(1, 1), (7, 1), (10, 1), (25, 2), (100, 10), (10_000, 1_000)] {
            let mut bucket = Bucket::full(rate, at(0));
            let mut now = at(0);
            let mut begun = 0;
            while now < at(20) {
                if bucket.has(now) {
                    bucket.take(now);
                    begun += 1;
                } else {
                    let next = bucket.next(now);
                    assert!(next > now && next <= now.saturating_add(Duration::from_secs(1)));
                    now = next;
                }
                assert!(now > at(0) || begun <= at_once, "{rate}");
            }
            let most = 20 * rate + at_once;
            // Moments are whole microseconds: a little is lost at each.
            assert!(begun <= most && begun * 100 >= 20 * rate * 99, "{rate}: {begun} of {most}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let mut bucket = Bucket::full(10, at(10));
        bucket.take(at(10));
        for second in (0..10).rev() {
            assert!(!bucket.has(at(second)));
            assert!(bucket.next(at(second)) > at(10));
        }
        assert!(bucket.has(at(11)));
    }

    fn limited(rate: u32) -> Terms {
        Terms { rate_limit_per_s: Some(rate), ..open() }
    }

    #[test]
    fn a_limited_webhook_waits_without_a_slot_and_nobody_with_it() {
        let mut scheduler = Scheduler::new(ROOMY);
        for seq in 0..4 {
            scheduler.offer(due(seq, 10, Urgency::Normal, at(0)), at(0));
            scheduler.offer(due(10 + seq, 11, Urgency::Normal, at(0)), at(0));
            scheduler.offer(due(20 + seq, 20, Urgency::Bulk, at(0)), at(0));
        }
        for key in scheduler.take_strangers() {
            let terms = if key.0 == 10 { limited(2) } else { open() };
            scheduler.set_terms(tenant_of(key.0), key, terms, false, at(0));
        }
        let mut first = picks(&mut scheduler, at(0));
        first.sort_unstable();
        assert_eq!(first, [0, 10, 11, 12, 13, 20, 21, 22, 23], "one of the limited one's, all of the others'");
        let half = after(at(0), 500_000);
        assert_eq!(scheduler.next_wake(), Some(half));
        assert_eq!(scheduler.in_flight(), 9, "what waits for its turn holds no slot");
        assert!(picks(&mut scheduler, after(at(0), 499_999)).is_empty());
        scheduler.advance(half);
        assert_eq!(picks(&mut scheduler, half), [1]);
        // An urgent one takes the next turn, and a retry waits for one like everything else.
        scheduler.offer(due(5, 10, Urgency::Urgent, at(0)), half);
        finish(&mut scheduler, 10, 0, Feedback::Silent, half);
        scheduler.offer(due(0, 10, Urgency::Normal, half), half);
        for (second, seq) in [(1, 5), (2, 2)] {
            scheduler.advance(at(second));
            assert_eq!(picks(&mut scheduler, at(second)), [seq]);
        }
        assert!(scheduler.faults().is_empty(), "{:?}", scheduler.faults());
    }

    /// What is owed, and a scheduler that reads it from here as it would from the store.
    struct World {
        scheduler: Scheduler,
        rate: u32,
        owed: BTreeMap<i64, (i64, Timestamp)>,
        flying: VecDeque<(i64, i64)>,
        /// When requests to the limited webhook began.
        begun: Vec<Timestamp>,
        now: Timestamp,
        next: i64,
    }

    impl World {
        fn new(rate: u32) -> Self {
            World {
                scheduler: Scheduler::new(ROOMY),
                rate,
                owed: BTreeMap::new(),
                flying: VecDeque::new(),
                begun: Vec::new(),
                now: at(0),
                next: 1,
            }
        }

        fn offer(&mut self, webhook: i64) {
            self.owed.insert(self.next, (webhook, self.now));
            self.scheduler.offer(due(self.next, webhook, Urgency::Normal, self.now), self.now);
            self.next += 1;
        }

        fn read(&mut self, query: &DueQuery) {
            let after = query.after.map(|(at, seq)| (at, seq.0));
            let mut rows: Vec<_> = self
                .owed
                .iter()
                .filter(|(seq, (webhook, at))| {
                    *webhook == query.webhook.0 && after.is_none_or(|after| (*at, **seq) > after)
                })
                .map(|(seq, (webhook, at))| due(*seq, *webhook, Urgency::Normal, *at))
                .collect();
            let more = rows.len() > query.limit;
            rows.truncate(query.limit);
            let page = if query.urgency == Urgency::Normal { rows } else { Vec::new() };
            let page = DuePage { more: more && !page.is_empty(), rows: page, next_due: None };
            self.scheduler.refilled(query, Some(page), self.now, self.now);
        }

        /// Everything that can be done at this moment.
        fn turn(&mut self) {
            self.scheduler.advance(self.now);
            for key in self.scheduler.take_strangers() {
                let terms = if key.0 == 10 { limited(self.rate) } else { open() };
                self.scheduler.set_terms(tenant_of(key.0), key, terms, false, self.now);
            }
            for query in self.scheduler.wanted_refills(self.now) {
                self.read(&query);
            }
            while let Some(due) = self.scheduler.pick(self.now) {
                if due.webhook.0 == 10 {
                    self.begun.push(self.now);
                }
                self.flying.push_back((due.webhook.0, due.seq.0));
            }
            let faults = self.scheduler.faults();
            assert!(faults.is_empty(), "{faults:?}");
            assert!(self.scheduler.forgotten(self.now).is_empty());
        }

        fn end(&mut self, requests: usize) {
            for _ in 0..requests.min(self.flying.len()) {
                let (webhook, seq) = self.flying.pop_front().expect("there are so many");
                self.owed.remove(&seq);
                finish(&mut self.scheduler, webhook, seq, Feedback::Answered, self.now);
            }
        }

        fn pass(&mut self, micros: u64) {
            self.now = after(self.now, micros);
        }

        /// Until nothing is owed, waiting only as long as the scheduler says.
        fn drain(&mut self) {
            for _ in 0..100_000 {
                self.turn();
                if self.flying.is_empty() {
                    if self.owed.is_empty() {
                        return;
                    }
                    let wake = self.scheduler.next_wake().expect("who is owed something is woken");
                    self.now = self.now.max(wake);
                }
                self.end(64);
            }
            panic!("{} are still owed", self.owed.len());
        }
    }

    #[test]
    fn a_webhook_that_had_nothing_to_do_keeps_its_limit() {
        let mut world = World::new(5);
        for _ in 0..200 {
            // Each answered at once: whenever it has waited its turn out, there is no queue.
            if world.owed.is_empty() {
                world.offer(10);
            }
            world.turn();
            world.end(1);
            world.pass(10_000);
        }
        assert!((10..=11).contains(&world.begun.len()), "two seconds at five a second: {}", world.begun.len());
        world.drain();
        assert!(!world.scheduler.has(WebhookKey(10)));
        assert_eq!(world.scheduler.resting.len(), 1);
        world.scheduler.advance(world.now.saturating_add(Duration::from_secs(2)));
        assert_eq!(world.scheduler.resting.len(), 0, "a full bucket is not kept (P10)");
    }

    #[test]
    fn a_changed_limit_holds_at_once_and_gives_no_second_burst() {
        let mut scheduler = Scheduler::new(ROOMY);
        for seq in 0..60 {
            scheduler.offer(due(seq, 10, Urgency::Normal, at(0)), at(0));
        }
        introduce(&mut scheduler, limited(100), at(0));
        let terms = |scheduler: &mut Scheduler, terms| {
            scheduler.set_terms(tenant_of(10), WebhookKey(10), terms, false, at(0));
        };
        assert_eq!(picks(&mut scheduler, at(0)).len(), 8, "what an endpoint may have before it answered");
        for seq in 0..8 {
            finish(&mut scheduler, 10, seq, Feedback::Answered, at(0));
        }
        assert_eq!(picks(&mut scheduler, at(0)).len(), 2, "the rest of the burst");
        terms(&mut scheduler, limited(200));
        assert!(picks(&mut scheduler, at(0)).is_empty());
        terms(&mut scheduler, open());
        assert!(picks(&mut scheduler, at(0)).len() > 2, "no limit any more");
    }

    proptest! {
        /// Whatever comes when, to one limited and one free webhook: every window of the limited one
        /// keeps the limit, everything goes in the end, and the free one is never held up.
        #[test]
        fn no_window_sees_more_than_the_limit(
            rate in 1_u32..40,
            steps in proptest::collection::vec((0_u64..120_000, 0_usize..6, any::<bool>(), 0_usize..3), 1..120),
        ) {
            let mut world = World::new(rate);
            for (wait, offers, free, ends) in steps {
                world.pass(wait);
                for _ in 0..offers {
                    world.offer(if free { 11 } else { 10 });
                }
                world.turn();
                world.end(ends);
            }
            world.drain();
            let at_once = u64::from(rate / 10).max(1);
            for (first, from) in world.begun.iter().enumerate() {
                for (index, to) in world.begun.iter().enumerate().skip(first) {
                    let micros = u64::try_from(to.since(*from).as_micros()).unwrap();
                    let most = at_once + 1 + micros * u64::from(rate) / 1_000_000;
                    prop_assert!((index - first + 1) as u64 <= most, "{} in {micros} us", index - first + 1);
                }
            }
        }
    }
}
