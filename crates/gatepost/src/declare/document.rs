//! What a setup file says, and whether it can be meant.

use std::collections::BTreeMap;

use super::node::{Member, Node, Value, Wrong, line_and_column};

/// A kind of thing a file declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// Its list in the file, and in the API's `setup`.
    pub key: &'static str,
    /// One of it, in words.
    pub word: &'static str,
    /// How it is sent.
    pub sent: Sent,
    /// Whether another signing secret is brought in by a call of its own; else it is part of the patch.
    pub rotates: bool,
}

/// How what is declared of a thing is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// Whole, to the place its name says.
    Whole,
    /// The members that differ, those that are as by default again as null; to the place its name says.
    Members,
    /// New ones whole to their list, a change as a merge patch to the one with its id.
    Patch,
}

/// What a file can declare, in the order it is applied: what others refer to comes first.
pub const SECTIONS: [Section; 4] = [
    Section { key: "event_types", word: "event type", sent: Sent::Whole, rotates: false },
    Section { key: "points", word: "point", sent: Sent::Members, rotates: false },
    Section { key: "webhooks", word: "webhook", sent: Sent::Patch, rotates: true },
    Section { key: "hooks", word: "hook", sent: Sent::Patch, rotates: false },
];
/// The tenant itself: one thing, not a list.
pub const TENANT: Section = Section { key: "tenant", word: "tenant", sent: Sent::Whole, rotates: false };

/// Members of things that are objects by themselves, so that `{ env = … }` there is a member named `env`.
const OBJECTS: [&str; 13] = [
    "tenant",
    "settings",
    "quotas",
    "headers",
    "retry",
    "retry_after",
    "payload",
    "options",
    "auth",
    "batch",
    "verification",
    "paths",
    "on_failure",
];
/// Members that are JSON for its own sake: nothing in them is a reference. May be given as JSON text too
/// (`{ json = "…" }`), for what TOML has no word for.
pub(super) const DATA: [&str; 3] = ["example", "schema", "sample"];

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// By the file's name, else by how the text begins.
    pub fn of(name: &str, text: &str) -> Format {
        match name.rsplit_once('.') {
            Some((_, "toml")) => Format::Toml,
            Some((_, "json")) => Format::Json,
            _ if text.trim_start().starts_with('{') => Format::Json,
            _ => Format::Toml,
        }
    }
}

/// A file with every reference resolved.
#[derive(Clone, Debug)]
pub struct Document {
    /// The tenant it names, if it does.
    pub tenant: Option<String>,
    /// The whole; secrets in it are in clear.
    pub root: Node,
}

/// A thing declared.
#[derive(Clone, Copy, Debug)]
pub struct Item<'d> {
    /// What it is.
    pub section: Section,
    /// Where it stands in its list.
    pub index: usize,
    /// Its name.
    pub name: &'d str,
    /// All of it.
    pub node: &'d Node,
}

impl Document {
    /// Reads a file. `variable` gives the environment's variables.
    ///
    /// # Errors
    /// Everything that is wrong with it, as far as that can be known without a server.
    pub fn read(text: &str, format: Format, variable: &dyn Fn(&str) -> Option<String>) -> Result<Document, Vec<Wrong>> {
        let root = match format {
            Format::Toml => Node::from_toml(text),
            Format::Json => Node::from_json(text),
        };
        let mut root = root.map_err(|wrong| vec![wrong])?;
        let mut wrong = Vec::new();
        if !matches!(root.value, Value::Object(_)) {
            return Err(vec![Wrong::new(root.at, "must be an object")]);
        }
        let keys: Vec<&str> = SECTIONS.iter().map(|section| section.key).collect();
        for member in root.members() {
            if member.name != "tenant" && !keys.contains(&member.name.as_str()) {
                let known = keys.join(", ");
                wrong.push(Wrong::new(
                    member.at,
                    format!("unknown member {:?}; there are tenant, {known}", member.name),
                ));
            }
        }
        resolve(&mut root, variable, &mut wrong);
        let tenant = match root.get("tenant") {
            None => None,
            Some(node) if is_object(node) => match node.get("id") {
                Some(id) if id.as_text().is_none() => {
                    wrong.push(Wrong::new(id.at, "id must be a text"));
                    None
                }
                id => id.and_then(Node::as_text).map(str::to_owned),
            },
            Some(node) => {
                let text = node.as_text().map(str::to_owned);
                if text.is_none() {
                    wrong.push(Wrong::new(node.at, "tenant must be its id, or an object"));
                }
                text
            }
        };
        for section in SECTIONS {
            check_section(&root, section, text, &mut wrong);
        }
        wrong.sort_by_key(|wrong| wrong.at);
        if wrong.is_empty() { Ok(Document { tenant, root }) } else { Err(wrong) }
    }

    /// Whether the file says anything of this kind of thing.
    pub fn has(&self, section: Section) -> bool {
        self.root.get(section.key).is_some()
    }

    /// What is declared of the tenant itself, if anything is.
    pub fn of_tenant(&self) -> Option<&Node> {
        self.root.get(TENANT.key).filter(|node| is_object(node))
    }

    /// What is declared, in the order it is applied.
    pub fn items(&self) -> Vec<Item<'_>> {
        let mut items = Vec::new();
        for section in SECTIONS {
            for (index, node) in list(&self.root, section).iter().enumerate() {
                let name = node.get("name").and_then(Node::as_text).unwrap_or_default();
                items.push(Item { section, index, name, node });
            }
        }
        items
    }
}

fn is_object(node: &Node) -> bool {
    matches!(node.value, Value::Object(_))
}

fn list(root: &Node, section: Section) -> &[Node] {
    match root.get(section.key).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

/// A list of objects, each with a name of its own: names are what things are known by.
fn check_section(root: &Node, section: Section, text: &str, wrong: &mut Vec<Wrong>) {
    let Some(node) = root.get(section.key) else { return };
    let Value::List(items) = &node.value else {
        wrong.push(Wrong::new(node.at, format!("{} must be a list", section.key)));
        return;
    };
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for item in items {
        let Value::Object(_) = item.value else {
            wrong.push(Wrong::new(item.at, format!("a {} must be an object", section.word)));
            continue;
        };
        let Some(name) = item.get("name") else {
            wrong.push(Wrong::new(item.at, format!("a {} must have a name: it is known by it", section.word)));
            continue;
        };
        let Some(name_text) = name.as_text().filter(|text| !text.is_empty()) else {
            wrong.push(Wrong::new(name.at, "name must be a text"));
            continue;
        };
        match names.get(name_text) {
            Some(first) => {
                let (line, _) = line_and_column(text, *first);
                let message = format!("there is another {} named {name_text:?} at line {line}", section.word);
                wrong.push(Wrong::new(name.at, message));
            }
            None => drop(names.insert(name_text, name.at)),
        }
    }
}

/// Puts what references name in their place.
fn resolve(node: &mut Node, variable: &dyn Fn(&str) -> Option<String>, wrong: &mut Vec<Wrong>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| resolve(item, variable, wrong)),
        Value::Object(members) => {
            for member in members {
                if DATA.contains(&member.name.as_str()) {
                    data(member, wrong);
                } else if OBJECTS.contains(&member.name.as_str()) || !reference(member, variable, wrong) {
                    resolve(&mut member.node, variable, wrong);
                }
            }
        }
        _ => {}
    }
}

/// Whether a member is `{ env = "NAME" }`; then it becomes the variable's value.
fn reference(member: &mut Member, variable: &dyn Fn(&str) -> Option<String>, wrong: &mut Vec<Wrong>) -> bool {
    let [only] = member.node.members() else { return false };
    if only.name != "env" {
        return false;
    }
    let at = only.node.at;
    match only.node.as_text() {
        None => wrong.push(Wrong::new(at, "env must be the name of an environment variable")),
        Some(name) => match variable(name) {
            Some(value) => member.node = Node { at: member.node.at, value: Value::Text(value) },
            None => wrong.push(Wrong::new(at, format!("the environment variable {name} is not set"))),
        },
    }
    true
}

/// `{ json = "…" }` becomes the JSON that is in the text.
fn data(member: &mut Member, wrong: &mut Vec<Wrong>) {
    let [only] = member.node.members() else { return };
    let Some(text) = only.node.as_text().filter(|_| only.name == "json") else { return };
    match Node::from_json(text) {
        Ok(node) => member.node = node,
        Err(error) => {
            let (line, column) = line_and_column(text, error.at);
            let message = format!("the JSON is wrong at its line {line}, column {column}: {}", error.message);
            wrong.push(Wrong::new(only.node.at, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Document, Vec<(usize, String)>> {
        let variable = |name: &str| (name == "SET").then(|| "value".to_owned());
        Document::read(text, Format::of("-", text), &variable)
            .map_err(|all| all.into_iter().map(|wrong| (line_and_column(text, wrong.at).0, wrong.message)).collect())
    }

    #[test]
    fn references_become_what_they_name() {
        let read = read(
            "tenant = 'acme'\n[[webhooks]]\nname = 'a'\nurl = { env = 'SET' }\nsecret = { env = 'SET' }\n\
             headers = { env = 'production', x = { env = 'SET' } }\nauth = { type = 'bearer', token = { env = 'SET' } }\n\
             [[event_types]]\nname = 'a.b'\nexample = { json = '{\"a\":null,\"n\":1.50}' }\nschema = { env = { env = 1 } }\n",
        )
        .unwrap();
        assert_eq!(read.tenant.as_deref(), Some("acme"));
        let at = |pointer: &str| read.root.at_pointer(pointer).map(Node::to_json).unwrap_or_default();
        assert_eq!(at("/webhooks/0/url"), "\"value\"");
        assert_eq!(at("/webhooks/0/headers"), r#"{"env":"production","x":"value"}"#);
        assert_eq!(at("/webhooks/0/auth/token"), "\"value\"");
        assert_eq!(at("/event_types/0/example"), r#"{"a":null,"n":1.50}"#);
        assert_eq!(at("/event_types/0/schema"), r#"{"env":{"env":1}}"#);
        let items: Vec<_> = read.items().iter().map(|item| (item.section.word, item.name.to_owned())).collect();
        assert_eq!(items, [("event type", "a.b".to_owned()), ("webhook", "a".to_owned())]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let all = read(
            "tenant = 1\nwebhook = []\nwebhooks = [\n  { name = 'a', secret = { env = 'UNSET' } },\n  { name = 'a' },\n  \
             { url = 'x' },\n  7,\n  { name = 3 },\n  { name = 'b', secret = { env = 1 } },\n]\n[event_types]\nx = 1\n",
        )
        .unwrap_err();
        let lines: Vec<_> = all.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 4, 5, 6, 7, 8, 9, 11], "{all:?}");
        assert!(
            all[1].1.contains("\"webhook\"") && all[2].1.contains("UNSET") && all[3].1.contains("line 4"),
            "{all:?}"
        );
        assert_eq!(read("[]").unwrap_err().len(), 1);
        let json = read("{\n\"event_types\":[{\"name\":\"a\",\n\"example\":{\"json\":\"{\"}}]}").unwrap_err();
        assert!(json[0].0 == 3 && json[0].1.contains("JSON"), "{json:?}");
    }

    #[test]
    fn the_format_is_that_of_the_name_or_of_the_text() {
        assert_eq!(Format::of("a.json", "x = 1"), Format::Json);
        assert_eq!(Format::of("a.toml", "{"), Format::Toml);
        assert_eq!(Format::of("-", " {}"), Format::Json);
        assert_eq!(Format::of("-", "[[webhooks]]"), Format::Toml);
    }
}
