//! Sending one request and telling what came of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gatepost_core::delivery::{Outcome, Response, Timings};
use gatepost_core::{Clock, Timestamp};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::{Dialed, Dialer};
use super::failure::{self, Failure, Phase, Progress, micros};
use super::headers::Headers;
use super::identity::ClientIdentity;
use super::keep_alive;
use super::limits::Limits;
use super::policy::EgressPolicy;
use super::pool::{Conn, H1, H2, HostPool, Pool, Suspect};
use super::race::Wanted;
use super::resend::{self, Resend, Untouched};
use super::resolve::Resolve;
use super::target::Target;
use super::tls::{self, TlsConfigs, TlsSetupError};
use super::versions::OnlyHttp1;

/// How much of an answer's body is read, and how much of that and of its headers is kept.
const KEPT_ANSWER: Room = Room { read: 64 * 1024, keep: KEPT_BODY };
/// How many bytes of an answer's body [`Client::send`] keeps at most.
pub(crate) const KEPT_BODY: usize = 16 * 1024;
const KEEP_HEADERS: usize = 16 * 1024;
/// The time an answer's body gets even when its head came at the last moment.
const BODY_GRACE: Duration = Duration::from_millis(500);
/// How long the resolver may take to say whether it is alive, once a request has run out of time.
const ASK_RESOLVER: Duration = Duration::from_secs(1);
/// How long a connection may take to become idle again after its answer.
const SETTLE: Duration = Duration::from_secs(1);
/// How long connections are prepared for at a time.
const WARM_TIME: Duration = Duration::from_secs(2);

/// What a [`Client`] is made of.
pub struct ClientOptions {
    /// Where requests may go.
    pub policy: Arc<EgressPolicy>,
    /// How names become addresses.
    pub resolver: Arc<dyn Resolve>,
    /// What time it is: for [`Exchange::started_at`].
    pub clock: Arc<dyn Clock>,
    /// The `user-agent` of requests that bring none.
    pub user_agent: HeaderValue,
    /// PEM certificates trusted besides the system's (`GATEPOST_EXTRA_CA`).
    pub extra_ca_pem: Option<Vec<u8>>,
}

/// One request to be sent.
pub struct OutgoingRequest<'a> {
    /// Where to.
    pub target: &'a Target,
    /// The method.
    pub method: Method,
    /// The headers, `host` and what frames the message left out.
    pub headers: Headers,
    /// Write `Content-Type`, not `content-type`, on HTTP/1.1, for receivers that take names
    /// literally. HTTP/2 has lower-case names only.
    pub title_case: bool,
    /// The body.
    pub body: Bytes,
    /// How long a whole status line and headers may take, from now on, connecting included.
    pub timeout: Duration,
    /// Networks allowed to this call besides the policy's (a tenant's).
    pub allow_nets: &'a [IpNet],
    /// Who we are, should the receiver ask for a certificate. Connections are shared by requests of
    /// one identity only.
    pub identity: Option<&'a ClientIdentity>,
    /// Speak HTTP/1.1 to the receiver, whatever else it may offer.
    pub http1: bool,
    /// Use no connection that was used before (see [`Tries`](super::Tries)).
    pub fresh: bool,
}

/// What came of one request. A failed exchange is a fact like any other, never an `Err`.
#[derive(Debug)]
pub struct Exchange {
    /// When it began.
    pub started_at: Timestamp,
    /// What it came to.
    pub outcome: Outcome,
    /// The HTTP status, if one arrived.
    pub status: Option<u16>,
    /// One line for a person, unless the outcome is [`Outcome::Ok`]. Never names an inner address.
    pub error: Option<String>,
    /// How long it took.
    pub timings: Timings,
    /// What came back, if anything did.
    pub response: Option<Response>,
    /// Our own fault (no file descriptors, our resolver down): says nothing about the receiver, and
    /// uses up no attempt.
    pub local_fault: bool,
    /// A status line came, and what came with it makes no answer: its head, or its body's framing.
    pub unusable: bool,
    /// Whether the request may go out again, or did.
    pub resend: Resend,
}

/// The product's HTTP client. Cheap to clone; clones share their connections.
///
/// Connections run on the runtime that opened them. A program with several runtimes gives each its
/// own [`Client::with_own_pool`].
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    dialer: Arc<Dialer>,
    pool: Arc<Pool>,
    clock: Arc<dyn Clock>,
    user_agent: HeaderValue,
}

impl Client {
    /// A client under a policy.
    ///
    /// # Errors
    /// The extra CA is unreadable, or TLS cannot be set up.
    pub fn new(options: ClientOptions) -> Result<Client, TlsSetupError> {
        let tls = tls::client_config(options.extra_ca_pem.as_deref())?;
        let dialer = Dialer {
            policy: options.policy,
            resolver: options.resolver,
            tls: TlsConfigs::new(tls),
            only_http1: OnlyHttp1::default(),
        };
        Ok(Client(Arc::new(Inner {
            dialer: Arc::new(dialer),
            pool: Pool::new(Limits::default()),
            clock: options.clock,
            user_agent: options.user_agent,
        })))
    }

    /// A client that calls whatever it is told to: for the command line, where a person names the
    /// server; never for a tenant's URL.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn unrestricted(
        clock: Arc<dyn Clock>,
        resolver: Arc<dyn Resolve>,
        user_agent: HeaderValue,
        extra_ca_pem: Option<Vec<u8>>,
    ) -> Result<Client, TlsSetupError> {
        let policy = Arc::new(EgressPolicy::unrestricted());
        Client::new(ClientOptions { policy, resolver, clock, user_agent, extra_ca_pem })
    }

    /// The same client, with connections of its own, of which it keeps at most so many for later requests,
    /// and never more than half of this process's descriptors allow.
    #[must_use]
    pub fn keeping(&self, idle: usize) -> Client {
        Client(Arc::new(Inner {
            dialer: self.0.dialer.clone(),
            pool: Pool::new(self.0.pool.limits().keeping(idle)),
            clock: self.0.clock.clone(),
            user_agent: self.0.user_agent.clone(),
        }))
    }

    /// The same client with connections of its own, for another runtime and few hosts: it keeps an eighth
    /// as many.
    #[must_use]
    pub fn with_own_pool(&self) -> Client {
        Client(Arc::new(Inner {
            dialer: self.0.dialer.clone(),
            pool: Pool::new(self.0.pool.limits().aside()),
            clock: self.0.clock.clone(),
            user_agent: self.0.user_agent.clone(),
        }))
    }

    /// The policy requests go out under.
    pub fn policy(&self) -> &Arc<EgressPolicy> {
        &self.0.dialer.policy
    }

    /// Sends one request: on a kept connection, or on a fresh one that leads to a judged address.
    /// Follows no redirect, knows no proxy. Returns within the timeout, plus half a second for the
    /// body of an answer that came late (and one more to ask a silent resolver whether it lives).
    pub async fn send(&self, request: OutgoingRequest<'_>) -> Exchange {
        self.exchange(request, KEPT_ANSWER).await
    }

    /// The same, but reads and keeps up to `max_body` bytes of the answer: for the command line, which
    /// asks for long lists. Never for a tenant's receiver (P10).
    pub async fn send_reading(&self, request: OutgoingRequest<'_>, max_body: usize) -> Exchange {
        self.exchange(request, Room { read: max_body, keep: max_body }).await
    }

    async fn exchange(&self, request: OutgoingRequest<'_>, room: Room) -> Exchange {
        let started_at = self.0.clock.now();
        let began = Instant::now();
        let deadline = began + request.timeout;
        let mut progress = Progress::new();
        let mut suspect = None;
        let allowed = request.timeout;
        let in_time = {
            // Pinned here: the timeout would move it about.
            let sending = pin!(self.head(request, room, &mut progress, &mut suspect));
            timeout_at(deadline, sending).await
        };
        let result = match in_time {
            Ok(Ok(head)) => Ok(self.body(head, deadline, room).await),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(self.out_of_time(&progress, suspect, allowed).await),
        };
        let timings = Timings { total_us: micros(began.elapsed()), ..progress.timings };
        match result {
            Ok((status, response, unusable)) => Exchange {
                started_at,
                outcome: Outcome::of_status(status.as_u16()),
                status: Some(status.as_u16()),
                error: (!status.is_success()).then(|| explain_status(status)),
                timings,
                response: Some(response),
                local_fault: false,
                unusable,
                resend: Resend::No,
            },
            Err(Failure { outcome, error, local_fault, unusable, unheard }) => {
                if local_fault && outcome == Outcome::Connect {
                    self.0.pool.release_all();
                }
                let resend = if unheard { Resend::Due } else { Resend::No };
                let (status, error, response) = (None, Some(error), None);
                Exchange { started_at, outcome, status, error, timings, response, local_fault, unusable, resend }
            }
        }
    }

    async fn out_of_time(&self, progress: &Progress, suspect: Option<Suspect>, allowed: Duration) -> Failure {
        if let Some(suspect) = suspect {
            suspect.retire();
        }
        let mut failure = progress.timed_out(allowed);
        if progress.phase == Phase::Resolving {
            let up = timeout(ASK_RESOLVER, self.0.dialer.resolver.is_up()).await;
            failure.local_fault = up != Ok(true);
        }
        failure
    }

    /// Up to the answer's head.
    async fn head(
        &self,
        request: OutgoingRequest<'_>,
        room: Room,
        progress: &mut Progress,
        suspect: &mut Option<Suspect>,
    ) -> Result<Head, Failure> {
        let target = request.target;
        let (title_case, extra, identity) = (request.title_case, request.allow_nets, request.identity);
        let host = self.0.pool.host(target.key(), identity, title_case);
        let policy = &self.0.dialer.policy;
        let may = |ip| policy.judge(ip, target.port(), target.scheme(), extra).is_ok();
        let (timeout, http1, fresh) = (request.timeout, request.http1, request.fresh);
        let mut kept = if fresh { None } else { self.0.pool.take(&host, http1, may) };
        let wanted = Wanted { target, host: &host, allow_nets: extra, identity, title_case, http1, timeout };
        let mut message = self.build(request);
        loop {
            let (mut connection, reused) = match kept.take() {
                Some(connection) => (connection, true),
                None if fresh => (self.open_fresh(wanted, progress).await?, false),
                None => self.connect(wanted, may, progress).await?,
            };
            progress.phase = Phase::Waiting;
            let written = Instant::now();
            let answer = match &mut connection {
                Conn::H1(h1) => {
                    address(&mut message, target, false);
                    h1.send(message, room.read).await
                }
                Conn::H2(lease) => {
                    *suspect = Some(lease.suspect());
                    address(&mut message, target, true);
                    lease.send(message, room.read).await
                }
            };
            match answer {
                Ok(response) => {
                    progress.timings.first_byte_us = Some(micros(written.elapsed()));
                    connection.answered();
                    return Ok(Head { response, connection, host });
                }
                // A kept connection that closed before a byte was written: given back unsent, the
                // request may go out again without anybody receiving it twice.
                Err(mut unsent) => match (connection.fault(), unsent.take_message()) {
                    (Some(fault), _) => return Err(fault.into()),
                    (None, Some(again)) if reused => message = again,
                    (None, _) => return Err(self.unanswered(&unsent.into_error(), &connection, reused, wanted)),
                },
            }
        }
    }

    /// What it is when a request was written and no answer's head came.
    fn unanswered(&self, error: &hyper::Error, on: &Conn, reused: bool, wanted: Wanted<'_>) -> Failure {
        let failure = failure::of_http(error);
        let untouched = resend::untouched(error);
        if untouched == Some(Untouched::OnlyHttp1) {
            self.0.dialer.only_http1.note(wanted.target.key());
        }
        let was_cut = reused
            && untouched.is_none()
            && matches!(failure.outcome, Outcome::Reset | Outcome::Tls)
            && !failure.local_fault
            && on.is_without_answer();
        if was_cut || untouched == Some(Untouched::OnlyHttp1) {
            // What became of this one became, or becomes, of the others that lie ready.
            self.0.pool.distrust(wanted.host);
        }
        let unheard = was_cut || matches!(untouched, Some(Untouched::Refused | Untouched::OnlyHttp1));
        if unheard {
            on.retire();
        }
        Failure { unheard, ..failure }
    }

    /// Opens a connection.
    pub(super) async fn open_fresh(&self, wanted: Wanted<'_>, progress: &mut Progress) -> Result<Conn, Failure> {
        let Wanted { target, host, allow_nets, identity, title_case, http1, .. } = wanted;
        let dialed = self.0.dialer.dial(target, allow_nets, identity, http1, progress).await?;
        self.open(dialed, title_case, host).await
    }

    async fn open(&self, dialed: Dialed, title_case: bool, host: &HostPool) -> Result<Conn, Failure> {
        let opened = if dialed.h2 {
            H2::open(dialed).await.map(|h2| Conn::H2(self.0.pool.share(host, h2)))
        } else {
            H1::open(dialed, title_case).await.map(Conn::H1)
        };
        opened.map_err(|e| failure::of_http(&e))
    }

    fn build(&self, request: OutgoingRequest<'_>) -> Request<Full<Bytes>> {
        let mut headers = request.headers.to(request.target.authority());
        if !headers.contains_key(header::USER_AGENT) {
            headers.insert(header::USER_AGENT, self.0.user_agent.clone());
        }
        for (name, value) in always_said() {
            headers.entry(name).or_insert(value);
        }
        // Where a body is expected, an empty one is announced too (RFC 9110 section 8.6).
        if request.body.is_empty() && !matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut message = Request::new(Full::new(request.body));
        *message.method_mut() = request.method;
        *message.headers_mut() = headers;
        message
    }

    /// The rest of an answer, and whether it is of no use: whatever happens to it, the status stands.
    async fn body(&self, head: Head, deadline: Instant, room: Room) -> (StatusCode, Response, bool) {
        let Head { response, mut connection, host } = head;
        let (parts, mut body) = response.into_parts();
        let read = if body.is_end_stream() {
            ReadBody::whole()
        } else {
            let reading = read_body(&mut body, deadline.max(Instant::now() + BODY_GRACE), room);
            match &mut connection {
                Conn::H1(h1) => h1.during(reading).await,
                Conn::H2(_) => reading.await,
            }
        };
        drop(body);
        if let Conn::H1(mut h1) = connection
            && read.ended
        {
            h1.idle_at_most(keep_alive::announced(&parts.headers));
            self.keep(host, h1);
        }
        let response = Response {
            headers: kept_headers(&parts.headers),
            truncated: !read.ended || read.total > read.kept.len(),
            body: read.kept,
        };
        (parts.status, response, read.malformed)
    }

    /// Opens connections until at least `wanted` to this host lie ready: for those who cannot wait for
    /// one to be made. What fails here fails again, and is told, when it is needed.
    pub(crate) async fn warm(&self, target: &Target, allow_nets: &[IpNet], http1: bool, wanted: usize) {
        let title_case = true;
        let host = self.0.pool.host(target.key(), None, title_case);
        let until = Instant::now() + WARM_TIME;
        for _ in self.0.pool.ready(&host, http1)..wanted {
            let mut progress = Progress::new();
            let opening = async {
                let dialed = self.0.dialer.dial(target, allow_nets, None, http1, &mut progress).await?;
                self.open(dialed, title_case, &host).await
            };
            match timeout_at(until, opening).await {
                Ok(Ok(Conn::H1(h1))) => self.keep(Arc::clone(&host), h1),
                // One of these serves all.
                Ok(Ok(Conn::H2(_))) | Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    pub(super) fn keep(&self, host: Arc<HostPool>, mut h1: H1) {
        if h1.is_ready() || h1.is_closed() {
            return self.0.pool.put(&host, h1);
        }
        // The receiver answered before it had read the whole request.
        let pool = self.0.pool.clone();
        tokio::spawn(async move {
            if timeout(SETTLE, h1.ready()).await == Ok(true) {
                pool.put(&host, h1);
            }
        });
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.0.pool.idle()
    }

    #[cfg(test)]
    pub(super) fn resting(&self) -> usize {
        self.0.pool.resting()
    }
}

/// What every request says of the answers we read, unless it says so itself: for servers that compress
/// unasked, or answer nobody who does not say what they take.
pub(crate) fn always_said() -> [(HeaderName, HeaderValue); 2] {
    [(header::ACCEPT, HeaderValue::from_static("*/*")), (header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))]
}

/// An answer whose head has arrived.
struct Head {
    response: http::Response<Incoming>,
    connection: Conn,
    host: Arc<HostPool>,
}

/// Puts the request's address where this version of HTTP has it.
fn address(message: &mut Request<Full<Bytes>>, target: &Target, h2: bool) {
    if h2 {
        // The authority goes out as a pseudo-header instead.
        message.headers_mut().remove(header::HOST);
        *message.uri_mut() = target.absolute_uri().clone();
        *message.version_mut() = http::Version::HTTP_2;
    } else {
        message.headers_mut().entry(header::HOST).or_insert_with(|| target.authority().clone());
        *message.uri_mut() = target.origin_uri().clone();
        *message.version_mut() = http::Version::HTTP_11;
    }
}

fn explain_status(status: StatusCode) -> String {
    let reason = status.canonical_reason().map(|r| format!(" {r}")).unwrap_or_default();
    let remark = if status.is_redirection() { " (redirects are not followed)" } else { "" };
    format!("the receiver answered {}{reason}{remark}", status.as_u16())
}

fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut room = KEEP_HEADERS;
    let mut kept = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        match room.checked_sub(name.as_str().len() + value.len()) {
            Some(left) => room = left,
            None => break,
        }
        kept.push((name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    }
    kept
}

/// How many bytes of an answer's body are read, and how many of those are kept.
#[derive(Clone, Copy)]
struct Room {
    read: usize,
    keep: usize,
}

/// What was read of a body.
struct ReadBody {
    kept: Bytes,
    /// Bytes seen.
    total: usize,
    /// Whether it came to its end.
    ended: bool,
    /// Whether it broke off because it is not framed as its head says.
    malformed: bool,
}

impl ReadBody {
    fn whole() -> Self {
        ReadBody { kept: Bytes::new(), total: 0, ended: true, malformed: false }
    }
}

async fn read_body(body: &mut Incoming, deadline: Instant, room: Room) -> ReadBody {
    // Copied out: the frames are slices of connection buffers many times their size.
    let mut kept = BytesMut::new();
    let (mut total, mut malformed) = (0, false);
    let reading = async {
        while total <= room.read {
            match body.frame().await {
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else { continue };
                    kept.extend_from_slice(&data[..data.len().min(room.keep - kept.len())]);
                    total += data.len();
                    if body.is_end_stream() {
                        return true;
                    }
                }
                Some(Err(error)) => {
                    malformed = failure::is_malformed(&error);
                    return false;
                }
                None => return true,
            }
        }
        false
    };
    let ended = timeout_at(deadline, reading).await.unwrap_or(false);
    // An exact allocation: `BytesMut` grows by doubling, and this one is kept for long.
    ReadBody { kept: Bytes::copy_from_slice(&kept), total, ended, malformed }
}
