//! Connections that lie ready.
//!
//! What HTTP/1.1 needs to speak, two buffers of 8 KiB above all, is more than half of what an idle
//! connection costs, and is made again in microseconds. So where many are kept, the later ones rest: of
//! those the stream alone is kept, with its TLS session, until somebody calls.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::{Driver, H1, MAX_AGE, speaking};
use crate::net::inlet::Inlet;
use crate::net::wire::Tcp;

/// A connection without a request.
pub(super) enum Idle {
    /// The next request goes out at once.
    Awake(H1),
    /// It must be woken first.
    Resting(Resting),
}

/// A connection as it came out of the handshake.
pub(super) struct Resting {
    inlet: Inlet,
    tcp: Tcp,
    peer: SocketAddr,
    born: Instant,
    idle_since: Instant,
    idle_for: Duration,
}

impl Idle {
    /// Puts a connection to rest. `None`: its peer said something that nobody asked for.
    pub(super) fn rest(h1: H1) -> Option<Idle> {
        if !h1.is_ready() {
            return Some(Idle::Awake(h1));
        }
        let H1 { driver, tcp, peer, born, idle_since, idle_for, .. } = h1;
        let parts = driver.connection.into_parts();
        let mut inlet = parts.io.into_inner();
        // Reading in vain gives back half of what rustls reads into, too.
        let mut byte = [0];
        let read =
            Pin::new(&mut inlet).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte));
        let is_quiet = parts.read_buf.is_empty() && read.is_pending();
        is_quiet.then(|| Idle::Resting(Resting { inlet, tcp, peer, born, idle_since, idle_for }))
    }

    /// Ready to send. `None`: it is of no use any more.
    pub(super) fn wake(self, title_case: bool) -> Option<H1> {
        let Resting { inlet, tcp, peer, born, idle_since, idle_for } = match self {
            Idle::Awake(h1) => return Some(h1),
            Idle::Resting(resting) => resting,
        };
        // Called a handshake, but nothing is said: it is over at once.
        let (sender, connection) = speaking(title_case).handshake(TokioIo::new(inlet)).now_or_never()?.ok()?;
        let driver = Driver { connection: Box::new(connection), ended: false };
        Some(H1 { sender, driver, tcp, peer, born, idle_since, idle_for })
    }

    /// Ends it in good order.
    pub(super) fn close(self) {
        if let Some(h1) = self.wake(false) {
            h1.close();
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        match self {
            Idle::Awake(h1) => h1.peer,
            Idle::Resting(resting) => resting.peer,
        }
    }

    pub(super) fn idle_since(&self) -> Instant {
        match self {
            Idle::Awake(h1) => h1.idle_since,
            Idle::Resting(resting) => resting.idle_since,
        }
    }

    /// Whether it has served its time, or is known to have ended.
    pub(super) fn is_worn(&self, now: Instant) -> bool {
        match self {
            Idle::Awake(h1) => h1.is_worn(now),
            Idle::Resting(resting) => now - resting.idle_since >= resting.idle_for || now - resting.born >= MAX_AGE,
        }
    }

    /// Whether a request could be sent on it, as far as that can be told without waking it.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Idle::Awake(h1) => h1.is_ready(),
            Idle::Resting(_) => true,
        }
    }

    #[cfg(test)]
    pub(super) fn is_resting(&self) -> bool {
        matches!(self, Idle::Resting(_))
    }

    /// Whether its peer has closed it or said something unasked.
    pub(super) fn is_broken(&mut self) -> bool {
        match self {
            Idle::Awake(h1) => !h1.is_at_rest(),
            // What TLS says of its own accord comes with the first answer: it has been heard.
            Idle::Resting(resting) => !resting.tcp.is_quiet(),
        }
    }
}

impl H1 {
    /// Whether nothing has come since the last answer but what TLS says of its own accord (tickets for
    /// later sessions): anything else ends the connection when it is read.
    pub(super) fn is_at_rest(&mut self) -> bool {
        if self.tcp.is_quiet() {
            return true;
        }
        self.driver.poll(&mut Context::from_waker(Waker::noop())).is_pending() && self.tcp.is_quiet()
    }
}
