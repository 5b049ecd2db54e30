//! The chain: who is asked when, and what their answers come to.
//!
//! A state machine between the engine's waits. Mutators are asked one after another, each with what
//! the one before it left; then validators that may change something, one after another, so that
//! what is validated is what is committed; then all other validators at once. Values are asked for
//! attribute by attribute, hook by hook; gates at once. Every question that is put has a time limit,
//! so the machine always comes to its end, and its end is a decision (P9).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::breaker::BreakerEvent;
use super::budget::{Budget, Concurrency, Wish, reserve};
use super::codec::{Question, SecretFacts};
use super::condition::ConditionFacts;
use super::decision::{Cause, Conn, HookResult, HookRow, Message, Severity};
use super::failure::{Failure, FailureClass, Policy};
use super::hook::Mode;
use super::invocation::Invocation;
use super::json::{Map, Value};
use super::plan::{Attempt, PlannedHook};
use super::points::{PointDef, PointKind};
use super::secrets::Lifted;
use crate::secret::Secret;
use crate::{InvocationId, TenantId, Timestamp};

mod finish;
mod settle;
mod trials;

/// One point of an invocation.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The point.
    pub point: Arc<PointDef>,
    /// Its hooks, in order ([`super::plan::sort`]); those that are off are passed over here.
    pub hooks: Vec<Arc<PlannedHook>>,
    /// The point's kill switch.
    pub enabled: bool,
}

/// What a chain is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The invocation's id.
    pub id: InvocationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// When it was asked.
    pub time: Timestamp,
    /// The point's or operation's name.
    pub name: String,
    /// One stage, or an operation's phases.
    pub stages: Vec<Stage>,
    /// The time there is.
    pub budget: Budget,
    /// Whether the tenant's or the server's kill switch is on.
    pub bypass: bool,
    /// Who we are: the server's public address.
    pub issuer: Arc<str>,
    /// The hop the invocation came with.
    pub hop: u32,
}

/// A question to be put now.
#[derive(Clone, Debug)]
pub struct Call {
    /// Names it in [`Chain::settle`].
    pub slot: usize,
    /// Who is asked.
    pub hook: Arc<PlannedHook>,
    /// How long all its attempts may take together, when it is put now.
    pub limit: Duration,
    /// How long it may take in all, waiting for a place included.
    pub patience: Duration,
    /// What is sent, the same for every attempt.
    pub body: Bytes,
    /// The same for every attempt.
    pub message_id: String,
    tenant: TenantId,
    issuer: Arc<str>,
    hop: u32,
}

impl Call {
    /// The same call, put after it waited for a place; `None`: there is no time left for it.
    pub fn after(self, waited: Duration) -> Option<Call> {
        let limit = self.hook.wish().within(self.patience.saturating_sub(waited))?;
        Some(Call { limit, ..self })
    }

    /// The headers of attempt `number`, with `left` of the limit to go.
    pub fn headers(&self, (number, resent): (u32, bool), left: Duration, now: Timestamp) -> Vec<(String, Secret)> {
        self.hook.headers_for(&Attempt {
            message_id: &self.message_id,
            tenant: &self.tenant,
            issuer: &self.issuer,
            body: &self.body,
            number,
            resent,
            left: left.min(self.limit),
            hop: self.hop,
            now,
            probe: false,
        })
    }
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Report {
    /// The answer, or why there is none.
    pub outcome: Outcome,
    /// When it was begun, since the invocation began.
    pub started: Duration,
    /// When it was over, since the invocation began.
    pub ended: Duration,
    /// How the connection was come by; `None` when there was none.
    pub conn: Option<Conn>,
    /// Requests made.
    pub attempts: u32,
}

/// The answer, or why there is none.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Something was answered.
    Answered(RawAnswer),
    /// Nothing was, or nobody was asked (breaker, concurrency).
    Failed(Failure),
}

/// An answer as it came.
#[derive(Clone, Debug, Default)]
pub struct RawAnswer {
    /// The status.
    pub status: u16,
    /// `content-encoding`.
    pub encoding: Option<String>,
    /// `gatepost-answer-signature`.
    pub signature: Option<String>,
    /// `gatepost-answer-timestamp`.
    pub signed_at: Option<String>,
    /// The body; may be cut at one byte over the cap.
    pub body: Bytes,
    /// The time of the attempt it answers.
    pub sent_at: Timestamp,
    /// The token the receiver was asked with, besides the hook's own secrets.
    pub token: Option<Secret>,
}

/// What settling a call means for the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settled {
    /// What the hook's breaker is told; `None`: nothing about the receiver was learned.
    pub breaker: Option<BreakerEvent>,
    /// Every other call under way is to be dropped: its answer is not wanted any more.
    pub cut: bool,
    /// The answer repeats a secret: it must not be kept.
    pub repeats_secret: bool,
    /// The answer repeats a secret of the hook's own: what is kept of it is masked.
    pub repeats_own: bool,
}

/// Bytes of an answer, and of what an invocation holds in memory, from which on working on it takes so long
/// that others would feel it: some tenths of a millisecond.
const COSTLY_ANSWER: usize = 16 << 10;
const COSTLY_OBJECT: usize = 64 << 10;

/// Bytes of questions that one invocation has under way before another attribute is asked.
const QUESTIONS_BYTES: usize = 4 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// Mutators: a refusal ends it at once.
    Mutate,
    /// One after another; refusals are collected.
    Tail,
    /// All at once.
    Parallel,
    /// Attribute by attribute at once, hook by hook.
    Values,
}

#[derive(Clone, Debug)]
struct Group {
    stage: usize,
    manner: Manner,
    hooks: Vec<Arc<PlannedHook>>,
    next: usize,
}

/// A value that is asked for.
#[derive(Clone, Debug)]
struct Item {
    attribute: Option<String>,
    context: Map,
    default: Value,
    next: usize,
    busy: bool,
    done: bool,
    value: Value,
    by_receiver: bool,
}

/// One hook that was looked at.
#[derive(Clone, Debug)]
struct Entry {
    group: usize,
    place: usize,
    item: Option<usize>,
    pending: bool,
    /// Since when it has been under way, or has waited for a place.
    since: Duration,
    queued: bool,
    /// Bytes of its question while it is pending.
    bytes: usize,
    row: HookRow,
    applied: Option<Policy>,
    messages: Vec<Message>,
}

/// A question being decided. See the module.
#[derive(Debug)]
pub struct Chain {
    id: String,
    tenant: TenantId,
    time: Timestamp,
    name: String,
    stages: Vec<(Arc<PointDef>, bool)>,
    bypass: bool,
    issuer: Arc<str>,
    hop: u32,
    budget: Budget,
    invocation: Invocation,
    object: Value,
    lifted: Lifted,
    groups: Vec<Group>,
    at: usize,
    items: Vec<Item>,
    votes: Vec<bool>,
    receiver_said_no: bool,
    entries: Vec<Entry>,
    observers: Vec<Arc<PlannedHook>>,
    waits: Vec<(Duration, Duration)>,
    queues: Vec<(Duration, Duration)>,
    /// Bytes of the questions under way.
    questions: usize,
    /// What the invocation holds in memory, about.
    weight: usize,
    refused: bool,
    done: bool,
}

impl Chain {
    /// A chain over an invocation; nothing is asked yet.
    pub fn new(setup: Setup, invocation: Invocation) -> Self {
        let mut groups = Vec::new();
        let mut observers = Vec::new();
        let mut stages = Vec::with_capacity(setup.stages.len());
        for (i, stage) in setup.stages.into_iter().enumerate() {
            let asked = stage.enabled && !setup.bypass;
            let on = stage.hooks.into_iter().filter(|hook| asked && hook.config.enabled);
            let (enforced, beside): (Vec<_>, Vec<_>) =
                on.filter(|hook| hook.config.mode != Mode::Off).partition(|hook| hook.config.mode == Mode::Enforce);
            observers.extend(beside);
            group(i, stage.point.kind, enforced, &mut groups);
            stages.push((stage.point, asked));
        }
        let items = items(&stages, &invocation);
        let weight = invocation.held();
        Chain {
            id: setup.id.to_string(),
            tenant: setup.tenant,
            time: setup.time,
            name: setup.name,
            stages,
            bypass: setup.bypass,
            issuer: setup.issuer,
            hop: setup.hop,
            budget: setup.budget,
            object: invocation.object.clone(),
            lifted: invocation.secrets.object.clone(),
            invocation,
            groups,
            at: 0,
            items,
            votes: Vec::new(),
            receiver_said_no: false,
            entries: Vec::new(),
            observers,
            waits: Vec::new(),
            queues: Vec::new(),
            questions: 0,
            weight,
            refused: false,
            done: false,
        }
    }

    /// Whether the decision can be made.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The invocation, as read.
    pub fn invocation(&self) -> &Invocation {
        &self.invocation
    }

    /// The object's secret members as they stand, for [`super::decision::Decision::to_wire`].
    pub fn secrets(&self) -> &Lifted {
        &self.lifted
    }

    /// The body a hook is sent of a point that asks for no values: to keep a secret notification.
    pub fn question_for(&self, hook: &PlannedHook) -> Bytes {
        self.body_for(hook, None, &self.object, &self.lifted)
    }

    /// How long the invocation may still wait for receivers.
    pub fn remaining(&self, elapsed: Duration) -> Duration {
        self.budget.remaining(elapsed)
    }

    /// Whether there are hooks on trial.
    pub fn has_observers(&self) -> bool {
        !self.observers.is_empty()
    }

    /// Whether [`Chain::ready`] is work for another thread than one that everybody waits for.
    pub fn is_costly_to_go_on(&self) -> bool {
        let questions = match self.groups.get(self.at).map(|group| group.manner) {
            Some(Manner::Values) => self.items.iter().filter(|item| !item.busy && !item.done).count(),
            _ => 1,
        };
        self.weight.saturating_mul(questions) > COSTLY_OBJECT
    }

    /// Whether [`Chain::settle`] is.
    pub fn is_costly_to_settle(&self, slot: usize, report: &Report) -> bool {
        let Outcome::Answered(answer) = &report.outcome else { return false };
        let Some(entry) = self.entries.get(slot) else { return false };
        let changes = entry.row.phase.takes_objects();
        // What a schema costs is up to the tenant.
        let judged = self.groups[entry.group].hooks[entry.place].schema.is_some();
        judged || answer.body.len() > COSTLY_ANSWER || (changes && self.weight > COSTLY_OBJECT)
    }

    /// Whether [`Chain::finish`], and what is made of a decision, is.
    pub fn is_costly_to_finish(&self) -> bool {
        self.weight > COSTLY_OBJECT
    }

    /// The calls to be made now, `elapsed` after the invocation began. Call it after every
    /// [`Chain::settle`]; an empty list while [`Chain::is_done`] is false means to wait for calls
    /// under way.
    pub fn ready(&mut self, elapsed: Duration) -> Vec<Call> {
        let mut calls = Vec::new();
        while !self.done {
            let Some(group) = self.groups.get(self.at) else {
                self.done = true;
                break;
            };
            let (manner, next, hooks) = (group.manner, group.next, group.hooks.len());
            let in_flight = self.entries.iter().any(|entry| entry.pending);
            match manner {
                Manner::Mutate | Manner::Tail if in_flight => break,
                Manner::Values => {
                    if !self.start_values(elapsed, &mut calls) {
                        break;
                    }
                    self.advance();
                }
                _ if next < hooks => {
                    self.groups[self.at].next += 1;
                    calls.extend(self.start(next, None, elapsed));
                    self.stop_if_refused(manner);
                }
                _ if in_flight => break,
                _ => self.advance(),
            }
        }
        calls
    }

    /// Starts what can be started; whether the group is finished.
    fn start_values(&mut self, elapsed: Duration, calls: &mut Vec<Call>) -> bool {
        let hooks = self.groups[self.at].hooks.len();
        for i in 0..self.items.len() {
            // Each question carries the whole object: not all of them have to be there at once.
            if self.questions >= QUESTIONS_BYTES {
                return false;
            }
            while !self.refused && !self.items[i].busy && !self.items[i].done {
                let next = self.items[i].next;
                if next >= hooks {
                    self.items[i].done = true;
                    break;
                }
                self.items[i].next += 1;
                let call = self.start(next, Some(i), elapsed);
                self.items[i].busy = call.is_some();
                calls.extend(call);
            }
        }
        self.items.iter().all(|item| !item.busy)
    }

    fn advance(&mut self) {
        let stage = self.groups.get(self.at).map(|group| group.stage);
        self.at += 1;
        let next = self.groups.get(self.at).map(|group| group.stage);
        // A phase that refuses is heard to its end, and is the last.
        if next.is_none() || (self.refused && next != stage) {
            self.done = true;
        }
    }

    fn stop_if_refused(&mut self, manner: Manner) {
        if self.refused && manner == Manner::Mutate {
            self.done = true;
        }
    }

    /// Puts one question, unless the hook is passed over or fails without being asked.
    fn start(&mut self, place: usize, item: Option<usize>, elapsed: Duration) -> Option<Call> {
        let hook = Arc::clone(&self.groups[self.at].hooks[place]);
        let slot = self.enter(&hook, place, item);
        if self.invocation.dry_run && !hook.config.in_dry_runs() {
            self.entries[slot].row.result = HookResult::SkippedSideEffects;
            return None;
        }
        match self.meets_condition(&hook, item) {
            Ok(true) => {}
            Ok(false) => {
                self.entries[slot].row.result = HookResult::SkippedCondition;
                return None;
            }
            Err(failure) => {
                self.fail(slot, &hook, failure);
                return None;
            }
        }
        let patience = self.budget.most(elapsed, hook.wish(), self.reserve_after(place));
        let Some(limit) = hook.wish().within(patience) else {
            self.fail(slot, &hook, FailureClass::Budget.into());
            return None;
        };
        let message_id = match item.filter(|i| self.items[*i].attribute.is_some()) {
            Some(i) => format!("{}:{}:{i}", self.id, hook.id),
            None => format!("{}:{}", self.id, hook.id),
        };
        let body = self.body_for(&hook, item, &self.object, &self.lifted);
        self.questions += body.len();
        let entry = &mut self.entries[slot];
        (entry.pending, entry.since, entry.bytes) = (true, elapsed, body.len());
        Some(Call {
            slot,
            hook,
            limit,
            patience,
            body,
            message_id,
            tenant: self.tenant.clone(),
            issuer: Arc::clone(&self.issuer),
            hop: self.hop,
        })
    }

    /// The call in `slot` has to wait for a place, from `elapsed` on.
    pub fn queue(&mut self, slot: usize, elapsed: Duration) {
        if let Some(entry) = self.entries.get_mut(slot).filter(|entry| entry.pending) {
            (entry.queued, entry.since) = (true, elapsed);
        }
    }

    /// How long the call in `slot` has waited for a place.
    pub fn waited(&self, slot: usize, elapsed: Duration) -> Duration {
        self.entries.get(slot).map_or(Duration::ZERO, |entry| elapsed.saturating_sub(entry.since))
    }

    /// It has one, and is put.
    pub fn unqueue(&mut self, slot: usize, elapsed: Duration) {
        if let Some(entry) = self.entries.get_mut(slot).filter(|entry| entry.queued) {
            self.queues.push((entry.since, elapsed));
            (entry.queued, entry.since) = (false, elapsed);
        }
    }

    /// Whether no receiver has been asked so far.
    pub fn asked_nobody(&self) -> bool {
        self.entries.iter().all(|entry| entry.row.attempts == 0 && (!entry.pending || entry.queued))
    }

    fn enter(&mut self, hook: &PlannedHook, place: usize, item: Option<usize>) -> usize {
        let attribute = item.and_then(|i| self.items[i].attribute.clone());
        let row = row(hook, HookResult::Cancelled, attribute);
        self.entries.push(Entry {
            group: self.at,
            place,
            item,
            pending: false,
            since: Duration::ZERO,
            queued: false,
            bytes: 0,
            row,
            applied: None,
            messages: Vec::new(),
        });
        self.entries.len() - 1
    }

    fn meets_condition(&self, hook: &PlannedHook, item: Option<usize>) -> Result<bool, Failure> {
        let Some(condition) = &hook.condition else { return Ok(true) };
        let own = item.map(|i| Value::Object(self.items[i].context.clone()));
        let facts = ConditionFacts {
            subject: &self.invocation.subject,
            actor: &self.invocation.actor,
            object: &self.object,
            old_object: &self.invocation.old_object,
            context: own.as_ref().unwrap_or(&self.invocation.context),
        };
        condition.holds(&facts).map_err(|e| Failure::new(FailureClass::ConditionError, e.to_string()))
    }

    fn body_for(&self, hook: &PlannedHook, item: Option<usize>, object: &Value, lifted: &Lifted) -> Bytes {
        let none = Map::new();
        let whole = self.invocation.context.as_object().unwrap_or(&none);
        let of_item = item.map(|i| &self.items[i]);
        let given = of_item
            .filter(|item| item.attribute.is_some())
            .map(|item| Value::Object(Map::from_iter([("mappedValue".to_owned(), item.default.clone())])));
        let secrets = &self.invocation.secrets;
        let shown = hook.shows_secrets() && !(secrets.is_empty() && lifted.is_empty());
        hook.codec.request_body(&Question {
            id: &self.id,
            point: &hook.point,
            time: self.time,
            tenant: &self.tenant,
            subject: &self.invocation.subject,
            actor: &self.invocation.actor,
            object,
            old_object: &self.invocation.old_object,
            context: of_item.map_or(whole, |item| &item.context),
            default: given.as_ref().unwrap_or(&self.invocation.default),
            dry_run: self.invocation.dry_run,
            secrets: shown.then_some(SecretFacts {
                named: &secrets.named,
                object: lifted,
                old_object: &secrets.old_object,
                context: &secrets.context,
            }),
        })
    }

    /// Whether the object or one of its secret members differs from what came in.
    pub(super) fn has_changed(&self) -> bool {
        !super::json::same(&self.object, &self.invocation.object) || self.lifted != self.invocation.secrets.object
    }

    /// What hooks after `place` of the present group need at least.
    fn reserve_after(&self, place: usize) -> Duration {
        let wishes = |hooks: &[Arc<PlannedHook>]| -> Vec<Wish> {
            let asked = hooks.iter().filter(|hook| !self.invocation.dry_run || hook.config.in_dry_runs());
            asked.map(|hook| hook.wish()).collect()
        };
        let concurrency = |manner| match manner {
            Manner::Parallel => Concurrency::Parallel,
            Manner::Mutate | Manner::Tail | Manner::Values => Concurrency::Serial,
        };
        let present = &self.groups[self.at];
        let rest = match concurrency(present.manner) {
            Concurrency::Serial => present.hooks.get(place + 1..).unwrap_or_default(),
            Concurrency::Parallel => &[],
        };
        let later = self.groups.iter().skip(self.at + 1).map(|group| (wishes(&group.hooks), concurrency(group.manner)));
        reserve(std::iter::once((wishes(rest), Concurrency::Serial)).chain(later))
    }
}

/// A row of a hook that was not asked.
pub(super) fn blank_row(hook: &PlannedHook) -> HookRow {
    row(hook, HookResult::Cancelled, None)
}

fn row(hook: &PlannedHook, result: HookResult, attribute: Option<String>) -> HookRow {
    HookRow {
        id: hook.id,
        name: hook.config.name.clone(),
        phase: hook.point.kind,
        mode: hook.config.mode,
        result,
        status: None,
        took_us: 0,
        conn: None,
        attempts: 0,
        failure: None,
        detail: None,
        attribute,
        changed: None,
    }
}

fn group(stage: usize, kind: PointKind, hooks: Vec<Arc<PlannedHook>>, groups: &mut Vec<Group>) {
    let mut push = |manner, hooks: Vec<Arc<PlannedHook>>| {
        // A value has a default to fall back to even when nobody is asked.
        if !hooks.is_empty() || manner == Manner::Values {
            groups.push(Group { stage, manner, hooks, next: 0 });
        }
    };
    match kind {
        PointKind::Mutate => push(Manner::Mutate, hooks),
        PointKind::Validate => {
            let (tail, rest) = hooks.into_iter().partition(|hook| hook.changes_in_tail());
            push(Manner::Tail, tail);
            push(Manner::Parallel, rest);
        }
        PointKind::Value => push(Manner::Values, hooks),
        PointKind::Gate | PointKind::NotifySecret | PointKind::Probe => push(Manner::Parallel, hooks),
        PointKind::Event => {}
    }
}

fn items(stages: &[(Arc<PointDef>, bool)], invocation: &Invocation) -> Vec<Item> {
    if !stages.iter().any(|(point, _)| point.kind == PointKind::Value) {
        return Vec::new();
    }
    let whole = invocation.context.as_object().cloned().unwrap_or_default();
    let item = |attribute, context, default| Item {
        attribute,
        context,
        default,
        next: 0,
        busy: false,
        done: false,
        value: Value::Null,
        by_receiver: false,
    };
    if stages.len() == 1 {
        return vec![item(None, whole, invocation.default_value())];
    }
    let of_attribute = |attribute: &super::invocation::Attribute| {
        let mut context = whole.clone();
        context.absorb(attribute.context.clone());
        item(Some(attribute.name.clone()), context, attribute.default.clone())
    };
    invocation.attributes.iter().map(of_attribute).collect()
}

#[cfg(test)]
mod tests;
