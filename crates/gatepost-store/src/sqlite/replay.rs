//! Replays: choosing events of a window, then making deliveries of them.

use std::sync::Arc;

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::grouping::{Grouping, Match};
use gatepost_core::webhook::Webhook;
use gatepost_core::{DeliveryId, DeliverySeq, EventSeq, JobId, Timestamp, WebhookKey};
use rusqlite::Connection;

use super::error::DbResult;
use super::lists::{Growing, window};
use super::owe::{Owing, insert_delivery};
use super::row::{count, event_by_seq, reason, state, time};
use super::writer::Tx;
use super::{erasure, jobs, making, registry};
use crate::{Candidates, Job, JobKey, JobState, Replay, ReplayOf, ReplayScope, Replayed, Selection, Stage, Task};

/// Bytes of payload one step of a replay reads, about, and what a delivery of an event weighs that is
/// looked at: an event may have very many.
const STEP_BYTES: usize = 4 << 20;
const LOOKED_AT: usize = 500;

/// An earlier delivery of an event to the webhook.
struct Earlier {
    seq: DeliverySeq,
    state: DeliveryState,
    reason: Option<Reason>,
}

impl Earlier {
    /// Given up in a way a replay of scope `failed` takes up again.
    fn failed(&self) -> bool {
        self.state == DeliveryState::Failed
            || (self.state == DeliveryState::Cancelled && self.reason == Some(Reason::Gone))
    }

    /// Delivered, or still tried.
    fn in_hand(&self) -> bool {
        self.state == DeliveryState::Delivered || self.state == DeliveryState::Pending
    }
}

/// The deliveries of an event to a webhook, oldest first.
fn earlier(conn: &Connection, event: EventSeq, webhook: WebhookKey) -> DbResult<Vec<Earlier>> {
    let mut found = conn.prepare_cached(
        "SELECT d.seq, d.state, d.reason FROM events e CROSS JOIN deliveries d
             ON d.seq >= e.first_delivery AND d.seq < e.first_delivery + e.delivery_count
         WHERE e.seq = ?1 AND d.event_seq = ?1 AND d.webhook = ?2
         UNION SELECT d.seq, d.state, d.reason FROM delivery_links l CROSS JOIN deliveries d ON d.seq = l.delivery_seq
         WHERE l.event_seq = ?1 AND d.webhook = ?2
         ORDER BY 1",
    )?;
    let mut rows = found.query((event.0, webhook.0))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let (state, reason) = (state(row.get(1)?)?, reason(row.get(2)?)?);
        list.push(Earlier { seq: DeliverySeq(row.get(0)?), state, reason });
    }
    Ok(list)
}

/// Whether `scope` wants an event with these earlier deliveries, and which one it repeats.
fn wanted(scope: ReplayScope, earlier: &[Earlier]) -> Option<Option<DeliverySeq>> {
    match scope {
        ReplayScope::Failed => {
            let last = earlier.iter().rposition(Earlier::failed)?;
            let since = &earlier[last + 1..];
            (!since.iter().any(Earlier::in_hand)).then(|| Some(earlier[last].seq))
        }
        ReplayScope::Missed => earlier.is_empty().then_some(None),
        ReplayScope::All => Some(earlier.last().map(|delivery| delivery.seq)),
    }
}

/// The first and last number a job looks at.
fn bounds(conn: &Connection, job: &Job, replay: &Replay) -> DbResult<(i64, i64)> {
    if let (Some(position), Some(upto)) = (job.position, job.upto) {
        return Ok((position.0 + 1, upto.0));
    }
    let found = window(conn, Growing::EventAccepted, Some(replay.since), Some(replay.until))?;
    let highest: Option<i64> = conn.prepare_cached("SELECT max(seq) FROM events")?.query_row([], |row| row.get(0))?;
    // What is accepted from now on is not of the window, whatever the clocks say.
    Ok((found.from, found.to.saturating_sub(1).min(highest.unwrap_or(0))))
}

pub(super) fn candidates(
    conn: &Connection,
    job: &Job,
    replay: &Replay,
    limit: usize,
    max_bytes: usize,
) -> DbResult<Candidates> {
    let (from, upto) = bounds(conn, job, replay)?;
    let (scanned_to, upto_seq) = (EventSeq(upto), EventSeq(upto));
    let mut page = Candidates { chosen: Vec::new(), to_match: Vec::new(), scanned_to, upto: upto_seq, end: true };
    let mut found = conn.prepare_cached(
        "SELECT e.seq, e.accepted_at, e.format FROM events e INDEXED BY events_by_tenant
         WHERE e.tenant = ?1 AND e.seq >= ?2 AND e.seq <= ?3 ORDER BY e.seq LIMIT ?4",
    )?;
    let mut rows = found.query((job.tenant.0, from, upto, count(limit) + 1))?;
    let (mut looked_at, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        if looked_at == limit || bytes > max_bytes {
            page.end = false;
            break;
        }
        looked_at += 1;
        let seq = EventSeq(row.get(0)?);
        page.scanned_to = seq;
        let accepted_at = Timestamp::from_micros(row.get(1)?);
        let format: i64 = row.get(2)?;
        if accepted_at < replay.since || accepted_at >= replay.until || format == erasure::ERASED {
            continue;
        }
        let earlier = earlier(conn, seq, WebhookKey(replay.webhook_key))?;
        if wanted(replay.scope, &earlier).is_none() {
            continue;
        }
        // What failed was matched once: it need not match now.
        if replay.scope == ReplayScope::Failed {
            page.chosen.push(seq);
        } else if let Some(event) = event_by_seq(conn, seq)? {
            bytes += event.data.len() + event.attributes.as_ref().map_or(0, bytes::Bytes::len);
            page.to_match.push(event);
        }
    }
    if page.end {
        page.scanned_to = EventSeq(upto);
    }
    Ok(page)
}

pub(super) fn select(tx: &Tx<'_>, selection: &Selection) -> DbResult<Option<Job>> {
    let Some(mut job) = jobs::open_by_key(tx.conn, selection.job)? else { return Ok(None) };
    if job.stage != Stage::Counting || job.position != selection.position {
        // This stretch was noted before: its answer was lost.
        return Ok(Some(job));
    }
    let mut add = tx.conn.prepare_cached("INSERT INTO job_items(job, event_seq) VALUES (?1, ?2)")?;
    for event in &selection.events {
        add.execute((job.key.0, event.0))?;
    }
    job.state = JobState::Running;
    job.total += selection.events.len() as u64;
    job.position = Some(selection.scanned_to);
    job.upto = Some(selection.upto);
    if selection.end {
        job.stage = Stage::Working;
    }
    jobs::save(tx.conn, &mut job, selection.now)?;
    Ok(Some(job))
}

pub(super) fn deliver(tx: &mut Tx<'_>, key: JobKey, now: Timestamp, limit: usize) -> DbResult<Replayed> {
    let mut step = Replayed { job: None, made: 0, dues: Vec::new(), wakes: Vec::new() };
    let Some(mut job) = jobs::open_by_key(tx.conn, key)? else { return Ok(step) };
    let Task::Replay(replay) = job.task.clone() else { return Ok(step) };
    if job.stage != Stage::Working {
        step.job = Some(job);
        return Ok(step);
    }
    let webhook = registry::any_by_id(tx.conn, job.tenant, replay.webhook)?.filter(|w| w.deleted_at.is_none());
    let Some(webhook) = webhook else {
        step.job = jobs::end(tx, key, Some("the webhook was deleted"), now)?;
        return Ok(step);
    };
    let mut items = items(tx.conn, key, limit)?;
    let chosen = items.len();
    // What an event is owed already tells only once it is made; and nothing overtakes in a queue.
    if let Some(unmade) = making::first_event(tx.conn, job.tenant)? {
        let queued = Grouping::of(&webhook.config) != Grouping::default();
        items.retain(|event| !queued && *event < unmade);
    }
    let (mut bytes, mut done) = (0, 0);
    for event in &items {
        if bytes > STEP_BYTES {
            break;
        }
        bytes += one(tx, &job, replay.scope, &webhook, *event, now, &mut step)?;
        tx.conn.prepare_cached("DELETE FROM job_items WHERE job = ?1 AND event_seq = ?2")?.execute((key.0, event.0))?;
        done += 1;
    }
    job.done += done;
    job.state = JobState::Running;
    if done == chosen as u64 && chosen < limit {
        job.state = JobState::Done;
        job.done = job.total;
    }
    jobs::save(tx.conn, &mut job, now)?;
    step.job = Some(job);
    Ok(step)
}

fn items(conn: &Connection, job: JobKey, limit: usize) -> DbResult<Vec<EventSeq>> {
    let mut found =
        conn.prepare_cached("SELECT event_seq FROM job_items WHERE job = ?1 ORDER BY event_seq LIMIT ?2")?;
    let rows = found.query_map((job.0, count(limit)), |row| Ok(EventSeq(row.get(0)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Owes one event to the webhook once more, if that is still wanted. Answers the bytes it read.
fn one(
    tx: &mut Tx<'_>,
    job: &Job,
    scope: ReplayScope,
    webhook: &Webhook,
    event: EventSeq,
    now: Timestamp,
    step: &mut Replayed,
) -> DbResult<usize> {
    if erasure::is_erased(tx.conn, event)? {
        return Ok(0);
    }
    let Some(read) = event_by_seq(tx.conn, event)?.filter(|read| read.tenant == job.tenant) else { return Ok(0) };
    // Another replay, or a retry by hand, may have come first.
    let Some(replay_of) = wanted(scope, &earlier(tx.conn, event, webhook.key)?) else { return Ok(0) };
    let looked_at: i64 = tx
        .conn
        .prepare_cached("SELECT delivery_count FROM events WHERE seq = ?1")?
        .query_row([event.0], |row| row.get(0))?;
    let bytes = read.data.len() + LOOKED_AT * usize::try_from(looked_at).unwrap_or(0);
    let event = Arc::new(read);
    let owing = Owing {
        event: &event,
        to: Match::of(webhook),
        urgency: event.urgency,
        later: true,
        now,
        due: tx.due(now),
        number: None,
    };
    let inserted = insert_delivery(tx, &owing, &mut step.wakes)?;
    tx.conn
        .prepare_cached(
            "UPDATE delivery_links SET replay_of = ?3, job = ?4 WHERE event_seq = ?1 AND delivery_seq = ?2",
        )?
        .execute((event.seq.0, inserted.seq.0, replay_of.map(|seq| seq.0), job.key.0))?;
    step.made += usize::from(inserted.made);
    step.dues.extend(inserted.due);
    Ok(bytes)
}

/// Where a delivery comes from, if a replay made it.
pub(super) fn replay_of(conn: &Connection, seq: DeliverySeq) -> DbResult<Option<ReplayOf>> {
    let mut found = conn.prepare_cached(
        "SELECT o.seq, o.created_at, j.id FROM deliveries d
         CROSS JOIN delivery_links l ON l.event_seq = d.event_seq AND l.delivery_seq = d.seq
         LEFT JOIN deliveries o ON o.seq = l.replay_of AND d.grouping & 2 = 0 LEFT JOIN jobs j ON j.key = l.job
         WHERE d.seq = ?1 AND l.job IS NOT NULL",
    )?;
    let mut rows = found.query([seq.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (of, made_at): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
    let delivery = of.zip(made_at).map(|(of, at)| DeliveryId::new(time(at), DeliverySeq(of)));
    Ok(Some(ReplayOf { job: row.get::<_, Option<[u8; 16]>>(2)?.map(JobId::from_bytes), delivery }))
}

pub(super) fn backlog(conn: &Connection, webhook: WebhookKey, now: Timestamp, limit: usize) -> DbResult<usize> {
    let mut due = 0;
    for urgency in 0..3_i64 {
        let found: i64 = conn
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due
                     WHERE webhook = ?1 AND urgency = ?2 AND state = 0 AND due <= ?3 LIMIT ?4)",
            )?
            .query_row((webhook.0, urgency, now.as_micros(), count(limit)), |row| row.get(0))?;
        due += usize::try_from(found).unwrap_or(usize::MAX);
    }
    Ok(due.min(limit))
}
