//! Jobs, and proof of who was told.

use gatepost_core::delivery::AttemptRecord;
use gatepost_core::event::EventType;
use gatepost_core::{DeliveryId, EventId, JobId, Timestamp, WebhookId};
use gatepost_engine::store::{Job, Task, Told};
use serde::Serialize;
use utoipa::ToSchema;

use super::schema;

/// A job just begun.
#[derive(Serialize, ToSchema)]
#[schema(as = JobId)]
pub(crate) struct ShowJobId {
    /// `GET …/jobs/{job_id}` tells how far it is.
    #[schema(value_type = String)]
    pub(crate) job_id: JobId,
}

/// What a replay would be about.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplayCount)]
pub(crate) struct ShowReplayCount {
    /// Events that would be delivered.
    pub(crate) count: u64,
}

/// A job.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct ShowJob<'a> {
    #[schema(value_type = String)]
    id: JobId,
    #[schema(value_type = schema::JobKind)]
    kind: &'static str,
    #[schema(value_type = schema::JobState)]
    state: &'static str,
    /// How many events it is about, as far as they are counted.
    total: u64,
    /// How many of them are done.
    done: u64,
    /// Why it failed; `cancelled` when somebody cancelled it.
    error: Option<&'a str>,
    /// Of a replay: to which webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    webhook_id: Option<WebhookId>,
    /// Of a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schema::ReplayScope, required = false)]
    scope: Option<&'static str>,
    /// Of a replay: events accepted at or after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    since: Option<Timestamp>,
    /// Of a replay: events accepted before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    until: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl<'a> From<&'a Job> for ShowJob<'a> {
    fn from(job: &'a Job) -> Self {
        let replay = match &job.task {
            Task::Replay(replay) => Some(replay),
            Task::Erase(_) => None,
        };
        ShowJob {
            id: job.id,
            kind: job.task.kind(),
            state: job.state.as_str(),
            total: job.total,
            done: job.done,
            error: job.error.as_deref(),
            webhook_id: replay.map(|replay| replay.webhook),
            scope: replay.map(|replay| replay.scope.as_str()),
            since: replay.map(|replay| replay.since),
            until: replay.map(|replay| replay.until),
            created_at: job.created_at,
            updated_at: job.updated_at,
        }
    }
}

/// That somebody was (to be) told something about a person.
#[derive(Serialize, ToSchema)]
#[schema(as = ToldRow)]
pub(crate) struct ShowTold<'a> {
    #[schema(value_type = String)]
    event_id: &'a EventId,
    #[schema(value_type = String)]
    event_type: &'a EventType,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// Whether what was said has been erased.
    erased: bool,
    #[schema(value_type = String)]
    webhook_id: WebhookId,
    webhook_name: &'a str,
    /// The url that was called last; before the first attempt, the webhook's.
    url: &'a str,
    #[schema(value_type = String)]
    delivery_id: DeliveryId,
    #[schema(value_type = schema::DeliveryState)]
    state: &'static str,
    #[schema(value_type = Option<schema::DeliveryReason>)]
    reason: Option<&'static str>,
    /// How many attempts were made.
    attempts: u32,
    /// Null: none was made, or what is known of it is no longer kept.
    #[schema(value_type = Option<String>, format = DateTime)]
    first_attempt_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_attempt_at: Option<Timestamp>,
    /// What the last attempt came to.
    #[schema(value_type = Option<schema::Outcome>)]
    outcome: Option<&'static str>,
    /// The HTTP status of the last answer.
    status: Option<u16>,
    /// When the delivery was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it last changed: of one that has ended, when it did.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl<'a> From<&'a Told> for ShowTold<'a> {
    fn from(told: &'a Told) -> Self {
        let started = |attempt: &Option<AttemptRecord>| attempt.as_ref().map(|attempt| attempt.started_at);
        let delivery = &told.delivery;
        ShowTold {
            event_id: &told.event_id,
            event_type: &told.event_type,
            timestamp: told.timestamp,
            accepted_at: told.accepted_at,
            erased: told.erased,
            webhook_id: delivery.webhook_id,
            webhook_name: &told.webhook_name,
            url: &told.url,
            delivery_id: delivery.id(),
            state: delivery.state.as_str(),
            reason: delivery.reason.map(|reason| reason.as_str()),
            attempts: delivery.attempts,
            first_attempt_at: started(&told.first_attempt),
            last_attempt_at: started(&told.last_attempt),
            outcome: told.last_attempt.as_ref().map(|attempt| attempt.outcome.as_str()),
            status: told.last_attempt.as_ref().and_then(|attempt| attempt.status),
            created_at: delivery.created_at,
            updated_at: delivery.updated_at,
        }
    }
}

/// The columns of the file, in the order of [`ShowTold`]'s members.
const COLUMNS: [&str; 18] = [
    "event_id",
    "event_type",
    "timestamp",
    "accepted_at",
    "erased",
    "webhook_id",
    "webhook_name",
    "url",
    "delivery_id",
    "state",
    "reason",
    "attempts",
    "first_attempt_at",
    "last_attempt_at",
    "outcome",
    "status",
    "created_at",
    "updated_at",
];

/// The first line of the file.
pub(crate) fn csv_header() -> String {
    let mut text = COLUMNS.join(",");
    text.push_str("\r\n");
    text
}

/// One line of the file (RFC 4180).
pub(crate) fn csv_row(text: &mut String, told: &Told) {
    let row = ShowTold::from(told);
    let time = |at: Option<Timestamp>| at.map(|at| at.fixed().to_string()).unwrap_or_default();
    let cells: [String; 18] = [
        row.event_id.to_string(),
        row.event_type.to_string(),
        row.timestamp.fixed().to_string(),
        row.accepted_at.fixed().to_string(),
        row.erased.to_string(),
        row.webhook_id.to_string(),
        row.webhook_name.to_owned(),
        row.url.to_owned(),
        row.delivery_id.to_string(),
        row.state.to_owned(),
        row.reason.unwrap_or_default().to_owned(),
        row.attempts.to_string(),
        time(row.first_attempt_at),
        time(row.last_attempt_at),
        row.outcome.unwrap_or_default().to_owned(),
        row.status.map(|status| status.to_string()).unwrap_or_default(),
        row.created_at.fixed().to_string(),
        row.updated_at.fixed().to_string(),
    ];
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_cell(text, cell);
    }
    text.push_str("\r\n");
}

/// A cell. One that a spreadsheet would take for a formula is marked as text: ids and names are chosen
/// by others, and whoever opens the file must not run them.
fn push_cell(text: &mut String, cell: &str) {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quoted = formula || cell.contains([',', '"', '\n', '\r']);
    if !quoted {
        return text.push_str(cell);
    }
    text.push('"');
    if formula {
        text.push('\'');
    }
    text.push_str(&cell.replace('"', "\"\""));
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> String {
        let mut out = String::new();
        push_cell(&mut out, text);
        out
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        for (given, wanted) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("Größe", "Größe"),
            ("a=b", "a=b"),
        ] {
            assert_eq!(cell(given), wanted, "{given}");
        }
    }

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        for given in ["=cmd|'/C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "=1,\"x\""] {
            let shown = cell(given);
            assert!(shown.starts_with("\"'") && shown.ends_with('"'), "{shown}");
        }
        assert_eq!(cell("=1,\"x\""), "\"'=1,\"\"x\"\"\"");
    }

    #[test]
    fn the_file_has_the_members_of_a_row() {
        let schema = serde_json::to_value(<ShowTold<'_> as utoipa::PartialSchema>::schema()).unwrap();
        let members: std::collections::BTreeSet<&str> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, COLUMNS.into_iter().collect());
        assert_eq!(csv_header().split(',').count(), COLUMNS.len());
    }
}
