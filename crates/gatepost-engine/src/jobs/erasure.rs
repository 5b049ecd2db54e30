//! Steps of an erasure: overwrite, then clear what still holds the old bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use gatepost_core::Timestamp;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_store::{Cleared, Erasure, Job, JobKey, Stage, StoreError, Task};

use super::{Stepped, Worker};
use crate::deliver::Command;

/// Events erased in one step, with all that was sent of them: each is some pages written.
const ERASE: usize = 25;
/// How long readers are left to finish who stand in the way of clearing the log.
const WAIT: Duration = Duration::from_millis(100);

/// The clearing of the files after erasures of one tenant.
#[derive(Clone, Debug)]
pub(super) struct Clearing {
    /// The erasures that were through when it began.
    jobs: BTreeSet<JobKey>,
    /// Where it goes on.
    position: u64,
}

impl Worker {
    pub(super) async fn erase(&mut self, job: Job, now: Timestamp) -> Result<Stepped, StoreError> {
        let inner = &self.engine.inner;
        // Questions asked about the person first: they are records of their own. Whose type they are of
        // is not kept, so an erasure of one type leaves them.
        if let Task::Erase(Erasure { subject: Some(subject), subject_type: None, .. }) = &job.task
            && inner.store.erase_invocations(job.tenant, subject, ERASE).await? == ERASE
        {
            return Ok(Stepped::On);
        }
        // What is not made could not be cancelled: the store goes no further than that.
        if !self.engine.all_made(job.tenant).await? {
            return Ok(Stepped::RestsUntil(self.engine.waiting().saturating_add(WAIT)));
        }
        let doubt = inner.inbox.unless_resolved(Command::LookForOwed);
        let step = inner.store.erase(job.key, now, ERASE).await?;
        doubt.resolved();
        for (webhook, seq) in step.cancelled {
            inner.inbox.send(Command::Cancelled { webhook, seq });
            inner.metrics.delivery_ended(DeliveryState::Cancelled, Some(Reason::ByUser));
        }
        if step.job.as_ref().is_some_and(|job| job.stage == Stage::Clearing && job.total > 0) {
            inner.streams.erased(job.tenant);
        }
        self.hand_over(step.dues, step.wakes);
        Ok(self.after(step.job))
    }

    /// Clears the files for `waiting`, the tenant's erasures that have come so far.
    pub(super) async fn clear(
        &mut self,
        job: &Job,
        waiting: BTreeSet<JobKey>,
        now: Timestamp,
    ) -> Result<Stepped, StoreError> {
        let fresh = Clearing { jobs: waiting, position: 0 };
        let mut clearing = self.clearings.remove(&job.tenant).unwrap_or_else(|| fresh.clone());
        if !clearing.jobs.contains(&job.key) {
            // What it erased may be behind the place the clearing has come to.
            clearing = fresh;
        }
        let step = self.engine.inner.store.clear_traces(clearing.position).await;
        if let Ok(Cleared::UpTo(next)) = step {
            clearing.position = next;
        }
        if !matches!(step, Ok(Cleared::Wholly)) {
            self.clearings.insert(job.tenant, clearing);
            let rests = Stepped::RestsUntil(self.engine.waiting().saturating_add(WAIT));
            return step.map(|step| if matches!(step, Cleared::UpTo(_)) { Stepped::On } else { rests });
        }
        for key in clearing.jobs {
            if let Some(ended) = self.engine.inner.store.end_job(key, None, now).await? {
                self.report(&ended);
            }
        }
        Ok(Stepped::Ended)
    }
}
