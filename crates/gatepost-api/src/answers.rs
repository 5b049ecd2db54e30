//! Room for answers, from being made until the other side has read them (P10).
//!
//! How large an answer gets is known when it is there. So whoever makes one that may be large first takes
//! the room of the largest, and gives back what it did not need. What is left is held by the bytes
//! themselves: however long they lie in a connection's buffer, their room is not given to others.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use gatepost_engine::Limits;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{ErrorCode, Problem};

/// How long an answer waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// Answers up to this size are not counted: what a connection may hold anyway.
const SMALL: usize = 16 << 10;
/// What part of the room may hold answers to one key that are not read yet: a caller that does not read
/// cannot shut the others out (P5).
const SHARE: usize = 2;

/// See the module.
pub(crate) struct Answers {
    room: Arc<Semaphore>,
    /// What one that is being made takes, in KiB.
    making: u32,
    /// KiB that answers to one key may hold.
    share: usize,
    unread: Arc<Unread>,
    chunks: Arc<Semaphore>,
    chunks_kib: u32,
}

/// KiB of unread answers by what they were asked with.
#[derive(Default)]
struct Unread {
    hasher: RandomState,
    by_key: Mutex<HashMap<u64, usize>>,
}

/// Room for one answer that is being made.
pub(crate) struct Making {
    permit: OwnedSemaphorePermit,
    unread: Arc<Unread>,
    share: usize,
    key: u64,
}

/// The room of an answer that was made.
struct Held {
    _permit: OwnedSemaphorePermit,
    unread: Arc<Unread>,
    key: u64,
    kib: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut by_key = self.unread.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kib) = by_key.get_mut(&self.key) {
            *kib = kib.saturating_sub(self.kib);
            if *kib == 0 {
                by_key.remove(&self.key);
            }
        }
    }
}

/// Bytes that hold their room.
struct Roomed<H> {
    bytes: Bytes,
    _held: H,
}

impl<H> AsRef<[u8]> for Roomed<H> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

fn full() -> Problem {
    Problem::new(ErrorCode::TooManyRequests, "too many large answers are being made or read; try again")
        .with(RETRY_AFTER, HeaderValue::from_static("1"))
}

impl Answers {
    /// The server's.
    pub(crate) fn new(limits: &Limits) -> Self {
        let all = kib(limits.answer_bytes).max(1);
        let at_once = u32::try_from(limits.answers_at_once.max(1)).unwrap_or(u32::MAX);
        let chunks_kib = kib(limits.stream_chunk_bytes).max(1);
        Answers {
            room: Arc::new(Semaphore::new(all as usize)),
            making: (all / at_once).max(1),
            share: all as usize / SHARE,
            unread: Arc::default(),
            chunks: Arc::new(Semaphore::new(chunks_kib as usize)),
            chunks_kib,
        }
    }

    /// Waits for room to make an answer to whoever sent these headers.
    pub(crate) async fn make(&self, headers: &HeaderMap) -> Result<Making, Problem> {
        let key = self.unread.hasher.hash_one(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes));
        let waiting = Arc::clone(&self.room).acquire_many_owned(self.making);
        match tokio::time::timeout(ROOM_WAIT, waiting).await {
            Ok(Ok(permit)) => Ok(Making { permit, unread: Arc::clone(&self.unread), share: self.share, key }),
            _ => Err(full()),
        }
    }

    /// Room for what is sent to somebody who follows a stream; `None`: others who do not read have it all.
    pub(crate) async fn chunk(&self, bytes: Bytes) -> Option<Bytes> {
        let waiting = Arc::clone(&self.chunks).acquire_many_owned(kib(bytes.len()).min(self.chunks_kib));
        let permit = tokio::time::timeout(ROOM_WAIT, waiting).await.ok()?.ok()?;
        Some(Bytes::from_owner(Roomed { bytes, _held: permit }))
    }
}

impl Making {
    /// Takes no more room than the answer needs, until it is read.
    pub(crate) fn made(self, response: Response) -> Response {
        // One whose length is not known comes in small pieces, each made when the last was read.
        let Some(len) = response.body().size_hint().exact().and_then(|len| usize::try_from(len).ok()) else {
            return response;
        };
        if len <= SMALL {
            return response;
        }
        let Making { mut permit, unread, share, key } = self;
        let needed = kib(len) as usize;
        {
            let mut by_key = unread.by_key.lock().unwrap_or_else(PoisonError::into_inner);
            let held = by_key.entry(key).or_default();
            // One of any size is let through, or it could never be read.
            if *held > 0 && *held + needed > share {
                return full().into_response();
            }
            *held += needed;
        }
        if let Some(rest) = permit.num_permits().checked_sub(needed) {
            // What is split off is given back here.
            drop(permit.split(rest));
        }
        let held = Arc::new(Held { _permit: permit, unread, key, kib: needed });
        response.map(|body| Body::new(Holding { body, held }))
    }
}

/// A body whose bytes hold their room.
struct Holding {
    body: Body,
    held: Arc<Held>,
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let held = &self.held;
        let with_room = |bytes| Bytes::from_owner(Roomed { bytes, _held: Arc::clone(held) });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(with_room))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn answers() -> Answers {
        Answers::new(&Limits {
            answer_bytes: 400 << 10,
            answers_at_once: 4,
            stream_chunk_bytes: 64 << 10,
            ..Limits::default()
        })
    }

    fn asked_by(key: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(key))])
    }

    async fn answer(answers: &Answers, key: &'static str, bytes: usize) -> Result<Response, Problem> {
        Ok(answers.make(&asked_by(key)).await?.made(Response::new(Body::from(vec![b' '; bytes]))))
    }

    #[tokio::test(start_paused = true)]
    async fn p10_answers_hold_their_room_until_their_bytes_are_gone() {
        let answers = answers();
        let small = answer(&answers, "a", SMALL).await.unwrap();
        assert_eq!(answers.room.available_permits(), 400, "small ones are not counted");
        drop(small);
        let large = answer(&answers, "a", 50 << 10).await.unwrap();
        assert_eq!(answers.room.available_permits(), 350, "what was not needed is given back");
        assert_eq!(large.body().size_hint().exact(), Some(50 << 10));
        // The body is gone long before its bytes have left the connection's buffer.
        let bytes = large.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((bytes.len(), answers.room.available_permits()), (50 << 10, 350));
        drop(bytes);
        assert_eq!(answers.room.available_permits(), 400);
        assert!(answers.unread.by_key.lock().unwrap().is_empty(), "nothing is kept of keys that hold nothing");
        // No more are made at once than fit.
        let mut making = Vec::new();
        for _ in 0..4 {
            making.push(answers.make(&asked_by("a")).await.ok().unwrap());
        }
        assert!(answers.make(&asked_by("b")).await.is_err());
        making.pop();
        assert!(answers.make(&asked_by("b")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn p5_who_does_not_read_leaves_room_for_others() {
        let answers = answers();
        let mut unread = Vec::new();
        for _ in 0..2 {
            unread.push(answer(&answers, "a", 100 << 10).await.unwrap());
        }
        assert_eq!(answer(&answers, "a", 17 << 10).await.unwrap().status(), 429, "half is what one key may hold");
        assert_eq!(answer(&answers, "a", 1 << 10).await.unwrap().status(), 200);
        assert_eq!(answer(&answers, "b", 90 << 10).await.unwrap().status(), 200);
        unread.clear();
        assert_eq!(answer(&answers, "a", 17 << 10).await.unwrap().status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn p10_what_followers_do_not_read_is_bounded() {
        let answers = answers();
        let chunk = |len: usize| Bytes::from(vec![b' '; len]);
        let held = answers.chunk(chunk(60 << 10)).await.unwrap();
        assert!(answers.chunk(chunk(5 << 10)).await.is_none());
        drop(held);
        assert_eq!(answers.chunk(chunk(1 << 20)).await.unwrap().len(), 1 << 20, "a larger one goes alone");
    }
}
