//! Running the binary's commands to their end.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{ADMIN_KEY, GATEPOST, Server};

/// Our binary with no setting of the surroundings, in `folder`.
pub(crate) fn command(folder: &Path, wrapper: &[String]) -> Command {
    let mut command = match wrapper.split_first() {
        Some((program, args)) => {
            let mut command = Command::new(program);
            command.args(args).arg(GATEPOST);
            command
        }
        None => Command::new(GATEPOST),
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GATEPOST_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

/// Sends a signal to a process of ours.
pub(crate) fn signal(pid: u32, name: &str) {
    // The shell's own: a `kill` program is not everywhere.
    let status = Command::new("sh").args(["-c", &format!("kill -s {name} {pid}")]).status();
    assert!(status.expect("there is a shell").success(), "kill -s {name} {pid}");
}

/// What a command did.
pub(crate) struct Ran {
    /// Its exit code; nothing when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it complained of.
    pub(crate) stderr: String,
}

impl Ran {
    /// The same, if it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.stdout))
    }
}

/// Runs one of the other commands to its end, in `folder`.
pub(crate) fn run(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = command(folder, &[]);
    command.args(args).envs(env.iter().copied());
    let output = command.output().expect("the binary can be run");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs one of the other commands against a server, with its admin key.
pub(crate) fn run_against(server: &Server, args: &[&str]) -> Ran {
    run(server.folder(), args, &[("GATEPOST_URL", &server.url()), ("GATEPOST_KEY", ADMIN_KEY)])
}
