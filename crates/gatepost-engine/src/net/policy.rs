//! The egress policy: which addresses a request of ours may reach (promise P8).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::target::{Scheme, Target};

/// Why an address may not be called. The texts are made for tenants: they are the same for every
/// inner address, so that nobody can map our network by reading them. Of names the same is done where
/// they are dialled: one that leads only to such addresses is told as one there is none of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Blocked {
    /// Private, reserved, special, or the server itself.
    #[error(
        "the host's address is not one this server may call: use a public address, or ask the operator to allow its network"
    )]
    Address,
    /// `http` to somewhere that is not explicitly allowed.
    #[error("plain http reaches only networks the operator has allowed (--allow-nets, GATEPOST_ALLOW_NETS): use https")]
    PlainHttp,
}

/// Which addresses may be called: public ones over https, and whatever was allowed besides.
#[derive(Debug)]
pub struct EgressPolicy {
    allow: Vec<IpNet>,
    everything: bool,
    own: ArcSwap<Vec<SocketAddr>>,
}

impl EgressPolicy {
    /// Public addresses over https, and the networks of `allow` (`GATEPOST_ALLOW_NETS`) over both.
    pub fn new(allow: Vec<IpNet>) -> Self {
        EgressPolicy { allow, everything: false, own: ArcSwap::default() }
    }

    /// Anything at all: for calls a person makes from the command line, never for a tenant's URL.
    pub fn unrestricted() -> Self {
        EgressPolicy { allow: Vec::new(), everything: true, own: ArcSwap::default() }
    }

    /// Says where this server listens, once it does: those addresses are never a target, whatever
    /// else is allowed. A wildcard address stands for every address of this machine.
    pub fn set_own_addrs(&self, own: Vec<SocketAddr>) {
        self.own.store(Arc::new(own));
    }

    /// Judges one address. `extra` are the networks allowed to this call alone (a tenant's).
    ///
    /// The deny list is the union of the IANA special-purpose registries and the lists of other
    /// webhook senders. An IPv6 address that carries an IPv4 one must pass as both.
    ///
    /// # Errors
    /// The address, or `http` to it, is outside the policy.
    pub fn judge(&self, ip: IpAddr, port: u16, scheme: Scheme, extra: &[IpNet]) -> Result<(), Blocked> {
        if self.everything {
            return Ok(());
        }
        let ip = ip.to_canonical();
        let allowed = self.allows(ip, extra);
        if !allowed && scheme == Scheme::Http {
            return Err(Blocked::PlainHttp);
        }
        if (!allowed && is_special(ip)) || self.is_own(ip, port) {
            return Err(Blocked::Address);
        }
        match embedded_v4(ip).map(IpAddr::V4) {
            Some(v4) if self.is_own(v4, port) => Err(Blocked::Address),
            Some(v4) if is_special(v4) && !self.allows(v4, extra) => Err(Blocked::Address),
            _ => Ok(()),
        }
    }

    /// Judges what can be judged of a URL when it is written down, before anything is resolved:
    /// plain http where nothing allows it, and addresses spelled out. The word at connect time is
    /// still [`EgressPolicy::judge`]'s.
    ///
    /// # Errors
    /// No call to this URL could be allowed.
    pub fn check_at_write(&self, target: &Target, extra: &[IpNet]) -> Result<(), Blocked> {
        if self.everything {
            return Ok(());
        }
        match target.fixed_addresses() {
            Some(ips) => {
                let mut verdicts = ips.iter().map(|ip| self.judge(*ip, target.port(), target.scheme(), extra));
                let first = verdicts.next().unwrap_or(Ok(()));
                if first.is_ok() || verdicts.any(|v| v.is_ok()) { Ok(()) } else { first }
            }
            None if target.scheme() == Scheme::Http && self.allow.is_empty() && extra.is_empty() => {
                Err(Blocked::PlainHttp)
            }
            None => Ok(()),
        }
    }

    fn allows(&self, ip: IpAddr, extra: &[IpNet]) -> bool {
        self.allow.iter().chain(extra).any(|net| net.contains(&ip))
    }

    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        self.own.load().iter().filter(|own| own.port() == port).any(|own| {
            let listens = own.ip().to_canonical();
            // Connecting to the unspecified address connects to loopback.
            listens == ip
                || (ip.is_unspecified() && listens.is_loopback())
                || (listens.is_unspecified() && (ip.is_unspecified() || is_this_machine(ip)))
        })
    }
}

/// Whether `ip` is an address of this machine: one to which the system would talk *from* it. Sends
/// nothing (connecting a UDP socket only picks a route).
fn is_this_machine(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        // Any port serves: nothing is sent.
        socket.connect((ip, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().is_ok_and(|from| from == ip)
}

/// Special-purpose IPv4 (IANA IPv4 Special-Purpose Address Registry), and one cloud's.
const SPECIAL_V4: [Ipv4Net; 18] = [
    v4(0, 0, 0, 0, 8),          // this network
    v4(10, 0, 0, 0, 8),         // private
    v4(100, 64, 0, 0, 10),      // carrier-grade NAT
    v4(127, 0, 0, 0, 8),        // loopback
    v4(168, 63, 129, 16, 32),   // Azure's platform address: public by number, inner by nature
    v4(169, 254, 0, 0, 16),     // link-local, cloud metadata
    v4(172, 16, 0, 0, 12),      // private
    v4(192, 0, 0, 0, 24),       // IETF protocol assignments
    v4(192, 0, 2, 0, 24),       // documentation
    v4(192, 88, 99, 0, 24),     // 6to4 relay
    v4(192, 168, 0, 0, 16),     // private
    v4(198, 18, 0, 0, 15),      // benchmarking
    v4(198, 51, 100, 0, 24),    // documentation
    v4(203, 0, 113, 0, 24),     // documentation
    v4(224, 0, 0, 0, 4),        // multicast
    v4(233, 252, 0, 0, 24),     // documentation, multicast
    v4(240, 0, 0, 0, 4),        // reserved
    v4(255, 255, 255, 255, 32), // broadcast
];

/// All IPv6 that is global unicast at all; what lies outside is unspecified, loopback, mapped,
/// compatible, translated, local, multicast or not given out.
const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Special-purpose IPv6 (IANA IPv6 Special-Purpose Address Registry). Those outside
/// [`GLOBAL_UNICAST`] are named all the same: the list is the rule, that prefix the second wall.
const SPECIAL_V6: [Ipv6Net; 13] = [
    v6(0, 0, 0, 8),           // unspecified, loopback, mapped, compatible, translated
    v6(0x64, 0xff9b, 0, 96),  // NAT64
    v6(0x64, 0xff9b, 1, 48),  // NAT64, local use
    v6(0x100, 0, 0, 64),      // discard
    v6(0x2001, 0, 0, 23),     // IETF protocol assignments, Teredo
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x2002, 0, 0, 16),     // 6to4
    v6(0x3fff, 0, 0, 20),     // documentation
    v6(0x5f00, 0, 0, 16),     // segment routing
    v6(0xfc00, 0, 0, 7),      // unique local
    v6(0xfe80, 0, 0, 10),     // link-local
    v6(0xfec0, 0, 0, 10),     // site-local, deprecated
    v6(0xff00, 0, 0, 8),      // multicast
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => SPECIAL_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => !GLOBAL_UNICAST.contains(&ip) || SPECIAL_V6.iter().any(|net| net.contains(&ip)),
    }
}

/// The IPv4 address a gateway would take out of this IPv6 one (a mapped address never comes here:
/// it is judged as IPv4).
fn embedded_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let s = ip.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible and IPv4-translated.
        [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(pair(high, low)),
        // NAT64: RFC 6052 section 2.2, the well-known prefix ...
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(pair(high, low)),
        // ... and the local one, which puts the address behind 48 bits, or at the end.
        [0x64, 0xff9b, 1, a, b, c, 0, 0] if b & 0xff00 == 0 && c & 0xff == 0 => Some(pair(a, (b << 8) | (c >> 8))),
        [0x64, 0xff9b, 1, _, _, _, high, low] => Some(pair(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Some(pair(high, low)),
        // Teredo: the client's address, every bit turned over.
        [0x2001, 0, _, _, _, _, high, low] => Some(pair(!high, !low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|n| n.parse().unwrap_or_else(|_| panic!("{n} is no network"))).collect()
    }

    fn verdict(allow: &[&str], scheme: Scheme, address: &str) -> Result<(), Blocked> {
        EgressPolicy::new(nets(allow)).judge(ip(address), 443, scheme, &[])
    }

    const INNER: [&str; 93] = [
        // One or both ends of each IPv4 row.
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.0",
        "127.0.0.1",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.0.0",
        "169.254.169.254",
        "169.254.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.0",
        "192.0.0.192",
        "192.0.0.255",
        "192.0.2.0",
        "192.0.2.255",
        "192.88.99.1",
        "192.88.99.255",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.0",
        "198.51.100.255",
        "203.0.113.0",
        "203.0.113.255",
        "224.0.0.1",
        "233.252.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.254",
        "255.255.255.255",
        // IPv6: `::/8` and what is in it.
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "::ffff:0:127.0.0.1",
        "::ffff:0:8.8.8.8",
        "ff::1",
        // NAT64, both.
        "64:ff9b::7f00:1",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "64:ff9b:1:a00:0:100::",
        "64:ff9b:1:ffff::8.8.8.8",
        // Discard, protocol assignments, Teredo, benchmarking, ORCHID, documentation.
        "100::",
        "100::ffff:ffff:ffff:ffff",
        "100:0:0:1::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2001:db8:ffff::1",
        "3fff::1",
        "3fff:fff::1",
        // 6to4.
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "2002:808:808::1",
        "2002:ffff:ffff::1",
        // Segment routing, local, multicast.
        "5f00::1",
        "5f00:ffff::1",
        "fc00::1",
        "fd00::1",
        "fd00:ec2::254",
        "fdff:ffff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "feff::1",
        "ff00::1",
        "ff02::1",
        "ff0e::1",
        "ffff::1",
        // Not given out.
        "200::1",
        "400::1",
        "1000::1",
        "4000::1",
        "6000::1",
        "8000::1",
        "a000::1",
        "e000::1",
    ];

    const PUBLIC: [&str; 24] = [
        "1.0.0.0",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "2001:200::1",
        "2606:4700:4700::1111",
        "2a00:1450:4001:830::200e",
        "2003::1",
    ];

    #[test]
    fn p8_every_row_of_the_deny_list_is_blocked() {
        for address in INNER {
            assert_eq!(verdict(&[], Scheme::Https, address), Err(Blocked::Address), "{address}");
            assert_eq!(verdict(&[], Scheme::Http, address), Err(Blocked::PlainHttp), "{address}");
        }
    }

    #[test]
    fn p8_public_addresses_take_https_alone() {
        for address in PUBLIC {
            assert_eq!(verdict(&[], Scheme::Https, address), Ok(()), "{address}");
            assert_eq!(verdict(&[], Scheme::Http, address), Err(Blocked::PlainHttp), "{address}");
        }
    }

    #[test]
    fn allowed_networks_open_both_schemes_and_nothing_else() {
        for scheme in [Scheme::Http, Scheme::Https] {
            assert_eq!(verdict(&["10.0.0.0/8"], scheme, "10.1.2.3"), Ok(()));
            assert_eq!(verdict(&["10.0.0.0/8"], scheme, "::ffff:10.1.2.3"), Ok(()), "mapped is judged as IPv4");
            assert_eq!(verdict(&["::1/128"], scheme, "::1"), Ok(()));
            assert_eq!(verdict(&["fd00::/8"], scheme, "fd00::5"), Ok(()));
            assert!(verdict(&["10.0.0.0/8"], scheme, "11.0.0.1") == verdict(&[], scheme, "11.0.0.1"));
            assert!(verdict(&["127.0.0.1/32"], scheme, "127.0.0.2").is_err());
        }
    }

    #[test]
    fn p8_an_embedded_ipv4_address_must_pass_as_well() {
        let cases = [
            ("64:ff9b::/96", "64:ff9b::8.8.8.8", true),
            ("64:ff9b::/96", "64:ff9b::127.0.0.1", false),
            ("64:ff9b:1::/48", "64:ff9b:1::8.8.8.8", true),
            ("64:ff9b:1::/48", "64:ff9b:1::10.0.0.1", false),
            ("64:ff9b:1::/48", "64:ff9b:1:808:8:800::", true),
            ("64:ff9b:1::/48", "64:ff9b:1:a00:0:100::", false),
            ("2002::/16", "2002:808:808::1", true),
            ("2002::/16", "2002:7f00:1::1", false),
            ("2001::/32", "2001::f7f7:f7f7", true),
            ("2001::/32", "2001::80ff:fffe", false),
            ("::/0", "::127.0.0.1", false),
            ("::/0", "::8.8.8.8", true),
            ("::/0", "::ffff:0:169.254.169.254", false),
            ("::/0", "::ffff:169.254.169.254", false),
        ];
        for (net, address, open) in cases {
            assert_eq!(verdict(&[net], Scheme::Https, address).is_ok(), open, "{address} with {net}");
            if !open {
                assert_eq!(verdict(&[net, "0.0.0.0/0"], Scheme::Https, address), Ok(()), "{address}");
            }
        }
    }

    #[test]
    fn a_tenants_own_networks_open_to_that_call_alone() {
        let policy = EgressPolicy::new(Vec::new());
        let extra = nets(&["10.0.0.0/8"]);
        assert_eq!(policy.judge(ip("10.0.0.1"), 80, Scheme::Http, &extra), Ok(()));
        assert_eq!(policy.judge(ip("10.0.0.1"), 80, Scheme::Http, &[]), Err(Blocked::PlainHttp));
    }

    #[test]
    fn p8_the_servers_own_addresses_are_never_a_target() {
        let everywhere = nets(&["0.0.0.0/0", "::/0"]);
        let policy = EgressPolicy::new(everywhere.clone());
        let judge = |address: &str, port| policy.judge(ip(address), port, Scheme::Http, &everywhere);
        assert_eq!(judge("127.0.0.1", 8080), Ok(()), "before the bind nothing is known");

        policy.set_own_addrs(vec!["127.0.0.1:8080".parse().expect("addr")]);
        for address in ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::", "64:ff9b::7f00:1", "::127.0.0.1"] {
            assert_eq!(judge(address, 8080), Err(Blocked::Address), "{address}");
            assert_eq!(judge(address, 8081), Ok(()), "{address}");
        }
        assert_eq!(judge("127.0.0.2", 8080), Ok(()));

        policy.set_own_addrs(vec!["0.0.0.0:8080".parse().expect("addr")]);
        for address in ["127.0.0.1", "127.9.9.9", "0.0.0.0"] {
            assert_eq!(judge(address, 8080), Err(Blocked::Address), "{address}");
        }
        assert_eq!(judge("8.8.8.8", 8080), Ok(()));
    }

    #[test]
    fn unrestricted_is_unrestricted() {
        let policy = EgressPolicy::unrestricted();
        policy.set_own_addrs(vec!["127.0.0.1:8080".parse().expect("addr")]);
        assert_eq!(policy.judge(ip("127.0.0.1"), 8080, Scheme::Http, &[]), Ok(()));
        let target = Target::parse("http://127.0.0.1:8080/").expect("url");
        assert_eq!(policy.check_at_write(&target, &[]), Ok(()));
    }

    #[test]
    fn what_is_refused_when_written_down() {
        let cases: [(&[&str], &str, Result<(), Blocked>); 14] = [
            (&[], "https://example.com/", Ok(())),
            (&[], "http://example.com/", Err(Blocked::PlainHttp)),
            (&["10.0.0.0/8"], "http://example.com/", Ok(())),
            (&["10.0.0.0/8"], "http://10.1.1.1/", Ok(())),
            (&["10.0.0.0/8"], "http://11.1.1.1/", Err(Blocked::PlainHttp)),
            (&[], "https://8.8.8.8/", Ok(())),
            (&[], "https://10.1.1.1/", Err(Blocked::Address)),
            (&[], "https://[::ffff:10.1.1.1]/", Err(Blocked::Address)),
            (&[], "https://[fe80::1]/", Err(Blocked::Address)),
            (&["10.0.0.0/8"], "https://10.1.1.1/", Ok(())),
            (&[], "https://localhost/", Err(Blocked::Address)),
            (&[], "https://x.localhost/", Err(Blocked::Address)),
            (&["127.0.0.0/8"], "http://localhost/", Ok(())),
            (&["10.0.0.0/8"], "http://localhost/", Err(Blocked::PlainHttp)),
        ];
        for (allow, url, expected) in cases {
            let target = Target::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!(EgressPolicy::new(nets(allow)).check_at_write(&target, &[]), expected, "{url}");
            assert_eq!(EgressPolicy::new(Vec::new()).check_at_write(&target, &nets(allow)), expected, "{url}");
        }
    }

    #[test]
    fn p8_a_refusal_never_names_an_address() {
        for blocked in [Blocked::Address, Blocked::PlainHttp] {
            assert!(!blocked.to_string().bytes().any(|b| b.is_ascii_digit()), "{blocked}");
        }
    }

    proptest! {
        /// However an inner IPv4 address is wrapped into IPv6, it stays blocked.
        #[test]
        fn p8_no_wrapping_opens_an_inner_address(row in 0..SPECIAL_V4.len(), bits: u32) {
            let net = SPECIAL_V4[row];
            let inner = u32::from(net.network()) | (bits & u32::from(net.hostmask()));
            let [a, b, c, d] = inner.to_be_bytes();
            let (high, low) = ((inner >> 16) as u16, inner as u16);
            let wraps = [
                format!("::{a}.{b}.{c}.{d}"),
                format!("::ffff:{a}.{b}.{c}.{d}"),
                format!("::ffff:0:{a}.{b}.{c}.{d}"),
                format!("64:ff9b::{a}.{b}.{c}.{d}"),
                format!("64:ff9b:1::{a}.{b}.{c}.{d}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001::{:x}:{:x}", !high, !low),
            ];
            for wrapped in wraps {
                prop_assert!(verdict(&[], Scheme::Https, &wrapped).is_err(), "{}", wrapped);
            }
        }
    }
}
