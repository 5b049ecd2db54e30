//! A tenant's blocking hooks.

use axum::response::Response;
use gatepost_core::InvocationId;
use gatepost_core::hooks::json::{Malformed, Value, parse_settings, parse_strict};
use gatepost_engine::hooks::TryInput;
use gatepost_engine::store::Scope;
use gatepost_engine::{Error, Kind};
use http::StatusCode;
use serde_json::Map;

use super::{created, json, no_content};
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Call, Names, Received, fail, id};
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, ShowHook, ShowSecret, show_try};
use crate::wire::{At, Errors, hook_schema, schema};

impl Received {
    /// The body as one JSON value that is kept as it is written, no member named twice.
    pub(crate) fn value(&self) -> Result<Value, Problem> {
        parse_strict(&self.bytes).map_err(unread)
    }

    /// The body as the members of an object; an empty one has none. What is no object is noted.
    pub(crate) fn members(&self, errors: &mut Errors) -> Result<Map<String, serde_json::Value>, Problem> {
        if self.bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        match parse_settings(&self.bytes).map_err(unread)? {
            serde_json::Value::Object(members) => Ok(members),
            _ => {
                errors.push(At::Root, "must be an object");
                Ok(Map::new())
            }
        }
    }
}

fn unread(bad: Malformed) -> Problem {
    Problem::malformed(&bad.message, bad.line.max(1), bad.column.max(1))
}

/// Register a hook
///
/// New hooks observe: they are asked beside the decision, and change nothing. With `mode: enforce` the
/// receiver is tested first. The answer is the only time `secret` is shown. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/hooks", operation_id = "createHook", tag = "hooks",
    params(schema::TenantPath),
    request_body = hook_schema::HookInput,
    responses(
        (status = 201, description = "Registered", body = hook_schema::Hook, headers(("location" = String))),
        (status = 409, description = "`hook_unverified`: nothing was registered", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    call.no_query()?;
    let received = call.body(&[Content::Json]).await?;
    let mut errors = Errors::default();
    let members = received.members(&mut errors)?;
    errors.check()?;
    let made = received.engine().create_hook(&tenant, members).await;
    let (view, secret) = made.map_err(fail(&name, &name))?;
    let location = format!("/v1/tenants/{name}/hooks/{}", view.hook.id);
    created(&location, &ShowHook::new(&view, Some(secret.expose())))
}

/// List hooks
///
/// Newest first. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/hooks", operation_id = "listHooks", tag = "hooks",
    params(schema::TenantPath, hook_schema::HookParams),
    responses((status = 200, description = "A page of hooks", body = ListPage<hook_schema::Hook>))
)]
pub(crate) async fn list(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["point", "limit", "cursor"], &mut errors);
    let point = params.text("point", &mut errors);
    let page = params.page(List::Hooks, tenant.key.0, &mut errors);
    errors.check()?;
    let page = call.engine().hooks(&tenant, point.as_deref(), page).await.map_err(fail(&name, ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::Hooks, tenant.key.0, position));
    let data = page.rows.iter().map(|view| ShowHook::new(view, None)).collect();
    json(StatusCode::OK, &ListPage { data, next_cursor })
}

/// Show a hook
///
/// Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/hooks/{hook}", operation_id = "getHook", tag = "hooks",
    params(schema::TenantPath, schema::HookPath),
    responses((status = 200, description = "The hook", body = hook_schema::Hook))
)]
pub(crate) async fn get(Names((name, hook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    call.no_query()?;
    let id = id(Kind::Hook, &hook)?;
    let view = call.engine().hook(&tenant, id).await.map_err(fail(&name, &hook))?;
    json(StatusCode::OK, &ShowHook::new(&view, None))
}

/// Change a hook
///
/// A merge patch (RFC 7396). With `mode: enforce`, or a new address or secret of an enforced hook, the
/// receiver is tested first; if it does not pass, nothing changes. Holds for the next invocation.
/// Scope `manage`.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}/hooks/{hook}", operation_id = "updateHook", tag = "hooks",
    params(schema::TenantPath, schema::HookPath),
    request_body(
        content = hook_schema::HookPatch, content_type = "application/merge-patch+json",
        description = "A merge patch (RFC 7396); `application/json` is read the same way",
    ),
    responses(
        (status = 200, description = "Changed", body = hook_schema::Hook),
        (status = 409, description = "`hook_unverified` or `concurrent_change`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn patch(Names((name, hook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Hook, &hook)?;
    call.no_query()?;
    let received = call.body(&[Content::MergePatch, Content::Json]).await?;
    let mut errors = Errors::default();
    let patch = received.members(&mut errors)?;
    errors.check()?;
    let view = received.engine().update_hook(&tenant, id, &patch).await.map_err(fail(&name, &hook))?;
    json(StatusCode::OK, &ShowHook::new(&view, None))
}

/// Delete a hook
///
/// It is not asked any more. Scope `manage`.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/hooks/{hook}", operation_id = "deleteHook", tag = "hooks",
    params(schema::TenantPath, schema::HookPath),
    responses((status = 204, description = "Deleted"))
)]
pub(crate) async fn delete(Names((name, hook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    call.no_query()?;
    let id = id(Kind::Hook, &hook)?;
    call.engine().delete_hook(&tenant, id).await.map_err(fail(&name, &hook))?;
    Ok(no_content())
}

/// Try a hook
///
/// Sends the receiver the probe; a pass verifies the hook. With a sample, a pasted or a recorded
/// invocation it is asked that too, as a dry run. Works for hooks that are off. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/hooks/{hook}/try", operation_id = "tryHook", tag = "hooks",
    params(schema::TenantPath, schema::HookPath),
    request_body(content = hook_schema::TryInput, description = "May be empty"),
    responses((status = 200, description = "What it came to, good or bad", body = hook_schema::TryResult))
)]
pub(crate) async fn try_it(Names((name, hook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Hook, &hook)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let input = match received.bytes.iter().all(u8::is_ascii_whitespace) {
        true => TryInput::default(),
        false => read_try(received.value()?, &mut errors),
    };
    errors.check()?;
    let result = received.engine().try_hook(&tenant, id, input).await;
    let result = result.map_err(|error| match error {
        Error::NotFound(Kind::Invocation) => {
            let mut errors = Errors::default();
            errors.push("/invocation_id", "the tenant has no invocation with this id");
            errors.check().err().unwrap_or_else(Problem::internal)
        }
        error => Problem::of(error, &name, &hook),
    })?;
    json(StatusCode::OK, &show_try(&result))
}

/// Members of what a hook is tried with.
pub(crate) const TRY: [&str; 3] = ["sample", "invocation", "invocation_id"];

fn read_try(body: Value, errors: &mut Errors) -> TryInput {
    let mut input = TryInput::default();
    let Value::Object(mut members) = body else {
        errors.push(At::Root, "must be an object");
        return input;
    };
    match members.remove("sample") {
        None | Some(Value::Null) => {}
        Some(Value::Bool(yes)) => input.sample = yes,
        Some(_) => errors.push("/sample", "must be true or false"),
    }
    match members.remove("invocation") {
        None | Some(Value::Null) => {}
        Some(value @ Value::Object(_)) => input.invocation = Some(value),
        Some(_) => errors.push("/invocation", "must be an object"),
    }
    match members.remove("invocation_id") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => match text.parse::<InvocationId>() {
            Ok(id) => input.invocation_id = Some(id),
            Err(error) => errors.push("/invocation_id", error.to_string()),
        },
        Some(_) => errors.push("/invocation_id", "must be a text"),
    }
    let given = usize::from(input.sample)
        + usize::from(input.invocation.is_some())
        + usize::from(input.invocation_id.is_some());
    if given > 1 {
        errors.push(At::Root, "give one of sample, invocation and invocation_id");
    }
    for name in members.keys() {
        errors.push(At::Root.member(name), format!("unknown member; allowed: {}", TRY.join(", ")));
    }
    input
}

/// Rotate a hook's secret
///
/// Both secrets sign until the overlap has passed, where the dialect can carry two signatures. The hook
/// counts as unverified until its receiver passes a test. The answer is the only time the new one is
/// shown. Scope `manage`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/hooks/{hook}/rotate-secret", operation_id = "rotateHookSecret", tag = "hooks",
    params(schema::TenantPath, schema::HookPath),
    request_body(content = schema::RotateInput, description = "May be empty"),
    responses(
        (status = 200, description = "Rotated", body = ShowSecret),
        (status = 409, description = "`concurrent_change`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn rotate(Names((name, hook)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Manage).await?;
    let id = id(Kind::Hook, &hook)?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let (overlap, import) = received.read(&mut errors, |reader| reader.rotation())?;
    errors.check()?;
    let rotated = received.engine().rotate_hook_secret(&tenant, id, overlap, import).await;
    let secret = rotated.map_err(fail(&name, &hook))?;
    json(StatusCode::OK, &ShowSecret { secret: secret.expose() })
}
