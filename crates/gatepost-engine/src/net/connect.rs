//! The one way out: resolve, judge, connect, check, TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gatepost_core::delivery::Outcome;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::failure::{self, Failure, Phase, Progress, micros};
use super::identity::ClientIdentity;
use super::inlet::Metered;
use super::policy::{Blocked, EgressPolicy};
use super::resolve::{Resolve, ResolveError};
use super::target::{Host, Scheme, Target};
use super::tls::{Offer, TlsConfigs};
use super::versions::OnlyHttp1;
use super::wire::{Tcp, Wire};

/// How long one address may keep the next one waiting (RFC 8305 section 5: "Connection Attempt
/// Delay", 250 ms).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// A name may have any number of addresses; more than these are not tried.
const MAX_ADDRESSES: usize = 8;

/// A connection on which nothing has been said yet but TLS.
pub(super) struct Dialed {
    pub(super) wire: Wire,
    pub(super) tcp: Tcp,
    pub(super) peer: SocketAddr,
    pub(super) h2: bool,
}

/// Opens connections. Nothing else in the product does.
pub(super) struct Dialer {
    pub(super) policy: Arc<EgressPolicy>,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) tls: TlsConfigs,
    /// Hosts that HTTP/2 is not offered to.
    pub(super) only_http1: OnlyHttp1,
}

impl Dialer {
    /// Resolves once, judges every address, connects to one that passed. `extra`: networks allowed
    /// to this call alone; `identity`: who we are if we are asked; `http1`: HTTP/2 is not offered.
    pub(super) async fn dial(
        &self,
        target: &Target,
        extra: &[IpNet],
        identity: Option<&ClientIdentity>,
        http1: bool,
        progress: &mut Progress,
    ) -> Result<Dialed, Failure> {
        let addresses = self.addresses(target, progress).await?;
        let allowed = self.judge(target, &addresses, extra)?;

        progress.phase = Phase::Connecting;
        let began = Instant::now();
        let (stream, peer) = connect_any(&allowed).await?;
        progress.timings.connect_us = Some(micros(began.elapsed()));
        // Small requests must not wait for an acknowledgement; a socket that refuses is merely slower.
        let _ = stream.set_nodelay(true);
        let tcp = Tcp::new(stream);
        // The judged address, or nothing: whatever rewrote it on the way was not judged.
        let is_judged = tcp.peer_addr().is_ok_and(|p| p.ip() == peer.ip() && p.port() == peer.port());
        if !is_judged {
            return Err(Failure::new(Outcome::Connect, "the connection did not lead where it should"));
        }
        match target.scheme() {
            Scheme::Http => Ok(Dialed { wire: Wire::Plain(Metered::new(tcp.clone())), tcp, peer, h2: false }),
            Scheme::Https => {
                let offer = if http1 || self.only_http1.has(target.key()) { Offer::Http1 } else { Offer::Both };
                let tls = TlsConnector::from(self.tls.of(identity, offer));
                handshake(tls, target, tcp, peer, progress).await
            }
        }
    }

    async fn addresses(&self, target: &Target, progress: &mut Progress) -> Result<Vec<IpAddr>, Failure> {
        let name = match (target.fixed_addresses(), target.host()) {
            (Some(fixed), _) => return Ok(fixed),
            (None, Host::Ip(ip)) => return Ok(vec![*ip]),
            (None, Host::Name(name)) => name,
        };
        progress.phase = Phase::Resolving;
        let began = Instant::now();
        let answer = self.resolver.resolve(name).await;
        progress.timings.dns_us = Some(micros(began.elapsed()));
        Ok(answer?)
    }

    fn judge(&self, target: &Target, addresses: &[IpAddr], extra: &[IpNet]) -> Result<Vec<SocketAddr>, Failure> {
        let port = target.port();
        let mut allowed = Vec::new();
        let mut first_refusal = None;
        for ip in addresses {
            match self.policy.judge(*ip, port, target.scheme(), extra) {
                Ok(()) => allowed.push(SocketAddr::new(ip.to_canonical(), port)),
                Err(blocked) => first_refusal = first_refusal.or(Some(blocked)),
            }
        }
        match first_refusal {
            Some(blocked) if allowed.is_empty() => Err(self.refusal(target, addresses, extra, blocked)),
            None if allowed.is_empty() => Err(Failure::new(Outcome::Dns, "the host's name has no address")),
            _ => Ok(by_turns(allowed)),
        }
    }

    /// What is told when no address may be called. Of a name that leads only to where nobody may go it is
    /// what is told of a name there is none of: else whoever may register an address could ask us, one by
    /// one, which names there are inside. An address that was spelled out tells nothing new, nor does a
    /// public one that plain http may not reach.
    fn refusal(&self, target: &Target, addresses: &[IpAddr], extra: &[IpNet], blocked: Blocked) -> Failure {
        let Host::Name(name) = target.host() else { return blocked.into() };
        let public = |ip: &IpAddr| self.policy.judge(*ip, target.port(), Scheme::Https, extra).is_ok();
        if target.fixed_addresses().is_some() || addresses.iter().any(public) {
            return blocked.into();
        }
        tracing::debug!(name, "a name leads only to addresses outside the egress policy");
        ResolveError::NoSuchName.into()
    }
}

async fn handshake(
    tls: TlsConnector,
    target: &Target,
    tcp: Tcp,
    peer: SocketAddr,
    progress: &mut Progress,
) -> Result<Dialed, Failure> {
    let name = match target.host() {
        Host::Ip(ip) => ServerName::from(*ip),
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| Failure::new(Outcome::InvalidUrl, "no certificate can be made out to such a host name"))?,
    };
    progress.phase = Phase::Handshake;
    let began = Instant::now();
    let tls = tls.connect(name, Metered::new(tcp.clone())).await.map_err(|e| failure::of_handshake(&e))?;
    progress.timings.tls_us = Some(micros(began.elapsed()));
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Dialed { wire: Wire::Tls(Box::new(tls)), tcp, peer, h2 })
}

/// The first addresses, IPv4 and IPv6 by turns, so that one broken family costs little.
fn by_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_none_or(SocketAddr::is_ipv4);
    let (mut one, mut other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv4() == first_is_v4);
    one.reverse();
    other.reverse();
    let mut mixed = Vec::new();
    while mixed.len() < MAX_ADDRESSES {
        match (one.pop(), other.pop()) {
            (None, None) => break,
            (a, b) => mixed.extend(a.into_iter().chain(b)),
        }
    }
    mixed.truncate(MAX_ADDRESSES);
    mixed
}

#[expect(clippy::disallowed_methods, reason = "this is the door to the outside: the address was judged")]
async fn connect_one(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// Connects to one of the addresses: the next is tried as soon as one fails, and beside one that
/// takes long. The caller bounds the whole.
async fn connect_any(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Failure> {
    let mut waiting = addresses.iter().copied();
    let mut under_way = FuturesUnordered::new();
    let mut failed: Option<Failure> = None;
    loop {
        if let Some(address) = waiting.next() {
            under_way.push(async move { (address, connect_one(address).await) });
        }
        let more = waiting.len() > 0;
        let done = tokio::select! {
            done = under_way.next() => done,
            () = tokio::time::sleep(NEXT_ADDRESS), if more => continue,
        };
        match done {
            Some((address, Ok(stream))) => return Ok((stream, address)),
            Some((address, Err(e))) => {
                let failure = failure::of_connect(&e, address.is_ipv6());
                // A receiver's refusal says more than our own trouble with another address.
                if failed.as_ref().is_none_or(|f| f.local_fault && !failure.local_fault) {
                    failed = Some(failure);
                }
            }
            None => {
                return Err(failed.unwrap_or_else(|| Failure::new(Outcome::Connect, "the host has no address")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addr = |text: &str| SocketAddr::new(text.parse().expect("ip"), 1);
        let given = ["1.0.0.1", "1.0.0.2", "1.0.0.3", "2a00::1", "2a00::2"].map(addr).to_vec();
        let expected = ["1.0.0.1", "2a00::1", "1.0.0.2", "2a00::2", "1.0.0.3"].map(addr).to_vec();
        assert_eq!(by_turns(given), expected);
        assert_eq!(by_turns(vec![addr("1.0.0.1"); 50]).len(), MAX_ADDRESSES);
    }
}
