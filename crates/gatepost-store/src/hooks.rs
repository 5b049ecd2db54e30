//! What is kept for blocking hooks: hooks, points, records of invocations, and what they owe.
//!
//! Nothing here is asked for before an invocation is answered (P9): the engine keeps hooks and
//! points in memory, and records are written in batches afterwards.

use async_trait::async_trait;
use gatepost_core::hooks::decision::{Decision, HookRow as AskedRow};
use gatepost_core::hooks::hook::HookConfig;
use gatepost_core::hooks::json::Value;
use gatepost_core::hooks::outcome::Outcome;
use gatepost_core::hooks::points::{PointDef, PointSettings};
use gatepost_core::tenant::Tenant;
use gatepost_core::{HookId, InvocationId, TenantId, TenantKey, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Created, Page, PageRequest, Result};

/// A hook as kept.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredHook {
    /// The store's number.
    pub key: i64,
    /// Whose.
    pub tenant: TenantKey,
    /// Its id.
    pub id: HookId,
    /// Grows by one with every change.
    pub revision: u32,
    /// What was registered.
    pub config: HookConfig,
    /// Its secrets, sealed under the data key.
    pub sealed_secrets: Vec<u8>,
    /// When its receiver passed a probe as it is registered now.
    pub verified_at: Option<Timestamp>,
    /// The last probe.
    pub last_test: Option<HookTest>,
    /// What came of it so far.
    pub counters: HookCounters,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a probe came to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HookTest {
    /// When.
    pub at: Timestamp,
    /// Whether it passed.
    pub passed: bool,
    /// The status answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long it took.
    pub duration_ms: u64,
    /// The class of failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is odd although it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What came of a hook so far. Counted with the records, so after the answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HookCounters {
    /// Times it was asked and its answer counted.
    pub asked: u64,
    /// Refusals among them.
    pub denied: u64,
    /// Answers that changed the object among them.
    pub changed: u64,
    /// Failures among them.
    pub failed: u64,
    /// Times it was asked on trial.
    pub observed: u64,
    /// Trials in which it would have refused.
    pub would_deny: u64,
    /// Trials in which it would have changed the object.
    pub would_change: u64,
    /// Trials in which it failed.
    pub would_fail: u64,
}

impl HookCounters {
    /// Both together.
    pub fn add(&mut self, more: &HookCounters) {
        let pairs = [
            (&mut self.asked, more.asked),
            (&mut self.denied, more.denied),
            (&mut self.changed, more.changed),
            (&mut self.failed, more.failed),
            (&mut self.observed, more.observed),
            (&mut self.would_deny, more.would_deny),
            (&mut self.would_change, more.would_change),
            (&mut self.would_fail, more.would_fail),
        ];
        for (count, more) in pairs {
            *count = count.saturating_add(more);
        }
    }
}

/// A hook to add.
#[derive(Clone, PartialEq, Debug)]
pub struct NewHook {
    /// Whose.
    pub tenant: TenantKey,
    /// Its id.
    pub id: HookId,
    /// What is registered.
    pub config: HookConfig,
    /// Secrets, sealed.
    pub sealed_secrets: Vec<u8>,
    /// The probe it passed, if it was probed first.
    pub test: Option<HookTest>,
    /// When.
    pub now: Timestamp,
}

/// A hook's replacement.
#[derive(Clone, PartialEq, Debug)]
pub struct HookUpdate {
    /// Whose.
    pub tenant: TenantKey,
    /// Which.
    pub id: HookId,
    /// The revision the change was computed from.
    pub expected_revision: u32,
    /// What is registered now.
    pub config: HookConfig,
    /// Secrets, sealed.
    pub sealed_secrets: Vec<u8>,
    /// Whether it counts as verified, and since when.
    pub verified_at: Option<Timestamp>,
    /// The probe that was made for the change.
    pub test: Option<HookTest>,
    /// When.
    pub now: Timestamp,
}

/// What became of a [`HookUpdate`].
#[derive(Clone, PartialEq, Debug)]
pub enum HookUpdateOutcome {
    /// Done.
    Updated(Box<StoredHook>),
    /// Somebody else changed it first: read again.
    Stale,
    /// There is no such hook.
    NotFound,
}

/// A point a tenant has defined or set.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredPoint {
    /// Its name.
    pub name: String,
    /// What it is; `None`: a built-in one that was only set.
    pub definition: Option<PointDef>,
    /// How it is set.
    pub settings: PointSettings,
    /// When it was first put.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What became of a removal of a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PointRemoval {
    /// Done.
    Removed,
    /// There is none of that name.
    NotFound,
    /// Hooks are registered there.
    InUse,
}

/// Everything of a tenant that invocations need, at one version.
#[derive(Clone, PartialEq, Debug)]
pub struct HookRegistry {
    /// The tenant.
    pub tenant: Tenant,
    /// Grows with every change to what follows.
    pub version: u64,
    /// Its hooks, oldest first.
    pub hooks: Vec<StoredHook>,
    /// Its points.
    pub points: Vec<StoredPoint>,
}

/// A question and its answer, as kept: without anything secret.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InvocationRecord {
    /// The answer, its object apart.
    pub decision: Decision,
    /// About whom, or null.
    pub subject: Value,
    /// Who acted, or null.
    pub actor: Value,
    /// The caller's key; `None`: the admin key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The caller's trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The hop it came with.
    pub hop: u32,
    /// SHA-256 of the request, in hex, unless it held a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_sha256: Option<String>,
    /// SHA-256 of the final object, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_sha256: Option<String>,
    /// The caller went away before the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abandoned: bool,
}

/// A question and its final object, as kept for a while: without anything secret.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InvocationBody {
    /// The question, in the native form.
    pub question: Value,
    /// The object as it came out of the chain.
    pub object: Value,
}

/// A record to keep.
#[derive(Clone, PartialEq, Debug)]
pub struct NewInvocation {
    /// Whose.
    pub tenant: TenantKey,
    /// Its id.
    pub id: InvocationId,
    /// When it was asked.
    pub at: Timestamp,
    /// The point's or operation's name.
    pub point: String,
    /// About whom.
    pub subject_id: Option<String>,
    /// Whether the platform's outcome is awaited.
    pub awaits_outcome: bool,
    /// The record.
    pub record: InvocationRecord,
    /// The question and its object, and until when they are kept.
    pub body: Option<(InvocationBody, Timestamp)>,
}

/// What a hook on trial would have done.
#[derive(Clone, PartialEq, Debug)]
pub struct NewTrial {
    /// On which invocation.
    pub invocation: InvocationId,
    /// Whose.
    pub hook: HookId,
    /// What.
    pub trial: Trial,
}

/// What a hook on trial would have done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// `allow`, `deny`, `change`, `value`, `fail_closed` or `fail_open`.
    pub would: String,
    /// Its row, as it would have stood in the decision.
    pub row: AskedRow,
}

/// Records to keep together.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InvocationBatch {
    /// Questions answered. One that is kept already is left as it is.
    pub invocations: Vec<NewInvocation>,
    /// Trials.
    pub trials: Vec<NewTrial>,
    /// What to add to hooks' counters.
    pub counts: Vec<(TenantKey, HookId, HookCounters)>,
}

impl InvocationBatch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.invocations.is_empty() && self.trials.is_empty() && self.counts.is_empty()
    }

    /// How many rows it is.
    pub fn len(&self) -> usize {
        self.invocations.len() + self.trials.len() + self.counts.len()
    }
}

/// What is known about what the platform did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutcomeState {
    /// Nothing is expected: refused, or a dry run.
    None,
    /// It may still be told.
    Awaited,
    /// It was not told in time; it still may be.
    Unknown,
    /// It was told; the events it raises are not out yet.
    Owed,
    /// It was told, and its events are out.
    Done,
}

impl OutcomeState {
    /// Every state, in the order they are numbered by.
    pub const ALL: [OutcomeState; 5] =
        [OutcomeState::None, OutcomeState::Awaited, OutcomeState::Unknown, OutcomeState::Owed, OutcomeState::Done];
}

/// An invocation as kept.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredInvocation {
    /// The store's number: the list's order.
    pub seq: i64,
    /// Whose.
    pub tenant: TenantKey,
    /// Its id.
    pub id: InvocationId,
    /// When it was asked.
    pub at: Timestamp,
    /// The record.
    pub record: InvocationRecord,
    /// What is known about what the platform did.
    pub outcome_state: OutcomeState,
    /// What it said it did, and when.
    pub outcome: Option<(Outcome, Timestamp)>,
    /// What hooks on trial would have done.
    pub trials: Vec<(HookId, Trial)>,
    /// The question and its object, while they are kept (single view and outcomes only).
    pub body: Option<InvocationBody>,
}

/// Which invocations.
#[derive(Clone, PartialEq, Debug)]
pub struct InvocationQuery {
    /// Whose.
    pub tenant: TenantKey,
    /// Of this point or operation.
    pub point: Option<String>,
    /// About this subject.
    pub subject: Option<String>,
    /// Refused ones, or the others.
    pub denied: Option<bool>,
    /// With this cause.
    pub cause: Option<String>,
    /// Asked at or after.
    pub since: Option<Timestamp>,
    /// Asked before.
    pub until: Option<Timestamp>,
    /// Which page, newest first.
    pub page: PageRequest,
}

/// What became of an outcome.
#[derive(Clone, PartialEq, Debug)]
pub enum OutcomeRecorded {
    /// It is kept now.
    Recorded(Box<StoredInvocation>),
    /// The same was told before.
    Same(Box<StoredInvocation>),
    /// Something else was told before.
    Contradicts,
    /// A dry run has none.
    DryRun,
    /// Too late.
    Expired,
    /// There is no such invocation.
    NotFound,
}

/// A secret notification to be kept for another try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptSecret {
    /// Whose.
    pub tenant: TenantKey,
    /// For which hook.
    pub hook: HookId,
    /// Of which invocation.
    pub invocation: InvocationId,
    /// Tries so far.
    pub attempts: u32,
    /// When it is tried next.
    pub due: Timestamp,
    /// When it is thrown away.
    pub expires_at: Timestamp,
    /// What is sent, encrypted under the data key.
    pub sealed: Vec<u8>,
}

/// A step of the upkeep of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HookUpkeep {
    /// Invocations whose outcome became unknown.
    pub unknown: u64,
    /// Rows removed.
    pub removed: u64,
    /// Whether there is more to do at once.
    pub more: bool,
    /// The tenant it came to, for the next step; `None`: it went through all.
    pub next: Option<TenantKey>,
}

/// What is kept for blocking hooks. Each method is one transaction.
#[async_trait]
pub trait HookStore: Send + Sync {
    /// Adds a hook; the tenant's hooks version grows by one. `None` when the tenant is gone. Asked
    /// again with the same id (the first answer was lost), it answers the hook there is.
    async fn create_hook(&self, new: NewHook) -> Result<Option<StoredHook>>;

    /// Replaces a hook if it is still at `expected_revision`; the hooks version grows by one.
    async fn update_hook(&self, update: HookUpdate) -> Result<HookUpdateOutcome>;

    /// Removes a hook, and what is kept for it; the hooks version grows by one. Whether there was one.
    async fn delete_hook(&self, tenant: TenantKey, id: HookId) -> Result<bool>;

    /// Keeps the result of a probe. If the hook is still at `revision` and the probe passed, it is
    /// verified from then on. `None` when there is no such hook.
    async fn record_hook_test(
        &self,
        tenant: TenantKey,
        id: HookId,
        revision: u32,
        test: HookTest,
    ) -> Result<Option<StoredHook>>;

    /// A hook.
    async fn hook(&self, tenant: TenantKey, id: HookId) -> Result<Option<StoredHook>>;

    /// A tenant's hooks (of one point, if asked), newest first.
    async fn hooks(&self, tenant: TenantKey, point: Option<&str>, page: PageRequest) -> Result<Page<StoredHook>>;

    /// Defines or sets a point; the hooks version grows by one. `None` when the tenant is gone.
    async fn put_point(&self, tenant: TenantKey, point: StoredPoint) -> Result<Option<(StoredPoint, Created)>>;

    /// Removes a tenant's own point, or what was set of a built-in one (`builtin`), which is never
    /// in use.
    async fn delete_point(&self, tenant: TenantKey, name: &str, builtin: bool) -> Result<PointRemoval>;

    /// Everything invocations of a tenant need.
    async fn hook_registry(&self, tenant: &TenantId) -> Result<Option<HookRegistry>>;

    /// Tenants that have hooks, by number, above `after`: read at start.
    async fn hook_tenants(&self, after: Option<TenantKey>, limit: usize) -> Result<Vec<(TenantKey, TenantId)>>;

    /// Keeps records.
    async fn record_invocations(&self, batch: InvocationBatch) -> Result<()>;

    /// An invocation, whole.
    async fn invocation(&self, tenant: TenantKey, id: InvocationId) -> Result<Option<StoredInvocation>>;

    /// A page of invocations, newest first. Scans a bounded number of rows, so that a page may be
    /// short (even empty) and still have a cursor.
    async fn invocations(&self, query: InvocationQuery) -> Result<Page<StoredInvocation>>;

    /// Keeps what the platform did; the events this raises are owed from then on.
    async fn record_outcome(
        &self,
        tenant: TenantKey,
        id: InvocationId,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<OutcomeRecorded>;

    /// Invocations whose outcome raised events that are not out yet, oldest first.
    async fn owed_outcomes(&self, limit: usize) -> Result<Vec<(TenantId, StoredInvocation)>>;

    /// Says that an outcome's events are out.
    async fn outcome_published(&self, tenant: TenantKey, id: InvocationId) -> Result<()>;

    /// One small step of the upkeep of records: outcomes nobody told become unknown, bodies and
    /// expired secrets are removed, and records of the tenant after `after` older than it keeps them.
    async fn keep_up_hooks(&self, now: Timestamp, after: Option<TenantKey>, max_rows: usize) -> Result<HookUpkeep>;

    /// Removes at most `max_rows` records about one person; those whose outcome still owes events stay.
    /// How many were removed.
    async fn erase_invocations(&self, tenant: TenantKey, subject: &str, max_rows: usize) -> Result<usize>;

    /// Keeps a secret notification for another try; replaces the one of the same invocation and hook.
    async fn keep_secret(&self, kept: KeptSecret) -> Result<()>;

    /// Kept secret notifications that are due, earliest first.
    async fn due_secrets(&self, now: Timestamp, limit: usize) -> Result<Vec<(TenantId, KeptSecret)>>;

    /// Throws a kept secret notification away.
    async fn drop_secret(&self, invocation: InvocationId, hook: HookId) -> Result<()>;
}
