use std::pin::Pin;

use bytes::Bytes;
use futures_util::FutureExt as _;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_store::SqliteStore;
use gatepost_testkit::{ManualClock, SeededEntropy};

use super::*;
use crate::deliver::Lane;
use crate::engine::{EngineParts, Limits};
use crate::net::{EgressPolicy, Exchange, OutgoingRequest};
use crate::ops::{TenantInput, WebhookInput};
use crate::transport::Transport;

struct Nobody;

impl Transport for Nobody {
    fn send<'a>(&'a self, _: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(std::future::pending())
    }
}

/// An engine that delivers nothing, with the tenants `acme` and `beta`.
async fn engine() -> (Engine, Lane) {
    let parts = EngineParts {
        store: Arc::new(SqliteStore::open_inline().unwrap()),
        clock: Arc::new(ManualClock::default()),
        entropy: Arc::new(SeededEntropy::new(1)),
        transport: Arc::new(Nobody),
        policy: Arc::new(EgressPolicy::new(Vec::new())),
        master_key: Key::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
        admin_key: Secret::new("gp_admin".to_owned()),
        public_url: "http://127.0.0.1:8080".to_owned(),
        limits: Limits::default(),
    };
    let (engine, lane, _) = Engine::assemble(parts).await.unwrap();
    for name in ["acme", "beta"] {
        engine.put_tenant(name.parse().unwrap(), TenantInput::default()).await.unwrap();
    }
    (engine, lane)
}

async fn webhooks(engine: &Engine, tenant: &TenantId, count: usize, filter: &str) {
    let tenant = engine.tenant(tenant).await.unwrap();
    for _ in 0..count {
        let input = WebhookInput {
            name: Some("w".into()),
            url: Some("https://hooks.example.com/x".into()),
            events: Some(vec!["user.*".into()]),
            filter: Some(filter.into()),
            ..WebhookInput::default()
        };
        engine.create_webhook(&tenant, input).await.unwrap();
    }
}

fn event(data: &str) -> PublishInput {
    PublishInput {
        id: None,
        fallback: None,
        event_type: "user.renamed_here".parse().unwrap(),
        timestamp: None,
        subject: None,
        data: Bytes::copy_from_slice(data.as_bytes()),
        attributes: None,
        urgency: None,
        trace: None,
    }
}

/// A list on which [`SEARCH`] takes a while.
fn list(items: usize) -> String {
    format!("{{\"l\":[{}]}}", vec!["\"aaaaaaaa\""; items].join(","))
}

const SEARCH: &str = "data.l.exists(x, x == 'b')";

#[tokio::test]
async fn p5_costly_filters_wait_for_their_tenants_turn_and_hold_up_nobody_else() {
    let (engine, _lane) = engine().await;
    let (acme, beta): (TenantId, TenantId) = ("acme".parse().unwrap(), "beta".parse().unwrap());
    webhooks(&engine, &acme, 3, SEARCH).await;
    webhooks(&engine, &beta, 3, SEARCH).await;
    let large = list(4_000);
    let turn = engine.inner.filter_turns.take(engine.tenant(&acme).await.unwrap().key).await;
    let mut waiting = Box::pin(engine.publish(&acme, vec![event(&large)], false));
    assert!((&mut waiting).now_or_never().is_none());
    // What is quick needs no turn, and other tenants have their own.
    assert!(engine.publish(&acme, vec![event("{\"l\":[\"b\"]}")], false).now_or_never().unwrap().is_ok());
    assert_eq!(engine.publish(&beta, vec![event(&large)], false).await.unwrap()[0].deliveries, 0);
    assert!((&mut waiting).now_or_never().is_none());
    drop(turn);
    let published = waiting.await.unwrap();
    let tenant = engine.tenant(&acme).await.unwrap();
    let detail = engine.event(&tenant, &published[0].event.id).await.unwrap();
    assert_eq!((detail.matching.len(), detail.matching_truncated), (3, false));
}

#[tokio::test]
async fn p5_the_runtime_goes_on_while_costly_filters_run() {
    let (engine, _lane) = engine().await;
    let acme: TenantId = "acme".parse().unwrap();
    webhooks(&engine, &acme, 3, SEARCH).await;
    // On the only thread there is, this task runs only while the publish leaves it.
    let beside = tokio::spawn(async {});
    let large = list(4_000);
    engine.publish(&acme, vec![event(&large)], false).await.unwrap();
    assert!(beside.is_finished());
}

#[tokio::test]
async fn p5_data_on_which_the_filters_cost_too_much_are_refused_and_say_so() {
    let (engine, _lane) = engine().await;
    let acme: TenantId = "acme".parse().unwrap();
    // Each alone is affordable on this event, all together are not.
    webhooks(&engine, &acme, 80, "[data, data, data, data, data].size() == 1").await;
    let large = format!("\"{}\"", "x".repeat(200_000));
    let pointer = |outcome: Result<Vec<Published>>| match outcome {
        Err(Error::Invalid(errors)) => {
            assert!(errors[0].message.contains("filters"), "{}", errors[0].message);
            errors[0].pointer.clone()
        }
        other => panic!("{:?}", other.map(|published| published.len())),
    };
    assert_eq!(pointer(engine.publish(&acme, vec![event(&large)], false).await), "/data");
    let batch = vec![event("1"), event(&large)];
    assert_eq!(pointer(engine.publish(&acme, batch, true).await), "/events/1/data");
    // Nothing of it was accepted.
    assert!(engine.publish(&acme, vec![event("1")], false).await.is_ok());
}

#[tokio::test]
async fn an_explanation_too_costly_to_finish_says_that_it_is_cut() {
    let (engine, _lane) = engine().await;
    let acme: TenantId = "acme".parse().unwrap();
    webhooks(&engine, &acme, 3, SEARCH).await;
    let published = engine.publish(&acme, vec![event(&list(10))], false).await.unwrap();
    let tenant = engine.tenant(&acme).await.unwrap();
    let history = engine.inner.store.registry_at(tenant.key, published[0].event.registry_version, 10).await.unwrap();
    let explained = |budget| explain_all(&published[0].event, &history.webhooks, false, budget);
    let (rows, cut) = explained(FilterBudget::of_explanation());
    assert_eq!((rows.len(), cut), (3, false));
    // Enough to compile and run one of them, not three.
    let (rows, cut) = explained(FilterBudget::of(2.0 * (250.0 * SEARCH.len() as f64 + 10_000.0)));
    assert!(cut && (1..3).contains(&rows.len()), "{rows:?}");
}

#[tokio::test]
async fn p6_deliveries_that_are_not_shown_are_not_hidden() {
    let (engine, _lane) = engine().await;
    let acme: TenantId = "acme".parse().unwrap();
    webhooks(&engine, &acme, SHOWN_WITH_EVENT, "true").await;
    let tenant = engine.tenant(&acme).await.unwrap();
    for truncated in [false, true] {
        let published = engine.publish(&acme, vec![event("1")], false).await.unwrap();
        let detail = engine.event(&tenant, &published[0].event.id).await.unwrap();
        assert_eq!((detail.deliveries.len(), detail.deliveries_truncated), (SHOWN_WITH_EVENT, truncated));
        webhooks(&engine, &acme, 1, "true").await;
    }
}
