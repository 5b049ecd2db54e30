//! A header whose value is the secret: how Okta's event hooks are known. It proves who sends, and
//! nothing about the body.

use super::{Given, Proven};
use crate::error::Error;
use crate::headers::need;
use crate::key::Fixed;

pub(crate) struct FixedHeader {
    pub(crate) header: String,
    pub(crate) values: Vec<Fixed>,
}

impl FixedHeader {
    pub(crate) fn verify(&self, given: &Given<'_>) -> Result<Proven, Error> {
        let value = need(given.headers, &self.header)?;
        // Every one is compared, so that time does not tell which.
        let fits = self.values.iter().map(|own| own.is(value)).collect::<Vec<_>>();
        let key = fits.into_iter().position(|fits| fits).ok_or(Error::NoMatch)?;
        Ok(Proven { key, ..Proven::default() })
    }
}
