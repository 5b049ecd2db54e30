//! The engine, simulated: thousands of histories made from seeds, in which publishers, owners,
//! operators, receivers, the store and the process itself do whatever chance wants, in virtual time
//! and without threads; after each, P1 to P3, P6, order, batches, urgency,
//! fairness and bounds are checked.
//!
//! A history that breaks a promise is told with its seed; `GATEPOST_SEED=<seed> cargo test -p
//! gatepost-engine simulation` runs it alone. `GATEPOST_TEST_SLOW=1` runs twenty times as many.

mod abandoned;
mod check;
mod dice;
mod forward;
mod ledger;
mod own;
mod receivers;
mod steps;
mod store;
mod world;

use self::dice::Dice;
use self::ledger::{Kind, Violation};
use self::store::Bug;
use self::world::{Size, World};

/// How a history ended.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    seed: u64,
    violations: Vec<Violation>,
    trace: u64,
    requests: u64,
    crashes: u32,
}

fn history(seed: u64, size: Size, bug: Option<Bug>) -> Told {
    let mut world = World::new(seed, size, bug);
    let mut dice = Dice::new(seed, 5);
    for _ in 0..1 + dice.below(3) {
        world.create_hook();
    }
    for _ in 0..10 + dice.below(45) {
        world.step();
        if world.is_broken() {
            break;
        }
    }
    if !world.is_broken() {
        world.finish();
    }
    let ledger = ledger::open(&world.ledger);
    Told {
        seed,
        violations: ledger.violations.clone(),
        trace: ledger.trace,
        requests: ledger.requests,
        crashes: world.crashes,
    }
}

/// Histories of a run of the fast tier, per size.
const HISTORIES: u64 = 750;

fn seeds(first: u64) -> Box<dyn Iterator<Item = u64>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(seed) = variable("GATEPOST_SEED") {
        return Box::new(std::iter::once(seed.parse().expect("GATEPOST_SEED is a number")));
    }
    let times = if variable("GATEPOST_TEST_SLOW").is_some() { 20 } else { 1 };
    Box::new(first..first + HISTORIES * times)
}

fn run(size: Size, first: u64) {
    let (mut histories, mut requests, mut crashes) = (0_u64, 0, 0);
    for seed in seeds(first) {
        let told = history(seed, size, None);
        assert!(
            told.violations.is_empty(),
            "history {seed} ({size:?}) breaks a promise; run it alone with\n  GATEPOST_SEED={seed} cargo test -p \
             gatepost-engine simulation\n{:#?}",
            told.violations
        );
        histories += 1;
        requests += told.requests;
        crashes += u64::from(told.crashes);
    }
    println!("{histories} histories, {requests} requests, {crashes} crashes");
    assert!(requests > histories, "hardly anything was sent: the simulation proves nothing");
}

#[test]
fn p1_p2_p3_p6_hold_in_every_history_with_little_room() {
    run(Size::Tiny, 0);
}

#[test]
fn p1_p2_p3_p6_hold_in_every_history_with_much_room() {
    run(Size::Large, 1_000_000);
}

#[test]
fn a_seed_is_a_history() {
    for seed in [3, 7, 1_000_003] {
        assert_eq!(history(seed, Size::Tiny, None), history(seed, Size::Tiny, None));
    }
    assert_ne!(history(3, Size::Tiny, None).trace, history(4, Size::Tiny, None).trace);
}

/// The simulation is a test that can fail: with a bug planted it must say so, and say the right thing.
fn finds(bug: Bug, expected: &[Kind]) {
    finds_with(Size::Tiny, bug, expected);
}

fn finds_with(size: Size, bug: Bug, expected: &[Kind]) {
    const WITHIN: u64 = 300;
    for seed in 0..WITHIN {
        let told = history(seed, size, Some(bug));
        if let Some(found) = told.violations.iter().find(|violation| expected.contains(&violation.kind)) {
            println!("{bug:?} found by history {seed}: {found:?}");
            return;
        }
    }
    panic!("{bug:?} was not found within {WITHIN} histories");
}

#[test]
fn finds_a_lost_settle() {
    finds(Bug::LostSettle, &[Kind::LostSettle]);
}

#[test]
fn finds_a_double_claim() {
    finds(Bug::DoubleClaim, &[Kind::DoubleClaim]);
}

#[test]
fn finds_a_dropped_retry() {
    finds(Bug::DroppedRetry, &[Kind::NotDone]);
}

#[test]
fn finds_wrong_bytes_on_retry() {
    finds(Bug::WrongBytes, &[Kind::WrongBytes]);
}

#[test]
fn finds_a_starved_tenant() {
    finds(Bug::StarvedTenant, &[Kind::Idle, Kind::NotDone]);
}

#[test]
fn finds_an_unfair_turn() {
    // With few slots nobody has more than its share of them, whoever goes first.
    finds_with(Size::Large, Bug::Favourite, &[Kind::Unfair]);
}

#[test]
fn finds_a_lost_order() {
    finds(Bug::LostOrder, &[Kind::OutOfOrder]);
}

#[test]
fn finds_a_queue_that_is_not_hurried() {
    finds(Bug::LostHurry, &[Kind::Urgency]);
}

#[test]
fn finds_a_delivery_made_in_secret() {
    finds(Bug::MadeInSecret, &[Kind::Idle, Kind::NotDone]);
}

#[test]
fn finds_a_batch_without_an_event() {
    finds(Bug::ShortBatch, &[Kind::WrongBytes]);
}

#[test]
fn finds_a_delivery_never_made() {
    finds(Bug::LostEvent, &[Kind::WrongMatch]);
}

#[test]
fn finds_waits_that_follow_a_clock_that_is_set() {
    finds(Bug::WaitsByTheClock, &[Kind::Idle, Kind::NotDone, Kind::Spin]);
}

#[test]
fn finds_an_own_event_that_is_not_told() {
    finds(Bug::LostNews, &[Kind::WrongNews]);
}

#[test]
fn finds_an_own_event_told_twice() {
    finds(Bug::ToldTwice, &[Kind::WrongNews]);
}
