//! Breakers: what calls come to is told to them; one that opens is probed in the background, so that
//! no user's call ever pays for finding out.

use std::sync::Arc;
use std::time::Duration;

use gatepost_core::TenantId;
use gatepost_core::hooks::breaker::{BreakerEvent, BreakerState};
use gatepost_core::own_events::OwnEvent;

use super::snapshot::{Asked, EndpointState};
use crate::engine::Engine;

impl Engine {
    /// Whether a hook may be called now.
    pub(super) fn admits(&self, asked: &Asked) -> bool {
        let hook = &asked.planned;
        !hook.config.has_breaker(&hook.point) || asked.state.breaker().admits()
    }

    /// Tells a hook's breaker what its receiver did.
    pub(super) fn note_breaker(&self, tenant: &TenantId, asked: &Arc<Asked>, event: BreakerEvent) {
        if asked.planned.config.has_breaker(&asked.planned.point) {
            let opened = self.step_breaker(&asked.state, event);
            if opened == Some(BreakerState::Open) {
                self.opened(tenant, asked);
            }
        }
    }

    /// The state it changed to, if it changed.
    fn step_breaker(&self, state: &EndpointState, event: BreakerEvent) -> Option<BreakerState> {
        let now = self.inner.hooks.monotonic();
        let mut breaker = state.breaker();
        let before = breaker.state();
        *breaker = breaker.after(event, now);
        let after = breaker.state();
        (before != after).then_some(after)
    }

    fn opened(&self, tenant: &TenantId, asked: &Arc<Asked>) {
        let (hook, name) = (asked.planned.id, asked.planned.config.name.as_str());
        tracing::warn!(%tenant, %hook, name, "a hook's receiver keeps failing: it is not asked for now");
        self.inner.metrics.hooks.circuit("opened");
        self.tell_circuit(tenant, asked, OwnEvent::HookCircuitOpened);
        let (engine, tenant, asked) = (self.clone(), tenant.clone(), Arc::clone(asked));
        self.inner.hooks.on_lane(async move { engine.probe_until_closed(&tenant, &asked).await });
    }

    async fn probe_until_closed(&self, tenant: &TenantId, asked: &Arc<Asked>) {
        while !self.draining() {
            let Some(at) = asked.state.breaker().probe_at() else { return };
            let wait = at.saturating_sub(self.inner.hooks.monotonic());
            tokio::time::sleep(wait.min(Duration::from_secs(120))).await;
            // A change may have given the hook another endpoint, or taken it away.
            let Ok(Some(present)) = self.tenant_hooks(tenant).await else { return };
            let Some(asked) = present.asked.get(&asked.planned.id).filter(|now| Arc::ptr_eq(&now.state, &asked.state))
            else {
                return;
            };
            if self.step_breaker(&asked.state, BreakerEvent::ProbeStarted) != Some(BreakerState::HalfOpen) {
                continue;
            }
            let passed = self.probe(&present.tenant.id, &asked.planned, asked.route.as_ref()).await.test.passed;
            let event = if passed { BreakerEvent::ProbePassed } else { BreakerEvent::ProbeFailed };
            self.step_breaker(&asked.state, event);
            if passed {
                let (hook, name) = (asked.planned.id, asked.planned.config.name.as_str());
                tracing::info!(%tenant, %hook, name, "a hook's receiver answers again");
                self.inner.metrics.hooks.circuit("closed");
                self.tell_circuit(tenant, asked, OwnEvent::HookCircuitClosed);
                return;
            }
        }
    }

    /// A passed test says the same as a passed probe.
    pub(super) fn close_circuit(&self, tenant: &TenantId, asked: &Arc<Asked>) {
        let closed = self.step_breaker(&asked.state, BreakerEvent::ProbePassed);
        if closed == Some(BreakerState::Closed) {
            self.inner.metrics.hooks.circuit("closed");
            self.tell_circuit(tenant, asked, OwnEvent::HookCircuitClosed);
        }
    }

    /// An own event of the tenant's, about the hook. Told in the background: no call waits for it.
    fn tell_circuit(&self, tenant: &TenantId, asked: &Arc<Asked>, event: OwnEvent) {
        let hook = &asked.planned;
        let data = serde_json::json!({
            "id": hook.id, "name": hook.config.name, "point": hook.config.point, "url": hook.config.url,
        });
        self.inner.hooks.recorder.tell(tenant.clone(), event, hook.id.to_string(), data);
    }
}
