//! How endpoints fare: counted in memory where outcomes are recorded, written down in small batches.
//!
//! Counting costs a map entry per webhook with something to do, not a row per attempt. What is counted
//! but not yet written is lost by a crash: some counts, never a run of failures that lasts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_core::health::{Seen, Tally};
use gatepost_core::{TenantId, Timestamp, WebhookKey};
use gatepost_store::{HealthNote, HealthNotes};
use tokio::sync::Notify;

use crate::deliver::Command;
use crate::engine::Engine;
use crate::error::Result;

/// How long counts wait for company.
const EVERY: Duration = Duration::from_millis(500);
/// After a failure of the store.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Webhooks told of in one transaction.
const NOTES: usize = 500;

/// One attempt of a webhook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'a> {
    /// Whose.
    pub(crate) webhook: WebhookKey,
    /// The webhook's revision at the attempt.
    pub(crate) revision: u32,
    /// Whether sustained failure disables it.
    pub(crate) auto_disable: bool,
    /// What was seen.
    pub(crate) seen: Seen<'a>,
}

struct Entry {
    revision: u32,
    auto_disable: bool,
    tally: Tally,
}

#[derive(Default)]
struct Counting {
    fresh: HashMap<WebhookKey, Entry>,
    /// Told to the store, which did not answer well: told again as it was, so that it is not counted
    /// twice.
    told: Option<HealthNotes>,
}

/// Attempts counted and not yet written.
#[derive(Default)]
pub(crate) struct HealthTracker {
    counting: Mutex<Counting>,
    /// Notes are told one after the other: the store knows only the last call's token.
    telling: tokio::sync::Mutex<()>,
    notify: Notify,
}

impl HealthTracker {
    fn counting(&self) -> MutexGuard<'_, Counting> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts attempts whose outcomes are on disk.
    pub(crate) fn count<'a>(&self, outcomes: impl Iterator<Item = Outcome<'a>>) {
        let mut counting = self.counting();
        let mut some = false;
        for outcome in outcomes {
            some = true;
            let Outcome { webhook, revision, auto_disable, seen } = outcome;
            let fresh = || Entry { revision, auto_disable, tally: Tally::default() };
            let entry = counting.fresh.entry(webhook).or_insert_with(fresh);
            (entry.revision, entry.auto_disable) = (entry.revision.max(revision), auto_disable);
            entry.tally.add(&seen);
        }
        drop(counting);
        if some {
            self.notify.notify_one();
        }
    }

    /// Whether something is not written yet.
    #[cfg(test)]
    pub(crate) fn is_behind(&self) -> bool {
        let counting = self.counting();
        counting.told.is_some() || !counting.fresh.is_empty()
    }

    /// What to tell the store next.
    fn next(&self, token: u64, now: Timestamp) -> Option<HealthNotes> {
        let mut counting = self.counting();
        if counting.told.is_none() && !counting.fresh.is_empty() {
            let keys: Vec<_> = counting.fresh.keys().copied().take(NOTES).collect();
            let note = |key: WebhookKey| {
                let Entry { revision, auto_disable, tally } = counting.fresh.remove(&key)?;
                Some(HealthNote { webhook: key, revision, auto_disable, tally })
            };
            let mut notes: Vec<_> = keys.into_iter().filter_map(note).collect();
            // In one order, whatever the map's.
            notes.sort_unstable_by_key(|note| note.webhook);
            counting.told = Some(HealthNotes { token, now, notes });
        }
        counting.told.clone()
    }

    fn heard(&self) {
        self.counting().told = None;
    }
}

impl Engine {
    /// Writes counts down, for as long as the server runs.
    pub(crate) async fn keep_health(self) {
        loop {
            self.inner.health.notify.notified().await;
            tokio::time::sleep(EVERY).await;
            while let Err(error) = self.note_health().await {
                tracing::warn!(%error, "the health of webhooks waits for the store");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }

    /// Writes down what was counted, and makes known what follows from it.
    ///
    /// # Errors
    /// When the store fails; nothing is lost.
    pub(crate) async fn note_health(&self) -> Result<()> {
        let _turn = self.inner.health.telling.lock().await;
        while let Some(notes) = self.inner.health.next(self.inner.entropy.next_u64(), self.now()) {
            let news = self.inner.own_events.in_any_case();
            let taken = self.inner.store.note_health(notes).await?;
            self.inner.health.heard();
            if !taken.noted {
                news.of_nothing();
            }
            for (tenant, webhook) in taken.disabled {
                if let Some(tenant) = self.inner.store.tenant_by_key(tenant).await? {
                    self.was_disabled(&tenant.id, webhook).await?;
                }
            }
        }
        Ok(())
    }

    /// A webhook was disabled in the store, on Gatepost's own judgement: makes that known to publishers
    /// and to the lane.
    pub(crate) async fn was_disabled(&self, tenant: &TenantId, key: WebhookKey) -> Result<()> {
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(tenant.clone()));
        self.inner.own_events.noted();
        let webhook = self.inner.store.webhook_by_key(key).await?;
        if let (Some(state), Some(row)) = (self.inner.tenants.cached(tenant), self.inner.store.tenant(tenant).await?) {
            state.catch_up(&*self.inner.store, row.registry_version).await?;
        }
        if let Some(webhook) = webhook {
            if let Some(reason) = webhook.disabled_reason.as_deref().filter(|_| !webhook.config.enabled) {
                tracing::warn!(tenant = %tenant, webhook = %webhook.id, reason, "webhook disabled");
            }
            self.inner.inbox.send(Command::WebhookChanged { webhook: webhook.into(), reopened: false });
        }
        doubt.resolved();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
