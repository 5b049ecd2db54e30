//! What a tenant's quotas allow (`settings.quotas`), and what is told when they are used up.
//!
//! A tenant without quotas costs one comparison. For the others:
//! - `events_per_s` is a token bucket that holds a second's worth; a request counts with all its events,
//!   repeated ones too, and gets all it asks for or nothing;
//! - `pending` is an estimate in memory that is never too low for what this node accepts: what was
//!   counted in the store, and everything accepted since. Only when it says that there is no room is
//!   the store asked again, so that what was delivered meanwhile counts; the answer is exact then;
//! - `webhooks` are counted in the store, one registration of a tenant after the other.
//!
//! Quotas bound what callers add. What Gatepost itself makes of it (retries, replays, own events) is
//! never refused: it is owed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_core::tenant::{Quotas, Tenant};
use gatepost_core::{TenantId, TenantKey, Timestamp};
use gatepost_store::{Accepted, Publish};
use tokio::sync::OwnedMutexGuard;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// Tenants remembered; past this those whose bucket is full and for whom nothing is under way are
/// forgotten (P10).
const TENANTS: usize = 10_000;
/// How long publishing waits for deliveries.
const PATIENCE: Duration = Duration::from_secs(2);
/// When it makes sense to try again where no moment can be told.
const PENDING_AGAIN: Duration = Duration::from_secs(5);
const WEBHOOKS_AGAIN: Duration = Duration::from_secs(60);
/// Where counting took longer than this, the store is asked again only after so many times as long:
/// counting a very large backlog must not become what the server does.
const QUICK_COUNT: Duration = Duration::from_millis(5);
const RECOUNT_SHARE: u32 = 20;

/// One of the quotas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quota {
    /// Webhooks.
    Webhooks,
    /// Events accepted per second.
    EventsPerS,
    /// Deliveries waiting.
    Pending,
}

impl Quota {
    /// Its name in a tenant's settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Quota::Webhooks => "webhooks",
            Quota::EventsPerS => "events_per_s",
            Quota::Pending => "pending",
        }
    }
}

/// How much of a quota is left, for the headers `RateLimit` and `RateLimit-Policy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotaState {
    /// Which.
    pub quota: Quota,
    /// What it allows.
    pub limit: u64,
    /// What is left of it.
    pub left: u64,
    /// Whole seconds until there is (all of) it again; none: that is not known.
    pub reset_s: Option<u64>,
}

/// A quota was used up. Nothing of the call happened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct QuotaRefusal {
    /// Which, and how it stands.
    pub state: QuotaState,
    /// Whole seconds after which to try again, at least 1.
    pub retry_after_s: u64,
    /// For people.
    pub message: String,
}

impl QuotaRefusal {
    fn error(state: QuotaState, retry_after: Duration, message: String) -> Error {
        let retry_after_s = seconds_up(retry_after).max(1);
        Error::Quota(Box::new(QuotaRefusal { state, retry_after_s, message }))
    }
}

fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Millionths of an event: with so many the gain of a microsecond is the limit itself.
const ONE: u64 = 1_000_000;

/// Events per second.
#[derive(Clone, Copy, Debug)]
struct Rate {
    limit: u64,
    /// In millionths, as of `at`.
    tokens: u64,
    at: Timestamp,
}

impl Rate {
    fn full(limit: u64, now: Timestamp) -> Self {
        Rate { limit, tokens: limit * ONE, at: now }
    }

    fn fill(&mut self, limit: u64, now: Timestamp) {
        let elapsed = now.since(self.at).min(Duration::from_secs(1));
        let gained = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(self.limit);
        self.tokens = self.tokens.saturating_add(gained).min(limit * ONE);
        self.limit = limit;
        self.at = self.at.max(now);
    }

    /// How long until there are so many.
    fn wait(&self, events: u64) -> Duration {
        let missing = (events * ONE).saturating_sub(self.tokens);
        match self.limit {
            0 => WEBHOOKS_AGAIN,
            limit => Duration::from_micros(missing.div_ceil(limit)),
        }
    }

    fn state(&self) -> QuotaState {
        let (limit, left) = (self.limit, self.tokens / ONE);
        QuotaState { quota: Quota::EventsPerS, limit, left, reset_s: Some(seconds_up(self.wait(limit)).max(1)) }
    }
}

/// Deliveries waiting, as far as memory knows.
#[derive(Default)]
struct Pending {
    /// As the store last said; none: it was never asked.
    counted: Option<u64>,
    /// Accepted since the question for that was put: never less than what the answer does not have.
    since: u64,
    /// Of publishes under way.
    reserved: u64,
    /// Not asked again before then.
    again_at: Option<Timestamp>,
}

impl Pending {
    fn known(&self) -> u64 {
        self.counted.unwrap_or(0) + self.since + self.reserved
    }
}

/// One tenant's.
#[derive(Default)]
struct Book {
    rate: Mutex<Option<Rate>>,
    pending: Mutex<Pending>,
    /// One count at a time.
    counting: tokio::sync::Mutex<()>,
    /// One registration at a time.
    registering: Arc<tokio::sync::Mutex<()>>,
}

/// What is known of tenants with quotas.
#[derive(Default)]
pub(crate) struct QuotaBook {
    books: Mutex<HashMap<TenantKey, Arc<Book>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these; if it did, the numbers would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl QuotaBook {
    fn of(&self, tenant: TenantKey, now: Timestamp) -> Arc<Book> {
        let mut books = lock(&self.books);
        if let Some(book) = books.get(&tenant) {
            return Arc::clone(book);
        }
        if books.len() >= TENANTS {
            books.retain(|_, book| Arc::strong_count(book) > 1 || !book.says_nothing(now));
        }
        Arc::clone(books.entry(tenant).or_default())
    }
}

impl Book {
    /// Whether a new one would say the same: what waits can be counted again.
    fn says_nothing(&self, now: Timestamp) -> bool {
        lock(&self.rate).as_mut().is_none_or(|rate| {
            rate.fill(rate.limit, now);
            rate.tokens == rate.limit * ONE
        })
    }

    /// Takes `events` at once, or tells why not.
    fn take(&self, limit: u64, events: u64, now: Timestamp) -> Result<()> {
        let mut rate = lock(&self.rate);
        let rate = rate.get_or_insert_with(|| Rate::full(limit, now));
        rate.fill(limit, now);
        if events * ONE <= rate.tokens {
            rate.tokens -= events * ONE;
            return Ok(());
        }
        let mut state = rate.state();
        if events > limit {
            let message = format!(
                "the request has {events} events and the tenant may publish {limit} a second: send fewer at once"
            );
            return Err(QuotaRefusal::error(state, rate.wait(limit), message));
        }
        let wait = rate.wait(events);
        state.reset_s = Some(seconds_up(wait).max(1));
        let message = format!("the tenant may publish {limit} events a second, and they are used up");
        Err(QuotaRefusal::error(state, wait, message))
    }

    fn give_back(&self, events: u64) {
        if let Some(rate) = lock(&self.rate).as_mut() {
            rate.tokens = (rate.tokens + events * ONE).min(rate.limit * ONE);
        }
    }
}

/// Events let in: given back unless they are accepted.
#[must_use = "what is not held is given back"]
pub(crate) struct Entry(Option<(Arc<Book>, u64)>);

impl Entry {
    /// They were accepted.
    pub(crate) fn used(mut self) {
        self.0 = None;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some((book, events)) = self.0.take() {
            book.give_back(events);
        }
    }
}

/// Room for the deliveries of one publish.
#[must_use = "room that is not filled counts as filled until what waits is counted again"]
pub(crate) struct Room(Option<(Arc<Book>, u64)>);

impl Room {
    /// What was made of it, now that it is known. Duplicates make nothing.
    pub(crate) fn filled(mut self, accepted: &[Accepted]) {
        if let Some((book, reserved)) = self.0.take() {
            let new = accepted.iter().filter(|one| !one.duplicate);
            let made = new.map(|one| u64::from(one.delivery_count.saturating_sub(one.joined))).sum::<u64>();
            let mut pending = lock(&book.pending);
            pending.reserved -= reserved;
            pending.since += made;
        }
    }
}

impl Drop for Room {
    /// Nobody knows what became of the publish: its deliveries may be there. Should they not be, the
    /// next count says so.
    fn drop(&mut self) {
        if let Some((book, reserved)) = self.0.take() {
            let mut pending = lock(&book.pending);
            pending.reserved -= reserved;
            pending.since += reserved;
        }
    }
}

/// The right to register one webhook, for as long as it is held.
#[must_use = "the next one may register as soon as this is dropped"]
pub(crate) struct WebhookTurn {
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Engine {
    /// Lets a publish of so many events in, as far as `events_per_s` goes.
    ///
    /// # Errors
    /// [`Error::Quota`].
    pub(crate) fn let_in(&self, tenant: &Tenant, events: usize) -> Result<Entry> {
        let Some(limit) = tenant.settings.quotas.events_per_s else { return Ok(Entry(None)) };
        let now = self.waiting();
        let book = self.inner.quotas.of(tenant.key, now);
        let events = events as u64;
        book.take(u64::from(limit), events, now).inspect_err(|_| self.refused(Quota::EventsPerS))?;
        Ok(Entry(Some((book, events))))
    }

    /// Waits a little where deliveries do not keep up with what is published (DESIGN 8).
    ///
    /// # Errors
    /// [`Error::Busy`] when they still do not.
    pub(crate) async fn wait_for_deliveries(&self) -> Result<()> {
        let budget = &self.inner.inbox.budget;
        // The simulation drives everything by hand and has nothing to wait with.
        if budget.is_free() || tokio::runtime::Handle::try_current().is_err() {
            return Ok(());
        }
        let free = budget.wait(PATIENCE).await;
        self.inner.metrics.publish_waited(free);
        if free { Ok(()) } else { Err(Error::Busy) }
    }

    /// How the tenant's `events_per_s` stands now; none: it has no such quota.
    pub async fn event_quota(&self, tenant: &TenantId) -> Option<QuotaState> {
        let state = self.tenant_state(tenant).await.ok()?;
        let (limit, key) = {
            let tenant = state.tenant.load();
            (u64::from(tenant.settings.quotas.events_per_s?), tenant.key)
        };
        let now = self.waiting();
        let book = self.inner.quotas.of(key, now);
        let mut rate = lock(&book.rate);
        let rate = rate.get_or_insert_with(|| Rate::full(limit, now));
        rate.fill(limit, now);
        Some(rate.state())
    }

    /// Room for what a matched publish would make, as far as `pending` goes. Events accepted before
    /// make nothing, so they need none.
    ///
    /// # Errors
    /// [`Error::Quota`]; the store's, when it has to be asked.
    pub(crate) async fn room_for(&self, quotas: Quotas, publish: &Publish) -> Result<Room> {
        let Some(limit) = quotas.pending else { return Ok(Room(None)) };
        let wanted = |publish: &Publish| publish.events.iter().map(|event| event.matches.len() as u64).sum::<u64>();
        let needed = wanted(publish);
        if needed == 0 {
            return Ok(Room(None));
        }
        let book = self.inner.quotas.of(publish.tenant, self.waiting());
        if let Some(room) = reserve(&book, limit, needed) {
            return Ok(room);
        }
        let needed = self.without_duplicates(publish).await?;
        self.recount(&book, publish.tenant, limit, needed).await?;
        reserve(&book, limit, needed).ok_or_else(|| {
            self.refused(Quota::Pending);
            let left = limit.saturating_sub(lock(&book.pending).known());
            let state = QuotaState { quota: Quota::Pending, limit, left, reset_s: None };
            let message = format!(
                "{} deliveries wait for the tenant's webhooks and {limit} may: {needed} more are too many",
                limit - left
            );
            QuotaRefusal::error(state, PENDING_AGAIN, message)
        })
    }

    /// Deliveries of the events that are not known yet.
    async fn without_duplicates(&self, publish: &Publish) -> Result<u64> {
        let mut needed = 0;
        for event in &publish.events {
            let known = match &event.caller_id {
                Some(id) => self.inner.store.event(publish.tenant, id).await?.is_some(),
                None => false,
            };
            needed += if known { 0 } else { event.matches.len() as u64 };
        }
        Ok(needed)
    }

    /// Asks the store what waits, unless somebody just did and there is room now.
    async fn recount(&self, book: &Book, tenant: TenantKey, limit: u64, needed: u64) -> Result<()> {
        let _turn = book.counting.lock().await;
        let began = self.waiting();
        {
            let mut pending = lock(&book.pending);
            let fits = pending.counted.is_some() && pending.known() + needed <= limit;
            if fits || needed > limit || pending.again_at.is_some_and(|at| began < at) {
                return Ok(());
            }
            // What is accepted from here on may or may not be in the answer: it is counted twice rather
            // than not at all.
            pending.since = 0;
            pending.counted = Some(limit);
        }
        let counted = self.inner.store.pending_count(tenant, limit.saturating_add(1)).await;
        let now = self.waiting();
        let mut pending = lock(&book.pending);
        match counted {
            Ok(counted) => {
                pending.counted = Some(counted);
                let took = Some(now.since(began)).filter(|took| *took > QUICK_COUNT);
                pending.again_at = took.map(|took| now.saturating_add(took * RECOUNT_SHARE));
                Ok(())
            }
            Err(error) => {
                pending.counted = None;
                Err(error.into())
            }
        }
    }

    /// Waits for the tenant's turn to register a webhook, as far as `webhooks` goes.
    ///
    /// # Errors
    /// [`Error::Quota`]; the store's.
    pub(crate) async fn room_for_webhook(&self, tenant: &Tenant) -> Result<WebhookTurn> {
        let Some(limit) = tenant.settings.quotas.webhooks.map(u64::from) else {
            return Ok(WebhookTurn { _turn: None });
        };
        let book = self.inner.quotas.of(tenant.key, self.waiting());
        let turn = Arc::clone(&book.registering).lock_owned().await;
        let present = self.inner.store.webhook_count(tenant.key).await?;
        if present < limit {
            return Ok(WebhookTurn { _turn: Some(turn) });
        }
        self.refused(Quota::Webhooks);
        let state = QuotaState { quota: Quota::Webhooks, limit, left: 0, reset_s: None };
        let message = format!("the tenant has {present} webhooks and may have {limit}: delete one first");
        Err(QuotaRefusal::error(state, WEBHOOKS_AGAIN, message))
    }

    fn refused(&self, quota: Quota) {
        self.inner.metrics.quota_refused(quota.as_str());
    }
}

/// Reserves room if memory knows that there is.
fn reserve(book: &Arc<Book>, limit: u64, needed: u64) -> Option<Room> {
    let mut pending = lock(&book.pending);
    let known = pending.counted.is_some() || needed == 0;
    if !known || (needed > 0 && pending.known() + needed > limit) {
        return None;
    }
    pending.reserved += needed;
    Some(Room(Some((Arc::clone(book), needed))))
}

#[cfg(test)]
mod tests;
