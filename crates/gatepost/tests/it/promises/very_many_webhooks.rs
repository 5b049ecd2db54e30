//! An event that goes to very many webhooks is accepted like any other: whole (P1), for each of them (P2,
//! P4), in order, and without anybody else waiting for it (P5).

use std::collections::{HashMap, HashSet};

use gatepost_core::TenantKey;
use gatepost_store::sqlite::Options as StoreOptions;
use gatepost_store::{MakingStore as _, SqliteStore, Store as _};
use gatepost_testkit::Script;
use serde_json::{Value, json};

use crate::harness::{Server, receiver, text, wait_until};

/// So many that their deliveries are made after the commit of their event.
const CROWD: usize = 300;

/// Registers webhooks at `url`, each at a path of its own, with `overrides`.
fn crowd(server: &Server, tenant: &str, url: impl Fn(&str) -> String, overrides: &Value) {
    for number in 0..CROWD {
        server.webhook(tenant, &url(&format!("/{number}")), overrides.clone());
    }
}

/// A batch of events, named `{name}-{number}`.
fn batch(name: &str, count: usize) -> Value {
    let event = |number| json!({"id": format!("{name}-{number}"), "type": "user.created", "data": {"n": number}});
    json!({"events": (0..count).map(event).collect::<Vec<_>>()})
}

/// Whether the store of a killed server has deliveries to make.
fn has_unmade(server: &Server) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(&server.data_dir(), StoreOptions::default()).unwrap();
        let unmade = store.last_unmade(TenantKey(1)).await.unwrap().is_some();
        store.close().await;
        unmade
    })
}

#[test]
fn p1_p2_kill_9_between_the_answer_and_the_making_of_deliveries_loses_none() {
    const EVENTS: usize = 12;
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    crowd(&server, "acme", |path| inbox.url(path), &json!({"events": ["user.created"]}));
    server.webhook("acme", &inbox.url("/ordered"), json!({"events": ["user.created"], "ordering": "webhook"}));

    let few = receiver();
    server.webhook("acme", &few.url("/"), json!({"events": ["user.updated"]}));
    // Nearly always the first try hits it.
    let mut names = Vec::new();
    for name in ["first", "second", "third", "fourth", "fifth"] {
        names.push(name);
        server.post("/v1/tenants/acme/events/batch", batch(name, EVENTS)).expect(202);
        server.kill9();
        let hit = has_unmade(&server);
        server.restart();
        // What is accepted next takes no number that was set aside.
        server.publish("acme", "user.updated", json!({}));
        if hit {
            break;
        }
        assert_ne!(name, "fifth", "the server was never killed in between: the test proves nothing");
    }
    // Known as it was accepted, and nothing is added.
    let again = server.post("/v1/tenants/acme/events/batch", batch("first", 1)).expect(202).json();
    assert_eq!(
        (&again["events"][0]["duplicate"], &again["events"][0]["deliveries"]),
        (&json!(true), &json!(CROWD + 1))
    );

    let expected = names.len() * EVENTS * (CROWD + 1);
    inbox.wait_for_blocking(expected);
    let arrived = || {
        let received = inbox.received();
        let of =
            |r: &gatepost_testkit::Received| (r.path.clone(), r.header("webhook-id").unwrap_or_default().to_owned());
        received.iter().map(of).collect::<HashSet<_>>().len()
    };
    // What was under way when the server died may come twice.
    wait_until("every delivery to arrive", || (arrived() == expected).then_some(()));
    let mut first_seen: HashMap<String, usize> = HashMap::new();
    for request in inbox.received().iter().filter(|r| r.path == "/ordered") {
        let next = first_seen.len();
        first_seen.entry(request.header("webhook-id").unwrap().to_owned()).or_insert(next);
    }
    let in_order = names.iter().flat_map(|name| (0..EVENTS).map(move |number| format!("{name}-{number}")));
    for (place, id) in in_order.enumerate() {
        assert_eq!(first_seen.get(&id), Some(&place), "{id} came out of order");
    }
    few.wait_for_blocking(names.len());
    server.wait_settled("acme");
    assert_eq!(server.deliveries_of("acme", "first-0").len(), CROWD + 1);
}

#[test]
fn p5_publishes_to_very_many_webhooks_hold_up_nobody_elses() {
    const EVENTS: usize = 60;
    const OTHERS: usize = 20;
    /// Deliveries made in one commit, at most.
    const STEP: usize = 128;
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    // They never answer: no outcome is recorded while commits are counted.
    let silent = receiver();
    silent.script(Script::Hang);
    let healthy = receiver();
    crowd(&server, "acme", |path| silent.url(path), &json!({"events": ["user.created"], "timeout_ms": 60_000}));
    server.webhook("other", &healthy.url("/"), json!({"events": ["user.created"]}));

    let commits = || {
        let metrics = server.get("/metrics").expect(200).text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("gatepost_store_commits_total "));
        line.and_then(|count| count.parse::<f64>().ok()).expect("commits are counted") as usize
    };
    let before = commits();
    let wide = server.post("/v1/tenants/acme/events/batch", batch("wide", EVENTS)).expect(202).json();
    assert!(wide["events"].as_array().unwrap().iter().all(|event| event["deliveries"] == CROWD));
    for number in 0..OTHERS {
        server.publish("other", "user.created", json!({"n": number}));
    }
    healthy.wait_for_blocking(OTHERS);
    // Whoever asks for them sees all of them.
    let last = server.event("acme", &format!("wide-{}", EVENTS - 1));
    assert_eq!(last["deliveries"].as_array().unwrap().len(), CROWD);
    assert!(last["deliveries"].as_array().unwrap().iter().all(|row| row["state"] == "pending"));
    assert!(last["matching"].as_array().unwrap().iter().filter(|row| row["reason"] == "matched").count() == CROWD);
    // In as many commits as that takes when none makes more than a step of them.
    let made = commits() - before;
    assert!(made >= EVENTS * CROWD / STEP, "{} deliveries were made in {made} commits", EVENTS * CROWD);
}

#[test]
fn p4_a_webhook_made_while_deliveries_are_made_gets_what_is_accepted_after_it() {
    let server = Server::start();
    server.create_tenant("acme");
    let (many, inbox) = (receiver(), receiver());
    crowd(&server, "acme", |path| many.url(path), &json!({"events": ["user.created"]}));
    server.post("/v1/tenants/acme/events/batch", batch("before", 20)).expect(202);
    let new = server.webhook("acme", &inbox.url("/"), json!({"events": ["user.created"], "ordering": "webhook"}));
    server.post("/v1/tenants/acme/events/batch", batch("after", 20)).expect(202);
    // One that goes to it alone does not overtake the others.
    server.post("/v1/tenants/acme/events", json!({"id": "last", "type": "user.created", "data": {}})).expect(202);
    inbox.wait_for_blocking(21);
    let ids: Vec<String> = inbox.received().iter().map(|r| r.header("webhook-id").unwrap().to_owned()).collect();
    let expected: Vec<String> = (0..20).map(|n| format!("after-{n}")).chain(["last".to_owned()]).collect();
    assert_eq!(ids, expected);
    let rows = server.all(&format!("/v1/tenants/acme/deliveries?webhook_id={new}"));
    let events: HashSet<String> = rows.iter().map(|row| text(&json!({"id": row["event_ids"][0]}), "id")).collect();
    assert_eq!(events, expected.into_iter().collect());
}
