//! Load: HTTP/1.1 connections driven directly, on one thread.
//!
//! A *closed* loop sends the next request when the last one was answered, and finds out what is
//! possible. An *open* one sends when a request is due, however the earlier ones fare, and counts
//! latency from then: a server that stalls cannot hide it by being asked less.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ledger::{ID_BYTES, Ledger};
use super::measure::{Stopwatch, this_thread, thread_cpu};
use super::sink::ID_HEADER;

/// Bytes of padding in an event: with everything around it a delivered body is about 1 KiB.
const PAD: usize = 900;

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As soon as the last one was answered, for so long.
    Closed(Duration),
    /// So many a second, for so long.
    Open(u32, Duration),
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// What a receiver gets, sent by us.
    Raw,
    /// One event a request.
    Event {
        /// Its `urgency`.
        urgency: Option<&'static str>,
    },
    /// A question to blocking hooks.
    Question {
        /// As the hook's receiver gets it; else as the platform asks it.
        direct: bool,
    },
    /// So many events a request.
    Batch {
        /// How many.
        size: usize,
        /// Their `urgency`.
        urgency: Option<&'static str>,
    },
}

/// A load to apply.
#[derive(Clone)]
pub(super) struct Load {
    /// Where to; an address of this machine.
    pub(super) addr: SocketAddr,
    /// The paths, taken in turn.
    pub(super) paths: Vec<String>,
    /// The API key.
    pub(super) key: Option<HeaderValue>,
    /// What is sent.
    pub(super) form: Form,
    /// When.
    pub(super) pace: Pace,
    /// Requests at once, each on a connection of its own.
    pub(super) connections: usize,
    /// Where what was accepted is noted; its capacity bounds the load.
    pub(super) ledger: Arc<Ledger>,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// When the first request was sent, or due.
    pub(super) began: u64,
    /// When the last answer was there.
    pub(super) ended: u64,
    /// Requests answered as they should be.
    pub(super) answered: u64,
    /// Requests that were not.
    pub(super) failed: u64,
    /// Why not, of one of them.
    pub(super) failure: Option<String>,
    /// Nanoseconds to each good answer: from sending (closed) or from when it was due (open).
    pub(super) waits: Vec<u64>,
    /// CPU seconds spent.
    pub(super) cpu: Option<f64>,
}

impl Applied {
    /// Seconds from the first request to the last answer.
    pub(super) fn seconds(&self) -> f64 {
        self.ended.saturating_sub(self.began) as f64 / 1e9
    }
}

impl Load {
    /// Applies it, on a thread of its own.
    ///
    /// # Errors
    /// No connection could be made.
    pub(super) async fn apply(self, watch: Stopwatch) -> Result<Applied> {
        let (done, outcome) = oneshot::channel();
        std::thread::Builder::new().name("bench-load".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let applied = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(self.drive(watch)));
            // Nobody waits for it any more when the whole run was given up.
            let _ = done.send(applied);
        })?;
        outcome.await.context("the load's thread ended early")?
    }

    /// When request `index` of an open loop that began at `began` is due.
    pub(super) fn due(per_second: u32, began: u64, index: usize) -> u64 {
        began + index as u64 * 1_000_000_000 / u64::from(per_second.max(1))
    }

    async fn drive(self, watch: Stopwatch) -> Result<Applied> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            connections.push(connect(self.addr).await?);
        }
        let thread = this_thread();
        let cpu_before = thread_cpu(&thread);
        let began = watch.nanos();
        let work = Arc::new(Work { numbers: self.numbers(began, watch), maker: Maker::new(&self)?, load: self, watch });
        let mut workers = JoinSet::new();
        for connection in connections {
            workers.spawn(work.clone().run(connection));
        }
        let mut all = Applied { began, ..Applied::default() };
        while let Some(worker) = workers.join_next().await {
            let one = worker.context("a worker panicked")?;
            all.answered += one.answered;
            all.failed += one.failed;
            all.failure = all.failure.or(one.failure);
            all.waits.extend(one.waits);
        }
        all.ended = watch.nanos();
        all.cpu = thread_cpu(&thread).zip(cpu_before).map(|(after, before)| after - before);
        Ok(all)
    }

    fn numbers(&self, began: u64, watch: Stopwatch) -> Numbers {
        let (per_second, length) = match self.pace {
            Pace::Closed(length) => {
                let until = watch.at(began) + length;
                return Numbers::Closed { next: AtomicUsize::new(0), until };
            }
            Pace::Open(per_second, length) => (per_second, length),
        };
        let size = match self.form {
            Form::Batch { size, .. } => size.max(1),
            _ => 1,
        };
        let requests = (f64::from(per_second) * length.as_secs_f64()) as usize;
        let count = requests.min(self.ledger.capacity() / size);
        let (due, queue) = mpsc::unbounded_channel();
        // The runtime's timers tick in milliseconds; a sleeping thread is a few tens of
        // microseconds late. It ends with its list, or when nobody listens.
        std::thread::spawn(move || {
            for index in 0..count {
                let at = Self::due(per_second, began, index);
                let wait = at.saturating_sub(watch.nanos());
                if wait > 0 {
                    std::thread::sleep(Duration::from_nanos(wait));
                }
                if due.send((index, at)).is_err() {
                    return;
                }
            }
        });
        Numbers::Open(Mutex::new(queue))
    }
}

/// Which event is next.
enum Numbers {
    Closed {
        next: AtomicUsize,
        until: Instant,
    },
    /// Bounded by what the loop sends in all.
    Open(Mutex<mpsc::UnboundedReceiver<(usize, u64)>>),
}

struct Work {
    numbers: Numbers,
    maker: Maker,
    load: Load,
    watch: Stopwatch,
}

impl Work {
    /// The next event's number and when its waiting begins.
    async fn next(&self) -> Option<(usize, u64)> {
        match &self.numbers {
            Numbers::Closed { next, until } => {
                let size = self.maker.size;
                let number = next.fetch_add(size, Ordering::Relaxed);
                let go = number + size <= self.load.ledger.capacity() && Instant::now() < *until;
                go.then(|| (number, self.watch.nanos()))
            }
            // A request carries as many numbers as it has events.
            Numbers::Open(queue) => {
                let due = queue.lock().await.recv().await;
                due.map(|(index, at)| (index * self.maker.size, at))
            }
        }
    }

    async fn run(self: Arc<Self>, mut connection: http1::SendRequest<Full<Bytes>>) -> Applied {
        let mut mine = Applied::default();
        while let Some((number, since)) = self.next().await {
            let request = self.maker.request(&self.load.ledger, number);
            match send(&mut connection, request).await {
                Ok(status) if status.is_success() => {
                    self.load.ledger.accept(number, self.maker.size);
                    mine.answered += 1;
                    mine.waits.push(self.watch.nanos() - since);
                }
                Ok(status) => mine.fail(format!("answered {status}")),
                Err(error) => {
                    mine.fail(format!("{error:#}"));
                    match connect(self.load.addr).await {
                        Ok(fresh) => connection = fresh,
                        // The server is gone, perhaps on purpose.
                        Err(_) => break,
                    }
                }
            }
        }
        mine
    }
}

impl Applied {
    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.failure.get_or_insert(why);
    }
}

async fn send(
    connection: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, hyper::Error> {
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(status)
}

async fn connect(addr: SocketAddr) -> Result<http1::SendRequest<Full<Bytes>>> {
    ensure!(addr.ip().is_loopback(), "a benchmark stays on this machine");
    #[expect(clippy::disallowed_methods, reason = "the plain client the server's own is compared with; loopback only")]
    let stream = TcpStream::connect(addr).await.context("the load cannot connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors reach the request under way.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Makes requests from a template: a load generator must cost as little as it can.
struct Maker {
    host: HeaderValue,
    paths: Vec<Uri>,
    key: Option<HeaderValue>,
    raw: bool,
    size: usize,
    /// One event; its id is at `id_at`.
    event: Vec<u8>,
    id_at: usize,
}

impl Maker {
    fn new(load: &Load) -> Result<Self> {
        let (raw, size, urgency) = match load.form {
            Form::Raw => (true, 1, None),
            Form::Event { urgency } => (false, 1, urgency),
            Form::Question { direct } => (direct, 1, None),
            Form::Batch { size, urgency } => (false, size, urgency),
        };
        let id = "b00000000-00000000";
        debug_assert_eq!(id.len(), ID_BYTES);
        let pad = "x".repeat(PAD);
        let when = if raw { r#","timestamp":"2026-01-01T00:00:00.000000Z""# } else { "" };
        let urgency = urgency.map(|word| format!(r#","urgency":"{word}""#)).unwrap_or_default();
        let event =
            format!(r#"{{"id":"{id}","type":"bench.event"{when}{urgency},"data":{{"user":"u-1","pad":"{pad}"}}}}"#);
        let event = match load.form {
            Form::Question { .. } => {
                let kind = if raw { format!(r#""id":"{id}","type":"hook.validateUser","#) } else { String::new() };
                format!(
                    r#"{{{kind}"subject":{{"type":"user","id":"{id}"}},"object":{{"user":{{"login":"u-1","pad":"{pad}"}}}}}}"#
                )
            }
            _ => event,
        };
        let id_at = event.find(id).context("the template has no id")?;
        let paths = load.paths.iter().map(|path| Ok(path.parse()?)).collect::<Result<Vec<Uri>>>()?;
        ensure!(!paths.is_empty() && size > 0, "a load goes somewhere and has a size");
        let host = HeaderValue::from_str(&load.addr.to_string())?;
        Ok(Maker { host, paths, key: load.key.clone(), raw, size, event: event.into_bytes(), id_at })
    }

    /// The request for the events from `number` on.
    fn request(&self, ledger: &Ledger, number: usize) -> Request<Full<Bytes>> {
        let body = match self.size {
            1 => self.event(ledger, number),
            size => {
                let mut body = Vec::with_capacity(16 + size * (self.event.len() + 1));
                body.extend_from_slice(br#"{"events":["#);
                for index in 0..size {
                    if index > 0 {
                        body.push(b',');
                    }
                    body.extend_from_slice(&self.event(ledger, number + index));
                }
                body.extend_from_slice(b"]}");
                body
            }
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.paths[number / self.size % self.paths.len()].clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            headers.insert(AUTHORIZATION, key.clone());
        }
        if self.raw {
            let mut id = [b'0'; ID_BYTES];
            ledger.write_id(number, &mut id);
            // Letters, digits and a dash are a header value.
            let id = HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("?"));
            headers.insert(HeaderName::from_static(ID_HEADER), id);
        }
        request
    }

    fn event(&self, ledger: &Ledger, number: usize) -> Vec<u8> {
        let mut event = self.event.clone();
        ledger.write_id(number, &mut event[self.id_at..]);
        event
    }
}

#[cfg(test)]
mod tests {
    use super::super::sink::Sink;
    use super::*;

    fn load(ledger: &Arc<Ledger>, form: Form, pace: Pace, addr: SocketAddr) -> Load {
        let paths = vec!["/a".to_owned(), "/b".to_owned()];
        Load { addr, paths, key: None, form, pace, connections: 4, ledger: ledger.clone() }
    }

    #[tokio::test]
    async fn what_is_sent_is_what_the_receivers_count() {
        let watch = Stopwatch::start();
        let sink = Sink::start(2, watch).unwrap();
        for pace in [Pace::Closed(Duration::from_secs(60)), Pace::Open(100_000, Duration::from_secs(60))] {
            let ledger = Arc::new(Ledger::new(100, 1));
            sink.watch(&ledger);
            let applied = load(&ledger, Form::Raw, pace, sink.addrs()[1]).apply(watch).await.unwrap();
            assert_eq!((applied.answered, applied.failed, applied.waits.len()), (100, 0, 100));
            let balance = ledger.balance();
            assert_eq!((balance.accepted, balance.distinct, balance.duplicates, balance.missing), (100, 100, 0, 0));
            assert!(ledger.is_complete());
        }
        assert_eq!(sink.strays(), 0);
        sink.forget();
        let ledger = Arc::new(Ledger::new(3, 1));
        load(&ledger, Form::Raw, Pace::Closed(Duration::from_secs(60)), sink.addrs()[0]).apply(watch).await.unwrap();
        assert_eq!((sink.strays(), ledger.balance().missing), (3, 3));
    }

    #[tokio::test]
    async fn held_receivers_answer_when_released() {
        let watch = Stopwatch::start();
        let sink = Sink::start(1, watch).unwrap();
        sink.hold();
        let ledger = Arc::new(Ledger::new(4, 1));
        sink.watch(&ledger);
        let applying =
            tokio::spawn(load(&ledger, Form::Raw, Pace::Closed(Duration::from_secs(60)), sink.addrs()[0]).apply(watch));
        while ledger.distinct() < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ledger.accepted(), 0);
        sink.release();
        assert_eq!(applying.await.unwrap().unwrap().answered, 4);
    }

    #[test]
    fn bodies_are_events_with_their_ids() {
        let ledger = Arc::new(Ledger::new(10, 1));
        let addr = "127.0.0.1:1".parse().unwrap();
        let pace = Pace::Closed(Duration::ZERO);
        let maker = Maker::new(&load(&ledger, Form::Batch { size: 3, urgency: Some("bulk") }, pace, addr)).unwrap();
        let request = maker.request(&ledger, 6);
        assert_eq!(request.uri(), "/a");
        let bytes = futures_bytes(request);
        let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let events = body["events"].as_array().unwrap();
        assert_eq!(events.len(), 3);
        for (index, event) in events.iter().enumerate() {
            let (run, number) = Ledger::read_id(event["id"].as_str().unwrap().as_bytes()).unwrap();
            assert!(ledger.is(run));
            assert_eq!((number, event["urgency"].as_str()), (6 + index, Some("bulk")));
        }
    }

    fn futures_bytes(request: Request<Full<Bytes>>) -> Bytes {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { request.into_body().collect().await.unwrap().to_bytes() })
    }

    #[tokio::test]
    async fn load_never_leaves_this_machine() {
        assert!(connect("192.0.2.1:80".parse().unwrap()).await.is_err());
    }
}
