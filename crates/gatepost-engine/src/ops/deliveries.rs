//! Deliveries: lists, one with its attempts, retry and cancel by hand.

use gatepost_core::DeliveryId;
use gatepost_core::delivery::{AttemptRecord, Request};
use gatepost_core::own_events::OwnEvent;
use gatepost_core::profiles::Wire;
use gatepost_core::tenant::Tenant;
use gatepost_store::{CancelOutcome, DeliveryQuery, DeliveryRow, Page, RetryOutcome, Wake};

use super::{DeliveryView, erasure};
use crate::deliver::{Command, Doubt};
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, Kind, Result};
use crate::render::{self, Attempted};

impl Engine {
    /// A page of deliveries, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn deliveries(&self, mut query: DeliveryQuery) -> Result<Page<DeliveryRow>> {
        query.subject = self.subject_as_kept(query.tenant, query.subject).await?;
        self.all_made(query.tenant).await?;
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
        let wire = configs.get(&detail.revision).and_then(|config| Wire::of(config).ok());
        let events = &detail.events;
        // Deleting a webhook is a revision without a registration: what told it of that went where it was.
        let farewell = configs.get(&detail.revision).filter(|_| {
            detail.events.single().is_some_and(|e| e.event_type.as_str() == OwnEvent::WebhookDeleted.as_str())
        });
        let request = |attempt: &AttemptRecord| match configs.get(&attempt.sent.revision).or(farewell) {
            Some(config) => {
                let wire = wire.as_ref();
                render::request_of(&Attempted { config, wire, events, delivery: id, path: None }, attempt)
            }
            None => Request::default(),
        };
        let requests = detail.attempts.iter().map(request).collect();
        let made = (id, detail.row.created_at);
        let rendered = || {
            let frame = render::frame(tenant, detail.row.webhook_id, made, &self.inner.public_url);
            // What was sent and is erased must not be made up anew.
            let erased = events.all().iter().any(|event| erasure::is_erased(event));
            wire.as_ref().filter(|_| !erased).and_then(|wire| render::body(wire, events, &frame))
        };
        let body = detail.body.clone().or_else(rendered);
        let replay_of = self.replay_of(detail.row.seq).await?;
        Ok(DeliveryView { detail, requests, replay_of, body })
    }

    /// Reopens a delivery in whatever state, with a new budget, due at once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] while its webhook is disabled or once it is deleted.
    pub async fn retry_delivery(&self, tenant: &Tenant, id: DeliveryId) -> Result<DeliveryRow> {
        let conflict = |code, message: &str| Error::Conflict { code, message: message.into() };
        let row = self.known(tenant, id).await?;
        let doubt = self.in_doubt(tenant, &row);
        let outcome = self.inner.store.retry(tenant.key, id.seq(), self.now()).await?;
        doubt.resolved();
        match outcome {
            RetryOutcome::Reopened(_, wakes) => {
                self.inner.streams.changed(tenant.key, id.seq());
                self.inner.inbox.send(Command::Wake(wakes));
                self.known(tenant, id).await
            }
            RetryOutcome::WebhookDisabled => {
                Err(conflict(ConflictCode::WebhookDisabled, "the delivery's webhook is disabled: enable it first"))
            }
            RetryOutcome::WebhookDeleted => {
                Err(conflict(ConflictCode::WebhookDeleted, "the delivery's webhook was deleted"))
            }
            RetryOutcome::Erased => Err(conflict(
                ConflictCode::EventErased,
                "what the delivery would send was erased: it cannot be sent again",
            )),
            RetryOutcome::NotFound => Err(Error::NotFound(Kind::Delivery)),
        }
    }

    /// Cancels a delivery that is not terminal. It wins over an attempt still under way.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is terminal already.
    pub async fn cancel_delivery(&self, tenant: &Tenant, id: DeliveryId) -> Result<DeliveryRow> {
        let row = self.known(tenant, id).await?;
        let doubt = self.in_doubt(tenant, &row);
        let outcome = self.inner.store.cancel(tenant.key, id.seq(), self.now()).await?;
        doubt.resolved();
        match outcome {
            CancelOutcome::Cancelled(row, wakes) => {
                self.inner.streams.changed(tenant.key, id.seq());
                self.inner.inbox.send(Command::Cancelled { webhook: row.webhook, seq: row.seq });
                self.inner.inbox.send(Command::Wake(wakes));
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

    /// What the lane hears when nobody learns what became of a delivery.
    fn in_doubt(&self, tenant: &Tenant, row: &DeliveryRow) -> Doubt<'_> {
        let wake = Wake { tenant: tenant.key, webhook: row.webhook, seq: row.seq, at: None };
        self.inner.inbox.unless_resolved(Command::Wake(vec![wake]))
    }

    /// The row of a delivery whose whole id (time and number) is this tenant's.
    async fn known(&self, tenant: &Tenant, id: DeliveryId) -> Result<DeliveryRow> {
        let detail = self.inner.store.delivery(tenant.key, id.seq()).await?;
        detail.map(|d| d.row).filter(|row| id.made_at(row.created_at)).ok_or(Error::NotFound(Kind::Delivery))
    }
}
