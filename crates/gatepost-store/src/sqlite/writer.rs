//! The one writer and its group commits.
//!
//! Requests that arrive while a commit is being flushed share the next one: there is no linger, the
//! flush itself is the wait. Each request runs in its own savepoint, so that a failing one takes back
//! its own changes and nobody else's. Answers leave only after COMMIT has returned.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::checkpoint::Wal;
use super::error::{DbError, DbResult, of_sqlite};
use super::queue::Queue;
use super::schema::{self, Place};
use crate::{Result, StoreError};

/// Requests in one commit at most: bounds how long an answer can take.
const GROUP: usize = 1_024;
/// Bytes of requests in one commit, about.
const GROUP_BYTES: usize = 16 << 20;
/// Names of undeclared event types remembered.
const KNOWN_TYPES: usize = 50_000;

/// The next numbers to give out. They only ever grow: a number of a request that was rolled back is
/// never seen by anybody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) event: i64,
    pub(super) delivery: i64,
}

/// What a writing request works with.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) numbers: &'a mut Numbers,
    /// Names known to be in the list of event types.
    pub(super) known_types: &'a mut HashSet<Box<str>>,
}

/// A writing request.
pub(super) trait Job: Send {
    /// Does the work. Whether it succeeded: if not, its changes are taken back.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answers the caller, now that the commit has gone well or not.
    fn finish(self: Box<Self>, commit: std::result::Result<(), StoreError>);
}

struct Op<T, F> {
    work: Option<F>,
    result: Result<T>,
    reply: oneshot::Sender<Result<T>>,
}

/// A request that runs `work`, and where its answer arrives.
pub(super) fn job<T, F>(work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> DbResult<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(Op { work: Some(work), result: Err(StoreError::Closed), reply }), answer)
}

impl<T, F> Job for Op<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> DbResult<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        // A bug in one request must not stop the writer for all others.
        self.result = match catch_unwind(AssertUnwindSafe(|| work(tx))) {
            Ok(result) => result.map_err(StoreError::from),
            Err(_) => Err(StoreError::Corrupt("a request panicked".to_owned())),
        };
        self.result.is_ok()
    }

    fn finish(self: Box<Self>, commit: std::result::Result<(), StoreError>) {
        // A caller that went away does not want its answer.
        let _ = self.reply.send(match commit {
            Ok(()) => self.result,
            Err(error) => self.result.and(Err(error)),
        });
    }
}

/// Counters for metrics.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) commits: AtomicU64,
    pub(super) requests: AtomicU64,
}

/// The writer: a connection and what is remembered beside it.
pub(super) struct Writer {
    place: Place,
    cache_kib: u32,
    conn: Connection,
    /// The connection is in an unknown state and must be opened anew.
    broken: bool,
    numbers: Numbers,
    known_types: HashSet<Box<str>>,
    tally: Arc<Tally>,
    wal: Arc<Wal>,
}

impl Writer {
    /// Opens the database, creating and migrating it as needed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub(super) fn open(place: Place, cache_kib: u32, tally: Arc<Tally>, wal: Arc<Wal>) -> Result<Self> {
        let mut conn = connect(&place, cache_kib, &wal).map_err(|e| of_sqlite(&e))?;
        schema::migrate(&mut conn)?;
        let numbers = Numbers { event: next_number(&conn, "events")?, delivery: next_number(&conn, "deliveries")? };
        let known_types = HashSet::new();
        Ok(Writer { place, cache_kib, conn, broken: false, numbers, known_types, tally, wal })
    }

    /// The connection, for reads in the mode without threads.
    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Serves the queue until it is closed.
    pub(super) fn serve(mut self, queue: &Queue<Box<dyn Job>>) {
        while let Some((first, weight)) = queue.pop() {
            let mut bytes = weight;
            self.group(first, || {
                if bytes >= GROUP_BYTES {
                    return None;
                }
                let (job, weight) = queue.try_pop()?;
                bytes += weight;
                Some(job)
            });
            self.wal.after_commit(&self.conn);
        }
    }

    /// Runs `first` and what `next` gives in one transaction, then answers them all.
    pub(super) fn group(&mut self, first: Box<dyn Job>, mut next: impl FnMut() -> Option<Box<dyn Job>>) {
        if let Err(error) = self.begin() {
            return first.finish(Err(error));
        }
        let mut jobs = Vec::new();
        let mut upcoming = Some(first);
        let mut state = Ok(());
        while let Some(mut job) = upcoming.take() {
            state = if jobs.is_empty() { self.first(job.as_mut()) } else { self.step(job.as_mut()) };
            jobs.push(job);
            if state.is_ok() && jobs.len() < GROUP {
                upcoming = next();
            }
        }
        let outcome = state.and_then(|()| self.commit());
        if let Err(error) = &outcome {
            tracing::warn!(%error, requests = jobs.len(), "a group of requests was not committed");
            self.recover();
        }
        self.tally.commits.fetch_add(1, Ordering::Relaxed);
        self.tally.requests.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        for job in jobs {
            job.finish(outcome.clone());
        }
    }

    fn begin(&mut self) -> Result<()> {
        if self.broken {
            self.conn = connect(&self.place, self.cache_kib, &self.wal).map_err(|e| of_sqlite(&e))?;
            self.broken = false;
        }
        run(&self.conn, "BEGIN IMMEDIATE").map_err(|e| {
            self.broken = matches!(self.place, Place::File(_));
            unavailable(&e)
        })
    }

    /// The first request of a group needs no savepoint: taking it back is taking back everything.
    fn first(&mut self, job: &mut dyn Job) -> Result<()> {
        if self.perform(job)? {
            return Ok(());
        }
        run(&self.conn, "ROLLBACK").and_then(|()| run(&self.conn, "BEGIN IMMEDIATE")).map_err(|e| unavailable(&e))
    }

    /// One request in its savepoint. An error means that the whole transaction is lost.
    fn step(&mut self, job: &mut dyn Job) -> Result<()> {
        run(&self.conn, "SAVEPOINT request").map_err(|e| unavailable(&e))?;
        if !self.perform(job)? {
            run(&self.conn, "ROLLBACK TO request").map_err(|e| unavailable(&e))?;
        }
        run(&self.conn, "RELEASE request").map_err(|e| unavailable(&e))
    }

    /// Whether the request succeeded. An error means that the whole transaction is lost.
    fn perform(&mut self, job: &mut dyn Job) -> Result<bool> {
        let mut tx = Tx { conn: &self.conn, numbers: &mut self.numbers, known_types: &mut self.known_types };
        let succeeded = job.run(&mut tx);
        if !succeeded || self.known_types.len() > KNOWN_TYPES {
            self.known_types.clear();
        }
        // SQLite rolls back everything by itself on some errors (full disk, I/O error).
        if self.conn.is_autocommit() {
            return Err(StoreError::Unavailable("the transaction was rolled back by the database".to_owned()));
        }
        Ok(succeeded)
    }

    fn commit(&self) -> Result<()> {
        run(&self.conn, "COMMIT").map_err(|e| unavailable(&e))
    }

    /// Back to no transaction, after a failure.
    fn recover(&mut self) {
        self.known_types.clear();
        if !self.conn.is_autocommit() && run(&self.conn, "ROLLBACK").is_err() {
            self.broken = matches!(self.place, Place::File(_));
        }
    }
}

/// A failed begin, savepoint or commit is "nothing happened, try later", unless it is damage.
fn unavailable(error: &rusqlite::Error) -> StoreError {
    match (error.sqlite_error_code(), of_sqlite(error)) {
        (Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase), corrupt) => corrupt,
        _ => StoreError::Unavailable(error.to_string()),
    }
}

fn run(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

fn connect(place: &Place, cache_kib: u32, wal: &Arc<Wal>) -> rusqlite::Result<Connection> {
    let mut conn = schema::open_writer(place, cache_kib)?;
    let log = Arc::clone(wal);
    conn.wal_hook(Some(move |_: &mut _, pages: std::ffi::c_int| {
        log.grown_to(u32::try_from(pages).unwrap_or(0));
        Ok(())
    }))?;
    #[cfg(any(test, feature = "testing"))]
    {
        let log = Arc::clone(wal);
        conn.commit_hook(Some(move || log.faults.take_commit_failure()))?;
        if let Some(pages) = wal.faults.page_limit() {
            conn.pragma_update(None, "max_page_count", pages)?;
        }
    }
    Ok(conn)
}

/// One more than the highest number ever given out in `table`.
fn next_number(conn: &Connection, table: &str) -> Result<i64> {
    let highest: rusqlite::Result<Option<i64>> =
        conn.query_row(&format!("SELECT max(seq) FROM {table}"), [], |row| row.get(0));
    let noted: rusqlite::Result<Option<i64>> =
        conn.query_row("SELECT next FROM counters WHERE name = ?1", [table], |row| row.get(0)).optional();
    let highest = highest.map_err(DbError::from)?.unwrap_or(0);
    Ok(noted.map_err(DbError::from)?.unwrap_or(1).max(highest + 1))
}

/// Writes down the numbers given out so far: called before rows that hold the highest are removed.
pub(super) fn note_numbers(tx: &Tx<'_>) -> rusqlite::Result<()> {
    let mut note = tx.conn.prepare_cached(
        "INSERT INTO counters(name, next) VALUES (?1, ?2)
         ON CONFLICT(name) DO UPDATE SET next = max(next, excluded.next)",
    )?;
    note.execute(("events", tx.numbers.event))?;
    note.execute(("deliveries", tx.numbers.delivery))?;
    Ok(())
}
