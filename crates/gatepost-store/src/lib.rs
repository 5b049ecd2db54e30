//! # gatepost-store: what is kept
//!
//! The only crate that knows SQL. [`Store`] speaks the language of the domain (`publish`, `settle`,
//! `due`), not of tables; **each method is one transaction**: it happens whole or not at all, and
//! when it returns `Ok` it is on disk (P1).
//!
//! Contract for implementations: everything in `conformance` passes. Nothing secret arrives here
//! in clear; sealed bytes are kept as they come. A delivery handed out by [`Store::publish`] or
//! [`Store::due`] belongs to the caller's node until it is settled or its lease runs out; the
//! embedded store has one node, so its lease is the process's lock on the data folder.
//!
//! To add a method: state it in [`Store`] as a domain fact, add its case to `conformance`, then
//! implement it in each back end. (`conformance` and `fault` exist for tests and under the feature
//! `testing`.)

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod fault;
mod health;
pub mod hooks;
mod idempotency;
mod installation;
mod jobs;
mod making;
mod owed;
mod own_events;
mod quotas;
pub mod sqlite;
mod stream;
mod tenant_types;
mod types;

use std::collections::BTreeMap;

use async_trait::async_trait;
use gatepost_core::delivery::AttemptRecord;
use gatepost_core::event::Event;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{DeliverySeq, EventId, EventSeq, KeyId, TenantId, TenantKey, Timestamp, WebhookId, WebhookKey};

#[cfg(any(test, feature = "testing"))]
pub use fault::FaultStore;
pub use health::{HealthCounts, HealthNote, HealthNotes, HealthStore, HealthTaken};
pub use hooks::HookStore;
pub use idempotency::{
    IdempotencyRecord, IdempotencyScope, IdempotencyStore, IdempotentRequest, MakeAnswer, PublishedOnce, RecordedAnswer,
};
pub use installation::{InstallationStore, MetaSwap};
pub use jobs::{
    CANCELLED, CancelJobOutcome, Candidates, Cleared, Erased, Erasure, Job, JobKey, JobState, JobStore, NewJob, Replay,
    ReplayOf, ReplayScope, Replayed, Retained, RetentionCursor, Selection, Stage, Task, Told, ToldPage, ToldQuery,
};
pub use making::{Made, MakingStore, Turn};
pub use owed::{DeliveryEvents, Wake};
pub use own_events::{About, NewOwnEvent, Noted, OwnEventStore};
pub use quotas::QuotaStore;
pub use sqlite::SqliteStore;
pub use stream::{DeliveryRows, StreamStore};
pub use tenant_types::{PublishedType, PublishedTypes, TenantTypeRow, TenantTypeStore};
pub use types::*;

/// What a store call can fail with. Everything else a caller may want to branch on is data in the
/// method's answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, is full, or is read-only just now. Nothing of the call happened,
    /// unless it says so; trying again later may work.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// More requests wait than the store's queue holds. Nothing of the call happened.
    #[error("the store's queue is full")]
    Overloaded,
    /// What is kept does not make sense: a bug or damage. Never retried.
    #[error("the store is damaged or was written by a newer version: {0}")]
    Corrupt(String),
    /// The store is shutting down. Nothing of the call happened.
    #[error("the store is closed")]
    Closed,
}

/// Result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Everything Gatepost keeps.
#[async_trait]
pub trait Store:
    HookStore
    + OwnEventStore
    + HealthStore
    + IdempotencyStore
    + StreamStore
    + TenantTypeStore
    + InstallationStore
    + JobStore
    + QuotaStore
    + MakingStore
    + Send
    + Sync
    + 'static
{
    // ---- the installation ------------------------------------------------------------------

    /// A small named value of the whole installation (the wrapped data key, fingerprints).
    async fn meta(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Sets a named value if it is not set yet; answers what is set now.
    async fn init_meta(&self, name: &str, value: &[u8]) -> Result<Vec<u8>>;

    /// Replaces a named value.
    async fn set_meta(&self, name: &str, value: &[u8]) -> Result<()>;

    /// Cheap proof that the store can be read and written, for `/readyz`.
    async fn check(&self) -> Result<()>;

    /// Sizes and counts for metrics. Bounded work.
    async fn stats(&self) -> Result<StoreStats>;

    // ---- tenants ---------------------------------------------------------------------------

    /// Creates or changes a tenant; absent members of the change keep what is there.
    async fn put_tenant(&self, put: PutTenant) -> Result<(Tenant, Created)>;

    /// A tenant by the caller's id.
    async fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>>;

    /// A tenant by number, if it is not deleted.
    async fn tenant_by_key(&self, key: TenantKey) -> Result<Option<Tenant>>;

    /// All tenants, newest first.
    async fn tenants(&self, page: PageRequest) -> Result<Page<Tenant>>;

    /// Deletes a tenant: at once it does not exist any more for any other method; its rows are
    /// removed by [`Store::sweep`]. Keys bound to it are removed with it, so that none of them opens
    /// a later tenant of the same id. `None` when there is no such tenant.
    async fn delete_tenant(&self, id: &TenantId, now: Timestamp) -> Result<Option<Tenant>>;

    // ---- webhooks --------------------------------------------------------------------------

    /// Adds a webhook; the tenant's registry version grows by one. `None` when the tenant is gone.
    /// Asked again with the same id (the first answer was lost), it answers the webhook there is.
    async fn create_webhook(&self, new: NewWebhook) -> Result<Option<RegistryChange>>;

    /// Replaces a webhook if it is still at `expected_revision`; the registry version grows by one.
    async fn update_webhook(&self, update: WebhookUpdate) -> Result<UpdateOutcome>;

    /// Marks a webhook deleted; the registry version grows by one. Its waiting deliveries *are*
    /// `cancelled/webhook_deleted` from then on for every reader; [`Store::sweep`] writes it down in
    /// small steps. `None` when there is no such webhook (any more).
    async fn delete_webhook(&self, tenant: TenantKey, id: WebhookId, now: Timestamp) -> Result<Option<RegistryChange>>;

    /// Keeps the result of a test. Not a registry change.
    async fn record_test(&self, webhook: WebhookKey, test: AttemptRecord) -> Result<()>;

    /// A webhook that is not deleted.
    async fn webhook(&self, tenant: TenantKey, id: WebhookId) -> Result<Option<Webhook>>;

    /// A tenant's webhooks that are not deleted, newest first.
    async fn webhooks(&self, tenant: TenantKey, page: PageRequest) -> Result<Page<Webhook>>;

    /// A webhook by number, deleted or not: to show history.
    async fn webhook_by_key(&self, key: WebhookKey) -> Result<Option<Webhook>>;

    /// What was registered at each of these revisions of a webhook, as far as they are known.
    async fn webhook_configs(&self, key: WebhookKey, revisions: &[u32]) -> Result<BTreeMap<u32, WebhookConfig>>;

    /// The webhooks of a tenant that take anything, as matching needs them, with the version they are true for.
    async fn registry(&self, tenant: TenantKey) -> Result<Option<Registry>>;

    /// The tenant's webhooks as they stood at registry version `version`, at most `limit`, oldest
    /// first, each with whether it existed then: to explain a match after the fact. Webhooks made
    /// later (and not deleted) are included, marked so.
    async fn registry_at(&self, tenant: TenantKey, version: u64, limit: usize) -> Result<HistoricRegistry>;

    // ---- publishing ------------------------------------------------------------------------

    /// Accepts events, all or none: stores them with their deliveries in one transaction (P1), if
    /// the tenant's registry is still at the version they were matched against (P4).
    ///
    /// An event whose `caller_id` is taken by an event with the same fingerprint is a duplicate: it
    /// is answered as it was accepted then and adds nothing. With another fingerprint, or another
    /// timestamp where both were given, the whole call is refused ([`PublishOutcome::Conflict`]). A
    /// timestamp that is the moment of acceptance counts as not given.
    ///
    /// Where an event goes to very many webhooks, the commit holds to whom, and its deliveries are made by
    /// [`MakingStore::make`].
    async fn publish(&self, publish: Publish) -> Result<PublishOutcome>;

    /// An event by its public id.
    async fn event(&self, tenant: TenantKey, id: &EventId) -> Result<Option<Event>>;

    /// A page of events. Scans a bounded number of rows, so that a page may be short (even empty)
    /// and still have a cursor.
    async fn events(&self, query: EventQuery) -> Result<EventPage>;

    // ---- deliveries ------------------------------------------------------------------------

    /// A page of deliveries, newest first. Bounded like [`Store::events`].
    async fn deliveries(&self, query: DeliveryQuery) -> Result<Page<DeliveryRow>>;

    /// One delivery with all its attempts, oldest first, and the body as frozen (if it is).
    async fn delivery(&self, tenant: TenantKey, seq: DeliverySeq) -> Result<Option<DeliveryDetail>>;

    /// All deliveries of one event, oldest first, at most `limit`.
    async fn deliveries_of(&self, tenant: TenantKey, event: EventSeq, limit: usize) -> Result<Vec<DeliveryRow>>;

    /// Webhooks that are owed something, with when the earliest of it is due per urgency. Answers at most
    /// `limit` webhooks with a number above `after`, ascending: read at start, to know where to look.
    async fn owed(&self, after: Option<WebhookKey>, limit: usize) -> Result<Vec<Owed>>;

    /// What one webhook is owed of one urgency by `now`, earliest due first (equal dues in number
    /// order), starting after `after`: the scheduler's refill. Claims what it hands out for `node`.
    async fn due(&self, query: DueQuery) -> Result<DuePage>;

    /// Records what attempts came to, all or none. A settlement whose delivery was meanwhile
    /// cancelled, reopened or settled (its `generation` differs or it is terminal) changes nothing
    /// but is kept as an attempt, and is answered [`Settled::Superseded`]. It does not use up the
    /// budget of a delivery that was reopened. Attempts are numbered in the order they are recorded.
    ///
    /// A settlement that was recorded already (its answer was lost) is recognised by its attempt and
    /// changes nothing.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<SettleAnswer>;

    /// Reopens a delivery with a new budget (`202` of `…/retry`), due at once; where its webhook orders,
    /// at the end of the queue it belongs to by what the webhook asks for now.
    async fn retry(&self, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> Result<RetryOutcome>;

    /// Cancels a delivery that is not terminal.
    async fn cancel(&self, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> Result<CancelOutcome>;

    /// One small step of the work nobody waits for (writing down the cancellation of deliveries of
    /// deleted webhooks, removing deleted tenants). Answers whether more is left.
    async fn sweep(&self, now: Timestamp, max_rows: usize) -> Result<SweepProgress>;

    // ---- catalogue -------------------------------------------------------------------------

    /// Creates or replaces an event type of the server's catalogue.
    async fn put_event_type(&self, event_type: EventTypeRow) -> Result<Created>;

    /// An event type, declared or seen.
    async fn event_type(&self, name: &str) -> Result<Option<EventTypeRow>>;

    /// All event types by name, ascending; `after` is the last name of the page before.
    async fn event_types(&self, after: Option<&str>, limit: usize) -> Result<Vec<EventTypeRow>>;

    /// Removes a declaration. Whether there was one.
    async fn delete_event_type(&self, name: &str) -> Result<bool>;

    // ---- keys ------------------------------------------------------------------------------

    /// Adds an API key (only its hash arrives here).
    async fn create_key(&self, key: KeyRow) -> Result<()>;

    /// All keys, newest first.
    async fn keys(&self, page: PageRequest) -> Result<Page<KeyRow>>;

    /// Removes a key. Whether there was one.
    async fn delete_key(&self, id: KeyId) -> Result<bool>;

    /// Finishes what is queued and closes. Later calls answer [`StoreError::Closed`].
    async fn close(&self);
}
