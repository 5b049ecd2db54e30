//! Why there is no answer, in the words of [`Outcome`] and of one helpful line.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use gatepost_core::delivery::{Outcome, Timings};

use super::inlet::Fault;
use super::policy::Blocked;
use super::resolve::ResolveError;
use super::tls;

/// An exchange that ended without an answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    pub(super) error: String,
    /// Ours, not the receiver's: uses up no attempt.
    pub(super) local_fault: bool,
    /// A status line had come.
    pub(super) unusable: bool,
    /// Nothing was heard of the request: it may go out again.
    pub(super) unheard: bool,
}

impl Failure {
    pub(super) fn new(outcome: Outcome, error: impl Into<String>) -> Self {
        Failure { outcome, error: error.into(), local_fault: false, unusable: false, unheard: false }
    }

    fn local(outcome: Outcome, error: impl Into<String>) -> Self {
        Failure { outcome, error: error.into(), local_fault: true, unusable: false, unheard: false }
    }
}

/// What an exchange is busy with: what a timeout tells about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Resolving,
    Connecting,
    Handshake,
    Waiting,
}

/// How far an exchange has come; outlives it when it runs out of time.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    pub(super) timings: Timings,
}

impl Progress {
    pub(super) fn new() -> Self {
        Progress { phase: Phase::Waiting, timings: Timings::default() }
    }

    /// The failure of running out of time here.
    pub(super) fn timed_out(&self, after: Duration) -> Failure {
        let while_doing = match self.phase {
            Phase::Resolving => " (the host's name was not resolved by then)",
            Phase::Connecting => " (the receiver did not accept the connection by then)",
            Phase::Handshake => " (the TLS handshake was not over by then)",
            Phase::Waiting => "",
        };
        Failure::new(Outcome::Timeout, format!("no answer within {} ms{while_doing}", after.as_millis()))
    }
}

/// Microseconds, as [`Timings`] keeps them.
pub(super) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl From<Blocked> for Failure {
    fn from(blocked: Blocked) -> Self {
        Failure::new(Outcome::BlockedAddress, blocked.to_string())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure { unusable: true, ..Failure::new(Outcome::Protocol, fault.to_string()) }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let local_fault = matches!(error, ResolveError::Local(_));
        Failure { local_fault, ..Failure::new(Outcome::Dns, error.to_string()) }
    }
}

/// The system has no more of something *we* need. `to_ipv6` because there the error for "no port
/// left" also means "this machine has no IPv6 address", which no waiting cures.
fn is_local_fault(error: &io::Error, to_ipv6: bool) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS))
        || matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::NetworkDown)
        || (error.kind() == io::ErrorKind::AddrNotAvailable && !to_ipv6)
}

/// No TCP connection.
pub(super) fn of_connect(error: &io::Error, to_ipv6: bool) -> Failure {
    if is_local_fault(error, to_ipv6) {
        return Failure::local(Outcome::Connect, "this server is out of sockets or off the network at present");
    }
    // The system's own text may carry an address; these never do.
    let what = match error.kind() {
        io::ErrorKind::ConnectionRefused => "the receiver refused the connection (nothing listens on that port)",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "there is no route to the receiver",
        io::ErrorKind::TimedOut => "the receiver did not accept the connection in time",
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            "the receiver reset the connection while it was being opened"
        }
        io::ErrorKind::PermissionDenied => "a firewall forbids the connection",
        _ => "no connection to the receiver",
    };
    Failure::new(Outcome::Connect, what)
}

/// The TLS handshake failed.
pub(super) fn of_handshake(error: &io::Error) -> Failure {
    let text = match tls_cause(error) {
        Some(cause) => tls::explain(cause),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => {
                "TLS handshake failed: the receiver closed the connection (does it speak TLS on this port?)".to_owned()
            }
            kind => format!("TLS handshake failed: {kind}"),
        },
    };
    Failure::new(Outcome::Tls, text)
}

fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The request went out, or was about to, and no answer's head came back.
pub(super) fn of_http(error: &hyper::Error) -> Failure {
    if error.is_user() {
        // The only such errors left are ours: the runtime that drove the connection has gone.
        return Failure::local(Outcome::Reset, "this server stopped driving the connection");
    }
    if error.is_parse_version_h2() {
        return Failure::new(Outcome::Protocol, "the receiver answered in HTTP/2 without having agreed to it");
    }
    if error.is_parse_too_large() {
        return Failure::new(Outcome::Protocol, "the answer's headers are too large");
    }
    if error.is_parse() {
        return Failure::new(Outcome::Protocol, "what the receiver sent is not HTTP");
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return of_io(io);
        }
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return of_h2(h2);
        }
        cause = inner.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return closed();
    }
    // What is left: bytes that came when none were due.
    Failure::new(Outcome::Protocol, "what the receiver sent is not HTTP")
}

fn of_io(error: &io::Error) -> Failure {
    if let Some(cause) = tls_cause(error) {
        // In TLS 1.3 a refusal (of a missing client certificate, say) arrives after the handshake.
        return Failure::new(Outcome::Tls, tls::explain(cause));
    }
    // Of an error on an HTTP/2 connection only kind and text are left.
    let text = error.to_string();
    if let Some(alert) = text.strip_prefix("received fatal alert: ") {
        return Failure::new(Outcome::Tls, tls::explain_alert(alert));
    }
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::new(Outcome::Reset, "the connection to the receiver broke off"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Failure::new(Outcome::Protocol, "what the receiver sent is not HTTP")
        }
        _ => closed(),
    }
}

fn of_h2(error: &h2::Error) -> Failure {
    if let Some(io) = error.get_io() {
        return of_io(io);
    }
    if error.is_remote() {
        let reason = error.reason().map(|r| format!(" ({})", r.description())).unwrap_or_default();
        return Failure::new(Outcome::Reset, format!("the receiver cancelled the request without answering{reason}"));
    }
    Failure::new(Outcome::Protocol, "what the receiver sent is not HTTP/2, or its headers are too large")
}

/// Whether a body broke off because its chunks are none, and not because the connection did.
pub(super) fn is_malformed(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput))
}

fn closed() -> Failure {
    Failure::new(Outcome::Reset, "the receiver closed the connection without answering")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_our_own_means_is_a_local_fault() {
        let cases = [
            (io::Error::from_raw_os_error(24), false, true),
            (io::Error::from_raw_os_error(23), true, true),
            (io::ErrorKind::NetworkDown.into(), false, true),
            (io::ErrorKind::AddrNotAvailable.into(), false, true),
            (io::ErrorKind::AddrNotAvailable.into(), true, false),
            (io::ErrorKind::ConnectionRefused.into(), false, false),
            (io::ErrorKind::HostUnreachable.into(), false, false),
            (io::ErrorKind::NetworkUnreachable.into(), true, false),
        ];
        for (error, to_ipv6, local) in cases {
            let failure = of_connect(&error, to_ipv6);
            assert_eq!(failure.local_fault, local, "{error}");
            assert_eq!(failure.outcome, Outcome::Connect);
        }
        assert!(Failure::from(ResolveError::Local(String::new())).local_fault);
        assert!(!Failure::from(ResolveError::NoSuchName).local_fault);
    }
}
