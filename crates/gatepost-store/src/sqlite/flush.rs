//! What is done about a flush that failed.
//!
//! A system that could not write pages says so once to each open descriptor, takes the pages for
//! written and forgets them: the next flush succeeds and says nothing of what is lost. So after one
//! failed flush nothing that was written since the last good one can be relied on, in the log or in the
//! database, and no later flush mends it. From then on the store accepts nothing ([`Flushes::check`]),
//! copies nothing and never lets go of its log; whoever owns it is told and ends the process. What a
//! start finds is what the system *remembers*, not what the disk has, so the start brings all of it to
//! disk again before it relies on it ([`renew`]).
//!
//! A failed write and a full disk are another matter: SQLite takes the transaction back, and nothing
//! that was promised is touched.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rusqlite::ffi;
use tokio::sync::watch;

use super::folder::{DATABASE, sync_folder};
use crate::{Result, StoreError};

/// Bytes of the log written again at once.
const CHUNK: usize = 1 << 20;
/// Where in the index of the log SQLite keeps how much of it is copied, in four bytes
/// (<https://sqlite.org/walformat.html>, 2.2).
const COPIED_AT: u64 = 96;

/// Whether a flush has failed, and who waits to hear of it.
#[derive(Debug)]
pub(super) struct Flushes(watch::Sender<Option<String>>);

impl Default for Flushes {
    fn default() -> Self {
        Flushes(watch::Sender::new(None))
    }
}

impl Flushes {
    /// Looks at an error of SQLite's: a failed flush is kept in mind for good.
    pub(super) fn look(&self, error: &rusqlite::Error) {
        if is_failed_flush(error) {
            self.0.send_if_modified(|known| {
                let first = known.is_none();
                if first {
                    tracing::error!(%error, "a flush failed: what was written since the last one may be lost");
                    *known = Some(error.to_string());
                }
                first
            });
        }
    }

    /// The error of the first flush that failed.
    pub(super) fn failed(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Whether the files may still be written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] once a flush has failed.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.0.borrow() {
            None => Ok(()),
            Some(error) => Err(StoreError::Unavailable(format!("a flush to disk failed ({error}): start anew"))),
        }
    }

    /// Waits for a flush to fail.
    pub(super) fn wait(&self) -> impl Future<Output = String> + Send + use<> {
        let mut told = self.0.subscribe();
        async move {
            match told.wait_for(Option::is_some).await.map(|error| error.clone()) {
                Ok(error) => error.unwrap_or_default(),
                // The store is gone, and none of its flushes failed.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

fn is_failed_flush(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Makes what a start finds in `folder` as good as it looks: before any connection is opened, by whoever
/// holds the folder.
///
/// The log is written again where it stands, so that every page of it is flushed with the next commit,
/// also those the system only believes to be on disk; and it counts as not copied at all. The latter is so
/// by itself unless another process (a backup) kept the log's index alive since the last server.
///
/// # Errors
/// [`StoreError::Unavailable`] when the system cannot do it.
pub(super) fn renew(folder: &Path) -> Result<()> {
    let at = |suffix: &str| folder.join(format!("{DATABASE}{suffix}"));
    let failed = |what: &Path, error: io::Error| StoreError::Unavailable(format!("{}: {error}", what.display()));
    let (log, index) = (at("-wal"), at("-shm"));
    write_again(&log).map_err(|error| failed(&log, error))?;
    forget_copied(&index).map_err(|error| failed(&index, error))?;
    sync_folder(folder).map_err(|error| failed(folder, error))
}

/// Writes a file again over itself and flushes it. The bytes are the same, so it does not matter who reads
/// it meanwhile, or where a crash cuts it off.
fn write_again(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let (mut chunk, mut at) = (vec![0; CHUNK], 0);
    loop {
        file.seek(SeekFrom::Start(at))?;
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return file.sync_all();
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&chunk[..read])?;
        at += read as u64;
    }
}

/// Notes in the log's index that nothing of the log is copied.
fn forget_copied(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    if file.metadata()?.len() < COPIED_AT + 4 {
        return Ok(());
    }
    file.seek(SeekFrom::Start(COPIED_AT))?;
    file.write_all(&[0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{at, event, publish, tenant};
    use crate::sqlite::Options;
    use crate::sqlite::checkpoint::Sizes;
    use crate::{SqliteStore, Store};

    #[test]
    fn only_failed_flushes_are_kept_in_mind() {
        let flushes = Flushes::default();
        let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_READ, ffi::SQLITE_BUSY] {
            flushes.look(&failure(code));
            assert!(flushes.check().is_ok(), "{code}");
        }
        flushes.look(&failure(ffi::SQLITE_IOERR_FSYNC));
        assert!(matches!(flushes.check(), Err(StoreError::Unavailable(_))));
        assert!(flushes.failed().is_some());
    }

    #[tokio::test]
    async fn p1_a_start_counts_nothing_of_the_log_as_copied_whoever_kept_its_index_alive() {
        let folder = tempfile::tempdir().unwrap();
        let open = || SqliteStore::open_with(folder.path(), Options::default(), Sizes { soft: 8, hard: 512 }).unwrap();
        let copied = || {
            let index = std::fs::read(folder.path().join(format!("{DATABASE}-shm"))).unwrap();
            u32::from_ne_bytes(index[96..100].try_into().unwrap())
        };
        let store = open();
        let acme = tenant(&store, "acme").await.key;
        // Another reader, as a backup is one: it keeps the log's index, and the log from being let go.
        let other = crate::sqlite::schema::open_reader(&folder.path().join(DATABASE), 64).unwrap();
        other.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
        for n in 0..50 {
            publish(&store, acme, at(n), vec![event("a.b", &[])]).await;
        }
        store.close().await;
        assert!(copied() > 0, "nothing was copied: the test shows nothing");
        renew(folder.path()).unwrap();
        assert_eq!(copied(), 0);
        let store = open();
        drop(other);
        publish(&store, acme, at(60), vec![event("a.b", &[])]).await;
        store.close().await;
        let whole = rusqlite::Connection::open(folder.path().join(DATABASE)).unwrap();
        let found: (String, i64) = whole
            .query_row("SELECT (SELECT * FROM pragma_integrity_check), (SELECT count(*) FROM events)", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(found, ("ok".to_owned(), 51));
    }

    #[test]
    fn p1_the_log_is_written_again_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        write_again(&path).unwrap();
        assert!(!path.exists());
        let bytes: Vec<u8> = (0..CHUNK * 2 + 77).map(|n| (n * 31 % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        write_again(&path).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}
