//! What a hook would come to, without making it: the hooks' part of judging a setup.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatepost_core::HookId;
use gatepost_core::hooks::hook::{HookConfig, HookSecrets, HookWrite};
use gatepost_core::hooks::point_write::{self, PointWrite};
use gatepost_core::hooks::points::{self, PointDef, PointSettings};
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_store::{Page, PageRequest};
use serde_json::{Map, Value};

use super::manage::moved_elsewhere;
use super::points::judged;
use super::snapshot::{PointEntry, TenantHooks};
use crate::engine::Engine;
use crate::error::{Error, FieldError, Kind, Result};

/// What a point would be.
#[derive(Clone, Debug)]
pub struct PointPreview {
    /// The point as it is set and defined, by the members that can be written; `None`: it is as shipped, or
    /// there is none.
    pub before: Option<Map<String, Value>>,
    /// As it would be.
    pub after: Map<String, Value>,
    /// The point itself.
    pub point: Arc<PointDef>,
}

/// What a hook would be.
#[derive(Clone, Debug)]
pub struct HookPreview {
    /// The hook as it is, by the members that can be written; `None`: there is none.
    pub before: Option<Map<String, Value>>,
    /// As it would be. Secrets are masked here as there.
    pub after: Map<String, Value>,
    /// Pointers to the secrets that would be new or others than now, or go elsewhere: those are not kept.
    pub secrets: Vec<String>,
}

impl Engine {
    /// A tenant's hooks as they would be written, newest first: what is as by default is left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn hook_declarations(
        &self,
        tenant: &Tenant,
        page: PageRequest,
    ) -> Result<Page<(HookId, Map<String, Value>)>> {
        let page = self.hooks(tenant, None, page).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for view in page.rows {
            let point = self.point_of(tenant, &view.hook).await?;
            rows.push((view.hook.id, declared(&view.hook.config, &point)));
        }
        Ok(Page { rows, next: page.next })
    }

    /// The points a tenant defined or set, by name, as they would be written.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant is gone.
    pub async fn point_declarations(&self, tenant: &Tenant) -> Result<Vec<Map<String, Value>>> {
        let registry = self.inner.store.hook_registry(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let mut all = BTreeMap::new();
        for point in registry.points {
            let write = PointWrite { definition: point.definition, settings: point.settings };
            let members = point_write::written(&point.name, &write);
            // A built-in one that is set back says nothing but its name.
            if members.len() > 1 {
                all.insert(point.name, members);
            }
        }
        Ok(all.into_values().collect())
    }

    /// What `members`, a point whole, would make of the point called `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every bad member.
    pub async fn preview_point(
        &self,
        tenant: &Tenant,
        name: &str,
        members: Map<String, Value>,
    ) -> Result<PointPreview> {
        let registry = self.inner.store.hook_registry(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let builtin = points::builtin(name);
        let present = registry.points.into_iter().find(|point| point.name == name);
        let present = present.map(|point| PointWrite { definition: point.definition, settings: point.settings });
        let kind = |write: &PointWrite| write.definition.as_ref().map(|definition| definition.kind);
        let write = judged(point_write::read(name, members, builtin, None))?;
        if let Some(present) = &present
            && kind(present) != kind(&write)
        {
            let message = "is fixed: hooks were registered for it; define another point";
            return Err(Error::Invalid(vec![FieldError::new("/kind", message)]));
        }
        if let Some(schema) = write.definition.as_ref().and_then(|definition| definition.schema.as_ref()) {
            self.judge_point_schema(tenant, name, schema).await?;
        }
        let before = present.map(|present| point_write::written(name, &present)).filter(|members| members.len() > 1);
        let after = point_write::written(name, &write);
        let point = write.definition.map(Arc::new).or_else(|| builtin.cloned()).ok_or(Error::NotFound(Kind::Point))?;
        Ok(PointPreview { before, after, point })
    }

    /// What `members`, a hook whole, would make: of nothing, or of the hook `present`. Whether a hook that
    /// is to be enforced passes its test is only known when it is made. `planned`: points that would be made
    /// before it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every bad member; [`Error::NotFound`].
    pub async fn preview_hook(
        &self,
        tenant: &Tenant,
        mut members: Map<String, Value>,
        present: Option<HookId>,
        planned: &[Arc<PointDef>],
    ) -> Result<HookPreview> {
        let snapshot = self.tenant_hooks(&tenant.id).await?.ok_or(Error::NotFound(Kind::Tenant))?;
        let snapshot = with_points(snapshot, planned);
        let present = match present {
            Some(id) => Some(self.inner.store.hook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Hook))?),
            None => None,
        };
        let kept = match &present {
            Some(hook) => Some(self.inner.vault.open_hook(hook.id, &hook.sealed_secrets)?),
            None => None,
        };
        if let Some(hook) = &present
            && !members.contains_key("enabled")
        {
            // Switched off, it is not switched on again by silence.
            members.insert("enabled".to_owned(), hook.config.enabled.into());
        }
        let (write, errors) = HookConfig::read_all(members);
        let errors: Vec<_> = errors.into_iter().map(FieldError::from).collect();
        self.judge_hook(tenant, &snapshot, &write, present.as_ref().zip(kept.as_ref()), errors)?;
        let point = snapshot.points.get(&write.config.point).ok_or(Error::NotFound(Kind::Point))?;
        let before = match &present {
            Some(hook) => Some(declared(&hook.config, &*self.point_of(tenant, hook).await?)),
            None => None,
        };
        let mut secrets = others(&write, &kept.unwrap_or_default());
        if let Some(hook) = &present {
            let again = moved_elsewhere(hook, &write);
            let again = again.needed(write.headers.keys().map(String::as_str), write.config.auth.as_ref());
            let again: Vec<_> = again.filter(|pointer| !secrets.contains(pointer)).collect();
            secrets.extend(again);
        }
        Ok(HookPreview { before, after: declared(&write.config, &point.def), secrets })
    }
}

/// The hooks of a tenant, with these points besides.
fn with_points(hooks: Arc<TenantHooks>, planned: &[Arc<PointDef>]) -> Arc<TenantHooks> {
    let new: Vec<_> = planned.iter().filter(|point| !hooks.points.contains_key(&point.name)).collect();
    if new.is_empty() {
        return hooks;
    }
    let mut points = hooks.points.clone();
    for def in new {
        let (def, settings) = (Arc::clone(def), PointSettings::default());
        points.insert(def.name.clone(), PointEntry { def, settings, schema: None, hooks: Vec::new() });
    }
    let (asked, held) = (hooks.asked.clone(), Arc::clone(&hooks.held));
    Arc::new(TenantHooks { tenant: hooks.tenant.clone(), points, asked, held })
}

/// A hook's members, but for those that are as by default.
fn declared(config: &HookConfig, point: &PointDef) -> Map<String, Value> {
    let bare = HookConfig::new(&config.name, &config.point, &config.url).shown(point);
    let mut members = config.shown(point);
    members.retain(|name, value| ["name", "point", "url"].contains(&name.as_str()) || bare.get(name) != Some(value));
    members
}

/// Pointers to the secrets that were given and are not those of `known`.
fn others(write: &HookWrite, known: &HookSecrets) -> Vec<String> {
    let same = |name: &str, value: &Secret| {
        known.headers.iter().any(|(known, kept)| known.eq_ignore_ascii_case(name) && kept == value)
    };
    let given = write.headers.iter().filter(|(name, value)| !same(name, value));
    let mut pointers: Vec<String> =
        given.map(|(name, _)| format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"))).collect();
    if let (Some(auth), Some(secret)) = (&write.config.auth, &write.auth_secret)
        && known.auth.as_ref() != Some(secret)
    {
        pointers.push(format!("/auth/{}", auth.secret_member()));
    }
    let import = write.secret.as_ref();
    if import.is_some_and(|import| !known.signing.iter().any(|key| key.expires_at.is_none() && key.text == *import)) {
        pointers.push("/secret".to_owned());
    }
    pointers
}
