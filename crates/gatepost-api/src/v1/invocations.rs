//! Blocking invocations: asked, shown, and what the platform then did.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gatepost_core::hooks::decision::{Cause, Decision};
use gatepost_core::hooks::json::{Map, Value, parse_strict};
use gatepost_core::trace::TraceContext;
use gatepost_core::{InvocationId, TenantId};
use gatepost_engine::hooks::{Ask, AskError, AskTarget};
use gatepost_engine::store::hooks::InvocationQuery;
use gatepost_engine::store::{Scope, StoreError};
use gatepost_engine::{Error, Kind};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::json;
use crate::body::Content;
use crate::idempotency;
use crate::problem::{ErrorCode, Problem};
use crate::state::{Call, Names, fail, id};
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::show::{ListPage, ShowInvocation, show_outcome_taken};
use crate::wire::{Errors, hook_schema, schema};

/// What a 503 tells of a decision: nothing of the object, which may hold secrets.
const TOLD_WHEN_UNABLE: [&str; 5] = ["point", "decision", "value", "values", "messages"];
/// A media type platforms written for Cymmetri's document may say their bodies have.
const CYMMETRI: &str = "application/vnd.cymmetri+json";

/// Invoke a point
///
/// Asks the tenant's hooks there and answers within the budget, whatever receivers do: 200 for every
/// decision, denials included. `gatepost-timeout-ms` is how long the caller waits; `Accept:
/// application/vnd.cymmetri+json` asks for the answer in that form; `Idempotency-Key` makes a repeated call
/// within a minute get the same decision. Scope `invoke`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/points/{point}/invoke", operation_id = "invokePoint", tag = "hooks",
    params(schema::TenantPath, schema::PointPath),
    request_body = hook_schema::InvocationInput,
    responses(
        (status = 200, description = "The decision", body = hook_schema::Decision),
        (status = 409, description = "`idempotency_key_conflict`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn point(Names((name, point)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    invoke(&name, AskTarget::Point(point.clone()), &point, call).await
}

/// Invoke an operation
///
/// `createUser` and `updateUser` change, then judge a user; `provision` gives the values of many attributes
/// and says whether to go on: one decision in one round trip. Headers as for a point. Scope `invoke`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/operations/{operation}/invoke", operation_id = "invokeOperation", tag = "hooks",
    params(schema::TenantPath, schema::OperationPath),
    request_body = hook_schema::InvocationInput,
    responses(
        (status = 200, description = "The decision", body = hook_schema::Decision),
        (status = 409, description = "`idempotency_key_conflict`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn operation(Names((name, op)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    invoke(&name, AskTarget::Operation(op.clone()), &op, call).await
}

async fn invoke(name: &str, target: AskTarget, item: &str, call: Call) -> Result<Response, Problem> {
    // No store is asked whether there is such a tenant: what is in memory says so (P9).
    let tenant: TenantId = call.tenant_id(name, Scope::Invoke)?;
    call.no_query()?;
    let headers = &call.parts.headers;
    let text = |header: &str| one(headers, header);
    let idempotency_key = match headers.contains_key(&idempotency::KEY) {
        true => Some(idempotency::key_of(headers)?.to_owned()),
        false => None,
    };
    let accept: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let ask = Ask {
        tenant,
        target,
        body: bytes::Bytes::new(),
        timeout: text("gatepost-timeout-ms")?,
        hop: text("gatepost-hop")?,
        accept: Some(accept.join(",")),
        idempotency_key,
        trace: headers.get("traceparent").and_then(|value| TraceContext::parse(value.to_str().ok()?)),
        caller: call.caller.key,
    };
    let content = match headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
        Some(kind) if kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(CYMMETRI) => {
            Content::plain(headers)?;
            Ok(Content::Json)
        }
        _ => Content::of(headers, &[Content::Json]),
    };
    let limit = call.engine().limits().max_body_bytes;
    let received = call.body_up_to(content, Some(Content::Json), limit).await?;
    let told = received.engine().ask(Ask { body: received.bytes.clone(), ..ask }).await;
    let told = told.map_err(|error| refusal(error, name, item))?;
    let mut response = Response::new(Body::from(told.body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(told.form.media_type()));
    Ok(response)
}

/// A header's one value; an unreadable one reads as something no header may be.
fn one(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.to_str().unwrap_or("?").to_owned())),
        (Some(_), Some(_)) => {
            Err(Problem::new(ErrorCode::InvalidHeader, format!("the header {name} is given more than once")))
        }
    }
}

fn refusal(error: AskError, tenant: &str, item: &str) -> Problem {
    use gatepost_core::hooks::budget::BadHeader;
    match error {
        AskError::NotFound(kind) => Problem::of(Error::NotFound(kind), tenant, item),
        AskError::Malformed { line, column, message } => Problem::malformed(&message, line.max(1), column.max(1)),
        AskError::Invalid(errors) => Problem::invalid(ErrorCode::ValidationFailed, errors, 0),
        AskError::Header(BadHeader::Loop) => Problem::new(ErrorCode::HookLoop, BadHeader::Loop.to_string()),
        AskError::Header(bad) => Problem::new(ErrorCode::InvalidHeader, bad.to_string()),
        AskError::KeyReused => Problem::new(
            ErrorCode::IdempotencyKeyConflict,
            "this Idempotency-Key was used for another question to the same point in the last minute: use a new one, \
             or repeat the question as it was",
        ),
        AskError::Saturated => {
            let soon = HeaderValue::from_static("1");
            let limit = HeaderValue::from_static("\"invocations\";r=0;t=1");
            Problem::new(ErrorCode::HooksSaturated, "too many invocations are under way; nobody was asked")
                .with(RETRY_AFTER, soon)
                .with(HeaderName::from_static("ratelimit"), limit)
        }
        AskError::Unable { decision, reason } => unable(decision.as_deref(), reason),
    }
}

/// 503, with the decision that could not be written down, else what the point's own policy and the
/// question's default say: the platform must always be able to act.
fn unable(decision: Option<&Decision>, reason: StoreError) -> Problem {
    let said = decision.and_then(|decision| serde_json::to_vec(decision).ok());
    let mut members = match said.map(|said| parse_strict(&said)) {
        Some(Ok(Value::Object(said))) => said,
        _ => Map::new(),
    };
    members.retain(|name, _| TOLD_WHEN_UNABLE.contains(&name.as_str()));
    members.insert("cause".into(), Cause::Gatepost.as_str().into());
    Problem::from(reason).with_members(members)
}

/// List invocations
///
/// Newest first. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/invocations", operation_id = "listInvocations", tag = "hooks",
    params(schema::TenantPath, hook_schema::InvocationParams),
    responses((status = 200, description = "A page of invocations", body = ListPage<hook_schema::Invocation>))
)]
pub(crate) async fn list(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    let mut errors = Errors::default();
    let allowed = ["point", "subject", "decision", "cause", "since", "until", "limit", "cursor"];
    let params = Params::open(&call.parts.uri, &allowed, &mut errors);
    let causes = [
        "receiver",
        "policy_on_failure",
        "circuit_open",
        "no_hooks",
        "hooks_disabled",
        "invalid_answer",
        "budget_exhausted",
        "gatepost",
    ];
    let query = InvocationQuery {
        tenant: tenant.key,
        point: params.text("point", &mut errors),
        subject: params.text("subject", &mut errors),
        denied: params.word("decision", &[("allow", false), ("deny", true)], &mut errors),
        cause: params.word("cause", &causes.map(|cause| (cause, cause)), &mut errors).map(str::to_owned),
        since: params.time("since", &mut errors),
        until: params.time("until", &mut errors),
        page: params.page(List::Invocations, tenant.key.0, &mut errors),
    };
    errors.check()?;
    let page = call.engine().invocations(query).await.map_err(fail(&name, ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::Invocations, tenant.key.0, position));
    let data = page.rows.iter().map(ShowInvocation::from).collect();
    json(StatusCode::OK, &ListPage { data, next_cursor })
}

/// Show an invocation
///
/// As recorded: nothing secret is in it. Scope `read`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/invocations/{invocation}", operation_id = "getInvocation", tag = "hooks",
    params(schema::TenantPath, schema::InvocationPath),
    responses((status = 200, description = "The invocation", body = hook_schema::Invocation))
)]
pub(crate) async fn get(Names((name, invocation)): Names<(String, String)>, call: Call) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Read).await?;
    call.no_query()?;
    let id: InvocationId = id(Kind::Invocation, &invocation)?;
    let view = call.engine().invocation(&tenant, id).await.map_err(fail(&name, &invocation))?;
    json(StatusCode::OK, &ShowInvocation::from(&view))
}

/// Tell an invocation's outcome
///
/// What the platform did after the decision, for a day. Told again, it is answered alike; another outcome
/// is a conflict. A committed operation publishes its event (`cymmetri.postCreateUser`, …) once.
/// Scope `invoke`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/invocations/{invocation}/outcome", operation_id = "tellInvocationOutcome", tag = "hooks",
    params(schema::TenantPath, schema::InvocationPath),
    request_body = hook_schema::OutcomeInput,
    responses(
        (status = 200, description = "Taken", body = hook_schema::OutcomeTaken),
        (status = 409, description = "`outcome_conflict`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn outcome(
    Names((name, invocation)): Names<(String, String)>,
    call: Call,
) -> Result<Response, Problem> {
    let tenant = call.tenant(&name, Scope::Invoke).await?;
    call.no_query()?;
    let id: InvocationId = id(Kind::Invocation, &invocation)?;
    let received = call.body(&[Content::Json]).await?;
    let body = received.value()?;
    let told = received.engine().tell_outcome(&tenant, id, body).await.map_err(fail(&name, &invocation))?;
    json(StatusCode::OK, &show_outcome_taken(&told.invocation)).map(IntoResponse::into_response)
}
