//! A map that shares with its clones whatever they did not change.
//!
//! A trie over places whose leaves are short sorted arrays. A change copies one leaf and the branches
//! above it, so that it costs microseconds in a map of 100,000 while readers keep theirs; where nothing is
//! shared it is made in place. A small map is one array, searched by comparing, without a place being
//! computed: most tenants have no more.
//!
//! Why not one from a library: their nodes are made for large maps (a map of one entry takes a kilobyte, and
//! is hashed to be looked up), and most of ours are small.

use std::borrow::Borrow;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::WebhookKey;

/// Bits of the place that choose a branch's child.
const BITS: u32 = 3;
const WIDTH: usize = 1 << BITS;
/// Branches above a leaf, at most.
const DEPTH: u32 = u64::BITS / BITS;

/// Keys of a [`Trie`].
pub(super) trait Key: Clone + Ord + Borrow<Self::Name> {
    /// What a key is looked up by.
    type Name: Eq + ?Sized;

    /// Entries of a leaf, until the bits of the place are used up.
    const LEAF: usize;

    /// Where it belongs, upper bits first.
    fn place(name: &Self::Name) -> u64;
}

impl Key for Arc<str> {
    type Name = str;

    /// Each that is compared is somewhere else in memory.
    const LEAF: usize = 8;

    fn place(name: &str) -> u64 {
        // Tenants choose the texts: nobody may know which of them meet.
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        SEED.hash_one(name)
    }
}

impl Key for WebhookKey {
    type Name = WebhookKey;

    const LEAF: usize = 16;

    /// In their own order, so that they come by ascending key.
    fn place(name: &WebhookKey) -> u64 {
        // The store counts them up from 1. Those of a store with more than 2^32 would meet in the last leaf.
        u64::from(u32::try_from(name.0.max(0)).unwrap_or(u32::MAX)) << u32::BITS
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum Trie<K, V> {
    Leaf(Arc<[(K, V)]>),
    Branch(Arc<[Trie<K, V>; WIDTH]>),
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Self {
        Trie::Leaf(Arc::default())
    }
}

fn child(place: u64) -> usize {
    // Three bits.
    (place >> (u64::BITS - BITS)) as usize
}

impl<K, V> Trie<K, V> {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        // A branch has more entries than a leaf takes, or had: see `remove`.
        matches!(self, Trie::Leaf(entries) if entries.is_empty())
    }

    /// Its entries, in the order of their places, and of the keys within one.
    pub(super) fn iter(&self) -> Iter<'_, K, V> {
        match self {
            Trie::Leaf(entries) => Iter { leaf: entries.iter(), above: Vec::new() },
            Trie::Branch(children) => Iter { leaf: [].iter(), above: vec![children.iter()] },
        }
    }
}

impl<K: Key, V> Trie<K, V> {
    /// The entry of a key.
    pub(super) fn get(&self, name: &K::Name) -> Option<(&K, &V)> {
        let mut node = self;
        if let Trie::Branch(_) = node {
            let mut place = K::place(name);
            while let Trie::Branch(children) = node {
                node = &children[child(place)];
                place <<= BITS;
            }
        }
        let Trie::Leaf(entries) = node else { return None };
        entries.iter().find(|(key, _)| key.borrow() == name).map(|(key, value)| (key, value))
    }
}

impl<K: Key, V: Clone> Trie<K, V> {
    /// The value of a key, to be changed.
    pub(super) fn get_mut(&mut self, name: &K::Name) -> Option<&mut V> {
        // What is not there leaves everything shared.
        self.get(name)?;
        let mut place = K::place(name);
        let mut node = self;
        loop {
            match node {
                Trie::Branch(children) => {
                    node = &mut Arc::make_mut(children)[child(place)];
                    place <<= BITS;
                }
                Trie::Leaf(entries) => {
                    let entries = Arc::make_mut(entries);
                    return entries.iter_mut().find(|(key, _)| key.borrow() == name).map(|(_, value)| value);
                }
            }
        }
    }

    /// Sets the value of a key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let mut place = K::place(key.borrow());
        let mut node = self;
        let mut depth = 0;
        loop {
            if let Trie::Leaf(entries) = node {
                if let Some(at) = entries.iter().position(|(present, _)| present.borrow() == key.borrow()) {
                    Arc::make_mut(entries)[at] = (key, value);
                    return;
                }
                if entries.len() < K::LEAF || depth == DEPTH {
                    let (before, after) = entries.split_at(entries.partition_point(|(present, _)| *present < key));
                    *entries = before.iter().cloned().chain([(key, value)]).chain(after.iter().cloned()).collect();
                    return;
                }
                *node = split(entries, depth);
            }
            if let Trie::Branch(children) = node {
                node = &mut Arc::make_mut(children)[child(place)];
                place <<= BITS;
                depth += 1;
            }
        }
    }

    /// Takes a key out; its value, if it was there.
    pub(super) fn remove(&mut self, name: &K::Name) -> Option<V> {
        let (_, value) = self.get(name)?;
        let value = value.clone();
        self.take_out(name, K::place(name));
        Some(value)
    }

    fn take_out(&mut self, name: &K::Name, place: u64) {
        match self {
            Trie::Leaf(entries) => {
                *entries = entries.iter().filter(|(key, _)| key.borrow() != name).cloned().collect();
            }
            Trie::Branch(children) => {
                let children = Arc::make_mut(children);
                children[child(place)].take_out(name, place << BITS);
                // Half of what is split, so that one entry to and fro does not do both each time.
                if let Some(left) = few(children) {
                    *self = Trie::Leaf(left);
                }
            }
        }
    }
}

/// What is below a branch, when that fits a leaf well.
fn few<K: Key, V: Clone>(children: &[Trie<K, V>; WIDTH]) -> Option<Arc<[(K, V)]>> {
    let mut count = 0;
    for node in children {
        let Trie::Leaf(entries) = node else { return None };
        count += entries.len();
    }
    let entries = || children.iter().flat_map(Trie::iter).map(|(key, value)| (key.clone(), value.clone()));
    (count <= K::LEAF / 2).then(|| entries().collect())
}

/// A branch with the entries of a leaf that has `depth` branches above it.
fn split<K: Key, V: Clone>(entries: &[(K, V)], depth: u32) -> Trie<K, V> {
    let of = |(key, _): &(K, V)| child(K::place(key.borrow()) << (BITS * depth));
    Trie::Branch(Arc::new(std::array::from_fn(|number| {
        let own = || entries.iter().filter(|entry| of(entry) == number);
        // An empty leaf shares the one there is.
        if own().next().is_some() { Trie::Leaf(own().cloned().collect()) } else { Trie::default() }
    })))
}

/// See [`Trie::iter`].
pub(super) struct Iter<'t, K, V> {
    leaf: std::slice::Iter<'t, (K, V)>,
    above: Vec<std::slice::Iter<'t, Trie<K, V>>>,
}

impl<'t, K, V> Iterator for Iter<'t, K, V> {
    type Item = (&'t K, &'t V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            match self.above.last_mut()?.next() {
                Some(Trie::Leaf(entries)) => self.leaf = entries.iter(),
                Some(Trie::Branch(children)) => self.above.push(children.iter()),
                None => drop(self.above.pop()),
            }
        }
    }

    /// At least what is left of the present leaf: all there is in a small map.
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.leaf.len(), self.above.is_empty().then(|| self.leaf.len()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A key whose place is what the test wants it to be.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    struct Chosen(u8);

    impl Key for Chosen {
        type Name = Chosen;

        const LEAF: usize = 8;

        fn place(name: &Chosen) -> u64 {
            // In fours they meet entirely, and all of them in all but their last bits.
            u64::from(name.0 / 4)
        }
    }

    fn entries<K: Key + Copy + Ord, V: Clone>(trie: &Trie<K, V>) -> Vec<(K, V)> {
        trie.iter().map(|(key, value)| (*key, value.clone())).collect()
    }

    fn agree<K: Key<Name = K> + Copy + Ord + std::fmt::Debug>(
        keys: impl Fn(u8) -> K,
        changes: &[(u8, Option<u32>)],
    ) -> Result<(), TestCaseError> {
        let (mut trie, mut model) = (Trie::default(), BTreeMap::new());
        let mut older = Vec::new();
        for (number, value) in changes {
            let key = keys(*number);
            older.push((trie.clone(), model.clone()));
            match value {
                Some(value) if value % 3 == 0 => {
                    let present = trie.get_mut(&key).map(|present| *present += value);
                    prop_assert_eq!(present, model.get_mut(&key).map(|present| *present += value));
                }
                Some(value) => {
                    trie.insert(key, *value);
                    model.insert(key, *value);
                }
                None => prop_assert_eq!(trie.remove(&key), model.remove(&key)),
            }
            prop_assert_eq!(trie.get(&key).map(|(_, value)| *value), model.get(&key).copied());
            prop_assert_eq!(trie.is_empty(), model.is_empty());
        }
        for (trie, model) in older.iter().chain([&(trie, model)]) {
            prop_assert_eq!(entries(trie), model.clone().into_iter().collect::<Vec<_>>());
            for number in 0..=u8::MAX {
                prop_assert_eq!(trie.get(&keys(number)).map(|(_, v)| v), model.get(&keys(number)));
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_its_clones_keep_what_they_were(
            changes in proptest::collection::vec((any::<u8>(), proptest::option::weighted(0.7, 0u32..100)), 0..300)
        ) {
            agree(|number| WebhookKey(i64::from(number)), &changes)?;
        }

        #[test]
        fn keys_whose_places_meet_are_told_apart(
            changes in proptest::collection::vec((0u8..40, proptest::option::weighted(0.7, 0u32..100)), 0..80)
        ) {
            agree(Chosen, &changes)?;
        }
    }

    fn depth<K, V>(trie: &Trie<K, V>) -> usize {
        match trie {
            Trie::Leaf(_) => 0,
            Trie::Branch(children) => 1 + children.iter().map(depth).max().unwrap_or(0),
        }
    }

    #[test]
    fn it_grows_in_breadth_for_keys_in_any_step_and_shrinks_again() {
        for step in [1, 8, 10, 4_096] {
            let mut trie = Trie::default();
            for number in 0..20_000 {
                trie.insert(WebhookKey(number * step), ());
            }
            assert!(depth(&trie) <= 11, "step {step}: {}", depth(&trie));
            for number in 4..20_000 {
                trie.remove(&WebhookKey(number * step));
            }
            assert_eq!((depth(&trie), trie.iter().count()), (0, 4), "step {step}");
        }
        let mut names = Trie::<Arc<str>, ()>::default();
        for number in 0..20_000 {
            names.insert(format!("family.{number}").into(), ());
        }
        assert!(depth(&names) <= 10, "{}", depth(&names));
        assert!(names.get("family.777").is_some() && names.get("family.20000").is_none());
    }

    #[test]
    fn a_change_shares_what_it_does_not_touch() {
        let mut trie = Trie::default();
        for number in 0..1_000 {
            trie.insert(WebhookKey(number), number);
        }
        let before = trie.clone();
        trie.insert(WebhookKey(5), 0);
        let (Trie::Branch(old), Trie::Branch(new)) = (&before, &trie) else { panic!("a thousand fit no leaf") };
        let shared = old.iter().zip(new.iter()).filter(|pair| match pair {
            (Trie::Branch(old), Trie::Branch(new)) => Arc::ptr_eq(old, new),
            (Trie::Leaf(old), Trie::Leaf(new)) => Arc::ptr_eq(old, new),
            _ => false,
        });
        assert_eq!(shared.count(), WIDTH - 1);
        trie.remove(&WebhookKey(99_999));
        assert_eq!(before.get(&WebhookKey(5)), Some((&WebhookKey(5), &5)));
        assert_eq!(std::mem::size_of::<Trie<Arc<str>, u64>>(), 2 * std::mem::size_of::<usize>());
    }
}
