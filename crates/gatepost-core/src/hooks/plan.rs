//! A hook, ready to be asked: everything that can be worked out once is worked out at load.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::budget::{HOP_HEADER, TIMEOUT_HEADER, Wish};
use super::chain::RawAnswer;
use super::change::MayChange;
use super::codec::{self, ATTEMPT_HEADER, BadKeys, Codec, Envelope, HookKeys, POINT_HEADER, Received};
use super::condition::Condition;
use super::failure::{Failure, FailureClass};
use super::hook::{HookConfig, HookSecrets};
use super::points::PointDef;
use crate::echo::Known;
use crate::schema::SchemaText;
use crate::secret::Secret;
use crate::{HookId, InvocationId, TenantId, Timestamp};

/// Why a stored hook cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    /// Its profile is not one of ours.
    #[error("profile {0} is unknown")]
    Profile(String),
    /// Its condition does not compile.
    #[error("the condition does not compile")]
    Condition,
    /// Its keys are no keys.
    #[error(transparent)]
    Keys(#[from] BadKeys),
}

/// A hook, ready to be asked.
pub struct PlannedHook {
    /// Its id.
    pub id: HookId,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its settings.
    pub config: HookConfig,
    /// Its point.
    pub point: Arc<PointDef>,
    /// Its dialect.
    pub codec: &'static dyn Codec,
    /// The address its questions go to.
    pub endpoint: String,
    /// The address its probes go to.
    pub probe_endpoint: String,
    /// What its answers may change.
    pub may_change: MayChange,
    /// When it is asked.
    pub condition: Option<Condition>,
    /// What the object must still fit after its answer: its point's.
    pub schema: Option<Arc<SchemaText>>,
    /// Its keys.
    pub keys: HookKeys,
    /// The tenant's own headers.
    pub headers: Vec<(String, Secret)>,
    /// The secret part of `auth`.
    pub auth_secret: Option<Secret>,
    /// What its receiver may repeat of all that.
    pub known: Known,
}

impl std::fmt::Debug for PlannedHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PlannedHook({} at {})", self.id, self.point.name)
    }
}

impl PlannedHook {
    /// Plans a hook as stored.
    ///
    /// # Errors
    /// When the stored hook is not one that [`HookConfig::validate`] lets pass.
    pub fn new(
        id: HookId,
        created_at: Timestamp,
        config: HookConfig,
        point: Arc<PointDef>,
        secrets: HookSecrets,
    ) -> Result<Self, BadPlan> {
        let codec = codec::codec(&config.profile).ok_or_else(|| BadPlan::Profile(config.profile.clone()))?;
        let condition =
            config.conditions.as_ref().map(Condition::compile).transpose().map_err(|_| BadPlan::Condition)?;
        let schema = point.schema.as_ref().map(|schema| Arc::new(SchemaText::new(schema.to_string())));
        Ok(PlannedHook {
            id,
            created_at,
            schema,
            endpoint: codec.endpoint(&config.url, config.path.as_deref(), &point),
            probe_endpoint: codec.probe_endpoint(&config.url, config.path.as_deref(), &point),
            may_change: config.effective_may_change(&point),
            condition,
            keys: HookKeys::new(codec.key_scheme(), &secrets.signing)?,
            known: Known::of(
                &secrets.signing,
                secrets.headers.values(),
                config.auth.as_ref().zip(secrets.auth.as_ref()),
            ),
            headers: secrets.headers.into_iter().collect(),
            auth_secret: secrets.auth,
            codec,
            config,
            point,
        })
    }

    /// What it asks of the budget.
    pub fn wish(&self) -> Wish {
        Wish {
            timeout: self.config.timeout(),
            least: Duration::from_millis(u64::from(self.config.min_timeout_ms)),
            required: self.config.required(&self.point),
        }
    }

    /// Whether secrets are put into what is sent to it: granted, not omitted, and over TLS even
    /// where plain http is allowed.
    pub fn shows_secrets(&self) -> bool {
        self.config.shows_secrets() && self.config.is_https()
    }

    /// Whether it is asked after the mutators, one by one, because it may change the object.
    pub fn changes_in_tail(&self) -> bool {
        !self.may_change.is_nothing() || self.point.serial
    }

    /// The headers of one attempt: the dialect's, ours, then the tenant's own. `content-type` is
    /// among them; `traceparent`, `user-agent` and what `auth` needs are the sender's.
    pub fn headers_for(&self, attempt: &Attempt<'_>) -> Vec<(String, Secret)> {
        let endpoint = if attempt.probe { &self.probe_endpoint } else { &self.endpoint };
        let envelope = Envelope {
            message_id: attempt.message_id,
            sending: (attempt.number, attempt.resent),
            point: if attempt.probe { "test" } else { &self.point.name },
            tenant: attempt.tenant,
            endpoint,
            issuer: attempt.issuer,
            keys: &self.keys,
            body: attempt.body,
            now: attempt.now,
        };
        let mut own = vec![
            ("content-type", "application/json".to_owned()),
            (POINT_HEADER, envelope.point.to_owned()),
            // Cut, never rounded up: the receiver must not think it has more time than it has.
            (TIMEOUT_HEADER, attempt.left.as_millis().to_string()),
            (ATTEMPT_HEADER, attempt.number.to_string()),
            (HOP_HEADER, (attempt.hop + 1).to_string()),
        ];
        self.codec.sign(&envelope, &mut own);
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value)));
        own.chain(self.headers.iter().cloned()).collect()
    }
}

/// A probe's request: what `try`, verification and a half-open breaker send.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The address.
    pub endpoint: String,
    /// What is sent.
    pub body: Bytes,
    /// Names it: [`Attempt::message_id`].
    pub message_id: String,
}

impl PlannedHook {
    /// A probe of this hook's receiver; its headers are [`PlannedHook::headers_for`] with
    /// [`Attempt::probe`] set.
    pub fn probe(&self, id: InvocationId, tenant: &TenantId, time: Timestamp) -> Probe {
        Probe {
            endpoint: self.probe_endpoint.clone(),
            body: self.codec.probe_body(&id.to_string(), tenant, time),
            message_id: format!("{id}:{}", self.id),
        }
    }

    /// Whether a probe passed: a 2xx the dialect accepts, signed where answers must be. A text is a
    /// warning.
    ///
    /// # Errors
    /// Why it did not.
    pub fn judge_probe(
        &self,
        probe: &Probe,
        answer: &RawAnswer,
        now: Timestamp,
    ) -> Result<Option<&'static str>, Failure> {
        codec::judge_status(answer.status)?;
        let id = probe.message_id.split(':').next().unwrap_or_default();
        self.verify_signature(&[id, &probe.message_id], answer, now)?;
        codec::readable(&Received { status: answer.status, encoding: answer.encoding.as_deref(), body: &answer.body })?;
        self.codec.read_probe(crate::json::without_bom(&answer.body))
    }

    /// Checks an answer's signature, where the hook's answers must be signed, over any of `ids`.
    ///
    /// # Errors
    /// `bad_signature`.
    pub fn verify_signature(&self, ids: &[&str], answer: &RawAnswer, now: Timestamp) -> Result<(), Failure> {
        if !self.config.require_signed_answer {
            return Ok(());
        }
        let (signature, own_time) = (answer.signature.as_deref(), answer.signed_at.as_deref());
        let verified = self.keys.verify_answer(signature, own_time, ids, answer.sent_at, &answer.body, now);
        verified.map_err(|why| Failure::new(FailureClass::BadSignature, why))
    }
}

/// What one attempt's headers are made of.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The same for every attempt of one call.
    pub message_id: &'a str,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// Who we are: the server's public address.
    pub issuer: &'a str,
    /// The body, exactly as sent.
    pub body: &'a [u8],
    /// 1, or 2 for the one retry.
    pub number: u32,
    /// Whether it is sent a second time within the attempt.
    pub resent: bool,
    /// What is left of the call's time.
    pub left: Duration,
    /// The hop the invocation came with.
    pub hop: u32,
    /// The attempt's time.
    pub now: Timestamp,
    /// Whether it is a probe.
    pub probe: bool,
}

/// Puts hooks into the order they are asked in: `order`, then age, then id. Unique, so stable
/// across restarts and stores.
pub fn sort(hooks: &mut [Arc<PlannedHook>]) {
    hooks.sort_by_key(|hook| (hook.config.order, hook.created_at, hook.id));
}
