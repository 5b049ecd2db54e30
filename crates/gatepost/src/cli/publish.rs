//! `gatepost publish`

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use gatepost_core::TenantId;
use gatepost_core::event::EventType;
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::input::{Events, Item, Place, Source};
use super::trigger::{Accepted, Event};
use super::{Context, print};
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, CallError, Connection, Problem, read};
use crate::text::{count, printable};

const EXAMPLES: &str = "\
Examples:
  gatepost publish events.ndjson --tenant acme
  gatepost publish event.json --tenant acme --json
  gatepost publish user.json --tenant acme --type user.created   (the file is data)
  cat events.ndjson | gatepost publish - --tenant acme

A file is one event, a list of events, {\"events\":[…]}, or NDJSON: one event a
line. An event is {\"type\": …, \"data\": …} with, as wanted, id, timestamp,
subject, attributes and urgency. Events with ids can be sent again without harm.";

/// Events in one request: the most the server takes.
const BATCH_EVENTS: usize = 1_000;
/// Bytes of one request: half of what the server takes by default.
const BATCH_BYTES: usize = 8 << 20;
/// How long a server that is busy is asked again, in all, per request.
const BUSY: Duration = Duration::from_secs(60);

/// Publish events from a file
///
/// Every event arrives with the very bytes of its data that the file has.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// A file of events (JSON or NDJSON), or - for stdin
    file: String,
    /// Whose events
    #[arg(long)]
    tenant: TenantId,
    /// Publish the file's content as the data of one event of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<EventType>,
    /// Print what was accepted as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What was accepted so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Tally {
    events: u64,
    duplicates: u64,
    deliveries: u64,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let api = Api::connect(&self.connection, context.config.as_deref())?;
        let source = Source::open(&self.file)?;
        let bar = progress(source.size);
        let events = match &self.event_type {
            None => source.events()?,
            Some(event_type) => {
                let data = source.value()?;
                let event = Event { r#type: event_type.as_str(), subject: None, data: &data, attributes: None };
                let json = RawValue::from_string(event.to_json()?)
                    .map_err(|error| Failure::failed(format!("the event cannot be written: {error}")))?;
                Events::one(json)
            }
        };
        let mut sending = Sending {
            api,
            path: format!("/v1/tenants/{}/events", self.tenant),
            json: self.json,
            tally: Tally::default(),
            bar,
        };
        let began = Instant::now();
        let sent = sending.all(events).await;
        sending.bar.finish_and_clear();
        let Tally { events, duplicates, deliveries } = sending.tally;
        if self.json {
            let mut summary = json!({ "published": events, "duplicates": duplicates, "deliveries": deliveries });
            if let Err(failure) = &sent {
                summary["error"] = failure.to_string().into();
            }
            // The list of events was begun before: its object is ended here.
            let open = if events == 0 { "{\"events\":[" } else { "" };
            print(&format!("{open}],{}", &summary.to_string()[1..]))?;
        } else if sent.is_ok() {
            let known = if duplicates == 0 { String::new() } else { format!(" ({duplicates} known before)") };
            let (events, deliveries) = (count(events, "event"), count(deliveries, "delivery"));
            print(&format!("published {events}{known}: {deliveries}, in {:.1} s", began.elapsed().as_secs_f64()))?;
        }
        sent.map_err(|failure| match events {
            0 => failure,
            n => Failure::failed(format!(
                "{failure}\n{} before that {} accepted",
                count(n, "event"),
                if n == 1 { "was" } else { "were" }
            )),
        })
    }
}

struct Sending {
    api: Api,
    path: String,
    json: bool,
    tally: Tally,
    bar: ProgressBar,
}

impl Sending {
    async fn all(&mut self, mut events: Events) -> Outcome {
        let mut chunk: Vec<Item> = Vec::new();
        let mut bytes = 0;
        while let Some(item) = events.next()? {
            let size = item.json.get().len();
            if chunk.len() == BATCH_EVENTS || (!chunk.is_empty() && bytes + size > BATCH_BYTES) {
                self.send(&chunk).await?;
                chunk.clear();
                bytes = 0;
            }
            bytes += size;
            chunk.push(item);
        }
        if chunk.is_empty() { Ok(()) } else { self.send(&chunk).await }
    }

    async fn send(&mut self, chunk: &[Item]) -> Outcome {
        #[derive(Deserialize)]
        struct Batch {
            events: Vec<Box<RawValue>>,
        }
        let batch = chunk.len() > 1;
        let (path, body) = match chunk {
            [one] => (self.path.clone(), one.json.get().to_owned()),
            many => (format!("{}/batch", self.path), batch_of(many)),
        };
        let answer = self.post(&path, Bytes::from(body)).await.map_err(|error| explain(error, chunk, batch))?;
        let accepted: Vec<Box<RawValue>> = if batch { read::<Batch>(&answer)?.events } else { vec![read(&answer)?] };
        for row in &accepted {
            let event: Accepted = read(row.get().as_bytes())?;
            if self.json {
                let before = if self.tally.events == 0 { "{\"events\":[" } else { ",\n " };
                let mut out = std::io::stdout().lock();
                write!(out, "{before}{}", row.get())?;
            }
            self.tally.events += 1;
            self.tally.duplicates += u64::from(event.duplicate);
            self.tally.deliveries += if event.duplicate { 0 } else { event.deliveries };
        }
        self.bar.inc(chunk.iter().map(|item| item.json.get().len() as u64 + 1).sum());
        self.bar.set_message(count(self.tally.events, "event"));
        Ok(())
    }

    /// Sends, and again when the server says that it accepted nothing and is busy. Silence is not
    /// answered by sending again: the events may have been accepted.
    async fn post(&self, path: &str, body: Bytes) -> Result<Bytes, CallError> {
        let began = Instant::now();
        loop {
            match self.api.call(Method::POST, path, Some(body.clone())).await {
                Err(CallError::Refused(problem)) if matches!(problem.status, 429 | 503) && began.elapsed() < BUSY => {
                    sleep(Duration::from_secs(problem.retry_after.unwrap_or(1).clamp(1, 10))).await;
                }
                answer => return answer,
            }
        }
    }
}

/// `{"events":[…]}`, each event as it is.
fn batch_of(items: &[Item]) -> String {
    let size: usize = items.iter().map(|item| item.json.get().len() + 1).sum();
    let mut body = String::with_capacity(size + 16);
    body.push_str("{\"events\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(item.json.get());
    }
    body.push_str("]}");
    body
}

/// A refusal in terms of the file.
fn explain(error: CallError, chunk: &[Item], batch: bool) -> Failure {
    let mut problem = match error {
        CallError::Refused(problem) => problem,
        CallError::NotReached(reason) => return Failure::failed(printable(&reason)),
        CallError::NoAnswer(reason) => {
            let unknown = "whether the events of the last request were accepted is not known";
            return Failure::failed(printable(&format!("{reason}\n{unknown}")));
        }
    };
    for wrong in &mut problem.errors {
        if let Some((place, rest)) = located(&wrong.pointer, chunk, batch) {
            wrong.pointer = if rest.is_empty() { place.to_string() } else { format!("{place} {rest}") };
        }
    }
    // A single wrong member is told in the detail, by the pointer of the request.
    if let [wrong] = &problem.errors[..] {
        let detail = format!("{}: {}", wrong.pointer, wrong.message);
        *problem = Problem { detail, ..*problem };
    }
    Failure::failed(printable(&problem.to_string()))
}

/// Which event a pointer of the request means, and the rest of the pointer.
fn located<'a>(pointer: &'a str, chunk: &[Item], batch: bool) -> Option<(Place, &'a str)> {
    if !batch {
        return chunk.first().map(|item| (item.place, pointer));
    }
    let rest = pointer.strip_prefix("/events/")?;
    let (index, _) = rest.split_once('/').unwrap_or((rest, ""));
    let item = chunk.get(index.parse::<usize>().ok()?)?;
    Some((item.place, &rest[index.len()..]))
}

/// On a terminal only: elsewhere it stays hidden.
fn progress(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:30} {percent:>3}% {bytes_per_sec} {msg} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_client::Wrong;

    fn items(texts: &[&str]) -> Vec<Item> {
        let item = |(index, text): (usize, &&str)| Item {
            place: Place::Line(index as u64 + 10),
            json: RawValue::from_string((*text).to_owned()).unwrap(),
        };
        texts.iter().enumerate().map(item).collect()
    }

    #[test]
    fn p3_a_batch_is_its_events_byte_for_byte() {
        assert_eq!(batch_of(&items(&["{ \"a\": 1.0 }", "{}"])), "{\"events\":[{ \"a\": 1.0 },{}]}");
    }

    #[test]
    fn a_refusal_names_the_place_in_the_file() {
        let chunk = items(&["{}", "{}", "{}"]);
        let wrong = |pointer: &str| Wrong { pointer: pointer.to_owned(), message: "is odd".to_owned() };
        let problem = |errors: Vec<Wrong>| {
            let detail = "x".to_owned();
            CallError::Refused(Box::new(Problem { status: 422, detail, errors, ..Problem::default() }))
        };
        let many = explain(problem(vec![wrong("/events/2/type"), wrong("/events/0"), wrong("/events")]), &chunk, true);
        assert!(
            many.to_string().ends_with("\n  line 12 /type: is odd\n  line 10: is odd\n  /events: is odd"),
            "{many}"
        );
        let one = explain(problem(vec![wrong("/events/1/id")]), &chunk, true);
        assert!(one.to_string().ends_with(": line 11 /id: is odd"), "{one}");
        let single = explain(problem(vec![wrong("/type")]), &chunk[..1], false);
        assert!(single.to_string().ends_with(": line 10 /type: is odd"), "{single}");
    }

    #[test]
    fn the_progress_bar_has_a_style() {
        for size in [Some(1), None] {
            progress(size).finish_and_clear();
        }
    }
}
