//! Webhooks: the present ones, and what they were.

use std::collections::{BTreeMap, BTreeSet};

use gatepost_core::delivery::AttemptRecord;
use gatepost_core::matching::RegistryBuilder;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{TenantKey, Timestamp, WebhookId, WebhookKey};
use rusqlite::{Connection, OptionalExtension};

use super::error::{DbError, DbResult};
use super::row::{
    attempt_bytes, config, config_text, count, is_live, text, version_number, webhook, webhook_columns, webhook_id,
};
use super::tenants::{cut, registry_version};
use super::writer::Tx;
use super::{health, own_events};
use crate::{
    HistoricRegistry, HistoricWebhook, NewWebhook, Page, PageRequest, Registry, RegistryChange, UpdateOutcome,
    WebhookUpdate,
};

/// The webhook of `tenant` with this id, deleted or not.
pub(super) fn any_by_id(conn: &Connection, tenant: TenantKey, id: WebhookId) -> DbResult<Option<Webhook>> {
    let sql = concat!("SELECT ", webhook_columns!(), " FROM webhooks w WHERE w.id = ?1 AND w.tenant = ?2");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((id.to_bytes(), tenant.0))?;
    rows.next()?.map(webhook).transpose()
}

pub(super) fn by_id(conn: &Connection, tenant: TenantKey, id: WebhookId) -> DbResult<Option<Webhook>> {
    if !is_live(conn, tenant)? {
        return Ok(None);
    }
    Ok(any_by_id(conn, tenant, id)?.filter(|webhook| webhook.deleted_at.is_none()))
}

pub(super) fn by_key(conn: &Connection, key: WebhookKey) -> DbResult<Option<Webhook>> {
    let sql = concat!(
        "SELECT ",
        webhook_columns!(),
        " FROM webhooks w JOIN tenants t ON t.key = w.tenant WHERE w.key = ?1 AND t.deleted_at IS NULL"
    );
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query([key.0])?;
    rows.next()?.map(webhook).transpose()
}

pub(super) fn page(conn: &Connection, tenant: TenantKey, page: PageRequest) -> DbResult<Page<Webhook>> {
    if !is_live(conn, tenant)? {
        return Ok(Page { rows: Vec::new(), next: None });
    }
    let sql = concat!(
        "SELECT ",
        webhook_columns!(),
        " FROM webhooks w INDEXED BY webhooks_by_tenant
          WHERE w.tenant = ?1 AND w.key < ?2 AND w.deleted_at IS NULL ORDER BY w.key DESC LIMIT ?3"
    );
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((tenant.0, page.after.unwrap_or(i64::MAX), count(page.limit) + 1))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(webhook(row)?);
    }
    Ok(cut(list, page.limit, |webhook| webhook.key.0))
}

pub(super) fn registry(conn: &Connection, tenant: TenantKey) -> DbResult<Option<Registry>> {
    let Some(version) = registry_version(conn, tenant)? else { return Ok(None) };
    let must_verify = must_verify(conn, tenant)?;
    let mut found = conn.prepare_cached(
        "SELECT w.key, w.revision, w.config, w.id FROM webhooks w INDEXED BY webhooks_by_tenant
         WHERE w.tenant = ?1 AND w.deleted_at IS NULL AND w.enabled = 1 ORDER BY w.key",
    )?;
    let mut rows = found.query([tenant.0])?;
    let mut builder = RegistryBuilder::new(version, must_verify);
    while let Some(row) = rows.next()? {
        let added = builder.add(WebhookKey(row.get(0)?), row.get(1)?, &config(text(row, 2)?)?);
        // Patterns and filters were checked at write; should a later version no longer read one, the
        // webhook matches nothing and says so in the log, rather than stopping the tenant's publishing.
        if let Err(error) = added {
            tracing::error!(webhook = %webhook_id(row, 3)?, %error, "a webhook cannot be matched");
        }
    }
    Ok(Some(Registry { version, must_verify, webhooks: builder.build() }))
}

pub(super) fn registry_at(
    conn: &Connection,
    tenant: TenantKey,
    version: u64,
    limit: usize,
) -> DbResult<HistoricRegistry> {
    let mut webhooks = Vec::new();
    if !is_live(conn, tenant)? {
        return Ok(HistoricRegistry { webhooks, truncated: false, must_verify: false });
    }
    // A revision without a config says "deleted by then"; no revision says "made later".
    let mut found = conn.prepare_cached(
        "SELECT w.key, w.id, r.config
         FROM webhooks w INDEXED BY webhooks_by_tenant
         LEFT JOIN webhook_revisions r ON r.webhook = w.key AND r.from_version =
             (SELECT max(from_version) FROM webhook_revisions WHERE webhook = w.key AND from_version <= ?2)
         WHERE w.tenant = ?1
           AND CASE WHEN r.webhook IS NULL THEN w.deleted_at IS NULL ELSE r.config IS NOT NULL END
         ORDER BY w.key LIMIT ?3",
    )?;
    let mut rows = found.query((tenant.0, version_number(version), count(limit) + 1))?;
    while let Some(row) = rows.next()? {
        let text: Option<String> = row.get(2)?;
        webhooks.push(HistoricWebhook {
            key: WebhookKey(row.get(0)?),
            id: webhook_id(row, 1)?,
            config: text.as_deref().map(config).transpose()?,
        });
    }
    let truncated = webhooks.len() > limit;
    webhooks.truncate(limit);
    Ok(HistoricRegistry { webhooks, truncated, must_verify: must_verify_at(conn, tenant, version)? })
}

/// Whether all of a tenant's webhooks must be verified.
fn must_verify(conn: &Connection, tenant: TenantKey) -> DbResult<bool> {
    let mut found = conn.prepare_cached("SELECT must_verify FROM tenants WHERE key = ?1")?;
    Ok(found.query_row([tenant.0], |row| row.get(0)).optional()?.unwrap_or(false))
}

/// The same at a registry version.
fn must_verify_at(conn: &Connection, tenant: TenantKey, version: u64) -> DbResult<bool> {
    let mut found = conn.prepare_cached(
        "SELECT must_verify FROM tenant_revisions WHERE tenant = ?1 AND from_version <= ?2
         ORDER BY from_version DESC LIMIT 1",
    )?;
    Ok(found.query_row((tenant.0, version_number(version)), |row| row.get(0)).optional()?.unwrap_or(false))
}

pub(super) fn configs(
    conn: &Connection,
    webhook: WebhookKey,
    revisions: &BTreeSet<u32>,
) -> DbResult<BTreeMap<u32, WebhookConfig>> {
    let mut found = conn.prepare_cached(
        "SELECT r.config FROM webhook_revisions r INDEXED BY webhook_revisions_by_number
         JOIN webhooks w ON w.key = r.webhook JOIN tenants t ON t.key = w.tenant
         WHERE r.webhook = ?1 AND r.revision = ?2 AND r.config IS NOT NULL AND t.deleted_at IS NULL",
    )?;
    let mut configs = BTreeMap::new();
    for revision in revisions {
        let text: Option<String> = found.query_row((webhook.0, revision), |row| row.get(0)).optional()?;
        if let Some(text) = text {
            configs.insert(*revision, config(&text)?);
        }
    }
    Ok(configs)
}

/// The tenant's next registry version, written down. `None` when the tenant is gone.
pub(super) fn next_version(conn: &Connection, tenant: TenantKey) -> DbResult<Option<u64>> {
    conn.prepare_cached(
        "UPDATE tenants SET registry_version = registry_version + 1 WHERE key = ?1 AND deleted_at IS NULL",
    )?
    .execute([tenant.0])?;
    registry_version(conn, tenant)
}

fn note_revision(
    conn: &Connection,
    webhook: WebhookKey,
    version: u64,
    revision: u32,
    config: Option<&WebhookConfig>,
) -> DbResult<()> {
    let text = config.map(config_text).transpose()?;
    conn.prepare_cached(
        "INSERT INTO webhook_revisions(webhook, from_version, revision, config) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((webhook.0, version_number(version), revision, text))?;
    Ok(())
}

fn change(tx: &Tx<'_>, tenant: TenantKey, id: WebhookId, version: u64) -> DbResult<RegistryChange> {
    let webhook =
        any_by_id(tx.conn, tenant, id)?.ok_or_else(|| DbError::corrupt("webhook", "gone after its change"))?;
    Ok(RegistryChange { version, webhook })
}

pub(super) fn create(tx: &Tx<'_>, new: &NewWebhook) -> DbResult<Option<RegistryChange>> {
    let Some(present) = registry_version(tx.conn, new.tenant)? else { return Ok(None) };
    if let Some(webhook) = any_by_id(tx.conn, new.tenant, new.id)? {
        return Ok(Some(RegistryChange { version: present, webhook }));
    }
    let Some(version) = next_version(tx.conn, new.tenant)? else { return Ok(None) };
    tx.conn
        .prepare_cached(
            "INSERT INTO webhooks(tenant, id, revision, enabled, config, sealed_secrets, created_at, updated_at,
                 verified, must_verify, paused)
             VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            new.tenant.0,
            new.id.to_bytes(),
            new.config.enabled,
            config_text(&new.config)?,
            &new.sealed_secrets,
            new.now.as_micros(),
            new.config.verified_at.is_some(),
            new.must_verify,
            new.config.paused,
        ))?;
    let key = WebhookKey(tx.conn.last_insert_rowid());
    note_revision(tx.conn, key, version, 1, Some(&new.config))?;
    own_events::note_webhook(tx.conn, new.tenant, OwnEvent::WebhookCreated, (key, 1), None, new.now)?;
    change(tx, new.tenant, new.id, version).map(Some)
}

pub(super) fn update(tx: &Tx<'_>, update: &WebhookUpdate) -> DbResult<UpdateOutcome> {
    let Some(present) = by_id(tx.conn, update.tenant, update.id)? else { return Ok(UpdateOutcome::NotFound) };
    if present.revision != update.expected_revision {
        return Ok(UpdateOutcome::Stale);
    }
    let Some(version) = next_version(tx.conn, update.tenant)? else { return Ok(UpdateOutcome::NotFound) };
    let revision = present.revision + 1;
    tx.conn
        .prepare_cached(
            "UPDATE webhooks SET revision = ?2, enabled = ?3, config = ?4, sealed_secrets = ?5, disabled_reason = ?6,
                 updated_at = ?7, verified = ?8, must_verify = ?9, paused = ?10 WHERE key = ?1",
        )?
        .execute((
            present.key.0,
            revision,
            update.config.enabled,
            config_text(&update.config)?,
            &update.sealed_secrets,
            &update.disabled_reason,
            update.now.as_micros(),
            update.config.verified_at.is_some(),
            update.must_verify,
            update.config.paused,
        ))?;
    note_revision(tx.conn, present.key, version, revision, Some(&update.config))?;
    if let Some(event) = update.told_as {
        own_events::note_webhook(tx.conn, update.tenant, event, (present.key, revision), None, update.now)?;
    }
    let reopened = update.config.enabled && !present.config.enabled;
    if reopened || update.config.url != present.config.url {
        health::reset(tx.conn, present.key, update.now)?;
    }
    Ok(UpdateOutcome::Updated(Box::new(change(tx, update.tenant, update.id, version)?)))
}

pub(super) fn delete(
    tx: &Tx<'_>,
    tenant: TenantKey,
    id: WebhookId,
    now: Timestamp,
) -> DbResult<Option<RegistryChange>> {
    let Some(present) = by_id(tx.conn, tenant, id)? else { return Ok(None) };
    let Some(version) = next_version(tx.conn, tenant)? else { return Ok(None) };
    let revision = present.revision + 1;
    tx.conn
        .prepare_cached("UPDATE webhooks SET revision = ?2, deleted_at = ?3, updated_at = ?3 WHERE key = ?1")?
        .execute((present.key.0, revision, now.as_micros()))?;
    note_revision(tx.conn, present.key, version, revision, None)?;
    // Told as it was.
    own_events::note_webhook(tx.conn, tenant, OwnEvent::WebhookDeleted, (present.key, present.revision), None, now)?;
    health::forget(tx.conn, present.key)?;
    change(tx, tenant, id, version).map(Some)
}

/// Disables a webhook on Gatepost's own judgement.
pub(super) fn disable(conn: &Connection, present: &Webhook, reason: &str, now: Timestamp) -> DbResult<Option<Webhook>> {
    let Some(version) = next_version(conn, present.tenant)? else { return Ok(None) };
    let revision = present.revision + 1;
    let config = WebhookConfig { enabled: false, ..present.config.clone() };
    conn.prepare_cached(
        "UPDATE webhooks SET revision = ?2, enabled = 0, config = ?3, disabled_reason = ?4, updated_at = ?5
             WHERE key = ?1",
    )?
    .execute((present.key.0, revision, config_text(&config)?, reason, now.as_micros()))?;
    note_revision(conn, present.key, version, revision, Some(&config))?;
    let disabled =
        Webhook { revision, config, disabled_reason: Some(reason.to_owned()), updated_at: now, ..present.clone() };
    Ok(Some(disabled))
}

pub(super) fn record_test(tx: &Tx<'_>, webhook: WebhookKey, test: &AttemptRecord) -> DbResult<()> {
    tx.conn
        .prepare_cached("UPDATE webhooks SET last_test = ?2 WHERE key = ?1")?
        .execute((webhook.0, attempt_bytes(0, test.number, test)?))?;
    Ok(())
}
