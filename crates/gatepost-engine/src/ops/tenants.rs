//! Tenants.

use std::sync::Arc;

use gatepost_core::TenantId;
use gatepost_core::tenant::{HookSwitch, Quotas, Retention, Tenant};
use gatepost_store::{Created, Page, PageRequest, PutTenant};

use super::TenantInput;
use crate::deliver::Command;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Kind, Result};

/// How long a tenant's things are kept, to change; `None` keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetentionInput {
    /// Days, 1 to 3,650.
    pub events_days: Option<u32>,
    /// Days, 1 to 3,650.
    pub attempts_days: Option<u32>,
}

impl RetentionInput {
    /// `present` with what this input sets.
    pub fn over(self, present: Retention) -> Retention {
        Retention {
            events_days: self.events_days.unwrap_or(present.events_days),
            attempts_days: self.attempts_days.unwrap_or(present.attempts_days),
        }
    }
}

/// A tenant's quotas to change; `None` keeps, `Some(None)` lifts the bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuotasInput {
    /// Webhooks.
    pub webhooks: Option<Option<u32>>,
    /// Events accepted per second.
    pub events_per_s: Option<Option<u32>>,
    /// Deliveries waiting.
    pub pending: Option<Option<u64>>,
}

impl QuotasInput {
    /// Lifts every bound.
    pub const NONE: QuotasInput = QuotasInput { webhooks: Some(None), events_per_s: Some(None), pending: Some(None) };

    /// `present` with what this input sets.
    pub fn over(self, present: Quotas) -> Quotas {
        Quotas {
            webhooks: self.webhooks.unwrap_or(present.webhooks),
            events_per_s: self.events_per_s.unwrap_or(present.events_per_s),
            pending: self.pending.unwrap_or(present.pending),
        }
    }
}

impl Engine {
    /// Creates a tenant or changes it; absent members keep.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad CIDR in `allow_nets`.
    pub async fn put_tenant(&self, id: TenantId, input: TenantInput) -> Result<(Tenant, Created)> {
        let present = self.inner.store.tenant(&id).await?;
        let required = present.as_ref().is_some_and(|tenant| tenant.settings.require_verification);
        let hooks_before = present.as_ref().map(|tenant| tenant.settings.hooks).unwrap_or_default();
        let settings = match input.settings {
            Some(change) => {
                let settings = change.over(&present.map(|t| t.settings).unwrap_or_default());
                check_nets(&settings.allow_nets)?;
                Some(settings)
            }
            None => None,
        };
        let put =
            PutTenant { id: id.clone(), name: input.name, environment: input.environment, settings, now: self.now() };
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(id.clone()));
        let changing = self.inner.tenants.changing(&id);
        let hooks = self.changing_hooks(&id);
        let (tenant, created) = self.inner.store.put_tenant(put).await?;
        changing.put(&*self.inner.store, tenant.key).await;
        hooks.known().await?;
        doubt.resolved();
        if tenant.settings.hooks != hooks_before {
            let switch = if tenant.settings.hooks == HookSwitch::Bypass { "bypass" } else { "on" };
            tracing::warn!(tenant = %tenant.id, switch, "blocking hooks of a tenant are switched");
        }
        if created == Created::Yes {
            // A key made while its tenant was being deleted must not open the next one.
            self.inner.keys.forget_older(&id, tenant.created_at);
        }
        self.inner.inbox.send(Command::TenantChanged(tenant.clone()));
        if required && !tenant.settings.require_verification {
            // What was held for it may belong to webhooks the lane does not know.
            self.inner.inbox.send(Command::LookForOwed);
        }
        Ok((tenant, created))
    }

    /// What a tenant would be after a change; nothing is changed.
    ///
    /// # Errors
    /// As [`Engine::put_tenant`].
    pub fn preview_tenant(&self, present: &Tenant, input: TenantInput) -> Result<Tenant> {
        let mut after = present.clone();
        after.name = input.name.unwrap_or(after.name);
        after.environment = input.environment.unwrap_or(after.environment);
        if let Some(change) = input.settings {
            after.settings = change.over(&after.settings);
            check_nets(&after.settings.allow_nets)?;
        }
        Ok(after)
    }

    /// A tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none with this id.
    pub async fn tenant(&self, id: &TenantId) -> Result<Arc<Tenant>> {
        let tenant = self.tenant_state(id).await?.tenant.load_full();
        self.inner.tenant_types.load(&*self.inner.store, tenant.key).await?;
        Ok(tenant)
    }

    /// All tenants, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tenants(&self, page: PageRequest) -> Result<Page<Tenant>> {
        Ok(self.inner.store.tenants(page).await?)
    }

    /// Deletes a tenant. At once it is gone for every caller and nothing of it is sent any more; its
    /// rows are removed in the background.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none with this id.
    pub async fn delete_tenant(&self, id: &TenantId) -> Result<()> {
        let doubt = self.inner.inbox.unless_resolved(Command::InDoubt(id.clone()));
        let changing = self.inner.tenants.changing(id);
        let hooks = self.changing_hooks(id);
        let deleted = self.inner.store.delete_tenant(id, self.now()).await?;
        hooks.known().await?;
        doubt.resolved();
        drop(changing);
        let tenant = deleted.ok_or(Error::NotFound(Kind::Tenant))?;
        self.inner.keys.forget_tenant(id);
        self.inner.tenant_types.forget(tenant.key);
        self.inner.streams.tenant_deleted(tenant.key);
        self.inner.inbox.send(Command::TenantDeleted(tenant.key));
        self.inner.sweep.notify_one();
        Ok(())
    }
}

fn check_nets(nets: &[String]) -> Result<()> {
    let errors: Vec<_> = nets
        .iter()
        .enumerate()
        .filter_map(|(i, net)| Some(FieldError::new(format!("/settings/allow_nets/{i}"), check_net(net).err()?)))
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

/// Whether a text is a network as `allow_nets` has them.
///
/// # Errors
/// Says what it is to be.
pub fn check_net(net: &str) -> std::result::Result<(), String> {
    match net.parse::<ipnet::IpNet>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{net:?} is not a network in CIDR form, such as 10.0.0.0/8 or fd00::/8")),
    }
}
