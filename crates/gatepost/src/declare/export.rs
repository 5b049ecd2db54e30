//! A tenant's setup as a file.

use std::collections::BTreeSet;

use super::document::{DATA, Format, Section, Sent, TENANT};
use super::node::{Node, Value};
use crate::text::indented;

/// What stands for a secret in the API's answers.
const MASK: &str = "***";

/// Characters of a name.
const NAME_MAX: usize = 200;

/// Members people look for first; the others follow as they come.
const FIRST: [&str; 7] = ["name", "description", "point", "url", "events", "filter", "profile"];

/// A setup, ready to be written down.
#[derive(Clone, Debug, Default)]
pub struct Export {
    tenant: Option<Node>,
    sections: Vec<(Section, Vec<Node>)>,
    variables: BTreeSet<String>,
    renamed: Vec<(Section, String, String)>,
}

impl Export {
    /// Adds what a tenant has of one kind, by the members that can be written. `secrets`: webhooks' signing
    /// secrets are referred to as well.
    pub fn add(&mut self, section: Section, rows: Vec<Node>, secrets: bool) {
        let mut items = Vec::with_capacity(rows.len());
        let mut names: BTreeSet<String> = rows.iter().map(|row| name_of(row).to_owned()).collect();
        let mut seen = BTreeSet::new();
        // The newest come first: the one that had its name first keeps it.
        for mut row in rows.into_iter().rev() {
            let mut name = name_of(&row).to_owned();
            if !seen.insert(name.clone()) {
                let another = another(&name, &names);
                row.set("name", Node::text(another.clone()));
                names.insert(another.clone());
                self.renamed.push((section, name, another.clone()));
                name = another;
            }
            if secrets && section.sent == Sent::Patch {
                row.set("secret", Node::text(MASK));
            }
            // What is on is said by being there: switched off by Gatepost and on again by the file would
            // go round and round.
            if matches!(row.get("enabled").map(|node| &node.value), Some(Value::Bool(true))) {
                row.take("enabled");
            }
            self.refer(&mut row, &name);
            if let Value::Object(members) = &mut row.value {
                let place = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
                members.sort_by_key(|member| place(&member.name));
            }
            items.push(row);
        }
        items.sort_by(|a, b| a.get("name").and_then(Node::as_text).cmp(&b.get("name").and_then(Node::as_text)));
        self.sections.push((section, items));
    }

    /// Adds the tenant itself.
    pub fn set_tenant(&mut self, tenant: Node) {
        self.tenant = Some(tenant);
    }

    /// What was given another name because others of its kind have the same: which, and how it is called now.
    pub fn renamed(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.renamed.iter().map(|(section, name, another)| (section.word, name.as_str(), another.as_str()))
    }

    /// The variables the file refers to.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(String::as_str)
    }

    /// Puts a reference in the place of every masked secret.
    fn refer(&mut self, node: &mut Node, name: &str) {
        match &mut node.value {
            Value::Text(text) if text == MASK => {
                let mut variable = variable(name);
                let mut n = 2;
                while self.variables.contains(&variable) {
                    variable = format!(
                        "{}_{n}",
                        variable.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_')
                    );
                    n += 1;
                }
                *node = Node::of(Value::Object(Vec::new()));
                node.set("env", Node::text(variable.clone()));
                self.variables.insert(variable);
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.refer(item, name)),
            Value::Object(members) => {
                for member in members.iter_mut().filter(|member| !DATA.contains(&member.name.as_str())) {
                    // The words on the way to a secret that tell it from others.
                    let word = match member.name.as_str() {
                        "headers" | "auth" => name.to_owned(),
                        below => format!("{name} {below}"),
                    };
                    self.refer(&mut member.node, &word);
                }
            }
            _ => {}
        }
    }

    /// The file.
    pub fn to_text(&self, format: Format) -> String {
        match format {
            Format::Json => self.to_json(),
            Format::Toml => self.to_toml(),
        }
    }

    fn to_json(&self) -> String {
        let mut root = Node::of(Value::Object(Vec::new()));
        if let Some(tenant) = &self.tenant {
            root.set(TENANT.key, tenant.clone());
        }
        for (section, items) in self.sections.iter().filter(|(_, items)| !items.is_empty()) {
            root.set(section.key, Node::of(Value::List(items.clone())));
        }
        indented(&root.to_json())
    }

    fn to_toml(&self) -> String {
        let mut out = String::new();
        if let Some(tenant) = &self.tenant {
            out += &format!("[{}]\n", TENANT.key);
            toml_item(&mut out, TENANT.key, tenant);
        }
        for (section, items) in &self.sections {
            for item in items {
                if !out.is_empty() {
                    out.push('\n');
                }
                out += &format!("[[{}]]\n", section.key);
                toml_item(&mut out, section.key, item);
            }
        }
        out
    }
}

fn name_of(row: &Node) -> &str {
    row.get("name").and_then(Node::as_text).unwrap_or_default()
}

/// A name like `name` that is not taken.
fn another(name: &str, taken: &BTreeSet<String>) -> String {
    (2..)
        .map(|n| {
            let suffix = format!(" ({n})");
            let kept: String = name.chars().take(NAME_MAX - suffix.len()).collect();
            kept + &suffix
        })
        .find(|another| !taken.contains(another))
        .unwrap_or_default()
}

/// One thing. Members that are JSON for its own sake are given as JSON text: TOML has no null.
fn toml_item(out: &mut String, section: &str, item: &Node) {
    let table = |node: &Node| matches!(&node.value, Value::Object(members) if members.len() > 1);
    let (tables, plain): (Vec<_>, Vec<_>) =
        item.members().iter().partition(|member| table(&member.node) && !DATA.contains(&member.name.as_str()));
    for member in plain {
        let value = if DATA.contains(&member.name.as_str()) {
            format!("{{ json = {} }}", quoted(&member.node.to_json()))
        } else {
            inline(&member.node)
        };
        out.push_str(&format!("{} = {value}\n", key(&member.name)));
    }
    for member in tables {
        out.push_str(&format!("[{section}.{}]\n", key(&member.name)));
        for inner in member.node.members() {
            out.push_str(&format!("{} = {}\n", key(&inner.name), inline(&inner.node)));
        }
    }
}

fn inline(node: &Node) -> String {
    match &node.value {
        // Members that are null are absent here.
        Value::Null => "\"\"".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) => text.clone(),
        Value::Text(text) => quoted(text),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .filter(|member| !matches!(member.node.value, Value::Null))
                .map(|member| format!("{} = {}", key(&member.name), inline(&member.node)))
                .collect();
            if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
        }
    }
}

/// A text on one line, whatever is in it: the file is read by people and compared by lines.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

/// `orders x-api-key` → `ORDERS_X_API_KEY`.
fn variable(words: &str) -> String {
    let mut out = String::new();
    for c in words.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => out.push(c.to_ascii_uppercase()),
            _ if !out.is_empty() && !out.ends_with('_') => out.push('_'),
            _ => {}
        }
    }
    let out = out.trim_end_matches('_');
    match out.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => out.to_owned(),
        _ => format!("SECRET_{out}").trim_end_matches('_').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, SECTIONS};
    use super::*;

    fn exported() -> Export {
        let mut export = Export::default();
        let node = |json: &str| Node::from_json(json).unwrap();
        let types = r#"{"name":"a.b","description":"line\none \"two\"","example":{"n":null,"big":12345678901234567890123},"deprecated":false}"#;
        export.add(SECTIONS[0], vec![node(types)], true);
        let second = r#"{"name":"z","url":"https://z","events":["*"],"enabled":true,"headers":{"x-key":"***"}}"#;
        let first = r#"{"name":"Orders (é)","url":"https://a/?b=\\c","events":["order.*"],"enabled":false,
            "headers":{"x key":"***","a.b":"***"},"auth":{"type":"basic","username":"u","password":"***"},
            "retry":{"waits":[0.5,10],"jitter":0,"retry_after":{"statuses":[429]}},"payload":{"mode":"thin"}}"#;
        export.add(SECTIONS[2], vec![node(second), node(first)], true);
        export
    }

    #[test]
    fn what_is_printed_is_what_is_read() {
        let export = exported();
        let variable = |name: &str| Some(format!("value of {name}"));
        let read = |format| {
            let text = export.to_text(format);
            Document::read(&text, format, &variable).unwrap_or_else(|wrong| panic!("{wrong:?} in {text}")).root
        };
        let (toml, json) = (read(Format::Toml), read(Format::Json));
        assert_eq!(toml, json);
        let at = |pointer: &str| toml.at_pointer(pointer).map(Node::to_json).unwrap_or_default();
        assert_eq!(at("/event_types/0/example"), r#"{"n":null,"big":12345678901234567890123}"#);
        assert_eq!(at("/webhooks/0/auth/password"), "\"value of ORDERS_PASSWORD\"");
        assert_eq!(at("/webhooks/0/headers/x key"), "\"value of ORDERS_X_KEY\"");
        assert_eq!(at("/webhooks/1/secret"), "\"value of Z_SECRET\"");
        assert_eq!((at("/webhooks/0/enabled"), at("/webhooks/1/enabled")), ("false".into(), String::new()));
        assert!(!export.to_text(Format::Toml).contains(MASK));
        let variables: Vec<_> = export.variables().collect();
        assert_eq!(
            variables,
            ["ORDERS_A_B", "ORDERS_PASSWORD", "ORDERS_SECRET", "ORDERS_X_KEY", "Z_SECRET", "Z_X_KEY"]
        );
    }

    #[test]
    fn variables_have_names_of_their_own() {
        let mut export = Export::default();
        let row = Node::from_json(r#"{"name":"1","headers":{"a-b":"***","a_b":"***","é":"***"}}"#).unwrap();
        export.add(SECTIONS[2], vec![row], true);
        let variables: Vec<_> = export.variables().collect();
        assert_eq!(variables, ["SECRET_1", "SECRET_1_A_B", "SECRET_1_A_B_2", "SECRET_1_SECRET"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back(text in "[\\x00-\\x7f\u{80}-\u{a0}éß✓]{0,30}") {
            let line = format!("a = {}\n", quoted(&text));
            proptest::prop_assert_eq!(line.lines().count(), 1);
            let read = Node::from_toml(&line).unwrap();
            proptest::prop_assert_eq!(read.get("a").and_then(Node::as_text), Some(text.as_str()));
        }
    }
}
