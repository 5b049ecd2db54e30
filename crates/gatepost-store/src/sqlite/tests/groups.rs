//! Requests of one transaction: what becomes of the others when one of them fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::sync::oneshot::Receiver;

use crate::sqlite::checkpoint::{Sizes, Wal};
use crate::sqlite::error::{DbError, DbResult};
use crate::sqlite::meta;
use crate::sqlite::schema::Place;
use crate::sqlite::writer::{Job, Tally, Tx, Writer, job, repeatable};
use crate::{Result, StoreError};

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Well,
    Fails,
    Panics,
}

/// A request of a group.
#[derive(Clone, Copy, Debug)]
struct Plan {
    end: End,
    /// Whether it can be run again.
    again: bool,
}

const WELL: Plan = Plan { end: End::Well, again: true };
const FAILS: Plan = Plan { end: End::Fails, again: true };
const ONCE: Plan = Plan { end: End::Well, again: false };
const ONCE_FAILS: Plan = Plan { end: End::Fails, again: false };

fn name(at: usize) -> String {
    format!("request {at}")
}

/// What a request does: writes its name, counts its runs, and takes a number.
fn work(plan: Plan, at: usize, runs: Arc<AtomicUsize>) -> impl FnMut(&mut Tx<'_>) -> DbResult<i64> + Send + 'static {
    move |tx| {
        runs.fetch_add(1, Ordering::Relaxed);
        meta::set(tx, &name(at), b"done")?;
        tx.numbers.event += 1;
        match plan.end {
            End::Well => Ok(tx.numbers.event),
            End::Fails => Err(DbError::corrupt("test", "failing on purpose")),
            End::Panics => panic!("on purpose"),
        }
    }
}

/// What came of a group: for each request its answer, its runs, and whether what it wrote is there.
struct Came {
    answers: Vec<Result<i64>>,
    runs: Vec<usize>,
    written: Vec<bool>,
}

fn run(plans: &[Plan]) -> Came {
    let (tally, wal) = (Arc::new(Tally::default()), Arc::new(Wal::new(Sizes::default())));
    let mut writer = Writer::open(Place::Memory, 1 << 10, Arc::clone(&tally), wal, Arc::default()).unwrap();
    let runs: Vec<Arc<AtomicUsize>> = plans.iter().map(|_| Arc::default()).collect();
    let mut answers: Vec<Receiver<Result<i64>>> = Vec::new();
    let jobs = plans.iter().enumerate().map(|(at, plan)| {
        let work = work(*plan, at, Arc::clone(&runs[at]));
        if plan.again { repeatable(work) } else { job(work) }
    });
    let jobs: Vec<Box<dyn Job>> = jobs
        .map(|(job, answer)| {
            answers.push(answer);
            job
        })
        .collect();
    let mut jobs = jobs.into_iter();
    let first = jobs.next().unwrap();
    writer.group(first, || jobs.next());
    assert_eq!(tally.commits.load(Ordering::Relaxed), 1, "one transaction");
    let is_there = |at| {
        let rows = "SELECT count(*) FROM meta WHERE name = ?1";
        writer.conn().query_row(rows, [name(at)], |row| row.get(0)).unwrap()
    };
    Came {
        answers: answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect(),
        runs: runs.iter().map(|runs| runs.load(Ordering::Relaxed)).collect(),
        written: (0..plans.len()).map(is_there).collect(),
    }
}

fn assert_apart(plans: &[Plan]) -> Came {
    let came = run(plans);
    let mut numbers = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        let well = plan.end == End::Well;
        assert_eq!((came.answers[at].is_ok(), came.written[at]), (well, well), "request {at} of {plans:?}");
        match &came.answers[at] {
            Ok(number) => numbers.push(*number),
            Err(error) => assert!(matches!(error, StoreError::Corrupt(_)), "{error}"),
        }
        assert!(plan.again || came.runs[at] == 1, "request {at} of {plans:?} ran {} times", came.runs[at]);
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "numbers only grow: {numbers:?}");
    came
}

#[test]
fn a_group_that_goes_well_runs_each_request_once() {
    assert_eq!(assert_apart(&[WELL, WELL, ONCE, WELL]).runs, [1, 1, 1, 1]);
}

#[test]
fn when_one_fails_the_others_are_run_again_and_it_is_not_seen() {
    let came = assert_apart(&[WELL, WELL, FAILS, WELL]);
    assert_eq!(came.runs[..2], [2, 2], "they were taken back with it");
    assert_eq!(came.runs[3], 1, "it came after");
    // The second one to fail takes nothing back but its own.
    let came = assert_apart(&[WELL, FAILS, WELL, FAILS, WELL]);
    assert_eq!((came.runs[0], came.runs[2], came.runs[4]), (2, 1, 1));
}

#[test]
fn what_can_be_run_once_only_is_never_taken_back() {
    for plans in [[ONCE, FAILS, WELL], [WELL, ONCE, FAILS], [ONCE_FAILS, WELL, ONCE], [WELL, ONCE_FAILS, FAILS]] {
        assert_apart(&plans);
    }
}

proptest! {
    #[test]
    fn every_request_ends_as_if_it_were_alone(
        plans in proptest::collection::vec(
            (prop_oneof![4 => Just(End::Well), 2 => Just(End::Fails), 1 => Just(End::Panics)], any::<bool>())
                .prop_map(|(end, again)| Plan { end, again }),
            1..12,
        )
    ) {
        assert_apart(&plans);
    }
}
