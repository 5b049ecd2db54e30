//! Jobs: what was asked for and takes longer than a request.

use gatepost_core::JobId;
use gatepost_core::tenant::Tenant;
use gatepost_store::{CancelJobOutcome, Job, NewJob, Page, PageRequest, Task};

use crate::engine::Engine;
use crate::error::{ConflictCode, Error, Kind, Result};

impl Engine {
    /// Makes a job; the worker hears of it at once.
    pub(super) async fn begin_job(&self, tenant: &Tenant, task: Task) -> Result<Job> {
        let now = self.now();
        let new = NewJob { tenant: tenant.key, id: JobId::new(self.origin_time(), &*self.inner.entropy), task, now };
        let job = self.inner.store.create_job(new).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        self.inner.metrics.job_begun(job.task.kind());
        self.inner.jobs.notify_one();
        Ok(job)
    }

    /// A job.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant has no such job.
    pub async fn job(&self, tenant: &Tenant, id: JobId) -> Result<Job> {
        self.inner.store.job(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Job))
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn jobs(&self, tenant: &Tenant, page: PageRequest) -> Result<Page<Job>> {
        Ok(self.inner.store.jobs(tenant.key, page).await?)
    }

    /// Ends a job that has not ended; what it has done stays done.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it has ended already.
    pub async fn cancel_job(&self, tenant: &Tenant, id: JobId) -> Result<Job> {
        match self.inner.store.cancel_job(tenant.key, id, self.now()).await? {
            CancelJobOutcome::Cancelled(job) => {
                self.inner.metrics.job_ended(job.task.kind(), job.state.as_str());
                self.inner.sweep.notify_one();
                Ok(*job)
            }
            CancelJobOutcome::Final(state) => Err(Error::Conflict {
                code: ConflictCode::JobFinal,
                message: format!("the job is {} already", state.as_str()),
            }),
            CancelJobOutcome::NotFound => Err(Error::NotFound(Kind::Job)),
        }
    }
}
