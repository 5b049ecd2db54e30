//! What makes a webhook valid: every rule in one place, every violation reported at once.

mod wire;

use std::ops::RangeInclusive;

use gatepost_core::TenantKey;
use gatepost_core::event::EventType;
use gatepost_core::filter::Filter;
use gatepost_core::pattern::EventPattern;
use gatepost_core::profiles;
use gatepost_core::secret::MASK;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig, bounds};

use self::wire::Writers;
pub(super) use self::wire::auth_secret;
use super::WebhookInput;
use crate::endpoint_auth::{Moved, Places};
use crate::engine::Engine;
use crate::error::FieldError;
use crate::net::{Host, Scheme, Target};

/// Header names a tenant may not set because HTTP, or what stands between two hops, gives them a
/// meaning, or would (`standards.md` 10, guard rails). Those of signatures and formats come from the
/// profiles.
const HTTP: &[&str] = &[
    "accept-encoding",
    "authorization-signature",
    "connection",
    "content-digest",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
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
];
/// What Gatepost's own header names begin with.
const OWN: &str = "gatepost-";

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
        let writers = self.check_wire(tenant, input, existing, &mut errors);
        check_headers(&input.headers, existing, &writers, &mut errors);
        if let Some(existing) = existing {
            check_places(input, &existing.config, &mut errors);
        }
        if let Some(retry) = &input.retry {
            let problems = retry.problems();
            errors.extend(
                problems.into_iter().map(|(pointer, message)| FieldError::new(format!("/retry{pointer}"), message)),
            );
        }
        let bounded = [
            ("/timeout_ms", input.timeout_ms, bounds::TIMEOUT_MS),
            ("/max_in_flight", input.max_in_flight, bounds::MAX_IN_FLIGHT),
            ("/rate_limit_per_s", input.rate_limit_per_s, bounds::RATE_LIMIT_PER_S),
        ];
        for (pointer, value, range) in bounded {
            if let Some(value) = value {
                within(&mut errors, pointer, value, range);
            }
        }
        if input.secret.is_some() && existing.is_some() {
            let message = "cannot be changed here: use rotate-secret, which can import one";
            errors.push(FieldError::new("/secret", message));
        }
        errors
    }

    fn check_url(&self, tenant: &Tenant, url: &str, errors: &mut Vec<FieldError>) {
        if let Err(message) = self.may_be_called(tenant, url) {
            errors.push(FieldError::new("/url", message));
        }
    }

    /// Whether a URL may be called on behalf of a tenant, as far as can be told without calling it.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_be_called(&self, tenant: &Tenant, url: &str) -> std::result::Result<(), String> {
        let nets = crate::transport::parse_nets(&tenant.settings.allow_nets);
        let target = Target::parse(url).map_err(|e| e.to_string())?;
        self.inner.policy.check_at_write(&target, &nets).map_err(|e| e.to_string())
    }

    /// Things worth a second look that are no errors: subscriptions to types nobody declared.
    ///
    /// `suggests`: with what was probably meant, which costs a look at the whole catalogue.
    pub(crate) fn warnings(&self, tenant: TenantKey, config: &WebhookConfig, suggests: bool) -> Vec<String> {
        let types = self.types_of(tenant);
        let unknown = config
            .events
            .iter()
            .filter(|text| text.parse::<EventType>().is_ok_and(|event_type| !types.declares(&event_type)));
        let mut warnings: Vec<String> = unknown
            .enumerate()
            .map(|(n, text)| {
                match Some(text).filter(|_| suggests && n < SUGGESTED).and_then(|text| types.nearest(text)) {
                    Some(near) => {
                        format!("the catalogue has no event type {text:?}: did you mean {near:?}? Else declare it")
                    }
                    None => format!("the catalogue has no event type {text:?}: check its spelling, or declare it"),
                }
            })
            .collect();
        if self.is_plain_to_the_public(&config.url) {
            warnings.push(
                "the url is plain http: attempts fail where its name resolves to an address outside of the allowed \
                 networks; use https"
                    .to_owned(),
            );
        }
        warnings
    }

    /// Whether a url is plain http to a name: with networks allowed it can only be told at each attempt whether
    /// the name resolves to one of them.
    fn is_plain_to_the_public(&self, url: &str) -> bool {
        Target::parse(url).is_ok_and(|target| {
            target.scheme() == Scheme::Http
                && matches!(target.host(), Host::Name(name) if name != "localhost" && !name.ends_with(".localhost"))
        })
    }
}

/// How many slips of one webhook are looked up.
const SUGGESTED: usize = 3;

/// Notes a number that is out of bounds.
fn within(errors: &mut Vec<FieldError>, pointer: &str, value: u32, range: RangeInclusive<u32>) {
    if !range.contains(&value) {
        let message = format!("must be a whole number, {} to {}", range.start(), range.end());
        errors.push(FieldError::new(pointer, message));
    }
}

/// A member's name as part of a JSON pointer.
pub(super) fn pointer_part(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The profile a webhook has, or would get.
fn profile_name<'a>(input: &'a WebhookInput, existing: Option<&'a Webhook>) -> &'a str {
    match existing {
        Some(webhook) => &webhook.config.profile,
        None => input.profile.as_deref().unwrap_or(profiles::DEFAULT),
    }
}

fn is_http_header(lower: &str) -> bool {
    HTTP.contains(&lower)
}

/// What is wrong with the name of a header a tenant wants to set.
fn bad_header_name(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || name.len() > 256 || http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        Some("the name is not an HTTP header name (RFC 9110 token)")
    } else if is_http_header(&lower) || lower.starts_with(OWN) || profiles::is_reserved_header(&lower) {
        Some("this header is reserved: Gatepost or HTTP itself sets it")
    } else {
        None
    }
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
        let names: Vec<_> = profiles::all().filter(|p| p.registrable()).map(|p| p.name()).collect();
        errors.push(FieldError::new("/profile", format!("must be one of {}", names.join(", "))));
    }
}

/// A value that is kept is not sent to another place (P7).
fn check_places(input: &WebhookInput, present: &WebhookConfig, errors: &mut Vec<FieldError>) {
    let echoed = input.headers.iter().filter(|(_, value)| value == MASK).map(|(name, _)| name.as_str());
    let kept = echoed.filter(|name| present.header_names.iter().any(|known| known.eq_ignore_ascii_case(name)));
    let auth = input.auth.as_ref().filter(|auth| auth.secret.as_ref().is_none_or(|secret| secret.expose() == MASK));
    for error in moved_elsewhere(input, present).refuse(kept, auth.map(|auth| &auth.auth)) {
        if errors.iter().all(|known| known.pointer != error.pointer) {
            errors.push(error);
        }
    }
}

/// What a change would send elsewhere.
pub(super) fn moved_elsewhere(input: &WebhookInput, present: &WebhookConfig) -> Moved {
    let after =
        Places { url: input.url.as_deref().unwrap_or(&present.url), auth: input.auth.as_ref().map(|auth| &auth.auth) };
    Moved::between(Places { url: &present.url, auth: present.auth.as_ref() }, after)
}

fn check_headers(
    headers: &[(String, String)],
    existing: Option<&Webhook>,
    writers: &Writers,
    errors: &mut Vec<FieldError>,
) {
    if headers.len() > bounds::HEADERS_MAX {
        errors.push(FieldError::new("/headers", "must have at most 32 members"));
    }
    let mut seen = std::collections::HashSet::new();
    for (name, value) in headers {
        let pointer = format!("/headers/{}", pointer_part(name));
        let mut bad = |message: &str| errors.push(FieldError::new(pointer.clone(), message));
        let lower = name.to_ascii_lowercase();
        if let Some(problem) = bad_header_name(name) {
            bad(problem);
        } else if writers.signing.contains(&lower) {
            bad("this header carries the signature: signing writes it");
        } else if writers.auth.as_ref() == Some(&lower) {
            bad("this header carries the auth: auth writes it");
        } else if !seen.insert(lower) {
            bad("the name is given twice (names compare without case)");
        }
        let kept = existing.is_some_and(|w| w.config.header_names.iter().any(|n| n.eq_ignore_ascii_case(name)));
        if value == MASK && !kept {
            bad("the value *** keeps a present value, and there is none: give the value itself");
        } else if let Some(problem) = bounds::bad_header_value(value) {
            bad(problem);
        }
    }
}
