//! What the simulation's store hands through as it is: jobs and blocking hooks.

use async_trait::async_trait;
use gatepost_core::hooks::outcome::Outcome;
use gatepost_core::{DeliverySeq, HookId, InvocationId, JobId, TenantId, TenantKey, Timestamp, WebhookKey};
use gatepost_store::hooks::*;
use gatepost_store::*;

use super::store::SimStore;

macro_rules! forward_jobs {
    ($(fn $method:ident(&self $(, $arg:ident: $kind:ty)*) -> $answer:ty;)*) => {
        #[async_trait]
        impl JobStore for SimStore {
            $(async fn $method(&self $(, $arg: $kind)*) -> Result<$answer> {
                self.through(self.inner.$method($($arg),*)).await
            })*
        }
    };
}

macro_rules! forward_hooks {
    ($(fn $method:ident(&self $(, $arg:ident: $kind:ty)*) -> $answer:ty;)*) => {
        #[async_trait]
        impl HookStore for SimStore {
            $(async fn $method(&self $(, $arg: $kind)*) -> Result<$answer> {
                self.through(self.inner.$method($($arg),*)).await
            })*
        }
    };
}

forward_jobs! {
    fn create_job(&self, new: NewJob) -> Option<Job>;
    fn job(&self, tenant: TenantKey, id: JobId) -> Option<Job>;
    fn jobs(&self, tenant: TenantKey, page: PageRequest) -> Page<Job>;
    fn cancel_job(&self, tenant: TenantKey, id: JobId, now: Timestamp) -> CancelJobOutcome;
    fn open_jobs(&self, after: Option<TenantKey>, limit: usize) -> Vec<Job>;
    fn end_job(&self, job: JobKey, error: Option<String>, now: Timestamp) -> Option<Job>;
    fn replay_candidates(&self, job: &Job, limit: usize, max_bytes: usize) -> Candidates;
    fn replay_select(&self, selection: Selection) -> Option<Job>;
    fn replay_deliver(&self, job: JobKey, now: Timestamp, limit: usize) -> Replayed;
    fn replay_of(&self, delivery: DeliverySeq) -> Option<ReplayOf>;
    fn backlog(&self, webhook: WebhookKey, now: Timestamp, limit: usize) -> usize;
    fn erase(&self, job: JobKey, now: Timestamp, limit: usize) -> Erased;
    fn clear_traces(&self, position: u64) -> Cleared;
    fn retain(&self, now: Timestamp, cursor: RetentionCursor, max_rows: usize) -> Retained;
    fn feed_floor(&self, tenant: TenantKey) -> i64;
    fn told(&self, query: ToldQuery) -> ToldPage;
    fn only_erased(&self, tenant: TenantKey, subject: &str, alias: &str) -> bool;
}

forward_hooks! {
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
