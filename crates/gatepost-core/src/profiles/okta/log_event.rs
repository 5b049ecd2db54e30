//! An event as a LogEvent of Okta's System Log.

use serde_json::{Value, json};

use super::super::foreign::{fixed, hyphenated, uuid_of};
use super::super::{Frame, Item};
use crate::catalogue;
use crate::event::{Event, EventType, Subject};
use crate::json::{Member, Members, members};
use crate::matching::MatchFacts;

/// Every member a LogEvent has, in the order they are sent.
const MEMBERS: [&str; 18] = [
    "uuid",
    "published",
    "eventType",
    "version",
    "displayMessage",
    "severity",
    "legacyEventType",
    "actor",
    "client",
    "outcome",
    "target",
    "transaction",
    "debugContext",
    "authenticationContext",
    "securityContext",
    "request",
    "device",
    "insertionTimestamp",
];
/// The member of `debugContext` that is free.
const DEBUG_DATA: &str = "debugData";

/// What of an event goes into a LogEvent.
struct Source<'a> {
    event_type: &'a EventType,
    subject: Option<&'a Subject>,
    /// As published, or what of it the receiver sees.
    data: Option<&'a [u8]>,
}

/// An event as a LogEvent, in JSON. Members of `data` that are a LogEvent's pass, by their bytes; the others
/// go to `debugContext.debugData`; what is missing is filled where the event tells it, and null elsewhere
/// (SETTLED, Events).
pub(super) fn of(item: &Item<'_>, frame: &Frame<'_>) -> Vec<u8> {
    let event = item.event;
    let source = Source { event_type: &event.event_type, subject: event.subject.as_ref(), data: item.data.as_deref() };
    let mut out = Vec::with_capacity(1_024 + source.data.map_or(0, <[u8]>::len));
    let mut given = source.given();
    let uuid = uuid(given.take("uuid"), event, frame);
    let published = given.take("published");
    out.push(b'{');
    push(&mut out, "uuid", uuid.as_bytes());
    match published {
        Some(published) => push(&mut out, "published", published),
        None => push(&mut out, "published", text(&fixed(event.timestamp, 3)).as_bytes()),
    }
    source.rest(&mut out, given);
    out.push(b'}');
    out
}

/// What a filter of ours sees as `data`: the published object overlaid with what a LogEvent has of it
/// (SETTLED, Deliveries and answers of December 2026), but for what only an accepted event has, its id
/// and time.
pub(super) fn filter_data(facts: &MatchFacts<'_>) -> Vec<u8> {
    let source = Source { event_type: facts.event_type, subject: facts.subject, data: Some(facts.data) };
    let mut out = Vec::with_capacity(1_024 + 2 * facts.data.len());
    out.push(b'{');
    for (name, member) in members(facts.data).unwrap_or_default() {
        let replaced = MEMBERS[2..].contains(&&*name);
        if !replaced {
            push_raw(&mut out, member.name, member.value);
        }
    }
    let mut given = source.given();
    given.take("uuid");
    given.take("published");
    source.rest(&mut out, given);
    out.push(b'}');
    out
}

/// Members given in `data`: a LogEvent's, and the others.
#[derive(Default)]
struct Given<'a> {
    known: Members<'a>,
    others: Members<'a>,
}

impl<'a> Given<'a> {
    /// Takes out a LogEvent's member; null is none.
    fn take(&mut self, name: &str) -> Option<&'a [u8]> {
        self.known.remove(name).map(|member| member.value).filter(|value| value != b"null")
    }
}

impl<'a> Source<'a> {
    fn given(&self) -> Given<'a> {
        let Some(data) = self.data else { return Given::default() };
        match members(data) {
            Some(members) => {
                let (known, others) = members.into_iter().partition(|(name, _)| MEMBERS.contains(&&**name));
                Given { known, others }
            }
            None if data.trim_ascii() == b"null" => Given::default(),
            None => {
                let whole = Member { name: b"\"data\"", value: data.trim_ascii() };
                Given { known: Members::new(), others: Members::from([("data".into(), whole)]) }
            }
        }
    }

    /// The members after `uuid` and `published`, in their order.
    fn rest(&self, out: &mut Vec<u8>, mut given: Given<'_>) {
        for name in &MEMBERS[2..] {
            let value = given.take(name);
            match (*name, value) {
                // What it is, is not the publisher's to say twice.
                ("eventType", _) => push(out, name, text(self.event_type.as_str()).as_bytes()),
                ("debugContext", value) => {
                    let context = debug_context(value, std::mem::take(&mut given.others));
                    push(out, name, &context);
                }
                (_, Some(value)) => push(out, name, value),
                (_, None) => push(out, name, self.filled(name).to_string().as_bytes()),
            }
        }
    }

    /// What the event itself tells about a member.
    fn filled(&self, name: &str) -> Value {
        match name {
            "version" => "0".into(),
            "displayMessage" => catalogue::find(self.event_type)
                .map_or_else(|| self.event_type.as_str().into(), |known| known.definition.description.as_str().into()),
            "severity" => "INFO".into(),
            "actor" => json!({"id": "gatepost", "type": "SystemPrincipal", "alternateId": "system@gatepost",
                              "displayName": "Gatepost", "detailEntry": null}),
            "outcome" => json!({"result": "SUCCESS", "reason": null}),
            "target" => target(self.subject),
            _ => Value::Null,
        }
    }
}

/// The event's id if it is a UUID, else one that is always the same for it: receivers tell duplicates
/// by it. A UUID in the data is that of an event of Okta's own, passed on.
fn uuid(given: Option<&[u8]>, event: &Event, frame: &Frame<'_>) -> String {
    let theirs = given.and_then(|raw| serde_json::from_slice::<String>(raw).ok());
    let theirs = theirs.as_deref().and_then(hyphenated);
    let uuid = hyphenated(event.id.as_str()).or(theirs);
    text(&uuid.unwrap_or_else(|| uuid_of(frame.tenant_id, event.id.as_str())).to_string())
}

/// Whom the event is about.
fn target(subject: Option<&Subject>) -> Value {
    let Some(subject) = subject else { return json!([]) };
    let kind = subject.kind.as_deref().unwrap_or("User");
    let mut letters = kind.chars();
    let kind = letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect());
    json!([{"id": subject.id, "type": kind, "alternateId": subject.id, "displayName": subject.id, "detailEntry": null}])
}

/// The debug context given, with everything else the data holds in its free member.
fn debug_context(given: Option<&[u8]>, others: Members<'_>) -> Vec<u8> {
    let mut context = given.and_then(members).unwrap_or_default();
    let mut data = context.remove(DEBUG_DATA).and_then(|data| members(data.value)).unwrap_or_default();
    data.extend(others);
    let mut debug = vec![b'{'];
    data.values().for_each(|member| push_raw(&mut debug, member.name, member.value));
    debug.push(b'}');
    let mut out = vec![b'{'];
    context.values().for_each(|member| push_raw(&mut out, member.name, member.value));
    push(&mut out, DEBUG_DATA, &debug);
    out.push(b'}');
    out
}

fn text(text: &str) -> String {
    // A text always serialises.
    serde_json::to_string(text).unwrap_or_default()
}

/// Appends a member; `name` needs no escaping.
pub(super) fn push(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    push_raw(out, format!("\"{name}\"").as_bytes(), value);
}

fn push_raw(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(name);
    out.push(b':');
    out.extend_from_slice(value);
}
