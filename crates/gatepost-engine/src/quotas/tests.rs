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
use crate::ops::{PublishInput, QuotasInput, SettingsInput, TenantInput, WebhookInput};
use crate::transport::Transport;

struct Nobody;

impl Transport for Nobody {
    fn send<'a>(&'a self, _: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(std::future::pending())
    }
}

struct World {
    engine: Engine,
    lane: Lane,
    clock: Arc<ManualClock>,
    tenant: TenantId,
}

/// A tenant with these quotas and so many webhooks, whose lane is driven by hand.
async fn world(quotas: QuotasInput, webhooks: usize) -> World {
    let clock = Arc::new(ManualClock::default());
    let parts = EngineParts {
        store: Arc::new(SqliteStore::open_inline().unwrap()),
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(1)),
        transport: Arc::new(Nobody),
        policy: Arc::new(EgressPolicy::new(Vec::new())),
        master_key: Key::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
        admin_key: Secret::new("gp_admin".to_owned()),
        public_url: "http://127.0.0.1:8080".to_owned(),
        limits: Limits::default(),
    };
    let (engine, lane, _) = Engine::assemble(parts).await.unwrap();
    let tenant: TenantId = "acme".parse().unwrap();
    let settings = Some(SettingsInput { quotas, ..SettingsInput::default() });
    engine.put_tenant(tenant.clone(), TenantInput { settings, ..TenantInput::default() }).await.unwrap();
    let present = engine.tenant(&tenant).await.unwrap();
    for _ in 0..webhooks {
        let input = WebhookInput {
            name: Some("w".into()),
            url: Some("https://hooks.example.com/x".into()),
            events: Some(vec!["user.*".into()]),
            ..WebhookInput::default()
        };
        engine.create_webhook(&present, input).await.unwrap();
    }
    World { engine, lane, clock, tenant }
}

fn event(id: Option<&str>) -> PublishInput {
    PublishInput {
        id: id.map(|id| id.parse().unwrap()),
        fallback: None,
        event_type: "user.created".parse().unwrap(),
        timestamp: None,
        subject: None,
        data: Bytes::from_static(b"{}"),
        attributes: None,
        urgency: None,
        trace: None,
    }
}

impl World {
    async fn publish(&self, events: Vec<PublishInput>) -> Result<usize> {
        self.engine.publish(&self.tenant, events, true).await.map(|published| published.len())
    }

    /// The quota that refuses so many new events.
    async fn refuses(&self, events: usize) -> Option<QuotaRefusal> {
        match self.publish(vec![event(None); events]).await {
            Ok(_) => None,
            Err(Error::Quota(refusal)) => Some(*refusal),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_rate_is_a_seconds_worth_at_once_and_then_its_pace() {
    let world = world(QuotasInput { events_per_s: Some(Some(10)), ..QuotasInput::default() }, 0).await;
    assert_eq!(world.publish(vec![event(None); 10]).await.unwrap(), 10);
    let refusal = world.refuses(1).await.expect("they are used up");
    let state = QuotaState { quota: Quota::EventsPerS, limit: 10, left: 0, reset_s: Some(1) };
    assert_eq!((refusal.state, refusal.retry_after_s), (state, 1));
    for (millis, fits) in [(99, 0), (1, 1), (350, 3), (10_000, 10)] {
        world.clock.advance(Duration::from_millis(millis));
        assert!(world.refuses(fits + 1).await.is_some(), "{fits} after {millis} ms");
        assert_eq!(world.publish(vec![event(None); fits]).await.unwrap(), fits, "what was refused is given back");
    }
    // The remaining half of an event is not lost, and is none.
    assert!(world.refuses(1).await.is_some());
    let too_many = world.refuses(11).await.expect("they never fit");
    assert!(too_many.message.contains("send fewer at once"), "{}", too_many.message);
}

#[tokio::test]
async fn what_is_not_accepted_is_not_counted() {
    let world = world(QuotasInput { events_per_s: Some(Some(3)), ..QuotasInput::default() }, 0).await;
    let bad = PublishInput { event_type: "gatepost.x".parse().unwrap(), ..event(None) };
    for _ in 0..10 {
        assert!(matches!(world.publish(vec![bad.clone()]).await, Err(Error::Invalid(_))));
    }
    world.publish(vec![event(Some("e-1"))]).await.unwrap();
    let other = PublishInput { data: Bytes::from_static(b"[]"), ..event(Some("e-1")) };
    for _ in 0..10 {
        assert!(matches!(world.publish(vec![other.clone()]).await, Err(Error::Conflict { .. })));
    }
    assert_eq!(world.publish(vec![event(Some("e-1")), event(None)]).await.unwrap(), 2, "duplicates count");
    assert!(world.refuses(1).await.is_some());
}

#[tokio::test]
async fn p6_pending_is_exact_whatever_memory_knows() {
    let quotas = QuotasInput { pending: Some(Some(6)), ..QuotasInput::default() };
    let mut world = world(quotas, 2).await;
    assert_eq!(world.publish(vec![event(Some("e-1")), event(Some("e-2"))]).await.unwrap(), 2);
    let refusal = world.refuses(2).await.expect("four more do not fit");
    assert_eq!((refusal.state.left, refusal.state.reset_s, refusal.retry_after_s), (2, None, 5));
    assert!(world.refuses(1).await.is_none());
    // Full. Duplicates need no room, and take none from what is new beside them.
    assert_eq!(world.publish(vec![event(Some("e-1")), event(Some("e-2"))]).await.unwrap(), 2);
    assert!(world.publish(vec![event(Some("e-1")), event(None)]).await.is_err());
    // Room is made by whatever ends a delivery, without anybody telling.
    let tenant = world.engine.tenant(&world.tenant).await.unwrap();
    let page = gatepost_store::PageRequest { limit: 10, after: None };
    let webhooks = world.engine.webhooks(&tenant, page).await.unwrap();
    world.engine.delete_webhook(&tenant, webhooks.rows[0].webhook.id).await.unwrap();
    world.lane.turn(world.engine.now());
    assert!(world.refuses(4).await.is_some(), "three wait, and one each would be added");
    assert!(world.refuses(3).await.is_none());
    assert!(world.refuses(1).await.is_some());
    // More than the quota by itself never fits, and costs no counting.
    assert!(world.refuses(7).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn publishers_wait_for_the_lane_and_are_told_when_it_takes_too_long() {
    let mut world = world(QuotasInput::default(), 1).await;
    for _ in 0..9 {
        world.publish(vec![event(None); 1_000]).await.unwrap();
    }
    let key = world.engine.tenant(&world.tenant).await.unwrap().key;
    let store = Arc::clone(&world.engine.inner.store);
    assert_eq!(store.pending_count(key, 10_000).await.unwrap(), 9_000);
    let began = tokio::time::Instant::now();
    assert!(matches!(world.publish(vec![event(None)]).await, Err(Error::Busy)));
    assert_eq!(began.elapsed(), PATIENCE);
    assert_eq!(store.pending_count(key, 10_000).await.unwrap(), 9_000, "what is refused is not accepted");
    // The lane looks at what it was told: whoever waits goes on.
    let now = world.engine.now();
    let World { engine, tenant, lane, .. } = &mut world;
    let mut waiting = Box::pin(engine.publish(tenant, vec![event(None)], false));
    assert!((&mut waiting).now_or_never().is_none());
    lane.turn(now);
    assert_eq!(waiting.await.unwrap().len(), 1);
    let metrics = world.engine.metrics_text().await;
    assert!(metrics.contains("gatepost_publish_waits_total{outcome=\"refused\"} 1"), "{metrics}");
    assert!(metrics.contains("gatepost_publish_waits_total{outcome=\"went_on\"} 1"), "{metrics}");
}

#[test]
fn p10_tenants_remembered_are_bounded() {
    let book = QuotaBook::default();
    let now = Timestamp::from_secs(1_000);
    for tenant in 0..TENANTS as i64 {
        book.of(TenantKey(tenant), now);
    }
    // One whose allowance is not full is remembered, the others say nothing.
    book.of(TenantKey(1), now).take(5, 3, now).unwrap();
    book.of(TenantKey(-1), now);
    assert_eq!(lock(&book.books).len(), 2);
    let left = lock(&book.of(TenantKey(1), now).rate).as_ref().map(|rate| rate.state().left);
    assert_eq!(left, Some(2));
}
