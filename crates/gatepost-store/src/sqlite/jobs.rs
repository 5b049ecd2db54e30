//! Jobs: rows with a position. What they do is in `replay` and `erasure`.

use gatepost_core::{EventSeq, JobId, TenantKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::{DbError, DbResult};
use super::row::{count, is_live, text, time};
use super::tenants::cut;
use super::writer::Tx;
use crate::{CANCELLED, CancelJobOutcome, Job, JobKey, JobState, NewJob, Page, PageRequest, Stage, Task};

macro_rules! columns {
    () => {
        "j.key, j.id, j.tenant, j.state, j.stage, j.position, j.upto, j.total, j.done, j.error, j.created_at, \
         j.updated_at, j.task"
    };
}

fn read(row: &Row<'_>) -> DbResult<Job> {
    let number =
        |at: usize| -> DbResult<u64> { u64::try_from(row.get::<_, i64>(at)?).map_err(|e| DbError::corrupt("job", e)) };
    let state: i64 = row.get(3)?;
    let stage: i64 = row.get(4)?;
    Ok(Job {
        key: JobKey(row.get(0)?),
        id: JobId::from_bytes(row.get(1)?),
        tenant: TenantKey(row.get(2)?),
        state: nth(&JobState::ALL, state).ok_or_else(|| DbError::corrupt("job state", state))?,
        stage: nth(&Stage::ALL, stage).ok_or_else(|| DbError::corrupt("job stage", stage))?,
        position: row.get::<_, Option<i64>>(5)?.map(EventSeq),
        upto: row.get::<_, Option<i64>>(6)?.map(EventSeq),
        total: number(7)?,
        done: number(8)?,
        error: row.get(9)?,
        created_at: time(row.get(10)?),
        updated_at: time(row.get(11)?),
        task: serde_json::from_str(text(row, 12)?).map_err(|e| DbError::corrupt("job", e))?,
    })
}

fn nth<T: Copy>(all: &[T], number: i64) -> Option<T> {
    usize::try_from(number).ok().and_then(|index| all.get(index).copied())
}

fn task_text(task: &Task) -> DbResult<String> {
    serde_json::to_string(task).map_err(|e| DbError::corrupt("job", e))
}

pub(super) fn create(tx: &Tx<'_>, new: &NewJob) -> DbResult<Option<Job>> {
    if !is_live(tx.conn, new.tenant)? {
        return Ok(None);
    }
    tx.conn
        .prepare_cached(
            "INSERT INTO jobs(id, tenant, state, stage, total, done, created_at, updated_at, task)
             VALUES (?1, ?2, 0, 0, 0, 0, ?3, ?3, ?4) ON CONFLICT(id) DO NOTHING",
        )?
        .execute((new.id.to_bytes(), new.tenant.0, new.now.as_micros(), task_text(&new.task)?))?;
    by_id(tx.conn, new.tenant, new.id)
}

pub(super) fn by_id(conn: &Connection, tenant: TenantKey, id: JobId) -> DbResult<Option<Job>> {
    if !is_live(conn, tenant)? {
        return Ok(None);
    }
    let sql = concat!("SELECT ", columns!(), " FROM jobs j WHERE j.id = ?1 AND j.tenant = ?2");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((id.to_bytes(), tenant.0))?;
    rows.next()?.map(read).transpose()
}

/// A job that has not ended, of a tenant that is not deleted.
pub(super) fn open_by_key(conn: &Connection, key: JobKey) -> DbResult<Option<Job>> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM jobs j JOIN tenants t ON t.key = j.tenant WHERE j.key = ?1 AND j.state < 2 AND t.deleted_at IS NULL"
    );
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query([key.0])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn page(conn: &Connection, tenant: TenantKey, page: PageRequest) -> DbResult<Page<Job>> {
    if !is_live(conn, tenant)? {
        return Ok(Page { rows: Vec::new(), next: None });
    }
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM jobs j INDEXED BY jobs_by_tenant WHERE j.tenant = ?1 AND j.key < ?2 ORDER BY j.key DESC LIMIT ?3"
    );
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((tenant.0, page.after.unwrap_or(i64::MAX), count(page.limit) + 1))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read(row)?);
    }
    Ok(cut(list, page.limit, |job| job.key.0))
}

pub(super) fn open(conn: &Connection, after: Option<TenantKey>, limit: usize) -> DbResult<Vec<Job>> {
    let mut following = conn.prepare_cached(
        "SELECT j.tenant FROM jobs j INDEXED BY jobs_open JOIN tenants t ON t.key = j.tenant
         WHERE j.state < 2 AND j.tenant > ?1 AND t.deleted_at IS NULL ORDER BY j.tenant LIMIT 1",
    )?;
    let after = after.map_or(i64::MIN, |key| key.0);
    let mut next: Option<i64> = following.query_row([after], |row| row.get(0)).optional()?;
    if next.is_none() && after > i64::MIN {
        next = following.query_row([i64::MIN], |row| row.get(0)).optional()?;
    }
    let Some(tenant) = next else { return Ok(Vec::new()) };
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM jobs j INDEXED BY jobs_open WHERE j.state < 2 AND j.tenant = ?1 ORDER BY j.key LIMIT ?2"
    );
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((tenant, count(limit)))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read(row)?);
    }
    Ok(list)
}

pub(super) fn cancel(tx: &Tx<'_>, tenant: TenantKey, id: JobId, now: Timestamp) -> DbResult<CancelJobOutcome> {
    let Some(job) = by_id(tx.conn, tenant, id)? else { return Ok(CancelJobOutcome::NotFound) };
    if job.state.is_final() {
        return Ok(CancelJobOutcome::Final(job.state));
    }
    let ended = end(tx, job.key, Some(CANCELLED), now)?;
    Ok(ended.map_or(CancelJobOutcome::NotFound, |job| CancelJobOutcome::Cancelled(Box::new(job))))
}

/// Ends a job that has not ended; the job as it is then.
pub(super) fn end(tx: &Tx<'_>, key: JobKey, error: Option<&str>, now: Timestamp) -> DbResult<Option<Job>> {
    let Some(mut job) = open_by_key(tx.conn, key)? else { return Ok(None) };
    job.state = if error.is_some() { JobState::Failed } else { JobState::Done };
    job.error = error.map(str::to_owned);
    if job.state == JobState::Done {
        // What was counted and is gone by now (retention) counts as done.
        job.done = job.total;
    }
    forget_subject(&mut job);
    save(tx.conn, &mut job, now)?;
    Ok(Some(job))
}

/// The row of an erasure must not be what is left of the person.
pub(super) fn forget_subject(job: &mut Job) {
    if let Task::Erase(erasure) = &mut job.task {
        erasure.subject = None;
    }
}

/// Writes a job down.
pub(super) fn save(conn: &Connection, job: &mut Job, now: Timestamp) -> DbResult<()> {
    job.updated_at = now.max(job.created_at);
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    conn.prepare_cached(
        "UPDATE jobs SET state = ?2, stage = ?3, position = ?4, upto = ?5, total = ?6, done = ?7, error = ?8,
             updated_at = ?9, task = ?10 WHERE key = ?1",
    )?
    .execute((
        job.key.0,
        job.state as i64,
        job.stage as i64,
        job.position.map(|seq| seq.0),
        job.upto.map(|seq| seq.0),
        number(job.total),
        number(job.done),
        &job.error,
        job.updated_at.as_micros(),
        task_text(&job.task)?,
    ))?;
    Ok(())
}

/// Removes what jobs that ended had still to do; how many rows.
pub(super) fn remove_items(conn: &Connection, max_rows: usize) -> DbResult<usize> {
    let mut removed = 0;
    let mut after = i64::MIN;
    while removed < max_rows {
        // From job to job by the index: few have items at any time.
        let next: Option<i64> = conn
            .prepare_cached("SELECT job FROM job_items WHERE job > ?1 ORDER BY job LIMIT 1")?
            .query_row([after], |row| row.get(0))
            .optional()?;
        let Some(job) = next else { break };
        after = job;
        if !conn.prepare_cached("SELECT 1 FROM jobs WHERE key = ?1 AND state < 2")?.exists([job])? {
            removed += conn
                .prepare_cached(
                    "DELETE FROM job_items WHERE job = ?1 AND event_seq IN
                         (SELECT event_seq FROM job_items WHERE job = ?1 LIMIT ?2)",
                )?
                .execute((job, count(max_rows - removed)))?;
        }
    }
    Ok(removed)
}

/// Removes jobs of `tenant` that ended before `before`; how many.
pub(super) fn remove_ended(conn: &Connection, tenant: i64, before: Timestamp, max_rows: usize) -> DbResult<usize> {
    Ok(conn
        .prepare_cached(
            "DELETE FROM jobs WHERE key IN (SELECT key FROM jobs INDEXED BY jobs_by_tenant
             WHERE tenant = ?1 AND state >= 2 AND updated_at < ?2 LIMIT ?3)",
        )?
        .execute((tenant, before.as_micros(), count(max_rows)))?)
}

/// Removes everything of a deleted tenant that is kept here; how many rows.
pub(super) fn remove_of_tenant(conn: &Connection, tenant: i64, max_rows: usize) -> DbResult<usize> {
    // Items go with the next look at jobs that are no more.
    let mut removed = conn
        .prepare_cached(
            "DELETE FROM jobs WHERE key IN
                 (SELECT key FROM jobs INDEXED BY jobs_by_tenant WHERE tenant = ?1 LIMIT ?2)",
        )?
        .execute((tenant, count(max_rows)))?;
    if removed < max_rows {
        removed += conn.prepare_cached("DELETE FROM retention_marks WHERE tenant = ?1")?.execute([tenant])?;
    }
    Ok(removed)
}
