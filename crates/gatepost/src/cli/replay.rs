//! `gatepost replay`

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use clap::builder::PossibleValuesParser;
use gatepost_core::{Clock as _, TenantId};
use gatepost_engine::SystemClock;
use gatepost_engine::store::ReplayScope;
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;

use super::when::{When, when};
use super::{Context, print};
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, Connection, encoded, read};
use crate::text::{count, printable};

const EXAMPLES: &str = "\
Examples:
  gatepost replay --tenant acme --webhook wh_… --since 24h
  gatepost replay --tenant acme --webhook wh_… --since 7d --scope missed --wait
  gatepost replay --tenant acme --webhook wh_… --since 7d --scope missed --dry-run
  gatepost replay --tenant acme --webhook wh_… --since 2026-03-01T00:00:00Z --until 2026-03-02T00:00:00Z --scope all

Scopes:
  failed   what failed, or was cancelled by a 410, and was not delivered since
  missed   what matches the webhook now and has no delivery to it
  all      everything that matches the webhook now

Each event becomes a new delivery with a fresh budget, under the same event id.";

/// Between two looks at how far the job is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Deliver again what failed, or after all what was missed
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// Whose webhook
    #[arg(long)]
    tenant: TenantId,
    /// To which webhook
    #[arg(long, value_name = "ID")]
    webhook: String,
    /// Events accepted from then on: a time, or how long ago (90s, 30m, 24h, 7d)
    #[arg(long, value_name = "TIME|AGO", value_parser = when)]
    since: When,
    /// Events accepted before then; without it: up to now
    #[arg(long, value_name = "TIME|AGO", value_parser = when)]
    until: Option<When>,
    /// Which of them
    #[arg(long, default_value = "failed", value_parser = scopes())]
    scope: String,
    /// Only count the events; nothing is made
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait until the job has ended
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

fn scopes() -> PossibleValuesParser {
    ReplayScope::ALL.map(ReplayScope::as_str).into()
}

#[derive(Deserialize)]
struct Begun {
    job_id: String,
}

#[derive(Deserialize)]
struct Counted {
    count: u64,
}

#[derive(Deserialize)]
struct Job {
    state: String,
    total: u64,
    done: u64,
    error: Option<String>,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let api = Api::connect(&self.connection, context.config.as_deref())?;
        let now = SystemClock.now();
        let mut body = json!({ "since": self.since.at(now).to_string(), "scope": self.scope });
        if let Some(until) = self.until {
            body["until"] = until.at(now).to_string().into();
        }
        if self.dry_run {
            body["dry_run"] = true.into();
        }
        let tenant = format!("/v1/tenants/{}", self.tenant);
        let path = format!("{tenant}/webhooks/{}/replay", encoded(&self.webhook));
        let answer = api.call(Method::POST, &path, Some(Bytes::from(body.to_string()))).await?;
        if self.dry_run {
            let Counted { count: events } = read(&answer)?;
            return match self.json {
                true => print(&String::from_utf8_lossy(&answer)),
                false => print(&format!("it would be {}", count(events, "event"))),
            };
        }
        let Begun { job_id } = read(&answer)?;
        if !self.wait {
            return match self.json {
                true => print(&String::from_utf8_lossy(&answer)),
                false => print(&format!("begun: {job_id}")),
            };
        }
        let (job, answer) = wait(&api, &format!("{tenant}/jobs/{}", encoded(&job_id))).await?;
        if self.json {
            print(&String::from_utf8_lossy(&answer))?;
        } else {
            print(&format!("{job_id} {}: {} of {}", job.state, job.done, count(job.total, "event")))?;
        }
        match job.error {
            Some(error) => Err(Failure::failed(format!("the job failed: {}", printable(&error)))),
            None => Ok(()),
        }
    }
}

/// Looks until the job has ended.
async fn wait(api: &Api, path: &str) -> Outcome<(Job, Bytes)> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    loop {
        let answer = api.call(Method::GET, path, None).await?;
        let job: Job = read(&answer)?;
        bar.set_length(job.total);
        bar.set_position(job.done);
        bar.set_message(printable(&job.state));
        if matches!(job.state.as_str(), "done" | "failed") {
            bar.finish_and_clear();
            return Ok((job, answer));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
