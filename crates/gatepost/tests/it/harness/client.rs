//! The API's client in tests: one keep-alive connection, blocking, and what it answers.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::text;

/// A request's body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload(pub(crate) Bytes);

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Payload(Bytes::from(value.to_string()))
    }
}

impl From<&str> for Payload {
    fn from(value: &str) -> Self {
        Payload(Bytes::copy_from_slice(value.as_bytes()))
    }
}

impl From<String> for Payload {
    fn from(value: String) -> Self {
        Payload(Bytes::from(value))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(value: Vec<u8>) -> Self {
        Payload(Bytes::from(value))
    }
}

impl From<Bytes> for Payload {
    fn from(value: Bytes) -> Self {
        Payload(value)
    }
}

impl From<()> for Payload {
    fn from((): ()) -> Self {
        Payload::default()
    }
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: http::HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.text())
    }
}

impl Reply {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }

    /// A header's first value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The same, if it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The same, if it is a problem with this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        self
    }

    /// The pointers of a problem's `errors`, sorted.
    #[track_caller]
    pub(crate) fn pointers(&self) -> Vec<String> {
        let json = self.json();
        let errors = json["errors"].as_array().unwrap_or_else(|| panic!("no errors: {self:?}"));
        let mut pointers: Vec<String> = errors.iter().map(|e| text(e, "pointer")).collect();
        pointers.sort();
        pointers
    }
}

/// One keep-alive connection with one key.
pub(crate) struct Client {
    addr: SocketAddr,
    key: String,
    runtime: tokio::runtime::Runtime,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Connects at the first request.
    pub(crate) fn new(addr: SocketAddr, key: &str) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Client { addr, key: key.to_owned(), runtime: runtime.expect("a runtime"), connection: None }
    }

    /// GET.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.send("GET", path, &[], ())
    }

    /// POST of JSON.
    #[track_caller]
    pub(crate) fn post(&mut self, path: &str, body: impl Into<Payload>) -> Reply {
        self.send("POST", path, &[], body)
    }

    /// PUT of JSON.
    #[track_caller]
    pub(crate) fn put(&mut self, path: &str, body: impl Into<Payload>) -> Reply {
        self.send("PUT", path, &[], body)
    }

    /// PATCH of JSON.
    #[track_caller]
    pub(crate) fn patch(&mut self, path: &str, body: impl Into<Payload>) -> Reply {
        self.send("PATCH", path, &[], body)
    }

    /// DELETE.
    #[track_caller]
    pub(crate) fn delete(&mut self, path: &str) -> Reply {
        self.send("DELETE", path, &[], ())
    }

    /// Any request, with headers; `authorization` and `content-type: application/json` (when there
    /// is a body) are added unless given. A header given with an empty value is not sent.
    ///
    /// # Panics
    /// There was no answer.
    #[track_caller]
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Payload>,
    ) -> Reply {
        match self.try_send(method, path, headers, body) {
            Ok(reply) => reply,
            Err(error) => panic!("{method} {path} had no answer: {error}"),
        }
    }

    /// As [`Client::send`], where the server may be gone.
    #[track_caller]
    pub(crate) fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Payload>,
    ) -> Result<Reply, String> {
        let body = body.into().0;
        let mut request = http::Request::builder().method(method).uri(path).header("host", self.addr.to_string());
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !given("authorization") {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        if !body.is_empty() && !given("content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let (addr, kept) = (self.addr, self.connection.take());
        let answered = self.runtime.block_on(async {
            let kept = match kept {
                Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
                None => None,
            };
            let mut connection = match kept {
                Some(kept) => kept,
                None => connect(addr).await?,
            };
            let response = connection.send_request(request).await.map_err(|e| format!("{e:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| format!("{e:?}"))?.to_bytes();
            Ok::<_, String>((connection, Reply { status: parts.status.as_u16(), headers: parts.headers, body }))
        });
        let (connection, reply) = answered?;
        self.connection = Some(connection);
        let sent = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        super::contract::check(method, path, sent.map(|(_, kind)| *kind), &reply);
        Ok(reply)
    }

    /// Every row of a list, page by page.
    #[track_caller]
    pub(crate) fn all(&mut self, path: &str) -> Vec<Value> {
        let join = if path.contains('?') { '&' } else { '?' };
        let (mut rows, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = match &cursor {
                Some(cursor) => self.get(&format!("{path}{join}limit=250&cursor={cursor}")),
                None => self.get(&format!("{path}{join}limit=250")),
            };
            let page = page.expect(200).json();
            let data = page["data"].as_array().unwrap_or_else(|| panic!("no data: {page:#}"));
            rows.extend(data.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) if Some(next) != cursor.as_deref() => cursor = Some(next.to_owned()),
                _ => return rows,
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the client of the server under test, not the product")]
async fn connect(addr: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = tokio::net::TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
    let _ = stream.set_nodelay(true);
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Writes these bytes on a connection of their own and reads until the server closes it or, when
/// the answer has a `content-length`, until that is there.
#[expect(clippy::disallowed_methods, reason = "the client of the server under test, not the product")]
pub(crate) fn raw(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("not zero");
    // A server that has answered already may refuse the rest.
    let _ = stream.write_all(request);
    let (mut answer, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return answer,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
        }
        if complete(&answer) {
            return answer;
        }
    }
}

fn complete(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= head + 4 + length)
}
