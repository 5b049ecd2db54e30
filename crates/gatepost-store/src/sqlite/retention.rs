//! Retention: what is older than its tenant keeps is removed, a little at a time.
//!
//! A pass goes from tenant to tenant. Readers find what a step could remove; the writer judges again
//! and removes it, so that a step holds up commits no longer than its few rows take. Work still owed
//! is never removed: its event waits until it has come to an end.

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::tenant::Retention;
use gatepost_core::{DeliverySeq, EventSeq, TenantKey, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::error::DbResult;
use super::lists::{Growing, seek};
use super::owe::grouping;
use super::row::{count, reason_number, state, state_number, time};
use super::writer::{Tx, note_numbers};
use super::{jobs, making, queues, removal, sweep, tenants};
use crate::{Retained, RetentionCursor};

/// Tenants looked at in one step: each costs a few reads by number.
const TENANTS: usize = 100;
const DAY_US: i64 = 86_400_000_000;
/// What ended a moment ago is kept this long, however old its event: a delivery given up by retention
/// must be seen as such by somebody.
const GRACE_US: i64 = DAY_US;
/// An event with more deliveries than this is removed in several steps.
const WIDE: i64 = 1_000;
/// The mark of the highest event removed.
const REMOVED: i64 = 0;
/// A delivery's attempts are looked at when it is so many hours older than they are kept: soon, and
/// again for what had not ended then. So each is looked at a few times, however long it is kept.
const LOOK_HOURS: [i64; 4] = [1, 24, 7 * 24, 35 * 24];
const HOUR_US: i64 = 3_600_000_000;

/// What a step could do for one tenant.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    tenant: i64,
    /// Events old enough, oldest first.
    events: Vec<i64>,
    /// Deliveries whose attempts are to be looked at.
    look: Option<Look>,
    /// Webhooks deleted before everything that is left.
    webhooks: Vec<i64>,
    /// Revisions nothing refers to any more: webhook and version.
    revisions: Vec<(i64, i64)>,
    /// Jobs that ended before this.
    jobs_before: Option<Timestamp>,
}

/// Deliveries whose attempts may have been kept long enough.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    /// The mark that says how far it has come.
    mark: i64,
    deliveries: Vec<i64>,
    /// Of those that ended before, attempts and bodies are removed.
    ended_before: i64,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        *self == Plan { tenant: self.tenant, ..Plan::default() }
    }
}

fn before(now: Timestamp, days: i64) -> i64 {
    now.as_micros().saturating_sub(days.saturating_mul(DAY_US))
}

/// What the next step could do, and where the pass goes on after it.
pub(super) fn plan(
    conn: &Connection,
    now: Timestamp,
    cursor: RetentionCursor,
    max_rows: usize,
) -> DbResult<(Plan, Option<RetentionCursor>)> {
    let mut tenants =
        conn.prepare_cached("SELECT key FROM tenants WHERE deleted_at IS NULL AND key >= ?1 ORDER BY key LIMIT ?2")?;
    let keys: Vec<i64> =
        tenants.query_map((cursor.tenant.0, count(TENANTS)), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let at = |tenant: i64, event: i64| Some(RetentionCursor { tenant: TenantKey(tenant), event: EventSeq(event) });
    for tenant in &keys {
        let Some(found) = tenants::by_key(conn, TenantKey(*tenant))? else { continue };
        let after = if *tenant == cursor.tenant.0 { cursor.event.0 } else { 0 };
        let retention = found.settings.retention;
        let mut plan = Plan { tenant: *tenant, ..Plan::default() };
        plan.events = old_events(conn, *tenant, before(now, i64::from(retention.events_days)), after, max_rows)?;
        if let Some(last) = plan.events.last() {
            // Those that stay are passed by; the next pass comes to them again.
            let next = at(*tenant, *last);
            return Ok((plan, next));
        }
        plan.look = next_look(conn, *tenant, retention, now, max_rows)?;
        housekeeping(conn, &mut plan, retention, now, max_rows)?;
        if !plan.is_empty() {
            // No event is left to look at, but what else there is may be more than one step's worth.
            let next = at(*tenant, i64::MAX);
            return Ok((plan, next));
        }
    }
    let next = if keys.len() == TENANTS { keys.last().and_then(|key| at(*key + 1, 0)) } else { None };
    Ok((Plan::default(), next))
}

fn numbers(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> DbResult<Vec<i64>> {
    let mut found = conn.prepare_cached(sql)?;
    let rows = found.query_map(params, |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn old_events(conn: &Connection, tenant: i64, cutoff: i64, after: i64, max_rows: usize) -> DbResult<Vec<i64>> {
    let mut found = conn.prepare_cached(
        "SELECT seq, accepted_at FROM events INDEXED BY events_by_tenant
         WHERE tenant = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = found.query((tenant, after, count(max_rows)))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        // Acceptance grows with the number, but for small corrections of the clock: what is behind a
        // younger one waits with it.
        if row.get::<_, i64>(1)? >= cutoff {
            break;
        }
        list.push(row.get(0)?);
    }
    Ok(list)
}

/// Deliveries whose attempts are to be looked at, when attempts are kept for less time than events.
fn next_look(
    conn: &Connection,
    tenant: i64,
    retention: Retention,
    now: Timestamp,
    max_rows: usize,
) -> DbResult<Option<Look>> {
    let (attempts, events) = (i64::from(retention.attempts_days), i64::from(retention.events_days));
    let ended_before = before(now, attempts);
    for (number, hours) in (1..).zip(LOOK_HOURS) {
        let made_before = ended_before.saturating_sub(hours * HOUR_US);
        if made_before <= before(now, events) {
            break;
        }
        let from = mark(conn, tenant, number)?;
        // Most of the time there is nothing new: one read tells.
        let next: Option<i64> = conn
            .prepare_cached(
                "SELECT created_at FROM deliveries INDEXED BY deliveries_by_tenant
                 WHERE tenant = ?1 AND seq > ?2 ORDER BY seq LIMIT 1",
            )?
            .query_row((tenant, from), |row| row.get(0))
            .optional()?;
        if next.is_none_or(|created_at| created_at >= made_before) {
            continue;
        }
        let to = seek(conn, Growing::DeliveryCreated, made_before)?;
        let deliveries = numbers(
            conn,
            "SELECT seq FROM deliveries INDEXED BY deliveries_by_tenant
             WHERE tenant = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq LIMIT ?4",
            (tenant, from, to, count(max_rows)),
        )?;
        if !deliveries.is_empty() {
            return Ok(Some(Look { mark: number, deliveries, ended_before }));
        }
    }
    Ok(None)
}

/// The number noted under a mark of a tenant.
fn mark(conn: &Connection, tenant: i64, mark: i64) -> DbResult<i64> {
    let found: Option<i64> = conn
        .prepare_cached("SELECT seq FROM retention_marks WHERE tenant = ?1 AND mark = ?2")?
        .query_row((tenant, mark), |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

fn set_mark(conn: &Connection, tenant: i64, mark: i64, seq: i64) -> DbResult<()> {
    conn.prepare_cached(
        "INSERT INTO retention_marks(tenant, mark, seq) VALUES (?1, ?2, ?3)
         ON CONFLICT(tenant, mark) DO UPDATE SET seq = max(seq, excluded.seq)",
    )?
    .execute((tenant, mark, seq))?;
    Ok(())
}

/// The highest number of an event that retention has removed.
pub(super) fn floor(conn: &Connection, tenant: TenantKey) -> DbResult<i64> {
    mark(conn, tenant.0, REMOVED)
}

/// What is only kept to explain and show events: older than all of them, it explains nothing.
fn housekeeping(
    conn: &Connection,
    plan: &mut Plan,
    retention: Retention,
    now: Timestamp,
    max_rows: usize,
) -> DbResult<()> {
    let cutoff = before(now, i64::from(retention.events_days));
    let oldest: Option<(i64, i64)> = conn
        .prepare_cached(
            "SELECT accepted_at, registry_version FROM events INDEXED BY events_by_tenant
             WHERE tenant = ?1 ORDER BY seq LIMIT 1",
        )?
        .query_row([plan.tenant], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let present: i64 = conn
        .prepare_cached("SELECT registry_version FROM tenants WHERE key = ?1")?
        .query_row([plan.tenant], |row| row.get(0))?;
    let (accepted_at, version) = oldest.unwrap_or((i64::MAX, present));
    plan.webhooks = numbers(
        conn,
        "SELECT key FROM webhooks INDEXED BY webhooks_by_tenant
         WHERE tenant = ?1 AND deleted_at < ?2 AND swept = 1 LIMIT ?3",
        // The event of its own deletion is a little younger than the deletion.
        (plan.tenant, cutoff.min(accepted_at).saturating_sub(DAY_US), count(max_rows)),
    )?;
    let mut found = conn.prepare_cached(
        "SELECT r.webhook, r.from_version FROM webhooks w INDEXED BY webhooks_by_tenant
         CROSS JOIN webhook_revisions r ON r.webhook = w.key
         WHERE w.tenant = ?1
           AND EXISTS (SELECT 1 FROM webhook_revisions n
                       WHERE n.webhook = r.webhook AND n.from_version > r.from_version AND n.from_version <= ?2)
         LIMIT ?3",
    )?;
    let rows = found.query_map((plan.tenant, version, count(max_rows)), |row| Ok((row.get(0)?, row.get(1)?)))?;
    plan.revisions = rows.collect::<rusqlite::Result<_>>()?;
    let ended: Option<i64> = conn
        .prepare_cached("SELECT min(updated_at) FROM jobs INDEXED BY jobs_by_tenant WHERE tenant = ?1 AND state >= 2")?
        .query_row([plan.tenant], |row| row.get(0))?;
    plan.jobs_before = ended.filter(|at| *at < cutoff).map(|_| time(cutoff));
    Ok(())
}

/// Does what was planned, as far as `max_rows` go; `next` is where the pass goes on if all of it is done.
pub(super) fn apply(
    tx: &Tx<'_>,
    plan: &Plan,
    next: Option<RetentionCursor>,
    now: Timestamp,
    max_rows: usize,
) -> DbResult<Retained> {
    let mut done = Retained { next, ..Retained::default() };
    let conn = tx.conn;
    if let (Some(first), Some(last)) = (plan.events.first(), plan.events.last()) {
        note_numbers(tx)?;
        // Not past what is owed and not made yet; the next pass comes to it again.
        let unmade = making::first_event(conn, TenantKey(plan.tenant))?;
        let last = unmade.map_or(*last, |unmade| (*last).min(unmade.0 - 1));
        let came_to = old_rows(tx, plan.tenant, (*first, last), now, max_rows, &mut done)?;
        if let Some(event) = came_to {
            done.next = Some(RetentionCursor { tenant: TenantKey(plan.tenant), event: EventSeq(event) });
        }
    }
    if let Some(look) = &plan.look {
        for seq in &look.deliveries {
            done.attempts += usize::from(strip(conn, *seq, look.ended_before)?);
        }
        if let Some(last) = look.deliveries.last() {
            set_mark(conn, plan.tenant, look.mark, *last)?;
        }
    }
    for key in &plan.webhooks {
        sweep::remove_webhook(conn, *key)?;
    }
    for (webhook, version) in &plan.revisions {
        conn.prepare_cached("DELETE FROM webhook_revisions WHERE webhook = ?1 AND from_version = ?2")?
            .execute((webhook, version))?;
    }
    done.others = plan.webhooks.len() + plan.revisions.len();
    if let Some(before) = plan.jobs_before {
        done.others += jobs::remove_ended(conn, TenantKey(plan.tenant).0, before, max_rows)?;
    }
    Ok(done)
}

/// Removes old events from the first to the last, as far as `max_rows` go; where it came to when that
/// was not all.
fn old_rows(
    tx: &Tx<'_>,
    tenant: i64,
    (first, last): (i64, i64),
    now: Timestamp,
    max_rows: usize,
    done: &mut Retained,
) -> DbResult<Option<i64>> {
    let conn = tx.conn;
    let (events, all) = in_window(conn, tenant, (first, last), now, max_rows)?;
    let (mut rows, mut run, mut came_to) = (0, Run::default(), None);
    for event in events {
        if rows >= max_rows {
            run.remove(conn, tenant, done)?;
            return Ok(came_to);
        }
        if event.wide {
            return wide_event(tx, tenant, event.seq, now, max_rows, done).map(Some);
        }
        came_to = Some(event.seq);
        if event.plain {
            rows += 1 + event.deliveries.len();
            run.events.push(event.seq);
            run.deliveries.extend(event.deliveries);
        } else {
            run.remove(conn, tenant, done)?;
            rows += one_event(tx, tenant, event.seq, now, done)?;
        }
    }
    run.remove(conn, tenant, done)?;
    Ok(came_to.filter(|_| !all))
}

/// An old event with its own deliveries.
struct Aged {
    seq: i64,
    deliveries: Vec<i64>,
    /// It has so many that they are not looked at together with others'; then it is the only one.
    wide: bool,
    /// Everything it was owed by ended long enough ago and is its alone: nothing has to be judged.
    plain: bool,
}

/// The next events with about `max_rows` rows, and whether these are all. In one statement: asking
/// about each event by itself costs more than removing it.
fn in_window(
    conn: &Connection,
    tenant: i64,
    (first, last): (i64, i64),
    now: Timestamp,
    max_rows: usize,
) -> DbResult<(Vec<Aged>, bool)> {
    let mut found = conn.prepare_cached(
        "SELECT e.seq, d.seq, d.state, d.grouping, coalesce(d.updated_at, d.created_at),
             EXISTS (SELECT 1 FROM delivery_links l WHERE l.event_seq = e.seq), e.delivery_count
         FROM events e INDEXED BY events_by_tenant LEFT JOIN deliveries d
             ON d.seq >= e.first_delivery AND d.seq < e.first_delivery + e.delivery_count AND d.event_seq = e.seq
         WHERE e.tenant = ?1 AND e.seq >= ?2 AND e.seq <= ?3 ORDER BY e.seq",
    )?;
    let young = now.as_micros().saturating_sub(GRACE_US);
    let mut found = found.query((tenant, first, last))?;
    let (mut events, mut rows): (Vec<Aged>, _) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let seq: i64 = row.get(0)?;
        if events.last().is_none_or(|event| event.seq != seq) {
            if rows >= max_rows {
                return Ok((events, false));
            }
            rows += 1;
            let wide = row.get::<_, i64>(6)? > WIDE;
            if !wide || events.is_empty() {
                events.push(Aged { seq, deliveries: Vec::new(), wide, plain: !row.get::<_, bool>(5)? });
            }
            if wide {
                return Ok((events, false));
            }
        }
        let (Some(event), Some(delivery)) = (events.last_mut(), row.get::<_, Option<i64>>(1)?) else { continue };
        rows += 1;
        event.deliveries.push(delivery);
        event.plain &= state(row.get(2)?)?.is_terminal()
            && row.get::<_, i64>(3)? & grouping::BATCH == 0
            && row.get::<_, i64>(4)? <= young;
    }
    Ok((events, true))
}

/// A step towards removing an old event with very many deliveries, in so many rows; where it came to. As
/// long as nothing of it has to be judged one by one they go first, and it goes with the last of them.
fn wide_event(
    tx: &Tx<'_>,
    tenant: i64,
    event: i64,
    now: Timestamp,
    max_rows: usize,
    done: &mut Retained,
) -> DbResult<i64> {
    let conn = tx.conn;
    let begun: bool = conn
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.seq = e.first_delivery AND d.event_seq = e.seq)
             FROM events e WHERE e.seq = ?1",
        )?
        .query_row([event], |row| row.get(0))?;
    // All of them before the first step; then each step its own.
    let some = if begun { count(max_rows) } else { i64::MAX };
    let (young, mut plain, mut seqs) = (now.as_micros().saturating_sub(GRACE_US), true, Vec::new());
    let mut found = conn.prepare_cached(
        "SELECT d.seq, d.state, d.grouping, coalesce(d.updated_at, d.created_at),
             EXISTS (SELECT 1 FROM delivery_links l WHERE l.event_seq = e.seq)
         FROM events e CROSS JOIN deliveries d
             ON d.seq >= e.first_delivery AND d.seq < e.first_delivery + e.delivery_count
         WHERE e.seq = ?1 AND d.event_seq = ?1 ORDER BY d.seq LIMIT ?2",
    )?;
    let mut rows = found.query((event, some))?;
    while plain && let Some(row) = rows.next()? {
        plain = state(row.get(1)?)?.is_terminal()
            && row.get::<_, i64>(2)? & grouping::BATCH == 0
            && row.get::<_, i64>(3)? <= young
            && !row.get::<_, bool>(4)?;
        if seqs.len() < max_rows {
            seqs.push(row.get(0)?);
        }
    }
    drop(rows);
    if !plain {
        one_event(tx, tenant, event, now, done)?;
        return Ok(event);
    }
    removal::deliveries(conn, &seqs)?;
    done.others += seqs.len();
    if seqs.len() == max_rows {
        return Ok(event - 1);
    }
    removal::events(conn, &[event])?;
    set_mark(conn, tenant, REMOVED, event)?;
    done.events += 1;
    Ok(event)
}

/// Events to remove together.
#[derive(Default)]
struct Run {
    events: Vec<i64>,
    deliveries: Vec<i64>,
}

impl Run {
    fn remove(&mut self, conn: &Connection, tenant: i64, done: &mut Retained) -> DbResult<()> {
        let Some(last) = self.events.last() else { return Ok(()) };
        self.deliveries.sort_unstable();
        removal::deliveries(conn, &self.deliveries)?;
        removal::events(conn, &self.events)?;
        set_mark(conn, tenant, REMOVED, *last)?;
        done.events += self.events.len();
        self.events.clear();
        self.deliveries.clear();
        Ok(())
    }
}

/// A delivery of an old event.
struct Old {
    seq: i64,
    state: DeliveryState,
    batch: bool,
    changed: i64,
    held: bool,
    webhook_deleted: bool,
}

fn deliveries_of(conn: &Connection, event: i64) -> DbResult<Vec<Old>> {
    let mut found = conn.prepare_cached(
        "WITH owed(seq) AS (
             SELECT d.seq FROM events e CROSS JOIN deliveries d
                 ON d.seq >= e.first_delivery AND d.seq < e.first_delivery + e.delivery_count
             WHERE e.seq = ?1 AND d.event_seq = ?1
             UNION SELECT delivery_seq FROM delivery_links WHERE event_seq = ?1)
         SELECT d.seq, d.state, d.grouping, coalesce(d.updated_at, d.created_at),
             w.enabled = 0 OR w.paused = 1 OR (w.verified = 0 AND (w.must_verify = 1 OR t.must_verify = 1)),
             w.deleted_at IS NOT NULL
         FROM owed CROSS JOIN deliveries d ON d.seq = owed.seq CROSS JOIN webhooks w ON w.key = d.webhook
         CROSS JOIN tenants t ON t.key = w.tenant",
    )?;
    let mut rows = found.query([event])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(Old {
            seq: row.get(0)?,
            state: state(row.get(1)?)?,
            batch: row.get::<_, i64>(2)? & grouping::BATCH != 0,
            changed: row.get(3)?,
            held: row.get(4)?,
            webhook_deleted: row.get(5)?,
        });
    }
    Ok(list)
}

/// Removes an event that nothing is owed of, or gives up what is held of it. Answers how many rows
/// that took.
fn one_event(tx: &Tx<'_>, tenant: i64, event: i64, now: Timestamp, done: &mut Retained) -> DbResult<usize> {
    let conn = tx.conn;
    let deliveries = deliveries_of(conn, event)?;
    let mut rows = 1;
    let mut stays = false;
    for delivery in &deliveries {
        if delivery.state == DeliveryState::Pending {
            stays = true;
            if delivery.held && !delivery.webhook_deleted {
                expire(tx, delivery.seq, now)?;
                done.expired += 1;
                rows += 1;
            }
        } else if delivery.changed > now.as_micros().saturating_sub(GRACE_US) {
            stays = true;
        }
    }
    if stays {
        return Ok(rows);
    }
    for delivery in &deliveries {
        rows += 1;
        if delivery.batch && leave_batch(conn, delivery.seq, event)? {
            continue;
        }
        sweep::remove_delivery(conn, delivery.seq)?;
    }
    sweep::remove_event(conn, event)?;
    set_mark(conn, tenant, REMOVED, event)?;
    done.events += 1;
    Ok(rows)
}

/// Held for longer than its event is kept.
fn expire(tx: &Tx<'_>, seq: i64, now: Timestamp) -> DbResult<()> {
    let conn = tx.conn;
    conn.prepare_cached("DELETE FROM open_batches WHERE delivery_seq = ?1")?.execute([seq])?;
    conn.prepare_cached(
        "UPDATE deliveries SET state = ?2, reason = ?3, generation = generation + 1,
             updated_at = max(coalesce(updated_at, created_at), ?4) WHERE seq = ?1",
    )?
    .execute((seq, state_number(DeliveryState::Failed), reason_number(Reason::Expired), now.as_micros()))?;
    // Its webhook takes nothing: nobody is to be woken for what is first in its queue now.
    queues::leave(conn, DeliverySeq(seq), tx.due(now), &mut Vec::new())
}

/// Takes an event out of a batch that others are in still. Whether there are others.
fn leave_batch(conn: &Connection, batch: i64, event: i64) -> DbResult<bool> {
    conn.prepare_cached("DELETE FROM batch_events WHERE delivery_seq = ?1 AND event_seq = ?2")?
        .execute((batch, event))?;
    let other: Option<i64> = conn
        .prepare_cached("SELECT event_seq FROM batch_events WHERE delivery_seq = ?1 ORDER BY position LIMIT 1")?
        .query_row([batch], |row| row.get(0))
        .optional()?;
    let Some(other) = other else { return Ok(false) };
    // The others find it by their links.
    conn.prepare_cached("UPDATE deliveries SET event_seq = ?2 WHERE seq = ?1 AND event_seq = ?3")?
        .execute((batch, other, event))?;
    conn.prepare_cached("DELETE FROM bodies WHERE delivery_seq = ?1")?.execute([batch])?;
    Ok(true)
}

/// Removes the attempts and the body of a delivery that ended long enough ago. Whether it did.
fn strip(conn: &Connection, seq: i64, ended_before: i64) -> DbResult<bool> {
    let found: Option<(i64, i64)> = conn
        .prepare_cached("SELECT state, coalesce(updated_at, created_at) FROM deliveries WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, changed)) = found else { return Ok(false) };
    if !state(number)?.is_terminal() || changed >= ended_before {
        return Ok(false);
    }
    let mut removed = 0;
    for sql in [
        "DELETE FROM attempts WHERE delivery_seq = ?1",
        "DELETE FROM bodies WHERE delivery_seq = ?1",
        "UPDATE deliveries SET first_attempt = NULL WHERE seq = ?1 AND first_attempt IS NOT NULL",
    ] {
        removed += conn.prepare_cached(sql)?.execute([seq])?;
    }
    Ok(removed > 0)
}
