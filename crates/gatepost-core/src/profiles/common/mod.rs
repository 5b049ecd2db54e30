//! What belongs to no system: the format `raw`, the signing schemes other senders made common, and the
//! ways of verification any webhook may choose.

mod github;
mod timestamped;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::facts::RenderFacts;
use super::format::Format;
use super::scheme::{KeyForm, Scheme, SchemeHeader, SignedHeaders, Signer};
use super::verification::{NoVerification, Options, Post};
use super::{Folder, SignFacts};
use crate::signing::BadSecret;
use crate::webhook::SigningKey;

pub(super) const FOLDER: Folder = Folder {
    formats: &[&Raw],
    schemes: &[&timestamped::Timestamped, &github::GitHub, &Unsigned],
    modes: &[&NoVerification, &Post, &Options],
    reserved: &["x-hub-signature", "x-hub-signature-256"],
    ..Folder::EMPTY
};

/// Format `raw`: the body is `data`, byte for byte.
struct Raw;

impl Format for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn body(&self, facts: &RenderFacts<'_>) -> Bytes {
        facts.item.data.clone().unwrap_or_default()
    }

    fn cuts_payload(&self) -> bool {
        true
    }

    /// There would be nothing left.
    fn can_be_thin(&self) -> bool {
        false
    }
}

/// Scheme `none`: nothing but what the webhook's `auth` proves.
struct Unsigned;

impl Scheme for Unsigned {
    fn name(&self) -> &'static str {
        "none"
    }

    fn key(&self) -> KeyForm {
        KeyForm::Nothing
    }

    fn headers(&self, _: Option<&str>) -> Vec<SchemeHeader> {
        Vec::new()
    }

    fn signer(&self, _: &[&SigningKey], _: Option<&str>, _: &Map<String, Value>) -> Result<Box<dyn Signer>, BadSecret> {
        Ok(Box::new(Unsigned))
    }
}

impl Signer for Unsigned {
    fn sign(&self, _: &SignFacts<'_>, _: &mut SignedHeaders) {}
}
