//! A webhook's health, and what a verification came to, as they are answered.

use gatepost_core::Timestamp;
use gatepost_engine::HealthView;
use gatepost_engine::ops::{VerifyResult, VerifyStep};
use serde::Serialize;
use utoipa::ToSchema;

use super::attempt::{ShowRequest, ShowResponse, millis};
use crate::wire::schema;

/// How an endpoint fares.
#[derive(ToSchema)]
#[schema(as = HealthState, rename_all = "snake_case")]
#[expect(dead_code, reason = "only described")]
enum ShowHealthState {
    Ok,
    Failing,
    Disabled,
}

/// How a webhook's endpoint fares. Counts may lag a second.
#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub(crate) struct ShowHealth<'a> {
    /// `failing`: two attempts in a row failed, or one that was its delivery's last. `disabled`: by Gatepost,
    /// after 410 or sustained failure.
    #[schema(value_type = ShowHealthState)]
    state: &'static str,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Attempts that succeeded within a day; tests are not counted.
    success_24h: u64,
    /// Attempts that failed within a day.
    failure_24h: u64,
    /// Why the last attempt that failed did.
    last_error: Option<&'a str>,
}

impl<'a> From<&'a HealthView> for ShowHealth<'a> {
    fn from(health: &'a HealthView) -> Self {
        ShowHealth {
            state: health.state.as_str(),
            since: health.since,
            success_24h: health.success_24h,
            failure_24h: health.failure_24h,
            last_error: health.last_error.as_deref(),
        }
    }
}

/// What a verification came to.
#[derive(Serialize, ToSchema)]
#[schema(as = Verified)]
pub(crate) struct ShowVerified<'a> {
    /// Whether the endpoint proved that it wants what it gets.
    verified: bool,
    /// Why not.
    error: Option<&'a str>,
    /// What was sent and answered, in order.
    transcript: Vec<ShowStep<'a>>,
}

/// One request of a verification.
#[derive(Serialize, ToSchema)]
#[schema(as = VerificationStep)]
struct ShowStep<'a> {
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    duration_ms: u32,
    #[schema(value_type = schema::Outcome)]
    outcome: &'static str,
    status: Option<u16>,
    error: Option<&'a str>,
    method: &'a str,
    request: ShowRequest<'a>,
    response: Option<ShowResponse<'a>>,
}

impl<'a> From<&'a VerifyResult> for ShowVerified<'a> {
    fn from(result: &'a VerifyResult) -> Self {
        ShowVerified {
            verified: result.verified,
            error: result.error.as_deref(),
            transcript: result.transcript.iter().map(ShowStep::from).collect(),
        }
    }
}

impl<'a> From<&'a VerifyStep> for ShowStep<'a> {
    fn from(step: &'a VerifyStep) -> Self {
        ShowStep {
            started_at: step.started_at,
            duration_ms: millis(step.duration_us),
            outcome: step.outcome.as_str(),
            status: step.status,
            error: step.error.as_deref(),
            method: &step.method,
            request: ShowRequest::new(&step.request, Some(&step.body)),
            response: step.response.as_ref().map(ShowResponse::from),
        }
    }
}
