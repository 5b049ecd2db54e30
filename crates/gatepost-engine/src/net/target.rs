//! The URL of an outgoing call, read strictly.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Uri};

/// The longest URL accepted, in bytes.
pub const MAX_URL: usize = 2048;

/// `http` or `https`: all there is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// Plain; only to networks the operator has allowed.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The word in front of `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Who is called: a name still to be resolved, or an address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Host {
    /// A DNS name, in lower case.
    Name(String),
    /// A literal address.
    Ip(IpAddr),
}

/// Why a text is not a URL Gatepost calls. Its text says what is wrong and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(Cow<'static, str>);

impl BadUrl {
    fn because(text: &'static str) -> Self {
        BadUrl(Cow::Borrowed(text))
    }
}

/// A URL that may be called, taken apart once so that a call costs nothing for it.
///
/// Cheap to clone. What is read is the raw text: a lenient URL parser turns `0x7f.1` or full-width
/// digits into an address nobody has looked at, so here every such spelling is refused instead.
#[derive(Clone)]
pub struct Target(Arc<Parts>);

struct Parts {
    scheme: Scheme,
    host: Host,
    port: u16,
    url: String,
    key: Arc<str>,
    authority: HeaderValue,
    origin_uri: Uri,
    absolute_uri: Uri,
}

impl Target {
    /// Reads the URL of an outgoing call.
    ///
    /// # Errors
    /// Anything but `http(s)://host[:port][/path][?query]` with a canonical host; see [`BadUrl`].
    pub fn parse(text: &str) -> Result<Target, BadUrl> {
        if text.len() > MAX_URL {
            return Err(BadUrl(format!("the URL is longer than {MAX_URL} bytes; shorten it").into()));
        }
        check_characters(text)?;
        let (scheme, rest) = split_scheme(text)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(BadUrl::because(
                "the URL holds a user name or password; remove it and use the webhook's headers",
            ));
        }
        let (host, port) = split_port(authority)?;
        let host = parse_host(host)?;
        let port = port.map_or(Ok(scheme.default_port()), parse_port)?;
        Target::assemble(scheme, host, port, path)
    }

    fn assemble(scheme: Scheme, host: Host, port: u16, path: &str) -> Result<Target, BadUrl> {
        let path = if path.starts_with('/') { Cow::Borrowed(path) } else { Cow::Owned(format!("/{path}")) };
        let bad_path =
            |_| BadUrl::because("the path or query holds a character that must be percent-encoded; encode it as %XX");
        let path: PathAndQuery = path.parse().map_err(bad_path)?;
        let host_text = match &host {
            Host::Name(name) => Cow::Borrowed(name.as_str()),
            Host::Ip(IpAddr::V4(ip)) => Cow::Owned(ip.to_string()),
            Host::Ip(IpAddr::V6(ip)) => Cow::Owned(format!("[{ip}]")),
        };
        let authority =
            if port == scheme.default_port() { host_text.to_string() } else { format!("{host_text}:{port}") };
        let bad_host = || BadUrl::because("the host is not a DNS name or an IP address; check its spelling");
        let header = HeaderValue::from_str(&authority).map_err(|_| bad_host())?;
        let url = format!("{}://{authority}{path}", scheme.as_str());
        let key = format!("{}://{host_text}:{port}", scheme.as_str()).into();
        let mut absolute = http::uri::Parts::default();
        absolute.scheme = Some(match scheme {
            Scheme::Http => http::uri::Scheme::HTTP,
            Scheme::Https => http::uri::Scheme::HTTPS,
        });
        absolute.authority = Some(authority.parse::<Authority>().map_err(|_| bad_host())?);
        absolute.path_and_query = Some(path.clone());
        let absolute_uri = Uri::from_parts(absolute).map_err(|_| bad_host())?;
        let origin_uri = Uri::from(path);
        Ok(Target(Arc::new(Parts { scheme, host, port, url, key, authority: header, origin_uri, absolute_uri })))
    }

    /// The URL as called: scheme and host in lower case, a default port left out, the rest as given.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> Scheme {
        self.0.scheme
    }

    /// Who is called.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// The port, the scheme's own when the URL has none.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// `scheme://host:port`: what may share connections.
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.0.key
    }

    /// The value of the `host` header.
    pub(super) fn authority(&self) -> &HeaderValue {
        &self.0.authority
    }

    /// Path and query alone: the request target of HTTP/1.1.
    pub(super) fn origin_uri(&self) -> &Uri {
        &self.0.origin_uri
    }

    /// The whole URL: what HTTP/2 splits into its pseudo-headers.
    pub(super) fn absolute_uri(&self) -> &Uri {
        &self.0.absolute_uri
    }

    /// The addresses the host stands for whatever any resolver says: a literal's own, and loopback
    /// for `localhost` and names under it (RFC 6761 section 6.3).
    pub(super) fn fixed_addresses(&self) -> Option<Vec<IpAddr>> {
        match &self.0.host {
            Host::Ip(ip) => Some(vec![*ip]),
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            }
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.url())
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.url() == other.url()
    }
}

impl Eq for Target {}

impl FromStr for Target {
    type Err = BadUrl;

    fn from_str(s: &str) -> Result<Self, BadUrl> {
        Target::parse(s)
    }
}

fn check_characters(text: &str) -> Result<(), BadUrl> {
    for c in text.chars() {
        let wrong = match c {
            '\\' => "a backslash; use / instead",
            '#' => "a fragment (#…), which is never sent; remove it",
            ' ' => "a space; remove it or encode it as %20",
            c if c.is_ascii_control() => "a control character; remove it",
            c if !c.is_ascii() => "a character outside ASCII; write a host in its xn-- form and encode the rest as %XX",
            _ => continue,
        };
        return Err(BadUrl(format!("the URL holds {wrong}").into()));
    }
    Ok(())
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), BadUrl> {
    let wrong = || BadUrl::because("the URL must start with https:// (or http://)");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    if scheme.eq_ignore_ascii_case("https") {
        Ok((Scheme::Https, rest))
    } else if scheme.eq_ignore_ascii_case("http") {
        Ok((Scheme::Http, rest))
    } else {
        Err(wrong())
    }
}

/// Takes `host:port` or `[v6]:port` apart.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), BadUrl> {
    if !authority.starts_with('[') {
        return Ok(match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        });
    }
    let unclosed = || BadUrl::because("the IPv6 address is not closed; write it as [2001:db8::1]");
    let close = authority.find(']').ok_or_else(unclosed)?;
    let (host, after) = authority.split_at(close + 1);
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err(BadUrl::because("only a port may follow the IPv6 address; write [address]:port")),
    }
}

fn parse_port(text: &str) -> Result<u16, BadUrl> {
    let plain = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| BadUrl::because("the port must be a number from 1 to 65535, or be left out with its colon"))
}

fn parse_host(text: &str) -> Result<Host, BadUrl> {
    if text.is_empty() {
        return Err(BadUrl::because("the URL has no host; write https://host/path"));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        if inner.contains('%') {
            return Err(BadUrl::because(
                "the IPv6 address has a zone (%…), which means nothing outside one machine; remove it",
            ));
        }
        let ip: Ipv6Addr = inner
            .parse()
            .map_err(|_| BadUrl::because("the host in brackets is not an IPv6 address; write it as [2001:db8::1]"))?;
        return Ok(Host::Ip(ip.into()));
    }
    if text.ends_with('.') {
        return Err(BadUrl::because("the host ends with a dot; remove it"));
    }
    // Whatever ends in a number is an IPv4 address to some parser (WHATWG URL section 3.5), in
    // octal, hexadecimal or with parts left out: only the one canonical spelling is taken.
    let last = text.rsplit('.').next().unwrap_or(text);
    if is_number(last) {
        let ip: Ipv4Addr = text.parse().map_err(|_| {
            BadUrl::because(
                "the host is an odd spelling of an IPv4 address; write four decimal numbers, as in 192.0.2.1",
            )
        })?;
        return Ok(Host::Ip(ip.into()));
    }
    check_name(text)?;
    Ok(Host::Name(text.to_ascii_lowercase()))
}

/// Whether some parser takes this last label for (a part of) an IPv4 address.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// The names DNS has for hosts, and the underscore that container networks use.
fn check_name(name: &str) -> Result<(), BadUrl> {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() <= 253 && name.split('.').all(label_ok) {
        return Ok(());
    }
    Err(BadUrl::because(
        "the host is not a DNS name: letters, digits, - and _ in parts of 1 to 63, joined by dots; check its spelling",
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_may_be_called() {
        let cases = [
            ("https://hooks.example.com", "https://hooks.example.com/", 443),
            ("HTTPS://Hooks.Example.COM/In?a=B", "https://hooks.example.com/In?a=B", 443),
            ("https://example.com:443/", "https://example.com/", 443),
            ("http://example.com:80", "http://example.com/", 80),
            ("http://example.com:443", "http://example.com:443/", 443),
            ("https://example.com?x=1&y=//z", "https://example.com/?x=1&y=//z", 443),
            ("https://example.com/a/../b//c;d=%2F", "https://example.com/a/../b//c;d=%2F", 443),
            ("https://xn--bcher-kva.example:8443/x", "https://xn--bcher-kva.example:8443/x", 8443),
            ("http://my_service:65535/", "http://my_service:65535/", 65535),
            ("https://192.0.2.1:1/", "https://192.0.2.1:1/", 1),
            ("https://[2001:DB8:0::1]:8443/x", "https://[2001:db8::1]:8443/x", 8443),
            ("https://[::ffff:127.0.0.1]", "https://[::ffff:127.0.0.1]/", 443),
            ("https://a.b/?q=@:/", "https://a.b/?q=@:/", 443),
            ("https://1.example/", "https://1.example/", 443),
            ("https://0xcafe.example/", "https://0xcafe.example/", 443),
        ];
        for (text, url, port) in cases {
            let target = Target::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(target.url(), url);
            assert_eq!(target.port(), port, "{text}");
        }
    }

    #[test]
    fn p8_refuses_every_odd_spelling_with_a_remedy() {
        let long_label = format!("https://{}.com/", "a".repeat(64));
        let long_name = format!("https://{}com/", "abc.".repeat(63));
        let cases = [
            // Not a URL of ours.
            ("", "must start with https://"),
            ("example.com/x", "must start with https://"),
            ("ftp://example.com/", "must start with https://"),
            ("file:///etc/passwd", "must start with https://"),
            ("javascript://x", "must start with https://"),
            ("https:/example.com", "must start with https://"),
            ("https:example.com", "must start with https://"),
            ("//example.com", "must start with https://"),
            ("https://", "no host"),
            ("https:///path", "no host"),
            ("https://:8080/", "no host"),
            ("https://?x", "no host"),
            // Characters.
            (" https://example.com/", "a space"),
            ("https://example.com/a b", "%20"),
            ("https://exa\tmple.com/", "control character"),
            ("https://example.com/\r\nx: y", "control character"),
            ("https://example.com/\u{7f}", "control character"),
            ("https://example.com\\@127.0.0.1/", "backslash"),
            ("https:\\\\example.com", "backslash"),
            ("https://example.com/#top", "fragment"),
            ("https://b\u{fc}cher.example/", "outside ASCII"),
            ("https://\u{ff11}\u{ff12}\u{ff17}.0.0.1/", "outside ASCII"),
            ("https://127\u{3002}0\u{3002}0\u{3002}1/", "outside ASCII"),
            ("https://example.com/\u{e9}", "outside ASCII"),
            ("https://example.com/<x>", "percent-encoded"),
            // User information.
            ("https://user@example.com/", "user name or password"),
            ("https://user:pw@example.com/", "user name or password"),
            ("https://@example.com/", "user name or password"),
            ("https://example.com@127.0.0.1/", "user name or password"),
            // Spellings of IPv4.
            ("https://0x7f.1/", "odd spelling"),
            ("https://2130706433/", "odd spelling"),
            ("https://017700000001/", "odd spelling"),
            ("https://0x7f000001/", "odd spelling"),
            ("https://0X7F000001/", "odd spelling"),
            ("https://127.1/", "odd spelling"),
            ("https://127.0.1/", "odd spelling"),
            ("https://0177.0.0.1/", "odd spelling"),
            ("https://127.0.0.01/", "odd spelling"),
            ("https://127.0.0.0x1/", "odd spelling"),
            ("https://127.0.0.0x/", "odd spelling"),
            ("https://0x7f.0x0.0x0.0x1/", "odd spelling"),
            ("https://256.0.0.1/", "odd spelling"),
            ("https://1.2.3.4.5/", "odd spelling"),
            ("https://1.2.3/", "odd spelling"),
            ("https://example.1/", "odd spelling"),
            ("https://127.0.0.1./", "ends with a dot"),
            // Spellings of IPv6.
            ("https://[::1%25lo]/", "zone"),
            ("https://[fe80::1%eth0]/", "zone"),
            ("https://[::1/", "not closed"),
            ("https://[::1]x/", "only a port may follow"),
            ("https://[127.0.0.1]/", "not an IPv6 address"),
            ("https://[]/", "not an IPv6 address"),
            ("https://[v1.a]/", "not an IPv6 address"),
            ("https://::1/", "no host"),
            // Names.
            ("https://example.com./", "ends with a dot"),
            ("https://./", "ends with a dot"),
            ("https://.example.com/", "not a DNS name"),
            ("https://a..b/", "not a DNS name"),
            ("https://-a.com/", "not a DNS name"),
            ("https://a-.com/", "not a DNS name"),
            ("https://exa%6dple.com/", "not a DNS name"),
            ("https://127%2e0%2e0%2e1/", "not a DNS name"),
            ("https://a,b/", "not a DNS name"),
            ("https://a*b/", "not a DNS name"),
            (&long_label, "not a DNS name"),
            (&long_name, "not a DNS name"),
            // Ports.
            ("https://example.com:/", "1 to 65535"),
            ("https://example.com:0/", "1 to 65535"),
            ("https://example.com:65536/", "1 to 65535"),
            ("https://example.com:080/", "1 to 65535"),
            ("https://example.com:+80/", "1 to 65535"),
            ("https://example.com:-1/", "1 to 65535"),
            ("https://example.com:80:90/", "1 to 65535"),
            ("https://example.com:http/", "1 to 65535"),
            ("https://[::1]:/", "1 to 65535"),
        ];
        for (text, part) in cases {
            match Target::parse(text) {
                Ok(target) => panic!("{text:?} was read as {target:?}"),
                Err(e) => assert!(e.to_string().contains(part), "{text:?}: {e}"),
            }
        }
    }

    #[test]
    fn the_length_is_bounded() {
        let url = |n: usize| format!("https://a.example/{}", "x".repeat(n - 18));
        assert!(Target::parse(&url(MAX_URL)).is_ok());
        let error = Target::parse(&url(MAX_URL + 1)).map_err(|e| e.to_string());
        assert_eq!(error, Err("the URL is longer than 2048 bytes; shorten it".to_owned()));
    }

    #[test]
    fn localhost_and_literals_need_no_resolver() {
        let fixed = |url: &str| Target::parse(url).map(|t| t.fixed_addresses());
        let both = vec!["127.0.0.1".parse().expect("ip"), "::1".parse().expect("ip")];
        assert_eq!(fixed("http://localhost:1/"), Ok(Some(both.clone())));
        assert_eq!(fixed("http://x.LocalHost/"), Ok(Some(both)));
        assert_eq!(fixed("http://10.0.0.1/"), Ok(Some(vec!["10.0.0.1".parse().expect("ip")])));
        assert_eq!(fixed("http://notlocalhost/"), Ok(None));
    }

    proptest! {
        /// Reading is idempotent: what is called is what was judged.
        #[test]
        fn p8_reading_the_printed_url_gives_the_same_target(text in "https?://[a-zA-Z0-9.\\[\\]:x_-]{1,24}(:[0-9]{1,5})?[/?][ -~]{0,20}") {
            if let Ok(target) = Target::parse(&text) {
                let again = Target::parse(target.url()).expect("a printed URL reads");
                prop_assert_eq!(again.host(), target.host());
                prop_assert_eq!(again.port(), target.port());
                prop_assert_eq!(again.url(), target.url());
            }
        }

        /// Nothing makes the reader panic.
        #[test]
        fn any_text_is_answered(text in "\\PC{0,60}") {
            let _ = Target::parse(&text);
            let _ = Target::parse(&format!("https://{text}"));
        }
    }
}
