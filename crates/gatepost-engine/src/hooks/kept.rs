//! Secret notifications that failed and may be tried again (`secret_retry: encrypted`): kept encrypted
//! under the data key for a quarter of an hour at most.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_core::hooks::chain::Outcome;
use gatepost_core::hooks::codec::judge_status;
use gatepost_core::hooks::decision::{Decision, HookRow};
use gatepost_core::hooks::failure::FailureClass;
use gatepost_core::hooks::hook::{Mode, SecretRetry};
use gatepost_core::hooks::plan::{Attempt, PlannedHook};
use gatepost_core::{HookId, InvocationId, TenantId};
use gatepost_store::hooks::KeptSecret;

use super::call::{Put, trace_below};
use super::drive::Drive;
use crate::engine::Engine;

/// How long a secret notification is kept at most (SETTLED).
const KEPT_FOR: Duration = Duration::from_secs(15 * 60);
/// The waits between tries; the last one repeats.
const WAITS: [u64; 5] = [2, 10, 30, 60, 120];
/// Tried in one round.
const ROUND: usize = 32;

fn wait(attempts: u32) -> Duration {
    let index = usize::try_from(attempts).unwrap_or(usize::MAX).saturating_sub(1);
    Duration::from_secs(WAITS[index.min(WAITS.len() - 1)])
}

/// Names the row a sealed notification belongs to.
fn context(invocation: InvocationId, hook: HookId) -> [u8; 32] {
    let mut context = [0; 32];
    context[..16].copy_from_slice(&invocation.to_bytes());
    context[16..].copy_from_slice(&hook.to_bytes());
    context
}

/// Whether the same request later may do better.
fn may_pass_later(class: FailureClass) -> bool {
    use FailureClass::{BadAnswer, Budget, CircuitOpen, Connect, Dns, Reset, Status5xx, Status429, Timeout, Tls};
    matches!(class, BadAnswer | Budget | CircuitOpen | Connect | Dns | Reset | Status429 | Status5xx | Timeout | Tls)
}

fn is_kept(hook: &PlannedHook) -> bool {
    hook.config.secret_retry == SecretRetry::Encrypted
        && hook.shows_secrets()
        && hook.config.enabled
        && hook.config.mode == Mode::Enforce
}

impl Engine {
    /// Keeps the notifications of an invocation that failed, of hooks that ask for it.
    pub(super) fn keep_failed_secrets(&self, drive: &Drive, decision: &Decision, id: InvocationId) {
        if decision.dry_run || drive.chain().invocation().secrets.is_empty() {
            return;
        }
        let failed = |row: &&HookRow| row.mode == Mode::Enforce && row.failure.is_some_and(may_pass_later);
        for row in decision.hooks.iter().filter(failed) {
            let Some(asked) = drive.snapshot.asked.get(&row.id).filter(|asked| is_kept(&asked.planned)) else {
                continue;
            };
            let body = drive.chain().question_for(&asked.planned);
            let Ok(sealed) = self.inner.vault.seal_bytes(&context(id, row.id), &body) else { continue };
            let now = self.waiting();
            self.inner.hooks.recorder.secret(KeptSecret {
                tenant: drive.snapshot.tenant.key,
                hook: row.id,
                invocation: id,
                attempts: row.attempts.max(1),
                due: now.saturating_add(wait(1)),
                expires_at: now.saturating_add(KEPT_FOR),
                sealed,
            });
        }
    }

    /// Tries what is due. Whether there was anything.
    pub(super) async fn retry_secrets(&self) -> bool {
        let due = match self.inner.store.due_secrets(self.waiting(), ROUND).await {
            Ok(due) => due,
            Err(error) => {
                tracing::debug!(%error, "kept notifications wait for the store");
                return false;
            }
        };
        let some = !due.is_empty();
        for (tenant, kept) in due {
            let (invocation, hook) = (kept.invocation, kept.hook);
            let done = match self.retry_secret(&tenant, &kept).await {
                Some(again) => self.inner.store.keep_secret(again).await,
                None => self.inner.store.drop_secret(invocation, hook).await,
            };
            if let Err(error) = done {
                tracing::warn!(%error, %hook, "a kept notification was not settled");
            }
        }
        some
    }

    /// One more try; what is to be kept for another one.
    async fn retry_secret(&self, tenant: &TenantId, kept: &KeptSecret) -> Option<KeptSecret> {
        let now = self.waiting();
        if kept.expires_at <= now {
            self.inner.metrics.hooks.secret("expired");
            return None;
        }
        let later = |attempts| KeptSecret {
            attempts,
            due: now.saturating_add(wait(attempts)).min(kept.expires_at),
            ..kept.clone()
        };
        let snapshot = match self.tenant_hooks(tenant).await {
            Ok(found) => found?,
            Err(_) => return Some(later(kept.attempts)),
        };
        // A hook that no longer may, or no longer wants to, hears nothing more.
        let asked = Arc::clone(snapshot.asked.get(&kept.hook).filter(|asked| is_kept(&asked.planned))?);
        let plain = self.inner.vault.open_bytes(&context(kept.invocation, kept.hook), &kept.sealed).ok()?;
        let body = Bytes::from_owner(plain);
        let route = asked.route.as_ref().ok()?;
        if !self.admits(&asked) {
            return Some(later(kept.attempts));
        }
        let hook = Arc::clone(&asked.planned);
        let message_id = format!("{}:{}", kept.invocation, hook.id);
        let put = Put {
            route,
            target: &route.target,
            body: body.clone(),
            limit: hook.config.timeout(),
            first: hook.config.timeout(),
            reads_answer: false,
            idempotent: false,
            trace: trace_below(None, &*self.inner.entropy),
        };
        let issuer = Arc::clone(&self.inner.public_url);
        let attempts = kept.attempts + 1;
        let headers = |(number, resent): (u32, bool), left, now| {
            hook.headers_for(&Attempt {
                message_id: &message_id,
                tenant,
                issuer: &issuer,
                body: &body,
                number: attempts + number - 1,
                resent,
                left,
                hop: 0,
                now,
                probe: false,
            })
        };
        let came = self.inner.hooks.put(put, &*self.inner.clock, headers).await;
        let passed = matches!(&came.outcome, Outcome::Answered(answer) if judge_status(answer.status).is_ok());
        self.inner.metrics.hooks.secret(if passed { "delivered" } else { "failed" });
        (!passed).then(|| later(attempts))
    }
}
