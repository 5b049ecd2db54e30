//! `gatepost bench`: measure this machine.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use gatepost_bench::{Options, Program, Report};

use crate::failure::{Failure, Outcome};
use crate::{memory, text};

const EXAMPLES: &str = "\
Examples:
  gatepost bench                                    every scenario, short (a few minutes)
  gatepost bench --full --json > bench.json         longer runs and larger backlogs
  gatepost bench --scenario drain,fan-out           only these
  gatepost bench hooks                              what blocking hooks add
  gatepost bench --scenario memory --pending 0,2000000 --dir /mnt/disk

Everything runs on this machine and is gone afterwards. C is what a plain HTTP client and receiver do
without a server in between, measured before and after each round; ratios to it can be compared between
machines, rates cannot. docs/performance.md explains the method.";

/// Measure this machine: rates as shares of the raw ceiling, latencies, memory, crashes
///
/// Starts servers of its own on throwaway folders; nothing of yours is touched.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    #[command(flatten)]
    options: Options,
    /// The servers' memory_mib [default: their own]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(i64::from(*memory::MIB.start())..=i64::from(*memory::MIB.end())))]
    memory_mib: Option<u32>,
    /// The program to measure [default: this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Measures and prints.
    ///
    /// # Errors
    /// Something could not be measured, or an accepted event was lost.
    pub(super) async fn run(self) -> Outcome {
        if cfg!(debug_assertions) && self.program.is_none() {
            // Nobody reading it is no reason not to measure.
            let _ = writeln!(std::io::stderr(), "this is a debug build: the figures mean nothing");
        }
        let path = match self.program {
            Some(program) => std::path::absolute(program)?,
            None => std::env::current_exe()
                .map_err(|error| Failure::failed(format!("this program cannot be found: {error}")))?,
        };
        let report = self.options.measure(Program { path, memory_mib: self.memory_mib }).await;
        let mut out = std::io::stdout().lock();
        if self.json {
            let json = serde_json::to_string_pretty(&report)
                .map_err(|error| Failure::failed(format!("the report cannot be written: {error}")))?;
            writeln!(out, "{json}")?;
        } else {
            writeln!(out, "{}", shown(&report))?;
        }
        match report.problems().len() {
            0 => Ok(()),
            problems => Err(Failure::failed(format!("{} while measuring", text::count(problems as u64, "problem")))),
        }
    }
}

/// For people.
fn shown(report: &Report) -> String {
    let mut out = text::table(Report::HEADER, report.rows());
    for line in report.remarks() {
        out.push('\n');
        out.push_str(&line);
    }
    out
}
