//! `gatepost export`

use std::io::Write;

use clap::Args;
use gatepost_core::TenantId;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Context, print};
use crate::declare::document::{Format, SECTIONS, Section, TENANT};
use crate::declare::export::Export;
use crate::declare::node::Node;
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, Connection, read};
use crate::text::printable;

const EXAMPLES: &str = "\
Examples:
  gatepost export --tenant sandbox > setup.toml
  gatepost export --tenant sandbox --format json
  gatepost export --tenant sandbox --new-secrets | gatepost apply - --tenant acme

Secrets are not in it, but the names of environment variables that apply reads
them from; stderr lists them. With --new-secrets webhooks that apply makes get
new signing secrets instead.";

/// Print a tenant's setup as a file
///
/// What `gatepost apply` reads: what was tried in one tenant can be repeated in another.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// Whose setup
    #[arg(long)]
    tenant: TenantId,
    /// How to write it: toml or json
    #[arg(long, value_name = "FORMAT", default_value = "toml", hide_possible_values = true)]
    format: Format,
    /// Print JSON: the same as --format json
    #[arg(long)]
    json: bool,
    /// Leave webhooks' signing secrets out
    #[arg(long)]
    new_secrets: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let api = Api::connect(&self.connection, context.config.as_deref())?;
        let mut export = Export::default();
        if let Some(tenant) = self.declared(&api, TENANT).await?.pop() {
            export.set_tenant(tenant);
        }
        for section in SECTIONS {
            export.add(section, self.declared(&api, section).await?, !self.new_secrets);
        }
        let format = if self.json { Format::Json } else { self.format };
        print(&export.to_text(format))?;
        for (word, name, another) in export.renamed() {
            let line =
                format!("another {word} named {name:?} is written as {another:?}: names are what things are known by");
            let _ = writeln!(std::io::stderr(), "{}", printable(&line));
        }
        let variables: Vec<_> = export.variables().collect();
        if !variables.is_empty() {
            let _ = writeln!(std::io::stderr(), "secrets it refers to: {}", variables.join(" "));
        }
        Ok(())
    }

    /// What the tenant has of one kind.
    async fn declared(&self, api: &Api, section: Section) -> Outcome<Vec<Node>> {
        #[derive(Deserialize)]
        struct Row {
            declaration: Box<RawValue>,
        }
        let rows = api.all(&format!("/v1/tenants/{}/setup/{}", self.tenant, section.key)).await?;
        let mut nodes = Vec::with_capacity(rows.len());
        for row in &rows {
            let row: Row = read(row.get().as_bytes())?;
            let node = Node::from_json(row.declaration.get());
            let odd = |message| Failure::failed(format!("the server's answer is odd: {message}"));
            nodes.push(node.map_err(|wrong| odd(wrong.message))?);
        }
        Ok(nodes)
    }
}
