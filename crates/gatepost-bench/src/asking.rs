//! Asking two servers the same questions in turn, and how long each answer takes.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::measure::{Stopwatch, millis, percentile};

/// Asked before anything is measured.
const WARM: usize = 5;

/// Something to GET.
#[derive(Clone)]
pub(super) struct Question {
    /// What it is called.
    pub(super) name: String,
    /// The path with its query.
    pub(super) path: String,
    /// The `Authorization`.
    pub(super) key: HeaderValue,
}

/// How long the answers to one question took.
pub(super) struct Times {
    /// 99 % of them, in milliseconds.
    pub(super) p99: f64,
    /// Why one of them was none.
    pub(super) failure: Option<String>,
}

/// Asks both each question so many times, call by call in turn; by question, what came of it.
///
/// # Errors
/// A server cannot be reached.
pub(super) async fn compare(
    stores: [(SocketAddr, Vec<Question>); 2],
    calls: usize,
    watch: Stopwatch,
) -> Result<Vec<[Times; 2]>> {
    let (done, outcome) = oneshot::channel();
    // A thread of its own: nothing else of this process comes between.
    std::thread::Builder::new().name("bench-lists".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let compared = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
            runtime.block_on(async {
                let [small, large] = &stores;
                let (mut one, mut two) = (Asker::new(small.0).await?, Asker::new(large.0).await?);
                let mut all = Vec::with_capacity(small.1.len());
                for (on_small, on_large) in small.1.iter().zip(&large.1) {
                    all.push(in_turn([&mut one, &mut two], [on_small, on_large], calls, watch).await?);
                }
                Ok(all)
            })
        });
        // Nobody waits for it any more when the whole run was given up.
        let _ = done.send(compared);
    })?;
    outcome.await.context("the asking thread ended early")?
}

async fn in_turn(
    askers: [&mut Asker; 2],
    questions: [&Question; 2],
    calls: usize,
    watch: Stopwatch,
) -> Result<[Times; 2]> {
    let [one, two] = askers;
    let (mut took, mut failures): ([Vec<u64>; 2], [Option<String>; 2]) = Default::default();
    for call in 0..WARM + calls {
        // Who comes first changes, so that neither always finds the other's leavings in the caches.
        let order = if call % 2 == 0 { [0, 1] } else { [1, 0] };
        for store in order {
            let asker = if store == 0 { &mut *one } else { &mut *two };
            let began = watch.nanos();
            let status = asker.ask(questions[store]).await?;
            let nanos = watch.nanos() - began;
            if status != StatusCode::OK {
                failures[store].get_or_insert(format!("answered {status}"));
            } else if call >= WARM {
                took[store].push(nanos);
            }
        }
    }
    let mut of =
        |store: usize| Times { p99: millis(percentile(&mut took[store], 99.0)), failure: failures[store].take() };
    Ok([of(0), of(1)])
}

/// A kept connection.
struct Asker {
    host: HeaderValue,
    connection: http1::SendRequest<Empty<Bytes>>,
}

impl Asker {
    async fn new(addr: SocketAddr) -> Result<Asker> {
        ensure!(addr.ip().is_loopback(), "a benchmark stays on this machine");
        #[expect(clippy::disallowed_methods, reason = "the benchmark's own client; loopback only")]
        let stream = TcpStream::connect(addr).await.context("the server cannot be reached")?;
        stream.set_nodelay(true)?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
        // Its errors reach the request under way.
        tokio::spawn(async move { drop(driver.await) });
        Ok(Asker { host: HeaderValue::from_str(&addr.to_string())?, connection })
    }

    async fn ask(&mut self, question: &Question) -> Result<StatusCode> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = question.path.parse()?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(AUTHORIZATION, question.key.clone());
        self.connection.ready().await?;
        let response = self.connection.send_request(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(status)
    }
}
