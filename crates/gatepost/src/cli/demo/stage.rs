//! The demo's receiver: takes deliveries, counts attempts, and fails where it is told to.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use gatepost_core::secret::Secret;
use http::StatusCode;
use serde_json::json;

use super::super::print;
use crate::answers::{Mode, challenge, decision};
use crate::failure::Outcome;
use crate::receiver::{Received, Receiver, Reply};

/// The path that answers 503 to the first attempts of each event.
pub(super) const FLAKY: &str = "/flaky";
/// How many.
pub(super) const FAILURES: u32 = 2;

/// The receiver and what it has seen.
pub(super) struct Stage {
    receiver: Receiver,
    secrets: HashMap<String, Secret>,
    /// (path, event) with a verified delivery that was answered yes.
    landed: HashSet<(String, String)>,
    unverified: u32,
    retried: u32,
    json: bool,
}

impl Stage {
    /// Listens on any free port of this machine.
    pub(super) async fn new(json: bool) -> Outcome<Stage> {
        let attempts: Mutex<HashMap<String, u32>> = Mutex::default();
        let answer = move |received: &Received| {
            if received.path != FLAKY || received.header("gatepost-test").is_some() {
                let asked = challenge(received).or_else(|| decision(Mode::Allow, received, None));
                return asked.unwrap_or_else(|| Reply::status(StatusCode::NO_CONTENT));
            }
            let id = received.event_id().unwrap_or_default().to_owned();
            let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = attempts.entry(id).or_default();
            *seen += 1;
            let status = if *seen <= FAILURES { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT };
            Reply::status(status)
        };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let receiver = Receiver::start(addr, Arc::new(answer)).await?;
        Ok(Stage { receiver, secrets: HashMap::new(), landed: HashSet::new(), unverified: 0, retried: 0, json })
    }

    /// The URL of a path here.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.receiver.addr())
    }

    /// What requests to `path` are signed with.
    pub(super) fn expect(&mut self, path: &str, secret: Secret) {
        self.secrets.insert(path.to_owned(), secret);
    }

    /// How many deliveries have landed, verified.
    pub(super) fn landed(&self) -> usize {
        self.landed.len()
    }

    /// Requests whose signature did not fit.
    pub(super) fn unverified(&self) -> u32 {
        self.unverified
    }

    /// Requests that were answered no.
    pub(super) fn retried(&self) -> u32 {
        self.retried
    }

    /// Takes the next request and prints it.
    pub(super) async fn take(&mut self) -> Outcome {
        match self.receiver.next().await {
            Some(received) => self.show(&received),
            // The receiver ends with the stage.
            None => std::future::pending().await,
        }
    }

    fn show(&mut self, received: &Received) -> Outcome {
        // Of a webhook with a path per event, the first part is its own.
        let webhook = received.path[1..].find('/').map_or(&*received.path, |end| &received.path[..=end]);
        let verdict = self.secrets.get(webhook).map(|secret| received.verify(secret.expose()));
        let verified = matches!(verdict, Some(Ok(())));
        let event = received.event_id().unwrap_or("-").to_owned();
        self.unverified += u32::from(!verified);
        let is_event = received.header("gatepost-event-id").is_some() && received.header("gatepost-test").is_none();
        if !received.answered.is_success() {
            self.retried += 1;
        } else if verified && is_event {
            self.landed.insert((received.path.clone(), event.clone()));
        }
        if self.json {
            return print(
                &json!({
                    "kind": "delivery",
                    "path": received.path,
                    "type": received.event_type(),
                    "event_id": event,
                    "delivery_id": received.header("gatepost-delivery-id"),
                    "attempt": received.header("gatepost-attempt").and_then(|attempt| attempt.parse::<u32>().ok()),
                    "verified": verified,
                    "answered": received.answered.as_u16(),
                })
                .to_string(),
            );
        }
        let mark = match &verdict {
            Some(Ok(())) => "✓ signature verified".to_owned(),
            Some(Err(error)) => format!("✗ {error}"),
            None => "✗ nobody expects anything here".to_owned(),
        };
        let what = match received.event_type() {
            Some(event_type) if is_event => event_type,
            Some(event_type) => format!("({event_type})"),
            None => "(challenge)".to_owned(),
        };
        let line = format!(
            "  {:<13} {what:<38} attempt {}  {mark}  → {}",
            webhook,
            received.header("gatepost-attempt").unwrap_or("-"),
            received.answered.as_u16(),
        );
        print(&crate::text::printable(&line))
    }
}
