//! Tenants.

use gatepost_core::tenant::Tenant;
use gatepost_core::{TenantId, TenantKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::{DbError, DbResult};
use super::registry;
use super::row::{count, text, time, version, version_number};
use super::writer::Tx;
use crate::{Created, Page, PageRequest, PutTenant};

macro_rules! columns {
    () => {
        "key, id, name, environment, settings, registry_version, created_at, updated_at"
    };
}

fn read(row: &Row<'_>) -> DbResult<Tenant> {
    Ok(Tenant {
        key: TenantKey(row.get(0)?),
        id: text(row, 1)?.parse().map_err(|e| DbError::corrupt("tenant id", e))?,
        name: row.get(2)?,
        environment: text(row, 3)?.parse().map_err(|()| DbError::corrupt("tenant", "environment"))?,
        settings: serde_json::from_str(text(row, 4)?).map_err(|e| DbError::corrupt("tenant settings", e))?,
        registry_version: version(row.get(5)?)?,
        created_at: time(row.get(6)?),
        updated_at: time(row.get(7)?),
    })
}

pub(super) fn tenant(conn: &Connection, id: &TenantId) -> DbResult<Option<Tenant>> {
    let sql = concat!("SELECT ", columns!(), " FROM tenants WHERE id = ?1 AND deleted_at IS NULL");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query([id.as_str()])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn by_key(conn: &Connection, key: TenantKey) -> DbResult<Option<Tenant>> {
    let sql = concat!("SELECT ", columns!(), " FROM tenants WHERE key = ?1 AND deleted_at IS NULL");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query([key.0])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn tenants(conn: &Connection, page: PageRequest) -> DbResult<Page<Tenant>> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM tenants WHERE deleted_at IS NULL AND key < ?1 ORDER BY key DESC LIMIT ?2"
    );
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((page.after.unwrap_or(i64::MAX), count(page.limit) + 1))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read(row)?);
    }
    Ok(cut(list, page.limit, |tenant| tenant.key.0))
}

/// A page from up to one row more than it may hold.
pub(super) fn cut<T>(mut rows: Vec<T>, limit: usize, number: impl Fn(&T) -> i64) -> Page<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = if more { rows.last().map(number) } else { None };
    Page { rows, next }
}

pub(super) fn put(tx: &Tx<'_>, put: &PutTenant) -> DbResult<(Tenant, Created)> {
    let settings = |settings| serde_json::to_string(settings).map_err(|e| DbError::corrupt("tenant settings", e));
    let present = tenant(tx.conn, &put.id)?;
    let required = present.as_ref().is_some_and(|tenant| tenant.settings.require_verification);
    let created = if present.is_some() { Created::No } else { Created::Yes };
    if let Some(present) = present {
        tx.conn
            .prepare_cached(
                "UPDATE tenants SET name = ?2, environment = ?3, settings = ?4, updated_at = ?5 WHERE key = ?1",
            )?
            .execute((
                present.key.0,
                put.name.clone().unwrap_or(present.name),
                put.environment.unwrap_or(present.environment).as_str(),
                settings(put.settings.as_ref().unwrap_or(&present.settings))?,
                put.now.as_micros(),
            ))?;
    } else {
        tx.conn
            .prepare_cached(
                "INSERT INTO tenants(id, name, environment, settings, registry_version, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, 0, ?5, ?5)",
            )?
            .execute((
                put.id.as_str(),
                put.name.clone().flatten(),
                put.environment.unwrap_or_default().as_str(),
                settings(&put.settings.clone().unwrap_or_default())?,
                put.now.as_micros(),
            ))?;
    }
    let mut now = tenant(tx.conn, &put.id)?.ok_or_else(|| DbError::corrupt("tenant", "gone after it was put"))?;
    if now.settings.require_verification != required {
        now.registry_version = require_verification(tx, &now)?;
    }
    Ok((now, created))
}

/// What matches depends on it, so it is a change of the registry (P4).
fn require_verification(tx: &Tx<'_>, tenant: &Tenant) -> DbResult<u64> {
    let required = tenant.settings.require_verification;
    let version = registry::next_version(tx.conn, tenant.key)?.unwrap_or(tenant.registry_version);
    tx.conn.prepare_cached("UPDATE tenants SET must_verify = ?2 WHERE key = ?1")?.execute((tenant.key.0, required))?;
    tx.conn
        .prepare_cached("INSERT INTO tenant_revisions(tenant, from_version, must_verify) VALUES (?1, ?2, ?3)")?
        .execute((tenant.key.0, version_number(version), required))?;
    Ok(version)
}

pub(super) fn delete(tx: &Tx<'_>, id: &TenantId, now: Timestamp) -> DbResult<Option<Tenant>> {
    let Some(tenant) = tenant(tx.conn, id)? else { return Ok(None) };
    tx.conn
        .prepare_cached("UPDATE tenants SET deleted_at = ?2 WHERE key = ?1")?
        .execute((tenant.key.0, now.as_micros()))?;
    // A key names its tenant by id: left alone, it would open the next tenant of that id.
    tx.conn.prepare_cached("DELETE FROM keys WHERE tenant = ?1")?.execute([id.as_str()])?;
    Ok(Some(tenant))
}

/// Asks for [`registry_version`].
pub(super) const REGISTRY_VERSION: &str = "SELECT registry_version FROM tenants WHERE key = ?1 AND deleted_at IS NULL";

/// The registry version of a tenant that is not deleted.
pub(super) fn registry_version(conn: &Connection, tenant: TenantKey) -> DbResult<Option<u64>> {
    let found: Option<i64> =
        conn.prepare_cached(REGISTRY_VERSION)?.query_row([tenant.0], |row| row.get(0)).optional()?;
    found.map(version).transpose()
}
