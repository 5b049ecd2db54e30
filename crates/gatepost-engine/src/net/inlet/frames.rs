//! The frames on an HTTP/2 connection, counted before they are read: each costs far more than its bytes.
//!
//! A head of a few bytes may stand for 64 KiB of headers, and those of interim answers are kept until
//! whoever asked looks; a PING is answered; everything else is at least work. So a stream has as many
//! heads as an answer may have before it, and a connection as many other frames as its requests account
//! for, and a few a second.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::account::Account;
use super::fault::{Fault, MAX_INTERIM};

/// Heads on one stream: the interim ones, the answer's, and trailers.
const HEADS: u8 = MAX_INTERIM + 2;
/// Streams whose heads are counted: the last ones. More than are open at a time.
const STREAMS: usize = 256;
/// Streams with heads beyond the requests made: those that were forgotten here and had more to say.
const FORGOTTEN: u32 = 64;
/// Frames that are neither heads nor bodies: at first, for each request, at most, and each second.
const AT_FIRST: u32 = 100;
const PER_REQUEST: u32 = 10;
const AT_MOST: u32 = 1_000;
const PER_S: u32 = 20;
/// Bytes of a request's body that account for one more: two for each 4 KiB, the smallest pieces in which
/// ordinary servers let a body through.
const BODY_FOR_ONE: u64 = 2 << 10;

const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Where in the stream of frames a connection is.
pub(super) struct Frames {
    head: [u8; FRAME_HEAD],
    /// Bytes of it that have come.
    have: usize,
    /// Bytes of the frame's payload that have not come yet.
    payload: usize,
    requests: u32,
    sent: u64,
    others: u32,
    since: Option<Instant>,
    /// Streams and their heads, in the order of their first.
    streams: VecDeque<(u32, u8)>,
    answered: u32,
}

impl Frames {
    pub(super) fn new() -> Self {
        Frames {
            head: [0; FRAME_HEAD],
            have: 0,
            payload: 0,
            requests: 0,
            sent: 0,
            others: AT_FIRST,
            since: None,
            streams: VecDeque::new(),
            answered: 0,
        }
    }

    /// Judges bytes that came.
    pub(super) fn judge(&mut self, mut came: &[u8], account: &Account) -> Result<(), Fault> {
        loop {
            let skipped = self.payload.min(came.len());
            self.payload -= skipped;
            came = &came[skipped..];
            let more = (FRAME_HEAD - self.have).min(came.len());
            if more == 0 {
                return Ok(());
            }
            self.head[self.have..self.have + more].copy_from_slice(&came[..more]);
            self.have += more;
            came = &came[more..];
            if self.have < FRAME_HEAD {
                return Ok(());
            }
            self.have = 0;
            self.frame(account)?;
        }
    }

    fn frame(&mut self, account: &Account) -> Result<(), Fault> {
        let [a, b, c, kind, _, stream @ ..] = self.head;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            // The first bit means nothing.
            HEADERS => self.head_of(u32::from_be_bytes(stream) & 0x7fff_ffff, account),
            DATA => Ok(()),
            _ => self.other(account),
        }
    }

    fn head_of(&mut self, stream: u32, account: &Account) -> Result<(), Fault> {
        if let Some((_, heads)) = self.streams.iter_mut().rev().find(|(of, _)| *of == stream) {
            *heads += 1;
            return if *heads > HEADS { Err(Fault::ManyInterim) } else { Ok(()) };
        }
        if self.streams.len() >= STREAMS {
            self.streams.pop_front();
        }
        self.streams.push_back((stream, 1));
        self.answered = self.answered.saturating_add(1);
        account.answer_begins();
        if self.answered > account.requests().saturating_add(FORGOTTEN) { Err(Fault::Flood) } else { Ok(()) }
    }

    fn other(&mut self, account: &Account) -> Result<(), Fault> {
        if self.others == 0 {
            self.allow(account);
        }
        self.others = self.others.checked_sub(1).ok_or(Fault::Flood)?;
        Ok(())
    }

    /// Adds what requests and time allow.
    fn allow(&mut self, account: &Account) {
        let requests = account.requests();
        let more = requests.wrapping_sub(self.requests);
        self.requests = requests;
        let now = Instant::now();
        let seconds = self.since.map_or(0, |since| u32::try_from((now - since).as_secs()).unwrap_or(u32::MAX));
        if seconds > 0 || self.since.is_none() {
            self.since = Some(now);
        }
        let added = more.saturating_mul(PER_REQUEST).saturating_add(seconds.saturating_mul(PER_S));
        // As many as there are bytes to let through, however many requests at once: not bounded by the rest.
        let sent = account.sent();
        let let_through = u32::try_from(sent.wrapping_sub(self.sent) / BODY_FOR_ONE).unwrap_or(u32::MAX);
        self.sent = self.sent.wrapping_add(u64::from(let_through) * BODY_FOR_ONE);
        self.others = self.others.saturating_add(added).min(AT_MOST).saturating_add(let_through);
    }
}
