//! `Idempotency-Key` when the store loses answers: what was done is not done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use gatepost_engine::store::fault::Fault;
use gatepost_engine::store::{FaultStore, SqliteStore};
use http::Request;

use super::requests::{ADMIN, Got, Server};

/// A server whose store, while told so, applies these calls and loses their answers.
async fn losing(methods: &'static [&'static str]) -> (Server, Arc<AtomicBool>) {
    let lose = Arc::new(AtomicBool::new(false));
    let plan = Arc::clone(&lose);
    let store = FaultStore::new(Arc::new(SqliteStore::open_inline().unwrap()), move |call| {
        if plan.load(Ordering::SeqCst) && methods.contains(&call.method) { Fault::After } else { Fault::None }
    });
    let server = Server::over(Arc::new(store)).await;
    server.tenant("acme").await;
    (server, lose)
}

async fn post(server: &Server, path: &str, body: &str) -> Got {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("idempotency-key", "k")
        .body(Body::from(body.to_owned()));
    server.send(request.unwrap()).await
}

async fn count(server: &Server, list: &str) -> usize {
    server.admin("GET", list, "").await.json()["data"].as_array().unwrap().len()
}

const WEBHOOK: &str = r#"{"name":"w","url":"https://hooks.example.com/x","events":["user.*"]}"#;

#[tokio::test]
async fn what_was_made_while_its_answer_was_lost_is_answered_the_next_time() {
    for (path, body, status, method) in [
        ("/v1/tenants/acme/webhooks", WEBHOOK, 201, "create_webhook"),
        ("/v1/keys", r#"{"name":"k","scopes":["read"]}"#, 201, "create_key"),
        ("/v1/tenants/acme/events", r#"{"type":"a"}"#, 202, "publish_once"),
        ("/v1/tenants/acme/events/batch", r#"{"events":[{"type":"a"}]}"#, 202, "publish_once"),
    ] {
        let methods: &'static [&'static str] = Box::leak(Box::new([method]));
        let (server, lose) = losing(methods).await;
        lose.store(true, Ordering::SeqCst);
        assert_eq!(post(&server, path, body).await.status, 503, "{path}");
        lose.store(false, Ordering::SeqCst);
        let list = path.trim_end_matches("/batch");
        assert_eq!(count(&server, list).await, 1, "{path}: it was made");
        let answered = post(&server, path, body).await;
        assert_eq!(answered.status, status, "{answered:?}");
        assert_eq!(count(&server, list).await, 1, "{path}: made twice");
        let again = post(&server, path, body).await;
        assert_eq!(again.headers["idempotency-replayed"], "true", "{path}");
        assert_eq!(again.json()["id"], answered.json()["id"], "{path}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_is_answered_all_the_same() {
    let (server, lose) = losing(&["record_answer", "forget_idempotent"]).await;
    lose.store(true, Ordering::SeqCst);
    let made = post(&server, "/v1/tenants/acme/webhooks", WEBHOOK).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(post(&server, "/v1/tenants/acme/webhooks", "{}").await.code(), "idempotency_key_conflict");
    let refused = Request::post("/v1/keys")
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("idempotency-key", "k")
        .body(Body::from("{}"));
    assert_eq!(server.send(refused.unwrap()).await.status, 422);
}

#[tokio::test]
async fn without_the_store_a_key_is_no_way_around_it() {
    let failing = Arc::new(AtomicBool::new(true));
    let plan = Arc::clone(&failing);
    let broken = FaultStore::new(Arc::new(SqliteStore::open_inline().unwrap()), move |call| {
        let key = matches!(call.method, "begin_idempotent" | "idempotency");
        if key && plan.load(Ordering::SeqCst) { Fault::Before } else { Fault::None }
    });
    let server = Server::over(Arc::new(broken)).await;
    server.tenant("acme").await;
    for (path, body) in [("/v1/tenants/acme/webhooks", WEBHOOK), ("/v1/tenants/acme/events", r#"{"type":"a"}"#)] {
        assert_eq!(post(&server, path, body).await.code(), "store_unavailable", "{path}");
        assert_eq!(count(&server, path).await, 0, "{path}");
    }
    failing.store(false, Ordering::SeqCst);
    assert_eq!(post(&server, "/v1/tenants/acme/webhooks", WEBHOOK).await.status, 201);
}
