//! Whether a webhook takes anything (enabled, and verified where that is required), and whether it is
//! sent to (not paused besides).

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

/// Whether events are matched against it.
pub fn takes(config: &WebhookConfig, require_all: bool) -> bool {
    config.enabled && !is_unverified(config, require_all)
}

/// Whether anything is sent. What a paused webhook takes waits for it.
pub fn sends(config: &WebhookConfig, require_all: bool) -> bool {
    takes(config, require_all) && !config.paused
}
