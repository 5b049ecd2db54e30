//! [`JobStore`] for [`SqliteStore`].

use async_trait::async_trait;
use gatepost_core::{DeliverySeq, JobId, TenantKey, Timestamp, WebhookKey};

use super::queue::Lane;
use super::{Mode, SqliteStore, erasure, jobs, meta, proof, replay, retention, scrub};
use crate::{
    CancelJobOutcome, Candidates, Cleared, Erased, Job, JobKey, JobStore, NewJob, Page, PageRequest, Replayed, Result,
    Retained, RetentionCursor, Selection, StoreError, Task, ToldPage, ToldQuery,
};

/// What a small request holds in the queue, about.
const SMALL: usize = 1_024;
/// What one number holds in the queue.
const NUMBER: usize = 16;
/// What a page of the database holds.
const PAGE: usize = 4_096;

#[async_trait]
impl JobStore for SqliteStore {
    async fn create_job(&self, new: NewJob) -> Result<Option<Job>> {
        self.write(Lane::Other, SMALL, move |tx| jobs::create(tx, &new)).await
    }

    async fn job(&self, tenant: TenantKey, id: JobId) -> Result<Option<Job>> {
        self.read(move |conn| jobs::by_id(conn, tenant, id)).await
    }

    async fn jobs(&self, tenant: TenantKey, page: PageRequest) -> Result<Page<Job>> {
        self.read(move |conn| jobs::page(conn, tenant, page)).await
    }

    async fn cancel_job(&self, tenant: TenantKey, id: JobId, now: Timestamp) -> Result<CancelJobOutcome> {
        self.write(Lane::Other, SMALL, move |tx| jobs::cancel(tx, tenant, id, now)).await
    }

    async fn open_jobs(&self, after: Option<TenantKey>, limit: usize) -> Result<Vec<Job>> {
        self.read(move |conn| jobs::open(conn, after, limit)).await
    }

    async fn end_job(&self, job: JobKey, error: Option<String>, now: Timestamp) -> Result<Option<Job>> {
        self.write(Lane::Other, SMALL, move |tx| jobs::end(tx, job, error.as_deref(), now)).await
    }

    async fn replay_candidates(&self, job: &Job, limit: usize, max_bytes: usize) -> Result<Candidates> {
        let job = job.clone();
        let Task::Replay(replay) = job.task.clone() else {
            return Err(StoreError::Corrupt(format!("job {} is no replay", job.id)));
        };
        self.read(move |conn| replay::candidates(conn, &job, &replay, limit, max_bytes)).await
    }

    async fn replay_select(&self, selection: Selection) -> Result<Option<Job>> {
        let bytes = SMALL + NUMBER * selection.events.len();
        self.write(Lane::Other, bytes, move |tx| replay::select(tx, &selection)).await
    }

    async fn replay_deliver(&self, job: JobKey, now: Timestamp, limit: usize) -> Result<Replayed> {
        self.write(Lane::Other, SMALL, move |tx| replay::deliver(tx, job, now, limit)).await
    }

    async fn replay_of(&self, delivery: DeliverySeq) -> Result<Option<crate::ReplayOf>> {
        self.read(move |conn| replay::replay_of(conn, delivery)).await
    }

    async fn backlog(&self, webhook: WebhookKey, now: Timestamp, limit: usize) -> Result<usize> {
        self.read(move |conn| replay::backlog(conn, webhook, now, limit)).await
    }

    async fn erase(&self, job: JobKey, now: Timestamp, limit: usize) -> Result<Erased> {
        self.write(Lane::Other, SMALL, move |tx| erasure::step(tx, job, now, limit)).await
    }

    async fn clear_traces(&self, position: u64) -> Result<Cleared> {
        let Mode::Threads(threads) = &self.mode else {
            // In memory there is no file.
            return Ok(Cleared::Wholly);
        };
        // Pages are counted from 1; past the last one there is the log.
        let from = u32::try_from(position.max(1)).unwrap_or(u32::MAX);
        if self.read(scrub::possible).await? {
            let stretch = self.read(move |conn| scrub::look(conn, from)).await?;
            if !stretch.dirty.is_empty() {
                let bytes = SMALL + PAGE * stretch.dirty.len();
                self.write(Lane::Other, bytes, move |tx| scrub::clear(tx, &stretch.dirty)).await?;
            }
            if let Some(next) = stretch.next {
                return Ok(Cleared::UpTo(u64::from(next)));
            }
        } else {
            tracing::warn!(
                "parts of erased rows may be left in unused parts of the database's pages until they are used"
            );
        }
        let before = threads.wal.emptied();
        threads.wal.empty();
        // The writer empties the log after the commit of the first request, and comes to the second
        // one after that.
        self.write(Lane::Other, SMALL, |tx| meta::check(tx)).await?;
        self.write(Lane::Other, SMALL, |tx| meta::check(tx)).await?;
        Ok(if threads.wal.emptied() > before { Cleared::Wholly } else { Cleared::Blocked(position) })
    }

    async fn retain(&self, now: Timestamp, cursor: RetentionCursor, max_rows: usize) -> Result<Retained> {
        let max_rows = max_rows.max(1);
        let (plan, next) = self.read(move |conn| retention::plan(conn, now, cursor, max_rows)).await?;
        if plan.is_empty() {
            return Ok(Retained { next, ..Retained::default() });
        }
        self.write(Lane::Other, SMALL, move |tx| retention::apply(tx, &plan, next, now, max_rows)).await
    }

    async fn feed_floor(&self, tenant: TenantKey) -> Result<i64> {
        self.read(move |conn| retention::floor(conn, tenant)).await
    }

    async fn told(&self, query: ToldQuery) -> Result<ToldPage> {
        self.read(move |conn| proof::told(conn, &query)).await
    }

    async fn only_erased(&self, tenant: TenantKey, subject: &str, alias: &str) -> Result<bool> {
        let (subject, alias) = (subject.to_owned(), alias.to_owned());
        self.read(move |conn| {
            Ok(!proof::has_subject(conn, tenant, &subject)? && proof::has_subject(conn, tenant, &alias)?)
        })
        .await
    }
}
