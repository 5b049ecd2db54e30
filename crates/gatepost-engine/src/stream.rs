//! What happens to a tenant, as it happens: for those who listen.
//!
//! Publishers and the lane only ever drop a small fact into their tenant's letter box, and only while
//! somebody listens (or did, a few minutes ago); if the box is full the fact that something was lost
//! takes its place. One pump per tenant turns facts into what is shown, reading deliveries as they stand
//! then, and keeps the last of them in a ring. Listeners read the ring at their own pace: one that is too
//! slow, or comes back too late, hears of a reset. So nobody who listens holds up anybody (P5, P10).

mod ring;
mod subscription;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use gatepost_core::delivery::{AttemptRecord, Outcome, Timings, Trigger};
use gatepost_core::event::Event;
use gatepost_core::{DeliveryId, DeliverySeq, EventSeq, TenantKey, Timestamp, WebhookId};
use gatepost_store::{Accepted, DeliveryRow, DeliveryRows, Settlement, Store};

pub use subscription::{Position, StreamFilter, StreamKind, Streamed, Subscription};

use crate::engine::Limits;

pub(crate) use ring::Ring;
use ring::{Fact, Taken};

/// How long a tenant's changes are kept after the last listener left, so that it can come back.
const LINGER: Duration = Duration::from_secs(5 * 60);
/// Between two rounds of a pump: what happens in between is read together.
const ROUND: Duration = Duration::from_millis(20);
/// Facts of one round.
const FACTS: usize = 256;
/// Deliveries read in one round, about.
const ROWS: u32 = 2_000;
/// Deliveries shown of one new event.
const DELIVERIES_OF_EVENT: usize = 1_000;
/// Listeners of the whole server.
const LISTENERS_MAX: usize = 1_000;
/// Listeners of one tenant.
const LISTENERS_OF_TENANT: usize = 100;

/// One change, as it is shown.
#[derive(Debug)]
pub enum Change {
    /// An event was accepted.
    Event {
        /// The event.
        event: Arc<Event>,
        /// How many deliveries it has.
        deliveries: u32,
    },
    /// A delivery was made, tried, reopened, or ended: as it stood a moment later.
    Delivery(Box<DeliveryRow>),
    /// An attempt was made.
    Attempt(Box<AttemptMade>),
}

/// An attempt, without what was sent and answered: the delivery's single view has that.
#[derive(Debug)]
pub struct AttemptMade {
    /// For which delivery.
    pub delivery: DeliveryId,
    /// To whom.
    pub webhook_id: WebhookId,
    /// Which attempt of the delivery, from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// What set it off.
    pub trigger: Trigger,
    /// What it came to.
    pub outcome: Outcome,
    /// The status answered.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long each phase took.
    pub timings: Timings,
    /// Whether the request went out a second time.
    pub resent: bool,
}

/// Every tenant somebody listens to.
pub(crate) struct Streams {
    /// Bytes of changes kept, and of facts that wait, all rings together.
    ring_bytes_max: usize,
    fact_bytes_max: usize,
    rings: RwLock<HashMap<TenantKey, Arc<Ring>>>,
    /// How many there are: read without a lock on every publish.
    count: AtomicUsize,
    listeners: AtomicUsize,
    closed: AtomicBool,
}

impl Streams {
    /// Nobody listens yet.
    pub(crate) fn new(limits: &Limits) -> Self {
        Streams {
            ring_bytes_max: limits.stream_ring_bytes,
            fact_bytes_max: limits.stream_fact_bytes,
            rings: RwLock::default(),
            count: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// The ring of a tenant somebody listens to.
    fn ring(&self, tenant: TenantKey) -> Option<Arc<Ring>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.rings.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    /// Events of one tenant were accepted.
    pub(crate) fn accepted(&self, accepted: &[Accepted]) {
        let Some(ring) = accepted.first().and_then(|first| self.ring(first.event.tenant)) else { return };
        let bytes = self.each(self.fact_bytes_max, 4);
        for one in accepted.iter().filter(|one| !one.duplicate) {
            ring.drop_in(Fact::Accepted { event: Arc::clone(&one.event), deliveries: one.delivery_count }, bytes);
        }
    }

    /// An attempt was recorded, and with it what it meant for its delivery.
    pub(crate) fn attempted(&self, settlement: &Settlement) {
        let Some(ring) = self.ring(settlement.tenant) else { return };
        let AttemptRecord { number, started_at, trigger, outcome, status, ref error, timings, resent, .. } =
            *settlement.attempt;
        let attempt = Attempted { number, started_at, trigger, outcome, status, error: error.clone(), timings, resent };
        let fact = Fact::Attempted { delivery: settlement.seq, attempt: Box::new(attempt) };
        ring.drop_in(fact, self.each(self.fact_bytes_max, 4));
    }

    /// A delivery was reopened or cancelled by hand.
    pub(crate) fn changed(&self, tenant: TenantKey, delivery: DeliverySeq) {
        if let Some(ring) = self.ring(tenant) {
            ring.drop_in(Fact::Changed { delivery }, self.each(self.fact_bytes_max, 4));
        }
    }

    /// What is kept about a person was erased: whoever goes on from an earlier position must not be sent
    /// it again.
    pub(crate) fn erased(&self, tenant: TenantKey) {
        if let Some(ring) = self.ring(tenant) {
            ring.forget_all();
        }
    }

    /// A tenant was deleted: nobody hears of it any more.
    pub(crate) fn tenant_deleted(&self, tenant: TenantKey) {
        if let Some(ring) = self.forget(tenant) {
            ring.close();
        }
    }

    /// Somebody may no longer be allowed to listen: everybody looks.
    pub(crate) fn look_again(&self) {
        for ring in self.rings.read().unwrap_or_else(PoisonError::into_inner).values() {
            ring.look_again();
        }
    }

    /// The server stops: every stream ends.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for ring in self.rings.read().unwrap_or_else(PoisonError::into_inner).values() {
            ring.close();
        }
    }

    fn forget(&self, tenant: TenantKey) -> Option<Arc<Ring>> {
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        let ring = rings.remove(&tenant);
        self.count.store(rings.len(), Ordering::Relaxed);
        ring
    }

    /// The tenant's ring, and whether it was made just now.
    fn join(&self, tenant: TenantKey, now: Timestamp) -> (Arc<Ring>, bool) {
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        let mut made = false;
        let ring = rings.entry(tenant).or_insert_with(|| {
            made = true;
            Arc::new(Ring::new(now))
        });
        let ring = Arc::clone(ring);
        ring.listeners.fetch_add(1, Ordering::SeqCst);
        self.listeners.fetch_add(1, Ordering::SeqCst);
        self.count.store(rings.len(), Ordering::Relaxed);
        // Closing sets the flag first and then closes the rings there are.
        if self.closed.load(Ordering::SeqCst) {
            ring.close();
        }
        (ring, made)
    }

    /// Takes a ring away that nobody has listened to for long. Under the lock, so that nobody joins a
    /// ring that is being forgotten.
    fn retire(&self, tenant: TenantKey, ring: &Arc<Ring>) -> bool {
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        if ring.listeners.load(Ordering::SeqCst) > 0 {
            return false;
        }
        if rings.get(&tenant).is_some_and(|present| Arc::ptr_eq(present, ring)) {
            rings.remove(&tenant);
            self.count.store(rings.len(), Ordering::Relaxed);
        }
        true
    }

    /// What one ring may have of what all may have: the more there are, the less.
    fn each(&self, all: usize, at_least: usize) -> usize {
        all / self.count.load(Ordering::Relaxed).max(at_least)
    }

    /// Adds changes to a ring. One change that is larger than the ring's part is kept as long as all
    /// rings together have room for it; else those who listen read it in the lists.
    fn keep(&self, ring: &Ring, changes: Vec<Change>) {
        let most = self.each(self.ring_bytes_max, 16);
        ring.append(changes, most);
        if ring.bytes() > most {
            let rings = self.rings.read().unwrap_or_else(PoisonError::into_inner);
            let kept: usize = rings.values().map(|ring| ring.bytes()).sum();
            drop(rings);
            if kept > self.ring_bytes_max {
                ring.reset();
            }
        }
    }

    /// Whether there are so many rings that those nobody listens to go at once.
    fn is_crowded(&self) -> bool {
        self.count.load(Ordering::Relaxed) > LISTENERS_MAX
    }
}

/// An attempt, before it is known whose its delivery is.
#[derive(Debug)]
struct Attempted {
    number: u32,
    started_at: Timestamp,
    trigger: Trigger,
    outcome: Outcome,
    status: Option<u16>,
    error: Option<String>,
    timings: Timings,
    resent: bool,
}

/// Turns a tenant's facts into what is shown, until nobody listens any more.
pub(crate) async fn pump(streams: Arc<Streams>, store: Arc<dyn Store>, tenant: TenantKey, ring: Arc<Ring>) {
    let mut idle_since = None;
    while !ring.is_closed() {
        // Facts are waited for as long as somebody listens; a little longer for who comes back.
        let waited = tokio::time::timeout(LINGER / 10, ring.wait_for_facts()).await;
        if ring.listeners.load(Ordering::SeqCst) > 0 {
            idle_since = None;
        } else {
            let since = *idle_since.get_or_insert_with(tokio::time::Instant::now);
            if (since.elapsed() >= LINGER || streams.is_crowded()) && streams.retire(tenant, &ring) {
                break;
            }
        }
        if waited.is_err() {
            continue;
        }
        let Taken { facts, lost } = ring.take(FACTS, ROWS);
        if lost {
            ring.reset();
        }
        match shown(&*store, tenant, facts).await {
            Ok(changes) => streams.keep(&ring, changes),
            Err(error) => {
                tracing::warn!(%error, "deliveries could not be read for a stream of changes");
                ring.reset();
            }
        }
        tokio::time::sleep(ROUND).await;
    }
    ring.close();
}

/// What is shown of facts, in their order; of several about one delivery, its row once, at the last.
async fn shown(
    store: &dyn Store,
    tenant: TenantKey,
    facts: Vec<Fact>,
) -> Result<Vec<Change>, gatepost_store::StoreError> {
    let made: Vec<EventSeq> = facts.iter().filter_map(Fact::made).collect();
    let touched: Vec<DeliverySeq> = facts.iter().filter_map(Fact::touched).collect();
    let rows = match (made.as_slice(), touched.as_slice()) {
        ([], []) => DeliveryRows::default(),
        (made, touched) => store.delivery_rows(tenant, made, touched, DELIVERIES_OF_EVENT).await?,
    };
    let mut of_events: HashMap<EventSeq, Vec<DeliveryRow>> = made.into_iter().zip(rows.of_events).collect();
    let by_seq: HashMap<DeliverySeq, DeliveryRow> = rows.deliveries.into_iter().map(|row| (row.seq, row)).collect();
    let mut last_touch: HashMap<DeliverySeq, usize> = HashMap::new();
    for (index, fact) in facts.iter().enumerate() {
        if let Some(seq) = fact.touched() {
            last_touch.insert(seq, index);
        }
    }
    let mut changes = Vec::with_capacity(facts.len() * 2);
    for (index, fact) in facts.into_iter().enumerate() {
        match fact {
            Fact::Accepted { event, deliveries } => {
                let rows = of_events.remove(&event.seq).unwrap_or_default();
                changes.push(Change::Event { event, deliveries });
                let fresh = rows.into_iter().filter(|row| !last_touch.contains_key(&row.seq));
                changes.extend(fresh.map(|row| Change::Delivery(Box::new(row))));
            }
            Fact::Attempted { delivery, attempt } => {
                // Gone with its tenant: nobody listens for much longer.
                let Some(row) = by_seq.get(&delivery) else { continue };
                changes.push(Change::Attempt(Box::new(attempt.of(row))));
                if last_touch.get(&delivery) == Some(&index) {
                    changes.push(Change::Delivery(Box::new(row.clone())));
                }
            }
            Fact::Changed { delivery } => {
                if last_touch.get(&delivery) == Some(&index)
                    && let Some(row) = by_seq.get(&delivery)
                {
                    changes.push(Change::Delivery(Box::new(row.clone())));
                }
            }
        }
    }
    Ok(changes)
}

impl Attempted {
    fn of(self, row: &DeliveryRow) -> AttemptMade {
        let Attempted { number, started_at, trigger, outcome, status, error, timings, resent } = self;
        AttemptMade {
            delivery: row.id(),
            webhook_id: row.webhook_id,
            number,
            started_at,
            trigger,
            outcome,
            status,
            error,
            timings,
            resent,
        }
    }
}

#[cfg(test)]
mod tests;
