//! The whole API over a real engine on a store in memory, with receivers that always say yes.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use gatepost_core::delivery::{Outcome, Response as Answer, Timings};
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::{Clock, Entropy};
use gatepost_engine::net::{EgressPolicy, Exchange, OutgoingRequest};
use gatepost_engine::store::{SqliteStore, Store};
use gatepost_engine::{Engine, EngineParts, Limits, Running, SystemClock, SystemEntropy, Transport};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::app::App;
use crate::state::Api;

/// The installation's admin key in these tests.
pub(crate) const ADMIN: &str = "gp_admin";

struct Yes;

impl Transport for Yes {
    fn send<'a>(&'a self, _: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(async {
            Exchange {
                started_at: SystemClock.now(),
                outcome: Outcome::Ok,
                status: Some(200),
                error: None,
                timings: Timings { connect_us: Some(400), total_us: 1_600, ..Timings::default() },
                response: Some(Answer { body: bytes::Bytes::from_static(&[0xff]), ..Answer::default() }),
                local_fault: false,
                unusable: false,
                resend: Default::default(),
            }
        })
    }
}

/// A server without a socket.
pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) engine: Engine,
    pub(crate) _running: Running,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Got {
    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The problem's code; the answer must be a whole problem.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].is_string(), "{member}: {problem}");
        }
        let code = problem["code"].as_str().unwrap().to_owned();
        assert!(crate::ErrorCode::ALL.iter().any(|known| known.as_str() == code), "{code}");
        code
    }

    /// The pointers of all errors.
    pub(crate) fn pointers(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

impl Server {
    /// A started one.
    pub(crate) async fn start() -> Server {
        Server::over(Arc::new(SqliteStore::open_inline().unwrap())).await
    }

    /// One over a store that can be made to fail.
    pub(crate) async fn over(store: Arc<dyn Store>) -> Server {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let parts = EngineParts {
            store,
            clock: Arc::new(SystemClock),
            master_key: Key::generate(&entropy),
            entropy,
            transport: Arc::new(Yes),
            policy: Arc::new(EgressPolicy::new(Vec::new())),
            admin_key: Secret::new(ADMIN),
            public_url: "http://127.0.0.1:8080".to_owned(),
            limits: Limits::default(),
        };
        let running = Running::start(parts).await.unwrap();
        let engine = running.engine();
        Server { app: crate::app(engine.clone()), engine, _running: running }
    }

    /// Other routes on the same engine.
    pub(crate) fn with(&self, routes: Router<Api>) -> App {
        App::new(routes, self.engine.clone())
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Got {
        let response = self.app.answer(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let got =
            Got { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() };
        assert!(got.headers.contains_key("x-request-id"), "{got:?}");
        got
    }

    /// Sends a request with `key` and a JSON body (none when empty).
    pub(crate) async fn call(&self, key: &str, method: &str, path: &str, body: &str) -> Got {
        self.typed(key, method, path, "application/json", body).await
    }

    /// Sends a request with `key` and a body of some content type.
    pub(crate) async fn typed(&self, key: &str, method: &str, path: &str, content_type: &str, body: &str) -> Got {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", content_type)
            .body(Body::from(body.to_owned()))
            .unwrap();
        self.send(request).await
    }

    /// As the administrator.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: &str) -> Got {
        self.call(ADMIN, method, path, body).await
    }

    /// A key with `scopes`, bound to `tenant` if one is given.
    pub(crate) async fn key(&self, scopes: &str, tenant: Option<&str>) -> String {
        let tenant = tenant.map_or("null".into(), |tenant| format!("\"{tenant}\""));
        let body = format!(r#"{{"name":"k","scopes":{scopes},"tenant":{tenant}}}"#);
        let made = self.admin("POST", "/v1/keys", &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["key"].as_str().unwrap().to_owned()
    }

    /// A tenant with this id.
    pub(crate) async fn tenant(&self, id: &str) {
        assert_eq!(self.admin("PUT", &format!("/v1/tenants/{id}"), "").await.status, 201);
    }

    /// A webhook of `tenant` for everything; its id.
    pub(crate) async fn webhook(&self, tenant: &str) -> String {
        let body = r#"{"name":"all","url":"https://hooks.example.com/x","events":["*"]}"#;
        let made = self.admin("POST", &format!("/v1/tenants/{tenant}/webhooks"), body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["id"].as_str().unwrap().to_owned()
    }
}
