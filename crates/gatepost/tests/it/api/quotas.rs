//! Limits: `rate_limit_per_s` of a webhook, `settings.quotas` of a tenant, and how their end is told.

use std::sync::Mutex;
use std::time::Instant;

use gatepost_testkit::Script;
use serde_json::{Value, json};

use super::Findings;
use crate::harness::{Server, receiver, text, wait_until, webhook_body};

fn with_quotas(server: &Server, tenant: &str, quotas: Value) {
    let settings = json!({"settings": {"quotas": quotas}});
    let reply = server.put(&format!("/v1/tenants/{tenant}"), settings);
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
}

fn event(id: &str) -> Value {
    json!({"id": id, "type": "user.created", "data": {}})
}

/// `RateLimit-Policy`, `RateLimit` and `Retry-After`.
fn limits(reply: &crate::harness::Reply) -> [Option<&str>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| reply.header(name))
}

/// When something happened: rates are measured by the clock that keeps them.
#[expect(clippy::disallowed_methods, reason = "the real server keeps its rates by the machine's clock")]
fn moment() -> Instant {
    Instant::now()
}

#[test]
fn a_tenant_has_no_more_webhooks_than_it_may() {
    let server = Server::start();
    with_quotas(&server, "acme", json!({"webhooks": 2}));
    server.create_tenant("beta");
    let inbox = receiver();
    let make =
        |tenant: &str| server.post(&format!("/v1/tenants/{tenant}/webhooks"), webhook_body(&inbox.url("/"), json!({})));
    let first = text(&make("acme").expect(201).json(), "id");
    make("acme").expect(201);
    let refused = make("acme");
    assert_eq!(limits(&refused), [Some("\"webhooks\";q=2"), Some("\"webhooks\";r=0"), Some("60")]);
    refused.expect_problem(429, "quota_exceeded");
    for _ in 0..3 {
        make("beta").expect(201);
    }
    // A disabled one counts, a deleted one does not; what is there can be changed.
    let path = format!("/v1/tenants/acme/webhooks/{first}");
    server.patch(&path, json!({"enabled": false})).expect(200);
    make("acme").expect_problem(429, "quota_exceeded");
    server.delete(&path).expect(204);
    make("acme").expect(201);
    // Many at once get no further.
    with_quotas(&server, "acme", json!({"webhooks": 5}));
    let made = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.client();
                let reply = client.post("/v1/tenants/acme/webhooks", webhook_body(&inbox.url("/"), json!({})));
                *made.lock().unwrap() += usize::from(reply.status == 201);
            });
        }
    });
    assert_eq!(made.into_inner().unwrap(), 3);
    with_quotas(&server, "acme", json!({"webhooks": null}));
    make("acme").expect(201);
}

#[test]
fn a_tenant_publishes_no_faster_than_it_may() {
    let server = Server::start();
    with_quotas(&server, "acme", json!({"events_per_s": 5}));
    server.create_tenant("beta");
    let post = |tenant: &str, id: String| server.post(&format!("/v1/tenants/{tenant}/events"), event(&id));
    let began = moment();
    let (mut accepted, mut refused) = (0_u32, 0);
    for number in 0..40 {
        let reply = post("acme", format!("e-{number}"));
        let [policy, left, again] = limits(&reply);
        assert_eq!(policy, Some("\"events_per_s\";q=5;w=1"));
        assert!(left.is_some_and(|left| left.starts_with("\"events_per_s\";r=") && left.contains(";t=1")), "{left:?}");
        match reply.status {
            202 => {
                assert_eq!(again, None);
                accepted += 1;
            }
            _ => {
                assert_eq!(again, Some("1"));
                reply.expect_problem(429, "quota_exceeded");
                refused += 1;
            }
        }
        assert_eq!(limits(&post("beta", format!("e-{number}")).expect(202)), [None; 3], "no quota, no headers");
    }
    let most = 5 + (began.elapsed().as_secs_f64() * 5.0).ceil() as u32;
    assert!(accepted <= most && accepted >= 5, "{accepted} of at most {most}");
    assert!(refused > 0 || began.elapsed().as_secs() > 6, "nothing was refused");
    // What was refused was not accepted: each counted event is there, and no other.
    assert_eq!(server.all("/v1/tenants/acme/events").len(), accepted as usize);

    // A batch counts by its events and is accepted whole or not at all.
    let batch = |count: usize, name: &str| {
        let events: Vec<_> = (0..count).map(|n| event(&format!("{name}-{n}"))).collect();
        server.post("/v1/tenants/acme/events/batch", json!({"events": events}))
    };
    let too_large = batch(6, "large");
    assert!(too_large.text().contains("send fewer at once"), "{too_large:?}");
    too_large.expect_problem(429, "quota_exceeded");
    wait_until("room for a whole batch", || (batch(5, "fits").status == 202).then_some(()));
    let there = server.all("/v1/tenants/acme/events");
    assert_eq!(there.len(), accepted as usize + 5, "nothing of the refused ones");
    // A refused request is not counted: bad ones cost nothing.
    wait_until("a full allowance", || {
        server
            .post("/v1/tenants/acme/events", json!({"type": "gatepost.x", "data": {}}))
            .expect_problem(422, "validation_failed");
        (batch(5, "full").status == 202).then_some(())
    });
    with_quotas(&server, "acme", json!({"events_per_s": null}));
    for number in 0..20 {
        post("acme", format!("free-{number}")).expect(202);
    }
    let metrics = server.get("/metrics").expect(200).text();
    assert!(metrics.contains("gatepost_quota_refusals_total{quota=\"events_per_s\"}"), "{metrics}");
}

#[test]
fn p6_a_tenant_is_owed_no_more_than_it_may_and_is_told() {
    let server = Server::start();
    with_quotas(&server, "acme", json!({"pending": 4}));
    let inbox = receiver();
    inbox.script(Script::status(500));
    let slow = json!({"retry": {"waits": [3600]}});
    let (one, two) =
        (server.webhook("acme", &inbox.url("/1"), slow.clone()), server.webhook("acme", &inbox.url("/2"), slow));
    let post = |id: &str| server.post("/v1/tenants/acme/events", event(id));
    post("e-1").expect(202);
    post("e-2").expect(202);
    inbox.wait_for_blocking(4);
    server.wait_delivery_where("acme", &text(&server.deliveries_of("acme", "e-2")[0], "id"), "attempted", |d| {
        d["attempts"].as_u64() == Some(1)
    });
    // Two webhooks, so each event is two deliveries: four wait, and one more does not fit.
    let refused = post("e-3");
    assert_eq!(limits(&refused), [Some("\"pending\";q=4"), Some("\"pending\";r=0"), Some("5")]);
    refused.expect_problem(429, "quota_exceeded");
    server.get("/v1/tenants/acme/events/e-3").expect_problem(404, "event_not_found");
    // A duplicate adds nothing and is answered; with something new beside it, all is refused.
    assert_eq!(post("e-1").expect(202).json()["duplicate"], true);
    let both = json!({"events": [event("e-1"), event("e-3")]});
    server.post("/v1/tenants/acme/events/batch", both.clone()).expect_problem(429, "quota_exceeded");
    // What matches nothing is owed to nobody.
    server.patch(&format!("/v1/tenants/acme/webhooks/{two}"), json!({"events": ["user.created"]})).expect(200);
    server.patch(&format!("/v1/tenants/acme/webhooks/{one}"), json!({"events": ["user.created"]})).expect(200);
    server.post("/v1/tenants/acme/events", json!({"type": "user.deleted", "data": {}})).expect(202);
    // Held ones wait too. One that has ended makes room for one.
    server.patch(&format!("/v1/tenants/acme/webhooks/{two}"), json!({"enabled": false})).expect(200);
    post("e-3").expect_problem(429, "quota_exceeded");
    let waiting = server.deliveries_of("acme", "e-1");
    server.post(&format!("/v1/tenants/acme/deliveries/{}/cancel", text(&waiting[0], "id")), json!({})).expect(200);
    server.post("/v1/tenants/acme/events/batch", both).expect(202);
    post("e-4").expect_problem(429, "quota_exceeded");
    // It survives a restart.
    let mut server = server;
    server.restart();
    server.post("/v1/tenants/acme/events", event("e-4")).expect_problem(429, "quota_exceeded");
    server.delete(&format!("/v1/tenants/acme/webhooks/{two}")).expect(204);
    server.post("/v1/tenants/acme/events", event("e-4")).expect(202);
}

#[test]
fn quotas_are_the_installations_to_set() {
    let server = Server::start();
    with_quotas(&server, "acme", json!({"webhooks": 1, "events_per_s": 100, "pending": 1000}));
    let shown = server.get("/v1/tenants/acme").expect(200).json();
    assert_eq!(shown["settings"]["quotas"], json!({"webhooks": 1, "events_per_s": 100, "pending": 1000}));
    let mut findings = Findings::default();
    let manager = server.create_key(&["manage"], Some("acme"));
    let mut client = server.client_with(&manager);
    let reply = client.put("/v1/tenants/acme", json!({"settings": {"quotas": {"webhooks": 100}}}));
    findings.status("a manager raises its quota", &reply, 403);
    for bad in [json!({"webhooks": -1}), json!({"events_per_s": 1.5}), json!({"pending": "many"}), json!({"disk": 1})] {
        let what = bad.to_string();
        let reply = server.put("/v1/tenants/acme", json!({"settings": {"quotas": bad}}));
        findings.status(what, &reply, 422);
    }
    findings.none();
}

#[test]
fn a_limited_webhook_gets_its_rate_and_nobody_waits_with_it() {
    let server = Server::start();
    server.create_tenant("acme");
    let (limited, free) = (receiver(), receiver());
    server.webhook("acme", &limited.url("/"), json!({"rate_limit_per_s": 10}));
    server.webhook("acme", &free.url("/"), json!({}));
    let arrivals = std::sync::Arc::new(Mutex::new(Vec::new()));
    let noted = std::sync::Arc::clone(&arrivals);
    // A first failure each: retries count like everything else.
    let fails = Mutex::new(std::collections::HashSet::new());
    limited.script(Script::with(move |request| {
        noted.lock().unwrap().push(moment());
        let first = fails.lock().unwrap().insert(request.header("webhook-id").map(str::to_owned));
        Script::status(if first { 503 } else { 204 }).header("retry-after", "1")
    }));
    let events: Vec<_> = (0..20).map(|n| event(&format!("e-{n}"))).collect();
    server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202);
    // The other one waits for nobody: all of its own are there while most of the limited are not.
    free.wait_for_blocking(20);
    assert!(arrivals.lock().unwrap().len() < 20, "the limited one was not slowed");
    limited.wait_for_blocking(12);
    let arrivals = arrivals.lock().unwrap().clone();
    for (number, from) in arrivals.iter().enumerate() {
        let within = arrivals[number..].iter().filter(|at| at.duration_since(*from).as_millis() < 950).count();
        assert!(within <= 11, "{within} requests within a second");
    }
    let metrics = server.get("/metrics").expect(200).text();
    assert!(metrics.contains("gatepost_rate_limit_waits_total"), "{metrics}");
}

#[test]
fn a_limit_is_kept_over_a_restart_and_can_be_lifted() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let hook = server.webhook("acme", &inbox.url("/"), json!({"rate_limit_per_s": 1}));
    let shown = server.get(&format!("/v1/tenants/acme/webhooks/{hook}")).expect(200).json();
    assert_eq!(shown["rate_limit_per_s"], 1);
    let events: Vec<_> = (0..30).map(|n| event(&format!("e-{n}"))).collect();
    server.post("/v1/tenants/acme/events/batch", json!({"events": events})).expect(202);
    inbox.wait_for_blocking(1);
    let before = inbox.count();
    let began = moment();
    server.restart();
    inbox.wait_for_blocking(before + 1);
    let most = 2 + began.elapsed().as_secs() as usize;
    assert!(inbox.count() - before <= most, "{} at once after the restart", inbox.count() - before);
    // Lifted, the rest goes at once.
    server.patch(&format!("/v1/tenants/acme/webhooks/{hook}"), json!({"rate_limit_per_s": null})).expect(200);
    inbox.wait_for_blocking(30);
    for bad in [json!(0), json!(10_001), json!("fast"), json!(1.5)] {
        let reply = server.patch(&format!("/v1/tenants/acme/webhooks/{hook}"), json!({"rate_limit_per_s": bad}));
        assert_eq!(reply.pointers(), ["/rate_limit_per_s"], "{bad}");
    }
}

#[test]
fn p6_publishers_at_once_get_exactly_what_may_wait() {
    let server = Server::start();
    with_quotas(&server, "acme", json!({"pending": 30}));
    let inbox = receiver();
    inbox.script(Script::status(500));
    server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": [3600]}}));
    let accepted = Mutex::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (server, accepted) = (&server, &accepted);
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..20 {
                    let reply = client.post("/v1/tenants/acme/events", event(&format!("e-{thread}-{number}")));
                    assert!(matches!(reply.status, 202 | 429), "{reply:?}");
                    *accepted.lock().unwrap() += usize::from(reply.status == 202);
                }
            });
        }
    });
    // Nothing more, and nothing less once nobody else is asking.
    let mut accepted = accepted.into_inner().unwrap();
    assert!(accepted <= 30, "{accepted}");
    for number in 0..31 {
        let reply = server.post("/v1/tenants/acme/events", event(&format!("last-{number}")));
        accepted += usize::from(reply.status == 202);
    }
    assert_eq!((accepted, server.all("/v1/tenants/acme/events?type=user.created").len()), (30, 30));
}
