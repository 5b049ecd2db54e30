//! Delivering again what failed, or after all what was missed.

use std::time::Duration;

use gatepost_core::tenant::Tenant;
use gatepost_core::{DeliverySeq, Timestamp, WebhookId};
use gatepost_store::{Job, Replay, ReplayOf, ReplayScope, Task};

use crate::engine::Engine;
use crate::error::{ConflictCode, Error, FieldError, Kind, Result};

/// What to replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayInput {
    /// Events accepted at or after this.
    pub since: Timestamp,
    /// Events accepted before this; default: now.
    pub until: Option<Timestamp>,
    /// Which of them.
    pub scope: ReplayScope,
}

impl Engine {
    /// Begins a replay to a webhook.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for an empty window; [`Error::Conflict`] while the
    /// webhook is disabled.
    pub async fn replay(&self, tenant: &Tenant, webhook: WebhookId, input: ReplayInput) -> Result<Job> {
        let replay = self.replay_asked(tenant, webhook, input).await?;
        self.begin_job(tenant, Task::Replay(replay)).await
    }

    /// How many events a replay would be about, without making it. One count of a tenant's runs at a time.
    ///
    /// # Errors
    /// As [`Engine::replay`]; also [`Error::Invalid`] for a window with more events than one count looks at.
    pub async fn count_replay(&self, tenant: &Tenant, webhook: WebhookId, input: ReplayInput) -> Result<u64> {
        let replay = self.replay_asked(tenant, webhook, input).await?;
        let state = self.tenant_state(&tenant.id).await?;
        let _turn = state.counting.lock().await;
        if !self.all_made(tenant.key).await? {
            return Err(Error::Busy);
        }
        crate::jobs::count_replay(self, tenant, &replay).await
    }

    /// What is asked for, judged.
    async fn replay_asked(&self, tenant: &Tenant, webhook: WebhookId, input: ReplayInput) -> Result<Replay> {
        let found = self.inner.store.webhook(tenant.key, webhook).await?.ok_or(Error::NotFound(Kind::Webhook))?;
        // What was accepted up to this moment, and nothing that comes after the request.
        let until = input.until.unwrap_or_else(|| self.now().saturating_add(Duration::from_micros(1)));
        if input.until.is_some_and(|until| until <= input.since) {
            return Err(Error::Invalid(vec![FieldError::new("/until", "must be after since")]));
        }
        if !found.config.enabled {
            return Err(Error::Conflict {
                code: ConflictCode::WebhookDisabled,
                message: "the webhook is disabled: enable it first".into(),
            });
        }
        Ok(Replay { webhook, webhook_key: found.key.0, scope: input.scope, since: input.since, until })
    }

    /// Where a delivery comes from, if a replay made it.
    pub(super) async fn replay_of(&self, delivery: DeliverySeq) -> Result<Option<ReplayOf>> {
        Ok(self.inner.store.replay_of(delivery).await?)
    }
}
