//! The feed: every event once, in order, for as long as one cares to poll.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::column;
use crate::harness::{Client, Server};

const FEED: &str = "/v1/tenants/acme/events?order=asc";

/// One page after `cursor`, and the next cursor, which is always there.
#[track_caller]
fn poll(client: &mut Client, cursor: Option<&str>, limit: usize) -> (Vec<String>, String) {
    let after = cursor.map(|c| format!("&cursor={c}")).unwrap_or_default();
    let page = client.get(&format!("{FEED}&limit={limit}{after}")).expect(200).json();
    let next = page["next_cursor"].as_str().unwrap_or_else(|| panic!("next_cursor is never null: {page}"));
    (column(page["data"].as_array().expect("rows"), "id"), next.to_owned())
}

#[test]
fn an_empty_feed_has_a_cursor_too() {
    let mut server = Server::start();
    server.create_tenant("acme");
    server.create_tenant("other");
    server.publish("other", "a", json!(0));
    let mut client = server.client();
    let (rows, start) = poll(&mut client, None, 50);
    assert!(rows.is_empty());
    let (rows, same) = poll(&mut client, Some(&start), 50);
    assert!(rows.is_empty());
    assert_eq!(same, start, "an empty page has the same cursor");
    let first = server.publish("acme", "a", json!(1));
    server.publish("other", "a", json!(2));
    let (rows, after) = poll(&mut client, Some(&start), 50);
    assert_eq!(rows, std::slice::from_ref(&first));
    let (rows, same) = poll(&mut client, Some(&after), 50);
    assert!(rows.is_empty());
    assert_eq!(same, after);
    // Without a cursor it starts at the oldest; a cursor outlives the server.
    assert_eq!(poll(&mut client, None, 50).0, [first]);
    server.kill9();
    server.restart();
    let second = server.publish("acme", "a", json!(3));
    assert_eq!(poll(&mut server.client(), Some(&after), 50).0, [second]);
}

#[test]
fn eight_publishers_and_a_reader_without_gap_or_repeat() {
    const EACH: usize = 60;
    let server = Server::start();
    server.create_tenant("acme");
    let left = AtomicUsize::new(8);
    let (seen, positions) = std::thread::scope(|scope| {
        for publisher in 0..8 {
            let (mut client, left) = (server.client(), &left);
            scope.spawn(move || {
                for n in 0..EACH {
                    let id = format!("p{publisher}-{n}");
                    if n % 5 == 0 {
                        let events =
                            json!({"events": [{"type": "a", "id": id}, {"type": "a", "id": format!("{id}-b")}]});
                        client.post("/v1/tenants/acme/events/batch", events).expect(202);
                    } else {
                        client.post("/v1/tenants/acme/events", json!({"type": "a", "id": id})).expect(202);
                    }
                }
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let mut client = server.client();
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let over = left.load(Ordering::SeqCst) == 0;
            let (rows, next) = poll(&mut client, cursor.as_deref(), 7);
            if rows.is_empty() {
                assert!(cursor.is_none() || cursor.as_deref() == Some(&next), "an empty page has the same cursor");
                if over {
                    break;
                }
            }
            seen.extend(rows);
            cursor = Some(next);
        }
        let positions: HashMap<String, usize> = seen.iter().enumerate().map(|(at, id)| (id.clone(), at)).collect();
        (seen, positions)
    });
    assert_eq!(positions.len(), seen.len(), "nothing comes twice");
    assert_eq!(seen.len(), 8 * (EACH + EACH / 5), "nothing is missing");
    for publisher in 0..8 {
        let of = |n: usize| positions[&format!("p{publisher}-{n}")];
        assert!((1..EACH).all(|n| of(n - 1) < of(n)), "publisher {publisher}: in the order accepted");
    }
    // The list is the feed backwards.
    let mut list = column(&server.all("/v1/tenants/acme/events"), "id");
    list.reverse();
    assert_eq!(list, seen);
}
