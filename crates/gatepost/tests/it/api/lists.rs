//! Lists: pages, cursors and filters.

use gatepost_testkit::Script;
use serde_json::{Value, json};

use super::{Findings, column, encoded, members};
use crate::harness::{Server, receiver, text};

/// Every page of a list, and that each is as promised.
#[track_caller]
fn pages(server: &Server, path: &str, limit: usize) -> Vec<Value> {
    let join = if path.contains('?') { '&' } else { '?' };
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    for _ in 0..10_000 {
        let page = server.get(&format!("{path}{join}limit={limit}{cursor}")).expect(200).json();
        assert_eq!(members(&page), ["data", "next_cursor"], "{path}");
        let data = page["data"].as_array().expect("rows");
        assert!(data.len() <= limit, "{path}: {} rows for limit {limit}", data.len());
        rows.extend(data.iter().cloned());
        match &page["next_cursor"] {
            Value::Null => return rows,
            Value::String(next) => cursor = format!("&cursor={}", encoded(next)),
            other => panic!("{path}: next_cursor is {other}"),
        }
    }
    panic!("{path}: no end after 10,000 pages");
}

#[test]
fn every_row_comes_once_newest_first_whatever_the_limit() {
    let server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    let to = receiver();
    server.webhook("acme", &to.url("/"), json!({}));
    server.webhook("other", &to.url("/"), json!({}));
    let mut events = Vec::new();
    for n in 0..60 {
        server.publish("other", "user.created", json!(n));
        events.push(server.publish("acme", "user.created", json!(n)));
    }
    server.wait_settled("acme");
    events.reverse();
    let (path, deliveries) = ("/v1/tenants/acme/events?type=user.created", "/v1/tenants/acme/deliveries");
    for limit in [1, 7, 30, 59, 60, 61, 250] {
        assert_eq!(column(&pages(&server, path, limit), "id"), events, "limit {limit}");
        let rows = pages(&server, deliveries, limit);
        let of: Vec<String> = rows.iter().map(|row| row["event_ids"][0].as_str().expect("an id").to_owned()).collect();
        assert_eq!(of, events, "limit {limit}");
    }
    // Fifty when not asked otherwise.
    for path in [path, deliveries] {
        let page = server.get(path).expect(200).json();
        assert_eq!(page["data"].as_array().map(Vec::len), Some(50));
        assert!(page["next_cursor"].is_string());
    }
}

#[test]
fn rows_that_arrive_meanwhile_disturb_no_page() {
    let server = Server::start();
    server.create_tenant("acme");
    server.webhook("acme", "http://127.0.0.1:9/x", json!({"retry": {"waits": [86400]}}));
    let mut events: Vec<String> = (0..25).map(|n| server.publish("acme", "user.created", json!(n))).collect();
    events.reverse();
    for path in ["/v1/tenants/acme/events", "/v1/tenants/acme/deliveries"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("{path}?limit=4{cursor}")).expect(200).json();
            let rows = page["data"].as_array().expect("rows");
            seen.extend(
                rows.iter().map(|row| row["event_ids"][0].as_str().or(row["id"].as_str()).expect("an id").to_owned()),
            );
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            server.publish("acme", "user.created", json!("new"));
        }
        assert_eq!(seen.iter().filter(|id| events.contains(id)).cloned().collect::<Vec<_>>(), events, "{path}");
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "{path}: a row came twice");
        // The same page again is the same page.
        let cursor =
            server.get(&format!("{path}?limit=3")).expect(200).json()["next_cursor"].as_str().expect("more").to_owned();
        let [one, two] = [(), ()].map(|()| server.get(&format!("{path}?limit=3&cursor={cursor}")).expect(200).json());
        assert_eq!(
            column(one["data"].as_array().expect("rows"), "id"),
            column(two["data"].as_array().expect("rows"), "id")
        );
    }
}

#[test]
fn a_cursor_is_good_for_its_own_list_only() {
    let server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
        for n in 0..3 {
            server.webhook(tenant, "http://127.0.0.1:9/x", json!({"name": format!("{n}")}));
            server.publish(tenant, "user.created", json!(n));
        }
    }
    server.create_key(&["read"], None);
    server.create_key(&["read"], None);
    let lists = [
        "/v1/tenants",
        "/v1/keys",
        "/v1/event-types",
        "/v1/tenants/acme/webhooks",
        "/v1/tenants/acme/events",
        "/v1/tenants/acme/events?order=asc",
        "/v1/tenants/acme/deliveries",
        "/v1/tenants/other/webhooks",
        "/v1/tenants/other/events",
        "/v1/tenants/other/events?order=asc",
        "/v1/tenants/other/deliveries",
    ];
    let join = |path: &str| if path.contains('?') { '&' } else { '?' };
    let mut findings = Findings::default();
    for from in lists {
        let page = server.get(&format!("{from}{}limit=1", join(from))).expect(200).json();
        let cursor = page["next_cursor"].as_str().unwrap_or_else(|| panic!("{from} has more than one row")).to_owned();
        assert_eq!(encoded(&cursor), cursor, "a cursor needs no encoding in a query");
        for to in lists {
            let reply = server.get(&format!("{to}{}limit=1&cursor={cursor}", join(to)));
            if from == to {
                findings.status(format!("{from} goes on"), &reply, 200);
            } else {
                findings.problem(format!("a cursor of {from} for {to}"), &reply, 422, "invalid_cursor", &["?cursor"]);
            }
        }
        let mut damaged = cursor.clone();
        let last = damaged.pop().expect("not empty");
        damaged.push(if last == 'A' { 'B' } else { 'A' });
        for bad in [damaged, format!("{cursor}A"), cursor[1..].to_owned()] {
            let reply = server.get(&format!("{from}{}cursor={bad}", join(from)));
            findings.check(reply.status == 422, format!("a damaged cursor of {from}: {reply:?}"));
        }
    }
    findings.none();
}

#[test]
fn events_are_filtered_by_type_subject_and_time() {
    let server = Server::start();
    server.create_tenant("acme");
    let publish = |event_type: &str, subject: Value| {
        text(&server.publish_event("acme", json!({"type": event_type, "subject": subject})), "id")
    };
    let a = publish("user.created", json!({"type": "user", "id": "1"}));
    let b = publish("user.created", json!({"type": "group", "id": "1"}));
    let c = publish("user.deleted", json!({"type": "user", "id": "2"}));
    let d = publish("user.created", json!({"id": "1"}));
    let e = publish("user.created", Value::Null);
    let f = publish("user", json!({"id": "a&b=c/ü +"}));
    let path = "/v1/tenants/acme/events";
    let mut findings = Findings::default();
    let mut case = |query: &str, wanted: &[&String]| {
        for limit in [1, 250] {
            let found = column(&pages(&server, &format!("{path}?{query}"), limit), "id");
            findings.check(
                found.iter().collect::<Vec<_>>() == wanted,
                format!("{query} (limit {limit}): {found:?} instead of {wanted:?}"),
            );
        }
    };
    case("type=user.created", &[&e, &d, &b, &a]);
    case("type=user", &[&f]);
    case("type=no.such", &[]);
    case("subject=1", &[&d, &b, &a]);
    case("subject=1&subject_type=user", &[&a]);
    case("subject_type=user", &[&c, &a]);
    case("subject=2&type=user.created", &[]);
    case("subject=1&type=user.created&subject_type=group", &[&b]);
    case(&format!("subject={}", encoded("a&b=c/ü +")), &[&f]);
    let all = [&f, &e, &d, &c, &b, &a];
    case("after=2001-01-01T00:00:00Z", &all);
    case("before=2101-01-01T00:00:00Z", &all);
    case("after=2101-01-01T00:00:00Z", &[]);
    case("before=2001-01-01T00:00:00Z", &[]);
    case("after=2001-01-01T00:00:00Z&before=2101-01-01T00:00:00Z&type=user.deleted", &[&c]);
    case("after=2001-01-01T00%3A00%3A00%2B02%3A00&subject=2", &[&c]);
    // Between two of them: the times the answers have are the times the filters know.
    let time = |id: &str| text(&server.event("acme", id), "timestamp");
    if time(&b) < time(&c) && time(&c) < time(&d) {
        case(&format!("after={}&before={}", time(&b), time(&d)), &[&c]);
    }
    // The order of a feed can be filtered too.
    let feed = server.get(&format!("{path}?order=asc&type=user.created")).expect(200).json();
    findings.check(
        column(feed["data"].as_array().expect("rows"), "id") == [&a, &b, &d, &e].map(String::clone),
        format!("a filtered feed: {feed}"),
    );
    findings.none();
}

#[test]
fn deliveries_are_filtered_by_webhook_event_subject_state_and_time() {
    let server = Server::start();
    server.create_tenant("acme");
    let to = receiver();
    to.script_path("/bad", Script::status(500));
    let good = server.webhook("acme", &to.url("/good"), json!({}));
    let bad = server.webhook("acme", &to.url("/bad"), json!({"retry": {"waits": []}, "events": ["user.*"]}));
    let slow =
        server.webhook("acme", "http://127.0.0.1:9/x", json!({"retry": {"waits": [86400]}, "events": ["slow.*"]}));
    let publish = |event: Value| text(&server.publish_event("acme", event), "id");
    let e1 = publish(json!({"type": "user.created", "id": "e:1+/=", "subject": {"type": "user", "id": "u1"}}));
    let e2 = publish(json!({"type": "user.deleted", "subject": {"type": "user", "id": "u2"}}));
    let e3 = publish(json!({"type": "slow.one", "subject": {"id": "u1"}}));
    let delivery = |event: &str, webhook: &str| {
        let rows = server.all(&format!("/v1/tenants/acme/deliveries?event_id={}&webhook_id={webhook}", encoded(event)));
        assert_eq!(rows.len(), 1, "{event} to {webhook}: {rows:?}");
        text(&rows[0], "id")
    };
    let (g1, g2, g3) = (delivery(&e1, &good), delivery(&e2, &good), delivery(&e3, &good));
    let (b1, b2, s3) = (delivery(&e1, &bad), delivery(&e2, &bad), delivery(&e3, &slow));
    for id in [&g1, &g2, &g3] {
        server.wait_delivery("acme", id, "delivered");
    }
    for id in [&b1, &b2] {
        server.wait_delivery("acme", id, "failed");
    }
    server.wait_delivery_where("acme", &s3, "one attempt", |view| view["attempts"] == 1);

    let path = "/v1/tenants/acme/deliveries";
    let mut findings = Findings::default();
    let mut case = |query: &str, wanted: &[&String]| {
        let mut wanted: Vec<String> = wanted.iter().map(|id| (*id).clone()).collect();
        wanted.sort();
        for limit in [1, 250] {
            let mut found = column(&pages(&server, &format!("{path}?{query}"), limit), "id");
            found.sort();
            findings.check(found == wanted, format!("{query} (limit {limit}): {found:?} instead of {wanted:?}"));
        }
    };
    case("", &[&g1, &g2, &g3, &b1, &b2, &s3]);
    case(&format!("webhook_id={good}"), &[&g1, &g2, &g3]);
    case(&format!("webhook_id={bad}"), &[&b1, &b2]);
    case("webhook_id=wh_00000000000000000000000000", &[]);
    case(&format!("event_id={}", encoded(&e1)), &[&g1, &b1]);
    case("event_id=unknown", &[]);
    case("subject=u1", &[&g1, &b1, &g3, &s3]);
    case("subject=u2", &[&g2, &b2]);
    case("state=delivered", &[&g1, &g2, &g3]);
    case("state=failed", &[&b1, &b2]);
    case("state=pending", &[&s3]);
    case("state=held", &[]);
    case("state=cancelled", &[]);
    case(&format!("state=delivered&subject=u1&webhook_id={good}"), &[&g1, &g3]);
    case("since=2001-01-01T00:00:00Z&until=2101-01-01T00:00:00Z", &[&g1, &g2, &g3, &b1, &b2, &s3]);
    case("since=2101-01-01T00:00:00Z", &[]);
    case("until=2001-01-01T00:00:00Z", &[]);
    case("since=2001-01-01T00:00:00Z&state=failed", &[&b1, &b2]);

    // `held` and `cancelled` are found where they are derived.
    server.patch(&format!("/v1/tenants/acme/webhooks/{slow}"), json!({"enabled": false})).expect(200);
    case("state=held", &[&s3]);
    case("state=pending", &[]);
    server.delete(&format!("/v1/tenants/acme/webhooks/{slow}")).expect(204);
    case("state=cancelled", &[&s3]);
    case("state=held", &[]);
    findings.none();
}
