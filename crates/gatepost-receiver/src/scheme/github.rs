//! `sha256=<hex>` over the body alone: nothing in it tells how old a request is.

use super::{Given, Proven, fitting};
use crate::error::Error;
use crate::headers::need;
use crate::key::{Shared, unhex};

pub(crate) struct GitHub {
    pub(crate) header: String,
    pub(crate) keys: Vec<Shared>,
}

impl GitHub {
    pub(crate) fn verify(&self, given: &Given<'_>) -> Result<Proven, Error> {
        let value = need(given.headers, &self.header)?;
        let tag = value.strip_prefix("sha256=").and_then(unhex);
        let tag = tag.ok_or_else(|| Error::malformed(&self.header, "sha256= and 64 hexadecimal digits"))?;
        let key = fitting(&self.keys, &[tag], &[given.body])?;
        Ok(Proven { key, covers_body: true, ..Proven::default() })
    }
}
