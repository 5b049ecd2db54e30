//! Named values of the installation.

use rusqlite::{Connection, OptionalExtension};

use super::error::{DbError, DbResult};
use super::writer::Tx;

/// Rewritten by [`check`]; no other value may have this name.
const CHECKED: &str = "checked";

pub(super) fn meta(conn: &Connection, name: &str) -> DbResult<Option<Vec<u8>>> {
    let mut found = conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(found.query_row([name], |row| row.get(0)).optional()?)
}

pub(super) fn init(tx: &Tx<'_>, name: &str, value: &[u8]) -> DbResult<Vec<u8>> {
    tx.conn
        .prepare_cached("INSERT INTO meta(name, value) VALUES (?1, ?2) ON CONFLICT(name) DO NOTHING")?
        .execute((name, value))?;
    meta(tx.conn, name)?.ok_or_else(|| DbError::corrupt("meta", "gone after it was set"))
}

pub(super) fn set(tx: &Tx<'_>, name: &str, value: &[u8]) -> DbResult<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO meta(name, value) VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
        )?
        .execute((name, value))?;
    Ok(())
}

/// Writes something, so that the commit has something to flush. The value must change: SQLite leaves a
/// page alone whose bytes would be the same, and then nothing is written at all. And it must be long:
/// the last free kilobytes of a disk would take a byte, but not an event.
pub(super) fn check(tx: &Tx<'_>) -> DbResult<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO meta(name, value) VALUES (?1, randomblob(32768))
             ON CONFLICT(name) DO UPDATE SET value = excluded.value",
        )?
        .execute([CHECKED])?;
    Ok(())
}
