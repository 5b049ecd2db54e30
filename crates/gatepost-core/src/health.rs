//! How an endpoint fares: when it is failing, when it has recovered, when it is given up.
//!
//! Attempts are counted in a [`Tally`] where they are made and folded into the [`Health`] kept of the
//! webhook from time to time, so that nothing is written per attempt. Folding a tally gives what folding
//! its attempts one by one would give; only of several recoveries within one tally a single one is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// An endpoint is failing once so many attempts failed in a row (or one that was its delivery's last).
pub const FAILING_AFTER: u32 = 2;
/// A webhook is disabled when nothing but failures came for this long (DESIGN 4.1) ...
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(5 * 86_400);
/// ... and there were at least so many.
pub const GIVEN_UP_ATTEMPTS: u32 = 20;
/// Bytes of an error kept.
const ERROR_MAX: usize = 300;
/// Hours counted.
const HOURS: i64 = 24;
const HOUR: i64 = 3_600;

/// One attempt, as far as health looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen<'a> {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why it failed; `None`: it did not.
    pub error: Option<&'a str>,
    /// It was its delivery's last, and failed.
    pub last: bool,
    /// It was for one of Gatepost's own events: what follows from it is not told by another.
    pub own: bool,
}

/// Failures that no success came between.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// When the first of them began.
    since: Timestamp,
    /// When the last of them ended.
    until: Timestamp,
    /// How many.
    attempts: u32,
    /// One of them was its delivery's last.
    last: bool,
    /// Not all of them were for Gatepost's own events.
    foreign: bool,
}

impl Run {
    fn add(run: &mut Option<Run>, seen: &Seen<'_>) {
        let one =
            Run { since: seen.started_at, until: seen.ended_at, attempts: 1, last: seen.last, foreign: !seen.own };
        *run = Run::joined(run.take(), Some(one));
    }

    fn joined(first: Option<Run>, second: Option<Run>) -> Option<Run> {
        match (first, second) {
            (Some(a), Some(b)) => Some(Run {
                since: a.since.min(b.since),
                until: a.until.max(b.until),
                attempts: a.attempts.saturating_add(b.attempts),
                last: a.last || b.last,
                foreign: a.foreign || b.foreign,
            }),
            (a, b) => a.or(b),
        }
    }

    fn is_failing(&self) -> bool {
        self.attempts >= FAILING_AFTER || self.last
    }
}

/// Successes and failures by hour.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Hours(Vec<(i64, u32, u32)>);

impl Hours {
    fn add(&mut self, hour: i64, ok: u32, failed: u32) {
        match self.0.iter_mut().find(|(at, ..)| *at == hour) {
            Some((_, yes, no)) => {
                *yes = yes.saturating_add(ok);
                *no = no.saturating_add(failed);
            }
            None => self.0.push((hour, ok, failed)),
        }
    }

    fn sum(&self, now: Timestamp) -> (u64, u64) {
        let from = hour_of(now) - HOURS;
        let recent = self.0.iter().filter(|(hour, ..)| *hour > from);
        recent.fold((0, 0), |(yes, no), (_, ok, failed)| (yes + u64::from(*ok), no + u64::from(*failed)))
    }

    fn forget(&mut self, now: Timestamp) {
        let from = hour_of(now) - HOURS;
        self.0.retain(|(hour, ..)| *hour > from);
    }
}

fn hour_of(at: Timestamp) -> i64 {
    at.as_secs().div_euclid(HOUR)
}

/// Attempts counted but not yet folded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    hours: Hours,
    /// Failures before the first success; with none, all of them are in `tail`.
    head: Option<Run>,
    /// When the first and the last success ended.
    success: Option<(Timestamp, Timestamp)>,
    /// The success that ended failing after an earlier success (the latest such), and whether that is
    /// to be told (of any of them).
    middle: Option<(Timestamp, bool)>,
    /// Failures after the last success.
    tail: Option<Run>,
    /// Why the last one failed, and when.
    last_error: Option<(Timestamp, String)>,
}

impl Tally {
    /// Counts an attempt.
    pub fn add(&mut self, seen: &Seen<'_>) {
        let hour = hour_of(seen.ended_at);
        match seen.error {
            Some(error) => {
                self.hours.add(hour, 0, 1);
                self.last_error = Some((seen.ended_at, cut(error)));
                Run::add(&mut self.tail, seen);
            }
            None => {
                self.hours.add(hour, 1, 0);
                match self.success {
                    None => self.head = self.tail.take(),
                    Some(_) => self.end_tail(seen.ended_at),
                }
                let first = self.success.map_or(seen.ended_at, |(first, _)| first);
                self.success = Some((first, seen.ended_at));
            }
        }
    }

    /// Counts what `later` counted after this.
    pub fn append(&mut self, later: Tally) {
        for (hour, ok, failed) in later.hours.0 {
            self.hours.add(hour, ok, failed);
        }
        self.last_error = later.last_error.or(self.last_error.take());
        match later.success {
            None => self.tail = Run::joined(self.tail.take(), later.tail),
            Some((first, last)) => {
                self.tail = Run::joined(self.tail.take(), later.head);
                match self.success {
                    None => self.head = self.tail.take(),
                    Some(_) => self.end_tail(first),
                }
                self.success = Some((self.success.map_or(first, |(own, _)| own), last));
                if let Some((at, told)) = later.middle {
                    self.middle = Some((at, told || self.middle.is_some_and(|(_, told)| told)));
                }
                self.tail = later.tail;
            }
        }
    }

    fn end_tail(&mut self, at: Timestamp) {
        if let Some(run) = self.tail.take().filter(Run::is_failing) {
            self.middle = Some((at, run.foreign || self.middle.is_some_and(|(_, told)| told)));
        }
    }
}

/// The first line of an error, cut to what is kept.
fn cut(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let end = (0..=ERROR_MAX.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    line[..end].to_owned()
}

/// How an endpoint fares, as kept.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Health {
    since: Option<Timestamp>,
    run: Option<Run>,
    hours: Hours,
    last_error: Option<String>,
    /// What was counted before this moment says nothing about the endpoint as it is now.
    fresh_since: Option<Timestamp>,
}

/// What folding a tally changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// It was failing and is not, or was not in between.
    pub recovered: bool,
    /// And that is to be told: not only Gatepost's own events had failed.
    pub told: bool,
}

impl Health {
    /// Folds a tally in.
    pub fn fold(&mut self, tally: &Tally, now: Timestamp) -> Turn {
        for (hour, ok, failed) in &tally.hours.0 {
            self.hours.add(*hour, *ok, *failed);
        }
        self.hours.forget(now);
        let fresh = |at: Timestamp| self.fresh_since.is_none_or(|since| at >= since);
        let run = |run: &Option<Run>| run.clone().filter(|run| fresh(run.until));
        let (head, tail) = (run(&tally.head), run(&tally.tail));
        if let Some((_, error)) = tally.last_error.as_ref().filter(|(at, _)| fresh(*at)) {
            self.last_error = Some(error.clone());
        }
        let Some((first, _)) = tally.success else {
            let was = self.is_failing();
            self.run = Run::joined(self.run.take(), tail);
            self.entered(was);
            return Turn::default();
        };
        let before = Run::joined(self.run.take(), head).filter(Run::is_failing);
        let turn = Turn {
            recovered: before.is_some() || tally.middle.is_some(),
            told: before.as_ref().is_some_and(|run| run.foreign) || tally.middle.is_some_and(|(_, told)| told),
        };
        if turn.recovered {
            self.since = Some(tally.middle.map_or(first, |(at, _)| at));
        }
        self.run = tail;
        self.entered(false);
        turn
    }

    fn entered(&mut self, was: bool) {
        if let Some(run) = self.run.as_ref().filter(|run| !was && run.is_failing()) {
            self.since = Some(run.since);
        }
    }

    /// Whether nothing but failures came lately.
    pub fn is_failing(&self) -> bool {
        self.run.as_ref().is_some_and(Run::is_failing)
    }

    /// Whether sustained failure disables the webhook (DESIGN 4.1).
    pub fn is_given_up(&self) -> bool {
        self.run
            .as_ref()
            .is_some_and(|run| run.attempts >= GIVEN_UP_ATTEMPTS && run.until.since(run.since) >= GIVEN_UP_AFTER)
    }

    /// Since when it is as it is; `None`: since it was registered.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Attempts that succeeded and that failed within a day.
    pub fn last_day(&self, now: Timestamp) -> (u64, u64) {
        self.hours.sum(now)
    }

    /// Why the last attempt that failed did.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// The endpoint is another, or its owner says it is well: failures of before no longer count.
    pub fn reset(&mut self, now: Timestamp) {
        self.run = None;
        self.last_error = None;
        self.since = Some(now);
        self.fresh_since = Some(now);
    }

    /// The webhook was disabled.
    pub fn disabled(&mut self, now: Timestamp) {
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests;
