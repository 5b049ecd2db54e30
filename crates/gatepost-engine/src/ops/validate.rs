//! What makes a webhook valid: every rule in one place, every violation reported at once.

use gatepost_core::event::EventType;
use gatepost_core::filter::Filter;
use gatepost_core::pattern::EventPattern;
use gatepost_core::secret::{MASK, Secret};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig, bounds};
use gatepost_core::{profiles, signing};

use super::WebhookInput;
use crate::engine::Engine;
use crate::error::FieldError;
use crate::net::Target;

/// Header names a tenant may not set: Gatepost's own, those HTTP gives a meaning between two hops,
/// and those that signatures and formats own (`standards.md` 10, guard rails).
const RESERVED: &[&str] = &[
    "accept-encoding",
    "authorization-signature",
    "connection",
    "content-digest",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "cryptr-signature",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "set-cookie",
    "signature",
    "signature-input",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-hub-signature",
    "x-hub-signature-256",
];
/// Prefixes of such names.
const RESERVED_PREFIXES: &[&str] = &["webhook-", "gatepost-", "ce-", "svix-", "x-ferriskey-", "x-okta-"];

impl Engine {
    /// Everything wrong with a webhook's members, required ones missing included. Of an existing one,
    /// URL, events and filter are judged only where they change: rules may have become stricter since
    /// it was registered (a network closed again, say), and it must still be possible to disable it.
    /// Whether a URL may be called is judged at every connection anyway (P8).
    pub fn validate_webhook(
        &self,
        tenant: &Tenant,
        input: &WebhookInput,
        existing: Option<&Webhook>,
    ) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let required = "is required";
        let kept = existing.map(|webhook| &webhook.config);
        match &input.name {
            None => errors.push(FieldError::new("/name", required)),
            Some(name) if !bounds::NAME.contains(&name.chars().count()) => {
                errors.push(FieldError::new("/name", "must have 1 to 200 characters"));
            }
            Some(_) => {}
        }
        if input.description.as_ref().is_some_and(|d| d.chars().count() > bounds::DESCRIPTION_MAX) {
            errors.push(FieldError::new("/description", "must have at most 2000 characters"));
        }
        match &input.url {
            None => errors.push(FieldError::new("/url", required)),
            Some(url) if kept.is_some_and(|kept| kept.url == *url) => {}
            Some(url) => self.check_url(tenant, url, &mut errors),
        }
        if input.events.is_none() || input.events.as_ref() != kept.map(|kept| &kept.events) {
            check_events(input.events.as_deref(), &mut errors);
        }
        if kept.is_none_or(|kept| kept.filter != input.filter)
            && let Some(Err(problem)) = input.filter.as_deref().map(Filter::compile)
        {
            errors.push(FieldError::new("/filter", problem.to_string()));
        }
        check_profile(input, existing, &mut errors);
        check_headers(&input.headers, existing, &mut errors);
        if let Some(retry) = &input.retry {
            let problems = retry.problems();
            errors.extend(
                problems.into_iter().map(|(pointer, message)| FieldError::new(format!("/retry{pointer}"), message)),
            );
        }
        if input.timeout_ms.is_some_and(|t| !bounds::TIMEOUT_MS.contains(&t)) {
            errors.push(FieldError::new("/timeout_ms", "must be 100 to 60000 milliseconds"));
        }
        if input.max_in_flight.is_some_and(|n| !bounds::MAX_IN_FLIGHT.contains(&n)) {
            errors.push(FieldError::new("/max_in_flight", "must be 1 to 1000"));
        }
        match (&input.secret, existing) {
            (Some(_), Some(_)) => errors
                .push(FieldError::new("/secret", "cannot be changed here: use rotate-secret, which can import one")),
            (Some(secret), None) => {
                if let Err(problem) = check_secret(secret) {
                    errors.push(FieldError::new("/secret", problem));
                }
            }
            (None, _) => {}
        }
        errors
    }

    fn check_url(&self, tenant: &Tenant, url: &str, errors: &mut Vec<FieldError>) {
        let nets = crate::transport::parse_nets(&tenant.settings.allow_nets);
        let checked = Target::parse(url)
            .map_err(|e| e.to_string())
            .and_then(|target| self.inner.policy.check_at_write(&target, &nets).map_err(|e| e.to_string()));
        if let Err(message) = checked {
            errors.push(FieldError::new("/url", message));
        }
    }

    /// Things worth a second look that are no errors: subscriptions to types nobody declared.
    pub(crate) fn warnings(&self, config: &WebhookConfig) -> Vec<String> {
        let unknown = config.events.iter().filter(|text| {
            text.parse::<EventType>().is_ok_and(|event_type| !self.inner.catalogue.declares(&event_type))
        });
        unknown
            .map(|text| format!("the catalogue has no event type {text:?}: check its spelling, or declare it"))
            .collect()
    }
}

/// A secret to import: the symmetric form only, since a webhook's scheme is Standard Webhooks `v1`.
///
/// # Errors
/// Says what it is to be, and nothing of what it is.
pub fn check_secret(secret: &Secret) -> Result<(), String> {
    if !secret.expose().starts_with("whsec_") {
        return Err("must be whsec_ and the base64 text of 24 to 64 bytes".into());
    }
    signing::check_secret(secret.expose()).map_err(|problem| problem.to_string())
}

fn check_events(events: Option<&[String]>, errors: &mut Vec<FieldError>) {
    let Some(events) = events else {
        errors.push(FieldError::new("/events", "is required"));
        return;
    };
    if !bounds::EVENTS.contains(&events.len()) {
        errors.push(FieldError::new("/events", "must have 1 to 500 patterns; [\"*\"] subscribes to everything"));
    }
    for (i, text) in events.iter().enumerate() {
        if let Err(problem) = text.parse::<EventPattern>() {
            errors.push(FieldError::new(format!("/events/{i}"), problem.to_string()));
        }
    }
}

fn check_profile(input: &WebhookInput, existing: Option<&Webhook>, errors: &mut Vec<FieldError>) {
    let Some(name) = &input.profile else { return };
    if existing.is_some_and(|w| w.config.profile != *name) {
        errors.push(FieldError::new("/profile", "is fixed at creation: register a new webhook instead"));
    } else if !profiles::profile(name).is_some_and(|p| p.registrable()) {
        let names: Vec<_> = profiles::all().iter().filter(|p| p.registrable()).map(|p| p.name()).collect();
        errors.push(FieldError::new("/profile", format!("must be one of {}", names.join(", "))));
    }
}

fn check_headers(headers: &[(String, String)], existing: Option<&Webhook>, errors: &mut Vec<FieldError>) {
    if headers.len() > bounds::HEADERS_MAX {
        errors.push(FieldError::new("/headers", "must have at most 32 members"));
    }
    let mut seen = std::collections::HashSet::new();
    for (name, value) in headers {
        let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        let mut bad = |message: &str| errors.push(FieldError::new(pointer.clone(), message));
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || name.len() > 256 || http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            bad("the name is not an HTTP header name (RFC 9110 token)");
        } else if RESERVED.contains(&lower.as_str()) || RESERVED_PREFIXES.iter().any(|p| lower.starts_with(p)) {
            bad("this header is reserved: Gatepost or HTTP itself sets it");
        } else if !seen.insert(lower) {
            bad("the name is given twice (names compare without case)");
        }
        let kept = existing.is_some_and(|w| w.config.header_names.iter().any(|n| n.eq_ignore_ascii_case(name)));
        if value == MASK && !kept {
            bad("the value *** keeps a present value, and there is none: give the value itself");
        } else if value.len() > bounds::HEADER_VALUE_MAX {
            bad("the value must have at most 4096 bytes");
        } else if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
            bad("the value may hold visible ASCII, spaces and tabs only");
        } else if value.trim_matches([' ', '\t']) != value {
            bad("the value must not begin or end with a space");
        }
    }
}
