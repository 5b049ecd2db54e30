//! What a stream of changes shows of deliveries.

use async_trait::async_trait;
use gatepost_core::{DeliverySeq, EventSeq, TenantKey};

use super::{SqliteStore, deliveries};
use crate::{DeliveryRows, Result, StreamStore};

#[async_trait]
impl StreamStore for SqliteStore {
    async fn delivery_rows(
        &self,
        tenant: TenantKey,
        events: &[EventSeq],
        deliveries: &[DeliverySeq],
        limit: usize,
    ) -> Result<DeliveryRows> {
        let (events, deliveries) = (events.to_vec(), deliveries.to_vec());
        let mut rows = self
            .read(move |conn| {
                let mut rows = DeliveryRows::default();
                for event in events {
                    rows.of_events.push(deliveries::of_event(conn, tenant, event, limit)?);
                }
                for seq in deliveries {
                    rows.deliveries.extend(deliveries::row_by_seq(conn, tenant, seq)?);
                }
                Ok(rows)
            })
            .await?;
        let shown = |rows: Vec<_>| rows.into_iter().map(|row| self.waits.shown(row)).collect();
        rows.of_events = rows.of_events.into_iter().map(shown).collect();
        rows.deliveries = shown(rows.deliveries);
        Ok(rows)
    }
}
