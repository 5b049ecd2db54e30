//! Bodies, rendered from facts frozen at acceptance (P3).

use bytes::Bytes;
use gatepost_core::TenantId;
use gatepost_core::event::Event;
use gatepost_core::profiles::{self, RenderFacts, Wire};

/// The wire form of a profile that takes webhooks.
pub(crate) fn wire(profile: &str) -> Option<&'static dyn Wire> {
    profiles::profile(profile).and_then(|p| p.wire())
}

/// The body of one event for a webhook of `profile`: the same facts always make the same bytes.
pub(crate) fn body(profile: &str, event: &Event, tenant_id: &TenantId) -> Option<Bytes> {
    wire(profile).map(|wire| wire.body(&RenderFacts { event, tenant_id }))
}
