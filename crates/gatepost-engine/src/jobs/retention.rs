//! Retention: passes over all tenants, in small steps with pauses, so that publishing never waits for
//! one.
//!
//! While others write, a step is hardly more than a flush, so that who meets one waits no longer than
//! for another publisher, and the pauses are long against the steps. All the same more is removed than is
//! accepted. When nobody else writes, steps are larger and pauses short.

use std::time::Duration;

use gatepost_core::Timestamp;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_store::{Retained, RetentionCursor, StoreError};

use crate::engine::Engine;

/// Rows one step removes, about: at first and as soon as others write, at least, and at most.
const ROWS: usize = 10;
const ROWS_MIN: usize = 5;
const ROWS_MAX: usize = 2_000;
/// What a step may take, with its reading, its waiting for the writer and its flush: while others write,
/// and otherwise.
const STEP_BUSY: Duration = Duration::from_micros(500);
const STEP_QUIET: Duration = Duration::from_millis(5);
/// Between two steps, while others write: at most, and so many times what the step took.
const PAUSE_MAX: Duration = Duration::from_millis(100);
const PAUSE_TIMES: u32 = 19;
/// Between two steps that removed something: at least.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// For each event accepted so many are removed, if there are.
const AHEAD: f64 = 2.0;
/// So many attempts and other rows weigh as much as an event.
const BESIDE: usize = 4;
/// Requests others make of the writer each second from which on they are considered: a server that has
/// nothing to do makes a few.
const BUSY_PER_S: f64 = 50.0;
/// Who published may do so again.
const BUSY_AFTER_EVENT: Duration = Duration::from_secs(5);
/// Between two passes: retention is counted in days.
const PASS_EVERY: Duration = Duration::from_secs(3_600);

/// The worker of retention.
pub(crate) struct Retention {
    engine: Engine,
    cursor: RetentionCursor,
    pace: Pace,
}

impl Retention {
    pub(crate) fn new(engine: Engine) -> Self {
        Retention { engine, cursor: RetentionCursor::START, pace: Pace::default() }
    }

    /// One step, for what the clock says is old at `now`; when the next one is due, as waits are measured.
    ///
    /// # Errors
    /// The store's. The step can be tried again.
    pub(crate) async fn tick(&mut self, now: Timestamp) -> Result<Timestamp, StoreError> {
        let inner = &self.engine.inner;
        let began = self.engine.waiting();
        let step = inner.store.retain(now, self.cursor, self.pace.rows).await?;
        let after = self.engine.waiting();
        inner.metrics.retained(step.events, step.attempts, step.others);
        for _ in 0..step.expired {
            inner.metrics.delivery_ended(DeliveryState::Failed, Some(Reason::Expired));
        }
        let Some(next) = step.next else {
            self.cursor = RetentionCursor::START;
            return Ok(after.saturating_add(PASS_EVERY));
        };
        self.cursor = next;
        let removed = weight(&step);
        if removed == 0 {
            return Ok(after);
        }
        let seen =
            Seen { at: after, accepted: inner.metrics.events_accepted(), written: inner.store.stats().await?.requests };
        Ok(after.saturating_add(self.pace.pause(seen, after.since(began), removed)))
    }
}

/// What was removed, in events. What is kept less long than its event is removed apart, and may be several
/// times as much: it must not make retention fall behind.
fn weight(step: &Retained) -> usize {
    step.events + step.expired + (step.attempts + step.others).div_ceil(BESIDE)
}

/// What others had done at the end of a step.
#[derive(Clone, Copy)]
struct Seen {
    at: Timestamp,
    /// Events accepted.
    accepted: u64,
    /// Requests the writer had done, the steps themselves included.
    written: u64,
}

impl Seen {
    /// Requests of others each second.
    fn others_since(&self, last: Seen) -> f64 {
        // One of them is the step.
        let others = self.written.saturating_sub(last.written + 1);
        others as f64 / self.at.since(last.at).as_secs_f64().max(1e-6)
    }
}

/// How large the steps are and how far apart.
struct Pace {
    rows: usize,
    last: Option<Seen>,
    /// When events were seen to be accepted last.
    accepted_at: Option<Timestamp>,
    busy: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { rows: ROWS, last: None, accepted_at: None, busy: false }
    }
}

impl Pace {
    /// How long to pause after a step that `took` so long and removed so much.
    fn pause(&mut self, seen: Seen, took: Duration, removed: usize) -> Duration {
        let least = took.max(PAUSE_MIN);
        // Before the second step nobody knows: carefully, then.
        let Some(last) = self.last.replace(seen) else { return least.max(took * PAUSE_TIMES).min(PAUSE_MAX) };
        let accepted = seen.accepted.saturating_sub(last.accepted);
        if accepted > 0 {
            self.accepted_at = Some(seen.at);
        }
        let lately = self.accepted_at.is_some_and(|at| seen.at.since(at) < BUSY_AFTER_EVENT);
        let busy = lately || seen.others_since(last) >= BUSY_PER_S;
        if busy && !std::mem::replace(&mut self.busy, busy) {
            self.rows = self.rows.min(ROWS);
        }
        self.busy = busy;
        let mut pause = least;
        if busy {
            // As long as it takes to accept half of what was removed.
            let each = seen.at.since(last.at).as_secs_f64() / accepted.max(1) as f64;
            let keeps_up = Duration::from_secs_f64(each * removed as f64 / AHEAD);
            pause = keeps_up.min(took * PAUSE_TIMES).min(PAUSE_MAX).max(least);
            if keeps_up < least {
                // Flushes are what takes the time: larger steps keep up where shorter pauses do not.
                self.grow();
                return pause;
            }
        }
        let most = if busy { STEP_BUSY } else { STEP_QUIET };
        if took > most {
            self.rows = (self.rows / 2).max(ROWS_MIN);
        } else if took < most / 2 {
            self.grow();
        }
        pause
    }

    fn grow(&mut self) {
        self.rows = (self.rows + self.rows / 4).min(ROWS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: usize = 100;

    fn at(micros: u64) -> Timestamp {
        Timestamp::EPOCH.saturating_add(Duration::from_micros(micros))
    }

    /// Goes on for a while: steps that all take so long and remove [`EVENTS`], while others have so many
    /// events accepted and so many requests written each second. The pauses, the first few apart.
    fn pauses(pace: &mut Pace, took: Duration, accepted: u64, written: u64) -> Vec<Duration> {
        let (began, before) = pace.last.map_or((at(1), (0, 0)), |last| (last.at, (last.accepted, last.written)));
        let (mut now, mut pauses) = (began, Vec::new());
        for step in 1..=200 {
            now = now.saturating_add(took);
            let passed = now.since(began).as_secs_f64();
            let others = |per_s: u64| (per_s as f64 * passed) as u64;
            let seen =
                Seen { at: now, accepted: before.0 + others(accepted), written: before.1 + others(written) + step };
            let pause = pace.pause(seen, took, EVENTS);
            now = now.saturating_add(pause);
            pauses.push(pause);
        }
        pauses.split_off(20)
    }

    fn rows(took: Duration, accepted: u64, written: u64) -> usize {
        let mut pace = Pace::default();
        pauses(&mut pace, took, accepted, written);
        pace.rows
    }

    #[test]
    fn a_step_is_as_large_as_its_time_allows() {
        assert_eq!(rows(STEP_BUSY * 2, 100, 100), ROWS_MIN);
        assert_eq!(rows(STEP_BUSY * 3 / 4, 100, 100), ROWS);
        assert_eq!(rows(STEP_BUSY / 4, 100, 100), ROWS_MAX);
        assert_eq!(rows(STEP_BUSY * 2, 0, 0), ROWS_MAX, "nobody waits for it");
        assert_eq!(rows(STEP_QUIET * 2, 0, 0), ROWS_MIN);
    }

    #[test]
    fn it_is_small_again_as_soon_as_somebody_publishes() {
        let mut pace = Pace::default();
        pauses(&mut pace, STEP_QUIET / 4, 0, 0);
        assert_eq!(pace.rows, ROWS_MAX);
        let last = pace.last.unwrap();
        let seen =
            Seen { at: last.at.saturating_add(PAUSE_MIN), accepted: last.accepted + 1, written: last.written + 2 };
        pace.pause(seen, STEP_BUSY * 3 / 4, EVENTS);
        assert_eq!(pace.rows, ROWS);
    }

    #[test]
    fn pauses_are_long_while_others_write_and_short_otherwise() {
        let took = Duration::from_millis(3);
        for (accepted, written) in [(20, 20), (500, 1_000), (0, 1_000)] {
            let busy = pauses(&mut Pace::default(), took, accepted, written);
            assert!(busy.iter().all(|pause| *pause == took * PAUSE_TIMES), "{accepted}, {written}: {busy:?}");
        }
        for written in [0, 5] {
            let quiet = pauses(&mut Pace::default(), PAUSE_MAX, 0, written);
            assert!(quiet.iter().all(|pause| *pause == PAUSE_MAX), "{written}: {quiet:?}");
        }
        let slow = pauses(&mut Pace::default(), PAUSE_MAX * 3, 500, 1_000);
        assert!(slow.iter().all(|pause| *pause == PAUSE_MAX * 3), "half of the time at most: {slow:?}");
    }

    #[test]
    fn more_is_removed_than_is_accepted() {
        let took = Duration::from_millis(1);
        let paused = pauses(&mut Pace::default(), took, 20_000, 1_000);
        let each = took + paused.iter().sum::<Duration>() / u32::try_from(paused.len()).unwrap();
        let ratio = EVENTS as f64 / each.as_secs_f64() / 20_000.0;
        assert!((1.3..AHEAD + 0.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn rows_beside_events_weigh_less_and_never_nothing() {
        for (events, attempts, others, expired, expected) in
            [(0, 0, 0, 0, 0), (5, 0, 0, 0, 5), (0, 1, 0, 0, 1), (0, 6, 2, 0, 2), (3, 8, 0, 2, 7)]
        {
            assert_eq!(weight(&Retained { events, attempts, others, expired, ..Retained::default() }), expected);
        }
    }

    #[test]
    fn a_slow_disk_makes_steps_larger_when_small_ones_do_not_keep_up() {
        assert_eq!(rows(STEP_BUSY * 20, 20_000, 1_000), ROWS_MAX);
    }
}
