//! Requests under an idempotency key: the first is run, its twins get its answer.
//!
//! A publish and its answer are one transaction (P1). Any other request is noted before it is run, and
//! its answer after; should the server die in between, it is run again from the same
//! [origin](crate::origin) and makes the same thing. Twins of a request under way wait for it, in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gatepost_core::{TenantId, TenantKey, Timestamp};
use gatepost_store::{
    IdempotencyRecord, IdempotencyScope, IdempotentRequest, MakeAnswer, Publish, PublishOutcome, PublishedOnce,
    RecordedAnswer, Store, StoreError,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::Result;
use crate::ops::{PublishInput, Published};
use crate::origin;

/// How long a key is known (SETTLED).
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a twin waits for the first.
const WAIT: Duration = Duration::from_secs(30);

/// A request under a key.
#[derive(Clone, Copy, Debug)]
pub struct KeyedRequest<'a> {
    /// Whose; `None`: the installation's.
    pub tenant: Option<TenantKey>,
    /// The method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The key, as sent.
    pub key: &'a str,
    /// Everything that makes two requests the same.
    pub content: &'a [Option<&'a [u8]>],
    /// It publishes: the answer is recorded by [`Engine::publish_once`].
    pub publishes: bool,
}

/// What a request under a key is.
pub enum Idempotent {
    /// The first: run it.
    First(Turn),
    /// Answered before.
    Again(RecordedAnswer),
    /// The key was used for another request.
    OtherRequest,
    /// The first is still under way, after a long wait.
    StillRunning,
}

/// What became of a publish under a key.
pub enum PublishOnce {
    /// Published now, and the answer recorded.
    Published(Vec<Published>),
    /// The key was used elsewhere meanwhile.
    Known(Idempotent),
}

/// The requests under way.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<IdempotencyScope, Flight>>);

struct Flight {
    fingerprint: [u8; 16],
    /// Closed when the request ends.
    landed: watch::Receiver<()>,
}

enum Claim {
    Mine(watch::Sender<()>),
    Running(watch::Receiver<()>),
    Other,
}

impl Flights {
    fn claim(&self, scope: IdempotencyScope, fingerprint: [u8; 16]) -> Claim {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match flights.get(&scope) {
            Some(flight) if flight.fingerprint == fingerprint => Claim::Running(flight.landed.clone()),
            Some(_) => Claim::Other,
            None => {
                let (end, landed) = watch::channel(());
                flights.insert(scope, Flight { fingerprint, landed });
                Claim::Mine(end)
            }
        }
    }

    fn land(&self, scope: &IdempotencyScope) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(scope);
    }
}

/// The right to run a request. Its twins wait until it is dropped.
pub struct Turn {
    engine: Engine,
    request: IdempotentRequest,
    started_at: Timestamp,
    /// Whether the request is noted in the store.
    noted: bool,
    recorded: AtomicBool,
    /// Dropped last, when the request is no longer among those under way.
    _end: watch::Sender<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.engine.inner.flights.land(&self.request.scope);
    }
}

impl Turn {
    /// Whether the answer is recorded already.
    pub fn recorded(&self) -> bool {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Records the answer, which has no secrets in it. Should that fail, the request would be run again
    /// and make the same thing: the caller need not hear of it.
    pub async fn answered(self, answer: RecordedAnswer) {
        let recorded = self.engine.inner.store.record_answer(self.request.scope, self.started_at, answer).await;
        if let Err(error) = recorded {
            tracing::warn!(%error, "an answer could not be recorded under its idempotency key");
        }
    }

    /// The request changed nothing, and its key is free again.
    pub async fn refused(self) {
        if !self.noted {
            return;
        }
        let forgotten = self.engine.inner.store.forget_idempotent(self.request.scope, self.started_at).await;
        if let Err(error) = forgotten {
            tracing::warn!(%error, "a refused request could not be forgotten under its idempotency key");
        }
    }
}

/// The key a publish stands under.
pub(crate) struct PublishKey<'a> {
    request: &'a IdempotentRequest,
    answer: MakeAnswer,
    /// The key was used before: nothing was published.
    known: Option<IdempotencyRecord>,
}

impl PublishKey<'_> {
    /// Publishes and records the answer.
    pub(crate) async fn publish(
        &mut self,
        store: &dyn Store,
        publish: Publish,
    ) -> std::result::Result<PublishOutcome, StoreError> {
        match store.publish_once(publish, self.request.clone(), self.answer.clone()).await? {
            PublishedOnce::Done(outcome) => Ok(outcome),
            PublishedOnce::Known(record) => {
                self.known = Some(record);
                // Nothing was published, and there is nothing to hand over.
                Ok(PublishOutcome::Accepted(Vec::new()))
            }
        }
    }
}

impl Engine {
    /// What a request under a key is. The first of its twins is run by whoever holds its [`Turn`];
    /// the others wait for it here.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn idempotent(&self, keyed: &KeyedRequest<'_>) -> Result<Idempotent> {
        let key = &self.inner.idempotency_key;
        let tenant = keyed.tenant.map(|tenant| tenant.0.to_be_bytes());
        let scope = key.hash(&[
            tenant.as_ref().map(<[u8; 8]>::as_slice),
            Some(keyed.method.as_bytes()),
            Some(keyed.path.as_bytes()),
            Some(keyed.key.as_bytes()),
        ]);
        let fingerprint = key.hash(keyed.content);
        let patience = Instant::now() + WAIT;
        loop {
            match self.inner.flights.claim(scope, fingerprint) {
                Claim::Mine(end) => return self.first(scope, fingerprint, keyed.publishes, end).await,
                Claim::Other => return Ok(Idempotent::OtherRequest),
                Claim::Running(mut landed) => {
                    // It only ever closes.
                    if tokio::time::timeout_at(patience, landed.changed()).await.is_err() {
                        return Ok(Idempotent::StillRunning);
                    }
                }
            }
        }
    }

    /// No twin is under way: what does the store know?
    async fn first(
        &self,
        scope: IdempotencyScope,
        fingerprint: [u8; 16],
        publishes: bool,
        end: watch::Sender<()>,
    ) -> Result<Idempotent> {
        let now = self.now();
        let request = IdempotentRequest { scope, fingerprint, now, expires_at: now.saturating_add(KNOWN_FOR) };
        let mut turn = Turn {
            engine: self.clone(),
            request: request.clone(),
            started_at: now,
            noted: !publishes,
            recorded: AtomicBool::new(false),
            _end: end,
        };
        let record = if publishes {
            self.inner.store.idempotency(scope, now).await?
        } else {
            Some(self.inner.store.begin_idempotent(request).await?)
        };
        if let Some(record) = record {
            if record.fingerprint != fingerprint || record.answer.is_some() {
                return Ok(self.answer_to(record, fingerprint));
            }
            turn.started_at = record.started_at;
        }
        origin::begin(self.seed_of(scope, turn.started_at), turn.started_at);
        Ok(Idempotent::First(turn))
    }

    /// What a record says to a request.
    fn answer_to(&self, record: IdempotencyRecord, fingerprint: [u8; 16]) -> Idempotent {
        match record.answer {
            _ if record.fingerprint != fingerprint => Idempotent::OtherRequest,
            Some(answer) => {
                self.inner.metrics.idempotent_replay();
                Idempotent::Again(answer)
            }
            None => Idempotent::StillRunning,
        }
    }

    /// What a request draws its randomness from.
    fn seed_of(&self, scope: IdempotencyScope, started_at: Timestamp) -> [u8; 32] {
        let half = |number: u8| {
            let at = started_at.as_micros().to_be_bytes();
            self.inner.idempotency_key.hash(&[Some(b"seed"), Some(&[number]), Some(&scope), Some(&at)])
        };
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&half(0));
        seed[16..].copy_from_slice(&half(1));
        seed
    }

    /// As [`Engine::publish`], recording the answer that `answer` makes in the same transaction (P1).
    ///
    /// # Errors
    /// As [`Engine::publish`].
    pub async fn publish_once(
        &self,
        tenant: &TenantId,
        inputs: Vec<PublishInput>,
        batch: bool,
        turn: &Turn,
        answer: MakeAnswer,
    ) -> Result<PublishOnce> {
        let mut key = PublishKey { request: &turn.request, answer, known: None };
        let published = self.publish_under(tenant, inputs, batch, Some(&mut key)).await?;
        if let Some(record) = key.known {
            return Ok(PublishOnce::Known(self.answer_to(record, turn.request.fingerprint)));
        }
        turn.recorded.store(true, Ordering::Relaxed);
        Ok(PublishOnce::Published(published))
    }
}

#[cfg(test)]
mod tests;
