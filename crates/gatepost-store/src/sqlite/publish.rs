//! Accepting events.

use std::collections::HashMap;
use std::sync::Arc;

use gatepost_core::event::Event;
use gatepost_core::grouping::Match;
use gatepost_core::trace::TraceContext;
use gatepost_core::{EventId, EventSeq, TenantKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::{DbError, DbResult};
use super::making::{self, Plan, Sets};
use super::owe::{Owing, insert_delivery};
use super::row::{self, AS_GIVEN, event_by_seq, is_live, rank, time, version_number};
use super::tenants::REGISTRY_VERSION;
use super::writer::{Slot, Tx};
use crate::{Accepted, NewEvent, Publish, PublishOutcome};

/// What an event of the call turns out to be.
enum Fate {
    New,
    /// Accepted before.
    Known(Found),
    /// The same as an earlier one of this call.
    Repeats(usize),
}

/// An event found by its public id.
struct Found {
    seq: EventSeq,
    likeness: Likeness,
    delivery_count: u32,
}

/// What two events with one id are compared by.
#[derive(Clone, Copy)]
struct Likeness {
    fingerprint: [u8; 16],
    /// When it happened; none where the caller left that out, which is no difference to anything.
    /// One left out was set to the moment of acceptance, and is known by that.
    timestamp: Option<Timestamp>,
}

impl Likeness {
    fn of(fingerprint: [u8; 16], timestamp: Timestamp, accepted_at: Timestamp) -> Self {
        Likeness { fingerprint, timestamp: Some(timestamp).filter(|at| *at != accepted_at) }
    }

    fn same(self, other: Likeness) -> bool {
        let differ = |(mine, theirs)| mine != theirs;
        self.fingerprint == other.fingerprint && !self.timestamp.zip(other.timestamp).is_some_and(differ)
    }
}

pub(super) fn publish(tx: &mut Tx<'_>, publish: &Publish) -> DbResult<PublishOutcome> {
    let Some(version) = version(tx, publish.tenant)? else { return Ok(PublishOutcome::NoTenant) };
    if version != publish.registry_version {
        return Ok(PublishOutcome::StaleRegistry(version));
    }
    let fates = match fates(tx, publish.tenant, publish.now, &publish.events)? {
        Ok(fates) => fates,
        Err(index) => return Ok(PublishOutcome::Conflict { index }),
    };
    let mut accepted: Vec<Accepted> = Vec::with_capacity(publish.events.len());
    let mut owing = Together { room: tx.sizes.together, sets: Sets::default() };
    for (new, fate) in publish.events.iter().zip(fates) {
        let one = match fate {
            Fate::New => insert(tx, publish.tenant, version, publish.now, new, &mut owing)?,
            Fate::Known(found) => {
                let event = event_by_seq(tx.conn, found.seq)?.ok_or_else(|| DbError::corrupt("event", "gone"))?;
                duplicate(Arc::new(event), found.delivery_count)
            }
            // `fates` refers to earlier events only.
            Fate::Repeats(earlier) => duplicate(Arc::clone(&accepted[earlier].event), accepted[earlier].delivery_count),
        };
        accepted.push(one);
    }
    Ok(PublishOutcome::Accepted(accepted))
}

/// The registry version of a tenant that is not deleted.
fn version(tx: &mut Tx<'_>, tenant: TenantKey) -> DbResult<Option<u64>> {
    let found: Option<i64> =
        tx.ready.registry_version.get(tx.conn, REGISTRY_VERSION)?.query_row([tenant.0], |row| row.get(0)).optional()?;
    found.map(row::version).transpose()
}

fn duplicate(event: Arc<Event>, delivery_count: u32) -> Accepted {
    Accepted { event, delivery_count, duplicate: true, deliveries: Vec::new(), joined: 0, later: 0, wakes: Vec::new() }
}

/// What each event is, before anything is written; the index of the first conflict otherwise.
fn fates(
    tx: &mut Tx<'_>,
    tenant: TenantKey,
    now: Timestamp,
    events: &[NewEvent],
) -> DbResult<Result<Vec<Fate>, usize>> {
    let likeness = |new: &NewEvent| Likeness::of(new.fingerprint, new.timestamp, now);
    let alone = events.len() == 1;
    let mut here: HashMap<&EventId, usize> = HashMap::new();
    let mut fates = Vec::with_capacity(events.len());
    for (index, new) in events.iter().enumerate() {
        let Some(id) = &new.caller_id else {
            fates.push(Fate::New);
            continue;
        };
        let (fate, earlier) = if let Some(&earlier) = here.get(id) {
            (Fate::Repeats(earlier), likeness(&events[earlier]))
        } else if let Some(found) = find(tx.conn, &mut tx.ready.event_by_caller_id, tenant, id)? {
            let earlier = found.likeness;
            (Fate::Known(found), earlier)
        } else {
            if !alone {
                here.insert(id, index);
            }
            (Fate::New, likeness(new))
        };
        if !earlier.same(likeness(new)) {
            return Ok(Err(index));
        }
        fates.push(fate);
    }
    Ok(Ok(fates))
}

/// The event of `tenant` with this public id: a caller's, or one of our own making.
fn find<'c>(conn: &'c Connection, ready: &mut Slot<'c>, tenant: TenantKey, id: &EventId) -> DbResult<Option<Found>> {
    let found = |row: &Row<'_>| {
        let accepted_at = time(row.get(3)?);
        let likeness = Likeness::of(row.get(1)?, time(row.get(2)?), accepted_at);
        Ok((accepted_at, Found { seq: EventSeq(row.get(0)?), likeness, delivery_count: row.get(4)? }))
    };
    let by_caller = ready
        .get(
            conn,
            "SELECT seq, fingerprint, ts, accepted_at, delivery_count FROM events
             WHERE tenant = ?1 AND ext_id = ?2",
        )?
        .query_row((tenant.0, id.as_str()), found)
        .optional()?
        .map(|(_, found)| found);
    let (None, Some(seq)) = (&by_caller, id.as_numbered()) else { return Ok(by_caller) };
    let by_number = conn
        .prepare_cached(
            "SELECT seq, fingerprint, ts, accepted_at, delivery_count FROM events
             WHERE seq = ?1 AND tenant = ?2 AND ext_id IS NULL",
        )?
        .query_row((seq.0, tenant.0), found)
        .optional()?;
    Ok(by_number.filter(|(at, _)| EventId::numbered(*at, seq) == *id).map(|(_, found)| found))
}

/// The number of the event of `tenant` with this public id.
pub(super) fn event_seq(conn: &Connection, tenant: TenantKey, id: &EventId) -> DbResult<Option<EventSeq>> {
    if !is_live(conn, tenant)? {
        return Ok(None);
    }
    Ok(find(conn, &mut Slot::default(), tenant, id)?.map(|found| found.seq))
}

pub(super) fn event(conn: &Connection, tenant: TenantKey, id: &EventId) -> DbResult<Option<Event>> {
    match event_seq(conn, tenant, id)? {
        Some(seq) => event_by_seq(conn, seq),
        None => Ok(None),
    }
}

/// What the events of one call share.
struct Together {
    /// Deliveries that may still be made with them.
    room: usize,
    sets: Sets,
}

fn insert(
    tx: &mut Tx<'_>,
    tenant: TenantKey,
    version: u64,
    now: Timestamp,
    new: &NewEvent,
    together: &mut Together,
) -> DbResult<Accepted> {
    if new.undeclared {
        note_type(tx, new.event_type.as_str(), now)?;
    }
    let seq = EventSeq(tx.numbers.event);
    tx.numbers.event += 1;
    let first_delivery = tx.numbers.delivery;
    let delivery_count = u32::try_from(new.matches.len()).map_err(|e| DbError::corrupt("matches", e))?;
    tx.ready
        .add_event
        .get(
            tx.conn,
            "INSERT INTO events(seq, tenant, ext_id, fingerprint, type, subject_type, subject_id, ts, accepted_at,
                 urgency, registry_version, first_delivery, delivery_count, format, attributes, data, trace)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?
        .execute(rusqlite::params![
            seq.0,
            tenant.0,
            new.caller_id.as_ref().map(EventId::as_str),
            new.fingerprint,
            new.event_type.as_str(),
            new.subject.as_ref().and_then(|s| s.kind.as_deref()),
            new.subject.as_ref().map(|s| s.id.as_str()),
            new.timestamp.as_micros(),
            now.as_micros(),
            rank(new.urgency),
            version_number(version),
            first_delivery,
            delivery_count,
            AS_GIVEN,
            new.attributes.as_deref(),
            &*new.data,
            new.trace.map(TraceContext::to_bytes),
        ])?;
    let event = Arc::new(Event {
        seq,
        tenant,
        id: new.caller_id.clone().unwrap_or_else(|| EventId::numbered(now, seq)),
        event_type: new.event_type.clone(),
        timestamp: new.timestamp,
        accepted_at: now,
        subject: new.subject.clone(),
        urgency: new.urgency,
        attributes: new.attributes.clone(),
        data: new.data.clone(),
        registry_version: version,
        trace: new.trace,
    });
    let most = new.matches.len().min(tx.sizes.alone);
    let (mut deliveries, mut joined, mut wakes) = (Vec::with_capacity(most), 0, Vec::new());
    let due = tx.due(now);
    let mut add = |tx: &mut Tx<'_>, to: &Match| -> DbResult<()> {
        let owing = Owing { event: &event, to: *to, urgency: event.urgency, later: false, now, due, number: None };
        let inserted = insert_delivery(tx, &owing, &mut wakes)?;
        joined += u32::from(!inserted.made);
        deliveries.extend(inserted.due);
        Ok(())
    };
    let later = match making::plan(tx, tenant, &new.matches, &mut together.room)? {
        Plan::AtOnce => {
            new.matches.iter().try_for_each(|to| add(tx, to))?;
            0
        }
        Plan::QueuesLater => {
            new.matches.iter().filter(|to| making::waits_for_nobody(to)).try_for_each(|to| add(tx, to))?;
            making::leave_queued(tx, &event, &new.matches)?
        }
        Plan::Later => making::leave_all(tx, &event, &new.matches, &mut together.sets)?,
    };
    Ok(Accepted { event, delivery_count, duplicate: false, deliveries, joined, later, wakes })
}

/// Lists a type that is not declared, once.
fn note_type(tx: &mut Tx<'_>, name: &str, now: Timestamp) -> DbResult<()> {
    if tx.known_types.contains(name) {
        return Ok(());
    }
    tx.conn
        .prepare_cached(
            "INSERT INTO event_types(name, definition, seen, created_at, updated_at) VALUES (?1, NULL, 1, ?2, ?2)
             ON CONFLICT(name) DO UPDATE SET seen = 1 WHERE seen = 0",
        )?
        .execute((name, now.as_micros()))?;
    tx.known_types.insert(name.into());
    Ok(())
}
