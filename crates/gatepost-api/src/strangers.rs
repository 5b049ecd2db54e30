//! Wrong keys: counted by address, told, and from some number on answered with 429.
//!
//! A right key is never limited by it, nor one that was right once: the limit is applied to the answer, once
//! it is known that nobody has that key.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong keys an address may try within [`WINDOW`] (SETTLED, Deliveries and answers).
const WRONG_KEYS: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; more are counted together.
const ADDRESSES: usize = 4_096;

/// Marks an answer to a key that nobody has and nobody had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrongKey;

/// What is to be done about a wrong key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// Seconds after which the address may try again; `None`: the answer stays as it is.
    pub(crate) wait_s: Option<u64>,
    /// Whether it is worth a line of the log: the first of a window, the one that fills it, and every
    /// hundredth after it.
    pub(crate) tell: bool,
}

/// Who tried wrong keys, and how often.
#[derive(Default)]
pub(crate) struct Strangers {
    seen: Mutex<HashMap<Option<IpAddr>, Tries>>,
}

struct Tries {
    since: Instant,
    count: u32,
}

impl Strangers {
    /// A wrong key came from `peer`.
    pub(crate) fn wrong_key(&self, peer: IpAddr) -> Verdict {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut address = Some(network(peer));
        if seen.len() >= ADDRESSES && !seen.contains_key(&address) {
            seen.retain(|_, tries| now.duration_since(tries.since) < WINDOW);
            if seen.len() >= ADDRESSES {
                address = None;
            }
        }
        let tries = seen.entry(address).or_insert(Tries { since: now, count: 0 });
        if now.duration_since(tries.since) >= WINDOW {
            *tries = Tries { since: now, count: 0 };
        }
        tries.count = tries.count.saturating_add(1);
        let over = tries.count > WRONG_KEYS;
        let left = (tries.since + WINDOW).saturating_duration_since(now);
        Verdict { wait_s: over.then_some(left.as_secs().max(1)), tell: tries.count % WRONG_KEYS == 1 }
    }
}

/// What counts as one address: of IPv6 the network of a site, in which nobody lacks addresses.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.into(),
            None => {
                let [a, b, c, d, ..] = six.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_a_minute_from_one_address() {
        let strangers = Strangers::default();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let told = (0..WRONG_KEYS).filter(|_| strangers.wrong_key(one).tell).count();
        assert_eq!(told, 1);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(strangers.wrong_key(one), Verdict { wait_s: Some(40), tell: true });
        assert_eq!(strangers.wrong_key(one), Verdict { wait_s: Some(40), tell: false });
        assert_eq!(strangers.wrong_key(other), Verdict { wait_s: None, tell: true });
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(strangers.wrong_key(one).wait_s, None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_does_not_grow_with_addresses() {
        let strangers = Strangers::default();
        for n in 0..10_000_u32 {
            strangers.wrong_key(IpAddr::V4(n.into()));
        }
        assert_eq!(strangers.seen.lock().unwrap().len(), ADDRESSES + 1);
        let (a, b) = ("2001:db8::1".parse().unwrap(), "2001:db8::2:0:0:7".parse().unwrap());
        assert_eq!(network(a), network(b));
    }
}
