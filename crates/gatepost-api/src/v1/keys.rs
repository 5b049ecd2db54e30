//! API keys. All of this needs an administrator of the installation.

use axum::extract::State;
use axum::response::Response;
use gatepost_engine::Kind;
use http::StatusCode;

use super::{created, json, no_content};
use crate::body::Content;
use crate::problem::Problem;
use crate::state::{Api, Call, Names, fail, id};
use crate::wire::Errors;
use crate::wire::cursor::{List, encode_number};
use crate::wire::query::Params;
use crate::wire::schema;
use crate::wire::show::{ListPage, ShowKey};

/// Make a key
///
/// The answer is the only time the key itself is shown. Scope `admin`, with a key bound to no tenant.
#[utoipa::path(
    post, path = "/v1/keys", operation_id = "createKey", tag = "keys",
    request_body = schema::KeyInput,
    responses((status = 201, description = "Made", body = ShowKey, headers(("location" = String))))
)]
pub(crate) async fn create(call: Call) -> Result<Response, Problem> {
    call.needs_installation()?;
    let mut errors = Errors::default();
    Params::open(&call.parts.uri, &[], &mut errors);
    let received = call.body(&[Content::Json]).await?;
    let input = received.read(&mut errors, |reader| reader.key())?;
    if !errors.is_empty() {
        // What could not be read is told together with what could and is wrong.
        errors.extend(received.engine().validate_key(&input));
        errors.check()?;
    }
    let (row, key) = received.engine().create_key(input).await.map_err(fail("", ""))?;
    created(&format!("/v1/keys/{}", row.id), &ShowKey::new(&row, Some(key.expose())))
}

/// List keys
///
/// Newest first, without the keys themselves. Scope `admin`, with a key bound to no tenant.
#[utoipa::path(
    get, path = "/v1/keys", operation_id = "listKeys", tag = "keys",
    params(schema::PageParams),
    responses((status = 200, description = "A page of keys", body = ListPage<ShowKey>))
)]
pub(crate) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.needs_installation()?;
    let mut errors = Errors::default();
    let params = Params::open(&call.parts.uri, &["limit", "cursor"], &mut errors);
    let page = params.page(List::Keys, 0, &mut errors);
    errors.check()?;
    let page = api.engine().keys(page).await.map_err(fail("", ""))?;
    let next_cursor = page.next.map(|position| encode_number(List::Keys, 0, position));
    json(StatusCode::OK, &ListPage { data: page.rows.iter().map(|row| ShowKey::new(row, None)).collect(), next_cursor })
}

/// Take a key away
///
/// It stops working at once. Scope `admin`, with a key bound to no tenant.
#[utoipa::path(
    delete, path = "/v1/keys/{key}", operation_id = "deleteKey", tag = "keys",
    params(schema::KeyPath),
    responses((status = 204, description = "Deleted"))
)]
pub(crate) async fn delete(Names(name): Names<String>, call: Call) -> Result<Response, Problem> {
    call.needs_installation()?;
    call.no_query()?;
    let id = id(Kind::Key, &name)?;
    call.engine().delete_key(id).await.map_err(fail("", &name))?;
    Ok(no_content())
}
