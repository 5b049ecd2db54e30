//! Instructions of the rules on the hot path, counted by Valgrind: scripts/instructions.sh.
//!
//! Each measurement does the same many times over, so that what differs from run to run (the seeds of hashes)
//! evens out.

#![expect(missing_docs, reason = "what the macros make of a benchmark has none")]

use std::hint::black_box;

use bytes::Bytes;
use gatepost_core::event::{Event, EventType, Subject, Urgency};
use gatepost_core::filter::FilterBudget;
use gatepost_core::matching::{MatchFacts, RegistryBuilder, Subscription, TenantRegistry};
use gatepost_core::profiles::{self, Frame, SignFacts, Signers, SigningPlan, Wire};
use gatepost_core::tenant::Environment;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{
    DeliveryId, DeliverySeq, Entropy, EventId, EventSeq, TenantId, TenantKey, Timestamp, WebhookId, WebhookKey,
};
use gungraun::{library_benchmark, library_benchmark_group, main};
use serde_json::json;

/// How often each is done.
const TIMES: usize = 100;
const NOW: Timestamp = Timestamp::from_secs(1_760_000_000);

fn config(events: &str, filter: Option<&str>) -> WebhookConfig {
    let config = json!({
        "name": "bench", "url": "https://hooks.example.com/in", "events": [events], "filter": filter,
        "profile": "standard", "enabled": true,
    });
    serde_json::from_value(config).expect("what is given is a registration")
}

/// A tenant, and events of which each finds one of its webhooks (or all).
struct Tenant {
    registry: TenantRegistry,
    types: Vec<EventType>,
}

/// What a tenant's webhooks ask for.
#[derive(Clone, Copy)]
enum Asking {
    Exact,
    Below,
    All,
    Filter,
}

fn tenant(webhooks: usize, asking: Asking) -> Tenant {
    let mut builder = RegistryBuilder::new(1, false);
    for number in 0..webhooks {
        let config = match asking {
            Asking::Exact => config(&format!("family{number}.created"), None),
            Asking::Below => config(&format!("family{number}.*"), None),
            Asking::All => config("*", None),
            Asking::Filter => config(&format!("family{number}.created"), Some("data.kind == 'person'")),
        };
        builder.add(WebhookKey(number as i64), 1, &config).expect("what is asked for is a pattern");
    }
    let of = |number: usize| format!("family{}.created", number * (webhooks / TIMES).max(1) % webhooks);
    let types = (0..TIMES).map(|number| of(number).parse().expect("an event type")).collect();
    Tenant { registry: builder.build(), types }
}

fn facts(event_type: &EventType) -> MatchFacts<'_> {
    MatchFacts { event_type, subject: None, data: br#"{"kind":"person","name":"Anna"}"#, attributes: None }
}

#[library_benchmark]
#[bench::exact_1(args = (1, Asking::Exact), setup = tenant)]
#[bench::exact_10(args = (10, Asking::Exact), setup = tenant)]
#[bench::exact_100000(args = (100_000, Asking::Exact), setup = tenant)]
#[bench::below_10(args = (10, Asking::Below), setup = tenant)]
#[bench::below_100000(args = (100_000, Asking::Below), setup = tenant)]
#[bench::all_1(args = (1, Asking::All), setup = tenant)]
#[bench::all_10(args = (10, Asking::All), setup = tenant)]
#[bench::all_1000(args = (1_000, Asking::All), setup = tenant)]
#[bench::filter_10(args = (10, Asking::Filter), setup = tenant)]
#[bench::filter_100000(args = (100_000, Asking::Filter), setup = tenant)]
fn matching(tenant: Tenant) -> Tenant {
    for event_type in &tenant.types {
        let facts = facts(event_type);
        let mut budget = FilterBudget::of_publish();
        let quick = tenant.registry.filter_cost(&facts).is_quick();
        let matches = tenant.registry.matching(&facts, &mut budget).map_or(0, |matches| matches.len());
        assert!(quick && matches > 0);
    }
    tenant
}

/// A tenant, and changes of its webhooks.
fn changing(webhooks: usize) -> (TenantRegistry, Vec<Webhook>) {
    let changed = |number: usize| Webhook {
        key: WebhookKey((number * (webhooks / TIMES).max(1) % webhooks) as i64),
        tenant: TenantKey(1),
        id: WebhookId::from_bytes([1; 16]),
        revision: 2,
        config: config(&format!("changed{number}.created"), None),
        sealed_secrets: Vec::new(),
        disabled_reason: None,
        paused_until: None,
        last_test: None,
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
        verification_error: None,
        farewell: None,
    };
    (tenant(webhooks, Asking::Exact).registry, (0..TIMES).map(changed).collect())
}

#[library_benchmark]
#[bench::of_10(args = (10), setup = changing)]
#[bench::of_100000(args = (100_000), setup = changing)]
fn change((mut registry, changes): (TenantRegistry, Vec<Webhook>)) -> (TenantRegistry, Vec<Webhook>) {
    for (version, webhook) in (2..).zip(&changes) {
        let subscription = Subscription::compile(webhook, false).expect("it was compiled before").into();
        // Somebody is looking at the one before.
        let next = registry.with(version, subscription);
        drop(std::mem::replace(&mut registry, next));
    }
    (registry, changes)
}

fn event() -> Event {
    let pad = "x".repeat(900);
    Event {
        seq: EventSeq(77),
        tenant: TenantKey(1),
        id: EventId::numbered(NOW, EventSeq(77)),
        event_type: "user.created".parse().expect("an event type"),
        timestamp: NOW,
        accepted_at: NOW,
        subject: Some(Subject { kind: Some("user".into()), id: "u-1".into() }),
        urgency: Urgency::Normal,
        attributes: None,
        data: Bytes::from(format!(r#"{{"user":"u-1","pad":"{pad}"}}"#)),
        registry_version: 1,
        trace: None,
    }
}

fn frame(tenant_id: &TenantId) -> Frame<'_> {
    Frame {
        tenant_id,
        environment: Environment::Production,
        webhook_id: WebhookId::from_bytes([7; 16]),
        delivery: DeliveryId::new(NOW, DeliverySeq(78)),
        created_at: NOW,
        public_url: "https://gatepost.example.com",
    }
}

fn in_format(name: &str) -> (Wire, Event, TenantId) {
    let config = WebhookConfig { format: Some(name.to_owned()), ..config("*", None) };
    (Wire::of(&config).expect("the format is there"), event(), "acme".parse().expect("a tenant id"))
}

#[library_benchmark]
#[bench::standard(args = ("standard"), setup = in_format)]
#[bench::cloudevents(args = ("cloudevents"), setup = in_format)]
#[bench::ferriskey(args = ("ferriskey"), setup = in_format)]
#[bench::okta(args = ("okta"), setup = in_format)]
fn render((wire, event, tenant): (Wire, Event, TenantId)) -> (Wire, Event, TenantId) {
    for _ in 0..TIMES {
        black_box(wire.body(&event, &frame(&tenant)));
    }
    (wire, event, tenant)
}

/// The same numbers every time.
struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(42);
    }
}

/// A webhook's signers by scheme, and a body of 1 KiB.
fn by_scheme(name: &str) -> (Signers, Event, TenantId, Vec<u8>) {
    let scheme = profiles::scheme(name).expect("the scheme is there");
    let entry = serde_json::from_value(json!([{ "scheme": scheme.name() }])).expect("an entry of `signing`");
    let config = WebhookConfig { signing: Some(entry), ..config("*", None) };
    let plan = SigningPlan::of(&config).expect("the scheme is there");
    let mut keys = Vec::new();
    plan.complete(&mut keys, NOW, &Fixed);
    let signers = plan.signers(&keys, &config.options).expect("its own keys");
    (signers, event(), "acme".parse().expect("a tenant id"), vec![b'x'; 1_024])
}

#[library_benchmark]
#[bench::standard(args = ("standard"), setup = by_scheme)]
#[bench::standard_ed25519(args = ("standard-ed25519"), setup = by_scheme)]
#[bench::timestamped(args = ("timestamped"), setup = by_scheme)]
#[bench::github(args = ("github"), setup = by_scheme)]
#[bench::cryptr(args = ("cryptr"), setup = by_scheme)]
#[bench::ferriskey(args = ("ferriskey"), setup = by_scheme)]
#[bench::cymmetri(args = ("cymmetri"), setup = by_scheme)]
fn sign(given: (Signers, Event, TenantId, Vec<u8>)) -> (Signers, Event, TenantId, Vec<u8>) {
    let (signers, event, tenant, body) = &given;
    for attempt in 0..TIMES {
        black_box(signers.sign(&SignFacts {
            message_id: event.id.as_str(),
            event_type: &event.event_type,
            now: NOW,
            attempt: attempt as u32,
            resent: false,
            body,
            url: "https://hooks.example.com/in",
            frame: &frame(tenant),
        }));
    }
    given
}

library_benchmark_group!(name = matching_an_event, benchmarks = [matching, change]);
library_benchmark_group!(name = making_a_request, benchmarks = [render, sign]);
main!(library_benchmark_groups = [matching_an_event, making_a_request]);
