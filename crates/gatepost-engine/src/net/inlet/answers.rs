//! The answers on an HTTP/1.1 connection: each head is judged, mended and counted before it is parsed.

use bytes::{Buf, BytesMut};

use super::account::Account;
use super::fault::{Fault, MAX_INTERIM};
use super::head::{self, Head, MAX_HEAD};

/// Where in the stream of answers a connection is.
pub(super) struct Answers {
    /// The request whose answer is read.
    request: u32,
    in_head: bool,
    interim: u8,
    interim_bytes: usize,
    /// The beginning of a head.
    held: BytesMut,
    /// What may be parsed now, in place of what came.
    cleared: BytesMut,
}

/// What may be parsed of some bytes.
struct Passed {
    /// So many, or ...
    upto: usize,
    /// ... this in their place.
    mended: Option<BytesMut>,
}

impl Answers {
    pub(super) fn new() -> Self {
        Answers {
            request: 0,
            in_head: false,
            interim: 0,
            interim_bytes: 0,
            held: BytesMut::new(),
            cleared: BytesMut::new(),
        }
    }

    /// Gives out what was held back and may be parsed now.
    pub(super) fn take(&mut self, room: usize) -> Option<BytesMut> {
        let some = self.cleared.len().min(room);
        (some > 0).then(|| self.cleared.split_to(some))
    }

    /// Judges bytes that came. How many of them may be parsed as they are; the others are held back, or
    /// come out of [`Answers::take`].
    pub(super) fn judge(&mut self, came: &[u8], account: &Account) -> Result<usize, Fault> {
        if self.request != account.requests() {
            // What is left of an earlier answer is nobody's.
            *self = Answers { request: account.requests(), in_head: true, ..Answers::new() };
        }
        if !self.in_head {
            return Ok(came.len());
        }
        if self.held.is_empty() {
            let Passed { upto, mended } = self.pass(came, account)?;
            self.held.extend_from_slice(&came[upto..]);
            let Some(mended) = mended else { return Ok(upto) };
            self.cleared = mended;
            return Ok(0);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(came);
        let Passed { upto, mended } = self.pass(&held, account)?;
        self.cleared = match mended {
            Some(mended) => {
                held.advance(upto);
                mended
            }
            None => held.split_to(upto),
        };
        self.held = held;
        Ok(0)
    }

    fn pass(&mut self, bytes: &[u8], account: &Account) -> Result<Passed, Fault> {
        let mut at = 0;
        let mut mended: Option<BytesMut> = None;
        while self.in_head && at < bytes.len() {
            match head::read(&bytes[at..])? {
                Head::Incomplete if bytes.len() - at > MAX_HEAD => return Err(Fault::LargeHead),
                Head::Incomplete => break,
                Head::Foreign => {
                    self.in_head = false;
                    account.spoil();
                }
                Head::Whole { len, .. } if len > MAX_HEAD => return Err(Fault::LargeHead),
                Head::Whole { len, status, mended: better } => {
                    if let Some(better) = better {
                        account.spoil();
                        mended.get_or_insert_with(|| bytes[..at].into()).extend_from_slice(&better);
                    } else if let Some(mended) = &mut mended {
                        mended.extend_from_slice(&bytes[at..at + len]);
                    }
                    at += len;
                    // 101 is an answer: no other follows.
                    self.in_head = (100..200).contains(&status) && status != 101;
                    if self.in_head {
                        self.count_interim(len)?;
                    }
                }
            }
        }
        if !self.in_head {
            if let Some(mended) = &mut mended {
                mended.extend_from_slice(&bytes[at..]);
            }
            at = bytes.len();
        }
        Ok(Passed { upto: at, mended })
    }

    fn count_interim(&mut self, len: usize) -> Result<(), Fault> {
        self.interim += 1;
        self.interim_bytes += len;
        if self.interim > MAX_INTERIM {
            return Err(Fault::ManyInterim);
        }
        if self.interim_bytes > MAX_HEAD {
            return Err(Fault::LargeInterim);
        }
        Ok(())
    }
}
