//! The lane receivers are called on, and the background work beside it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatepost_core::hooks::hook::Mode;
use gatepost_store::StoreError;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::snapshot::Asked;
use crate::engine::Engine;

/// How often connections to enforced hooks are looked after.
const WARM_EVERY: Duration = Duration::from_secs(5);
/// Hooks whose connections are kept warm: those called last.
const WARM_MAX: usize = 256;
/// Connections kept ready for each.
const WARM_EACH: usize = 2;
/// A hook that was not called for this long is let go cold, in seconds.
const WARM_FOR_S: u64 = 600;
/// A tick of the background work.
const TICK: Duration = Duration::from_secs(1);
/// Records are looked after every so many ticks while there are new ones, and seldom otherwise.
const UPKEEP_TICKS: u64 = 5;
const UPKEEP_SELDOM: u64 = 60;
/// How long records count as new, in seconds: longer than an outcome is awaited.
const NEW_FOR_S: u64 = 120;
/// How long a notification may be kept, in seconds, and how often it is looked otherwise, in ticks.
const KEPT_FOR_S: u64 = 16 * 60;
const KEPT_SELDOM: u64 = 30;
/// Rows of one step of it.
const UPKEEP_ROWS: usize = 500;
/// Outcomes whose events are published in one round.
const OWED_ROUND: usize = 100;
/// Tenants whose hooks are read in one round at start.
const LOAD_ROUND: usize = 200;

/// A single-threaded runtime of its own: what it measured faster with, and nothing else delays it.
pub(crate) struct HookLane {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HookLane {
    /// Starts the lane of an engine.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // An engine has one lane.
        let _ = engine.inner.hooks.lane.set(runtime.handle().clone());
        let stop = CancellationToken::new();
        let (engine, until) = (engine.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("gatepost-hooks".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = until.cancelled() => {}
                    () = engine.keep_warm() => {}
                }
            });
        })?;
        Ok(HookLane { stop, thread: Some(thread) })
    }

    /// Waits for what is under way, then ends the lane.
    pub(crate) async fn stop(mut self, engine: &Engine, patience: Duration) {
        let until = Instant::now() + patience;
        let hooks = &engine.inner.hooks;
        let busy = || !hooks.held.is_empty() || hooks.trials.load(Ordering::Acquire) > 0;
        while busy() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It ends at its next turn; joining may wait for that turn.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for HookLane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The task that writes down what was decided.
pub(crate) struct Recording {
    task: tokio::task::JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Recording {
    /// Starts it on the runtime around.
    pub(crate) fn start(engine: &Engine) -> Self {
        let (stop, stopped) = oneshot::channel();
        Recording { task: tokio::spawn(engine.clone().keep_recording(stopped)), stop }
    }

    /// Writes down what is left, and ends.
    pub(crate) async fn stop(mut self, patience: Duration) {
        // Nobody listens when recording has ended already.
        let _ = self.stop.send(());
        if tokio::time::timeout(patience, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Engine {
    /// Reads the hooks of every tenant that has any, so that not even the first question after a start
    /// has to wait for the store.
    async fn load_hooks(&self) {
        let mut after = None;
        loop {
            let tenants = match self.inner.store.hook_tenants(after, LOAD_ROUND).await {
                Ok(tenants) => tenants,
                Err(error) => {
                    tracing::warn!(%error, "hooks are read when they are first asked");
                    return;
                }
            };
            let Some((last, _)) = tenants.last() else { break };
            after = Some(*last);
            for (_, tenant) in &tenants {
                if let Err(error) = self.tenant_hooks(tenant).await {
                    tracing::warn!(%tenant, %error, "the tenant's hooks are read when they are first asked");
                }
            }
        }
        self.inner.hooks.warm_now.notify_one();
    }

    /// Keeps connections to enforced hooks ready.
    async fn keep_warm(&self) {
        loop {
            tokio::select! {
                () = self.inner.hooks.warm_now.notified() => {}
                () = tokio::time::sleep(WARM_EVERY) => {}
            }
            if self.draining() {
                // Whoever is called now may still be called; nothing is prepared any more.
                continue;
            }
            let now_s = self.inner.hooks.monotonic().as_secs();
            let mut lately: Vec<Arc<Asked>> = Vec::new();
            for snapshot in self.inner.hooks.snapshots.all() {
                let enforced = snapshot.asked.values().filter(|asked| {
                    let hook = &asked.planned.config;
                    hook.enabled
                        && hook.mode == Mode::Enforce
                        && now_s.saturating_sub(asked.state.last_used()) < WARM_FOR_S
                        && self.admits(asked)
                });
                lately.extend(enforced.cloned());
            }
            lately.sort_by_key(|asked| std::cmp::Reverse(asked.state.last_used()));
            lately.truncate(WARM_MAX);
            for asked in lately {
                let Ok(route) = &asked.route else { continue };
                self.inner
                    .hooks
                    .door
                    .warm(route.auth.as_ref(), &route.target, &route.nets, route.http1, WARM_EACH)
                    .await;
            }
        }
    }

    /// The background work beside the lane: outcomes, kept notifications, old records.
    pub(crate) async fn keep_hooks(self) {
        self.load_hooks().await;
        let (mut tenant, mut more) = (None, false);
        let recorder = &self.inner.hooks.recorder;
        let mut ticks = 0_u64;
        while !self.draining() {
            tokio::time::sleep(TICK).await;
            ticks += 1;
            let now_s = self.inner.hooks.monotonic().as_secs();
            let lately = |at: u64, within: u64| now_s.saturating_sub(at) < within;
            let often = lately(recorder.last_record(), NEW_FOR_S) && ticks.is_multiple_of(UPKEEP_TICKS);
            if more || often || ticks.is_multiple_of(UPKEEP_SELDOM) {
                match self.inner.store.keep_up_hooks(self.now(), tenant, UPKEEP_ROWS).await {
                    Ok(step) => {
                        if step.unknown > 0 {
                            self.inner.metrics.hooks.outcome("unknown", step.unknown);
                        }
                        (tenant, more) = (step.next, step.more);
                    }
                    Err(StoreError::Closed) => return,
                    Err(error) => tracing::debug!(%error, "upkeep of invocations waits for the store"),
                }
                self.publish_owed_outcomes(OWED_ROUND).await;
            }
            if lately(recorder.last_secret(), KEPT_FOR_S) || ticks.is_multiple_of(KEPT_SELDOM) {
                self.retry_secrets().await;
            }
        }
    }
}
