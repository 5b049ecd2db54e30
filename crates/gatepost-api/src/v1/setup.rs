//! A tenant's setup, whole: to write it down, and to judge another before any of it is applied.

use std::sync::Arc;

use axum::response::Response;
use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::event::{EventType, Urgency};
use gatepost_core::hooks::json::parse_settings;
use gatepost_core::hooks::points::PointDef;
use gatepost_core::profiles::DEFAULT;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::WebhookConfig;
use gatepost_core::{HookId, WebhookId};
use gatepost_engine::store::{PageRequest, Scope};
use gatepost_engine::{Engine, Error, FieldError, Kind};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::json as answer;
use crate::body::Content;
use crate::problem::{ErrorCode, Problem};
use crate::state::{Call, Names, Received, fail};
use crate::wire::cursor::{List, encode, encode_number};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, written_tenant};
use crate::wire::webhook::writable_config;
use crate::wire::{At, Errors, Malformed, Read, Reader, schema};

/// Members of a setup.
pub(crate) const SETUP: [&str; 5] = ["tenant", "event_types", "points", "webhooks", "hooks"];
/// Things of one kind judged at once.
const ITEMS_MAX: usize = 1_000;

/// Where a part of a setup is.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path to the OpenAPI document and is never built")]
pub(crate) struct SetupPath {
    /// `tenant`, `webhooks`, `hooks`, `points` or `event_types`.
    kind: String,
}

/// A setup to plan.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetupInput)]
pub(crate) struct SetupInput {
    /// As of `PUT /v1/tenants/{tenant}`: absent members keep.
    #[schema(value_type = Option<schema::TenantInput>)]
    tenant: Option<Value>,
    /// As of `PUT …/points/{point}`, each with its `name`; absent members are as by default.
    #[schema(max_items = 1000, value_type = Option<Vec<Object>>)]
    points: Option<Vec<Value>>,
    /// As of `PUT /v1/event-types/{name}`, each with its `name`.
    #[schema(max_items = 1000, value_type = Option<Vec<Object>>)]
    event_types: Option<Vec<Value>>,
    /// As of `POST …/webhooks`, each with the `id` of the one it shall become, if there is one.
    #[schema(max_items = 1000, value_type = Option<Vec<Object>>)]
    webhooks: Option<Vec<Value>>,
    /// As of `POST …/hooks`, each with the `id` of the one it shall become, if there is one.
    #[schema(max_items = 1000, value_type = Option<Vec<Object>>)]
    hooks: Option<Vec<Value>>,
}

/// One thing of a tenant's setup.
#[derive(Serialize, ToSchema)]
#[schema(as = SetupRow)]
pub(crate) struct ShowSetup {
    /// Its id; null where the name is one.
    id: Option<String>,
    /// The members that can be written, and nothing else. Secrets are `***`.
    #[schema(value_type = Object)]
    declaration: Box<RawValue>,
}

/// What a setup would come to.
#[derive(Serialize, ToSchema)]
#[schema(as = SetupPlan)]
pub(crate) struct ShowPlan {
    /// Null: nothing was said of it.
    tenant: Option<ShowPlanned>,
    /// In the order they were sent.
    points: Vec<ShowPlanned>,
    /// In the order they were sent.
    event_types: Vec<ShowPlanned>,
    /// In the order they were sent.
    webhooks: Vec<ShowPlanned>,
    /// In the order they were sent.
    hooks: Vec<ShowPlanned>,
}

/// What one thing would come to.
#[derive(Serialize, ToSchema)]
#[schema(as = SetupPlanned)]
pub(crate) struct ShowPlanned {
    /// As it is, by the members that can be written; null: there is none.
    #[schema(value_type = Option<Object>)]
    before: Option<Box<RawValue>>,
    /// As it would be.
    #[schema(value_type = Object)]
    after: Box<RawValue>,
    /// JSON pointers to the secrets that would be new or others than now. Their values are never answered.
    secrets: Vec<String>,
}

/// Show a tenant's setup
///
/// By the members that can be written: what `gatepost export` prints. `kind` is `tenant` (one row),
/// `webhooks` or `hooks` (newest first), `points` (those the tenant defined or set, by name), or `event_types`
/// (the tenant's own, by name; a page may be short and still have a cursor). Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/setup/{kind}", operation_id = "getSetup", tag = "setup",
    params(schema::TenantPath, SetupPath, schema::PageParams),
    responses((status = 200, description = "A page of the setup", body = ListPage<ShowSetup>))
)]
pub(crate) async fn list(Names((name, kind)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor"], &mut errors);
    match kind.as_str() {
        "webhooks" => {
            let page = params.page(List::SetupWebhooks, tenant.key.0, &mut errors);
            errors.check()?;
            answer(StatusCode::OK, &webhooks(call.engine().clone(), &tenant, page).await?)
        }
        "hooks" => {
            let page = params.page(List::SetupHooks, tenant.key.0, &mut errors);
            errors.check()?;
            answer(StatusCode::OK, &hooks(call.engine().clone(), &tenant, page).await?)
        }
        "tenant" => {
            params.page(List::SetupPoints, tenant.key.0, &mut errors);
            errors.check()?;
            let row = ShowSetup { id: Some(tenant.id.to_string()), declaration: raw(&written_tenant(&tenant)) };
            answer(StatusCode::OK, &ListPage { data: vec![row], next_cursor: None })
        }
        "points" => {
            let page = params.page(List::SetupPoints, tenant.key.0, &mut errors);
            errors.check()?;
            answer(StatusCode::OK, &points(call.engine().clone(), &tenant, page).await?)
        }
        "event_types" => {
            let limit = params.limit(&mut errors);
            let after = params.cursor(List::SetupTypes, tenant.key.0, &mut errors);
            errors.check()?;
            answer(StatusCode::OK, &event_types(call.engine().clone(), &tenant, limit, after).await?)
        }
        _ => Err(Problem::new(ErrorCode::NotFound, format!("a setup has {}", SETUP.join(", ")))),
    }
}

async fn webhooks(engine: Engine, tenant: &Tenant, page: PageRequest) -> Result<ListPage<ShowSetup>, Problem> {
    let page = engine.webhooks(tenant, page).await.map_err(fail(tenant.id.as_str(), ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::SetupWebhooks, tenant.key.0, position));
    let row = |view: &gatepost_engine::ops::WebhookView| ShowSetup {
        id: Some(view.webhook.id.to_string()),
        declaration: webhook(&view.webhook.config),
    };
    Ok(ListPage { data: page.rows.iter().map(row).collect(), next_cursor })
}

async fn hooks(engine: Engine, tenant: &Tenant, page: PageRequest) -> Result<ListPage<ShowSetup>, Problem> {
    let page = engine.hook_declarations(tenant, page).await.map_err(fail(tenant.id.as_str(), ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::SetupHooks, tenant.key.0, position));
    let row = |(id, members): &(HookId, Map<String, Value>)| ShowSetup {
        id: Some(id.to_string()),
        declaration: raw(members),
    };
    Ok(ListPage { data: page.rows.iter().map(row).collect(), next_cursor })
}

async fn points(engine: Engine, tenant: &Tenant, page: PageRequest) -> Result<ListPage<ShowSetup>, Problem> {
    let all = engine.point_declarations(tenant).await.map_err(fail(tenant.id.as_str(), ""))?;
    // The list is short: a position in it is cursor enough.
    let from = page.after.and_then(|after| usize::try_from(after).ok()).unwrap_or(0).min(all.len());
    let to = from.saturating_add(page.limit).min(all.len());
    let position = i64::try_from(to).unwrap_or(i64::MAX);
    let next_cursor = (to < all.len()).then(|| encode_number(List::SetupPoints, tenant.key.0, position));
    let data = all[from..to].iter().map(|members| ShowSetup { id: None, declaration: raw(members) }).collect();
    Ok(ListPage { data, next_cursor })
}

async fn event_types(
    engine: Engine,
    tenant: &Tenant,
    limit: usize,
    after: Option<Vec<u8>>,
) -> Result<ListPage<ShowSetup>, Problem> {
    let after = after.map(|name| String::from_utf8_lossy(&name).into_owned());
    let seen = engine.tenant_event_types(tenant, after.as_deref(), limit + 1).await;
    let mut seen = seen.map_err(fail(tenant.id.as_str(), ""))?;
    let more = seen.len() > limit;
    seen.truncate(limit);
    let cursor = |name: &EventType| encode(List::SetupTypes, tenant.key.0, name.as_str().as_bytes());
    let next_cursor = seen.last().filter(|_| more).map(|one| cursor(&one.view.name));
    let own = seen.iter().filter(|one| one.own).filter_map(|one| {
        let definition = one.view.definition.as_ref()?;
        Some(ShowSetup { id: None, declaration: event_type(&one.view.name, definition) })
    });
    Ok(ListPage { data: own.collect(), next_cursor })
}

/// A webhook as it would be written; what is as by default is left out.
fn webhook(config: &WebhookConfig) -> Box<RawValue> {
    let mut value = writable_config(config);
    if let Some(members) = value.as_object_mut() {
        // Fixed at creation, so no part of a patch; but of what is created.
        if config.profile != DEFAULT {
            members.insert("profile".to_owned(), config.profile.clone().into());
        }
        if config.ordering.is_none() {
            members.remove("ordering");
        }
        if !config.paused {
            members.remove("paused");
        }
        members.retain(|_, member| !member.as_object().is_some_and(Map::is_empty));
    }
    raw(&value)
}

/// An event type as it would be written; what is as by default is left out.
fn event_type(name: &EventType, definition: &EventTypeDefinition) -> Box<RawValue> {
    #[derive(Serialize)]
    struct Form<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        family: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        example: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        schema: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        urgency: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        deprecated: Option<bool>,
    }
    raw(&Form {
        name: name.as_str(),
        family: Some(definition.family.as_str()).filter(|family| *family != name.family()),
        description: Some(definition.description.as_str()).filter(|text| !text.is_empty()),
        example: definition.example.as_deref(),
        schema: definition.schema.as_deref(),
        urgency: (definition.urgency != Urgency::default()).then(|| definition.urgency.as_str()),
        deprecated: definition.deprecated.then_some(true),
    })
}

/// Texts, numbers and JSON kept as it is: cannot fail to be written.
fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Plan a setup
///
/// What these settings, points, webhooks, hooks and event types would come to, without changing anything: every error of all
/// of them at once, or each as it is and as it would be. A webhook or hook with an `id` is that one, whole, as
/// it shall be (an absent `enabled` keeps); without one it is new. What `gatepost apply` does first.
/// Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/setup/plan", operation_id = "planSetup", tag = "setup",
    params(schema::TenantPath),
    request_body = SetupInput,
    responses((status = 200, description = "All of it can be applied", body = ShowPlan))
)]
pub(crate) async fn plan(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let setup = received.read(&mut errors, |reader| reader.setup())?;
    let (points, webhooks, hooks) = (Vec::new(), Vec::new(), Vec::new());
    let mut plan = ShowPlan { tenant: None, event_types: Vec::new(), points, webhooks, hooks };
    if let Some(members) = &setup.tenant {
        plan.tenant = plan_tenant(&received, &tenant, members, &mut errors)?;
    }
    for (index, members) in setup.event_types.iter().enumerate() {
        let place = format!("/event_types/{index}");
        plan.event_types.extend(plan_type(&received, &tenant, members, &place, &mut errors).await?);
    }
    // Hooks may be of points that are made before them.
    let mut planned = Vec::new();
    for (index, members) in setup.points.iter().enumerate() {
        let place = format!("/points/{index}");
        let Some((point, shown)) = plan_point(&received, &tenant, members, &place, &mut errors).await? else {
            continue;
        };
        planned.push(point);
        plan.points.push(shown);
    }
    for (index, members) in setup.webhooks.iter().enumerate() {
        let place = format!("/webhooks/{index}");
        plan.webhooks.extend(plan_webhook(&received, &tenant, members, &place, &mut errors).await?);
    }
    for (index, members) in setup.hooks.iter().enumerate() {
        let place = format!("/hooks/{index}");
        plan.hooks.extend(plan_hook(&received, &tenant, (members, &planned), &place, &mut errors).await?);
    }
    errors.check()?;
    answer(StatusCode::OK, &plan)
}

/// The things of a setup, each apart from what names it.
#[derive(Default)]
pub(crate) struct Setup {
    tenant: Option<Thing>,
    points: Vec<Thing>,
    event_types: Vec<Thing>,
    webhooks: Vec<Thing>,
    hooks: Vec<Thing>,
}

/// What names a thing, and the rest of it as JSON.
pub(crate) struct Thing {
    named: Option<String>,
    rest: String,
}

impl<'a> Reader<'a, '_> {
    /// A setup to plan. What its things say is read by each kind's own reader.
    pub(crate) fn setup(&mut self) -> Read<Setup> {
        let Some(fields) = self.open(self.document(), At::Root, &SETUP)? else { return Ok(Setup::default()) };
        let mut things = |list: &'static str, naming: &str| -> Read<Vec<Thing>> {
            let Some(raw) = fields.optional(list) else { return Ok(Vec::new()) };
            let at = At::Root.member(list);
            let Some(items) = self.items(raw.get(), at, ITEMS_MAX)? else { return Ok(Vec::new()) };
            if items.count > ITEMS_MAX {
                self.errors.push(at, format!("must have at most {ITEMS_MAX} items"));
                return Ok(Vec::new());
            }
            let mut things = Vec::with_capacity(items.items.len());
            for (index, raw) in items.items.into_iter().enumerate() {
                things.push(self.thing(raw, at.item(index), naming)?);
            }
            Ok(things)
        };
        Ok(Setup {
            points: things("points", "name")?,
            event_types: things("event_types", "name")?,
            webhooks: things("webhooks", "id")?,
            hooks: things("hooks", "id")?,
            tenant: match fields.optional("tenant") {
                Some(raw) => Some(self.thing(raw, At::Root.member("tenant"), "id")?),
                None => None,
            },
        })
    }

    fn thing(&mut self, raw: &'a RawValue, at: At<'_>, naming: &str) -> Read<Thing> {
        let mut thing = Thing { named: None, rest: String::from("{") };
        for (name, value) in self.open_any(raw.get(), at)?.unwrap_or_default() {
            if name == naming {
                thing.named = self.string(value, at.member(naming)).map(String::from);
                continue;
            }
            if thing.rest.len() > 1 {
                thing.rest.push(',');
            }
            // A name that was read can be written.
            thing.rest += &serde_json::to_string(&name).unwrap_or_default();
            thing.rest.push(':');
            thing.rest += value.get();
        }
        thing.rest.push('}');
        Ok(thing)
    }
}

impl Thing {
    /// The rest as values.
    fn members(&self) -> Result<Map<String, Value>, Problem> {
        match parse_settings(self.rest.as_bytes()) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) => Ok(Map::new()),
            Err(bad) => Err(Problem::malformed(&bad.message, bad.line.max(1), bad.column.max(1))),
        }
    }
}

/// Adds the errors of a thing that stands at `place`.
fn told(errors: &mut Errors, place: &str, found: Vec<FieldError>) {
    for error in found {
        errors.push(format!("{place}{}", error.pointer), error.message);
    }
}

/// Reads the rest of a thing. `None`: it is wrong, and noted.
fn read<T>(
    thing: &Thing,
    place: &str,
    errors: &mut Errors,
    read: impl FnOnce(&mut Reader<'_, '_>) -> Read<T>,
) -> Result<(T, bool), Problem> {
    let mut found = Errors::default();
    let value = Reader::new(thing.rest.as_bytes(), &mut found).and_then(|mut reader| read(&mut reader));
    // The whole document was well-formed, but for what only a closer look finds (a member named twice).
    let value = value.map_err(|malformed: Malformed| malformed.into_problem(thing.rest.as_bytes()))?;
    let fine = found.is_empty();
    told(errors, place, found.into_list());
    Ok((value, fine))
}

/// The tenant itself: what is not said of it is kept.
fn plan_tenant(
    received: &Received,
    tenant: &Tenant,
    thing: &Thing,
    errors: &mut Errors,
) -> Result<Option<ShowPlanned>, Problem> {
    let (input, fine) = read(thing, "/tenant", errors, |reader| reader.tenant())?;
    match received.engine().preview_tenant(tenant, input) {
        Ok(after) if fine => Ok(Some(ShowPlanned {
            before: Some(raw(&written_tenant(tenant))),
            after: raw(&written_tenant(&after)),
            secrets: Vec::new(),
        })),
        Ok(_) => Ok(None),
        Err(Error::Invalid(found)) => {
            told(errors, "/tenant", found);
            Ok(None)
        }
        Err(error) => Err(Problem::of(error, tenant.id.as_str(), "")),
    }
}

/// A point, and what is shown of it.
async fn plan_point(
    received: &Received,
    tenant: &Tenant,
    thing: &Thing,
    place: &str,
    errors: &mut Errors,
) -> Result<Option<(Arc<PointDef>, ShowPlanned)>, Problem> {
    let Some(name) = thing.named.as_deref() else {
        errors.push(format!("{place}/name"), "is required");
        return Ok(None);
    };
    match received.engine().preview_point(tenant, name, thing.members()?).await {
        Ok(preview) => {
            let (before, after) = (preview.before.as_ref().map(raw), raw(&preview.after));
            Ok(Some((preview.point, ShowPlanned { before, after, secrets: Vec::new() })))
        }
        Err(Error::Invalid(found)) => {
            let at_name = |e: FieldError| match e.pointer.as_str() {
                "{point}" => FieldError::new("/name", e.message),
                _ => e,
            };
            told(errors, place, found.into_iter().map(at_name).collect());
            Ok(None)
        }
        Err(error) => Err(Problem::of(error, tenant.id.as_str(), name)),
    }
}

async fn plan_type(
    received: &Received,
    tenant: &Tenant,
    thing: &Thing,
    place: &str,
    errors: &mut Errors,
) -> Result<Option<ShowPlanned>, Problem> {
    let name: EventType = match thing.named.as_deref().map(str::parse) {
        Some(Ok(name)) => name,
        Some(Err(error)) => {
            errors.push(format!("{place}/name"), error.to_string());
            return Ok(None);
        }
        None => {
            errors.push(format!("{place}/name"), "is required");
            return Ok(None);
        }
    };
    let (definition, fine) = read(thing, place, errors, |reader| reader.event_type(&name))?;
    match received.engine().preview_event_type(tenant, &name, &definition).await {
        Ok(()) if fine => {}
        Ok(()) => return Ok(None),
        Err(Error::Invalid(found)) => {
            told(errors, place, found);
            return Ok(None);
        }
        Err(error) => return Err(Problem::of(error, tenant.id.as_str(), "")),
    }
    let before = match received.engine().tenant_event_type(tenant, name.as_str()).await {
        Ok(seen) => seen.view.definition.as_ref().filter(|_| seen.own).map(|present| event_type(&name, present)),
        Err(Error::NotFound(Kind::EventType)) => None,
        Err(error) => return Err(Problem::of(error, tenant.id.as_str(), name.as_str())),
    };
    Ok(Some(ShowPlanned { before, after: event_type(&name, &definition), secrets: Vec::new() }))
}

async fn plan_webhook(
    received: &Received,
    tenant: &Tenant,
    thing: &Thing,
    place: &str,
    errors: &mut Errors,
) -> Result<Option<ShowPlanned>, Problem> {
    let engine = received.engine();
    let (input, fine) = read(thing, place, errors, |reader| reader.webhook())?;
    let present = match thing.named.as_deref() {
        None => None,
        Some(id) => match id.parse::<WebhookId>() {
            Ok(id) => match engine.webhook(tenant, id).await {
                Ok(view) => Some(view),
                Err(Error::NotFound(_)) => {
                    errors.push(format!("{place}/id"), "this tenant has no such webhook");
                    return Ok(None);
                }
                Err(error) => return Err(Problem::of(error, tenant.id.as_str(), "")),
            },
            Err(_) => {
                errors.push(format!("{place}/id"), "is no webhook's id");
                return Ok(None);
            }
        },
    };
    let present = present.as_ref().map(|view| &*view.webhook);
    match engine.preview_webhook(tenant, input, present) {
        Ok(preview) if fine => Ok(Some(ShowPlanned {
            before: present.map(|present| webhook(&present.config)),
            after: webhook(&preview.config),
            secrets: preview.secrets,
        })),
        Ok(_) => Ok(None),
        Err(Error::Invalid(found)) => {
            // What could not be read is missed here too: it is told once.
            let placed = found.into_iter().map(|e| FieldError::new(format!("{place}{}", e.pointer), e.message));
            errors.extend(placed.collect());
            Ok(None)
        }
        Err(error) => Err(Problem::of(error, tenant.id.as_str(), "")),
    }
}

async fn plan_hook(
    received: &Received,
    tenant: &Tenant,
    (thing, planned): (&Thing, &[Arc<PointDef>]),
    place: &str,
    errors: &mut Errors,
) -> Result<Option<ShowPlanned>, Problem> {
    let present = match thing.named.as_deref().map(str::parse::<HookId>) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => {
            errors.push(format!("{place}/id"), "is no hook's id");
            return Ok(None);
        }
    };
    let members = thing.members()?;
    match received.engine().preview_hook(tenant, members, present, planned).await {
        Ok(preview) => Ok(Some(ShowPlanned {
            before: preview.before.as_ref().map(raw),
            after: raw(&preview.after),
            secrets: preview.secrets,
        })),
        Err(Error::Invalid(found)) => {
            told(errors, place, found);
            Ok(None)
        }
        Err(Error::NotFound(Kind::Hook)) => {
            errors.push(format!("{place}/id"), "this tenant has no such hook");
            Ok(None)
        }
        Err(error) => Err(Problem::of(error, tenant.id.as_str(), "")),
    }
}
