//! Replays and jobs.

use std::collections::{BTreeMap, BTreeSet};

use gatepost_testkit::{Gate, Received, Script};
use serde_json::{Value, json};

use super::{Findings, column, members};
use crate::harness::{Reply, Server, receiver, run_against, text, wait_until};

const ALWAYS: &str = "2000-01-01T00:00:00Z";

fn ask(server: &Server, webhook: &str, body: Value) -> Reply {
    server.post(&format!("/v1/tenants/acme/webhooks/{webhook}/replay"), body)
}

fn begin(server: &Server, webhook: &str, scope: &str) -> String {
    let reply = ask(server, webhook, json!({"since": ALWAYS, "scope": scope})).expect(202);
    let id = text(&reply.json(), "job_id");
    assert_eq!(reply.header("location"), Some(format!("/v1/tenants/acme/jobs/{id}").as_str()));
    id
}

pub(super) fn job(server: &Server, id: &str) -> Value {
    server.get(&format!("/v1/tenants/acme/jobs/{id}")).expect(200).json()
}

pub(super) fn wait_job(server: &Server, id: &str) -> Value {
    wait_until(format!("the end of {id}"), || {
        let job = job(server, id);
        matches!(job["state"].as_str(), Some("done" | "failed")).then_some(job)
    })
}

/// A replay from its beginning to its end: how many events it was about.
fn replayed(server: &Server, webhook: &str, scope: &str) -> u64 {
    let job = wait_job(server, &begin(server, webhook, scope));
    assert_eq!((&job["state"], &job["error"]), (&json!("done"), &Value::Null), "{job:#}");
    assert_eq!(job["total"], job["done"]);
    job["total"].as_u64().expect("a count")
}

/// How often each event arrived.
fn times(received: &[Received]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for request in received {
        *times.entry(request.header("webhook-id").expect("signed").to_owned()).or_insert(0) += 1;
    }
    times
}

#[test]
fn what_failed_is_delivered_again_once() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script(Script::with(|request: &Received| {
        let fails = request.json()["data"]["n"].as_u64().is_some_and(|n| n % 3 == 0);
        Script::status(if fails { 500 } else { 200 })
    }));
    let webhook = server.webhook("acme", &to.url("/old"), json!({"retry": {"waits": []}}));
    let events: Vec<String> = (0..9).map(|n| server.publish("acme", "user.created", json!({"n": n}))).collect();
    server.wait_settled("acme");
    to.script(Script::status(200));
    to.forget();
    let path = format!("/v1/tenants/acme/webhooks/{webhook}");
    server.patch(&path, json!({"url": to.url("/new")})).expect(200);
    assert_eq!(replayed(&server, &webhook, "failed"), 3);
    server.wait_settled("acme");
    let again: BTreeMap<String, usize> = [&events[0], &events[3], &events[6]].map(|id| (id.clone(), 1)).into();
    assert_eq!(times(&to.received()), again);
    assert!(to.received().iter().all(|request| request.path == "/new"), "as it is registered today");
    // Delivered since: nothing is left to take up.
    assert_eq!(replayed(&server, &webhook, "failed"), 0);
    let rows = server.deliveries_of("acme", &events[0]);
    assert_eq!(column(&rows, "state"), ["delivered", "failed"], "a new delivery beside the old one");
    let view = server.delivery("acme", &text(&rows[0], "id"));
    assert_eq!(view["replay_of"], rows[1]["id"]);
    assert!(text(&view, "replay_job_id").starts_with("job_"));
    assert_eq!(view["attempts"], 1, "with a budget of its own");
    assert!(server.delivery("acme", &text(&rows[1], "id")).get("replay_of").is_none());
    let sent = &to.received()[0];
    assert_eq!(sent.header("gatepost-attempt"), Some("1"));
}

#[test]
fn what_was_missed_is_delivered_after_all() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let missed: Vec<String> = (0..7).map(|n| server.publish("acme", "user.created", json!({"n": n}))).collect();
    server.publish("acme", "group.created", json!({}));
    let webhook = server.webhook("acme", &to.url("/"), json!({"events": ["user.*"], "filter": "data.n != 5"}));
    let heard = server.publish("acme", "user.created", json!({"n": 100}));
    server.wait_event("acme", &heard, "delivered");
    to.forget();
    let counted = |scope: &str| {
        let asked = json!({"since": ALWAYS, "scope": scope, "dry_run": true});
        ask(&server, &webhook, asked).expect(200).json()
    };
    assert_eq!(counted("missed"), json!({"count": 6}));
    assert_eq!((counted("all"), counted("failed")), (json!({"count": 7}), json!({"count": 0})));
    let jobs = server.get("/v1/tenants/acme/jobs").expect(200).json();
    assert_eq!(jobs["data"], json!([]), "nothing is made");
    let bad = json!({"since": ALWAYS, "scope": "all", "dry_run": "yes"});
    ask(&server, &webhook, bad).expect_problem(422, "validation_failed");
    assert_eq!(replayed(&server, &webhook, "missed"), 6);
    server.wait_settled("acme");
    let wanted: BTreeMap<String, usize> =
        missed.iter().enumerate().filter(|(n, _)| *n != 5).map(|(_, id)| (id.clone(), 1)).collect();
    assert_eq!(times(&to.received()), wanted);
    assert_eq!(replayed(&server, &webhook, "missed"), 0);
    // While it is disabled it misses what happens; enabled, it can be told.
    let path = format!("/v1/tenants/acme/webhooks/{webhook}");
    server.patch(&path, json!({"enabled": false})).expect(200);
    let unheard = server.publish("acme", "user.created", json!({"n": 101}));
    ask(&server, &webhook, json!({"since": ALWAYS, "scope": "missed"})).expect_problem(409, "webhook_disabled");
    server.patch(&path, json!({"enabled": true})).expect(200);
    assert_eq!(replayed(&server, &webhook, "missed"), 1);
    server.wait_event("acme", &unheard, "delivered");
}

#[test]
fn everything_of_a_window_is_delivered_again() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    let webhook = server.webhook("acme", &to.url("/"), json!({}));
    let first = server.publish("acme", "user.created", json!({"n": 1}));
    let second = server.publish("acme", "user.created", json!({"n": 2}));
    let third = server.publish("acme", "user.created", json!({"n": 3}));
    server.wait_settled("acme");
    assert_eq!(replayed(&server, &webhook, "all"), 3);
    server.wait_settled("acme");
    let twice: BTreeMap<String, usize> = [&first, &second, &third].map(|id| (id.clone(), 2)).into();
    assert_eq!(times(&to.received()), twice);
    // By when they were accepted: from, and before.
    let accepted = |event: &str| text(&server.event("acme", event), "accepted_at");
    let body = json!({"since": accepted(&second), "until": accepted(&third), "scope": "all"});
    let job = wait_job(&server, &text(&ask(&server, &webhook, body).expect(202).json(), "job_id"));
    assert_eq!((&job["total"], &job["since"]), (&json!(1), &json!(accepted(&second))));
    assert_eq!((&job["until"], &job["scope"]), (&json!(accepted(&third)), &json!("all")));
    server.wait_settled("acme");
    assert_eq!(times(&to.received())[&second], 3);
}

#[test]
fn p2_killed_during_a_replay_nothing_is_lost_and_nothing_made_twice() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let body = |n: usize| json!({"type": "user.created", "data": {"n": n}});
    for batch in 0..3 {
        let events: Vec<Value> = (0..1_000).map(|n| body(batch * 1_000 + n)).collect();
        server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202);
    }
    let to = receiver();
    let gate = Gate::new();
    to.script(Script::status(200).behind(&gate));
    let webhook = server.webhook("acme", &to.url("/"), json!({"timeout_ms": 60_000}));
    let id = begin(&server, &webhook, "missed");
    // The receiver takes nothing, so the replay has to wait in the middle.
    let middle = wait_until("the middle of the replay", || {
        let job = job(&server, &id);
        (job["done"].as_u64()? >= 400).then_some(job)
    });
    assert_eq!((&middle["state"], &middle["total"]), (&json!("running"), &json!(3_000)), "{middle:#}");
    assert!(middle["done"].as_u64() < Some(3_000), "{middle:#}");
    server.kill9();
    let begun: BTreeSet<String> =
        to.received().iter().map(|r| r.header("webhook-id").unwrap_or_default().into()).collect();
    gate.open();
    server.restart();
    let job = wait_job(&server, &id);
    assert_eq!((&job["state"], &job["total"], &job["done"]), (&json!("done"), &json!(3_000), &json!(3_000)));
    let rows = server.all("/v1/tenants/acme/deliveries");
    assert_eq!(rows.len(), 3_000, "each event has exactly one delivery");
    let of: BTreeSet<String> = rows.iter().map(|row| row["event_ids"][0].as_str().unwrap_or_default().into()).collect();
    assert_eq!(of.len(), 3_000);
    server.wait_settled("acme");
    for (event, count) in times(&to.received()) {
        // Only what was under way at the crash may have come twice (P2).
        assert!(count == 1 || count == 2 && begun.contains(&event), "{event}: {count}");
    }
    assert_eq!(times(&to.received()).len(), 3_000);
}

#[test]
fn a_cancelled_job_has_failed_and_what_it_did_stays() {
    let server = Server::start();
    server.create_tenant("acme");
    for _ in 0..2 {
        let events: Vec<Value> = (0..1_000).map(|n| json!({"type": "a.b", "data": n})).collect();
        server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202);
    }
    let to = receiver();
    to.script(Script::Hang);
    let webhook = server.webhook("acme", &to.url("/"), json!({"timeout_ms": 60_000}));
    let id = begin(&server, &webhook, "missed");
    wait_until("a beginning", || (job(&server, &id)["done"].as_u64()? > 0).then_some(()));
    let path = format!("/v1/tenants/acme/jobs/{id}/cancel");
    let cancelled = server.post(&path, ()).expect(200).json();
    assert_eq!((&cancelled["state"], &cancelled["error"]), (&json!("failed"), &json!("cancelled")));
    let (done, total) = (cancelled["done"].as_u64(), cancelled["total"].as_u64());
    assert!(done > Some(0) && done < total && total == Some(2_000), "{cancelled:#}");
    server.post(&path, ()).expect_problem(409, "job_final");
    let made = server.all("/v1/tenants/acme/deliveries").len() as u64;
    assert_eq!(Some(made), done);
    assert_eq!(job(&server, &id), cancelled);
}

#[test]
fn a_job_has_its_members_and_jobs_are_listed_newest_first() {
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    let webhook = server.webhook("acme", "https://receiver.example/", json!({}));
    let ids: Vec<String> = (0..3).map(|_| begin(&server, &webhook, "failed")).collect();
    let job = wait_job(&server, &ids[0]);
    assert_eq!(
        members(&job),
        [
            "created_at",
            "done",
            "error",
            "id",
            "kind",
            "scope",
            "since",
            "state",
            "total",
            "until",
            "updated_at",
            "webhook_id"
        ]
    );
    assert_eq!(
        (&job["kind"], &job["webhook_id"], &job["since"]),
        (&json!("replay"), &json!(webhook), &json!("2000-01-01T00:00:00.000000Z"))
    );
    let rows = server.all("/v1/tenants/acme/jobs?");
    assert_eq!(column(&rows, "id"), [ids[2].clone(), ids[1].clone(), ids[0].clone()]);
    let page = server.get("/v1/tenants/acme/jobs?limit=2").expect(200).json();
    let cursor = text(&page, "next_cursor");
    let rest = server.get(&format!("/v1/tenants/acme/jobs?limit=2&cursor={cursor}")).expect(200).json();
    assert_eq!((rest["data"][0]["id"].as_str(), &rest["next_cursor"]), (Some(ids[0].as_str()), &Value::Null));
    // P5: another tenant's does not exist.
    let foreign = server.get(&format!("/v1/tenants/other/jobs/{}", ids[0])).expect_problem(404, "job_not_found");
    let missing = server.get("/v1/tenants/other/jobs/job_00000000000000000000000000");
    assert_eq!(foreign.text().replace(&ids[0], "X"), missing.text().replace("job_00000000000000000000000000", "X"));
    assert_eq!(server.get("/v1/tenants/other/jobs").json()["data"], json!([]));
    server.post(&format!("/v1/tenants/other/jobs/{}/cancel", ids[0]), ()).expect_problem(404, "job_not_found");
}

#[test]
fn a_wrong_replay_is_told_everything_at_once() {
    let server = Server::start();
    server.create_tenant("acme");
    let webhook = server.webhook("acme", "https://receiver.example/", json!({}));
    let mut findings = Findings::default();
    for (body, pointers) in [
        (json!({}), &["/since", "/scope"][..]),
        (json!({"since": null, "scope": null}), &["/since", "/scope"]),
        (json!({"since": "yesterday", "until": 5, "scope": "some", "x": 1}), &["/since", "/until", "/scope", "/x"]),
        (json!({"since": ALWAYS, "until": ALWAYS, "scope": "all"}), &["/until"]),
        (json!({"since": ALWAYS, "until": "1999-01-01T00:00:00Z", "scope": "all"}), &["/until"]),
        (json!([]), &[""]),
    ] {
        let reply = ask(&server, &webhook, body.clone());
        findings.problem(&body, &reply, 422, "validation_failed", pointers);
    }
    let missing = ask(&server, "wh_00000000000000000000000000", json!({"since": ALWAYS, "scope": "all"}));
    findings.problem("no webhook", &missing, 404, "webhook_not_found", &[]);
    findings.status(
        "until is optional",
        &ask(&server, &webhook, json!({"since": ALWAYS, "until": null, "scope": "all"})),
        202,
    );
    let read = server.create_key(&["read"], Some("acme"));
    let mut client = server.client_with(&read);
    let path = format!("/v1/tenants/acme/webhooks/{webhook}/replay");
    let refused = client.post(&path, json!({"since": ALWAYS, "scope": "all"}));
    findings.problem("a key to read with", &refused, 403, "forbidden", &[]);
    findings.status("reading jobs", &client.get("/v1/tenants/acme/jobs"), 200);
    findings.none();
}

#[test]
fn the_command_replays_and_waits() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    for n in 0..5 {
        server.publish("acme", "user.created", json!({"n": n}));
    }
    let webhook = server.webhook("acme", &to.url("/"), json!({}));
    let args = ["replay", "--tenant", "acme", "--webhook", &webhook, "--since", "1h", "--scope", "missed"];
    let ran = run_against(&server, &[&args[..], &["--wait"]].concat()).expect(0);
    assert!(ran.stdout.contains("done: 5 of 5 events"), "{}", ran.stdout);
    to.wait_for_blocking(5);
    let ran = run_against(&server, &[&args[..], &["--wait", "--json"]].concat()).expect(0);
    assert_eq!((&ran.json()["state"], &ran.json()["total"]), (&json!("done"), &json!(0)));
    let ran = run_against(&server, &[&args[..], &["--json"]].concat()).expect(0);
    assert!(text(&ran.json(), "job_id").starts_with("job_"));
    let ran = run_against(&server, &args).expect(0);
    assert!(ran.stdout.starts_with("begun: job_"), "{}", ran.stdout);
    server.patch(&format!("/v1/tenants/acme/webhooks/{webhook}"), json!({"enabled": false})).expect(200);
    let ran = run_against(&server, &args).expect(1);
    assert!(ran.stderr.contains("webhook_disabled"), "{}", ran.stderr);
    run_against(&server, &["replay", "--tenant", "acme", "--webhook", &webhook, "--since", "yesterday"]).expect(2);
}
