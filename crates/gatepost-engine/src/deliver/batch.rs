//! How many outcomes are recorded in one transaction.

use gatepost_core::delivery::AttemptRecord;
use gatepost_store::Settlement;

/// Outcomes recorded in one transaction: about ten milliseconds of the store's writer. Fewer would let
/// bursts of publishing, which share the writer, keep outcomes from being recorded.
const SETTLE_MAX: usize = 2_048;
/// Bytes of bodies and answers recorded in one transaction (a single larger one goes alone): what it
/// costs must not grow with the payloads (P10).
const SETTLE_BYTES: usize = 4 << 20;

/// How many of the outcomes, which weigh this much, are recorded together: at least one.
pub(super) fn batch_len(weights: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0;
    let fits = |weight: usize| {
        sum += weight;
        sum <= SETTLE_BYTES
    };
    weights.take(SETTLE_MAX).map(fits).take_while(|fits| *fits).count().max(1)
}

/// What is written for an outcome, about.
pub(super) fn settlement_bytes(settlement: &Settlement) -> usize {
    settlement.freeze.as_ref().map_or(0, |body| body.len()) + answer_bytes(&settlement.attempt)
}

/// What is kept of the receiver's answer.
pub(super) fn answer_bytes(record: &AttemptRecord) -> usize {
    record.response.as_ref().map_or(0, |response| {
        let headers: usize = response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        response.body.len() + headers
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_batch_of_outcomes_is_bounded_by_number_and_by_bytes() {
        for (weights, expected) in [
            (vec![10; 3], 3),
            (vec![10; SETTLE_MAX + 1], SETTLE_MAX),
            (vec![1 << 20; 10], 4),
            (vec![SETTLE_BYTES + 1, 10], 1),
            (vec![10, SETTLE_BYTES, 10], 1),
        ] {
            assert_eq!(batch_len(weights.iter().copied()), expected, "{} of {:?}", weights.len(), weights.first());
        }
    }
}
