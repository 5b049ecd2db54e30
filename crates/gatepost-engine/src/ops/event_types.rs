//! The catalogue.

use gatepost_core::TenantKey;
use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::event::EventType;
use gatepost_store::{Created, EventTypeRow};

use crate::catalogue::EventTypeView;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Kind, Result};
use crate::schemas::THE_SERVER;

impl Engine {
    /// Event types by name, ascending, from after `after`: declared ones and ones merely seen.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn event_types(&self, after: Option<&str>, limit: usize) -> Result<Vec<EventTypeView>> {
        let declared = self.inner.catalogue.all();
        let stored = self.inner.store.event_types(after, limit).await?;
        let mut views: std::collections::BTreeMap<EventType, EventTypeView> = stored
            .into_iter()
            .filter(|row| row.definition.is_none() && !declared.contains_key(&row.name))
            .map(|row| {
                let view = EventTypeView {
                    name: row.name.clone(),
                    definition: None,
                    schema: None,
                    builtin: false,
                    created_at: Some(row.created_at),
                    updated_at: Some(row.updated_at),
                };
                (row.name, view)
            })
            .collect();
        let later = |name: &EventType| after.is_none_or(|after| name.as_str() > after);
        views.extend(declared.iter().filter(|(name, _)| later(name)).take(limit).map(|(n, v)| (n.clone(), v.clone())));
        Ok(views.into_values().take(limit).collect())
    }

    /// One event type.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is neither declared nor seen.
    pub async fn event_type(&self, name: &str) -> Result<EventTypeView> {
        let name: EventType = name.parse().map_err(|_| Error::NotFound(Kind::EventType))?;
        if let Some(view) = self.inner.catalogue.get(&name) {
            return Ok(view);
        }
        let row = self.inner.store.event_type(name.as_str()).await?.ok_or(Error::NotFound(Kind::EventType))?;
        Ok(EventTypeView {
            name: row.name,
            definition: row.definition.map(std::sync::Arc::new),
            schema: None,
            builtin: false,
            created_at: Some(row.created_at),
            updated_at: Some(row.updated_at),
        })
    }

    /// Declares an event type, or replaces its declaration.
    ///
    /// # Errors
    /// [`Error::Invalid`] for Gatepost's own family, and for a schema that cannot be enforced.
    pub async fn put_event_type(
        &self,
        name: EventType,
        definition: EventTypeDefinition,
    ) -> Result<(EventTypeView, Created)> {
        self.check_definition(THE_SERVER, &name, &definition).await?;
        let now = self.now();
        let known = self.inner.catalogue.declares(&name);
        let created_at = self.inner.store.event_type(name.as_str()).await?.map_or(now, |row| row.created_at);
        let row = EventTypeRow { name: name.clone(), definition: Some(definition), created_at, updated_at: now };
        self.inner.store.put_event_type(row.clone()).await?;
        self.inner.catalogue.put(row);
        let view = self.inner.catalogue.get(&name).ok_or(Error::NotFound(Kind::EventType))?;
        Ok((view, if known { Created::No } else { Created::Yes }))
    }

    /// Takes a declaration away; a built-in type is then again as Gatepost ships it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nothing was declared under this name.
    pub async fn delete_event_type(&self, name: &str) -> Result<()> {
        let name: EventType = name.parse().map_err(|_| Error::NotFound(Kind::EventType))?;
        let was_there = self.inner.store.delete_event_type(name.as_str()).await?;
        self.inner.catalogue.remove(&name);
        if was_there { Ok(()) } else { Err(Error::NotFound(Kind::EventType)) }
    }

    /// Whether a type may be declared so by `owner`.
    pub(super) async fn check_definition(
        &self,
        owner: TenantKey,
        name: &EventType,
        definition: &EventTypeDefinition,
    ) -> Result<()> {
        if name.is_own() {
            let message = "the gatepost family is Gatepost's own and cannot be declared";
            return Err(Error::Invalid(vec![FieldError::new("/name", message)]));
        }
        match &definition.schema {
            Some(schema) => self.compile_schema(owner, schema.get()).await.map(drop),
            None => Ok(()),
        }
    }
}

/// Whether a text is a JSON Schema, but for what takes longer than a moment to see.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_schema(text: &str) -> std::result::Result<(), String> {
    gatepost_core::schema::Schema::check(text)
}
