//! Where an operation takes its randomness from.
//!
//! A request under an idempotency key may have to be run again: its change was committed, and the
//! server died before the answer was recorded. Then it must come to the same thing, not to a second one.
//! So within such a request randomness, and the time that new ids begin with, are functions of the
//! request; an operation that makes something gives it the same id (and the same secret) whenever it is
//! run, and the store answers what it has under that id already. Outside such a request nothing changes.
//!
//! Nonces for sealing are never taken from here: the vault has its own source.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use gatepost_core::hashing::keyed_hash;
use gatepost_core::{Entropy, Timestamp};

use crate::engine::Engine;

tokio::task_local! {
    static ORIGIN: OnceCell<Origin>;
}

struct Origin {
    /// Secret: what is derived from it may be a signing secret.
    seed: [u8; 32],
    at: Timestamp,
    drawn: Cell<u64>,
}

impl Origin {
    fn fill(&self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(16) {
            let number = self.drawn.replace(self.drawn.get() + 1);
            let block = keyed_hash(&self.seed, &[Some(b"origin"), Some(&number.to_be_bytes())]);
            part.copy_from_slice(&block[..part.len()]);
        }
    }
}

/// Runs a request that may turn out to be repeatable.
pub async fn repeatable<F: Future>(request: F) -> F::Output {
    ORIGIN.scope(OnceCell::new(), request).await
}

/// Makes the request under way repeatable: from here on it draws from `seed`. Outside of
/// [`repeatable`] it does nothing.
pub(crate) fn begin(seed: [u8; 32], at: Timestamp) {
    // A request begins once.
    let _ = ORIGIN.try_with(|origin| origin.set(Origin { seed, at, drawn: Cell::new(0) }));
}

/// Randomness that is the request's own within a repeatable one.
pub(crate) struct OriginEntropy(Arc<dyn Entropy>);

impl OriginEntropy {
    /// Around the real one.
    pub(crate) fn around(real: Arc<dyn Entropy>) -> Arc<dyn Entropy> {
        Arc::new(OriginEntropy(real))
    }
}

impl Entropy for OriginEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let drawn = ORIGIN.try_with(|origin| match origin.get() {
            Some(origin) => {
                origin.fill(bytes);
                true
            }
            None => false,
        });
        if !drawn.unwrap_or(false) {
            self.0.fill(bytes);
        }
    }
}

impl Engine {
    /// The time new ids begin with: now, or when the request under way first came.
    pub(crate) fn origin_time(&self) -> Timestamp {
        let at = ORIGIN.try_with(|origin| origin.get().map(|origin| origin.at));
        at.ok().flatten().unwrap_or_else(|| self.now())
    }
}

#[cfg(test)]
mod tests {
    use gatepost_testkit::SeededEntropy;

    use super::*;

    #[tokio::test]
    async fn a_request_run_again_draws_the_same_and_others_do_not() {
        let entropy = OriginEntropy::around(Arc::new(SeededEntropy::new(1)));
        let draw = |seed: Option<[u8; 32]>| {
            let entropy = Arc::clone(&entropy);
            repeatable(async move {
                if let Some(seed) = seed {
                    begin(seed, Timestamp::EPOCH);
                }
                let (mut one, mut two) = ([0; 40], [0; 7]);
                entropy.fill(&mut one);
                entropy.fill(&mut two);
                (one, two)
            })
        };
        let first = draw(Some([1; 32])).await;
        assert_eq!(first, draw(Some([1; 32])).await);
        assert_ne!(first, draw(Some([2; 32])).await);
        assert_ne!(draw(None).await, draw(None).await);
        assert_ne!(first.0[..16], first.0[16..32]);
        // Not in a request at all.
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        assert_ne!(bytes, [0; 8]);
    }
}
