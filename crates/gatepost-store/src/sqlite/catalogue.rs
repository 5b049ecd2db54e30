//! Event types, declared or seen.

use rusqlite::{Connection, OptionalExtension, Row};

use super::error::{DbError, DbResult};
use super::row::{count, text, time};
use super::writer::Tx;
use crate::{Created, EventTypeRow};

macro_rules! columns {
    () => {
        "name, definition, created_at, updated_at"
    };
}

fn read(row: &Row<'_>) -> DbResult<EventTypeRow> {
    let definition: Option<String> = row.get(1)?;
    Ok(EventTypeRow {
        name: text(row, 0)?.parse().map_err(|e| DbError::corrupt("event type", e))?,
        definition: definition
            .map(|text| serde_json::from_str(&text).map_err(|e| DbError::corrupt("event type", e)))
            .transpose()?,
        created_at: time(row.get(2)?),
        updated_at: time(row.get(3)?),
    })
}

pub(super) fn event_type(conn: &Connection, name: &str) -> DbResult<Option<EventTypeRow>> {
    let mut found = conn.prepare_cached(concat!("SELECT ", columns!(), " FROM event_types WHERE name = ?1"))?;
    let mut rows = found.query([name])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn event_types(conn: &Connection, after: Option<&str>, limit: usize) -> DbResult<Vec<EventTypeRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM event_types WHERE name > ?1 ORDER BY name LIMIT ?2");
    let mut found = conn.prepare_cached(sql)?;
    let mut rows = found.query((after.unwrap_or(""), count(limit)))?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read(row)?);
    }
    Ok(list)
}

/// A type that was only seen before keeps the time it was first seen.
pub(super) fn put(tx: &Tx<'_>, row: &EventTypeRow) -> DbResult<Created> {
    let definition = row
        .definition
        .as_ref()
        .map(serde_json::to_string)
        .transpose()
        .map_err(|e| DbError::corrupt("event type", e))?;
    let present: Option<bool> = tx
        .conn
        .prepare_cached("SELECT definition IS NOT NULL FROM event_types WHERE name = ?1")?
        .query_row([row.name.as_str()], |found| found.get(0))
        .optional()?;
    tx.conn
        .prepare_cached(
            "INSERT INTO event_types(name, definition, seen, created_at, updated_at) VALUES (?1, ?2, ?2 IS NULL, ?3, ?4)
             ON CONFLICT(name) DO UPDATE SET definition = excluded.definition, updated_at = excluded.updated_at",
        )?
        .execute((row.name.as_str(), definition, row.created_at.as_micros(), row.updated_at.as_micros()))?;
    Ok(if present == Some(true) { Created::No } else { Created::Yes })
}

/// A type that was also seen undeclared goes on being listed as seen.
pub(super) fn delete(tx: &mut Tx<'_>, name: &str) -> DbResult<bool> {
    let declared = tx
        .conn
        .prepare_cached("SELECT 1 FROM event_types WHERE name = ?1 AND definition IS NOT NULL")?
        .exists([name])?;
    tx.conn
        .prepare_cached("DELETE FROM event_types WHERE name = ?1 AND definition IS NOT NULL AND seen = 0")?
        .execute([name])?;
    tx.conn.prepare_cached("UPDATE event_types SET definition = NULL WHERE name = ?1")?.execute([name])?;
    tx.known_types.remove(name);
    Ok(declared)
}
