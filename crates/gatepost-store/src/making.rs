//! Deliveries that are made after the commit of their event: where an event goes to very many webhooks,
//! the commit holds whom it goes to and sets the numbers of its deliveries aside, so that nobody else's
//! publish waits for thousands of rows. They are owed from then on (P1, P2); a delivery that is not made
//! yet is in no list, has been told to nobody, and cannot be due.

use async_trait::async_trait;
use gatepost_core::{DeliverySeq, EventSeq, TenantKey};

use crate::{Due, Result, Wake};

/// Whose deliveries are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// This tenant's.
    Of(TenantKey),
    /// Those of the next tenant that has any after this one, around and around.
    After(Option<TenantKey>),
}

/// What one step made.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Whose; `None`: nothing was left.
    pub tenant: Option<TenantKey>,
    /// Deliveries that wait for nothing, now claimed by the caller's node.
    pub dues: Vec<Due>,
    /// Where else something became due: queues and batches.
    pub wakes: Vec<Wake>,
    /// All of them, the batches they joined included.
    pub seqs: Vec<DeliverySeq>,
    /// How many were made, or joined a batch.
    pub rows: usize,
    /// The tenant's first event of which some are left.
    pub left_from: Option<EventSeq>,
    /// Whether any are left, whoever's.
    pub more: bool,
}

/// Making what was left for later.
#[async_trait]
pub trait MakingStore: Send + Sync {
    /// Makes some deliveries that were left for later, about `rows`, as if with their event: their
    /// numbers, times and places in queues and batches are those they would have had. Of deliveries that
    /// wait for nobody the most urgent come first; those of queues and batches in order of acceptance.
    async fn make(&self, turn: Turn, rows: usize) -> Result<Made>;

    /// The last event of the tenant of which some deliveries are not made.
    async fn last_unmade(&self, tenant: TenantKey) -> Result<Option<EventSeq>>;
}
