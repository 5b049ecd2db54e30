//! From a name to addresses, and whose fault it is when there are none.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use crate::seldom::LOCAL_FAULTS;

/// Why a name gave no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResolveError {
    /// DNS says there is no such name, or no address under it.
    #[error("the host's name does not exist in DNS")]
    NoSuchName,
    /// Our resolver works, but the name's own servers gave no answer of use.
    #[error("the host's name could not be resolved: {0}")]
    Failed(String),
    /// Our own resolver cannot be asked: nobody's fault but ours, and it uses up no attempt.
    #[error("this server's DNS resolver does not work at present: {0}")]
    Local(String),
}

/// Turns names into addresses. Called once for each new connection; what it answers is judged and
/// never asked for again.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of `name`, best first.
    ///
    /// # Errors
    /// There are none, or they could not be had; [`ResolveError`] says whose fault that is.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError>;

    /// Whether the resolver itself works: asked when a name took longer than its caller would wait.
    async fn is_up(&self) -> bool {
        true
    }
}

/// How long one DNS query may take, and how often it is repeated.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const QUERY_ATTEMPTS: usize = 2;
/// How long the resolver may take to show a sign of life, and how long that sign counts.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const PROBE_KEEP: Duration = Duration::from_secs(2);
/// How often to look whether the system's configuration has changed.
const CONFIG_CHECK: Duration = Duration::from_secs(10);
/// Negative answers are kept no longer than this, so that a repaired name works again soon.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(30);
/// Entries of the answer cache; queries under way at one time.
const CACHE_ENTRIES: u64 = 8192;
const MAX_QUERIES: usize = 256;

/// The system's resolver: `/etc/hosts`, the name servers and search list of `/etc/resolv.conf`, a
/// cache that honours TTLs. A change of those files is noticed within seconds.
pub struct SystemResolver {
    current: ArcSwapOption<Loaded>,
    loading: Mutex<()>,
    health: Mutex<Option<(Instant, bool)>>,
    slots: Semaphore,
    /// Set for a fixed configuration (tests); otherwise the system's is read.
    fixed: Option<(ResolverConfig, Duration)>,
}

struct Loaded {
    lookup: TokioResolver,
    /// The same servers without a cache, to see whether they live.
    probe: TokioResolver,
    files: [Option<std::time::SystemTime>; 2],
    checked_at: std::sync::Mutex<Instant>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        SystemResolver::new()
    }
}

impl SystemResolver {
    /// A resolver that reads the system's configuration when first used.
    pub fn new() -> Self {
        SystemResolver {
            current: ArcSwapOption::empty(),
            loading: Mutex::new(()),
            health: Mutex::new(None),
            slots: Semaphore::new(MAX_QUERIES),
            fixed: None,
        }
    }

    #[cfg(test)]
    fn with_config(config: ResolverConfig, query_timeout: Duration) -> Self {
        SystemResolver { fixed: Some((config, query_timeout)), ..SystemResolver::new() }
    }

    async fn loaded(&self) -> Result<Arc<Loaded>, ResolveError> {
        if let Some(loaded) = self.current.load_full()
            && loaded.is_fresh(self.fixed.is_some())
        {
            return Ok(loaded);
        }
        let _one_at_a_time = self.loading.lock().await;
        if let Some(loaded) = self.current.load_full()
            && loaded.is_fresh(self.fixed.is_some())
        {
            return Ok(loaded);
        }
        let loaded = Arc::new(self.load().map_err(|e| {
            tracing::warn!(error = %e, "the system's DNS configuration cannot be used");
            ResolveError::Local("its configuration cannot be read".to_owned())
        })?);
        self.current.store(Some(loaded.clone()));
        Ok(loaded)
    }

    fn load(&self) -> Result<Loaded, NetError> {
        let files = modified();
        let (config, mut options) = match &self.fixed {
            Some((config, query_timeout)) => {
                let mut options = ResolverOpts::default();
                options.timeout = *query_timeout;
                (config.clone(), options)
            }
            None => {
                let (config, mut options) = hickory_resolver::system_conf::read_system_conf()?;
                options.timeout = options.timeout.min(QUERY_TIMEOUT);
                (config, options)
            }
        };
        options.attempts = QUERY_ATTEMPTS;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        options.cache_size = CACHE_ENTRIES;
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        options.max_active_requests = MAX_QUERIES * 2;
        let mut probe_options = options.clone();
        probe_options.cache_size = 0;
        probe_options.attempts = 1;
        let build = |options| {
            TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
                .with_options(options)
                .build()
        };
        Ok(Loaded {
            lookup: build(options)?,
            probe: build(probe_options)?,
            files,
            checked_at: std::sync::Mutex::new(Instant::now()),
        })
    }
}

impl Loaded {
    fn is_fresh(&self, fixed: bool) -> bool {
        if fixed {
            return true;
        }
        let mut checked_at = self.checked_at.lock().unwrap_or_else(|e| e.into_inner());
        if checked_at.elapsed() < CONFIG_CHECK {
            return true;
        }
        *checked_at = Instant::now();
        self.files == modified()
    }
}

/// When the files behind the configuration were last changed. Only ever compared for equality.
fn modified() -> [Option<std::time::SystemTime>; 2] {
    ["/etc/resolv.conf", "/etc/hosts"].map(|path| std::fs::metadata(Path::new(path)).and_then(|m| m.modified()).ok())
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let loaded = self.loaded().await?;
        let Ok(_slot) = self.slots.acquire().await else {
            return Err(ResolveError::Local("it is shutting down".to_owned()));
        };
        let error = match loaded.lookup.lookup_ip(name).await {
            Ok(found) => {
                let mut ips: Vec<IpAddr> = found.iter().collect();
                ips.dedup();
                return if ips.is_empty() { Err(ResolveError::NoSuchName) } else { Ok(ips) };
            }
            Err(error) => error,
        };
        match &error {
            NetError::Dns(DnsError::NoRecordsFound(none))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Err(ResolveError::NoSuchName)
            }
            NetError::Dns(DnsError::NoRecordsFound(none)) => Err(refused(none.response_code)),
            NetError::Dns(DnsError::ResponseCode(code)) => Err(refused(*code)),
            NetError::Busy => Err(ResolveError::Local("it is overloaded".to_owned())),
            // No answer at all. A name whose own servers are silent must not pass for a fault of
            // ours, or its deliveries would be tried forever: see whether the resolver is alive.
            _ if self.is_up().await => Err(ResolveError::Failed("its name servers did not answer in time".to_owned())),
            _ => {
                if let Some(left_out) = LOCAL_FAULTS.turn() {
                    tracing::warn!(error = %error, left_out, "no DNS server answers");
                }
                Err(ResolveError::Local("no DNS server answers".to_owned()))
            }
        }
    }

    /// Any answer to a question about the root shows that the resolver is alive, be it a refusal.
    async fn is_up(&self) -> bool {
        let mut health = self.health.lock().await;
        if let Some((at, up)) = *health
            && at.elapsed() < PROBE_KEEP
        {
            return up;
        }
        let up = match self.loaded().await {
            Ok(loaded) => {
                matches!(timeout(PROBE_TIMEOUT, loaded.probe.ns_lookup(".")).await, Ok(Ok(_) | Err(NetError::Dns(_))))
            }
            Err(_) => false,
        };
        *health = Some((Instant::now(), up));
        up
    }
}

fn refused(code: ResponseCode) -> ResolveError {
    ResolveError::Failed(format!("DNS answered {code}"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hickory_resolver::config::NameServerConfig;
    use tokio::net::UdpSocket;

    use super::*;

    /// What the scripted DNS server does with a question.
    #[derive(Clone, Copy)]
    enum Dns {
        Address(Ipv4Addr),
        Code(u8),
        Silent,
    }

    struct Server {
        resolver: SystemResolver,
        asked: Arc<AtomicUsize>,
    }

    /// A DNS server on loopback that answers questions for A with `a`, for the root with `root`,
    /// and all others with "no records".
    async fn server(a: Dns, root: Dns) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let mut ns = NameServerConfig::udp(socket.local_addr().expect("addr").ip());
        ns.connections[0].port = socket.local_addr().expect("addr").port();
        let config = ResolverConfig::from_parts(None, vec![], vec![ns]);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                let name_end = 12 + buffer[12..n].iter().position(|b| *b == 0).expect("a name");
                let question_end = name_end + 5;
                let kind = u16::from_be_bytes([buffer[name_end + 1], buffer[name_end + 2]]);
                let act = match (name_end, kind) {
                    (12, _) => root,
                    (_, 1) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        a
                    }
                    _ if matches!(a, Dns::Silent) => Dns::Silent,
                    _ if matches!(a, Dns::Code(_)) => a,
                    _ => Dns::Code(0),
                };
                let mut answer = buffer[..question_end].to_vec();
                let (code, records) = match act {
                    Dns::Silent => continue,
                    Dns::Code(code) => (code, 0),
                    Dns::Address(ip) => {
                        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                        answer.extend(ip.octets());
                        (0, 1)
                    }
                };
                answer[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, records, 0, 0, 0, 0]);
                socket.send_to(&answer, from).await.expect("send");
            }
        });
        Server { resolver: SystemResolver::with_config(config, Duration::from_millis(100)), asked }
    }

    #[tokio::test]
    async fn a_name_resolves_and_is_cached() {
        let s = server(Dns::Address(Ipv4Addr::new(192, 0, 2, 7)), Dns::Code(0)).await;
        for _ in 0..3 {
            let ips = s.resolver.resolve("hooks.example.test").await;
            assert_eq!(ips, Ok(vec![IpAddr::from([192, 0, 2, 7])]));
        }
        assert_eq!(s.asked.load(Ordering::Relaxed), 1, "asked once, then cached");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_the_names_fault() {
        let s = server(Dns::Code(3), Dns::Code(0)).await;
        assert_eq!(s.resolver.resolve("gone.example.test").await, Err(ResolveError::NoSuchName));
        let s = server(Dns::Code(0), Dns::Code(0)).await;
        assert_eq!(s.resolver.resolve("bare.example.test").await, Err(ResolveError::NoSuchName));
    }

    #[tokio::test]
    async fn a_server_failure_is_the_names_fault() {
        let s = server(Dns::Code(2), Dns::Code(0)).await;
        let error = s.resolver.resolve("broken.example.test").await;
        assert!(matches!(error, Err(ResolveError::Failed(_))), "{error:?}");
    }

    #[tokio::test]
    async fn a_silent_name_is_not_taken_for_a_dead_resolver() {
        let s = server(Dns::Silent, Dns::Code(5)).await;
        let error = s.resolver.resolve("tarpit.example.test").await;
        assert!(matches!(error, Err(ResolveError::Failed(_))), "{error:?}");
    }

    #[tokio::test]
    async fn a_dead_resolver_is_our_own_fault() {
        let s = server(Dns::Silent, Dns::Silent).await;
        let error = s.resolver.resolve("hooks.example.test").await;
        assert!(matches!(error, Err(ResolveError::Local(_))), "{error:?}");
        assert!(!s.resolver.is_up().await);
    }

    #[tokio::test]
    async fn no_resolver_at_all_is_our_own_fault() {
        let none = ResolverConfig::from_parts(None, vec![], vec![]);
        let resolver = SystemResolver::with_config(none, Duration::from_millis(100));
        let error = resolver.resolve("hooks.example.test").await;
        assert!(matches!(error, Err(ResolveError::Local(_))), "{error:?}");
    }
}
