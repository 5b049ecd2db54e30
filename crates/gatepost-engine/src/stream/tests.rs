use bytes::Bytes;
use gatepost_core::EventId;
use proptest::prelude::*;

use super::ring::Found;
use super::*;

fn event(seq: i64, bytes: usize) -> Arc<Event> {
    let (accepted_at, seq) = (Timestamp::from_secs(seq), EventSeq(seq));
    Arc::new(Event {
        seq,
        tenant: TenantKey(1),
        id: EventId::numbered(accepted_at, seq),
        event_type: "a.b".parse().unwrap(),
        timestamp: accepted_at,
        accepted_at,
        subject: None,
        urgency: Default::default(),
        attributes: None,
        data: Bytes::from(vec![b'1'; bytes]),
        registry_version: 0,
        trace: None,
    })
}

fn change(seq: i64, bytes: usize) -> Change {
    Change::Event { event: event(seq, bytes), deliveries: 0 }
}

/// The numbers of the events a reader finds, or nothing where there is a gap.
fn read(ring: &Ring, from: u64, max: usize) -> Option<Vec<(u64, i64)>> {
    match ring.read(from, max) {
        Found::Gap(_) => None,
        Found::Changes(changes) => Some(
            changes
                .into_iter()
                .map(|(number, change)| match &*change {
                    Change::Event { event, .. } => (number, event.seq.0),
                    other => panic!("{other:?}"),
                })
                .collect(),
        ),
    }
}

#[test]
fn a_ring_keeps_the_last_changes_and_tells_of_a_gap() {
    let ring = Ring::new(Timestamp::EPOCH);
    assert_eq!((ring.head(), read(&ring, 1, 9)), (0, Some(vec![])));
    assert_eq!(read(&ring, 2, 9), None, "not given yet");
    ring.append((1..=5).map(|seq| change(seq, 0)).collect(), 1 << 20);
    assert_eq!(read(&ring, 1, 2), Some(vec![(1, 1), (2, 2)]));
    assert_eq!(read(&ring, 4, 9), Some(vec![(4, 4), (5, 5)]));
    assert_eq!(read(&ring, 6, 9), Some(vec![]));
    // A reset is a gap for everybody who has not been told of it.
    ring.reset();
    assert_eq!((ring.head(), read(&ring, 6, 9)), (6, None));
    ring.append(vec![change(7, 0)], 1 << 20);
    assert_eq!(read(&ring, 7, 9), Some(vec![(7, 7)]));
}

#[test]
fn p10_a_ring_is_bounded_by_bytes_and_keeps_one_however_large() {
    let ring = Ring::new(Timestamp::EPOCH);
    for seq in 1..=10 {
        ring.append(vec![change(seq, 10_000)], 35_000);
    }
    assert_eq!((read(&ring, 7, 9), read(&ring, 8, 9).map(|found| found.len())), (None, Some(3)));
    ring.append(vec![change(11, 1 << 20)], 35_000);
    assert_eq!(read(&ring, 11, 9), Some(vec![(11, 11)]));
    for seq in 12..=5_000 {
        ring.append(vec![change(seq, 0)], usize::MAX);
    }
    assert_eq!((read(&ring, 904, 1), read(&ring, 905, 1)), (None, Some(vec![(905, 905)])));
}

#[test]
fn p10_a_full_letter_box_is_emptied_and_says_so() {
    let ring = Ring::new(Timestamp::EPOCH);
    for seq in 1..=8_192 {
        ring.drop_in(Fact::Accepted { event: event(seq, 0), deliveries: 1 }, 8 << 20);
    }
    let taken = ring.take(3, 100);
    assert_eq!((taken.facts.len(), taken.lost), (3, false));
    // Facts that call for many deliveries are taken fewer at a time, one at least.
    assert_eq!(ring.take(100, 2).facts.len(), 2);
    ring.drop_in(Fact::Accepted { event: event(1, 0), deliveries: 1_000 }, 8 << 20);
    for seq in 1..=8_192 {
        ring.drop_in(Fact::Accepted { event: event(seq, 0), deliveries: 1 }, 8 << 20);
    }
    let taken = ring.take(10_000, u32::MAX);
    assert!(taken.lost && taken.facts.len() < 8_192, "{}", taken.facts.len());
    ring.drop_in(Fact::Accepted { event: event(1, 5 << 20), deliveries: 1_000 }, 8 << 20);
    assert!(!ring.take(1, 1).lost);
    ring.drop_in(Fact::Accepted { event: event(1, 5 << 20), deliveries: 1 }, 8 << 20);
    ring.drop_in(Fact::Accepted { event: event(2, 5 << 20), deliveries: 1 }, 8 << 20);
    let taken = ring.take(9, 9);
    assert_eq!((taken.facts.len(), taken.lost), (1, true));
}

proptest! {
    #[test]
    fn positions_survive_text_and_grow_with_it(epoch in 1_700_000_000_000_000_i64..1_800_000_000_000_000, pair in any::<(u32, u32)>()) {
        let of = |number: u32| {
            let text = format!("{epoch}{number:012}");
            let position: Position = text.parse().unwrap();
            prop_assert_eq!(position.to_string(), text.clone());
            Ok(text)
        };
        let (one, two) = (of(pair.0)?, of(pair.1)?);
        prop_assert_eq!(one.cmp(&two), pair.0.cmp(&pair.1));
    }

    #[test]
    fn any_text_is_a_position_or_none(text in ".{0,40}") {
        let _ = text.parse::<Position>();
    }
}
