use std::sync::Arc;

use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_store::fault::Fault;
use gatepost_store::{FaultStore, PageRequest, Scope, SqliteStore};
use gatepost_testkit::ManualClock;

use super::*;
use crate::ops::KeyInput;
use crate::ops::tests::{engine_on, hook, put};
use crate::origin::repeatable;

fn request<'a>(tenant: &Tenant, path: &'a str, content: &'a [Option<&'a [u8]>]) -> KeyedRequest<'a> {
    KeyedRequest { tenant: Some(tenant.key), method: "POST", path, key: "k", content, publishes: false }
}

fn answer(text: &str) -> RecordedAnswer {
    RecordedAnswer { status: 201, headers: Vec::new(), body: bytes::Bytes::copy_from_slice(text.as_bytes()) }
}

/// An engine whose store loses every answer to be recorded.
fn forgetful() -> (Engine, Arc<ManualClock>) {
    let inner = Arc::new(SqliteStore::open_inline().unwrap());
    let store = FaultStore::new(inner, |call| match call.method {
        "record_answer" => Fault::Before,
        _ => Fault::None,
    });
    let clock = Arc::new(ManualClock::default());
    (engine_on(Arc::new(store), Arc::clone(&clock)), clock)
}

async fn first(engine: &Engine, request: &KeyedRequest<'_>) -> Turn {
    match engine.idempotent(request).await.unwrap() {
        Idempotent::First(turn) => turn,
        _ => panic!("not the first"),
    }
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_makes_the_same_thing_again() {
    let (engine, clock) = forgetful();
    let tenant = put(&engine, &[]);
    let page = PageRequest { limit: 10, after: None };
    let make_webhook = || {
        repeatable(async {
            let turn = first(&engine, &request(&tenant, "/webhooks", &[])).await;
            let (view, secret) = engine.create_webhook(&tenant, hook("https://a.example/")).await.unwrap();
            turn.answered(answer("lost")).await;
            (view.webhook.id, secret.map(|secret| secret.expose().to_owned()))
        })
    };
    let once = make_webhook().await;
    clock.advance(Duration::from_secs(60));
    assert_eq!(make_webhook().await, once);
    assert_eq!(engine.webhooks(&tenant, page).await.unwrap().rows.len(), 1);

    let make_key = || {
        repeatable(async {
            let turn = first(&engine, &request(&tenant, "/keys", &[])).await;
            let scopes = vec![Scope::Read];
            let input = KeyInput { name: "k".to_owned(), scopes, tenant: None, expires_at: None };
            let (row, key) = engine.create_key(input).await.unwrap();
            turn.answered(answer("lost")).await;
            (row.id, key)
        })
    };
    let (id, key) = make_key().await;
    clock.advance(Duration::from_secs(60));
    let again = make_key().await;
    assert_eq!((again.0, again.1.expose()), (id, key.expose()));
    assert_eq!(engine.keys(page).await.unwrap().rows.len(), 1);
    assert!(engine.authenticate(key.expose()).is_ok());
    // A day later it is another request.
    clock.advance(KNOWN_FOR);
    assert_ne!(make_webhook().await, once);
    assert_eq!(engine.webhooks(&tenant, page).await.unwrap().rows.len(), 2);
}

#[tokio::test]
async fn without_a_key_nothing_repeats() {
    let (engine, _) = forgetful();
    let tenant = put(&engine, &[]);
    let make = || repeatable(engine.create_webhook(&tenant, hook("https://a.example/")));
    let (one, two) = (make().await.unwrap(), make().await.unwrap());
    assert_ne!(one.0.webhook.id, two.0.webhook.id);
    let text = |secret: Option<Secret>| secret.map(|secret| secret.expose().to_owned());
    assert_ne!(text(one.1), text(two.1));
}

#[tokio::test(start_paused = true)]
async fn twins_wait_for_each_other_and_others_do_not() {
    let engine = engine_on(Arc::new(SqliteStore::open_inline().unwrap()), Arc::default());
    let tenant = put(&engine, &[]);
    let content: [Option<&[u8]>; 1] = [Some(b"body")];
    let same = request(&tenant, "/x", &content);
    let other: [Option<&[u8]>; 1] = [Some(b"other")];
    let turn = first(&engine, &same).await;
    assert!(matches!(engine.idempotent(&request(&tenant, "/x", &other)).await.unwrap(), Idempotent::OtherRequest));
    // Another path is another request.
    first(&engine, &request(&tenant, "/y", &content)).await.refused().await;
    // One that waits long enough is told so.
    assert!(matches!(engine.idempotent(&same).await.unwrap(), Idempotent::StillRunning));
    let mut twin = std::pin::pin!(engine.idempotent(&same));
    tokio::select! {
        biased;
        _ = &mut twin => panic!("it does not wait"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    turn.answered(answer("one")).await;
    assert!(matches!(twin.await.unwrap(), Idempotent::Again(given) if given == answer("one")));
    assert!(matches!(engine.idempotent(&request(&tenant, "/x", &other)).await.unwrap(), Idempotent::OtherRequest));
    // Of a refused one the next takes the turn; so it is of one that vanished.
    let turn = first(&engine, &request(&tenant, "/z", &content)).await;
    turn.refused().await;
    drop(first(&engine, &request(&tenant, "/z", &content)).await);
    first(&engine, &request(&tenant, "/z", &content)).await.answered(answer("two")).await;
    assert!(engine.inner.flights.0.lock().unwrap().is_empty());
}
