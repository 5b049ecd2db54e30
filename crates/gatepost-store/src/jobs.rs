//! Work that outlives its request (replays, erasures), retention, and proof.
//!
//! A job is a row and a position in it. Each step is one transaction that also moves the position, so
//! a job that is cut off at any moment goes on where it was and does nothing twice.

use async_trait::async_trait;
use gatepost_core::delivery::AttemptRecord;
use gatepost_core::event::{Event, EventType};
use gatepost_core::{DeliveryId, DeliverySeq, EventId, EventSeq, JobId, TenantKey, Timestamp, WebhookId, WebhookKey};
use serde::{Deserialize, Serialize};

use crate::{DeliveryRow, Due, Page, PageRequest, Result, Wake};

/// The store's own number for a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobKey(pub i64);

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JobState {
    /// Nothing has been done yet.
    Queued,
    /// Under way.
    Running,
    /// Everything is done.
    Done,
    /// It ended before everything was done: its `error` says why.
    Failed,
}

impl JobState {
    /// Every state, in the order stored (0, 1, ...).
    pub const ALL: [JobState; 4] = [JobState::Queued, JobState::Running, JobState::Done, JobState::Failed];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
        }
    }

    /// Whether nothing more happens.
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed)
    }
}

/// What of a window is replayed (SETTLED, Deliveries).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayScope {
    /// What failed, or was cancelled by a 410, and was not delivered since.
    Failed,
    /// Events that match now and have no delivery to the webhook.
    Missed,
    /// Every event that matches now.
    All,
}

impl ReplayScope {
    /// Every scope.
    pub const ALL: [ReplayScope; 3] = [ReplayScope::Failed, ReplayScope::Missed, ReplayScope::All];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplayScope::Failed => "failed",
            ReplayScope::Missed => "missed",
            ReplayScope::All => "all",
        }
    }
}

/// Events to deliver to a webhook again, or after all.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Replay {
    /// To which.
    pub webhook: WebhookId,
    /// The same, by number.
    pub webhook_key: i64,
    /// Which events.
    pub scope: ReplayScope,
    /// Accepted at or after.
    pub since: Timestamp,
    /// Accepted before.
    pub until: Timestamp,
}

/// A person to forget.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Erasure {
    /// Who; `None` once it is done: the job's own row must not tell either.
    pub subject: Option<String>,
    /// Only what names them as a subject of this type.
    pub subject_type: Option<String>,
    /// What stands in the place of the subject's id afterwards: a keyed hash of it, by which whoever
    /// knows the id finds the bare records again.
    pub alias: String,
    /// Where it stands within the event it is at, which may have very many deliveries: whether among
    /// those made later, and the last one it was done with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<(bool, DeliverySeq)>,
}

/// What a job does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Task {
    /// Deliver again.
    Replay(Replay),
    /// Forget.
    Erase(Erasure),
}

impl Task {
    /// The word used in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Task::Replay(_) => "replay",
            Task::Erase(_) => "erase",
        }
    }
}

/// What a job does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Finding out what there is to do: `total` grows.
    Counting,
    /// Doing it: `done` grows up to `total`.
    Working,
    /// Making sure that nothing of it is left on disk (erasures).
    Clearing,
}

impl Stage {
    /// Every stage, in the order stored (0, 1, ...).
    pub const ALL: [Stage; 3] = [Stage::Counting, Stage::Working, Stage::Clearing];
}

/// A job to make.
#[derive(Clone, PartialEq, Debug)]
pub struct NewJob {
    /// Whose.
    pub tenant: TenantKey,
    /// Its id. Made again with the same id (the first answer was lost), it is the job there is.
    pub id: JobId,
    /// What it does.
    pub task: Task,
    /// When.
    pub now: Timestamp,
}

/// A job as kept.
#[derive(Clone, PartialEq, Debug)]
pub struct Job {
    /// Its number.
    pub key: JobKey,
    /// Its id.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantKey,
    /// What it does.
    pub task: Task,
    /// Where it stands.
    pub state: JobState,
    /// What it does next.
    pub stage: Stage,
    /// The last event looked at in this stage; `None`: not begun.
    pub position: Option<EventSeq>,
    /// The last event it will look at; `None`: not begun.
    pub upto: Option<EventSeq>,
    /// How many events it is about, as far as they are counted.
    pub total: u64,
    /// How many of them are done.
    pub done: u64,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
}

/// What became of a job's cancellation.
#[derive(Clone, PartialEq, Debug)]
pub enum CancelJobOutcome {
    /// It is `failed` now, with the error `cancelled`. What it has done stays done.
    Cancelled(Box<Job>),
    /// It had ended before.
    Final(JobState),
    /// There is no such job.
    NotFound,
}

/// The error of a job that was cancelled.
pub const CANCELLED: &str = "cancelled";

/// Events a replay may want: a stretch of its window.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidates {
    /// Events it wants whatever they match now, oldest first.
    pub chosen: Vec<EventSeq>,
    /// Events it wants if they match now, oldest first.
    pub to_match: Vec<Event>,
    /// Up to where the stretch goes.
    pub scanned_to: EventSeq,
    /// The last event of the window, as it was when the job began.
    pub upto: EventSeq,
    /// Whether the stretch is the window's last.
    pub end: bool,
}

/// What a replay chose from a stretch of its window.
#[derive(Clone, PartialEq, Debug)]
pub struct Selection {
    /// The job.
    pub job: JobKey,
    /// Where it stood when the stretch was read.
    pub position: Option<EventSeq>,
    /// What it wants, ascending.
    pub events: Vec<EventSeq>,
    /// As [`Candidates::scanned_to`].
    pub scanned_to: EventSeq,
    /// As [`Candidates::upto`].
    pub upto: EventSeq,
    /// As [`Candidates::end`].
    pub end: bool,
    /// When.
    pub now: Timestamp,
}

/// What a step of a replay came to.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The job after the step; `None`: it had ended.
    pub job: Option<Job>,
    /// How many deliveries were made (of a batch webhook: batches begun).
    pub made: usize,
    /// Those of them that can be tried at once, claimed by the caller's node.
    pub dues: Vec<Due>,
    /// What else became due by the step.
    pub wakes: Vec<Wake>,
}

/// Where a delivery made by a replay comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayOf {
    /// The job that made it; `None`: the job's row is gone by now.
    pub job: Option<JobId>,
    /// The delivery it repeats (when it was made, and its number); `None`: there was none, it is a
    /// batch, or it is gone by now.
    pub delivery: Option<DeliveryId>,
}

/// What a step of an erasure came to.
#[derive(Clone, Debug)]
pub struct Erased {
    /// The job after the step; `None`: it had ended.
    pub job: Option<Job>,
    /// Deliveries that are no longer owed.
    pub cancelled: Vec<(WebhookKey, DeliverySeq)>,
    /// Deliveries made in their place, of other events that were to go out together with this
    /// person's, that can be tried at once.
    pub dues: Vec<Due>,
    /// What else became due by the step.
    pub wakes: Vec<Wake>,
}

/// How far a clearing has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cleared {
    /// It goes on there.
    UpTo(u64),
    /// Somebody still reads what is to be cleared: try again from there.
    Blocked(u64),
    /// Nothing is left.
    Wholly,
}

/// Where a pass of retention over all tenants is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetentionCursor {
    /// The tenant to go on with.
    pub tenant: TenantKey,
    /// The last of its events that was looked at.
    pub event: EventSeq,
}

impl RetentionCursor {
    /// The beginning of a pass.
    pub const START: RetentionCursor = RetentionCursor { tenant: TenantKey(0), event: EventSeq(0) };
}

/// What a step of retention came to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Retained {
    /// Events removed, with their deliveries.
    pub events: usize,
    /// Finished deliveries whose attempts and bodies were removed.
    pub attempts: usize,
    /// Held deliveries given up as `failed/expired`.
    pub expired: usize,
    /// Other rows removed: webhooks deleted long ago, old revisions, jobs.
    pub others: usize,
    /// Where the pass goes on; `None`: it is over.
    pub next: Option<RetentionCursor>,
}

/// Whose proof.
#[derive(Clone, PartialEq, Debug)]
pub struct ToldQuery {
    /// Of whose person.
    pub tenant: TenantKey,
    /// The person's id.
    pub subject: String,
    /// What stands in its place where it was erased.
    pub alias: String,
    /// Only events that name them as a subject of this type.
    pub subject_type: Option<String>,
    /// Rows wanted, 1 to 250.
    pub limit: usize,
    /// The last row of the page before.
    pub after: Option<(EventSeq, DeliverySeq)>,
}

/// That somebody was (to be) told something about a person.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// The event's number.
    pub event: EventSeq,
    /// The event.
    pub event_id: EventId,
    /// What happened.
    pub event_type: EventType,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The delivery.
    pub delivery: DeliveryRow,
    /// The webhook's name now (or when it was deleted).
    pub webhook_name: String,
    /// The url that was called last; before the first attempt, the webhook's.
    pub url: String,
    /// Whether what was sent and answered was erased.
    pub erased: bool,
    /// The first attempt, without what was answered.
    pub first_attempt: Option<AttemptRecord>,
    /// The last attempt, without what was answered.
    pub last_attempt: Option<AttemptRecord>,
}

/// A page of proof.
#[derive(Clone, PartialEq, Debug)]
pub struct ToldPage {
    /// Newest event first.
    pub rows: Vec<Told>,
    /// Where the next page goes on; `None` at the end.
    pub next: Option<(EventSeq, DeliverySeq)>,
}

/// Jobs, retention and proof. Each method is one transaction, unless it says otherwise.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Makes a job. `None` when the tenant is gone.
    async fn create_job(&self, new: NewJob) -> Result<Option<Job>>;

    /// A job by its id.
    async fn job(&self, tenant: TenantKey, id: JobId) -> Result<Option<Job>>;

    /// A tenant's jobs, newest first.
    async fn jobs(&self, tenant: TenantKey, page: PageRequest) -> Result<Page<Job>>;

    /// Cancels a job that has not ended.
    async fn cancel_job(&self, tenant: TenantKey, id: JobId, now: Timestamp) -> Result<CancelJobOutcome>;

    /// The oldest jobs, at most `limit`, that have not ended, of the next tenant after `after` that
    /// has any (from the first one again after the last): what a worker that serves tenants in turn
    /// asks for.
    async fn open_jobs(&self, after: Option<TenantKey>, limit: usize) -> Result<Vec<Job>>;

    /// Ends a job that has not ended: `error` says why it failed, `None` that it is done.
    async fn end_job(&self, job: JobKey, error: Option<String>, now: Timestamp) -> Result<Option<Job>>;

    /// The next stretch of a replay's window, of at most `limit` events and about `max_bytes`.
    async fn replay_candidates(&self, job: &Job, limit: usize, max_bytes: usize) -> Result<Candidates>;

    /// Notes what a replay chose and moves it on, if it still stands where the stretch was read. The
    /// job as it is afterwards; `None`: it had ended.
    async fn replay_select(&self, selection: Selection) -> Result<Option<Job>>;

    /// Makes deliveries of at most `limit` events chosen before. Judges again what its scope asks of
    /// earlier deliveries: an event delivered, replayed or erased meanwhile counts as done.
    async fn replay_deliver(&self, job: JobKey, now: Timestamp, limit: usize) -> Result<Replayed>;

    /// What a delivery repeats, if a replay made it.
    async fn replay_of(&self, delivery: DeliverySeq) -> Result<Option<ReplayOf>>;

    /// How many deliveries of a webhook are due by `now`, counted up to `limit`.
    async fn backlog(&self, webhook: WebhookKey, now: Timestamp, limit: usize) -> Result<usize>;

    /// Erases at most `limit` events of an erasure with everything that was sent and answered about
    /// them. What is removed is overwritten, not merely given up.
    async fn erase(&self, job: JobKey, now: Timestamp, limit: usize) -> Result<Erased>;

    /// One step of clearing the files of what was erased before the first step, from `position` (at
    /// first 0) on: of what was left behind where rows were moved, and of logs. Not a transaction.
    async fn clear_traces(&self, position: u64) -> Result<Cleared>;

    /// One step of retention: looks at a bounded number of tenants, and removes or gives up about
    /// `max_rows` rows of one that has something older than it keeps. Work still owed is never
    /// removed. Reads first, and judges again in the transaction that removes.
    async fn retain(&self, now: Timestamp, cursor: RetentionCursor, max_rows: usize) -> Result<Retained>;

    /// The highest number of an event that retention has removed; 0: none. A feed that stands before
    /// it has a gap.
    async fn feed_floor(&self, tenant: TenantKey) -> Result<i64>;

    /// Whether events about a person are kept under what stands for them after an erasure, and none
    /// under their id.
    async fn only_erased(&self, tenant: TenantKey, subject: &str, alias: &str) -> Result<bool>;

    /// A page of proof. Scans a bounded number of rows: a page may be short and still have a cursor.
    async fn told(&self, query: ToldQuery) -> Result<ToldPage>;
}
