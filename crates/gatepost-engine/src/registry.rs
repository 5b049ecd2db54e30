//! The in-memory view of tenants and their webhooks.
//!
//! P4 rests on two things: the store refuses a publish whose registry version is not the present
//! one, and a change is applied here *before* it is answered. Snapshots are immutable; a publisher
//! matches against the one it loaded and holds no lock.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use gatepost_core::TenantId;
use gatepost_core::matching::{Subscription, TenantRegistry};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Webhook;
use gatepost_store::{RegistryChange, Store, StoreError};

/// A tenant in memory.
pub(crate) struct TenantState {
    /// The tenant as last read or put.
    pub(crate) tenant: ArcSwap<Tenant>,
    registry: ArcSwap<TenantRegistry>,
    /// Orders changes; never held while publishing.
    changing: tokio::sync::Mutex<()>,
}

impl TenantState {
    /// The present snapshot.
    pub(crate) fn registry(&self) -> Arc<TenantRegistry> {
        self.registry.load_full()
    }

    /// Takes in a committed change. Changes may arrive out of order; a gap is closed by reading the
    /// store, which by then holds them all.
    pub(crate) async fn apply(&self, store: &dyn Store, change: &RegistryChange) -> Result<(), StoreError> {
        let _turn = self.changing.lock().await;
        let present = self.registry.load_full();
        if present.version() >= change.version {
            return Ok(());
        }
        if present.version() + 1 < change.version {
            return self.reload_locked(store).await;
        }
        let live = change.webhook.deleted_at.is_none().then(|| subscription(&change.webhook)).flatten();
        let next = match live {
            Some(subscription) => present.with(change.version, subscription),
            None => present.without(change.version, change.webhook.key),
        };
        self.registry.store(Arc::new(next));
        Ok(())
    }

    /// Reads the registry anew unless it is at `version` or later already.
    pub(crate) async fn catch_up(&self, store: &dyn Store, version: u64) -> Result<(), StoreError> {
        let _turn = self.changing.lock().await;
        if self.registry.load().version() >= version {
            return Ok(());
        }
        self.reload_locked(store).await
    }

    async fn reload_locked(&self, store: &dyn Store) -> Result<(), StoreError> {
        if let Some(registry) = store.registry(self.tenant.load().key).await? {
            self.registry.store(Arc::new(compile(registry.version, &registry.webhooks)));
        }
        Ok(())
    }
}

fn compile(version: u64, webhooks: &[Webhook]) -> TenantRegistry {
    TenantRegistry::new(version, webhooks.iter().filter_map(subscription))
}

/// Patterns and filters were checked at write; should a later version no longer read one, the
/// webhook matches nothing and says so in the log, rather than stopping the tenant's publishing.
fn subscription(webhook: &Webhook) -> Option<Arc<Subscription>> {
    Subscription::compile(webhook)
        .inspect_err(|error| tracing::error!(webhook = %webhook.id, %error, "a webhook cannot be matched"))
        .ok()
        .map(Arc::new)
}

/// All tenants that were used since start.
#[derive(Default)]
pub(crate) struct Tenants {
    by_id: RwLock<HashMap<TenantId, Arc<TenantState>>>,
}

impl Tenants {
    /// The tenant, read from the store at first use.
    pub(crate) async fn get(&self, store: &dyn Store, id: &TenantId) -> Result<Option<Arc<TenantState>>, StoreError> {
        if let Some(state) = self.cached(id) {
            return Ok(Some(state));
        }
        let Some(tenant) = store.tenant(id).await? else { return Ok(None) };
        let Some(registry) = store.registry(tenant.key).await? else { return Ok(None) };
        let state = Arc::new(TenantState {
            registry: ArcSwap::from_pointee(compile(registry.version, &registry.webhooks)),
            tenant: ArcSwap::from_pointee(tenant),
            changing: tokio::sync::Mutex::new(()),
        });
        // Two readers may race; the first one's state wins, because changes may be in it already.
        let mut by_id = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(Arc::clone(by_id.entry(id.clone()).or_insert(state))))
    }

    /// The tenant, if it was used before.
    pub(crate) fn cached(&self, id: &TenantId) -> Option<Arc<TenantState>> {
        let by_id = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        by_id.get(id).cloned()
    }

    /// Forgets a tenant: deleted, or deleted and made again elsewhere.
    pub(crate) fn forget(&self, id: &TenantId) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
