//! Compiled schemas of event types in memory, and asking them (P5, P10).
//!
//! A schema is compiled when it is first needed, in its tenant's turn, and kept while there is room: what
//! they all take together is bounded, and whoever has most of it makes room first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use gatepost_core::TenantKey;
use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::event::EventType;
use gatepost_core::schema::{Schema, SchemaBudget, SchemaText, TooCostly};
use gatepost_core::tenant::{Tenant, TenantSettings};

use crate::engine::Engine;
use crate::error::{Error, FieldError, Result};
use crate::ops::{PublishInput, unpublishable};
use crate::tenant_types::{OwnTypes, TypesOf};

/// Whose the server's catalogue is, where turns are taken and room is counted.
pub(crate) const THE_SERVER: TenantKey = TenantKey(0);
/// Bad members reported for one publish, about.
const ERRORS_MAX: usize = 1_000;
/// Types one tenant declares, and the bytes of their schemas and of everything they say.
const OWN_TYPES_MAX: usize = 2_000;
const OWN_SCHEMAS_MAX: usize = 1 << 20;
const OWN_BYTES_MAX: usize = 4 << 20;

/// The compiled schemas that are kept.
pub(crate) struct SchemaRoom {
    kept: Mutex<Vec<Kept>>,
    /// Bytes, about.
    room: usize,
}

struct Kept {
    owner: TenantKey,
    text: Weak<SchemaText>,
    weight: usize,
}

impl SchemaRoom {
    /// Nothing yet, within so many bytes.
    pub(crate) fn with_room(room: usize) -> Self {
        SchemaRoom { kept: Mutex::default(), room }
    }

    /// A schema, compiled now if it was not: takes milliseconds at worst.
    fn compiled(&self, owner: TenantKey, text: &Arc<SchemaText>) -> std::result::Result<Arc<Schema>, Arc<str>> {
        if let Some(ready) = text.ready() {
            return ready;
        }
        let schema = text.compiled()?;
        self.keep(Kept { owner, text: Arc::downgrade(text), weight: schema.weight() });
        Ok(schema)
    }

    /// Keeps one more; lets go of the oldest of those who have most until there is room.
    fn keep(&self, one: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.text.strong_count() > 0 && !Weak::ptr_eq(&kept.text, &one.text));
        kept.push(one);
        let mut by_owner: HashMap<TenantKey, usize> = HashMap::new();
        kept.iter().for_each(|kept| *by_owner.entry(kept.owner).or_default() += kept.weight);
        let mut all: usize = by_owner.values().sum();
        while all > self.room
            && let Some(most) = by_owner.iter().max_by_key(|(_, weight)| **weight).map(|(owner, _)| *owner)
            && let Some(oldest) = kept.iter().position(|kept| kept.owner == most)
        {
            let gone = kept.remove(oldest);
            if let Some(text) = gone.text.upgrade() {
                text.release();
            }
            all -= gone.weight;
            *by_owner.entry(most).or_default() -= gone.weight;
        }
    }

    /// Bytes that are kept, about.
    #[cfg(test)]
    fn weight(&self) -> usize {
        let kept = self.kept.lock().unwrap();
        kept.iter().filter(|kept| kept.text.upgrade().is_some_and(|t| t.ready().is_some())).map(|k| k.weight).sum()
    }
}

/// What was found about what is to be published.
enum Found {
    Nothing,
    Wrong(Vec<FieldError>),
    TooCostly(usize),
    /// Not found out: a schema is not compiled, and is not to be now.
    NotReady,
}

impl Engine {
    /// Types that may not be published, and data their type's schema refuses. What takes longer than a
    /// moment is done elsewhere, in the tenant's turn: no tenant's schemas hold up anybody else's calls (P5).
    pub(crate) async fn checked(
        &self,
        tenant: &Arc<Tenant>,
        types: &TypesOf,
        inputs: Vec<PublishInput>,
        batch: bool,
    ) -> Result<Vec<PublishInput>> {
        let (found, inputs) = match self.look(tenant, types, &inputs, SchemaBudget::quick(), false) {
            Found::NotReady | Found::TooCostly(_) => {
                let (engine, tenant, types) = (self.clone(), Arc::clone(tenant), types.clone());
                let key = tenant.key;
                let work = move || (engine.look(&tenant, &types, &inputs, SchemaBudget::of_publish(), true), inputs);
                self.inner.filter_turns.run(key, work).await?
            }
            found => (found, inputs),
        };
        let place = |i: usize| if batch { format!("/events/{i}") } else { String::new() };
        match found {
            Found::Nothing | Found::NotReady => Ok(inputs),
            Found::Wrong(mut errors) if batch => Err(Error::Invalid(std::mem::take(&mut errors))),
            Found::Wrong(errors) => Err(Error::Invalid(errors.into_iter().map(unplaced).collect())),
            Found::TooCostly(index) => Err(Error::SchemaTooCostly(vec![FieldError::new(
                format!("{}/data", place(index)),
                "checking the data against the schema of the event type costs too much: send smaller or flatter data, \
                 fewer events at once, or make the schema simpler (patterns, uniqueItems and enum cost most)",
            )])),
        }
    }

    /// Pointers are as in a batch.
    fn look(
        &self,
        tenant: &Tenant,
        types: &TypesOf,
        inputs: &[PublishInput],
        mut budget: SchemaBudget,
        compile: bool,
    ) -> Found {
        let mut errors = Vec::new();
        for (i, input) in inputs.iter().enumerate() {
            let place = |pointer: &str| format!("/events/{i}{pointer}");
            if let Some(message) = unpublishable(&input.event_type) {
                errors.push(FieldError::new(place("/type"), message));
            } else if tenant.settings.strict_types && !types.declares(&input.event_type) {
                errors.push(FieldError::new(place("/type"), undeclared(&input.event_type)));
            } else if let Some((owner, text)) = enforced(types, &tenant.settings, tenant.key, &input.event_type) {
                let schema = match (text.ready(), compile) {
                    (Some(ready), _) => ready,
                    (None, true) => self.inner.schemas.compiled(owner, text),
                    (None, false) => return Found::NotReady,
                };
                // It was checked when it was put. Should a later version no longer read it, events of the type
                // are accepted unchecked, and the log says so: refusing them all would lose them.
                let schema = match schema {
                    Ok(schema) => schema,
                    Err(error) => {
                        tracing::error!(event_type = %input.event_type, %error, "a schema cannot be enforced");
                        continue;
                    }
                };
                match schema.violations(&input.data, &mut budget) {
                    Ok(violations) => errors.extend(violations.into_iter().map(|violation| {
                        FieldError::new(place(&format!("/data{}", violation.pointer)), violation.message)
                    })),
                    Err(TooCostly) if errors.is_empty() || !compile => return Found::TooCostly(i),
                    // What is known to be wrong is told first.
                    Err(TooCostly) => break,
                }
            }
            if errors.len() >= ERRORS_MAX {
                break;
            }
        }
        if errors.is_empty() { Found::Nothing } else { Found::Wrong(errors) }
    }

    /// Whether a schema can be enforced, and what it then takes in memory. Its shape is known to be right;
    /// compiling it may take a while, and is done in the owner's turn.
    pub(crate) async fn compile_schema(&self, owner: TenantKey, text: &str) -> Result<usize> {
        let text = text.to_owned();
        let compiled = self.inner.filter_turns.run(owner, move || Schema::compile(&text)).await?;
        match compiled {
            Ok(schema) => Ok(schema.weight()),
            Err(problem) => Err(Error::Invalid(vec![FieldError::new("/schema", problem)])),
        }
    }
}

/// The schema that events of a type are held against, and whose it is: built-in ones describe what a system
/// documents, and count only where a tenant asks for it.
fn enforced<'t>(
    types: &'t TypesOf,
    settings: &TenantSettings,
    tenant: TenantKey,
    name: &EventType,
) -> Option<(TenantKey, &'t Arc<SchemaText>)> {
    let view = types.get(name)?;
    let text = view.schema.as_ref()?;
    if view.builtin && !settings.enforce_builtin_schemas {
        return None;
    }
    Some((if types.own.contains_key(name) { tenant } else { THE_SERVER }, text))
}

/// The same for a single event.
fn unplaced(error: FieldError) -> FieldError {
    let pointer = error.pointer.strip_prefix("/events/0").unwrap_or(&error.pointer).to_owned();
    FieldError { pointer, ..error }
}

/// What to say of a type nobody declared, where only declared ones are taken.
fn undeclared(event_type: &EventType) -> String {
    format!(
        "this tenant takes declared event types only, and {event_type:?} is none: check its spelling, or declare it \
         with PUT /v1/event-types/{event_type}?tenant=…",
        event_type = event_type.as_str()
    )
}

/// Whether a tenant may declare one type more, or this one so: what it declares is kept in memory.
pub(crate) fn has_room(own: &OwnTypes, name: &EventType, definition: &EventTypeDefinition) -> Result<()> {
    let schema_of = |d: &EventTypeDefinition| d.schema.as_ref().map_or(0, |schema| schema.get().len());
    let others = || own.iter().filter(|(other, _)| *other != name);
    let definitions = || others().filter_map(|(_, view)| view.definition.as_deref());
    let refused = |pointer: &str, message: String| Err(Error::Invalid(vec![FieldError::new(pointer, message)]));
    if others().count() >= OWN_TYPES_MAX {
        return refused(
            "{name}",
            format!("a tenant declares at most {OWN_TYPES_MAX} event types: delete others first"),
        );
    }
    let schemas: usize = definitions().map(schema_of).sum();
    if schema_of(definition) > 0 && schemas + schema_of(definition) > OWN_SCHEMAS_MAX {
        let most = OWN_SCHEMAS_MAX >> 20;
        return refused("/schema", format!("the schemas of a tenant's event types take at most {most} MiB together"));
    }
    let bytes: usize = definitions().map(weight_of).sum();
    if bytes + weight_of(definition) > OWN_BYTES_MAX {
        let most = OWN_BYTES_MAX >> 20;
        return refused(
            "/example",
            format!("a tenant's event types take at most {most} MiB together, examples included"),
        );
    }
    Ok(())
}

/// Bytes a declaration takes in memory, about.
pub(crate) fn weight_of(definition: &EventTypeDefinition) -> usize {
    let text = |raw: Option<&str>| raw.map_or(0, str::len);
    let schema = text(definition.schema.as_deref().map(|raw| raw.get()));
    // The schema's text is kept twice.
    400 + definition.description.len() + 2 * schema + text(definition.example.as_deref().map(|raw| raw.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(room: &SchemaRoom, owner: i64, name: &str) -> Arc<SchemaText> {
        let text = Arc::new(SchemaText::new(format!(r#"{{"title":"{name}"}}"#)));
        room.compiled(TenantKey(owner), &text).unwrap();
        text
    }

    #[test]
    fn p10_compiled_schemas_are_kept_within_their_room_and_whoever_has_most_makes_it() {
        let one = Schema::compile(r#"{"title":"a1"}"#).unwrap().weight();
        let room = SchemaRoom::with_room(5 * one);
        let quiet = schema(&room, 1, "q1");
        let many: Vec<_> = (1..=9).map(|i| schema(&room, 2, &format!("m{i}"))).collect();
        assert!(room.weight() <= 5 * one);
        assert!(quiet.ready().is_some(), "another tenant's schemas took its room");
        assert_eq!(many.iter().filter(|text| text.ready().is_some()).count(), 4);
        assert!(many[8].ready().is_some() && many[0].ready().is_none());
        // Asked again, it is compiled again.
        room.compiled(TenantKey(2), &many[0]).unwrap();
        assert!(many[0].ready().is_some() && room.weight() <= 5 * one);
        // What is gone takes nothing.
        drop(many);
        schema(&room, 1, "q2");
        assert!(room.weight() <= 2 * one);
    }
}
