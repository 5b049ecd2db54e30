//! A tenant's letter box, and the last of what was shown of it.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatepost_core::event::Event;
use gatepost_core::{DeliverySeq, EventSeq, Timestamp};
use tokio::sync::{Notify, watch};

use super::{Attempted, Change};

/// Facts that may wait for the pump.
const FACTS_MAX: usize = 8_192;
/// Changes kept.
const CHANGES_MAX: usize = 4_096;
/// What a change takes beside its data, about.
const CHANGE_BYTES: usize = 512;
/// The same of a fact.
const FACT_BYTES: usize = 256;
/// Data handed over at once, about.
const CHUNK_BYTES: usize = 64 << 10;

/// What happened, as small as it can be said.
#[derive(Debug)]
pub(super) enum Fact {
    /// An event was accepted, and its deliveries made.
    Accepted { event: Arc<Event>, deliveries: u32 },
    /// An attempt was recorded.
    Attempted { delivery: DeliverySeq, attempt: Box<Attempted> },
    /// A delivery was changed by hand.
    Changed { delivery: DeliverySeq },
}

impl Fact {
    /// The event whose deliveries were made.
    pub(super) fn made(&self) -> Option<EventSeq> {
        match self {
            Fact::Accepted { event, deliveries } if *deliveries > 0 => Some(event.seq),
            _ => None,
        }
    }

    /// The delivery that was changed.
    pub(super) fn touched(&self) -> Option<DeliverySeq> {
        match self {
            Fact::Accepted { .. } => None,
            Fact::Attempted { delivery, .. } | Fact::Changed { delivery } => Some(*delivery),
        }
    }

    /// How many deliveries it calls for.
    fn rows(&self) -> u32 {
        match self {
            Fact::Accepted { deliveries, .. } => *deliveries,
            Fact::Attempted { .. } | Fact::Changed { .. } => 1,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Fact::Accepted { event, .. } => FACT_BYTES + event_bytes(event),
            Fact::Attempted { attempt, .. } => FACT_BYTES + attempt.error.as_ref().map_or(0, String::len),
            Fact::Changed { .. } => FACT_BYTES,
        }
    }
}

fn event_bytes(event: &Event) -> usize {
    event.data.len() + event.attributes.as_ref().map_or(0, |attributes| attributes.len())
}

fn change_bytes(change: &Change) -> usize {
    match change {
        Change::Event { event, .. } => CHANGE_BYTES + event_bytes(event),
        Change::Delivery(_) | Change::Attempt(_) => CHANGE_BYTES,
    }
}

/// Facts taken out of the box.
pub(super) struct Taken {
    pub(super) facts: Vec<Fact>,
    /// There were more than the box holds, before these.
    pub(super) lost: bool,
}

#[derive(Default)]
struct Letters {
    facts: VecDeque<Fact>,
    bytes: usize,
    lost: bool,
}

/// The changes still kept. Positions count from 1 and never repeat.
struct Kept {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// The position of the first one kept; everything from it on is here.
    first: u64,
    /// The next position to give.
    next: u64,
}

/// What a listener finds at a position.
pub(crate) enum Found {
    /// Changes from there on, each with its position; empty: none yet.
    Changes(Vec<(u64, Arc<Change>)>),
    /// Something from there on is not kept any more (or not yet): this is the last position so far.
    Gap(u64),
}

/// What listeners wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Signal {
    /// Grows with everything there is to look at.
    turn: u64,
    /// The stream is over.
    pub(crate) closed: bool,
}

/// See the module.
pub(crate) struct Ring {
    /// What ids of this ring begin with: a ring made anew, or by another process, has another.
    pub(crate) epoch: i64,
    pub(super) listeners: AtomicUsize,
    letters: Mutex<Letters>,
    arrived: Notify,
    kept: Mutex<Kept>,
    signal: watch::Sender<Signal>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ring {
    pub(super) fn new(now: Timestamp) -> Self {
        Ring {
            epoch: now.as_micros(),
            listeners: AtomicUsize::new(0),
            letters: Mutex::default(),
            arrived: Notify::new(),
            kept: Mutex::new(Kept { changes: VecDeque::new(), bytes: 0, first: 1, next: 1 }),
            signal: watch::channel(Signal::default()).0,
        }
    }

    /// Never waits for anybody. What waits already may hold `bytes_max`.
    pub(super) fn drop_in(&self, fact: Fact, bytes_max: usize) {
        let mut letters = lock(&self.letters);
        let bytes = fact.bytes();
        if letters.facts.len() >= FACTS_MAX || letters.bytes + bytes > bytes_max {
            // Who cannot keep up with everything is better told so than given a part of it.
            *letters = Letters { lost: true, ..Letters::default() };
        }
        letters.bytes += bytes;
        letters.facts.push_back(fact);
        drop(letters);
        self.arrived.notify_one();
    }

    /// Waits until there is a fact.
    pub(super) async fn wait_for_facts(&self) {
        while lock(&self.letters).facts.is_empty() && !self.is_closed() {
            self.arrived.notified().await;
        }
    }

    /// At most `max` facts (at least one) that call for about `rows` deliveries.
    pub(super) fn take(&self, max: usize, rows: u32) -> Taken {
        let mut letters = lock(&self.letters);
        let lost = mem::take(&mut letters.lost);
        let mut sum = 0_u32;
        let fits = |fact: &&Fact| {
            let before = sum;
            sum = sum.saturating_add(fact.rows());
            before < rows
        };
        let count = letters.facts.iter().take(max).take_while(fits).count();
        let facts: Vec<Fact> = letters.facts.drain(..count).collect();
        letters.bytes -= facts.iter().map(Fact::bytes).sum::<usize>();
        Taken { facts, lost }
    }

    /// Adds changes and lets go of the oldest, until what is kept is within bounds (one may be larger).
    pub(super) fn append(&self, changes: Vec<Change>, bytes_max: usize) {
        if changes.is_empty() {
            return;
        }
        let mut kept = lock(&self.kept);
        for change in changes {
            kept.bytes += change_bytes(&change);
            kept.changes.push_back(Arc::new(change));
            kept.next += 1;
        }
        while kept.changes.len() > CHANGES_MAX || (kept.bytes > bytes_max && kept.changes.len() > 1) {
            let Some(gone) = kept.changes.pop_front() else { break };
            kept.bytes -= change_bytes(&gone);
            kept.first += 1;
        }
        drop(kept);
        self.look_again();
    }

    /// Something was lost: everybody begins anew from here.
    pub(super) fn reset(&self) {
        let mut kept = lock(&self.kept);
        kept.changes.clear();
        kept.bytes = 0;
        // A position that nobody was given: whoever waits for it finds that it is missing.
        kept.next += 1;
        kept.first = kept.next;
        drop(kept);
        self.look_again();
    }

    /// Lets go of everything, whether it was shown or not.
    pub(super) fn forget_all(&self) {
        *lock(&self.letters) = Letters { lost: true, ..Letters::default() };
        self.reset();
    }

    /// The last position given.
    pub(super) fn head(&self) -> u64 {
        lock(&self.kept).next - 1
    }

    /// Bytes of the changes kept.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.kept).bytes
    }

    /// What there is from position `from` on: at most `max` changes, and not many more bytes than are
    /// handed over at once.
    pub(super) fn read(&self, from: u64, max: usize) -> Found {
        let kept = lock(&self.kept);
        if from < kept.first || from > kept.next {
            return Found::Gap(kept.next - 1);
        }
        let skip = usize::try_from(from - kept.first).unwrap_or(usize::MAX);
        let mut sum = 0;
        let fits = |change: &&Arc<Change>| {
            let before = sum;
            sum += change_bytes(change);
            before < CHUNK_BYTES
        };
        let changes = kept.changes.iter().skip(skip).take(max).take_while(fits).cloned();
        Found::Changes((from..).zip(changes).collect())
    }

    pub(super) fn watch(&self) -> watch::Receiver<Signal> {
        self.signal.subscribe()
    }

    pub(super) fn look_again(&self) {
        self.signal.send_modify(|signal| signal.turn += 1);
    }

    pub(super) fn close(&self) {
        self.signal.send_modify(|signal| signal.closed = true);
        self.arrived.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.signal.borrow().closed
    }
}
