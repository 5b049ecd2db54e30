//! What can go wrong inside, and what the caller is told of it.

use rusqlite::ErrorCode;

use super::flush::Flushes;
use crate::StoreError;

/// A failure of one step.
#[derive(Debug)]
pub(super) enum DbError {
    /// SQLite's own.
    Sql(rusqlite::Error),
    /// A row holds what nothing here writes.
    Corrupt(String),
}

/// Result of one step.
pub(super) type DbResult<T> = std::result::Result<T, DbError>;

impl DbError {
    /// A value of `what` that cannot be read.
    pub(super) fn corrupt(what: &str, why: impl std::fmt::Display) -> Self {
        DbError::Corrupt(format!("{what}: {why}"))
    }

    /// Tells of a flush that failed.
    pub(super) fn tell(&self, flushes: &Flushes) {
        if let DbError::Sql(error) = self {
            flushes.look(error);
        }
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        DbError::Sql(error)
    }
}

impl From<DbError> for StoreError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Sql(error) => of_sqlite(&error),
            DbError::Corrupt(text) => StoreError::Corrupt(text),
        }
    }
}

/// Whether trying later may work decides: conditions of the machine do, damage and bugs do not.
pub(super) fn of_sqlite(error: &rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OperationAborted
            | ErrorCode::OperationInterrupted,
        ) => StoreError::Unavailable(text),
        _ => StoreError::Corrupt(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_the_machine_are_unavailable_and_damage_is_corrupt() {
        let cases = [
            (rusqlite::ffi::SQLITE_FULL, false),
            (rusqlite::ffi::SQLITE_IOERR_FSYNC, false),
            (rusqlite::ffi::SQLITE_READONLY, false),
            (rusqlite::ffi::SQLITE_BUSY, false),
            (rusqlite::ffi::SQLITE_CANTOPEN, false),
            (rusqlite::ffi::SQLITE_CORRUPT, true),
            (rusqlite::ffi::SQLITE_NOTADB, true),
            (rusqlite::ffi::SQLITE_CONSTRAINT, true),
        ];
        for (code, corrupt) in cases {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            assert_eq!(matches!(of_sqlite(&error), StoreError::Corrupt(_)), corrupt, "{code}");
        }
    }
}
