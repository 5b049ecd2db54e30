//! A receiver of webhooks, for `listen` and `demo`: answers as it is told and hands over what came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gatepost_core::{Clock, Timestamp, signing};
use gatepost_engine::SystemClock;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dialects;
use crate::text::{indented, printable, shifted};

/// Bytes of a body that is taken: more than any sender sends.
const BODY_BYTES: usize = 64 << 20;
/// Requests nobody has looked at yet; more wait with their answers.
const UNSEEN: usize = 256;
/// How long connections may take to end once the receiver is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// A request as it came, and what it is answered.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it had come whole.
    pub at: Timestamp,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The status of the answer.
    pub answered: StatusCode,
}

/// What a request is answered, and after how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Headers of its own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// How long it waits first.
    pub delay: Duration,
}

impl Reply {
    /// A status and nothing else, at once.
    pub fn status(status: StatusCode) -> Self {
        Reply { status, headers: Vec::new(), body: Bytes::new(), delay: Duration::ZERO }
    }

    /// The same, later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Reply { delay, ..self }
    }
}

/// How a request is answered. Asked in the order requests come whole.
pub type Answer = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// A receiver that runs.
pub struct Receiver {
    addr: SocketAddr,
    requests: mpsc::Receiver<Received>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Receiver {
    /// Listens on `addr` (port 0: any free one) and answers by `answer`.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn start(addr: SocketAddr, answer: Answer) -> Result<Receiver> {
        let listener = TcpListener::bind(addr).await.map_err(|error| {
            anyhow!("cannot listen on {addr} ({error}); choose another address with --addr IP:port")
        })?;
        let addr = listener.local_addr().context("the bound address cannot be read")?;
        let (seen, requests) = mpsc::channel(UNSEEN);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(listener, answer, seen, stop.clone(), tasks.clone()));
        Ok(Receiver { addr, requests, stop, tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next request. It may not have been answered yet, if its answer is delayed.
    pub async fn next(&mut self) -> Option<Received> {
        self.requests.recv().await
    }

    /// Stops accepting, gives the answers that are owed up to `patience`, and ends.
    pub async fn stop(mut self, patience: Duration) {
        self.stop.cancel();
        self.requests.close();
        self.tasks.close();
        // What has not ended by then ends with the process.
        let _ = tokio::time::timeout(patience + GRACE, self.tasks.wait()).await;
    }
}

async fn accept(
    listener: TcpListener,
    answer: Answer,
    seen: mpsc::Sender<Received>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(connection(stream, Arc::clone(&answer), seen.clone(), stop.clone()));
            }
            // No file descriptors, or a peer gone already: not the end.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(stream: TcpStream, answer: Answer, seen: mpsc::Sender<Received>, stop: CancellationToken) {
    // Failing that, answers are merely slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| respond(request, Arc::clone(&answer), seen.clone()));
    let serving = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    // How a sender ends its connection is its own affair.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Answer,
    seen: mpsc::Sender<Received>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES).collect().await else {
        return Ok(empty(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let mut received = Received {
        at: SystemClock.now(),
        method: parts.method,
        path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: parts.headers,
        body: body.to_bytes(),
        answered: StatusCode::SERVICE_UNAVAILABLE,
    };
    let reply = answer(&received);
    received.answered = reply.status;
    // Whoever stopped looking must not get a yes for what nobody has seen.
    if seen.send(received).await.is_err() {
        return Ok(empty(StatusCode::SERVICE_UNAVAILABLE));
    }
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    let mut response = empty(reply.status);
    response.headers_mut().extend(reply.headers);
    *response.body_mut() = Full::new(reply.body);
    Ok(response)
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

impl Received {
    /// A header's value, if it is there once and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        value.to_str().ok()
    }

    /// Checks, as of the moment of arrival, that the sender has the secret, in whichever dialect.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn verify(&self, secret: &str) -> Result<(), String> {
        dialects::verify(self, secret)
    }

    /// The event's type, as far as body and path tell.
    pub fn event_type(&self) -> Option<String> {
        dialects::event_type(self)
    }

    /// The event's id.
    pub fn event_id(&self) -> Option<&str> {
        self.header("gatepost-event-id").or_else(|| self.header(signing::ID_HEADER))
    }

    /// As people read it; `verdict` is what [`Received::verify`] said, if it was asked.
    pub fn to_text(&self, verdict: Option<&Result<(), String>>) -> String {
        let unknown = || "-".to_owned();
        let header = |name| self.header(name).map_or_else(unknown, str::to_owned);
        let signature = match verdict {
            Some(Ok(())) => "✓ signature verified".to_owned(),
            Some(Err(error)) => format!("✗ signature not verified: {error}"),
            None => "signature not checked (no --secret)".to_owned(),
        };
        let test = if self.header("gatepost-test").is_some() { "  (test)" } else { "" };
        let head = format!(
            "{} {} {}  {}{test}\n  {signature}\n  event {}  delivery {}  attempt {}  answered {}\n",
            Timestamp::from_millis(self.at.as_millis()),
            self.method,
            self.path,
            self.event_type().unwrap_or_else(unknown),
            self.event_id().map_or_else(unknown, str::to_owned),
            header("gatepost-delivery-id"),
            header("gatepost-attempt"),
            self.answered.as_u16(),
        );
        let body = match std::str::from_utf8(&self.body) {
            Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => indented(text),
            Ok(text) => text.to_owned(),
            Err(_) => format!("({} bytes that are not text)", self.body.len()),
        };
        printable(&(head + &shifted(&body, "  ")))
    }

    /// As programs read it: one line of JSON.
    pub fn to_json(&self, verdict: Option<&Result<(), String>>) -> String {
        let text = std::str::from_utf8(&self.body);
        let json = Json {
            received_at: self.at,
            method: self.method.as_str(),
            path: &self.path,
            event_type: self.event_type(),
            event_id: self.event_id(),
            delivery_id: self.header("gatepost-delivery-id"),
            attempt: self.header("gatepost-attempt").and_then(|attempt| attempt.parse().ok()),
            test: self.header("gatepost-test").is_some(),
            signature: Signature {
                verified: verdict.map(Result::is_ok),
                error: verdict.and_then(|verdict| verdict.as_ref().err()).map(ToString::to_string),
            },
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect(),
            body: text.ok(),
            body_base64: text.is_err().then(|| STANDARD.encode(&self.body)),
            answered: self.answered.as_u16(),
        };
        // Texts, numbers and maps of them: cannot fail.
        serde_json::to_string(&json).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Json<'a> {
    received_at: Timestamp,
    method: &'a str,
    path: &'a str,
    #[serde(rename = "type")]
    event_type: Option<String>,
    event_id: Option<&'a str>,
    delivery_id: Option<&'a str>,
    attempt: Option<u32>,
    test: bool,
    signature: Signature,
    headers: std::collections::BTreeMap<&'a str, String>,
    /// Exactly the bytes that came, as a text.
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    answered: u16,
}

#[derive(Serialize)]
struct Signature {
    /// Null: not asked.
    verified: Option<bool>,
    error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(body: &'static [u8]) -> Received {
        let mut headers = HeaderMap::new();
        headers.insert("gatepost-event-id", http::HeaderValue::from_static("evt_1"));
        headers.insert("gatepost-attempt", http::HeaderValue::from_static("2"));
        Received {
            at: Timestamp::from_micros(1_500_000),
            method: Method::POST,
            path: "/hook".to_owned(),
            headers,
            body: Bytes::from_static(body),
            answered: StatusCode::NO_CONTENT,
        }
    }

    #[test]
    fn a_request_is_told_to_people() {
        let verdict = Err(signing::VerifyError::NoMatch.to_string());
        let text = received(br#"{"type":"user.created","data":{"n":1.0}}"#).to_text(Some(&verdict));
        assert_eq!(
            text,
            "1970-01-01T00:00:01.5Z POST /hook  user.created\n  ✗ signature not verified: no signature fits: another \
             secret, or the body was changed on the way\n  event evt_1  delivery -  attempt 2  answered 204\n  {\n    \
             \"type\": \"user.created\",\n    \"data\": {\n      \"n\": 1.0\n    }\n  }\n"
        );
    }

    #[test]
    fn a_request_is_one_line_of_json_with_the_exact_body() {
        let line = received(b"{\"type\":\"a\",\n \"x\": 1e400}").to_json(Some(&Ok(())));
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["body"], "{\"type\":\"a\",\n \"x\": 1e400}");
        assert_eq!((&value["attempt"], &value["event_id"]), (&2.into(), &"evt_1".into()));
        assert_eq!(value["signature"]["verified"], true);
        let binary: serde_json::Value = serde_json::from_str(&received(&[0xff, 0]).to_json(None)).unwrap();
        assert_eq!((&binary["body"], &binary["body_base64"]), (&serde_json::Value::Null, &"/wA=".into()));
        assert_eq!(binary["signature"]["verified"], serde_json::Value::Null);
    }
}
