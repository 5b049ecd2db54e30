//! Receivers far away that speak TLS: many `host:port`s, each a round trip from the server.
//!
//! Loopback knows no distance, so it is modelled where it costs what it costs in the world: what arrives
//! on a connection is handed on one round trip later, and the first of it one more, for TCP's own
//! handshake. A request on a kept connection is here after one round trip, on a fresh one (TLS 1.3)
//! after three. That is half a round trip more than in the world, where a request arrives before it is
//! acknowledged.
//!
//! All of them live on one thread, so that their CPU can be told from everybody else's.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context as Task, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ledger::Ledger;
use super::measure::{Stopwatch, this_thread, thread_cpu};
use super::sink::take_in;

/// Every endpoint has a name of its own below this one: sessions are kept by name. Names under
/// `localhost` are this machine without any resolver (RFC 6761 section 6.3).
const DOMAIN: &str = "bench.localhost";
/// What one connection may have under way at most.
const UNDER_WAY: usize = 1 << 20;

/// What receivers there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// How many.
    pub(super) count: usize,
    /// How many of them accept connections and never say anything.
    pub(super) dead: usize,
    /// How far away they are.
    pub(super) round_trip: Duration,
    /// They offer HTTP/2.
    pub(super) http2: bool,
}

/// The receivers.
pub(super) struct Faraway {
    kind: Kind,
    ports: Vec<u16>,
    ca_pem: String,
    shared: Arc<Shared>,
    thread_id: String,
    // In this order: the thread is told before it is waited for.
    _stop: DropGuard,
    _thread: Joined,
}

/// A thread that is waited for.
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // It only panics by a fault of ours, which has been printed.
            let _ = thread.join();
        }
    }
}

struct Shared {
    kind: Kind,
    tls: TlsAcceptor,
    watch: Stopwatch,
    /// Those of the phases under way.
    ledgers: RwLock<Vec<Arc<Ledger>>>,
    counts: Counts,
}

/// What happened so far.
#[derive(Default)]
struct Counts {
    arrivals: AtomicU64,
    fresh: AtomicU64,
    to_dead: AtomicU64,
    strays: AtomicU64,
}

/// A reading of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Requests that arrived.
    pub(super) arrivals: u64,
    /// Those that were the first of their connection.
    pub(super) fresh: u64,
    /// Connections to receivers that say nothing.
    pub(super) to_dead: u64,
    /// Requests that belong to no run under way.
    pub(super) strays: u64,
}

impl Seen {
    /// What came since an earlier reading.
    pub(super) fn since(self, before: Seen) -> Seen {
        Seen {
            arrivals: self.arrivals - before.arrivals,
            fresh: self.fresh - before.fresh,
            to_dead: self.to_dead - before.to_dead,
            strays: self.strays - before.strays,
        }
    }

    /// The share of the arrivals that needed no new connection.
    pub(super) fn reused(self) -> f64 {
        1.0 - self.fresh as f64 / self.arrivals as f64
    }
}

impl Kind {
    /// Whether a receiver is one that says nothing: they are spread evenly.
    pub(super) fn is_dead(&self, receiver: usize) -> bool {
        (receiver + 1) * self.dead / self.count > receiver * self.dead / self.count
    }
}

impl Faraway {
    /// Starts them on ports of this machine only.
    pub(super) fn start(kind: Kind, watch: Stopwatch) -> Result<Faraway> {
        let (ca_pem, tls) = certificates(kind.http2)?;
        let tls = TlsAcceptor::from(Arc::new(tls));
        let shared = Arc::new(Shared { kind, tls, watch, ledgers: RwLock::default(), counts: Counts::default() });
        let stop = CancellationToken::new();
        let (started, starting) = std::sync::mpsc::channel();
        let (for_thread, until) = (Arc::clone(&shared), stop.clone());
        let thread = std::thread::Builder::new().name("bench-faraway".into()).spawn(move || {
            // Whoever started this waits for the answer.
            let _ = run(for_thread, until, &started).map_err(|error| started.send(Err(error)));
        })?;
        let (ports, thread_id) = starting.recv().context("the receivers ended at once")??;
        let (_stop, _thread) = (stop.drop_guard(), Joined(Some(thread)));
        Ok(Faraway { kind, ports, ca_pem, shared, thread_id, _stop, _thread })
    }

    /// What they are.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Where a receiver is called.
    pub(super) fn url(&self, receiver: usize) -> String {
        format!("https://e{receiver}.{DOMAIN}:{}/hook", self.ports[receiver])
    }

    /// Who vouches for their certificate.
    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Counts arrivals of this run from now on.
    pub(super) fn watch(&self, ledger: &Arc<Ledger>) {
        self.shared.ledgers.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(ledger));
    }

    /// What they saw.
    pub(super) fn seen(&self) -> Seen {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Seen {
            arrivals: read(&counts.arrivals),
            fresh: read(&counts.fresh),
            to_dead: read(&counts.to_dead),
            strays: read(&counts.strays),
        }
    }

    /// CPU seconds spent so far.
    pub(super) fn cpu(&self) -> Option<f64> {
        thread_cpu(&self.thread_id)
    }
}

/// An authority made for this run, and how servers with a certificate of its speak TLS.
fn certificates(http2: bool) -> Result<(String, ServerConfig)> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "gatepost bench");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate()?;
    let ca_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![format!("*.{DOMAIN}")])?.signed_by(&key, &issuer)?;
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], private)?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    let http2 = http2.then(|| b"h2".to_vec());
    config.alpn_protocols = http2.into_iter().chain([b"http/1.1".to_vec()]).collect();
    Ok((ca_pem, config))
}

type Started = Result<(Vec<u16>, String)>;

fn run(shared: Arc<Shared>, stop: CancellationToken, started: &std::sync::mpsc::Sender<Started>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ports = Vec::with_capacity(shared.kind.count);
        for receiver in 0..shared.kind.count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a receiver cannot listen")?;
            ports.push(listener.local_addr()?.port());
            tokio::spawn(accept(listener, receiver, Arc::clone(&shared)));
        }
        started.send(Ok((ports, this_thread())))?;
        stop.cancelled().await;
        Ok(())
    })
}

async fn accept(listener: TcpListener, receiver: usize, shared: Arc<Shared>) {
    let dead = shared.kind.is_dead(receiver);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors, most likely: others must end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Without it answers are merely later.
        let _ = stream.set_nodelay(true);
        if dead {
            shared.counts.to_dead.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(say_nothing(stream));
        } else {
            tokio::spawn(serve(Far::new(stream, shared.kind.round_trip), Arc::clone(&shared)));
        }
    }
}

async fn say_nothing(mut stream: TcpStream) {
    let mut heard = [0; 2_048];
    while stream.read(&mut heard).await.is_ok_and(|length| length > 0) {}
}

async fn serve(stream: Far, shared: Arc<Shared>) {
    // A client that goes away ends its connection: that is all.
    let Ok(tls) = shared.tls.accept(stream).await else { return };
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let used = Arc::new(AtomicBool::new(false));
    let service = service_fn(move |request| answer(Arc::clone(&shared), Arc::clone(&used), request));
    if http2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
    }
}

async fn answer(
    shared: Arc<Shared>,
    used: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let id = take_in(request).await;
    let counts = &shared.counts;
    counts.arrivals.fetch_add(1, Ordering::Relaxed);
    if !used.swap(true, Ordering::Relaxed) {
        counts.fresh.fetch_add(1, Ordering::Relaxed);
    }
    let known = id.is_some_and(|(run, number)| {
        let ledgers = shared.ledgers.read().unwrap_or_else(PoisonError::into_inner);
        ledgers.iter().find(|ledger| ledger.is(run)).is_some_and(|ledger| ledger.arrived(number, 0, shared.watch))
    });
    if !known {
        counts.strays.fetch_add(1, Ordering::Relaxed);
    }
    Ok(Response::new(Empty::new()))
}

/// A connection whose other end is far away.
struct Far {
    stream: TcpStream,
    round_trip: Duration,
    /// Until then TCP's handshake would have been under way.
    open_at: Instant,
    /// What arrived, and when it is handed on; the end of it is empty.
    under_way: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    ended: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Far {
    fn new(stream: TcpStream, round_trip: Duration) -> Self {
        let open_at = Instant::now() + round_trip;
        Far { stream, round_trip, open_at, under_way: VecDeque::new(), bytes: 0, ended: false, timer: None }
    }

    /// Takes in whatever is there, so that each part of it is as late as it should be.
    fn take_in(&mut self, cx: &mut Task<'_>) -> io::Result<()> {
        let mut part = [0; 8 << 10];
        while !self.ended && self.bytes < UNDER_WAY {
            if self.stream.poll_read_ready(cx)?.is_pending() {
                break;
            }
            match self.stream.try_read(&mut part) {
                Ok(length) => {
                    let due = Instant::now().max(self.open_at) + self.round_trip;
                    self.under_way.push_back((due, Bytes::copy_from_slice(&part[..length])));
                    self.bytes += length;
                    self.ended = length == 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsyncRead for Far {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.take_in(cx)?;
        let Some((due, part)) = this.under_way.front_mut() else { return Poll::Pending };
        if *due > Instant::now() {
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*due)));
            if timer.deadline() != *due {
                timer.as_mut().reset(*due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        if part.is_empty() {
            // The end; it stays where it is.
            return Poll::Ready(Ok(()));
        }
        let length = part.len().min(buf.remaining());
        buf.put_slice(&part.split_to(length));
        this.bytes -= length;
        if part.is_empty() {
            this.under_way.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Far {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn the_dead_ones_are_as_many_as_asked_for_and_spread() {
        let kind = Kind { count: 1_000, dead: 10, round_trip: Duration::ZERO, http2: false };
        let dead: Vec<_> = (0..kind.count).filter(|receiver| kind.is_dead(*receiver)).collect();
        assert_eq!(dead.len(), 10);
        assert!(dead.windows(2).all(|pair| pair[1] - pair[0] == 100), "{dead:?}");
        let none = Kind { dead: 0, ..kind };
        assert!(!(0..none.count).any(|receiver| none.is_dead(receiver)));
    }

    #[tokio::test]
    async fn what_arrives_is_handed_on_in_order_a_round_trip_later_and_the_first_of_it_two() {
        // Never sooner: how much later is the machine's business.
        const ROUND_TRIP: Duration = Duration::from_millis(30);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test on loopback")]
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        near.write_all(b"hello").await.unwrap();
        let began = Instant::now();
        let mut far = Far::new(stream, ROUND_TRIP);
        let mut heard = [0; 5];
        far.read_exact(&mut heard[..3]).await.unwrap();
        assert!(began.elapsed() >= 2 * ROUND_TRIP, "{:?}", began.elapsed());
        far.read_exact(&mut heard[3..]).await.unwrap();
        assert_eq!(&heard, b"hello");
        let began = Instant::now();
        near.write_all(b"again").await.unwrap();
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"again");
        assert!(began.elapsed() >= ROUND_TRIP, "{:?}", began.elapsed());
    }
}
