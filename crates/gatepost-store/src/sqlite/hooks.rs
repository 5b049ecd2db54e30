//! Hooks and points.

use gatepost_core::{HookId, TenantId, TenantKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::{DbError, DbResult};
use super::row::{count, is_live, text, time, version};
use super::tenants::{cut, tenant as tenant_by_id};
use super::writer::Tx;
use crate::hooks::{
    HookCounters, HookRegistry, HookTest, HookUpdate, HookUpdateOutcome, NewHook, PointRemoval, StoredHook, StoredPoint,
};
use crate::{Created, Page, PageRequest};

macro_rules! columns {
    () => {
        "h.key, h.tenant, h.id, h.revision, h.config, h.sealed_secrets, h.verified_at, h.last_test, h.counters, \
         h.created_at, h.updated_at"
    };
}

/// A JSON column.
pub(super) fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> DbResult<T> {
    serde_json::from_str(text).map_err(|e| DbError::corrupt(what, e))
}

/// A value for a JSON column.
pub(super) fn to_json<T: serde::Serialize>(what: &str, value: &T) -> DbResult<String> {
    serde_json::to_string(value).map_err(|e| DbError::corrupt(what, e))
}

fn read(row: &Row<'_>) -> DbResult<StoredHook> {
    let last_test: Option<String> = row.get(7)?;
    let counters: Option<String> = row.get(8)?;
    Ok(StoredHook {
        key: row.get(0)?,
        tenant: TenantKey(row.get(1)?),
        id: HookId::from_bytes(row.get(2)?),
        revision: row.get(3)?,
        config: json("hook", text(row, 4)?)?,
        sealed_secrets: row.get(5)?,
        verified_at: row.get::<_, Option<i64>>(6)?.map(time),
        last_test: last_test.as_deref().map(|text| json("hook test", text)).transpose()?,
        counters: counters.as_deref().map_or(Ok(HookCounters::default()), |text| json("hook counters", text))?,
        created_at: time(row.get(9)?),
        updated_at: time(row.get(10)?),
    })
}

pub(super) fn hook(conn: &Connection, tenant: TenantKey, id: HookId) -> DbResult<Option<StoredHook>> {
    if !is_live(conn, tenant)? {
        return Ok(None);
    }
    let sql = concat!("SELECT ", columns!(), " FROM hooks h WHERE h.id = ?1 AND h.tenant = ?2");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((id.to_bytes(), tenant.0))?;
    rows.next()?.map(read).transpose()
}

pub(super) fn hooks(
    conn: &Connection,
    tenant: TenantKey,
    point: Option<&str>,
    page: PageRequest,
) -> DbResult<Page<StoredHook>> {
    if !is_live(conn, tenant)? {
        return Ok(Page { rows: Vec::new(), next: None });
    }
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM hooks h INDEXED BY hooks_by_tenant
          WHERE h.tenant = ?1 AND h.key < ?2 AND (?4 IS NULL OR h.point = ?4) ORDER BY h.key DESC LIMIT ?3"
    );
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((tenant.0, page.after.unwrap_or(i64::MAX), count(page.limit) + 1, point))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read(row)?);
    }
    Ok(cut(list, page.limit, |hook| hook.key))
}

/// Notes a change of the tenant's hooks. Whether the tenant is there.
fn changed(tx: &Tx<'_>, tenant: TenantKey) -> DbResult<bool> {
    let sql = "UPDATE tenants SET hooks_version = hooks_version + 1 WHERE key = ?1 AND deleted_at IS NULL";
    Ok(tx.conn.prepare_cached(sql)?.execute([tenant.0])? == 1)
}

fn after_change(tx: &Tx<'_>, tenant: TenantKey, id: HookId) -> DbResult<StoredHook> {
    hook(tx.conn, tenant, id)?.ok_or_else(|| DbError::corrupt("hook", "gone after its change"))
}

pub(super) fn create(tx: &Tx<'_>, new: &NewHook) -> DbResult<Option<StoredHook>> {
    if let Some(present) = hook(tx.conn, new.tenant, new.id)? {
        return Ok(Some(present));
    }
    if !changed(tx, new.tenant)? {
        return Ok(None);
    }
    let verified_at = new.test.as_ref().filter(|test| test.passed).map(|test| test.at.as_micros());
    tx.conn
        .prepare_cached(
            "INSERT INTO hooks(tenant, id, revision, verified_at, created_at, updated_at, point, last_test, config,
                 sealed_secrets) VALUES (?1, ?2, 1, ?3, ?4, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((
            new.tenant.0,
            new.id.to_bytes(),
            verified_at,
            new.now.as_micros(),
            &new.config.point,
            new.test.as_ref().map(|test| to_json("hook test", test)).transpose()?,
            to_json("hook", &new.config)?,
            &new.sealed_secrets,
        ))?;
    after_change(tx, new.tenant, new.id).map(Some)
}

pub(super) fn update(tx: &Tx<'_>, update: &HookUpdate) -> DbResult<HookUpdateOutcome> {
    let Some(present) = hook(tx.conn, update.tenant, update.id)? else { return Ok(HookUpdateOutcome::NotFound) };
    if present.revision != update.expected_revision {
        return Ok(HookUpdateOutcome::Stale);
    }
    changed(tx, update.tenant)?;
    tx.conn
        .prepare_cached(
            "UPDATE hooks SET revision = ?2, verified_at = ?3, updated_at = ?4, point = ?5,
                 last_test = coalesce(?6, last_test), config = ?7, sealed_secrets = ?8 WHERE key = ?1",
        )?
        .execute((
            present.key,
            present.revision + 1,
            update.verified_at.map(Timestamp::as_micros),
            update.now.as_micros(),
            &update.config.point,
            update.test.as_ref().map(|test| to_json("hook test", test)).transpose()?,
            to_json("hook", &update.config)?,
            &update.sealed_secrets,
        ))?;
    Ok(HookUpdateOutcome::Updated(Box::new(after_change(tx, update.tenant, update.id)?)))
}

pub(super) fn delete(tx: &Tx<'_>, tenant: TenantKey, id: HookId) -> DbResult<bool> {
    let Some(present) = hook(tx.conn, tenant, id)? else { return Ok(false) };
    changed(tx, tenant)?;
    tx.conn
        .prepare_cached("DELETE FROM kept_secrets WHERE tenant = ?1 AND hook = ?2")?
        .execute((tenant.0, id.to_bytes()))?;
    tx.conn.prepare_cached("DELETE FROM hooks WHERE key = ?1")?.execute([present.key])?;
    Ok(true)
}

pub(super) fn record_test(
    tx: &Tx<'_>,
    tenant: TenantKey,
    id: HookId,
    revision: u32,
    test: &HookTest,
) -> DbResult<Option<StoredHook>> {
    let Some(present) = hook(tx.conn, tenant, id)? else { return Ok(None) };
    let verified = test.passed && present.revision == revision;
    let verified_at = if verified { Some(test.at) } else { present.verified_at };
    tx.conn.prepare_cached("UPDATE hooks SET last_test = ?2, verified_at = ?3 WHERE key = ?1")?.execute((
        present.key,
        to_json("hook test", test)?,
        verified_at.map(Timestamp::as_micros),
    ))?;
    after_change(tx, tenant, id).map(Some)
}

/// Adds to a hook's counters. One that is gone meanwhile counts no more.
pub(super) fn count_up(tx: &Tx<'_>, tenant: TenantKey, id: HookId, more: &HookCounters) -> DbResult<()> {
    let present: Option<(i64, Option<String>)> = tx
        .conn
        .prepare_cached("SELECT key, counters FROM hooks WHERE id = ?1 AND tenant = ?2")?
        .query_row((id.to_bytes(), tenant.0), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((key, text)) = present else { return Ok(()) };
    let mut counters: HookCounters = text.as_deref().map_or(Ok(Default::default()), |t| json("hook counters", t))?;
    counters.add(more);
    tx.conn
        .prepare_cached("UPDATE hooks SET counters = ?2 WHERE key = ?1")?
        .execute((key, to_json("hook counters", &counters)?))?;
    Ok(())
}

fn read_point(row: &Row<'_>) -> DbResult<StoredPoint> {
    let definition: Option<String> = row.get(1)?;
    Ok(StoredPoint {
        name: row.get(0)?,
        definition: definition.as_deref().map(|text| json("point", text)).transpose()?,
        settings: json("point settings", text(row, 2)?)?,
        created_at: time(row.get(3)?),
        updated_at: time(row.get(4)?),
    })
}

fn points(conn: &Connection, tenant: TenantKey) -> DbResult<Vec<StoredPoint>> {
    let mut found = conn.prepare_cached(
        "SELECT name, definition, settings, created_at, updated_at FROM points WHERE tenant = ?1 ORDER BY name",
    )?;
    let mut rows = found.query([tenant.0])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read_point(row)?);
    }
    Ok(list)
}

pub(super) fn put_point(
    tx: &Tx<'_>,
    tenant: TenantKey,
    point: &StoredPoint,
) -> DbResult<Option<(StoredPoint, Created)>> {
    if !changed(tx, tenant)? {
        return Ok(None);
    }
    let there = tx
        .conn
        .prepare_cached("SELECT 1 FROM points WHERE tenant = ?1 AND name = ?2")?
        .exists((tenant.0, &point.name))?;
    tx.conn
        .prepare_cached(
            "INSERT INTO points(tenant, name, definition, settings, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(tenant, name) DO UPDATE SET definition = excluded.definition, settings = excluded.settings,
                 updated_at = excluded.updated_at",
        )?
        .execute((
            tenant.0,
            &point.name,
            point.definition.as_ref().map(|definition| to_json("point", definition)).transpose()?,
            to_json("point settings", &point.settings)?,
            point.created_at.as_micros(),
            point.updated_at.as_micros(),
        ))?;
    let sql = "SELECT name, definition, settings, created_at, updated_at FROM points WHERE tenant = ?1 AND name = ?2";
    let mut found = tx.conn.prepare_cached(sql)?;
    let mut rows = found.query((tenant.0, &point.name))?;
    let stored = rows.next()?.map(read_point).transpose()?;
    Ok(stored.map(|point| (point, if there { Created::No } else { Created::Yes })))
}

pub(super) fn delete_point(tx: &Tx<'_>, tenant: TenantKey, name: &str, builtin: bool) -> DbResult<PointRemoval> {
    let there =
        tx.conn.prepare_cached("SELECT 1 FROM points WHERE tenant = ?1 AND name = ?2")?.exists((tenant.0, name))?;
    if !there || !is_live(tx.conn, tenant)? {
        return Ok(PointRemoval::NotFound);
    }
    let mut hooks = tx
        .conn
        .prepare_cached("SELECT 1 FROM hooks h INDEXED BY hooks_by_tenant WHERE h.tenant = ?1 AND h.point = ?2")?;
    if !builtin && hooks.exists((tenant.0, name))? {
        return Ok(PointRemoval::InUse);
    }
    changed(tx, tenant)?;
    tx.conn.prepare_cached("DELETE FROM points WHERE tenant = ?1 AND name = ?2")?.execute((tenant.0, name))?;
    Ok(PointRemoval::Removed)
}

pub(super) fn registry(conn: &Connection, id: &TenantId) -> DbResult<Option<HookRegistry>> {
    let Some(tenant) = tenant_by_id(conn, id)? else { return Ok(None) };
    let version = version(
        conn.prepare_cached("SELECT hooks_version FROM tenants WHERE key = ?1")?
            .query_row([tenant.key.0], |row| row.get(0))?,
    )?;
    let sql =
        concat!("SELECT ", columns!(), " FROM hooks h INDEXED BY hooks_by_tenant WHERE h.tenant = ?1 ORDER BY h.key");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query([tenant.key.0])?;
    let mut hooks = Vec::new();
    while let Some(row) = rows.next()? {
        hooks.push(read(row)?);
    }
    Ok(Some(HookRegistry { version, hooks, points: points(conn, tenant.key)?, tenant }))
}

pub(super) fn tenants(
    conn: &Connection,
    after: Option<TenantKey>,
    limit: usize,
) -> DbResult<Vec<(TenantKey, TenantId)>> {
    let mut found = conn.prepare_cached(
        "SELECT t.key, t.id FROM tenants t WHERE t.key > ?1 AND t.deleted_at IS NULL
             AND EXISTS (SELECT 1 FROM hooks h INDEXED BY hooks_by_tenant WHERE h.tenant = t.key)
         ORDER BY t.key LIMIT ?2",
    )?;
    let mut rows = found.query((after.map_or(0, |key| key.0), count(limit)))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let id = text(row, 1)?.parse().map_err(|e| DbError::corrupt("tenant id", e))?;
        list.push((TenantKey(row.get(0)?), id));
    }
    Ok(list)
}

/// Removes up to `max_rows` rows of a deleted tenant: a part of [`super::sweep`].
pub(super) fn remove_tenant(conn: &Connection, tenant: i64, max_rows: usize) -> DbResult<usize> {
    let mut done = super::invocations::remove_tenant(conn, tenant, max_rows)?;
    for sql in [
        "DELETE FROM kept_secrets WHERE key IN
             (SELECT key FROM kept_secrets INDEXED BY kept_secrets_by_tenant WHERE tenant = ?1 LIMIT ?2)",
        "DELETE FROM hooks WHERE key IN (SELECT key FROM hooks INDEXED BY hooks_by_tenant WHERE tenant = ?1 LIMIT ?2)",
        "DELETE FROM points WHERE tenant = ?1 AND name IN (SELECT name FROM points WHERE tenant = ?1 LIMIT ?2)",
    ] {
        if done < max_rows {
            done += conn.prepare_cached(sql)?.execute((tenant, count(max_rows - done)))?;
        }
    }
    Ok(done)
}
