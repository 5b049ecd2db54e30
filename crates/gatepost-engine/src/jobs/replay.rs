//! Steps of a replay: choose events of its window, then owe them to the webhook.

use std::sync::Arc;
use std::time::Duration;

use gatepost_core::event::Event;
use gatepost_core::filter::FilterBudget;
use gatepost_core::matching::{MatchFacts, Subscription, TenantRegistry};
use gatepost_core::{EventSeq, Timestamp, WebhookKey};
use gatepost_store::{Job, Replay, Selection, Stage, StoreError};

use super::{Stepped, Worker};
use crate::deliver::Command;

/// Events looked at in one step.
const SCAN: usize = 500;
/// Bytes of them, about.
const SCAN_BYTES: usize = 4 << 20;
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
            return Ok(Stepped::RestsUntil(now.saturating_add(WAIT)));
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
        let mut events = found.chosen;
        if !found.to_match.is_empty() {
            let Some(tenant) = store.tenant_by_key(job.tenant).await? else { return Ok(Stepped::Ended) };
            // The webhook as it is now: not as it was when the replay was asked for.
            let webhook = store.webhook(job.tenant, replay.webhook).await?;
            let Some(webhook) = webhook else { return self.end(&job, Some("the webhook was deleted"), now).await };
            let compiled = Subscription::compile(&webhook, tenant.settings.require_verification);
            let Ok(subscription) = compiled else {
                return self.end(&job, Some("the webhook's registration cannot be read any more"), now).await;
            };
            if !subscription.enabled {
                let error = "the webhook was disabled or lost its verification: nothing matches it";
                return self.end(&job, Some(error), now).await;
            }
            match self.matching(job.tenant, subscription, found.to_match).await {
                Some(matching) => events.extend(matching),
                None => return Ok(Stepped::RestsUntil(now.saturating_add(WAIT))),
            }
        }
        let selection = Selection {
            job: job.key,
            position: job.position,
            events,
            scanned_to: found.scanned_to,
            upto: found.upto,
            end: found.end,
            now,
        };
        Ok(self.after(store.replay_select(selection).await?))
    }

    /// Those of `events` that match the webhook. Its filter runs in the tenant's turn, beside the
    /// threads of the API (P5). `None`: the server is stopping.
    async fn matching(
        &self,
        tenant: gatepost_core::TenantKey,
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
        if filtered { self.engine.inner.filter_turns.run(tenant, work).await.ok() } else { Some(work()) }
    }
}
