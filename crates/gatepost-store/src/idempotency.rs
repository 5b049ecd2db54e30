//! What was answered under an `Idempotency-Key`.
//!
//! Keys and bodies arrive here as keyed hashes only, answers without their secrets. A record lives for
//! a fixed time from its request on; whether an expired one is still stored makes no difference to
//! anybody.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gatepost_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Accepted, Publish, PublishOutcome, Result};

/// What tells one use of a key from another: a keyed hash of tenant, method, path and key.
pub type IdempotencyScope = [u8; 16];

/// An answer, to be given again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordedAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Those headers that matter: names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, without secrets.
    pub body: Bytes,
}

/// A request under an idempotency key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotentRequest {
    /// Which use of which key.
    pub scope: IdempotencyScope,
    /// Keyed hash of the request.
    pub fingerprint: [u8; 16],
    /// When it came.
    pub now: Timestamp,
    /// Until when it is known.
    pub expires_at: Timestamp,
}

/// What is known of a use of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyRecord {
    /// Keyed hash of the request.
    pub fingerprint: [u8; 16],
    /// When the first request under the key came: what is derived from it is the same whenever that
    /// request is run again.
    pub started_at: Timestamp,
    /// What was answered; `None`: it is under way, or what became of it was lost.
    pub answer: Option<RecordedAnswer>,
}

type Make = dyn Fn(&[Accepted]) -> RecordedAnswer + Send + Sync;

/// Makes the answer of a publish from what was accepted.
#[derive(Clone)]
pub struct MakeAnswer(Arc<Make>);

impl MakeAnswer {
    /// With this function. It runs inside the transaction: it must be quick.
    pub fn new(make: impl Fn(&[Accepted]) -> RecordedAnswer + Send + Sync + 'static) -> Self {
        MakeAnswer(Arc::new(make))
    }

    /// The answer.
    pub fn make(&self, accepted: &[Accepted]) -> RecordedAnswer {
        (self.0)(accepted)
    }
}

impl fmt::Debug for MakeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeAnswer")
    }
}

/// What became of a publish under a key.
#[derive(Clone, Debug)]
pub enum PublishedOnce {
    /// As [`Store::publish`](crate::Store::publish) says; if accepted, the answer is recorded.
    Done(PublishOutcome),
    /// The key was used before: nothing was published.
    Known(IdempotencyRecord),
}

/// Answers under idempotency keys.
#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// What is known at `now` of a use of a key.
    async fn idempotency(&self, scope: IdempotencyScope, now: Timestamp) -> Result<Option<IdempotencyRecord>>;

    /// Notes that a request begins, unless the key is known already; answers what is known then.
    async fn begin_idempotent(&self, request: IdempotentRequest) -> Result<IdempotencyRecord>;

    /// Records what was answered to the request that began at `started_at`.
    async fn record_answer(&self, scope: IdempotencyScope, started_at: Timestamp, answer: RecordedAnswer)
    -> Result<()>;

    /// Forgets the request that began at `started_at`, if it has no answer: it changed nothing.
    async fn forget_idempotent(&self, scope: IdempotencyScope, started_at: Timestamp) -> Result<()>;

    /// Publishes and records the answer in one transaction (P1), unless the key is known.
    async fn publish_once(
        &self,
        publish: Publish,
        request: IdempotentRequest,
        answer: MakeAnswer,
    ) -> Result<PublishedOnce>;
}
