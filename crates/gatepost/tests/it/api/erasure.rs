//! One person: what is kept is erased, and who was told can be proved.

use std::path::Path;

use gatepost_testkit::{Received, Script};
use serde_json::{Value, json};

use super::replay::wait_job;
use super::{Findings, column, encoded};
use crate::harness::{Server, receiver, text, wait_until};

fn erase(server: &Server, subject: &str, query: &str) -> Value {
    let path = format!("/v1/tenants/acme/subjects/{}{query}", encoded(subject));
    let job = wait_job(server, &text(&server.delete(&path).expect(202).json(), "job_id"));
    assert_eq!((&job["state"], &job["kind"], &job["error"]), (&json!("done"), &json!("erase"), &Value::Null));
    assert_eq!(job["total"], job["done"]);
    job
}

fn told(server: &Server, subject: &str) -> Vec<Value> {
    server.all(&format!("/v1/tenants/acme/subjects/{}/deliveries", encoded(subject)))
}

fn publish(server: &Server, subject: &str, data: Value) -> String {
    let subject = json!({"type": "user", "id": subject});
    text(&server.publish_event("acme", json!({"type": "user.updated", "subject": subject, "data": data})), "id")
}

/// The words of `words` that stand in a file of the folder.
fn in_files(folder: &Path, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the data folder") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        for word in words {
            if bytes.windows(word.len()).any(|window| window == word.as_bytes()) {
                found.push(format!("{word} in {}", path.display()));
            }
        }
    }
    found
}

const SECRETS: [&str; 4] = ["MARKER-DATA", "MARKER-ATTRIBUTE", "MARKER-ANSWER", "anna@example.com"];

#[test]
fn what_is_kept_about_a_person_goes_and_the_bare_record_stays() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::with(|request: &Received| {
        let first = request.header("gatepost-attempt") == Some("1");
        let about_her = request.json()["subject"]["id"] == "anna@example.com";
        let answer = if about_her { "MARKER-ANSWER" } else { "OTHER-ANSWER" };
        Script::status(if first { 503 } else { 200 }).header("x-about", answer).body(answer)
    }));
    let retry = json!({"retry": {"waits": [0, 0], "jitter": 0, "retry_after": {"statuses": []}}});
    let webhook = server.webhook("acme", &to.url("/in"), retry);
    let person = json!({"type": "user", "id": "anna@example.com"});
    let mut events = Vec::new();
    for n in 0..30 {
        let event = json!({
            "type": "user.updated", "subject": person, "data": {"n": n, "name": "MARKER-DATA".repeat(1 + n * 40)},
            "attributes": {"ip": "MARKER-ATTRIBUTE"},
        });
        events.push(text(&server.publish_event("acme", event), "id"));
        publish(&server, "bert", json!({"n": n, "name": "OTHER-DATA"}));
    }
    server.wait_settled("acme");
    let before = server.delivery_of("acme", &events[0]);
    assert!(server.delivery("acme", &before).to_string().contains("MARKER-ANSWER"));
    assert!(!in_files(&server.data_dir(), &SECRETS).is_empty());

    assert_eq!(erase(&server, "anna@example.com", "")["total"], 30);
    assert_eq!(in_files(&server.data_dir(), &SECRETS), Vec::<String>::new());
    // The other person's are there; in how many files is up to the log's last checkpoint.
    for word in ["OTHER-DATA", "OTHER-ANSWER"] {
        assert!(!in_files(&server.data_dir(), &[word]).is_empty(), "{word} went too");
    }
    for event in &events {
        let view = server.event("acme", event);
        assert_eq!((&view["data"], &view["attributes"]), (&Value::Null, &Value::Null));
        assert_eq!((&view["type"], &view["subject"]["type"]), (&json!("user.updated"), &json!("user")));
        assert!(text(&view["subject"], "id").starts_with("erased:"), "{view:#}");
        let delivery = server.wait_event("acme", event, "delivered");
        assert_eq!(delivery["attempts"], 2, "{delivery:#}");
        for (attempt, status) in delivery["attempt_list"].as_array().expect("attempts").iter().zip([503, 200]) {
            assert_eq!(attempt["status"], status);
            assert!(attempt["response"].is_null() || attempt["response"]["body"].is_null(), "{attempt:#}");
        }
        for secret in SECRETS {
            assert!(!delivery.to_string().contains(secret) && !view.to_string().contains(secret), "{secret}");
        }
    }
    // Found by the id all the same, by whoever knows it.
    let rows = server.all("/v1/tenants/acme/deliveries?subject=anna%40example.com");
    assert_eq!(rows.len(), 30);
    assert_eq!(server.all("/v1/tenants/acme/events?subject=anna%40example.com").len(), 30);
    // It cannot be sent again, by hand or by a replay.
    let path = format!("/v1/tenants/acme/deliveries/{before}/retry");
    server.post(&path, ()).expect_problem(409, "event_erased");
    to.forget();
    let body = json!({"since": "2000-01-01T00:00:00Z", "scope": "all"});
    let job = server.post(&format!("/v1/tenants/acme/webhooks/{webhook}/replay"), body).expect(202).json();
    assert_eq!(wait_job(&server, &text(&job, "job_id"))["total"], 30, "the other person's");
    // The id is still taken.
    let again = json!({"type": "user.updated", "id": events[0], "data": 1});
    server.post("/v1/tenants/acme/events", again).expect_problem(409, "event_id_conflict");
}

#[test]
fn what_was_not_sent_never_is() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let webhook = server.webhook("acme", &to.url("/"), json!({}));
    let path = format!("/v1/tenants/acme/webhooks/{webhook}");
    to.script(Script::status(503));
    let tried = publish(&server, "anna", json!({"x": 1}));
    let delivery = server.delivery_of("acme", &tried);
    server.wait_delivery_where("acme", &delivery, "an attempt", |view| view["attempts"] == 1);
    server.patch(&path, json!({"enabled": false})).expect(200);
    erase(&server, "anna", "");
    let view = server.delivery("acme", &delivery);
    assert_eq!((&view["state"], &view["reason"]), (&json!("cancelled"), &json!("by_user")));
    to.forget();
    to.script(Script::status(200));
    server.patch(&path, json!({"enabled": true})).expect(200);
    let other = publish(&server, "bert", json!({"x": 2}));
    server.wait_event("acme", &other, "delivered");
    assert!(to.received().iter().all(|request| request.header("webhook-id") == Some(other.as_str())));
}

#[test]
fn only_the_person_named_is_erased() {
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    let event = |kind: &str| json!({"type": "a.b", "subject": {"type": kind, "id": "x/1 ü"}, "data": {"secret": kind}});
    let user = text(&server.publish_event("acme", event("user")), "id");
    let group = text(&server.publish_event("acme", event("group")), "id");
    let foreign = text(&server.publish_event("other", event("user")), "id");
    assert_eq!(erase(&server, "nobody", "")["total"], 0);
    assert_eq!(erase(&server, "x/1 ü", "?subject_type=user")["total"], 1);
    assert_eq!(server.event("acme", &user)["data"], Value::Null);
    assert_eq!(server.event("acme", &group)["data"]["secret"], "group");
    assert_eq!(server.event("other", &foreign)["data"]["secret"], "user");
    // Nothing of the job's own row names them.
    let jobs = server.get("/v1/tenants/acme/jobs").expect(200).text();
    assert!(!jobs.contains("x/1"), "{jobs}");
    let mut findings = Findings::default();
    let long = encoded(&"x".repeat(257));
    for (path, code, pointers) in [
        (format!("/v1/tenants/acme/subjects/{long}"), "validation_failed", &["{subject}"][..]),
        ("/v1/tenants/acme/subjects/u1?type=user".into(), "validation_failed", &["?type"]),
    ] {
        findings.problem(&path, &server.delete(&path), 422, code, pointers);
    }
    let read = server.create_key(&["read"], Some("acme"));
    let refused = server.client_with(&read).delete("/v1/tenants/acme/subjects/u1");
    findings.problem("a key to read with", &refused, 403, "forbidden", &[]);
    let missing = server.delete("/v1/tenants/ghost/subjects/u1");
    findings.problem("no tenant", &missing, 404, "tenant_not_found", &[]);
    findings.none();
}

#[test]
fn p2_killed_during_an_erasure_it_goes_on() {
    let mut server = Server::start();
    server.create_tenant("acme");
    for _ in 0..3 {
        let subject = json!({"type": "user", "id": "anna"});
        let event = json!({"type": "a.b", "subject": subject, "data": {"x": "MARKER-DATA"}});
        let events: Vec<Value> = (0..1_000).map(|_| event.clone()).collect();
        server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202);
    }
    let job = text(&server.delete("/v1/tenants/acme/subjects/anna").expect(202).json(), "job_id");
    wait_until("a beginning", || {
        let job = server.get(&format!("/v1/tenants/acme/jobs/{job}")).expect(200).json();
        (job["done"].as_u64()? > 0).then_some(())
    });
    server.kill9();
    server.restart();
    let job = wait_job(&server, &job);
    assert_eq!((&job["state"], &job["total"], &job["done"]), (&json!("done"), &json!(3_000), &json!(3_000)));
    assert_eq!(in_files(&server.data_dir(), &["MARKER-DATA"]), Vec::<String>::new());
}

#[test]
fn who_was_told_is_proved() {
    let server = Server::start();
    server.create_tenant("acme");
    let (good, bad) = (receiver(), receiver());
    good.next([Script::status(503)]);
    bad.script(Script::status(500).body("no"));
    let retry = json!({"waits": [0], "jitter": 0, "retry_after": {"statuses": []}});
    let first = server.webhook("acme", &good.url("/in"), json!({"name": "HR", "retry": retry}));
    let event = publish(&server, "anna", json!({"x": 1}));
    server.wait_settled("acme");
    let second = server.webhook("acme", &bad.url("/in"), json!({"name": "Payroll", "retry": {"waits": []}}));
    let later = publish(&server, "anna", json!({"x": 2}));
    publish(&server, "bert", json!({"x": 3}));
    server.wait_settled("acme");
    let rows = told(&server, "anna");
    assert_eq!(column(&rows, "event_id"), [later.clone(), later.clone(), event.clone()]);
    let oldest = &rows[2];
    assert_eq!(
        super::members(oldest),
        [
            "accepted_at",
            "attempts",
            "created_at",
            "delivery_id",
            "erased",
            "event_id",
            "event_type",
            "first_attempt_at",
            "last_attempt_at",
            "outcome",
            "reason",
            "state",
            "status",
            "timestamp",
            "updated_at",
            "url",
            "webhook_id",
            "webhook_name",
        ]
    );
    assert_eq!((&oldest["webhook_id"], &oldest["webhook_name"]), (&json!(first), &json!("HR")));
    assert_eq!(
        (&oldest["state"], &oldest["attempts"], &oldest["status"]),
        (&json!("delivered"), &json!(2), &json!(204))
    );
    assert_eq!((&oldest["url"], &oldest["outcome"]), (&json!(good.url("/in")), &json!("ok")));
    assert!(text(oldest, "first_attempt_at") <= text(oldest, "last_attempt_at"));
    let failed = rows.iter().find(|row| row["webhook_id"] == second.as_str()).expect("told Payroll");
    assert_eq!(
        (&failed["state"], &failed["reason"], &failed["status"]),
        (&json!("failed"), &json!("exhausted"), &json!(500))
    );
    // A deleted webhook was told all the same, and what was said then counts.
    server.patch(&format!("/v1/tenants/acme/webhooks/{first}"), json!({"url": good.url("/moved")})).expect(200);
    server.delete(&format!("/v1/tenants/acme/webhooks/{first}")).expect(204);
    erase(&server, "anna", "");
    let after = told(&server, "anna");
    assert_eq!(column(&after, "delivery_id"), column(&rows, "delivery_id"), "the proof outlives the erasure");
    assert!(after.iter().all(|row| row["erased"] == true));
    assert_eq!((&after[2]["url"], &after[2]["status"]), (&json!(good.url("/in")), &json!(204)));
    assert!(told(&server, "nobody").is_empty());
    assert_eq!(server.all("/v1/tenants/acme/subjects/anna/deliveries?subject_type=user").len(), 3);
    assert!(server.all("/v1/tenants/acme/subjects/anna/deliveries?subject_type=group").is_empty());
    server.create_tenant("nobody-else");
    let other = server.create_key(&["read"], Some("nobody-else"));
    server.client_with(&other).get("/v1/tenants/acme/subjects/anna/deliveries").expect_problem(404, "tenant_not_found");
}

/// The cells of a file, by the rules of RFC 4180.
fn cells(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', true) if chars.next_if_eq(&'"').is_some() => cell.push('"'),
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut cell)),
            ('\r', false) if chars.next_if_eq(&'\n').is_some() => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            (c, _) => cell.push(c),
        }
    }
    assert!(cell.is_empty() && row.is_empty() && !quoted, "it ends with a whole line");
    rows
}

#[test]
fn proof_is_a_file_that_runs_nothing() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let name = "=HYPERLINK(\"https://evil.example\",\"a, b\")";
    server.webhook("acme", &to.url("/in"), json!({"name": name}));
    let subject = json!({"type": "user", "id": "anna"});
    let events: Vec<Value> = (0..600).map(|n| json!({"type": "a.b", "subject": subject, "data": n})).collect();
    server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202);
    server.wait_settled("acme");
    let reply = server.get("/v1/tenants/acme/subjects/anna/deliveries?format=csv").expect(200);
    assert!(reply.header("content-type").is_some_and(|value| value.starts_with("text/csv")));
    let rows = cells(&reply.text());
    assert_eq!(rows.len(), 601, "all of them, and a header");
    let json = told(&server, "anna");
    let header = &rows[0];
    for (row, object) in rows[1..].iter().zip(&json) {
        for (column, cell) in header.iter().zip(row) {
            let wanted = match &object[column] {
                Value::Null => String::new(),
                Value::String(text) if text.starts_with('=') => format!("'{text}"),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(*cell, wanted, "{column}");
        }
    }
    let empty = server.get("/v1/tenants/acme/subjects/nobody/deliveries?format=csv").expect(200);
    assert_eq!(cells(&empty.text()), std::slice::from_ref(header));
    server.get("/v1/tenants/acme/subjects/anna/deliveries?format=xml").expect_problem(422, "validation_failed");
    server.get("/v1/tenants/acme/subjects/anna/deliveries?cursor=AAAA").expect_problem(422, "invalid_cursor");
}
