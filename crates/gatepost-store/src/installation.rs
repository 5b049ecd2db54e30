//! Changes to what belongs to the whole installation.

use std::sync::Arc;

use async_trait::async_trait;
use gatepost_core::Waits;

use crate::Result;

/// A named value to replace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaSwap {
    /// Its name, as for [`Store::meta`](crate::Store::meta).
    pub name: String,
    /// What it must be now.
    pub from: Vec<u8>,
    /// What it becomes.
    pub to: Vec<u8>,
}

/// The part of [`Store`](crate::Store) about the installation's own values.
#[async_trait]
pub trait InstallationStore: Send + Sync {
    /// Replaces named values that belong together, all or none: only if each is still what it is expected
    /// to be. Whether it did.
    async fn swap_meta(&self, swaps: Vec<MetaSwap>) -> Result<bool>;

    /// From now on due times are of this time: in what is handed out to be delivered ([`Due`](crate::Due),
    /// [`Wake`](crate::Wake), [`Owed`](crate::Owed), a webhook's pause), asked for and settled. What the
    /// calls say of `now`, and what is shown to people, is of the clock.
    fn wait_by(&self, waits: Arc<Waits>);
}
