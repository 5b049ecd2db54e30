//! What people do with deliveries: retry and cancel.

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::grouping::Grouping;
use gatepost_core::{DeliverySeq, TenantKey, Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension};

use super::deliveries::{due_by_seq, row_by_seq};
use super::error::{DbError, DbResult};
use super::owe::grouping;
use super::queues::NOT_YET;
use super::row::{deleted_for, reason_number, state, state_number};
use super::writer::Tx;
use super::{batches, erasure, queues, registry};
use crate::{CancelOutcome, Due, RetryOutcome, Wake};

/// Whether a delivery exists, and what of its webhook.
struct Standing {
    state: DeliveryState,
    webhook: WebhookKey,
    enabled: bool,
    /// By its webhook's deletion; not so the news of that.
    /// Its webhook is deleted, and it is cancelled by that.
    deleted: bool,
    /// Its webhook is deleted.
    without_webhook: bool,
}

fn standing(conn: &Connection, tenant: TenantKey, seq: DeliverySeq) -> DbResult<Option<Standing>> {
    let found: Option<(i64, bool, bool, i64, bool)> = conn
        .prepare_cached(concat!(
            "SELECT d.state, w.enabled, ",
            deleted_for!(),
            " IS NOT NULL, w.key, w.deleted_at IS NOT NULL
             FROM deliveries d JOIN webhooks w ON w.key = d.webhook JOIN tenants t ON t.key = d.tenant
             WHERE d.seq = ?1 AND d.tenant = ?2 AND t.deleted_at IS NULL"
        ))?
        .query_row((seq.0, tenant.0), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .optional()?;
    let Some((number, enabled, deleted, webhook, without_webhook)) = found else { return Ok(None) };
    Ok(Some(Standing { state: state(number)?, webhook: WebhookKey(webhook), enabled, deleted, without_webhook }))
}

pub(super) fn retry(tx: &Tx<'_>, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> DbResult<RetryOutcome> {
    let webhook = match standing(tx.conn, tenant, seq)? {
        None => return Ok(RetryOutcome::NotFound),
        Some(Standing { without_webhook: true, .. }) => return Ok(RetryOutcome::WebhookDeleted),
        Some(Standing { enabled: false, .. }) => return Ok(RetryOutcome::WebhookDisabled),
        Some(standing) => standing.webhook,
    };
    if erasure::touches(tx.conn, seq)? {
        return Ok(RetryOutcome::Erased);
    }
    let mut wakes = Vec::new();
    let due = tx.due(now);
    batches::close(tx.conn, webhook, seq, due, &mut wakes)?;
    queues::leave(tx.conn, seq, due, &mut wakes)?;
    tx.conn
        .prepare_cached(
            "UPDATE deliveries SET state = 0, reason = NULL, due = ?2, budget_start = attempts, manual = 1,
                 generation = generation + 1, updated_at = ?4, grouping = grouping & ?3 WHERE seq = ?1",
        )?
        .execute((seq.0, due.as_micros(), !grouping::ORDERED, now.as_micros()))?;
    let reopened = stand_in_line(tx.conn, webhook, seq, due, &mut wakes)?;
    Ok(RetryOutcome::Reopened(Box::new(reopened), wakes))
}

/// A reopened delivery takes its place at the end of the queue it belongs to by what its webhook asks
/// for now; it is due at once where it belongs to none, or is the only one.
fn stand_in_line(
    conn: &Connection,
    webhook: WebhookKey,
    seq: DeliverySeq,
    now: Timestamp,
    wakes: &mut Vec<Wake>,
) -> DbResult<Due> {
    let there = || DbError::corrupt("delivery", "gone after it was reopened");
    let due = due_by_seq(conn, seq)?.ok_or_else(there)?;
    let present = registry::by_key(conn, webhook)?.ok_or_else(there)?;
    let subject = due.events.single().and_then(|event| event.subject.as_ref());
    let grouping = Grouping { batch: None, ..Grouping::of(&present.config) };
    // Nobody waits for a deleted webhook: its farewell goes alone.
    let Some(queue) = grouping.queue(subject).filter(|_| present.deleted_at.is_none()) else {
        wakes.push(Wake { tenant: due.tenant, webhook, seq, at: Some((due.urgency, now)) });
        return Ok(due);
    };
    conn.prepare_cached("UPDATE deliveries SET due = ?2, grouping = grouping | ?3 WHERE seq = ?1")?.execute((
        seq.0,
        NOT_YET,
        self::grouping::ORDERED,
    ))?;
    queues::join(conn, webhook, queue, seq, due.urgency)?;
    queues::refresh(conn, webhook, queue, now, wakes)?;
    if !wakes.iter().any(|wake| wake.seq == seq) {
        // It waits; what memory holds of it must go all the same.
        wakes.push(Wake { tenant: due.tenant, webhook, seq, at: None });
    }
    due_by_seq(conn, seq)?.ok_or_else(there)
}

pub(super) fn cancel(tx: &Tx<'_>, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> DbResult<CancelOutcome> {
    let webhook = match standing(tx.conn, tenant, seq)? {
        None => return Ok(CancelOutcome::NotFound),
        Some(standing) if standing.state.is_terminal() => return Ok(CancelOutcome::Terminal(standing.state)),
        Some(Standing { deleted: true, .. }) => return Ok(CancelOutcome::Terminal(DeliveryState::Cancelled)),
        Some(standing) => standing.webhook,
    };
    let mut wakes = Vec::new();
    tx.conn
        .prepare_cached("DELETE FROM open_batches WHERE webhook = ?1 AND delivery_seq = ?2")?
        .execute((webhook.0, seq.0))?;
    tx.conn
        .prepare_cached(
            "UPDATE deliveries SET state = ?2, reason = ?3, generation = generation + 1, updated_at = ?4
             WHERE seq = ?1",
        )?
        .execute((seq.0, state_number(DeliveryState::Cancelled), reason_number(Reason::ByUser), now.as_micros()))?;
    queues::leave(tx.conn, seq, tx.due(now), &mut wakes)?;
    let row = row_by_seq(tx.conn, tenant, seq)?.ok_or_else(|| DbError::corrupt("delivery", "its event is gone"))?;
    Ok(CancelOutcome::Cancelled(Box::new(row), wakes))
}
