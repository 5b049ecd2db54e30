//! API keys.

use gatepost_core::{KeyId, Timestamp};
use rusqlite::{Connection, Row};

use super::error::{DbError, DbResult};
use super::row::{count, time};
use super::tenants::cut;
use super::writer::Tx;
use crate::{KeyRow, Page, PageRequest, Scope};

fn bit(scope: Scope) -> i64 {
    match scope {
        Scope::Admin => 1,
        Scope::Manage => 2,
        Scope::Publish => 4,
        Scope::Invoke => 8,
        Scope::Read => 16,
    }
}

fn read(row: &Row<'_>) -> DbResult<(i64, KeyRow)> {
    let bits: i64 = row.get(4)?;
    let tenant: Option<String> = row.get(5)?;
    let key = KeyRow {
        id: KeyId::from_bytes(row.get(1)?),
        name: row.get(2)?,
        hash: row.get(3)?,
        scopes: Scope::ALL.into_iter().filter(|scope| bits & bit(*scope) != 0).collect(),
        tenant: tenant.map(|id| id.parse().map_err(|e| DbError::corrupt("key", e))).transpose()?,
        expires_at: row.get::<_, Option<i64>>(6)?.map(time),
        created_at: time(row.get(7)?),
    };
    Ok((row.get(0)?, key))
}

pub(super) fn keys(conn: &Connection, page: PageRequest) -> DbResult<Page<KeyRow>> {
    let mut found = conn.prepare_cached(
        "SELECT key, id, name, hash, scopes, tenant, expires_at, created_at FROM keys
         WHERE key < ?1 ORDER BY key DESC LIMIT ?2",
    )?;
    let mut rows = found.query((page.after.unwrap_or(i64::MAX), count(page.limit) + 1))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read(row)?);
    }
    let page = cut(list, page.limit, |(number, _)| *number);
    Ok(Page { rows: page.rows.into_iter().map(|(_, key)| key).collect(), next: page.next })
}

/// Asked again with the same id (the first answer was lost), it changes nothing.
pub(super) fn create(tx: &Tx<'_>, key: &KeyRow) -> DbResult<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO keys(id, name, hash, scopes, tenant, expires_at, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(id) DO NOTHING",
        )?
        .execute((
            key.id.to_bytes(),
            &key.name,
            key.hash,
            key.scopes.iter().fold(0, |bits, scope| bits | bit(*scope)),
            key.tenant.as_ref().map(|tenant| tenant.as_str()),
            key.expires_at.map(Timestamp::as_micros),
            key.created_at.as_micros(),
        ))?;
    Ok(())
}

pub(super) fn delete(tx: &Tx<'_>, id: KeyId) -> DbResult<bool> {
    Ok(tx.conn.prepare_cached("DELETE FROM keys WHERE id = ?1")?.execute([id.to_bytes()])? == 1)
}
