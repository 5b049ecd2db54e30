//! Points: listed, set, defined and removed.

use gatepost_core::hooks::point_write::{self, PointWrite};
use gatepost_core::hooks::points;
use gatepost_core::tenant::Tenant;
use gatepost_store::Created;
use gatepost_store::hooks::{PointRemoval, StoredPoint};
use serde_json::{Map, Value};

use super::snapshot::PointEntry;
use super::view::PointView;
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, FieldError, Kind, Result};

/// Points a tenant may define.
const OWN_MAX: usize = 200;
/// Bytes of the compiled schemas of a tenant's points: they are kept as long as its hooks are.
const SCHEMAS_MAX: usize = 1 << 20;

fn view(entry: &PointEntry) -> PointView {
    PointView {
        point: entry.def.clone(),
        settings: entry.settings.clone(),
        hooks: entry.hooks.iter().map(|hook| hook.id).collect(),
    }
}

/// What was read of a point.
pub(super) fn judged(
    read: std::result::Result<PointWrite, Vec<gatepost_core::hooks::FieldError>>,
) -> Result<PointWrite> {
    read.map_err(|errors| Error::Invalid(errors.into_iter().map(FieldError::from).collect()))
}

impl Engine {
    /// Every point of a tenant: the built-in ones, then its own by name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant is gone.
    pub async fn points(&self, tenant: &Tenant) -> Result<Vec<PointView>> {
        let snapshot = self.tenant_hooks(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let mut all: Vec<_> = points::builtins().iter().filter_map(|def| snapshot.points.get(&def.name)).collect();
        let mut own: Vec<_> = snapshot.points.values().filter(|entry| !entry.def.builtin).collect();
        own.sort_by(|a, b| a.def.name.cmp(&b.def.name));
        all.extend(own);
        Ok(all.into_iter().map(view).collect())
    }

    /// A point.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn point(&self, tenant: &Tenant, name: &str) -> Result<PointView> {
        let snapshot = self.tenant_hooks(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        snapshot.points.get(name).map(view).ok_or(Error::NotFound(Kind::Point))
    }

    /// Sets a built-in point, or defines and sets one of the tenant's own; absent members keep. Holds
    /// for the next invocation.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every bad member.
    pub async fn put_point(
        &self,
        tenant: &Tenant,
        name: &str,
        body: Map<String, Value>,
    ) -> Result<(PointView, Created)> {
        let registry = self.inner.store.hook_registry(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let builtin = points::builtin(name);
        let own = registry.points.iter().filter(|point| point.definition.is_some()).count();
        let present = registry.points.into_iter().find(|point| point.name == name);
        let before = present
            .as_ref()
            .map(|point| PointWrite { definition: point.definition.clone(), settings: point.settings.clone() });
        let PointWrite { definition, settings } = judged(point_write::read(name, body, builtin, before.as_ref()))?;
        if definition.is_some() && present.is_none() && own >= OWN_MAX {
            let message = format!("a tenant defines at most {OWN_MAX} points");
            return Err(Error::Invalid(vec![FieldError::new("{point}", message)]));
        }
        if let Some(schema) = definition.as_ref().and_then(|definition| definition.schema.as_ref()) {
            self.judge_point_schema(tenant, name, schema).await?;
        }
        let now = self.now();
        let point = StoredPoint { name: name.to_owned(), definition, settings, created_at: now, updated_at: now };
        let was_on = before.is_none_or(|before| before.settings.enabled);
        let is_on = point.settings.enabled;
        let change = self.changing_hooks(&tenant.id);
        let put = self.inner.store.put_point(tenant.key, point).await?;
        let (_, created) = put.ok_or(Error::NotFound(Kind::Tenant))?;
        change.known().await?;
        if was_on != is_on {
            let switch = if is_on { "on" } else { "off" };
            tracing::warn!(tenant = %tenant.id, point = name, switch, "a point is switched");
        }
        // A built-in point was there before it was set.
        let created = if builtin.is_some() { Created::No } else { created };
        Ok((self.point(tenant, name).await?, created))
    }

    /// Whether a point's schema can be enforced, and kept compiled beside those of the tenant's other points.
    pub(super) async fn judge_point_schema(&self, tenant: &Tenant, name: &str, schema: &Value) -> Result<()> {
        let snapshot = self.tenant_hooks(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let weight = self.compile_schema(tenant.key, &schema.to_string()).await?;
        let others = snapshot.points.iter().filter(|(other, _)| *other != name);
        let others = others.filter_map(|(_, entry)| entry.schema.as_ref()?.ready()?.ok());
        if weight + others.map(|schema| schema.weight()).sum::<usize>() > SCHEMAS_MAX {
            let message = format!(
                "the schemas of a tenant's points take at most {} KiB together once compiled: use fewer, or fewer \
                 and simpler patterns",
                SCHEMAS_MAX >> 10
            );
            return Err(Error::Invalid(vec![FieldError::new("/schema", message)]));
        }
        Ok(())
    }

    /// Removes a tenant's own point; takes a built-in one back to how it was shipped.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] while hooks are registered at it.
    pub async fn delete_point(&self, tenant: &Tenant, name: &str) -> Result<()> {
        let builtin = points::builtin(name).is_some();
        let change = self.changing_hooks(&tenant.id);
        match self.inner.store.delete_point(tenant.key, name, builtin).await? {
            PointRemoval::Removed => Ok(change.known().await?),
            PointRemoval::NotFound => {
                change.none();
                if builtin { Ok(()) } else { Err(Error::NotFound(Kind::Point)) }
            }
            PointRemoval::InUse => {
                change.none();
                Err(Error::Conflict {
                    code: ConflictCode::PointInUse,
                    message: format!("hooks are registered at the point {name:?}: delete them first"),
                })
            }
        }
    }
}
