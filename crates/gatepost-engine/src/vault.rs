//! The data key, and the secrets sealed under it (P7).

use std::collections::BTreeMap;
use std::sync::Arc;

use gatepost_core::callback::CallbackKey;
use gatepost_core::hooks::hook::HookSecrets;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::webhook::{SigningKey, WebhookSecrets};
use gatepost_core::{Entropy, HookId, Timestamp, WebhookId};
use gatepost_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

pub(crate) const META_MASTER: &str = "master_key_fingerprint";
pub(crate) const META_DATA_KEY: &str = "data_key";
/// Names the wrapped data key as the row it is.
pub(crate) const DATA_KEY_CONTEXT: &[u8] = b"gatepost data key";

/// Why the vault stays shut.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store was sealed under another master key.
    #[error(
        "the master key does not match the one this store was made with: set GATEPOST_MASTER_KEY (or master.key in \
         the data folder) to the key of this store"
    )]
    WrongMasterKey,
    /// The wrapped data key is damaged.
    #[error("the wrapped data key in the store is damaged")]
    Damaged,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Seals and opens what is secret. Cloning shares the key.
#[derive(Clone)]
pub(crate) struct Vault {
    data_key: Arc<Key>,
    entropy: Arc<dyn Entropy>,
}

impl Vault {
    /// Opens the store's data key with `master`, making one in an empty store.
    pub(crate) async fn open(
        store: &dyn Store,
        master: &Key,
        entropy: Arc<dyn Entropy>,
    ) -> std::result::Result<Self, VaultError> {
        let fingerprint = master.fingerprint();
        if store.init_meta(META_MASTER, &fingerprint).await? != fingerprint {
            return Err(VaultError::WrongMasterKey);
        }
        let fresh = Key::generate(&entropy).to_base64();
        let wrapped = master.seal(fresh.as_bytes(), DATA_KEY_CONTEXT, &entropy).map_err(|_| VaultError::Damaged)?;
        let wrapped = store.init_meta(META_DATA_KEY, &wrapped).await?;
        let text = master.open(&wrapped, DATA_KEY_CONTEXT).map_err(|_| VaultError::Damaged)?;
        let text = std::str::from_utf8(&text).map_err(|_| VaultError::Damaged)?;
        let data_key = Key::from_base64(text).map_err(|_| VaultError::Damaged)?;
        Ok(Vault { data_key: Arc::new(data_key), entropy })
    }

    /// What callback tokens are made with.
    pub(crate) fn callback_key(&self) -> CallbackKey {
        CallbackKey::new(&self.derive("callback token v1"))
    }

    /// A key for another purpose.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        self.data_key.derive(purpose)
    }

    /// Seals a webhook's secrets for its row.
    pub(crate) fn seal(&self, id: WebhookId, secrets: &WebhookSecrets) -> Result<Vec<u8>> {
        self.seal_for(&id.to_bytes(), secrets)
    }

    /// Seals a hook's secrets for its row.
    pub(crate) fn seal_hook(&self, id: HookId, secrets: &HookSecrets) -> Result<Vec<u8>> {
        let HookSecrets { signing, headers, auth } = secrets.clone();
        self.seal_for(&id.to_bytes(), &WebhookSecrets { signing, headers, auth })
    }

    /// Opens a hook's secrets.
    pub(crate) fn open_hook(&self, id: HookId, sealed: &[u8]) -> Result<HookSecrets> {
        let WebhookSecrets { signing, headers, auth } = self.open_for(&id.to_bytes(), sealed)?;
        Ok(HookSecrets { signing, headers, auth })
    }

    /// Seals bytes for the row that `context` names.
    pub(crate) fn seal_bytes(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        self.data_key.seal(plain, context, &self.entropy).map_err(|_| Error::Sealed)
    }

    /// Opens bytes of the row that `context` names.
    pub(crate) fn open_bytes(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.data_key.open(sealed, context).map_err(|_| Error::Sealed)
    }

    fn seal_for(&self, context: &[u8], secrets: &WebhookSecrets) -> Result<Vec<u8>> {
        let form = SecretsForm {
            signing: secrets
                .signing
                .iter()
                .map(|k| KeyForm {
                    text: k.text.expose().to_owned(),
                    created_at: k.created_at,
                    expires_at: k.expires_at,
                })
                .collect(),
            headers: secrets.headers.iter().map(|(n, v)| (n.clone(), v.expose().to_owned())).collect(),
            auth: secrets.auth.as_ref().map(|text| text.expose().to_owned()),
        };
        let plain = Zeroizing::new(serde_json::to_vec(&form).map_err(|_| Error::Sealed)?);
        self.data_key.seal(&plain, context, &self.entropy).map_err(|_| Error::Sealed)
    }

    /// Opens a webhook's secrets.
    pub(crate) fn open_secrets(&self, id: WebhookId, sealed: &[u8]) -> Result<WebhookSecrets> {
        self.open_for(&id.to_bytes(), sealed)
    }

    fn open_for(&self, context: &[u8], sealed: &[u8]) -> Result<WebhookSecrets> {
        let plain = self.data_key.open(sealed, context).map_err(|_| Error::Sealed)?;
        let form: SecretsForm = serde_json::from_slice(&plain).map_err(|_| Error::Sealed)?;
        Ok(WebhookSecrets {
            signing: form
                .signing
                .into_iter()
                .map(|k| SigningKey { text: Secret::new(k.text), created_at: k.created_at, expires_at: k.expires_at })
                .collect(),
            headers: form.headers.into_iter().map(|(n, v)| (n, Secret::new(v))).collect(),
            auth: form.auth.map(Secret::new),
        })
    }
}

/// [`WebhookSecrets`] as sealed. Lives only inside this module: nothing else may serialise a secret.
#[derive(Serialize, Deserialize)]
struct SecretsForm {
    signing: Vec<KeyForm>,
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct KeyForm {
    text: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}
