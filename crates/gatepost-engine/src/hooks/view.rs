//! What is shown of hooks, points and invocations.

use std::sync::Arc;

use gatepost_core::Timestamp;
use gatepost_core::hooks::breaker::BreakerState;
use gatepost_core::hooks::lint::Warning;
use gatepost_core::hooks::points::{PointDef, PointSettings};
use gatepost_store::hooks::{StoredHook, StoredInvocation};
use serde_json::{Map, Value};

/// A hook to show.
#[derive(Clone, Debug)]
pub struct HookView {
    /// As kept. Its secrets stay sealed.
    pub hook: StoredHook,
    /// Its members as they are answered: defaults filled in, secrets masked.
    pub members: Map<String, Value>,
    /// What is allowed, and will hurt.
    pub warnings: Vec<Warning>,
    /// Whether calls to it pass.
    pub circuit: BreakerState,
}

/// A point to show.
#[derive(Clone, Debug)]
pub struct PointView {
    /// What it is.
    pub point: Arc<PointDef>,
    /// How the tenant has set it.
    pub settings: PointSettings,
    /// Its hooks, in the order they are asked.
    pub hooks: Vec<gatepost_core::HookId>,
}

/// An invocation to show.
#[derive(Clone, Debug)]
pub struct InvocationView {
    /// As kept.
    pub invocation: StoredInvocation,
    /// When it was looked at.
    pub now: Timestamp,
}
