//! Event types that a tenant declared for itself, in memory: they stand over the server's catalogue.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use gatepost_core::TenantKey;
use gatepost_core::event::{EventType, Urgency};
use gatepost_core::nearest::nearest;
use gatepost_store::{EventTypeRow, Store, StoreError, TenantTypeRow};

use crate::catalogue::{EventTypeView, view_of};
use crate::engine::Engine;
use crate::schemas::weight_of;

/// Rows read at once.
const PAGE: usize = 250;

/// One tenant's own types.
pub(crate) type OwnTypes = BTreeMap<EventType, EventTypeView>;

/// The own types of the tenants that were used of late.
pub(crate) struct TenantTypes {
    known: RwLock<Known>,
    /// Orders reading and changing, so that what was read before a change is not kept after it.
    changing: tokio::sync::Mutex<()>,
    /// Bytes, about.
    room: usize,
}

#[derive(Default)]
struct Known {
    by_tenant: HashMap<TenantKey, Place>,
    weight: usize,
}

struct Place {
    types: Arc<OwnTypes>,
    weight: usize,
    /// Since room was last made.
    used: AtomicBool,
}

/// What a tenant without types takes.
const TENANT: usize = 160;

impl TenantTypes {
    /// None yet; those used of late are kept within so many bytes, about.
    pub(crate) fn with_room(room: usize) -> Self {
        TenantTypes { known: RwLock::default(), changing: tokio::sync::Mutex::default(), room }
    }

    /// What is in memory of a tenant; nothing, where it is not. To decide by, it is [loaded](Self::load).
    pub(crate) fn of(&self, tenant: TenantKey) -> Arc<OwnTypes> {
        self.cached(tenant).unwrap_or_default()
    }

    fn cached(&self, tenant: TenantKey) -> Option<Arc<OwnTypes>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let place = known.by_tenant.get(&tenant)?;
        // Written once in a while, so that publishers on other cores keep their copy of it.
        if !place.used.load(Ordering::Relaxed) {
            place.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&place.types))
    }

    fn keep(&self, tenant: TenantKey, types: OwnTypes) -> Arc<OwnTypes> {
        let definitions = types.values().filter_map(|view| view.definition.as_deref());
        let weight = TENANT + definitions.map(weight_of).sum::<usize>();
        let types = Arc::new(types);
        let place = Place { types: Arc::clone(&types), weight, used: AtomicBool::new(true) };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.weight += weight;
        if let Some(before) = known.by_tenant.insert(tenant, place) {
            known.weight -= before.weight;
        }
        known.make_room(self.room, tenant);
        types
    }

    /// Forgets a tenant, which is deleted or in doubt.
    pub(crate) fn forget(&self, tenant: TenantKey) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(gone) = known.by_tenant.remove(&tenant) {
            known.weight -= gone.weight;
        }
    }

    /// A tenant's types: from memory, or read now.
    pub(crate) async fn load(&self, store: &dyn Store, tenant: TenantKey) -> Result<Arc<OwnTypes>, StoreError> {
        if let Some(types) = self.cached(tenant) {
            return Ok(types);
        }
        let _turn = self.changing.lock().await;
        match self.cached(tenant) {
            Some(types) => Ok(types),
            None => Ok(self.keep(tenant, read(store, tenant, &OwnTypes::new()).await?)),
        }
    }

    /// Makes a change in the store with `change`, then takes it in: once this returns, it counts. `change` is
    /// given the types before it, which no other change can alter meanwhile.
    pub(crate) async fn change<T, F: Future<Output = Result<T, crate::error::Error>>>(
        &self,
        store: &dyn Store,
        tenant: TenantKey,
        change: impl FnOnce(Arc<OwnTypes>) -> F,
    ) -> Result<T, crate::error::Error> {
        let _turn = self.changing.lock().await;
        let before = match self.cached(tenant) {
            Some(types) => types,
            None => self.keep(tenant, read(store, tenant, &OwnTypes::new()).await?),
        };
        let changed = change(Arc::clone(&before)).await;
        // Also when its answer is lost: it may have been made all the same.
        match read(store, tenant, &before).await {
            Ok(types) => drop(self.keep(tenant, types)),
            Err(_) => self.forget(tenant),
        }
        changed
    }
}

impl Known {
    /// Takes out those that nobody used since this was last done, and then others, until a quarter is free; but
    /// not `newest`. Whoever holds one of them goes on with it.
    fn make_room(&mut self, room: usize, newest: TenantKey) {
        if self.weight <= room {
            return;
        }
        for everybody in [false, true] {
            let weight = &mut self.weight;
            self.by_tenant.retain(|tenant, place| {
                let spared = !everybody && place.used.swap(false, Ordering::Relaxed);
                let stays = spared || *tenant == newest || *weight <= room / 4 * 3;
                *weight -= if stays { 0 } else { place.weight };
                stays
            });
        }
    }
}

/// Reads a tenant's types. Schemas that are as `before` are the same ones, compiled or not.
async fn read(store: &dyn Store, tenant: TenantKey, before: &OwnTypes) -> Result<OwnTypes, StoreError> {
    let mut types = OwnTypes::new();
    let mut after: Option<String> = None;
    loop {
        let rows = store.tenant_types(tenant, after.as_deref(), true, PAGE).await?;
        let Some(last) = rows.last() else { return Ok(types) };
        after = Some(last.name.to_string());
        types.extend(rows.into_iter().map(|row| {
            let mut view = view_of(row_of(row));
            if let Some(known) = before.get(&view.name).and_then(|known| known.schema.as_ref())
                && view.schema.as_ref().is_some_and(|schema| schema.text() == known.text())
            {
                view.schema = Some(Arc::clone(known));
            }
            (view.name.clone(), view)
        }));
    }
}

fn row_of(row: TenantTypeRow) -> EventTypeRow {
    let TenantTypeRow { name, definition, created_at, updated_at, last_published: _ } = row;
    EventTypeRow { name, definition, created_at, updated_at }
}

/// The types as one tenant has them: its own, and the server's below.
#[derive(Clone)]
pub(crate) struct TypesOf {
    pub(crate) own: Arc<OwnTypes>,
    pub(crate) server: Arc<BTreeMap<EventType, EventTypeView>>,
}

impl TypesOf {
    /// A declared type.
    pub(crate) fn get(&self, name: &EventType) -> Option<&EventTypeView> {
        // Most tenants declare none.
        let own = if self.own.is_empty() { None } else { self.own.get(name) };
        own.or_else(|| self.server.get(name))
    }

    /// Whether somebody declared the type.
    pub(crate) fn declares(&self, name: &EventType) -> bool {
        self.get(name).is_some()
    }

    /// The declared type that `text` is most likely a slip of.
    pub(crate) fn nearest(&self, text: &str) -> Option<String> {
        let names = self.own.keys().chain(self.server.keys()).map(EventType::as_str);
        nearest(text, names).map(str::to_owned)
    }

    /// How much events of the type hurry, and whether somebody declared it.
    pub(crate) fn urgency(&self, name: &EventType) -> (Urgency, bool) {
        match self.get(name).and_then(|view| view.definition.as_ref()) {
            Some(definition) => (definition.urgency, true),
            None => (Urgency::default(), false),
        }
    }
}

impl Engine {
    /// The types as a tenant has them, its own read now if they are not in memory.
    pub(crate) async fn types_loaded(&self, tenant: TenantKey) -> Result<TypesOf, StoreError> {
        let own = self.inner.tenant_types.load(&*self.inner.store, tenant).await?;
        Ok(TypesOf { own, server: self.inner.catalogue.all() })
    }

    /// The same as far as they are in memory: for advice, not to decide by.
    pub(crate) fn types_of(&self, tenant: TenantKey) -> TypesOf {
        TypesOf { own: self.inner.tenant_types.of(tenant), server: self.inner.catalogue.all() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatepost_core::catalogue::EventTypeDefinition;

    fn types(bytes: usize) -> OwnTypes {
        let definition: EventTypeDefinition =
            serde_json::from_value(serde_json::json!({"family":"a","description":"x".repeat(bytes)})).unwrap();
        let name: EventType = "a.b".parse().unwrap();
        let at = gatepost_core::Timestamp::from_micros(0);
        let row = EventTypeRow { name: name.clone(), definition: Some(definition), created_at: at, updated_at: at };
        OwnTypes::from([(name, view_of(row))])
    }

    #[test]
    fn p10_own_types_of_many_tenants_are_kept_within_their_room() {
        let all = TenantTypes::with_room(100_000);
        for tenant in 0..200 {
            all.keep(TenantKey(tenant), types(9_000));
            let known = all.known.read().unwrap();
            assert!(known.weight <= 100_000 && known.by_tenant.contains_key(&TenantKey(tenant)));
            assert_eq!(known.weight, known.by_tenant.values().map(|place| place.weight).sum::<usize>());
        }
        all.keep(TenantKey(1), types(900_000));
        assert_eq!(all.known.read().unwrap().by_tenant.len(), 1);
        all.forget(TenantKey(1));
        assert_eq!(all.known.read().unwrap().weight, 0);
    }
}
