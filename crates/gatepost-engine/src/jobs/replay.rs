//! Steps of a replay: choose events of its window, then owe them to the webhook.

use std::sync::Arc;
use std::time::Duration;

use gatepost_core::event::Event;
use gatepost_core::filter::FilterBudget;
use gatepost_core::matching::{MatchFacts, Subscription, TenantRegistry};
use gatepost_core::tenant::Tenant;
use gatepost_core::{EventSeq, JobId, TenantKey, Timestamp, WebhookKey};
use gatepost_store::{Candidates, Job, JobKey, JobState, Replay, Selection, Stage, StoreError, Task};

use super::{Stepped, Worker};
use crate::deliver::Command;
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, FieldError, Kind};

/// Events looked at in one step.
const SCAN: usize = 500;
/// Bytes of them, about.
const SCAN_BYTES: usize = 4 << 20;
/// Stretches of the window that are looked at to count what a replay would be about: a million events.
const COUNT_STEPS: usize = 2_000;
/// Deliveries made in one step.
const DELIVER: usize = 200;
/// A webhook that has so much to send is left to it: what is published now would otherwise stand
/// behind all that is replayed (DESIGN 4.3: replays come last).
const BACKLOG: usize = 1_000;
/// How long it is left to it at a time, and how often before the replay goes on all the same: a
/// receiver that takes nothing must not keep a job from ending.
const WAIT: Duration = Duration::from_millis(100);
const WAITS: u32 = 20;

impl Worker {
    pub(super) async fn replay(&mut self, job: Job, replay: &Replay, now: Timestamp) -> Result<Stepped, StoreError> {
        // What an event is owed already tells once it is made.
        if !self.engine.all_made(job.tenant).await? {
            return Ok(Stepped::RestsUntil(self.engine.waiting().saturating_add(WAIT)));
        }
        if job.stage == Stage::Counting {
            return self.choose(job, replay, now).await;
        }
        let webhook = WebhookKey(replay.webhook_key);
        let waited = self.waits.get(&job.key).copied().unwrap_or(0);
        let waiting = self.engine.waiting();
        if waited < WAITS && self.engine.inner.store.backlog(webhook, waiting, BACKLOG).await? >= BACKLOG {
            self.waits.insert(job.key, waited + 1);
            return Ok(Stepped::RestsUntil(waiting.saturating_add(WAIT)));
        }
        self.waits.remove(&job.key);
        let doubt = self.engine.inner.inbox.unless_resolved(Command::LookForOwed);
        let step = self.engine.inner.store.replay_deliver(job.key, now, DELIVER).await?;
        doubt.resolved();
        self.engine.inner.metrics.replayed(step.made);
        self.hand_over(step.dues, step.wakes);
        Ok(self.after(step.job))
    }

    async fn choose(&mut self, job: Job, replay: &Replay, now: Timestamp) -> Result<Stepped, StoreError> {
        let store = Arc::clone(&self.engine.inner.store);
        let found = store.replay_candidates(&job, SCAN, SCAN_BYTES).await?;
        let (scanned_to, upto, end) = (found.scanned_to, found.upto, found.end);
        let events = match chosen(&self.engine, job.tenant, replay, found).await? {
            Chosen::Events(events) => events,
            Chosen::TenantGone => return Ok(Stepped::Ended),
            Chosen::WebhookGone => return self.end(&job, Some("the webhook was deleted"), now).await,
            Chosen::NothingMatches(why) => return self.end(&job, Some(why), now).await,
            Chosen::Stopping => return Ok(Stepped::RestsUntil(self.engine.waiting().saturating_add(WAIT))),
        };
        let (job, position) = (job.key, job.position);
        let selection = Selection { job, position, events, scanned_to, upto, end, now };
        Ok(self.after(store.replay_select(selection).await?))
    }
}

/// How many events a replay would be about now. A window in which more than a bounded number of the
/// tenant's events lie is refused.
///
/// # Errors
/// The webhook's or the window's, and the store's.
pub(crate) async fn count_replay(engine: &Engine, tenant: &Tenant, replay: &Replay) -> Result<u64, Error> {
    let now = engine.now();
    let mut job = Job {
        key: JobKey(0),
        id: JobId::new(now, &*engine.inner.entropy),
        tenant: tenant.key,
        task: Task::Replay(replay.clone()),
        state: JobState::Running,
        stage: Stage::Counting,
        position: None,
        upto: None,
        total: 0,
        done: 0,
        error: None,
        created_at: now,
        updated_at: now,
    };
    for _ in 0..COUNT_STEPS {
        let found = engine.inner.store.replay_candidates(&job, SCAN, SCAN_BYTES).await?;
        (job.position, job.upto) = (Some(found.scanned_to), Some(found.upto));
        let end = found.end;
        match chosen(engine, tenant.key, replay, found).await? {
            Chosen::Events(events) => job.total += events.len() as u64,
            Chosen::TenantGone => return Err(Error::NotFound(Kind::Tenant)),
            Chosen::WebhookGone => return Err(Error::NotFound(Kind::Webhook)),
            Chosen::NothingMatches(why) => {
                return Err(Error::Conflict { code: ConflictCode::WebhookDisabled, message: why.to_owned() });
            }
            Chosen::Stopping => return Err(Error::Busy),
        }
        if end {
            return Ok(job.total);
        }
    }
    let problem = "so many events were accepted since then that they are not counted: ask for a shorter window";
    Err(Error::Invalid(vec![FieldError::new("/since", problem)]))
}

/// What a stretch of a replay's window comes to.
enum Chosen {
    /// These, oldest first.
    Events(Vec<EventSeq>),
    /// There is no such tenant any more.
    TenantGone,
    /// There is no such webhook any more.
    WebhookGone,
    /// The webhook matches nothing, and why.
    NothingMatches(&'static str),
    /// The server is stopping.
    Stopping,
}

/// The events of a stretch that the replay is about.
async fn chosen(engine: &Engine, key: TenantKey, replay: &Replay, found: Candidates) -> Result<Chosen, StoreError> {
    let mut events = found.chosen;
    if found.to_match.is_empty() {
        return Ok(Chosen::Events(events));
    }
    let store = &engine.inner.store;
    let Some(tenant) = store.tenant_by_key(key).await? else { return Ok(Chosen::TenantGone) };
    // The webhook as it is now: not as it was when the replay was asked for.
    let Some(webhook) = store.webhook(key, replay.webhook).await? else { return Ok(Chosen::WebhookGone) };
    let compiled = Subscription::compile(&webhook, tenant.settings.require_verification);
    let Ok(subscription) = compiled else {
        return Ok(Chosen::NothingMatches("the webhook's registration cannot be read any more"));
    };
    if !subscription.enabled {
        let why = "the webhook was disabled or lost its verification: nothing matches it";
        return Ok(Chosen::NothingMatches(why));
    }
    match matching(engine, key, subscription, found.to_match).await {
        Some(matching) => events.extend(matching),
        None => return Ok(Chosen::Stopping),
    }
    Ok(Chosen::Events(events))
}

/// Those of `events` that match the webhook. Its filter runs in the tenant's turn, beside the
/// threads of the API (P5). `None`: the server is stopping.
async fn matching(
    engine: &Engine,
    tenant: TenantKey,
    subscription: Subscription,
    events: Vec<Event>,
) -> Option<Vec<EventSeq>> {
    let filtered = subscription.filter.is_some();
    let registry = TenantRegistry::new(0, [Arc::new(subscription)]);
    let work = move || {
        let matches = |event: &Event| {
            let facts = MatchFacts {
                event_type: &event.event_type,
                subject: event.subject.as_ref(),
                data: &event.data,
                attributes: event.attributes.as_deref(),
            };
            // An event on which the filter would cost too much could not be published today
            // either: a filter that gives no answer is no match.
            registry.matching(&facts, &mut FilterBudget::of_publish()).is_ok_and(|matches| !matches.is_empty())
        };
        events.iter().filter(|event| matches(event)).map(|event| event.seq).collect()
    };
    if filtered { engine.inner.filter_turns.run(tenant, work).await.ok() } else { Some(work()) }
}
