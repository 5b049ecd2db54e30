//! Connections kept alive, per `scheme://host:port` and per identity shown there.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::connect::Dialed;
use super::identity::{ClientIdentity, Fingerprint};
use super::wire::Tcp;

/// The largest head of an answer that is read.
const MAX_HEAD: usize = 64 * 1024;
/// What a peer may send ahead on one HTTP/2 stream, and on all of one connection.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Requests at one time on one HTTP/2 connection, however many the peer would take.
const H2_STREAMS: usize = 100;
/// An idle connection is closed after this: under the 60 s most servers and balancers allow.
const IDLE: Duration = Duration::from_secs(55);
/// No connection is used longer than this, so that a change in DNS is followed under steady load.
const MAX_AGE: Duration = Duration::from_secs(600);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// How many idle connections are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) per_host: usize,
    pub(super) total: usize,
}

/// An HTTP/1.1 connection: one request at a time.
pub(super) struct H1 {
    pub(super) sender: http1::SendRequest<Full<Bytes>>,
    tcp: Tcp,
    peer: SocketAddr,
    born: Instant,
    idle_since: Instant,
    driver: AbortOnDropHandle<()>,
}

/// An HTTP/2 connection, shared by all who call this host.
pub(super) struct H2 {
    sender: http2::SendRequest<Full<Bytes>>,
    peer: SocketAddr,
    born: Instant,
    in_flight: AtomicUsize,
    /// How many requests the peer takes at a time, as it last said.
    room: Arc<AtomicUsize>,
    /// Microseconds after `born`.
    last_used: AtomicU64,
    retired: AtomicBool,
    driver: AbortOnDropHandle<()>,
}

/// The right to one request on an HTTP/2 connection.
pub(super) struct H2Lease(Arc<H2>);

/// A connection taken for one request.
pub(super) enum Conn {
    H1(H1),
    H2(H2Lease),
}

impl H1 {
    /// Speaks HTTP/1.1 on a fresh connection. The connection lives on a task of its own that ends
    /// with it, on the runtime of whoever opened it.
    pub(super) async fn open(dialed: Dialed, title_case: bool) -> hyper::Result<H1> {
        let Dialed { wire, tcp, peer, .. } = dialed;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .title_case_headers(title_case)
            .handshake(TokioIo::new(wire))
            .await?;
        // Its errors also reach the request in flight, which tells of them.
        let driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let now = Instant::now();
        Ok(H1 { sender, tcp, peer, born: now, idle_since: now, driver })
    }

    fn is_worn(&self, now: Instant) -> bool {
        self.sender.is_closed() || now - self.idle_since >= IDLE || now - self.born >= MAX_AGE
    }

    /// Ends an idle connection in good order (dropping it cuts it off).
    fn close(self) {
        drop(self.sender);
        self.driver.detach();
    }
}

impl H2 {
    pub(super) async fn open(dialed: Dialed) -> hyper::Result<H2> {
        let Dialed { wire, peer, .. } = dialed;
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD as u32)
            .handshake(TokioIo::new(wire))
            .await?;
        let room = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let told = room.clone();
        let drive = poll_fn(move |cx| {
            let done = Pin::new(&mut connection).poll(cx).map(drop);
            // Only the connection knows how many requests the peer takes at a time.
            told.store(connection.current_max_send_streams(), Ordering::Relaxed);
            done
        });
        let driver = AbortOnDropHandle::new(tokio::spawn(drive));
        Ok(H2 {
            sender,
            room,
            peer,
            born: Instant::now(),
            in_flight: AtomicUsize::new(0),
            last_used: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            driver,
        })
    }

    /// Takes no more requests; those under way go on.
    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn is_worn(&self, now: Instant) -> bool {
        let idle = self.in_flight.load(Ordering::Relaxed) == 0
            && now - self.born >= IDLE + Duration::from_micros(self.last_used.load(Ordering::Relaxed));
        idle || self.retired.load(Ordering::Relaxed) || self.sender.is_closed() || now - self.born >= MAX_AGE
    }

    fn has_room(&self) -> bool {
        // At least one: a peer that takes none would otherwise get a new connection per request.
        let room = self.room.load(Ordering::Relaxed).clamp(1, H2_STREAMS);
        self.in_flight.load(Ordering::Relaxed) < room
    }
}

impl H2Lease {
    fn new(connection: &Arc<H2>) -> Self {
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        H2Lease(connection.clone())
    }

    pub(super) fn sender(&self) -> http2::SendRequest<Full<Bytes>> {
        self.0.sender.clone()
    }

    /// What remembers the connection when its request runs out of time.
    pub(super) fn suspect(&self) -> Suspect {
        Suspect(Arc::downgrade(&self.0))
    }
}

impl Drop for H2Lease {
    fn drop(&mut self) {
        let used = u64::try_from(self.0.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.last_used.store(used, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A shared connection that may turn out to be dead.
pub(super) struct Suspect(Weak<H2>);

impl Suspect {
    /// A request on it got no answer in time: the peer may be gone without a word, in which case
    /// every later request would share its fate. Costs a slow receiver no more than a reconnect.
    pub(super) fn retire(&self) {
        if let Some(connection) = self.0.upgrade() {
            connection.retire();
        }
    }
}

/// The connections of one host. Found once per request, used without another look-up.
#[derive(Default)]
pub(super) struct HostPool {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    h1: Vec<H1>,
    h2: Vec<Arc<H2>>,
}

/// Whose connections: `scheme://host:port`, and who we are there.
type Owner = (Arc<str>, Option<Fingerprint>);

/// All connections of one client.
pub(super) struct Pool {
    /// Apart for requests with title-case headers: how headers are written is a property of an
    /// HTTP/1.1 connection.
    hosts: [Mutex<HashMap<Owner, Arc<HostPool>>>; 2],
    idle: AtomicUsize,
    limits: Limits,
    reaping: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these locks; if it did, the lists would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Pool { hosts: Default::default(), idle: AtomicUsize::new(0), limits, reaping: AtomicBool::new(false) })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// The connections to `key` under `identity`.
    pub(super) fn host(
        self: &Arc<Self>,
        key: &Arc<str>,
        identity: Option<&ClientIdentity>,
        title_case: bool,
    ) -> Arc<HostPool> {
        let owner = (key.clone(), identity.map(|identity| *identity.fingerprint()));
        let mut hosts = lock(&self.hosts[usize::from(title_case)]);
        if let Some(host) = hosts.get(&owner) {
            return host.clone();
        }
        let host = Arc::<HostPool>::default();
        hosts.insert(owner, host.clone());
        drop(hosts);
        self.ensure_reaper();
        host
    }

    /// How many connections of a host lie ready; one that is shared is enough for all.
    pub(super) fn ready(&self, host: &HostPool) -> usize {
        let now = Instant::now();
        let kept = lock(&host.kept);
        if kept.h2.iter().any(|connection| !connection.is_worn(now)) {
            return usize::MAX;
        }
        kept.h1.iter().filter(|connection| !connection.is_worn(now)).count()
    }

    /// A living connection whose peer `may` be called, the last used one first.
    pub(super) fn take(&self, host: &HostPool, may: impl Fn(IpAddr) -> bool) -> Option<Conn> {
        let now = Instant::now();
        let mut worn = Worn::default();
        let mut kept = lock(&host.kept);
        let mut found = None;
        for at in (0..kept.h2.len()).rev() {
            let connection = &kept.h2[at];
            if connection.is_worn(now) {
                worn.h2.push(kept.h2.remove(at));
            } else if connection.has_room() && may(connection.peer.ip()) {
                found = Some(Conn::H2(H2Lease::new(connection)));
                break;
            }
        }
        let mut at = kept.h1.len();
        while found.is_none() && at > 0 {
            at -= 1;
            let connection = &kept.h1[at];
            if connection.is_worn(now) || !connection.tcp.is_quiet() {
                worn.h1.push(kept.h1.remove(at));
                self.idle.fetch_sub(1, Ordering::Relaxed);
            } else if connection.sender.is_ready() && may(connection.peer.ip()) {
                found = Some(Conn::H1(kept.h1.remove(at)));
                self.idle.fetch_sub(1, Ordering::Relaxed);
            }
        }
        drop(kept);
        worn.close();
        found
    }

    /// Keeps a connection whose exchange is over, if there is room.
    pub(super) fn put(&self, host: &HostPool, mut connection: H1) {
        let now = Instant::now();
        connection.idle_since = now;
        if connection.is_worn(now) || self.idle.load(Ordering::Relaxed) >= self.limits.total {
            return connection.close();
        }
        let mut kept = lock(&host.kept);
        if kept.h1.len() < self.limits.per_host {
            kept.h1.push(connection);
            self.idle.fetch_add(1, Ordering::Relaxed);
        } else {
            drop(kept);
            connection.close();
        }
    }

    /// Lets others share a fresh HTTP/2 connection.
    pub(super) fn share(&self, host: &HostPool, connection: H2) -> H2Lease {
        let connection = Arc::new(connection);
        let lease = H2Lease::new(&connection);
        let mut kept = lock(&host.kept);
        // Callers that found none each opened one; those above the bound end with their request.
        if kept.h2.len() < self.limits.per_host {
            kept.h2.push(connection);
        }
        lease
    }

    /// Closes every idle connection: there are no file descriptors left for new ones.
    pub(super) fn release_all(&self) {
        self.sweep(|_| true, |h2| h2.in_flight.load(Ordering::Relaxed) == 0);
    }

    fn sweep(&self, old_h1: impl Fn(&H1) -> bool, old_h2: impl Fn(&H2) -> bool) {
        let mut worn = Worn::default();
        for hosts in &self.hosts {
            lock(hosts).retain(|_, host| {
                let mut kept = lock(&host.kept);
                let before = worn.h1.len();
                worn.h1.extend(kept.h1.extract_if(.., |c| old_h1(c)));
                self.idle.fetch_sub(worn.h1.len() - before, Ordering::Relaxed);
                worn.h2.extend(kept.h2.extract_if(.., |c| old_h2(c)));
                // Nobody can be on the way to it: handing it out takes the lock held here.
                !kept.h1.is_empty() || !kept.h2.is_empty() || Arc::strong_count(host) > 1
            });
        }
        worn.close();
    }

    fn is_empty(&self) -> bool {
        self.hosts.iter().all(|hosts| lock(hosts).is_empty())
    }

    fn ensure_reaper(self: &Arc<Self>) {
        if !self.reaping.swap(true, Ordering::AcqRel) {
            tokio::spawn(reap(Reaping(Arc::downgrade(self))));
        }
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }
}

/// Connections to be ended once no lock is held.
#[derive(Default)]
struct Worn {
    h1: Vec<H1>,
    h2: Vec<Arc<H2>>,
}

impl Worn {
    fn close(self) {
        self.h1.into_iter().for_each(H1::close);
        for connection in self.h2 {
            // The last one out closes: a request still under way keeps it.
            if let Some(H2 { sender, driver, .. }) = Arc::into_inner(connection) {
                drop(sender);
                driver.detach();
            }
        }
    }
}

/// The mark that a reaper runs; falls with it, even when its runtime is shut down.
struct Reaping(Weak<Pool>);

impl Drop for Reaping {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.reaping.store(false, Ordering::Release);
        }
    }
}

/// Ends what has been idle too long. Stops when there is nothing left to watch, or nobody to watch
/// it for.
async fn reap(mark: Reaping) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = mark.0.upgrade() else { return };
        let now = Instant::now();
        pool.sweep(|c| c.is_worn(now), |c| c.is_worn(now));
        if pool.is_empty() {
            drop(mark);
            // A host that came in between found the mark still up.
            if !pool.is_empty() {
                pool.ensure_reaper();
            }
            return;
        }
    }
}
