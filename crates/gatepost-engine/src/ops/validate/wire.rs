//! Rules of what is sent and how: format, signing, payload, options, auth, batch, verification, paths.

use std::collections::BTreeSet;

use gatepost_core::event::EventType;
use gatepost_core::profiles::{self, Profile, SigningPlan};
use gatepost_core::secret::{MASK, Secret};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Ordering, PayloadMode, SigningEntry, Webhook, WebhookSecrets, bounds};

use super::super::{AuthInput, WebhookInput};
use super::{OWN, is_http_header, pointer_part, within};
use crate::endpoint_auth;
use crate::engine::Engine;
use crate::error::FieldError;
use crate::net::Target;

/// The longest path of one event type, in bytes.
const PATH_MAX: usize = 512;

/// Who writes which header, beside HTTP and Gatepost itself: nobody else may.
#[derive(Default)]
pub(super) struct Writers {
    /// By the signing schemes and the verification, lower-case.
    pub(super) signing: BTreeSet<String>,
    /// By `auth`, lower-case.
    pub(super) auth: Option<String>,
}

impl Engine {
    /// Judges what is sent and how. Answers which headers are taken by it.
    pub(super) fn check_wire(
        &self,
        tenant: &Tenant,
        input: &WebhookInput,
        existing: Option<&Webhook>,
        errors: &mut Vec<FieldError>,
    ) -> Writers {
        let mut profile_name = super::profile_name(input, existing);
        match profiles::profile(profile_name).filter(|profile| profile.registrable()) {
            Some(profile) => {
                check_paths(input, profile, errors);
                for (pointer, message) in profiles::check_options(profile, &input.options) {
                    errors.push(FieldError::new(format!("/options{pointer}"), message));
                }
            }
            // Told as the profile's fault. What does not depend on it is judged all the same.
            None => profile_name = profiles::DEFAULT,
        }
        let secrets = existing.and_then(|w| self.inner.vault.open_secrets(w.id, &w.sealed_secrets).ok());
        check_format(input, profile_name, errors);
        check_pointers(input, errors);
        check_batch(input, errors);
        check_verification(input, errors);
        let mut writers = Writers { signing: check_signing(input, errors), ..Writers::default() };
        if let Ok(plan) = SigningPlan::new(profile_name, input.signing.as_deref()) {
            if input.signing.is_none() {
                writers.signing = plan.header_names().into_iter().map(|name| name.into_owned()).collect();
            }
            check_keys(&plan, input, existing, secrets.as_ref(), errors);
        }
        if let Some(auth) = &input.auth {
            self.check_auth(tenant, auth, existing, secrets.as_ref(), errors);
            writers.auth = endpoint_auth::header_name(&auth.auth);
            check_auth_header(auth, &writers, errors);
        }
        writers
    }

    fn check_auth(
        &self,
        tenant: &Tenant,
        auth: &AuthInput,
        existing: Option<&Webhook>,
        secrets: Option<&WebhookSecrets>,
        errors: &mut Vec<FieldError>,
    ) {
        let kept = existing.and_then(|webhook| webhook.config.auth.as_ref());
        let kept_secret = kept
            .filter(|kept| std::mem::discriminant(*kept) == std::mem::discriminant(&auth.auth))
            .and_then(|_| secrets?.auth.as_ref());
        let secret = match &auth.secret {
            Some(secret) if secret.expose() == MASK => kept_secret,
            given => given.as_ref(),
        };
        if secret.is_none() && auth.secret.is_some() {
            let pointer = format!("/auth/{}", auth.auth.secret_member());
            errors
                .push(FieldError::new(pointer, "*** keeps a present value, and there is none: give the value itself"));
        }
        let may_call = |url: &str| match kept {
            // As of the webhook's own URL: judged only where it changes.
            Some(gatepost_core::auth::EndpointAuth::Oauth2 { token_url, .. }) if token_url == url => Ok(()),
            _ => self.may_be_called(tenant, url),
        };
        let found = endpoint_auth::check(&auth.auth, secret, may_call);
        let told: Vec<_> = errors.iter().map(|error| error.pointer.clone()).collect();
        errors.extend(
            found
                .into_iter()
                .map(|error| FieldError::new(format!("/auth{}", error.pointer), error.message))
                .filter(|error| !told.contains(&error.pointer)),
        );
    }
}

fn names(list: impl Iterator<Item = &'static str>) -> String {
    list.collect::<Vec<_>>().join(", ")
}

fn check_format(input: &WebhookInput, profile: &str, errors: &mut Vec<FieldError>) {
    let Ok(format) = profiles::format_of(profile, input.format.as_deref()) else {
        let known = names(profiles::formats().map(|format| format.name()));
        errors.push(FieldError::new("/format", format!("must be one of {known}")));
        return;
    };
    if input.batch.is_some() && format.batch().is_none() {
        let able = profiles::formats().filter(|format| format.batch().is_some());
        let able = names(able.map(|format| format.name()));
        errors.push(FieldError::new("/batch", format!("only these formats take batches: {able}")));
    }
    let Some(payload) = &input.payload else { return };
    let mut bad = |pointer: &str, message: &str| errors.push(FieldError::new(pointer, message));
    let cuts = payload.mode == PayloadMode::Thin || payload.include.is_some() || payload.exclude.is_some();
    if cuts && !format.cuts_payload() {
        let able = names(profiles::formats().filter(|format| format.cuts_payload()).map(|format| format.name()));
        bad("/payload", &format!("only these formats leave parts of the data out: {able}"));
    } else if payload.mode == PayloadMode::Thin && !format.can_be_thin() {
        bad("/payload/mode", "thin would leave nothing to send: this format's body is the data alone");
    }
}

fn check_pointers(input: &WebhookInput, errors: &mut Vec<FieldError>) {
    let Some(payload) = &input.payload else { return };
    let mut bad = |pointer: String, message: &str| errors.push(FieldError::new(pointer, message));
    for (member, list) in [("include", &payload.include), ("exclude", &payload.exclude)] {
        let Some(list) = list else { continue };
        if list.len() > bounds::POINTERS_MAX || (member == "include" && list.is_empty()) {
            let message = if member == "include" {
                "must have 1 to 100 pointers; to send no data, use the mode thin"
            } else {
                "must have at most 100 pointers"
            };
            bad(format!("/payload/{member}"), message);
        }
        for (i, pointer) in list.iter().enumerate() {
            match profiles::pointer_tokens(pointer) {
                Ok(tokens) if tokens.is_empty() && member == "exclude" => {
                    bad(format!("/payload/{member}/{i}"), "would leave nothing: to send no data, use the mode thin");
                }
                Ok(_) => {}
                Err(problem) => bad(format!("/payload/{member}/{i}"), &problem.to_string()),
            }
        }
    }
}

fn check_batch(input: &WebhookInput, errors: &mut Vec<FieldError>) {
    let Some(batch) = &input.batch else { return };
    within(errors, "/batch/max_events", batch.max_events, bounds::BATCH_EVENTS);
    within(errors, "/batch/max_wait_ms", batch.max_wait_ms, bounds::BATCH_WAIT_MS);
    within(errors, "/batch/max_bytes", batch.max_bytes, bounds::BATCH_BYTES);
    if input.ordering == Some(Ordering::Subject) {
        let message = "cannot be had with the ordering subject, since a batch holds events about several: \
                       use none or webhook";
        errors.push(FieldError::new("/batch", message));
    }
}

fn check_verification(input: &WebhookInput, errors: &mut Vec<FieldError>) {
    let Some(verification) = &input.verification else { return };
    if profiles::mode(&verification.mode).is_none() {
        let known = names(profiles::modes().map(|mode| mode.name()));
        errors.push(FieldError::new("/verification/mode", format!("must be one of {known}")));
    } else if verification.mode == "none" && verification.required == Some(true) {
        let message = "needs a mode: none verifies nothing";
        errors.push(FieldError::new("/verification/required", message));
    }
}

fn check_paths(input: &WebhookInput, profile: &dyn Profile, errors: &mut Vec<FieldError>) {
    if input.paths.is_empty() {
        return;
    }
    if !profile.by_path() {
        errors.push(FieldError::new("/paths", "this profile has one url for all events, and no paths"));
        return;
    }
    if input.paths.len() > bounds::PATHS_MAX {
        errors.push(FieldError::new("/paths", "must have at most 100 members"));
    }
    for (event_type, path) in &input.paths {
        let mut bad = |message: String| {
            errors.push(FieldError::new(format!("/paths/{}", pointer_part(event_type)), message));
        };
        let trimmed = path.trim_start_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
        if let Err(problem) = event_type.parse::<EventType>() {
            bad(format!("the name {problem}"));
        } else if trimmed.is_empty() || path.len() > PATH_MAX || !path.bytes().all(plain) {
            bad("must be 1 to 512 characters that a URL's path may have, without ? and #".into());
        } else if trimmed.split('/').any(|part| part == "." || part == "..") {
            bad("must not have the parts . and ..".into());
        } else if let Some(Err(problem)) = input
            .url
            .as_ref()
            .filter(|url| Target::parse(url).is_ok())
            .map(|url| Target::parse(&profiles::below(url, path)))
        {
            bad(format!("below the url: {problem}"));
        }
    }
}

/// Judges the list of schemes. Answers the names of their headers.
fn check_signing(input: &WebhookInput, errors: &mut Vec<FieldError>) -> BTreeSet<String> {
    let mut taken = BTreeSet::new();
    let Some(entries) = &input.signing else { return taken };
    if !bounds::SIGNING.contains(&entries.len()) {
        errors.push(FieldError::new("/signing", "must have 1 to 4 schemes; null takes the profile's"));
    }
    let mut alone: BTreeSet<String> = BTreeSet::new();
    for (i, entry) in entries.iter().enumerate() {
        let mut bad = |member: &str, message: String| {
            errors.push(FieldError::new(format!("/signing/{i}{member}"), message));
        };
        let Some(scheme) = profiles::scheme(&entry.scheme) else {
            bad("/scheme", format!("must be one of {}", names(profiles::schemes().map(|scheme| scheme.name()))));
            continue;
        };
        if entry.scheme == "none" {
            if entries.len() > 1 {
                bad("/scheme", "none stands alone".into());
            } else if input.auth.is_none() {
                bad("/scheme", "none only goes with auth: else nothing would show who sends".into());
            }
        }
        if let Some(problem) = entry.header.as_deref().and_then(|name| bad_signing_header(scheme.takes_header(), name))
        {
            bad("/header", problem);
            continue;
        }
        let again = |before: &SigningEntry| before.scheme == entry.scheme && same(&before.header, &entry.header);
        if entries[..i].iter().any(again) {
            bad("", "is listed twice".into());
            continue;
        }
        let header = entry.header.as_ref().map(|name| name.to_ascii_lowercase());
        for header in scheme.headers(header.as_deref()) {
            let name = header.name.into_owned();
            if alone.contains(&name) || (taken.contains(&name) && !header.shared) {
                let at = if entry.header.is_some() { "/header" } else { "" };
                bad(at, format!("another scheme writes the header {name} already: give one of them another"));
            }
            if !header.shared {
                alone.insert(name.clone());
            }
            taken.insert(name);
        }
    }
    taken
}

fn same(one: &Option<String>, two: &Option<String>) -> bool {
    let lower = |name: &Option<String>| name.as_ref().map(|name| name.to_ascii_lowercase());
    lower(one) == lower(two)
}

/// What is wrong with the header a scheme is to write.
fn bad_signing_header(takes: bool, name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if !takes {
        return Some("this scheme's headers have names of their own".into());
    }
    if name.is_empty() || name.len() > 256 || http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Some("is not an HTTP header name (RFC 9110 token)".into());
    }
    let ours = lower.starts_with(OWN) && lower != "gatepost-signature";
    let others = lower == "authorization" || lower.starts_with("webhook-") || lower.starts_with("ce-");
    (ours || others || is_http_header(&lower))
        .then(|| "this header is reserved: Gatepost, HTTP or another scheme sets it".into())
}

/// Judges an imported secret, and the kept ones where the schemes change.
fn check_keys(
    plan: &SigningPlan,
    input: &WebhookInput,
    existing: Option<&Webhook>,
    secrets: Option<&WebhookSecrets>,
    errors: &mut Vec<FieldError>,
) {
    match (&input.secret, existing) {
        (Some(secret), None) => {
            if let Err(problem) = plan.check_secret(secret) {
                errors.push(FieldError::new("/secret", problem));
            }
        }
        (None, Some(webhook)) if webhook.config.signing != input.signing => {
            if let Some(Err(problem)) = secrets.map(|secrets| plan.suits(&secrets.signing)) {
                let message = format!(
                    "the present secret does not suit these schemes (it {problem}): first bring one that does, \
                     by rotate-secret with secret"
                );
                errors.push(FieldError::new("/signing", message));
            }
        }
        _ => {}
    }
}

/// The header of `auth` must be nobody else's.
fn check_auth_header(auth: &AuthInput, writers: &Writers, errors: &mut Vec<FieldError>) {
    let Some(name) = &writers.auth else { return };
    let chosen = matches!(&auth.auth, gatepost_core::auth::EndpointAuth::Header { .. });
    let at = if chosen { "/auth/name" } else { "/auth/type" };
    if chosen && let Some(problem) = super::bad_header_name(name) {
        errors.push(FieldError::new(at, problem));
    } else if writers.signing.contains(name) {
        errors.push(FieldError::new(at, format!("the signing scheme writes the header {name} already")));
    }
}

/// The secret that is kept where `***` is given.
pub(in crate::ops) fn auth_secret(input: &AuthInput, present: Option<&Secret>) -> Option<Secret> {
    match &input.secret {
        Some(secret) if secret.expose() == MASK => present.cloned(),
        given => given.clone(),
    }
}
