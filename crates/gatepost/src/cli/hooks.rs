//! `gatepost hooks`

use std::collections::BTreeMap;

use bytes::Bytes;
use clap::{Args, Subcommand};
use gatepost_core::{Clock as _, HookId, InvocationId, TenantId};
use gatepost_engine::SystemClock;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::when::{When, when};
use super::{Context, print, print_array, read_whole};
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, Connection, encoded, read};
use crate::text::{count, indented, printable, shifted, table};

const EXAMPLES: &str = "\
Examples:
  gatepost hooks list --tenant acme
  gatepost hooks try hook_06f… --tenant acme
  gatepost hooks try hook_06f… --tenant acme --sample
  gatepost hooks try hook_06f… --tenant acme --invocation question.json
  gatepost hooks observe-report --tenant acme --since 24h";

/// Invocations looked at when nobody says otherwise.
const REPORT_MAX: usize = 10_000;

/// Look at blocking hooks, try them, and see what those on trial would have done
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Args, Debug)]
struct Common {
    /// Whose hooks
    #[arg(long)]
    tenant: TenantId,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List a tenant's hooks
    #[command(after_help = EXAMPLES)]
    List {
        /// Those of one point
        #[arg(long)]
        point: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Test a hook's receiver; with a question, ask it that too, as a dry run
    #[command(after_help = EXAMPLES)]
    Try {
        /// The hook's id
        hook: HookId,
        /// Ask the point's sample
        #[arg(long, group = "question")]
        sample: bool,
        /// Ask this: a file with JSON, or - for stdin
        #[arg(long, value_name = "FILE", group = "question")]
        invocation: Option<String>,
        /// Ask what was asked before, as far as it is kept
        #[arg(long, value_name = "ID", group = "question")]
        invocation_id: Option<InvocationId>,
        #[command(flatten)]
        common: Common,
    },
    /// What hooks on trial (mode observe) would have done, from the records of invocations
    #[command(after_help = EXAMPLES)]
    ObserveReport {
        /// Invocations of one point or operation
        #[arg(long)]
        point: Option<String>,
        /// Invocations asked from then on: a time, or how long ago (90s, 30m, 24h, 7d)
        #[arg(long, value_name = "TIME|AGO", value_parser = when)]
        since: Option<When>,
        /// Invocations looked at, the newest first
        #[arg(long, value_name = "COUNT", default_value_t = REPORT_MAX)]
        limit: usize,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Deserialize)]
struct Hook {
    id: String,
    name: String,
    point: String,
    mode: String,
    enabled: bool,
    verified: bool,
    circuit: String,
    counters: Counters,
}

#[derive(Deserialize)]
struct Counters {
    asked: u64,
    denied: u64,
    failed: u64,
    observed: u64,
    would_deny: u64,
}

#[derive(Deserialize)]
struct Tried {
    passed: bool,
    verified: bool,
    test: Test,
    request: Value,
    response: Option<Value>,
    asked: Option<Value>,
}

#[derive(Deserialize)]
struct Test {
    status: Option<u16>,
    duration_ms: u64,
    failure: Option<String>,
    error: Option<String>,
    warning: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Invocation>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Invocation {
    trials: Vec<Trial>,
}

#[derive(Deserialize)]
struct Trial {
    hook: String,
    would: String,
    result: TrialRow,
}

#[derive(Deserialize)]
struct TrialRow {
    name: String,
    failure: Option<String>,
}

/// What one hook on trial would have done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
struct Report {
    hook: String,
    name: String,
    asked: u64,
    allow: u64,
    deny: u64,
    change: u64,
    value: u64,
    /// Failures whose policy would have refused.
    fail_closed: u64,
    /// Failures whose policy would have let it pass.
    fail_open: u64,
    failures: BTreeMap<String, u64>,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let config = context.config.as_deref();
        match self.action {
            Action::List { point, common } => list(&Api::connect(&common.connection, config)?, &common, point).await,
            Action::Try { hook, sample, invocation, invocation_id, common } => {
                let mut body = json!({});
                if sample {
                    body["sample"] = true.into();
                }
                if let Some(file) = invocation {
                    let text = read_whole(&file)?;
                    body["invocation"] = serde_json::from_str(&text).map_err(|error| {
                        Failure::failed(format!("{} is not JSON: {error}", super::input::shown_name(&file)))
                    })?;
                }
                if let Some(id) = invocation_id {
                    body["invocation_id"] = json!(id);
                }
                try_hook(&Api::connect(&common.connection, config)?, &common, hook, body).await
            }
            Action::ObserveReport { point, since, limit, common } => {
                report(&Api::connect(&common.connection, config)?, &common, point, since, limit).await
            }
        }
    }
}

async fn list(api: &Api, common: &Common, point: Option<String>) -> Outcome {
    let query = point.map(|point| format!("?point={}", encoded(&point))).unwrap_or_default();
    let rows = api.all(&format!("/v1/tenants/{}/hooks{query}", common.tenant)).await?;
    if common.json {
        return print_array(&rows);
    }
    let hooks = rows.iter().map(|row| read::<Hook>(row.get().as_bytes())).collect::<Outcome<Vec<_>>>()?;
    let heads = ["id", "name", "point", "mode", "verified", "circuit", "asked", "denied", "failed", "would deny"];
    print(&table(
        heads,
        hooks.into_iter().map(|hook| {
            let mode = if hook.enabled { hook.mode } else { format!("{} (disabled)", hook.mode) };
            let verified = if hook.verified { "yes" } else { "no" }.to_owned();
            let Counters { asked, denied, failed, observed, would_deny } = hook.counters;
            let would = if observed > 0 { format!("{would_deny} of {observed}") } else { String::new() };
            let numbers = [asked, denied, failed].map(|n| n.to_string());
            let [asked, denied, failed] = numbers;
            [hook.id, hook.name, hook.point, mode, verified, hook.circuit, asked, denied, failed, would]
        }),
    ))
}

async fn try_hook(api: &Api, common: &Common, hook: HookId, body: Value) -> Outcome {
    let path = format!("/v1/tenants/{}/hooks/{hook}/try", common.tenant);
    let answer = api.call(Method::POST, &path, Some(Bytes::from(body.to_string()))).await?;
    let tried: Tried = read(&answer)?;
    if common.json {
        print(&String::from_utf8_lossy(&answer))?;
    } else {
        print(&tried.to_text())?;
    }
    // What is asked in a script is whether it passed.
    if tried.passed { Ok(()) } else { Err(Failure::failed("the hook's receiver did not pass the test")) }
}

impl Tried {
    fn to_text(&self) -> String {
        let status = self.test.status.map(|status| format!("status {status}, ")).unwrap_or_default();
        let verdict = if self.passed { "passed" } else { "failed" };
        let verified = if self.verified { "the hook is verified" } else { "the hook is not verified" };
        let mut text = format!("test {verdict} ({status}{} ms); {verified}\n", self.test.duration_ms);
        for (title, line) in
            [("failure", &self.test.failure), ("error", &self.test.error), ("warning", &self.test.warning)]
        {
            if let Some(line) = line {
                text += &format!("  {title}: {line}\n");
            }
        }
        let show =
            |title: &str, value: &Value| format!("  {title}:\n{}", shifted(&indented(&value.to_string()), "    "));
        text += &show("request", &self.request);
        if let Some(response) = self.response.as_ref().filter(|response| !response.is_null()) {
            text += &show("response", response);
        }
        if let Some(asked) = self.asked.as_ref().filter(|asked| !asked.is_null()) {
            text += &show("asked", asked);
        }
        printable(&text)
    }
}

async fn report(api: &Api, common: &Common, point: Option<String>, since: Option<When>, limit: usize) -> Outcome {
    let mut query = String::from("?limit=250");
    if let Some(point) = &point {
        query += &format!("&point={}", encoded(point));
    }
    if let Some(since) = since {
        query += &format!("&since={}", encoded(&since.at(SystemClock.now()).to_string()));
    }
    let mut reports = BTreeMap::<String, Report>::new();
    let (mut seen, mut cursor) = (0, None::<String>);
    while seen < limit {
        let more = cursor.as_ref().map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
        let path = format!("/v1/tenants/{}/invocations{query}{more}", common.tenant);
        let page: Page = read(&api.call(Method::GET, &path, None).await?)?;
        seen += page.data.len();
        page.data.into_iter().flat_map(|row| row.trials).for_each(|trial| add(&mut reports, trial));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let reports: Vec<Report> = reports.into_values().collect();
    if common.json {
        return print(&json!({"invocations": seen, "hooks": reports}).to_string());
    }
    print(&format!("{}; what hooks on trial would have done:", count_of(seen)))?;
    let heads = ["hook", "name", "asked", "allow", "deny", "change", "value", "fail closed", "fail open", "failures"];
    print(&table(
        heads,
        reports.into_iter().map(|report| {
            let failures: Vec<_> = report.failures.iter().map(|(class, n)| format!("{class} {n}")).collect();
            let Report { hook, name, asked, allow, deny, change, value, fail_closed, fail_open, .. } = report;
            let [asked, allow, deny, change, value, closed, open] =
                [asked, allow, deny, change, value, fail_closed, fail_open].map(|n| n.to_string());
            [hook, name, asked, allow, deny, change, value, closed, open, failures.join(", ")]
        }),
    ))
}

fn count_of(seen: usize) -> String {
    count(u64::try_from(seen).unwrap_or(u64::MAX), "invocation")
}

fn add(reports: &mut BTreeMap<String, Report>, trial: Trial) {
    let report = reports.entry(trial.hook.clone()).or_default();
    report.hook = trial.hook;
    report.name = trial.result.name;
    report.asked += 1;
    match trial.would.as_str() {
        "allow" => report.allow += 1,
        "deny" => report.deny += 1,
        "change" => report.change += 1,
        "value" => report.value += 1,
        "fail_closed" => report.fail_closed += 1,
        _ => report.fail_open += 1,
    }
    if let Some(class) = trial.result.failure {
        *report.failures.entry(class).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_are_added_up_by_hook() {
        let trial = |hook: &str, would: &str, failure: Option<&str>| Trial {
            hook: hook.to_owned(),
            would: would.to_owned(),
            result: TrialRow { name: format!("name of {hook}"), failure: failure.map(str::to_owned) },
        };
        let mut reports = BTreeMap::new();
        for (hook, would, failure) in [
            ("a", "allow", None),
            ("a", "deny", None),
            ("a", "fail_open", Some("timeout")),
            ("a", "fail_closed", Some("timeout")),
            ("b", "change", None),
        ] {
            add(&mut reports, trial(hook, would, failure));
        }
        let a = &reports["a"];
        assert_eq!((a.asked, a.allow, a.deny, a.fail_open, a.fail_closed), (4, 1, 1, 1, 1));
        assert_eq!(a.failures["timeout"], 2);
        assert_eq!((reports["b"].change, reports["b"].name.as_str()), (1, "name of b"));
    }
}
