//! The server under test: a real process of the same program, on a folder of its own.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use gatepost_core::secret::Secret;
use http::{HeaderValue, Method};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::calls::{Api, CallError};

/// The file in its data folder in which a server keeps the key it made.
const ADMIN_KEY: &str = "admin.key";
/// How long a start may take, whatever is owed.
const START: Duration = Duration::from_secs(120);
/// Log lines kept to explain a failure.
const LOG_LINES: usize = 20;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// Its `memory_mib`; none: its own default.
    pub memory_mib: Option<u32>,
}

/// A running server.
pub(super) struct ServerProcess {
    child: Child,
    addr: SocketAddr,
    api: Api,
    log: Arc<Mutex<Log>>,
    /// From starting the process to the first good answer of `/readyz`.
    pub(super) ready_after: Duration,
}

#[derive(Default)]
struct Log {
    last: VecDeque<String>,
    errors: u64,
}

impl ServerProcess {
    /// Starts `program serve` on `folder` and waits until it is ready. Port 0 of `listen` is any.
    ///
    /// # Errors
    /// It did not become ready; with the end of its log.
    pub(super) async fn start(program: &Program, folder: &Path, listen: SocketAddr) -> Result<ServerProcess> {
        ServerProcess::start_with(program, folder, listen, &[]).await
    }

    /// The same with more settings on its command line.
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub(super) async fn start_with(
        program: &Program,
        folder: &Path,
        listen: SocketAddr,
        settings: &[&str],
    ) -> Result<ServerProcess> {
        std::fs::create_dir_all(folder)?;
        let mut command = Command::new(&program.path);
        command.args(["serve", "--listen", &listen.to_string(), "--allow-nets", "127.0.0.0/8", "--log-format", "json"]);
        command.args(["--log", "info", "--data-dir", "."]).args(settings);
        if let Some(mib) = program.memory_mib {
            command.args(["--memory-mib", &mib.to_string()]);
        }
        // Neither the caller's settings nor a gatepost.toml nearby change what is measured.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GATEPOST_") {
                command.env_remove(name);
            }
        }
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", program.path.display()))?;
        let log = Arc::new(Mutex::new(Log::default()));
        let (told, listening) = oneshot::channel();
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            // Ends with the process.
            std::thread::spawn(move || read_log(BufReader::new(stderr), &log, told));
        }
        let mut guard = Guard(Some(child));
        let Ok(Ok(addr)) = timeout(START, listening).await else {
            bail!("the server does not listen: {}", tail(&log));
        };
        let key = std::fs::read_to_string(folder.join(ADMIN_KEY)).context("the server made no admin key")?;
        let api = Api::new(addr, &Secret::new(key.trim()))?;
        while api.call(Method::GET, "/readyz", None).await.is_err() {
            if started.elapsed() > START {
                bail!("the server does not get ready: {}", tail(&log));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let ready_after = started.elapsed();
        // Taken back just now: nothing else takes it.
        let child = guard.0.take().context("the server's process is lost")?;
        Ok(ServerProcess { child, addr, api, log, ready_after })
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The header that opens its API.
    pub(super) fn authorization(&self) -> HeaderValue {
        self.api.authorization()
    }

    /// Calls its API.
    ///
    /// # Errors
    /// It gave no answer, or said no.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(|body| body.to_string().into());
        let answer = self.answer(method, path, body).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).with_context(|| format!("{path} did not answer JSON"))
    }

    /// What it counts.
    ///
    /// # Errors
    /// It gave no answer.
    pub(super) async fn metrics(&self) -> Result<Counts> {
        let text = self.answer(Method::GET, "/metrics", None).await?;
        Ok(Counts(String::from_utf8_lossy(&text).into_owned()))
    }

    async fn answer(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes> {
        self.api.call(method, path, body).await.map_err(|error| match error {
            CallError::NoAnswer(reason) => anyhow!("{path}: {reason}; its log ends: {}", tail(&self.log)),
            CallError::Refused(status, words) => anyhow!("{path}: {status} {}", String::from_utf8_lossy(&words)),
        })
    }

    /// Lines of its log at `error` and above.
    pub(super) fn errors(&self) -> u64 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).errors
    }

    /// Ends it as a crash would (`SIGKILL`).
    ///
    /// # Errors
    /// It cannot be ended.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("the server cannot be killed")?;
        self.child.wait().context("the server does not end")?;
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

/// Ends a process that does not get as far as being a [`ServerProcess`].
struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_log(lines: impl BufRead, log: &Mutex<Log>, told: oneshot::Sender<SocketAddr>) {
    let mut told = Some(told);
    for line in lines.lines().map_while(Result::ok) {
        if let Some(addr) = bound(&line)
            && let Some(told) = told.take()
        {
            // Whoever started the process may have given up.
            let _ = told.send(addr);
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.errors += u64::from(line.contains(r#""level":"ERROR""#));
        if log.last.len() == LOG_LINES {
            log.last.pop_front();
        }
        log.last.push_back(line);
    }
}

/// The address in the log line `listening` (DESIGN 3.1).
fn bound(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["addr"].as_str()?.parse().ok())?
}

fn tail(log: &Mutex<Log>) -> String {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let lines: Vec<&str> = log.last.iter().map(String::as_str).collect();
    if lines.is_empty() { "(its log is empty)".into() } else { lines.join("\n") }
}

/// A folder for one server, gone with the value.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    /// In `parent`, or where temporary files go.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new(parent: Option<&PathBuf>) -> Result<Folder> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("gatepost-bench-");
        let made = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        Ok(Folder(made.context("no folder can be made for the server; name another with --dir")?))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Bytes of the files in it.
    pub(super) fn bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.path()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
    }
}

/// A reading of `/metrics`.
pub(super) struct Counts(String);

impl Counts {
    /// The sum of a metric over its labels; 0 when nothing was counted yet.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.of(name, "")
    }

    /// The same over the samples one of whose labels is `label`, as in `kind="replay"`.
    pub(super) fn of(&self, name: &str, label: &str) -> f64 {
        let samples = self.0.lines().filter(|line| line.contains(label)).filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labels) => labels.rsplit_once('}')?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.trim().parse::<f64>().ok()
        });
        samples.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_address_is_read_from_the_log() {
        let line = r#"{"timestamp":"x","level":"INFO","message":"listening","addr":"127.0.0.1:4711","url":"u"}"#;
        assert_eq!(bound(line), Some("127.0.0.1:4711".parse().unwrap()));
        assert_eq!(bound(r#"{"message":"stopping","addr":"127.0.0.1:4711"}"#), None);
        assert_eq!(bound("listening"), None);
    }

    #[test]
    fn the_log_is_kept_short_and_its_errors_are_counted() {
        let lines: String = (0..50).map(|i| format!("{{\"level\":\"ERROR\",\"n\":{i}}}\n")).collect();
        let log = Mutex::default();
        read_log(lines.as_bytes(), &log, oneshot::channel().0);
        assert_eq!(log.lock().unwrap().errors, 50);
        assert_eq!(tail(&log).lines().count(), LOG_LINES);
        assert!(tail(&log).contains("49"));
    }

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let counts = Counts(
            "# TYPE gatepost_attempts counter\ngatepost_attempts_total{outcome=\"ok\"} 3\n\
             gatepost_attempts_total{outcome=\"http {status}\"} 4\ngatepost_store_commits_total 12\n\
             gatepost_store_commits_other 99\n# EOF\n"
                .into(),
        );
        assert_eq!(counts.sum("gatepost_attempts_total"), 7.0);
        assert_eq!(counts.sum("gatepost_store_commits_total"), 12.0);
        assert_eq!(counts.of("gatepost_attempts_total", r#"outcome="ok""#), 3.0);
        assert_eq!(counts.sum("gatepost_absent"), 0.0);
    }
}
