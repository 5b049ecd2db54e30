//! How much a tenant has, for its quotas. Asked only of tenants that have some.

use async_trait::async_trait;
use gatepost_core::TenantKey;

use crate::Result;

/// Counts of what quotas bound.
#[async_trait]
pub trait QuotaStore: Send + Sync {
    /// How many webhooks the tenant has that are not deleted.
    async fn webhook_count(&self, tenant: TenantKey) -> Result<u64>;

    /// How many deliveries wait for the tenant's webhooks that are not deleted (pending or held),
    /// counted no further than `at_most`.
    async fn pending_count(&self, tenant: TenantKey, at_most: u64) -> Result<u64>;
}
