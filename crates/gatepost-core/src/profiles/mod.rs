//! Profiles: named presets of format, signing, addressing, verification, acknowledgement and retry.
//!
//! What a webhook may choose by name comes from the *folders* below: formats, signing schemes, ways of
//! verification, and the profile that presets them. A system is one folder here and one line in
//! [`FOLDERS`]; nothing else in core, engine or store names it. A profile without a format holds only
//! its rules and takes no webhooks yet.
//!
//! How a request comes to be: [`Wire`] renders the body from the webhook's configuration at the
//! revision the delivery was made under (P3); [`SigningPlan`] says what signs, with today's keys;
//! [`address`] says where it goes.

mod cloudevents;
mod common;
pub mod cryptr;
mod cymmetri;
mod facts;
pub mod ferriskey;
mod foreign;
mod format;
pub mod okta;
mod options;
mod payload;
mod plan;
mod scheme;
mod standard;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verification;
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::event::EventType;
use crate::own_events::OwnEvent;
use crate::retry::RetryPolicy;
use crate::webhook::WebhookConfig;
use crate::{Entropy, Timestamp, WebhookId};

pub use facts::{BatchFacts, Frame, Item, RenderFacts, SignFacts};
pub use format::{BatchFormat, FilterData, Format};
pub use options::{check_options, http1_only, unknown_options};
pub use payload::{BadPointer, POINTER_MAX, tokens as pointer_tokens};
pub use plan::{BadRotation, Signers, SigningPlan};
pub use scheme::{KeyForm, Scheme, SchemeHeader, SignedHeader, SignedHeaders, Signer};
pub use verification::{Answer, Ask, AskFacts, Challenge, DefaultVerification, VerificationMode};
pub use wire::{Wire, WireError, format_of};

/// The profile of a webhook that names none.
pub const DEFAULT: &str = "standard";

/// Every folder, in the order its names are listed to people. A system's one line.
static FOLDERS: &[Folder] = &[
    standard::FOLDER,
    cloudevents::FOLDER,
    common::FOLDER,
    cryptr::FOLDER,
    ferriskey::FOLDER,
    okta::FOLDER,
    cymmetri::FOLDER,
];

/// What one folder brings.
struct Folder {
    profile: Option<&'static dyn Profile>,
    formats: &'static [&'static dyn Format],
    schemes: &'static [&'static dyn Scheme],
    modes: &'static [&'static dyn VerificationMode],
    /// Names of headers, lower-case, no webhook may set for itself; one that ends in `-` stands for all
    /// that begin with it.
    reserved: &'static [&'static str],
}

impl Folder {
    /// Brings nothing.
    const EMPTY: Folder = Folder { profile: None, formats: &[], schemes: &[], modes: &[], reserved: &[] };
}

/// A named preset.
pub trait Profile: Send + Sync {
    /// Its name, as in a webhook's `profile`.
    fn name(&self) -> &'static str;

    /// How answers are judged and failures retried, before a webhook's overrides.
    fn retry(&self) -> &RetryPolicy;

    /// How events look in a body; `None` when webhooks of this profile cannot be made yet.
    fn format(&self) -> Option<&'static dyn Format>;

    /// How requests are signed.
    fn schemes(&self) -> &'static [&'static dyn Scheme] {
        &[]
    }

    /// Whether webhooks of this profile can be made.
    fn registrable(&self) -> bool {
        self.format().is_some()
    }

    /// Whether sustained failure disables a webhook of this profile.
    fn auto_disable(&self) -> bool {
        true
    }

    /// How endpoints prove that they want what they get.
    fn verification(&self) -> DefaultVerification {
        DefaultVerification::NONE
    }

    /// Whether each event type has a path below the webhook's URL.
    fn by_path(&self) -> bool {
        false
    }

    /// The path of a type the webhook's `paths` do not name; `None`: it has none.
    fn default_path<'t>(&self, event_type: &'t EventType) -> Option<&'t str> {
        let _ = event_type;
        None
    }

    /// What tests (without a type) and verification by `post` send instead of a `gatepost.ping` event.
    fn probe(&self) -> Option<Probe> {
        None
    }

    /// The attributes an example of one of this system's event types has besides its data.
    fn example_attributes(&self, event_type: &EventType) -> Option<Bytes> {
        let _ = event_type;
        None
    }

    /// Everything wrong with a webhook's `options`: pointers into it, and messages.
    fn check_options(&self, options: &Map<String, Value>) -> Vec<(String, String)> {
        unknown_options(options, &[])
    }

    /// Minutes a credential for calls back lives that goes out with every request; `None`: none does.
    fn callback_minutes(&self, options: &Map<String, Value>) -> Option<u32> {
        let _ = options;
        None
    }

    /// The name under which webhooks of this profile ask for, and hear, one of Gatepost's own events;
    /// `None`: Gatepost's own.
    fn own_name(&self, own: OwnEvent) -> Option<&'static str> {
        let _ = own;
        None
    }

    /// The id of a new webhook. A system whose own ids hold fewer bits draws only those here, so that
    /// [`Profile::native_id`] loses none.
    fn new_webhook_id(&self, at: Timestamp, entropy: &dyn Entropy) -> WebhookId {
        WebhookId::new(at, entropy)
    }

    /// A webhook's id as this system writes ids: in bodies, and in its own API.
    fn native_id(&self, id: WebhookId) -> String {
        id.to_string()
    }

    /// The webhook a text of [`Profile::native_id`] means.
    fn parse_native_id(&self, text: &str) -> Option<WebhookId> {
        text.parse().ok()
    }
}

/// A request that only asks whether somebody is there: signed like any other, at a path of its own.
#[derive(Clone, Copy)]
pub struct Probe {
    /// The path below the webhook's URL.
    pub path: &'static str,
    /// The body; JSON.
    pub body: &'static [u8],
    /// Whether an answer is a yes; else why not.
    pub judge: fn(&Answer<'_>) -> Result<(), String>,
}

/// Every profile, in the order they are listed to people.
pub fn all() -> impl Iterator<Item = &'static dyn Profile> {
    FOLDERS.iter().filter_map(|folder| folder.profile)
}

/// The profile with this name, else the default one.
pub fn profile_or_default(name: &str) -> &'static dyn Profile {
    profile(name).unwrap_or(&standard::Standard)
}

/// The attributes an example of this event type has besides its data, if its system's envelope carries any.
pub fn example_attributes(event_type: &EventType) -> Option<Bytes> {
    all().find_map(|profile| profile.example_attributes(event_type))
}

/// The profile with this name.
pub fn profile(name: &str) -> Option<&'static dyn Profile> {
    all().find(|profile| profile.name() == name)
}

/// Every format, in the order they are listed to people.
pub fn formats() -> impl Iterator<Item = &'static dyn Format> {
    FOLDERS.iter().flat_map(|folder| folder.formats).copied()
}

/// The format with this name.
pub fn format(name: &str) -> Option<&'static dyn Format> {
    formats().find(|format| format.name() == name)
}

/// Every signing scheme, in the order they are listed to people.
pub fn schemes() -> impl Iterator<Item = &'static dyn Scheme> {
    FOLDERS.iter().flat_map(|folder| folder.schemes).copied()
}

/// The signing scheme with this name.
pub fn scheme(name: &str) -> Option<&'static dyn Scheme> {
    schemes().find(|scheme| scheme.name() == name)
}

/// Every way of verification, in the order they are listed to people.
pub fn modes() -> impl Iterator<Item = &'static dyn VerificationMode> {
    FOLDERS.iter().flat_map(|folder| folder.modes).copied()
}

/// The way of verification with this name.
pub fn mode(name: &str) -> Option<&'static dyn VerificationMode> {
    modes().find(|mode| mode.name() == name)
}

/// Whether a header (lower-case) belongs to a signature or a format and no webhook may set it itself.
pub fn is_reserved_header(name: &str) -> bool {
    FOLDERS.iter().flat_map(|folder| folder.reserved).any(|reserved| match reserved.strip_suffix('-') {
        Some(_) => name.starts_with(reserved),
        None => name == *reserved,
    })
}

/// How a webhook's endpoint is verified, defaults applied.
#[derive(Clone, Copy)]
pub struct Verifying {
    /// How.
    pub mode: &'static dyn VerificationMode,
    /// Whether nothing is sent before it has succeeded.
    pub required: bool,
}

/// How a webhook's endpoint is verified: its own choice, else its profile's. `require_all`: the
/// tenant's `require_verification`, under which a webhook without a way of its own proves itself by
/// `post`.
pub fn verifying(config: &WebhookConfig, require_all: bool) -> Verifying {
    let default = profile_or_default(&config.profile).verification();
    let (name, required) = match &config.verification {
        // A way that asks nothing requires nothing unless it says so.
        Some(choice) => (&*choice.mode, choice.required.unwrap_or(default.required && choice.mode != "none")),
        None => (default.mode, default.required),
    };
    let name = if require_all && name == "none" { "post" } else { name };
    // A mode this server does not have (any more) is asked for in the usual way.
    let mode = mode(name).unwrap_or(&verification::Post);
    Verifying { mode, required: required || require_all }
}

/// Where an event goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address<'a> {
    /// To the webhook's URL.
    Url,
    /// To this path below it; see [`below`].
    Path(&'a str),
    /// Nowhere: the type has no path, so the webhook does not match it.
    Nowhere,
}

/// Where an event of this type goes.
pub fn address<'a>(config: &'a WebhookConfig, event_type: &'a EventType) -> Address<'a> {
    let profile = profile_or_default(&config.profile);
    if !profile.by_path() {
        return Address::Url;
    }
    path(profile, &config.paths, event_type).map_or(Address::Nowhere, Address::Path)
}

/// The path an event of this type goes to, of a profile that addresses by path and a webhook's own paths.
pub(crate) fn path<'a>(
    profile: &dyn Profile,
    own: &'a BTreeMap<String, String>,
    event_type: &'a EventType,
) -> Option<&'a str> {
    own.get(event_type.as_str()).map(String::as_str).or_else(|| profile.default_path(event_type))
}

/// The URL an event goes to; `None`: nowhere.
pub fn url_of<'a>(config: &'a WebhookConfig, event_type: &EventType) -> Option<Cow<'a, str>> {
    match address(config, event_type) {
        Address::Url => Some(Cow::Borrowed(&config.url)),
        Address::Path(path) => Some(Cow::Owned(below(&config.url, path))),
        Address::Nowhere => None,
    }
}

/// The URL of `path` below `url`: joined by one slash, before a query if there is one.
pub fn below(url: &str, path: &str) -> String {
    let (base, query) = match url.find(['?', '#']) {
        Some(at) => url.split_at(at),
        None => (url, ""),
    };
    format!("{}/{}{query}", base.trim_end_matches('/'), path.trim_start_matches('/'))
}
