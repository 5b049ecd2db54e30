//! The listening side, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::requests::{ADMIN, Server};
use crate::app::App;

/// Serves `app`; answers where, how to stop it, and its end.
async fn listen(app: App) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(crate::serve(listener, app, 100, async move {
        let _ = stopped.await;
    }));
    (addr, stop, serving)
}

#[expect(clippy::disallowed_methods, reason = "a test is a client of its own server")]
async fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect(addr).await
}

async fn talk(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_in_flight_are_finished_after_the_stop() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&arrived), Arc::clone(&go));
    let slow = async move || {
        tell.notify_one();
        wait.notified().await;
        "done"
    };
    let server = Server::start().await;
    let (addr, stop, serving) = listen(server.with(Router::new().route("/", get(slow)))).await;
    // An idle connection must not hold the stop up.
    let idle = connect(addr).await.unwrap();
    let request = tokio::spawn(async move { talk(addr, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await });
    arrived.notified().await;
    stop.send(()).unwrap();
    // Once nobody listens any more the stop has begun.
    while connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!serving.is_finished());
    go.notify_one();
    assert!(request.await.unwrap().ends_with("done"));
    serving.await.unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn heads_of_any_size_are_answered() {
    let server = Server::start().await;
    let (addr, _stop, _serving) = listen(server.app.clone()).await;
    let head = |bytes: usize| {
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-a: {}\r\n\r\n", "a".repeat(bytes))
    };
    assert!(talk(addr, head(10).as_bytes()).await.starts_with("HTTP/1.1 200"));
    let large = talk(addr, head(40_000).as_bytes()).await;
    assert!(large.starts_with("HTTP/1.1 431") && large.contains("header_fields_too_large"), "{large}");
    let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n", "x-a: 1\r\n".repeat(150));
    assert!(talk(addr, many.as_bytes()).await.contains("header_fields_too_large"));
}

#[tokio::test]
async fn a_body_too_large_is_answered_to_a_sender_still_sending() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let (addr, _stop, _serving) = listen(server.app.clone()).await;
    let length = 8 << 20;
    let mut request = format!(
        "POST /v1/tenants/acme/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + length, b' ');
    let answer = talk(addr, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("payload_too_large"), "{answer}");
}

#[tokio::test]
async fn bodies_that_break_off_are_no_events() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let (addr, _stop, _serving) = listen(server.app.clone()).await;
    let mut stream = connect(addr).await.unwrap();
    let request = format!(
        "POST /v1/tenants/acme/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: 100\r\n\r\n{{\"type\":\"a\"}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    let events = server.admin("GET", "/v1/tenants/acme/events", "").await.json();
    assert_eq!(events["data"], serde_json::json!([]));
}

#[tokio::test]
async fn an_answer_begun_before_the_whole_head_is_none() {
    let echo = Router::new().route("/", post(async |body: String| body));
    let server = Server::start().await;
    let (addr, stop, serving) = listen(server.with(echo)).await;
    let mut slow = connect(addr).await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nhost").await.unwrap();
    // Half a head is no request in flight: the stop does not wait for it.
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap_or_default();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn p2_a_change_is_finished_when_its_caller_hangs_up() {
    let server = Server::start().await;
    let (arrived, go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait, end) = (Arc::clone(&arrived), Arc::clone(&go), Arc::clone(&done));
    let change = async move || {
        tell.notify_one();
        // The store has committed; what follows in memory is still to come.
        wait.notified().await;
        end.notify_one();
    };
    let (addr, stop, serving) = listen(server.with(Router::new().route("/", post(change)))).await;
    let mut caller = connect(addr).await.unwrap();
    caller.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    arrived.notified().await;
    drop(caller);
    stop.send(()).unwrap();
    // The connection is gone with its caller.
    serving.await.unwrap().unwrap();
    go.notify_one();
    let finished = tokio::time::timeout(std::time::Duration::from_secs(20), done.notified()).await;
    finished.expect("the change ended with its caller");
}

#[tokio::test]
async fn half_a_head_does_not_hold_the_stop_up() {
    let server = Server::start().await;
    let (addr, stop, serving) = listen(server.with(Router::new().route("/", get(async || "done")))).await;
    let mut half = connect(addr).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    // Another request after it: by then the server has read the half.
    talk(addr, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), serving).await;
    ended.expect("the stop waits for the rest of the head").unwrap().unwrap();
}
