//! Connections kept alive, and let go.

use std::time::Duration;

use futures_util::future::join_all;
use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Gate, Receiver, Script};

use super::*;

#[tokio::test]
async fn one_after_the_other_share_a_connection() {
    let receiver = Receiver::start();
    let world = world();
    for n in 0..20 {
        let exchange = world.post(&receiver.url("/")).await;
        assert_eq!(exchange.outcome, Outcome::Ok);
        assert_eq!(exchange.timings.connect_us.is_some(), n == 0, "only the first connects");
        assert!(exchange.timings.first_byte_us.is_some());
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_several_threads_too() {
    let receiver = Receiver::start_on_thread();
    let world = Arc::new(world());
    let url = receiver.url("/");
    let workers = (0..8).map(|_| {
        let (world, url) = (world.clone(), url.clone());
        tokio::spawn(async move {
            for _ in 0..50 {
                assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
            }
        })
    });
    for worker in join_all(workers).await {
        worker.expect("no failure");
    }
    assert_eq!(receiver.count(), 400);
    assert!(receiver.connections() <= 80, "{} connections for 400 requests", receiver.connections());
}

#[tokio::test]
async fn at_the_same_time_each_has_its_own_and_idle_ones_are_bounded() {
    let gate = Gate::new();
    let receiver = Receiver::builder().script(Script::status(200).behind(&gate)).start();
    let world = world();
    let url = receiver.url("/");
    let opener = async {
        receiver.wait_for(80).await;
        gate.open();
    };
    let (exchanges, ()) = tokio::join!(join_all((0..80).map(|_| world.post(&url))), opener);
    assert!(exchanges.iter().all(|e| e.outcome == Outcome::Ok));
    assert_eq!((receiver.connections(), world.client.idle()), (80, 64));
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_noticed() {
    let receiver = Receiver::builder().script(Script::status(200).then_close()).start();
    let world = world();
    // Closed right after each answer without a word: sending on it would be a lost request.
    for n in 1..=100 {
        let exchange = world.post(&receiver.url("/")).await;
        assert_eq!(exchange.outcome, Outcome::Ok, "{n}: {}", error(&exchange));
        receiver.wait_closed().await;
    }
    assert_eq!((receiver.count(), receiver.connections()), (100, 100));
}

#[tokio::test]
async fn a_connection_closed_a_moment_ago_is_noticed() {
    let receiver = Receiver::builder().script(Script::status(200).then_close()).start_on_thread();
    let world = world();
    for n in 1..=20 {
        let exchange = world.post(&receiver.url("/")).await;
        assert_eq!(exchange.outcome, Outcome::Ok, "{n}: {}", error(&exchange));
        // Blocking on purpose: our runtime gets no chance to hear of the close before the next send.
        receiver.wait_closed_blocking();
    }
}

#[tokio::test]
async fn a_connection_on_which_the_peer_spoke_unasked_is_not_used() {
    let unasked =
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n";
    let receiver = Receiver::builder().script(Script::Raw(unasked.into())).start();
    let world = world();
    for _ in 0..5 {
        assert_eq!(world.post(&receiver.url("/")).await.status, Some(200), "never the stray 408");
    }
}

#[tokio::test]
async fn a_receiver_that_restarts_is_found_again() {
    let mut receiver = Receiver::start();
    let world = world();
    let url = receiver.url("/");
    assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
    let addr = receiver.addr();
    receiver.wait_for(1).await;
    receiver.stop().await;
    assert_eq!(world.post(&url).await.outcome, Outcome::Connect);
    let receiver = Receiver::builder().bind(addr).start();
    assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn title_case_is_a_matter_of_the_connection() {
    let receiver = Receiver::start();
    let world = world();
    let target = Target::parse(&receiver.url("/")).expect("a URL");
    for title_case in [true, false, true, false] {
        let exchange = world.client.send(OutgoingRequest { title_case, ..request(&target) }).await;
        assert_eq!(exchange.outcome, Outcome::Ok);
    }
    let first: Vec<_> = receiver.received().iter().map(|r| r.headers[0].0.clone()).collect();
    assert_eq!(first, ["Host", "host", "Host", "host"]);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let receiver = Receiver::start_on_thread();
    let world = world();
    assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::Ok);
    assert_eq!((world.client.idle(), receiver.open_connections()), (1, 1));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(50)).await;
    tokio::task::yield_now().await;
    assert_eq!(world.client.idle(), 1);
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(5)).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(world.client.idle(), 0, "swept without anybody asking");
    receiver.wait_closed().await;
    tokio::time::resume();
    assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::Ok);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn a_steady_connection_is_renewed_now_and_then() {
    let receiver = Receiver::start_on_thread();
    let world = world();
    for _ in 0..25 {
        assert_eq!(world.post(&receiver.url("/")).await.outcome, Outcome::Ok);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(30)).await;
        tokio::time::resume();
    }
    assert_eq!(receiver.connections(), 2, "one in ten minutes of use");
}

#[tokio::test]
async fn pools_of_their_own_share_nothing() {
    let receiver = Receiver::start();
    let world = world();
    let other = world.client.with_own_pool();
    let target = Target::parse(&receiver.url("/")).expect("a URL");
    for client in [&world.client, &other, &world.client, &other] {
        assert_eq!(client.send(request(&target)).await.outcome, Outcome::Ok);
    }
    assert_eq!(receiver.connections(), 2);
}

#[test]
fn a_runtime_that_ended_takes_its_connections_along() {
    let receiver = Receiver::start_on_thread();
    let world = world();
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        assert_eq!(runtime.block_on(world.post(&receiver.url("/"))).outcome, Outcome::Ok);
    }
    assert_eq!(receiver.connections(), 3);
}
