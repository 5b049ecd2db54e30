//! P8: no way inside, on real connections.

use std::net::IpAddr;
use std::time::Duration;

use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Blackhole, ClosedPort, Receiver, Script};

use super::*;
use crate::net::ResolveError;

fn ips(list: &[&str]) -> Result<Vec<IpAddr>, ResolveError> {
    Ok(list.iter().map(|ip| ip.parse().expect("an address")).collect())
}

/// A receiver that is allowed, and one beside it on the same port that is not.
fn outside_and_inside() -> (Receiver, Receiver) {
    let outside = Receiver::start();
    let inside = Receiver::builder().bind(([127, 0, 0, 2], outside.addr().port())).start();
    (outside, inside)
}

#[tokio::test]
async fn p8_a_name_that_changes_its_address_between_attempts_reaches_nothing_inside() {
    let (outside, inside) = outside_and_inside();
    let world = world();
    world.resolver.script("rebind.test", vec![ips(&["127.0.0.1"]), ips(&["127.0.0.2"])]);
    let url = format!("http://rebind.test:{}/hook", outside.addr().port());

    // The first answer is good; the receiver closes, so the next attempt must resolve again.
    outside.script(Script::status(503).header("connection", "close"));
    let first = world.post(&url).await;
    assert_eq!((first.outcome, first.status), (Outcome::HttpStatus, Some(503)));
    let second = world.post(&url).await;
    assert_eq!(second.outcome, Outcome::Dns);
    assert!(!second.local_fault);
    assert!(!error(&second).contains("127."), "{}", error(&second));
    assert_eq!((outside.count(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn p8_a_name_that_changes_between_judging_and_connecting_is_not_asked_again() {
    let (outside, inside) = outside_and_inside();
    let world = world();
    // A client that resolved once to judge and again to connect would be led inside.
    world.resolver.script("rebind.test", vec![ips(&["127.0.0.1"]), ips(&["127.0.0.2"]), ips(&["127.0.0.2"])]);
    let exchange = world.post(&format!("http://rebind.test:{}/", outside.addr().port())).await;
    assert_eq!(exchange.outcome, Outcome::Ok);
    assert_eq!(world.resolver.asked(), 1, "resolved once");
    assert_eq!((outside.count(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn p8_of_mixed_addresses_only_judged_ones_are_dialled() {
    let (mut outside, inside) = outside_and_inside();
    let world = world();
    world.resolver.script("mixed.test", vec![ips(&["127.0.0.2", "10.0.0.1", "127.0.0.1"])]);
    let exchange = world.post(&format!("http://mixed.test:{}/", outside.addr().port())).await;
    assert_eq!(exchange.outcome, Outcome::Ok);
    assert_eq!((outside.count(), inside.connections()), (1, 0));

    // Not even when the allowed one does not answer.
    outside.stop().await;
    let exchange = world.post(&format!("http://mixed.test:{}/", inside.addr().port())).await;
    assert_eq!(exchange.outcome, Outcome::Connect, "{}", error(&exchange));
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn p8_blocked_addresses_are_never_dialled() {
    let receiver = Receiver::builder().bind(([127, 0, 0, 2], 0)).start();
    let port = receiver.addr().port();
    let names = ScriptedResolver::new()
        .name("plain.test", &["127.0.0.2"])
        .name("mapped.test", &["::ffff:127.0.0.2"])
        .name("nat64.test", &["64:ff9b::7f00:2"]);
    let world = World::allowing(&["127.0.0.1/32"], names, None);
    for scheme in ["http", "https"] {
        for host in ["127.0.0.2", "[::ffff:127.0.0.2]", "plain.test", "mapped.test", "nat64.test", "0.0.0.0"] {
            let exchange = world.post(&format!("{scheme}://{host}:{port}/")).await;
            let expected = if host.ends_with(".test") { Outcome::Dns } else { Outcome::BlockedAddress };
            assert_eq!(exchange.outcome, expected, "{scheme} {host}");
            assert!(!error(&exchange).contains("127"), "{}", error(&exchange));
            assert_eq!(exchange.timings.connect_us, None);
        }
    }
    assert_eq!(receiver.connections(), 0);
}

/// Whoever may register an address must not learn from it which names there are inside.
#[tokio::test]
async fn p8_names_inside_cannot_be_told_from_names_there_are_none_of() {
    let names = ScriptedResolver::new()
        .name("inside.test", &["10.0.0.1"])
        .name("several.test", &["10.0.0.1", "fd00::1", "127.0.0.2"])
        .name("own.test", &["127.0.0.1"])
        .name("public.test", &["93.184.216.34"]);
    let world = World::allowing(&["127.0.0.1/32"], names, None);
    world.policy.set_own_addrs(vec!["127.0.0.1:443".parse().expect("an address")]);
    let told = async |url: &str| {
        let exchange = world.post(url).await;
        let Exchange { outcome, status, error, timings, response, local_fault, .. } = exchange;
        let phases = (timings.dns_us.is_some(), timings.connect_us, timings.tls_us, timings.first_byte_us);
        format!("{outcome:?} {status:?} {error:?} {phases:?} {response:?} {local_fault}")
    };
    for scheme in ["http", "https"] {
        let none = told(&format!("{scheme}://none.test:443/")).await;
        for name in ["inside", "several", "own"] {
            assert_eq!(told(&format!("{scheme}://{name}.test:443/")).await, none, "{scheme} {name}");
        }
    }
    // What everybody can look up, and why it is not called, is told.
    let plain = world.post("http://public.test/").await;
    assert_eq!((plain.outcome, error(&plain).contains("https")), (Outcome::BlockedAddress, true));
    assert_eq!(world.post("https://localhost:1/").await.outcome, Outcome::Connect);
    assert_eq!(world.post("https://10.0.0.1/").await.outcome, Outcome::BlockedAddress);
}

#[tokio::test]
async fn p8_redirects_are_not_followed() {
    let (outside, inside) = outside_and_inside();
    let world = world();
    for status in [301, 302, 303, 307, 308] {
        outside.script(Script::status(status).header("location", inside.url("/secret")));
        let exchange = world.post(&outside.url("/")).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::HttpStatus, Some(status)));
        assert!(error(&exchange).contains("redirects are not followed"), "{}", error(&exchange));
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn p8_the_server_never_calls_itself() {
    let own = Receiver::start();
    let world = world();
    assert_eq!(world.post(&own.url("/")).await.outcome, Outcome::Ok);
    // From now on it is the server's own address, kept connections included.
    world.policy.set_own_addrs(vec![own.addr()]);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let exchange = world.post(&format!("http://{host}:{}/", own.addr().port())).await;
        assert_eq!(exchange.outcome, Outcome::BlockedAddress, "{host}");
    }
    assert_eq!(own.count(), 1);
}

#[tokio::test]
async fn p8_one_tenants_networks_and_connections_are_not_anothers() {
    let receiver = Receiver::start();
    let world = World::allowing(&[], ScriptedResolver::new(), None);
    let mine = nets(&["127.0.0.0/8"]);
    assert_eq!(world.post_with_nets(&receiver.url("/"), &mine).await.outcome, Outcome::Ok);
    assert_eq!(world.client.idle(), 1, "a connection to it is kept");
    assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::BlockedAddress);
    assert_eq!(world.post_with_nets(&receiver.url("/"), &mine).await.outcome, Outcome::Ok);
    assert_eq!((receiver.count(), receiver.connections()), (2, 1), "and it stays the first tenant's");
}

#[tokio::test]
async fn p8_headers_cannot_smuggle() {
    let receiver = Receiver::start();
    let target = Target::parse(&receiver.url("/")).expect("a URL");
    let headers = [
        header("host", "internal.test"),
        header("content-length", "0"),
        header("transfer-encoding", "chunked"),
        header("connection", "upgrade"),
        header("x-kept", "yes"),
    ]
    .into();
    let exchange = world().client.send(OutgoingRequest { headers, ..request(&target) }).await;
    assert_eq!(exchange.outcome, Outcome::Ok);
    let got = &receiver.received()[0];
    assert_eq!(got.header("host"), Some(receiver.addr().to_string().as_str()));
    assert_eq!(got.header("content-length"), Some("7"));
    assert_eq!((got.header("transfer-encoding"), got.header("connection")), (None, None));
    assert_eq!(got.header("x-kept"), Some("yes"));
}

#[tokio::test]
async fn an_unrestricted_client_calls_the_server_itself() {
    let receiver = Receiver::start();
    let client = Client::unrestricted(
        Arc::new(ManualClock::default()),
        Arc::new(ScriptedResolver::new()),
        HeaderValue::from_static("gatepost-cli"),
        None,
    )
    .expect("a client");
    client.policy().set_own_addrs(vec![receiver.addr()]);
    let url = format!("http://localhost:{}/v1", receiver.addr().port());
    let target = Target::parse(&url).expect("a URL");
    assert_eq!(client.send(request(&target)).await.outcome, Outcome::Ok);
    assert_eq!(receiver.received()[0].header("user-agent"), Some("gatepost-cli"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let exchange = world().post("http://nowhere.test/").await;
    assert_eq!((exchange.outcome, exchange.local_fault), (Outcome::Dns, false));
    assert!(exchange.timings.dns_us.is_some());
    let world = world();
    world.resolver.script("empty.test", vec![Ok(vec![])]);
    assert_eq!(world.post("http://empty.test/").await.outcome, Outcome::Dns);
}

#[tokio::test]
async fn our_own_resolver_being_down_is_our_own_fault() {
    let world = world();
    world.resolver.script("a.test", vec![Err(ResolveError::Local("no DNS server answers".to_owned()))]);
    let exchange = world.post("http://a.test/").await;
    assert_eq!((exchange.outcome, exchange.local_fault), (Outcome::Dns, true));

    // Likewise when it does not even answer within the attempt's time; not so when it is only this
    // name that takes so long.
    for up in [false, true] {
        world.resolver.fall_silent(up);
        let exchange = world.post_within("http://b.test/", Duration::from_millis(100)).await;
        assert_eq!((exchange.outcome, exchange.local_fault), (Outcome::Timeout, !up));
        assert!(error(&exchange).contains("not resolved"), "{}", error(&exchange));
    }
}

#[tokio::test]
async fn a_closed_port() {
    let closed = ClosedPort::new();
    let exchange = world().post(&format!("http://{}/", closed.addr())).await;
    assert_eq!((exchange.outcome, exchange.local_fault), (Outcome::Connect, false));
    assert!(error(&exchange).contains("refused"), "{}", error(&exchange));
}

#[tokio::test]
async fn an_address_that_swallows_everything_times_out() {
    let hole = Blackhole::at([127, 0, 0, 1].into());
    let exchange = world().post_within(&format!("http://{}/", hole.addr()), Duration::from_millis(150)).await;
    assert_eq!((exchange.outcome, exchange.local_fault), (Outcome::Timeout, false));
    assert!(error(&exchange).contains("did not accept the connection"), "{}", error(&exchange));
}

#[tokio::test]
async fn a_dead_address_does_not_hide_a_living_one() {
    let hole = Blackhole::at([127, 0, 0, 2].into());
    let receiver = Receiver::builder().bind(([127, 0, 0, 1], hole.addr().port())).start();
    let names = ScriptedResolver::new().name("two.test", &["127.0.0.2", "127.0.0.3", "127.0.0.1"]);
    let world = World::allowing(&["127.0.0.0/8"], names, None);
    let exchange = world.post(&format!("http://two.test:{}/", hole.addr().port())).await;
    assert_eq!(exchange.outcome, Outcome::Ok, "{}", error(&exchange));
    assert_eq!(receiver.count(), 1);
}
