//! Reading bodies: of a known kind, of bounded size, in bounded time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use gatepost_core::KeyId;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::problem::{ErrorCode, Problem};

/// Bodies in memory at once, all requests together (P10).
const ALLOWANCE_KIB: usize = 256 << 10;
/// What part of it one key may take: whoever holds a key cannot shut the others out (P5).
const SHARE: usize = 4;
/// How long a request waits for room before it is told to come back.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// How long nothing may come of a body.
const STALL: Duration = Duration::from_secs(5);
/// A body must come at this rate on average, in bytes a second, after a grace of [`BODY_GRACE`].
const BODY_RATE: u64 = 16 << 10;
const BODY_GRACE: Duration = Duration::from_secs(20);
/// How much of a body that is too large is read and thrown away, so that the answer is heard: a
/// connection closed under a sender's hands loses it.
const DRAIN_MAX: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What a body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// `application/json`, or not said.
    Json,
    /// `application/merge-patch+json`.
    MergePatch,
    /// `application/x-ndjson`.
    Ndjson,
    /// `application/cloudevents+json`.
    CloudEvent,
    /// `application/cloudevents-batch+json`.
    CloudEvents,
    /// `application/x-www-form-urlencoded`, which other systems' APIs read.
    Form,
}

impl Content {
    const ALL: [Content; 6] =
        [Content::Json, Content::MergePatch, Content::Ndjson, Content::CloudEvent, Content::CloudEvents, Content::Form];

    /// The media type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Content::Json => "application/json",
            Content::MergePatch => "application/merge-patch+json",
            Content::Ndjson => "application/x-ndjson",
            Content::CloudEvent => "application/cloudevents+json",
            Content::CloudEvents => "application/cloudevents-batch+json",
            Content::Form => "application/x-www-form-urlencoded",
        }
    }

    /// Whether bodies of this kind hold many events.
    pub(crate) fn is_batch(self) -> bool {
        matches!(self, Content::Ndjson | Content::CloudEvents)
    }

    /// Refuses bodies that are compressed.
    pub(crate) fn plain(headers: &HeaderMap) -> Result<(), Problem> {
        match headers.get(CONTENT_ENCODING) {
            Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
                let detail = "bodies with a content encoding are not read; send it plain";
                Err(Problem::new(ErrorCode::UnsupportedMediaType, detail))
            }
            _ => Ok(()),
        }
    }

    /// What the headers say the body is; it must be one of `accepted`. Not said means JSON.
    pub(crate) fn of(headers: &HeaderMap, accepted: &[Content]) -> Result<Content, Problem> {
        Content::plain(headers)?;
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Content::Json) };
        let unsupported = || {
            let names: Vec<_> = accepted.iter().map(|content| content.name()).collect();
            let mut detail = format!("this call reads {}", names.join(", "));
            if value.as_bytes().starts_with(b"application/x-www-form-urlencoded") {
                detail.push_str(
                    "; some clients call every body a form unless told otherwise: say it is application/json",
                );
            }
            Problem::new(ErrorCode::UnsupportedMediaType, detail)
        };
        let mut parts = value.to_str().map_err(|_| unsupported())?.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let utf8 =
            |value: &str| ["utf-8", "utf8"].iter().any(|name| value.trim_matches('"').eq_ignore_ascii_case(name));
        let charset = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
        if charset.is_some_and(|(_, value)| !utf8(value.trim())) {
            return Err(Problem::new(ErrorCode::UnsupportedMediaType, "only UTF-8 is read"));
        }
        Content::ALL
            .into_iter()
            .find(|content| content.name().eq_ignore_ascii_case(media_type))
            .filter(|content| accepted.contains(content))
            .ok_or_else(unsupported)
    }
}

/// Room for bodies, shared by all requests (P10). It is taken for bytes that came, never for bytes
/// that were announced: a connection on which nothing comes takes nothing.
pub(crate) struct Allowance {
    all: Pool,
    kib: usize,
    largest_kib: usize,
    /// Shares of the keys that hold some now; `None` is the installation's admin key.
    shares: Mutex<HashMap<Option<KeyId>, Arc<Pool>>>,
}

/// Room in KiB. Bodies that each hold a part and wait for more could wait for each other; so enough
/// for one whole body is kept back, for one at a time of those that wait.
struct Pool {
    room: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

impl Pool {
    fn new(kib: usize, kept_kib: usize) -> Self {
        let kept = Semaphore::new(usize::from(kept_kib > 0));
        Pool { room: Arc::new(Semaphore::new(kib.saturating_sub(kept_kib))), kept: Arc::new(kept) }
    }

    async fn some(&self, kib: u32) -> Permit {
        Arc::clone(&self.room).acquire_many_owned(kib).await.ok()
    }

    async fn rest_of_one(&self) -> Permit {
        Arc::clone(&self.kept).acquire_owned().await.ok()
    }
}

/// `None` from a closed semaphore, which these never are.
type Permit = Option<OwnedSemaphorePermit>;

impl Allowance {
    /// The server's, for bodies of at most `largest` bytes.
    pub(crate) fn new(largest: usize) -> Arc<Self> {
        Allowance::of(ALLOWANCE_KIB, largest.div_ceil(1 << 10))
    }

    fn of(kib: usize, largest_kib: usize) -> Arc<Self> {
        let kib = kib.max(2 * largest_kib);
        Arc::new(Allowance { all: Pool::new(kib, largest_kib), kib, largest_kib, shares: Mutex::default() })
    }

    /// No room yet, for a body that `key` sends.
    fn room(self: &Arc<Self>, key: Option<KeyId>) -> Room {
        let share_kib = (self.kib / SHARE).max(2 * self.largest_kib);
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = shares.entry(key).or_insert_with(|| Arc::new(Pool::new(share_kib, self.largest_kib)));
        let share = Arc::clone(share);
        Room { share, allowance: Arc::clone(self), key, kib: 0, held: Vec::new(), whole: [false; 2] }
    }
}

/// What one body takes of the [`Allowance`], given back when it is dropped.
pub(crate) struct Room {
    allowance: Arc<Allowance>,
    key: Option<KeyId>,
    share: Arc<Pool>,
    kib: usize,
    held: Vec<OwnedSemaphorePermit>,
    /// Whether it has what the share, and the whole, keep back for one body.
    whole: [bool; 2],
}

impl Room {
    /// Bytes there is room for.
    fn bytes(&self) -> usize {
        self.kib << 10
    }

    fn give_back(&mut self) {
        self.held.clear();
        self.kib = 0;
        self.whole = [false; 2];
    }

    /// Takes as much more as `bytes` need. A key first waits for its own share, so that its requests
    /// do not stand in the line of all others.
    async fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.div_ceil(1 << 10).saturating_sub(self.kib);
        let Ok(permits) = u32::try_from(more) else { return Err(full(self.allowance.kib)) };
        if permits == 0 {
            return Ok(());
        }
        let (share, all) = (&self.share, &self.allowance.all);
        let (held, whole) = (&mut self.held, &mut self.whole);
        let waiting = async {
            if !whole[0] {
                tokio::select! {
                    biased;
                    permit = share.some(permits) => held.push(permit?),
                    permit = share.rest_of_one() => {
                        held.push(permit?);
                        whole[0] = true;
                    }
                }
            }
            if !whole[1] {
                // Who has what the whole keeps back must have what its share keeps back: then it
                // waits for nobody, and everybody else waits for it at most.
                let has_own = whole[0];
                let both = async {
                    let own = if has_own { None } else { Some(share.rest_of_one().await?) };
                    Some((own, all.rest_of_one().await?))
                };
                tokio::select! {
                    biased;
                    permit = all.some(permits) => held.push(permit?),
                    rest = both => {
                        let (own, rest) = rest?;
                        held.extend(own);
                        held.push(rest);
                        *whole = [true; 2];
                    }
                }
            }
            Some(())
        };
        // Who gives up gives everything back: the request ends.
        match tokio::time::timeout(ROOM_WAIT, waiting).await {
            Ok(Some(())) => {
                self.kib += more;
                Ok(())
            }
            _ => Err(full(self.allowance.kib)),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back();
        let mut shares = self.allowance.shares.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and ours: no other body of this key is being read or used.
        if Arc::strong_count(&self.share) == 2 {
            shares.remove(&self.key);
        }
    }
}

/// Reads a body of at most `limit` bytes that `key` sends, as there is room for it.
pub(crate) async fn read(
    allowance: &Arc<Allowance>,
    key: Option<KeyId>,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<(Bytes, Room), Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        // Whoever waits for a 100 has not sent the body and need not.
        if !headers.contains_key(EXPECT) {
            drain(body).await;
        }
        return Err(too_large(limit));
    }
    let mut room = allowance.room(key);
    let bytes = collect(body, announced.unwrap_or(limit), limit, &mut room).await?;
    Ok((bytes, room))
}

/// The answer where there is no room.
fn full(kib: usize) -> Problem {
    let policy = format!("\"bodies\";q={};qu=\"content-bytes\";w=1", kib << 10);
    let mut problem = Problem::new(ErrorCode::TooManyRequests, "too many large requests at once; try again")
        .with(RETRY_AFTER, HeaderValue::from_static("1"))
        .with(HeaderName::from_static("ratelimit"), HeaderValue::from_static("\"bodies\";r=0;t=1"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        problem = problem.with(HeaderName::from_static("ratelimit-policy"), policy);
    }
    problem
}

/// All of the body. One that came in one piece is not copied.
async fn collect(mut body: Body, most: usize, limit: usize, room: &mut Room) -> Result<Bytes, Problem> {
    let mut first: Option<Bytes> = None;
    let mut rest: Option<Vec<u8>> = None;
    let mut pace = Pace::new();
    let mut so_far = 0;
    while let Some(frame) = pace.keep(so_far, body.frame()).await? {
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            Problem::new(ErrorCode::BodyUnreadable, "the body broke off before its end")
        })?;
        // Trailers say nothing to us.
        let Ok(data) = frame.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        if so_far + data.len() > limit {
            // What is thrown away takes no room.
            drop((first, rest));
            room.give_back();
            drain(body).await;
            return Err(too_large(limit));
        }
        so_far += data.len();
        if so_far > room.bytes() {
            let waiting = Instant::now();
            // One piece is often all. After that twice what there was, so that little is copied twice.
            let wanted = if first.is_none() && rest.is_none() { so_far } else { (2 * so_far).min(most.max(so_far)) };
            room.grow(wanted).await?;
            pace.excuse(waiting.elapsed());
        }
        match (&mut rest, first.take()) {
            (Some(all), _) => {
                if all.capacity() < so_far {
                    all.reserve_exact(room.bytes() - all.len());
                }
                all.extend_from_slice(&data);
            }
            (None, None) => first = Some(data),
            (None, Some(start)) => {
                let mut all = Vec::with_capacity(room.bytes());
                all.extend_from_slice(&start);
                all.extend_from_slice(&data);
                rest = Some(all);
            }
        }
    }
    Ok(rest.map(Bytes::from).or(first).unwrap_or_default())
}

/// Sees to it that a body goes on coming.
struct Pace {
    started: Instant,
}

impl Pace {
    fn new() -> Self {
        Pace { started: Instant::now() }
    }

    /// Waits for what comes after `so_far` bytes, but only as long as a sender may take.
    async fn keep<T>(&self, so_far: usize, next: impl Future<Output = T>) -> Result<T, Problem> {
        let behind = self.started + BODY_GRACE + Duration::from_secs(so_far as u64 / BODY_RATE);
        let stalled = Instant::now() + STALL;
        tokio::time::timeout_at(stalled.min(behind), next)
            .await
            .map_err(|_| Problem::new(ErrorCode::RequestTimeout, "the body did not arrive in time"))
    }

    /// Time that the sender could do nothing about.
    fn excuse(&mut self, time: Duration) {
        self.started += time;
    }
}

/// Throws away what is left of a body, within reason.
async fn drain(mut body: Body) {
    let draining = async {
        let mut left = DRAIN_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Too slow or not, the answer is the same.
    let _ = tokio::time::timeout(DRAIN_TIME, draining).await;
}

fn too_large(limit: usize) -> Problem {
    Problem::new(ErrorCode::PayloadTooLarge, format!("the body is over {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use futures_util::StreamExt as _;

    use super::*;

    #[test]
    fn content_types_are_read_as_media_types() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            Content::of(&headers, &[Content::Json, Content::Ndjson]).ok()
        };
        assert_eq!(of("application/json"), Some(Content::Json));
        assert_eq!(of("Application/JSON ; Charset=\"UTF-8\""), Some(Content::Json));
        assert_eq!(of("application/x-ndjson"), Some(Content::Ndjson));
        for bad in
            ["application/json; charset=latin1", "text/json", "application/jsonx", "", "application/cloudevents+json"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(Content::of(&HeaderMap::new(), &[Content::Json]).ok(), Some(Content::Json));
    }

    const KEY: fn(u8) -> Option<KeyId> = |n| Some(KeyId::from_bytes([n; 16]));

    /// A body of pieces that come one after the other, `gap` apart, and then never end if `open`.
    fn pieces(sizes: &[usize], gap: Duration, open: bool) -> Body {
        let pieces = futures_util::stream::iter(sizes.to_vec()).then(move |size| async move {
            tokio::time::sleep(gap).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; size]))
        });
        match open {
            true => Body::from_stream(pieces.chain(futures_util::stream::pending())),
            false => Body::from_stream(pieces),
        }
    }

    fn announcing(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(length))])
    }

    /// The status of the problem it ended with.
    async fn refused(reading: impl Future<Output = Result<(Bytes, Room), Problem>>) -> u16 {
        reading.await.err().map_or(0, |problem| problem.into_response().status().as_u16())
    }

    #[tokio::test(start_paused = true)]
    async fn p5_what_is_announced_takes_no_room() {
        let allowance = Allowance::of(256, 0);
        let limit = 64 << 10;
        let headers = announcing(limit);
        let mut idle: Vec<_> = (0..100)
            .map(|n| Box::pin(read(&allowance, KEY(n), &headers, pieces(&[1], Duration::ZERO, true), limit)))
            .collect();
        for reading in &mut idle {
            assert!(futures_util::poll!(reading).is_pending());
        }
        let whole = read(&allowance, KEY(200), &headers, pieces(&[limit], Duration::ZERO, false), limit).await;
        assert_eq!(whole.unwrap().0.len(), limit);
        assert_eq!(refused(idle.remove(0)).await, 408);
    }

    #[tokio::test(start_paused = true)]
    async fn p5_one_key_takes_a_quarter_at_most() {
        let allowance = Allowance::of(64, 0);
        let body = |kib: usize| pieces(&[kib << 10], Duration::ZERO, false);
        let none = HeaderMap::new();
        let (_, held) = read(&allowance, KEY(1), &none, body(16), 1 << 20).await.unwrap();
        assert_eq!(refused(read(&allowance, KEY(1), &none, body(1), 1 << 20)).await, 429);
        let (_, other) = read(&allowance, KEY(2), &none, body(16), 1 << 20).await.unwrap();
        drop(held);
        assert!(read(&allowance, KEY(1), &none, body(16), 1 << 20).await.is_ok());
        drop(other);
        // Nothing is kept of keys that hold nothing.
        assert!(allowance.shares.lock().unwrap().is_empty());
        assert_eq!(allowance.all.room.available_permits(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn p10_room_is_never_less_than_what_came() {
        let allowance = Allowance::of(4_096, 0);
        let sizes = [1, 1_500, 70_000, 3, 200_000, 100_000];
        let total = sizes.iter().sum();
        for headers in [announcing(total), HeaderMap::new()] {
            let (bytes, room) =
                read(&allowance, None, &headers, pieces(&sizes, Duration::ZERO, false), 1 << 20).await.unwrap();
            assert_eq!(bytes.len(), total);
            assert!((total..2 * total + 1_024).contains(&room.bytes()), "{}", room.bytes());
            assert_eq!(allowance.all.room.available_permits(), 4_096 - room.kib);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p10_bodies_that_share_too_little_room_do_not_wait_for_each_other() {
        let allowance = Allowance::of(64, 16);
        let gap = Duration::from_millis(1);
        let none = HeaderMap::new();
        let one = async |key| {
            let body = pieces(&[1 << 10; 16], gap, false);
            read(&allowance, KEY(key), &none, body, 16 << 10).await.map(|(bytes, _room)| bytes.len())
        };
        let all = futures_util::future::join_all((0..16).map(|n| one(n % 4))).await;
        assert!(all.iter().all(|read| matches!(read, Ok(16_384))), "{all:?}");
        assert_eq!(allowance.all.room.available_permits(), 48);
        assert_eq!(allowance.all.kept.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_must_go_on_coming() {
        let allowance = Allowance::of(4_096, 0);
        let headers = HeaderMap::new();
        let second = Duration::from_secs(1);
        let started = Instant::now();
        let stalled = read(&allowance, None, &headers, pieces(&[10, 10], Duration::ZERO, true), 1 << 20);
        assert_eq!(refused(stalled).await, 408);
        assert_eq!(started.elapsed().as_secs(), STALL.as_secs());
        // A trickle never stalls, and is too slow all the same.
        let started = Instant::now();
        let trickle = read(&allowance, None, &headers, pieces(&[10; 100], 4 * second, false), 1 << 20);
        assert_eq!(refused(trickle).await, 408);
        assert_eq!(started.elapsed().as_secs(), BODY_GRACE.as_secs());
        // Slow, but fast enough.
        let slow = read(&allowance, None, &headers, pieces(&[70_000; 10], 4 * second, false), 1 << 20);
        assert_eq!(slow.await.unwrap().0.len(), 700_000);
    }
}
