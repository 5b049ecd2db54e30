//! `gatepost listen`

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use gatepost_core::signing::{self, TOLERANCE, VerifyError};
use gatepost_core::{Clock, secret::Secret};
use gatepost_engine::SystemClock;
use http::StatusCode;

use super::print;
use super::signals::Signals;
use crate::failure::{Failure, Outcome};
use crate::receiver::Receiver;

const EXAMPLES: &str = "\
Examples:
  gatepost listen
  gatepost listen --addr 127.0.0.1:9000 --secret whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD
  gatepost listen --status 503 --delay-ms 2000       (to see how failures look)
  gatepost listen --json --count 1                   (for scripts: one request, one line, done)";

/// Receive webhooks, print and verify them
///
/// A receiver for people. It answers every request 204 unless told to misbehave.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// Address to listen on; port 0 is any free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9000")]
    addr: SocketAddr,
    /// The webhook's signing secret (whsec_…): verify every request with it
    #[arg(long, env = "GATEPOST_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Answer every request with this status
    #[arg(long, value_name = "STATUS", default_value_t = 204, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Wait before answering
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay_ms: u64,
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
        // The range of the flag is the range of statuses.
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::NO_CONTENT);
        let delay = Duration::from_millis(self.delay_ms);
        let mut signals = Signals::new()?;
        let mut receiver = Receiver::start(self.addr, Arc::new(move |_| (status, delay))).await?;
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
        receiver.stop(delay).await;
        Ok(())
    }
}

/// A secret that can verify nothing is better told now than with every request.
fn check_secret(secret: &Secret) -> Outcome {
    match signing::verify(&[secret.expose()], |_| None, b"", SystemClock.now(), TOLERANCE) {
        Err(VerifyError::BadSecret(reason)) => Err(Failure::usage(format!("--secret {reason}"))),
        _ => Ok(()),
    }
}
