//! A hook's receiver that does as little as one can: read the question, say yes to its id.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// It runs, on a thread of its own, until it is dropped.
pub(super) struct Answerer {
    addr: SocketAddr,
    asked: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Answerer {
    /// Listens on a port of this machine only.
    pub(super) fn start() -> Result<Answerer> {
        let (asked, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let (started, starting) = std::sync::mpsc::channel();
        let (counter, until) = (Arc::clone(&asked), stop.clone());
        std::thread::Builder::new().name("bench-answer".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
                runtime.block_on(async {
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                    // Whoever started this waits for the answer.
                    let _ = started.send(listener.local_addr());
                    tokio::select! {
                        () = serve(listener, counter) => {}
                        () = until.cancelled() => {}
                    }
                    Ok(())
                })
            });
            drop(served);
        })?;
        let addr = starting.recv().context("the hooks' receiver ended at once")??;
        Ok(Answerer { addr, asked, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Questions answered so far.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, asked: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let asked = Arc::clone(&asked);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &asked));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, asked: &AtomicU64) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    asked.fetch_add(1, Ordering::Relaxed);
    let answer = format!(r#"{{"id":"{}","decision":"allow"}}"#, id_in(&body).unwrap_or_default());
    let mut response = Response::new(Full::new(Bytes::from(answer)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The question's id: `"id":"inv_…"` or, asked directly, `"id":"b…"`; others within have other prefixes.
fn id_in(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let starts = [r#""id":"inv_"#, r#""id":"b"#];
    let at = starts.iter().find_map(|start| text.find(start))? + r#""id":""#.len();
    text[at..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_questions() {
        for (body, id) in [
            (r#"{"dry_run":false,"id":"inv_01","object":{"user":{"id":"u"}}}"#, Some("inv_01")),
            (r#"{"id":"b00000000-00000001","type":"hook.x"}"#, Some("b00000000-00000001")),
            (r#"{"subject":{"id":"u1"},"id":"inv_2"}"#, Some("inv_2")),
            ("{}", None),
        ] {
            assert_eq!(id_in(body.as_bytes()), id, "{body}");
        }
    }
}
