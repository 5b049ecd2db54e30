//! Gatepost's own events (DESIGN 4.2): what is noted in the store with the change it tells of is
//! matched and published here, once.
//!
//! The note and the change are one transaction, and so are the event and the end of the note: whatever
//! dies in between, each is told exactly once. Nothing is told about the failing of own events
//! themselves: [`gatepost_store::Settlement::tell`] and [`gatepost_core::health`] see to that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use gatepost_core::event::Subject;
use gatepost_core::grouping::{Grouping, Match};
use gatepost_core::matching::Subscription;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Webhook;
use gatepost_core::{EventId, TenantKey, WebhookKey, filter, standing};
use gatepost_store::{About, NewOwnEvent, Noted, Publish, PublishOutcome};
use serde_json::Value;
use tokio::sync::Notify;

use crate::deliver::Command;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ops::PublishInput;
use crate::registry::TenantState;
use crate::views;

/// Notes read at once.
const PAGE: usize = 100;
/// Notes told at once, where their order is nothing to anybody.
const TOGETHER: usize = 25;
/// How often a note is matched against a changing registry before its turn is over.
const MATCH_AGAIN: usize = 100;
/// How often it is looked whether something is noted, without being told.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After a failure of the store.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// An own event to publish, with the object it speaks of.
#[derive(Clone, Debug)]
pub(crate) struct OwnNews {
    /// What.
    pub(crate) event: OwnEvent,
    /// The event's id, if the same may be told again after a crash: it is published once.
    pub(crate) id: Option<EventId>,
    /// About whom or what.
    pub(crate) subject: Option<Subject>,
    /// The object it speaks of, without anything secret.
    pub(crate) data: Value,
}

/// Whether something is noted.
pub(crate) struct OwnEvents {
    noted: AtomicBool,
    notify: Notify,
}

impl Default for OwnEvents {
    /// Something may be left from before the start.
    fn default() -> Self {
        OwnEvents { noted: AtomicBool::new(true), notify: Notify::new() }
    }
}

impl OwnEvents {
    /// Something was noted in the store.
    pub(crate) fn noted(&self) {
        self.noted.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Looks at the end of a change, however it ends: its answer may be lost (the store fails after the
    /// commit) or never awaited (the caller goes away in between).
    pub(crate) fn in_any_case(&self) -> InAnyCase<'_> {
        InAnyCase(Some(self))
    }

    /// Whether something is noted, as far as is known here.
    #[cfg(test)]
    pub(crate) fn is_noted(&self) -> bool {
        self.noted.load(Ordering::Acquire)
    }
}

/// See [`OwnEvents::in_any_case`].
#[must_use = "a change that is not awaited is told of too early"]
pub(crate) struct InAnyCase<'a>(Option<&'a OwnEvents>);

impl InAnyCase<'_> {
    /// The answer is there, and nothing was noted.
    pub(crate) fn of_nothing(mut self) {
        self.0 = None;
    }
}

impl Drop for InAnyCase<'_> {
    fn drop(&mut self) {
        if let Some(own_events) = self.0 {
            own_events.noted();
        }
    }
}

/// What became of a note.
enum Told {
    /// It is published, or needs not be.
    Done,
    /// Its turn comes later.
    Later,
}

impl Engine {
    /// Publishes one of Gatepost's own events: it is on disk when this returns, and delivered to whoever
    /// asks for it soon after.
    ///
    /// For what is not part of a change in the store; what is, is noted in the change's own transaction.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn publish_own(&self, tenant: TenantKey, news: OwnNews) -> Result<()> {
        let OwnNews { event, id, subject, data } = news;
        let data = Bytes::from(data.to_string());
        let note = NewOwnEvent { tenant, event, id, subject, data, at: self.now() };
        let _news = self.inner.own_events.in_any_case();
        Ok(self.inner.store.note_own(note).await?)
    }

    /// Publishes what is noted, now and whenever something is, for as long as the server runs.
    pub(crate) async fn keep_told(self) {
        loop {
            let wait = match self.tell_noted().await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    tracing::warn!(%error, "own events wait for the store");
                    TRY_AGAIN
                }
            };
            tokio::select! {
                () = self.inner.own_events.notify.notified() => {}
                // The safety net: whatever is known here.
                () = tokio::time::sleep(wait) => self.inner.own_events.noted.store(true, Ordering::Release),
            }
        }
    }

    /// Publishes everything that is noted.
    ///
    /// # Errors
    /// When the store fails; the rest stays noted.
    pub(crate) async fn tell_noted(&self) -> Result<()> {
        if !self.inner.own_events.noted.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.tell_all().await;
        if !matches!(result, Ok(Told::Done)) {
            self.inner.own_events.noted.store(true, Ordering::Release);
        }
        result.map(drop)
    }

    async fn tell_all(&self) -> Result<Told> {
        // What was counted so far belongs to what is told of a webhook.
        self.note_health().await?;
        let (mut after, mut all) = (0, Told::Done);
        loop {
            let page = self.inner.store.noted(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(all) };
            after = last.number;
            // Of many deliveries given up at once none has to wait for another's commit; changes of webhooks
            // are told in their order.
            for together in page.chunk_by(|a, b| a.event == b.event && a.event == OwnEvent::DeliveryExhausted) {
                for some in together.chunks(TOGETHER) {
                    for told in join_all(some.iter().map(|noted| self.tell(noted))).await {
                        if matches!(told?, Told::Later) {
                            all = Told::Later;
                        }
                    }
                }
            }
        }
    }

    async fn tell(&self, noted: &Noted) -> Result<Told> {
        let tenant = self.inner.store.tenant_by_key(noted.tenant).await?;
        let news = match &tenant {
            Some(tenant) => self.news_of(tenant, noted).await?,
            None => None,
        };
        let (Some(tenant), Some((input, webhook))) = (tenant, news) else {
            // Gone, and with it whoever could hear of it.
            self.inner.store.forget_noted(noted.number).await?;
            return Ok(Told::Done);
        };
        let farewell = webhook.filter(|_| noted.event == OwnEvent::WebhookDeleted);
        let mut inputs = vec![input];
        for _ in 0..MATCH_AGAIN {
            let state = self.tenant_state(&tenant.id).await?;
            let mut publish;
            (publish, inputs) = self.matched_told(&state, inputs).await?;
            let told = farewell.as_ref().filter(|webhook| add_farewell(&mut publish, webhook, &inputs[0], &tenant));
            let told = told.map(|webhook| webhook.key);
            // A lane that knows the deleted webhook must hear that it is owed something after all.
            let look = match told {
                Some(_) => Command::InDoubt(tenant.id.clone()),
                None => Command::LookForOwed,
            };
            let doubt = self.inner.inbox.unless_resolved(look);
            let unheard = self.inner.making.unless_heard();
            let outcome = self.inner.store.publish_noted(noted.number, publish, told).await?;
            doubt.resolved();
            unheard.heard();
            match outcome {
                Some(PublishOutcome::Accepted(accepted)) => {
                    self.hand_over(accepted);
                    if let Some(key) = told {
                        self.take_leave(&tenant, key).await?;
                    }
                    return Ok(Told::Done);
                }
                Some(PublishOutcome::StaleRegistry(version)) => {
                    state.catch_up(&*self.inner.store, version).await?;
                }
                // Told before, or nobody is left to be told.
                Some(PublishOutcome::Conflict { .. } | PublishOutcome::NoTenant) | None => return Ok(Told::Done),
            }
        }
        Ok(Told::Later)
    }

    /// Matches what tells of something that has happened. Filters that cost too much together cannot refuse
    /// it: nobody is there to be told. Then it goes to those without one.
    pub(crate) async fn matched_told(
        &self,
        state: &Arc<TenantState>,
        inputs: Vec<PublishInput>,
    ) -> Result<(Publish, Vec<PublishInput>)> {
        let tenant = state.tenant.load().key;
        let types = self.types_loaded(tenant).await?;
        match self.matched(state, &types, inputs.clone(), false).await {
            Err(Error::Invalid(_)) => {
                let (registry, now) = (state.registry(), self.now());
                let events = inputs
                    .iter()
                    .map(|input| self.new_event(input, &types, Arc::new(registry.unfiltered(&input.event_type)), now))
                    .collect();
                Ok((Publish { tenant, registry_version: registry.version(), now, events }, inputs))
            }
            other => other,
        }
    }

    /// The lane hears that a deleted webhook is owed one thing more.
    async fn take_leave(&self, tenant: &Tenant, key: WebhookKey) -> Result<()> {
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.id.clone()));
        if let Some(webhook) = self.inner.store.webhook_by_key(key).await?
            && webhook.farewell.is_some()
        {
            self.inner.inbox.send(Command::WebhookChanged { webhook: Arc::new(webhook), reopened: true });
        }
        doubt.resolved();
        Ok(())
    }

    /// The event a note asks for, and the webhook it speaks of. `None`: what it speaks of is gone.
    async fn news_of(&self, tenant: &Tenant, noted: &Noted) -> Result<Option<(PublishInput, Option<Webhook>)>> {
        let (id, subject, data, webhook) = match &noted.about {
            About::Webhook { key, revision, disabled_reason } => {
                let Some(webhook) = self.webhook_then(*key, *revision, noted).await? else { return Ok(None) };
                let data = self.webhook_object(tenant, &webhook, disabled_reason.as_deref()).await?;
                (None, Some(subject_of("webhook", webhook.id.to_string())), data, Some(webhook))
            }
            About::Delivery { seq, reason } => {
                let Some(detail) = self.inner.store.delivery(tenant.key, *seq).await? else { return Ok(None) };
                // About the same person, so that whatever is erased about them takes this with it.
                (None, detail.row.subject.clone(), views::delivery_object(&detail.row, *reason), None)
            }
            About::Given { id, subject, data } => {
                let input = input_of(noted, id.clone(), subject.clone(), data.clone());
                return Ok(Some((input, None)));
            }
        };
        Ok(Some((input_of(noted, id, subject, data), webhook)))
    }

    /// A webhook as it was at a revision, deleted since or not.
    async fn webhook_then(&self, key: WebhookKey, revision: u32, noted: &Noted) -> Result<Option<Webhook>> {
        let Some(mut webhook) = self.inner.store.webhook_by_key(key).await? else { return Ok(None) };
        if webhook.revision != revision {
            let then = self.inner.store.webhook_configs(key, &[revision]).await?.remove(&revision);
            webhook.config = then.unwrap_or(webhook.config);
            webhook.revision = revision;
        }
        if noted.event != OwnEvent::WebhookDeleted {
            webhook.updated_at = webhook.updated_at.min(noted.at);
        }
        Ok(Some(webhook))
    }

    async fn webhook_object(&self, tenant: &Tenant, webhook: &Webhook, disabled_reason: Option<&str>) -> Result<Bytes> {
        let health = self.inner.store.health_of(&[webhook.key]).await?.remove(&webhook.key);
        let health = views::health(webhook, health.as_ref(), self.now());
        let require_all = tenant.settings.require_verification;
        Ok(views::webhook_object(webhook, require_all, &health, disabled_reason))
    }
}

fn input_of(noted: &Noted, id: Option<EventId>, subject: Option<Subject>, data: Bytes) -> PublishInput {
    PublishInput {
        id,
        fallback: None,
        event_type: noted.event.event_type(),
        timestamp: Some(noted.at),
        subject,
        data,
        attributes: None,
        urgency: None,
        trace: None,
    }
}

fn subject_of(kind: &str, id: String) -> Subject {
    Subject { kind: Some(kind.to_owned()), id }
}

/// Has a deleted webhook hear of its own deletion, if it asked for that and took anything. Whether it does.
fn add_farewell(publish: &mut Publish, webhook: &Webhook, input: &PublishInput, tenant: &Tenant) -> bool {
    let require_all = tenant.settings.require_verification;
    let Ok(subscription) = Subscription::compile(webhook, require_all) else { return false };
    let subscription = subscription.before_deletion(webhook, require_all);
    let facts = crate::ops::facts_of(input);
    if !subscription.wants(&facts, &mut filter::FilterBudget::of_publish()).unwrap_or(false) {
        return false;
    }
    // Alone: whatever it waited for otherwise is cancelled.
    let farewell = Match { webhook: webhook.key, revision: webhook.revision, grouping: Grouping::default() };
    for event in &mut publish.events {
        Arc::make_mut(&mut event.matches).push(farewell);
    }
    true
}

/// Whether `webhook` is sent to, for who must know without the registry. A pause ends with its webhook.
pub(crate) fn is_open(webhook: &Webhook, tenant: &Tenant) -> bool {
    let require_all = tenant.settings.require_verification;
    match webhook.deleted_at {
        None => standing::sends(&webhook.config, require_all),
        Some(_) => standing::takes(&webhook.config, require_all) && webhook.farewell.is_some(),
    }
}
