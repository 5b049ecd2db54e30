//! The in-memory view of tenants and their webhooks.
//!
//! P4 rests on two things: the store refuses a publish whose registry version is not the present
//! one, and a change is applied here *before* it is answered. Snapshots are immutable; a publisher
//! matches against the one it loaded and holds no lock.
//!
//! Versions order the changes of *one* tenant. One that is deleted and made again under the same id
//! is another, counts anew and has another number: what is held here belongs to a number, never to an
//! id, and whatever becomes of an id's tenant, what was held under the id is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use gatepost_core::matching::{Subscription, TenantRegistry};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Webhook;
use gatepost_core::{TenantId, TenantKey};
use gatepost_store::{RegistryChange, Store, StoreError};
use tokio::sync::Notify;

/// What a tenant takes beside its webhooks, about: its settings, and its places in maps.
const TENANT: usize = 2_048;
/// Changes of a tenant's webhooks that may wait for one before them.
const EARLY_MAX: usize = 32;
/// Reading a tenant with more webhooks than this takes longer than a change takes to arrive, and those read
/// have this long to do so.
const LARGE: usize = 200;
const ARRIVES_WITHIN: Duration = Duration::from_millis(50);
/// Tenants are weighed anew after so many were read: webhooks may have been added since.
const WEIGH_EVERY: usize = 256;

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
    /// Orders changes; never held while publishing. Holds those that came before an earlier one did.
    changing: tokio::sync::Mutex<BTreeMap<u64, RegistryChange>>,
    /// The registry changed.
    changed: Notify,
    /// Held while something of it is counted that takes long: once at a time.
    pub(crate) counting: tokio::sync::Mutex<()>,
}

impl TenantState {
    /// The tenant as it stands in the store; `None`: there is none.
    async fn read(store: &dyn Store, id: &TenantId) -> Result<Option<Self>, StoreError> {
        let Some(tenant) = store.tenant(id).await? else { return Ok(None) };
        // Deleted in between: there was a moment without it, whatever came after.
        let Some(registry) = store.registry(tenant.key).await? else { return Ok(None) };
        Ok(Some(TenantState {
            key: tenant.key,
            registry: ArcSwap::from_pointee(registry.webhooks),
            must_verify: AtomicBool::new(registry.must_verify),
            tenant: ArcSwap::from_pointee(tenant),
            changing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            counting: tokio::sync::Mutex::default(),
        }))
    }

    /// Bytes it takes, about.
    fn weight(&self) -> usize {
        TENANT + self.registry.load().size()
    }

    /// The present snapshot.
    pub(crate) fn registry(&self) -> Arc<TenantRegistry> {
        self.registry.load_full()
    }

    /// Takes in a committed change. Changes may arrive out of order: one that is early waits for those before
    /// it, and publishers need not, because the store refuses what was matched without it, and then reading
    /// the store, which holds them all, closes the gap. A change of another tenant of the same id is none.
    pub(crate) async fn apply(&self, store: &dyn Store, change: &RegistryChange) -> Result<(), StoreError> {
        if change.webhook.tenant != self.key {
            return Ok(());
        }
        let mut early = self.changing.lock().await;
        let present = self.registry.load_full();
        if present.version() >= change.version {
            return Ok(());
        }
        if present.version() + 1 < change.version {
            early.insert(change.version, change.clone());
            // The one before was made by others, or its answer was lost.
            return if early.len() > EARLY_MAX { self.reload(store, &mut early).await } else { Ok(()) };
        }
        let mut next = self.with(&present, change);
        while let Some(change) = early.remove(&(next.version() + 1)) {
            next = self.with(&next, &change);
        }
        self.set(next);
        Ok(())
    }

    fn set(&self, registry: TenantRegistry) {
        self.registry.store(Arc::new(registry));
        self.changed.notify_waiters();
    }

    fn with(&self, present: &TenantRegistry, change: &RegistryChange) -> TenantRegistry {
        // Changing the setting is a change of the registry too, so here it is the one of this version.
        let must_verify = self.must_verify.load(Ordering::Acquire);
        let live = change.webhook.deleted_at.is_none().then(|| subscription(&change.webhook, must_verify)).flatten();
        match live {
            Some(subscription) => present.with(change.version, subscription),
            None => present.without(change.version, change.webhook.key),
        }
    }

    /// Reads the registry anew unless it is at `version` or later already: the versions of one
    /// tenant only grow, so a later one was read, or applied, since `version` was seen.
    pub(crate) async fn catch_up(&self, store: &dyn Store, version: u64) -> Result<(), StoreError> {
        if self.arrives(version).await {
            return Ok(());
        }
        let mut early = self.changing.lock().await;
        if self.registry.load().version() >= version {
            return Ok(());
        }
        self.reload(store, &mut early).await
    }

    /// Waits for a change that is made here, so that it is in the store, and about to be applied: a publisher
    /// may hear of it first. Whether it came. Very many webhooks are not read anew for each of them.
    async fn arrives(&self, version: u64) -> bool {
        let there = || self.registry.load().version() >= version;
        // The simulation drives everything by hand and has nothing to wait with.
        if there() || self.registry.load().len() <= LARGE || tokio::runtime::Handle::try_current().is_err() {
            return there();
        }
        let arrival = async {
            loop {
                // Made before looking, so that nothing in between is missed.
                let changed = self.changed.notified();
                if there() {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(ARRIVES_WITHIN, arrival).await.is_ok()
    }

    /// Reads the tenant's own members anew; whether it is still there. Reading in turns, after the
    /// commit, makes the last of several changes the one that stays.
    async fn refresh(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let mut early = self.changing.lock().await;
        let Some(tenant) = store.tenant_by_key(self.key).await? else { return Ok(false) };
        let version = tenant.registry_version;
        self.tenant.store(Arc::new(tenant));
        if self.registry.load().version() < version {
            // A setting that decides what matches was changed, perhaps.
            self.reload(store, &mut early).await?;
        }
        Ok(true)
    }

    async fn reload(&self, store: &dyn Store, early: &mut BTreeMap<u64, RegistryChange>) -> Result<(), StoreError> {
        if let Some(registry) = store.registry(self.key).await? {
            early.retain(|version, _| *version > registry.version);
            self.must_verify.store(registry.must_verify, Ordering::Release);
            self.set(registry.webhooks);
        }
        Ok(())
    }
}

/// Patterns and filters were checked at write; should a later version no longer read one, the
/// webhook matches nothing and says so in the log, rather than stopping the tenant's publishing.
fn subscription(webhook: &Webhook, must_verify: bool) -> Option<Arc<Subscription>> {
    Subscription::compile(webhook, must_verify)
        .inspect_err(|error| tracing::error!(webhook = %webhook.id, %error, "a webhook cannot be matched"))
        .ok()
        .map(Arc::new)
}

/// The tenants that were used of late.
pub(crate) struct Tenants {
    known: RwLock<Known>,
    /// Bytes, about.
    room: usize,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<TenantId, Arc<Place>>,
    /// What those in memory took when they were read, or last weighed.
    weight: usize,
    /// How many were read since they were weighed.
    read: usize,
}

/// Where a tenant is, or is about to be. What was read for a place that is no longer the id's is not kept:
/// whoever forgets a tenant only has to take its place away.
#[derive(Default)]
struct Place {
    state: OnceLock<Arc<TenantState>>,
    /// One reads, and everybody waits for that: there may be very much to read.
    reading: tokio::sync::Mutex<()>,
    /// Since it was last looked whether somebody does.
    used: AtomicBool,
}

impl Place {
    fn state(&self) -> Option<Arc<TenantState>> {
        let state = self.state.get()?;
        // Written once in a while, so that publishers on other cores keep their copy of it.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(state))
    }
}

#[cfg(test)]
impl Default for Tenants {
    fn default() -> Self {
        Tenants::with_room(crate::Limits::default().tenant_bytes)
    }
}

impl Tenants {
    /// None yet; those used of late are kept within so many bytes, about.
    pub(crate) fn with_room(room: usize) -> Self {
        Tenants { known: RwLock::default(), room }
    }

    /// The tenant, read from the store at first use.
    pub(crate) async fn get(&self, store: &dyn Store, id: &TenantId) -> Result<Option<Arc<TenantState>>, StoreError> {
        // Each further round is owed to a commit of somebody else's.
        loop {
            let place = self.place(id);
            if let Some(state) = place.state() {
                return Ok(Some(state));
            }
            let _turn = place.reading.lock().await;
            if let Some(state) = place.state() {
                return Ok(Some(state));
            }
            let _unless_kept = Vacated { tenants: self, id, place: &place };
            if !self.is_present(id, &place) {
                continue;
            }
            let Some(state) = TenantState::read(store, id).await? else { return Ok(None) };
            if let Some(state) = self.keep(id, &place, state) {
                return Ok(Some(state));
            }
        }
    }

    fn place(&self, id: &TenantId) -> Arc<Place> {
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = known.by_id.get(id) {
                return Arc::clone(place);
            }
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.by_id.entry(id.clone()).or_default())
    }

    fn is_present(&self, id: &TenantId, place: &Arc<Place>) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).is_at(id, place)
    }

    /// Keeps what was read for a place, in its turn; `None`: it may be out of date by now.
    fn keep(&self, id: &TenantId, place: &Arc<Place>, state: TenantState) -> Option<Arc<TenantState>> {
        // Freed when nobody waits for the lock any more: there may be much of it.
        let _gone;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.is_at(id, place) {
            return None;
        }
        known.weight += state.weight();
        known.read += 1;
        let kept = Arc::clone(place.state.get_or_init(|| Arc::new(state)));
        place.used.store(true, Ordering::Relaxed);
        if known.weight > self.room || known.read >= WEIGH_EVERY {
            _gone = known.make_room(self.room, place);
        }
        Some(kept)
    }

    /// The tenant, if it is in memory.
    pub(crate) fn cached(&self, id: &TenantId) -> Option<Arc<TenantState>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_id.get(id)?.state()
    }

    /// Forgets a tenant: deleted, or deleted and made again elsewhere.
    pub(crate) fn forget(&self, id: &TenantId) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).by_id.remove(id);
    }

    /// Forgets a tenant at the end of a change, however it ends: its answer may be lost (the store
    /// fails after the commit) or never awaited (the caller goes away in between).
    pub(crate) fn changing<'a>(&'a self, id: &'a TenantId) -> Changing<'a> {
        Changing { tenants: self, id, kept: false }
    }
}

impl Known {
    fn is_at(&self, id: &TenantId, place: &Arc<Place>) -> bool {
        self.by_id.get(id).is_some_and(|present| Arc::ptr_eq(present, place))
    }

    /// Weighs the tenants, and takes out those that nobody used since this was last done, and then others,
    /// until a quarter is free; but not `newest`. Whoever holds one of them goes on with it: the store refuses
    /// what was matched against an older version than its own.
    fn make_room(&mut self, room: usize, newest: &Arc<Place>) -> Vec<Arc<Place>> {
        let weigh = |place: &Arc<Place>| place.state.get().map_or(0, |state| state.weight());
        let mut weight: usize = self.by_id.values().map(weigh).sum();
        let mut gone = Vec::new();
        for everybody in [false, true] {
            if weight <= room {
                break;
            }
            let leaving = self.by_id.extract_if(|_, place| {
                let spared = !everybody && place.used.swap(false, Ordering::Relaxed);
                // What is being read has no weight yet.
                let own = weigh(place);
                if spared || own == 0 || weight <= room / 4 * 3 || Arc::ptr_eq(place, newest) {
                    return false;
                }
                weight -= own;
                true
            });
            gone.extend(leaving.map(|(_, place)| place));
        }
        (self.weight, self.read) = (weight, 0);
        gone
    }
}

/// Takes a place away in the end, unless something was put there: ids of nobody leave nothing behind, however
/// a reading ends. Whoever waits for it finds a new one.
struct Vacated<'a> {
    tenants: &'a Tenants,
    id: &'a TenantId,
    place: &'a Arc<Place>,
}

impl Drop for Vacated<'_> {
    fn drop(&mut self) {
        if self.place.state.get().is_some() {
            return;
        }
        let mut known = self.tenants.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.is_at(self.id, self.place) {
            known.by_id.remove(self.id);
        }
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
