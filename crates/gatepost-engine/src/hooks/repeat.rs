//! Invocations under an idempotency key: the twin of one under way waits for the same decision; the
//! twin of one decided in the last minute gets it again. In memory, and bounded: it exists for callers
//! that ask again after a timeout of their own. An answer with something secret in it is kept encrypted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use gatepost_core::InvocationId;
use gatepost_core::hashing::HashKey;
use gatepost_core::hooks::decision::Decision;
use gatepost_core::hooks::invocation::Form;
use gatepost_core::hooks::json::held_by;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ask::{Answer, Ask, AskTarget};

/// How long a decision is known (SETTLED).
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// Decisions known at once.
const KNOWN_MAX: usize = 16_384;

/// Whose key, for what.
pub(super) type Scope = [u8; 16];

/// An invocation under way. When the last who waits for it lets go, it is dropped.
pub(super) struct Flight {
    id: InvocationId,
    answer: watch::Receiver<Option<Answer>>,
    gone: CancellationToken,
    _guard: DropGuard,
}

impl Flight {
    /// The invocation's.
    pub(super) fn id(&self) -> InvocationId {
        self.id
    }

    /// Where the answer arrives.
    pub(super) fn answer(&self) -> watch::Receiver<Option<Answer>> {
        self.answer.clone()
    }

    /// Says that nobody waits any more.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }
}

/// What an invocation under a key is.
pub(super) enum Begun {
    /// The first: run it.
    New(Start),
    /// Its twin is under way.
    Twin(Arc<Flight>),
    /// Decided before.
    Known(Scope, Kept),
    /// The key was used with another body.
    OtherBody,
}

/// A decision that is kept to be told again.
#[derive(Clone)]
pub(super) enum Kept {
    /// What it says is what is answered, with the question's own secret members.
    Plain(Arc<Decision>),
    /// The answers, one a form, encrypted: a receiver changed a secret member, or repeated a secret.
    Sealed([Arc<[u8]>; Form::ALL.len()]),
}

impl Kept {
    /// Bytes it holds, about.
    fn weight(&self) -> usize {
        match self {
            Kept::Plain(decision) => 1_024 + 2 * held_by(&decision.object),
            Kept::Sealed(answers) => 1_024 + answers.iter().map(|answer| answer.len()).sum::<usize>(),
        }
    }
}

/// What the sealed answers under a key belong to.
pub(super) fn context(scope: &Scope, form: Form) -> [u8; 32] {
    let mut context = *b"answer under a key              ";
    context[15..31].copy_from_slice(scope);
    context[31] = form as u8;
    context
}

/// An invocation to be run.
pub(super) struct Start {
    /// Whoever waits for it holds this.
    pub(super) flight: Arc<Flight>,
    /// Where its answer goes.
    pub(super) sender: watch::Sender<Option<Answer>>,
    /// Under which key.
    pub(super) scope: Option<Scope>,
}

struct Entry {
    /// Whose it is: its decision may come when the key is another invocation's already.
    id: InvocationId,
    body: [u8; 16],
    flight: Weak<Flight>,
    decided: Option<(Kept, Instant)>,
    weight: usize,
}

#[derive(Default)]
struct Known {
    entries: HashMap<Scope, Entry>,
    order: VecDeque<Scope>,
    bytes: usize,
}

/// See the module.
pub(super) struct Repeats {
    known: Mutex<Known>,
    /// Bytes of decisions kept, about.
    bytes_max: usize,
}

impl Repeats {
    /// Nothing known yet, and never much more than `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        Repeats { known: Mutex::default(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An invocation without a key.
    pub(super) fn alone(&self, id: InvocationId) -> Start {
        let (sender, answer) = watch::channel(None);
        let gone = CancellationToken::new();
        let flight = Flight { id, answer, _guard: gone.clone().drop_guard(), gone };
        Start { flight: Arc::new(flight), sender, scope: None }
    }

    /// An invocation of `name` under `key`.
    pub(super) fn begin(&self, hash_key: &HashKey, name: &str, key: &str, ask: &Ask, id: InvocationId) -> Begun {
        let kind: &[u8] = match ask.target {
            AskTarget::Point(_) => b"point",
            AskTarget::Operation(_) => b"operation",
        };
        let parts = [ask.tenant.as_str().as_bytes(), kind, name.as_bytes(), key.as_bytes()];
        let scope = hash_key.hash(&parts.map(Some));
        let body = hash_key.hash(&[Some(&ask.body)]);
        let mut known = self.lock();
        known.expire(Instant::now(), self.bytes_max);
        if let Some(entry) = known.entries.get(&scope) {
            let there = entry.flight.upgrade();
            if entry.body != body && (there.is_some() || entry.decided.is_some()) {
                return Begun::OtherBody;
            }
            if let Some((decision, _)) = &entry.decided {
                return Begun::Known(scope, decision.clone());
            }
            if let Some(flight) = there {
                return Begun::Twin(flight);
            }
        }
        let start = Start { scope: Some(scope), ..self.alone(id) };
        let entry = Entry { id, body, flight: Arc::downgrade(&start.flight), decided: None, weight: 0 };
        if known.entries.insert(scope, entry).is_none() {
            known.order.push_back(scope);
        }
        Begun::New(start)
    }

    /// The decision on the invocation `id` was made under a key: it is known from now on, unless everybody
    /// who waited for it let go and the key was used again meanwhile.
    pub(super) fn finished(&self, scope: Scope, id: InvocationId, decided: Kept) {
        let weight = decided.weight();
        let mut known = self.lock();
        let Some(entry) = known.entries.get_mut(&scope).filter(|entry| entry.id == id) else { return };
        entry.decided = Some((decided, Instant::now()));
        entry.weight = weight;
        known.bytes += weight;
    }
}

impl Known {
    /// Forgets what is old, and the oldest when there is too much.
    fn expire(&mut self, now: Instant, bytes_max: usize) {
        while let Some(scope) = self.order.front().copied() {
            let crowded = self.entries.len() >= KNOWN_MAX || self.bytes >= bytes_max;
            let over = match self.entries.get(&scope) {
                None => true,
                Some(entry) => match &entry.decided {
                    Some((_, at)) => now.duration_since(*at) >= KNOWN_FOR || crowded,
                    None => entry.flight.strong_count() == 0,
                },
            };
            if !over {
                return;
            }
            self.order.pop_front();
            if let Some(entry) = self.entries.remove(&scope) {
                self.bytes = self.bytes.saturating_sub(entry.weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gatepost_core::Timestamp;
    use gatepost_testkit::SeededEntropy;

    use super::*;

    #[test]
    fn a_decision_nobody_waited_for_is_not_told_to_who_used_the_key_for_something_else() {
        let (repeats, hash_key) = (Repeats::new(1 << 20), HashKey::new(&[7; 32]));
        let entropy = SeededEntropy::new(1);
        let ask = |body: &'static [u8]| Ask {
            tenant: "acme".parse().unwrap(),
            target: AskTarget::Point("p".to_owned()),
            body: bytes::Bytes::from_static(body),
            timeout: None,
            hop: None,
            accept: None,
            idempotency_key: Some("k".to_owned()),
            trace: None,
            caller: None,
        };
        let begin = |body| {
            let id = InvocationId::new(Timestamp::EPOCH, &entropy);
            (id, repeats.begin(&hash_key, "p", "k", &ask(body), id))
        };
        let decision = || Kept::Sealed(Form::ALL.map(|_| Arc::from(&b"x"[..])));
        let (first, Begun::New(start)) = begin(b"1") else { panic!("it is the first") };
        let scope = start.scope.unwrap();
        // Everybody let go of the first just as it was decided.
        drop(start);
        let (second, Begun::New(start)) = begin(b"2") else { panic!("nobody has the key") };
        repeats.finished(scope, first, decision());
        assert!(matches!(begin(b"2").1, Begun::Twin(_)), "the second is under way");
        assert_eq!(repeats.lock().bytes, 0);
        repeats.finished(scope, second, decision());
        assert!(matches!(begin(b"2").1, Begun::Known(..)));
        assert!(matches!(begin(b"1").1, Begun::OtherBody));
        drop(start);
    }
}
