//! The lane: the loop that delivers.
//!
//! [`Lane::turn`] does everything that can be done at one moment without waiting and leaves the
//! waiting in `work`; [`Lane::run`] is the thin loop around it. The simulation drives the same two
//! steps with a manual clock.

mod changes;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use gatepost_core::delivery::{AttemptRecord, DeliveryState, Outcome, Trigger};
use gatepost_core::retry::{self, AttemptFacts, Verdict};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Webhook;
use gatepost_core::{TenantId, Timestamp, Waits, WebhookKey};
use gatepost_store::{Due, DuePage, DueQuery, Next, Owed, SettleAnswer, Settled, Settlement, Store, StoreError, Wake};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::NumberMap;
use super::batch::{answer_bytes, batch_len, settlement_bytes};
use super::inbox::{Command, Inbox};
use super::queue::SLOW;
use super::route::Route;
use super::scheduler::{Feedback, Limits, READ_AGAIN_AFTER, Scheduler, Terms};
use super::sender::{Made, Order, Sender, attempt, cut_short};
use super::shift::Shift;
use super::watch::Watch;
use crate::metrics::Metrics;
use crate::seldom::LOCAL_FAULTS;
use crate::stream::Streams;
use crate::vault::Vault;

/// After our own fault (no descriptors, our resolver down) a webhook rests this long.
const LOCAL_FAULT_REST: Duration = Duration::from_secs(1);
/// Why a webhook is disabled that answered 410.
const GONE: &str = "gone";
/// Webhooks read at once while looking for what is owed after a start.
const OWED_PAGE: usize = 1_000;

/// What is taken in at most before the lane listens again and may rest: about two milliseconds of work.
const AT_ONCE: usize = 128;

/// How often the store is asked what it holds, whatever memory thinks: the safety net.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A change to a webhook that an answer calls for.
pub(crate) enum Effect {
    /// 410 under a policy that says so: the webhook was disabled together with the outcome.
    Gone {
        /// Whose.
        tenant: TenantId,
        /// Which.
        webhook: WebhookKey,
    },
}

enum Done {
    /// `lead`: by how much waits led the clock when it began.
    Sent {
        due: Due,
        route: Arc<Route>,
        made: Box<Made>,
        lead: i64,
    },
    Settled {
        batch: Vec<Unsettled>,
        answer: Result<SettleAnswer, StoreError>,
    },
    Refilled {
        query: DueQuery,
        answer: Result<DuePage, StoreError>,
    },
    Loaded {
        key: WebhookKey,
        answer: Result<Option<Owner>, StoreError>,
    },
    Owed {
        after: Option<WebhookKey>,
        answer: Result<Vec<Owed>, StoreError>,
    },
}

/// A webhook and whose it is.
type Owner = Box<(Webhook, Tenant)>;

pub(super) struct Unsettled {
    pub(super) settlement: Settlement,
    pub(super) due: Due,
    pub(super) auto_disable: bool,
    effect: Option<Effect>,
}

enum Slot {
    /// Being read; `dirty` when the webhook changed meanwhile.
    Loading { dirty: bool },
    Ready {
        route: Arc<Route>,
        paused_until: Option<Timestamp>,
        /// Ends the attempts under way, when there is nobody left to make them for.
        gone: CancellationToken,
    },
}

/// What a lane is made of.
pub(crate) struct LaneParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sender: Sender,
    /// Every `now` and every due time here is of this time; what happened is of the clock.
    pub(crate) waits: Arc<Waits>,
    pub(crate) vault: Vault,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) effects: UnboundedSender<Effect>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) watch: Watch,
    pub(crate) streams: Arc<Streams>,
    pub(crate) limits: Limits,
    /// Routes kept of webhooks that have nothing to do.
    pub(crate) routes_kept: usize,
}

/// See the module.
pub(crate) struct Lane {
    parts: LaneParts,
    scheduler: Scheduler,
    slots: NumberMap<WebhookKey, Slot>,
    work: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    to_settle: Vec<Unsettled>,
    settling: bool,
    settle_at: Option<Timestamp>,
    reload: BTreeMap<WebhookKey, Timestamp>,
    look_again: Option<(Timestamp, Option<WebhookKey>)>,
    draining: bool,
}

impl Lane {
    /// A lane that first looks for everything the store says is owed.
    pub(crate) fn new(parts: LaneParts) -> Self {
        let mut lane = Lane {
            scheduler: Scheduler::new(parts.limits),
            slots: NumberMap::default(),
            work: FuturesUnordered::new(),
            to_settle: Vec::new(),
            settling: false,
            settle_at: None,
            reload: BTreeMap::new(),
            look_again: None,
            draining: false,
            parts,
        };
        lane.look_for_owed(None);
        lane
    }

    /// Delivers until told to drain, then finishes what is under way.
    pub(crate) async fn run(mut self) {
        let inbox = Arc::clone(&self.parts.inbox);
        let mut shift = Shift::begin();
        loop {
            let now = self.parts.waits.now();
            self.turn(now);
            if self.is_drained() {
                return;
            }
            let wait = self.next_wake().map(|at| at.since(now));
            let mut idle = None;
            tokio::select! {
                biased;
                Some(done) = self.work.next(), if !self.work.is_empty() => self.take_in(done),
                () = inbox.listen() => {}
                () = sleep(wait) => {}
                // Asked last: there is nothing to do.
                () = poll_fn(|_| { idle.get_or_insert_with(Instant::now); Poll::Pending }) => {}
            }
            if let Some(since) = idle {
                shift.waited(since);
            }
            self.take_in_ready();
            shift.rest(&inbox.budget).await;
        }
    }

    /// Everything that can be done at `now` without waiting.
    pub(crate) fn turn(&mut self, now: Timestamp) {
        self.listen(now);
        self.scheduler.advance(now);
        self.try_again(now);
        for key in self.scheduler.take_strangers() {
            self.meet(key, now);
        }
        for query in self.scheduler.wanted_refills(now) {
            self.read(query);
        }
        if !self.draining {
            while let Some(due) = self.scheduler.pick(now) {
                self.send(due, now);
            }
        }
        self.settle(now);
        self.parts.inbox.budget.unrecorded(self.scheduler.falls_behind());
        self.parts.metrics.rate_waited(self.scheduler.take_rate_waits());
        self.parts.metrics.lane(self.scheduler.in_flight(), self.scheduler.heads(), self.scheduler.webhooks());
    }

    /// Takes in what is done already, without waiting.
    pub(crate) fn take_in_ready(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(Some(done)) = self.work.next().now_or_never() else { return };
            self.take_in(done);
        }
    }

    #[cfg(test)]
    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    #[cfg(test)]
    pub(crate) fn scheduler_mut(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// When [`Lane::turn`] has something to do next, as far as time alone decides.
    pub(crate) fn next_wake(&self) -> Option<Timestamp> {
        let times = [
            self.scheduler.next_wake(),
            self.settle_at,
            self.reload.values().min().copied(),
            self.look_again.map(|(at, _)| at),
        ];
        times.into_iter().flatten().min()
    }

    fn is_drained(&self) -> bool {
        self.draining && self.scheduler.in_flight() == 0 && self.to_settle.is_empty() && !self.settling
    }

    fn listen(&mut self, now: Timestamp) {
        let said = self.parts.inbox.take();
        for command in said.commands {
            match command {
                Command::Offer(dues) => {
                    for due in dues {
                        self.scheduler.offer(due, now);
                    }
                }
                Command::Cancelled { webhook, seq } => self.scheduler.cancel(webhook, seq, now),
                Command::Wake(wakes) => self.woken(&wakes, now),
                Command::WebhookChanged { webhook, reopened } => self.webhook_changed(webhook, reopened, now),
                Command::TenantChanged(tenant) => self.tenant_changed(tenant, now),
                Command::TenantDeleted(tenant) => self.tenant_deleted(tenant),
                Command::LookForOwed => self.look_at(now.saturating_add(READ_AGAIN_AFTER), None),
                Command::InDoubt(tenant) => self.in_doubt(&tenant, now),
                Command::Drain => self.draining = true,
            }
        }
        for ((webhook, rank), (tenant, due)) in said.stored {
            self.scheduler.stored(tenant, webhook, rank, due, now);
        }
    }

    fn woken(&mut self, wakes: &[Wake], now: Timestamp) {
        for wake in wakes {
            self.scheduler.woken(wake, now);
        }
    }

    fn try_again(&mut self, now: Timestamp) {
        let due: Vec<_> = self.reload.extract_if(.., |_, at| *at <= now).collect();
        for (key, _) in due {
            self.load(key);
        }
        if let Some((_, after)) = self.look_again.take_if(|(at, _)| *at <= now) {
            self.look_for_owed(after);
        }
    }

    /// Finds out the terms of a webhook the scheduler has met.
    fn meet(&mut self, key: WebhookKey, now: Timestamp) {
        match self.slots.get(&key) {
            Some(Slot::Ready { route, paused_until, .. }) => {
                let mut terms = route.terms();
                terms.paused_until = *paused_until;
                let tenant = route.tenant.key;
                self.scheduler.set_terms(tenant, key, terms, false, now);
            }
            Some(Slot::Loading { .. }) => {}
            None => {
                self.make_room();
                self.load(key);
            }
        }
    }

    fn make_room(&mut self) {
        if self.slots.len() >= self.parts.routes_kept + self.scheduler.webhooks() {
            let scheduler = &self.scheduler;
            self.slots.retain(|key, _| scheduler.has(*key));
        }
    }

    /// Reads a webhook; what is known of it serves meanwhile.
    fn load(&mut self, key: WebhookKey) {
        if !matches!(self.slots.get(&key), Some(Slot::Ready { .. })) {
            self.slots.insert(key, Slot::Loading { dirty: false });
        }
        let store = Arc::clone(&self.parts.store);
        self.work.push(Box::pin(async move {
            let answer = async {
                let Some(webhook) = store.webhook_by_key(key).await? else { return Ok(None) };
                let tenant = store.tenant_by_key(webhook.tenant).await?;
                Ok(tenant.map(|tenant| Box::new((webhook, tenant))))
            };
            Done::Loaded { key, answer: answer.await }
        }));
    }

    fn look_for_owed(&mut self, after: Option<WebhookKey>) {
        let store = Arc::clone(&self.parts.store);
        self.work.push(Box::pin(async move {
            let answer = store.owed(after, OWED_PAGE).await;
            Done::Owed { after, answer }
        }));
    }

    fn look_at(&mut self, at: Timestamp, after: Option<WebhookKey>) {
        // Two looks are made in one: from the earlier webhook on, at the earlier time.
        self.look_again = match self.look_again {
            Some((set, from)) => Some((set.min(at), from.min(after))),
            None => Some((at, after)),
        };
    }

    fn read(&mut self, query: DueQuery) {
        let store = Arc::clone(&self.parts.store);
        self.work.push(Box::pin(async move {
            let answer = store.due(query.clone()).await;
            Done::Refilled { query, answer }
        }));
    }

    fn send(&mut self, due: Due, now: Timestamp) {
        let Some(Slot::Ready { route, gone, .. }) = self.slots.get(&due.webhook) else {
            // Cannot be: only webhooks with terms are picked. Its delivery stays in the store.
            return self.rest(&due, now);
        };
        let (route, gone) = (Arc::clone(route), gone.clone());
        let (sender, store) = (self.parts.sender.clone(), Arc::clone(&self.parts.store));
        let lead = self.parts.waits.lead();
        self.work.push(Box::pin(async move {
            let by_hand = due.manual && due.attempts == due.budget_start;
            let trigger = if by_hand { Trigger::Manual } else { Trigger::Scheduled };
            let order = Order { due: &due, trigger, path: None };
            let began = sender.clock.now();
            let made = gone.run_until_cancelled(attempt(&sender, &*store, &route, &order)).await;
            let made = made.unwrap_or_else(|| cut_short(&sender, &route, &order, began));
            Done::Sent { due, route, made: Box::new(made), lead }
        }));
    }

    fn take_in(&mut self, done: Done) {
        let now = self.parts.waits.now();
        match done {
            Done::Sent { due, route, made, lead } => self.sent(due, &route, *made, lead, now),
            Done::Settled { batch, answer } => self.settled(batch, answer, now),
            Done::Refilled { query, answer } => {
                let page = answer.map_err(|error| self.store_failed("due", &error)).ok();
                self.scheduler.refilled(&query, page, now.saturating_add(READ_AGAIN_AFTER), now);
            }
            Done::Loaded { key, answer } => self.loaded(key, answer, now),
            Done::Owed { after, answer } => match answer {
                Ok(page) => {
                    for owed in &page {
                        self.scheduler.owed(owed, now);
                    }
                    match page.last() {
                        Some(last) if page.len() == OWED_PAGE => self.look_for_owed(Some(last.webhook)),
                        _ => self.look_at(now.saturating_add(LOOK_EVERY), None),
                    }
                }
                Err(error) => {
                    self.store_failed("owed", &error);
                    self.look_at(now.saturating_add(READ_AGAIN_AFTER), after);
                }
            },
        }
    }

    fn loaded(&mut self, key: WebhookKey, answer: Result<Option<Owner>, StoreError>, now: Timestamp) {
        match self.slots.get(&key) {
            Some(Slot::Loading { dirty: true }) => return self.load(key),
            // Forgotten meanwhile (its tenant was deleted): what was read may be older than that.
            None if self.scheduler.has(key) => return self.load(key),
            None => return,
            Some(_) => {}
        }
        match answer {
            Ok(Some(found)) => self.ready(key, *found, now),
            Ok(None) => {
                self.slots.remove(&key);
                self.scheduler.remove(key);
            }
            Err(error) => {
                self.store_failed("webhook", &error);
                self.reload.insert(key, now.saturating_add(READ_AGAIN_AFTER));
            }
        }
    }

    /// What was read of a webhook counts, unless something later was heard meanwhile.
    fn ready(&mut self, key: WebhookKey, (webhook, tenant): (Webhook, Tenant), now: Timestamp) {
        let (mut webhook, mut tenant) = (Arc::new(webhook), Arc::new(tenant));
        let (mut reopened, mut pause) = (false, webhook.paused_until);
        let mut under_way = CancellationToken::new();
        if let Some(Slot::Ready { route, paused_until, gone }) = self.slots.get(&key) {
            under_way = gone.clone();
            if route.webhook.revision > webhook.revision {
                webhook = Arc::clone(&route.webhook);
            }
            if route.tenant.updated_at > tenant.updated_at {
                tenant = Arc::clone(&route.tenant);
            }
            reopened = !route.terms().open;
            pause = pause.max(*paused_until);
        }
        let route = Arc::new(Route::build(&self.parts.vault, webhook, tenant));
        let terms = Terms { paused_until: pause, ..route.terms() };
        let tenant = route.tenant.key;
        self.slots.insert(key, Slot::Ready { paused_until: pause, route, gone: under_way });
        self.scheduler.set_terms(tenant, key, terms, reopened, now);
    }

    fn sent(&mut self, due: Due, route: &Arc<Route>, made: Made, lead: i64, now: Timestamp) {
        let record = made.record;
        if made.local_fault {
            // Whatever else is to be sent meanwhile has the same fault.
            if let Some(left_out) = LOCAL_FAULTS.turn() {
                tracing::warn!(
                    tenant = %route.tenant.id, webhook = %route.webhook.id, delivery = %due.id(),
                    error = record.error.as_deref().unwrap_or_default(), left_out,
                    "could not even try: no attempt is used up"
                );
            }
            return self.rest(&due, now);
        }
        self.parts.metrics.attempt(record.outcome, record.timings.total_us);
        if due.attempts == 0 && due.events.single().is_none() {
            self.parts.metrics.batch_tried(due.events.all().len());
        }
        tracing::debug!(
            tenant = %route.tenant.id, webhook = %route.webhook.id, delivery = %due.id(), attempt = record.number,
            outcome = record.outcome.as_str(), status = record.status, duration_us = record.timings.total_us,
            error = record.error.as_deref(), "attempt"
        );
        let kept = answer_bytes(&record);
        self.scheduler.ended(due.tenant, due.webhook, due.seq, feedback_of(&record), kept, now);
        let facts = AttemptFacts {
            outcome: record.outcome,
            status: record.status,
            retry_after: made.retry_after.as_deref(),
            ended_at: record.ended_at(),
        };
        let in_budget = record.number - due.budget_start;
        let verdict = retry::judge(&route.policy, in_budget, &facts, self.parts.sender.entropy.unit());
        let (next, pause_until, disable) = match verdict {
            Verdict::Delivered => (Next::Delivered, None, false),
            Verdict::Retry { at, pause_until } => (Next::Retry(at.shifted(lead)), pause_until, false),
            Verdict::End { state, reason, disable_webhook, pause_until } => {
                (Next::End(state, reason), pause_until, disable_webhook)
            }
        };
        // Judged by the clock as it was when the attempt began, whatever was done to it since.
        let pause_until = pause_until.map(|until| until.shifted(lead));
        if let Some(until) = pause_until {
            self.pause(due.webhook, until);
        }
        let freeze = made.body.filter(|_| next != Next::Delivered && due.body.is_none());
        let settlement = Settlement {
            tenant: due.tenant,
            webhook: due.webhook,
            seq: due.seq,
            generation: due.generation,
            ordered: due.ordered,
            attempt: record,
            next,
            freeze,
            pause_until,
            disable: disable.then_some(GONE),
            tell: !due.events.are_own(),
        };
        let effect = disable.then(|| Effect::Gone { tenant: route.tenant.id.clone(), webhook: route.webhook.key });
        self.to_settle.push(Unsettled { settlement, due, auto_disable: route.auto_disable, effect });
    }

    /// Nothing was tried: the delivery is in the store as it was, and its webhook rests a little, so
    /// that a fault of ours that lasts does not make the lane run in circles.
    fn rest(&mut self, due: &Due, now: Timestamp) {
        self.scheduler.ended(due.tenant, due.webhook, due.seq, Feedback::Nothing, 0, now);
        self.scheduler.settled(due.tenant, due.webhook, due.urgency, due.seq, Some(Timestamp::EPOCH), now);
        if due.ordered {
            // It may have become more urgent meanwhile.
            let Due { tenant, webhook, seq, .. } = *due;
            self.scheduler.woken(&Wake { tenant, webhook, seq, at: None }, now);
        }
        self.scheduler.pause(due.webhook, now.saturating_add(LOCAL_FAULT_REST));
    }

    fn pause(&mut self, key: WebhookKey, until: Timestamp) {
        if let Some(Slot::Ready { paused_until, .. }) = self.slots.get_mut(&key) {
            *paused_until = (*paused_until).max(Some(until));
        }
        self.scheduler.pause(key, until);
    }

    /// Starts recording, one transaction at a time: what ends meanwhile joins the next one.
    fn settle(&mut self, now: Timestamp) {
        if self.settling || self.to_settle.is_empty() || self.settle_at.is_some_and(|at| at > now) {
            return;
        }
        self.settle_at = None;
        self.settling = true;
        let take = batch_len(self.to_settle.iter().map(|unsettled| settlement_bytes(&unsettled.settlement)));
        let batch: Vec<_> = self.to_settle.drain(..take).collect();
        let store = Arc::clone(&self.parts.store);
        self.work.push(Box::pin(async move {
            let settlements = batch.iter().map(|u| u.settlement.clone()).collect();
            let answer = store.settle(settlements).await;
            Done::Settled { batch, answer }
        }));
    }

    fn settled(&mut self, batch: Vec<Unsettled>, answer: Result<SettleAnswer, StoreError>, now: Timestamp) {
        self.settling = false;
        let SettleAnswer { results, wakes } = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // The outcomes stay in memory, and their deliveries out of the next pick, until
                // they are on disk.
                self.store_failed("settle", &error);
                self.settle_at = Some(now.saturating_add(READ_AGAIN_AFTER));
                let later = std::mem::replace(&mut self.to_settle, batch);
                self.to_settle.extend(later);
                return;
            }
        };
        self.parts.watch.recorded(&batch, &results);
        for (unsettled, result) in batch.into_iter().zip(results) {
            let Unsettled { settlement, due, effect, .. } = unsettled;
            let again = match (result, &settlement.next) {
                // What became of it meanwhile, and since when it is due, only the store knows.
                (Settled::Superseded, _) => Some(Timestamp::EPOCH),
                (Settled::Recorded, Next::Retry(at)) => Some(*at),
                (Settled::Recorded, _) => None,
            };
            self.parts.streams.attempted(&settlement);
            if result == Settled::Recorded {
                self.report(&settlement, &due);
                if let Some(effect) = effect {
                    // The receiver is gone only when the engine is: nobody is left to tell.
                    let _ = self.parts.effects.send(effect);
                }
            }
            self.scheduler.settled(due.tenant, due.webhook, due.urgency, due.seq, again, now);
            if result == Settled::Superseded && due.ordered {
                // It may have become more urgent while it was under way: then it is found elsewhere.
                let Due { tenant, webhook, seq, .. } = due;
                self.scheduler.woken(&Wake { tenant, webhook, seq, at: None }, now);
            }
        }
        self.woken(&wakes, now);
    }

    fn report(&self, settlement: &Settlement, due: &Due) {
        match settlement.next {
            Next::Delivered => {
                self.parts.metrics.delivery_ended(DeliveryState::Delivered, None);
                let accepted_at = due.events.first().accepted_at;
                self.parts.metrics.arrived(settlement.attempt.ended_at().since(accepted_at));
            }
            Next::End(state, reason) => self.parts.metrics.delivery_ended(state, Some(reason)),
            Next::Retry(_) => {}
        }
    }

    fn store_failed(&self, operation: &'static str, error: &StoreError) {
        self.parts.metrics.store_error();
        tracing::error!(operation, %error, "the store failed; trying again");
    }
}

fn feedback_of(record: &AttemptRecord) -> Feedback {
    match record.outcome {
        Outcome::Ok | Outcome::HttpStatus if u128::from(record.timings.total_us) > SLOW.as_micros() => {
            Feedback::AnsweredSlowly
        }
        Outcome::Ok | Outcome::HttpStatus => Feedback::Answered,
        _ => Feedback::Silent,
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        // Waking a little early would only turn in vain.
        Some(wait) => tokio::time::sleep(wait + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
