//! What a receiver does with a request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::Received;

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers besides `content-length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Close the connection afterwards, without having said so.
    pub then_close: bool,
}

/// What a receiver does with a request it has read whole.
#[derive(Clone)]
pub enum Script {
    /// Answer properly.
    Answer(Answer),
    /// Wait, then go on with another script.
    Delay(Duration, Box<Script>),
    /// Wait until the test opens the gate, then go on with another script.
    Hold(Gate, Box<Script>),
    /// Say nothing until the client goes away.
    Hang,
    /// Cut the connection hard (TCP RST) before answering.
    Reset,
    /// Close the connection before answering.
    Close,
    /// A good head and a body without end.
    EndlessBody,
    /// A good answer, one byte at a time.
    Drip(Duration),
    /// A good head at once, then a long body one byte at a time.
    DripBody(Duration),
    /// A head with about this many bytes of headers.
    HugeHeaders(usize),
    /// Something that is not HTTP, then close.
    Garbage,
    /// A good head and the beginning of a body, the rest never.
    StallBody,
    /// A good head and the beginning of a body, then close.
    CutBody,
    /// These bytes, then on with the next request.
    Raw(Bytes),
    /// The first bytes, then the others over and over, as fast as they are taken.
    Flood(Bytes, Bytes),
    /// Whatever this makes of the request.
    With(Arc<dyn Fn(&Received) -> Script + Send + Sync>),
}

impl Script {
    /// An empty answer with this status.
    pub fn status(status: u16) -> Script {
        Script::Answer(Answer { status, headers: Vec::new(), body: Bytes::new(), then_close: false })
    }

    /// A redirect (302) to `location`.
    pub fn redirect(location: &str) -> Script {
        Script::status(302).header("location", location)
    }

    /// Decides by the request.
    pub fn with(decide: impl Fn(&Received) -> Script + Send + Sync + 'static) -> Script {
        Script::With(Arc::new(decide))
    }

    /// With a header more. No effect on what is not an answer.
    #[must_use]
    pub fn header(self, name: &str, value: impl fmt::Display) -> Script {
        self.change(|a| a.headers.push((name.to_owned(), value.to_string())))
    }

    /// With this body. No effect on what is not an answer.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Script {
        self.change(|a| a.body = body.into())
    }

    /// Closing the connection afterwards without announcing it.
    #[must_use]
    pub fn then_close(self) -> Script {
        self.change(|a| a.then_close = true)
    }

    /// The same, later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Script {
        Script::Delay(delay, Box::new(self))
    }

    /// The same, once `gate` is open.
    #[must_use]
    pub fn behind(self, gate: &Gate) -> Script {
        Script::Hold(gate.clone(), Box::new(self))
    }

    fn change(mut self, change: impl FnOnce(&mut Answer)) -> Script {
        match &mut self {
            Script::Answer(answer) => {
                change(answer);
                self
            }
            Script::Delay(..) | Script::Hold(..) => match self {
                Script::Delay(d, inner) => Script::Delay(d, Box::new(inner.change(change))),
                Script::Hold(g, inner) => Script::Hold(g, Box::new(inner.change(change))),
                other => other,
            },
            _ => self,
        }
    }
}

impl Default for Script {
    /// 204.
    fn default() -> Self {
        Script::status(204)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Script::Answer(a) => write!(f, "Answer({})", a.status),
            Script::Delay(d, inner) => write!(f, "Delay({d:?}, {inner:?})"),
            Script::Hold(_, inner) => write!(f, "Hold({inner:?})"),
            Script::Hang => f.write_str("Hang"),
            Script::Reset => f.write_str("Reset"),
            Script::Close => f.write_str("Close"),
            Script::EndlessBody => f.write_str("EndlessBody"),
            Script::Drip(d) => write!(f, "Drip({d:?})"),
            Script::DripBody(d) => write!(f, "DripBody({d:?})"),
            Script::HugeHeaders(n) => write!(f, "HugeHeaders({n})"),
            Script::Garbage => f.write_str("Garbage"),
            Script::StallBody => f.write_str("StallBody"),
            Script::CutBody => f.write_str("CutBody"),
            Script::Raw(bytes) => write!(f, "Raw({} bytes)", bytes.len()),
            Script::Flood(first, again) => write!(f, "Flood({}, {} bytes)", first.len(), again.len()),
            Script::With(_) => f.write_str("With(..)"),
        }
    }
}

/// Holds something back until the test opens it, once and for all.
#[derive(Clone, Default, Debug)]
pub struct Gate(Arc<(AtomicBool, Notify)>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Gate::default()
    }

    /// Lets everything through that waits, and everything to come.
    pub fn open(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        // Registered before looking, so that no opening falls between the two.
        let mut opened = std::pin::pin!(self.0.1.notified());
        opened.as_mut().enable();
        if !self.0.0.load(Ordering::SeqCst) {
            opened.await;
        }
    }
}
