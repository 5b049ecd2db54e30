//! The OpenAPI document as HTML.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Methods in the order they are shown.
const METHODS: [&str; 6] = ["get", "post", "put", "patch", "delete", "head"];
/// Answers every operation has for reasons that are not its own; told once.
const COMMON: [&str; 10] = ["400", "401", "403", "408", "413", "414", "415", "429", "431", "500"];

/// A text that is only text in HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A description: what stands between backticks is code, an empty line ends a paragraph.
fn prose(text: &str) -> String {
    let mut out = String::new();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let _ = write!(out, "<p>{}</p>", inline(paragraph));
    }
    out
}

fn inline(text: &str) -> String {
    let parts: Vec<_> = text.split('`').collect();
    // An odd backtick out is just that.
    let code = parts.len() % 2 == 1;
    let mut out = String::new();
    for (index, part) in parts.iter().enumerate() {
        match (index % 2 == 1, code) {
            (true, true) => drop(write!(out, "<code>{}</code>", escaped(part))),
            (true, false) => drop(write!(out, "`{}", escaped(part))),
            _ => out.push_str(&escaped(part)),
        }
    }
    out
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

struct Operation<'d> {
    method: &'d str,
    path: &'d str,
    value: &'d Value,
}

impl Operation<'_> {
    fn id(&self) -> &str {
        text(self.value, "operationId")
    }
}

/// The whole page.
pub(super) fn page(document: &Value, style: &str) -> String {
    let title = escaped(text(&document["info"], "title"));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} API</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{style}</style></head><body>"
    );
    let groups = groups(document);
    navigation(&mut out, document, &groups);
    let _ = write!(out, "<main><h1>{title} API</h1>{}", prose(text(&document["info"], "description")));
    let version = escaped(text(&document["info"], "version"));
    let _ = write!(
        out,
        "<p class=\"dim\">Version {version}. For programs: <a href=\"/openapi.json\">openapi.json</a>.</p>{}",
        prose(
            "Every call of `/v1` needs `Authorization: Bearer <key>`. Every error is `application/problem+json` with \
             a `code`; a 422 lists every wrong member by its JSON pointer. These answers are possible everywhere and \
             not repeated below: 400 malformed, 401 no valid key, 403 missing scope, 408, 413, 414, 415, 431 what was \
             sent cannot be taken, 429 later, 500 our fault."
        )
    );
    for (tag, description, operations) in &groups {
        let _ = write!(out, "<h2 id=\"{}\">{}</h2>{}", tag_id(tag), escaped(&capital(tag)), prose(description));
        operations.iter().for_each(|operation| show_operation(&mut out, operation));
    }
    show_sent(&mut out, document);
    show_schemas(&mut out, document);
    out.push_str("</main></body></html>\n");
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn tag_id(tag: &str) -> String {
    format!("tag-{}", tag.replace(' ', "-"))
}

type Group<'d> = (&'d str, &'d str, Vec<Operation<'d>>);

/// Operations by tag, in the order of the tags; those of no tag the document describes come last.
fn groups(document: &Value) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for tag in document["tags"].as_array().into_iter().flatten() {
        groups.push((text(tag, "name"), text(tag, "description"), Vec::new()));
    }
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            let Some(value) = item.get(method) else { continue };
            let tag = value["tags"][0].as_str().unwrap_or("other");
            let index = groups.iter().position(|(name, ..)| *name == tag).unwrap_or_else(|| {
                groups.push((tag, "", Vec::new()));
                groups.len() - 1
            });
            groups[index].2.push(Operation { method, path, value });
        }
    }
    groups.retain(|(_, _, operations)| !operations.is_empty());
    groups
}

fn navigation(out: &mut String, document: &Value, groups: &[Group<'_>]) {
    out.push_str("<nav aria-label=\"Contents\">");
    for (tag, _, operations) in groups {
        let _ = write!(out, "<h2><a href=\"#{}\">{}</a></h2><ul>", tag_id(tag), escaped(&capital(tag)));
        for operation in operations {
            let summary = escaped(text(operation.value, "summary"));
            let _ = write!(out, "<li><a href=\"#{}\">{summary}</a></li>", escaped(operation.id()));
        }
        out.push_str("</ul>");
    }
    out.push_str("<h2><a href=\"#sent\">What receivers get</a></h2><ul>");
    for name in document["webhooks"].as_object().into_iter().flatten().map(|(name, _)| escaped(name)) {
        let _ = write!(out, "<li><a href=\"#sent-{name}\">{name}</a></li>");
    }
    out.push_str("</ul><h2><a href=\"#schemas\">Schemas</a></h2><ul>");
    for name in schemas(document).map(|(name, _)| escaped(name)) {
        let _ = write!(out, "<li><a href=\"#schema-{name}\">{name}</a></li>");
    }
    out.push_str("</ul></nav>");
}

fn show_operation(out: &mut String, operation: &Operation<'_>) {
    let (method, value) = (operation.method, operation.value);
    let id = escaped(operation.id());
    let _ = write!(
        out,
        "<section aria-labelledby=\"{id}\"><h3 id=\"{id}\">{}</h3><div class=\"call\"><span class=\"method {method}\">{}</span>\
         <code>{}</code></div>{}",
        escaped(text(value, "summary")),
        method.to_uppercase(),
        escaped(operation.path),
        prose(text(value, "description"))
    );
    show_parameters(out, value);
    show_body(out, value);
    show_responses(out, value);
    out.push_str("</section>");
}

fn show_parameters(out: &mut String, operation: &Value) {
    let Some(parameters) = operation["parameters"].as_array().filter(|list| !list.is_empty()) else { return };
    out.push_str(
        "<h4>Parameters</h4><table><thead><tr><th>name</th><th>in</th><th>type</th><th></th></tr></thead><tbody>",
    );
    for parameter in parameters {
        let required = parameter["required"] == true && parameter["in"] != "path";
        let _ = write!(
            out,
            "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(text(parameter, "name")),
            if required { " <span class=\"req\">required</span>" } else { "" },
            escaped(text(parameter, "in")),
            kind(&parameter["schema"]),
            inline(text(parameter, "description"))
        );
    }
    out.push_str("</tbody></table>");
}

fn show_body(out: &mut String, operation: &Value) {
    let Some(body) = operation.get("requestBody") else { return };
    let optional = if body["required"] == true { "" } else { " (may be empty)" };
    let _ = write!(out, "<h4>Body{optional}</h4>{}", content(&body["content"]));
}

/// What a body can be, by content type.
fn content(content: &Value) -> String {
    let mut out = String::new();
    for (media, form) in content.as_object().into_iter().flatten() {
        let _ = write!(out, "<p><code>{}</code> {}</p>", escaped(media), kind(&form["schema"]));
    }
    out
}

fn show_responses(out: &mut String, operation: &Value) {
    let Some(responses) = operation["responses"].as_object() else { return };
    out.push_str("<h4>Answers</h4><table><tbody>");
    for (status, response) in responses.iter().filter(|(status, _)| !COMMON.contains(&status.as_str())) {
        let forms = response["content"].as_object().into_iter().flatten();
        let forms: Vec<_> = forms.map(|(_, form)| kind(&form["schema"])).filter(|kind| !kind.is_empty()).collect();
        let _ = write!(
            out,
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            escaped(status),
            inline(text(response, "description")),
            forms.join(" or ")
        );
    }
    out.push_str("</tbody></table>");
}

fn show_sent(out: &mut String, document: &Value) {
    out.push_str("<h2 id=\"sent\">What receivers get</h2>");
    for (name, item) in document["webhooks"].as_object().into_iter().flatten() {
        let value = &item["post"];
        let _ = write!(
            out,
            "<section><h3 id=\"sent-{}\">{}</h3>{}",
            escaped(name),
            inline(text(value, "summary")),
            prose(text(value, "description"))
        );
        show_parameters(out, value);
        show_body(out, value);
        for form in value["requestBody"]["content"].as_object().into_iter().flatten().map(|(_, form)| form) {
            show_members(out, &form["schema"]);
        }
        show_responses(out, value);
        out.push_str("</section>");
    }
}

fn schemas(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    document["components"]["schemas"].as_object().into_iter().flatten()
}

fn show_schemas(out: &mut String, document: &Value) {
    out.push_str("<h2 id=\"schemas\">Schemas</h2>");
    for (name, schema) in schemas(document) {
        let name = escaped(name);
        let _ = write!(out, "<section><h3 id=\"schema-{name}\">{name}</h3>{}", prose(text(schema, "description")));
        if schema.get("properties").is_none() {
            let _ = write!(out, "<p>{}</p>", kind(schema));
        }
        show_members(out, schema);
        out.push_str("</section>");
    }
}

/// The members of an object, those of its parts included.
fn show_members(out: &mut String, schema: &Value) {
    let parts = schema["allOf"].as_array().map_or(&[][..], Vec::as_slice);
    let all: Vec<&Value> = std::iter::once(schema).chain(parts).filter(|part| part["properties"].is_object()).collect();
    if all.is_empty() {
        return;
    }
    out.push_str("<table><tbody>");
    for part in all {
        let required =
            |name: &str| part["required"].as_array().is_some_and(|list| list.iter().any(|item| item == name));
        for (name, member) in part["properties"].as_object().into_iter().flatten() {
            let _ = write!(
                out,
                "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}</td></tr>",
                escaped(name),
                if required(name) { " <span class=\"req\">required</span>" } else { "" },
                kind(member),
                inline(description(member))
            );
        }
    }
    out.push_str("</tbody></table>");
}

/// What is said of a member: by itself, or by the one thing it can be.
fn description(member: &Value) -> &str {
    let own = text(member, "description");
    let parts = ["oneOf", "anyOf"].iter().filter_map(|name| member[*name].as_array()).flatten();
    if own.is_empty() {
        parts.map(|part| text(part, "description")).find(|said| !said.is_empty()).unwrap_or("")
    } else {
        own
    }
}

/// A type in words, with its bounds; schemas with a name are links.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|target| target.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for (word, join) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        if let Some(parts) = schema[word].as_array() {
            return parts.iter().map(kind).collect::<Vec<_>>().join(join);
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words.iter().map(|word| format!("<code>{}</code>", escaped(&shown(word)))).collect();
        return words.join(" | ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return if schema.get("properties").is_some() { "object".into() } else { "any JSON".into() },
    };
    let types: Vec<_> = types.into_iter().map(|name| one(name, schema)).collect();
    let bounds = bounds(schema.as_object());
    if bounds.is_empty() {
        types.join(" or ")
    } else {
        format!("{} <span class=\"dim\">{bounds}</span>", types.join(" or "))
    }
}

fn one(name: &str, schema: &Value) -> String {
    match name {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        other => escaped(other),
    }
}

fn bounds(schema: Option<&Map<String, Value>>) -> String {
    let Some(schema) = schema else { return String::new() };
    let get = |name: &str| schema.get(name).map(shown);
    let range = |low: &str, high: &str, of: &str| match (get(low), get(high)) {
        (Some(low), Some(high)) => Some(format!("{low} to {high}{of}")),
        (Some(low), None) => Some(format!("at least {low}{of}")),
        (None, Some(high)) => Some(format!("at most {high}{of}")),
        (None, None) => None,
    };
    let mut bounds: Vec<String> = [
        range("minimum", "maximum", ""),
        range("minLength", "maxLength", " characters"),
        range("minItems", "maxItems", " items"),
    ]
    .into_iter()
    .flatten()
    .collect();
    bounds.extend(get("default").filter(|text| text != "null").map(|text| format!("default {text}")));
    escaped(&bounds.join(", "))
}

/// A value as it is written, texts without quotes.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_only_text() {
        let document = json!({
            "info": {"title": "<b>", "description": "a `<i>` & \"b\"\n\nc `odd"},
            "tags": [{"name": "t", "description": "d"}],
            "paths": {"/x/{y}": {"post": {
                "operationId": "doIt", "tags": ["t"], "summary": "Do <it>",
                "parameters": [{"name": "q", "in": "query", "required": true, "schema": {"type": "integer", "minimum": 1}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/S"}}}},
                "responses": {"200": {"description": "ok"}, "500": {"description": "no"}},
            }}},
            "components": {"schemas": {"S": {"type": "object", "required": ["a"], "properties": {
                "a": {"type": ["array", "null"], "items": {"enum": ["x", "<y>"]}},
                "b": {"oneOf": [{"$ref": "#/components/schemas/S", "description": "again"}, {"type": "null"}]},
            }}}},
        });
        let html = page(&document, "");
        assert!(
            !html.contains("<b>") && !html.contains("<i>") && !html.contains("<it>") && !html.contains("<y>"),
            "{html}"
        );
        for part in [
            "<code>&lt;i&gt;</code>",
            "<p>c `odd</p>",
            "id=\"doIt\"",
            "at least 1",
            "(may be empty)",
            "<a href=\"#schema-S\">S</a> or null",
            "list of <code>x</code> | <code>&lt;y&gt;</code>",
            "again",
        ] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
        assert!(!html.contains("<code>500</code>"));
    }
}
