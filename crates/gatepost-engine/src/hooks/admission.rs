//! How much invocations may hold in all, and whose turn it is to be told that there is no more (P5, P10).
//!
//! Questions under way and questions that only wait for a place at a receiver are counted apart: a
//! tenant whose receiver is full waits at its own cost. Of either, a tenant gets at most a quarter, and
//! never more than what is left for everybody else, so that there is always something left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::snapshot::TenantHooks;
use super::{ADMITTED, ADMITTED_OF_TENANT};
use crate::engine::Engine;

/// Places held by invocations: of one tenant, or of all.
#[derive(Default)]
pub(crate) struct Held {
    pub(super) under_way: AtomicUsize,
    pub(super) waiting: AtomicUsize,
}

impl Held {
    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.load(Ordering::Acquire) + self.waiting.load(Ordering::Acquire) == 0
    }
}

/// Takes `places` of `own` and `all`, if there are so many for this tenant.
fn take(all: &AtomicUsize, own: &AtomicUsize, places: usize) -> bool {
    let others_and_own = all.fetch_add(places, Ordering::AcqRel);
    let before = own.fetch_add(places, Ordering::AcqRel);
    let free = ADMITTED.saturating_sub(others_and_own);
    let fits = places <= free && before + places <= ADMITTED_OF_TENANT && before <= free;
    if !fits {
        give_back(all, own, places);
    }
    fits
}

fn give_back(all: &AtomicUsize, own: &AtomicUsize, places: usize) {
    all.fetch_sub(places, Ordering::AcqRel);
    own.fetch_sub(places, Ordering::AcqRel);
}

/// Some of the places; given back when dropped.
pub(super) struct Admission {
    engine: Engine,
    own: Arc<Held>,
    places: usize,
    waiting: bool,
}

impl Admission {
    /// Its receivers are full: from now on it counts as waiting, unless too many wait.
    pub(super) fn step_aside(&mut self) -> bool {
        let all = &self.engine.inner.hooks.held;
        if !self.waiting && take(&all.waiting, &self.own.waiting, self.places) {
            give_back(&all.under_way, &self.own.under_way, self.places);
            self.engine.inner.metrics.hooks.waiting(1);
            self.waiting = true;
        }
        self.waiting
    }

    /// It has a place: it is under way again, whoever else is. Receivers have few places, so these are few.
    pub(super) fn come_back(&mut self) {
        if std::mem::take(&mut self.waiting) {
            let all = &self.engine.inner.hooks.held;
            all.under_way.fetch_add(self.places, Ordering::AcqRel);
            self.own.under_way.fetch_add(self.places, Ordering::AcqRel);
            give_back(&all.waiting, &self.own.waiting, self.places);
            self.engine.inner.metrics.hooks.waiting(-1);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let all = &self.engine.inner.hooks.held;
        if self.waiting {
            give_back(&all.waiting, &self.own.waiting, self.places);
            self.engine.inner.metrics.hooks.waiting(-1);
        } else {
            give_back(&all.under_way, &self.own.under_way, self.places);
        }
        self.engine.inner.metrics.hooks.under_way(-1);
    }
}

impl Engine {
    /// Places for an invocation that holds about `held` bytes. One that is larger than all a tenant may
    /// have goes alone.
    pub(super) fn admit(&self, snapshot: &TenantHooks, held: usize) -> Option<Admission> {
        let hooks = &self.inner.hooks;
        let places = held.div_ceil(hooks.place_bytes).clamp(1, ADMITTED_OF_TENANT);
        let own = Arc::clone(&snapshot.held);
        take(&hooks.held.under_way, &own.under_way, places).then(|| {
            self.inner.metrics.hooks.under_way(1);
            Admission { engine: self.clone(), own, places, waiting: false }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_however_many_tenants_take_what_they_can_there_is_something_left_for_the_next() {
        let all = AtomicUsize::new(0);
        let mut had = Vec::new();
        for _ in 0..12 {
            let own = AtomicUsize::new(0);
            while take(&all, &own, 1) {}
            had.push(own.into_inner());
        }
        assert_eq!(had[0], ADMITTED_OF_TENANT);
        assert!(had.iter().all(|own| *own > 0), "{had:?}");
        assert!(all.into_inner() < ADMITTED);
    }

    #[test]
    fn p10_what_does_not_fit_takes_nothing() {
        let (all, own) = (AtomicUsize::new(ADMITTED), AtomicUsize::new(0));
        assert!(!take(&all, &own, 1));
        assert_eq!((all.into_inner(), own.into_inner()), (ADMITTED, 0));
        let (all, own) = (AtomicUsize::new(0), AtomicUsize::new(0));
        assert!(take(&all, &own, ADMITTED_OF_TENANT), "alone");
        assert!(!take(&all, &own, 1));
    }
}
