//! The store as the engine sees it in a simulation: the real one, which may die under any call, and
//! which may have a bug planted in it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gatepost_core::delivery::AttemptRecord;
use gatepost_core::event::Event;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{DeliverySeq, EventId, EventSeq, KeyId, TenantId, TenantKey, Timestamp, WebhookId, WebhookKey};
use gatepost_store::*;

use super::dice::Dice;
use super::ledger::{self, Shared};

/// A bug on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// Some outcomes are answered as recorded and are not.
    LostSettle,
    /// A delivery read while it is under way is taken once more.
    DoubleClaim,
    /// Some retries are put off for years.
    DroppedRetry,
    /// Some frozen bodies come back changed.
    WrongBytes,
    /// One tenant's deliveries are never read back.
    StarvedTenant,
    /// One tenant never waits its turn.
    Favourite,
    /// Some accepted events are gone.
    LostEvent,
    /// Some own events that were noted are forgotten.
    LostNews,
    /// Some own events are published, and their notes stay.
    ToldTwice,
    /// Nobody asks in which order deliveries go.
    LostOrder,
    /// Nobody hears that something urgent waits behind another delivery.
    LostHurry,
    /// Nobody hears of some deliveries that are made after their event.
    MadeInSecret,
    /// Some batches are sent without their first event.
    ShortBatch,
    /// Waits are measured by the clock, whoever sets it.
    WaitsByTheClock,
}

struct Fate {
    /// The call under which the process dies, counted from now; and whether it is applied first.
    dies_in: Option<(u64, bool)>,
    dead: bool,
    calls: u64,
    dice: Dice,
}

/// See the module.
pub(crate) struct SimStore {
    pub(super) inner: Arc<dyn Store>,
    ledger: Shared,
    bug: Option<Bug>,
    fate: Mutex<Fate>,
}

enum Call {
    Passes,
    DiesBefore,
    DiesAfter,
}

impl SimStore {
    pub(crate) fn new(inner: Arc<dyn Store>, ledger: Shared, bug: Option<Bug>, dice: Dice) -> Self {
        let fate = Mutex::new(Fate { dies_in: None, dead: false, calls: 0, dice });
        SimStore { inner, ledger, bug, fate }
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process shall die under the `calls`th call from now, before or after it is applied.
    pub(crate) fn die_in(&self, calls: u64, after: bool) {
        self.fate().dies_in = Some((calls, after));
    }

    /// Whether the process died.
    pub(crate) fn is_dead(&self) -> bool {
        self.fate().dead
    }

    /// A new process.
    pub(crate) fn revive(&self) {
        let mut fate = self.fate();
        fate.dead = false;
        fate.dies_in = None;
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.fate().calls
    }

    fn enter(&self) -> Call {
        let mut fate = self.fate();
        fate.calls += 1;
        if fate.dead {
            return Call::DiesBefore;
        }
        match fate.dies_in {
            Some((0, after)) => {
                fate.dead = true;
                fate.dies_in = None;
                if after { Call::DiesAfter } else { Call::DiesBefore }
            }
            Some((calls, after)) => {
                fate.dies_in = Some((calls - 1, after));
                Call::Passes
            }
            None => Call::Passes,
        }
    }

    /// A dead process hears nothing any more.
    pub(super) async fn through<T>(&self, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match self.enter() {
            Call::Passes => work.await,
            Call::DiesBefore => std::future::pending().await,
            Call::DiesAfter => {
                // What it would have answered, nobody hears.
                let _ = work.await;
                std::future::pending().await
            }
        }
    }

    fn strikes(&self, bug: Bug, one_in: u64) -> bool {
        self.bug == Some(bug) && self.fate().dice.one_in(one_in)
    }

    async fn due_or_bug(&self, query: DueQuery) -> Result<DuePage> {
        let mut page = self.inner.due(query).await?;
        // The first tenant has the number 1.
        if self.bug == Some(Bug::StarvedTenant) && page.rows.first().is_some_and(|row| row.tenant.0 == 1) {
            return Ok(DuePage { rows: Vec::new(), more: false, next_due: None });
        }
        for row in &mut page.rows {
            if let Some(body) = &row.body
                && self.strikes(Bug::WrongBytes, 3)
            {
                let mut changed = body.to_vec();
                changed.push(b' ');
                row.body = Some(Bytes::from(changed));
            }
            let events = row.events.all();
            if events.len() > 1
                && self.strikes(Bug::ShortBatch, 2)
                && let Some(fewer) = DeliveryEvents::batch(events[1..].to_vec())
            {
                row.events = fewer;
            }
        }
        Ok(page)
    }

    async fn settle_or_bug(&self, settlements: Vec<Settlement>) -> Result<SettleAnswer> {
        let mut kept = Vec::with_capacity(settlements.len());
        let mut dropped = Vec::new();
        for (index, mut settlement) in settlements.into_iter().enumerate() {
            if settlement.next == Next::Delivered && self.strikes(Bug::LostSettle, 4) {
                dropped.push(index);
                continue;
            }
            if let Next::Retry(at) = settlement.next
                && self.strikes(Bug::DroppedRetry, 4)
            {
                settlement.next = Next::Retry(at.saturating_add(Duration::from_secs(400 * 86_400)));
            }
            kept.push(settlement);
        }
        let mut answers = self.inner.settle(kept).await?;
        for index in dropped {
            answers.results.insert(index, Settled::Recorded);
        }
        Ok(answers)
    }

    async fn publish_or_bug(&self, mut publish: Publish) -> Result<PublishOutcome> {
        if self.strikes(Bug::LostEvent, 8) {
            for event in &mut publish.events {
                Arc::make_mut(&mut event.matches).pop();
            }
        }
        if self.bug == Some(Bug::LostOrder) {
            let matches = publish.events.iter_mut().map(|event| Arc::make_mut(&mut event.matches));
            for to in matches.flatten() {
                to.grouping.ordering = gatepost_core::webhook::Ordering::None;
            }
        }
        let mut outcome = self.inner.publish(publish).await?;
        if let (Some(Bug::LostHurry), PublishOutcome::Accepted(accepted)) = (self.bug, &mut outcome) {
            for one in accepted {
                one.wakes.retain(|wake| !matches!(wake.at, Some((gatepost_core::event::Urgency::Urgent, _))));
            }
        }
        Ok(outcome)
    }
}

macro_rules! forward {
    ($(fn $method:ident(&self $(, $arg:ident: $kind:ty)*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for SimStore {
            $(async fn $method(&self $(, $arg: $kind)*) -> Result<$answer> {
                self.through(self.inner.$method($($arg),*)).await
            })*

            async fn publish(&self, publish: Publish) -> Result<PublishOutcome> {
                self.through(self.publish_or_bug(publish)).await
            }

            async fn due(&self, query: DueQuery) -> Result<DuePage> {
                self.through(self.due_or_bug(query)).await
            }

            async fn settle(&self, settlements: Vec<Settlement>) -> Result<SettleAnswer> {
                let answers = self.through(self.settle_or_bug(settlements.clone())).await?;
                ledger::open(&self.ledger).settled(&settlements, &answers.results);
                Ok(answers)
            }

            async fn close(&self) {
                self.inner.close().await;
            }
        }
    };
}

forward! {
    fn meta(&self, name: &str) -> Option<Vec<u8>>;
    fn init_meta(&self, name: &str, value: &[u8]) -> Vec<u8>;
    fn set_meta(&self, name: &str, value: &[u8]) -> ();
    fn check(&self) -> ();
    fn stats(&self) -> StoreStats;
    fn put_tenant(&self, put: PutTenant) -> (Tenant, Created);
    fn tenant(&self, id: &TenantId) -> Option<Tenant>;
    fn tenant_by_key(&self, key: TenantKey) -> Option<Tenant>;
    fn tenants(&self, page: PageRequest) -> Page<Tenant>;
    fn delete_tenant(&self, id: &TenantId, now: Timestamp) -> Option<Tenant>;
    fn create_webhook(&self, new: NewWebhook) -> Option<RegistryChange>;
    fn update_webhook(&self, update: WebhookUpdate) -> UpdateOutcome;
    fn delete_webhook(&self, tenant: TenantKey, id: WebhookId, now: Timestamp) -> Option<RegistryChange>;
    fn record_test(&self, webhook: WebhookKey, test: AttemptRecord) -> ();
    fn webhook(&self, tenant: TenantKey, id: WebhookId) -> Option<Webhook>;
    fn webhooks(&self, tenant: TenantKey, page: PageRequest) -> Page<Webhook>;
    fn webhook_configs(&self, key: WebhookKey, revisions: &[u32]) -> BTreeMap<u32, WebhookConfig>;
    fn webhook_by_key(&self, key: WebhookKey) -> Option<Webhook>;
    fn registry(&self, tenant: TenantKey) -> Option<Registry>;
    fn registry_at(&self, tenant: TenantKey, version: u64, limit: usize) -> HistoricRegistry;
    fn event(&self, tenant: TenantKey, id: &EventId) -> Option<Event>;
    fn events(&self, query: EventQuery) -> EventPage;
    fn deliveries(&self, query: DeliveryQuery) -> Page<DeliveryRow>;
    fn delivery(&self, tenant: TenantKey, seq: DeliverySeq) -> Option<DeliveryDetail>;
    fn deliveries_of(&self, tenant: TenantKey, event: EventSeq, limit: usize) -> Vec<DeliveryRow>;
    fn owed(&self, after: Option<WebhookKey>, limit: usize) -> Vec<Owed>;
    fn retry(&self, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> RetryOutcome;
    fn cancel(&self, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> CancelOutcome;
    fn sweep(&self, now: Timestamp, max_rows: usize) -> SweepProgress;
    fn put_event_type(&self, event_type: EventTypeRow) -> Created;
    fn event_type(&self, name: &str) -> Option<EventTypeRow>;
    fn event_types(&self, after: Option<&str>, limit: usize) -> Vec<EventTypeRow>;
    fn delete_event_type(&self, name: &str) -> bool;
    fn create_key(&self, key: KeyRow) -> ();
    fn keys(&self, page: PageRequest) -> Page<KeyRow>;
    fn delete_key(&self, id: KeyId) -> bool;
}

#[async_trait]
impl gatepost_store::InstallationStore for SimStore {
    async fn swap_meta(&self, swaps: Vec<gatepost_store::MetaSwap>) -> Result<bool> {
        self.through(self.inner.swap_meta(swaps)).await
    }

    fn wait_by(&self, waits: Arc<gatepost_core::Waits>) {
        self.inner.wait_by(waits);
    }
}

#[async_trait]
impl gatepost_store::OwnEventStore for SimStore {
    async fn note_own(&self, event: gatepost_store::NewOwnEvent) -> Result<()> {
        self.through(self.inner.note_own(event)).await
    }

    async fn noted(&self, after: i64, limit: usize) -> Result<Vec<gatepost_store::Noted>> {
        if self.strikes(Bug::LostNews, 6)
            && let Some(first) = self.inner.noted(after, limit).await?.first()
        {
            self.inner.forget_noted(first.number).await?;
        }
        self.through(self.inner.noted(after, limit)).await
    }

    async fn publish_noted(
        &self,
        number: i64,
        publish: Publish,
        farewell: Option<WebhookKey>,
    ) -> Result<Option<PublishOutcome>> {
        if self.strikes(Bug::ToldTwice, 6) {
            self.inner.publish(publish.clone()).await?;
        }
        self.through(self.inner.publish_noted(number, publish, farewell)).await
    }

    async fn forget_noted(&self, number: i64) -> Result<()> {
        self.through(self.inner.forget_noted(number)).await
    }
}

#[async_trait]
impl gatepost_store::HealthStore for SimStore {
    async fn note_health(&self, notes: gatepost_store::HealthNotes) -> Result<gatepost_store::HealthTaken> {
        self.through(self.inner.note_health(notes)).await
    }

    async fn health_of(&self, webhooks: &[WebhookKey]) -> Result<BTreeMap<WebhookKey, gatepost_core::health::Health>> {
        self.through(self.inner.health_of(webhooks)).await
    }

    async fn health_counts(&self) -> Result<gatepost_store::HealthCounts> {
        self.through(self.inner.health_counts()).await
    }

    async fn record_verification(&self, webhook: WebhookKey, error: Option<String>) -> Result<()> {
        self.through(self.inner.record_verification(webhook, error)).await
    }
}

#[async_trait]
impl gatepost_store::IdempotencyStore for SimStore {
    async fn idempotency(
        &self,
        scope: gatepost_store::IdempotencyScope,
        now: Timestamp,
    ) -> Result<Option<gatepost_store::IdempotencyRecord>> {
        self.through(self.inner.idempotency(scope, now)).await
    }

    async fn begin_idempotent(
        &self,
        request: gatepost_store::IdempotentRequest,
    ) -> Result<gatepost_store::IdempotencyRecord> {
        self.through(self.inner.begin_idempotent(request)).await
    }

    async fn record_answer(
        &self,
        scope: gatepost_store::IdempotencyScope,
        started_at: Timestamp,
        answer: gatepost_store::RecordedAnswer,
    ) -> Result<()> {
        self.through(self.inner.record_answer(scope, started_at, answer)).await
    }

    async fn forget_idempotent(&self, scope: gatepost_store::IdempotencyScope, started_at: Timestamp) -> Result<()> {
        self.through(self.inner.forget_idempotent(scope, started_at)).await
    }

    async fn publish_once(
        &self,
        publish: Publish,
        request: gatepost_store::IdempotentRequest,
        answer: gatepost_store::MakeAnswer,
    ) -> Result<gatepost_store::PublishedOnce> {
        self.through(self.inner.publish_once(publish, request, answer)).await
    }
}

#[async_trait]
impl gatepost_store::StreamStore for SimStore {
    async fn delivery_rows(
        &self,
        tenant: TenantKey,
        events: &[EventSeq],
        deliveries: &[DeliverySeq],
        limit: usize,
    ) -> Result<DeliveryRows> {
        self.through(self.inner.delivery_rows(tenant, events, deliveries, limit)).await
    }
}

#[async_trait]
impl gatepost_store::MakingStore for SimStore {
    async fn make(&self, turn: Turn, rows: usize) -> Result<Made> {
        let made = self.through(self.inner.make(turn, rows)).await?;
        if self.strikes(Bug::MadeInSecret, 3) {
            return Ok(Made { dues: Vec::new(), wakes: Vec::new(), ..made });
        }
        Ok(made)
    }

    async fn last_unmade(&self, tenant: TenantKey) -> Result<Option<EventSeq>> {
        self.through(self.inner.last_unmade(tenant)).await
    }
}

#[async_trait]
impl gatepost_store::QuotaStore for SimStore {
    async fn webhook_count(&self, tenant: TenantKey) -> Result<u64> {
        self.through(self.inner.webhook_count(tenant)).await
    }

    async fn pending_count(&self, tenant: TenantKey, at_most: u64) -> Result<u64> {
        self.through(self.inner.pending_count(tenant, at_most)).await
    }
}

#[async_trait]
impl gatepost_store::TenantTypeStore for SimStore {
    async fn put_tenant_type(&self, tenant: TenantKey, row: EventTypeRow) -> Result<Option<Created>> {
        self.through(self.inner.put_tenant_type(tenant, row)).await
    }

    async fn delete_tenant_type(&self, tenant: TenantKey, name: &str) -> Result<bool> {
        self.through(self.inner.delete_tenant_type(tenant, name)).await
    }

    async fn tenant_type(&self, tenant: TenantKey, name: &str) -> Result<Option<gatepost_store::TenantTypeRow>> {
        self.through(self.inner.tenant_type(tenant, name)).await
    }

    async fn tenant_types(
        &self,
        tenant: TenantKey,
        after: Option<&str>,
        declared: bool,
        limit: usize,
    ) -> Result<Vec<gatepost_store::TenantTypeRow>> {
        self.through(self.inner.tenant_types(tenant, after, declared, limit)).await
    }

    async fn note_published(&self, types: Vec<gatepost_store::PublishedType>, upto: EventSeq) -> Result<()> {
        self.through(self.inner.note_published(types, upto)).await
    }

    async fn unnoted_types(&self, limit: usize) -> Result<gatepost_store::PublishedTypes> {
        self.through(self.inner.unnoted_types(limit)).await
    }
}
