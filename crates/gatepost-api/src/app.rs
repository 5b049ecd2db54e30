//! The API as one service: every route, and what is around them all.
//!
//! Of routes and handlers axum knows; what is around them is plain functions, called once per request,
//! rather than layers: each of those costs clones and boxes at every level.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use gatepost_engine::Engine;
use http::StatusCode;
use http::header::ALLOW;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Handle;

use crate::hints;
use crate::observe;
use crate::state::Api;

/// The whole HTTP API of an engine. Cheap to clone.
#[derive(Clone)]
pub struct App {
    api: Api,
    routes: TowerToHyperService<Router>,
}

impl App {
    /// `routes`, with what is around every route.
    pub(crate) fn new(routes: Router<Api>, engine: Engine) -> App {
        let api = Api::new(engine);
        let routes =
            routes.fallback(async |request: Request| hints::no_route(request.uri().path())).with_state(api.clone());
        App { api, routes: TowerToHyperService::new(routes) }
    }

    /// What handlers share.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// The route's answer, with nothing around it.
    pub(crate) async fn route(&self, request: Request) -> Response {
        let method = request.method().clone();
        let answer: Result<Response, Infallible> = self.routes.call(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => hints::no_method(&method, answer.headers().get(ALLOW)).into_response(),
            _ => answer,
        }
    }

    /// Answers `request`.
    ///
    /// What may change something runs to its end whoever listens: a caller that hangs up between the
    /// commit and what follows it in memory must not leave the two apart.
    ///
    /// An invocation changes nothing here, and is dropped with its caller: then its receivers are too.
    pub fn answer(&self, request: Request) -> Answering {
        self.answer_to(None, request)
    }

    /// The same, for a caller whose address is known.
    pub(crate) fn answer_to(&self, peer: Option<IpAddr>, request: Request) -> Answering {
        let route = observe::template(request.uri().path());
        let finishes = !request.method().is_safe() && !route.ends_with("/invoke");
        let making = Box::pin(observe::observe(self.clone(), route, peer, request));
        Answering { making: Some(making), finishes, asks_for_a_key: observe::asks_for_a_key(route) }
    }
}

/// An answer being made, by whoever waits for it; dropped before its end it goes on by itself, if it
/// has to be finished.
#[must_use = "nothing happens unless it is polled"]
pub struct Answering {
    making: Option<Pin<Box<dyn Future<Output = Response> + Send>>>,
    finishes: bool,
    asks_for_a_key: bool,
}

impl Answering {
    /// Whether only who has a key is answered well.
    pub(crate) fn asks_for_a_key(&self) -> bool {
        self.asks_for_a_key
    }
}

impl Future for Answering {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        // Not there while it runs: one that panics is not gone on with.
        let Some(mut making) = self.making.take() else { return Poll::Pending };
        let polled = making.as_mut().poll(cx);
        if polled.is_pending() {
            self.making = Some(making);
        }
        polled
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(making) = self.making.take().filter(|_| self.finishes)
            // Without a runtime the process is at its end, which is a crash like any other.
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(making);
        }
    }
}
