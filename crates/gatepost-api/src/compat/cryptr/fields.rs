//! What a request says, however it says it: a form, JSON, or the query; the body wins.

use http::Uri;
use serde_json::Value;

use super::super::json_body;
use crate::body::Content;
use crate::problem::Problem;

/// Names and values, in order. Lists are several values of one name.
pub(super) struct Fields {
    body: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

impl Fields {
    /// Reads a request.
    ///
    /// # Errors
    /// When a JSON body is not JSON.
    pub(super) fn read(content: Content, body: &[u8], uri: &Uri) -> Result<Fields, Problem> {
        let body = match content {
            _ if body.trim_ascii().is_empty() => Vec::new(),
            Content::Form => form(body),
            _ => json_body(body)?.into_iter().flat_map(|(name, value)| values(name, value)).collect(),
        };
        Ok(Fields { body, query: form(uri.query().unwrap_or_default().as_bytes()) })
    }

    /// One value: the last of its name, as forms go.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let in_list = |list: &'_ [(String, String)]| list.iter().rposition(|(known, _)| known == name);
        match in_list(&self.body) {
            Some(at) => Some(&self.body[at].1),
            None => in_list(&self.query).map(|at| self.query[at].1.as_str()),
        }
    }

    /// A list: `name[]=a&name[]=b`, `name[0]=a`, or `name=a` alone. Empty values are none.
    pub(super) fn list(&self, name: &str) -> Option<Vec<String>> {
        let of = |list: &[(String, String)]| {
            let mut items: Vec<(usize, String)> = Vec::new();
            let mut given = false;
            for (key, value) in list {
                let Some(place) = place(key, name, items.len()) else { continue };
                given = true;
                if !value.is_empty() {
                    items.push((place, value.clone()));
                }
            }
            items.sort_by_key(|(place, _)| *place);
            let mut values: Vec<String> = Vec::with_capacity(items.len());
            for (_, value) in items {
                // Named twice is named.
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            given.then_some(values)
        };
        of(&self.body).or_else(|| of(&self.query))
    }
}

/// The place of an item, if `key` names one of the list `name`.
fn place(key: &str, name: &str, next: usize) -> Option<usize> {
    match key.strip_prefix(name)? {
        "" | "[]" => Some(next),
        index => index.strip_prefix('[')?.strip_suffix(']')?.parse().ok(),
    }
}

fn form(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// A JSON member as form values. What has no such form is its JSON text, and judged as that.
fn values(name: String, value: Value) -> Vec<(String, String)> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) if items.is_empty() => vec![(format!("{name}[]"), String::new())],
        Value::Array(items) => items.into_iter().map(|item| (format!("{name}[]"), text(item))).collect(),
        other => vec![(name, text(other))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: Content, body: &str, query: &str) -> Fields {
        let uri = format!("/x?{query}").parse().unwrap();
        Fields::read(content, body.as_bytes(), &uri).unwrap()
    }

    #[test]
    fn a_list_in_every_spelling() {
        for (body, query, codes) in [
            ("event_codes%5B%5D=all", "", Some(vec!["all"])),
            ("event_codes[]=all", "", Some(vec!["all"])),
            ("event_codes=all", "", Some(vec!["all"])),
            ("event_codes[]=a.b&event_codes[]=c.d", "", Some(vec!["a.b", "c.d"])),
            ("event_codes[1]=c.d&event_codes[0]=a.b", "", Some(vec!["a.b", "c.d"])),
            ("event_codes[]=a.b&event_codes[]=a.b", "", Some(vec!["a.b"])),
            ("event_codes[]=", "", Some(vec![])),
            ("name=x", "", None),
            ("name=x", "event_codes%5B%5D=all", Some(vec!["all"])),
            ("event_codes[]=a.b", "event_codes[]=all", Some(vec!["a.b"])),
            ("event_codes_more=x&event_codes[x]=y", "", None),
        ] {
            let list = read(Content::Form, body, query).list("event_codes");
            let list = list.as_ref().map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(list, codes, "{body} ? {query}");
        }
    }

    #[test]
    fn texts_in_forms_json_and_query() {
        let fields = read(Content::Form, "name=a+b%C3%A9&name=last", "target_url=https%3A%2F%2Fx&name=query");
        assert_eq!((fields.text("name"), fields.text("target_url")), (Some("last"), Some("https://x")));
        let body = r#"{"name":"n","event_codes":["a.b","c.d"],"target_url":null}"#;
        let fields = read(Content::Json, body, "target_url=u");
        assert_eq!((fields.text("name"), fields.text("target_url")), (Some("n"), Some("u")));
        assert_eq!(fields.list("event_codes"), Some(vec!["a.b".into(), "c.d".into()]));
        assert_eq!(read(Content::Json, r#"{"event_codes":"all"}"#, "").list("event_codes"), Some(vec!["all".into()]));
        assert_eq!(read(Content::Json, r#"{"event_codes":[]}"#, "").list("event_codes"), Some(vec![]));
        assert_eq!(read(Content::Json, "", "").text("name"), None);
        assert!(Fields::read(Content::Json, b"{", &"/".parse().unwrap()).is_err());
    }
}
