//! Receivers that do as little as an HTTP server can: read the request, count its id, answer.
//!
//! All of them live on one thread, so that their CPU can be told from everybody else's.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::measure::{Stopwatch, this_thread, thread_cpu};

/// The header that names the event, in every profile used here.
pub(super) const ID_HEADER: &str = "webhook-id";
/// Answers nothing until told otherwise.
const HELD: u64 = u64::MAX;

/// The receivers.
pub(super) struct Sink {
    addrs: Vec<SocketAddr>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    thread_id: String,
    stop: CancellationToken,
}

struct Shared {
    watch: Stopwatch,
    /// Those of the runs under way: a few.
    ledgers: RwLock<Vec<Arc<Ledger>>>,
    strays: AtomicU64,
    connections: AtomicU64,
    receivers: Vec<Receiver>,
}

#[derive(Default)]
struct Receiver {
    /// Microseconds before an answer, or [`HELD`].
    delay: AtomicU64,
    changed: Notify,
}

impl Sink {
    /// Starts `count` receivers on ports of this machine only.
    pub(super) fn start(count: usize, watch: Stopwatch) -> Result<Sink> {
        let shared = Arc::new(Shared {
            watch,
            ledgers: RwLock::default(),
            strays: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            receivers: std::iter::repeat_with(Receiver::default).take(count).collect(),
        });
        let stop = CancellationToken::new();
        let (started, starting) = std::sync::mpsc::channel();
        let (for_thread, until) = (shared.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("bench-sink".into()).spawn(move || {
            // Whoever started this waits for the answer.
            let _ = run(for_thread, until, &started).map_err(|error| started.send(Err(error)));
        })?;
        let (addrs, thread_id) = starting.recv().context("the receivers ended at once")??;
        Ok(Sink { addrs, shared, thread: Some(thread), thread_id, stop })
    }

    /// Where they listen.
    pub(super) fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Counts arrivals of this run from now on.
    pub(super) fn watch(&self, ledger: &Arc<Ledger>) {
        self.shared.ledgers.write().unwrap_or_else(PoisonError::into_inner).push(ledger.clone());
    }

    /// Forgets all runs.
    pub(super) fn forget(&self) {
        self.shared.ledgers.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Requests that belong to no run under way.
    pub(super) fn strays(&self) -> u64 {
        self.shared.strays.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub(super) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Answers at once (zero) or after a time.
    pub(super) fn answer_after(&self, receiver: usize, delay: Duration) {
        self.set(receiver, u64::try_from(delay.as_micros()).unwrap_or(HELD - 1));
    }

    /// No receiver answers.
    pub(super) fn hold(&self) {
        (0..self.addrs.len()).for_each(|receiver| self.set(receiver, HELD));
    }

    /// Every receiver answers at once.
    pub(super) fn release(&self) {
        (0..self.addrs.len()).for_each(|receiver| self.set(receiver, 0));
    }

    fn set(&self, receiver: usize, delay: u64) {
        let receiver = &self.shared.receivers[receiver];
        receiver.delay.store(delay, Ordering::Release);
        receiver.changed.notify_waiters();
    }

    /// CPU seconds spent so far.
    pub(super) fn cpu(&self) -> Option<f64> {
        thread_cpu(&self.thread_id)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It only panics by a fault of ours, which has been printed.
            let _ = thread.join();
        }
    }
}

type Started = Result<(Vec<SocketAddr>, String)>;

fn run(shared: Arc<Shared>, stop: CancellationToken, started: &std::sync::mpsc::Sender<Started>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut addrs = Vec::new();
        for receiver in 0..shared.receivers.len() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a receiver cannot listen")?;
            addrs.push(listener.local_addr()?);
            tokio::spawn(accept(listener, receiver, shared.clone()));
        }
        started.send(Ok((addrs, this_thread())))?;
        stop.cancelled().await;
        Ok(())
    })
}

async fn accept(listener: TcpListener, receiver: usize, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors, most likely: others must end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        // Without it answers are merely later.
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&shared, receiver, request));
            // A client that goes away ends its connection: that is all.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Reads a request to its end; its number, if it has one.
pub(super) async fn take_in(request: Request<Incoming>) -> Option<(u32, usize)> {
    let id = request.headers().get(ID_HEADER).and_then(|id| Ledger::read_id(id.as_bytes()));
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            break;
        }
    }
    id
}

async fn answer(
    shared: &Shared,
    receiver: usize,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let id = take_in(request).await;
    shared.note(id, receiver);
    let this = &shared.receivers[receiver];
    loop {
        // Made before looking, so that no change in between is missed.
        let changed = this.changed.notified();
        match this.delay.load(Ordering::Acquire) {
            0 => break,
            HELD => changed.await,
            delay => {
                tokio::time::sleep(Duration::from_micros(delay)).await;
                break;
            }
        }
    }
    Ok(Response::new(Empty::new()))
}

impl Shared {
    fn note(&self, id: Option<(u32, usize)>, receiver: usize) {
        let known = id.is_some_and(|(run, number)| {
            let ledgers = self.ledgers.read().unwrap_or_else(PoisonError::into_inner);
            ledgers.iter().find(|ledger| ledger.is(run)).is_some_and(|l| l.arrived(number, receiver, self.watch))
        });
        if !known {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
    }
}
