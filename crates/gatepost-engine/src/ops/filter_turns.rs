//! Whose filters run: one call of a tenant at a time, and of all tenants no more than there are cores
//! (P5). Costly filters run beside the API's threads, never on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gatepost_core::TenantKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// See the module.
pub(crate) struct FilterTurns {
    /// Tenants whose filters run, or wait for their turn.
    by_tenant: Mutex<HashMap<TenantKey, Arc<Semaphore>>>,
    everybody: Arc<Semaphore>,
}

impl Default for FilterTurns {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        FilterTurns { by_tenant: Mutex::default(), everybody: Arc::new(Semaphore::new(cores.max(2))) }
    }
}

/// A tenant's place in the line, while it waits and while it has its turn.
struct Place {
    turns: Arc<FilterTurns>,
    tenant: TenantKey,
    line: Arc<Semaphore>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_tenant = self.turns.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and ours: nobody else is in the line, and nobody can join it now.
        if Arc::strong_count(&self.line) == 2 {
            by_tenant.remove(&self.tenant);
        }
    }
}

/// The right to run one tenant's filters, until it is dropped.
pub(crate) struct Turn {
    // In this order: the permits hold the line too, and must be gone before the place is given up.
    _everybody: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _place: Place,
}

impl FilterTurns {
    /// Waits for `tenant`'s turn. Its own calls first wait for each other, so that it stands only
    /// once in the line with all others.
    pub(crate) async fn take(self: &Arc<Self>, tenant: TenantKey) -> Turn {
        let place = {
            let mut by_tenant = self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
            let line = Arc::clone(by_tenant.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(1))));
            Place { turns: Arc::clone(self), tenant, line }
        };
        let own = permit(&place.line).await;
        let everybody = permit(&self.everybody).await;
        Turn { _everybody: everybody, _own: own, _place: place }
    }

    /// Runs `work` in `tenant`'s turn, on a thread where it holds nobody else up. Whoever stops
    /// waiting for it does not end the turn: the work does.
    ///
    /// # Errors
    /// When the server is shutting down.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        tenant: TenantKey,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        if tokio::runtime::Handle::try_current().is_err() {
            // The simulation drives everything by hand, on its one thread.
            return Ok(work());
        }
        let turn = self.take(tenant).await;
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        working.await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Error::Store(gatepost_store::StoreError::Closed),
        })
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_owned().await.expect("these semaphores are never closed")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn p5_a_tenant_has_one_turn_at_a_time_and_leaves_the_others_theirs() {
        let turns = Arc::new(FilterTurns { everybody: Arc::new(Semaphore::new(2)), ..FilterTurns::default() });
        let first = turns.take(TenantKey(1)).await;
        let mut again = Box::pin(turns.take(TenantKey(1)));
        assert!((&mut again).now_or_never().is_none());
        // Waiting for its own turn, it takes none of everybody's.
        let other = turns.take(TenantKey(2)).now_or_never().expect("the other tenant has its turn");
        let mut third = Box::pin(turns.take(TenantKey(3)));
        assert!((&mut third).now_or_never().is_none());
        drop(other);
        drop(third.await);
        drop(first);
        drop(again.await);
        // Nobody is kept who does not wait.
        assert!(turns.by_tenant.lock().unwrap().is_empty());
        drop(turns.take(TenantKey(4)).await);
        let gave_up = Box::pin(turns.take(TenantKey(4)));
        drop(gave_up);
        assert!(turns.by_tenant.lock().unwrap().is_empty());
    }
}
