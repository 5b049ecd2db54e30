//! For axum: extractors that hand a handler what was verified, and nothing else.
//!
//! The [`Receiver`] (or [`HookReceiver`]) is part of the router's state.

use axum_core::body::Body;
use axum_core::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::error::Error;
use crate::hook::{AnswerError, HookReceiver, Question};
use crate::message::Message;
use crate::receiver::Receiver;
use crate::reply::Reply;

/// A verified delivery. What is not verified never reaches the handler: it is answered with the
/// status of its [`Error`].
#[derive(Debug)]
pub struct Verified(pub Message);

/// A verified question of a blocking hook.
#[derive(Debug)]
pub struct Asked(pub Question);

/// The answer to a GET or OPTIONS request that asks whether this endpoint wants deliveries.
#[derive(Debug)]
pub struct Challenged(pub Reply);

/// Why a request did not reach the handler.
#[derive(Debug)]
pub enum Rejection {
    /// It is not what it has to be.
    Refused(Error),
    /// Its body did not arrive whole.
    Interrupted,
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self {
            // A stranger learns the status; the reason is for those who know the secret, and for logs.
            Rejection::Refused(error) => (error.status(), error.to_string()).into_response(),
            Rejection::Interrupted => (http::StatusCode::BAD_REQUEST, "the body did not arrive whole").into_response(),
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        http::Response::<Vec<u8>>::from(self).map(Body::from)
    }
}

/// A mistake of the handler's: 500.
impl IntoResponse for AnswerError {
    fn into_response(self) -> Response {
        (http::StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

/// The whole body, of at most so many bytes.
async fn whole(body: Body, limit: usize) -> Result<Vec<u8>, Rejection> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(problem) if problem.is::<LengthLimitError>() => Err(Rejection::Refused(Error::TooLarge { limit })),
        Err(_) => Err(Rejection::Interrupted),
    }
}

impl<S> FromRequest<S> for Verified
where
    S: Send + Sync,
    Receiver: FromRef<S>,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let receiver = Receiver::from_ref(state);
        let (parts, body) = request.into_parts();
        let body = whole(body, receiver.body_max()).await?;
        receiver.receive(&parts.headers, &body).map(Verified).map_err(Rejection::Refused)
    }
}

impl<S> FromRequest<S> for Asked
where
    S: Send + Sync,
    HookReceiver: FromRef<S>,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let receiver = HookReceiver::from_ref(state);
        let (parts, body) = request.into_parts();
        let body = whole(body, receiver.body_max()).await?;
        receiver.question(&parts.headers, &body).map(Asked).map_err(Rejection::Refused)
    }
}

impl<S> FromRequestParts<S> for Challenged
where
    S: Send + Sync,
    Receiver: FromRef<S>,
{
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let receiver = Receiver::from_ref(state);
        receiver.challenge(&parts.method, &parts.headers).map(Challenged).map_err(Rejection::Refused)
    }
}
