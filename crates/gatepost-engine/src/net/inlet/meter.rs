//! How much one connection may have read of it, and how often (P5, P10).
//!
//! Whatever a receiver sends is read by a thread that reads for others as well. So a connection that
//! always has more steps back after a few reads, and one that sends more than an answer takes, or an
//! answer in crumbs, is read at a measured pace: what waits meanwhile waits in the system's buffers,
//! and in the sender's. Below TLS, so that records without content count too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::account::Account;
use crate::net::wire::Tcp;

/// Reads in a row before others get their turn.
const IN_A_ROW: u8 = 4;
/// Bytes a request is answered with besides its body: heads, and what TLS, chunks and frames add.
const AROUND: u64 = 96 * 1024;
/// Reads that brought little which a request is answered with.
const CRUMBS: u64 = 32;
/// What is little.
const CRUMB: usize = 512;
/// What is read besides, however few requests there are.
const BYTES_PER_S: u64 = 128 * 1024;
const CRUMBS_PER_S: u64 = 50;
/// A pace is kept in steps of this.
const STEP: Duration = Duration::from_millis(20);

/// See the module.
pub(in crate::net) struct Metered {
    tcp: Tcp,
    in_a_row: u8,
    left: Left,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    /// With what a handshake takes.
    pub(in crate::net) fn new(tcp: Tcp) -> Self {
        Metered { tcp, in_a_row: 0, left: Left::for_handshake(), pause: None }
    }

    pub(in crate::net) fn tcp(&self) -> &Tcp {
        &self.tcp
    }
}

/// What may still be read at once.
struct Left {
    requests: u32,
    bytes: u64,
    crumbs: u64,
    /// Since when nothing was added for the time that passed.
    since: Option<Instant>,
}

impl Left {
    fn for_handshake() -> Self {
        Left { requests: 0, bytes: AROUND, crumbs: CRUMBS, since: None }
    }

    /// Hears of requests that have begun.
    fn hear(&mut self, account: &Account) {
        let requests = account.requests();
        if requests == self.requests {
            return;
        }
        let more = u64::from(requests.wrapping_sub(self.requests));
        let (at_once, body) = account.last();
        let answer = AROUND.saturating_add(body);
        self.requests = requests;
        self.bytes = self.bytes.saturating_add(answer.saturating_mul(more)).min(answer.saturating_mul(at_once));
        self.crumbs = self.crumbs.saturating_add(CRUMBS.saturating_mul(more)).min(CRUMBS.saturating_mul(at_once));
        self.since = None;
    }

    fn is_spent(&self) -> bool {
        self.bytes == 0 || self.crumbs == 0
    }

    /// Adds what time allows.
    fn rest(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let millis = u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX).min(1_000);
        let (bytes, crumbs) = (millis * BYTES_PER_S / 1_000, millis * CRUMBS_PER_S / 1_000);
        if bytes > 0 && crumbs > 0 {
            self.bytes = self.bytes.max(bytes);
            self.crumbs = self.crumbs.max(crumbs);
            self.since = Some(now);
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
        if bytes < CRUMB {
            self.crumbs = self.crumbs.saturating_sub(1);
        }
    }
}

impl Metered {
    /// Ready when a read may be made.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.in_a_row >= IN_A_ROW {
            self.in_a_row = 0;
            // At the end of the line of those that are ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left.hear(self.tcp.account());
        if self.left.is_spent() {
            self.left.rest(Instant::now());
        }
        while self.left.is_spent() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(STEP)));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
            self.left.rest(Instant::now());
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_turn(cx));
        let before = buf.filled().len();
        let read = Pin::new(&mut this.tcp).poll_read(cx, buf);
        if read.is_pending() {
            this.in_a_row = 0;
        } else {
            this.in_a_row += 1;
            this.left.spend(buf.filled().len() - before);
        }
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;

    const BODY: usize = 10_000;

    /// A connection on which one request was made, and the other end of it.
    async fn asked() -> (Metered, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let connecting = TcpSocket::new_v4().expect("a socket").connect(address);
        let (ours, theirs) = tokio::join!(connecting, listener.accept());
        let tcp = Tcp::new(ours.expect("it listens"));
        tcp.account().begin(1, 0, BODY);
        (Metered::new(tcp), theirs.expect("it was asked").0)
    }

    #[tokio::test(start_paused = true)]
    async fn p5_beyond_an_answer_a_connection_is_read_at_a_pace() {
        // Much at a time, and crumbs.
        for (piece, free) in [(4_096, (AROUND as usize + BODY) / 4_096 + 1), (1, CRUMBS as usize)] {
            let (mut metered, mut theirs) = asked().await;
            let mut buf = vec![0; piece];
            let began = Instant::now();
            for _ in 0..free {
                theirs.write_all(&buf).await.expect("room");
                metered.read_exact(&mut buf).await.expect("it came");
            }
            assert_eq!(began.elapsed(), Duration::ZERO, "what an answer takes is read at once");
            for _ in 0..100 {
                theirs.write_all(&buf).await.expect("room");
                metered.read_exact(&mut buf).await.expect("it came");
            }
            assert!(began.elapsed() >= STEP * 100, "{piece}: {:?}", began.elapsed());
            // The next request has an answer of its own.
            metered.tcp().account().begin(1, 0, BODY);
            let began = Instant::now();
            for _ in 0..free {
                theirs.write_all(&buf).await.expect("room");
                metered.read_exact(&mut buf).await.expect("it came");
            }
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn p5_a_connection_that_always_has_more_steps_back() {
        let (mut metered, mut theirs) = asked().await;
        theirs.write_all(&[0; 10_000]).await.expect("room");
        let mut buf = [0; 600];
        metered.read_exact(&mut buf).await.expect("it came");
        let in_a_row = (0..15).take_while(|_| metered.read_exact(&mut buf).now_or_never().is_some()).count();
        assert_eq!(in_a_row, usize::from(IN_A_ROW) - 1);
        metered.read_exact(&mut buf).await.expect("and goes on");
    }
}
