//! The whole server as a value: started, run until told to stop, stopped in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::FutureExt;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::HookSwitch;
use gatepost_engine::net::{Client, ClientOptions, EgressPolicy, SystemResolver};
use gatepost_engine::{Engine, EngineParts, Running, SystemClock, SystemEntropy, USER_AGENT};
use gatepost_store::sqlite::Options;
use gatepost_store::{SqliteStore, StoreError};
use http::HeaderValue;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Settings;
use crate::failure::{Failure, Outcome};
use crate::memory::{Memory, Plan};
use crate::{keyfiles, masterkey};

/// How long a stop may take in all (DESIGN 3.1).
const STOP: Duration = Duration::from_secs(30);
/// The part of it requests in flight get: what is under way to receivers must be recorded after.
const STOP_REQUESTS: Duration = Duration::from_secs(20);
/// While this file is in the data folder, no blocking hook is asked.
pub const BYPASS_FILE: &str = "hooks.bypass";
/// How often it is looked whether deliveries are still being made, and for [`BYPASS_FILE`].
const WATCH: Duration = Duration::from_secs(1);

/// What a server is made of.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// The embedded store's folder, made as needed.
    pub data_dir: PathBuf,
    /// Full rights; `None`: the one in the data folder, made as needed.
    pub admin_key: Option<Secret>,
    /// Wraps the data key; `None`: the one in the data folder, made for a new folder.
    pub master_key: Option<Key>,
    /// What may be called besides public addresses.
    pub allow_nets: Vec<IpNet>,
    /// PEM certificates trusted besides the system's.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// What links begin with; `None`: the bound address.
    pub public_url: Option<String>,
    /// Bytes of an API request's body.
    pub max_body_bytes: usize,
    /// What everything held in memory is kept within.
    pub memory: Memory,
    /// Whether blocking hooks are asked.
    pub hooks: HookSwitch,
}

impl ServerConfig {
    /// What the settings say.
    ///
    /// # Errors
    /// They ask for what is not in this version, or name a file that cannot be read.
    pub fn from_settings(settings: &Settings) -> Outcome<ServerConfig> {
        settings.check_supported()?;
        Ok(ServerConfig {
            listen: settings.listen.value,
            data_dir: settings.data_dir.value.clone(),
            admin_key: settings.admin_key.value.clone(),
            master_key: settings.master_key.value.clone(),
            allow_nets: settings.allow_nets.value.clone(),
            extra_ca_pem: settings.extra_ca_pem()?,
            public_url: settings.public_url.value.clone(),
            max_body_bytes: settings.max_body_bytes.value,
            memory: settings.memory_mib.value,
            hooks: settings.hooks.value,
        })
    }
}

/// A server that listens and delivers. Requests are answered once it is [run](Server::run).
pub struct Server {
    listener: TcpListener,
    running: Running,
    store: Arc<SqliteStore>,
    addr: SocketAddr,
    local_url: String,
    url: String,
    admin_key: Secret,
    new_admin_key: Option<PathBuf>,
    bypass: Bypass,
}

/// The server's kill switch for blocking hooks: the setting, or, while it runs, a file that only the
/// machine's owner can make.
struct Bypass {
    setting: bool,
    file: PathBuf,
}

impl Bypass {
    fn apply(&self, engine: &Engine) {
        engine.bypass_hooks(self.setting || self.file.exists());
    }
}

impl Server {
    /// Opens the store, listens, and starts delivering what is owed.
    ///
    /// # Errors
    /// Says what is in the way and what to do about it.
    pub async fn start(config: ServerConfig) -> Result<Server> {
        Server::start_on(None, config).await
    }

    /// The same on a socket that is bound already, if there is one: so that nobody else takes the
    /// address between looking and binding.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_on(listener: Option<TcpListener>, config: ServerConfig) -> Result<Server> {
        use_all_descriptors();
        let Plan { store: store_options, limits, idle_connections } = config.memory.plan(config.max_body_bytes);
        let entropy = Arc::new(SystemEntropy);
        let clock = Arc::new(SystemClock);
        let policy = Arc::new(EgressPolicy::new(config.allow_nets));
        let transport = Client::new(ClientOptions {
            policy: Arc::clone(&policy),
            resolver: Arc::new(SystemResolver::new()),
            clock: clock.clone(),
            user_agent: HeaderValue::from_static(USER_AGENT),
            extra_ca_pem: config.extra_ca_pem,
        })
        .map_err(|error| Failure::usage(format!("setting extra_ca: {error}")))?
        .keeping(idle_connections);

        keyfiles::make_folder(&config.data_dir)?;
        // Before the database is there: a crash in between must not leave one without its key.
        let from_settings = config.master_key.is_some();
        let master_key = match config.master_key {
            Some(key) => key,
            None => keyfiles::master_key(&config.data_dir, &*entropy)?.key,
        };
        let store = open_store(config.data_dir.clone(), store_options).await?;
        let master_key = masterkey::settle(&config.data_dir, master_key, from_settings, &store).await?;
        let listener = match listener {
            Some(listener) => listener,
            None => TcpListener::bind(config.listen).await.map_err(|error| {
                anyhow!("cannot listen on {} ({error}); choose another address with --listen IP:port", config.listen)
            })?,
        };
        let addr = listener.local_addr().context("the bound address cannot be read")?;
        // Before anything is delivered: our own address is never a target. A wildcard stands for
        // every address of this machine there.
        policy.set_own_addrs(vec![addr]);
        // Once hardly anything can fail any more: a new key is shown this one time.
        let (admin_key, new_admin_key) = match config.admin_key {
            Some(key) => (key, None),
            None => {
                let kept = keyfiles::admin_key(&config.data_dir, &*entropy)?;
                (kept.key, kept.made.then(|| config.data_dir.join(keyfiles::ADMIN_KEY)))
            }
        };

        let local_url = format!("http://{}", reachable(addr));
        let url = config.public_url.unwrap_or_else(|| local_url.clone());
        let store = Arc::new(store);
        let parts = EngineParts {
            store: store.clone(),
            clock,
            entropy,
            transport: Arc::new(transport),
            policy,
            master_key,
            admin_key: admin_key.clone(),
            public_url: url.clone(),
            limits,
        };
        let running = Running::start(parts).await?;
        let bypass = Bypass { setting: config.hooks == HookSwitch::Bypass, file: config.data_dir.join(BYPASS_FILE) };
        bypass.apply(&running.engine());
        Ok(Server { listener, running, store, addr, local_url, url, admin_key, new_admin_key, bypass })
    }

    /// The bound address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where a client on this machine finds it; no `/` at its end.
    pub fn local_url(&self) -> &str {
        &self.local_url
    }

    /// What links begin with; no `/` at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The operations.
    pub fn engine(&self) -> Engine {
        self.running.engine()
    }

    /// The key with full rights.
    pub fn admin_key(&self) -> &Secret {
        &self.admin_key
    }

    /// The file of the admin key, if it was made just now: the one time it is to be shown.
    pub fn new_admin_key(&self) -> Option<&Path> {
        self.new_admin_key.as_deref()
    }

    /// Answers requests and delivers until `shutdown` completes. Then `/readyz` says 503 at once,
    /// nothing new is accepted, requests and attempts under way are finished and recorded, within
    /// 30 s in all; what is not finished by then goes out after the next start.
    ///
    /// # Errors
    /// A flush to disk failed, or deliveries have stopped for good: which only a new process can mend.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Server { listener, running, store, addr, url, bypass, .. } = self;
        tracing::info!(%addr, url, "listening");
        let began = OnceLock::new();
        let stopping = Notify::new();
        let shutdown = async {
            shutdown.await;
            tracing::info!("stopping: requests and attempts under way are finished");
            running.begin_drain();
            began.get_or_init(Instant::now);
            stopping.notify_one();
        };
        let requests_late = async {
            stopping.notified().await;
            tokio::time::sleep(STOP_REQUESTS).await;
        };
        let broken = async {
            // While stopping the lane ends first, and that is well.
            while running.delivering() || running.engine().draining() {
                tokio::time::sleep(WATCH).await;
                bypass.apply(&running.engine());
            }
        };
        let connections = running.engine().limits().connections;
        let serving = gatepost_api::serve(listener, gatepost_api::app(running.engine()), connections, shutdown);
        tokio::select! {
            served = serving => served.context("serving ended")?,
            () = requests_late => tracing::warn!("requests under way were cut off"),
            () = broken => bail!("the delivering thread ended (the log has the reason); start the server again"),
            // At once: nothing that is finished now could be recorded.
            error = store.flush_failed() => bail!(lost(&error)),
        }
        let left = STOP.saturating_sub(began.get().map_or(Duration::ZERO, Instant::elapsed));
        if running.stop(left).await {
            tracing::info!("stopped");
        } else {
            tracing::warn!("stopped; attempts that took too long are repeated after the next start");
        }
        // The store is closed: its last flush was made by that.
        match store.flush_failed().now_or_never() {
            Some(error) => bail!(lost(&error)),
            None => Ok(()),
        }
    }
}

/// Why the process ends when a flush failed.
fn lost(error: &str) -> String {
    format!(
        "a flush to disk failed ({error}), and what was written since the last one may be lost: the server ends. Look \
         after the disk and start the server again: it brings its log to disk anew"
    )
}

/// Takes as many file descriptors as the system grants: the usual soft limit of 1,024 is there for
/// programs that use `select`, and a server with many receivers would meet it.
fn use_all_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// An address a client on this machine can connect to: a wildcard is none.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Opens the store off the runtime: migrating may take a while.
async fn open_store(folder: PathBuf, options: Options) -> Result<SqliteStore> {
    let opening = tokio::task::spawn_blocking(move || SqliteStore::open(&folder, options));
    opening.await.context("opening the store")?.map_err(|error| match error {
        StoreError::Unavailable(reason) if reason.contains("in use") => {
            anyhow!("{reason}: stop the other server, or choose another folder with --data-dir")
        }
        StoreError::Unavailable(reason) => anyhow!("{reason}"),
        other => anyhow!(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_an_address_that_can_be_called() {
        let cases = [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("192.0.2.1:80", "192.0.2.1:80")];
        for (bound, shown) in cases {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), shown);
        }
    }
}
