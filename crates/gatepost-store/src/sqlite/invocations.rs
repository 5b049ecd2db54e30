//! Records of blocking invocations, and what they still owe.

use gatepost_core::hooks::outcome::{ACCEPTED_FOR, Outcome, UNKNOWN_AFTER};
use gatepost_core::tenant::TenantSettings;
use gatepost_core::{HookId, InvocationId, TenantId, TenantKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::{DbError, DbResult};
use super::hooks::{count_up, json, to_json};
use super::row::{count, is_live, text, time};
use super::writer::Tx;
use crate::Page;
use crate::hooks::{
    HookUpkeep, InvocationBatch, InvocationBody, InvocationQuery, KeptSecret, NewInvocation, NewTrial, OutcomeRecorded,
    OutcomeState, StoredInvocation, Trial,
};

/// Rows looked at for one page, at most.
const SCAN: usize = 2_000;
const DAY: u64 = 24 * 60 * 60;

macro_rules! columns {
    () => {
        "i.seq, i.tenant, i.id, i.at, i.record, i.outcome_state, i.outcome, i.outcome_at"
    };
}

fn number(state: OutcomeState) -> i64 {
    state as i64
}

fn state(number: i64) -> DbResult<OutcomeState> {
    let index = usize::try_from(number).ok();
    index.and_then(|i| OutcomeState::ALL.get(i).copied()).ok_or_else(|| DbError::corrupt("outcome state", number))
}

fn read(row: &Row<'_>, at: usize) -> DbResult<StoredInvocation> {
    let outcome: Option<String> = row.get(at + 6)?;
    let outcome_at: Option<i64> = row.get(at + 7)?;
    let outcome = outcome.as_deref().map(|text| json("outcome", text)).transpose()?;
    Ok(StoredInvocation {
        seq: row.get(at)?,
        tenant: TenantKey(row.get(at + 1)?),
        id: InvocationId::from_bytes(row.get(at + 2)?),
        at: time(row.get(at + 3)?),
        record: json("invocation", text(row, at + 4)?)?,
        outcome_state: state(row.get(at + 5)?)?,
        outcome: outcome.zip(outcome_at.map(time)),
        trials: Vec::new(),
        body: None,
    })
}

fn trials(conn: &Connection, id: InvocationId) -> DbResult<Vec<(HookId, Trial)>> {
    let mut found = conn.prepare_cached("SELECT hook, trial FROM invocation_trials WHERE invocation = ?1")?;
    let mut rows = found.query([id.to_bytes()])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push((HookId::from_bytes(row.get(0)?), json("trial", text(row, 1)?)?));
    }
    Ok(list)
}

fn body(conn: &Connection, id: InvocationId) -> DbResult<Option<InvocationBody>> {
    let found: Option<String> = conn
        .prepare_cached("SELECT body FROM invocation_bodies WHERE invocation = ?1")?
        .query_row([id.to_bytes()], |row| row.get(0))
        .optional()?;
    found.as_deref().map(|text| json("invocation body", text)).transpose()
}

/// With everything that is kept elsewhere.
fn whole(conn: &Connection, mut invocation: StoredInvocation) -> DbResult<StoredInvocation> {
    invocation.trials = trials(conn, invocation.id)?;
    invocation.body = body(conn, invocation.id)?;
    Ok(invocation)
}

pub(super) fn invocation(conn: &Connection, tenant: TenantKey, id: InvocationId) -> DbResult<Option<StoredInvocation>> {
    if !is_live(conn, tenant)? {
        return Ok(None);
    }
    let sql = concat!("SELECT ", columns!(), " FROM invocations i WHERE i.id = ?1 AND i.tenant = ?2");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((id.to_bytes(), tenant.0))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    whole(conn, read(row, 0)?).map(Some)
}

pub(super) fn invocations(conn: &Connection, query: &InvocationQuery) -> DbResult<Page<StoredInvocation>> {
    if !is_live(conn, query.tenant)? {
        return Ok(Page { rows: Vec::new(), next: None });
    }
    let head = concat!("SELECT ", columns!(), ", i.point, i.denied, i.cause FROM invocations i ");
    let tail = " AND i.seq < ?2 ORDER BY i.seq DESC LIMIT ?3";
    let by_tenant = format!("{head} INDEXED BY invocations_by_tenant WHERE i.tenant = ?1 AND ?4 IS NULL{tail}");
    let by_subject =
        format!("{head} INDEXED BY invocations_by_subject WHERE i.tenant = ?1 AND i.subject_id = ?4{tail}");
    let mut found = conn.prepare_cached(if query.subject.is_some() { &by_subject } else { &by_tenant })?;
    let after = query.page.after.unwrap_or(i64::MAX);
    let mut rows = found.query((query.tenant.0, after, count(SCAN), query.subject.as_deref()))?;
    let (mut list, mut scanned, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        if list.len() == query.page.limit {
            return Ok(Page { next: last, rows: list });
        }
        scanned += 1;
        last = Some(row.get::<_, i64>(0)?);
        let at = time(row.get(3)?);
        let wanted = query.point.as_deref().is_none_or(|point| text(row, 8).is_ok_and(|found| found == point))
            && query.denied.is_none_or(|denied| row.get(9).is_ok_and(|found: bool| found == denied))
            && query.cause.as_deref().is_none_or(|cause| text(row, 10).is_ok_and(|found| found == cause))
            && query.since.is_none_or(|since| at >= since)
            && query.until.is_none_or(|until| at < until);
        if wanted {
            let mut invocation = read(row, 0)?;
            invocation.trials = trials(conn, invocation.id)?;
            list.push(invocation);
        }
    }
    let next = if scanned == SCAN { last } else { None };
    Ok(Page { rows: list, next })
}

pub(super) fn record(tx: &Tx<'_>, batch: &InvocationBatch) -> DbResult<()> {
    for new in &batch.invocations {
        insert(tx, new)?;
    }
    for NewTrial { invocation, hook, trial } in &batch.trials {
        tx.conn
            .prepare_cached("INSERT OR IGNORE INTO invocation_trials(invocation, hook, trial) VALUES (?1, ?2, ?3)")?
            .execute((invocation.to_bytes(), hook.to_bytes(), to_json("trial", trial)?))?;
    }
    for (tenant, hook, counts) in &batch.counts {
        count_up(tx, *tenant, *hook, counts)?;
    }
    Ok(())
}

fn insert(tx: &Tx<'_>, new: &NewInvocation) -> DbResult<()> {
    let awaited = if new.awaits_outcome { OutcomeState::Awaited } else { OutcomeState::None };
    let decision = &new.record.decision;
    let denied = decision.decision == gatepost_core::hooks::decision::Verdict::Deny;
    let added = tx
        .conn
        .prepare_cached(
            "INSERT INTO invocations(tenant, id, at, point, subject_id, denied, cause, outcome_state, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT(id) DO NOTHING",
        )?
        .execute((
            new.tenant.0,
            new.id.to_bytes(),
            new.at.as_micros(),
            &new.point,
            &new.subject_id,
            denied,
            decision.cause.as_str(),
            number(awaited),
            to_json("invocation", &new.record)?,
        ))?;
    if let (1, Some((body, until))) = (added, &new.body) {
        tx.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO invocation_bodies(invocation, expires_at, body) VALUES (?1, ?2, ?3)",
            )?
            .execute((new.id.to_bytes(), until.as_micros(), to_json("invocation body", body)?))?;
    }
    Ok(())
}

pub(super) fn record_outcome(
    tx: &Tx<'_>,
    tenant: TenantKey,
    id: InvocationId,
    outcome: &Outcome,
    now: Timestamp,
) -> DbResult<OutcomeRecorded> {
    let Some(present) = invocation(tx.conn, tenant, id)? else { return Ok(OutcomeRecorded::NotFound) };
    if present.record.decision.dry_run {
        return Ok(OutcomeRecorded::DryRun);
    }
    if let Some((earlier, _)) = &present.outcome {
        let same = outcome.agrees_with(earlier);
        return Ok(if same { OutcomeRecorded::Same(Box::new(present)) } else { OutcomeRecorded::Contradicts });
    }
    if now.since(present.at) > ACCEPTED_FOR {
        return Ok(OutcomeRecorded::Expired);
    }
    tx.conn
        .prepare_cached("UPDATE invocations SET outcome_state = ?2, outcome = ?3, outcome_at = ?4 WHERE seq = ?1")?
        .execute((present.seq, number(OutcomeState::Owed), to_json("outcome", outcome)?, now.as_micros()))?;
    let now_kept =
        invocation(tx.conn, tenant, id)?.ok_or_else(|| DbError::corrupt("invocation", "gone after its outcome"))?;
    Ok(OutcomeRecorded::Recorded(Box::new(now_kept)))
}

pub(super) fn owed(conn: &Connection, limit: usize) -> DbResult<Vec<(TenantId, StoredInvocation)>> {
    let sql = concat!(
        "SELECT t.id, ",
        columns!(),
        " FROM invocations i INDEXED BY invocations_owed CROSS JOIN tenants t ON t.key = i.tenant
          WHERE i.outcome_state = 3 AND t.deleted_at IS NULL ORDER BY i.seq LIMIT ?1"
    );
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query([count(limit)])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let tenant = text(row, 0)?.parse().map_err(|e| DbError::corrupt("tenant id", e))?;
        list.push((tenant, whole(conn, read(row, 1)?)?));
    }
    Ok(list)
}

pub(super) fn published(tx: &Tx<'_>, tenant: TenantKey, id: InvocationId) -> DbResult<()> {
    tx.conn
        .prepare_cached(
            "UPDATE invocations SET outcome_state = ?3 WHERE id = ?1 AND tenant = ?2 AND outcome_state = ?4",
        )?
        .execute((id.to_bytes(), tenant.0, number(OutcomeState::Done), number(OutcomeState::Owed)))?;
    Ok(())
}

pub(super) fn keep_up(tx: &Tx<'_>, now: Timestamp, after: Option<TenantKey>, max_rows: usize) -> DbResult<HookUpkeep> {
    let conn = tx.conn;
    let max = count(max_rows);
    let unknown = conn
        .prepare_cached(
            "UPDATE invocations SET outcome_state = 2 WHERE seq IN
                 (SELECT seq FROM invocations INDEXED BY invocations_awaited
                  WHERE outcome_state = 1 AND at <= ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute((now.saturating_sub(UNKNOWN_AFTER).as_micros(), max))?;
    let bodies = conn
        .prepare_cached(
            "DELETE FROM invocation_bodies WHERE invocation IN
                 (SELECT invocation FROM invocation_bodies INDEXED BY invocation_bodies_expiring
                  WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )?
        .execute((now.as_micros(), max))?;
    let secrets = conn.prepare_cached("DELETE FROM kept_secrets WHERE expires_at <= ?1")?.execute([now.as_micros()])?;
    let (old, next) = remove_old(conn, now, after, max_rows)?;
    Ok(HookUpkeep {
        unknown: unknown as u64,
        removed: (bodies + secrets + old) as u64,
        more: unknown >= max_rows || bodies >= max_rows || old >= max_rows,
        next,
    })
}

/// Removes records of the next tenant that are older than it keeps its attempts.
fn remove_old(
    conn: &Connection,
    now: Timestamp,
    after: Option<TenantKey>,
    max_rows: usize,
) -> DbResult<(usize, Option<TenantKey>)> {
    let next: Option<(i64, String)> = conn
        .prepare_cached(
            "SELECT key, settings FROM tenants t WHERE key > ?1 AND deleted_at IS NULL
                 AND EXISTS (SELECT 1 FROM invocations i INDEXED BY invocations_by_tenant WHERE i.tenant = t.key)
             ORDER BY key LIMIT 1",
        )?
        .query_row([after.map_or(0, |key| key.0)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((tenant, settings)) = next else { return Ok((0, None)) };
    let settings: TenantSettings = json("tenant settings", &settings)?;
    let kept = std::time::Duration::from_secs(u64::from(settings.retention.attempts_days) * DAY);
    let before = now.saturating_sub(kept).as_micros();
    let mut found = conn.prepare_cached(
        "SELECT seq, id FROM invocations INDEXED BY invocations_by_tenant
         WHERE tenant = ?1 AND at < ?2 AND outcome_state <> 3 ORDER BY seq LIMIT ?3",
    )?;
    let old = found.query_map((tenant, before, count(max_rows)), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let old: Vec<(i64, [u8; 16])> = old.collect::<rusqlite::Result<_>>()?;
    let removed = remove(conn, &old)?;
    // A tenant with more to remove has another turn.
    let came_to = if removed >= max_rows { after } else { Some(TenantKey(tenant)) };
    Ok((removed, came_to))
}

fn remove(conn: &Connection, rows: &[(i64, [u8; 16])]) -> DbResult<usize> {
    for (seq, id) in rows {
        conn.prepare_cached("DELETE FROM invocation_trials WHERE invocation = ?1")?.execute([id])?;
        conn.prepare_cached("DELETE FROM invocation_bodies WHERE invocation = ?1")?.execute([id])?;
        conn.prepare_cached("DELETE FROM invocations WHERE seq = ?1")?.execute([seq])?;
    }
    Ok(rows.len())
}

pub(super) fn remove_tenant(conn: &Connection, tenant: i64, max_rows: usize) -> DbResult<usize> {
    let sql = "SELECT seq, id FROM invocations INDEXED BY invocations_by_tenant WHERE tenant = ?1 LIMIT ?2";
    let mut found = conn.prepare_cached(sql)?;
    let rows = found.query_map((tenant, count(max_rows)), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(i64, [u8; 16])> = rows.collect::<rusqlite::Result<_>>()?;
    remove(conn, &rows)
}

/// Removes up to `max_rows` records about one person, outcomes still owed apart.
pub(super) fn remove_subject(conn: &Connection, tenant: TenantKey, subject: &str, max_rows: usize) -> DbResult<usize> {
    let mut found = conn.prepare_cached(
        "SELECT seq, id FROM invocations INDEXED BY invocations_by_subject
         WHERE tenant = ?1 AND subject_id = ?2 AND outcome_state <> 3 LIMIT ?3",
    )?;
    let rows = found.query_map((tenant.0, subject, count(max_rows)), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(i64, [u8; 16])> = rows.collect::<rusqlite::Result<_>>()?;
    remove(conn, &rows)
}

pub(super) fn keep_secret(tx: &Tx<'_>, kept: &KeptSecret) -> DbResult<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO kept_secrets(tenant, hook, invocation, attempts, due, expires_at, sealed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT(invocation, hook) DO UPDATE SET attempts = excluded.attempts, due = excluded.due,
                 sealed = excluded.sealed",
        )?
        .execute((
            kept.tenant.0,
            kept.hook.to_bytes(),
            kept.invocation.to_bytes(),
            kept.attempts,
            kept.due.as_micros(),
            kept.expires_at.as_micros(),
            &kept.sealed,
        ))?;
    Ok(())
}

pub(super) fn due_secrets(conn: &Connection, now: Timestamp, limit: usize) -> DbResult<Vec<(TenantId, KeptSecret)>> {
    let mut found = conn.prepare_cached(
        "SELECT t.id, k.tenant, k.hook, k.invocation, k.attempts, k.due, k.expires_at, k.sealed
         FROM kept_secrets k INDEXED BY kept_secrets_due CROSS JOIN tenants t ON t.key = k.tenant
         WHERE k.due <= ?1 AND t.deleted_at IS NULL ORDER BY k.due LIMIT ?2",
    )?;
    let mut rows = found.query((now.as_micros(), count(limit)))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let tenant = text(row, 0)?.parse().map_err(|e| DbError::corrupt("tenant id", e))?;
        list.push((
            tenant,
            KeptSecret {
                tenant: TenantKey(row.get(1)?),
                hook: HookId::from_bytes(row.get(2)?),
                invocation: InvocationId::from_bytes(row.get(3)?),
                attempts: row.get(4)?,
                due: time(row.get(5)?),
                expires_at: time(row.get(6)?),
                sealed: row.get(7)?,
            },
        ));
    }
    Ok(list)
}

pub(super) fn drop_secret(tx: &Tx<'_>, invocation: InvocationId, hook: HookId) -> DbResult<()> {
    tx.conn
        .prepare_cached("DELETE FROM kept_secrets WHERE invocation = ?1 AND hook = ?2")?
        .execute((invocation.to_bytes(), hook.to_bytes()))?;
    Ok(())
}
