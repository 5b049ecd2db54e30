//! Deliveries: as shown, as owed, and what people do with them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::{Event, Urgency};
use gatepost_core::{DeliverySeq, EventSeq, TenantKey, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::{DbError, DbResult};
use super::row::{
    KeptAttempt, attempt, count, event, event_by_seq, event_columns, event_id, is_live, rank, reason, reason_number,
    state, state_number, subject, text, time, urgency, webhook_id,
};
use super::writer::Tx;
use crate::{CancelOutcome, DeliveryDetail, DeliveryRow, Due, DuePage, DueQuery, Owed, RetryOutcome};

/// A delivery as shown: what its webhook's state means for a pending one is derived here, so that
/// disabling or deleting a webhook with a large backlog writes one row.
pub(super) fn row_by_seq(conn: &Connection, tenant: TenantKey, seq: DeliverySeq) -> DbResult<Option<DeliveryRow>> {
    let mut found = conn.prepare_cached(
        "SELECT d.state, d.reason, d.attempts, NULL, d.created_at, d.updated_at, d.webhook, w.id, w.enabled,
             w.deleted_at, e.seq, e.accepted_at, e.ext_id, e.type, e.subject_type, e.subject_id,
             max(d.due, coalesce(w.paused_until, d.due))
         FROM deliveries d CROSS JOIN events e ON e.seq = d.event_seq CROSS JOIN webhooks w ON w.key = d.webhook
         WHERE d.seq = ?1 AND d.tenant = ?2",
    )?;
    let mut rows = found.query((seq.0, tenant.0))?;
    rows.next()?.map(|row| shown(row, seq)).transpose()
}

fn shown(row: &Row<'_>, seq: DeliverySeq) -> DbResult<DeliveryRow> {
    let stored = state(row.get(0)?)?;
    let created_at = time(row.get(4)?);
    let changed = row.get::<_, Option<i64>>(5)?.map_or(created_at, time);
    let enabled: bool = row.get(8)?;
    let deleted_at = row.get::<_, Option<i64>>(9)?.map(time);
    let (state, reason, next_attempt_at, updated_at) = match (stored, deleted_at) {
        (DeliveryState::Pending, Some(at)) => {
            (DeliveryState::Cancelled, Some(Reason::WebhookDeleted), None, changed.max(at))
        }
        (DeliveryState::Pending, None) if !enabled => {
            (DeliveryState::Held, Some(Reason::WebhookDisabled), None, changed)
        }
        // Not before the webhook's pause has passed either.
        (DeliveryState::Pending, None) => (stored, None, Some(time(row.get(16)?)), changed),
        _ => (stored, reason(row.get(1)?)?, None, changed),
    };
    Ok(DeliveryRow {
        seq,
        webhook: WebhookKey(row.get(6)?),
        webhook_id: webhook_id(row, 7)?,
        event_ids: vec![event_id(row, 12, time(row.get(11)?), EventSeq(row.get(10)?))?],
        event_type: text(row, 13)?.parse().map_err(|e| DbError::corrupt("event type", e))?,
        subject: subject(row, 14)?,
        state,
        reason,
        attempts: row.get(2)?,
        next_attempt_at,
        created_at,
        updated_at,
    })
}

pub(super) fn detail(conn: &Connection, tenant: TenantKey, seq: DeliverySeq) -> DbResult<Option<DeliveryDetail>> {
    if !is_live(conn, tenant)? {
        return Ok(None);
    }
    let Some(row) = row_by_seq(conn, tenant, seq)? else { return Ok(None) };
    let (event, revision): (i64, u32) = conn
        .prepare_cached("SELECT event_seq, revision FROM deliveries WHERE seq = ?1")?
        .query_row([seq.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let event = event_by_seq(conn, EventSeq(event))?.ok_or_else(|| DbError::corrupt("event", "gone"))?;
    Ok(Some(DeliveryDetail {
        row,
        event: Arc::new(event),
        revision,
        attempts: attempts(conn, seq)?.into_iter().map(|kept| kept.record).collect(),
        body: body(conn, seq)?,
    }))
}

/// All attempts of a delivery, oldest first.
pub(super) fn attempts(conn: &Connection, seq: DeliverySeq) -> DbResult<Vec<KeptAttempt>> {
    let mut list = Vec::new();
    let mut found = conn.prepare_cached(
        "SELECT first_attempt FROM deliveries WHERE seq = ?1 AND first_attempt IS NOT NULL
         UNION ALL SELECT record FROM (SELECT record FROM attempts WHERE delivery_seq = ?1 ORDER BY number)",
    )?;
    let mut rows = found.query([seq.0])?;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(0)?.as_blob().map_err(|e| DbError::corrupt("attempt", e))?;
        list.push(attempt(bytes)?);
    }
    list.sort_by_key(|kept| kept.record.number);
    Ok(list)
}

fn body(conn: &Connection, seq: DeliverySeq) -> DbResult<Option<Bytes>> {
    let body: Option<Vec<u8>> = conn
        .prepare_cached("SELECT body FROM bodies WHERE delivery_seq = ?1")?
        .query_row([seq.0], |row| row.get(0))
        .optional()?;
    Ok(body.map(Bytes::from))
}

pub(super) fn of_event(
    conn: &Connection,
    tenant: TenantKey,
    event: EventSeq,
    limit: usize,
) -> DbResult<Vec<DeliveryRow>> {
    if !is_live(conn, tenant)? {
        return Ok(Vec::new());
    }
    // Deliveries made later have higher numbers than the event's own.
    let mut found = conn.prepare_cached(
        "SELECT d.seq FROM events e CROSS JOIN deliveries d
             ON d.seq >= e.first_delivery AND d.seq < e.first_delivery + e.delivery_count
         WHERE e.seq = ?1 AND e.tenant = ?2
         UNION ALL SELECT delivery_seq FROM delivery_links WHERE event_seq = ?1
         ORDER BY 1 LIMIT ?3",
    )?;
    let mut rows = found.query((event.0, tenant.0, count(limit)))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.extend(row_by_seq(conn, tenant, DeliverySeq(row.get(0)?))?);
    }
    Ok(list)
}

macro_rules! due_columns {
    () => {
        "d.seq, d.created_at, d.tenant, d.webhook, d.revision, d.due, d.urgency, d.attempts, d.budget_start, d.manual, \
         d.generation, b.body, "
    };
}
/// Where the event's columns begin after [`due_columns`].
const EVENT_AT: usize = 12;

/// Reads a delivery to be made; `events` shares what the page has read already.
fn due_row(row: &Row<'_>, events: &mut HashMap<i64, Arc<Event>>) -> DbResult<Due> {
    let event_seq: i64 = row.get(EVENT_AT)?;
    let event = match events.get(&event_seq) {
        Some(event) => Arc::clone(event),
        None => {
            let read = Arc::new(event(row, EVENT_AT)?);
            events.insert(event_seq, Arc::clone(&read));
            read
        }
    };
    let body = row.get_ref(11)?.as_blob_or_null().map_err(|e| DbError::corrupt("body", e))?;
    Ok(Due {
        seq: DeliverySeq(row.get(0)?),
        created_at: time(row.get(1)?),
        tenant: TenantKey(row.get(2)?),
        webhook: WebhookKey(row.get(3)?),
        revision: row.get(4)?,
        event,
        due: time(row.get(5)?),
        urgency: urgency(row.get(6)?)?,
        attempts: row.get(7)?,
        budget_start: row.get(8)?,
        manual: row.get(9)?,
        generation: row.get(10)?,
        body: body.map(Bytes::copy_from_slice),
    })
}

/// Whether a webhook takes deliveries.
fn takes(conn: &Connection, webhook: WebhookKey) -> DbResult<Option<TenantKey>> {
    let tenant: Option<i64> = conn
        .prepare_cached(
            "SELECT w.tenant FROM webhooks w JOIN tenants t ON t.key = w.tenant
             WHERE w.key = ?1 AND w.enabled = 1 AND w.deleted_at IS NULL AND t.deleted_at IS NULL",
        )?
        .query_row([webhook.0], |row| row.get(0))
        .optional()?;
    Ok(tenant.map(TenantKey))
}

macro_rules! due_page {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            due_columns!(),
            event_columns!(),
            " FROM deliveries d INDEXED BY deliveries_due CROSS JOIN events e ON e.seq = d.event_seq
              LEFT JOIN bodies b ON b.delivery_seq = d.seq
              WHERE d.webhook = ?1 AND d.urgency = ?2 AND d.state = 0 AND ",
            $condition,
            " ORDER BY d.due, d.seq LIMIT ?5"
        )
    };
}
/// Due at the very moment the page before ended at: one condition on (due, seq) would read all of
/// these again for every page, and a thousand events can be accepted in one moment.
const DUE_THEN: &str = due_page!("d.due = ?3 AND d.seq > ?4");
/// Due later than that.
const DUE_LATER: &str = due_page!("d.due > ?3 AND d.due <= ?4");

pub(super) fn due(conn: &Connection, query: &DueQuery) -> DbResult<DuePage> {
    let mut page = DuePage { rows: Vec::new(), more: false, next_due: None };
    if takes(conn, query.webhook)?.is_none() {
        return Ok(page);
    }
    let (now, mut reading) = (query.now.as_micros(), DueReading::default());
    let mut later_than = i64::MIN;
    if let Some((due, seq)) = query.after.filter(|(due, _)| *due <= query.now) {
        later_than = due.as_micros();
        reading.read(conn, query, DUE_THEN, (later_than, seq.0), &mut page)?;
    }
    if !page.more {
        reading.read(conn, query, DUE_LATER, (later_than, now), &mut page)?;
    }
    page.next_due = earliest(conn, query.webhook, query.urgency, now)?;
    Ok(page)
}

/// What a page has read so far.
#[derive(Default)]
struct DueReading {
    events: HashMap<i64, Arc<Event>>,
    bytes: usize,
}

impl DueReading {
    /// Adds rows to `page` until it is full, and says so when there are more.
    fn read(
        &mut self,
        conn: &Connection,
        query: &DueQuery,
        sql: &str,
        (from, to): (i64, i64),
        page: &mut DuePage,
    ) -> DbResult<()> {
        let limit = count(query.limit - page.rows.len()).saturating_add(1);
        let mut found = conn.prepare_cached(sql)?;
        let mut rows = found.query((query.webhook.0, rank(query.urgency), from, to, limit))?;
        while let Some(row) = rows.next()? {
            if page.rows.len() == query.limit || (self.bytes > query.max_bytes && !page.rows.is_empty()) {
                page.more = true;
                break;
            }
            let one = due_row(row, &mut self.events)?;
            self.bytes += one.event.data.len()
                + one.event.attributes.as_ref().map_or(0, Bytes::len)
                + one.body.as_ref().map_or(0, Bytes::len);
            page.rows.push(one);
        }
        Ok(())
    }
}

/// When the first pending delivery after `after` is due.
fn earliest(conn: &Connection, webhook: WebhookKey, urgency: Urgency, after: i64) -> DbResult<Option<Timestamp>> {
    let found: Option<i64> = conn
        .prepare_cached(
            "SELECT min(due) FROM deliveries INDEXED BY deliveries_due
             WHERE webhook = ?1 AND urgency = ?2 AND state = 0 AND due > ?3",
        )?
        .query_row((webhook.0, rank(urgency), after), |row| row.get(0))?;
    Ok(found.map(time))
}

pub(super) fn owed(conn: &Connection, after: Option<WebhookKey>, limit: usize) -> DbResult<Vec<Owed>> {
    let mut list = Vec::new();
    let mut last = after.map_or(i64::MIN, |key| key.0);
    // From webhook to webhook by the index: a backlog of millions costs what a backlog of one costs.
    let mut following = conn.prepare_cached(
        "SELECT webhook FROM deliveries INDEXED BY deliveries_due WHERE state = 0 AND webhook > ?1
         ORDER BY webhook LIMIT 1",
    )?;
    while list.len() < limit {
        let Some(next) = following.query_row([last], |row| row.get(0)).optional()? else { break };
        last = next;
        let webhook = WebhookKey(next);
        if let Some(tenant) = takes(conn, webhook)? {
            let mut by_rank = [None; 3];
            for urgency in Urgency::ALL {
                by_rank[urgency.rank()] = earliest(conn, webhook, urgency, i64::MIN)?;
            }
            list.push(Owed { webhook, tenant, earliest: by_rank });
        }
    }
    Ok(list)
}

/// Whether a delivery exists, and what of its webhook.
struct Standing {
    state: DeliveryState,
    enabled: bool,
    deleted: bool,
}

fn standing(conn: &Connection, tenant: TenantKey, seq: DeliverySeq) -> DbResult<Option<Standing>> {
    let found: Option<(i64, bool, bool)> = conn
        .prepare_cached(
            "SELECT d.state, w.enabled, w.deleted_at IS NOT NULL
             FROM deliveries d JOIN webhooks w ON w.key = d.webhook JOIN tenants t ON t.key = d.tenant
             WHERE d.seq = ?1 AND d.tenant = ?2 AND t.deleted_at IS NULL",
        )?
        .query_row((seq.0, tenant.0), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((number, enabled, deleted)) = found else { return Ok(None) };
    Ok(Some(Standing { state: state(number)?, enabled, deleted }))
}

pub(super) fn retry(tx: &Tx<'_>, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> DbResult<RetryOutcome> {
    match standing(tx.conn, tenant, seq)? {
        None => return Ok(RetryOutcome::NotFound),
        Some(Standing { deleted: true, .. }) => return Ok(RetryOutcome::WebhookDeleted),
        Some(Standing { enabled: false, .. }) => return Ok(RetryOutcome::WebhookDisabled),
        Some(_) => {}
    }
    tx.conn
        .prepare_cached(
            "UPDATE deliveries SET state = 0, reason = NULL, due = ?2, budget_start = attempts, manual = 1,
                 generation = generation + 1, updated_at = ?2 WHERE seq = ?1",
        )?
        .execute((seq.0, now.as_micros()))?;
    let mut found = tx.conn.prepare_cached(concat!(
        "SELECT ",
        due_columns!(),
        event_columns!(),
        " FROM deliveries d CROSS JOIN events e ON e.seq = d.event_seq
          LEFT JOIN bodies b ON b.delivery_seq = d.seq WHERE d.seq = ?1"
    ))?;
    let mut rows = found.query([seq.0])?;
    let row = rows.next()?.ok_or_else(|| DbError::corrupt("delivery", "its event is gone"))?;
    Ok(RetryOutcome::Reopened(Box::new(due_row(row, &mut HashMap::new())?)))
}

pub(super) fn cancel(tx: &Tx<'_>, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> DbResult<CancelOutcome> {
    match standing(tx.conn, tenant, seq)? {
        None => return Ok(CancelOutcome::NotFound),
        Some(standing) if standing.state.is_terminal() => return Ok(CancelOutcome::Terminal(standing.state)),
        Some(Standing { deleted: true, .. }) => return Ok(CancelOutcome::Terminal(DeliveryState::Cancelled)),
        Some(_) => {}
    }
    tx.conn
        .prepare_cached(
            "UPDATE deliveries SET state = ?2, reason = ?3, generation = generation + 1, updated_at = ?4
             WHERE seq = ?1",
        )?
        .execute((seq.0, state_number(DeliveryState::Cancelled), reason_number(Reason::ByUser), now.as_micros()))?;
    let row = row_by_seq(tx.conn, tenant, seq)?.ok_or_else(|| DbError::corrupt("delivery", "its event is gone"))?;
    Ok(CancelOutcome::Cancelled(Box::new(row)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema::{Place, migrate, open_writer};

    /// A page must cost the same however large the backlog is: the index gives the order.
    #[test]
    fn p10_due_deliveries_are_read_in_order_by_the_index() {
        let mut conn = open_writer(&Place::Memory, 1_000).unwrap();
        migrate(&mut conn).unwrap();
        for (sql, range) in [(DUE_THEN, "due=? AND rowid>?"), (DUE_LATER, "due>? AND due<?")] {
            let mut explained = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan: Vec<String> = explained
                .query_map((1, 1, 1, 1, 1), |row| row.get(3))
                .unwrap()
                .collect::<rusqlite::Result<_>>()
                .unwrap();
            let expected = format!("deliveries_due (webhook=? AND urgency=? AND {range})");
            assert!(plan[0].contains(&expected), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE") || step.starts_with("SCAN")), "{plan:?}");
        }
    }
}
