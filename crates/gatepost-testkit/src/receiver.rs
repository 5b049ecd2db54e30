//! A scripted HTTP receiver on a real socket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::serve;
use crate::{Cert, Script, TestCa};

/// How long a test waits for something that should happen before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request, as it came over the wire.
#[derive(Clone, Debug)]
pub struct Received {
    /// The how-manyeth request of this receiver, from 1.
    pub number: usize,
    /// The connection it came on: the how-manyeth accepted, from 1.
    pub connection: usize,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: &'static str,
    /// Names as written (lower case on HTTP/2) and values, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Received {
    /// The first value of a header, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("the body is not JSON ({e}): {}", String::from_utf8_lossy(&self.body)))
    }
}

/// What a receiver's connections share with its handle.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pub(crate) bytes_sent: AtomicU64,
    numbers: AtomicUsize,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    default: Script,
    queue: VecDeque<Script>,
    by_path: Vec<(String, Script)>,
    frames: Option<Bytes>,
    accepted: usize,
    open: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Notes a request and tells what to do with it.
    pub(crate) fn note(&self, request: Received) -> Script {
        let mut state = self.lock();
        let for_path = state.by_path.iter().find(|(path, _)| *path == request.path);
        let script = match for_path.map(|(_, script)| script.clone()) {
            Some(script) => script,
            None => state.queue.pop_front().unwrap_or_else(|| state.default.clone()),
        };
        let script = match script {
            Script::With(decide) => decide(&request),
            other => other,
        };
        state.received.push(request);
        drop(state);
        self.changed.notify_all();
        script
    }

    /// What every HTTP/2 connection is answered with in place of HTTP/2.
    pub(crate) fn frames(&self) -> Option<Bytes> {
        self.lock().frames.clone()
    }

    pub(crate) fn accepted(&self) -> usize {
        let mut state = self.lock();
        state.accepted += 1;
        state.open += 1;
        let number = state.accepted;
        drop(state);
        self.changed.notify_all();
        number
    }

    pub(crate) fn closed(&self) {
        self.lock().open -= 1;
        self.changed.notify_all();
    }

    /// Blocks until `done`, `cancelled`, or patience ends.
    fn wait<T>(&self, done: impl Fn(&State) -> Option<T>, cancelled: &AtomicBool) -> Option<T> {
        let mut result = None;
        let pending = |state: &mut State| {
            result = done(state);
            result.is_none() && !cancelled.load(Ordering::SeqCst)
        };
        drop(self.changed.wait_timeout_while(self.lock(), PATIENCE, pending));
        result
    }
}

/// Ends a wait in its thread when the future that waits is dropped.
struct CancelOnDrop(Arc<Shared>, Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // Under the lock, so that it cannot fall between the waiter's look and its sleep.
        let _state = self.0.lock();
        self.1.store(true, Ordering::SeqCst);
        self.0.changed.notify_all();
    }
}

/// How a receiver is set up before it starts.
pub struct ReceiverBuilder {
    bind: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    host: Option<String>,
    script: Script,
    frames: Option<Bytes>,
}

impl ReceiverBuilder {
    /// Listens there instead of a free port of 127.0.0.1.
    #[must_use]
    pub fn bind(mut self, addr: impl Into<SocketAddr>) -> Self {
        self.bind = addr.into();
        self
    }

    /// Speaks HTTP/1.1 over TLS with such a certificate for `localhost` and 127.0.0.1.
    #[must_use]
    pub fn tls(self, ca: &TestCa, cert: Cert) -> Self {
        self.tls_as(ca, cert, &["localhost", "127.0.0.1"], false)
    }

    /// As [`ReceiverBuilder::tls`], offering HTTP/2. There, a script that breaks HTTP/1.1 on the wire
    /// (a reset, garbage, a cut) resets the stream.
    #[must_use]
    pub fn h2(self, ca: &TestCa) -> Self {
        self.tls_as(ca, Cert::Good, &["localhost", "127.0.0.1"], true)
    }

    /// As [`ReceiverBuilder::h2`], but answers the first request of each connection with these frames,
    /// over and over, as fast as they are taken.
    #[must_use]
    pub fn h2_flood(mut self, ca: &TestCa, frames: impl Into<Bytes>) -> Self {
        self.frames = Some(frames.into());
        self.h2(ca)
    }

    /// As [`ReceiverBuilder::tls`], for clients with a certificate of this authority alone.
    #[must_use]
    pub fn mtls(mut self, ca: &TestCa, h2: bool) -> Self {
        let names = ["localhost", "127.0.0.1"];
        self.tls = Some(ca.server_config_asking(&names, h2));
        self.host = Some(names[0].to_owned());
        self
    }

    /// Speaks TLS like this.
    #[must_use]
    pub fn tls_config(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Over TLS with a certificate for these names; URLs have the first of them.
    #[must_use]
    pub fn tls_as(mut self, ca: &TestCa, cert: Cert, names: &[&str], h2: bool) -> Self {
        self.tls = Some(ca.server_config(cert, names, h2));
        self.host = names.first().map(|n| (*n).to_owned());
        self
    }

    /// Does this with requests, instead of answering 204.
    #[must_use]
    pub fn script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// Starts it on the tokio runtime around it.
    pub fn start(self) -> Receiver {
        let (mut receiver, listener, tls) = self.prepare();
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime around it");
        let serve = serve::run(listener, tls, receiver.shared.clone(), receiver.stop.clone());
        receiver.task = Some(tokio::spawn(serve));
        receiver
    }

    /// Starts it on a thread of its own, where no busy or stopped test runtime holds it up.
    pub fn start_on_thread(self) -> Receiver {
        let (mut receiver, listener, tls) = self.prepare();
        let (shared, stop) = (receiver.shared.clone(), receiver.stop.clone());
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime around it");
                serve::run(listener, tls, shared, stop).await;
            });
        };
        let thread = std::thread::Builder::new().name("receiver".to_owned()).spawn(serve);
        receiver.thread = Some(thread.expect("a thread"));
        receiver
    }

    fn prepare(self) -> (Receiver, std::net::TcpListener, Option<Arc<ServerConfig>>) {
        let listener = std::net::TcpListener::bind(self.bind).expect("a free port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        shared.lock().default = self.script;
        shared.lock().frames = self.frames;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = self.host.unwrap_or_else(|| addr.ip().to_string());
        let base = format!("{scheme}://{host}:{}", addr.port());
        let receiver = Receiver { shared, addr, base, stop: CancellationToken::new(), task: None, thread: None };
        (receiver, listener, self.tls)
    }
}

/// A receiver at work. Stops when dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    addr: SocketAddr,
    base: String,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// A plain receiver that answers 204, on the tokio runtime around it.
    pub fn start() -> Receiver {
        Receiver::builder().start()
    }

    /// A plain receiver that answers 204, on a thread of its own.
    pub fn start_on_thread() -> Receiver {
        Receiver::builder().start_on_thread()
    }

    /// A receiver to be set up.
    pub fn builder() -> ReceiverBuilder {
        ReceiverBuilder {
            bind: ([127, 0, 0, 1], 0).into(),
            tls: None,
            host: None,
            script: Script::default(),
            frames: None,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A URL of it; `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// From now on, does this with every request that nothing else is said for.
    pub fn script(&self, script: Script) {
        self.shared.lock().default = script;
    }

    /// Does these with the next requests, one each.
    pub fn next(&self, scripts: impl IntoIterator<Item = Script>) {
        self.shared.lock().queue.extend(scripts);
    }

    /// From now on, does this with every request for exactly this path and query.
    pub fn script_path(&self, path: &str, script: Script) {
        let mut state = self.shared.lock();
        state.by_path.retain(|(p, _)| p != path);
        state.by_path.push((path.to_owned(), script));
    }

    /// All requests so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// How many requests have arrived since the beginning, or since [`Receiver::forget`].
    pub fn count(&self) -> usize {
        self.shared.lock().received.len()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.lock().received.clear();
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.lock().accepted
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().open
    }

    /// How many bytes of answers clients have taken (HTTP/1.1 only).
    pub fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::SeqCst)
    }

    /// Stops listening and drops all connections; when this returns, the port refuses. (Dropping a
    /// receiver does the same, but does not wait for one on the test's own runtime.)
    pub async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Waits until at least `n` requests have arrived, and gives all.
    ///
    /// # Panics
    /// They have not within half a minute.
    pub async fn wait_for(&self, n: usize) -> Vec<Received> {
        self.wait_until(move |received| received.len() >= n).await
    }

    /// Waits until the requests so far are as wanted, and gives them.
    ///
    /// # Panics
    /// They are not within half a minute.
    pub async fn wait_until(&self, wanted: impl Fn(&[Received]) -> bool + Send + 'static) -> Vec<Received> {
        self.wait(move |state| wanted(&state.received).then(|| state.received.clone())).await
    }

    /// Waits until no connection is open.
    ///
    /// # Panics
    /// One still is after half a minute.
    pub async fn wait_closed(&self) {
        self.wait(|state| (state.open == 0).then_some(())).await;
    }

    /// As [`Receiver::wait_for`], for tests without a runtime.
    ///
    /// # Panics
    /// They have not arrived within half a minute.
    pub fn wait_for_blocking(&self, n: usize) -> Vec<Received> {
        let enough = |state: &State| (state.received.len() >= n).then(|| state.received.clone());
        match self.shared.wait(enough, &AtomicBool::new(false)) {
            Some(received) => received,
            None => self.complain(),
        }
    }

    /// As [`Receiver::wait_closed`], holding up whatever runtime is around.
    ///
    /// # Panics
    /// A connection still is open after half a minute.
    pub fn wait_closed_blocking(&self) {
        if self.shared.wait(|state| (state.open == 0).then_some(()), &AtomicBool::new(false)).is_none() {
            self.complain();
        }
    }

    /// Waits on a thread: the time is real even where a test has stopped tokio's, and a stopped
    /// clock does not jump ahead meanwhile.
    async fn wait<T: Send + 'static>(&self, done: impl Fn(&State) -> Option<T> + Send + 'static) -> T {
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(self.shared.clone(), cancelled.clone());
        let shared = self.shared.clone();
        match tokio::task::spawn_blocking(move || shared.wait(done, &cancelled)).await {
            Ok(Some(result)) => result,
            _ => self.complain(),
        }
    }

    fn complain(&self) -> ! {
        let state = self.shared.lock();
        panic!(
            "what was waited for did not happen: {} requests, {} connections accepted, {} open",
            state.received.len(),
            state.accepted,
            state.open
        );
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
        self.join();
    }
}
