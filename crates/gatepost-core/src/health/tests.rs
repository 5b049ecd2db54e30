use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + second)
}

fn seen(second: i64, ok: bool, last: bool, own: bool) -> Seen<'static> {
    Seen { started_at: at(second), ended_at: at(second), error: (!ok).then_some("answered 500"), last, own }
}

fn folded(health: &mut Health, list: &[Seen<'_>]) -> Turn {
    let mut tally = Tally::default();
    list.iter().for_each(|one| tally.add(one));
    health.fold(&tally, list.last().map_or(at(0), |one| one.ended_at))
}

#[test]
fn one_failure_is_none_two_are_failing_and_a_success_recovers() {
    let mut health = Health::default();
    assert_eq!(folded(&mut health, &[seen(1, false, false, false)]), Turn::default());
    assert!(!health.is_failing());
    folded(&mut health, &[seen(2, false, false, false)]);
    assert!(health.is_failing());
    assert_eq!(health.since(), Some(at(1)));
    assert_eq!(health.last_error(), Some("answered 500"));
    let turn = folded(&mut health, &[seen(9, true, false, false)]);
    assert_eq!(turn, Turn { recovered: true, told: true });
    assert!(!health.is_failing());
    assert_eq!(health.since(), Some(at(9)));
    assert_eq!(health.last_day(at(10)), (1, 2));
    assert_eq!(folded(&mut health, &[seen(10, true, false, false)]), Turn::default());
}

#[test]
fn a_failure_that_ends_its_delivery_is_failing_at_once() {
    let mut health = Health::default();
    folded(&mut health, &[seen(1, false, true, false)]);
    assert!(health.is_failing());
}

#[test]
fn what_failed_for_own_events_alone_is_not_told() {
    let mut health = Health::default();
    folded(&mut health, &[seen(1, false, true, true), seen(2, false, true, true)]);
    assert!(health.is_failing());
    assert_eq!(folded(&mut health, &[seen(3, true, false, true)]), Turn { recovered: true, told: false });
    folded(&mut health, &[seen(4, false, true, true), seen(5, false, false, false)]);
    assert_eq!(folded(&mut health, &[seen(6, true, false, true)]), Turn { recovered: true, told: true });
}

#[test]
fn five_days_and_twenty_attempts_of_nothing_but_failures_give_up() {
    let day = 86_400;
    let mut health = Health::default();
    for attempt in 0..19 {
        folded(&mut health, &[seen(attempt * day, false, false, false)]);
    }
    assert!(!health.is_given_up(), "18 days, 19 attempts");
    folded(&mut health, &[seen(19 * day, false, false, false)]);
    assert!(health.is_given_up());
    let mut quick = Health::default();
    for attempt in 0..40 {
        folded(&mut quick, &[seen(attempt * day / 8 - attempt, false, false, false)]);
    }
    assert!(!quick.is_given_up(), "40 attempts, a little less than five days");
    folded(&mut quick, &[seen(5 * day, false, false, false)]);
    assert!(quick.is_given_up());
    folded(&mut quick, &[seen(5 * day + 1, true, false, false)]);
    assert!(!quick.is_given_up());
}

#[test]
fn a_reset_makes_earlier_failures_count_for_nothing() {
    let mut health = Health::default();
    folded(&mut health, &[seen(1, false, true, false)]);
    health.reset(at(5));
    assert!(!health.is_failing());
    assert_eq!((health.since(), health.last_error()), (Some(at(5)), None));
    // Under way when it was reset, heard of afterwards.
    folded(&mut health, &[seen(4, false, true, false)]);
    assert!(!health.is_failing());
    assert_eq!(health.last_day(at(6)), (0, 2));
    folded(&mut health, &[seen(7, false, true, false)]);
    assert!(health.is_failing());
}

#[test]
fn counts_are_of_a_day() {
    let mut health = Health::default();
    folded(&mut health, &[seen(0, true, false, false), seen(1, false, false, false)]);
    assert_eq!(health.last_day(at(22 * HOUR)), (1, 1));
    assert_eq!(health.last_day(at(25 * HOUR)), (0, 0));
    folded(&mut health, &[seen(25 * HOUR, true, false, false)]);
    assert_eq!(health.last_day(at(25 * HOUR)), (1, 0));
}

#[test]
fn errors_are_cut_between_characters() {
    let long = "é".repeat(400);
    assert_eq!(cut(&long).len(), ERROR_MAX);
    assert_eq!(cut("one\ntwo"), "one");
}

proptest! {
    /// However attempts are put into tallies, and tallies appended, the health is the same.
    #[test]
    fn tallies_fold_to_what_their_attempts_fold_to(
        attempts in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0_u8..3), 0..24),
    ) {
        let list: Vec<_> = attempts
            .iter()
            .enumerate()
            .map(|(i, (ok, last, own, cut))| (seen(i as i64 * 977, *ok, *last && !*ok, *own), *cut))
            .collect();
        let mut single = Health::default();
        let mut recoveries = Vec::new();
        for (one, _) in &list {
            recoveries.push(folded(&mut single, &[*one]));
        }
        let now = at(24 * 977);
        let mut grouped = Health::default();
        let (mut whole, mut part) = (Tally::default(), Tally::default());
        let mut told = false;
        let mut recovered = false;
        for (one, cut) in &list {
            part.add(one);
            if *cut > 0 {
                whole.append(std::mem::take(&mut part));
            }
            if *cut > 1 {
                let turn = grouped.fold(&std::mem::take(&mut whole), now);
                told |= turn.told;
                recovered |= turn.recovered;
            }
        }
        whole.append(part);
        let turn = grouped.fold(&whole, now);
        prop_assert_eq!(recovered || turn.recovered, recoveries.iter().any(|t| t.recovered));
        prop_assert_eq!(told || turn.told, recoveries.iter().any(|t| t.told));
        prop_assert_eq!(&grouped.run, &single.run);
        prop_assert_eq!(grouped.since(), single.since());
        prop_assert_eq!(grouped.last_error(), single.last_error());
        prop_assert_eq!(grouped.last_day(now), single.last_day(now));
    }
}
