//! [`FaultStore`] for blocking hooks.

use async_trait::async_trait;
use gatepost_core::hooks::outcome::Outcome;
use gatepost_core::{HookId, InvocationId, TenantId, TenantKey, Timestamp};

use crate::fault::FaultStore;
use crate::hooks::{
    HookRegistry, HookStore, HookTest, HookUpdate, HookUpdateOutcome, HookUpkeep, InvocationBatch, InvocationQuery,
    KeptSecret, NewHook, OutcomeRecorded, PointRemoval, StoredHook, StoredInvocation, StoredPoint,
};
use crate::{Created, Page, PageRequest, Result};

macro_rules! forward {
    ($(fn $method:ident(&self $(, $arg:ident: $kind:ty)*) -> $answer:ty;)*) => {
        #[async_trait]
        impl HookStore for FaultStore {
            $(async fn $method(&self $(, $arg: $kind)*) -> Result<$answer> {
                self.call(stringify!($method), self.inner.$method($($arg),*)).await
            })*
        }
    };
}

forward! {
    fn create_hook(&self, new: NewHook) -> Option<StoredHook>;
    fn update_hook(&self, update: HookUpdate) -> HookUpdateOutcome;
    fn delete_hook(&self, tenant: TenantKey, id: HookId) -> bool;
    fn record_hook_test(&self, tenant: TenantKey, id: HookId, revision: u32, test: HookTest) -> Option<StoredHook>;
    fn hook(&self, tenant: TenantKey, id: HookId) -> Option<StoredHook>;
    fn hooks(&self, tenant: TenantKey, point: Option<&str>, page: PageRequest) -> Page<StoredHook>;
    fn put_point(&self, tenant: TenantKey, point: StoredPoint) -> Option<(StoredPoint, Created)>;
    fn delete_point(&self, tenant: TenantKey, name: &str, builtin: bool) -> PointRemoval;
    fn hook_registry(&self, tenant: &TenantId) -> Option<HookRegistry>;
    fn hook_tenants(&self, after: Option<TenantKey>, limit: usize) -> Vec<(TenantKey, TenantId)>;
    fn record_invocations(&self, batch: InvocationBatch) -> ();
    fn invocation(&self, tenant: TenantKey, id: InvocationId) -> Option<StoredInvocation>;
    fn invocations(&self, query: InvocationQuery) -> Page<StoredInvocation>;
    fn record_outcome(&self, tenant: TenantKey, id: InvocationId, outcome: Outcome, now: Timestamp) -> OutcomeRecorded;
    fn owed_outcomes(&self, limit: usize) -> Vec<(TenantId, StoredInvocation)>;
    fn outcome_published(&self, tenant: TenantKey, id: InvocationId) -> ();
    fn keep_up_hooks(&self, now: Timestamp, after: Option<TenantKey>, max_rows: usize) -> HookUpkeep;
    fn erase_invocations(&self, tenant: TenantKey, subject: &str, max_rows: usize) -> usize;
    fn keep_secret(&self, kept: KeptSecret) -> ();
    fn due_secrets(&self, now: Timestamp, limit: usize) -> Vec<(TenantId, KeptSecret)>;
    fn drop_secret(&self, invocation: InvocationId, hook: HookId) -> ();
}
