//! Kept connections that are cut at every moment of a request, and what is sent again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Cert, Receiver, Script, TestCa};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::{Resend, Tries};
use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// When a connection ends, of the second request on it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Cut {
    /// As soon as some of it has come.
    Begun,
    /// Once its head has come.
    Head,
    /// Once all of it has come, in good order.
    Whole,
    /// The same, hard.
    Reset,
    /// After these bytes of an answer.
    After(&'static [u8]),
}

/// Answers the first request of the first connection, cuts the second, and so every connection after:
/// what is left is answered or cut as told.
struct Cutter {
    url: String,
    connections: AtomicUsize,
    /// Requests of which something came, by connection.
    requests: Mutex<Vec<usize>>,
    cut: Cut,
    /// Whether connections after the first are cut at their first request.
    again: bool,
}

impl Cutter {
    async fn start(cut: Cut, again: bool) -> Arc<Cutter> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let (connections, requests) = (AtomicUsize::new(0), Mutex::default());
        let cutter = Arc::new(Cutter { url, connections, requests, cut, again });
        let serving = cutter.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = serving.connections.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(serving.clone().serve(stream, number));
            }
        });
        cutter
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream, number: usize) {
        for turn in 1.. {
            let cuts = if number == 1 { turn == 2 } else { self.again };
            let mut came = Vec::new();
            let enough = |came: &[u8]| match self.cut {
                Cut::Begun if cuts => true,
                Cut::Head if cuts => came.windows(4).any(|w| w == b"\r\n\r\n"),
                _ => came.ends_with(b"{\"a\":1}"),
            };
            loop {
                let Ok(some @ 1..) = stream.read_buf(&mut came).await else { return };
                if some == came.len() {
                    self.requests.lock().expect("a lock").push(number);
                }
                if enough(&came) {
                    break;
                }
            }
            match self.cut {
                _ if !cuts => stream.write_all(OK).await.expect("it is written"),
                Cut::After(bytes) => {
                    stream.write_all(bytes).await.expect("it is written");
                    return;
                }
                Cut::Reset => return stream.set_zero_linger().expect("an option"),
                Cut::Begun | Cut::Head | Cut::Whole => return,
            }
        }
    }

    fn requests(&self) -> Vec<usize> {
        self.requests.lock().expect("a lock").clone()
    }
}

impl World {
    /// Posts as those do who may send again.
    async fn post_tries(&self, url: &str) -> Exchange {
        let target = Target::parse(url).expect("a URL");
        let mut tries = Tries::within(PATIENT);
        loop {
            let request = OutgoingRequest { fresh: tries.again(), timeout: tries.left(), ..request(&target) };
            if let Some(exchange) = tries.judge(self.client.send(request).await) {
                return exchange;
            }
        }
    }
}

#[tokio::test]
async fn p2_a_kept_connection_cut_before_an_answer_is_no_answer() {
    for cut in [Cut::Begun, Cut::Head, Cut::Whole, Cut::Reset] {
        let (cutter, world) = (Cutter::start(cut, false).await, world());
        let first = world.post_tries(&cutter.url).await;
        assert_eq!((first.status, first.resend), (Some(200), Resend::No), "{cut:?}");
        let second = world.post_tries(&cutter.url).await;
        assert_eq!((second.status, second.resend), (Some(200), Resend::Done), "{cut:?}: {}", error(&second));
        assert_eq!(cutter.requests(), [1, 1, 2], "{cut:?}");
        // The fresh one is kept in its turn.
        assert_eq!(world.post_tries(&cutter.url).await.resend, Resend::No);
        assert_eq!(cutter.requests(), [1, 1, 2, 2], "{cut:?}");
    }
}

#[tokio::test]
async fn p2_a_second_cut_is_what_it_comes_to() {
    for cut in [Cut::Begun, Cut::Head, Cut::Whole, Cut::Reset] {
        let (cutter, world) = (Cutter::start(cut, true).await, world());
        assert_eq!(world.post_tries(&cutter.url).await.status, Some(200));
        let second = world.post_tries(&cutter.url).await;
        assert_eq!((second.outcome, second.resend), (Outcome::Reset, Resend::Done), "{cut:?}: {}", error(&second));
        assert_eq!(cutter.requests(), [1, 1, 2], "{cut:?}");
        // A first request on a fresh connection is not sent again.
        let third = world.post_tries(&cutter.url).await;
        assert_eq!((third.outcome, third.resend), (Outcome::Reset, Resend::No), "{cut:?}");
        assert_eq!(cutter.requests(), [1, 1, 2, 3], "{cut:?}");
    }
}

#[tokio::test]
async fn p2_once_some_of_an_answer_has_come_nothing_is_sent_again() {
    let cases: [(&[u8], Outcome); 6] = [
        (b"H", Outcome::Reset),
        (b"HTTP/1.1 2", Outcome::Reset),
        (b"HTTP/1.1 200 OK\r\ncontent-le", Outcome::Reset),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Outcome::Reset),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", Outcome::Ok),
        (b"nonsense", Outcome::Protocol),
    ];
    for (bytes, outcome) in cases {
        let (cutter, world) = (Cutter::start(Cut::After(bytes), false).await, world());
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(world.post_tries(&cutter.url).await.status, Some(200));
        let second = world.post_tries(&cutter.url).await;
        assert_eq!((second.outcome, second.resend), (outcome, Resend::No), "{shown}: {}", error(&second));
        assert_eq!(cutter.requests(), [1, 1], "{shown}");
    }
}

#[tokio::test]
async fn p2_what_must_go_out_once_goes_out_once() {
    let (cutter, world) = (Cutter::start(Cut::Whole, false).await, world());
    assert_eq!(world.post(&cutter.url).await.status, Some(200));
    assert_eq!(world.post(&cutter.url).await.resend, Resend::Due);
    assert_eq!(cutter.requests(), [1, 1], "whoever does not ask for a second try has none");
}

#[tokio::test]
async fn the_other_idle_connections_of_a_host_go_with_one_that_was_cut() {
    let receiver = Receiver::start();
    let world = world();
    let url = receiver.url("/");
    let gate = gatepost_testkit::Gate::new();
    receiver.script(Script::status(200).behind(&gate));
    let opener = async {
        receiver.wait_for(5).await;
        gate.open();
    };
    futures_util::future::join(futures_util::future::join_all((0..5).map(|_| world.post(&url))), opener).await;
    assert_eq!(world.client.idle(), 5);
    receiver.script(Script::Close);
    let exchange = world.post_tries(&url).await;
    assert_eq!((exchange.outcome, exchange.resend), (Outcome::Reset, Resend::Done));
    assert_eq!((world.client.idle(), receiver.connections()), (0, 6));
}

#[tokio::test]
async fn a_connection_is_not_used_beyond_the_idle_time_announced() {
    let receiver = Receiver::start_on_thread();
    let world = world();
    let url = receiver.url("/");
    // (announced, idle for, connections after)
    for (announced, idle_ms, connections) in [("timeout=5", 3_900, 0), ("timeout=5", 4_100, 1), ("timeout=1", 600, 1)] {
        receiver.script(Script::status(200).header("keep-alive", announced));
        assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
        let before = receiver.connections();
        tokio::time::pause();
        tokio::time::advance(Duration::from_millis(idle_ms)).await;
        tokio::time::resume();
        assert_eq!(world.post(&url).await.outcome, Outcome::Ok);
        assert_eq!(receiver.connections() - before, connections, "{announced} {idle_ms}");
    }
    // Never kept.
    receiver.script(Script::status(200).header("keep-alive", "timeout=0"));
    world.post(&url).await;
    assert_eq!(world.client.idle(), 0);
}

mod http2 {
    use std::convert::Infallible;
    use std::future::poll_fn;
    use std::task::Poll;

    use h2::Reason;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// What an HTTP/2 receiver does with the second request, and with those after.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Deed {
        /// Resets its stream.
        Stream(Reason),
        /// Drops the connection.
        Drop,
    }

    /// How many requests came, and how many over HTTP/1.1.
    #[derive(Default)]
    struct Seen {
        connections: AtomicUsize,
        h2: AtomicUsize,
        h1: AtomicUsize,
    }

    async fn start(ca: &TestCa, first_is_good: bool, deed: Deed) -> (String, Arc<Seen>) {
        let acceptor = TlsAcceptor::from(ca.server_config(Cert::Good, &["localhost"], true));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}/", listener.local_addr().expect("an address").port());
        let seen = Arc::new(Seen::default());
        let all = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), all.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(stream).await else { return };
                    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                        let _ = serve(tls, first_is_good, deed, &seen).await;
                        return;
                    }
                    let mut came = Vec::new();
                    while tls.read_buf(&mut came).await.is_ok_and(|some| some > 0) {
                        if came.ends_with(b"{\"a\":1}") {
                            came.clear();
                            seen.h1.fetch_add(1, Ordering::SeqCst);
                            let _ = tls.write_all(OK).await;
                        }
                    }
                });
            }
        });
        (url, seen)
    }

    async fn serve(
        tls: tokio_rustls::server::TlsStream<TcpStream>,
        first_is_good: bool,
        deed: Deed,
        seen: &Seen,
    ) -> Result<Infallible, h2::Error> {
        let mut connection = h2::server::handshake(tls).await?;
        loop {
            let next = poll_fn(|cx| connection.poll_accept(cx)).await;
            let Some(next) = next else { return Err(Reason::NO_ERROR.into()) };
            let (mut request, mut respond) = next?;
            let number = seen.h2.fetch_add(1, Ordering::SeqCst) + 1;
            // Only the first of two connections is bad.
            let good = number == 1 && first_is_good || number > 2;
            if good {
                respond.send_response(http::Response::new(()), true)?;
                continue;
            }
            match deed {
                Deed::Stream(reason) => respond.send_reset(reason),
                Deed::Drop => {
                    // All of it has come: it may have been worked on.
                    let body = request.body_mut();
                    let reading = poll_fn(|cx| {
                        let _ = connection.poll_closed(cx);
                        match body.poll_data(cx) {
                            Poll::Ready(None | Some(Err(_))) => Poll::Ready(()),
                            Poll::Ready(Some(Ok(_))) => {
                                cx.waker().wake_by_ref();
                                Poll::Pending
                            }
                            Poll::Pending => Poll::Pending,
                        }
                    });
                    reading.await;
                    return Err(Reason::CANCEL.into());
                }
            }
        }
    }

    fn local(ca: &TestCa) -> World {
        let resolver = ScriptedResolver::new().name("localhost", &["127.0.0.1"]);
        World::allowing(&["127.0.0.1/32"], resolver, Some(ca.pem()))
    }

    #[tokio::test]
    async fn p2_streams_that_were_certainly_not_looked_at_go_out_again_once() {
        let ca = TestCa::new();
        for (first_is_good, deed, resent) in [
            (true, Deed::Stream(Reason::REFUSED_STREAM), true),
            (false, Deed::Stream(Reason::REFUSED_STREAM), true),
            (true, Deed::Drop, true),
            // A connection that never served says nothing about itself.
            (false, Deed::Drop, false),
            // It was looked at.
            (true, Deed::Stream(Reason::CANCEL), false),
            (true, Deed::Stream(Reason::INTERNAL_ERROR), false),
        ] {
            let (url, seen) = start(&ca, first_is_good, deed).await;
            let world = local(&ca);
            if first_is_good {
                let first = world.post_tries(&url).await;
                assert_eq!((first.status, first.resend), (Some(200), Resend::No), "{deed:?}: {}", error(&first));
            } else {
                // So that the second request is the third, and good.
                seen.h2.fetch_add(1, Ordering::SeqCst);
            }
            let second = world.post_tries(&url).await;
            let expected = if resent { (Some(200), Resend::Done) } else { (None, Resend::No) };
            assert_eq!((second.status, second.resend), expected, "{deed:?}: {}", error(&second));
            assert_eq!(seen.h2.load(Ordering::SeqCst), if resent { 3 } else { 2 }, "{deed:?}");
        }
    }

    #[tokio::test]
    async fn a_receiver_that_wants_http_1_1_gets_it_within_the_attempt_and_from_then_on() {
        let ca = TestCa::new();
        for first_is_good in [true, false] {
            let (url, seen) = start(&ca, first_is_good, Deed::Stream(Reason::HTTP_1_1_REQUIRED)).await;
            let world = local(&ca);
            let h2 = usize::from(first_is_good) + 1;
            if first_is_good {
                assert_eq!(world.post_tries(&url).await.status, Some(200));
            }
            let exchange = world.post_tries(&url).await;
            assert_eq!((exchange.status, exchange.resend), (Some(200), Resend::Done), "{}", error(&exchange));
            for _ in 0..3 {
                assert_eq!(world.post_tries(&url).await.resend, Resend::No);
            }
            assert_eq!((seen.h2.load(Ordering::SeqCst), seen.h1.load(Ordering::SeqCst)), (h2, 4));
            assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
        }
    }

    #[tokio::test]
    async fn a_request_for_http_1_1_only_takes_no_http_2() {
        let ca = TestCa::new();
        let (url, seen) = start(&ca, true, Deed::Drop).await;
        let world = local(&ca);
        assert_eq!(world.post(&url).await.status, Some(200), "HTTP/2 lies ready");
        let target = Target::parse(&url).expect("a URL");
        for _ in 0..2 {
            let exchange = world.client.send(OutgoingRequest { http1: true, ..request(&target) }).await;
            assert_eq!(exchange.status, Some(200), "{}", error(&exchange));
        }
        assert_eq!((seen.h2.load(Ordering::SeqCst), seen.h1.load(Ordering::SeqCst)), (1, 2));
    }
}
