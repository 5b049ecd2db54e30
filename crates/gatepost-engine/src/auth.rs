//! Who is calling: API keys by their hash.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use gatepost_core::callback::{self, CallbackKey};
use gatepost_core::secret::Secret;
use gatepost_core::{Entropy, KeyId, TenantId, Timestamp};
use gatepost_store::{KeyRow, PageRequest, Scope, Store, StoreError};

use crate::ops::Caller;

/// SHA-256 of an API key: 256 random bits need no slow hash.
pub(crate) fn hash_key(key: &str) -> [u8; 32] {
    gatepost_core::hashing::sha256(key.as_bytes())
}

/// A new key's text: recognisable by scanners, 256 random bits.
pub(crate) fn generate_key(entropy: &dyn Entropy) -> Secret {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    Secret::new(format!("gp_{}", gatepost_core::hashing::base64url(&bytes)))
}

/// Every key, in memory: authenticating a publish must not read the store.
///
/// Looking a *hash* up takes time that depends on the hash alone, of which an attacker controls no
/// prefix; that is why a plain map is safe here.
pub(crate) struct KeyRing {
    admin: [u8; 32],
    callbacks: CallbackKey,
    keys: ArcSwap<HashMap<[u8; 32], Arc<KeyRow>>>,
    forgotten: AtomicU64,
}

impl KeyRing {
    /// Reads all keys.
    pub(crate) async fn load(store: &dyn Store, admin: &Secret, callbacks: CallbackKey) -> Result<Self, StoreError> {
        let mut keys = HashMap::new();
        let mut after = None;
        loop {
            let page = store.keys(PageRequest { limit: 250, after }).await?;
            keys.extend(page.rows.into_iter().map(|row| (row.hash, Arc::new(row))));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(KeyRing {
            admin: hash_key(admin.expose()),
            callbacks,
            keys: ArcSwap::from_pointee(keys),
            forgotten: AtomicU64::new(0),
        })
    }

    /// Adds a key just stored.
    pub(crate) fn add(&self, row: KeyRow) {
        let row = Arc::new(row);
        self.keys.rcu(|keys| {
            let mut keys = HashMap::clone(keys);
            keys.insert(row.hash, Arc::clone(&row));
            keys
        });
    }

    /// Forgets a key: it stops working at once.
    pub(crate) fn remove(&self, id: KeyId) {
        self.forget(|row| row.id == id);
    }

    /// Forgets the keys of a tenant that was deleted, as the store does.
    pub(crate) fn forget_tenant(&self, tenant: &TenantId) {
        self.forget(|row| row.tenant.as_ref() == Some(tenant));
    }

    /// Forgets the keys of a tenant id that are older than the tenant just made under it: left over
    /// from an earlier one.
    pub(crate) fn forget_older(&self, tenant: &TenantId, than: Timestamp) {
        self.forget(|row| row.tenant.as_ref() == Some(tenant) && row.created_at < than);
    }

    fn forget(&self, which: impl Fn(&KeyRow) -> bool) {
        self.keys.rcu(|keys| {
            let mut keys = HashMap::clone(keys);
            keys.retain(|_, row| !which(row));
            keys
        });
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    /// Grows whenever keys may have been taken away: time to look whether one is still there.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }

    /// A key by its id. Looks at all of them: not for every request.
    pub(crate) fn find(&self, id: KeyId) -> Option<Arc<KeyRow>> {
        self.keys.load().values().find(|row| row.id == id).cloned()
    }

    /// Who holds `key`, if anybody does at `now`.
    pub(crate) fn authenticate(&self, key: &str, now: Timestamp) -> Option<Caller> {
        if key.starts_with(callback::PREFIX) {
            let callback = self.callbacks.open(key, now)?;
            let (tenant, issued_at) = (Some(callback.tenant), Some(callback.issued_at));
            return Some(Caller { key: None, scopes: vec![Scope::Read], tenant, issued_at });
        }
        let hash = hash_key(key);
        if hash == self.admin {
            return Some(Caller { key: None, scopes: vec![Scope::Admin], tenant: None, issued_at: None });
        }
        let keys = self.keys.load();
        let row = keys.get(&hash)?;
        if row.expires_at.is_some_and(|at| at <= now) {
            return None;
        }
        Some(Caller { key: Some(row.id), scopes: row.scopes.clone(), tenant: row.tenant.clone(), issued_at: None })
    }
}
