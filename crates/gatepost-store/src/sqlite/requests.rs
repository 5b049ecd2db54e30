//! [`Store`] for [`SqliteStore`]: each method is one request to the writer or a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use gatepost_core::delivery::AttemptRecord;
use gatepost_core::event::Event;
use gatepost_core::grouping::Match;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{DeliverySeq, EventId, EventSeq, KeyId, TenantId, TenantKey, Timestamp, WebhookId, WebhookKey};

use super::making::Sizes;
use super::queue::Lane;
use super::{
    SqliteStore, batches, by_hand, catalogue, deliveries, keys, lists, meta, publish, registry, settle, sweep, tenants,
};
use crate::{
    CancelOutcome, Created, DeliveryDetail, DeliveryQuery, DeliveryRow, DuePage, DueQuery, EventPage, EventQuery,
    EventTypeRow, HistoricRegistry, KeyRow, NewEvent, NewWebhook, Owed, Page, PageRequest, Publish, PublishOutcome,
    PutTenant, Registry, RegistryChange, Result, RetryOutcome, SettleAnswer, Settlement, Store, StoreStats,
    SweepProgress, UpdateOutcome, WebhookUpdate,
};

/// What a small request holds in the queue, about.
pub(super) const SMALL: usize = 1_024;
/// How often a page of what is due is read again because batches on it had to be closed first.
const CLOSINGS: usize = 3;
/// What a row to be written holds in the queue, its payload apart.
pub(super) const ROW: usize = 256;

pub(super) fn publish_bytes(publish: &Publish) -> usize {
    let sizes = Sizes::default();
    let (mut room, mut before) = (sizes.together, None);
    let deliveries = |event: &NewEvent| {
        let shared = before.replace(Arc::as_ptr(&event.matches)) == Some(Arc::as_ptr(&event.matches));
        match event.matches.len() {
            matches if sizes.at_once(matches, &mut room) => ROW * matches,
            _ if shared => ROW,
            matches => size_of::<Match>() * matches,
        }
    };
    let events = publish.events.iter();
    let payload = |e: &NewEvent| e.data.len() + e.attributes.as_ref().map_or(0, |a| a.len());
    events.clone().map(|e| ROW + payload(e)).sum::<usize>() + events.map(deliveries).sum::<usize>()
}

fn settlement_bytes(settlement: &Settlement) -> usize {
    let response =
        settlement.attempt.response.as_ref().map_or(0, |r| {
            r.body.len() + r.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        });
    ROW + response + settlement.freeze.as_ref().map_or(0, |body| body.len())
}

#[async_trait]
impl Store for SqliteStore {
    async fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = name.to_owned();
        self.read(move |conn| meta::meta(conn, &name)).await
    }

    async fn init_meta(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.write(Lane::Other, SMALL, move |tx| meta::init(tx, &name, &value)).await
    }

    async fn set_meta(&self, name: &str, value: &[u8]) -> Result<()> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.write(Lane::Other, SMALL, move |tx| meta::set(tx, &name, &value)).await
    }

    async fn check(&self) -> Result<()> {
        self.read(|conn| meta::meta(conn, "").map(drop)).await?;
        self.write(Lane::Other, SMALL, |tx| meta::check(tx)).await
    }

    async fn stats(&self) -> Result<StoreStats> {
        Ok(self.tally())
    }

    async fn put_tenant(&self, put: PutTenant) -> Result<(Tenant, Created)> {
        self.write(Lane::Other, SMALL, move |tx| tenants::put(tx, &put)).await
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>> {
        let id = id.clone();
        self.read(move |conn| tenants::tenant(conn, &id)).await
    }

    async fn tenant_by_key(&self, key: TenantKey) -> Result<Option<Tenant>> {
        self.read(move |conn| tenants::by_key(conn, key)).await
    }

    async fn tenants(&self, page: PageRequest) -> Result<Page<Tenant>> {
        self.read(move |conn| tenants::tenants(conn, page)).await
    }

    async fn delete_tenant(&self, id: &TenantId, now: Timestamp) -> Result<Option<Tenant>> {
        let id = id.clone();
        self.write(Lane::Other, SMALL, move |tx| tenants::delete(tx, &id, now)).await
    }

    async fn create_webhook(&self, new: NewWebhook) -> Result<Option<RegistryChange>> {
        self.write(Lane::Other, SMALL, move |tx| registry::create(tx, &new)).await
    }

    async fn update_webhook(&self, update: WebhookUpdate) -> Result<UpdateOutcome> {
        self.write(Lane::Other, SMALL, move |tx| registry::update(tx, &update)).await
    }

    async fn webhook_configs(&self, key: WebhookKey, revisions: &[u32]) -> Result<BTreeMap<u32, WebhookConfig>> {
        let revisions: BTreeSet<u32> = revisions.iter().copied().collect();
        self.read(move |conn| registry::configs(conn, key, &revisions)).await
    }

    async fn delete_webhook(&self, tenant: TenantKey, id: WebhookId, now: Timestamp) -> Result<Option<RegistryChange>> {
        self.write(Lane::Other, SMALL, move |tx| registry::delete(tx, tenant, id, now)).await
    }

    async fn record_test(&self, webhook: WebhookKey, test: AttemptRecord) -> Result<()> {
        self.write(Lane::Other, SMALL, move |tx| registry::record_test(tx, webhook, &test)).await
    }

    async fn webhook(&self, tenant: TenantKey, id: WebhookId) -> Result<Option<Webhook>> {
        self.read(move |conn| registry::by_id(conn, tenant, id)).await
    }

    async fn webhooks(&self, tenant: TenantKey, page: PageRequest) -> Result<Page<Webhook>> {
        self.read(move |conn| registry::page(conn, tenant, page)).await
    }

    async fn webhook_by_key(&self, key: WebhookKey) -> Result<Option<Webhook>> {
        self.read(move |conn| registry::by_key(conn, key)).await
    }

    async fn registry(&self, tenant: TenantKey) -> Result<Option<Registry>> {
        self.read(move |conn| registry::registry(conn, tenant)).await
    }

    async fn registry_at(&self, tenant: TenantKey, version: u64, limit: usize) -> Result<HistoricRegistry> {
        self.read(move |conn| registry::registry_at(conn, tenant, version, limit)).await
    }

    async fn publish(&self, publish: Publish) -> Result<PublishOutcome> {
        let bytes = publish_bytes(&publish);
        self.write_again(Lane::Accept, bytes, move |tx| publish::publish(tx, &publish)).await
    }

    async fn event(&self, tenant: TenantKey, id: &EventId) -> Result<Option<Event>> {
        let id = id.clone();
        self.read(move |conn| publish::event(conn, tenant, &id)).await
    }

    async fn events(&self, query: EventQuery) -> Result<EventPage> {
        let page_bytes = self.page_bytes;
        self.read(move |conn| lists::events(conn, &query, page_bytes)).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<Page<DeliveryRow>> {
        let mut page = self.read(move |conn| lists::deliveries(conn, &query)).await?;
        page.rows = page.rows.into_iter().map(|row| self.waits.shown(row)).collect();
        Ok(page)
    }

    async fn delivery(&self, tenant: TenantKey, seq: DeliverySeq) -> Result<Option<DeliveryDetail>> {
        let detail = self.read(move |conn| deliveries::detail(conn, tenant, seq)).await?;
        Ok(detail.map(|detail| DeliveryDetail { row: self.waits.shown(detail.row), ..detail }))
    }

    async fn deliveries_of(&self, tenant: TenantKey, event: EventSeq, limit: usize) -> Result<Vec<DeliveryRow>> {
        let rows = self.read(move |conn| deliveries::of_event(conn, tenant, event, limit)).await?;
        Ok(rows.into_iter().map(|row| self.waits.shown(row)).collect())
    }

    async fn owed(&self, after: Option<WebhookKey>, limit: usize) -> Result<Vec<Owed>> {
        self.read(move |conn| deliveries::owed(conn, after, limit)).await
    }

    async fn due(&self, query: DueQuery) -> Result<DuePage> {
        for _ in 0..CLOSINGS {
            let asked = query.clone();
            let (page, open) = self.read(move |conn| deliveries::due(conn, &asked)).await?;
            if open.is_empty() {
                return Ok(page);
            }
            let webhook = query.webhook;
            self.write(Lane::Other, SMALL, move |tx| batches::close_due(tx, webhook, &open)).await?;
        }
        self.read(move |conn| deliveries::due(conn, &query).map(|(page, _)| page)).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<SettleAnswer> {
        let bytes = settlements.iter().map(settlement_bytes).sum();
        self.write_again(Lane::Other, bytes, move |tx| settle::settle(tx, &settlements)).await
    }

    async fn retry(&self, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> Result<RetryOutcome> {
        self.write(Lane::Other, SMALL, move |tx| by_hand::retry(tx, tenant, seq, now)).await
    }

    async fn cancel(&self, tenant: TenantKey, seq: DeliverySeq, now: Timestamp) -> Result<CancelOutcome> {
        self.write(Lane::Other, SMALL, move |tx| by_hand::cancel(tx, tenant, seq, now)).await
    }

    async fn sweep(&self, now: Timestamp, max_rows: usize) -> Result<SweepProgress> {
        self.write(Lane::Other, SMALL, move |tx| sweep::sweep(tx, now, max_rows)).await
    }

    async fn put_event_type(&self, event_type: EventTypeRow) -> Result<Created> {
        self.write(Lane::Other, SMALL, move |tx| catalogue::put(tx, &event_type)).await
    }

    async fn event_type(&self, name: &str) -> Result<Option<EventTypeRow>> {
        let name = name.to_owned();
        self.read(move |conn| catalogue::event_type(conn, &name)).await
    }

    async fn event_types(&self, after: Option<&str>, limit: usize) -> Result<Vec<EventTypeRow>> {
        let after = after.map(str::to_owned);
        self.read(move |conn| catalogue::event_types(conn, after.as_deref(), limit)).await
    }

    async fn delete_event_type(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write(Lane::Other, SMALL, move |tx| catalogue::delete(tx, &name)).await
    }

    async fn create_key(&self, key: KeyRow) -> Result<()> {
        self.write(Lane::Other, SMALL, move |tx| keys::create(tx, &key)).await
    }

    async fn keys(&self, page: PageRequest) -> Result<Page<KeyRow>> {
        self.read(move |conn| keys::keys(conn, page)).await
    }

    async fn delete_key(&self, id: KeyId) -> Result<bool> {
        self.write(Lane::Other, SMALL, move |tx| keys::delete(tx, id)).await
    }

    async fn close(&self) {
        self.shut().await;
    }
}
