//! The listening side: connections in bounded number, with bounded heads, in bounded time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use bytes::Buf as _;
use gatepost_engine::LOCAL_FAULTS;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, Sleep};
use tokio_util::task::TaskTracker;

use crate::alarm::Alarm;
use crate::app::{Answering, App};
use crate::door::{Door, LOOK_EVERY, Place, Visitor};
use crate::refusal;

/// How long a connection may rest between requests, the head of the next one included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a receiver of an answer may take nothing of it.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long requests in flight may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(30);
/// After the shutdown began a connection without a request under way is closed this much later.
const QUIET: Duration = Duration::from_secs(2);
/// Headers hyper parses at all. Above the limit that is answered with a problem, so that it is.
const HEADERS_PARSED: usize = 256;
/// Bytes of a head hyper buffers at all.
const HEAD_BYTES: usize = 64 << 10;

/// A head that is longer than this is a long one: their number is bounded apart.
const LONG_HEAD: usize = 16 << 10;
/// How many connections there may be for each with a long head that is not whole yet: what nobody has
/// been asked a key for must not fill memory (P10).
const FOR_EACH_LONG_HEAD: usize = 12;

/// Serves `app` on `listener`, at most so many `connections` at once (see [`Door`] for who goes when there
/// are more), until `shutdown` completes; then stops accepting, finishes requests in flight (for at most 30 s) and
/// returns.
///
/// # Errors
/// None today: failures to accept are waited out, failures of a connection end that connection.
pub async fn serve(
    listener: TcpListener,
    app: App,
    connections: usize,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let door = Door::new(connections);
    let long_heads = Arc::new(Semaphore::new(connections.div_ceil(FOR_EACH_LONG_HEAD)));
    let connections = TaskTracker::new();
    let (stop, stopping) = watch::channel(());
    let mut shutdown = std::pin::pin!(shutdown);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    'open: loop {
        let mut accepting = std::pin::pin!(async {
            let (stream, peer) = accept(&listener).await;
            (stream, door.admit(peer.ip()).await)
        });
        // Whoever was accepted goes on waiting for room while it is looked whose time is up.
        let (stream, place) = loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break 'open,
                _ = look.tick() => door.look(),
                admitted = &mut accepting => break admitted,
            }
        };
        connections.spawn(connection(stream, app.clone(), Arc::clone(&long_heads), place, stopping.clone()));
    }
    drop(listener);
    connections.close();
    // Receivers only wait for the change; that none is left is fine.
    let _ = stop.send(());
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests in flight did not finish in time");
    }
    Ok(())
}

/// The next connection. A failure to accept (no file descriptors, a peer gone already) is not the
/// end of the server.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                if let Some(left_out) = LOCAL_FAULTS.turn() {
                    tracing::warn!(%error, left_out, "cannot accept a connection");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One connection, to its end.
async fn connection(
    stream: TcpStream,
    app: App,
    long_heads: Arc<Semaphore>,
    place: Place,
    mut stopping: watch::Receiver<()>,
) {
    // Answers are written whole: waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let busy = Arc::new(AtomicUsize::new(0));
    let came = Arc::new(AtomicUsize::new(0));
    let visitor = &place.visitor;
    let head = Head {
        came: Arc::clone(&came),
        busy: Arc::clone(&busy),
        visitor: Arc::clone(visitor),
        long_heads,
        long: None,
        odd_coding: false,
    };
    let io = TokioIo::new(Stalling { stream, stalled: None, head, instead: None });
    let service = Counting { app, busy: Arc::clone(&busy), came, visitor: Arc::clone(visitor) };
    let serving = http1::Builder::new()
        .timer(Alarm::default())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_PARSED)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(io, service);
    let mut serving = std::pin::pin!(serving);
    let served = {
        let look = stopping.clone();
        let (mut stop, mut listening) = (std::pin::pin!(stopping.changed()), false);
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = serving.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            if visitor.must_go() {
                return Poll::Ready(Some(Ok(())));
            }
            // This task has one waker: once told it, the stop need not be told again at every turn.
            if listening && look.has_changed().is_ok_and(|changed| !changed) {
                return Poll::Pending;
            }
            if !listening {
                visitor.listen(cx.waker());
                if visitor.must_go() {
                    return Poll::Ready(Some(Ok(())));
                }
            }
            listening = true;
            stop.as_mut().poll(cx).map(|_| None)
        })
        .await
    };
    let outcome = match served {
        Some(outcome) => outcome,
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = serving => outcome,
                // It never came to a request, and nobody is to wait for the rest of its head.
                () = quiet(&busy) => return,
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Ends once no request has been under way for [`QUIET`]: time enough to write the last answer.
async fn quiet(busy: &AtomicUsize) {
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if busy.load(Ordering::Relaxed) > 0 {
            since = Instant::now();
        } else if since.elapsed() >= QUIET {
            return;
        }
    }
}

/// The app, knowing how many of its requests are under way.
struct Counting {
    app: App,
    busy: Arc<AtomicUsize>,
    /// Bytes that came since the last head was whole.
    came: Arc<AtomicUsize>,
    visitor: Arc<Visitor>,
}

/// One request under way.
struct Counted {
    answering: Answering,
    busy: Arc<AtomicUsize>,
    visitor: Arc<Visitor>,
    proven: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        self.visitor.answered(self.proven);
    }
}

impl Future for Counted {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.answering).poll(cx));
        self.proven = self.answering.asks_for_a_key() && response.status().is_success();
        Poll::Ready(Ok(response))
    }
}

impl Service<Request<Incoming>> for Counting {
    type Response = Response;
    type Error = Infallible;
    type Future = Counted;

    fn call(&self, request: Request<Incoming>) -> Counted {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.came.store(0, Ordering::Relaxed);
        self.visitor.begins();
        let answering = self.app.answer_to(Some(self.visitor.peer()), request.map(Body::new));
        Counted { answering, busy: Arc::clone(&self.busy), visitor: Arc::clone(&self.visitor), proven: false }
    }
}

/// A stream whose writes fail once the peer has taken nothing for [`WRITE_STALL`]: an answer nobody
/// reads must not be held forever (P10).
struct Stalling {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
    head: Head,
    /// What goes out in the place of an answer of the library's own, and how much that was.
    instead: Option<(Bytes, usize)>,
}

/// The head of a request, as long as it is not whole.
struct Head {
    came: Arc<AtomicUsize>,
    busy: Arc<AtomicUsize>,
    visitor: Arc<Visitor>,
    long_heads: Arc<Semaphore>,
    /// The right to be a long one.
    long: Option<OwnedSemaphorePermit>,
    /// Whether it names a transfer coding that we do not understand.
    odd_coding: bool,
}

impl Head {
    /// This came.
    fn grows(&mut self, piece: &[u8]) -> io::Result<()> {
        // That is of a body, which has room of its own.
        if self.busy.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        let bytes = piece.len();
        self.odd_coding |= refusal::has_odd_coding(piece);
        self.visitor.came();
        let came = self.came.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if came > LONG_HEAD && self.long.is_none() {
            let long = Arc::clone(&self.long_heads).try_acquire_owned();
            self.long = Some(long.map_err(|_| io::Error::other("too many long heads at once"))?);
        }
        Ok(())
    }
}

impl Stalling {
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let sleep =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_STALL)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl AsyncRead for Stalling {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.long.is_some() && self.head.came.load(Ordering::Relaxed) == 0 {
            self.head.long = None;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.head.grows(&buf.filled()[before..]))
    }
}

impl Stalling {
    /// Writes what stands in the place of the library's answer; `None`: that is none.
    fn write_instead(&mut self, cx: &mut Context<'_>, written: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            let instead = refusal::instead_of(written, self.head.odd_coding)?;
            self.instead = Some((instead, written.len()));
        }
        loop {
            let (left, whole) = self.instead.as_mut()?;
            if left.is_empty() {
                let whole = *whole;
                self.instead = None;
                return Some(Poll::Ready(Ok(whole)));
            }
            let poll = Pin::new(&mut self.stream).poll_write(cx, left);
            if let Poll::Ready(Ok(count)) = poll {
                left.advance(count);
                continue;
            }
            return Some(self.watch(cx, poll));
        }
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(written) = self.write_instead(cx, bytes) {
            return written;
        }
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices
            && let Some(written) = self.write_instead(cx, only)
        {
            return written;
        }
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
