//! Queues: deliveries of one webhook that go out one after the other (DESIGN 4.4).
//!
//! A delivery has a place as long as it is owed, whatever its webhook's state. Only the first of a
//! queue has a due time, so the lane needs to know nothing of queues: nothing else is ever handed
//! out. Whoever ends, reopens or moves a delivery says so here, in the same transaction.

use gatepost_core::event::Urgency;
use gatepost_core::grouping::QueueName;
use gatepost_core::{DeliverySeq, TenantKey, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::DbResult;
use super::row::{rank, time, urgency};
use crate::Wake;

/// The due time of a delivery that waits for another one.
pub(super) const NOT_YET: i64 = i64::MAX;

/// Puts a delivery, whose due time is [`NOT_YET`], at the end of a queue. [`refresh`] must follow.
pub(super) fn join(
    conn: &Connection,
    webhook: WebhookKey,
    queue: QueueName,
    seq: DeliverySeq,
    urgency: Urgency,
) -> DbResult<()> {
    conn.prepare_cached(
        "INSERT INTO queue_places(webhook, queue, place, delivery_seq, urgency)
         VALUES (?1, ?2, (SELECT coalesce(max(place), 0) + 1 FROM queue_places WHERE webhook = ?1 AND queue = ?2),
                 ?3, ?4)",
    )?
    .execute((webhook.0, queue, seq.0, rank(urgency)))?;
    Ok(())
}

/// The first of a queue.
struct First {
    seq: DeliverySeq,
    tenant: TenantKey,
    due: i64,
    urgency: i64,
    /// When it closes, if it is a batch that still takes events.
    closes_at: Option<i64>,
}

fn first(conn: &Connection, webhook: WebhookKey, queue: QueueName) -> DbResult<Option<First>> {
    let read = |row: &Row<'_>| {
        Ok(First {
            seq: DeliverySeq(row.get(0)?),
            tenant: TenantKey(row.get(1)?),
            due: row.get(2)?,
            urgency: row.get(3)?,
            closes_at: row.get(4)?,
        })
    };
    Ok(conn
        .prepare_cached(
            "SELECT d.seq, d.tenant, d.due, d.urgency, b.closes_at
             FROM queue_places q CROSS JOIN deliveries d ON d.seq = q.delivery_seq
             LEFT JOIN open_batches b ON b.webhook = q.webhook AND b.delivery_seq = q.delivery_seq
             WHERE q.webhook = ?1 AND q.queue = ?2 ORDER BY q.place LIMIT 1",
        )?
        .query_row((webhook.0, queue), read)
        .optional()?)
}

/// Makes the first of a queue due, and as urgent as the most urgent behind it. If either changed, or it
/// is a batch that may have closed, it is told in `wakes`.
pub(super) fn refresh(
    conn: &Connection,
    webhook: WebhookKey,
    queue: QueueName,
    now: Timestamp,
    wakes: &mut Vec<Wake>,
) -> DbResult<()> {
    let Some(first) = first(conn, webhook, queue)? else { return Ok(()) };
    let most: i64 = conn
        .prepare_cached("SELECT min(urgency) FROM queue_places WHERE webhook = ?1 AND queue = ?2")?
        .query_row((webhook.0, queue), |row| row.get(0))?;
    let due = if first.due == NOT_YET { first.closes_at.unwrap_or(now.as_micros()) } else { first.due };
    if (due, most) == (first.due, first.urgency) {
        return Ok(());
    }
    conn.prepare_cached("UPDATE deliveries SET due = ?2, urgency = ?3 WHERE seq = ?1")?.execute((
        first.seq.0,
        due,
        most,
    ))?;
    wakes.push(Wake { tenant: first.tenant, webhook, seq: first.seq, at: Some((urgency(most)?, time(due))) });
    Ok(())
}

/// A delivery gives up its place, because it has come to its end or is to take another one: the next
/// one of its queue is due. Nothing happens to one that stands in none.
///
/// Every transaction that ends deliveries one by one must call this for those with the bit
/// [`super::owe::grouping::ORDERED`] (or simply for all).
pub(super) fn leave(conn: &Connection, seq: DeliverySeq, now: Timestamp, wakes: &mut Vec<Wake>) -> DbResult<()> {
    let found: Option<(i64, QueueName, i64, i64)> = conn
        .prepare_cached("SELECT webhook, queue, place, urgency FROM queue_places WHERE delivery_seq = ?1")?
        .query_row([seq.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((webhook, queue, place, own)) = found else { return Ok(()) };
    conn.prepare_cached("DELETE FROM queue_places WHERE webhook = ?1 AND queue = ?2 AND place = ?3")?
        .execute((webhook, queue, place))?;
    // What hurried behind it hurries it no more.
    conn.prepare_cached("UPDATE deliveries SET urgency = ?2 WHERE seq = ?1 AND urgency <> ?2")?
        .execute((seq.0, own))?;
    refresh(conn, WebhookKey(webhook), queue, now, wakes)
}

/// A delivery may have become more urgent: so may its queue.
pub(super) fn hurry(
    conn: &Connection,
    seq: DeliverySeq,
    urgency: Urgency,
    now: Timestamp,
    wakes: &mut Vec<Wake>,
) -> DbResult<()> {
    let found: Option<(i64, QueueName)> = conn
        .prepare_cached(
            "UPDATE queue_places SET urgency = min(urgency, ?2) WHERE delivery_seq = ?1 RETURNING webhook, queue",
        )?
        .query_row((seq.0, rank(urgency)), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match found {
        Some((webhook, queue)) => refresh(conn, WebhookKey(webhook), queue, now, wakes),
        None => Ok(()),
    }
}
