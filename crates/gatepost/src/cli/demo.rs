//! `gatepost demo`

mod scene;
mod stage;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use clap::Args;
use tokio::sync::oneshot;

use super::Context;
use super::signals::Signals;
use tokio::net::TcpListener;

use crate::config::{Flags, Origin, Settings};
use crate::failure::{Failure, Outcome};
use crate::http_client::Api;
use crate::logging;
use crate::server::{Server, ServerConfig};

const EXAMPLES: &str = "\
Examples:
  gatepost demo
  gatepost demo --listen 127.0.0.1:0
  gatepost demo --once --json      (for scripts: leaves when everything was delivered; exit 1 if not)";

/// See everything at work
///
/// Starts a server on a throwaway data folder and a receiver, registers webhooks, publishes the sample
/// event of Cryptr's document and examples of the catalogue, prints every delivery as it lands with
/// its signature verified, shows a failing webhook being retried, and stays up to be played with.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// Address to listen on, IP:port; port 0 is any free one [env: GATEPOST_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// What to log, such as info or warn,gatepost_engine=debug [env: GATEPOST_LOG] [default: warn]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Leave once everything was delivered
    #[arg(long)]
    once: bool,
    /// Print one line of JSON per thing that happens
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let flags = Flags { listen: self.listen.clone(), log: self.log.clone(), ..Flags::default() };
        let settings = Settings::load(&flags, context.config.as_deref())?;
        let filter = match settings.log.origin {
            // The screen belongs to the deliveries.
            Origin::Default => "warn",
            _ => &settings.log.value,
        };
        logging::start(filter, settings.log_format.value)?;
        let mut signals = Signals::new()?;
        let folder = tempfile::Builder::new()
            .prefix("gatepost-demo-")
            .tempdir()
            .map_err(|error| Failure::failed(format!("no folder can be made for the demo: {error}")))?;
        let config = ServerConfig::from_settings(&settings)?;
        let server = start(config, &settings, folder.path()).await?;
        let api = Api::new(server.local_url(), server.admin_key(), None)?;
        let facts = scene::Facts {
            local_url: server.local_url().to_owned(),
            url: server.url().to_owned(),
            admin_key: server.admin_key().clone(),
            folder: folder.path().to_owned(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async {
            // Told to, or dropped: both mean stop.
            let _ = stopped.await;
        }));
        let played = tokio::select! {
            played = scene::play(&api, &facts, self.once, self.json) => played,
            () = signals.next() => Ok(()),
        };
        signals.exit_on_next();
        let _ = stop.send(());
        let stopped = match running.await {
            Ok(stopped) => stopped.map_err(Failure::from),
            Err(error) => Err(Failure::failed(format!("the server ended by itself: {error}"))),
        };
        if let Err(error) = folder.close() {
            let _ = writeln!(std::io::stderr(), "the demo's folder is left behind: {error}");
        }
        played.and(stopped)
    }
}

/// Starts the server on the throwaway folder, with fresh keys whatever the settings say: they are
/// about to be shown on the screen. When nobody asked for an address, any free one will do.
async fn start(config: ServerConfig, settings: &Settings, folder: &Path) -> Outcome<Server> {
    let mut allow_nets = config.allow_nets;
    for net in ["127.0.0.0/8", "::1/128"] {
        // Both are networks.
        allow_nets.extend(net.parse::<ipnet::IpNet>());
    }
    let config = ServerConfig { data_dir: folder.to_owned(), admin_key: None, master_key: None, allow_nets, ..config };
    let listener = match settings.listen.origin {
        Origin::Default => bound(config.listen).await,
        _ => None,
    };
    Ok(Server::start_on(listener, config).await?)
}

/// A socket on the default address, or on any free port when somebody else has it; nothing where
/// even that fails, for the server to say why.
async fn bound(addr: SocketAddr) -> Option<TcpListener> {
    match TcpListener::bind(addr).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let _ = writeln!(std::io::stderr(), "note: {addr} is taken; the demo listens on another port");
            TcpListener::bind(SocketAddr::new(addr.ip(), 0)).await.ok()
        }
        bound => bound.ok(),
    }
}
