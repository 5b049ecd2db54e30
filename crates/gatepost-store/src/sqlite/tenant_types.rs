//! Event types by tenant.

use async_trait::async_trait;
use gatepost_core::{EventSeq, TenantKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::SqliteStore;
use super::error::{DbError, DbResult};
use super::queue::Lane;
use super::requests::{ROW, SMALL};
use super::row::{count, is_live, text, time};
use super::writer::Tx;
use crate::{Created, EventTypeRow, PublishedType, PublishedTypes, Result, TenantTypeRow, TenantTypeStore};

/// Under this name `counters` has the first event whose type is not noted.
const NOTED: &str = "published_types";

#[async_trait]
impl TenantTypeStore for SqliteStore {
    async fn put_tenant_type(&self, tenant: TenantKey, row: EventTypeRow) -> Result<Option<Created>> {
        self.write(Lane::Other, SMALL, move |tx| put(tx, tenant, &row)).await
    }

    async fn delete_tenant_type(&self, tenant: TenantKey, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write(Lane::Other, SMALL, move |tx| delete(tx, tenant, &name)).await
    }

    async fn tenant_type(&self, tenant: TenantKey, name: &str) -> Result<Option<TenantTypeRow>> {
        let name = name.to_owned();
        self.read(move |conn| one(conn, tenant, &name)).await
    }

    async fn tenant_types(
        &self,
        tenant: TenantKey,
        after: Option<&str>,
        declared: bool,
        limit: usize,
    ) -> Result<Vec<TenantTypeRow>> {
        let after = after.map(str::to_owned);
        self.read(move |conn| list(conn, tenant, after.as_deref(), declared, limit)).await
    }

    async fn note_published(&self, types: Vec<PublishedType>, upto: EventSeq) -> Result<()> {
        self.write(Lane::Other, SMALL + ROW * types.len(), move |tx| note(tx, &types, upto)).await
    }

    async fn unnoted_types(&self, limit: usize) -> Result<PublishedTypes> {
        self.read(move |conn| unnoted(conn, limit)).await
    }
}

macro_rules! columns {
    () => {
        "name, definition, created_at, updated_at, last_published"
    };
}

fn read(row: &Row<'_>) -> DbResult<TenantTypeRow> {
    let bad = |e: &dyn std::fmt::Display| DbError::corrupt("event type", e);
    let definition: Option<String> = row.get(1)?;
    Ok(TenantTypeRow {
        name: text(row, 0)?.parse().map_err(|e| bad(&e))?,
        definition: definition.map(|text| serde_json::from_str(&text).map_err(|e| bad(&e))).transpose()?,
        created_at: time(row.get(2)?),
        updated_at: time(row.get(3)?),
        last_published: row.get::<_, Option<i64>>(4)?.map(time),
    })
}

fn one(conn: &Connection, tenant: TenantKey, name: &str) -> DbResult<Option<TenantTypeRow>> {
    if !is_live(conn, tenant)? {
        return Ok(None);
    }
    let sql = concat!("SELECT ", columns!(), " FROM tenant_types WHERE tenant = ?1 AND name = ?2");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((tenant.0, name))?;
    rows.next()?.map(read).transpose()
}

fn list(
    conn: &Connection,
    tenant: TenantKey,
    after: Option<&str>,
    declared: bool,
    limit: usize,
) -> DbResult<Vec<TenantTypeRow>> {
    let mut list = Vec::new();
    if !is_live(conn, tenant)? {
        return Ok(list);
    }
    let sql = if declared {
        concat!(
            "SELECT ",
            columns!(),
            " FROM tenant_types INDEXED BY tenant_types_declared
              WHERE tenant = ?1 AND name > ?2 AND definition IS NOT NULL ORDER BY name LIMIT ?3"
        )
    } else {
        concat!("SELECT ", columns!(), " FROM tenant_types WHERE tenant = ?1 AND name > ?2 ORDER BY name LIMIT ?3")
    };
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((tenant.0, after.unwrap_or(""), count(limit)))?;
    while let Some(row) = rows.next()? {
        list.push(read(row)?);
    }
    Ok(list)
}

fn put(tx: &Tx<'_>, tenant: TenantKey, row: &EventTypeRow) -> DbResult<Option<Created>> {
    if !is_live(tx.conn, tenant)? {
        return Ok(None);
    }
    let definition = row
        .definition
        .as_ref()
        .map(serde_json::to_string)
        .transpose()
        .map_err(|e| DbError::corrupt("event type", e))?;
    let present: Option<bool> = tx
        .conn
        .prepare_cached("SELECT definition IS NOT NULL FROM tenant_types WHERE tenant = ?1 AND name = ?2")?
        .query_row((tenant.0, row.name.as_str()), |found| found.get(0))
        .optional()?;
    tx.conn
        .prepare_cached(
            "INSERT INTO tenant_types(tenant, name, definition, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT(tenant, name) DO UPDATE SET definition = excluded.definition, updated_at = excluded.updated_at",
        )?
        .execute((tenant.0, row.name.as_str(), definition, row.created_at.as_micros(), row.updated_at.as_micros()))?;
    Ok(Some(if present == Some(true) { Created::No } else { Created::Yes }))
}

fn delete(tx: &Tx<'_>, tenant: TenantKey, name: &str) -> DbResult<bool> {
    if !is_live(tx.conn, tenant)? {
        return Ok(false);
    }
    let never_published = tx
        .conn
        .prepare_cached(
            "DELETE FROM tenant_types
             WHERE tenant = ?1 AND name = ?2 AND definition IS NOT NULL AND last_published IS NULL",
        )?
        .execute((tenant.0, name))?;
    let published = tx
        .conn
        .prepare_cached(
            "UPDATE tenant_types SET definition = NULL WHERE tenant = ?1 AND name = ?2 AND definition IS NOT NULL",
        )?
        .execute((tenant.0, name))?;
    Ok(never_published + published > 0)
}

fn note(tx: &Tx<'_>, types: &[PublishedType], upto: EventSeq) -> DbResult<()> {
    let mut add = tx.conn.prepare_cached(
        "INSERT INTO tenant_types(tenant, name, created_at, updated_at, last_published)
         SELECT ?1, ?2, ?3, ?3, ?3 FROM tenants WHERE key = ?1 AND deleted_at IS NULL
         ON CONFLICT(tenant, name) DO UPDATE SET last_published = excluded.last_published
             WHERE last_published IS NULL OR last_published < excluded.last_published",
    )?;
    for one in types {
        add.execute((one.tenant.0, one.name.as_str(), one.at.as_micros()))?;
    }
    tx.conn
        .prepare_cached(
            "INSERT INTO counters(name, next) VALUES (?1, ?2)
             ON CONFLICT(name) DO UPDATE SET next = max(next, excluded.next)",
        )?
        .execute((NOTED, upto.0 + 1))?;
    Ok(())
}

pub(super) fn unnoted(conn: &Connection, limit: usize) -> DbResult<PublishedTypes> {
    let from: Option<i64> = conn
        .prepare_cached("SELECT next FROM counters WHERE name = ?1")?
        .query_row([NOTED], |row| row.get(0))
        .optional()?;
    let mut found = conn.prepare_cached(
        "SELECT tenant, type, max(accepted_at), max(seq)
         FROM (SELECT seq, tenant, type, accepted_at FROM events WHERE seq >= ?1 ORDER BY seq LIMIT ?2)
         GROUP BY tenant, type",
    )?;
    let mut rows = found.query((from.unwrap_or(0), count(limit)))?;
    let mut page = PublishedTypes::default();
    while let Some(row) = rows.next()? {
        page.types.push(PublishedType {
            tenant: TenantKey(row.get(0)?),
            name: text(row, 1)?.parse().map_err(|e| DbError::corrupt("event type", e))?,
            at: Timestamp::from_micros(row.get(2)?),
        });
        page.upto = page.upto.max(Some(EventSeq(row.get(3)?)));
    }
    Ok(page)
}

/// Removes at most `max_rows` of a deleted tenant's types; how many it were.
pub(super) fn remove_of(conn: &Connection, tenant: i64, max_rows: usize) -> DbResult<usize> {
    Ok(conn
        .prepare_cached(
            "DELETE FROM tenant_types WHERE tenant = ?1 AND name IN
                 (SELECT name FROM tenant_types WHERE tenant = ?1 LIMIT ?2)",
        )?
        .execute((tenant, count(max_rows)))?)
}
