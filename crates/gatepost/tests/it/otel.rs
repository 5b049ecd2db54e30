//! Spans, in a build with the feature `otel`.

use gatepost_testkit::{Receiver, Script};
use serde_json::json;

use crate::harness::{Options, Server, receiver, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    hex.as_bytes().chunks(2).map(|pair| byte(pair).expect("two hexadecimal digits")).collect()
}

/// Everything a collector got, one after the other.
fn collected(collector: &Receiver) -> Vec<u8> {
    collector.received().iter().flat_map(|request| request.body.to_vec()).collect()
}

fn holds(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

#[test]
fn spans_of_publishing_and_delivering_arrive_in_the_publishers_trace() {
    let collector = receiver();
    collector.script(Script::status(200));
    let mut server = Server::with(
        Options::default()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url(""))
            .env("OTEL_BSP_SCHEDULE_DELAY", 50)
            .env("OTEL_SERVICE_NAME", "gatepost-under-test"),
    );
    server.create_tenant("acme");
    let inbox = receiver();
    server.webhook("acme", &inbox.url("/"), json!({"headers": {"x-key": "hidden-771"}}));
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let body = json!({"type": "user.created", "data": {"note": "hidden-772"}});
    server.send("POST", "/v1/tenants/acme/events", &[("traceparent", &parent)], body).expect(202);
    let sent = inbox.wait_for_blocking(1).remove(0);
    let told = sent.header("traceparent").unwrap().to_owned();
    assert!(told.starts_with(&format!("00-{TRACE}-")), "{told}");
    let attempt = told.split('-').nth(2).unwrap();
    let all = wait_until("both spans", || {
        let all = collected(&collector);
        (holds(&all, b"publish") && holds(&all, b"deliver")).then_some(all)
    });
    // The trace is the publisher's, the publish a child of its span, the delivery under the id that was sent.
    for (what, part) in [("trace", TRACE), ("parent", SPAN), ("attempt", attempt)] {
        assert!(holds(&all, &bytes(part)), "no {what}");
    }
    assert!(holds(&all, b"gatepost-under-test") && holds(&all, b"user.created"));
    assert!(!holds(&all, b"hidden"), "a span tells what it must not");
    assert!(collector.received().iter().all(|request| request.path == "/v1/traces"));
    // One that the publisher does not record is not recorded here either; and an end sends what is left.
    collector.forget();
    let body = json!({"type": "user.unrecorded"});
    server.send("POST", "/v1/tenants/acme/events", &[("traceparent", &parent.replace("-01", "-00"))], body).expect(202);
    server.publish("acme", "user.last", json!({}));
    inbox.wait_for_blocking(3);
    server.wait_settled("acme");
    assert!(server.terminate().success());
    let all = collected(&collector);
    assert!(holds(&all, b"user.last") && !holds(&all, b"user.unrecorded"));
}
