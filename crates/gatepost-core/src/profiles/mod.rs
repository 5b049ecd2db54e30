//! Profiles: named presets of format, signing, acknowledgement and retry.
//!
//! A profile is one folder here and one line in [`all`]; nothing else in the engine or the store
//! names a system. A profile without a wire form holds only its policy and takes no webhooks yet.

use bytes::Bytes;

use crate::event::Event;
use crate::retry::RetryPolicy;
use crate::signing::Signer;
use crate::{TenantId, Timestamp};

mod cloudevents;
mod cryptr;
mod cymmetri;
mod ferriskey;
mod okta;
mod standard;

/// The profile of a webhook that names none.
pub const DEFAULT: &str = "standard";

/// A named preset.
pub trait Profile: Send + Sync {
    /// Its name, as in a webhook's `profile`.
    fn name(&self) -> &'static str;

    /// How answers are judged and failures retried, before a webhook's overrides.
    fn retry(&self) -> &RetryPolicy;

    /// How an event looks on the wire; `None` when webhooks of this profile cannot be made yet.
    fn wire(&self) -> Option<&dyn Wire>;

    /// Whether webhooks of this profile can be made.
    fn registrable(&self) -> bool {
        self.wire().is_some()
    }

    /// Whether sustained failure disables a webhook of this profile.
    fn auto_disable(&self) -> bool {
        true
    }
}

/// What a body is made of: facts frozen when the event was accepted, so that the same facts always
/// make the same bytes (P3).
#[derive(Clone, Copy, Debug)]
pub struct RenderFacts<'a> {
    /// What happened.
    pub event: &'a Event,
    /// Whose event it is.
    pub tenant_id: &'a TenantId,
}

/// What the signature headers of one attempt are made of.
#[derive(Clone, Copy, Debug)]
pub struct SignFacts<'a> {
    /// The id a receiver tells duplicates by: the event's.
    pub message_id: &'a str,
    /// The attempt's time.
    pub now: Timestamp,
    /// The body, exactly as sent.
    pub body: &'a [u8],
}

/// Format and signing of one profile.
pub trait Wire: Send + Sync {
    /// The value of `content-type`.
    fn content_type(&self) -> &'static str;

    /// The body of a single event.
    fn body(&self, facts: &RenderFacts<'_>) -> Bytes;

    /// The names of the headers [`Wire::sign`] appends, in its order.
    fn signed_headers(&self) -> &'static [&'static str];

    /// Appends the headers (lower-case name, value) that carry id, time and signature.
    fn sign(&self, signer: &Signer, facts: &SignFacts<'_>, headers: &mut Vec<(&'static str, String)>);
}

/// Every profile, in the order they are listed to people.
pub fn all() -> &'static [&'static dyn Profile] {
    &[
        &standard::Standard,
        &cloudevents::CloudEvents,
        &cryptr::Cryptr,
        &ferriskey::FerrisKey,
        &okta::Okta,
        &cymmetri::Cymmetri,
    ]
}

/// The profile with this name, else the default one.
pub fn profile_or_default(name: &str) -> &'static dyn Profile {
    profile(name).unwrap_or(&standard::Standard)
}

/// The profile with this name.
pub fn profile(name: &str) -> Option<&'static dyn Profile> {
    all().iter().copied().find(|profile| profile.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_profiles() {
        let names: Vec<_> = all().iter().map(|p| (p.name(), p.registrable(), p.auto_disable())).collect();
        assert_eq!(
            names,
            [
                ("standard", true, true),
                ("cloudevents", true, true),
                ("cryptr", false, false),
                ("ferriskey", false, true),
                ("okta", false, true),
                ("cymmetri", false, true),
            ]
        );
        assert!(profile(DEFAULT).is_some_and(|p| p.registrable()));
        assert!(profile("Standard").is_none());
    }
}
