//! How endpoints fare.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gatepost_core::health::Health;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::webhook::Webhook;
use gatepost_core::{Timestamp, WebhookKey};
use rusqlite::{Connection, OptionalExtension};

use super::SqliteStore;
use super::error::{DbError, DbResult};
use super::own_events::note_webhook;
use super::queue::Lane;
use super::registry;
use super::writer::Tx;
use crate::{HealthCounts, HealthNote, HealthNotes, HealthStore, HealthTaken, Result};

/// First byte of a record.
const VERSION: u8 = 1;
/// What a note holds in the queue, about.
const NOTE: usize = 512;

/// `state`: well, failing, disabled by Gatepost.
const WELL: i64 = 0;
const FAILING: i64 = 1;
const DISABLED: i64 = 2;

/// Why sustained failure disabled a webhook, as kept and told.
const SUSTAINED: &str = "sustained_failure";

struct Kept {
    health: Health,
    token: i64,
}

fn decode(bytes: &[u8]) -> DbResult<Health> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| DbError::corrupt("health", e)),
        _ => Err(DbError::corrupt("health", "unknown version")),
    }
}

fn kept(conn: &Connection, webhook: WebhookKey) -> DbResult<Option<Kept>> {
    let found: Option<(i64, Vec<u8>)> = conn
        .prepare_cached("SELECT token, record FROM webhook_health WHERE webhook = ?1")?
        .query_row([webhook.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    found.map(|(token, bytes)| Ok(Kept { health: decode(&bytes)?, token })).transpose()
}

fn keep(conn: &Connection, webhook: WebhookKey, state: i64, kept: &Kept) -> DbResult<()> {
    let record = postcard::to_extend(&kept.health, vec![VERSION]).map_err(|e| DbError::corrupt("health", e))?;
    conn.prepare_cached(
        "INSERT INTO webhook_health(webhook, state, token, record) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(webhook) DO UPDATE SET state = ?2, token = ?3, record = ?4",
    )?
    .execute((webhook.0, state, kept.token, record))?;
    Ok(())
}

/// Failures of before no longer count: the webhook was enabled again, or points elsewhere.
pub(super) fn reset(conn: &Connection, webhook: WebhookKey, now: Timestamp) -> DbResult<()> {
    let Some(mut kept) = kept(conn, webhook)? else { return Ok(()) };
    kept.health.reset(now);
    keep(conn, webhook, WELL, &kept)
}

/// The webhook is well or not, but no longer by Gatepost's judgement: it was deleted.
pub(super) fn forget(conn: &Connection, webhook: WebhookKey) -> DbResult<()> {
    conn.prepare_cached("DELETE FROM webhook_health WHERE webhook = ?1")?.execute([webhook.0])?;
    Ok(())
}

/// Disables a webhook on Gatepost's own judgement of the url it had at `revision`, and notes the event:
/// one that was moved elsewhere since is not judged by its old place. Whether it did.
pub(super) fn disable(
    conn: &Connection,
    webhook: WebhookKey,
    revision: u32,
    reason: &str,
    now: Timestamp,
) -> DbResult<Option<Webhook>> {
    let Some(present) = registry::by_key(conn, webhook)? else { return Ok(None) };
    if !present.config.enabled || present.deleted_at.is_some() {
        return Ok(None);
    }
    if present.revision != revision {
        let judged = registry::configs(conn, webhook, &[revision].into())?.remove(&revision);
        if judged.is_some_and(|config| config.url != present.config.url) {
            return Ok(None);
        }
    }
    let Some(disabled) = registry::disable(conn, &present, reason, now)? else { return Ok(None) };
    let place = (webhook, disabled.revision);
    note_webhook(conn, present.tenant, OwnEvent::WebhookDisabled, place, Some(reason), now)?;
    let mut kept = kept(conn, webhook)?.unwrap_or(Kept { health: Health::default(), token: 0 });
    kept.health.disabled(now);
    keep(conn, webhook, DISABLED, &kept)?;
    Ok(Some(disabled))
}

fn note_health(tx: &Tx<'_>, notes: &HealthNotes) -> DbResult<HealthTaken> {
    let mut taken = HealthTaken::default();
    for note in &notes.notes {
        fold(tx, note, notes.token as i64, notes.now, &mut taken)?;
    }
    Ok(taken)
}

fn fold(tx: &Tx<'_>, note: &HealthNote, token: i64, now: Timestamp, taken: &mut HealthTaken) -> DbResult<()> {
    // Deleted meanwhile, perhaps with its tenant: nobody asks any more.
    let Some(webhook) = registry::by_key(tx.conn, note.webhook)?.filter(|w| w.deleted_at.is_none()) else {
        return Ok(());
    };
    let mut kept = kept(tx.conn, note.webhook)?.unwrap_or(Kept { health: Health::default(), token: 0 });
    let is_disabled = !webhook.config.enabled && webhook.disabled_reason.is_some();
    if kept.token == token {
        // The first answer was lost, and with it who has to be told.
        if webhook.disabled_reason.as_deref() == Some(SUSTAINED) && is_disabled {
            taken.disabled.push((webhook.tenant, webhook.key));
        }
        return Ok(());
    }
    kept.token = token;
    let since = kept.health.since();
    let turn = kept.health.fold(&note.tally, now);
    if turn.told && webhook.config.enabled {
        let place = (webhook.key, webhook.revision);
        note_webhook(tx.conn, webhook.tenant, OwnEvent::WebhookRecovered, place, None, now)?;
        taken.noted = true;
    }
    let state = match (is_disabled, kept.health.is_failing()) {
        (true, _) => DISABLED,
        (false, true) => FAILING,
        (false, false) => WELL,
    };
    if let (true, Some(since)) = (is_disabled, since) {
        // Answers that were still under way do not change since when it is disabled.
        kept.health.disabled(since);
    }
    keep(tx.conn, note.webhook, state, &kept)?;
    if note.auto_disable && kept.health.is_given_up() {
        let disabled = disable(tx.conn, note.webhook, note.revision, SUSTAINED, now)?;
        taken.noted |= disabled.is_some();
        taken.disabled.extend(disabled.map(|webhook| (webhook.tenant, webhook.key)));
    }
    Ok(())
}

fn health_of(conn: &Connection, webhooks: &[WebhookKey]) -> DbResult<BTreeMap<WebhookKey, Health>> {
    let mut found = BTreeMap::new();
    for webhook in webhooks {
        if let Some(kept) = kept(conn, *webhook)? {
            found.insert(*webhook, kept.health);
        }
    }
    Ok(found)
}

fn counts(conn: &Connection) -> DbResult<HealthCounts> {
    let mut counted = conn.prepare_cached(
        "SELECT count(*) FROM webhook_health INDEXED BY webhook_health_ill WHERE state > 0 AND state = ?1",
    )?;
    let mut count = |state: i64| counted.query_row([state], |row| row.get::<_, i64>(0));
    let whole = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(HealthCounts { failing: whole(count(FAILING)?), disabled: whole(count(DISABLED)?) })
}

#[async_trait]
impl HealthStore for SqliteStore {
    async fn note_health(&self, notes: HealthNotes) -> Result<HealthTaken> {
        let bytes = NOTE * notes.notes.len();
        self.write_again(Lane::Other, bytes, move |tx| note_health(tx, &notes)).await
    }

    async fn health_of(&self, webhooks: &[WebhookKey]) -> Result<BTreeMap<WebhookKey, Health>> {
        let webhooks = webhooks.to_vec();
        self.read(move |conn| health_of(conn, &webhooks)).await
    }

    async fn health_counts(&self) -> Result<HealthCounts> {
        self.read(counts).await
    }

    async fn record_verification(&self, webhook: WebhookKey, error: Option<String>) -> Result<()> {
        self.write(Lane::Other, NOTE, move |tx| {
            tx.conn
                .prepare_cached("UPDATE webhooks SET verification_error = ?2 WHERE key = ?1")?
                .execute((webhook.0, error))?;
            Ok(())
        })
        .await
    }
}
