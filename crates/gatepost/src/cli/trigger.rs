//! `gatepost trigger`

use bytes::Bytes;
use clap::Args;
use gatepost_core::event::EventType;
use gatepost_core::nearest::nearest;
use gatepost_core::{TenantId, catalogue};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Context, print, read_whole};
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, CallError, Connection, encoded, read};
use crate::text::{count, printable};

const EXAMPLES: &str = "\
Examples:
  gatepost trigger user.created --tenant acme
  gatepost trigger user.created --tenant acme --data '{\"name\":\"Ada\"}' --subject user-17
  gatepost trigger user.created --tenant acme --data user.json --json";

/// Publish the catalogue's example of an event type
///
/// A type that is only ever asked as a blocking point (cymmetri.changePassword) is invoked instead.
/// See the catalogue with: gatepost event-types list
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// The event type, such as user.created
    #[arg(value_name = "TYPE")]
    event_type: EventType,
    /// Whose event
    #[arg(long)]
    tenant: TenantId,
    /// Data instead of the example: JSON, a file with JSON, or - for stdin
    #[arg(long, value_name = "FILE|JSON")]
    data: Option<String>,
    /// Who or what it is about
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// An event to send. `data` goes out byte for byte.
#[derive(Serialize)]
pub(super) struct Event<'a> {
    pub(super) r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Subject<'a>>,
    pub(super) data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attributes: Option<&'a RawValue>,
}

#[derive(Serialize)]
pub(super) struct Subject<'a> {
    pub(super) id: &'a str,
}

impl Event<'_> {
    /// As it goes out.
    pub(super) fn to_json(&self) -> Outcome<String> {
        serde_json::to_string(self).map_err(|error| Failure::failed(format!("the event cannot be written: {error}")))
    }
}

/// What is answered about an accepted event.
#[derive(Deserialize)]
pub(super) struct Accepted {
    pub(super) id: String,
    pub(super) deliveries: u64,
    pub(super) duplicate: bool,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let api = Api::connect(&self.connection, context.config.as_deref())?;
        if catalogue::is_point_only(&self.event_type) {
            return self.invoke(&api).await;
        }
        let data = match &self.data {
            Some(data) => given(data)?,
            None => example(&api, &self.tenant, &self.event_type).await?,
        };
        let event = Event {
            r#type: self.event_type.as_str(),
            subject: self.subject.as_deref().map(|id| Subject { id }),
            data: &data,
            attributes: None,
        };
        let body = Bytes::from(event.to_json()?);
        let answer = api.call(Method::POST, &format!("/v1/tenants/{}/events", self.tenant), Some(body)).await?;
        if self.json {
            return print(&String::from_utf8_lossy(&answer));
        }
        let accepted: Accepted = read(&answer)?;
        print(&format!("published {} ({}): {}", accepted.id, self.event_type, count(accepted.deliveries, "delivery")))
    }
}

impl Command {
    /// A type that is only ever asked: its point is invoked, with the data or the point's sample.
    async fn invoke(&self, api: &Api) -> Outcome {
        #[derive(Deserialize)]
        struct Point {
            sample: Box<RawValue>,
        }
        #[derive(Deserialize)]
        struct Decision {
            id: String,
            point: String,
            decision: String,
            cause: String,
        }
        if self.subject.is_some() {
            let reason = "--subject does not go with a type that is asked: put the subject into --data";
            return Err(Failure::usage(reason));
        }
        let name = self.event_type.as_str().rsplit('.').next().unwrap_or_default();
        let point = format!("/v1/tenants/{}/points/{}", self.tenant, encoded(name));
        let question = match &self.data {
            Some(data) => given(data)?,
            None => read::<Point>(&api.call(Method::GET, &point, None).await?)?.sample,
        };
        let body = Bytes::from(question.get().to_owned());
        let answer = api.call(Method::POST, &format!("{point}/invoke"), Some(body)).await?;
        if self.json {
            return print(&String::from_utf8_lossy(&answer));
        }
        let Decision { id, point, decision, cause } = read(&answer)?;
        print(&format!("invoked {point} ({id}): {decision}, cause {cause}"))
    }
}

/// Data from the command line: JSON as it stands, else a file.
fn given(data: &str) -> Outcome<Box<RawValue>> {
    if let Ok(json) = serde_json::from_str(data) {
        return Ok(json);
    }
    // What begins like JSON is meant as JSON: a file of that name would only confuse.
    let meant = data.trim_start().starts_with(['{', '[', '"']);
    let text = if meant { data.to_owned() } else { read_whole(data)? };
    serde_json::from_str(&text).map_err(|error| Failure::failed(format!("--data is not JSON: {error}")))
}

/// The catalogue's example of a type, as the tenant has it.
async fn example(api: &Api, tenant: &TenantId, event_type: &EventType) -> Outcome<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Declared {
        example: Option<Box<RawValue>>,
    }
    let none = || Failure::failed(format!("the catalogue has no example of {event_type}; give one with --data"));
    let path = format!("/v1/event-types/{}?tenant={tenant}", encoded(event_type.as_str()));
    match api.call(Method::GET, &path, None).await {
        Ok(answer) => read::<Declared>(&answer)?.example.ok_or_else(none),
        Err(CallError::Refused(problem)) if problem.code == "event_type_not_found" => {
            match meant(api, tenant, event_type).await {
                Some(near) => Err(Failure::failed(format!(
                    "the catalogue has no event type {event_type}; did you mean {near}? Else give its data with --data"
                ))),
                None => Err(none()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// The declared type that was probably meant.
async fn meant(api: &Api, tenant: &TenantId, event_type: &EventType) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let rows = api.all(&format!("/v1/event-types?tenant={tenant}")).await.ok()?;
    let names: Vec<Named> = rows.iter().filter_map(|row| read(row.get().as_bytes()).ok()).collect();
    nearest(event_type.as_str(), names.iter().map(|row| row.name.as_str())).map(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_or_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data.json");
        std::fs::write(&path, "{ \"a\": 1.0 }\n").unwrap();
        assert_eq!(given("{ \"b\":1e2}").unwrap().get(), "{ \"b\":1e2}");
        assert_eq!(given(path.to_str().unwrap()).unwrap().get(), "{ \"a\": 1.0 }");
        for bad in ["{\"a\":", "/there/is/no/such/file"] {
            assert_eq!(given(bad).unwrap_err().code(), 1, "{bad}");
        }
    }

    #[test]
    fn p3_the_data_goes_out_byte_for_byte() {
        let data: Box<RawValue> = serde_json::from_str("{ \"b\": 1.00,\n\"a\":\"\\u00e9\" }").unwrap();
        let event = Event { r#type: "a.b", subject: Some(Subject { id: "u1" }), data: &data, attributes: None };
        let text = event.to_json().unwrap();
        assert_eq!(text, format!(r#"{{"type":"a.b","subject":{{"id":"u1"}},"data":{}}}"#, data.get()));
    }
}
