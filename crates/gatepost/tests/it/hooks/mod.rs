//! Blocking hooks end to end: real receivers, the real binary, every form of answer and every way to
//! fail. Names say which behaviour of the specification a test is for.

mod answers;
mod budget;
mod chain;
mod command_line;
mod failures;
mod manage;
mod numbers;
mod outcomes;
mod promises;
mod rails;
mod repeats;
mod samples;
mod secrets;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use gatepost_testkit::{Cert, Gate, Received, Receiver, Script, TestCa};
use serde_json::{Value, json};

use crate::harness::{Options, Reply, Server, receiver, text, wait_until};

/// A tenant with a receiver.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) receiver: Receiver,
}

pub(super) const TENANT: &str = "acme";

/// A user as most questions here have it.
pub(super) fn user() -> Value {
    json!({"login": "ada", "firstName": "Ada", "country": "India", "department": "R&D", "mobile": "123"})
}

/// A question about that user.
pub(super) fn question() -> Value {
    json!({"subject": {"type": "user", "id": "u1"}, "object": {"user": user()}})
}

/// Answers in the native dialect: `make` says what, the invocation's id is echoed.
pub(super) fn native(make: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Script {
    Script::with(move |request: &Received| {
        let question: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let mut answer = make(&question);
        if let (Some(answer), Some(id)) = (answer.as_object_mut(), question.get("id")) {
            answer.entry("id").or_insert(id.clone());
        }
        Script::status(200).header("content-type", "application/json").body(answer.to_string())
    })
}

/// Allows, in the native dialect.
pub(super) fn allow() -> Script {
    native(|_| json!({"decision": "allow"}))
}

/// Refuses with a code, in the native dialect.
pub(super) fn deny(code: &'static str) -> Script {
    native(move |_| json!({"decision": "deny", "messages": [{"code": code}]}))
}

/// This body, whatever was asked.
pub(super) fn body(text: &str) -> Script {
    Script::status(200).header("content-type", "application/json").body(text.to_owned())
}

impl Stage {
    pub(super) fn new() -> Stage {
        Stage::with(Options::default())
    }

    pub(super) fn with(options: Options) -> Stage {
        let server = Server::with(options);
        server.create_tenant(TENANT);
        Stage { server, receiver: receiver() }
    }

    /// Over TLS, with an authority the server trusts: the guard must live as long.
    pub(super) fn secure(options: Options) -> (Stage, tempfile::NamedTempFile) {
        let ca = TestCa::new();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), ca.pem()).expect("written");
        let server = Server::with(options.env("GATEPOST_EXTRA_CA", file.path().display()));
        server.create_tenant(TENANT);
        let receiver = Receiver::builder().tls(&ca, Cert::Good).start_on_thread();
        (Stage { server, receiver }, file)
    }

    /// Registers a hook at `path` of the receiver, enforced, with members replaced or added. The
    /// receiver must pass the probe at that moment; `answer` is what it does from then on.
    #[track_caller]
    pub(super) fn hook_at(&self, path: &str, point: &str, overrides: Value, answer: Script) -> Value {
        self.receiver.script_path(path, body("{}"));
        let cymmetri = overrides["profile"] == "cymmetri";
        if cymmetri {
            self.receiver.script_path(&format!("{path}/test"), body("{\"response\":{}}"));
        }
        let hook = self.register(&self.receiver.url(path), point, overrides);
        let own = if cymmetri { format!("{path}/{point}") } else { path.to_owned() };
        self.receiver.script_path(&own, answer);
        hook
    }

    /// The same at a path of its own, made of its name.
    #[track_caller]
    pub(super) fn hook(&self, name: &str, point: &str, overrides: Value, answer: Script) -> String {
        let mut overrides = overrides;
        overrides["name"] = json!(name);
        text(&self.hook_at(&format!("/{name}"), point, overrides, answer), "id")
    }

    /// Registers an enforced hook with this url.
    #[track_caller]
    pub(super) fn register(&self, url: &str, point: &str, overrides: Value) -> Value {
        self.try_register(url, point, overrides).expect(201).json()
    }

    #[track_caller]
    pub(super) fn try_register(&self, url: &str, point: &str, overrides: Value) -> Reply {
        let mut hook = json!({"name": "test", "point": point, "url": url, "mode": "enforce"});
        if let (Some(hook), Value::Object(overrides)) = (hook.as_object_mut(), overrides) {
            hook.extend(overrides);
        }
        self.server.post(&format!("/v1/tenants/{TENANT}/hooks"), hook)
    }

    /// Changes a hook.
    #[track_caller]
    pub(super) fn patch(&self, hook: &str, patch: Value) -> Reply {
        self.server.patch(&format!("/v1/tenants/{TENANT}/hooks/{hook}"), patch)
    }

    #[track_caller]
    pub(super) fn show(&self, hook: &str) -> Value {
        self.server.get(&format!("/v1/tenants/{TENANT}/hooks/{hook}")).expect(200).json()
    }

    #[track_caller]
    pub(super) fn ask_with(&self, path: &str, headers: &[(&str, &str)], question: Value) -> Reply {
        self.server.send("POST", &format!("/v1/tenants/{TENANT}/{path}/invoke"), headers, question)
    }

    /// The decision of a point.
    #[track_caller]
    pub(super) fn ask(&self, point: &str, question: Value) -> Value {
        self.ask_with(&format!("points/{point}"), &[], question).expect(200).json()
    }

    /// The decision of an operation.
    #[track_caller]
    pub(super) fn operate(&self, operation: &str, question: Value) -> Value {
        self.ask_with(&format!("operations/{operation}"), &[], question).expect(200).json()
    }

    /// The record of a decision.
    #[track_caller]
    pub(super) fn record(&self, decision: &Value) -> Value {
        let id = text(decision, "id");
        self.server.get(&format!("/v1/tenants/{TENANT}/invocations/{id}")).expect(200).json()
    }

    /// Waits for the trials of a decision.
    #[track_caller]
    pub(super) fn trials(&self, decision: &Value, count: usize) -> Vec<Value> {
        wait_until("trials", || {
            let record = self.record(decision);
            let trials = record["trials"].as_array().cloned().unwrap_or_default();
            (trials.len() >= count).then_some(trials)
        })
    }

    /// What the receiver got at a path.
    pub(super) fn asked_at(&self, path: &str) -> Vec<Received> {
        self.receiver.received().into_iter().filter(|request| request.path == path).collect()
    }
}

/// What matters of a decision in a table.
pub(super) fn verdict(decision: &Value) -> (&str, &str) {
    (decision["decision"].as_str().unwrap_or("?"), decision["cause"].as_str().unwrap_or("?"))
}

/// What a script does with this very request.
fn resolved(script: &Script, request: &Received) -> Script {
    match script {
        Script::With(decide) => decide(request),
        other => other.clone(),
    }
}

/// These, one request each; then 500.
pub(super) fn by_turns(answers: Vec<Script>) -> Script {
    let answers = Arc::new(std::sync::Mutex::new(answers.into_iter()));
    Script::with(move |request| {
        let next = answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
        next.map_or_else(|| Script::status(500), |script| resolved(&script, request))
    })
}

/// The same, once the gate is open.
pub(super) fn held(script: Script, gate: &Gate) -> Script {
    let gate = gate.clone();
    Script::with(move |request| resolved(&script, request).behind(&gate))
}

/// The same, later.
pub(super) fn later(script: Script, ms: u64) -> Script {
    Script::with(move |request| resolved(&script, request).after(millis(ms)))
}

pub(super) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
