//! Who is calling: API keys by their hash.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Hashes of the keys last deleted: whoever still has one is no stranger.
    deleted: Mutex<VecDeque<[u8; 32]>>,
}

/// Deleted keys that are remembered.
const DELETED_KEYS: usize = 1_024;

/// Why a key does not open anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadKey {
    /// Nobody has it, and as far as is remembered nobody had.
    Unknown,
    /// It was deleted.
    Deleted,
    /// Its time is over.
    Expired,
}

/// Compares hashes in a time that does not depend on them.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
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
            deleted: Mutex::default(),
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
        {
            let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
            for (hash, _) in self.keys.load().iter().filter(|(_, row)| which(row)) {
                if deleted.len() >= DELETED_KEYS {
                    deleted.pop_front();
                }
                deleted.push_back(*hash);
            }
        }
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
    ///
    /// # Errors
    /// Nobody does (any more).
    pub(crate) fn authenticate(&self, key: &str, now: Timestamp) -> Result<Caller, BadKey> {
        if key.starts_with(callback::PREFIX) {
            // One that is over cannot be told from one that was made up: receivers' are short-lived.
            let callback = self.callbacks.open(key, now).ok_or(BadKey::Unknown)?;
            let (tenant, issued_at) = (Some(callback.tenant), Some(callback.issued_at));
            return Ok(Caller { key: None, scopes: vec![Scope::Read], tenant, issued_at });
        }
        let hash = hash_key(key);
        if same(&hash, &self.admin) {
            return Ok(Caller { key: None, scopes: vec![Scope::Admin], tenant: None, issued_at: None });
        }
        let keys = self.keys.load();
        let Some(row) = keys.get(&hash) else { return Err(self.unknown(&hash)) };
        if row.expires_at.is_some_and(|at| at <= now) {
            return Err(BadKey::Expired);
        }
        Ok(Caller { key: Some(row.id), scopes: row.scopes.clone(), tenant: row.tenant.clone(), issued_at: None })
    }

    fn unknown(&self, hash: &[u8; 32]) -> BadKey {
        let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        if deleted.contains(hash) { BadKey::Deleted } else { BadKey::Unknown }
    }
}
