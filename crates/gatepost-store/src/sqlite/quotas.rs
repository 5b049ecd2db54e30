//! Counting for quotas.

use async_trait::async_trait;
use gatepost_core::TenantKey;
use rusqlite::Connection;

use super::SqliteStore;
use super::error::DbResult;
use super::making;
use crate::{QuotaStore, Result};

#[async_trait]
impl QuotaStore for SqliteStore {
    async fn webhook_count(&self, tenant: TenantKey) -> Result<u64> {
        self.read(move |conn| webhooks(conn, tenant)).await
    }

    async fn pending_count(&self, tenant: TenantKey, at_most: u64) -> Result<u64> {
        self.read(move |conn| pending(conn, tenant, at_most)).await
    }
}

fn webhooks(conn: &Connection, tenant: TenantKey) -> DbResult<u64> {
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM webhooks WHERE tenant = ?1 AND deleted_at IS NULL")?
        .query_row([tenant.0], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Walks the index of what is due, webhook by webhook (CROSS JOIN keeps that order), and no rows.
fn pending(conn: &Connection, tenant: TenantKey, at_most: u64) -> DbResult<u64> {
    let count: i64 = conn
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM webhooks w CROSS JOIN deliveries d ON d.webhook = w.key AND d.state = 0
                                   WHERE w.tenant = ?1 AND w.deleted_at IS NULL LIMIT ?2)",
        )?
        .query_row((tenant.0, i64::try_from(at_most).unwrap_or(i64::MAX)), |row| row.get(0))?;
    let owed = u64::try_from(count).unwrap_or(0).saturating_add(making::owed(conn, tenant)?);
    Ok(owed.min(at_most))
}

#[cfg(test)]
mod tests {
    use super::super::schema::{Place, migrate, open_writer};

    #[test]
    fn counting_reads_an_index_and_no_delivery() {
        let mut conn = open_writer(&Place::Memory, 1_000).unwrap();
        migrate(&mut conn).unwrap();
        let plan: Vec<String> = conn
            .prepare(
                "EXPLAIN QUERY PLAN
                 SELECT count(*) FROM (SELECT 1 FROM webhooks w CROSS JOIN deliveries d ON d.webhook = w.key AND d.state = 0
                                       WHERE w.tenant = ?1 AND w.deleted_at IS NULL LIMIT ?2)",
            )
            .unwrap()
            .query_map((1, 10), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let plan = plan.join("; ");
        assert!(plan.contains("SEARCH d USING COVERING INDEX deliveries_due (webhook=?)"), "{plan}");
    }
}
