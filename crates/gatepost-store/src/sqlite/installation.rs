//! [`InstallationStore`] for [`SqliteStore`].

use std::sync::Arc;

use async_trait::async_trait;
use gatepost_core::Waits;

use super::error::DbResult;
use super::queue::Lane;
use super::writer::Tx;
use super::{SqliteStore, meta};
use crate::{InstallationStore, MetaSwap, Result};

/// What the request holds in the queue, about.
const SMALL: usize = 1_024;

#[async_trait]
impl InstallationStore for SqliteStore {
    async fn swap_meta(&self, swaps: Vec<MetaSwap>) -> Result<bool> {
        self.write(Lane::Other, SMALL, move |tx| swap(tx, &swaps)).await
    }

    fn wait_by(&self, waits: Arc<Waits>) {
        self.waits.set(waits);
    }
}

fn swap(tx: &Tx<'_>, swaps: &[MetaSwap]) -> DbResult<bool> {
    for swap in swaps {
        if meta::meta(tx.conn, &swap.name)?.as_ref() != Some(&swap.from) {
            return Ok(false);
        }
    }
    for swap in swaps {
        meta::set(tx, &swap.name, &swap.to)?;
    }
    Ok(true)
}
