//! Deliveries: as shown, as owed, and what people do with them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::{Event, Urgency};
use gatepost_core::{DeliverySeq, EventSeq, TenantKey, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension, Row};

use super::batches;
use super::error::{DbError, DbResult};
use super::owe::grouping;
use super::queues::NOT_YET;
use super::row::{
    KeptAttempt, attempt, count, deleted_for, event, event_by_seq, event_columns, event_id, is_live, paused, rank,
    reason, state, subject, text, time, unverified, urgency, webhook_id,
};
use crate::{DeliveryDetail, DeliveryEvents, DeliveryRow, Due, DuePage, DueQuery, Owed};

/// A delivery as shown: what its webhook's state means for a pending one is derived here, so that
/// disabling or deleting a webhook with a large backlog writes one row.
pub(super) fn row_by_seq(conn: &Connection, tenant: TenantKey, seq: DeliverySeq) -> DbResult<Option<DeliveryRow>> {
    let mut found = conn.prepare_cached(concat!(
        "SELECT d.state, d.reason, d.attempts, ",
        unverified!(),
        ", d.created_at, d.updated_at, d.webhook, w.id, w.enabled, ",
        deleted_for!(),
        ", e.seq, e.accepted_at, e.ext_id, e.type, e.subject_type, e.subject_id,
               max(d.due, coalesce(w.paused_until, d.due)), d.grouping, ",
        paused!(),
        "
             FROM deliveries d CROSS JOIN events e ON e.seq = d.event_seq CROSS JOIN webhooks w ON w.key = d.webhook
             WHERE d.seq = ?1 AND d.tenant = ?2"
    ))?;
    let mut rows = found.query((seq.0, tenant.0))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut row = shown(row, seq)?;
    if row.batch {
        row.event_ids = batches::event_ids(conn, seq)?;
        row.event_type = BATCH.parse().map_err(|e| DbError::corrupt("event type", e))?;
        row.subject = None;
    }
    Ok(Some(row))
}

/// What a batch shows as its type: the word in its body (SETTLED, Webhooks).
const BATCH: &str = "batch";

fn shown(row: &Row<'_>, seq: DeliverySeq) -> DbResult<DeliveryRow> {
    let stored = state(row.get(0)?)?;
    let created_at = time(row.get(4)?);
    let changed = row.get::<_, Option<i64>>(5)?.map_or(created_at, time);
    let (enabled, unverified, paused): (bool, bool, bool) = (row.get(8)?, row.get(3)?, row.get(18)?);
    let deleted_at = row.get::<_, Option<i64>>(9)?.map(time);
    let (state, reason, next_attempt_at, updated_at) = match (stored, deleted_at) {
        (DeliveryState::Pending, Some(at)) => {
            (DeliveryState::Cancelled, Some(Reason::WebhookDeleted), None, changed.max(at))
        }
        (DeliveryState::Pending, None) if !enabled => {
            (DeliveryState::Held, Some(Reason::WebhookDisabled), None, changed)
        }
        (DeliveryState::Pending, None) if unverified => (DeliveryState::Held, Some(Reason::Unverified), None, changed),
        (DeliveryState::Pending, None) if paused => (DeliveryState::Held, Some(Reason::Paused), None, changed),
        // Not before the webhook's pause has passed either. Who waits for another delivery has no time.
        (DeliveryState::Pending, None) => {
            let next: i64 = row.get(16)?;
            (stored, None, Some(time(next)).filter(|_| next != NOT_YET), changed)
        }
        _ => (stored, reason(row.get(1)?)?, None, changed),
    };
    Ok(DeliveryRow {
        seq,
        webhook: WebhookKey(row.get(6)?),
        webhook_id: webhook_id(row, 7)?,
        batch: row.get::<_, i64>(17)? & grouping::BATCH != 0,
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
    let (event, revision, most): (i64, u32, i64) = conn
        .prepare_cached("SELECT event_seq, revision, urgency FROM deliveries WHERE seq = ?1")?
        .query_row([seq.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let events = if row.batch {
        batches::events(conn, seq)?
    } else {
        let event = event_by_seq(conn, EventSeq(event))?.ok_or_else(|| DbError::corrupt("event", "gone"))?;
        DeliveryEvents::One(Arc::new(event))
    };
    Ok(Some(DeliveryDetail {
        row,
        events,
        revision,
        urgency: urgency(most)?,
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
             ON d.seq >= e.first_delivery AND d.seq < e.first_delivery + e.delivery_count AND d.event_seq = e.seq
         WHERE e.seq = ?1 AND e.tenant = ?2
         UNION SELECT delivery_seq FROM delivery_links WHERE event_seq = ?1
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
         d.generation, d.grouping, b.body, "
    };
}
/// Where the event's columns begin after [`due_columns`].
const EVENT_AT: usize = 13;

/// Reads a delivery to be made; `known` shares what the page has read already.
fn due_row(conn: &Connection, row: &Row<'_>, known: &mut HashMap<i64, Arc<Event>>) -> DbResult<Due> {
    let seq = DeliverySeq(row.get(0)?);
    let bits: i64 = row.get(11)?;
    let event_seq: i64 = row.get(EVENT_AT)?;
    let events = match known.get(&event_seq) {
        _ if bits & grouping::BATCH != 0 => batches::events(conn, seq)?,
        Some(event) => DeliveryEvents::One(Arc::clone(event)),
        None => {
            let read = Arc::new(event(row, EVENT_AT)?);
            known.insert(event_seq, Arc::clone(&read));
            DeliveryEvents::One(read)
        }
    };
    let body = row.get_ref(12)?.as_blob_or_null().map_err(|e| DbError::corrupt("body", e))?;
    Ok(Due {
        seq,
        created_at: time(row.get(1)?),
        tenant: TenantKey(row.get(2)?),
        webhook: WebhookKey(row.get(3)?),
        revision: row.get(4)?,
        events,
        due: time(row.get(5)?),
        urgency: urgency(row.get(6)?)?,
        attempts: row.get(7)?,
        budget_start: row.get(8)?,
        manual: row.get(9)?,
        generation: row.get(10)?,
        ordered: bits & grouping::ORDERED != 0,
        body: body.map(Bytes::copy_from_slice),
    })
}

/// A webhook that takes deliveries.
struct Takes {
    tenant: TenantKey,
    /// It is deleted, and takes this one alone.
    only: Option<DeliverySeq>,
}

/// Whether a webhook takes deliveries.
fn takes(conn: &Connection, webhook: WebhookKey) -> DbResult<Option<Takes>> {
    let found: Option<(i64, Option<i64>)> = conn
        .prepare_cached(concat!(
            "SELECT w.tenant, iif(w.deleted_at IS NULL, NULL, w.farewell)
             FROM webhooks w JOIN tenants t ON t.key = w.tenant
             WHERE w.key = ?1 AND w.enabled = 1 AND (w.deleted_at IS NULL OR w.farewell IS NOT NULL)
               AND t.deleted_at IS NULL AND NOT ",
            paused!(),
            " AND NOT ",
            unverified!()
        ))?
        .query_row([webhook.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.map(|(tenant, only)| Takes { tenant: TenantKey(tenant), only: only.map(DeliverySeq) }))
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
/// The one delivery a deleted webhook takes, if it is due.
const DUE_FAREWELL: &str = due_page!("d.due <= ?3 AND d.seq = ?4");
/// Due later than that.
const DUE_LATER: &str = due_page!("d.due > ?3 AND d.due <= ?4");

/// A page of what is due, and the batches that end it because they must be closed before they are tried.
pub(super) fn due(conn: &Connection, query: &DueQuery) -> DbResult<(DuePage, Vec<DeliverySeq>)> {
    let mut page = DuePage { rows: Vec::new(), more: false, next_due: None };
    let Some(takes) = takes(conn, query.webhook)? else { return Ok((page, Vec::new())) };
    let (now, mut reading) = (query.now.as_micros(), DueReading::default());
    if let Some(only) = takes.only {
        reading.read(conn, query, DUE_FAREWELL, (now, only.0), &mut page)?;
        page.next_due = due_of(conn, only, query.urgency)?.filter(|due| due.as_micros() > now);
        return Ok((page, Vec::new()));
    }
    let mut later_than = i64::MIN;
    if let Some((due, seq)) = query.after.filter(|(due, _)| *due <= query.now) {
        later_than = due.as_micros();
        reading.read(conn, query, DUE_THEN, (later_than, seq.0), &mut page)?;
    }
    if !page.more {
        reading.read(conn, query, DUE_LATER, (later_than, now), &mut page)?;
    }
    page.next_due = earliest(conn, query.webhook, query.urgency, now)?;
    Ok((page, reading.open))
}

/// What a page has read so far.
#[derive(Default)]
struct DueReading {
    events: HashMap<i64, Arc<Event>>,
    bytes: usize,
    open: Vec<DeliverySeq>,
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
            let one = due_row(conn, row, &mut self.events)?;
            if one.events.single().is_none() && batches::is_open(conn, query.webhook, one.seq)? {
                self.open.push(one.seq);
                page.more = true;
                break;
            }
            let attributes = one.events.all().iter().filter_map(|event| event.attributes.as_ref());
            self.bytes += one.events.data_len()
                + attributes.map(Bytes::len).sum::<usize>()
                + one.body.as_ref().map_or(0, Bytes::len);
            page.rows.push(one);
        }
        Ok(())
    }
}

/// One delivery, as it is to be made.
pub(super) fn due_by_seq(conn: &Connection, seq: DeliverySeq) -> DbResult<Option<Due>> {
    let mut found = conn.prepare_cached(concat!(
        "SELECT ",
        due_columns!(),
        event_columns!(),
        " FROM deliveries d CROSS JOIN events e ON e.seq = d.event_seq
          LEFT JOIN bodies b ON b.delivery_seq = d.seq WHERE d.seq = ?1"
    ))?;
    let mut rows = found.query([seq.0])?;
    rows.next()?.map(|row| due_row(conn, row, &mut HashMap::new())).transpose()
}

/// When the first pending delivery after `after` is due.
fn earliest(conn: &Connection, webhook: WebhookKey, urgency: Urgency, after: i64) -> DbResult<Option<Timestamp>> {
    let found: Option<i64> = conn
        .prepare_cached(
            "SELECT min(due) FROM deliveries INDEXED BY deliveries_due
             WHERE webhook = ?1 AND urgency = ?2 AND state = 0 AND due > ?3 AND due < ?4",
        )?
        .query_row((webhook.0, rank(urgency), after, NOT_YET), |row| row.get(0))?;
    Ok(found.map(time))
}

/// When a delivery is due, if it is owed with this urgency.
fn due_of(conn: &Connection, seq: DeliverySeq, urgency: Urgency) -> DbResult<Option<Timestamp>> {
    let found: Option<i64> = conn
        .prepare_cached("SELECT due FROM deliveries WHERE seq = ?1 AND state = 0 AND urgency = ?2")?
        .query_row((seq.0, rank(urgency)), |row| row.get(0))
        .optional()?;
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
        if let Some(takes) = takes(conn, webhook)? {
            let mut by_rank = [None; 3];
            for urgency in Urgency::ALL {
                by_rank[urgency.rank()] = match takes.only {
                    Some(only) => due_of(conn, only, urgency)?,
                    None => earliest(conn, webhook, urgency, i64::MIN)?,
                };
            }
            // A deleted webhook's other deliveries are cancelled, written down or not.
            if by_rank.iter().any(Option::is_some) {
                list.push(Owed { webhook, tenant: takes.tenant, earliest: by_rank });
            }
        }
    }
    Ok(list)
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
