//! What the lane tells of outcomes that are on disk: to the health of webhooks, and to who publishes own
//! events.

use std::sync::Arc;

use gatepost_core::delivery::{AttemptRecord, DeliveryState, Outcome as Came};
use gatepost_core::health::Seen;
use gatepost_store::{Next, Settled};

use super::lane::Unsettled;
use crate::health::{HealthTracker, Outcome};
use crate::own_events::OwnEvents;

/// See the module.
pub(crate) struct Watch {
    pub(crate) health: Arc<HealthTracker>,
    pub(crate) own_events: Arc<OwnEvents>,
}

impl Watch {
    /// These outcomes are on disk (or were superseded: of those nothing is told).
    pub(super) fn recorded(&self, batch: &[Unsettled], results: &[Settled]) {
        let recorded = || batch.iter().zip(results).filter(|(_, result)| **result == Settled::Recorded);
        // An error's text is made where there is one.
        let errors: Vec<Option<String>> = recorded().map(|(one, _)| error_of(&one.settlement.attempt)).collect();
        self.health.count(recorded().zip(&errors).map(|((one, _), error)| {
            let attempt = &one.settlement.attempt;
            Outcome {
                webhook: one.settlement.webhook,
                revision: attempt.sent.revision,
                auto_disable: one.auto_disable,
                seen: Seen {
                    started_at: attempt.started_at,
                    ended_at: attempt.ended_at(),
                    error: error.as_deref(),
                    last: matches!(one.settlement.next, Next::End(DeliveryState::Failed, _)),
                    own: !one.settlement.tell,
                },
            }
        }));
        let told = |(one, _): (&Unsettled, _)| {
            one.settlement.tell && matches!(one.settlement.next, Next::End(DeliveryState::Failed, _))
        };
        if recorded().any(told) {
            self.own_events.noted();
        }
    }
}

/// Why an attempt failed, for people; `None`: it did not.
fn error_of(attempt: &AttemptRecord) -> Option<String> {
    match (attempt.outcome, &attempt.error, attempt.status) {
        (Came::Ok, ..) => None,
        (_, Some(error), _) => Some(error.clone()),
        (Came::HttpStatus, None, Some(status)) => Some(format!("the endpoint answered {status}")),
        (outcome, None, _) => Some(outcome.as_str().to_owned()),
    }
}
