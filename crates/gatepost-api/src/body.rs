//! Reading bodies: of a known kind, of bounded size, in bounded time.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use gatepost_core::{KeyId, TenantId};
use gatepost_engine::ops::Caller;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::problem::{ErrorCode, Problem};

/// What part of the room for bodies one key may take: whoever holds a key cannot shut the others out (P5).
const SHARE: usize = 2;
/// What part of the room all those together may take who were not asked for a key yet, and at most.
const STRANGERS_SHARE: usize = 64;
const STRANGERS_KIB: usize = 1 << 10;
/// What a body that waits for room may hold already and has no room for: a connection's buffer.
const UNCOUNTED_KIB: usize = 64;
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
    /// Bodies that wait for room.
    waiting: AtomicUsize,
    /// Shares of those who hold some now.
    shares: Mutex<HashMap<Sender, Arc<Pool>>>,
}

/// Who sends a body: each has a share.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Sender {
    /// The installation's admin key.
    Admin,
    /// A key.
    Key(KeyId),
    /// A tenant's receiver, calling back.
    Receiver(TenantId),
    /// Nobody was asked for a key yet: the key is in the body. All of them have one share, the smallest.
    Stranger,
}

impl Sender {
    /// Whose requests these are.
    pub(crate) fn of(caller: &Caller) -> Self {
        match (caller.key, &caller.tenant) {
            (Some(key), _) => Sender::Key(key),
            (None, Some(tenant)) => Sender::Receiver(tenant.clone()),
            (None, None) => Sender::Admin,
        }
    }
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

    /// So much, if it is there.
    fn now(&self, kib: u32) -> Permit {
        Arc::clone(&self.room).try_acquire_many_owned(kib).ok()
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
    /// The server's, of so many bytes, for bodies of at most `largest`.
    pub(crate) fn new(bytes: usize, largest: usize) -> Arc<Self> {
        Allowance::of(bytes >> 10, largest.div_ceil(1 << 10))
    }

    fn of(kib: usize, largest_kib: usize) -> Arc<Self> {
        let kib = kib.max(at_least(largest_kib));
        let (all, waiting) = (Pool::new(kib, largest_kib), AtomicUsize::new(0));
        Arc::new(Allowance { all, kib, largest_kib, waiting, shares: Mutex::default() })
    }

    /// No room yet, for a body that `sender` sends.
    fn room(self: &Arc<Self>, sender: Sender) -> Room {
        let pool = || match sender {
            Sender::Stranger => Pool::new((self.kib / STRANGERS_SHARE).clamp(1, STRANGERS_KIB), 0),
            _ => Pool::new((self.kib / SHARE).max(at_least(self.largest_kib)), self.largest_kib),
        };
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = Arc::clone(shares.entry(sender.clone()).or_insert_with(|| Arc::new(pool())));
        let held = Held::default();
        Room { share, allowance: Arc::clone(self), sender, kib: 0, held, whole: [false; 2] }
    }
}

/// Room in which the largest body leaves a little for others.
fn at_least(largest_kib: usize) -> usize {
    largest_kib + largest_kib / 4
}

/// One of those who wait for room.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// `None`: so many wait that what they hold already is too much.
    fn new(allowance: &'a Allowance) -> Option<Self> {
        let most = allowance.kib / UNCOUNTED_KIB;
        let before = allowance.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&allowance.waiting);
        (before < most.max(1)).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one body takes of the [`Allowance`], given back when it is dropped.
pub(crate) struct Room {
    allowance: Arc<Allowance>,
    sender: Sender,
    share: Arc<Pool>,
    kib: usize,
    held: Held,
    /// Whether it has what the share, and the whole, keep back for one body.
    whole: [bool; 2],
}

/// What a [`Room`] has of its share, of the whole, and of what they keep back.
#[derive(Default)]
struct Held {
    share: Permit,
    all: Permit,
    kept: [Permit; 2],
}

/// Adds a permit to one of the same semaphore.
fn add(held: &mut Permit, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

impl Room {
    /// Bytes there is room for.
    fn bytes(&self) -> usize {
        self.kib << 10
    }

    fn give_back(&mut self) {
        self.held = Held::default();
        self.kib = 0;
        self.whole = [false; 2];
    }

    /// Takes as much more as `bytes` need.
    async fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.div_ceil(1 << 10).saturating_sub(self.kib);
        let Ok(permits) = u32::try_from(more) else { return Err(full(self.allowance.kib)) };
        if permits == 0 {
            return Ok(());
        }
        if !self.take_now(permits) {
            // What the others keep back for one another is not for strangers.
            if self.sender == Sender::Stranger {
                return Err(full(self.allowance.kib));
            }
            let allowance = Arc::clone(&self.allowance);
            let Some(_waiting) = Waiting::new(&allowance) else { return Err(full(allowance.kib)) };
            // Who gives up gives everything back: the request ends.
            match tokio::time::timeout(ROOM_WAIT, self.wait_for(permits)).await {
                Ok(Some(())) => {}
                _ => return Err(full(self.allowance.kib)),
            }
        }
        self.kib += more;
        Ok(())
    }

    /// Takes so much of the share and of the whole if both have it, which is nearly always.
    fn take_now(&mut self, permits: u32) -> bool {
        if self.whole != [false; 2] {
            return false;
        }
        let Some(share) = self.share.now(permits) else { return false };
        let Some(all) = self.allowance.all.now(permits) else { return false };
        add(&mut self.held.share, share);
        add(&mut self.held.all, all);
        true
    }

    /// Waits for so much. A key first waits for its own share, so that its requests do not stand in the
    /// line of all others.
    async fn wait_for(&mut self, permits: u32) -> Option<()> {
        let (share, all) = (&self.share, &self.allowance.all);
        let (held, whole) = (&mut self.held, &mut self.whole);
        if !whole[0] {
            tokio::select! {
                biased;
                permit = share.some(permits) => add(&mut held.share, permit?),
                permit = share.rest_of_one() => {
                    held.kept[0] = Some(permit?);
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
                permit = all.some(permits) => add(&mut held.all, permit?),
                rest = both => {
                    let (own, rest) = rest?;
                    held.kept = [held.kept[0].take().or(own), Some(rest)];
                    *whole = [true; 2];
                }
            }
        }
        Some(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back();
        let mut shares = self.allowance.shares.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and ours: no other body of this key is being read or used.
        if Arc::strong_count(&self.share) == 2 {
            shares.remove(&self.sender);
        }
    }
}

/// Reads a body of at most `limit` bytes that `sender` sends, as there is room for it.
pub(crate) async fn read(
    allowance: &Arc<Allowance>,
    sender: Sender,
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
    let mut room = allowance.room(sender);
    let bytes = collect(body, announced.unwrap_or(limit), limit, &mut room).await?;
    Ok((bytes, room))
}

/// The body, if nothing is in it; else `problem`, the refusal of its content type.
pub(crate) async fn empty_or(problem: Problem, headers: &HeaderMap, mut body: Body) -> Result<Body, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|length| length > 0) {
        return Err(problem);
    }
    let pace = Pace::new();
    while let Some(frame) = pace.keep(0, body.frame()).await? {
        let is_empty = frame.as_ref().is_ok_and(|frame| frame.data_ref().is_none_or(Bytes::is_empty));
        if !is_empty {
            return Err(problem);
        }
    }
    Ok(Body::empty())
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
        let mut next = std::pin::pin!(next);
        // What is there already, which mostly is all of it, is not waited for.
        if let Poll::Ready(there) = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
            return Ok(there);
        }
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
    let detail = format!("the body is over {limit} bytes (the server's setting max_body_bytes raises that)");
    Problem::new(ErrorCode::PayloadTooLarge, detail)
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

    const KEY: fn(u8) -> Sender = |n| Sender::Key(KeyId::from_bytes([n; 16]));

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
    async fn p5_one_key_takes_half_at_most() {
        let allowance = Allowance::of(64, 0);
        let body = |kib: usize| pieces(&[kib << 10], Duration::ZERO, false);
        let none = HeaderMap::new();
        let (_, held) = read(&allowance, KEY(1), &none, body(32), 1 << 20).await.unwrap();
        assert_eq!(refused(read(&allowance, KEY(1), &none, body(1), 1 << 20)).await, 429);
        let (_, other) = read(&allowance, KEY(2), &none, body(16), 1 << 20).await.unwrap();
        drop(held);
        assert!(read(&allowance, KEY(1), &none, body(32), 1 << 20).await.is_ok());
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
                read(&allowance, Sender::Admin, &headers, pieces(&sizes, Duration::ZERO, false), 1 << 20)
                    .await
                    .unwrap();
            assert_eq!(bytes.len(), total);
            assert!((total..2 * total + 1_024).contains(&room.bytes()), "{}", room.bytes());
            assert_eq!(allowance.all.room.available_permits(), 4_096 - room.kib);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p10_bodies_that_share_too_little_room_do_not_wait_for_each_other() {
        let allowance = Allowance::of(1_024, 256);
        let gap = Duration::from_millis(1);
        let none = HeaderMap::new();
        let one = async |key| {
            let body = pieces(&[16 << 10; 16], gap, false);
            read(&allowance, KEY(key), &none, body, 256 << 10).await.map(|(bytes, _room)| bytes.len())
        };
        let all = futures_util::future::join_all((0..16).map(|n| one(n % 4))).await;
        assert!(all.iter().all(|read| matches!(read, Ok(262_144))), "{all:?}");
        assert_eq!(allowance.all.room.available_permits(), 768);
        assert_eq!(allowance.all.kept.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_must_go_on_coming() {
        let allowance = Allowance::of(4_096, 0);
        let headers = HeaderMap::new();
        let second = Duration::from_secs(1);
        let started = Instant::now();
        let stalled = read(&allowance, Sender::Admin, &headers, pieces(&[10, 10], Duration::ZERO, true), 1 << 20);
        assert_eq!(refused(stalled).await, 408);
        assert_eq!(started.elapsed().as_secs(), STALL.as_secs());
        // A trickle never stalls, and is too slow all the same.
        let started = Instant::now();
        let trickle = read(&allowance, Sender::Admin, &headers, pieces(&[10; 100], 4 * second, false), 1 << 20);
        assert_eq!(refused(trickle).await, 408);
        assert_eq!(started.elapsed().as_secs(), BODY_GRACE.as_secs());
        // Slow, but fast enough.
        let slow = read(&allowance, Sender::Admin, &headers, pieces(&[70_000; 10], 4 * second, false), 1 << 20);
        assert_eq!(slow.await.unwrap().0.len(), 700_000);
    }

    #[tokio::test(start_paused = true)]
    async fn p5_who_was_not_asked_for_a_key_yet_takes_little_and_nothing_of_the_admins() {
        let allowance = Allowance::of(64 << 10, 1 << 10);
        let none = HeaderMap::new();
        let mut held = Vec::new();
        loop {
            let body = Body::from(vec![b'x'; 16 << 10]);
            match read(&allowance, Sender::Stranger, &none, body, 16 << 10).await {
                Ok((_, room)) => held.push(room),
                Err(problem) => break assert_eq!(problem.status(), 429),
            }
        }
        assert_eq!(held.len(), STRANGERS_KIB / 16, "a mebibyte for all of them");
        let body = Body::from(vec![b'x'; 1 << 20]);
        assert!(read(&allowance, Sender::Admin, &none, body, 1 << 20).await.is_ok());
        assert_ne!(Sender::Admin, Sender::Receiver("acme".parse().unwrap()));
    }
}
