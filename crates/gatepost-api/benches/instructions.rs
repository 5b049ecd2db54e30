//! Instructions of a publish from its request to its answer, counted by Valgrind: scripts/instructions.sh.
//!
//! Everything is there but the socket and the disk: routing, the key, reading the event, matching, the store's
//! transaction (in memory, on the same thread), the answer. Nothing is delivered: the tenant's webhook asks for
//! something else.

#![expect(missing_docs, reason = "what the macros make of a benchmark has none")]

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use gatepost_api::App;
use gatepost_core::Clock;
use gatepost_core::delivery::{Outcome, Timings};
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_engine::net::{EgressPolicy, Exchange, OutgoingRequest};
use gatepost_engine::store::SqliteStore;
use gatepost_engine::{EngineParts, Limits, Running, SystemClock, SystemEntropy, Transport};
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::Request;
use tokio::runtime::Runtime;

const ADMIN: &str = "gp_admin";
/// How many requests.
const TIMES: usize = 100;

/// Nothing is sent.
struct Nowhere;

impl Transport for Nowhere {
    fn send<'a>(&'a self, _: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(async {
            Exchange {
                started_at: SystemClock.now(),
                outcome: Outcome::Connect,
                status: None,
                error: None,
                timings: Timings::default(),
                response: None,
                local_fault: true,
                unusable: false,
                resend: Default::default(),
            }
        })
    }
}

struct World {
    runtime: Runtime,
    app: App,
    requests: Vec<Request<Body>>,
    _running: Running,
}

fn request(method: &str, path: &str, body: String) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("content-type", "application/json")
        .body(Body::from(body))
        .expect("a request")
}

/// Requests of one event, or of so many.
fn requests(events: usize, run: usize) -> Vec<Request<Body>> {
    let pad = "x".repeat(900);
    let event = |number: usize| {
        format!(
            r#"{{"id":"b-{run}-{number}","type":"user.created","subject":{{"type":"user","id":"u-1"}},"data":{{"user":"u-1","pad":"{pad}"}}}}"#
        )
    };
    let one = |number: usize| {
        if events == 1 {
            return request("POST", "/v1/tenants/acme/events", event(number));
        }
        let all: Vec<_> = (0..events).map(|inside| event(number * events + inside)).collect();
        request("POST", "/v1/tenants/acme/events/batch", format!(r#"{{"events":[{}]}}"#, all.join(",")))
    };
    (0..TIMES.div_ceil(events)).map(one).collect()
}

async fn answered(app: &App, request: Request<Body>) {
    let status = app.answer(request).await.status();
    assert!(status.is_success(), "{status}");
}

fn world(events: usize) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let entropy = Arc::new(SystemEntropy);
    let parts = EngineParts {
        store: Arc::new(SqliteStore::open_inline().expect("there is memory")),
        clock: Arc::new(SystemClock),
        master_key: Key::generate(&entropy),
        entropy,
        transport: Arc::new(Nowhere),
        policy: Arc::new(EgressPolicy::new(Vec::new())),
        admin_key: Secret::new(ADMIN),
        public_url: "http://127.0.0.1:8080".to_owned(),
        limits: Limits::default(),
    };
    let (running, app) = runtime.block_on(async {
        let running = Running::start(parts).await.expect("it starts");
        let app = gatepost_api::app(running.engine());
        answered(&app, request("PUT", "/v1/tenants/acme", "{}".into())).await;
        let webhook = r#"{"name":"w","url":"https://hooks.example.com/","events":["group.*"]}"#;
        answered(&app, request("POST", "/v1/tenants/acme/webhooks", webhook.into())).await;
        for request in requests(events, 0) {
            answered(&app, request).await;
        }
        // What follows the webhook's creation is over then.
        tokio::time::sleep(Duration::from_millis(200)).await;
        (running, app)
    });
    World { runtime, app, requests: requests(events, 1), _running: running }
}

#[library_benchmark]
#[bench::one_event(args = (1), setup = world)]
#[bench::batch_of_100(args = (100), setup = world)]
fn publish(mut world: World) -> World {
    for request in std::mem::take(&mut world.requests) {
        world.runtime.block_on(answered(&world.app, request));
    }
    world
}

library_benchmark_group!(name = api, benchmarks = publish);
main!(library_benchmark_groups = api);
