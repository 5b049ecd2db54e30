//! The breaker of one endpoint: after enough failures it is not asked any more, so that a dead
//! receiver costs an invocation nothing. A pure function of state, event and time.
//!
//! Closed → open after 5 failures in a row, or when more than half of at least 20 answers within
//! 10 s failed. Open for 5 s, doubling to 60 s; then half-open: one *probe* in the background (the
//! `test` point) decides. User traffic never pays for the probe.

use std::time::Duration;

/// Failures in a row that open it.
pub const IN_A_ROW: u32 = 5;
/// The window of the ratio rule.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Answers within the window before the ratio counts.
pub const WINDOW_LEAST: u32 = 20;
/// How long it stays open at first.
pub const OPEN_FIRST: Duration = Duration::from_secs(5);
/// How long it stays open at most.
pub const OPEN_MOST: Duration = Duration::from_secs(60);

const BUCKETS: usize = 10;

/// What happened, as the breaker sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerEvent {
    /// An answer came; a refusal is one too.
    Answered,
    /// A failure that counts.
    Failed,
    /// The background probe was begun.
    ProbeStarted,
    /// The background probe passed.
    ProbePassed,
    /// The background probe failed.
    ProbeFailed,
    /// The endpoint's settings changed: what was learned about the old ones is void.
    Reset,
}

/// Answers and failures of one second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bucket {
    second: u64,
    answered: u32,
    failed: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Closed { in_a_row: u32, window: [Bucket; BUCKETS] },
    Open { until: Duration, pause: Duration },
    HalfOpen { pause: Duration },
}

/// What is shown of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// Calls are refused while the probe is under way.
    HalfOpen,
}

/// One endpoint's breaker. Times are monotonic, from any fixed moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breaker {
    phase: Phase,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { phase: Phase::Closed { in_a_row: 0, window: [Bucket::default(); BUCKETS] } }
    }
}

impl Breaker {
    /// A closed one.
    pub fn new() -> Self {
        Breaker::default()
    }

    /// Whether a call may be made. Only closed breakers let users' calls pass.
    pub fn admits(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// What is shown of it.
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// When the background probe is to be made; `None` when none is due at any time.
    pub fn probe_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Open { until, .. } => Some(until),
            Phase::Closed { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// The breaker after `event`.
    #[must_use]
    pub fn after(self, event: BreakerEvent, now: Duration) -> Self {
        use BreakerEvent::*;
        match (self.phase, event) {
            (_, Reset | ProbePassed) => Breaker::new(),
            (Phase::Closed { in_a_row, window }, Answered | Failed) => counted(in_a_row, window, event == Failed, now),
            (Phase::Open { until, pause }, ProbeStarted) if now >= until => {
                Breaker { phase: Phase::HalfOpen { pause } }
            }
            (Phase::Open { pause, .. } | Phase::HalfOpen { pause }, ProbeFailed) => open(doubled(pause), now),
            // Answers to calls that were begun before it opened change nothing.
            (_, Answered | Failed | ProbeStarted | ProbeFailed) => self,
        }
    }
}

fn doubled(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(OPEN_MOST)
}

fn open(pause: Duration, now: Duration) -> Breaker {
    Breaker { phase: Phase::Open { until: now.saturating_add(pause), pause } }
}

fn counted(in_a_row: u32, mut window: [Bucket; BUCKETS], failed: bool, now: Duration) -> Breaker {
    let second = now.as_secs();
    // `second % 10` is a place in ten buckets.
    let bucket = &mut window[(second % BUCKETS as u64) as usize];
    if bucket.second != second {
        *bucket = Bucket { second, ..Bucket::default() };
    }
    let count = if failed { &mut bucket.failed } else { &mut bucket.answered };
    *count = count.saturating_add(1);
    let in_a_row = if failed { in_a_row.saturating_add(1) } else { 0 };
    let recent = window.iter().filter(|bucket| second.saturating_sub(bucket.second) < WINDOW.as_secs());
    let (bad, all) = recent.fold((0u32, 0u32), |(bad, all), bucket| {
        (bad.saturating_add(bucket.failed), all.saturating_add(bucket.failed).saturating_add(bucket.answered))
    });
    let too_many = all >= WINDOW_LEAST && u64::from(bad) * 2 > u64::from(all);
    if in_a_row >= IN_A_ROW || (failed && too_many) {
        return open(OPEN_FIRST, now);
    }
    Breaker { phase: Phase::Closed { in_a_row, window } }
}

#[cfg(test)]
mod tests {
    use super::BreakerEvent::*;
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn run(events: &[(u64, BreakerEvent)]) -> Breaker {
        events.iter().fold(Breaker::new(), |breaker, (ms, event)| breaker.after(*event, at(*ms)))
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_answers_start_over() {
        let four: Vec<_> = (0..4).map(|i| (i * 100, Failed)).collect();
        assert!(run(&four).admits());
        let five: Vec<_> = (0..5).map(|i| (i * 100, Failed)).collect();
        let open = run(&five);
        assert!(!open.admits());
        assert_eq!(open.probe_at(), Some(at(5_400)));
        // A refusal is an answer: it starts the count over.
        let mixed: Vec<_> = (0..12).map(|i| (i * 2_000, if i % 5 == 4 { Answered } else { Failed })).collect();
        assert!(run(&mixed).admits());
    }

    #[test]
    fn more_than_half_of_twenty_within_ten_seconds_opens_it() {
        let pattern = |i: u64| if i % 2 == 1 { Failed } else { Answered };
        let even: Vec<_> = (0..40).map(|i| (i * 100, pattern(i))).collect();
        // Exactly half is not more than half; one more is.
        assert!(run(&even[..]).admits());
        let mut worse = even.clone();
        worse.push((4_000, Failed));
        assert!(!run(&worse).admits());
        // Nineteen are too few.
        let few: Vec<_> = (0..19).map(|i| (i * 100, if i % 3 == 2 { Answered } else { Failed })).collect();
        assert!(run(&few).admits());
        // What is older than the window does not count.
        let slow: Vec<_> = (0..60).map(|i| (i * 1_000, if i % 3 == 2 { Answered } else { Failed })).collect();
        assert!(run(&slow).admits());
    }

    #[test]
    fn the_pause_doubles_to_a_minute_and_a_passed_probe_closes() {
        let mut breaker = run(&[(0, Failed), (0, Failed), (0, Failed), (0, Failed), (0, Failed)]);
        let mut now = Duration::ZERO;
        for pause in [5, 10, 20, 40, 60, 60] {
            assert_eq!(breaker.probe_at(), Some(now + Duration::from_secs(pause)));
            assert!(!breaker.after(ProbeStarted, now).admits());
            assert_eq!(breaker.after(ProbeStarted, now).state(), BreakerState::Open, "too early");
            now += Duration::from_secs(pause);
            breaker = breaker.after(ProbeStarted, now);
            assert_eq!((breaker.state(), breaker.probe_at()), (BreakerState::HalfOpen, None));
            // A late answer to an old call is not the probe's.
            assert_eq!(breaker.after(Answered, now), breaker);
            breaker = breaker.after(ProbeFailed, now);
        }
        assert_eq!(breaker.after(ProbePassed, now), Breaker::new());
        assert_eq!(breaker.after(Reset, now), Breaker::new());
    }

    proptest! {
        #[test]
        fn without_failures_it_never_opens(times in proptest::collection::vec(0u64..100_000, 0..200)) {
            let breaker = times.iter().fold(Breaker::new(), |b, ms| b.after(Answered, at(*ms)));
            prop_assert!(breaker.admits());
        }

        #[test]
        fn an_open_breaker_always_has_a_way_back(events in proptest::collection::vec((0u64..1_000, 0u8..5), 0..200)) {
            let (mut now, mut breaker) = (Duration::ZERO, Breaker::new());
            for (step, event) in events {
                now += at(step);
                let event = [Answered, Failed, ProbeStarted, ProbePassed, ProbeFailed][event as usize];
                breaker = breaker.after(event, now);
                if breaker.state() == BreakerState::Open {
                    let due = breaker.probe_at().unwrap();
                    prop_assert!(due <= now + OPEN_MOST);
                    prop_assert_eq!(breaker.after(ProbeStarted, due).state(), BreakerState::HalfOpen);
                }
            }
        }
    }
}
