//! The publisher's trace reaches its receivers.

use gatepost_testkit::Script;
use serde_json::json;

use crate::harness::{Server, receiver, text};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Trace, span and flags.
fn parts(header: &str) -> (String, String, String) {
    let parts: Vec<&str> = header.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{header}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

#[test]
fn every_attempt_of_every_delivery_is_in_the_publishers_trace_also_after_a_crash() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let (good, bad) = (receiver(), receiver());
    bad.script(Script::status(500));
    server.webhook("acme", &good.url("/"), json!({}));
    server.webhook("acme", &bad.url("/"), json!({"retry": {"waits": [0.1, 600, 600], "jitter": 0}}));
    let publish = |id: &str, parent: &str| {
        let body = json!({"type": "user.created", "id": id});
        server.send("POST", "/v1/tenants/acme/events", &[("traceparent", parent)], body).expect(202);
    };
    publish("traced", PARENT);
    let first = good.wait_for_blocking(1).remove(0);
    let (trace, span, flags) = parts(first.header("traceparent").unwrap());
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    let retried: Vec<_> = bad.wait_for_blocking(2).iter().map(|r| parts(r.header("traceparent").unwrap())).collect();
    assert!(retried.iter().all(|(trace, ..)| trace == TRACE));
    let spans = [&span, &retried[0].1, &retried[1].1];
    assert!(spans[0] != spans[1] && spans[1] != spans[2] && spans[0] != spans[2], "{spans:?}");
    assert!(!spans.iter().any(|span| *span == "00f067aa0ba902b7"), "an attempt took the publisher's own span");
    // A publisher that does not record says so to its receivers; what is no trace context is none.
    publish("unrecorded", &PARENT.replace("-01", "-00"));
    publish("odd", "00-nonsense");
    let seen = good.wait_for_blocking(3);
    let of = |id: &str| {
        let request = seen.iter().find(|r| r.header("webhook-id") == Some(id)).unwrap();
        parts(request.header("traceparent").unwrap())
    };
    assert_eq!((of("unrecorded").0.as_str(), of("unrecorded").2.as_str()), (TRACE, "00"));
    assert!(of("odd").0 != TRACE && of("odd").2 == "01");
    // The same event again with another context is the same event.
    let body = json!({"type": "user.created", "id": "traced"});
    let again = server.send("POST", "/v1/tenants/acme/events", &[], body).expect(202).json();
    assert_eq!(again["duplicate"], true);

    // It is kept with the event, and history shows what was sent.
    server.kill9();
    bad.script(Script::status(204));
    bad.forget();
    server.restart();
    let delivery = server.deliveries_of("acme", "traced").into_iter().find(|d| d["state"] != "delivered").unwrap();
    let id = text(&delivery, "id");
    server.post(&format!("/v1/tenants/acme/deliveries/{id}/retry"), ()).expect(202);
    let view = server.wait_delivery("acme", &id, "delivered");
    let late = bad.received().into_iter().find(|r| r.header("webhook-id") == Some("traced")).unwrap();
    assert_eq!(parts(late.header("traceparent").unwrap()).0, TRACE);
    for attempt in view["attempt_list"].as_array().unwrap() {
        assert!(attempt["request"].to_string().contains(TRACE), "{attempt:#}");
    }
}
