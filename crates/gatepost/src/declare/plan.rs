//! What a file means for a tenant as it is: what is made, changed, taken away, and how.

use std::fmt::Write as _;

use serde::Serialize;

use super::document::{Item, Section, Sent};
use super::node::{Node, Value};
use crate::text::count;

/// What the server says of a declared thing (`POST …/setup/plan`).
#[derive(Clone, Debug)]
pub struct Judged {
    /// The thing as it is, by the members that can be written; `None`: there is none.
    pub before: Option<Node>,
    /// As it would be. Secrets are masked here as there.
    pub after: Node,
    /// Pointers to the secrets that would be new or others.
    pub secrets: Vec<String>,
}

/// What is done about a thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is taken away.
    Delete,
    /// Nothing: it is as declared.
    None,
}

/// One thing of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is.
    pub section: Section,
    /// Its name.
    pub name: String,
    /// Its id, if there is one already.
    pub id: Option<String>,
    /// What is done.
    pub action: Action,
    /// What differs.
    pub changes: Vec<Change>,
    /// Pointers to the secrets that are new or others.
    pub secrets: Vec<String>,
    /// What is sent: the whole thing, or for a change the merge patch (RFC 7396). Secrets are in clear.
    pub body: Node,
    /// The signing secret to import, where another one is declared for a webhook there is.
    pub rotate: Option<Node>,
}

/// A member that differs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Change {
    /// Which, as a JSON pointer.
    pub pointer: String,
    /// What it is; absent: it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Node>,
    /// What it becomes; absent: it is cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Node>,
}

/// Everything that is done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// One by one, in order.
    pub steps: Vec<Step>,
}

/// The signing secret's pointer: it is imported by a call of its own.
const SECRET: &str = "/secret";

impl Step {
    /// What is to be done about a declared thing, by what the server says of it.
    pub fn of(item: &Item<'_>, id: Option<String>, judged: Judged) -> Step {
        let Some(before) = &judged.before else {
            let changes = diff(&Node::of(Value::Object(Vec::new())), &judged.after);
            return Step {
                section: item.section,
                name: item.name.to_owned(),
                id: None,
                action: Action::Create,
                changes: changes.into_iter().filter(|change| !is_name(change)).collect(),
                secrets: judged.secrets,
                body: item.node.clone(),
                rotate: None,
            };
        };
        let changes = diff(before, &judged.after);
        let mut body = merge_patch(before, &judged.after);
        let mut rotate = None;
        for pointer in &judged.secrets {
            let declared = item.node.at_pointer(pointer).cloned();
            match declared {
                Some(value) if pointer == SECRET && item.section.rotates => rotate = Some(value),
                Some(value) => put(&mut body, pointer, value),
                None => {}
            }
        }
        match item.section.sent {
            Sent::Whole => body = item.node.clone(),
            Sent::Members => body = changed_members(before, &judged.after),
            Sent::Patch => {}
        }
        let same = changes.is_empty() && judged.secrets.is_empty();
        Step {
            section: item.section,
            name: item.name.to_owned(),
            id,
            action: if same { Action::None } else { Action::Update },
            changes,
            secrets: judged.secrets,
            body,
            rotate,
        }
    }

    /// A thing that is there and not declared any more.
    pub fn delete(section: Section, name: &str, id: &str) -> Step {
        Step {
            section,
            name: name.to_owned(),
            id: Some(id.to_owned()),
            action: Action::Delete,
            changes: Vec::new(),
            secrets: Vec::new(),
            body: Node::of(Value::Null),
            rotate: None,
        }
    }

    fn describe(&self, out: &mut String) {
        let sign = match self.action {
            Action::Create => '+',
            Action::Update => '~',
            Action::Delete => '-',
            Action::None => return,
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{sign} {} {}", self.section.word, self.name);
        let secret = |pointer: &str| self.secrets.iter().any(|secret| secret == pointer);
        for change in &self.changes {
            let shown = |node: &Option<Node>| node.as_ref().map(Node::to_json).unwrap_or_default();
            let name = dotted(&change.pointer);
            let _ = match (&change.from, &change.to) {
                _ if secret(&change.pointer) => Ok(()),
                (None, _) => writeln!(out, "    {name}: {}", shown(&change.to)),
                (Some(_), Some(_)) => writeln!(out, "    {name}: {} -> {}", shown(&change.from), shown(&change.to)),
                (Some(_), None) => writeln!(out, "    {name}: {} -> (cleared)", shown(&change.from)),
            };
        }
        for pointer in &self.secrets {
            let what = match self.action {
                Action::Update if pointer == SECRET => "(another one; the old one signs too for a day)",
                Action::Update => "(another value)",
                _ => "(given)",
            };
            let _ = writeln!(out, "    {}: {what}", dotted(pointer));
        }
    }
}

impl Plan {
    /// How many steps are of this kind.
    pub fn count(&self, action: Action) -> u64 {
        self.steps.iter().filter(|step| step.action == action).count() as u64
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::None)
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.steps.iter().for_each(|step| step.describe(&mut out));
        let unchanged = self.count(Action::None);
        if self.is_empty() {
            let _ = writeln!(out, "no changes: {} as declared", count(unchanged, "thing"));
            return out;
        }
        let _ = writeln!(
            out,
            "plan: {} to create, {} to change, {} to delete, {unchanged} as declared",
            self.count(Action::Create),
            self.count(Action::Update),
            self.count(Action::Delete)
        );
        out
    }
}

fn is_name(change: &Change) -> bool {
    change.pointer == "/name"
}

/// A pointer as people write it.
fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
}

/// Every member that differs, objects looked into.
pub fn diff(before: &Node, after: &Node) -> Vec<Change> {
    let mut changes = Vec::new();
    differ("", before, after, &mut changes);
    changes
}

fn differ(at: &str, before: &Node, after: &Node, changes: &mut Vec<Change>) {
    let place = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    for member in before.members() {
        let pointer = place(&member.name);
        match after.get(&member.name) {
            None => changes.push(Change { pointer, from: Some(member.node.clone()), to: None }),
            Some(other) if *other == member.node => {}
            Some(other) if is_object(other) && is_object(&member.node) && !other.members().is_empty() => {
                differ(&pointer, &member.node, other, changes);
            }
            Some(other) => changes.push(Change { pointer, from: Some(member.node.clone()), to: Some(other.clone()) }),
        }
    }
    for member in after.members() {
        if before.get(&member.name).is_none() {
            changes.push(Change { pointer: place(&member.name), from: None, to: Some(member.node.clone()) });
        }
    }
}

fn is_object(node: &Node) -> bool {
    matches!(node.value, Value::Object(_))
}

/// The merge patch (RFC 7396) that makes `after` of `before`.
pub fn merge_patch(before: &Node, after: &Node) -> Node {
    let mut patch = Node::of(Value::Object(Vec::new()));
    for member in before.members() {
        match after.get(&member.name) {
            None => patch.set(&member.name, Node::of(Value::Null)),
            Some(other) if *other == member.node => {}
            Some(other) if is_object(other) && is_object(&member.node) => {
                patch.set(&member.name, merge_patch(&member.node, other));
            }
            Some(other) => patch.set(&member.name, other.clone()),
        }
    }
    for member in after.members() {
        if before.get(&member.name).is_none() {
            patch.set(&member.name, member.node.clone());
        }
    }
    patch
}

/// The members that differ, each whole; null for those that are not there any more.
fn changed_members(before: &Node, after: &Node) -> Node {
    let mut changed = Node::of(Value::Object(Vec::new()));
    for member in before.members().iter().filter(|member| after.get(&member.name).is_none()) {
        changed.set(&member.name, Node::of(Value::Null));
    }
    for member in after.members().iter().filter(|member| before.get(&member.name) != Some(&member.node)) {
        changed.set(&member.name, member.node.clone());
    }
    changed
}

/// Sets what a pointer names, making the objects on the way.
fn put(node: &mut Node, pointer: &str, value: Node) {
    let Some(rest) = pointer.strip_prefix('/') else { return };
    let (name, below) = match rest.find('/') {
        Some(end) => (&rest[..end], &rest[end..]),
        None => (rest, ""),
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    if below.is_empty() {
        node.set(&name, value);
        return;
    }
    let mut inner = node.get(&name).cloned().unwrap_or_else(|| Node::of(Value::Object(Vec::new())));
    put(&mut inner, below, value);
    node.set(&name, inner);
}

#[cfg(test)]
mod tests {
    use super::super::document::SECTIONS;
    use super::*;

    fn node(json: &str) -> Node {
        Node::from_json(json).unwrap()
    }

    /// RFC 7396, section 2.
    fn apply(target: &Node, patch: &Node) -> Node {
        if !is_object(patch) {
            return patch.clone();
        }
        let mut merged = if is_object(target) { target.clone() } else { node("{}") };
        for member in patch.members() {
            match member.node.value {
                Value::Null => drop(merged.take(&member.name)),
                _ => {
                    let below = merged.get(&member.name).cloned().unwrap_or_else(|| node("null"));
                    merged.set(&member.name, apply(&below, &member.node));
                }
            }
        }
        merged
    }

    #[test]
    fn a_patch_makes_one_of_the_other() {
        let forms = [
            r#"{}"#,
            r#"{"a":1,"b":{"c":[1,2],"d":"x"},"e":true}"#,
            r#"{"a":1.0,"b":{"c":[1]},"f":{"g":{"h":1}}}"#,
            r#"{"b":7,"f":{"g":{}}}"#,
            r#"{"f":{"i/j~":false,"g":{"h":2}}}"#,
        ];
        for before in forms.map(node) {
            for after in forms.map(node) {
                let patch = merge_patch(&before, &after);
                assert!(apply(&before, &patch) == after, "{} by {}", before.to_json(), patch.to_json());
                assert_eq!(diff(&before, &after).is_empty(), before == after);
            }
        }
    }

    #[test]
    fn secrets_travel_in_the_patch_and_are_never_told() {
        let declared = node(
            r#"{"name":"a","url":"https://b","headers":{"x-k":"hidden-one","X-New":"hidden-two"},"secret":"hidden-three"}"#,
        );
        let item = Item { section: SECTIONS[2], index: 0, name: "a", node: &declared };
        let judged = Judged {
            before: Some(node(
                r#"{"name":"a","url":"https://a","headers":{"x-k":"***","x-old":"***"},"filter":"true"}"#,
            )),
            after: node(r#"{"name":"a","url":"https://b","headers":{"x-k":"***","X-New":"***"}}"#),
            secrets: vec!["/headers/x-k".into(), "/headers/X-New".into(), "/secret".into()],
        };
        let step = Step::of(&item, Some("wh_1".into()), judged);
        assert_eq!(step.action, Action::Update);
        let expected =
            r#"{"url":"https://b","headers":{"x-old":null,"X-New":"hidden-two","x-k":"hidden-one"},"filter":null}"#;
        assert_eq!(step.body, node(expected));
        assert_eq!(step.rotate, Some(Node::text("hidden-three")));
        let told = Plan { steps: vec![step] }.to_text();
        assert!(!told.contains("hidden"), "{told}");
        for line in [
            "url: \"https://a\" -> \"https://b\"",
            "headers.x-old: \"***\" -> (cleared)",
            "headers.X-New: (another value)",
            "secret: (another one",
        ] {
            assert!(told.contains(line), "{line} in {told}");
        }
    }
}
