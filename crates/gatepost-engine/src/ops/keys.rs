//! API keys.

use gatepost_core::KeyId;
use gatepost_core::secret::Secret;
use gatepost_store::{KeyRow, Page, PageRequest};

use super::{Caller, KeyInput};
use crate::auth::{BadKey, generate_key, hash_key};
use crate::engine::Engine;
use crate::error::{Error, FieldError, Kind, Result};

impl Engine {
    /// Makes a key. Its text is answered here and nowhere else (P7).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, no scope, an expiry in the past, or a tenant there is not.
    pub async fn create_key(&self, input: KeyInput) -> Result<(KeyRow, Secret)> {
        let mut errors = self.validate_key(&input);
        if let Some(id) = &input.tenant {
            match self.tenant(id).await {
                Ok(_) => {}
                // It would open whatever tenant is made under this id one day.
                Err(Error::NotFound(_)) => {
                    let message = format!("there is no tenant {:?}: create it first", id.as_str());
                    errors.push(FieldError::new("/tenant", message));
                }
                Err(other) => return Err(other),
            }
        }
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let now = self.now();
        let text = generate_key(&*self.inner.entropy);
        let mut scopes = input.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        let row = KeyRow {
            id: KeyId::new(self.origin_time(), &self.inner.entropy),
            name: input.name,
            hash: hash_key(text.expose()),
            scopes,
            tenant: input.tenant,
            expires_at: input.expires_at,
            created_at: now,
        };
        self.inner.store.create_key(row.clone()).await?;
        self.inner.keys.add(row.clone());
        Ok((row, text))
    }

    /// Everything wrong with a key to make, but for what only the store knows.
    pub fn validate_key(&self, input: &KeyInput) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if input.name.is_empty() || input.name.chars().count() > 200 {
            errors.push(FieldError::new("/name", "must have 1 to 200 characters"));
        }
        if input.scopes.is_empty() {
            errors.push(FieldError::new("/scopes", "must name at least one of admin, manage, publish, invoke, read"));
        }
        if input.expires_at.is_some_and(|at| at <= self.now()) {
            errors.push(FieldError::new("/expires_at", "must lie in the future"));
        }
        errors
    }

    /// All keys, newest first, without their texts.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keys(&self, page: PageRequest) -> Result<Page<KeyRow>> {
        Ok(self.inner.store.keys(page).await?)
    }

    /// Takes a key away: it stops working at once.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none with this id.
    pub async fn delete_key(&self, id: KeyId) -> Result<()> {
        let was_there = self.inner.store.delete_key(id).await?;
        self.inner.keys.remove(id);
        self.inner.streams.look_again();
        if was_there { Ok(()) } else { Err(Error::NotFound(Kind::Key)) }
    }

    /// Who holds this key text, if anybody does.
    pub fn authenticate(&self, key: &str) -> std::result::Result<Caller, BadKey> {
        self.inner.keys.authenticate(key, self.now())
    }
}
