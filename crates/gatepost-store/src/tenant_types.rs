//! Event types as one tenant has them: those it declared itself, those it published, and when it last
//! did.
//!
//! When a type was last published is noted in batches, behind the events: noting says up to which event
//! it is complete, and what comes after that can be found in the events themselves. So publishing pays
//! nothing for it, and a crash loses nothing.

use async_trait::async_trait;
use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::event::EventType;
use gatepost_core::{EventSeq, TenantKey, Timestamp};

use crate::{Created, EventTypeRow, Result};

/// An event type as one tenant has it.
#[derive(Clone, PartialEq, Debug)]
pub struct TenantTypeRow {
    /// Its name.
    pub name: EventType,
    /// What the tenant declared itself.
    pub definition: Option<EventTypeDefinition>,
    /// When it was declared or first seen.
    pub created_at: Timestamp,
    /// When its declaration last changed.
    pub updated_at: Timestamp,
    /// When the tenant last published it, as far as that is noted.
    pub last_published: Option<Timestamp>,
}

/// That a type was published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishedType {
    /// By whom.
    pub tenant: TenantKey,
    /// Which.
    pub name: EventType,
    /// When, for the last time.
    pub at: Timestamp,
}

/// What was published from some event on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PublishedTypes {
    /// Each tenant's types, once.
    pub types: Vec<PublishedType>,
    /// The last event looked at; `None`: there was none.
    pub upto: Option<EventSeq>,
}

/// Event types by tenant.
#[async_trait]
pub trait TenantTypeStore: Send + Sync {
    /// Creates or replaces a declaration that is `tenant`'s own. `None` when the tenant is gone.
    async fn put_tenant_type(&self, tenant: TenantKey, row: EventTypeRow) -> Result<Option<Created>>;

    /// Removes a declaration of `tenant`'s own. Whether there was one. A type that was published
    /// goes on being listed.
    async fn delete_tenant_type(&self, tenant: TenantKey, name: &str) -> Result<bool>;

    /// A type `tenant` declared or published.
    async fn tenant_type(&self, tenant: TenantKey, name: &str) -> Result<Option<TenantTypeRow>>;

    /// What `tenant` declared or published (`declared`: declared only), by name, ascending, from after
    /// `after`.
    async fn tenant_types(
        &self,
        tenant: TenantKey,
        after: Option<&str>,
        declared: bool,
        limit: usize,
    ) -> Result<Vec<TenantTypeRow>>;

    /// Notes when types were last published; complete up to the event `upto`. An earlier time than the
    /// one noted changes nothing; deleted tenants are left out.
    async fn note_published(&self, types: Vec<PublishedType>, upto: EventSeq) -> Result<()>;

    /// The types of at most `limit` events after the one up to which they are noted.
    async fn unnoted_types(&self, limit: usize) -> Result<PublishedTypes>;
}
