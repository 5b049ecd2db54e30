//! # gatepost-bench: what `gatepost bench` measures
//!
//! How fast, how soon, how lean, how durable, on this machine. It starts a program's `serve` as a process
//! of its own on a throwaway folder, receivers that only count, and load from connections driven directly; everything stays on 127.0.0.1. Absolute
//! rates say little about a machine that others use too, so each round is measured next to the *raw
//! ceiling C* (the same bodies posted to the same kind of receiver by a plain client) and reported as
//! a share of it: medians of three.
//!
//! While it measures it checks: every accepted event must arrive everywhere it is owed; duplicates
//! are counted. What was lost is among the [`Report`]'s problems.
//!
//! Contract: what is measured is a [`Program`] seen from outside, by its flags, its HTTP API, its log and
//! `/proc`, so that another build can be measured as well. Nothing here knows the binary, which has the
//! command: it says which program, prints the report, and has the exit code. Two things are done from inside:
//! `past` fills a store that no server runs on, with the store's own code, and `load` and `asking` drive
//! connections themselves, to 127.0.0.1 alone, because a client of ours would be part of what it is compared with.
//!
//! To add a scenario: a variant of [`Scenario`], a method of `Run` in the file it belongs to
//! (`throughput`, `latency`, `upkeep`, `hooks`, `endpoints`, `retention`, `lists`, `wide`), and its line in `Run::play`.

mod answerer;
mod asking;
mod calls;
mod endpoints;
mod faraway;
mod hooks;
mod latency;
mod ledger;
mod lists;
mod load;
mod matching;
mod measure;
mod past;
mod process;
mod report;
mod retention;
mod sink;
mod stage;
mod throughput;
mod upkeep;
mod wide;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::measure::Stopwatch;
pub use self::process::Program;
pub use self::report::Report;
use self::throughput::Ceiling;

/// What to measure, and how much of it: the command's flags.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to measure [default: everything]
    #[arg(value_name = "NAME")]
    names: Vec<Scenario>,
    /// The same, as a list
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Longer runs, larger backlogs
    #[arg(long)]
    full: bool,
    /// Seconds of load in one measured run [default: 2, with --full 10; endpoints: 20, 300]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// At most so many events in one measured run of one-to-one, fan-out and batch, and calls of each of the
    /// lists
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=50_000_000))]
    count: Option<u64>,
    /// Rounds of each scenario, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: u8,
    /// Events of the backlog in drain and urgent
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    backlog: u64,
    /// Pending events in memory, each measured apart [default: 0,200000, with --full 0,200000,2000000]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=20_000_000))]
    pending: Vec<u64>,
    /// Old events in retention, and deliveries of the large store in lists [default: 300000 and 200000,
    /// with --full 1000000 and 10000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    rows: Option<u64>,
    /// Folder in which lists keeps its filled stores, to be used again by the next run
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Endpoints of the scenario endpoints [default: 1000, with --full 5000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    endpoints: Option<u64>,
    /// The endpoints of that scenario speak HTTP/2
    #[arg(long)]
    endpoints_http2: bool,
    /// Folder for the servers' data, on the disk to be measured [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Scenario {
    /// One event a request, 64 publishers, one webhook each
    OneToOne,
    /// One event, ten webhooks
    FanOut,
    /// A hundred events a request
    Batch,
    /// An accepted backlog, ten receivers
    Drain,
    /// End to end at 200 and 1,000 events a second
    Latency,
    /// A healthy tenant beside a slow receiver
    Noisy,
    /// Urgent events behind a bulk backlog
    Urgent,
    /// Memory, and the time to start, with pending events
    Memory,
    /// kill -9 under load
    Kill,
    /// What a blocking hook adds to its receiver's own time
    Hooks,
    /// Many TLS endpoints 100 ms away, some of them dead
    Endpoints,
    /// Publishing while old events are removed
    Retention,
    /// Every list of the API on a small and on a large store
    Lists,
    /// Very many webhooks in one tenant, very many tenants
    Matching,
    /// Another tenant's publishes beside one to 20,000 webhooks
    Wide,
}

/// How much there is to go through.
#[derive(Clone, Copy, Debug)]
struct Rows {
    /// Old events to remove.
    old: usize,
    /// Deliveries in the large store.
    deliveries: usize,
}

/// One run of the benchmark.
struct Run {
    watch: Stopwatch,
    program: Program,
    dir: Option<PathBuf>,
    /// Of load in one round.
    length: Duration,
    count: Option<usize>,
    rounds: usize,
    backlog: usize,
    pending: Vec<usize>,
    endpoints: endpoints::Plan,
    rows: Rows,
    matching: matching::Plan,
    keep: Option<PathBuf>,
    ceilings: Vec<Ceiling>,
    report: Report,
}

impl Options {
    /// Measures `program`. What could not be measured, and what was lost, is among the report's problems.
    pub async fn measure(self, program: Program) -> Report {
        let pending = match (self.pending.is_empty(), self.full) {
            (false, _) => self.pending.clone(),
            (true, true) => vec![0, 200_000, 2_000_000],
            (true, false) => vec![0, 200_000],
        };
        // All of these are bounded far below what a usize holds.
        let mut run = Run {
            watch: Stopwatch::start(),
            program,
            dir: self.dir,
            length: Duration::from_secs(self.seconds.unwrap_or(if self.full { 10 } else { 2 })),
            count: self.count.map(|count| count as usize),
            rounds: usize::from(self.rounds),
            backlog: self.backlog as usize,
            pending: pending.into_iter().map(|pending| pending as usize).collect(),
            endpoints: endpoints::Plan {
                count: self.endpoints.unwrap_or(if self.full { 5_000 } else { 1_000 }) as usize,
                length: Duration::from_secs(self.seconds.unwrap_or(if self.full { 300 } else { 20 })),
                http2: self.endpoints_http2,
            },
            rows: Rows {
                old: self.rows.unwrap_or(if self.full { 1_000_000 } else { 300_000 }) as usize,
                deliveries: self.rows.unwrap_or(if self.full { 10_000_000 } else { 200_000 }) as usize,
            },
            matching: matching::Plan {
                webhooks: if self.full { 100_000 } else { 10_000 },
                tenants: if self.full { 10_000 } else { 1_000 },
            },
            keep: self.keep,
            ceilings: Vec::new(),
            report: Report {
                version: env!("CARGO_PKG_VERSION"),
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                ..Report::default()
            },
        };
        let chosen: Vec<_> = self.names.iter().chain(&self.scenario).copied().collect();
        let scenarios = if chosen.is_empty() { Scenario::value_variants() } else { &chosen };
        for scenario in scenarios {
            let name = scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            if let Err(error) = run.play(*scenario).await {
                // The others are worth having all the same.
                run.report.problem(&name, format_args!("could not be measured: {error:#}"));
            }
        }
        run.report_ceilings();
        run.report
    }
}

impl Run {
    async fn play(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        match scenario {
            Scenario::OneToOne => self.one_to_one().await,
            Scenario::FanOut => self.fan_out().await,
            Scenario::Batch => self.batch().await,
            Scenario::Drain => self.drain().await,
            Scenario::Latency => self.latency().await,
            Scenario::Noisy => self.noisy().await,
            Scenario::Urgent => self.urgent().await,
            Scenario::Memory => self.memory().await,
            Scenario::Kill => self.kill().await,
            Scenario::Hooks => self.hooks().await,
            Scenario::Endpoints => self.endpoints().await,
            Scenario::Retention => self.retention().await,
            Scenario::Lists => self.lists().await,
            Scenario::Matching => self.matching().await,
            Scenario::Wide => self.wide().await,
        }
    }

    fn say(&self, what: impl std::fmt::Display) {
        note(what);
    }
}

/// Progress, beside the output.
fn note(what: impl std::fmt::Display) {
    // Nobody reading it is no reason to stop measuring.
    let _ = writeln!(std::io::stderr(), "{what}");
}
