//! `gatepost event-types`

use bytes::Bytes;
use clap::{Args, Subcommand};
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
  gatepost event-types delete order.placed";

/// Manage the catalogue of event types
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Args, Debug)]
struct Common {
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
}

impl Declared {
    fn origin(&self) -> &'static str {
        match (self.declared, self.builtin) {
            (false, _) => "seen, not declared",
            (true, true) => "shipped",
            (true, false) => "declared here",
        }
    }

    fn to_text(&self) -> String {
        let deprecated = if self.deprecated { ", deprecated" } else { "" };
        let mut text = format!("{}\n", self.name);
        if !self.description.is_empty() {
            text += &format!("  {}\n", self.description);
        }
        text += &format!("  family {}, urgency {}, {}{deprecated}\n", self.family, self.urgency, self.origin());
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
        let path = |name: &EventType| format!("/v1/event-types/{}", encoded(name.as_str()));
        match self.action {
            Action::List { common } => {
                let rows = Api::connect(&common.connection, config)?.all("/v1/event-types").await?;
                if common.json {
                    return print_array(&rows);
                }
                let types =
                    rows.iter().map(|row| read::<Declared>(row.get().as_bytes())).collect::<Outcome<Vec<_>>>()?;
                print(&table(
                    ["name", "urgency", "origin", "description"],
                    types.into_iter().map(|declared| {
                        let origin = declared.origin().to_owned();
                        [declared.name, declared.urgency, origin, declared.description]
                    }),
                ))
            }
            Action::Show { name, common } => {
                let api = Api::connect(&common.connection, config)?;
                show(&api.call(Method::GET, &path(&name), None).await?, common.json)
            }
            Action::Put { name, file, common } => {
                let body = read_whole(&file)?;
                serde_json::from_str::<&RawValue>(&body).map_err(|error| {
                    Failure::failed(format!("{} is not JSON: {error}", super::input::shown_name(&file)))
                })?;
                let api = Api::connect(&common.connection, config)?;
                show(&api.call(Method::PUT, &path(&name), Some(Bytes::from(body))).await?, common.json)
            }
            Action::Delete { name, common } => {
                let api = Api::connect(&common.connection, config)?;
                api.call(Method::DELETE, &path(&name), None).await?;
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
