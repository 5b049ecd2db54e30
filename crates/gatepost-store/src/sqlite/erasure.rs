//! Erasing what is kept about one person, so that nothing of it is left in the files.
//!
//! What remains is the bare record: that something of a type happened at a time, to whom it was sent,
//! when, and with what status. The person's id is replaced by a keyed hash, so that the record names
//! nobody and whoever knows the id can still prove what was told about them.

use std::sync::Arc;

use gatepost_core::delivery::{AttemptRecord, DeliveryState, Reason};
use gatepost_core::grouping::Match;
use gatepost_core::{DeliverySeq, EventSeq, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension};

use super::deliveries::attempts;
use super::error::DbResult;
use super::owe::{Owing, grouping, insert_delivery};
use super::row::{attempt_bytes, count, event_by_seq, reason_number, state, state_number};
use super::writer::Tx;
use super::{jobs, making, queues, registry};
use crate::{Erased, Erasure, Job, JobKey, JobState, Settlement, Stage, Task, Wake};

/// `format` of an event whose payload was erased.
pub(super) const ERASED: i64 = 255;

/// Deliveries of one event that are looked at in one step: an event may have very many.
const AT_ONCE: usize = 250;

/// Whether an event's payload was erased.
pub(super) fn is_erased(conn: &Connection, event: EventSeq) -> DbResult<bool> {
    let format: Option<i64> = conn
        .prepare_cached("SELECT format FROM events WHERE seq = ?1")?
        .query_row([event.0], |row| row.get(0))
        .optional()?;
    Ok(format == Some(ERASED))
}

/// Whether something that a delivery is of was erased: it can never be sent (again).
pub(super) fn touches(conn: &Connection, seq: DeliverySeq) -> DbResult<bool> {
    Ok(conn
        .prepare_cached(
            "SELECT 1 FROM deliveries d CROSS JOIN events e ON e.seq = d.event_seq
             WHERE d.seq = ?1 AND e.format = ?2
             UNION ALL SELECT 1 FROM batch_events b CROSS JOIN events e ON e.seq = b.event_seq
             WHERE b.delivery_seq = ?1 AND e.format = ?2",
        )?
        .exists((seq.0, ERASED))?)
}

/// An attempt without what was answered.
pub(super) fn bare(record: AttemptRecord) -> AttemptRecord {
    AttemptRecord { response: None, ..record }
}

/// An outcome without what was sent and answered.
pub(super) fn bare_settlement(settlement: &Settlement) -> Settlement {
    Settlement { attempt: bare((*settlement.attempt).clone()).into(), freeze: None, ..settlement.clone() }
}

pub(super) fn step(tx: &mut Tx<'_>, key: JobKey, now: Timestamp, limit: usize) -> DbResult<Erased> {
    let mut step = Erased { job: None, cancelled: Vec::new(), dues: Vec::new(), wakes: Vec::new() };
    let Some(mut job) = jobs::open_by_key(tx.conn, key)? else { return Ok(step) };
    let Task::Erase(erasure) = job.task.clone() else { return Ok(step) };
    let Some(subject) = erasure.subject.clone() else {
        step.job = Some(job);
        return Ok(step);
    };
    job.state = JobState::Running;
    match job.stage {
        Stage::Counting => measure(tx.conn, &mut job, &erasure, &subject)?,
        Stage::Working => {
            let found = about(tx.conn, &job, &erasure, &subject, limit)?;
            let (mut erasure, mut whole) = (erasure, true);
            for seq in &found.events {
                whole = forget(tx, &job, *seq, &subject, &mut erasure, now, &mut step)?;
                if !whole {
                    break;
                }
                job.done += 1;
                job.position = Some(*seq);
            }
            job.task = Task::Erase(erasure);
            if whole {
                job.position = Some(found.scanned_to);
            }
            if whole && found.end {
                job.stage = Stage::Clearing;
                job.done = job.total;
                jobs::forget_subject(&mut job);
            }
        }
        Stage::Clearing => {}
    }
    jobs::save(tx.conn, &mut job, now)?;
    step.job = Some(job);
    Ok(step)
}

/// How much there is to erase: what was accepted before this moment.
fn measure(conn: &Connection, job: &mut Job, erasure: &Erasure, subject: &str) -> DbResult<()> {
    let highest: Option<i64> = conn.prepare_cached("SELECT max(seq) FROM events")?.query_row([], |row| row.get(0))?;
    let upto = highest.unwrap_or(0);
    let total: i64 = match &erasure.subject_type {
        None => conn
            .prepare_cached(
                "SELECT count(*) FROM events INDEXED BY events_by_subject
                 WHERE tenant = ?1 AND subject_id = ?2 AND seq <= ?3",
            )?
            .query_row((job.tenant.0, subject, upto), |row| row.get(0))?,
        Some(kind) => conn
            .prepare_cached(
                "SELECT count(*) FROM events INDEXED BY events_by_subject
                 WHERE tenant = ?1 AND subject_id = ?2 AND seq <= ?3 AND subject_type = ?4",
            )?
            .query_row((job.tenant.0, subject, upto, kind), |row| row.get(0))?,
    };
    job.total = u64::try_from(total).unwrap_or(0);
    job.position = Some(EventSeq(0));
    job.upto = Some(EventSeq(upto));
    job.stage = Stage::Working;
    Ok(())
}

/// A stretch of the events about a person.
struct About {
    events: Vec<EventSeq>,
    scanned_to: EventSeq,
    end: bool,
}

fn about(conn: &Connection, job: &Job, erasure: &Erasure, subject: &str, limit: usize) -> DbResult<About> {
    let all = job.upto.map_or(0, |seq| seq.0);
    // What is not made yet could not be cancelled: the rest waits until it is.
    let unmade = making::first_event(conn, job.tenant)?;
    let upto = unmade.map_or(all, |unmade| all.min(unmade.0 - 1));
    let position = job.position.map_or(0, |seq| seq.0);
    let mut found = conn.prepare_cached(
        "SELECT seq, subject_type FROM events INDEXED BY events_by_subject
         WHERE tenant = ?1 AND subject_id = ?2 AND seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?5",
    )?;
    let mut rows = found.query((job.tenant.0, subject, position, upto, count(limit)))?;
    let mut about = About { events: Vec::new(), scanned_to: EventSeq(position), end: true };
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        looked_at += 1;
        about.scanned_to = EventSeq(row.get(0)?);
        let kind: Option<String> = row.get(1)?;
        if erasure.subject_type.is_none() || erasure.subject_type == kind {
            about.events.push(about.scanned_to);
        }
    }
    about.end = looked_at < limit && upto == all;
    Ok(about)
}

/// A delivery of an event.
struct Of {
    seq: DeliverySeq,
    webhook: WebhookKey,
    state: DeliveryState,
    batch: bool,
}

/// The next deliveries of an event after `within`: its own, then those it is linked to, batches it went
/// into included.
fn deliveries_of(conn: &Connection, event: EventSeq, within: Option<(bool, DeliverySeq)>) -> DbResult<Vec<(bool, Of)>> {
    let (linked, after) = within.map_or((false, i64::MIN), |(linked, seq)| (linked, seq.0));
    let mut list = Vec::new();
    if !linked {
        let own = "SELECT d.seq, d.webhook, d.state, d.grouping FROM events e CROSS JOIN deliveries d
                       ON d.seq >= e.first_delivery AND d.seq < e.first_delivery + e.delivery_count
                   WHERE e.seq = ?1 AND d.event_seq = ?1 AND d.seq > ?2 ORDER BY d.seq LIMIT ?3";
        list.extend(some_of(conn, own, (event, after), AT_ONCE)?.into_iter().map(|of| (false, of)));
    }
    if list.len() < AT_ONCE {
        let links = "SELECT d.seq, d.webhook, d.state, d.grouping
                     FROM delivery_links l CROSS JOIN deliveries d ON d.seq = l.delivery_seq
                     WHERE l.event_seq = ?1 AND l.delivery_seq > ?2 ORDER BY l.delivery_seq LIMIT ?3";
        let after = if linked { after } else { i64::MIN };
        list.extend(some_of(conn, links, (event, after), AT_ONCE - list.len())?.into_iter().map(|of| (true, of)));
    }
    Ok(list)
}

fn some_of(conn: &Connection, sql: &str, (event, after): (EventSeq, i64), limit: usize) -> DbResult<Vec<Of>> {
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((event.0, after, count(limit)))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(Of {
            seq: DeliverySeq(row.get(0)?),
            webhook: WebhookKey(row.get(1)?),
            state: state(row.get(2)?)?,
            batch: row.get::<_, i64>(3)? & grouping::BATCH != 0,
        });
    }
    Ok(list)
}

/// Whether something of an event is owed: of its own deliveries, what was reopened by hand meanwhile.
fn is_owed(conn: &Connection, event: EventSeq) -> DbResult<bool> {
    Ok(conn
        .prepare_cached(
            "SELECT 1 FROM events e CROSS JOIN deliveries d
                 ON d.seq >= e.first_delivery AND d.seq < e.first_delivery + e.delivery_count
             WHERE e.seq = ?1 AND d.event_seq = ?1 AND d.state = 0
             UNION ALL SELECT 1 FROM delivery_links l CROSS JOIN deliveries d ON d.seq = l.delivery_seq
             WHERE l.event_seq = ?1 AND d.state = 0",
        )?
        .exists([event.0])?)
}

/// Erases one event and what was sent and answered about it, or the next part of very many deliveries.
/// Whether that was all.
fn forget(
    tx: &mut Tx<'_>,
    job: &Job,
    event: EventSeq,
    subject: &str,
    erasure: &mut Erasure,
    now: Timestamp,
    step: &mut Erased,
) -> DbResult<bool> {
    let deliveries = deliveries_of(tx.conn, event, erasure.within)?;
    for (_, delivery) in &deliveries {
        if delivery.state == DeliveryState::Pending {
            cancel(tx, delivery, now, &mut step.wakes)?;
            step.cancelled.push((delivery.webhook, delivery.seq));
            if delivery.batch {
                spare_the_others(tx, job, delivery, subject, erasure, now, step)?;
            }
        }
        bare_attempts(tx.conn, delivery.seq)?;
        tx.conn.prepare_cached("DELETE FROM bodies WHERE delivery_seq = ?1")?.execute([delivery.seq.0])?;
    }
    if let Some((linked, last)) = deliveries.last().filter(|_| deliveries.len() == AT_ONCE) {
        erasure.within = Some((*linked, last.seq));
        return Ok(false);
    }
    if erasure.within.take().is_some() && is_owed(tx.conn, event)? {
        // Reopened between two steps: once more from the beginning.
        return Ok(false);
    }
    tx.conn
        .prepare_cached("UPDATE events SET subject_id = ?2, format = ?3, attributes = NULL, data = x'' WHERE seq = ?1")?
        .execute((event.0, &erasure.alias, ERASED))?;
    Ok(true)
}

/// What was not sent yet never will be.
fn cancel(tx: &Tx<'_>, delivery: &Of, now: Timestamp, wakes: &mut Vec<Wake>) -> DbResult<()> {
    let conn = tx.conn;
    conn.prepare_cached("DELETE FROM open_batches WHERE webhook = ?1 AND delivery_seq = ?2")?
        .execute((delivery.webhook.0, delivery.seq.0))?;
    conn.prepare_cached(
        "UPDATE deliveries SET state = ?2, reason = ?3, generation = generation + 1,
             updated_at = max(coalesce(updated_at, created_at), ?4) WHERE seq = ?1",
    )?
    .execute((
        delivery.seq.0,
        state_number(DeliveryState::Cancelled),
        reason_number(Reason::ByUser),
        now.as_micros(),
    ))?;
    queues::leave(conn, delivery.seq, tx.due(now), wakes)
}

/// Other people's events of a cancelled batch are owed as before: by a new one.
fn spare_the_others(
    tx: &mut Tx<'_>,
    job: &Job,
    batch: &Of,
    subject: &str,
    erasure: &Erasure,
    now: Timestamp,
    step: &mut Erased,
) -> DbResult<()> {
    let Some(webhook) = registry::by_key(tx.conn, batch.webhook)?.filter(|w| w.deleted_at.is_none()) else {
        return Ok(());
    };
    let others: Vec<i64> = {
        let mut found = tx.conn.prepare_cached(
            "SELECT b.event_seq FROM batch_events b CROSS JOIN events e ON e.seq = b.event_seq
             WHERE b.delivery_seq = ?1 AND e.format <> ?2
               AND NOT (coalesce(e.subject_id = ?3, 0) AND (?4 IS NULL OR coalesce(e.subject_type = ?4, 0))
                        AND e.seq <= ?5)
             ORDER BY b.position",
        )?;
        let upto = job.upto.map_or(i64::MAX, |seq| seq.0);
        let kind = erasure.subject_type.as_deref();
        let rows = found.query_map((batch.seq.0, ERASED, subject, kind, upto), |row| row.get(0))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    for other in others {
        let Some(event) = event_by_seq(tx.conn, EventSeq(other))? else { continue };
        let event = Arc::new(event);
        let owing = Owing {
            event: &event,
            to: Match::of(&webhook),
            urgency: event.urgency,
            later: true,
            now,
            due: tx.due(now),
            number: None,
        };
        let inserted = insert_delivery(tx, &owing, &mut step.wakes)?;
        step.dues.extend(inserted.due);
    }
    Ok(())
}

/// Removes what was answered from all attempts of a delivery. The first one may stand in the
/// delivery's own row.
fn bare_attempts(conn: &Connection, seq: DeliverySeq) -> DbResult<()> {
    let folded: bool = conn
        .prepare_cached("SELECT first_attempt IS NOT NULL FROM deliveries WHERE seq = ?1")?
        .query_row([seq.0], |row| row.get(0))?;
    let kept = attempts(conn, seq)?;
    for (index, one) in kept.into_iter().enumerate() {
        if one.record.response.is_none() {
            continue;
        }
        let number = one.record.number;
        let bytes = attempt_bytes(one.generation, one.given, &bare(one.record))?;
        let sql = if folded && index == 0 {
            "UPDATE deliveries SET first_attempt = ?2 WHERE seq = ?1 AND ?3 = ?3"
        } else {
            "UPDATE attempts SET record = ?2 WHERE delivery_seq = ?1 AND number = ?3"
        };
        conn.prepare_cached(sql)?.execute((seq.0, bytes, number))?;
    }
    Ok(())
}
