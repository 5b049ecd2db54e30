//! Tests of a hook's receiver: the probe that verifies it, and one question asked on purpose.

use std::sync::Arc;
use std::time::Duration;

use gatepost_core::delivery::Response;
use gatepost_core::echo::Known;
use gatepost_core::hooks::budget::{Budget, HARD_CAP, LEAST};
use gatepost_core::hooks::chain::{Chain, Outcome, Report, Setup, Stage};
use gatepost_core::hooks::decision::Decision;
use gatepost_core::hooks::failure::{Failure, FailureClass};
use gatepost_core::hooks::hook::{HookConfig, Mode, SideEffects};
use gatepost_core::hooks::invocation::{self, Invocation, Target};
use gatepost_core::hooks::json::Value;
use gatepost_core::hooks::plan::{Attempt, PlannedHook};
use gatepost_core::hooks::points::PointDef;
use gatepost_core::hooks::retry::first_try;
use gatepost_core::hooks::secrets::Secrets;
use gatepost_core::secret::{MASK, Secret};
use gatepost_core::signing::{ID_HEADER, TIMESTAMP_HEADER};
use gatepost_core::tenant::Tenant;
use gatepost_core::{HookId, InvocationId, TenantId, Timestamp};
use gatepost_store::hooks::{HookTest, StoredHook};
use tokio::time::Instant;

use super::call::{Put, trace_below};
use super::snapshot::Route;
use super::view::HookView;
use crate::engine::Engine;
use crate::error::{Error, FieldError, Kind, Result};

/// What to try a hook with besides the probe.
#[derive(Clone, Debug, Default)]
pub struct TryInput {
    /// The point's sample.
    pub sample: bool,
    /// An invocation, in any form that is read.
    pub invocation: Option<Value>,
    /// One that was asked before, as far as it is kept.
    pub invocation_id: Option<InvocationId>,
}

/// What a try came to.
#[derive(Clone, Debug)]
pub struct TryResult {
    /// The hook as it is now.
    pub hook: HookView,
    /// The probe.
    pub test: HookTest,
    /// What the probe sent, and what came back.
    pub exchange: Shown,
    /// What the question came to, if one was asked.
    pub asked: Option<TriedAsking>,
}

/// A question asked on purpose.
#[derive(Clone, Debug)]
pub struct TriedAsking {
    /// The decision, with this hook enforced and nobody else asked.
    pub decision: Decision,
    /// What it was sent, and what came back.
    pub exchange: Shown,
}

/// A request and its answer, to be shown: own headers and secrets are masked.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Where to.
    pub url: String,
    /// In the order sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// What the signature is over, where it is over a text of this form.
    pub signed: Option<String>,
    /// What came back.
    pub response: Option<Response>,
}

/// A probe made.
pub(super) struct Probed {
    pub(super) test: HookTest,
    pub(super) shown: Shown,
}

impl Engine {
    /// Sends a hook's receiver the probe.
    pub(super) async fn probe(
        &self,
        tenant: &TenantId,
        hook: &PlannedHook,
        route: std::result::Result<&Route, &String>,
    ) -> Probed {
        let at = self.now();
        let probe = hook.probe(InvocationId::new(at, &self.inner.entropy), tenant, at);
        let mut shown = Shown { url: probe.endpoint.clone(), body: text(&probe.body), ..Shown::default() };
        let failed = |class: &str, error: String| HookTest {
            at,
            passed: false,
            status: None,
            duration_ms: 0,
            failure: Some(class.to_owned()),
            error: Some(error),
            warning: None,
        };
        let route = match route {
            Ok(route) => route,
            Err(why) => return Probed { test: failed("connect", why.clone()), shown },
        };
        let issuer = Arc::clone(&self.inner.public_url);
        let sent = std::sync::Mutex::new(Vec::new());
        let headers = |(number, resent), left: Duration, now| {
            let headers = hook.headers_for(&Attempt {
                message_id: &probe.message_id,
                tenant,
                issuer: &issuer,
                body: &probe.body,
                number,
                resent,
                left: left.max(LEAST),
                hop: 0,
                now,
                probe: true,
            });
            *sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = show_headers(hook, &headers);
            headers
        };
        let put = Put {
            route,
            target: &route.probe,
            body: probe.body.clone(),
            limit: hook.config.timeout(),
            first: hook.config.timeout(),
            reads_answer: true,
            idempotent: true,
            trace: trace_below(None, &*self.inner.entropy),
        };
        let began = Instant::now();
        let came = self.inner.hooks.put(put, &*self.inner.clock, headers).await;
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        shown.headers = sent.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        shown.signed = signed(&shown);
        let echoed = Echoed::of(hook, &came.outcome);
        shown.response = came.response.map(|response| echoed.response(response));
        let (status, judged) = match &came.outcome {
            Outcome::Failed(failure) => (None, Err(failure.clone())),
            Outcome::Answered(answer) => (Some(answer.status), hook.judge_probe(&probe, answer, self.now())),
        };
        let judged = judged.map_err(|failure| (failure.class.as_str(), echoed.text(&failure.to_string())));
        let test = match judged {
            Ok(warning) => HookTest {
                at,
                passed: true,
                status,
                duration_ms,
                failure: None,
                error: None,
                warning: warning.map(str::to_owned),
            },
            Err((class, why)) => HookTest { status, duration_ms, ..failed(class, why) },
        };
        Probed { test, shown }
    }

    /// Sends a hook's receiver the probe; a pass verifies it. With an input, asks it that too: as a dry
    /// run, whatever its mode, recording nothing. Works for hooks that are off.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for an input that is no invocation of the hook's point.
    pub async fn try_hook(&self, tenant: &Tenant, id: HookId, input: TryInput) -> Result<TryResult> {
        let hook = self.inner.store.hook(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Hook))?;
        let point = self.point_of(tenant, &hook).await?;
        let question = self.try_question(tenant, &point, input).await?;
        let planned = self.plan_hook(&hook, &point).map_err(|_| Error::Sealed)?;
        let nets = crate::transport::parse_nets(&tenant.settings.allow_nets).into();
        let route = self.route_of(tenant, &planned, &nets);
        let probed = self.probe(&tenant.id, &planned, route.as_ref()).await;
        let recorded = self.inner.store.record_hook_test(tenant.key, id, hook.revision, probed.test.clone()).await?;
        let present = recorded.ok_or(Error::NotFound(Kind::Hook))?;
        if probed.test.passed
            && let Ok(Some(snapshot)) = self.tenant_hooks(&tenant.id).await
            && let Some(asked) = snapshot.asked.get(&id)
        {
            self.close_circuit(&tenant.id, asked);
        }
        let asked = match question {
            Some(question) => Some(self.ask_one(tenant, &hook, &point, question, &route).await?),
            None => None,
        };
        let hook = self.hook_view(tenant, present).await?;
        Ok(TryResult { hook, test: probed.test, exchange: probed.shown, asked })
    }

    async fn try_question(&self, tenant: &Tenant, point: &PointDef, input: TryInput) -> Result<Option<Invocation>> {
        let TryInput { sample, invocation, invocation_id } = input;
        let stored = match invocation_id {
            None => None,
            Some(id) => {
                let found = self.invocation(tenant, id).await?.invocation;
                let gone = "nothing of this invocation's question is kept (any more)";
                let kept = found.body.ok_or_else(|| Error::Invalid(vec![FieldError::new("/invocation_id", gone)]))?;
                Some((kept.question, "/invocation_id"))
            }
        };
        let given = invocation.map(|value| (value, "/invocation"));
        let Some((value, at)) = given.or(stored).or(sample.then(|| (point.sample.clone().into(), "/sample"))) else {
            return Ok(None);
        };
        let read = invocation::from_value(value, Target::Point(point));
        let read = read.map_err(|errors| {
            let errors = errors.into_iter().map(|e| FieldError::new(format!("{at}{}", e.pointer), e.message));
            Error::Invalid(errors.collect())
        })?;
        Ok(Some(Invocation { dry_run: true, explain: true, ..read }))
    }

    /// Asks one hook alone, enforced, as a dry run.
    async fn ask_one(
        &self,
        tenant: &Tenant,
        hook: &StoredHook,
        point: &Arc<PointDef>,
        invocation: Invocation,
        route: &std::result::Result<Route, String>,
    ) -> Result<TriedAsking> {
        let config = HookConfig {
            mode: Mode::Enforce,
            enabled: true,
            conditions: None,
            // Whoever tries a hook knows what calling it does.
            side_effects: SideEffects::NoneOnDryRun,
            ..hook.config.clone()
        };
        let planned = self.plan_hook(&StoredHook { config, ..hook.clone() }, point).map_err(|_| Error::Sealed)?;
        let now = self.now();
        let budget = Budget::new(None, HARD_CAP);
        let secrets = invocation.secrets.clone();
        let setup = Setup {
            id: InvocationId::new(now, &self.inner.entropy),
            tenant: tenant.id.clone(),
            time: now,
            name: point.name.clone(),
            stages: vec![Stage { point: Arc::clone(point), hooks: vec![Arc::clone(&planned)], enabled: true }],
            budget,
            bypass: false,
            issuer: Arc::clone(&self.inner.public_url),
            hop: 0,
        };
        let mut chain = Chain::new(setup, invocation);
        let began = Instant::now();
        let mut shown = Shown { url: planned.endpoint.clone(), ..Shown::default() };
        for call in chain.ready(Duration::ZERO) {
            shown.body =
                if secrets.is_empty() { text(&call.body) } else { secrets.mask(&text(&call.body)).into_owned() };
            let sent = std::sync::Mutex::new(Vec::new());
            let (outcome, conn, attempts) = match route {
                Err(why) => (Outcome::Failed(Failure::new(FailureClass::Connect, why.clone())), None, 0),
                Ok(route) => {
                    let headers = |turn, left: Duration, now: Timestamp| {
                        let headers = call.headers(turn, left.max(LEAST), now);
                        *sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                            show_headers(&planned, &headers);
                        headers
                    };
                    let put = Put {
                        route,
                        target: &route.target,
                        body: call.body.clone(),
                        limit: call.limit,
                        first: first_try(call.limit, planned.config.idempotent),
                        reads_answer: point.reads_answers(),
                        idempotent: planned.config.idempotent,
                        trace: trace_below(None, &*self.inner.entropy),
                    };
                    let came = self.inner.hooks.put(put, &*self.inner.clock, headers).await;
                    let echoed = Echoed::of(&planned, &came.outcome);
                    let response = came.response.map(|response| mask_response(&secrets, response));
                    shown.response = response.map(|response| echoed.response(response));
                    (came.outcome, came.conn, came.attempts)
                }
            };
            shown.headers = sent.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            let report = Report { outcome, started: Duration::ZERO, ended: began.elapsed(), conn, attempts };
            chain.settle(call.slot, report, self.now());
        }
        shown.signed = if secrets.is_empty() { signed(&shown) } else { None };
        let mut decision = chain.finish(began.elapsed());
        mask_decision(&planned.known, &mut decision);
        Ok(TriedAsking { decision, exchange: shown })
    }
}

/// What a receiver may repeat: the hook's own secrets, and the token of this question.
struct Echoed<'h> {
    own: &'h Known,
    token: Known,
}

impl<'h> Echoed<'h> {
    fn of(hook: &'h PlannedHook, outcome: &Outcome) -> Self {
        let token = match outcome {
            Outcome::Answered(answer) => Known::of_values(answer.token.iter().map(Secret::expose)),
            Outcome::Failed(_) => Known::default(),
        };
        Echoed { own: &hook.known, token }
    }

    fn text(&self, text: &str) -> String {
        self.token.text(&self.own.text(text)).into_owned()
    }

    fn response(&self, mut response: Response) -> Response {
        self.own.response(&mut response);
        self.token.response(&mut response);
        response
    }
}

/// What a decision holds of a hook's secrets, before it is kept or shown to people. What its caller is
/// told stays as the receiver said it.
pub(super) fn mask_decision(known: &Known, decision: &mut Decision) {
    known.data(&mut decision.object);
    known.data(&mut decision.value);
    decision.values.iter_mut().flatten().for_each(|value| known.data(value));
    for op in &mut decision.patch {
        op.value_mut().into_iter().for_each(|value| known.data(value));
    }
}

fn mask_response(secrets: &Secrets, mut response: Response) -> Response {
    if secrets.occur_in(&response.body) {
        response.body = bytes::Bytes::from(secrets.mask(&text(&response.body)).into_owned());
    }
    response
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// The tenant's own headers and whatever proves us are masked.
fn show_headers(hook: &PlannedHook, headers: &[(String, Secret)]) -> Vec<(String, String)> {
    let own = |name: &str| hook.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let shown = |(name, value): &(String, Secret)| {
        let hidden = own(name) || name.eq_ignore_ascii_case("authorization");
        let value = if hidden { MASK.to_owned() } else { value.expose().to_owned() };
        (name.to_ascii_lowercase(), value)
    };
    let auth = hook.config.auth.as_ref().and_then(crate::endpoint_auth::header_name);
    let said = crate::net::always_said();
    let said = said.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or(MASK).to_owned()));
    headers.iter().map(shown).chain(said).chain(auth.map(|name| (name, MASK.to_owned()))).collect()
}

/// `id.timestamp.body`, where the headers say that this is what is signed.
fn signed(shown: &Shown) -> Option<String> {
    let header = |name: &str| shown.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    Some(format!("{}.{}.{}", header(ID_HEADER)?, header(TIMESTAMP_HEADER)?, shown.body))
}
