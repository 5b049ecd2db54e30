//! The command line's own client: it speaks to the server like anybody else, and tells its answers
//! to a person.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use gatepost_core::delivery::Outcome as Sent;
use gatepost_core::secret::Secret;
use gatepost_engine::net::{Client, Headers, Host, OutgoingRequest, SystemResolver, Target};
use gatepost_engine::{SystemClock, USER_AGENT};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::{Flags, Settings};
use crate::failure::{Failure, Outcome};
use crate::keyfiles;

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer: more than any page of any list has.
const ANSWER_BYTES: usize = 64 << 20;
/// Rows of a list asked for at once: the most there may be.
const PAGE: u32 = 250;

/// Which server to speak to, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub struct Connection {
    /// The server
    #[arg(long, env = "GATEPOST_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// The API key; on the server's machine the admin key is found by itself
    #[arg(long, env = "GATEPOST_KEY", value_name = "KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The server's data folder, where its admin key is looked for
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
}

/// A server to call, with a key.
pub struct Api {
    client: Client,
    base: String,
    authorization: HeaderValue,
}

/// Why a call did not give what was asked for.
#[derive(Debug)]
pub enum CallError {
    /// The server was not reached.
    NotReached(String),
    /// There was no answer of use: it is not known what the server did.
    NoAnswer(String),
    /// The server said no.
    Refused(Box<Problem>),
}

/// The server's no (RFC 9457), as far as it said it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What kind of problem, in words.
    pub title: String,
    /// What is wrong this time.
    pub detail: String,
    /// What kind of problem, for programs.
    pub code: String,
    /// Every wrong member.
    pub errors: Vec<Wrong>,
    /// Seconds after which it may be tried again.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

/// One wrong member.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Wrong {
    /// Which: a JSON pointer into what was sent.
    pub pointer: String,
    /// Why.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {}): {}", self.title, self.status, self.code, self.detail)?;
        match self.code.as_str() {
            "unauthorized" => write!(f, "; name a key with --key or GATEPOST_KEY")?,
            "forbidden" => {
                write!(f, "; use another key; whoever runs the server makes one with: gatepost keys create")?
            }
            "tenant_not_found" => write!(f, "; tenants are made with: PUT /v1/tenants/{{id}}")?,
            _ => {}
        }
        // One wrong member is in the detail already.
        if self.errors.len() > 1 {
            for wrong in &self.errors {
                let pointer = if wrong.pointer.is_empty() { "(body)" } else { &wrong.pointer };
                write!(f, "\n  {pointer}: {}", wrong.message)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NotReached(reason) | CallError::NoAnswer(reason) => f.write_str(reason),
            CallError::Refused(problem) => problem.fmt(f),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let failure = Failure::failed(crate::text::printable(&error.to_string()));
        match error {
            CallError::Refused(problem) => failure.with_problem(serde_json::json!(problem)),
            CallError::NotReached(_) | CallError::NoAnswer(_) => failure,
        }
    }
}

impl Api {
    /// The server of `connection`; what it leaves open is looked for in the settings (`config`: the
    /// file named by `--config`).
    ///
    /// # Errors
    /// The URL is none, or there is no key.
    pub fn connect(connection: &Connection, config: Option<&std::path::Path>) -> Outcome<Api> {
        let base = connection.url.trim_end_matches('/');
        let target =
            Target::parse(base).map_err(|error| Failure::usage(format!("--url {base:?} cannot be called: {error}")))?;
        let flags = Flags { data_dir: connection.data_dir.clone(), ..Flags::default() };
        let settings = Settings::load(&flags, config)?;
        let key = match connection.key.as_deref().map(str::trim).filter(|key| !key.is_empty()) {
            Some(key) => Secret::new(key),
            None => local_key(&settings, &target)?,
        };
        Api::new(base, &key, settings.extra_ca_pem()?)
    }

    /// The server at `base` (no `/` at its end), with a key.
    ///
    /// # Errors
    /// The key cannot be sent, or the CA is unreadable.
    pub fn new(base: &str, key: &Secret, extra_ca_pem: Option<Vec<u8>>) -> Outcome<Api> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
            .map_err(|_| Failure::usage("the API key has characters that no key has; check --key"))?;
        authorization.set_sensitive(true);
        let client = Client::unrestricted(
            Arc::new(SystemClock),
            Arc::new(SystemResolver::new()),
            HeaderValue::from_static(USER_AGENT),
            extra_ca_pem,
        )
        .map_err(|error| Failure::usage(format!("TLS cannot be set up: {error}")))?;
        Ok(Api { client, base: base.to_owned(), authorization })
    }

    /// What the server at `path` (from `/v1` on) answers.
    ///
    /// # Errors
    /// There was no answer, or the server said no.
    pub async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes, CallError> {
        let target = Target::parse(&format!("{}{path}", self.base))
            .map_err(|error| CallError::NotReached(format!("{}{path} cannot be called: {error}", self.base)))?;
        let json = HeaderValue::from_static("application/json");
        let mut headers = Headers::from([(AUTHORIZATION, self.authorization.clone()), (ACCEPT, json)]);
        if body.is_some() {
            headers.push(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = OutgoingRequest {
            target: &target,
            method,
            headers,
            title_case: false,
            body: body.unwrap_or_default(),
            timeout: TIMEOUT,
            allow_nets: &[],
            identity: None,
            http1: false,
            fresh: false,
        };
        let exchange = self.client.send_reading(request, ANSWER_BYTES).await;
        let (Some(status), Some(response)) = (exchange.status, exchange.response) else {
            return Err(self.unreached(exchange.outcome, exchange.error.as_deref()));
        };
        match exchange.outcome {
            Sent::Ok if response.truncated => {
                Err(CallError::NoAnswer(format!("the answer of {} broke off or is too long", self.base)))
            }
            Sent::Ok => Ok(response.body),
            _ => {
                let retry_after =
                    response.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(RETRY_AFTER.as_str()));
                Err(CallError::Refused(Box::new(Problem {
                    retry_after: retry_after.and_then(|(_, value)| value.parse().ok()),
                    ..self.problem(status, &response.body)
                })))
            }
        }
    }

    /// Every row of a list, page by page, as the server wrote it.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn all(&self, path: &str) -> Outcome<Vec<Box<RawValue>>> {
        #[derive(Deserialize)]
        struct Page {
            data: Vec<Box<RawValue>>,
            next_cursor: Option<String>,
        }
        let join = if path.contains('?') { '&' } else { '?' };
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let answer = self.call(Method::GET, &format!("{path}{join}limit={PAGE}{cursor}"), None).await?;
            let page: Page = read(&answer)?;
            rows.extend(page.data);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={}", encoded(&next)),
                None => return Ok(rows),
            }
        }
    }

    fn problem(&self, status: u16, body: &[u8]) -> Problem {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) if !problem.code.is_empty() => Problem { status, ..problem },
            _ => Problem {
                status,
                title: "Not an answer of Gatepost's".to_owned(),
                code: "unknown".to_owned(),
                detail: format!("something else answers at {}; check --url", self.base),
                ..Problem::default()
            },
        }
    }

    fn unreached(&self, outcome: Sent, error: Option<&str>) -> CallError {
        // The client speaks of receivers; here there is only one.
        let error = error.unwrap_or("no reason is known").replace("the receiver", "it");
        let base = &self.base;
        match outcome {
            Sent::Connect => CallError::NotReached(format!(
                "the server at {base} cannot be reached: {error}; start it with \"gatepost serve\", or name another with --url"
            )),
            Sent::Dns | Sent::Tls | Sent::InvalidUrl => {
                CallError::NotReached(format!("the server at {base} cannot be reached: {error}; check --url"))
            }
            _ => CallError::NoAnswer(format!("the server at {base} gave no answer: {error}; its log may tell more")),
        }
    }
}

/// The key of the server on this machine. It has full rights: it is given to nobody else.
fn local_key(settings: &Settings, target: &Target) -> Outcome<Secret> {
    let missing = |reason: &str| Failure::usage(format!("no API key: set GATEPOST_KEY or --key ({reason})"));
    let here = match target.host() {
        Host::Name(name) => name == "localhost",
        Host::Ip(ip) => ip.is_loopback(),
    };
    if !here {
        return Err(missing("the local admin key is sent to this machine only"));
    }
    if let Some(key) = &settings.admin_key.value {
        return Ok(key.clone());
    }
    let folder: &PathBuf = &settings.data_dir.value;
    keyfiles::read_admin_key(folder).ok_or_else(|| {
        missing(&format!(
            "{} cannot be read; --data-dir names another folder",
            folder.join(keyfiles::ADMIN_KEY).display()
        ))
    })
}

/// Reads an answer.
///
/// # Errors
/// It does not have the form it should: another version, or another server.
pub fn read<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Outcome<T> {
    serde_json::from_slice(answer).map_err(|error| {
        Failure::failed(format!("the server's answer cannot be read ({error}); is it another version?"))
    })
}

/// A text as one segment of a path or one value of a query.
pub fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_every_pointer() {
        let body = br#"{"type":"x","title":"Members are not valid","status":422,"detail":"2 members are not valid",
            "code":"validation_failed","errors":[{"pointer":"/type","message":"is required"},{"pointer":"","message":"is odd"}]}"#;
        let api = Api::new("http://127.0.0.1:1", &Secret::new("k"), None).unwrap();
        assert_eq!(
            api.problem(422, body).to_string(),
            "Members are not valid (422 validation_failed): 2 members are not valid\n  /type: is required\n  (body): is odd"
        );
        let foreign = api.problem(502, b"<html>").to_string();
        assert!(foreign.contains("502") && foreign.contains("--url"), "{foreign}");
    }

    #[test]
    fn path_segments_cannot_leave_their_place() {
        assert_eq!(encoded("a/../b?c=%d é"), "a%2F..%2Fb%3Fc%3D%25d%20%C3%A9");
    }

    #[test]
    fn p7_the_admin_key_is_sent_to_this_machine_only() {
        let flags = Flags::default();
        let env = |name: &str| (name == "GATEPOST_ADMIN_KEY").then(|| "gp_admin_0123456789_0123456789_0".into());
        let settings = Settings::resolve(&flags, &env, None).unwrap();
        for (url, local) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost:8080", true),
            ("http://[::1]:8080", true),
            ("https://hooks.example.com", false),
            ("http://192.168.0.7:8080", false),
        ] {
            let key = local_key(&settings, &Target::parse(url).unwrap());
            assert_eq!(key.is_ok(), local, "{url}");
        }
    }
}
