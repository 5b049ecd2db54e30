//! What an answer changes: merge or replace, then compare, then judge.
//!
//! An answer is never trusted as "the new object". It is laid over what was sent, the difference is
//! listed, and every difference must lie inside the hook's `may_change`; one that does not refuses
//! the answer as a whole.

use serde::{Deserialize, Serialize};

use super::json::{Map, Pointer, Value, same};
use super::secrets::{Lifted, SecretJson};

/// How a proposed object is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceMode {
    /// Omitted members stay, `null` removes, objects are merged, arrays replaced whole (RFC 7396).
    #[default]
    Merge,
    /// What is proposed is what there is: omitted members go.
    Replace,
}

/// One difference. `before` is `None` for something new, `after` for something gone.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Where, relative to `object`.
    pub pointer: Pointer,
    /// What was there.
    pub before: Option<Value>,
    /// What is there now.
    pub after: Option<Value>,
}

/// An object proposed by a receiver.
#[derive(Clone, PartialEq, Debug)]
pub struct Proposal {
    /// The part of `object` it speaks about: the root, or `/user` in Cymmetri's dialect.
    pub at: Pointer,
    /// What it should be.
    pub value: Value,
}

/// Which places of `object` a hook may change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MayChange {
    allowed: Vec<Pointer>,
    except: Vec<Pointer>,
}

impl MayChange {
    /// Nothing.
    pub fn nothing() -> Self {
        MayChange::default()
    }

    /// Exactly these places and what is inside them.
    pub fn places(allowed: Vec<Pointer>) -> Self {
        MayChange { allowed, except: Vec::new() }
    }

    /// The default of a mutate hook: the user, but not what would give it another name, power or
    /// way in (SETTLED, Blocking hooks).
    pub fn user_without_powers() -> Self {
        let user = Pointer::root().child("user");
        let except = ["login", "assignedGroups", "provisionedApps", "securityQuestion"];
        MayChange { except: except.iter().map(|name| user.child(name)).collect(), allowed: vec![user] }
    }

    /// Whether no change at all is allowed.
    pub fn is_nothing(&self) -> bool {
        self.allowed.is_empty()
    }

    /// The places allowed.
    pub fn allowed(&self) -> &[Pointer] {
        &self.allowed
    }

    /// The places inside them that are not.
    pub fn except(&self) -> &[Pointer] {
        &self.except
    }

    /// The first forbidden place of a change, `None` when all of it is allowed.
    pub fn forbidden(&self, change: &Change) -> Option<Pointer> {
        self.forbids(&change.pointer, change.before.as_ref(), change.after.as_ref())
    }

    /// The same of a change that is not made yet.
    pub fn forbids(&self, place: &Pointer, before: Option<&Value>, after: Option<&Value>) -> Option<Pointer> {
        if self.except.iter().any(|except| except.covers(place)) {
            return Some(place.clone());
        }
        if self.allowed.iter().any(|allowed| allowed.covers(place)) {
            return self.excepted_inside(place, before, after);
        }
        // A new container is no more than what is put into it.
        match (before, after) {
            (None, Some(Value::Object(members))) if !members.is_empty() && members.unnamed().is_empty() => {
                members.iter().find_map(|(name, value)| self.forbids(&place.child(name), None, Some(value)))
            }
            _ => Some(place.clone()),
        }
    }

    /// Whether everything at this place may be changed.
    pub fn allows_all_of(&self, place: &Pointer) -> bool {
        self.allowed.iter().any(|allowed| allowed.covers(place))
            && !self.except.iter().any(|except| except.covers(place) || place.covers(except))
    }

    /// A change above an excepted place must leave that place as it was.
    fn excepted_inside(&self, at: &Pointer, before: Option<&Value>, after: Option<&Value>) -> Option<Pointer> {
        let broken = |place: &&Pointer| {
            let Some(inside) = place.below(at) else { return false };
            match (before.and_then(|value| inside.get(value)), after.and_then(|value| inside.get(value))) {
                (None, None) => false,
                (Some(before), Some(after)) => !same(before, after),
                _ => true,
            }
        };
        self.except.iter().find(broken).cloned()
    }
}

/// A proposal laid over an object: what comes out, and what differs.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    /// The object with the proposal applied.
    pub object: Value,
    /// Secret members with the proposal applied.
    pub secrets: Lifted,
    /// What differs, in the order of places. Values of secret places are not told.
    pub changes: Vec<Change>,
}

/// Lays `proposal` over `object` and checks it against `may_change`. `shown` tells whether the
/// receiver was sent the secret members: what it was not shown it cannot mean to clear.
///
/// # Errors
/// The first place that may not be changed; nothing is applied then.
pub fn apply(
    object: &Value,
    secrets: &Lifted,
    proposal: Proposal,
    mode: ReplaceMode,
    may_change: &MayChange,
    secret_places: &[Pointer],
    shown: bool,
) -> Result<Applied, Pointer> {
    let mut document = Value::Object(Map::new());
    for name in proposal.at.segments().scan(Pointer::root(), |at, name| {
        *at = at.child(name);
        Some(at.clone())
    }) {
        // Every step's surroundings were made by the step before it.
        let _ = name.insert(&mut document, Value::Object(Map::new()));
    }
    let (mut proposed, at) = if proposal.at == Pointer::root() {
        (proposal.value, Pointer::root())
    } else {
        let _ = proposal.at.insert(&mut document, proposal.value);
        (document, proposal.at)
    };
    let told = Lifted::lift(&mut proposed, secret_places);
    let mut after = match mode {
        ReplaceMode::Merge => merge(object, &proposed),
        ReplaceMode::Replace => replaced(object, &at, proposed),
    };
    keep_unnamed(object, &mut after);
    let mut changes = diff(object, &after);
    let (secrets, mut secret_changes) = secret_changes(secrets, &told, mode, secret_places, shown, &at);
    if let Some(place) = changes.iter().chain(&secret_changes).find_map(|change| may_change.forbidden(change)) {
        return Err(place);
    }
    changes.append(&mut secret_changes);
    changes.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    Ok(Applied { object: after, secrets, changes })
}

fn replaced(object: &Value, at: &Pointer, proposed: Value) -> Value {
    if *at == Pointer::root() {
        return proposed;
    }
    let mut after = object.clone();
    if let Some(value) = at.get(&proposed) {
        // A part that was never there cannot be replaced; then there is nothing to put it into.
        let _ = at.insert(&mut after, value.clone());
    }
    after
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.holds_nothing(),
        Value::Bool(_) | Value::Number(_) | Value::Raw(_) => false,
    }
}

fn secret_changes(
    before: &Lifted,
    told: &Lifted,
    mode: ReplaceMode,
    places: &[Pointer],
    shown: bool,
    at: &Pointer,
) -> (Lifted, Vec<Change>) {
    let (mut after, mut changes) = (before.clone(), Vec::new());
    for place in places.iter().filter(|place| at.covers(place)) {
        let (old, new) = (before.get(place), told.get(place));
        let wanted = match new {
            None if mode == ReplaceMode::Replace && shown => None,
            None => continue,
            Some(new) if !shown && is_empty(new.expose()) => continue,
            Some(new) if new.expose().is_null() => None,
            Some(new) => Some(match (mode, old) {
                (ReplaceMode::Merge, Some(old)) => SecretJson::new(merge(old.expose(), new.expose())),
                _ => new.clone(),
            }),
        };
        let unchanged = match (old, &wanted) {
            (None, None) => true,
            (Some(old), Some(new)) => same(old.expose(), new.expose()),
            _ => false,
        };
        if !unchanged {
            changes.push(Change {
                pointer: place.clone(),
                before: old.map(|_| Value::Null),
                after: wanted.as_ref().map(|_| Value::Null),
            });
            after.set(place, wanted);
        }
    }
    (after, changes)
}

/// Puts the members whose names are no texts back as they were: nobody can say that they are to change.
pub(super) fn keep_unnamed(before: &Value, after: &mut Value) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return };
    if new.unnamed() != old.unnamed() {
        *new.unnamed_mut() = old.unnamed().to_vec();
    }
    for (name, value) in new.iter_mut() {
        if let Some(old @ Value::Object(_)) = old.get(name) {
            keep_unnamed(old, value);
        }
    }
}

/// `patch` merged into `target`: RFC 7396, but a `null` that answers a `null` changes nothing (a
/// receiver that gives back what it got has not asked for anything).
pub fn merge(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut empty = Map::new();
    empty.unnamed_mut().clone_from(&patch.unnamed().to_vec());
    let target = target.as_object().unwrap_or(&empty);
    let mut out = target.clone();
    for (name, value) in patch {
        match (target.get(name), value) {
            (Some(Value::Null), Value::Null) => {}
            (_, Value::Null) => {
                out.remove(name);
            }
            (old, _) => {
                out.insert(name.clone(), merge(old.unwrap_or(&Value::Null), value));
            }
        }
    }
    Value::Object(out)
}

/// The differences from `before` to `after`, members in the order of their names. Arrays and values
/// of different kinds differ as a whole; what means the same does not differ.
pub fn diff(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    walk(&Pointer::root(), before, after, &mut changes);
    changes
}

fn walk(at: &Pointer, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                match (old.get(name), new.get(name)) {
                    (Some(old), Some(new)) => walk(&at.child(name), old, new, changes),
                    (old, new) => {
                        changes.push(Change { pointer: at.child(name), before: old.cloned(), after: new.cloned() })
                    }
                }
            }
        }
        _ if same(before, after) => {}
        _ => changes.push(Change { pointer: at.clone(), before: Some(before.clone()), after: Some(after.clone()) }),
    }
}

/// One operation of a JSON patch (RFC 6902), relative to `object`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", from = "WrittenOp")]
pub enum PatchOp {
    /// A member that is new.
    Add {
        /// Where.
        path: Pointer,
        /// What.
        value: Value,
    },
    /// A member that is gone.
    Remove {
        /// Where.
        path: Pointer,
    },
    /// A member with another value.
    Replace {
        /// Where.
        path: Pointer,
        /// What.
        value: Value,
    },
}

/// As it is read: what a tag is looked for in passes through values that round.
#[derive(Deserialize)]
struct WrittenOp {
    op: OpName,
    path: Pointer,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OpName {
    Add,
    Remove,
    Replace,
}

impl From<WrittenOp> for PatchOp {
    fn from(WrittenOp { op, path, value }: WrittenOp) -> Self {
        match op {
            OpName::Add => PatchOp::Add { path, value },
            OpName::Remove => PatchOp::Remove { path },
            OpName::Replace => PatchOp::Replace { path, value },
        }
    }
}

impl PatchOp {
    /// Where.
    pub fn path(&self) -> &Pointer {
        match self {
            PatchOp::Add { path, .. } | PatchOp::Replace { path, .. } | PatchOp::Remove { path } => path,
        }
    }

    /// What it puts there, if it puts anything.
    pub fn value_mut(&mut self) -> Option<&mut Value> {
        match self {
            PatchOp::Add { value, .. } | PatchOp::Replace { value, .. } => Some(value),
            PatchOp::Remove { .. } => None,
        }
    }
}

/// The JSON patch that makes `after` out of `before`.
pub fn patch(before: &Value, after: &Value) -> Vec<PatchOp> {
    let op = |change: Change| match (change.before, change.after) {
        (None, Some(value)) => PatchOp::Add { path: change.pointer, value },
        (Some(_), Some(value)) => PatchOp::Replace { path: change.pointer, value },
        (_, None) => PatchOp::Remove { path: change.pointer },
    };
    diff(before, after).into_iter().map(op).collect()
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
