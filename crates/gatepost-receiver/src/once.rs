//! Doing nothing twice: deliveries come at least once, so a receiver remembers what it has done.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::key::sha256;
use crate::receiver::{Clock, system_time};

/// What is known of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// Nothing until now: it is the caller's to do.
    New,
    /// Somebody is doing it.
    UnderWay,
    /// It was done.
    Done,
}

/// Where it is remembered what was done. [`Memory`] is one; a table or a cache shared by several
/// processes is another.
///
/// `claim` must be atomic: of two calls with one key, one only may be told [`Claim::New`]. A claim whose
/// process has died must end by itself. Where the work is a transaction of one's own database, better
/// insert [`Event::key`](crate::Event::key) into a table with a unique index within that transaction.
pub trait Store: Send + Sync {
    /// What can go wrong with it.
    type Error: Send;

    /// Claims a key for the caller, if it is new.
    fn claim(&self, key: &str, now: SystemTime) -> impl Future<Output = Result<Claim, Self::Error>> + Send;

    /// The work for a key is done.
    fn done(&self, key: &str, now: SystemTime) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The work for a key failed: the next to ask may do it.
    fn release(&self, key: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl<S: Store> Store for Arc<S> {
    type Error = S::Error;

    fn claim(&self, key: &str, now: SystemTime) -> impl Future<Output = Result<Claim, Self::Error>> + Send {
        S::claim(self, key, now)
    }

    fn done(&self, key: &str, now: SystemTime) -> impl Future<Output = Result<(), Self::Error>> + Send {
        S::done(self, key, now)
    }

    fn release(&self, key: &str) -> impl Future<Output = Result<(), Self::Error>> + Send {
        S::release(self, key)
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ran<T> {
    /// It was done now.
    Now(T),
    /// It was done before: acknowledge, and do nothing.
    Before,
    /// Somebody is doing it at this moment: do not acknowledge, so that it comes again should they fail
    /// ([`Reply::try_again`](crate::Reply::try_again)).
    UnderWay,
}

impl<T> Ran<T> {
    /// Whether it is done, now or before: whether it may be acknowledged.
    pub fn is_done(&self) -> bool {
        !matches!(self, Ran::UnderWay)
    }
}

/// Why it could not be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone<S, E> {
    /// The store failed. Where the work itself was done, it may be done again.
    #[error("what was done could not be looked up or remembered")]
    Store(S),
    /// The work failed; the next delivery tries again.
    #[error(transparent)]
    Work(E),
}

/// Runs work once per key.
///
/// ```
/// use gatepost_receiver::{Memory, Once, Ran};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let once = Once::new(Memory::new());
/// let first = once.run("evt_1", || async { Ok::<_, std::io::Error>("welcome mail sent") }).await?;
/// assert_eq!(first, Ran::Now("welcome mail sent"));
/// let again = once.run("evt_1", || async { Ok::<_, std::io::Error>("welcome mail sent") }).await?;
/// assert_eq!(again, Ran::Before);
/// # Ok(())
/// # }
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(example()).unwrap();
/// ```
#[derive(Clone)]
pub struct Once<S> {
    store: S,
    clock: Clock,
}

impl<S: Store> Once<S> {
    /// With a store of what was done.
    pub fn new(store: S) -> Self {
        Once { store, clock: Arc::new(system_time) }
    }

    /// With another clock than the system's, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Does it, unless it was done. Work that fails, or is dropped half done (then after the store's own
    /// time), may be done by the next to come.
    ///
    /// # Errors
    /// The work's own, or the store's.
    pub async fn run<T, E, W>(&self, key: &str, work: impl FnOnce() -> W) -> Result<Ran<T>, NotDone<S::Error, E>>
    where
        W: Future<Output = Result<T, E>>,
    {
        match self.store.claim(key, (self.clock)()).await.map_err(NotDone::Store)? {
            Claim::Done => Ok(Ran::Before),
            Claim::UnderWay => Ok(Ran::UnderWay),
            Claim::New => match work().await {
                Ok(done) => {
                    self.store.done(key, (self.clock)()).await.map_err(NotDone::Store)?;
                    Ok(Ran::Now(done))
                }
                Err(failed) => {
                    self.store.release(key).await.map_err(NotDone::Store)?;
                    Err(NotDone::Work(failed))
                }
            },
        }
    }
}

/// Keys that [`Memory`] holds unless told otherwise: some 10 MiB.
const CAPACITY: usize = 100_000;
/// How long it holds them: longer than Gatepost tries to deliver (a little over three days).
const WINDOW: Duration = Duration::from_secs(4 * 24 * 3_600);
/// How long work may take before somebody else may do it.
const LEASE: Duration = Duration::from_secs(60);

/// A [`Store`] in this process's memory, with a bound: beyond it the oldest keys are forgotten. It
/// forgets everything with the process, so work must bear to be done again after a restart.
pub struct Memory {
    kept: Mutex<Kept>,
    capacity: usize,
    window: Duration,
    lease: Duration,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Hash, Entry>,
    /// In the order claimed; what was released or claimed anew has a later one, or none.
    order: VecDeque<(u64, Hash)>,
    claims: u64,
}

/// Of a key: keys may be long.
type Hash = [u8; 16];

struct Entry {
    number: u64,
    done: bool,
    until: SystemTime,
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new()
    }
}

impl Memory {
    /// 100,000 keys, for four days; work is somebody else's after a minute.
    pub fn new() -> Self {
        Memory { kept: Mutex::default(), capacity: CAPACITY, window: WINDOW, lease: LEASE }
    }

    /// With room for this many keys (at least one).
    #[must_use]
    pub fn capacity(mut self, keys: usize) -> Self {
        self.capacity = keys.max(1);
        self
    }

    /// What was done is remembered for this long.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// What is being done may be done by somebody else after this long.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Keys held.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim_now(&self, key: &str, now: SystemTime) -> Claim {
        let (hash, mut kept) = (hash(key), self.lock());
        match kept.entries.get(&hash) {
            Some(entry) if entry.until > now && entry.done => return Claim::Done,
            Some(entry) if entry.until > now => return Claim::UnderWay,
            _ => {}
        }
        kept.claims += 1;
        let number = kept.claims;
        kept.entries.insert(hash, Entry { number, done: false, until: later(now, self.lease) });
        kept.order.push_back((number, hash));
        kept.shrink(now, self.capacity);
        Claim::New
    }
}

impl Kept {
    /// Forgets the oldest: what has ended, and what is too much.
    fn shrink(&mut self, now: SystemTime, capacity: usize) {
        while let Some((number, hash)) = self.order.front() {
            let entry = self.entries.get(hash).filter(|entry| entry.number == *number);
            match entry {
                Some(entry) if entry.until > now && self.entries.len() <= capacity => break,
                Some(_) => drop(self.entries.remove(hash)),
                None => {}
            }
            self.order.pop_front();
        }
        if self.order.len() > 2 * capacity {
            let entries = &self.entries;
            self.order.retain(|(number, hash)| entries.get(hash).is_some_and(|entry| entry.number == *number));
        }
    }
}

fn hash(key: &str) -> Hash {
    let mut out = [0; 16];
    out.copy_from_slice(&sha256(key.as_bytes())[..16]);
    out
}

fn later(now: SystemTime, by: Duration) -> SystemTime {
    now.checked_add(by).unwrap_or(now)
}

impl Store for Memory {
    type Error = Infallible;

    fn claim(&self, key: &str, now: SystemTime) -> impl Future<Output = Result<Claim, Infallible>> + Send {
        ready(Ok(self.claim_now(key, now)))
    }

    fn done(&self, key: &str, now: SystemTime) -> impl Future<Output = Result<(), Infallible>> + Send {
        let until = later(now, self.window);
        if let Some(entry) = self.lock().entries.get_mut(&hash(key)) {
            (entry.done, entry.until) = (true, until);
        }
        ready(Ok(()))
    }

    fn release(&self, key: &str) -> impl Future<Output = Result<(), Infallible>> + Send {
        let (hash, mut kept) = (hash(key), self.lock());
        if kept.entries.get(&hash).is_some_and(|entry| !entry.done) {
            kept.entries.remove(&hash);
        }
        ready(Ok(()))
    }
}
