//! How requests are signed. Each file is one scheme: what it reads from the headers, and what it is
//! computed over.

mod fixed;
mod github;
mod header_list;
mod standard;
pub(crate) mod token;

use std::time::Duration;

pub(crate) use fixed::FixedHeader;
pub(crate) use github::GitHub;
pub(crate) use header_list::{FerrisKey, List, Style};
pub(crate) use standard::Standard;
pub(crate) use token::{Claims, Token};

use crate::error::Error;
use crate::headers::Headers;
use crate::key::Shared;

/// Signatures of one request that are looked at: each costs time, and Gatepost sends no more than ten.
pub(crate) const SIGNATURES_MAX: usize = 16;

/// What a scheme is given.
pub(crate) struct Given<'a> {
    pub(crate) headers: &'a dyn Headers,
    pub(crate) body: &'a [u8],
    /// Unix seconds.
    pub(crate) now: i64,
    pub(crate) tolerance: Duration,
}

impl Given<'_> {
    /// Whether a time is near enough.
    pub(crate) fn near(&self, at: i64) -> Result<(), Error> {
        let by_s = self.now.abs_diff(at);
        match by_s <= self.tolerance.as_secs() {
            true => Ok(()),
            false if at < self.now => Err(Error::TooOld { by_s }),
            false => Err(Error::TooNew { by_s }),
        }
    }
}

/// What a signature proved.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Proven {
    /// The message's id, and whether the signature covers it.
    pub(crate) id: Option<(String, bool)>,
    /// Unix seconds.
    pub(crate) signed_at: Option<i64>,
    /// Which of the keys fitted.
    pub(crate) key: usize,
    /// Of a token.
    pub(crate) claims: Option<Claims>,
    /// Whether the body is covered.
    pub(crate) covers_body: bool,
}

/// A scheme with its keys.
pub(crate) enum Verifier {
    Standard(Standard),
    List(List),
    FerrisKey(FerrisKey),
    GitHub(GitHub),
    Token(Token),
    Fixed(FixedHeader),
}

impl Verifier {
    pub(crate) fn verify(&self, given: &Given<'_>) -> Result<Proven, Error> {
        match self {
            Verifier::Standard(scheme) => scheme.verify(given),
            Verifier::List(scheme) => scheme.verify(given),
            Verifier::FerrisKey(scheme) => scheme.verify(given),
            Verifier::GitHub(scheme) => scheme.verify(given),
            Verifier::Token(scheme) => scheme.verify(given),
            Verifier::Fixed(scheme) => scheme.verify(given),
        }
    }
}

/// The first of the keys that one of the tags fits.
fn fitting(keys: &[Shared], tags: &[[u8; 32]], parts: &[&[u8]]) -> Result<usize, Error> {
    let fits = |key: &Shared| {
        let own = key.tag(parts);
        tags.iter().any(|tag| crate::key::same(own.as_ref(), tag))
    };
    keys.iter().position(fits).ok_or(Error::NoMatch)
}
