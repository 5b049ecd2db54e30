//! What is kept about one person: forgetting it, and proving who was told.

use gatepost_core::event::Event;
use gatepost_core::hashing::{base64url, keyed_hash};
use gatepost_core::tenant::Tenant;
use gatepost_core::{DeliverySeq, EventSeq, TenantKey};
use gatepost_store::{Erasure, Job, Task, ToldPage, ToldQuery};

use crate::engine::Engine;
use crate::error::Result;

/// What the id of an erased person begins with.
const ERASED: &str = "erased:";

/// Whether an event's payload was erased.
pub(super) fn is_erased(event: &Event) -> bool {
    let subject = event.subject.as_ref();
    subject.is_some_and(|subject| subject.id.starts_with(ERASED)) && event.data == b"null"[..]
}

/// Whose proof to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToldInput {
    /// The person's id, in the publisher's system.
    pub subject: String,
    /// Only what names them as a subject of this type.
    pub subject_type: Option<String>,
    /// Rows wanted, 1 to 250.
    pub limit: usize,
    /// The last row of the page before.
    pub after: Option<(EventSeq, DeliverySeq)>,
}

impl Engine {
    /// Begins to erase what is kept about one person. There need not be anything.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn erase_subject(&self, tenant: &Tenant, subject: String, subject_type: Option<String>) -> Result<Job> {
        let alias = self.alias(tenant.key, &subject);
        let erasure = Erasure { subject: Some(subject), subject_type, alias, within: None };
        self.begin_job(tenant, Task::Erase(erasure)).await
    }

    /// A page of who was told what about a person, newest event first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn told(&self, tenant: &Tenant, input: ToldInput) -> Result<ToldPage> {
        let alias = self.alias(tenant.key, &input.subject);
        let ToldInput { subject, subject_type, limit, after } = input;
        let query = ToldQuery { tenant: tenant.key, subject, alias, subject_type, limit, after };
        self.all_made(tenant.key).await?;
        Ok(self.inner.store.told(query).await?)
    }

    /// What stands in the place of an erased person's id: a hash under a key that is derived from the
    /// data key, so that a copy of the store alone tells nobody who it was, and of one tenant says
    /// nothing about another.
    fn alias(&self, tenant: TenantKey, subject: &str) -> String {
        let key = self.inner.vault.derive("erased subject v1");
        let hash = keyed_hash(&key, &[Some(&tenant.0.to_be_bytes()), Some(subject.as_bytes())]);
        format!("{ERASED}{}", base64url(&hash))
    }

    /// A person's id as a list must look for it: an erased one is found by what stands for it.
    pub(super) async fn subject_as_kept(&self, tenant: TenantKey, subject: Option<String>) -> Result<Option<String>> {
        let Some(subject) = subject else { return Ok(None) };
        let alias = self.alias(tenant, &subject);
        let erased = self.inner.store.only_erased(tenant, &subject, &alias).await?;
        Ok(Some(if erased { alias } else { subject }))
    }
}
