//! The receiver's side of the wire.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::receiver::Shared;
use crate::{Answer, Received, Script};

/// Accepts until stopped, and drops every connection then.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let tls = tls.map(TlsAcceptor::from);
    let connections = TaskTracker::new();
    loop {
        let tcp = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                Err(_) => continue,
            },
        };
        let _ = tcp.set_nodelay(true);
        let open = Open { number: shared.accepted(), shared: shared.clone() };
        let (tls, stop) = (tls.clone(), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = connection(tcp, tls, &open) => {}
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// An open connection; counted as closed when dropped.
struct Open {
    number: usize,
    shared: Arc<Shared>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.closed();
    }
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, open: &Open) -> io::Result<()> {
    let Some(acceptor) = tls else {
        return Http1 { stream: tcp, buffer: BytesMut::new(), open }.serve().await;
    };
    let stream = acceptor.accept(tcp).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return match open.shared.frames() {
            Some(again) => flood_h2(stream, &again, open).await,
            None => http2(stream, open).await,
        };
    }
    Http1 { stream, buffer: BytesMut::new(), open }.serve().await
}

/// A stream whose connection can be cut hard.
trait Cut: AsyncRead + AsyncWrite + Unpin {
    /// Makes closing a reset.
    fn cut(&self);
}

impl Cut for TcpStream {
    fn cut(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Cut for TlsStream<TcpStream> {
    fn cut(&self) {
        self.get_ref().0.cut();
    }
}

/// One HTTP/1.1 connection, read by hand: what counts here are the bytes as sent, with the case and
/// order of header names, which HTTP libraries do not keep.
struct Http1<'a, S> {
    stream: S,
    buffer: BytesMut,
    open: &'a Open,
}

impl<S: Cut> Http1<'_, S> {
    async fn serve(mut self) -> io::Result<()> {
        while let Some(request) = self.read_request().await? {
            let script = self.open.shared.note(request);
            if !self.act(script).await? {
                break;
            }
        }
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    /// The next request; nothing when the client has gone or talks nonsense.
    async fn read_request(&mut self) -> io::Result<Option<Received>> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.first().is_some_and(|b| !b.is_ascii_uppercase()) {
                let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                self.write(answer).await?;
                return Ok(None);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&self.buffer.split_to(head_end)).into_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut request = Received {
            number: self.open.shared.next_number(),
            connection: self.open.number,
            method: method.to_owned(),
            path: path.to_owned(),
            version: "HTTP/1.1",
            headers,
            body: Bytes::new(),
        };
        let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
        request.body = self.buffer.split_to(length).freeze();
        Ok(Some(request))
    }

    /// Plays a script; says whether the connection goes on.
    async fn act(&mut self, script: Script) -> io::Result<bool> {
        match settle(script).await {
            Script::Answer(answer) => {
                let close = answer.then_close
                    || answer.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("connection") && v == "close");
                self.write(&head_and_body(&answer)).await?;
                Ok(!close)
            }
            Script::Hang => self.until_gone().await,
            Script::Reset => {
                self.stream.cut();
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Script::EndlessBody => {
                self.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
                let chunk = [b'x'; 16 * 1024];
                loop {
                    self.write(&chunk).await?;
                }
            }
            Script::Drip(interval) => self.drip(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", interval).await,
            Script::DripBody(interval) => {
                self.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
                self.drip(&[b'x'; 1_000_000], interval).await
            }
            Script::HugeHeaders(size) => {
                self.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n").await?;
                let line = format!("x-filler: {}\r\n", "x".repeat(1000));
                for _ in 0..size / line.len() {
                    self.write(line.as_bytes()).await?;
                }
                self.write(b"\r\n").await?;
                Ok(true)
            }
            Script::Garbage => {
                self.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n").await?;
                Ok(false)
            }
            Script::StallBody => {
                self.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbeginning ").await?;
                self.until_gone().await
            }
            Script::CutBody => {
                self.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbeginning ").await?;
                Ok(false)
            }
            Script::Raw(bytes) => {
                self.write(&bytes).await?;
                Ok(true)
            }
            Script::Flood(first, again) => {
                self.write(&first).await?;
                let much = again.repeat(16 * 1024 / again.len().max(1) + 1);
                loop {
                    self.write(&much).await?;
                }
            }
            Script::Close | Script::Delay(..) | Script::Hold(..) | Script::With(_) => Ok(false),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        self.open.shared.bytes_sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    async fn drip(&mut self, bytes: &[u8], interval: Duration) -> io::Result<bool> {
        for byte in bytes.chunks(1) {
            self.write(byte).await?;
            tokio::time::sleep(interval).await;
        }
        Ok(true)
    }

    async fn until_gone(&mut self) -> io::Result<bool> {
        let mut nothing = [0; 1024];
        while self.stream.read(&mut nothing).await? > 0 {}
        Ok(false)
    }
}

/// Lives through the waiting at the front of a script.
async fn settle(mut script: Script) -> Script {
    loop {
        script = match script {
            Script::Delay(delay, then) => {
                tokio::time::sleep(delay).await;
                *then
            }
            Script::Hold(gate, then) => {
                gate.passed().await;
                *then
            }
            other => return other,
        }
    }
}

fn head_and_body(answer: &Answer) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(answer.status).ok().and_then(|s| s.canonical_reason());
    let mut text = format!("HTTP/1.1 {} {}\r\n", answer.status, reason.unwrap_or_default());
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    // RFC 9110 section 8.6: a 204 has no content-length.
    if answer.status != 204 {
        text.push_str(&format!("content-length: {}\r\n", answer.body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&answer.body);
    bytes
}

async fn http2(stream: TlsStream<TcpStream>, open: &Open) -> io::Result<()> {
    let service = service_fn(|request| answer_h2(request, open.number, open.shared.clone()));
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

/// Takes one request, without looking at it, and sends these frames over and over.
async fn flood_h2(mut stream: TlsStream<TcpStream>, again: &Bytes, open: &Open) -> io::Result<()> {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; PREFACE]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await?;
        if head[3] == HEADERS {
            break;
        }
    }
    open.shared.note(Received {
        number: open.shared.next_number(),
        connection: open.number,
        method: String::new(),
        path: String::new(),
        version: "HTTP/2",
        headers: Vec::new(),
        body: Bytes::new(),
    });
    let much = again.repeat(16 * 1024 / again.len().max(1) + 1);
    let (mut reading, mut writing) = tokio::io::split(stream);
    let read = async {
        let mut nothing = [0; 1024];
        while reading.read(&mut nothing).await? > 0 {}
        io::Result::Ok(())
    };
    let write = async {
        loop {
            writing.write_all(&much).await?;
            open.shared.bytes_sent.fetch_add(much.len() as u64, Ordering::SeqCst);
        }
    };
    tokio::select! {
        ended = read => ended,
        ended = write => ended,
    }
}

type H2Body = Either<Full<Bytes>, Endless>;

async fn answer_h2(
    request: http::Request<Incoming>,
    connection: usize,
    shared: Arc<Shared>,
) -> Result<http::Response<H2Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let headers = parts.headers.iter();
    let script = shared.note(Received {
        number: shared.next_number(),
        connection,
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: "HTTP/2",
        headers: headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect(),
        body,
    });
    let mut response = http::Response::builder();
    match settle(script).await {
        Script::Answer(answer) => {
            response = response.status(answer.status);
            for (name, value) in &answer.headers {
                response = response.header(name, value);
            }
            response.body(Either::Left(Full::new(answer.body))).map_err(io::Error::other)
        }
        Script::Hang => std::future::pending().await,
        Script::EndlessBody => response.body(Either::Right(Endless { stalls: false })).map_err(io::Error::other),
        Script::StallBody => response.body(Either::Right(Endless { stalls: true })).map_err(io::Error::other),
        Script::HugeHeaders(size) => {
            let line = "x".repeat(1000);
            for _ in 0..size / line.len() {
                response = response.header("x-filler", &line);
            }
            response.body(Either::Left(Full::default())).map_err(io::Error::other)
        }
        // An error resets the stream.
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// A body without end, or one that stops after its first bytes.
struct Endless {
    stalls: bool,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.stalls {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}
