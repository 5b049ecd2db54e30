//! A server of one's own for a test, and the hands to use it.
//!
//! [`Server`] is the real binary on a free port and a data folder of its own. Everything is
//! blocking: a test reads like a list of steps, and threads are threads. When a test fails, what the
//! server said is printed and its folder kept.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gatepost_testkit::Receiver;
use serde_json::{Value, json};

mod client;
mod command;
mod contract;

pub(crate) use client::{Client, Payload, Reply, raw};
pub(crate) use command::{Ran, command, run, run_against, signal};

/// The binary under test.
pub(crate) const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// The admin key of every test server.
pub(crate) const ADMIN_KEY: &str = "gp_admin_7hW2kqXr9bTzL4vNcY8mPdE3sAfJ6uG1";

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(10);
/// Looks before a test gives up: half a minute.
const POLLS: usize = 3_000;

/// Whether the tests that take minutes are asked for.
pub(crate) fn slow_tier() -> bool {
    std::env::var_os("GATEPOST_TEST_SLOW").is_some_and(|v| v == "1")
}

/// A random-looking sequence that is the same for the same seed; `GATEPOST_TEST_SEED` replaces it.
pub(crate) fn seeded(name: &str, seed: u64) -> gatepost_testkit::SeededEntropy {
    let seed = std::env::var("GATEPOST_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
    eprintln!("{name}: GATEPOST_TEST_SEED={seed}");
    gatepost_testkit::SeededEntropy::new(seed)
}

/// Looks until there is something, for half a minute at most.
///
/// # Panics
/// There was nothing.
#[track_caller]
pub(crate) fn wait_until<T>(what: impl Display, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..POLLS {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(POLL);
    }
    panic!("waited in vain for {what}");
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    env: Vec<(String, Option<String>)>,
    wrapper: Vec<String>,
    args: Vec<String>,
}

impl Options {
    /// With this environment variable.
    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: impl Display) -> Self {
        self.env.push((name.to_owned(), Some(value.to_string())));
        self
    }

    /// Without this environment variable.
    #[must_use]
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.push((name.to_owned(), None));
        self
    }

    /// With this argument after `serve`.
    #[must_use]
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Under another program, whose arguments the server's command line is appended to. It must
    /// become the server (`exec`), or signals will not reach it.
    #[must_use]
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&part| part.to_owned()).collect();
        self
    }
}

/// What a server said, on both channels, over all its lives.
#[derive(Default)]
struct Output {
    text: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// Where the present life began.
    life: usize,
    /// Channels still open.
    open: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, channel: impl Read + Send + 'static) -> JoinHandle<()> {
        let output = Arc::clone(self);
        output.lock().open += 1;
        std::thread::spawn(move || {
            let mut reader = BufReader::new(channel);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                output.lock().lines.push(text);
                output.changed.notify_all();
                line.clear();
            }
            output.lock().open -= 1;
            output.changed.notify_all();
        })
    }

    /// The first of this life's lines that `look` finds something in; nothing when it ended without.
    fn find<T>(&self, mut look: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let mut said = self.lock();
        let mut seen = said.life;
        loop {
            while let Some(line) = said.lines.get(seen) {
                seen += 1;
                if let Some(found) = look(line) {
                    return Some(found);
                }
            }
            if said.open == 0 {
                return None;
            }
            let (again, timeout) =
                self.changed.wait_timeout(said, Duration::from_secs(60)).unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return None;
            }
            said = again;
        }
    }
}

/// The address in a log line with the message `listening`, whatever the log's format nests.
pub(crate) fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| line.get(name).or_else(|| line.get("fields")?.get(name))?.as_str();
    (field("message")? == "listening").then(|| field("addr")?.parse().ok()).flatten()
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    folder: Option<tempfile::TempDir>,
    options: Options,
    child: Child,
    readers: Vec<JoinHandle<()>>,
    output: Arc<Output>,
    addr: SocketAddr,
    client: Mutex<Client>,
}

impl Server {
    /// A server as most tests want it: loopback allowed, JSON logs.
    pub(crate) fn start() -> Server {
        Server::with(Options::default())
    }

    /// A server with other settings.
    ///
    /// # Panics
    /// It does not come up.
    #[track_caller]
    pub(crate) fn with(options: Options) -> Server {
        match Server::try_with(options) {
            Ok(server) => server,
            Err((status, output)) => panic!("the server ended ({status}) before it listened:\n{output}"),
        }
    }

    /// A server that may refuse to start; then its exit status and all it said.
    pub(crate) fn try_with(options: Options) -> Result<Server, (ExitStatus, String)> {
        Server::try_in(tempfile::tempdir().expect("a folder for the test"), options)
    }

    /// As [`Server::try_with`], on a folder made before.
    pub(crate) fn try_in(folder: tempfile::TempDir, options: Options) -> Result<Server, (ExitStatus, String)> {
        let output = Arc::new(Output::default());
        let life = spawn(folder.path(), &options, &output)?;
        Ok(Server {
            folder: Some(folder),
            options,
            child: life.child,
            readers: life.readers,
            output,
            addr: life.addr,
            client: Mutex::new(Client::new(life.addr, ADMIN_KEY)),
        })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address as a URL without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder it is started in; its data are in [`Server::data_dir`].
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("present until dropped").path()
    }

    /// Its data folder.
    pub(crate) fn data_dir(&self) -> PathBuf {
        data_dir(self.folder())
    }

    /// Everything it has said so far, in all its lives.
    pub(crate) fn said(&self) -> String {
        self.output.lock().lines.join("\n")
    }

    /// Waits for a line of this life's output.
    ///
    /// # Panics
    /// The server ended, or was silent for a minute, without saying so.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.output
            .find(|line| wanted(line).then(|| line.to_owned()))
            .unwrap_or_else(|| panic!("the server never said {what}"))
    }

    /// A client of one's own (for a thread) with the admin key.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.addr, ADMIN_KEY)
    }

    /// A client of one's own with another key.
    pub(crate) fn client_with(&self, key: &str) -> Client {
        Client::new(self.addr, key)
    }

    /// SIGKILL: what a crash is.
    pub(crate) fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join();
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let status = wait_until("the server's end", || self.child.try_wait().expect("our own child"));
        self.join();
        status
    }

    /// Starts it again on the same folder, after it was killed or ended.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.restart_with(self.options.clone());
    }

    /// As [`Server::restart`], with other settings from now on.
    #[track_caller]
    pub(crate) fn restart_with(&mut self, options: Options) {
        if let Err((status, output)) = self.try_restart_with(options) {
            panic!("the server ended ({status}) before it listened:\n{output}");
        }
    }

    /// As [`Server::restart_with`], where it may refuse; then its exit status and what it said.
    pub(crate) fn try_restart_with(&mut self, options: Options) -> Result<(), (ExitStatus, String)> {
        self.kill9();
        self.output.lock().life = self.output.lock_len();
        let life = spawn(self.folder(), &options, &self.output)?;
        self.options = options;
        self.child = life.child;
        self.readers = life.readers;
        self.addr = life.addr;
        self.client = Mutex::new(Client::new(life.addr, ADMIN_KEY));
        Ok(())
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    // ---- the API, with the admin key ----

    fn with_client<T>(&self, call: impl FnOnce(&mut Client) -> T) -> T {
        call(&mut self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// GET.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.with_client(|c| c.get(path))
    }

    /// POST of JSON.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: impl Into<Payload>) -> Reply {
        self.with_client(|c| c.post(path, body))
    }

    /// PUT of JSON.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: impl Into<Payload>) -> Reply {
        self.with_client(|c| c.put(path, body))
    }

    /// PATCH of JSON.
    #[track_caller]
    pub(crate) fn patch(&self, path: &str, body: impl Into<Payload>) -> Reply {
        self.with_client(|c| c.patch(path, body))
    }

    /// DELETE.
    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.with_client(|c| c.delete(path))
    }

    /// Any request, with headers; the key is added unless `authorization` is among them.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Payload>) -> Reply {
        self.with_client(|c| c.send(method, path, headers, body))
    }

    /// Makes a tenant.
    #[track_caller]
    pub(crate) fn create_tenant(&self, tenant: &str) {
        self.put(&format!("/v1/tenants/{tenant}"), json!({})).expect(201);
    }

    /// Registers a webhook for `*`, with `overrides` merged over `{name, url, events}`; the answer,
    /// which has the secret.
    #[track_caller]
    pub(crate) fn create_webhook(&self, tenant: &str, url: &str, overrides: Value) -> Value {
        let body = webhook_body(url, overrides);
        self.post(&format!("/v1/tenants/{tenant}/webhooks"), body).expect(201).json()
    }

    /// As [`Server::create_webhook`]; its id only.
    #[track_caller]
    pub(crate) fn webhook(&self, tenant: &str, url: &str, overrides: Value) -> String {
        text(&self.create_webhook(tenant, url, overrides), "id")
    }

    /// Publishes, and gives the event's id.
    #[track_caller]
    pub(crate) fn publish(&self, tenant: &str, event_type: &str, data: Value) -> String {
        text(&self.publish_event(tenant, json!({"type": event_type, "data": data})), "id")
    }

    /// Publishes this event (a value, or text as it is), and gives the answer.
    #[track_caller]
    pub(crate) fn publish_event(&self, tenant: &str, event: impl Into<Payload>) -> Value {
        self.post(&format!("/v1/tenants/{tenant}/events"), event).expect(202).json()
    }

    /// The single view of an event.
    #[track_caller]
    pub(crate) fn event(&self, tenant: &str, id: &str) -> Value {
        self.get(&format!("/v1/tenants/{tenant}/events/{id}")).expect(200).json()
    }

    /// The single view of a delivery.
    #[track_caller]
    pub(crate) fn delivery(&self, tenant: &str, id: &str) -> Value {
        self.get(&format!("/v1/tenants/{tenant}/deliveries/{id}")).expect(200).json()
    }

    /// Every row of a list, page by page; `path` may have a query.
    #[track_caller]
    pub(crate) fn all(&self, path: &str) -> Vec<Value> {
        self.with_client(|c| c.all(path))
    }

    /// An event's deliveries, as the list shows them.
    #[track_caller]
    pub(crate) fn deliveries_of(&self, tenant: &str, event: &str) -> Vec<Value> {
        self.all(&format!("/v1/tenants/{tenant}/deliveries?event_id={event}"))
    }

    /// The one delivery of an event.
    #[track_caller]
    pub(crate) fn delivery_of(&self, tenant: &str, event: &str) -> String {
        let rows = self.deliveries_of(tenant, event);
        assert_eq!(rows.len(), 1, "one delivery of {event}: {rows:?}");
        text(&rows[0], "id")
    }

    /// Waits until a delivery is in this state, and gives its single view.
    #[track_caller]
    pub(crate) fn wait_delivery(&self, tenant: &str, delivery: &str, state: &str) -> Value {
        self.wait_delivery_where(tenant, delivery, &format!("state {state}"), |view| view["state"] == state)
    }

    /// Waits until a delivery's single view is as wanted, and gives it.
    #[track_caller]
    pub(crate) fn wait_delivery_where(
        &self,
        tenant: &str,
        delivery: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        for _ in 0..POLLS {
            last = self.delivery(tenant, delivery);
            if wanted(&last) {
                return last;
            }
            std::thread::sleep(POLL);
        }
        panic!("waited in vain for delivery {delivery}: {what}; it is {last:#}");
    }

    /// Waits until the one delivery of an event is in this state, and gives its single view.
    #[track_caller]
    pub(crate) fn wait_event(&self, tenant: &str, event: &str, state: &str) -> Value {
        let delivery = self.delivery_of(tenant, event);
        self.wait_delivery(tenant, &delivery, state)
    }

    /// Waits until no delivery of a tenant is `pending`. (A page of a filtered list may be short and
    /// still not the last.)
    #[track_caller]
    pub(crate) fn wait_settled(&self, tenant: &str) {
        let first = format!("/v1/tenants/{tenant}/deliveries?state=pending&limit=1");
        let mut path = first.clone();
        wait_until("all deliveries to settle", || {
            let page = self.get(&path).expect(200).json();
            let none = page["data"] == json!([]);
            path = match page["next_cursor"].as_str() {
                Some(cursor) if none => format!("{first}&cursor={cursor}"),
                _ => first.clone(),
            };
            (none && page["next_cursor"].is_null()).then_some(())
        });
    }

    /// Makes an API key, and gives it.
    #[track_caller]
    pub(crate) fn create_key(&self, scopes: &[&str], tenant: Option<&str>) -> String {
        let mut body = json!({"name": "test", "scopes": scopes});
        if let Some(tenant) = tenant {
            body["tenant"] = json!(tenant);
        }
        text(&self.post("/v1/keys", body).expect(201).json(), "key")
    }
}

impl Output {
    fn lock_len(&self) -> usize {
        self.lock().lines.len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("---- what the server said ----\n{}\n----", self.said());
            if let Some(folder) = self.folder.take() {
                eprintln!("its folder is kept: {}", folder.keep().display());
            }
        }
    }
}

fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

struct Life {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    addr: SocketAddr,
}

fn spawn(folder: &Path, options: &Options, output: &Arc<Output>) -> Result<Life, (ExitStatus, String)> {
    let mut command = command(folder, &options.wrapper);
    command
        .arg("serve")
        .args(&options.args)
        .env("GATEPOST_LISTEN", "127.0.0.1:0")
        .env("GATEPOST_DATA_DIR", data_dir(folder))
        .env("GATEPOST_ADMIN_KEY", ADMIN_KEY)
        .env("GATEPOST_ALLOW_NETS", "127.0.0.0/8")
        .env("GATEPOST_LOG_FORMAT", "json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, value) in &options.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.spawn().expect("the binary can be run");
    let readers =
        vec![output.follow(child.stdout.take().expect("piped")), output.follow(child.stderr.take().expect("piped"))];
    if let Some(addr) = output.find(listening) {
        return Ok(Life { child, readers, addr });
    }
    let _ = child.kill();
    let status = child.wait().expect("our own child");
    for reader in readers {
        let _ = reader.join();
    }
    let said = output.lock();
    Err((status, said.lines[said.life..].join("\n")))
}

/// `{name, url, events: ["*"]}` with members replaced or added.
pub(crate) fn webhook_body(url: &str, overrides: Value) -> Value {
    let mut body = json!({"name": "test", "url": url, "events": ["*"]});
    if let (Some(body), Value::Object(overrides)) = (body.as_object_mut(), overrides) {
        body.extend(overrides);
    }
    body
}

/// A member that is a text.
#[track_caller]
pub(crate) fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_else(|| panic!("no text \"{member}\" in {value:#}")).to_owned()
}

/// A receiver on a thread of its own that answers 204.
pub(crate) fn receiver() -> Receiver {
    Receiver::start_on_thread()
}

/// Checks a received request's signature with the library receivers use.
#[track_caller]
pub(crate) fn verify(secret: &str, request: &gatepost_testkit::Received) {
    if let Err(error) = verifies(secret, request) {
        panic!("the signature of {request:?} does not verify: {error}");
    }
}

/// Whether a received request's signature verifies.
pub(crate) fn verifies(secret: &str, request: &gatepost_testkit::Received) -> Result<(), String> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in &request.headers {
        let name = http::HeaderName::try_from(name.as_str()).map_err(|e| e.to_string())?;
        headers.append(name, http::HeaderValue::try_from(value.as_str()).map_err(|e| e.to_string())?);
    }
    let webhook = standardwebhooks::Webhook::new(secret).map_err(|e| e.to_string())?;
    webhook.verify(&request.body, &headers).map_err(|e| e.to_string())
}
