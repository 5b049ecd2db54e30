//! Places at one receiver: how many calls of a hook are under way at once. Who finds none free waits in
//! line, first come, first served.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module. How many there are may change while calls are under way.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    size: Arc<Mutex<Size>>,
}

struct Size {
    max: u32,
    /// Places taken away that are still in use: so many are not given back.
    owed: u32,
}

/// A place; given back when dropped.
pub(crate) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    size: Arc<Mutex<Size>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if size.owed > 0 {
            size.owed -= 1;
            permit.forget();
        }
    }
}

impl Places {
    /// So many, all free.
    pub(super) fn new(max: u32) -> Self {
        Places { free: Arc::new(Semaphore::new(max as usize)), size: Arc::new(Mutex::new(Size { max, owed: 0 })) }
    }

    /// From now on there are so many. Calls under way go on.
    pub(super) fn resize(&self, max: u32) {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let more = max.saturating_sub(size.max);
        let settled = more.min(size.owed);
        size.owed -= settled;
        self.free.add_permits((more - settled) as usize);
        let fewer = size.max.saturating_sub(max);
        let gone = self.free.forget_permits(fewer as usize);
        size.owed += fewer - u32::try_from(gone).unwrap_or(fewer);
        size.max = max;
    }

    /// A place, if one is free now.
    pub(super) fn try_take(&self) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Place { permit: Some(permit), size: Arc::clone(&self.size) })
    }

    /// Waits for a place.
    pub(super) fn take(&self) -> impl Future<Output = Option<Place>> + Send + 'static {
        let (free, size) = (Arc::clone(&self.free), Arc::clone(&self.size));
        // The semaphore is never closed.
        async move { Some(Place { permit: Some(free.acquire_owned().await.ok()?), size }) }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn places_are_given_on_in_turn_and_their_number_changes_under_way() {
        let places = Places::new(2);
        let (first, second) = (places.try_take().unwrap(), places.try_take().unwrap());
        assert!(places.try_take().is_none());
        let (mut third, mut fourth) = (Box::pin(places.take()), Box::pin(places.take()));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        drop(first);
        assert!((&mut fourth).now_or_never().is_none(), "it is not its turn");
        let third = (&mut third).now_or_never().flatten().unwrap();
        // One fewer, while both are in use: the next to be given back is gone.
        places.resize(1);
        drop(second);
        assert!((&mut fourth).now_or_never().is_none());
        // Taken back before it was gone, nothing is gone.
        places.resize(3);
        let fourth = (&mut fourth).now_or_never().flatten().unwrap();
        assert!(places.try_take().is_some());
        places.resize(1);
        drop((third, fourth));
        let only = places.try_take().unwrap();
        assert!(places.try_take().is_none(), "one is left");
        drop(only);
        assert!(places.try_take().is_some());
    }
}
