//! What operators' tools ask, without a key: alive, ready, measured, described.

use std::collections::HashSet;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
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
/// For Prometheus, in the OpenMetrics text format; in the older text format where `Accept` names that alone.
/// Nothing of any tenant is in it.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "operations", security(()),
    responses((status = 200, description = "All metrics", content(
        (String = "application/openmetrics-text"),
        (String = "text/plain"),
    )))
)]
pub(crate) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    let text = api.engine().metrics_text().await;
    let (content_type, text) = match wants_old_text(&headers) {
        true => ("text/plain; version=0.0.4; charset=utf-8", old_text(&text)),
        false => ("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
    };
    ([(CONTENT_TYPE, HeaderValue::from_static(content_type))], text).into_response()
}

/// Whether plain text is asked for, and OpenMetrics is not.
fn wants_old_text(headers: &HeaderMap) -> bool {
    let named = |name: &str| {
        let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        accepted
            .flat_map(|value| value.split(','))
            .any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(name))
    };
    named("text/plain") && !named("application/openmetrics-text")
}

/// OpenMetrics text in the format before it: counters are named with their suffix, and there is neither a unit nor
/// a mark at the end.
fn old_text(text: &str) -> String {
    let counters: HashSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut out = String::with_capacity(text.len() + 1024);
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = line.strip_prefix("# ").and_then(|rest| {
            let mut words = rest.splitn(3, ' ');
            Some((words.next()?, words.next()?, words.next()?))
        });
        match described {
            Some((what, name, rest)) if counters.contains(name) => out += &format!("# {what} {name}_total {rest}"),
            _ => out += line,
        }
        out.push('\n');
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_is_for_who_asks_for_it_alone() {
        let asked =
            |accept: &'static str| wants_old_text(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]));
        assert!(asked("text/plain; version=0.0.4, */*;q=0.1"));
        assert!(!asked("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"));
        assert!(!asked("*/*") && !wants_old_text(&HeaderMap::new()));
        let text = "# HELP a_b Things.\n# TYPE a_b counter\n# UNIT a_b seconds\na_b_total 1\n# HELP g Now.\n# TYPE g gauge\ng 2\n# EOF\n";
        let old =
            "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total 1\n# HELP g Now.\n# TYPE g gauge\ng 2\n";
        assert_eq!(old_text(text), old);
    }
}
