//! JSON Patch (RFC 6902) as an answer: read strictly, judged path by path, applied whole or not at all.
//!
//! What a patch may cost is bounded: `copy` can double a document with every operation, nest it ever
//! deeper, and every insertion moves the rest of an array.

use super::change::{Applied, Change, MayChange, diff, keep_unnamed};
use super::json::{Pointer, Value, held_by, index, same};
use super::secrets::{Lifted, wipe};

/// Operations of one patch.
pub const OPERATIONS_MAX: usize = 1_000;
/// Bytes in memory that one patch may copy.
const COPIED_MAX: usize = 1 << 20;
/// Steps it may take: values looked at, items moved.
const STEPS_MAX: usize = 1 << 22;
/// How deep the document may be afterwards: no deeper than one that is read.
const DEPTH_MAX: usize = 128;

/// One operation.
#[derive(Clone, PartialEq, Debug)]
pub enum Operation {
    /// Puts a value where none is, or into a list.
    Add(Pointer, Value),
    /// Takes away what is there.
    Remove(Pointer),
    /// Another value for what is there.
    Replace(Pointer, Value),
    /// From the first place to the second.
    Move(Pointer, Pointer),
    /// A copy of what is at the first place at the second.
    Copy(Pointer, Pointer),
    /// What must be there.
    Test(Pointer, Value),
}

/// Why a patch is not applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It changes this place, which may not be changed.
    NotAllowed(Pointer),
    /// It makes no sense for this object, or too much of it; by the number of the operation.
    Impossible(String),
}

/// Reads a patch. What is wrong is told without repeating the answer's text.
///
/// # Errors
/// Which operation is none, and why.
pub fn read(patch: Value) -> Result<Vec<Operation>, String> {
    let Value::Array(items) = patch else { return Err("patch must be a list of operations".to_owned()) };
    if items.len() > OPERATIONS_MAX {
        return Err(format!("patch has more than {OPERATIONS_MAX} operations"));
    }
    let one = |(i, item)| read_one(item).map_err(|why| format!("patch[{i}]: {why}"));
    items.into_iter().enumerate().map(one).collect()
}

fn read_one(item: Value) -> Result<Operation, &'static str> {
    let Value::Object(mut members) = item else { return Err("must be an object") };
    let value = members.remove("value");
    let place = |name: &str| {
        let text = members.get(name).and_then(Value::as_str);
        text.and_then(|text| text.parse::<Pointer>().ok())
    };
    let path = place("path").ok_or("path must be a JSON pointer")?;
    let from = || place("from").ok_or("from must be a JSON pointer");
    let value = || value.ok_or("value is missing");
    match members.get("op").and_then(Value::as_str) {
        Some("add") => Ok(Operation::Add(path, value()?)),
        Some("remove") => Ok(Operation::Remove(path)),
        Some("replace") => Ok(Operation::Replace(path, value()?)),
        Some("move") => Ok(Operation::Move(from()?, path)),
        Some("copy") => Ok(Operation::Copy(from()?, path)),
        Some("test") => Ok(Operation::Test(path, value()?)),
        _ => Err("op must be add, remove, replace, move, copy or test"),
    }
}

/// Applies a patch to `object` as the receiver saw it: with its secret members where they were `shown`.
///
/// # Errors
/// Nothing is applied then.
pub fn apply(
    object: &Value,
    secrets: &Lifted,
    patch: Vec<Operation>,
    may_change: &MayChange,
    secret_places: &[Pointer],
    shown: bool,
) -> Result<Applied, Refused> {
    let mut patched = Patched { document: object.clone(), may_change, copied: 0, steps: 0 };
    if shown {
        secrets.restore(&mut patched.document);
    }
    for (i, operation) in patch.into_iter().enumerate() {
        let done = patched.take(operation);
        done.map_err(|stop| match stop {
            Stop::NotAllowed(place) => Refused::NotAllowed(place),
            Stop::Impossible(why) => Refused::Impossible(format!("patch[{i}]: {why}")),
        })?;
    }
    if !patched.document.is_object() {
        return Err(Refused::Impossible("the patched object is none".to_owned()));
    }
    let mut after = std::mem::take(&mut patched.document);
    let told = Lifted::lift(&mut after, secret_places);
    let mut kept = secrets.clone();
    for place in secret_places.iter().filter(|place| shown || told.get(place).is_some()) {
        kept.set(place, told.get(place).cloned());
    }
    keep_unnamed(object, &mut after);
    let mut changes = diff(object, &after);
    let changed = |place: &&Pointer| match (secrets.get(place), kept.get(place)) {
        (None, None) => false,
        (Some(old), Some(new)) => !same(old.expose(), new.expose()),
        _ => true,
    };
    changes.extend(secret_places.iter().filter(changed).map(|place| Change {
        pointer: place.clone(),
        before: secrets.get(place).map(|_| Value::Null),
        after: kept.get(place).map(|_| Value::Null),
    }));
    changes.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    Ok(Applied { object: after, secrets: kept, changes })
}

enum Stop {
    NotAllowed(Pointer),
    Impossible(&'static str),
}

const MISSING: Stop = Stop::Impossible("there is nothing at its path");
const NO_PLACE: Stop = Stop::Impossible("there is no place for its path");

/// A document being patched.
struct Patched<'a> {
    document: Value,
    may_change: &'a MayChange,
    copied: usize,
    steps: usize,
}

impl Drop for Patched<'_> {
    fn drop(&mut self) {
        // It may hold secrets, when it was given up.
        wipe(&mut self.document);
    }
}

impl Patched<'_> {
    fn take(&mut self, operation: Operation) -> Result<(), Stop> {
        match operation {
            Operation::Add(path, value) => self.add(&path, value),
            Operation::Remove(path) => self.remove(&path).map(drop),
            Operation::Replace(path, value) => self.replace(&path, value),
            Operation::Move(from, path) if from == path => self.get(&from).map(drop),
            Operation::Move(from, path) if from.covers(&path) => Err(Stop::Impossible("it moves a value into itself")),
            Operation::Move(from, path) => {
                let value = self.remove(&from)?;
                self.add(&path, value)
            }
            Operation::Copy(from, path) => {
                let bytes = held_by(self.get(&from)?);
                self.copied += bytes;
                if self.copied > COPIED_MAX {
                    return Err(Stop::Impossible("the patch copies too much"));
                }
                let value = self.get(&from)?.clone();
                self.add(&path, value)
            }
            Operation::Test(path, value) => {
                self.spend(path.segments().len())?;
                let there = self.get(&path)?;
                if same(there, &value) { Ok(()) } else { Err(Stop::Impossible("its test fails")) }
            }
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Stop> {
        self.steps = self.steps.saturating_add(steps + 16);
        if self.steps > STEPS_MAX { Err(Stop::Impossible("the patch is too much work")) } else { Ok(()) }
    }

    fn get(&self, place: &Pointer) -> Result<&Value, Stop> {
        place.get(&self.document).ok_or(MISSING)
    }

    fn add(&mut self, path: &Pointer, value: Value) -> Result<(), Stop> {
        let (depth, count) = measure(&value);
        self.spend(count + path.segments().len())?;
        if path.segments().len() + depth > DEPTH_MAX {
            return Err(Stop::Impossible("the object would be too deep"));
        }
        let Some((last, parent)) = path.split() else { return self.replace_whole(value) };
        match parent.get_mut(&mut self.document).ok_or(NO_PLACE)? {
            Value::Object(members) => {
                judge(self.may_change, path, members.get(last), Some(&value))?;
                members.insert(last.to_owned(), value);
                Ok(())
            }
            Value::Array(items) => {
                let at = if last == "-" { Some(items.len()) } else { index(last) };
                let at = at.filter(|at| *at <= items.len()).ok_or(NO_PLACE)?;
                judge_list(self.may_change, &parent)?;
                let moved = items.len() - at;
                items.insert(at, value);
                self.spend(moved)
            }
            _ => Err(NO_PLACE),
        }
    }

    fn remove(&mut self, path: &Pointer) -> Result<Value, Stop> {
        self.spend(path.segments().len())?;
        let (last, parent) = path.split().ok_or(Stop::Impossible("the whole object cannot be taken away"))?;
        match parent.get_mut(&mut self.document).ok_or(MISSING)? {
            Value::Object(members) => {
                let before = members.get(last).ok_or(MISSING)?;
                judge(self.may_change, path, Some(before), None)?;
                members.remove(last).ok_or(MISSING)
            }
            Value::Array(items) => {
                let at = index(last).filter(|at| *at < items.len()).ok_or(MISSING)?;
                judge_list(self.may_change, &parent)?;
                let moved = items.len() - at;
                let value = items.remove(at);
                self.spend(moved)?;
                Ok(value)
            }
            _ => Err(MISSING),
        }
    }

    fn replace(&mut self, path: &Pointer, value: Value) -> Result<(), Stop> {
        let (depth, count) = measure(&value);
        self.spend(count + path.segments().len())?;
        if path.segments().len() + depth > DEPTH_MAX {
            return Err(Stop::Impossible("the object would be too deep"));
        }
        if path.split().is_none() {
            return self.replace_whole(value);
        }
        let there = path.get_mut(&mut self.document).ok_or(MISSING)?;
        judge(self.may_change, path, Some(there), Some(&value))?;
        *there = value;
        Ok(())
    }

    fn replace_whole(&mut self, value: Value) -> Result<(), Stop> {
        judge(self.may_change, &Pointer::root(), Some(&self.document), Some(&value))?;
        self.document = value;
        Ok(())
    }
}

/// What is given back as it was is no change.
fn judge(may: &MayChange, path: &Pointer, before: Option<&Value>, after: Option<&Value>) -> Result<(), Stop> {
    if let (Some(before), Some(after)) = (before, after)
        && same(before, after)
    {
        return Ok(());
    }
    may.forbids(path, before, after).map_or(Ok(()), |place| Err(Stop::NotAllowed(place)))
}

/// Items that come and go move the others: that changes the list.
fn judge_list(may: &MayChange, list: &Pointer) -> Result<(), Stop> {
    if may.allows_all_of(list) { Ok(()) } else { Err(Stop::NotAllowed(list.clone())) }
}

/// How deep a value is, and of how many it is made.
fn measure(value: &Value) -> (usize, usize) {
    let inside = |values: &mut dyn Iterator<Item = &Value>| {
        let add = |(deepest, count): (usize, usize), (depth, more): (usize, usize)| (deepest.max(depth), count + more);
        let (depth, count) = values.map(measure).fold((0, 0), add);
        (depth + 1, count + 1)
    };
    match value {
        Value::Array(items) => inside(&mut items.iter()),
        Value::Object(members) => inside(&mut members.values()),
        _ => (0, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::json::json;

    fn at(text: &str) -> Pointer {
        text.parse().unwrap()
    }

    fn patched(object: Value, patch: Value, may: &[&str]) -> Result<Value, Refused> {
        let may = MayChange::places(may.iter().map(|text| at(text)).collect());
        let patch = read(patch).map_err(Refused::Impossible)?;
        apply(&object, &Lifted::default(), patch, &may, &[], true).map(|applied| applied.object)
    }

    #[test]
    fn operations_do_what_the_standard_says() {
        let object = || json!({"user": {"a": 1, "list": [1, 2, 3], "deep": {"x": [true]}, "m~n/o": 0}});
        for (patch, expected) in [
            (json!([{"op": "add", "path": "/user/b", "value": 2}]), Ok(("/user/b", json!(2)))),
            (json!([{"op": "add", "path": "/user/a", "value": 2}]), Ok(("/user/a", json!(2)))),
            (json!([{"op": "add", "path": "/user/list/1", "value": 9}]), Ok(("/user/list", json!([1, 9, 2, 3])))),
            (json!([{"op": "add", "path": "/user/list/3", "value": 9}]), Ok(("/user/list", json!([1, 2, 3, 9])))),
            (json!([{"op": "add", "path": "/user/list/-", "value": 9}]), Ok(("/user/list", json!([1, 2, 3, 9])))),
            (json!([{"op": "add", "path": "/user/list/4", "value": 9}]), Err("patch[0]: there is no place")),
            (json!([{"op": "add", "path": "/user/list/01", "value": 9}]), Err("patch[0]: there is no place")),
            (json!([{"op": "add", "path": "/nobody/b", "value": 2}]), Err("patch[0]: there is no place")),
            (json!([{"op": "remove", "path": "/user/list/0"}]), Ok(("/user/list", json!([2, 3])))),
            (json!([{"op": "remove", "path": "/user/none"}]), Err("patch[0]: there is nothing")),
            (json!([{"op": "remove", "path": "/user/list/-"}]), Err("patch[0]: there is nothing")),
            (json!([{"op": "remove", "path": ""}]), Err("patch[0]: the whole object")),
            (json!([{"op": "replace", "path": "/user/m~0n~1o", "value": [1]}]), Ok(("/user/m~0n~1o", json!([1])))),
            (json!([{"op": "replace", "path": "/user/none", "value": 1}]), Err("patch[0]: there is nothing")),
            (json!([{"op": "replace", "path": "", "value": {"user": {}}}]), Ok(("/user", json!({})))),
            (json!([{"op": "replace", "path": "", "value": 7}]), Err("the patched object is none")),
            (json!([{"op": "move", "from": "/user/a", "path": "/user/b"}]), Ok(("/user/b", json!(1)))),
            (
                json!([{"op": "move", "from": "/user/deep", "path": "/user/deep/x/0"}]),
                Err("patch[0]: it moves a value"),
            ),
            (json!([{"op": "copy", "from": "/user/deep/x", "path": "/user/y"}]), Ok(("/user/y", json!([true])))),
            (
                json!([{"op": "test", "path": "/user/a", "value": 1.0}, {"op": "remove", "path": "/user/deep"}]),
                Ok(("/user/a", json!(1))),
            ),
            (
                json!([{"op": "remove", "path": "/user/deep"}, {"op": "test", "path": "/user/a", "value": 2}]),
                Err("patch[1]: its test fails"),
            ),
            (json!([{"op": "test", "path": "/user/none", "value": null}]), Err("patch[0]: there is nothing")),
            (json!([{"op": "swap", "path": "/user/a"}]), Err("patch[0]: op must be")),
            (json!([{"op": "add", "path": "/user/a"}]), Err("patch[0]: value is missing")),
            (json!([{"op": "add", "path": "user", "value": 1}]), Err("patch[0]: path must be")),
            (json!([{"op": "move", "path": "/user/a"}]), Err("patch[0]: from must be")),
            (json!({"op": "add"}), Err("patch must be a list")),
        ] {
            match (patched(object(), patch.clone(), &[""]), expected) {
                (Ok(after), Ok((place, value))) => assert_eq!(at(place).get(&after), Some(&value), "{patch}"),
                (Err(Refused::Impossible(why)), Err(expected)) => assert!(why.starts_with(expected), "{patch}: {why}"),
                (other, _) => panic!("{patch}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_path_is_judged() {
        let object = || json!({"user": {"a": 1, "b": 2, "list": [1, 2]}, "other": {"x": 1}});
        for (patch, may, refused) in [
            (json!([{"op": "replace", "path": "/user/a", "value": 2}]), vec!["/user/a"], None),
            (json!([{"op": "replace", "path": "/user/a", "value": 2}]), vec!["/user/b"], Some("/user/a")),
            // Nothing changes.
            (json!([{"op": "replace", "path": "/user/a", "value": 1.0}]), vec!["/user/b"], None),
            (json!([{"op": "test", "path": "/other/x", "value": 1}]), vec!["/user/b"], None),
            // What comes and goes again came.
            (
                json!([{"op": "add", "path": "/user/c", "value": 1}, {"op": "remove", "path": "/user/c"}]),
                vec!["/user/a"],
                Some("/user/c"),
            ),
            (json!([{"op": "move", "from": "/other/x", "path": "/user/a"}]), vec!["/user"], Some("/other/x")),
            (json!([{"op": "move", "from": "/user/b", "path": "/other/x"}]), vec!["/user"], Some("/other/x")),
            (json!([{"op": "copy", "from": "/other/x", "path": "/user/a"}]), vec!["/user"], None),
            (json!([{"op": "replace", "path": "/user/list/0", "value": 9}]), vec!["/user/list/0"], None),
            (json!([{"op": "remove", "path": "/user/list/0"}]), vec!["/user/list/0"], Some("/user/list")),
            (json!([{"op": "add", "path": "/user/list/-", "value": 9}]), vec!["/user/list"], None),
            (json!([{"op": "replace", "path": "", "value": {}}]), vec!["/user"], Some("")),
        ] {
            let done = patched(object(), patch.clone(), &may);
            match refused {
                None => drop(done.unwrap_or_else(|why| panic!("{patch}: {why:?}"))),
                Some(place) => assert_eq!(done, Err(Refused::NotAllowed(at(place))), "{patch}"),
            }
        }
    }

    #[test]
    fn the_user_may_be_patched_but_not_what_gives_it_power() {
        let object = json!({"user": {"login": "a", "country": "x"}});
        let may = MayChange::user_without_powers();
        for (patch, fine) in [
            (json!([{"op": "replace", "path": "/user/country", "value": "y"}]), true),
            (json!([{"op": "replace", "path": "/user/login", "value": "b"}]), false),
            (json!([{"op": "replace", "path": "/user", "value": {"login": "a", "country": "y"}}]), true),
            (json!([{"op": "replace", "path": "/user", "value": {"country": "y"}}]), false),
            (json!([{"op": "add", "path": "/user/assignedGroups", "value": ["admins"]}]), false),
            (json!([{"op": "copy", "from": "/user", "path": "/user/x"}]), true),
        ] {
            let done = apply(&object, &Lifted::default(), read(patch.clone()).unwrap(), &may, &[], true);
            assert_eq!(done.is_ok(), fine, "{patch}");
        }
    }

    #[test]
    fn p7_secret_members_are_patched_where_they_were_shown() {
        let secret = at("/user/q");
        let mut object = json!({"user": {"login": "a", "q": "Rex the dog"}});
        let secrets = Lifted::lift(&mut object, std::slice::from_ref(&secret));
        let all = MayChange::places(vec![at("/user")]);
        let patch = |patch: Value, shown| {
            apply(&object, &secrets, read(patch).unwrap(), &all, std::slice::from_ref(&secret), shown)
        };
        let replaced = json!([{"op": "replace", "path": "/user/q", "value": "Tom the cat"}]);
        let applied = patch(replaced.clone(), true).unwrap();
        assert_eq!(applied.object, object);
        assert_eq!(applied.secrets.get(&secret).unwrap().expose(), "Tom the cat");
        assert_eq!((applied.changes.len(), &applied.changes[0].after), (1, &Some(Value::Null)));
        // It cannot replace what it has not seen, but set it.
        assert!(patch(replaced, false).is_err());
        let added = patch(json!([{"op": "add", "path": "/user/q", "value": "Tom the cat"}]), false).unwrap();
        assert_eq!(added.secrets.get(&secret).unwrap().expose(), "Tom the cat");
        assert!(patch(json!([{"op": "remove", "path": "/user/q"}]), true).unwrap().secrets.is_empty());
        let untouched = patch(json!([{"op": "add", "path": "/user/x", "value": 1}]), false).unwrap();
        assert_eq!(untouched.secrets, secrets);
    }

    #[test]
    fn p10_a_patch_costs_bounded_time_and_memory() {
        let all = [""];
        let doubling: Vec<_> = (0..64).map(|n| json!({"op": "copy", "from": "", "path": format!("/c{n}")})).collect();
        let refused = patched(json!({"a": "x".repeat(100)}), json!(doubling), &all).unwrap_err();
        assert!(
            matches!(&refused, Refused::Impossible(why) if why.contains("copies") || why.contains("deep")),
            "{refused:?}"
        );
        let mut nesting = vec![json!({"op": "add", "path": "/a", "value": {}})];
        let mut path = "/a".to_owned();
        for _ in 0..10 {
            path += "/b";
            nesting.push(json!({"op": "copy", "from": "/a", "path": path}));
            path = path.clone() + &path["/a".len()..];
        }
        assert!(patched(json!({}), json!(nesting), &all).is_err());
        let list = json!({"list": vec![0; 100_000]});
        let shifting = vec![json!({"op": "remove", "path": "/list/0"}); 1_000];
        let refused = patched(list.clone(), json!(shifting), &all).unwrap_err();
        assert!(matches!(&refused, Refused::Impossible(why) if why.contains("work")), "{refused:?}");
        let moving: Vec<_> = (0..1_000)
            .map(|n| {
                let (from, to) = if n % 2 == 0 { ("/list", "/l") } else { ("/l", "/list") };
                json!({"op": "move", "from": from, "path": to})
            })
            .collect();
        assert!(patched(list, json!(moving), &all).is_err());
        assert!(read(json!(vec![json!({"op": "remove", "path": "/a"}); 1_001])).is_err());
    }
}
