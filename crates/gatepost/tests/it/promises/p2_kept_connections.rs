//! P2: a kept connection that dies under a request is not taken for the receiver's silence.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::Server;

/// A receiver that answers the first request of a connection and cuts the second, whole, without a word.
struct Cutter {
    url: String,
    /// What came, by connection.
    came: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Cutter {
    fn start() -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/in", listener.local_addr().expect("an address"));
        let came = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&came);
        std::thread::spawn(move || {
            for (at, stream) in listener.incoming().enumerate() {
                let (Ok(mut stream), came) = (stream, Arc::clone(&all)) else { return };
                std::thread::spawn(move || {
                    for turn in 1..=2 {
                        let Some(request) = read_request(&mut stream) else { return };
                        came.lock().expect("a lock").push((at + 1, request));
                        if turn == 1 {
                            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                        }
                    }
                });
            }
        });
        Cutter { url, came }
    }

    fn came(&self) -> Vec<(usize, String)> {
        self.came.lock().expect("a lock").clone()
    }
}

/// A whole request; `None`: the connection ended.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut more = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = header(head, "content-length").and_then(|length| length.parse().ok())?;
            if body.len() >= length {
                return Some(text);
            }
        }
        match stream.read(&mut more) {
            Ok(0) | Err(_) => return None,
            Ok(some) => bytes.extend_from_slice(&more[..some]),
        }
    }
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn p2_a_kept_connection_that_dies_costs_no_attempt_and_one_duplicate() {
    let server = Server::start();
    server.create_tenant("acme");
    for (profile, event_type) in [("standard", "user.created"), ("cryptr", "dir_sync.user.provision.success")] {
        let cutter = Cutter::start();
        let hook = server.webhook("acme", &cutter.url, json!({"profile": profile, "max_in_flight": 1}));
        let views: Vec<Value> = (0..10)
            .map(|n| {
                let event = server.publish("acme", event_type, json!({"n": n}));
                server.wait_event("acme", &event, "delivered")
            })
            .collect();
        for (n, view) in views.iter().enumerate() {
            assert_eq!(view["attempts"], 1, "{profile} {n}: {view:#}");
            assert_eq!(view["attempt_list"][0]["resent"], n > 0, "{profile} {n}: {view:#}");
        }
        // The first on its own; each other one on the connection before, which is cut, and on a fresh one.
        let came = cutter.came();
        let connections: Vec<usize> = came.iter().map(|(connection, _)| *connection).collect();
        let expected: Vec<usize> = std::iter::once(1).chain((1..10).flat_map(|n| [n, n + 1])).collect();
        assert_eq!(connections, expected, "{profile}");
        for two in came[1..].chunks(2) {
            let [(_, one), (_, two)] = two else { panic!("{two:?}") };
            assert_eq!(body(one), body(two));
            for name in ["gatepost-delivery-id", "gatepost-event-id", "gatepost-attempt"] {
                assert_eq!((header(one, name), header(one, name).is_some()), (header(two, name), true), "{name}");
            }
            assert_eq!(header(two, "gatepost-attempt"), Some("1"));
        }
        server.delete(&format!("/v1/tenants/acme/webhooks/{hook}")).expect(204);
    }
}

#[test]
fn p2_a_token_of_a_resent_request_is_a_new_one() {
    let server = Server::start();
    server.create_tenant("acme");
    let cutter = Cutter::start();
    server.webhook("acme", &cutter.url, json!({"profile": "cymmetri", "max_in_flight": 1}));
    for n in 0..2 {
        let event = server.publish("acme", "cymmetri.postCreateUser", json!({"n": n}));
        server.wait_event("acme", &event, "delivered");
    }
    let came = cutter.came();
    let tokens: Vec<&str> = came.iter().filter_map(|(_, request)| header(request, "authorization")).collect();
    assert_eq!((came.len(), tokens.len()), (3, 3));
    assert_ne!(tokens[1], tokens[2], "its jti may be taken once only");
}
