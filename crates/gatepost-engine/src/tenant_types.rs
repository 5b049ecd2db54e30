//! Event types that a tenant declared for itself, in memory: they stand over the server's catalogue.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use gatepost_core::TenantKey;
use gatepost_core::event::{EventType, Urgency};
use gatepost_store::{EventTypeRow, Store, StoreError, TenantTypeRow};

use crate::catalogue::{EventTypeView, view_of};
use crate::engine::Engine;

/// Rows read at once.
const PAGE: usize = 250;

/// One tenant's own types.
pub(crate) type OwnTypes = BTreeMap<EventType, EventTypeView>;

/// The own types of every tenant that was used since start.
#[derive(Default)]
pub(crate) struct TenantTypes {
    known: RwLock<HashMap<TenantKey, Arc<OwnTypes>>>,
    /// Orders reading and changing, so that what was read before a change is not kept after it.
    changing: tokio::sync::Mutex<()>,
}

impl TenantTypes {
    /// What is in memory of a tenant; nothing, before it was [loaded](Self::load).
    pub(crate) fn of(&self, tenant: TenantKey) -> Arc<OwnTypes> {
        self.cached(tenant).unwrap_or_default()
    }

    fn cached(&self, tenant: TenantKey) -> Option<Arc<OwnTypes>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }

    fn keep(&self, tenant: TenantKey, types: OwnTypes) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(tenant, Arc::new(types));
    }

    /// Forgets a tenant, which is deleted or in doubt.
    pub(crate) fn forget(&self, tenant: TenantKey) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
    }

    /// Reads a tenant's types at its first use.
    pub(crate) async fn load(&self, store: &dyn Store, tenant: TenantKey) -> Result<(), StoreError> {
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains_key(&tenant) {
            return Ok(());
        }
        let _turn = self.changing.lock().await;
        if self.cached(tenant).is_none() {
            self.keep(tenant, read(store, tenant).await?);
        }
        Ok(())
    }

    /// Makes a change in the store with `change`, then takes it in: once this returns, it counts.
    pub(crate) async fn change<T>(
        &self,
        store: &dyn Store,
        tenant: TenantKey,
        change: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let _turn = self.changing.lock().await;
        let changed = change.await;
        // Also when its answer is lost: it may have been made all the same.
        match read(store, tenant).await {
            Ok(types) => self.keep(tenant, types),
            Err(_) => self.forget(tenant),
        }
        changed
    }
}

async fn read(store: &dyn Store, tenant: TenantKey) -> Result<OwnTypes, StoreError> {
    let mut types = OwnTypes::new();
    let mut after: Option<String> = None;
    loop {
        let rows = store.tenant_types(tenant, after.as_deref(), true, PAGE).await?;
        let Some(last) = rows.last() else { return Ok(types) };
        after = Some(last.name.to_string());
        types.extend(rows.into_iter().map(|row| (row.name.clone(), view_of(row_of(row)))));
    }
}

fn row_of(row: TenantTypeRow) -> EventTypeRow {
    let TenantTypeRow { name, definition, created_at, updated_at, last_published: _ } = row;
    EventTypeRow { name, definition, created_at, updated_at }
}

/// The types as one tenant has them: its own, and the server's below.
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

    /// How much events of the type hurry, and whether somebody declared it.
    pub(crate) fn urgency(&self, name: &EventType) -> (Urgency, bool) {
        match self.get(name).and_then(|view| view.definition.as_ref()) {
            Some(definition) => (definition.urgency, true),
            None => (Urgency::default(), false),
        }
    }
}

impl Engine {
    /// The types as a tenant has them.
    pub(crate) fn types_of(&self, tenant: TenantKey) -> TypesOf {
        TypesOf { own: self.inner.tenant_types.of(tenant), server: self.inner.catalogue.all() }
    }
}
