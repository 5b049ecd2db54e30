//! Work that outlives its request: replays, erasures, and retention.
//!
//! Workers are ticks with a thin loop around them. A tick does one small step, each of which is one
//! transaction of the store: what is done and how far it has come are written down together, so a
//! process that ends at any moment goes on where it was, and publishers wait for no more than a step.
//! Tenants are served in turn.

mod erasure;
mod replay;
mod retention;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use gatepost_core::{TenantKey, Timestamp};
use gatepost_store::{Due, Job, JobKey, JobState, Stage, StoreError, Task, Wake};

use crate::deliver::Command;
use crate::engine::Engine;
pub(crate) use replay::count_replay;
pub(crate) use retention::Retention;

/// Jobs of one tenant looked at for one that has something to do.
const PER_TENANT: usize = 64;
/// How often it is looked for jobs without being told of one.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long a worker rests after the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What a tick came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// There may be more to do at once.
    More,
    /// Nothing to do before then (`None`: before something new is asked for).
    Idle(Option<Timestamp>),
}

/// What a step of one job came to.
pub(crate) enum Stepped {
    /// It can go on.
    On,
    /// It can go on then.
    RestsUntil(Timestamp),
    /// It has ended.
    Ended,
}

/// The worker of jobs.
pub(crate) struct Worker {
    engine: Engine,
    /// Whose turn was last.
    last: Option<TenantKey>,
    /// Jobs that wait for something, and until when.
    resting: HashMap<JobKey, Timestamp>,
    /// How often a replay has waited for its webhook to keep up, since its last step.
    waits: HashMap<JobKey, u32>,
    /// Clearings under way.
    clearings: HashMap<TenantKey, erasure::Clearing>,
    /// The first of the tenants whose jobs all rest, since something was done last.
    nothing_since: Option<TenantKey>,
}

impl Worker {
    pub(crate) fn new(engine: Engine) -> Self {
        Worker {
            engine,
            last: None,
            resting: HashMap::new(),
            waits: HashMap::new(),
            clearings: HashMap::new(),
            nothing_since: None,
        }
    }

    /// One step of the next tenant's oldest job that can go on.
    ///
    /// # Errors
    /// The store's. The step can be tried again.
    pub(crate) async fn tick(&mut self, now: Timestamp) -> Result<Progress, StoreError> {
        let waiting = self.engine.waiting();
        self.resting.retain(|_, until| *until > waiting);
        let jobs = self.engine.inner.store.open_jobs(self.last, PER_TENANT).await?;
        let Some(first) = jobs.first() else {
            // What was known of jobs that ended elsewhere (cancelled) is of no more use.
            *self = Worker::new(self.engine.clone());
            return Ok(Progress::Idle(None));
        };
        let tenant = first.tenant;
        self.last = Some(tenant);
        // Clearing is done once for as many erasures as possible: it comes last.
        let clearing: BTreeSet<JobKey> =
            jobs.iter().filter(|job| job.stage == Stage::Clearing).map(|job| job.key).collect();
        let awake = |job: &&Job| !self.resting.contains_key(&job.key);
        let next =
            jobs.iter().find(|job| awake(job) && !clearing.contains(&job.key)).or_else(|| jobs.iter().find(awake));
        let Some(job) = next.cloned() else { return Ok(self.nothing_to_do(tenant)) };
        self.nothing_since = None;
        let key = job.key;
        let stepped = match job.task.clone() {
            Task::Replay(replay) => self.replay(job, &replay, now).await?,
            Task::Erase(_) if job.stage == Stage::Clearing => self.clear(&job, clearing, now).await?,
            Task::Erase(_) => self.erase(job, now).await?,
        };
        match stepped {
            Stepped::On => {}
            Stepped::RestsUntil(at) => {
                self.resting.insert(key, at);
            }
            Stepped::Ended => {
                self.waits.remove(&key);
            }
        }
        Ok(Progress::More)
    }

    /// All jobs of this tenant rest. Once around, all jobs of everybody do.
    fn nothing_to_do(&mut self, tenant: TenantKey) -> Progress {
        if self.nothing_since != Some(tenant) {
            self.nothing_since.get_or_insert(tenant);
            return Progress::More;
        }
        self.nothing_since = None;
        Progress::Idle(self.resting.values().min().copied())
    }

    /// Tells the lane what a step made.
    fn hand_over(&self, dues: Vec<Due>, wakes: Vec<Wake>) {
        for due in &dues {
            self.engine.inner.streams.changed(due.tenant, due.seq);
        }
        if !dues.is_empty() {
            self.engine.inner.inbox.send(Command::Offer(dues));
        }
        if !wakes.is_empty() {
            self.engine.inner.inbox.send(Command::Wake(wakes));
        }
    }

    /// What is left to do after a step that left the job so; `None`: it had ended before.
    fn after(&self, job: Option<Job>) -> Stepped {
        match job {
            Some(job) if !job.state.is_final() => Stepped::On,
            Some(job) => {
                self.report(&job);
                Stepped::Ended
            }
            None => Stepped::Ended,
        }
    }

    /// Ends a job for good.
    async fn end(&self, job: &Job, error: Option<&str>, now: Timestamp) -> Result<Stepped, StoreError> {
        let ended = self.engine.inner.store.end_job(job.key, error.map(str::to_owned), now).await?;
        Ok(self.after(ended))
    }

    fn report(&self, job: &Job) {
        self.engine.inner.metrics.job_ended(job.task.kind(), job.state.as_str());
        match job.state {
            JobState::Failed => {
                tracing::warn!(job = %job.id, kind = job.task.kind(), error = job.error.as_deref(), "a job failed");
            }
            _ => tracing::info!(job = %job.id, kind = job.task.kind(), total = job.total, "a job is done"),
        }
    }
}

impl Engine {
    /// Does jobs until the server stops.
    pub(crate) async fn keep_working(self) {
        let mut worker = Worker::new(self.clone());
        while !self.draining() {
            let wait = match worker.tick(self.now()).await {
                Ok(Progress::More) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(Progress::Idle(until)) => until.map_or(LOOK_EVERY, |at| at.since(self.waiting())),
                Err(error) => {
                    tracing::warn!(%error, "jobs rest: the store failed");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = self.inner.jobs.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Removes what is older than is kept until the server stops.
    pub(crate) async fn keep_retention(self) {
        let mut retention = Retention::new(self.clone());
        while !self.draining() {
            let wait = match retention.tick(self.now()).await {
                Ok(until) => until.since(self.waiting()),
                Err(error) => {
                    tracing::warn!(%error, "retention rests: the store failed");
                    AFTER_FAILURE
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}
