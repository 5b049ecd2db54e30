//! Recording what attempts came to.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use gatepost_core::delivery::{AttemptRecord, DeliveryState, Reason};
use gatepost_core::event::Urgency;
use gatepost_core::{DeliverySeq, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension, Row};

use super::deliveries::attempts;
use super::erasure;
use super::error::DbResult;
use super::row::{attempt_bytes, deleted_for, reason_number, state, state_number, time, urgency, write_attempt};
use super::writer::Tx;
use super::{health, own_events, queues};
use crate::{Next, SettleAnswer, Settled, Settlement, Wake};

/// Bytes up to which a first attempt is folded into its delivery's row. Longer ones would make the
/// row wide that every list reads (ADR 0001, Consequences).
const FOLDED: usize = 512;

pub(super) fn settle(tx: &mut Tx<'_>, settlements: &[Settlement]) -> DbResult<SettleAnswer> {
    let mut settling = Settling { standings: HashMap::new(), record: Vec::with_capacity(FOLDED), wakes: Vec::new() };
    let results = settlements.iter().map(|settlement| settling.one(tx, settlement)).collect::<DbResult<_>>()?;
    Ok(SettleAnswer { results, wakes: settling.wakes })
}

/// What is known of a webhook during one call: nothing in it deletes webhooks or tenants.
#[derive(Clone, Copy)]
struct Standing {
    deleted: bool,
    farewell: Option<i64>,
}

/// Outcomes of one call.
struct Settling {
    /// Webhooks whose tenants are there.
    standings: HashMap<WebhookKey, Option<Standing>>,
    /// Where attempts are written before they are kept.
    record: Vec<u8>,
    wakes: Vec<Wake>,
}

impl Settling {
    fn one(&mut self, tx: &mut Tx<'_>, settlement: &Settlement) -> DbResult<Settled> {
        if !self.expected(tx, settlement)? {
            return unexpected(tx, settlement, &mut self.wakes);
        }
        keep_beside(tx.conn, settlement)?;
        tell(tx.conn, settlement)?;
        if settlement.ordered {
            go_on(tx, settlement, &mut self.wakes)?;
        }
        Ok(Settled::Recorded)
    }

    /// Whether the delivery's webhook is there for it.
    fn is_owed(&mut self, tx: &mut Tx<'_>, settlement: &Settlement) -> DbResult<bool> {
        let standing = match self.standings.entry(settlement.webhook) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => *unknown.insert(standing(tx, settlement.webhook)?),
        };
        Ok(standing.is_some_and(|standing| !standing.deleted || standing.farewell == Some(settlement.seq.0)))
    }

    /// The case of every day in one statement: the delivery is as it was handed out. Otherwise nothing
    /// is changed and the answer is no.
    fn expected(&mut self, tx: &mut Tx<'_>, settlement: &Settlement) -> DbResult<bool> {
        let attempt = &settlement.attempt;
        let Some(before) = attempt.number.checked_sub(1) else { return Ok(false) };
        if !self.is_owed(tx, settlement)? {
            return Ok(false);
        }
        write_attempt(&mut self.record, settlement.generation, attempt.number, attempt)?;
        let record = self.record.as_slice();
        let folded = before == 0 && record.len() <= FOLDED;
        let ended = attempt.ended_at().as_micros();
        let Settlement { seq, tenant, webhook, generation, .. } = settlement;
        let changed = if folded && settlement.next == Next::Delivered {
            tx.ready
                .delivered
                .get(tx.conn, DELIVERED)?
                .execute((seq.0, tenant.0, webhook.0, generation, record, ended))?
        } else {
            let (state, reason, due) = outcome(&settlement.next);
            let first = folded.then_some(record);
            tx.ready
                .settled
                .get(tx.conn, SETTLED)?
                .execute((seq.0, tenant.0, webhook.0, generation, before, state, reason, due, first, ended))?
        };
        if changed == 1 && !folded {
            tx.ready.add_attempt.get(tx.conn, ADD_ATTEMPT)?.execute((seq.0, attempt.number, record))?;
        }
        Ok(changed == 1)
    }
}

/// Delivered at the first attempt.
const DELIVERED: &str = "UPDATE deliveries SET state = 2, reason = NULL, attempts = 1, first_attempt = ?5,
        updated_at = ?6
     WHERE seq = ?1 AND tenant = ?2 AND webhook = ?3 AND generation = ?4 AND attempts = 0 AND state = 0";
/// Whatever came of whichever attempt.
const SETTLED: &str = "UPDATE deliveries SET state = ?6, reason = ?7, due = coalesce(?8, due), attempts = ?5 + 1,
        first_attempt = coalesce(?9, first_attempt), updated_at = ?10
     WHERE seq = ?1 AND tenant = ?2 AND webhook = ?3 AND generation = ?4 AND attempts = ?5 AND state = 0";
const ADD_ATTEMPT: &str = "INSERT INTO attempts(delivery_seq, number, record) VALUES (?1, ?2, ?3)";

fn standing(tx: &mut Tx<'_>, webhook: WebhookKey) -> DbResult<Option<Standing>> {
    let read = |row: &Row<'_>| Ok(Standing { deleted: row.get(0)?, farewell: row.get(1)? });
    let sql = "SELECT w.deleted_at IS NOT NULL, w.farewell FROM webhooks w JOIN tenants t ON t.key = w.tenant
               WHERE w.key = ?1 AND t.deleted_at IS NULL";
    Ok(tx.ready.standing.get(tx.conn, sql)?.query_row([webhook.0], read).optional()?)
}

/// What an outcome means beyond its delivery: giving up is told, and a receiver that is gone for good is
/// not asked again, whatever becomes of the process right after.
fn tell(conn: &Connection, settlement: &Settlement) -> DbResult<()> {
    let at = settlement.attempt.ended_at();
    if let Next::End(DeliveryState::Failed, reason) = settlement.next
        && settlement.tell
    {
        own_events::note_exhausted(conn, settlement.tenant, settlement.seq, reason, at)?;
    }
    if let Some(reason) = settlement.disable {
        health::disable(conn, settlement.webhook, settlement.attempt.sent.revision, reason, at)?;
    }
    Ok(())
}

/// What a recorded outcome means for the delivery's queue: at its end the next one is due. Otherwise it
/// stays the first, and may have become more urgent while it was under way.
fn go_on(tx: &Tx<'_>, settlement: &Settlement, wakes: &mut Vec<Wake>) -> DbResult<()> {
    let Next::Retry(due) = settlement.next else {
        return queues::leave(tx.conn, settlement.seq, tx.due(settlement.attempt.ended_at()), wakes);
    };
    let most = tx
        .conn
        .prepare_cached("SELECT urgency FROM deliveries WHERE seq = ?1")?
        .query_row([settlement.seq.0], |row| row.get(0))?;
    wakes.push(wake(settlement, Some((urgency(most)?, due))));
    Ok(())
}

fn wake(settlement: &Settlement, at: Option<(Urgency, Timestamp)>) -> Wake {
    Wake { tenant: settlement.tenant, webhook: settlement.webhook, seq: settlement.seq, at }
}

/// What a settlement makes of its delivery: state, reason, and the due time if it changes.
fn outcome(next: &Next) -> (i64, Option<i64>, Option<i64>) {
    match next {
        Next::Delivered => (state_number(DeliveryState::Delivered), None, None),
        Next::Retry(due) => (state_number(DeliveryState::Pending), None, Some(due.as_micros())),
        Next::End(state, reason) => (state_number(*state), Some(reason_number(*reason)), None),
    }
}

fn add_attempt(conn: &Connection, seq: DeliverySeq, number: u32, record: &[u8]) -> DbResult<()> {
    conn.prepare_cached(ADD_ATTEMPT)?.execute((seq.0, number, record))?;
    Ok(())
}

/// The body (the first one sent stays, P3) and the webhook's pause.
fn keep_beside(conn: &Connection, settlement: &Settlement) -> DbResult<()> {
    if let Some(body) = &settlement.freeze {
        conn.prepare_cached("INSERT INTO bodies(delivery_seq, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute((settlement.seq.0, &**body))?;
    }
    if let Some(until) = settlement.pause_until {
        conn.prepare_cached("UPDATE webhooks SET paused_until = max(coalesce(paused_until, ?2), ?2) WHERE key = ?1")?
            .execute((settlement.webhook.0, until.as_micros()))?;
    }
    Ok(())
}

/// A delivery as it stands when it is not as handed out.
struct Present {
    state: DeliveryState,
    generation: u32,
    attempts: u32,
    webhook_deleted_at: Option<Timestamp>,
}

fn present(conn: &Connection, settlement: &Settlement) -> DbResult<Option<Present>> {
    let found: Option<(i64, u32, u32, Option<i64>)> = conn
        .prepare_cached(concat!(
            "SELECT d.state, d.generation, d.attempts, ",
            deleted_for!(),
            "
             FROM deliveries d JOIN webhooks w ON w.key = d.webhook JOIN tenants t ON t.key = d.tenant
             WHERE d.seq = ?1 AND d.tenant = ?2 AND d.webhook = ?3 AND t.deleted_at IS NULL"
        ))?
        .query_row((settlement.seq.0, settlement.tenant.0, settlement.webhook.0), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((number, generation, attempts, deleted_at)) = found else { return Ok(None) };
    Ok(Some(Present { state: state(number)?, generation, attempts, webhook_deleted_at: deleted_at.map(time) }))
}

/// The delivery has moved on, or this settlement was recorded before.
fn unexpected(tx: &Tx<'_>, settlement: &Settlement, wakes: &mut Vec<Wake>) -> DbResult<Settled> {
    let conn = tx.conn;
    // Gone with its tenant: nothing is left to keep an attempt with.
    let Some(present) = present(conn, settlement)? else { return Ok(Settled::Superseded) };
    let same_turn = present.generation == settlement.generation;
    if was_recorded(conn, settlement)? {
        if settlement.ordered {
            // The first answer was lost, and with it what else became due.
            wakes.push(wake(settlement, None));
        }
        return Ok(if same_turn { Settled::Recorded } else { Settled::Superseded });
    }
    let bare;
    let settlement = if erasure::touches(conn, settlement.seq)? {
        // What was erased meanwhile must not come back with a late answer.
        bare = erasure::bare_settlement(settlement);
        &bare
    } else {
        settlement
    };
    let number = present.attempts + 1;
    keep_attempt(conn, settlement, number)?;
    keep_beside(conn, settlement)?;
    let open = present.state == DeliveryState::Pending;
    let ended = settlement.attempt.ended_at();
    match present.webhook_deleted_at {
        Some(deleted_at) if open => {
            let reason = reason_number(Reason::WebhookDeleted);
            let at = ended.max(deleted_at);
            end_attempt(
                conn,
                settlement.seq,
                number,
                (state_number(DeliveryState::Cancelled), Some(reason), None),
                at,
            )?;
            conn.prepare_cached("UPDATE deliveries SET generation = generation + 1 WHERE seq = ?1")?
                .execute([settlement.seq.0])?;
            queues::leave(conn, settlement.seq, tx.due(ended), wakes)?;
            Ok(Settled::Superseded)
        }
        // Its number was taken by an attempt of an earlier turn that came in late.
        None if open && same_turn => {
            end_attempt(conn, settlement.seq, number, outcome(&settlement.next), ended)?;
            tell(conn, settlement)?;
            if settlement.ordered {
                go_on(tx, settlement, wakes)?;
            }
            Ok(Settled::Recorded)
        }
        _ => {
            // Not of the present budget: it must not use it up.
            conn.prepare_cached(
                "UPDATE deliveries SET attempts = ?2, budget_start = budget_start + 1,
                     updated_at = max(coalesce(updated_at, created_at), ?3) WHERE seq = ?1",
            )?
            .execute((settlement.seq.0, number, ended.as_micros()))?;
            Ok(Settled::Superseded)
        }
    }
}

/// Whether this very attempt is kept already: of this turn, with this number, begun at that moment.
fn was_recorded(conn: &Connection, settlement: &Settlement) -> DbResult<bool> {
    let attempt = &settlement.attempt;
    Ok(attempts(conn, settlement.seq)?.iter().any(|kept| {
        kept.generation == settlement.generation
            && kept.given == attempt.number
            && kept.record.started_at == attempt.started_at
    }))
}

/// Keeps the attempt as number `number`, which is free.
fn keep_attempt(conn: &Connection, settlement: &Settlement, number: u32) -> DbResult<()> {
    let given = settlement.attempt.number;
    let record =
        attempt_bytes(settlement.generation, given, &AttemptRecord { number, ..(*settlement.attempt).clone() })?;
    if number > 1 || record.len() > FOLDED {
        return add_attempt(conn, settlement.seq, number, &record);
    }
    conn.prepare_cached("UPDATE deliveries SET first_attempt = ?2 WHERE seq = ?1")?
        .execute((settlement.seq.0, record))?;
    Ok(())
}

fn end_attempt(
    conn: &Connection,
    seq: DeliverySeq,
    attempts: u32,
    (state, reason, due): (i64, Option<i64>, Option<i64>),
    at: Timestamp,
) -> DbResult<()> {
    conn.prepare_cached(
        "UPDATE deliveries SET state = ?2, reason = ?3, due = coalesce(?4, due), attempts = ?5, updated_at = ?6
         WHERE seq = ?1",
    )?
    .execute((seq.0, state, reason, due, attempts, at.as_micros()))?;
    Ok(())
}
