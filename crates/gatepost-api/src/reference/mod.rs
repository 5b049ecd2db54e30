//! `/docs`: the API reference, written from the OpenAPI document. One page without scripts and without
//! anything from elsewhere, so that it works offline and behind the strictest policy.

mod html;

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_core::hashing::sha256;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};

/// How the page looks.
const STYLE: &str = include_str!("style.css");

/// The page as served, and the policy it is served under.
struct Page {
    html: String,
    policy: HeaderValue,
}

fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| {
        // Made from our own document, which is JSON.
        let document = serde_json::from_str(crate::openapi::document()).unwrap_or_default();
        let html = html::page(&document, STYLE);
        // Nothing may be loaded or run, and of styles only ours applies.
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            STANDARD.encode(sha256(STYLE.as_bytes()))
        );
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Page { html, policy }
    });
    &PAGE
}

/// API reference
///
/// This document for people: one page that needs nothing else.
#[utoipa::path(
    get, path = "/docs", operation_id = "getDocs", tag = "operations", security(()),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
pub(crate) async fn docs() -> Response {
    let page = page();
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
        (CONTENT_SECURITY_POLICY, page.policy.clone()),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, Body::from(page.html.as_str())).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Every `name="…"` of the page.
    fn attributes<'p>(html: &'p str, name: &str) -> Vec<&'p str> {
        let begin = format!(" {name}=\"");
        html.split(begin.as_str()).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn every_operation_and_every_schema_has_its_place() {
        let document: Value = serde_json::from_str(crate::openapi::document()).unwrap();
        let html = &page().html;
        let ids: Vec<_> = attributes(html, "id");
        let once: BTreeSet<_> = ids.iter().copied().collect();
        assert_eq!(ids.len(), once.len(), "an anchor stands twice");
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(once.contains(id), "{id} is not on the page");
            }
            assert!(html.contains(&html::escaped(path)), "{path}");
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(once.contains(format!("schema-{name}").as_str()), "{name} is not on the page");
        }
        for name in document["webhooks"].as_object().unwrap().keys() {
            assert!(once.contains(format!("sent-{name}").as_str()), "{name} is not on the page");
        }
        for target in attributes(html, "href") {
            let anchor = target.strip_prefix('#');
            assert!(target == "/openapi.json" || anchor.is_some_and(|a| once.contains(a)), "{target} leads nowhere");
        }
    }

    #[test]
    fn the_page_needs_nothing_else_and_runs_nothing() {
        let html = &page().html;
        assert!(html.starts_with("<!doctype html>"));
        for banned in ["<script", "src=", "@import", "url(", "onclick", "javascript:", "<link", "style=\""] {
            assert!(!html.contains(banned), "{banned}");
        }
        assert!(html.contains("prefers-color-scheme: dark"));
        // What the policy allows is what is there.
        let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = STANDARD.encode(sha256(style.as_bytes()));
        assert!(page().policy.to_str().unwrap().contains(&hash));
    }
}
