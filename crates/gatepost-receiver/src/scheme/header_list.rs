//! Schemes over `{t}.{body}` with a text as the key: `timestamped` (`t=…,v1=<hex>`), Cryptr's
//! (`t=…,v1=sha256.<hex>,v0=sha256.<hex>`) and FerrisKey's (three headers).

use super::{Given, Proven, SIGNATURES_MAX, fitting};
use crate::error::Error;
use crate::headers::{need, seconds};
use crate::key::{Shared, unhex};

/// How one header lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// `v1=<hex>`, one per key.
    Timestamped,
    /// `v1=sha256.<hex>` of the present key, `v0=sha256.<hex>` of the one before.
    Cryptr,
}

impl Style {
    fn wanted(self) -> &'static str {
        match self {
            Style::Timestamped => "t=<seconds>,v1=<hex>",
            Style::Cryptr => "t=<seconds>,v1=sha256.<hex>",
        }
    }

    /// The tag an item holds; `None`: the item is none of this style's.
    fn tag(self, name: &str, value: &str) -> Option<[u8; 32]> {
        match (self, name) {
            (Style::Timestamped, "v1") => unhex(value),
            (Style::Cryptr, "v1" | "v0") => value.strip_prefix("sha256.").and_then(unhex),
            _ => None,
        }
    }
}

/// One header with the time and the tags.
pub(crate) struct List {
    pub(crate) header: String,
    pub(crate) style: Style,
    pub(crate) keys: Vec<Shared>,
}

impl List {
    pub(crate) fn verify(&self, given: &Given<'_>) -> Result<Proven, Error> {
        let value = need(given.headers, &self.header)?;
        let malformed = || Error::malformed(&self.header, self.style.wanted());
        let (mut time, mut tags) = (None, Vec::new());
        for (number, item) in value.split(',').enumerate() {
            if number > SIGNATURES_MAX {
                return Err(malformed());
            }
            let (name, value) = item.trim().split_once('=').ok_or_else(malformed)?;
            if name == "t" {
                // The time is signed as it is written.
                if time.replace(value).is_some() {
                    return Err(malformed());
                }
            }
            tags.extend(self.style.tag(name, value));
        }
        let time = time.ok_or_else(malformed)?;
        let signed_at = seconds(&self.header, time)?;
        if tags.is_empty() {
            return Err(malformed());
        }
        given.near(signed_at)?;
        let key = fitting(&self.keys, &tags, &[time.as_bytes(), b".", given.body])?;
        Ok(Proven { signed_at: Some(signed_at), key, covers_body: true, ..Proven::default() })
    }
}

/// FerrisKey's three headers.
pub(crate) struct FerrisKey {
    pub(crate) keys: Vec<Shared>,
}

impl FerrisKey {
    pub(crate) fn verify(&self, given: &Given<'_>) -> Result<Proven, Error> {
        const SIGNATURE: &str = "x-ferriskey-signature";
        const TIMESTAMP: &str = "x-ferriskey-timestamp";
        let signature = need(given.headers, SIGNATURE)?;
        let timestamp = need(given.headers, TIMESTAMP)?;
        let delivery = need(given.headers, "x-ferriskey-delivery-id")?;
        let tag = unhex(signature).ok_or_else(|| Error::malformed(SIGNATURE, "64 hexadecimal digits"))?;
        let signed_at = seconds(TIMESTAMP, timestamp)?;
        given.near(signed_at)?;
        let key = fitting(&self.keys, &[tag], &[timestamp.as_bytes(), b".", given.body])?;
        Ok(Proven {
            id: Some((delivery.to_owned(), false)),
            signed_at: Some(signed_at),
            key,
            claims: None,
            covers_body: true,
        })
    }
}
