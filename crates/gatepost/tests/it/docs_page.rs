//! `/docs`: the API reference as a page.

use serde_json::Value;

use crate::harness::Server;

#[test]
fn the_reference_has_every_operation_and_runs_nothing() {
    let server = Server::start();
    let mut anybody = server.client_with("no key");
    let page = anybody.send("GET", "/docs", &[("authorization", "")], ()).expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = page.text();
    let document: Value = anybody.send("GET", "/openapi.json", &[("authorization", "")], ()).expect(200).json();
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(html.contains(&format!("id=\"{id}\"")), "{id} of {path} is not on the page");
            operations += 1;
        }
    }
    assert!(operations > 20, "{operations}");
    assert!(!html.contains("<script") && !html.contains("http-equiv"));
}
