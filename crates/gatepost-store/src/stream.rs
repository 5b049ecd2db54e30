//! What a stream of changes shows of deliveries.

use async_trait::async_trait;
use gatepost_core::{DeliverySeq, EventSeq, TenantKey};

use crate::{DeliveryRow, Result};

/// Deliveries as they stand now.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DeliveryRows {
    /// Of each event asked for, oldest first.
    pub of_events: Vec<Vec<DeliveryRow>>,
    /// Those asked for by number that there are, in the order asked for.
    pub deliveries: Vec<DeliveryRow>,
}

/// Deliveries by number, many at once.
#[async_trait]
pub trait StreamStore: Send + Sync {
    /// The deliveries of these events, at most `limit` of each, and these deliveries. What is not
    /// `tenant`'s is left out.
    async fn delivery_rows(
        &self,
        tenant: TenantKey,
        events: &[EventSeq],
        deliveries: &[DeliverySeq],
        limit: usize,
    ) -> Result<DeliveryRows>;
}
