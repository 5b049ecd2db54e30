//! What goes into and comes out of a [`Store`](crate::Store).

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::delivery::{AttemptRecord, DeliveryState, Reason};
use gatepost_core::event::{Event, EventType, Subject, Urgency};
use gatepost_core::grouping::Match;
use gatepost_core::matching::TenantRegistry;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::tenant::{Environment, TenantSettings};
use gatepost_core::trace::TraceContext;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{DeliveryId, DeliverySeq, EventId, KeyId, TenantId, TenantKey, Timestamp, WebhookId, WebhookKey};

use crate::owed::{DeliveryEvents, Wake};

/// Whether a put made something new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// It was not there before.
    Yes,
    /// It was, and was changed.
    No,
}

/// Which page of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRequest {
    /// Rows wanted, 1 to 250.
    pub limit: usize,
    /// The cursor of the page before: rows after it, in the list's order.
    pub after: Option<i64>,
}

/// A page of a list.
#[derive(Clone, PartialEq, Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page goes on; `None` at the end of the list.
    pub next: Option<i64>,
}

/// Counts for metrics.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    /// Group commits so far.
    pub commits: u64,
    /// Requests those commits carried.
    pub requests: u64,
    /// Requests waiting for a commit now.
    pub queued: u64,
    /// Bytes of the database, log included.
    pub bytes: u64,
}

/// A tenant to create or change. `None` keeps (or takes the default).
#[derive(Clone, PartialEq, Debug)]
pub struct PutTenant {
    /// The caller's id.
    pub id: TenantId,
    /// `Some(None)` clears the name.
    pub name: Option<Option<String>>,
    /// Production or sandbox.
    pub environment: Option<Environment>,
    /// Settings, whole.
    pub settings: Option<TenantSettings>,
    /// When.
    pub now: Timestamp,
}

/// A webhook to add.
#[derive(Clone, PartialEq, Debug)]
pub struct NewWebhook {
    /// Whose.
    pub tenant: TenantKey,
    /// Its id.
    pub id: WebhookId,
    /// What was registered.
    pub config: WebhookConfig,
    /// Secrets, sealed.
    pub sealed_secrets: Vec<u8>,
    /// Whether it asks to be verified before anything is sent to it.
    pub must_verify: bool,
    /// When.
    pub now: Timestamp,
}

/// A webhook's replacement.
#[derive(Clone, PartialEq, Debug)]
pub struct WebhookUpdate {
    /// Whose.
    pub tenant: TenantKey,
    /// Which.
    pub id: WebhookId,
    /// The revision the change was computed from.
    pub expected_revision: u32,
    /// What is registered now.
    pub config: WebhookConfig,
    /// Secrets, sealed.
    pub sealed_secrets: Vec<u8>,
    /// Why Gatepost disabled it, if it did.
    pub disabled_reason: Option<String>,
    /// Whether it asks to be verified before anything is sent to it.
    pub must_verify: bool,
    /// The own event that tells of it, if any does.
    pub told_as: Option<OwnEvent>,
    /// When.
    pub now: Timestamp,
}

/// A committed change of a tenant's webhooks.
#[derive(Clone, PartialEq, Debug)]
pub struct RegistryChange {
    /// The registry version with this change.
    pub version: u64,
    /// The webhook as it is now (`deleted_at` set if it was deleted).
    pub webhook: Webhook,
}

/// What became of a [`WebhookUpdate`].
#[derive(Clone, PartialEq, Debug)]
pub enum UpdateOutcome {
    /// Done.
    Updated(Box<RegistryChange>),
    /// Somebody else changed it first: read again.
    Stale,
    /// There is no such webhook.
    NotFound,
}

/// A tenant's webhooks at one version.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The version.
    pub version: u64,
    /// Whether all of them must be verified, whatever they ask for.
    pub must_verify: bool,
    /// Those that take anything, compiled and indexed as they were read: there may be very many, and one
    /// after the other they are not in memory as they are kept.
    pub webhooks: TenantRegistry,
}

/// A tenant's webhooks as they were.
#[derive(Clone, PartialEq, Debug)]
pub struct HistoricRegistry {
    /// Oldest first.
    pub webhooks: Vec<HistoricWebhook>,
    /// Whether there were more than asked for.
    pub truncated: bool,
    /// Whether all of them had to be verified, whatever they asked for.
    pub must_verify: bool,
}

/// A webhook as it was.
#[derive(Clone, PartialEq, Debug)]
pub struct HistoricWebhook {
    /// The number.
    pub key: WebhookKey,
    /// The id.
    pub id: WebhookId,
    /// What was registered then; `None`: it was made later.
    pub config: Option<WebhookConfig>,
}

/// Events to accept together.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Whose.
    pub tenant: TenantKey,
    /// What `matches` was computed from.
    pub registry_version: u64,
    /// When.
    pub now: Timestamp,
    /// 1 to 1,000 events, in order.
    pub events: Vec<NewEvent>,
}

/// One event to accept.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The caller's id, if it gave one.
    pub caller_id: Option<EventId>,
    /// Keyed hash of everything but the timestamp that makes two events "the same" (SETTLED, Events).
    pub fingerprint: [u8; 16],
    /// What happened.
    pub event_type: EventType,
    /// The catalogue does not know the type: list it as seen.
    pub undeclared: bool,
    /// When it happened; [`Publish::now`] where the caller did not say.
    pub timestamp: Timestamp,
    /// About whom.
    pub subject: Option<Subject>,
    /// How much it hurries.
    pub urgency: Urgency,
    /// A JSON object, as given.
    pub attributes: Option<Bytes>,
    /// One JSON value, as given.
    pub data: Bytes,
    /// Where in the publisher's trace it was published.
    pub trace: Option<TraceContext>,
    /// The webhooks it matches, as they were matched; events that match the same may share it.
    pub matches: Arc<Vec<Match>>,
}

/// What became of a [`Publish`].
#[derive(Clone, Debug)]
pub enum PublishOutcome {
    /// All accepted (or known already).
    Accepted(Vec<Accepted>),
    /// The registry moved on to this version: match again.
    StaleRegistry(u64),
    /// The event at `index` has the id of another event with another body.
    Conflict {
        /// Which of the events.
        index: usize,
    },
    /// The tenant does not exist (any more).
    NoTenant,
}

/// One accepted event.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The event, with its number and id.
    pub event: Arc<Event>,
    /// How many deliveries it has (had, for a duplicate).
    pub delivery_count: u32,
    /// It was accepted before; `deliveries` is empty.
    pub duplicate: bool,
    /// The deliveries made that wait for nothing, now claimed by the caller's node.
    pub deliveries: Vec<Due>,
    /// How many of them were there before: batches it joined.
    pub joined: u32,
    /// How many of them are left for [`crate::MakingStore::make`].
    pub later: u32,
    /// Where else something became due: queues and batches.
    pub wakes: Vec<Wake>,
}

/// A delivery to be made.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its number.
    pub seq: DeliverySeq,
    /// When it was made: with `seq`, its id.
    pub created_at: Timestamp,
    /// Whose.
    pub tenant: TenantKey,
    /// To whom.
    pub webhook: WebhookKey,
    /// The webhook's revision at acceptance: what the body is rendered from.
    pub revision: u32,
    /// What.
    pub events: DeliveryEvents,
    /// When it is due.
    pub due: Timestamp,
    /// How much it hurries.
    pub urgency: Urgency,
    /// Attempts so far, over all budgets.
    pub attempts: u32,
    /// Attempts before the present budget began.
    pub budget_start: u32,
    /// A person asked for the present budget.
    pub manual: bool,
    /// Grows whenever the delivery is reopened or cancelled; a settlement must carry the same.
    pub generation: u32,
    /// Others wait behind it: a settlement must say so.
    pub ordered: bool,
    /// The body as sent before, once an attempt has failed (P3).
    pub body: Option<Bytes>,
}

impl Due {
    /// The delivery's public id.
    pub fn id(&self) -> DeliveryId {
        DeliveryId::new(self.created_at, self.seq)
    }
}

/// Order of an event list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// Newest first.
    #[default]
    Descending,
    /// The feed: in commit order, oldest first, forever.
    Ascending,
}

/// Which events.
#[derive(Clone, PartialEq, Debug)]
pub struct EventQuery {
    /// Whose.
    pub tenant: TenantKey,
    /// Exact type.
    pub event_type: Option<EventType>,
    /// Subject id.
    pub subject: Option<String>,
    /// Subject type.
    pub subject_type: Option<String>,
    /// Happened after (exclusive), by the event's own timestamp.
    pub after: Option<Timestamp>,
    /// Happened before (exclusive), by the event's own timestamp.
    pub before: Option<Timestamp>,
    /// Which way.
    pub order: Order,
    /// Which page; cursors are event numbers.
    pub page: PageRequest,
}

impl EventQuery {
    /// All events of a tenant, the newest first.
    pub fn of(tenant: TenantKey, page: PageRequest) -> Self {
        let order = Order::Descending;
        EventQuery {
            tenant,
            event_type: None,
            subject: None,
            subject_type: None,
            after: None,
            before: None,
            order,
            page,
        }
    }
}

/// Rows looked at for one page of a filtered list, at most: past them the page ends, full or not, with a
/// cursor to go on from.
pub const LOOKED_AT: usize = 1_000;

/// A page of events.
#[derive(Clone, PartialEq, Debug)]
pub struct EventPage {
    /// The events, each with its number of deliveries.
    pub rows: Vec<(Event, u32)>,
    /// Where the next page goes on. Ascending: never `None` (the last number scanned, or the cursor
    /// that was given, or 0).
    pub next: Option<i64>,
}

/// Which deliveries.
#[derive(Clone, PartialEq, Debug)]
pub struct DeliveryQuery {
    /// Whose.
    pub tenant: TenantKey,
    /// To this webhook (deleted ones too).
    pub webhook: Option<WebhookId>,
    /// Of this event.
    pub event: Option<EventId>,
    /// About this subject.
    pub subject: Option<String>,
    /// About a subject of this type.
    pub subject_type: Option<String>,
    /// Of an event of this type; batches with one in them too.
    pub event_type: Option<EventType>,
    /// In this state (as shown, so `held` works).
    pub state: Option<DeliveryState>,
    /// Made at or after.
    pub since: Option<Timestamp>,
    /// Made before.
    pub until: Option<Timestamp>,
    /// Which page; cursors are delivery numbers.
    pub page: PageRequest,
}

impl DeliveryQuery {
    /// All deliveries of a tenant, the newest first.
    pub fn of(tenant: TenantKey, page: PageRequest) -> Self {
        DeliveryQuery {
            tenant,
            webhook: None,
            event: None,
            subject: None,
            subject_type: None,
            event_type: None,
            state: None,
            since: None,
            until: None,
            page,
        }
    }
}

/// A delivery as listed. `state` and `reason` are as shown: a pending delivery of a disabled webhook
/// is `held/webhook_disabled`, one of a deleted webhook `cancelled/webhook_deleted`.
#[derive(Clone, PartialEq, Debug)]
pub struct DeliveryRow {
    /// Its number.
    pub seq: DeliverySeq,
    /// To whom.
    pub webhook: WebhookKey,
    /// To whom.
    pub webhook_id: WebhookId,
    /// It is a batch, of one event or more.
    pub batch: bool,
    /// Of what.
    pub event_ids: Vec<EventId>,
    /// Of what type; of a batch: `batch`.
    pub event_type: EventType,
    /// About whom; of a batch: nobody.
    pub subject: Option<Subject>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Why.
    pub reason: Option<Reason>,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the next one is due; `None` when terminal or held, and while it waits for another delivery.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl DeliveryRow {
    /// The delivery's public id.
    pub fn id(&self) -> DeliveryId {
        DeliveryId::new(self.created_at, self.seq)
    }
}

/// A delivery with everything known about it.
#[derive(Clone, PartialEq, Debug)]
pub struct DeliveryDetail {
    /// As listed.
    pub row: DeliveryRow,
    /// What is delivered.
    pub events: DeliveryEvents,
    /// The webhook's revision at acceptance: what the body is rendered from.
    pub revision: u32,
    /// How much it hurries, as it stands: the first of a queue as much as what waits behind it.
    pub urgency: Urgency,
    /// Oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// The body as frozen.
    pub body: Option<Bytes>,
}

/// A webhook that is owed something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owed {
    /// Which.
    pub webhook: WebhookKey,
    /// Whose.
    pub tenant: TenantKey,
    /// When the earliest is due, by urgency rank.
    pub earliest: [Option<Timestamp>; 3],
}

/// Which due deliveries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DueQuery {
    /// To this webhook.
    pub webhook: WebhookKey,
    /// Of this urgency.
    pub urgency: Urgency,
    /// Due by.
    pub now: Timestamp,
    /// After this one, in (due, number) order.
    pub after: Option<(Timestamp, DeliverySeq)>,
    /// At most.
    pub limit: usize,
    /// Stop once payloads and bodies exceed this many bytes (at least one is answered).
    pub max_bytes: usize,
}

/// Due deliveries.
#[derive(Clone, Debug)]
pub struct DuePage {
    /// Earliest due first.
    pub rows: Vec<Due>,
    /// More are due now.
    pub more: bool,
    /// When the next one that is not due yet will be; `None` when there is none.
    pub next_due: Option<Timestamp>,
}

/// What follows an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Delivered.
    Delivered,
    /// Another attempt at this time.
    Retry(Timestamp),
    /// Given up, or no longer owed.
    End(DeliveryState, Reason),
}

/// What an attempt came to.
#[derive(Clone, PartialEq, Debug)]
pub struct Settlement {
    /// Whose.
    pub tenant: TenantKey,
    /// To whom.
    pub webhook: WebhookKey,
    /// Which delivery.
    pub seq: DeliverySeq,
    /// As handed out.
    pub generation: u32,
    /// As handed out.
    pub ordered: bool,
    /// The attempt; shared, since whoever records outcomes keeps them until they are on disk.
    pub attempt: Arc<AttemptRecord>,
    /// What follows.
    pub next: Next,
    /// The body to keep (first failure).
    pub freeze: Option<Bytes>,
    /// Pause the whole webhook until then.
    pub pause_until: Option<Timestamp>,
    /// Disable the webhook for this reason, if its url is still the one that was called.
    pub disable: Option<&'static str>,
    /// Whether giving up is told as an own event. Not of deliveries of own events: what tells of a
    /// failure must not be told of when it fails itself.
    pub tell: bool,
}

/// What became of a [`Settlement`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Recorded.
    Recorded,
    /// The delivery had moved on: only the attempt was kept.
    Superseded,
}

/// What became of the outcomes of one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettleAnswer {
    /// Of each, in the order given.
    pub results: Vec<Settled>,
    /// Deliveries that waited for one of them.
    pub wakes: Vec<Wake>,
}

/// What became of a retry by hand.
#[derive(Clone, Debug)]
pub enum RetryOutcome {
    /// Reopened; due now, or at the end of its queue. Where something became due by it.
    Reopened(Box<Due>, Vec<Wake>),
    /// Its webhook is disabled.
    WebhookDisabled,
    /// Its webhook was deleted.
    WebhookDeleted,
    /// What it would send was erased.
    Erased,
    /// There is no such delivery.
    NotFound,
}

/// What became of a cancellation.
#[derive(Clone, PartialEq, Debug)]
pub enum CancelOutcome {
    /// Cancelled now, and what waited for it.
    Cancelled(Box<DeliveryRow>, Vec<Wake>),
    /// It was terminal already.
    Terminal(DeliveryState),
    /// There is no such delivery.
    NotFound,
}

/// How far a sweep came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SweepProgress {
    /// Rows written down or removed.
    pub rows: usize,
    /// Whether more is left.
    pub more: bool,
}

/// An event type as kept.
#[derive(Clone, PartialEq, Debug)]
pub struct EventTypeRow {
    /// Its name.
    pub name: EventType,
    /// What was declared; `None`: only seen in a publish.
    pub definition: Option<EventTypeDefinition>,
    /// When it was declared or first seen.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a key may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// Everything.
    Admin,
    /// A tenant's webhooks; includes `Read`.
    Manage,
    /// Events.
    Publish,
    /// Blocking hooks.
    Invoke,
    /// Every GET.
    Read,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 5] = [Scope::Admin, Scope::Manage, Scope::Publish, Scope::Invoke, Scope::Read];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Admin => "admin",
            Scope::Manage => "manage",
            Scope::Publish => "publish",
            Scope::Invoke => "invoke",
            Scope::Read => "read",
        }
    }
}

/// An API key as kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// A name for people.
    pub name: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The only tenant it may touch.
    pub tenant: Option<TenantId>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}
