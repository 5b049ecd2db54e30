//! A tenant's hooks and points in memory, ready to be asked: what makes an answer independent of the
//! store (P9).
//!
//! A snapshot is immutable; an invocation takes one and uses it to its end. A change is committed,
//! then read anew in turn, then answered: so the next invocation after the answer sees it. Where the
//! answer of a commit is lost, the old snapshot stays in use and is read anew as soon as the store can.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use gatepost_core::hashing::HashKey;
use gatepost_core::hooks::breaker::{Breaker, BreakerState};
use gatepost_core::hooks::hook::{HookConfig, HookSecrets};
use gatepost_core::hooks::plan::{self, PlannedHook};
use gatepost_core::hooks::points::{self, PointDef, PointSettings};
use gatepost_core::http_versions::HttpVersions;
use gatepost_core::schema::SchemaText;
use gatepost_core::tenant::Tenant;
use gatepost_core::{HookId, TenantId};
use gatepost_store::StoreError;
use gatepost_store::hooks::{HookRegistry, StoredHook};
use ipnet::IpNet;

use super::admission::Held;
use super::places::Places;
use crate::endpoint_auth::Prepared;
use crate::engine::Engine;
use crate::net::Target;

/// One tenant's hooks and points.
pub(crate) struct TenantHooks {
    pub(crate) tenant: Tenant,
    pub(crate) points: HashMap<String, PointEntry>,
    pub(crate) asked: HashMap<HookId, Arc<Asked>>,
    /// What this tenant's invocations hold.
    pub(crate) held: Arc<Held>,
}

/// A point, as this tenant has it.
#[derive(Clone)]
pub(crate) struct PointEntry {
    pub(crate) def: Arc<PointDef>,
    pub(crate) settings: PointSettings,
    /// What objects must fit, compiled: one for all of its hooks.
    pub(crate) schema: Option<Arc<SchemaText>>,
    /// In the order they are asked.
    pub(crate) hooks: Vec<Arc<PlannedHook>>,
}

/// A hook with the way to its receiver.
pub(crate) struct Asked {
    pub(crate) planned: Arc<PlannedHook>,
    /// Why it cannot be called, if it cannot; then every call says so.
    pub(crate) route: Result<Route, String>,
    /// What was learned about the receiver. Outlives changes that do not concern it.
    pub(crate) state: Arc<EndpointState>,
}

/// The way to a receiver.
pub(crate) struct Route {
    pub(crate) target: Target,
    pub(crate) probe: Target,
    pub(crate) auth: Option<Prepared>,
    pub(crate) nets: Arc<[IpNet]>,
    /// Whether it is called over HTTP/1.1 only.
    pub(crate) http1: bool,
}

/// What was learned about one receiver.
pub(crate) struct EndpointState {
    /// What it was learned about: another one starts anew.
    identity: [u8; 16],
    breaker: Mutex<Breaker>,
    places: Places,
    /// Seconds of the lane's clock.
    last_used: AtomicU64,
}

impl EndpointState {
    fn new(identity: [u8; 16], max_in_flight: u32, now_s: u64) -> Self {
        EndpointState {
            identity,
            breaker: Mutex::default(),
            places: Places::new(max_in_flight),
            last_used: AtomicU64::new(now_s),
        }
    }

    /// The breaker, held for a moment.
    pub(crate) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Plain data: nothing can be half changed.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is shown of the breaker.
    pub(crate) fn circuit(&self) -> BreakerState {
        self.breaker().state()
    }

    /// The places for calls under way; whoever asks for one is about to call.
    pub(crate) fn places(&self, now_s: u64) -> &Places {
        self.last_used.store(now_s, Ordering::Relaxed);
        &self.places
    }

    /// When it was last called, in seconds of the lane's clock.
    pub(crate) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }
}

/// What makes an endpoint the same one to a breaker: where it is and how we prove ourselves. Of the
/// secrets as they are, not as they are sealed: sealed again they look different.
fn identity(key: &HashKey, config: &HookConfig, secrets: &HookSecrets) -> [u8; 16] {
    let place = format!("{:?}\n{:?}\n{:?}\n{:?}", config.url, config.profile, config.path, config.auth);
    let mut parts = vec![Some(place.as_bytes())];
    parts.push(secrets.signing.first().map(|present| present.text.expose().as_bytes()));
    parts.push(secrets.auth.as_ref().map(|secret| secret.expose().as_bytes()));
    for (name, value) in &secrets.headers {
        parts.extend([Some(name.as_bytes()), Some(value.expose().as_bytes())]);
    }
    key.hash(&parts)
}

#[derive(Default)]
struct Slot {
    current: ArcSwapOption<TenantHooks>,
    turn: tokio::sync::Mutex<()>,
}

/// All tenants whose hooks were asked for, or have any.
#[derive(Default)]
pub(crate) struct Snapshots {
    known: RwLock<HashMap<TenantId, Arc<Slot>>>,
}

impl Snapshots {
    fn find(&self, tenant: &TenantId) -> Option<Arc<Slot>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned()
    }

    fn slot(&self, tenant: &TenantId) -> Arc<Slot> {
        if let Some(slot) = self.find(tenant) {
            return slot;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(tenant.clone()).or_default())
    }

    fn forget(&self, tenant: &TenantId) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }

    /// Every tenant's present snapshot.
    pub(crate) fn all(&self) -> Vec<Arc<TenantHooks>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().filter_map(|slot| slot.current.load_full()).collect()
    }
}

impl Engine {
    /// A tenant's hooks: from memory, or read at first use. `None`: there is no such tenant.
    pub(crate) async fn tenant_hooks(&self, tenant: &TenantId) -> Result<Option<Arc<TenantHooks>>, StoreError> {
        let snapshots = &self.inner.hooks.snapshots;
        if let Some(found) = snapshots.find(tenant).and_then(|slot| slot.current.load_full()) {
            return Ok(Some(found));
        }
        let slot = snapshots.slot(tenant);
        let _turn = slot.turn.lock().await;
        if let Some(found) = slot.current.load_full() {
            return Ok(Some(found));
        }
        self.reload_locked(tenant, &slot).await
    }

    /// Reads a tenant's hooks anew, if they are in memory. In turn, after the commit: the last of several
    /// changes stays.
    async fn reload_hooks(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let Some(slot) = self.inner.hooks.snapshots.find(tenant) else { return Ok(()) };
        let _turn = slot.turn.lock().await;
        self.reload_locked(tenant, &slot).await.map(drop)
    }

    async fn reload_locked(&self, tenant: &TenantId, slot: &Slot) -> Result<Option<Arc<TenantHooks>>, StoreError> {
        let Some(registry) = self.inner.store.hook_registry(tenant).await? else {
            slot.current.store(None);
            self.inner.hooks.snapshots.forget(tenant);
            return Ok(None);
        };
        let before = slot.current.load_full();
        let schemas = self.point_schemas(&registry, before.as_deref()).await;
        let snapshot = Arc::new(self.compile_hooks(registry, &schemas, before.as_deref()));
        slot.current.store(Some(Arc::clone(&snapshot)));
        Ok(Some(snapshot))
    }

    /// To be held over a change of the tenant's hooks, points or settings: see [`HookChange`].
    pub(crate) fn changing_hooks(&self, tenant: &TenantId) -> HookChange {
        HookChange { engine: self.clone(), tenant: tenant.clone(), known: false }
    }

    /// The schemas of a tenant's points, compiled in its turn: never on the lane, where questions of others
    /// wait. Those that did not change are taken over.
    async fn point_schemas(
        &self,
        registry: &HookRegistry,
        before: Option<&TenantHooks>,
    ) -> HashMap<String, Arc<SchemaText>> {
        let known = |name: &str| before?.points.get(name)?.schema.as_ref();
        let mut schemas = HashMap::new();
        for point in &registry.points {
            let Some(schema) = point.definition.as_ref().and_then(|def| def.schema.as_ref()) else { continue };
            let text = schema.to_string();
            let same = known(&point.name).filter(|known| known.text() == text);
            let schema = same.map_or_else(|| Arc::new(SchemaText::new(text)), Arc::clone);
            schemas.insert(point.name.clone(), schema);
        }
        let raw: Vec<_> = schemas.values().filter(|schema| schema.ready().is_none()).cloned().collect();
        if !raw.is_empty() {
            let compile = move || raw.iter().for_each(|schema| drop(schema.compiled()));
            // Shutting down: nobody is asked any more.
            let _ = self.inner.filter_turns.run(registry.tenant.key, compile).await;
        }
        schemas
    }

    fn compile_hooks(
        &self,
        registry: HookRegistry,
        schemas: &HashMap<String, Arc<SchemaText>>,
        before: Option<&TenantHooks>,
    ) -> TenantHooks {
        let HookRegistry { tenant, hooks, points: own, .. } = registry;
        let before = before.filter(|before| before.tenant.key == tenant.key);
        let mut points = HashMap::with_capacity(points::builtins().len() + own.len());
        for def in points::builtins() {
            let (def, settings) = (Arc::clone(def), PointSettings::default());
            points.insert(def.name.clone(), PointEntry { def, settings, schema: None, hooks: Vec::new() });
        }
        for point in own {
            match (points.get_mut(&point.name), point.definition) {
                (Some(entry), _) => entry.settings = point.settings,
                (None, Some(def)) => {
                    let schema = schemas.get(&point.name).cloned();
                    let entry = PointEntry { def: Arc::new(def), settings: point.settings, schema, hooks: Vec::new() };
                    points.insert(point.name, entry);
                }
                (None, None) => tracing::warn!(point = point.name, "settings of a point this version does not know"),
            }
        }
        let nets: Arc<[IpNet]> = crate::transport::parse_nets(&tenant.settings.allow_nets).into();
        let mut asked = HashMap::with_capacity(hooks.len());
        for hook in hooks {
            let Some(entry) = points.get_mut(&hook.config.point) else {
                tracing::error!(hook = %hook.id, point = hook.config.point, "a hook's point is unknown: it is not asked");
                continue;
            };
            match self.plan_identified(&hook, &entry.def, entry.schema.clone()) {
                Ok((planned, identity)) => {
                    let state = self.endpoint_state(hook.id, identity, hook.config.max_in_flight, before);
                    let route = self.route_of(&tenant, &planned, &nets);
                    entry.hooks.push(Arc::clone(&planned));
                    asked.insert(hook.id, Arc::new(Asked { planned, route, state }));
                }
                Err(error) => tracing::error!(hook = %hook.id, error, "a hook cannot be planned: it is not asked"),
            }
        }
        points.values_mut().for_each(|entry| plan::sort(&mut entry.hooks));
        let held = before.map(|before| Arc::clone(&before.held)).unwrap_or_default();
        TenantHooks { tenant, points, asked, held }
    }

    /// A stored hook, ready to be asked.
    pub(super) fn plan_hook(&self, hook: &StoredHook, point: &Arc<PointDef>) -> Result<Arc<PlannedHook>, String> {
        self.plan_identified(hook, point, None).map(|(planned, _)| planned)
    }

    /// The same, with what makes its endpoint the same one.
    fn plan_identified(
        &self,
        hook: &StoredHook,
        point: &Arc<PointDef>,
        schema: Option<Arc<SchemaText>>,
    ) -> Result<(Arc<PlannedHook>, [u8; 16]), String> {
        let secrets = self.inner.vault.open_hook(hook.id, &hook.sealed_secrets).map_err(|e| e.to_string())?;
        let identity = identity(&self.inner.fingerprint_key, &hook.config, &secrets);
        let planned = PlannedHook::new(hook.id, hook.created_at, hook.config.clone(), Arc::clone(point), secrets);
        let mut planned = planned.map_err(|e| e.to_string())?;
        if let Some(schema) = schema {
            planned.schema = Some(schema);
        }
        Ok((Arc::new(planned), identity))
    }

    /// The way to a hook's receiver.
    pub(super) fn route_of(&self, tenant: &Tenant, hook: &PlannedHook, nets: &Arc<[IpNet]>) -> Result<Route, String> {
        let target = |url: &str| Target::parse(url).map_err(|e| format!("the url cannot be called: {e}"));
        let auth = match (&hook.config.auth, &hook.auth_secret) {
            (Some(auth), Some(secret)) => Some(Prepared::new(tenant.key, auth, secret)?),
            (Some(_), None) => return Err("the endpoint auth has no secret".to_owned()),
            (None, _) => None,
        };
        let (target, probe) = (target(&hook.endpoint)?, target(&hook.probe_endpoint)?);
        let http1 = hook.config.http == HttpVersions::Http1;
        Ok(Route { target, probe, auth, nets: Arc::clone(nets), http1 })
    }

    fn endpoint_state(
        &self,
        hook: HookId,
        identity: [u8; 16],
        max_in_flight: u32,
        before: Option<&TenantHooks>,
    ) -> Arc<EndpointState> {
        let known = before.and_then(|before| before.asked.get(&hook));
        match known.filter(|asked| asked.state.identity == identity) {
            Some(asked) => {
                asked.state.places.resize(max_in_flight);
                Arc::clone(&asked.state)
            }
            None => Arc::new(EndpointState::new(identity, max_in_flight, self.inner.hooks.monotonic().as_secs())),
        }
    }
}

/// Held over a change of what a snapshot is made of. [`HookChange::known`] makes the change known
/// before it is answered. Should that fail, or nobody wait for it, the snapshot is read anew in the
/// background until the store answers; the old one serves meanwhile.
#[must_use = "a change that is not made known is made known in the background"]
pub(crate) struct HookChange {
    engine: Engine,
    tenant: TenantId,
    known: bool,
}

impl HookChange {
    /// The change is committed, or was none.
    pub(crate) async fn known(mut self) -> Result<(), StoreError> {
        self.engine.reload_hooks(&self.tenant).await?;
        self.known = true;
        Ok(())
    }

    /// Nothing was changed.
    pub(crate) fn none(mut self) {
        self.known = true;
    }
}

impl Drop for HookChange {
    fn drop(&mut self) {
        if self.known {
            return;
        }
        let (engine, tenant) = (self.engine.clone(), self.tenant.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut wait = std::time::Duration::from_millis(50);
            while !engine.draining() {
                match engine.reload_hooks(&tenant).await {
                    Ok(()) | Err(StoreError::Closed) => return,
                    Err(error) => tracing::debug!(tenant = %tenant, %error, "hooks are still to be read anew"),
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(std::time::Duration::from_secs(2));
            }
        });
    }
}
