use super::*;

const SIZES: [u32; 12] = [128, 129, 150, 192, 256, 384, 512, 1_024, 2_048, 4_096, 65_536, 1 << 20];

fn memory(mib: u32) -> Memory {
    Memory::of_mib(mib).unwrap()
}

#[test]
fn only_sensible_sizes_can_be_set() {
    assert_eq!([127, 0, (1 << 20) + 1].map(Memory::of_mib), [None; 3]);
    assert_eq!(Memory::default().mib(), 1_024);
    assert_eq!(memory(*MIB.start()).mib(), 128);
}

#[test]
fn p10_what_follows_from_a_setting_is_never_more_than_the_setting() {
    for mib in SIZES {
        let memory = memory(mib);
        let shares: usize = SHARES.iter().map(|share| memory.bytes(*share)).sum();
        assert!(shares + PROGRAM_MIB as usize * ONE_MIB <= mib as usize * ONE_MIB, "{mib}");
        let Plan { store, limits, idle_connections } = memory.plan(ONE_MIB);
        let lane = limits.lane;
        let kib = |kib: u32| kib as usize * KIB;
        let parts = [
            (CACHES, kib(store.writer_cache_kib) + store.readers * kib(store.reader_cache_kib)),
            (BODIES, limits.body_bytes.max(store.queue_bytes) * BODY_COPIES),
            (ANSWERS, limits.answer_bytes.max(limits.answers_at_once * 2 * store.page_bytes)),
            (INCOMING, limits.connections * INCOMING_BYTES),
            (OUTGOING, idle_connections * IDLE_BYTES + (lane.slots + lane.extra_slots) * IN_USE_BYTES),
            (WAITING, lane.head_bytes * LaneLimits::HEADS_AT_WORST + limits.offer_bytes),
            (WAITING, (lane.heads + limits.offers) * HEAD_BYTES),
            (FLIGHT, lane.flight_bytes * LaneLimits::FLIGHT_AT_WORST),
            (FLIGHT, lane.unsettled * OUTCOME_BYTES),
            (ROUTES, limits.routes * ROUTE_BYTES),
            (TENANTS, limits.tenant_bytes),
            (STREAMS, limits.stream_ring_bytes + limits.stream_fact_bytes + limits.stream_chunk_bytes),
            (HOOKS, limits.hook_question_bytes + limits.hook_record_bytes + limits.hook_known_bytes),
        ];
        for (share, held) in parts {
            assert!(held <= memory.bytes(share), "{mib} MiB, {}: {held} of {}", share.what, memory.bytes(share));
        }
    }
}

#[test]
fn the_smallest_setting_is_enough_for_everything_to_work() {
    for mib in SIZES {
        let Plan { store, limits, idle_connections } = memory(mib).plan(ONE_MIB);
        let lane = limits.lane;
        assert!(limits.max_batch_bytes >= ONE_MIB && limits.max_batch_bytes <= memory(mib).max_body_bytes(), "{mib}");
        assert!(lane.slots >= 64 && lane.window >= 48 && lane.unsettled >= 500, "{mib}: {lane:?}");
        assert!(lane.heads >= 32 * lane.window && limits.offers >= 1_024 && limits.routes >= 200, "{mib}");
        assert!(limits.connections >= 300 && idle_connections >= 200, "{mib}");
        // The largest event there may be has room in every place it goes through.
        assert!(lane.head_bytes >= ONE_MIB && lane.flight_bytes >= ONE_MIB && limits.offer_bytes >= ONE_MIB, "{mib}");
        assert!(store.page_bytes >= ONE_MIB / 2 && store.reader_cache_kib >= 500, "{mib}");
    }
}

#[test]
fn the_default_bounds_nothing_that_ordinary_use_needs() {
    let memory = Memory::default();
    let Plan { store, limits, idle_connections } = memory.plan(ONE_MIB);
    assert_eq!(limits.max_batch_bytes, 16 * ONE_MIB);
    assert!(memory.max_body_bytes() >= 64 * ONE_MIB, "every size a body may be set to");
    assert_eq!((limits.lane.slots, limits.lane.window), (1_024, 256));
    assert!(idle_connections >= 5_000 && limits.connections >= 4_000, "{idle_connections} {}", limits.connections);
    assert_eq!(store.page_bytes, 8 * ONE_MIB);
}

#[test]
fn a_larger_setting_bounds_nothing_closer() {
    let least = |plan: &Plan| {
        let (lane, limits) = (plan.limits.lane, plan.limits);
        [lane.slots, lane.window, lane.heads, lane.head_bytes, lane.flight_bytes, lane.unsettled, limits.body_bytes]
            .into_iter()
            .chain([limits.answer_bytes, limits.connections, limits.offers, limits.routes, plan.idle_connections])
            .chain([plan.store.page_bytes, plan.store.writer_cache_kib as usize, limits.max_batch_bytes])
            .collect::<Vec<_>>()
    };
    for pair in SIZES.windows(2) {
        let (small, large) = (least(&memory(pair[0]).plan(ONE_MIB)), least(&memory(pair[1]).plan(ONE_MIB)));
        assert!(small.iter().zip(&large).all(|(small, large)| small <= large), "{pair:?}: {small:?} {large:?}");
    }
}

#[test]
fn the_documentation_has_every_share() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    for share in SHARES {
        let line = format!("| {} | {} % |", share.what, share.percent);
        assert!(text.contains(&line), "docs/operations.md has no {line:?}");
    }
    assert!(text.contains(&format!("| the program itself | {PROGRAM_MIB} MiB |")), "what the program takes");
}
