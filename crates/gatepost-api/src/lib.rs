//! # gatepost-api: Gatepost over HTTP
//!
//! The routes of `/v1` and those operators' tools ask. This crate reads requests, strictly, calls
//! the engine, and shows what it answered; it decides nothing else.
//!
//! Contract: **every** error of **every** route is `application/problem+json` with a code of one
//! closed list ([`ErrorCode`]) and all wrong members at once; nobody without a valid key makes us
//! read a body; bodies, heads, connections and waiting are bounded (P10); no panic and nothing of
//! the inside reaches a caller; a foreign tenant looks like one that does not exist (P5).
//!
//! To add a route: a handler in [`v1`](self) with its `utoipa::path`, its request read in `wire`, its
//! answer shown in `wire::show`; one line in `openapi::routes` and one in `observe::ROUTES`; then
//! `UPDATE_DOCS=1 cargo nextest run -p gatepost-api`.

mod alarm;
mod answers;
mod app;
mod body;
mod compat;
mod door;
mod health;
mod hints;
mod idempotency;
mod observe;
mod openapi;
mod problem;
mod reference;
mod refusal;
mod serve;
mod state;
mod strangers;
#[cfg(test)]
mod tests;
mod v1;
mod wire;

use axum::Router;
use gatepost_engine::Engine;

pub use app::{Answering, App};
pub use problem::{ErrorCode, errors_markdown};
pub use serve::serve;

/// The whole HTTP API of `engine`.
pub fn app(engine: Engine) -> App {
    App::new(Router::from(openapi::routes()).merge(compat::routes()), engine)
}

/// The OpenAPI 3.1 document of the API, as `/openapi.json` serves it.
pub fn openapi_json() -> String {
    openapi::document().to_owned()
}
