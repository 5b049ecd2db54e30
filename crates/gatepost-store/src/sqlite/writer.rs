//! The one writer and its group commits.
//!
//! Requests that arrive while a commit is being flushed share the next one: there is no linger, the
//! flush itself is the wait. A failing request takes back its own changes and nobody else's. Answers
//! leave only after COMMIT has returned.
//!
//! Savepoints would see to the failing one, but SQLite then keeps a copy of every page each request
//! touches: a tenth of the writer's time, for a case that is damage or a bug. So requests that can be
//! run again (what is published and settled: nearly all there are) run without. Should one of them
//! fail, everything is taken back and the others are run again, each in a savepoint. What can be run
//! once only gets its savepoint at once, and so does whatever follows it in the group.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatepost_core::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::checkpoint::Wal;
use super::error::{DbError, DbResult, of_sqlite};
use super::making::Sizes;
use super::queue::Queue;
use super::schema::{self, Place};
use super::waits::WaitClock;
use crate::{Result, StoreError};

/// Requests in one commit at most: bounds how long an answer can take.
const GROUP: usize = 1_024;
/// Bytes of requests in one commit, about: together they take the writer for some 40 ms. More would keep
/// outcomes, which are recorded once a commit, waiting behind a burst of publishing.
const GROUP_BYTES: usize = 4 << 20;
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
    /// Whether deliveries may be left to be made ([`super::making`]); never no where some are.
    pub(super) unmade: &'a mut bool,
    pub(super) sizes: Sizes,
    pub(super) ready: Ready<'a>,
    /// The connection's log.
    pub(super) wal: &'a Wal,
    /// The time of due times.
    pub(super) waits: &'a WaitClock,
}

impl<'a> Tx<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        numbers: &'a mut Numbers,
        known_types: &'a mut HashSet<Box<str>>,
        unmade: &'a mut bool,
        sizes: Sizes,
        wal: &'a Wal,
        waits: &'a WaitClock,
    ) -> Tx<'a> {
        Tx { conn, numbers, known_types, unmade, sizes, ready: Ready::default(), wal, waits }
    }

    /// When something is due that is due at once, at the moment `now` of the clock.
    pub(super) fn due(&self, now: Timestamp) -> Timestamp {
        self.waits.due(now)
    }
}

/// The statements of every day, found once per group: to look one up in the connection's cache and to
/// put it back costs as much as a small query.
#[derive(Default)]
pub(super) struct Ready<'a> {
    pub(super) registry_version: Slot<'a>,
    pub(super) event_by_caller_id: Slot<'a>,
    pub(super) add_event: Slot<'a>,
    pub(super) add_delivery: Slot<'a>,
    pub(super) standing: Slot<'a>,
    pub(super) delivered: Slot<'a>,
    pub(super) settled: Slot<'a>,
    pub(super) add_attempt: Slot<'a>,
}

/// Where a statement is kept ready.
#[derive(Default)]
pub(super) struct Slot<'a>(Option<CachedStatement<'a>>);

impl<'a> Slot<'a> {
    /// The statement `sql`: always the same for this slot.
    pub(super) fn get(&mut self, conn: &'a Connection, sql: &str) -> rusqlite::Result<&mut CachedStatement<'a>> {
        Ok(match &mut self.0 {
            Some(ready) => ready,
            empty => empty.insert(conn.prepare_cached(sql)?),
        })
    }
}

/// A writing request.
pub(super) trait Job: Send {
    /// Whether it may run once more after its changes were taken back.
    fn repeats(&self) -> bool;
    /// Does the work. Whether it succeeded: if not, its changes are taken back.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answers the caller, now that the commit has gone well or not.
    fn finish(self: Box<Self>, commit: std::result::Result<(), StoreError>);
}

/// The work of a request.
trait Work<T>: Send {
    const REPEATS: bool;
    /// `None`: it was done before, and cannot be done again.
    fn run(&mut self, tx: &mut Tx<'_>) -> Option<DbResult<T>>;
}

/// Work that uses up what it was given.
struct Once<F>(Option<F>);

impl<T, F: FnOnce(&mut Tx<'_>) -> DbResult<T> + Send> Work<T> for Once<F> {
    const REPEATS: bool = false;

    fn run(&mut self, tx: &mut Tx<'_>) -> Option<DbResult<T>> {
        self.0.take().map(|work| work(tx))
    }
}

/// Work that can be done again.
struct Again<F>(F);

impl<T, F: FnMut(&mut Tx<'_>) -> DbResult<T> + Send> Work<T> for Again<F> {
    const REPEATS: bool = true;

    fn run(&mut self, tx: &mut Tx<'_>) -> Option<DbResult<T>> {
        Some(self.0(tx))
    }
}

struct Op<T, W> {
    work: W,
    result: Result<T>,
    reply: oneshot::Sender<Result<T>>,
}

/// A request that runs `work`, and where its answer arrives.
pub(super) fn job<T, F>(work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> DbResult<T> + Send + 'static,
{
    op(Once(Some(work)))
}

/// A request that runs `work`, which can be done again from the beginning after its changes were taken
/// back.
pub(super) fn repeatable<T, F>(work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    F: FnMut(&mut Tx<'_>) -> DbResult<T> + Send + 'static,
{
    op(Again(work))
}

fn op<T: Send + 'static, W: Work<T> + 'static>(work: W) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Op { work, result: Err(StoreError::Closed), reply }), answer)
}

impl<T: Send, W: Work<T>> Job for Op<T, W> {
    fn repeats(&self) -> bool {
        W::REPEATS
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        // A bug in one request must not stop the writer for all others.
        self.result = match catch_unwind(AssertUnwindSafe(|| self.work.run(tx))) {
            Ok(Some(result)) => result.inspect_err(|error| error.tell(&tx.wal.flushes)).map_err(StoreError::from),
            Ok(None) => return false,
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
    unmade: bool,
    sizes: Sizes,
    tally: Arc<Tally>,
    wal: Arc<Wal>,
    waits: Arc<WaitClock>,
}

impl Writer {
    /// Opens the database, creating and migrating it as needed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub(super) fn open(
        place: Place,
        cache_kib: u32,
        tally: Arc<Tally>,
        wal: Arc<Wal>,
        waits: Arc<WaitClock>,
    ) -> Result<Self> {
        let mut conn = connect(&place, cache_kib, &wal).map_err(|e| of_sqlite(&e))?;
        schema::migrate(&mut conn)?;
        let set_aside = numbers_set_aside(&conn).map_err(DbError::from)?;
        let delivery = next_number(&conn, "deliveries")?.max(set_aside);
        let numbers = Numbers { event: next_number(&conn, "events")?, delivery };
        let known_types = HashSet::new();
        let (unmade, sizes) = (true, Sizes::default());
        Ok(Writer { place, cache_kib, conn, broken: false, numbers, known_types, unmade, sizes, tally, wal, waits })
    }

    /// How much is made with its event.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn set_sizes(&mut self, sizes: Sizes) {
        self.sizes = sizes;
    }

    /// The connection, for reads in the mode without threads.
    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// The end, when no other connection is left.
    pub(super) fn finish(self) {
        self.wal.finish(&self.conn);
    }

    /// Serves the queue until it is closed.
    pub(super) fn serve(mut self, queue: &Queue<Box<dyn Job>>) -> Self {
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
        self
    }

    /// Runs `first` and what `next` gives in one transaction, then answers them all.
    pub(super) fn group(&mut self, first: Box<dyn Job>, mut next: impl FnMut() -> Option<Box<dyn Job>>) {
        if let Err(error) = self.begin() {
            return first.finish(Err(error));
        }
        let mut group = Group::new(Tx::new(
            &self.conn,
            &mut self.numbers,
            &mut self.known_types,
            &mut self.unmade,
            self.sizes,
            &self.wal,
            &self.waits,
        ));
        let mut upcoming = Some(first);
        let mut state = Ok(());
        while let Some(job) = upcoming.take() {
            state = group.add(job);
            if state.is_ok() && group.jobs.len() < GROUP {
                upcoming = next();
            }
        }
        let jobs = group.into_jobs();
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
        self.wal.flushes.check()?;
        if self.broken {
            let opened = connect(&self.place, self.cache_kib, &self.wal);
            self.conn = opened.inspect_err(|e| self.wal.flushes.look(e)).map_err(|e| of_sqlite(&e))?;
            self.broken = false;
        }
        run(&self.conn, BEGIN).map_err(|e| {
            self.broken = matches!(self.place, Place::File(_));
            unavailable(&e)
        })
    }

    fn commit(&self) -> Result<()> {
        // A request may have met a flush that failed, at the log's beginning, and taken it for its own failure.
        self.wal.flushes.check()?;
        run(&self.conn, "COMMIT").inspect_err(|e| self.wal.flushes.look(e)).map_err(|e| unavailable(&e))
    }

    /// Back to no transaction, after a failure.
    fn recover(&mut self) {
        self.known_types.clear();
        self.unmade = true;
        if !self.conn.is_autocommit() && run(&self.conn, "ROLLBACK").is_err() {
            self.broken = matches!(self.place, Place::File(_));
        }
    }
}

const BEGIN: &str = "BEGIN IMMEDIATE";

/// Requests that share a transaction.
struct Group<'a> {
    tx: Tx<'a>,
    jobs: Vec<Box<dyn Job>>,
    /// One of them cannot be run again: none may be taken back any more.
    settled: bool,
}

// An error of any of these means that the whole transaction is lost.
impl<'a> Group<'a> {
    fn new(tx: Tx<'a>) -> Self {
        Group { tx, jobs: Vec::new(), settled: false }
    }

    fn into_jobs(self) -> Vec<Box<dyn Job>> {
        self.jobs
    }

    /// Runs a request in the group.
    fn add(&mut self, mut job: Box<dyn Job>) -> Result<()> {
        let first = self.jobs.is_empty();
        let done = if first || (job.repeats() && !self.settled) {
            self.perform(job.as_mut()).and_then(|succeeded| if succeeded { Ok(()) } else { self.start_anew() })
        } else {
            self.guarded(job.as_mut())
        };
        self.settled |= !job.repeats();
        self.jobs.push(job);
        done
    }

    /// Takes everything back and runs the requests so far again, each in its savepoint.
    fn start_anew(&mut self) -> Result<()> {
        self.run("ROLLBACK")?;
        self.run(BEGIN)?;
        let mut jobs = std::mem::take(&mut self.jobs);
        self.settled |= !jobs.is_empty();
        let done = jobs.iter_mut().try_for_each(|job| self.guarded(job.as_mut()));
        self.jobs = jobs;
        done
    }

    /// One request in its savepoint.
    fn guarded(&mut self, job: &mut dyn Job) -> Result<()> {
        self.run("SAVEPOINT request")?;
        if !self.perform(job)? {
            self.run("ROLLBACK TO request")?;
        }
        self.run("RELEASE request")
    }

    /// Whether the request succeeded.
    fn perform(&mut self, job: &mut dyn Job) -> Result<bool> {
        let succeeded = job.run(&mut self.tx);
        if !succeeded || self.tx.known_types.len() > KNOWN_TYPES {
            self.tx.known_types.clear();
        }
        *self.tx.unmade |= !succeeded;
        // SQLite rolls back everything by itself on some errors (full disk, I/O error).
        if self.tx.conn.is_autocommit() {
            return Err(StoreError::Unavailable("the transaction was rolled back by the database".to_owned()));
        }
        Ok(succeeded)
    }

    fn run(&self, sql: &str) -> Result<()> {
        run(self.tx.conn, sql).map_err(|e| unavailable(&e))
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

/// One more than the highest number of a delivery that an event's commit has set aside: as many of them
/// may not be made yet. Numbers grow from event to event.
fn numbers_set_aside(conn: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT first_delivery + delivery_count FROM events ORDER BY seq DESC LIMIT 1";
    Ok(conn.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(1))
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
