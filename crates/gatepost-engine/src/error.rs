//! What an operation can answer instead of a result.

use gatepost_store::StoreError;

use crate::quotas::QuotaRefusal;

/// One bad member of a request: where, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) into the request body.
    pub pointer: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl FieldError {
    /// A field error.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError { pointer: pointer.into(), message: message.into() }
    }
}

/// Which kind of thing was not found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A tenant.
    Tenant,
    /// A webhook.
    Webhook,
    /// An event.
    Event,
    /// A delivery.
    Delivery,
    /// An event type.
    EventType,
    /// An API key.
    Key,
    /// A job.
    Job,
    /// A blocking hook.
    Hook,
    /// A blocking point.
    Point,
    /// An operation over points.
    Operation,
    /// A blocking invocation.
    Invocation,
}

impl Kind {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Tenant => "tenant",
            Kind::Webhook => "webhook",
            Kind::Event => "event",
            Kind::Delivery => "delivery",
            Kind::EventType => "event type",
            Kind::Key => "key",
            Kind::Job => "job",
            Kind::Hook => "hook",
            Kind::Point => "point",
            Kind::Operation => "operation",
            Kind::Invocation => "invocation",
        }
    }
}

/// Why an operation was refused or could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or it is another tenant's (P5: the two look the same).
    #[error("there is no {} with this id", .0.as_str())]
    NotFound(Kind),
    /// Members that are well-formed but wrong: all of them.
    #[error("{} member(s) are not valid", .0.len())]
    Invalid(Vec<FieldError>),
    /// Data that cost too much to hold against their types' schemas: where they are.
    #[error("validating the data against its schema costs too much")]
    SchemaTooCostly(Vec<FieldError>),
    /// The request contradicts what is there. The text says how.
    #[error("{message}")]
    Conflict {
        /// The code of the API's closed list.
        code: ConflictCode,
        /// For people.
        message: String,
    },
    /// A quota of the tenant's is used up.
    #[error(transparent)]
    Quota(Box<QuotaRefusal>),
    /// Deliveries do not keep up with what is published: try again soon. Nothing of the call happened.
    #[error("the server is busy delivering: try again soon")]
    Busy,
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A sealed value does not open, or randomness failed: the installation is damaged.
    #[error("a secret kept in the store does not open with this server's key")]
    Sealed,
}

/// Kinds of conflict, as the API names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConflictCode {
    /// The event id is taken by an event with another body.
    EventIdConflict,
    /// The delivery's webhook takes nothing.
    WebhookDisabled,
    /// The delivery's webhook is gone.
    WebhookDeleted,
    /// The delivery is terminal already.
    DeliveryTerminal,
    /// What was to be sent was erased.
    EventErased,
    /// The job has ended already.
    JobFinal,
    /// The feed's cursor is older than what is kept.
    CursorExpired,
    /// Somebody else changed it at the same time.
    ConcurrentChange,
    /// The hook's receiver did not pass the probe that enforcing it asks for.
    HookUnverified,
    /// Hooks are registered at the point.
    PointInUse,
    /// Another outcome was told before, none is taken of a dry run, or it comes too late.
    OutcomeConflict,
}

/// Result of an operation.
pub type Result<T> = std::result::Result<T, Error>;
