//! Work nobody waits for, in steps small enough not to hold up commits.

use gatepost_core::Timestamp;
use gatepost_core::delivery::{DeliveryState, Reason};
use rusqlite::{Connection, OptionalExtension};

use super::error::DbResult;
use super::row::{count, reason_number, state_number};
use super::writer::{Tx, note_numbers};
use super::{idempotency, jobs, making, removal, tenant_types};
use crate::SweepProgress;

pub(super) fn sweep(tx: &Tx<'_>, now: Timestamp, max_rows: usize) -> DbResult<SweepProgress> {
    let max_rows = max_rows.max(1);
    // Tenants first: what is removed need not be cancelled.
    let mut rows = deleted_tenant(tx, max_rows)?;
    if rows < max_rows {
        rows += deleted_webhook(tx.conn, max_rows - rows)?;
    }
    if rows < max_rows {
        rows += idempotency::sweep(tx.conn, now, max_rows - rows)?;
    }
    let left = max_rows.saturating_sub(rows);
    let items = if left > 0 { jobs::remove_items(tx.conn, left)? } else { 0 };
    rows += items;
    Ok(SweepProgress {
        rows,
        more: (items > 0 && items == left) || more(tx.conn)? || idempotency::to_sweep(tx.conn, now)?,
    })
}

fn more(conn: &Connection) -> DbResult<bool> {
    Ok(conn
        .prepare_cached(
            "SELECT 1 FROM webhooks w INDEXED BY webhooks_unswept WHERE deleted_at IS NOT NULL AND swept = 0
                 AND NOT EXISTS (SELECT 1 FROM unmade u WHERE u.tenant = w.tenant)
             UNION ALL SELECT 1 FROM tenants INDEXED BY tenants_deleted WHERE deleted_at IS NOT NULL",
        )?
        .exists([])?)
}

/// Writes down what deleting a webhook meant for its waiting deliveries; they read the same before. Not
/// while some may not be made yet.
fn deleted_webhook(conn: &Connection, max_rows: usize) -> DbResult<usize> {
    let mut done = 0;
    while done < max_rows {
        let next: Option<(i64, i64)> = conn
            .prepare_cached(
                "SELECT key, deleted_at FROM webhooks w INDEXED BY webhooks_unswept
                 WHERE deleted_at IS NOT NULL AND swept = 0
                   AND NOT EXISTS (SELECT 1 FROM unmade u WHERE u.tenant = w.tenant) ORDER BY key LIMIT 1",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((webhook, deleted_at)) = next else { break };
        let wanted = max_rows - done;
        let cancelled = conn
            .prepare_cached(
                "UPDATE deliveries SET state = ?2, reason = ?3, generation = generation + 1,
                     updated_at = max(coalesce(updated_at, created_at), ?4)
                 WHERE seq IN (SELECT seq FROM deliveries INDEXED BY deliveries_due
                               WHERE webhook = ?1 AND state = 0
                                 AND seq IS NOT (SELECT farewell FROM webhooks WHERE key = ?1) LIMIT ?5)",
            )?
            .execute((
                webhook,
                state_number(DeliveryState::Cancelled),
                reason_number(Reason::WebhookDeleted),
                deleted_at,
                count(wanted),
            ))?;
        done += cancelled;
        let places = leave_queues(conn, webhook, wanted - cancelled)?;
        done += places;
        if cancelled + places < wanted {
            conn.prepare_cached("UPDATE webhooks SET swept = 1 WHERE key = ?1")?.execute([webhook])?;
            done += 1;
        }
    }
    Ok(done)
}

/// Nobody waits for a deleted webhook.
fn leave_queues(conn: &Connection, webhook: i64, limit: usize) -> DbResult<usize> {
    conn.prepare_cached("DELETE FROM open_batches WHERE webhook = ?1")?.execute([webhook])?;
    Ok(conn
        .prepare_cached(
            "DELETE FROM queue_places WHERE delivery_seq IN
                 (SELECT delivery_seq FROM queue_places WHERE webhook = ?1 LIMIT ?2)",
        )?
        .execute((webhook, count(limit)))?)
}

/// Removes rows of one deleted tenant: deliveries, then events, then webhooks, then itself.
fn deleted_tenant(tx: &Tx<'_>, max_rows: usize) -> DbResult<usize> {
    let conn = tx.conn;
    let next: Option<i64> = conn
        .prepare_cached(
            "SELECT key FROM tenants INDEXED BY tenants_deleted WHERE deleted_at IS NOT NULL ORDER BY key LIMIT 1",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(tenant) = next else { return Ok(0) };
    note_numbers(tx)?;
    // First what would make more of them.
    let unmade = making::remove_tenant(conn, tenant, max_rows)?;
    if unmade >= max_rows {
        return Ok(unmade);
    }
    let deliveries = numbers(
        conn,
        "SELECT seq FROM deliveries INDEXED BY deliveries_by_tenant WHERE tenant = ?1 ORDER BY seq LIMIT ?2",
        tenant,
        max_rows - unmade,
    )?;
    removal::deliveries(conn, &deliveries)?;
    let mut done = unmade + deliveries.len();
    let events = numbers(
        conn,
        "SELECT seq FROM events INDEXED BY events_by_tenant WHERE tenant = ?1 ORDER BY seq LIMIT ?2",
        tenant,
        max_rows - done,
    )?;
    removal::events(conn, &events)?;
    done += events.len();
    let webhooks = numbers(
        conn,
        "SELECT key FROM webhooks INDEXED BY webhooks_by_tenant WHERE tenant = ?1 LIMIT ?2",
        tenant,
        max_rows - done,
    )?;
    for key in &webhooks {
        remove_webhook(conn, *key)?;
    }
    done += webhooks.len();
    done += tenant_types::remove_of(conn, tenant, max_rows - done)?;
    done += jobs::remove_of_tenant(conn, tenant, max_rows - done)?;
    done += super::hooks::remove_tenant(conn, tenant, max_rows - done)?;
    if done < max_rows {
        super::own_events::forget_tenant(conn, gatepost_core::TenantKey(tenant))?;
        conn.prepare_cached("DELETE FROM tenant_revisions WHERE tenant = ?1")?.execute([tenant])?;
        conn.prepare_cached("DELETE FROM tenants WHERE key = ?1")?.execute([tenant])?;
        done += 1;
    }
    Ok(done)
}

/// Removes a delivery and everything that is kept with it.
pub(super) fn remove_delivery(conn: &Connection, seq: i64) -> DbResult<()> {
    removal::deliveries(conn, &[seq])
}

/// Removes an event whose deliveries are gone.
pub(super) fn remove_event(conn: &Connection, seq: i64) -> DbResult<()> {
    removal::events(conn, &[seq])
}

/// Removes a webhook whose deliveries are gone, and its history.
pub(super) fn remove_webhook(conn: &Connection, key: i64) -> DbResult<()> {
    run_for(
        conn,
        key,
        &[
            "DELETE FROM webhook_revisions WHERE webhook = ?1",
            "DELETE FROM webhook_health WHERE webhook = ?1",
            "DELETE FROM open_batches WHERE webhook = ?1",
            "DELETE FROM webhooks WHERE key = ?1",
        ],
    )
}

fn run_for(conn: &Connection, number: i64, statements: &[&str]) -> DbResult<()> {
    for sql in statements {
        conn.prepare_cached(sql)?.execute([number])?;
    }
    Ok(())
}

fn numbers(conn: &Connection, sql: &str, tenant: i64, limit: usize) -> DbResult<Vec<i64>> {
    let mut found = conn.prepare_cached(sql)?;
    let rows = found.query_map((tenant, count(limit)), |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
