//! What the outside world knows, kept while a history runs: requests as receivers saw them, outcomes
//! as the engine was told they are on disk, webhooks as their owners left them. Promises that can be
//! judged at the moment of a request are judged here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use gatepost_core::delivery::Outcome;
use gatepost_core::webhook::Ordering;
use gatepost_core::{DeliverySeq, Timestamp};
use gatepost_store::{Next, Settled, Settlement};

/// Which promise was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// P1: something accepted is not there, or not as it was given.
    Lost,
    /// P1: a call was taken in part.
    HalfAccepted,
    /// P2: a delivery never came to an end.
    NotDone,
    /// P2: an end that its attempts do not explain.
    WrongEnd,
    /// P2: a delivery was under way twice at once.
    DoubleClaim,
    /// P2: sent again although its end was on disk.
    LostSettle,
    /// P2: ids changed between attempts.
    WrongIds,
    /// P2: sent before it was due, or during a pause.
    TooEarly,
    /// P3: bytes changed between attempts, or are not what was published.
    WrongBytes,
    /// P6: not exactly the matching webhooks.
    WrongMatch,
    /// Sent to a webhook that takes nothing.
    SentToClosed,
    /// A delivery went before its turn in its queue.
    OutOfOrder,
    /// Something less urgent went first.
    Urgency,
    /// A tenant's turn did not come.
    Unfair,
    /// Nothing happens although something could.
    Idle,
    /// Awake in vain, again and again.
    Spin,
    /// P10: more in memory than allowed, or bookkeeping that does not add up.
    Unbounded,
    /// An own event is told not at all, twice, or of itself.
    WrongNews,
    /// An operation answered what it must not.
    WrongAnswer,
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// One request, as its receiver saw it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) hook: usize,
    pub(crate) delivery: DeliverySeq,
    pub(crate) delivery_id: String,
    pub(crate) event_id: String,
    pub(crate) webhook_id: String,
    pub(crate) attempt: u32,
    pub(crate) body: Bytes,
    /// When, as waits are measured.
    pub(crate) at: Timestamp,
    /// What the clock showed.
    pub(crate) shown: Timestamp,
}

/// What is known of one delivery.
#[derive(Clone, Default, Debug)]
pub(crate) struct Journal {
    pub(crate) requests: Vec<Request>,
    /// The engine's life in which a request is under way.
    under_way: Option<u32>,
    /// Why no request may come any more.
    over: Option<&'static str>,
    not_before: Timestamp,
    /// Answers the engine heard, by outcome.
    pub(crate) heard: Vec<Outcome>,
    /// A person reopened it, or may have.
    pub(crate) reopened: bool,
    /// A person cancelled it, or may have.
    pub(crate) cancelled: bool,
}

impl Journal {
    /// Whether the engine, or a person, was told that it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }
}

/// What is known of one webhook.
#[derive(Clone, Default, Debug)]
pub(crate) struct Owner {
    closed: bool,
    /// Never two requests at once.
    strict: bool,
    paused_until: Timestamp,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) violations: Vec<Violation>,
    pub(crate) deliveries: BTreeMap<DeliverySeq, Journal>,
    pub(crate) owners: BTreeMap<usize, Owner>,
    pub(crate) life: u32,
    /// Everything that happened, as a number: equal histories have equal numbers.
    pub(crate) trace: u64,
    pub(crate) requests: u64,
    pub(crate) aloud: bool,
    /// A receiver said 410: from now on webhooks may be disabled without their owners.
    pub(crate) gone: bool,
}

/// The ledger, shared by driver, receivers and store.
pub(crate) type Shared = Arc<Mutex<Ledger>>;

/// The ledger; a panic elsewhere does not close it.
pub(crate) fn open(ledger: &Shared) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(crate) fn violate(&mut self, kind: Kind, text: impl Into<String>) {
        // The first few say everything.
        if self.violations.len() < 20 {
            self.violations.push(Violation { kind, text: text.into() });
        }
    }

    /// Tells the story while it happens, for whoever runs one history alone.
    pub(crate) fn tell(&self, now: Timestamp, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{now} {}", what());
        }
    }

    pub(crate) fn note(&mut self, what: &[u8]) {
        for byte in what {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3).rotate_left(7);
        }
    }

    /// A request arrived.
    pub(crate) fn requested(&mut self, request: Request) {
        self.requests += 1;
        self.tell(request.at, || {
            format!("  request {} of {} to receiver {}", request.attempt, request.delivery_id, request.hook)
        });
        self.note(&request.at.as_micros().to_le_bytes());
        self.note(request.delivery_id.as_bytes());
        self.note(&request.attempt.to_le_bytes());
        let life = self.life;
        let owner = self.owners.entry(request.hook).or_default().clone();
        let mut wrong: Vec<(Kind, String)> = Vec::new();
        if owner.strict {
            let others = self.deliveries.iter().filter(|(seq, other)| {
                let there = other.requests.last().is_some_and(|last| last.hook == request.hook);
                **seq != request.delivery && there && other.under_way == Some(life)
            });
            wrong.extend(others.map(|(seq, _)| {
                (Kind::OutOfOrder, format!("{} was sent while {seq:?} was under way", request.delivery_id))
            }));
        }
        let journal = self.deliveries.entry(request.delivery).or_default();
        let name = format!("{} (request {})", request.delivery_id, journal.requests.len() + 1);
        if journal.under_way == Some(life) {
            wrong.push((Kind::DoubleClaim, format!("{name} was sent while a request was under way")));
        }
        if let Some(over) = journal.over {
            wrong.push((Kind::LostSettle, format!("{name} was sent although it was {over}")));
        }
        if request.at < journal.not_before {
            wrong.push((Kind::TooEarly, format!("{name} was sent before {}", journal.not_before)));
        }
        if request.at < owner.paused_until {
            wrong.push((Kind::TooEarly, format!("{name} was sent during a pause until {}", owner.paused_until)));
        }
        if owner.closed && !super::own::is_farewell(&request.body) {
            wrong.push((Kind::SentToClosed, format!("{name} went to receiver {}", request.hook)));
        }
        if let Some(first) = journal.requests.first() {
            if first.body != request.body {
                wrong.push((Kind::WrongBytes, format!("{name} differs from the first request's body")));
            }
            let same = first.event_id == request.event_id
                && first.delivery_id == request.delivery_id
                && first.webhook_id == request.webhook_id
                && first.hook == request.hook;
            if !same {
                wrong.push((Kind::WrongIds, format!("{name} has other ids than the first request")));
            }
        }
        // A batch goes by its own id.
        let expected = if request.event_id.is_empty() { &request.delivery_id } else { &request.event_id };
        if request.webhook_id != *expected {
            wrong.push((Kind::WrongIds, format!("{name} has the webhook-id {:?}", request.webhook_id)));
        }
        journal.under_way = Some(life);
        journal.requests.push(request);
        for (kind, text) in wrong {
            self.violate(kind, text);
        }
    }

    /// The engine hears what a request came to.
    pub(crate) fn answered(&mut self, delivery: DeliverySeq, outcome: Outcome, local_fault: bool) {
        let journal = self.deliveries.entry(delivery).or_default();
        journal.under_way = None;
        if !local_fault {
            journal.heard.push(outcome);
        }
        self.note(outcome.as_str().as_bytes());
    }

    /// The engine is told that these outcomes are on disk.
    pub(crate) fn settled(&mut self, settlements: &[Settlement], answers: &[Settled]) {
        for (settlement, answer) in settlements.iter().zip(answers) {
            self.note(&settlement.seq.0.to_le_bytes());
            self.tell(settlement.attempt.ended_at(), || {
                let (seq, next) = (settlement.seq, &settlement.next);
                format!("  settled {seq:?} of receiver: {:?} {next:?} {answer:?}", settlement.attempt.outcome)
            });
            let hook = self.deliveries.get(&settlement.seq).and_then(|journal| journal.requests.last()).map(|r| r.hook);
            if let (Some(until), Some(hook)) = (settlement.pause_until, hook) {
                let owner = self.owners.entry(hook).or_default();
                owner.paused_until = owner.paused_until.max(until);
            }
            if *answer == Settled::Superseded {
                continue;
            }
            let journal = self.deliveries.entry(settlement.seq).or_default();
            match &settlement.next {
                Next::Delivered => journal.over = Some("delivered, and that on disk"),
                Next::End(..) => journal.over = Some("at its end, and that on disk"),
                Next::Retry(at) => journal.not_before = *at,
            }
        }
    }

    /// A person reopened a delivery, or may have.
    pub(crate) fn reopened(&mut self, delivery: DeliverySeq) {
        let journal = self.deliveries.entry(delivery).or_default();
        journal.over = None;
        journal.not_before = Timestamp::EPOCH;
        journal.reopened = true;
    }

    /// A person cancelled a delivery; not `sure`: or may have.
    pub(crate) fn cancelled(&mut self, delivery: DeliverySeq, sure: bool) {
        let journal = self.deliveries.entry(delivery).or_default();
        journal.cancelled = true;
        if sure {
            journal.over = Some("cancelled");
        }
    }

    /// In what order a webhook wants its deliveries.
    pub(crate) fn ordered(&mut self, hook: usize, ordering: Ordering) {
        self.owners.entry(hook).or_default().strict = ordering == Ordering::Webhook;
    }

    /// Whether a webhook takes anything, as far as its owner was told.
    pub(crate) fn closed(&mut self, hook: usize, closed: bool) {
        self.owners.entry(hook).or_default().closed = closed;
    }
}
