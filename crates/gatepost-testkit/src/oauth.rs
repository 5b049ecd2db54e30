//! An OAuth 2.0 token endpoint on a real socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::{Received, Receiver, ReceiverBuilder, Script};

/// A token endpoint that grants `token-1`, `token-2` and so on to whoever asks, and remembers how it
/// was asked. What it is told to do with its [`receiver`](TokenServer::receiver) goes before that.
pub struct TokenServer {
    receiver: Receiver,
    issued: Arc<AtomicUsize>,
    lifetime: Arc<AtomicU64>,
}

impl TokenServer {
    /// A plain one, on the tokio runtime around it. Its tokens live for an hour.
    pub fn start() -> TokenServer {
        TokenServer::of(Receiver::builder(), ReceiverBuilder::start)
    }

    /// One on a thread of its own.
    pub fn start_on_thread() -> TokenServer {
        TokenServer::of(Receiver::builder(), ReceiverBuilder::start_on_thread)
    }

    /// One made of such a receiver.
    pub fn of(builder: ReceiverBuilder, start: impl FnOnce(ReceiverBuilder) -> Receiver) -> TokenServer {
        let (issued, lifetime) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(3_600)));
        let (count, seconds) = (Arc::clone(&issued), Arc::clone(&lifetime));
        let grant = Script::with(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let seconds = seconds.load(Ordering::SeqCst);
            let body = format!(r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":{seconds}}}"#);
            Script::status(200).header("content-type", "application/json").body(body)
        });
        TokenServer { receiver: start(builder.script(grant)), issued, lifetime }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.receiver.url("/token")
    }

    /// Tokens granted from now on live so many seconds.
    pub fn lifetime(&self, seconds: u64) {
        self.lifetime.store(seconds, Ordering::SeqCst);
    }

    /// How many tokens it has granted.
    pub fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }

    /// What it has been asked.
    pub fn received(&self) -> Vec<Received> {
        self.receiver.received()
    }

    /// The server itself, to be told otherwise.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }
}
