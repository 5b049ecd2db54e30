//! A bounded queue between async callers and a thread: never blocks the caller, tells it when full.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::StoreError;

/// Who is asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// New work: refused while a quarter of the queue is still free, and behind the rest of what
    /// waits, so that recording what was done is not pushed out by accepting more (DESIGN 8:
    /// publishers wait before deliveries starve).
    Accept,
    /// Everything else. Goes first, but leaves new work every fourth place.
    Other,
}

/// Of so many items in a row that are not new work, while new work waits, the last gives way.
const ROW: u32 = 4;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

struct Entry<T> {
    item: T,
    weight: usize,
}

struct State<T> {
    accept: VecDeque<Entry<T>>,
    other: VecDeque<Entry<T>>,
    /// Items taken in a row that were not new work, while new work waited.
    in_a_row: u32,
    bytes: usize,
    closed: bool,
    /// Threads that wait and were not told of anything since: telling is a call to the system, which
    /// nobody pays while the thread is busy anyway.
    idle: usize,
}

/// The queue.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    limits: Limits,
}

impl<T> Queue<T> {
    pub(super) fn new(limits: Limits) -> Self {
        let (accept, other) = (VecDeque::new(), VecDeque::new());
        let state = State { accept, other, in_a_row: 0, bytes: 0, closed: false, idle: 0 };
        Queue { state: Mutex::new(state), arrived: Condvar::new(), limits }
    }

    // A panic cannot leave the state half changed: nothing here runs foreign code.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `item`, which holds about `weight` bytes. An item larger than the whole queue is taken
    /// when nothing else waits.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] when full, [`StoreError::Closed`] after `close`.
    pub(super) fn push(&self, item: T, weight: usize, lane: Lane) -> Result<(), StoreError> {
        let share = |limit: usize| if lane == Lane::Accept { limit - limit / 4 } else { limit };
        let mut state = self.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        let full =
            state.len() >= share(self.limits.count) || state.bytes.saturating_add(weight) > share(self.limits.bytes);
        if full && state.len() > 0 {
            return Err(StoreError::Overloaded);
        }
        state.bytes += weight;
        let entries = if lane == Lane::Accept { &mut state.accept } else { &mut state.other };
        entries.push_back(Entry { item, weight });
        let tell = state.idle > 0;
        state.idle -= usize::from(tell);
        drop(state);
        if tell {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// The next item and its weight; waits for one. `None` once closed and empty.
    pub(super) fn pop(&self) -> Option<(T, usize)> {
        let mut state = self.lock();
        loop {
            if let Some(next) = take(&mut state) {
                return Some(next);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next item and its weight, if there is one.
    pub(super) fn try_pop(&self) -> Option<(T, usize)> {
        take(&mut self.lock())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Takes no more items; what waits is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Takes no more items and forgets what waits.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.bytes = 0;
        let forgotten = (std::mem::take(&mut state.accept), std::mem::take(&mut state.other));
        drop(state);
        self.arrived.notify_all();
        drop(forgotten);
    }
}

impl<T> State<T> {
    fn len(&self) -> usize {
        self.accept.len() + self.other.len()
    }
}

fn take<T>(state: &mut State<T>) -> Option<(T, usize)> {
    let gives_way = state.in_a_row + 1 >= ROW && !state.accept.is_empty();
    let entry = match state.other.pop_front_if(|_| !gives_way) {
        Some(entry) => {
            state.in_a_row = if state.accept.is_empty() { 0 } else { state.in_a_row + 1 };
            entry
        }
        None => {
            state.in_a_row = 0;
            state.accept.pop_front()?
        }
    };
    state.bytes -= entry.weight;
    Some((entry.item, entry.weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(count: usize, bytes: usize) -> Queue<u32> {
        Queue::new(Limits { count, bytes })
    }

    #[test]
    fn p10_count_and_bytes_are_bounded_and_recording_outlives_accepting() {
        let full = queue(4, 1_000);
        for i in 0..3 {
            full.push(i, 1, Lane::Accept).unwrap();
        }
        assert!(matches!(full.push(3, 1, Lane::Accept), Err(StoreError::Overloaded)));
        full.push(3, 1, Lane::Other).unwrap();
        assert!(matches!(full.push(4, 1, Lane::Other), Err(StoreError::Overloaded)));
        let heavy = queue(100, 1_000);
        heavy.push(0, 600, Lane::Other).unwrap();
        assert!(matches!(heavy.push(1, 401, Lane::Other), Err(StoreError::Overloaded)));
        heavy.push(1, 400, Lane::Other).unwrap();
        assert_eq!((heavy.try_pop(), heavy.len()), (Some((0, 600)), 1));
        heavy.push(2, 600, Lane::Other).unwrap();
    }

    #[test]
    fn recording_goes_before_accepting_and_does_not_stop_it() {
        let queue = queue(100, 100);
        for i in 0..6 {
            queue.push(i, 1, Lane::Accept).unwrap();
        }
        for i in 10..18 {
            queue.push(i, 1, Lane::Other).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.try_pop()).map(|(item, _)| item).collect();
        assert_eq!(order, [10, 11, 12, 0, 13, 14, 15, 1, 16, 17, 2, 3, 4, 5]);
        // Nobody waits behind them: nobody is given way to later.
        for i in 10..18 {
            queue.push(i, 1, Lane::Other).unwrap();
            assert_eq!(queue.try_pop(), Some((i, 1)));
        }
        queue.push(0, 1, Lane::Accept).unwrap();
        queue.push(10, 1, Lane::Other).unwrap();
        assert_eq!(queue.try_pop(), Some((10, 1)));
    }

    #[test]
    fn an_item_larger_than_the_queue_is_taken_alone() {
        let small = queue(4, 10);
        small.push(0, 500, Lane::Accept).unwrap();
        assert!(small.push(1, 1, Lane::Other).is_err());
        assert_eq!(small.pop(), Some((0, 500)));
    }

    #[test]
    fn whoever_waits_is_told() {
        let queue = queue(100_000, 100_000);
        std::thread::scope(|scope| {
            let takers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| std::iter::from_fn(|| queue.pop()).map(|(item, _)| u64::from(item)).sum::<u64>())
                })
                .collect();
            for item in 1..=10_000 {
                queue.push(item, 1, Lane::Other).unwrap();
                // Now and then all of them have gone to wait.
                if item % 100 == 0 {
                    while queue.len() > 0 {
                        std::thread::yield_now();
                    }
                }
            }
            while queue.len() > 0 {
                std::thread::yield_now();
            }
            queue.close();
            assert_eq!(takers.into_iter().map(|taker| taker.join().unwrap()).sum::<u64>(), 50_005_000);
        });
    }

    #[test]
    fn closing_hands_out_what_waits_and_abandoning_does_not() {
        let one = queue(4, 10);
        one.push(7, 1, Lane::Other).unwrap();
        one.close();
        assert!(matches!(one.push(8, 1, Lane::Other), Err(StoreError::Closed)));
        assert_eq!((one.pop(), one.pop()), (Some((7, 1)), None));
        let two = queue(4, 10);
        two.push(7, 1, Lane::Other).unwrap();
        two.abandon();
        assert_eq!(two.pop(), None);
    }
}
