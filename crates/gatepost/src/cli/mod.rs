//! The command line: one file per command.

mod apply;
mod backup;
mod bench;
mod config;
mod demo;
mod event_types;
mod export;
mod hooks;
mod input;
mod keys;
mod listen;
mod publish;
mod replay;
mod restore;
mod rotate_master;
mod serve;
mod signals;
mod trigger;
mod when;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::{Failure, Outcome};

/// The webhook server for identity platforms.
///
/// Publish events, and every webhook subscribed to them receives them: signed, durably, with
/// retries, visibly.
#[derive(Parser, Debug)]
#[command(name = "gatepost", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    /// Settings file [default: gatepost.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gatepost demo                               see everything at work, on a throwaway folder
  gatepost serve                              run the server
  gatepost listen --secret whsec_…            receive webhooks and verify them
  gatepost trigger user.created --tenant acme publish the catalogue's example

Exit codes: 0 done, 1 failed, 2 wrong usage or settings; 3: \"apply --plan\" would change something.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the server
    Serve(serve::Command),
    /// See everything at work: a server on a throwaway folder, a receiver, webhooks, events
    Demo(demo::Command),
    /// Receive webhooks, print and verify them
    Listen(listen::Command),
    /// Publish events from a file
    Publish(publish::Command),
    /// Publish the catalogue's example of an event type
    Trigger(trigger::Command),
    /// Deliver again what failed, or after all what was missed
    Replay(replay::Command),
    /// Manage API keys
    Keys(keys::Command),
    /// Look at blocking hooks and try them
    Hooks(hooks::Command),
    /// Manage the catalogue of event types
    EventTypes(event_types::Command),
    /// Make a tenant's setup as a file says
    Apply(apply::Command),
    /// Print a tenant's setup as a file
    Export(export::Command),
    /// Copy the embedded store to a file, while the server runs or not
    Backup(backup::Command),
    /// Make a data folder from a backup
    Restore(restore::Command),
    /// Look at the settings
    Config(config::Command),
    /// Measure this machine
    Bench(bench::Command),
}

/// What every command gets.
struct Context {
    /// The settings file of `--config`.
    config: Option<PathBuf>,
}

/// The whole program: 0 done, 1 failed, 2 wrong usage or settings (DESIGN 3.1), 3 a plan with changes.
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// Runs one command line (its first word is the program's name) and answers the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Also of a line that cannot be read: whoever asks for JSON reads nothing else.
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if json && error.use_stderr() => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned();
            let _ = writeln!(std::io::stderr(), "{}", Failure::usage(text).to_json());
            return 2;
        }
        Err(error) => {
            // Help that nobody reads any more is no failure.
            let _ = error.print();
            return u8::from(error.use_stderr()) * 2;
        }
    };
    match dispatch(cli) {
        Ok(()) => 0,
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                let line = if json { failure.to_json() } else { format!("error: {text}") };
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            failure.code()
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let context = Context { config: cli.config };
    let many = matches!(cli.command, Command::Serve(_) | Command::Demo(_));
    let runtime = if many { server_runtime() } else { client_runtime() };
    let runtime = runtime.map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(command) => command.run(&context).await,
            Command::Demo(command) => command.run(&context).await,
            Command::Listen(command) => command.run().await,
            Command::Publish(command) => command.run(&context).await,
            Command::Trigger(command) => command.run(&context).await,
            Command::Replay(command) => command.run(&context).await,
            Command::Keys(command) => command.run(&context).await,
            Command::Hooks(command) => command.run(&context).await,
            Command::EventTypes(command) => command.run(&context).await,
            Command::Apply(command) => command.run(&context).await,
            Command::Export(command) => command.run(&context).await,
            Command::Backup(command) => command.run(&context).await,
            Command::Restore(command) => command.run(&context).await,
            Command::Config(command) => command.run(&context),
            Command::Bench(command) => command.run().await,
        }
    });
    // A read of stdin that never comes back must not hold the process.
    runtime.shutdown_background();
    outcome
}

/// The API gets half the cores: the other half is for deliveries and the store, which have threads
/// of their own.
fn server_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).max(1))
        .thread_name("gatepost-api")
        .enable_all()
        .build()
}

fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Prints a line to stdout; a closed pipe ends the command quietly enough.
fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    out.flush()?;
    Ok(())
}

/// Prints rows as the server wrote them, as one JSON array.
fn print_array(rows: &[Box<serde_json::value::RawValue>]) -> Outcome {
    let rows: Vec<&str> = rows.iter().map(|row| row.get()).collect();
    print(&format!("[{}]", rows.join(",\n ")))
}

/// Reads a file, or stdin for `-`.
fn read_whole(path: &str) -> Outcome<String> {
    let read = if path == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let text = read.map_err(|error| Failure::failed(format!("{} cannot be read: {error}", input::shown_name(path))))?;
    Ok(input::without_bom(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("gatepost "), "{path} has no example");
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            &["gatepost"][..],
            &["gatepost", "frob"],
            &["gatepost", "listen", "--status", "99"],
            &["gatepost", "listen", "--secret", "whsec_nonsense!"],
            &["gatepost", "serve", "--listen", "nowhere"],
            &["gatepost", "publish", "x.json", "--tenant", "Not A Tenant"],
            &["gatepost", "config", "show", "--config", "/there/is/no/such/file"],
        ] {
            assert_eq!(run(line.iter().map(OsString::from)), 2, "{line:?}");
        }
        assert_eq!(run(["gatepost", "--version"].map(OsString::from)), 0);
    }
}
