//! Batches: events of one webhook that go out in one delivery (DESIGN 7).
//!
//! A webhook has at most one open batch. Events join it inside their publish's commit. It is closed,
//! for good, by the event that fills it, by an urgent one, by one that was matched by another revision
//! of the webhook, or when its age has come: then whoever wants to try it closes it first
//! ([`close_due`]). What is in a closed batch never changes, so every attempt sends the same bytes.

use std::sync::Arc;

use gatepost_core::event::{Event, EventType, Urgency};
use gatepost_core::webhook::Batch;
use gatepost_core::{DeliverySeq, EventId, EventSeq, TenantKey, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::{DbError, DbResult};
use super::owe::{self, Inserted, Owing, grouping, link};
use super::queues::{self, NOT_YET};
use super::row::{count, event, event_columns, event_id, rank, time, urgency};
use super::writer::Tx;
use crate::{DeliveryEvents, Wake};

/// A batch that still takes events.
struct Open {
    seq: DeliverySeq,
    revision: u32,
    closes_at: i64,
    events: u32,
    bytes: i64,
}

impl Open {
    fn of(conn: &Connection, webhook: WebhookKey) -> DbResult<Option<Open>> {
        let read = |row: &Row<'_>| {
            Ok(Open {
                seq: DeliverySeq(row.get(0)?),
                revision: row.get(1)?,
                closes_at: row.get(2)?,
                events: row.get(3)?,
                bytes: row.get(4)?,
            })
        };
        Ok(conn
            .prepare_cached(
                "SELECT delivery_seq, revision, closes_at, events, bytes FROM open_batches WHERE webhook = ?1",
            )?
            .query_row([webhook.0], read)
            .optional()?)
    }

    /// Whether another event with so much data may join.
    fn takes(&self, owing: &Owing<'_>, batch: Batch, bytes: i64) -> bool {
        self.revision == owing.to.revision
            && owing.due.as_micros() < self.closes_at
            && self.events < batch.max_events
            && self.bytes.saturating_add(bytes) <= i64::from(batch.max_bytes)
    }

    fn is_full(&self, batch: Batch) -> bool {
        self.events >= batch.max_events || self.bytes >= i64::from(batch.max_bytes)
    }
}

/// Lets an event join the webhook's open batch, or begins a new one with it.
pub(super) fn join(tx: &mut Tx<'_>, owing: &Owing<'_>, batch: Batch, wakes: &mut Vec<Wake>) -> DbResult<Inserted> {
    let bytes = count(owing.event.data.len());
    let mut open = Open::of(tx.conn, owing.to.webhook)?;
    if let Some(there) = &open {
        if owing.later && has(tx.conn, there.seq, owing.event.seq)? {
            return Ok(Inserted { seq: there.seq, made: false, due: None });
        }
        if !there.takes(owing, batch, bytes) {
            close(tx.conn, owing.to.webhook, there.seq, owing.due, wakes)?;
            open = None;
        }
    }
    let made = open.is_none();
    let mut open = match open {
        Some(open) => open,
        None => begin(tx, owing, batch, wakes)?,
    };
    tx.conn
        .prepare_cached("INSERT INTO batch_events(delivery_seq, position, event_seq) VALUES (?1, ?2, ?3)")?
        .execute((open.seq.0, open.events, owing.event.seq.0))?;
    open.events += 1;
    open.bytes += bytes;
    if owing.later || !made {
        link(tx.conn, owing.event, open.seq)?;
    }
    if !made {
        hurry(tx.conn, open.seq, owing, wakes)?;
    }
    if open.is_full(batch) || owing.urgency == Urgency::Urgent || open.closes_at <= owing.due.as_micros() {
        close(tx.conn, owing.to.webhook, open.seq, owing.due, wakes)?;
    } else {
        tx.conn.prepare_cached("UPDATE open_batches SET events = ?2, bytes = ?3 WHERE webhook = ?1")?.execute((
            owing.to.webhook.0,
            open.events,
            open.bytes,
        ))?;
    }
    Ok(Inserted { seq: open.seq, made, due: None })
}

/// Begins a batch: a delivery that is due when the batch's age has come.
fn begin(tx: &mut Tx<'_>, owing: &Owing<'_>, batch: Batch, wakes: &mut Vec<Wake>) -> DbResult<Open> {
    let wait = std::time::Duration::from_millis(u64::from(batch.max_wait_ms));
    let closes_at = owing.due.saturating_add(wait);
    let queue = owing.to.grouping.queue(None);
    let (due, bits) = match queue {
        Some(_) => (NOT_YET, grouping::BATCH | grouping::ORDERED),
        None => (closes_at.as_micros(), grouping::BATCH),
    };
    let seq = owe::add(tx, owing, due, bits)?;
    tx.conn
        .prepare_cached(
            "INSERT INTO open_batches(webhook, delivery_seq, revision, closes_at, events, bytes)
             VALUES (?1, ?2, ?3, ?4, 0, 0)",
        )?
        .execute((owing.to.webhook.0, seq.0, owing.to.revision, closes_at.as_micros()))?;
    match queue {
        Some(queue) => {
            queues::join(tx.conn, owing.to.webhook, queue, seq, owing.urgency)?;
            queues::refresh(tx.conn, owing.to.webhook, queue, owing.due, wakes)?;
        }
        None => wakes.push(Wake {
            tenant: owing.event.tenant,
            webhook: owing.to.webhook,
            seq,
            at: Some((owing.urgency, closes_at)),
        }),
    }
    Ok(Open { seq, revision: owing.to.revision, closes_at: closes_at.as_micros(), events: 0, bytes: 0 })
}

fn has(conn: &Connection, batch: DeliverySeq, event: EventSeq) -> DbResult<bool> {
    let first = "SELECT 1 FROM deliveries WHERE seq = ?1 AND event_seq = ?2
                 UNION ALL SELECT 1 FROM delivery_links WHERE delivery_seq = ?1 AND event_seq = ?2";
    Ok(conn.prepare_cached(first)?.exists((batch.0, event.0))?)
}

/// A batch is as urgent as the most urgent of its events.
fn hurry(conn: &Connection, seq: DeliverySeq, owing: &Owing<'_>, wakes: &mut Vec<Wake>) -> DbResult<()> {
    if owing.to.grouping.queue(None).is_some() {
        return queues::hurry(conn, seq, owing.urgency, owing.due, wakes);
    }
    let changed: Option<i64> = conn
        .prepare_cached("UPDATE deliveries SET urgency = ?2 WHERE seq = ?1 AND urgency > ?2 RETURNING due")?
        .query_row((seq.0, rank(owing.urgency)), |row| row.get(0))
        .optional()?;
    if let Some(due) = changed {
        let (tenant, webhook) = (owing.event.tenant, owing.to.webhook);
        wakes.push(Wake { tenant, webhook, seq, at: Some((owing.urgency, time(due))) });
    }
    Ok(())
}

/// Closes a batch, if it is open: it takes no more events, and is due now unless it waits for others.
pub(super) fn close(
    conn: &Connection,
    webhook: WebhookKey,
    seq: DeliverySeq,
    now: Timestamp,
    wakes: &mut Vec<Wake>,
) -> DbResult<()> {
    let closed = conn
        .prepare_cached("DELETE FROM open_batches WHERE webhook = ?1 AND delivery_seq = ?2")?
        .execute((webhook.0, seq.0))?;
    if closed == 0 {
        return Ok(());
    }
    let due: Option<(i64, i64)> = conn
        .prepare_cached(
            "UPDATE deliveries SET due = min(due, ?2) WHERE seq = ?1 AND due < ?3 RETURNING tenant, urgency",
        )?
        .query_row((seq.0, now.as_micros(), NOT_YET), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((tenant, most)) = due {
        let at = Some((urgency(most)?, now));
        wakes.push(Wake { tenant: TenantKey(tenant), webhook, seq, at });
    }
    Ok(())
}

/// Whether a batch still takes events.
pub(super) fn is_open(conn: &Connection, webhook: WebhookKey, seq: DeliverySeq) -> DbResult<bool> {
    Ok(conn
        .prepare_cached("SELECT 1 FROM open_batches WHERE webhook = ?1 AND delivery_seq = ?2")?
        .exists((webhook.0, seq.0))?)
}

/// Closes batches of a webhook whose age has come, so that they can be tried. Their due times stay:
/// they are what the reader goes by.
pub(super) fn close_due(tx: &Tx<'_>, webhook: WebhookKey, batches: &[DeliverySeq]) -> DbResult<()> {
    let mut close = tx.conn.prepare_cached("DELETE FROM open_batches WHERE webhook = ?1 AND delivery_seq = ?2")?;
    for seq in batches {
        close.execute((webhook.0, seq.0))?;
    }
    Ok(())
}

/// The events of a batch, in order.
pub(super) fn events(conn: &Connection, seq: DeliverySeq) -> DbResult<DeliveryEvents> {
    let mut found = conn.prepare_cached(concat!(
        "SELECT ",
        event_columns!(),
        " FROM batch_events b CROSS JOIN events e ON e.seq = b.event_seq
          WHERE b.delivery_seq = ?1 ORDER BY b.position"
    ))?;
    let mut rows = found.query([seq.0])?;
    let mut list: Vec<Arc<Event>> = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(Arc::new(event(row, 0)?));
    }
    DeliveryEvents::batch(list).ok_or_else(|| DbError::corrupt("batch", "without events"))
}

/// The ids of the events of a batch, in order.
pub(super) fn event_ids(conn: &Connection, seq: DeliverySeq) -> DbResult<Vec<EventId>> {
    let mut found = conn.prepare_cached(
        "SELECT e.seq, e.accepted_at, e.ext_id FROM batch_events b CROSS JOIN events e ON e.seq = b.event_seq
         WHERE b.delivery_seq = ?1 ORDER BY b.position",
    )?;
    let mut rows = found.query([seq.0])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(event_id(row, 2, time(row.get(1)?), EventSeq(row.get(0)?))?);
    }
    Ok(list)
}

/// Whether one of a batch's events is about this subject.
pub(super) fn is_about(
    conn: &Connection,
    seq: DeliverySeq,
    subject: Option<&str>,
    subject_type: Option<&str>,
    event_type: Option<&EventType>,
) -> DbResult<bool> {
    Ok(conn
        .prepare_cached(
            "SELECT 1 FROM batch_events b CROSS JOIN events e ON e.seq = b.event_seq
             WHERE b.delivery_seq = ?1 AND (?2 IS NULL OR e.subject_id = ?2) AND (?3 IS NULL OR e.subject_type = ?3)
               AND (?4 IS NULL OR e.type = ?4)",
        )?
        .exists((seq.0, subject, subject_type, event_type.map(EventType::as_str)))?)
}
