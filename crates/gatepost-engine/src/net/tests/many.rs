//! Many hosts, and more requests to one of them than it has connections.

use futures_util::future::join_all;
use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Cert, Gate, Receiver, Script, TestCa};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::net::pool::AWAKE;

/// As many as stay awake, and some more.
const HOSTS: usize = AWAKE + 20;

async fn send(client: &Client, url: &str) -> Exchange {
    let target = Target::parse(url).expect("a URL");
    client.send(OutgoingRequest { title_case: true, ..request(&target) }).await
}

#[tokio::test]
async fn p10_when_too_many_are_kept_the_one_idle_for_longest_goes_not_the_newest() {
    let world = world();
    let client = world.client.keeping(4);
    let receivers: Vec<_> = (0..6).map(|_| Receiver::start()).collect();
    for receiver in &receivers {
        assert_eq!(send(&client, &receiver.url("/")).await.outcome, Outcome::Ok);
        assert!(client.idle() <= 4);
    }
    for receiver in receivers.iter().rev() {
        assert_eq!(send(&client, &receiver.url("/")).await.outcome, Outcome::Ok);
    }
    let connections: Vec<_> = receivers.iter().map(Receiver::connections).collect();
    assert_eq!(connections, [2, 2, 1, 1, 1, 1]);
    assert_eq!(client.idle(), 4);
}

#[tokio::test]
async fn p10_shared_connections_count_and_one_in_use_is_left_alone() {
    let ca = TestCa::new();
    let world = World::allowing(&["127.0.0.1/32"], ScriptedResolver::new(), Some(ca.pem()));
    let client = world.client.keeping(2);
    let gate = Gate::new();
    let busy = Receiver::builder().h2(&ca).script(Script::status(200).behind(&gate)).start();
    let others: Vec<_> = (0..3).map(|_| Receiver::builder().h2(&ca).start()).collect();
    let calls = async {
        busy.wait_for(1).await;
        for receiver in &others {
            assert_eq!(send(&client, &receiver.url("/")).await.outcome, Outcome::Ok);
            assert!(client.idle() <= 2);
        }
        gate.open();
    };
    let busy_url = busy.url("/");
    let (exchange, ()) = tokio::join!(send(&client, &busy_url), calls);
    assert_eq!(exchange.outcome, Outcome::Ok);
    assert_eq!(send(&client, &others[2].url("/")).await.outcome, Outcome::Ok);
    assert_eq!(send(&client, &busy_url).await.outcome, Outcome::Ok);
    assert_eq!((busy.connections(), others[2].connections()), (1, 1));
}

/// Many names of one receiver, each a host of its own.
struct Crowd {
    ca: TestCa,
    receiver: Receiver,
    world: World,
    client: Client,
}

impl Crowd {
    fn new() -> Crowd {
        let ca = TestCa::new();
        let receiver = Receiver::builder().tls_as(&ca, Cert::Good, &["*.hooks.test"], false).start();
        let names = (0..HOSTS)
            .fold(ScriptedResolver::new(), |names, host| names.name(&format!("h{host}.hooks.test"), &["127.0.0.1"]));
        let world = World::allowing(&["127.0.0.1/32"], names, Some(ca.pem()));
        let client = world.client.keeping(HOSTS);
        Crowd { ca, receiver, world, client }
    }

    fn url(&self, host: usize) -> String {
        format!("https://h{host}.hooks.test:{}/", self.receiver.addr().port())
    }

    async fn call_all(&self) {
        for host in 0..HOSTS {
            let exchange = send(&self.client, &self.url(host)).await;
            assert_eq!(exchange.outcome, Outcome::Ok, "{host}: {}", error(&exchange));
        }
    }
}

#[tokio::test]
async fn where_many_are_kept_the_later_ones_rest_and_serve_as_before() {
    let crowd = Crowd::new();
    for _ in 0..3 {
        crowd.call_all().await;
        assert_eq!(crowd.client.idle(), HOSTS);
        assert!(crowd.client.resting() >= 20, "{} rest", crowd.client.resting());
    }
    assert_eq!(crowd.receiver.connections(), HOSTS);
    let received = crowd.receiver.received();
    assert_eq!(received.len(), 3 * HOSTS);
    let headers = received.last().map(|last| &last.headers[0]);
    assert_eq!(
        headers,
        Some(&("Host".to_owned(), crowd.url(HOSTS - 1)["https://".len()..].trim_end_matches('/').to_owned()))
    );
}

#[tokio::test]
async fn a_connection_closed_while_it_rests_is_noticed() {
    let mut crowd = Crowd::new();
    crowd.call_all().await;
    let addr = crowd.receiver.addr();
    crowd.receiver.stop().await;
    crowd.receiver = Receiver::builder().bind(addr).tls_as(&crowd.ca, Cert::Good, &["*.hooks.test"], false).start();
    crowd.call_all().await;
    assert_eq!(crowd.receiver.count(), HOSTS);
    assert_eq!(crowd.world.policy.judge(addr.ip(), addr.port(), crate::net::Scheme::Https, &[]), Ok(()));
}

#[tokio::test]
async fn a_connection_made_ahead_survives_what_tls_says_of_its_own_accord() {
    let crowd = Crowd::new();
    let target = Target::parse(&crowd.url(0)).expect("a URL");
    crowd.client.warm(&target, &[], false, 1).await;
    while crowd.client.idle() == 0 {
        tokio::task::yield_now().await;
    }
    // The receiver does one thing after the other: once this is answered, its tickets are on the way.
    assert_eq!(send(&crowd.client, &crowd.url(1)).await.outcome, Outcome::Ok);
    assert_eq!(send(&crowd.client, &crowd.url(0)).await.outcome, Outcome::Ok);
    assert_eq!(crowd.receiver.connections(), 2);
}

/// Hears one request and says that it is fine.
async fn answer(stream: &mut TlsStream<TcpStream>) {
    let mut heard = Vec::new();
    while !heard.ends_with(b"{\"a\":1}") {
        assert_ne!(stream.read_buf(&mut heard).await.expect("a request"), 0, "a request ended early");
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("a listener");
    stream.flush().await.expect("a listener");
}

#[tokio::test]
async fn what_comes_back_before_a_fresh_connection_is_made_serves_and_the_fresh_one_is_kept() {
    let ca = TestCa::new();
    let world = World::allowing(&["127.0.0.1/32"], ScriptedResolver::new(), Some(ca.pem()));
    let acceptor = TlsAcceptor::from(ca.server_config(Cert::Good, &["127.0.0.1"], false));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("https://{}/", listener.local_addr().expect("addr"));
    let receiver = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut first = acceptor.accept(stream).await.expect("a handshake");
        answer(&mut first).await;
        // Two more are called at once. The second connection gets no handshake until both are answered.
        let (waiting, _) = listener.accept().await.expect("a connection");
        answer(&mut first).await;
        answer(&mut first).await;
        let second = acceptor.accept(waiting).await.expect("a handshake");
        while world.client.idle() < 2 {
            tokio::task::yield_now().await;
        }
        (first, second)
    };
    let caller = async {
        assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
        join_all([world.post(&url), world.post(&url)]).await
    };
    let (both, _connections) = tokio::join!(caller, receiver);
    for exchange in both {
        assert_eq!(exchange.outcome, Outcome::Ok, "{}", error(&exchange));
        assert_eq!((exchange.timings.connect_us, exchange.timings.tls_us), (None, None));
    }
}

#[tokio::test]
async fn p8_what_comes_back_from_a_network_not_open_to_the_caller_is_not_used() {
    let gate = Gate::new();
    let receiver = Receiver::builder().script(Script::status(200)).start();
    let world = World::allowing(&[], ScriptedResolver::new(), None);
    let url = receiver.url("/");
    let open = nets(&["127.0.0.1/32"]);
    assert_eq!(world.post_with_nets(&url, &open).await.outcome, Outcome::Ok);
    receiver.script(Script::status(200).behind(&gate));
    let stranger = async {
        receiver.wait_for(2).await;
        let exchange = world.post(&url).await;
        gate.open();
        exchange
    };
    let (friend, stranger) = tokio::join!(world.post_with_nets(&url, &open), stranger);
    assert_eq!((friend.outcome, stranger.outcome), (Outcome::Ok, Outcome::BlockedAddress));
    assert_eq!(receiver.count(), 2);
}
