//! `gatepost listen`

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use gatepost_core::hooks::codec::{HookKeys, KeyScheme};
use gatepost_core::webhook::SigningKey;
use gatepost_core::{Clock, secret::Secret};
use gatepost_engine::SystemClock;
use http::StatusCode;

use super::print;
use super::signals::Signals;
use crate::answers::{Mode, SLOW, challenge, decision};
use crate::dialects;
use crate::failure::{Failure, Outcome};
use crate::receiver::{Received, Receiver, Reply};

const EXAMPLES: &str = "\
Examples:
  gatepost listen
  gatepost listen --addr 127.0.0.1:9000 --secret whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD
  gatepost listen --status 503 --delay-ms 2000       (to see how failures look)
  gatepost listen --mode deny                        (a blocking hook's receiver that refuses)
  gatepost listen --json --count 1                   (for scripts: one request, one line, done)";

/// Receive webhooks, print and verify them
///
/// A receiver for people. It answers every event 204 and every blocking hook yes unless told to misbehave,
/// and answers challenges of endpoint verification.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// Address to listen on; port 0 is any free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9000")]
    addr: SocketAddr,
    /// The webhook's secret (whsec_… or a text, of any signing scheme): verify every request with it
    #[arg(long, env = "GATEPOST_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Answer every request with this status
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Option<u16>,
    /// Wait before answering
    #[arg(long, value_name = "MS")]
    delay_ms: Option<u64>,
    /// How blocking hooks are answered
    #[arg(long, value_enum, default_value = "allow", conflicts_with = "status")]
    mode: Mode,
    /// Stop after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one line of JSON per request
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) async fn run(self) -> Outcome {
        let secret = self.secret.map(Secret::new);
        if let Some(secret) = &secret {
            check_secret(secret)?;
        }
        let behaviour = Behaviour {
            // The range of the flag is the range of statuses.
            status: self.status.and_then(|status| StatusCode::from_u16(status).ok()),
            delay: self.delay_ms.map(Duration::from_millis),
            mode: self.mode,
            keys: secret.as_ref().and_then(hook_keys),
        };
        let patience = behaviour.delay.unwrap_or(SLOW);
        let mut signals = Signals::new()?;
        let mut receiver = Receiver::start(self.addr, Arc::new(move |received| behaviour.answer(received))).await?;
        let welcome = format!("listening on http://{} (Ctrl-C stops)", receiver.addr());
        if self.json {
            // stdout has requests and nothing else.
            let _ = writeln!(std::io::stderr(), "{welcome}");
        } else {
            print(&welcome)?;
        }
        let mut left = self.count;
        while left != Some(0) {
            let received = tokio::select! {
                received = receiver.next() => received,
                () = signals.next() => break,
            };
            let Some(received) = received else { break };
            let verdict = secret.as_ref().map(|secret| received.verify(secret.expose()));
            if self.json {
                print(&received.to_json(verdict.as_ref()))?;
            } else {
                print(&format!("\n{}", received.to_text(verdict.as_ref())))?;
            }
            left = left.map(|left| left - 1);
        }
        receiver.stop(patience).await;
        Ok(())
    }
}

/// How requests are answered.
struct Behaviour {
    status: Option<StatusCode>,
    delay: Option<Duration>,
    mode: Mode,
    keys: Option<HookKeys>,
}

impl Behaviour {
    fn answer(&self, received: &Received) -> Reply {
        let reply = match self.status {
            Some(status) => Reply::status(status),
            None => challenge(received)
                .or_else(|| decision(self.mode, received, self.keys.as_ref()))
                .unwrap_or_else(|| Reply::status(StatusCode::NO_CONTENT)),
        };
        match self.delay {
            Some(delay) => reply.after(delay),
            None => reply,
        }
    }
}

/// The key answers to blocking hooks are signed with.
fn hook_keys(secret: &Secret) -> Option<HookKeys> {
    let key = SigningKey { text: secret.clone(), created_at: SystemClock.now(), expires_at: None };
    HookKeys::new(KeyScheme::Standard, &[key]).ok()
}

/// A secret that can verify nothing is better told now than with every request.
fn check_secret(secret: &Secret) -> Outcome {
    dialects::check_secret(secret.expose()).map_err(|reason| Failure::usage(format!("--secret {reason}")))
}
