//! The webhooks under one pattern: very often one.

use std::sync::Arc;

use super::Subscription;
use super::trie::{self, Trie};
use crate::WebhookKey;

/// Webhooks by ascending key.
#[derive(Clone, Debug, Default)]
pub(super) enum Bucket {
    #[default]
    Empty,
    One(Arc<Subscription>),
    /// More than one, or there were.
    Many(Trie<WebhookKey, Arc<Subscription>>),
}

impl Bucket {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Bucket::Empty => true,
            Bucket::One(_) => false,
            Bucket::Many(all) => all.is_empty(),
        }
    }

    /// Adds one that is not there.
    pub(super) fn insert(&mut self, subscription: Arc<Subscription>) {
        match self {
            Bucket::Empty => *self = Bucket::One(subscription),
            Bucket::One(one) => {
                let mut all = Trie::default();
                for each in [Arc::clone(one), subscription] {
                    all.insert(each.key, each);
                }
                *self = Bucket::Many(all);
            }
            Bucket::Many(all) => all.insert(subscription.key, subscription),
        }
    }

    pub(super) fn remove(&mut self, key: WebhookKey) {
        match self {
            Bucket::One(one) if one.key == key => *self = Bucket::Empty,
            Bucket::Many(all) => drop(all.remove(&key)),
            Bucket::Empty | Bucket::One(_) => {}
        }
    }

    /// By ascending key.
    pub(super) fn iter(&self) -> Iter<'_> {
        match self {
            Bucket::Empty => Iter::One(None),
            Bucket::One(one) => Iter::One(Some(one)),
            Bucket::Many(all) => Iter::Many(all.iter()),
        }
    }
}

/// See [`Bucket::iter`].
pub(super) enum Iter<'b> {
    One(Option<&'b Arc<Subscription>>),
    Many(trie::Iter<'b, WebhookKey, Arc<Subscription>>),
}

impl<'b> Iterator for Iter<'b> {
    type Item = &'b Arc<Subscription>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Iter::One(one) => one.take(),
            Iter::Many(all) => all.next().map(|(_, subscription)| subscription),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Iter::One(one) => (usize::from(one.is_some()), Some(usize::from(one.is_some()))),
            Iter::Many(all) => all.size_hint(),
        }
    }
}
