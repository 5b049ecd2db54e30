//! A store that fails when it is told to, for simulations.

mod hooks;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use gatepost_core::delivery::AttemptRecord;
use gatepost_core::event::Event;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{
    DeliverySeq, EventId, EventSeq, JobId, KeyId, TenantId, TenantKey, Timestamp, WebhookId, WebhookKey,
};

use crate::{
    CancelOutcome, Created, DeliveryDetail, DeliveryQuery, DeliveryRow, DuePage, DueQuery, EventPage, EventQuery,
    EventTypeRow, HistoricRegistry, KeyRow, NewWebhook, Owed, Page, PageRequest, Publish, PublishOutcome, PutTenant,
    Registry, RegistryChange, Result, RetryOutcome, SettleAnswer, Settlement, Store, StoreError, StoreStats,
    SweepProgress, UpdateOutcome, WebhookUpdate,
};

/// What happens to one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing: it goes through.
    None,
    /// It fails before anything is applied.
    Before,
    /// It is applied, and its answer is lost.
    After,
}

/// Which call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// The [`Store`] method's name.
    pub method: &'static str,
    /// How many calls (of any method) came before, since the store was made.
    pub index: u64,
}

type Plan = Box<dyn Fn(Call) -> Fault + Send + Sync>;

/// A store around another one: each call asks a plan whether it shall fail. [`Store::close`] never
/// does.
pub struct FaultStore {
    inner: Arc<dyn Store>,
    plan: Plan,
    calls: AtomicU64,
    faults: AtomicU64,
    healthy: AtomicBool,
}

impl FaultStore {
    /// Fails the calls that `plan` picks.
    pub fn new(inner: Arc<dyn Store>, plan: impl Fn(Call) -> Fault + Send + Sync + 'static) -> Self {
        FaultStore {
            inner,
            plan: Box::new(plan),
            calls: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            healthy: AtomicBool::new(false),
        }
    }

    /// Fails about `before` of a thousand calls before, and `after` of a thousand after they were
    /// applied. Which ones depends on the seed and each call's index alone.
    pub fn seeded(inner: Arc<dyn Store>, seed: u64, before: u64, after: u64) -> Self {
        FaultStore::new(inner, move |call| match mix(seed ^ mix(call.index)) % 1_000 {
            roll if roll < before => Fault::Before,
            roll if roll < before + after => Fault::After,
            _ => Fault::None,
        })
    }

    /// Stops (`true`) or resumes (`false`) failing.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::SeqCst);
    }

    /// How many calls have failed.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }

    async fn call<T>(&self, method: &'static str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let index = self.calls.fetch_add(1, Ordering::SeqCst);
        let healthy = self.healthy.load(Ordering::SeqCst);
        let fault = if healthy { Fault::None } else { (self.plan)(Call { method, index }) };
        if fault != Fault::None {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Fault::None => work.await,
            Fault::Before => Err(StoreError::Unavailable(format!("made to fail before {method}"))),
            Fault::After => {
                work.await?;
                Err(StoreError::Unavailable(format!("made to lose the answer of {method}")))
            }
        }
    }
}

/// A well-mixed function of one number (SplitMix64's finaliser).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

macro_rules! forward {
    ($(fn $method:ident(&self $(, $arg:ident: $kind:ty)*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for FaultStore {
            $(async fn $method(&self $(, $arg: $kind)*) -> Result<$answer> {
                self.call(stringify!($method), self.inner.$method($($arg),*)).await
            })*

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
    fn publish(&self, publish: Publish) -> PublishOutcome;
    fn event(&self, tenant: TenantKey, id: &EventId) -> Option<Event>;
    fn events(&self, query: EventQuery) -> EventPage;
    fn deliveries(&self, query: DeliveryQuery) -> Page<DeliveryRow>;
    fn delivery(&self, tenant: TenantKey, seq: DeliverySeq) -> Option<DeliveryDetail>;
    fn deliveries_of(&self, tenant: TenantKey, event: EventSeq, limit: usize) -> Vec<DeliveryRow>;
    fn owed(&self, after: Option<WebhookKey>, limit: usize) -> Vec<Owed>;
    fn due(&self, query: DueQuery) -> DuePage;
    fn settle(&self, settlements: Vec<Settlement>) -> SettleAnswer;
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
impl crate::IdempotencyStore for FaultStore {
    async fn idempotency(
        &self,
        scope: crate::IdempotencyScope,
        now: Timestamp,
    ) -> Result<Option<crate::IdempotencyRecord>> {
        self.call("idempotency", self.inner.idempotency(scope, now)).await
    }

    async fn begin_idempotent(&self, request: crate::IdempotentRequest) -> Result<crate::IdempotencyRecord> {
        self.call("begin_idempotent", self.inner.begin_idempotent(request)).await
    }

    async fn record_answer(
        &self,
        scope: crate::IdempotencyScope,
        started_at: Timestamp,
        answer: crate::RecordedAnswer,
    ) -> Result<()> {
        self.call("record_answer", self.inner.record_answer(scope, started_at, answer)).await
    }

    async fn forget_idempotent(&self, scope: crate::IdempotencyScope, started_at: Timestamp) -> Result<()> {
        self.call("forget_idempotent", self.inner.forget_idempotent(scope, started_at)).await
    }

    async fn publish_once(
        &self,
        publish: Publish,
        request: crate::IdempotentRequest,
        answer: crate::MakeAnswer,
    ) -> Result<crate::PublishedOnce> {
        self.call("publish_once", self.inner.publish_once(publish, request, answer)).await
    }
}

#[async_trait]
impl crate::StreamStore for FaultStore {
    async fn delivery_rows(
        &self,
        tenant: TenantKey,
        events: &[EventSeq],
        deliveries: &[DeliverySeq],
        limit: usize,
    ) -> Result<crate::DeliveryRows> {
        self.call("delivery_rows", self.inner.delivery_rows(tenant, events, deliveries, limit)).await
    }
}

#[async_trait]
impl crate::TenantTypeStore for FaultStore {
    async fn put_tenant_type(&self, tenant: TenantKey, row: EventTypeRow) -> Result<Option<Created>> {
        self.call("put_tenant_type", self.inner.put_tenant_type(tenant, row)).await
    }

    async fn delete_tenant_type(&self, tenant: TenantKey, name: &str) -> Result<bool> {
        self.call("delete_tenant_type", self.inner.delete_tenant_type(tenant, name)).await
    }

    async fn tenant_type(&self, tenant: TenantKey, name: &str) -> Result<Option<crate::TenantTypeRow>> {
        self.call("tenant_type", self.inner.tenant_type(tenant, name)).await
    }

    async fn tenant_types(
        &self,
        tenant: TenantKey,
        after: Option<&str>,
        declared: bool,
        limit: usize,
    ) -> Result<Vec<crate::TenantTypeRow>> {
        self.call("tenant_types", self.inner.tenant_types(tenant, after, declared, limit)).await
    }

    async fn note_published(&self, types: Vec<crate::PublishedType>, upto: EventSeq) -> Result<()> {
        self.call("note_published", self.inner.note_published(types, upto)).await
    }

    async fn unnoted_types(&self, limit: usize) -> Result<crate::PublishedTypes> {
        self.call("unnoted_types", self.inner.unnoted_types(limit)).await
    }
}

macro_rules! forward_jobs {
    ($(fn $method:ident(&self $(, $arg:ident: $kind:ty)*) -> $answer:ty;)*) => {
        #[async_trait]
        impl crate::JobStore for FaultStore {
            $(async fn $method(&self $(, $arg: $kind)*) -> Result<$answer> {
                self.call(stringify!($method), self.inner.$method($($arg),*)).await
            })*
        }
    };
}

forward_jobs! {
    fn create_job(&self, new: crate::NewJob) -> Option<crate::Job>;
    fn job(&self, tenant: TenantKey, id: JobId) -> Option<crate::Job>;
    fn jobs(&self, tenant: TenantKey, page: PageRequest) -> Page<crate::Job>;
    fn cancel_job(&self, tenant: TenantKey, id: JobId, now: Timestamp) -> crate::CancelJobOutcome;
    fn open_jobs(&self, after: Option<TenantKey>, limit: usize) -> Vec<crate::Job>;
    fn end_job(&self, job: crate::JobKey, error: Option<String>, now: Timestamp) -> Option<crate::Job>;
    fn replay_candidates(&self, job: &crate::Job, limit: usize, max_bytes: usize) -> crate::Candidates;
    fn replay_select(&self, selection: crate::Selection) -> Option<crate::Job>;
    fn replay_deliver(&self, job: crate::JobKey, now: Timestamp, limit: usize) -> crate::Replayed;
    fn replay_of(&self, delivery: DeliverySeq) -> Option<crate::ReplayOf>;
    fn backlog(&self, webhook: WebhookKey, now: Timestamp, limit: usize) -> usize;
    fn erase(&self, job: crate::JobKey, now: Timestamp, limit: usize) -> crate::Erased;
    fn clear_traces(&self, position: u64) -> crate::Cleared;
    fn retain(&self, now: Timestamp, cursor: crate::RetentionCursor, max_rows: usize) -> crate::Retained;
    fn feed_floor(&self, tenant: TenantKey) -> i64;
    fn told(&self, query: crate::ToldQuery) -> crate::ToldPage;
    fn only_erased(&self, tenant: TenantKey, subject: &str, alias: &str) -> bool;
}

#[async_trait]
impl crate::QuotaStore for FaultStore {
    async fn webhook_count(&self, tenant: TenantKey) -> Result<u64> {
        self.call("webhook_count", self.inner.webhook_count(tenant)).await
    }

    async fn pending_count(&self, tenant: TenantKey, at_most: u64) -> Result<u64> {
        self.call("pending_count", self.inner.pending_count(tenant, at_most)).await
    }
}

#[async_trait]
impl crate::MakingStore for FaultStore {
    async fn make(&self, turn: crate::Turn, rows: usize) -> Result<crate::Made> {
        self.call("make", self.inner.make(turn, rows)).await
    }

    async fn last_unmade(&self, tenant: TenantKey) -> Result<Option<EventSeq>> {
        self.call("last_unmade", self.inner.last_unmade(tenant)).await
    }
}

#[async_trait]
impl crate::InstallationStore for FaultStore {
    async fn swap_meta(&self, swaps: Vec<crate::MetaSwap>) -> Result<bool> {
        self.call("swap_meta", self.inner.swap_meta(swaps)).await
    }

    fn wait_by(&self, waits: Arc<gatepost_core::Waits>) {
        self.inner.wait_by(waits);
    }
}

#[async_trait]
impl crate::OwnEventStore for FaultStore {
    async fn note_own(&self, event: crate::NewOwnEvent) -> Result<()> {
        self.call("note_own", self.inner.note_own(event)).await
    }

    async fn noted(&self, after: i64, limit: usize) -> Result<Vec<crate::Noted>> {
        self.call("noted", self.inner.noted(after, limit)).await
    }

    async fn publish_noted(
        &self,
        number: i64,
        publish: Publish,
        farewell: Option<WebhookKey>,
    ) -> Result<Option<PublishOutcome>> {
        self.call("publish_noted", self.inner.publish_noted(number, publish, farewell)).await
    }

    async fn forget_noted(&self, number: i64) -> Result<()> {
        self.call("forget_noted", self.inner.forget_noted(number)).await
    }
}

#[async_trait]
impl crate::HealthStore for FaultStore {
    async fn note_health(&self, notes: crate::HealthNotes) -> Result<crate::HealthTaken> {
        self.call("note_health", self.inner.note_health(notes)).await
    }

    async fn health_of(&self, webhooks: &[WebhookKey]) -> Result<BTreeMap<WebhookKey, gatepost_core::health::Health>> {
        self.call("health_of", self.inner.health_of(webhooks)).await
    }

    async fn health_counts(&self) -> Result<crate::HealthCounts> {
        self.call("health_counts", self.inner.health_counts()).await
    }

    async fn record_verification(&self, webhook: WebhookKey, error: Option<String>) -> Result<()> {
        self.call("record_verification", self.inner.record_verification(webhook, error)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqliteStore;

    #[tokio::test]
    async fn faults_before_apply_nothing_and_faults_after_apply_all() {
        let inner = Arc::new(SqliteStore::open_inline().unwrap());
        let store = FaultStore::new(inner, |call| match call.index {
            0 => Fault::Before,
            2 => Fault::After,
            _ => Fault::None,
        });
        assert!(matches!(store.set_meta("a", b"1").await, Err(StoreError::Unavailable(_))));
        assert_eq!(store.meta("a").await.unwrap(), None);
        assert!(matches!(store.set_meta("a", b"2").await, Err(StoreError::Unavailable(_))));
        assert_eq!(store.meta("a").await.unwrap(), Some(b"2".to_vec()));
        assert_eq!(store.faults(), 2);
    }

    #[tokio::test]
    async fn seeded_faults_repeat_and_can_be_switched_off() {
        let run = |seed| async move {
            let store = FaultStore::seeded(Arc::new(SqliteStore::open_inline().unwrap()), seed, 200, 200);
            let mut seen = Vec::new();
            for _ in 0..50 {
                seen.push(store.meta("a").await.is_ok());
            }
            store.set_healthy(true);
            for _ in 0..50 {
                store.meta("a").await.unwrap();
            }
            seen
        };
        let (one, two, other) = (run(1).await, run(1).await, run(2).await);
        assert_eq!(one, two);
        assert_ne!(one, other);
        assert!(one.contains(&true) && one.contains(&false));
    }
}
