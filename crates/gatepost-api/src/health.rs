//! What operators' tools ask, without a key: alive, ready, measured, described.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::Api;
use crate::v1::json;

/// How the server is.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerHealth)]
pub(crate) struct Health {
    /// `ok`, `draining` or `store_unavailable`.
    status: &'static str,
}

/// Liveness
///
/// 200 as long as the process answers at all.
#[utoipa::path(
    get, path = "/healthz", operation_id = "checkLiveness", tag = "operations", security(()),
    responses((status = 200, description = "Alive", body = Health))
)]
pub(crate) async fn healthz() -> Response {
    json(StatusCode::OK, &Health { status: "ok" }).into_response()
}

/// Readiness
///
/// 200 when the store can be read and written and the server is not stopping.
#[utoipa::path(
    get, path = "/readyz", operation_id = "checkReadiness", tag = "operations", security(()),
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not ready", body = Health),
    )
)]
pub(crate) async fn readyz(State(api): State<Api>) -> Response {
    let status = if api.engine().draining() {
        "draining"
    } else if let Err(error) = api.engine().check().await {
        tracing::warn!(%error, "not ready");
        "store_unavailable"
    } else {
        return json(StatusCode::OK, &Health { status: "ok" }).into_response();
    };
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &Health { status }).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Metrics
///
/// In the OpenMetrics text format, for Prometheus. Nothing of any tenant is in it.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "operations", security(()),
    responses((status = 200, description = "All metrics", body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(State(api): State<Api>) -> Response {
    let text = api.engine().metrics_text().await;
    let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "operations", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(crate) async fn openapi() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
    ];
    (headers, Body::from(crate::openapi::document())).into_response()
}
