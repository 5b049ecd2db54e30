//! # gatepost-engine: what Gatepost does
//!
//! The operations (register, publish, retry, ...), called by API, CLI and tests alike, and the
//! workers behind them. [`Engine`] is the operations; [`Running`] is an engine that also delivers.
//!
//! Contract: this crate names no system and no HTTP route; it speaks to the store through
//! [`gatepost_store::Store`] and to the outside through [`net`] alone, which judges every address it
//! connects to (P8). Workers are steps driven from outside with a clock that is a parameter, so a
//! simulation can run them. Whatever is in memory is a bounded window over the store (P10).
//!
//! To add an operation: a method on [`Engine`] in a file of [`ops`], which validates, calls one
//! store method (one transaction), and tells the lane through its inbox what changed.

mod auth;
mod catalogue;
mod deliver;
mod endpoint_auth;
mod engine;
mod error;
mod health;
pub mod hooks;
mod idempotency;
mod jobs;
mod making;
pub mod master;
mod metrics;
pub mod net;
pub mod ops;
mod origin;
mod own_events;
mod process;
mod published_types;
mod quotas;
mod registry;
mod render;
mod schemas;
mod seldom;
pub mod spans;
mod stream;
mod system;
mod tenant_types;
mod transport;
mod vault;
mod views;
mod waits;

#[cfg(test)]
mod simulation;

pub use auth::BadKey;
pub use catalogue::EventTypeView;
pub use deliver::scheduler::Limits as LaneLimits;
pub use engine::{Engine, EngineParts, Limits, Running, StartError, USER_AGENT};
pub use error::{ConflictCode, Error, FieldError, Kind, Result};
pub use gatepost_store as store;
pub use idempotency::{Idempotent, KeyedRequest, PublishOnce, Turn};
pub use metrics::{HttpLabel, Metrics};
pub use origin::repeatable;
pub use quotas::{Quota, QuotaRefusal, QuotaState};
pub use seldom::{LOCAL_FAULTS, Seldom};
pub use stream::{AttemptMade, Change, Position, StreamFilter, StreamKind, Streamed, Subscription};
pub use system::{SystemClock, SystemEntropy};
pub use transport::Transport;
pub use vault::VaultError;
pub use views::{HealthState, HealthView};
