//! A webhook, as answered.

use std::collections::BTreeMap;

use gatepost_core::retry::RetryOverride;
use gatepost_core::secret::MASK;
use gatepost_core::webhook::{Batch, Payload, SigningEntry};
use gatepost_core::{Timestamp, WebhookId};
use gatepost_engine::ops::WebhookView;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::webhook::masked_auth;
use super::super::{schema, webhook_schema};
use super::{ShowHealth, ShowLastTest};

/// A webhook.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(crate) struct ShowWebhook<'a> {
    #[schema(value_type = String)]
    id: WebhookId,
    name: &'a str,
    description: Option<&'a str>,
    url: &'a str,
    events: &'a [String],
    filter: Option<&'a str>,
    profile: &'a str,
    /// Null: the profile's.
    format: Option<&'a str>,
    /// Null: the profile's.
    #[schema(value_type = Option<Vec<webhook_schema::SigningEntry>>)]
    signing: Option<&'a [SigningEntry]>,
    /// Null: all of `data`.
    #[schema(value_type = Option<webhook_schema::Payload>)]
    payload: Option<&'a Payload>,
    #[schema(value_type = Object)]
    options: &'a Map<String, Value>,
    /// Every value is `***`.
    #[schema(value_type = BTreeMap<String, String>)]
    headers: Masked<'a>,
    /// Its secret member is `***`.
    #[schema(value_type = Option<webhook_schema::Auth>)]
    auth: Option<Value>,
    /// What differs from the profile's policy; null: nothing.
    #[schema(value_type = Option<schema::Retry>)]
    retry: Option<&'a RetryOverride>,
    /// Null: the profile's.
    timeout_ms: Option<u32>,
    /// Null: every event goes by itself.
    #[schema(value_type = Option<webhook_schema::BatchShown>)]
    batch: Option<Batch>,
    /// Paths below the url by event type, where they are not the profile's.
    paths: &'a BTreeMap<String, String>,
    #[schema(value_type = webhook_schema::Ordering)]
    ordering: &'static str,
    /// Null: no bound.
    rate_limit_per_s: Option<u32>,
    /// Null: 32.
    max_in_flight: Option<u32>,
    enabled: bool,
    /// Matched as ever; what it is owed is `held/paused` until it is false again.
    paused: bool,
    /// True when no verification is outstanding.
    verified: bool,
    verification: ShowVerification<'a>,
    /// The public half (`whpk_…`) of its key pair, where it signs with one.
    public_key: Option<&'a str>,
    /// Things worth a second look, such as subscriptions to types nobody declared.
    warnings: &'a [String],
    last_test: Option<ShowLastTest<'a>>,
    health: ShowHealth<'a>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// The signing secret: only in the answer of its creation, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
}

/// How a webhook's endpoint is verified, and how that went.
#[derive(Serialize, ToSchema)]
#[schema(as = VerificationShown)]
struct ShowVerification<'a> {
    mode: &'static str,
    /// Whether nothing is sent before it has succeeded.
    required: bool,
    /// When it did, for the url, auth and headers of now.
    #[schema(value_type = Option<String>, format = DateTime)]
    verified_at: Option<Timestamp>,
    /// Why it did not, the last time.
    last_error: Option<&'a str>,
}

impl<'a> ShowWebhook<'a> {
    /// With the secret, if this is the one time it is shown.
    pub(crate) fn new(view: &'a WebhookView, secret: Option<&'a str>) -> Self {
        let webhook = &*view.webhook;
        let config = &webhook.config;
        ShowWebhook {
            id: webhook.id,
            name: &config.name,
            description: config.description.as_deref(),
            url: &config.url,
            events: &config.events,
            filter: config.filter.as_deref(),
            profile: &config.profile,
            format: config.format.as_deref(),
            signing: config.signing.as_deref(),
            payload: config.payload.as_ref(),
            options: &config.options,
            headers: Masked(&config.header_names),
            auth: config.auth.as_ref().map(masked_auth),
            retry: config.retry.as_ref(),
            timeout_ms: config.timeout_ms,
            batch: config.batch,
            paths: &config.paths,
            ordering: config.ordering.as_str(),
            rate_limit_per_s: config.rate_limit_per_s,
            max_in_flight: config.max_in_flight,
            enabled: config.enabled,
            paused: config.paused,
            verified: view.verified(),
            verification: ShowVerification {
                mode: view.verification.mode,
                required: view.verification.required,
                verified_at: config.verified_at,
                last_error: webhook.verification_error.as_deref(),
            },
            public_key: view.public_key.as_deref(),
            warnings: &view.warnings,
            last_test: webhook.last_test.as_ref().map(ShowLastTest::from),
            health: ShowHealth::from(&view.health),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            secret,
        }
    }
}

/// Header names with masked values.
struct Masked<'a>(&'a [String]);

impl Serialize for Masked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|name| (name, MASK)))
    }
}
