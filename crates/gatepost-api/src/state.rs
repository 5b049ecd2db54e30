//! What handlers share, and who may do what.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use gatepost_core::tenant::Tenant;
use gatepost_core::{Entropy, TenantId};
use gatepost_engine::ops::Caller;
use gatepost_engine::store::Scope;
use gatepost_engine::{Engine, Error, Kind, SystemEntropy};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;

use crate::answers::Answers;
use crate::body::{Allowance, Content, Room, Sender};
use crate::hints;
use crate::idempotency::Ticket;
use crate::observe::{Author, RequestIds};
use crate::problem::{ErrorCode, Problem};
use crate::strangers::Strangers;
use crate::wire::query::Params;

/// Everything a handler needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

struct Inner {
    engine: Engine,
    bodies: Arc<Allowance>,
    answers: Answers,
    request_ids: RequestIds,
    strangers: Strangers,
}

impl Api {
    /// Handlers' view of `engine`.
    pub(crate) fn new(engine: Engine) -> Self {
        for answer in crate::openapi::answers() {
            engine.metrics().http_route(&answer);
        }
        let limits = engine.limits();
        let largest = limits.max_body_bytes.max(limits.max_batch_bytes);
        Api(Arc::new(Inner {
            bodies: Allowance::new(limits.body_bytes, largest),
            answers: Answers::new(limits),
            engine,
            request_ids: RequestIds::new(SystemEntropy.next_u64()),
            strangers: Strangers::default(),
        }))
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Room for bodies (P10).
    fn bodies(&self) -> &Arc<Allowance> {
        &self.0.bodies
    }

    /// Room for answers (P10).
    pub(crate) fn answers(&self) -> &Answers {
        &self.0.answers
    }

    /// Who tried wrong keys.
    pub(crate) fn strangers(&self) -> &Strangers {
        &self.0.strangers
    }

    /// Names for requests.
    pub(crate) fn request_ids(&self) -> &RequestIds {
        &self.0.request_ids
    }
}

/// A request whose caller is known. Its body has not been read: nobody without a key makes us read
/// one.
pub(crate) struct Call {
    api: Api,
    /// Who.
    pub(crate) caller: Caller,
    /// The head.
    pub(crate) parts: Parts,
    body: Body,
}

impl FromRequest<Api> for Call {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let key = bearer(&parts.headers).ok_or_else(|| hints::no_key(&parts.headers))?;
        let caller = api.engine().authenticate(key).map_err(Problem::wrong_key)?;
        if let Some(author) = parts.extensions.get::<Author>() {
            author.is(caller.key);
        }
        Ok(Call { api: api.clone(), caller, parts, body })
    }
}

/// The key of `Authorization: Bearer <key>`; none when there are several.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

impl Call {
    /// What is shared.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        self.api.engine()
    }

    /// The tenant a path names, if the caller may do what needs `scope` there. Another tenant's key
    /// learns nothing: the answer is that of a tenant that does not exist, before any 403 (P5).
    pub(crate) fn tenant_id(&self, text: &str, scope: Scope) -> Result<TenantId, Problem> {
        let id: TenantId = text.parse().map_err(|_| Problem::missing(Kind::Tenant, text))?;
        if !self.caller.sees(&id) {
            return Err(Problem::missing(Kind::Tenant, text));
        }
        self.needs(scope)?;
        Ok(id)
    }

    /// The tenant itself.
    //
    // Not an `async fn`: a body cannot be shared between threads, so the future must not hold `self`.
    pub(crate) fn tenant<'t>(
        &self,
        text: &'t str,
        scope: Scope,
    ) -> impl Future<Output = Result<Arc<Tenant>, Problem>> + Send + use<'t> {
        let id = self.tenant_id(text, scope);
        let (api, issued_at) = (self.api.clone(), self.caller.issued_at);
        async move {
            let tenant = api.engine().tenant(&id?).await.map_err(|error| Problem::of(error, text, text))?;
            // Made for an earlier tenant of this id.
            let stale = issued_at.is_some_and(|at| at < tenant.created_at);
            if stale { Err(Problem::missing(Kind::Tenant, text)) } else { Ok(tenant) }
        }
    }

    /// Refuses a caller without `scope`.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.caller.may(scope) { Ok(()) } else { Err(forbidden(scope, "")) }
    }

    /// Refuses everybody but administrators of the whole installation. A key bound to a tenant is
    /// none, whatever its scopes: it could otherwise make itself an unbound one.
    pub(crate) fn needs_installation(&self) -> Result<(), Problem> {
        if self.caller.may(Scope::Admin) && self.caller.tenant.is_none() {
            return Ok(());
        }
        Err(forbidden(Scope::Admin, " and bound to no tenant"))
    }

    /// Refuses every query parameter.
    pub(crate) fn no_query(&self) -> Result<(), Problem> {
        Params::none(&self.parts.uri)
    }

    /// The body, of one of the content types `accepted`.
    //
    // Neither this nor the next is an `async fn`: each would move the whole call once more.
    pub(crate) fn body(self, accepted: &[Content]) -> impl Future<Output = Result<Received, Problem>> + Send + use<> {
        let content = Content::of(&self.parts.headers, accepted);
        let otherwise = accepted.first().copied();
        let limits = self.api.engine().limits();
        let batch = content.as_ref().is_ok_and(|content| content.is_batch());
        let limit = if batch { limits.max_batch_bytes } else { limits.max_body_bytes };
        self.receive(content, otherwise, limit)
    }

    /// The body, read as `content` (an empty one of another type as `otherwise`), of at most `limit` bytes.
    pub(crate) fn body_up_to(
        self,
        content: Result<Content, Problem>,
        otherwise: Option<Content>,
        limit: usize,
    ) -> impl Future<Output = Result<Received, Problem>> + Send + use<> {
        self.receive(content, otherwise, limit)
    }

    /// An empty body has no content type to refuse: it is what the call reads `otherwise`.
    async fn receive(
        mut self,
        content: Result<Content, Problem>,
        otherwise: Option<Content>,
        limit: usize,
    ) -> Result<Received, Problem> {
        let content = match (content, otherwise) {
            (Err(problem), Some(otherwise)) => {
                let body = std::mem::take(&mut self.body);
                self.body = Box::pin(crate::body::empty_or(problem, &self.parts.headers, body)).await?;
                otherwise
            }
            (content, _) => content?,
        };
        let bodies = self.api.bodies();
        let sender = Sender::of(&self.caller);
        let (bytes, room) = crate::body::read(bodies, sender, &self.parts.headers, self.body, limit).await?;
        if let Some(ticket) = self.parts.extensions.get::<Ticket>().cloned() {
            // In an allocation of its own: requests without a key are not to carry the room it needs.
            Box::pin(ticket.present(self.api.engine(), &self.caller, &mut self.parts, content, &bytes)).await?;
        }
        Ok(Received { api: self.api, parts: self.parts, content, bytes, _room: room })
    }
}

/// A request of somebody whose key is in the body.
pub(crate) struct Anyone {
    api: Api,
    parts: Parts,
    body: Body,
}

/// Bytes of such a body: names and a key.
const ANYONE_BYTES: usize = 16 << 10;

impl FromRequest<Api> for Anyone {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        Ok(Anyone { api: api.clone(), parts, body })
    }
}

impl Anyone {
    /// The body, of one of the content types `accepted`, and small.
    pub(crate) async fn body(self, accepted: &[Content]) -> Result<Received, Problem> {
        let (content, body) = match (Content::of(&self.parts.headers, accepted), accepted.first()) {
            (Err(problem), Some(otherwise)) => {
                (*otherwise, crate::body::empty_or(problem, &self.parts.headers, self.body).await?)
            }
            (content, _) => (content?, self.body),
        };
        let bodies = self.api.bodies();
        let (bytes, room) =
            crate::body::read(bodies, Sender::Stranger, &self.parts.headers, body, ANYONE_BYTES).await?;
        Ok(Received { api: self.api, parts: self.parts, content, bytes, _room: room })
    }
}

/// A request with its body.
pub(crate) struct Received {
    api: Api,
    /// The head.
    pub(crate) parts: Parts,
    /// What the body is.
    pub(crate) content: Content,
    /// The body.
    pub(crate) bytes: bytes::Bytes,
    /// The body's share of the allowance, given back when the request is done.
    _room: Room,
}

impl Received {
    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        self.api.engine()
    }
}

fn forbidden(scope: Scope, more: &str) -> Problem {
    let challenge = format!("Bearer realm=\"gatepost\", error=\"insufficient_scope\", scope=\"{}\"", scope.as_str());
    let problem =
        Problem::new(ErrorCode::Forbidden, format!("this call needs a key with the scope {}{more}", scope.as_str()));
    match HeaderValue::from_str(&challenge) {
        Ok(value) => problem.with(WWW_AUTHENTICATE, value),
        Err(_) => problem,
    }
}

/// The named parts of a path. One that cannot be read names nothing there is.
pub(crate) struct Names<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, api).await {
            Ok(Path(names)) => Ok(Names(names)),
            Err(_) => Err(Problem::new(ErrorCode::NotFound, "the path cannot be read")),
        }
    }
}

/// Maps what an operation answered, for a call about `item` of `tenant`.
pub(crate) fn fail<'a>(tenant: &'a str, item: &'a str) -> impl Fn(Error) -> Problem + 'a {
    move |error| Problem::of(error, tenant, item)
}

/// Reads an id from a path; what is no id of its kind is the id of nothing.
pub(crate) fn id<T: std::str::FromStr>(kind: Kind, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::missing(kind, text))
}
