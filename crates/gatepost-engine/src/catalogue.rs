//! The server's catalogue in memory: built-in types, and what was put over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use gatepost_core::Timestamp;
use gatepost_core::catalogue::{self, BuiltinType, EventTypeDefinition};
use gatepost_core::event::EventType;
use gatepost_core::schema::SchemaText;
use gatepost_store::{EventTypeRow, Store, StoreError};

/// An event type to show.
#[derive(Clone, Debug)]
pub struct EventTypeView {
    /// Its name.
    pub name: EventType,
    /// What was declared; `None`: only seen in a publish.
    pub definition: Option<Arc<EventTypeDefinition>>,
    /// Its schema, compiled when it is needed.
    pub(crate) schema: Option<Arc<SchemaText>>,
    /// Whether the definition is the one Gatepost ships.
    pub builtin: bool,
    /// When it was put or first seen.
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
}

/// Every declared type. Types that were merely seen stay in the store: their number is up to the
/// publishers, and nothing on the hot path asks for them.
pub(crate) struct Catalogue {
    types: ArcSwap<BTreeMap<EventType, EventTypeView>>,
}

impl Catalogue {
    /// The built-in types with the store's declarations over them.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut types: BTreeMap<_, _> =
            catalogue::builtin().map(|shipped| (shipped.name.clone(), shipped_view(shipped))).collect();
        let mut after: Option<String> = None;
        loop {
            let rows = store.event_types(after.as_deref(), 250).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.name.to_string());
            for row in rows {
                if row.definition.is_some() {
                    types.insert(row.name.clone(), view_of(row));
                }
            }
        }
        Ok(Catalogue { types: ArcSwap::from_pointee(types) })
    }

    /// A declared type.
    pub(crate) fn get(&self, name: &EventType) -> Option<EventTypeView> {
        self.types.load().get(name).cloned()
    }

    /// Whether somebody declared the type.
    pub(crate) fn declares(&self, name: &EventType) -> bool {
        self.types.load().contains_key(name)
    }

    /// All declared types, by name.
    pub(crate) fn all(&self) -> Arc<BTreeMap<EventType, EventTypeView>> {
        self.types.load_full()
    }

    /// Takes in a declaration just stored.
    pub(crate) fn put(&self, row: EventTypeRow) {
        let view = view_of(row);
        self.types.rcu(|types| {
            let mut types = BTreeMap::clone(types);
            types.insert(view.name.clone(), view.clone());
            types
        });
    }

    /// Forgets a declaration; a built-in type comes back as shipped.
    pub(crate) fn remove(&self, name: &EventType) {
        let shipped = catalogue::find(name);
        self.types.rcu(|types| {
            let mut types = BTreeMap::clone(types);
            types.remove(name);
            if let Some(shipped) = shipped {
                types.insert(name.clone(), shipped_view(shipped));
            }
            types
        });
    }
}

fn schema_of(definition: Option<&EventTypeDefinition>) -> Option<Arc<SchemaText>> {
    let text = definition?.schema.as_ref()?.get();
    Some(Arc::new(SchemaText::new(text)))
}

fn shipped_view(shipped: &BuiltinType) -> EventTypeView {
    EventTypeView {
        name: shipped.name.clone(),
        definition: Some(Arc::new(shipped.definition.clone())),
        schema: shipped.schema.clone(),
        builtin: true,
        created_at: None,
        updated_at: None,
    }
}

pub(crate) fn view_of(row: EventTypeRow) -> EventTypeView {
    EventTypeView {
        schema: schema_of(row.definition.as_ref()),
        name: row.name,
        definition: row.definition.map(Arc::new),
        builtin: false,
        created_at: Some(row.created_at),
        updated_at: Some(row.updated_at),
    }
}
