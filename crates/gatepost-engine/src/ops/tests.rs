//! Rules of the operations that need nobody to deliver.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::{TenantId, Timestamp};
use gatepost_store::fault::Fault;
use gatepost_store::{FaultStore, Scope, SqliteStore, Store};
use gatepost_testkit::{ManualClock, SeededEntropy};

use super::{KeyInput, PublishInput, SettingsInput, TenantInput, TestInput, WebhookInput, WebhookView};
use crate::engine::{Engine, EngineParts, Limits};
use crate::error::{Error, Result};
use crate::net::{EgressPolicy, Exchange, OutgoingRequest};
use crate::transport::Transport;

struct Nowhere;

impl Transport for Nowhere {
    fn send<'a>(&'a self, _: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(std::future::pending())
    }
}

pub(crate) fn engine_on(store: Arc<dyn Store>, clock: Arc<ManualClock>) -> Engine {
    let parts = EngineParts {
        store,
        clock,
        entropy: Arc::new(SeededEntropy::new(1)),
        transport: Arc::new(Nowhere),
        policy: Arc::new(EgressPolicy::new(Vec::new())),
        master_key: Key::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
        admin_key: Secret::new("gp_admin".to_owned()),
        public_url: "http://127.0.0.1:8080".to_owned(),
        limits: Limits::default(),
    };
    done(Engine::assemble(parts)).unwrap_or_else(|error| panic!("{error}")).0
}

fn engine() -> Engine {
    engine_on(Arc::new(SqliteStore::open_inline().unwrap()), Arc::default())
}

fn done<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("nothing is waited for but the store, which is inline")
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

pub(crate) fn put(engine: &Engine, nets: &[&str]) -> Tenant {
    let allow_nets = Some(nets.iter().map(|net| (*net).to_owned()).collect());
    let settings = SettingsInput { allow_nets, ..SettingsInput::default() };
    done(engine.put_tenant(acme(), TenantInput { settings: Some(settings), ..TenantInput::default() })).unwrap().0
}

pub(crate) fn hook(url: &str) -> WebhookInput {
    WebhookInput {
        name: Some("hook".to_owned()),
        url: Some(url.to_owned()),
        events: Some(vec!["*".to_owned()]),
        ..WebhookInput::default()
    }
}

fn create(engine: &Engine, tenant: &Tenant, url: &str) -> WebhookView {
    done(engine.create_webhook(tenant, hook(url))).unwrap().0
}

/// Publishes one event; the webhooks it goes to.
fn publish(engine: &Engine) -> Vec<gatepost_core::WebhookId> {
    let input = PublishInput {
        id: None,
        fallback: None,
        event_type: "user.created".parse().unwrap(),
        timestamp: None,
        subject: None,
        data: Bytes::from_static(b"{}"),
        attributes: None,
        urgency: None,
        trace: None,
    };
    let published = done(engine.publish(&acme(), vec![input], false)).unwrap().remove(0);
    let tenant = done(engine.tenant(&acme())).unwrap();
    let detail = done(engine.event(&tenant, &published.event.id)).unwrap();
    assert_eq!(detail.deliveries.len() as u32, published.deliveries);
    assert_eq!(detail.event.tenant, tenant.key);
    detail.deliveries.iter().map(|delivery| delivery.webhook_id).collect()
}

fn pointers<T: std::fmt::Debug>(answer: Result<T>) -> Vec<String> {
    match answer {
        Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
        other => panic!("{other:?}"),
    }
}

/// The earlier tenant had `before` changes to its webhooks and was published to; the later one of
/// the same id has `after`.
fn made_again(before: usize, after: usize) {
    let engine = engine();
    let tenant = put(&engine, &[]);
    let hooks: Vec<_> = (0..before).map(|_| create(&engine, &tenant, "https://old.example/x").webhook.id).collect();
    assert_eq!(publish(&engine), hooks);
    done(engine.delete_tenant(&acme())).unwrap();
    let tenant = put(&engine, &[]);
    let hooks: Vec<_> = (0..after).map(|_| create(&engine, &tenant, "https://new.example/x").webhook.id).collect();
    assert_eq!(publish(&engine), hooks, "{before} then {after}");
}

#[test]
fn p5_events_of_a_tenant_made_again_go_to_its_own_webhooks() {
    for before in 0..3 {
        for after in 0..3 {
            made_again(before, after);
        }
    }
}

/// The tenant is deleted and made again behind the engine's back, with or without the cache knowing:
/// whatever was held, it is matched against the present tenant's webhooks.
#[test]
fn p5_a_tenant_made_again_while_its_deletion_was_not_heard_of() {
    for after in 0..3 {
        let plan = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let lose = Arc::clone(&plan);
        let disk: Arc<dyn Store> = Arc::new(SqliteStore::open_inline().unwrap());
        let store = FaultStore::new(disk, move |call| {
            let lost = call.method == "delete_tenant" && lose.load(std::sync::atomic::Ordering::Relaxed);
            if lost { Fault::After } else { Fault::None }
        });
        let engine = engine_on(Arc::new(store), Arc::default());
        let tenant = put(&engine, &[]);
        create(&engine, &tenant, "https://old.example/x");
        publish(&engine);
        plan.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(done(engine.delete_tenant(&acme())).is_err(), "the answer is lost");
        assert!(done(engine.tenant(&acme())).is_err(), "but it is deleted");
        let tenant = put(&engine, &[]);
        let hooks: Vec<_> = (0..after).map(|_| create(&engine, &tenant, "https://new.example/x").webhook.id).collect();
        assert_eq!(publish(&engine), hooks);
    }
}

#[test]
fn a_webhook_that_is_no_longer_allowed_can_still_be_disabled_and_is_judged_where_it_changes() {
    let engine = engine();
    let tenant = put(&engine, &["10.0.0.0/8"]);
    let webhook = create(&engine, &tenant, "https://10.0.0.1/x").webhook;
    let tenant = put(&engine, &[]);
    let disabled = WebhookInput { enabled: Some(false), ..hook("https://10.0.0.1/x") };
    let webhook = done(engine.update_webhook(&tenant, webhook.id, webhook.revision, disabled)).unwrap().webhook;
    assert!(!webhook.config.enabled);

    let bad = WebhookInput {
        events: Some(vec!["user.*".into(), "..".into()]),
        filter: Some("((".into()),
        ..hook("https://10.0.0.2/x")
    };
    let answer = done(engine.update_webhook(&tenant, webhook.id, webhook.revision, bad));
    assert_eq!(pointers(answer), ["/url", "/events/1", "/filter"]);
    let answer = done(engine.update_webhook(&tenant, webhook.id, webhook.revision, WebhookInput::default()));
    assert_eq!(pointers(answer), ["/name", "/url", "/events"]);
    let none = WebhookInput { events: Some(Vec::new()), ..hook("https://10.0.0.1/x") };
    assert_eq!(pointers(done(engine.update_webhook(&tenant, webhook.id, webhook.revision, none))), ["/events"]);
}

#[test]
fn a_test_sends_only_what_a_webhook_can_get() {
    let engine = engine();
    let tenant = put(&engine, &[]);
    let point: gatepost_core::event::EventType = "cymmetri.changePassword".parse().unwrap();
    let example_of = |patterns: &[&str]| {
        let patterns: Vec<_> = patterns.iter().map(|p| (*p).to_owned()).collect();
        engine.test_event(&tenant, "standard", &patterns, TestInput::default()).unwrap().event_type
    };
    // Declared with an example, as anybody may, it would be the first that matches.
    let definition = engine.example_of(&"cymmetri.preProvision".parse().unwrap()).unwrap();
    assert!(definition.example.is_some());
    done(engine.put_event_type(point.clone(), (*definition).clone())).unwrap();
    assert_eq!(example_of(&[point.as_str()]).as_str(), "gatepost.ping");
    let first = example_of(&["cymmetri.*"]);
    assert!(first.as_str().starts_with("cymmetri.") && first != point, "{first}");

    let asked = TestInput { event_type: Some(point), data: Some(Bytes::from_static(b"{}")) };
    assert_eq!(pointers(engine.test_event(&tenant, "standard", &["*".to_owned()], asked)), ["/event_type"]);
    let own = TestInput { event_type: Some("gatepost.ping".parse().unwrap()), data: None };
    engine.test_event(&tenant, "standard", &["*".to_owned()], own).unwrap();
}

fn key(name: &str) -> KeyInput {
    KeyInput { name: name.to_owned(), scopes: vec![Scope::Read], tenant: Some(acme()), expires_at: None }
}

#[test]
fn a_key_is_bound_only_to_a_tenant_there_is() {
    let engine = engine();
    assert_eq!(pointers(done(engine.create_key(key("k")))), ["/tenant"]);
    assert_eq!(pointers(done(engine.create_key(key("")))), ["/name", "/tenant"]);
    put(&engine, &[]);
    let (_, text) = done(engine.create_key(key("k"))).unwrap();
    assert!(engine.authenticate(text.expose()).is_ok());
    done(engine.delete_tenant(&acme())).unwrap();
    assert!(engine.authenticate(text.expose()).is_err());
    assert_eq!(pointers(done(engine.create_key(key("k")))), ["/tenant"]);
}

#[test]
fn p5_a_key_left_over_from_an_earlier_tenant_does_not_open_the_next() {
    let clock = Arc::new(ManualClock::default());
    let disk: Arc<dyn Store> = Arc::new(SqliteStore::open_inline().unwrap());
    let store = FaultStore::new(disk, |call| if call.method == "delete_tenant" { Fault::After } else { Fault::None });
    let engine = engine_on(Arc::new(store), Arc::clone(&clock));
    put(&engine, &[]);
    let (_, text) = done(engine.create_key(key("k"))).unwrap();
    assert!(done(engine.delete_tenant(&acme())).is_err(), "the answer is lost");
    clock.set(Timestamp::from_secs(4_000_000_000));
    put(&engine, &[]);
    assert!(engine.authenticate(text.expose()).is_err());
    let (_, text) = done(engine.create_key(key("k"))).unwrap();
    put(&engine, &["10.0.0.0/8"]);
    assert!(engine.authenticate(text.expose()).is_ok());
}
