//! `gatepost keys`

use bytes::Bytes;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use gatepost_core::{TenantId, Timestamp};
use gatepost_engine::SystemEntropy;
use gatepost_engine::store::Scope;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::rotate_master::{self, RotateMaster};
use super::{Context, print, print_array};
use crate::config::{Flags, Settings};
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, Connection, encoded, read};
use crate::keyfiles;
use crate::text::table;

const EXAMPLES: &str = "\
Examples:
  gatepost keys create platform --scopes publish
  gatepost keys create acme-admin --scopes manage,read --tenant acme --expires-at 2030-01-01T00:00:00Z
  gatepost keys list
  gatepost keys delete key_…
  gatepost keys rotate-master                 (another master key; the server stopped)
  gatepost keys rotate-admin                  (another admin key, for the next start)";

const ROTATE_ADMIN: &str = "\
Examples:
  gatepost keys rotate-admin --data-dir /var/lib/gatepost && systemctl restart gatepost

The new key is in admin.key of the data folder and is not printed. The server
that runs goes on with the old one until it is started again; keys made with
\"keys create\" are not touched.";

/// Manage API keys
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a key; it is shown this once
    #[command(after_help = EXAMPLES)]
    Create {
        /// A name for people
        name: String,
        /// What it may do: admin, manage, publish, invoke, read
        #[arg(long, alias = "scope", required = true, value_delimiter = ',', value_name = "SCOPE,…", value_parser = scopes())]
        scopes: Vec<String>,
        /// The only tenant it may touch
        #[arg(long)]
        tenant: Option<TenantId>,
        /// When it stops working, such as 2030-01-01T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
        /// Print the server's answer as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Change the master key of a stopped server's store
    #[command(after_help = rotate_master::EXAMPLES)]
    RotateMaster(RotateMaster),
    /// Make another admin key for the data folder; the server takes it at its next start
    #[command(after_help = ROTATE_ADMIN)]
    RotateAdmin {
        /// Folder of the embedded store [env: GATEPOST_DATA_DIR] [default: ./gatepost-data]
        #[arg(long, value_name = "DIR")]
        data_dir: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List keys, newest first
    #[command(after_help = EXAMPLES)]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Take a key away: it stops working at once
    #[command(after_help = EXAMPLES)]
    Delete {
        /// The key's id (key_…), not the key
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
}

fn scopes() -> PossibleValuesParser {
    Scope::ALL.map(Scope::as_str).into()
}

#[derive(Deserialize)]
struct Key {
    id: String,
    key: Option<String>,
    name: String,
    scopes: Vec<String>,
    tenant: Option<String>,
    expires_at: Option<String>,
    created_at: String,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let config = context.config.as_deref();
        match self.action {
            Action::Create { name, scopes, tenant, expires_at, json, connection } => {
                let mut body = json!({ "name": name, "scopes": scopes });
                if let Some(tenant) = tenant {
                    body["tenant"] = tenant.to_string().into();
                }
                if let Some(at) = expires_at {
                    body["expires_at"] = at.to_string().into();
                }
                let api = Api::connect(&connection, config)?;
                let answer = api.call(Method::POST, "/v1/keys", Some(Bytes::from(body.to_string()))).await?;
                if json {
                    return print(&String::from_utf8_lossy(&answer));
                }
                let key: Key = read(&answer)?;
                let text = key.key.unwrap_or_default();
                print(&format!("made {} ({}): it is shown this once\n{text}", key.id, key.scopes.join(", ")))
            }
            Action::RotateMaster(command) => command.run(context).await,
            Action::RotateAdmin { data_dir, json } => rotate_admin(data_dir, json, context),
            Action::List { json, connection } => {
                let rows = Api::connect(&connection, config)?.all("/v1/keys").await?;
                if json {
                    return print_array(&rows);
                }
                let keys = rows.iter().map(|row| read::<Key>(row.get().as_bytes())).collect::<Outcome<Vec<_>>>()?;
                print(&table(
                    ["id", "name", "scopes", "tenant", "expires", "made"],
                    keys.into_iter().map(|key| {
                        let or = |text: Option<String>, none: &str| text.unwrap_or_else(|| none.to_owned());
                        let (tenant, expires) = (or(key.tenant, "any"), or(key.expires_at, "never"));
                        [key.id, key.name, key.scopes.join(", "), tenant, expires, key.created_at]
                    }),
                ))
            }
            Action::Delete { id, json, connection } => {
                let api = Api::connect(&connection, config)?;
                api.call(Method::DELETE, &format!("/v1/keys/{}", encoded(&id)), None).await?;
                print(&if json { json!({ "deleted": id }).to_string() } else { format!("deleted {id}") })
            }
        }
    }
}

/// Another admin key, in the file the server reads at its start.
fn rotate_admin(data_dir: Option<String>, json: bool, context: &Context) -> Outcome {
    let flags = Flags { data_dir, ..Flags::default() };
    let settings = Settings::load(&flags, context.config.as_deref())?;
    if settings.admin_key.value.is_some() {
        let origin = &settings.admin_key.origin;
        let text =
            format!("the admin key is the setting admin_key ({origin}): change it there and start the server again");
        return Err(Failure::usage(text));
    }
    let path = keyfiles::renew_admin_key(&settings.data_dir.value, &SystemEntropy)?.display().to_string();
    if json {
        return print(&json!({ "file": path }).to_string());
    }
    print(&format!("a new admin key is in {path}: the server takes it at its next start, until then the old one works"))
}
