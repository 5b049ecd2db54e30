//! `gatepost config`

use clap::{Args, Subcommand};

use super::{Context, print};
use crate::config::{Flags, Settings};
use crate::failure::{Failure, Outcome};
use crate::text::table;

const EXAMPLES: &str = "\
Examples:
  gatepost config show
  GATEPOST_LISTEN=0.0.0.0:80 gatepost config show --json";

/// Look at the settings
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Print every setting and where it comes from
    ///
    /// Of secrets only whether they are set. A flag of this command stands for the same flag of serve.
    #[command(after_help = EXAMPLES)]
    Show {
        #[command(flatten)]
        settings: Flags,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let Action::Show { settings, json } = self.action;
        let rows = Settings::load(&settings, context.config.as_deref())?.shown();
        if json {
            let text = serde_json::to_string_pretty(&rows)
                .map_err(|error| Failure::failed(format!("the settings cannot be shown: {error}")))?;
            return print(&text);
        }
        print(&table(
            ["setting", "value", "origin", "variable"],
            rows.into_iter().map(|row| {
                let value = match row.value {
                    Some(value) => value,
                    None if row.secret && row.set => "***".to_owned(),
                    None => "-".to_owned(),
                };
                [row.name.to_owned(), value, row.origin, row.environment.to_owned()]
            }),
        ))
    }
}
