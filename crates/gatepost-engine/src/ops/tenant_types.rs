//! The catalogue as one tenant has it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gatepost_core::Timestamp;
use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::event::EventType;
use gatepost_core::tenant::Tenant;
use gatepost_store::{Created, EventTypeRow, TenantTypeRow};

use crate::catalogue::EventTypeView;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::schemas::has_room;
use crate::tenant_types::{OwnTypes, TypesOf};

/// An event type as one tenant has it.
#[derive(Clone, Debug)]
pub struct TenantTypeView {
    /// Its definition: the tenant's own, else the server's, else none.
    pub view: EventTypeView,
    /// Whether the definition is the tenant's own.
    pub own: bool,
    /// When the tenant last published it.
    pub last_published: Option<Timestamp>,
}

impl Engine {
    /// Event types by name, ascending, from after `after`: the server's declarations with the tenant's
    /// own over them, and those it merely published. Nothing of any other tenant (P5).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tenant_event_types(
        &self,
        tenant: &Tenant,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TenantTypeView>> {
        let types = self.types_loaded(tenant.key).await?;
        // What is being written meanwhile is in one of the two.
        let unwritten = self.inner.published.unwritten(tenant.key);
        let rows = self.inner.store.tenant_types(tenant.key, after, false, limit).await?;
        let rows: HashMap<EventType, TenantTypeRow> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
        let server = Arc::clone(&types.server);
        let later = |name: &&EventType| after.is_none_or(|after| name.as_str() > after);
        // Of each source the first `limit` are enough for the first `limit` of all.
        let mut names: BTreeSet<&EventType> = server.keys().filter(later).take(limit).collect();
        names.extend(types.own.keys().filter(later).take(limit));
        names.extend(rows.keys());
        names.extend(unwritten.keys().filter(later));
        Ok(names.into_iter().take(limit).map(|name| seen(&types, name, rows.get(name), unwritten.get(name))).collect())
    }

    /// One event type.
    ///
    /// # Errors
    /// [`Error::NotFound`] when neither the server nor the tenant declared it, and the tenant never
    /// published it.
    pub async fn tenant_event_type(&self, tenant: &Tenant, name: &str) -> Result<TenantTypeView> {
        let name: EventType = name.parse().map_err(|_| Error::NotFound(Kind::EventType))?;
        let types = self.types_loaded(tenant.key).await?;
        let unwritten = self.inner.published.unwritten(tenant.key);
        let row = self.inner.store.tenant_type(tenant.key, name.as_str()).await?;
        if !types.declares(&name) && row.is_none() && !unwritten.contains_key(&name) {
            return Err(Error::NotFound(Kind::EventType));
        }
        Ok(seen(&types, &name, row.as_ref(), unwritten.get(&name)))
    }

    /// Declares an event type for one tenant, or replaces its declaration. For that tenant it stands
    /// over the server's of the same name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for Gatepost's own family, and for a schema that cannot be enforced.
    pub async fn put_tenant_event_type(
        &self,
        tenant: &Tenant,
        name: EventType,
        definition: EventTypeDefinition,
    ) -> Result<(TenantTypeView, Created)> {
        self.check_definition(tenant.key, &name, &definition).await?;
        let store = &*self.inner.store;
        let now = self.now();
        let put = async |own: Arc<OwnTypes>| {
            has_room(&own, &name, &definition)?;
            let present = store.tenant_type(tenant.key, name.as_str()).await?;
            let created_at = present.map_or(now, |row| row.created_at);
            let row =
                EventTypeRow { name: name.clone(), definition: Some(definition.clone()), created_at, updated_at: now };
            Ok(store.put_tenant_type(tenant.key, row).await?)
        };
        let created = self.inner.tenant_types.change(store, tenant.key, put).await?;
        let created = created.ok_or(Error::NotFound(Kind::Tenant))?;
        Ok((self.tenant_event_type(tenant, name.as_str()).await?, created))
    }

    /// Takes a tenant's own declaration away; the server's, if there is one, shows again.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant declared nothing under this name.
    pub async fn delete_tenant_event_type(&self, tenant: &Tenant, name: &str) -> Result<()> {
        let name: EventType = name.parse().map_err(|_| Error::NotFound(Kind::EventType))?;
        let store = &*self.inner.store;
        let delete = async |_| Ok(store.delete_tenant_type(tenant.key, name.as_str()).await?);
        let was_there = self.inner.tenant_types.change(store, tenant.key, delete).await?;
        if was_there { Ok(()) } else { Err(Error::NotFound(Kind::EventType)) }
    }
}

/// A type as the tenant has it.
fn seen(
    types: &TypesOf,
    name: &EventType,
    row: Option<&TenantTypeRow>,
    unwritten: Option<&Timestamp>,
) -> TenantTypeView {
    let last_published = row.and_then(|row| row.last_published).max(unwritten.copied());
    let merely_seen = || EventTypeView {
        name: name.clone(),
        definition: None,
        schema: None,
        builtin: false,
        created_at: row.map(|row| row.created_at).or(last_published),
        updated_at: row.map(|row| row.updated_at).or(last_published),
    };
    let view = types.get(name).cloned().unwrap_or_else(merely_seen);
    TenantTypeView { view, own: types.own.contains_key(name), last_published }
}
