//! How endpoints fare, and whether they are verified.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gatepost_core::health::{Health, Tally};
use gatepost_core::{TenantKey, Timestamp, WebhookKey};

use crate::Result;

/// Attempts to one webhook since the last time they were told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthNote {
    /// Which.
    pub webhook: WebhookKey,
    /// The webhook's revision at the latest of them: which url they speak of.
    pub revision: u32,
    /// Whether sustained failure disables it.
    pub auto_disable: bool,
    /// The attempts.
    pub tally: Tally,
}

/// Notes taken together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthNotes {
    /// Tells this call from every other: sent again (its answer was lost), it counts nothing twice.
    pub token: u64,
    /// When.
    pub now: Timestamp,
    /// At most one per webhook.
    pub notes: Vec<HealthNote>,
}

/// What taking notes changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HealthTaken {
    /// Webhooks disabled by sustained failure, whose each.
    pub disabled: Vec<(TenantKey, WebhookKey)>,
    /// Own events were noted.
    pub noted: bool,
}

/// How many webhooks are not well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HealthCounts {
    /// Failing.
    pub failing: u64,
    /// Disabled by Gatepost.
    pub disabled: u64,
}

/// What the store does about health and verification.
#[async_trait]
pub trait HealthStore: Send + Sync {
    /// Folds attempts into the health of their webhooks. A webhook of which nothing but failures came for
    /// long enough is disabled (and `gatepost.webhook.disabled` noted) if its url is still the one that
    /// failed; of one that recovered, `gatepost.webhook.recovered` is noted. All in one transaction.
    async fn note_health(&self, notes: HealthNotes) -> Result<HealthTaken>;

    /// The health of these webhooks, as far as anything was ever noted.
    async fn health_of(&self, webhooks: &[WebhookKey]) -> Result<BTreeMap<WebhookKey, Health>>;

    /// How many webhooks are not well.
    async fn health_counts(&self) -> Result<HealthCounts>;

    /// Keeps why the last verification failed (`None`: it did not). Not a registry change.
    async fn record_verification(&self, webhook: WebhookKey, error: Option<String>) -> Result<()>;
}
