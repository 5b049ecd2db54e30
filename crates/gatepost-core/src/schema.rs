//! JSON Schemas of event types and of what hooks change.
//!
//! A schema comes from a tenant and runs where others wait, so nothing about it is trusted: its shape is
//! bounded when it is compiled ([`compile`]), and all work with it is paid for out of a [`SchemaBudget`]
//! before it is done ([`work`]), whatever the schema and whatever the data. That is why the validator is our
//! own (`docs/adr/0006-schemas-with-fuel.md`); a test compares it with the library of that name.
//!
//! Taken are drafts 4 to 2020-12 (`$schema` says which, 2020-12 when it does not) but for what would need
//! more than the schema's own text: nothing is fetched, and only the root may have an `$id`. `format` and the
//! `content…` keywords describe and are not enforced. Patterns have neither lookaround nor back references.
//!
//! A keyword is added in [`compile`] (how it is written), [`rules`] (what it asks for), [`check`] and
//! [`explain`].

use std::sync::{Arc, Mutex, PoisonError};

mod check;
mod compile;
mod doc;
mod explain;
mod number;
mod pattern;
mod rules;
mod work;

pub use work::{SchemaBudget, TooCostly};

use check::Check;
use doc::{Doc, Unread};
use explain::Explain;
use pattern::Pattern;
use rules::Compiled;

/// Violations reported for one event, at most.
const REPORTED: usize = 20;

/// A schema, compiled once.
pub struct Schema {
    schemas: Vec<Compiled>,
    patterns: Vec<Pattern>,
    weight: usize,
}

/// One member of `data` that the schema refuses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// A JSON pointer into `data`.
    pub pointer: String,
    /// What the schema asks for.
    pub message: String,
}

impl Schema {
    /// Compiles a schema. Takes milliseconds at worst: to be done aside where others wait.
    ///
    /// # Errors
    /// Says what is wrong with it, or beyond which bound it is.
    pub fn compile(text: &str) -> Result<Schema, String> {
        let compiled = compile::compile(text, true)?;
        // What is compiled is a few times what is written.
        let weight = 1_024 + 8 * text.len() + compiled.patterns.iter().map(Pattern::weight).sum::<usize>();
        Ok(Schema { schemas: compiled.schemas, patterns: compiled.patterns, weight })
    }

    /// Whether a text is a schema, but for its patterns. Quick.
    ///
    /// # Errors
    /// Says what is wrong with it, or beyond which bound it is.
    pub fn check(text: &str) -> Result<(), String> {
        compile::compile(text, false).map(drop)
    }

    /// Bytes it takes, about.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// What the schema refuses about `data`; nothing when it holds.
    ///
    /// # Errors
    /// When finding out costs more than `budget` has.
    pub fn violations(&self, data: &[u8], budget: &mut SchemaBudget) -> Result<Vec<Violation>, TooCostly> {
        budget.run(|work| {
            let doc = match Doc::read(data, work) {
                Ok(doc) => doc,
                Err(Unread::TooCostly) => return Err(TooCostly),
                Err(Unread::Bad(why)) => {
                    let message = format!("cannot be checked against the type's schema: {why}");
                    return Ok(vec![Violation { pointer: String::new(), message }]);
                }
            };
            let mut check = Check::new(self, &doc, work);
            if check.fits(0, doc.root())? {
                return Ok(Vec::new());
            }
            let mut explain = Explain::new(&mut check);
            // That it does not fit is known, however much of why can be told.
            let told = explain.schema(0, doc.root(), "");
            let mut found = explain.found;
            if found.is_empty() || told.is_err() && found.len() < REPORTED {
                let message = "breaks the schema of the event type in ways that take too long to tell".to_owned();
                found.push(Violation { pointer: String::new(), message });
            }
            Ok(found)
        })
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema")
    }
}

/// A schema as written, compiled when it is needed, and let go of when its room is needed.
pub struct SchemaText {
    text: Box<str>,
    ready: Mutex<Option<Result<Arc<Schema>, Arc<str>>>>,
}

impl SchemaText {
    /// Not compiled yet.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        SchemaText { text: text.into(), ready: Mutex::default() }
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Compiled, if it was. An error: it cannot be.
    pub fn ready(&self) -> Option<Result<Arc<Schema>, Arc<str>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compiled, now if it was not. See [`Schema::compile`].
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn compiled(&self) -> Result<Arc<Schema>, Arc<str>> {
        if let Some(ready) = self.ready() {
            return ready;
        }
        // Nobody waits for it meanwhile.
        let compiled = Schema::compile(&self.text).map(Arc::new).map_err(Arc::from);
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(compiled.clone());
        compiled
    }

    /// Lets go of what was compiled.
    pub fn release(&self) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl std::fmt::Debug for SchemaText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SchemaText({} bytes)", self.text.len())
    }
}

#[cfg(test)]
mod tests;
