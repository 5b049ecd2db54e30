//! One listener.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gatepost_core::tenant::Tenant;
use gatepost_core::{KeyId, Timestamp, WebhookId};
use tokio::sync::watch;

use super::ring::{Found, Ring, Signal};
use super::{Change, LISTENERS_MAX, LISTENERS_OF_TENANT, pump};
use crate::engine::Engine;
use crate::ops::Caller;

/// Changes handed over at once.
const CHUNK: usize = 64;
/// Digits of a position in an id: more than a server makes in its life.
const DIGITS: usize = 12;

/// Where in a stream: what `id:` lines have. Later ones of one stream are larger, as numbers and as
/// texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    epoch: i64,
    number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:0width$}", self.epoch, self.number, width = DIGITS)
    }
}

/// Not an id of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadPosition;

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let (epoch, number) =
            text.len().checked_sub(DIGITS).and_then(|at| text.split_at_checked(at)).ok_or(BadPosition)?;
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if !digits(epoch) || !digits(number) {
            return Err(BadPosition);
        }
        match (epoch.parse(), number.parse()) {
            (Ok(epoch), Ok(number)) => Ok(Position { epoch, number }),
            _ => Err(BadPosition),
        }
    }
}

/// A kind of change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamKind {
    /// Events accepted.
    Event,
    /// Deliveries made and changed.
    Delivery,
    /// Attempts made.
    Attempt,
}

impl StreamKind {
    /// Every kind.
    pub const ALL: [StreamKind; 3] = [StreamKind::Event, StreamKind::Delivery, StreamKind::Attempt];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamKind::Event => "event",
            StreamKind::Delivery => "delivery",
            StreamKind::Attempt => "attempt",
        }
    }
}

impl Change {
    /// Its kind.
    pub fn kind(&self) -> StreamKind {
        match self {
            Change::Event { .. } => StreamKind::Event,
            Change::Delivery(_) => StreamKind::Delivery,
            Change::Attempt(_) => StreamKind::Attempt,
        }
    }
}

/// What a listener wants to hear.
#[derive(Clone, Debug, Default)]
pub struct StreamFilter {
    /// These kinds; none: all.
    pub kinds: Vec<StreamKind>,
    /// What concerns this webhook: its deliveries and attempts.
    pub webhook: Option<WebhookId>,
}

impl StreamFilter {
    fn wants(&self, change: &Change) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.contains(&change.kind());
        let webhook = self.webhook.is_none_or(|wanted| match change {
            Change::Event { .. } => false,
            Change::Delivery(row) => row.webhook_id == wanted,
            Change::Attempt(attempt) => attempt.webhook_id == wanted,
        });
        kind && webhook
    }
}

/// What a listener hears.
#[derive(Clone, Debug)]
pub enum Streamed {
    /// A change.
    Change(Position, Arc<Change>),
    /// Changes before this were missed: read the lists anew.
    Reset(Position),
}

/// The right to listen.
struct Pass {
    /// The key that is listened with; `None`: the installation's admin key.
    key: Option<KeyId>,
    expires_at: Option<Timestamp>,
    /// How many keys had been taken away when this one was last looked for.
    seen: u64,
}

impl Pass {
    fn of(engine: &Engine, key: Option<KeyId>) -> Option<Self> {
        let keys = &engine.inner.keys;
        let seen = keys.forgotten();
        let expires_at = match key {
            Some(id) => keys.find(id)?.expires_at,
            None => None,
        };
        Some(Pass { key, expires_at, seen })
    }

    fn is_good(&mut self, engine: &Engine) -> bool {
        if self.expires_at.is_some_and(|at| at <= engine.now()) {
            return false;
        }
        let forgotten = engine.inner.keys.forgotten();
        let was_seen = std::mem::replace(&mut self.seen, forgotten) == forgotten;
        was_seen || self.key.is_none_or(|id| engine.inner.keys.find(id).is_some())
    }
}

/// One listener. Dropping it ends the listening.
pub struct Subscription {
    engine: Engine,
    ring: Arc<Ring>,
    signal: watch::Receiver<Signal>,
    filter: StreamFilter,
    pass: Pass,
    /// The next position to be read.
    from: u64,
    /// What was asked to go on from is not there.
    missed: bool,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.ring.listeners.fetch_sub(1, Ordering::SeqCst);
        self.engine.inner.streams.listeners.fetch_sub(1, Ordering::SeqCst);
        self.engine.inner.metrics.stream_ended();
    }
}

impl Engine {
    /// Listens to what happens to a tenant: from after `after` on, or from now on (`Some(Err)`: from an id
    /// that is none). `None`: too many listen already.
    pub fn subscribe(
        &self,
        tenant: &Tenant,
        caller: &Caller,
        filter: StreamFilter,
        after: Option<Result<Position, BadPosition>>,
    ) -> Option<Subscription> {
        let pass = Pass::of(self, caller.key)?;
        let streams = &self.inner.streams;
        let (ring, made) = streams.join(tenant.key, self.now());
        if made {
            let store = Arc::clone(&self.inner.store);
            tokio::spawn(pump(Arc::clone(streams), store, tenant.key, Arc::clone(&ring)));
        }
        let head = ring.head();
        let (from, missed) = match after {
            None => (head + 1, false),
            Some(Ok(position)) if position.epoch == ring.epoch && position.number <= head => {
                (position.number + 1, false)
            }
            Some(_) => (head + 1, true),
        };
        self.inner.metrics.stream_began();
        let signal = ring.watch();
        // From here on dropping it takes back what joining counted.
        let subscription = Subscription { engine: self.clone(), ring, signal, filter, pass, from, missed };
        let full = subscription.ring.listeners.load(Ordering::SeqCst) > LISTENERS_OF_TENANT
            || streams.listeners.load(Ordering::SeqCst) > LISTENERS_MAX;
        (!full).then_some(subscription)
    }
}

impl Subscription {
    /// What comes next, at least one thing; `None`: the stream is over (the server stops, the tenant is
    /// gone, the key is no longer good). Nothing is lost when waiting for it is given up.
    pub async fn next(&mut self) -> Option<Vec<Streamed>> {
        loop {
            // Seen before it is looked: what happens meanwhile is a new signal.
            let closed = self.signal.borrow_and_update().closed;
            if closed || !self.may_listen() {
                return None;
            }
            let heard = self.hear();
            if !heard.is_empty() {
                return Some(heard);
            }
            self.signal.changed().await.ok()?;
        }
    }

    /// Whether the key is still good.
    pub fn may_listen(&mut self) -> bool {
        self.pass.is_good(&self.engine)
    }

    fn hear(&mut self) -> Vec<Streamed> {
        if std::mem::take(&mut self.missed) {
            return vec![self.reset(self.from - 1)];
        }
        loop {
            match self.ring.read(self.from, CHUNK) {
                Found::Gap(head) => return vec![self.reset(head)],
                Found::Changes(changes) => {
                    let Some((last, _)) = changes.last() else { return Vec::new() };
                    self.from = last + 1;
                    let heard: Vec<Streamed> = changes
                        .into_iter()
                        .filter(|(_, change)| self.filter.wants(change))
                        .map(|(number, change)| Streamed::Change(self.position(number), change))
                        .collect();
                    if !heard.is_empty() {
                        return heard;
                    }
                }
            }
        }
    }

    fn reset(&mut self, head: u64) -> Streamed {
        self.from = head + 1;
        self.engine.inner.metrics.stream_reset();
        Streamed::Reset(self.position(head))
    }

    fn position(&self, number: u64) -> Position {
        Position { epoch: self.ring.epoch, number }
    }
}
