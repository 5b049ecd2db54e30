//! How domain values are kept in columns, and read back.

use bytes::Bytes;
use gatepost_core::delivery::{AttemptRecord, DeliveryState, Reason};
use gatepost_core::event::{Event, Subject, Urgency};
use gatepost_core::trace::TraceContext;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{DeliverySeq, EventId, EventSeq, TenantKey, Timestamp, WebhookId, WebhookKey};
use rusqlite::{Connection, Row};

use super::erasure::ERASED;
use super::error::{DbError, DbResult};

/// `format` of payloads kept as given. Other numbers are for compression or encryption to come.
pub(super) const AS_GIVEN: i64 = 0;
/// First byte of an attempt's record.
const ATTEMPT_VERSION: u8 = 2;
/// Of attempts that do not say whether they were resent.
const ATTEMPT_WITHOUT_RESENT: u8 = 1;

// Column lists are macros, so that `concat!` makes whole statements of them at compile time.

/// Columns of an event, in the order [`event`] reads them, of a table named `e`.
macro_rules! event_columns {
    () => {
        "e.seq, e.tenant, e.ext_id, e.type, e.subject_type, e.subject_id, e.ts, e.accepted_at, \
         e.urgency, e.registry_version, e.format, e.attributes, e.data, e.trace"
    };
}
pub(super) use event_columns;

/// Reads an event from column `at` on.
pub(super) fn event(row: &Row<'_>, at: usize) -> DbResult<Event> {
    let seq = EventSeq(row.get(at)?);
    let accepted_at = time(row.get(at + 7)?);
    let format: i64 = row.get(at + 10)?;
    let blob = |at: usize| row.get_ref(at)?.as_blob_or_null().map_err(from_sql).map(|b| b.map(Bytes::copy_from_slice));
    let (attributes, data) = match format {
        AS_GIVEN => (blob(at + 11)?, blob(at + 12)?.ok_or_else(|| DbError::corrupt("event", "no data"))?),
        ERASED => (None, Bytes::from_static(b"null")),
        other => return Err(DbError::corrupt("event", format!("payload format {other}"))),
    };
    Ok(Event {
        seq,
        tenant: TenantKey(row.get(at + 1)?),
        id: event_id(row, at + 2, accepted_at, seq)?,
        event_type: text(row, at + 3)?.parse().map_err(|e| DbError::corrupt("event type", e))?,
        timestamp: time(row.get(at + 6)?),
        accepted_at,
        subject: subject(row, at + 4)?,
        urgency: urgency(row.get(at + 8)?)?,
        attributes,
        data,
        registry_version: version(row.get(at + 9)?)?,
        trace: row.get_ref(at + 13)?.as_blob_or_null().map_err(from_sql)?.and_then(TraceContext::from_bytes),
    })
}

/// The public id of an event: the caller's in column `at`, else ours.
pub(super) fn event_id(row: &Row<'_>, at: usize, accepted_at: Timestamp, seq: EventSeq) -> DbResult<EventId> {
    match row.get_ref(at)?.as_str_or_null().map_err(from_sql)? {
        Some(text) => text.parse().map_err(|e| DbError::corrupt("event id", e)),
        None => Ok(EventId::numbered(accepted_at, seq)),
    }
}

/// A subject: its type in column `at`, its id in the next.
pub(super) fn subject(row: &Row<'_>, at: usize) -> DbResult<Option<Subject>> {
    let Some(id) = row.get(at + 1)? else { return Ok(None) };
    Ok(Some(Subject { kind: row.get(at)?, id }))
}

/// Columns of a webhook, in the order [`webhook`] reads them, of a table named `w`.
macro_rules! webhook_columns {
    () => {
        "w.key, w.tenant, w.id, w.revision, w.config, w.sealed_secrets, w.disabled_reason, \
         w.paused_until, w.last_test, w.created_at, w.updated_at, w.deleted_at, w.verification_error, w.farewell"
    };
}
pub(super) use webhook_columns;

/// Reads a webhook.
pub(super) fn webhook(row: &Row<'_>) -> DbResult<Webhook> {
    Ok(Webhook {
        key: WebhookKey(row.get(0)?),
        tenant: TenantKey(row.get(1)?),
        id: webhook_id(row, 2)?,
        revision: row.get(3)?,
        config: config(text(row, 4)?)?,
        sealed_secrets: row.get(5)?,
        disabled_reason: row.get(6)?,
        paused_until: row.get::<_, Option<i64>>(7)?.map(time),
        last_test: row
            .get_ref(8)?
            .as_blob_or_null()
            .map_err(from_sql)?
            .map(attempt)
            .transpose()?
            .map(|kept| kept.record),
        created_at: time(row.get(9)?),
        updated_at: time(row.get(10)?),
        deleted_at: row.get::<_, Option<i64>>(11)?.map(time),
        verification_error: row.get(12)?,
        farewell: row.get::<_, Option<i64>>(13)?.map(DeliverySeq),
    })
}

/// Whether the webhook `w` has to be verified and is not: what it is owed is held.
macro_rules! unverified {
    () => {
        "(w.verified = 0 AND (w.must_verify = 1 OR (SELECT must_verify FROM tenants WHERE key = w.tenant) = 1))"
    };
}
pub(super) use unverified;

/// Whether the webhook `w` is paused: what it is owed is held. One that is deleted is not: nobody could
/// resume it, and what tells it of its deletion goes out.
macro_rules! paused {
    () => {
        "(w.paused = 1 AND w.deleted_at IS NULL)"
    };
}
pub(super) use paused;

/// Whether the webhook `w` is deleted, as far as the delivery `d` is concerned: the one that tells it of
/// its own deletion is owed all the same.
macro_rules! deleted_for {
    () => {
        "CASE WHEN w.farewell = d.seq THEN NULL ELSE w.deleted_at END"
    };
}
pub(super) use deleted_for;

/// A webhook's id in column `at`.
pub(super) fn webhook_id(row: &Row<'_>, at: usize) -> DbResult<WebhookId> {
    Ok(WebhookId::from_bytes(row.get(at)?))
}

/// What was registered.
pub(super) fn config(text: &str) -> DbResult<WebhookConfig> {
    serde_json::from_str(text).map_err(|e| DbError::corrupt("webhook", e))
}

/// What was registered, as kept.
pub(super) fn config_text(config: &WebhookConfig) -> DbResult<String> {
    serde_json::to_string(config).map_err(|e| DbError::corrupt("webhook", e))
}

/// A moment.
pub(super) fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// An urgency.
pub(super) fn urgency(rank: i64) -> DbResult<Urgency> {
    usize::try_from(rank).ok().and_then(Urgency::from_rank).ok_or_else(|| DbError::corrupt("urgency", rank))
}

/// A registry version.
pub(super) fn version(value: i64) -> DbResult<u64> {
    u64::try_from(value).map_err(|e| DbError::corrupt("registry version", e))
}

/// A registry version, as kept. Versions are counted up from 0 one by one.
pub(super) fn version_number(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// A delivery's state.
pub(super) fn state(number: i64) -> DbResult<DeliveryState> {
    let index = usize::try_from(number).ok();
    index.and_then(|i| DeliveryState::ALL.get(i).copied()).ok_or_else(|| DbError::corrupt("state", number))
}

/// A delivery's state, as kept.
pub(super) fn state_number(state: DeliveryState) -> i64 {
    state as i64
}

/// Why a delivery is in its state.
pub(super) fn reason(number: Option<i64>) -> DbResult<Option<Reason>> {
    let Some(number) = number else { return Ok(None) };
    let index = usize::try_from(number).ok();
    index.and_then(|i| Reason::ALL.get(i).copied()).map(Some).ok_or_else(|| DbError::corrupt("reason", number))
}

/// Why a delivery is in its state, as kept.
pub(super) fn reason_number(reason: Reason) -> i64 {
    reason as i64
}

/// An attempt as kept.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct KeptAttempt {
    /// The delivery's generation when the attempt was handed out.
    pub(super) generation: u32,
    /// The number the engine gave it; the record's own is the one it was kept under.
    pub(super) given: u32,
    /// The attempt.
    pub(super) record: AttemptRecord,
}

/// Reads an attempt.
pub(super) fn attempt(bytes: &[u8]) -> DbResult<KeptAttempt> {
    match bytes.split_first() {
        Some((&ATTEMPT_VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| DbError::corrupt("attempt", e)),
        // They end where it would be said: it was not.
        Some((&ATTEMPT_WITHOUT_RESENT, rest)) => {
            postcard::from_bytes(&[rest, &[0]].concat()).map_err(|e| DbError::corrupt("attempt", e))
        }
        _ => Err(DbError::corrupt("attempt", "unknown version")),
    }
}

/// An attempt as bytes: what [`KeptAttempt`] has, without copying the record.
pub(super) fn attempt_bytes(generation: u32, given: u32, record: &AttemptRecord) -> DbResult<Vec<u8>> {
    let mut bytes = Vec::new();
    write_attempt(&mut bytes, generation, given, record)?;
    Ok(bytes)
}

/// [`attempt_bytes`], in place of what is in `to`.
pub(super) fn write_attempt(to: &mut Vec<u8>, generation: u32, given: u32, record: &AttemptRecord) -> DbResult<()> {
    let mut bytes = std::mem::take(to);
    bytes.clear();
    bytes.push(ATTEMPT_VERSION);
    *to = postcard::to_extend(&(generation, given, record), bytes).map_err(|e| DbError::corrupt("attempt", e))?;
    Ok(())
}

/// A limit or a count, as SQLite takes it.
pub(super) fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// An urgency, as kept.
pub(super) fn rank(urgency: Urgency) -> i64 {
    // Three values.
    urgency.rank() as i64
}

/// A text column without copying it.
pub(super) fn text<'a>(row: &'a Row<'_>, at: usize) -> DbResult<&'a str> {
    row.get_ref(at)?.as_str().map_err(from_sql)
}

fn from_sql(error: rusqlite::types::FromSqlError) -> DbError {
    DbError::corrupt("column", error)
}

/// Whether the tenant exists (is not deleted).
pub(super) fn is_live(conn: &Connection, tenant: TenantKey) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM tenants WHERE key = ?1 AND deleted_at IS NULL")?.exists([tenant.0])
}

/// An event by number, whoever's.
pub(super) fn event_by_seq(conn: &Connection, seq: EventSeq) -> DbResult<Option<Event>> {
    let mut found = conn.prepare_cached(concat!("SELECT ", event_columns!(), " FROM events e WHERE e.seq = ?1"))?;
    let mut rows = found.query([seq.0])?;
    rows.next()?.map(|row| event(row, 0)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers kept are positions in `ALL`: reordering an enum must not go unnoticed.
    #[test]
    fn numbers_of_states_and_reasons_are_positions() {
        for (index, one) in DeliveryState::ALL.into_iter().enumerate() {
            assert_eq!(state_number(one), index as i64);
            assert_eq!(state(index as i64).unwrap(), one);
        }
        for (index, one) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason_number(one), index as i64);
            assert_eq!(reason(Some(index as i64)).unwrap(), Some(one));
        }
        let words: Vec<&str> = DeliveryState::ALL.iter().map(|s| s.as_str()).collect();
        assert_eq!(words, ["pending", "held", "delivered", "failed", "cancelled"]);
    }

    #[test]
    fn attempts_made_before_there_was_resent_are_read() {
        let record = crate::conformance::attempt(1, Timestamp::from_secs(7), 200);
        let mut bytes = attempt_bytes(3, 1, &record).unwrap();
        // As they were written then: the last member was not there.
        assert_eq!((bytes[0], bytes.pop()), (ATTEMPT_VERSION, Some(0)));
        bytes[0] = ATTEMPT_WITHOUT_RESENT;
        assert_eq!(attempt(&bytes).unwrap(), KeptAttempt { generation: 3, given: 1, record });
    }

    #[test]
    fn unknown_records_are_damage() {
        for bytes in [&[][..], &[9, 1, 2], &[ATTEMPT_VERSION, 0xff]] {
            assert!(matches!(attempt(bytes), Err(DbError::Corrupt(_))));
        }
        assert!(state(5).is_err() && reason(Some(11)).is_err() && urgency(3).is_err() && version(-1).is_err());
    }
}
