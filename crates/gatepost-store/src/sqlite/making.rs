//! Deliveries made after their event's commit; see [`crate::MakingStore`].
//!
//! The publish writes the matched set once, in parts, however many of its events match the same, and a
//! row for each event that says how far it has come. A step makes the deliveries of a part and moves that
//! row in one transaction, so that a crash repeats nothing and forgets nothing.
//!
//! What waits for other deliveries (queues, batches) stands in a line of its own, in order of acceptance:
//! as long as a tenant has anything there, whatever else is accepted for its queues and batches is put
//! behind it. Nothing that ends an event or a webhook for good (retention, erasure, the sweep of deleted
//! webhooks) goes past what is not made.

use std::sync::Arc;

use async_trait::async_trait;
use gatepost_core::event::Event;
use gatepost_core::grouping::{Grouping, Match};
use gatepost_core::webhook::{Batch, Ordering};
use gatepost_core::{DeliverySeq, EventSeq, TenantKey, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension, Row};

use super::SqliteStore;
use super::error::{DbError, DbResult};
use super::owe::{Owing, insert_delivery};
use super::queue::Lane;
use super::requests::SMALL;
use super::row::{count, event_by_seq, rank, time};
use super::writer::Tx;
use crate::{Made, MakingStore, Result, Turn};

/// How much is made with its event.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// An event's deliveries up to so many are always made with it: leaving them would cost as much.
    pub few: usize,
    /// Up to so many are, as far as all of one call leave room.
    pub alone: usize,
    /// All of one call.
    pub together: usize,
    /// Of what is made later, so many at once.
    pub part: usize,
}

impl Default for Sizes {
    /// A row takes some five microseconds of the writer.
    fn default() -> Self {
        Sizes { few: 8, alone: 128, together: 2_048, part: 64 }
    }
}

impl Sizes {
    /// Whether an event's deliveries are made with it; then they use up some of the call's `room`.
    pub(super) fn at_once(self, matches: usize, room: &mut usize) -> bool {
        let at_once = matches <= self.few || matches <= self.alone.min(*room);
        if at_once {
            *room = room.saturating_sub(matches);
        }
        at_once
    }
}

/// The line of queues and batches.
const QUEUED: i64 = 3;
/// First byte of a part of a set.
const VERSION: u8 = 1;
/// Sets of one call that are looked through for the same one.
const KNOWN_SETS: usize = 8;

fn is_queued(to: &Match) -> bool {
    to.grouping != Grouping::default()
}

/// Which deliveries of an event are made with it.
pub(super) enum Plan {
    /// All.
    AtOnce,
    /// Those that wait for nobody: the others stand behind what is not made yet.
    QueuesLater,
    /// None.
    Later,
}

/// Decides for an event of `tenant` that goes to `matches`.
pub(super) fn plan(tx: &mut Tx<'_>, tenant: TenantKey, matches: &[Match], room: &mut usize) -> DbResult<Plan> {
    if !tx.sizes.at_once(matches.len(), room) {
        return Ok(Plan::Later);
    }
    let behind = *tx.unmade && matches.iter().any(is_queued) && has_queued(tx, tenant)?;
    Ok(if behind { Plan::QueuesLater } else { Plan::AtOnce })
}

/// Whether something of the tenant's queues and batches is not made yet.
fn has_queued(tx: &mut Tx<'_>, tenant: TenantKey) -> DbResult<bool> {
    *tx.unmade = tx.conn.prepare_cached("SELECT 1 FROM unmade LIMIT 1")?.exists([])?;
    if !*tx.unmade {
        return Ok(false);
    }
    Ok(tx.conn.prepare_cached("SELECT 1 FROM unmade WHERE tenant = ?1 AND line = ?2")?.exists((tenant.0, QUEUED))?)
}

/// A set written down, and how many are in it.
#[derive(Clone, Copy)]
struct Set {
    number: i64,
    len: usize,
}

/// The sets one call has written, so that events that match the same share one.
#[derive(Default)]
pub(super) struct Sets(Vec<(Arc<Vec<Match>>, bool, Option<Set>)>);

impl Sets {
    fn known(&self, matches: &Arc<Vec<Match>>, queued: bool) -> Option<Option<Set>> {
        let same = |known: &Arc<Vec<Match>>| Arc::ptr_eq(known, matches) || known == matches;
        self.0.iter().find(|(known, line, _)| *line == queued && same(known)).map(|(_, _, set)| *set)
    }
}

/// Leaves all deliveries of an event for later; how many.
pub(super) fn leave_all(tx: &mut Tx<'_>, event: &Event, matches: &Arc<Vec<Match>>, sets: &mut Sets) -> DbResult<u32> {
    let mut left = 0;
    for queued in [false, true] {
        let set = match sets.known(matches, queued) {
            Some(known) => known,
            None => {
                let set = write_set(tx, matches.iter().filter(|to| is_queued(to) == queued))?;
                if sets.0.len() == KNOWN_SETS * 2 {
                    sets.0.remove(0);
                }
                sets.0.push((Arc::clone(matches), queued, set));
                set
            }
        };
        if let Some(set) = set {
            left += leave(tx, event, if queued { QUEUED } else { rank(event.urgency) }, set)?;
        }
    }
    Ok(left)
}

/// Leaves an event's deliveries of queues and batches for later; how many.
pub(super) fn leave_queued(tx: &mut Tx<'_>, event: &Event, matches: &[Match]) -> DbResult<u32> {
    match write_set(tx, matches.iter().filter(|to| is_queued(to)))? {
        Some(set) => leave(tx, event, QUEUED, set),
        None => Ok(0),
    }
}

/// Whether a delivery is not left for later by [`leave_queued`].
pub(super) fn waits_for_nobody(to: &Match) -> bool {
    !is_queued(to)
}

/// Writes a set down. Its number is that of the first delivery made of it, which [`leave`] gives out next.
fn write_set<'m>(tx: &Tx<'_>, matches: impl Iterator<Item = &'m Match>) -> DbResult<Option<Set>> {
    let matches: Vec<&Match> = matches.collect();
    if matches.is_empty() {
        return Ok(None);
    }
    let number = tx.numbers.delivery;
    let mut add = tx.conn.prepare_cached("INSERT INTO match_sets(match_set, part, matches) VALUES (?1, ?2, ?3)")?;
    let mut bytes = Vec::new();
    for (part, some) in (0_i64..).zip(matches.chunks(tx.sizes.part.max(1))) {
        bytes.clear();
        bytes.push(VERSION);
        for to in some {
            bytes = postcard::to_extend(&kept(to), bytes).map_err(|e| DbError::corrupt("matches", e))?;
        }
        add.execute((number, part, bytes.as_slice()))?;
    }
    Ok(Some(Set { number, len: matches.len() }))
}

/// A match as it is kept: the webhook, its revision, its ordering, its batches.
type Kept = (i64, u32, u8, Option<(u32, u32, u32)>);

fn kept(to: &Match) -> Kept {
    let ordering = match to.grouping.ordering {
        Ordering::None => 0,
        Ordering::Subject => 1,
        Ordering::Webhook => 2,
    };
    let batch = to.grouping.batch.map(|batch| (batch.max_events, batch.max_wait_ms, batch.max_bytes));
    (to.webhook.0, to.revision, ordering, batch)
}

fn read_matches(bytes: &[u8]) -> DbResult<Vec<Match>> {
    let Some((&VERSION, mut rest)) = bytes.split_first() else {
        return Err(DbError::corrupt("matches", "unknown version"));
    };
    let mut matches = Vec::new();
    while !rest.is_empty() {
        let (webhook, revision, ordering, batch): Kept;
        ((webhook, revision, ordering, batch), rest) =
            postcard::take_from_bytes(rest).map_err(|e| DbError::corrupt("matches", e))?;
        let ordering = match ordering {
            0 => Ordering::None,
            1 => Ordering::Subject,
            2 => Ordering::Webhook,
            other => return Err(DbError::corrupt("ordering", other)),
        };
        let batch = batch.map(|(max_events, max_wait_ms, max_bytes)| Batch { max_events, max_wait_ms, max_bytes });
        matches.push(Match { webhook: WebhookKey(webhook), revision, grouping: Grouping { ordering, batch } });
    }
    Ok(matches)
}

/// Sets the numbers of an event's deliveries aside, and notes that they are to be made.
fn leave(tx: &mut Tx<'_>, event: &Event, line: i64, set: Set) -> DbResult<u32> {
    tx.conn
        .prepare_cached(
            "INSERT INTO unmade(tenant, line, event_seq, match_set, part, next, owed, due)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7)",
        )?
        .execute((
            event.tenant.0,
            line,
            event.seq.0,
            set.number,
            tx.numbers.delivery,
            count(set.len),
            // The clock may be set before they are made.
            tx.due(event.accepted_at).as_micros(),
        ))?;
    tx.numbers.delivery += count(set.len);
    *tx.unmade = true;
    u32::try_from(set.len).map_err(|e| DbError::corrupt("matches", e))
}

/// An event of which some deliveries are to be made.
struct Unmade {
    tenant: i64,
    line: i64,
    event: EventSeq,
    set: i64,
    part: i64,
    next: i64,
    owed: i64,
    due: Timestamp,
}

impl Unmade {
    fn read(row: &Row<'_>) -> rusqlite::Result<Unmade> {
        Ok(Unmade {
            tenant: row.get(0)?,
            line: row.get(1)?,
            event: EventSeq(row.get(2)?),
            set: row.get(3)?,
            part: row.get(4)?,
            next: row.get(5)?,
            owed: row.get(6)?,
            due: time(row.get(7)?),
        })
    }

    /// The first one of a tenant in these lines.
    fn first(conn: &Connection, tenant: TenantKey, from: i64, to: i64) -> DbResult<Option<Unmade>> {
        Ok(conn
            .prepare_cached(
                "SELECT tenant, line, event_seq, match_set, part, next, owed, due FROM unmade
                 WHERE tenant = ?1 AND line >= ?2 AND line <= ?3 ORDER BY line, event_seq LIMIT 1",
            )?
            .query_row((tenant.0, from, to), Unmade::read)
            .optional()?)
    }

    fn matches(&self, conn: &Connection, part: i64) -> DbResult<Option<Vec<Match>>> {
        let bytes: Option<Vec<u8>> = conn
            .prepare_cached("SELECT matches FROM match_sets WHERE match_set = ?1 AND part = ?2")?
            .query_row((self.set, part), |row| row.get(0))
            .optional()?;
        bytes.map(|bytes| read_matches(&bytes)).transpose()
    }

    /// `made` more of them are made, which is the next part.
    fn went_on(&self, conn: &Connection, made: usize) -> DbResult<()> {
        let left = self.owed - count(made);
        if left > 0 {
            conn.prepare_cached(
                "UPDATE unmade SET part = part + 1, next = next + ?4, owed = ?5
                 WHERE tenant = ?1 AND line = ?2 AND event_seq = ?3",
            )?
            .execute((self.tenant, self.line, self.event.0, count(made), left))?;
        } else {
            self.remove(conn)?;
        }
        // Others that match the same begin later and stand behind this one, or are as far as it is.
        let mut shared = conn.prepare_cached("SELECT 1 FROM unmade WHERE match_set = ?1 AND part <= ?2")?;
        if !shared.exists((self.set, self.part))? {
            conn.prepare_cached("DELETE FROM match_sets WHERE match_set = ?1 AND part = ?2")?
                .execute((self.set, self.part))?;
        }
        Ok(())
    }

    fn remove(&self, conn: &Connection) -> DbResult<()> {
        conn.prepare_cached("DELETE FROM unmade WHERE tenant = ?1 AND line = ?2 AND event_seq = ?3")?.execute((
            self.tenant,
            self.line,
            self.event.0,
        ))?;
        Ok(())
    }

    /// Removes it with what it matched, if nobody else does; how many rows that were.
    fn forget(&self, conn: &Connection) -> DbResult<usize> {
        self.remove(conn)?;
        if conn.prepare_cached("SELECT 1 FROM unmade WHERE match_set = ?1")?.exists([self.set])? {
            return Ok(1);
        }
        Ok(1 + conn.prepare_cached("DELETE FROM match_sets WHERE match_set = ?1")?.execute([self.set])?)
    }
}

pub(super) fn make(tx: &mut Tx<'_>, turn: Turn, rows: usize) -> DbResult<Made> {
    let mut made = Made::default();
    if let Some(tenant) = whose(tx.conn, turn)? {
        made.tenant = Some(tenant);
        while made.rows < rows.max(1) {
            // A part of each, so that neither kind waits for all of the other.
            let free = Unmade::first(tx.conn, tenant, 0, QUEUED - 1)?;
            let queued = Unmade::first(tx.conn, tenant, QUEUED, QUEUED)?;
            if free.is_none() && queued.is_none() {
                break;
            }
            for next in [free, queued].into_iter().flatten() {
                make_part(tx, &next, &mut made)?;
            }
        }
        made.left_from = first_event(tx.conn, tenant)?;
    }
    made.more = tx.conn.prepare_cached("SELECT 1 FROM unmade LIMIT 1")?.exists([])?;
    *tx.unmade = made.more;
    Ok(made)
}

fn whose(conn: &Connection, turn: Turn) -> DbResult<Option<TenantKey>> {
    let mut next = conn.prepare_cached("SELECT tenant FROM unmade WHERE tenant >= ?1 ORDER BY tenant LIMIT 1")?;
    let mut from = |tenant: i64| next.query_row([tenant], |row| row.get(0)).optional();
    let found: Option<i64> = match turn {
        Turn::Of(tenant) => from(tenant.0)?.filter(|found| *found == tenant.0),
        Turn::After(Some(last)) => match from(last.0.saturating_add(1))? {
            None => from(i64::MIN)?,
            found => found,
        },
        Turn::After(None) => from(i64::MIN)?,
    };
    Ok(found.map(TenantKey))
}

/// Makes the deliveries of the next part.
fn make_part(tx: &mut Tx<'_>, unmade: &Unmade, made: &mut Made) -> DbResult<()> {
    let Some(event) = event_by_seq(tx.conn, unmade.event)? else {
        // Its tenant is being removed.
        made.rows += unmade.forget(tx.conn)?;
        return Ok(());
    };
    let event = Arc::new(event);
    let matches =
        unmade.matches(tx.conn, unmade.part)?.ok_or_else(|| DbError::corrupt("matches", "a part is not there"))?;
    for (number, to) in (unmade.next..).zip(&matches) {
        let owing = Owing {
            event: &event,
            to: *to,
            urgency: event.urgency,
            later: false,
            now: event.accepted_at,
            due: unmade.due,
            number: Some(number),
        };
        let inserted = insert_delivery(tx, &owing, &mut made.wakes)?;
        made.seqs.push(inserted.seq);
        made.dues.extend(inserted.due);
    }
    made.rows += matches.len().max(1);
    unmade.went_on(tx.conn, matches.len())
}

/// The tenant's first event of which some deliveries are not made.
pub(super) fn first_event(conn: &Connection, tenant: TenantKey) -> DbResult<Option<EventSeq>> {
    let found: Option<i64> = conn
        .prepare_cached(
            "SELECT min(seq) FROM (SELECT min(event_seq) AS seq FROM unmade WHERE tenant = ?1 AND line = 0
                 UNION ALL SELECT min(event_seq) FROM unmade WHERE tenant = ?1 AND line = 1
                 UNION ALL SELECT min(event_seq) FROM unmade WHERE tenant = ?1 AND line = 2
                 UNION ALL SELECT min(event_seq) FROM unmade WHERE tenant = ?1 AND line = 3)",
        )?
        .query_row([tenant.0], |row| row.get(0))?;
    Ok(found.map(EventSeq))
}

/// The last one.
pub(super) fn last_event(conn: &Connection, tenant: TenantKey) -> DbResult<Option<EventSeq>> {
    let found: Option<i64> = conn
        .prepare_cached(
            "SELECT max(seq) FROM (SELECT max(event_seq) AS seq FROM unmade WHERE tenant = ?1 AND line = 0
                 UNION ALL SELECT max(event_seq) FROM unmade WHERE tenant = ?1 AND line = 1
                 UNION ALL SELECT max(event_seq) FROM unmade WHERE tenant = ?1 AND line = 2
                 UNION ALL SELECT max(event_seq) FROM unmade WHERE tenant = ?1 AND line = 3)",
        )?
        .query_row([tenant.0], |row| row.get(0))?;
    Ok(found.map(EventSeq))
}

/// How many of a tenant's deliveries are owed and not made, counted no further than `at_most`.
pub(super) fn owed(conn: &Connection, tenant: TenantKey) -> DbResult<u64> {
    let owed: i64 = conn
        .prepare_cached("SELECT coalesce(sum(owed), 0) FROM unmade WHERE tenant = ?1")?
        .query_row([tenant.0], |row| row.get(0))?;
    Ok(u64::try_from(owed).unwrap_or(0))
}

/// The number set aside for an event's delivery to a webhook that waits for nobody, while it is not made.
pub(super) fn number_of(conn: &Connection, event: &Event, webhook: WebhookKey) -> DbResult<Option<DeliverySeq>> {
    let unmade = conn
        .prepare_cached(
            "SELECT tenant, line, event_seq, match_set, part, next, owed, due FROM unmade
             WHERE tenant = ?1 AND line = ?2 AND event_seq = ?3",
        )?
        .query_row((event.tenant.0, rank(event.urgency), event.seq.0), Unmade::read)
        .optional()?;
    let Some(unmade) = unmade else { return Ok(None) };
    let (mut next, mut part) = (unmade.next, unmade.part);
    while let Some(matches) = unmade.matches(conn, part)? {
        if let Some(position) = matches.iter().position(|to| to.webhook == webhook) {
            return Ok(Some(DeliverySeq(next + count(position))));
        }
        next += count(matches.len());
        part += 1;
    }
    Ok(None)
}

/// Forgets what a deleted tenant is owed, as far as about `limit` rows go; how many went.
pub(super) fn remove_tenant(conn: &Connection, tenant: i64, limit: usize) -> DbResult<usize> {
    let mut done = 0;
    while done < limit
        && let Some(unmade) = Unmade::first(conn, TenantKey(tenant), 0, QUEUED)?
    {
        done += unmade.forget(conn)?;
    }
    Ok(done)
}

#[async_trait]
impl MakingStore for SqliteStore {
    async fn make(&self, turn: Turn, rows: usize) -> Result<Made> {
        self.write_again(Lane::Other, SMALL, move |tx| make(tx, turn, rows)).await
    }

    async fn last_unmade(&self, tenant: TenantKey) -> Result<Option<EventSeq>> {
        self.read(move |conn| last_event(conn, tenant)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_kept_as_they_are() {
        let batch = Batch { max_events: 3, max_wait_ms: 70_000, max_bytes: u32::MAX };
        let all: Vec<Match> = [Ordering::None, Ordering::Subject, Ordering::Webhook]
            .into_iter()
            .flat_map(|ordering| [None, Some(batch)].map(|batch| Grouping { ordering, batch }))
            .zip([1, 2, 300, i64::MAX, 0, 7])
            .map(|(grouping, key)| Match { webhook: WebhookKey(key), revision: u32::MAX, grouping })
            .collect();
        let mut bytes = vec![VERSION];
        for to in &all {
            bytes = postcard::to_extend(&kept(to), bytes).unwrap();
        }
        assert_eq!(read_matches(&bytes).unwrap(), all);
        for damaged in [&[][..], &[9], &bytes[..bytes.len() - 1], &[VERSION, 2, 1, 3, 0]] {
            assert!(matches!(read_matches(damaged), Err(DbError::Corrupt(_))));
        }
    }

    #[test]
    fn what_is_made_at_once_is_bounded_for_each_event_and_for_a_call() {
        let sizes = Sizes { few: 2, alone: 10, together: 25, part: 4 };
        let mut room = sizes.together;
        let decided: Vec<bool> = [10, 11, 10, 10, 5, 3, 2, 2].map(|n| sizes.at_once(n, &mut room)).to_vec();
        assert_eq!(decided, [true, false, true, false, true, false, true, true]);
    }
}
