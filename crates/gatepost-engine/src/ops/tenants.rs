//! Tenants.

use gatepost_core::TenantId;
use gatepost_core::tenant::Tenant;
use gatepost_store::{Created, Page, PageRequest, PutTenant};

use super::TenantInput;
use crate::deliver::Command;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Kind, Result};

impl Engine {
    /// Creates a tenant or changes it; absent members keep.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad CIDR in `allow_nets`.
    pub async fn put_tenant(&self, id: TenantId, input: TenantInput) -> Result<(Tenant, Created)> {
        let present = self.inner.store.tenant(&id).await?;
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
        let (tenant, created) = self.inner.store.put_tenant(put).await?;
        changing.put(&*self.inner.store, tenant.key).await;
        doubt.resolved();
        if created == Created::Yes {
            // A key made while its tenant was being deleted must not open the next one.
            self.inner.keys.forget_older(&id, tenant.created_at);
        }
        self.inner.inbox.send(Command::TenantChanged(tenant.clone()));
        Ok((tenant, created))
    }

    /// A tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none with this id.
    pub async fn tenant(&self, id: &TenantId) -> Result<Tenant> {
        let state = self.tenant_state(id).await?;
        Ok(Tenant::clone(&state.tenant.load()))
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
        let deleted = self.inner.store.delete_tenant(id, self.now()).await?;
        doubt.resolved();
        drop(changing);
        let tenant = deleted.ok_or(Error::NotFound(Kind::Tenant))?;
        self.inner.keys.forget_tenant(id);
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
