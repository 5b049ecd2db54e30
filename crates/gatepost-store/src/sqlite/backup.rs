//! Copies of the embedded store, and folders made of copies.
//!
//! A copy is one snapshot: it holds every commit that ended before it began and nothing of later ones.
//! The server may be running (any process may read beside its writer, in the write-ahead log's way) or
//! not. The log cannot start anew while the snapshot is read, so it grows by what is written meanwhile.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error::of_sqlite;
use super::folder::{DATABASE, Folder, private, sync_folder};
use super::schema;
use crate::{Result, StoreError};

/// Pages copied between two words to the caller: 16 MiB.
const STEP_PAGES: i32 = 4_096;
/// Name of a database that is being put in place.
const DRAFT: &str = "gatepost.db.restoring";

/// What a database is, without opening it as a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peek {
    /// Its schema's version.
    pub schema: i64,
    /// The named values asked for, as [`crate::Store::meta`] gives them.
    pub meta: Vec<Option<Vec<u8>>>,
}

/// Copies the database of the data folder `folder` to the new file `to`, checks the copy and brings it to
/// disk. `progress` hears how many pages of how many are copied.
///
/// # Errors
/// [`StoreError::Unavailable`] when there is none or a file cannot be read or written,
/// [`StoreError::Corrupt`] when the copy is damaged (then so is the original).
pub fn copy(folder: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let from = folder.join(DATABASE);
    if !from.is_file() {
        return Err(StoreError::Unavailable(format!("{} holds no store ({DATABASE} is not there)", folder.display())));
    }
    let source = schema::open_reader(&from, 8 << 10).map_err(|e| of_sqlite(&e))?;
    private(fs::OpenOptions::new().create_new(true).write(true)).open(to).map_err(|e| unavailable(to, &e))?;
    let mut target = open(to).map_err(|e| of_sqlite(&e))?;
    copy_pages(&source, &mut target, progress).map_err(|e| of_sqlite(&e))?;
    // A file by itself, whoever opens it: no log belongs to it.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(|e| of_sqlite(&e))?;
    let verdict: String = target.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| of_sqlite(&e))?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt(format!("the copy does not pass SQLite's check: {verdict}")));
    }
    target.close().map_err(|(_, e)| of_sqlite(&e))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|e| unavailable(to, &e))
}

fn copy_pages(
    source: &Connection,
    target: &mut Connection,
    progress: &mut dyn FnMut(u64, u64),
) -> rusqlite::Result<()> {
    // One snapshot for all steps: without it every commit in between would begin the copy anew.
    source.execute_batch("BEGIN")?;
    schema::applied(source)?;
    let copying = Backup::new(source, target)?;
    loop {
        let step = copying.step(STEP_PAGES)?;
        let at = copying.progress();
        let pages = |n: i32| u64::try_from(n).unwrap_or(0);
        progress(pages(at.pagecount - at.remaining), pages(at.pagecount));
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Somebody holds the file for a moment, as at its very first opening.
            _ => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    }
    drop(copying);
    source.execute_batch("COMMIT")
}

/// Looks at a database file by itself (not at one a server uses): its schema and the named values `names`.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is no store or of a newer version; [`StoreError::Unavailable`] when it
/// cannot be read.
pub fn peek(database: &Path, names: &[&str]) -> Result<Peek> {
    let conn = open(database).map_err(|e| of_sqlite(&e))?;
    let schema = schema::applied(&conn).map_err(|e| of_sqlite(&e))?;
    let known = schema::known();
    if schema > known {
        return Err(StoreError::Corrupt(format!(
            "the database has schema {schema}, this version knows up to {known}: it was written by a newer version"
        )));
    }
    if schema == 0 {
        return Err(StoreError::Corrupt("the database is no store of Gatepost's".to_owned()));
    }
    let value =
        |name: &&str| conn.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional();
    let meta = names.iter().map(value).collect::<rusqlite::Result<_>>().map_err(|e| of_sqlite(&e))?;
    Ok(Peek { schema, meta })
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;")?;
    Ok(conn)
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

/// A data folder that gets its database from elsewhere. Locked until it is done or dropped: then the folder
/// is as it was found.
#[derive(Debug)]
pub struct Placing {
    /// Nothing once it is done.
    folder: Option<Folder>,
    path: PathBuf,
}

impl Placing {
    /// Makes the folder if needed and locks it. What an earlier, interrupted placing left is removed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the folder has a database already, is in use, or cannot be made.
    pub fn begin(folder: &Path) -> Result<Placing> {
        let placing = Placing { folder: Some(Folder::claim(folder)?), path: folder.to_owned() };
        let has = |name: &str| folder.join(name).exists();
        if has(DATABASE) || has(&format!("{DATABASE}-wal")) {
            return Err(StoreError::Unavailable(format!("{} has a store already", folder.display())));
        }
        match fs::remove_file(placing.draft()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unavailable(&placing.draft(), &error)),
            _ => Ok(placing),
        }
    }

    /// Files of a data folder that stand for no store: a lock nobody holds, a placing that was interrupted.
    pub fn is_debris(name: &str) -> bool {
        name == super::folder::LOCK || name == DRAFT
    }

    /// Where the database is to be written first.
    pub fn draft(&self) -> PathBuf {
        self.path.join(DRAFT)
    }

    /// Makes the new, private file [`Placing::draft`].
    ///
    /// # Errors
    /// As the system gives them.
    pub fn create_draft(&self) -> io::Result<File> {
        private(fs::OpenOptions::new().create_new(true).write(true)).open(self.draft())
    }

    /// Brings the draft to disk and makes it the folder's database, at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] as the system gives them.
    pub fn finish(&mut self) -> Result<()> {
        let (draft, place) = (self.draft(), self.path.join(DATABASE));
        let failed = |e| unavailable(&place, &e);
        File::open(&draft).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&draft, &place).map_err(failed)?;
        // A name that is not flushed is taken back.
        sync_folder(&self.path).inspect_err(|_| drop(fs::remove_file(&place))).map_err(failed)?;
        self.folder = None;
        Ok(())
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take() {
            for suffix in ["", "-journal", "-wal", "-shm"] {
                let _ = fs::remove_file(self.path.join(format!("{DRAFT}{suffix}")));
            }
            folder.undo();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::{Options, SqliteStore};
    use super::*;
    use crate::conformance::{at, event, publish, tenant, webhook};
    use crate::{EventQuery, Order, PageRequest, Store};

    fn opened(folder: &Path) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(folder, Options::default()).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_made_beside_the_writer_holds_what_was_committed_before() {
        let temp = tempfile::tempdir().unwrap();
        let (live, new) = (temp.path().join("live"), temp.path().join("new"));
        let store = opened(&live);
        let acme = tenant(&*store, "acme").await.key;
        let hook = webhook(&*store, acme, 1).await;
        for n in 0..200 {
            publish(&*store, acme, at(n), vec![event("a.b", &[&hook])]).await;
        }
        store.set_meta("colour", b"red").await.unwrap();
        let busy = Arc::new(AtomicBool::new(true));
        let (writer, going) = (Arc::clone(&store), Arc::clone(&busy));
        let writing = tokio::spawn(async move {
            let mut n = 200;
            while going.load(Ordering::SeqCst) {
                publish(&*writer, acme, at(n), vec![event("a.b", &[])]).await;
                n += 1;
            }
            n
        });
        let target = temp.path().join("copy");
        let from = live.clone();
        let to = target.clone();
        let heard = tokio::task::spawn_blocking(move || {
            let mut last = (0, 1);
            copy(&from, &to, &mut |done, of| last = (done, of)).unwrap();
            last
        });
        let heard = heard.await.unwrap();
        busy.store(false, Ordering::SeqCst);
        let written = writing.await.unwrap();
        assert!(heard.0 == heard.1 && heard.1 > 0, "{heard:?}");
        assert!(!temp.path().join("copy-wal").exists() && !temp.path().join("copy-journal").exists());

        let seen = peek(&target, &["colour", "none"]).unwrap();
        assert_eq!((seen.schema, seen.meta), (schema::known(), vec![Some(b"red".to_vec()), None]));
        let mut placing = Placing::begin(&new).unwrap();
        std::io::copy(&mut File::open(&target).unwrap(), &mut placing.create_draft().unwrap()).unwrap();
        placing.finish().unwrap();
        let copied = opened(&new);
        let query =
            EventQuery { order: Order::Ascending, ..EventQuery::of(acme, PageRequest { limit: 200, after: None }) };
        let events = copied.events(query).await.unwrap().rows;
        assert_eq!(events.len(), 200);
        assert!(events.iter().all(|(_, deliveries)| *deliveries == 1));
        assert_eq!(copied.owed(None, 10).await.unwrap().len(), 1);
        assert!(written >= 200);
    }

    #[test]
    fn only_stores_are_copied_and_only_into_folders_without_one() {
        let temp = tempfile::tempdir().unwrap();
        let (full, empty, to) = (temp.path().join("full"), temp.path().join("empty"), temp.path().join("to"));
        drop(opened(&full));
        fs::create_dir(&empty).unwrap();
        let error = copy(&empty, &to, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("no store"), "{error}");
        let error = Placing::begin(&full).unwrap_err().to_string();
        assert!(error.contains("already"), "{error}");
        fs::write(&to, b"not a database, but as long as the head of one should be: a hundred bytes or a few more")
            .unwrap();
        assert!(matches!(peek(&to, &[]), Err(StoreError::Corrupt(_))));
        // One that is given up leaves nothing, not even folders that it made.
        let deep = temp.path().join("a/b");
        for folder in [&empty, &deep] {
            let placing = Placing::begin(folder).unwrap();
            placing.create_draft().unwrap();
        }
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
        assert!(!temp.path().join("a").exists());
        assert!(full.join(DATABASE).exists());
        // An interrupted placing is no hindrance.
        fs::write(empty.join(DRAFT), b"half").unwrap();
        let placing = Placing::begin(&empty).unwrap();
        assert!(!placing.draft().exists());
        let error = Placing::begin(&empty).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
    }
}
