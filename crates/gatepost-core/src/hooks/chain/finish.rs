//! The decision, from everything that was settled.

use std::time::Duration;

use super::settle::micros;
use super::{Cause, Chain, Entry, FailureClass, HookResult, PointKind, Policy, Severity, row};
use crate::hooks::change::patch;
use crate::hooks::decision::{Decision, Degraded, HookRow, Reply, Verdict};
use crate::hooks::invocation::value_or_field;
use crate::hooks::json::Value;

impl Chain {
    /// The decision, `elapsed` after the invocation began. Calls still under way count as having
    /// run out of time, and hooks that were never reached as never having had any: so there is a
    /// decision whenever it is asked for (P9).
    pub fn finish(&mut self, elapsed: Duration) -> Decision {
        self.end_now(elapsed);
        self.entries.sort_by_key(|entry| (entry.group, entry.item, entry.place));
        let value = self.value();
        let took_us = micros(elapsed);
        let mut hooks: Vec<HookRow> = self.entries.iter().map(|entry| entry.row.clone()).collect();
        hooks.extend(self.observers.iter().map(|hook| row(hook, HookResult::Observing, None)));
        let messages = |severity| {
            let all = self.entries.iter().flat_map(|entry| &entry.messages);
            all.filter(|message| message.severity == severity).cloned().collect()
        };
        Decision {
            id: self.id.clone(),
            point: self.name.clone(),
            decision: if self.refused { Verdict::Deny } else { Verdict::Allow },
            cause: self.cause(),
            patch: patch(&self.invocation.object, &self.object),
            object: self.object.clone(),
            value,
            values: (self.stages.len() > 1 && self.has_values()).then(|| self.values()),
            messages: messages(Severity::Error),
            warnings: messages(Severity::Warning),
            degraded: self.entries.iter().filter_map(degraded).collect(),
            hooks,
            budget_ms: u64::try_from(self.budget.total().as_millis()).unwrap_or(u64::MAX),
            took_us,
            waited_us: micros(covered(self.queues.iter())),
            gatepost_us: took_us.saturating_sub(micros(covered(self.waits.iter().chain(&self.queues)))),
            dry_run: self.invocation.dry_run,
            reply: self.reply(),
        }
    }

    /// Drops every question under way, because the caller has gone. What is finished then is for the
    /// record only.
    pub fn abandon(&mut self, elapsed: Duration) {
        self.drop_pending(elapsed);
        self.items.iter_mut().for_each(|item| (item.busy, item.done) = (false, true));
        self.done = true;
    }

    fn end_now(&mut self, elapsed: Duration) {
        let pending: Vec<_> = (0..self.entries.len()).filter(|slot| self.entries[*slot].pending).collect();
        let queued: Vec<_> = pending.iter().map(|slot| self.entries[*slot].queued).collect();
        self.drop_pending(elapsed);
        for (slot, queued) in pending.into_iter().zip(queued) {
            let entry = &mut self.entries[slot];
            if let Some(item) = entry.item {
                self.items[item].busy = false;
            }
            let hook = std::sync::Arc::clone(&self.groups[self.entries[slot].group].hooks[self.entries[slot].place]);
            let class = if queued { FailureClass::Budget } else { FailureClass::Timeout };
            self.fail(slot, &hook, class.into());
            self.stop_if_refused(self.groups[self.entries[slot].group].manner);
        }
        // No call can come of it: there is no time at all.
        while !self.done {
            let calls = self.ready(Duration::MAX);
            debug_assert!(calls.is_empty(), "a call without time");
        }
    }

    fn has_values(&self) -> bool {
        self.stages.iter().any(|(point, _)| point.kind == PointKind::Value)
    }

    fn values(&self) -> Vec<Value> {
        let value = |item: &super::Item| {
            if item.by_receiver || !item.value.is_null() {
                return item.value.clone();
            }
            value_or_field(item.default.clone(), &item.context, &self.object)
        };
        self.items.iter().map(value).collect()
    }

    fn value(&self) -> Value {
        match self.stages.as_slice() {
            _ if self.refused && self.has_values() => Value::Null,
            [(point, _)] if point.kind == PointKind::Value => self.values().into_iter().next().unwrap_or_default(),
            [(point, _)] if point.kind == PointKind::Gate => Value::Bool(self.gate()),
            _ => Value::Null,
        }
    }

    /// Everybody must say yes, and somebody must have been asked or the caller's default say it:
    /// the safe answer is no.
    fn gate(&self) -> bool {
        if self.refused {
            return false;
        }
        match self.votes.as_slice() {
            [] => self.invocation.default_gate().unwrap_or(false),
            votes => votes.iter().all(|yes| *yes),
        }
    }

    fn reply(&self) -> Reply {
        match self.stages.as_slice() {
            [(point, _)] => Reply::of_point(point),
            _ if self.has_values() => Reply::Values,
            [.., (point, _)] => Reply::of_point(point),
            [] => Reply::Nothing,
        }
    }

    /// A receiver's refusal outranks all; then what the first failure that mattered names; then
    /// whether anybody was asked.
    fn cause(&self) -> Cause {
        if self.entries.iter().any(|entry| entry.row.result == HookResult::Deny) {
            return Cause::Receiver;
        }
        let refused = self.entries.iter().find(|entry| !entry.messages.is_empty() && entry.refuses());
        if let Some(cause) = refused.and_then(Entry::cause) {
            return cause;
        }
        let mattered = self.entries.iter().filter(|entry| entry.applied.is_some() && self.mattered(entry));
        if let Some(cause) = mattered.filter_map(Entry::cause).next() {
            return cause;
        }
        if self.entries.iter().any(Entry::was_asked) {
            return Cause::Receiver;
        }
        let off = self.bypass || (!self.stages.is_empty() && self.stages.iter().all(|(_, asked)| !asked));
        if off { Cause::HooksDisabled } else { Cause::NoHooks }
    }

    fn mattered(&self, entry: &Entry) -> bool {
        match entry.row.phase {
            PointKind::Value => entry.item.is_none_or(|i| !self.items[i].by_receiver),
            PointKind::Gate => !self.receiver_said_no,
            _ => true,
        }
    }
}

/// How long at least one of these spans lasted.
fn covered<'s>(spans: impl Iterator<Item = &'s (Duration, Duration)>) -> Duration {
    let mut spans: Vec<_> = spans.copied().collect();
    spans.sort_unstable();
    let (mut sum, mut until) = (Duration::ZERO, Duration::ZERO);
    for (from, to) in spans {
        let from = from.max(until);
        sum = sum.saturating_add(to.saturating_sub(from));
        until = until.max(to);
    }
    sum
}

impl Entry {
    fn refuses(&self) -> bool {
        self.messages.iter().any(|message| message.severity == Severity::Error)
    }

    fn was_asked(&self) -> bool {
        use HookResult::*;
        // One that was cut short was asked all the same, if its question went out.
        self.row.attempts > 0
            || !matches!(self.row.result, SkippedCondition | SkippedSideEffects | Cancelled | Observing)
    }
}

fn degraded(entry: &Entry) -> Option<Degraded> {
    let (failure, policy): (_, &Policy) = (entry.row.failure?, entry.applied.as_ref()?);
    Some(Degraded {
        hook: entry.row.id,
        failure,
        applied: policy.as_str().to_owned(),
        attribute: entry.row.attribute.clone(),
    })
}
