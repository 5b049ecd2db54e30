//! The embedded store: SQLite in the data folder.
//!
//! One thread writes, with group commits (`writer`); a few read, each request in one snapshot; one
//! keeps the write-ahead log short (`checkpoint`). Async callers hand their request to a bounded
//! queue and wait for the answer; nothing blocks them. [`SqliteStore::open_inline`] runs the same
//! requests on the caller, in memory, without threads: deterministic, for simulations.
//!
//! The other modules are the domain's requests, as functions of a connection.

pub mod backup;
mod batches;
mod by_hand;
mod catalogue;
mod checkpoint;
mod deliveries;
mod erasure;
mod error;
#[cfg(any(test, feature = "testing"))]
mod faults;
mod flush;
mod folder;
mod health;
mod hook_requests;
mod hooks;
mod idempotency;
mod installation;
mod invocations;
mod job_requests;
mod jobs;
mod keys;
mod lists;
mod making;
mod meta;
mod owe;
mod own_events;
mod proof;
mod publish;
mod queue;
mod queues;
mod quotas;
mod registry;
mod removal;
mod replay;
mod requests;
mod retention;
mod row;
mod schema;
mod scrub;
mod settle;
mod stream;
mod sweep;
mod tenant_types;
mod tenants;
#[cfg(test)]
mod tests;
mod waits;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{Result, StoreError, StoreStats};
use checkpoint::{Sizes, Wal};
use error::{DbResult, of_sqlite};
use folder::Folder;
pub use making::Sizes as MakingSizes;
use queue::{Lane, Limits, Queue};
use schema::Place;
use waits::WaitClock;
use writer::{Job, Tally, Tx, Writer, job, repeatable};

/// How much a [`SqliteStore`] may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Writing requests that may wait. New events are refused when three quarters are taken.
    pub queue_requests: usize,
    /// Bytes of writing requests that may wait, about.
    pub queue_bytes: usize,
    /// Threads that read.
    pub readers: usize,
    /// Reading requests that may wait.
    pub read_queue: usize,
    /// KiB of database kept in memory by the writer.
    pub writer_cache_kib: u32,
    /// KiB of database kept in memory by each reader.
    pub reader_cache_kib: u32,
    /// Payload bytes on one page of a list, about.
    pub page_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            queue_requests: 16_384,
            queue_bytes: 64 << 20,
            readers: 3,
            read_queue: 4_096,
            // More costs more: after some page splits SQLite's next commit looks through all of it.
            writer_cache_kib: 8 << 10,
            reader_cache_kib: 8 << 10,
            page_bytes: PAGE_BYTES,
        }
    }
}

/// Payload bytes on one page of a list, about, if nobody says.
const PAGE_BYTES: usize = 8 << 20;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The embedded [`Store`](crate::Store).
///
/// Dropping it without [`close`](crate::Store::close) is what a crash is: requests that were not
/// answered may be lost, those that were are on disk.
pub struct SqliteStore {
    mode: Mode,
    tally: Arc<Tally>,
    page_bytes: usize,
    wal: Arc<Wal>,
    waits: Arc<WaitClock>,
}

enum Mode {
    Threads(Threads),
    Inline { writer: Mutex<Writer>, closed: AtomicBool },
}

struct Threads {
    writes: Arc<Queue<Box<dyn Job>>>,
    reads: Arc<Queue<Read>>,
    wal: Arc<Wal>,
    running: Mutex<Option<Running>>,
}

/// What ends with the store: the writer after the others, because it takes the log with it, the lock last.
struct Running {
    writer: Option<JoinHandle<Writer>>,
    handles: Vec<JoinHandle<()>>,
    folder: Folder,
}

impl Running {
    fn join(self) {
        for handle in self.handles {
            // A thread that panicked has nothing more to finish.
            let _ = handle.join();
        }
        if let Some(Ok(writer)) = self.writer.map(JoinHandle::join) {
            writer.finish();
        }
        drop(self.folder);
    }
}

impl SqliteStore {
    /// Opens the store in `folder`, making and migrating it as needed. The folder is locked until
    /// the store is closed or dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the folder is in use or cannot be written;
    /// [`StoreError::Corrupt`] when it was written by a newer version or is damaged.
    pub fn open(folder: &Path, options: Options) -> Result<Self> {
        Self::open_with(folder, options, Sizes::default())
    }

    fn open_with(folder: &Path, options: Options, log: Sizes) -> Result<Self> {
        let folder = Folder::claim(folder)?;
        let path = folder.database()?;
        flush::renew(folder.path())?;
        let (tally, wal) = (Arc::new(Tally::default()), Arc::new(Wal::new(log)));
        let waits = Arc::new(WaitClock::default());
        let place = Place::File(path.clone());
        let writer =
            Writer::open(place, options.writer_cache_kib, Arc::clone(&tally), Arc::clone(&wal), Arc::clone(&waits))?;
        // The log was made just now; SQLite does not look whether its name came to disk.
        folder.sync()?;
        let limits = Limits { count: options.queue_requests, bytes: options.queue_bytes };
        let writes = Arc::new(Queue::new(limits));
        let reads: Arc<Queue<Read>> = Arc::new(Queue::new(Limits { count: options.read_queue, bytes: usize::MAX }));

        // From here on dropping `threads` ends what was started.
        let running = Mutex::new(Some(Running { writer: None, handles: Vec::new(), folder }));
        let threads = Threads { writes, reads, wal: Arc::clone(&wal), running };
        let queue = Arc::clone(&threads.writes);
        threads.start_writer(move || {
            // Callers must hear of it should the writer ever end by a panic.
            let _closer = Closer(&queue);
            writer.serve(&queue)
        })?;
        for _ in 0..options.readers.max(1) {
            let conn = schema::open_reader(&path, options.reader_cache_kib).map_err(|e| of_sqlite(&e))?;
            let queue = Arc::clone(&threads.reads);
            threads.start("gatepost-read", move || {
                while let Some((read, _)) = queue.pop() {
                    read(&conn);
                }
            })?;
        }
        let conn = schema::open_reader(&path, 1_024).map_err(|e| of_sqlite(&e))?;
        let log = Arc::clone(&wal);
        threads.start("gatepost-wal", move || log.serve(&conn))?;
        Ok(SqliteStore { mode: Mode::Threads(threads), tally, page_bytes: options.page_bytes, wal, waits })
    }

    /// A store in memory that does everything on the calling thread, in the order of the calls.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no memory.
    pub fn open_inline() -> Result<Self> {
        let (tally, wal) = (Arc::new(Tally::default()), Arc::new(Wal::new(Sizes::default())));
        let waits = Arc::new(WaitClock::default());
        let writer = Writer::open(Place::Memory, 8 << 10, Arc::clone(&tally), Arc::clone(&wal), Arc::clone(&waits))?;
        Ok(SqliteStore {
            mode: Mode::Inline { writer: Mutex::new(writer), closed: AtomicBool::new(false) },
            tally,
            page_bytes: PAGE_BYTES,
            wal,
            waits,
        })
    }

    /// Waits until a flush of its files fails: then what was written since the one before may be lost and
    /// nothing is accepted any more. Only a new process can go on: the start brings the log to disk again.
    pub fn flush_failed(&self) -> impl Future<Output = String> + Send + use<> {
        self.wal.flushes.wait()
    }

    /// How much is made with its event, in a store that [`SqliteStore::open_inline`] opened.
    #[cfg(any(test, feature = "testing"))]
    pub fn set_sizes(&self, sizes: MakingSizes) {
        if let Mode::Inline { writer, .. } = &self.mode {
            writer.lock().unwrap_or_else(PoisonError::into_inner).set_sizes(sizes);
        }
    }

    /// Lets the next `count` commits that write anything fail, as an I/O error does.
    #[cfg(any(test, feature = "testing"))]
    pub fn fail_commits(&self, count: u32) {
        self.wal.faults.fail_commits(count);
    }

    /// Lets the database grow to `pages` pages and no more, as a full disk does; `None` lifts it.
    ///
    /// # Errors
    /// As any writing request.
    #[cfg(any(test, feature = "testing"))]
    pub async fn limit_pages(&self, pages: Option<u32>) -> Result<()> {
        self.wal.faults.limit_pages(pages);
        // The largest number SQLite takes.
        let limit = pages.unwrap_or(0xffff_fffe);
        self.write(Lane::Other, 0, move |tx| Ok(tx.conn.pragma_update(None, "max_page_count", limit)?)).await
    }

    /// Has the writer do `work` in its next group.
    async fn write<T, F>(&self, lane: Lane, bytes: usize, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> DbResult<T> + Send + 'static,
    {
        let (job, answer) = job(work);
        self.hand(lane, bytes, job)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// As [`Self::write`], for work that can be done again after it was taken back: it spares the group a
    /// savepoint.
    async fn write_again<T, F>(&self, lane: Lane, bytes: usize, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> DbResult<T> + Send + 'static,
    {
        let (job, answer) = repeatable(work);
        self.hand(lane, bytes, job)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Gives a job to the writer.
    fn hand(&self, lane: Lane, bytes: usize, job: Box<dyn Job>) -> Result<()> {
        match &self.mode {
            Mode::Threads(threads) => threads.writes.push(job, bytes, lane),
            Mode::Inline { writer, closed } => {
                open(closed)?;
                writer.lock().unwrap_or_else(PoisonError::into_inner).group(job, || None);
                Ok(())
            }
        }
    }

    /// Has a reader do `work` in a snapshot of its own.
    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> DbResult<T> + Send + 'static,
    {
        match &self.mode {
            Mode::Threads(threads) => {
                let (reply, answer) = oneshot::channel();
                let read: Read = Box::new(move |conn| {
                    // Nobody waits any more: not worth the work.
                    if !reply.is_closed() {
                        let _ = reply.send(snapshot(conn, work));
                    }
                });
                threads.reads.push(read, 0, Lane::Other)?;
                answer.await.unwrap_or(Err(StoreError::Closed))
            }
            Mode::Inline { writer, closed } => {
                open(closed)?;
                snapshot(writer.lock().unwrap_or_else(PoisonError::into_inner).conn(), work)
            }
        }
    }

    /// Counters and sizes; no request is queued for them.
    fn tally(&self) -> StoreStats {
        let (queued, bytes) = match &self.mode {
            Mode::Threads(threads) => {
                let running = threads.running.lock().unwrap_or_else(PoisonError::into_inner);
                (threads.writes.len(), running.as_ref().map_or(0, |running| running.folder.bytes()))
            }
            Mode::Inline { .. } => (0, 0),
        };
        StoreStats {
            commits: self.tally.commits.load(Ordering::Relaxed),
            requests: self.tally.requests.load(Ordering::Relaxed),
            queued: queued as u64,
            bytes,
        }
    }

    async fn shut(&self) {
        match &self.mode {
            Mode::Inline { closed, .. } => closed.store(true, Ordering::SeqCst),
            Mode::Threads(threads) => {
                threads.writes.close();
                threads.reads.close();
                threads.wal.close();
                let running = threads.running.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(running) = running {
                    // Joining waits for the last flush: not on an async thread.
                    let _ = tokio::task::spawn_blocking(move || running.join()).await;
                }
            }
        }
    }
}

fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| StoreError::Unavailable(format!("no thread could be started: {e}")))
}

impl Threads {
    fn start_writer(&self, body: impl FnOnce() -> Writer + Send + 'static) -> Result<()> {
        let handle = spawn("gatepost-write", body)?;
        if let Some(running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            running.writer = Some(handle);
        }
        Ok(())
    }

    fn start(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let handle = spawn(name, body)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_mut() {
            running.handles.push(handle);
        }
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.writes.abandon();
        self.reads.abandon();
        self.wal.close();
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.join();
        }
    }
}

struct Closer<'a>(&'a Queue<Box<dyn Job>>);

impl Drop for Closer<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn open(closed: &AtomicBool) -> Result<()> {
    if closed.load(Ordering::SeqCst) { Err(StoreError::Closed) } else { Ok(()) }
}

/// Runs `work` so that all its statements see the same state.
fn snapshot<T>(conn: &Connection, work: impl FnOnce(&Connection) -> DbResult<T>) -> Result<T> {
    let run = |sql: &str| conn.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map(drop);
    run("BEGIN").map_err(|e| of_sqlite(&e))?;
    // A bug in one request must not end the thread for all others.
    let result = catch_unwind(AssertUnwindSafe(|| work(conn)));
    let ended = run("COMMIT").or_else(|_| run("ROLLBACK"));
    match result {
        Ok(Ok(value)) => ended.map(|()| value).map_err(|e| of_sqlite(&e)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(StoreError::Corrupt("a request panicked".to_owned())),
    }
}
