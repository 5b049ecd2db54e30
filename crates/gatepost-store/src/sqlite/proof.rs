//! Proof: who was told what about a person, when, and with what answer.

use gatepost_core::delivery::AttemptRecord;
use gatepost_core::event::EventType;
use gatepost_core::{DeliverySeq, EventId, EventSeq, TenantKey, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension};

use super::deliveries::{attempts, row_by_seq};
use super::erasure::{ERASED, bare};
use super::error::{DbError, DbResult};
use super::row::{config, count, event_id, is_live, text, time};
use crate::{DeliveryRow, Told, ToldPage, ToldQuery};

/// Events looked at for one page, at most: most have deliveries.
const SCAN: usize = 1_000;

/// An event about the person, without its payload.
struct About {
    seq: EventSeq,
    id: EventId,
    event_type: EventType,
    timestamp: Timestamp,
    accepted_at: Timestamp,
    erased: bool,
}

pub(super) fn told(conn: &Connection, query: &ToldQuery) -> DbResult<ToldPage> {
    let mut page = ToldPage { rows: Vec::new(), next: None };
    if !is_live(conn, query.tenant)? {
        return Ok(page);
    }
    // Most pages are full after a few events; only where they are not, it is worth reading more.
    for most in [query.limit.saturating_add(1).min(SCAN), SCAN] {
        page = of_events(conn, query, most)?;
        if page.next.is_none() || page.rows.len() >= query.limit {
            break;
        }
    }
    Ok(page)
}

/// A page from at most so many events.
fn of_events(conn: &Connection, query: &ToldQuery, most: usize) -> DbResult<ToldPage> {
    let mut page = ToldPage { rows: Vec::new(), next: None };
    let events = events(conn, query, most)?;
    for event in &events {
        let below = match query.after {
            Some((seq, delivery)) if seq == event.seq => delivery.0,
            _ => i64::MAX,
        };
        let wanted = query.limit - page.rows.len();
        let deliveries = deliveries(conn, event.seq, below, wanted + 1)?;
        for seq in deliveries.iter().take(wanted) {
            if let Some(row) = row_by_seq(conn, query.tenant, DeliverySeq(*seq))? {
                page.rows.push(one(conn, event, row)?);
            }
        }
        if deliveries.len() > wanted {
            page.next = deliveries.get(wanted.wrapping_sub(1)).map(|seq| (event.seq, DeliverySeq(*seq)));
            if wanted == 0 {
                page.next = page.rows.last().map(|told| (told.event, told.delivery.seq));
            }
            return Ok(page);
        }
    }
    if events.len() == most {
        // Deliveries have numbers from 1 on: below 0 there are none.
        page.next = events.last().map(|event| (event.seq, DeliverySeq(0)));
    }
    Ok(page)
}

/// The next events about the person, newest first: under their id, and under what stands for it.
fn events(conn: &Connection, query: &ToldQuery, most: usize) -> DbResult<Vec<About>> {
    // One statement each, both in the index's order; sorting a few rows here keeps each of them cheap.
    let mut list = Vec::new();
    for subject in [&query.subject, &query.alias] {
        let mut found = conn.prepare_cached(
            "SELECT e.seq, e.ext_id, e.type, e.ts, e.accepted_at, e.format
             FROM events e INDEXED BY events_by_subject
             WHERE e.tenant = ?1 AND e.subject_id = ?2 AND e.seq <= ?3 AND (?4 IS NULL OR e.subject_type = ?4)
             ORDER BY e.seq DESC LIMIT ?5",
        )?;
        let from = query.after.map_or(i64::MAX, |(seq, _)| seq.0);
        let mut rows = found.query((query.tenant.0, subject, from, &query.subject_type, count(most)))?;
        while let Some(row) = rows.next()? {
            let seq = EventSeq(row.get(0)?);
            let accepted_at = time(row.get(4)?);
            list.push(About {
                seq,
                id: event_id(row, 1, accepted_at, seq)?,
                event_type: text(row, 2)?.parse().map_err(|e| DbError::corrupt("event type", e))?,
                timestamp: time(row.get(3)?),
                accepted_at,
                erased: row.get::<_, i64>(5)? == ERASED,
            });
        }
    }
    list.sort_unstable_by_key(|event| std::cmp::Reverse(event.seq));
    // Asked by what stands for it, a person is found twice.
    list.dedup_by_key(|event| event.seq);
    list.truncate(most);
    Ok(list)
}

fn deliveries(conn: &Connection, event: EventSeq, below: i64, limit: usize) -> DbResult<Vec<i64>> {
    // One bound at each end: of two SQLite takes either, and without the event's own it reads all that
    // came after it.
    let mut found = conn.prepare_cached(
        "SELECT d.seq FROM events e CROSS JOIN deliveries d
             ON d.seq >= e.first_delivery AND d.seq < min(e.first_delivery + e.delivery_count, ?2)
         WHERE e.seq = ?1 AND d.event_seq = ?1
         UNION SELECT delivery_seq FROM delivery_links WHERE event_seq = ?1 AND delivery_seq < ?2
         ORDER BY 1 DESC LIMIT ?3",
    )?;
    let rows = found.query_map((event.0, below, count(limit)), |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn one(conn: &Connection, event: &About, delivery: DeliveryRow) -> DbResult<Told> {
    let mut attempts = attempts(conn, delivery.seq)?.into_iter().map(|kept| bare(kept.record));
    let first_attempt = attempts.next();
    let last_attempt = attempts.next_back().or_else(|| first_attempt.clone());
    let (webhook_name, url) = called(conn, delivery.webhook, last_attempt.as_ref())?;
    Ok(Told {
        event: event.seq,
        event_id: event.id.clone(),
        event_type: event.event_type.clone(),
        timestamp: event.timestamp,
        accepted_at: event.accepted_at,
        delivery,
        webhook_name,
        url,
        erased: event.erased,
        first_attempt,
        last_attempt,
    })
}

/// A webhook's name, and the url an attempt went to.
fn called(conn: &Connection, webhook: WebhookKey, attempt: Option<&AttemptRecord>) -> DbResult<(String, String)> {
    let present: String =
        conn.prepare_cached("SELECT config FROM webhooks WHERE key = ?1")?.query_row([webhook.0], |row| row.get(0))?;
    let present = config(&present)?;
    let Some(attempt) = attempt else { return Ok((present.name, present.url)) };
    let then: Option<Option<String>> = conn
        .prepare_cached("SELECT config FROM webhook_revisions WHERE webhook = ?1 AND revision = ?2")?
        .query_row((webhook.0, attempt.sent.revision), |row| row.get(0))
        .optional()?;
    let url = match then.flatten() {
        Some(text) => config(&text)?.url,
        None => present.url,
    };
    Ok((present.name, url))
}

/// Whether anything is kept under what stands for an erased person's id.
pub(super) fn has_subject(conn: &Connection, tenant: TenantKey, subject: &str) -> DbResult<bool> {
    Ok(conn
        .prepare_cached("SELECT 1 FROM events INDEXED BY events_by_subject WHERE tenant = ?1 AND subject_id = ?2")?
        .exists((tenant.0, subject))?)
}
