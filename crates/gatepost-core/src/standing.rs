//! Whether a webhook takes anything: enabled, and verified where that is required.

use crate::profiles;
use crate::webhook::WebhookConfig;

/// Whether a webhook's own registration, or its profile, asks for verification.
pub fn must_verify(config: &WebhookConfig) -> bool {
    profiles::verifying(config, false).required
}

/// Whether the endpoint has to be verified and is not. `require_all`: the tenant's setting
/// `require_verification`.
pub fn is_unverified(config: &WebhookConfig, require_all: bool) -> bool {
    config.verified_at.is_none() && profiles::verifying(config, require_all).required
}

/// Whether anything is sent.
pub fn takes(config: &WebhookConfig, require_all: bool) -> bool {
    config.enabled && !is_unverified(config, require_all)
}
