//! Opening connections and bringing the schema up to date.

use std::path::{Path, PathBuf};
use std::time::Duration;

use refinery::{Migration, Runner};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error::of_sqlite;
use crate::{Result, StoreError};

/// Every migration, oldest first. A file in `migrations/sqlite` that is missing here fails a test.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__first", include_str!("../../migrations/sqlite/V1__first.sql")),
    ("V2__hooks", include_str!("../../migrations/sqlite/V2__hooks.sql")),
    ("V3__order_and_batches", include_str!("../../migrations/sqlite/V3__order_and_batches.sql")),
    ("V4__health", include_str!("../../migrations/sqlite/V4__health.sql")),
    ("V5__jobs", include_str!("../../migrations/sqlite/V5__jobs.sql")),
    ("V6__idempotency", include_str!("../../migrations/sqlite/V6__idempotency.sql")),
    ("V7__trace", include_str!("../../migrations/sqlite/V7__trace.sql")),
    ("V8__unmade", include_str!("../../migrations/sqlite/V8__unmade.sql")),
    ("V9__paused", include_str!("../../migrations/sqlite/V9__paused.sql")),
];

/// Statements kept ready per connection: more than there are in this crate.
const STATEMENTS: usize = 256;

/// How long a connection waits for another one's lock. Only checkpoints ever hold one.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Where the database lives.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A file.
    File(PathBuf),
    /// Memory, gone with the connection.
    Memory,
}

/// Opens a connection that may write.
///
/// # Errors
/// As SQLite gives them.
pub(super) fn open_writer(place: &Place, cache_kib: u32) -> rusqlite::Result<Connection> {
    let conn = match place {
        Place::File(path) => Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?,
        Place::Memory => Connection::open_in_memory()?,
    };
    // P1 rests on synchronous=FULL: COMMIT returns after the log's flush. Checkpoints are run by
    // `checkpoint`, so that no commit pays for one by surprise. The log keeps its size
    // (no journal_size_limit): overwriting it flushes faster than growing it (ADR 0001). What is
    // deleted is overwritten, so that what was removed or erased cannot be read from the file.
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -{cache_kib};
         PRAGMA temp_store = MEMORY;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = OFF;
         PRAGMA trusted_schema = OFF;"
    ))?;
    finish(&conn)?;
    Ok(conn)
}

/// Opens a connection that only reads.
///
/// # Errors
/// As SQLite gives them.
pub(super) fn open_reader(path: &Path, cache_kib: u32) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.execute_batch(&format!(
        "PRAGMA query_only = ON;
         PRAGMA cache_size = -{cache_kib};
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;"
    ))?;
    finish(&conn)?;
    // Whoever closes last would copy the log and remove it, and nobody would hear that its flush failed.
    keep_log_on_close(&conn)?;
    Ok(conn)
}

/// Lets the log be when the connection is closed, though it be the last one.
///
/// # Errors
/// None that is known of.
pub(super) fn keep_log_on_close(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

fn finish(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise the planner looks at bound values to see whether a partial index applies, and prepares
    // the statement again whenever they change: more work than all the rest of a settlement.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Applies what is missing, all in one transaction.
///
/// # Errors
/// [`StoreError::Corrupt`] for a database of a newer version or with an altered history.
pub(super) fn migrate(conn: &mut Connection) -> Result<()> {
    let known = known();
    let found = applied(conn).map_err(|e| of_sqlite(&e))?;
    if found > known {
        return Err(StoreError::Corrupt(format!(
            "the database has schema {found}, this version knows up to {known}: it was written by a newer version"
        )));
    }
    let bad = |e: refinery::Error| StoreError::Corrupt(format!("schema: {e}"));
    let list: Vec<Migration> = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<std::result::Result<_, _>>()
        .map_err(bad)?;
    // Grouped: a crash between a migration and the note that it was applied must not be possible.
    Runner::new(&list).set_grouped(true).run(conn).map_err(|e| migration_failed(&e))?;
    Ok(())
}

/// The highest migration this version has.
pub(super) fn known() -> i64 {
    MIGRATIONS.last().and_then(|(name, _)| name[1..name.find("__")?].parse().ok()).unwrap_or(0)
}

/// A full disk during a migration is no damage.
fn migration_failed(error: &refinery::Error) -> StoreError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(sql) = cause.downcast_ref::<rusqlite::Error>() {
            return of_sqlite(sql);
        }
        source = cause.source();
    }
    StoreError::Corrupt(format!("schema: {error}"))
}

/// The highest migration applied; 0 for a new database.
pub(super) fn applied(conn: &Connection) -> rusqlite::Result<i64> {
    let table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'refinery_schema_history'";
    if conn.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    conn.query_row("SELECT coalesce(max(version), 0) FROM refinery_schema_history", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_file_is_listed_under_its_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort_by_key(|name| name[1..name.find("__").unwrap()].parse::<u32>().unwrap());
        let listed: Vec<String> = MIGRATIONS.iter().map(|(name, _)| format!("{name}.sql")).collect();
        assert_eq!(files, listed);
        for (index, name) in listed.iter().enumerate() {
            assert!(name.starts_with(&format!("V{}__", index + 1)), "{name}");
        }
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let mut conn = open_writer(&Place::Memory, 1_000).unwrap();
        migrate(&mut conn).unwrap();
        migrate(&mut conn).unwrap();
        assert_eq!(applied(&conn).unwrap(), known());
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let mut conn = open_writer(&Place::Memory, 1_000).unwrap();
        migrate(&mut conn).unwrap();
        let add = "INSERT INTO refinery_schema_history VALUES (9999, 'later', '2099-01-01T00:00:00Z', '1')";
        conn.execute(add, []).unwrap();
        let error = migrate(&mut conn).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("newer")), "{error}");
    }

    #[test]
    fn an_altered_history_is_refused() {
        let mut conn = open_writer(&Place::Memory, 1_000).unwrap();
        migrate(&mut conn).unwrap();
        conn.execute("UPDATE refinery_schema_history SET checksum = '1'", []).unwrap();
        assert!(matches!(migrate(&mut conn), Err(StoreError::Corrupt(_))));
    }
}
