//! What the lane does when webhooks and tenants change.

use std::sync::Arc;

use gatepost_core::event::Urgency;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Webhook;
use gatepost_core::{TenantId, TenantKey, Timestamp, WebhookKey};

use super::{Lane, Slot};
use crate::deliver::route::Route;
use crate::deliver::scheduler::{READ_AGAIN_AFTER, Terms};

impl Lane {
    pub(super) fn tenant_deleted(&mut self, tenant: TenantKey) {
        let gone: Vec<_> = self.routes_of(tenant).map(|(key, _)| key).collect();
        for key in gone {
            self.scheduler.remove(key);
            if let Some(Slot::Ready { gone, .. }) = self.slots.remove(&key) {
                gone.cancel();
            }
        }
        // Whose these are is not known yet, and what is being read may be older than the deletion.
        for slot in self.slots.values_mut() {
            if let Slot::Loading { dirty } = slot {
                *dirty = true;
            }
        }
    }

    /// Reads a tenant's webhooks again, and what they are owed.
    pub(super) fn in_doubt(&mut self, tenant: &TenantId, now: Timestamp) {
        let at = now.saturating_add(READ_AGAIN_AFTER);
        self.look_at(at, None);
        for (key, slot) in &mut self.slots {
            match slot {
                Slot::Ready { route, .. } if route.tenant.id == *tenant => {
                    self.reload.entry(*key).or_insert(at);
                }
                Slot::Ready { .. } => {}
                Slot::Loading { dirty } => *dirty = true,
            }
        }
    }

    fn routes_of(&self, tenant: TenantKey) -> impl Iterator<Item = (WebhookKey, &Arc<Route>)> {
        self.slots.iter().filter_map(move |(key, slot)| match slot {
            Slot::Ready { route, .. } if route.tenant.key == tenant => Some((*key, route)),
            _ => None,
        })
    }

    pub(super) fn webhook_changed(&mut self, webhook: Arc<Webhook>, reopened: bool, now: Timestamp) {
        let (key, tenant) = (webhook.key, webhook.tenant);
        match self.slots.get_mut(&key) {
            // Two changes may be told in another order than they were made.
            Some(Slot::Ready { route, .. }) if route.webhook.revision > webhook.revision => return,
            Some(Slot::Ready { route, paused_until, gone }) => {
                if webhook.deleted_at.is_some() {
                    // The one that tells it of its own deletion is yet to come.
                    std::mem::take(gone).cancel();
                }
                let fresh = Arc::new(Route::build(&self.parts.vault, webhook, Arc::clone(&route.tenant)));
                let mut terms = fresh.terms();
                // A change of the registration does not end a pause the receiver asked for.
                terms.paused_until = *paused_until;
                *route = fresh;
                self.scheduler.set_terms(tenant, key, terms, reopened, now);
                return;
            }
            Some(Slot::Loading { dirty }) => *dirty = true,
            None => {}
        }
        if reopened {
            // Nothing is known of it here: what was held waits in the store.
            for rank in 0..Urgency::ALL.len() {
                self.scheduler.stored(tenant, key, rank, Timestamp::EPOCH, now);
            }
        }
    }

    pub(super) fn tenant_changed(&mut self, tenant: Tenant, now: Timestamp) {
        let tenant = Arc::new(tenant);
        for (key, slot) in &mut self.slots {
            if let Slot::Ready { route, paused_until, .. } = slot
                && route.tenant.key == tenant.key
            {
                let (webhook, open) = (Arc::clone(&route.webhook), route.terms().open);
                *route = Arc::new(Route::build(&self.parts.vault, webhook, Arc::clone(&tenant)));
                let terms = Terms { paused_until: *paused_until, ..route.terms() };
                if terms.open != open {
                    // Whether webhooks must be verified is the tenant's to say.
                    self.scheduler.set_terms(tenant.key, *key, terms, terms.open, now);
                }
            }
        }
    }
}
