//! What one answer, or one failure, does to the chain.

use std::borrow::Cow;
use std::time::Duration;

use super::{BreakerEvent, Chain, Entry, Failure, FailureClass, HookResult, Manner, Message, Outcome, PlannedHook};
use super::{PointKind, Policy, RawAnswer, Report, Settled, Severity};
use crate::Timestamp;
use crate::echo::{self, Known};
use crate::hooks::change::{self, Applied, Proposal};
use crate::hooks::codec::DENY_STATUSES;
use crate::hooks::codec::{Answer, AnswerMessage, Expected, Received, judge_status, read_answer};
use crate::hooks::failure::FailureClass::NotAllowedChange;
use crate::hooks::json::{Pointer, Value, held_by};
use crate::hooks::json_patch::{self, Operation, Refused};
use crate::schema::{SchemaBudget, TooCostly};
use crate::secret::Secret;

impl Chain {
    /// Takes the result of the call in `slot`; `now` is the wall clock. A result nobody waits for
    /// any more changes nothing.
    pub fn settle(&mut self, slot: usize, report: Report, now: Timestamp) -> Settled {
        let Some(entry) = self.entries.get_mut(slot).filter(|entry| entry.pending) else { return Settled::default() };
        let waited = std::mem::take(&mut entry.queued).then_some(entry.since);
        entry.pending = false;
        self.questions -= std::mem::take(&mut entry.bytes);
        note(&mut entry.row, &report);
        let (group, place, item) = (entry.group, entry.place, entry.item);
        if let Some(item) = item {
            self.items[item].busy = false;
        }
        match waited {
            Some(since) => self.queues.push((since, report.ended)),
            None => self.waits.push((report.started, report.ended)),
        }
        let hook = std::sync::Arc::clone(&self.groups[group].hooks[place]);
        let mut settled = Settled::default();
        let message_id = format!("{}:{}", self.id, hook.id);
        let read = match &report.outcome {
            Outcome::Failed(failure) => Err(shown(&hook, failure.clone(), &Known::default())),
            Outcome::Answered(answer) => {
                settled.repeats_secret = self.invocation.secrets.occur_in(&answer.body);
                settled.repeats_own = hook.known.occur_in_data(&answer.body)
                    || answer.token.as_ref().is_some_and(|token| echo::repeats(&answer.body, token));
                let with_item = item.map_or(message_id.clone(), |i| format!("{message_id}:{i}"));
                read(&hook, &self.id, &[&self.id, &message_id, &with_item], answer, now)
            }
        };
        let applied = read.and_then(|answer| self.take(slot, &hook, answer));
        settled.breaker = match &applied {
            Ok(()) => Some(BreakerEvent::Answered),
            Err(failure) => counts(failure, &report, &hook).then_some(BreakerEvent::Failed),
        };
        if let Err(failure) = applied {
            self.fail(slot, &hook, failure);
        }
        let manner = self.groups[group].manner;
        self.stop_if_refused(manner);
        if self.entries[slot].row.result == HookResult::Deny && hook.config.stop_on_deny {
            settled.cut = matches!(manner, Manner::Tail | Manner::Parallel);
        }
        if settled.cut {
            self.drop_pending(report.ended);
            self.done = true;
        }
        settled
    }

    /// Applies an answer that was read.
    fn take(&mut self, slot: usize, hook: &PlannedHook, answer: Answer) -> Result<(), Failure> {
        let kind = hook.point.kind;
        if answer.denies {
            self.refused = true;
            self.say(slot, hook, answer.messages, Severity::Error);
            self.entries[slot].row.result = HookResult::Deny;
            self.finish_item(slot, Value::Null, false);
            return Ok(());
        }
        let mut result = match kind {
            PointKind::Mutate => HookResult::Unchanged,
            PointKind::Validate => HookResult::Allow,
            PointKind::Value if answer.value.is_null() => HookResult::NoValue,
            PointKind::Value => HookResult::Value,
            PointKind::Gate if answer.value == Value::Bool(true) => HookResult::Yes,
            PointKind::Gate => HookResult::No,
            PointKind::NotifySecret | PointKind::Probe | PointKind::Event => HookResult::Acknowledged,
        };
        if let Some(applied) = self.proposed(hook, answer.proposal, answer.patch)?
            && !applied.changes.is_empty()
        {
            fits(hook, &applied.object)?;
            if kind == PointKind::Mutate {
                result = HookResult::Changed;
            }
            if self.invocation.explain {
                let places = applied.changes.iter().map(|change| change.pointer.clone()).collect();
                self.entries[slot].row.changed = Some(places);
            }
            self.weight = self.weight.max(held_by(&applied.object));
            self.object = applied.object;
            self.lifted = applied.secrets;
        }
        self.entries[slot].row.result = result;
        self.say(slot, hook, answer.messages, Severity::Warning);
        match kind {
            PointKind::Gate => {
                self.votes.push(result == HookResult::Yes);
                self.receiver_said_no |= result == HookResult::No;
            }
            PointKind::Value if result == HookResult::Value => self.finish_item(slot, answer.value, true),
            _ => {}
        }
        Ok(())
    }

    /// What an answer makes of the object, if it proposes anything.
    fn proposed(
        &self,
        hook: &PlannedHook,
        proposal: Option<Proposal>,
        patch: Option<Vec<Operation>>,
    ) -> Result<Option<Applied>, Failure> {
        let (may, places, shown) = (&hook.may_change, &hook.point.secret_pointers, hook.shows_secrets());
        let forbidden = |place: Pointer| Failure::new(NotAllowedChange, place.to_string());
        if let Some(patch) = patch {
            let applied = json_patch::apply(&self.object, &self.lifted, patch, may, places, shown);
            return applied.map(Some).map_err(|refused| match refused {
                Refused::NotAllowed(place) => forbidden(place),
                Refused::Impossible(why) => Failure::new(FailureClass::BadShape, why),
            });
        }
        let proposal = proposal.filter(|_| hook.point.kind.takes_objects() || !may.is_nothing());
        let Some(proposal) = proposal else { return Ok(None) };
        let mode = hook.config.replace_mode;
        let applied = change::apply(&self.object, &self.lifted, proposal, mode, may, places, shown);
        applied.map(Some).map_err(forbidden)
    }

    /// Applies a hook's policy to its failure.
    pub(super) fn fail(&mut self, slot: usize, hook: &PlannedHook, failure: Failure) {
        let policy = hook.config.policy(failure.class, &hook.point);
        let kind = hook.point.kind;
        let entry = &mut self.entries[slot];
        entry.row.result = HookResult::Failed;
        entry.row.failure = Some(failure.class);
        entry.row.detail = failure.detail.as_deref().map(|detail| self.invocation.secrets.mask(detail).into_owned());
        let refuses = match &policy {
            Policy::Deny => true,
            Policy::AskDefault => {
                kind != PointKind::Value && kind != PointKind::Gate && self.invocation.default_denies()
            }
            Policy::Continue | Policy::Value(_) => false,
        };
        if refuses {
            self.refused = true;
            let code = format!("gatepost_{}", failure.class);
            let text = Some(failure.class.text().to_owned());
            self.entries[slot].messages.push(Message {
                severity: Severity::Error,
                code,
                text,
                path: None,
                hook: hook.id,
                platform_code: None,
            });
        }
        match (kind, &policy) {
            (PointKind::Gate, Policy::Value(value)) => self.votes.push(*value == true),
            (PointKind::Gate, Policy::AskDefault) => self.votes.push(self.invocation.default_gate().unwrap_or(false)),
            (PointKind::Value, Policy::Value(value)) => self.finish_item(slot, value.clone().into(), false),
            // The caller's default stands, and nobody else is asked; `continue` asks the next.
            (PointKind::Value, Policy::AskDefault | Policy::Deny) => self.finish_item(slot, Value::Null, false),
            _ => {}
        }
        self.entries[slot].applied = Some(policy);
    }

    fn finish_item(&mut self, slot: usize, value: Value, by_receiver: bool) {
        if let Some(item) = self.entries[slot].item.and_then(|i| self.items.get_mut(i)) {
            item.done = true;
            item.value = value;
            item.by_receiver = by_receiver;
        }
    }

    fn say(&mut self, slot: usize, hook: &PlannedHook, messages: Vec<AnswerMessage>, severity: Severity) {
        let secrets = &self.invocation.secrets;
        let masked = |text: String| secrets.mask(&text).into_owned();
        let said = messages.into_iter().map(|message| {
            // The platform's code is made of the code, written in capitals.
            let shown = secrets.mask(&message.code) == message.code;
            Message {
                severity,
                platform_code: message.platform_code.filter(|_| shown).map(masked),
                code: masked(message.code),
                text: message.text.map(masked),
                path: message.path.map(masked),
                hook: hook.id,
            }
        });
        let said: Vec<_> = said.collect();
        self.entries[slot].messages.extend(said);
    }
}

impl Chain {
    /// Nobody waits any more for what is under way; who was asked was asked.
    pub(super) fn drop_pending(&mut self, elapsed: Duration) {
        for entry in self.entries.iter_mut().filter(|entry| entry.pending) {
            entry.pending = false;
            self.questions -= std::mem::take(&mut entry.bytes);
            if std::mem::take(&mut entry.queued) {
                self.queues.push((entry.since, elapsed));
            } else {
                self.waits.push((entry.since, elapsed));
                entry.row.attempts = 1;
                entry.row.took_us = micros(elapsed.saturating_sub(entry.since));
            }
        }
    }
}

pub(super) fn note(row: &mut crate::hooks::decision::HookRow, report: &Report) {
    row.took_us = micros(report.ended.saturating_sub(report.started));
    row.conn = report.conn;
    row.attempts = report.attempts;
    if let Outcome::Answered(answer) = &report.outcome {
        row.status = Some(answer.status);
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Whether the object still fits its point's schema.
fn fits(hook: &PlannedHook, object: &Value) -> Result<(), Failure> {
    let Some(schema) = &hook.schema else { return Ok(()) };
    let failed = |why: String| Err(Failure::new(FailureClass::Schema, why));
    // A schema that cannot be asked lets nothing pass: the change is what it is there to judge.
    let Ok(schema) = schema.compiled() else { return failed("the point's schema cannot be enforced".to_owned()) };
    match schema.violations(object.to_string().as_bytes(), &mut SchemaBudget::of_answer()) {
        Ok(found) => found.first().map_or(Ok(()), |violation| failed(format!("at {:?}", violation.pointer))),
        Err(TooCostly) => failed("judging the object by the point's schema costs too much".to_owned()),
    }
}

/// Whether the receiver is to blame. A silence shorter than the least the hook asked for is ours.
fn counts(failure: &Failure, report: &Report, hook: &PlannedHook) -> bool {
    let given = report.ended.saturating_sub(report.started);
    let hurried = failure.class == FailureClass::Timeout && given < hook.wish().least;
    failure.class.counts_for_breaker() && !hurried
}

/// Reads an answer: status, signature, then what it says. What it says to people is kept, and holds no
/// secret it was asked with.
fn read(
    hook: &PlannedHook,
    id: &str,
    signed_ids: &[&str],
    answer: &RawAnswer,
    now: Timestamp,
) -> Result<Answer, Failure> {
    let token = || Known::of_values(answer.token.iter().map(Secret::expose));
    let masked = |text: &mut String, token: &Known| {
        for known in [&hook.known, token] {
            if let Cow::Owned(shown) = known.text(text) {
                *text = shown;
            }
        }
    };
    match read_plain(hook, id, signed_ids, answer, now) {
        Ok(mut read) if !read.messages.is_empty() => {
            let token = token();
            for said in &mut read.messages {
                let AnswerMessage { code, text, path, platform_code } = said;
                let before = code.len();
                masked(code, &token);
                // The platform's code is made of the code, written in capitals.
                *platform_code = platform_code.take().filter(|_| code.len() == before);
                [text, path].into_iter().flatten().for_each(|text| masked(text, &token));
            }
            Ok(read)
        }
        Err(failure) if failure.detail.is_some() => Err(shown(hook, failure, &token())),
        other => other,
    }
}

fn shown(hook: &PlannedHook, failure: Failure, token: &Known) -> Failure {
    let masked = |detail: String| token.text(&hook.known.text(&detail)).into_owned();
    Failure { detail: failure.detail.map(masked), ..failure }
}

fn read_plain(
    hook: &PlannedHook,
    id: &str,
    signed_ids: &[&str],
    answer: &RawAnswer,
    now: Timestamp,
) -> Result<Answer, Failure> {
    let refusal = hook.config.status_deny && DENY_STATUSES.contains(&answer.status);
    // A status that is no answer needs no signature to be believed.
    if !refusal {
        judge_status(answer.status)?;
    }
    hook.verify_signature(signed_ids, answer, now)?;
    let expected = Expected { id, point: &hook.point, status_deny: hook.config.status_deny };
    let received = Received { status: answer.status, encoding: answer.encoding.as_deref(), body: &answer.body };
    read_answer(hook.codec, &expected, &received)
}

impl Entry {
    /// What a decision that rests on this entry's failure names as its cause.
    pub(super) fn cause(&self) -> Option<super::Cause> {
        self.row.failure.map(FailureClass::cause)
    }
}
