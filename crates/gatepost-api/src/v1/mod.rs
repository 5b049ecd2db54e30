//! The routes of `/v1`. Handlers read, ask the engine, and show; rules are not theirs.

pub(crate) mod deliveries;
pub(crate) mod event_types;
pub(crate) mod events;
pub(crate) mod hooks;
pub(crate) mod invocations;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod points;
pub(crate) mod setup;
pub(crate) mod stream;
pub(crate) mod subjects;
pub(crate) mod tenants;
pub(crate) mod verify;
pub(crate) mod webhooks;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::problem::Problem;
use crate::state::Received;
use crate::wire::{Errors, Read, Reader};

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer does not serialise");
        Problem::internal()
    })?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A JSON answer that says where what was made can be found.
pub(crate) fn created(location: &str, value: &impl Serialize) -> Result<Response, Problem> {
    let mut response = json(StatusCode::CREATED, value)?;
    // Ids and names are ASCII without control characters.
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// 204.
pub(crate) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

impl Received {
    /// Reads the body. What is malformed is answered; what is wrong is collected in `errors`.
    pub(crate) fn read<'a, T>(
        &'a self,
        errors: &mut Errors,
        read: impl FnOnce(&mut Reader<'a, '_>) -> Read<T>,
    ) -> Result<T, Problem> {
        Reader::new(&self.bytes, errors)
            .and_then(|mut reader| read(&mut reader))
            .map_err(|malformed| malformed.into_problem(&self.bytes))
    }
}
