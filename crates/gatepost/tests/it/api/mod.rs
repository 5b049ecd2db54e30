//! The HTTP API, route by route, through the real binary.
//!
//! Written from the design's text, not from the code: what a table here says is what was promised
//! to callers. Tables collect what is wrong ([`Findings`]) and complain once, about all of it.

mod access;
mod bad_input;
mod bad_values;
mod batches;
mod catalogue;
mod cloudevents;
mod deliveries;
mod endpoint_auth;
mod erasure;
mod events;
mod feed;
mod health;
mod idempotency;
mod keys;
mod limits;
mod lists;
mod matching;
mod operations;
mod ordering;
mod own_events;
mod payload_and_signing;
mod quotas;
mod replay;
mod secrets;
mod stream;
mod tenant_settings;
mod tenant_types;
mod tenants;
mod verification;
mod webhook_members;
mod webhook_rules;
mod webhooks;
mod wire_format;

use std::fmt::Display;

use serde_json::Value;

use crate::harness::{Reply, Server};

/// What was found wrong, so that one run of a table shows all of it.
#[derive(Default)]
pub(crate) struct Findings(Vec<String>);

impl Findings {
    /// Notes `what` unless `right`.
    pub(crate) fn check(&mut self, right: bool, what: impl Display) {
        if !right {
            self.0.push(what.to_string());
        }
    }

    /// Notes an answer whose status is another.
    pub(crate) fn status(&mut self, what: impl Display, reply: &Reply, status: u16) {
        self.check(reply.status == status, format_args!("{what}: wanted {status}, got {reply:?}"));
    }

    /// Notes an answer that is not exactly this problem. Pointers are compared as sets.
    pub(crate) fn problem(&mut self, what: impl Display, reply: &Reply, status: u16, code: &str, pointers: &[&str]) {
        if let Err(complaint) = judge(reply, status, code, pointers) {
            self.0.push(format!("{what}: {complaint}\n    wanted {status} {code} {pointers:?}\n    got    {reply:?}"));
        }
    }

    /// Ends the table.
    #[track_caller]
    pub(crate) fn none(self) {
        assert!(self.0.is_empty(), "{} findings:\n{}", self.0.len(), self.0.join("\n"));
    }
}

fn judge(reply: &Reply, status: u16, code: &str, pointers: &[&str]) -> Result<(), String> {
    if reply.status != status {
        return Err("the status differs".into());
    }
    if reply.header("content-type") != Some("application/problem+json") {
        return Err(format!("the content type is {:?}", reply.header("content-type")));
    }
    let problem: Value = serde_json::from_slice(&reply.body).map_err(|e| e.to_string())?;
    for member in ["type", "title", "detail", "code"] {
        if problem[member].as_str().is_none_or(str::is_empty) {
            return Err(format!("no text in {member}"));
        }
    }
    if problem["status"] != status || problem["code"] != code {
        return Err("status or code in the body differ".into());
    }
    if code == "malformed_json" && (problem["line"].as_u64().is_none() || problem["column"].as_u64().is_none()) {
        return Err("no line and column".into());
    }
    let mut found: Vec<&str> = Vec::new();
    for error in problem["errors"].as_array().into_iter().flatten() {
        if error["message"].as_str().is_none_or(str::is_empty) {
            return Err("an error without a message".into());
        }
        found.push(error["pointer"].as_str().ok_or("an error without a pointer")?);
    }
    found.sort_unstable();
    let mut wanted = pointers.to_vec();
    wanted.sort_unstable();
    if found == wanted { Ok(()) } else { Err(format!("the pointers are {found:?}")) }
}

/// A text as it stands in a query.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The names of an object's members, sorted.
#[track_caller]
pub(crate) fn members(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// The texts in one member of every row.
#[track_caller]
pub(crate) fn column(rows: &[Value], member: &str) -> Vec<String> {
    rows.iter().map(|row| crate::harness::text(row, member)).collect()
}

/// The reason the trace gives for each webhook.
pub(crate) fn reason(event: &Value, webhook: &str) -> Option<String> {
    let row = event["matching"].as_array()?.iter().find(|row| row["webhook_id"] == webhook)?;
    Some(row["reason"].as_str()?.to_owned())
}

/// Every route of the description: method (in capitals) and path template.
pub(crate) fn routes(server: &Server) -> Vec<(String, String)> {
    let document = server.get("/openapi.json").expect(200).json();
    let paths = document["paths"].as_object().expect("the document has paths");
    let mut routes = Vec::new();
    for (path, item) in paths {
        for method in ["get", "put", "post", "patch", "delete"] {
            if item.get(method).is_some() {
                routes.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    assert!(routes.len() >= 25, "the description lists the routes: {routes:?}");
    routes
}

/// A path of a template: this tenant, and ids of nothing.
pub(crate) fn filled(template: &str, tenant: &str) -> String {
    template
        .replace("{tenant}", tenant)
        .replace("{webhook}", "wh_00000000000000000000000000")
        .replace("{event}", "evt_00000000000000000000000000")
        .replace("{delivery}", "dlv_00000000000000000000000000")
        .replace("{job}", "job_00000000000000000000000000")
        .replace("{subject}", "nobody")
        .replace("{key}", "key_00000000000000000000000000")
        .replace("{hook}", "hook_00000000000000000000000000")
        .replace("{invocation}", "inv_00000000000000000000000000")
        .replace("{job}", "job_00000000000000000000000000")
        .replace("{name}", "no.such.type")
}
