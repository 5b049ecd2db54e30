//! Owing an event to a webhook: the one place where deliveries are made.

use std::sync::Arc;

use gatepost_core::event::{Event, Urgency};
use gatepost_core::grouping::Match;
use gatepost_core::hashing::sha256;
use gatepost_core::{DeliverySeq, Timestamp};
use rusqlite::Connection;

use super::error::DbResult;
use super::row::rank;
use super::writer::Tx;
use super::{batches, queues};
use crate::{DeliveryEvents, Due, Wake};

/// Bits of a delivery's `grouping`.
pub(super) mod grouping {
    /// It stands in a queue.
    pub(in crate::sqlite) const ORDERED: i64 = 1;
    /// It is a batch.
    pub(in crate::sqlite) const BATCH: i64 = 2;
}

/// An event to owe to a webhook.
pub(super) struct Owing<'a> {
    /// What.
    pub(super) event: &'a Arc<Event>,
    /// To whom, by what revision, and what the webhook's deliveries wait for.
    pub(super) to: Match,
    /// How much it hurries: the event's urgency, unless there is a reason for another.
    pub(super) urgency: Urgency,
    /// Not by the event's own publish: a replay.
    pub(super) later: bool,
    /// When, by the clock.
    pub(super) now: Timestamp,
    /// The number its delivery has if one is made, where the event's commit set it aside.
    pub(super) number: Option<i64>,
    /// When it is due if it waits for nothing: see [`Tx::due`].
    pub(super) due: Timestamp,
}

/// What an event came to be owed by.
pub(super) struct Inserted {
    /// The delivery's number.
    pub(super) seq: DeliverySeq,
    /// The delivery is new; otherwise the event joined one that was there, a batch.
    pub(super) made: bool,
    /// The delivery, if it waits for nothing: to be handed to the lane as it is. What is not here is
    /// told by wakes.
    pub(super) due: Option<Due>,
}

/// Owes an event to a webhook: makes a delivery, or lets the event join the webhook's open batch.
/// Ordering and batches are seen to here; what became due elsewhere by it is added to `wakes`, for the
/// lane to hear after the commit.
///
/// A replay calls it once per (event, webhook) with [`Match::of`] the webhook as it is now and `later`
/// set, which also links the event to the delivery (`delivery_links`). A batch is replayed by doing so
/// for each of its events: they join a new batch. An event that is in the open batch already does not
/// join it twice. `made` says whether there is one delivery more than before.
pub(super) fn insert_delivery(tx: &mut Tx<'_>, owing: &Owing<'_>, wakes: &mut Vec<Wake>) -> DbResult<Inserted> {
    if let Some(batch) = owing.to.grouping.batch {
        return batches::join(tx, owing, batch, wakes);
    }
    let queue = owing.to.grouping.queue(owing.event.subject.as_ref());
    let bits = if queue.is_some() { grouping::ORDERED } else { 0 };
    let due = if queue.is_some() { queues::NOT_YET } else { owing.due.as_micros() };
    let seq = add(tx, owing, due, bits)?;
    if owing.later {
        link(tx.conn, owing.event, seq)?;
    }
    if let Some(queue) = queue {
        queues::join(tx.conn, owing.to.webhook, queue, seq, owing.urgency)?;
        queues::refresh(tx.conn, owing.to.webhook, queue, owing.due, wakes)?;
        return Ok(Inserted { seq, made: true, due: None });
    }
    let due = Due {
        seq,
        created_at: owing.now,
        tenant: owing.event.tenant,
        webhook: owing.to.webhook,
        revision: owing.to.revision,
        events: DeliveryEvents::One(Arc::clone(owing.event)),
        due: owing.due,
        urgency: owing.urgency,
        attempts: 0,
        budget_start: 0,
        manual: false,
        generation: 0,
        ordered: false,
        body: None,
    };
    Ok(Inserted { seq, made: true, due: Some(due) })
}

/// Adds a delivery's row.
pub(super) fn add(tx: &mut Tx<'_>, owing: &Owing<'_>, due: i64, bits: i64) -> DbResult<DeliverySeq> {
    let seq = match owing.number {
        Some(set_aside) => set_aside,
        None => {
            tx.numbers.delivery += 1;
            tx.numbers.delivery - 1
        }
    };
    tx.ready
        .add_delivery
        .get(
            tx.conn,
            "INSERT INTO deliveries(seq, tenant, webhook, event_seq, revision, state, urgency, due, attempts,
                 budget_start, manual, generation, created_at, grouping)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, 0, 0, 0, 0, ?8, ?9)",
        )?
        .execute((
            seq,
            owing.event.tenant.0,
            owing.to.webhook.0,
            owing.event.seq.0,
            owing.to.revision,
            rank(owing.urgency),
            due,
            owing.now.as_micros(),
            bits,
        ))?;
    Ok(DeliverySeq(seq))
}

/// Notes that `event` is delivered by a delivery that is not among its own.
pub(super) fn link(conn: &Connection, event: &Event, seq: DeliverySeq) -> DbResult<()> {
    conn.prepare_cached("INSERT INTO delivery_links(event_seq, delivery_seq) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute((event.seq.0, seq.0))?;
    if let Some(subject) = &event.subject {
        conn.prepare_cached(
            "INSERT INTO subject_links(tenant, subject, delivery_seq) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute((event.tenant.0, subject_key(&subject.id), seq.0))?;
    }
    Ok(())
}

/// How a subject's id is kept in `subject_links`.
pub(super) fn subject_key(id: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&sha256(id.as_bytes())[..16]);
    key
}
