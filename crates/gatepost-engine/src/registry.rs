//! The in-memory view of tenants and their webhooks.
//!
//! P4 rests on two things: the store refuses a publish whose registry version is not the present
//! one, and a change is applied here *before* it is answered. Snapshots are immutable; a publisher
//! matches against the one it loaded and holds no lock.
//!
//! Versions order the changes of *one* tenant. One that is deleted and made again under the same id
//! is another, counts anew and has another number: what is held here belongs to a number, never to an
//! id, and whatever becomes of an id's tenant, what was held under the id is forgotten.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use gatepost_core::matching::{Subscription, TenantRegistry};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Webhook;
use gatepost_core::{TenantId, TenantKey};
use gatepost_store::{Registry, RegistryChange, Store, StoreError};

/// A tenant in memory.
pub(crate) struct TenantState {
    /// Which one, for good.
    key: TenantKey,
    /// The tenant as last read; always the one of `key`.
    pub(crate) tenant: ArcSwap<Tenant>,
    /// Its webhooks, the ones of `key` alone.
    registry: ArcSwap<TenantRegistry>,
    /// Whether all of its webhooks must be verified, at the registry's version.
    must_verify: AtomicBool,
    /// Orders changes; never held while publishing.
    changing: tokio::sync::Mutex<()>,
}

impl TenantState {
    /// The tenant as it stands in the store; `None`: there is none.
    async fn read(store: &dyn Store, id: &TenantId) -> Result<Option<Self>, StoreError> {
        let Some(tenant) = store.tenant(id).await? else { return Ok(None) };
        // Deleted in between: there was a moment without it, whatever came after.
        let Some(registry) = store.registry(tenant.key).await? else { return Ok(None) };
        Ok(Some(TenantState {
            key: tenant.key,
            registry: ArcSwap::from_pointee(compile(&registry)),
            must_verify: AtomicBool::new(registry.must_verify),
            tenant: ArcSwap::from_pointee(tenant),
            changing: tokio::sync::Mutex::new(()),
        }))
    }

    /// The present snapshot.
    pub(crate) fn registry(&self) -> Arc<TenantRegistry> {
        self.registry.load_full()
    }

    /// Takes in a committed change. Changes may arrive out of order; a gap is closed by reading the
    /// store, which by then holds them all. A change of another tenant of the same id is none.
    pub(crate) async fn apply(&self, store: &dyn Store, change: &RegistryChange) -> Result<(), StoreError> {
        if change.webhook.tenant != self.key {
            return Ok(());
        }
        let _turn = self.changing.lock().await;
        let present = self.registry.load_full();
        if present.version() >= change.version {
            return Ok(());
        }
        if present.version() + 1 < change.version {
            return self.reload_locked(store).await;
        }
        // Changing the setting is a change of the registry too, so here it is the one of this version.
        let must_verify = self.must_verify.load(Ordering::Acquire);
        let live = change.webhook.deleted_at.is_none().then(|| subscription(&change.webhook, must_verify)).flatten();
        let next = match live {
            Some(subscription) => present.with(change.version, subscription),
            None => present.without(change.version, change.webhook.key),
        };
        self.registry.store(Arc::new(next));
        Ok(())
    }

    /// Reads the registry anew unless it is at `version` or later already: the versions of one
    /// tenant only grow, so a later one was read, or applied, since `version` was seen.
    pub(crate) async fn catch_up(&self, store: &dyn Store, version: u64) -> Result<(), StoreError> {
        let _turn = self.changing.lock().await;
        if self.registry.load().version() >= version {
            return Ok(());
        }
        self.reload_locked(store).await
    }

    /// Reads the tenant's own members anew; whether it is still there. Reading in turns, after the
    /// commit, makes the last of several changes the one that stays.
    async fn refresh(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let _turn = self.changing.lock().await;
        let Some(tenant) = store.tenant_by_key(self.key).await? else { return Ok(false) };
        let version = tenant.registry_version;
        self.tenant.store(Arc::new(tenant));
        if self.registry.load().version() < version {
            // A setting that decides what matches was changed, perhaps.
            self.reload_locked(store).await?;
        }
        Ok(true)
    }

    async fn reload_locked(&self, store: &dyn Store) -> Result<(), StoreError> {
        if let Some(registry) = store.registry(self.key).await? {
            self.registry.store(Arc::new(compile(&registry)));
            self.must_verify.store(registry.must_verify, Ordering::Release);
        }
        Ok(())
    }
}

fn compile(registry: &Registry) -> TenantRegistry {
    let subscriptions = registry.webhooks.iter().filter_map(|webhook| subscription(webhook, registry.must_verify));
    TenantRegistry::new(registry.version, subscriptions)
}

/// Patterns and filters were checked at write; should a later version no longer read one, the
/// webhook matches nothing and says so in the log, rather than stopping the tenant's publishing.
fn subscription(webhook: &Webhook, must_verify: bool) -> Option<Arc<Subscription>> {
    Subscription::compile(webhook, must_verify)
        .inspect_err(|error| tracing::error!(webhook = %webhook.id, %error, "a webhook cannot be matched"))
        .ok()
        .map(Arc::new)
}

/// All tenants that were used since start.
#[derive(Default)]
pub(crate) struct Tenants {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<TenantId, Arc<TenantState>>,
    /// Grows with every forgetting: what was read before one must not be kept after it.
    generation: u64,
}

impl Tenants {
    /// The tenant, read from the store at first use.
    pub(crate) async fn get(&self, store: &dyn Store, id: &TenantId) -> Result<Option<Arc<TenantState>>, StoreError> {
        // Each further round is owed to a commit of somebody else's.
        loop {
            let generation = {
                let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(state) = known.by_id.get(id) {
                    return Ok(Some(Arc::clone(state)));
                }
                known.generation
            };
            let Some(state) = TenantState::read(store, id).await? else { return Ok(None) };
            if let Some(state) = self.keep(id, generation, state) {
                return Ok(Some(state));
            }
        }
    }

    /// Keeps what was read at `generation`; `None`: it may be out of date by now. Two readers may
    /// race; the first one's state wins, because changes may be in it already.
    fn keep(&self, id: &TenantId, generation: u64, state: TenantState) -> Option<Arc<TenantState>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation {
            return None;
        }
        Some(Arc::clone(known.by_id.entry(id.clone()).or_insert_with(|| Arc::new(state))))
    }

    /// The tenant, if it was used before.
    pub(crate) fn cached(&self, id: &TenantId) -> Option<Arc<TenantState>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_id.get(id).cloned()
    }

    /// Forgets a tenant: deleted, or deleted and made again elsewhere.
    pub(crate) fn forget(&self, id: &TenantId) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.generation += 1;
        known.by_id.remove(id);
    }

    /// Forgets a tenant at the end of a change, however it ends: its answer may be lost (the store
    /// fails after the commit) or never awaited (the caller goes away in between).
    pub(crate) fn changing<'a>(&'a self, id: &'a TenantId) -> Changing<'a> {
        Changing { tenants: self, id, kept: false }
    }
}

/// See [`Tenants::changing`].
#[must_use = "a tenant whose change is not awaited is forgotten too early"]
pub(crate) struct Changing<'a> {
    tenants: &'a Tenants,
    id: &'a TenantId,
    kept: bool,
}

impl Changing<'_> {
    /// The change is committed, and left this tenant behind: what is held of it can stay, with its
    /// compiled webhooks, and only its own members are read anew.
    pub(crate) async fn put(mut self, store: &dyn Store, tenant: TenantKey) {
        if let Some(state) = self.tenants.cached(self.id)
            && state.key == tenant
        {
            self.kept = matches!(state.refresh(store).await, Ok(true));
        }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.tenants.forget(self.id);
        }
    }
}

#[cfg(test)]
mod tests;
