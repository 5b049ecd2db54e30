//! What the platform did after a decision, and the events that follow from it.

use bytes::Bytes;
use gatepost_core::event::Subject;
use gatepost_core::hooks::json::{Pointer, Value};
use gatepost_core::hooks::outcome::{self, Outcome};
use gatepost_core::hooks::points;
use gatepost_core::hooks::redact;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::tenant::Tenant;
use gatepost_core::{EventId, InvocationId, TenantId, Timestamp};
use gatepost_store::Page;
use gatepost_store::hooks::{InvocationQuery, OutcomeRecorded, OutcomeState, StoredInvocation};
use serde_json::json;

use super::record::summary;
use super::view::InvocationView;
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, FieldError, Kind, Result};
use crate::ops::PublishInput;
use crate::own_events::OwnNews;

/// An outcome, as it stands after it was told.
#[derive(Clone, Debug)]
pub struct OutcomeView {
    /// The invocation.
    pub invocation: InvocationView,
    /// Whether it was told before.
    pub repeated: bool,
}

impl Engine {
    /// An invocation of a tenant's.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn invocation(&self, tenant: &Tenant, id: InvocationId) -> Result<InvocationView> {
        let found = self.find_invocation(tenant, id).await?;
        Ok(InvocationView { invocation: found.ok_or(Error::NotFound(Kind::Invocation))?, now: self.now() })
    }

    /// One that was just answered may still wait to be written down.
    async fn find_invocation(&self, tenant: &Tenant, id: InvocationId) -> Result<Option<StoredInvocation>> {
        if let Some(found) = self.inner.store.invocation(tenant.key, id).await? {
            return Ok(Some(found));
        }
        self.inner.hooks.recorder.flush().await;
        Ok(self.inner.store.invocation(tenant.key, id).await?)
    }

    /// A page of a tenant's invocations, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn invocations(&self, query: InvocationQuery) -> Result<Page<InvocationView>> {
        self.inner.hooks.recorder.flush().await;
        let page = self.inner.store.invocations(query).await?;
        let now = self.now();
        let rows = page.rows.into_iter().map(|invocation| InvocationView { invocation, now });
        Ok(Page { rows: rows.collect(), next: page.next })
    }

    /// Takes what the platform did after a decision. The events this raises are published before it is
    /// answered, or, should that fail, as soon as the store can; once in any case.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`]; [`Error::Conflict`] for a contradiction, a dry run, and
    /// when it comes more than a day late.
    pub async fn tell_outcome(&self, tenant: &Tenant, id: InvocationId, body: Value) -> Result<OutcomeView> {
        let found = self.find_invocation(tenant, id).await?.ok_or(Error::NotFound(Kind::Invocation))?;
        let (secret, redacted) = self.secret_pointers(&tenant.id, &found.record.decision.point).await;
        let mut outcome = outcome::read(body, &secret)
            .map_err(|errors| Error::Invalid(errors.into_iter().map(FieldError::from).collect()))?;
        if let Some(object) = &mut outcome.object {
            redact::strip(object, &redacted);
        }
        let conflict =
            |message: &str| Err(Error::Conflict { code: ConflictCode::OutcomeConflict, message: message.to_owned() });
        if lacks_object(&found, &outcome) {
            return conflict(
                "nothing is kept of what this operation came to (a receiver repeated a secret, or there were too many \
                 records to write): say as `object` what was committed",
            );
        }
        let recorded = self.inner.store.record_outcome(tenant.key, id, outcome, self.now()).await?;
        let (invocation, repeated) = match recorded {
            OutcomeRecorded::NotFound => return Err(Error::NotFound(Kind::Invocation)),
            OutcomeRecorded::Contradicts => return conflict("another outcome of this invocation was told before"),
            OutcomeRecorded::DryRun => return conflict("a dry run has no outcome: nothing was decided"),
            OutcomeRecorded::Expired => return conflict("an outcome is taken for 24 hours after the decision"),
            OutcomeRecorded::Same(invocation) => (*invocation, true),
            OutcomeRecorded::Recorded(invocation) => (*invocation, false),
        };
        if !repeated && let Some((outcome, _)) = &invocation.outcome {
            self.inner.metrics.hooks.outcome(if outcome.committed { "committed" } else { "aborted" }, 1);
        }
        if invocation.outcome_state == OutcomeState::Owed
            && let Err(error) = self.publish_outcome(&tenant.id, &invocation).await
        {
            // It is owed, and will be made good.
            self.inner.hooks.recorder.noted();
            tracing::warn!(invocation = %id, %error, "the events of an outcome are published later");
        }
        Ok(OutcomeView { invocation: InvocationView { invocation, now: self.now() }, repeated })
    }

    /// What is secret in an object of this point or operation, and what is not to be stored of it.
    async fn secret_pointers(&self, tenant: &TenantId, name: &str) -> (Vec<Pointer>, Vec<Pointer>) {
        let mut names: Vec<&str> = match points::operation(name) {
            Some(operation) => operation.phases.iter().map(String::as_str).collect(),
            None => vec![name],
        };
        names.dedup();
        let own = self.tenant_hooks(tenant).await.ok().flatten();
        let of = |name: &str| match own.as_ref().and_then(|own| own.points.get(name)) {
            Some(entry) => entry.def.secret_pointers.clone(),
            None => points::builtins().iter().flat_map(|point| point.secret_pointers.clone()).collect(),
        };
        let entries = own.iter().flat_map(|own| names.iter().filter_map(|name| own.points.get(*name)));
        let redacted = entries.flat_map(|entry| entry.settings.redact.clone()).collect();
        (names.into_iter().flat_map(of).collect(), redacted)
    }

    /// Publishes what outcomes still owe.
    pub(super) async fn publish_owed_outcomes(&self, limit: usize) {
        let owed = match self.inner.store.owed_outcomes(limit).await {
            Ok(owed) => owed,
            Err(error) => return tracing::debug!(%error, "events of outcomes wait for the store"),
        };
        for (tenant, invocation) in owed {
            if let Err(error) = self.publish_outcome(&tenant, &invocation).await {
                tracing::warn!(invocation = %invocation.id, %error, "the events of an outcome are published later");
            }
        }
    }

    /// Both events carry ids made of the invocation's: published again, they are known.
    async fn publish_outcome(&self, tenant: &TenantId, invocation: &StoredInvocation) -> Result<()> {
        let Some((outcome, at)) = &invocation.outcome else { return Ok(()) };
        let subject = subject_of(&invocation.record.subject);
        let own = if outcome.committed { OwnEvent::InvocationCommitted } else { OwnEvent::InvocationAborted };
        let news = OwnNews {
            event: own,
            id: event_id(invocation.id, "outcome"),
            subject: subject.clone(),
            data: own_data(invocation, outcome),
        };
        self.publish_own(invocation.tenant, news).await?;
        if let Some(input) = post_event(invocation, outcome, subject, *at) {
            match self.publish_told(tenant, input).await {
                // Gone, and with it whoever could hear of it.
                Ok(()) | Err(Error::NotFound(Kind::Tenant)) => {}
                // Nothing that trying again could change: the caller published its own event under our id.
                Err(error @ Error::Conflict { code: ConflictCode::EventIdConflict, .. }) => {
                    tracing::error!(invocation = %invocation.id, %error, "the event of an outcome was refused")
                }
                Err(error) => return Err(error),
            }
        }
        self.inner.store.outcome_published(invocation.tenant, invocation.id).await?;
        Ok(())
    }

    /// Tells an own event about a hook.
    pub(super) async fn tell_own(&self, tenant: &TenantId, event: OwnEvent, hook: &str, data: serde_json::Value) {
        let told = async {
            let Some(snapshot) = self.tenant_hooks(tenant).await? else { return Ok(()) };
            let subject = Some(Subject { kind: Some("hook".to_owned()), id: hook.to_owned() });
            self.publish_own(snapshot.tenant.key, OwnNews { event, id: None, subject, data }).await
        };
        if let Err(error) = told.await {
            tracing::warn!(%tenant, hook, event = event.as_str(), %error, "an own event was not told");
        }
    }
}

fn event_id(invocation: InvocationId, what: &str) -> Option<EventId> {
    format!("{invocation}:{what}").parse().ok()
}

fn subject_of(subject: &Value) -> Option<Subject> {
    let id = subject.get("id")?.as_str()?.to_owned();
    Some(Subject { kind: subject.get("type").and_then(Value::as_str).map(str::to_owned), id })
}

/// Whether the event of an operation would have nothing to carry.
fn lacks_object(invocation: &StoredInvocation, outcome: &Outcome) -> bool {
    let decision = &invocation.record.decision;
    let told = outcome.object.is_some() || invocation.outcome.is_some();
    outcome.committed
        && !told
        && !decision.dry_run
        && invocation.body.is_none()
        && points::operation(&decision.point).is_some()
}

fn own_data(invocation: &StoredInvocation, outcome: &Outcome) -> serde_json::Value {
    let record = &invocation.record;
    let mut data = summary(&invocation.id.to_string(), &record.decision, &record.subject);
    data["outcome"] = json!({
        "committed": outcome.committed, "reason": outcome.reason, "isSuccess": outcome.is_success, "uid": outcome.uid,
    });
    data
}

fn post_event(
    invocation: &StoredInvocation,
    outcome: &Outcome,
    subject: Option<Subject>,
    at: Timestamp,
) -> Option<PublishInput> {
    let operation = points::operation(&invocation.record.decision.point)?;
    let nothing = Value::Null;
    let body = invocation.body.as_ref();
    let object = body.map_or(&nothing, |body| &body.object);
    let context = body.and_then(|body| body.question.get("context")).unwrap_or(&nothing);
    let (name, data) = outcome::post_event(operation, object, context, outcome)?;
    Some(PublishInput {
        id: event_id(invocation.id, "post"),
        fallback: None,
        event_type: name.parse().ok()?,
        timestamp: Some(at),
        subject,
        data: Bytes::from(data.to_string()),
        attributes: None,
        urgency: None,
        trace: None,
    })
}
