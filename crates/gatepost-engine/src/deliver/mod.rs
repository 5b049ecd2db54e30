//! Delivering: from a committed delivery to a durable record of what its attempts came to.
//!
//! One *lane* (a single-threaded loop) owns the [`scheduler`], starts attempts, and records
//! outcomes in batches. Operations talk to it through the [`inbox`], never the other way round,
//! except for [`Effect`]s: changes to webhooks that an answer calls for.

#[cfg(test)]
mod acknowledgement_tests;
mod batch;
mod budget;
mod inbox;
mod lane;
mod queue;
mod route;
pub(crate) mod scheduler;
mod sender;
mod shift;
pub(crate) mod trace;
mod watch;

use std::collections::HashMap;

/// A map from numbers of the store's own making: nobody can choose them to collide, so a quick hash does.
pub(crate) type NumberMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

pub(crate) use inbox::{Command, Doubt, Inbox};
pub(crate) use lane::{Effect, Lane, LaneParts};
pub(crate) use route::Route;
pub(crate) use sender::{Order, Sender, attempt, our_headers, signed_names};
pub(crate) use watch::Watch;
