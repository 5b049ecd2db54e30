//! The trace of an event, and the spans of its publishing and its attempts, told from their numbers rather
//! than drawn: so they need not be kept to be shown, and are the same whether or not anybody records them.

use gatepost_core::event::Event;
use gatepost_core::trace::TraceContext;
use gatepost_core::{DeliveryId, Timestamp};

/// The span of an event's publishing: in the publisher's trace if it named one; else in one of the event's
/// own, sampled, so that a receiver that records traces can tell its event by it.
pub(crate) fn of_publish(event: &Event) -> TraceContext {
    let (trace_id, sampled) = match event.trace {
        Some(publisher) => (publisher.trace_id, publisher.sampled),
        None => (own(event.accepted_at, event.seq.0), true),
    };
    let span_id = span(trace_id, event.seq.0 as u64, 0);
    TraceContext { trace_id, span_id, sampled }
}

/// The trace context an attempt is sent under, a child of its event's publishing.
pub(crate) fn of_attempt(event: &Event, delivery: DeliveryId, number: u32) -> TraceContext {
    let publish = of_publish(event);
    // Attempts are numbered from 1: no attempt has the span of a publish.
    TraceContext { span_id: span(publish.trace_id, delivery.seq().0 as u64, number), ..publish }
}

/// The trace of an event whose publisher named none. (All-zero ids are invalid.)
fn own(accepted_at: Timestamp, seq: i64) -> [u8; 16] {
    let accepted = accepted_at.as_micros() as u64;
    let low = mix(accepted ^ mix(seq as u64)) | 1;
    (u128::from(mix(accepted)) << 64 | u128::from(low)).to_be_bytes()
}

fn span(trace_id: [u8; 16], thing: u64, number: u32) -> [u8; 8] {
    let low = u128::from_be_bytes(trace_id) as u64;
    (mix(mix(thing) ^ low ^ u64::from(number)) | 1).to_be_bytes()
}

/// SplitMix64's finaliser: spreads consecutive numbers over all values.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
