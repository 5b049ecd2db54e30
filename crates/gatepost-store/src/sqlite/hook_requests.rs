//! [`HookStore`] for [`SqliteStore`].

use async_trait::async_trait;
use gatepost_core::hooks::outcome::Outcome;
use gatepost_core::{HookId, InvocationId, TenantId, TenantKey, Timestamp};

use super::queue::Lane;
use super::{SqliteStore, hooks, invocations};
use crate::hooks::{
    HookRegistry, HookStore, HookTest, HookUpdate, HookUpdateOutcome, HookUpkeep, InvocationBatch, InvocationQuery,
    KeptSecret, NewHook, OutcomeRecorded, PointRemoval, StoredHook, StoredInvocation, StoredPoint,
};
use crate::{Created, Page, PageRequest, Result};

/// What a small request holds in the queue, about.
const SMALL: usize = 2_048;
/// What a record holds in the queue, about.
const RECORD: usize = 2_048;

#[async_trait]
impl HookStore for SqliteStore {
    async fn create_hook(&self, new: NewHook) -> Result<Option<StoredHook>> {
        self.write(Lane::Other, SMALL, move |tx| hooks::create(tx, &new)).await
    }

    async fn update_hook(&self, update: HookUpdate) -> Result<HookUpdateOutcome> {
        self.write(Lane::Other, SMALL, move |tx| hooks::update(tx, &update)).await
    }

    async fn delete_hook(&self, tenant: TenantKey, id: HookId) -> Result<bool> {
        self.write(Lane::Other, SMALL, move |tx| hooks::delete(tx, tenant, id)).await
    }

    async fn record_hook_test(
        &self,
        tenant: TenantKey,
        id: HookId,
        revision: u32,
        test: HookTest,
    ) -> Result<Option<StoredHook>> {
        self.write(Lane::Other, SMALL, move |tx| hooks::record_test(tx, tenant, id, revision, &test)).await
    }

    async fn hook(&self, tenant: TenantKey, id: HookId) -> Result<Option<StoredHook>> {
        self.read(move |conn| hooks::hook(conn, tenant, id)).await
    }

    async fn hooks(&self, tenant: TenantKey, point: Option<&str>, page: PageRequest) -> Result<Page<StoredHook>> {
        let point = point.map(str::to_owned);
        self.read(move |conn| hooks::hooks(conn, tenant, point.as_deref(), page)).await
    }

    async fn put_point(&self, tenant: TenantKey, point: StoredPoint) -> Result<Option<(StoredPoint, Created)>> {
        self.write(Lane::Other, SMALL, move |tx| hooks::put_point(tx, tenant, &point)).await
    }

    async fn delete_point(&self, tenant: TenantKey, name: &str, builtin: bool) -> Result<PointRemoval> {
        let name = name.to_owned();
        self.write(Lane::Other, SMALL, move |tx| hooks::delete_point(tx, tenant, &name, builtin)).await
    }

    async fn hook_registry(&self, tenant: &TenantId) -> Result<Option<HookRegistry>> {
        let tenant = tenant.clone();
        self.read(move |conn| hooks::registry(conn, &tenant)).await
    }

    async fn hook_tenants(&self, after: Option<TenantKey>, limit: usize) -> Result<Vec<(TenantKey, TenantId)>> {
        self.read(move |conn| hooks::tenants(conn, after, limit)).await
    }

    async fn record_invocations(&self, batch: InvocationBatch) -> Result<()> {
        let bytes = RECORD * batch.len();
        self.write(Lane::Other, bytes, move |tx| invocations::record(tx, &batch)).await
    }

    async fn invocation(&self, tenant: TenantKey, id: InvocationId) -> Result<Option<StoredInvocation>> {
        self.read(move |conn| invocations::invocation(conn, tenant, id)).await
    }

    async fn invocations(&self, query: InvocationQuery) -> Result<Page<StoredInvocation>> {
        self.read(move |conn| invocations::invocations(conn, &query)).await
    }

    async fn record_outcome(
        &self,
        tenant: TenantKey,
        id: InvocationId,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<OutcomeRecorded> {
        self.write(Lane::Other, SMALL, move |tx| invocations::record_outcome(tx, tenant, id, &outcome, now)).await
    }

    async fn owed_outcomes(&self, limit: usize) -> Result<Vec<(TenantId, StoredInvocation)>> {
        self.read(move |conn| invocations::owed(conn, limit)).await
    }

    async fn outcome_published(&self, tenant: TenantKey, id: InvocationId) -> Result<()> {
        self.write(Lane::Other, SMALL, move |tx| invocations::published(tx, tenant, id)).await
    }

    async fn keep_up_hooks(&self, now: Timestamp, after: Option<TenantKey>, max_rows: usize) -> Result<HookUpkeep> {
        self.write(Lane::Other, SMALL, move |tx| invocations::keep_up(tx, now, after, max_rows)).await
    }

    async fn erase_invocations(&self, tenant: TenantKey, subject: &str, max_rows: usize) -> Result<usize> {
        let subject = subject.to_owned();
        self.write(Lane::Other, SMALL, move |tx| invocations::remove_subject(tx.conn, tenant, &subject, max_rows)).await
    }

    async fn keep_secret(&self, kept: KeptSecret) -> Result<()> {
        self.write(Lane::Other, SMALL + kept.sealed.len(), move |tx| invocations::keep_secret(tx, &kept)).await
    }

    async fn due_secrets(&self, now: Timestamp, limit: usize) -> Result<Vec<(TenantId, KeptSecret)>> {
        self.read(move |conn| invocations::due_secrets(conn, now, limit)).await
    }

    async fn drop_secret(&self, invocation: InvocationId, hook: HookId) -> Result<()> {
        self.write(Lane::Other, SMALL, move |tx| invocations::drop_secret(tx, invocation, hook)).await
    }
}
