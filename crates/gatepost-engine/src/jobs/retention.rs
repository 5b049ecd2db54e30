//! Retention: passes over all tenants, in small steps with pauses, so that publishing never waits for
//! one.

use std::time::Duration;

use gatepost_core::Timestamp;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_store::{RetentionCursor, StoreError};

use crate::engine::Engine;

/// Rows one step removes, about: a few milliseconds of the writer's time.
const ROWS: usize = 200;
/// Between two steps that removed something.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two passes: retention is counted in days.
const PASS_EVERY: Duration = Duration::from_secs(3_600);

/// The worker of retention.
pub(crate) struct Retention {
    engine: Engine,
    cursor: RetentionCursor,
}

impl Retention {
    pub(crate) fn new(engine: Engine) -> Self {
        Retention { engine, cursor: RetentionCursor::START }
    }

    /// One step; when the next one is due.
    ///
    /// # Errors
    /// The store's. The step can be tried again.
    pub(crate) async fn tick(&mut self, now: Timestamp) -> Result<Timestamp, StoreError> {
        let inner = &self.engine.inner;
        let step = inner.store.retain(now, self.cursor, ROWS).await?;
        inner.metrics.retained(step.events, step.attempts, step.others);
        for _ in 0..step.expired {
            inner.metrics.delivery_ended(DeliveryState::Failed, Some(Reason::Expired));
        }
        let Some(next) = step.next else {
            self.cursor = RetentionCursor::START;
            return Ok(now.saturating_add(PASS_EVERY));
        };
        self.cursor = next;
        let removed = step.events + step.attempts + step.others + step.expired > 0;
        Ok(if removed { now.saturating_add(PAUSE) } else { now })
    }
}
