//! `gatepost serve`

use std::io::IsTerminal as _;

use clap::Args;

use super::signals::Signals;
use super::{Context, print};
use crate::config::{Flags, Settings};
use crate::failure::Outcome;
use crate::logging;
use crate::server::{Server, ServerConfig};

const EXAMPLES: &str = "\
Examples:
  gatepost serve
  gatepost serve --listen 0.0.0.0:8080 --data-dir /var/lib/gatepost
  gatepost serve --allow-nets 127.0.0.0/8        (webhooks on this machine, http too)

At its first start it makes the data folder with two keys, admin.key and
master.key, and shows the admin key once on a terminal. Keep master.key: without it the
secrets in the folder cannot be opened.
SIGTERM or Ctrl-C stops it in order (30 s at most), a second one at once.";

/// Run the server
///
/// One process, one data folder, no other service.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    #[command(flatten)]
    settings: Flags,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let settings = Settings::load(&self.settings, context.config.as_deref())?;
        let config = ServerConfig::from_settings(&settings)?;
        logging::start(&settings.log.value, settings.log_format.value)?;
        #[cfg(feature = "otel")]
        let recording = crate::otel::start(config.extra_ca_pem.clone())?;
        #[cfg(not(feature = "otel"))]
        if let Some((name, _)) = logging::collector() {
            tracing::warn!("{name} is set, but this build sends no spans: build it with the feature otel");
        }
        for told in Settings::unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
            tracing::warn!("{told}");
        }
        let mut signals = Signals::new()?;
        let server = tokio::select! {
            server = Server::start(config) => server?,
            () = signals.next() => return Ok(()),
        };
        if let Some(path) = server.new_admin_key() {
            // To a person's screen, never through the log nor into what keeps the output of services (P7). That
            // nobody reads it is no reason not to serve: the file has it.
            let told = match std::io::stdout().is_terminal() {
                true => {
                    format!("admin key: {}\n(shown this once; kept in {})", server.admin_key().expose(), path.display())
                }
                false => format!("admin key: made, in {}", path.display()),
            };
            let _ = print(&told);
        }
        let ran = server.run(signals.next_then_exit()).await;
        #[cfg(feature = "otel")]
        if let Some(recording) = recording {
            recording.stop().await;
        }
        Ok(ran?)
    }
}
