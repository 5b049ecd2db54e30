//! Invocations as callers make them: read, admitted, decided on the lane, answered.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gatepost_core::hooks::budget::{BadHeader, Budget, read_hop, read_timeout};
use gatepost_core::hooks::chain::{Chain, Setup, Stage};
use gatepost_core::hooks::decision::{Cause, Decision};
use gatepost_core::hooks::invocation::{self, BadInvocation, Form, Invocation, Target};
use gatepost_core::hooks::json::Pointer;
use gatepost_core::hooks::points::{self, Audit, Operation, PointDef, PointKind};
use gatepost_core::hooks::secrets::Lifted;
use gatepost_core::tenant::HookSwitch;
use gatepost_core::trace::TraceContext;
use gatepost_core::{InvocationId, KeyId, TenantId};
use gatepost_store::StoreError;
use gatepost_store::hooks::NewInvocation;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::drive::{Drive, Ended, GRACE};
use super::record::{Asking, Question, Seen};
use super::repeat::{self, Begun, Flight, Kept, Scope, Start};
use super::snapshot::{PointEntry, TenantHooks};
use crate::engine::Engine;
use crate::error::{FieldError, Kind};

/// How long beyond its budget an answer is waited for before the lane is taken to be stuck.
const STUCK_AFTER: Duration = Duration::from_millis(500);

/// How long the store may take to say what hooks a tenant has, where that is not in memory yet.
const LOOK_UP: Duration = Duration::from_secs(1);

/// What is invoked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AskTarget {
    /// A point, by name.
    Point(String),
    /// An operation, by name.
    Operation(String),
}

/// An invocation as it came.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whose.
    pub tenant: TenantId,
    /// What.
    pub target: AskTarget,
    /// The body, in any form that [`invocation::read`] takes.
    pub body: Bytes,
    /// `gatepost-timeout-ms`.
    pub timeout: Option<String>,
    /// `gatepost-hop`.
    pub hop: Option<String>,
    /// `accept`.
    pub accept: Option<String>,
    /// `idempotency-key`.
    pub idempotency_key: Option<String>,
    /// The caller's trace.
    pub trace: Option<TraceContext>,
    /// The caller's key; `None`: the admin key.
    pub caller: Option<KeyId>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Told {
    /// The decision, in the form asked for.
    pub body: Bytes,
    /// Which form that is.
    pub form: Form,
}

/// Why there is no decision, or none that was asked for.
#[derive(Debug)]
pub enum AskError {
    /// There is no such tenant, point or operation.
    NotFound(Kind),
    /// The body is not JSON, or has a member twice.
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// The body is JSON, but no invocation: everything that is wrong.
    Invalid(Vec<FieldError>),
    /// A header makes no sense, or the invocation goes round in a circle.
    Header(BadHeader),
    /// Too many are under way.
    Saturated,
    /// The idempotency key was used with another body.
    KeyReused,
    /// Gatepost itself cannot ask, or cannot write down what was decided where it must (`strict`).
    Unable {
        /// The decision, if one was made; else what the point's static policy and the question's
        /// default say. `None`: nothing is known about the point. Its cause is `gatepost`.
        decision: Option<Box<Decision>>,
        /// Why.
        reason: StoreError,
    },
}

/// A decision, and the secrets that belong into its answer.
pub(super) struct Answered {
    pub(super) decision: Arc<Decision>,
    pub(super) secrets: Lifted,
    /// As it is answered in our form, where that was costly to make.
    native: Option<Bytes>,
}

impl Answered {
    fn render(&self, form: Form) -> Bytes {
        match (form, &self.native) {
            (Form::Native, Some(native)) => native.clone(),
            _ => self.decision.render(form, &self.secrets),
        }
    }
}

/// Why an invocation has no answer.
#[derive(Clone)]
pub(super) enum Unanswered {
    /// Nobody was asked: too many wait.
    Saturated,
    /// It could not be written down, or the lane is gone; and the decision that was made all the same.
    Unable { reason: StoreError, decided: Option<Arc<Decision>> },
}

/// What an invocation comes to, for everybody who waits for it.
pub(super) type Answer = Result<Arc<Answered>, Unanswered>;

/// The points to be asked, of a snapshot.
enum Resolved<'s> {
    Point(&'s PointEntry),
    Operation(&'static Operation, Vec<&'s PointEntry>),
}

impl<'s> Resolved<'s> {
    fn of(target: &AskTarget, snapshot: &'s TenantHooks) -> Result<Self, AskError> {
        match target {
            AskTarget::Point(name) => {
                let entry = snapshot.points.get(name).ok_or(AskError::NotFound(Kind::Point))?;
                entry.def.takes_hooks().map_err(|why| AskError::Invalid(vec![FieldError::new("{point}", why)]))?;
                Ok(Resolved::Point(entry))
            }
            AskTarget::Operation(name) => {
                let operation = points::operation(name).ok_or(AskError::NotFound(Kind::Operation))?;
                let phases = operation.phases.iter().filter_map(|phase| snapshot.points.get(phase)).collect();
                Ok(Resolved::Operation(operation, phases))
            }
        }
    }

    fn entries(&self) -> &[&'s PointEntry] {
        match self {
            Resolved::Point(entry) => std::slice::from_ref(entry),
            Resolved::Operation(_, phases) => phases,
        }
    }

    fn target(&self) -> Target<'s> {
        match self {
            Resolved::Point(entry) => Target::Point(&entry.def),
            Resolved::Operation(operation, _) => Target::Operation(operation),
        }
    }

    fn name(&self) -> &'s str {
        match self {
            Resolved::Point(entry) => &entry.def.name,
            Resolved::Operation(operation, _) => &operation.name,
        }
    }

    /// The longest the invocation may take: an operation takes as long as its slowest point.
    fn max_total(&self) -> Duration {
        let of = |entry: &&PointEntry| {
            entry.settings.max_total_ms.map_or(entry.def.max_total(), |ms| Duration::from_millis(u64::from(ms)))
        };
        self.entries().iter().map(of).max().unwrap_or_default()
    }

    /// The point whose static policy stands when Gatepost itself cannot ask: the last that refuses.
    fn fallback(&self) -> Option<&'s PointDef> {
        let mut points = self.entries().iter().map(|entry| &*entry.def);
        points.clone().rfind(|point| point.kind == PointKind::Validate).or(points.next_back())
    }

    fn strict(&self) -> bool {
        self.entries().iter().any(|entry| entry.settings.audit == Audit::Strict)
    }

    fn stages(&self) -> Vec<Stage> {
        let stage = |entry: &&PointEntry| Stage {
            point: Arc::clone(&entry.def),
            hooks: entry.hooks.clone(),
            enabled: entry.settings.enabled,
        };
        self.entries().iter().map(stage).collect()
    }
}

/// What an invocation holds beside its question: tasks, routes, requests, an ordinary answer.
const HELD: usize = 4 << 10;

impl Engine {
    /// Asks the tenant's hooks, and answers within the budget whatever receivers do (P9). Dropping
    /// the future drops the question, unless a twin under the same idempotency key waits too.
    ///
    /// # Errors
    /// The caller's mistakes, too many invocations at once, or no decision of ours.
    pub async fn ask(&self, ask: Ask) -> Result<Told, AskError> {
        let began = Instant::now();
        let form = Form::of_accept(ask.accept.as_deref());
        // In memory, but for the first question of a tenant without hooks.
        let looking = tokio::time::timeout(LOOK_UP, self.tenant_hooks(&ask.tenant)).await;
        let late = || Err(StoreError::Unavailable("the tenant's hooks could not be read in time".to_owned()));
        let snapshot = match looking.unwrap_or_else(|_| late()) {
            Ok(found) => found.ok_or(AskError::NotFound(Kind::Tenant))?,
            Err(reason) => return Err(unable(&ask, reason)),
        };
        let resolved = Resolved::of(&ask.target, &snapshot)?;
        let hop = read_hop(ask.hop.as_deref()).map_err(AskError::Header)?;
        let wish = ask.timeout.as_deref().map(read_timeout).transpose().map_err(AskError::Header)?;
        let invocation = invocation::read(&ask.body, resolved.target()).map_err(bad_invocation)?;
        let budget = Budget::new(wish, resolved.max_total());
        let own_secrets = invocation.secrets.object.clone();
        let (repeats, id) = (&self.inner.hooks.repeats, InvocationId::new(self.now(), &self.inner.entropy));
        let begun = match &ask.idempotency_key {
            None => Begun::New(repeats.alone(id)),
            Some(key) => repeats.begin(&self.inner.fingerprint_key, resolved.name(), key, &ask, id),
        };
        // Whoever asks again waits as long as it said, however long the first may take.
        let mut until = began + budget.deadline() + GRACE;
        let flight = match begun {
            Begun::OtherBody => return Err(AskError::KeyReused),
            Begun::Known(scope, kept) => return self.tell_again(&scope, &kept, form, &own_secrets),
            Begun::Twin(flight) => flight,
            Begun::New(Start { flight, sender, scope }) => {
                let held = held_by(&ask, &invocation);
                let admission = self.admit(&snapshot, held).ok_or(AskError::Saturated)?;
                let asking = Asking { question: Question::of(&ask, &invocation), resolved: resolved.name().to_owned() };
                let launch = Launch { asking, hop, budget, began, admission, sender, scope, gone: flight.gone() };
                self.launch(&snapshot, &resolved, invocation, &ask, launch, id);
                until = began + budget.total() + STUCK_AFTER;
                flight
            }
        };
        let id = flight.id();
        let Some(answer) = wait(flight, until).await else {
            let decision = self.unheard(&snapshot, &resolved, &ask, budget, id).ok_or_else(|| no_lane(&ask))?;
            return Ok(Told { body: decision.render(form, &own_secrets), form });
        };
        match answer {
            Ok(answered) => Ok(Told { body: answered.render(form), form }),
            Err(Unanswered::Saturated) => Err(AskError::Saturated),
            Err(Unanswered::Unable { reason, decided: Some(decision) }) => {
                // A decision that was made is not turned into another.
                let mut told = Box::new(Decision::clone(&decision));
                told.cause = Cause::Gatepost;
                Err(AskError::Unable { decision: Some(told), reason })
            }
            Err(Unanswered::Unable { reason, decided: None }) => {
                let decision = static_decision(resolved.fallback(), resolved.target(), resolved.name(), &ask.body);
                Err(AskError::Unable { decision, reason })
            }
        }
    }

    /// A decision made before, as it was told then.
    fn tell_again(&self, scope: &Scope, kept: &Kept, form: Form, own_secrets: &Lifted) -> Result<Told, AskError> {
        let body = match kept {
            Kept::Plain(decision) => decision.render(form, own_secrets),
            Kept::Sealed(answers) => {
                // It was sealed here, under the same key.
                let opened = self.inner.vault.open_bytes(&repeat::context(scope, form), &answers[form as usize]);
                Bytes::from_owner(opened.unwrap_or_default())
            }
        };
        Ok(Told { body, form })
    }

    /// What is kept of an answer to tell it again; `None`: it cannot be kept.
    fn to_keep(&self, scope: &Scope, drive: &Drive, decision: &Arc<Decision>, repeats_secret: bool) -> Option<Kept> {
        let chain = drive.chain();
        let secrets = chain.secrets();
        if !repeats_secret && *secrets == chain.invocation().secrets.object {
            return Some(Kept::Plain(Arc::clone(decision)));
        }
        let sealed = |form| {
            let body = decision.render(form, secrets);
            let sealed = self.inner.vault.seal_bytes(&repeat::context(scope, form), &body);
            sealed.ok().map(Arc::<[u8]>::from)
        };
        let [one, other] = Form::ALL.map(sealed);
        Some(Kept::Sealed([one?, other?]))
    }

    /// What the hooks' own policies come to when the time is up and nobody was heard: a twin's, whose first
    /// has more time, or, should the lane be gone, anybody's.
    fn unheard(
        &self,
        snapshot: &Arc<TenantHooks>,
        resolved: &Resolved<'_>,
        ask: &Ask,
        budget: Budget,
        id: InvocationId,
    ) -> Option<Arc<Decision>> {
        // The question is read again, as it went with the chain: this is the rare way out.
        let invocation = invocation::read(&ask.body, resolved.target()).ok()?;
        let mut chain = Chain::new(self.setup(snapshot, resolved, ask, budget, 0, id), invocation);
        let decision = Arc::new(chain.finish(budget.total()));
        self.count_decision(&decision);
        Some(decision)
    }

    fn setup(
        &self,
        snapshot: &TenantHooks,
        resolved: &Resolved<'_>,
        ask: &Ask,
        budget: Budget,
        hop: u32,
        id: InvocationId,
    ) -> Setup {
        Setup {
            id,
            tenant: ask.tenant.clone(),
            time: self.now(),
            name: resolved.name().to_owned(),
            stages: resolved.stages(),
            budget,
            bypass: self.inner.hooks.bypass.load(Ordering::Acquire)
                || snapshot.tenant.settings.hooks == HookSwitch::Bypass,
            issuer: Arc::clone(&self.inner.public_url),
            hop,
        }
    }

    fn launch(
        &self,
        snapshot: &Arc<TenantHooks>,
        resolved: &Resolved<'_>,
        invocation: Invocation,
        ask: &Ask,
        launch: Launch,
        id: InvocationId,
    ) {
        let setup = self.setup(snapshot, resolved, ask, launch.budget, launch.hop, id);
        let now = setup.time;
        let drive = Drive {
            snapshot: Arc::clone(snapshot),
            chain: Arc::new(Mutex::new(Chain::new(setup, invocation))),
            budget: launch.budget,
            began: launch.began,
            trace: ask.trace,
            gone: launch.gone.clone(),
        };
        let strict = resolved.strict();
        let capture = resolved.entries().iter().map(|entry| entry.settings.capture).max_by_key(|c| *c as u8);
        let operation = matches!(resolved, Resolved::Operation(..));
        let engine = self.clone();
        let capture = capture.unwrap_or_default();
        let redact = resolved.entries().iter().flat_map(|entry| entry.settings.redact.iter().cloned()).collect();
        let record = Noting { id, at: now, strict, capture, redact, operation, hop: launch.hop };
        self.inner.hooks.on_lane(async move { engine.run(drive, launch, record).await });
    }

    /// The invocation on the lane, to its record.
    async fn run(&self, drive: Drive, launch: Launch, noting: Noting) {
        let Launch { asking, sender, mut admission, scope, .. } = launch;
        let seen = match self.drive(&drive, &mut admission).await {
            Ended::Decided(seen) => seen,
            Ended::Saturated => {
                // Nobody listens when the caller has gone.
                let _ = sender.send(Some(Err(Unanswered::Saturated)));
                return;
            }
        };
        let (drive, abandoned) = (Arc::new(drive), seen.abandoned);
        let (engine, driven) = (self.clone(), Arc::clone(&drive));
        let noted = noting.clone();
        let conclude = move || engine.conclude(&driven, seen, &noted, asking, scope);
        let Concluded { decision, record, known, answered } = self.inner.hooks.conclude(&drive, conclude).await;
        let mut kept = Ok(());
        if noting.strict {
            let left = drive.budget.total().saturating_sub(drive.began.elapsed());
            kept = self.record_now(record.clone(), left.max(Duration::from_millis(50))).await;
        }
        if !noting.strict || kept.is_err() {
            // On its way before the answer: whoever asks for the record next finds it.
            self.inner.hooks.recorder.record(record);
        }
        if let Some((scope, known)) = known.filter(|_| kept.is_ok()) {
            self.inner.hooks.repeats.finished(scope, noting.id, known);
        }
        // Nobody listens when the caller has gone.
        let answer = match kept {
            Ok(()) => Ok(Arc::new(answered)),
            Err(reason) => Err(Unanswered::Unable { reason, decided: Some(Arc::clone(&decision)) }),
        };
        let _ = sender.send(Some(answer));
        drop(admission);
        if !abandoned {
            self.count_decision(&decision);
        }
        self.keep_failed_secrets(&drive, &decision, noting.id);
        if !abandoned {
            self.begin_trials(&drive, noting.id).await;
        }
    }

    /// The decision, and what is made of it.
    fn conclude(
        &self,
        drive: &Drive,
        mut seen: Seen,
        noting: &Noting,
        asking: Asking,
        scope: Option<Scope>,
    ) -> Concluded {
        let decision = Arc::new(drive.chain().finish(drive.began.elapsed()));
        seen.repeats_secret |= repeats(drive, &decision);
        let record = self.record_of(drive, &decision, noting, asking, &seen);
        let known = scope.filter(|_| !seen.abandoned);
        let known = known.and_then(|scope| Some((scope, self.to_keep(&scope, drive, &decision, seen.repeats_secret)?)));
        let chain = drive.chain();
        let native = chain.is_costly_to_finish().then(|| decision.render(Form::Native, chain.secrets()));
        let answered = Answered { decision: Arc::clone(&decision), secrets: chain.secrets().clone(), native };
        Concluded { decision, record, known, answered }
    }
}

/// A decision, and everything that is made of it.
struct Concluded {
    decision: Arc<Decision>,
    record: NewInvocation,
    known: Option<(Scope, Kept)>,
    answered: Answered,
}

/// What an invocation is begun with.
pub(super) struct Launch {
    asking: Asking,
    hop: u32,
    budget: Budget,
    began: Instant,
    admission: Admission,
    sender: watch::Sender<Option<Answer>>,
    scope: Option<Scope>,
    gone: CancellationToken,
}

/// How an invocation is recorded.
#[derive(Clone)]
pub(super) struct Noting {
    pub(super) id: InvocationId,
    pub(super) at: gatepost_core::Timestamp,
    pub(super) strict: bool,
    pub(super) capture: points::Capture,
    pub(super) redact: Arc<[Pointer]>,
    pub(super) operation: bool,
    pub(super) hop: u32,
}

/// Bytes an invocation may come to hold, about: the question as it came and as it is put to hooks, for
/// every attribute.
fn held_by(ask: &Ask, invocation: &Invocation) -> usize {
    let own = ask.body.len() + invocation.held();
    HELD + 2 * own + own.saturating_mul(invocation.attributes.len())
}

/// What the flight comes to; `None`: nothing in time, or the lane is gone. Neither is the caller's to wait for.
async fn wait(flight: Arc<Flight>, until: Instant) -> Option<Answer> {
    let mut answer = flight.answer();
    let found = tokio::time::timeout_at(until, answer.wait_for(Option::is_some)).await;
    found.ok()?.ok()?.clone()
}

/// A question that was readable is: this says so where that cannot be shown.
fn no_lane(ask: &Ask) -> AskError {
    unable(ask, StoreError::Unavailable("the lane for hooks does not answer".to_owned()))
}

/// Whether anything a receiver said ended up as a secret in the clear, however it had written it.
fn repeats(drive: &Drive, decision: &Decision) -> bool {
    let chain = drive.chain();
    let secrets = &chain.invocation().secrets;
    !secrets.is_empty() && serde_json::to_vec(decision).is_ok_and(|bytes| secrets.occur_in(&bytes))
}

/// The question is read again, as it went with the chain: this is the rare way out.
fn static_decision(point: Option<&PointDef>, target: Target<'_>, name: &str, body: &[u8]) -> Option<Box<Decision>> {
    let question = invocation::read(body, target).ok();
    let mut decision = Box::new(Decision::without_asking("", point?, question.as_ref()));
    name.clone_into(&mut decision.point);
    Some(decision)
}

/// Nothing of the tenant is in memory, and the store does not answer.
fn unable(ask: &Ask, reason: StoreError) -> AskError {
    let (name, known) = match &ask.target {
        AskTarget::Point(name) => (name, points::builtin(name).map(|point| (Some(&**point), Target::Point(point)))),
        AskTarget::Operation(name) => {
            let last = |operation: &Operation| operation.phases.last().and_then(|name| points::builtin(name));
            let known = points::operation(name)
                .map(|operation| (last(operation).map(|point| &**point), Target::Operation(operation)));
            (name, known)
        }
    };
    let decision = known.and_then(|(point, target)| static_decision(point, target, name, &ask.body));
    AskError::Unable { decision, reason }
}

fn bad_invocation(bad: BadInvocation) -> AskError {
    match bad {
        BadInvocation::Malformed(malformed) => {
            AskError::Malformed { line: malformed.line, column: malformed.column, message: malformed.message }
        }
        BadInvocation::Invalid(errors) => AskError::Invalid(errors.into_iter().map(FieldError::from).collect()),
    }
}
