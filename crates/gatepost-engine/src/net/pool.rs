//! Connections kept alive, per `scheme://host:port` and per identity shown there.

mod rest;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connect::Dialed;
use super::identity::{ClientIdentity, Fingerprint};
use super::inlet::{Fault, Inlet, MAX_HEAD};
use super::limits::{Limits, Longest};
use super::race::Waiting;
use super::wire::Tcp;
use rest::Idle;

/// What a peer may send ahead on one HTTP/2 stream, and on all of one connection.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Requests at one time on one HTTP/2 connection, however many the peer would take.
const H2_STREAMS: usize = 100;
/// An idle connection is closed after this: under the 60 s most servers and balancers allow.
const IDLE: Duration = Duration::from_secs(55);
/// No connection is used longer than this, so that a change in DNS is followed under steady load.
const MAX_AGE: Duration = Duration::from_secs(600);
/// How long the good-bye of a connection may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// As many idle connections stay awake, however little they are used.
pub(super) const AWAKE: usize = 400;

/// A request as it goes out.
pub(super) type Message = Request<Full<Bytes>>;

/// An HTTP/1.1 connection: one request at a time, driven by whoever makes it.
///
/// A request polls its connection itself. A task for each connection would cost two hand-overs and
/// two wake-ups a request. The price: nobody polls an idle one, so that its peer has closed it is
/// seen when it is taken, or by the reaper ([`Tcp::is_quiet`]).
pub(super) struct H1 {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    tcp: Tcp,
    peer: SocketAddr,
    born: Instant,
    idle_since: Instant,
    /// For how long it may be idle.
    idle_for: Duration,
}

/// What moves an HTTP/1.1 connection on.
struct Driver {
    // Boxed: it moves in and out of the pool with every request.
    connection: Box<http1::Connection<TokioIo<Inlet>, Full<Bytes>>>,
    ended: bool,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ended {
            // Its errors also reach the request in flight, which tells of them.
            self.ended = Pin::new(&mut *self.connection).poll(cx).is_ready();
        }
        if self.ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Does `work` that waits for this connection, and moves the connection on meanwhile.
    async fn during<W: Future>(&mut self, work: W) -> W::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // Once it has ended, the work has its answer or its error.
            let _ = self.poll(cx);
            work.as_mut().poll(cx)
        })
        .await
    }
}

/// An HTTP/2 connection, shared by all who call this host.
pub(super) struct H2 {
    sender: http2::SendRequest<Full<Bytes>>,
    tcp: Tcp,
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

impl Conn {
    /// What came on it that no answer may be made of.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self {
            Conn::H1(h1) => h1.tcp.account().fault(),
            Conn::H2(lease) => lease.0.tcp.account().fault(),
        }
    }

    /// The head of an answer came.
    pub(super) fn answered(&self) {
        if let Conn::H2(lease) = self {
            lease.0.tcp.account().answer_came();
        }
    }

    /// Whether nothing has come of an answer to the present request, on a connection that is known to have
    /// been good for one.
    pub(super) fn is_without_answer(&self) -> bool {
        match self {
            Conn::H1(h1) => !h1.tcp.account().has_heard(),
            Conn::H2(lease) => lease.0.tcp.account().has_served(),
        }
    }

    /// It is of no use to anybody else.
    pub(super) fn retire(&self) {
        if let Conn::H2(lease) = self {
            lease.0.retire();
        }
    }
}

/// Bytes of a request's body.
fn length_of(message: &Message) -> usize {
    let length = hyper::body::Body::size_hint(message.body()).lower();
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// How HTTP/1.1 is spoken.
fn speaking(title_case: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).title_case_headers(title_case);
    builder
}

impl H1 {
    /// Speaks HTTP/1.1 on a fresh connection, on the runtime of whoever opened it.
    pub(super) async fn open(dialed: Dialed, title_case: bool) -> hyper::Result<H1> {
        let Dialed { wire, tcp, peer, .. } = dialed;
        let (sender, connection) = speaking(title_case).handshake(TokioIo::new(Inlet::of_answers(wire))).await?;
        let now = Instant::now();
        let driver = Driver { connection: Box::new(connection), ended: false };
        Ok(H1 { sender, driver, tcp, peer, born: now, idle_since: now, idle_for: IDLE })
    }

    /// Sends a request and waits for the head of its answer, of whose body so much will be read. Dropping
    /// the wait closes the connection.
    pub(super) async fn send(
        &mut self,
        message: Message,
        body: usize,
    ) -> Result<Response<Incoming>, TrySendError<Message>> {
        self.tcp.account().begin(1, length_of(&message), body);
        self.driver.during(self.sender.try_send_request(message)).await
    }

    /// Does `work` on an answer's body, which comes in only as long as somebody does.
    pub(super) async fn during<W: Future>(&mut self, work: W) -> W::Output {
        self.driver.during(work).await
    }

    /// How long its receiver lets it be idle, as it said last.
    pub(super) fn idle_at_most(&mut self, announced: Option<Duration>) {
        self.idle_for = announced.map_or(IDLE, |time| time.min(IDLE));
    }

    /// Whom it leads to.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the next request could be sent now.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether it has come to its end.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.ended || self.sender.is_closed()
    }

    /// Waits until the next request could be sent. Whether that came about.
    pub(super) async fn ready(&mut self) -> bool {
        self.driver.during(self.sender.ready()).await.is_ok()
    }

    fn is_worn(&self, now: Instant) -> bool {
        self.is_closed()
            || self.tcp.account().is_spoiled()
            || now - self.idle_since >= self.idle_for
            || now - self.born >= MAX_AGE
    }

    /// Ends an idle connection in good order (dropping it cuts it off): TLS has a word for it.
    fn close(self) {
        let H1 { sender, mut driver, .. } = self;
        drop(sender);
        if driver.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(async move { timeout(GOODBYE, poll_fn(|cx| driver.poll(cx))).await });
        }
    }
}

impl H2 {
    pub(super) async fn open(dialed: Dialed) -> hyper::Result<H2> {
        let Dialed { wire, tcp, peer, .. } = dialed;
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD as u32)
            .handshake(TokioIo::new(Inlet::of_frames(wire)))
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
            tcp,
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

    /// Since when it has had no request under way; `None`: it has one.
    fn idle_since(&self) -> Option<Instant> {
        let used = Duration::from_micros(self.last_used.load(Ordering::Relaxed));
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| self.born + used)
    }

    fn is_worn(&self, now: Instant) -> bool {
        let idle = self.idle_since().is_some_and(|since| now >= since + IDLE);
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

    /// Sends a request and waits for the head of its answer, of whose body so much will be read.
    pub(super) async fn send(
        &self,
        message: Message,
        body: usize,
    ) -> Result<Response<Incoming>, TrySendError<Message>> {
        let at_once = self.0.in_flight.load(Ordering::Relaxed);
        self.0.tcp.account().begin(at_once, length_of(&message), body);
        self.0.sender.clone().try_send_request(message).await
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
    title_case: bool,
}

impl HostPool {
    /// Waits for a connection in use to come back; `None`: none has done so lately.
    pub(super) fn wait(&self) -> Option<oneshot::Receiver<H1>> {
        let mut kept = lock(&self.kept);
        kept.returns.then(|| kept.waiting.join())
    }
}

#[derive(Default)]
struct Kept {
    h1: Vec<Idle>,
    h2: Vec<Arc<H2>>,
    /// Whether a connection was ever given back.
    returns: bool,
    waiting: Waiting,
}

/// Whose connections: `scheme://host:port`, and who we are there.
type Owner = (Arc<str>, Option<Fingerprint>);

/// All connections of one client.
pub(super) struct Pool {
    /// Apart for requests with title-case headers: how headers are written is a property of an
    /// HTTP/1.1 connection.
    hosts: [Mutex<HashMap<Owner, Arc<HostPool>>>; 2],
    /// HTTP/1.1 connections that lie ready, and HTTP/2 connections, which are shared.
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
        let host = Arc::new(HostPool { title_case, ..HostPool::default() });
        hosts.insert(owner, host.clone());
        drop(hosts);
        self.ensure_reaper();
        host
    }

    /// How many connections of a host lie ready; one that is shared is enough for all.
    pub(super) fn ready(&self, host: &HostPool, http1: bool) -> usize {
        let now = Instant::now();
        let kept = lock(&host.kept);
        if !http1 && kept.h2.iter().any(|connection| !connection.is_worn(now)) {
            return usize::MAX;
        }
        kept.h1.iter().filter(|connection| !connection.is_worn(now)).count()
    }

    /// A living connection whose peer `may` be called, the last used one first; `http1`: that speaks it.
    pub(super) fn take(&self, host: &HostPool, http1: bool, may: impl Fn(IpAddr) -> bool) -> Option<Conn> {
        let now = Instant::now();
        let mut worn = Worn::default();
        let mut kept = lock(&host.kept);
        let mut found = None;
        for at in (0..kept.h2.len()).rev() {
            let connection = &kept.h2[at];
            if connection.is_worn(now) {
                worn.h2.push(kept.h2.remove(at));
                self.idle.fetch_sub(1, Ordering::Relaxed);
            } else if !http1 && connection.has_room() && may(connection.peer.ip()) {
                found = Some(Conn::H2(H2Lease::new(connection)));
                break;
            }
        }
        let mut at = kept.h1.len();
        while found.is_none() && at > 0 {
            at -= 1;
            let connection = &kept.h1[at];
            if connection.is_worn(now) {
                worn.h1.push(kept.h1.remove(at));
                self.idle.fetch_sub(1, Ordering::Relaxed);
            } else if connection.is_ready() && may(connection.peer().ip()) {
                self.idle.fetch_sub(1, Ordering::Relaxed);
                let Some(mut h1) = kept.h1.remove(at).wake(host.title_case) else { continue };
                if h1.is_at_rest() {
                    found = Some(Conn::H1(h1));
                } else {
                    worn.h1.push(Idle::Awake(h1));
                }
            }
        }
        drop(kept);
        worn.close();
        found
    }

    /// Keeps a connection whose exchange is over: it is likelier to be of use again than the one idle
    /// for longest.
    pub(super) fn put(&self, host: &HostPool, mut connection: H1) {
        let now = Instant::now();
        connection.idle_since = now;
        if connection.is_worn(now) {
            return connection.close();
        }
        let mut kept = lock(&host.kept);
        kept.returns = true;
        let Some(connection) = kept.waiting.give(connection) else { return };
        if self.is_full() {
            drop(kept);
            if !self.has_room() {
                return connection.close();
            }
            kept = lock(&host.kept);
        }
        if kept.h1.len() >= self.limits.per_host {
            drop(kept);
            return connection.close();
        }
        let many = self.idle.load(Ordering::Relaxed) >= AWAKE;
        if let Some(idle) = if many { Idle::rest(connection) } else { Some(Idle::Awake(connection)) } {
            kept.h1.push(idle);
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets others share a fresh HTTP/2 connection.
    pub(super) fn share(&self, host: &HostPool, connection: H2) -> H2Lease {
        let has_room = self.has_room();
        let connection = Arc::new(connection);
        let lease = H2Lease::new(&connection);
        let mut kept = lock(&host.kept);
        // Callers that found none each opened one; those above the bound end with their request.
        if has_room && kept.h2.len() < self.limits.per_host {
            kept.h2.push(connection);
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
        lease
    }

    /// Closes every idle connection: there are no file descriptors left for new ones.
    pub(super) fn release_all(&self) {
        self.sweep(|_| true, |h2| h2.idle_since().is_some());
    }

    /// Closes a host's idle connections: one like them was cut when it was used.
    pub(super) fn distrust(&self, host: &HostPool) {
        let mut worn = Worn::default();
        let mut kept = lock(&host.kept);
        worn.h1.append(&mut kept.h1);
        worn.h2.append(&mut kept.h2);
        self.idle.fetch_sub(worn.h1.len() + worn.h2.len(), Ordering::Relaxed);
        drop(kept);
        worn.close();
    }

    fn is_full(&self) -> bool {
        self.idle.load(Ordering::Relaxed) >= self.limits.total
    }

    /// Whether one more connection may be kept; if not, those idle for longest are closed for it.
    fn has_room(&self) -> bool {
        if !self.is_full() {
            return true;
        }
        let mut since = Vec::with_capacity(self.limits.total);
        for hosts in &self.hosts {
            for host in lock(hosts).values() {
                let kept = lock(&host.kept);
                since.extend(kept.h1.iter().map(Idle::idle_since));
                since.extend(kept.h2.iter().filter_map(|h2| h2.idle_since()));
            }
        }
        if let Some(longest) = Longest::idle(since, self.limits.total) {
            self.sweep(|h1| longest.is(h1.idle_since()), |h2| h2.idle_since().is_some_and(|since| longest.is(since)));
        }
        !self.is_full()
    }

    fn sweep(&self, mut old_h1: impl FnMut(&mut Idle) -> bool, old_h2: impl Fn(&H2) -> bool) {
        let mut worn = Worn::default();
        for hosts in &self.hosts {
            lock(hosts).retain(|_, host| {
                let mut kept = lock(&host.kept);
                let before = worn.h1.len() + worn.h2.len();
                worn.h1.extend(kept.h1.extract_if(.., &mut old_h1));
                worn.h2.extend(kept.h2.extract_if(.., |c| old_h2(c)));
                self.idle.fetch_sub(worn.h1.len() + worn.h2.len() - before, Ordering::Relaxed);
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

    #[cfg(test)]
    pub(super) fn resting(&self) -> usize {
        let resting = |host: &Arc<HostPool>| lock(&host.kept).h1.iter().filter(|idle| idle.is_resting()).count();
        self.hosts.iter().map(|hosts| lock(hosts).values().map(resting).sum::<usize>()).sum()
    }
}

/// Connections to be ended once no lock is held.
#[derive(Default)]
struct Worn {
    h1: Vec<Idle>,
    h2: Vec<Arc<H2>>,
}

impl Worn {
    fn close(self) {
        self.h1.into_iter().for_each(Idle::close);
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
        pool.sweep(|c| c.is_worn(now) || c.is_broken(), |c| c.is_worn(now));
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
