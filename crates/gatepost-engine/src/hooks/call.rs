//! One question put to one receiver: at most two attempts, within the call's limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_core::delivery::{Outcome as Sent, Response};
use gatepost_core::hooks::budget::LEAST;
use gatepost_core::hooks::chain::{Outcome, RawAnswer, Report};
use gatepost_core::hooks::codec::{ANSWER_SIGNATURE_HEADER, ANSWER_TIMESTAMP_HEADER, judge_status};
use gatepost_core::hooks::decision::Conn;
use gatepost_core::hooks::failure::{Failure, FailureClass};
use gatepost_core::hooks::hook::limits;
use gatepost_core::hooks::retry::{Failed, first_try, once_more};
use gatepost_core::retry::parse_retry_after;
use gatepost_core::secret::Secret;
use gatepost_core::trace::TraceContext;
use gatepost_core::{Clock, Entropy, Timestamp};
use http::{HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use super::Hooks;
use super::snapshot::{Asked, Route};
use crate::net::{Exchange, Headers, OutgoingRequest, Resend, Target, Tries};

/// A request to a receiver, apart from its headers.
pub(super) struct Put<'a> {
    pub(super) route: &'a Route,
    pub(super) target: &'a Target,
    pub(super) body: Bytes,
    pub(super) limit: Duration,
    /// How long the first attempt may take of it.
    pub(super) first: Duration,
    /// Whether what the body says matters.
    pub(super) reads_answer: bool,
    pub(super) idempotent: bool,
    pub(super) trace: TraceContext,
}

/// What came of it.
pub(super) struct Came {
    pub(super) outcome: Outcome,
    pub(super) conn: Option<Conn>,
    pub(super) attempts: u32,
    /// Our own means failed: nothing was learned about the receiver.
    pub(super) local_fault: bool,
    /// What the last attempt was answered with, to be shown by `try` once it is masked.
    pub(super) response: Option<Response>,
}

/// A span of its own below the caller's, or a trace of its own.
pub(super) fn trace_below(caller: Option<TraceContext>, entropy: &dyn Entropy) -> TraceContext {
    let mut bytes = [0; 24];
    entropy.fill(&mut bytes);
    let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
    trace_id.copy_from_slice(&bytes[..16]);
    span_id.copy_from_slice(&bytes[16..]);
    // All-zero ids are invalid.
    span_id[7] |= 1;
    trace_id[15] |= 1;
    let (trace_id, sampled) = caller.map_or((trace_id, true), |caller| (caller.trace_id, caller.sampled));
    TraceContext { trace_id, span_id, sampled }
}

impl Hooks {
    /// Puts a question; `headers` makes those of one request: of which attempt, whether it is the
    /// second within that, and what time is left.
    pub(super) async fn put(
        &self,
        put: Put<'_>,
        clock: &dyn Clock,
        headers: impl Fn((u32, bool), Duration, Timestamp) -> Vec<(String, Secret)>,
    ) -> Came {
        let began = Instant::now();
        let until = began + put.limit;
        let mut number = 1;
        loop {
            let deadline = if number == 1 { until.min(began + put.first) } else { until };
            let mut tries = Tries::within(deadline.saturating_duration_since(Instant::now()));
            let (exchange, sent_at, token) = loop {
                let sent_at = clock.now();
                let headers = headers((number, tries.again()), tries.left(), sent_at);
                let own = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
                let token = own.map(|(_, value)| value.clone());
                let lines = match header_lines(headers, put.trace) {
                    Ok(lines) => lines,
                    Err(failure) => return Came::failed(failure),
                };
                let request = OutgoingRequest {
                    target: put.target,
                    method: Method::POST,
                    headers: lines,
                    // Some receivers of the HTTP/1.1 days compare header names by case (DESIGN 8).
                    title_case: true,
                    body: put.body.clone(),
                    timeout: tries.left(),
                    allow_nets: &put.route.nets,
                    identity: None,
                    http1: put.route.http1,
                    fresh: tries.again(),
                };
                // The limit is a wall: the rest of an answer that came late gets no time beyond it.
                let sending = self.door.send(put.route.auth.as_ref(), request);
                match tokio::time::timeout_at(deadline, sending).await.map(|exchange| tries.judge(exchange)) {
                    Ok(None) => {}
                    Ok(Some(exchange)) => break (Some(exchange), sent_at, token),
                    Err(_) => break (None, sent_at, token),
                }
            };
            let late = Instant::now() >= deadline;
            let token = token.or_else(|| self.door.tokens_of(put.route.auth.as_ref()).into_iter().next());
            let (came, failed) = judge(exchange, sent_at, put.reads_answer, late, token);
            let came = Came { attempts: number, ..came };
            let Some(failed) = failed else { return came };
            let left = until.saturating_duration_since(Instant::now());
            match once_more(number, &failed, put.idempotent, left) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return came,
            }
            number += 1;
        }
    }

    /// Puts a chain's question to a hook's receiver.
    pub(super) async fn put_call(
        &self,
        asked: &Arc<Asked>,
        call: &gatepost_core::hooks::chain::Call,
        clock: &dyn Clock,
        trace: TraceContext,
        began: Instant,
    ) -> (Report, bool) {
        let started = began.elapsed();
        let came = match &asked.route {
            Err(why) => Came::failed(Failure::new(FailureClass::Connect, why.clone())),
            Ok(route) => {
                let put = Put {
                    route,
                    target: &route.target,
                    body: call.body.clone(),
                    limit: call.limit,
                    first: first_try(call.limit, call.hook.config.idempotent),
                    reads_answer: call.hook.point.reads_answers(),
                    idempotent: call.hook.config.idempotent,
                    trace,
                };
                self.put(put, clock, |turn, left, now| call.headers(turn, left.max(LEAST), now)).await
            }
        };
        let Came { outcome, conn, attempts, local_fault, .. } = came;
        (Report { outcome, started, ended: began.elapsed(), conn, attempts }, local_fault)
    }
}

impl Came {
    fn failed(failure: Failure) -> Self {
        Came { outcome: Outcome::Failed(failure), conn: None, attempts: 0, local_fault: false, response: None }
    }
}

/// What an exchange was, and, if it failed, what deciding about another attempt needs. `late`: its time is
/// over, which is then why an answer is not whole. `token`: the one it was asked with.
fn judge(
    exchange: Option<Exchange>,
    sent_at: Timestamp,
    reads_answer: bool,
    late: bool,
    token: Option<Secret>,
) -> (Came, Option<Failed>) {
    let Some(exchange) = exchange else {
        let failed = failed(FailureClass::Timeout, false, true);
        let came = Came { conn: Some(Conn::Cold), ..Came::failed(FailureClass::Timeout.into()) };
        return (Came { conn: None, ..came }, Some(failed));
    };
    let conn = conn_of(&exchange);
    // Where there was no time left for a second try within this one.
    let unheard = exchange.resend == Resend::Due;
    let Exchange { status: Some(status), response: Some(response), .. } = exchange else {
        let class = if exchange.unusable { FailureClass::BadAnswer } else { class_of(exchange.outcome) };
        let came = Came {
            outcome: Outcome::Failed(Failure { class, detail: exchange.error }),
            conn,
            attempts: 1,
            local_fault: exchange.local_fault,
            response: None,
        };
        return (came, Some(failed(class, unheard, exchange.unusable)));
    };
    let broke_off = response.truncated && response.body.len() <= limits::ANSWER_MAX;
    if broke_off && reads_answer && (200..300).contains(&status) {
        let (class, detail) = match (exchange.unusable, late) {
            (true, _) => (FailureClass::BadAnswer, "the answer's body is not framed as its head says"),
            (false, true) => (FailureClass::Timeout, "the answer had begun, and was not whole in time"),
            (false, false) => (FailureClass::Reset, "the answer broke off"),
        };
        let came = Came { conn, ..Came::failed(Failure::new(class, detail)) };
        return (came, Some(failed(class, false, true)));
    }
    let header = |name: &str| response.header(name).map(str::to_owned);
    let refused = judge_status(status).err().map(|failure| Failed {
        status: Some(status),
        retry_after: header("retry-after").and_then(|text| parse_retry_after(&text, sent_at)),
        ..failed(failure.class, false, true)
    });
    let answer = RawAnswer {
        status,
        encoding: header("content-encoding"),
        signature: header(ANSWER_SIGNATURE_HEADER),
        signed_at: header(ANSWER_TIMESTAMP_HEADER),
        body: response.body.clone(),
        sent_at,
        token,
    };
    let outcome = Outcome::Answered(answer);
    (Came { outcome, conn, attempts: 1, local_fault: false, response: Some(response) }, refused)
}

fn failed(class: FailureClass, reused_connection: bool, answer_begun: bool) -> Failed {
    let request_written = class != FailureClass::Connect;
    Failed { class, reused_connection, request_written, answer_begun, status: None, retry_after: None }
}

/// A connection that was made took time to make; one that was kept did not.
fn conn_of(exchange: &Exchange) -> Option<Conn> {
    let used = exchange.status.is_some() || matches!(exchange.outcome, Sent::Reset | Sent::Protocol);
    match exchange.timings.connect_us {
        Some(_) => Some(Conn::Cold),
        None => used.then_some(Conn::Reused),
    }
}

/// One class for each way an exchange can fail.
fn class_of(outcome: Sent) -> FailureClass {
    match outcome {
        Sent::Timeout => FailureClass::Timeout,
        Sent::Dns => FailureClass::Dns,
        Sent::Tls => FailureClass::Tls,
        Sent::BlockedAddress => FailureClass::BlockedAddress,
        Sent::Reset => FailureClass::Reset,
        // What came was no status of HTTP.
        Sent::Protocol | Sent::HttpStatus => FailureClass::Status5xx,
        Sent::Connect | Sent::InvalidUrl | Sent::Ok => FailureClass::Connect,
    }
}

fn header_lines(headers: Vec<(String, Secret)>, trace: TraceContext) -> Result<Headers, Failure> {
    let mut lines = Headers::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        let bad = || Failure::new(FailureClass::Connect, format!("the header {name:?} cannot be sent"));
        let line = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
        // Nothing that logs requests shows it.
        value.set_sensitive(true);
        lines.push(line, value);
    }
    if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
        lines.push(HeaderName::from_static("traceparent"), value);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use gatepost_core::delivery::Timings;

    use super::*;

    #[test]
    fn an_answer_that_is_not_whole_is_late_or_broken_off() {
        let exchange = || {
            let body = Bytes::from_static(b"{\"id\":");
            Exchange {
                started_at: Timestamp::EPOCH,
                outcome: Sent::Ok,
                status: Some(200),
                error: None,
                timings: Timings::default(),
                response: Some(Response { headers: Vec::new(), body, truncated: true }),
                local_fault: false,
                unusable: false,
                resend: Default::default(),
            }
        };
        let broken = Exchange { unusable: true, ..exchange() };
        let (came, _) = judge(Some(broken), Timestamp::EPOCH, true, false, None);
        let Outcome::Failed(failure) = came.outcome else { panic!("it is no answer") };
        assert_eq!(failure.class, FailureClass::BadAnswer);
        for (late, class) in [(true, FailureClass::Timeout), (false, FailureClass::Reset)] {
            let (came, failed) = judge(Some(exchange()), Timestamp::EPOCH, true, late, None);
            let Outcome::Failed(failure) = came.outcome else { panic!("it is no answer") };
            assert_eq!((failure.class, failed.map(|failed| failed.class)), (class, Some(class)));
        }
        // Where nothing is read of it, it has come.
        assert!(judge(Some(exchange()), Timestamp::EPOCH, false, true, None).1.is_none());
    }
}
