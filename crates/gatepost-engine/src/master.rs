//! The master key of a store that nobody serves: whether it is the right one, and changing it.
//!
//! The master key only wraps the data key (P7), so changing it rewrites two small values, in one
//! transaction: at any moment exactly one master key opens the store.

use gatepost_core::Entropy;
use gatepost_core::seal::Key;
use gatepost_store::{MetaSwap, Store};

use crate::vault::{DATA_KEY_CONTEXT, META_DATA_KEY, META_MASTER, VaultError};

/// The named values of a store that [`check`] needs, in its order.
pub const META: [&str; 2] = [META_MASTER, META_DATA_KEY];

/// Whether `master` opens the store with these values of [`META`]. A store that never served has none,
/// and any key will do.
///
/// # Errors
/// [`VaultError::WrongMasterKey`] if it does not; [`VaultError::Damaged`] if nothing can.
pub fn check(meta: [Option<&[u8]>; 2], master: &Key) -> Result<(), VaultError> {
    match meta {
        [None, None] => Ok(()),
        [Some(fingerprint), _] if fingerprint != master.fingerprint() => Err(VaultError::WrongMasterKey),
        // Stopped between its first two steps: no data key yet, and nothing sealed under one.
        [Some(_), None] => Ok(()),
        [Some(_), Some(wrapped)] => master.open(wrapped, DATA_KEY_CONTEXT).map(drop).map_err(|_| VaultError::Damaged),
        [None, Some(_)] => Err(VaultError::Damaged),
    }
}

/// Whether `master` is the key of `store`; `None`: it has none yet.
///
/// # Errors
/// When the store fails.
pub async fn is_of(store: &dyn Store, master: &Key) -> Result<Option<bool>, VaultError> {
    Ok(store.meta(META_MASTER).await?.map(|fingerprint| fingerprint == master.fingerprint()))
}

/// Gives `store` another master key: wraps its data key with `new` instead of `old`. Once this has
/// returned, only `new` opens it; if it fails, only `old` does.
///
/// # Errors
/// [`VaultError::WrongMasterKey`] when `old` is not its key, [`VaultError::Damaged`], or the store fails.
pub async fn rotate(store: &dyn Store, old: &Key, new: &Key, entropy: &dyn Entropy) -> Result<(), VaultError> {
    let fingerprint = store.meta(META_MASTER).await?.ok_or(VaultError::Damaged)?;
    if fingerprint != old.fingerprint() {
        return Err(VaultError::WrongMasterKey);
    }
    let wrapped = store.meta(META_DATA_KEY).await?.ok_or(VaultError::Damaged)?;
    let data_key = old.open(&wrapped, DATA_KEY_CONTEXT).map_err(|_| VaultError::Damaged)?;
    let rewrapped = new.seal(&data_key, DATA_KEY_CONTEXT, entropy).map_err(|_| VaultError::Damaged)?;
    // Before it counts: what was sealed must open.
    new.open(&rewrapped, DATA_KEY_CONTEXT).map_err(|_| VaultError::Damaged)?;
    let swaps = vec![
        MetaSwap { name: META_MASTER.to_owned(), from: fingerprint, to: new.fingerprint().to_vec() },
        MetaSwap { name: META_DATA_KEY.to_owned(), from: wrapped, to: rewrapped },
    ];
    if store.swap_meta(swaps).await? { Ok(()) } else { Err(VaultError::WrongMasterKey) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gatepost_core::WebhookId;
    use gatepost_core::webhook::WebhookSecrets;
    use gatepost_store::SqliteStore;

    use super::*;
    use crate::SystemEntropy;
    use crate::vault::Vault;

    async fn values(store: &dyn Store) -> [Option<Vec<u8>>; 2] {
        [store.meta(META[0]).await.unwrap(), store.meta(META[1]).await.unwrap()]
    }

    #[tokio::test]
    async fn p7_after_a_rotation_only_the_new_key_opens_and_what_was_sealed_still_does() {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open_inline().unwrap());
        let entropy = Arc::new(SystemEntropy);
        let (old, new) = (Key::generate(&*entropy), Key::generate(&*entropy));
        assert_eq!(is_of(&*store, &old).await.unwrap(), None);
        assert!(check([None, None], &old).is_ok());
        let vault = Vault::open(&*store, &old, entropy.clone()).await.unwrap();
        let id = WebhookId::from_bytes([9; 16]);
        let sealed = vault.seal(id, &WebhookSecrets::default()).unwrap();

        assert!(matches!(rotate(&*store, &new, &old, &*entropy).await, Err(VaultError::WrongMasterKey)));
        rotate(&*store, &old, &new, &*entropy).await.unwrap();
        assert_eq!(
            (is_of(&*store, &old).await.unwrap(), is_of(&*store, &new).await.unwrap()),
            (Some(false), Some(true))
        );
        let kept = values(&*store).await;
        let kept = [kept[0].as_deref(), kept[1].as_deref()];
        assert!(check(kept, &new).is_ok());
        assert!(matches!(check(kept, &old), Err(VaultError::WrongMasterKey)));
        assert!(matches!(check([kept[0], Some(b"x")], &new), Err(VaultError::Damaged)));
        assert!(Vault::open(&*store, &old, entropy.clone()).await.is_err());
        let vault = Vault::open(&*store, &new, entropy).await.unwrap();
        assert_eq!(vault.open_secrets(id, &sealed).unwrap(), WebhookSecrets::default());
    }
}
