//! What comes in, before any library reads it.
//!
//! The libraries that speak HTTP and TLS read on as long as there is something to read and keep what
//! they read, and believe what frames a body. What a receiver sends passes here first: how much and how
//! often ([`meter`], below TLS), which heads ([`answers`], [`head`]), which frames ([`frames`]). A good
//! answer is looked over once, where it lies.

mod account;
mod answers;
mod fault;
mod frames;
mod head;
mod meter;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) use account::Account;
pub(super) use fault::Fault;
pub(super) use head::MAX_HEAD;
pub(super) use meter::Metered;

use super::wire::Wire;
use answers::Answers;
use frames::Frames;

/// A connection's stream, watched.
pub(super) struct Inlet {
    wire: Wire,
    watch: Watch,
}

enum Watch {
    Answers(Answers),
    // Boxed: few connections have many streams.
    Frames(Box<Frames>),
}

impl Inlet {
    /// Of a connection that speaks HTTP/1.1.
    pub(super) fn of_answers(wire: Wire) -> Self {
        Inlet { wire, watch: Watch::Answers(Answers::new()) }
    }

    /// Of one that speaks HTTP/2.
    pub(super) fn of_frames(wire: Wire) -> Self {
        Inlet { wire, watch: Watch::Frames(Box::new(Frames::new())) }
    }
}

impl AsyncRead for Inlet {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Inlet { wire, watch } = self.get_mut();
        let before = buf.filled().len();
        loop {
            if let Watch::Answers(answers) = watch
                && let Some(cleared) = answers.take(buf.remaining())
            {
                buf.put_slice(&cleared);
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut *wire).poll_read(cx, buf))?;
            let came = &buf.filled()[before..];
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let account = wire.account();
            let passed = match watch {
                Watch::Answers(answers) => {
                    account.hear();
                    answers.judge(came, account)
                }
                Watch::Frames(frames) => frames.judge(came, account).map(|()| came.len()),
            };
            let passed = passed.map_err(|fault| account.condemn(fault))?;
            buf.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Inlet {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}
