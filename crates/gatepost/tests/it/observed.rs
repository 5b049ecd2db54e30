//! What operators see has one list each, and the lists are true: log fields and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gatepost_testkit::Script;
use serde_json::json;

use crate::harness::{Server, receiver};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every source of what is shipped, without its unit tests.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "simulation" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            found.push((path, code));
        }
    }
}

/// The arguments of a macro call, at commas that stand in no bracket and no text.
fn arguments(call: &str) -> Vec<String> {
    let (mut parts, mut depth, mut in_text) = (vec![String::new()], 0, false);
    let mut chars = call.chars();
    while let Some(c) = chars.next() {
        let last = parts.last_mut().unwrap();
        match c {
            '\\' if in_text => {
                last.push(c);
                last.extend(chars.next());
                continue;
            }
            '"' => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text && depth == 0 => break,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        last.push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The names of the fields of a log call: everything before its message.
fn fields(call: &str) -> Vec<String> {
    let named = arguments(call).into_iter().take_while(|argument| !argument.starts_with('"'));
    named.map(|argument| argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned()).collect()
}

#[test]
fn the_reading_of_log_calls_finds_their_fields() {
    let call =
        "%error, tenant = %route.tenant.id, n = f(\"a, b\", [1, 2]), ?kind, \"lost {error}, (again\", x = 1) + 1";
    assert_eq!(fields(call), ["error", "tenant", "n", "kind"]);
    assert!(fields("\"only {words}\", words)").is_empty());
}

#[test]
fn log_calls_use_the_fields_of_one_list() {
    let text = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let table =
        text.split("### Fields").nth(1).expect("docs/operations.md has the table").split("\n## ").next().unwrap();
    let listed: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(names, _)| names.to_owned()))
        .collect();
    let mut used: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut files = Vec::new();
    for name in ["gatepost", "gatepost-api", "gatepost-core", "gatepost-engine", "gatepost-store"] {
        sources(&root().join("crates").join(name).join("src"), &mut files);
    }
    for (path, code) in &files {
        for level in ["trace", "debug", "info", "warn", "error"] {
            for call in code.split(&format!("tracing::{level}!(")).skip(1) {
                used.extend(fields(call).into_iter().map(|field| (field, path.clone())));
            }
        }
    }
    assert!(used.len() > 20, "{used:?}");
    for (field, path) in &used {
        let file = path.display();
        assert!(
            listed.contains(field),
            "{file} logs the field {field:?}: use one of docs/operations.md (Fields), or add it there"
        );
    }
    let fixed = ["timestamp", "level", "target", "message"];
    for field in &listed {
        let known = used.contains_key(field) || fixed.contains(&field.as_str());
        assert!(known, "docs/operations.md lists the field {field:?}, which nothing logs");
    }
}

#[test]
fn the_line_of_a_change_names_whose_it_is_who_made_it_and_what_it_is() {
    let server = Server::start();
    server.create_tenant("acme");
    let made = server.post("/v1/keys", json!({"name": "k", "scopes": ["manage"], "tenant": "acme"})).expect(201).json();
    let mut client = server.client_with(made["key"].as_str().unwrap());
    let body = crate::harness::webhook_body("http://127.0.0.1:9/", json!({}));
    let webhook = client.post("/v1/tenants/acme/webhooks", body).expect(201).json();
    let id = webhook["id"].as_str().unwrap().to_owned();
    client.patch(&format!("/v1/tenants/acme/webhooks/{id}"), json!({"name": "other"})).expect(200);
    client.post("/v1/tenants/acme/subjects/usr-of-the-log/none", ()).expect(404);
    server.delete("/v1/keys/gp_no_id_but_a_key").expect(404);
    let line = |method: &str, route: &str, status: u16| {
        let said = server.wait_for_line(method, |line| {
            line.contains(&format!("\"method\":\"{method}\""))
                && line.contains(&format!("\"route\":\"{route}\""))
                && line.contains(&format!("\"status\":{status}"))
        });
        serde_json::from_str::<serde_json::Value>(&said).expect("the log is JSON here")
    };
    for (method, route, status) in
        [("POST", "/v1/tenants/{tenant}/webhooks", 201), ("PATCH", "/v1/tenants/{tenant}/webhooks/{webhook}", 200)]
    {
        let line = line(method, route, status);
        assert_eq!(
            (&line["tenant"], &line["key"], &line["object"]),
            (&json!("acme"), &made["id"], &json!(id)),
            "{line}"
        );
    }
    let tenant = line("PUT", "/v1/tenants/{tenant}", 201);
    assert_eq!((&tenant["tenant"], &tenant["key"]), (&json!("acme"), &json!("admin")), "{tenant}");
    let key = line("DELETE", "/v1/keys/{key}", 404);
    assert!(key.get("object").is_none(), "{key}");
    assert!(!server.said().contains("usr-of-the-log"));
}

/// A metric as the server describes it.
struct Described {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Reads OpenMetrics text.
fn described(text: &str) -> BTreeMap<String, Described> {
    let mut metrics: BTreeMap<String, Described> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            let help = help.trim_end_matches('.').to_owned();
            metrics.insert(current.clone(), Described { kind: String::new(), help, labels: BTreeSet::new() });
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            metrics.get_mut(name).expect("HELP comes first").kind = kind.to_owned();
        } else if let Some((_, rest)) = line.split_once('{') {
            let labels = rest.split("=\"").filter_map(|part| part.rsplit(['{', ',', '"']).next());
            let labels =
                labels.filter(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            metrics.get_mut(&current).expect("HELP comes first").labels.extend(labels.map(str::to_owned));
        }
    }
    metrics
}

/// The labels the reference has for each metric: those of a metric nothing was counted of yet are only known there.
fn labels_of(reference: &str) -> BTreeMap<String, String> {
    let rows = reference.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.nth(1)?.to_owned()))
    });
    rows.collect()
}

/// Counters as the sources register them, with what they say they count: those with labels are not served before
/// something was counted.
fn registered_counters() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    sources(&root().join("crates/gatepost-engine/src"), &mut files);
    let mut found = BTreeMap::new();
    for call in files.iter().flat_map(|(_, code)| code.split(".register(").skip(1)) {
        let quoted = |argument: &String| Some(argument.strip_prefix('"')?.strip_suffix('"')?.to_owned());
        if let [Some(name), Some(help), ..] = &*arguments(call).iter().map(quoted).collect::<Vec<_>>() {
            found.insert(format!("gatepost_{name}"), help.clone());
        }
    }
    found
}

#[test]
fn every_counter_is_there_from_the_start() {
    let server = Server::start();
    let text = server.get("/metrics").expect(200).text();
    let reference = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let mut looked_at = 0;
    for line in reference.lines().filter_map(|line| line.strip_prefix("| `")) {
        let Some((name, rest)) = line.split_once("` | ") else { continue };
        let name = if rest.starts_with("histogram") { format!("{name}_count") } else { name.to_owned() };
        let there = text.lines().any(|line| line.strip_prefix(&*name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        assert!(there, "{name} does not exist before the first of it");
        looked_at += 1;
    }
    assert!(looked_at > 40, "{looked_at}");
    // Those who read the older format are answered in it.
    let old = server.send("GET", "/metrics", &[("accept", "text/plain; version=0.0.4")], ()).expect(200);
    assert!(old.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    assert!(old.text().contains("# TYPE gatepost_attempts_total counter") && !old.text().contains("# EOF"));
    assert!(text.contains("process_start_time_seconds ") && text.contains("gatepost_build_info{version="), "{text}");
}

#[test]
fn every_metric_is_in_the_reference() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    server.webhook("acme", &inbox.url("/"), json!({}));
    let refusing = receiver();
    refusing.script(Script::status(500));
    server.webhook("acme", &refusing.url("/"), json!({"retry": {"waits": []}}));
    server.publish("acme", "user.created", json!({}));
    server.wait_settled("acme");
    let text = server.get("/metrics").expect(200).text();
    let mut metrics = described(&text);
    let registered = registered_counters();
    assert!(registered.len() > 20, "{registered:?}");
    let reference = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap_or_default();
    for (name, help) in registered {
        if !metrics.contains_key(&name) {
            let line = format!("| `{name}_total` | counter | `");
            assert!(reference.contains(&line), "docs/metrics.md must say which labels {name}_total has");
        }
        // Whatever has no labels is served from the start: this one is a counter with some.
        let counter = || Described { kind: "counter".to_owned(), help, labels: BTreeSet::new() };
        metrics.entry(name).or_insert_with(counter);
    }
    assert!(metrics.len() > 10 && metrics.values().all(|metric| !metric.kind.is_empty()), "{text}");
    for metric in metrics.values() {
        for label in &metric.labels {
            let unbounded = ["tenant", "webhook", "event", "id", "url"].contains(&label.as_str());
            assert!(!unbounded, "a label names what there is any number of: {label}");
        }
    }

    let path = root().join("docs/metrics.md");
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    let known = labels_of(&present);
    let mut reference = String::from(
        "# Metrics\n\n\
         `GET /metrics`, in the OpenMetrics text format, or in the older one where `Accept` names `text/plain` alone. Counters start\n\
         at zero with the process and are there from then on. No label names a tenant, a\n\
         webhook or anything else there is any number of. This page is checked against the server by a test.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for (name, metric) in &metrics {
        let suffix = if metric.kind == "counter" { "_total" } else { "" };
        let full = format!("{name}{suffix}");
        let seen: Vec<_> =
            metric.labels.iter().filter(|label| *label != "le").map(|label| format!("`{label}`")).collect();
        let labels = match known.get(&full) {
            Some(labels) if seen.iter().all(|label| labels.contains(label.as_str())) => labels.clone(),
            _ if seen.is_empty() => "–".to_owned(),
            _ => seen.join(", "),
        };
        writeln!(reference, "| `{full}` | {} | {labels} | {} |", metric.kind, metric.help).unwrap();
    }
    if std::env::var("UPDATE_DOCS").is_ok_and(|v| v == "1") {
        std::fs::write(&path, &reference).unwrap();
        return;
    }
    assert!(
        present == reference,
        "docs/metrics.md is not what the server has. Make it so with:\n  \
         UPDATE_DOCS=1 cargo nextest run -p gatepost --test it every_metric\nIt should be:\n{reference}"
    );
}
