//! `gatepost apply`

use std::collections::HashMap;
use std::io::{BufRead, IsTerminal, Write};

use bytes::Bytes;
use clap::Args;
use gatepost_core::TenantId;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::input::shown_name;
use super::{Context, print, read_whole};
use crate::declare::document::{Document, Format, Item, SECTIONS, Section, Sent, TENANT};
use crate::declare::node::{Node, Value, Wrong, line_and_column};
use crate::declare::plan::{Action, Judged, Plan, Step};
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, CallError, Connection, Problem, encoded, read};
use crate::text::printable;

const EXAMPLES: &str = "\
Examples:
  gatepost apply setup.toml --tenant acme --plan     show what would change, change nothing
  gatepost apply setup.toml --tenant acme --yes
  gatepost apply setup.toml --tenant acme --prune    also delete what the file does not have
  gatepost export --tenant sandbox | gatepost apply - --tenant acme

A file, TOML or JSON:
  [[event_types]]
  name = \"order.placed\"
  description = \"An order\"

  [[webhooks]]
  name = \"orders\"
  url = \"https://example.com/hooks\"
  events = [\"order.*\"]
  secret = { env = \"ORDERS_SECRET\" }
  headers = { x-api-key = { env = \"ORDERS_API_KEY\" } }

Things are known by their name. What a webhook's declaration leaves out is as by
default, but for `enabled` and `secret`, which are left as they are.";

/// Make a tenant's setup as a file says
///
/// Shows what it will do first. Nothing is done if anything in the file is wrong; a second run finds
/// nothing to do.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// The file (TOML or JSON), or - for stdin
    file: String,
    /// Whose setup; default: the tenant the file names
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Show what would be done, and do nothing
    #[arg(long, visible_alias = "dry-run")]
    plan: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Delete what is there and not in the file, of the kinds of things the file has
    #[arg(long)]
    prune: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// A thing as it is there.
struct Present {
    id: Option<String>,
    name: String,
}

/// A step that was done.
struct Done {
    /// Which, by its place in the plan.
    step: usize,
    /// The id of what was made.
    id: Option<String>,
    /// The secret that was made for it: shown this once.
    secret: Option<String>,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let text = read_whole(&self.file)?;
        let variable = |name: &str| std::env::var(name).ok();
        let document = Document::read(&text, Format::of(&self.file, &text), &variable)
            .map_err(|wrong| self.wrong(&text, &wrong))?;
        let tenant = match (&self.tenant, &document.tenant) {
            (Some(tenant), _) => tenant.clone(),
            (None, Some(named)) => {
                named.parse().map_err(|error| Failure::failed(format!("tenant {named:?} {error}")))?
            }
            (None, None) => return Err(Failure::usage("whose setup is it? Name the tenant with --tenant")),
        };
        let api = Api::connect(&self.connection, context.config.as_deref())?;
        let new_tenant = self.new_tenant(&api, &tenant, &document).await?;
        let is_new = new_tenant.is_some();
        let mut plan = match new_tenant {
            Some(step) => Plan { steps: vec![step] },
            None => self.planned(&api, &tenant, &text, &document).await?,
        };
        self.show(&plan)?;
        if self.plan || plan.is_empty() {
            if self.json {
                print(&self.told(&tenant, &plan, &[]).to_string())?;
            } else if is_new {
                print("what else the file has is judged once the tenant is there")?;
            }
            return if plan.is_empty() { Ok(()) } else { Err(Failure::changes()) };
        }
        self.confirm(&plan)?;
        let mut done = Vec::new();
        let mut outcome = self.apply(&api, &tenant, &plan, &mut done).await;
        if is_new && outcome.is_ok() {
            let rest = self.planned(&api, &tenant, &text, &document).await?;
            self.show(&rest)?;
            plan.steps.extend(rest.steps.into_iter().filter(|step| step.section != TENANT));
            outcome = self.apply(&api, &tenant, &plan, &mut done).await;
        }
        if self.json {
            print(&self.told(&tenant, &plan, &done).to_string())?;
        } else {
            for done in &done {
                print(&printable(&done.to_text(&plan)))?;
            }
        }
        outcome.map_err(|(at, error)| {
            let step = &plan.steps[at];
            let (made, of) = (done.len(), plan.steps.iter().filter(|step| step.action != Action::None).count());
            let what = format!("{} {}", step.section.word, step.name);
            Failure::failed(printable(&format!(
                "{what}: {error}\n{made} of {of} changes are made; run it again to go on"
            )))
        })
    }

    fn show(&self, plan: &Plan) -> Outcome {
        if self.json { Ok(()) } else { print(&printable(&plan.to_text())) }
    }

    /// The making of the tenant, if there is none yet and the file says what it is.
    async fn new_tenant(&self, api: &Api, tenant: &TenantId, document: &Document) -> Outcome<Option<Step>> {
        let Some(node) = document.of_tenant() else { return Ok(None) };
        match api.call(Method::GET, &format!("/v1/tenants/{tenant}"), None).await {
            Err(CallError::Refused(problem)) if problem.status == 404 => {
                let mut node = node.clone();
                node.take("id");
                let after = node.clone();
                let item = Item { section: TENANT, index: 0, name: tenant.as_str(), node: &node };
                Ok(Some(Step::of(&item, None, Judged { before: None, after, secrets: Vec::new() })))
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(None),
        }
    }

    /// What the file says of the tenant itself. Of another tenant's file name and environment are left out:
    /// they say which one that is.
    fn of_tenant(&self, document: &Document, tenant: &TenantId) -> Option<Node> {
        let mut node = document.of_tenant()?.clone();
        let another = node.take("id").is_some_and(|id| id.node.as_text() != Some(tenant.as_str()));
        if another {
            node.take("name");
            node.take("environment");
        }
        Some(node).filter(|node| !node.members().is_empty())
    }

    /// Everything that is wrong with the file, each with its place.
    fn wrong(&self, text: &str, wrong: &[Wrong]) -> Failure {
        let name = shown_name(&self.file);
        let lines: Vec<String> = wrong
            .iter()
            .map(|wrong| {
                let (line, column) = line_and_column(text, wrong.at);
                format!("{name}:{line}:{column}: {}", wrong.message)
            })
            .collect();
        Failure::failed(printable(&lines.join("\n       ")))
    }

    /// Asks the server what the file comes to.
    async fn planned(&self, api: &Api, tenant: &TenantId, text: &str, document: &Document) -> Outcome<Plan> {
        let mut present: HashMap<&str, Vec<Present>> = HashMap::new();
        for section in SECTIONS {
            present.insert(section.key, there(api, tenant, section).await?);
        }
        let items = document.items();
        let (mut request, mut ids, mut wrong) = (Node::of(Value::Object(Vec::new())), Vec::new(), Vec::new());
        for section in SECTIONS {
            let mut list = Vec::new();
            for item in items.iter().filter(|item| item.section == section) {
                let named: Vec<_> = present[section.key].iter().filter(|present| present.name == item.name).collect();
                if named.len() > 1 {
                    let at = document.root.place_of(&format!("/{}/{}/name", section.key, item.index));
                    let message = format!(
                        "{} {}s of tenant {tenant} have this name; give them names of their own",
                        named.len(),
                        section.word
                    );
                    wrong.push(Wrong::new(at, message));
                }
                let id = named.first().and_then(|present| present.id.clone());
                let mut node = item.node.clone();
                if let Some(id) = &id {
                    node.set("id", Node::text(id.clone()));
                }
                list.push(node);
                ids.push(id);
            }
            request.set(section.key, Node::of(Value::List(list)));
        }
        if !wrong.is_empty() {
            return Err(self.wrong(text, &wrong));
        }
        let of_tenant = self.of_tenant(document, tenant);
        if let Some(node) = &of_tenant {
            request.set(TENANT.key, node.clone());
        }
        let (tenant_judged, judged) = self.judge(api, tenant, text, document, &request).await?;
        let mut plan = Plan::default();
        if let (Some(node), Some(judged)) = (&of_tenant, tenant_judged) {
            let item = Item { section: TENANT, index: 0, name: tenant.as_str(), node };
            plan.steps.push(Step::of(&item, None, judged));
        }
        for ((item, id), judged) in items.iter().zip(ids).zip(judged) {
            plan.steps.push(Step::of(item, id, judged));
        }
        if self.prune {
            prune(&mut plan, document, &items, &present);
        }
        Ok(plan)
    }

    async fn judge(
        &self,
        api: &Api,
        tenant: &TenantId,
        text: &str,
        document: &Document,
        request: &Node,
    ) -> Outcome<(Option<Judged>, Vec<Judged>)> {
        #[derive(Deserialize)]
        struct Row {
            before: Option<Box<RawValue>>,
            after: Box<RawValue>,
            secrets: Vec<String>,
        }
        impl Row {
            fn judged(self) -> Outcome<Judged> {
                let before = self.before.map(|raw| node(&raw)).transpose()?;
                Ok(Judged { before, after: node(&self.after)?, secrets: self.secrets })
            }
        }
        let path = format!("/v1/tenants/{tenant}/setup/plan");
        let answer = match api.call(Method::POST, &path, Some(Bytes::from(request.to_json()))).await {
            Ok(answer) => answer,
            Err(CallError::Refused(problem)) if problem.status == 422 && !problem.errors.is_empty() => {
                return Err(self.wrong(text, &places(document, &problem)));
            }
            Err(error) => return Err(error.into()),
        };
        let mut answer: HashMap<String, Box<RawValue>> = read(&answer)?;
        let mut judged = Vec::new();
        for section in SECTIONS {
            let rows: Vec<Row> = match answer.remove(section.key) {
                Some(rows) => read(rows.get().as_bytes())?,
                None => Vec::new(),
            };
            for row in rows {
                judged.push(row.judged()?);
            }
        }
        let of_tenant: Option<Row> = match answer.remove(TENANT.key) {
            Some(row) => read(row.get().as_bytes())?,
            None => None,
        };
        Ok((of_tenant.map(Row::judged).transpose()?, judged))
    }

    /// Lets a person think again; a script has said what it wants.
    fn confirm(&self, plan: &Plan) -> Outcome {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() || self.file == "-" || self.json {
            if plan.count(Action::Delete) > 0 {
                return Err(Failure::usage("this would delete things, and nobody can be asked: say --yes"));
            }
            return Ok(());
        }
        let _ = write!(std::io::stderr(), "apply this? [y/N] ");
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
            Ok(())
        } else {
            Err(Failure::failed("nothing was changed"))
        }
    }

    /// Does what is not done yet.
    async fn apply(
        &self,
        api: &Api,
        tenant: &TenantId,
        plan: &Plan,
        done: &mut Vec<Done>,
    ) -> Result<(), (usize, CallError)> {
        for (at, step) in plan.steps.iter().enumerate().filter(|(_, step)| step.action != Action::None) {
            if !done.iter().any(|done| done.step == at) {
                done.push(do_step(api, tenant, (at, step)).await.map_err(|error| (at, error))?);
            }
        }
        Ok(())
    }

    fn told(&self, tenant: &TenantId, plan: &Plan, done: &[Done]) -> serde_json::Value {
        let steps = plan.steps.iter().enumerate().filter(|(_, step)| step.action != Action::None).map(|(at, step)| {
            let made = done.iter().find(|done| done.step == at);
            let mut row = json!({
                "action": step.action, "kind": step.section.word, "name": step.name, "id": step.id,
                "changes": step.changes, "secrets": step.secrets, "applied": made.is_some(),
            });
            if let Some(made) = made {
                row["id"] = json!(made.id.as_ref().or(step.id.as_ref()));
                if let Some(secret) = &made.secret {
                    row["secret"] = json!(secret);
                }
            }
            row
        });
        json!({
            "tenant": tenant.as_str(),
            "changes": steps.collect::<Vec<_>>(),
            "create": plan.count(Action::Create),
            "update": plan.count(Action::Update),
            "delete": plan.count(Action::Delete),
            "unchanged": plan.count(Action::None),
        })
    }
}

impl Done {
    fn to_text(&self, plan: &Plan) -> String {
        let step = &plan.steps[self.step];
        let (word, name) = (step.section.word, &step.name);
        match step.action {
            Action::Create => {
                let id = self.id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
                let secret = self.secret.as_ref();
                let secret =
                    secret.map(|secret| format!("; its secret, shown this once:\n{secret}")).unwrap_or_default();
                format!("made {word} {name}{id}{secret}")
            }
            Action::Update => format!("changed {word} {name}"),
            _ => format!("deleted {word} {name}"),
        }
    }
}

/// What a tenant has of one kind.
async fn there(api: &Api, tenant: &TenantId, section: Section) -> Outcome<Vec<Present>> {
    #[derive(Deserialize)]
    struct Row {
        id: Option<String>,
        declaration: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let rows = api.all(&format!("/v1/tenants/{tenant}/setup/{}", section.key)).await?;
    rows.iter()
        .map(|row| read::<Row>(row.get().as_bytes()).map(|row| Present { id: row.id, name: row.declaration.name }))
        .collect()
}

/// What of the kinds the file has is there and not in it. Last, in the opposite order of making.
fn prune(plan: &mut Plan, document: &Document, items: &[Item<'_>], present: &HashMap<&str, Vec<Present>>) {
    for section in SECTIONS.into_iter().rev().filter(|section| document.has(*section)) {
        for there in &present[section.key] {
            if !items.iter().any(|item| item.section == section && item.name == there.name) {
                let id = there.id.as_deref().unwrap_or(&there.name);
                plan.steps.push(Step::delete(section, &there.name, id));
            }
        }
    }
}

/// The server's errors, at their places in the file.
fn places(document: &Document, problem: &Problem) -> Vec<Wrong> {
    let mut wrong: Vec<Wrong> = problem
        .errors
        .iter()
        .map(|error| {
            // What stands in a list is called by its name: its number means little to people.
            let mut parts = error.pointer.splitn(4, '/').skip(1);
            let (list, index, rest) = (parts.next(), parts.next(), parts.next());
            let item = document.items().into_iter().find(|item| {
                Some(item.section.key) == list && index.is_some_and(|index| index.parse() == Ok(item.index))
            });
            let what = match item {
                Some(item) => format!("{} {}", item.section.word, item.name),
                None => "the file".to_owned(),
            };
            let member = rest.map(|rest| format!(", {}", rest.replace('/', "."))).unwrap_or_default();
            Wrong::new(document.root.place_of(&error.pointer), format!("{what}{member}: {}", error.message))
        })
        .collect();
    wrong.sort_by_key(|wrong| wrong.at);
    wrong
}

async fn do_step(api: &Api, tenant: &TenantId, (at, step): (usize, &Step)) -> Result<Done, CallError> {
    let mut done = Done { step: at, id: None, secret: None };
    let body = |node: &Node| Some(Bytes::from(node.to_json()));
    if step.section == TENANT {
        api.call(Method::PUT, &format!("/v1/tenants/{tenant}"), body(&step.body)).await?;
        return Ok(done);
    }
    if step.section.sent != Sent::Patch {
        let path = match step.section.sent {
            Sent::Members => format!("/v1/tenants/{tenant}/points/{}", encoded(&step.name)),
            _ => format!("/v1/event-types/{}?tenant={tenant}", encoded(&step.name)),
        };
        if step.action == Action::Delete {
            api.call(Method::DELETE, &path, None).await?;
        } else {
            // Its name is in the path.
            let mut node = step.body.clone();
            node.take("name");
            api.call(Method::PUT, &path, body(&node)).await?;
        }
        return Ok(done);
    }
    let list = format!("/v1/tenants/{tenant}/{}", step.section.key);
    let Some(id) = step.id.as_deref() else {
        #[derive(Deserialize)]
        struct Made {
            id: String,
            secret: Option<String>,
        }
        let answer = api.call(Method::POST, &list, body(&step.body)).await?;
        let made: Made = serde_json::from_slice(&answer).map_err(|error| CallError::NoAnswer(error.to_string()))?;
        // One that was given is known to whoever gave it.
        done.secret = made.secret.filter(|_| step.body.get("secret").is_none());
        done.id = Some(made.id);
        return Ok(done);
    };
    let path = format!("{list}/{}", encoded(id));
    if step.action == Action::Delete {
        api.call(Method::DELETE, &path, None).await?;
        return Ok(done);
    }
    // The new secret first: a change of the schemes may need it.
    if let Some(secret) = &step.rotate {
        let mut node = Node::of(Value::Object(Vec::new()));
        node.set("secret", secret.clone());
        api.call(Method::POST, &format!("{path}/rotate-secret"), body(&node)).await?;
    }
    if !step.body.members().is_empty() {
        api.call(Method::PATCH, &path, body(&step.body)).await?;
    }
    Ok(done)
}

fn node(raw: &RawValue) -> Outcome<Node> {
    Node::from_json(raw.get())
        .map_err(|wrong| Failure::failed(format!("the server's answer is odd: {}", wrong.message)))
}
