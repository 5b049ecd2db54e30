//! Own events: notes made in the transaction of what they tell of, and taken away by publishing.

use async_trait::async_trait;
use bytes::Bytes;
use gatepost_core::delivery::Reason;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::{DeliverySeq, TenantKey, Timestamp, WebhookKey};
use rusqlite::{Connection, Row};

use super::SqliteStore;
use super::error::{DbError, DbResult};
use super::queue::Lane;
use super::requests::publish_bytes;
use super::row::{count, is_live, subject, text, time};
use super::writer::Tx;
use super::{making, publish};
use crate::{About, NewOwnEvent, Noted, OwnEventStore, Publish, PublishOutcome, Result};

/// What a note holds in the queue, its data apart.
const NOTE: usize = 512;

/// Notes an event about a webhook as it is at `revision`.
pub(super) fn note_webhook(
    conn: &Connection,
    tenant: TenantKey,
    event: OwnEvent,
    (webhook, revision): (WebhookKey, u32),
    reason: Option<&str>,
    at: Timestamp,
) -> DbResult<()> {
    conn.prepare_cached(
        "INSERT INTO own_events(tenant, type, at, webhook, revision, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((tenant.0, event.as_str(), at.as_micros(), webhook.0, revision, reason))?;
    Ok(())
}

/// Notes that a delivery was given up.
pub(super) fn note_exhausted(
    conn: &Connection,
    tenant: TenantKey,
    delivery: DeliverySeq,
    reason: Reason,
    at: Timestamp,
) -> DbResult<()> {
    conn.prepare_cached("INSERT INTO own_events(tenant, type, at, delivery, reason) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((tenant.0, OwnEvent::DeliveryExhausted.as_str(), at.as_micros(), delivery.0, reason.as_str()))?;
    Ok(())
}

/// Notes an event given as it is to be published.
pub(super) fn note(conn: &Connection, new: &NewOwnEvent) -> DbResult<()> {
    if !is_live(conn, new.tenant)? {
        return Ok(());
    }
    conn.prepare_cached(
        "INSERT INTO own_events(tenant, type, at, event_id, subject_type, subject_id, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        new.tenant.0,
        new.event.as_str(),
        new.at.as_micros(),
        new.id.as_ref().map(|id| id.as_str()),
        new.subject.as_ref().and_then(|s| s.kind.as_deref()),
        new.subject.as_ref().map(|s| s.id.as_str()),
        &*new.data,
    ))?;
    Ok(())
}

/// Forgets what was noted of a tenant that is deleted.
pub(super) fn forget_tenant(conn: &Connection, tenant: TenantKey) -> DbResult<()> {
    conn.prepare_cached("DELETE FROM own_events INDEXED BY own_events_by_tenant WHERE tenant = ?1")?
        .execute([tenant.0])?;
    Ok(())
}

fn noted(conn: &Connection, after: i64, limit: usize) -> DbResult<Vec<Noted>> {
    let mut found = conn.prepare_cached(
        "SELECT number, tenant, type, at, webhook, revision, delivery, reason, event_id, subject_type, subject_id, data
         FROM own_events WHERE number > ?1 ORDER BY number LIMIT ?2",
    )?;
    let mut rows = found.query((after, count(limit)))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read(row)?);
    }
    Ok(list)
}

fn read(row: &Row<'_>) -> DbResult<Noted> {
    let name = text(row, 2)?;
    let reason: Option<String> = row.get(7)?;
    let about = if let Some(key) = row.get(4)? {
        About::Webhook { key: WebhookKey(key), revision: row.get(5)?, disabled_reason: reason }
    } else if let Some(seq) = row.get(6)? {
        let reason = Reason::ALL.into_iter().find(|known| Some(known.as_str()) == reason.as_deref());
        About::Delivery {
            seq: DeliverySeq(seq),
            reason: reason.ok_or_else(|| DbError::corrupt("own event", "no reason"))?,
        }
    } else {
        let id: Option<String> = row.get(8)?;
        About::Given {
            id: id.map(|id| id.parse()).transpose().map_err(|e| DbError::corrupt("own event", e))?,
            subject: subject(row, 9)?,
            data: Bytes::from(row.get::<_, Vec<u8>>(11)?),
        }
    };
    Ok(Noted {
        number: row.get(0)?,
        tenant: TenantKey(row.get(1)?),
        event: OwnEvent::named(name).ok_or_else(|| DbError::corrupt("own event", name))?,
        at: time(row.get(3)?),
        about,
    })
}

fn publish_noted(
    tx: &mut Tx<'_>,
    number: i64,
    publish: Publish,
    farewell: Option<WebhookKey>,
) -> DbResult<Option<PublishOutcome>> {
    let there = tx.conn.prepare_cached("SELECT 1 FROM own_events WHERE number = ?1")?.exists([number])?;
    if !there {
        return Ok(None);
    }
    let outcome = publish::publish(tx, &publish)?;
    if matches!(outcome, PublishOutcome::StaleRegistry(_)) {
        return Ok(Some(outcome));
    }
    if let (Some(webhook), PublishOutcome::Accepted(accepted)) = (farewell, &outcome) {
        let made = accepted.iter().flat_map(|one| &one.deliveries).find(|due| due.webhook == webhook);
        let last = match (made, accepted.first()) {
            (Some(due), _) => Some(due.seq),
            (None, Some(one)) => making::number_of(tx.conn, &one.event, webhook)?,
            (None, None) => None,
        };
        if let Some(seq) = last {
            tx.conn
                .prepare_cached("UPDATE webhooks SET farewell = ?2 WHERE key = ?1 AND deleted_at IS NOT NULL")?
                .execute((webhook.0, seq.0))?;
        }
    }
    forget(tx.conn, number)?;
    Ok(Some(outcome))
}

fn forget(conn: &Connection, number: i64) -> DbResult<()> {
    conn.prepare_cached("DELETE FROM own_events WHERE number = ?1")?.execute([number])?;
    Ok(())
}

#[async_trait]
impl OwnEventStore for SqliteStore {
    async fn note_own(&self, event: NewOwnEvent) -> Result<()> {
        let bytes = NOTE + event.data.len();
        self.write(Lane::Other, bytes, move |tx| note(tx.conn, &event)).await
    }

    async fn noted(&self, after: i64, limit: usize) -> Result<Vec<Noted>> {
        self.read(move |conn| noted(conn, after, limit)).await
    }

    async fn publish_noted(
        &self,
        number: i64,
        publish: Publish,
        farewell: Option<WebhookKey>,
    ) -> Result<Option<PublishOutcome>> {
        let bytes = NOTE + publish_bytes(&publish);
        self.write(Lane::Other, bytes, move |tx| publish_noted(tx, number, publish, farewell)).await
    }

    async fn forget_noted(&self, number: i64) -> Result<()> {
        self.write(Lane::Other, NOTE, move |tx| forget(tx.conn, number)).await
    }
}
