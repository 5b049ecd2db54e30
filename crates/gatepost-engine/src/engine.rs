//! The engine: its parts, put together; started and stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatepost_core::hashing::HashKey;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::{Clock, Entropy, TenantId, Timestamp, Waits};
use gatepost_store::{Store, StoreError};
use tokio::sync::{Notify, mpsc};

use crate::auth::KeyRing;
use crate::catalogue::Catalogue;
use crate::deliver::scheduler::Limits as LaneLimits;
use crate::deliver::{Command, Effect, Inbox, Lane, LaneParts, Sender, Watch};
use crate::endpoint_auth::EndpointAuth;
use crate::error::{Error, Kind, Result};
use crate::health::HealthTracker;
use crate::hooks::{HookLane, Hooks, Recording};
use crate::idempotency::Flights;
use crate::making::Making;
use crate::metrics::Metrics;
use crate::net::EgressPolicy;
use crate::ops::filter_turns::FilterTurns;
use crate::origin::OriginEntropy;
use crate::own_events::OwnEvents;
use crate::published_types::PublishedLog;
use crate::quotas::QuotaBook;
use crate::registry::{TenantState, Tenants};
use crate::schemas::SchemaRoom;
use crate::stream::Streams;
use crate::tenant_types::TenantTypes;
use crate::transport::Transport;
use crate::vault::{Vault, VaultError};

/// What an engine is made of.
pub struct EngineParts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The door to the outside.
    pub transport: Arc<dyn Transport>,
    /// What may be called; the same one the transport obeys.
    pub policy: Arc<EgressPolicy>,
    /// Wraps the data key.
    pub master_key: Key,
    /// Full rights.
    pub admin_key: Secret,
    /// Where the server is reached; no `/` at its end.
    pub public_url: String,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of the whole server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an API request's body.
    pub max_body_bytes: usize,
    /// Bytes of a batch's body.
    pub max_batch_bytes: usize,
    /// What the delivery lane may hold and start.
    pub lane: LaneLimits,
    /// Bytes of bodies of API requests in memory at once.
    pub body_bytes: usize,
    /// Bytes of the API's answers in memory at once: being made, and waiting to be read.
    pub answer_bytes: usize,
    /// How many answers are made at once; one may be as large as its part of the bytes.
    pub answers_at_once: usize,
    /// Connections to the API.
    pub connections: usize,
    /// Deliveries just accepted that may wait for the lane with their payloads. Past this only the fact
    /// that the store holds them is handed over, so that a burst of publishing cannot fill memory (P10).
    pub offers: usize,
    /// The same in bytes of event data and bodies.
    pub offer_bytes: usize,
    /// Webhooks with nothing to do that are kept ready to be sent to.
    pub routes: usize,
    /// Bytes of tenants and their webhooks kept for matching, about; one larger than this is kept alone.
    pub tenant_bytes: usize,
    /// Bytes of the event types that tenants declared, of the tenants used of late, about.
    pub type_bytes: usize,
    /// Bytes of compiled schemas, about.
    pub schema_bytes: usize,
    /// Bytes of the changes kept for those who listen, all tenants together.
    pub stream_ring_bytes: usize,
    /// Bytes of what happened and is not shown yet, all tenants together.
    pub stream_fact_bytes: usize,
    /// Bytes on their way to those who listen.
    pub stream_chunk_bytes: usize,
    /// Bytes of the questions to hooks under way, with all that is made of them.
    pub hook_question_bytes: usize,
    /// Bytes of questions and objects that wait to be recorded.
    pub hook_record_bytes: usize,
    /// Bytes of decisions known under an idempotency key.
    pub hook_known_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_body_bytes: 1 << 20,
            max_batch_bytes: 16 << 20,
            lane: LaneLimits::default(),
            body_bytes: 256 << 20,
            answer_bytes: 64 << 20,
            answers_at_once: 4,
            connections: 10_000,
            offers: 16_384,
            offer_bytes: 32 << 20,
            routes: 8_192,
            tenant_bytes: 64 << 20,
            type_bytes: 32 << 20,
            schema_bytes: 16 << 20,
            stream_ring_bytes: 64 << 20,
            stream_fact_bytes: 64 << 20,
            stream_chunk_bytes: 16 << 20,
            hook_question_bytes: 128 << 20,
            hook_record_bytes: 64 << 20,
            hook_known_bytes: 32 << 20,
        }
    }
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The secrets stay shut.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store could not be read.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    /// A thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[from] std::io::Error),
}

/// Gatepost itself. Cloning shares it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) waits: Arc<Waits>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) endpoint_auth: Arc<EndpointAuth>,
    pub(crate) policy: Arc<EgressPolicy>,
    pub(crate) vault: Vault,
    pub(crate) keys: KeyRing,
    pub(crate) tenants: Tenants,
    pub(crate) catalogue: Catalogue,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) public_url: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) quotas: QuotaBook,
    pub(crate) fingerprint_key: HashKey,
    pub(crate) idempotency_key: HashKey,
    pub(crate) flights: Flights,
    pub(crate) streams: Arc<Streams>,
    pub(crate) tenant_types: TenantTypes,
    pub(crate) schemas: SchemaRoom,
    pub(crate) published: PublishedLog,
    pub(crate) sweep: Notify,
    pub(crate) jobs: Notify,
    pub(crate) making: Making,
    pub(crate) filter_turns: Arc<FilterTurns>,
    pub(crate) own_events: Arc<OwnEvents>,
    pub(crate) health: Arc<HealthTracker>,
    pub(crate) hooks: Hooks,
    draining: AtomicBool,
}

/// How long stopping waits for what the last answers called for.
const EFFECTS_PATIENCE: Duration = Duration::from_secs(2);
/// Rows one sweep step touches: small enough that publishing does not feel it.
const SWEEP_ROWS: usize = 500;
/// How often it is looked whether something is to be swept, without being told.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Who Gatepost says it is.
pub const USER_AGENT: &str = concat!("Gatepost/", env!("CARGO_PKG_VERSION"));

impl Engine {
    /// Puts the parts together without starting anything: the lane and the effects are the caller's
    /// to drive. [`Running::start`] does that for a server, the simulation by hand.
    pub(crate) async fn assemble(
        parts: EngineParts,
    ) -> std::result::Result<(Engine, Lane, mpsc::UnboundedReceiver<Effect>), StartError> {
        let vault = Vault::open(&*parts.store, &parts.master_key, Arc::clone(&parts.entropy)).await?;
        let keys = KeyRing::load(&*parts.store, &parts.admin_key, vault.callback_key()).await?;
        let catalogue = Catalogue::load(&*parts.store).await?;
        let waits = crate::waits::begin(&*parts.store, Arc::clone(&parts.clock)).await?;
        let metrics = Metrics::new();
        let endpoint_auth =
            EndpointAuth::new(Arc::clone(&parts.transport), Arc::clone(&parts.clock), Arc::clone(&metrics));
        let inner = Arc::new(Inner {
            hooks: Hooks::new(&parts.transport, &parts.clock, &metrics, &parts.limits),
            endpoint_auth: Arc::new(endpoint_auth),
            fingerprint_key: HashKey::new(&vault.derive("event fingerprint v1")),
            idempotency_key: HashKey::new(&vault.derive("idempotency v1")),
            flights: Flights::default(),
            streams: Arc::new(Streams::new(&parts.limits)),
            tenant_types: TenantTypes::with_room(parts.limits.type_bytes),
            schemas: SchemaRoom::with_room(parts.limits.schema_bytes),
            published: PublishedLog::default(),
            store: parts.store,
            clock: parts.clock,
            waits,
            entropy: OriginEntropy::around(parts.entropy),
            policy: parts.policy,
            vault,
            keys,
            tenants: Tenants::with_room(parts.limits.tenant_bytes),
            catalogue,
            inbox: Arc::new(Inbox::new(&parts.limits)),
            metrics,
            public_url: parts.public_url.into(),
            limits: parts.limits,
            quotas: QuotaBook::default(),
            sweep: Notify::new(),
            jobs: Notify::new(),
            making: Making::default(),
            filter_turns: Arc::new(FilterTurns::default()),
            own_events: Arc::new(OwnEvents::default()),
            health: Arc::new(HealthTracker::default()),
            draining: AtomicBool::new(false),
        });
        let (effects, pending) = mpsc::unbounded_channel();
        let engine = Engine { inner };
        let lane = Lane::new(LaneParts {
            store: Arc::clone(&engine.inner.store),
            sender: engine.inner.sender(),
            waits: Arc::clone(&engine.inner.waits),
            vault: engine.inner.vault.clone(),
            inbox: Arc::clone(&engine.inner.inbox),
            effects,
            metrics: Arc::clone(&engine.inner.metrics),
            watch: Watch { health: Arc::clone(&engine.inner.health), own_events: Arc::clone(&engine.inner.own_events) },
            streams: Arc::clone(&engine.inner.streams),
            limits: engine.inner.limits.lane,
            routes_kept: engine.inner.limits.routes,
        });
        Ok((engine, lane, pending))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(crate) async fn tenant_state(&self, id: &TenantId) -> Result<Arc<TenantState>> {
        self.inner.tenants.get(&*self.inner.store, id).await?.ok_or(Error::NotFound(Kind::Tenant))
    }

    /// Whether the store can be read and written now.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn check(&self) -> std::result::Result<(), StoreError> {
        self.inner.store.check().await
    }

    /// Whether the server is shutting down.
    pub fn draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    /// What is measured.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Everything measured, in the OpenMetrics text format.
    pub async fn metrics_text(&self) -> String {
        let stats = self.inner.store.stats().await.unwrap_or_default();
        if let Ok(counts) = self.inner.store.health_counts().await {
            self.inner.metrics.health(counts);
        }
        self.inner.metrics.text(&stats)
    }

    /// The server's bounds.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Does what an answer called for.
    pub(crate) async fn take_effect(&self, effect: Effect) {
        match effect {
            Effect::Gone { tenant, webhook } => {
                if let Err(error) = self.was_disabled(&tenant, webhook).await {
                    tracing::warn!(%tenant, %error, "a webhook that answered 410 is disabled; the lane hears of it later");
                }
            }
        }
    }

    async fn keep_swept(self) {
        loop {
            tokio::select! {
                () = self.inner.sweep.notified() => {}
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            while !self.draining() {
                match self.inner.store.sweep(self.now(), SWEEP_ROWS).await {
                    Ok(progress) if progress.more => tokio::task::yield_now().await,
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "sweeping stopped for now");
                        break;
                    }
                }
            }
        }
    }
}

impl Inner {
    pub(crate) fn sender(&self) -> Sender {
        Sender {
            endpoint_auth: Arc::clone(&self.endpoint_auth),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            public_url: Arc::clone(&self.public_url),
        }
    }
}

/// A started engine: the lane on its own thread, the background work on the caller's runtime.
pub struct Running {
    engine: Engine,
    lane: Option<std::thread::JoinHandle<()>>,
    lane_done: tokio::sync::oneshot::Receiver<()>,
    effects: tokio::task::JoinHandle<()>,
    sweeper: tokio::task::JoinHandle<()>,
    keepers: tokio::task::JoinSet<()>,
    hooks: HookLane,
    recording: Recording,
}

impl Running {
    /// Starts delivering. Must be called within a tokio runtime, which runs the background work; the
    /// lane gets a single-threaded one of its own, which measured faster than sharing one, and keeps
    /// deliveries going whatever API handlers do.
    ///
    /// # Errors
    /// When the store cannot be read, or was sealed under another master key.
    pub async fn start(parts: EngineParts) -> std::result::Result<Running, StartError> {
        let (engine, lane, mut effects) = Engine::assemble(parts).await?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (done, lane_done) = tokio::sync::oneshot::channel();
        let lane = std::thread::Builder::new().name("gatepost-deliver".into()).spawn(move || {
            runtime.block_on(lane.run());
            // Nobody listens when the server was dropped rather than stopped.
            let _ = done.send(());
        })?;
        let for_effects = engine.clone();
        let effects = tokio::spawn(async move {
            while let Some(effect) = effects.recv().await {
                for_effects.take_effect(effect).await;
            }
        });
        let sweeper = tokio::spawn(engine.clone().keep_swept());
        engine.inner.sweep.notify_one();
        engine.begin_published_types().await;
        let mut keepers = tokio::task::JoinSet::new();
        keepers.spawn(engine.clone().keep_time());
        keepers.spawn(engine.clone().keep_told());
        keepers.spawn(engine.clone().keep_making());
        keepers.spawn(engine.clone().keep_health());
        keepers.spawn(engine.clone().keep_working());
        keepers.spawn(engine.clone().keep_retention());
        keepers.spawn(engine.clone().keep_published_types());
        let hooks = HookLane::start(&engine)?;
        let recording = Recording::start(&engine);
        keepers.spawn(engine.clone().keep_hooks());
        Ok(Running { engine, lane: Some(lane), lane_done, effects, sweeper, keepers, hooks, recording })
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// Whether the lane is running. It ends by itself only when it is stopped, or by a bug.
    pub fn delivering(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| !lane.is_finished())
    }

    /// Says that no new work is taken: `/readyz` answers 503 from now on, and no attempt is started
    /// any more.
    pub fn begin_drain(&self) {
        self.engine.inner.draining.store(true, Ordering::Relaxed);
        self.engine.inner.streams.close();
        self.engine.inner.inbox.send(Command::Drain);
    }

    /// Starts nothing more, finishes and records what is under way (for at most `patience`), and
    /// closes the store. Whatever is not finished is in the store and goes out after the next start.
    /// Answers whether everything was finished.
    pub async fn stop(mut self, patience: Duration) -> bool {
        self.begin_drain();
        let finished = tokio::time::timeout(patience, &mut self.lane_done).await.is_ok();
        // What the last answers called for is still done: with the lane its sender is gone, and the
        // task ends by itself.
        if !finished || tokio::time::timeout(EFFECTS_PATIENCE, &mut self.effects).await.is_err() {
            self.effects.abort();
        }
        self.hooks.stop(&self.engine, EFFECTS_PATIENCE).await;
        self.recording.stop(EFFECTS_PATIENCE).await;
        self.sweeper.abort();
        self.keepers.shutdown().await;
        let _ = tokio::time::timeout(EFFECTS_PATIENCE, self.engine.write_published_types(true)).await;
        let _ = tokio::time::timeout(EFFECTS_PATIENCE, self.engine.note_time()).await;
        // What was counted of the last attempts; should the store fail, only counts are lost.
        let _ = tokio::time::timeout(EFFECTS_PATIENCE, self.engine.note_health()).await;
        if finished && let Some(lane) = self.lane.take() {
            // A lane that is done has nothing left to wait for.
            let _ = lane.join();
        }
        self.engine.inner.store.close().await;
        finished
    }
}
