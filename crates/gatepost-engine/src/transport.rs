//! The seam between the engine and the network: what the simulation replaces.

use std::future::Future;
use std::pin::Pin;

use ipnet::IpNet;

use crate::net::{Client, Exchange, OutgoingRequest};

/// Makes one HTTP request. [`Client`] is the real one.
pub trait Transport: Send + Sync + 'static {
    /// Sends, and says what it came to. Never fails: a failure is data.
    fn send<'a>(&'a self, request: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>>;
}

impl Transport for Client {
    fn send<'a>(&'a self, request: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(Client::send(self, request))
    }
}

/// A tenant's networks. They were checked when they were put; one that no longer reads opens nothing.
pub(crate) fn parse_nets(nets: &[String]) -> Vec<IpNet> {
    nets.iter().filter_map(|net| net.parse().ok()).collect()
}
