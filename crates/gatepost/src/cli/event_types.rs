//! `gatepost event-types`

use bytes::Bytes;
use clap::{Args, Subcommand};
use gatepost_core::TenantId;
use gatepost_core::event::EventType;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Context, print, print_array, read_whole};
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, Connection, encoded, read};
use crate::text::{indented, printable, shifted, table};

const EXAMPLES: &str = "\
Examples:
  gatepost event-types list
  gatepost event-types show user.created
  gatepost event-types put order.placed order.json
  echo '{\"description\":\"An order\",\"urgency\":\"bulk\"}' | gatepost event-types put order.placed -
  gatepost event-types delete order.placed
  gatepost event-types list --tenant acme
  gatepost event-types put seat.taken seat.json --tenant acme";

/// Manage the catalogue of event types
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Args, Debug)]
struct Common {
    /// As this tenant has them: its own declarations over the server's, and when it last published each
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the catalogue, by name
    #[command(after_help = EXAMPLES)]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show one type with its example
    #[command(after_help = EXAMPLES)]
    Show {
        /// The type's name
        name: EventType,
        #[command(flatten)]
        common: Common,
    },
    /// Declare a type, or change its declaration
    ///
    /// The file is a JSON object with any of family, description, example, schema, urgency, deprecated.
    #[command(after_help = EXAMPLES)]
    Put {
        /// The type's name
        name: EventType,
        /// A file with JSON, or - for stdin
        file: String,
        #[command(flatten)]
        common: Common,
    },
    /// Take a declaration away; a type that came with the server is as shipped again
    #[command(after_help = EXAMPLES)]
    Delete {
        /// The type's name
        name: EventType,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Deserialize)]
struct Declared {
    name: String,
    family: String,
    description: String,
    example: Option<Box<RawValue>>,
    schema: Option<Box<RawValue>>,
    urgency: String,
    deprecated: bool,
    declared: bool,
    builtin: bool,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    last_published: Option<String>,
}

impl Declared {
    fn origin(&self) -> String {
        match (self.declared, self.builtin, &self.tenant) {
            (false, ..) => "seen, not declared".to_owned(),
            (true, _, Some(tenant)) => format!("declared by {tenant}"),
            (true, true, None) => "shipped".to_owned(),
            (true, false, None) => "declared here".to_owned(),
        }
    }

    fn to_text(&self) -> String {
        let deprecated = if self.deprecated { ", deprecated" } else { "" };
        let mut text = format!("{}\n", self.name);
        if !self.description.is_empty() {
            text += &format!("  {}\n", self.description);
        }
        text += &format!("  family {}, urgency {}, {}{deprecated}\n", self.family, self.urgency, self.origin());
        if let Some(at) = &self.last_published {
            text += &format!("  last published {at}\n");
        }
        for (title, json) in [("example", &self.example), ("schema", &self.schema)] {
            if let Some(json) = json {
                text += &format!("  {title}:\n{}", shifted(&indented(json.get()), "    "));
            }
        }
        printable(&text)
    }
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let config = context.config.as_deref();
        let query = |common: &Common| common.tenant.as_ref().map_or(String::new(), |id| format!("?tenant={id}"));
        let path =
            |name: &EventType, common: &Common| format!("/v1/event-types/{}{}", encoded(name.as_str()), query(common));
        match self.action {
            Action::List { common } => {
                let path = format!("/v1/event-types{}", query(&common));
                let rows = Api::connect(&common.connection, config)?.all(&path).await?;
                if common.json {
                    return print_array(&rows);
                }
                let types =
                    rows.iter().map(|row| read::<Declared>(row.get().as_bytes())).collect::<Outcome<Vec<_>>>()?;
                if common.tenant.is_none() {
                    return print(&table(
                        ["name", "urgency", "origin", "description"],
                        types.into_iter().map(|declared| {
                            let origin = declared.origin();
                            [declared.name, declared.urgency, origin, declared.description]
                        }),
                    ));
                }
                print(&table(
                    ["name", "urgency", "origin", "last published", "description"],
                    types.into_iter().map(|declared| {
                        let (origin, last) = (declared.origin(), declared.last_published.unwrap_or_default());
                        [declared.name, declared.urgency, origin, last, declared.description]
                    }),
                ))
            }
            Action::Show { name, common } => {
                let api = Api::connect(&common.connection, config)?;
                show(&api.call(Method::GET, &path(&name, &common), None).await?, common.json)
            }
            Action::Put { name, file, common } => {
                let body = read_whole(&file)?;
                serde_json::from_str::<&RawValue>(&body).map_err(|error| {
                    Failure::failed(format!("{} is not JSON: {error}", super::input::shown_name(&file)))
                })?;
                let api = Api::connect(&common.connection, config)?;
                show(&api.call(Method::PUT, &path(&name, &common), Some(Bytes::from(body))).await?, common.json)
            }
            Action::Delete { name, common } => {
                let api = Api::connect(&common.connection, config)?;
                api.call(Method::DELETE, &path(&name, &common), None).await?;
                let json = json!({ "deleted": name.as_str() });
                print(&if common.json { json.to_string() } else { format!("deleted {name}") })
            }
        }
    }
}

fn show(answer: &[u8], json: bool) -> Outcome {
    if json {
        return print(&String::from_utf8_lossy(answer));
    }
    print(&read::<Declared>(answer)?.to_text())
}
