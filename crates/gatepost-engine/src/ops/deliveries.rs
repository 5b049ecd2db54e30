//! Deliveries: lists, one with its attempts, retry and cancel by hand.

use gatepost_core::DeliveryId;
use gatepost_core::delivery::Request;
use gatepost_core::tenant::Tenant;
use gatepost_store::{CancelOutcome, DeliveryQuery, DeliveryRow, Page, RetryOutcome};

use super::DeliveryView;
use crate::deliver::{Command, request_of};
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, Kind, Result};
use crate::render;

impl Engine {
    /// A page of deliveries, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn deliveries(&self, query: DeliveryQuery) -> Result<Page<DeliveryRow>> {
        Ok(self.inner.store.deliveries(query).await?)
    }

    /// One delivery with its attempts and its body.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant has no such delivery.
    pub async fn delivery(&self, tenant: &Tenant, id: DeliveryId) -> Result<DeliveryView> {
        let detail = self.inner.store.delivery(tenant.key, id.seq()).await?;
        let detail = detail.filter(|d| id.made_at(d.row.created_at)).ok_or(Error::NotFound(Kind::Delivery))?;
        let revisions: Vec<u32> = detail.attempts.iter().map(|a| a.sent.revision).chain([detail.revision]).collect();
        let configs = self.inner.store.webhook_configs(detail.row.webhook, &revisions).await?;
        let requests = detail
            .attempts
            .iter()
            .map(|attempt| match configs.get(&attempt.sent.revision) {
                Some(config) => request_of(config, &detail.event, id, attempt),
                None => Request::default(),
            })
            .collect();
        let rendered = || {
            let config = configs.get(&detail.revision)?;
            render::body(&config.profile, &detail.event, &tenant.id)
        };
        let body = detail.body.clone().or_else(rendered);
        Ok(DeliveryView { detail, requests, body })
    }

    /// Reopens a delivery in whatever state, with a new budget, due at once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] while its webhook is disabled or once it is deleted.
    pub async fn retry_delivery(&self, tenant: &Tenant, id: DeliveryId) -> Result<DeliveryRow> {
        self.known(tenant, id).await?;
        let conflict = |code, message: &str| Error::Conflict { code, message: message.into() };
        let doubt = self.inner.inbox.unless_resolved(Command::LookForOwed);
        let outcome = self.inner.store.retry(tenant.key, id.seq(), self.now()).await?;
        doubt.resolved();
        match outcome {
            RetryOutcome::Reopened(due) => {
                self.inner.inbox.send(Command::Offer(vec![*due]));
                self.known(tenant, id).await
            }
            RetryOutcome::WebhookDisabled => {
                Err(conflict(ConflictCode::WebhookDisabled, "the delivery's webhook is disabled: enable it first"))
            }
            RetryOutcome::WebhookDeleted => {
                Err(conflict(ConflictCode::WebhookDeleted, "the delivery's webhook was deleted"))
            }
            RetryOutcome::NotFound => Err(Error::NotFound(Kind::Delivery)),
        }
    }

    /// Cancels a delivery that is not terminal. It wins over an attempt still under way.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is terminal already.
    pub async fn cancel_delivery(&self, tenant: &Tenant, id: DeliveryId) -> Result<DeliveryRow> {
        self.known(tenant, id).await?;
        match self.inner.store.cancel(tenant.key, id.seq(), self.now()).await? {
            CancelOutcome::Cancelled(row) => {
                self.inner.inbox.send(Command::Cancelled { webhook: row.webhook, seq: row.seq });
                self.inner.metrics.delivery_ended(row.state, row.reason);
                Ok(*row)
            }
            CancelOutcome::Terminal(state) => Err(Error::Conflict {
                code: ConflictCode::DeliveryTerminal,
                message: format!("the delivery is {} already", state.as_str()),
            }),
            CancelOutcome::NotFound => Err(Error::NotFound(Kind::Delivery)),
        }
    }

    /// The row of a delivery whose whole id (time and number) is this tenant's.
    async fn known(&self, tenant: &Tenant, id: DeliveryId) -> Result<DeliveryRow> {
        let detail = self.inner.store.delivery(tenant.key, id.seq()).await?;
        detail.map(|d| d.row).filter(|row| id.made_at(row.created_at)).ok_or(Error::NotFound(Kind::Delivery))
    }
}
