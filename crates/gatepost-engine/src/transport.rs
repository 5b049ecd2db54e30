//! The seam between the engine and the network: what the simulation replaces.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;

use crate::net::{Client, Exchange, OutgoingRequest, Target};

/// Makes one HTTP request. [`Client`] is the real one.
pub trait Transport: Send + Sync + 'static {
    /// Sends, and says what it came to. Never fails: a failure is data.
    fn send<'a>(&'a self, request: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>>;

    /// The same, reading and keeping up to `max_answer` bytes of the answer.
    fn send_reading<'a>(
        &'a self,
        request: OutgoingRequest<'a>,
        max_answer: usize,
    ) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        let _ = max_answer;
        self.send(request)
    }

    /// The same door with connections of its own, for another runtime, reading and keeping up to
    /// `max_answer` bytes of an answer. `None`: this one serves every runtime.
    fn for_hooks(&self, max_answer: usize) -> Option<Arc<dyn Transport>> {
        let _ = max_answer;
        None
    }

    /// Keeps at least `wanted` connections ready, if it can; `http1`: that speak HTTP/1.1.
    fn warm<'a>(
        &'a self,
        target: &'a Target,
        nets: &'a [IpNet],
        http1: bool,
        wanted: usize,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let _ = (target, nets, http1, wanted);
        Box::pin(std::future::ready(()))
    }
}

impl Transport for Client {
    fn send<'a>(&'a self, request: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(Client::send(self, request))
    }

    fn send_reading<'a>(
        &'a self,
        request: OutgoingRequest<'a>,
        max_answer: usize,
    ) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(Client::send_reading(self, request, max_answer))
    }

    fn for_hooks(&self, max_answer: usize) -> Option<Arc<dyn Transport>> {
        Some(Arc::new(Asking { client: self.with_own_pool(), max_answer }))
    }
}

/// The client of blocking hooks: whole answers, over connections kept ready.
struct Asking {
    client: Client,
    max_answer: usize,
}

impl Transport for Asking {
    fn send<'a>(&'a self, request: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(self.client.send_reading(request, self.max_answer))
    }

    fn send_reading<'a>(
        &'a self,
        request: OutgoingRequest<'a>,
        max_answer: usize,
    ) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(self.client.send_reading(request, max_answer))
    }

    fn warm<'a>(
        &'a self,
        target: &'a Target,
        nets: &'a [IpNet],
        http1: bool,
        wanted: usize,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.client.warm(target, nets, http1, wanted))
    }
}

/// A tenant's networks. They were checked when they were put; one that no longer reads opens nothing.
pub(crate) fn parse_nets(nets: &[String]) -> Vec<IpNet> {
    nets.iter().filter_map(|net| net.parse().ok()).collect()
}
