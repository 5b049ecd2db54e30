//! What operators' tools ask: health, readiness, metrics, the description.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Server, receiver};

#[test]
fn health_readiness_metrics_and_description_need_no_key_and_change_nothing() {
    let server = Server::start();
    server.create_tenant("acme");
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        let [one, two] = [(), ()].map(|()| server.send("GET", path, &[("authorization", "")], ()).expect(200));
        if path != "/metrics" {
            assert_eq!(one.body, two.body, "{path}");
        }
        // Even a bad key is no matter here.
        server.send("GET", path, &[("authorization", "Bearer wrong")], ()).expect(200);
        let head = server.send("HEAD", path, &[("authorization", "")], ());
        assert!(head.status == 200 && head.body.is_empty(), "{path}: {head:?}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).header("content-type"), Some("application/json"));
        assert_eq!(server.get(path).json()["status"], "ok");
    }
}

#[test]
fn the_description_is_the_documented_one_and_tells_the_truth_about_routes() {
    let server = Server::start();
    let served = server.get("/openapi.json").expect(200);
    assert_eq!(served.header("content-type"), Some("application/json"));
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let kept: Value =
        serde_json::from_str(&std::fs::read_to_string(docs.join("openapi.json")).expect("docs/openapi.json"))
            .expect("JSON");
    let served = served.json();
    assert!(served == kept, "docs/openapi.json is not what /openapi.json serves");
    assert!(served["openapi"].as_str().is_some_and(|v| v.starts_with("3.1")));
    let mut ids = HashSet::new();
    for (path, item) in served["paths"].as_object().expect("paths") {
        for (method, operation) in item
            .as_object()
            .expect("operations")
            .iter()
            .filter(|(m, _)| ["get", "put", "post", "patch", "delete"].contains(&m.as_str()))
        {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no operationId"));
            assert!(ids.insert(id.to_owned()), "{id} twice");
        }
    }
    for (path, method) in [
        ("/v1/tenants", "get"),
        ("/v1/tenants/{tenant}", "put"),
        ("/v1/tenants/{tenant}/webhooks/{webhook}/rotate-secret", "post"),
        ("/v1/tenants/{tenant}/events/batch", "post"),
        ("/v1/tenants/{tenant}/deliveries/{delivery}/cancel", "post"),
        ("/v1/event-types/{name}", "delete"),
        ("/v1/keys", "post"),
        ("/healthz", "get"),
        ("/metrics", "get"),
    ] {
        assert!(served["paths"][path][method].is_object(), "{method} {path}");
    }
    // The list of error codes is published too.
    let errors = std::fs::read_to_string(docs.join("errors.md")).expect("docs/errors.md");
    for code in ["malformed_json", "validation_failed", "batch_too_large", "event_id_conflict", "store_unavailable"] {
        assert!(errors.contains(&format!("`{code}`")), "{code}");
    }
}

/// The names of a line's labels and its value: `name{a="b",c="d"} 1`.
fn sample(line: &str) -> Option<(String, Vec<String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else { return Some((series.to_owned(), Vec::new(), value)) };
    let mut rest = labels.strip_suffix('}')?;
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (label, tail) = rest.split_once("=\"")?;
        names.push(label.to_owned());
        let end = tail.find('"')?;
        rest = tail[end + 1..].strip_prefix(',').unwrap_or(&tail[end + 1..]);
    }
    Some((name.to_owned(), names, value))
}

#[test]
fn metrics_are_wellformed_and_hold_nothing_of_a_tenant() {
    let server = Server::start();
    server.create_tenant("acme-tenant");
    let to = receiver();
    let webhook = server.webhook("acme-tenant", &to.url("/"), json!({}));
    let event = server.publish("acme-tenant", "my.secret.type", json!({}));
    server.wait_event("acme-tenant", &event, "delivered");
    server.get("/v1/nowhere-at-all").expect(404);
    server.send("BREW", "/v1/tenants", &[], ()).expect(405);
    let reply = server.get("/metrics").expect(200);
    assert!(
        reply
            .header("content-type")
            .is_some_and(|t| t.starts_with("application/openmetrics-text") || t.starts_with("text/plain"))
    );
    let text = reply.text();
    for foreign in ["acme-tenant", &webhook, &event, "my.secret.type", "nowhere-at-all", "BREW"] {
        assert!(!text.contains(foreign), "{foreign} is in the metrics");
    }
    let mut findings = Findings::default();
    let (mut families, mut series) = (HashSet::new(), HashSet::new());
    let mut ended = false;
    for line in text.lines() {
        findings.check(!ended, format!("after # EOF: {line}"));
        if line == "# EOF" {
            ended = true;
        } else if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (kind, name, what) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
            findings.check(["gatepost_", "process_"].iter().any(|p| name.starts_with(p)), format!("a prefix: {line}"));
            findings.check(!what.is_empty(), line);
            match kind {
                Some("TYPE") => findings.check(families.insert(name.to_owned()), format!("twice: {line}")),
                Some("HELP" | "UNIT") => {}
                _ => findings.check(false, line),
            }
        } else {
            let Some((name, labels, _)) = sample(line) else {
                findings.check(false, format!("not a sample: {line}"));
                continue;
            };
            let base = ["_total", "_bucket", "_sum", "_count", "_info"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(&name);
            findings.check(families.contains(base) || families.contains(&name), format!("no TYPE before: {line}"));
            findings.check(
                labels.iter().all(|l| !["tenant", "webhook", "event", "path", "url"].contains(&l.as_str())),
                format!("labels: {line}"),
            );
            let at = line.rsplit_once(' ').map_or(line, |(at, _)| at);
            findings.check(series.insert(at.to_owned()), format!("twice: {line}"));
        }
    }
    findings.check(ended, "ends with # EOF");
    findings.none();
}

#[test]
fn every_answer_is_named_and_none_is_cached() {
    let server = Server::start();
    for path in ["/healthz", "/v1/tenants", "/v1/nowhere"] {
        let [one, two] = [(), ()].map(|()| server.get(path));
        let id = |r: &crate::harness::Reply| r.header("x-request-id").map(str::to_owned);
        assert!(id(&one).is_some() && id(&one) != id(&two), "{path}");
        assert_eq!(one.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let given = server.send("GET", "/v1/tenants", &[("x-request-id", "mine-1")], ());
    assert_eq!(given.header("x-request-id"), Some("mine-1"));
}
