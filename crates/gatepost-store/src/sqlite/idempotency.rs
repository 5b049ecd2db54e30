//! Answers under idempotency keys.

use async_trait::async_trait;
use gatepost_core::Timestamp;
use rusqlite::Connection;

use super::error::{DbError, DbResult};
use super::queue::Lane;
use super::requests::{SMALL, publish_bytes};
use super::row::{count, time};
use super::writer::Tx;
use super::{SqliteStore, publish};
use crate::{
    IdempotencyRecord, IdempotencyScope, IdempotencyStore, IdempotentRequest, MakeAnswer, Publish, PublishOutcome,
    PublishedOnce, RecordedAnswer, Result,
};

/// First byte of a recorded answer.
const ANSWER_VERSION: u8 = 1;

#[async_trait]
impl IdempotencyStore for SqliteStore {
    async fn idempotency(&self, scope: IdempotencyScope, now: Timestamp) -> Result<Option<IdempotencyRecord>> {
        self.read(move |conn| known(conn, scope, now)).await
    }

    async fn begin_idempotent(&self, request: IdempotentRequest) -> Result<IdempotencyRecord> {
        self.write_again(Lane::Other, SMALL, move |tx| begin(tx, &request)).await
    }

    async fn record_answer(
        &self,
        scope: IdempotencyScope,
        started_at: Timestamp,
        answer: RecordedAnswer,
    ) -> Result<()> {
        let bytes = SMALL + answer.body.len();
        self.write_again(Lane::Other, bytes, move |tx| record(tx, scope, started_at, &answer)).await
    }

    async fn forget_idempotent(&self, scope: IdempotencyScope, started_at: Timestamp) -> Result<()> {
        self.write_again(Lane::Other, SMALL, move |tx| forget(tx, scope, started_at)).await
    }

    async fn publish_once(
        &self,
        publish: Publish,
        request: IdempotentRequest,
        answer: MakeAnswer,
    ) -> Result<PublishedOnce> {
        let bytes = publish_bytes(&publish);
        self.write_again(Lane::Accept, bytes, move |tx| once(tx, &publish, &request, &answer)).await
    }
}

fn known(conn: &Connection, scope: IdempotencyScope, now: Timestamp) -> DbResult<Option<IdempotencyRecord>> {
    let mut found = conn.prepare_cached(
        "SELECT fingerprint, started_at, answer FROM idempotency WHERE scope = ?1 AND expires_at > ?2",
    )?;
    let mut rows = found.query((scope, now.as_micros()))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let answer: Option<Vec<u8>> = row.get(2)?;
    Ok(Some(IdempotencyRecord {
        fingerprint: row.get(0)?,
        started_at: time(row.get(1)?),
        answer: answer.as_deref().map(read_answer).transpose()?,
    }))
}

fn read_answer(bytes: &[u8]) -> DbResult<RecordedAnswer> {
    match bytes.split_first() {
        Some((&ANSWER_VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| DbError::corrupt("recorded answer", e)),
        _ => Err(DbError::corrupt("recorded answer", "unknown version")),
    }
}

fn answer_bytes(answer: &RecordedAnswer) -> DbResult<Vec<u8>> {
    postcard::to_extend(answer, vec![ANSWER_VERSION]).map_err(|e| DbError::corrupt("recorded answer", e))
}

/// Adds a row. What is left of an expired use of the key makes way.
fn insert(tx: &Tx<'_>, request: &IdempotentRequest, answer: Option<&RecordedAnswer>) -> DbResult<()> {
    let answer = answer.map(answer_bytes).transpose()?;
    tx.conn.prepare_cached("DELETE FROM idempotency WHERE scope = ?1")?.execute([request.scope])?;
    tx.conn
        .prepare_cached(
            "INSERT INTO idempotency(scope, fingerprint, started_at, expires_at, answer) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((
            request.scope,
            request.fingerprint,
            request.now.as_micros(),
            request.expires_at.as_micros(),
            answer,
        ))?;
    Ok(())
}

fn begin(tx: &Tx<'_>, request: &IdempotentRequest) -> DbResult<IdempotencyRecord> {
    if let Some(record) = known(tx.conn, request.scope, request.now)? {
        return Ok(record);
    }
    insert(tx, request, None)?;
    Ok(IdempotencyRecord { fingerprint: request.fingerprint, started_at: request.now, answer: None })
}

fn record(tx: &Tx<'_>, scope: IdempotencyScope, started_at: Timestamp, answer: &RecordedAnswer) -> DbResult<()> {
    tx.conn.prepare_cached("UPDATE idempotency SET answer = ?3 WHERE scope = ?1 AND started_at = ?2")?.execute((
        scope,
        started_at.as_micros(),
        answer_bytes(answer)?,
    ))?;
    Ok(())
}

fn forget(tx: &Tx<'_>, scope: IdempotencyScope, started_at: Timestamp) -> DbResult<()> {
    tx.conn
        .prepare_cached("DELETE FROM idempotency WHERE scope = ?1 AND started_at = ?2 AND answer IS NULL")?
        .execute((scope, started_at.as_micros()))?;
    Ok(())
}

fn once(
    tx: &mut Tx<'_>,
    publish: &Publish,
    request: &IdempotentRequest,
    answer: &MakeAnswer,
) -> DbResult<PublishedOnce> {
    if let Some(record) = known(tx.conn, request.scope, request.now)? {
        return Ok(PublishedOnce::Known(record));
    }
    let outcome = publish::publish(tx, publish)?;
    if let PublishOutcome::Accepted(accepted) = &outcome {
        insert(tx, request, Some(&answer.make(accepted)))?;
    }
    Ok(PublishedOnce::Done(outcome))
}

/// Removes at most `max_rows` records that have expired; how many it were.
pub(super) fn sweep(conn: &Connection, now: Timestamp, max_rows: usize) -> DbResult<usize> {
    // All live equally long: looking at the oldest is looking at those that expire first, and one that
    // is not expired ends the search.
    Ok(conn
        .prepare_cached(
            "DELETE FROM idempotency WHERE expires_at <= ?1 AND number IN
                 (SELECT number FROM idempotency ORDER BY number LIMIT ?2)",
        )?
        .execute((now.as_micros(), count(max_rows)))?)
}

/// Whether a record has expired.
pub(super) fn to_sweep(conn: &Connection, now: Timestamp) -> DbResult<bool> {
    Ok(conn
        .prepare_cached(
            "SELECT 1 FROM (SELECT expires_at FROM idempotency ORDER BY number LIMIT 1) WHERE expires_at <= ?1",
        )?
        .exists([now.as_micros()])?)
}
