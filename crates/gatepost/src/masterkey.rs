//! Changing the master key of a data folder, such that a crash at any moment leaves a folder that opens.
//!
//! 1. the new key is written beside the old one, as [`NEXT`];
//! 2. the store's data key is wrapped anew, in one transaction: from here on only the new key opens it;
//! 3. the old key's file gets another name, the new one its place.
//!
//! A crash before 2 leaves a key nobody needs, one after it leaves the key in the wrong file. Whoever
//! opens the folder next [settles](settle) which of the two it was: only the store knows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use gatepost_core::Entropy;
use gatepost_core::hashing::hex;
use gatepost_core::seal::Key;
use gatepost_engine::master;
use gatepost_store::sqlite::Options;
use gatepost_store::{SqliteStore, Store, StoreError};

use crate::keyfiles::{self, MASTER_KEY};

/// The file of a key that is becoming the master key.
pub const NEXT: &str = "master.key.new";

/// A change that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// The fingerprint of the old key.
    pub old: String,
    /// The fingerprint of the new key.
    pub new: String,
    /// The file the new key is in; `None`: it was given, and the settings must be changed to it.
    pub file: Option<PathBuf>,
    /// The file the old key was kept in.
    pub kept: Option<PathBuf>,
}

/// A key's fingerprint as people see it.
pub fn fingerprint(key: &Key) -> String {
    hex(&key.fingerprint())
}

/// The key that opens `store`: `key`, or the one of a change of keys that was interrupted, which is then
/// finished. `from_settings`: `key` does not come from the folder's file.
///
/// # Errors
/// The store cannot be read, a file not be renamed, or the settings name a key that is no longer the one.
pub async fn settle(folder: &Path, key: Key, from_settings: bool, store: &dyn Store) -> Result<Key> {
    let next = folder.join(NEXT);
    keyfiles::sweep_drafts(folder);
    match master::is_of(store, &key).await? {
        None | Some(true) => {
            // A key that never became the store's.
            if next.exists() {
                fs::remove_file(&next).with_context(|| format!("{} cannot be removed", next.display()))?;
            }
            return Ok(key);
        }
        Some(false) => {}
    }
    if let Some(candidate) = keyfiles::read_master_key(&next)
        && master::is_of(store, &candidate).await? == Some(true)
    {
        promote(folder)?;
        tracing::warn!(file = %folder.join(MASTER_KEY).display(), "an interrupted change of the master key was finished");
        if !from_settings {
            return Ok(candidate);
        }
    }
    let own = folder.join(MASTER_KEY);
    if let Some(candidate) = keyfiles::read_master_key(&own)
        && from_settings
        && master::is_of(store, &candidate).await? == Some(true)
    {
        bail!(
            "the setting master_key (GATEPOST_MASTER_KEY) is not the key of this store, but the one in {} is: unset it, \
             or set it to that key",
            own.display()
        );
    }
    // Nobody's: whoever opens the secrets says so.
    Ok(key)
}

/// Gives the store in `folder`, which no server uses, another master key. `settings` is the present key
/// where the settings have it, `new` the new one where it is given; else one is made and kept in the
/// folder's file.
///
/// # Errors
/// A server runs on the folder, the present key is not the store's, or something cannot be written.
pub async fn rotate(folder: &Path, settings: Option<Key>, new: Option<Key>, entropy: &dyn Entropy) -> Result<Rotation> {
    if !folder.join(keyfiles::DATABASE).exists() {
        bail!("{} holds no store; --data-dir names another folder", folder.display());
    }
    let from_settings = settings.is_some();
    let present = match settings {
        Some(key) => key,
        None => keyfiles::master_key(folder, entropy)?.key,
    };
    let place = folder.to_owned();
    let opening = tokio::task::spawn_blocking(move || SqliteStore::open(&place, Options::default()));
    let store = opening.await.context("opening the store")?.map_err(|error| match error {
        StoreError::Unavailable(reason) if reason.contains("in use") => anyhow!("{reason}: stop the server first"),
        other => anyhow!(other),
    })?;
    let changed = change(folder, present, from_settings, new, &store, entropy).await;
    store.close().await;
    changed
}

async fn change(
    folder: &Path,
    present: Key,
    from_settings: bool,
    new: Option<Key>,
    store: &SqliteStore,
    entropy: &dyn Entropy,
) -> Result<Rotation> {
    let present = settle(folder, present, from_settings, store).await?;
    match master::is_of(store, &present).await? {
        Some(true) => {}
        Some(false) => return Err(gatepost_engine::VaultError::WrongMasterKey.into()),
        None => bail!("{} has never been served: there is no key to change yet", folder.display()),
    }
    // Whoever keeps the key elsewhere and brings the next one keeps that one too.
    let ours = !from_settings || new.is_none();
    let new = new.unwrap_or_else(|| Key::generate(entropy));
    if new.fingerprint() == present.fingerprint() {
        bail!("the new master key is the present one");
    }
    if ours {
        let next = folder.join(NEXT);
        let placed = keyfiles::place(&next, &new.to_base64());
        if !placed.with_context(|| format!("{} cannot be written", next.display()))? {
            bail!("{} is there already, made by somebody else just now", next.display());
        }
    }
    master::rotate(store, &present, &new, entropy).await?;
    let kept = if ours { promote(folder)? } else { None };
    Ok(Rotation {
        old: fingerprint(&present),
        new: fingerprint(&new),
        file: ours.then(|| folder.join(MASTER_KEY)),
        kept,
    })
}

/// Puts [`NEXT`] in the master key's place. The key that was there is kept under a name of its own:
/// backups made before need it.
fn promote(folder: &Path) -> Result<Option<PathBuf>> {
    let (next, place) = (folder.join(NEXT), folder.join(MASTER_KEY));
    let kept = match keyfiles::read_master_key(&place) {
        Some(old) => {
            let name = folder.join(format!("{MASTER_KEY}.old-{}", &fingerprint(&old)[..8]));
            keyfiles::place(&name, &old.to_base64())
                .with_context(|| format!("{} cannot be written", name.display()))?;
            Some(name)
        }
        None => None,
    };
    fs::rename(&next, &place)
        .and_then(|()| keyfiles::sync_folder(&place))
        .with_context(|| format!("{} cannot be renamed to {}", next.display(), place.display()))?;
    Ok(kept)
}
